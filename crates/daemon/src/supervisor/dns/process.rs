//! The process as the supervisor holds it: started, told, listened to, killed.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::Event;
use crate::dns::messages::{FromResolver, LetOut, Report, ToResolver};
use crate::ipc::Channel;
use crate::supervisor::Done;
use crate::supervisor::companion::{self, Companion};

/// A message of it: counters, and what is wrong; or names with their addresses.
const MESSAGE_MAX: usize = 64 << 10;

/// Reports are not read faster than this; it has one to say in a second. Once it was taken over it might say them
/// without end.
const SELDOM: Duration = Duration::from_millis(50);
/// After it was done that something goes direct, until it may ask for more: so long at least and at most, and
/// otherwise this many times as long as it took.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
const REST_TIMES: u32 = 3;

/// A running one.
pub(super) struct Process {
    process: Companion,
    pub(super) started: Instant,
    /// What it said last. It may say as much as it likes: only that is kept.
    report: Arc<Mutex<Report>>,
}

impl Process {
    pub(super) fn spawn(
        generation: u64,
        user: (u32, u32),
        done: UnboundedSender<Done>,
    ) -> Result<Self, String> {
        let report = Arc::new(Mutex::new(Report::default()));
        let heard = Arc::clone(&report);
        let process = Companion::spawn("serve-dns", user, false, move |channel, child| {
            let let_out = |asked| {
                let (reply, answer) = oneshot::channel();
                let event = Event::LetOut {
                    generation,
                    asked,
                    done: reply,
                };
                let asked = done.send(Done::Dns(event));
                asked.is_ok() && answer.blocking_recv().unwrap_or(false)
            };
            let how = listen(channel, child, &heard, let_out);
            let _ = done.send(Done::Dns(Event::Gone { generation, how }));
        })
        .map_err(|e| format!("cannot start it: {e}"))?;
        Ok(Self {
            process,
            started: Instant::now(),
            report,
        })
    }

    /// One that does not listen is ended; its end is noticed by who reads.
    pub(super) fn tell(&self, message: &ToResolver, fds: &[OwnedFd]) {
        if let Err(error) = self.process.send(message, fds) {
            tracing::warn!("the process that answers devices does not listen ({error}): ending it");
            self.kill();
        }
    }

    pub(super) fn report(&self) -> Report {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn kill(&self) {
        self.process.kill();
    }
}

/// A thread of its own: what it reports and asks for, until its end; how that came. `let_out` waits until that is done,
/// so there is one such wish at a time.
fn listen(
    channel: &Channel,
    mut child: Child,
    heard: &Mutex<Report>,
    let_out: impl Fn(Vec<LetOut>) -> bool,
) -> String {
    let mut next_report = Instant::now();
    let understood = loop {
        match channel.receive_bare::<FromResolver>(MESSAGE_MAX) {
            Ok(Some(FromResolver::Report(report))) => {
                // What is asked for right behind one does not wait for it.
                std::thread::sleep(next_report.saturating_duration_since(Instant::now()));
                next_report = Instant::now() + SELDOM;
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
            Ok(Some(FromResolver::LetOut { id, asked })) => {
                let begun = Instant::now();
                let done = let_out(asked);
                let rest = rest_after(begun.elapsed());
                if let Err(error) = channel.send(&ToResolver::LetOut { id, done }, &[]) {
                    break Err(error);
                }
                std::thread::sleep(rest);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // One that has closed its end is of no use any more.
    let _ = child.kill();
    companion::end(child, understood)
}

/// Who changes the kernel for it is at its service for a part of the time, whatever it asks for.
fn rest_after(took: Duration) -> Duration {
    let (least, most) = REST;
    took.saturating_mul(REST_TIMES).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::Channel;

    #[test]
    fn what_takes_longer_is_done_less_often() {
        let millis = Duration::from_millis;
        for (took, rest) in [(0, 5), (1, 5), (10, 30), (60, 180), (100, 250), (9000, 250)] {
            assert_eq!(rest_after(millis(took)), millis(rest), "{took}");
        }
    }

    #[test]
    fn wishes_without_end_are_done_one_after_the_other_with_rests() {
        const WISHES: u64 = 8;
        let (channel, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        for id in 0..WISHES {
            let asked = FromResolver::LetOut {
                id,
                asked: Vec::new(),
            };
            theirs.send(&asked, &[]).unwrap();
        }
        // It asks for no more, and hears what comes of these.
        rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).unwrap();
        let child = std::process::Command::new("true").spawn().unwrap();
        let took = Duration::from_millis(10);
        let begun = Instant::now();
        let heard = Mutex::new(Report::default());
        listen(&channel, child, &heard, |_| {
            std::thread::sleep(took);
            true
        });
        assert!(begun.elapsed() >= (took + took * REST_TIMES) * (WISHES as u32));
        drop(channel);
        let told = std::iter::from_fn(|| theirs.receive_bare(MESSAGE_MAX).unwrap());
        let done = told.map(|told| match told {
            ToResolver::LetOut { id, done } => (id, done),
            other => panic!("{other:?}"),
        });
        let all: Vec<(u64, bool)> = (0..WISHES).map(|id| (id, true)).collect();
        assert_eq!(done.collect::<Vec<_>>(), all);
    }
}

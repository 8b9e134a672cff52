//! The process as the supervisor holds it: started, told, listened to, killed.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::dns::messages::{Report, ToResolver};
use crate::ipc::Channel;
use crate::supervisor::Done;
use crate::supervisor::companion::{self, Companion};

/// A message of it: counters, and what is wrong.
const MESSAGE_MAX: usize = 64 << 10;

/// Messages are not read faster than this; it has one to say in a second. Once it was taken over it might say them
/// without end.
const SELDOM: Duration = Duration::from_millis(50);

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
            let how = listen(channel, child, &heard);
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

/// A thread of its own: what it reports, until its end; how that came.
fn listen(channel: &Channel, mut child: Child, heard: &Mutex<Report>) -> String {
    let understood = loop {
        match channel.receive_bare::<Report>(MESSAGE_MAX) {
            Ok(Some(report)) => {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = report;
                std::thread::sleep(SELDOM);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // One that has closed its end is of no use any more.
    let _ = child.kill();
    companion::end(child, understood)
}

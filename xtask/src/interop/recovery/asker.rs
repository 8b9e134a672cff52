//! A device that asks a host of the internet a hundred times a second, over IPv4 and IPv6, and notes when each answer
//! came: by it the moment is known at which a tunnel carries again.

use super::super::resilience::home::WEB6;
use crate::lab::world::WEB;
use crate::lab::{Context, Namespace, Result, interrupt, join, on_host, wait_for};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where it is asked, where nothing else is said.
const PORT: u16 = 7;
/// Between two questions of one family.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the host waits for a question before it looks whether it is to stop.
const IDLE: Duration = Duration::from_millis(100);

/// Asks, and answers, until it is dropped. Each family has one flow that goes on all the time: whatever befalls the
/// tunnel, the device begins nothing anew.
pub(in crate::interop) struct Asker {
    stop: Arc<AtomicBool>,
    answers: [Arc<Mutex<Vec<Answer>>>; 2],
    threads: Vec<JoinHandle<Result<()>>>,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
struct Answer {
    asked: Instant,
    came: Instant,
    /// Whom the host has seen.
    seen: IpAddr,
}

impl Asker {
    /// `device` asks `host`, which has the lab's two addresses of a web host.
    pub(in crate::interop) fn start(device: &Namespace, host: &Namespace) -> Result<Self> {
        Self::start_at(device, host, PORT, Duration::ZERO)
    }

    /// The same at this port. The host thinks about each question for so long: answers are under way all the time.
    pub(in crate::interop) fn start_at(
        device: &Namespace,
        host: &Namespace,
        port: u16,
        thinks: Duration,
    ) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let mut all = Self {
            stop: Arc::clone(&stop),
            answers: Default::default(),
            threads: vec![on_host(host, move || answer(port, thinks, &stop))],
        };
        for (address, answers) in [WEB, WEB6].into_iter().zip(&all.answers) {
            let whom = SocketAddr::new(address.parse().context(address)?, port);
            let (stop, answers) = (Arc::clone(&all.stop), Arc::clone(answers));
            all.threads
                .push(on_host(device, move || ask(whom, &stop, &answers)));
        }
        Ok(all)
    }

    /// Waits until a question of each family that was asked after `since` has been answered to `seen`; when the later
    /// of the two answers came.
    pub(in crate::interop) fn answered_since(
        &self,
        since: Instant,
        seen: [IpAddr; 2],
        patience: Duration,
    ) -> Result<Instant> {
        let first = |family: usize| {
            let answers = self.answers[family].lock();
            let answers = answers.unwrap_or_else(PoisonError::into_inner);
            let good = |answer: &&Answer| answer.asked > since && answer.seen == seen[family];
            answers.iter().find(good).map(|answer| answer.came)
        };
        let found = wait_for("a question of each family is answered", patience, || {
            Ok(first(0).zip(first(1)).map(|(v4, v6)| v4.max(v6)))
        });
        found.map_err(|failure| {
            let last = [0, 1].map(|family| self.last_answer(family));
            failure.while_doing(format!(
                "to {seen:?}; the last answers: {}",
                last.join(", ")
            ))
        })
    }

    fn last_answer(&self, family: usize) -> String {
        let answers = self.answers[family].lock();
        let answers = answers.unwrap_or_else(PoisonError::into_inner);
        match answers.last() {
            Some(Answer { came, seen, .. }) => format!("to {seen} {:.1?} ago", came.elapsed()),
            None => "none".to_owned(),
        }
    }

    /// Forgets the answers so far.
    pub(super) fn forget(&self) {
        for answers in &self.answers {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.clear();
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What one was told of the other is no failure.
            let _ = join(thread);
        }
    }
}

/// A question is its number of microseconds since the first; the answer has it again, and who asked.
fn ask(whom: SocketAddr, stop: &AtomicBool, answers: &Mutex<Vec<Answer>>) -> Result<()> {
    let any: IpAddr = match whom.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_nonblocking(true)?;
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let number = begun.elapsed().as_micros() as u64;
        // A network that is not there is what this is about.
        let _ = socket.send_to(&number.to_be_bytes(), whom);
        thread::sleep(PAUSE);
        let mut buffer = [0; 64];
        // An error of ICMP is read like an answer, and others may be behind it.
        for _ in 0..64 {
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    let answer = understood(buffer.get(..length).unwrap_or_default(), begun);
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    answers.extend(answer);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }
    Ok(())
}

fn understood(answer: &[u8], begun: Instant) -> Option<Answer> {
    let (number, seen) = answer.split_first_chunk::<8>()?;
    Some(Answer {
        asked: begun + Duration::from_micros(u64::from_be_bytes(*number)),
        came: Instant::now(),
        seen: str::from_utf8(seen).ok()?.parse().ok()?,
    })
}

/// The host of the internet.
fn answer(port: u16, thinks: Duration, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))?;
    let mut buffer = [0; 64];
    let mut thought_of = VecDeque::<(Instant, Vec<u8>, SocketAddr)>::new();
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let now = Instant::now();
        let due = thought_of.partition_point(|(due, ..)| *due <= now);
        for (_, answer, to) in thought_of.drain(..due) {
            let _ = socket.send_to(&answer, to);
        }
        let next = thought_of.front().map(|(due, ..)| *due - now);
        let patience = next.unwrap_or(IDLE).clamp(Duration::from_millis(1), IDLE);
        socket.set_read_timeout(Some(patience))?;
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(number) = buffer.get(..length.min(8))
        {
            let seen = from.ip().to_canonical().to_string();
            let answer = [number, seen.as_bytes()].concat();
            thought_of.push_back((Instant::now() + thinks, answer, from));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_when_it_was_asked_and_who_was_seen() {
        let begun = Instant::now();
        let text = [&1_500_000u64.to_be_bytes()[..], b"192.0.2.18"].concat();
        let answer = understood(&text, begun).unwrap();
        assert_eq!(answer.asked - begun, Duration::from_millis(1500));
        assert_eq!(answer.seen, IpAddr::from([192, 0, 2, 18]));
        assert!(understood(b"short", begun).is_none());
        assert!(understood(b"12345678nobody", begun).is_none());
    }
}

//! UDP both ways through a tunnel, at a constant rate, every datagram accounted for.
//!
//! Datagrams are numbered. A datagram is lost when its number has not arrived a second after the
//! last one was sent; the receivers' buffers hold a second of traffic, so that a busy machine loses
//! nothing by itself.

use crate::lab::{Context, Failure, Namespace, Result, interrupt, join, on_host};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Payload of a datagram.
const LENGTH: usize = 1200;
/// Who is late by more than this does not catch up: a burst proves nothing.
const CATCH_UP: Duration = Duration::from_millis(4);
/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_secs(1);

/// What became of a flow, both directions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Datagrams sent.
    pub(super) sent: u64,
    /// Numbers that never arrived, from the first host and from the other.
    pub(super) lost: [u64; 2],
    /// Datagrams that arrived again.
    pub(super) repeated: u64,
}

/// The same of one direction.
struct OneWay {
    sent: u64,
    lost: u64,
    repeated: u64,
}

/// A flow in both directions, until [`Flow::finish`].
#[derive(Debug)]
pub(super) struct Flow {
    one_way: Stream,
    other_way: Stream,
}

#[derive(Debug)]
struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Result<(BTreeSet<u64>, u64)>>,
}

impl Flow {
    /// `mbit_s` in each direction between two hosts at these addresses. Returns when both directions
    /// have delivered.
    pub(super) fn start(
        one: (&Namespace, &str),
        other: (&Namespace, &str),
        mbit_s: u32,
    ) -> Result<Self> {
        let flow = Self {
            one_way: Stream::start(one, other, mbit_s)?,
            other_way: Stream::start(other, one, mbit_s)?,
        };
        crate::lab::wait_for("the flow arrives", Duration::from_secs(5), || {
            let arrives = |stream: &Stream| stream.arrived.load(Ordering::Relaxed) > 20;
            Ok((arrives(&flow.one_way) && arrives(&flow.other_way)).then_some(()))
        })?;
        Ok(flow)
    }

    /// Waits until this many more datagrams have been sent in each direction.
    pub(super) fn go_on(&self, datagrams: u64) -> Result<()> {
        let streams = [&self.one_way, &self.other_way];
        let goals = streams.map(|stream| stream.sent.load(Ordering::Relaxed) + datagrams);
        crate::lab::wait_for("the flow goes on", Duration::from_secs(30), || {
            let reached =
                |(stream, goal): (&Stream, u64)| stream.sent.load(Ordering::Relaxed) >= goal;
            Ok(streams.into_iter().zip(goals).all(reached).then_some(()))
        })
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub(super) fn finish(self) -> Result<Tally> {
        let (one, other) = (self.one_way.finish()?, self.other_way.finish()?);
        Ok(Tally {
            sent: one.sent + other.sent,
            lost: [one.lost, other.lost],
            repeated: one.repeated + other.repeated,
        })
    }
}

impl Stream {
    fn start(from: (&Namespace, &str), to: (&Namespace, &str), mbit_s: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let arrived = Arc::new(AtomicU64::new(0));
        let (source, target) = (parse(from.1)?, parse(to.1)?);
        let (bound, is_bound) = std::sync::mpsc::channel();
        let receiver = {
            let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
            on_host(to.0, move || {
                let socket = UdpSocket::bind(SocketAddr::new(target, PORT))?;
                rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                let _ = bound.send(());
                receive(&socket, &stop, &arrived)
            })
        };
        if is_bound.recv().is_err() {
            return Err(match join(receiver) {
                Err(failure) => failure,
                Ok(_) => Failure::new("the receiver ended early"),
            });
        }
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            on_host(from.0, move || {
                let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
                socket.connect(SocketAddr::new(target, PORT))?;
                send(&socket, mbit_s, &stop, &sent)
            })
        };
        Ok(Self {
            stop,
            sent,
            arrived,
            sender,
            receiver,
        })
    }

    fn finish(self) -> Result<OneWay> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.sender)?;
        let (numbers, repeated) = join(self.receiver)?;
        let sent = self.sent.load(Ordering::Relaxed);
        Ok(OneWay {
            sent,
            lost: sent - numbers.len() as u64,
            repeated,
        })
    }
}

const PORT: u16 = 7000;

fn parse(address: &str) -> Result<IpAddr> {
    address.parse().context(address)
}

fn send(socket: &UdpSocket, mbit_s: u32, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let interval = Duration::from_nanos(LENGTH as u64 * 8 * 1000 / u64::from(mbit_s));
    let mut datagram = [0; LENGTH];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let number = sent.load(Ordering::Relaxed);
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // What the kernel refuses at once ("no route", a full queue) counts as lost as well.
        let _ = socket.send(&datagram);
        sent.store(number + 1, Ordering::Relaxed);
        due += interval;
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        } else if now - due > CATCH_UP {
            due = now;
        }
    }
    Ok(())
}

fn receive(
    socket: &UdpSocket,
    stop: &AtomicBool,
    arrived: &AtomicU64,
) -> Result<(BTreeSet<u64>, u64)> {
    let (mut numbers, mut repeated) = (BTreeSet::new(), 0);
    let mut datagram = [0; LENGTH];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut datagram) {
            Ok(LENGTH) => {
                let number = datagram
                    .first_chunk()
                    .map(|bytes| u64::from_be_bytes(*bytes));
                if !number.is_some_and(|number| numbers.insert(number)) {
                    repeated += 1;
                }
                arrived.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
            _ if stop.load(Ordering::Relaxed) && last.elapsed() > SILENCE => {
                return Ok((numbers, repeated));
            }
            _ => interrupt::check()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Lab, Link};

    #[test]
    fn what_a_link_loses_is_counted() {
        let lab = Lab::new().unwrap();
        let addresses: [&[&str]; 2] = [&["192.0.2.1/24"], &["192.0.2.2/24"]];
        let (a, b, mut link) = Link::between_two(&lab, addresses, [&[], &[]]).unwrap();
        let ends = ((&a, "192.0.2.1"), (&b, "192.0.2.2"));
        let flow = Flow::start(ends.0, ends.1, 10).unwrap();
        flow.go_on(200).unwrap();
        let tally = flow.finish().unwrap();
        assert!(
            tally.sent >= 400 && tally.lost == [0, 0] && tally.repeated == 0,
            "{tally:?}"
        );

        let flow = Flow::start(ends.0, ends.1, 10).unwrap();
        link.lose(20).unwrap();
        flow.go_on(300).unwrap();
        let tally = flow.finish().unwrap();
        let some = |lost: &u64| *lost > 20 && *lost < tally.sent / 4;
        assert!(tally.lost.iter().all(some), "{tally:?}");
    }
}

//! Datagrams from one host to another, of many kinds at once: UDP small and large, whole, fragmented
//! by the sender or on the way, in bursts that the kernel cuts late; and ICMP echo, whose answers are
//! datagrams like the others.

use super::content::{Account, BURST, Datagrams};
use super::{Site, in_background};
use crate::lab::{Failure, Result, interrupt, join, on_host};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketType, ipproto};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What may wait in a receiver's socket: it looks every [`TICK`], and a busy machine later.
const BUFFER: usize = 16 << 20;
/// How often senders and receivers have something to do.
const TICK: Duration = Duration::from_millis(1);
/// Who is late by more than this does not catch up: a burst of that length proves nothing.
const CATCH_UP: Duration = Duration::from_millis(4);
/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_secs(2);
/// The first flow's port.
const PORT: u16 = 7000;
/// Type, code, checksum, identifier and sequence number of an echo.
const ECHO: usize = 8;

/// How a flow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Don't Fragment while it fits into the path's MTU, in fragments when not.
    Plain,
    /// Never Don't Fragment: routers cut it.
    MayFragment,
    /// Several of one length in one piece (UDP_SEGMENT): a GSO batch for all who forward it.
    Batches,
    /// Echo requests; what arrives are the replies.
    Echo,
}

struct Kind {
    name: &'static str,
    v6: bool,
    lengths: RangeInclusive<usize>,
    how: How,
    /// Its part of the octets of all flows.
    share: f64,
}

/// The largest UDP payload that a link of 1500 octets takes whole is 1472 over IPv4 and 1452 over
/// IPv6; tunnels have an MTU of 1400 to 1438.
const KINDS: [Kind; 12] = [
    kind("udp4 small", false, 1..=1350, How::Plain, 4.0),
    kind("udp6 small", true, 1..=1350, How::Plain, 4.0),
    kind("udp4 tiny", false, 1..=32, How::Plain, 0.05),
    kind(
        "udp4 cut on the way",
        false,
        1411..=1472,
        How::MayFragment,
        2.0,
    ),
    kind(
        "udp4 cut at the source",
        false,
        1473..=6000,
        How::Plain,
        2.0,
    ),
    kind("udp6 cut at the source", true, 1453..=6000, How::Plain, 2.0),
    kind("udp4 of any length", false, 1..=4000, How::Plain, 2.0),
    kind("udp6 of any length", true, 1..=4000, How::Plain, 2.0),
    kind("udp4 in batches", false, 200..=1350, How::Batches, 4.0),
    kind("udp6 in batches", true, 200..=1350, How::Batches, 4.0),
    kind("icmp4 echo", false, 0..=4000, How::Echo, 0.5),
    kind("icmp6 echo", true, 0..=4000, How::Echo, 0.5),
];

const fn kind(
    name: &'static str,
    v6: bool,
    lengths: RangeInclusive<usize>,
    how: How,
    share: f64,
) -> Kind {
    Kind {
        name,
        v6,
        lengths,
        how,
        share,
    }
}

/// A flow between its two sockets.
struct Flow {
    kind: &'static Kind,
    content: Datagrams,
    /// Counted before they are sent, so that none arrives unknown.
    sent: AtomicU64,
    sender: UdpSocket,
    /// The sender itself, for echoes.
    receiver: UdpSocket,
}

/// All flows in one direction, until [`OneWay::finish`].
#[derive(Debug)]
pub(super) struct OneWay {
    sending: JoinHandle<Result<()>>,
    receiving: JoinHandle<Result<Tally>>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) datagrams: u64,
    pub(super) octets: u64,
    /// What was wrong, a flow each.
    pub(super) faults: Vec<String>,
}

impl OneWay {
    /// Sends this many octets of payload a second from a host to another until `stop`.
    pub(super) fn start(
        (from, to): (&Site, &Site),
        octets_s: f64,
        seed: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let flows = KINDS
            .iter()
            .zip(0..)
            .map(|(kind, number)| Flow::open(kind, number, seed, from, to))
            .collect::<Result<Vec<_>>>()?;
        let (flows, begun) = (Arc::new(flows), Instant::now());
        let over = Arc::new(AtomicBool::new(false));
        let way = format!("{} to {}", from.host.name(), to.host.name());
        let receiving = {
            let (flows, over) = (Arc::clone(&flows), Arc::clone(&over));
            in_background(move || receive(&flows, &way, begun, &over))
        };
        let stop = Arc::clone(stop);
        let sending = in_background(move || {
            let sent = send(&flows, octets_s, &stop);
            over.store(true, Ordering::Release);
            sent
        });
        Ok(Self { sending, receiving })
    }

    /// Waits for what is on its way, and counts.
    pub(super) fn finish(self) -> Result<Tally> {
        join(self.sending)?;
        join(self.receiving)
    }
}

impl Flow {
    fn open(kind: &'static Kind, number: u16, seed: u64, from: &Site, to: &Site) -> Result<Self> {
        let (source, target) = (from.address(kind.v6), to.address(kind.v6));
        let content = Datagrams::new(
            number.into(),
            seed,
            kind.lengths.clone(),
            kind.how == How::Batches,
        );
        if kind.how == How::Echo {
            // Who may send echo requests without being allowed to forge packets: all groups.
            from.host.sysctl("net.ipv4.ping_group_range", "0 0")?;
            let socket = join(on_host(&from.host, move || {
                let (family, protocol) = match source.is_ipv6() {
                    true => (AddressFamily::INET6, ipproto::ICMPV6),
                    false => (AddressFamily::INET, ipproto::ICMP),
                };
                let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol))?;
                let socket = UdpSocket::from(socket);
                socket.connect(SocketAddr::new(target, 0))?;
                Ok(socket)
            }))?;
            return Self {
                kind,
                content,
                sent: AtomicU64::new(0),
                receiver: socket.try_clone()?,
                sender: socket,
            }
            .prepare();
        }
        let port = PORT + number;
        let receiver = join(on_host(&to.host, move || {
            Ok(UdpSocket::bind(SocketAddr::new(target, port))?)
        }))?;
        let sender = join(on_host(&from.host, move || {
            let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
            socket.connect(SocketAddr::new(target, port))?;
            Ok(socket)
        }))?;
        if kind.how == How::MayFragment {
            sockopt::set_ip_mtu_discover(&sender, Ipv4PathMtuDiscovery::DONT)?;
        }
        Self {
            kind,
            content,
            sent: AtomicU64::new(0),
            sender,
            receiver,
        }
        .prepare()
    }

    fn prepare(self) -> Result<Self> {
        sockopt::set_socket_recv_buffer_size_force(&self.receiver, BUFFER)?;
        // Echoes: the same socket, and a full queue is waited for below.
        self.receiver.set_nonblocking(true)?;
        Ok(self)
    }

    /// Sends the next datagram, or the next burst; gives the octets.
    fn send_next(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        let first = self.sent.load(Ordering::Relaxed);
        buffer.clear();
        // Whoever groups packets by their TOS must not let one overtake another.
        let ecn = self.content.ecn(first);
        if self.kind.v6 {
            sockopt::set_ipv6_tclass(&self.sender, ecn.into())?;
        } else {
            sockopt::set_ip_tos(&self.sender, ecn)?;
        }
        let count = match self.kind.how {
            How::Plain | How::MayFragment => 1,
            How::Batches => {
                let length = self.content.length(first);
                setsockopt(&self.sender, UdpGsoSegment, &(length as i32))?;
                BURST
            }
            How::Echo => {
                let kind = if self.kind.v6 { 128 } else { 8 };
                let sequence = (first as u16).to_be_bytes();
                // The kernel sets identifier and checksum.
                buffer.extend_from_slice(&[kind, 0, 0, 0, 0, 0, sequence[0], sequence[1]]);
                1
            }
        };
        for number in first..first + count {
            self.content.append(number, buffer);
        }
        self.sent.store(first + count, Ordering::Release);
        loop {
            match self.sender.send(buffer) {
                Ok(length) if length == buffer.len() => return Ok(length),
                Ok(length) => {
                    let all = buffer.len();
                    return Err(Failure::new(format!(
                        "{}: the kernel took {length} octets of {all}",
                        self.kind.name
                    )));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                Err(error) => {
                    let (name, length) = (self.kind.name, buffer.len());
                    return Err(Failure::from(error)
                        .while_doing(format!("{name}: sending number {first}, {length} octets")));
                }
            }
        }
    }
}

fn send(flows: &[Flow], octets_s: f64, stop: &AtomicBool) -> Result<()> {
    let all: f64 = flows.iter().map(|flow| flow.kind.share).sum();
    let mut owed = vec![0.0; flows.len()];
    let mut buffer = Vec::new();
    let mut then = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let passed = then.elapsed().min(CATCH_UP).as_secs_f64();
        then = Instant::now();
        for (flow, owed) in flows.iter().zip(&mut owed) {
            *owed += octets_s * passed * flow.kind.share / all;
        }
        // In turn, so that flows are interleaved.
        let mut busy = true;
        while busy {
            busy = false;
            for (flow, owed) in flows.iter().zip(&mut owed) {
                if *owed > 0.0 {
                    *owed -= flow.send_next(&mut buffer)? as f64;
                    busy = true;
                }
            }
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Takes what arrives until all is there that was sent, or nothing comes any more.
fn receive(flows: &[Flow], way: &str, begun: Instant, over: &AtomicBool) -> Result<Tally> {
    let mut accounts: Vec<Account> = flows.iter().map(|_| Account::default()).collect();
    let mut buffer = vec![0; 1 << 16];
    let mut last = Instant::now();
    loop {
        interrupt::check()?;
        let was_over = over.load(Ordering::Acquire);
        for (flow, account) in flows.iter().zip(&mut accounts) {
            loop {
                let length = match flow.receiver.recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => {
                        return Err(Failure::from(error).while_doing(format!(
                            "{way}, {}: receiving what follows {}",
                            flow.kind.name, account.arrived
                        )));
                    }
                };
                let header = if flow.kind.how == How::Echo { ECHO } else { 0 };
                let datagram = buffer.get(header..length).unwrap_or_default();
                account.take(&flow.content, datagram, begun.elapsed());
                last = Instant::now();
            }
        }
        if was_over {
            let mut each = flows.iter().zip(&accounts);
            let complete =
                each.all(|(flow, account)| account.is_complete(flow.sent.load(Ordering::Acquire)));
            // Once more after the last: a repetition would come right behind.
            let patience = if complete { SILENCE / 8 } else { SILENCE };
            if last.elapsed() > patience {
                break;
            }
        }
        thread::sleep(TICK);
    }
    let mut tally = Tally::default();
    for (flow, account) in flows.iter().zip(&accounts) {
        let sent = flow.sent.load(Ordering::Acquire);
        if sent == 0 {
            return Err(Failure::new(format!(
                "{way}: {} sent nothing",
                flow.kind.name
            )));
        }
        tally.datagrams += account.arrived;
        tally.octets += account.octets;
        let name = format!("{way}, {}", flow.kind.name);
        tally.faults.extend(account.faults(&name, sent));
    }
    Ok(tally)
}

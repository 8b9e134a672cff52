//! Laptop and phone, which never stop, and the box itself: UDP, TCP and ICMP over IPv4 and IPv6, every packet with a mark
//! that is known again wherever it turns up.
//!
//! To the DNS host and to the box as DNS does (UDP and TCP 53, 853 for DoT), and to UDP 500 and 4500 of everybody, the VPN
//! server included: what a rule that looks at ports alone would let pass.

use super::world::{Legs, Network, Targets};
use crate::lab::{Namespace, Process, Result, interrupt, join, on_host, wait_for};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// In every packet that carries anything.
pub(super) const MARK: &[u8] = b"cygnet-canary";

/// Between two datagrams of a thread to each of the sockets, the long-lived one and the fresh one.
const DATAGRAM_PAUSE: Duration = Duration::from_millis(4);
/// Between two connections.
const CONNECTION_PAUSE: Duration = Duration::from_millis(25);
/// What a connection may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// The traffic of all devices until it is dropped.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    counts: Vec<(String, Counts)>,
    threads: Vec<JoinHandle<Result<()>>>,
    _pings: Vec<Process>,
}

/// What a device does until it is told to stop.
type Work = fn(&str, Targets, &AtomicBool, &Counts) -> Result<()>;

/// Of one device in one family.
#[derive(Debug, Clone, Default)]
struct Counts {
    /// Datagrams and connections that its kernel took.
    sent: Arc<AtomicU64>,
    /// Pages that a web host sent to the VPN server's address: they came through the tunnel.
    tunnelled: Arc<AtomicU64>,
}

impl Counts {
    fn sent_one(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Traffic {
    fn none() -> Self {
        Self {
            stop: Arc::default(),
            counts: Vec::new(),
            threads: Vec::new(),
            _pings: Vec::new(),
        }
    }

    /// Starts on the box itself, which needs nothing of what it asks for.
    pub(super) fn of_box(host: &Namespace, legs: Legs) -> Result<Self> {
        let mut all = Self::none();
        for targets in Targets::both(legs)? {
            all.count(host, targets, &[own_datagrams, pages]);
        }
        Ok(all)
    }

    /// Starts on all devices.
    pub(super) fn start(network: &Network) -> Result<Self> {
        let mut all = Self::none();
        for targets in Targets::both(network.legs)? {
            for device in [&network.laptop, &network.phone] {
                all.count(device, targets, &[datagrams, streams, pages]);
                all.ping(device, targets)?;
            }
            if let Some([direct, blocked]) = &network.others {
                // What has no mark cannot be told from what is somebody else's.
                all.add(direct, targets, &[marked_datagrams]);
                all.add(blocked, targets, &[datagrams, streams, pages]);
                all.ping(blocked, targets)?;
            }
        }
        Ok(all)
    }

    /// Its pages have to come through the tunnel in the end.
    fn count(&mut self, device: &Namespace, targets: Targets, works: &[Work]) {
        let counts = self.add(device, targets, works);
        let family = match targets.web {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        };
        self.counts
            .push((format!("{} over {family}", device.name()), counts));
    }

    fn add(&mut self, device: &Namespace, targets: Targets, works: &[Work]) -> Counts {
        let (counts, name) = (Counts::default(), device.name().to_owned());
        for work in works {
            let (work, stop, counts) = (*work, Arc::clone(&self.stop), counts.clone());
            let name = name.clone();
            self.threads.push(on_host(device, move || {
                work(&name, targets, &stop, &counts)
            }));
        }
        counts
    }

    fn ping(&mut self, device: &Namespace, targets: Targets) -> Result<()> {
        let pattern: String = MARK.iter().map(|octet| format!("{octet:02x}")).collect();
        let web = targets.web.to_string();
        self._pings
            .push(device.spawn(["ping", "-n", "-q", "-i", "0.02", "-p", &pattern, &web])?);
        Ok(())
    }

    /// Waits until each device gets pages through the tunnel, over IPv4 and IPv6, that it asked for after
    /// this call; gives how long that took.
    pub(super) fn passes_the_tunnel(&self, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let tunnelled = || {
            self.counts
                .iter()
                .map(|(_, counts)| counts.tunnelled.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = tunnelled().collect();
        let mut missing = Vec::new();
        wait_for("traffic passes the tunnel", patience, || {
            missing = tunnelled()
                .zip(&before)
                .zip(&self.counts)
                // One may have been on its way.
                .filter(|((now, before), _)| *now < *before + 2)
                .map(|(_, (who, _))| who.clone())
                .collect();
            Ok(missing.is_empty().then_some(()))
        })
        .map_err(|failure| {
            failure.while_doing(format!("nothing comes for {}", missing.join(", ")))
        })?;
        Ok(begun.elapsed())
    }

    /// Datagrams and connections so far, pings aside.
    pub(super) fn sent(&self) -> u64 {
        let each = self.counts.iter();
        each.map(|(_, counts)| counts.sent.load(Ordering::Relaxed))
            .sum()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whatever was refused to a device is no failure.
            let _ = join(thread);
        }
    }
}

fn datagrams(who: &str, targets: Targets, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    let Targets {
        web,
        other,
        dns,
        server,
        gateway,
    } = targets;
    let to = [
        (web, 9),
        (dns, 53),
        (dns, 853),
        (gateway, 53),
        (web, 500),
        (web, 4500),
        (other, 500),
        (other, 4500),
        (server, 500),
        (server, 4500),
    ];
    send(who, &to, stop, counts)
}

/// To hosts that do not answer: what the device said to that would have no mark.
fn marked_datagrams(who: &str, targets: Targets, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    let Targets {
        web, other, dns, ..
    } = targets;
    let to = [(web, 9), (dns, 53), (dns, 853), (other, 500), (other, 4500)];
    send(who, &to, stop, counts)
}

/// No questions for names: whom the box asks for them is the lab's own affair.
fn own_datagrams(who: &str, targets: Targets, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    let Targets {
        web,
        other,
        dns,
        server,
        ..
    } = targets;
    let to = [
        (web, 9),
        (dns, 9),
        (web, 500),
        (other, 4500),
        (server, 500),
        (server, 4500),
    ];
    send(who, &to, stop, counts)
}

/// A flow that goes on for the whole round, and one of a fresh port for each turn: a filter that knows
/// connections may treat the two in different ways.
fn send(who: &str, to: &[(IpAddr, u16)], stop: &AtomicBool, counts: &Counts) -> Result<()> {
    let any: IpAddr = match to.first() {
        Some((IpAddr::V6(_), _)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = || UdpSocket::bind(SocketAddr::new(any, 0));
    let lasting = socket()?;
    while !stop.load(Ordering::Relaxed) {
        let fresh = socket()?;
        for (host, port) in to {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            interrupt::check()?;
            let payload = match port {
                53 => dns_query(who),
                _ => canary(who, &format!("UDP {host} {port}")),
            };
            for socket in [&lasting, &fresh] {
                if socket
                    .send_to(&payload, SocketAddr::new(*host, *port))
                    .is_ok()
                {
                    counts.sent_one();
                }
            }
            thread::sleep(DATAGRAM_PAUSE);
        }
    }
    Ok(())
}

/// DNS over TCP, and DoT as far as the port goes.
fn streams(who: &str, targets: Targets, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for (host, port) in [(targets.dns, 53), (targets.dns, 853), (targets.gateway, 53)] {
            interrupt::check()?;
            let payload = match port {
                53 => dns_query(who),
                _ => canary(who, "DoT"),
            };
            counts.sent_one();
            if let Ok(mut stream) =
                TcpStream::connect_timeout(&SocketAddr::new(host, port), PATIENCE)
            {
                let length = (payload.len() as u16).to_be_bytes();
                // Gone in the middle is what this is about.
                let _ = stream.write_all(&[&length, payload.as_slice()].concat());
            }
            thread::sleep(CONNECTION_PAUSE);
        }
    }
    Ok(())
}

/// Pages, and whom the web host saw.
fn pages(who: &str, targets: Targets, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        counts.sent_one();
        if page(who, targets.web).is_ok_and(|seen| seen == targets.server.to_string()) {
            counts.tunnelled.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(CONNECTION_PAUSE);
    }
    Ok(())
}

/// The address that the web host saw.
fn page(who: &str, host: IpAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(host, 80), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = b"GET / HTTP/1.0\r\nuser-agent: ".to_vec();
    request.extend(canary(who, "TCP"));
    request.extend(b"\r\n\r\n");
    stream.write_all(&request)?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let body = page.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok(body.trim().to_owned())
}

/// What is found again: the mark, who sent it, and for what.
fn canary(who: &str, what: &str) -> Vec<u8> {
    [MARK, format!(" of {who}, {what}").as_bytes()].concat()
}

/// How everything begins that a device of this name sends: a canary, and a name that is asked for.
pub(super) fn marks_of(who: &str) -> [Vec<u8>; 2] {
    let mut name = MARK.to_vec();
    name.push(who.len() as u8);
    name.extend(who.as_bytes());
    [canary(who, ""), name]
}

/// A query (RFC 1035 §4) for the address of a name that begins with the mark.
fn dns_query(who: &str) -> Vec<u8> {
    // An id, recursion desired, one question.
    let mut query = vec![0x63, 0x79, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [MARK, who.as_bytes(), b"example"] {
        query.push(label.len() as u8);
        query.extend(label);
    }
    // The root, type A, class IN.
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_one_and_carries_the_mark() {
        let query = dns_query("laptop");
        assert_eq!(query[12], 13);
        assert_eq!(&query[13..26], MARK);
        assert_eq!(&query[26..33], b"\x06laptop");
        assert_eq!(&query[query.len() - 5..], [0, 0, 1, 0, 1]);
        assert!(canary("phone", "DoT").starts_with(MARK));
    }
}

//! A path with what has been learned about it: its MTU, and whether batches may be sent on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cygnet_esp::{Encapsulation, OutboundSa};
use cygnet_ike::io::Path;
use cygnet_linux::{RouteProbe, SendError, Transmit, UdpSocket};
use cygnet_wire::ip::Version;

use crate::ipc::SocketRole;

/// What is assumed before the path says otherwise.
const MTU: u32 = 1500;
/// Linux believes no smaller one (net.ipv4.route.min_pmtu); RFC 8200 §5 for IPv6.
const LEAST_V4: u32 = 552;
const LEAST_V6: u32 = 1280;
/// Time after which a larger one is tried (RFC 1191 §6.3, RFC 8201 §4).
const LEARNED_FOR_MS: u64 = 600_000;

/// A UDP socket and what it is for.
pub(super) struct Socket {
    pub(super) role: SocketRole,
    pub(super) udp: UdpSocket,
    /// Asks for routes of what the socket sends.
    pub(super) routes: RouteProbe,
}

/// The sockets; few.
pub(super) struct Sockets(pub(super) Vec<Arc<Socket>>);

impl Sockets {
    /// The socket that sends from this address and port.
    pub(super) fn of(&self, local: SocketAddr) -> Option<&Arc<Socket>> {
        let fits = |socket: &&Arc<Socket>| {
            let address = socket.role.address;
            socket.role.port == local.port()
                && address.is_ipv4() == local.is_ipv4()
                && (address.is_unspecified() || address == local.ip())
        };
        self.0.iter().find(fits)
    }

    /// Those of a port and family.
    pub(super) fn on(&self, port: u16, ipv4: bool) -> impl Iterator<Item = &Arc<Socket>> {
        let fits = move |socket: &&Arc<Socket>| {
            socket.role.port == port && socket.role.address.is_ipv4() == ipv4
        };
        self.0.iter().filter(fits)
    }

    /// The socket a call to `remote` begins on.
    pub(super) fn to_call(&self, remote: SocketAddr) -> Option<&Arc<Socket>> {
        let family = |socket: &&Arc<Socket>| socket.role.address.is_ipv4() == remote.is_ipv4();
        // RFC 7296 §2.23: IKE may begin on port 4500; both ends then use the marker.
        let to_natt = self
            .0
            .iter()
            .filter(family)
            .find(|socket| socket.role.natt && socket.role.port == remote.port());
        let plain = || {
            self.0
                .iter()
                .filter(family)
                .find(|socket| !socket.role.natt)
        };
        to_natt.or_else(plain)
    }
}

/// A path.
pub(super) struct Road {
    pub(super) path: Path,
    pub(super) socket: Arc<Socket>,
    mtu: AtomicU32,
    learned_at: AtomicU64,
    /// It is the core's word, which goes on measuring, and not a router's.
    measured: AtomicBool,
    /// Since when datagrams are sent one by one, by our clock; zero: they are not.
    singly_since: AtomicU64,
    /// That was said.
    said_singly: AtomicBool,
}

impl Road {
    pub(super) fn new(path: Path, socket: Arc<Socket>) -> Self {
        Self {
            path,
            socket,
            mtu: AtomicU32::new(MTU),
            learned_at: AtomicU64::new(0),
            measured: AtomicBool::new(false),
            singly_since: AtomicU64::new(0),
            said_singly: AtomicBool::new(false),
        }
    }

    /// Largest IP packet.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    fn version(&self) -> Version {
        if self.path.remote.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        }
    }

    /// Longest inner packet that an SA can carry on it in one piece.
    pub(super) fn max_inner(&self, sa: &OutboundSa) -> usize {
        sa.overhead()
            .max_inner_len(self.mtu() as usize, Encapsulation::Udp, self.version())
    }

    /// Length of the IP packet around a datagram.
    pub(super) fn packet_len(&self, datagram: usize) -> usize {
        datagram
            + 8
            + match self.version() {
                Version::V4 => 20,
                Version::V6 => 40,
            }
    }

    /// A hint that it is narrower; whether that is news.
    pub(super) fn narrow(&self, mtu: u32, now_ms: u64) -> bool {
        let least = match self.version() {
            Version::V4 => LEAST_V4,
            Version::V6 => LEAST_V6,
        };
        let mtu = mtu.max(least);
        let news = self.mtu.fetch_min(mtu, Ordering::Relaxed) > mtu;
        if news {
            self.learned_at.store(now_ms, Ordering::Relaxed);
        }
        news
    }

    /// What arrives has been measured; whether that is news.
    pub(super) fn measured(&self, mtu: u32) -> bool {
        self.measured.store(true, Ordering::Relaxed);
        self.mtu.swap(mtu, Ordering::Relaxed) != mtu
    }

    /// Forgets what was learned long ago; whether that changed anything.
    pub(super) fn age(&self, now_ms: u64) -> bool {
        let is_old = |since: &AtomicU64| {
            now_ms.saturating_sub(since.load(Ordering::Relaxed)) >= LEARNED_FOR_MS
        };
        // The way may lead by another interface now.
        if self.is_single() && is_old(&self.singly_since) {
            self.singly_since.store(0, Ordering::Relaxed);
        }
        if self.measured.load(Ordering::Relaxed) {
            return false;
        }
        is_old(&self.learned_at) && self.mtu.swap(MTU, Ordering::Relaxed) != MTU
    }

    /// Whether datagrams have to be sent one by one.
    pub(super) fn is_single(&self) -> bool {
        self.singly_since.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_single(&self, now_ms: u64) {
        self.singly_since.store(now_ms.max(1), Ordering::Relaxed);
        if !self.said_singly.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "{}: no UDP segmentation offload on this path; datagrams are sent one by one",
                self.path
            );
        }
    }

    /// What a datagram or a batch is sent with.
    pub(super) fn transmit<'a>(
        &self,
        tos: u8,
        segment: Option<u16>,
        parts: &'a [std::io::IoSlice<'a>],
    ) -> Transmit<'a> {
        Transmit {
            destination: self.path.remote,
            source: source_of(self.path.local.ip()),
            interface: self.path.interface,
            tos,
            segment,
            parts,
        }
    }

    /// Sends; waits a little where the queue is full, which holds back the TUN's queue in turn.
    pub(super) fn send(
        &self,
        transmit: &Transmit<'_>,
        patience: &mut Patience,
    ) -> Result<(), SendError> {
        patience.with(&self.socket.udp, |socket| socket.send(transmit))
    }

    /// The same for a datagram that the IP layer may cut.
    pub(super) fn send_fragmenting(
        &self,
        transmit: &Transmit<'_>,
        patience: &mut Patience,
    ) -> Result<(), SendError> {
        patience.with(&self.socket.udp, |socket| socket.send_fragmenting(transmit))
    }
}

/// How long full queues are waited for, whatever the number of datagrams: others may wait for their turn
/// meanwhile.
#[derive(Default)]
pub(super) struct Patience {
    /// Since the first wait.
    until: Option<Instant>,
}

impl Patience {
    const LONGEST: Duration = Duration::from_millis(100);
    /// Between two looks at a full queue that is not the socket's own (`ENOBUFS`), which cannot be waited
    /// for.
    const LOOK: Duration = Duration::from_millis(1);

    fn with(
        &mut self,
        socket: &UdpSocket,
        send: impl Fn(&UdpSocket) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        loop {
            match send(socket) {
                Err(SendError::Full) if self.wait(socket) => {}
                other => return other,
            }
        }
    }

    /// Waits until the socket takes more; false once the time is over.
    fn wait(&mut self, socket: &UdpSocket) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + Self::LONGEST);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return false;
        }
        let ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        super::wait::writable(socket, ms.saturating_add(1));
        if now.elapsed() < Self::LOOK {
            std::thread::sleep(Self::LOOK);
        }
        true
    }
}

/// `None` leaves it to the kernel.
pub(super) fn source_of(local: IpAddr) -> Option<IpAddr> {
    (!local.is_unspecified()).then_some(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::datapath::testing;

    #[test]
    fn mtu_is_learned_downwards_and_forgotten() {
        let road = testing::road("127.0.0.1:4500", "127.0.0.1:4501");
        assert_eq!(road.mtu(), 1500);
        assert!(road.narrow(1400, 1000));
        assert!(!road.narrow(1450, 2000));
        assert!(road.narrow(10, 3000));
        assert_eq!(road.mtu(), LEAST_V4);
        assert!(!road.age(3000 + LEARNED_FOR_MS - 1));
        assert!(road.age(3000 + LEARNED_FOR_MS));
        assert_eq!(road.mtu(), 1500);
        assert!(!road.age(u64::MAX));
        assert!(road.measured(1400));
        assert!(!road.measured(1400));
        assert!(!road.age(u64::MAX));
        assert!(road.narrow(1300, 4000));
        assert!(road.measured(1500));
    }

    #[test]
    fn segmentation_is_tried_again_after_a_while() {
        let road = testing::road("127.0.0.1:4500", "127.0.0.1:4501");
        assert!(!road.is_single());
        road.set_single(0);
        assert!(road.is_single() && !road.age(LEARNED_FOR_MS - 1) && road.is_single());
        assert!(!road.age(1 + LEARNED_FOR_MS) && !road.is_single());
    }

    #[test]
    fn sockets_are_found_by_family_port_and_address() {
        let socket = |address: &str, port, natt| {
            testing::socket_with(SocketRole {
                address: address.parse().unwrap(),
                port,
                natt,
            })
        };
        let sockets = Sockets(vec![
            socket("0.0.0.0", 500, false),
            socket("0.0.0.0", 4500, true),
            socket("::", 4500, true),
        ]);
        let port = |local: &str| {
            sockets
                .of(local.parse().unwrap())
                .map(|s| (s.role.address.is_ipv4(), s.role.port))
        };
        assert_eq!(port("192.0.2.1:500"), Some((true, 500)));
        assert_eq!(port("192.0.2.1:4500"), Some((true, 4500)));
        assert_eq!(port("[2001:db8::1]:4500"), Some((false, 4500)));
        assert_eq!(port("[2001:db8::1]:500"), None);
        let call = |remote: &str| {
            sockets
                .to_call(remote.parse().unwrap())
                .map(|s| s.role.port)
        };
        assert_eq!(call("198.51.100.1:500"), Some(500));
        assert_eq!(call("198.51.100.1:4500"), Some(4500));
        assert_eq!(call("[2001:db8::2]:500"), None);
    }
}

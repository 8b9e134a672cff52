//! What several tests need: loopback sockets, a TUN that is a socketpair, Child SAs in pairs.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::signature::KeyKind;
use cygnet_crypto::suite::{Encryption, EspSuite};
use cygnet_ike::io::{ChildSaId, ChildSaParameters, DataLimits, IkeSaId, Path, Transport};
use cygnet_ike::policy::{
    ChildPolicy, Connection, CredentialId, EapMethods, IdentityPattern, Lifetime, LocalAuth,
    Remote, RemoteAuth, Retransmit, SelectorTemplate, Start,
};
use cygnet_linux::{RouteProbe, UdpOptions, UdpSocket};
use cygnet_wire::ip::{GsoType, VirtioNetHeader};
use cygnet_wire::ts::TrafficSelector;

use super::device::Queue;
use super::road::{Road, Socket};
use crate::ipc::SocketRole;

pub(super) const SUITE: EspSuite = EspSuite {
    encryption: Encryption::AesGcm16_128,
    integrity: None,
    esn: true,
};

/// A socket on a loopback port that plays this role.
pub(super) fn socket_with(role: SocketRole) -> Arc<Socket> {
    let loopback = if role.address.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let udp = UdpSocket::bind(&UdpOptions::new(loopback.parse().unwrap())).unwrap();
    let routes = RouteProbe::open(udp.local_addr().is_ipv6(), None).unwrap();
    Arc::new(Socket { role, udp, routes })
}

/// A socket on a loopback port, in its own name. It tells no waiting times, so that nothing is dropped
/// because the machine that runs the tests is busy.
pub(super) fn socket(natt: bool) -> Arc<Socket> {
    socket_that(natt, false)
}

/// One that may tell how long datagrams waited in it.
pub(super) fn socket_that(natt: bool, timestamps: bool) -> Arc<Socket> {
    let options = UdpOptions {
        timestamps,
        ..UdpOptions::new("127.0.0.1:0".parse().unwrap())
    };
    let udp = UdpSocket::bind(&options).unwrap();
    let role = SocketRole {
        address: udp.local_addr().ip(),
        port: udp.local_addr().port(),
        natt,
    };
    let routes = RouteProbe::open(udp.local_addr().is_ipv6(), None).unwrap();
    Arc::new(Socket { role, udp, routes })
}

pub(super) fn path(local: SocketAddr, remote: SocketAddr) -> Path {
    Path {
        transport: Transport::Udp,
        local,
        remote,
        interface: 0,
    }
}

pub(super) fn road(local: &str, remote: &str) -> Arc<Road> {
    let path = path(local.parse().unwrap(), remote.parse().unwrap());
    Arc::new(Road::new(path, socket(true)))
}

/// A TUN queue: what one end writes, the other reads.
struct Pair {
    tun: UnixDatagram,
    refuses_joined: bool,
}

/// The queue, and the host behind the TUN.
pub(super) fn queue() -> (Arc<dyn Queue>, UnixDatagram) {
    queue_that(false)
}

/// Like [`queue`]; as some kernels do, it may refuse super-packets.
pub(super) fn queue_that(refuses_joined: bool) -> (Arc<dyn Queue>, UnixDatagram) {
    let (tun, host) = UnixDatagram::pair().unwrap();
    tun.set_nonblocking(true).unwrap();
    host.set_nonblocking(true).unwrap();
    let pair = Pair {
        tun,
        refuses_joined,
    };
    (Arc::new(pair), host)
}

impl Queue for Pair {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tun.recv(buffer)
    }

    fn writev(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let whole = parts.iter().flat_map(|part| part.iter().copied());
        let whole: Vec<u8> = whole.collect();
        let header = VirtioNetHeader::parse(&whole).unwrap();
        if self.refuses_joined && header.gso_type != GsoType::None {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.tun.send(&whole)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

pub(super) fn prefix(text: &str) -> TrafficSelector {
    let net: ipnet::IpNet = text.parse().unwrap();
    TrafficSelector::from_prefix(net.addr(), net.prefix_len())
}

/// A connection with one child, between these networks.
pub(super) fn connection(name: &str, local: &str, remote: &str) -> Arc<Connection> {
    let lifetime = Lifetime {
        time: Duration::from_secs(3600),
        bytes: None,
        packets: None,
        jitter_percent: 0,
        hard_percent: 10,
    };
    let child = ChildPolicy {
        name: "net".into(),
        local: vec![SelectorTemplate::Fixed(prefix(local))],
        remote: vec![SelectorTemplate::Fixed(prefix(remote))],
        esp_proposals: vec![],
        start: Start::Traffic,
        lifetime,
        replay_window: 64,
    };
    Arc::new(Connection {
        name: name.into(),
        remote: Remote::Any,
        local_address: None,
        local_identity: None,
        remote_identity: IdentityPattern::Any,
        local_auth: LocalAuth::Certificate {
            credential: CredentialId("key".into()),
            key: KeyKind::Ed25519,
            pss: false,
            chain: vec![],
            identities: Vec::new(),
        },
        remote_auth: RemoteAuth::Psk(CredentialId("psk".into())),
        eap: EapMethods::default(),
        ike_proposals: vec![],
        children: vec![Arc::new(child)],
        request_virtual: vec![],
        pool: None,
        lifetime,
        reauthenticate: None,
        liveness: Duration::from_secs(30),
        retransmit: Retransmit {
            first: Duration::from_secs(1),
            factor: 1.0,
            most: Duration::from_secs(1),
            tries: 1,
        },
        claim_nat: true,
        fragment_size: 1280,
        search_mtu: false,
        mobike: false,
        keepalive: Duration::from_secs(20),
        unique: true,
    })
}

/// A Child SA of a connection's only child; its inbound SPI is `spi_in`.
pub(super) fn child(
    id: u64,
    connection: &Arc<Connection>,
    spi_in: u32,
    spi_out: u32,
    path: Path,
) -> ChildSaParameters {
    let policy = &connection.children[0];
    let narrowed = |templates: &[SelectorTemplate]| {
        let fixed = templates.iter().filter_map(|template| match template {
            SelectorTemplate::Fixed(selector) => Some(selector.clone()),
            SelectorTemplate::Dynamic => None,
        });
        fixed.collect()
    };
    ChildSaParameters {
        id: ChildSaId(id),
        ike_sa: IkeSaId(1),
        connection: Arc::clone(connection),
        policy: Arc::clone(policy),
        replaces: None,
        spi_in,
        spi_out,
        suite: SUITE,
        local_ts: narrowed(&policy.local),
        remote_ts: narrowed(&policy.remote),
        path,
        limits: DataLimits::default(),
        report_first: true,
    }
}

/// A UDP packet over IPv4, checksums right, from port 1000 to port 2000. Its identification is the
/// payload's first octet.
pub(super) fn udp_packet(
    src: [u8; 4],
    dst: [u8; 4],
    dont_fragment: bool,
    payload: &[u8],
) -> Vec<u8> {
    use cygnet_wire::ip::checksum;
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let upper = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
    if dont_fragment {
        packet[6] = 0x40;
    }
    packet[5] = payload.first().copied().unwrap_or(0);
    packet.extend(src);
    packet.extend(dst);
    let sum = checksum::ipv4_header(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut datagram = vec![0x03, 0xe8, 0x07, 0xd0];
    datagram.extend(upper.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = checksum::pseudo_header(src.into(), dst.into(), 17, datagram.len())
        .bytes(&datagram)
        .checksum();
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(datagram);
    packet
}

/// An IPv4 packet with another header.
pub(super) fn with_header(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    packet[10..12].fill(0);
    let sum = cygnet_wire::ip::checksum::ipv4_header(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

//! Two data paths on loopback, with socketpairs for TUNs; workers are turned by hand.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};

use cygnet_crypto::Secret;
use cygnet_ike::io::ChildSaParameters;
use cygnet_wire::ip::VirtioNetHeader;

use super::*;
use crate::engine::datapath::testing::{
    child, connection, path, prefix, queue_that, socket, socket_that, udp_packet, with_header,
};

pub(super) const LEFT: [u8; 4] = [10, 1, 0, 1];
pub(super) const RIGHT: [u8; 4] = [10, 2, 0, 1];

pub(super) struct End {
    pub(super) datapath: Datapath,
    pub(super) inbox: Receiver<Input>,
    pub(super) host: UnixDatagram,
    outbound: Outbound,
    queue: Arc<dyn Queue>,
    pub(super) inbound: Inbound,
    pub(super) local: SocketAddr,
    params: Option<ChildSaParameters>,
}

pub(super) fn end() -> End {
    end_that(false)
}

/// An end whose TUN may refuse super-packets.
fn end_that(refuses_joined: bool) -> End {
    end_on(socket(true), refuses_joined)
}

/// An end whose socket notes when each datagram came.
pub(super) fn end_that_notes_times() -> End {
    let socket = socket_that(true, true);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let moment = Duration::from_millis(2);
    // The kernel begins to note times some moments after it is asked to.
    let notes = || {
        stranger.send_to(b"x", socket.udp.local_addr()).unwrap();
        std::thread::sleep(moment);
        let received = socket.udp.recv_wait(&mut [0; 10]).unwrap();
        received.and_then(|received| received.waited) >= Some(moment)
    };
    assert!((0..500).any(|_| notes()), "the kernel notes no times");
    end_on(socket, false)
}

fn end_on(socket: Arc<Socket>, refuses_joined: bool) -> End {
    let (sender, inbox) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let local = socket.udp.local_addr();
    let inbox_of_core = Inbox { sender, waiting };
    let sockets = Sockets(vec![Arc::clone(&socket)]);
    let mut datapath = Datapath::with_sockets(inbox_of_core, 1, sockets).unwrap();
    let (queue, host) = queue_that(refuses_joined);
    let join = JoinConfig {
        tcp: true,
        udp: true,
    };
    let device = Device::new(
        "tunnel".into(),
        "tun0".into(),
        vec![Arc::clone(&queue)],
        join,
    );
    datapath.add_device(device).unwrap();
    let outbound = Outbound::new(Arc::clone(&datapath.shared));
    let lane = Arc::new(Lane::new(socket, 1));
    let inbound = Inbound::new(Arc::clone(&datapath.shared), lane, 0);
    End {
        datapath,
        inbox,
        host,
        outbound,
        queue,
        inbound,
        local,
        params: None,
    }
}

impl End {
    pub(super) fn install(&mut self, params: ChildSaParameters, key_in: u8, key_out: u8) {
        let keys = |byte| Secret::new(vec![byte; params.suite.key_material_len()]);
        let shared = Arc::new(params.clone());
        for command in [
            DataCommand::InstallIn {
                id: AskId(1),
                child: Arc::clone(&shared),
                keys: keys(key_in),
            },
            DataCommand::SwitchOut {
                id: AskId(2),
                child: shared,
                keys: keys(key_out),
            },
        ] {
            let Some((_, Answer::Installed(done))) = self.datapath.obey(command) else {
                panic!("no answer");
            };
            done.unwrap();
        }
        self.params = Some(params);
    }

    /// The host behind this end sends a packet.
    pub(super) fn send(&mut self, packet: &[u8]) {
        self.send_burst(&[packet]);
    }

    /// The host behind this end sends packets faster than they are read.
    pub(super) fn send_burst(&mut self, packets: &[impl AsRef<[u8]>]) {
        for packet in packets {
            let read = [&VirtioNetHeader::PLAIN.emit()[..], packet.as_ref()].concat();
            self.host.send(&read).unwrap();
        }
        self.seal();
    }

    /// Seals all that was sent.
    pub(super) fn seal(&mut self) {
        self.outbound.turn(0, &*self.queue).unwrap();
    }

    /// What the host behind this end gets next.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        for _ in 0..20 {
            // What came with the packet before may still be there.
            if let Ok(len) = self.host.recv(&mut buffer) {
                return buffer[VirtioNetHeader::LEN..len].to_vec();
            }
            self.inbound.turn().unwrap();
        }
        panic!("nothing came; dropped: {:?}", self.datapath.drops());
    }

    pub(super) fn events(&self) -> Vec<DataEvent> {
        let events = self.inbox.try_iter().filter_map(|input| match input {
            Input::Data(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    pub(super) fn drops(&self, reason: &str) -> u64 {
        let drops = self.datapath.drops();
        let found = drops.into_iter().find(|(name, _)| name == reason);
        found.map_or(0, |(_, count)| count)
    }
}

/// Two ends with a Child SA between them.
pub(super) fn pair() -> (End, End) {
    connect(end(), end())
}

pub(super) fn connect(mut left: End, mut right: End) -> (End, End) {
    let left_to_right = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
    let right_to_left = connection("tunnel", "10.2.0.0/24", "10.1.0.0/24");
    let there = path(left.local, right.local);
    let back = path(right.local, left.local);
    left.install(child(1, &left_to_right, 0x1111, 0x2222, there), 1, 2);
    right.install(child(1, &right_to_left, 0x2222, 0x1111, back), 2, 1);
    (left, right)
}

#[test]
fn what_goes_in_at_one_end_comes_out_at_the_other() {
    let (mut left, mut right) = pair();
    for size in [0, 1, 500, 1300] {
        let packet = udp_packet(LEFT, RIGHT, true, &vec![9; size]);
        left.send(&packet);
        assert_eq!(right.receive(), packet);
        let reply = udp_packet(RIGHT, LEFT, true, &vec![8; size]);
        right.send(&reply);
        assert_eq!(left.receive(), reply);
    }
    let id = ChildSaId(1);
    let traffic = left.datapath.traffic(id).unwrap();
    assert_eq!((traffic.packets_in, traffic.packets_out), (4, 4));
    assert_eq!(traffic.bytes_out, 4 * 28 + 1801);
    assert_eq!(
        right.events(),
        [DataEvent::FirstAuthenticated { child: id }]
    );
    let activity = left.datapath.activity();
    let expected = [
        DataEvent::LastInbound { child: id },
        DataEvent::LastOutbound { child: id },
    ];
    assert_eq!(activity, expected);
    assert_eq!(left.datapath.activity(), []);
}

#[test]
fn a_packet_too_long_is_answered_or_cut() {
    let (mut left, mut right) = pair();
    left.send(&udp_packet(LEFT, RIGHT, true, &[1; 1450]));
    let answer = left.receive();
    // ICMP, destination unreachable, fragmentation needed; AES-GCM in UDP over IPv4 leaves 1438.
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4));
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1438);
    assert_eq!((&answer[12..16], &answer[16..20]), (&RIGHT[..], &LEFT[..]));
    assert_eq!(left.drops("too-big"), 1);

    left.send(&udp_packet(LEFT, RIGHT, false, &[1; 1450]));
    let (first, second) = (right.receive(), right.receive());
    assert_eq!(first[6] & 0x20, 0x20, "more fragments");
    assert_eq!(second[6] & 0x20, 0);
    assert_eq!(first.len() + second.len(), 1478 + 20);
}

#[test]
fn a_burst_of_equal_packets_is_one_batch_and_stays_in_order() {
    let (mut left, mut right) = pair();
    let packets: Vec<_> = (0..20u8)
        .map(|n| udp_packet(LEFT, RIGHT, true, &[n; 1000]))
        .collect();
    left.send_burst(&packets);
    let mut payload = Vec::new();
    // Joined or not: the payload is the same, after 28 bytes of headers.
    while payload.len() < 20_000 {
        payload.extend_from_slice(&right.receive()[28..]);
    }
    let expected: Vec<u8> = (0..20u8).flat_map(|n| [n; 1000]).collect();
    assert_eq!(payload, expected);
    assert_eq!(right.datapath.traffic(ChildSaId(1)).unwrap().packets_in, 20);
}

#[test]
fn a_packet_without_policy_is_dropped_and_a_trap_acquires_once_a_second() {
    let mut left = end();
    left.send(&udp_packet(LEFT, RIGHT, true, b"x"));
    assert_eq!(left.drops("no-policy"), 1);
    for noise in [[224, 0, 0, 22], [255; 4]] {
        left.send(&udp_packet(LEFT, noise, true, b"x"));
    }
    assert_eq!((left.drops("no-policy"), left.drops("multicast")), (1, 2));
    let connection = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
    let child = Arc::clone(&connection.children[0]);
    let answer = left
        .datapath
        .obey(DataCommand::InstallTrap { connection, child });
    assert!(answer.is_none());
    for _ in 0..3 {
        left.send(&udp_packet(LEFT, RIGHT, true, b"x"));
    }
    let events = left.events();
    let [
        DataEvent::Acquire {
            connection,
            child,
            packet,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((connection.as_str(), child.as_str()), ("tunnel", "net"));
    let (source, destination) = packet.as_ref().unwrap();
    assert_eq!(source.to_string(), "10.1.0.1/32[udp/1000]");
    assert_eq!(destination.to_string(), "10.2.0.1/32[udp/2000]");
    assert_eq!(left.drops("no-sa"), 3);
}

#[test]
fn the_peer_moves_with_the_newest_packet_only() {
    let (mut left, mut right) = pair();
    // The same sealed packets, sent from elsewhere: a NAT has changed its mind.
    let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let catcher = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let aside = path(left.local, catcher.local_addr().unwrap());
    left.datapath.obey(DataCommand::UpdatePath {
        child: ChildSaId(1),
        path: aside,
    });
    let mut sealed = Vec::new();
    for n in 0..3 {
        left.send(&udp_packet(LEFT, RIGHT, true, &[n]));
        let mut datagram = [0; 200];
        let len = catcher.recv(&mut datagram).unwrap();
        sealed.push(datagram[..len].to_vec());
    }
    left.send(&udp_packet(LEFT, RIGHT, true, b"x"));
    elsewhere.send_to(&sealed[1], right.local).unwrap();
    right.receive();
    let mut moved = path(right.local, elsewhere.local_addr().unwrap());
    moved.interface = 0;
    let child = ChildSaId(1);
    let expected = [
        DataEvent::FirstAuthenticated { child },
        DataEvent::PeerMoved { child, path: moved },
    ];
    assert_eq!(right.events(), expected);
    std::thread::sleep(Duration::from_millis(1100));
    elsewhere.send_to(&sealed[0], right.local).unwrap();
    right.receive();
    assert_eq!(right.events(), [], "a late packet moves nobody");
    elsewhere.send_to(&sealed[2], right.local).unwrap();
    right.receive();
    assert_eq!(
        right.events(),
        [DataEvent::PeerMoved { child, path: moved }]
    );
}

#[test]
fn strangers_and_ike_are_told_apart_from_peers() {
    let mut right = end();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = path(right.local, stranger.local_addr().unwrap());
    for datagram in [
        &[0xff][..],
        &[0, 0, 0, 9, 0, 0, 0, 1, 2],
        &[0, 0, 0, 9, 0, 0, 0, 2, 2],
        b"ab",
        b"\0\0\0\0IKE",
    ] {
        stranger.send_to(datagram, right.local).unwrap();
    }
    let mut inputs = Vec::new();
    while inputs.len() < 2 {
        right.inbound.turn().unwrap();
        inputs.extend(right.inbox.try_iter());
    }
    assert!(
        matches!(&inputs[0], Input::Data(DataEvent::UnknownSpi { spi: 9, path }) if *path == from)
    );
    assert!(matches!(&inputs[1], Input::Ike(path, message) if *path == from && message == b"IKE"));
    assert_eq!((right.drops("unknown-spi"), right.drops("short")), (2, 1));
}

#[test]
fn what_a_peer_sends_before_we_have_installed_waits() {
    let (mut left, mut right) = (end(), end());
    let Some((_, Answer::Spi(Ok(spi)))) =
        right.datapath.obey(DataCommand::AllocSpi { id: AskId(3) })
    else {
        panic!("no SPI");
    };
    let left_to_right = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
    let right_to_left = connection("tunnel", "10.2.0.0/24", "10.1.0.0/24");
    let there = path(left.local, right.local);
    let back = path(right.local, left.local);
    left.install(child(1, &left_to_right, 0x1111, spi, there), 1, 2);
    let packets = [b"one", b"two"].map(|text| udp_packet(LEFT, RIGHT, true, text));
    for packet in &packets {
        left.send(packet);
    }
    while right.datapath.shared.parking.taken() < packets.len() {
        right.inbound.turn().unwrap();
    }
    right.install(child(1, &right_to_left, spi, 0x1111, back), 2, 1);
    for packet in packets {
        assert_eq!(right.receive(), packet);
    }
    assert_eq!(right.drops("unknown-spi"), 0);
    assert_eq!(right.datapath.traffic(ChildSaId(1)).unwrap().packets_in, 2);
    // Once it is gone, its SPI is nobody's.
    right.datapath.obey(DataCommand::RemoveIn {
        child: ChildSaId(1),
    });
    left.send(&udp_packet(LEFT, RIGHT, true, b"three"));
    while right.drops("unknown-spi") == 0 {
        right.inbound.turn().unwrap();
    }
    assert_eq!(right.drops("unknown-spi"), 1);
}

#[test]
fn ike_leaves_behind_the_marker_and_keepalives_without() {
    let mut left = end();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = path(left.local, peer.local_addr().unwrap());
    let mut buffer = [0; 100];
    for (datagram, expected) in [(&b"IKE"[..], &b"\0\0\0\0IKE"[..]), (&[0xff], &[0xff])] {
        left.datapath.transmit(Transmit {
            path,
            datagram: datagram.to_vec(),
            whole: false,
        });
        left.datapath.send_messages();
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (expected, left.local));
    }
}

#[test]
fn reach_is_told_when_it_changes() {
    let (mut left, _right) = pair();
    let changes = left.datapath.reach_changes();
    let [
        ToSupervisor::Reach {
            connection,
            remote,
            mtu,
            endpoint,
        },
    ] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((connection.as_str(), *mtu), ("tunnel", 1438));
    assert_eq!(remote[..], ["10.2.0.0/24".parse().unwrap()]);
    assert_eq!(*endpoint, Some("127.0.0.1".parse().unwrap()));
    assert!(left.datapath.reach_changes().is_empty());

    let params = left.params.clone().unwrap();
    left.datapath.shared.narrow(params.path.remote, 1400);
    let changes = left.datapath.reach_changes();
    assert!(
        matches!(&changes[..], [ToSupervisor::Reach { mtu: 1338, .. }]),
        "{changes:?}"
    );
    assert!(matches!(
        &left.events()[..],
        [DataEvent::PathMtu { mtu: 1400, .. }]
    ));

    left.datapath
        .obey(DataCommand::RemoveOut { child: params.id });
    let changes = left.datapath.reach_changes();
    assert!(
        matches!(&changes[..], [ToSupervisor::Reach { remote, mtu: 1338, endpoint: None, .. }] if remote.is_empty()),
        "{changes:?}"
    );
    left.datapath
        .obey(DataCommand::RemoveIn { child: params.id });
    assert!(left.datapath.reach_changes().is_empty());
}

#[test]
fn a_local_address_is_found_or_the_reason_why_not() {
    let left = end();
    let local = left
        .datapath
        .local_for("127.0.0.9:1".parse().unwrap(), None);
    // The test's only socket is a NAT-T socket: a call to another port has none to begin on.
    assert!(local.unwrap_err().contains("no IPv4 socket"));
    let same_port = SocketAddr::new("127.0.0.9".parse().unwrap(), left.local.port());
    assert_eq!(left.datapath.local_for(same_port, None), Ok(left.local));
    let port = left.local.port();
    // Whatever the port of the other end.
    let elsewhere = "127.0.0.9:1".parse().unwrap();
    let on = |port| left.datapath.local_on(port, elsewhere, None);
    assert_eq!((on(port), on(1)), (Some(left.local), None));
    let wrong = Some("2001:db8::1".parse().unwrap());
    let error = left.datapath.local_for(same_port, wrong).unwrap_err();
    assert!(error.contains("2001:db8::1 is not"), "{error}");
    let v6 = "[2001:db8::1]:500".parse().unwrap();
    assert!(
        left.datapath
            .local_for(v6, None)
            .unwrap_err()
            .contains("is IPv6")
    );
}

/// More than a burst of each TOS, so that a batch is open when the other comes.
#[test]
fn what_is_left_open_leaves_before_what_cannot_join_it() {
    let (mut left, mut right) = connect(end(), end_that(true));
    let packets: Vec<_> = (0..72u8)
        .map(|n| {
            let packet = udp_packet(LEFT, RIGHT, true, &[n; 1390]);
            with_header(packet, |header| header[1] = (n / 24) << 5)
        })
        .collect();
    left.send_burst(&packets);
    for (number, packet) in packets.iter().enumerate() {
        assert!(right.receive() == *packet, "{number}");
    }
    assert_eq!(left.datapath.drops(), []);
    assert_eq!(right.datapath.drops(), []);
}

/// As of a flow of which routers have marked some packets (ECN), between others that may go first.
#[test]
fn packets_between_two_hosts_do_not_overtake_one_another() {
    const OTHER: [u8; 4] = [10, 2, 0, 9];
    let (mut left, mut right) = connect(end(), end_that(true));
    let packets: Vec<_> = (0..24u8)
        .map(|n| {
            let to = if n % 4 == 3 { OTHER } else { RIGHT };
            let packet = udp_packet(LEFT, to, true, &[n; 400]);
            let marked = [2, 2, 3, 2, 3][usize::from(n) % 5];
            with_header(packet, |header| header[1] = marked)
        })
        .collect();
    left.send_burst(&packets);
    let came: Vec<_> = packets.iter().map(|_| right.receive()).collect();
    for to in [RIGHT, OTHER] {
        let between = |packets: &[Vec<u8>]| -> Vec<u8> {
            let those = packets.iter().filter(|packet| packet[16..20] == to);
            those.map(|packet| packet[28]).collect()
        };
        assert_eq!(between(&came), between(&packets), "{to:?}");
    }
    assert_eq!(left.datapath.drops(), []);
    assert_eq!(right.datapath.drops(), []);
}

/// A server's clients share a TUN: what is open for one is not gone on with for another, whose numbers would
/// follow.
#[test]
fn what_is_left_open_goes_to_its_own_peer() {
    const THIRD: [u8; 4] = [10, 3, 0, 1];
    let (mut left, mut right) = pair();
    let mut third = end();
    let there = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
    let params = ChildSaParameters {
        remote_ts: vec![prefix("10.3.0.0/24")],
        ..child(2, &there, 0x3333, 0x4444, path(left.local, third.local))
    };
    left.install(params, 3, 4);
    let back = connection("tunnel", "10.3.0.0/24", "10.1.0.0/24");
    let params = child(1, &back, 0x4444, 0x3333, path(third.local, left.local));
    third.install(params, 4, 3);
    let packets = |to, numbers: std::ops::Range<u8>| -> Vec<_> {
        numbers
            .map(|n| udp_packet(LEFT, to, true, &[n; 1390]))
            .collect()
    };
    // As many as are sent to the right before it is the third's turn.
    let (first, second, last) = (
        packets(THIRD, 0..24),
        packets(RIGHT, 24..48),
        packets(THIRD, 48..72),
    );
    left.send_burst(&first);
    left.send_burst(&[second.clone(), last.clone()].concat());
    let payload = |packets: &[Vec<u8>]| -> Vec<u8> {
        packets
            .iter()
            .flat_map(|packet| packet[28..].to_vec())
            .collect()
    };
    for (end, expected) in [
        (&mut right, payload(&second)),
        (&mut third, payload(&[first, last].concat())),
    ] {
        let mut came = Vec::new();
        while came.len() < expected.len() {
            came.extend_from_slice(&end.receive()[28..]);
        }
        assert!(came == expected);
        assert_eq!(end.datapath.drops(), []);
    }
}

#[test]
fn a_tun_that_refuses_joined_packets_gets_them_one_by_one() {
    let (mut left, mut right) = connect(end(), end_that(true));
    let packets: Vec<_> = (0..6u8)
        .map(|n| udp_packet(LEFT, RIGHT, true, &[n; 1000]))
        .collect();
    for _ in 0..2 {
        left.send_burst(&packets);
        for packet in &packets {
            assert!(right.receive() == *packet);
        }
    }
    assert_eq!(right.drops("tun-refused"), 0);
}

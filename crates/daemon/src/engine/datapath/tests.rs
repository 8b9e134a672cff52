//! Two data paths on loopback, with socketpairs for TUNs; workers are turned by hand.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};

use cygnet_crypto::Secret;
use cygnet_ike::io::ChildSaParameters;
use cygnet_linux::inject::{Call, before, inject, seen};
use cygnet_wire::ip::{GsoType, VirtioNetHeader};
use rustix::io::Errno;

use super::*;
use crate::engine::datapath::testing::{
    self, child, connection, path, queue_that, socket, udp_packet,
};

const LEFT: [u8; 4] = [10, 1, 0, 1];
const RIGHT: [u8; 4] = [10, 2, 0, 1];

struct End {
    datapath: Datapath,
    inbox: Receiver<Input>,
    host: UnixDatagram,
    outbound: Outbound,
    queue: Arc<dyn Queue>,
    inbound: Inbound,
    local: SocketAddr,
    params: Option<ChildSaParameters>,
}

fn end() -> End {
    end_that(false)
}

/// An end whose TUN may refuse super-packets.
fn end_that(refuses_joined: bool) -> End {
    let (sender, inbox) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let socket = socket(true);
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
    fn install(&mut self, params: ChildSaParameters, key_in: u8, key_out: u8) {
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
    fn send(&mut self, packet: &[u8]) {
        self.send_burst(&[packet]);
    }

    /// The host behind this end sends packets faster than they are read.
    fn send_burst(&mut self, packets: &[impl AsRef<[u8]>]) {
        for packet in packets {
            let read = [&VirtioNetHeader::PLAIN.emit()[..], packet.as_ref()].concat();
            self.host.send(&read).unwrap();
        }
        self.seal();
    }

    /// Seals all that was sent.
    fn seal(&mut self) {
        while !matches!(
            self.outbound.turn(0, &*self.queue).unwrap(),
            burst::End::Empty
        ) {}
    }

    /// What the host behind this end gets next.
    fn receive(&mut self) -> Vec<u8> {
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

    fn events(&self) -> Vec<DataEvent> {
        let events = self.inbox.try_iter().filter_map(|input| match input {
            Input::Data(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    fn drops(&self, reason: &str) -> u64 {
        let drops = self.datapath.drops();
        let found = drops.into_iter().find(|(name, _)| name == reason);
        found.map_or(0, |(_, count)| count)
    }
}

/// Two ends with a Child SA between them.
fn pair() -> (End, End) {
    connect(end(), end())
}

fn connect(mut left: End, mut right: End) -> (End, End) {
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
    let left = end();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = path(left.local, peer.local_addr().unwrap());
    let mut buffer = [0; 100];
    for (datagram, expected) in [(&b"IKE"[..], &b"\0\0\0\0IKE"[..]), (&[0xff], &[0xff])] {
        left.datapath.transmit(&Transmit {
            path,
            datagram: datagram.to_vec(),
        });
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
            local,
            mtu,
            endpoint,
        },
    ] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((connection.as_str(), *mtu), ("tunnel", 1438));
    assert_eq!(remote[..], ["10.2.0.0/24".parse().unwrap()]);
    assert_eq!(local[..], ["10.1.0.0/24".parse().unwrap()]);
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

/// Run by [`a_path_turns_out_narrow`] where the loopback interface is narrow.
fn on_a_narrow_loopback() {
    const ICMP_MTU: u16 = 1238;
    let long = |n: u8, dont_fragment| udp_packet(LEFT, RIGHT, dont_fragment, &[n; 1260]);

    // One packet that must not be cut: its sender is told.
    let (mut left, mut right) = pair();
    left.send(&long(1, true));
    let answer = left.receive();
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4));
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), ICMP_MTU);
    assert!(matches!(
        &left.events()[..],
        [DataEvent::PathMtu { mtu: 1300, .. }]
    ));
    assert_eq!(left.drops("too-big"), 1);
    left.send(&udp_packet(LEFT, RIGHT, true, &[2; 1210]));
    assert_eq!(right.receive().len(), usize::from(ICMP_MTU));

    // One that may: it is cut, then sealed with numbers of its own.
    let (mut left, mut right) = pair();
    left.send(&long(3, false));
    assert_eq!(right.receive().len() + right.receive().len(), 1288 + 20);
    assert_eq!(left.datapath.traffic(ChildSaId(1)).unwrap().packets_out, 3);

    // A batch of several reads is cut again as a whole, under fresh numbers.
    let (mut left, mut right) = pair();
    let packets: Vec<_> = (0..5).map(|n| long(n, n == 2)).collect();
    left.send_burst(&packets);
    let lengths: Vec<_> = (0..8).map(|_| right.receive().len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 4 * (1288 + 20));
    assert_eq!(
        left.receive()[9],
        1,
        "the one that must not be cut is answered"
    );
    assert_eq!(left.drops("too-big"), 1);
    assert_eq!(
        left.datapath.traffic(ChildSaId(1)).unwrap().packets_out,
        5 + 8
    );

    // Equal datagrams in one read that may be cut: each is.
    let (mut left, mut right) = pair();
    let header = VirtioNetHeader {
        needs_checksum: true,
        gso_type: GsoType::UdpL4,
        gso_size: 1260,
        csum_start: 20,
        csum_offset: 6,
        ..VirtioNetHeader::PLAIN
    };
    let read = [
        &header.emit()[..],
        &udp_packet(LEFT, RIGHT, false, &[7; 3 * 1260]),
    ]
    .concat();
    left.host.send(&read).unwrap();
    left.seal();
    let lengths: Vec<_> = (0..6).map(|_| right.receive().len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 3 * (1288 + 20));
}

/// The loopback interface has an MTU of 1300.
#[test]
fn a_path_turns_out_narrow() {
    testing::alone(
        "datapath::tests::a_path_turns_out_narrow",
        "ip link set lo mtu 1300 up",
        on_a_narrow_loopback,
    );
}

/// A read of 65 000 octets of payload, none equal to its neighbours, and its payload.
fn long_read(gso_type: GsoType, dont_fragment: bool) -> (Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..65_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let mut packet = udp_packet(LEFT, RIGHT, dont_fragment, &payload);
    let mut header = VirtioNetHeader::PLAIN;
    if gso_type != GsoType::None {
        header = VirtioNetHeader {
            needs_checksum: true,
            gso_type,
            gso_size: 1360,
            csum_start: 20,
            csum_offset: 6,
            ..header
        };
    }
    if gso_type == GsoType::TcpV4 {
        header.csum_offset = 16;
        // Twelve octets longer than that of UDP; the checksums of each segment are made anew.
        let mut tcp = vec![0; 20];
        (tcp[12], tcp[13]) = (5 << 4, 0x10);
        let total = u16::try_from(40 + payload.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[9] = 6;
        packet.splice(20..28, tcp);
    }
    ([&header.emit()[..], &packet].concat(), payload)
}

/// What follows the headers of a packet, or of a fragment of UDP.
fn payload(packet: &[u8]) -> &[u8] {
    let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    let upper = match packet[9] {
        6 => 20,
        _ if offset == 0 => 8,
        _ => 0,
    };
    &packet[20 + upper..]
}

/// Run by [`what_has_left_is_not_sent_again`]: the path becomes narrower between two batches of one read.
fn while_it_leaves() {
    let mtu = |mtu: &str| {
        let mut ip = std::process::Command::new("ip");
        let status = ip.args(["link", "set", "lo", "mtu", mtu]).status();
        assert!(status.unwrap().success());
    };
    let kinds = [
        // The rest is cut smaller.
        (GsoType::TcpV4, false, Call::SendBatch),
        // Each of the rest is cut.
        (GsoType::UdpL4, false, Call::SendBatch),
        // It is cut into other fragments.
        (GsoType::None, false, Call::SendBatch),
        // In the midst of a batch.
        (GsoType::TcpV4, false, Call::Send),
        // The rest must not be cut.
        (GsoType::UdpL4, true, Call::SendBatch),
    ];
    for (gso_type, dont_fragment, call) in kinds {
        mtu("65536");
        let (mut left, mut right) = pair();
        let number = match call {
            Call::Send => 7,
            _ => 1,
        };
        if call == Call::Send {
            inject(Call::SendBatch, 0..usize::MAX, Errno::IO.raw_os_error());
        }
        before(call, number, move || mtu("1300"));
        let (read, mut expected) = long_read(gso_type, dont_fragment);
        left.host.send(&read).unwrap();
        left.seal();
        assert!(seen(call) > number, "one batch took it all");
        if dont_fragment {
            let answer = left.receive();
            assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4));
            let dropped = usize::try_from(left.drops("too-big")).unwrap();
            let total = expected.len().div_ceil(1360);
            assert!(
                (1..total).contains(&dropped),
                "{dropped} of {total} dropped"
            );
            expected.truncate((total - dropped) * 1360);
        }
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend_from_slice(payload(&right.receive()));
        }
        assert!(received == expected, "{gso_type:?} by {call:?}");
        right.inbound.turn().unwrap();
        let more = right.host.recv(&mut [0; 100]);
        assert!(more.is_err(), "{gso_type:?} by {call:?}: sent again");
        let sent = left.datapath.traffic(ChildSaId(1)).unwrap().packets_out;
        let came = right.datapath.traffic(ChildSaId(1)).unwrap().packets_in;
        assert!(
            came < sent,
            "the numbers of what did not leave are not used again"
        );
        assert_eq!(right.datapath.drops(), []);
    }
}

#[test]
fn what_has_left_is_not_sent_again() {
    testing::alone(
        "datapath::tests::what_has_left_is_not_sent_again",
        "ip link set lo up",
        while_it_leaves,
    );
}

/// Run by [`a_full_socket_holds_the_turn_for_a_moment_only`], as what is injected holds for a process.
fn with_a_full_socket() {
    let packets: Vec<_> = (0..40u8)
        .map(|n| udp_packet(LEFT, RIGHT, true, &[n; 1000]))
        .collect();
    let (mut left, mut right) = pair();
    // No offload, so each datagram is sent by itself: some leave, then the socket stays full.
    inject(Call::SendBatch, 0..usize::MAX, Errno::IO.raw_os_error());
    left.send_burst(&packets[..10]);
    for packet in &packets[..10] {
        assert!(right.receive() == *packet);
    }
    inject(Call::Send, 0..usize::MAX, Errno::AGAIN.raw_os_error());
    let begun = Instant::now();
    left.send_burst(&packets);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(50),
        "not waited for: {took:?}"
    );
    assert!(
        took < Duration::from_millis(1000),
        "waited for too often: {took:?}"
    );
    assert_eq!(left.drops("send-queue-full"), 40);
    // As soon as there is room, nothing is lost.
    inject(Call::Send, 0..5, Errno::NOBUFS.raw_os_error());
    left.send_burst(&packets);
    for packet in &packets {
        assert!(right.receive() == *packet);
    }
    assert_eq!(left.drops("send-queue-full"), 40);
}

#[test]
fn a_full_socket_holds_the_turn_for_a_moment_only() {
    testing::alone(
        "datapath::tests::a_full_socket_holds_the_turn_for_a_moment_only",
        "ip link set lo up",
        with_a_full_socket,
    );
}

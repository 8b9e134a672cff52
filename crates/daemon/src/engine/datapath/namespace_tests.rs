//! Two data paths on the loopback of a network namespace of their own: its MTU changes, and what is
//! injected into system calls there meets no other test.

use cygnet_linux::inject::{Call, before, inject, seen};
use cygnet_wire::ip::{GsoType, VirtioNetHeader};
use rustix::io::Errno;

use super::testing::{child, connection, path, udp_packet};
use super::tests::{End, LEFT, RIGHT, end, pair};
use super::*;
use crate::alone::alone;

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

    // One that shared their batch follows them, although it was cut into a group that came to nothing.
    let (mut left, mut right) = pair();
    let short = udp_packet(LEFT, RIGHT, false, &[8; 600]);
    left.host.send(&read).unwrap();
    left.host
        .send(&[&VirtioNetHeader::PLAIN.emit()[..], &short].concat())
        .unwrap();
    left.seal();
    let lengths: Vec<_> = (0..6).map(|_| right.receive().len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 3 * (1288 + 20));
    assert!(right.receive() == short);
}

/// The loopback interface has an MTU of 1300.
#[test]
fn a_path_turns_out_narrow() {
    alone(
        "engine::datapath::namespace_tests::a_path_turns_out_narrow",
        "ip link set lo mtu 1300 up",
        on_a_narrow_loopback,
    );
}

/// IPv6 packets of 1280 octets, which no path may refuse: sealed, they leave in fragments.
fn least_of_ipv6() {
    const NEAR: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const FAR: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let (mut left, mut right) = (end(), end());
    let (here, there) = (left.local, right.local);
    for (end, (local, remote), (spi_in, spi_out), peer) in [
        (&mut left, ("fd01::/16", "fd02::/16"), (1, 2), there),
        (&mut right, ("fd02::/16", "fd01::/16"), (2, 1), here),
    ] {
        let connection = connection("tunnel", local, remote);
        let path = path(end.local, peer);
        end.install(
            child(1, &connection, spi_in, spi_out, path),
            spi_in as u8,
            spi_out as u8,
        );
    }
    let mut packet = vec![0x60, 0, 0, 0, 0x04, 0xd8, 59, 64];
    packet.extend(NEAR);
    packet.extend(FAR);
    packet.resize(1280, 7);
    let numbers = |end: &End| end.datapath.traffic(ChildSaId(1)).unwrap().packets_out;
    left.send(&packet);
    assert!(right.receive() == packet);
    let before = numbers(&left);
    left.send_burst(&[&packet; 3]);
    for _ in 0..3 {
        assert!(right.receive() == packet);
    }
    assert_eq!(numbers(&left), before + 3, "each is sealed once");
    assert_eq!(left.datapath.drops(), []);
}

/// The loopback interface has an MTU of 1300.
#[test]
fn ipv6_gets_its_least_mtu_on_any_path() {
    alone(
        "engine::datapath::namespace_tests::ipv6_gets_its_least_mtu_on_any_path",
        "ip link set lo mtu 1300 up",
        least_of_ipv6,
    );
}

/// Payload of a segment.
const SEGMENT: usize = 1360;

/// A read of so many octets of payload, none equal to its neighbours, and its payload.
fn long_read(len: usize, gso_type: GsoType, dont_fragment: bool) -> (Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..len as u32).map(|n| (n ^ n >> 8) as u8).collect();
    let mut packet = udp_packet(LEFT, RIGHT, dont_fragment, &payload);
    let mut header = VirtioNetHeader::PLAIN;
    if gso_type != GsoType::None {
        header = VirtioNetHeader {
            needs_checksum: true,
            gso_type,
            gso_size: SEGMENT as u16,
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

fn mtu(mtu: &str) {
    let mut ip = std::process::Command::new("ip");
    let status = ip.args(["link", "set", "lo", "mtu", mtu]).status();
    assert!(status.unwrap().success());
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
        let (read, mut expected) = long_read(65_000, gso_type, dont_fragment);
        left.host.send(&read).unwrap();
        left.seal();
        assert!(seen(call) > number, "one batch took it all");
        if dont_fragment {
            let answer = left.receive();
            assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4));
            let dropped = usize::try_from(left.drops("too-big")).unwrap();
            let total = expected.len().div_ceil(SEGMENT);
            assert!(
                (1..total).contains(&dropped),
                "{dropped} of {total} dropped"
            );
            expected.truncate((total - dropped) * SEGMENT);
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
    alone(
        "engine::datapath::namespace_tests::what_has_left_is_not_sent_again",
        "ip link set lo up",
        while_it_leaves,
    );
}

/// Run by [`what_is_left_open_goes_on_where_the_path_becomes_narrow`]: what is in the batch is of two reads
/// when the path becomes narrower. The first of them is there no more.
fn while_it_is_open() {
    // Two more segments than a batch holds, all of one length: the next read joins them.
    let (read, payload_of_one) = long_read(47 * SEGMENT, GsoType::TcpV4, false);
    let expected = payload_of_one.repeat(3);
    let never = usize::MAX;
    for (call, number) in [
        // It stays as wide as it is.
        (Call::SendBatch, never),
        // In one piece.
        (Call::SendBatch, 1),
        // One by one: one of the first read's two has left; both have, and some of the second's.
        (Call::Send, 46),
        (Call::Send, 60),
    ] {
        mtu("65536");
        let (mut left, mut right) = pair();
        if call == Call::Send {
            inject(Call::SendBatch, 0..usize::MAX, Errno::IO.raw_os_error());
        }
        if number == never {
            inject(call, 0..0, 0);
        } else {
            before(call, number, move || mtu("1300"));
        }
        for _ in 0..3 {
            left.host.send(&read).unwrap();
        }
        left.seal();
        if number == never {
            let batches = seen(call);
            assert_eq!(
                batches, 4,
                "three of 45 and one of 6, not three of 45 and three of 2"
            );
        }
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend_from_slice(payload(&right.receive()));
        }
        assert!(received == expected, "{call:?} {number}");
        right.inbound.turn().unwrap();
        let more = right.host.recv(&mut [0; 100]);
        assert!(more.is_err(), "{call:?} {number}: sent again");
        assert_eq!(right.datapath.drops(), []);
        assert_eq!(left.datapath.drops(), []);
    }
}

#[test]
fn what_is_left_open_goes_on_where_the_path_becomes_narrow() {
    alone(
        "engine::datapath::namespace_tests::what_is_left_open_goes_on_where_the_path_becomes_narrow",
        "ip link set lo up",
        while_it_is_open,
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
    alone(
        "engine::datapath::namespace_tests::a_full_socket_holds_the_turn_for_a_moment_only",
        "ip link set lo up",
        with_a_full_socket,
    );
}

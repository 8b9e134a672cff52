//! Datagrams that have waited too long in their socket: one packet now and then tells its sender.

use cygnet_linux::Received;
use cygnet_wire::ip::{VirtioNetHeader, protocol};

use super::testing::{udp_packet, with_header};
use super::tests::{End, LEFT, RIGHT, connect, end, end_that_notes_times, pair};
use super::*;

const NOT_ECT: u8 = 0b00;
const ECT_0: u8 = 0b10;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;
/// Too long.
const LONG: Duration = Duration::from_millis(50);
/// Since the first train: longer than CoDel's interval, shorter than two.
const LATER: Duration = Duration::from_millis(110);

fn packet(tos: u8, number: u8, len: usize) -> Vec<u8> {
    let packet = udp_packet(LEFT, RIGHT, true, &vec![number; len]);
    with_header(packet, |header| header[1] = tos)
}

/// Receives one train at a time, after it is said to have waited so long; what it brought to the host.
fn turn(end: &mut End, now: Duration, waited: Duration) -> Vec<Vec<u8>> {
    end.inbound
        .turn_where(|_, _, _| Some((now, waited)))
        .unwrap();
    let mut buffer = vec![0; 70_000];
    let mut packets = Vec::new();
    while let Ok(len) = end.host.recv(&mut buffer) {
        packets.push(buffer[VirtioNetHeader::LEN..len].to_vec());
    }
    packets
}

/// Two ends, one of which is too slow: what comes [`LATER`] tells its sender.
fn slow() -> (End, End) {
    let (mut left, mut right) = pair();
    let packet = packet(ECT_0, 1, 1000);
    left.send(&packet);
    assert_eq!(turn(&mut right, Duration::ZERO, LONG), [packet]);
    (left, right)
}

#[test]
fn a_packet_whose_transport_knows_ecn_is_marked() {
    for ecn in [ECT_0, ECT_1] {
        let (mut left, mut right) = slow();
        left.send(&packet(ecn, 2, 1000));
        assert_eq!(turn(&mut right, LATER, LONG), [packet(CE, 2, 1000)]);
        // Enough for now.
        left.send(&packet(ecn, 3, 1000));
        assert_eq!(turn(&mut right, LATER, LONG), [packet(ecn, 3, 1000)]);
        assert_eq!(right.datapath.drops(), []);
    }
}

#[test]
fn another_is_dropped_and_counted() {
    let (mut left, mut right) = slow();
    left.send(&packet(NOT_ECT, 2, 1000));
    assert!(turn(&mut right, LATER, LONG).is_empty());
    left.send(&packet(NOT_ECT, 3, 1000));
    assert_eq!(turn(&mut right, LATER, LONG), [packet(NOT_ECT, 3, 1000)]);
    assert_eq!(right.datapath.drops(), [("queue-delay".to_owned(), 1)]);
}

#[test]
fn what_is_short_or_not_authentic_or_ike_is_passed_over() {
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // IKE, ESP of nobody, and a forgery for the SA that is there.
    for spi in [0, 9, 0x2222u32] {
        let (mut left, mut right) = slow();
        let mut datagram = [7; 1000];
        datagram[..4].copy_from_slice(&spi.to_be_bytes());
        stranger.send_to(&datagram, right.local).unwrap();
        assert!(turn(&mut right, LATER, LONG).is_empty());
        // Nobody else pays for it.
        left.send(&packet(NOT_ECT, 3, 1000));
        assert_eq!(turn(&mut right, LATER, LONG), [packet(NOT_ECT, 3, 1000)]);
        let ike = right.inbox.try_iter().find_map(|input| match input {
            Input::Ike(_, message) => Some(message.len()),
            _ => None,
        });
        assert_eq!(ike, (spi == 0).then_some(996));
        assert_eq!(right.drops("queue-delay"), 0);
    }
    let (mut left, mut right) = slow();
    left.send(&packet(NOT_ECT, 2, 100));
    assert_eq!(turn(&mut right, LATER, LONG), [packet(NOT_ECT, 2, 100)]);
    assert_eq!(right.datapath.drops(), []);
}

/// By the times of the kernel's own; a busy machine only makes them longer.
#[test]
fn a_queue_that_stays_long_is_noticed() {
    let (mut left, mut right) = connect(end(), end_that_notes_times());
    let packets: Vec<_> = (0..4).map(|n| packet(NOT_ECT, n, 1000)).collect();
    let mut came = Vec::new();
    let mut buffer = vec![0; 70_000];
    for packet in &packets {
        left.send(packet);
    }
    std::thread::sleep(LONG);
    for _ in &packets {
        right.inbound.turn().unwrap();
        if let Ok(len) = right.host.recv(&mut buffer) {
            came.push(buffer[VirtioNetHeader::LEN..len].to_vec());
        }
        std::thread::sleep(LATER);
    }
    // The second came out after the queue had been long for an interval; the last had none behind it.
    assert_eq!(
        right.drops("queue-delay"),
        (packets.len() - came.len()) as u64
    );
    assert!(came.len() < packets.len());
    assert_eq!((&came[0], came.last()), (&packets[0], packets.last()));
    assert!(!came.contains(&packets[1]));
}

#[test]
fn one_that_waited_alone_was_in_no_queue() {
    let (mut left, mut right) = pair();
    // The socket of these tests notes no times; it is said to have been long.
    let after = |now: u64| {
        move |_: &Shared, lane: &Lane, received: &Received| {
            let received = Received {
                waited: Some(LONG),
                ..*received
            };
            let waited = lane.queued_for(&received)?;
            Some((Duration::from_millis(now), waited))
        }
    };
    let mut buffer = [0; 2000];
    for number in 0..20u8 {
        left.send(&packet(NOT_ECT, number, 1000));
        let now = u64::from(number) * 100;
        right.inbound.turn_where(after(now)).unwrap();
        let len = right.host.recv(&mut buffer).unwrap();
        let came = &buffer[VirtioNetHeader::LEN..len];
        assert_eq!(came, packet(NOT_ECT, number, 1000));
    }
    assert_eq!(right.datapath.drops(), []);
}

#[test]
fn of_a_train_the_first_of_tcp_is_dropped_and_the_others_stay_in_order() {
    let (mut left, mut right) = slow();
    let packets: Vec<_> = (0..6u8)
        .map(|n| {
            let mut payload = [n; 1000];
            // No TCP header that could be joined.
            payload[..20].fill(0);
            let packet = udp_packet(LEFT, RIGHT, true, &payload);
            let upper = if n == 0 { 99 } else { protocol::TCP };
            with_header(packet, |header| header[9] = upper)
        })
        .collect();
    left.send_burst(&packets);
    let mut came = turn(&mut right, LATER, LONG);
    // The kernel may have made one train of them, or none: then the first is one by itself.
    let lost = usize::from(!came.is_empty());
    for _ in 1..packets.len() {
        if came.len() < packets.len() - 1 {
            came.extend(turn(&mut right, LATER, LONG));
        }
    }
    let mut expected = packets;
    expected.remove(lost);
    assert!(came == expected);
    assert_eq!(right.datapath.drops(), [("queue-delay".to_owned(), 1)]);
}

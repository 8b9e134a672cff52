//! Joining, held against cutting: what goes in comes out again.

use std::collections::BTreeMap;

use cygnet_wire::ip::tcp_flags::{ACK, CWR, ECE, FIN, PSH, SYN};
use proptest::prelude::*;

use super::*;
use crate::flow::Flow;
use crate::segment::Segments;
use crate::testing::{Spec, Upper, is_intact};

const BOTH: JoinConfig = JoinConfig {
    tcp: true,
    udp: true,
};

/// The packets as they lie in a receive buffer after opening: with ESP's leavings between them.
fn burst(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut buffer = vec![];
    let ranges = packets.iter().map(|packet| {
        buffer.extend_from_slice(&[0xdd; 16]);
        let start = buffer.len();
        buffer.extend_from_slice(packet);
        buffer.extend_from_slice(&[0xdd; 19]);
        start..start + packet.len()
    });
    let ranges = ranges.collect();
    (buffer, ranges)
}

/// The writes a burst becomes: virtio header and packet.
fn join(config: JoinConfig, packets: &[Vec<u8>]) -> Vec<(VirtioNetHeader, Vec<u8>)> {
    let (mut buffer, ranges) = burst(packets);
    let mut joiner = Joiner::new(config);
    for range in ranges {
        let packet = IpPacket::parse(&buffer[range.clone()]).unwrap();
        assert!(joiner.push(&buffer, range, &packet));
    }
    joiner.finish(&mut buffer);
    let write = |joined: Joined<'_>| {
        let bytes = joined
            .ranges()
            .flat_map(|range| buffer[range].to_vec())
            .collect::<Vec<_>>();
        (
            VirtioNetHeader::parse(&bytes).unwrap(),
            bytes[10..].to_vec(),
        )
    };
    joiner.joined().map(write).collect()
}

fn split(writes: &[(VirtioNetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut packets = vec![];
    for (header, bytes) in writes {
        let mut segments = Segments::new(header, bytes).unwrap();
        while segments.remaining() != 0 {
            let mut packet = vec![0; segments.next_len()];
            segments.write_next(&mut packet).unwrap();
            packets.push(packet);
        }
    }
    packets
}

/// `count` segments of one TCP flow, `size` bytes each.
fn tcp_flow(v6: bool, count: usize, size: usize) -> Vec<Spec> {
    (0..count)
        .map(|i| {
            let mut spec = Spec::tcp(v6, &vec![i as u8; size]);
            spec.id = 65_530u16.wrapping_add(i as u16);
            if let Upper::Tcp { seq, .. } = &mut spec.upper {
                *seq = 0xffff_ff00u32.wrapping_add((i * size) as u32);
            }
            spec
        })
        .collect()
}

fn flags_of(spec: &mut Spec) -> &mut u8 {
    match &mut spec.upper {
        Upper::Tcp { flags, .. } => flags,
        _ => panic!("a TCP packet"),
    }
}

fn bytes_of(specs: &[Spec]) -> Vec<Vec<u8>> {
    specs.iter().map(Spec::bytes).collect()
}

/// How many segments each write has.
fn shape(specs: &[Spec]) -> Vec<usize> {
    let packets = bytes_of(specs);
    let writes = join(BOTH, &packets);
    assert_eq!(split(&writes), packets);
    writes
        .iter()
        .map(|write| split(std::slice::from_ref(write)).len())
        .collect()
}

#[test]
fn a_super_packet_byte_for_byte() {
    let mut specs = tcp_flow(false, 2, 3);
    for spec in &mut specs {
        spec.id = spec.id.wrapping_sub(65_530);
        if let Upper::Tcp { options, seq, .. } = &mut spec.upper {
            options.clear();
            *seq = seq.wrapping_add(0x100);
        }
    }
    *flags_of(&mut specs[1]) |= PSH;
    let writes = join(BOTH, &bytes_of(&specs));
    let [(header, bytes)] = &writes[..] else {
        panic!("one write")
    };
    assert_eq!(
        *header,
        VirtioNetHeader {
            needs_checksum: true,
            data_valid: false,
            gso_type: GsoType::TcpV4,
            ecn: false,
            header_len: 40,
            gso_size: 3,
            csum_start: 20,
            csum_offset: 16,
        }
    );
    // The TCP checksum is the sum of the pseudo-header: 0a01+0002+0a02+0002+0006+001a = 1427.
    #[rustfmt::skip]
    assert_eq!(*bytes, [
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0x26, 0xc4, 10, 1, 0, 2, 10, 2, 0, 2,
        0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 77, 0x50, 0x18, 1, 0xf4, 0x14, 0x27, 0, 0,
        0, 0, 0, 1, 1, 1,
    ]);
}

#[test]
fn flows_join_in_both_families_and_protocols() {
    for v6 in [false, true] {
        let mut tcp = tcp_flow(v6, 5, 1000);
        tcp[4].payload.truncate(10);
        assert_eq!(shape(&tcp), [5]);
        let udp = (0..5).map(|i| Spec {
            id: i,
            ..Spec::udp(v6, &[i as u8; 300])
        });
        assert_eq!(shape(&udp.collect::<Vec<_>>()), [5]);
    }
}

/// Changes a 16-bit word of a TCP packet, and its checksum so that it stays right (RFC 1624).
fn with_word(packet: &mut [u8], tcp: usize, at: usize, change: impl Fn(u16) -> u16) {
    let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let old = word(packet, tcp + at);
    let new = change(old);
    let mut sum = [!word(packet, tcp + 16), !old, new]
        .into_iter()
        .map(u32::from)
        .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[tcp + at..][..2].copy_from_slice(&new.to_be_bytes());
    packet[tcp + 16..][..2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn what_a_cut_would_not_bring_back_is_not_joined() {
    type Change = fn(&mut [u8], usize);
    let changes: [(&str, Change); 4] = [
        ("urgent data", |packet, tcp| {
            with_word(packet, tcp, 12, |word| word | 0x20);
            with_word(packet, tcp, 18, |_| 1);
        }),
        ("an urgent pointer alone", |packet, tcp| {
            with_word(packet, tcp, 18, |_| 1);
        }),
        ("a reserved bit", |packet, tcp| {
            with_word(packet, tcp, 12, |word| word | 0x0800);
        }),
        ("accurate ECN", |packet, tcp| {
            with_word(packet, tcp, 12, |word| word | 0x0100);
        }),
    ];
    for v6 in [false, true] {
        let tcp = if v6 { 40 } else { 20 };
        for (what, change) in changes {
            let mut packets = bytes_of(&tcp_flow(v6, 3, 100));
            change(&mut packets[1], tcp);
            let writes = join(BOTH, &packets);
            assert_eq!(split(&writes), packets, "{what}");
            assert_eq!(writes.len(), 3, "{what}");
        }
    }
    let mut packets = bytes_of(&tcp_flow(true, 3, 100));
    packets[1][3] = 1;
    let writes = join(BOTH, &packets);
    assert_eq!(split(&writes), packets);
    assert_eq!(writes.len(), 3, "another flow label");
}

#[test]
fn push_and_fin_end_a_super_packet() {
    for last in [PSH, FIN, PSH | FIN] {
        let mut specs = tcp_flow(true, 4, 100);
        *flags_of(&mut specs[1]) |= last;
        assert_eq!(shape(&specs), [2, 2]);
        *flags_of(&mut specs[0]) |= last;
        assert_eq!(shape(&specs), [1, 1, 2]);
    }
}

#[test]
fn whatever_differs_is_not_joined() {
    type Change = fn(&mut Spec);
    let changes: [(&str, Change); 13] = [
        ("DSCP", |s| s.tos = 0xb8),
        ("ECN", |s| s.tos = 1),
        ("TTL", |s| s.ttl = 63),
        ("a gap in identifications", |s| s.id = 7),
        ("DF", |s| s.dont_fragment = false),
        ("IP options", |s| s.ip_options = vec![1; 4]),
        ("SYN", |s| *flags_of(s) |= SYN),
        ("ECN echo", |s| *flags_of(s) |= ECE),
        ("CWR", |s| *flags_of(s) |= CWR),
        ("no ACK", |s| *flags_of(s) &= !ACK),
        ("TCP options", |s| {
            if let Upper::Tcp { options, .. } = &mut s.upper {
                options[7] = 9;
            }
        }),
        ("acknowledgement", |s| {
            if let Upper::Tcp { ack, .. } = &mut s.upper {
                *ack = 78;
            }
        }),
        ("window", |s| {
            if let Upper::Tcp { window, .. } = &mut s.upper {
                *window = 1;
            }
        }),
    ];
    for (what, change) in changes {
        let mut specs = tcp_flow(false, 3, 100);
        change(&mut specs[1]);
        assert_eq!(shape(&specs), [1, 1, 1], "{what}");
    }
    let mut specs = tcp_flow(false, 4, 100);
    specs.swap(1, 2);
    assert_eq!(shape(&specs), [1, 1, 1, 1], "out of sequence");
    let mut specs = tcp_flow(false, 3, 100);
    specs[1].payload.push(0);
    assert_eq!(shape(&specs), [1, 1, 1], "a longer one");
}

#[test]
fn damaged_packets_stay_as_they_are() {
    for at in [10, 60, 16] {
        let mut packets = bytes_of(&tcp_flow(false, 2, 100));
        packets[1][at] ^= 1;
        let writes = join(BOTH, &packets);
        assert_eq!(writes.len(), 2, "byte {at}");
        assert_eq!(writes[1], (VirtioNetHeader::PLAIN, packets[1].clone()));
    }
}

#[test]
fn fragments_and_others_are_not_joined_nor_overtaken() {
    let mut specs = tcp_flow(false, 4, 100);
    specs.insert(
        2,
        Spec::of(false, Upper::Other(1), &[8, 0, 0, 0, 0, 0, 0, 0]),
    );
    assert_eq!(shape(&specs), [2, 1, 2]);
    let mut packets = bytes_of(&tcp_flow(false, 4, 100));
    packets[2][6..8].copy_from_slice(&Ipv4Header::MORE_FRAGMENTS.to_be_bytes());
    let sum = checksum::ipv4_header(&packets[2][..20]);
    packets[2][10..12].copy_from_slice(&sum.to_be_bytes());
    let writes = join(BOTH, &packets);
    assert_eq!(writes.len(), 3);
    assert_eq!(split(&writes), packets);
}

#[test]
fn interleaved_flows_each_join() {
    let flow = |host| {
        tcp_flow(true, 3, 200).into_iter().map(move |s| Spec {
            src_host: host,
            ..s
        })
    };
    let specs = flow(1)
        .zip(flow(2))
        .flat_map(|(a, b)| [a, b])
        .collect::<Vec<_>>();
    let writes = join(BOTH, &bytes_of(&specs));
    assert_eq!(writes.len(), 2);
    let expected = flow(1)
        .chain(flow(2))
        .map(|s| s.bytes())
        .collect::<Vec<_>>();
    assert_eq!(split(&writes), expected);
}

#[test]
fn datagrams_with_df_and_one_identification_join() {
    let packets = bytes_of(&[0, 1, 2].map(|i| Spec {
        id: 0,
        ..Spec::udp(false, &[i; 50])
    }));
    let writes = join(BOTH, &packets);
    assert_eq!(writes.len(), 1);
    let payloads = split(&writes)
        .iter()
        .map(|p| p[28..].to_vec())
        .collect::<Vec<_>>();
    assert_eq!(payloads, [0, 1, 2].map(|i| vec![i; 50]));
    let loose = [0, 1].map(|i| Spec {
        id: 0,
        dont_fragment: false,
        ..Spec::udp(false, &[i; 50])
    });
    assert_eq!(
        join(BOTH, &bytes_of(&loose)).len(),
        2,
        "without DF identifications mean something"
    );
}

#[test]
fn limits_of_a_super_packet() {
    assert_eq!(shape(&tcp_flow(true, 70, 10)), [64, 6]);
    assert_eq!(shape(&tcp_flow(false, 50, 1400)), [46, 4]);
}

#[test]
fn a_tun_without_offloads_gets_single_packets() {
    let packets = bytes_of(&tcp_flow(false, 3, 100));
    let writes = join(
        JoinConfig {
            tcp: false,
            udp: true,
        },
        &packets,
    );
    let plain = packets
        .into_iter()
        .map(|p| (VirtioNetHeader::PLAIN, p))
        .collect::<Vec<_>>();
    assert_eq!(writes, plain);
}

#[test]
fn packets_without_headroom_are_refused() {
    let mut buffer = vec![0; 9];
    let packet = Spec::udp(false, b"x").bytes();
    buffer.extend_from_slice(&packet);
    let parsed = IpPacket::parse(&packet).unwrap();
    let mut joiner = Joiner::new(BOTH);
    assert!(!joiner.push(&buffer, 9..buffer.len(), &parsed));
    assert!(!joiner.push(&buffer, 12..buffer.len() + 1, &parsed));
    assert_eq!(joiner.joined().len(), 0);
}

/// A flow as hosts send it, and what happens to some of its packets.
fn flow(host: u8) -> impl Strategy<Value = Vec<Spec>> {
    let mutation = (any::<proptest::sample::Index>(), 0u8..16, any::<u8>());
    (
        any::<bool>(),
        any::<bool>(),
        1usize..12,
        1usize..300,
        proptest::collection::vec(mutation, 0..4),
    )
        .prop_map(move |(v6, tcp, count, size, mutations)| {
            let mut specs = if tcp {
                tcp_flow(v6, count, size)
            } else {
                (0..count as u16)
                    .map(|id| Spec {
                        id,
                        ..Spec::udp(v6, &vec![1; size])
                    })
                    .collect()
            };
            for spec in &mut specs {
                spec.src_host = host;
            }
            for (index, kind, value) in mutations {
                mutate(index.get_mut(&mut specs), kind, value);
            }
            specs
        })
}

fn index_mut(spec: &mut Spec, change: impl FnOnce(&mut u32, &mut u8, &mut Vec<u8>)) {
    if let Upper::Tcp {
        seq,
        flags,
        options,
        ..
    } = &mut spec.upper
    {
        change(seq, flags, options);
    }
}

fn mutate(spec: &mut Spec, kind: u8, value: u8) {
    match kind {
        0 => spec.tos = value,
        1 => spec.ttl = value,
        2 => spec.id = value.into(),
        3 => spec.dont_fragment = false,
        4 => spec.ip_options = vec![1; 4],
        5 => spec.payload.truncate(value.into()),
        6 => spec.payload.push(value),
        7 => index_mut(spec, |_, flags, _| *flags = value),
        8 => index_mut(spec, |_, flags, _| *flags |= PSH),
        9 => index_mut(spec, |_, flags, _| *flags |= FIN),
        10 => index_mut(spec, |seq, _, _| *seq = seq.wrapping_add(value.into())),
        11 => index_mut(spec, |_, _, options| options.clear()),
        12 => spec.upper = Upper::Other(100 + value % 30),
        13 => {
            spec.upper = Upper::Udp {
                src_port: value.into(),
            }
        }
        _ => {}
    }
}

/// Bytes with what means nothing taken out: the identification of packets that cannot be fragments
/// (RFC 6864 §4.1), and the header checksum with it.
fn meaning(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let parsed = IpPacket::parse(packet).unwrap();
    if bytes[0] >> 4 == 4 && parsed.dont_fragment && parsed.fragment.is_none() {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
    }
    bytes
}

/// The packets of each flow, in order.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let flow = Flow::of(&IpPacket::parse(packet).unwrap(), packet);
        flows
            .entry(format!("{flow:?}"))
            .or_default()
            .push(meaning(packet));
    }
    flows
}

proptest! {
    #[test]
    fn splitting_what_was_joined_gives_it_back(
        flows in (flow(1), flow(2), flow(3)), order in proptest::collection::vec(0usize..3, 0..60), damage in proptest::option::of((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), 1u8..)),
    ) {
        let mut queues = [flows.0, flows.1, flows.2].map(|f| f.into_iter());
        let mut packets = order
            .into_iter()
            .chain((0..3).flat_map(|host| [host; 12]))
            .filter_map(|host| queues[host].next())
            .map(|spec| spec.bytes())
            .collect::<Vec<_>>();
        if let Some((packet, at, bits)) = damage {
            // A damaged byte beyond the IP header: the packet still parses, its checksum fails.
            let packet = packet.get_mut(&mut packets);
            let start = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
            if packet.len() > start {
                let at = start + at.index(packet.len() - start);
                packet[at] ^= bits;
            }
        }
        let writes = join(BOTH, &packets);
        let back = split(&writes);
        prop_assert_eq!(back.len(), packets.len());
        prop_assert_eq!(by_flow(&back), by_flow(&packets));
        // What is cut is intact; what was not joined is as it came.
        for (header, bytes) in &writes {
            if header.gso_type == GsoType::None {
                prop_assert!(packets.contains(bytes));
            } else {
                prop_assert!(split(&[(*header, bytes.clone())]).iter().all(|p| is_intact(p)));
            }
        }
    }

    #[test]
    fn undisturbed_flows_come_back_byte_for_byte(v6: bool, count in 1usize..80, size in 1usize..1400) {
        let packets = bytes_of(&tcp_flow(v6, count, size));
        let writes = join(BOTH, &packets);
        prop_assert_eq!(split(&writes), packets);
        let most = (65_535 - if v6 { 72 } else { 52 }) / size;
        prop_assert_eq!(writes.len(), count.div_ceil(most.min(64)));
    }

    #[test]
    fn arbitrary_packets_never_panic(raw in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 20..90), 0u8..3, prop_oneof![Just(6u8), Just(17)]), 1..12)) {
        let packets = raw.into_iter().map(|(mut bytes, kind, protocol)| {
            let len = bytes.len() as u16;
            if kind == 0 && bytes.len() >= 40 {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                bytes[6] = protocol;
            } else {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[9] = protocol;
            }
            bytes
        });
        let packets = packets.collect::<Vec<_>>();
        prop_assert!(join(BOTH, &packets).len() <= packets.len());
    }
}

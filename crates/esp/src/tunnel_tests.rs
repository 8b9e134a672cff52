//! Everything at once: reads from one TUN, a network that loses, repeats and reorders, writes to the
//! other TUN.

use std::collections::BTreeMap;

use cygnet_wire::ip::{GsoType, IpPacket, VirtioNetHeader};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::testing::{Spec, Upper, is_intact, numbers, pair, suites};
use crate::toobig::{Fit, fit};
use crate::{
    DropReason, Ecn, FragmentTable, JoinConfig, Joiner, Segments, Selectors, SendBatch,
    seal_segments,
};

/// What a host sends: the read it becomes, and the packets it stands for.
fn read(v6: bool, kind: u8, size: usize, count: usize, number: usize) -> (VirtioNetHeader, Spec) {
    let payload = (0..size * count)
        .map(|i| (i * 7 + number) as u8)
        .collect::<Vec<_>>();
    let gso = |gso_type, checksum_at| VirtioNetHeader {
        needs_checksum: true,
        gso_type,
        gso_size: size as u16,
        csum_start: if v6 { 40 } else { 20 },
        csum_offset: checksum_at,
        ..VirtioNetHeader::PLAIN
    };
    let (header, mut spec) = match kind {
        0 if v6 => (gso(GsoType::TcpV6, 16), Spec::tcp(v6, &payload)),
        0 => (gso(GsoType::TcpV4, 16), Spec::tcp(v6, &payload)),
        1 => (gso(GsoType::UdpL4, 6), Spec::udp(v6, &payload)),
        2 => (
            VirtioNetHeader::PLAIN,
            Spec::of(v6, Upper::Other(99), &payload),
        ),
        _ => {
            let spec = Spec {
                dont_fragment: false,
                ..Spec::udp(v6, &payload)
            };
            (VirtioNetHeader::PLAIN, spec)
        }
    };
    spec.id = (number * 1000) as u16;
    spec.tos = [0, 2, 0xb8][number % 3];
    if let Upper::Tcp { seq, .. } = &mut spec.upper {
        *seq = (number * 100_000) as u32;
    }
    (header, spec)
}

fn counted(packets: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for packet in packets {
        *counts.entry(packet).or_default() += 1;
    }
    counts
}

fn cut(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let mut packets = vec![];
    while segments.remaining() != 0 {
        let mut packet = vec![0; segments.next_len()];
        segments.write_next(&mut packet).unwrap();
        packets.push(packet);
    }
    packets
}

proptest! {
    #[test]
    fn what_the_network_delivers_arrives_once_and_intact(
        which in 0usize..6,
        reads in proptest::collection::vec((any::<bool>(), 0u8..4, 1usize..1300, 1usize..5), 1..8),
        loss in proptest::collection::vec(any::<Index>(), 0..4),
        repeats in proptest::collection::vec(any::<Index>(), 0..4),
        swaps in proptest::collection::vec((any::<Index>(), any::<Index>()), 0..6),
        joined: bool,
    ) {
        let (out, inbound) = pair(suites()[which], Selectors::any());
        let max_inner = out.overhead().max_inner_in(1472);
        let mut batch = SendBatch::new();
        let mut sent = vec![];
        let mut datagrams = vec![];
        for (number, (v6, kind, size, count)) in reads.into_iter().enumerate() {
            let (header, spec) = read(v6, kind, size, count, number);
            let bytes = spec.bytes();
            let mut segments = Segments::new(&header, &bytes).unwrap();
            match fit(&mut segments, max_inner) {
                Fit::Fits | Fit::Fragments => {}
                Fit::TooBig | Fit::OneByOne => continue,
            }
            sent.extend(cut(segments.clone()));
            let mut seqs = numbers(&out, &segments);
            while seal_segments(&out, &mut segments, &mut batch, (), &mut seqs).unwrap().is_some() {
                datagrams.extend(batch.datagrams().map(<[u8]>::to_vec));
                batch.clear();
            }
        }
        datagrams.extend(batch.datagrams().map(<[u8]>::to_vec));
        prop_assert_eq!(datagrams.len(), sent.len());
        prop_assert!(datagrams.iter().all(|d| d.len() <= 1472));
        prop_assert!(sent.iter().all(|packet| is_intact(packet)));

        let mut arriving = (0..sent.len()).collect::<Vec<_>>();
        if !arriving.is_empty() {
            for index in &repeats {
                arriving.push(index.index(sent.len()));
            }
            for (a, b) in &swaps {
                let len = arriving.len();
                arriving.swap(a.index(len), b.index(len));
            }
            for index in &loss {
                if !arriving.is_empty() {
                    arriving.remove(index.index(arriving.len()));
                }
            }
        }
        let mut once = arriving.clone();
        once.sort_unstable();
        once.dedup();

        let mut buffer = vec![];
        let mut joiner = Joiner::new(JoinConfig { tcp: joined, udp: joined });
        let mut table = FragmentTable::new();
        for number in &arriving {
            let mut datagram = datagrams[*number].clone();
            let opened = inbound.open(&mut datagram, Ecn::NotEct, &mut table).inner;
            let start = buffer.len();
            buffer.extend_from_slice(&datagram);
            if let Ok(inner) = opened {
                let range = start + inner.range.start..start + inner.range.end;
                let parsed = IpPacket::parse(&buffer[range.clone()]).unwrap();
                prop_assert_eq!(parsed, inner.packet);
                prop_assert!(joiner.push(&buffer, range, &parsed));
            }
        }
        joiner.finish(&mut buffer);
        let writes = joiner
            .joined()
            .map(|joined| joined.ranges().flat_map(|range| buffer[range].to_vec()).collect())
            .collect::<Vec<Vec<u8>>>();
        let delivered = writes.iter().flat_map(|write| {
            let header = VirtioNetHeader::parse(write).unwrap();
            cut(Segments::new(&header, &write[VirtioNetHeader::LEN..]).unwrap())
        });
        let expected = once.iter().map(|number| sent[*number].clone());
        prop_assert_eq!(counted(delivered), counted(expected));
        let repeated = (arriving.len() - once.len()) as u64;
        prop_assert_eq!(inbound.drops(DropReason::Replayed), repeated);
        prop_assert_eq!(inbound.packets(), once.len() as u64);
    }
}

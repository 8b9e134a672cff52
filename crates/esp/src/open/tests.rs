//! Sealing and opening with real keys, both families, every layout.

use cygnet_wire::ts::TrafficSelector;
use proptest::prelude::*;

use super::*;
use crate::batch::{Outer, SendBatch};
use crate::sa::{Lifetime, OutboundSa};
use crate::seal::{SealError, seal_segments};
use crate::segment::Segments;
use crate::selectors::Selectors;
use crate::testing::{self, SPI, Spec, opener, pair, sealer, suite_cbc, suite_gcm, suites};

/// One sealed packet.
fn seal(sa: &OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut batch = SendBatch::new();
    let mut segments = Segments::plain(inner).unwrap();
    let mut seqs = testing::numbers(sa, &segments);
    let flush = seal_segments(sa, &mut segments, &mut batch, (), &mut seqs).unwrap();
    assert_eq!(flush, None);
    batch.bytes().to_vec()
}

/// A packet with this plaintext, trailer included, which no sealer of ours would make.
fn forge(seq: u64, plain: &[u8]) -> Vec<u8> {
    let suite = suite_gcm(true);
    let mut packet = vec![0; 16 + plain.len() + 16];
    packet[16..16 + plain.len()].copy_from_slice(plain);
    sealer(suite).seal_in_place(SPI, seq, &mut packet).unwrap();
    packet
}

fn trailer(inner: &[u8], next_header: u8) -> Vec<u8> {
    let mut plain = inner.to_vec();
    plain.resize((inner.len() + 2).next_multiple_of(4), 0);
    EspTrailer::emit(&mut plain[inner.len()..], next_header);
    plain
}

fn open(sa: &InboundSa, datagram: &mut [u8]) -> Opened {
    sa.open(datagram, Ecn::NotEct, &mut FragmentTable::new())
}

fn reason(sa: &InboundSa, mut datagram: Vec<u8>) -> DropReason {
    let reason = open(sa, &mut datagram).inner.unwrap_err();
    assert_eq!(sa.drops(reason), 1);
    assert!(sa.all_drops().any(|counted| counted == (reason, 1)));
    reason
}

fn inbound() -> InboundSa {
    pair(suite_gcm(true), Selectors::any()).1
}

#[test]
fn layout_of_a_sealed_packet() {
    let (out, _) = pair(suite_gcm(true), Selectors::any());
    let inner = testing::udp_v4(b"cygnet");
    let datagram = seal(&out.with_next_seq(0x1_0000_0002), &inner);
    assert_eq!(
        datagram[..16],
        [0xc0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]
    );
    assert_eq!(datagram.len(), 8 + 8 + 36 + 16);
    let mut bytes = datagram.clone();
    let plain = opener(suite_gcm(true))
        .open_in_place(0x1_0000_0002, &mut bytes)
        .unwrap();
    assert_eq!(plain, [&inner[..], &[0, 4]].concat());

    let (out, _) = pair(suite_cbc(false), Selectors::any());
    let inner = testing::udp_v6(b"cygnet");
    let mut datagram = seal(&out, &inner);
    assert_eq!(datagram[..8], [0xc0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(datagram.len(), 8 + 16 + 64 + 16);
    let plain = opener(suite_cbc(false))
        .open_in_place(1, &mut datagram)
        .unwrap();
    assert_eq!(
        plain,
        [&inner[..], &[1, 2, 3, 4, 5, 6, 7, 8, 8, 41]].concat()
    );
}

#[test]
fn delivers_what_was_sealed_with_every_suite() {
    for suite in suites() {
        let (out, inbound) = pair(suite, Selectors::any());
        for len in [0, 1, 2, 3, 13, 64, 200, 1400] {
            for v6 in [false, true] {
                let inner = Spec::udp(v6, &vec![7; len]).bytes();
                let mut datagram = seal(&out, &inner);
                let opened = open(&inbound, &mut datagram);
                let range = opened
                    .inner
                    .unwrap_or_else(|r| panic!("{suite} {len}: {r:?}"))
                    .range;
                assert_eq!(datagram[range], inner, "{suite}");
            }
        }
        assert_eq!(
            (inbound.packets(), inbound.bytes()),
            (out.packets(), out.bytes())
        );
    }
}

#[test]
fn a_super_packet_travels_in_several_batches() {
    for suite in suites() {
        let (out, inbound) = pair(suite, Selectors::any());
        let payload = (0..60_000u32).map(|i| i as u8).collect::<Vec<_>>();
        let whole = Spec::tcp(true, &payload).bytes();
        let header = cygnet_wire::ip::VirtioNetHeader {
            gso_type: cygnet_wire::ip::GsoType::TcpV6,
            gso_size: 700,
            ..cygnet_wire::ip::VirtioNetHeader::PLAIN
        };
        let mut segments = Segments::new(&header, &whole).unwrap();
        let mut seqs = testing::numbers(&out, &segments);
        let mut batch = SendBatch::new();
        let (mut stream, mut sends, mut done) = (vec![], 0, false);
        while !done {
            done = seal_segments(&out, &mut segments, &mut batch, 5u8, &mut seqs)
                .unwrap()
                .is_none();
            assert_eq!(batch.outer(), Some(Outer { path: 5, tos: 0 }));
            for datagram in batch.datagrams() {
                let mut datagram = datagram.to_vec();
                let inner = open(&inbound, &mut datagram).inner.unwrap();
                assert!(testing::is_intact(&datagram[inner.range.clone()]));
                stream.extend_from_slice(&datagram[inner.range][72..]);
            }
            sends += 1;
            batch.clear();
        }
        assert_eq!(sends, 2, "86 segments, at most 64 at once");
        assert_eq!(stream, payload);
    }
}

#[test]
fn replays_are_refused_before_and_after_a_wrap() {
    for esn in [true, false] {
        let (out, inbound) = pair(suite_gcm(esn), Selectors::any());
        let datagram = seal(&out, &testing::udp_v4(b"x"));
        assert!(open(&inbound, &mut datagram.clone()).inner.is_ok());
        assert_eq!(reason(&inbound, datagram), DropReason::Replayed);
    }
    let (out, inbound) = pair(suite_gcm(true), Selectors::any());
    let out = out.with_next_seq(0xffff_fffe);
    inbound.replay().commit(0xffff_f000).unwrap();
    for _ in 0..5 {
        let datagram = seal(&out, &testing::udp_v4(b"x"));
        assert!(open(&inbound, &mut datagram.clone()).inner.is_ok());
        assert_eq!(
            open(&inbound, &mut datagram.clone()).inner,
            Err(DropReason::Replayed)
        );
    }
    assert_eq!(inbound.replay().top(), 0x1_0000_0002);
}

#[test]
fn what_does_not_authenticate_does_not_move_the_window() {
    let (out, inbound) = pair(suite_gcm(true), Selectors::any());
    let good = seal(&out, &testing::udp_v4(b"x"));
    let mut bad = good.clone();
    bad[7] = 200;
    assert_eq!(reason(&inbound, bad), DropReason::Integrity);
    assert_eq!(inbound.replay().top(), 0);
    assert!(!inbound.is_authenticated());
    assert!(open(&inbound, &mut good.clone()).inner.is_ok());
}

#[test]
fn the_first_authenticated_packet_is_told_once_even_if_dropped() {
    let inbound = inbound();
    let opened = open(&inbound, &mut forge(1, &trailer(&[], 59)));
    assert_eq!(opened.inner, Err(DropReason::Dummy));
    assert!(opened.first_authenticated);
    let opened = open(&inbound, &mut forge(2, &trailer(&testing::udp_v4(b"x"), 4)));
    assert!(opened.inner.is_ok() && !opened.first_authenticated && inbound.is_authenticated());
}

#[test]
fn every_malformed_packet_has_its_reason() {
    let v4 = testing::udp_v4(b"x");
    let cases = [
        (trailer(&v4, 41), DropReason::Version),
        (trailer(&v4, 17), DropReason::NextHeader),
        (trailer(&v4[..28], 4), DropReason::InnerHeader),
        (trailer(&[0x55; 40], 4), DropReason::InnerHeader),
        ([&v4[..], &[9, 9, 9, 3, 4]].concat(), DropReason::Padding),
        (vec![1, 2, 200, 4], DropReason::Padding),
    ];
    for (plain, expected) in cases {
        // The suite itself pads to four, so forged plaintext is brought there from the front.
        let plain = [vec![0; plain.len().wrapping_neg() % 4], plain].concat();
        let expected = if plain[0] == 0 {
            DropReason::Padding
        } else {
            expected
        };
        assert_eq!(reason(&inbound(), forge(1, &plain)), expected);
    }
    assert_eq!(reason(&inbound(), vec![0; 7]), DropReason::Length);
    assert_eq!(
        reason(&inbound(), vec![0, 0, 0, 1, 0, 0, 0, 1, 0]),
        DropReason::Length
    );
}

#[test]
fn bytes_after_the_inner_packet_are_padding() {
    let inbound = inbound();
    let inner = testing::udp_v6(b"short");
    let plain = trailer(&[&inner[..], &[0xaa; 500]].concat(), 41);
    let mut datagram = forge(1, &plain);
    let opened = open(&inbound, &mut datagram).inner.unwrap();
    assert_eq!(datagram[opened.range], inner);
    assert_eq!(inbound.bytes(), inner.len() as u64);
}

#[test]
fn traffic_flow_confidentiality_makes_sizes_equal() {
    let (out, inbound) = pair(suite_gcm(true), Selectors::any());
    let out = out.with_tfc_len(1000);
    let lens = [1, 500, 900].map(|len| {
        let inner = Spec::udp(false, &vec![3; len]).bytes();
        let mut datagram = seal(&out, &inner);
        let len = datagram.len();
        let range = open(&inbound, &mut datagram).inner.unwrap().range;
        assert_eq!(datagram[range], inner);
        len
    });
    assert_eq!(lens, [8 + 8 + 1004 + 16; 3]);
}

#[test]
fn dummies_are_dropped_and_counted_apart() {
    for suite in suites() {
        let (out, inbound) = pair(suite, Selectors::any());
        for _ in 0..2 {
            let mut datagram = vec![0xaa; out.sealed_len(300)];
            let seq = out.reserve(1, 0).unwrap().seqs.start;
            out.seal_dummy(seq, &mut datagram).unwrap();
            assert_eq!(open(&inbound, &mut datagram).inner, Err(DropReason::Dummy));
        }
        assert_eq!(
            (inbound.drops(DropReason::Dummy), inbound.packets()),
            (2, 0)
        );
        let mut odd = vec![0; 55];
        assert!(matches!(
            out.seal_dummy(9, &mut odd),
            Err(SealError::TooLong { .. })
        ));
    }
}

#[test]
fn inner_addresses_have_to_be_the_negotiated_ones() {
    let prefix = |addr: &str| TrafficSelector::from_prefix(addr.parse().unwrap(), 24);
    let expected = Selectors::new(vec![prefix("10.1.0.0")], vec![prefix("10.2.0.0")]);
    let (out, inbound) = pair(suite_gcm(true), expected);
    assert!(
        open(&inbound, &mut seal(&out, &testing::udp_v4(b"x")))
            .inner
            .is_ok()
    );
    let reply = Selectors::new(vec![prefix("10.2.0.0")], vec![prefix("10.1.0.0")]);
    let (out, inbound) = pair(suite_gcm(true), reply);
    assert_eq!(
        reason(&inbound, seal(&out, &testing::udp_v4(b"x"))),
        DropReason::Selectors
    );
    let (out, inbound) = pair(suite_gcm(true), Selectors::any());
    assert!(
        open(&inbound, &mut seal(&out, &testing::udp_v6(b"x")))
            .inner
            .is_ok()
    );
}

#[test]
fn later_fragments_follow_their_first() {
    let mut https = TrafficSelector::any_v4();
    (https.protocol, https.ports) = (17, 443..=443);
    let selectors = Selectors::new(vec![TrafficSelector::any_v4()], vec![https]);
    let (out, inbound) = pair(suite_gcm(true), selectors);
    let whole = Spec {
        dont_fragment: false,
        ..Spec::udp(false, &[1; 100])
    }
    .bytes();
    let mut segments = Segments::plain(&whole).unwrap();
    assert!(segments.fragment_to(84));
    let mut pieces = vec![];
    while segments.remaining() != 0 {
        let mut piece = vec![0; segments.next_len()];
        segments.write_next(&mut piece).unwrap();
        pieces.push(piece);
    }
    let [first, second] = &pieces[..] else {
        panic!("two fragments")
    };
    let mut table = FragmentTable::new();
    let deliver = |piece: &[u8], table: &mut FragmentTable| {
        inbound
            .open(&mut seal(&out, piece), Ecn::NotEct, table)
            .inner
            .map(|inner| inner.range.len())
    };
    assert_eq!(deliver(second, &mut table), Err(DropReason::Fragment));
    assert_eq!(deliver(first, &mut table), Ok(84));
    assert_eq!(deliver(second, &mut table), Ok(64));
    table.tick();
    assert_eq!(deliver(second, &mut table), Ok(64));
    table.tick();
    assert_eq!(deliver(second, &mut table), Err(DropReason::Fragment));
    assert_eq!(inbound.drops(DropReason::Fragment), 2);
}

#[test]
fn a_peer_says_nothing_about_the_fragments_of_another() {
    let only = |port: u16| {
        let mut source = TrafficSelector::any_v4();
        (source.protocol, source.ports) = (17, port..=port);
        Selectors::new(vec![TrafficSelector::any_v4()], vec![source])
    };
    let (out, _) = pair(suite_gcm(true), Selectors::any());
    let end = |port| {
        let may = only(port);
        InboundSa::new(SPI, opener(suite_gcm(true)), may, Lifetime::UNLIMITED, 4096)
    };
    let (honest, liar) = (end(40_000), end(40_001));
    let whole = Spec {
        dont_fragment: false,
        ..Spec::udp(false, &[1; 100])
    }
    .bytes();
    let mut segments = Segments::plain(&whole).unwrap();
    assert!(segments.fragment_to(84));
    let mut first = vec![0; segments.next_len()];
    segments.write_next(&mut first).unwrap();
    let mut second = vec![0; segments.next_len()];
    segments.write_next(&mut second).unwrap();
    let mut table = FragmentTable::new();
    let mut open = |sa: &InboundSa, mut datagram: Vec<u8>| {
        sa.open(&mut datagram, Ecn::NotEct, &mut table)
            .inner
            .map(|inner| inner.range.len())
    };
    // The same first fragment, from a peer that may not send it.
    assert_eq!(open(&liar, seal(&out, &first)), Err(DropReason::Selectors));
    assert_eq!(
        open(&honest, seal(&out, &second)),
        Err(DropReason::Fragment)
    );
    assert_eq!(open(&honest, seal(&out, &first)), Ok(84));
    assert_eq!(open(&honest, seal(&out, &second)), Ok(64));
}

#[test]
fn congestion_marks_are_carried_in() {
    for v6 in [false, true] {
        let (out, inbound) = pair(suite_gcm(true), Selectors::any());
        let deliver = |tos: u8, outer| {
            let mut datagram = seal(
                &out,
                &Spec {
                    tos,
                    ..Spec::udp(v6, b"x")
                }
                .bytes(),
            );
            let inner = inbound
                .open(&mut datagram, outer, &mut FragmentTable::new())
                .inner?;
            assert!(testing::is_intact(&datagram[inner.range.clone()]));
            assert_eq!(
                IpPacket::parse(&datagram[inner.range]).unwrap(),
                inner.packet
            );
            Ok(inner.packet.tos)
        };
        assert_eq!(deliver(0xb8 | 2, Ecn::Ce), Ok(0xb8 | 3));
        assert_eq!(deliver(0xb8 | 2, Ecn::NotEct), Ok(0xb8 | 2));
        assert_eq!(deliver(0xb8, Ecn::Ect0), Ok(0xb8));
        assert_eq!(deliver(0xb8, Ecn::Ce), Err(DropReason::Ecn));
    }
}

#[test]
fn a_hard_limit_ends_an_inbound_sa() {
    let (out, _) = pair(suite_gcm(true), Selectors::any());
    let lifetime = Lifetime {
        soft_packets: 1,
        hard_packets: 2,
        ..Lifetime::UNLIMITED
    };
    let inbound = InboundSa::new(SPI, opener(suite_gcm(true)), Selectors::any(), lifetime, 32);
    let mut limits = vec![];
    for _ in 0..2 {
        limits.push(open(&inbound, &mut seal(&out, &testing::udp_v4(b"x"))).limit);
    }
    assert_eq!(limits, [Some(LimitReached::Soft), Some(LimitReached::Hard)]);
    assert_eq!(
        reason(&inbound, seal(&out, &testing::udp_v4(b"x"))),
        DropReason::Lifetime
    );
}

#[test]
fn threads_deliver_each_packet_once() {
    let (out, inbound) = pair(suite_gcm(true), Selectors::any());
    let datagrams = (0..2000)
        .map(|_| seal(&out, &testing::udp_v4(b"x")))
        .collect::<Vec<_>>();
    let work = || {
        let mut table = FragmentTable::new();
        let open = |d: &Vec<u8>| {
            inbound
                .open(&mut d.clone(), Ecn::NotEct, &mut table)
                .inner
                .is_ok()
        };
        datagrams
            .iter()
            .map(open)
            .filter(|delivered| *delivered)
            .count()
    };
    let delivered = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work), scope.spawn(work)];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!((delivered, inbound.packets()), (2000, 2000));
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0usize..6) {
        let inbound = pair(suites()[which], Selectors::any()).1;
        prop_assert!(open(&inbound, &mut bytes).inner.is_err());
    }

    #[test]
    fn arbitrary_authentic_plaintext_never_panics(
        mut plain in proptest::collection::vec(any::<u8>(), 4..200), first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(4u8), Just(41), any::<u8>()], outer: u8,
    ) {
        plain[0] = first;
        plain.truncate(plain.len() & !3);
        let end = plain.len();
        EspTrailer::emit(&mut plain[end - 2..], next);
        let mut datagram = forge(1, &plain);
        let opened = inbound().open(&mut datagram, Ecn::of(outer), &mut FragmentTable::new());
        if let Ok(inner) = opened.inner {
            prop_assert!(inner.range.end <= 16 + plain.len() - 2);
        }
    }
}

#[test]
fn congestion_is_marked_where_the_transport_knows_it() {
    for v6 in [false, true] {
        for (tos, marked) in [
            (0xb8, None),
            (0xb9, Some(0xbb)),
            (0xba, Some(0xbb)),
            (0xbb, Some(0xbb)),
        ] {
            let (out, sa) = pair(suite_gcm(true), Selectors::any());
            let mut spec = Spec::tcp(v6, b"cygnet");
            spec.tos = tos;
            let mut datagram = seal(&out, &spec.bytes());
            let mut inner = open(&sa, &mut datagram).inner.unwrap();
            assert_eq!(inner.mark_congestion(&mut datagram), marked.is_some());
            spec.tos = marked.unwrap_or(tos);
            assert_eq!(inner.packet.tos, spec.tos);
            assert_eq!(datagram[inner.range.clone()], spec.bytes());
        }
    }
}

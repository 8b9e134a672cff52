//! ESP packets, and the IP packets inside them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use cygnet_crypto::suite::{Encryption, EspSuite, Integrity};
use cygnet_esp::{
    Ecn, FragmentTable, InboundSa, JoinConfig, Joiner, Lifetime, Segments, Selectors, toobig,
};
use cygnet_wire::esp::EspHeader;
use cygnet_wire::ip::{IpPacket, VirtioNetHeader};

use crate::input::Input;

const SPI: u32 = 0x1000_0001;

fn suite(number: u8) -> EspSuite {
    let (encryption, integrity) = match number % 3 {
        0 => (Encryption::AesGcm16_128, None),
        1 => (Encryption::ChaCha20Poly1305, None),
        _ => (Encryption::AesCbc256, Some(Integrity::HmacSha2_256_128)),
    };
    EspSuite {
        encryption,
        integrity,
        esn: number & 4 != 0,
    }
}

/// Packets for one inbound SA, each as it is or, so that what authenticates is reached, sealed
/// under the SA's own keys. First octet: the suite; of each packet the first: how.
pub fn esp_open(data: &[u8]) {
    let mut input = Input(data);
    let suite = suite(input.u8());
    let key: Vec<u8> = (0..suite.key_material_len()).map(|i| i as u8).collect();
    let (Ok(sealer), Ok(opener)) = (EspSealer::new(suite, &key), EspOpener::new(suite, &key))
    else {
        unreachable!("the key is as long as the suite says");
    };
    let sa = InboundSa::new(SPI, opener, Selectors::any(), Lifetime::UNLIMITED, 64);
    let mut fragments = FragmentTable::new();
    let mut seq = 0u64;
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let bytes = input.bytes();
        let mut packet = if how & 1 == 0 {
            bytes.to_vec()
        } else {
            seq = seq.wrapping_add(u64::from(how >> 4)) & u64::from(u32::MAX);
            sealed(suite, &sealer, seq, bytes)
        };
        let ecn = match how & 6 {
            0 => Ecn::NotEct,
            2 => Ecn::Ect1,
            4 => Ecn::Ect0,
            _ => Ecn::Ce,
        };
        let before = packet.clone();
        let opened = sa.open(&mut packet, ecn, &mut fragments);
        if let Ok(inner) = opened.inner {
            let inside = packet
                .get(inner.range)
                .expect("the inner packet lies inside");
            let again = IpPacket::parse(inside).expect("what is delivered is an IP packet");
            assert_eq!(again.len, inside.len());
            let mut copy = before;
            assert!(
                sa.open(&mut copy, ecn, &mut fragments).inner.is_err(),
                "a packet was opened twice"
            );
        }
    }
}

/// `plaintext`, brought to a whole number of blocks, as an ESP packet.
fn sealed(suite: EspSuite, sealer: &EspSealer, seq: u64, plaintext: &[u8]) -> Vec<u8> {
    let len = plaintext.len().max(1).next_multiple_of(suite.pad_to());
    let at = EspHeader::LEN + suite.iv_len();
    let mut packet = vec![0; at + len + suite.icv_len()];
    // At the end, where the trailer is.
    let start = at + len - plaintext.len();
    if let Some(place) = packet.get_mut(start..at + len) {
        place.copy_from_slice(plaintext);
    }
    let _ = sealer.seal_in_place(SPI, seq, &mut packet);
    packet
}

/// A read from the TUN: virtio header, then a packet. It is cut, fitted and answered; its pieces
/// are joined again and come out as they went in.
pub fn inner_packets(data: &[u8]) {
    let mut input = Input(data);
    let mtu = usize::from(input.u16() % 2048);
    let flags = input.u8();
    let Some((header, packet)) = input.0.split_first_chunk::<{ VirtioNetHeader::LEN }>() else {
        return;
    };
    let Ok(header) = VirtioNetHeader::parse(header) else {
        return;
    };
    let mut answer = [0; 1280];
    for from in [
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    ] {
        if let Some(len) = toobig::packet_too_big(packet, mtu, from, &mut answer) {
            let told = answer.get(..len).expect("the answer fits");
            assert!(IpPacket::parse(told).is_ok(), "the answer is no packet");
        }
    }
    let Ok(mut segments) = Segments::new(&header, packet) else {
        return;
    };
    let pieces = cut(&mut segments);
    join(&pieces, flags);
    segments.rewind();
    let fit = toobig::fit(&mut segments, mtu);
    if matches!(fit, toobig::Fit::Fits | toobig::Fit::Fragments) {
        for piece in cut(&mut segments) {
            let allowed = if matches!(piece.first(), Some(first) if first >> 4 == 6) {
                mtu.max(toobig::IPV6_MIN_MTU)
            } else {
                mtu
            };
            assert!(
                piece.len() <= allowed,
                "{} octets do not fit {mtu}",
                piece.len()
            );
        }
    }
}

/// All packets of a read.
fn cut(segments: &mut Segments<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut out = vec![0; 65_535];
    let expected = segments.remaining();
    let longest = segments.longest();
    while pieces.len() < 70_000 {
        let announced = segments.next_len();
        let Some(len) = segments.write_next(&mut out) else {
            break;
        };
        assert_eq!(len, announced);
        assert!(len <= longest);
        let piece = out.get(..len).unwrap_or_default();
        let parsed = IpPacket::parse(piece).expect("each piece is a packet");
        assert_eq!(parsed.len, len, "a piece states another length");
        pieces.push(piece.to_vec());
    }
    assert_eq!(pieces.len(), expected);
    pieces
}

/// Joins packets as after a burst of ESP, and compares what the TUN would make of it.
fn join(pieces: &[Vec<u8>], flags: u8) {
    let mut buffer = Vec::new();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for piece in pieces.iter().take(64) {
        buffer.resize(buffer.len() + Joiner::HEADROOM, 0);
        let start = buffer.len();
        buffer.extend_from_slice(piece);
        ranges.push(start..buffer.len());
    }
    let mut joiner = Joiner::new(JoinConfig {
        tcp: flags & 1 == 0,
        udp: flags & 2 == 0,
    });
    for range in ranges {
        let packet = buffer.get(range.clone()).map(IpPacket::parse);
        if let Some(Ok(packet)) = packet {
            joiner.push(&buffer, range, &packet);
        }
    }
    joiner.finish(&mut buffer);
    let mut again = Vec::new();
    for joined in joiner.joined() {
        let bytes: Vec<u8> = joined
            .ranges()
            .flat_map(|range| buffer.get(range).unwrap_or_default().to_vec())
            .collect();
        let (header, packet) = bytes
            .split_first_chunk::<{ VirtioNetHeader::LEN }>()
            .expect("a write begins with its header");
        let header = VirtioNetHeader::parse(header).expect("ten octets are a header");
        let mut segments = Segments::new(&header, packet).expect("what was joined can be cut");
        assert_eq!(segments.remaining(), joined.segments());
        again.extend(cut(&mut segments));
    }
    let mut pieces: Vec<_> = pieces.iter().take(64).cloned().collect();
    // Flows may change places.
    pieces.sort();
    again.sort();
    assert!(pieces == again, "joined and cut again they are others");
}

//! Cutting, against packets made one by one.

use proptest::prelude::*;

use super::*;
use crate::testing::{Spec, Upper, is_intact};
use crate::toobig::{self, Fit};

fn virtio(
    gso_type: GsoType,
    gso_size: usize,
    csum_start: usize,
    csum_offset: u16,
) -> VirtioNetHeader {
    VirtioNetHeader {
        needs_checksum: true,
        gso_type,
        gso_size: gso_size as u16,
        csum_start: csum_start as u16,
        csum_offset,
        ..VirtioNetHeader::PLAIN
    }
}

fn tcp_type(v6: bool) -> GsoType {
    if v6 { GsoType::TcpV6 } else { GsoType::TcpV4 }
}

fn cut(segments: &mut Segments<'_>) -> Vec<Vec<u8>> {
    let mut out = vec![];
    while segments.remaining() != 0 {
        let mut bytes = vec![0xee; segments.next_len()];
        let expected = segments.len_of_next(1);
        assert_eq!(segments.write_next(&mut bytes), Some(expected));
        out.push(bytes);
    }
    assert_eq!(segments.write_next(&mut [0; 100]), None);
    out
}

/// The packets a TCP super-packet stands for, made one by one.
fn tcp_packets(whole: &Spec, size: usize) -> Vec<Vec<u8>> {
    let count = whole.payload.len().div_ceil(size);
    let one = |(i, payload): (usize, &[u8])| {
        let mut spec = Spec {
            payload: payload.to_vec(),
            ..whole.clone()
        };
        spec.id = whole.id.wrapping_add(i as u16);
        if let Upper::Tcp { seq, flags, .. } = &mut spec.upper {
            *seq = seq.wrapping_add((i * size) as u32);
            if i + 1 != count {
                *flags &= !(tcp_flags::FIN | tcp_flags::PSH);
            }
            if i != 0 {
                *flags &= !tcp_flags::CWR;
            }
        }
        spec.bytes()
    };
    whole.payload.chunks(size).enumerate().map(one).collect()
}

#[test]
fn tcp_super_packet_byte_for_byte() {
    let mut whole = Spec::tcp(false, b"abcdefgh");
    whole.id = 0xffff;
    if let Upper::Tcp {
        seq,
        flags,
        options,
        ..
    } = &mut whole.upper
    {
        *seq = 0xffff_fffe;
        *flags |= tcp_flags::PSH | tcp_flags::FIN | tcp_flags::CWR;
        options.clear();
    }
    let bytes = whole.bytes();
    let mut segments = Segments::new(&virtio(GsoType::TcpV4, 3, 20, 16), &bytes).unwrap();
    assert_eq!(
        (
            segments.remaining(),
            segments.longest(),
            segments.len_of_next(3)
        ),
        (3, 43, 128)
    );
    let packets = cut(&mut segments);
    // 45 00 002b id ffff, then 0000, then 0001; flags CWR+ACK, ACK, FIN+PSH+ACK; sequence numbers wrap.
    #[rustfmt::skip]
    assert_eq!(packets[1], [
        0x45, 0, 0, 43, 0, 0, 0x40, 0, 64, 6, 0x26, 0xc7, 10, 1, 0, 2, 10, 2, 0, 2,
        0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 77, 0x50, 0x10, 1, 0xf4, 0x31, 0x28, 0, 0,
        b'd', b'e', b'f',
    ]);
    assert_eq!(packets[0][4..6], [0xff, 0xff]);
    assert_eq!(
        packets.iter().map(|p| p[33]).collect::<Vec<_>>(),
        [0x90, 0x10, 0x19]
    );
    assert_eq!(packets[2][24..28], 4u32.to_be_bytes());
    assert!(packets.iter().all(|packet| is_intact(packet)));
}

#[test]
fn a_checksum_left_to_do_is_completed() {
    for v6 in [false, true] {
        for (spec, offset) in [(Spec::tcp(v6, b"hello"), 16), (Spec::udp(v6, b"hello"), 6)] {
            let expected = spec.bytes();
            let start = if v6 { 40 } else { 20 };
            let packet = IpPacket::parse(&expected).unwrap();
            let partial = checksum::pseudo_header(
                packet.src,
                packet.dst,
                packet.protocol,
                expected.len() - start,
            );
            let mut bytes = expected.clone();
            let at = start + usize::from(offset);
            bytes[at..at + 2].copy_from_slice(&partial.partial().to_be_bytes());
            let header = virtio(GsoType::None, 0, start, offset);
            assert_eq!(
                cut(&mut Segments::new(&header, &bytes).unwrap()),
                [expected]
            );
        }
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let tcp = Spec::tcp(false, b"hello").bytes();
    let kind = |gso, bytes: &[u8]| Segments::new(&virtio(gso, 2, 20, 16), bytes).unwrap_err();
    assert_eq!(
        kind(GsoType::TcpV6, &tcp),
        SegmentError::Kind(GsoType::TcpV6)
    );
    assert_eq!(
        kind(GsoType::UdpL4, &tcp),
        SegmentError::Kind(GsoType::UdpL4)
    );
    assert_eq!(
        kind(GsoType::Other(3), &tcp),
        SegmentError::Kind(GsoType::Other(3))
    );
    assert_eq!(
        kind(GsoType::TcpV4, &Spec::tcp(false, b"").bytes()),
        SegmentError::Uncuttable
    );
    let zero = Segments::new(&virtio(GsoType::TcpV4, 0, 20, 16), &tcp).unwrap_err();
    assert_eq!(zero, SegmentError::Uncuttable);
    let outside = Segments::new(&virtio(GsoType::None, 0, tcp.len() - 10, 9), &tcp).unwrap_err();
    assert_eq!(
        outside,
        SegmentError::ChecksumPlace {
            start: tcp.len() - 10,
            offset: 9,
            len: tcp.len()
        }
    );
    let within_ip = Segments::new(&virtio(GsoType::None, 0, 0, 10), &tcp).unwrap_err();
    assert!(matches!(
        within_ip,
        SegmentError::ChecksumPlace { start: 0, .. }
    ));
    // An extension header is no place for it either: the packet would be another one.
    let mut extended = Spec::tcp(true, b"").bytes();
    extended[5] += 8;
    extended[6] = 0;
    extended.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
    let in_extension = Segments::new(&virtio(GsoType::None, 0, 40, 0), &extended).unwrap_err();
    assert!(matches!(
        in_extension,
        SegmentError::ChecksumPlace { start: 40, .. }
    ));
    assert!(matches!(
        Segments::plain(&tcp[..30]),
        Err(SegmentError::Header(_))
    ));
}

#[test]
fn rewinding_writes_the_same_again() {
    let whole = Spec::tcp(true, &[7; 100]).bytes();
    let mut segments = Segments::new(&virtio(GsoType::TcpV6, 30, 40, 16), &whole).unwrap();
    let first = cut(&mut segments);
    segments.rewind();
    assert_eq!(cut(&mut segments), first);
}

/// Puts the fragments of one packet together again (RFC 791 §3.2), checking each.
fn reassemble(fragments: &[Vec<u8>], max_len: usize) -> Vec<u8> {
    let mut payload = vec![];
    for (i, fragment) in fragments.iter().enumerate() {
        assert!(is_intact(fragment) && fragment.len() <= max_len);
        let header = Ipv4Header::parse(fragment).unwrap();
        assert_eq!(usize::from(header.fragment_offset()), payload.len());
        assert_eq!(header.more_fragments(), i + 1 != fragments.len());
        payload.extend_from_slice(&fragment[usize::from(header.header_len)..]);
    }
    let first = Ipv4Header::parse(&fragments[0]).unwrap();
    let mut whole = [&fragments[0][..usize::from(first.header_len)], &payload].concat();
    let len = whole.len() as u16;
    whole[2..4].copy_from_slice(&len.to_be_bytes());
    whole[6..8].copy_from_slice(&[0, 0]);
    let sum = checksum::ipv4_header(&whole[..usize::from(first.header_len)]);
    whole[10..12].copy_from_slice(&sum.to_be_bytes());
    whole
}

#[test]
fn options_without_the_copied_flag_stay_in_the_first_fragment() {
    let mut spec = Spec::udp(false, &[9; 100]);
    spec.dont_fragment = false;
    // Record route (7, not copied), then strict source route (137, copied), end, padding.
    spec.ip_options = vec![7, 3, 4, 137, 3, 4, 0, 0];
    let bytes = spec.bytes();
    let mut segments = Segments::plain(&bytes).unwrap();
    assert!(segments.fragment_to(28 + 64));
    let fragments = cut(&mut segments);
    assert_eq!(fragments.len(), 2);
    assert_eq!(fragments[0][20..28], [7, 3, 4, 137, 3, 4, 0, 0]);
    assert_eq!(fragments[1][20..28], [1, 1, 1, 137, 3, 4, 0, 0]);
    assert_eq!(reassemble(&fragments, 92), bytes);
}

#[test]
fn a_fragment_is_cut_further() {
    let mut bytes = Spec::of(false, Upper::Other(99), &[5; 64]).bytes();
    bytes[6..8].copy_from_slice(&(Ipv4Header::MORE_FRAGMENTS | 10).to_be_bytes());
    let mut segments = Segments::plain(&bytes).unwrap();
    assert!(segments.fragment_to(20 + 39));
    let fields = cut(&mut segments)
        .iter()
        .map(|f| Ipv4Header::parse(f).unwrap())
        .map(|h| (h.fragment_offset(), h.more_fragments(), h.total_len))
        .collect::<Vec<_>>();
    assert_eq!(fields, [(80, true, 52), (112, true, 52)]);
}

#[test]
fn what_must_not_be_fragmented_is_not() {
    let whole = Spec::udp(false, &[0; 100]).bytes();
    assert!(
        !Segments::plain(&whole).unwrap().fragment_to(80),
        "DF is set"
    );
    let v6 = Spec::udp(true, &[0; 100]).bytes();
    assert!(!Segments::plain(&v6).unwrap().fragment_to(80), "IPv6");
    let mut beyond = Spec {
        dont_fragment: false,
        ..Spec::udp(false, &[0; 100])
    }
    .bytes();
    assert!(
        !Segments::plain(&beyond).unwrap().fragment_to(27),
        "no room for eight bytes"
    );
    beyond[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
    assert!(
        !Segments::plain(&beyond).unwrap().fragment_to(80),
        "ends beyond 65535"
    );
}

proptest! {
    #[test]
    fn cuts_tcp_into_the_packets_it_stands_for(
        v6: bool, payload in proptest::collection::vec(any::<u8>(), 1..3000), size in 1usize..1500,
        seq: u32, id: u16, flags: u8, tos: u8,
    ) {
        let mut whole = Spec::tcp(v6, &payload);
        (whole.id, whole.tos) = (id, tos);
        if let Upper::Tcp { seq: s, flags: f, .. } = &mut whole.upper {
            (*s, *f) = (seq, flags);
        }
        let bytes = whole.bytes();
        let start = if v6 { 40 } else { 20 };
        let mut segments = Segments::new(&virtio(tcp_type(v6), size, start, 16), &bytes).unwrap();
        prop_assert_eq!(cut(&mut segments), tcp_packets(&whole, size));
    }

    #[test]
    fn cuts_udp_into_the_datagrams_it_stands_for(
        v6: bool, payload in proptest::collection::vec(any::<u8>(), 1..3000), size in 1usize..1500, id: u16,
    ) {
        let whole = Spec { id, ..Spec::udp(v6, &payload) };
        let bytes = whole.bytes();
        let start = if v6 { 40 } else { 20 };
        let mut segments = Segments::new(&virtio(GsoType::UdpL4, size, start, 6), &bytes).unwrap();
        let expected = payload.chunks(size).enumerate().map(|(i, chunk)| {
            Spec { id: id.wrapping_add(i as u16), payload: chunk.to_vec(), ..whole.clone() }.bytes()
        });
        prop_assert_eq!(cut(&mut segments), expected.collect::<Vec<_>>());
    }

    #[test]
    fn shrinking_keeps_the_byte_stream(payload in proptest::collection::vec(any::<u8>(), 100..3000), max in 60usize..1000) {
        let whole = Spec { dont_fragment: false, ..Spec::tcp(false, &payload) };
        let bytes = whole.bytes();
        let mut segments = Segments::new(&virtio(GsoType::TcpV4, 1400, 20, 16), &bytes).unwrap();
        prop_assert!(segments.shrink_to(max));
        prop_assert!(segments.longest() <= max);
        prop_assert_eq!(cut(&mut segments), tcp_packets(&whole, (max - 52).min(1400)));
    }

    #[test]
    fn fragments_reassemble(
        payload in proptest::collection::vec(any::<u8>(), 1..4000), max in 68usize..1500, words in 0usize..4, unfinished: bool,
    ) {
        let spec = Spec { dont_fragment: false, ip_options: vec![1; words * 4], ..Spec::udp(false, &payload) };
        let expected = spec.bytes();
        let mut bytes = expected.clone();
        let start = 20 + words * 4;
        let mut header = VirtioNetHeader::PLAIN;
        if unfinished {
            let packet = IpPacket::parse(&bytes).unwrap();
            let sum = checksum::pseudo_header(packet.src, packet.dst, 17, bytes.len() - start);
            bytes[start + 6..start + 8].copy_from_slice(&sum.partial().to_be_bytes());
            header = virtio(GsoType::None, 0, start, 6);
        }
        let mut segments = Segments::new(&header, &bytes).unwrap();
        prop_assert_eq!(segments.fragment_to(max), expected.len() > max);
        if expected.len() > max {
            prop_assert_eq!(reassemble(&cut(&mut segments), max), expected);
        }
    }

    #[test]
    fn arbitrary_reads_never_panic(
        header in proptest::array::uniform10(any::<u8>()), gso in 0u8..6, first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60)],
        protocol in prop_oneof![Just(6u8), Just(17), any::<u8>()], mut bytes in proptest::collection::vec(any::<u8>(), 20..400),
        max in 0usize..200,
    ) {
        let mut virtio = VirtioNetHeader::parse(&header).unwrap();
        virtio.gso_type = GsoType::from_wire(gso);
        virtio.csum_start %= 64;
        virtio.csum_offset %= 64;
        let len = bytes.len() as u16;
        bytes[0] = first;
        if first == 0x60 {
            bytes[4..6].copy_from_slice(&len.saturating_sub(40).to_be_bytes());
            bytes[6] = protocol;
        } else {
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[9] = protocol;
        }
        if let Ok(mut segments) = Segments::new(&virtio, &bytes) {
            let mut narrow = segments.clone();
            let _fits = toobig::fit(&mut narrow, max);
            for segments in [&mut segments, &mut narrow] {
                let total = segments.len_of_next(segments.remaining());
                let written = cut(segments).iter().map(Vec::len).sum::<usize>();
                prop_assert_eq!(written, total);
            }
        }
    }
}

/// Cuts `whole` to `wide`, takes `taken` packets as having left, and cuts the rest to `narrow`.
fn resumed(
    header: &VirtioNetHeader,
    whole: &[u8],
    (wide, narrow): (usize, usize),
    taken: usize,
) -> [Vec<Vec<u8>>; 2] {
    let mut segments = Segments::new(header, whole).unwrap();
    assert_eq!(toobig::fit(&mut segments, wide), Fit::Fits);
    let mut out = vec![0; 65_535];
    let mut before = Vec::new();
    for _ in 0..taken {
        let len = segments.write_next(&mut out).unwrap();
        before.push(out[..len].to_vec());
    }
    let left = segments.progress();
    assert_eq!(left.packets(), taken);
    assert_eq!(segments.after(Progress::default(), taken), left);
    // One more was cut, and lost.
    let _lost = segments.write_next(&mut out).unwrap();
    let mut segments = Segments::new(header, whole).unwrap();
    segments.resume(left);
    assert_eq!(toobig::fit(&mut segments, narrow), Fit::Fits);
    let lens = segments.len_of_next(usize::MAX);
    let after = cut(&mut segments);
    assert_eq!(lens, after.iter().map(Vec::len).sum::<usize>());
    [before, after]
}

#[test]
fn a_read_goes_on_behind_what_has_left_of_it() {
    let payload: Vec<u8> = (0..3000u32).map(|n| (n / 7) as u8).collect();
    let mut tcp = Spec::tcp(false, &payload);
    tcp.dont_fragment = false;
    if let Upper::Tcp { flags, .. } = &mut tcp.upper {
        *flags |= tcp_flags::CWR | tcp_flags::PSH;
    }
    let header = virtio(GsoType::TcpV4, 1000, 20, 16);
    for taken in 0..3 {
        let [before, after] = resumed(&header, &tcp.bytes(), (1052, 552), taken);
        let all = [before, after].concat();
        let mut bytes = Vec::new();
        for (number, packet) in all.iter().enumerate() {
            assert!(is_intact(packet));
            let (ip, upper) = (Ipv4Header::parse(packet).unwrap(), &packet[20..]);
            let header = TcpHeader::parse(upper).unwrap();
            assert_eq!(ip.id as usize, 100 + number);
            assert_eq!(header.seq as usize, 1000 + bytes.len());
            assert_eq!(header.flags & tcp_flags::CWR != 0, number == 0);
            assert_eq!(header.flags & tcp_flags::PSH != 0, number + 1 == all.len());
            bytes.extend_from_slice(&upper[32..]);
        }
        assert!(bytes == payload);
    }

    let udp = Spec::udp(false, &payload).bytes();
    let header = virtio(GsoType::UdpL4, 400, 20, 6);
    let mut as_before = Segments::new(&header, &udp).unwrap();
    let [before, after] = resumed(&header, &udp, (1500, 1500), 5);
    assert_eq!([before, after].concat(), cut(&mut as_before));

    let mut whole = Spec::udp(false, &payload);
    whole.dont_fragment = false;
    let plain = VirtioNetHeader::PLAIN;
    let [before, after] = resumed(&plain, &whole.bytes(), (1500, 700), 1);
    let fragments = [before, after].concat();
    assert_eq!(reassemble(&fragments, 1500), whole.bytes());
}

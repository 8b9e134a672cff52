//! Answers to packets that are too long.

use cygnet_wire::ip::{GsoType, VirtioNetHeader};
use proptest::prelude::*;

use super::*;
use crate::testing::{Spec, Upper, is_intact};

const US_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));

fn us_v6() -> IpAddr {
    "fd00:1::1".parse().unwrap()
}

fn answer(packet: &[u8], mtu: usize, from: IpAddr) -> Option<Vec<u8>> {
    let mut out = vec![0xee; IPV6_MIN_MTU];
    let len = packet_too_big(packet, mtu, from, &mut out)?;
    out.truncate(len);
    Some(out)
}

#[test]
fn fragmentation_needed_byte_for_byte() {
    let packet = Spec::udp(false, b"quoted").bytes();
    let message = answer(&packet, 1438, US_V4).unwrap();
    #[rustfmt::skip]
    assert_eq!(message[..28], [
        0x45, 0xc0, 0, 62, 0, 0, 0x40, 0, 64, 1, 0x25, 0xfb, 10, 1, 0, 1, 10, 1, 0, 2,
        3, 4, message[22], message[23], 0, 0, 0x05, 0x9e,
    ]);
    assert_eq!(message[28..], packet);
    assert!(checksum::Sum::default().bytes(&message[20..]).is_valid());
    assert!(is_intact(&message));
}

#[test]
fn packet_too_big_byte_for_byte() {
    let packet = Spec::udp(true, &[7; 2000]).bytes();
    let message = answer(&packet, 1418, us_v6()).unwrap();
    assert_eq!(message.len(), 1280);
    assert_eq!(message[..8], [0x6c, 0, 0, 0, 0x04, 0xd8, 58, 64]);
    assert_eq!(message[8..24], packet_addr("fd00:1::1"));
    assert_eq!(message[24..40], packet_addr("fd00:1::2"));
    assert_eq!(
        [&message[40..42], &message[44..48]].concat(),
        [2, 0, 0, 0, 0x05, 0x8a]
    );
    assert_eq!(message[48..], packet[..1232]);
    let sum = checksum::pseudo_header(us_v6(), "fd00:1::2".parse().unwrap(), 58, 1240);
    assert!(sum.bytes(&message[40..]).is_valid());
}

fn packet_addr(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

#[test]
fn no_message_about_what_deserves_none() {
    let error = Spec::of(
        false,
        Upper::Other(protocol::ICMP),
        &[3, 1, 0, 0, 0, 0, 0, 0],
    )
    .bytes();
    assert_eq!(answer(&error, 1000, US_V4), None, "an ICMP error");
    let echo = Spec::of(
        false,
        Upper::Other(protocol::ICMP),
        &[8, 0, 0, 0, 0, 0, 0, 0],
    )
    .bytes();
    assert!(answer(&echo, 1000, US_V4).is_some());
    let mut fragment = Spec::udp(false, b"x").bytes();
    fragment[7] = 1;
    assert_eq!(answer(&fragment, 1000, US_V4), None, "a later fragment");
    for (range, addr) in [
        (12..16, [0, 0, 0, 0]),
        (12..16, [224, 0, 0, 1]),
        (16..20, [255; 4]),
    ] {
        let mut packet = Spec::udp(false, b"x").bytes();
        packet[range].copy_from_slice(&addr);
        assert_eq!(answer(&packet, 1000, US_V4), None, "{addr:?}");
    }
    let error = Spec::of(
        true,
        Upper::Other(protocol::ICMPV6),
        &[1, 0, 0, 0, 0, 0, 0, 0],
    )
    .bytes();
    assert_eq!(answer(&error, 1300, us_v6()), None, "an ICMPv6 error");
    let v6 = Spec::udp(true, b"x").bytes();
    assert_eq!(answer(&v6, 1300, US_V4), None, "the other family");
    assert_eq!(
        packet_too_big(&v6, 1300, us_v6(), &mut [0; 60]),
        None,
        "no room"
    );
}

#[test]
fn each_kind_of_read_is_treated_as_its_family_and_df_say() {
    let segments_of = |spec: &Spec, gso: Option<(GsoType, u16)>, max: usize| {
        let bytes = spec.bytes();
        let header = gso.map_or(VirtioNetHeader::PLAIN, |(gso_type, gso_size)| {
            VirtioNetHeader {
                gso_type,
                gso_size,
                ..VirtioNetHeader::PLAIN
            }
        });
        let mut segments = Segments::new(&header, &bytes).unwrap();
        (
            fit(&mut segments, max),
            segments.longest(),
            segments.remaining(),
        )
    };
    let long = [0; 1372];
    let v4 = Spec::udp(false, &long);
    let free = Spec {
        dont_fragment: false,
        ..v4.clone()
    };
    assert_eq!(segments_of(&v4, None, 1400), (Fit::Fits, 1400, 1));
    assert_eq!(segments_of(&v4, None, 1399), (Fit::TooBig, 1400, 1));
    assert_eq!(segments_of(&free, None, 1399), (Fit::Fits, 1396, 2));
    assert_eq!(segments_of(&free, None, 27), (Fit::TooBig, 1400, 1));
    let v6 = Spec::udp(true, &long);
    assert_eq!(segments_of(&v6, None, 1399), (Fit::TooBig, 1420, 1));
    let least = Spec::udp(true, &[0; 1232]);
    assert_eq!(
        segments_of(&least, None, 600),
        (Fit::Fragments, 1280, 1),
        "IPv6 always gets 1280"
    );
    assert_eq!(segments_of(&least, None, 1280), (Fit::Fits, 1280, 1));
    let tcp = Spec {
        dont_fragment: false,
        ..Spec::tcp(false, &[0; 5000])
    };
    let gso = Some((GsoType::TcpV4, 1400));
    assert_eq!(segments_of(&tcp, gso, 1000), (Fit::Fits, 1000, 6));
    let tcp = Spec::tcp(false, &[0; 5000]);
    assert_eq!(segments_of(&tcp, gso, 1000), (Fit::TooBig, 1452, 4));
    let udp = Spec {
        dont_fragment: false,
        ..Spec::udp(false, &[0; 5000])
    };
    assert_eq!(
        segments_of(&udp, Some((GsoType::UdpL4, 1400)), 1000).0,
        Fit::OneByOne
    );
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 20..300), v6: bool, mtu: usize) {
        let len = bytes.len() as u16;
        if v6 && bytes.len() >= 40 {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        } else {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        }
        for from in [US_V4, us_v6()] {
            if let Some(message) = answer(&bytes, mtu, from) {
                prop_assert!(is_intact(&message));
            }
        }
    }
}

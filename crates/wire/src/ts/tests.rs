use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::payload::Payload;
use crate::testing::{self, assert_round_trip, emit_body, hex};

fn v4(lo: &str, hi: &str) -> AddrRange {
    AddrRange::V4(lo.parse().unwrap(), hi.parse().unwrap())
}

fn subnet(text: &str) -> TrafficSelector {
    let (addr, prefix_len) = text.split_once('/').unwrap();
    TrafficSelector::from_prefix(addr.parse().unwrap(), prefix_len.parse().unwrap())
}

#[test]
fn octets() {
    let body = hex("
        03 000000
        07 00 0010 0000 ffff 0a010000 0a0100ff
        08 06 0028 0050 0050 20010db8000000000000000000000000 20010db800000000ffffffffffffffff
        0a 11 0006 abcd");
    let payload = TsPayload {
        selectors: vec![
            subnet("10.1.0.0/24"),
            TrafficSelector {
                protocol: 6,
                ports: 80..=80,
                ..subnet("2001:db8::/64")
            },
        ],
        unknown: vec![UnknownSelector {
            ty: TsType::TS_SECLABEL,
            protocol: 17,
            body: vec![0xab, 0xcd],
        }],
    };
    assert_eq!(TsPayload::parse(&body), Ok(payload.clone()));
    assert_eq!(emit_body(Payload::Tsi(payload)), body);
}

#[test]
fn broken_selectors_are_refused() {
    for (what, body) in [
        (
            "addresses the wrong way round",
            "07 00 0010 0000 ffff 0a0100ff 0a010000",
        ),
        (
            "ports the wrong way round",
            "07 06 0010 0051 0050 0a010000 0a0100ff",
        ),
        ("too short for its type", "07 00 000c 0000 ffff 0a010000"),
        (
            "too long for its type",
            "07 00 0011 0000 ffff 0a010000 0a0100ff 00",
        ),
        (
            "shorter than its header",
            "07 00 0003 0000 ffff 0a010000 0a0100ff",
        ),
    ] {
        assert!(
            TsPayload::parse(&hex(&format!("01 000000 {body}"))).is_err(),
            "{what}"
        );
    }
    assert!(
        TsPayload::parse(&hex("01 000000")).is_err(),
        "fewer than counted"
    );
    assert!(
        TsPayload::parse(&hex("00 000000 00")).is_err(),
        "more than counted"
    );
}

#[test]
fn display_is_strongswans() {
    let with = |protocol, ports| {
        TrafficSelector {
            protocol,
            ports,
            ..subnet("10.1.0.0/24")
        }
        .to_string()
    };
    assert_eq!(subnet("10.1.0.0/24").to_string(), "10.1.0.0/24");
    assert_eq!(subnet("2001:db8::1/128").to_string(), "2001:db8::1/128");
    assert_eq!(with(6, 80..=80), "10.1.0.0/24[tcp/80]");
    assert_eq!(with(17, ANY_PORT), "10.1.0.0/24[udp]");
    assert_eq!(with(132, 1000..=2000), "10.1.0.0/24[132/1000-2000]");
    assert_eq!(with(6, OPAQUE_PORT), "10.1.0.0/24[tcp/OPAQUE]");
    assert_eq!(with(1, 0x0800..=0x0800), "10.1.0.0/24[icmp/8(0)]");
    assert_eq!(with(1, 0x0800..=0x08ff), "10.1.0.0/24[icmp/8]");
    assert_eq!(with(58, 0x8000..=0x81ff), "10.1.0.0/24[ipv6-icmp/128-129]");
    assert_eq!(
        TrafficSelector::from_range(v4("10.0.0.1", "10.0.0.9")).to_string(),
        "10.0.0.1..10.0.0.9"
    );
}

#[test]
fn packets_are_selected_by_address_protocol_and_port() {
    let web = TrafficSelector {
        protocol: 6,
        ports: 80..=443,
        ..subnet("10.1.0.0/24")
    };
    let inside = IpAddr::from([10, 1, 0, 7]);
    assert!(web.contains(inside, 6, Some(80)));
    assert!(!web.contains(inside, 6, Some(79)));
    assert!(!web.contains(inside, 17, Some(80)));
    assert!(!web.contains([10, 1, 1, 7].into(), 6, Some(80)));
    assert!(!web.contains("::".parse().unwrap(), 6, Some(80)));
}

/// RFC 4301 §4.4.1.1: a field that cannot be seen matches any and opaque, and no range.
#[test]
fn ports_that_cannot_be_seen_match_any_and_opaque() {
    let inside = IpAddr::from([10, 1, 0, 7]);
    let with = |ports| TrafficSelector {
        protocol: 6,
        ports,
        ..subnet("10.1.0.0/24")
    };
    assert!(with(ANY_PORT).contains(inside, 6, None));
    assert!(with(OPAQUE_PORT).contains(inside, 6, None));
    assert!(!with(OPAQUE_PORT).contains(inside, 6, Some(80)));
    assert!(!with(0..=65534).contains(inside, 6, None));

    assert_eq!(
        with(ANY_PORT).intersect(&with(OPAQUE_PORT)),
        Some(with(OPAQUE_PORT))
    );
    assert_eq!(
        with(OPAQUE_PORT).intersect(&with(OPAQUE_PORT)),
        Some(with(OPAQUE_PORT))
    );
    assert_eq!(with(OPAQUE_PORT).intersect(&with(1..=2)), None);
    assert!(with(OPAQUE_PORT).is_subset(&with(ANY_PORT)));
    assert!(!with(ANY_PORT).is_subset(&with(OPAQUE_PORT)));
}

#[test]
fn intersection_narrows_every_field() {
    let a = TrafficSelector {
        protocol: 0,
        ports: 0..=1023,
        ..subnet("10.0.0.0/8")
    };
    let b = TrafficSelector {
        protocol: 17,
        ports: 500..=4500,
        ..subnet("10.1.0.0/16")
    };
    let both = TrafficSelector {
        protocol: 17,
        ports: 500..=1023,
        ..subnet("10.1.0.0/16")
    };
    assert_eq!(a.intersect(&b), Some(both.clone()));
    assert!(both.is_subset(&a) && both.is_subset(&b) && !a.is_subset(&b));
    assert_eq!(subnet("10.0.0.0/8").intersect(&subnet("11.0.0.0/8")), None);
    assert_eq!(
        TrafficSelector::any_v4().intersect(&TrafficSelector::any_v6()),
        None
    );
    let tcp = TrafficSelector {
        protocol: 6,
        ..b.clone()
    };
    assert_eq!(tcp.intersect(&b), None);
}

#[test]
fn prefixes_of_ranges() {
    let prefixes = |range: AddrRange| -> Vec<String> {
        range
            .prefixes()
            .map(|(addr, prefix_len)| format!("{addr}/{prefix_len}"))
            .collect()
    };
    assert_eq!(prefixes(AddrRange::ANY_V4), ["0.0.0.0/0"]);
    assert_eq!(prefixes(AddrRange::ANY_V6), ["::/0"]);
    assert_eq!(
        prefixes(v4("10.0.0.1", "10.0.0.6")),
        ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
    );
    assert_eq!(
        prefixes(v4("255.255.255.255", "255.255.255.255")),
        ["255.255.255.255/32"]
    );
    // Everything but one address: the longest there is, one subnet for each bit.
    assert_eq!(prefixes(v4("0.0.0.1", "255.255.255.255")).len(), 32);
    // A range no selector from the wire can be, made by hand.
    assert_eq!(prefixes(v4("10.0.0.2", "10.0.0.1")), [""; 0]);
}

#[test]
fn to_prefix_only_of_whole_subnets() {
    assert_eq!(
        subnet("10.1.0.0/24").to_prefix(),
        Some(([10, 1, 0, 0].into(), 24))
    );
    assert_eq!(subnet("10.1.0.9/24"), subnet("10.1.0.0/24"));
    assert_eq!(subnet("10.1.0.9/99"), subnet("10.1.0.9/32"));
    assert_eq!(v4("10.0.0.1", "10.0.0.2").to_prefix(), None);
}

fn some_address(range: &AddrRange, seed: u128) -> IpAddr {
    match range {
        AddrRange::V4(lo, hi) => {
            let count = u128::from(hi.to_bits() - lo.to_bits()) + 1;
            Ipv4Addr::from_bits(lo.to_bits() + (seed % count) as u32).into()
        }
        AddrRange::V6(lo, hi) => {
            let more = (hi.to_bits() - lo.to_bits())
                .checked_add(1)
                .map_or(seed, |n| seed % n);
            Ipv6Addr::from_bits(lo.to_bits() + more).into()
        }
    }
}

proptest! {
    #[test]
    fn round_trip(payload in testing::ts()) {
        assert_round_trip(Payload::Tsi(payload.clone()));
        assert_round_trip(Payload::Tsr(payload));
    }

    #[test]
    fn prefixes_cover_the_range_without_gap_or_overlap(range in testing::range()) {
        let parts: Vec<AddrRange> =
            range.prefixes().map(|(addr, len)| AddrRange::from_prefix(addr, len)).collect();
        let bits = |addr| match addr {
            IpAddr::V4(addr) => u128::from(addr.to_bits()),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        prop_assert_eq!(parts.first().map(AddrRange::lo), Some(range.lo()));
        prop_assert_eq!(parts.last().map(AddrRange::hi), Some(range.hi()));
        for pair in parts.windows(2) {
            prop_assert_eq!(bits(pair[0].hi()) + 1, bits(pair[1].lo()));
        }
    }

    #[test]
    fn intersection_selects_what_both_select(
        a in testing::selector(),
        b in testing::selector(),
        seed: u128,
        port: Option<u16>,
        from_b: bool,
    ) {
        let addr = some_address(if from_b { &b.addrs } else { &a.addrs }, seed);
        let both = a.intersect(&b);
        prop_assert_eq!(&both, &b.intersect(&a));
        for protocol in [6, 17, a.protocol, b.protocol] {
            prop_assert_eq!(
                both.as_ref().is_some_and(|both| both.contains(addr, protocol, port)),
                a.contains(addr, protocol, port) && b.contains(addr, protocol, port)
            );
        }
        if let Some(both) = both {
            prop_assert!(both.is_subset(&a) && both.is_subset(&b));
        }
        prop_assert!(a.is_subset(&a));
    }
}

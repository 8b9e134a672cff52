//! Lookups, against going through all policies one by one.

use std::net::IpAddr;

use cygnet_wire::ts::TrafficSelector;
use proptest::prelude::*;

use super::*;
use crate::flow::Ports;
use crate::sa::Lifetime;
use crate::segment::Segments;
use crate::testing::{Spec, pair, sealer, suite_gcm};

fn sa(spi: u32, selectors: Selectors) -> Arc<OutboundSa> {
    Arc::new(OutboundSa::new(
        spi,
        sealer(suite_gcm(true)),
        selectors,
        Lifetime::UNLIMITED,
    ))
}

fn prefix(text: &str) -> TrafficSelector {
    let (addr, len) = text.split_once('/').unwrap();
    TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap())
}

fn between(local: &str, remote: &str) -> Selectors {
    Selectors::new(vec![prefix(local)], vec![prefix(remote)])
}

fn protect(id: u32, selectors: Selectors, sas: &[Arc<OutboundSa>]) -> Policy<u32> {
    let outlets = sas
        .iter()
        .map(|sa| Outlet {
            sa: sa.clone(),
            path: id,
        })
        .collect();
    Policy {
        id: PolicyId(id),
        selectors,
        action: Action::Protect(outlets),
    }
}

fn flow(src: &str, dst: &str) -> Flow {
    let ports = Ports::Pair {
        src: 40_000,
        dst: 443,
    };
    Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 6,
        ports,
    }
}

/// A verdict as a short text.
fn said(verdict: &Verdict<'_, u32>) -> String {
    match verdict {
        Verdict::Seal(outlet) => format!("seal {} by {}", outlet.path, outlet.sa.spi()),
        Verdict::Acquire(id, _) => format!("acquire {}", id.0),
        Verdict::Discard(id) => format!("discard {}", id.0),
        Verdict::NoPolicy => "no policy".into(),
        Verdict::UnknownFragment => "unknown fragment".into(),
    }
}

#[test]
fn first_policy_wins_and_the_newest_usable_sa() {
    let narrow = between("10.1.0.0/24", "10.2.0.0/24");
    let used_up = OutboundSa::new(
        9,
        sealer(suite_gcm(true)),
        narrow.clone(),
        Lifetime {
            hard_packets: 0,
            ..Lifetime::UNLIMITED
        },
    );
    let discard = Policy {
        id: PolicyId(1),
        selectors: between("10.1.0.0/16", "10.2.0.99/32"),
        action: Action::Discard,
    };
    let spd = Spd::new(vec![
        discard,
        protect(
            2,
            between("10.1.0.0/16", "10.2.0.0/16"),
            &[Arc::new(used_up), sa(8, narrow.clone()), sa(7, narrow)],
        ),
        protect(3, between("0.0.0.0/0", "0.0.0.0/0"), &[]),
    ]);
    let ask = |src, dst| said(&spd.lookup_flow(&flow(src, dst)));
    assert_eq!(ask("10.1.0.1", "10.2.0.1"), "seal 2 by 8");
    assert_eq!(ask("10.1.0.1", "10.2.0.99"), "discard 1");
    assert_eq!(ask("10.1.9.1", "10.2.0.1"), "acquire 2");
    assert_eq!(ask("10.1.0.1", "8.8.8.8"), "acquire 3");
    assert_eq!(ask("fd00::1", "fd00::2"), "no policy");
}

#[test]
fn an_acquire_carries_the_packets_selectors() {
    let spd = Spd::new(vec![protect(1, Selectors::any(), &[])]);
    let asked = flow("10.1.0.1", "10.2.0.1");
    let Verdict::Acquire(_, flow) = spd.lookup_flow(&asked) else {
        panic!("no SA yet")
    };
    let (local, remote) = flow.to_selectors();
    assert_eq!(
        (local.to_string(), remote.to_string()),
        (
            "10.1.0.1/32[tcp/40000]".into(),
            "10.2.0.1/32[tcp/443]".into()
        )
    );
}

#[test]
fn icmp_type_and_code_stand_for_ports() {
    let echo = TrafficSelector {
        protocol: 1,
        ports: 0x0800..=0x08ff,
        ..prefix("10.2.0.0/16")
    };
    let selectors = Selectors::new(vec![prefix("10.1.0.0/16")], vec![echo]);
    let spd = Spd::new(vec![protect(1, selectors, &[])]);
    let ask = |payload: &[u8]| {
        let bytes = Spec::of(false, crate::testing::Upper::Other(1), payload).bytes();
        let segments = Segments::plain(&bytes).unwrap();
        said(&spd.lookup_flow(segments.flow()))
    };
    assert_eq!(ask(&[8, 0, 0, 0]), "acquire 1");
    assert_eq!(ask(&[0, 0, 0, 0]), "no policy");
    assert_eq!(ask(&[]), "no policy");
}

#[test]
fn later_fragments_go_where_their_first_went() {
    let https = TrafficSelector {
        protocol: 17,
        ports: 443..=443,
        ..prefix("10.2.0.0/16")
    };
    let only_https = Selectors::new(vec![prefix("10.1.0.0/16")], vec![https]);
    let rest = between("10.1.0.0/16", "10.2.0.0/16");
    let whole = Spec {
        dont_fragment: false,
        ..Spec::udp(false, &[0; 200])
    }
    .bytes();
    let mut segments = Segments::plain(&whole).unwrap();
    assert!(segments.fragment_to(100));
    let mut pieces = vec![];
    while segments.remaining() != 0 {
        let mut piece = vec![0; segments.next_len()];
        segments.write_next(&mut piece).unwrap();
        pieces.push(piece);
    }
    let ask = |spd: &Spd<u32>, piece: &[u8], table: &mut FragmentTable| {
        let segments = Segments::plain(piece).unwrap();
        said(&spd.lookup(segments.packet(), segments.flow(), table))
    };
    let first_sa = sa(5, only_https.clone());
    let spd = Spd::new(vec![protect(
        1,
        only_https.clone(),
        std::slice::from_ref(&first_sa),
    )]);
    let mut table = FragmentTable::new();
    assert_eq!(ask(&spd, &pieces[1], &mut table), "unknown fragment");
    assert_eq!(ask(&spd, &pieces[0], &mut table), "seal 1 by 5");
    assert_eq!(ask(&spd, &pieces[1], &mut table), "seal 1 by 5");
    assert_eq!(ask(&spd, &pieces[2], &mut table), "seal 1 by 5");
    // With a policy that takes any port, an unknown fragment has somewhere to go.
    let both = Spd::new(vec![
        protect(1, only_https, &[first_sa]),
        protect(2, rest.clone(), &[sa(6, rest)]),
    ]);
    let mut table = FragmentTable::new();
    assert_eq!(ask(&both, &pieces[1], &mut table), "seal 2 by 6");
    assert_eq!(ask(&both, &pieces[0], &mut table), "seal 1 by 5");
    assert_eq!(ask(&both, &pieces[1], &mut table), "seal 1 by 5");
}

#[test]
fn a_thousand_clients_are_found() {
    let policies = (0..1000u32).map(|i| {
        let selectors = between("0.0.0.0/0", &format!("10.9.{}.{}/32", i / 250, i % 250));
        protect(i, selectors.clone(), &[sa(i + 256, selectors)])
    });
    let spd = Spd::new(policies.collect());
    for i in 0..1000u32 {
        let asked = flow("10.1.0.1", &format!("10.9.{}.{}", i / 250, i % 250));
        assert_eq!(
            said(&spd.lookup_flow(&asked)),
            format!("seal {i} by {}", i + 256)
        );
    }
    assert_eq!(
        said(&spd.lookup_flow(&flow("10.1.0.1", "10.9.0.255"))),
        "no policy"
    );
}

#[test]
fn opened_by_the_peer_what_this_side_selects() {
    let (out, inbound) = pair(suite_gcm(true), between("10.1.0.0/24", "10.2.0.0/24"));
    let there = flow("10.1.0.1", "10.2.0.1");
    let back = Flow {
        src: there.dst,
        dst: there.src,
        ..there
    };
    assert!(out.selectors().match_outbound(&there) && !out.selectors().match_outbound(&back));
    assert!(inbound.selectors().match_inbound(&there) && !inbound.selectors().match_inbound(&back));
}

fn some_prefix() -> impl Strategy<Value = TrafficSelector> {
    (any::<bool>(), 0u8..8, any::<u8>()).prop_map(|(v6, bits, host)| {
        let (addr, len): (IpAddr, u8) = if v6 {
            (
                std::net::Ipv6Addr::from_bits(u128::from(host)).into(),
                121 + bits,
            )
        } else {
            (
                std::net::Ipv4Addr::from_bits(u32::from(host)).into(),
                25 + bits,
            )
        };
        TrafficSelector::from_prefix(addr, if host.is_multiple_of(16) { 0 } else { len })
    })
}

proptest! {
    #[test]
    fn agrees_with_going_through_them_all(
        list in proptest::collection::vec((proptest::collection::vec(some_prefix(), 1..3), any::<bool>()), 0..60),
        hosts in proptest::collection::vec((any::<bool>(), any::<u8>()), 30),
    ) {
        let any_side = vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()];
        let policies = list.into_iter().enumerate().map(|(i, (remote, discard))| {
            let selectors = Selectors::new(any_side.clone(), remote);
            if discard {
                Policy { id: PolicyId(i as u32), selectors, action: Action::Discard }
            } else {
                protect(i as u32, selectors, &[])
            }
        });
        let spd = Spd::new(policies.collect());
        for (v6, host) in hosts {
            let asked = if v6 {
                flow("::1", &std::net::Ipv6Addr::from_bits(u128::from(host)).to_string())
            } else {
                flow("0.0.0.1", &std::net::Ipv4Addr::from_bits(u32::from(host)).to_string())
            };
            let expected = spd.policies().iter().find(|p| p.selectors.match_outbound(&asked));
            let expected = expected.map_or("no policy".into(), |p| match p.action {
                Action::Discard => format!("discard {}", p.id.0),
                Action::Protect(_) => format!("acquire {}", p.id.0),
            });
            prop_assert_eq!(said(&spd.lookup_flow(&asked)), expected);
        }
    }
}

use super::*;
use cygnet_wire::payload::{ChainBuilder, Payload, parse_chain};
use cygnet_wire::ts::{ANY_PORT, TsPayload};
use proptest::prelude::*;

/// "10.1.0.0/24", "10.1.0.1-10.1.0.9", each with "|protocol|first port|last port" after it.
fn ts(text: &str) -> TrafficSelector {
    let mut fields = text.split('|');
    let addrs = fields.next().unwrap();
    let mut selector = if let Some((lo, hi)) = addrs.split_once('-') {
        let range = AddrRange::new(lo.parse().unwrap(), hi.parse().unwrap());
        TrafficSelector::from_range(range.unwrap())
    } else {
        let (addr, len) = addrs.split_once('/').unwrap();
        TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap())
    };
    let numbers: Vec<u16> = fields.map(|n| n.parse().unwrap()).collect();
    if let [protocol, first, last] = numbers[..] {
        selector.protocol = protocol as u8;
        selector.ports = first..=last;
    }
    selector
}

fn all(texts: &[&str]) -> Vec<TrafficSelector> {
    texts.iter().map(|text| ts(text)).collect()
}

#[track_caller]
fn narrowed(offered: (&[&str], &[&str]), allowed: (&[&str], &[&str])) -> (String, Fit) {
    let narrowed = narrow(
        (&all(offered.0), &all(offered.1)),
        (&all(allowed.0), &all(allowed.1)),
    )
    .unwrap();
    let text = pair(&narrowed.initiator, &narrowed.responder);
    (text, narrowed.fit)
}

#[test]
fn all_that_is_allowed_is_taken() {
    assert_eq!(
        narrowed(
            (&["10.1.0.0/24"], &["10.2.0.0/24"]),
            (&["10.1.0.0/16"], &["10.2.0.0/16", "10.3.0.0/16"])
        ),
        ("10.1.0.0/24 === 10.2.0.0/24".into(), Fit::Whole)
    );
}

#[test]
fn too_much_is_narrowed_to_what_is_allowed() {
    assert_eq!(
        narrowed(
            (&["0.0.0.0/0"], &["0.0.0.0/0"]),
            (&["10.99.0.7/32"], &["10.2.0.0/24", "10.3.0.0/24"])
        ),
        (
            "10.99.0.7/32 === 10.2.0.0/24, 10.3.0.0/24".into(),
            Fit::Part
        )
    );
}

/// RFC 7296 §2.9: the first selectors are those of the packet, and what is chosen includes them.
#[test]
fn the_packet_that_asked_is_included() {
    let offered = (
        &["10.1.0.5/32|6|4000|4000", "10.1.0.0/16"][..],
        &["10.2.0.9/32|6|443|443", "10.2.0.0/16"][..],
    );
    assert_eq!(
        narrowed(offered, (&["10.1.0.0/24"], &["10.2.0.0/24"])),
        ("10.1.0.0/24 === 10.2.0.0/24".into(), Fit::WithFirst)
    );
    // The policy excludes the packet: another subset is still a subset (rule 4).
    assert_eq!(
        narrowed(offered, (&["10.1.0.0/24"], &["10.2.7.0/24"])),
        ("10.1.0.0/24 === 10.2.7.0/24".into(), Fit::Part)
    );
}

#[test]
fn the_best_fit_is_the_greatest() {
    assert!(Fit::Part < Fit::WithFirst && Fit::WithFirst < Fit::Whole);
}

#[test]
fn ports_and_protocols_are_narrowed_too() {
    assert_eq!(
        narrowed(
            (&["10.1.0.0/24"], &["10.2.0.0/24|6|0|65535"]),
            (&["10.1.0.0/24"], &["10.2.0.0/24|0|80|443"])
        ),
        (
            format!("10.1.0.0/24 === {}", ts("10.2.0.0/24|6|80|443")),
            Fit::Part
        )
    );
}

#[test]
fn a_family_of_one_side_alone_is_left_out() {
    assert_eq!(
        narrowed(
            (&["0.0.0.0/0"], &["0.0.0.0/0", "::/0"]),
            (&["10.99.0.7/32"], &["0.0.0.0/0", "::/0"])
        ),
        ("10.99.0.7/32 === 0.0.0.0/0".into(), Fit::Part)
    );
    assert!(
        narrow(
            (&all(&["10.0.0.0/8"]), &all(&["fd00::/8"])),
            (&all(&["0.0.0.0/0"]), &all(&["::/0"]))
        )
        .is_err()
    );
}

#[test]
fn nothing_in_common_is_explained_with_both_sides() {
    let error = narrow(
        (&all(&["10.1.0.0/24"]), &all(&["10.2.0.0/24"])),
        (
            &all(&["10.1.0.0/24"]),
            &all(&["10.3.0.0/24", "10.4.0.0/24"]),
        ),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no traffic selectors in common: peer offers 10.1.0.0/24 === 10.2.0.0/24; \
         this side allows 10.1.0.0/24 === 10.3.0.0/24, 10.4.0.0/24"
    );
    assert!(narrow((&[], &[]), (&all(&["::/0"]), &all(&["::/0"]))).is_err());
}

#[test]
fn dynamic_selectors_stand_for_addresses() {
    let fixed = SelectorTemplate::Fixed(ts("10.5.0.0/24"));
    let templates = [SelectorTemplate::Dynamic, fixed];
    let outer = "192.0.2.1".parse().unwrap();
    let addresses = ["10.99.0.7".parse().unwrap(), "fd99::7".parse().unwrap()];
    let expanded = |dynamic| list(&expand(&templates, dynamic));
    assert_eq!(
        expanded(Dynamic::Virtual(&[], outer)),
        "192.0.2.1/32, 10.5.0.0/24"
    );
    assert_eq!(
        expanded(Dynamic::Virtual(&addresses, outer)),
        "10.99.0.7/32, fd99::7/128, 10.5.0.0/24"
    );
    let wanted = [WantedAddress::V4(None), WantedAddress::V6(None)];
    assert_eq!(expanded(Dynamic::Wanted(&wanted)), "0.0.0.0/0, ::/0");
    assert_eq!(expanded(Dynamic::Wanted(&wanted[1..])), "::/0, 10.5.0.0/24");
}

#[test]
fn the_packet_goes_in_front_of_the_offer_it_belongs_to() {
    let offer = all(&["10.1.0.0/24"]);
    let packet = ts("10.1.0.5/32|6|4000|4000");
    let with = with_packet(Some(&packet), offer.clone());
    assert_eq!(with, [packet, offer[0].clone()]);
    assert_eq!(with_packet(None, offer.clone()), offer);
    let alien = ts("10.9.0.5/32|6|4000|4000");
    assert_eq!(with_packet(Some(&alien), offer.clone()), offer);
    assert_eq!(with_packet(Some(&offer[0]), offer.clone()), offer);
}

#[test]
fn an_answer_is_within_the_offer() {
    let offered = (
        all(&["10.1.0.0/24"]),
        all(&["10.2.0.0/25", "10.2.0.128/25"]),
    );
    let check = |i: &[&str], r: &[&str]| {
        check_answer((&offered.0, &offered.1), (&all(i), &all(r))).map_err(|e| e.to_string())
    };
    assert_eq!(check(&["10.1.0.0/24"], &["10.2.0.0/25"]), Ok(()));
    // Two halves that were joined are still what was offered.
    assert_eq!(check(&["10.1.0.7/32"], &["10.2.0.0/24"]), Ok(()));
    assert_eq!(
        check(&["10.1.0.0/24"], &["10.2.0.0/23"]),
        Err(
            "the peer's TSr 10.2.0.0/23 is not within what was offered, 10.2.0.0/25, 10.2.0.128/25"
                .into()
        )
    );
    assert_eq!(
        check(&["0.0.0.0/0"], &["10.2.0.0/25"]),
        Err("the peer's TSi 0.0.0.0/0 is not within what was offered, 10.1.0.0/24".into())
    );
    assert_eq!(
        check(&[], &["10.2.0.0/25"]),
        Err("the peer's answer has no traffic selectors in TSi".into())
    );
}

#[test]
fn covering_minds_gaps_protocols_and_ports() {
    let covered = |wide: &[&str], narrow: &str| covers(&all(wide), &ts(narrow));
    assert!(covered(
        &["10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.20"],
        "10.0.0.2-10.0.0.15"
    ));
    assert!(!covered(
        &["10.0.0.0-10.0.0.9", "10.0.0.11-10.0.0.20"],
        "10.0.0.2-10.0.0.15"
    ));
    assert!(covered(&["0.0.0.0/0"], "0.0.0.0/0"));
    assert!(covered(&["::/0"], "::/0"));
    assert!(!covered(&["0.0.0.0/0"], "::/0"));
    assert!(!covered(&["10.0.0.0/8|6|0|65535"], "10.0.0.0/8"));
    assert!(covered(&["10.0.0.0/8"], "10.0.0.0/8|6|80|80"));
    assert!(!covered(&["10.0.0.0/8|6|80|90"], "10.0.0.0/8|6|80|91"));
    let opaque = TrafficSelector {
        ports: OPAQUE_PORT,
        ..ts("10.0.0.1/32")
    };
    assert!(covers(&all(&["10.0.0.0/8"]), &opaque));
    assert!(!covers(&all(&["10.0.0.0/8|6|0|100"]), &opaque));
    assert!(covers(std::slice::from_ref(&opaque), &opaque));
    assert!(!covers(&[opaque], &ts("10.0.0.1/32")));
}

#[test]
fn a_flood_of_selectors_is_bounded() {
    let many: Vec<_> = (0..=255_u8)
        .map(|i| ts(&format!("10.0.{i}.0/25")))
        .collect();
    let everything = all(&["0.0.0.0/0"]);
    let narrowed = narrow((&many, &many), (&everything, &everything)).unwrap();
    assert_eq!(narrowed.initiator.len(), MAX_SELECTORS);
}

/// Selectors over few values, so that they often overlap.
fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let selector = (
        any::<bool>(),
        0_u8..16,
        0_u8..16,
        prop_oneof![Just(0_u8), Just(6), Just(17)],
        prop_oneof![
            Just(ANY_PORT),
            (0_u16..8, 0_u16..8).prop_map(|(a, b)| a.min(b)..=a.max(b))
        ],
    )
        .prop_map(|(v6, a, b, protocol, ports)| {
            let addr = |low: u8| -> IpAddr {
                if v6 {
                    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low].into()
                } else {
                    [10, 0, 0, low].into()
                }
            };
            TrafficSelector {
                protocol,
                ports,
                addrs: AddrRange::new(addr(a.min(b)), addr(a.max(b))).unwrap(),
            }
        });
    proptest::collection::vec(selector, 1..5)
}

fn over_the_wire(selectors: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut chain = ChainBuilder::new();
    chain.push(Payload::Tsi(TsPayload::new(selectors.to_vec())));
    let chain = chain.finish().unwrap();
    match parse_chain(chain.first, &chain.bytes).unwrap().remove(0) {
        Payload::Tsi(payload) => payload.selectors,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_narrowed_is_accepted_and_loses_nothing_common(
        offered_i in selectors(),
        offered_r in selectors(),
        allowed_i in selectors(),
        allowed_r in selectors(),
    ) {
        let offered = (&offered_i[..], &offered_r[..]);
        let allowed = (&allowed_i[..], &allowed_r[..]);
        let Ok(narrowed) = narrow(offered, allowed) else { return Ok(()) };
        let (i, r) = (over_the_wire(&narrowed.initiator), over_the_wire(&narrowed.responder));
        prop_assert_eq!(&i, &narrowed.initiator);
        prop_assert_eq!(check_answer(offered, (&i, &r)), Ok(()));
        prop_assert_eq!(check_answer(allowed, (&i, &r)), Ok(()));
        // Narrowing what is narrow changes nothing.
        let again = narrow((&i, &r), allowed).unwrap();
        prop_assert_eq!(again.fit, Fit::Whole);
    }

    #[test]
    fn an_intersection_selects_what_both_select(
        a in selectors(),
        b in selectors(),
        low in 0_u8..16,
        protocol in prop_oneof![Just(6_u8), Just(17)],
        port in 0_u16..9,
    ) {
        let addr = IpAddr::from([10, 0, 0, low]);
        let selects = |set: &[TrafficSelector]| {
            set.iter().any(|ts| ts.contains(addr, protocol, Some(port)))
        };
        prop_assert_eq!(selects(&intersect(&a, &b)), selects(&a) && selects(&b));
    }

    /// `covers` against every packet there is, for the addresses it joins.
    #[test]
    fn what_is_covered_is_selected(wide in selectors(), narrow in selectors()) {
        let narrow = &narrow[0];
        if covers(&wide, narrow) {
            for low in 0..16 {
                let addr = IpAddr::from([10, 0, 0, low]);
                for protocol in [6, 17] {
                    for port in 0..9 {
                        if narrow.contains(addr, protocol, Some(port)) {
                            prop_assert!(
                                wide.iter().any(|ts| ts.contains(addr, protocol, Some(port)))
                            );
                        }
                    }
                }
            }
        }
    }
}

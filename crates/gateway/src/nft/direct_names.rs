//! Sets of the addresses that go direct by their names, and the rules that ask them.

use std::net::IpAddr;

use crate::inputs::Lan;
use crate::plan::Family;
use crate::{DIRECT_MARK, DirectNames};

/// More than are ever held: the kernel's own bound.
const SIZE: usize = 16_384;

/// Family, keyword of its addresses, their type and their set.
const FAMILIES: [(Family, &str, &str, &str); 2] = [
    (Family::V4, "ip", "ipv4_addr", DirectNames::SETS[0]),
    (Family::V6, "ip6", "ipv6_addr", DirectNames::SETS[1]),
];

/// The sets with what is in them, where there are such domains.
pub(super) fn sets(lan: &Lan) -> String {
    let names = &lan.direct_names;
    if !names.listed {
        return String::new();
    }
    let mut text = String::new();
    for (family, _, kind, set) in FAMILIES {
        let of_family = names.addresses.iter();
        let elements: Vec<String> = of_family
            .filter(|(address, left)| Family::of(**address) == family && left.as_secs() > 0)
            .map(|(address, left)| format!("{address} expires {}s", left.as_secs()))
            .collect();
        text.push_str(&format!(
            "\tset {set} {{\n\t\ttype {kind}\n\t\tsize {SIZE}\n\t\tflags dynamic, timeout\n\t\ttimeout {}s\n",
            DirectNames::HELD.as_secs()
        ));
        if !elements.is_empty() {
            text.push_str(&format!("\t\telements = {{ {} }}\n", elements.join(", ")));
        }
        text.push_str("\t}\n");
    }
    text
}

/// Of what is tunnelled, a new connection there goes direct. One that began in the tunnel stays there: whom it is known
/// to knows it by the tunnel's address. One that goes direct keeps its address in the set.
pub(super) fn marks(lan: &Lan) -> Vec<String> {
    per_family(lan, |keyword, set| {
        vec![
            // What costs least comes first: most packets are of a connection in the tunnel, and ask no set.
            format!("ct status & confirmed == 0 {keyword} daddr @{set} goto mark_direct"),
            format!(
                "ct mark {DIRECT_MARK:#010x} {keyword} daddr @{set} update @{set} {{ {keyword} daddr }} goto mark_direct"
            ),
        ]
    })
}

/// Of what is tunnelled, this may leave by any way.
pub(super) fn filter(lan: &Lan) -> Vec<String> {
    per_family(lan, |keyword, set| {
        vec![format!("{keyword} daddr @{set} return")]
    })
}

fn per_family(lan: &Lan, rules: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    if !lan.direct_names.listed {
        return Vec::new();
    }
    let families = FAMILIES.iter();
    families
        .flat_map(|(_, keyword, _, set)| rules(keyword, set))
        .collect()
}

/// What is in a set already is not changed by adding it, so it is taken out first; and as what is not in it cannot be
/// taken out, it is put in before. All of that is one transaction.
pub(crate) fn change(table: &str, held: &[IpAddr], gone: &[IpAddr]) -> String {
    let mut text = String::new();
    for (family, _, _, set) in FAMILIES {
        let of_family = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            let addresses = addresses.iter().copied();
            addresses.filter(|a| Family::of(*a) == family).collect()
        };
        let held = of_family(held);
        let all = [held.clone(), of_family(gone)].concat();
        for (verb, elements) in [("add", &all), ("delete", &all), ("add", &held)] {
            if !elements.is_empty() {
                let elements = super::set(elements);
                text.push_str(&format!("{verb} element inet {table} {set} {elements}\n"));
            }
        }
    }
    text
}

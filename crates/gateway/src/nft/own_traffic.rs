//! What the gateway itself sends outside: what it needs leaves as it is, and the rest by the LAN's tunnel or not at all.
//!
//! The guard's table refuses, at once, so that a program sees it. While the tunnel carries, the plan's table marks the
//! same packets before, and a rule by that mark leads them into it, as if a device had sent them: the kernel chose their
//! route and source when nothing was known of them, so the route is looked up again and the source is translated. In
//! the output hook such a packet still shows the interface of its first route; where it really leaves is seen behind it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Chain, ERRORS, devices, failure, inside, keyword, names, not_by, ours, per_family, set,
};
use crate::guard::GuardInputs;
use crate::inputs::{Inputs, InterfaceName, Lan};
use crate::own::{self, OwnNeeds, OwnWay};
use crate::plan::{Family, PRIVATE};
use crate::{OUTER_MARK, OWN_MARK};

/// In the guard: what is not needed, and is in no tunnel, is refused. For the end of the output hook; and its chains.
pub(super) fn refused(inputs: &GuardInputs) -> Option<(String, [Chain; 2])> {
    let lan = &inputs.lan;
    let needs = lan.own.as_ref()?;
    let tuns = inside(inputs).into_iter().chain(&inputs.closed);
    let mut rules = vec![to_ours(tuns)];
    if !inside(inputs).is_empty() {
        // Judged where it leaves.
        rules.push(format!("meta mark {OWN_MARK:#010x} return"));
    }
    // What began in a tunnel is known there by another address, and goes on there or not at all.
    rules.push(format!(
        "ct direction original ct mark {OWN_MARK:#010x} goto refused"
    ));
    rules.extend(near(lan, needs));
    let given = devices::given(lan);
    rules.extend(per_family(&given, |keyword, nets| {
        format!("{keyword} daddr {nets} goto refused")
    }));
    rules.extend(any_lan(lan, needs));
    rules.extend(needed(needs));
    if needs.resolvers.is_none() {
        rules.push(format!("{NAMES} return"));
    }
    rules.extend(devices::around(lan, "return"));
    rules.extend(failure::rule(lan, "return"));
    rules.push("goto refused".to_owned());
    let chains = [
        ("own".into(), "", rules),
        ("refused".into(), "", REFUSED.map(str::to_owned).to_vec()),
    ];
    Some((format!("meta mark != {OUTER_MARK:#010x} jump own"), chains))
}

/// In the guard, where packets of this machine leave: what is led into a tunnel, and what began in one, leaves by none of
/// the others, whatever this machine may send now.
pub(super) fn led_elsewhere(inputs: &GuardInputs) -> [String; 2] {
    let elsewhere = not_by(&inside(inputs));
    let rule = |which: &str| {
        format!("oifname != \"lo\" {which}mark {OWN_MARK:#010x} {elsewhere}counter drop")
    };
    [rule("meta "), rule("ct direction original ct ")]
}

/// In the plan: what is not needed takes the tunnel to where it leads. TCP is kept to what the tunnel carries, as the
/// socket believes that its segments leave by another interface.
pub(super) fn led(inputs: &Inputs) -> Vec<Chain> {
    let lan = inputs.lan.as_ref();
    let Some((lan, needs)) = lan.and_then(|lan| Some((lan, lan.own.as_ref()?))) else {
        return Vec::new();
    };
    let ways = own::ways(inputs);
    if ways.is_empty() {
        return Vec::new();
    }
    let tuns = ours(inputs);
    let mut marked = vec![
        format!("meta mark {OUTER_MARK:#010x} return"),
        to_ours(tuns.iter().map(|(name, _)| *name)),
    ];
    marked.extend(near(lan, needs));
    marked.extend(never_led(lan, needs));
    let (given, of_lan): (Vec<&OwnWay<'_>>, Vec<_>) = ways.iter().partition(|way| way.given);
    let beside = around(lan, needs);
    // A resolver of this machine that asks on asks through the tunnel while it carries: before, it finds the server.
    let asks_on = needs.resolvers.is_none() && !of_lan.is_empty();
    let is_called = of_lan.iter().any(|way| way.tunnel.reached.is_empty());
    // A connection is translated as it begins. One that began elsewhere would get no answer by the tunnel, and is refused: by
    // the guard, but for a resolver's questions, of which that does not know whether the tunnel carries.
    let began_elsewhere =
        format!("ct status & (confirmed | snat) == confirmed ct mark != {OWN_MARK:#010x}");
    let mut chains = Vec::new();
    if asks_on && !is_called {
        marked.push(format!("{began_elsewhere} goto own_elsewhere"));
        chains.extend(names_refused(&beside, &of_lan));
    } else {
        marked.push(format!("{began_elsewhere} return"));
    }
    marked.extend(given.into_iter().flat_map(into));
    marked.extend(beside);
    if asks_on && is_called {
        marked.push(format!("{NAMES} return"));
    }
    marked.extend(of_lan.into_iter().flat_map(into));
    let clamped = |direction: &str| ways.iter().map(|way| clamp(way, direction)).collect();
    chains.extend([
        (
            "own".into(),
            "type route hook output priority -150; policy accept;",
            marked,
        ),
        (
            "own_leaving".into(),
            "type filter hook postrouting priority -150; policy accept;",
            clamped("oifname"),
        ),
        (
            "own_coming".into(),
            "type filter hook input priority -150; policy accept;",
            clamped("iifname"),
        ),
    ]);
    chains
}

/// What asks for names by a connection that began elsewhere, and is led into these now.
fn names_refused(beside: &[String], ways: &[&OwnWay<'_>]) -> [Chain; 2] {
    let led = ways.iter().flat_map(|way| reached(way));
    let refused = led.map(|to| format!("{to} {NAMES} goto own_refused"));
    let rules = beside.iter().cloned().chain(refused);
    [
        ("own_elsewhere".into(), "", rules.collect()),
        (
            "own_refused".into(),
            "",
            REFUSED.map(str::to_owned).to_vec(),
        ),
    ]
}

fn into(way: &OwnWay<'_>) -> Vec<String> {
    let mark = format!("ct mark set {OWN_MARK:#010x} meta mark set {OWN_MARK:#010x}");
    let to = reached(way).into_iter();
    to.map(|to| format!("{to} {mark}")).collect()
}

/// What a packet to where it leads is told by.
fn reached(way: &OwnWay<'_>) -> Vec<String> {
    if way.reached.iter().any(|net| net.prefix_len() == 0) {
        return vec![format!("meta nfproto {}", super::protocol(way.family))];
    }
    per_family(&way.reached, |keyword, nets| {
        format!("{keyword} daddr {nets}")
    })
}

/// In the plan: rules that return for what does not take the LAN's tunnel.
fn around(lan: &Lan, needs: &OwnNeeds) -> Vec<String> {
    let mut rules = per_family(&devices::given(lan), |keyword, nets| {
        format!("{keyword} daddr {nets} return")
    });
    rules.extend(any_lan(lan, needs));
    rules.extend(needed(needs));
    rules.extend(devices::around(lan, "return"));
    rules
}

fn clamp(way: &OwnWay<'_>, direction: &str) -> String {
    let largest = way.tunnel.whole.min(way.tunnel.mtu);
    super::clamp(direction, &way.tunnel.interface, way.family, largest)
}

/// What is led into the tunnel gets the address that the other side knows; where one is lent, everything does already.
pub(super) fn translation(inputs: &Inputs) -> Vec<String> {
    let ways = own::ways(inputs);
    let lends_none = |way: &&OwnWay<'_>| way.tunnel.virtual_addresses.is_empty();
    let rule = |way: &OwnWay<'_>| {
        let address = way.address?;
        let keyword = keyword(IpNet::from(address));
        Some(format!(
            "meta mark {OWN_MARK:#010x} oifname \"{}\" {keyword} saddr != {address} snat {keyword} to {address}",
            way.tunnel.interface
        ))
    };
    ways.iter().filter(lends_none).filter_map(rule).collect()
}

/// What is found on other ways than its own goes nowhere, and not to whom the tunnel leads to: networks of this machine,
/// and what no router passes on.
fn never_led(lan: &Lan, needs: &OwnNeeds) -> Vec<String> {
    let beside = needs.beside.iter().map(|(_, net)| *net);
    let near: Vec<IpNet> = lan.networks.iter().copied().chain(beside).collect();
    let mut rules = per_family(&IpNet::aggregate(&near), |keyword, nets| {
        format!("{keyword} daddr {nets} return")
    });
    rules.extend([
        "ip daddr { 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255 } return".to_owned(),
        "ip6 daddr { fe80::/10, ff00::/8 } return".to_owned(),
    ]);
    rules
}

/// What stays in the machine, or is in a tunnel by its route.
fn to_ours<'i>(tuns: impl Iterator<Item = &'i InterfaceName>) -> String {
    let here = tuns.map(InterfaceName::as_str).chain(["lo"]);
    let here: BTreeSet<String> = here.map(|name| format!("\"{name}\"")).collect();
    let here: Vec<String> = here.into_iter().collect();
    format!("oifname {} return", set(&here))
}

/// Names, in clear and by TLS (RFC 7858).
const NAMES: &str = "meta l4proto { tcp, udp } th dport { 53, 853 }";

/// At once, so that a program sees it.
const REFUSED: [&str; 2] = [
    "meta l4proto tcp counter reject with tcp reset",
    "counter reject with icmpx admin-prohibited",
];

/// Rules that return for answers, for what is not outside, and for what a link needs.
fn near(lan: &Lan, needs: &OwnNeeds) -> Vec<String> {
    let mut rules = vec![
        // Who called is answered; an answer for a name that came late did not call.
        "ct direction reply meta l4proto != udp return".to_owned(),
        "ct direction reply udp dport != { 53, 853 } return".to_owned(),
        "ct direction reply udp sport { 53, 853 } return".to_owned(),
        // Also by connections that began before any were tracked: no program but a server has these ports (clients with a port
        // of the system's begin at 512, as rresvport(3) does).
        "tcp sport 1-511 tcp flags & (syn | ack) != syn return".to_owned(),
        // Who goes on with a connection that nobody knows any more is told so, else he does for minutes: by the kernel, which
        // acknowledges nothing (RFC 9293 §3.5.2). What a program resets does, and may have been in a tunnel.
        "ct state invalid tcp flags & (rst | ack) == rst return".to_owned(),
    ];
    // What may be said to whom about what passed is judged before.
    rules.extend(ERRORS.map(|kinds| format!("{kinds} return")));
    let interfaces = names(&lan.interfaces);
    rules.extend(per_family(&lan.networks, |keyword, nets| {
        format!("oifname {interfaces} {keyword} daddr {nets} return")
    }));
    rules.extend(needs.beside.iter().map(|(interface, net)| {
        let keyword = keyword(*net);
        format!("oifname \"{interface}\" {keyword} daddr {net} return")
    }));
    // What no router passes on, or none but the LAN's own (RFC 2365 §6.1, RFC 4291 §2.7).
    let beside = needs.beside.iter().map(|(interface, _)| interface);
    let near: BTreeSet<&InterfaceName> = lan.interfaces.iter().chain(beside).collect();
    let near = names(near);
    rules.extend([
        format!(
            "oifname {near} ip daddr {{ 169.254.0.0/16, 224.0.0.0/24, 239.255.0.0/16, 255.255.255.255 }} return"
        ),
        format!("oifname {near} ip6 daddr {{ fe80::/10, ff02::/16, ff05::/16 }} return"),
    ]);
    rules.extend(
        [
            "ip protocol igmp return",
            "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, \
             nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } return",
            "udp sport 68 udp dport 67 return",
            "udp sport 546 udp dport 547 return",
        ]
        .map(str::to_owned),
    );
    rules
}

/// Before the network is up any private network there may be the LAN's, but for what was given a tunnel: a disk in the LAN
/// may be waited for at boot.
fn any_lan(lan: &Lan, needs: &OwnNeeds) -> Vec<String> {
    if !needs.lan_unknown {
        return Vec::new();
    }
    let interfaces = names(&lan.interfaces);
    per_family(&PRIVATE, |keyword, nets| {
        format!("oifname {interfaces} {keyword} daddr {nets} return")
    })
}

/// Rules that return for what the machine needs from outside, besides the tunnels' own packets, which carry a mark.
fn needed(needs: &OwnNeeds) -> Vec<String> {
    // NTP, and how its keys are agreed on (RFC 8915 §6).
    let mut rules = ["udp dport 123 return", "tcp dport 4460 return"]
        .map(str::to_owned)
        .to_vec();
    if needs.resolvers.is_some() {
        let asked =
            RESOLVERS.map(|(_, keyword, _, set)| format!("{keyword} daddr @{set} {NAMES} return"));
        rules.extend(asked);
    }
    if let Some(user) = needs.user {
        rules.push(format!("meta skuid {user} return"));
    }
    rules
}

/// Sets of the machine's resolvers, which come and go with the network: family, keyword of its addresses, their type, set.
const RESOLVERS: [(Family, &str, &str, &str); 2] = [
    (Family::V4, "ip", "ipv4_addr", "resolvers4"),
    (Family::V6, "ip6", "ipv6_addr", "resolvers6"),
];

/// The sets, where they are asked.
pub(super) fn sets(lan: &Lan) -> String {
    let needs = lan.own.as_ref();
    let Some(resolvers) = needs.and_then(|needs| needs.resolvers.as_ref()) else {
        return String::new();
    };
    let mut text = String::new();
    for (family, _, kind, set) in RESOLVERS {
        let resolvers = resolvers.iter().filter(|r| Family::of(**r) == family);
        let resolvers: BTreeSet<&IpAddr> = resolvers.collect();
        text.push_str(&format!("\tset {set} {{\n\t\ttype {kind}\n"));
        if !resolvers.is_empty() {
            let resolvers: Vec<&IpAddr> = resolvers.into_iter().collect();
            text.push_str(&format!("\t\telements = {}\n", super::set(&resolvers)));
        }
        text.push_str("\t}\n");
    }
    text
}

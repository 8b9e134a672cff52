//! The two nftables tables as text for `nft -f -`.
//!
//! Each text names the table, deletes it and makes it anew: one transaction, in which the table
//! may or may not have existed. Written for nft 1.0.6 and later: no `destroy`, a newline after
//! each closing brace.

mod devices;
pub(crate) mod direct_names;
mod dns;
pub(crate) mod failure;
mod own;
mod own_traffic;

use std::borrow::Cow;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::guard::GuardInputs;
use crate::inputs::{Inputs, InterfaceName, Lan, Server, Tunnel};
use crate::mapping::Mapping;
use crate::mtu::tcp_mss;
use crate::plan::Family;
use crate::{GUARD_NFT_TABLE, PLAN_TABLE};

/// The plan's table.
pub(crate) fn plan(inputs: &Inputs) -> String {
    let mut forward = Vec::new();
    for (interface, largest) in ours(inputs) {
        for direction in ["iifname", "oifname"] {
            forward.extend(Family::BOTH.map(|family| clamp(direction, interface, family, largest)));
        }
    }
    forward.extend(forward_filter(inputs));
    let (refused, refusing) = dns::refused(inputs);
    forward.extend(refused);
    let nat = translation(inputs);
    let mut chains = vec![
        (
            "forward".into(),
            "type filter hook forward priority 0; policy accept;",
            forward,
        ),
        (
            "postrouting".into(),
            "type nat hook postrouting priority 100; policy accept;",
            nat,
        ),
    ];
    let untranslated = only_by_what_is_lent(inputs);
    if !untranslated.is_empty() {
        chains.push((
            "lent".into(),
            "type filter hook postrouting priority 101; policy accept;",
            untranslated,
        ));
    }
    let mapped = maps_inwards(inputs);
    if !mapped.is_empty() {
        chains.push((
            "mapped".into(),
            "type nat hook prerouting priority -100; policy accept;",
            mapped,
        ));
    }
    let strangers = not_from_outside(inputs);
    if !strangers.is_empty() {
        chains.push((
            "prerouting".into(),
            "type filter hook prerouting priority -300; policy accept;",
            strangers,
        ));
    }
    if let Some(lan) = &inputs.lan {
        let tunnels = ours(inputs);
        let tunnels: Vec<&InterfaceName> = tunnels.iter().map(|(name, _)| *name).collect();
        chains.extend(devices::marks(
            lan,
            &tunnels,
            "type filter hook prerouting priority -151; policy accept;",
        ));
    }
    chains.extend(own_traffic::led(inputs));
    chains.extend(refusing);
    chains.extend(dns::chains(inputs));
    let input = inputs.server.as_ref().map(host_filter).unwrap_or_default();
    if !input.is_empty() {
        chains.push((
            "input".into(),
            "type filter hook input priority 0; policy accept;",
            input,
        ));
    }
    let sets = inputs.lan.as_ref().map(sets);
    table(PLAN_TABLE, &sets.unwrap_or_default(), &chains)
}

/// Each family's names in nft: of its packets' fields, and of itself.
const FAMILIES: [(&str, &str, Family); 2] = [
    ("ip", protocol(Family::V4), Family::V4),
    ("ip6", protocol(Family::V6), Family::V6),
];

const fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Keeps TCP to what fits a tunnel. (`set` only ever lowers the value.)
fn clamp(direction: &str, interface: &InterfaceName, family: Family, largest: u16) -> String {
    format!(
        "{direction} \"{interface}\" meta nfproto {} tcp flags & (syn | rst) == syn tcp option maxseg size set {}",
        protocol(family),
        tcp_mss(largest, family == Family::V6)
    )
}

/// The addresses of a family that a tunnel's peer lent us.
fn lent(tunnel: &Tunnel, family: Family) -> Vec<IpAddr> {
    let lent = tunnel.virtual_addresses.iter().copied();
    lent.filter(|address| Family::of(*address) == family)
        .collect()
}

/// After the translation: into a tunnel whose peer lends addresses goes what has one of them, and nothing before there
/// is one. Anything else would have no answer, and worse: the kernel translates a connection as it began, so one that
/// begins without translation has none for as long as it goes on. What is dropped here has not begun.
fn only_by_what_is_lent(inputs: &Inputs) -> Vec<String> {
    let mut rules = Vec::new();
    // What calls a tunnel has to enter it; what began so is ended when an address is lent.
    let called = |tunnel: &&Tunnel| tunnel.on_demand && tunnel.virtual_addresses.is_empty();
    let clients = inputs.tunnels.iter().filter(|tunnel| tunnel.client);
    for tunnel in clients.filter(|tunnel| !called(tunnel)) {
        for (keyword, protocol, family) in FAMILIES {
            let lent = lent(tunnel, family);
            let others = match lent.is_empty() {
                true => format!("meta nfproto {protocol}"),
                false => format!("{keyword} saddr != {}", set(&lent)),
            };
            rules.push(format!(
                "oifname \"{}\" {others} counter drop",
                tunnel.interface
            ));
        }
    }
    rules
}

/// An address that a peer lent is reached through its tunnel alone. Linux would take packets for it from
/// any interface, and whether it answers tells a neighbour which connections there are in the tunnel
/// (CVE-2019-14899).
fn not_from_outside(inputs: &Inputs) -> Vec<String> {
    let mut rules = Vec::new();
    for tunnel in &inputs.tunnels {
        let lent: Vec<IpNet> = tunnel
            .virtual_addresses
            .iter()
            .copied()
            .map(IpNet::from)
            .collect();
        rules.extend(per_family(&lent, |keyword, addresses| {
            format!(
                "iifname != \"{}\" {keyword} daddr {addresses} fib saddr type != local counter drop",
                tunnel.interface
            )
        }));
    }
    rules
}

/// What the other side sends to the addresses that it knows ours by. What it is told of a flow (ICMP errors) is
/// translated with the flow, the packet in it as well.
fn maps_inwards(inputs: &Inputs) -> Vec<String> {
    let rule = |interface: &InterfaceName, map: &Mapping| {
        let keyword = keyword(map.own());
        format!(
            "iifname \"{interface}\" {keyword} daddr {} dnat {keyword} prefix to {}",
            map.shown(),
            map.own()
        )
    };
    maps(inputs, rule)
}

/// A rule for each network that a tunnel shows as another one.
fn maps(inputs: &Inputs, rule: impl Fn(&InterfaceName, &Mapping) -> String) -> Vec<String> {
    let of_tunnel = |tunnel: &'_ Tunnel| -> Vec<String> {
        let rule = |map| rule(&tunnel.interface, map);
        tunnel.maps.iter().map(rule).collect()
    };
    inputs.tunnels.iter().flat_map(of_tunnel).collect()
}

fn keyword(net: IpNet) -> &'static str {
    match Family::of_net(net) {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// What clients may reach of the server itself: answers, ping, errors, a resolver, and where speed is measured, which
/// nobody else reaches: Linux would take what is for an address of the pool from any interface.
fn host_filter(server: &Server) -> Vec<String> {
    let tun = &server.interface;
    let own: Vec<IpNet> = server.addresses.iter().copied().map(IpNet::from).collect();
    let mut rules = Vec::new();
    if let Some(port) = server.speedtest {
        rules.extend(per_family(&own, |keyword, addresses| {
            format!(
                "iifname != \"{tun}\" {keyword} daddr {addresses} tcp dport {port} counter drop"
            )
        }));
    }
    if server.host_access {
        return rules;
    }
    let speedtest = server.speedtest.iter().flat_map(|port| {
        per_family(&own, |keyword, addresses| {
            format!("{keyword} daddr {addresses} tcp dport {port} accept")
        })
    });
    let allowed = [
        "ct state established,related accept",
        "meta l4proto { icmp, ipv6-icmp } accept",
        "meta l4proto { tcp, udp } th dport 53 accept",
    ];
    let allowed = allowed.into_iter().map(str::to_owned);
    let filter = allowed.chain(speedtest).chain(["counter drop".to_owned()]);
    rules.extend(filter.map(|rule| format!("iifname \"{tun}\" {rule}")));
    rules
}

/// Connections that nobody inside asked for. The rest is accepted: what else may pass is the
/// operator's firewall's business.
fn forward_filter(inputs: &Inputs) -> Vec<String> {
    let mut rules = Vec::new();
    // Behind a translated tunnel the LAN is not addressable; whoever addresses it nevertheless
    // is the provider trying.
    let translated: Vec<_> = inputs
        .tunnels
        .iter()
        .filter(|t| t.client)
        .map(|t| &t.interface)
        .collect();
    if !translated.is_empty() {
        let names = names(translated);
        rules.push(format!("iifname {names} ct state new,invalid counter drop"));
    }
    // Connection tracking made nothing of it, so it was not translated, and would leave by the default route.
    rules.extend(maps(inputs, |interface, map| {
        let (keyword, shown) = (keyword(map.own()), map.shown());
        format!("iifname \"{interface}\" {keyword} daddr {shown} counter drop")
    }));
    if let Some(server) = &inputs.server {
        let tun = &server.interface;
        if !server.client_to_client {
            rules.push(format!("iifname \"{tun}\" oifname \"{tun}\" counter drop"));
        }
        // RFC 3927 §2.7: these are not forwarded, and Linux would. Behind them rented machines find
        // their provider's metadata, credentials included.
        rules.push(format!(
            "iifname \"{tun}\" ip daddr {{ 169.254.0.0/16, 168.63.129.16, 100.100.100.200 }} counter drop"
        ));
        rules.push(format!(
            "iifname \"{tun}\" ip6 daddr fd00:ec2::254 counter drop"
        ));
        if server.block_private {
            rules.extend(not_to_the_provider(inputs, server));
        }
        if let (false, Some(uplink)) = (server.masquerade.is_empty(), &inputs.uplink) {
            rules.push(format!(
                "iifname \"{uplink}\" oifname \"{tun}\" ct state new,invalid counter drop"
            ));
        }
    }
    rules
}

/// Networks that no provider has a way to, but that its own machines may use (RFC 6890): RFC 1918, RFC
/// 6598 and what no host on the internet can have. Those for documentation are left to the provider.
pub(crate) const NOT_PUBLIC: [&str; 13] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "240.0.0.0/4",
    "::/80",
    "fc00::/7",
    "fec0::/10",
];

/// RPC, NetBIOS and SMB: they tell names and password hashes to whoever is asked, and on the internet
/// nobody means it.
const FILE_SHARING: &str = "meta l4proto { tcp, udp } th dport { 135-139, 445 }";

/// What a client sends to a private network that is not here would reach the provider's own machines,
/// or whoever else rents there. A server at home has its LAN at the uplink, which stays within reach.
fn not_to_the_provider(inputs: &Inputs, server: &Server) -> Vec<String> {
    // Without a default route nothing leads to a provider.
    let Some(uplink) = &inputs.uplink else {
        return Vec::new();
    };
    let here: Vec<IpNet> = inputs
        .at_hand()
        .chain(&server.inside)
        .map(IpNet::trunc)
        .collect();
    // A set of prefixes must not hold one inside another.
    let here = IpNet::aggregate(&here);
    let mut rules = Vec::new();
    for (keyword, protocol, family) in FAMILIES {
        let here: Vec<IpNet> = (here.iter().copied())
            .filter(|net| Family::of_net(*net) == family)
            .collect();
        let elsewhere = match here.is_empty() {
            true => format!("meta nfproto {protocol}"),
            false => format!("{keyword} daddr != {}", set(&here)),
        };
        let private: Vec<&str> = (NOT_PUBLIC.into_iter())
            .filter(|net| net.contains(':') == (family == Family::V6))
            .collect();
        let private = format!("{keyword} daddr {}", set(&private));
        for what in [private.as_str(), FILE_SHARING] {
            rules.push(format!(
                "iifname \"{}\" oifname \"{uplink}\" {elsewhere} {what} counter drop",
                server.interface
            ));
        }
    }
    rules
}

fn translation(inputs: &Inputs) -> Vec<String> {
    let mut rules = Vec::new();
    for tunnel in &inputs.tunnels {
        for (keyword, _, family) in FAMILIES {
            let lent = lent(tunnel, family);
            if let Some(address) = lent.first() {
                rules.push(format!(
                    "oifname \"{}\" {keyword} saddr != {} snat {keyword} to {address}",
                    tunnel.interface,
                    set(&lent)
                ));
            }
        }
    }
    rules.extend(own_traffic::translation(inputs));
    rules.extend(maps(inputs, |interface, map| {
        let keyword = keyword(map.own());
        format!(
            "oifname \"{interface}\" {keyword} saddr {} snat {keyword} prefix to {}",
            map.own(),
            map.shown()
        )
    }));
    let outside = match &inputs.uplink {
        Some(uplink) => format!("oifname \"{uplink}\""),
        None => format!(
            "oifname != {}",
            names(ours(inputs).into_iter().map(|(name, _)| name))
        ),
    };
    if let Some(server) = &inputs.server {
        let translated = |pool: &&IpNet| server.masquerade.contains(&Family::of_net(**pool));
        let pools: Vec<IpNet> = server.pools.iter().filter(translated).copied().collect();
        rules.extend(per_family(&pools, |keyword, nets| {
            format!("{outside} {keyword} saddr {nets} masquerade")
        }));
    }
    if let Some(lan) = &inputs.lan {
        let tunnels = ours(inputs);
        let tunnels: Vec<&InterfaceName> = tunnels.iter().map(|(name, _)| *name).collect();
        rules.extend(devices::translation(lan, &tunnels));
    }
    rules
}

/// The guard's table.
pub(crate) fn guard(inputs: &GuardInputs) -> String {
    let lan = names(&inputs.lan.interfaces);
    let tunnels: Vec<&InterfaceName> = inputs.tunnels.iter().collect();
    let inside = inside(inputs);
    let mut chains = vec![(
        "forward".into(),
        "type filter hook forward priority -10; policy accept;",
        std::iter::once(format!("iifname {lan} jump from_lan"))
            .chain(answers(inputs))
            .collect(),
    )];
    chains.extend(devices::filter(inputs, &tunnels));
    let (own_jump, own_chains) = own_traffic::refused(inputs).unzip();
    chains.extend(own_chains.into_iter().flatten());
    chains.extend([
        (
            "output".into(),
            "type filter hook output priority -10; policy accept;",
            {
                // Where a foreign `ip rule flush` took the other layer away, the kernel finds that the
                // device's router is nearer to it than we are, and says so before it asks this filter.
                let redirects = ["icmp type redirect", "icmpv6 type nd-redirect"];
                let mut rules = redirects
                    .map(|kind| format!("oifname {lan} {kind} drop"))
                    .to_vec();
                rules.extend(ERRORS.map(|kinds| format!("{kinds} jump errors")));
                rules.extend(own_jump);
                rules
            },
        ),
        ("errors".into(), "", own::errors(inputs)),
        // Where all has its last address, and its last interface: what goes direct by a binding of a tunnel's; of what the
        // machine itself sends, what belongs into a tunnel; and errors, as in `errors`, about flows that a tunnel had
        // translated, wherever in the LAN they begin: only after the translation do they show the tunnel's address.
        // Errors of others, which come in somewhere, pass by.
        (
            "leaving".into(),
            "type filter hook postrouting priority 110; policy accept;",
            devices::begun_otherwise(&inputs.lan, &inside)
                .into_iter()
                .chain(["meta iif != 0 return".to_owned()])
                .chain(own_traffic::led_elsewhere(inputs))
                .chain(ways_home(inputs))
                .chain(std::iter::once(
                    "ct state related ct status snat meta l4proto { icmp, ipv6-icmp } fib saddr . oif type != local counter drop"
                        .to_owned(),
                ))
                .collect(),
        ),
    ]);
    // After the plan's, which may be of another day: the last mark counts.
    chains.extend(devices::marks(
        &inputs.lan,
        &tunnels,
        "type filter hook prerouting priority -150; policy accept;",
    ));
    if let Some(translation) = devices::translation(&inputs.lan, &inside) {
        chains.push((
            "translated".into(),
            "type nat hook postrouting priority 100; policy accept;",
            vec![translation],
        ));
    }
    let sources = own::sources(inputs);
    if !sources.is_empty() {
        chains.push((
            "sources".into(),
            "type filter hook prerouting priority -300; policy accept;",
            sources,
        ));
    }
    sign(&mut chains);
    table(GUARD_NFT_TABLE, &sets(&inputs.lan), &chains)
}

/// What is looked up at run time, and is no part of what a table is signed by.
fn sets(lan: &Lan) -> String {
    [
        direct_names::sets(lan),
        failure::set(lan),
        own_traffic::sets(lan),
    ]
    .concat()
}

/// Says in a comment what the table was made from: nft lists rules in other words, and one of another day may have no
/// fewer of them.
fn sign(chains: &mut [Chain]) {
    let mut hasher = DefaultHasher::new();
    chains.hash(&mut hasher);
    if let Some(rule) = chains
        .first_mut()
        .and_then(|(_, _, rules)| rules.first_mut())
    {
        rule.push_str(&format!(" comment \"{:016x}\"", hasher.finish()));
    }
}

/// The ICMP errors that quote a packet.
const ERRORS: [&str; 2] = [
    "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
];

/// What came through a tunnel for the LAN goes to the LAN. Whoever gives this machine its addresses
/// (DHCP option 121, router advertisements) may give it a route to half of the LAN, too, which is
/// nearer than the LAN's own.
fn answers(inputs: &GuardInputs) -> Vec<String> {
    let inside = inside(inputs);
    if inside.is_empty() {
        return Vec::new();
    }
    let allowed = names(inputs.lan.interfaces.iter().chain(inside.iter().copied()));
    let tunnels = names(inside);
    per_family(&inputs.lan.networks, |keyword, nets| {
        format!("iifname {tunnels} {keyword} daddr {nets} oifname != {allowed} counter drop")
    })
}

/// Where an error about a device's packet may go: to the machine itself, to the LAN, into a tunnel.
fn ways_home(inputs: &GuardInputs) -> Vec<String> {
    let lan = names(&inputs.lan.interfaces);
    let mut rules = vec!["oifname \"lo\" return".to_owned()];
    rules.extend(per_family(&inputs.lan.networks, |keyword, nets| {
        format!("oifname {lan} {keyword} daddr {nets} return")
    }));
    let inside = inside(inputs);
    if !inside.is_empty() {
        rules.push(format!("oifname {} return", names(inside)));
    }
    rules
}

/// The TUNs that something of the LAN may leave by.
fn inside(inputs: &GuardInputs) -> Vec<&InterfaceName> {
    let others = inputs.lan.through.iter().map(|through| &through.interface);
    inputs.tunnels.iter().chain(others).collect()
}

/// Our TUNs with the largest packet that travels through each in one piece.
fn ours(inputs: &Inputs) -> Vec<(&InterfaceName, u16)> {
    let tunnels = inputs
        .tunnels
        .iter()
        .map(|t| (&t.interface, t.whole.min(t.mtu)));
    tunnels
        .chain(inputs.server.iter().map(|s| (&s.interface, s.mtu)))
        .collect()
}

/// One rule for each family that has a network.
fn per_family(nets: &[IpNet], rule: impl Fn(&str, String) -> String) -> Vec<String> {
    FAMILIES
        .into_iter()
        .filter_map(|(keyword, _, family)| {
            let nets = of_family(nets, family);
            (!nets.is_empty()).then(|| rule(keyword, set(&nets)))
        })
        .collect()
}

fn of_family(nets: &[IpNet], family: Family) -> Vec<IpNet> {
    let nets = nets.iter().filter(|net| Family::of_net(**net) == family);
    nets.map(IpNet::trunc).collect()
}

fn set<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("{{ {} }}", items.join(", "))
}

fn names<'a>(names: impl IntoIterator<Item = &'a InterfaceName>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|n| format!("\"{n}\"")).collect();
    set(&quoted)
}

/// What a rule begins with that is for all but these interfaces.
fn not_by(tunnels: &[&InterfaceName]) -> String {
    match tunnels {
        [] => String::new(),
        tunnels => format!("oifname != {} ", names(tunnels.iter().copied())),
    }
}

/// Name, hook (or nothing) and rules.
type Chain = (Cow<'static, str>, &'static str, Vec<String>);

fn table(name: &str, sets: &str, chains: &[Chain]) -> String {
    let mut text =
        format!("table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{sets}");
    // A chain is declared before it is jumped to, whatever the order of reading.
    for (chain, hook, rules) in chains {
        text.push_str(&format!("\tchain {chain} {{\n"));
        for line in std::iter::once(*hook).chain(rules.iter().map(String::as_str)) {
            if !line.is_empty() {
                text.push_str(&format!("\t\t{line}\n"));
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

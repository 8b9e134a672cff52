//! The guard: packets of tunnelled devices go into a tunnel or nowhere.
//!
//! Two layers, each enough by itself. Routing: what comes in from the LAN is looked up in a table
//! that holds tunnel routes and ends in `unreachable default`. Filter: in the forward hook, what
//! comes in from the LAN is dropped unless it leaves by a tunnel or stays in the LAN, and devices are
//! not told of a router nearer by. A foreign `nft flush ruleset` leaves the first, a foreign
//! `ip rule flush` the second.
//!
//! Devices that go direct, and those that are blocked, are known to the filter by themselves, and to routing by
//! a mark that the filter's table sets before ([`crate::Devices`]). So the first layer alone lets nobody out
//! in clear and nobody out who is blocked, and the second alone does both.
//!
//! Devices and destinations that were given another tunnel go into that one or nowhere: each such tunnel has a mark and
//! a table that ends in `unreachable default`, the guard's table ends what belongs to a destination in `unreachable`,
//! and the filter asks by which TUN each leaves.
//!
//! Networks behind a tunnel between sites are reached through that tunnel or not at all, by devices that go direct,
//! too: while the program runs its plan's routes lead there, and the filter lets nothing past them at any time. Tunnels
//! that are the box's own and no way for the LAN are closed to all of its devices.
//!
//! What the box itself says about such packets is held to the same: an ICMP error quotes the packet it
//! is about, so it goes to the LAN or into a tunnel. Its other answers go where a device's packet says it comes from: on
//! two legs that has to be the LAN. Apart from those the first layer concerns forwarded packets alone: SSH, DNS or ping to
//! the box itself find its addresses in the local table, which is asked before any rule of ours, and its own packets come
//! in nowhere. What it sends outside is held by the filter, where it may not send what it likes ([`crate::OwnNeeds`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::inputs::{InterfaceName, Lan};
use crate::plan::{Family, Route, RouteKind, Rule, RuleAction};
use crate::{DIRECT_MARK, GUARD_TABLE, MAIN_TABLE, SITES_TABLE, TUNNELLED_MARK, nft};

/// What the guard depends on: known before any tunnel is up, from configuration alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardInputs {
    /// The LAN.
    pub lan: Lan,
    /// TUNs that tunnelled devices may leave by, whether they exist yet or not.
    pub tunnels: Vec<InterfaceName>,
    /// Those of them that lead to other sites, and to the server's clients: devices that go through another tunnel may
    /// leave by these as well.
    pub inside: Vec<InterfaceName>,
    /// TUNs of this machine that no device may leave by.
    pub closed: Vec<InterfaceName>,
    /// Networks that are reached by one of `tunnels` or not at all: those behind a tunnel between sites, and the
    /// server's pools.
    pub sites: Vec<IpNet>,
    /// Networks that the configuration calls local. What lies in one of `sites` and is narrower is no site's.
    pub local: Vec<IpNet>,
    /// Interface of the default route: one of the LAN's on one leg, another on two. `None`: that is not known (yet).
    pub uplink: Option<InterfaceName>,
}

/// What stays in place until `cygnet gateway off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardPlan {
    /// `unreachable default` of both families, with [`crate::GUARD_PROTOCOL`].
    pub routes: Vec<Route>,
    /// Rules within [`crate::GUARD_PRIORITIES`].
    pub rules: Vec<Rule>,
    /// Text for `nft -f -` that replaces `table inet cygnet_guard` in one transaction.
    pub nft: String,
    /// What is in its sets of addresses that go direct by their names, with how long it is held; `None`: that is not
    /// known, and what is in them is not judged.
    pub direct_addresses: Option<BTreeMap<IpAddr, Duration>>,
}

impl GuardPlan {
    /// Makes the guard for a LAN.
    #[must_use]
    pub fn new(inputs: &GuardInputs) -> Self {
        let lan = &inputs.lan;
        let ends = Family::BOTH.map(Family::default_route).into_iter();
        // What was given a tunnel does not go on in the gateway's when that one is down.
        let ends: Vec<IpNet> = ends.chain(lan.given().map(|(net, _)| net)).collect();
        let mut routes: Vec<Route> = (lan.tables())
            .flat_map(|table| {
                ends.iter().map(move |net| Route {
                    table,
                    destination: *net,
                    kind: RouteKind::Unreachable,
                    // The last resort: any route of the plan has a lower metric.
                    metric: u32::MAX,
                    preferred_source: None,
                })
            })
            .collect();
        routes.sort();
        routes.dedup();
        let mut rules: Vec<Rule> = inputs
            .lan
            .interfaces
            .iter()
            .flat_map(|interface| lan_rules(&inputs.lan, interface, 100))
            .collect();
        rules.sort();
        rules.dedup();
        Self {
            routes,
            rules,
            nft: nft::guard(inputs),
            direct_addresses: Some(match &inputs.lan.direct_names {
                names if names.listed => names.addresses.clone(),
                _ => BTreeMap::new(),
            }),
        }
    }

    /// For whoever does not know which addresses go direct by their names: what is in those sets is not judged.
    #[must_use]
    pub fn with_any_addresses(self) -> Self {
        Self {
            direct_addresses: None,
            ..self
        }
    }
}

/// How devices at `interface` are routed, by four priorities from `first` on: the LAN itself, what goes
/// direct or through a tunnel of its own, the rest by [`GUARD_TABLE`], and what nobody let in. Who is who is told by
/// marks.
pub(crate) fn lan_rules(lan: &Lan, interface: &InterfaceName, first: u32) -> Vec<Rule> {
    let rule = |place, family, action| Rule {
        iif: Some(interface.clone()),
        ..Rule::new(first + place, family, action)
    };
    let lookup = RuleAction::Lookup;
    let mut rules = Vec::new();
    for net in &lan.networks {
        // A cable that is out takes the LAN's own route away; the default route must not step in.
        rules.push(Rule {
            to: Some(net.trunc()),
            suppress_prefix_length: Some(0),
            ..rule(0, Family::of_net(*net), lookup(MAIN_TABLE))
        });
    }
    for family in Family::BOTH {
        if lan.lets_out() {
            // A site's tunnel owns its networks for everybody. The other tunnels are the box's own.
            rules.push(Rule {
                fwmark: Some(DIRECT_MARK),
                suppress_prefix_length: Some(0),
                ..rule(0, family, lookup(SITES_TABLE))
            });
            rules.push(Rule {
                fwmark: Some(DIRECT_MARK),
                ..rule(1, family, lookup(MAIN_TABLE))
            });
        }
        rules.extend(lan.others().map(|(mark, table, _)| Rule {
            fwmark: Some(mark),
            ..rule(1, family, lookup(table))
        }));
        rules.push(Rule {
            fwmark: lan.needs_marks().then_some(TUNNELLED_MARK),
            ..rule(2, family, lookup(GUARD_TABLE))
        });
        if lan.needs_marks() {
            rules.push(rule(3, family, RuleAction::Unreachable));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::devices::{DevicePolicy, Devices};

    fn guard_of(devices: Devices, direct_networks: &[&str]) -> GuardPlan {
        GuardPlan::new(&inputs_of(devices, direct_networks))
    }

    fn inputs_of(devices: Devices, direct_networks: &[&str]) -> GuardInputs {
        GuardInputs {
            lan: Lan {
                interfaces: vec!["eth0".parse().unwrap()],
                networks: vec![
                    "192.168.1.5/24".parse().unwrap(),
                    "fd00:1::/64".parse().unwrap(),
                ],
                devices,
                direct_networks: direct_networks.iter().map(|n| n.parse().unwrap()).collect(),
                ..Lan::default()
            },
            tunnels: vec!["cyg0".parse().unwrap()],
            inside: Vec::new(),
            closed: Vec::new(),
            sites: Vec::new(),
            local: Vec::new(),
            uplink: Some("eth0".parse().unwrap()),
        }
    }

    /// The filter's text without the comment that signs it.
    fn unsigned(plan: &GuardPlan) -> String {
        let (before, signed) = plan.nft.split_once(" comment \"").unwrap();
        let (_, after) = signed.split_once('"').unwrap();
        format!("{before}{after}")
    }

    fn devices(default: DevicePolicy, named: &[(&str, DevicePolicy)]) -> Devices {
        let named = named
            .iter()
            .map(|(d, policy)| (d.parse().unwrap(), *policy));
        Devices {
            default,
            named: named.collect(),
            ..Devices::default()
        }
    }

    /// The rules of IPv4, without those to the LAN.
    fn rules(plan: &GuardPlan) -> Vec<String> {
        let of_devices = |r: &&Rule| r.family == Family::V4 && r.to.is_none();
        let shown = plan.rules.iter().filter(of_devices).map(|r| {
            assert_eq!(r.iif.as_ref().map(InterfaceName::as_str), Some("eth0"));
            assert!(r.from.is_none());
            let mark = match r.fwmark {
                None => "all",
                Some(DIRECT_MARK) => "direct",
                Some(TUNNELLED_MARK) => "tunnelled",
                Some(_) => "other",
            };
            let longer = r.suppress_prefix_length.map_or("", |_| " by no default");
            format!("{} {mark} {:?}{longer}", r.priority, r.action)
        });
        shown.collect()
    }

    #[test]
    fn both_families_end_unreachable() {
        let plan = guard_of(Devices::default(), &[]);
        let ends: Vec<_> = plan
            .routes
            .iter()
            .map(|r| (r.destination.to_string(), r.kind.clone(), r.table))
            .collect();
        assert_eq!(
            ends,
            [
                ("0.0.0.0/0".to_owned(), RouteKind::Unreachable, GUARD_TABLE),
                ("::/0".to_owned(), RouteKind::Unreachable, GUARD_TABLE),
            ]
        );
        let catch_all: Vec<_> = plan.rules.iter().filter(|r| r.priority == 102).collect();
        assert_eq!(catch_all.len(), 2);
        assert!(catch_all.iter().all(|r| r.from.is_none() && r.to.is_none()));
        let lan: Vec<_> = plan.rules.iter().filter(|r| r.priority == 100).collect();
        assert_eq!(lan.len(), 2);
        assert!(lan.iter().all(|r| r.suppress_prefix_length == Some(0)));
        assert_eq!(lan[0].to.unwrap().to_string(), "192.168.1.0/24");
    }

    #[test]
    fn without_marks_nothing_goes_direct_and_where_anybody_is_blocked_nothing_leaves() {
        use DevicePolicy::{Blocked, Direct, Tunnelled};
        let site = "100 direct Lookup(51455) by no default";
        let out = "101 direct Lookup(254)";
        let tunnel = "102 all Lookup(51450)";
        let marked = "102 tunnelled Lookup(51450)";
        let end = "103 all Unreachable";
        let mac = "02:00:00:00:00:01";
        for (default, named, around, expected) in [
            (Tunnelled, vec![], vec![], vec![tunnel]),
            (Tunnelled, vec![(mac, Tunnelled)], vec![], vec![tunnel]),
            (
                Tunnelled,
                vec![(mac, Direct)],
                vec![],
                vec![site, out, tunnel],
            ),
            (
                Tunnelled,
                vec![],
                vec!["10.0.0.0/8"],
                vec![site, out, tunnel],
            ),
            (Direct, vec![], vec![], vec![site, out, tunnel]),
            (Tunnelled, vec![(mac, Blocked)], vec![], vec![marked, end]),
            (
                Blocked,
                vec![(mac, Direct)],
                vec![],
                vec![site, out, marked, end],
            ),
        ] {
            let plan = guard_of(devices(default, &named), &around);
            assert_eq!(rules(&plan), expected, "{default:?} {named:?} {around:?}");
        }
    }

    #[test]
    fn the_filter_layer_for_one_leg() {
        assert_eq!(
            unsigned(&guard_of(Devices::default(), &[])),
            "table inet cygnet_guard\n\
             delete table inet cygnet_guard\n\
             table inet cygnet_guard {\n\
             \tchain forward {\n\
             \t\ttype filter hook forward priority -10; policy accept;\n\
             \t\tiifname { \"eth0\" } jump from_lan\n\
             \t\tiifname { \"cyg0\" } ip daddr { 192.168.1.0/24 } oifname != { \"eth0\", \"cyg0\" } counter drop\n\
             \t\tiifname { \"cyg0\" } ip6 daddr { fd00:1::/64 } oifname != { \"eth0\", \"cyg0\" } counter drop\n\
             \t}\n\
             \tchain from_lan {\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\tgoto tunnelled\n\
             \t}\n\
             \tchain tunnelled {\n\
             \t\toifname { \"cyg0\" } return\n\
             \t\tcounter drop\n\
             \t}\n\
             \tchain output {\n\
             \t\ttype filter hook output priority -10; policy accept;\n\
             \t\toifname { \"eth0\" } icmp type redirect drop\n\
             \t\toifname { \"eth0\" } icmpv6 type nd-redirect drop\n\
             \t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } jump errors\n\
             \t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } jump errors\n\
             \t}\n\
             \tchain errors {\n\
             \t\toifname \"lo\" return\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\toifname { \"cyg0\" } return\n\
             \t\tct original ip saddr { 192.168.1.0/24 } counter drop\n\
             \t\tct original ip6 saddr { fd00:1::/64 } counter drop\n\
             \t\toifname { \"eth0\" } ct original ip daddr { 192.168.1.0/24 } counter drop\n\
             \t\toifname { \"eth0\" } ct original ip6 daddr { fd00:1::/64 } counter drop\n\
             \t\toifname { \"eth0\" } counter drop\n\
             \t}\n\
             \tchain leaving {\n\
             \t\ttype filter hook postrouting priority 110; policy accept;\n\
             \t\tmeta iif != 0 return\n\
             \t\toifname != \"lo\" meta mark 0x0063796f oifname != { \"cyg0\" } counter drop\n\
             \t\toifname != \"lo\" ct direction original ct mark 0x0063796f oifname != { \"cyg0\" } counter drop\n\
             \t\toifname \"lo\" return\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\toifname { \"cyg0\" } return\n\
             \t\tct state related ct status snat meta l4proto { icmp, ipv6-icmp } fib saddr . oif type != local counter drop\n\
             \t}\n\
             }\n"
        );
    }

    #[test]
    fn the_filter_tells_devices_by_mac_then_by_the_narrowest_network() {
        use DevicePolicy::{Blocked, Direct, Tunnelled};
        let named = [
            ("02:00:00:00:00:01", Direct),
            ("02:00:00:00:00:02", Blocked),
            ("02:00:00:00:00:03", Blocked),
            ("192.168.1.9", Tunnelled),
            ("192.168.1.64/26", Blocked),
            ("fd00:1::9", Direct),
        ];
        let around = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"];
        let nft = guard_of(devices(Tunnelled, &named), &around).nft;
        let sorted = |direct: &str, blocked: &str, tunnelled: &str| {
            format!(
                "\t\tether saddr {{ 02:00:00:00:00:01 }} {direct}\n\
                 \t\tether saddr {{ 02:00:00:00:00:02, 02:00:00:00:00:03 }} {blocked}\n\
                 \t\tip6 saddr {{ fd00:1::9/128 }} {direct}\n\
                 \t\tip saddr {{ 192.168.1.9/32 }} {tunnelled}\n\
                 \t\tip saddr {{ 192.168.1.64/26 }} {blocked}\n\
                 \t\t{tunnelled}\n\
                 \t}}\n"
            )
        };
        let filter = format!(
            "\tchain from_lan {{\n\
             \t\toifname {{ \"eth0\" }} ip daddr {{ 192.168.1.0/24 }} return\n\
             \t\toifname {{ \"eth0\" }} ip6 daddr {{ fd00:1::/64 }} return\n\
             {}\
             \tchain tunnelled {{\n\
             \t\toifname {{ \"cyg0\" }} return\n\
             \t\tip daddr {{ 10.0.0.0/8 }} return\n\
             \t\tip6 daddr {{ 2001:db8::/32 }} return\n\
             \t\tcounter drop\n\
             \t}}\n",
            sorted("return", "counter drop", "goto tunnelled")
        );
        let marks = format!(
            "\tchain incoming {{\n\
             \t\ttype filter hook prerouting priority -150; policy accept;\n\
             \t\tiifname {{ \"eth0\" }} jump mark_devices\n\
             \t\tiifname {{ \"cyg0\" }} meta mark set 0x00637974\n\
             \t\tfib daddr type local ct direction reply ct mark 0x00637964 meta mark set 0x00637964\n\
             \t}}\n\
             \tchain mark_devices {{\n\
             \t\tmeta mark set 0\n\
             \t\tip daddr {{ 192.168.1.0/24 }} return\n\
             \t\tip6 daddr {{ fd00:1::/64 }} return\n\
             {}\
             \tchain mark_tunnelled {{\n\
             \t\tip daddr {{ 10.0.0.0/8 }} goto mark_direct\n\
             \t\tip6 daddr {{ 2001:db8::/32 }} goto mark_direct\n\
             \t\tct mark 0x00637964 ct mark set 0x00000000\n\
             \t\tmeta mark set 0x00637974\n\
             \t}}\n\
             \tchain mark_direct {{\n\
             \t\tct status & confirmed == 0 ct mark set 0x00637964\n\
             \t\tmeta mark set 0x00637964\n\
             \t}}\n\
             \tchain translated {{\n\
             \t\ttype nat hook postrouting priority 100; policy accept;\n\
             \t\tmeta mark 0x00637964 oifname != {{ \"cyg0\" }} masquerade\n\
             \t}}\n",
            sorted("goto mark_direct", "return", "goto mark_tunnelled")
        );
        assert!(nft.contains(&filter), "{filter}\nnot in\n{nft}");
        assert!(nft.contains(&marks), "{marks}\nnot in\n{nft}");
    }

    #[test]
    fn names_that_go_direct_are_asked_of_sets_in_each_layer_after_the_blocked_are_gone() {
        let blocked = [("02:00:00:00:00:02", DevicePolicy::Blocked)];
        let mut inputs = inputs_of(devices(DevicePolicy::Tunnelled, &blocked), &[]);
        inputs.lan.direct_names.addresses = [
            (
                "198.51.100.7".parse().unwrap(),
                Duration::from_millis(90_900),
            ),
            ("198.51.100.8".parse().unwrap(), Duration::from_millis(900)),
            ("2001:db8::7".parse().unwrap(), Duration::from_secs(3600)),
        ]
        .into();
        let not_listed = GuardPlan::new(&inputs);
        assert!(!not_listed.nft.contains("direct4"), "{}", not_listed.nft);
        assert_eq!(not_listed.direct_addresses, Some(BTreeMap::new()));
        inputs.lan.direct_names.listed = true;
        let plan = GuardPlan::new(&inputs);
        for part in [
            "\tset direct4 {\n\t\ttype ipv4_addr\n\t\tsize 16384\n\t\tflags dynamic, timeout\n\t\ttimeout 3600s\n\
             \t\telements = { 198.51.100.7 expires 90s }\n\t}\n",
            "\t\telements = { 2001:db8::7 expires 3600s }\n",
            "\tchain tunnelled {\n\
             \t\toifname { \"cyg0\" } return\n\
             \t\tip daddr @direct4 return\n\
             \t\tip6 daddr @direct6 return\n",
            "\tchain mark_tunnelled {\n\
             \t\tct status & confirmed == 0 ip daddr @direct4 goto mark_direct\n\
             \t\tct mark 0x00637964 ip daddr @direct4 update @direct4 { ip daddr } goto mark_direct\n\
             \t\tct status & confirmed == 0 ip6 daddr @direct6 goto mark_direct\n",
            "\t\tether saddr { 02:00:00:00:00:02 } return\n\t\tgoto mark_tunnelled\n",
            "\t\tether saddr { 02:00:00:00:00:02 } counter drop\n\t\tgoto tunnelled\n",
        ] {
            assert!(plan.nft.contains(part), "{part}\nnot in\n{}", plan.nft);
        }
        assert!(rules(&plan).contains(&"101 direct Lookup(254)".to_owned()));
        // What is in the sets is no part of what the guard is known by.
        let signature = |plan: &GuardPlan| {
            plan.nft
                .split('"')
                .find(|p| p.len() == 16)
                .map(str::to_owned)
        };
        let before = signature(&plan);
        inputs.lan.direct_names.addresses.clear();
        let empty = GuardPlan::new(&inputs);
        assert_eq!(signature(&empty), before);
        assert!(!empty.nft.contains("elements"));
    }

    #[test]
    fn naming_ipv4_devices_guards_all_of_ipv6() {
        use DevicePolicy::{Direct, Tunnelled};
        let nft = guard_of(devices(Direct, &[("192.168.1.77", Tunnelled)]), &[]).nft;
        for rules in [
            "\t\tip saddr { 192.168.1.77/32 } goto tunnelled\n\
             \t\tmeta nfproto ipv4 return\n\
             \t\tmeta nfproto ipv6 goto tunnelled\n",
            "\t\tip saddr { 192.168.1.77/32 } goto mark_tunnelled\n\
             \t\tmeta nfproto ipv4 goto mark_direct\n\
             \t\tmeta nfproto ipv6 goto mark_tunnelled\n",
        ] {
            assert!(nft.contains(rules), "{rules}\nnot in\n{nft}");
        }
    }
    #[test]
    fn the_boxs_own_tunnels_are_closed_and_a_sites_networks_are_reached_by_a_tunnel_alone() {
        let mut inputs = inputs_of(devices(DevicePolicy::Direct, &[]), &[]);
        inputs.closed = vec!["cyg-work".parse().unwrap()];
        inputs.sites = [
            "10.0.0.0/8",
            "10.1.2.0/24",
            "10.1.0.0/16",
            "fd02::/48",
            "0.0.0.0/0",
        ]
        .map(|net| net.parse().unwrap())
        .to_vec();
        // One is what a site has, two are elsewhere.
        inputs.local = [
            "10.1.0.0/16",
            "10.1.2.128/25",
            "10.7.0.0/16",
            "192.168.1.0/24",
            "fd03::/48",
        ]
        .map(|net| net.parse().unwrap())
        .to_vec();
        let nft = GuardPlan::new(&inputs).nft;
        let filter = "\tchain from_lan {\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\toifname { \"cyg-work\" } counter drop\n\
             \t\tjump sites\n\
             \t\treturn\n";
        let sites = "\tchain sites {\n\
             \t\tip6 daddr { fd02::/48 } oifname != { \"cyg0\" } counter drop\n\
             \t\tip daddr { 10.1.2.128/25 } return\n\
             \t\tip daddr { 10.1.2.0/24 } oifname != { \"cyg0\" } counter drop\n\
             \t\tip daddr { 10.1.0.0/16 } oifname != { \"cyg0\" } counter drop\n\
             \t\tip daddr { 10.1.0.0/16, 10.7.0.0/16 } return\n\
             \t\tip daddr { 10.0.0.0/8 } oifname != { \"cyg0\" } counter drop\n\
             \t}\n";
        for part in [filter, sites] {
            assert!(nft.contains(part), "{part}\nnot in\n{nft}");
        }
    }

    #[test]
    fn a_connection_that_began_in_the_tunnel_does_not_go_on_in_clear() {
        let rule = "\tchain leaving {\n\
             \t\ttype filter hook postrouting priority 110; policy accept;\n\
             \t\tmeta mark 0x00637964 oifname != { \"cyg0\" } ct direction original ct mark != 0x00637964 \
             fib saddr . oif type != local counter drop\n";
        let direct = [("02:00:00:00:00:01", DevicePolicy::Direct)];
        let nft = guard_of(devices(DevicePolicy::Tunnelled, &direct), &[]).nft;
        assert!(nft.contains(rule), "{rule}\nnot in\n{nft}");
    }

    #[test]
    fn on_two_legs_what_comes_from_the_lan_is_asked_where_it_says_it_comes_from() {
        let mut inputs = inputs_of(Devices::default(), &[]);
        let chain = "\tchain sources {\n\
             \t\ttype filter hook prerouting priority -300; policy accept;\n";
        assert!(!GuardPlan::new(&inputs).nft.contains(chain), "one leg");
        let asked = "\t\tiifname != { \"eth0\" } return\n\
             \t\tip saddr { 192.168.1.0/24 } return\n\
             \t\tip6 saddr { fd00:1::/64 } return\n\
             \t\tip saddr { 0.0.0.0, 169.254.0.0/16 } return\n\
             \t\tip6 saddr { ::, fe80::/10 } return\n\
             \t\tfib saddr . iif oif missing counter drop\n";
        inputs.uplink = None;
        let nft = GuardPlan::new(&inputs).nft;
        assert!(nft.contains(&format!("{chain}{asked}")), "{nft}");
        inputs.uplink = Some("wan0".parse().unwrap());
        let nft = GuardPlan::new(&inputs).nft;
        let from_outside = "\
             \t\tiifname \"wan0\" ip saddr { 192.168.1.0/24 } fib saddr oifname { \"eth0\" } counter drop\n\
             \t\tiifname \"wan0\" ip6 saddr { fd00:1::/64 } fib saddr oifname { \"eth0\" } counter drop\n";
        assert!(
            nft.contains(&format!("{chain}{from_outside}{asked}")),
            "{nft}"
        );
        assert!(!nft.contains("\t\toifname { \"eth0\" } counter drop\n"));
    }

    #[test]
    fn on_one_leg_only_errors_about_sites_and_clients_leave_for_outside() {
        let mut inputs = inputs_of(Devices::default(), &[]);
        inputs.sites = ["10.99.0.0/24", "0.0.0.0/0"]
            .map(|n| n.parse().unwrap())
            .to_vec();
        let nft = GuardPlan::new(&inputs).nft;
        let end = "\t\toifname { \"eth0\" } ct original ip6 daddr { fd00:1::/64 } counter drop\n\
             \t\tct original ip saddr { 10.99.0.0/24 } return\n\
             \t\tct original ip daddr { 10.99.0.0/24 } return\n\
             \t\toifname { \"eth0\" } counter drop\n\
             \t}\n";
        assert!(nft.contains(end), "{nft}");
    }

    #[test]
    fn a_guard_of_other_policies_is_signed_otherwise() {
        let signature = |named: &[(&str, DevicePolicy)]| {
            let nft = guard_of(devices(DevicePolicy::Tunnelled, named), &[]).nft;
            let signature = nft.split('"').find(|part| part.len() == 16).unwrap();
            signature.to_owned()
        };
        let of = |mac| signature(&[(mac, DevicePolicy::Direct)]);
        assert_eq!(of("02:00:00:00:00:01"), of("02:00:00:00:00:01"));
        assert_ne!(of("02:00:00:00:00:01"), of("02:00:00:00:00:02"));
        assert_ne!(signature(&[]), of("02:00:00:00:00:02"));
    }
}

//! The guard: packets of tunnelled devices go into a tunnel or nowhere.
//!
//! Two layers, each enough by itself. Routing: what comes in from the LAN is looked up in a table
//! that holds tunnel routes and ends in `unreachable default`. Filter: in the forward hook, what
//! comes in from the LAN is dropped unless it leaves by a tunnel or stays in the LAN, and devices are
//! not told of a router nearer by. A foreign `nft flush ruleset` leaves the first, a foreign
//! `ip rule flush` the second.
//!
//! What the box itself says about such packets is held to the same: an ICMP error quotes the packet it
//! is about, so it goes to the LAN or into a tunnel. Apart from those errors only forwarded packets are
//! concerned: SSH, DNS or ping to the box itself find its addresses in the local table, which is asked
//! before any rule of ours, and its own packets come in nowhere.

use ipnet::IpNet;

use crate::inputs::{Devices, InterfaceName, Lan};
use crate::plan::{Family, Route, RouteKind, Rule, RuleAction};
use crate::{GUARD_TABLE, MAIN_TABLE, nft};

/// What the guard depends on: known before any tunnel is up, from configuration alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardInputs {
    /// The LAN.
    pub lan: Lan,
    /// TUNs that tunnelled devices may leave by, whether they exist yet or not.
    pub tunnels: Vec<InterfaceName>,
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
}

impl GuardPlan {
    /// Makes the guard for a LAN.
    #[must_use]
    pub fn new(inputs: &GuardInputs) -> Self {
        let routes = Family::BOTH
            .map(|family| Route {
                table: GUARD_TABLE,
                destination: family.default_route(),
                kind: RouteKind::Unreachable,
                // The last resort: any route of the plan has a lower metric.
                metric: u32::MAX,
                preferred_source: None,
            })
            .to_vec();
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
        }
    }
}

/// How devices at `interface` are routed, by three priorities from `first` on: the LAN itself, those
/// that are exempt, and the rest by [`GUARD_TABLE`].
pub(crate) fn lan_rules(lan: &Lan, interface: &InterfaceName, first: u32) -> Vec<Rule> {
    let rule = |place, family, table| Rule {
        iif: Some(interface.clone()),
        ..Rule::new(first + place, family, RuleAction::Lookup(table))
    };
    let mut rules = Vec::new();
    for net in &lan.networks {
        // A cable that is out takes the LAN's own route away; the default route must not step in.
        rules.push(Rule {
            to: Some(net.trunc()),
            suppress_prefix_length: Some(0),
            ..rule(0, Family::of_net(*net), MAIN_TABLE)
        });
    }
    if let Devices::AllBut(exempt) = &lan.devices {
        for net in exempt {
            rules.push(Rule {
                from: Some(net.trunc()),
                ..rule(1, Family::of_net(*net), MAIN_TABLE)
            });
        }
    }
    for family in Family::BOTH {
        let named = named(&lan.devices, family);
        if named.is_empty() {
            rules.push(rule(2, family, GUARD_TABLE));
        }
        for net in named {
            rules.push(Rule {
                from: Some(net.trunc()),
                ..rule(2, family, GUARD_TABLE)
            });
        }
    }
    rules
}

/// The devices of [`Devices::Only`] in one family; empty: the whole family is guarded.
pub(crate) fn named(devices: &Devices, family: Family) -> Vec<IpNet> {
    match devices {
        Devices::Only(nets) => nets
            .iter()
            .filter(|n| Family::of_net(**n) == family)
            .copied()
            .collect(),
        Devices::All | Devices::AllBut(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(devices: Devices) -> GuardPlan {
        GuardPlan::new(&GuardInputs {
            lan: Lan {
                interfaces: vec!["eth0".parse().unwrap()],
                networks: vec![
                    "192.168.1.5/24".parse().unwrap(),
                    "fd00:1::/64".parse().unwrap(),
                ],
                devices,
            },
            tunnels: vec!["cyg0".parse().unwrap()],
        })
    }

    #[test]
    fn both_families_end_unreachable() {
        let plan = guard(Devices::All);
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
    fn naming_ipv4_devices_guards_all_of_ipv6() {
        let plan = guard(Devices::Only(vec!["192.168.1.77/32".parse().unwrap()]));
        let rules: Vec<_> = plan
            .rules
            .iter()
            .filter(|r| r.priority == 102)
            .map(|r| (r.family, r.from.map(|n| n.to_string())))
            .collect();
        assert_eq!(
            rules,
            [
                (Family::V4, Some("192.168.1.77/32".to_owned())),
                (Family::V6, None)
            ]
        );
        assert!(
            plan.nft.contains("ip saddr != { 192.168.1.77/32 } return"),
            "{}",
            plan.nft
        );
        assert!(!plan.nft.contains("ip6 saddr !="), "{}", plan.nft);
    }

    #[test]
    fn the_filter_layer_for_one_leg() {
        assert_eq!(
            guard(Devices::AllBut(vec!["192.168.1.9/32".parse().unwrap()])).nft,
            "table inet cygnet_guard\n\
             delete table inet cygnet_guard\n\
             table inet cygnet_guard {\n\
             \tchain forward {\n\
             \t\ttype filter hook forward priority -10; policy accept;\n\
             \t\tiifname { \"eth0\" } jump tunnelled\n\
             \t\tiifname { \"cyg0\" } ip daddr { 192.168.1.0/24 } oifname != { \"eth0\", \"cyg0\" } counter drop\n\
             \t\tiifname { \"cyg0\" } ip6 daddr { fd00:1::/64 } oifname != { \"eth0\", \"cyg0\" } counter drop\n\
             \t}\n\
             \tchain tunnelled {\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\tip saddr { 192.168.1.9/32 } return\n\
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
             \t\tct original ip saddr { 192.168.1.9/32 } return\n\
             \t\tct reply ip saddr { 192.168.1.9/32 } return\n\
             \t\tct original ip saddr { 192.168.1.0/24 } counter drop\n\
             \t\tct original ip6 saddr { fd00:1::/64 } counter drop\n\
             \t}\n\
             \tchain leaving {\n\
             \t\ttype filter hook postrouting priority 110; policy accept;\n\
             \t\tmeta iif != 0 return\n\
             \t\toifname \"lo\" return\n\
             \t\toifname { \"eth0\" } ip daddr { 192.168.1.0/24 } return\n\
             \t\toifname { \"eth0\" } ip6 daddr { fd00:1::/64 } return\n\
             \t\toifname { \"cyg0\" } return\n\
             \t\tct state related ct status snat meta l4proto { icmp, ipv6-icmp } fib saddr . oif type != local counter drop\n\
             \t}\n\
             }\n"
        );
    }
}

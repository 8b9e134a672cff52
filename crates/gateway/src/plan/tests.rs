mod dns;
mod local;
mod own;
mod server;
mod through;

use super::*;
use crate::devices::{DevicePolicy, Devices};
use crate::inputs::{Lan, Server};
use crate::mapping::Mapping;

fn name(s: &str) -> InterfaceName {
    s.parse().unwrap()
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn tunnel() -> Tunnel {
    Tunnel {
        interface: name("cyg0"),
        mtu: 1438,
        whole: 1438,
        client: true,
        on_demand: false,
        virtual_addresses: vec!["10.99.0.2".parse().unwrap()],
        remote: vec![net("0.0.0.0/0"), net("::/0")],
        reached: vec![net("0.0.0.0/0"), net("::/0")],
        source: Vec::new(),
        maps: Vec::new(),
        endpoints: vec!["203.0.113.10".parse().unwrap()],
        own_traffic: false,
        carries_lan: true,
    }
}

fn gateway() -> Inputs {
    Inputs {
        tunnels: vec![tunnel()],
        lan: Some(Lan {
            interfaces: vec![name("eth0")],
            networks: vec![net("192.168.1.0/24")],
            ..Lan::default()
        }),
        local_networks: vec![net("192.168.1.2/24")],
        named: Vec::new(),
        closed: Vec::new(),
        closed_sites: Vec::new(),
        uplink: Some(name("eth0")),
        server: None,
        addresses: vec!["192.168.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        ports: vec![500, 4500],
        dns: None,
    }
}

fn in_table(plan: &NetworkPlan, table: u32) -> Vec<String> {
    plan.routes
        .iter()
        .filter(|r| r.table == table)
        .map(|r| format!("{} {:?} {}", r.destination, r.kind, r.metric))
        .collect()
}

#[test]
fn a_gateway_sends_the_lan_but_not_itself() {
    let plan = NetworkPlan::new(&gateway()).unwrap();
    assert_eq!(
        in_table(&plan, GUARD_TABLE),
        ["0.0.0.0/0 Device(InterfaceName(\"cyg0\")) 100"],
        "IPv6 has no virtual address to be translated to and stays unreachable"
    );
    assert!(in_table(&plan, SHARED_TABLE).is_empty());
    assert!(
        plan.rules
            .iter()
            .all(|r| r.priority != 190 && r.priority != 152)
    );
    assert_eq!(
        plan.nft,
        "table inet cygnet\n\
         delete table inet cygnet\n\
         table inet cygnet {\n\
         \tchain forward {\n\
         \t\ttype filter hook forward priority 0; policy accept;\n\
         \t\tiifname \"cyg0\" meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size set 1398\n\
         \t\tiifname \"cyg0\" meta nfproto ipv6 tcp flags & (syn | rst) == syn tcp option maxseg size set 1378\n\
         \t\toifname \"cyg0\" meta nfproto ipv4 tcp flags & (syn | rst) == syn tcp option maxseg size set 1398\n\
         \t\toifname \"cyg0\" meta nfproto ipv6 tcp flags & (syn | rst) == syn tcp option maxseg size set 1378\n\
         \t\tiifname { \"cyg0\" } ct state new,invalid counter drop\n\
         \t}\n\
         \tchain postrouting {\n\
         \t\ttype nat hook postrouting priority 100; policy accept;\n\
         \t\toifname \"cyg0\" ip saddr != { 10.99.0.2 } snat ip to 10.99.0.2\n\
         \t}\n\
         \tchain lent {\n\
         \t\ttype filter hook postrouting priority 101; policy accept;\n\
         \t\toifname \"cyg0\" ip saddr != { 10.99.0.2 } counter drop\n\
         \t\toifname \"cyg0\" meta nfproto ipv6 counter drop\n\
         \t}\n\
         \tchain prerouting {\n\
         \t\ttype filter hook prerouting priority -300; policy accept;\n\
         \t\tiifname != \"cyg0\" ip daddr { 10.99.0.2/32 } fib saddr type != local counter drop\n\
         \t}\n\
         }\n"
    );
    let from: Vec<_> = plan.rules.iter().filter(|r| r.priority == 160).collect();
    assert_eq!(from.len(), 1);
    assert_eq!(from[0].action, RuleAction::Lookup(SHARED_TABLE + 1));
}

/// It would not come up: what calls it is what enters it.
#[test]
fn what_is_not_translated_yet_enters_a_tunnel_that_it_calls() {
    let drops = |inputs: &Inputs| {
        let plan = NetworkPlan::new(inputs).unwrap();
        let of_tunnel = plan.nft.lines().map(str::trim).map(str::to_owned);
        of_tunnel
            .filter(|line| line.starts_with("oifname \"cyg0\"") && line.ends_with("drop"))
            .collect::<Vec<_>>()
    };
    let mut inputs = gateway();
    inputs.tunnels[0].virtual_addresses.clear();
    assert_eq!(drops(&inputs).len(), 2, "neither family");
    inputs.tunnels[0].on_demand = true;
    assert!(drops(&inputs).is_empty());
    inputs.tunnels[0].virtual_addresses = gateway().tunnels[0].virtual_addresses.clone();
    assert_eq!(drops(&inputs).len(), 2, "it is up");
}

/// RFC 8200 §5: no link has an MTU below 1280.
#[test]
fn tcp_is_kept_to_what_travels_whole_where_that_is_less_than_an_mtu_may_be() {
    let mut inputs = gateway();
    (inputs.tunnels[0].mtu, inputs.tunnels[0].whole) = (1280, 1218);
    let plan = NetworkPlan::new(&inputs).unwrap();
    let sizes = plan.nft.lines().filter_map(|line| {
        let (_, size) = line.split_once("maxseg size set ")?;
        Some(size)
    });
    assert_eq!(sizes.collect::<Vec<_>>(), ["1178", "1158", "1178", "1158"]);
}

#[test]
fn forwarding_comes_before_what_it_resets_and_after_what_it_would_lose() {
    let plan = NetworkPlan::new(&gateway()).unwrap();
    let at = |path: &str| plan.sysctls.iter().position(|s| s.path == path).unwrap();
    assert!(at("net/ipv6/conf/*/accept_ra") < at("net/ipv6/conf/all/forwarding"));
    assert!(at("net/ipv4/conf/all/forwarding") < at("net/ipv4/conf/*/accept_redirects"));
    assert!(at("net/ipv4/conf/all/forwarding") < at("net/ipv4/conf/*/send_redirects"));
    assert_eq!(plan.sysctls[at("net/ipv4/conf/cyg0/rp_filter")].value, "2");
}

#[test]
fn on_two_legs_nobody_in_the_lan_is_our_router() {
    let mut inputs = gateway();
    let lan = inputs.lan.clone().unwrap().interfaces[0].clone();
    let path = format!("net/ipv6/conf/{lan}/accept_ra");
    for (uplink, closed) in [
        (Some(lan), false),
        (None, false),
        (Some(name("wan0")), true),
    ] {
        inputs.uplink = uplink;
        let plan = NetworkPlan::new(&inputs).unwrap();
        let at = |path: &str| plan.sysctls.iter().position(|s| s.path == path);
        let found = at(&path);
        assert_eq!(found.is_some(), closed, "{:?}", inputs.uplink);
        // Before those are told 2 that stand at 1.
        if let Some(found) = found {
            assert!(Some(found) < at("net/ipv6/conf/*/accept_ra"));
            let setting = &plan.sysctls[found];
            assert!(setting.value == "0" && setting.only_if.is_none() && setting.optional);
        }
    }
}

#[test]
fn a_client_goes_out_by_tunnel_and_keeps_its_own_networks() {
    let mut inputs = gateway();
    inputs.lan = None;
    inputs.tunnels[0].own_traffic = true;
    let plan = NetworkPlan::new(&inputs).unwrap();
    assert_eq!(
        in_table(&plan, SHARED_TABLE),
        [
            "0.0.0.0/0 Device(InterfaceName(\"cyg0\")) 100",
            "169.254.0.0/16 Throw 0",
            "192.168.1.0/24 Throw 0",
            "224.0.0.0/4 Throw 0",
            "::/0 Unreachable 100",
            "fe80::/10 Throw 0",
        ]
    );
    assert!(
        plan.sysctls.iter().all(|s| !s.path.contains("forwarding")),
        "a client is no router"
    );
}

fn at_152(inputs: &Inputs) -> Vec<String> {
    let plan = NetworkPlan::new(inputs).unwrap();
    let rules = plan.rules.iter().filter(|r| r.priority == 152);
    rules
        .map(|r| {
            assert_eq!(r.ip_protocol, Some(17));
            let (from, port) = (r.from.unwrap(), r.source_port.unwrap());
            format!("{} from {from} {port}", shown(r))
        })
        .collect()
}

#[test]
fn only_from_our_own_ports_does_the_way_to_a_peer_lead_around_the_tunnel() {
    let mut inputs = gateway();
    inputs.lan = None;
    assert!(at_152(&inputs).is_empty(), "nothing is in the way");
    inputs.tunnels[0].own_traffic = true;
    inputs.tunnels[0]
        .endpoints
        .push("2001:db8::1".parse().unwrap());
    let expected = [
        "152 all to 203.0.113.10/32 Lookup(254) from 192.168.1.2/32 500",
        "152 all to 203.0.113.10/32 Lookup(254) from 192.168.1.2/32 4500",
    ];
    assert_eq!(at_152(&inputs), expected);

    // Another tunnel's peer beyond the first tunnel needs it as well; one that is nowhere near, not.
    inputs.tunnels[0].endpoints.clear();
    let mut site = tunnel();
    site.interface = name("cyg1");
    site.client = false;
    site.virtual_addresses.clear();
    site.remote = vec![net("10.2.0.0/24")];
    inputs.tunnels.push(site);
    assert_eq!(at_152(&inputs), expected);
    inputs.tunnels[0].remote = vec![net("10.3.0.0/24")];
    assert!(at_152(&inputs).is_empty());
}

#[test]
fn outer_packets_come_first_and_never_fall_through() {
    let mut inputs = gateway();
    inputs.tunnels[0].own_traffic = true;
    let plan = NetworkPlan::new(&inputs).unwrap();
    for family in Family::BOTH {
        let rules: Vec<_> = plan.rules.iter().filter(|r| r.family == family).collect();
        assert_eq!(rules[0].action, RuleAction::Lookup(MAIN_TABLE));
        assert_eq!(rules[0].fwmark, Some(OUTER_MARK));
        assert_eq!(rules[1].action, RuleAction::Unreachable);
        assert_eq!(rules[1].fwmark, Some(OUTER_MARK));
    }
    assert!(
        plan.rules
            .iter()
            .all(|r| crate::PLAN_PRIORITIES.contains(&r.priority))
    );
}

#[test]
fn a_site_translates_nothing_and_lets_the_other_office_in() {
    let mut site = tunnel();
    site.client = false;
    site.virtual_addresses.clear();
    site.remote = vec![net("10.2.0.0/24")];
    site.source = vec!["10.1.0.1".parse().unwrap()];
    site.own_traffic = true;
    let inputs = Inputs {
        tunnels: vec![site],
        local_networks: vec![net("10.1.0.0/24")],
        ..Inputs::default()
    };
    let plan = NetworkPlan::new(&inputs).unwrap();
    assert!(
        !plan.nft.contains("snat") && !plan.nft.contains("drop"),
        "{}",
        plan.nft
    );
    assert_eq!(
        plan.routes[0].preferred_source,
        Some("10.1.0.1".parse().unwrap())
    );
    assert_eq!(
        in_table(&plan, SHARED_TABLE),
        [
            "10.2.0.0/24 Device(InterfaceName(\"cyg0\")) 100",
            "10.2.0.0/24 Unreachable 4294967295",
        ],
        "the second is left where the program was killed"
    );
    assert!(
        plan.sysctls
            .iter()
            .any(|s| s.path == "net/ipv4/conf/all/forwarding")
    );
}

#[test]
fn contradictions_are_named() {
    let mut inputs = gateway();
    inputs.tunnels[0].own_traffic = true;
    inputs.tunnels[0].remote = vec![net("192.168.1.0/24")];
    assert!(matches!(
        NetworkPlan::new(&inputs),
        Err(PlanError::Overlap { .. })
    ));

    let mut inputs = gateway();
    inputs.tunnels.push(tunnel());
    assert_eq!(
        NetworkPlan::new(&inputs),
        Err(PlanError::SameInterface("cyg0".to_owned()))
    );

    let mut inputs = gateway();
    inputs.tunnels[0].mtu = 1200;
    assert!(NetworkPlan::new(&inputs).is_ok(), "only IPv4 is carried");
    inputs.tunnels[0]
        .virtual_addresses
        .push("fd99::2".parse().unwrap());
    assert!(matches!(
        NetworkPlan::new(&inputs),
        Err(PlanError::Mtu { least: 1280, .. })
    ));
}

#[test]
fn two_tunnels_with_the_same_selectors_coexist_by_metric() {
    let mut inputs = gateway();
    let mut second = tunnel();
    second.interface = name("cyg1");
    second.virtual_addresses = vec!["10.98.0.2".parse().unwrap()];
    inputs.tunnels.push(second);
    let plan = NetworkPlan::new(&inputs).unwrap();
    assert_eq!(
        in_table(&plan, GUARD_TABLE),
        [
            "0.0.0.0/0 Device(InterfaceName(\"cyg0\")) 100",
            "0.0.0.0/0 Device(InterfaceName(\"cyg1\")) 101",
        ]
    );
}

#[test]
fn a_network_that_is_shown_as_another_is_translated_both_ways_in_its_own_tunnel_alone() {
    let mut inputs = gateway();
    let map = |own: &str, shown: &str| Mapping::new(net(own), net(shown)).unwrap();
    inputs.tunnels = vec![Tunnel {
        client: false,
        on_demand: false,
        virtual_addresses: Vec::new(),
        remote: vec![net("10.202.1.0/24"), net("fd00:2::/64")],
        maps: vec![
            map("192.168.1.0/24", "10.201.1.0/24"),
            map("fd00:1::/64", "fdc9:1::/64"),
        ],
        own_traffic: true,
        ..tunnel()
    }];
    let plan = NetworkPlan::new(&inputs).unwrap();
    for (chain, rules) in [
        (
            "mapped",
            "\t\ttype nat hook prerouting priority -100; policy accept;\n\
             \t\tiifname \"cyg0\" ip daddr 10.201.1.0/24 dnat ip prefix to 192.168.1.0/24\n\
             \t\tiifname \"cyg0\" ip6 daddr fdc9:1::/64 dnat ip6 prefix to fd00:1::/64\n",
        ),
        (
            "postrouting",
            "\t\ttype nat hook postrouting priority 100; policy accept;\n\
             \t\toifname \"cyg0\" ip saddr 192.168.1.0/24 snat ip prefix to 10.201.1.0/24\n\
             \t\toifname \"cyg0\" ip6 saddr fd00:1::/64 snat ip6 prefix to fdc9:1::/64\n",
        ),
    ] {
        let expected = format!("\tchain {chain} {{\n{rules}\t}}\n");
        assert!(plan.nft.contains(&expected), "{}", plan.nft);
    }
    for shown in ["ip daddr 10.201.1.0/24", "ip6 daddr fdc9:1::/64"] {
        let dropped = format!("\t\tiifname \"cyg0\" {shown} counter drop\n");
        assert!(plan.nft.contains(&dropped), "{}", plan.nft);
    }
    // Both offices have 192.168.1.0/24, and ours stays what it is on this side.
    let routes = in_table(&plan, SHARED_TABLE);
    assert!(
        !routes
            .iter()
            .any(|r| r.contains("192.168.") || r.contains("10.201.")),
        "{routes:?}"
    );
}

#[test]
fn of_two_tunnels_to_the_same_network_the_one_that_is_up_carries_it() {
    let site = |interface: &str| Tunnel {
        interface: name(interface),
        client: false,
        on_demand: false,
        virtual_addresses: Vec::new(),
        remote: vec![net("10.2.0.0/16"), net("10.3.0.0/16")],
        own_traffic: true,
        ..tunnel()
    };
    let mut inputs = gateway();
    inputs.tunnels = vec![site("cyg-a"), site("cyg-b")];
    let mut carries = |reached: [&[&str]; 2]| {
        for (tunnel, reached) in inputs.tunnels.iter_mut().zip(reached) {
            tunnel.reached = reached.iter().map(|n| net(n)).collect();
        }
        let plan = NetworkPlan::new(&inputs).unwrap();
        [SHARED_TABLE, GUARD_TABLE].map(|table| {
            [net("10.2.0.0/16"), net("10.3.0.0/16")].map(|to| {
                let routes = plan.routes.iter();
                let routes = routes.filter(|r| r.table == table && r.destination == to);
                match &routes.min_by_key(|r| r.metric).unwrap().kind {
                    RouteKind::Device(interface) => interface.as_str().to_owned(),
                    other => format!("{other:?}"),
                }
            })
        })
    };
    let all = ["10.0.0.0/8"].as_slice();
    for (reached, expected) in [
        ([all, all], ["cyg-a", "cyg-a"]),
        ([&[], all], ["cyg-b", "cyg-b"]),
        ([all, &[]], ["cyg-a", "cyg-a"]),
        // A packet may bring up the first.
        ([&[], &[]], ["cyg-a", "cyg-a"]),
        // One child of the first is down; the peer has narrowed the other.
        ([&["10.3.7.0/24"], all], ["cyg-b", "cyg-a"]),
    ] {
        assert_eq!(carries(reached), [expected; 2], "{reached:?}");
    }
}

fn shown(rule: &Rule) -> String {
    let iif = rule.iif.as_ref().map_or("all", InterfaceName::as_str);
    let to = rule.to.map_or_else(String::new, |to| format!(" to {to}"));
    let longer = rule.suppress_prefix_length.map_or("", |_| " by no default");
    format!("{} {iif}{to} {:?}{longer}", rule.priority, rule.action)
}

#[test]
fn what_leaves_a_clients_tunnel_never_travels_on_by_a_default_route() {
    let from_tunnel = |inputs: &Inputs| -> Vec<String> {
        let plan = NetworkPlan::new(inputs).unwrap();
        let of_tunnel = |r: &&Rule| r.iif == Some(name("cyg0")) && r.family == Family::V4;
        plan.rules.iter().filter(of_tunnel).map(shown).collect()
    };
    let mut inputs = gateway();
    let expected = ["153 cyg0 Lookup(254) by no default", "154 cyg0 Blackhole"];
    assert_eq!(from_tunnel(&inputs), expected);
    // While it is down most of all: then the address is gone.
    inputs.tunnels[0].virtual_addresses.clear();
    assert_eq!(from_tunnel(&inputs), expected);
    assert!(
        NetworkPlan::new(&inputs)
            .unwrap()
            .nft
            .contains("iifname { \"cyg0\" } ct state new,invalid counter drop")
    );
    // The other office may use our way out.
    inputs.tunnels[0].client = false;
    assert!(from_tunnel(&inputs).is_empty());
}

#[test]
fn the_lan_finds_the_tunnel_without_a_guard() {
    let plan = NetworkPlan::new(&gateway()).unwrap();
    let of_lan = |r: &&Rule| r.iif == Some(name("eth0")) && r.family == Family::V4;
    let rules: Vec<String> = plan.rules.iter().filter(of_lan).map(shown).collect();
    assert_eq!(
        rules,
        [
            "170 eth0 to 192.168.1.0/24 Lookup(254) by no default",
            "172 eth0 Lookup(51450)"
        ]
    );
}

#[test]
fn what_goes_direct_is_marked_and_translated_without_a_guard_too() {
    let mut inputs = gateway();
    let devices = &mut inputs.lan.as_mut().unwrap().devices;
    let mac = "02:00:00:00:00:01".parse().unwrap();
    devices.named.insert(mac, DevicePolicy::Direct);
    let plan = NetworkPlan::new(&inputs).unwrap();
    for rule in [
        "type filter hook prerouting priority -151; policy accept;",
        "ether saddr { 02:00:00:00:00:01 } goto mark_direct",
        "meta mark 0x00637964 oifname != { \"cyg0\" } masquerade",
    ] {
        assert!(plan.nft.contains(rule), "{rule} not in\n{}", plan.nft);
    }
    let marked = |s: &Sysctl| s.path == "net/ipv4/conf/all/src_valid_mark" && s.value == "1";
    assert!(plan.sysctls.iter().any(marked));
    let without = NetworkPlan::new(&gateway()).unwrap();
    assert!(!without.sysctls.iter().any(marked) && !without.nft.contains("mark set"));
    let of_lan = |r: &&Rule| r.iif == Some(name("eth0")) && r.family == Family::V6;
    let rules: Vec<String> = plan.rules.iter().filter(of_lan).map(shown).collect();
    assert_eq!(
        rules,
        [
            "170 eth0 Lookup(51455) by no default",
            "171 eth0 Lookup(254)",
            "172 eth0 Lookup(51450)"
        ]
    );
}

#[test]
fn what_goes_direct_enters_tunnels_between_sites_and_no_other() {
    let mut inputs = gateway();
    let client = Tunnel {
        interface: name("cyg1"),
        remote: vec![net("10.0.0.0/8")],
        own_traffic: true,
        carries_lan: false,
        ..tunnel()
    };
    let site = Tunnel {
        interface: name("cyg2"),
        client: false,
        on_demand: false,
        virtual_addresses: Vec::new(),
        remote: vec![
            net("10.2.0.0/16"),
            net("192.168.0.0/16"),
            net("192.168.1.0/24"),
        ],
        reached: Vec::new(),
        own_traffic: true,
        ..tunnel()
    };
    let closed = Tunnel {
        interface: name("cyg3"),
        remote: vec![net("172.16.0.0/24")],
        ..client.clone()
    };
    inputs.tunnels.extend([client, site, closed]);
    inputs.server = Some(server::server());
    inputs.local_networks.push(net("172.16.0.9/24"));
    let closed_in = NetworkPlan::new(&inputs.clone().without_overlaps().0).unwrap();
    assert!(in_table(&closed_in, SITES_TABLE).is_empty());
    inputs.lan.as_mut().unwrap().devices.default = DevicePolicy::Direct;
    let (inputs, left_out) = inputs.without_overlaps();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    let plan = NetworkPlan::new(&inputs).unwrap();
    let mut expected = vec![
        "10.2.0.0/16 Device(InterfaceName(\"cyg2\")) 502".to_owned(),
        "10.2.0.0/16 Unreachable 4294967295".to_owned(),
        "192.168.0.0/16 Device(InterfaceName(\"cyg2\")) 502".to_owned(),
        "192.168.0.0/16 Unreachable 4294967295".to_owned(),
        "192.168.1.0/24 Unreachable 4294967295".to_owned(),
    ];
    for pool in &server::server().pools {
        expected.push(format!("{pool} Device(InterfaceName(\"cygs\")) 100"));
        expected.push(format!("{pool} Unreachable 4294967295"));
    }
    let mut routes = in_table(&plan, SITES_TABLE);
    routes.sort();
    expected.sort();
    assert_eq!(routes, expected);
}

#[test]
fn a_client_is_no_router_while_it_is_down_either() {
    let mut inputs = gateway();
    inputs.lan = None;
    inputs.tunnels[0].virtual_addresses.clear();
    let plan = NetworkPlan::new(&inputs).unwrap();
    assert!(plan.sysctls.iter().all(|s| !s.path.contains("forwarding")));
}

#[test]
fn what_overlaps_is_closed_or_left_out_and_the_rest_goes_on() {
    let mut inputs = gateway();
    inputs.lan = None;
    let mut site = tunnel();
    site.client = false;
    site.virtual_addresses.clear();
    site.own_traffic = true;
    site.remote = vec![net("192.168.1.0/24"), net("10.2.0.0/24")];
    inputs.tunnels = vec![site];
    inputs.server = Some(Server {
        pools: vec![net("192.168.1.128/25"), net("fd99::/64")],
        addresses: ["192.168.1.129", "fd99::1"]
            .map(|a| a.parse().unwrap())
            .to_vec(),
        ..server::server()
    });
    assert!(NetworkPlan::new(&inputs).is_err());
    let (rest, left_out) = inputs.without_overlaps();
    assert_eq!(
        left_out,
        [
            PlanError::Overlap {
                tunnel: "cyg0".to_owned(),
                network: net("192.168.1.0/24"),
            },
            PlanError::PoolOverlap {
                pool: net("192.168.1.128/25"),
                network: net("192.168.1.0/24"),
            },
        ]
    );
    let plan = NetworkPlan::new(&rest).unwrap();
    let routes = in_table(&plan, SHARED_TABLE).join("\n");
    assert!(routes.contains("10.2.0.0/24 Device") && routes.contains("fd99::/64 Device"));
    assert!(
        routes.contains("192.168.1.0/24 Unreachable 4294967295"),
        "{routes}"
    );
    assert!(!routes.contains("192.168.1.0/24 Device"), "{routes}");
    assert!(!routes.contains("Throw"), "{routes}");
    let of_server = plan
        .links
        .iter()
        .find(|link| link.interface == name("cygs"));
    assert_eq!(of_server.unwrap().addresses, [net("fd99::1/128")]);
}

//! The server's clients.

use super::*;

#[test]
fn a_server_routes_its_pools_and_translates_them_outside() {
    let inputs = Inputs {
        server: Some(Server {
            addresses: vec!["10.99.0.1".parse().unwrap()],
            block_private: false,
            ..server()
        }),
        uplink: Some(name("eth0")),
        ..Inputs::default()
    };
    let plan = NetworkPlan::new(&inputs).unwrap();
    assert_eq!(
        in_table(&plan, SHARED_TABLE),
        [
            "10.99.0.0/24 Device(InterfaceName(\"cygs\")) 100",
            "10.99.0.0/24 Unreachable 4294967295",
            "fd99::/64 Device(InterfaceName(\"cygs\")) 100",
            "fd99::/64 Unreachable 4294967295",
        ]
    );
    for line in [
        "oifname \"eth0\" ip saddr { 10.99.0.0/24 } masquerade",
        "oifname \"eth0\" ip6 saddr { fd99::/64 } masquerade",
        "iifname \"cygs\" oifname \"cygs\" counter drop",
        "iifname \"cygs\" ip daddr { 169.254.0.0/16, 168.63.129.16, 100.100.100.200 } counter drop",
        "iifname \"eth0\" oifname \"cygs\" ct state new,invalid counter drop",
    ] {
        assert!(plan.nft.contains(line), "{line} not in\n{}", plan.nft);
    }
    let unknown_uplink = NetworkPlan::new(&Inputs {
        uplink: None,
        ..inputs
    })
    .unwrap();
    assert!(
        unknown_uplink
            .nft
            .contains("oifname != { \"cygs\" } ip saddr { 10.99.0.0/24 } masquerade")
    );
}

#[test]
fn a_server_keeps_its_own_services_from_clients_where_asked_to() {
    let plan = |host_access| {
        let server = Server {
            host_access,
            ..server()
        };
        let inputs = Inputs {
            server: Some(server),
            ..Inputs::default()
        };
        NetworkPlan::new(&inputs).unwrap().nft
    };
    assert!(!plan(true).contains("hook input"));
    assert!(plan(false).ends_with(
        "\tchain input {\n\
         \t\ttype filter hook input priority 0; policy accept;\n\
         \t\tiifname \"cygs\" ct state established,related accept\n\
         \t\tiifname \"cygs\" meta l4proto { icmp, ipv6-icmp } accept\n\
         \t\tiifname \"cygs\" meta l4proto { tcp, udp } th dport 53 accept\n\
         \t\tiifname \"cygs\" counter drop\n\
         \t}\n\
         }\n"
    ));
}

#[test]
fn where_speed_is_measured_clients_come_and_nobody_else() {
    let rules = |host_access, addresses: &[&str]| {
        let server = Server {
            host_access,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            speedtest: Some(25465),
            ..server()
        };
        let inputs = Inputs {
            server: Some(server),
            ..Inputs::default()
        };
        let nft = NetworkPlan::new(&inputs).unwrap().nft;
        let chain = nft.split("hook input").nth(1).unwrap_or_default();
        let lines = chain.lines().map(str::trim);
        let rules = lines.filter(|line| line.starts_with("iifname"));
        rules.map(str::to_owned).collect::<Vec<String>>()
    };
    let both = ["10.99.0.1", "fd99::1"];
    let outside = [
        "iifname != \"cygs\" ip daddr { 10.99.0.1/32 } tcp dport 25465 counter drop",
        "iifname != \"cygs\" ip6 daddr { fd99::1/128 } tcp dport 25465 counter drop",
    ];
    assert_eq!(rules(true, &both), outside);
    let closed = rules(false, &both);
    assert_eq!(closed[..2], outside);
    assert_eq!(
        closed[5..],
        [
            "iifname \"cygs\" ip daddr { 10.99.0.1/32 } tcp dport 25465 accept",
            "iifname \"cygs\" ip6 daddr { fd99::1/128 } tcp dport 25465 accept",
            "iifname \"cygs\" counter drop",
        ]
    );
    assert_eq!(rules(true, &[]), [] as [&str; 0]);
}

#[test]
fn a_pool_within_the_machines_own_network_is_refused() {
    let server = Server {
        pools: vec!["192.168.1.128/25".parse().unwrap()],
        ..server()
    };
    let inputs = Inputs {
        server: Some(server),
        local_networks: vec!["192.168.1.0/24".parse().unwrap()],
        ..Inputs::default()
    };
    let refused = NetworkPlan::new(&inputs).map(drop);
    assert_eq!(
        refused,
        Err(PlanError::PoolOverlap {
            pool: "192.168.1.128/25".parse().unwrap(),
            network: "192.168.1.0/24".parse().unwrap(),
        })
    );
}

/// What the server's forward chain says about its clients, without the clamp.
fn about_clients(server: Server, inputs: &Inputs) -> Vec<String> {
    let inputs = Inputs {
        server: Some(server),
        ..inputs.clone()
    };
    let nft = NetworkPlan::new(&inputs).unwrap().nft;
    let rules = nft.lines().map(str::trim);
    rules
        .filter(|line| line.contains("\"cygs\"") && !line.contains("maxseg"))
        .map(str::to_owned)
        .collect()
}

pub(super) fn server() -> Server {
    Server {
        interface: name("cygs"),
        mtu: 1438,
        pools: vec![net("10.99.0.0/24"), net("fd99::/64")],
        addresses: Vec::new(),
        masquerade: Family::BOTH.to_vec(),
        client_to_client: false,
        block_private: true,
        inside: Vec::new(),
        host_access: true,
        speedtest: None,
    }
}

#[test]
fn private_networks_are_closed_towards_the_provider_but_for_those_that_are_here() {
    let rented = Inputs {
        uplink: Some(name("eth0")),
        ..Inputs::default()
    };
    let rules = about_clients(server(), &rented);
    let to_provider = |rules: &[String]| -> Vec<String> {
        let mut rules: Vec<String> = rules.to_vec();
        rules.retain(|rule| rule.starts_with("iifname \"cygs\" oifname \"eth0\""));
        rules
    };
    assert_eq!(
        to_provider(&rules),
        [
            "iifname \"cygs\" oifname \"eth0\" meta nfproto ipv4 ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 240.0.0.0/4 } counter drop",
            "iifname \"cygs\" oifname \"eth0\" meta nfproto ipv4 meta l4proto { tcp, udp } th dport { 135-139, 445 } counter drop",
            "iifname \"cygs\" oifname \"eth0\" meta nfproto ipv6 ip6 daddr { ::/80, fc00::/7, fec0::/10 } counter drop",
            "iifname \"cygs\" oifname \"eth0\" meta nfproto ipv6 meta l4proto { tcp, udp } th dport { 135-139, 445 } counter drop",
        ]
    );
    // At home: the LAN is where the uplink leads, and a further network behind a router there.
    let home = Inputs {
        local_networks: vec![net("192.168.1.0/24"), net("2001:db8:1::/64")],
        ..rented.clone()
    };
    let inside = vec![net("10.20.0.0/16"), net("192.168.0.0/16")];
    let rules = about_clients(Server { inside, ..server() }, &home);
    let blocked = to_provider(&rules);
    assert_eq!(blocked.len(), 4);
    for rule in &blocked[..2] {
        let here = "ip daddr != { 10.20.0.0/16, 192.168.0.0/16 } ";
        assert!(rule.contains(here), "{rule}");
    }
    for rule in &blocked[2..] {
        assert!(rule.contains("ip6 daddr != { 2001:db8:1::/64 } "), "{rule}");
    }
    let open = Server {
        block_private: false,
        ..server()
    };
    assert!(to_provider(&about_clients(open, &rented)).is_empty());
    let nowhere = Inputs::default();
    assert!(to_provider(&about_clients(server(), &nowhere)).is_empty());
}

#[test]
fn clients_reach_each_other_where_that_is_wanted() {
    let apart = "iifname \"cygs\" oifname \"cygs\" counter drop".to_owned();
    for client_to_client in [false, true] {
        let server = Server {
            client_to_client,
            ..server()
        };
        let rules = about_clients(server, &Inputs::default());
        assert_eq!(rules.contains(&apart), !client_to_client);
    }
}

#[test]
fn a_routed_prefix_is_not_translated_and_not_open_either() {
    let inputs = Inputs {
        uplink: Some(name("eth0")),
        ..Inputs::default()
    };
    let rules = |masquerade| {
        let server = Server {
            masquerade,
            ..server()
        };
        let inputs = Inputs {
            server: Some(server),
            ..inputs.clone()
        };
        let nft = NetworkPlan::new(&inputs).unwrap().nft;
        let closed = "iifname \"eth0\" oifname \"cygs\" ct state new,invalid counter drop";
        [
            "ip saddr { 10.99.0.0/24 } masquerade",
            "ip6 saddr { fd99::/64 } masquerade",
            closed,
        ]
        .map(|rule| nft.contains(rule))
    };
    assert_eq!(rules(vec![Family::V4, Family::V6]), [true, true, true]);
    assert_eq!(rules(vec![Family::V4]), [true, false, true]);
    assert_eq!(rules(Vec::new()), [false, false, false]);
}

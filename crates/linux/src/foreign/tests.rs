use super::*;
use serde_json::json;

fn chain(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
    json!({"chain": {"family": family, "table": table, "name": name, "type": "filter",
                     "hook": hook, "prio": 0, "policy": policy}})
}

fn plain_chain(family: &str, table: &str, name: &str) -> Value {
    json!({"chain": {"family": family, "table": table, "name": name}})
}

fn rule(family: &str, table: &str, chain: &str, expr: Value) -> Value {
    json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 1, "expr": expr}})
}

fn interface(direction: &str, name: &str) -> Value {
    json!({"match": {"op": "==", "left": {"meta": {"key": direction}}, "right": name}})
}

fn paths() -> Paths {
    Paths {
        tunnels: vec!["cyg0".to_owned()],
        ports: vec![4500],
        sent: vec![4500],
        uplink: Some("eth0".to_owned()),
        ..Paths::default()
    }
}

fn find(objects: Vec<Value>) -> Vec<Blockage> {
    find_of(objects, &paths())
}

fn find_of(objects: Vec<Value>, paths: &Paths) -> Vec<Blockage> {
    blockages(&json!({ "nftables": objects }).to_string(), paths).unwrap()
}

/// A chain `in` of table `inet mine` that drops all but what these rules accept.
fn dropping_but(rules: &[Value]) -> Vec<Value> {
    let rules = rules.iter();
    let rules = rules.map(|expr| rule("inet", "mine", "in", expr.clone()));
    let base = chain("inet", "mine", "in", "input", "drop");
    std::iter::once(base).chain(rules).collect()
}

fn matches(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn accept(conditions: &[Value]) -> Value {
    let mut expr = conditions.to_vec();
    expr.push(json!({"accept": null}));
    json!(expr)
}

#[test]
fn docker_is_recognised_and_its_user_chain_named() {
    let docker = vec![
        chain("ip", "filter", "FORWARD", "forward", "drop"),
        plain_chain("ip", "filter", "DOCKER-USER"),
        rule(
            "ip",
            "filter",
            "FORWARD",
            json!([{"jump": {"target": "DOCKER-USER"}}]),
        ),
        rule(
            "ip",
            "filter",
            "DOCKER-USER",
            json!([{"counter": {}}, {"return": null}]),
        ),
    ];
    let found = find(docker.clone());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].firewall, Firewall::Docker);
    assert_eq!(
        found[0].remedy,
        [
            "nft insert rule ip filter DOCKER-USER iifname \"cyg0\" accept",
            "nft insert rule ip filter DOCKER-USER oifname \"cyg0\" accept",
        ]
    );
    let mut cured = docker;
    for direction in ["iifname", "oifname"] {
        let expr = json!([interface(direction, "cyg*"), {"counter": {}}, {"accept": null}]);
        cured.push(rule("ip", "filter", "DOCKER-USER", expr));
    }
    assert_eq!(find(cured), []);
}

#[test]
fn ufw_and_firewalld_get_their_own_commands() {
    let ufw = find(vec![
        chain("ip", "filter", "FORWARD", "forward", "drop"),
        plain_chain("ip", "filter", "ufw-user-forward"),
        chain("ip", "filter", "INPUT", "input", "drop"),
    ]);
    assert_eq!(
        ufw[0].remedy,
        ["ufw route allow in on cyg0", "ufw route allow out on cyg0"]
    );
    assert_eq!(ufw[1].remedy, ["ufw allow 4500/udp"]);
    let firewalld = find(vec![
        chain("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
        rule(
            "inet",
            "firewalld",
            "filter_FORWARD",
            json!([{"reject": {"type": "icmpx"}}]),
        ),
    ]);
    assert_eq!(firewalld[0].firewall, Firewall::Firewalld);
    assert_eq!(firewalld[0].remedy.len(), 1);
}

#[test]
fn an_accept_under_a_condition_we_may_not_meet_does_not_count() {
    let base = chain("inet", "mine", "fwd", "forward", "drop");
    let state =
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}});
    let established = rule("inet", "mine", "fwd", json!([state, {"accept": null}]));
    let other = rule(
        "inet",
        "mine",
        "fwd",
        json!([interface("iifname", "eth1"), {"accept": null}]),
    );
    assert_eq!(
        find(vec![base.clone(), established, other])[0].remedy.len(),
        2
    );
    let all = rule("inet", "mine", "fwd", json!([{"accept": null}]));
    assert_eq!(find(vec![base, all]), []);
}

#[test]
fn an_open_port_is_seen_in_sets_and_ranges() {
    let base = chain("inet", "mine", "in", "input", "drop");
    let left = json!({"payload": {"protocol": "udp", "field": "dport"}});
    for right in [
        json!(4500),
        json!({"set": [500, 4500]}),
        json!({"set": [{"range": [4000, 5000]}]}),
    ] {
        let open = json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}]);
        assert_eq!(
            find(vec![base.clone(), rule("inet", "mine", "in", open)]),
            []
        );
    }
    let shut = find(vec![base]);
    assert_eq!(
        shut[0].remedy,
        ["nft insert rule inet mine in udp dport 4500 accept"]
    );
    assert!(
        shut[0].to_string().contains("chain in (input hook)"),
        "{}",
        shut[0]
    );
}

#[test]
fn our_own_tables_and_open_chains_are_no_blockage() {
    assert_eq!(
        find(vec![
            chain("inet", "cygnet_guard", "forward", "forward", "drop"),
            chain("inet", "mine", "fwd", "forward", "accept"),
        ]),
        []
    );
    assert!(blockages("nonsense", &paths()).is_err());
}

#[test]
fn what_forbids_us_to_call_is_named() {
    let closed = || {
        vec![
            chain("inet", "mine", "out", "output", "drop"),
            rule(
                "inet",
                "mine",
                "out",
                json!([interface("oifname", "lo"), {"accept": null}]),
            ),
        ]
    };
    let found = find(closed());
    assert_eq!(
        found[0].remedy,
        ["nft insert rule inet mine out udp sport 4500 accept"]
    );
    let port = |field: &str| {
        json!([{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": field}}, "right": 4500}},
               {"accept": null}])
    };
    for open in [
        port("sport"),
        port("dport"),
        json!([interface("oifname", "eth0"), {"accept": null}]),
    ] {
        let mut all = closed();
        all.push(rule("inet", "mine", "out", open));
        assert_eq!(find(all), []);
    }
}

/// What every firewall has: ufw's default, nearly.
fn usual() -> Vec<Value> {
    let state = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
    vec![
        accept(&[state]),
        accept(&[matches(json!({"meta": {"key": "iif"}}), json!("lo"))]),
        accept(&[matches(field("tcp", "dport"), json!(22))]),
        accept(&[matches(field("icmp", "type"), json!("echo-request"))]),
    ]
}

fn asked(service: Service) -> Paths {
    Paths {
        asked: vec![Asked {
            interface: "eth0".to_owned(),
            service,
        }],
        ..Paths::default()
    }
}

fn names(own: &[&str]) -> Paths {
    let own = own.iter().map(|own| own.parse().unwrap()).collect();
    asked(Service::Names { port: 53, own })
}

#[test]
fn what_devices_ask_has_to_be_let_in() {
    for (paths, what, remedy) in [
        (
            names(&["192.168.1.2/24"]),
            "devices' questions for names",
            "nft insert rule inet mine in iifname \"eth0\" meta l4proto { tcp, udp } th dport 53 accept",
        ),
        (
            asked(Service::Addresses),
            "devices' requests for an address",
            "nft insert rule inet mine in iifname \"eth0\" udp dport 67 accept",
        ),
        (
            asked(Service::Router),
            "devices' search for their IPv6 router",
            "nft insert rule inet mine in iifname \"eth0\" icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
        ),
    ] {
        let found = find_of(dropping_but(&usual()), &paths);
        assert_eq!(found.len(), 1, "{what}");
        assert_eq!(found[0].remedy, [remedy]);
        assert!(
            found[0].to_string().contains(&format!("({what})")),
            "{}",
            found[0]
        );
        let all = accept(&[matches(json!({"meta": {"key": "iifname"}}), json!("eth0"))]);
        assert_eq!(find_of(dropping_but(&[all]), &paths), [], "{what}");
    }
}

#[test]
fn what_lets_in_the_questions_of_all_devices_is_seen_in_many_forms() {
    let meta = |key: &str| json!({"meta": {"key": key}});
    let port = || matches(field("th", "dport"), json!({"set": [53, 985]}));
    let prefix = |addr: &str, len: u8| json!({"prefix": {"addr": addr, "len": len}});
    let both = names(&["192.168.1.2/24", "fd00::2/64"]);
    let open = |rules: &[Value]| find_of(dropping_but(rules), &both).is_empty();
    let new = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}});
    let not = |name: &str| json!({"match": {"op": "!=", "left": meta("iifname"), "right": name}});
    assert!(open(&[accept(&[port()])]));
    assert!(open(&[accept(&[new, port()])]));
    assert!(open(&[accept(&[not("wan0")])]));
    assert!(!open(&[accept(&[not("eth0")])]));
    assert!(!open(&[accept(&[
        matches(meta("l4proto"), json!("udp")),
        port()
    ])]));
    assert!(!open(&[accept(&[matches(
        field("udp", "dport"),
        json!(53)
    )])]));
    // Of one family, and of a part of the network, is not of all.
    let from = |family: &str, net: Value| accept(&[matches(field(family, "saddr"), net)]);
    let v4 = || from("ip", prefix("192.168.0.0", 16));
    assert!(!open(&[v4()]));
    assert!(open(&[
        v4(),
        from(
            "ip6",
            json!({"set": [{"range": ["fd00::", "fd00::ffff:ffff:ffff:ffff"]}]})
        )
    ]));
    assert!(!open(&[
        from("ip", prefix("192.168.1.0", 25)),
        from("ip6", prefix("fd00::", 64))
    ]));
    let to =
        |family: &str, address: &str| accept(&[matches(field(family, "daddr"), json!(address))]);
    assert!(open(&[to("ip", "192.168.1.2"), to("ip6", "fd00::2")]));
    assert!(!open(&[accept(&[matches(meta("nfproto"), json!("ipv4"))])]));
    // By a map of verdicts, and by a set that has a name.
    let vmap = |key: Value, of: &str, verdict: Value| json!([{"vmap": {"key": key, "data": {"set": [[of, verdict]]}}}]);
    assert!(open(&[vmap(
        meta("iifname"),
        "eth0",
        json!({"accept": null})
    )]));
    assert!(!open(&[vmap(
        meta("iifname"),
        "eth1",
        json!({"accept": null})
    )]));
    let state = || json!({"ct": {"key": "state"}});
    assert!(!open(&[vmap(
        state(),
        "established",
        json!({"accept": null})
    )]));
    let mut jumping = dropping_but(&[vmap(
        meta("iifname"),
        "eth0",
        json!({"jump": {"target": "lan"}}),
    )]);
    jumping.push(rule("inet", "mine", "lan", accept(&[port()])));
    assert_eq!(find_of(jumping, &both), []);
    let mut named = dropping_but(&[accept(&[matches(meta("iifname"), json!("@lans"))])]);
    assert_eq!(find_of(named.clone(), &both).len(), 1);
    let element = json!({"elem": {"val": "eth0", "comment": "the LAN"}});
    named.push(
        json!({"set": {"family": "inet", "table": "mine", "name": "lans", "elem": [element]}}),
    );
    assert_eq!(find_of(named, &both), []);
    // By several things at once, in a map that has a name or not.
    let key = json!({"concat": [field("ip", "protocol"), field("th", "dport")]});
    let of = |protocol: &str| json!([{"concat": [protocol, 53]}, {"accept": null}]);
    let by = |data: Value| json!([{"vmap": {"key": key, "data": data}}]);
    assert!(open(&[by(json!({"set": [of("udp"), of("tcp")]}))]));
    assert!(!open(&[by(json!({"set": [of("udp")]}))]));
    let mut named = dropping_but(&[by(json!("@ports"))]);
    assert_eq!(find_of(named.clone(), &both).len(), 1);
    let elements = [of("udp"), of("tcp")];
    named.push(
        json!({"map": {"family": "inet", "table": "mine", "name": "ports", "map": "verdict", "elem": elements}}),
    );
    assert_eq!(find_of(named, &both), []);
}

#[test]
fn who_asks_for_an_address_has_none() {
    let lan = json!({"prefix": {"addr": "192.168.1.0", "len": 24}});
    let rules = [accept(&[matches(field("ip", "saddr"), lan)])];
    assert_eq!(
        find_of(dropping_but(&rules), &asked(Service::Addresses)).len(),
        1
    );
    // Bridges, and a table of the other family, have no say.
    for family in ["bridge", "ip6"] {
        let shut = vec![chain(family, "mine", "in", "input", "drop")];
        assert_eq!(find_of(shut, &asked(Service::Addresses)), []);
    }
}

#[test]
fn answers_to_our_calls_have_to_be_let_in() {
    let client = |families: &[Family]| Paths {
        answered: families.to_vec(),
        ports: Vec::new(),
        ..paths()
    };
    let v4 = client(&[Family::V4]);
    let shut = find_of(dropping_but(&usual()[1..]), &v4);
    assert_eq!(
        shut[0].remedy,
        ["nft insert rule inet mine in ct state established,related accept"]
    );
    assert!(
        shut[0].to_string().contains("(peers' answers)"),
        "{}",
        shut[0]
    );
    let conntrack =
        json!([{"xt": {"type": "match", "name": "conntrack"}}, {"counter": {}}, {"accept": null}]);
    let from = accept(&[matches(field("udp", "sport"), json!(4500))]);
    let other = accept(&[matches(field("udp", "sport"), json!(500))]);
    for open in [usual().remove(0), conntrack.clone(), from] {
        assert_eq!(find_of(dropping_but(&[open]), &v4), []);
    }
    assert_eq!(find_of(dropping_but(&[other]), &v4).len(), 1);
    // What is opaque may let answers in; what somebody asks it lets in for certain no more.
    assert_eq!(
        find_of(dropping_but(&[conntrack]), &names(&["192.168.1.2/24"])).len(),
        1
    );
    let closed6 = vec![chain("ip6", "filter", "INPUT", "input", "drop")];
    assert_eq!(find_of(closed6.clone(), &v4), []);
    assert_eq!(find_of(closed6, &client(&Family::BOTH)).len(), 1);
}

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
    }
}

fn find(objects: Vec<Value>) -> Vec<Blockage> {
    blockages(&json!({ "nftables": objects }).to_string(), &paths()).unwrap()
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

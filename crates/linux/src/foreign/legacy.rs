//! Rules as iptables lists them (`-S`), in nft's own words: those of the old one, which nft does not show, and those of
//! the new one, of which nft shows some conditions as opaque.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

use serde_json::{Value, json};

use super::ruleset::text;

/// One family's program, and the file that tells whether it has tables. Asking the program first would
/// make the kernel load them.
const FAMILIES: [(&str, &str, &str); 2] = [
    (
        "ip",
        "iptables-legacy",
        "/proc/thread-self/net/ip_tables_names",
    ),
    (
        "ip6",
        "ip6tables-legacy",
        "/proc/thread-self/net/ip6_tables_names",
    ),
];

/// Where the rules are not read by nft.
pub(super) const TABLE: &str = "filter (iptables-legacy)";

/// The filter tables of both families, as objects of an nft ruleset; empty where there are none.
pub(super) fn ruleset() -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for (family, program, tables) in FAMILIES {
        let tables = std::fs::read_to_string(tables).unwrap_or_default();
        if !tables.lines().any(|table| table == "filter") {
            continue;
        }
        let listed = Command::new(program)
            .args(["-t", "filter", "-S"])
            // Its lock is for those who change something, and in a directory we may not write.
            .env("XTABLES_LOCKFILE", "/dev/null")
            .output();
        match listed {
            Ok(output) if output.status.success() => {
                let listing = String::from_utf8_lossy(&output.stdout);
                objects.extend(translate(family, TABLE, &listing));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot run {program}: {error}"));
            }
            Err(_) => {
                return Err(format!(
                    "there are such rules, and no {program} to read them"
                ));
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{program} -S: {}", said.trim()));
            }
        }
    }
    Ok(objects)
}

/// The new iptables' programs, and their table.
const NEW: [(&str, &str); 2] = [("ip", "iptables-nft"), ("ip6", "ip6tables-nft")];
pub(super) const NEW_TABLE: &str = "filter";

/// The objects of a ruleset, with what is opaque in tables of the new iptables told by it, where it is there.
pub(super) fn told_by_iptables(mut objects: Vec<Value>) -> Vec<Value> {
    for (family, program) in NEW {
        if !objects.iter().any(|object| is_opaque(object, family)) {
            continue;
        }
        let listed = Command::new(program).args(["-t", NEW_TABLE, "-S"]).output();
        if let Ok(output) = listed
            && output.status.success()
        {
            let listing = String::from_utf8_lossy(&output.stdout);
            objects = retold(objects, family, &listing);
        }
    }
    objects
}

fn retold(mut objects: Vec<Value>, family: &str, listing: &str) -> Vec<Value> {
    objects.retain(|object| {
        !["chain", "rule"]
            .iter()
            .any(|kind| is_of(object, kind, family))
    });
    objects.extend(translate(family, NEW_TABLE, listing));
    objects
}

fn is_of(object: &Value, kind: &str, family: &str) -> bool {
    object.get(kind).is_some_and(|object| {
        text(object, "family") == family && text(object, "table") == NEW_TABLE
    })
}

/// A rule with a condition that nft cannot tell.
fn is_opaque(object: &Value, family: &str) -> bool {
    let expressions = object
        .get("rule")
        .and_then(|rule| rule.get("expr")?.as_array());
    let mut expressions = expressions.into_iter().flatten();
    is_of(object, "rule", family) && expressions.any(|one| one.get("xt").is_some())
}

/// Chains and rules of a listing by `-S`. What is not understood stays as a condition that no path
/// meets for certain.
fn translate(family: &str, table: &str, listing: &str) -> Vec<Value> {
    let lines: Vec<Vec<String>> = listing.lines().map(words).collect();
    let chains: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| match line.as_slice() {
            [what, chain, ..] if what == "-P" || what == "-N" => Some(chain.as_str()),
            _ => None,
        })
        .collect();
    let here = |kind: &str, mut object: Value| {
        object["family"] = family.into();
        object["table"] = table.into();
        json!({ kind: object })
    };
    let mut objects = Vec::new();
    for line in &lines {
        match line.as_slice() {
            [what, chain, policy] if what == "-P" => objects.push(here(
                "chain",
                json!({"name": chain, "type": "filter", "hook": chain.to_lowercase(),
                       "policy": policy.to_lowercase()}),
            )),
            [what, chain] if what == "-N" => objects.push(here("chain", json!({"name": chain}))),
            [what, chain, rule @ ..] if what == "-A" => objects.push(here(
                "rule",
                json!({"chain": chain, "expr": expressions(family, rule, &chains)}),
            )),
            _ => {}
        }
    }
    objects
}

fn expressions(family: &str, rule: &[String], chains: &BTreeSet<&str>) -> Vec<Value> {
    let mut all = Vec::new();
    let mut words = rule.iter().map(String::as_str);
    let mut negated = false;
    while let Some(word) = words.next() {
        let mut is = |left: Value, right: Value| {
            let op = if negated { "!=" } else { "==" };
            all.push(json!({"match": {"op": op, "left": left, "right": right}}));
        };
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-i" | "-o" => {
                let key = if word == "-i" { "iifname" } else { "oifname" };
                let name = words.next().unwrap_or_default().replace('+', "*");
                is(json!({"meta": {"key": key}}), name.into());
            }
            "-p" => {
                let protocol = words.next().unwrap_or_default();
                is(json!({"meta": {"key": "l4proto"}}), protocol.into());
            }
            "--dport" | "--dports" | "--sport" | "--sports" => {
                let field = if word.starts_with("--d") {
                    "dport"
                } else {
                    "sport"
                };
                let ports: Vec<Value> = (words.next().unwrap_or_default().split(','))
                    .map(ports)
                    .collect();
                let left = json!({"payload": {"protocol": "th", "field": field}});
                is(left, json!({ "set": ports }));
            }
            "-s" | "-d" => {
                let field = if word == "-s" { "saddr" } else { "daddr" };
                let left = json!({"payload": {"protocol": family, "field": field}});
                is(left, network(words.next().unwrap_or_default()));
            }
            "--ctstate" | "--state" => {
                let states = words.next().unwrap_or_default().to_lowercase();
                let states: Vec<&str> = states.split(',').collect();
                is(json!({"ct": {"key": "state"}}), json!(states));
            }
            "--hl-eq" => {
                let limit = words.next().and_then(|limit| limit.parse::<u8>().ok());
                let left = json!({"payload": {"protocol": "ip6", "field": "hoplimit"}});
                is(left, json!(limit));
            }
            "--icmpv6-type" => {
                let kind = words.next().unwrap_or_default();
                let kind = kind.parse::<u8>().map_or(json!(kind), Value::from);
                let left = json!({"payload": {"protocol": "icmpv6", "field": "type"}});
                is(left, kind);
            }
            "-j" | "-g" => {
                all.push(match words.next().unwrap_or_default() {
                    "ACCEPT" => json!({"accept": null}),
                    "DROP" => json!({"drop": null}),
                    "REJECT" => json!({"reject": null}),
                    "RETURN" => json!({"return": null}),
                    chain if chains.contains(chain) => json!({"jump": {"target": chain}}),
                    _ => json!({"log": null}),
                });
                // What follows are the target's own options.
                break;
            }
            // Names of modules, and remarks: no conditions by themselves.
            "-m" | "--comment" => {
                words.next();
            }
            option if option.starts_with('-') => all.push(json!({"xt": option})),
            _ => {}
        }
        negated = false;
    }
    all
}

fn network(text: &str) -> Value {
    let prefix = text.split_once('/');
    let prefix = prefix.and_then(|(address, length)| Some((address, length.parse::<u8>().ok()?)));
    match prefix {
        Some((address, length)) => json!({"prefix": {"addr": address, "len": length}}),
        None => text.into(),
    }
}

fn ports(text: &str) -> Value {
    match text.split_once(':') {
        Some((low, high)) => {
            let number = |text: &str, open: u16| text.parse().unwrap_or(open);
            json!({"range": [number(low, 0), number(high, u16::MAX)]})
        }
        None => text.parse::<u16>().unwrap_or(0).into(),
    }
}

/// Words as a shell would see them: a remark stands between quotation marks.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (n, part) in line.split('"').enumerate() {
        if n % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Firewall, Paths, blockages_of};
    use super::*;

    const DOCKER: &str = "-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -m comment --comment \"accept -j ACCEPT nothing\" -j RETURN
";

    fn find(family: &str, listing: &str) -> Vec<super::super::Blockage> {
        let paths = Paths {
            tunnels: vec!["cyg0".to_owned()],
            ports: vec![4500],
            sent: vec![4500],
            uplink: Some("eth0".to_owned()),
            ..Paths::default()
        };
        blockages_of(&translate(family, TABLE, listing), &paths)
    }

    #[test]
    fn a_forward_policy_of_drop_is_found_and_its_remedy_is_for_the_old_program() {
        let found = find("ip", DOCKER);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].firewall, Firewall::Docker);
        assert_eq!(
            found[0].remedy,
            [
                "iptables-legacy -I DOCKER-USER -i cyg0 -j ACCEPT",
                "iptables-legacy -I DOCKER-USER -o cyg0 -j ACCEPT",
            ]
        );
        let cured =
            format!("{DOCKER}-A DOCKER-USER -i cyg+ -j ACCEPT\n-A DOCKER-USER -o cyg0 -j ACCEPT\n");
        assert_eq!(find("ip", &cured), []);
        let negated = format!(
            "{DOCKER}-A DOCKER-USER ! -i cyg0 -j ACCEPT\n-A DOCKER-USER ! -o cyg0 -j ACCEPT\n"
        );
        assert_eq!(find("ip", &negated).len(), 1);
    }

    #[test]
    fn ports_that_peers_call_and_that_we_send_from_have_to_be_open() {
        let closed = "-P INPUT DROP\n-P FORWARD ACCEPT\n-P OUTPUT DROP\n\
                      -A INPUT -i lo -j ACCEPT\n-A OUTPUT -m state --state ESTABLISHED -j ACCEPT\n";
        let found = find("ip6", closed);
        let remedies: Vec<_> = found.iter().flat_map(|b| &b.remedy).collect();
        assert_eq!(
            remedies,
            [
                "ip6tables-legacy -I INPUT -p udp --dport 4500 -j ACCEPT",
                "ip6tables-legacy -I OUTPUT -p udp --sport 4500 -j ACCEPT",
            ]
        );
        let open = format!(
            "{closed}-A INPUT -p udp -m multiport --dports 53,4000:5000 -j ACCEPT\n-A OUTPUT -o eth0 -j ACCEPT\n"
        );
        assert_eq!(find("ip6", &open), []);
        let tcp =
            format!("{closed}-A INPUT -p tcp -m tcp --dport 4500 -j ACCEPT\n-A OUTPUT -j ACCEPT\n");
        assert_eq!(find("ip6", &tcp).len(), 1);
    }

    #[test]
    fn what_devices_ask_is_let_in_by_network_and_by_kind() {
        use super::super::{Asked, Service};
        let asked = |service| Paths {
            asked: vec![Asked {
                interface: "eth0".to_owned(),
                service,
            }],
            ..Paths::default()
        };
        let names = asked(Service::Names {
            port: 53,
            own: vec!["192.168.1.2/24".parse().unwrap()],
        });
        let closed =
            "-P INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
        let found = |family: &str, rules: &str, paths: &Paths| {
            blockages_of(
                &translate(family, TABLE, &format!("{closed}{rules}")),
                paths,
            )
        };
        assert_eq!(
            found("ip", "", &names)[0].remedy,
            [
                "iptables-legacy -I INPUT -i eth0 -p udp --dport 53 -j ACCEPT",
                "iptables-legacy -I INPUT -i eth0 -p tcp --dport 53 -j ACCEPT",
            ]
        );
        for open in [
            "-A INPUT -s 192.168.0.0/16 -j ACCEPT\n",
            "-A INPUT -d 192.168.1.2/32 -m state --state NEW -j ACCEPT\n",
        ] {
            assert_eq!(found("ip", open, &names), [], "{open}");
        }
        let other = "-A INPUT -s 192.168.1.7/32 -j ACCEPT\n";
        assert_eq!(found("ip", other, &names).len(), 1);
        let router = asked(Service::Router);
        let kinds = [133, 135, 136].map(|kind| {
            format!(
                "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255 -j ACCEPT\n"
            )
        });
        assert_eq!(found("ip6", &kinds.concat(), &router), []);
        let shut = found("ip6", &kinds[..2].concat(), &router);
        assert_eq!(
            shut[0].remedy,
            ["ip6tables-legacy -I INPUT -i eth0 -p icmpv6 -j ACCEPT"]
        );
    }

    #[test]
    fn what_nft_shows_as_opaque_is_told_by_iptables() {
        let rule = |table: &str, condition: Value| json!({"rule": {"family": "ip", "table": table, "chain": "INPUT", "expr": [condition, {"accept": null}]}});
        let opaque = || json!({"xt": {"type": "match", "name": "udp"}});
        let plain = json!({"match": {}});
        assert!(is_opaque(&rule("filter", opaque()), "ip"));
        assert!(!is_opaque(&rule("filter", opaque()), "ip6"));
        assert!(!is_opaque(&rule("mine", opaque()), "ip"));
        assert!(!is_opaque(&rule("filter", plain), "ip"));
        let chain = json!({"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter",
                                     "hook": "input", "policy": "drop"}});
        let objects = vec![chain, rule("filter", opaque()), rule("mine", opaque())];
        let names = Paths {
            ports: vec![4500],
            ..Paths::default()
        };
        assert_eq!(blockages_of(&objects, &names).len(), 1);
        let listing = "-P INPUT DROP\n-A INPUT -p udp -m udp --dport 4500 -j ACCEPT\n";
        let retold = retold(objects, "ip", listing);
        assert_eq!(blockages_of(&retold, &names), []);
        assert!(retold.contains(&rule("mine", opaque())));
        let shut = blockages_of(&translate("ip", NEW_TABLE, "-P INPUT DROP\n"), &names);
        assert_eq!(
            shut[0].remedy,
            ["nft insert rule ip filter INPUT udp dport 4500 accept"]
        );
        // What iptables would not know again it makes itself.
        let answers = Paths {
            sent: vec![4500],
            answered: vec![cygnet_gateway::Family::V4],
            ..Paths::default()
        };
        let shut = blockages_of(&translate("ip", NEW_TABLE, "-P INPUT DROP\n"), &answers);
        assert_eq!(
            shut[0].remedy,
            ["iptables -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"]
        );
    }

    #[test]
    fn an_open_firewall_is_no_news() {
        assert_eq!(
            find(
                "ip",
                "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"
            ),
            []
        );
        assert_eq!(find("ip", ""), []);
    }
}

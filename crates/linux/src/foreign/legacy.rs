//! Rules of the old iptables, which nft does not show: `iptables-legacy -S` in nft's own words.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

use serde_json::{Value, json};

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
                objects.extend(translate(family, &String::from_utf8_lossy(&output.stdout)));
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

/// Chains and rules of a listing by `-S`. What is not understood stays as a condition that no path
/// meets for certain.
fn translate(family: &str, listing: &str) -> Vec<Value> {
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
        object["table"] = TABLE.into();
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
                json!({"chain": chain, "expr": expressions(rule, &chains)}),
            )),
            _ => {}
        }
    }
    objects
}

fn expressions(rule: &[String], chains: &BTreeSet<&str>) -> Vec<Value> {
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
        };
        blockages_of(&translate(family, listing), &paths)
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

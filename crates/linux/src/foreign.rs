//! Other people's firewalls: which of their chains drops our path, and the rule that lets it pass.
//!
//! An `accept` in our table ends our chain only; every other base chain of the hook is asked as
//! well, and one drop is enough. So a gateway beside Docker (which sets the forward policy to
//! drop), ufw or firewalld needs a rule in *their* chain, and it is for the operator to make it.

mod legacy;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::{Error, Result};

/// What has to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// TUNs that packets are forwarded from and to.
    pub tunnels: Vec<String>,
    /// UDP ports that peers call (a server: 500 and 4500); empty for a client, whose answers are
    /// let in as established everywhere.
    pub ports: Vec<u16>,
    /// UDP ports that peers are called from (a client: 500 and 4500); empty for a server, whose answers
    /// are let out as established everywhere.
    pub sent: Vec<u16>,
    /// Interface of the default route.
    pub uplink: Option<String>,
}

/// Whose chain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// Docker, or podman in its compatible mode.
    Docker,
    /// Uncomplicated firewall.
    Ufw,
    /// firewalld.
    Firewalld,
    /// Somebody else's.
    Other,
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Other => "another firewall",
        })
    }
}

/// A chain that drops our path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blockage {
    /// Whose.
    pub firewall: Firewall,
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Base chain.
    pub chain: String,
    /// `forward`, `input` or `output`.
    pub hook: String,
    /// Commands that let the path through.
    pub remedy: Vec<String>,
}

impl fmt::Display for Blockage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: Vec<String> = self.remedy.iter().map(|c| format!("`{c}`")).collect();
        write!(
            f,
            "{} drops our packets in {} {} chain {} ({} hook); let them through with {}",
            self.firewall,
            self.family,
            self.table,
            self.chain,
            self.hook,
            // Between backquotes, so that people and programs find the commands.
            commands.join(" and ")
        )
    }
}

/// Finds what blocks `paths` in a ruleset as [`crate::nft::ruleset_json`] gives it.
///
/// A base chain blocks when it ends in a drop (its policy, or a last rule without a condition)
/// and no rule reachable from it accepts the path by interface or port, or everything.
///
/// # Errors
/// [`Error::Nft`] when the text is not what nft writes.
pub fn blockages(ruleset: &str, paths: &Paths) -> Result<Vec<Blockage>> {
    let unreadable = |message: String| Error::Nft { message };
    let parsed: Value = serde_json::from_str(ruleset)
        .map_err(|e| unreadable(format!("its JSON cannot be read: {e}")))?;
    let objects = parsed
        .get("nftables")
        .and_then(Value::as_array)
        .ok_or_else(|| unreadable("its JSON has no `nftables`".to_owned()))?;
    Ok(blockages_of(objects, paths))
}

/// The same for rules of the old iptables, which the ruleset does not hold.
///
/// # Errors
/// There are such rules and they cannot be read: one sentence.
pub fn legacy_blockages(paths: &Paths) -> Result<Vec<Blockage>, String> {
    legacy::ruleset().map(|objects| blockages_of(&objects, paths))
}

fn blockages_of(objects: &[Value], paths: &Paths) -> Vec<Blockage> {
    let ruleset = Ruleset {
        chains: objects.iter().filter_map(|o| o.get("chain")).collect(),
        rules: objects.iter().filter_map(|o| o.get("rule")).collect(),
    };
    let mut found = Vec::new();
    for chain in &ruleset.chains {
        if text(chain, "type") != "filter" || text(chain, "table").starts_with("cygnet") {
            continue;
        }
        let mut remedy = Vec::new();
        let hook = text(chain, "hook");
        if !ruleset.ends_in_drop(chain) {
            continue;
        }
        match hook {
            "forward" => {
                for tunnel in &paths.tunnels {
                    for direction in ["iifname", "oifname"] {
                        let wanted = Wanted::Interface(direction, tunnel);
                        if !ruleset.accepts(chain, &wanted) {
                            remedy.push(ruleset.forward_remedy(chain, direction, tunnel));
                        }
                    }
                }
            }
            "input" => {
                for port in &paths.ports {
                    if !ruleset.accepts(chain, &Wanted::Port(*port)) {
                        remedy.push(ruleset.input_remedy(chain, *port));
                    }
                }
            }
            "output" => {
                let uplink = paths.uplink.as_deref();
                for port in &paths.sent {
                    if !ruleset.accepts(chain, &Wanted::Sent(*port, uplink)) {
                        remedy.push(ruleset.output_remedy(chain, *port));
                    }
                }
            }
            _ => {}
        }
        // firewalld's command covers both directions.
        remedy.dedup();
        if !remedy.is_empty() {
            found.push(Blockage {
                firewall: ruleset.firewall(chain),
                family: text(chain, "family").to_owned(),
                table: text(chain, "table").to_owned(),
                chain: text(chain, "name").to_owned(),
                hook: hook.to_owned(),
                remedy,
            });
        }
    }
    found
}

/// What a rule should accept.
enum Wanted<'a> {
    Interface(&'a str, &'a str),
    /// Sent to this port.
    Port(u16),
    /// Sent from this port, by this interface.
    Sent(u16, Option<&'a str>),
}

struct Ruleset<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<&'a Value>,
}

impl Ruleset<'_> {
    fn rules_of(&self, like: &Value, chain: &str) -> impl Iterator<Item = &Vec<Value>> {
        let (family, table) = (
            text(like, "family").to_owned(),
            text(like, "table").to_owned(),
        );
        let chain = chain.to_owned();
        self.rules.iter().filter_map(move |r| {
            let here = text(r, "family") == family
                && text(r, "table") == table
                && text(r, "chain") == chain;
            if here {
                r.get("expr")?.as_array()
            } else {
                None
            }
        })
    }

    fn has_chain(&self, like: &Value, name: &str) -> bool {
        self.chains.iter().any(|c| {
            text(c, "family") == text(like, "family")
                && text(c, "table") == text(like, "table")
                && text(c, "name") == name
        })
    }

    fn ends_in_drop(&self, chain: &Value) -> bool {
        let unconditional = self
            .rules_of(chain, text(chain, "name"))
            .last()
            .is_some_and(|rule| {
                rule.iter()
                    .any(|e| e.get("drop").is_some() || e.get("reject").is_some())
                    && conditions(rule).next().is_none()
            });
        text(chain, "policy") == "drop" || unconditional
    }

    fn accepts(&self, chain: &Value, wanted: &Wanted<'_>) -> bool {
        let mut seen = BTreeSet::new();
        self.chain_accepts(chain, text(chain, "name"), wanted, &mut seen)
    }

    fn chain_accepts(
        &self,
        like: &Value,
        name: &str,
        wanted: &Wanted<'_>,
        seen: &mut BTreeSet<String>,
    ) -> bool {
        if !seen.insert(name.to_owned()) {
            return false;
        }
        self.rules_of(like, name).any(|rule| {
            if !conditions(rule).all(|c| wanted.meets(c)) {
                return false;
            }
            let jumps = rule.iter().filter_map(|e| {
                e.get("jump")
                    .or_else(|| e.get("goto"))?
                    .get("target")?
                    .as_str()
            });
            rule.iter().any(|e| e.get("accept").is_some())
                || jumps
                    .collect::<Vec<_>>()
                    .iter()
                    .any(|target| self.chain_accepts(like, target, wanted, seen))
        })
    }

    fn firewall(&self, chain: &Value) -> Firewall {
        if text(chain, "table") == "firewalld" {
            Firewall::Firewalld
        } else if self.has_chain(chain, "ufw-user-forward")
            || self.has_chain(chain, "ufw6-user-forward")
        {
            Firewall::Ufw
        } else if self.has_chain(chain, "DOCKER-USER") || self.has_chain(chain, "DOCKER") {
            Firewall::Docker
        } else {
            Firewall::Other
        }
    }

    fn forward_remedy(&self, chain: &Value, direction: &str, tunnel: &str) -> String {
        let target = match self.firewall(chain) {
            Firewall::Firewalld => {
                return format!(
                    "firewall-cmd --permanent --zone=trusted --add-interface={tunnel} && firewall-cmd --reload"
                );
            }
            Firewall::Ufw => {
                let way = if direction == "iifname" { "in" } else { "out" };
                return format!("ufw route allow {way} on {tunnel}");
            }
            // Docker leaves this chain alone when it restarts.
            Firewall::Docker if self.has_chain(chain, "DOCKER-USER") => "DOCKER-USER",
            _ => text(chain, "name"),
        };
        if let Some(program) = legacy_program(chain) {
            let option = if direction == "iifname" { "-i" } else { "-o" };
            return format!("{program} -I {target} {option} {tunnel} -j ACCEPT");
        }
        format!(
            "nft insert rule {} {} {target} {direction} \"{tunnel}\" accept",
            text(chain, "family"),
            text(chain, "table")
        )
    }

    fn input_remedy(&self, chain: &Value, port: u16) -> String {
        match self.firewall(chain) {
            Firewall::Firewalld => {
                format!("firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload")
            }
            Firewall::Ufw => format!("ufw allow {port}/udp"),
            Firewall::Docker | Firewall::Other => port_remedy(chain, "dport", port),
        }
    }

    fn output_remedy(&self, chain: &Value, port: u16) -> String {
        match self.firewall(chain) {
            Firewall::Ufw => format!("ufw allow out proto udp from any port {port}"),
            _ => port_remedy(chain, "sport", port),
        }
    }
}

fn port_remedy(chain: &Value, side: &str, port: u16) -> String {
    let name = text(chain, "name");
    match legacy_program(chain) {
        Some(program) => format!("{program} -I {name} -p udp --{side} {port} -j ACCEPT"),
        None => format!(
            "nft insert rule {} {} {name} udp {side} {port} accept",
            text(chain, "family"),
            text(chain, "table")
        ),
    }
}

/// The program that knows this chain, if nft does not.
fn legacy_program(chain: &Value) -> Option<&'static str> {
    match (text(chain, "table"), text(chain, "family")) {
        (legacy::TABLE, "ip") => Some("iptables-legacy"),
        (legacy::TABLE, _) => Some("ip6tables-legacy"),
        _ => None,
    }
}

impl Wanted<'_> {
    /// Whether a condition holds for every packet of the path.
    fn meets(&self, condition: &Value) -> bool {
        let Some(test) = condition.get("match") else {
            return false;
        };
        let (Some(left), Some(right)) = (test.get("left"), test.get("right")) else {
            return false;
        };
        if test.get("op").and_then(Value::as_str) != Some("==") {
            return false;
        }
        let meta = left
            .get("meta")
            .and_then(|m| m.get("key"))
            .and_then(Value::as_str);
        match self {
            Self::Interface(direction, name) => {
                meta == Some(direction) && any(right, &|v| names_interface(v, name))
            }
            Self::Port(port) => is_udp(left, right) || names_port(left, right, "dport", *port),
            Self::Sent(port, uplink) => {
                let leaves = |v: &Value| uplink.is_some_and(|name| names_interface(v, name));
                is_udp(left, right)
                    || names_port(left, right, "sport", *port)
                    // A peer is called at the same port as a rule.
                    || names_port(left, right, "dport", *port)
                    || (meta == Some("oifname") && any(right, &leaves))
            }
        }
    }
}

fn payload<'v>(left: &'v Value, name: &str) -> Option<&'v str> {
    left.get("payload")?.get(name)?.as_str()
}

fn is_udp(left: &Value, right: &Value) -> bool {
    let udp = |v: &Value| v.as_str() == Some("udp") || v.as_u64() == Some(17);
    let key = left.get("meta").and_then(|m| m.get("key"));
    let names_protocol = key.and_then(Value::as_str) == Some("l4proto")
        || matches!(payload(left, "field"), Some("protocol" | "nexthdr"));
    names_protocol && any(right, &udp)
}

fn names_port(left: &Value, right: &Value, side: &str, port: u16) -> bool {
    matches!(payload(left, "protocol"), Some("udp" | "th"))
        && payload(left, "field") == Some(side)
        && any(right, &|v| holds_port(v, port))
}

/// Everything in a rule that a packet has to meet: matches, and whatever else is neither a
/// verdict nor a remark.
fn conditions(rule: &[Value]) -> impl Iterator<Item = &Value> {
    const NO_CONDITION: [&str; 9] = [
        "accept", "drop", "reject", "jump", "goto", "counter", "log", "comment", "return",
    ];
    rule.iter()
        .filter(|e| !NO_CONDITION.iter().any(|name| e.get(name).is_some()))
}

/// A value, or one of a set.
fn any(value: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    match value.get("set").and_then(Value::as_array) {
        Some(set) => set.iter().any(test),
        None => test(value),
    }
}

fn names_interface(value: &Value, name: &str) -> bool {
    value.as_str().is_some_and(|v| match v.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => v == name,
    })
}

fn holds_port(value: &Value, port: u16) -> bool {
    let is = |v: &Value| v.as_u64();
    match value
        .get("range")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([low, high]) => is(low)
            .zip(is(high))
            .is_some_and(|(l, h)| (l..=h).contains(&port.into())),
        _ => is(value) == Some(port.into()),
    }
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;

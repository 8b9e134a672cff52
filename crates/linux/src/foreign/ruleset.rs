//! A ruleset in nft's own words, and whether a chain of it lets a packet through for certain.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cygnet_gateway::Family;
use ipnet::IpNet;
use serde_json::Value;

use super::Firewall;

/// A packet, or many: what is not told of it may be anything.
#[derive(Debug, Clone, Default)]
pub(super) struct Packet<'a> {
    /// `iifname` or `oifname`, and what that is.
    pub(super) interface: Option<(&'static str, &'a str)>,
    /// As nft calls it.
    pub(super) protocol: Option<&'static str>,
    /// `sport` or `dport`, and what that is. It is enough that a rule names one.
    pub(super) ports: Vec<(&'static str, u16)>,
    /// A message of ICMPv6, by number and as nft calls it.
    pub(super) icmp: Option<(u8, &'static str)>,
    /// Of its connection.
    pub(super) state: Option<&'static str>,
    pub(super) family: Option<Family>,
    /// Its sender is one of these, any of them.
    pub(super) from: Option<IpNet>,
    pub(super) to: Option<IpAddr>,
    /// It is taken to meet conditions that nft cannot tell.
    pub(super) opaque: bool,
}

pub(super) struct Ruleset<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<&'a Value>,
    sets: Vec<&'a Value>,
    maps: Vec<&'a Value>,
}

impl<'a> Ruleset<'a> {
    pub(super) fn new(objects: &'a [Value]) -> Self {
        let all = |kind: &str| objects.iter().filter_map(|o| o.get(kind)).collect();
        Self {
            chains: all("chain"),
            rules: all("rule"),
            sets: all("set"),
            maps: all("map"),
        }
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &'a Value> {
        self.chains.iter().copied()
    }

    fn rules_of(&self, like: &Value, chain: &str) -> impl Iterator<Item = &'a Vec<Value>> {
        let rules = self.rules.iter();
        rules.filter_map(
            move |rule| match is_beside(rule, like) && text(rule, "chain") == chain {
                true => rule.get("expr")?.as_array(),
                false => None,
            },
        )
    }

    pub(super) fn has_chain(&self, like: &Value, name: &str) -> bool {
        let mut chains = self.chains.iter();
        chains.any(|chain| is_beside(chain, like) && text(chain, "name") == name)
    }

    pub(super) fn firewall(&self, chain: &Value) -> Firewall {
        let has = |name| self.has_chain(chain, name);
        if text(chain, "table") == "firewalld" {
            Firewall::Firewalld
        } else if has("ufw-user-forward") || has("ufw6-user-forward") {
            Firewall::Ufw
        } else if has("DOCKER-USER") || has("DOCKER") {
            Firewall::Docker
        } else {
            Firewall::Other
        }
    }

    /// Whether what no rule of it accepts is dropped.
    pub(super) fn ends_in_drop(&self, chain: &Value) -> bool {
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

    /// Whether a rule that is reached from it accepts the packet.
    pub(super) fn accepts(&self, chain: &Value, packet: &Packet<'_>) -> bool {
        let mut seen = BTreeSet::new();
        self.chain_accepts(chain, text(chain, "name"), packet, &mut seen)
    }

    fn chain_accepts(
        &self,
        like: &Value,
        name: &str,
        packet: &Packet<'_>,
        seen: &mut BTreeSet<String>,
    ) -> bool {
        if !seen.insert(name.to_owned()) {
            return false;
        }
        self.rules_of(like, name).any(|rule| {
            let met = |condition: &Value| {
                let opaque = packet.opaque && condition.get("xt").is_some();
                opaque || condition.get("vmap").is_some() || self.is_met(like, condition, packet)
            };
            if !conditions(rule).all(met) {
                return false;
            }
            let mapped = rule.iter().filter_map(|e| e.get("vmap"));
            let mapped = mapped.flat_map(|vmap| self.verdicts(like, vmap, packet));
            let verdicts: Vec<&Value> = rule.iter().chain(mapped).collect();
            verdicts.into_iter().any(|verdict| {
                let jump = verdict.get("jump").or_else(|| verdict.get("goto"));
                let target = jump.and_then(|jump| jump.get("target")?.as_str());
                verdict.get("accept").is_some()
                    || target.is_some_and(|target| self.chain_accepts(like, target, packet, seen))
            })
        })
    }

    /// Whether a condition holds for the packet, and all that are like it.
    fn is_met(&self, like: &Value, condition: &Value, packet: &Packet<'_>) -> bool {
        let of = |test: &'_ Value| {
            let op = test.get("op")?.as_str()?;
            let values = self.values(like, test.get("right")?);
            let not = match op {
                "==" | "in" => false,
                "!=" => true,
                _ => return None,
            };
            Some(packet.meets(test.get("left")?, &values, not))
        };
        condition.get("match").and_then(of).unwrap_or(false)
    }

    /// The right side of a condition: a value, one of a list, or of a set that may have a name.
    fn values<'v>(&self, like: &Value, right: &'v Value) -> Vec<&'v Value>
    where
        'a: 'v,
    {
        let named = right.as_str().and_then(|name| name.strip_prefix('@'));
        let elements = match named {
            Some(name) => {
                let mut sets = self.sets.iter().filter(|set| is_beside(set, like));
                let set = sets.find(|set| text(set, "name") == name);
                let elements = set.and_then(|set| set.get("elem"));
                elements.and_then(Value::as_array)
            }
            None => right.get("set").unwrap_or(right).as_array(),
        };
        match (elements, named) {
            (Some(elements), _) => elements.iter().map(bare).collect(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![right],
        }
    }

    /// What a map of verdicts, which may have a name, has for the packet.
    fn verdicts(&self, like: &Value, vmap: &'a Value, packet: &Packet<'_>) -> Vec<&'a Value> {
        let data = vmap.get("data");
        let named = data
            .and_then(Value::as_str)
            .and_then(|name| name.strip_prefix('@'));
        let pairs = match named {
            Some(name) => {
                let mut maps = self.maps.iter().filter(|map| is_beside(map, like));
                let map = maps.find(|map| text(map, "name") == name);
                map.and_then(|map| map.get("elem"))
            }
            None => data.and_then(|data| data.get("set")),
        };
        let pairs = pairs.and_then(Value::as_array).into_iter().flatten();
        let met = pairs.filter_map(|pair| {
            let (value, verdict) = (pair.get(0)?, pair.get(1)?);
            let met = packet.meets(vmap.get("key")?, &[bare(value)], false);
            met.then_some(verdict)
        });
        met.collect()
    }
}

impl Packet<'_> {
    /// Whether it comes to a chain of this family at all.
    pub(super) fn comes_to(&self, chain: &Value) -> bool {
        match text(chain, "family") {
            "inet" => true,
            "ip" => self.family != Some(Family::V6),
            "ip6" => self.family != Some(Family::V4),
            // Bridges and ARP see none of it, or see it again later.
            _ => false,
        }
    }

    /// Whether what stands on the left of a condition is, for this packet, one of these values; or is `not`.
    fn meets(&self, left: &Value, values: &[&Value], not: bool) -> bool {
        let any = |test: &dyn Fn(&Value) -> bool| values.iter().any(|value| test(value));
        let key = |of: &str| left.get(of).and_then(|it| it.get("key")?.as_str());
        if let Some(meta @ ("iifname" | "iif" | "oifname" | "oif")) = key("meta") {
            // By name and by number, which nft tells as a name.
            return self.interface.is_some_and(|(way, name)| {
                way.starts_with(meta) && any(&|value| names_interface(value, name)) != not
            });
        }
        if not {
            return false;
        }
        if let Some(parts) = left.get("concat").and_then(Value::as_array) {
            return any(&|value| {
                let values = value.get("concat").and_then(Value::as_array);
                values.is_some_and(|values| {
                    let mut pairs = parts.iter().zip(values);
                    parts.len() == values.len()
                        && pairs.all(|(part, value)| self.meets(part, &[value], false))
                })
            });
        }
        match (key("meta"), key("ct")) {
            (Some("l4proto"), _) => return any(&|value| self.is_protocol(value)),
            (Some("nfproto"), _) => {
                return any(&|value| match self.family {
                    Some(Family::V4) => value == "ipv4",
                    Some(Family::V6) => value == "ipv6",
                    None => false,
                });
            }
            (_, Some("state")) => {
                return self.state.is_some_and(|state| any(&|value| value == state));
            }
            _ => {}
        }
        let Some(payload) = left.get("payload") else {
            return false;
        };
        match (text(payload, "protocol"), text(payload, "field")) {
            ("ip", "protocol") | ("ip6", "nexthdr") => any(&|value| self.is_protocol(value)),
            ("icmpv6", "type") => self.icmp.is_some_and(|(number, name)| {
                any(&|value| value == name || value.as_u64() == Some(number.into()))
            }),
            // Others are from beyond the link, and heeded by nobody (RFC 4861 §6.1, §7.1).
            ("ip6", "hoplimit") => self.icmp.is_some() && any(&|value| value.as_u64() == Some(255)),
            ("ip" | "ip6", "saddr") => self
                .from
                .is_some_and(|from| any(&|value| holds_all(value, from))),
            ("ip" | "ip6", "daddr") => self
                .to
                .is_some_and(|to| any(&|value| holds_all(value, to.into()))),
            (protocol @ ("udp" | "tcp" | "th"), side @ ("sport" | "dport")) => {
                (protocol == "th" || self.protocol == Some(protocol))
                    && self
                        .ports
                        .iter()
                        .filter(|(of, _)| *of == side)
                        .any(|(_, port)| any(&|value| holds_port(value, *port)))
            }
            _ => false,
        }
    }

    fn is_protocol(&self, value: &Value) -> bool {
        self.protocol.is_some_and(|protocol| {
            let number = match protocol {
                "tcp" => 6,
                "udp" => 17,
                _ => 58,
            };
            value == protocol || value.as_u64() == Some(number)
        })
    }
}

/// An element of a set without a comment, or a timeout.
fn bare(element: &Value) -> &Value {
    match element.get("elem") {
        Some(inner) => inner.get("val").unwrap_or(inner),
        None => element,
    }
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

/// Of the same table.
fn is_beside(one: &Value, other: &Value) -> bool {
    ["family", "table"]
        .iter()
        .all(|key| text(one, key) == text(other, key))
}

fn names_interface(value: &Value, name: &str) -> bool {
    value.as_str().is_some_and(|v| match v.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => v == name,
    })
}

fn holds_port(value: &Value, port: u16) -> bool {
    let is = |v: &Value| v.as_u64();
    match range(value) {
        Some((low, high)) => is(low)
            .zip(is(high))
            .is_some_and(|(l, h)| (l..=h).contains(&port.into())),
        None => is(value) == Some(port.into()),
    }
}

/// Whether every address of a network is one of these: an address, a prefix, a range.
fn holds_all(value: &Value, net: IpNet) -> bool {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some((low, high)) = range(value) {
        let (Some(low), Some(high)) = (address(low), address(high)) else {
            return false;
        };
        return low.is_ipv4() == net.addr().is_ipv4()
            && low <= net.network()
            && net.broadcast() <= high;
    }
    let prefix = |prefix: &Value| {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        IpNet::new(address(prefix.get("addr")?)?, length).ok()
    };
    let held = match value.get("prefix") {
        Some(of) => prefix(of),
        None => address(value).map(IpNet::from),
    };
    held.is_some_and(|held| held.contains(&net))
}

fn range(value: &Value) -> Option<(&Value, &Value)> {
    match value.get("range")?.as_array()?.as_slice() {
        [low, high] => Some((low, high)),
        _ => None,
    }
}

pub(super) fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

//! What has to pass a chain: by which packets that shows, and which command lets it pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_gateway::Family;
use ipnet::{IpNet, Ipv6Net};
use serde_json::Value;

use super::ruleset::{Packet, Ruleset, text};
use super::{Asked, Firewall, Paths, QUESTIONS, Service, legacy};

/// Of all hosts of a link (RFC 4291 §2.4).
const LINK_LOCAL: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    10,
));
/// Where addresses are asked for (RFC 2131 §4.1).
const DHCP: u16 = 67;
/// Messages that a router gets (RFC 4861 §4), by number and as nft calls them.
const DISCOVERY: [(u8, &str); 3] = [
    (133, "nd-router-solicit"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
];

/// One thing of all that has to pass.
pub(super) enum Wanted<'a> {
    /// What is forwarded from (`iifname`) a TUN or to it (`oifname`).
    Forwarded(&'static str, &'a str),
    /// What peers send to this port of ours of their own accord.
    Called(u16, Option<&'a str>),
    /// What we send to peers from this port.
    Calls(u16, Option<&'a str>),
    /// What peers answer to that.
    Answers(u16, Family, Option<&'a str>),
    /// What devices of the LAN ask.
    Asked(&'a Asked),
}

impl<'a> Wanted<'a> {
    /// All that passes this hook.
    pub(super) fn at(hook: &str, paths: &'a Paths) -> Vec<Self> {
        let uplink = paths.uplink.as_deref();
        match hook {
            "forward" => {
                let ways = ["iifname", "oifname"];
                let tunnels = paths.tunnels.iter();
                let of = |tunnel: &'a String| ways.map(|way| Self::Forwarded(way, tunnel));
                tunnels.flat_map(of).collect()
            }
            "input" => {
                let called = paths.ports.iter().map(|port| Self::Called(*port, uplink));
                let answers = paths.sent.iter().flat_map(|port| {
                    let families = paths.answered.iter();
                    families.map(|family| Self::Answers(*port, *family, uplink))
                });
                let asked = paths.asked.iter().map(Self::Asked);
                called.chain(answers).chain(asked).collect()
            }
            "output" => {
                let calls = paths.sent.iter().map(|port| Self::Calls(*port, uplink));
                calls.collect()
            }
            _ => Vec::new(),
        }
    }

    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Forwarded(..) => "what is forwarded",
            Self::Called(..) => "peers' calls",
            Self::Calls(..) => "calls to peers",
            Self::Answers(..) => "peers' answers",
            Self::Asked(asked) => match asked.service {
                Service::Names { .. } => QUESTIONS,
                Service::Addresses => "devices' requests for an address",
                Service::Router => "devices' search for their IPv6 router",
            },
        }
    }

    /// Packets of it; each has to pass.
    pub(super) fn packets(&self) -> Vec<Packet<'a>> {
        let udp = |ports: &[(&'static str, u16)]| Packet {
            protocol: Some("udp"),
            ports: ports.to_vec(),
            ..Packet::default()
        };
        let new = Some("new");
        match *self {
            Self::Forwarded(way, tunnel) => vec![Packet {
                interface: Some((way, tunnel)),
                ..Packet::default()
            }],
            Self::Called(port, uplink) => vec![Packet {
                interface: uplink.map(|name| ("iifname", name)),
                state: new,
                ..udp(&[("dport", port)])
            }],
            // A peer is called at the same port as a rule, and answers from it.
            Self::Calls(port, uplink) => vec![Packet {
                interface: uplink.map(|name| ("oifname", name)),
                state: new,
                ..udp(&[("sport", port), ("dport", port)])
            }],
            Self::Answers(port, family, uplink) => vec![Packet {
                interface: uplink.map(|name| ("iifname", name)),
                state: Some("established"),
                family: Some(family),
                // iptables' own match of states is opaque here, and in nearly every firewall.
                opaque: true,
                ..udp(&[("sport", port), ("dport", port)])
            }],
            Self::Asked(Asked { interface, service }) => {
                let from = |from: IpNet, to: IpAddr, packet: Packet<'a>| Packet {
                    interface: Some(("iifname", interface)),
                    family: Some(Family::of_net(from)),
                    from: Some(from),
                    to: Some(to),
                    state: packet.state.or(new),
                    ..packet
                };
                match service {
                    Service::Names { port, own } => {
                        let asked = own.iter().flat_map(|own| {
                            ["udp", "tcp"].map(|protocol| {
                                let packet = Packet {
                                    protocol: Some(protocol),
                                    ..udp(&[("dport", *port)])
                                };
                                from(own.trunc(), own.addr(), packet)
                            })
                        });
                        asked.collect()
                    }
                    Service::Addresses => {
                        let nobody = IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                        let all = IpAddr::V4(Ipv4Addr::BROADCAST);
                        vec![from(nobody, all, udp(&[("dport", DHCP)]))]
                    }
                    Service::Router => {
                        let found = DISCOVERY.map(|kind| {
                            let packet = Packet {
                                protocol: Some("ipv6-icmp"),
                                icmp: Some(kind),
                                // The kernel keeps no state of these.
                                state: Some("untracked"),
                                ..Packet::default()
                            };
                            Packet {
                                // To groups of many kinds, and to this machine.
                                to: None,
                                ..from(LINK_LOCAL, Ipv6Addr::UNSPECIFIED.into(), packet)
                            }
                        });
                        found.into()
                    }
                }
            }
        }
    }

    /// Commands that let it pass.
    pub(super) fn remedy(
        &self,
        ruleset: &Ruleset<'_>,
        chain: &Value,
        firewall: Firewall,
    ) -> Vec<String> {
        let insert = |target: &str, legacy: &[String], rule: &str| match self.iptables(chain) {
            Some(program) => {
                let each = legacy.iter();
                each.map(|rule| format!("{program} -I {target} {rule} -j ACCEPT"))
                    .collect()
            }
            None => {
                let (family, table) = (text(chain, "family"), text(chain, "table"));
                vec![format!(
                    "nft insert rule {family} {table} {target} {rule} accept"
                )]
            }
        };
        let name = text(chain, "name");
        let at_port = |side: &str, port: u16| {
            let legacy = format!("-p udp --{side} {port}");
            insert(name, &[legacy], &format!("udp {side} {port}"))
        };
        let firewalld = |what: &str| {
            vec![format!(
                "firewall-cmd --permanent {what} && firewall-cmd --reload"
            )]
        };
        match (self, firewall) {
            (Self::Forwarded(_, tunnel), Firewall::Firewalld) => {
                // It covers both directions.
                firewalld(&format!("--zone=trusted --add-interface={tunnel}"))
            }
            (Self::Forwarded(way, tunnel), Firewall::Ufw) => {
                let way = if *way == "iifname" { "in" } else { "out" };
                vec![format!("ufw route allow {way} on {tunnel}")]
            }
            (Self::Forwarded(way, tunnel), _) => {
                // Docker leaves this chain alone when it restarts.
                let target =
                    match firewall == Firewall::Docker && ruleset.has_chain(chain, "DOCKER-USER") {
                        true => "DOCKER-USER",
                        false => name,
                    };
                let option = if *way == "iifname" { "-i" } else { "-o" };
                let legacy = format!("{option} {tunnel}");
                insert(target, &[legacy], &format!("{way} \"{tunnel}\""))
            }
            (Self::Called(port, _), Firewall::Firewalld) => {
                firewalld(&format!("--add-port={port}/udp"))
            }
            (Self::Called(port, _), Firewall::Ufw) => vec![format!("ufw allow {port}/udp")],
            (Self::Called(port, _), _) => at_port("dport", *port),
            (Self::Calls(port, _), Firewall::Ufw) => {
                vec![format!("ufw allow out proto udp from any port {port}")]
            }
            (Self::Calls(port, _), _) => at_port("sport", *port),
            (Self::Answers(..), _) => {
                let legacy = "-m conntrack --ctstate ESTABLISHED,RELATED".to_owned();
                insert(name, &[legacy], "ct state established,related")
            }
            (Self::Asked(Asked { interface, service }), _) => match (service, firewall) {
                (Service::Names { port, .. }, Firewall::Firewalld) => firewalld(&format!(
                    "{} --add-port={port}/udp --add-port={port}/tcp",
                    zone_of(interface)
                )),
                (Service::Names { port, .. }, Firewall::Ufw) => {
                    vec![format!("ufw allow in on {interface} to any port {port}")]
                }
                (Service::Names { port, .. }, _) => {
                    let legacy = ["udp", "tcp"]
                        .map(|protocol| format!("-i {interface} -p {protocol} --dport {port}"));
                    let rule = format!(
                        "iifname \"{interface}\" meta l4proto {{ tcp, udp }} th dport {port}"
                    );
                    insert(name, &legacy, &rule)
                }
                (Service::Addresses, Firewall::Firewalld) => {
                    firewalld(&format!("{} --add-port={DHCP}/udp", zone_of(interface)))
                }
                (Service::Addresses, Firewall::Ufw) => vec![format!(
                    "ufw allow in on {interface} to any port {DHCP} proto udp"
                )],
                (Service::Addresses, _) => {
                    let legacy = format!("-i {interface} -p udp --dport {DHCP}");
                    let rule = format!("iifname \"{interface}\" udp dport {DHCP}");
                    insert(name, &[legacy], &rule)
                }
                (Service::Router, _) => {
                    let legacy = format!("-i {interface} -p icmpv6");
                    let kinds = DISCOVERY.map(|(_, kind)| kind).join(", ");
                    let rule = format!("iifname \"{interface}\" icmpv6 type {{ {kinds} }}");
                    insert(name, &[legacy], &rule)
                }
            },
        }
    }

    /// The program of iptables that has to make the rule, if nft cannot: it does not know the chain, or the program would
    /// not know the rule, and leave it out where it saves its own.
    fn iptables(&self, chain: &Value) -> Option<&'static str> {
        let is_beyond_it = matches!(self, Self::Answers(..) | Self::Asked(..));
        match (text(chain, "table"), text(chain, "family")) {
            (legacy::TABLE, "ip") => Some("iptables-legacy"),
            (legacy::TABLE, _) => Some("ip6tables-legacy"),
            (legacy::NEW_TABLE, "ip") if is_beyond_it => Some("iptables"),
            (legacy::NEW_TABLE, "ip6") if is_beyond_it => Some("ip6tables"),
            _ => None,
        }
    }
}

/// The zone that firewalld has an interface in: without it the port is opened in the default one.
fn zone_of(interface: &str) -> String {
    format!("--zone=\"$(firewall-cmd --get-zone-of-interface={interface})\"")
}

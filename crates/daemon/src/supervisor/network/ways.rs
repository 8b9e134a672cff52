//! The ways our packets take to the peers, and which changes of them concern a tunnel.
//!
//! Addresses and routes come and go all day on a machine with containers or router advertisements. A
//! tunnel is concerned when the next hop to its peer is another, or an address it sends from is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cygnet_config::Config;
use cygnet_gateway::OUTER_MARK;
use cygnet_ike::policy::{Connection, Host, Remote};
use cygnet_linux::{Netlink, RouteTo};

use super::inputs::Live;
use crate::world::{WORLD_V4, WORLD_V6};

/// What a way leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A peer's outer address.
    Peer(IpAddr),
    /// A peer whose address is not known yet; the default route of a family.
    Anywhere { ipv6: bool },
    /// Those who call us, in a family. They look after themselves, but for the address of ours that they call.
    Callers { ipv6: bool },
}

impl Target {
    /// Whether it is somebody whom we call.
    fn is_called(&self) -> bool {
        !matches!(self, Self::Callers { .. })
    }
}

/// Whom we talk to.
pub(super) fn targets(config: &Config, live: &BTreeMap<String, Live>) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    let answers = |connection: &Arc<Connection>| connection.remote == Remote::Any;
    if config.policy.connections.iter().any(answers) {
        targets.extend([false, true].map(|ipv6| Target::Callers { ipv6 }));
    }
    for name in config.tunnels.keys() {
        let connection = config.policy.connection(name);
        let Some(Remote::Hosts { servers, .. }) = connection.map(|c| &c.remote) else {
            continue;
        };
        if let Some(peer) = live.get(name).filter(|l| l.up).and_then(|l| l.endpoint) {
            targets.insert(Target::Peer(peer));
            continue;
        }
        for server in servers {
            match &server.host {
                Host::Address(address) => {
                    targets.insert(Target::Peer(*address));
                }
                Host::Name(_) => {
                    targets.extend([false, true].map(|ipv6| Target::Anywhere { ipv6 }));
                }
            }
        }
    }
    targets
}

/// What is at this moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    /// `None`: no way.
    ways: BTreeMap<Target, Option<RouteTo>>,
    /// There is a way to the internet, of whichever family.
    outside: bool,
    /// All of this machine's addresses.
    addresses: BTreeSet<IpAddr>,
}

impl Present {
    pub(super) async fn read(
        netlink: &Netlink,
        targets: BTreeSet<Target>,
    ) -> Result<Self, cygnet_linux::Error> {
        if targets.is_empty() {
            return Ok(Self::default());
        }
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        let carried = |way: &RouteTo| links.iter().any(|l| l.index == way.index && l.carrier);
        let v4 = netlink.default_route(false).await?.filter(carried);
        let v6 = netlink.default_route(true).await?.filter(carried);
        let outside = v4.is_some() || v6.is_some();
        let mut ways = BTreeMap::new();
        for target in targets {
            let to = async |address| {
                // An error is the kernel's word that there is none.
                let way = netlink.next_hop(address, Some(OUTER_MARK)).await;
                way.ok().filter(carried)
            };
            let way = match target {
                Target::Peer(peer) => to(peer).await,
                Target::Callers { ipv6: false } => to(WORLD_V4).await,
                Target::Callers { ipv6: true } => to(WORLD_V6).await,
                Target::Anywhere { ipv6: false } => v4.clone(),
                Target::Anywhere { ipv6: true } => v6.clone(),
            };
            ways.insert(target, way);
        }
        Ok(Self {
            ways,
            outside,
            addresses: addresses.iter().map(|a| a.net.addr()).collect(),
        })
    }

    fn found(&self) -> impl Iterator<Item = (&Target, &RouteTo)> {
        let ways = self.ways.iter();
        ways.filter_map(|(target, way)| Some((target, way.as_ref()?)))
    }

    /// Whether there is a way to anybody whom we call.
    fn leads_to_called(&self) -> bool {
        self.found().any(|(target, _)| target.is_called())
    }
}

/// The ways as the engine knows them.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: BTreeMap<Target, Known>,
    /// There was none at all.
    lost: bool,
}

#[derive(Debug)]
struct Known {
    index: u32,
    gateway: Option<IpAddr>,
    /// Addresses of ours that packets may have left from.
    sources: BTreeSet<IpAddr>,
    /// There is no way any more but to elsewhere.
    away: bool,
}

/// What the engine has to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Addresses that packets left from and that are no more.
    pub(super) gone: Vec<IpAddr>,
    /// A next hop is another, or a peer is out of reach while others are not: it may have an address of
    /// the other family.
    pub(super) egress: bool,
}

impl Ways {
    /// What the engine has to know. A way that was gone for a while and is as it was concerns
    /// nobody whose tunnel is still up, and all who wait to call when none is.
    pub(super) fn change(&self, present: &Present, any_up: bool) -> Option<Change> {
        let mut gone = BTreeSet::new();
        let mut egress = self.lost && !any_up && present.leads_to_called();
        for (target, way) in &present.ways {
            let Some(known) = self.known.get(target) else {
                continue;
            };
            match way {
                Some(_) if !target.is_called() => {}
                None if !target.is_called() => continue,
                Some(way) => egress |= (known.index, known.gateway) != (way.index, way.gateway),
                None if present.outside && !known.away => egress = true,
                None => continue,
            }
            gone.extend(known.sources.difference(&present.addresses).copied());
        }
        let gone: Vec<_> = gone.into_iter().collect();
        (egress || !gone.is_empty()).then_some(Change { gone, egress })
    }

    /// Takes what is for known.
    pub(super) fn learn(&mut self, present: &Present) {
        let mut wanted = present.ways.keys();
        self.lost = wanted.any(Target::is_called) && !present.leads_to_called();
        let wanted = &present.ways;
        self.known.retain(|target, _| wanted.contains_key(target));
        for (target, known) in &mut self.known {
            let lacks = wanted.get(target).is_some_and(Option::is_none);
            known.away = lacks && present.outside;
        }
        for (target, way) in present.found() {
            let known = self.known.entry(*target).or_insert_with(|| Known {
                index: way.index,
                gateway: way.gateway,
                sources: BTreeSet::new(),
                away: false,
            });
            (known.index, known.gateway) = (way.index, way.gateway);
            known.sources.retain(|a| present.addresses.contains(a));
            let source = way.source.filter(|a| present.addresses.contains(a));
            known.sources.extend(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "203.0.113.5";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn way(index: u32, gateway: &str, source: &str) -> RouteTo {
        RouteTo {
            index,
            interface: String::new(),
            source: Some(address(source)),
            gateway: Some(address(gateway)),
        }
    }

    fn present(way: Option<RouteTo>, addresses: &[&str]) -> Present {
        Present {
            ways: [(Target::Peer(address(PEER)), way)].into(),
            outside: false,
            addresses: addresses.iter().map(|a| address(a)).collect(),
        }
    }

    /// What comes one after the other, and which of it the engine hears of.
    fn heard(any_up: bool, all: &[Present]) -> Vec<bool> {
        changes(any_up, all).iter().map(Option::is_some).collect()
    }

    fn changes(any_up: bool, all: &[Present]) -> Vec<Option<Change>> {
        let mut ways = Ways::default();
        let mut one = |present: &Present| {
            let change = ways.change(present, any_up);
            ways.learn(present);
            change
        };
        all.iter().map(&mut one).collect()
    }

    fn home(addresses: &[&str]) -> Present {
        present(Some(way(2, "192.168.1.1", "192.168.1.2")), addresses)
    }

    #[test]
    fn foreign_addresses_concern_nobody() {
        let all = [
            home(&["192.168.1.2"]),
            home(&["192.168.1.2", "172.17.0.1"]),
            home(&["192.168.1.2", "2001:db8::7"]),
            home(&["192.168.1.2"]),
        ];
        assert_eq!(heard(true, &all), [false; 4]);
        assert_eq!(heard(false, &all), [false; 4]);
    }

    #[test]
    fn another_next_hop_concerns_the_tunnel() {
        let both = ["192.168.1.2", "10.0.0.7"];
        let all = [
            home(&both),
            present(Some(way(2, "192.168.1.254", "192.168.1.2")), &both),
            present(Some(way(3, "192.168.1.254", "192.168.1.2")), &both),
        ];
        assert_eq!(heard(true, &all), [false, true, true]);
    }

    #[test]
    fn an_address_in_use_concerns_it_when_it_goes() {
        let new = || Some(way(2, "192.168.1.1", "192.168.1.3"));
        let all = [
            home(&["192.168.1.2"]),
            // Whoever is up still sends from the first.
            present(new(), &["192.168.1.2", "192.168.1.3"]),
            present(new(), &["192.168.1.3"]),
            present(new(), &["192.168.1.3"]),
        ];
        let change = Change {
            gone: vec![address("192.168.1.2")],
            egress: false,
        };
        assert_eq!(changes(true, &all), [None, None, Some(change), None]);
    }

    #[test]
    fn a_link_that_was_cut_and_is_as_before_concerns_only_those_who_wait() {
        let here = ["192.168.1.2"];
        let cut = [home(&here), present(None, &here), home(&here), home(&here)];
        assert_eq!(heard(true, &cut), [false; 4]);
        assert_eq!(heard(false, &cut), [false, false, true, false]);
        let elsewhere = present(Some(way(3, "10.0.0.1", "10.0.0.7")), &["10.0.0.7"]);
        let moved = [home(&here), present(None, &[]), elsewhere];
        assert_eq!(heard(true, &moved), [false, false, true]);
    }

    #[test]
    fn a_peer_out_of_reach_concerns_the_tunnel_when_there_is_another_way_out() {
        let here = ["192.168.1.2", "2001:db8::7"];
        let other_family = |addresses: &[&str]| Present {
            outside: true,
            ..present(None, addresses)
        };
        let left = Change {
            gone: vec![address("192.168.1.2")],
            egress: true,
        };
        let all = [
            home(&here),
            other_family(&here[1..]),
            other_family(&here[1..]),
            home(&here),
        ];
        assert_eq!(changes(true, &all), [None, Some(left), None, None]);
    }

    #[test]
    fn whoever_is_called_is_concerned_by_the_loss_of_its_address_alone() {
        let server = |way: Option<RouteTo>, addresses: &[&str]| Present {
            ways: [(Target::Callers { ipv6: false }, way)].into(),
            ..present(None, addresses)
        };
        let all = [
            server(Some(way(2, "192.0.2.1", "192.0.2.7")), &["192.0.2.7"]),
            // Another provider, and the old address is still there.
            server(
                Some(way(3, "198.51.100.1", "198.51.100.7")),
                &["192.0.2.7", "198.51.100.7"],
            ),
            server(
                Some(way(3, "198.51.100.1", "198.51.100.7")),
                &["198.51.100.7"],
            ),
            server(None, &[]),
            server(
                Some(way(3, "198.51.100.1", "198.51.100.8")),
                &["198.51.100.8"],
            ),
        ];
        let gone = |text| {
            Some(Change {
                gone: vec![address(text)],
                egress: false,
            })
        };
        let heard = [None, None, gone("192.0.2.7"), None, gone("198.51.100.7")];
        assert_eq!(changes(true, &all), heard);
        assert_eq!(changes(false, &all), heard);
    }

    #[test]
    fn the_ways_looked_at_are_those_to_whom_we_call_and_of_those_who_call() {
        let config = Config::parse(
            "t",
            "[tunnel.a]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
             [tunnel.b]\nremote = \"vpn.example\"\npsk = \"k\"\nvirtual_address = true\n\
             [tunnel.c]\nremote = \"any\"\nremote_identity = \"c\"\npsk = \"k\"\n\
             local_networks = [\"10.1.0.0/24\"]\nremote_networks = [\"10.2.0.0/24\"]\n",
            &mut |p| Err(format!("no {p}")),
        );
        let config = config.unwrap();
        let peer = |text: &str| Target::Peer(address(text));
        let anywhere = [false, true].map(|ipv6| Target::Anywhere { ipv6 });
        let down = targets(&config, &BTreeMap::new());
        let callers = [false, true].map(|ipv6| Target::Callers { ipv6 });
        let all = [peer(PEER)].into_iter().chain(anywhere).chain(callers);
        assert_eq!(down, all.collect());
        let up = Live {
            up: true,
            endpoint: Some(address("198.51.100.9")),
            ..Live::default()
        };
        let live = [("b".to_owned(), up.clone()), ("c".to_owned(), up)].into();
        let up = targets(&config, &live);
        let all = [peer("198.51.100.9"), peer(PEER)]
            .into_iter()
            .chain(callers);
        assert_eq!(up, all.collect());
    }
}

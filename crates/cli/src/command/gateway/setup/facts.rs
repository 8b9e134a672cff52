//! What there is to choose from: tunnels of the configuration, networks of the machine, who else serves the LAN.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use cygnet_config::{Config, Tunnel};
use cygnet_gateway::{Mac, is_private};
use cygnet_linux::Netlink;
use ipnet::{IpNet, Ipv4Net};

use super::words::list;

/// Devices that are shown.
const SEEN_MAX: usize = 12;
/// Interfaces that programs make for machines and containers within this one.
const INNER: [&str; 7] = ["docker", "br-", "virbr", "veth", "lxc", "lxd", "cni"];

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The likeliest first.
    pub(super) tunnels: Vec<String>,
    /// Those of them that do not lead to the internet, with the networks that they reach.
    pub(super) apart: BTreeMap<String, Vec<IpNet>>,
    pub(super) legs: Vec<Leg>,
    /// Where this machine's own way to the internet leads.
    pub(super) uplink: Option<Uplink>,
    /// Interfaces by which a router announces itself (IPv6).
    pub(super) announced: Vec<String>,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) interface: String,
    pub(super) router: Option<IpAddr>,
}

/// An interface that may be the LAN's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    /// This machine's addresses there.
    pub(super) v4: Vec<Ipv4Net>,
    pub(super) v6: Vec<IpNet>,
    /// Its cable is in.
    pub(super) carrier: bool,
    /// The first address is lent by another machine.
    pub(super) lent: bool,
    /// Devices that were heard: MAC address and IPv4 address.
    pub(super) seen: Vec<(Mac, Ipv4Addr)>,
}

impl Leg {
    /// What of its networks counts as the LAN.
    pub(super) fn networks(&self) -> Vec<IpNet> {
        let v4 = self.v4.iter().map(|net| IpNet::V4(net.trunc()));
        let v6 = self.v6.iter().map(IpNet::trunc);
        let mut all: Vec<IpNet> = v4.filter(is_private).chain(v6).collect();
        all.dedup();
        all
    }

    fn is_inner(&self) -> bool {
        INNER.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

impl Facts {
    /// Looks; nothing is changed. `ours`: the TUNs of tunnels and server.
    pub(super) async fn gather(config: &Config, ours: &[String]) -> Result<Self, String> {
        let netlink = Netlink::connect().map_err(|error| error.to_string())?;
        let look = async {
            let links = netlink.links().await?;
            let addresses = netlink.addresses().await?;
            let neighbours = netlink.neighbours().await?;
            let uplinks = [
                netlink.default_route(false).await?,
                netlink.default_route(true).await?,
            ];
            let announced = netlink.announced().await?;
            Ok::<_, cygnet_linux::Error>((links, addresses, neighbours, uplinks, announced))
        };
        let (links, addresses, neighbours, uplinks, announced) =
            look.await.map_err(|error| error.to_string())?;
        let mac = |octets: &[u8]| <[u8; 6]>::try_from(octets).ok().and_then(Mac::new);
        let [uplink, uplink6] = uplinks.map(|way| {
            way.map(|way| Uplink {
                interface: way.interface,
                router: way.gateway,
            })
        });
        let routers: Vec<IpAddr> = [&uplink, &uplink6]
            .into_iter()
            .flatten()
            .filter_map(|uplink| uplink.router)
            .collect();
        let mut legs = Vec::new();
        for link in links {
            if link.name == "lo" || ours.contains(&link.name) || mac(&link.mac).is_none() {
                continue;
            }
            let mut leg = Leg {
                mac: mac(&link.mac),
                carrier: link.carrier,
                name: link.name,
                ..Leg::default()
            };
            for address in addresses.iter().filter(|a| a.index == link.index) {
                match address.net {
                    IpNet::V4(net) => {
                        leg.lent |= leg.v4.is_empty() && !address.permanent;
                        leg.v4.push(net);
                    }
                    IpNet::V6(net) if net.addr().is_unicast_link_local() => {}
                    IpNet::V6(_) => leg.v6.push(address.net),
                }
            }
            let mut seen: Vec<(Mac, Ipv4Addr)> = neighbours
                .iter()
                .filter(|it| it.index == link.index && !routers.contains(&it.address))
                .filter_map(|it| match it.address {
                    IpAddr::V4(address) => Some((mac(&it.mac)?, address)),
                    IpAddr::V6(_) => None,
                })
                .collect();
            seen.sort_by_key(|(_, address)| *address);
            seen.truncate(SEEN_MAX);
            leg.seen = seen;
            legs.push(leg);
        }
        legs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            tunnels: tunnels(config),
            apart: apart(config),
            legs,
            uplink,
            announced,
        })
    }

    pub(super) fn leg(&self, name: &str) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.name == name)
    }

    /// Whether devices at this leg have IPv6, as far as it is seen from here.
    pub(super) fn has_ipv6(&self, leg: &Leg) -> bool {
        !leg.v6.is_empty() || self.announced.contains(&leg.name)
    }

    /// Interfaces that can be the LAN's, the likeliest first: with a private network and no way to the internet, then the
    /// one that leads to the router.
    pub(super) fn lans(&self) -> Vec<&Leg> {
        let mut all: Vec<&Leg> = self
            .legs
            .iter()
            .filter(|leg| !leg.networks().is_empty() && !leg.v4.is_empty())
            .collect();
        let uplink = self.uplink.as_ref().map(|uplink| &uplink.interface);
        all.sort_by_key(|leg| (leg.is_inner(), !leg.carrier, uplink == Some(&leg.name)));
        all
    }

    /// Where this interface stands to the way to the internet.
    pub(super) fn position(&self, lan: &[String]) -> String {
        let Some(uplink) = &self.uplink else {
            return "this machine has no way to the internet at present (no default route)"
                .to_owned();
        };
        let by = match uplink.router {
            Some(router) => format!("the router {router}"),
            None => "the internet".to_owned(),
        };
        match lan.contains(&uplink.interface) {
            true => format!("one leg: {} leads to {by} as well", uplink.interface),
            false => format!(
                "two legs: the LAN is at {}, and {} leads to {by}",
                list(lan),
                uplink.interface
            ),
        }
    }

    /// Routers in an interface's networks.
    pub(super) fn routers(&self, leg: &Leg) -> Vec<Ipv4Addr> {
        let router = self.uplink.as_ref().and_then(|uplink| uplink.router);
        match router {
            Some(IpAddr::V4(router)) if leg.v4.iter().any(|net| net.contains(&router)) => {
                vec![router]
            }
            _ => Vec::new(),
        }
    }
}

/// Tunnels that a LAN may leave by, those to the internet first, of them those that ask for an address: there is one as a
/// rule.
fn tunnels(config: &Config) -> Vec<String> {
    let mut all: Vec<_> = config.tunnels.iter().collect();
    all.sort_by_key(|(_, tunnel)| (!leads_to_internet(tunnel), !tunnel.virtual_address));
    all.into_iter().map(|(name, _)| name.clone()).collect()
}

fn apart(config: &Config) -> BTreeMap<String, Vec<IpNet>> {
    let all = config.tunnels.iter();
    all.filter(|(_, tunnel)| !leads_to_internet(tunnel))
        .map(|(name, tunnel)| (name.clone(), tunnel.remote_networks.clone()))
        .collect()
}

/// To that of IPv4, by one network or by several that are all of it together.
fn leads_to_internet(tunnel: &Tunnel) -> bool {
    let reached = IpNet::aggregate(&tunnel.remote_networks);
    let mut reached = reached.iter().filter(|net| net.addr().is_ipv4());
    reached.any(|net| net.prefix_len() == 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn leg(name: &str, net: &str) -> Leg {
        Leg {
            name: name.to_owned(),
            mac: Mac::new([2, 0, 0, 0, 0, 2]),
            v4: vec![net.parse().unwrap()],
            carrier: true,
            ..Leg::default()
        }
    }

    pub(in super::super) fn facts(legs: Vec<Leg>) -> Facts {
        Facts {
            tunnels: vec!["home".to_owned()],
            legs,
            uplink: Some(Uplink {
                interface: "eth0".to_owned(),
                router: Some([192, 168, 1, 1].into()),
            }),
            ..Facts::default()
        }
    }

    #[test]
    fn the_lan_is_where_the_internet_is_not_if_there_are_two_legs() {
        let names = |facts: &Facts| -> Vec<String> {
            facts.lans().iter().map(|leg| leg.name.clone()).collect()
        };
        let one = facts(vec![leg("eth0", "192.168.1.2/24")]);
        assert_eq!(names(&one), ["eth0"]);
        assert!(
            one.position(&["eth0".into()])
                .starts_with("one leg: eth0 leads to the router 192.168.1.1")
        );
        let two = facts(vec![
            leg("docker0", "172.17.0.1/16"),
            leg("eth0", "192.168.1.2/24"),
            leg("eth1", "10.1.0.1/24"),
        ]);
        assert_eq!(names(&two), ["eth1", "eth0", "docker0"]);
        assert!(
            two.position(&["eth1".into()])
                .starts_with("two legs: the LAN is at eth1, and eth0")
        );
        let public = facts(vec![leg("eth0", "203.0.113.7/24")]);
        assert!(names(&public).is_empty());
        let mut unplugged = two.clone();
        unplugged.legs[2].carrier = false;
        assert_eq!(names(&unplugged)[0], "eth0");
    }

    #[test]
    fn a_site_is_no_way_to_the_internet() {
        let text = "[tunnel.branch]\nremote = \"203.0.113.7\"\npsk = \"k\"\nlocal_networks = [\"10.1.0.0/24\"]\n\
                    remote_networks = [\"10.2.0.0/24\"]\n\
                    [tunnel.halves]\nremote = \"203.0.113.6\"\npsk = \"k\"\nlocal_networks = [\"10.1.0.0/24\"]\n\
                    remote_networks = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n\
                    [tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";
        let config = Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap();
        assert_eq!(tunnels(&config), ["home", "halves", "branch"]);
        let reached: Vec<IpNet> = vec!["10.2.0.0/24".parse().unwrap()];
        assert_eq!(
            apart(&config),
            BTreeMap::from([("branch".to_owned(), reached)])
        );
    }

    #[test]
    fn a_router_is_of_the_lan_that_it_is_in() {
        let facts = facts(vec![
            leg("eth0", "192.168.1.2/24"),
            leg("eth1", "10.1.0.1/24"),
        ]);
        let routers = |name: &str| facts.routers(facts.leg(name).unwrap());
        assert_eq!(routers("eth0"), [Ipv4Addr::new(192, 168, 1, 1)]);
        assert!(routers("eth1").is_empty());
    }
}

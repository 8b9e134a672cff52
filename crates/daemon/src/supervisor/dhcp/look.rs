//! From the file and the machine to what is lent and advertised.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_config::{Advertise, Dhcp, Gateway};
use cygnet_dhcp::Settings;
use cygnet_gateway::Mac;
use cygnet_linux::Netlink;
use ipnet::{IpNet, Ipv4Net};

use crate::dhcp::Router;
use crate::error::StartError;
use crate::supervisor::start::Loaded;

/// Which of the sections is about it: there is one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Section {
    Dhcp(Dhcp),
    Advertise {
        section: Advertise,
        /// Devices' questions for names are answered on this machine.
        answers: bool,
    },
}

impl Section {
    pub(super) fn of(gateway: &Gateway) -> Option<Self> {
        let dhcp = gateway.dhcp.clone().map(Self::Dhcp);
        dhcp.or_else(|| {
            Some(Self::Advertise {
                section: gateway.advertise.clone()?,
                answers: gateway.dns.is_some(),
            })
        })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Dhcp(_) => Kind::Dhcp,
            Self::Advertise { .. } => Kind::Advertise,
        }
    }
}

/// A section by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Kind {
    Dhcp,
    Advertise,
}

impl Kind {
    /// A warning: what comes of it that the process does not run.
    pub(super) fn hindered(self, why: &str) -> String {
        match self {
            Self::Dhcp => format!("[gateway.dhcp] no addresses are lent: {why}"),
            Self::Advertise => format!(
                "[gateway.advertise] this machine is not advertised as a router, so where another one advertises itself IPv6 \
                 of devices goes past this machine: {why}"
            ),
        }
    }
}

/// All that the process is started with, but for the leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct Wanted {
    pub(super) kind: Kind,
    pub(super) interface: String,
    /// Its number: another interface of the same name needs other sockets.
    index: u32,
    pub(super) lent: Option<Lent>,
    pub(super) router: Option<Router>,
    /// A router is to be advertised, and cannot be: the interface has no IPv6.
    pub(super) no_ipv6: bool,
}

/// Addresses to lend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct Lent {
    /// For people.
    pub(super) range: String,
    pub(super) settings: Settings,
    /// This machine's own address is lent to it.
    pub(super) borrowed: bool,
}

impl Wanted {
    /// Whether a process that was started with this has to end for that: what it lends, or its sockets are others.
    pub(super) fn is_another_process(&self, other: &Self) -> bool {
        let work = |it: &Self| {
            let settings = it.lent.as_ref().map(|lent| lent.settings.clone());
            let router = (it.router.as_ref()).map(|router| (router.interface, router.mac));
            (it.interface.clone(), it.index, settings, router)
        };
        work(self) != work(other)
    }
}

/// What this machine has on an interface.
#[derive(Clone, Debug, Default)]
pub(in crate::supervisor) struct Leg {
    index: u32,
    mac: Vec<u8>,
    pub(in crate::supervisor) v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Addr>,
    /// Those of `v4` that somebody lent.
    borrowed: Vec<Ipv4Addr>,
    /// This machine's own way to the internet, if that is in the LAN.
    pub(in crate::supervisor) routers: Vec<Ipv4Addr>,
}

impl Leg {
    /// Looks at the machine.
    pub(in crate::supervisor) async fn look(interface: &str) -> Result<Self, String> {
        let netlink = Netlink::connect().map_err(|e| e.to_string())?;
        let link = netlink.link(interface).await.map_err(|e| e.to_string())?;
        let addresses = netlink.addresses().await.map_err(|e| e.to_string())?;
        let mut leg = Self {
            index: link.index,
            mac: link.mac,
            ..Self::default()
        };
        for address in addresses.iter().filter(|a| a.index == link.index) {
            match address.net {
                IpNet::V4(net) => {
                    leg.v4.push(net);
                    leg.borrowed
                        .extend((!address.permanent).then(|| net.addr()));
                }
                IpNet::V6(net) => leg.v6.push(net.addr()),
            }
        }
        leg.v6.sort();
        let way = netlink
            .default_route(false)
            .await
            .map_err(|e| e.to_string())?;
        // With two legs it is in another network.
        if let Some(IpAddr::V4(router)) = way.and_then(|way| way.gateway)
            && leg.v4.iter().any(|net| net.contains(&router))
        {
            leg.routers.push(router);
        }
        Ok(leg)
    }

    fn mac(&self, interface: &str) -> Result<Mac, String> {
        let octets = <[u8; 6]>::try_from(self.mac.as_slice()).ok();
        octets
            .and_then(Mac::new)
            .ok_or_else(|| format!("{interface} has no MAC address: expected an Ethernet or Wi-Fi"))
    }

    /// The router to advertise, if that can be: RFC 4861 §4.2: it is done from a link-local address.
    fn router(&self, mac: Mac, dns: Vec<Ipv6Addr>) -> Option<Router> {
        let ipv6 = self.v6.iter().any(Ipv6Addr::is_unicast_link_local);
        ipv6.then_some(Router {
            interface: self.index,
            mac,
            dns,
        })
    }

    /// An address of ours that a resolver is asked at from everywhere on the LAN.
    fn resolver(&self) -> Option<Ipv6Addr> {
        let mut good = self.v6.iter().filter(|a| !a.is_unicast_link_local());
        good.next().copied()
    }
}

/// Whether what is to be lent fits this machine, as far as that can be seen now: for `cygnet check`.
pub(crate) fn check(loaded: &Loaded) -> Result<(), StartError> {
    let gateway = loaded.config.gateway.as_ref();
    let Some(dhcp) = gateway.and_then(|gateway| gateway.dhcp.as_ref()) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let looked = runtime.map_err(|e| e.to_string());
    // Without a look there is nothing to contradict: the interface may be plugged in later.
    let Ok(leg) = looked.and_then(|runtime| runtime.block_on(Leg::look(&dhcp.interface))) else {
        return Ok(());
    };
    let bundle = &loaded.bundle;
    dhcp.fit(&bundle.name, &bundle.text, &leg.v4, &leg.routers)?;
    Ok(())
}

/// `name` and `text`: of the configuration, for messages.
pub(super) async fn look(section: &Section, name: &str, text: &str) -> Result<Wanted, String> {
    match section {
        Section::Dhcp(dhcp) => {
            let leg = Leg::look(&dhcp.interface).await?;
            lending(dhcp, name, text, &leg)
        }
        Section::Advertise { section, answers } => {
            let leg = Leg::look(&section.interface).await?;
            advertised(section, *answers, &leg)
        }
    }
}

fn advertised(section: &Advertise, answers: bool, leg: &Leg) -> Result<Wanted, String> {
    let interface = &section.interface;
    let dns = match &section.dns {
        Some(named) => named.clone(),
        None if answers => leg.resolver().into_iter().collect(),
        None => Vec::new(),
    };
    let router = leg.router(leg.mac(interface)?, dns).ok_or_else(|| {
        format!(
            "{interface} has no IPv6; switch it on (`sysctl net.ipv6.conf.{interface}.disable_ipv6=0`), or IPv6 off in the \
             other router"
        )
    })?;
    Ok(Wanted {
        kind: Kind::Advertise,
        interface: interface.clone(),
        index: leg.index,
        lent: None,
        router: Some(router),
        no_ipv6: false,
    })
}

fn lending(dhcp: &Dhcp, name: &str, text: &str, leg: &Leg) -> Result<Wanted, String> {
    let own = dhcp.fit(name, text, &leg.v4, &leg.routers);
    // A line a mistake: `status` has a sentence.
    let own = own.map_err(|error| error.to_string().replace('\n', "; "))?;
    let mac = leg.mac(&dhcp.interface)?;
    let (mut dns, mut dns6) = (Vec::new(), Vec::new());
    match &dhcp.dns {
        None => {
            dns.push(own.addr());
            dns6.extend(leg.resolver());
        }
        Some(resolvers) => {
            for resolver in resolvers {
                match resolver {
                    IpAddr::V4(resolver) => dns.push(*resolver),
                    IpAddr::V6(resolver) => dns6.push(*resolver),
                }
            }
        }
    }
    let range = dhcp.range.get_ref();
    let reservations = dhcp.reservations.iter();
    // A second address of ours may come and go (keepalived), and be one that would be lent. Others are nothing to us.
    let is_lent = |address: &Ipv4Addr| {
        let mut reserved = dhcp.reservations.values();
        (range.first..=range.last).contains(address) || reserved.any(|r| r.get_ref() == address)
    };
    let ours = leg.v4.iter().map(Ipv4Net::addr);
    let ours = ours.filter(|address| *address != own.addr() && is_lent(address));
    let advertised = dhcp.router_advertisements;
    let router = leg.router(mac, dns6).filter(|_| advertised);
    Ok(Wanted {
        kind: Kind::Dhcp,
        interface: dhcp.interface.clone(),
        index: leg.index,
        lent: Some(Lent {
            range: range.to_string(),
            settings: Settings {
                server: own.addr(),
                mac,
                network: own.trunc(),
                first: range.first,
                last: range.last,
                lease_time: dhcp.lease_time,
                dns,
                reservations: reservations
                    .map(|(mac, address)| (*mac, *address.get_ref()))
                    .collect(),
                excluded: leg.routers.iter().copied().chain(ours).collect(),
            },
            borrowed: leg.borrowed.contains(&own.addr()),
        }),
        no_ipv6: advertised && router.is_none(),
        router,
    })
}

#[cfg(test)]
mod tests {
    use cygnet_config::Config;

    use super::*;

    fn of(lines: &str, leg: &Leg) -> Result<Wanted, String> {
        let text = format!(
            "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
             [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n\
             [gateway.dhcp]\nrange = \"192.168.1.100-192.168.1.199\"\n{lines}"
        );
        let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
        let dhcp = config.gateway.unwrap().dhcp.unwrap();
        lending(&dhcp, "t", &text, leg)
    }

    fn lent(lines: &str, leg: &Leg) -> Lent {
        of(lines, leg).unwrap().lent.unwrap()
    }

    fn leg() -> Leg {
        Leg {
            index: 7,
            mac: vec![2, 0, 0, 0, 0, 2],
            v4: vec!["192.168.1.2/24".parse().unwrap()],
            v6: vec!["fd00::2".parse().unwrap(), "fe80::2".parse().unwrap()],
            borrowed: Vec::new(),
            routers: vec![[192, 168, 1, 1].into()],
        }
    }

    #[test]
    fn this_machine_is_router_and_resolver() {
        let wanted = of("", &leg()).unwrap();
        let settings = &lent("", &leg()).settings;
        assert_eq!(settings.server, Ipv4Addr::new(192, 168, 1, 2));
        assert_eq!(settings.dns, [settings.server]);
        assert_eq!(settings.network.to_string(), "192.168.1.0/24");
        let excluded: Vec<&Ipv4Addr> = settings.excluded.iter().collect();
        assert_eq!(excluded, [&Ipv4Addr::new(192, 168, 1, 1)]);
        let second = Leg {
            v4: vec![
                "192.168.1.2/24".parse().unwrap(),
                "192.168.1.150/32".parse().unwrap(),
            ],
            ..leg()
        };
        let excluded = lent("", &second).settings.excluded;
        assert!(excluded.contains(&Ipv4Addr::new(192, 168, 1, 150)));
        assert_eq!(excluded.len(), 2);
        let elsewhere = Leg {
            v4: vec![
                "192.168.1.2/24".parse().unwrap(),
                "10.9.9.1/24".parse().unwrap(),
            ],
            ..leg()
        };
        let elsewhere = of("", &elsewhere).unwrap();
        assert!(!of("", &leg()).unwrap().is_another_process(&elsewhere));
        assert!(!lent("", &leg()).borrowed);
        let by_another = Leg {
            borrowed: vec![settings.server],
            ..leg()
        };
        assert!(lent("", &by_another).borrowed);
        let router = wanted.router.unwrap();
        assert_eq!(router.interface, 7);
        assert_eq!(router.dns, ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn resolvers_that_are_named_go_by_their_family() {
        let wanted = of("dns = [\"9.9.9.9\", \"2620:fe::fe\"]", &leg()).unwrap();
        assert_eq!(
            wanted.lent.unwrap().settings.dns,
            [Ipv4Addr::new(9, 9, 9, 9)]
        );
        let dns6: Ipv6Addr = "2620:fe::fe".parse().unwrap();
        assert_eq!(wanted.router.unwrap().dns, [dns6]);
        let without = of("router_advertisements = false", &leg()).unwrap();
        assert_eq!((without.router, without.no_ipv6), (None, false));
    }

    #[test]
    fn another_address_of_its_own_ends_no_process() {
        let wanted = of("", &leg()).unwrap();
        let moved = Leg {
            v6: vec!["fd00::3".parse().unwrap(), "fe80::2".parse().unwrap()],
            ..leg()
        };
        let moved = of("", &moved).unwrap();
        assert_ne!(wanted, moved);
        assert!(!wanted.is_another_process(&moved));
        let without = of("router_advertisements = false", &leg()).unwrap();
        assert!(wanted.is_another_process(&without));
        let shorter = of("lease_time = \"10m\"", &leg()).unwrap();
        assert!(wanted.is_another_process(&shorter));
        let plugged = Leg { index: 8, ..leg() };
        assert!(wanted.is_another_process(&of("", &plugged).unwrap()));
    }

    #[test]
    fn advertised_alone_it_is_a_resolver_where_it_answers() {
        let alone = |dns: Option<&str>, answers: bool, leg: &Leg| {
            let section = Advertise {
                interface: "eth0".to_owned(),
                dns: dns.map(|dns| vec![dns.parse().unwrap()]),
            };
            advertised(&section, answers, leg)
        };
        let own: Ipv6Addr = "fd00::2".parse().unwrap();
        let named: Ipv6Addr = "2620:fe::fe".parse().unwrap();
        for (dns, answers, expected) in [
            (None, true, &[own][..]),
            (None, false, &[]),
            (Some("2620:fe::fe"), true, &[named]),
        ] {
            let wanted = alone(dns, answers, &leg()).unwrap();
            assert_eq!(wanted.lent, None);
            assert_eq!(wanted.router.unwrap().dns, expected);
        }
        let without = Leg {
            v6: Vec::new(),
            ..leg()
        };
        let why = alone(None, true, &without).unwrap_err();
        assert!(why.contains("eth0 has no IPv6"), "{why}");
        // What was lent as well is another process.
        let lending = of("", &leg()).unwrap();
        assert!(lending.is_another_process(&alone(None, true, &leg()).unwrap()));
    }

    #[test]
    fn without_ipv6_addresses_are_lent_all_the_same() {
        let off = Leg {
            v6: Vec::new(),
            ..leg()
        };
        let wanted = of("", &off).unwrap();
        assert_eq!((wanted.router, wanted.no_ipv6), (None, true));
        assert!(!of("router_advertisements = false", &off).unwrap().no_ipv6);
    }

    #[test]
    fn why_not_is_one_sentence_with_its_place() {
        let moved = Leg {
            v4: vec!["10.0.0.2/24".parse().unwrap()],
            ..leg()
        };
        let why = of("", &moved).unwrap_err();
        assert!(why.starts_with("t:9:9: "), "{why}");
        assert!(!why.contains('\n'), "{why}");
        let tun = Leg {
            mac: Vec::new(),
            ..leg()
        };
        assert!(of("", &tun).unwrap_err().contains("no MAC address"));
    }
}

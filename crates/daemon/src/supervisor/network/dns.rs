//! Where this machine answers the LAN's questions for names, and the way into the tunnel for them.
//!
//! Devices that go direct are answered at a port of their own, to which the plan turns what they ask: which device a
//! question is from is known to nftables, by its MAC address, and not to who answers.
//!
//! Port 53 of our addresses on the LAN is bound here, before the plan turns devices' questions there: whatever else
//! listened on it would answer them, and ask outside. The sockets outlive the process that serves them.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cygnet_config::{Config, Dns, Dot};
use cygnet_gateway::{DevicePolicy, InterfaceName};
use ipnet::IpNet;

use super::inputs::{self, Live};
use super::lan;
use super::machine::Machine;
use crate::dns::messages::{Inside, NoWay, Place};

const PORT: u16 = 53;
/// Until a port that is in use is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// What the process that answers has to know of the network.
#[derive(Debug)]
pub(in crate::supervisor) struct Around {
    /// A UDP socket and a TCP listener for each.
    pub(in crate::supervisor) places: Vec<(Place, [OwnedFd; 2])>,
    /// Networks of the LAN.
    pub(in crate::supervisor) clients: Vec<IpNet>,
    /// The way into the tunnel, or why there is none.
    pub(in crate::supervisor) tunnel: Result<Inside, NoWay>,
}

/// The sockets, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// A UDP socket and a TCP listener by place.
    bound: BTreeMap<Place, [OwnedFd; 2]>,
    /// Addresses by interface, in the order of the interfaces'.
    addresses: Vec<(InterfaceName, IpAddr)>,
    /// Whether devices that go direct are answered for themselves, at each of these.
    direct: bool,
    /// Why not all are bound.
    pub(super) trouble: Option<String>,
    told: Option<Told>,
}

/// What the supervisor's loop knows.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    places: Vec<Place>,
    clients: Vec<IpNet>,
    tunnel: Result<Inside, NoWay>,
}

impl Listeners {
    /// Binds our ports of this machine's addresses on the LAN; of others it lets go when it is told to
    /// ([`Self::let_go`]): the configuration may stay as it was, and needs them. The error names the first that
    /// another program has, and has not let go of within that time; the rest is bound. An address that is not quite there
    /// yet is no error: it is asked for again by the next call.
    pub(super) fn follow(
        &mut self,
        config: &Config,
        machine: &Machine,
        patience: Duration,
    ) -> Result<(), String> {
        let addresses = wanted(config, machine);
        let direct = anybody_goes_direct(config);
        let (mut trouble, mut taken) = (None, None);
        for place in places(&addresses, direct) {
            if self.bound.contains_key(&place) {
                continue;
            }
            match bind_within(at(place), patience) {
                Ok(fds) => {
                    self.bound.insert(place, fds);
                }
                Err(error) => {
                    let told = tell(at(place), &error);
                    // Who goes direct is answered through the tunnel then.
                    if error.kind() == ErrorKind::AddrInUse && !place.direct {
                        taken = taken.or_else(|| Some(told.clone()));
                    }
                    trouble = trouble.or(Some(told));
                }
            }
        }
        let is_bound =
            |address: IpAddr, direct| self.bound.contains_key(&Place { address, direct });
        let bound = addresses.into_iter();
        let bound: Vec<_> = bound.filter(|(_, a)| is_bound(*a, false)).collect();
        self.direct = direct && bound.iter().all(|(_, address)| is_bound(*address, true));
        self.addresses = bound;
        self.trouble = trouble;
        taken.map_or(Ok(()), Err)
    }

    /// Lets go of what this configuration, which is in force, does not need.
    pub(super) fn let_go(&mut self, config: &Config, machine: &Machine) {
        let needed: Vec<Place> =
            places(&wanted(config, machine), anybody_goes_direct(config)).collect();
        self.bound.retain(|place, _| needed.contains(place));
    }

    /// For the plan: where questions are turned to.
    pub(super) fn plan(&self, config: &Config) -> Option<cygnet_gateway::Dns> {
        dns(config).map(|dns| cygnet_gateway::Dns {
            addresses: self.addresses.clone(),
            direct: self.direct,
            refuse_dot: dns.dot == Dot::Refuse,
        })
    }

    /// What the supervisor's loop does not know yet: `Some(None)` where nobody is answered any more.
    pub(super) fn news(
        &mut self,
        config: &Config,
        live: &BTreeMap<String, Live>,
        machine: &Machine,
    ) -> Option<Option<Around>> {
        let now = dns(config).map(|dns| Told {
            places: self.places(),
            clients: clients(config, machine),
            tunnel: tunnel(config, dns, live, machine),
        });
        if now == self.told {
            return None;
        }
        let around = match &now {
            None => None,
            Some(now) => {
                let places = now.places.iter().filter_map(|place| {
                    let [udp, tcp] = self.bound.get(place)?;
                    Some((*place, [udp.try_clone().ok()?, tcp.try_clone().ok()?]))
                });
                Some(Around {
                    places: places.collect(),
                    clients: now.clients.clone(),
                    tunnel: now.tunnel.clone(),
                })
            }
        };
        self.told = now;
        Some(around)
    }

    /// Where devices are answered: nobody but direct ones reaches what is for them, as long as the plan says so.
    fn places(&self) -> Vec<Place> {
        places(&self.addresses, self.direct).collect()
    }
}

/// Each address for those who are tunnelled and, where anybody goes direct, for these.
fn places(addresses: &[(InterfaceName, IpAddr)], direct: bool) -> impl Iterator<Item = Place> {
    let places = addresses.iter().flat_map(|(_, address)| {
        [false, true].map(|direct| Place {
            address: *address,
            direct,
        })
    });
    places.filter(move |place| direct || !place.direct)
}

fn at(place: Place) -> SocketAddr {
    let port = match place.direct {
        true => cygnet_gateway::Dns::DIRECT_PORT,
        false => PORT,
    };
    SocketAddr::new(place.address, port)
}

/// Where devices ask; nowhere without `[gateway.dns]`.
pub(super) fn ports(config: &Config) -> Vec<u16> {
    match (dns(config), anybody_goes_direct(config)) {
        (None, _) => Vec::new(),
        (Some(_), false) => vec![PORT],
        (Some(_), true) => vec![PORT, cygnet_gateway::Dns::DIRECT_PORT],
    }
}

/// Always, or while the tunnel is down.
fn anybody_goes_direct(config: &Config) -> bool {
    let gateway = config.gateway.as_ref();
    gateway.is_some_and(|gateway| {
        let devices = &gateway.devices;
        devices.policies.any(DevicePolicy::Direct) || devices.direct_on_failure
    })
}

fn dns(config: &Config) -> Option<&Dns> {
    config.gateway.as_ref()?.dns.as_ref()
}

fn clients(config: &Config, machine: &Machine) -> Vec<IpNet> {
    let lan = lan::of(config, machine).and_then(Result::ok);
    lan.map(|lan| lan.networks).unwrap_or_default()
}

/// This machine's addresses on the LAN, by interface.
fn wanted(config: &Config, machine: &Machine) -> Vec<(InterfaceName, IpAddr)> {
    if dns(config).is_none() {
        return Vec::new();
    }
    own(config, machine)
        .filter_map(|(interface, net)| Some((InterfaceName::new(interface).ok()?, net.addr())))
        .collect()
}

/// This machine's addresses on the LAN, with interface and network.
pub(super) fn own<'a>(
    config: &'a Config,
    machine: &'a Machine,
) -> impl Iterator<Item = &'a (String, IpNet)> {
    let networks = clients(config, machine);
    let gateway = config.gateway.as_ref();
    machine.addresses.iter().filter(move |(interface, net)| {
        gateway.is_some_and(|gateway| gateway.lan.contains(interface))
            && networks.iter().any(|n| n.contains(&net.addr()))
    })
}

/// The way for questions at this moment.
fn tunnel(
    config: &Config,
    dns: &Dns,
    live: &BTreeMap<String, Live>,
    machine: &Machine,
) -> Result<Inside, NoWay> {
    let name = config.gateway.as_ref().map_or("", |g| g.tunnel.as_str());
    let (Some(tunnel), Some(state)) = (config.tunnels.get(name), live.get(name)) else {
        return Err(NoWay::Down(name.to_owned()));
    };
    if !state.up {
        return Err(NoWay::Down(name.to_owned()));
    }
    let sources = match tunnel.virtual_address {
        true => state.addresses.clone(),
        false => inputs::source(&tunnel.local_networks, machine),
    };
    if sources.is_empty() {
        let why = format!("this machine has no address in tunnel {name}");
        return Err(NoWay::Other(why));
    }
    let resolvers = match dns.resolvers.as_slice() {
        [] => state.dns.iter().copied().filter(may_be_asked).collect(),
        written => written.to_vec(),
    };
    let resolvers: Vec<IpAddr> = resolvers.into_iter().take(Dns::MAX_RESOLVERS).collect();
    if resolvers.is_empty() {
        let why = format!(
            "the peer of {name} names no resolver: write resolvers = [\"9.9.9.9\"] or others in [gateway.dns]"
        );
        return Err(NoWay::Other(why));
    }
    Ok(Inside {
        interface: tunnel.interface.clone(),
        sources,
        resolvers,
    })
}

/// Of the addresses that a peer names.
fn may_be_asked(resolver: &IpAddr) -> bool {
    !(resolver.is_unspecified() || resolver.is_loopback() || resolver.is_multicast())
}

/// After a crash the process of the run before may need a moment to let go of what it held.
fn bind_within(at: SocketAddr, patience: Duration) -> io::Result<[OwnedFd; 2]> {
    let begun = Instant::now();
    loop {
        match bind(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < patience => {
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
}

fn bind(at: SocketAddr) -> io::Result<[OwnedFd; 2]> {
    let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok([udp.into(), tcp.into()])
}

fn tell(at: SocketAddr, error: &io::Error) -> String {
    let (address, port) = (at.ip(), at.port());
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "[gateway.dns] cannot answer at {address}: another program has port {port} there, which \
             `ss -lnptu 'sport = :{port}'` shows; stop it, have it listen elsewhere (on loopback alone, say), or take the \
             section out"
        ),
        _ => format!("[gateway.dns] cannot answer at {address} port {port} (yet): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
                        [gateway]\ntunnel = \"home\"\nlan = [\"eth0\", \"eth1\"]\n";

    fn config(more: &str) -> Config {
        let text = format!("{TEXT}{more}");
        Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap()
    }

    fn machine() -> Machine {
        let addresses = [
            ("eth0", "192.168.1.2/24"),
            ("eth0", "203.0.113.9/24"),
            ("eth1", "10.1.0.1/24"),
            ("wan0", "192.168.9.2/24"),
        ];
        Machine {
            addresses: addresses
                .map(|(interface, net)| (interface.to_owned(), net.parse().unwrap()))
                .to_vec(),
            uplink: Some("eth0".to_owned()),
            ..Machine::default()
        }
    }

    fn up(dns: &[&str]) -> BTreeMap<String, Live> {
        let live = Live {
            addresses: vec!["10.99.0.2".parse().unwrap()],
            dns: dns.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
            ..Live::default()
        };
        [("home".to_owned(), live)].into()
    }

    #[test]
    fn we_answer_on_the_lan_alone() {
        let of = |more: &str| -> Vec<String> {
            let wanted = wanted(&config(more), &machine()).into_iter();
            wanted
                .map(|(interface, address)| format!("{interface} {address}"))
                .collect()
        };
        assert!(of("").is_empty());
        // A public network is none of a LAN unless it is written down.
        assert_eq!(of("[gateway.dns]\n"), ["eth0 192.168.1.2", "eth1 10.1.0.1"]);
        let named = "networks = [\"10.1.0.0/24\"]\n[gateway.dns]\n";
        assert_eq!(of(named), ["eth1 10.1.0.1"]);
    }

    #[test]
    fn questions_have_a_way_while_the_tunnel_is_up_alone() {
        let way = |more: &str, live: &BTreeMap<String, Live>| {
            let config = config(more);
            tunnel(&config, dns(&config).unwrap(), live, &machine())
                .map_err(|none| none.to_string())
        };
        let plain = "[gateway.dns]\n";
        assert!(
            way(plain, &BTreeMap::new())
                .unwrap_err()
                .contains("is down")
        );
        let mut down = up(&["9.9.9.9"]);
        down.get_mut("home").unwrap().up = false;
        assert!(way(plain, &down).unwrap_err().contains("is down"));
        let told = way(plain, &up(&["127.0.0.1", "0.0.0.0", "224.0.0.1"])).unwrap_err();
        assert!(told.contains("names no resolver"), "{told}");
        let inside = way(plain, &up(&["10.99.0.1", "::1"])).unwrap();
        assert_eq!(inside.interface, "cyg-home");
        assert_eq!(inside.sources, ["10.99.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(inside.resolvers, ["10.99.0.1".parse::<IpAddr>().unwrap()]);
        let written = way(
            "[gateway.dns]\nresolvers = \"9.9.9.9\"\n",
            &up(&["10.99.0.1"]),
        )
        .unwrap();
        assert_eq!(written.resolvers, ["9.9.9.9".parse::<IpAddr>().unwrap()]);
        let many: Vec<String> = (1..9).map(|n| format!("10.99.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(way(plain, &up(&many)).unwrap().resolvers.len(), 4);
        let mut nowhere = up(&["10.99.0.1"]);
        nowhere.get_mut("home").unwrap().addresses.clear();
        assert!(way(plain, &nowhere).unwrap_err().contains("no address"));
    }

    #[test]
    fn who_goes_direct_is_answered_at_a_port_of_its_own() {
        let places = |direct| {
            let addresses = [("eth0".parse().unwrap(), "192.168.1.2".parse().unwrap())];
            let listeners = Listeners {
                addresses: addresses.to_vec(),
                direct,
                ..Listeners::default()
            };
            let at = listeners.places().into_iter().map(at);
            at.map(|at| at.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(places(false), ["192.168.1.2:53"]);
        assert_eq!(places(true), ["192.168.1.2:53", "192.168.1.2:985"]);
        for (keys, expected) in [
            ("", false),
            ("blocked = \"192.168.1.9\"\n", false),
            ("direct = \"192.168.1.9\"\n", true),
            ("default = \"direct\"\n", true),
            ("on_failure = \"direct\"\n", true),
        ] {
            let config = config(&format!("{keys}[gateway.dns]\n"));
            assert_eq!(anybody_goes_direct(&config), expected, "{keys}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_what_to_do() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = holder.local_addr().unwrap();
        let error = bind(at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let told = tell(at, &error);
        assert!(
            told.contains("127.0.0.1") && told.contains("ss -lnptu"),
            "{told}"
        );
        drop(holder);
        assert!(bind(at).is_ok());
        let nobodys = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(tell(at, &nobodys).contains("(yet)"));
    }

    #[test]
    fn what_did_not_change_is_no_news() {
        let mut listeners = Listeners::default();
        let (with, without) = (config("[gateway.dns]\n"), config(""));
        let mut news = |config: &Config, live: &BTreeMap<String, Live>| {
            listeners
                .news(config, live, &machine())
                .map(|news| news.map(|around| (around.clients.len(), around.tunnel.is_ok())))
        };
        let (down, up) = (BTreeMap::new(), up(&["9.9.9.9"]));
        assert_eq!(news(&without, &down), None);
        assert_eq!(news(&with, &down), Some(Some((2, false))));
        assert_eq!(news(&with, &down), None);
        assert_eq!(news(&with, &up), Some(Some((2, true))));
        assert_eq!(news(&with, &down), Some(Some((2, false))));
        assert_eq!(news(&without, &down), Some(None));
        assert_eq!(news(&without, &up), None);
    }
}

//! The world of the leak test: a home, its provider, an internet.
//!
//! ```text
//!  laptop .20 ──┐                  home router             internet
//!  phone  .21 ──┤ switch           192.168.1.1 ├─ NAT ─┤ 203.0.113.2 ─── .1 ├── 192.0.2.18     VPN server
//!  box    .2  ──┴──────────────────┘ ▲                                       └── 198.51.100.80  web host
//!                                  capture                                              .81  another host
//!                                                                                       .53  DNS host
//! ```
//!
//! With two legs laptop and phone are on a switch of their own, 192.168.2.0/24, and the box is between the
//! two. Everything has IPv6 as well, and nothing translates that.
//!
//! The laptop sends to the box by its hardware address, whatever addresses the box has at that moment; the
//! phone as devices do, to the address that DHCP named as the router, and to the link-local one that a
//! router advertisement came from.

use crate::lab::namespace::mac_text;
use crate::lab::world::{SERVER, WEB};
use crate::lab::{End, Lab, Namespace, Process, Result, Switch, nat, wait_for, wire};
use crate::{ensure, project};
use std::net::IpAddr;
use std::time::Duration;

/// The VPN server, in both families.
pub(super) const SERVERS: [&str; 2] = [SERVER, "2001:db8:18::18"];
/// The web host.
const WEBS: [&str; 2] = [WEB, "2001:db8:80::80"];
/// A host that is no part of anything.
const OTHERS: [&str; 2] = ["198.51.100.81", "2001:db8:80::81"];
/// The DNS host.
pub(super) const RESOLVERS: [&str; 2] = ["198.51.100.53", "2001:db8:80::53"];

/// The router's interface at home.
pub(super) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The box's interface where the devices are.
const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// What that makes the link-local address of (RFC 4291 §2.5.1, appendix A).
const BOX_LINK_LOCAL: &str = "fe80::ff:fe00:2";
/// With two legs, the box's interface to the router.
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// The device that goes direct, and the one that is blocked, where there are such.
pub(super) const OTHERS_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x16], [2, 0, 0, 0, 0, 0x17]];
/// What the one that goes direct is called.
pub(super) const DIRECT: &str = "tv";

/// The network between box and router.
const HOME: u8 = 1;
/// Nobody has this address: the laptop is told which hardware address it means.
const BY_MAC: u8 = 254;
/// The addresses that the box has in turn.
const BOX: [u8; 2] = [2, 3];

/// How the box is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Legs {
    /// One interface, on the LAN where the router is, too.
    One,
    /// It is between the LAN and the router.
    Two,
}

impl Legs {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "one leg",
            Self::Two => "two legs",
        }
    }

    /// The box's interface where the devices are.
    pub(super) fn lan(self) -> &'static str {
        match self {
            Self::One => "eth0",
            Self::Two => "lan",
        }
    }

    /// The number of the devices' network.
    fn network(self) -> u8 {
        match self {
            Self::One => HOME,
            Self::Two => 2,
        }
    }
}

fn v4(network: u8, host: u8) -> String {
    format!("192.168.{network}.{host}")
}

fn v6(network: u8, host: u8) -> String {
    format!("fd00:192:168:{network}::{host}")
}

/// Both addresses of a host, with their prefix lengths.
fn both(network: u8, host: u8) -> [String; 2] {
    [
        format!("{}/24", v4(network, host)),
        format!("{}/64", v6(network, host)),
    ]
}

fn end<'a>(host: &'a Namespace, interface: &'a str, addresses: &[String]) -> End<'a> {
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    End::new(host, interface, &addresses)
}

/// All addresses that the box may call the server from.
pub(super) fn box_addresses() -> Result<Vec<IpAddr>> {
    let texts = BOX
        .iter()
        .flat_map(|&host| [v4(HOME, host), v6(HOME, host)]);
    Ok(texts.map(|text| text.parse()).collect::<Result<_, _>>()?)
}

/// Everything but the box.
pub(super) struct Network {
    pub(super) legs: Legs,
    pub(super) laptop: Namespace,
    pub(super) phone: Namespace,
    /// A device that goes direct, and one that is blocked.
    pub(super) others: Option<[Namespace; 2]>,
    /// The home router; `lan` is where everything from the home arrives.
    pub(super) router: Namespace,
    pub(super) server: Namespace,
    /// Where the router is plugged in.
    home: Switch,
    /// Where laptop and phone are; with one leg it is the same.
    devices: Switch,
    _web_hosts: Vec<Process>,
    _outside: [Namespace; 2],
}

impl Network {
    /// Builds it. Laptop and phone send all that is not for the LAN to a box that is not there yet.
    /// `others`: there are devices with other policies, too.
    pub(super) fn build(lab: &Lab, legs: Legs, others: bool) -> Result<Self> {
        let (laptop, phone) = (lab.host("laptop")?, lab.host("phone")?);
        let (router, internet) = (lab.router("router")?, lab.router("internet")?);
        let (web, server) = (lab.host("web")?, lab.host("server")?);
        let home = Switch::on(lab.host("switch")?)?;
        let devices = match legs {
            Legs::One => home.clone(),
            Legs::Two => Switch::on(lab.host("lanswitch")?)?,
        };
        home.plug(&end(&router, "lan", &both(HOME, 1)).mac(ROUTER_MAC))?;
        let network = legs.network();
        for (device, host) in [(&laptop, 20), (&phone, 21)] {
            devices.plug(&end(device, "eth0", &both(network, host)))?;
        }
        for router in [v4(network, BY_MAC), v6(network, BY_MAC)] {
            let mac = mac_text(BOX_MAC);
            laptop.ip(&format!(
                "neigh replace {router} lladdr {mac} nud permanent dev eth0"
            ))?;
            laptop.default_route(&router)?;
        }
        let others = match others {
            true => {
                let others = [lab.host(DIRECT)?, lab.host("camera")?];
                for ((device, host), mac) in others.iter().zip([22, 23]).zip(OTHERS_MACS) {
                    devices.plug(&end(device, "eth0", &both(network, host)).mac(mac))?;
                }
                Some(others)
            }
            false => None,
        };
        for device in others.iter().flatten().chain([&phone]) {
            device.default_route(&v4(network, BOX[0]))?;
            device.default_route(&format!("{BOX_LINK_LOCAL} dev eth0"))?;
        }

        let everybody = [
            "198.51.100.80/24",
            "198.51.100.81/24",
            "198.51.100.53/24",
            "2001:db8:80::80/64",
            "2001:db8:80::81/64",
            "2001:db8:80::53/64",
        ];
        let joints = [
            (
                End::new(&router, "wan", &["203.0.113.2/30", "2001:db8:1::2/64"]),
                End::new(&internet, "home", &["203.0.113.1/30", "2001:db8:1::1/64"]),
            ),
            (
                End::new(&internet, "rented", &["192.0.2.17/28", "2001:db8:18::1/64"]),
                End::new(&server, "eth0", &["192.0.2.18/28", "2001:db8:18::18/64"]),
            ),
            (
                End::new(&internet, "web", &["198.51.100.1/24", "2001:db8:80::1/64"]),
                End::new(&web, "eth0", &everybody),
            ),
        ];
        joints
            .iter()
            .try_for_each(|(one, other)| wire(one, other))?;
        for (host, via) in [
            (&router, ["203.0.113.1", "2001:db8:1::1"]),
            (&server, ["192.0.2.17", "2001:db8:18::1"]),
            (&web, ["198.51.100.1", "2001:db8:80::1"]),
        ] {
            via.iter().try_for_each(|via| host.default_route(via))?;
        }
        nat::masquerade(&router, "wan")?;
        for network in [HOME, legs.network()] {
            let net = v6(network, 0);
            internet.ip(&format!("route replace {net}/64 via 2001:db8:1::2"))?;
        }
        if legs == Legs::Two {
            // What leaks is answered, as by a router that knows the way.
            let (net4, net6) = (v4(network, 0), v6(network, 0));
            let (via4, via6) = (v4(HOME, BOX[0]), v6(HOME, BOX[0]));
            router.ip(&format!("route add {net4}/24 via {via4}"))?;
            router.ip(&format!("route add {net6}/64 via {via6}"))?;
        }
        Ok(Self {
            legs,
            laptop,
            phone,
            others,
            router,
            server,
            home,
            devices,
            _web_hosts: web_hosts(&web)?,
            _outside: [internet, web],
        })
    }

    /// Makes the phone follow no redirects: it would go past a box without a guard for good.
    pub(super) fn refuse_redirects(&self) -> Result<()> {
        for family in ["ipv4", "ipv6"] {
            for interface in ["all", "eth0"] {
                let setting = format!("net.{family}.conf.{interface}.accept_redirects");
                self.phone.sysctl(&setting, "0")?;
            }
        }
        Ok(())
    }
}

/// Pages at port 80; at those of DNS and DoT somebody listens who does not understand.
fn web_hosts(web: &Namespace) -> Result<Vec<Process>> {
    const PORTS: [u16; 3] = [80, 53, 853];
    let start = |port: u16| {
        let listen = format!("[::]:{port}");
        web.spawn_exec(project::own_command(&["webhost", "--listen", &listen]))
    };
    let mut all = PORTS.map(start).into_iter().collect::<Result<Vec<_>>>()?;
    wait_for("the web host listens", Duration::from_secs(5), || {
        for host in &mut all {
            ensure!(host.is_running(), "a web host ended: {}", host.last_words());
        }
        let listening = web.exec(["ss", "-Hltn"])?;
        Ok((listening.lines().count() == PORTS.len()).then_some(()))
    })?;
    Ok(all)
}

/// The box. What is on its disk outlives it.
pub(super) struct Machine {
    pub(super) namespace: Namespace,
    cables: Vec<(Switch, String)>,
    /// Which of [`BOX`] it has.
    address: usize,
}

impl Machine {
    /// Switched on: it forwards from its first instant on, and has no network yet.
    pub(super) fn switched_on(lab: &Lab) -> Result<Self> {
        Ok(Self {
            namespace: lab.router("box")?,
            cables: Vec::new(),
            address: 0,
        })
    }

    /// Its network comes up.
    pub(super) fn plug(&mut self, network: &Network) -> Result<()> {
        let (home, lan) = (both(HOME, BOX[0]), both(network.legs.network(), BOX[0]));
        let ends = match network.legs {
            Legs::One => vec![(&network.home, "eth0", home, BOX_MAC)],
            Legs::Two => vec![
                (&network.home, "eth0", home, UPLINK_MAC),
                (&network.devices, "lan", lan, BOX_MAC),
            ],
        };
        for (switch, interface, addresses, mac) in ends {
            let port = switch.plug(&end(&self.namespace, interface, &addresses).mac(mac))?;
            self.cables.push((switch.clone(), port));
        }
        self.route(network)
    }

    /// Power cut: nothing passes from one moment to the next. What runs on it dies with the namespace.
    pub(super) fn power_off(&mut self) -> Result<()> {
        let mut cables = self.cables.drain(..);
        cables.try_for_each(|(switch, port)| switch.unplug(&port))
    }

    /// Its DHCP server gives it another address, and the phone is told of it.
    pub(super) fn change_address(&mut self, network: &Network) -> Result<()> {
        let (old, new) = (self.address, (self.address + 1) % BOX.len());
        self.namespace
            .sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")?;
        for (verb, which) in [("add", new), ("del", old)] {
            for address in both(HOME, BOX[which]) {
                self.namespace
                    .ip(&format!("addr {verb} {address} dev eth0"))?;
            }
        }
        self.address = new;
        self.route(network)
    }

    /// Tells the box where the router is, and the phone where the box is.
    fn route(&self, network: &Network) -> Result<()> {
        for router in [v4(HOME, 1), v6(HOME, 1)] {
            self.namespace.default_route(&router)?;
        }
        match network.legs {
            Legs::One => network.phone.default_route(&v4(HOME, BOX[self.address])),
            Legs::Two => Ok(()),
        }
    }
}

/// Whom the devices talk to, in one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Targets {
    pub(super) web: IpAddr,
    pub(super) other: IpAddr,
    pub(super) dns: IpAddr,
    pub(super) server: IpAddr,
    /// The box, at the address that it has at first: it may answer for names.
    pub(super) gateway: IpAddr,
}

impl Targets {
    /// IPv4, and IPv6.
    pub(super) fn both(legs: Legs) -> Result<[Self; 2]> {
        let gateway = [v4(legs.network(), BOX[0]), v6(legs.network(), BOX[0])];
        let of = |family: usize| -> Result<Self> {
            Ok(Self {
                web: WEBS[family].parse()?,
                other: OTHERS[family].parse()?,
                dns: RESOLVERS[family].parse()?,
                server: SERVERS[family].parse()?,
                gateway: gateway[family].parse()?,
            })
        };
        Ok([of(0)?, of(1)?])
    }
}

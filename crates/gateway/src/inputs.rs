//! What a plan is made from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::devices::{DevicePolicy, Devices, Way};
use crate::direct_names::DirectNames;
use crate::mapping::Mapping;
use crate::nft;
use crate::own::OwnNeeds;
use crate::{Family, GUARD_TABLE, PlanError, THROUGH_MARK, THROUGH_TABLE};

/// Name of a network interface, checked: safe to put between quotes in nftables text and into a
/// path below /proc/sys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks the name against what the kernel and nftables accept.
    ///
    /// # Errors
    /// [`PlanError::InterfaceName`].
    pub fn new(name: &str) -> Result<Self, PlanError> {
        // IFNAMSIZ is 16 with the terminating zero; `.` and `..` would leave /proc/sys/net.
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
        if fits && plain {
            Ok(Self(name.to_owned()))
        } else {
            Err(PlanError::InterfaceName(name.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = PlanError;

    fn from_str(name: &str) -> Result<Self, PlanError> {
        Self::new(name)
    }
}

/// Everything a [`crate::NetworkPlan`] depends on: the whole machine, not one tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Client and site tunnels whose TUN exists, in order of preference where they overlap and are up.
    pub tunnels: Vec<Tunnel>,
    /// The VPN server, if this machine is one.
    pub server: Option<Server>,
    /// The LAN it is the gateway of, if it is one.
    pub lan: Option<Lan>,
    /// Networks on this machine's own interfaces (TUNs excluded), each with the address that is ours in
    /// it. Whoever lends an address chooses them.
    pub local_networks: Vec<IpNet>,
    /// Networks that the configuration itself calls local.
    pub named: Vec<IpNet>,
    /// Networks of tunnels that this machine has itself, see [`Inputs::without_overlaps`]: nothing goes there but
    /// answers by TCP to who calls this machine from there.
    pub closed: Vec<IpNet>,
    /// Those of them that are a site's.
    pub closed_sites: Vec<IpNet>,
    /// Interface of the default route; `None`: whatever is not a TUN of ours.
    pub uplink: Option<InterfaceName>,
    /// Those of this machine's own addresses that the sockets for IKE and ESP are bound to.
    pub addresses: Vec<IpAddr>,
    /// Local ports of the sockets for IKE and ESP.
    pub ports: Vec<u16>,
    /// This machine answers the LAN's questions for names, if it does.
    pub dns: Option<Dns>,
}

/// The resolver for the LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Where it answers on port 53, by the interface of the LAN that has the address. What tunnelled devices
    /// ask anybody else goes to the first one of the family.
    pub addresses: Vec<(InterfaceName, IpAddr)>,
    /// It answers at [`Self::DIRECT_PORT`] as well: devices that go direct, beside the tunnel.
    pub direct: bool,
    /// Tunnelled devices get no DNS over TLS by themselves.
    pub refuse_dot: bool,
}

impl Dns {
    /// Where it answers devices that go direct: a port that only the privileged can have.
    pub const DIRECT_PORT: u16 = 985;
}

/// A client or site tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Its TUN.
    pub interface: InterfaceName,
    /// Inner MTU, see [`crate::inner_mtu`].
    pub mtu: u16,
    /// The largest inner packet that travels in one piece: less than the MTU on a path so narrow that IPv6
    /// (RFC 8200 §5) has to be fragmented outside. TCP is kept to it.
    pub whole: u16,
    /// The peer lends us addresses (RFC 7296 §2.19), whether it has by now or not: what comes out
    /// is for this machine and for those who are translated, and for nobody else. False for a site.
    pub client: bool,
    /// What enters it while it is down brings it up.
    pub on_demand: bool,
    /// Addresses the peer lent us, at most one used per family for translation.
    pub virtual_addresses: Vec<IpAddr>,
    /// What lies behind it: the peer's selectors as prefixes.
    pub remote: Vec<IpNet>,
    /// What of it a Child SA reaches at this moment: a tunnel that is down stands behind those that are up.
    pub reached: Vec<IpNet>,
    /// Address of ours to prefer as source, where no virtual address was lent: a site's own
    /// address inside its local networks.
    pub source: Vec<IpAddr>,
    /// Networks of ours that the other side knows by other addresses (a site's).
    pub maps: Vec<Mapping>,
    /// Addresses of the peer, outside.
    pub endpoints: Vec<IpAddr>,
    /// The machine's own traffic, and whatever it forwards without a guard, takes this tunnel
    /// too. True for a client or a site; false for a gateway, whose own IKE, DNS and NTP stay out.
    pub own_traffic: bool,
    /// The guarded LAN may take it.
    pub carries_lan: bool,
}

impl Tunnel {
    /// Whether what lies behind it belongs to it for everybody who is here.
    pub(crate) fn is_site(&self) -> bool {
        self.own_traffic && !self.client
    }
}

/// The server's side of remote access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// TUN shared by all clients.
    pub interface: InterfaceName,
    /// Inner MTU.
    pub mtu: u16,
    /// Addresses lent to clients.
    pub pools: Vec<IpNet>,
    /// Addresses of the server itself inside the tunnel; may be empty.
    pub addresses: Vec<IpAddr>,
    /// Translate clients' addresses of these families where they leave for the internet.
    pub masquerade: Vec<Family>,
    /// Clients may reach each other.
    pub client_to_client: bool,
    /// What clients send to private networks, or to share files, does not leave by the uplink.
    pub block_private: bool,
    /// Networks of which that is not true, besides those on the machine's own interfaces.
    pub inside: Vec<IpNet>,
    /// Clients may reach whatever this machine itself offers; otherwise ping and DNS alone.
    pub host_access: bool,
    /// TCP port of `addresses` at which speed is measured, for clients alone, whatever `host_access` says.
    pub speedtest: Option<u16>,
}

/// A tunnel that devices and destinations may be given instead of the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Through {
    /// Its name.
    pub tunnel: String,
    /// Its TUN.
    pub interface: InterfaceName,
    /// Networks that every device, unless it is blocked, reaches by this tunnel or not at all.
    pub networks: Vec<IpNet>,
}

/// What becomes of tunnelled devices while the gateway's tunnel is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are closed in.
    #[default]
    Blocked,
    /// Whoever knows that it is down may let them out.
    Direct {
        /// He has.
        open: bool,
    },
}

impl OnFailure {
    /// How long they are let out unless that is said again: when nobody is left who looks after the tunnel, it ends by
    /// itself.
    pub const HELD: Duration = Duration::from_secs(30);
    /// The set in either table that says whether they are.
    pub const SET: &str = "failure";

    /// Text for `nft -f -` that lets them out by `table` for [`Self::HELD`] from now on, or closes them in.
    #[must_use]
    pub fn change(table: &str, open: bool) -> String {
        nft::failure::change(table, open)
    }

    /// Whether they may be let out.
    #[must_use]
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Direct { .. })
    }

    /// Whether they are.
    #[must_use]
    pub fn is_open(self) -> bool {
        self == Self::Direct { open: true }
    }
}

/// The guarded LAN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lan {
    /// Its interfaces; one of them is the uplink as well on a box with one leg.
    pub interfaces: Vec<InterfaceName>,
    /// Its networks, which every device reaches.
    pub networks: Vec<IpNet>,
    /// Where each of its devices may go.
    pub devices: Devices,
    /// Networks elsewhere that devices reach around the tunnel, unless they are blocked.
    pub direct_networks: Vec<IpNet>,
    /// What they reach so by its name.
    pub direct_names: DirectNames,
    /// Other tunnels than the gateway's for some of it; the place of each is what its mark and its table are told by.
    pub through: Vec<Through>,
    /// What becomes of the rest while that is down.
    pub on_failure: OnFailure,
    /// What this machine itself may send outside; `None`: what it likes.
    pub own: Option<OwnNeeds>,
}

impl Lan {
    /// Where a packet of this machine itself to somewhere else may go: where one of a tunnelled device may, unless it may
    /// send what it likes. What devices ask for by name is nothing to it.
    pub(crate) fn own_way(&self, destination: IpAddr) -> Way<'_> {
        match self.own {
            Some(_) => self.way_to(destination, Way::Tunnelled, false),
            None => Way::Direct,
        }
    }

    /// Where a packet from the LAN to somewhere else may go. `way`: its sender's. `by_name`: the destination is reached
    /// around the tunnel by its name.
    pub(crate) fn way_to<'l>(
        &'l self,
        destination: IpAddr,
        way: Way<'l>,
        by_name: bool,
    ) -> Way<'l> {
        if let (true, Some((_, tunnel))) = (way != Way::Blocked, self.given_to(destination)) {
            return Way::Through(tunnel);
        }
        let mut around = self.direct_networks.iter();
        let around = by_name || around.any(|net| net.contains(&destination));
        match way {
            Way::Tunnelled | Way::Through(_) if around => Way::Direct,
            Way::Tunnelled if self.on_failure.is_open() => Way::Direct,
            way => way,
        }
    }

    /// The narrowest network that holds this destination and was given a tunnel, with that.
    pub(crate) fn given_to(&self, destination: IpAddr) -> Option<(&IpNet, &str)> {
        let all = self.through.iter().flat_map(|through| {
            let networks = through.networks.iter();
            networks.map(|net| (net, through.tunnel.as_str()))
        });
        let holding = all.filter(|(net, _)| net.contains(&destination));
        holding.max_by_key(|(net, _)| net.prefix_len())
    }

    /// The other tunnels, each with the mark of what belongs into it and with the table of its routes.
    pub(crate) fn others(&self) -> impl Iterator<Item = (u32, u32, &Through)> {
        let numbered = (0u32..).zip(&self.through);
        numbered.map(|(n, through)| (THROUGH_MARK + n, THROUGH_TABLE + n, through))
    }

    /// The tables that what is tunnelled is looked up in: the guard's, and one for each other tunnel.
    pub(crate) fn tables(&self) -> impl Iterator<Item = u32> {
        let others = self.others().map(|(_, table, _)| table);
        std::iter::once(GUARD_TABLE).chain(others)
    }

    /// Networks that were given a tunnel, with its TUN.
    pub(crate) fn given(&self) -> impl Iterator<Item = (IpNet, &InterfaceName)> {
        self.through.iter().flat_map(|through| {
            let networks = through.networks.iter();
            networks.map(|net| (net.trunc(), &through.interface))
        })
    }

    /// Whether not everything is tunnelled, so that packets are marked.
    pub(crate) fn sorts(&self) -> bool {
        self.lets_out() || self.needs_marks() || !self.through.is_empty()
    }

    /// Whether anything may leave in clear.
    #[must_use]
    pub fn lets_out(&self) -> bool {
        self.devices.any(DevicePolicy::Direct)
            || !self.direct_networks.is_empty()
            || self.direct_names.listed
            || self.on_failure.is_direct()
    }

    /// Whether what has no mark must not enter the gateway's tunnel: somebody is blocked, or goes through another.
    pub(crate) fn needs_marks(&self) -> bool {
        self.devices.any(DevicePolicy::Blocked) || self.devices.any_through()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_escape_a_path_or_a_quote_are_refused() {
        for good in [
            "eth0",
            "cyg0",
            "br-lan.10",
            "enp3s0f1@if2",
            "a23456789012345",
        ] {
            assert_eq!(InterfaceName::new(good).map(|n| n.0), Ok(good.to_owned()));
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a\"b",
            "../x",
            "a234567890123456",
            "é",
            "eth0\n",
        ] {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_machine_itself_goes_as_a_tunnelled_device_does_but_by_no_name() {
        let [web, by_name, given] = ["198.51.100.1", "203.0.113.1", "10.20.0.1"];
        let to = |lan: &Lan, address: &str| match lan.own_way(address.parse().unwrap()) {
            Way::Through(tunnel) => tunnel.to_owned(),
            way => format!("{way:?}"),
        };
        let mut lan = Lan {
            own: Some(OwnNeeds::default()),
            direct_networks: vec!["198.51.100.0/24".parse().unwrap()],
            direct_names: DirectNames {
                listed: true,
                addresses: [(by_name.parse().unwrap(), DirectNames::HELD)].into(),
            },
            through: vec![Through {
                tunnel: "work".to_owned(),
                interface: "cyg-work".parse().unwrap(),
                networks: vec!["10.20.0.0/16".parse().unwrap()],
            }],
            ..Lan::default()
        };
        let all = |lan: &Lan| [web, by_name, given].map(|address| to(lan, address));
        assert_eq!(all(&lan), ["Direct", "Tunnelled", "work"]);
        assert_eq!(
            lan.way_to(by_name.parse().unwrap(), Way::Tunnelled, true),
            Way::Direct
        );
        lan.on_failure = OnFailure::Direct { open: true };
        assert_eq!(all(&lan), ["Direct", "Direct", "work"]);
        lan.own = None;
        assert_eq!(all(&lan), ["Direct"; 3]);
    }

    fn way<'l>(lan: &'l Lan, source: &str, to: &str) -> Way<'l> {
        let way = lan.devices.way(None, source.parse().unwrap());
        lan.way_to(to.parse().unwrap(), way, false)
    }

    #[test]
    fn a_destinations_tunnel_comes_before_the_devices_and_nobody_who_is_blocked_has_any() {
        let through = |tunnel: &str, networks: &[&str]| Through {
            tunnel: tunnel.to_owned(),
            interface: format!("cyg-{tunnel}").parse().unwrap(),
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        };
        let mut lan = Lan {
            through: vec![
                through("us", &["198.51.100.64/26"]),
                through("work", &["10.20.0.0/16", "198.51.100.0/24"]),
            ],
            direct_networks: vec!["198.51.0.0/16".parse().unwrap()],
            ..Lan::default()
        };
        let devices = [
            ("192.168.1.7", DevicePolicy::Tunnelled, Some("us")),
            ("192.168.1.8", DevicePolicy::Direct, None),
            ("192.168.1.9", DevicePolicy::Blocked, None),
        ];
        for (device, policy, through) in devices {
            let device = device.parse().unwrap();
            lan.devices.give(device, policy, through.map(str::to_owned));
        }
        let way = |lan: &Lan, source: &str, to: &str| format!("{:?}", way(lan, source, to));
        for (source, to, expected) in [
            ("192.168.1.6", "10.20.1.1", "Through(\"work\")"),
            ("192.168.1.6", "198.51.100.1", "Through(\"work\")"),
            ("192.168.1.6", "198.51.100.65", "Through(\"us\")"),
            ("192.168.1.6", "198.51.101.1", "Direct"),
            ("192.168.1.6", "203.0.113.1", "Tunnelled"),
            ("192.168.1.7", "10.20.1.1", "Through(\"work\")"),
            ("192.168.1.7", "198.51.101.1", "Direct"),
            ("192.168.1.7", "203.0.113.1", "Through(\"us\")"),
            ("192.168.1.8", "10.20.1.1", "Through(\"work\")"),
            ("192.168.1.8", "203.0.113.1", "Direct"),
            ("192.168.1.9", "10.20.1.1", "Blocked"),
        ] {
            assert_eq!(way(&lan, source, to), expected, "{source} {to}");
        }
    }

    #[test]
    fn who_is_let_out_while_the_tunnel_is_down_is_tunnelled_by_it_and_by_nothing_else() {
        let mut lan = Lan::default();
        let devices = [
            ("192.168.1.7", DevicePolicy::Tunnelled, Some("us")),
            ("192.168.1.9", DevicePolicy::Blocked, None),
        ];
        for (device, policy, through) in devices {
            let device = device.parse().unwrap();
            lan.devices.give(device, policy, through.map(str::to_owned));
        }
        for (open, unnamed) in [(false, Way::Tunnelled), (true, Way::Direct)] {
            lan.on_failure = OnFailure::Direct { open };
            let way = |lan: &Lan, source: &str| format!("{:?}", way(lan, source, "9.9.9.9"));
            assert_eq!(way(&lan, "192.168.1.6"), format!("{unnamed:?}"));
            assert_eq!(way(&lan, "fd00::6"), format!("{unnamed:?}"));
            assert_eq!(way(&lan, "192.168.1.7"), "Through(\"us\")");
            assert_eq!(way(&lan, "192.168.1.9"), "Blocked");
            assert!(lan.lets_out());
        }
    }
}

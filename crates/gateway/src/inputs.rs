//! What a plan is made from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::devices::{Device, DevicePolicy, Devices, Mac};
use crate::direct_names::DirectNames;
use crate::mapping::Mapping;
use crate::{Family, PlanError};

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

/// The guarded LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Lan {
    /// Where a packet from the LAN to somewhere else may go. `mac`: of its sender, as far as it is known.
    #[must_use]
    pub fn way(&self, mac: Option<Mac>, source: IpAddr, destination: IpAddr) -> DevicePolicy {
        let (_, policy) = self.devices.decision(mac, source);
        let mut around = self.direct_networks.iter();
        let around = around.any(|net| net.contains(&destination))
            || self.direct_names.listed && self.direct_names.addresses.contains_key(&destination);
        match policy {
            DevicePolicy::Tunnelled if around => DevicePolicy::Direct,
            policy => policy,
        }
    }

    /// Whether such a packet may go another way now than it might `before`. Of a sender whose MAC address is not
    /// known, whatever is said of MAC addresses may be.
    #[must_use]
    pub fn has_another_way(
        &self,
        before: &Self,
        mac: Option<Mac>,
        source: IpAddr,
        destination: IpAddr,
    ) -> bool {
        let inside = |address: IpAddr| self.networks.iter().any(|net| net.contains(&address));
        if inside(destination) || (mac.is_none() && !inside(source)) {
            return false;
        }
        let by_mac = |lan: &Self| -> Vec<(Device, DevicePolicy)> {
            let named = lan.devices.named.iter();
            let named = named.filter(|(device, _)| matches!(device, Device::Mac(_)));
            named.map(|(device, policy)| (*device, *policy)).collect()
        };
        let way = |lan: &Self| lan.way(mac, source, destination);
        way(self) != way(before) || (mac.is_none() && by_mac(self) != by_mac(before))
    }

    /// Whether not everything is tunnelled, so that packets are marked.
    pub(crate) fn sorts(&self) -> bool {
        self.lets_out() || self.blocks()
    }

    /// Whether anything may leave in clear.
    #[must_use]
    pub fn lets_out(&self) -> bool {
        self.devices.any(DevicePolicy::Direct)
            || !self.direct_networks.is_empty()
            || self.direct_names.listed
    }

    /// Whether anybody is blocked.
    pub(crate) fn blocks(&self) -> bool {
        self.devices.any(DevicePolicy::Blocked)
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
    fn whose_way_changed_is_known_by_address_and_as_far_as_it_is_known_by_mac() {
        let lan = |devices: &[(&str, DevicePolicy)], direct: &[&str]| Lan {
            interfaces: Vec::new(),
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            devices: Devices {
                named: (devices.iter().map(|(d, p)| (d.parse().unwrap(), *p))).collect(),
                ..Devices::default()
            },
            direct_networks: direct.iter().map(|n| n.parse().unwrap()).collect(),
            direct_names: DirectNames::default(),
        };
        let mac = |last: u8| Mac::new([2, 0, 0, 0, 0, last]);
        let changed = |before: &Lan, now: &Lan, mac, source: &str, to: &str| {
            now.has_another_way(before, mac, source.parse().unwrap(), to.parse().unwrap())
        };
        let plain = lan(&[], &[]);
        let by_mac = lan(&[("02:00:00:00:00:01", DevicePolicy::Blocked)], &[]);
        for (sender, source, to, expected) in [
            (mac(1), "192.168.1.9", "198.51.100.1", true),
            (mac(1), "fd00::9", "2001:db8::1", true),
            (mac(1), "192.168.1.9", "192.168.1.1", false),
            (mac(2), "192.168.1.9", "198.51.100.1", false),
            // Who that is, nobody knows.
            (None, "192.168.1.9", "198.51.100.1", true),
            (None, "198.51.100.1", "203.0.113.1", false),
        ] {
            for (before, now) in [(&plain, &by_mac), (&by_mac, &plain)] {
                let told = changed(before, now, sender, source, to);
                assert_eq!(told, expected, "{sender:?} {source} {to}");
            }
            assert!(!changed(&by_mac, &by_mac, sender, source, to));
        }
        let by_destination = lan(&[], &["198.51.100.0/24"]);
        let to = |to| changed(&plain, &by_destination, None, "192.168.1.9", to);
        assert!(to("198.51.100.1") && !to("203.0.113.1"));
    }
}

//! What a plan is made from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

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
    /// Interface of the default route; `None`: whatever is not a TUN of ours.
    pub uplink: Option<InterfaceName>,
    /// Those of this machine's own addresses that the sockets for IKE and ESP are bound to.
    pub addresses: Vec<IpAddr>,
    /// Local ports of the sockets for IKE and ESP.
    pub ports: Vec<u16>,
}

/// A client or site tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Its TUN.
    pub interface: InterfaceName,
    /// Inner MTU, see [`crate::inner_mtu`].
    pub mtu: u16,
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
    /// Addresses of the peer, outside.
    pub endpoints: Vec<IpAddr>,
    /// The machine's own traffic, and whatever it forwards without a guard, takes this tunnel
    /// too. True for a client or a site; false for a gateway, whose own IKE, DNS and NTP stay out.
    pub own_traffic: bool,
    /// The guarded LAN may take it.
    pub carries_lan: bool,
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
}

/// The guarded LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// Its interfaces; one of them is the uplink as well on a box with one leg.
    pub interfaces: Vec<InterfaceName>,
    /// Its networks.
    pub networks: Vec<IpNet>,
    /// Who is tunnelled.
    pub devices: Devices,
}

/// Which devices of the LAN are tunnelled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Devices {
    /// Every packet that comes in from the LAN.
    #[default]
    All,
    /// All but these; those go the machine's ordinary way.
    AllBut(Vec<IpNet>),
    /// These alone. Of a family that has an entry here the others go direct; a family without
    /// any is guarded whole, because a device named by its IPv4 address has IPv6 addresses that
    /// nobody wrote down and that change by themselves (RFC 8981).
    Only(Vec<IpNet>),
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
}

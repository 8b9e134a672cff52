//! `[gateway.advertise]`: this machine is the LAN's router for IPv6, and lends nothing.

use std::net::Ipv6Addr;

/// `[gateway.advertise]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Which interface of the LAN.
    pub interface: String,
    /// Resolvers that devices are told; `None`: this machine, if it answers ([`crate::Gateway::dns`]).
    pub dns: Option<Vec<Ipv6Addr>>,
}

//! `[gateway.dns]`: how this machine answers the devices of its LAN.

use std::net::IpAddr;

/// `[gateway.dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Resolvers that are asked through the tunnel; empty: those that the peer names.
    pub resolvers: Vec<IpAddr>,
    /// They are asked over TLS.
    pub tls: Option<DnsTls>,
    /// Domains that this machine's own resolvers are asked for, outside the tunnel: lower case, no final dot.
    pub direct: Vec<String>,
    /// These resolvers; empty: those of `/etc/resolv.conf`.
    pub direct_resolvers: Vec<IpAddr>,
    /// Domains of the LAN's own names, written as those of `direct`; empty: nobody is asked for such names.
    pub lan_domains: Vec<String>,
    /// Block lists: paths as written.
    pub block: Vec<String>,
    /// What becomes of DNS over TLS of devices.
    pub dot: Dot,
    /// Responses that are kept; 0: none.
    pub cache: u32,
}

/// DNS over TLS (RFC 7858) to the resolvers behind the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTls {
    /// The name, or the address, that their certificates are for.
    pub name: String,
    /// Who has to have issued them, DER; empty: any of the system's authorities.
    pub authorities: Vec<Vec<u8>>,
}

/// What becomes of DNS over TLS that devices speak themselves: it cannot be answered here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dot {
    /// It goes through the tunnel as other traffic does.
    #[default]
    Tunnel,
    /// It is refused, so that devices ask this machine.
    Refuse,
}

impl Dns {
    /// Resolvers that are asked at most, of each kind.
    pub const MAX_RESOLVERS: usize = 4;
    /// Responses that are kept at most.
    pub const MAX_CACHE: u32 = 16_384;
}

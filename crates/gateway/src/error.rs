//! Why a plan cannot be made.

use ipnet::IpNet;

/// Inputs that contradict themselves or the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not a name the kernel accepts for an interface.
    #[error(
        "interface name {0:?}: expected 1 to 15 characters of A-Z a-z 0-9 . _ - @ ; write the name `ip link` shows"
    )]
    InterfaceName(String),
    /// The same network behind a tunnel and on this machine's own interfaces.
    #[error(
        "tunnel {tunnel} claims {network}, which is also a network of this machine: renumber one of the two sites, or let each appear to the other as \
         another network (`local_map`, docs/site.md)"
    )]
    Overlap {
        /// TUN interface of the tunnel.
        tunnel: String,
        /// Claimed twice.
        network: IpNet,
    },
    /// Addresses for clients that are the machine's own neighbours'.
    #[error(
        "pool {pool} overlaps {network}, a network of this machine: choose `pools` that are used nowhere else"
    )]
    PoolOverlap {
        /// Addresses for clients.
        pool: IpNet,
        /// On an interface.
        network: IpNet,
    },
    /// Two links of one name.
    #[error("interface {0} is named for two tunnels: give each tunnel an interface of its own")]
    SameInterface(String),
    /// More tunnels than rule priorities are reserved for.
    #[error("{0} tunnels on one machine; 256 are supported")]
    TooManyTunnels(usize),
    /// IPv6 does not work below 1280 bytes (RFC 8200 §5), IPv4 needs 576 to be useful.
    #[error("MTU {mtu} of {interface}: expected at least {least}")]
    Mtu {
        /// The TUN.
        interface: String,
        /// What was asked for.
        mtu: u16,
        /// The least that works.
        least: u16,
    },
}

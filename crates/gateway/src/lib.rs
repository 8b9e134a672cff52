//! What the machine's network must look like, as pure data.
//!
//! [`NetworkPlan::new`] turns [`Inputs`] (which tunnels are up, which LAN, which pool) into
//! links, routes, rules, sysctls and one nftables table. [`GuardPlan::new`] makes the part that
//! fails closed. Nothing here touches a kernel: `cygnet-linux` applies both, and may be asked for
//! the difference between what is and what should be at any time.
//!
//! Two owners, told apart by the protocol number their routes and rules carry: what the plan made
//! ([`PLAN_PROTOCOL`]) is taken back when the program ends; what the guard made
//! ([`GUARD_PROTOCOL`]) stays until `cygnet gateway off`.
//!
//! # The order of the policy rules
//!
//! | priority | rule | why |
//! |---|---|---|
//! | 100 | `iif LAN to LAN-network lookup main suppress_prefixlength 0` | LAN to LAN, never by a default route |
//! | 100 | `iif LAN fwmark DIRECT lookup 51455 suppress_prefixlength 0` | what goes direct reaches other offices, and a server's clients, by their tunnels |
//! | 101 | `iif LAN fwmark DIRECT lookup main` | what goes direct |
//! | 101 | `iif LAN fwmark THROUGH+n lookup 51100+n` | what goes through another tunnel than the gateway's: its routes, else unreachable |
//! | 102 | `iif LAN lookup 51450` | the guard: tunnel routes, else unreachable. Where anybody is blocked or goes through another tunnel, with `fwmark TUNNELLED` |
//! | 103 | `iif LAN unreachable` | there alone: what carries no mark |
//! | 150, 151 | `fwmark OUTER lookup main`, `fwmark OUTER unreachable` | outer packets never enter a tunnel |
//! | 152 | `from OURS to ENDPOINT ipproto udp sport OURS lookup main` | strict reverse-path filters ask without a mark |
//! | 153, 154 | `iif TUN lookup main suppress_prefixlength 0`, `iif TUN blackhole` | out of a client's tunnel to us and ours, never on by a default route |
//! | 155 | `from OURS to LOCAL-NETWORK ipproto tcp lookup main suppress_prefixlength 0` | who calls from a network that a tunnel has is answered where it is |
//! | 156 | `fwmark OWN lookup 51450` | what a guarded box itself sends takes the way of tunnelled devices, as far as it leads |
//! | 160 | `from VIRTUAL-ADDRESS lookup 51457+n` | answers leave by the tunnel they came by |
//! | 170-173 | as 100 to 103 | the LAN's way into the tunnel where there is no guard |
//! | 190 | `lookup 51456` | what everybody on this box reaches by tunnel |
//!
//! The marks of what comes in from the LAN are set by our nftables tables, by MAC address, source and destination
//! ([`Devices`]). Without them (a foreign `nft flush ruleset`) nothing goes direct, and where anybody is blocked or goes
//! through another tunnel, nothing leaves.

mod bindings;
mod devices;
mod direct_names;
mod error;
mod guard;
mod inputs;
mod mapping;
mod mtu;
mod nft;
mod own;
mod plan;

use ipnet::IpNet;

pub use bindings::{Bindings, Connection, Retired, Sender, Verdict};
pub use devices::{Device, DeviceError, DevicePolicy, Devices, Mac, Way};
pub use direct_names::{DirectNames, is_public};
pub use error::PlanError;
pub use guard::{GuardInputs, GuardPlan};
pub use inputs::{Dns, Inputs, InterfaceName, Lan, OnFailure, Server, Through, Tunnel};
pub use mapping::Mapping;
pub use mtu::{EspFraming, inner_mtu, tcp_mss};
pub use own::OwnNeeds;
pub use plan::{
    Around, Family, LinkPlan, NetworkPlan, Route, RouteKind, Rule, RuleAction, Sysctl,
    is_link_local, is_never_forwarded, is_private,
};

/// Whether two networks have an address in common.
#[must_use]
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Route and rule protocol number (`ip route … proto 201`) of everything a [`NetworkPlan`] sets.
pub const PLAN_PROTOCOL: u8 = 201;

/// Route and rule protocol number of everything a [`GuardPlan`] sets.
pub const GUARD_PROTOCOL: u8 = 202;

/// Firewall mark on outer packets (`SO_MARK` of the IKE and ESP sockets): "cyg" in ASCII.
pub const OUTER_MARK: u32 = 0x0063_7967;

/// Firewall mark on packets of the LAN that leave in clear: "cyd".
pub const DIRECT_MARK: u32 = 0x0063_7964;

/// Firewall mark on packets of the LAN that belong into the tunnel: "cyt".
pub const TUNNELLED_MARK: u32 = 0x0063_7974;

/// Firewall mark on what a guarded box itself is led into a tunnel with, the LAN's or one that a destination was given, and
/// on these connections: "cyo".
pub const OWN_MARK: u32 = 0x0063_796f;

/// The first of the firewall marks on packets of the LAN that belong into other tunnels than the gateway's, one each.
pub const THROUGH_MARK: u32 = 0x0063_7a00;

/// The first of the routing tables for them, one each, in the same order. Each ends in `unreachable default`.
pub const THROUGH_TABLE: u32 = 51100;

/// Routing table of the guard. Ends in `unreachable default`, IPv4 and IPv6.
pub const GUARD_TABLE: u32 = 51450;

/// Routing table of what goes direct before it does: networks behind tunnels between sites, and the server's pools.
pub const SITES_TABLE: u32 = 51455;

/// Routing table of tunnels that carry the box's own traffic, and of the server's pools.
pub const SHARED_TABLE: u32 = 51456;

/// Priorities of the guard's rules.
pub const GUARD_PRIORITIES: std::ops::RangeInclusive<u32> = 100..=149;

/// Priorities of the plan's rules.
pub const PLAN_PRIORITIES: std::ops::RangeInclusive<u32> = 150..=199;

/// The plan's nftables table, family inet.
pub const PLAN_TABLE: &str = "cygnet";

/// The guard's nftables table, family inet.
pub const GUARD_NFT_TABLE: &str = "cygnet_guard";

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

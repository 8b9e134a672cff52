//! Everything that touches the kernel, and every `unsafe` of the project.
//!
//! Two faces. The **control plane** ([`Netlink`], [`Network`]) is asynchronous, for a current
//! thread tokio runtime; it configures interfaces, routes, rules, sysctls and nftables, and takes
//! back what it set. The **data plane** ([`Tun`], [`UdpSocket`]) is plain
//! non-blocking system calls on descriptors that can be sent to another program.
//!
//! Errors say what to do about them: see [`Error`].

mod apply;
pub mod clock;
mod conntrack;
mod error;
mod file;
pub mod foreign;
#[cfg(feature = "inject")]
pub mod inject;
#[cfg(not(feature = "inject"))]
mod inject;
pub mod lan;
mod marked;
mod netlink;
pub mod nft;
mod sysctl;
pub mod tcp;
mod tun;
mod udp;

pub use apply::{GuardState, Network};
pub use conntrack::end_connections;
pub use error::{Error, Result};
pub use file::{keep_file, replace_file};
pub use marked::unconnected_tcp;
pub use netlink::{Address, Changes, FirewallChanges, Link, Neighbour, Netlink, Owner, RouteTo};
pub use sysctl::Journal;
pub use tun::{Offloads, Tun, TunOptions};
pub use udp::{
    PathError, PathErrorKind, Received, RouteProbe, SendError, Transmit, UdpOffloads, UdpOptions,
    UdpSocket,
};

//! Somewhere in the internet where no network of ours is: the way there is the default route. Nothing is sent there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 7526.
pub(crate) const WORLD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 88, 99, 1));
/// RFC 4291 §2.4.
pub(crate) const WORLD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1));

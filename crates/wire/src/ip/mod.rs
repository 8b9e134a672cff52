//! Headers of the packets that travel inside the tunnel: IPv4, IPv6, TCP, UDP, ICMP, and the
//! virtio header that a TUN device puts before each of them. [`ndp`] is what routers say on a LAN.
//!
//! Header types own their fields and know `parse` (from at least the header's bytes) and `emit`
//! (into exactly the header's bytes). [`IpPacket`] is what a packet says about itself as a whole:
//! where the upper layer begins, which fragment it is, how long it is.

pub mod checksum;
mod icmp;
pub mod ndp;
mod packet;
mod tcp;
mod udp;
mod v4;
mod v6;
mod virtio;

use std::fmt;

pub use icmp::{IcmpHeader, icmpv4, icmpv6};
pub use packet::{Fragment, IpPacket, Version};
pub use tcp::{TcpHeader, tcp_flags};
pub use udp::UdpHeader;
pub use v4::Ipv4Header;
pub use v6::{Ipv6FragmentHeader, Ipv6Header};
pub use virtio::{GsoType, VirtioNetHeader};

/// Protocol numbers (IANA "Protocol Numbers") that this project treats by name.
pub mod protocol {
    /// IPv6 Hop-by-Hop Options, RFC 8200 §4.3.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// IPv4 inside another header, RFC 2003; ESP's next header in tunnel mode.
    pub const IPV4: u8 = 4;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// IPv6 inside another header, RFC 2473; ESP's next header in tunnel mode.
    pub const IPV6: u8 = 41;
    /// IPv6 Routing header, RFC 8200 §4.4.
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment header, RFC 8200 §4.5.
    pub const FRAGMENT: u8 = 44;
    /// ESP, RFC 4303.
    pub const ESP: u8 = 50;
    /// AH, RFC 4302.
    pub const AH: u8 = 51;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// No next header, RFC 8200 §4.7; in ESP a dummy packet, RFC 4303 §2.6.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 Destination Options, RFC 8200 §4.6.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP, RFC 9260: ports where UDP has them.
    pub const SCTP: u8 = 132;
    /// Mobile IPv6 Mobility Header, RFC 6275.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite, RFC 3828: ports where UDP has them.
    pub const UDP_LITE: u8 = 136;
    /// DCCP, RFC 4340: ports where UDP has them.
    pub const DCCP: u8 = 33;
    /// HIP, RFC 7401: an extension header in form.
    pub const HIP: u8 = 139;
    /// Shim6, RFC 5533: an extension header in form.
    pub const SHIM6: u8 = 140;
}

/// Why bytes are not the header they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than the header (or the length it states) needs.
    Truncated {
        /// The header that was being read.
        header: &'static str,
        /// How many bytes it needs.
        needed: usize,
        /// How many there were.
        got: usize,
    },
    /// The version field is neither the expected one nor any known one.
    Version(u8),
    /// A length field contradicts the header's own minimum.
    Length {
        /// The header that was being read.
        header: &'static str,
        /// The length it states, in bytes.
        stated: usize,
    },
    /// More IPv6 extension headers than any honest packet carries.
    TooManyExtensions,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                header,
                needed,
                got,
            } => {
                write!(f, "{header}: {needed} bytes expected, {got} came")
            }
            Self::Version(version) => write!(f, "IP version 4 or 6 expected, {version} came"),
            Self::Length { header, stated } => {
                write!(f, "{header}: states an impossible length of {stated} bytes")
            }
            Self::TooManyExtensions => f.write_str("too many IPv6 extension headers"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// The first `N` bytes, or what is missing.
fn head<const N: usize>(bytes: &[u8], header: &'static str) -> Result<[u8; N], HeaderError> {
    bytes
        .first_chunk::<N>()
        .copied()
        .ok_or(HeaderError::Truncated {
            header,
            needed: N,
            got: bytes.len(),
        })
}

/// The `N` bytes at `at`, where they exist.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

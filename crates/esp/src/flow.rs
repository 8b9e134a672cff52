//! What selectors are matched against: addresses, protocol and ports of one inner packet.

use std::net::IpAddr;

use cygnet_wire::ip::{IpPacket, protocol};
use cygnet_wire::ts::{ANY_PORT, AddrRange, TrafficSelector};

/// The selectors of a single packet (RFC 4301 §4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Inner source address.
    pub src: IpAddr,
    /// Inner destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// What stands for ports.
    pub ports: Ports,
}

/// The upper-layer part of a packet's selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP.
    Pair {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP type and code, or a Mobility Header type, type in the high octet.
    Kind(u16),
    /// The protocol has no ports, or they cannot be seen: "OPAQUE" in RFC 4301.
    Opaque,
}

impl Flow {
    /// The selectors of a packet, given its parsed headers and its bytes.
    pub fn of(packet: &IpPacket, bytes: &[u8]) -> Self {
        let ports = if packet.is_later_fragment() {
            Ports::Opaque
        } else {
            Ports::read(packet.protocol, packet.payload(bytes))
        };
        Self {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            ports,
        }
    }

    /// The "port" a selector of the source side is compared with.
    pub fn src_port(&self) -> Option<u16> {
        match self.ports {
            Ports::Pair { src, .. } => Some(src),
            Ports::Kind(kind) => Some(kind),
            Ports::Opaque => None,
        }
    }

    /// The "port" a selector of the destination side is compared with.
    pub fn dst_port(&self) -> Option<u16> {
        match self.ports {
            Ports::Pair { dst, .. } => Some(dst),
            Ports::Kind(kind) => Some(kind),
            Ports::Opaque => None,
        }
    }

    /// The packet as a pair of traffic selectors, source first: what an initiator puts first into TSi
    /// and TSr when this packet caused the negotiation (RFC 7296 §2.9).
    pub fn to_selectors(&self) -> (TrafficSelector, TrafficSelector) {
        let one = |addr, port: Option<u16>| TrafficSelector {
            protocol: self.protocol,
            ports: port.map_or(ANY_PORT, |port| port..=port),
            addrs: AddrRange::single(addr),
        };
        (
            one(self.src, self.src_port()),
            one(self.dst, self.dst_port()),
        )
    }
}

impl Ports {
    fn read(protocol: u8, payload: &[u8]) -> Self {
        match (protocol, payload) {
            (
                protocol::TCP
                | protocol::UDP
                | protocol::UDP_LITE
                | protocol::SCTP
                | protocol::DCCP,
                [a, b, c, d, ..],
            ) => Self::Pair {
                src: u16::from_be_bytes([*a, *b]),
                dst: u16::from_be_bytes([*c, *d]),
            },
            (protocol::ICMP | protocol::ICMPV6, [kind, code, ..]) => {
                Self::Kind(u16::from_be_bytes([*kind, *code]))
            }
            // RFC 6275 §6.1.1: the MH Type is the third octet.
            (protocol::MOBILITY, [_, _, kind, ..]) => Self::Kind(u16::from_be_bytes([*kind, 0])),
            _ => Self::Opaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Spec, Upper};

    fn ports(protocol: u8, payload: &[u8]) -> Ports {
        let bytes = Spec::of(true, Upper::Other(protocol), payload).bytes();
        Flow::of(&IpPacket::parse(&bytes).unwrap(), &bytes).ports
    }

    #[test]
    fn each_protocol_shows_what_it_has() {
        let pair = Ports::Pair {
            src: 0x0102,
            dst: 0x0304,
        };
        for protocol in [6, 17, 33, 132, 136] {
            assert_eq!(ports(protocol, &[1, 2, 3, 4]), pair);
            assert_eq!(ports(protocol, &[1, 2, 3]), Ports::Opaque, "cut short");
        }
        assert_eq!(
            ports(protocol::ICMPV6, &[128, 0, 1, 2]),
            Ports::Kind(0x8000)
        );
        assert_eq!(
            ports(protocol::MOBILITY, &[59, 0, 5, 0]),
            Ports::Kind(0x0500)
        );
        assert_eq!(ports(47, &[1, 2, 3, 4]), Ports::Opaque, "GRE has none");
    }
}

//! Traffic selectors (RFC 7296 §3.13) and their arithmetic.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

mod range;
#[cfg(test)]
mod tests;

pub use range::{AddrRange, Prefixes};

/// Every port, and packets whose port cannot be seen.
pub const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;
/// Only packets whose port cannot be seen, such as later fragments (RFC 7296 §3.13.1). The wire
/// says it by an empty range, and so does this type.
#[allow(clippy::reversed_empty_ranges)]
pub const OPAQUE_PORT: RangeInclusive<u16> = u16::MAX..=0;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// A TSi or TSr payload.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Number of TSs |                 RESERVED                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       <Traffic Selectors>                     ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TsPayload {
    /// Address ranges, in the order sent. In a request the first may describe the packet that
    /// caused it (RFC 7296 §2.9).
    pub selectors: Vec<TrafficSelector>,
    /// Selectors of other kinds, such as security labels (RFC 9478).
    pub unknown: Vec<UnknownSelector>,
}

/// Packets of one protocol, one range of ports, one range of addresses.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   TS Type     |IP Protocol ID |       Selector Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Start Port          |           End Port            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                         Starting Address                      ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                         Ending Address                        ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol or last IPv6 next header; 0 means any.
    pub protocol: u8,
    /// [`ANY_PORT`], [`OPAQUE_PORT`], or a range. For ICMP the "port" has the type in its high
    /// octet and the code in its low one (RFC 7296 §3.13.1, RFC 4301 §4.4.1.1).
    pub ports: RangeInclusive<u16>,
    /// Never empty when it came from the wire.
    pub addrs: AddrRange,
}

/// A selector that is no address range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSelector {
    /// Its TS Type.
    pub ty: TsType,
    /// The octet where ranges have the IP protocol.
    pub protocol: u8,
    /// What follows the Selector Length.
    pub body: Vec<u8>,
}

wire_number! {
    /// IANA "IKEv2 Traffic Selector Types".
    TsType(u8) {
        TS_IPV4_ADDR_RANGE = 7,
        TS_IPV6_ADDR_RANGE = 8,
        TS_FC_ADDR_RANGE = 9,
        TS_SECLABEL = 10,
    }
}

impl TsPayload {
    /// Of address ranges alone.
    pub fn new(selectors: Vec<TrafficSelector>) -> Self {
        Self {
            selectors,
            unknown: Vec::new(),
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Traffic Selector payload", body);
        let count = reader.u8()?;
        reader.take(3)?;
        let mut payload = Self::default();
        // The count is one octet, and each selector takes four or more.
        for _ in 0..count {
            payload.parse_selector(&mut reader)?;
        }
        reader.finish()?;
        Ok(payload)
    }

    fn parse_selector(&mut self, reader: &mut Reader<'_>) -> Result<(), ParseError> {
        let ty = TsType(reader.u8()?);
        let protocol = reader.u8()?;
        let length = usize::from(reader.u16()?);
        let Some(rest) = length.checked_sub(4) else {
            return Err(ParseError::Length {
                what: "Traffic Selector",
                expected: "at least 4",
                got: length,
            });
        };
        let body = reader.take(rest)?;
        if ty != TsType::TS_IPV4_ADDR_RANGE && ty != TsType::TS_IPV6_ADDR_RANGE {
            self.unknown.push(UnknownSelector {
                ty,
                protocol,
                body: body.to_vec(),
            });
            return Ok(());
        }
        let mut fields = Reader::new("Traffic Selector", body);
        let ports = fields.u16()?..=fields.u16()?;
        if ports.is_empty() && ports != OPAQUE_PORT {
            return Err(ParseError::Value {
                what: "Start Port of a traffic selector",
                expected: "at most its End Port, or 65535 with 0 for OPAQUE",
                got: u64::from(*ports.start()),
            });
        }
        let (lo, hi) = if ty == TsType::TS_IPV4_ADDR_RANGE {
            (
                IpAddr::from(fields.array::<4>()?),
                IpAddr::from(fields.array::<4>()?),
            )
        } else {
            (
                IpAddr::from(fields.array::<16>()?),
                IpAddr::from(fields.array::<16>()?),
            )
        };
        fields.finish()?;
        let Some(addrs) = AddrRange::new(lo, hi) else {
            return Err(ParseError::Value {
                what: "Starting Address of a traffic selector",
                expected: "at most its Ending Address",
                got: match lo {
                    IpAddr::V4(lo) => u64::from(lo.to_bits()),
                    IpAddr::V6(lo) => (lo.to_bits() >> 64) as u64,
                },
            });
        };
        self.selectors.push(TrafficSelector {
            protocol,
            ports,
            addrs,
        });
        Ok(())
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.count_u8(
            "the number of traffic selectors",
            self.selectors.len() + self.unknown.len(),
        );
        writer.bytes(&[0; 3]);
        for selector in &self.selectors {
            selector.write(writer);
        }
        for selector in &self.unknown {
            let start = writer.len();
            writer.u8(selector.ty.0);
            writer.u8(selector.protocol);
            writer.u16(0);
            writer.bytes(&selector.body);
            writer.patch_length_u16("a traffic selector", start + 2, start);
        }
    }
}

impl TrafficSelector {
    /// Every packet of these addresses.
    pub const fn from_range(addrs: AddrRange) -> Self {
        Self {
            protocol: 0,
            ports: ANY_PORT,
            addrs,
        }
    }

    /// Every packet of a subnet; host bits of `addr` are ignored. A prefix longer than the address
    /// counts as the address alone.
    pub fn from_prefix(addr: IpAddr, prefix_len: u8) -> Self {
        Self::from_range(AddrRange::from_prefix(addr, prefix_len))
    }

    /// `0.0.0.0/0`.
    pub const fn any_v4() -> Self {
        Self::from_range(AddrRange::ANY_V4)
    }

    /// `::/0`.
    pub const fn any_v6() -> Self {
        Self::from_range(AddrRange::ANY_V6)
    }

    /// Whether a packet is selected. `port` is `None` when it cannot be seen (a later fragment, an
    /// unknown protocol); such packets need a selector of any or opaque ports. For ICMP, pass
    /// `type << 8 | code`.
    pub fn contains(&self, addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let port_matches = match port {
            Some(port) => self.ports.contains(&port),
            None => self.ports == ANY_PORT || self.ports == OPAQUE_PORT,
        };
        port_matches
            && (self.protocol == 0 || self.protocol == protocol)
            && self.addrs.contains(addr)
    }

    /// What both select; `None` when nothing is.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ports = intersect_ports(&self.ports, &other.ports)?;
        let addrs = self.addrs.intersect(&other.addrs)?;
        Some(Self {
            protocol,
            ports,
            addrs,
        })
    }

    /// Whether `other` selects everything that this one does.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intersect(other).as_ref() == Some(self)
    }

    /// The subnet, if the address range is exactly one.
    pub fn to_prefix(&self) -> Option<(IpAddr, u8)> {
        self.addrs.to_prefix()
    }

    /// The fewest subnets that together are the address range, lowest first.
    pub fn prefixes(&self) -> Prefixes {
        self.addrs.prefixes()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.len();
        let ty = match self.addrs {
            AddrRange::V4(..) => TsType::TS_IPV4_ADDR_RANGE,
            AddrRange::V6(..) => TsType::TS_IPV6_ADDR_RANGE,
        };
        writer.u8(ty.0);
        writer.u8(self.protocol);
        writer.u16(0);
        writer.u16(*self.ports.start());
        writer.u16(*self.ports.end());
        match self.addrs {
            AddrRange::V4(lo, hi) => {
                writer.bytes(&lo.octets());
                writer.bytes(&hi.octets());
            }
            AddrRange::V6(lo, hi) => {
                writer.bytes(&lo.octets());
                writer.bytes(&hi.octets());
            }
        }
        writer.patch_length_u16("a traffic selector", start + 2, start);
    }
}

/// RFC 4301 §4.4.1.1: any includes opaque, a range does not.
fn intersect_ports(
    a: &RangeInclusive<u16>,
    b: &RangeInclusive<u16>,
) -> Option<RangeInclusive<u16>> {
    if *a == ANY_PORT {
        return Some(b.clone());
    }
    if *b == ANY_PORT || a == b {
        return Some(a.clone());
    }
    let both = *a.start().max(b.start())..=*a.end().min(b.end());
    (!both.is_empty()).then_some(both)
}

/// As strongSwan prints them: `10.1.0.0/24`, `10.1.0.0/24[tcp/80]`, `10.0.0.1..10.0.0.9[udp]`.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addrs.fmt(f)?;
        if self.protocol == 0 && self.ports == ANY_PORT {
            return Ok(());
        }
        match self.protocol {
            PROTOCOL_ICMP => f.write_str("[icmp")?,
            PROTOCOL_TCP => f.write_str("[tcp")?,
            PROTOCOL_UDP => f.write_str("[udp")?,
            PROTOCOL_ICMPV6 => f.write_str("[ipv6-icmp")?,
            other => write!(f, "[{other}")?,
        }
        let (start, end) = (*self.ports.start(), *self.ports.end());
        if self.ports == OPAQUE_PORT {
            f.write_str("/OPAQUE")?;
        } else if matches!(self.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) && self.ports != ANY_PORT
        {
            let [start_type, start_code] = start.to_be_bytes();
            let [end_type, end_code] = end.to_be_bytes();
            write!(f, "/{start_type}")?;
            if start == end {
                write!(f, "({start_code})")?;
            } else if (start_code, end_code) != (0, 255) {
                write!(f, "({start_code})-{end_type}({end_code})")?;
            } else if start_type != end_type {
                write!(f, "-{end_type}")?;
            }
        } else if start == end {
            write!(f, "/{start}")?;
        } else if self.ports != ANY_PORT {
            write!(f, "/{start}-{end}")?;
        }
        f.write_str("]")
    }
}

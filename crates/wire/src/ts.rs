//! Traffic selectors (RFC 7296 §3.13) and their arithmetic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

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

/// All addresses from the first to the second, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddrRange {
    /// TS_IPV4_ADDR_RANGE.
    V4(Ipv4Addr, Ipv4Addr),
    /// TS_IPV6_ADDR_RANGE.
    V6(Ipv6Addr, Ipv6Addr),
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

impl AddrRange {
    /// `0.0.0.0/0`.
    pub const ANY_V4: Self = Self::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    /// `::/0`.
    pub const ANY_V6: Self = Self::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX));

    /// `None` when the two are of different families, or the first is above the second.
    pub fn new(lo: IpAddr, hi: IpAddr) -> Option<Self> {
        match (lo, hi) {
            (IpAddr::V4(lo), IpAddr::V4(hi)) if lo <= hi => Some(Self::V4(lo, hi)),
            (IpAddr::V6(lo), IpAddr::V6(hi)) if lo <= hi => Some(Self::V6(lo, hi)),
            _ => None,
        }
    }

    /// One address.
    pub const fn single(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::V4(addr, addr),
            IpAddr::V6(addr) => Self::V6(addr, addr),
        }
    }

    /// A subnet; see [`TrafficSelector::from_prefix`].
    pub fn from_prefix(addr: IpAddr, prefix_len: u8) -> Self {
        let prefix_len = u32::from(prefix_len);
        match addr {
            IpAddr::V4(addr) => {
                let host_bits = u32::MAX.checked_shr(prefix_len).unwrap_or(0);
                let addr = addr.to_bits();
                Self::V4((addr & !host_bits).into(), (addr | host_bits).into())
            }
            IpAddr::V6(addr) => {
                let host_bits = u128::MAX.checked_shr(prefix_len).unwrap_or(0);
                let addr = addr.to_bits();
                Self::V6((addr & !host_bits).into(), (addr | host_bits).into())
            }
        }
    }

    /// The lowest address.
    pub const fn lo(&self) -> IpAddr {
        match self {
            Self::V4(lo, _) => IpAddr::V4(*lo),
            Self::V6(lo, _) => IpAddr::V6(*lo),
        }
    }

    /// The highest address.
    pub const fn hi(&self) -> IpAddr {
        match self {
            Self::V4(_, hi) => IpAddr::V4(*hi),
            Self::V6(_, hi) => IpAddr::V6(*hi),
        }
    }

    /// Whether these are IPv4 addresses.
    pub const fn is_ipv4(&self) -> bool {
        matches!(self, Self::V4(..))
    }

    /// Whether `addr` is in the range.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self, addr) {
            (Self::V4(lo, hi), IpAddr::V4(addr)) => (*lo..=*hi).contains(&addr),
            (Self::V6(lo, hi), IpAddr::V6(addr)) => (*lo..=*hi).contains(&addr),
            _ => false,
        }
    }

    /// The addresses in both; `None` when there are none.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        // Of two families, the maximum is IPv6 and the minimum IPv4, which `new` refuses.
        Self::new(self.lo().max(other.lo()), self.hi().min(other.hi()))
    }

    /// Whether all of it is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intersect(other).as_ref() == Some(self)
    }

    /// The subnet, if the range is exactly one.
    pub fn to_prefix(&self) -> Option<(IpAddr, u8)> {
        let mut prefixes = self.prefixes();
        let only = prefixes.next()?;
        prefixes.next().is_none().then_some(only)
    }

    /// The fewest subnets that together are the range, lowest first.
    pub fn prefixes(&self) -> Prefixes {
        let (next, last) = match self {
            Self::V4(lo, hi) => (u128::from(lo.to_bits()), u128::from(hi.to_bits())),
            Self::V6(lo, hi) => (lo.to_bits(), hi.to_bits()),
        };
        Prefixes {
            v4: self.is_ipv4(),
            remaining: (next <= last).then_some((next, last)),
        }
    }
}

/// Iterates over the subnets of a range; see [`AddrRange::prefixes`].
#[derive(Debug, Clone)]
pub struct Prefixes {
    v4: bool,
    remaining: Option<(u128, u128)>,
}

impl Iterator for Prefixes {
    type Item = (IpAddr, u8);

    fn next(&mut self) -> Option<Self::Item> {
        let (next, last) = self.remaining?;
        let width: u32 = if self.v4 { 32 } else { 128 };
        // The largest block that starts at `next` by alignment, then by what is left.
        let aligned = next.trailing_zeros().min(width);
        // One less than the number of addresses left, because 2^128 does not fit.
        let left = last - next;
        let fits = left.checked_add(1).map_or(128, |count| count.ilog2());
        let host_bits = aligned.min(fits);
        let block_end = next | low_bits(host_bits);
        self.remaining = (block_end < last).then(|| (block_end + 1, last));
        let addr = if self.v4 {
            IpAddr::V4(Ipv4Addr::from_bits(next as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(next))
        };
        Some((addr, (width - host_bits) as u8))
    }
}

fn low_bits(count: u32) -> u128 {
    match count {
        0 => 0,
        count => u128::MAX >> (128 - count.min(128)),
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

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_prefix() {
            Some((addr, prefix_len)) => write!(f, "{addr}/{prefix_len}"),
            None => write!(f, "{}..{}", self.lo(), self.hi()),
        }
    }
}

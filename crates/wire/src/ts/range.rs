//! Ranges of addresses, and the subnets they consist of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses from the first to the second, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddrRange {
    /// TS_IPV4_ADDR_RANGE.
    V4(Ipv4Addr, Ipv4Addr),
    /// TS_IPV6_ADDR_RANGE.
    V6(Ipv6Addr, Ipv6Addr),
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

    /// A subnet; see [`super::TrafficSelector::from_prefix`].
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

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_prefix() {
            Some((addr, prefix_len)) => write!(f, "{addr}/{prefix_len}"),
            None => write!(f, "{}..{}", self.lo(), self.hi()),
        }
    }
}

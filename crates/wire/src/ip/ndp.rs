//! The two messages by which IPv6 hosts find a router (RFC 4861 §4.1 and §4.2), with its preference (RFC 4191 §2.2)
//! and resolvers (RFC 8106 §5.1).
//!
//! Both begin with the ICMPv6 header, whose checksum a raw socket's kernel fills in and has verified.

use std::net::Ipv6Addr;

use super::icmp::icmpv6;
use super::{HeaderError, head};

/// Resolvers of one advertisement that are read.
const DNS_MAX: usize = 16;
/// Octets before the options of an advertisement, and of a solicitation.
const ADVERTISEMENT: usize = 16;
const SOLICITATION: usize = 8;
/// Types of options.
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const RECURSIVE_DNS_SERVER: u8 = 25;

/// How much a host is to prefer a router to others (RFC 4191 §2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// To others.
    High,
    /// As routers do that know no preference.
    #[default]
    Medium,
    /// Only where there is no other.
    Low,
}

impl Preference {
    /// Two bits, a signed number.
    fn bits(self) -> u8 {
        match self {
            Self::High => 0b01,
            Self::Medium => 0b00,
            Self::Low => 0b11,
        }
    }

    /// RFC 4191 §2.2: the reserved value counts as medium.
    fn of(bits: u8) -> Self {
        match bits & 0b11 {
            0b01 => Self::High,
            0b11 => Self::Low,
            _ => Self::Medium,
        }
    }
}

/// A Router Advertisement.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Cur Hop Limit |M|O|H|Prf|Resvd|       Router Lifetime         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Reachable Time                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                          Retrans Timer                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Options ...
/// +-+-+-+-+-+-+-+-+-+-+-+-
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// What hosts put into their packets; 0: their own choice.
    pub hop_limit: u8,
    /// To be preferred to other routers or not.
    pub preference: Preference,
    /// Seconds for which it is a default router; 0: it is none.
    pub lifetime_s: u16,
    /// Its Ethernet address.
    pub source: Option<[u8; 6]>,
    /// Resolvers.
    pub dns: Vec<Ipv6Addr>,
    /// Seconds for which they may be asked.
    pub dns_lifetime_s: u32,
}

impl RouterAdvertisement {
    /// The message as bytes, its checksum zero.
    pub fn emit(&self) -> Vec<u8> {
        let [l0, l1] = self.lifetime_s.to_be_bytes();
        let flags = self.preference.bits() << 3;
        let mut out = vec![icmpv6::ROUTER_ADVERTISEMENT, 0, 0, 0];
        out.extend_from_slice(&[self.hop_limit, flags, l0, l1]);
        out.resize(ADVERTISEMENT, 0);
        if let Some(source) = &self.source {
            out.extend_from_slice(&[SOURCE_LINK_LAYER_ADDRESS, 1]);
            out.extend_from_slice(source);
        }
        // An option is 255 times eight octets long at most.
        for part in self.dns.chunks(127) {
            let eights = u8::try_from(1 + 2 * part.len()).unwrap_or(u8::MAX);
            out.extend_from_slice(&[RECURSIVE_DNS_SERVER, eights, 0, 0]);
            out.extend_from_slice(&self.dns_lifetime_s.to_be_bytes());
            out.extend(part.iter().flat_map(Ipv6Addr::octets));
        }
        out
    }

    /// Reads a message; options that are not known are passed over (RFC 4861 §6.1.2).
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        const NAME: &str = "Router Advertisement";
        let fixed = head::<ADVERTISEMENT>(bytes, NAME)?;
        let [_, _, _, _, hop_limit, flags, l0, l1, ..] = fixed;
        let mut read = Self {
            hop_limit,
            preference: Preference::of(flags >> 3),
            lifetime_s: u16::from_be_bytes([l0, l1]),
            ..Self::default()
        };
        let mut rest = bytes.get(ADVERTISEMENT..).unwrap_or_default();
        while let [kind, eights, ..] = rest {
            let stated = usize::from(*eights) * 8;
            let length = || HeaderError::Length {
                header: NAME,
                stated,
            };
            if stated == 0 {
                return Err(length());
            }
            let (option, after) = rest.split_at_checked(stated).ok_or_else(length)?;
            match (*kind, option) {
                (SOURCE_LINK_LAYER_ADDRESS, [_, 1, address @ ..]) => {
                    read.source = address.first_chunk::<6>().copied();
                }
                (RECURSIVE_DNS_SERVER, [_, _, _, _, a, b, c, d, addresses @ ..]) => {
                    let (addresses, _) = addresses.as_chunks::<16>();
                    if !addresses.is_empty() {
                        read.dns_lifetime_s = u32::from_be_bytes([*a, *b, *c, *d]);
                    }
                    let room = DNS_MAX.saturating_sub(read.dns.len());
                    let addresses = addresses.iter().take(room).copied();
                    read.dns.extend(addresses.map(Ipv6Addr::from));
                }
                _ => {}
            }
            rest = after;
        }
        match rest {
            [] => Ok(read),
            _ => Err(HeaderError::Length {
                header: NAME,
                stated: rest.len(),
            }),
        }
    }
}

/// Whether this is a Router Solicitation: a host asks who is a router.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                            Reserved                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Options ...
/// +-+-+-+-+-+-+-+-+-+-+-+-
/// ```
pub fn is_router_solicitation(bytes: &[u8]) -> bool {
    match bytes {
        [kind, code, ..] => {
            (*kind, *code) == (icmpv6::ROUTER_SOLICITATION, 0) && bytes.len() >= SOLICITATION
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As radvd sends it: a prefix, an MTU, a resolver, its address.
    const CAPTURED: [u8; 88] = [
        134, 0, 0xab, 0xcd, 64, 0x08, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, // header
        3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0, // prefix
        0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
        5, 1, 0, 0, 0, 0, 5, 0xdc, // MTU
        25, 3, 0, 0, 0, 0, 7, 8, 0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x53, // RDNSS
        1, 1, 2, 0, 0, 0, 0, 1,
    ];

    #[test]
    fn another_routers_advertisement_is_read() {
        let expected = RouterAdvertisement {
            hop_limit: 64,
            preference: Preference::High,
            lifetime_s: 1800,
            source: Some([2, 0, 0, 0, 0, 1]),
            dns: vec!["fd00:1::53".parse().unwrap()],
            dns_lifetime_s: 1800,
        };
        assert_eq!(RouterAdvertisement::parse(&CAPTURED), Ok(expected));
        for cut in (0..CAPTURED.len()).filter(|cut| ![16, 48, 56, 80].contains(cut)) {
            assert!(
                RouterAdvertisement::parse(&CAPTURED[..cut]).is_err(),
                "{cut}"
            );
        }
        let mut endless = CAPTURED;
        endless[17] = 0;
        assert!(RouterAdvertisement::parse(&endless).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for preference in [Preference::High, Preference::Medium, Preference::Low] {
            let message = RouterAdvertisement {
                hop_limit: 64,
                preference,
                lifetime_s: 9000,
                source: Some([2, 3, 4, 5, 6, 7]),
                dns: vec!["fe80::2".parse().unwrap(), "fd00::53".parse().unwrap()],
                dns_lifetime_s: 600,
            };
            let bytes = message.emit();
            assert_eq!(bytes.len() % 8, 0);
            assert_eq!(RouterAdvertisement::parse(&bytes), Ok(message));
        }
    }

    #[test]
    fn a_solicitation_is_told_from_all_else() {
        let mut bytes = [133, 0, 1, 2, 0, 0, 0, 0];
        assert!(is_router_solicitation(&bytes));
        assert!(!is_router_solicitation(&bytes[..7]));
        bytes[1] = 1;
        assert!(!is_router_solicitation(&bytes));
        assert!(!is_router_solicitation(&CAPTURED));
        assert!(!is_router_solicitation(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RouterAdvertisement::parse(&bytes);
            let _ = is_router_solicitation(&bytes);
        }
    }
}

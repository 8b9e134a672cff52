//! The two messages by which IPv6 hosts find a router (RFC 4861 §4.1 and §4.2), with its preference (RFC 4191 §2.2)
//! and resolvers (RFC 8106 §5.1).
//!
//! Both begin with the ICMPv6 header, whose checksum a raw socket's kernel fills in and has verified.

use std::net::Ipv6Addr;

use super::icmp::icmpv6;

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
    /// Resolvers that are not to be asked any more.
    pub dns_gone: Vec<Ipv6Addr>,
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
        // RFC 8106 §5.1: a lifetime of zero takes them back.
        for (dns, lifetime_s) in [(&self.dns, self.dns_lifetime_s), (&self.dns_gone, 0)] {
            // An option is 255 times eight octets long at most.
            for part in dns.chunks(127) {
                let eights = u8::try_from(1 + 2 * part.len()).unwrap_or(u8::MAX);
                out.extend_from_slice(&[RECURSIVE_DNS_SERVER, eights, 0, 0]);
                out.extend_from_slice(&lifetime_s.to_be_bytes());
                out.extend(part.iter().flat_map(Ipv6Addr::octets));
            }
        }
        out
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

    #[test]
    fn an_advertisement_has_the_octets_of_the_rfcs() {
        let message = RouterAdvertisement {
            hop_limit: 64,
            preference: Preference::High,
            lifetime_s: 1800,
            source: Some([2, 0, 0, 0, 0, 1]),
            dns: vec!["fd00:1::53".parse().unwrap(), "fe80::2".parse().unwrap()],
            dns_lifetime_s: 600,
            dns_gone: vec!["fd00:1::54".parse().unwrap()],
        };
        let expected = [
            134, 0, 0, 0, 64, 0x08, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, // header
            1, 1, 2, 0, 0, 0, 0, 1, // source link-layer address
            25, 5, 0, 0, 0, 0, 2, 0x58, // recursive DNS servers, 600 s
            0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53, //
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
            25, 3, 0, 0, 0, 0, 0, 0, // and one that is none any more
            0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x54,
        ];
        assert_eq!(message.emit(), expected);
        let flags = |preference| {
            let message = RouterAdvertisement {
                preference,
                ..RouterAdvertisement::default()
            };
            message.emit()[5]
        };
        assert_eq!(flags(Preference::Medium), 0);
        assert_eq!(flags(Preference::Low), 0x18);
    }

    #[test]
    fn many_resolvers_are_several_options() {
        let message = RouterAdvertisement {
            dns: vec![Ipv6Addr::LOCALHOST; 128],
            ..RouterAdvertisement::default()
        };
        let bytes = message.emit();
        assert_eq!(bytes.len(), ADVERTISEMENT + 2 * 8 + 128 * 16);
        assert_eq!(bytes[ADVERTISEMENT..][..2], [25, 255]);
        assert_eq!(bytes[ADVERTISEMENT + 255 * 8..][..2], [25, 3]);
    }

    #[test]
    fn a_solicitation_is_told_from_all_else() {
        let mut bytes = [133, 0, 1, 2, 0, 0, 0, 0];
        assert!(is_router_solicitation(&bytes));
        assert!(!is_router_solicitation(&bytes[..7]));
        bytes[1] = 1;
        assert!(!is_router_solicitation(&bytes));
        assert!(!is_router_solicitation(
            &RouterAdvertisement::default().emit()
        ));
        assert!(!is_router_solicitation(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_router_solicitation(&bytes);
        }
    }
}

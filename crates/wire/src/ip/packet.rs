//! An IP packet of either family, seen as a whole.

use std::net::IpAddr;

use super::{HeaderError, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, bytes_at, protocol};

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification shared by the datagram's fragments.
    pub id: u32,
    /// Offset of this fragment's payload, in bytes; zero in the first.
    pub offset: u16,
    /// Whether further fragments follow.
    pub more: bool,
}

/// What a packet's headers say: enough to match selectors, cut, join and answer it.
///
/// `parse` has checked that all `len` bytes are there and that the upper layer begins within them,
/// so `payload_at <= len <= bytes.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// IP version.
    pub version: Version,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Type of service or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The upper-layer protocol, after any IPv6 extension headers. In a later IPv6 fragment it is
    /// what its fragment header names, which may be another extension header.
    pub protocol: u8,
    /// Where the upper layer begins, from the packet's first byte.
    pub payload_at: usize,
    /// Length of the packet by its own header, in bytes. What follows it in the buffer is not part of it.
    pub len: usize,
    /// Whether IPv4's DF is set; always true for IPv6, which routers do not fragment.
    pub dont_fragment: bool,
    /// Which fragment this is, if it is one.
    pub fragment: Option<Fragment>,
}

impl IpPacket {
    /// Extension headers read before a packet is given up: RFC 8200 §4.1 names six, none useful twice
    /// but Destination Options.
    const MAX_EXTENSIONS: usize = 8;

    /// Reads the headers of the packet at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(version) => Err(HeaderError::Version(version)),
            None => Err(HeaderError::Truncated {
                header: "IP header",
                needed: 1,
                got: 0,
            }),
        }
    }

    /// Whether this is a fragment other than the first, which carries no upper-layer header.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }

    /// The upper layer's bytes, given the bytes that were parsed.
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.payload_at..self.len).unwrap_or_default()
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = Ipv4Header::parse(bytes)?;
        let payload_at = usize::from(h.header_len);
        let len = usize::from(h.total_len);
        if len < payload_at {
            return Err(HeaderError::Length {
                header: "IPv4 packet",
                stated: len,
            });
        }
        complete(bytes, len, "IPv4 packet")?;
        let offset = h.fragment_offset();
        let fragment = (offset != 0 || h.more_fragments()).then_some(Fragment {
            id: u32::from(h.id),
            offset,
            more: h.more_fragments(),
        });
        Ok(Self {
            version: Version::V4,
            src: h.src.into(),
            dst: h.dst.into(),
            tos: h.tos,
            ttl: h.ttl,
            protocol: h.protocol,
            payload_at,
            len,
            dont_fragment: h.dont_fragment(),
            fragment,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = Ipv6Header::parse(bytes)?;
        // A jumbogram (RFC 2675) states zero here and is not carried: it reads as an empty packet
        // whose hop-by-hop header is missing.
        let len = Ipv6Header::LEN + usize::from(h.payload_len);
        complete(bytes, len, "IPv6 packet")?;
        let bytes = bytes.get(..len).unwrap_or(bytes);

        let mut next = h.next_header;
        let mut at = Ipv6Header::LEN;
        let mut fragment = None;
        for _ in 0..Self::MAX_EXTENSIONS {
            let short = |needed: usize| HeaderError::Truncated {
                header: "IPv6 extension",
                needed,
                got: len,
            };
            match next {
                // A mobility header has the same form but is the upper layer that selectors name
                // (RFC 4301 §4.4.1.1), so it is not in this list.
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION_OPTIONS
                | protocol::HIP
                | protocol::SHIM6 => {
                    let [following, units] = bytes_at(bytes, at).ok_or(short(at + 2))?;
                    at += (usize::from(units) + 1) * 8;
                    next = following;
                }
                protocol::AH => {
                    // RFC 4302 §2.2: length in 32-bit words, minus two.
                    let [following, words] = bytes_at(bytes, at).ok_or(short(at + 2))?;
                    at += (usize::from(words) + 2) * 4;
                    next = following;
                }
                protocol::FRAGMENT => {
                    let header = Ipv6FragmentHeader::parse(bytes.get(at..).unwrap_or_default())?;
                    at += Ipv6FragmentHeader::LEN;
                    next = header.next_header;
                    // RFC 6946: an atomic fragment (offset 0, no more) is a whole packet.
                    if header.offset != 0 || header.more {
                        fragment = Some(Fragment {
                            id: header.id,
                            offset: header.offset,
                            more: header.more,
                        });
                    }
                    if header.offset != 0 {
                        return Ok(Self::v6(&h, next, at, len, fragment));
                    }
                }
                _ => return Ok(Self::v6(&h, next, at, len, fragment)),
            }
            if at > len {
                return Err(short(at));
            }
        }
        Err(HeaderError::TooManyExtensions)
    }

    fn v6(
        h: &Ipv6Header,
        protocol: u8,
        payload_at: usize,
        len: usize,
        fragment: Option<Fragment>,
    ) -> Self {
        Self {
            version: Version::V6,
            src: h.src.into(),
            dst: h.dst.into(),
            tos: h.traffic_class,
            ttl: h.hop_limit,
            protocol,
            payload_at,
            len,
            dont_fragment: true,
            fragment,
        }
    }
}

fn complete(bytes: &[u8], len: usize, header: &'static str) -> Result<(), HeaderError> {
    if bytes.len() < len {
        return Err(HeaderError::Truncated {
            header,
            needed: len,
            got: bytes.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6Header {
            traffic_class: 0xb8,
            flow_label: 1,
            payload_len: payload.len() as u16,
            next_header,
            hop_limit: 64,
            src: Ipv6Addr::LOCALHOST,
            dst: Ipv6Addr::UNSPECIFIED,
        };
        [&header.emit(), payload].concat()
    }

    #[test]
    fn v4_packet_with_trailing_bytes() {
        let header = Ipv4Header {
            header_len: 24,
            tos: 1,
            total_len: 30,
            id: 7,
            flags_fragment: Ipv4Header::MORE_FRAGMENTS | 3,
            ttl: 9,
            protocol: 17,
            checksum: 0,
            src: Ipv4Addr::LOCALHOST,
            dst: Ipv4Addr::BROADCAST,
        };
        let mut bytes = header.emit().to_vec();
        bytes.resize(40, 0xaa);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.payload_at, packet.len), (24, 30));
        assert_eq!(packet.payload(&bytes).len(), 6);
        assert_eq!(
            packet.fragment,
            Some(Fragment {
                id: 7,
                offset: 24,
                more: true
            })
        );
        assert!(packet.is_later_fragment());
        assert_eq!(
            IpPacket::parse(&bytes[..29]),
            Err(HeaderError::Truncated {
                header: "IPv4 packet",
                needed: 30,
                got: 29
            })
        );
    }

    #[test]
    fn v6_extension_headers_are_walked() {
        // Hop-by-hop (8 bytes), destination options (16), fragment (first), then UDP.
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
        payload.extend_from_slice(&[44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[17, 0, 0, 1, 0, 0, 0, 5]);
        payload.extend_from_slice(&[0; 8]);
        let bytes = v6(0, &payload);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.protocol, 17);
        assert_eq!(packet.payload_at, 40 + 32);
        assert_eq!(packet.tos, 0xb8);
        assert_eq!(
            packet.fragment,
            Some(Fragment {
                id: 5,
                offset: 0,
                more: true
            })
        );
        assert!(!packet.is_later_fragment());
    }

    #[test]
    fn v6_later_fragment_ends_the_walk() {
        let packet = IpPacket::parse(&v6(44, &[60, 0, 0x05, 0xa8, 0, 0, 0, 5, 0xff])).unwrap();
        assert_eq!(packet.protocol, 60);
        assert_eq!(packet.payload_at, 48);
        assert!(packet.is_later_fragment());
    }

    #[test]
    fn v6_atomic_fragment_is_a_whole_packet() {
        let packet = IpPacket::parse(&v6(44, &[17, 0, 0, 0, 0, 0, 0, 5, 0, 0])).unwrap();
        assert_eq!((packet.protocol, packet.fragment), (17, None));
    }

    #[test]
    fn v6_endless_extensions_are_refused() {
        let bytes = v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9));
        assert_eq!(IpPacket::parse(&bytes), Err(HeaderError::TooManyExtensions));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | (*first & 0x0f) };
            }
            if let Ok(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.payload_at <= packet.len && packet.len <= bytes.len());
            }
        }
    }
}

//! The IPv6 header and the fragment header.

use std::net::Ipv6Addr;

use super::{HeaderError, head};

/// The fixed IPv6 header (RFC 8200 §3).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version| Traffic Class |           Flow Label                  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                         Source Address                        +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                      Destination Address                      +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Length of everything after this header, in bytes.
    pub payload_len: u16,
    /// What follows this header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl Ipv6Header {
    /// Length of the header, in bytes.
    pub const LEN: usize = 40;

    /// Reads the header. Whether the payload is there is not checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "IPv6 header")?;
        let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
        if first >> 28 != 6 {
            return Err(HeaderError::Version(h[0] >> 4));
        }
        let mut src = [0; 16];
        let mut dst = [0; 16];
        src.copy_from_slice(&h[8..24]);
        dst.copy_from_slice(&h[24..40]);
        Ok(Self {
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0x000f_ffff,
            payload_len: u16::from_be_bytes([h[4], h[5]]),
            next_header: h[6],
            hop_limit: h[7],
            src: src.into(),
            dst: dst.into(),
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut h = [0; Self::LEN];
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0x000f_ffff);
        h[..4].copy_from_slice(&first.to_be_bytes());
        h[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        h[6] = self.next_header;
        h[7] = self.hop_limit;
        h[8..24].copy_from_slice(&self.src.octets());
        h[24..40].copy_from_slice(&self.dst.octets());
        h
    }
}

/// The IPv6 fragment header (RFC 8200 §4.5).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Identification                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6FragmentHeader {
    /// What follows this header in the first fragment.
    pub next_header: u8,
    /// Where this fragment belongs, in bytes: a multiple of eight.
    pub offset: u16,
    /// Whether further fragments follow.
    pub more: bool,
    /// Identification of the datagram's fragments.
    pub id: u32,
}

impl Ipv6FragmentHeader {
    /// Length of the header, in bytes.
    pub const LEN: usize = 8;

    /// Reads the header; reserved bits are ignored on reception.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "IPv6 fragment header")?;
        let offset = u16::from_be_bytes([h[2], h[3]]);
        Ok(Self {
            next_header: h[0],
            offset: offset & !7,
            more: offset & 1 != 0,
            id: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [hi, lo] = (self.offset & !7 | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        [self.next_header, 0, hi, lo, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: [u8; 40] = [
        0x60, 0x2b, 0xcd, 0xef, 0x00, 0x40, 58, 63, 0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        2, 0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3,
    ];

    #[test]
    fn example_round_trips() {
        let header = Ipv6Header::parse(&EXAMPLE).unwrap();
        assert_eq!(header.traffic_class, 0x02);
        assert_eq!(header.flow_label, 0xbcdef);
        assert_eq!(header.payload_len, 64);
        assert_eq!((header.next_header, header.hop_limit), (58, 63));
        assert_eq!(header.src, "fd00:1::2".parse::<Ipv6Addr>().unwrap());
        assert_eq!(header.dst, "fd00:2::3".parse::<Ipv6Addr>().unwrap());
        assert_eq!(header.emit(), EXAMPLE);
    }

    #[test]
    fn refuses_what_is_not_ipv6() {
        assert_eq!(
            Ipv6Header::parse(&EXAMPLE[..39]),
            Err(HeaderError::Truncated {
                header: "IPv6 header",
                needed: 40,
                got: 39
            })
        );
        let mut bytes = EXAMPLE;
        bytes[0] = 0x45;
        assert_eq!(Ipv6Header::parse(&bytes), Err(HeaderError::Version(4)));
    }

    #[test]
    fn fragment_header_round_trips() {
        let bytes = [17, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef];
        let header = Ipv6FragmentHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            Ipv6FragmentHeader {
                next_header: 17,
                offset: 1448,
                more: true,
                id: 0xdead_beef
            }
        );
        assert_eq!(header.emit(), bytes);
    }
}

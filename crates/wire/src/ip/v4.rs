//! The IPv4 header.

use std::net::Ipv4Addr;

use super::{HeaderError, head};

/// The fixed part of an IPv4 header (RFC 791 §3.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version|  IHL  |Type of Service|          Total Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Identification        |Flags|      Fragment Offset    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       Source Address                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Destination Address                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Options                    |    Padding    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Header length with options, in bytes: a multiple of four, 20 to 60.
    pub header_len: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload, in bytes.
    pub total_len: u16,
    /// Identification of a datagram's fragments.
    pub id: u16,
    /// The three flags and the fragment offset as they are on the wire.
    pub flags_fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum, as it came.
    pub checksum: u16,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
}

impl Ipv4Header {
    /// Length of the header without options, in bytes.
    pub const LEN: usize = 20;
    /// "Don't fragment" in [`Self::flags_fragment`].
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments" in [`Self::flags_fragment`].
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The offset, in units of eight bytes, in [`Self::flags_fragment`].
    pub const OFFSET_MASK: u16 = 0x1fff;

    /// Reads the fixed part. Whether the options and the payload are there is not checked;
    /// [`super::IpPacket::parse`] does that.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "IPv4 header")?;
        if h[0] >> 4 != 4 {
            return Err(HeaderError::Version(h[0] >> 4));
        }
        let header_len = (h[0] & 0x0f) * 4;
        if usize::from(header_len) < Self::LEN {
            return Err(HeaderError::Length {
                header: "IPv4 header",
                stated: usize::from(header_len),
            });
        }
        Ok(Self {
            header_len,
            tos: h[1],
            total_len: u16::from_be_bytes([h[2], h[3]]),
            id: u16::from_be_bytes([h[4], h[5]]),
            flags_fragment: u16::from_be_bytes([h[6], h[7]]),
            ttl: h[8],
            protocol: h[9],
            checksum: u16::from_be_bytes([h[10], h[11]]),
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
        })
    }

    /// The fixed part as bytes; the checksum is the field's, see
    /// [`super::checksum::ipv4_header`].
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut h = [0; Self::LEN];
        h[0] = 0x40 | ((self.header_len / 4) & 0x0f);
        h[1] = self.tos;
        h[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        h[4..6].copy_from_slice(&self.id.to_be_bytes());
        h[6..8].copy_from_slice(&self.flags_fragment.to_be_bytes());
        h[8] = self.ttl;
        h[9] = self.protocol;
        h[10..12].copy_from_slice(&self.checksum.to_be_bytes());
        h[12..16].copy_from_slice(&self.src.octets());
        h[16..20].copy_from_slice(&self.dst.octets());
        h
    }

    /// Whether routers may not cut this packet.
    pub fn dont_fragment(&self) -> bool {
        self.flags_fragment & Self::DONT_FRAGMENT != 0
    }

    /// Whether further fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.flags_fragment & Self::MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload belongs, in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_fragment & Self::OFFSET_MASK) * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::checksum;

    /// A ping from 10.1.0.2 to 10.2.0.2.
    const EXAMPLE: [u8; 20] = [
        0x45, 0x00, 0x00, 0x54, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x01, 0x0a, 0x5d, 10, 1, 0, 2, 10, 2,
        0, 2,
    ];

    #[test]
    fn example_round_trips() {
        let header = Ipv4Header::parse(&EXAMPLE).unwrap();
        assert_eq!(header.header_len, 20);
        assert_eq!(header.total_len, 84);
        assert_eq!(header.id, 0x1c46);
        assert!(header.dont_fragment() && !header.more_fragments());
        assert_eq!(header.fragment_offset(), 0);
        assert_eq!((header.ttl, header.protocol), (64, 1));
        assert_eq!(header.src, Ipv4Addr::new(10, 1, 0, 2));
        assert_eq!(header.dst, Ipv4Addr::new(10, 2, 0, 2));
        assert_eq!(header.emit(), EXAMPLE);
        assert_eq!(checksum::ipv4_header(&EXAMPLE), header.checksum);
    }

    #[test]
    fn refuses_what_is_not_ipv4() {
        assert_eq!(
            Ipv4Header::parse(&EXAMPLE[..19]),
            Err(HeaderError::Truncated {
                header: "IPv4 header",
                needed: 20,
                got: 19
            })
        );
        let mut bytes = EXAMPLE;
        bytes[0] = 0x65;
        assert_eq!(Ipv4Header::parse(&bytes), Err(HeaderError::Version(6)));
        bytes[0] = 0x44;
        assert_eq!(
            Ipv4Header::parse(&bytes),
            Err(HeaderError::Length {
                header: "IPv4 header",
                stated: 16
            })
        );
    }
}

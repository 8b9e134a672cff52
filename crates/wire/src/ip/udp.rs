//! The UDP header.

use super::{HeaderError, head};

/// A UDP header (RFC 768).
///
/// ```text
///  0      7 8     15 16    23 24    31
/// +--------+--------+--------+--------+
/// |     Source      |   Destination   |
/// |      Port       |      Port       |
/// +--------+--------+--------+--------+
/// |     Length      |    Checksum     |
/// +--------+--------+--------+--------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of header and payload, in bytes.
    pub len: u16,
    /// Checksum; zero where the sender made none (IPv4 only).
    pub checksum: u16,
}

impl UdpHeader {
    /// Length of the header, in bytes.
    pub const LEN: usize = 8;
    /// Where the length is, from the header's start.
    pub const LEN_AT: usize = 4;
    /// Where the checksum is, from the header's start.
    pub const CHECKSUM_AT: usize = 6;

    /// Reads the header. Whether its length agrees with the packet is not checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "UDP header")?;
        Ok(Self {
            src_port: u16::from_be_bytes([h[0], h[1]]),
            dst_port: u16::from_be_bytes([h[2], h[3]]),
            len: u16::from_be_bytes([h[4], h[5]]),
            checksum: u16::from_be_bytes([h[6], h[7]]),
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut h = [0; Self::LEN];
        h[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        h[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        h[4..6].copy_from_slice(&self.len.to_be_bytes());
        h[6..8].copy_from_slice(&self.checksum.to_be_bytes());
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_round_trips() {
        let bytes = [0x14, 0xe9, 0x00, 0x35, 0x00, 0x1c, 0xbe, 0xef];
        let header = UdpHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            UdpHeader {
                src_port: 5353,
                dst_port: 53,
                len: 28,
                checksum: 0xbeef
            }
        );
        assert_eq!(header.emit(), bytes);
        assert_eq!(
            UdpHeader::parse(&bytes[..7]),
            Err(HeaderError::Truncated {
                header: "UDP header",
                needed: 8,
                got: 7
            })
        );
    }
}

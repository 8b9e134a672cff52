//! The virtio network header that precedes a packet on a TUN device opened with `IFF_VNET_HDR`.

use super::{HeaderError, head};

/// What kind of super-packet follows, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoType {
    /// An ordinary packet.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size, over either family.
    UdpL4,
    /// A kind this project never asks the kernel for.
    Other(u8),
}

impl GsoType {
    /// The number in `gso_type`, without the ECN flag.
    pub fn from_wire(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::TcpV4,
            4 => Self::TcpV6,
            5 => Self::UdpL4,
            other => Self::Other(other),
        }
    }

    /// The number in `gso_type`.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::TcpV4 => 1,
            Self::TcpV6 => 4,
            Self::UdpL4 => 5,
            Self::Other(other) => other,
        }
    }
}

/// `struct virtio_net_hdr` (virtio 1.2 §5.1.6, the legacy layout in the host's byte order that
/// Linux uses for TUN, ten bytes).
///
/// ```text
/// +-------+----------+---------+----------+------------+-------------+
/// | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
/// |  1    |    1     |    2    |    2     |     2      |      2      |
/// +-------+----------+---------+----------+------------+-------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioNetHeader {
    /// Whether the checksum at `csum_start + csum_offset` holds only the pseudo-header's sum and
    /// has to be completed over everything from `csum_start` on.
    pub needs_checksum: bool,
    /// Whether the other side vouches for the checksum.
    pub data_valid: bool,
    /// Kind of super-packet.
    pub gso_type: GsoType,
    /// Whether the super-packet is of an ECN-capable connection with CWR set in its header.
    pub ecn: bool,
    /// Length of all headers. A hint: the packet itself is what counts.
    pub header_len: u16,
    /// Payload bytes in each segment but the last.
    pub gso_size: u16,
    /// Where checksumming starts, from the packet's first byte.
    pub csum_start: u16,
    /// Where the checksum is, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHeader {
    /// Length of the header, in bytes.
    pub const LEN: usize = 10;
    /// The header of an ordinary packet with nothing left to do.
    pub const PLAIN: Self = Self {
        needs_checksum: false,
        data_valid: false,
        gso_type: GsoType::None,
        ecn: false,
        header_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    const NEEDS_CSUM: u8 = 1;
    const DATA_VALID: u8 = 2;
    const GSO_ECN: u8 = 0x80;

    /// Reads the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "virtio header")?;
        Ok(Self {
            needs_checksum: h[0] & Self::NEEDS_CSUM != 0,
            data_valid: h[0] & Self::DATA_VALID != 0,
            gso_type: GsoType::from_wire(h[1] & !Self::GSO_ECN),
            ecn: h[1] & Self::GSO_ECN != 0,
            header_len: u16::from_ne_bytes([h[2], h[3]]),
            gso_size: u16::from_ne_bytes([h[4], h[5]]),
            csum_start: u16::from_ne_bytes([h[6], h[7]]),
            csum_offset: u16::from_ne_bytes([h[8], h[9]]),
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let flags = (u8::from(self.needs_checksum) * Self::NEEDS_CSUM)
            | (u8::from(self.data_valid) * Self::DATA_VALID);
        let gso = self.gso_type.to_wire() | (u8::from(self.ecn) * Self::GSO_ECN);
        let mut h = [0; Self::LEN];
        h[0] = flags;
        h[1] = gso;
        h[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        h[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        h[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        h[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_round_trips() {
        let mut bytes = vec![0x01, 0x81];
        for value in [54u16, 1400, 20, 16] {
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
        let header = VirtioNetHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            VirtioNetHeader {
                needs_checksum: true,
                data_valid: false,
                gso_type: GsoType::TcpV4,
                ecn: true,
                header_len: 54,
                gso_size: 1400,
                csum_start: 20,
                csum_offset: 16,
            }
        );
        assert_eq!(header.emit().as_slice(), bytes);
        assert_eq!(VirtioNetHeader::PLAIN.emit(), [0; 10]);
        assert!(VirtioNetHeader::parse(&bytes[..9]).is_err());
    }

    #[test]
    fn unknown_kinds_survive() {
        for value in 0..0x80u8 {
            assert_eq!(GsoType::from_wire(value).to_wire(), value);
        }
    }
}

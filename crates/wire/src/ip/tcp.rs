//! The TCP header.

use super::{HeaderError, head};

/// TCP's flags, in the byte at offset 13.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push: hand what came to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo, RFC 3168 §6.1.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced, RFC 3168 §6.1.
    pub const CWR: u8 = 0x80;
}

/// The fixed part of a TCP header (RFC 9293 §3.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |          Source Port          |       Destination Port        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                        Sequence Number                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Acknowledgment Number                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Data |       |C|E|U|A|P|R|S|F|                               |
/// | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
/// |       |       |R|E|G|K|H|T|N|N|                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Checksum            |         Urgent Pointer        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                           [Options]                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Header length with options, in bytes: 20 to 60.
    pub header_len: u8,
    /// The four reserved bits after the data offset.
    pub reserved: u8,
    /// The eight flags, see [`tcp_flags`].
    pub flags: u8,
    /// Receive window.
    pub window: u16,
    /// Checksum, as it came.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl TcpHeader {
    /// Length of the header without options, in bytes.
    pub const LEN: usize = 20;
    /// Where the sequence number is, from the header's start.
    pub const SEQ_AT: usize = 4;
    /// Where the flags are, from the header's start.
    pub const FLAGS_AT: usize = 13;
    /// Where the checksum is, from the header's start.
    pub const CHECKSUM_AT: usize = 16;

    /// Reads the fixed part and checks that the options it states are there.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let h = head::<{ Self::LEN }>(bytes, "TCP header")?;
        let header_len = (h[12] >> 4) * 4;
        let stated = usize::from(header_len);
        if stated < Self::LEN {
            return Err(HeaderError::Length {
                header: "TCP header",
                stated,
            });
        }
        if stated > bytes.len() {
            return Err(HeaderError::Truncated {
                header: "TCP options",
                needed: stated,
                got: bytes.len(),
            });
        }
        Ok(Self {
            src_port: u16::from_be_bytes([h[0], h[1]]),
            dst_port: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            header_len,
            reserved: h[12] & 0x0f,
            flags: h[13],
            window: u16::from_be_bytes([h[14], h[15]]),
            checksum: u16::from_be_bytes([h[16], h[17]]),
            urgent: u16::from_be_bytes([h[18], h[19]]),
        })
    }

    /// The fixed part as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut h = [0; Self::LEN];
        h[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        h[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        h[4..8].copy_from_slice(&self.seq.to_be_bytes());
        h[8..12].copy_from_slice(&self.ack.to_be_bytes());
        h[12] = (self.header_len / 4) << 4 | (self.reserved & 0x0f);
        h[13] = self.flags;
        h[14..16].copy_from_slice(&self.window.to_be_bytes());
        h[16..18].copy_from_slice(&self.checksum.to_be_bytes());
        h[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: [u8; 20] = [
        0xd4, 0x31, 0x01, 0xbb, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x50, 0x18, 0x01,
        0xf6, 0xab, 0xcd, 0x00, 0x00,
    ];

    #[test]
    fn example_round_trips() {
        let header = TcpHeader::parse(&EXAMPLE).unwrap();
        assert_eq!((header.src_port, header.dst_port), (54321, 443));
        assert_eq!((header.seq, header.ack), (0x0102_0304, 0x0506_0708));
        assert_eq!(header.flags, tcp_flags::ACK | tcp_flags::PSH);
        assert_eq!(
            (header.header_len, header.window, header.checksum),
            (20, 502, 0xabcd)
        );
        assert_eq!(header.emit(), EXAMPLE);
    }

    #[test]
    fn refuses_impossible_lengths() {
        let mut bytes = EXAMPLE;
        bytes[12] = 0x40;
        assert_eq!(
            TcpHeader::parse(&bytes),
            Err(HeaderError::Length {
                header: "TCP header",
                stated: 16
            })
        );
        bytes[12] = 0x60;
        assert_eq!(
            TcpHeader::parse(&bytes),
            Err(HeaderError::Truncated {
                header: "TCP options",
                needed: 24,
                got: 20
            })
        );
    }
}

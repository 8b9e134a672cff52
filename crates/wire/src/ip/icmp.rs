//! The ICMP and ICMPv6 header, and the few messages this project sends or recognises.

use super::{HeaderError, head};

/// Types and codes of ICMP for IPv4 (RFC 792).
pub mod icmpv4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Destination unreachable: fragmentation needed and DF set (RFC 1191 §4).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether a message of this type reports an error, so that none may be sent about it
    /// (RFC 1122 §3.2.2).
    pub fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// Types of ICMPv6 (RFC 4443, RFC 4861).
pub mod icmpv6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// Whether none may be sent about a message of this type (RFC 4443 §2.4 (e)): the error
    /// messages, which are all types below 128, and Redirect.
    pub fn is_error(kind: u8) -> bool {
        kind < 128 || kind == REDIRECT
    }
}

/// The eight bytes that begin an ICMP or ICMPv6 message (RFC 792, RFC 4443 §2.1).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   unused, or identifier and number, or MTU, or a pointer      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum, as it came.
    pub checksum: u16,
    /// The four bytes whose meaning depends on the type.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// Length of the header, in bytes.
    pub const LEN: usize = 8;

    /// Reads the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let [kind, code, c0, c1, rest @ ..] = head::<{ Self::LEN }>(bytes, "ICMP header")?;
        Ok(Self {
            kind,
            code,
            checksum: u16::from_be_bytes([c0, c1]),
            rest,
        })
    }

    /// The header as bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [c0, c1] = self.checksum.to_be_bytes();
        let [a, b, c, d] = self.rest;
        [self.kind, self.code, c0, c1, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_round_trips() {
        let bytes = [3, 4, 0x12, 0x34, 0, 0, 0x05, 0x78];
        let header = IcmpHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            IcmpHeader {
                kind: icmpv4::UNREACHABLE,
                code: icmpv4::FRAGMENTATION_NEEDED,
                checksum: 0x1234,
                rest: [0, 0, 5, 0x78]
            }
        );
        assert_eq!(header.emit(), bytes);
        assert!(IcmpHeader::parse(&bytes[..7]).is_err());
    }
}

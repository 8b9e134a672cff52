//! The IKE header (RFC 7296 §3.1) and the numbers in it.

use std::fmt;

use crate::codec::Reader;
use crate::error::ParseError;
use crate::payload::PayloadType;

/// Length of the IKE header in octets.
pub const HEADER_LEN: usize = 28;

/// The header at the front of every IKE message.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Initiator's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Responder's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                          Message ID                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                            Length                             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
///
/// The first payload's type and the length belong to the message, not to this struct's user: they
/// are read by [`crate::message::Message::parse`] and written by what emits the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeHeader {
    /// Chosen by the initiator of the IKE SA, never zero.
    pub initiator_spi: Spi,
    /// Chosen by the responder of the IKE SA; zero in the first message.
    pub responder_spi: Spi,
    /// 2.0 in all we send.
    pub version: Version,
    /// Which exchange the message belongs to.
    pub exchange: ExchangeType,
    /// Who sent it, and whether it is a response.
    pub flags: Flags,
    /// Matches responses to requests and detects repeats.
    pub message_id: MessageId,
}

impl IkeHeader {
    /// Reads the header, the type of the first payload, and the length of the message. Any version
    /// is accepted, because INVALID_MAJOR_VERSION is answered with the fields of this header.
    pub fn parse(bytes: &[u8]) -> Result<(Self, PayloadType, u32), ParseError> {
        let mut reader = Reader::new("IKE header", bytes);
        let initiator_spi = Spi(reader.u64()?);
        let responder_spi = Spi(reader.u64()?);
        let next = PayloadType(reader.u8()?);
        let version = Version(reader.u8()?);
        let exchange = ExchangeType(reader.u8()?);
        let flags = Flags(reader.u8()?);
        let message_id = MessageId(reader.u32()?);
        let length = reader.u32()?;
        let header = Self {
            initiator_spi,
            responder_spi,
            version,
            exchange,
            flags,
            message_id,
        };
        Ok((header, next, length))
    }

    /// The 28 octets in front of a message of `length` octets, header included.
    pub fn emit(&self, next: PayloadType, length: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.initiator_spi.to_bytes());
        bytes[8..16].copy_from_slice(&self.responder_spi.to_bytes());
        bytes[16] = next.0;
        bytes[17] = self.version.0;
        bytes[18] = self.exchange.0;
        bytes[19] = self.flags.0;
        bytes[20..24].copy_from_slice(&self.message_id.0.to_be_bytes());
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

/// The SPI of an IKE SA: eight octets. Zero means "not yet chosen".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Spi(pub u64);

impl Spi {
    /// The responder's SPI in the first message of IKE_SA_INIT.
    pub const ZERO: Self = Self(0);

    /// Whether nobody has chosen it yet.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As on the wire.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// From the wire.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

/// The SPI of an ESP or AH SA: four octets. 0 to 255 are reserved (RFC 4303 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildSpi(pub u32);

impl ChildSpi {
    /// As on the wire.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ChildSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for ChildSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildSpi({self})")
    }
}

/// The version octet: major in the high four bits, minor in the low four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub u8);

impl Version {
    /// IKEv2, the only version this crate emits.
    pub const V2_0: Self = Self(0x20);

    /// 2 for IKEv2.
    pub const fn major(self) -> u8 {
        self.0 >> 4
    }

    /// Ignored on receipt (RFC 7296 §2.5).
    pub const fn minor(self) -> u8 {
        self.0 & 0x0f
    }
}

wire_number! {
    /// Which exchange a message belongs to (IANA "IKEv2 Exchange Types").
    ExchangeType(u8) {
        IKE_SA_INIT = 34,
        IKE_AUTH = 35,
        CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37,
        IKE_SESSION_RESUME = 38,
        GSA_AUTH = 39,
        GSA_REGISTRATION = 40,
        GSA_REKEY = 41,
        GSA_INBAND_REKEY = 42,
        IKE_INTERMEDIATE = 43,
        IKE_FOLLOWUP_KE = 44,
    }
}

/// The flags octet; bits other than these three are sent as zero and ignored (RFC 7296 §3.1).
///
/// ```text
/// +-+-+-+-+-+-+-+-+
/// |X|X|R|V|I|X|X|X|
/// +-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender is the original initiator of the IKE SA.
    pub const INITIATOR: u8 = 0x08;
    /// The sender can speak a higher major version.
    pub const VERSION: u8 = 0x10;
    /// The message answers a request of the same message ID.
    pub const RESPONSE: u8 = 0x20;

    /// `initiator`: this side is the original initiator of the IKE SA (which rekeying by the other
    /// side changes). `response`: the message is a response.
    pub const fn new(initiator: bool, response: bool) -> Self {
        let initiator = if initiator { Self::INITIATOR } else { 0 };
        let response = if response { Self::RESPONSE } else { 0 };
        Self(initiator | response)
    }

    /// Whether the sender is the original initiator of the IKE SA.
    pub const fn is_initiator(self) -> bool {
        self.0 & Self::INITIATOR != 0
    }

    /// Whether the message is a response.
    pub const fn is_response(self) -> bool {
        self.0 & Self::RESPONSE != 0
    }
}

/// Counts the requests of one side, from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u32);

impl MessageId {
    /// Of the IKE_SA_INIT exchange, and of the first request of a rekeyed IKE SA.
    pub const ZERO: Self = Self(0);

    /// `None` after the last: the IKE SA has to be rekeyed or closed before (RFC 7296 §2.2).
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, hex};

    #[test]
    fn octets() {
        let bytes = hex("1aadb99992e85b6f 0000000000000000 21 20 22 08 00000000 000000f0");
        let header = IkeHeader {
            initiator_spi: Spi(0x1aad_b999_92e8_5b6f),
            responder_spi: Spi::ZERO,
            version: Version::V2_0,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::new(true, false),
            message_id: MessageId::ZERO,
        };
        assert_eq!(IkeHeader::parse(&bytes), Ok((header, PayloadType::SA, 240)));
        assert_eq!(header.emit(PayloadType::SA, 240).as_slice(), bytes);
    }

    #[test]
    fn a_short_header_is_refused() {
        for length in 0..HEADER_LEN {
            assert!(IkeHeader::parse(&[0x20; HEADER_LEN][..length]).is_err());
        }
    }

    #[test]
    fn flags_and_ids() {
        assert_eq!(Flags::new(true, true).0, 0x28);
        assert!(Flags(0xff).is_initiator() && Flags(0xff).is_response());
        assert!(!Flags(0xd7).is_initiator() && !Flags(0xd7).is_response());
        assert_eq!(MessageId(7).next(), Some(MessageId(8)));
        assert_eq!(MessageId(u32::MAX).next(), None);
        assert_eq!(Spi(0xab).to_string(), "00000000000000ab");
        assert_eq!(Spi::from_bytes(Spi(0xab).to_bytes()), Spi(0xab));
    }

    proptest! {
        #[test]
        fn round_trip(header in testing::header(), next: u8, length: u32) {
            let bytes = header.emit(PayloadType(next), length);
            assert_eq!(IkeHeader::parse(&bytes), Ok((header, PayloadType(next), length)));
        }
    }
}

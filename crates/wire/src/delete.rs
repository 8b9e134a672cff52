//! The Delete payload (RFC 7296 §3.11).

use crate::codec::{Reader, Writer};
use crate::error::ParseError;
use crate::header::ChildSpi;
use crate::sa::ProtocolId;

/// Most SPIs accepted in one Delete payload.
pub const MAX_SPIS: usize = 1024;

/// SAs the sender has removed.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Protocol ID   |   SPI Size    |          Num of SPIs          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~               Security Parameter Index(es) (SPI)              ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletePayload {
    /// The IKE SA that carries the message, and with it all its Child SAs.
    IkeSa,
    /// Child SAs, by the SPIs on which the sender received.
    ChildSas {
        /// ESP or AH.
        protocol: ProtocolId,
        /// In the order sent.
        spis: Vec<ChildSpi>,
    },
}

impl DeletePayload {
    /// One ESP SA.
    pub fn esp(spi: ChildSpi) -> Self {
        Self::ChildSas {
            protocol: ProtocolId::ESP,
            spis: vec![spi],
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Delete payload", body);
        let protocol = ProtocolId(reader.u8()?);
        let spi_size = usize::from(reader.u8()?);
        let count = usize::from(reader.u16()?);
        let (expected, spi_size_expected) = match protocol {
            ProtocolId::IKE => ("0 for IKE", 0),
            _ => ("4 for ESP and AH", 4),
        };
        // A peer that deletes nothing need not say how large the SPIs are.
        if spi_size != spi_size_expected && count != 0 {
            return Err(ParseError::Length {
                what: "SPI Size of a Delete payload",
                expected,
                got: spi_size,
            });
        }
        if protocol == ProtocolId::IKE {
            reader.finish()?;
            return Ok(Self::IkeSa);
        }
        if count > MAX_SPIS {
            return Err(ParseError::TooMany {
                what: "SPIs in a Delete payload",
                limit: MAX_SPIS,
            });
        }
        let mut spis = Vec::new();
        for _ in 0..count {
            spis.push(ChildSpi(reader.u32()?));
        }
        reader.finish()?;
        Ok(Self::ChildSas { protocol, spis })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::IkeSa => {
                writer.u8(ProtocolId::IKE.0);
                writer.u8(0);
                writer.u16(0);
            }
            Self::ChildSas { protocol, spis } => {
                writer.u8(protocol.0);
                writer.u8(4);
                writer.count_u16("the number of SPIs in a Delete payload", spis.len());
                for spi in spis {
                    writer.u32(spi.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("03 04 0002 01020304 c0ffee12");
        let payload = DeletePayload::ChildSas {
            protocol: ProtocolId::ESP,
            spis: vec![ChildSpi(0x0102_0304), ChildSpi(0xc0ff_ee12)],
        };
        assert_eq!(DeletePayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
        assert_eq!(
            DeletePayload::parse(&hex("01 00 0000")),
            Ok(DeletePayload::IkeSa)
        );
        assert_eq!(emit_body(DeletePayload::IkeSa), hex("01 00 0000"));
    }

    #[test]
    fn spis_have_the_size_of_their_protocol() {
        assert!(DeletePayload::parse(&hex("01 08 0001 0102030405060708")).is_err());
        assert!(DeletePayload::parse(&hex("03 08 0001 0102030405060708")).is_err());
    }

    #[test]
    fn the_count_is_the_count() {
        assert!(DeletePayload::parse(&hex("03 04 0002 01020304")).is_err());
        assert!(DeletePayload::parse(&hex("03 04 0001 01020304 05060708")).is_err());
        let many = [&hex("03 04 ffff")[..], &[0; 0xffff * 4]].concat();
        assert!(matches!(
            DeletePayload::parse(&many),
            Err(ParseError::TooMany { .. })
        ));
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::delete()) {
            assert_round_trip(payload);
        }
    }
}

//! The EAP payload (RFC 7296 §3.16), which is one EAP packet (RFC 3748 §4).

use std::borrow::Cow;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;

/// An EAP packet.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Code      | Identifier    |           Length              |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      | Type_Data...
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EapPayload<'a> {
    /// Request, response, success or failure.
    pub code: EapCode,
    /// Matches responses to requests.
    pub identifier: u8,
    /// The method; absent in success and failure.
    pub ty: Option<EapType>,
    /// What the method says. Empty where `ty` is absent.
    pub data: Cow<'a, [u8]>,
}

wire_number! {
    /// RFC 3748 §4.
    EapCode(u8) {
        REQUEST = 1,
        RESPONSE = 2,
        SUCCESS = 3,
        FAILURE = 4,
    }
}

wire_number! {
    /// IANA "EAP Method Types", those met in IKEv2.
    EapType(u8) {
        IDENTITY = 1,
        NOTIFICATION = 2,
        NAK = 3,
        MD5_CHALLENGE = 4,
        OTP = 5,
        GTC = 6,
        TLS = 13,
        SIM = 18,
        TTLS = 21,
        AKA = 23,
        PEAP = 25,
        MSCHAPV2 = 26,
        TNC = 38,
        FAST = 43,
        AKA_PRIME = 50,
        PWD = 52,
        EXPANDED = 254,
    }
}

impl<'a> EapPayload<'a> {
    /// A request or response.
    pub fn new(code: EapCode, identifier: u8, ty: EapType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            code,
            identifier,
            ty: Some(ty),
            data: data.into(),
        }
    }

    /// A success or failure.
    pub const fn bare(code: EapCode, identifier: u8) -> Self {
        Self {
            code,
            identifier,
            ty: None,
            data: Cow::Borrowed(&[]),
        }
    }

    /// Reads the body of the payload. Octets after the packet's own length are ignored, as
    /// RFC 3748 §4.1 wants.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("EAP packet", body);
        let code = EapCode(reader.u8()?);
        let identifier = reader.u8()?;
        let length = usize::from(reader.u16()?);
        let Some(rest) = length.checked_sub(4) else {
            return Err(ParseError::Length {
                what: "EAP packet",
                expected: "at least 4",
                got: length,
            });
        };
        let mut reader = Reader::new("EAP packet", reader.take(rest)?);
        let ty = if reader.is_empty() {
            None
        } else {
            Some(EapType(reader.u8()?))
        };
        if ty.is_none() && matches!(code, EapCode::REQUEST | EapCode::RESPONSE) {
            return Err(ParseError::Length {
                what: "EAP request or response",
                expected: "at least 5, for its type",
                got: length,
            });
        }
        Ok(Self {
            code,
            identifier,
            ty,
            data: reader.rest().into(),
        })
    }

    /// The packet alone, as RADIUS and other carriers want it.
    pub fn emit(&self) -> Result<Vec<u8>, crate::EmitError> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.finish()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.len();
        writer.u8(self.code.0);
        writer.u8(self.identifier);
        writer.u16(0);
        if let Some(ty) = self.ty {
            writer.u8(ty.0);
            writer.bytes(&self.data);
        }
        writer.patch_length_u16("an EAP packet", start + 2, start);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("02 07 000a 01 616c696365");
        let payload = EapPayload::new(EapCode::RESPONSE, 7, EapType::IDENTITY, &b"alice"[..]);
        assert_eq!(EapPayload::parse(&body), Ok(payload.clone()));
        assert_eq!(payload.emit().unwrap(), body);
        assert_eq!(emit_body(payload), body);

        let success = EapPayload::bare(EapCode::SUCCESS, 8);
        assert_eq!(EapPayload::parse(&hex("03 08 0004")), Ok(success.clone()));
        assert_eq!(success.emit().unwrap(), hex("03 08 0004"));
    }

    #[test]
    fn octets_after_the_packet_are_ignored() {
        assert_eq!(
            EapPayload::parse(&hex("03 08 0004 ffff")),
            Ok(EapPayload::bare(EapCode::SUCCESS, 8))
        );
    }

    #[test]
    fn a_request_has_a_type_and_a_length_that_holds_its_header() {
        assert!(EapPayload::parse(&hex("01 08 0004")).is_err());
        assert!(EapPayload::parse(&hex("03 08 0003")).is_err());
        assert!(EapPayload::parse(&hex("03 08 0009 00")).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::eap()) {
            assert_round_trip(payload);
        }
    }
}

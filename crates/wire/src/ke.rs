//! The Key Exchange payload (RFC 7296 §3.4).

use std::borrow::Cow;

use crate::codec::{Reader, Writer};
use crate::error::ParseError;
use crate::sa::TransformId;

/// One side's public value.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Diffie-Hellman Group Num    |           RESERVED            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       Key Exchange Data                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KePayload<'a> {
    /// The method, a transform ID of type 4 (`TransformId::KE_…`).
    pub method: TransformId,
    /// The public value, in the encoding of the method.
    pub data: Cow<'a, [u8]>,
}

impl<'a> KePayload<'a> {
    /// Of borrowed or owned data.
    pub fn new(method: TransformId, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            method,
            data: data.into(),
        }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("Key Exchange payload", body);
        let method = TransformId(reader.u16()?);
        reader.u16()?;
        Ok(Self::new(method, reader.rest()))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u16(self.method.0);
        writer.u16(0);
        writer.bytes(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body, hex};

    #[test]
    fn octets() {
        let body = hex("001f 0000 0102030405");
        let payload = KePayload::new(TransformId::KE_CURVE25519, &[1, 2, 3, 4, 5][..]);
        assert_eq!(KePayload::parse(&body), Ok(payload.clone()));
        assert_eq!(emit_body(payload), body);
    }

    #[test]
    fn a_body_without_its_fixed_fields_is_refused() {
        let error = KePayload::parse(&[0, 31, 0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Key Exchange payload is cut off: the next field takes 2 octets, 1 are left"
        );
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::ke()) {
            assert_round_trip(payload);
        }
    }
}

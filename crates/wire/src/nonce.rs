//! The Nonce payload (RFC 7296 §3.9).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::codec::Writer;
use crate::error::ParseError;

/// Lengths a nonce may have.
pub const NONCE_LEN: RangeInclusive<usize> = 16..=256;

/// Fresh random octets, Ni or Nr.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                            Nonce Data                         ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoncePayload<'a> {
    /// Of a length in [`NONCE_LEN`].
    pub data: Cow<'a, [u8]>,
}

impl<'a> NoncePayload<'a> {
    /// Of borrowed or owned data.
    pub fn new(data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { data: data.into() }
    }

    /// Reads the body of the payload.
    pub fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        if !NONCE_LEN.contains(&body.len()) {
            return Err(ParseError::Length {
                what: "Nonce Data",
                expected: "16 to 256 octets",
                got: body.len(),
            });
        }
        Ok(Self::new(body))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, assert_round_trip, emit_body};

    #[test]
    fn octets() {
        let body: Vec<u8> = (0..16).collect();
        let payload = NoncePayload::parse(&body).unwrap();
        assert_eq!(payload.data.as_ref(), body);
        assert_eq!(emit_body(payload.clone()), body);
    }

    /// RFC 7296 §3.9.
    #[test]
    fn lengths_outside_16_to_256_are_refused() {
        assert!(NoncePayload::parse(&[0; 15]).is_err());
        assert!(NoncePayload::parse(&[0; 256]).is_ok());
        assert!(NoncePayload::parse(&[0; 257]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(payload in testing::nonce()) {
            assert_round_trip(payload);
        }
    }
}

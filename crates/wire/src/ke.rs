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

//! A cursor over received bytes and a writer that fills in lengths afterwards.

use crate::error::{EmitError, ParseError};

/// Reads fields off the front of a slice. Every failure names the structure being read.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], ParseError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.truncated(count));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ParseError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Refuses octets that no field claims.
    pub(crate) fn finish(self) -> Result<(), ParseError> {
        match self.rest.len() {
            0 => Ok(()),
            got => Err(ParseError::Length {
                what: self.what,
                expected: "no octets after its last field",
                got,
            }),
        }
    }

    fn truncated(&self, needed: usize) -> ParseError {
        ParseError::Truncated {
            what: self.what,
            needed,
            available: self.rest.len(),
        }
    }
}

/// Collects bytes to send. A length or count that does not fit its field is remembered and
/// reported once, by [`Writer::finish`], so that `emit` functions need no error path.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    error: Option<EmitError>,
}

impl Writer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a count or length of one octet.
    pub(crate) fn count_u8(&mut self, what: &'static str, count: usize) {
        let value = u8::try_from(count).unwrap_or_else(|_| {
            self.fail(what, usize::from(u8::MAX));
            u8::MAX
        });
        self.u8(value);
    }

    /// Writes a count or length of two octets.
    pub(crate) fn count_u16(&mut self, what: &'static str, count: usize) {
        let value = u16::try_from(count).unwrap_or_else(|_| {
            self.fail(what, usize::from(u16::MAX));
            u16::MAX
        });
        self.u16(value);
    }

    /// Writes, at `at`, the number of octets from `start` to the end as 16 bits.
    pub(crate) fn patch_length_u16(&mut self, what: &'static str, at: usize, start: usize) {
        let length = self.bytes.len() - start;
        let value = u16::try_from(length).unwrap_or_else(|_| {
            self.fail(what, usize::from(u16::MAX));
            u16::MAX
        });
        self.patch(at, &value.to_be_bytes());
    }

    /// Overwrites octets this writer has already written.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// What has been written, for structures whose fields always fit.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn fail(&mut self, what: &'static str, limit: usize) {
        self.error.get_or_insert(EmitError { what, limit });
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, EmitError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.bytes),
        }
    }
}

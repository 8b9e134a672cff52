//! A whole IKE message: the header and what follows it.

use crate::error::{EmitError, ParseError};
use crate::header::{HEADER_LEN, IkeHeader, Version};
use crate::payload::{ChainBuilder, Payload, PayloadType, Payloads, RawPayload, parse_chain};
use crate::sk::Encrypted;

/// A received datagram whose header has been checked and whose payloads have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Everything but the links to the payloads.
    pub header: IkeHeader,
    /// Type of the first payload.
    pub first: PayloadType,
    /// The datagram from the header to the end, as AUTH and integrity checks cover it.
    pub bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks header, version and length. The Length field has to be that of the datagram.
    ///
    /// On [`ParseError::MajorVersion`], [`IkeHeader::parse`] gives the fields for the answer.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let (header, first, length) = IkeHeader::parse(datagram)?;
        if header.version.major() != Version::V2_0.major() {
            return Err(ParseError::MajorVersion {
                got: header.version.major(),
            });
        }
        if u64::from(length) != datagram.len() as u64 {
            return Err(ParseError::Value {
                what: "Length field of the IKE header",
                expected: "the length of the datagram",
                got: u64::from(length),
            });
        }
        Ok(Self {
            header,
            first,
            bytes: datagram,
        })
    }

    /// Walks over the payloads outside of SK, and over SK itself. Allocates nothing.
    pub fn payloads(&self) -> Payloads<'a> {
        Payloads::new(self.first, self.bytes.get(HEADER_LEN..).unwrap_or_default())
    }

    /// The first payload of a type, without parsing any other. Allocates nothing.
    pub fn find(&self, ty: PayloadType) -> Result<Option<RawPayload<'a>>, ParseError> {
        for payload in self.payloads() {
            let payload = payload?;
            if payload.ty == ty {
                return Ok(Some(payload));
            }
        }
        Ok(None)
    }

    /// The SK or SKF payload, or `None` in a message in clear.
    pub fn encrypted(&self) -> Result<Option<Encrypted<'a>>, ParseError> {
        Encrypted::find(self)
    }

    /// Parses all payloads of a message in clear. A critical payload of unknown type is
    /// [`ParseError::UnsupportedCriticalPayload`].
    pub fn parse_payloads(&self) -> Result<Vec<Payload<'a>>, ParseError> {
        parse_chain(self.first, self.bytes.get(HEADER_LEN..).unwrap_or_default())
    }
}

/// Emits a message in clear: IKE_SA_INIT, and answers outside of any IKE SA.
#[derive(Debug)]
pub struct MessageBuilder {
    header: IkeHeader,
    chain: ChainBuilder,
}

impl MessageBuilder {
    /// A message without payloads.
    pub fn new(header: IkeHeader) -> Self {
        Self {
            header,
            chain: ChainBuilder::new(),
        }
    }

    /// Appends a payload.
    pub fn push<'p>(&mut self, payload: impl Into<Payload<'p>>) -> &mut Self {
        self.chain.push(payload);
        self
    }

    /// The datagram (without the Non-ESP Marker), or what in it was too large.
    pub fn finish(self) -> Result<Vec<u8>, EmitError> {
        let chain = self.chain.finish()?;
        let length = u32::try_from(HEADER_LEN + chain.bytes.len()).map_err(|_| EmitError {
            what: "a message",
            limit: u32::MAX as usize,
        })?;
        let mut bytes = self.header.emit(chain.first, length).to_vec();
        bytes.extend_from_slice(&chain.bytes);
        Ok(bytes)
    }
}

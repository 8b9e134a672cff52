//! Framing of the Encrypted payload SK (RFC 7296 §3.14) and of the Encrypted Fragment payload SKF
//! (RFC 7383 §2.5). What is inside, and the integrity of it all, is not this crate's.

use crate::codec::{Reader, Writer};
use crate::error::{EmitError, ParseError};
use crate::header::{HEADER_LEN, IkeHeader};
use crate::message::Message;
use crate::payload::PayloadType;

/// The SK or SKF payload of a received message.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |        Fragment Number        |        Total Fragments        |  SKF only
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                     Initialization Vector                     |
/// |         (length is block size for encryption algorithm)       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                    Encrypted IKE Payloads                     ~
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |               |             Padding (0-255 octets)            |
/// +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
/// |                                               |  Pad Length   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                    Integrity Checksum Data                    ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encrypted<'a> {
    /// Type of the first payload inside. In fragments after the first it is zero (RFC 7383 §2.5).
    pub first: PayloadType,
    /// `None` in SK.
    pub fragment: Option<Fragment>,
    /// The message up to the initialization vector: the associated data of an AEAD (RFC 5282 §5.1).
    /// A separate integrity algorithm covers it and `body` up to the checksum.
    pub aad: &'a [u8],
    /// Initialization vector, ciphertext, and integrity checksum.
    pub body: &'a [u8],
}

/// Which part of a message an SKF payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// From 1 to `total`.
    pub number: u16,
    /// Never zero. A larger total, seen later, starts the message over (RFC 7383 §2.6).
    pub total: u16,
}

impl<'a> Encrypted<'a> {
    pub(crate) fn find(message: &Message<'a>) -> Result<Option<Self>, ParseError> {
        let mut payloads = message.payloads();
        while let Some(payload) = payloads.next() {
            let payload = payload?;
            if payload.ty != PayloadType::SK && payload.ty != PayloadType::SKF {
                continue;
            }
            // RFC 7296 §3.14, RFC 7383 §2.5: it is the last payload.
            if payloads.remaining() != 0 {
                return Err(ParseError::Length {
                    what: "Encrypted payload",
                    expected: "no octets after it",
                    got: payloads.remaining(),
                });
            }
            let mut reader = Reader::new("Encrypted Fragment payload", payload.body);
            let fragment = match payload.ty {
                PayloadType::SKF => Some(Fragment::parse(&mut reader)?),
                _ => None,
            };
            let body = reader.rest();
            let (aad, _) = message
                .bytes
                .split_at_checked(message.bytes.len() - body.len())
                .unwrap_or((message.bytes, &[]));
            return Ok(Some(Self {
                first: payload.next,
                fragment,
                aad,
                body,
            }));
        }
        Ok(None)
    }
}

impl Fragment {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let number = reader.u16()?;
        let total = reader.u16()?;
        if number == 0 || number > total {
            return Err(ParseError::Value {
                what: "Fragment Number",
                expected: "1 to Total Fragments",
                got: u64::from(number),
            });
        }
        Ok(Self { number, total })
    }
}

/// What stands in front of the initialization vector in a message to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The IKE header.
    pub header: IkeHeader,
    /// Type of the first payload inside; zero in fragments after the first.
    pub first: PayloadType,
    /// `Some` makes it an SKF payload.
    pub fragment: Option<Fragment>,
}

impl Prefix {
    /// The octets this takes in front of the body.
    pub const fn emitted_len(&self) -> usize {
        HEADER_LEN + 4 + if self.fragment.is_some() { 4 } else { 0 }
    }

    /// The first octets of the message, lengths filled in for a body (initialization vector,
    /// ciphertext, integrity checksum) of `body_len` octets. They are the associated data too.
    pub fn emit(&self, body_len: usize) -> Result<Vec<u8>, EmitError> {
        let mut writer = Writer::default();
        let outer = if self.fragment.is_some() {
            PayloadType::SKF
        } else {
            PayloadType::SK
        };
        let total = self.emitted_len() + body_len;
        // The payload's 16 bits are the tighter limit, and are checked below.
        let length = u32::try_from(total).unwrap_or(u32::MAX);
        writer.bytes(&self.header.emit(outer, length));
        writer.u8(self.first.0);
        writer.u8(0);
        writer.count_u16("an Encrypted payload", total - HEADER_LEN);
        if let Some(fragment) = self.fragment {
            writer.u16(fragment.number);
            writer.u16(fragment.total);
        }
        writer.finish()
    }
}

/// Appends Padding and Pad Length, so that the whole is a multiple of `block` octets (1 where the
/// cipher needs no padding: then only the Pad Length is added). `block` is 1 to 256.
pub fn pad(plaintext: &mut Vec<u8>, block: usize) {
    let block = block.clamp(1, 256);
    let padding = (plaintext.len() + 1).next_multiple_of(block) - (plaintext.len() + 1);
    plaintext.resize(plaintext.len() + padding, 0);
    plaintext.push(padding as u8);
}

/// The plaintext without Padding and Pad Length. Padding may have any content (RFC 7296 §3.14).
pub fn unpad(plaintext: &[u8]) -> Result<&[u8], ParseError> {
    let Some((&pad_length, rest)) = plaintext.split_last() else {
        return Err(ParseError::Truncated {
            what: "inside of an Encrypted payload",
            needed: 1,
            available: 0,
        });
    };
    match rest.len().checked_sub(usize::from(pad_length)) {
        Some(length) => Ok(rest.get(..length).unwrap_or_default()),
        None => Err(ParseError::Value {
            what: "Pad Length",
            expected: "at most the octets before it",
            got: u64::from(pad_length),
        }),
    }
}

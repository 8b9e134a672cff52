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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::header::{ExchangeType, Flags, MessageId, Spi, Version};
    use crate::testing::{self, hex};

    const HEADER: IkeHeader = IkeHeader {
        initiator_spi: Spi(0x1aad_b999_92e8_5b6f),
        responder_spi: Spi(0x9b54_8656_6879_723a),
        version: Version::V2_0,
        exchange: ExchangeType::IKE_AUTH,
        flags: Flags::new(true, false),
        message_id: MessageId(1),
    };

    #[test]
    fn octets() {
        let prefix = Prefix {
            header: HEADER,
            first: PayloadType::IDI,
            fragment: None,
        };
        let aad = hex("1aadb99992e85b6f 9b5486566879723a 2e 20 23 08 00000001 00000024 23 00 0008");
        assert_eq!(prefix.emit(4).unwrap(), aad);
        assert_eq!(prefix.emitted_len(), aad.len());

        let datagram = [&aad[..], &[1, 2, 3, 4]].concat();
        let encrypted = Message::parse(&datagram)
            .unwrap()
            .encrypted()
            .unwrap()
            .unwrap();
        let body = &[1, 2, 3, 4][..];
        assert_eq!(
            encrypted,
            Encrypted {
                first: PayloadType::IDI,
                fragment: None,
                aad: &aad,
                body
            }
        );
    }

    /// The associated data reaches over the two fragment fields (RFC 7383 §2.5).
    #[test]
    fn octets_of_a_fragment() {
        let fragment = Some(Fragment {
            number: 2,
            total: 3,
        });
        let prefix = Prefix {
            header: HEADER,
            first: PayloadType::NONE,
            fragment,
        };
        let aad = hex(
            "1aadb99992e85b6f 9b5486566879723a 35 20 23 08 00000001 00000025
             00 00 0009 0002 0003",
        );
        assert_eq!(prefix.emit(1).unwrap(), aad);
        assert_eq!(prefix.emitted_len(), aad.len());

        let datagram = [&aad[..], &[9]].concat();
        let encrypted = Message::parse(&datagram)
            .unwrap()
            .encrypted()
            .unwrap()
            .unwrap();
        assert_eq!(
            encrypted,
            Encrypted {
                first: PayloadType::NONE,
                fragment,
                aad: &aad,
                body: &[9]
            }
        );
    }

    #[test]
    fn fragment_numbers_start_at_one_and_end_at_the_total() {
        for (number, total) in [(0, 1), (0, 0), (4, 3)] {
            let fragment = Some(Fragment { number, total });
            let prefix = Prefix {
                header: HEADER,
                first: PayloadType::NONE,
                fragment,
            };
            let datagram = prefix.emit(0).unwrap();
            assert!(
                Message::parse(&datagram).unwrap().encrypted().is_err(),
                "{number}/{total}"
            );
        }
    }

    #[test]
    fn nothing_follows_the_encrypted_payload() {
        let prefix = Prefix {
            header: HEADER,
            first: PayloadType::IDI,
            fragment: None,
        };
        let mut datagram = prefix.emit(4).unwrap();
        datagram.extend_from_slice(&[0; 4]);
        datagram[31] = 7;
        assert!(Message::parse(&datagram).unwrap().encrypted().is_err());
    }

    #[test]
    fn a_body_that_does_not_fit_is_an_error() {
        let prefix = Prefix {
            header: HEADER,
            first: PayloadType::IDI,
            fragment: None,
        };
        assert!(prefix.emit(65531).is_ok());
        assert_eq!(prefix.emit(65532).unwrap_err().limit, 65535);
    }

    #[test]
    fn padding_fills_the_block() {
        for (length, block, padded) in [(0, 1, 1), (5, 4, 8), (3, 4, 4), (15, 16, 16), (16, 16, 32)]
        {
            let mut plaintext = vec![7; length];
            pad(&mut plaintext, block);
            assert_eq!(plaintext.len(), padded);
            assert_eq!(unpad(&plaintext).unwrap(), vec![7; length]);
        }
    }

    #[test]
    fn padding_longer_than_the_text_is_refused() {
        assert!(unpad(&[]).is_err());
        assert!(unpad(&[0, 0, 3]).is_err());
        assert_eq!(unpad(&[0xaa, 0xbb, 2]), Ok(&[][..]));
    }

    proptest! {
        #[test]
        fn round_trip(
            header in testing::header(),
            first: u8,
            fragment: Option<(u16, u16)>,
            body in vec(any::<u8>(), 0..99),
        ) {
            let fragment = fragment.map(|(a, b)| Fragment {
                number: a.min(b).max(1),
                total: a.max(b).max(1),
            });
            let prefix = Prefix { header, first: PayloadType(first), fragment };
            let aad = prefix.emit(body.len()).unwrap();
            let datagram = [&aad[..], &body].concat();
            let message = Message::parse(&datagram).unwrap();
            prop_assert_eq!(message.header, header);
            prop_assert_eq!(
                message.encrypted(),
                Ok(Some(Encrypted { first: PayloadType(first), fragment, aad: &aad, body: &body }))
            );
        }

        #[test]
        fn unpad_undoes_pad(plaintext in vec(any::<u8>(), 0..99), block in 1..=256_usize) {
            let mut padded = plaintext.clone();
            pad(&mut padded, block);
            prop_assert_eq!(padded.len() % block, 0);
            prop_assert_eq!(unpad(&padded), Ok(&plaintext[..]));
        }
    }
}

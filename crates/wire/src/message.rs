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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::header::{ExchangeType, Flags, MessageId, Spi};
    use crate::notify::{NotifyPayload, NotifyType};
    use crate::testing::{self, hex};

    /// A cookie challenge (RFC 7296 §2.6).
    #[test]
    fn octets() {
        let datagram = hex(
            "0102030405060708 0000000000000000 29 20 22 20 00000000 00000028
             00 00 000c 00 00 4006 deadbeef",
        );
        let header = IkeHeader {
            initiator_spi: Spi(0x0102_0304_0506_0708),
            responder_spi: Spi::ZERO,
            version: Version::V2_0,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::new(false, true),
            message_id: MessageId::ZERO,
        };
        let cookie = NotifyPayload::with_data(NotifyType::COOKIE, hex("deadbeef"));
        let mut builder = MessageBuilder::new(header);
        builder.push(cookie.clone());
        assert_eq!(builder.finish().unwrap(), datagram);

        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.header, header);
        assert_eq!(message.parse_payloads().unwrap(), [Payload::Notify(cookie)]);
        assert_eq!(message.encrypted(), Ok(None));
        let found = message.find(PayloadType::NOTIFY).unwrap().unwrap();
        assert_eq!(found.body, hex("00 00 4006 deadbeef"));
        assert_eq!(message.find(PayloadType::KE), Ok(None));
    }

    #[test]
    fn the_length_is_that_of_the_datagram() {
        let good = hex("0102030405060708 0000000000000000 00 20 22 20 00000000 0000001c");
        assert!(Message::parse(&good).is_ok());
        let error = Message::parse(&[&good[..], &[0]].concat()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Length field of the IKE header is 28, expected the length of the datagram"
        );
        assert!(Message::parse(&good[..27]).is_err());
    }

    /// RFC 7296 §2.5: another major version is answered, another minor version is ignored.
    #[test]
    fn only_the_major_version_matters() {
        let mut datagram = hex("0102030405060708 0000000000000000 00 2f 22 08 00000000 0000001c");
        assert!(Message::parse(&datagram).is_ok());
        datagram[17] = 0x30;
        let error = Message::parse(&datagram).unwrap_err();
        assert_eq!(error, ParseError::MajorVersion { got: 3 });
        assert_eq!(error.notify_type(), NotifyType::INVALID_MAJOR_VERSION);
    }

    proptest! {
        #[test]
        fn round_trip(header in testing::header(), payloads in vec(testing::payload(), 0..6)) {
            let mut builder = MessageBuilder::new(header);
            for payload in &payloads {
                builder.push(payload.clone());
            }
            let datagram = builder.finish().unwrap();
            let message = Message::parse(&datagram).unwrap();
            prop_assert_eq!(message.header, header);
            prop_assert_eq!(message.parse_payloads().unwrap(), payloads);
        }

        #[test]
        fn arbitrary_datagrams_never_panic(mut datagram in vec(any::<u8>(), 0..300)) {
            let walk = |datagram: &[u8]| {
                if let Ok(message) = Message::parse(datagram) {
                    let _ = (message.parse_payloads(), message.encrypted());
                }
            };
            walk(&datagram);
            // With a version and a length that open the door.
            let length = u32::try_from(datagram.len()).unwrap();
            if let Some(place) = datagram.get_mut(24..28) {
                place.copy_from_slice(&length.to_be_bytes());
                datagram[17] = 0x20;
            }
            walk(&datagram);
        }
    }
}

//! Bytes to types and back: IKEv2 (RFC 7296 and its extensions), ESP, and the IP headers around
//! them. No cryptography, no sockets, no clock, no randomness.
//!
//! A received datagram goes [`natt::Datagram::classify`] → [`message::Message::parse`] →
//! [`message::Message::encrypted`] or [`message::Message::payloads`]; the inner chain of a
//! decrypted message goes to [`payload::parse_chain`]. What is sent is collected by a
//! [`message::MessageBuilder`] (cleartext) or a [`payload::ChainBuilder`] (to be sealed and framed
//! with [`sk::Prefix`]).
//!
//! Parsing borrows from the datagram and never panics, whatever the bytes. Wherever a peer chooses
//! a count, there is a limit on it. Numbers this crate does not know survive a round trip.
//!
//! ```
//! use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
//! use cygnet_wire::message::{Message, MessageBuilder};
//! use cygnet_wire::notify::{NotifyPayload, NotifyType};
//! use cygnet_wire::payload::Payload;
//!
//! let mut builder = MessageBuilder::new(IkeHeader {
//!     initiator_spi: Spi(0x1122_3344_5566_7788),
//!     responder_spi: Spi::ZERO,
//!     version: Version::V2_0,
//!     exchange: ExchangeType::IKE_SA_INIT,
//!     flags: Flags::new(false, true),
//!     message_id: MessageId::ZERO,
//! });
//! builder.push(NotifyPayload::with_data(NotifyType::COOKIE, &[1, 2, 3][..]));
//! let datagram = builder.finish()?;
//!
//! for payload in Message::parse(&datagram)?.parse_payloads()? {
//!     match payload {
//!         Payload::Notify(notify) if notify.ty == NotifyType::COOKIE => {
//!             assert_eq!(notify.data.as_ref(), [1, 2, 3]);
//!         }
//!         other => panic!("unexpected {}", other.ty()),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod number;
mod codec;
#[cfg(test)]
mod testing;

pub mod auth;
pub mod cert;
pub mod cp;
pub mod delete;
pub mod eap;
pub mod error;
pub mod esp;
pub mod header;
pub mod id;
pub mod ip;
pub mod ke;
pub mod message;
pub mod natt;
pub mod nonce;
pub mod notify;
pub mod payload;
pub mod sa;
pub mod sk;
pub mod ts;
pub mod vendor;

pub use error::{EmitError, ParseError};

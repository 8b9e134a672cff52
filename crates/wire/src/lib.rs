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

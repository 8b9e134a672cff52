//! The algorithms of IKEv2 and ESP: suites and their names, ciphers, pseudorandom functions, key exchange, signatures, secrets.
//!
//! No I/O, no clock, no randomness of its own: whatever is random comes from a [`Random`] argument, so a run can be replayed.
//! The one exception is signing: ECDSA and RSA-PSS draw their nonces and salts inside the signing library.

pub mod chacha20poly1305;
mod cipher;
mod der;
pub mod digest;
pub mod esp_key;
pub mod ike_cipher;
pub mod kex;
pub mod prf;
pub mod psk;
mod random;
mod secret;
pub mod signature;
pub mod suite;
#[cfg(test)]
mod testing;

pub use random::{Random, SystemRandom};
pub use secret::Secret;

use thiserror::Error;

/// Key material of the wrong length was handed over: a mistake of the caller, not of the peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: expected {expected} octets of key material, got {got}")]
pub struct KeyLengthError {
    /// What the key was for, such as "encryption key of aes128gcm16".
    pub what: String,
    /// The length the algorithm needs.
    pub expected: usize,
    /// The length that was given.
    pub got: usize,
}

/// A suite that pairs its algorithms wrongly: a mistake of the caller, not of the peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Key material of the wrong length.
    #[error(transparent)]
    Length(#[from] KeyLengthError),
    /// A combined mode together with an integrity algorithm, or CBC without one.
    #[error("{encryption} {} integrity algorithm beside it", if *aead { "takes no" } else { "needs an" })]
    Pairing {
        /// The encryption algorithm.
        encryption: suite::Encryption,
        /// Whether it is a combined mode.
        aead: bool,
    },
}

/// A packet or message that does not authenticate, or cannot be what it claims. Nothing more is said: nothing more is safe to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Shorter than IV, one block and ICV, or not a whole number of blocks.
    #[error("too short or not whole blocks: {got} octets, at least {least} expected")]
    Length {
        /// What came.
        got: usize,
        /// The least that could be right.
        least: usize,
    },
    /// The integrity check value is wrong: altered, or sealed under other keys.
    #[error("integrity check failed: altered on the way, or sealed under other keys")]
    Integrity,
    /// The padding is inconsistent although the message authenticated.
    #[error("padding length {pad_len} exceeds the {available} octets of plaintext")]
    Padding {
        /// The Pad Length field.
        pad_len: u8,
        /// Octets before that field.
        available: usize,
    },
}

/// Sealing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// Every IV of this key was used; only new keys help.
    #[error("every IV of this key has been used: rekey before sealing more")]
    Exhausted,
    /// The buffer cannot hold the packet or is not a whole number of blocks.
    #[error("buffer of {got} octets does not fit: expected at least {least}, in whole blocks")]
    Length {
        /// What came.
        got: usize,
        /// The least that could be right.
        least: usize,
    },
    /// The cipher refused: a plaintext beyond its limit.
    #[error("the cipher refused the plaintext: beyond its length limit")]
    Cipher,
}

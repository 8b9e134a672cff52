//! AES-GCM with 256-bit vectors, for the packets of processors that have VAES but not AVX-512 (AMD Zen 3,
//! many of Intel's since 2021): there AWS-LC works with 128 bits, and ring in half of the time.

use std::arch::is_x86_feature_detected;

use ring::aead::{self, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use super::TAG;
use crate::suite::Encryption;
use crate::{OpenError, SealError};

/// Whether this is such a processor.
pub(super) fn is_faster() -> bool {
    let wide = is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2");
    // AWS-LC uses 512 bits where all of these are there.
    let wider = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    wide && !wider
}

/// A key of AES-GCM.
pub(super) struct Key(LessSafeKey);

/// ring leaves keys where they were; another in the same place does not.
impl Drop for Key {
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        if let Ok(zeros) = UnboundKey::new(algorithm, &[0; 32][..algorithm.key_len()]) {
            self.0 = LessSafeKey::new(zeros);
            std::hint::black_box(&mut self.0);
        }
    }
}

impl Key {
    /// `None` for another algorithm, or a key of another length.
    pub(super) fn new(encryption: Encryption, key: &[u8]) -> Option<Self> {
        let algorithm = match encryption {
            Encryption::AesGcm16_128 => &aead::AES_128_GCM,
            Encryption::AesGcm16_256 => &aead::AES_256_GCM,
            Encryption::ChaCha20Poly1305 | Encryption::AesCbc128 | Encryption::AesCbc256 => {
                return None;
            }
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    pub(super) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], SealError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), in_out)
            .map_err(|_| SealError::Cipher)?;
        tag.as_ref().try_into().map_err(|_| SealError::Cipher)
    }

    pub(super) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = Tag::try_from(tag).map_err(|_| OpenError::Integrity)?;
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, in_out, 0..)
            .map(|_| ())
            .map_err(|_| OpenError::Integrity)
    }
}

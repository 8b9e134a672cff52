//! AES-GCM with 256-bit vectors, for the packets of processors that have VAES but not AVX-512 (AMD Zen 3,
//! many of Intel's since 2021): there AWS-LC works with 128 bits, and ring in half of the time.

use std::arch::is_x86_feature_detected;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use super::{AeadKey, NONCE, TAG, aead};
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

/// This one where it has the algorithm, else AWS-LC's.
pub(super) fn key(algorithm: &'static aead::Algorithm, key: &[u8]) -> AeadKey {
    let same = match algorithm {
        a if *a == aead::AES_128_GCM => Some(&AES_128_GCM),
        a if *a == aead::AES_256_GCM => Some(&AES_256_GCM),
        _ => None,
    };
    match same.and_then(|same| UnboundKey::new(same, key).ok()) {
        Some(key) => AeadKey::Wide(Box::new(Key(LessSafeKey::new(key)))),
        None => AeadKey::aws_lc(algorithm, key),
    }
}

impl Key {
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE],
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
        nonce: [u8; NONCE],
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

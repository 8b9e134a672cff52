//! The ciphers beneath IKE messages and ESP packets: a combined mode with its salt, and CBC with HMAC.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use crate::suite::{Encryption, Integrity};
use crate::{KeyError, KeyLengthError, OpenError, SealError};

#[cfg(target_arch = "x86_64")]
mod wide;

/// Octets of an AES block, and of the IV of CBC.
pub(crate) const BLOCK: usize = 16;
/// Octets of the ICV of every combined mode here.
pub(crate) const TAG: usize = 16;
/// Octets of the explicit IV of every combined mode here.
pub(crate) const AEAD_IV: usize = 8;
/// Octets of the salt of every combined mode here.
const SALT: usize = 4;
const NONCE: usize = SALT + AEAD_IV;

fn check_len(what: String, expected: usize, key: &[u8]) -> Result<(), KeyLengthError> {
    if key.len() == expected {
        Ok(())
    } else {
        Err(KeyLengthError {
            what,
            expected,
            got: key.len(),
        })
    }
}

/// A combined mode: AES-GCM (RFC 4106, 5282) or ChaCha20-Poly1305 (RFC 7634). Its nonce is salt | IV.
pub(crate) struct Aead {
    key: AeadKey,
    salt: [u8; SALT],
}

enum AeadKey {
    AwsLc(LessSafeKey),
    #[cfg(target_arch = "x86_64")]
    Wide(Box<wide::Key>),
}

impl AeadKey {
    fn aws_lc(algorithm: &'static aead::Algorithm, key: &[u8]) -> Self {
        let key = UnboundKey::new(algorithm, key).expect("the key length was checked");
        Self::AwsLc(LessSafeKey::new(key))
    }
}

impl Aead {
    /// `None` when `encryption` is no combined mode; `material` is the key with the salt at its end.
    /// Combined modes take no integrity algorithm.
    pub(crate) fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        material: &[u8],
    ) -> Result<Option<Self>, KeyError> {
        Self::with(encryption, integrity, material, AeadKey::aws_lc)
    }

    /// The same for many packets: with what is fastest on this processor.
    pub(crate) fn for_packets(
        encryption: Encryption,
        integrity: Option<Integrity>,
        material: &[u8],
    ) -> Result<Option<Self>, KeyError> {
        #[cfg(target_arch = "x86_64")]
        if wide::is_faster() {
            return Self::with(encryption, integrity, material, wide::key);
        }
        Self::new(encryption, integrity, material)
    }

    fn with(
        encryption: Encryption,
        integrity: Option<Integrity>,
        material: &[u8],
        make_key: impl FnOnce(&'static aead::Algorithm, &[u8]) -> AeadKey,
    ) -> Result<Option<Self>, KeyError> {
        let algorithm = match encryption {
            Encryption::AesGcm16_128 => &aead::AES_128_GCM,
            Encryption::AesGcm16_256 => &aead::AES_256_GCM,
            Encryption::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            Encryption::AesCbc128 | Encryption::AesCbc256 => return Ok(None),
        };
        if integrity.is_some() {
            return Err(KeyError::Pairing {
                encryption,
                aead: true,
            });
        }
        let what = format!("{encryption} key with salt");
        check_len(what, encryption.key_material_len(), material)?;
        let (key, salt) = material.split_at(encryption.key_len());
        let salt = salt
            .try_into()
            .expect("every combined mode has a salt of 4 octets");
        Ok(Some(Aead {
            key: make_key(algorithm, key),
            salt,
        }))
    }

    pub(crate) fn seal(
        &self,
        iv: [u8; AEAD_IV],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], SealError> {
        match &self.key {
            AeadKey::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(self.nonce(iv));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), in_out)
                    .map_err(|_| SealError::Cipher)?;
                Ok(tag
                    .as_ref()
                    .try_into()
                    .expect("every combined mode has a tag of 16 octets"))
            }
            #[cfg(target_arch = "x86_64")]
            AeadKey::Wide(key) => key.seal(self.nonce(iv), aad, in_out),
        }
    }

    pub(crate) fn open(
        &self,
        iv: [u8; AEAD_IV],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8],
    ) -> Result<(), OpenError> {
        match &self.key {
            AeadKey::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(self.nonce(iv));
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, in_out)
                    .map(|_| ())
                    .map_err(|_| OpenError::Integrity)
            }
            #[cfg(target_arch = "x86_64")]
            AeadKey::Wide(key) => key.open(self.nonce(iv), aad, in_out, tag),
        }
    }

    fn nonce(&self, iv: [u8; AEAD_IV]) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        nonce
    }
}

/// An HMAC key with the length its ICV is cut to.
pub(crate) struct Mac {
    key: hmac::Key,
    icv_len: usize,
}

impl Mac {
    /// CBC must have an integrity algorithm.
    pub(crate) fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        key: &[u8],
    ) -> Result<Self, KeyError> {
        let integrity = integrity.ok_or(KeyError::Pairing {
            encryption,
            aead: false,
        })?;
        check_len(
            format!("{integrity} integrity key"),
            integrity.key_len(),
            key,
        )?;
        let algorithm = match integrity {
            Integrity::HmacSha2_256_128 => hmac::HMAC_SHA256,
            Integrity::HmacSha2_384_192 => hmac::HMAC_SHA384,
            Integrity::HmacSha2_512_256 => hmac::HMAC_SHA512,
        };
        Ok(Mac {
            key: hmac::Key::new(algorithm, key),
            icv_len: integrity.icv_len(),
        })
    }

    pub(crate) fn icv_len(&self) -> usize {
        self.icv_len
    }

    /// Writes the ICV over `parts` into `icv`, which is as long as [`Mac::icv_len`].
    pub(crate) fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        icv.copy_from_slice(&self.tag(parts).as_ref()[..self.icv_len]);
    }

    /// Whether `icv` is right, in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> Result<(), OpenError> {
        let tag = self.tag(parts);
        let expected = tag.as_ref().get(..self.icv_len).unwrap_or_default();
        aws_lc_rs::constant_time::verify_slices_are_equal(expected, icv)
            .map_err(|_| OpenError::Integrity)
    }

    fn tag(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}

/// AES-CBC without padding of its own, in the sending direction.
pub(crate) struct CbcEncryptor(EncryptingKey);

impl CbcEncryptor {
    pub(crate) fn new(encryption: Encryption, key: &[u8]) -> Result<Self, KeyError> {
        let key = unbound_aes(encryption, key)?;
        Ok(CbcEncryptor(
            EncryptingKey::cbc(key).expect("AES has a CBC mode"),
        ))
    }

    /// Encrypts whole blocks.
    pub(crate) fn encrypt(&self, iv: [u8; BLOCK], in_out: &mut [u8]) -> Result<(), SealError> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.0
            .less_safe_encrypt(in_out, context)
            .map(|_| ())
            .map_err(|_| SealError::Cipher)
    }
}

/// AES-CBC without padding of its own, in the receiving direction.
pub(crate) struct CbcDecryptor(DecryptingKey);

impl CbcDecryptor {
    pub(crate) fn new(encryption: Encryption, key: &[u8]) -> Result<Self, KeyError> {
        let key = unbound_aes(encryption, key)?;
        Ok(CbcDecryptor(
            DecryptingKey::cbc(key).expect("AES has a CBC mode"),
        ))
    }

    /// Decrypts whole blocks that have authenticated.
    pub(crate) fn decrypt(&self, iv: [u8; BLOCK], in_out: &mut [u8]) -> Result<(), OpenError> {
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        self.0
            .decrypt(in_out, context)
            .map(|_| ())
            .map_err(|_| OpenError::Integrity)
    }
}

/// Makes unpredictable IVs from values that never repeat: AES of the value under a key of its own (NIST SP 800-38A, appendix C, first method).
pub(crate) struct IvGenerator(EncryptingKey);

impl IvGenerator {
    /// The key is HMAC-SHA2-256 of a label under `secret`, so the IVs say nothing about the other keys.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            b"cygnet esp cbc iv",
        );
        let key = UnboundCipherKey::new(&cipher::AES_256, tag.as_ref())
            .expect("HMAC-SHA2-256 is as long as an AES-256 key");
        IvGenerator(EncryptingKey::ecb(key).expect("AES has an ECB mode"))
    }

    pub(crate) fn iv(&self, unique: u64) -> Result<[u8; BLOCK], SealError> {
        let mut block = [0; BLOCK];
        block[8..].copy_from_slice(&unique.to_be_bytes());
        self.0
            .less_safe_encrypt(&mut block, EncryptionContext::None)
            .map_err(|_| SealError::Cipher)?;
        Ok(block)
    }
}

fn unbound_aes(encryption: Encryption, key: &[u8]) -> Result<UnboundCipherKey, KeyError> {
    check_len(
        format!("{encryption} encryption key"),
        encryption.key_len(),
        key,
    )?;
    let algorithm = if key.len() == 16 {
        &cipher::AES_128
    } else {
        &cipher::AES_256
    };
    Ok(UnboundCipherKey::new(algorithm, key).expect("the key length was checked"))
}

#[cfg(test)]
mod tests;

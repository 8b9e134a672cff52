//! Protection of IKE messages: the body of the SK payload (RFC 7296 §3.14, RFC 5282) and of the SKF payload (RFC 7383 §2.5).
//!
//! ```text
//!  header (not encrypted)          | body
//!  IKE header … payload header (+  | IV | payloads, padding, Pad Length | ICV
//!  fragment numbers for SKF)       |    |<--------- encrypted --------->|
//! ```
//!
//! The ICV covers header and body. Combined modes count their IV up from zero; CBC draws it at random.

use crate::cipher::{AEAD_IV, Aead, BLOCK, CbcDecryptor, CbcEncryptor, Mac, TAG, check_pairing};
use crate::suite::{Encryption, Integrity};
use crate::{KeyError, OpenError, Random, SealError, Secret};

/// Seals this side's messages: with SK_ei and SK_ai, or SK_er and SK_ar.
pub struct IkeSealer(Sealer);

enum Sealer {
    /// `next_iv` is `None` once every IV has been used.
    Aead {
        key: Aead,
        next_iv: Option<u64>,
    },
    Cbc {
        key: CbcEncryptor,
        mac: Mac,
    },
}

/// Opens the peer's messages.
pub struct IkeOpener(Opener);

enum Opener {
    Aead(Aead),
    Cbc { key: CbcDecryptor, mac: Mac },
}

impl IkeSealer {
    /// `sk_e` is SK_e with, for combined modes, the salt at its end ([`Encryption::key_material_len`]);
    /// `sk_a` is SK_a, empty for combined modes.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        sk_e: &[u8],
        sk_a: &[u8],
    ) -> Result<Self, KeyError> {
        let integrity = check_pairing(encryption, integrity)?;
        Ok(IkeSealer(match (Aead::new(encryption, sk_e)?, integrity) {
            (None, Some(integrity)) => Sealer::Cbc {
                key: CbcEncryptor::new(encryption, sk_e)?,
                mac: Mac::new(integrity, sk_a)?,
            },
            (Some(key), None) => Sealer::Aead {
                key,
                next_iv: Some(0),
            },
            _ => {
                return Err(KeyError::Pairing {
                    encryption,
                    aead: encryption.is_aead(),
                });
            }
        }))
    }

    /// Octets of the payload body (IV, ciphertext with padding and Pad Length, ICV) for a plaintext of
    /// this length; the length fields of `header` in [`IkeSealer::seal`] count them.
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        match &self.0 {
            Sealer::Aead { .. } => AEAD_IV + plaintext_len + 1 + TAG,
            Sealer::Cbc { mac, .. } => {
                BLOCK + (plaintext_len + 1).next_multiple_of(BLOCK) + mac.icv_len()
            }
        }
    }

    /// The longest plaintext whose sealed body has at most `body_len` octets; `None` when not even an
    /// empty one fits.
    pub fn max_plaintext_len(&self, body_len: usize) -> Option<usize> {
        match &self.0 {
            Sealer::Aead { .. } => body_len.checked_sub(AEAD_IV + 1 + TAG),
            Sealer::Cbc { mac, .. } => {
                let blocks = body_len.checked_sub(BLOCK + mac.icv_len())? / BLOCK;
                (blocks * BLOCK).checked_sub(1)
            }
        }
    }

    /// The payload body for `plaintext`. `header` is all that precedes it in the message: the IKE header,
    /// unencrypted payloads, the generic header of SK or SKF, the fragment numbers; its length fields are
    /// final, by [`IkeSealer::sealed_len`].
    pub fn seal(
        &mut self,
        random: &mut dyn Random,
        header: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut body = Vec::with_capacity(self.sealed_len(plaintext.len()));
        match &mut self.0 {
            Sealer::Aead { key, next_iv } => {
                let counter = next_iv.ok_or(SealError::Exhausted)?;
                *next_iv = counter.checked_add(1);
                let iv = counter.to_be_bytes();
                body.extend_from_slice(&iv);
                body.extend_from_slice(plaintext);
                // RFC 5282 §3: no alignment is needed, so Pad Length alone, which is 0.
                body.push(0);
                let tag = key.seal(iv, header, &mut body[AEAD_IV..])?;
                body.extend_from_slice(&tag);
            }
            Sealer::Cbc { key, mac } => {
                let mut iv = [0; BLOCK];
                random.fill(&mut iv);
                body.extend_from_slice(&iv);
                body.extend_from_slice(plaintext);
                let pad_len = (plaintext.len() + 1).next_multiple_of(BLOCK) - plaintext.len() - 1;
                body.resize(body.len() + pad_len, 0);
                body.push(u8::try_from(pad_len).expect("shorter than a block"));
                key.encrypt(iv, &mut body[BLOCK..])?;
                let icv_at = body.len();
                body.resize(icv_at + mac.icv_len(), 0);
                let (covered, icv) = body.split_at_mut(icv_at);
                mac.sign(&[header, covered], icv);
            }
        }
        Ok(body)
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
        let integrity = check_pairing(encryption, integrity)?;
        Ok(IkeOpener(match (Aead::new(encryption, sk_e)?, integrity) {
            (None, Some(integrity)) => Opener::Cbc {
                key: CbcDecryptor::new(encryption, sk_e)?,
                mac: Mac::new(integrity, sk_a)?,
            },
            (Some(key), None) => Opener::Aead(key),
            _ => {
                return Err(KeyError::Pairing {
                    encryption,
                    aead: encryption.is_aead(),
                });
            }
        }))
    }

    /// The plaintext payloads of `body`, which `header` precedes in the message, without padding.
    pub fn open(&self, header: &[u8], body: &[u8]) -> Result<Secret, OpenError> {
        let plaintext = match &self.0 {
            Opener::Aead(key) => {
                let too_short = OpenError::Length {
                    got: body.len(),
                    least: AEAD_IV + 1 + TAG,
                };
                let (iv, rest) = body.split_first_chunk::<AEAD_IV>().ok_or(too_short)?;
                let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(too_short)?;
                let mut plaintext = Secret::from_slice(ciphertext);
                key.open(*iv, header, plaintext.expose_mut(), tag)?;
                plaintext
            }
            Opener::Cbc { key, mac } => {
                let least = BLOCK + BLOCK + mac.icv_len();
                let too_short = OpenError::Length {
                    got: body.len(),
                    least,
                };
                let icv_at = body.len().checked_sub(mac.icv_len()).ok_or(too_short)?;
                let (covered, icv) = body.split_at_checked(icv_at).ok_or(too_short)?;
                let (iv, ciphertext) = covered.split_first_chunk::<BLOCK>().ok_or(too_short)?;
                if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
                    return Err(too_short);
                }
                mac.verify(&[header, covered], icv)?;
                let mut plaintext = Secret::from_slice(ciphertext);
                key.decrypt(*iv, plaintext.expose_mut())?;
                plaintext
            }
        };
        strip_padding(plaintext)
    }
}

/// RFC 7296 §3.14: any padding contents are accepted, the recipient relies on Pad Length alone.
fn strip_padding(mut plaintext: Secret) -> Result<Secret, OpenError> {
    let Some((&pad_len, before)) = plaintext.expose().split_last() else {
        return Err(OpenError::Length { got: 0, least: 1 });
    };
    let len = before
        .len()
        .checked_sub(usize::from(pad_len))
        .ok_or(OpenError::Padding {
            pad_len,
            available: before.len(),
        })?;
    plaintext.truncate(len);
    Ok(plaintext)
}

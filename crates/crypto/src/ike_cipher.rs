//! Protection of IKE messages: the body of the SK payload (RFC 7296 §3.14, RFC 5282) and of the SKF payload (RFC 7383 §2.5).
//!
//! ```text
//!  header (not encrypted)          | body
//!  IKE header … payload header (+  | IV | payloads, padding, Pad Length | ICV
//!  fragment numbers for SKF)       |    |<--------- encrypted --------->|
//! ```
//!
//! The ICV covers header and body. Combined modes count their IV up from zero; CBC draws it at random.

use crate::cipher::{AEAD_IV, Aead, BLOCK, CbcDecryptor, CbcEncryptor, Mac, TAG};
use crate::suite::{Encryption, Integrity};
use crate::{KeyError, OpenError, Random, SealError, Secret};

/// Seals this side's messages: with SK_ei and SK_ai, or SK_er and SK_ar.
pub struct IkeSealer(Sealer);

enum Sealer {
    /// `next_iv` is `None` once every IV has been used.
    Aead { key: Aead, next_iv: Option<u64> },
    Cbc {
        key: Box<CbcEncryptor>,
        mac: Box<Mac>,
    },
}

/// Opens the peer's messages.
pub struct IkeOpener(Opener);

enum Opener {
    Aead(Aead),
    Cbc {
        key: Box<CbcDecryptor>,
        mac: Box<Mac>,
    },
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
        Ok(IkeSealer(match Aead::new(encryption, integrity, sk_e)? {
            Some(key) => Sealer::Aead {
                key,
                next_iv: Some(0),
            },
            None => Sealer::Cbc {
                key: Box::new(CbcEncryptor::new(encryption, sk_e)?),
                mac: Box::new(Mac::new(encryption, integrity, sk_a)?),
            },
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
        Ok(IkeOpener(match Aead::new(encryption, integrity, sk_e)? {
            Some(key) => Opener::Aead(key),
            None => Opener::Cbc {
                key: Box::new(CbcDecryptor::new(encryption, sk_e)?),
                mac: Box::new(Mac::new(encryption, integrity, sk_a)?),
            },
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Script, hex};

    /// Every pairing there is.
    fn pairings() -> Vec<(Encryption, Option<Integrity>)> {
        let mut all = Vec::new();
        for encryption in Encryption::ALL {
            if encryption.is_aead() {
                all.push((encryption, None));
            } else {
                all.extend(Integrity::ALL.map(|integrity| (encryption, Some(integrity))));
            }
        }
        all
    }

    fn pair(encryption: Encryption, integrity: Option<Integrity>) -> (IkeSealer, IkeOpener) {
        let sk_e: Vec<u8> = (1..).take(encryption.key_material_len()).collect();
        let sk_a: Vec<u8> = (101..)
            .take(integrity.map_or(0, Integrity::key_len))
            .collect();
        (
            IkeSealer::new(encryption, integrity, &sk_e, &sk_a).unwrap(),
            IkeOpener::new(encryption, integrity, &sk_e, &sk_a).unwrap(),
        )
    }

    #[test]
    fn rfc7634_appendix_b() {
        let header = hex(
            "c0 c1 c2 c3 c4 c5 c6 c7 d0 d1 d2 d3 d4 d5 d6 d7 2e 20 25 00 00 00 00 09 00 00 00 45 29 00 00 29",
        );
        let body = hex(
            "10 11 12 13 14 15 16 17 61 03 94 70 1f 8d 01 7f 7c 12 92 48 89
             6b 71 bf e2 52 36 ef d7 cd c6 70 66 90 63 15 b2",
        );
        let sk_e: Vec<u8> = (0x80..=0xa3).collect();
        let opener = IkeOpener::new(Encryption::ChaCha20Poly1305, None, &sk_e, &[]).unwrap();
        let notify = hex("00 00 00 0c 00 00 40 01 00 00 00 0a");
        assert_eq!(opener.open(&header, &body).unwrap().expose(), notify);
        // The same IV on the way out needs the counter there.
        let mut sealer = IkeSealer::new(Encryption::ChaCha20Poly1305, None, &sk_e, &[]).unwrap();
        if let Sealer::Aead { next_iv, .. } = &mut sealer.0 {
            *next_iv = Some(0x1011_1213_1415_1617);
        }
        assert_eq!(
            sealer
                .seal(&mut Script::new(vec![]), &header, &notify)
                .unwrap(),
            body
        );
    }

    /// Computed with OpenSSL (AES-CBC) and Python's hmac.
    #[test]
    fn cbc_with_hmac_as_an_independent_implementation_makes_it() {
        let header = hex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000006029000044");
        let body = hex(
            "505152535455565758595a5b5c5d5e5f993a00ecff6988f5fbe62a282852977c\
             844d10846c3493889d53e26d32b69c0e4bc091d95963c9db5a12060892b800d4",
        );
        let sk_e: Vec<u8> = (0..16).collect();
        let sk_a: Vec<u8> = (16..80).collect();
        let integrity = Some(Integrity::HmacSha2_512_256);
        let notify = hex("0000000c000040010000000a");
        let iv = (0x50..0x60).collect();
        let mut sealer = IkeSealer::new(Encryption::AesCbc128, integrity, &sk_e, &sk_a).unwrap();
        assert_eq!(
            sealer.seal(&mut Script::new(iv), &header, &notify).unwrap(),
            body
        );
        let opener = IkeOpener::new(Encryption::AesCbc128, integrity, &sk_e, &sk_a).unwrap();
        assert_eq!(opener.open(&header, &body).unwrap().expose(), notify);
    }

    #[test]
    fn the_iv_of_combined_modes_never_repeats_and_ends() {
        let (mut sealer, _) = pair(Encryption::AesGcm16_256, None);
        let mut none = Script::new(vec![]);
        let first = sealer.seal(&mut none, b"header", b"").unwrap();
        let second = sealer.seal(&mut none, b"header", b"").unwrap();
        assert_eq!(
            (&first[..8], &second[..8]),
            (&[0; 8][..], &[0, 0, 0, 0, 0, 0, 0, 1][..])
        );
        if let Sealer::Aead { next_iv, .. } = &mut sealer.0 {
            *next_iv = Some(u64::MAX);
        }
        assert_eq!(
            sealer.seal(&mut none, b"header", b"").unwrap()[..8],
            [0xff; 8]
        );
        assert_eq!(
            sealer.seal(&mut none, b"header", b""),
            Err(SealError::Exhausted)
        );
    }

    #[test]
    fn the_longest_plaintext_that_fits_is_the_longest() {
        for (encryption, integrity) in pairings() {
            let (sealer, _) = pair(encryption, integrity);
            for body_len in 0..200 {
                match sealer.max_plaintext_len(body_len) {
                    Some(len) => {
                        assert!(sealer.sealed_len(len) <= body_len);
                        assert!(sealer.sealed_len(len + 1) > body_len);
                    }
                    None => assert!(sealer.sealed_len(0) > body_len),
                }
            }
        }
    }

    #[test]
    fn bodies_of_any_short_length_are_refused() {
        for (encryption, integrity) in pairings() {
            let (_, opener) = pair(encryption, integrity);
            for len in 0..100 {
                assert!(opener.open(b"header", &vec![0; len]).is_err());
            }
        }
    }

    #[test]
    fn padding_longer_than_the_plaintext_is_refused() {
        let key: Vec<u8> = (1..=20).collect();
        let aead = Aead::new(Encryption::AesGcm16_128, None, &key)
            .unwrap()
            .unwrap();
        let mut plaintext = [7, 7, 3];
        let tag = aead.seal([0; 8], b"header", &mut plaintext).unwrap();
        let body = [&[0; 8][..], &plaintext, &tag].concat();
        let opener = IkeOpener::new(Encryption::AesGcm16_128, None, &key, &[]).unwrap();
        let error = opener.open(b"header", &body).err();
        assert_eq!(
            error,
            Some(OpenError::Padding {
                pad_len: 3,
                available: 2
            })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_sealed_opens(
            header in proptest::collection::vec(any::<u8>(), 0..64),
            plaintext in proptest::collection::vec(any::<u8>(), 0..300),
            iv in any::<[u8; 16]>(),
        ) {
            for (encryption, integrity) in pairings() {
                let (mut sealer, opener) = pair(encryption, integrity);
                let expected = sealer.sealed_len(plaintext.len());
                let body = sealer.seal(&mut Script::new(iv.into()), &header, &plaintext).unwrap();
                prop_assert_eq!(body.len(), expected);
                let opened = opener.open(&header, &body).unwrap();
                prop_assert_eq!(opened.expose(), &plaintext[..]);
            }
        }

        #[test]
        fn any_flipped_bit_is_refused(
            plaintext in proptest::collection::vec(any::<u8>(), 0..60),
            at in any::<proptest::sample::Index>(),
            bit in 0..8,
        ) {
            for (encryption, integrity) in pairings() {
                let (mut sealer, opener) = pair(encryption, integrity);
                let header = [9; 32];
                let body = sealer.seal(&mut Script::new(vec![5; 16]), &header, &plaintext).unwrap();
                let mut message = [&header[..], &body].concat();
                message[at.index(header.len() + body.len())] ^= 1_u8 << bit;
                let (header, body) = message.split_at(header.len());
                prop_assert_eq!(opener.open(header, body).err(), Some(OpenError::Integrity));
            }
        }
    }
}

//! ChaCha20-Poly1305 (RFC 8439) under a nonce that the caller counts, for files; packets have [`crate::esp_key`].

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Length of the tag behind a ciphertext.
pub const TAG_LEN: usize = 16;

/// A key. No two plaintexts may be sealed with it under one nonce.
pub struct Key(LessSafeKey);

impl Key {
    /// From its octets.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has its length");
        Self(LessSafeKey::new(key))
    }

    /// Ciphertext and tag.
    pub fn seal(&self, nonce: [u8; 12], plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plaintext.len() + TAG_LEN);
        out.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut out)
            .expect("a plaintext in memory is within the cipher's limit");
        out
    }

    /// The plaintext; `None` where the tag is not right.
    pub fn open(&self, nonce: [u8; 12], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut out);
        let len = opened.ok()?.len();
        out.truncate(len);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else() {
        let key = Key::new(&[7; 32]);
        let sealed = key.seal([1; 12], b"plain");
        assert_eq!(sealed.len(), 5 + TAG_LEN);
        assert_eq!(
            key.open([1; 12], &sealed).expect("opens").as_slice(),
            b"plain"
        );
        assert!(key.open([2; 12], &sealed).is_none());
        assert!(Key::new(&[8; 32]).open([1; 12], &sealed).is_none());
        assert!(key.open([1; 12], &sealed[..TAG_LEN - 1]).is_none());
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(key.open([1; 12], &other).is_none(), "octet {at}");
        }
    }
}

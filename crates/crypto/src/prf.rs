//! Pseudorandom functions and key expansion, RFC 7296 §2.13.

use aws_lc_rs::hmac;

use crate::Secret;
use crate::suite::Prf;

impl Prf {
    /// prf(key, parts[0] | parts[1] | …).
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        Secret::from_slice(self.tag(&hmac::Key::new(self.hmac(), key), parts).as_ref())
    }

    /// The first `len` octets of prf+(key, seed[0] | seed[1] | …).
    ///
    /// # Panics
    /// Beyond 255 blocks, which prf+ does not define and no key of IKE needs.
    pub fn prf_plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
        assert!(
            len <= 255 * self.output_len(),
            "prf+ ends after 255 blocks; {len} octets were asked of {self}"
        );
        let key = hmac::Key::new(self.hmac(), key);
        // Whole blocks are reserved at once, so that no reallocation leaves a copy behind.
        let mut out = Vec::with_capacity(len.next_multiple_of(self.output_len()));
        let mut counter = 0_u8;
        while out.len() < len {
            counter += 1;
            let previous = &out[out.len().saturating_sub(self.output_len())..];
            let mut context = hmac::Context::with_key(&key);
            context.update(previous);
            seed.iter().for_each(|part| context.update(part));
            context.update(&[counter]);
            let tag = context.sign();
            out.extend_from_slice(tag.as_ref());
        }
        let mut out = Secret::new(out);
        out.truncate(len);
        out
    }

    fn tag(self, key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Prf::HmacSha2_256 => hmac::HMAC_SHA256,
            Prf::HmacSha2_384 => hmac::HMAC_SHA384,
            Prf::HmacSha2_512 => hmac::HMAC_SHA512,
        }
    }
}

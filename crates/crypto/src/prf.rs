//! Pseudorandom functions and key expansion, RFC 7296 §2.13.

use aws_lc_rs::hmac;

use crate::Secret;
use crate::suite::Prf;

impl Prf {
    /// `prf(key, parts[0] | parts[1] | …)`.
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        Secret::from_slice(self.tag(&hmac::Key::new(self.hmac(), key), parts).as_ref())
    }

    /// The first `len` octets of `prf+(key, seed[0] | seed[1] | …)`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    fn check(key: &str, data: &str, outputs: [&str; 3]) {
        for (prf, output) in Prf::ALL.into_iter().zip(outputs) {
            assert_eq!(
                prf.compute(&hex(key), &[&hex(data)]).expose(),
                hex(output),
                "{prf}"
            );
        }
    }

    #[test]
    fn rfc4231_and_rfc4868_case_1() {
        check(
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
                 faea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        );
    }

    #[test]
    fn rfc4231_and_rfc4868_case_2() {
        check(
            "4a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            [
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
                 8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        );
    }

    #[test]
    fn parts_are_concatenated() {
        for prf in Prf::ALL {
            let whole = prf.compute(b"key", &[b"what do ya want"]);
            assert!(
                prf.compute(b"key", &[b"what ", b"", b"do ya want"])
                    .ct_eq(whole.expose())
            );
        }
    }

    /// Computed with Python's hmac: T1 = prf(K, S | 1), T2 = prf(K, T1 | S | 2), …
    #[test]
    fn prf_plus_chains_blocks() {
        let seed: Vec<u8> = (0..16).collect();
        let expected = [
            "cca03fca4cf49caa0a35020431e2d237c7c61e074741e85e465d31a47610a8fa8831deb2e867078578\
             5d0411198142645757f9602e77e4b9f37f9558649f72543d3fdc15db214fba6c612d9f836354e70852\
             f77f51028b5f85fea3d3600d8742666e77c1",
            "254b1a0076008dfcdce25f5066391ad487ab48bfb9426cfcbde9c0a174b69f35824beae3eb7e5a5df0\
             67ad1af4626cf544531f518d0ee9c16e9782316da1b9ba09bb3fbdd99310ffd5b5bc4cdffd86b83544\
             e16a1faf236f7180771cfd09558ca0dd5c32",
            "9bea2204ac5ee51f3a7398352f136b5f828496d60eaa3a71b60974cd9928658f574b0ff01cedc08a76\
             b81ec972966adc81aca0b70f6d24bf4f67335ed05445196a7a25e5ea69151fbdee6ca100312af44d5b\
             5b0e1b571d404f55e5903da19388ac1b09db",
        ];
        for (prf, expected) in Prf::ALL.into_iter().zip(expected) {
            let expected = hex(expected);
            for len in [0, 1, 31, 32, 33, 64, 65, 100] {
                let out = prf.prf_plus(&[0x0b; 32], &[b"NiNr", &seed], len);
                assert_eq!(out.expose(), &expected[..len], "{prf} {len}");
            }
        }
    }

    #[test]
    fn prf_plus_reaches_255_blocks() {
        for prf in Prf::ALL {
            let len = 255 * prf.output_len();
            assert_eq!(prf.prf_plus(b"key", &[b"seed"], len).len(), len);
        }
    }

    #[test]
    #[should_panic(expected = "prf+ ends after 255 blocks")]
    fn prf_plus_does_not_wrap() {
        Prf::HmacSha2_256.prf_plus(b"key", &[b"seed"], 255 * 32 + 1);
    }
}

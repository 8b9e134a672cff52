//! A private key as its owner keeps it: read in whatever encoding, written in one.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use zeroize::Zeroizing;

use super::KeyKind;

/// A private key, wiped when dropped.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
    kind: KeyKind,
}

impl PrivateKey {
    /// From DER: PKCS#8, SEC1 or PKCS#1; `None` where it is none of these.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        // DER does not say in one place which kind and curve it is.
        let curves = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, KeyKind::EcdsaP256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, KeyKind::EcdsaP384),
            (&ECDSA_P521_SHA512_ASN1_SIGNING, KeyKind::EcdsaP521),
        ];
        for (curve, kind) in curves {
            let pair = EcdsaKeyPair::from_pkcs8(curve, der)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(curve, der));
            if let Ok(pair) = pair {
                return Some(Self {
                    pkcs8: Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec()),
                    public: pair.public_key().as_ref().to_vec(),
                    kind,
                });
            }
        }
        if let Ok(pair) = rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der)) {
            let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            return Some(Self {
                pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
                public: pair.public_key().as_ref().to_vec(),
                kind: KeyKind::Rsa {
                    bits: pair.public_modulus_len() * 8,
                },
            });
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        Some(Self {
            pkcs8: Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec()),
            public: pair.public_key().as_ref().to_vec(),
            kind: KeyKind::Ed25519,
        })
    }

    /// PKCS#8 (RFC 5208), whatever it was read from.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key as a certificate carries it: contents of subjectPublicKey.
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }
}

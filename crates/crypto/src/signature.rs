//! Signatures of IKE_AUTH: RFC 7296 method 1, RFC 4754 methods 9 to 11, RFC 7427 method 14, RFC 8420.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::der;

mod private;
mod scheme;

pub use private::PrivateKey;
pub use scheme::{HashAlgorithm, SignatureScheme};

/// What kind of key, as operators know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits, 2048 or more.
    Rsa {
        /// Length of the modulus.
        bits: usize,
    },
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// The schemes of method 14 that such a key signs with, those that most peers verify first.
    pub fn schemes(self) -> &'static [SignatureScheme] {
        use SignatureScheme::*;
        match self {
            // What verifies RSA at all verifies PKCS#1; docs/decisions/0006.
            Self::Rsa { .. } => &[
                RsaPkcs1Sha256,
                RsaPkcs1Sha384,
                RsaPkcs1Sha512,
                RsaPssSha256,
                RsaPssSha384,
                RsaPssSha512,
            ],
            Self::EcdsaP256 => &[EcdsaSha256],
            Self::EcdsaP384 => &[EcdsaSha384],
            Self::EcdsaP521 => &[EcdsaSha512],
            Self::Ed25519 => &[Ed25519],
        }
    }

    /// The method of its own, with its scheme, for peers that announced no hash: 1 for RSA, 9 to 11 for
    /// ECDSA. Ed25519 has none and needs method 14.
    pub fn legacy_method(self) -> Option<(u8, SignatureScheme)> {
        match self {
            Self::Rsa { .. } => Some((1, SignatureScheme::RsaPkcs1Sha256)),
            Self::EcdsaP256 => Some((9, SignatureScheme::EcdsaP256Fixed)),
            Self::EcdsaP384 => Some((10, SignatureScheme::EcdsaP384Fixed)),
            Self::EcdsaP521 => Some((11, SignatureScheme::EcdsaP521Fixed)),
            Self::Ed25519 => None,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// A key, signature or scheme that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The key cannot be read or is refused; the text says why.
    #[error("{0}")]
    Key(String),
    /// The scheme does not belong to the key.
    #[error("{scheme} does not work with an {kind} key")]
    Mismatch {
        /// The key.
        kind: KeyKind,
        /// The scheme.
        scheme: SignatureScheme,
    },
    /// The signature does not verify.
    #[error("the signature does not verify under the key of the certificate")]
    Invalid,
}

/// A private key.
pub struct SigningKey {
    kind: KeyKind,
    spki: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    /// Two views of one key, for its two encodings of signatures.
    Ecdsa {
        fixed: EcdsaKeyPair,
        der: EcdsaKeyPair,
    },
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// From PEM (PKCS#8, SEC1 or PKCS#1), of which the first private key counts. Encrypted keys are
    /// refused.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || pem.contains("Proc-Type: 4,ENCRYPTED")
        {
            return Err(encrypted());
        }
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map(Zeroizing::new).map_err(|error| {
            key_error(format!(
                "no private key found in the PEM text ({error}): expected a section \"PRIVATE KEY\", \
                 \"EC PRIVATE KEY\" or \"RSA PRIVATE KEY\""
            ))
        })?;
        Self::from_der(der.secret_der())
    }

    /// From DER: PKCS#8, SEC1 or PKCS#1.
    pub fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        let unreadable =
            || key_error("the private key is no PKCS#8, SEC1 or PKCS#1 structure in DER".into());
        let outer = der::whole(der::SEQUENCE, der).ok_or_else(unreadable)?;
        let (first, _, rest) = der::read(outer).ok_or_else(unreadable)?;
        if first == der::SEQUENCE {
            return Err(encrypted());
        }
        match der::read(rest).ok_or_else(unreadable)? {
            (der::INTEGER, _, _) => Self::rsa(der),
            (der::OCTET_STRING, _, _) => Self::ecdsa(der),
            (der::SEQUENCE, algorithm, rest) => {
                let (oid, _) = der::expect(der::OID, algorithm).ok_or_else(unreadable)?;
                match oid {
                    OID_RSA => {
                        let (key, _) =
                            der::expect(der::OCTET_STRING, rest).ok_or_else(unreadable)?;
                        Self::rsa(key)
                    }
                    OID_EC => Self::ecdsa(der),
                    OID_ED25519 => Self::ed25519(der),
                    other => Err(unknown_algorithm(other)),
                }
            }
            _ => Err(unreadable()),
        }
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key as DER SubjectPublicKeyInfo, to compare with a certificate's.
    pub fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }

    /// The signature of `message`.
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        use SignatureScheme::*;
        let mismatch = SignatureError::Mismatch {
            kind: self.kind,
            scheme,
        };
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn lc::RsaEncoding = match scheme {
                    RsaPkcs1Sha256 => &lc::RSA_PKCS1_SHA256,
                    RsaPkcs1Sha384 => &lc::RSA_PKCS1_SHA384,
                    RsaPkcs1Sha512 => &lc::RSA_PKCS1_SHA512,
                    RsaPssSha256 => &lc::RSA_PSS_SHA256,
                    RsaPssSha384 => &lc::RSA_PSS_SHA384,
                    RsaPssSha512 => &lc::RSA_PSS_SHA512,
                    _ => return Err(mismatch),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .map_err(|_| signing_failed())?;
                Ok(signature)
            }
            Pair::Ecdsa { fixed, der } => {
                let pair = match (self.kind, scheme) {
                    (KeyKind::EcdsaP256, EcdsaP256Fixed)
                    | (KeyKind::EcdsaP384, EcdsaP384Fixed)
                    | (KeyKind::EcdsaP521, EcdsaP521Fixed) => fixed,
                    (KeyKind::EcdsaP256, EcdsaSha256)
                    | (KeyKind::EcdsaP384, EcdsaSha384)
                    | (KeyKind::EcdsaP521, EcdsaSha512) => der,
                    _ => return Err(mismatch),
                };
                let signature = pair.sign(&random, message).map_err(|_| signing_failed())?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) if scheme == Ed25519 => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Ed25519(_) => Err(mismatch),
        }
    }

    fn rsa(pkcs1: &[u8]) -> Result<Self, SignatureError> {
        let unreadable = || key_error("the RSA private key is no PKCS#1 structure".into());
        let fields = der::whole(der::SEQUENCE, pkcs1).ok_or_else(unreadable)?;
        let (_version, fields) = der::expect(der::INTEGER, fields).ok_or_else(unreadable)?;
        let (modulus, _) = der::expect(der::INTEGER, fields).ok_or_else(unreadable)?;
        let bits = check_rsa_bits(modulus)?;
        let pair = RsaKeyPair::from_der(pkcs1)
            .map_err(|error| key_error(format!("the RSA private key is refused: {error}")))?;
        let spki = spki(pair.public_key())?;
        Ok(SigningKey {
            kind: KeyKind::Rsa { bits },
            spki,
            pair: Pair::Rsa(Box::new(pair)),
        })
    }

    /// The curve is the one under which the key reads.
    fn ecdsa(der: &[u8]) -> Result<Self, SignatureError> {
        let curves = [
            (
                KeyKind::EcdsaP256,
                &lc::ECDSA_P256_SHA256_FIXED_SIGNING,
                &lc::ECDSA_P256_SHA256_ASN1_SIGNING,
            ),
            (
                KeyKind::EcdsaP384,
                &lc::ECDSA_P384_SHA384_FIXED_SIGNING,
                &lc::ECDSA_P384_SHA384_ASN1_SIGNING,
            ),
            (
                KeyKind::EcdsaP521,
                &lc::ECDSA_P521_SHA512_FIXED_SIGNING,
                &lc::ECDSA_P521_SHA512_ASN1_SIGNING,
            ),
        ];
        for (kind, fixed, asn1) in curves {
            if let (Ok(fixed), Ok(der)) = (
                EcdsaKeyPair::from_private_key_der(fixed, der),
                EcdsaKeyPair::from_private_key_der(asn1, der),
            ) {
                let spki = spki(fixed.public_key())?;
                return Ok(SigningKey {
                    kind,
                    spki,
                    pair: Pair::Ecdsa { fixed, der },
                });
            }
        }
        Err(key_error(
            "the EC private key is damaged or on another curve: expected P-256, P-384 or P-521"
                .into(),
        ))
    }

    fn ed25519(pkcs8: &[u8]) -> Result<Self, SignatureError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|error| key_error(format!("the Ed25519 private key is refused: {error}")))?;
        let spki = spki(pair.public_key())?;
        Ok(SigningKey {
            kind: KeyKind::Ed25519,
            spki,
            pair: Pair::Ed25519(pair),
        })
    }
}

/// A public key, from a certificate.
pub struct VerifyingKey {
    kind: KeyKind,
    /// RSAPublicKey in DER, or the point, or the 32 octets of Ed25519.
    key: Vec<u8>,
}

impl VerifyingKey {
    /// From DER SubjectPublicKeyInfo.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, SignatureError> {
        let (algorithm, key) = split_spki(spki)
            .ok_or_else(|| key_error("the public key is no SubjectPublicKeyInfo in DER".into()))?;
        let malformed =
            || key_error("the AlgorithmIdentifier of the public key is malformed".into());
        let (oid, parameters) = der::expect(der::OID, algorithm).ok_or_else(malformed)?;
        let kind = match oid {
            OID_RSA => KeyKind::Rsa {
                bits: check_rsa_bits(
                    der::whole(der::SEQUENCE, key)
                        .and_then(|fields| der::expect(der::INTEGER, fields))
                        .ok_or_else(|| key_error("the RSA public key is malformed".into()))?
                        .0,
                )?,
            },
            OID_EC => match der::whole(der::OID, parameters) {
                Some(OID_P256) => KeyKind::EcdsaP256,
                Some(OID_P384) => KeyKind::EcdsaP384,
                Some(OID_P521) => KeyKind::EcdsaP521,
                _ => {
                    return Err(key_error(
                        "the EC public key is on another curve: expected P-256, P-384 or P-521"
                            .into(),
                    ));
                }
            },
            OID_ED25519 => KeyKind::Ed25519,
            other => return Err(unknown_algorithm(other)),
        };
        Self::from_parts(kind, key)
    }

    /// From the octets of the key alone: RSAPublicKey in DER, or the point, or the 32 octets of Ed25519.
    pub fn from_parts(kind: KeyKind, key: &[u8]) -> Result<Self, SignatureError> {
        let verifying = VerifyingKey {
            kind,
            key: key.to_vec(),
        };
        let scheme = kind.schemes().first().copied();
        let readable = scheme
            .and_then(|scheme| verifying.algorithm(scheme))
            .is_some_and(|algorithm| {
                lc::UnparsedPublicKey::new(algorithm, &verifying.key)
                    .parse()
                    .is_ok()
            });
        if readable {
            Ok(verifying)
        } else {
            Err(key_error(format!(
                "the {kind} public key is not a valid one"
            )))
        }
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether `signature` is this key's for `message`.
    ///
    /// It verifies SHA-1 too: the caller asks its policy first.
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let algorithm = self.algorithm(scheme).ok_or(SignatureError::Mismatch {
            kind: self.kind,
            scheme,
        })?;
        lc::UnparsedPublicKey::new(algorithm, &self.key)
            .verify(message, signature)
            .map_err(|_| SignatureError::Invalid)
    }

    fn algorithm(&self, scheme: SignatureScheme) -> Option<&'static dyn lc::VerificationAlgorithm> {
        use SignatureScheme::*;
        Some(match (self.kind, scheme) {
            (KeyKind::Rsa { .. }, RsaPkcs1Sha1) => {
                &lc::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY
            }
            (KeyKind::Rsa { .. }, RsaPkcs1Sha256) => &lc::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, RsaPkcs1Sha384) => &lc::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, RsaPkcs1Sha512) => &lc::RSA_PKCS1_2048_8192_SHA512,
            (KeyKind::Rsa { .. }, RsaPssSha256) => &lc::RSA_PSS_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, RsaPssSha384) => &lc::RSA_PSS_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, RsaPssSha512) => &lc::RSA_PSS_2048_8192_SHA512,
            (KeyKind::EcdsaP256, EcdsaP256Fixed) => &lc::ECDSA_P256_SHA256_FIXED,
            (KeyKind::EcdsaP384, EcdsaP384Fixed) => &lc::ECDSA_P384_SHA384_FIXED,
            (KeyKind::EcdsaP521, EcdsaP521Fixed) => &lc::ECDSA_P521_SHA512_FIXED,
            (KeyKind::EcdsaP256, EcdsaSha256) => &lc::ECDSA_P256_SHA256_ASN1,
            (KeyKind::EcdsaP256, EcdsaSha384) => &lc::ECDSA_P256_SHA384_ASN1,
            (KeyKind::EcdsaP256, EcdsaSha512) => &lc::ECDSA_P256_SHA512_ASN1,
            (KeyKind::EcdsaP384, EcdsaSha256) => &lc::ECDSA_P384_SHA256_ASN1,
            (KeyKind::EcdsaP384, EcdsaSha384) => &lc::ECDSA_P384_SHA384_ASN1,
            (KeyKind::EcdsaP384, EcdsaSha512) => &lc::ECDSA_P384_SHA512_ASN1,
            (KeyKind::EcdsaP521, EcdsaSha256) => &lc::ECDSA_P521_SHA256_ASN1,
            (KeyKind::EcdsaP521, EcdsaSha384) => &lc::ECDSA_P521_SHA384_ASN1,
            (KeyKind::EcdsaP521, EcdsaSha512) => &lc::ECDSA_P521_SHA512_ASN1,
            (KeyKind::Ed25519, Ed25519) => &lc::ED25519,
            _ => return None,
        })
    }
}

const OID_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const OID_EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const OID_ED25519: &[u8] = b"\x2b\x65\x70";
const OID_P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const OID_P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const OID_P521: &[u8] = b"\x2b\x81\x04\x00\x23";

/// The contents of the AlgorithmIdentifier, and the octets of the key.
fn split_spki(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let fields = der::whole(der::SEQUENCE, spki)?;
    let (algorithm, rest) = der::expect(der::SEQUENCE, fields)?;
    let key = der::whole(der::BIT_STRING, rest)?.strip_prefix(&[0])?;
    Some((algorithm, key))
}

fn check_rsa_bits(modulus: &[u8]) -> Result<usize, SignatureError> {
    match der::integer_bits(modulus) {
        bits @ 2048..=8192 => Ok(bits),
        bits => Err(key_error(format!(
            "the RSA key has {bits} bits: expected 2048 to 8192"
        ))),
    }
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<Vec<u8>, SignatureError> {
    let der = key
        .as_der()
        .map_err(|_| key_error("the public key cannot be encoded".into()))?;
    Ok(der.as_ref().to_vec())
}

fn key_error(text: String) -> SignatureError {
    SignatureError::Key(text)
}

fn encrypted() -> SignatureError {
    key_error(
        "the private key is encrypted: store it without a passphrase (openssl pkey -in key.pem -out \
         plain.pem) in a file that only root can read"
            .into(),
    )
}

fn unknown_algorithm(oid: &[u8]) -> SignatureError {
    key_error(format!(
        "a key of an unknown algorithm (object identifier, DER octets {oid:02x?}): expected RSA, ECDSA on \
         P-256, P-384 or P-521, or Ed25519"
    ))
}

fn signing_failed() -> SignatureError {
    key_error("the signing library failed with this key".into())
}

#[cfg(test)]
mod tests;

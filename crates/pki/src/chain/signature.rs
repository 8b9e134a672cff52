//! Signatures of certificates and CRLs: which algorithms count, and whether one is right.

use cygnet_crypto::signature::{KeyKind, SignatureScheme, VerifyingKey};
use x509_parser::{
    prelude::{AlgorithmIdentifier, FromDer, SubjectPublicKeyInfo},
    signature_algorithm::RsaSsaPssParams,
};

use crate::der::{self, Reader, tag};

use super::{Certificate, ChainError, certificate::strip_zeros};

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is not the signature of this key.
    Wrong,
    /// The algorithm or key is not accepted: its name.
    Unsupported(String),
}

/// Checks that `issuer`'s key signed `certificate`.
pub(super) fn check_certificate(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
) -> Result<(), ChainError> {
    check_signed(certificate.der, issuer).map_err(|flaw| match flaw {
        Flaw::Wrong => ChainError::BadSignature {
            subject: certificate.subject_text(),
            issuer: issuer.subject_text(),
        },
        Flaw::Unsupported(algorithm) => ChainError::UnsupportedSignature {
            subject: certificate.subject_text(),
            algorithm,
        },
    })
}

/// Checks a `SEQUENCE { toBeSigned, algorithm, signature }`, which certificates and CRLs are.
pub(super) fn check_signed(signed: &[u8], issuer: &Certificate<'_>) -> Result<(), Flaw> {
    check_signed_by(signed, &issuer.x509.tbs_certificate.subject_pki)
}

/// The same by a key alone: signing requests are of this form, too.
pub(crate) fn check_signed_by(signed: &[u8], key: &SubjectPublicKeyInfo<'_>) -> Result<(), Flaw> {
    const BIT_STRING: u8 = 0x03;
    let mut parts = Reader::new(
        der::single(signed, tag::SEQUENCE)
            .ok_or(Flaw::Wrong)?
            .content,
    );
    let (Some(data), Some(algorithm), Some(value)) = (
        parts.expect(tag::SEQUENCE),
        parts.expect(tag::SEQUENCE),
        parts.expect(BIT_STRING),
    ) else {
        return Err(Flaw::Wrong);
    };
    // Signatures are whole bytes: no unused bits.
    let Some((0, value)) = value.content.split_first() else {
        return Err(Flaw::Wrong);
    };
    let (_, algorithm) = AlgorithmIdentifier::from_der(algorithm.whole).map_err(|_| Flaw::Wrong)?;
    let (kind, scheme) = verification(&algorithm, key)?;
    VerifyingKey::from_parts(kind, &key.subject_public_key.data)
        .and_then(|key| key.verify(scheme, data.whole, value))
        .map_err(|_| Flaw::Wrong)
}

/// The kind of a key, and the scheme that a signature algorithm means with it.
fn verification(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &SubjectPublicKeyInfo<'_>,
) -> Result<(KeyKind, SignatureScheme), Flaw> {
    use SignatureScheme::*;
    let oid = algorithm.algorithm.to_id_string();
    let unsupported = |name: &str| Err(Flaw::Unsupported(name.into()));
    Ok(match oid.as_str() {
        "1.2.840.113549.1.1.11" => (rsa(key)?, RsaPkcs1Sha256),
        "1.2.840.113549.1.1.12" => (rsa(key)?, RsaPkcs1Sha384),
        "1.2.840.113549.1.1.13" => (rsa(key)?, RsaPkcs1Sha512),
        "1.2.840.113549.1.1.10" => match pss_hash(algorithm).as_deref() {
            Some("2.16.840.1.101.3.4.2.1") => (rsa(key)?, RsaPssSha256),
            Some("2.16.840.1.101.3.4.2.2") => (rsa(key)?, RsaPssSha384),
            Some("2.16.840.1.101.3.4.2.3") => (rsa(key)?, RsaPssSha512),
            _ => return unsupported("RSA-PSS with an unknown, weak or mixed hash"),
        },
        "1.2.840.10045.4.3.2" => (ecdsa(key)?, EcdsaSha256),
        "1.2.840.10045.4.3.3" => (ecdsa(key)?, EcdsaSha384),
        "1.2.840.10045.4.3.4" => (ecdsa(key)?, EcdsaSha512),
        ED25519 if key.algorithm.algorithm.to_id_string() == ED25519 => (KeyKind::Ed25519, Ed25519),
        ED25519 => return Err(Flaw::Wrong),
        "1.2.840.113549.1.1.4" => return unsupported("RSA with MD5"),
        "1.2.840.113549.1.1.5" => return unsupported("RSA with SHA-1"),
        "1.2.840.10045.4.1" => return unsupported("ECDSA with SHA-1"),
        "1.3.101.113" => return unsupported("Ed448"),
        other => return unsupported(other),
    })
}

const ED25519: &str = "1.3.101.112";

/// The hash of RSASSA-PSS parameters (RFC 4055 §3.1), when the mask uses the same and the salt is as long.
fn pss_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<String> {
    let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
    let hash = parameters.hash_algorithm_oid().to_id_string();
    let mask = parameters.mask_gen_algorithm().ok()?;
    let length = match hash.as_str() {
        "2.16.840.1.101.3.4.2.1" => 32,
        "2.16.840.1.101.3.4.2.2" => 48,
        "2.16.840.1.101.3.4.2.3" => 64,
        _ => return None,
    };
    let same = mask.mgf.to_id_string() == "1.2.840.113549.1.1.8"
        && mask.hash.to_id_string() == hash
        && parameters.salt_length() == length
        && parameters.trailer_field() == 1;
    same.then_some(hash)
}

fn rsa(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, Flaw> {
    let kind = key.algorithm.algorithm.to_id_string();
    if !["1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"].contains(&kind.as_str()) {
        return Err(Flaw::Wrong);
    }
    let bits = der::single(&key.subject_public_key.data, tag::SEQUENCE)
        .and_then(|key| Reader::new(key.content).expect(tag::INTEGER))
        .map(|modulus| strip_zeros(modulus.content))
        .and_then(|modulus| Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize))
        .ok_or(Flaw::Wrong)?;
    match bits {
        2048..=8192 => Ok(KeyKind::Rsa { bits }),
        _ => Err(Flaw::Unsupported(format!("an RSA key of {bits} bits"))),
    }
}

fn ecdsa(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, Flaw> {
    if key.algorithm.algorithm.to_id_string() != "1.2.840.10045.2.1" {
        return Err(Flaw::Wrong);
    }
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|it| it.as_oid().ok())
        .map(|oid| oid.to_id_string());
    match curve.as_deref() {
        Some("1.2.840.10045.3.1.7") => Ok(KeyKind::EcdsaP256),
        Some("1.3.132.0.34") => Ok(KeyKind::EcdsaP384),
        Some("1.3.132.0.35") => Ok(KeyKind::EcdsaP521),
        other => Err(Flaw::Unsupported(format!(
            "ECDSA on curve {}",
            other.unwrap_or("with explicit parameters")
        ))),
    }
}

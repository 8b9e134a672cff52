//! Signatures of certificates and CRLs: which algorithms count, and whether one is right.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    prelude::{AlgorithmIdentifier, FromDer, SubjectPublicKeyInfo},
    signature_algorithm::RsaSsaPssParams,
};

use crate::der::{self, Reader, tag};

use super::{Certificate, ChainError, certificate::strip_zeros};

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
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
    let key = &issuer.x509.tbs_certificate.subject_pki;
    let verification = verification(&algorithm, key)?;
    UnparsedPublicKey::new(verification, &key.subject_public_key.data)
        .verify(data.whole, value)
        .map_err(|_| Flaw::Wrong)
}

/// The verification algorithm for a signature algorithm and a key.
fn verification(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &SubjectPublicKeyInfo<'_>,
) -> Result<&'static dyn VerificationAlgorithm, Flaw> {
    let oid = algorithm.algorithm.to_id_string();
    let unsupported = |name: &str| Err(Flaw::Unsupported(name.into()));
    let found: &dyn VerificationAlgorithm = match oid.as_str() {
        "1.2.840.113549.1.1.11" => rsa(key, &signature::RSA_PKCS1_2048_8192_SHA256)?,
        "1.2.840.113549.1.1.12" => rsa(key, &signature::RSA_PKCS1_2048_8192_SHA384)?,
        "1.2.840.113549.1.1.13" => rsa(key, &signature::RSA_PKCS1_2048_8192_SHA512)?,
        "1.2.840.113549.1.1.10" => match pss_hash(algorithm).as_deref() {
            Some("2.16.840.1.101.3.4.2.1") => rsa(key, &signature::RSA_PSS_2048_8192_SHA256)?,
            Some("2.16.840.1.101.3.4.2.2") => rsa(key, &signature::RSA_PSS_2048_8192_SHA384)?,
            Some("2.16.840.1.101.3.4.2.3") => rsa(key, &signature::RSA_PSS_2048_8192_SHA512)?,
            _ => return unsupported("RSA-PSS with an unknown, weak or mixed hash"),
        },
        "1.2.840.10045.4.3.2" => ecdsa(
            key,
            [
                &signature::ECDSA_P256_SHA256_ASN1,
                &signature::ECDSA_P384_SHA256_ASN1,
                &signature::ECDSA_P521_SHA256_ASN1,
            ],
        )?,
        "1.2.840.10045.4.3.3" => ecdsa(
            key,
            [
                &signature::ECDSA_P256_SHA384_ASN1,
                &signature::ECDSA_P384_SHA384_ASN1,
                &signature::ECDSA_P521_SHA384_ASN1,
            ],
        )?,
        "1.2.840.10045.4.3.4" => ecdsa(
            key,
            [
                &signature::ECDSA_P256_SHA512_ASN1,
                &signature::ECDSA_P384_SHA512_ASN1,
                &signature::ECDSA_P521_SHA512_ASN1,
            ],
        )?,
        ED25519 if key.algorithm.algorithm.to_id_string() == ED25519 => &signature::ED25519,
        ED25519 => return Err(Flaw::Wrong),
        "1.2.840.113549.1.1.4" => return unsupported("RSA with MD5"),
        "1.2.840.113549.1.1.5" => return unsupported("RSA with SHA-1"),
        "1.2.840.10045.4.1" => return unsupported("ECDSA with SHA-1"),
        "1.3.101.113" => return unsupported("Ed448"),
        other => return unsupported(other),
    };
    Ok(found)
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

fn rsa(
    key: &SubjectPublicKeyInfo<'_>,
    with: &'static dyn VerificationAlgorithm,
) -> Result<&'static dyn VerificationAlgorithm, Flaw> {
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
        2048..=8192 => Ok(with),
        _ => Err(Flaw::Unsupported(format!("an RSA key of {bits} bits"))),
    }
}

fn ecdsa(
    key: &SubjectPublicKeyInfo<'_>,
    [p256, p384, p521]: [&'static dyn VerificationAlgorithm; 3],
) -> Result<&'static dyn VerificationAlgorithm, Flaw> {
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
        Some("1.2.840.10045.3.1.7") => Ok(p256),
        Some("1.3.132.0.34") => Ok(p384),
        Some("1.3.132.0.35") => Ok(p521),
        other => Err(Flaw::Unsupported(format!(
            "ECDSA on curve {}",
            other.unwrap_or("with explicit parameters")
        ))),
    }
}

//! Proof of identity (RFC 7296 §2.15): what is signed, how, and whether the peer's proof holds.

use cygnet_crypto::Secret;
use cygnet_crypto::signature::{HashAlgorithm, KeyKind, SignatureScheme, VerifyingKey};
use cygnet_crypto::suite::Prf;
use cygnet_wire::EmitError;
use cygnet_wire::auth::{AuthMethod, AuthPayload, DigitalSignature};
use cygnet_wire::id::IdPayload;
use cygnet_wire::notify::{self, NotifyPayload};
use thiserror::Error;

/// The hashes we verify signatures with, for SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4). SHA-1 is
/// never announced: a peer that signs with it does so for want of anything better.
pub const ANNOUNCED_HASHES: [HashAlgorithm; 4] = [
    HashAlgorithm::Sha2_256,
    HashAlgorithm::Sha2_384,
    HashAlgorithm::Sha2_512,
    HashAlgorithm::Identity,
];

/// How we sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signing {
    /// What the AUTH payload says.
    pub method: AuthMethod,
    /// What the holder of the private key does.
    pub scheme: SignatureScheme,
}

/// Our key and the peer have no signature scheme in common.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "a {key:?} key cannot sign for this peer, which {}: use a key of another kind",
    match hashes {
        Some(hashes) => format!("verifies signatures with {hashes:?} only"),
        None => "does not know RFC 7427".to_owned(),
    }
)]
pub struct NoScheme {
    /// Our key.
    pub key: KeyKind,
    /// What the peer announced; `None`: nothing.
    pub hashes: Option<Vec<HashAlgorithm>>,
}

/// The peer's proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// A method this side does not know or the connection does not allow.
    #[error("the peer proves itself by {got}, expected {expected}")]
    Method {
        /// What it used.
        got: AuthMethod,
        /// What the connection wants.
        expected: &'static str,
    },
    /// A signature algorithm this side refuses.
    #[error("the peer signs with {0}")]
    Scheme(String),
    /// The public key cannot be used.
    #[error("the key of the peer's certificate cannot be used: {0}")]
    Key(String),
    /// It is somebody else, or the messages were altered.
    #[error(
        "the peer's signature does not verify: it has not got the certificate's private key, or IKE_SA_INIT was altered on the way"
    )]
    Signature,
    /// It has another key.
    #[error(
        "the peer's proof does not match the pre-shared key: make sure that both ends have the same key and identities"
    )]
    PreSharedKey,
}

/// What a side proves: its first message | the other's nonce | prf(SK_p, ID payload's body).
/// `message` is that side's IKE_SA_INIT message, the last one where there were several, from the
/// header on, without non-ESP marker. `sk_p` and `id` are that side's too.
pub fn signed_octets(
    prf: Prf,
    message: &[u8],
    other_nonce: &[u8],
    sk_p: &Secret,
    id: &IdPayload,
) -> Vec<u8> {
    let maced_id = prf.compute(sk_p.expose(), &[&id.body()]);
    [message, other_nonce, maced_id.expose()].concat()
}

/// The SIGNATURE_HASH_ALGORITHMS notification.
pub fn announce_hashes() -> NotifyPayload<'static> {
    NotifyPayload::signature_hash_algorithms(
        &ANNOUNCED_HASHES.map(|hash| notify::HashAlgorithm(hash.to_wire())),
    )
}

/// The hashes a peer announces, as far as this side knows them.
pub fn announced_hashes(notify: &NotifyPayload<'_>) -> Vec<HashAlgorithm> {
    let mut hashes: Vec<_> = notify
        .hash_algorithms()
        .filter_map(|hash| HashAlgorithm::from_wire(hash.0))
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// How a key of this kind signs for a peer that announced `hashes` (`None`: it sent no
/// SIGNATURE_HASH_ALGORITHMS, so the method of RFC 7296 or RFC 4754 is used).
pub fn choose_scheme(key: KeyKind, hashes: Option<&[HashAlgorithm]>) -> Result<Signing, NoScheme> {
    let modern = hashes.and_then(|hashes| {
        let scheme = key
            .schemes()
            .iter()
            .find(|scheme| hashes.contains(&scheme.hash()))?;
        Some(Signing {
            method: AuthMethod::DIGITAL_SIGNATURE,
            scheme: *scheme,
        })
    });
    let classic = || {
        let (method, scheme) = key.legacy_method()?;
        Some(Signing {
            method: AuthMethod(method),
            scheme,
        })
    };
    modern.or_else(classic).ok_or_else(|| NoScheme {
        key,
        hashes: hashes.map(<[_]>::to_vec),
    })
}

/// The AUTH payload with our signature.
pub fn signature_payload(
    signing: Signing,
    signature: &[u8],
) -> Result<AuthPayload<'static>, EmitError> {
    let data = match signing.scheme.algorithm_identifier() {
        Some(algorithm) if signing.method == AuthMethod::DIGITAL_SIGNATURE => DigitalSignature {
            algorithm,
            signature,
        }
        .emit()?,
        _ => signature.to_vec(),
    };
    Ok(AuthPayload::new(signing.method, data))
}

/// The AUTH payload with our MAC, from a pre-shared key or an EAP key.
pub fn mac_payload(mac: &Secret) -> AuthPayload<'static> {
    AuthPayload::new(AuthMethod::SHARED_KEY_MIC, mac.expose().to_vec())
}

/// Whether the peer's signature over `octets` is by the key `spki` (SubjectPublicKeyInfo, DER) that
/// its certificate vouches for. `allow_sha1` is the connection's; without it, SHA-1 is refused.
pub fn verify_signature(
    auth: &AuthPayload<'_>,
    spki: &[u8],
    octets: &[u8],
    allow_sha1: bool,
) -> Result<(), AuthError> {
    let data = auth.data.as_ref();
    let (schemes, signature) = match auth.method {
        AuthMethod::RSA_DIGITAL_SIGNATURE => {
            // The hash is inside the signature; RFC 7296 §3.8 suggests SHA-1, peers that know
            // better use another.
            let schemes = [
                SignatureScheme::RsaPkcs1Sha256,
                SignatureScheme::RsaPkcs1Sha384,
                SignatureScheme::RsaPkcs1Sha512,
                SignatureScheme::RsaPkcs1Sha1,
            ];
            (schemes.to_vec(), data)
        }
        AuthMethod::DIGITAL_SIGNATURE => {
            let parsed = DigitalSignature::parse(data)
                .map_err(|error| AuthError::Scheme(error.to_string()))?;
            let scheme = SignatureScheme::from_algorithm_identifier(parsed.algorithm)
                .ok_or_else(|| AuthError::Scheme(unknown_algorithm(parsed.algorithm)))?;
            if scheme == SignatureScheme::RsaPkcs1Sha1 && !allow_sha1 {
                return Err(AuthError::Scheme(
                    "SHA-1, which the connection does not allow".into(),
                ));
            }
            (vec![scheme], parsed.signature)
        }
        method => match SignatureScheme::from_auth_method(method.0) {
            Some(scheme) => (vec![scheme], data),
            None => {
                return Err(AuthError::Method {
                    got: method,
                    expected: "a signature",
                });
            }
        },
    };
    let key =
        VerifyingKey::from_spki_der(spki).map_err(|error| AuthError::Key(error.to_string()))?;
    let verifies = |scheme| key.verify(scheme, octets, signature).is_ok();
    match schemes.into_iter().find(|scheme| verifies(*scheme)) {
        Some(SignatureScheme::RsaPkcs1Sha1) if !allow_sha1 => Err(AuthError::Scheme(
            "RSA and SHA-1, which the connection does not allow; if the peer knows nothing better, allow it for this peer".into(),
        )),
        Some(_) => Ok(()),
        None => Err(AuthError::Signature),
    }
}

/// Whether the peer's MAC is `expected`, which the holder of the pre-shared key has computed over
/// the peer's signed octets.
pub fn verify_mac(auth: &AuthPayload<'_>, expected: &Secret) -> Result<(), AuthError> {
    if auth.method != AuthMethod::SHARED_KEY_MIC {
        return Err(AuthError::Method {
            got: auth.method,
            expected: "a pre-shared key",
        });
    }
    if expected.ct_eq(&auth.data) {
        Ok(())
    } else {
        Err(AuthError::PreSharedKey)
    }
}

fn unknown_algorithm(der: &[u8]) -> String {
    let hex: String = der
        .iter()
        .take(32)
        .map(|octet| format!("{octet:02x}"))
        .collect();
    format!("an algorithm this side does not know (AlgorithmIdentifier {hex})")
}

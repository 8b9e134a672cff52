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
    "a {key} key cannot sign for this peer, which {}: use a key of another kind",
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
/// SIGNATURE_HASH_ALGORITHMS, so the method of RFC 7296 or RFC 4754 is used). With `pss`, an RSA key
/// signs by RSASSA-PSS wherever method 14 is known: nothing tells what paddings a peer verifies.
pub fn choose_scheme(
    key: KeyKind,
    pss: bool,
    hashes: Option<&[HashAlgorithm]>,
) -> Result<Signing, NoScheme> {
    let modern = hashes.and_then(|hashes| {
        let announced = |scheme: &&SignatureScheme| hashes.contains(&scheme.hash());
        let mut schemes = key.schemes().iter().filter(announced);
        let scheme = match pss {
            true => (schemes.clone().find(|scheme| scheme.is_pss())).or_else(|| schemes.next())?,
            false => schemes.next()?,
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use cygnet_crypto::psk::psk_auth;
    use cygnet_crypto::signature::SigningKey;
    use cygnet_wire::id::Identification;

    const OCTETS: &[u8] = b"what is signed";

    // Keys made by openssl genpkey for these tests, the two signatures of OCTETS under the RSA key
    // by openssl dgst -sha1 and -sha512 -sign.
    const SHA1_SIGNATURE: &str = "242b40c215c063045cb2f73d3b89c5531ea2afecb4b270f0032fea5f21ea56832c8437511313a896ffd39404865233fc9fefa418daab3e2336475653815ca86554f2d84593af226bfb6fef850ef1e1fd48b447b7c732ae586f87bf65a36dc4ef5de076c241ea60d1d5a4a1798b5be81da6cf0afe46d1c705e61cd9fe3570c95a22eda6d32c9ea69cadab5ce8217078284307141dbd0b82f2f54e67dfd9c8db5a43d84da61a7ae913af9782b96283389babf469b2609bf3132487237fc7e3be8f53a56300bcbd6a52dcd1f0ce9e0be310e0b7b927b7e4e75ffc3e5651a5fcd438c20a1da38c05a03b8c5e2762cff54c1bc6deb4782c4d57eb033e2af847a418f7";
    const SHA512_SIGNATURE: &str = "131ce2829866789b6585332066209915a4f9a78a95f8f35b9ff8bbe2ea4077bff3ad59353cb8dc4d0a5bc38280a45a1d55e31d09cf4436f1083ec70bbabe0be553280a434622fa0023a006eadab3b1e85eef84ee7539b2df7baf91bada9b4ef87bcb7c64044e9f5d80b03eca9152d0d7d7fc14182bad666a180cd9b31b71eec850f0943c8a3ccdc4cbb594be1437454126245f81758cf80354e311622d46637cab7b022cd308f48433cdc9b44292680215a2930f2c4fac7afcd790499f958f9b1a47b1a79e1ece2d6943cec907c35dd15f78f65e618b9bec56d75540ab761af7706df060b1b763e07fd3d22f4745a2fe6e872491fa63248bdfab71330e14ecc5";

    fn ed25519() -> SigningKey {
        SigningKey::from_pem(include_str!("auth/testdata/ed25519.pem")).unwrap()
    }

    fn p256() -> SigningKey {
        SigningKey::from_pem(include_str!("auth/testdata/p256.pem")).unwrap()
    }

    fn rsa() -> SigningKey {
        SigningKey::from_pem(include_str!("auth/testdata/rsa2048.pem")).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn sign(key: &SigningKey, hashes: Option<&[HashAlgorithm]>) -> AuthPayload<'static> {
        let signing = choose_scheme(key.kind(), false, hashes).unwrap();
        let signature = key.sign(signing.scheme, OCTETS).unwrap();
        signature_payload(signing, &signature).unwrap()
    }

    #[test]
    fn every_key_proves_itself_to_modern_and_classic_peers() {
        let all = Some(&ANNOUNCED_HASHES[..]);
        for (key, hashes, method) in [
            (ed25519(), all, AuthMethod::DIGITAL_SIGNATURE),
            (p256(), all, AuthMethod::DIGITAL_SIGNATURE),
            (rsa(), all, AuthMethod::DIGITAL_SIGNATURE),
            (p256(), None, AuthMethod::ECDSA_SHA256_P256),
            (rsa(), None, AuthMethod::RSA_DIGITAL_SIGNATURE),
        ] {
            let auth = sign(&key, hashes);
            assert_eq!(auth.method, method);
            let spki = key.public_key_spki();
            assert_eq!(verify_signature(&auth, spki, OCTETS, false), Ok(()));
            assert_eq!(
                verify_signature(&auth, spki, b"something else", false),
                Err(AuthError::Signature)
            );
            let mut altered = auth.clone();
            let last = altered.data.to_mut().last_mut().unwrap();
            *last ^= 1;
            assert_eq!(
                verify_signature(&altered, spki, OCTETS, false),
                Err(AuthError::Signature)
            );
        }
    }

    #[test]
    fn a_signature_of_another_key_does_not_verify() {
        let auth = sign(&p256(), None);
        assert_eq!(
            verify_signature(&auth, rsa().public_key_spki(), OCTETS, true),
            Err(AuthError::Signature)
        );
        assert!(matches!(
            verify_signature(&auth, b"no key", OCTETS, true),
            Err(AuthError::Key(_))
        ));
    }

    /// RFC 7427 §4: only hashes the peer has announced; without any in common, the method of the
    /// key's own.
    #[test]
    fn the_hash_is_one_the_peer_announced() {
        let rsa_kind = rsa().kind();
        let scheme = |hashes: &[_]| choose_scheme(rsa_kind, false, Some(hashes)).unwrap();
        assert_eq!(
            scheme(&[HashAlgorithm::Sha2_512]).scheme.hash(),
            HashAlgorithm::Sha2_512
        );
        assert_eq!(
            scheme(&[HashAlgorithm::Identity]).method,
            AuthMethod::RSA_DIGITAL_SIGNATURE
        );
        let error = choose_scheme(KeyKind::Ed25519, false, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a Ed25519 key cannot sign for this peer, which does not know RFC 7427: \
             use a key of another kind"
        );
        assert!(choose_scheme(KeyKind::Ed25519, false, Some(&[HashAlgorithm::Sha2_256])).is_err());
    }

    /// docs/decisions/0006.
    #[test]
    fn rsa_signs_by_the_padding_that_all_verify_unless_told_otherwise() {
        let all = Some(&ANNOUNCED_HASHES[..]);
        let scheme = |pss, hashes| choose_scheme(rsa().kind(), pss, hashes).unwrap();
        assert_eq!(scheme(false, all).scheme, SignatureScheme::RsaPkcs1Sha256);
        assert_eq!(scheme(true, all).scheme, SignatureScheme::RsaPssSha256);
        let sha512 = Some(&[HashAlgorithm::Sha2_512][..]);
        assert_eq!(scheme(true, sha512).scheme, SignatureScheme::RsaPssSha512);
        // Without RFC 7427 there is but one.
        assert_eq!(scheme(true, None).method, AuthMethod::RSA_DIGITAL_SIGNATURE);
        let other = choose_scheme(p256().kind(), true, all).unwrap();
        assert_eq!(other.scheme, SignatureScheme::EcdsaSha256);
        for pss in [false, true] {
            let signing = scheme(pss, all);
            let signature = rsa().sign(signing.scheme, OCTETS).unwrap();
            let auth = signature_payload(signing, &signature).unwrap();
            let verdict = verify_signature(&auth, rsa().public_key_spki(), OCTETS, false);
            assert_eq!(verdict, Ok(()));
        }
    }

    #[test]
    fn method_1_holds_with_any_hash_and_with_sha1_only_where_allowed() {
        let key = rsa();
        let verify = |hex, allow_sha1| {
            let auth = AuthPayload::new(AuthMethod::RSA_DIGITAL_SIGNATURE, unhex(hex));
            verify_signature(&auth, key.public_key_spki(), OCTETS, allow_sha1)
        };
        assert_eq!(verify(SHA512_SIGNATURE, false), Ok(()));
        assert_eq!(verify(SHA1_SIGNATURE, true), Ok(()));
        let error = verify(SHA1_SIGNATURE, false).unwrap_err();
        assert!(error.to_string().contains("SHA-1"), "{error}");
    }

    #[test]
    fn method_14_with_sha1_is_refused_unless_allowed() {
        let algorithm = SignatureScheme::RsaPkcs1Sha1
            .algorithm_identifier()
            .unwrap();
        let data = DigitalSignature {
            algorithm,
            signature: &unhex(SHA1_SIGNATURE),
        };
        let auth = AuthPayload::new(AuthMethod::DIGITAL_SIGNATURE, data.emit().unwrap());
        let verify = |allow| verify_signature(&auth, rsa().public_key_spki(), OCTETS, allow);
        assert_eq!(verify(true), Ok(()));
        assert!(matches!(verify(false), Err(AuthError::Scheme(_))));
    }

    #[test]
    fn what_is_no_signature_is_refused_with_its_name() {
        let spki = rsa().public_key_spki().to_vec();
        let verify = |method, data: &'static [u8]| {
            verify_signature(&AuthPayload::new(method, data), &spki, OCTETS, true)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            verify(AuthMethod::SHARED_KEY_MIC, b"mac"),
            "the peer proves itself by SHARED_KEY_MIC, expected a signature"
        );
        assert!(verify(AuthMethod::DIGITAL_SIGNATURE, b"\x02\x05\x00rest").contains("0500"));
        assert!(verify(AuthMethod::DIGITAL_SIGNATURE, b"\xff").contains("cut off"));
        assert!(verify(AuthMethod::DIGITAL_SIGNATURE, b"").contains("cut off"));
    }

    #[test]
    fn a_mac_holds_under_the_same_key_alone() {
        let mac = |secret: &[u8]| psk_auth(Prf::HmacSha2_256, secret, OCTETS);
        let auth = mac_payload(&mac(b"secret"));
        assert_eq!(verify_mac(&auth, &mac(b"secret")), Ok(()));
        assert_eq!(
            verify_mac(&auth, &mac(b"wrong")),
            Err(AuthError::PreSharedKey)
        );
        let signature = AuthPayload::new(AuthMethod::DIGITAL_SIGNATURE, &b"x"[..]);
        assert!(matches!(
            verify_mac(&signature, &mac(b"secret")),
            Err(AuthError::Method { .. })
        ));
    }

    /// The last part was computed with Python's hmac: HMAC-SHA-256 under 32 zero octets of
    /// 02 00 00 00 "vpn.example.org".
    #[test]
    fn the_octets_are_message_nonce_and_identity() {
        let id = IdPayload::new(Identification::fqdn("vpn.example.org"));
        let sk_p = Secret::new(vec![0; 32]);
        let octets = signed_octets(Prf::HmacSha2_256, b"message", b"nonce", &sk_p, &id);
        let maced = "d8716744da4b763336ca5c98c0c1b07b1bb9d95ed2e1ba24f86533f74af45bd8";
        assert_eq!(octets, [b"message", &b"nonce"[..], &unhex(maced)].concat());
        // RFC 7296 §2.15: the reserved octets are covered as they were sent.
        let odd = IdPayload {
            reserved: [1, 0, 0],
            ..id
        };
        assert_ne!(
            signed_octets(Prf::HmacSha2_256, b"message", b"nonce", &sk_p, &odd),
            octets
        );
    }

    #[test]
    fn what_is_announced_is_understood() {
        let mut announced = announced_hashes(&announce_hashes());
        announced.sort_unstable();
        assert_eq!(announced, ANNOUNCED_HASHES);
        let odd = NotifyPayload::signature_hash_algorithms(&[
            notify::HashAlgorithm(99),
            notify::HashAlgorithm::SHA2_256,
            notify::HashAlgorithm::SHA2_256,
        ]);
        assert_eq!(announced_hashes(&odd), [HashAlgorithm::Sha2_256]);
    }
}

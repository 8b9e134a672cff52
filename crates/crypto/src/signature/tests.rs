use super::*;
use crate::testing::{cases, hex};

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("../../vectors/keys/", $name, ".pem"))
    };
}

fn signing(pem: &str) -> SigningKey {
    SigningKey::from_pem(pem).unwrap_or_else(|error| panic!("{error}"))
}

fn verifying(key: &SigningKey) -> VerifyingKey {
    VerifyingKey::from_spki_der(key.public_key_spki()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(pem: &str) -> String {
    SigningKey::from_pem(pem)
        .err()
        .expect("the key is refused")
        .to_string()
}

/// (kind, private keys in every format, public key as OpenSSL writes it)
fn keys() -> Vec<(KeyKind, Vec<&'static str>, &'static str)> {
    vec![
        (
            KeyKind::Rsa { bits: 2048 },
            vec![key!("rsa-pkcs8"), key!("rsa-pkcs1")],
            key!("rsa-public"),
        ),
        (
            KeyKind::EcdsaP256,
            vec![key!("p256-pkcs8"), key!("p256-sec1")],
            key!("p256-public"),
        ),
        (
            KeyKind::EcdsaP384,
            vec![key!("p384-pkcs8"), key!("p384-sec1")],
            key!("p384-public"),
        ),
        (
            KeyKind::EcdsaP521,
            vec![key!("p521-pkcs8"), key!("p521-sec1")],
            key!("p521-public"),
        ),
        (KeyKind::Ed25519, vec![key!("ed-pkcs8")], key!("ed-public")),
    ]
}

#[test]
fn every_format_of_a_key_reads_as_the_same_key() {
    for (kind, private, public) in keys() {
        let public = rustls_pki_types::SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes());
        let public = public.unwrap();
        for pem in private {
            let key = signing(pem);
            assert_eq!(key.kind(), kind);
            assert_eq!(key.public_key_spki(), public.as_ref());
            assert_eq!(verifying(&key).kind(), kind);
        }
    }
}

#[test]
fn what_was_signed_verifies_and_nothing_else() {
    for (kind, private, _) in keys() {
        let key = signing(private[0]);
        let public = verifying(&key);
        let legacy = kind.legacy_method().map(|(_, scheme)| scheme);
        for scheme in kind.schemes().iter().copied().chain(legacy) {
            let signature = key.sign(scheme, b"signed octets").unwrap();
            assert_eq!(
                public.verify(scheme, b"signed octets", &signature),
                Ok(()),
                "{scheme}"
            );
            let invalid = Err(SignatureError::Invalid);
            assert_eq!(
                public.verify(scheme, b"signed octetz", &signature),
                invalid,
                "{scheme}"
            );
            assert_eq!(
                public.verify(scheme, b"signed octets", &[]),
                invalid,
                "{scheme}"
            );
            let short = &signature[..signature.len() - 1];
            assert_eq!(
                public.verify(scheme, b"signed octets", short),
                invalid,
                "{scheme}"
            );
            for at in 0..signature.len() {
                let mut flipped = signature.clone();
                flipped[at] ^= 1;
                assert_eq!(
                    public.verify(scheme, b"signed octets", &flipped),
                    invalid,
                    "{scheme}"
                );
            }
        }
    }
}

#[test]
fn schemes_of_other_keys_do_not_apply() {
    let p256 = signing(key!("p256-pkcs8"));
    let mismatch = |scheme| {
        Err(SignatureError::Mismatch {
            kind: KeyKind::EcdsaP256,
            scheme,
        })
    };
    for scheme in [
        SignatureScheme::RsaPkcs1Sha256,
        SignatureScheme::EcdsaP384Fixed,
        SignatureScheme::Ed25519,
    ] {
        assert_eq!(p256.sign(scheme, b"").map(|_| ()), mismatch(scheme));
        assert_eq!(verifying(&p256).verify(scheme, b"", b""), mismatch(scheme));
    }
    let rsa = signing(key!("rsa-pkcs8"));
    assert!(
        rsa.sign(SignatureScheme::RsaPkcs1Sha1, b"").is_err(),
        "SHA-1 is verified only"
    );
}

/// Made with OpenSSL 3.0: openssl dgst -sha1 -sign, -sha384 -sign.
#[test]
fn rsa_signatures_of_openssl() {
    let key = signing(key!("rsa-pkcs8"));
    let sha1 = hex(
        "1a537c819f4ee014cd38b01bc3414c4b89860ed001194866842e37a7dd907d01f77cdec5db6a10ed5fc286a73833ff136e626dadd58f1e7d929b9aed33f381fa2122362b086d7aae5e8a14c1b5a7d473f94427f40bc68e63218a3ade102b19cc1fc3615521635d23b9288c77f640d2e805acce38f078294efae04677d1ce011f38edc6fe09c39665df476e617c252cfdda18422b4b34de317d45ba81b0b82e6ba7e7f71fcd93b4cc84f205611bbfb24ecf095280d1368a1fef6b1b47e7785cfb76a601a717b95a01f63099be5c6afbdf4ca2c06f06ef3c86cbc86499dbef5733ba32e36c582b10d313b8f5a03b1bfe2dc890f2883963531786b2610232c837e2",
    );
    let public = verifying(&key);
    assert_eq!(
        public.verify(SignatureScheme::RsaPkcs1Sha1, b"signed octets", &sha1),
        Ok(())
    );
    // PKCS#1 v1.5 has no randomness: ours is the same, octet by octet.
    let sha384 = hex(
        "41563f4009c9b43ddc2dfd3ea309800242fc7281a577ae65bf7aac750f76c6c4f35f12da06e7cb328ab1d93594eeee24d4aa33418015fb0b1d53d7fb1627d9a7fd60eae1405e1258297501193c9e40f6c26530d622e14a757699af27d8559e4ef675ad6a2a8ac185f6f49de6b2d4e632f40f802cfef6fa312e71ff2e192b000da5dc34a40c66ab57fdc7c742d40ec669ee3adec5e8b92da831c51762b909611f65443049e830549f161efe6dd4b3ee7abbd8fac12cbe6cb3610d5f92af7d9a7ab534027fd477c286ee3fd4a29afd60baf283af0e6db4156168d93281ef208dc318fdec5a633e44f9c52cbcc459e92d15890759295de7f819101f063912bbc35a",
    );
    assert_eq!(
        key.sign(SignatureScheme::RsaPkcs1Sha384, b"signed octets")
            .unwrap(),
        sha384
    );
}

fn wycheproof(file: &'static str, kind: KeyKind, scheme: SignatureScheme) {
    let mut seen = (0, 0);
    for case in cases(file) {
        let [spki, message, signature] = &case.fields[..] else {
            panic!("three fields")
        };
        let key = VerifyingKey::from_spki_der(spki).unwrap();
        assert_eq!(key.kind(), kind);
        let verified = key.verify(scheme, message, signature);
        if case.valid {
            assert_eq!(verified, Ok(()), "{scheme}, case {}", case.id);
            seen.0 += 1;
        } else {
            assert_eq!(
                verified,
                Err(SignatureError::Invalid),
                "{scheme}, case {}",
                case.id
            );
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 0 && seen.1 > 0, "{scheme}: {seen:?}");
}

macro_rules! wycheproof {
    ($($test:ident: $file:literal, $kind:expr, $scheme:ident;)*) => {$(
        #[test]
        fn $test() {
            let file = include_str!(concat!("../../vectors/", $file, ".txt"));
            wycheproof(file, $kind, SignatureScheme::$scheme);
        }
    )*};
}

wycheproof! {
    wycheproof_p256_der: "ecdsa-p256-der", KeyKind::EcdsaP256, EcdsaSha256;
    wycheproof_p256_fixed: "ecdsa-p256-fixed", KeyKind::EcdsaP256, EcdsaP256Fixed;
    wycheproof_p384_der: "ecdsa-p384-der", KeyKind::EcdsaP384, EcdsaSha384;
    wycheproof_p384_sha256: "ecdsa-p384-sha256-der", KeyKind::EcdsaP384, EcdsaSha256;
    wycheproof_p384_fixed: "ecdsa-p384-fixed", KeyKind::EcdsaP384, EcdsaP384Fixed;
    wycheproof_p521_der: "ecdsa-p521-der", KeyKind::EcdsaP521, EcdsaSha512;
    wycheproof_p521_fixed: "ecdsa-p521-fixed", KeyKind::EcdsaP521, EcdsaP521Fixed;
    wycheproof_ed25519: "ed25519", KeyKind::Ed25519, Ed25519;
    wycheproof_rsa_pkcs1_sha256: "rsa-pkcs1-2048-sha256", KeyKind::Rsa { bits: 2048 }, RsaPkcs1Sha256;
    wycheproof_rsa_pkcs1_sha512: "rsa-pkcs1-3072-sha512", KeyKind::Rsa { bits: 3072 }, RsaPkcs1Sha512;
    wycheproof_rsa_pss_sha256: "rsa-pss-2048-sha256", KeyKind::Rsa { bits: 2048 }, RsaPssSha256;
    wycheproof_rsa_pss_sha384: "rsa-pss-2048-sha384", KeyKind::Rsa { bits: 2048 }, RsaPssSha384;
    wycheproof_rsa_pss_sha512: "rsa-pss-4096-sha512", KeyKind::Rsa { bits: 4096 }, RsaPssSha512;
}

/// RFC 8032 §7.1, test 1.
#[test]
fn rfc8032_ed25519_of_the_empty_message() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let pkcs8 = hex(&format!("302e020100300506032b657004220420{seed}"));
    let key = SigningKey::from_der(&pkcs8).unwrap();
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert!(key.public_key_spki().ends_with(&public));
    assert_eq!(
        key.sign(SignatureScheme::Ed25519, b"").unwrap(),
        hex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b"
        )
    );
}

#[test]
fn keys_that_are_not_used_are_refused_with_the_reason() {
    assert_eq!(
        refusal(key!("rsa1024-pkcs8")),
        "the RSA key has 1024 bits: expected 2048 to 8192"
    );
    for encrypted in [key!("ed-encrypted"), key!("p256-encrypted")] {
        assert!(refusal(encrypted).starts_with("the private key is encrypted: store it without"));
    }
    assert!(refusal(key!("k256-sec1")).contains("expected P-256, P-384 or P-521"));
    assert!(refusal("").starts_with("no private key found in the PEM text"));
    assert!(refusal(key!("p256-public")).starts_with("no private key found in the PEM text"));
}

#[test]
fn damaged_keys_are_refused() {
    for (_, private, _) in keys() {
        for pem in private {
            let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            let der = der.secret_der();
            for len in 0..der.len() {
                assert!(SigningKey::from_der(&der[..len]).is_err());
            }
            let key = signing(pem);
            for len in 0..key.public_key_spki().len() {
                assert!(VerifyingKey::from_spki_der(&key.public_key_spki()[..len]).is_err());
            }
        }
    }
    let p256 = signing(key!("p256-pkcs8"));
    let mut off_curve = p256.public_key_spki().to_vec();
    *off_curve.last_mut().unwrap() ^= 1;
    let error = VerifyingKey::from_spki_der(&off_curve).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the ECDSA P-256 public key is not a valid one"
    );
}

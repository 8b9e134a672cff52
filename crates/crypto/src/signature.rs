//! Signatures of IKE_AUTH: RFC 7296 method 1, RFC 4754 methods 9 to 11, RFC 7427 method 14, RFC 8420.

use thiserror::Error;

/// Hash algorithms of the SIGNATURE_HASH_ALGORITHMS notification (RFC 7427 §7, RFC 8420 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// 1; verified only where a policy says so.
    Sha1,
    /// 2.
    Sha2_256,
    /// 3.
    Sha2_384,
    /// 4.
    Sha2_512,
    /// 5: the signature algorithm takes the message whole (Ed25519).
    Identity,
}

impl HashAlgorithm {
    /// From the IANA number.
    pub fn from_wire(id: u16) -> Option<Self> {
        Some(match id {
            1 => HashAlgorithm::Sha1,
            2 => HashAlgorithm::Sha2_256,
            3 => HashAlgorithm::Sha2_384,
            4 => HashAlgorithm::Sha2_512,
            5 => HashAlgorithm::Identity,
            _ => return None,
        })
    }

    /// The IANA number.
    pub fn to_wire(self) -> u16 {
        match self {
            HashAlgorithm::Sha1 => 1,
            HashAlgorithm::Sha2_256 => 2,
            HashAlgorithm::Sha2_384 => 3,
            HashAlgorithm::Sha2_512 => 4,
            HashAlgorithm::Identity => 5,
        }
    }
}

/// How a message is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 with SHA-1: verified only, and only where a policy says so.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA2-256; also what this side signs by method 1.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA2-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA2-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA2-256, salt of 32 octets.
    RsaPssSha256,
    /// RSASSA-PSS with SHA2-384, salt of 48 octets.
    RsaPssSha384,
    /// RSASSA-PSS with SHA2-512, salt of 64 octets.
    RsaPssSha512,
    /// Method 9: P-256 and SHA2-256, r | s.
    EcdsaP256Fixed,
    /// Method 10: P-384 and SHA2-384, r | s.
    EcdsaP384Fixed,
    /// Method 11: P-521 and SHA2-512, r | s.
    EcdsaP521Fixed,
    /// Method 14: ecdsa-with-SHA256 on the key's curve, DER.
    EcdsaSha256,
    /// Method 14: ecdsa-with-SHA384 on the key's curve, DER.
    EcdsaSha384,
    /// Method 14: ecdsa-with-SHA512 on the key's curve, DER.
    EcdsaSha512,
    /// Method 14: Ed25519.
    Ed25519,
}

impl SignatureScheme {
    /// The AlgorithmIdentifier (DER) that method 14 puts before the signature; `None` for the fixed forms, which have methods of their own.
    pub fn algorithm_identifier(self) -> Option<&'static [u8]> {
        None
    }

    /// The scheme that an AlgorithmIdentifier of a peer names.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let _ = der;
        None
    }

    /// The scheme of authentication methods 9, 10 and 11. Method 1 does not say its hash: try the RSA PKCS#1 schemes the policy allows.
    pub fn from_auth_method(method: u8) -> Option<Self> {
        Some(match method {
            9 => SignatureScheme::EcdsaP256Fixed,
            10 => SignatureScheme::EcdsaP384Fixed,
            11 => SignatureScheme::EcdsaP521Fixed,
            _ => return None,
        })
    }

    /// The hash a peer must have announced before method 14 may use this scheme.
    pub fn hash(self) -> HashAlgorithm {
        HashAlgorithm::Sha2_256
    }
}

/// What kind of key, as operators know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
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
    /// The schemes of method 14 for such a key, best first.
    pub fn schemes(self) -> &'static [SignatureScheme] {
        &[]
    }

    /// The scheme of the key's own method, when the peer announced no hashes: (method, scheme). Ed25519 has none.
    pub fn legacy_method(self) -> Option<(u8, SignatureScheme)> {
        None
    }
}

/// A key, signature or scheme that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The private key cannot be read.
    #[error("{0}")]
    Key(String),
    /// The scheme does not belong to the key.
    #[error("a {kind:?} key cannot use {scheme:?}")]
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
}

impl SigningKey {
    /// From PEM (PKCS#8, SEC1 or PKCS#1), of which the first private key counts. Encrypted keys are refused.
    pub fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        let _ = pem;
        Err(SignatureError::Key("not yet read".into()))
    }

    /// From DER: PKCS#8, SEC1 or PKCS#1.
    pub fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        let _ = der;
        Err(SignatureError::Key("not yet read".into()))
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key as DER SubjectPublicKeyInfo, to compare with a certificate's.
    pub fn public_key_spki(&self) -> &[u8] {
        &[]
    }

    /// The signature of `message`.
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let _ = message;
        Err(SignatureError::Mismatch {
            kind: self.kind,
            scheme,
        })
    }
}

/// A public key, from a certificate.
pub struct VerifyingKey {
    kind: KeyKind,
}

impl VerifyingKey {
    /// From DER SubjectPublicKeyInfo.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, SignatureError> {
        let _ = spki;
        Err(SignatureError::Key("not yet read".into()))
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether `signature` is this key's for `message`.
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let _ = (message, signature);
        Err(SignatureError::Mismatch {
            kind: self.kind,
            scheme,
        })
    }
}

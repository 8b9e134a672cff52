//! Names of signature schemes: the hash numbers of RFC 7427 and the AlgorithmIdentifiers of its appendix A.

use std::fmt;

use crate::der;

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
    /// What to announce: all but SHA-1.
    pub const ANNOUNCED: [Self; 4] = [
        Self::Sha2_256,
        Self::Sha2_384,
        Self::Sha2_512,
        Self::Identity,
    ];

    /// From the IANA number.
    pub fn from_wire(id: u16) -> Option<Self> {
        Some(match id {
            1 => Self::Sha1,
            2 => Self::Sha2_256,
            3 => Self::Sha2_384,
            4 => Self::Sha2_512,
            5 => Self::Identity,
            _ => return None,
        })
    }

    /// The IANA number.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha2_256 => 2,
            Self::Sha2_384 => 3,
            Self::Sha2_512 => 4,
            Self::Identity => 5,
        }
    }

    fn output_len(self) -> u8 {
        match self {
            Self::Sha1 => 20,
            Self::Sha2_256 => 32,
            Self::Sha2_384 => 48,
            Self::Sha2_512 => 64,
            Self::Identity => 0,
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
    /// Method 9 (RFC 4754): P-256 and SHA2-256, r | s.
    EcdsaP256Fixed,
    /// Method 10 (RFC 4754): P-384 and SHA2-384, r | s.
    EcdsaP384Fixed,
    /// Method 11 (RFC 4754): P-521 and SHA2-512, r | s.
    EcdsaP521Fixed,
    /// Method 14: ecdsa-with-SHA256 on the key's curve, DER.
    EcdsaSha256,
    /// Method 14: ecdsa-with-SHA384 on the key's curve, DER.
    EcdsaSha384,
    /// Method 14: ecdsa-with-SHA512 on the key's curve, DER.
    EcdsaSha512,
    /// Method 14: Ed25519 (RFC 8420).
    Ed25519,
}

impl SignatureScheme {
    /// The AlgorithmIdentifier (DER) that method 14 puts before the signature; `None` for the fixed
    /// forms, which have methods of their own.
    pub fn algorithm_identifier(self) -> Option<&'static [u8]> {
        Some(match self {
            Self::RsaPkcs1Sha1 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00",
            Self::RsaPkcs1Sha256 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
            Self::RsaPkcs1Sha384 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00",
            Self::RsaPkcs1Sha512 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00",
            Self::RsaPssSha256 => &PSS_SHA256,
            Self::RsaPssSha384 => &PSS_SHA384,
            Self::RsaPssSha512 => &PSS_SHA512,
            Self::EcdsaSha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::EcdsaSha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::EcdsaSha512 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
            Self::EcdsaP256Fixed | Self::EcdsaP384Fixed | Self::EcdsaP521Fixed => return None,
        })
    }

    /// The scheme that a peer's AlgorithmIdentifier names. Whether absent parameters are left out or
    /// written as NULL makes no difference; of PSS, only salts as long as the hash are known.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let (oid, parameters) = der::expect(der::OID, der::whole(der::SEQUENCE, der)?)?;
        if oid == OID_PSS {
            return match pss_hash(parameters)? {
                HashAlgorithm::Sha2_256 => Some(Self::RsaPssSha256),
                HashAlgorithm::Sha2_384 => Some(Self::RsaPssSha384),
                HashAlgorithm::Sha2_512 => Some(Self::RsaPssSha512),
                // RFC 8247 §3.2.1: PSS with its default, SHA-1, must not be used.
                HashAlgorithm::Sha1 | HashAlgorithm::Identity => None,
            };
        }
        if !absent(parameters) {
            return None;
        }
        const WITHOUT_PARAMETERS: [SignatureScheme; 8] = [
            SignatureScheme::RsaPkcs1Sha1,
            SignatureScheme::RsaPkcs1Sha256,
            SignatureScheme::RsaPkcs1Sha384,
            SignatureScheme::RsaPkcs1Sha512,
            SignatureScheme::EcdsaSha256,
            SignatureScheme::EcdsaSha384,
            SignatureScheme::EcdsaSha512,
            SignatureScheme::Ed25519,
        ];
        WITHOUT_PARAMETERS.into_iter().find(|scheme| {
            let ours = scheme
                .algorithm_identifier()
                .and_then(|ours| der::whole(der::SEQUENCE, ours));
            ours.and_then(|ours| der::expect(der::OID, ours))
                .is_some_and(|(ours, _)| ours == oid)
        })
    }

    /// The scheme of authentication methods 9, 10 and 11. Method 1 does not say its hash: try the RSA
    /// PKCS#1 schemes that the policy allows.
    pub fn from_auth_method(method: u8) -> Option<Self> {
        Some(match method {
            9 => Self::EcdsaP256Fixed,
            10 => Self::EcdsaP384Fixed,
            11 => Self::EcdsaP521Fixed,
            _ => return None,
        })
    }

    /// Whether it is RSASSA-PSS.
    pub fn is_pss(self) -> bool {
        matches!(
            self,
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512
        )
    }

    /// The hash a peer must have announced before method 14 may use this scheme.
    pub fn hash(self) -> HashAlgorithm {
        match self {
            Self::RsaPkcs1Sha1 => HashAlgorithm::Sha1,
            Self::RsaPkcs1Sha256
            | Self::RsaPssSha256
            | Self::EcdsaP256Fixed
            | Self::EcdsaSha256 => HashAlgorithm::Sha2_256,
            Self::RsaPkcs1Sha384
            | Self::RsaPssSha384
            | Self::EcdsaP384Fixed
            | Self::EcdsaSha384 => HashAlgorithm::Sha2_384,
            Self::RsaPkcs1Sha512
            | Self::RsaPssSha512
            | Self::EcdsaP521Fixed
            | Self::EcdsaSha512 => HashAlgorithm::Sha2_512,
            Self::Ed25519 => HashAlgorithm::Identity,
        }
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaPkcs1Sha1 => "RSA PKCS#1 with SHA-1",
            Self::RsaPkcs1Sha256 => "RSA PKCS#1 with SHA2-256",
            Self::RsaPkcs1Sha384 => "RSA PKCS#1 with SHA2-384",
            Self::RsaPkcs1Sha512 => "RSA PKCS#1 with SHA2-512",
            Self::RsaPssSha256 => "RSA-PSS with SHA2-256",
            Self::RsaPssSha384 => "RSA-PSS with SHA2-384",
            Self::RsaPssSha512 => "RSA-PSS with SHA2-512",
            Self::EcdsaP256Fixed => "ECDSA P-256 with SHA2-256 (method 9)",
            Self::EcdsaP384Fixed => "ECDSA P-384 with SHA2-384 (method 10)",
            Self::EcdsaP521Fixed => "ECDSA P-521 with SHA2-512 (method 11)",
            Self::EcdsaSha256 => "ECDSA with SHA2-256",
            Self::EcdsaSha384 => "ECDSA with SHA2-384",
            Self::EcdsaSha512 => "ECDSA with SHA2-512",
            Self::Ed25519 => "Ed25519",
        })
    }
}

const OID_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const OID_MGF1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
/// Without its last octet, which tells the length.
const OID_SHA2: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02";

const PSS_SHA256: [u8; 67] = pss(1, 32);
const PSS_SHA384: [u8; 67] = pss(2, 48);
const PSS_SHA512: [u8; 67] = pss(3, 64);

/// RSASSA-PSS with this hash, MGF1 with the same, this salt length; the trailer field is the default and
/// therefore, in DER, left out.
const fn pss(hash: u8, salt_len: u8) -> [u8; 67] {
    let mut der = *b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
        \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x00\x05\x00\
        \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
        \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x00\x05\x00\
        \xa2\x03\x02\x01\x00";
    der[29] = hash;
    der[59] = hash;
    der[66] = salt_len;
    der
}

/// The hash of RSASSA-PSS-params (RFC 4055 §3.1), when mask generation uses the same and the salt is as
/// long.
fn pss_hash(parameters: &[u8]) -> Option<HashAlgorithm> {
    let fields = der::whole(der::SEQUENCE, parameters)?;
    let (hash_field, fields) = der::expect(der::context(0), fields)?;
    let (mask_field, fields) = der::expect(der::context(1), fields)?;
    let (salt_field, fields) = der::expect(der::context(2), fields)?;
    let hash = hash_of(hash_field)?;
    let mask = der::whole(der::SEQUENCE, mask_field)?;
    let (mask_oid, mask_hash) = der::expect(der::OID, mask)?;
    let salt_fits = der::whole(der::INTEGER, salt_field)? == [hash.output_len()];
    let trailer_fits = match fields {
        [] => true,
        trailer => der::whole(der::INTEGER, der::whole(der::context(3), trailer)?)? == [1],
    };
    let fits = mask_oid == OID_MGF1 && hash_of(mask_hash)? == hash && salt_fits && trailer_fits;
    fits.then_some(hash)
}

fn hash_of(algorithm_identifier: &[u8]) -> Option<HashAlgorithm> {
    let fields = der::whole(der::SEQUENCE, algorithm_identifier)?;
    let (oid, parameters) = der::expect(der::OID, fields)?;
    if !absent(parameters) {
        return None;
    }
    match oid.strip_prefix(OID_SHA2)? {
        [1] => Some(HashAlgorithm::Sha2_256),
        [2] => Some(HashAlgorithm::Sha2_384),
        [3] => Some(HashAlgorithm::Sha2_512),
        _ => None,
    }
}

fn absent(parameters: &[u8]) -> bool {
    parameters.is_empty() || parameters == [der::NULL, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn identifiers_of_rfc7427_appendix_a() {
        // A.1 and A.3, byte for byte as this side sends them.
        let ours = [
            (
                "300d06092a864886f70d0101050500",
                SignatureScheme::RsaPkcs1Sha1,
            ),
            (
                "300d06092a864886f70d01010b0500",
                SignatureScheme::RsaPkcs1Sha256,
            ),
            (
                "300d06092a864886f70d01010c0500",
                SignatureScheme::RsaPkcs1Sha384,
            ),
            (
                "300d06092a864886f70d01010d0500",
                SignatureScheme::RsaPkcs1Sha512,
            ),
            ("300a06082a8648ce3d040302", SignatureScheme::EcdsaSha256),
            ("300a06082a8648ce3d040303", SignatureScheme::EcdsaSha384),
            ("300a06082a8648ce3d040304", SignatureScheme::EcdsaSha512),
        ];
        for (octets, scheme) in ours {
            assert_eq!(scheme.algorithm_identifier(), Some(hex(octets).as_slice()));
            assert_eq!(
                SignatureScheme::from_algorithm_identifier(&hex(octets)),
                Some(scheme)
            );
        }
        // A.4.3 writes the default trailer field out; both forms are PSS with SHA2-256.
        let with_trailer = hex(
            "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a86\
             4886f70d010108300d06096086480165030402010500a203020120a303020101",
        );
        let pss = Some(SignatureScheme::RsaPssSha256);
        assert_eq!(
            SignatureScheme::from_algorithm_identifier(&with_trailer),
            pss
        );
        // A.4.1 and A.4.2: empty and default parameters mean SHA-1, which RFC 8247 §3.2.1 forbids.
        for refused in [
            "300d06092a864886f70d01010a3000",
            "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d\
             010108300906052b0e03021a0500a203020114a303020101",
        ] {
            assert_eq!(
                SignatureScheme::from_algorithm_identifier(&hex(refused)),
                None
            );
        }
    }

    #[test]
    fn every_identifier_reads_back() {
        use SignatureScheme::*;
        for scheme in [RsaPssSha256, RsaPssSha384, RsaPssSha512, Ed25519] {
            let der = scheme.algorithm_identifier().unwrap();
            assert_eq!(
                SignatureScheme::from_algorithm_identifier(der),
                Some(scheme)
            );
        }
        for fixed in [EcdsaP256Fixed, EcdsaP384Fixed, EcdsaP521Fixed] {
            assert_eq!(fixed.algorithm_identifier(), None);
        }
    }

    #[test]
    fn parameters_absent_or_null_are_the_same() {
        let without = hex("300b06092a864886f70d01010b");
        let scheme = Some(SignatureScheme::RsaPkcs1Sha256);
        assert_eq!(SignatureScheme::from_algorithm_identifier(&without), scheme);
        let with = hex("300c06082a8648ce3d0403020500");
        let scheme = Some(SignatureScheme::EcdsaSha256);
        assert_eq!(SignatureScheme::from_algorithm_identifier(&with), scheme);
    }

    #[test]
    fn pss_with_another_salt_or_another_mask_hash_is_not_known() {
        let mut salt = PSS_SHA256;
        salt[66] = 20;
        assert_eq!(SignatureScheme::from_algorithm_identifier(&salt), None);
        let mut mask = PSS_SHA256;
        mask[59] = 2;
        assert_eq!(SignatureScheme::from_algorithm_identifier(&mask), None);
    }

    #[test]
    fn truncated_identifiers_are_refused() {
        for len in 0..PSS_SHA256.len() {
            assert_eq!(
                SignatureScheme::from_algorithm_identifier(&PSS_SHA256[..len]),
                None
            );
        }
    }
}

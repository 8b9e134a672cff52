//! A device's certificate, key and authority as a `.p12` file.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use zeroize::Zeroizing;

/// How the contents are encrypted, and with what the whole is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC, MAC with HMAC-SHA-256: whatever is not older than 2018 or so,
    /// but for Apple's and Android's own importers.
    Aes256,
    /// PBE-SHA1-3DES, MAC with HMAC-SHA-1: Apple's importer calls a right password wrong on anything newer, and so do
    /// Android's and RouterOS' of some years. The password alone protects the key: it has to be a long random one.
    TripleDes,
}

impl Encryption {
    fn algorithms(self) -> (EncryptionAlgorithm, MacAlgorithm) {
        match self {
            Self::Aes256 => (
                EncryptionAlgorithm::PbeWithHmacSha256AndAes256,
                MacAlgorithm::HmacSha256,
            ),
            Self::TripleDes => (
                EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc,
                MacAlgorithm::HmacSha1,
            ),
        }
    }

    /// Rounds of key derivation. Old importers run on slow devices, so they get fewer.
    fn rounds(self) -> u32 {
        match self {
            Self::Aes256 => 100_000,
            Self::TripleDes => 10_000,
        }
    }
}

/// What goes into the file, all of it in DER.
pub struct Contents<'a> {
    /// What key stores call the entry: letters of the Basic Multilingual Plane.
    pub name: &'a str,
    /// The device's certificate.
    pub certificate: &'a [u8],
    /// Its private key, PKCS#8.
    pub key: &'a [u8],
    /// The authority that issued the certificate.
    pub authority: &'a [u8],
}

/// Why there is no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A part is not what it should be.
    #[error("cannot make a .p12 file: expected {expected}, found other bytes ({why})")]
    Part {
        /// What was expected.
        expected: &'static str,
        /// In the library's words.
        why: String,
    },
    /// The password or the name has letters the format has no place for (RFC 7292 appendix B.1).
    #[error(
        "cannot make a .p12 file: expected a {0} of letters of the Basic Multilingual Plane, found one beyond it (such as an emoji)"
    )]
    Letters(&'static str),
    /// The library failed.
    #[error("cannot make a .p12 file: {0}")]
    Library(String),
}

/// Makes the file. Salts come from the system's randomness, so no two are alike.
pub fn write(
    contents: &Contents<'_>,
    password: &str,
    encryption: Encryption,
) -> Result<Zeroizing<Vec<u8>>, WriteError> {
    let part = |expected| {
        move |error: p12_keystore::error::Error| WriteError::Part {
            expected,
            why: error.to_string(),
        }
    };
    for (text, which) in [(password, "password"), (contents.name, "name")] {
        if text.chars().any(|letter| letter > '\u{ffff}') {
            return Err(WriteError::Letters(which));
        }
    }
    let certificate =
        Certificate::from_der(contents.certificate).map_err(part("a certificate in DER"))?;
    let authority = Certificate::from_der(contents.authority)
        .map_err(part("an authority's certificate in DER"))?;
    let key = PrivateKey::from_der(contents.key).map_err(part("a private key in PKCS#8 DER"))?;
    // RFC 7292 §4.2 pairs key and certificate by a local id; any octets do.
    let chain = PrivateKeyChain::new(b"cygnet".as_slice(), key, [certificate, authority]);
    let mut store = KeyStore::new();
    store.add_entry(contents.name, KeyStoreEntry::PrivateKeyChain(chain));
    let (cipher, mac) = encryption.algorithms();
    store
        .writer(password)
        .encryption_algorithm(cipher)
        .encryption_iterations(encryption.rounds())
        .mac_algorithm(mac)
        .mac_iterations(encryption.rounds())
        .write()
        .map(Zeroizing::new)
        .map_err(|error| WriteError::Library(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_none_is_named() {
        let contents = Contents {
            name: "alice.phone",
            certificate: b"no certificate",
            key: b"no key",
            authority: b"no certificate",
        };
        let error = write(&contents, "password", Encryption::Aes256).expect_err("no parts");
        let expected = "cannot make a .p12 file: expected a certificate in DER, found other bytes";
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn letters_there_is_no_place_for_are_refused_by_name() {
        let contents = |name| Contents {
            name,
            certificate: b"no certificate",
            key: b"no key",
            authority: b"no certificate",
        };
        let refused = |name, password| write(&contents(name), password, Encryption::Aes256);
        let letters = |which| Err(WriteError::Letters(which));
        assert_eq!(refused("alice.phone", "\u{1f9a2}"), letters("password"));
        assert_eq!(refused("\u{1f9a2}", "\u{ffff}"), letters("name"));
    }
}

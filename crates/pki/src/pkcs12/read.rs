//! What others have put into a `.p12`: in any of the encryptions they use, with RC2-40, 3DES or AES.

use p12_keystore::{Pkcs12Archive, error::Error};
use zeroize::Zeroizing;

use super::work;
use crate::identity::is_self_issued;
use crate::load::{PrivateKey, is_key_of};

/// No `.p12` of one person is near this; what is in it is decrypted before it can be judged.
const SIZE_MAX: usize = 256 << 10;

/// The object identifier of scrypt (RFC 7914 §7) in DER. The file would say how much memory it takes, and nobody who
/// hands out a `.p12` for a VPN uses it.
const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];

/// What a `.p12` holds.
pub struct Opened {
    /// The certificate that the key belongs to (DER).
    pub leaf: Vec<u8>,
    /// Certificates that are nobody's own, and not the leaf (DER).
    pub intermediates: Vec<Vec<u8>>,
    /// Certificates that name themselves as their issuer (DER).
    pub authorities: Vec<Vec<u8>>,
    /// The private key, PKCS#8 (DER).
    pub key: Zeroizing<Vec<u8>>,
}

/// A `.p12` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Error {
    /// Most likely the password; a file without a MAC cannot tell that from damage.
    #[error(
        "the password is wrong, or the file is damaged: try again; Algo printed the password when it was deployed"
    )]
    WrongPassword,
    /// Not the format.
    #[error("expected a PKCS#12 file (.p12, .pfx), found {0}; was it copied completely?")]
    NotPkcs12(String),
    /// The format, but with algorithms that are not known here.
    #[error(
        "it is encrypted in a way that is not known here ({0}); write it anew: \
         `openssl pkcs12 -in OLD -nodes | openssl pkcs12 -export -out NEW`"
    )]
    Unsupported(String),
    /// Nothing in it to prove oneself with.
    #[error("expected a private key with its certificate, found {0}; export both into one file")]
    NoKey(String),
}

/// Opens a `.p12` with its password. The first key that has its certificate beside it counts.
pub fn read(bytes: &[u8], password: &str) -> Result<Opened, Pkcs12Error> {
    if bytes.len() > SIZE_MAX {
        let found = format!("{} bytes, more than {SIZE_MAX}", bytes.len());
        return Err(Pkcs12Error::NotPkcs12(found));
    }
    if bytes.windows(SCRYPT.len()).any(|it| it == SCRYPT) {
        return Err(Pkcs12Error::Unsupported("scrypt".into()));
    }
    work::check(bytes)?;
    let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(refusal)?;
    let certificates: Vec<&[u8]> = archive.certs.iter().map(|it| it.cert.as_der()).collect();
    let found = archive.keys.iter().find_map(|bag| {
        let key = PrivateKey::from_der(bag.key.as_der())?;
        let leaf = certificates.iter().find(|it| is_key_of(&key, it))?;
        Some((leaf.to_vec(), Zeroizing::new(key.pkcs8().to_vec())))
    });
    let Some((leaf, key)) = found else {
        let (keys, all) = (archive.keys.len(), certificates.len());
        return Err(Pkcs12Error::NoKey(match (keys, all) {
            (0, _) => format!("{all} certificates and no key"),
            _ => format!("{keys} keys, and none of {all} certificates is theirs"),
        }));
    };
    let others = certificates.into_iter().filter(|it| *it != leaf.as_slice());
    let (authorities, intermediates) = others
        .map(<[u8]>::to_vec)
        .partition(|it| is_self_issued(it));
    Ok(Opened {
        leaf,
        intermediates,
        authorities,
        key,
    })
}

fn refusal(error: Error) -> Pkcs12Error {
    match error {
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => Pkcs12Error::WrongPassword,
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => {
            Pkcs12Error::Unsupported("by its own words".into())
        }
        Error::InvalidParameters => {
            Pkcs12Error::Unsupported("more than a million rounds, or none".into())
        }
        Error::UnsupportedContentType => {
            Pkcs12Error::Unsupported("for a public key instead of a password".into())
        }
        other => Pkcs12Error::NotPkcs12(format!("bytes that are none ({other})")),
    }
}

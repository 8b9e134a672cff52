//! The `.p12` file, in the encryption a system accepts.

use cygnet_pki::pkcs12::{self, Contents, Encryption};
use zeroize::Zeroizing;

use super::{Error, File, facts::Facts};

pub(super) const MODERN: Encryption = Encryption::Aes256;
pub(super) const LEGACY: Encryption = Encryption::TripleDes;

/// The bytes; `None` without a private key to put into them.
pub(super) fn bytes(
    facts: &Facts<'_>,
    encryption: Encryption,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let Some(certificate) = &facts.certificate else {
        return Ok(None);
    };
    let Some(key) = &certificate.key else {
        return Ok(None);
    };
    let contents = Contents {
        name: &facts.stem,
        certificate: certificate.der,
        key: key.der,
        authority: &facts.profile.authority.certificate,
    };
    Ok(Some(pkcs12::write(&contents, key.password, encryption)?))
}

/// The file, in `folder` (empty, or ending with `/`).
pub(super) fn file(
    facts: &Facts<'_>,
    folder: &str,
    encryption: Encryption,
) -> Result<Option<File>, Error> {
    let path = format!("{folder}{}.p12", facts.stem);
    Ok(bytes(facts, encryption)?.map(|bytes| File::secret(path, bytes)))
}

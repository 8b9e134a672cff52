//! Certificates, private keys, authorities and CRLs from the bytes of files.
//!
//! Reading is the caller's: these functions take the bytes and the path, which only serves to name the file in errors.
//! Each error says what was expected, what was found, and what to do.

use std::{fs::Metadata, os::unix::fs::PermissionsExt, path::Path};

use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::{chain::Certificate, pem};

pub use cygnet_crypto::signature::{KeyKind, PrivateKey};

/// A file that cannot be used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}; {remedy}")]
pub struct LoadError {
    /// The file.
    pub path: String,
    /// What has to be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

/// The certificates of one file: an end entity's, and those of authorities behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// The first certificate (DER).
    pub leaf: Vec<u8>,
    /// The others (DER), in the order of the file: sent to the peer as intermediates.
    pub chain: Vec<Vec<u8>>,
}

/// Reads a certificate and the intermediates behind it: PEM with one or more certificates, or one in DER.
pub fn certificates(bytes: &[u8], path: &Path) -> Result<CertificateFile, LoadError> {
    let mut all = certificate_list(bytes, path, "a certificate in PEM or DER")?.into_iter();
    let leaf = all
        .next()
        .ok_or_else(|| empty(path, "a certificate in PEM or DER"))?;
    Ok(CertificateFile {
        leaf,
        chain: all.collect(),
    })
}

/// Reads the certificates of trusted authorities: PEM with one or more, or one in DER.
pub fn authorities(bytes: &[u8], path: &Path) -> Result<Vec<Vec<u8>>, LoadError> {
    certificate_list(bytes, path, "certificates of authorities in PEM or DER")
}

/// Reads CRLs: PEM with one or more, or one in DER.
pub fn crls(bytes: &[u8], path: &Path) -> Result<Vec<Vec<u8>>, LoadError> {
    let expected = "a certificate revocation list in PEM or DER";
    let check = |der: &[u8]| match CertificateRevocationList::from_der(der) {
        Ok(([], _)) => Ok(()),
        Ok(_) => Err("further bytes behind it".to_string()),
        Err(_) => Err("bytes that do not decode as one".to_string()),
    };
    list(bytes, path, expected, &["X509 CRL"], check)
}

/// Reads a private key: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`), in PEM or DER, not encrypted.
///
/// Have the file's mode checked first: [`check_key_mode`].
pub fn private_key(bytes: &[u8], path: &Path) -> Result<PrivateKey, LoadError> {
    let expected = "a private key: RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519";
    let refuse = |found: String, remedy: String| refuse(path, expected, found, remedy);
    let decode = |der: &[u8]| {
        PrivateKey::from_der(der).ok_or_else(|| {
            refuse(
                "bytes that do not decode as such a key".into(),
                format!(
                    "look at it with `openssl pkey -in {} -noout -text`",
                    path.display()
                ),
            )
        })
    };
    if !pem::is_pem(bytes) {
        if bytes.is_empty() {
            return Err(empty(path, expected));
        }
        return decode(bytes);
    }
    let blocks = pem::blocks(bytes).map_err(|bad| broken(path, expected, &bad))?;
    let mut labels = Vec::new();
    for block in &blocks {
        if block.encrypted || block.label == "ENCRYPTED PRIVATE KEY" {
            return Err(refuse(
                "one encrypted with a passphrase".into(),
                format!(
                    "write it without: `openssl pkey -in {} -out NEW && chmod 600 NEW`",
                    path.display()
                ),
            ));
        }
        match block.label.as_str() {
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {
                return decode(&block.contents);
            }
            other => labels.push(format!("{other:?}")),
        }
    }
    Err(refuse(
        format!("only {}", labels.join(", ")),
        "name the file with the key that belongs to the certificate".into(),
    ))
}

/// Refuses the file of a secret that anyone but its owner may read or write; `what` names the secret: "a private key".
pub fn check_key_mode(metadata: &Metadata, path: &Path, what: &str) -> Result<(), LoadError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let who = match (mode & 0o007, mode & 0o070) {
        (0, _) => "its group",
        (_, 0) => "everyone",
        _ => "everyone and its group",
    };
    Err(refuse(
        path,
        &format!("{what} that only its owner can read"),
        format!("mode {mode:04o}, open to {who}"),
        format!("run `chmod 600 {}`", path.display()),
    ))
}

/// Checks that the key is the leaf certificate's.
pub fn check_key_matches(
    key: &PrivateKey,
    key_path: &Path,
    certificates: &CertificateFile,
    certificate_path: &Path,
) -> Result<(), LoadError> {
    if public_key_of(&certificates.leaf).as_deref() == Some(key.public_key()) {
        return Ok(());
    }
    let elsewhere = certificates
        .chain
        .iter()
        .position(|der| public_key_of(der).as_deref() == Some(key.public_key()));
    let subject = match Certificate::parse(&certificates.leaf) {
        Ok(leaf) => leaf.subject_text(),
        Err(_) => "<unreadable>".into(),
    };
    Err(refuse(
        key_path,
        &format!(
            "the private key of certificate {subject} in {}",
            certificate_path.display()
        ),
        match elsewhere {
            Some(at) => format!("the key of certificate {} of that file", at + 2),
            None => "the key of another certificate".into(),
        },
        match elsewhere {
            Some(_) => format!(
                "move that certificate to the top of {}",
                certificate_path.display()
            ),
            None => "name the certificate and the key that were made together".into(),
        },
    ))
}

/// Whether the key is that of the certificate (DER).
pub fn is_key_of(key: &PrivateKey, certificate: &[u8]) -> bool {
    public_key_of(certificate).as_deref() == Some(key.public_key())
}

fn public_key_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::parse(certificate).ok()?;
    let spki = &certificate.x509.tbs_certificate.subject_pki;
    Some(spki.subject_public_key.data.to_vec())
}

fn certificate_list(bytes: &[u8], path: &Path, expected: &str) -> Result<Vec<Vec<u8>>, LoadError> {
    let labels = ["CERTIFICATE", "X509 CERTIFICATE"];
    let check = |der: &[u8]| match Certificate::parse(der) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.found),
    };
    list(bytes, path, expected, &labels, check)
}

/// One DER object, or every PEM block of these labels.
fn list(
    bytes: &[u8],
    path: &Path,
    expected: &str,
    labels: &[&str],
    check: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<Vec<Vec<u8>>, LoadError> {
    let again = || "write the file again from where it was made".to_string();
    if !pem::is_pem(bytes) {
        if bytes.is_empty() {
            return Err(empty(path, expected));
        }
        check(bytes).map_err(|found| refuse(path, expected, found, again()))?;
        return Ok(vec![bytes.to_vec()]);
    }
    let mut out = Vec::new();
    let mut others = Vec::new();
    for block in pem::blocks(bytes).map_err(|bad| broken(path, expected, &bad))? {
        if !labels.contains(&block.label.as_str()) {
            others.push(format!("{:?}", block.label));
            continue;
        }
        check(&block.contents).map_err(|found| {
            refuse(
                path,
                expected,
                format!("in line {}: {found}", block.line),
                again(),
            )
        })?;
        out.push(block.contents.to_vec());
    }
    if out.is_empty() {
        return Err(refuse(
            path,
            expected,
            format!("only {}", others.join(", ")),
            "check that the right file is named".into(),
        ));
    }
    Ok(out)
}

fn refuse(path: &Path, expected: &str, found: String, remedy: String) -> LoadError {
    LoadError {
        path: path.display().to_string(),
        expected: expected.into(),
        found,
        remedy,
    }
}

fn empty(path: &Path, expected: &str) -> LoadError {
    let remedy = "write it again; was it copied completely?";
    refuse(path, expected, "an empty file".into(), remedy.into())
}

fn broken(path: &Path, expected: &str, bad: &pem::BadPem) -> LoadError {
    let remedy = "copy it again, from BEGIN to END";
    refuse(
        path,
        expected,
        format!("broken PEM in {bad}"),
        remedy.into(),
    )
}

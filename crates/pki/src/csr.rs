//! A public key that asks to be certified: PKCS#10 (RFC 2986), or that of an earlier certificate.
//!
//! Of a request the key alone counts. Names, usages and whatever else it wishes for are the authority's to decide.

use std::path::Path;

use cygnet_crypto::signature::VerifyingKey;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::{
    authority::AuthorityError,
    chain::{
        Certificate,
        signature::{Flaw, check_signed_by},
    },
    load::LoadError,
    pem,
};

/// A public key to issue a certificate for, of a kind and length that peers accept.
pub struct PublicKey(SubjectPublicKeyInfo);

const EXPECTED: &str = "one certificate signing request (PKCS#10) in PEM or DER";

impl PublicKey {
    /// From a signing request in PEM or DER. Its signature shows that whoever wrote it holds the private key.
    pub fn from_request(bytes: &[u8], path: &Path) -> Result<Self, LoadError> {
        let refuse = |found: String, remedy: &str| LoadError {
            path: path.display().to_string(),
            expected: EXPECTED.into(),
            found,
            remedy: remedy.into(),
        };
        const AGAIN: &str = "make one with `openssl req -new -key KEY -subj /CN=device`";
        let blocks;
        let der = if pem::is_pem(bytes) {
            blocks = pem::blocks(bytes).map_err(|bad| {
                refuse(
                    format!("broken PEM in {bad}"),
                    "copy it again, from BEGIN to END",
                )
            })?;
            let request = blocks.iter().find(|block| {
                ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&block.label.as_str())
            });
            let labels: Vec<_> = blocks.iter().map(|it| format!("{:?}", it.label)).collect();
            match request {
                Some(block) => block.contents.as_slice(),
                None => return Err(refuse(format!("only {}", labels.join(", ")), AGAIN)),
            }
        } else {
            bytes
        };
        let request = match X509CertificationRequest::from_der(der) {
            Ok(([], request)) => request,
            _ => return Err(refuse("bytes that do not decode as one".into(), AGAIN)),
        };
        let key = &request.certification_request_info.subject_pki;
        let certified = Self::from_info(key.raw).map_err(|found| {
            refuse(
                found,
                "make a key of another kind: ECDSA P-256 suits every device",
            )
        })?;
        check_signed_by(der, key).map_err(|flaw| match flaw {
            Flaw::Wrong => refuse(
                "a request whose signature is not by its own key".into(),
                "make it again on the device that holds the private key",
            ),
            Flaw::Unsupported(algorithm) => refuse(
                format!("a request signed by {algorithm}"),
                "make it again with SHA-256",
            ),
        })?;
        Ok(certified)
    }

    /// That of a certificate (DER), which is to be issued anew.
    pub fn of_certificate(der: &[u8]) -> Result<Self, AuthorityError> {
        let load = |what: String| AuthorityError::Load(what);
        let certificate = Certificate::parse(der).map_err(|error| load(error.to_string()))?;
        Self::from_info(certificate.spki()).map_err(load)
    }

    fn from_info(info: &[u8]) -> Result<Self, String> {
        VerifyingKey::from_spki_der(info).map_err(|error| error.to_string())?;
        SubjectPublicKeyInfo::from_der(info)
            .map(Self)
            .map_err(|error| format!("a key of a kind that is not issued for: {error}"))
    }

    pub(crate) fn info(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

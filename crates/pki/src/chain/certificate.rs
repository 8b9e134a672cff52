//! One certificate, decoded once: the fields and extensions validation needs, nothing optional left to guess.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use x509_parser::prelude::{
    BasicConstraints, ExtendedKeyUsage, FromDer, KeyUsage, ParsedExtension, X509Certificate,
    X509Version,
};

use crate::{
    DistinguishedName, SubjectAltName,
    name::{self, Rdns},
    san,
};

use super::constraints::NameConstraints;

/// The bytes are no X.509 certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one X.509 certificate in DER, found {found}")]
pub struct NotACertificate {
    pub(crate) found: String,
}

/// A decoded certificate; borrows its DER.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) der: &'a [u8],
    pub(crate) x509: X509Certificate<'a>,
    pub(crate) subject: Rdns,
    pub(crate) issuer: Rdns,
    pub(crate) extensions: Extensions,
}

/// The extensions validation acts on.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    /// Dotted object identifiers.
    pub(crate) extended_key_usage: Option<Vec<String>>,
    pub(crate) names: Vec<SubjectAltName>,
    pub(crate) name_constraints: Option<NameConstraints>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    /// Dotted object identifier of the first critical extension that is not processed.
    pub(crate) unknown_critical: Option<String>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, NotACertificate> {
        let refuse = |found: &str| NotACertificate {
            found: found.to_string(),
        };
        let (rest, x509) = X509Certificate::from_der(der)
            .map_err(|_| refuse("bytes that do not decode as one"))?;
        if !rest.is_empty() {
            return Err(refuse("further bytes behind it"));
        }
        // RFC 5280 §4.1.1.2: both fields name the same algorithm.
        if x509.signature_algorithm != x509.tbs_certificate.signature {
            return Err(refuse("one that names two different signature algorithms"));
        }
        let subject = name::rdns(x509.subject().as_raw())
            .ok_or_else(|| refuse("one whose subject does not decode"))?;
        let issuer = name::rdns(x509.issuer().as_raw())
            .ok_or_else(|| refuse("one whose issuer does not decode"))?;
        let extensions = Extensions::parse(&x509).map_err(|what| NotACertificate {
            found: format!("one ({}) with {what}", subject_text(&x509)),
        })?;
        Ok(Self {
            der,
            x509,
            subject,
            issuer,
            extensions,
        })
    }

    pub(crate) fn subject_name(&self) -> DistinguishedName {
        DistinguishedName::from_der_unchecked(self.x509.subject().as_raw())
    }

    pub(crate) fn issuer_name(&self) -> DistinguishedName {
        DistinguishedName::from_der_unchecked(self.x509.issuer().as_raw())
    }

    pub(crate) fn subject_text(&self) -> String {
        subject_text(&self.x509)
    }

    pub(crate) fn issuer_text(&self) -> String {
        self.issuer_name().to_string()
    }

    /// The subject equals the issuer: a root, or an authority that changed its key.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    pub(crate) fn spki(&self) -> &'a [u8] {
        self.x509.tbs_certificate.subject_pki.raw
    }

    pub(crate) fn not_before(&self) -> i64 {
        self.x509.validity().not_before.timestamp()
    }

    pub(crate) fn not_after(&self) -> i64 {
        self.x509.validity().not_after.timestamp()
    }

    /// Big-endian, without leading zeros.
    pub(crate) fn serial(&self) -> &'a [u8] {
        strip_zeros(self.x509.tbs_certificate.raw_serial())
    }
}

/// An integer's bytes without leading zeros.
pub(crate) fn strip_zeros(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Seconds since 1970 as the type of the interface; times before are cut off.
pub(crate) fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn subject_text(x509: &X509Certificate<'_>) -> String {
    let text = DistinguishedName::from_der_unchecked(x509.subject().as_raw()).to_string();
    if text.is_empty() {
        format!("without a subject (serial {})", x509.raw_serial_as_string())
    } else {
        text
    }
}

impl Extensions {
    fn parse(x509: &X509Certificate<'_>) -> Result<Self, String> {
        let mut out = Self::default();
        let all = x509.extensions();
        if !all.is_empty() && x509.version() != X509Version::V3 {
            return Err("extensions, though it is not of version 3".into());
        }
        // Far above what occurs; keeps the search for duplicates short.
        if all.len() > 64 {
            return Err(format!("{} extensions", all.len()));
        }
        for (at, extension) in all.iter().enumerate() {
            // RFC 5280 §4.2: no more than one instance of a particular extension.
            if all.iter().take(at).any(|other| other.oid == extension.oid) {
                return Err(format!("two extensions {}", extension.oid));
            }
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(it) => out.basic_constraints = Some(it.clone()),
                ParsedExtension::KeyUsage(it) => out.key_usage = Some(*it),
                ParsedExtension::ExtendedKeyUsage(it) => {
                    out.extended_key_usage = Some(purposes(it));
                }
                // Read again strictly: x509-parser passes over what it cannot decode in these two.
                ParsedExtension::SubjectAlternativeName(_) => {
                    out.names = san::parse(extension.value)
                        .ok_or("a subjectAltName that does not decode")?;
                }
                ParsedExtension::NameConstraints(_) => {
                    out.name_constraints = Some(
                        NameConstraints::parse(extension.value)
                            .ok_or("nameConstraints that do not decode")?,
                    );
                }
                ParsedExtension::SubjectKeyIdentifier(it) => {
                    out.subject_key_id = Some(it.0.to_vec());
                }
                ParsedExtension::AuthorityKeyIdentifier(it) => {
                    out.authority_key_id = it.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                // Every policy is acceptable here, so processing these changes nothing (RFC 5280 §6.1.1 (c) to (e)).
                ParsedExtension::CertificatePolicies(_) => {}
                ParsedExtension::ParseError { .. } => {
                    return Err(format!(
                        "an extension {} that does not decode",
                        extension.oid
                    ));
                }
                _ if extension.critical && out.unknown_critical.is_none() => {
                    out.unknown_critical = Some(extension.oid.to_id_string());
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    use super::check::purpose;
    let known = [
        (usage.any, purpose::ANY),
        (usage.server_auth, purpose::SERVER_AUTH),
        (usage.client_auth, purpose::CLIENT_AUTH),
        (usage.code_signing, purpose::CODE_SIGNING),
        (usage.email_protection, purpose::EMAIL_PROTECTION),
        (usage.time_stamping, purpose::TIME_STAMPING),
        (usage.ocsp_signing, purpose::OCSP_SIGNING),
    ];
    known
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, oid)| oid.to_string())
        .chain(usage.other.iter().map(|oid| oid.to_id_string()))
        .collect()
}

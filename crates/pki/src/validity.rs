//! From when until when a certificate of our own is valid.

use crate::chain::{Certificate, NotACertificate};

/// The validity period of a certificate, in seconds since 1970 (RFC 5280 §4.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Whose it is, as text.
    pub subject: String,
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

/// The validity period of a certificate in DER.
///
/// # Errors
/// The bytes are no certificate.
pub fn validity(der: &[u8]) -> Result<Validity, NotACertificate> {
    let certificate = Certificate::parse(der)?;
    Ok(Validity {
        subject: certificate.subject_text(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
    })
}

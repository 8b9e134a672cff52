//! From a peer's certificate to a trust anchor: path building and validation (RFC 5280 §6).
//!
//! [`validate_chain`] is pure: bytes and the time in, a verdict out. The work is bounded whatever the peer sent:
//! [`MAX_PATH`] certificates a path, [`MAX_SENT`] certificates looked at, [`MAX_SIGNATURES`] signature checks in all.
//! A trust anchor is judged like any other authority: its dates, key usage, extended key usage, path length and name
//! constraints hold.

mod certificate;
mod check;
mod constraints;
mod crl;
mod error;
mod path;
pub(crate) mod signature;

use rustls_pki_types::UnixTime;

pub use certificate::NotACertificate;
pub(crate) use certificate::{Certificate, strip_zeros};
pub use crl::{CrlPolicy, CrlRefused, Crls, NotACrl, SignedCrl};
pub use error::ChainError;

use crate::{DistinguishedName, SubjectAltName};

/// The longest path, end entity and anchor included.
pub const MAX_PATH: usize = 8;
/// How many certificates sent by a peer are looked at beside its own.
pub const MAX_SENT: usize = 24;
/// How many signatures (certificates and CRLs) are checked for one peer. That of a CRL is checked once for all peers.
pub const MAX_SIGNATURES: usize = 40;

/// Whether a certificate names another as its issuer and has its signature (both DER); nothing else is judged.
pub fn is_issued_by(certificate: &[u8], issuer: &[u8]) -> bool {
    let (Ok(certificate), Ok(issuer)) =
        (Certificate::parse(certificate), Certificate::parse(issuer))
    else {
        return false;
    };
    certificate.issuer == issuer.subject
        && signature::check_certificate(&certificate, &issuer).is_ok()
}

/// The authorities trusted for a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustAnchors {
    certificates: Vec<Vec<u8>>,
}

impl TrustAnchors {
    /// No anchor: every chain is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts one more certificate (DER). A certificate already present is not added twice.
    ///
    /// An end entity's own certificate may be an anchor too: exactly that certificate is then accepted.
    pub fn add(&mut self, der: impl Into<Vec<u8>>) -> Result<(), NotACertificate> {
        let der = der.into();
        Certificate::parse(&der)?;
        if !self.certificates.contains(&der) {
            self.certificates.push(der);
        }
        Ok(())
    }

    /// The anchors' certificates (DER), in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Vec::as_slice)
    }

    /// Whether nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// How many certificates are trusted.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }
}

/// What the peer whose certificate is judged does in the exchange; decides which extended key usages fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// The peer started the exchange: `serverAuth`, `clientAuth`, `ipsecIKE` and `ikeIntermediate` fit.
    Initiator,
    /// The peer answers, as a server does: `serverAuth`, `ipsecIKE` and `ikeIntermediate` fit. A certificate that
    /// names `clientAuth` and not `serverAuth` does not, whatever else it names, so no client of a server can pose as
    /// that server.
    Responder,
}

/// A peer whose chain was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedPeer {
    /// SubjectPublicKeyInfo (DER): the key the AUTH payload has to be verified with.
    pub spki: Vec<u8>,
    /// Subject of the end entity.
    pub subject: DistinguishedName,
    /// Issuer of the end entity.
    pub issuer: DistinguishedName,
    /// Serial number of the end entity: big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Subject alternative names of the end entity, in its order.
    pub sans: Vec<SubjectAltName>,
    /// When the first certificate of the path expires: an SA must not outlive it.
    pub not_after: UnixTime,
    /// Subject of the trust anchor the path ends in.
    pub anchor: DistinguishedName,
    /// Matters for the operator that did not stop the chain, such as a stale CRL: one line each.
    pub warnings: Vec<String>,
}

/// Judges the certificate of a peer.
///
/// `end_entity` and `intermediates` are DER as the CERT payloads carried them; intermediates may come in any order,
/// superfluous or undecodable ones are passed over. `utc` is `None` while the clock is not set.
///
/// The identity the peer claims is a separate question: see [`certificate_contains`](crate::certificate_contains)
/// and [`ValidatedPeer::contains`].
pub fn validate_chain(
    end_entity: &[u8],
    intermediates: &[&[u8]],
    anchors: &TrustAnchors,
    crls: &Crls,
    usage: PeerRole,
    utc: Option<UnixTime>,
) -> Result<ValidatedPeer, ChainError> {
    let end_entity = Certificate::parse(end_entity).map_err(|error| ChainError::Malformed {
        subject: "<unreadable>".into(),
        what: error.to_string(),
    })?;
    let Some(utc) = utc else {
        return Err(ChainError::ClockNotSet {
            subject: end_entity.subject_text(),
        });
    };
    let anchors: Vec<_> = anchors
        .iter()
        .filter_map(|der| Certificate::parse(der).ok())
        .collect();
    let sent: Vec<_> = intermediates
        .iter()
        .take(MAX_SENT)
        .filter_map(|der| Certificate::parse(der).ok())
        .collect();
    path::find(&end_entity, &sent, &anchors, |path, budget| {
        check::path(path, crls, usage, utc, budget)
    })
}

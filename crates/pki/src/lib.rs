//! Certificates: load them from files, match them with keys, validate a peer's chain, tell whether a certificate
//! contains the identity a peer claims, and issue certificates as a small authority.
//!
//! Nothing here reads files or the clock: functions take bytes, a path to show in errors, and the time.
//!
//! - [`load`]: PEM and DER files of certificates, private keys, authorities and CRLs.
//! - [`chain`]: [`validate_chain`], the path from a peer's certificate to a trust anchor (RFC 5280 §6).
//! - [`identity`]: an IKE identity against a certificate (RFC 7296 §3.5, RFC 4945 §3.1).
//! - [`name`]: distinguished names: text, DER, comparison.
//! - [`certreq`]: what a CERTREQ payload carries (RFC 7296 §3.7).
//! - [`authority`]: a certificate authority for servers and clients.
//! - [`pkcs12`]: `.p12` files: certificates and a key in one file under a password.
//! - [`csr`]: a public key that asks to be certified (PKCS#10).

pub mod authority;
pub mod certreq;
pub mod chain;
pub mod csr;
mod der;
pub mod identity;
pub mod load;
pub mod name;
mod pem;
pub mod pkcs12;
mod san;
mod validity;

pub use chain::{
    ChainError, CrlPolicy, CrlRefused, Crls, NotACertificate, NotACrl, PeerRole, SignedCrl,
    TrustAnchors, ValidatedPeer, is_issued_by, validate_chain,
};
pub use identity::{IdentityError, certificate_contains};
pub use name::{DistinguishedName, NameError};
pub use rustls_pki_types::UnixTime;
pub use san::SubjectAltName;
pub use validity::{Validity, validity};

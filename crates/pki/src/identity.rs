//! Does a certificate contain the identity its holder claims? (RFC 7296 §3.5, RFC 4945 §3.1)
//!
//! A name is looked for where its kind belongs and nowhere else: a host name in the dNSNames, never in the common
//! name. Wildcards in a certificate match nothing (RFC 4945 §3.1.2).

use std::fmt;
use std::net::IpAddr;

use crate::{DistinguishedName, SubjectAltName, ValidatedPeer, chain::Certificate, san};

/// Identification types (RFC 7296 §3.5) that a certificate can contain.
mod id_type {
    pub(super) const IPV4_ADDR: u8 = 1;
    pub(super) const FQDN: u8 = 2;
    pub(super) const RFC822_ADDR: u8 = 3;
    pub(super) const IPV6_ADDR: u8 = 5;
    pub(super) const DER_ASN1_DN: u8 = 9;
}

/// Why a certificate does not speak for an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The identity is not in the certificate.
    #[error(
        "certificate {subject} does not contain the identity {claimed} its holder claims; it contains {contained}; \
         configure one of those as the identity, or issue the certificate again with {claimed}"
    )]
    NotContained {
        /// The certificate's subject.
        subject: String,
        /// The identity, such as `FQDN gw.example`.
        claimed: String,
        /// What could have been claimed instead.
        contained: String,
    },
    /// The identity is of a kind certificates do not contain.
    #[error(
        "an identity of type {id_type} cannot be proven by a certificate; \
         use a distinguished name, host name, e-mail address or IP address as the identity"
    )]
    Unprovable {
        /// Identification type of RFC 7296 §3.5.
        id_type: u8,
    },
    /// The identification data is not of its type.
    #[error(
        "the identification data is malformed: expected {expected}, found {found}; check the peer's identity"
    )]
    Malformed {
        /// What its type asks for.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The bytes given as the certificate are none.
    #[error("{0}")]
    Certificate(#[from] crate::NotACertificate),
}

/// An identity as its type and data say.
enum Claim {
    Fqdn(String),
    Email(String),
    Address(IpAddr),
    Name(DistinguishedName),
}

/// Checks that the certificate (DER) contains the identity given as the ID payload's type and data.
pub fn certificate_contains(
    certificate: &[u8],
    id_type: u8,
    id_data: &[u8],
) -> Result<(), IdentityError> {
    let certificate = Certificate::parse(certificate)?;
    contains(
        &certificate.subject_name(),
        &certificate.extensions.names,
        id_type,
        id_data,
    )
}

impl ValidatedPeer {
    /// Checks that the peer's certificate contains the identity given as the ID payload's type and data.
    pub fn contains(&self, id_type: u8, id_data: &[u8]) -> Result<(), IdentityError> {
        contains(&self.subject, &self.sans, id_type, id_data)
    }
}

/// All identities that a certificate (DER) contains, each as the type and data of an ID payload.
pub fn identities(certificate: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, crate::NotACertificate> {
    let certificate = Certificate::parse(certificate)?;
    let subject = certificate.subject_name();
    let own = (!subject.is_empty()).then(|| (id_type::DER_ASN1_DN, subject.as_der().to_vec()));
    let names = certificate.extensions.names.iter();
    let names = names.filter_map(|name| match name {
        // A wildcard matches nothing, so it is nobody's identity.
        SubjectAltName::Dns(name) if name.contains('*') => None,
        SubjectAltName::Dns(name) => Some((id_type::FQDN, name.as_bytes().to_vec())),
        SubjectAltName::Email(name) => Some((id_type::RFC822_ADDR, name.as_bytes().to_vec())),
        SubjectAltName::Ip(IpAddr::V4(v4)) => Some((id_type::IPV4_ADDR, v4.octets().to_vec())),
        SubjectAltName::Ip(IpAddr::V6(v6)) => Some((id_type::IPV6_ADDR, v6.octets().to_vec())),
        _ => None,
    });
    Ok(own.into_iter().chain(names).collect())
}

/// The subject of a certificate (DER): the identity to send where none is configured.
pub fn subject(certificate: &[u8]) -> Result<DistinguishedName, crate::NotACertificate> {
    Ok(Certificate::parse(certificate)?.subject_name())
}

/// Who issued a certificate (DER), by its own words.
pub fn issuer(certificate: &[u8]) -> Result<DistinguishedName, crate::NotACertificate> {
    Ok(Certificate::parse(certificate)?.issuer_name())
}

/// Whether a certificate (DER) names itself as its issuer. Bytes that are none do not.
pub fn is_self_issued(der: &[u8]) -> bool {
    Certificate::parse(der).is_ok_and(|it| it.issuer_name() == it.subject_name())
}

/// The SubjectPublicKeyInfo (DER) of a certificate (DER).
pub fn public_key_info(certificate: &[u8]) -> Result<Vec<u8>, crate::NotACertificate> {
    Ok(Certificate::parse(certificate)?.spki().to_vec())
}

fn contains(
    subject: &DistinguishedName,
    names: &[SubjectAltName],
    id_type: u8,
    id_data: &[u8],
) -> Result<(), IdentityError> {
    let claim = Claim::parse(id_type, id_data)?;
    let found = match &claim {
        Claim::Name(claimed) => !claimed.is_empty() && claimed == subject,
        Claim::Fqdn(claimed) => names.iter().any(
            |name| matches!(name, SubjectAltName::Dns(name) if name.eq_ignore_ascii_case(claimed)),
        ),
        Claim::Email(claimed) => names
            .iter()
            .any(|name| matches!(name, SubjectAltName::Email(name) if same_mailbox(name, claimed))),
        Claim::Address(claimed) => names
            .iter()
            .any(|name| matches!(name, SubjectAltName::Ip(name) if name == claimed)),
    };
    if found {
        return Ok(());
    }
    let own = (!subject.is_empty()).then(|| format!("DN {subject}"));
    let contained: Vec<_> = own
        .into_iter()
        .chain(names.iter().map(ToString::to_string))
        .collect();
    Err(IdentityError::NotContained {
        subject: subject.to_string(),
        claimed: claim.to_string(),
        contained: match contained.is_empty() {
            true => "no name at all".into(),
            false => contained.join(", "),
        },
    })
}

/// RFC 5280 §7.5: the host part without regard to case, the part before it exactly.
fn same_mailbox(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((local, host)), Some((other_local, other_host))) => {
            local == other_local && host.eq_ignore_ascii_case(other_host)
        }
        _ => one == other,
    }
}

impl Claim {
    fn parse(id_type: u8, data: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |expected| IdentityError::Malformed {
            expected,
            found: format!("{} bytes that are not", data.len()),
        };
        let text = |expected| {
            san::utf8(data)
                .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
                .ok_or_else(|| malformed(expected))
        };
        let address = |length, expected| {
            san::address(data)
                .filter(|_| data.len() == length)
                .ok_or_else(|| malformed(expected))
        };
        Ok(match id_type {
            id_type::FQDN => Self::Fqdn(text("a host name")?),
            id_type::RFC822_ADDR => Self::Email(text("an e-mail address")?),
            id_type::IPV4_ADDR => Self::Address(address(4, "an IPv4 address of 4 bytes")?),
            id_type::IPV6_ADDR => Self::Address(address(16, "an IPv6 address of 16 bytes")?),
            id_type::DER_ASN1_DN => Self::Name(
                DistinguishedName::from_der(data)
                    .map_err(|_| malformed("a distinguished name in DER"))?,
            ),
            id_type => return Err(IdentityError::Unprovable { id_type }),
        })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fqdn(name) => SubjectAltName::Dns(name.clone()).fmt(f),
            Self::Email(name) => SubjectAltName::Email(name.clone()).fmt(f),
            Self::Address(address) => SubjectAltName::Ip(*address).fmt(f),
            Self::Name(name) => write!(f, "DN {name}"),
        }
    }
}

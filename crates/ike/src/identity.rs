//! Who is who: identities as people write them, and the patterns they have to match.

use std::fmt;
use std::net::IpAddr;

use cygnet_wire::id::{IdType, Identification};
use thiserror::Error;

use crate::policy::IdentityPattern;

mod dn;

/// A text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Nothing there.
    #[error("an identity is empty; expected a name, an e-mail address, an address or a DN")]
    Empty,
    /// A distinguished name, which has to be encoded first: [`Identification::dn`].
    #[error("\"{0}\" is a distinguished name, which is given as DER here")]
    DistinguishedName(String),
    /// A `*` where none may stand.
    #[error(
        "\"{0}\": a * may only be the first label of a name or all before the @ of an e-mail address"
    )]
    Wildcard(String),
    /// Characters that no name has.
    #[error("\"{0}\" is no name: spaces and control characters do not belong into it")]
    Characters(String),
}

/// "alice@example.org", "vpn.example.org", "203.0.113.5", "2001:db8::1". A name alone, such as
/// "alice", is an FQDN too, as in strongSwan.
pub fn parse(text: &str) -> Result<Identification, IdentityError> {
    let text = text.trim();
    if is_distinguished_name(text) {
        return Err(IdentityError::DistinguishedName(text.into()));
    }
    match parse_pattern(text)? {
        IdentityPattern::Exactly(identification) => Ok(identification),
        _ => Err(IdentityError::Wildcard(text.into())),
    }
}

/// As [`parse`], and "any" or "*", "*.example.org", "*@example.org".
pub fn parse_pattern(text: &str) -> Result<IdentityPattern, IdentityError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(IdentityError::Empty);
    }
    if matches!(text, "any" | "%any" | "*") {
        return Ok(IdentityPattern::Any);
    }
    if is_distinguished_name(text) {
        return Err(IdentityError::DistinguishedName(text.into()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IdentityPattern::Exactly(Identification::address(address)));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(IdentityError::Characters(text.into()));
    }
    let identification = if text.contains('@') {
        Identification::email(text)
    } else {
        Identification::fqdn(text.strip_suffix('.').unwrap_or(text))
    };
    match text.strip_prefix('*') {
        None if !text.contains('*') => Ok(IdentityPattern::Exactly(identification)),
        Some(rest)
            if !rest.contains('*')
                && rest.len() > 1
                && (rest.starts_with('@') || (rest.starts_with('.') && !rest.contains('@'))) =>
        {
            Ok(IdentityPattern::Suffix(identification))
        }
        _ => Err(IdentityError::Wildcard(text.into())),
    }
}

/// Whether a text is meant as a distinguished name: "CN=alice", "C=XX, O=lab, CN=alice".
pub fn is_distinguished_name(text: &str) -> bool {
    let Some((kind, _)) = text.split_once('=') else {
        return false;
    };
    !kind.contains('@')
        && kind
            .trim()
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.')
}

/// Whether two identities are the same: names and the domains of e-mail addresses in any case,
/// distinguished names as RFC 5280 §7.1 compares them, everything else to the bit.
pub fn same(a: &Identification, b: &Identification) -> bool {
    if a.ty != b.ty {
        return false;
    }
    match a.ty {
        IdType::ID_FQDN => without_dot(&a.data).eq_ignore_ascii_case(without_dot(&b.data)),
        IdType::ID_RFC822_ADDR => match (at(&a.data), at(&b.data)) {
            (Some((local_a, domain_a)), Some((local_b, domain_b))) => {
                local_a == local_b && domain_a.eq_ignore_ascii_case(domain_b)
            }
            _ => a.data == b.data,
        },
        IdType::ID_DER_ASN1_DN => a.data == b.data || dn::matches(&a.data, &b.data, false),
        _ => a.data == b.data,
    }
}

impl IdentityPattern {
    /// Whether this identity is accepted. (That the peer has it is for its credentials to prove.)
    pub fn matches(&self, identity: &Identification) -> bool {
        match self {
            IdentityPattern::Any => true,
            IdentityPattern::Exactly(exactly) => same(exactly, identity),
            IdentityPattern::Suffix(pattern) => {
                pattern.ty == identity.ty
                    && pattern.data.strip_prefix(b"*").is_some_and(|suffix| {
                        let name = match identity.ty {
                            IdType::ID_FQDN => without_dot(&identity.data),
                            _ => &identity.data,
                        };
                        // Something has to stand for the star.
                        name.len().checked_sub(suffix.len()).is_some_and(|cut| {
                            cut > 0
                                && name
                                    .get(cut..)
                                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
                        })
                    })
            }
            IdentityPattern::DnTemplate(template) => {
                identity.ty == IdType::ID_DER_ASN1_DN && dn::matches(template, &identity.data, true)
            }
            IdentityPattern::AnyOf(patterns) => patterns.iter().any(|p| p.matches(identity)),
        }
    }
}

/// An identity for people; distinguished names come out as "C=XX, O=lab, CN=alice".
pub fn display(identity: &Identification) -> String {
    match identity.ty {
        IdType::ID_DER_ASN1_DN => dn::to_text(&identity.data),
        _ => None,
    }
    .unwrap_or_else(|| identity.to_string())
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityPattern::Any => f.write_str("any identity"),
            IdentityPattern::Exactly(identity) | IdentityPattern::Suffix(identity) => {
                f.write_str(&display(identity))
            }
            IdentityPattern::DnTemplate(der) => f.write_str(&display(&Identification::dn(der))),
            IdentityPattern::AnyOf(patterns) => {
                patterns.iter().enumerate().try_for_each(|(i, pattern)| {
                    let or = if i == 0 { "" } else { " or " };
                    write!(f, "{or}{pattern}")
                })
            }
        }
    }
}

/// A host name without the dot at its end.
fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

/// What stands before and after the last @.
fn at(address: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = address.iter().rposition(|octet| *octet == b'@')?;
    let (local, domain) = address.split_at_checked(at)?;
    Some((local, domain.strip_prefix(b"@")?))
}

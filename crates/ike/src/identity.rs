//! Who is who: identities as people write them, and the patterns they have to match.

use std::fmt;
use std::net::IpAddr;

use cygnet_wire::id::{IdType, Identification};
use thiserror::Error;

use crate::policy::IdentityPattern;

mod dn;

/// The longest identity of a peer, in octets: whoever knows a key shared by all clients can call itself anything, and
/// who was there is remembered.
pub const IDENTITY_MAX: usize = 1024;

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
        // A user's name, mostly.
        IdType::ID_KEY_ID => std::str::from_utf8(&identity.data)
            .ok()
            .filter(|text| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()))
            .map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> IdentityPattern {
        parse_pattern(text).unwrap()
    }

    #[track_caller]
    fn matches(text: &str, identity: &str) -> bool {
        pattern(text).matches(&parse(identity).unwrap())
    }

    #[test]
    fn texts_mean_what_people_mean_by_them() {
        for (text, ty) in [
            ("alice@example.org", IdType::ID_RFC822_ADDR),
            ("vpn.example.org", IdType::ID_FQDN),
            ("vpn.example.org.", IdType::ID_FQDN),
            ("alice", IdType::ID_FQDN),
            ("203.0.113.5", IdType::ID_IPV4_ADDR),
            ("2001:db8::1", IdType::ID_IPV6_ADDR),
            (" padded.example.org ", IdType::ID_FQDN),
        ] {
            let identity = parse(text).unwrap();
            assert_eq!(identity.ty, ty, "{text}");
            assert_eq!(display(&identity), text.trim().trim_end_matches('.'));
        }
        assert_eq!(pattern("any"), IdentityPattern::Any);
        assert_eq!(pattern("%any"), IdentityPattern::Any);
        assert_eq!(pattern("*"), IdentityPattern::Any);
    }

    #[test]
    fn what_names_nobody_is_refused_with_the_reason() {
        assert_eq!(parse(" "), Err(IdentityError::Empty));
        for dn in ["CN=alice", "C=XX, O=lab, CN=*", "2.5.4.3=x"] {
            assert!(matches!(
                parse(dn),
                Err(IdentityError::DistinguishedName(_))
            ));
            assert!(matches!(
                parse_pattern(dn),
                Err(IdentityError::DistinguishedName(_))
            ));
        }
        // An equals sign in a mail address is none of a name.
        assert!(parse("a=b@example.org").is_err());
        assert!(parse("a+b=c@example.org").is_ok());
        assert!(matches!(
            parse("two words"),
            Err(IdentityError::Characters(_))
        ));
        for text in ["*.*.org", "a*.org", "*.", "*@", "*org", "vpn.*", "*.a@b"] {
            assert!(
                matches!(parse_pattern(text), Err(IdentityError::Wildcard(_))),
                "{text}"
            );
        }
        assert!(matches!(parse("*"), Err(IdentityError::Wildcard(_))));
        assert!(matches!(
            parse("*.example.org"),
            Err(IdentityError::Wildcard(_))
        ));
    }

    #[test]
    fn names_match_in_any_case_and_mail_boxes_exactly() {
        assert!(matches("vpn.example.org", "VPN.Example.ORG"));
        assert!(!matches("vpn.example.org", "vpn.example.com"));
        assert!(matches("alice@example.org", "alice@EXAMPLE.org"));
        assert!(!matches("alice@example.org", "Alice@example.org"));
        assert!(!matches("alice@example.org", "bob@example.org"));
        assert!(matches("203.0.113.5", "203.0.113.5"));
        assert!(matches("any", "whoever"));
    }

    /// The kind counts: a peer that names itself by a text is not the address of that text.
    #[test]
    fn another_kind_of_identity_is_another_identity() {
        let text = Identification::fqdn("203.0.113.5");
        assert!(!pattern("203.0.113.5").matches(&text));
        let mail = Identification {
            ty: IdType::ID_RFC822_ADDR,
            data: b"vpn.example.org".to_vec(),
        };
        assert!(!pattern("vpn.example.org").matches(&mail));
        assert!(!pattern("*.example.org").matches(&mail));
    }

    #[test]
    fn a_star_stands_for_something_at_the_front() {
        assert!(matches("*.example.org", "vpn.example.org"));
        assert!(matches("*.example.org", "a.b.EXAMPLE.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("*.example.org", "vpn.example.org.evil.net"));
        assert!(!matches("*.example.org", "evilexample.org"));
        assert!(!pattern("*.example.org").matches(&Identification::fqdn(".example.org")));
        assert!(matches("*@example.org", "alice@example.org"));
        assert!(!matches("*@example.org", "alice@sub.example.org"));
        assert!(!pattern("*@example.org").matches(&Identification::email("@example.org")));
    }

    #[test]
    fn one_of_several_suffices() {
        let any_of = IdentityPattern::AnyOf(vec![pattern("a.org"), pattern("*@b.org")]);
        assert!(any_of.matches(&parse("a.org").unwrap()));
        assert!(any_of.matches(&parse("x@b.org").unwrap()));
        assert!(!any_of.matches(&parse("b.org").unwrap()));
        assert!(!IdentityPattern::AnyOf(Vec::new()).matches(&parse("a.org").unwrap()));
        assert_eq!(any_of.to_string(), "a.org or *@b.org");
    }

    #[test]
    fn key_ids_match_to_the_bit() {
        let exactly = IdentityPattern::Exactly(Identification::key_id(b"Key"));
        assert!(exactly.matches(&Identification::key_id(b"Key")));
        assert!(!exactly.matches(&Identification::key_id(b"key")));
    }
}

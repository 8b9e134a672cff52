//! Name constraints (RFC 5280 §4.2.1.10): DNS, e-mail, IP and directory names; other kinds refuse names of that kind.

use std::net::IpAddr;

use crate::{
    SubjectAltName,
    der::{self, Reader, tag},
    name::{self, Rdns},
    san::{self, general_name},
};

use super::{Certificate, ChainError};

/// The extension, decoded.
#[derive(Debug, Default)]
pub(crate) struct NameConstraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

#[derive(Debug)]
enum Subtree {
    Dns(String),
    Email(String),
    /// Address and mask, one behind the other: 8 or 32 bytes.
    Ip(Vec<u8>),
    Directory(Rdns),
    /// A kind that is not compared, by its context tag.
    Other(u8),
}

impl NameConstraints {
    /// Reads the extension's value; `None` where any of it does not decode or uses what §4.2.1.10 forbids.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = Reader::new(der::single(value, tag::SEQUENCE)?.content);
        let mut out = Self::default();
        while !parts.is_empty() {
            let part = parts.element()?;
            let list = match part.tag {
                0xa0 if out.permitted.is_empty() && out.excluded.is_empty() => &mut out.permitted,
                0xa1 if out.excluded.is_empty() => &mut out.excluded,
                _ => return None,
            };
            let mut subtrees = Reader::new(part.content);
            while !subtrees.is_empty() {
                let mut subtree = Reader::new(subtrees.expect(tag::SEQUENCE)?.content);
                list.push(Subtree::parse(subtree.element()?)?);
                if list.len() > san::MAX_NAMES {
                    return None;
                }
                // minimum is 0, which DER leaves out, and maximum is absent.
                if !subtree.is_empty() {
                    return None;
                }
            }
            if list.is_empty() {
                return None;
            }
        }
        Some(out)
    }

    /// Checks every name of `certificate` against this extension of `authority`.
    pub(super) fn check(
        &self,
        certificate: &Certificate<'_>,
        authority: &Certificate<'_>,
    ) -> Result<(), ChainError> {
        let subject = (!certificate.subject.is_empty())
            .then(|| SubjectAltName::Directory(certificate.subject_name()));
        let emails = name::emails(certificate.x509.subject().as_raw())
            .into_iter()
            .map(SubjectAltName::Email);
        let names = certificate.extensions.names.iter().cloned();
        for name in subject.into_iter().chain(emails).chain(names) {
            let violation = |excluded| ChainError::NameConstraint {
                subject: certificate.subject_text(),
                name: name.to_string(),
                authority: authority.subject_text(),
                excluded,
            };
            let mut permitted = None;
            for subtree in &self.permitted {
                if let Some(inside) = subtree.contains(&name) {
                    permitted = Some(permitted.unwrap_or(false) || inside.in_permitted());
                }
            }
            if permitted == Some(false) {
                return Err(match self.uncomparable(&name) {
                    true => unsupported(certificate, &name, authority),
                    false => violation(false),
                });
            }
            for subtree in &self.excluded {
                if subtree.contains(&name).is_some_and(Inside::in_excluded) {
                    return Err(match self.uncomparable(&name) {
                        true => unsupported(certificate, &name, authority),
                        false => violation(true),
                    });
                }
            }
        }
        Ok(())
    }

    fn uncomparable(&self, name: &SubjectAltName) -> bool {
        let mut subtrees = self.permitted.iter().chain(&self.excluded);
        subtrees.any(|it| {
            it.contains(name) == Some(Inside::Unknown) && !matches!(it, Subtree::Email(_))
        })
    }
}

fn unsupported(
    certificate: &Certificate<'_>,
    name: &SubjectAltName,
    authority: &Certificate<'_>,
) -> ChainError {
    ChainError::UnsupportedNameConstraint {
        subject: certificate.subject_text(),
        name: name.to_string(),
        authority: authority.subject_text(),
    }
}

/// Whether a name lies in a subtree. What cannot be told counts against the certificate either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Yes,
    No,
    Unknown,
}

impl Inside {
    fn in_permitted(self) -> bool {
        self == Self::Yes
    }

    fn in_excluded(self) -> bool {
        self != Self::No
    }
}

impl From<bool> for Inside {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Subtree {
    fn parse(base: der::Element<'_>) -> Option<Self> {
        Some(match base.tag {
            general_name::DNS => Self::Dns(san::utf8(base.content)?),
            general_name::RFC822 => Self::Email(san::utf8(base.content)?),
            general_name::IP if matches!(base.content.len(), 8 | 32) => {
                Self::Ip(base.content.to_vec())
            }
            general_name::IP => return None,
            general_name::DIRECTORY => Self::Directory(name::rdns(base.content)?),
            other if other & 0xc0 == 0x80 => Self::Other(other & 0x1f),
            _ => return None,
        })
    }

    /// `None` where the name is of another kind than the subtree.
    fn contains(&self, name: &SubjectAltName) -> Option<Inside> {
        const URI: u8 = general_name::URI & 0x1f;
        match (self, name) {
            (Self::Dns(base), SubjectAltName::Dns(name)) => Some(dns_within(name, base).into()),
            (Self::Email(base), SubjectAltName::Email(name)) => Some(email_within(name, base)),
            (Self::Ip(base), SubjectAltName::Ip(address)) => {
                Some(address_within(address, base).into())
            }
            (Self::Directory(base), SubjectAltName::Directory(name)) => {
                let inside = name::rdns(name.as_der()).is_some_and(|it| it.starts_with(base));
                Some(inside.into())
            }
            (Self::Other(URI), SubjectAltName::Uri(_)) => Some(Inside::Unknown),
            (Self::Other(kind), SubjectAltName::Other(other)) if kind == other => {
                Some(Inside::Unknown)
            }
            _ => None,
        }
    }
}

/// The base itself and everything below it; with a leading dot only what is below (as openssl reads it).
fn dns_within(name: &str, base: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let base = base.strip_suffix('.').unwrap_or(base).to_ascii_lowercase();
    match name.strip_suffix(base.as_str()) {
        Some("") => !base.starts_with('.'),
        Some(front) => base.is_empty() || base.starts_with('.') || front.ends_with('.'),
        None => false,
    }
}

/// `user@host`: that mailbox; `host`: all of that host; `.domain`: all hosts below it.
fn email_within(name: &str, base: &str) -> Inside {
    let Some((local, host)) = name.rsplit_once('@') else {
        return Inside::Unknown;
    };
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => {
            (local == base_local && host.eq_ignore_ascii_case(base_host)).into()
        }
        None if base.starts_with('.') => host
            .to_ascii_lowercase()
            .ends_with(&base.to_ascii_lowercase())
            .into(),
        None => (base.is_empty() || host.eq_ignore_ascii_case(base)).into(),
    }
}

fn address_within(address: &IpAddr, base: &[u8]) -> bool {
    let bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if base.len() != bytes.len() * 2 {
        return false;
    }
    let (network, mask) = base.split_at(bytes.len());
    bytes
        .iter()
        .zip(network)
        .zip(mask)
        .all(|((byte, network), mask)| byte & mask == network & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_subtrees() {
        for (name, base, inside) in [
            ("gw.example.org", "example.org", true),
            ("example.org", "example.org", true),
            ("EXAMPLE.org.", "example.ORG", true),
            ("badexample.org", "example.org", false),
            ("org", "example.org", false),
            ("gw.example.org", ".example.org", true),
            ("example.org", ".example.org", false),
            ("anything", "", true),
            ("a.b", "b", true),
        ] {
            assert_eq!(dns_within(name, base), inside, "{name} in {base}");
        }
    }

    #[test]
    fn email_subtrees() {
        for (name, base, inside) in [
            ("alice@example.org", "example.org", Inside::Yes),
            ("alice@EXAMPLE.org", "example.ORG", Inside::Yes),
            ("alice@sub.example.org", "example.org", Inside::No),
            ("alice@sub.example.org", ".example.org", Inside::Yes),
            ("alice@example.org", ".example.org", Inside::No),
            ("alice@example.org", "alice@example.org", Inside::Yes),
            ("Alice@example.org", "alice@example.org", Inside::No),
            ("bob@example.org", "alice@example.org", Inside::No),
            ("no mailbox", "example.org", Inside::Unknown),
        ] {
            assert_eq!(email_within(name, base), inside, "{name} in {base}");
        }
    }

    #[test]
    fn address_subtrees() {
        let base = [192, 0, 2, 0, 255, 255, 255, 0];
        let within = |text: &str| address_within(&text.parse().expect(text), &base);
        assert!(within("192.0.2.255"));
        assert!(!within("192.0.3.0"));
        assert!(!within("::ffff:192.0.2.1"));
        let mut all_of_v6 = [0; 32];
        assert!(address_within(
            &"2001:db8::1".parse().expect("v6"),
            &all_of_v6
        ));
        all_of_v6[16] = 0xff;
        assert!(!address_within(
            &"2001:db8::1".parse().expect("v6"),
            &all_of_v6
        ));
    }

    #[test]
    fn what_is_not_understood_is_not_passed_over() {
        let sequence = |content: &[u8]| der::element(tag::SEQUENCE, content);
        let subtree = |base: &[u8]| sequence(base);
        let permitted = |subtrees: &[u8]| sequence(&der::element(0xa0, subtrees));
        let dns = der::element(general_name::DNS, b"example.org");
        assert!(NameConstraints::parse(&permitted(&subtree(&dns))).is_some());
        let minimum = [dns.clone(), der::element(0x80, &[1])].concat();
        let address = der::element(general_name::IP, &[192, 0, 2, 1]);
        for bad in [
            permitted(&[]),
            permitted(&subtree(&minimum)),
            permitted(&subtree(&address)),
            permitted(&subtree(&der::element(0x82, &[0xff]))),
            sequence(&der::element(0xa2, &subtree(&dns))),
            sequence(&der::element(0xa1, &subtree(&dns)).repeat(2)),
            [permitted(&subtree(&dns)), vec![0]].concat(),
        ] {
            assert!(NameConstraints::parse(&bad).is_none(), "{bad:02x?}");
        }
    }
}

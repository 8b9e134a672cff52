//! Names beside the subject: GeneralName (RFC 5280 §4.2.1.6), read strictly.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    DistinguishedName,
    der::{self, Reader, tag},
    name,
};

/// One subject alternative name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectAltName {
    /// dNSName.
    Dns(String),
    /// rfc822Name, an e-mail address.
    Email(String),
    /// iPAddress.
    Ip(IpAddr),
    /// directoryName.
    Directory(DistinguishedName),
    /// uniformResourceIdentifier.
    Uri(String),
    /// otherName, x400Address, ediPartyName, registeredID: by its context tag, contents not looked at.
    Other(u8),
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = |text: &str| -> String {
            let mark = |c| {
                if name::is_unprintable(c) {
                    '\u{fffd}'
                } else {
                    c
                }
            };
            text.chars().map(mark).collect()
        };
        match self {
            Self::Dns(name) => write!(f, "DNS:{}", clean(name)),
            Self::Email(name) => write!(f, "email:{}", clean(name)),
            Self::Ip(address) => write!(f, "IP:{address}"),
            Self::Directory(name) => write!(f, "DN:{name}"),
            Self::Uri(name) => write!(f, "URI:{}", clean(name)),
            Self::Other(0) => f.write_str("an otherName"),
            Self::Other(3) => f.write_str("an x400Address"),
            Self::Other(5) => f.write_str("an ediPartyName"),
            Self::Other(8) => f.write_str("a registeredID"),
            Self::Other(other) => write!(f, "a name of kind {other}"),
        }
    }
}

/// Context tags of GeneralName; constructed ones carry 0x20.
pub(crate) mod general_name {
    pub(crate) const RFC822: u8 = 0x81;
    pub(crate) const DNS: u8 = 0x82;
    pub(crate) const DIRECTORY: u8 = 0xa4;
    pub(crate) const URI: u8 = 0x86;
    pub(crate) const IP: u8 = 0x87;
}

/// How many names or subtrees one extension may hold: each name meets each subtree.
pub(crate) const MAX_NAMES: usize = 1024;

/// Reads the extension's value; `None` where any of it does not decode, or there are more than [`MAX_NAMES`].
pub(crate) fn parse(value: &[u8]) -> Option<Vec<SubjectAltName>> {
    let mut names = Reader::new(der::single(value, tag::SEQUENCE)?.content);
    let mut out = Vec::new();
    while !names.is_empty() {
        if out.len() == MAX_NAMES {
            return None;
        }
        let name = names.element()?;
        out.push(match name.tag {
            general_name::RFC822 => SubjectAltName::Email(utf8(name.content)?),
            general_name::DNS => SubjectAltName::Dns(utf8(name.content)?),
            general_name::URI => SubjectAltName::Uri(utf8(name.content)?),
            general_name::IP => SubjectAltName::Ip(address(name.content)?),
            general_name::DIRECTORY => {
                SubjectAltName::Directory(DistinguishedName::from_der(name.content).ok()?)
            }
            other if other & 0xc0 == 0x80 => SubjectAltName::Other(other & 0x1f),
            _ => return None,
        });
    }
    Some(out)
}

pub(crate) fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_string)
}

pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_shown() {
        let mut value = Vec::new();
        for (tag, content) in [
            (0x82u8, &b"gw.example"[..]),
            (0x81, b"a@b"),
            (0x87, &[192, 0, 2, 1]),
            (0x86, b"https://x/"),
            (0xa0, &[0x06, 1, 0x2a]),
            (0x88, &[0x2a]),
        ] {
            value.extend(der::element(tag, content));
        }
        let names = parse(&der::element(tag::SEQUENCE, &value)).expect("decodes");
        let shown: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "DNS:gw.example",
                "email:a@b",
                "IP:192.0.2.1",
                "URI:https://x/",
                "an otherName",
                "a registeredID"
            ]
        );
        for bad in [
            &[0x30, 3, 0x82, 1, 0xff][..],
            &[0x30, 5, 0x87, 3, 1, 2, 3],
            &[0x30, 3, 0x04, 1, 0],
            &[0x30, 2, 0x82, 1],
        ] {
            assert_eq!(parse(bad), None, "{bad:02x?}");
        }
    }
}

//! Names of users, devices and servers, checked once where they come in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use cygnet_pki::SubjectAltName;
use ipnet::IpNet;

use crate::error::{Error, refused};
use crate::pool::is_private;

/// A user's or a device's name: `[a-z0-9][a-z0-9-]{0,31}`. It ends up in e-mail addresses, file names and log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let good = (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            return Ok(Self(text.to_owned()));
        }
        refused(format!(
            "{text:?} is no name: expected 1 to 32 of the characters a-z, 0-9 and -, the first of them no -"
        ))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What clients call the server by: a host name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name (RFC 1123 §2.1).
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl Address {
    /// As it stands in the certificate. An address stands there as a host name, too: Windows compares what it calls
    /// with host names alone (error 13801), as some of Apple's systems do.
    pub fn subject_alt_names(&self) -> Vec<SubjectAltName> {
        match self {
            Self::Name(name) => vec![SubjectAltName::Dns(name.clone())],
            Self::Ip(address) => vec![
                SubjectAltName::Ip(*address),
                SubjectAltName::Dns(address.to_string()),
            ],
        }
    }

    /// Refuses what means this machine, or its own network, to whoever says it: no client elsewhere gets here by it.
    pub fn check_callable(&self) -> Result<(), Error> {
        let is_callable = match self {
            Self::Name(name) => name != "localhost" && !name.ends_with(".localhost"),
            Self::Ip(address) => match address.to_canonical() {
                IpAddr::V4(v4) => {
                    let [first, ..] = v4.octets();
                    !(v4.is_loopback() || v4.is_link_local() || v4.is_broadcast() || first == 0)
                }
                IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local()),
            },
        };
        match is_callable {
            true => Ok(()),
            false => refused(format!(
                "{self} is no address that a client could call: expected the one by which this machine is reached from \
                 the internet, or better a host name for it"
            )),
        }
    }

    /// Whether it is an address that only those inside the same network reach.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Ip(address) => is_private(&IpNet::from(address.to_canonical())),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse::<IpAddr>() {
            if address.is_unspecified() || address.is_multicast() {
                return refused(format!("{address} is no address that a client could call"));
            }
            return Ok(Self::Ip(address));
        }
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // Digits and dots alone are an address written wrongly, never a name.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !numeric && text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self::Name(text.to_ascii_lowercase()));
        }
        refused(format!(
            "{text:?} is neither a host name nor an address: expected one such as vpn.example.org or 203.0.113.5 \
             (internationalised names as xn--…)"
        ))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_harmless_in_files_and_addresses() {
        for good in ["a", "alice", "0-1", "a23456789012345678901234567890ab"] {
            assert_eq!(good.parse::<Name>().expect(good).as_str(), good);
        }
        let long = "a".repeat(33);
        for bad in [
            "", "-a", "Alice", "a/b", "..", "a.b", "a b", "ä", "a\n", &long,
        ] {
            let told = bad.parse::<Name>().expect_err(bad).to_string();
            assert!(told.contains("is no name: expected"), "{told}");
        }
    }

    #[test]
    fn an_address_is_found_as_a_host_name_too() {
        let names = |text: &str| {
            let address = text.parse::<Address>().expect(text);
            let names = address.subject_alt_names();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("vpn.example.org"), ["DNS:vpn.example.org"]);
        assert_eq!(names("203.0.113.5"), ["IP:203.0.113.5", "DNS:203.0.113.5"]);
        assert_eq!(names("2001:DB8::5"), ["IP:2001:db8::5", "DNS:2001:db8::5"]);
    }

    #[test]
    fn what_no_client_could_call_is_refused() {
        let address = |text: &str| text.parse::<Address>().expect(text);
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "169.254.1.1",
            "255.255.255.255",
            "0.1.2.3",
            "localhost",
            "LOCALHOST",
            "vpn.localhost",
        ] {
            let told = address(bad).check_callable().expect_err(bad).to_string();
            assert!(
                told.contains("no address that a client could call"),
                "{told}"
            );
        }
        for good in [
            "203.0.113.5",
            "2001:db8::5",
            "vpn.example.org",
            "192.168.1.5",
        ] {
            assert!(address(good).check_callable().is_ok(), "{good}");
        }
        for (text, private) in [
            ("192.168.1.5", true),
            ("100.64.0.1", true),
            ("fd00::1", true),
            ("203.0.113.5", false),
            ("2001:db8::5", false),
            ("vpn.example.org", false),
        ] {
            assert_eq!(address(text).is_private(), private, "{text}");
        }
    }

    #[test]
    fn addresses_are_names_or_numbers() {
        let shown = |text: &str| text.parse::<Address>().map(|it| it.to_string());
        assert_eq!(shown("VPN.example.org").expect("a name"), "vpn.example.org");
        assert_eq!(shown("2001:DB8::5").expect("an address"), "2001:db8::5");
        for bad in [
            "",
            "1.2.3",
            "300.1.1.1",
            "0.0.0.0",
            "ff02::1",
            "a..b",
            "a_b",
            "vpn.example.org/",
            "-a.b",
            "ä.de",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}

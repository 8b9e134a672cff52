//! What the profile's texts may be. Names that end up in paths, identities and foreign configuration languages are
//! kept to letters those all agree on; only what people read (title, names of Wi-Fi networks) may be anything printable.

use std::net::IpAddr;

use super::Error;

fn check(good: bool, what: &'static str, expected: &'static str, found: &str) -> Result<(), Error> {
    if good {
        return Ok(());
    }
    Err(Error::Text {
        what,
        expected,
        found: found.to_owned(),
    })
}

/// A user's or device's name.
pub(super) fn name(what: &'static str, text: &str) -> Result<(), Error> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = (1..=32).contains(&text.len())
        && text.bytes().all(|b| letter(b) || b == b'-')
        && !text.starts_with('-');
    check(
        good,
        what,
        "1 to 32 of the letters a-z, digits and `-`, the first no `-`",
        text,
    )
}

/// The name of a tunnel, as `cygnet.toml` takes it.
pub(super) fn tunnel(what: &'static str, text: &str) -> Result<(), Error> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let good = (1..=32).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('-');
    check(
        good,
        what,
        "1 to 32 letters, digits, `-` and `_`, the first no `-`",
        text,
    )
}

/// A secret that every format writes as it is. It is not repeated.
pub(super) fn secret(what: &'static str, text: &str) -> Result<(), Error> {
    let good = (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    check(good, what, "16 to 128 letters and digits", "something else")
}

/// A host name or an address.
pub(super) fn host(what: &'static str, text: &str) -> Result<(), Error> {
    check(
        is_host(text),
        what,
        "a host name or an address, such as vpn.example.org or 203.0.113.5",
        text,
    )
}

/// An identity: a host or an e-mail address.
pub(super) fn identity(what: &'static str, text: &str) -> Result<(), Error> {
    let good = match text.split_once('@') {
        None => is_host(text),
        Some((mailbox, host)) => {
            (1..=128).contains(&mailbox.len())
                && mailbox
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
                && !mailbox.starts_with(['-', '.'])
                && is_host(host)
        }
    };
    check(
        good,
        what,
        "a host name, an address or an e-mail address",
        text,
    )
}

/// Longest name of a Wi-Fi network, in octets (IEEE 802.11 §9.4.2.2).
const SSID_MAX: usize = 32;

/// Refuses names that no Wi-Fi network has, or that no profile can carry.
pub fn check_ssid(ssid: &str) -> Result<(), Error> {
    check(
        is_printable(ssid, SSID_MAX),
        "the name of a trusted Wi-Fi network",
        "1 to 32 octets on one line, without control characters, and not spaces alone",
        ssid,
    )
}

/// What people read: anything but control characters, up to so many octets.
pub(super) fn printable(what: &'static str, text: &str, octets: usize) -> Result<(), Error> {
    check(
        is_printable(text, octets),
        what,
        "a text of one line without control characters, not empty, not longer than allowed",
        text,
    )
}

fn is_printable(text: &str, octets: usize) -> bool {
    // XML 1.0 §2.2 has no place for U+FFFE and U+FFFF either.
    let odd =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}');
    !text.trim().is_empty() && text.len() <= octets && !text.contains(odd)
}

fn is_host(text: &str) -> bool {
    // Digits and dots alone are an address written wrongly, never a name.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.parse::<IpAddr>().is_ok() || (!numeric && text.len() <= 253 && text.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_up_in_paths() {
        for good in ["a", "alice", "4-u", "iphone-2"] {
            assert_eq!(name("user", good), Ok(()));
        }
        for bad in ["", "-a", "Alice", "a.b", "a/b", "..", "a b", "ä", "a\n"] {
            assert!(name("user", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_networks_are_what_a_profile_can_carry() {
        for good in ["Home & \"Garden\"", " büro", &"x".repeat(32)] {
            assert_eq!(check_ssid(good), Ok(()));
        }
        for bad in [
            "",
            " ",
            "a\nb",
            "a\u{2028}b",
            "a\u{ffff}",
            &"x".repeat(33),
            &"ü".repeat(17),
        ] {
            assert!(check_ssid(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn identities_are_hosts_and_mailboxes() {
        for good in [
            "vpn.example.org",
            "203.0.113.5",
            "2001:db8::1",
            "a.b@1a2b.cygnet.internal",
        ] {
            assert_eq!(identity("identity", good), Ok(()));
        }
        for bad in [
            "",
            "@",
            "@x.y",
            "a@",
            "C=DE, CN=x",
            "%any",
            "a b",
            "256.1.1.1",
            "x\"y",
            "#00",
        ] {
            assert!(identity("identity", bad).is_err(), "{bad:?}");
        }
    }
}

//! Pseudonyms for addresses and names, so that a report can be shown to strangers.
//!
//! Whatever looks like an address is one: in a text of somebody else's as well. Names look like any word, and are
//! those that the configuration and the program know. The same address, or name, has the same pseudonym throughout.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What has been given a pseudonym so far.
pub(crate) struct Mask {
    /// Longest first: a name may be a part of another.
    names: Vec<String>,
    known: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Mask {
    /// One that covers these names as well.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names
            .into_iter()
            .map(|name| name.trim().to_lowercase())
            // Of an address the address is covered, as such.
            .filter(|name| !name.is_empty() && name.parse::<IpAddr>().is_err())
            .collect();
        names.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        names.dedup();
        Self {
            names,
            known: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// The text with pseudonyms in it.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let starts_here = before.is_none_or(|c| !is_of_a_word(c));
            let found = starts_here.then(|| self.find(rest)).flatten();
            let length = match found {
                Some((length, pseudonym)) => {
                    out.push_str(&pseudonym);
                    length
                }
                None => {
                    out.push(first);
                    first.len_utf8()
                }
            };
            let (taken, left) = rest.split_at(length);
            before = taken.chars().last();
            rest = left;
        }
        out
    }

    /// What stands at the beginning of `rest` and is to be covered: its length, and its pseudonym.
    fn find(&mut self, rest: &str) -> Option<(usize, String)> {
        let name = self.names.iter().find(|name| begins_with(rest, name));
        if let Some(name) = name.cloned() {
            return Some((name.len(), self.pseudonym("name", &name)));
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || ".:%_-+@".contains(c)))
            .unwrap_or(rest.len());
        let mut word = rest.get(..end)?;
        loop {
            if let Some(found) = self.cover(word) {
                return Some(found);
            }
            // A sentence may end behind it.
            word = word.strip_suffix(['.', ':', '-'])?;
        }
    }

    /// As [`Self::find`], of a whole word.
    fn cover(&mut self, word: &str) -> Option<(usize, String)> {
        let ends = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if word.contains('@') && ends(word.chars().next()) && ends(word.chars().last()) {
            return Some((word.len(), self.pseudonym("name", &word.to_lowercase())));
        }
        if is_mac(word) {
            return Some((word.len(), self.pseudonym("mac", &word.to_lowercase())));
        }
        let (address, length) = match word.parse::<SocketAddr>() {
            Ok(SocketAddr::V4(socket)) => (IpAddr::V4(*socket.ip()), socket.ip().to_string().len()),
            _ => {
                let address = word.split('%').next().unwrap_or_default();
                (address.parse().ok()?, address.len())
            }
        };
        let kind = kind(address)?;
        Some((length, self.pseudonym(kind, &address.to_string())))
    }

    fn pseudonym(&mut self, kind: &'static str, of: &str) -> String {
        if let Some(known) = self.known.get(of) {
            return known.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let pseudonym = format!("{kind}-{count}");
        self.known.insert(of.to_owned(), pseudonym.clone());
        pseudonym
    }
}

/// What a reader has to know of an address; `None`: it is everybody's, and tells nothing.
fn kind(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return None;
    }
    Some(match address {
        IpAddr::V4(a) if a.is_broadcast() => return None,
        IpAddr::V4(a) if a.is_private() || a.is_link_local() => "private-ipv4",
        IpAddr::V4(_) => "public-ipv4",
        IpAddr::V6(a) if a.is_unicast_link_local() || a.is_unique_local() => "private-ipv6",
        IpAddr::V6(_) => "public-ipv6",
    })
}

fn is_mac(word: &str) -> bool {
    let mut groups = 0;
    let hex = word.split(':').all(|group| {
        groups += 1;
        group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit())
    });
    hex && groups == 6
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || "._-".contains(c)
}

/// Whether `rest` begins with the name, in whatever case, and the name ends there.
fn begins_with(rest: &str, name: &str) -> bool {
    let Some(start) = rest.get(..name.len()) else {
        return false;
    };
    let mut behind = rest.get(name.len()..).unwrap_or_default().chars();
    let ends = match behind.next() {
        None => true,
        // A sentence may end behind it, and a domain go on.
        Some('.') => behind.next().is_none_or(|c| !c.is_alphanumeric()),
        Some(c) => !is_of_a_word(c),
    };
    ends && start.to_lowercase() == *name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(names: &[&str], text: &str) -> String {
        let names = names.iter().map(|&name| name.to_owned());
        Mask::new(names).text(text)
    }

    #[test]
    fn addresses_are_covered_wherever_they_stand() {
        for (text, expected) in [
            ("203.0.113.5", "public-ipv4-1"),
            ("to 203.0.113.5:4500.", "to public-ipv4-1:4500."),
            (
                "(203.0.113.5), 203.0.113.6",
                "(public-ipv4-1), public-ipv4-2",
            ),
            (
                "10.99.0.0/24 and 10.99.0.0",
                "private-ipv4-1/24 and private-ipv4-1",
            ),
            ("[2001:db8::1]:500", "[public-ipv6-1]:500"),
            ("asks fe80::1%eth0: it", "asks private-ipv6-1%eth0: it"),
            (
                "fd00:1::/64 or fd00:1::.",
                "private-ipv6-1/64 or private-ipv6-1.",
            ),
            (
                "2001:DB8::0001 is 2001:db8::1",
                "public-ipv6-1 is public-ipv6-1",
            ),
            ("aa:BB:cc:dd:ee:0f", "mac-1"),
            ("alice@example.org's", "name-1's"),
            (
                "http://203.0.113.5/list.crl",
                "http://public-ipv4-1/list.crl",
            ),
        ] {
            assert_eq!(masked(&[], text), expected);
        }
    }

    #[test]
    fn what_is_everybodys_stays() {
        for text in [
            "0.0.0.0/0 and ::/0",
            "127.0.0.53",
            "at 15:04:05 for 3 s",
            "Linux 6.18.44, cygnet 0.1.0",
            "net.ipv4.conf.all.send_redirects=0",
            "/etc/cygnet/cygnet.toml:3:7",
            "ff02::1",
            "10 of 1438 bytes: ok",
            "é.: -",
        ] {
            assert_eq!(masked(&[], text), text);
        }
    }

    #[test]
    fn names_are_covered_whole_and_the_longest_first() {
        let names = [
            "lab",
            "vpn.example.org",
            "CN=vpn.example.org",
            "alice",
            "192.0.2.1",
        ];
        for (text, expected) in [
            ("vpn.example.org.", "name-1."),
            ("VPN.Example.ORG:500 vpn.example.org", "name-1:500 name-1"),
            ("(CN=vpn.example.org) expired", "(name-1) expired"),
            ("alice's phone", "name-1's phone"),
            (
                "malice, alice2, a-lab, label",
                "malice, alice2, a-lab, label",
            ),
            ("http://vpn.example.org/x", "http://name-1/x"),
            ("vpn.example.org.uk", "vpn.example.org.uk"),
            ("192.0.2.1 lab", "public-ipv4-1 name-1"),
        ] {
            assert_eq!(masked(&names, text), expected);
        }
    }

    #[test]
    fn equal_ones_stay_equal_over_many_texts() {
        let mut mask = Mask::new(["vpn.lab".to_owned()]);
        assert_eq!(mask.text("vpn.lab at 192.0.2.1"), "name-1 at public-ipv4-1");
        assert_eq!(
            mask.text("192.0.2.2, 192.0.2.1"),
            "public-ipv4-2, public-ipv4-1"
        );
        assert_eq!(mask.text("vpn.lab, bob@lab"), "name-1, name-2");
    }
}

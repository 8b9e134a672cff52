//! Domains, each with all names below it.

use std::collections::BTreeSet;

use hickory_resolver::proto::rr::Name;
use ipnet::IpNet;

/// Domains in lower case, without a final dot.
#[derive(Debug, Default)]
pub(crate) struct Domains(BTreeSet<String>);

impl Domains {
    pub(crate) fn new(domains: impl IntoIterator<Item = String>) -> Self {
        Self(domains.into_iter().collect())
    }

    /// Whether one of them is that name, or above it.
    pub(crate) fn hold(&self, name: &str) -> bool {
        self.above(name).is_some()
    }

    /// The narrowest of them that is that name, or above it.
    pub(crate) fn above(&self, name: &str) -> Option<&str> {
        let mut rest = Some(name);
        while let Some(name) = rest {
            if let Some(domain) = self.0.get(name) {
                return Some(domain);
            }
            rest = name.split_once('.').map(|(_, above)| above);
        }
        None
    }

    /// Whether one of them is that name, or the one right above it.
    pub(super) fn are_right_above(&self, name: &str) -> bool {
        let above = name.split_once('.').map(|(_, above)| above);
        self.0.contains(name) || above.is_some_and(|above| self.0.contains(above))
    }
}

/// A name as domains are written. `None` for one that cannot be: it holds a dot within a label, or what is no
/// visible ASCII, and would read as another.
pub(super) fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || matches!(byte, b'.' | b'\\') {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    Some(text)
}

/// Where the names of a network's addresses are (RFC 1035 §3.5, RFC 3596 §2.5): several domains, where its length
/// is between two labels.
pub(super) fn reverse(network: IpNet) -> Vec<String> {
    let step = match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let length = network.prefix_len().div_ceil(step) * step;
    // Of everything there is no such domain that were the LAN's.
    if length == 0 {
        return Vec::new();
    }
    let whole = network.subnets(length).into_iter().flatten();
    whole
        .map(|net| reverse_domain(net, usize::from(length / step)))
        .collect()
}

fn reverse_domain(network: IpNet, labels: usize) -> String {
    let (parts, top): (Vec<String>, &str) = match network {
        IpNet::V4(net) => (
            net.network().octets().iter().map(u8::to_string).collect(),
            "in-addr.arpa",
        ),
        IpNet::V6(net) => {
            let octets = net.network().octets();
            let nibbles = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
            (
                nibbles.map(|nibble| format!("{nibble:x}")).collect(),
                "ip6.arpa",
            )
        }
    };
    let mut domain = String::new();
    for part in parts.iter().take(labels).rev() {
        domain.push_str(part);
        domain.push('.');
    }
    domain + top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_holds_itself_and_what_is_below() {
        let domains = Domains::new(["corp.example".to_owned(), "lan".to_owned()]);
        for name in [
            "corp.example",
            "a.corp.example",
            "b.a.corp.example",
            "lan",
            "printer.lan",
        ] {
            assert!(domains.hold(name), "{name}");
        }
        for name in [
            "",
            "example",
            "xcorp.example",
            "corp.example.org",
            "lan.example",
        ] {
            assert!(!domains.hold(name), "{name}");
        }
        assert!(!Domains::default().hold("a.example"));
        let two = Domains::new(["a.example".to_owned(), "example".to_owned()]);
        assert_eq!(two.above("www.a.example"), Some("a.example"));
        assert_eq!(two.above("www.b.example"), Some("example"));
        assert_eq!(two.above("www.example.org"), None);
        for (name, expected) in [
            ("lan", true),
            ("printer.lan", true),
            ("a.corp.example", true),
            ("b.a.corp.example", false),
            ("www.example.lan", false),
            ("xlan", false),
            ("example", false),
        ] {
            assert_eq!(domains.are_right_above(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_reads_as_another_is_none() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        assert_eq!(
            text(&name("Www.Example.ORG.")).as_deref(),
            Some("www.example.org")
        );
        assert_eq!(text(&Name::root()).as_deref(), Some(""));
        let dotted = Name::from_labels([b"a.corp".as_slice(), b"example".as_slice()]).unwrap();
        assert_eq!(text(&dotted), None, "not below corp.example");
        let odd = Name::from_labels([b"a\x00".as_slice(), b"example".as_slice()]).unwrap();
        assert_eq!(text(&odd), None);
    }

    #[test]
    fn names_of_addresses_are_where_the_rfcs_say() {
        let of = |net: &str| reverse(net.parse().unwrap());
        assert_eq!(of("192.168.1.0/24"), ["1.168.192.in-addr.arpa"]);
        assert_eq!(of("10.0.0.0/8"), ["10.in-addr.arpa"]);
        assert_eq!(
            of("192.168.2.0/23"),
            ["2.168.192.in-addr.arpa", "3.168.192.in-addr.arpa"]
        );
        assert_eq!(of("192.168.1.252/30").len(), 4);
        assert_eq!(of("192.168.1.252/30")[3], "255.1.168.192.in-addr.arpa");
        assert_eq!(
            of("fd00:192:168:1::/64"),
            ["1.0.0.0.8.6.1.0.2.9.1.0.0.0.d.f.ip6.arpa"]
        );
        assert_eq!(of("fd00::/7").len(), 2);
        assert!(of("0.0.0.0/0").is_empty());
    }
}

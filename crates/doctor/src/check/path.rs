//! The way to a tunnel's server: its name, a route, an answer, and how much fits into a datagram.

use cygnet_daemon::api::IkeSaStatus;
use cygnet_gateway::{EspFraming, inner_mtu};

use crate::facts::{Facts, Host, Server, Tunnel};
use crate::probe::ike::{Answer, Found, Mtu, Outcome};
use crate::report::Check;

/// IPv6 needs links of this MTU (RFC 8200 §5), also those in a tunnel.
const LEAST: u16 = 1280;

pub(super) fn servers(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    for tunnel in &facts.tunnels {
        for host in &tunnel.hosts {
            checks.extend(self::host(facts, tunnel, host));
        }
    }
    checks
}

fn host(facts: &Facts, tunnel: &Tunnel, host: &Host) -> Vec<Check> {
    let subject = |what: &str| format!("{} ({what})", tunnel.name);
    let servers = match &host.servers {
        Ok(servers) => servers,
        Err(error) => {
            let check = Check::wrong(
                "name",
                error,
                "does the name exist, and do this machine's resolvers (/etc/resolv.conf) answer? an address in `remote` does without",
            );
            return vec![check.of(subject(&host.name))];
        }
    };
    let addresses: Vec<String> = servers.iter().map(|s| s.address.to_string()).collect();
    let mut checks = Vec::new();
    if addresses != [host.name.as_str()] {
        let good = Check::good("name", format!("is {}", addresses.join(", ")));
        checks.push(good.of(subject(&host.name)));
    }
    for server in servers {
        let address = server.address.to_string();
        let mut add = |check: Check| checks.push(check.of(subject(&address)));
        match &server.route {
            Ok(interface) => add(Check::good("route", format!("leaves by {interface}"))),
            Err(error) => {
                add(Check::wrong(
                    "route",
                    format!("there is no way there: {error}"),
                    "is the cable in, and is there a default route? `ip route`",
                ));
                continue;
            }
        }
        let found = match &server.found {
            Ok(found) => found,
            Err(error) => {
                add(Check::unknown("server", error));
                continue;
            }
        };
        for (port, outcome) in &found.ports {
            add(answer(tunnel, server, *port, *outcome));
        }
        if let Some(check) = mtu(facts, tunnel, server, found) {
            add(check);
        }
    }
    checks
}

fn answer(tunnel: &Tunnel, server: &Server, port: u16, outcome: Outcome) -> Check {
    let name = "server";
    let at = format!("UDP {port}");
    match outcome {
        Outcome::Answered(Answer::Accepted | Answer::Version) => {
            Check::good(name, format!("{at}: it answers"))
        }
        Outcome::Answered(Answer::NoProposal) => Check::wrong(
            name,
            format!("{at}: it answers, and takes none of the algorithms that are offered"),
            format!(
                "offer what it is set up for (`ike` in [tunnel.{}]), or set it up for what is offered; its log tells both",
                tunnel.name
            ),
        ),
        Outcome::Answered(Answer::Refused(error)) => Check::wrong(
            name,
            format!("{at}: it answers, and refuses with error {error} (RFC 7296 §3.10.1)"),
            "its own log says why",
        ),
        _ if server.hidden => Check::unknown(
            name,
            format!(
                "{at}: nothing can be told; a strict reverse-path filter (rp_filter = 1) keeps answers to others than cygnet away"
            ),
        )
        .try_this("`sysctl -w net.ipv4.conf.all.rp_filter=2` for as long as this takes"),
        Outcome::Silent => Check::wrong(
            name,
            format!("{at}: no answer; it is blocked on the way, or nothing runs there"),
            format!(
                "does the server run, and do its provider's firewall, its own, and the router here let UDP {port} pass? on the server `tcpdump -n udp port {port}` shows whether it arrives"
            ),
        ),
        Outcome::Refused => Check::wrong(
            name,
            format!("{at}: the host is there, and nothing listens at the port, or a firewall says so"),
            "start the VPN server there, and let the port pass its firewall",
        ),
        Outcome::Unreachable => Check::wrong(
            name,
            format!("{at}: a router on the way, or this machine, says that it cannot be reached"),
            "is the address right, and the machine up? `ip route`, `traceroute`",
        ),
        Outcome::Forbidden => Check::wrong(
            name,
            format!("{at}: a firewall of this machine forbids to send"),
            format!("let UDP {port} out: `nft list ruleset` shows the rule"),
        ),
        Outcome::TooBig => Check::wrong(
            name,
            format!("{at}: not even a call of IKE fits through"),
            "is the MTU of the interface right? `ip link`",
        ),
    }
}

/// What the tunnel lets in, beside what passes.
fn mtu(facts: &Facts, tunnel: &Tunnel, server: &Server, found: &Found) -> Option<Check> {
    let name = "mtu";
    let mtu = tunnel.mtu;
    match found.mtu {
        Mtu::Passes(size) => Some(Check::good(
            name,
            format!("packets of up to {mtu} bytes fit: datagrams of {size} arrive"),
        )),
        // Its interface has the MTU that it started with until it is up and has searched.
        Mtu::Narrow(size) if tunnel.searches_mtu && !facts.is_up(&tunnel.name) => {
            Some(Check::good(
                name,
                format!(
                    "datagrams of up to {size} bytes arrive and no larger, as the tunnel finds out by itself once it is up"
                ),
            ))
        }
        Mtu::Narrow(size) => {
            let framing = framing(facts, tunnel);
            let fits = inner_mtu(size, server.address.is_ipv6(), framing);
            let (write, note) = match fits {
                LEAST.. => (fits, ""),
                _ => (
                    LEAST,
                    ", below which IPv6 does not go; what does not fit is cut, slowly",
                ),
            };
            Some(Check::wrong(
                name,
                format!(
                    "datagrams of up to {size} bytes arrive and no larger: packets of up to {fits} bytes fit, and the tunnel takes {mtu}"
                ),
                format!(
                    "write `mtu = {write}` in [tunnel.{}]{note}, and `cygnet reload`{}",
                    tunnel.name,
                    match tunnel.searches_mtu {
                        true =>
                            "; but look once more in a minute: what became narrow just now the tunnel finds out by itself, unless its server does not help",
                        false =>
                            "; or take `search_mtu = false` out there, and the tunnel finds it out",
                    }
                ),
            ))
        }
        Mtu::Unknown => {
            let mut answers = found.ports.iter().map(|(_, outcome)| outcome);
            let answers = answers.any(|outcome| matches!(outcome, Outcome::Answered(_)));
            let unknown = || {
                Check::unknown(
                    name,
                    "this server keeps silent about what the path is probed with",
                )
            };
            answers.then(unknown)
        }
    }
}

/// What ESP adds, by the suite of the tunnel.
fn framing(facts: &Facts, tunnel: &Tunnel) -> EspFraming {
    let suites = suites(facts);
    let of_tunnel = suites.iter().find(|(name, _)| *name == tunnel.name);
    let suite = of_tunnel.map_or(tunnel.offers.as_str(), |(_, suite)| suite);
    framing_of(suite)
}

/// What ESP adds at most; where no suite is known, what the suites offered by default do.
pub(crate) fn framing_of(suite: &str) -> EspFraming {
    let is_cbc = !suite.is_empty() && !suite.contains("gcm") && !suite.contains("chacha");
    match is_cbc {
        false => EspFraming::AEAD,
        true => EspFraming {
            iv: 16,
            block: 16,
            icv: if suite.contains("sha512") { 32 } else { 16 },
        },
    }
}

/// Of each connection that is up, the suite of what it carries.
pub(super) fn suites(facts: &Facts) -> Vec<(&str, &str)> {
    facts
        .connections()
        .filter_map(|connection| {
            let suite = connection.ike_sas.iter().rev().find_map(of_first_child)?;
            Some((connection.name.as_str(), suite))
        })
        .collect()
}

fn of_first_child(sa: &IkeSaStatus) -> Option<&str> {
    sa.children.first().map(|child| child.suite.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect, found};
    use super::*;

    fn server(facts: &mut Facts) -> &mut Server {
        &mut facts.tunnels[0].hosts[0].servers.as_mut().unwrap()[0]
    }

    fn probed(facts: &mut Facts) -> &mut Found {
        server(facts).found.as_mut().unwrap()
    }

    #[test]
    fn a_name_that_is_none() {
        expect(
            |f| f.tunnels[0].hosts[0].servers = Err("cannot resolve vpn.example.org".into()),
            "Wrong name home (vpn.example.org): cannot resolve vpn.example.org",
            &["/etc/resolv.conf"],
        );
    }

    #[test]
    fn no_way_there() {
        expect(
            |f| server(f).route = Err("Network unreachable".into()),
            "Wrong route home (203.0.113.5): there is no way there: Network unreachable",
            &["`ip route`"],
        );
    }

    #[test]
    fn each_port_and_what_came_of_it() {
        use Answer::{NoProposal, Refused};
        for (outcome, told) in [
            (Outcome::Silent, "no answer; it is blocked"),
            (Outcome::Refused, "nothing listens at the port"),
            (Outcome::Unreachable, "cannot be reached"),
            (Outcome::Forbidden, "a firewall of this machine"),
            (Outcome::TooBig, "`ip link`"),
            (Outcome::Answered(NoProposal), "`ike` in [tunnel.home]"),
            (Outcome::Answered(Refused(43)), "refuses with error 43"),
        ] {
            expect(
                |f| probed(f).ports[1].1 = outcome,
                "Wrong server home (203.0.113.5): UDP 4500: ",
                &[told],
            );
        }
    }

    #[test]
    fn an_answer_that_a_filter_of_ours_may_have_taken_is_no_verdict() {
        let change = |f: &mut Facts| {
            server(f).hidden = true;
            probed(f).ports[0].1 = Outcome::Silent;
        };
        expect(
            change,
            "Unknown server home (203.0.113.5): UDP 500: ",
            &["rp_filter"],
        );
    }

    #[test]
    fn a_narrow_way_names_the_mtu_to_write() {
        let narrow = |size| move |f: &mut Facts| probed(f).mtu = Mtu::Narrow(size);
        expect(
            narrow(1400),
            "Wrong mtu home (203.0.113.5): datagrams of up to 1400 bytes",
            &["the tunnel takes 1438", "`mtu = 1338` in [tunnel.home]"],
        );
        expect(narrow(1280), "Wrong mtu ", &["`mtu = 1280`", "IPv6"]);
        let blind = |f: &mut Facts| {
            f.tunnels[0].searches_mtu = false;
            probed(f).mtu = Mtu::Narrow(1400);
        };
        expect(blind, "Wrong mtu ", &["or take `search_mtu = false` out"]);
        let cbc = |f: &mut Facts| {
            f.status = Err("it does not run".into());
            f.tunnels[0].searches_mtu = false;
            f.tunnels[0].offers = "aes128-sha256".into();
            probed(f).mtu = Mtu::Narrow(1500);
        };
        let found = found(cbc);
        let told = found.iter().find(|told| told.starts_with("Wrong mtu"));
        assert!(told.unwrap().contains("`mtu = 1422`"), "{found:#?}");
    }

    #[test]
    fn a_tunnel_that_searches_and_is_not_up_has_nothing_to_be_written() {
        let told = found(|f: &mut Facts| {
            f.status = Err("it does not run".into());
            probed(f).mtu = Mtu::Narrow(1400);
        });
        assert!(!told.iter().any(|told| told.contains("mtu")), "{told:#?}");
    }

    #[test]
    fn a_server_that_does_not_play_along_has_an_unknown_mtu() {
        let change = |f: &mut Facts| probed(f).mtu = Mtu::Unknown;
        expect(change, "Unknown mtu ", &["keeps silent"]);
    }

    #[test]
    fn what_each_suite_adds() {
        for (suite, icv) in [
            ("aes256gcm16-esn", 16),
            ("chacha20poly1305", 16),
            ("", 16),
            ("aes128-sha256-esn", 16),
            ("aes256-sha512", 32),
        ] {
            assert_eq!(framing_of(suite).icv, icv, "{suite}");
        }
        assert_eq!(framing_of("aes128-sha256").block, 16);
    }
}

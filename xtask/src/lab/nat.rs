//! What a router does to packets: masquerading, forwarded ports, a foreign firewall.

use super::failure::Result;
use super::link::{LinkCounters, counter, octets};
use super::namespace::Namespace;

/// Hides everything that leaves by `outside` behind the address of that interface.
pub fn masquerade(router: &Namespace, outside: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat_out {{\nchain post {{\ntype nat hook postrouting priority 100;\noifname \"{outside}\" masquerade\n}}\n}}\n"
    ))
}

/// Sends UDP 500 and 4500 that come in by `outside` to a host inside.
pub fn forward_ike(router: &Namespace, outside: &str, to: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat_in {{\nchain pre {{\ntype nat hook prerouting priority -100;\niifname \"{outside}\" udp dport {{ 500, 4500 }} dnat to {to}\n}}\n}}\n"
    ))
}

/// Forgets all mappings of [`masquerade`], as a router does that was restarted: what comes next gets
/// UDP ports from `first_port` on, whatever it had before.
pub fn forget_mappings(router: &Namespace, outside: &str, first_port: u16) -> Result<()> {
    let last_port = first_port.saturating_add(500);
    router.nft(&format!(
        "table ip nat_out\ndelete table ip nat_out\ntable ip nat_out {{\nchain post {{\ntype nat hook postrouting priority 100;\noifname \"{outside}\" ip protocol udp masquerade to :{first_port}-{last_port}\noifname \"{outside}\" masquerade\n}}\n}}\n"
    ))?;
    router.exec(["conntrack", "-F"])?;
    Ok(())
}

/// A firewall that is not ours, whose forward hook drops: what Docker, ufw or firewalld leave behind.
pub fn foreign_firewall(host: &Namespace) -> Result<()> {
    host.nft(
        "table inet foreign {\nchain forward {\ntype filter hook forward priority 0; policy drop;\nct state established,related accept\n}\n}\n",
    )
}

/// As a router forwards them: "port unreachable" of an end whose program has ended.
const ERRORS: &str = "icmp type { destination-unreachable, time-exceeded }";

/// A router's own watch: of what it forwards to and from the provider, before its NAT touches it,
/// everything that is not UDP 500/4500 between `inside` and `outside_peer`, or an ICMP error between
/// the two about such a packet, is counted as leaked.
#[derive(Debug)]
pub struct ForwardWatch<'a> {
    router: &'a Namespace,
}

impl<'a> ForwardWatch<'a> {
    /// Starts to count on `router`, whose provider is at the interface `provider`.
    pub fn start(
        router: &'a Namespace,
        provider: &str,
        inside: &str,
        outside_peer: &str,
    ) -> Result<Self> {
        // Forward comes before postrouting, where the source is translated, and for answers after
        // prerouting, where the translation was undone: both directions show the inner address.
        router.nft(&format!(
            "table inet watch\ndelete table inet watch\ntable inet watch {{\n\
             counter tunnel {{ }}\ncounter errors {{ }}\ncounter leaked {{ }}\n\
             chain forward {{\ntype filter hook forward priority -5; policy accept;\n\
             oifname \"{provider}\" ip saddr {inside} ip daddr {outside_peer} udp dport {{ 500, 4500 }} counter name tunnel accept\n\
             iifname \"{provider}\" ip saddr {outside_peer} ip daddr {inside} udp sport {{ 500, 4500 }} counter name tunnel accept\n\
             oifname \"{provider}\" ip saddr {inside} ip daddr {outside_peer} {ERRORS} counter name errors accept\n\
             iifname \"{provider}\" ip saddr {outside_peer} ip daddr {inside} {ERRORS} counter name errors accept\n\
             oifname \"{provider}\" counter name leaked accept\n\
             iifname \"{provider}\" counter name leaked accept\n}}\n}}\n"
        ))?;
        Ok(Self { router })
    }

    /// What was forwarded so far.
    pub fn counters(&self) -> Result<LinkCounters> {
        let text = self.list()?;
        Ok(LinkCounters {
            tunnel: counter(&text, "tunnel")?,
            icmp_errors: counter(&text, "errors")?,
            leaked: counter(&text, "leaked")?,
        })
    }

    /// Octets of the tunnel's IP packets so far.
    pub fn tunnelled_octets(&self) -> Result<u64> {
        octets(&self.list()?, "tunnel")
    }

    fn list(&self) -> Result<String> {
        self.router
            .exec(["nft", "-j", "list", "counters", "table", "inet", "watch"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::offices::{Nat, Offices};
    use crate::lab::{Lab, wait_for};
    use std::time::Duration;

    #[test]
    fn a_router_that_forgot_maps_to_another_port() {
        let lab = Lab::new().unwrap();
        let offices = Offices::build(&lab, Nat::BeforeA).unwrap();
        let receive = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 4500))\nwhile True: print(s.recvfrom(9)[1][1], flush=True)";
        let receiver = offices.b.gateway.spawn(["python3", "-c", receive]).unwrap();
        wait_for("the receiver listens", Duration::from_secs(5), || {
            let listening = offices.b.gateway.exec(["ss", "-Hlun", "sport = :4500"])?;
            Ok((!listening.is_empty()).then_some(()))
        })
        .unwrap();
        let send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 4500)); s.sendto(b'x', ('192.0.2.2', 4500))";
        let router = offices.nat_a.as_ref().unwrap();
        let port_of_next = |count: usize| {
            offices.a.gateway.exec(["python3", "-c", send]).unwrap();
            wait_for("a datagram arrives", Duration::from_secs(5), || {
                Ok(receiver.log().lines().nth(count).map(str::to_owned))
            })
            .unwrap()
            .parse::<u16>()
            .unwrap()
        };
        assert_eq!(port_of_next(0), 4500);
        forget_mappings(router, "out", 20_000).unwrap();
        assert!((20_000..=20_500).contains(&port_of_next(1)));
    }
}

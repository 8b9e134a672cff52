//! A link between two hosts with a watcher in the middle, where neither end can meddle: it counts,
//! may block whatever is not the tunnel, and may lose packets.

use super::failure::{Failure, Result};
use super::namespace::{End, Namespace, Switch};
use std::fmt::Write;

/// A wire through a small bridge that watches what passes.
#[derive(Debug)]
pub struct Link {
    switch: Switch,
    near: Vec<String>,
    far: Vec<String>,
    blocking: bool,
    loss_percent: u32,
}

/// What has passed a [`Link`], in both directions. A batch that the kernel did not cut (GSO) counts as
/// one packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// UDP 500/4500 between the two ends.
    pub tunnel: u64,
    /// ICMP errors between the two ends about such packets ("port unreachable" of a peer that died).
    pub icmp_errors: u64,
    /// Everything else but ARP and neighbour discovery: what must not be there.
    pub leaked: u64,
}

impl LinkCounters {
    /// Packets that are not the tunnel's own, ICMP errors included.
    pub fn all_but_tunnel(&self) -> u64 {
        self.icmp_errors + self.leaked
    }
}

impl std::ops::Add for LinkCounters {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            tunnel: self.tunnel + other.tunnel,
            icmp_errors: self.icmp_errors + other.icmp_errors,
            leaked: self.leaked + other.leaked,
        }
    }
}

impl Link {
    /// Joins two hosts through `middle`, a fresh host. `near` and `far` are the addresses, seen on this
    /// link, that the two ends of the tunnel have; both empty means that nothing is tunnel.
    pub fn join(
        middle: Namespace,
        one: &End<'_>,
        other: &End<'_>,
        near: &[&str],
        far: &[&str],
    ) -> Result<Self> {
        let switch = Switch::on(middle)?;
        switch.plug_as(one, "near")?;
        switch.plug_as(other, "far")?;
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let link = Self {
            switch,
            near: owned(near),
            far: owned(far),
            blocking: false,
            loss_percent: 0,
        };
        link.apply()?;
        Ok(link)
    }

    /// Drops (and goes on counting) all but the tunnel's own packets, ARP and neighbour discovery.
    pub fn block_all_but_tunnel(&mut self, block: bool) -> Result<()> {
        self.blocking = block;
        self.apply()
    }

    /// The ends of the tunnel may have these addresses as well.
    pub fn add_ends(&mut self, near: &[&str], far: &[&str]) -> Result<()> {
        let owned =
            |list: &[&str]| -> Vec<String> { list.iter().map(|&text| text.to_owned()).collect() };
        self.near.extend(owned(near));
        self.far.extend(owned(far));
        self.apply()
    }

    /// Loses this share of all packets, in each direction.
    pub fn lose(&mut self, percent: u32) -> Result<()> {
        self.loss_percent = percent;
        self.apply()
    }

    /// Cuts the link (nothing passes) or mends it.
    pub fn cut(&self, cut: bool) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        for port in ["near", "far"] {
            self.switch
                .namespace()
                .ip(&format!("link set {port} {state}"))?;
        }
        Ok(())
    }

    /// The host in the middle, for a capture.
    pub fn namespace(&self) -> &Namespace {
        self.switch.namespace()
    }

    /// What has passed since the last change of the rules or [`Link::reset`].
    pub fn counters(&self) -> Result<LinkCounters> {
        let text = self.listed()?;
        Ok(LinkCounters {
            tunnel: counter(&text, "tunnel")?,
            icmp_errors: counter(&text, "icmp_errors")?,
            leaked: counter(&text, "leaked")?,
        })
    }

    fn listed(&self) -> Result<String> {
        let argv = ["nft", "-j", "list", "counters", "table", "netdev", "watch"];
        self.switch.namespace().exec(argv)
    }

    /// Of [`LinkCounters::leaked`], what the near end sent: the far end may go on for minutes with a connection that the
    /// near one has ended.
    pub fn leaked_near(&self) -> Result<u64> {
        counter(&self.listed()?, "leaked_near")
    }

    /// Who sent to whom what should not have been there: source, destination, protocol, ports.
    pub fn leaks(&self) -> Result<String> {
        let namespace = self.switch.namespace();
        let mut seen = Vec::new();
        for set in ["leaks4", "leaks6"] {
            let text = namespace.exec(["nft", "list", "set", "netdev", "watch", set])?;
            let elements = text.split_once("elements = {").map_or("", |(_, rest)| rest);
            let elements = elements.split('}').next().unwrap_or_default().split(',');
            seen.extend(elements.map(|one| one.trim().to_owned()));
        }
        seen.retain(|one| !one.is_empty());
        Ok(seen.join("; "))
    }

    /// Sets all counters to zero.
    pub fn reset(&self) -> Result<()> {
        self.apply()
    }

    fn apply(&self) -> Result<()> {
        self.switch.namespace().nft(&self.rules())
    }

    fn rules(&self) -> String {
        let mut rules = String::from(
            "table netdev watch\ndelete table netdev watch\ntable netdev watch {\n\
             counter tunnel { }\ncounter icmp_errors { }\ncounter leaked { }\ncounter leaked_near { }\n\
             set leaks4 { typeof ip saddr . ip daddr . ip protocol . @th,0,16 . @th,16,16; size 64; flags dynamic; }\n\
             set leaks6 { typeof ip6 saddr . ip6 daddr . ip6 nexthdr . @th,0,16 . @th,16,16; size 64; flags dynamic; }\n",
        );
        self.direction(&mut rules, "near", &self.near, &self.far);
        self.direction(&mut rules, "far", &self.far, &self.near);
        rules.push_str("}\n");
        rules
    }

    /// The chain for packets that come in at `port`.
    fn direction(&self, rules: &mut String, port: &str, from: &[String], to: &[String]) {
        // Writing to a String cannot fail.
        let _ = write!(
            rules,
            "chain from_{port} {{\ntype filter hook ingress device \"{port}\" priority 0; policy accept;\n\
             ether type arp accept\n\
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, mld-listener-query, mld-listener-report, mld-listener-reduction, mld2-listener-report }} accept\n"
        );
        if self.loss_percent > 0 {
            let _ = writeln!(rules, "numgen random mod 100 < {} drop", self.loss_percent);
        }
        for (family, v6) in [("ip", false), ("ip6", true)] {
            let of_family = |list: &[String]| {
                let list = list.iter().filter(|address| address.contains(':') == v6);
                list.cloned().collect::<Vec<_>>().join(", ")
            };
            let (from, to) = (of_family(from), of_family(to));
            if from.is_empty() || to.is_empty() {
                continue;
            }
            let between = format!("{family} saddr {{ {from} }} {family} daddr {{ {to} }}");
            // Later fragments carry no ports; the bridge does not put them together.
            let fragment = if v6 {
                "frag nexthdr udp"
            } else {
                "ip frag-off & 0x1fff != 0 ip protocol udp"
            };
            let error = if v6 {
                "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded }"
            } else {
                "icmp type { destination-unreachable, time-exceeded }"
            };
            let _ = write!(
                rules,
                "{between} udp sport {{ 500, 4500 }} counter name tunnel accept\n\
                 {between} udp dport {{ 500, 4500 }} counter name tunnel accept\n\
                 {between} {fragment} counter name tunnel accept\n\
                 {between} {error} counter name icmp_errors accept\n"
            );
        }
        if port == "near" {
            rules.push_str("counter name leaked_near\n");
        }
        let verdict = if self.blocking { " drop" } else { "" };
        let _ = write!(
            rules,
            "meta protocol ip add @leaks4 {{ ip saddr . ip daddr . ip protocol . @th,0,16 . @th,16,16 }}\n\
             meta protocol ip6 add @leaks6 {{ ip6 saddr . ip6 daddr . ip6 nexthdr . @th,0,16 . @th,16,16 }}\n\
             counter name leaked{verdict}\n}}\n"
        );
    }
}

/// The packets of one named counter in the answer of `nft -j list counters`.
pub(crate) fn counter(json: &str, name: &str) -> Result<u64> {
    field(json, name, "packets")
}

/// The octets that a counter of `nft -j list counters` has seen.
pub(super) fn octets(json: &str, name: &str) -> Result<u64> {
    field(json, name, "bytes")
}

fn field(json: &str, name: &str, what: &str) -> Result<u64> {
    let listed: serde_json::Value = serde_json::from_str(json)?;
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    objects
        .iter()
        .map(|object| &object["counter"])
        .find(|counter| counter["name"] == name)
        .and_then(|counter| counter[what].as_u64())
        .ok_or_else(|| Failure::new(format!("nft knows no counter {name}: {json}")))
}

#[cfg(test)]
impl Link {
    /// Two hosts with these addresses, joined; `tunnel` are those of the tunnel's ends.
    pub(crate) fn between_two(
        lab: &super::Lab,
        addresses: [&[&str]; 2],
        tunnel: [&[&str]; 2],
    ) -> Result<(Namespace, Namespace, Self)> {
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let [one, other] = [(&a, addresses[0]), (&b, addresses[1])]
            .map(|(host, addresses)| End::new(host, "eth0", addresses));
        let link = Self::join(lab.host("link")?, &one, &other, tunnel[0], tunnel[1])?;
        Ok((a, b, link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Lab, wire};

    #[test]
    fn counters_are_found_by_name() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "netdev", "name": "tunnel", "table": "watch", "packets": 7, "bytes": 600}},
            {"counter": {"family": "netdev", "name": "leaked", "table": "watch", "packets": 0, "bytes": 0}}]}"#;
        assert_eq!(counter(json, "tunnel").unwrap(), 7);
        assert_eq!(octets(json, "tunnel").unwrap(), 600);
        assert_eq!(counter(json, "leaked").unwrap(), 0);
        assert!(counter(json, "other").is_err());
    }

    #[test]
    fn a_blocking_link_lets_only_the_tunnel_pass() {
        let lab = Lab::new().unwrap();
        let addresses: [&[&str]; 2] = [
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        ];
        let tunnel: [&[&str]; 2] = [&["192.0.2.1", "2001:db8::1"], &["192.0.2.2", "2001:db8::2"]];
        let (a, b, mut link) = Link::between_two(&lab, addresses, tunnel).unwrap();
        a.exec(["ping", "-c1", "-W2", "192.0.2.2"]).unwrap();
        a.exec(["ping", "-c1", "-W2", "2001:db8::2"]).unwrap();
        assert_eq!(link.counters().unwrap().leaked, 4);

        link.block_all_but_tunnel(true).unwrap();
        assert!(
            !a.finish(["ping", "-c1", "-W1", "192.0.2.2"])
                .unwrap()
                .success()
        );
        let python = "import socket,sys; s=socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', (sys.argv[1], 4500))";
        a.exec(["python3", "-c", python, "192.0.2.2"]).unwrap();
        b.exec(["python3", "-c", python, "2001:db8::1"]).unwrap();
        let seen = link.counters().unwrap();
        // Nobody listens on 4500: each datagram is answered by an ICMP error.
        assert_eq!((seen.tunnel, seen.icmp_errors, seen.leaked), (2, 2, 1));
    }

    #[test]
    fn namespaces_are_gone_with_the_lab() {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        wire(
            &End::new(&a, "eth0", &["10.0.0.1/24"]),
            &End::new(&b, "eth0", &["10.0.0.2/24"]),
        )
        .unwrap();
        a.exec(["ping", "-c1", "-W2", "10.0.0.2"]).unwrap();
        let name = a.full_name().to_owned();
        let path = lab.directory().to_owned();
        drop((a, b, lab));
        let left = crate::lab::Exec::new(["ip", "netns", "list"])
            .run()
            .unwrap();
        assert!(!left.contains(&name) && !path.exists());
    }
}

//! Everybody who counts what he throws away: sockets, stacks and interfaces of all hosts, Cygnet, and
//! strongSwan's log. What moved during a run tells where a packet went.

use super::ends::Ends;
use crate::lab::{Context, Namespace, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The numbers of /proc/net/snmp, snmp6 and netstat that are packets thrown away, or TCP segments sent
/// again (of these, probes without a loss; and in vain), or arrived out of order.
const STACK: [&str; 33] = [
    "Ip.InHdrErrors",
    "Ip.InAddrErrors",
    "Ip.InDiscards",
    "Ip.OutDiscards",
    "Ip.OutNoRoutes",
    "Ip.ReasmTimeout",
    "Ip.ReasmFails",
    "Ip.FragFails",
    "Icmp.InErrors",
    "Icmp.InCsumErrors",
    "Tcp.RetransSegs",
    "Tcp.InCsumErrors",
    "TcpExt.TCPLossProbes",
    "TcpExt.TCPDSACKRecv",
    "TcpExt.TCPOFOQueue",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp.RcvbufErrors",
    "Udp.SndbufErrors",
    "Udp.InCsumErrors",
    "Ip6InHdrErrors",
    "Ip6InTooBigErrors",
    "Ip6InDiscards",
    "Ip6OutDiscards",
    "Ip6OutNoRoutes",
    "Ip6ReasmTimeout",
    "Ip6ReasmFails",
    "Ip6FragFails",
    "Icmp6InErrors",
    "Udp6NoPorts",
    "Udp6InErrors",
    "Udp6RcvbufErrors",
    "Udp6SndbufErrors",
];

/// What charon says, at level 2 of `esp`, of each packet it throws away; and at level 1.
const CHARON: [&str; 6] = [
    "inbound ESP packet does not belong to an installed SA",
    "no matching outbound IPsec policy",
    "no matching inbound IPsec policy",
    "replay",
    "verification failed",
    "hard lifetime",
];

/// All counters at a moment: who counts what.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(BTreeMap<String, u64>);

impl Losses {
    /// Those of these hosts and, where there are any, of the VPN's ends.
    pub(super) fn now(hosts: &[&Namespace], ends: Option<&Ends>) -> Result<Self> {
        let mut all = Self::default();
        for host in hosts {
            all.read_host(host)?;
        }
        // Of the whole machine: what no longer fitted into a processor's queue of received packets.
        let softnet = std::fs::read_to_string("/proc/net/softnet_stat")?;
        for (processor, line) in softnet.lines().enumerate() {
            let dropped = line.split_whitespace().nth(1);
            let dropped = dropped.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            all.put(
                format!("the machine: backlog of processor {processor}"),
                dropped.unwrap_or_default(),
            );
        }
        for cygnet in ends.iter().flat_map(|ends| ends.cygnets()) {
            let name = cygnet.namespace().name();
            let status = cygnet.status()?;
            all.put(
                format!("{name}: cygnet's engine restarts"),
                status.engine_restarts.into(),
            );
            for drop in status.engine.unwrap_or_default().drops {
                // Neighbour discovery and the like of the kernel on the TUN device.
                if drop.name != "no-policy" && drop.name != "multicast" {
                    all.put(format!("{name}: cygnet dropped {}", drop.name), drop.count);
                }
            }
        }
        if let Some(swan) = ends.and_then(Ends::strongswan) {
            let log = swan.log();
            for words in CHARON {
                let lines = log.lines().filter(|line| line.contains(words)).count();
                all.put(format!("strongSwan: \"{words}\""), lines as u64);
            }
        }
        Ok(all)
    }

    /// What has moved since `before`, a sentence each.
    pub(super) fn since(&self, before: &Self) -> Vec<String> {
        let moved = self.0.iter().filter_map(|(name, count)| {
            let was = before.0.get(name).copied().unwrap_or_default();
            (*count > was).then(|| format!("{name} +{}", count - was))
        });
        moved.collect()
    }

    fn put(&mut self, name: String, count: u64) {
        self.0.insert(name, count);
    }

    fn read_host(&mut self, host: &Namespace) -> Result<()> {
        let name = host.name();
        let text = host.shell("cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6")?;
        for (counter, count) in stack(&text) {
            if STACK.contains(&counter.as_str()) {
                self.put(format!("{name}: {counter}"), count);
            }
        }
        for table in ["udp", "udp6", "icmp", "icmp6"] {
            let text = host.shell(&format!("cat /proc/net/{table}"))?;
            for (port, drops) in sockets(&text) {
                self.put(format!("{name}: {table} socket {port} was full"), drops);
            }
        }
        let listed = host.exec(["ip", "-s", "-j", "link"])?;
        let links: Vec<Link> = serde_json::from_str(&listed).context("ip -s -j link")?;
        for link in links {
            for (way, counters) in [("rx", &link.stats64.rx), ("tx", &link.stats64.tx)] {
                let interface = &link.ifname;
                self.put(
                    format!("{name}: {interface} {way} dropped"),
                    counters.dropped,
                );
                self.put(format!("{name}: {interface} {way} errors"), counters.errors);
            }
        }
        Ok(())
    }
}

/// A line of `ip -s -j link`.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    stats64: Stats,
}

#[derive(Debug, Deserialize)]
struct Stats {
    rx: Counters,
    tx: Counters,
}

#[derive(Debug, Deserialize)]
struct Counters {
    dropped: u64,
    errors: u64,
}

/// The counters of /proc/net/snmp and netstat (pairs of lines, `Ip: NAME …`, `Ip: NUMBER …`) and of snmp6
/// (`NAME NUMBER`).
fn stack(text: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut names: Option<&str> = None;
    for line in text.lines() {
        let Some((protocol, rest)) = line.split_once(": ") else {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(Ok(count))) = (words.next(), words.next().map(str::parse)) {
                found.push((name.to_owned(), count));
            }
            continue;
        };
        match names.take() {
            None => names = Some(rest),
            Some(names) => {
                let each = names.split_whitespace().zip(rest.split_whitespace());
                found.extend(each.filter_map(|(name, count)| {
                    Some((format!("{protocol}.{name}"), count.parse().ok()?))
                }));
            }
        }
    }
    found
}

/// Local port and drops of each socket in /proc/net/udp and its like.
fn sockets(text: &str) -> Vec<(u16, u64)> {
    let each = text.lines().skip(1).filter_map(|line| {
        let local = line.split_whitespace().nth(1)?;
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        Some((port, line.split_whitespace().last()?.parse().ok()?))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_stack_are_read() {
        let text = "Ip: Forwarding InDiscards\nIp: 1 3\nUdp: InDatagrams RcvbufErrors\nUdp: 9 2\n\
            Ip6InDiscards                   \t4\n";
        let expected = [
            ("Ip.Forwarding", 1),
            ("Ip.InDiscards", 3),
            ("Udp.InDatagrams", 9),
            ("Udp.RcvbufErrors", 2),
            ("Ip6InDiscards", 4),
        ];
        assert_eq!(
            stack(text),
            expected.map(|(name, count)| (name.to_owned(), count))
        );
    }

    #[test]
    fn drops_of_sockets_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1234: 0A00010A:1B58 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 17\n";
        assert_eq!(sockets(text), [(7000, 17)]);
    }
}

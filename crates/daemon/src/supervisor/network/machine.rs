//! What this machine has by itself, without what is ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dns::resolv_conf;

/// What the machine has, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Address with prefix, by interface; TUNs of ours excluded.
    pub(super) addresses: Vec<(String, IpNet)>,
    /// Interface of the default route.
    pub(super) uplink: Option<String>,
    /// Where the default routes lead, of each family.
    pub(super) routers: Vec<IpAddr>,
    /// Interfaces that have a default route, the best or another.
    pub(super) ways_out: BTreeSet<String>,
    /// Those that join others.
    pub(super) bridges: BTreeSet<String>,
    /// Whom it asks for names.
    pub(super) resolvers: Vec<IpAddr>,
}

/// What a look at the machine finds.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) machine: Machine,
    /// Somebody deleted (or renamed) a TUN of ours.
    pub(super) tuns_missing: bool,
}

impl Machine {
    /// Looks at the machine: addresses of interfaces that are not `ours`, and the uplink.
    pub(super) async fn look(
        netlink: &cygnet_linux::Netlink,
        ours: &[&str],
    ) -> Result<Look, String> {
        let links = netlink.links().await.map_err(|e| e.to_string())?;
        let mut addresses: Vec<(String, IpNet)> = netlink
            .addresses()
            .await
            .map_err(|e| e.to_string())?
            .into_iter()
            .filter_map(|a| {
                let link = links.iter().find(|l| l.index == a.index)?;
                let addr = a.net.addr();
                let link_local = cygnet_gateway::is_link_local(addr);
                let foreign = !ours.contains(&link.name.as_str());
                (foreign && !addr.is_loopback() && !link_local).then(|| (link.name.clone(), a.net))
            })
            .collect();
        addresses.sort();
        let (mut uplink, mut routers, mut ways_out) = (None, Vec::new(), BTreeSet::new());
        for v6 in [false, true] {
            let ways = netlink
                .default_routes(v6)
                .await
                .map_err(|e| e.to_string())?;
            if let Some(way) = ways.first() {
                uplink = uplink.or(Some(way.interface.clone()));
                routers.extend(way.gateway);
            }
            let ways = ways.into_iter().map(|way| way.interface);
            ways_out.extend(ways.filter(|name| !ours.contains(&name.as_str())));
        }
        let bridges = links.iter().filter(|link| link.bridge);
        let is_missing = |name: &&str| !links.iter().any(|link| link.name == *name);
        Ok(Look {
            machine: Self {
                addresses,
                uplink,
                routers,
                ways_out,
                bridges: bridges.map(|link| link.name.clone()).collect(),
                resolvers: resolv_conf::named().unwrap_or_default(),
            },
            tuns_missing: ours.iter().any(is_missing),
        })
    }

    /// Which of the addresses that a peer lent are taken, one of each family at most, and why not all.
    pub(super) fn take_lent(
        &self,
        addresses: &[IpAddr],
        lan: &[IpNet],
    ) -> (Vec<IpAddr>, Option<String>) {
        let (mut good, mut why_not) = (Vec::new(), None);
        for address in addresses {
            match self.why_not_lent(*address, lan) {
                None => good.push(*address),
                Some(why) => {
                    why_not = Some(format!(
                        "the peer lent {address}, which was not taken: {why}; its pool has to be mended"
                    ));
                }
            }
        }
        let first = |v4| good.iter().copied().find(move |a| a.is_ipv4() == v4);
        let taken = first(true).into_iter().chain(first(false)).collect();
        (taken, why_not)
    }

    /// Why a peer may not lend us this address, if it may not. `lan`: the networks that this machine is the
    /// gateway of. A server that lends an address of these would have what is meant for that device, or
    /// for the router, come to us, and what we say pass for its word.
    fn why_not_lent(&self, address: IpAddr, lan: &[IpNet]) -> Option<String> {
        let own = self.addresses.iter().any(|(_, net)| net.addr() == address);
        if cygnet_gateway::is_never_forwarded(address) {
            Some("no host can have it".to_owned())
        } else if own {
            Some("this machine has it already".to_owned())
        } else if self.routers.contains(&address) {
            Some("it is the router's".to_owned())
        } else {
            let lan = lan.iter().find(|lan| lan.contains(&address))?;
            Some(format!("it is one of the LAN {lan}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_ours_are_not_taken() {
        let machine = Machine {
            addresses: vec![("eth0".into(), "192.168.1.2/24".parse().unwrap())],
            uplink: None,
            routers: vec!["192.168.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ..Machine::default()
        };
        let why = |a: &str, lan: &[IpNet]| machine.why_not_lent(a.parse().unwrap(), lan);
        let lent = |a: &str| why(a, &[]).is_none();
        for good in ["10.99.0.2", "192.168.1.77", "fd99::2"] {
            assert!(lent(good), "{good}");
        }
        for bad in [
            "192.168.1.1",
            "192.168.1.2",
            "fd00::1",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
            "::1",
            "fe80::1",
        ] {
            assert!(!lent(bad), "{bad}");
        }
        let lan = ["192.168.1.0/24", "fd00:1::/64"].map(|net| net.parse().unwrap());
        for (inside, reason) in [
            ("192.168.1.77", "it is one of the LAN 192.168.1.0/24"),
            ("fd00:1::77", "it is one of the LAN fd00:1::/64"),
            ("192.168.1.1", "it is the router's"),
        ] {
            assert_eq!(why(inside, &lan).as_deref(), Some(reason));
        }
        assert_eq!(why("10.99.0.2", &lan), None);
    }

    #[test]
    fn one_good_address_of_each_family_is_enough() {
        let lent = ["fd99::2", "127.0.0.1", "10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let (taken, why_not) = Machine::default().take_lent(&lent, &[]);
        assert_eq!(taken, [lent[2], lent[0]]);
        let why_not = why_not.unwrap();
        assert!(
            why_not.starts_with("the peer lent 127.0.0.1, "),
            "{why_not}"
        );
        assert_eq!(Machine::default().take_lent(&lent[2..], &[]).1, None);
    }
}

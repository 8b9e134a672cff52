//! What this machine has by itself, without what is ours.

use std::net::IpAddr;

use ipnet::IpNet;

/// What the machine has, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Address with prefix, by interface; TUNs of ours excluded.
    pub(super) addresses: Vec<(String, IpNet)>,
    /// Interface of the default route.
    pub(super) uplink: Option<String>,
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
        network: &cygnet_linux::Network,
        ours: &[&str],
    ) -> Result<Look, String> {
        let netlink = network.netlink();
        let links = netlink.links().await.map_err(|e| e.to_string())?;
        let mut addresses: Vec<(String, IpNet)> = netlink
            .addresses()
            .await
            .map_err(|e| e.to_string())?
            .into_iter()
            .filter_map(|a| {
                let link = links.iter().find(|l| l.index == a.index)?;
                let addr = a.net.addr();
                let link_local = match addr {
                    IpAddr::V4(a) => a.is_link_local(),
                    IpAddr::V6(a) => a.is_unicast_link_local(),
                };
                let foreign = !ours.contains(&link.name.as_str());
                (foreign && !addr.is_loopback() && !link_local).then(|| (link.name.clone(), a.net))
            })
            .collect();
        addresses.sort();
        let mut uplink = None;
        for v6 in [false, true] {
            let way = netlink.default_route(v6).await.map_err(|e| e.to_string())?;
            uplink = uplink.or(way.map(|way| way.interface));
        }
        let is_missing = |name: &&str| !links.iter().any(|link| link.name == *name);
        Ok(Look {
            machine: Self { addresses, uplink },
            tuns_missing: ours.iter().any(is_missing),
        })
    }

    /// Whether a peer may lend us this address.
    pub(super) fn can_be_lent(&self, address: IpAddr) -> bool {
        let special = match address {
            IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        let own = self.addresses.iter().any(|(_, net)| net.addr() == address);
        !(special
            || own
            || address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast())
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
        };
        let lent = |a: &str| machine.can_be_lent(a.parse().unwrap());
        for good in ["10.99.0.2", "192.168.1.77", "fd99::2"] {
            assert!(lent(good), "{good}");
        }
        for bad in [
            "192.168.1.2",
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
    }
}

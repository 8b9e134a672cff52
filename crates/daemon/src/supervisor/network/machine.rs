//! What this machine has by itself, without what is ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// What the machine has, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Address with prefix, by interface; TUNs of ours excluded.
    pub(super) addresses: Vec<(String, IpNet)>,
    /// Interface of the default route.
    pub(super) uplink: Option<String>,
    /// Interface and gateway of the default routes over which something can leave.
    pub(super) ways: Vec<(String, Option<IpAddr>)>,
}

impl Machine {
    /// What the machine has: addresses of interfaces that are not `ours`, and the ways out.
    pub(super) async fn read(
        network: &cygnet_linux::Network,
        ours: &[&str],
    ) -> Result<Self, String> {
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
        let (mut uplink, mut ways) = (None, Vec::new());
        for v6 in [false, true] {
            let way = netlink.default_route(v6).await.map_err(|e| e.to_string())?;
            let Some(way) = way else { continue };
            if links.iter().any(|l| l.index == way.index && l.carrier) {
                ways.push((way.interface.clone(), way.gateway));
            }
            uplink = uplink.or(Some(way.interface));
        }
        Ok(Self {
            addresses,
            uplink,
            ways,
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

/// What changed since the engine was told last.
#[derive(Debug, Default)]
pub(super) struct Change {
    gone: BTreeSet<IpAddr>,
    egress: bool,
}

impl Change {
    /// The machine was as `before` and is as `now`.
    pub(super) fn add(&mut self, before: &Machine, now: &Machine) {
        let of = |machine: &Machine| -> BTreeSet<IpAddr> {
            machine
                .addresses
                .iter()
                .map(|(_, net)| net.addr())
                .collect()
        };
        let left = of(now);
        self.gone.extend(of(before));
        self.gone.retain(|address| !left.contains(address));
        self.egress |= before.ways != now.ways;
    }

    /// The addresses that are gone, and whether the ways out are others; `None`: neither.
    pub(super) fn take(&mut self) -> Option<(Vec<IpAddr>, bool)> {
        let Self { gone, egress } = std::mem::take(self);
        (egress || !gone.is_empty()).then(|| (gone.into_iter().collect(), egress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_appear_are_no_change_for_the_engine_and_what_comes_back_was_never_gone() {
        let machine = |addresses: &[&str], way: Option<&str>| Machine {
            addresses: (addresses.iter())
                .map(|a| ("eth0".to_owned(), a.parse().unwrap()))
                .collect(),
            uplink: way.map(str::to_owned),
            ways: way.map(|way| (way.to_owned(), None)).into_iter().collect(),
        };
        let one = machine(&["192.0.2.1/24"], Some("eth0"));
        let two = machine(&["192.0.2.1/24", "172.17.0.1/16"], Some("eth0"));
        let mut change = Change::default();
        change.add(&one, &two);
        assert_eq!(change.take(), None);
        change.add(&two, &one);
        let gone = vec!["172.17.0.1".parse().unwrap()];
        assert_eq!(change.take(), Some((gone, false)));
        // The link is off for a moment.
        let off = machine(&[], None);
        change.add(&one, &off);
        change.add(&off, &one);
        assert_eq!(change.take(), Some((Vec::new(), true)));
        assert_eq!(change.take(), None);
    }

    #[test]
    fn addresses_that_cannot_be_ours_are_not_taken() {
        let machine = Machine {
            addresses: vec![("eth0".into(), "192.168.1.2/24".parse().unwrap())],
            uplink: None,
            ways: Vec::new(),
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

//! A network that another office knows by other addresses: one to one, host by host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::overlap;

/// A network of ours and the one it appears as on the other side of a tunnel. Both are of one family and have
/// prefixes of one length; the bits behind the prefix are the host's in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    own: IpNet,
    shown: IpNet,
}

impl Mapping {
    /// The two, if they have room for the same hosts.
    ///
    /// # Errors
    /// What was expected, in words, where they are not of one family or of one length.
    pub fn new(own: IpNet, shown: IpNet) -> Result<Self, String> {
        if own.addr().is_ipv4() != shown.addr().is_ipv4() {
            return Err(format!(
                "`{shown}` cannot stand for `{own}`: one is IPv4, the other IPv6"
            ));
        }
        if own.prefix_len() != shown.prefix_len() {
            return Err(format!(
                "`{shown}` cannot stand for `{own}`: expected a prefix of the same length, such as `{}`",
                IpNet::new(shown.addr(), own.prefix_len())
                    .unwrap_or(own)
                    .trunc()
            ));
        }
        Ok(Self {
            own: own.trunc(),
            shown: shown.trunc(),
        })
    }

    /// As it is here.
    #[must_use]
    pub fn own(&self) -> IpNet {
        self.own
    }

    /// As the other side knows it.
    #[must_use]
    pub fn shown(&self) -> IpNet {
        self.shown
    }

    /// As the other side knows a host of ours.
    #[must_use]
    pub fn shown_of(&self, own: IpAddr) -> Option<IpAddr> {
        moved(own, &self.own, &self.shown)
    }

    /// As a host that the other side knows by this address is here.
    #[must_use]
    pub fn own_of(&self, shown: IpAddr) -> Option<IpAddr> {
        moved(shown, &self.shown, &self.own)
    }

    /// A network that `own` could appear as: private, of its size, with as much of its own number as there is room for
    /// (`10.201.1.0/24` for `192.168.1.0/24`), and outside of all in `taken`. `None`: it is too large to be moved.
    #[must_use]
    pub fn propose(own: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
        let free = |candidate: &IpNet| !taken.iter().any(|net| overlap(net, candidate));
        (201..=254).filter_map(|n| candidate(own, n)).find(free)
    }
}

/// The host of `from` in the other network.
fn moved(address: IpAddr, from: &IpNet, to: &IpNet) -> Option<IpAddr> {
    if !from.contains(&address) {
        return None;
    }
    match (address, from.hostmask(), to.network()) {
        (IpAddr::V4(address), IpAddr::V4(mask), IpAddr::V4(to)) => {
            Some((to | (address & mask)).into())
        }
        (IpAddr::V6(address), IpAddr::V6(mask), IpAddr::V6(to)) => {
            Some((to | (address & mask)).into())
        }
        _ => None,
    }
}

/// The candidate of this number. Those of IPv4 are in RFC 1918's `10.0.0.0/8`, those of IPv6 have a global ID of RFC 4193
/// each.
fn candidate(own: &IpNet, n: u8) -> Option<IpNet> {
    let (address, room) = match own.network() {
        IpAddr::V4(address) => {
            let [_, _, c, d] = address.octets();
            (IpAddr::from(Ipv4Addr::new(10, n, c, d)), 16)
        }
        IpAddr::V6(address) => {
            let [_, _, _, d, e, f, g, h] = address.segments();
            let global = [0xfdc9, 0xc900 | u16::from(n), u16::from(n)];
            let [a, b, c] = global;
            (IpAddr::from(Ipv6Addr::new(a, b, c, d, e, f, g, h)), 48)
        }
    };
    let candidate = IpNet::new(address, own.prefix_len()).ok()?.trunc();
    (own.prefix_len() >= room).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn only_networks_of_one_size_stand_for_each_other() {
        let told = |own: &str, shown: &str| Mapping::new(net(own), net(shown)).unwrap_err();
        let length = told("192.168.1.0/24", "10.201.0.0/16");
        assert!(length.contains("such as `10.201.0.0/24`"), "{length}");
        assert!(told("192.168.1.0/24", "fd00::/24").contains("the other IPv6"));
        let good = Mapping::new(net("192.168.1.0/24"), net("10.201.1.0/24")).unwrap();
        assert_eq!(good.shown(), net("10.201.1.0/24"));
        let [here, there, other] =
            ["192.168.1.7", "10.201.1.7", "192.168.2.7"].map(|a| a.parse().unwrap());
        assert_eq!(good.shown_of(here), Some(there));
        assert_eq!(good.own_of(there), Some(here));
        assert_eq!((good.shown_of(other), good.own_of(here)), (None, None));
        let six = Mapping::new(net("fd00:1::/64"), net("fd00:2::/64")).unwrap();
        let shown = six.shown_of("fd00:1::a:b".parse().unwrap());
        assert_eq!(shown, Some("fd00:2::a:b".parse().unwrap()));
    }

    #[test]
    fn what_is_proposed_is_free_and_like_what_it_stands_for() {
        let propose = |own: &str, taken: &[&str]| {
            let taken: Vec<IpNet> = taken.iter().map(|t| net(t)).collect();
            Mapping::propose(&net(own), &taken).map(|n| n.to_string())
        };
        for (own, taken, expected) in [
            ("192.168.1.0/24", &[][..], Some("10.201.1.0/24")),
            ("192.168.1.128/25", &[], Some("10.201.1.128/25")),
            ("192.168.0.0/16", &[], Some("10.201.0.0/16")),
            (
                "192.168.1.0/24",
                &["10.201.0.0/16", "10.202.1.7/32"],
                Some("10.203.1.0/24"),
            ),
            ("192.168.1.0/24", &["10.0.0.0/8"], None),
            ("10.0.0.0/8", &[], None),
            ("fd00:1:2:3::/64", &[], Some("fdc9:c9c9:c9:3::/64")),
            (
                "fd00:1:2:3::/64",
                &["fdc9:c9c9::/32"],
                Some("fdc9:c9ca:ca:3::/64"),
            ),
            ("fd00::/32", &[], None),
        ] {
            assert_eq!(propose(own, taken).as_deref(), expected, "{own} {taken:?}");
        }
    }
}

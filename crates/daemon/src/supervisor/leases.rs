//! Addresses lent to clients: who gets which, and gets it again next time.
//!
//! The key is the authenticated identity, and where several devices may share one, a number for
//! each of them. A client that reauthenticates holds two IKE SAs for a moment and keeps its
//! address; so does one whose engine was restarted. Addresses of clients that are away are
//! remembered, and given to somebody else only when nothing else is free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cygnet_config::Pool;
use cygnet_ike::identity::IDENTITY_MAX;
use ipnet::IpNet;

use crate::ipc::Lent;

/// Clients remembered. An IPv6 pool has room for more than there is memory, and whoever knows a
/// key shared by all clients can call itself anything.
const REMEMBERED_MAX: usize = 65_536;

/// Devices connected at the same time with one identity. More are refused: whoever has one
/// certificate must not be able to take a whole pool, and a large fleet has one for each device.
const DEVICES_MAX: usize = 64;

/// All pools of the program.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pools: BTreeMap<String, Pool>,
    leases: BTreeMap<Key, Lease>,
    by_address: BTreeMap<IpAddr, Key>,
    clock: u64,
}

/// Pool, identity, and which of the devices that have this identity.
type Key = (String, String, u32);

/// One device's addresses.
#[derive(Clone, Debug, Default)]
struct Lease {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    holders: BTreeSet<u64>,
    last_used: u64,
    /// Where it was when it got them, if that is what it is known by while it is away.
    device: Option<SocketAddr>,
}

impl Lease {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4
            .map(IpAddr::from)
            .into_iter()
            .chain(self.v6.map(IpAddr::from))
    }
}

/// What is asked for: a family, with the address wished for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) v4: Option<Option<Ipv4Addr>>,
    pub(super) v6: Option<Option<Ipv6Addr>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Borrower<'a> {
    /// As it proved to be.
    pub(super) identity: &'a str,
    /// Where it is, if other devices may have the same identity.
    pub(super) device: Option<SocketAddr>,
    /// The holders at that very place at this moment.
    pub(super) here: &'a [u64],
}

impl Leases {
    /// The pools of a (new) configuration. Leases outside them are forgotten.
    pub(super) fn configure(&mut self, pools: BTreeMap<String, Pool>) {
        self.pools = pools;
        let pools = &self.pools;
        let by_address = &mut self.by_address;
        self.leases.retain(|(pool, ..), lease| {
            let keep = lease.addresses().all(|a| {
                pools
                    .get(pool)
                    .is_some_and(|p| p.networks.iter().any(|n| n.contains(&a)))
            });
            if !keep {
                for a in lease.addresses() {
                    by_address.remove(&a);
                }
            }
            keep
        });
    }

    /// Lends to `who` for the IKE SA `holder`.
    pub(super) fn lend(
        &mut self,
        pool: &str,
        who: Borrower<'_>,
        holder: u64,
        wanted: Wanted,
    ) -> Result<Lent, String> {
        let Some(spec) = self.pools.get(pool).cloned() else {
            return Err(format!(
                "there is no pool `{pool}` in the configuration any more"
            ));
        };
        let identity = who.identity;
        if identity.len() > IDENTITY_MAX {
            return Err(format!(
                "no address for a client whose identity is written with {} octets, expected {IDENTITY_MAX} at most; \
                 give it a shorter one",
                identity.len()
            ));
        }
        let key = self.key(pool, who, wanted);
        let mut lease = self.leases.get(&key).cloned().unwrap_or_default();
        if who.device.is_some() && !self.leases.contains_key(&key) {
            // Each of them is in use, or this device would have got it.
            if self.devices(pool, identity).count() >= DEVICES_MAX {
                return Err(format!(
                    "no address for {identity}: {DEVICES_MAX} devices are connected with this \
                     identity already; give more of them one of their own"
                ));
            }
        }
        if !self.leases.contains_key(&key)
            && self.leases.len() >= REMEMBERED_MAX
            && !self.forget_longest_away()
        {
            return Err(format!(
                "no address for {identity}: {REMEMBERED_MAX} clients are connected already"
            ));
        }
        if let (Some(wish), None) = (wanted.v4, lease.v4) {
            lease.v4 = self
                .free(&spec, &key, wish.map(IpAddr::from), true)
                .and_then(|a| match a {
                    IpAddr::V4(a) => Some(a),
                    IpAddr::V6(_) => None,
                });
        }
        if let (Some(wish), None) = (wanted.v6, lease.v6) {
            lease.v6 = self
                .free(&spec, &key, wish.map(IpAddr::from), false)
                .and_then(|a| match a {
                    IpAddr::V6(a) => Some(a),
                    IpAddr::V4(_) => None,
                });
        }
        let granted: Vec<IpAddr> = lease
            .addresses()
            .filter(|a| match a {
                IpAddr::V4(_) => wanted.v4.is_some(),
                IpAddr::V6(_) => wanted.v6.is_some(),
            })
            .collect();
        if granted.is_empty() {
            return Err(format!(
                "no free address for {identity} in {}: every one is in use; make the pool larger",
                spec.networks
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        self.clock += 1;
        lease.last_used = self.clock;
        lease.holders.insert(holder);
        lease.device = who.device;
        for a in lease.addresses() {
            self.by_address.insert(a, key.clone());
        }
        self.leases.insert(key, lease);
        Ok(Lent {
            addresses: granted,
            dns: spec.dns,
            domains: spec.domains,
            speedtest: match spec.speedtest {
                true => spec.networks.iter().filter_map(own_address).collect(),
                false => Vec::new(),
            },
        })
    }

    /// The leases of the devices that share an identity, by number.
    fn devices(&self, pool: &str, identity: &str) -> impl Iterator<Item = (u32, &Lease)> {
        let key = |number| (pool.to_owned(), identity.to_owned(), number);
        let all = self.leases.range(key(0)..=key(u32::MAX));
        all.map(|((.., number), lease)| (*number, lease))
    }

    /// Which lease is meant. An identity that is one peer has one. Where it may be several devices,
    /// the one at the very same place is the same device, which authenticates anew, or is back before
    /// its end was noticed; else one of a device that is away is taken: the one with the address
    /// wished for, the one last seen at this address, the one that was there last.
    fn key(&self, pool: &str, who: Borrower<'_>, wanted: Wanted) -> Key {
        let key = |number| (pool.to_owned(), who.identity.to_owned(), number);
        let Some(device) = who.device else {
            return key(0);
        };
        let (mut best, mut unused) = (None, 0);
        for (number, lease) in self.devices(pool, who.identity) {
            if number == unused {
                unused += 1;
            }
            let here = lease.holders.iter().any(|holder| who.here.contains(holder));
            let wished = lease.v4.is_some_and(|v4| wanted.v4 == Some(Some(v4)))
                || lease.v6.is_some_and(|v6| wanted.v6 == Some(Some(v6)));
            let near = lease.device.is_some_and(|at| at.ip() == device.ip());
            let fit = match (lease.holders.is_empty(), here) {
                (false, true) => 3,
                (false, false) => continue,
                (true, _) if wished => 2,
                (true, _) => u8::from(near),
            };
            best = best.max(Some((fit, lease.last_used, number)));
        }
        key(best.map_or(unused, |(_, _, number)| number))
    }

    /// The IKE SA `holder` is gone.
    pub(super) fn release(&mut self, holder: u64) {
        for lease in self.leases.values_mut() {
            lease.holders.remove(&holder);
        }
    }

    /// Every IKE SA is gone: the engine was restarted.
    pub(super) fn release_all(&mut self) {
        for lease in self.leases.values_mut() {
            lease.holders.clear();
        }
    }

    /// For `status`: identity, addresses, whether in use.
    pub(super) fn list(&self) -> impl Iterator<Item = (&str, Vec<IpAddr>, bool)> {
        self.leases
            .iter()
            .map(|((_, id, _), l)| (id.as_str(), l.addresses().collect(), !l.holders.is_empty()))
    }

    /// An address of the pool that `key` may have: the one wished for, a fresh one, or the one
    /// whose client has been away longest.
    fn free(&mut self, pool: &Pool, key: &Key, wish: Option<IpAddr>, v4: bool) -> Option<IpAddr> {
        let networks: Vec<IpNet> = pool
            .networks
            .iter()
            .filter(|n| matches!(n, IpNet::V4(_)) == v4)
            .copied()
            .collect();
        if let Some(wish) = wish
            && networks.iter().any(|n| lendable(n, wish))
            && self.by_address.get(&wish).is_none_or(|k| k == key)
        {
            return Some(wish);
        }
        // Taken addresses are skipped in order: the first gap is found after at most one step
        // for each lease, however large the pool.
        for net in &networks {
            let mut taken = self
                .by_address
                .range(net.network()..=net.broadcast())
                .map(|(a, _)| *a)
                .peekable();
            for candidate in net.hosts() {
                if !lendable(net, candidate) {
                    continue;
                }
                while taken.next_if(|t| *t < candidate).is_some() {}
                if taken.next_if_eq(&candidate).is_none() {
                    return Some(candidate);
                }
            }
        }
        let (away, address) = self.longest_away(|a| networks.iter().any(|n| lendable(n, *a)))?;
        self.forget(&away);
        Some(address)
    }

    /// The client that has been away longest among those with such an address.
    fn longest_away(&self, such: impl Fn(&IpAddr) -> bool) -> Option<(Key, IpAddr)> {
        self.leases
            .iter()
            .filter(|(_, l)| l.holders.is_empty())
            .flat_map(|(k, l)| l.addresses().map(move |a| (k, l, a)))
            .filter(|(_, _, a)| such(a))
            .min_by_key(|(_, l, _)| l.last_used)
            .map(|(k, _, a)| (k.clone(), a))
    }

    /// `false`: nobody is away.
    fn forget_longest_away(&mut self) -> bool {
        let away = self.longest_away(|_| true);
        if let Some((away, _)) = &away {
            self.forget(away);
        }
        away.is_some()
    }

    fn forget(&mut self, key: &Key) {
        if let Some(old) = self.leases.remove(key) {
            for a in old.addresses() {
                self.by_address.remove(&a);
            }
        }
    }
}

/// The server's own address in a network of the pool, if that has room for one.
pub(super) fn own_address(net: &IpNet) -> Option<IpAddr> {
    // The first of an IPv6 network means "any router here" (RFC 4291 §2.6.1).
    net.hosts().take(2).find(|host| *host != net.network())
}

/// The network's own address, its broadcast address and the first host (the server's own) are
/// not lent.
fn lendable(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address)
        && (net.prefix_len() >= net.max_prefix_len() - 1
            || (address != net.network()
                && Some(address) != own_address(net)
                && (address.is_ipv6() || address != net.broadcast())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(networks: &[&str]) -> Leases {
        let mut leases = Leases::default();
        let pool = Pool {
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            dns: vec!["10.99.0.1".parse().unwrap()],
            domains: vec!["corp.example".to_owned()],
            speedtest: true,
        };
        leases.configure([("server".to_owned(), pool)].into());
        leases
    }

    const V4: Wanted = Wanted {
        v4: Some(None),
        v6: None,
    };
    const BOTH: Wanted = Wanted {
        v4: Some(None),
        v6: Some(None),
    };

    fn lend(l: &mut Leases, who: &str, holder: u64, wanted: Wanted) -> Vec<String> {
        let who = Borrower {
            identity: who,
            device: None,
            here: &[],
        };
        let Lent { addresses, .. } = l.lend("server", who, holder, wanted).unwrap();
        addresses.iter().map(ToString::to_string).collect()
    }

    /// One of the devices that share an identity.
    fn lend_at(l: &mut Leases, place: &str, holder: u64, wanted: Wanted) -> String {
        lend_beside(l, place, &[], holder, wanted)
    }

    /// The same where these holders are at this very place.
    fn lend_beside(
        l: &mut Leases,
        place: &str,
        here: &[u64],
        holder: u64,
        wanted: Wanted,
    ) -> String {
        let who = Borrower {
            identity: "family",
            device: Some(place.parse().unwrap()),
            here,
        };
        let Lent { addresses, .. } = l.lend("server", who, holder, wanted).unwrap();
        addresses[0].to_string()
    }

    fn wish(address: &str) -> Wanted {
        Wanted {
            v4: Some(Some(address.parse().unwrap())),
            v6: None,
        }
    }

    #[test]
    fn devices_of_one_identity_have_addresses_of_their_own() {
        let mut l = leases(&["10.99.0.0/24"]);
        // Behind one router, and elsewhere.
        assert_eq!(lend_at(&mut l, "192.0.2.1:4500", 1, V4), "10.99.0.2");
        assert_eq!(lend_at(&mut l, "192.0.2.1:1025", 2, V4), "10.99.0.3");
        assert_eq!(lend_at(&mut l, "192.0.2.9:4500", 3, V4), "10.99.0.4");
        // One that authenticates anew, or whose end was not noticed, keeps its own.
        assert_eq!(
            lend_beside(&mut l, "192.0.2.1:1025", &[2, 77], 4, V4),
            "10.99.0.3"
        );
        // Wherever it was when it got it; who is there now is another one.
        assert_eq!(
            lend_beside(&mut l, "203.0.113.5:4500", &[3], 13, V4),
            "10.99.0.4"
        );
        assert_eq!(lend_at(&mut l, "192.0.2.9:4500", 14, V4), "10.99.0.5");
        l.release(14);
        l.release(2);
        assert_eq!(lend_at(&mut l, "192.0.2.7:4500", 5, V4), "10.99.0.5");
        // Another identity has nothing to do with it.
        assert_eq!(lend(&mut l, "bob", 6, V4), ["10.99.0.6"]);
    }

    #[test]
    fn one_identity_does_not_take_the_whole_pool() {
        let mut l = leases(&["10.99.0.0/16"]);
        for holder in 0..DEVICES_MAX as u64 {
            lend_at(&mut l, &format!("192.0.2.1:{}", 1024 + holder), holder, V4);
        }
        let more = |l: &mut Leases, here: &[u64]| {
            let who = Borrower {
                identity: "family",
                device: Some("192.0.2.2:4500".parse().unwrap()),
                here,
            };
            l.lend("server", who, 1000, V4)
        };
        let error = more(&mut l, &[]).unwrap_err();
        assert!(error.contains("64 devices"), "{error}");
        lend(&mut l, "bob", 2000, V4);
        // One that is there already, and one in the place of another that has gone.
        assert!(more(&mut l, &[7]).is_ok());
        l.release(1000);
        l.release(8);
        assert!(more(&mut l, &[]).is_ok());
    }

    #[test]
    fn device_of_a_shared_identity_gets_its_address_again() {
        let mut l = leases(&["10.99.0.0/24"]);
        for (holder, place) in [
            (1, "192.0.2.1:4500"),
            (2, "192.0.2.2:4500"),
            (3, "192.0.2.3:4500"),
        ] {
            lend_at(&mut l, place, holder, V4);
            l.release(holder);
            if holder < 3 {
                // All three at once.
                let at = format!("198.51.100.{holder}:4500");
                lend_at(&mut l, &at, 10 + holder, V4);
            }
        }
        for holder in 1..20 {
            l.release(holder);
        }
        // By its wish, by its place, by nothing but being the last.
        assert_eq!(
            lend_at(&mut l, "203.0.113.1:4500", 21, wish("10.99.0.3")),
            "10.99.0.3"
        );
        assert_eq!(lend_at(&mut l, "198.51.100.1:999", 22, V4), "10.99.0.2");
        assert_eq!(lend_at(&mut l, "203.0.113.3:4500", 23, V4), "10.99.0.4");
        // What another one has is not granted.
        assert_eq!(
            lend_at(&mut l, "203.0.113.4:4500", 24, wish("10.99.0.3")),
            "10.99.0.5"
        );
    }

    #[test]
    fn the_first_host_is_the_servers_own() {
        let mut l = leases(&["10.99.0.0/24", "fd99::/112"]);
        assert_eq!(lend(&mut l, "alice", 1, BOTH), ["10.99.0.2", "fd99::2"]);
        assert_eq!(lend(&mut l, "bob", 2, V4), ["10.99.0.3"]);
    }

    #[test]
    fn where_speed_is_measured_is_told_if_it_is() {
        let mut l = leases(&["10.99.0.0/24", "fd99::/112", "192.0.2.9/32"]);
        let who = Borrower {
            identity: "alice",
            device: None,
            here: &[],
        };
        let told = l.lend("server", who, 1, V4).unwrap().speedtest;
        let own: [IpAddr; 2] = ["10.99.0.1", "fd99::1"].map(|a| a.parse().unwrap());
        assert_eq!(told, own);
        l.pools.get_mut("server").unwrap().speedtest = false;
        assert_eq!(
            l.lend("server", who, 1, V4).unwrap().speedtest,
            [] as [IpAddr; 0]
        );
    }

    #[test]
    fn a_client_gets_its_address_again() {
        let mut l = leases(&["10.99.0.0/24"]);
        assert_eq!(lend(&mut l, "alice", 1, V4), ["10.99.0.2"]);
        l.release(1);
        assert_eq!(lend(&mut l, "bob", 2, V4), ["10.99.0.3"]);
        assert_eq!(lend(&mut l, "alice", 3, V4), ["10.99.0.2"]);
    }

    #[test]
    fn a_reauthenticating_client_shares_with_itself() {
        let mut l = leases(&["10.99.0.0/24"]);
        assert_eq!(lend(&mut l, "alice", 1, V4), ["10.99.0.2"]);
        assert_eq!(lend(&mut l, "alice", 2, V4), ["10.99.0.2"]);
        l.release(1);
        assert!(l.list().all(|(_, _, online)| online));
        l.release(2);
        assert!(l.list().all(|(_, _, online)| !online));
    }

    #[test]
    fn a_full_pool_takes_from_whoever_is_away_longest_and_else_refuses() {
        let mut l = leases(&["10.99.0.0/29"]);
        for (i, who) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            lend(&mut l, who, i as u64, V4);
        }
        let f = Borrower {
            identity: "f",
            device: None,
            here: &[],
        };
        let refusal = l.lend("server", f, 9, V4).unwrap_err();
        assert!(refusal.contains("10.99.0.0/29"), "{refusal}");
        l.release(1);
        l.release(3);
        assert_eq!(lend(&mut l, "f", 9, V4), ["10.99.0.3"]);
    }

    #[test]
    fn those_who_are_away_are_not_remembered_without_end() {
        let mut l = leases(&["fd99::/64"]);
        let v6 = Wanted {
            v4: None,
            v6: Some(None),
        };
        for i in 0..REMEMBERED_MAX {
            // As if each had been there once.
            let key = ("server".to_owned(), format!("c{i}"), 0);
            let address = Ipv6Addr::from_bits((0xfd99 << 112) + 2 + i as u128);
            l.by_address.insert(address.into(), key.clone());
            let lease = Lease {
                v6: Some(address),
                last_used: i as u64,
                ..Lease::default()
            };
            l.leases.insert(key, lease);
        }
        l.clock = REMEMBERED_MAX as u64;
        lend(&mut l, "new", 1, v6);
        assert_eq!(l.leases.len(), REMEMBERED_MAX);
        assert_eq!(l.by_address.len(), REMEMBERED_MAX);
        assert!(l.list().all(|(who, _, _)| who != "c0"));
    }

    #[test]
    fn no_identity_is_remembered_that_is_too_long_for_one() {
        let mut l = leases(&["10.99.0.0/24"]);
        let longest = "x".repeat(IDENTITY_MAX);
        assert_eq!(lend(&mut l, &longest, 1, V4), ["10.99.0.2"]);
        let longer = Borrower {
            identity: &(longest + "x"),
            device: None,
            here: &[],
        };
        let refusal = l.lend("server", longer, 2, V4).unwrap_err();
        assert!(refusal.contains("1025 octets"), "{refusal}");
        assert_eq!(l.list().count(), 1);
    }

    #[test]
    fn a_wish_is_granted_while_it_is_free() {
        let mut l = leases(&["10.99.0.0/24"]);
        let wish = Wanted {
            v4: Some(Some("10.99.0.77".parse().unwrap())),
            v6: None,
        };
        assert_eq!(lend(&mut l, "alice", 1, wish), ["10.99.0.77"]);
        assert_eq!(lend(&mut l, "bob", 2, wish), ["10.99.0.2"]);
    }

    #[test]
    fn a_huge_ipv6_pool_is_searched_by_its_gaps() {
        let mut l = leases(&["fd99::/48"]);
        let v6 = Wanted {
            v4: None,
            v6: Some(None),
        };
        for i in 0..200 {
            lend(&mut l, &format!("c{i}"), i, v6);
        }
        assert_eq!(lend(&mut l, "last", 999, v6), ["fd99::ca"]);
    }
}

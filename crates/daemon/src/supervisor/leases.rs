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
mod tests;

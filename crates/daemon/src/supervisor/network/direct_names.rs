//! Addresses that go direct because a name of a listed domain has them: which, and until when.
//!
//! The kernel holds them in sets, whose elements end by themselves or are held longer by what is sent there; this is
//! what is known of that here. What ends here has ended there: nothing is dropped before the kernel was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cygnet_gateway::DirectNames;
use tokio::time::Instant;

use crate::api::DirectDomain;
use crate::dns::domains::Domains;

/// Addresses of one listed domain at most, and of all together.
const OF_ONE: usize = 256;
const IN_ALL: usize = 4096;
/// What was held anew so lately is not again.
const LATELY: Duration = Duration::from_secs(300);
/// Whatever is sent there: an address that no name was answered with for so long goes direct no more.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// So many of a domain's addresses are shown.
const SHOWN: usize = 16;
/// How long it is told that a domain has more addresses than are held.
const TOLD: Duration = Duration::from_secs(3600);

/// What is held at this moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    addresses: BTreeMap<IpAddr, Address>,
    /// Domains that had more addresses than are held, and when.
    crowded: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone)]
struct Address {
    /// The listed domains of the names that have it.
    domains: BTreeSet<String>,
    /// When one of these names was last answered with it.
    answered: Instant,
    until: Instant,
}

/// What the kernel has to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Held anew from now on.
    pub(super) held: BTreeSet<IpAddr>,
    /// Held no more.
    pub(super) gone: BTreeSet<IpAddr>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.gone.is_empty()
    }
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// A name of `domain`, which is listed, has this address now. Where there are too many, the one that would end first
    /// ends now.
    pub(super) fn admit(
        &mut self,
        domain: &str,
        address: IpAddr,
        now: Instant,
        change: &mut Change,
    ) {
        let until = now + DirectNames::HELD;
        if let Some(known) = self.addresses.get_mut(&address) {
            known.answered = now;
            if known.until + LATELY < until {
                known.until = until;
                change.held.insert(address);
            }
            if known.domains.insert(domain.to_owned()) {
                self.make_room(domain, address, now, change);
            }
            return;
        }
        let domains = BTreeSet::from([domain.to_owned()]);
        let answered = now;
        let new = Address {
            domains,
            answered,
            until,
        };
        self.addresses.insert(address, new);
        change.gone.remove(&address);
        change.held.insert(address);
        self.make_room(domain, address, now, change);
    }

    /// Ends what is one too many for `domain`, and in all; not `newest`.
    fn make_room(&mut self, domain: &str, newest: IpAddr, now: Instant, change: &mut Change) {
        let of_domain = |address: &Address| address.domains.contains(domain);
        let its = self.addresses.values().filter(|a| of_domain(a)).count();
        let crowded = its > OF_ONE;
        if !crowded && self.addresses.len() <= IN_ALL {
            return;
        }
        self.crowded.insert(domain.to_owned(), now);
        let others = self.addresses.iter().filter(|(a, _)| **a != newest);
        let first = others
            .filter(|(_, address)| !crowded || of_domain(address))
            .min_by_key(|(_, address)| address.until)
            .map(|(address, _)| *address);
        if let Some(first) = first {
            self.addresses.remove(&first);
            change.held.remove(&first);
            change.gone.insert(first);
        }
    }

    /// What of it these domains hold.
    pub(super) fn within(&self, domains: &Domains) -> Self {
        let mut within = Self::default();
        for (address, known) in &self.addresses {
            let held = known.domains.iter().filter_map(|d| domains.above(d));
            let held: BTreeSet<String> = held.map(str::to_owned).collect();
            if !held.is_empty() {
                let known = Address {
                    domains: held,
                    ..known.clone()
                };
                within.addresses.insert(*address, known);
            }
        }
        let crowded = self.crowded.iter().filter(|(d, _)| domains.hold(d));
        within.crowded = crowded.map(|(d, at)| (d.clone(), *at)).collect();
        within
    }

    /// Ends what may not go direct.
    pub(super) fn end(&mut self, may_not: impl Fn(IpAddr) -> bool) {
        self.addresses.retain(|address, _| !may_not(*address));
    }

    /// What is held by `self` and not by `other`.
    pub(super) fn without(&self, other: &Self) -> BTreeSet<IpAddr> {
        let addresses = self.addresses.keys().copied();
        addresses
            .filter(|address| !other.addresses.contains_key(address))
            .collect()
    }

    /// Whether something should have ended by now, unless it was held longer.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.addresses.values().any(|address| address.until <= now)
    }

    /// The kernel lists these, each with how much longer. What should have ended by now and was not held longer has, and
    /// what nobody asked for since long ago ends; gives that.
    pub(super) fn learn(
        &mut self,
        listed: &[(IpAddr, Option<Duration>)],
        now: Instant,
    ) -> BTreeSet<IpAddr> {
        for (address, left) in listed {
            if let (Some(known), Some(left)) = (self.addresses.get_mut(address), left) {
                known.until = (now + *left).min(known.answered + OLDEST);
            }
        }
        let ended: BTreeSet<IpAddr> = (self.addresses.iter())
            .filter(|(_, address)| address.until <= now)
            .map(|(address, _)| *address)
            .collect();
        self.addresses.retain(|address, _| !ended.contains(address));
        self.crowded
            .retain(|_, at| now.saturating_duration_since(*at) < TOLD);
        ended
    }

    /// For the tables: each with how much longer.
    pub(super) fn left(&self, now: Instant) -> BTreeMap<IpAddr, Duration> {
        let addresses = self.addresses.iter();
        addresses
            .map(|(address, known)| (*address, known.until.saturating_duration_since(now)))
            .collect()
    }

    /// Of each of these domains.
    pub(super) fn status(&self, domains: &[String]) -> Vec<DirectDomain> {
        let of = |domain: &String| {
            let its = self.addresses.iter();
            let its = its.filter(|(_, address)| address.domains.contains(domain));
            let mut its: Vec<(IpAddr, Instant)> = its.map(|(a, known)| (*a, known.until)).collect();
            its.sort_by_key(|(_, until)| std::cmp::Reverse(*until));
            DirectDomain {
                domain: domain.clone(),
                count: its.len(),
                addresses: its
                    .into_iter()
                    .take(SHOWN)
                    .map(|(address, _)| address)
                    .collect(),
            }
        };
        domains.iter().map(of).collect()
    }

    /// What is wrong, a sentence each.
    pub(super) fn troubles(&self) -> Vec<String> {
        let crowded = self.crowded.keys();
        crowded
            .map(|domain| {
                format!(
                    "[gateway] direct_domains: the names of `{domain}` have more addresses at a time than go direct \
                     ({OF_ONE} of a domain, {IN_ALL} in all): those asked for longest ago go through the tunnel again; name a \
                     narrower domain"
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        let [.., high, low] = n.to_be_bytes();
        IpAddr::from([198, 51, high, low])
    }

    fn admit(held: &mut Held, domain: &str, n: usize, now: Instant) -> Change {
        let mut change = Change::default();
        held.admit(domain, address(n), now, &mut change);
        change
    }

    #[test]
    fn an_address_is_held_anew_when_its_time_is_less() {
        let (mut held, now) = (Held::default(), Instant::now());
        let first = admit(&mut held, "a.example", 1, now);
        assert_eq!((first.held.len(), first.gone.len()), (1, 0));
        assert!(admit(&mut held, "a.example", 1, now + LATELY).is_empty());
        let later = now + LATELY + Duration::from_secs(1);
        assert_eq!(admit(&mut held, "a.example", 1, later).held.len(), 1);
        assert_eq!(held.left(later)[&address(1)], DirectNames::HELD);
    }

    #[test]
    fn of_too_many_the_oldest_ends_and_other_domains_lose_none() {
        let (mut held, now) = (Held::default(), Instant::now());
        admit(&mut held, "quiet.example", 9999, now);
        for n in 0..OF_ONE {
            let at = now + Duration::from_millis(n as u64);
            assert!(admit(&mut held, "loud.example", n, at).gone.is_empty());
        }
        assert!(held.troubles().is_empty());
        let later = now + Duration::from_secs(1);
        let change = admit(&mut held, "loud.example", OF_ONE, later);
        assert_eq!(change.gone, BTreeSet::from([address(0)]));
        let domains = ["loud.example".to_owned(), "quiet.example".to_owned()];
        let [loud, quiet] = held.status(&domains).try_into().unwrap();
        assert_eq!(
            (loud.count, loud.addresses.len(), quiet.count),
            (OF_ONE, SHOWN, 1)
        );
        assert_eq!(loud.addresses[0], address(OF_ONE));
        let [told] = held.troubles().try_into().unwrap();
        assert!(told.contains("`loud.example`"), "{told}");
        // That another domain has an address, too, makes it no older.
        let mut shared = Change::default();
        held.admit("loud.example", address(9999), later, &mut shared);
        assert_eq!(shared.gone.len(), 1);
        assert!(held.left(later).contains_key(&address(9999)));
        held.learn(&[], later + TOLD);
        assert!(held.troubles().is_empty());
    }

    #[test]
    fn all_together_are_so_many() {
        let (mut held, now) = (Held::default(), Instant::now());
        let mut gone = 0;
        for n in 0..IN_ALL + 10 {
            let at = now + Duration::from_millis(n as u64);
            gone += admit(&mut held, &format!("d{}.example", n / 200), n, at)
                .gone
                .len();
        }
        assert_eq!((held.left(now).len(), gone), (IN_ALL, 10));
        assert!(!held.left(now).contains_key(&address(9)));
    }

    #[test]
    fn what_is_listed_no_more_is_dropped_with_its_addresses_unless_another_has_them() {
        let (mut held, now) = (Held::default(), Instant::now());
        admit(&mut held, "a.example", 1, now);
        admit(&mut held, "b.example", 1, now);
        admit(&mut held, "b.example", 2, now);
        admit(&mut held, "www.c.example", 3, now);
        let domains = Domains::new(["a.example".to_owned(), "c.example".to_owned()]);
        let kept = held.within(&domains);
        assert_eq!(held.without(&kept), BTreeSet::from([address(2)]));
        let listed = ["a.example", "b.example", "c.example"].map(str::to_owned);
        let counts: Vec<usize> = kept.status(&listed).iter().map(|d| d.count).collect();
        assert_eq!(counts, [1, 0, 1]);
    }

    #[test]
    fn what_the_kernel_held_longer_is_not_dropped() {
        let (mut held, now) = (Held::default(), Instant::now());
        admit(&mut held, "a.example", 1, now);
        admit(&mut held, "a.example", 2, now);
        assert!(!held.is_due(now));
        let then = now + DirectNames::HELD;
        assert!(held.is_due(then));
        let left = Duration::from_secs(100);
        let ended = held.learn(&[(address(1), Some(left)), (address(3), None)], then);
        assert_eq!(ended, BTreeSet::from([address(2)]));
        assert_eq!(held.left(then), BTreeMap::from([(address(1), left)]));
        assert!(!held.is_due(then) && !held.is_empty());
    }

    #[test]
    fn what_is_used_for_ever_without_being_asked_for_ends_all_the_same() {
        let (mut held, begun) = (Held::default(), Instant::now());
        for n in [1, 2] {
            admit(&mut held, "a.example", n, begun);
        }
        let in_use = [1, 2].map(|n| (address(n), Some(DirectNames::HELD)));
        let mut now = begun;
        while now + DirectNames::HELD < begun + OLDEST {
            now += DirectNames::HELD / 2;
            assert!(held.learn(&in_use, now).is_empty());
        }
        admit(&mut held, "a.example", 2, now);
        now = begun + OLDEST;
        assert!(held.is_due(now));
        assert_eq!(held.learn(&in_use, now), BTreeSet::from([address(1)]));
        assert_eq!(held.left(now).len(), 1);
    }

    #[test]
    fn what_may_go_direct_no_more_ends() {
        let (mut held, now) = (Held::default(), Instant::now());
        for n in [1, 2] {
            admit(&mut held, "a.example", n, now);
        }
        let before = held.clone();
        held.end(|a| a == address(2));
        assert_eq!(before.without(&held), BTreeSet::from([address(2)]));
    }
}

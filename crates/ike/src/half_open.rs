//! The calls that are half open: whose they are, how many one source may have, and which gives way.
//!
//! Whoever can send from a false address reaches [`UNASKED`] places of it and no more: beyond them a caller has to
//! return a cookie, and those who did do not wait for those who did not. Whoever has many addresses of his own finds
//! that his own calls give way first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::io::IkeSaId;
use crate::policy::Limits;

/// Half-open calls of one source beyond which it has to return a cookie (RFC 7296 §2.6).
const UNASKED: usize = 4;
/// Calls that failed and linger for repeats, of all together.
const FAILED: usize = 256;

/// Calls that are half open, and those that failed of late.
#[derive(Default)]
pub(crate) struct HalfOpen {
    calls: BTreeMap<IkeSaId, Call>,
    sources: BTreeMap<IpAddr, Load>,
    /// Those under way, by what one customer may have.
    wide: BTreeMap<IpAddr, BTreeSet<IkeSaId>>,
    /// Those that failed, by age.
    failed: BTreeSet<IkeSaId>,
}

#[derive(Clone, Copy)]
struct Call {
    from: IpAddr,
    /// The caller receives at the address that it claims.
    proven: bool,
}

/// What one source keeps busy.
#[derive(Default)]
struct Load {
    /// Those under way of who has returned a cookie.
    proven: usize,
    /// Those under way of who was not asked for one.
    unproven: BTreeSet<IkeSaId>,
    /// Those that failed, and their callers had returned a cookie.
    failed: usize,
    /// Those that failed otherwise, or ended because nobody went on with them.
    failed_unproven: usize,
}

impl Load {
    /// Those for whom there are `most` places. Failed ones take half of them at most: behind one address there may be
    /// a device that fails again and again, and others that do not.
    fn counted(&self, most: usize) -> usize {
        self.proven + self.failed.min(most / 2)
    }

    fn all(&self) -> usize {
        self.proven + self.unproven.len() + self.failed + self.failed_unproven
    }
}

impl HalfOpen {
    /// How many there are, with those that failed and linger.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no more calls from there are taken, whatever they bring.
    pub(crate) fn is_full(&self, from: IpAddr, limits: &Limits) -> bool {
        let most = limits.half_open_per_source;
        let load = self.sources.get(&source_of(from));
        load.is_some_and(|load| load.counted(most) >= most)
    }

    /// Whether that many are of there that the next has to prove that it is.
    pub(crate) fn asks(&self, from: IpAddr, limits: &Limits) -> bool {
        let unasked = UNASKED.min(limits.half_open_per_source);
        let load = self.sources.get(&source_of(from));
        load.is_some_and(|load| load.all() >= unasked)
    }

    /// The one that gives way to another call from there, if one has to.
    ///
    /// Where the source has its fill, one of its own that has proven nothing. Where all together have, one of whoever
    /// has the most; of those the oldest, which is the likeliest to be dead.
    pub(crate) fn gives_way(&self, from: IpAddr, limits: &Limits) -> Option<IkeSaId> {
        let most = limits.half_open_per_source;
        if let Some(load) = self.sources.get(&source_of(from))
            && load.counted(most) + load.unproven.len() >= most
            && let Some(oldest) = load.unproven.first()
        {
            return Some(*oldest);
        }
        if self.calls.len() - self.failed.len() < limits.half_open {
            return None;
        }
        let fullest = (self.wide.values()).max_by_key(|ids| (ids.len(), Reverse(ids.first())));
        fullest.and_then(BTreeSet::first).copied()
    }

    pub(crate) fn insert(&mut self, id: IkeSaId, from: IpAddr, proven: bool) {
        self.calls.insert(id, Call { from, proven });
        let load = self.sources.entry(source_of(from)).or_default();
        match proven {
            true => load.proven += 1,
            false => _ = load.unproven.insert(id),
        }
        self.wide.entry(customer_of(from)).or_default().insert(id);
    }

    /// One that failed lingers for its repeats, and takes no place of those under way.
    pub(crate) fn note_failed(&mut self, id: IkeSaId) {
        let Some(call) = self.calls.get(&id).copied() else {
            return;
        };
        if !self.failed.insert(id) {
            return;
        }
        self.leave_wide(id, call);
        if let Some(load) = self.sources.get_mut(&source_of(call.from)) {
            if call.proven {
                load.proven -= 1;
                load.failed += 1;
            } else {
                load.unproven.remove(&id);
                load.failed_unproven += 1;
            }
        }
    }

    /// One that failed and is forgotten before its time, since there are too many.
    pub(crate) fn surplus(&self) -> Option<IkeSaId> {
        let oldest = self.failed.first().copied();
        oldest.filter(|_| self.failed.len() > FAILED)
    }

    pub(crate) fn remove(&mut self, id: IkeSaId) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        let failed = self.failed.remove(&id);
        if !failed {
            self.leave_wide(id, call);
        }
        let source = source_of(call.from);
        if let Some(load) = self.sources.get_mut(&source) {
            match (call.proven, failed) {
                (true, false) => load.proven -= 1,
                (true, true) => load.failed -= 1,
                (false, false) => _ = load.unproven.remove(&id),
                (false, true) => load.failed_unproven -= 1,
            }
            if load.all() == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn leave_wide(&mut self, id: IkeSaId, call: Call) {
        let customer = customer_of(call.from);
        if let Some(ids) = self.wide.get_mut(&customer) {
            ids.remove(&id);
            if ids.is_empty() {
                self.wide.remove(&customer);
            }
        }
    }
}

/// Whom a call is counted for: an IPv4 address, or the /64 of an IPv6 address, which one host has
/// to itself.
fn source_of(from: IpAddr) -> IpAddr {
    network(from, 64)
}

/// The same, as much as one customer may have (RFC 6177): of IPv6 a /48.
fn customer_of(from: IpAddr) -> IpAddr {
    network(from, 48)
}

fn network(from: IpAddr, bits: u32) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => {
            let beyond = u128::MAX.checked_shr(bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !beyond))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One after the other, none of which ends by itself: who is there at last, with the table.
    struct Table {
        open: HalfOpen,
        last: u64,
    }

    impl Table {
        fn new() -> Self {
            let open = HalfOpen::default();
            Self { open, last: 0 }
        }

        fn call(&mut self, from: IpAddr, returns: bool) -> Option<IkeSaId> {
            let limits = Limits::default();
            if self.open.is_full(from, &limits) || self.open.asks(from, &limits) && !returns {
                return None;
            }
            if let Some(gone) = self.open.gives_way(from, &limits) {
                self.open.remove(gone);
            }
            self.last += 1;
            let id = IkeSaId(self.last);
            let proven = self.open.asks(from, &limits) && returns;
            self.open.insert(id, from, proven);
            Some(id)
        }

        fn fail(&mut self, id: IkeSaId) {
            self.open.note_failed(id);
            while let Some(gone) = self.open.surplus() {
                self.open.remove(gone);
            }
        }

        fn is_there(&self, id: IkeSaId) -> bool {
            self.open.calls.contains_key(&id)
        }
    }

    fn v4(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    #[test]
    fn who_fails_again_and_again_takes_no_place_of_others() {
        let mut table = Table::new();
        for _ in 0..100_000 {
            let id = table.call(v4(200), true).expect("half the places are left");
            table.fail(id);
            assert!(table.open.len() <= FAILED);
        }
        assert!(table.call(v4(1), false).is_some());
        let open = (0..100).filter_map(|_| table.call(v4(200), true)).count();
        assert_eq!(open, Limits::default().half_open_per_source / 2);
    }

    #[test]
    fn one_with_a_network_of_ipv6_keeps_nobody_out() {
        let mut table = Table::new();
        let others: Vec<_> = (1..=100).map(|n| table.call(v4(n), false)).collect();
        let network = 0x2001_0db8_0001_u128 << 80;
        for n in 0..4000_u128 {
            let one = IpAddr::V6((network | (n % 256) << 64 | n).into());
            table.call(one, true);
        }
        assert_eq!(table.open.len(), Limits::default().half_open);
        let late = table.call(v4(101), false);
        assert_eq!(table.open.len(), Limits::default().half_open);
        for one in others.into_iter().chain([late]) {
            assert!(table.is_there(one.expect("taken")));
        }
    }

    #[test]
    fn of_equals_the_oldest_gives_way() {
        let limits = Limits {
            half_open: 3,
            ..Limits::default()
        };
        let mut open = HalfOpen::default();
        for n in 1..=3 {
            open.insert(IkeSaId(u64::from(n)), v4(n), true);
        }
        assert_eq!(open.gives_way(v4(9), &limits), Some(IkeSaId(1)));
        open.note_failed(IkeSaId(1));
        assert_eq!(open.gives_way(v4(9), &limits), None);
    }

    #[test]
    fn who_lies_about_its_address_takes_no_place_of_who_has_it() {
        let mut table = Table::new();
        for _ in 0..100 {
            if let Some(id) = table.call(v4(7), false)
                && id.0 % 2 == 0
            {
                // Nobody went on with it.
                table.fail(id);
            }
        }
        assert_eq!(table.last, UNASKED as u64);
        let true_ones: Vec<_> = (0..16).map(|_| table.call(v4(7), true)).collect();
        assert!(true_ones.iter().all(Option::is_some), "{true_ones:?}");
        assert!(true_ones.into_iter().flatten().all(|id| table.is_there(id)));
        assert_eq!(table.call(v4(7), true), None, "that many have one source");
    }

    #[test]
    fn what_is_over_leaves_nothing() {
        let mut table = Table::new();
        let ids: Vec<_> = (0..10)
            .filter_map(|n| table.call(v4(n % 2), true))
            .collect();
        for (n, id) in ids.into_iter().enumerate() {
            if n % 3 == 0 {
                table.fail(id);
            }
            table.open.remove(id);
            table.open.remove(id);
        }
        let open = &table.open;
        assert!(open.calls.is_empty() && open.failed.is_empty());
        assert!(open.sources.is_empty() && open.wide.is_empty());
    }
}

//! Whose ESP that no Child SA takes is reported to the core, which tells a peer that has lost or kept one too long
//! (RFC 7296 §1.5): not so many that the core has much to do, and not so few that somebody else who sends such ESP, which
//! anybody can, keeps a peer from being told.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::tables::Limiter;

/// Groups of senders, each of which is reported once a second. Who is in which is known to nobody.
const GROUPS: usize = 64;

pub(super) struct Strangers {
    groups: [Limiter; GROUPS],
    hasher: RandomState,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self {
            groups: std::array::from_fn(|_| Limiter::default()),
            hasher: RandomState::new(),
        }
    }

    /// Whether ESP from there is to be reported; `now_ms` never goes back.
    pub(super) fn pass(&self, from: IpAddr, now_ms: u64) -> bool {
        let hash = match from {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            // One network is one sender.
            IpAddr::V6(v6) => self.hasher.hash_one(v6.to_bits() >> 64),
        };
        let [.., group] = hash.to_ne_bytes();
        let group = self.groups.get(usize::from(group) % GROUPS);
        group.is_some_and(|group| group.pass(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_sender_keeps_few_others_from_being_reported() {
        let strangers = Strangers::new();
        let loud = IpAddr::from([192, 0, 2, 1]);
        assert!(strangers.pass(loud, 0));
        assert!((1..1000).all(|now| !strangers.pass(loud, now)));
        assert!(strangers.pass(loud, 1000));
        // Of so many senders one finds each group first, all but surely.
        let others = (0..4000).map(|number| IpAddr::from(Ipv4Addr::from_bits(number)));
        let passed = others.filter(|other| strangers.pass(*other, 1000)).count();
        assert_eq!(passed, GROUPS - 1);
    }

    #[test]
    fn addresses_of_one_network_are_one_sender() {
        let strangers = Strangers::new();
        let host = |number: u128| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) | number));
        assert!(strangers.pass(host(1), 0));
        assert!((2..1000).all(|number| !strangers.pass(host(number), 0)));
    }
}

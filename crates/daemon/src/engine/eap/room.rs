//! Which log-in gives way when too many are under way: one of whoever has the most, and of those the oldest, which
//! is the likeliest to be dead.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::source::network;

/// Log-ins of peers at once: each holds some kilobytes for somebody who has proven nothing.
pub(super) const MOST: usize = 256;
/// Of them those of one source; IKE lets fewer of its calls be half open at once.
const MOST_OF_SOURCE: usize = 32;

/// One that is under way.
pub(super) struct UnderWay<K> {
    pub(super) key: K,
    pub(super) source: IpAddr,
    pub(super) until: Instant,
}

/// The one that gives way to another from `source`, if one has to.
pub(super) fn gives_way<K: Copy>(all: &[UnderWay<K>], source: IpAddr) -> Option<K> {
    let near = |source| network(source, 64);
    // Whoever has a /48 has a lot of /64.
    let wide = |source| network(source, 48);
    let own = all.iter().filter(|one| near(one.source) == near(source));
    if own.clone().count() >= MOST_OF_SOURCE {
        return own.min_by_key(|one| one.until).map(|one| one.key);
    }
    if all.len() < MOST {
        return None;
    }
    let (mut of_near, mut of_wide) = (BTreeMap::new(), BTreeMap::new());
    for one in all {
        *of_near.entry(near(one.source)).or_insert(0) += 1;
        *of_wide.entry(wide(one.source)).or_insert(0) += 1;
    }
    let fullest = all.iter().max_by_key(|one| {
        (
            of_wide.get(&wide(one.source)).copied().unwrap_or(0),
            of_near.get(&near(one.source)).copied().unwrap_or(0),
            Reverse(one.until),
        )
    });
    fullest.map(|one| one.key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One each second, in this order, none of which ends by itself: who is there at last.
    fn stay(sources: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        let start = Instant::now();
        let mut all: Vec<UnderWay<usize>> = Vec::new();
        for (key, source) in sources.into_iter().enumerate() {
            if let Some(gone) = gives_way(&all, source) {
                all.retain(|one| one.key != gone);
            }
            let until = start + Duration::from_secs(key as u64);
            all.push(UnderWay { key, source, until });
        }
        all.iter().map(|one| one.source).collect()
    }

    fn v4(n: usize) -> IpAddr {
        IpAddr::from([198, 51, 100, n as u8])
    }

    #[test]
    fn one_source_keeps_nobody_else_out() {
        let others = (1..=100).map(v4);
        let stranger = std::iter::repeat_n(v4(200), 1000);
        let left = stay(others.clone().chain(stranger));
        assert!(others.into_iter().all(|one| left.contains(&one)));
        let of_stranger = left.iter().filter(|one| **one == v4(200)).count();
        assert_eq!(of_stranger, MOST_OF_SOURCE);
    }

    #[test]
    fn nor_does_one_with_a_network_of_ipv6() {
        let network = 0x2001_0db8_0001_u128 << 80;
        let stranger = (0..1000_u128).map(|n| IpAddr::V6((network | n << 64 | 1).into()));
        let others = (1..=100).map(v4);
        let left = stay(others.clone().chain(stranger).chain([v4(101)]));
        assert_eq!(left.len(), MOST);
        assert!(others.chain([v4(101)]).all(|one| left.contains(&one)));
    }

    #[test]
    fn of_one_source_the_oldest_gives_way() {
        let now = Instant::now();
        let all: Vec<_> = (0..MOST_OF_SOURCE)
            .map(|key| UnderWay {
                key,
                source: v4(1),
                until: now + Duration::from_secs((key as u64 + 5) % 32),
            })
            .collect();
        assert_eq!(gives_way(&all, v4(1)), Some(27));
        assert_eq!(gives_way(&all, v4(2)), None);
    }
}

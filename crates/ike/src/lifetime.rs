//! When an SA is renewed, and when it ends whether renewed or not.

use std::time::Duration;

use cygnet_crypto::Random;

use crate::backoff::fraction;
use crate::io::DataLimits;
use crate::policy::Lifetime;
use crate::time::Instant;

/// Longer lifetimes count as this; arithmetic with it cannot overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What a reauthentication may take at least.
const MARGIN: Duration = Duration::from_secs(30);

/// The limits of one SA. Soft limits have a random part taken off, so that two ends with the same
/// configuration rarely rekey at once (RFC 7296 §2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Rekey now.
    pub soft: Instant,
    /// Nothing travels on it any more.
    pub hard: Instant,
    /// What the data path counts (a Child SA).
    pub data: DataLimits,
}

impl Deadlines {
    /// Of an SA that begins `now`.
    pub fn new(lifetime: &Lifetime, now: Instant, random: &mut dyn Random) -> Self {
        let time = lifetime.time.min(FOREVER);
        let percent = u32::from(lifetime.jitter_percent.min(100));
        let jitter = fraction(time * percent / 100, random);
        let hard = time + time * u32::from(lifetime.hard_percent) / 100;
        let bytes = lifetime.bytes.map(|n| counted(n, lifetime, random));
        let packets = lifetime.packets.map(|n| counted(n, lifetime, random));
        Self {
            soft: now + (time - jitter),
            hard: now + hard,
            data: DataLimits {
                soft_bytes: bytes.map(|(soft, _)| soft),
                hard_bytes: bytes.map(|(_, hard)| hard),
                soft_packets: packets.map(|(soft, _)| soft),
                hard_packets: packets.map(|(_, hard)| hard),
            },
        }
    }

    /// No end later than `end`: a certificate that expires, an EAP session that is over.
    #[must_use]
    pub fn ending_by(self, end: Instant) -> Self {
        Self {
            soft: self.soft.min(end),
            hard: self.hard.min(end),
            data: self.data,
        }
    }
}

/// When to reauthenticate: `after` the authentication, less up to a tenth of it.
pub fn reauthenticate_at(after: Duration, now: Instant, random: &mut dyn Random) -> Instant {
    let after = after.min(FOREVER);
    now + (after - fraction(after / 10, random))
}

/// When to authenticate anew where the IKE SA ends in `left`, because the peer says so (RFC 4478) or
/// its certificate expires: a tenth before that, or half a minute where a tenth is less.
pub fn reauthenticate_before(left: Duration, now: Instant, random: &mut dyn Random) -> Instant {
    let left = left.clamp(2 * MARGIN, FOREVER);
    let margin = (left / 10).max(MARGIN);
    now + (left - margin - fraction(margin / 2, random))
}

/// Soft and hard limit of a counter.
fn counted(limit: u64, lifetime: &Lifetime, random: &mut dyn Random) -> (u64, u64) {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    let percent = u128::from(lifetime.jitter_percent.min(100));
    let most = u128::from(limit) * percent / 100;
    // most * random / 2^64 fits 64 bits, as `most` does.
    let jitter = ((most * u128::from(u64::from_be_bytes(bytes))) >> 64) as u64;
    let hard = u128::from(limit) * (100 + u128::from(lifetime.hard_percent)) / 100;
    (
        (limit - jitter).max(1),
        u64::try_from(hard).unwrap_or(u64::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_random::TestRandom;

    const LIFETIME: Lifetime = Lifetime {
        time: Duration::from_secs(3600),
        bytes: Some(1 << 40),
        packets: Some(1000),
        jitter_percent: 10,
        hard_percent: 20,
    };

    #[test]
    fn soft_limits_lie_within_the_jitter_and_hard_ones_are_exact() {
        let now = Instant::from_boot(Duration::from_secs(50));
        let mut softs = Vec::new();
        for seed in 0..50 {
            let deadlines = Deadlines::new(&LIFETIME, now, &mut TestRandom::new(seed));
            let soft = deadlines.soft.since(now).as_secs();
            assert!((3240..=3600).contains(&soft), "{soft}");
            assert_eq!(deadlines.hard.since(now).as_secs(), 4320);
            let data = deadlines.data;
            assert!((900..=1000).contains(&data.soft_packets.unwrap()));
            assert_eq!(data.hard_packets, Some(1200));
            assert!(data.soft_bytes.unwrap() >= (1 << 40) / 10 * 9);
            assert!(data.soft_bytes < data.hard_bytes);
            softs.push(soft);
        }
        softs.sort_unstable();
        softs.dedup();
        assert!(softs.len() > 20, "the jitter varies");
    }

    #[test]
    fn without_counters_the_data_path_counts_nothing() {
        let lifetime = Lifetime {
            bytes: None,
            packets: None,
            ..LIFETIME
        };
        let deadlines = Deadlines::new(&lifetime, Instant::default(), &mut TestRandom::new(0));
        assert_eq!(deadlines.data, DataLimits::default());
    }

    #[test]
    fn limits_without_end_do_not_overflow() {
        let lifetime = Lifetime {
            bytes: Some(u64::MAX),
            packets: Some(1),
            time: Duration::MAX,
            ..LIFETIME
        };
        let deadlines = Deadlines::new(&lifetime, Instant::default(), &mut TestRandom::new(4));
        assert!(deadlines.soft < deadlines.hard);
        let data = deadlines.data;
        assert_eq!(data.hard_bytes, Some(u64::MAX));
        assert_eq!(data.soft_packets, Some(1));
    }

    #[test]
    fn an_sa_does_not_outlive_what_it_rests_on() {
        let deadlines = Deadlines::new(&LIFETIME, Instant::default(), &mut TestRandom::new(5));
        let end = Instant::from_boot(Duration::from_secs(60));
        let cut = deadlines.ending_by(end);
        assert_eq!((cut.soft, cut.hard), (end, end));
    }

    #[test]
    fn reauthentication_comes_in_the_last_tenth() {
        for seed in 0..20 {
            let at = reauthenticate_at(
                Duration::from_secs(1000),
                Instant::default(),
                &mut TestRandom::new(seed),
            );
            assert!((900..=1000).contains(&at.since_boot().as_secs()));
        }
    }

    #[test]
    fn reauthentication_comes_before_the_peer_ends_the_ike_sa() {
        for (left, expected) in [(1000, 850..=900), (120, 75..=90), (0, 15..=30)] {
            for seed in 0..20 {
                let left = Duration::from_secs(left);
                let random = &mut TestRandom::new(seed);
                let at = reauthenticate_before(left, Instant::default(), random);
                assert!(expected.contains(&at.since_boot().as_secs()), "{at:?}");
            }
        }
        let random = &mut TestRandom::new(0);
        reauthenticate_before(Duration::MAX, Instant::default(), random);
    }
}

//! How much work an authenticated peer may make us do by one message each: key exchanges, which take up to a tenth of a
//! second, Child SAs without one, and moves to another address, each of which changes what packets are looked up in.

use std::time::Duration;

use cygnet_crypto::suite::Group;

use crate::time::Instant;

/// What may come at once: all children of a large gateway without key exchanges, or rekeys of 64 with one.
const MOST: u32 = 256;
/// One more each.
const EVERY: Duration = Duration::from_micros(62_500);

/// A bucket that work is taken out of, and that fills again.
#[derive(Clone, Copy)]
pub(crate) struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: MOST,
            since: now,
        }
    }

    /// Whether one more may be done, with a key exchange of this group if there is one; if not, the peer is to ask
    /// again later (RFC 7296 §2.25).
    pub(crate) fn take(&mut self, now: Instant, group: Option<Group>) -> bool {
        let passed = now.since(self.since).as_micros() / EVERY.as_micros();
        let more = u32::try_from(passed).unwrap_or(MOST);
        self.left = self.left.saturating_add(more).min(MOST);
        self.since = if self.left == MOST {
            now
        } else {
            self.since + EVERY * more
        };
        let left = self.left.checked_sub(cost(group));
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// By the time they take, about.
fn cost(group: Option<Group>) -> u32 {
    match group {
        None => 1,
        Some(Group::Modp2048) => 8,
        Some(Group::Modp3072) => 16,
        Some(Group::Modp4096) => 32,
        Some(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_boot(Duration::from_millis(millis))
    }

    fn taken(allowance: &mut Allowance, now: Instant, group: Option<Group>) -> usize {
        (0..1000).take_while(|_| allowance.take(now, group)).count()
    }

    #[test]
    fn what_costs_more_is_done_less_often() {
        for (group, at_once, in_ten_seconds) in [
            (None, 256, 160),
            (Some(Group::Curve25519), 64, 40),
            (Some(Group::Modp2048), 32, 20),
            (Some(Group::Modp4096), 8, 5),
        ] {
            let mut allowance = Allowance::new(at(0));
            assert_eq!(taken(&mut allowance, at(0), group), at_once);
            assert_eq!(taken(&mut allowance, at(50), group), 0);
            assert_eq!(taken(&mut allowance, at(10_000), group), in_ten_seconds);
            assert_eq!(taken(&mut allowance, at(1_000_000), group), at_once);
        }
    }

    #[test]
    fn parts_of_a_step_are_not_lost() {
        let mut allowance = Allowance::new(at(0));
        taken(&mut allowance, at(0), Some(Group::Curve25519));
        let later = (1..=100).map(|n| at(n * 100));
        let taken: usize = later
            .map(|now| usize::from(allowance.take(now, Some(Group::Curve25519))))
            .sum();
        assert_eq!(taken, 40);
    }
}

//! How long to wait before the next call to a peer that is not there. It never gives up.

use std::time::Duration;

use cygnet_crypto::Random;

use crate::time::Instant;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest wait while the peer has not been gone for [`PATIENCE`]: it probably restarts.
pub const MOST_AT_FIRST: Duration = Duration::from_secs(4);
/// The longest wait ever.
pub const MOST: Duration = Duration::from_secs(30);
/// How long a peer may be gone before it is called less often.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The waits between calls since a connection was last up: twice as long each time, up to
/// [`MOST_AT_FIRST`], later [`MOST`]; of each a random part, up to a half, is taken off, so that
/// the clients of a restarted server do not come all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    down_since: Instant,
    wait: Duration,
    attempts: u32,
}

impl Backoff {
    /// The connection went down, or is to come up for the first time.
    pub fn new(down_since: Instant) -> Self {
        Self {
            down_since,
            wait: FIRST,
            attempts: 0,
        }
    }

    /// Since when the connection is down.
    pub fn down_since(&self) -> Instant {
        self.down_since
    }

    /// Calls that have failed.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest wait by now.
    pub fn most(&self, now: Instant) -> Duration {
        if now.since(self.down_since) < PATIENCE {
            MOST_AT_FIRST
        } else {
            MOST
        }
    }

    /// A call has failed: the wait until the next.
    pub fn failed(&mut self, now: Instant, random: &mut dyn Random) -> Duration {
        let wait = self.wait.min(self.most(now));
        self.wait = (2 * wait).min(MOST);
        self.attempts = self.attempts.saturating_add(1);
        wait - fraction(wait / 2, random)
    }
}

/// A random duration from zero to `most`.
pub(crate) fn fraction(most: Duration, random: &mut dyn Random) -> Duration {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    most.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_random::TestRandom;

    /// Waits, each with the time the peer has then been gone, for `total`.
    fn waits(seed: u64, total: Duration) -> Vec<(Duration, Duration)> {
        let mut random = TestRandom::new(seed);
        let start = Instant::from_boot(Duration::from_secs(1000));
        let mut backoff = Backoff::new(start);
        let mut now = start;
        let mut waits = Vec::new();
        while now.since(start) < total {
            let wait = backoff.failed(now, &mut random);
            waits.push((now.since(start), wait));
            now = now + wait;
        }
        assert_eq!(backoff.attempts() as usize, waits.len());
        waits
    }

    #[test]
    fn waits_grow_to_four_seconds_and_after_ten_minutes_to_thirty() {
        for seed in 0..20 {
            for (gone, wait) in waits(seed, Duration::from_secs(3600)) {
                let most = if gone < PATIENCE { MOST_AT_FIRST } else { MOST };
                assert!(wait <= most && wait >= FIRST / 2, "{wait:?} after {gone:?}");
            }
            let late = waits(seed, Duration::from_secs(3600));
            let (_, last) = late.last().copied().unwrap();
            assert!(last >= MOST / 2, "waits {last:?} after an hour");
            assert!(late[0].1 <= FIRST);
        }
    }

    #[test]
    fn two_clients_do_not_wait_alike() {
        assert_ne!(
            waits(1, Duration::from_secs(60)),
            waits(2, Duration::from_secs(60))
        );
    }
}

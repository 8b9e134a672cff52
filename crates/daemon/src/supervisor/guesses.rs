//! Slows down who guesses passwords: by the user whose password is guessed, known or not, and by where the guesses
//! come from.
//!
//! The first few failures cost nothing. After that each attempt waits for twice as long as the one before; one that
//! would have to wait for more than some seconds is not looked at, and counts as wrong. A minute without a failure
//! makes up for one. The tables have a fixed size: names and sources that share a place wait for each other, and
//! nobody outside can tell which do.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

/// Places of each table.
const PLACES: usize = 4096;
/// Failures that cost nothing: of one user, and of one source, behind which there may be many.
const FREE_OF_USER: u32 = 5;
const FREE_OF_SOURCE: u32 = 15;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// The longest that an attempt is kept waiting: IKE gives up a log-in after half a minute.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// The time that makes up for a failure.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Attempts kept waiting at once.
const WAITING_MAX: usize = 64;

/// When an attempt is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    After(Duration),
    /// Not at all.
    Refused,
}

/// Who has guessed wrongly lately. Times are those since the start.
pub(super) struct Guesses {
    hasher: RandomState,
    users: Vec<Place>,
    sources: Vec<Place>,
    waiting: usize,
}

#[derive(Clone, Copy, Default)]
struct Place {
    failures: u32,
    /// When the last failure was forgiven or noted.
    since: Duration,
    /// When the next attempt may be looked at.
    free_at: Duration,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            users: vec![Place::default(); PLACES],
            sources: vec![Place::default(); PLACES],
            waiting: 0,
        }
    }
}

impl Guesses {
    /// When this attempt may be looked at. It counts as a failure until [`Guesses::was_right`].
    pub(super) fn admit(&mut self, now: Duration, user: &str, source: IpAddr) -> Admission {
        let (user, source) = self.places(user, source);
        user.forgive(now);
        source.forgive(now);
        let at = now.max(user.free_at).max(source.free_at);
        let wait = at - now;
        if wait > WAIT_MAX {
            return Admission::Refused;
        }
        user.note(at, FREE_OF_USER);
        source.note(at, FREE_OF_SOURCE);
        if wait.is_zero() {
            return Admission::Now;
        }
        if self.waiting >= WAITING_MAX {
            return Admission::Refused;
        }
        self.waiting += 1;
        Admission::After(wait)
    }

    /// One that was kept waiting waits no more.
    pub(super) fn waited(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// The attempt proved the password.
    pub(super) fn was_right(&mut self, user: &str, source: IpAddr) {
        let (user, source) = self.places(user, source);
        *user = Place::default();
        // Others behind the same address may be guessing.
        source.failures = source.failures.saturating_sub(1);
        if source.failures < FREE_OF_SOURCE {
            source.free_at = Duration::ZERO;
        }
    }

    fn places(&mut self, user: &str, source: IpAddr) -> (&mut Place, &mut Place) {
        // Whoever has an IPv6 address has its /64.
        let network = match source {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default(),
        };
        let user = self.hasher.hash_one(user);
        let source = self.hasher.hash_one((source.is_ipv6(), network));
        // The remainder is an index of the table.
        let place = |hash: u64| usize::try_from(hash % PLACES as u64).unwrap_or_default();
        (
            &mut self.users[place(user)],
            &mut self.sources[place(source)],
        )
    }
}

impl Place {
    fn forgive(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs() / FORGIVEN.as_secs();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        if forgiven > 0 {
            self.failures = self.failures.saturating_sub(forgiven);
            self.since = now;
        }
    }

    fn note(&mut self, at: Duration, free: u32) {
        if self.failures == 0 {
            self.since = at;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(over) = self.failures.checked_sub(free) {
            let pause = Duration::from_secs(1u64.checked_shl(over).unwrap_or(u64::MAX));
            self.free_at = at + pause.min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    /// How many of the guesses made each second for `seconds` are looked at.
    fn looked_at(seconds: u64, mut who: impl FnMut(u64) -> (String, IpAddr)) -> usize {
        let mut guesses = Guesses::default();
        (0..seconds)
            .filter(|second| {
                let (user, source) = who(*second);
                guesses.waited();
                let now = Duration::from_secs(*second);
                guesses.admit(now, &user, source) != Admission::Refused
            })
            .count()
    }

    #[test]
    fn a_user_is_guessed_at_about_once_a_minute() {
        // From anywhere.
        let hour = looked_at(3600, |second| {
            ("alice".to_owned(), source((second % 250) as u8))
        });
        assert!((20..120).contains(&hour), "{hour}");
    }

    #[test]
    fn a_source_guesses_at_about_one_user_a_minute() {
        let hour = looked_at(3600, |second| (format!("user{second}"), source(1)));
        assert!((20..150).contains(&hour), "{hour}");
    }

    #[test]
    fn who_mistypes_a_few_times_does_not_wait() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        for _ in 0..FREE_OF_USER {
            assert_eq!(guesses.admit(now, "alice", source(1)), Admission::Now);
        }
        let waits = guesses.admit(now, "alice", source(1));
        assert!(matches!(waits, Admission::After(_)), "{waits:?}");
        guesses.was_right("alice", source(1));
        assert_eq!(guesses.admit(now, "alice", source(1)), Admission::Now);
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let mut guesses = Guesses::default();
        for second in 0..1000 {
            let now = Duration::from_secs(second / 10);
            let user = format!("user{second}");
            assert_eq!(guesses.admit(now, &user, source(1)), Admission::Now);
            guesses.was_right(&user, source(1));
        }
    }

    #[test]
    fn few_are_kept_waiting_at_once() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        let mut waiting = 0;
        for user in 0..2000 {
            for _ in 0..=FREE_OF_USER {
                let source = source((user % 250) as u8);
                let admitted = guesses.admit(now, &format!("user{user}"), source);
                waiting += usize::from(matches!(admitted, Admission::After(_)));
            }
        }
        assert_eq!(waiting, WAITING_MAX);
    }
}

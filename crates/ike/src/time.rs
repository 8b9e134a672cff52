//! Time as the core sees it: always an argument, never read.
//!
//! Lifetimes, retransmissions and back-off count the time since boot *including suspend*, so a
//! laptop that slept for an hour knows that its SAs are an hour older. Certificates need the date,
//! which a board without a clock does not have at power-up.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment, in nanoseconds since boot, suspend included (`CLOCK_BOOTTIME` on Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `since_boot` after boot; saturates after 584 years.
    pub fn from_boot(since_boot: Duration) -> Self {
        Self(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Time since boot.
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(
            self.0
                .saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime(pub i64);

impl UtcTime {
    /// Time from `self` to `later`; zero if that is over.
    pub fn until(self, later: UtcTime) -> Duration {
        let left = later.0.saturating_sub(self.0);
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }
}

/// What the caller's clocks say at an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Counts lifetimes and timers.
    pub boot: Instant,
    /// Judges certificates; `None` while the clock has not been set.
    pub utc: Option<UtcTime>,
}

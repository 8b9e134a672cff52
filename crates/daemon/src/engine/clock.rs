//! The clocks that the core is told: time since boot, and the date, which the supervisor judges.

use std::sync::{Mutex, PoisonError};

use cygnet_ike::time::{Instant, Now, UtcTime};
use cygnet_linux::clock::boottime;

use crate::clock::{NotSet, Told};

/// Dates that differ by less, in milliseconds, judge certificates alike.
const ALIKE: u64 = 60_000;

/// Reads time since boot, suspend included, and the date.
pub(super) struct Clock {
    known: Mutex<Known>,
}

struct Known {
    told: Told,
    /// By which date peers were let in, as it was when this machine started.
    judged: Option<i64>,
}

/// What another date means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// There was none before.
    pub(super) is_known: bool,
    /// Who is in was judged by one that was wrong.
    pub(super) is_other: bool,
}

impl Clock {
    pub(super) fn new(told: Told) -> Self {
        Self {
            known: Mutex::new(Known {
                told,
                judged: told.ok(),
            }),
        }
    }

    /// The supervisor knows another date.
    pub(super) fn tell(&self, told: Told) -> News {
        let mut known = self.lock();
        let before = std::mem::replace(&mut known.told, told);
        let mut news = News {
            is_known: told.is_ok() && before.is_err(),
            is_other: false,
        };
        if let Ok(at_boot) = told {
            let judged = *known.judged.get_or_insert(at_boot);
            if judged.abs_diff(at_boot) >= ALIKE {
                known.judged = told.ok();
                news.is_other = true;
            }
        }
        news
    }

    /// The date, if it is known.
    pub(super) fn date(&self) -> Result<UtcTime, NotSet> {
        let at_boot = self.lock().told?;
        let since = i64::try_from(boottime().as_millis()).unwrap_or(i64::MAX);
        Ok(UtcTime(at_boot.saturating_add(since).div_euclid(1000)))
    }

    pub(super) fn now(&self) -> Now {
        Now {
            boot: Instant::from_boot(boottime()),
            utc: self.date().ok(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_what_the_supervisor_says() {
        let not_set = NotSet::Program { says: 0 };
        let clock = Clock::new(Err(not_set));
        assert_eq!((clock.date(), clock.now().utc), (Err(not_set), None));
        assert!(!clock.tell(Err(not_set)).is_known);
        let since = i64::try_from(boottime().as_secs()).unwrap();
        assert!(clock.tell(Ok(1_795_651_200_000)).is_known);
        let date = clock.date().unwrap().0 - since;
        assert!((1_795_651_200..1_795_651_260).contains(&date), "{date}");
        let again = clock.tell(Ok(1_795_651_300_000));
        assert!(!again.is_known, "it was known before");
        assert!(clock.now().utc.is_some());
        assert!(!clock.tell(Err(not_set)).is_known);
        assert_eq!(clock.now().utc, None);
    }

    #[test]
    fn who_was_judged_by_a_date_that_was_wrong_is_judged_again() {
        const TODAY: i64 = 1_795_651_200_000;
        let not_set = Err(NotSet::Program { says: 0 });
        let clock = Clock::new(not_set);
        for (told, other) in [
            (Ok(TODAY), false),
            (Ok(TODAY + 59_999), false),
            // Little by little it is another one, too.
            (Ok(TODAY + 60_000), true),
            (Ok(TODAY + 60_001), false),
            (Ok(0), true),
            (not_set, false),
            (Ok(1), false),
            (not_set, false),
            (Ok(TODAY), true),
        ] {
            assert_eq!(clock.tell(told).is_other, other, "{told:?}");
        }
    }

    #[test]
    fn time_since_boot_goes_on() {
        let clock = Clock::new(Ok(0));
        let before = clock.now().boot;
        assert!(clock.now().boot >= before);
    }
}

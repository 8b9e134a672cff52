//! The clocks the core is told.

use std::time::{SystemTime, UNIX_EPOCH};

use cygnet_ike::time::{Instant, Now, UtcTime};

/// 2024-01-01T00:00:00Z. Boards without a battery begin in 1970, or when their image was made; a date
/// before this program existed has not been set.
const NOT_BEFORE: i64 = 1_704_067_200;

/// Reads time since boot, suspend included, and the date.
pub(super) struct Clock;

impl Clock {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn now(&self) -> Now {
        let date = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Now {
            boot: Instant::from_boot(cygnet_linux::clock::boottime()),
            utc: date.and_then(|date| utc(date.as_secs())),
        }
    }
}

fn utc(seconds: u64) -> Option<UtcTime> {
    let seconds = i64::try_from(seconds).ok()?;
    (seconds >= NOT_BEFORE).then_some(UtcTime(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_before_the_program_existed_has_not_been_set() {
        assert_eq!(utc(0), None);
        assert_eq!(utc(1_704_067_199), None);
        assert_eq!(utc(1_704_067_200), Some(UtcTime(1_704_067_200)));
    }

    #[test]
    fn time_since_boot_goes_on() {
        let clock = Clock::new();
        let before = clock.now().boot;
        assert!(clock.now().boot >= before);
    }
}

//! The last date known, kept from one run to the next: a machine without a battery knows by it what is over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cygnet_ike::time::UtcTime;
use cygnet_linux::keep_file;

use super::{day, span};

/// What the date was when it was last known, in the state directory: one number, seconds since 1970.
#[derive(Debug)]
pub(crate) struct LastKnown {
    path: PathBuf,
    /// Where it could not be written it counts as kept, too: not everything is tried again all the time.
    kept: Option<i64>,
    /// Since when it is earlier than the one that is kept, in time since boot.
    back_since: Option<Duration>,
}

/// How far the date goes on before it is kept again: a flash card is not written to all the time.
pub(super) const KEEP_EACH: i64 = 3600;
/// An earlier date than the one that is kept takes its place when it has counted for so long without a break: who forges
/// it for a while does not lower what is known, and a clock that was once ahead does not count against the right one for
/// ever.
const LOWERED_AFTER: Duration = Duration::from_secs(86_400);

impl LastKnown {
    /// What is kept; a file that is not there or holds something else tells nothing.
    pub(crate) fn read(state_dir: &str) -> Self {
        let path = Path::new(state_dir).join("clock");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Self {
            path,
            kept: text.trim().parse().ok(),
            back_since: None,
        }
    }

    pub(crate) fn kept(&self) -> Option<i64> {
        self.kept
    }

    /// Keeps the date, if it counts: when it has gone on far enough from the one that is kept, or at the end. `boot`:
    /// time since this machine started.
    pub(crate) fn keep(&mut self, date: Option<UtcTime>, boot: Duration, at_the_end: bool) {
        let Some(UtcTime(date)) = date else {
            self.back_since = None;
            return;
        };
        let ahead = self.kept.map(|kept| date.saturating_sub(kept));
        let later = self.kept.filter(|_| ahead <= Some(-KEEP_EACH));
        if let Some(kept) = later {
            let since = *self.back_since.get_or_insert_with(|| {
                tracing::warn!("{}", went_back(kept, date));
                boot
            });
            if boot.saturating_sub(since) < LOWERED_AFTER {
                return;
            }
            tracing::warn!(
                "the last date known was {}, and is {} from now on: this machine's clock has said so for a day",
                day(kept),
                day(date)
            );
        } else if ahead.is_some_and(|ahead| ahead < KEEP_EACH && !at_the_end) {
            self.back_since = None;
            return;
        }
        self.back_since = None;
        self.kept = Some(date);
        if let Err(error) = keep_file(&self.path, format!("{date}\n").as_bytes()) {
            tracing::debug!("cannot write {}: {error}", self.path.display());
        }
    }
}

fn went_back(from: i64, to: i64) -> String {
    format!(
        "this machine's clock went back by {}, from {} to {}: if nobody corrected it, whoever answers its time \
         synchronisation forges the date",
        span(from.saturating_sub(to)),
        day(from),
        day(to)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26.
    const TODAY: i64 = 1_795_651_200;

    /// A state directory of its own.
    fn state(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cygnet-clock-{name}-{}", std::process::id()))
    }

    #[test]
    fn the_date_is_kept_now_and_then_and_at_the_end() {
        let directory = state("kept");
        let state_dir = directory.to_str().unwrap();
        let mut kept = LastKnown::read(state_dir);
        assert_eq!(kept.kept(), None);
        let mut seen = Vec::new();
        for (seconds, at_the_end) in [
            (0, false),
            (3599, false),
            (3600, false),
            (3601, true),
            (5, false),
            (2, true),
        ] {
            kept.keep(Some(UtcTime(TODAY + seconds)), Duration::ZERO, at_the_end);
            seen.push(LastKnown::read(state_dir).kept().map(|kept| kept - TODAY));
        }
        kept.keep(None, Duration::ZERO, true);
        seen.push(LastKnown::read(state_dir).kept().map(|kept| kept - TODAY));
        std::fs::write(directory.join("clock"), "soon\n").unwrap();
        let nonsense = LastKnown::read(state_dir).kept();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(seen, [0, 0, 3600, 3601, 3601, 2, 2].map(Some));
        assert_eq!(nonsense, None);
    }

    #[test]
    fn who_forges_an_earlier_date_for_a_while_does_not_lower_what_is_known() {
        let directory = state("back");
        let state_dir = directory.to_str().unwrap();
        let mut kept = LastKnown::read(state_dir);
        let hour = |hours: u64| Duration::from_secs(hours * 3600);
        let mut keep = |days: Option<i64>, hours, at_the_end| {
            let date = days.map(|days| UtcTime(TODAY + days * 86_400));
            kept.keep(date, hour(hours), at_the_end);
            let read = LastKnown::read(state_dir).kept();
            assert_eq!(kept.kept(), read);
            read.map(|kept| (kept - TODAY) / 86_400)
        };
        assert_eq!(keep(Some(0), 0, false), Some(0));
        for (days, hours, at_the_end) in [
            (Some(-2), 1, false),
            (Some(-2), 24, false),
            (Some(-2), 24, true),
            // The right one, or none, in between: it is a while again.
            (Some(0), 24, false),
            (Some(-2), 26, false),
            (None, 30, false),
            (Some(-2), 31, false),
            (Some(-2), 54, true),
        ] {
            assert_eq!(keep(days, hours, at_the_end), Some(0), "{hours}");
        }
        assert_eq!(keep(Some(-2), 55, false), Some(-2), "a day");
        std::fs::remove_dir_all(&directory).unwrap();
        let told = went_back(TODAY, TODAY - 2 * 86_400);
        assert!(
            told.contains("by 2 days, from 2026-11-26 to 2026-11-24"),
            "{told}"
        );
    }
}

//! The clocks the core is told, and whether the date can be believed.
//!
//! A board without a battery begins in 1970, or when its image was made, or, with `fake-hwclock`, when it
//! was last switched off. Judged by such a date, good certificates are refused as "not yet valid", and
//! revoked ones are not known to be. So a date that cannot be right counts as unknown, and whoever needs
//! one waits.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cygnet_config::Config;
use cygnet_ike::time::{Instant, Now, UtcTime};
use cygnet_linux::keep_file;
use time::OffsetDateTime;
use time::macros::format_description;

/// 2025-01-01T00:00:00Z: before this program existed.
pub const NOT_BEFORE: i64 = 1_735_689_600;

/// Stands for "nothing known" in an atomic.
const NONE: i64 = i64::MIN;

/// What the machine says, for [`Clock`]; tests say something else.
#[derive(Clone, Copy)]
struct Source {
    /// Seconds since 1970.
    seconds: fn() -> i64,
    /// Whether somebody keeps the clock right.
    synchronised: fn() -> bool,
}

const MACHINE: Source = Source {
    seconds: || match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => i64::MIN,
    },
    synchronised: cygnet_linux::clock::is_synchronised,
};

/// Reads time since boot, suspend included, and the date.
pub(crate) struct Clock {
    source: Source,
    /// Since when our newest certificate is valid.
    certificate: AtomicI64,
    /// What the date was when it was last known.
    last_known: AtomicI64,
}

/// Why the date is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSet {
    /// It is before this program existed.
    Program { says: i64 },
    /// Our own certificate is not valid yet.
    Certificate { says: i64, since: i64 },
    /// It was later already, and nobody keeps the clock right.
    LastKnown { says: i64, last: i64 },
}

impl Clock {
    /// With what the configuration and an earlier run tell about the date.
    pub(crate) fn new(config: &Config, last_known: Option<i64>) -> Self {
        Self::of(MACHINE, newest_certificate(config), last_known)
    }

    fn of(source: Source, certificate: Option<i64>, last_known: Option<i64>) -> Self {
        Self {
            source,
            certificate: AtomicI64::new(certificate.unwrap_or(NONE)),
            last_known: AtomicI64::new(last_known.unwrap_or(NONE)),
        }
    }

    /// The certificates of a (new) configuration.
    pub(crate) fn configure(&self, config: &Config) {
        let newest = newest_certificate(config).unwrap_or(NONE);
        self.certificate.store(newest, Ordering::Relaxed);
    }

    /// The date, if it can be right.
    pub(crate) fn date(&self) -> Result<UtcTime, NotSet> {
        let says = (self.source.seconds)();
        let since = self.certificate.load(Ordering::Relaxed);
        let last = self.last_known.load(Ordering::Relaxed);
        if says < NOT_BEFORE {
            Err(NotSet::Program { says })
        } else if says < since {
            Err(NotSet::Certificate { says, since })
        } else if says < last && !(self.source.synchronised)() {
            Err(NotSet::LastKnown { says, last })
        } else {
            Ok(UtcTime(says))
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            boot: Instant::from_boot(cygnet_linux::clock::boottime()),
            utc: self.date().ok(),
        }
    }
}

fn newest_certificate(config: &Config) -> Option<i64> {
    let connections = config.policy.connections.iter();
    let own = connections.filter_map(|connection| connection.local_auth.leaf());
    own.filter_map(|leaf| Some(cygnet_pki::validity(leaf).ok()?.not_before))
        .max()
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Program { says }
        | Self::Certificate { says, .. }
        | Self::LastKnown { says, .. }) = self;
        write!(f, "this machine's clock is not set: it says {}", day(*says))?;
        match self {
            Self::Program { .. } => f.write_str(", which is before this program existed")?,
            Self::Certificate { since, .. } => {
                write!(f, ", and our own certificate is valid from {}", day(*since))?;
            }
            Self::LastKnown { last, .. } => write!(f, ", and it was {} before", day(*last))?,
        }
        f.write_str(
            "; certificates wait until it is set, by time synchronisation or with `timedatectl set-time`",
        )?;
        match self {
            Self::LastKnown { .. } => f.write_str(
                " (if it is right now, remove the file `clock` in [daemon] state_dir, and restart)",
            ),
            Self::Program { .. } | Self::Certificate { .. } => Ok(()),
        }
    }
}

/// `2026-11-26`, in UTC.
pub(crate) fn day(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day]");
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok();
    date.and_then(|date| date.format(format).ok())
        .unwrap_or_else(|| "a day without a date".to_owned())
}

/// What the date was when it was last known, in the state directory: one number, seconds since 1970.
#[derive(Debug)]
pub(crate) struct LastKnown {
    path: PathBuf,
    /// Where it could not be written it counts as kept, too: not everything is tried again all the time.
    kept: Option<i64>,
}

/// How far the date goes on before it is kept again: a flash card is not written to all the time.
const KEEP_EACH: i64 = 3600;

impl LastKnown {
    /// What is kept; a file that is not there or holds something else tells nothing.
    pub(crate) fn read(state_dir: &str) -> Self {
        let path = Path::new(state_dir).join("clock");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Self {
            path,
            kept: text.trim().parse().ok(),
        }
    }

    pub(crate) fn kept(&self) -> Option<i64> {
        self.kept
    }

    /// Keeps a date that is known, if it differs enough from the one that is kept, or at the end.
    pub(crate) fn keep(&mut self, date: UtcTime, at_the_end: bool) {
        let differs = |kept: i64| (date.0 - kept).abs() >= KEEP_EACH;
        if !at_the_end && !self.kept.is_none_or(differs) {
            return;
        }
        let text = format!("{}\n", date.0);
        self.kept = Some(date.0);
        if let Err(error) = keep_file(&self.path, text.as_bytes()) {
            tracing::debug!("cannot write {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26.
    const TODAY: i64 = 1_795_651_200;

    fn told(
        says: fn() -> i64,
        synchronised: fn() -> bool,
        last: Option<i64>,
    ) -> Result<i64, NotSet> {
        let source = Source {
            seconds: says,
            synchronised,
        };
        let clock = Clock::of(source, Some(TODAY), last);
        clock.date().map(|date| date.0)
    }

    #[test]
    fn a_date_that_cannot_be_right_is_unknown() {
        let later = Some(TODAY + 86_400);
        for synchronised in [(|| true) as fn() -> bool, || false] {
            let says = 0;
            assert_eq!(
                told(|| 0, synchronised, None),
                Err(NotSet::Program { says })
            );
            let (says, since) = (TODAY - 1, TODAY);
            let unset = Err(NotSet::Certificate { says, since });
            assert_eq!(told(|| TODAY - 1, synchronised, later), unset);
            assert_eq!(told(|| TODAY, synchronised, Some(TODAY)), Ok(TODAY));
        }
        let unset = NotSet::LastKnown {
            says: TODAY,
            last: TODAY + 86_400,
        };
        assert_eq!(told(|| TODAY, || false, later), Err(unset));
        // Who keeps it right knows better than what it was when it was wrong.
        assert_eq!(told(|| TODAY, || true, later), Ok(TODAY));
        let sentence = unset.to_string();
        for part in ["2026-11-26", "2026-11-27", "not set", "timedatectl"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn it_goes_on_as_soon_as_the_clock_is_set() {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        let source = Source {
            seconds: || SECONDS.load(Ordering::Relaxed),
            synchronised: || false,
        };
        let clock = Clock::of(source, Some(TODAY - 10), Some(TODAY));
        for (seconds, known) in [
            (0, false),
            (TODAY - 20, false),
            (TODAY - 5, false),
            (TODAY, true),
        ] {
            SECONDS.store(seconds, Ordering::Relaxed);
            assert_eq!(clock.now().utc.is_some(), known, "{seconds}");
        }
    }

    #[test]
    fn time_since_boot_goes_on() {
        let clock = Clock::of(MACHINE, None, None);
        let before = clock.now().boot;
        assert!(clock.now().boot >= before);
    }

    #[test]
    fn the_date_is_kept_now_and_then_and_at_the_end() {
        let directory = std::env::temp_dir().join(format!("cygnet-clock-{}", std::process::id()));
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
        ] {
            kept.keep(UtcTime(TODAY + seconds), at_the_end);
            seen.push(LastKnown::read(state_dir).kept().map(|kept| kept - TODAY));
        }
        std::fs::write(directory.join("clock"), "soon\n").unwrap();
        let nonsense = LastKnown::read(state_dir).kept();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(seen, [Some(0), Some(0), Some(3600), Some(3601), Some(3601)]);
        assert_eq!(nonsense, None);
    }
}

//! Why a date is not believed, in words, and dates and times in words.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

/// How a sentence begins that a date is not believed.
const DOUBTED: &str = "no time synchronisation keeps this machine's clock right";
const UNSET: &str = "this machine's clock is not set";

/// Whether a warning says why the date is not believed.
#[must_use]
pub fn is_about_clock(warning: &str) -> bool {
    [DOUBTED, UNSET].iter().any(|it| warning.starts_with(it))
}

/// Why the date is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NotSet {
    /// It is before this program existed.
    Program { says: i64 },
    /// Our own certificate is not valid yet.
    Certificate { says: i64, since: i64 },
    /// An authority of ours has signed later already.
    Signed { says: i64, signed: i64 },
    /// It was later already, and nobody keeps the clock right.
    LastKnown { says: i64, last: i64 },
    /// Nobody keeps it right, and time servers are not heard yet.
    Doubted { says: i64 },
}

impl NotSet {
    /// The machine's date, in seconds since 1970.
    fn says(self) -> i64 {
        let (Self::Program { says }
        | Self::Certificate { says, .. }
        | Self::Signed { says, .. }
        | Self::LastKnown { says, .. }
        | Self::Doubted { says }) = self;
        says
    }
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = day(self.says());
        if let Self::Doubted { .. } = self {
            return write!(
                f,
                "{DOUBTED}, which says {says}: certificates wait for time servers, for 20 s at most"
            );
        }
        write!(f, "{UNSET}: it says {says}")?;
        match self {
            Self::Program { .. } => f.write_str(", which is before this program existed")?,
            Self::Certificate { since, .. } => {
                write!(f, ", and our own certificate is valid from {}", day(*since))?;
            }
            Self::Signed { signed, .. } => {
                let signed = day(*signed);
                write!(f, ", and an authority in `ca` has signed on {signed}")?;
            }
            Self::LastKnown { last, .. } => write!(f, ", and it was {} before", day(*last))?,
            Self::Doubted { .. } => {}
        }
        f.write_str(
            "; certificates wait until time servers agree on the date, or it is set, by time synchronisation or with \
             `timedatectl set-time`",
        )?;
        match self {
            Self::LastKnown { .. } => f.write_str(
                " (if it is right now, remove the file `clock` in [daemon] state_dir, and restart)",
            ),
            Self::Signed { .. } => f.write_str(
                " (if it is right now, the authority's was not: have it make its certificate or revocation list again, \
                 remove the one of that day from the configuration, and from `crl` in [daemon] state_dir, and restart)",
            ),
            Self::Program { .. } | Self::Certificate { .. } | Self::Doubted { .. } => Ok(()),
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

/// `20 years`: a time that clocks differ by, in seconds.
pub(crate) fn span(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (365 * 86_400, "years"),
        (86_400, "days"),
        (3600, "hours"),
        (60, "minutes"),
    ];
    let mut units = UNITS.iter().filter(|(unit, _)| seconds >= 2 * unit);
    match units.next() {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clocks_differ_by_is_told_in_round_figures() {
        for (seconds, told) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (86_400, "24 hours"),
            (729 * 86_400, "729 days"),
            (20 * 365 * 86_400, "20 years"),
        ] {
            assert_eq!(span(seconds), told);
        }
    }
}

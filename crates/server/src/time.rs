//! Times: seconds since 1970 in the state, days for people.

use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::macros::format_description;
use cygnet_pki::UnixTime;

use crate::error::{Error, Result};

/// A day.
pub const DAY: i64 = 86_400;

pub(crate) fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        u64::try_from(seconds).unwrap_or_default(),
    ))
}

/// `2027-06-15`, UTC.
pub fn day(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day]");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|it| it.format(format).ok())
        .unwrap_or_else(|| "?".into())
}

/// How long a certificate is valid: `90d`, `26w`, `2y`; in seconds.
pub fn validity(text: &str) -> Result<i64> {
    let wrong = || {
        Error::Refused(format!(
            "{text:?} is no validity: expected a number of days, weeks or years from 1d to 10y, such as 90d, 26w or 2y"
        ))
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let days = match unit {
        'd' => 1,
        'w' => 7,
        'y' => 365,
        _ => return Err(wrong()),
    };
    let number: i64 = text
        .strip_suffix(unit)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    number
        .checked_mul(days)
        .filter(|days| (1..=3650).contains(days))
        .map(|days| days * DAY)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validities_and_days_are_read_and_shown() {
        assert_eq!(validity("1y").expect("a year"), 365 * DAY);
        assert_eq!(validity("2w").expect("weeks"), 14 * DAY);
        for bad in [
            "",
            "y",
            "0d",
            "11y",
            "1m",
            "-1d",
            "+1d",
            "1.5y",
            "99999999999999999999d",
            "1ü",
        ] {
            assert!(validity(bad).is_err(), "{bad}");
        }
        assert_eq!(day(1_813_060_800), "2027-06-15");
        assert_eq!(day(i64::MAX), "?");
    }
}

//! Dates and spans of time in words.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// `2026-11-26`.
pub(crate) fn day(seconds: i64) -> String {
    text(seconds, format_description!("[year]-[month]-[day]"))
}

/// `2026-11-26 15:04 UTC`.
pub(crate) fn minute(seconds: i64) -> String {
    text(
        seconds,
        format_description!("[year]-[month]-[day] [hour]:[minute] UTC"),
    )
}

fn text(seconds: i64, format: &[BorrowedFormatItem<'_>]) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok();
    date.and_then(|date| date.format(format).ok())
        .unwrap_or_else(|| "a day without a date".to_owned())
}

/// `2 min`, `3 h 5 min`, `4 d 6 h`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_spans() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(minute(1_795_651_260), "2026-11-26 00:01 UTC");
        assert_eq!(day(i64::MAX), "a day without a date");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3_725), "1 h 2 min");
        assert_eq!(span(400 * 86_400), "400 d 0 h");
    }
}

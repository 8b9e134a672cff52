//! A run, and a history, as a person reads them.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::{Direction, Latency, Path, Run};

/// The figures of each way, and below them what limits the tunnel.
#[must_use]
pub fn table(run: &Run) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<8}{:>15}{:>15}   round trip, half and 99 % within, ms\n{:<8}{:>15}{:>15}{:>17}{:>17}{:>17}",
        "", "down", "up", "", "Mbit/s", "Mbit/s", "idle", "while down", "while up"
    );
    for path in &run.paths {
        let _ = writeln!(
            out,
            "{:<8}{:>15}{:>15}{:>17}{:>17}{:>17}",
            path.way.name(),
            speed(path.down.as_ref()),
            speed(path.up.as_ref()),
            times(path.idle),
            times(latency(path.down.as_ref())),
            times(latency(path.up.as_ref())),
        );
    }
    for (name, direction) in run.tunnelled().into_iter().flat_map(directions) {
        if let Some(limit) = direction.limit {
            let _ = writeln!(out, "limit of {name}: {limit}");
        }
    }
    out
}

/// Earlier runs, a line each, in their order.
#[must_use]
pub fn list(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        for path in &run.paths {
            let _ = write!(
                out,
                "{}  {:<12} {:<6} {:>9} down {:>9} up Mbit/s, idle {} ms",
                date(run.at),
                run.tunnel,
                path.way.name(),
                speed(path.down.as_ref()),
                speed(path.up.as_ref()),
                times(path.idle),
            );
            for (name, direction) in directions(path) {
                let _ = write!(out, ", while {name} {} ms", times(direction.latency));
            }
            out.push('\n');
        }
    }
    out
}

fn directions(path: &Path) -> impl Iterator<Item = (&'static str, &Direction)> {
    let both = [("down", &path.down), ("up", &path.up)];
    both.into_iter()
        .filter_map(|(name, direction)| Some((name, direction.as_ref()?)))
}

fn speed(direction: Option<&Direction>) -> String {
    direction.map_or("-".to_owned(), |direction| {
        format!("{:.1}", direction.mbit_s)
    })
}

fn latency(direction: Option<&Direction>) -> Option<Latency> {
    direction?.latency
}

fn times(latency: Option<Latency>) -> String {
    latency.map_or("-".to_owned(), |latency| {
        format!("{:.1} / {:.1}", latency.p50_ms, latency.p99_ms)
    })
}

/// In UTC, to the minute.
fn date(at: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]");
    let date = OffsetDateTime::from_unix_timestamp(at).ok();
    date.and_then(|date| date.format(format).ok())
        .unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::example;

    #[test]
    fn a_run_is_a_small_table() {
        let mut run = example();
        run.paths[1].up = None;
        run.judge();
        assert_eq!(
            table(&run),
            "                   down             up   round trip, half and 99 % within, ms\n\
             \u{20}                Mbit/s         Mbit/s             idle       while down         while up\n\
             tunnel             90.0           20.0      12.5 / 14.0      31.2 / 55.0      31.2 / 55.0\n\
             direct             95.0              -      12.5 / 14.0      31.2 / 55.0                -\n\
             limit of down: the line: around the tunnel it carries 95.0 Mbit/s\n\
             limit of up: not the CPU of this machine: the line, or the other end; --direct-url tells\n"
        );
    }

    #[test]
    fn a_history_has_a_line_for_each_way() {
        let run = example();
        let listed = list(std::slice::from_ref(&run));
        assert_eq!(listed.lines().count(), 2);
        let first = listed.lines().next().unwrap();
        assert_eq!(
            first,
            "2026-11-26 00:00  home         tunnel      90.0 down      20.0 up Mbit/s, idle 12.5 / 14.0 ms, \
             while down 31.2 / 55.0 ms, while up 31.2 / 55.0 ms"
        );
    }
}

//! What was measured: a line for each event, and all of it for a program.

use super::events::Event;
use crate::lab::Result;
use serde::Serialize;
use std::time::Duration;

/// One time that something befell the box, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// From when all that hindered the tunnel was gone to the first answer.
    pub(super) took: Duration,
    /// Packets that left the home beside the tunnel, from before the event on.
    pub(super) leaked: u64,
    /// Which: from, to, protocol, ports.
    pub(super) leaks: String,
}

/// All rounds of an event; an error is the first round in which nothing came back by itself.
pub(super) struct Row {
    pub(super) event: Event,
    pub(super) rounds: Vec<Round>,
    pub(super) ended: Result<()>,
}

impl Row {
    fn seconds(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.rounds.iter().map(|r| r.took.as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn median(&self) -> f64 {
        let all = self.seconds();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    fn worst(&self) -> f64 {
        self.seconds().last().copied().unwrap_or_default()
    }

    fn leaked(&self) -> u64 {
        self.rounds.iter().map(|round| round.leaked).sum()
    }

    /// Why it is not good.
    pub(super) fn fault(&self) -> Option<String> {
        self.failure().or_else(|| self.delay())
    }

    /// Why it is not good on whatever machine: a hand was needed, or something leaked.
    pub(super) fn failure(&self) -> Option<String> {
        if let Err(failure) = &self.ended {
            return Some(failure.to_string());
        }
        if self.rounds.is_empty() {
            return Some("it was not played".to_owned());
        }
        if self.leaked() > 0 {
            let which: Vec<&str> = self.rounds.iter().map(|r| r.leaks.as_str()).collect();
            return Some(format!(
                "{} packets leaked: {}",
                self.leaked(),
                which.join(" ")
            ));
        }
        None
    }

    fn delay(&self) -> Option<String> {
        let (worst, promised) = (self.worst(), self.event.promised().as_secs_f64());
        let late = worst > promised;
        late.then(|| format!("back after {worst:.2} s, where {promised} s are promised"))
    }

    /// The line of the table.
    pub(super) fn to_text(&self) -> String {
        let hand = if self.ended.is_ok() { "none" } else { "yes" };
        format!(
            "{:<44} {:>6} {:>9.2} {:>9.2} {:>9} {:>5} {:>7}",
            self.event.to_string(),
            self.rounds.len(),
            self.median(),
            self.worst(),
            self.event.promised().as_secs(),
            hand,
            self.leaked()
        )
    }
}

/// The line above the table.
pub(super) fn heading() -> String {
    format!(
        "{:<44} {:>6} {:>9} {:>9} {:>9} {:>5} {:>7}",
        "event", "rounds", "median s", "worst s", "promise s", "hand", "leaked"
    )
}

/// The line for a program, in the order of its keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    events: Vec<Line>,
    leaked_packets: u64,
    /// Events that were not good, for whatever reason.
    failed: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    event: &'static str,
    rounds: usize,
    median_s: f64,
    worst_s: f64,
    promised_s: u64,
    /// Somebody would have had to do something.
    hand_needed: bool,
    leaked_packets: u64,
}

impl Summary {
    pub(super) fn of(rows: &[Row]) -> Self {
        let line = |row: &Row| Line {
            event: row.event.name(),
            rounds: row.rounds.len(),
            median_s: rounded(row.median()),
            worst_s: rounded(row.worst()),
            promised_s: row.event.promised().as_secs(),
            hand_needed: row.ended.is_err(),
            leaked_packets: row.leaked(),
        };
        Self {
            events: rows.iter().map(line).collect(),
            leaked_packets: rows.iter().map(Row::leaked).sum(),
            failed: rows.iter().filter(|row| row.fault().is_some()).count(),
        }
    }

    /// Whether all is as it should be.
    pub(super) fn ok(&self) -> bool {
        !self.events.is_empty() && self.failed == 0
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    pub(super) fn to_text(&self) -> String {
        format!(
            "{} events, {} failed, {} packets leaked",
            self.events.len(),
            self.failed,
            self.leaked_packets
        )
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Failure;

    fn row(millis: &[u64], leaked: u64, ended: Result<()>) -> Row {
        let round = |&millis: &u64| Round {
            took: Duration::from_millis(millis),
            leaked,
            leaks: match leaked {
                0 => String::new(),
                _ => "192.0.2.1 . 192.0.2.2 . 17".to_owned(),
            },
        };
        Row {
            event: Event::EngineKilled,
            rounds: millis.iter().map(round).collect(),
            ended,
        }
    }

    #[test]
    fn the_line_has_the_agreed_form() {
        let summary = Summary::of(&[row(&[900, 300, 401], 0, Ok(()))]);
        assert!(summary.ok());
        assert_eq!(
            summary.to_json(),
            r#"{"events":[{"event":"engine-killed","rounds":3,"median_s":0.4,"worst_s":0.9,"promised_s":2,"hand_needed":false,"leaked_packets":0}],"leaked_packets":0,"failed":0}"#
        );
        assert!(!Summary::of(&[]).ok());
    }

    #[test]
    fn what_is_late_leaks_or_stays_away_is_a_fault() {
        let fault = |row: Row| row.fault().unwrap_or_default();
        assert_eq!(fault(row(&[1999], 0, Ok(()))), "");
        assert!(fault(row(&[300, 2001], 0, Ok(()))).contains("2.00 s, where 2 s"));
        assert_eq!(
            fault(row(&[300], 2, Ok(()))),
            "2 packets leaked: 192.0.2.1 . 192.0.2.2 . 17"
        );
        assert!(fault(row(&[], 0, Ok(()))).contains("not played"));
        let away = row(&[300], 0, Err(Failure::new("not within 60s")));
        assert!(away.to_text().contains(" yes "), "{}", away.to_text());
        assert!(fault(away).contains("not within 60s"));
    }
}

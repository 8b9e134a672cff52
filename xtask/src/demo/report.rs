//! What the demo found: a table for a person, a line for a program.

use super::Program;
use serde::Serialize;
use std::fmt::Write;

/// Directly, or through the tunnel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Leg {
    /// The laptop's address as the web host sees it.
    pub laptop: Option<String>,
    /// The phone's.
    pub phone: Option<String>,
    /// Average round trip from laptop to web host.
    pub round_trip_ms: Option<f64>,
    /// From the web host to the laptop.
    pub download_mbit_s: Option<f64>,
    /// From the laptop to the web host.
    pub upload_mbit_s: Option<f64>,
}

/// Something the demo promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What is promised.
    pub text: String,
    /// Whether it was seen to hold.
    pub holds: bool,
}

/// The line for a program, in the order of its keys.
#[derive(Serialize)]
struct Line {
    ok: bool,
    before: SeenAs,
    after: SeenAs,
    leaked_packets: Option<u64>,
    up_ms: Option<u64>,
    direct_mbit_s: Option<f64>,
    tunnel_mbit_s: Option<f64>,
}

#[derive(Serialize)]
struct SeenAs {
    seen_as: Option<String>,
}

/// Everything the demo found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Who plays the gateway.
    pub gateway: Program,
    /// Who plays the server.
    pub server: Program,
    /// Through the home router alone.
    pub before: Leg,
    /// Through the tunnel.
    pub after: Leg,
    /// From `up` to the first byte from the web host.
    pub up_ms: Option<u64>,
    /// Packets of the tunnel on the provider's link.
    pub tunnel_packets: Option<u64>,
    /// Others.
    pub leaked_packets: Option<u64>,
    /// What was promised.
    pub claims: Vec<Claim>,
}

impl Report {
    /// An empty report.
    pub fn new(gateway: Program, server: Program) -> Self {
        Self {
            gateway,
            server,
            before: Leg::default(),
            after: Leg::default(),
            up_ms: None,
            tunnel_packets: None,
            leaked_packets: None,
            claims: Vec::new(),
        }
    }

    /// Notes a promise, kept or broken.
    pub fn claim(&mut self, holds: bool, text: impl Into<String>) {
        self.claims.push(Claim {
            text: text.into(),
            holds,
        });
    }

    /// Whether there were promises, and all were kept.
    pub fn ok(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }

    /// The line for a program.
    pub fn to_json(&self) -> String {
        let seen_as = |leg: &Leg| SeenAs {
            seen_as: leg.laptop.clone(),
        };
        let line = Line {
            ok: self.ok(),
            before: seen_as(&self.before),
            after: seen_as(&self.after),
            leaked_packets: self.leaked_packets,
            up_ms: self.up_ms,
            direct_mbit_s: self.before.download_mbit_s.map(f64::round),
            tunnel_mbit_s: self.after.download_mbit_s.map(f64::round),
        };
        serde_json::to_string(&line)
            .unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}"))
    }

    /// The table for a person.
    pub fn to_table(&self) -> String {
        let mut table = String::new();
        let heading = format!(
            "{} gateway, {} server",
            self.gateway.title(),
            self.server.title()
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "\n  {heading}\n  {}",
            "─".repeat(heading.chars().count())
        );
        let mut row = |name: &str, one: String, other: String| {
            let _ = writeln!(table, "  {name:<18}  {one:>16}  {other:>16}");
        };
        row("", "directly".to_owned(), "by tunnel".to_owned());
        row(
            "laptop is seen as",
            text(&self.before.laptop),
            text(&self.after.laptop),
        );
        row(
            "phone is seen as",
            text(&self.before.phone),
            text(&self.after.phone),
        );
        row(
            "round trip",
            millis(self.before.round_trip_ms),
            millis(self.after.round_trip_ms),
        );
        row(
            "download",
            rate(self.before.download_mbit_s),
            rate(self.after.download_mbit_s),
        );
        row(
            "upload",
            rate(self.before.upload_mbit_s),
            rate(self.after.upload_mbit_s),
        );
        let up = self
            .up_ms
            .map_or_else(|| "–".to_owned(), |up| format!("{up} ms"));
        row("up → first byte", String::new(), up);
        table.push('\n');
        for claim in &self.claims {
            let mark = if claim.holds { '✓' } else { '✗' };
            let _ = writeln!(table, "  {mark} {}", claim.text);
        }
        table
    }
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "–".to_owned())
}

fn millis(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2} ms"))
}

fn rate(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(rate) if rate >= 10_000.0 => format!("{:.1} Gbit/s", rate / 1000.0),
        Some(rate) => format!("{rate:.0} Mbit/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_agreed_form() {
        let mut report = Report::new(Program::Cygnet, Program::Strongswan);
        report.before.laptop = Some("203.0.113.2".to_owned());
        report.after.laptop = Some("192.0.2.18".to_owned());
        report.before.download_mbit_s = Some(9000.4);
        report.after.download_mbit_s = Some(900.6);
        report.up_ms = Some(42);
        report.leaked_packets = Some(0);
        report.claim(true, "the laptop is seen as the server");
        assert_eq!(
            report.to_json(),
            r#"{"ok":true,"before":{"seen_as":"203.0.113.2"},"after":{"seen_as":"192.0.2.18"},"leaked_packets":0,"up_ms":42,"direct_mbit_s":9000.0,"tunnel_mbit_s":901.0}"#
        );
    }

    #[test]
    fn nothing_seen_is_not_ok() {
        let mut report = Report::new(Program::Cygnet, Program::Cygnet);
        assert!(!report.ok());
        report.claim(true, "one");
        assert!(report.ok());
        report.claim(false, "two");
        assert!(!report.ok());
        assert!(report.to_table().contains("✗ two"));
    }
}

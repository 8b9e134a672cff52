//! What a check-up says: lines for people, one object for programs.

use std::fmt::Write as _;

use cygnet_profile::read::printable;
use serde::Serialize;

use crate::mask::Mask;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// It is not, and there is something to do.
    Wrong,
    /// It could not be seen.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which: one of [`crate::NAMES`], which stay what they are.
    pub name: &'static str,
    /// Which of several: a tunnel, an address, an interface.
    pub subject: Option<String>,
    /// How it is.
    pub state: State,
    /// What is so, in one sentence.
    pub says: String,
    /// What to do, in one sentence; where something is wrong, always.
    pub remedy: Option<String>,
}

impl Check {
    pub(crate) fn good(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, State::Good, says, None)
    }

    pub(crate) fn wrong(
        name: &'static str,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Wrong, says, Some(remedy.into()))
    }

    pub(crate) fn unknown(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, State::Unknown, says, None)
    }

    /// Which of several.
    pub(crate) fn of(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }

    /// What to do where it is not known.
    pub(crate) fn try_this(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    fn new(
        name: &'static str,
        state: State,
        says: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            name,
            subject: None,
            state,
            says: says.into(),
            remedy,
        }
    }

    /// The same with each of its texts changed.
    fn with_texts(self, change: &mut dyn FnMut(&str) -> String) -> Self {
        Self {
            subject: self.subject.map(|text| change(&text)),
            says: change(&self.says),
            remedy: self.remedy.map(|text| change(&text)),
            ..self
        }
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of the program that looked.
    pub version: &'static str,
    /// Whether addresses and names are pseudonyms.
    pub masked: bool,
    /// How many checks are good.
    pub good: usize,
    /// How many are not.
    pub wrong: usize,
    /// Of how many it is not known.
    pub unknown: usize,
    /// Each of them, in the order in which they depend on each other.
    pub checks: Vec<Check>,
}

impl Report {
    /// Of these checks. Others choose some of their texts (peers, resolvers, the engine): each becomes a line that
    /// steers no terminal.
    pub(crate) fn new(checks: Vec<Check>) -> Self {
        let mut clean = |text: &str| printable(&text.replace('\n', " "));
        let checks: Vec<Check> = checks
            .into_iter()
            .map(|check| check.with_texts(&mut clean))
            .collect();
        let count = |state| checks.iter().filter(|check| check.state == state).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            masked: false,
            good: count(State::Good),
            wrong: count(State::Wrong),
            unknown: count(State::Unknown),
            checks,
        }
    }

    /// The same with pseudonyms for addresses, and for these names.
    pub(crate) fn mask(self, names: impl IntoIterator<Item = String>) -> Self {
        let mut mask = Mask::new(names);
        let mut change = |text: &str| mask.text(text);
        let checks = self.checks.into_iter();
        Self {
            masked: true,
            checks: checks.map(|check| check.with_texts(&mut change)).collect(),
            ..self
        }
    }

    /// For people: a line for each check, and below what is wrong a line with what to do.
    pub fn text(&self, colour: bool) -> String {
        let mut out = format!("cygnet {}\n", self.version);
        for check in &self.checks {
            let (word, code) = match check.state {
                State::Good => ("ok", "32"),
                State::Wrong => ("WRONG", "31"),
                State::Unknown => ("?", "33"),
            };
            let word = match colour {
                true => format!("\u{1b}[{code}m{word:<5}\u{1b}[0m"),
                false => format!("{word:<5}"),
            };
            let subject = check.subject.iter().map(|subject| format!(" {subject}"));
            let subject: String = subject.collect();
            let _ = writeln!(out, "{word} {}{subject}: {}", check.name, check.says);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(out, "      -> {remedy}");
            }
        }
        let unknown = match self.unknown {
            0 => String::new(),
            count => format!(", {count} not known"),
        };
        let _ = writeln!(out, "\n{} ok, {} wrong{unknown}", self.good, self.wrong);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::good("program", "it runs"),
            Check::wrong("guard", "the guard\nis \u{1b}[2Joff", "`cygnet gateway on`").of("eth0"),
            Check::unknown("clock", "nobody was asked").try_this("ask 192.0.2.1"),
        ])
    }

    #[test]
    fn each_check_is_a_line_and_what_to_do_is_below_it() {
        assert_eq!(
            report().text(false),
            format!(
                "cygnet {}\n\
                 ok    program: it runs\n\
                 WRONG guard eth0: the guard is \u{fffd}[2Joff\n      -> `cygnet gateway on`\n\
                 ?     clock: nobody was asked\n      -> ask 192.0.2.1\n\
                 \n1 ok, 1 wrong, 1 not known\n",
                env!("CARGO_PKG_VERSION")
            )
        );
        let coloured = report().text(true);
        assert!(
            coloured.contains("\u{1b}[31mWRONG\u{1b}[0m guard"),
            "{coloured}"
        );
    }

    #[test]
    fn programs_get_the_names_that_are_written_down() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["wrong"], 1);
        assert_eq!(json["masked"], false);
        assert_eq!(
            json["checks"][1],
            serde_json::json!({
                "name": "guard", "subject": "eth0", "state": "wrong",
                "says": "the guard is \u{fffd}[2Joff", "remedy": "`cygnet gateway on`",
            })
        );
        assert_eq!(json["checks"][0]["subject"], serde_json::Value::Null);
        assert_eq!(json["checks"][2]["state"], "unknown");
    }

    #[test]
    fn a_mask_covers_every_text_and_nothing_else_changes() {
        let masked = report().mask([]);
        assert!(masked.masked);
        assert_eq!(masked.checks[0], report().checks[0]);
        assert_eq!(
            masked.checks[2].remedy.as_deref(),
            Some("ask public-ipv4-1")
        );
    }
}

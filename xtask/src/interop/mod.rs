//! `cargo xtask interop`: named scenarios against real peers, each in a laboratory of its own.

mod runner;
mod selftest;

pub use runner::{Options, Outcome, run, run_scenarios};

use crate::lab::{Lab, Result};

/// A scenario. It builds its own network in the [`Lab`] it is given; `Ok` tells in a few words what
/// was seen, and goes into the report.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is run by; lower case, words joined by hyphens.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// Plays it.
    pub play: fn(&mut Lab) -> Result<String>,
}

/// All scenarios, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    [selftest::SCENARIOS].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_plain() {
        let mut seen = BTreeSet::new();
        for scenario in super::all() {
            assert!(seen.insert(scenario.name), "{} twice", scenario.name);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(plain), "{}", scenario.name);
        }
    }
}

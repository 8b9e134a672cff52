//! `cargo xtask interop`: named scenarios against real peers, each in a laboratory of its own.

mod confined;
mod devices;
mod dhcp;
mod dns;
mod flow;
mod gateway;
pub mod integrity;
mod pair;
mod plan;
pub mod recovery;
mod resilience;
mod runner;
mod scenarios;
mod selftest;
mod server;

pub(crate) use runner::keep_files;
pub use runner::{Options, Outcome, run, run_scenarios};

use crate::lab::{Lab, Result};
use std::fmt;
use std::sync::Arc;

/// A scenario. It builds its own network in the [`Lab`] it is given; `Ok` tells in a few words what
/// was seen, and goes into the report.
#[derive(Clone)]
pub struct Scenario {
    /// What it is run by; lower case, words joined by hyphens.
    pub name: String,
    /// What it shows, in one line.
    pub about: String,
    play: Arc<Play>,
}

type Play = dyn Fn(&mut Lab) -> Result<String> + Send + Sync;

impl Scenario {
    /// A scenario, to be played as often as is liked.
    pub fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        play: impl Fn(&mut Lab) -> Result<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            play: Arc::new(play),
        }
    }

    /// Plays it.
    pub fn play(&self, lab: &mut Lab) -> Result<String> {
        (self.play)(lab)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All scenarios, in the order in which they begin: early those that wait for long, so that others run beside them.
pub fn all() -> Vec<Scenario> {
    let mut all = selftest::scenarios();
    all.extend(server::all());
    all.extend(scenarios::all());
    all.extend(resilience::all());
    all.extend(devices::all());
    all.extend(gateway::all());
    all.extend(dns::all());
    all.extend(dhcp::all());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_plain() {
        let all = super::all();
        assert!(all.len() > 60, "only {} scenarios", all.len());
        let mut seen = BTreeSet::new();
        for scenario in all {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(plain), "{}", scenario.name);
            assert!(
                seen.insert(scenario.name.clone()),
                "{} twice",
                scenario.name
            );
        }
    }
}

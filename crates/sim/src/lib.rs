//! Two endpoints, a network that loses, doubles, delays and overtakes, a NAT that forgets, and a
//! clock that is only a number: everything two peers can do to each other, from one seed.
//!
//! [`run`] draws a [`Scenario`] from the seed and lets it happen: first a phase in which rekeys,
//! reauthentications, deletes and worse are started at random on both sides, often at the same
//! moment; then a phase in which nothing is lost. At every moment of both, what a node would seal
//! its peer must be able to open; at the end the two must agree on one IKE SA and the configured
//! children, with nothing left over. The same seed is the same run, octet for octet.

mod action;
mod answerer;
mod check;
mod datapath;
mod dice;
mod journal;
mod network;
mod scenario;
mod stats;
mod world;

pub use scenario::{Sabotage, Scenario, Side};
pub use stats::Stats;

use journal::Journal;
use world::World;

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it takes to see it again.
    pub seed: u64,
    /// How it was set up.
    pub scenario: Scenario,
    /// When, in seconds since the start, and which rule was broken.
    pub what: String,
    /// What happened until then, if a trace was asked for.
    pub trace: Vec<String>,
}

/// A run in which every rule held.
#[derive(Clone, Debug, Default)]
pub struct Success {
    /// What it did.
    pub stats: Stats,
    /// All that happened, if a trace was asked for.
    pub trace: Vec<String>,
}

/// Lets one seed happen. `traced`: what happened is kept, line by line.
pub fn run(seed: u64, traced: bool) -> Result<Success, Box<Failure>> {
    run_scenario(seed, Scenario::of(seed), traced)
}

/// As [`run`], with a setting of one's own.
pub fn run_scenario(seed: u64, scenario: Scenario, traced: bool) -> Result<Success, Box<Failure>> {
    let mut world = World::new(seed, scenario.clone(), Journal::new(traced));
    match world.live() {
        Ok(()) => Ok(Success {
            stats: world.stats(),
            trace: world.into_trace(),
        }),
        Err(what) => Err(Box::new(Failure {
            seed,
            scenario,
            what,
            trace: world.into_trace(),
        })),
    }
}

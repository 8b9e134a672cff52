//! `cargo xtask sim`: seeds of the simulation, which is a program of its own (`cygnet-sim`).

use crate::lab::{Context, Result};
use crate::project;
use std::process::Command;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 500)]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// This one alone
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub seed: Option<u64>,
    /// Show all that led to a failure, not only the end of it
    #[arg(long)]
    pub trace: bool,
}

/// Runs them; true when all went as they should.
pub fn run(options: &Options) -> Result<bool> {
    let mut command = Command::new(project::build_simulator()?);
    match options.seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => command
            .args(["--seeds", &options.seeds.to_string()])
            .args(["--from", &options.from.to_string()]),
    };
    if options.trace {
        command.arg("--trace");
    }
    Ok(command
        .status()
        .context("cannot run the simulator")?
        .success())
}

//! `cargo xtask leak`: nothing of a device behind the box leaves the home but inside the tunnel, whatever befalls
//! the box; and nothing of the box itself that it does not need, but for a foreign flush.
//!
//! Each round is played twice, side by side, in a world of its own: with the guard, where no packet may leak, and
//! as a control without, where some must. Between the home and its router every packet is captured, before
//! the router translates it; whatever is not known to be right is a leak (verdict.rs). In the end traffic has to
//! pass the tunnel again: a box that is switched off leaks nothing either.

mod capture;
mod ends;
mod events;
mod report;
mod round;
mod traffic;
mod verdict;
mod world;

use crate::interop::keep_files;
use crate::lab::{Failure, Lab, Result, interrupt};
use crate::{project, setup};
use ends::{Certificates, Program};
use events::Step;
use report::{Round, Summary};
use round::{Plan, Played};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use world::Legs;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many rounds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// What the events are drawn from; the seed of another run repeats its rounds
    #[arg(long)]
    pub seed: Option<u64>,
    /// This one of the rounds alone
    #[arg(long, value_name = "N")]
    pub round: Option<u32>,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Use the `cygnet` that was built last
    #[arg(long)]
    pub no_build: bool,
    /// Copy the files, logs and captures of failed rounds to this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Plays the rounds and prints each; true when nothing leaked, every control did, and every tunnel came back.
pub fn run(options: &Options) -> Result<bool> {
    setup::ensure()?;
    if !options.no_build {
        eprintln!("building cygnet");
        project::build_cygnet()?;
    }
    let seed = options.seed.unwrap_or_else(seed_of_now);
    println!("seed {seed}");
    let mut plans = plans(seed, options.rounds);
    if let Some(number) = options.round {
        plans.retain(|plan| plan.number == number);
    }
    if plans.is_empty() {
        return Err(Failure::new(format!(
            "there are rounds 1 to {}, see --rounds",
            options.rounds
        )));
    }
    let summary = Summary::of(&play_all(plans, options.keep.as_deref())?, seed);
    println!(
        "{}",
        match options.json {
            true => summary.to_json(),
            false => summary.to_text(),
        }
    );
    Ok(summary.ok())
}

/// A short run for `cargo xtask test`: the rounds, and why those that failed did.
pub fn smoke() -> Result<Vec<(String, Option<String>)>> {
    const SEED: u64 = 1;
    // As many as it takes for each event to come.
    let rounds = play_all(plans(SEED, 5), None)?;
    Ok(rounds
        .iter()
        .map(|round| (round.name(), round.fault()))
        .collect())
}

/// What the rounds are like. Servers take turns, and so do boxes with one leg and with two, and boxes that answer for names
/// and that do not. In every fourth round there is a device that goes direct, and one that is blocked.
fn plans(seed: u64, rounds: u32) -> Vec<Plan> {
    let plan = |(number, steps): (u32, Vec<Step>)| Plan {
        number,
        server: match number % 2 {
            1 => Program::Cygnet,
            _ => Program::StrongSwan,
        },
        legs: match number % 4 {
            1 | 2 => Legs::One,
            _ => Legs::Two,
        },
        // Four rounds with, four without: with each server, and each number of legs.
        answers: number % 8 < 4,
        policies: policies(number),
        own: !steps.iter().any(Step::flushes),
        steps,
    };
    (1..)
        .zip(events::deal(seed, rounds, policies))
        .map(plan)
        .collect()
}

/// Of two in eight rounds: one with each server.
fn policies(number: u32) -> bool {
    matches!(number % 8, 4 | 5)
}

fn play_all(plans: Vec<Plan>, keep: Option<&Path>) -> Result<Vec<Round>> {
    let certificates = Certificates::issue()?;
    let mut rounds = Vec::new();
    for plan in plans {
        let round = play(plan, &certificates, keep);
        interrupt::check()?;
        round.print();
        rounds.push(round);
    }
    Ok(rounds)
}

/// With the guard and without, at the same time: both mostly wait.
fn play(plan: Plan, certificates: &Certificates, keep: Option<&Path>) -> Round {
    let begun = Instant::now();
    let play = |guarded| play_in_a_lab(&plan, certificates, guarded, keep);
    let (guarded, control) = thread::scope(|scope| {
        let guarded = scope.spawn(|| play(true));
        let control = scope.spawn(|| play(false));
        let panicked = |_| Err(Failure::new("panicked, see above"));
        (
            guarded.join().unwrap_or_else(panicked),
            control.join().unwrap_or_else(panicked),
        )
    });
    Round {
        guarded,
        control,
        elapsed: begun.elapsed(),
        plan,
    }
}

fn play_in_a_lab(
    plan: &Plan,
    certificates: &Certificates,
    guarded: bool,
    keep: Option<&Path>,
) -> Result<Played> {
    let lab = Lab::new()?;
    let played = round::play(&lab, plan, certificates, guarded);
    let good = played
        .as_ref()
        .is_ok_and(|played| played.back.is_ok() && (played.leaks.is_empty() || !guarded));
    if let (false, Some(directory)) = (good, keep) {
        let which = if guarded { "guarded" } else { "control" };
        keep_files(&lab, &format!("round-{}-{which}", plan.number), directory)?;
    }
    played
}

/// As good as any, and short enough to be typed.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_legs_take_turns() {
        let plans = plans(3, 8);
        let numbers: Vec<u32> = plans.iter().map(|plan| plan.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
        for server in [Program::Cygnet, Program::StrongSwan] {
            for legs in [Legs::One, Legs::Two] {
                let of = plans
                    .iter()
                    .filter(|plan| plan.server == server && plan.legs == legs);
                let answers: Vec<bool> = of.map(|plan| plan.answers).collect();
                let both = answers.contains(&true) && answers.contains(&false);
                assert!(answers.len() == 2 && both, "{server:?} {legs:?}");
            }
        }
    }
}

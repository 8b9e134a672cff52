//! `cargo xtask test`: every test there is, one step after the other, and what became of each.

use crate::demo;
use crate::demo::Program::{self, Cygnet, Strongswan};
use crate::demo::Story;
use crate::interop::integrity;
use crate::lab::{Context, Failure, Result, interrupt};
use crate::project;
use crate::{bench, fuzz, interop, setup, sim};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What was asked for on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Run only the steps whose name contains this
    pub only: Option<String>,
    /// Print the names of the steps
    #[arg(long)]
    pub list: bool,
}

/// A step of the test. The tests in it are counted; a step that cannot run is an error.
struct Step {
    name: &'static str,
    run: fn() -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step {
        name: "setup",
        run: || setup::ensure().map(|()| Tally::default()),
    },
    Step {
        name: "build",
        run: || project::build_for_tests().map(|()| Tally::default()),
    },
    Step {
        name: "cargo test",
        run: cargo_test,
    },
    Step {
        name: "fuzz corpora",
        run: fuzz_corpora,
    },
    Step {
        name: "sim",
        run: simulation,
    },
    Step {
        name: "interop",
        run: interop_scenarios,
    },
    Step {
        name: "integrity",
        run: || integrity::smoke().map(|outcomes| count(&outcomes)),
    },
    Step {
        name: "bench smoke",
        run: || bench::smoke().map(|()| Tally::one(true)),
    },
    Step {
        name: "demo story server",
        run: || demo::tell(Story::Server).map(|()| Tally::one(true)),
    },
    Step {
        name: "demo cygnet-cygnet",
        run: || demos(Cygnet, Cygnet),
    },
    Step {
        name: "demo cygnet-strongswan",
        run: || demos(Cygnet, Strongswan),
    },
    Step {
        name: "demo strongswan-cygnet",
        run: || demos(Strongswan, Cygnet),
    },
    Step {
        name: "demo strongswan-strongswan",
        run: || demos(Strongswan, Strongswan),
    },
];

/// How many tests were good, and how many were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn one(good: bool) -> Self {
        Self {
            passed: u64::from(good),
            failed: u64::from(!good),
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs all steps, also after one has failed; true when all were good.
pub fn run(options: &Options) -> Result<bool> {
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| {
            options
                .only
                .as_ref()
                .is_none_or(|part| step.name.contains(part.as_str()))
        })
        .collect();
    if options.list {
        chosen.iter().for_each(|step| println!("{}", step.name));
        return Ok(true);
    }
    if chosen.is_empty() {
        return Err(Failure::new(
            "no step is called so; `cargo xtask test --list` names all",
        ));
    }
    let mut rows = Vec::new();
    for step in chosen {
        println!("\n==> {}", step.name);
        let begun = Instant::now();
        let outcome = (step.run)();
        interrupt::check()?;
        if let Err(failure) = &outcome {
            println!("{}: {failure}", step.name);
        }
        rows.push((
            step.name,
            outcome.is_err(),
            outcome.unwrap_or(Tally::one(false)),
            begun.elapsed(),
        ));
    }
    println!();
    let mut total = Tally::default();
    for (name, broken, tally, elapsed) in rows {
        total.add(tally);
        println!("{}", summary(name, broken, tally, elapsed));
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn summary(name: &str, broken: bool, tally: Tally, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let result = if broken {
        "could not run".to_owned()
    } else if tally == Tally::default() {
        "done".to_owned()
    } else {
        format!("{} passed, {} failed", tally.passed, tally.failed)
    };
    format!("{name:<28} {seconds:>7.1} s  {result}")
}

fn cargo_test() -> Result<Tally> {
    let mut command = project::cargo();
    // What cannot run here fails, and is not skipped.
    command
        .env("CI", "true")
        .args(["test", "--workspace", "--no-fail-fast"]);
    let (good, tally) = stream(command)?;
    if !good && tally.failed == 0 {
        return Err(Failure::new(
            "cargo test failed without a failed test, see above",
        ));
    }
    if tally.passed == 0 {
        return Err(Failure::new("cargo test ran no test"));
    }
    Ok(tally)
}

/// Shows what a command prints while it runs, and adds up its `test result:` lines.
fn stream(mut command: Command) -> Result<(bool, Tally)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut tally = Tally::default();
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            let line = line?;
            println!("{line}");
            tally.add(counts(&line).unwrap_or_default());
        }
    }
    Ok((child.wait()?.success(), tally))
}

/// The counts in a line `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn counts(line: &str) -> Option<Tally> {
    let (_, counts) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let count = |what: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Tally {
        passed: count(" passed")?,
        failed: count(" failed")?,
    })
}

/// What fuzzing has found worth keeping, once each.
fn fuzz_corpora() -> Result<Tally> {
    let (good, tally) = stream(fuzz::replay())?;
    if !good && tally.failed == 0 {
        return Err(Failure::new("the corpora could not be replayed, see above"));
    }
    Ok(tally)
}

fn simulation() -> Result<Tally> {
    let options = sim::Options {
        seeds: 500,
        from: 0,
        seed: None,
        trace: false,
    };
    Ok(match sim::run(&options)? {
        true => Tally {
            passed: options.seeds,
            failed: 0,
        },
        // How many of them is in what it printed.
        false => Tally::one(false),
    })
}

fn interop_scenarios() -> Result<Tally> {
    let options = interop::Options {
        // They mostly wait.
        jobs: 4,
        ..interop::Options::default()
    };
    Ok(count(&interop::run_scenarios(interop::all(), &options)?))
}

fn count(outcomes: &[interop::Outcome]) -> Tally {
    let mut tally = Tally::default();
    outcomes
        .iter()
        .for_each(|outcome| tally.add(Tally::one(outcome.result.is_ok())));
    tally
}

/// The demo as it is, and where the kernel filters by reverse path and a foreign firewall drops.
fn demos(gateway: Program, server: Program) -> Result<Tally> {
    let mut tally = Tally::default();
    for hostile in [false, true] {
        let options = demo::Options {
            server,
            gateway,
            story: None,
            stay: false,
            json: true,
            rp_filter: hostile,
            foreign_firewall: hostile,
        };
        tally.add(Tally::one(demo::run(&options)?));
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            counts(line),
            Some(Tally {
                passed: 11,
                failed: 2
            })
        );
        assert_eq!(
            counts("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Some(Tally {
                passed: 3,
                failed: 0
            })
        );
        assert_eq!(counts("test lab::pki ... ok"), None);
    }

    #[test]
    fn a_step_is_summed_up_in_a_line() {
        let line = summary(
            "interop",
            false,
            Tally {
                passed: 60,
                failed: 1,
            },
            Duration::from_millis(1500),
        );
        assert!(line.ends_with("1.5 s  60 passed, 1 failed"), "{line}");
        assert!(summary("setup", false, Tally::default(), Duration::ZERO).ends_with("done"));
    }
}

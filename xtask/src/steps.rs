//! `cargo xtask test`: every test there is, one step after the other, and what became of each.

use crate::demo;
use crate::demo::Program::{self, Cygnet, Strongswan};
use crate::demo::Story;
use crate::interop::{integrity, recovery};
use crate::lab::{Context, Failure, Result, interrupt};
use crate::project;
use crate::{bench, interop, leak, setup, sim};
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
        name: "leak",
        run: leak_rounds,
    },
    Step {
        name: "recovery",
        run: recovery_events,
    },
    Step {
        name: "bench smoke",
        run: || bench::smoke().map(|()| Tally::passed(1)),
    },
    Step {
        name: "demo story server",
        run: || demo::tell(Story::Server).map(|()| Tally::passed(1)),
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

/// How many tests were good, how many were not, and which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    /// What failed, and why where that is known, a line each.
    failures: Vec<String>,
}

impl Tally {
    fn passed(passed: u64) -> Self {
        Self {
            passed,
            ..Self::default()
        }
    }

    /// One test that failed; of a longer reason the first line.
    fn failed(what: &str, why: &str) -> Self {
        let why = why.lines().next().unwrap_or_default();
        Self {
            failed: 1,
            failures: vec![format!("{what}: {why}")],
            ..Self::default()
        }
    }

    /// One test, which failed if there is a reason.
    fn judged(what: &str, fault: Option<String>) -> Self {
        match fault {
            None => Self::passed(1),
            Some(why) => Self::failed(what, &why),
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
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
        let broken = outcome.is_err();
        let tally = outcome.unwrap_or_else(|failure| {
            println!("{}: {failure}", step.name);
            Tally::failed("could not run", &failure.to_string())
        });
        rows.push((step.name, broken, tally, begun.elapsed()));
    }
    println!();
    let mut total = Tally::default();
    for (name, broken, mut tally, elapsed) in rows {
        println!("{}", summary(name, broken, &tally, elapsed));
        let named = tally.failures.iter().map(|what| format!("{name}: {what}"));
        tally.failures = named.collect();
        total.add(tally);
    }
    // Whoever sees no more than the end of a log sees what to look for in it.
    if !total.failures.is_empty() {
        println!("\nfailed\n  {}", total.failures.join("\n  "));
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn summary(name: &str, broken: bool, tally: &Tally, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let result = if broken {
        "could not run".to_owned()
    } else if *tally == Tally::default() {
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

/// Shows what a command prints while it runs, adds up its `test result:` lines, and notes the names of tests that
/// failed.
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
            tally.failures.extend(failed_test(&line));
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
        failures: Vec::new(),
    })
}

/// The name in a line `test lab::pki::tests::… ... FAILED`.
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.to_owned())
}

fn simulation() -> Result<Tally> {
    let options = sim::Options {
        seeds: 500,
        from: 0,
        seed: None,
        trace: false,
    };
    Ok(match sim::run(&options)? {
        true => Tally::passed(options.seeds),
        false => Tally::failed(
            "some of the seeds",
            "which, and how many, is in what it printed",
        ),
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
    for outcome in outcomes {
        let fault = outcome.result.as_ref().err().map(ToString::to_string);
        tally.add(Tally::judged(&outcome.scenario.name, fault));
    }
    tally
}

fn leak_rounds() -> Result<Tally> {
    let mut tally = Tally::default();
    for (round, fault) in leak::smoke()? {
        tally.add(Tally::judged(&round, fault));
    }
    Ok(tally)
}

fn recovery_events() -> Result<Tally> {
    let mut tally = Tally::default();
    for (event, fault) in recovery::smoke()? {
        tally.add(Tally::judged(event, fault));
    }
    Ok(tally)
}

/// The demo as it is, and where the kernel filters by reverse path and a foreign firewall drops.
fn demos(gateway: Program, server: Program) -> Result<Tally> {
    let mut tally = Tally::default();
    for (hostile, how) in [(false, "as it is"), (true, "with a foreign firewall")] {
        let options = demo::Options {
            server,
            gateway,
            story: None,
            stay: false,
            json: true,
            rp_filter: hostile,
            foreign_firewall: hostile,
        };
        let fault = match demo::run(&options)? {
            true => None,
            false => Some("a claim does not hold, see its table".to_owned()),
        };
        tally.add(Tally::judged(how, fault));
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
                failed: 2,
                failures: Vec::new()
            })
        );
        assert_eq!(
            counts("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Some(Tally::passed(3))
        );
        assert_eq!(counts("test lab::pki ... ok"), None);
    }

    #[test]
    fn a_failed_test_is_named() {
        assert_eq!(
            failed_test("test lab::pki::tests::openssl ... FAILED").as_deref(),
            Some("lab::pki::tests::openssl")
        );
        assert_eq!(failed_test("test lab::pki::tests::openssl ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed; 1 failed"), None);
    }

    #[test]
    fn a_step_is_summed_up_in_a_line() {
        let mut tally = Tally::passed(60);
        tally.add(Tally::failed(
            "guard-while-down",
            "not within 15s:\nmuch more",
        ));
        let line = summary("interop", false, &tally, Duration::from_millis(1500));
        assert!(line.ends_with("1.5 s  60 passed, 1 failed"), "{line}");
        assert_eq!(tally.failures, ["guard-while-down: not within 15s:"]);
        assert!(summary("setup", false, &Tally::default(), Duration::ZERO).ends_with("done"));
    }
}

//! Runs scenarios, two at a time, and reports each as it ends.

use super::{Scenario, all};
use crate::lab::{Context, Exec, Failure, Lab, Result, interrupt};
use crate::{project, setup};
use serde::Serialize;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What was asked for on the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// The scenarios to run, all when none is named; `nat-*` runs those that begin with `nat-`
    pub names: Vec<String>,
    /// Print the names of all scenarios
    #[arg(long)]
    pub list: bool,
    /// Print a line of JSON for each scenario
    #[arg(long)]
    pub json: bool,
    /// How many run at the same time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Use the `cygnet` that was built last
    #[arg(long)]
    pub no_build: bool,
    /// Copy the files and logs of failed scenarios to this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// How a scenario ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which one.
    pub scenario: Scenario,
    /// What was seen, or what went wrong.
    pub result: Result<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs or lists; true when all that ran were good.
pub fn run(options: &Options) -> Result<bool> {
    if options.list {
        print_names(&all());
        return Ok(true);
    }
    let chosen = choose(&options.names, all())?;
    setup::ensure()?;
    // The scenarios called `lab-…` are about the lab alone.
    if !options.no_build
        && chosen
            .iter()
            .any(|scenario| !scenario.name.starts_with("lab-"))
    {
        eprintln!("building cygnet");
        project::build_cygnet()?;
    }
    let outcomes = run_scenarios(chosen, options)?;
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_err())
        .count();
    if !options.json {
        println!("{} passed, {failed} failed", outcomes.len() - failed);
    }
    Ok(failed == 0)
}

/// The answer to `--list`.
pub(super) fn print_names(all: &[Scenario]) {
    for scenario in all {
        println!("{:<36} {}", scenario.name, scenario.about);
    }
}

/// Runs these scenarios and prints a line as each ends.
pub fn run_scenarios(scenarios: Vec<Scenario>, options: &Options) -> Result<Vec<Outcome>> {
    let queue = Mutex::new(VecDeque::from(scenarios));
    let (sender, receiver) = mpsc::channel();
    let outcomes = thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                while interrupt::check().is_ok() {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(scenario) = next else { break };
                    let outcome = play(scenario, options.keep.as_deref());
                    if sender.send(outcome).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        receiver
            .iter()
            .inspect(|outcome| print(outcome, options.json))
            .collect::<Vec<_>>()
    });
    interrupt::check()?;
    Ok(outcomes)
}

/// Those of `all` that are named; all of them when none is.
pub(super) fn choose(names: &[String], all: Vec<Scenario>) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in names {
        let matches = |scenario: &Scenario| match name.strip_suffix('*') {
            Some(beginning) => scenario.name.starts_with(beginning),
            None => scenario.name == *name,
        };
        let found: Vec<Scenario> = all.iter().filter(|one| matches(one)).cloned().collect();
        if found.is_empty() {
            return Err(Failure::new(format!(
                "no scenario is called {name}; `--list` names all"
            )));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

fn play(scenario: Scenario, keep: Option<&Path>) -> Outcome {
    let begun = Instant::now();
    let result = Lab::new().and_then(|mut lab| {
        let played = catch_unwind(AssertUnwindSafe(|| scenario.play(&mut lab)));
        let result = played.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(Failure::new(format!(
                "panicked: {}",
                text.unwrap_or_default()
            )))
        });
        if let (Err(_), Some(directory)) = (&result, keep) {
            keep_files(&lab, &scenario.name, directory)?;
        }
        result
    });
    Outcome {
        scenario,
        result,
        elapsed: begun.elapsed(),
    }
}

/// Copies the files and logs of a lab to a directory of this name below `directory`.
pub(crate) fn keep_files(lab: &Lab, name: &str, directory: &Path) -> Result<()> {
    let target = directory.join(name);
    std::fs::create_dir_all(&target).context(format!("cannot create {}", target.display()))?;
    let source = lab.directory().join(".");
    Exec::new([
        "cp",
        "-r",
        &source.to_string_lossy(),
        &target.to_string_lossy(),
    ])
    .run()?;
    Ok(())
}

fn print(outcome: &Outcome, json: bool) {
    let detail = match &outcome.result {
        Ok(seen) => seen.clone(),
        Err(failure) => failure.to_string(),
    };
    let (scenario, ok) = (outcome.scenario.name.as_str(), outcome.result.is_ok());
    if json {
        let line = serde_json::to_string(&Line {
            scenario,
            ok,
            detail,
        });
        println!("{}", line.unwrap_or_default());
    } else {
        let mark = if ok { "ok  " } else { "FAIL" };
        let seconds = outcome.elapsed.as_secs_f64();
        println!("{mark} {scenario:<36} {seconds:>6.1} s  {detail}");
    }
}

/// The line for a program, in the order of its keys.
#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    ok: bool,
    detail: String,
}

//! Runs seeds of the simulation on all processors: `cygnet-sim --seeds 500`, or one of them with
//! all that happened: `cygnet-sim --seed 17 --trace`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cygnet_sim::{Failure, Stats, Success, run};

const USAGE: &str = "usage: cygnet-sim [--seeds N] [--from SEED] [--seed SEED] [--trace]

  --seeds N     run N seeds (500)
  --from SEED   the first of them (0)
  --seed SEED   run this one alone
  --trace       tell all that happened, also where nothing failed";

/// Failures told in full; of the rest only the seeds.
const TOLD: usize = 5;
/// Lines of trace shown of a failure.
const LINES: usize = 60;

struct Options {
    from: u64,
    count: u64,
    single: bool,
    trace: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let (stats, failures) = run_all(&options);
    for failure in failures.iter().take(TOLD) {
        tell(failure, options.trace);
    }
    println!("{stats}");
    let took = began.elapsed().as_secs_f64();
    if failures.is_empty() {
        println!("all runs as they should be, in {took:.1} s");
        return ExitCode::SUCCESS;
    }
    for (kind, seeds) in kinds(&failures) {
        println!("{:5} × {kind}\n        seeds {}", seeds.len(), list(&seeds));
    }
    println!(
        "{} of {} runs failed in {took:.1} s",
        failures.len(),
        options.count
    );
    ExitCode::FAILURE
}

/// Seeds by what they broke: the sentence without its numbers.
fn kinds(failures: &[Failure]) -> BTreeMap<String, Vec<u64>> {
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for failure in failures {
        let words = failure.what.split(' ').skip(2).map(|word| {
            let number = word.contains(|c: char| c.is_ascii_digit());
            if number && !word.starts_with("child") {
                "…"
            } else {
                word
            }
        });
        let kind = words.collect::<Vec<_>>().join(" ");
        kinds.entry(kind).or_default().push(failure.seed);
    }
    kinds
}

fn list(seeds: &[u64]) -> String {
    let shown = seeds.iter().take(20).map(u64::to_string);
    let more = if seeds.len() > 20 { ", …" } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        from: 0,
        count: 500,
        single: false,
        trace: false,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            value
                .parse::<u64>()
                .map_err(|_| format!("{argument}: expected a number, found \"{value}\""))
        };
        match argument.as_str() {
            "--seeds" => options.count = number()?,
            "--from" => options.from = number()?,
            "--seed" => {
                options.from = number()?;
                options.count = 1;
                options.single = true;
            }
            "--trace" => options.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn run_all(options: &Options) -> (Stats, Vec<Failure>) {
    let next = AtomicU64::new(options.from);
    let end = options.from.saturating_add(options.count);
    let results = Mutex::new((Stats::default(), Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(options.count.try_into().unwrap_or(workers)) {
            scope.spawn(|| {
                let mut own = (Stats::default(), Vec::new());
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match run_one(seed, options.single && options.trace) {
                        Ok(success) => {
                            own.0 += success.stats;
                            success.trace.iter().for_each(|line| println!("{line}"));
                        }
                        Err(failure) => own.1.push(*failure),
                    }
                }
                if let Ok(mut all) = results.lock() {
                    all.0 += own.0;
                    all.1.append(&mut own.1);
                }
            });
        }
    });
    let (stats, mut failures) = results.into_inner().unwrap_or_default();
    failures.sort_by_key(|failure| failure.seed);
    // The first ones again, this time with what led to them.
    for failure in failures.iter_mut().take(TOLD) {
        if let Err(again) = run_one(failure.seed, true) {
            *failure = *again;
        }
    }
    (stats, failures)
}

/// One seed; a panic is a failure like another.
fn run_one(seed: u64, traced: bool) -> Result<Success, Box<Failure>> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, traced))) {
        Ok(outcome) => outcome,
        Err(_) => Err(Box::new(Failure {
            seed,
            scenario: cygnet_sim::Scenario::of(seed),
            what: "a panic, told above".to_owned(),
            trace: Vec::new(),
        })),
    }
}

fn tell(failure: &Failure, everything: bool) {
    println!("seed {} failed {}", failure.seed, failure.what);
    println!("  {:?}", failure.scenario);
    let skipped = if everything {
        0
    } else {
        failure.trace.len().saturating_sub(LINES)
    };
    if skipped > 0 {
        println!("  … {skipped} lines before");
    }
    for line in failure.trace.iter().skip(skipped) {
        println!("  {line}");
    }
    println!(
        "  replay: cargo xtask sim --seed {} --trace\n",
        failure.seed
    );
}

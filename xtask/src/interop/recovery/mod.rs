//! `cargo xtask recovery`: whatever befalls the box, its server or the way between them, the devices are online again
//! without a hand, and how soon.
//!
//! The configuration has no timing of its own: what is measured is what a user gets. A device
//! asks a host of the internet all the time; from the moment at which nothing hinders the tunnel any more it is counted
//! until both of its flows, IPv4 and IPv6, are answered through the tunnel. Beside it nothing may leave the home meanwhile.

pub(super) mod asker;
mod events;
mod report;
mod scene;

use super::keep_files;
use crate::lab::{Failure, Lab, Result, interrupt};
use crate::{project, setup};
use events::Event;
use report::{Round, Row, Summary};
use scene::Scene;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// What was asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The events, all of the short ones when none is named
    pub names: Vec<String>,
    /// Print the names of all events
    #[arg(long)]
    pub list: bool,
    /// How often each is played
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Also those that take more than ten minutes, once each
    #[arg(long)]
    pub long: bool,
    /// How many events are played at the same time; on a machine that is busy with others all are slower
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Use the `cygnet` that was built last
    #[arg(long)]
    pub no_build: bool,
    /// Copy the files and logs of failed events to this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Plays the events and prints a table; true when each came back in the time that is promised, and nothing leaked.
pub fn run(options: &Options) -> Result<bool> {
    if options.list {
        for event in Event::ALL {
            println!("{:<20} {event}", event.name());
        }
        return Ok(true);
    }
    let chosen = choose(&options.names, options.long)?;
    setup::ensure()?;
    if !options.no_build {
        eprintln!("building cygnet");
        project::build_cygnet()?;
    }
    println!("{}", report::heading());
    let summary = Summary::of(&play_all(
        &chosen,
        options.rounds,
        options.jobs,
        options.keep.as_deref(),
    )?);
    println!(
        "{}",
        match options.json {
            true => summary.to_json(),
            false => summary.to_text(),
        }
    );
    Ok(summary.ok())
}

fn choose(names: &[String], long: bool) -> Result<Vec<Event>> {
    let by_name = |name: &String| {
        let known = Event::ALL.into_iter().find(|event| event.name() == name);
        known.ok_or_else(|| {
            let all = Event::ALL.map(Event::name).join(", ");
            Failure::new(format!("there is no event `{name}`; there are {all}"))
        })
    };
    if !names.is_empty() {
        return names.iter().map(by_name).collect();
    }
    let short = |event: &Event| long || !event.is_long();
    Ok(Event::ALL.into_iter().filter(short).collect())
}

/// A round of each event that is over within seconds, for `cargo xtask test`: the events, and why those that failed did.
/// How soon they are over is printed, and not judged: machines that test are busy.
pub fn smoke() -> Result<Vec<(&'static str, Option<String>)>> {
    // They mostly wait.
    const JOBS: usize = 3;
    let quick: Vec<Event> = Event::ALL.into_iter().filter(|e| e.is_quick()).collect();
    println!("{}", report::heading());
    let rows = play_all(&quick, 1, JOBS, None)?;
    let judged = rows.iter().map(|row| (row.event.name(), row.failure()));
    Ok(judged.collect())
}

/// Plays `jobs` events at a time, the long ones first where there are several, and prints a line as each is over; the
/// rows are in the order of the events.
fn play_all(events: &[Event], rounds: u32, jobs: usize, keep: Option<&Path>) -> Result<Vec<Row>> {
    let mut order: Vec<(usize, Event)> = events.iter().copied().enumerate().collect();
    if jobs > 1 {
        order.sort_by_key(|(_, event)| !event.is_long());
    }
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut rows = thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, events.len().max(1)) {
            let (sender, next, order) = (sender.clone(), &next, &order);
            scope.spawn(move || {
                while interrupt::check().is_ok() {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(place, event)) = order.get(turn) else {
                        break;
                    };
                    let rounds = if event.is_long() { 1 } else { rounds };
                    if sender.send((place, play(event, rounds, keep))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut rows = Vec::new();
        for (place, row) in receiver {
            println!("{}", row.to_text());
            if let Some(fault) = row.fault() {
                println!("  {fault}");
            }
            rows.push((place, row));
        }
        rows
    });
    interrupt::check()?;
    rows.sort_by_key(|(place, _)| *place);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// All rounds of an event, in a world of its own; one that cannot be built is a failure like any other.
fn play(event: Event, rounds: u32, keep: Option<&Path>) -> Row {
    let mut seen = Vec::new();
    let (lab, ended) = match Lab::new() {
        Ok(lab) => {
            let ended = play_in(&lab, event, rounds, &mut seen);
            (Some(lab), ended)
        }
        Err(failure) => (None, Err(failure)),
    };
    let row = Row {
        event,
        rounds: seen,
        ended,
    };
    if let (Some(_), Some(lab), Some(directory)) = (row.fault(), lab, keep)
        && let Err(failure) = keep_files(&lab, event.name(), directory)
    {
        println!("{failure}");
    }
    row
}

fn play_in(lab: &Lab, event: Event, rounds: u32, seen: &mut Vec<Round>) -> Result<()> {
    let mut scene = Scene::start(lab, event)?;
    for _ in 0..rounds {
        let round = scene.round().map_err(|failure| scene.with_log(failure))?;
        seen.push(round);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_chosen_by_name_or_all_that_are_short() {
        let short = choose(&[], false).unwrap();
        assert!(short.len() > 10 && short.iter().all(|event| !event.is_long()));
        assert_eq!(choose(&[], true).unwrap(), Event::ALL);
        assert_eq!(choose(&["lid".to_owned()], false).unwrap(), [Event::Lid]);
        let told = choose(&["lit".to_owned()], false).unwrap_err().to_string();
        assert!(
            told.contains("`lit`") && told.contains("power-cut"),
            "{told}"
        );
    }
}

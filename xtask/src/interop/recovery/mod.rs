//! `cargo xtask recovery`: whatever befalls the box, its server or the way between them, the devices are online again
//! without a hand, and how soon.
//!
//! The configuration has no timing of its own but where an event says so: what is measured is what a user gets. A device
//! asks a host of the internet all the time; from the moment at which nothing hinders the tunnel any more it is counted
//! until both of its flows, IPv4 and IPv6, are answered through the tunnel. Beside it nothing may leave the home meanwhile.

mod asker;
mod events;
mod report;
mod scene;

use super::keep_files;
use crate::lab::{Failure, Lab, Result, interrupt};
use crate::{project, setup};
use events::Event;
use report::{Row, Summary};
use scene::Scene;
use std::path::{Path, PathBuf};

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
    let summary = Summary::of(&play_all(&chosen, options.rounds, options.keep.as_deref())?);
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

/// One after the other: on a busy machine all would be slow.
fn play_all(events: &[Event], rounds: u32, keep: Option<&Path>) -> Result<Vec<Row>> {
    println!("{}", report::heading());
    let mut rows = Vec::new();
    for &event in events {
        let rounds = if event.is_long() { 1 } else { rounds };
        let row = play(event, rounds, keep)?;
        interrupt::check()?;
        println!("{}", row.to_text());
        if let Some(fault) = row.fault() {
            println!("  {fault}");
        }
        rows.push(row);
    }
    Ok(rows)
}

/// All rounds of an event, in a world of its own.
fn play(event: Event, rounds: u32, keep: Option<&Path>) -> Result<Row> {
    let lab = Lab::new()?;
    let mut scene = Scene::start(&lab, event)?;
    let (mut seen, mut ended) = (Vec::new(), Ok(()));
    for _ in 0..rounds {
        match scene.round() {
            Ok(round) => seen.push(round),
            Err(failure) => {
                ended = Err(scene.with_log(failure));
                break;
            }
        }
    }
    let row = Row {
        event,
        rounds: seen,
        ended,
    };
    if let (Some(_), Some(directory)) = (row.fault(), keep) {
        keep_files(&lab, event.name(), directory)?;
    }
    Ok(row)
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

//! Making the changes, and asking whether they stay.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::ask::{Answers, Line, yes_or_no};
use super::keep::{self, Decided, Which};
use super::record::{Kept, Place, Record, Stage, Trial};
use super::snapshot::{Snapshot, is_running, reload};
use super::{Ended, Prepared, edit, verify, watch};
use crate::client;
use crate::command::import;
use crate::command::systemd::{GUARD, RUN, Systemd, program_for_units};

/// How often it is looked whether somebody else decided.
const TURN: Duration = Duration::from_millis(500);

/// Somebody wants it to end: Ctrl-C, or whoever ends the session. That the terminal is gone (SIGHUP) is no wish: the
/// change itself may have cut it off, and it may be confirmed from another one.
fn wish_to_end() -> Result<Arc<AtomicBool>, String> {
    let wish = Arc::new(AtomicBool::new(false));
    let ignored = Arc::new(AtomicBool::new(false));
    for (signal, flag) in [(SIGINT, &wish), (SIGTERM, &wish), (SIGHUP, &ignored)] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .map_err(|error| format!("cannot receive signals: {error}"))?;
    }
    Ok(wish)
}

/// What runs has to have this configuration.
pub(super) fn check_running(place: &Place) -> Result<(), String> {
    if !is_running(place) {
        return Ok(());
    }
    let body = client::call(&place.socket(), Method::GET, "/v1/status", None)?;
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match status.get("config").and_then(Value::as_str) {
        Some(config) if whole(Path::new(config)) != whole(&place.config) => Err(format!(
            "the cygnet that runs has another configuration, {config}: name that one with --config"
        )),
        _ => Ok(()),
    }
}

pub(super) fn apply<F: AsFd>(
    prepared: &Prepared,
    yes: bool,
    answers: &mut Answers<F>,
) -> Result<(), Ended> {
    let place = &prepared.place;
    let wish = wish_to_end()?;
    let stop = || wish.load(Ordering::Relaxed);
    // Nobody else decides until all is in place; if this process ends, the lock is free.
    let lock = begin(prepared)?;
    let begun = watch::start(place, &prepared.id, prepared.systemd);
    let done = begun.and_then(|()| change(prepared, &stop));
    if let Err(why) = done {
        println!("\nIt did not work out: {why}");
        drop(lock);
        return Err(taken_back(prepared));
    }
    let well = verify::verify(place, &prepared.wish.tunnel, prepared.systemd, &stop);
    if stop() {
        drop(lock);
        return Err(taken_back(prepared));
    }
    if let Err(why) = keep::ask_from_now(place, lock, prepared.within) {
        println!("\n{why}");
        return Err(Ended::TakenBack);
    }
    if yes {
        return match well {
            true => confirm(prepared),
            false => {
                println!("\nNot all is well, so it is taken back.");
                Err(taken_back(prepared))
            }
        };
    }
    if !well {
        println!("\nNot all is well. It can be kept all the same.");
    }
    ask(prepared, answers, &stop)
}

/// The record, before the first change, and the lock that decides about it.
fn begin(prepared: &Prepared) -> Result<File, String> {
    let place = &prepared.place;
    let lock = place.lock()?;
    let mut kept = match place.read()? {
        Some(Record { trial: Some(_), .. }) => {
            return Err("another setup is at work: wait for it".into());
        }
        Some(record) => record.kept,
        None => None,
    };
    if let Some(kept) = &mut kept {
        follow_hand(kept, &prepared.before);
    }
    let before = Snapshot::take(place, prepared.systemd)?;
    // Of an earlier one.
    drop(place.told());
    place.write(&Record {
        kept,
        trial: Some(Trial::new(
            prepared.id.clone(),
            before,
            prepared.after.clone(),
        )),
    })?;
    Ok(lock)
}

/// What somebody changed in the configuration since the last setup belongs to what `off` goes back to.
fn follow_hand(kept: &mut Kept, now: &str) {
    if kept.written == now {
        return;
    }
    if let Some(config) = &mut kept.before.config {
        let origin = String::from_utf8_lossy(&config.bytes).into_owned();
        config.bytes = edit::back(now, &origin, &kept.written).text.into_bytes();
    }
    now.clone_into(&mut kept.written);
}

fn change(prepared: &Prepared, stop: &dyn Fn() -> bool) -> Result<(), String> {
    let place = &prepared.place;
    let config = &place.config;
    let systemd = prepared.systemd;
    let go_on = || match stop() {
        true => Err("it was ended".to_owned()),
        false => Ok(()),
    };
    println!("\nMaking the changes …");
    if let Some(systemd) = systemd {
        for unit in [GUARD, RUN] {
            if systemd.installed(unit).is_none() {
                systemd.write(unit, &unit.text(&program_for_units()?, config)?)?;
            }
        }
        // First what takes all of it back at the next boot, should the power go in between.
        systemd.call(&["enable", GUARD.name])?;
        systemd.settle()?;
    }
    go_on()?;
    if prepared.after != prepared.before {
        // Commands that change a server write this file, too.
        let _lock = import::lock(config)?;
        import::commit::replace(config, &prepared.sections, &prepared.after)?;
        println!("  {} is written", config.display());
    }
    go_on()?;
    // Closed first.
    let guard = cygnet_daemon::guard_on(config).map_err(|error| error.to_string())?;
    for line in guard.warnings.iter().flat_map(|warning| warning.lines()) {
        println!("  ! {line}");
    }
    println!("  {}", guard.message);
    go_on()?;
    if let Some(systemd) = systemd {
        systemd.call(&["start", GUARD.name])?;
        systemd.call(&["enable", RUN.name])?;
        systemd.settle()?;
        println!(
            "  systemd starts {} and {} at every boot",
            GUARD.name, RUN.name
        );
        go_on()?;
    }
    start(place, systemd)?;
    go_on()
}

fn start(place: &Place, systemd: Option<Systemd>) -> Result<(), String> {
    match (is_running(place), systemd) {
        (true, _) => {
            reload(place)?;
            println!("  cygnet has read its configuration again");
        }
        (false, Some(systemd)) => {
            systemd.call(&["restart", RUN.name])?;
            println!("  cygnet is started");
        }
        (false, None) => println!(
            "  cygnet does not run, and there is no systemd to start it: start it now, in another terminal:\n\
             \n    cygnet run --config {}\n",
            place.config.display()
        ),
    }
    Ok(())
}

/// Asks until it is decided, here or elsewhere.
fn ask<F: AsFd>(
    prepared: &Prepared,
    answers: &mut Answers<F>,
    stop: &dyn Fn() -> bool,
) -> Result<(), Ended> {
    let place = &prepared.place;
    // What was typed before the question is no answer to it.
    answers.forget();
    let mut asked = false;
    loop {
        let trial = match keep::trial(place) {
            Ok(Some(trial))
                if trial.id == prepared.id
                    && trial.stage == Stage::Asked
                    && !trial.left().is_zero() =>
            {
                trial
            }
            _ => {
                println!();
                return decided(prepared);
            }
        };
        if stop() {
            println!();
            return Err(taken_back(prepared));
        }
        if !asked {
            print!(
                "\nKeep this? Without an answer it is taken back in {} s. [y/N]: ",
                trial.seconds_left()
            );
            asked = true;
        }
        match answers.line(Some(TURN)) {
            Line::Late => {}
            Line::Text(text) => match yes_or_no(&text) {
                Ok(true) => return confirm(prepared),
                Err(why) if !text.is_empty() => {
                    println!("  {why}");
                    asked = false;
                }
                Ok(false) | Err(_) => return Err(taken_back(prepared)),
            },
            Line::End => {
                println!(
                    "\nNo answer can come from here any more. In {} s it is taken back, unless `cygnet gateway setup \
                     --confirm` keeps it.",
                    trial.seconds_left()
                );
                return Err(Ended::TakenBack);
            }
        }
    }
}

fn kept() {
    println!(
        "\nKept. How devices come to use this machine: `cygnet gateway guide`. `cygnet gateway off` takes all of it back."
    );
}

fn taken_back(prepared: &Prepared) -> Ended {
    println!("Taking it back …");
    let own = Which::Own(&prepared.id);
    keep::tell(keep::take_back(&prepared.place, own));
    Ended::TakenBack
}

fn confirm(prepared: &Prepared) -> Result<(), Ended> {
    match keep::confirm(&prepared.place, Which::Own(&prepared.id)) {
        Ok(()) => {
            kept();
            Ok(())
        }
        // Somebody else was first.
        Err(why) => {
            println!("{why}");
            decided(prepared)
        }
    }
}

/// What somebody else decided.
fn decided(prepared: &Prepared) -> Result<(), Ended> {
    match keep::wait_for_decision(&prepared.place, &prepared.id, &prepared.after) {
        Ok(Decided::Kept) => {
            println!("It was confirmed from another terminal.");
            kept();
            Ok(())
        }
        Ok(Decided::TakenBack(lines)) => {
            println!("It was not confirmed.");
            keep::tell_lines(&lines);
            Err(Ended::TakenBack)
        }
        Err(why) => {
            println!("{why}");
            Err(Ended::TakenBack)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_by_hand_between_two_setups_is_gone_back_to() {
        let origin = "# mine\n[tunnel.home]\nremote = \"a\"\n";
        let added = "\n# Written by `cygnet gateway setup`; `cygnet gateway off` takes it away.\n[gateway]\n\
            tunnel = \"home\"\nlan = \"eth0\"\n";
        let mut kept = Kept {
            before: Snapshot::with_config(origin),
            written: format!("{origin}{added}"),
        };
        let same = kept.clone();
        follow_hand(&mut kept, &format!("{origin}{added}"));
        assert_eq!(kept, same);
        let now = format!("# hello\n{origin}{added}");
        follow_hand(&mut kept, &now);
        assert_eq!(kept.written, now);
        assert_eq!(
            kept.before,
            Snapshot::with_config(&format!("# hello\n{origin}"))
        );
    }
}

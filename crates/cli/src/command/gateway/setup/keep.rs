//! Keeping a trial or taking it back: whoever has the lock first decides, and has it until it is done.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cygnet_config::{Gateway, GuardSections};

use super::record::{Place, Record, Stage, Trial};
use super::snapshot::{Restored, When, guard_is_there};
use super::{FAILED, fail, refuse};

/// How long another process may take to take something back.
const DECISION: Duration = Duration::from_secs(150);
const TURN: Duration = Duration::from_millis(200);

/// What became of a trial.
pub(super) enum Decided {
    Kept,
    /// With what is not as before, a sentence each.
    TakenBack(Vec<String>),
}

/// The trial, if there is one.
pub(super) fn trial(place: &Place) -> Result<Option<Trial>, String> {
    Ok(place.read()?.and_then(|record| record.trial))
}

/// Which trial is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// This one: another that began since is another's.
    Own(&'a str),
    /// The one there is.
    Any,
}

impl Which<'_> {
    fn is(self, trial: &Trial) -> bool {
        match self {
            Self::Own(id) => trial.id == id,
            Self::Any => true,
        }
    }
}

/// From now on it may be confirmed, and whoever gets the lock decides: it was held since the trial began.
pub(super) fn ask_from_now(place: &Place, _lock: File, within: Duration) -> Result<(), String> {
    let late = || "it took too long, and was taken back".to_owned();
    let mut record = place.read()?.ok_or_else(late)?;
    match &mut record.trial {
        Some(trial) if trial.stage == Stage::Applying => trial.ask(within),
        _ => return Err(late()),
    }
    place.write(&record)
}

/// Keeps it.
pub(super) fn confirm(place: &Place, which: Which<'_>) -> Result<(), String> {
    let _lock = place.lock()?;
    let mut record = place.read()?.unwrap_or(Record {
        kept: None,
        trial: None,
    });
    record.trial = record.trial.filter(|trial| which.is(trial));
    place.write(&record.confirmed()?)
}

/// Takes the trial back. `None`: there is none any more, somebody else decided.
pub(super) fn take_back(place: &Place, which: Which<'_>) -> Result<Option<Restored>, String> {
    back(place, which, When::Now)
}

fn back(place: &Place, which: Which<'_>, when: When) -> Result<Option<Restored>, String> {
    let _lock = place.lock()?;
    let Some(mut record) = place.read()? else {
        return Ok(None);
    };
    let Some(mut trial) = record.trial.take().filter(|trial| which.is(trial)) else {
        return Ok(None);
    };
    // If this process ends before it is done, nobody confirms what is half taken back.
    trial.stage = Stage::TakenBack;
    record.trial = Some(trial.clone());
    place.write(&record)?;
    let restored = match trial.before.restore(place, &trial.written, when) {
        Ok(restored) => restored,
        Err(why) => {
            trial.problem = Some(why.clone());
            record.trial = Some(trial);
            place.write(&record)?;
            return Err(why);
        }
    };
    place.leave(&restored);
    record.trial = None;
    match record.kept {
        Some(_) => place.write(&record)?,
        None => {
            place.remove()?;
            trial.before.remove_state_dir(place);
        }
    }
    Ok(Some(restored))
}

/// Tells a person what is not as before.
pub(super) fn tell_lines(lines: &[String]) {
    match lines {
        [] => println!("Taken back: all is as before."),
        lines => {
            println!("Taken back, but:");
            for line in lines {
                println!("  {line}");
            }
        }
    }
}

/// The same of what came of it here.
pub(super) fn tell(outcome: Result<Option<Restored>, String>) {
    match outcome {
        Ok(Some(restored)) => tell_lines(&[restored.notes, restored.problems].concat()),
        Ok(None) => println!("It is taken back already."),
        Err(why) => {
            println!("It could not be taken back: {why}\nTry `cygnet gateway setup --take-back`.")
        }
    }
}

/// Waits until somebody else has decided about this trial, which left this configuration; does so itself where nobody is
/// there to.
pub(super) fn wait_for_decision(place: &Place, id: &str, written: &str) -> Result<Decided, String> {
    let until = Instant::now() + DECISION;
    loop {
        match place.read() {
            Ok(Some(Record {
                trial: Some(trial), ..
            })) if trial.id == id => {
                if place.has_orphan(&trial) {
                    let restored = take_back(place, Which::Own(id))?.unwrap_or_default();
                    let lines = [restored.notes, restored.problems].concat();
                    return Ok(Decided::TakenBack(lines));
                }
                if Instant::now() >= until {
                    let why = trial.problem.unwrap_or_else(|| "it takes too long".into());
                    return Err(format!("it is not taken back yet: {why}"));
                }
            }
            Ok(Some(Record {
                kept: Some(kept), ..
            })) if kept.written == written => {
                return Ok(Decided::Kept);
            }
            Ok(_) => return Ok(Decided::TakenBack(place.told())),
            Err(why) if Instant::now() >= until => return Err(why),
            Err(_) => {}
        }
        std::thread::sleep(TURN);
    }
}

/// Another setup may not have come to its end.
pub(super) fn finish_earlier(place: &Place) -> Result<(), String> {
    let Some(trial) = trial(place)? else {
        return Ok(());
    };
    if !place.has_orphan(&trial) {
        return Err(format!(
            "another setup waits to be confirmed, for {} s: `cygnet gateway setup --confirm`, or `--take-back`",
            trial.seconds_left()
        ));
    }
    println!("An earlier setup was not confirmed.");
    tell(take_back(place, Which::Own(&trial.id)));
    Ok(())
}

pub(super) fn confirm_from_elsewhere(config: &Path) -> ExitCode {
    match confirm(&Place::of(config), Which::Any) {
        Ok(()) => {
            println!("Kept. `cygnet gateway off` takes it back.");
            ExitCode::SUCCESS
        }
        Err(why) => refuse(&why),
    }
}

pub(super) fn take_back_from_elsewhere(config: &Path) -> ExitCode {
    match take_back(&Place::of(config), Which::Any) {
        Ok(None) => refuse(
            "there is nothing to take back: what was confirmed is taken back by `cygnet gateway off`",
        ),
        Ok(Some(restored)) => {
            let code = if restored.problems.is_empty() {
                0
            } else {
                FAILED
            };
            tell(Ok(Some(restored)));
            ExitCode::from(code)
        }
        Err(why) => fail(&why),
    }
}

/// `cygnet gateway off` of what a setup made; `None` where there was none.
pub(in super::super::super) fn off(config: &Path) -> Option<ExitCode> {
    let place = Place::of(config);
    match place.read() {
        Ok(None) => None,
        Ok(Some(_)) => Some(match all_off(&place) {
            Ok(restored) => {
                if guard_is_there() == Ok(false) {
                    println!(
                        "{}",
                        match gateway_of(config).0 {
                            None =>
                                "the guard is off; devices that were told to use this machine are offline until they use the \
                                 router again (in clear, where it forwards packets all the same)",
                            Some(_) => "the guard is off: devices of the LAN may pass in clear",
                        }
                    );
                }
                let code = match restored.problems.as_slice() {
                    [] => ExitCode::SUCCESS,
                    _ => ExitCode::from(FAILED),
                };
                match [restored.notes, restored.problems].concat().as_slice() {
                    [] => println!("what `gateway setup` changed is taken back"),
                    lines => {
                        println!("what `gateway setup` changed is taken back, but:");
                        for line in lines {
                            println!("  {line}");
                        }
                    }
                }
                code
            }
            Err(why) => fail(&why),
        }),
        Err(why) => Some(refuse(&format!(
            "{why}\ncygnet: `cygnet gateway off --guard-only` removes the rules in any case"
        ))),
    }
}

fn all_off(place: &Place) -> Result<Restored, String> {
    let _lock = place.lock()?;
    let Some(mut record) = place.read()? else {
        return Ok(Restored::default());
    };
    let was_trial = record.trial.is_some();
    if let Some(trial) = &mut record.trial {
        trial.stage = Stage::TakenBack;
        place.write(&record)?;
    }
    let (before, written) = match (record.kept, record.trial) {
        (Some(kept), Some(trial)) => (kept.before, trial.written),
        (Some(kept), None) => (kept.before, kept.written),
        (None, Some(trial)) => (trial.before, trial.written),
        (None, None) => return place.remove().map(|()| Restored::default()),
    };
    let mut restored = before.restore(place, &written, When::Off)?;
    if restored.unreadable {
        let again =
            "or mend that file: `cygnet gateway off` then takes out of it what the setup wrote";
        restored.problems.push(again.to_owned());
    }
    if was_trial {
        // For the terminal that waits for an answer.
        place.leave(&restored);
    }
    if !restored.unreadable {
        place.remove()?;
        before.remove_state_dir(place);
    }
    Ok(restored)
}

/// What a start of the machine found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super::super) enum Boot {
    /// A trial was taken back, to a guard.
    WithGuard,
    /// And to none.
    WithoutGuard,
}

/// At the start of `gateway on` and of `run`: a trial that the machine's end, or the end of all its processes, left is taken
/// back. What cannot be is told, and does not keep the machine from starting.
pub(in super::super::super) fn after_reboot(config: &Path) -> Option<Boot> {
    let place = Place::of(config);
    let trial = match trial(&place) {
        Ok(trial) => trial?,
        Err(why) => {
            eprintln!("cygnet: {why}");
            return None;
        }
    };
    // Who takes it back may be who starts this.
    if !place.has_orphan(&trial) || place.is_locked() {
        return None;
    }
    eprintln!(
        "cygnet: `gateway setup` was not confirmed before this machine, or what watched it, ended: it is taken back"
    );
    match back(&place, Which::Own(&trial.id), When::AtBoot) {
        Ok(restored) => {
            let restored = restored.unwrap_or_default();
            for line in restored.notes.iter().chain(&restored.problems) {
                eprintln!("cygnet: {line}");
            }
            // A machine that was started puts in place what is configured.
            if trial.before.guard || wants_guard(config) {
                return Some(Boot::WithGuard);
            }
            if guard_is_there() == Ok(true)
                && let Err(error) = cygnet_daemon::guard_off(config)
            {
                eprintln!("cygnet: {error}");
            }
            Some(Boot::WithoutGuard)
        }
        Err(why) => {
            eprintln!(
                "cygnet: it could not be taken back: {why}; `cygnet gateway setup --take-back`"
            );
            None
        }
    }
}

/// Whether something that `gateway off` takes back is left of a setup.
pub(in super::super::super) fn is_set_up(config: &Path) -> bool {
    Place::of(config)
        .read()
        .is_ok_and(|record| record.is_some())
}

/// The gateway that is configured, as far as that can be read, and whether all of the text can.
pub(in super::super::super) fn gateway_of(config: &Path) -> (Option<Gateway>, bool) {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let (sections, whole) = GuardSections::read(&text);
    (sections.gateway, whole)
}

fn wants_guard(config: &Path) -> bool {
    let (gateway, _) = gateway_of(config);
    gateway.is_some_and(|gateway| gateway.guard)
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Snapshot;
    use super::*;

    #[test]
    fn who_had_an_earlier_trial_decides_nothing_about_a_later_one() {
        let (directory, place) = Place::of_test("keep");
        let mut trial = Trial::new("later".into(), Snapshot::default(), "after".into());
        trial.ask(Duration::from_secs(600));
        let record = Record {
            kept: None,
            trial: Some(trial),
        };
        place.write(&record).unwrap();
        let own = Which::Own("earlier");
        let taken = take_back(&place, own).map(|it| it.is_some());
        let confirmed = confirm(&place, own);
        let told = ["what came of it".to_owned()];
        place.leave(&Restored {
            notes: told.to_vec(),
            ..Restored::default()
        });
        let decided = wait_for_decision(&place, "earlier", "before");
        let still = place.read();
        let kept = confirm(&place, Which::Own("later"));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(taken, Ok(false));
        assert!(confirmed.unwrap_err().contains("no setup waits"));
        assert!(matches!(decided, Ok(Decided::TakenBack(lines)) if lines == told));
        assert_eq!((still, kept), (Ok(Some(record)), Ok(())));
    }

    #[test]
    fn a_configuration_without_a_gateway_wants_no_guard() {
        let (directory, place) = Place::of_test("wanted");
        std::fs::create_dir(&directory).unwrap();
        let wanted = |text: &str| {
            std::fs::write(&place.config, text).unwrap();
            wants_guard(&place.config)
        };
        let gateway = "[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";
        let of = [
            wanted(gateway),
            wanted(&format!("{gateway}guard = false\n")),
            wanted("[tunnel.home]\nremote = \"a\"\n"),
        ];
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(of, [true, false, false]);
    }
}

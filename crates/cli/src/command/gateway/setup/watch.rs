//! The process that takes a trial back unless it is confirmed in time, whatever becomes of the terminal and of the process
//! that set up.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid};
use rustix::time::Timespec;

use super::keep::{Which, take_back};
use super::record::{Place, Stage};
use crate::command::systemd::Systemd;

/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(15);
/// How often the record is looked at.
const TURN: Duration = Duration::from_millis(250);
/// What could not be taken back is tried again after this, so often.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 60;

/// The order that starts it.
const ORDER: &str = "watch-gateway-setup";

/// Starts it, out of reach of this terminal and its session; returns once it watches. A record of the trial is there.
pub(super) fn start(place: &Place, id: &str, systemd: Option<Systemd>) -> Result<(), String> {
    let config = place.config.as_os_str();
    let own = std::process::id().to_string();
    // A unit of its own outlives a session that systemd-logind ends with everything in it.
    let as_unit = systemd.is_some()
        && std::env::current_exe().is_ok_and(|program| {
            let path = std::env::var("PATH").unwrap_or_default();
            // systemd reads variables into arguments, whoever gave them.
            let config = place.config.to_string_lossy().replace('$', "$$");
            let mut command = Command::new("systemd-run");
            command
                .args(["--quiet", "--collect", "--property=Type=exec"])
                .arg(format!("--setenv=PATH={path}"))
                .arg("--")
                .arg(program)
                .args([ORDER, "--"])
                .args([&config, &own, id]);
            quiet(&mut command)
                .status()
                .is_ok_and(|status| status.success())
        });
    if !as_unit {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("cygnet")
            .args([ORDER, "--"])
            .arg(config)
            .args([&own, id])
            .current_dir("/");
        quiet(&mut command).spawn().map_err(|error| {
            format!("cannot start the process that would take it back: {error}")
        })?;
    }
    let until = Instant::now() + BEGIN;
    while !place.is_watched(id) {
        if Instant::now() >= until {
            return Err("the process that would take it back has not started".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// The process; it decides about this one trial alone. Returns the exit code.
pub(crate) fn watch(config: &Path, setup: i32, id: &str) -> u8 {
    // As a unit it leads a session already.
    let _ = setsid();
    let place = Place::of(config);
    let setup = Pid::from_raw(setup).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Ok(_watched) = place.watch(id) else {
        return 1;
    };
    for _ in 0..TRIES {
        if !is_over(&place, setup.as_ref(), id) {
            return 0;
        }
        match take_back(&place, Which::Own(id)) {
            Ok(_) => return 0,
            // It is in the record, for whoever looks.
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
    1
}

/// Waits until it is to be taken back, or there is nothing to be taken back any more: `false`.
fn is_over(place: &Place, setup: Option<&OwnedFd>, id: &str) -> bool {
    loop {
        // A record that cannot be read now may be so the next time.
        let record = match place.read() {
            Ok(Some(record)) => Some(record),
            Ok(None) => return false,
            Err(_) => None,
        };
        let gone = setup.is_none_or(|setup| has_ended(setup, Duration::ZERO));
        if let Some(record) = record {
            let Some(trial) = record.trial.filter(|trial| trial.id == id) else {
                return false;
            };
            let late = trial.left().is_zero();
            match trial.stage {
                // Half of it is in place.
                Stage::Applying if gone => return true,
                Stage::Applying if late => {
                    if let Some(setup) = setup {
                        let _ = pidfd_send_signal(setup, Signal::KILL);
                        has_ended(setup, BEGIN);
                    }
                    return true;
                }
                Stage::Asked if late => return true,
                Stage::TakenBack if gone => return true,
                _ => {}
            }
        }
        match setup {
            Some(setup) if !gone => drop(has_ended(setup, TURN)),
            _ => std::thread::sleep(TURN),
        }
    }
}

/// Whether a process has ended; waits so long for it.
fn has_ended(process: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).ok();
    let fd = process.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Record, Trial};
    use super::super::snapshot::Snapshot;
    use super::*;

    #[test]
    fn a_later_trial_is_not_watched_by_who_watched_an_earlier_one() {
        let (directory, place) = Place::of_test("watch");
        // Nobody sets up any more: half of it is in place.
        let trial = Trial::new("later".into(), Snapshot::default(), String::new());
        let record = Record {
            kept: None,
            trial: Some(trial),
        };
        place.write(&record).unwrap();
        let over = ["earlier", "later"].map(|id| is_over(&place, None, id));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(over, [false, true]);
    }
}

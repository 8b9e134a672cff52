//! What is not confirmed is taken back, whatever ends: the answer, the terminal, the process, the machine.

use super::super::super::Scenario;
use super::machine::Machine;
use super::typist::{CTRL_C, Typist};
use crate::ensure;
use crate::lab::{Lab, Result, on_host};
use std::fs;
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "setup-unconfirmed-by-default",
            "without --within and without an answer it is taken back after the minute that was told",
            a_minute,
        ),
        Scenario::new(
            "setup-unconfirmed",
            "without an answer, by a no and by Ctrl-C, all is as before",
            unconfirmed,
        ),
        Scenario::new(
            "setup-terminal-lost",
            "the terminal is lost while changes are made, and while it is asked: taken back, or kept from another one",
            terminal_lost,
        ),
        Scenario::new(
            "setup-killed",
            "SIGKILL of the setup in the middle, and of setup and watcher: all is as before",
            killed,
        ),
        Scenario::new(
            "setup-reboot",
            "the machine starts anew while nothing is confirmed: `gateway on` takes it back before the network is up",
            reboot,
        ),
        Scenario::new(
            "setup-race",
            "confirmed and taken back at the same moment: exactly one wins, and what is in place is what was told",
            race,
        ),
    ]
}

/// Up to the question whether it is to be kept.
fn asked(machine: &Machine, flags: &[&str]) -> Result<Typist> {
    let mut typist = Typist::start(machine, flags)?;
    typist.takes_defaults()?;
    typist.types("y\n")?;
    typist.reads("Keep this?")?;
    Ok(typist)
}

/// From the yes to what was planned, to the question at most, and from the question on, to what is told then.
const A_MINUTE: Duration = Duration::from_secs(60);
/// Of what happens after the minute: it says so once the rules are taken back.
const TAKES: Duration = Duration::from_secs(15);

fn a_minute(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    let mut typist = Typist::start(&machine, &[])?;
    typist.takes_defaults()?;
    let begun = Instant::now();
    typist.types("y\n")?;
    typist.reads("Keep this?")?;
    let asked = Instant::now();
    typist.reads("It was not confirmed.")?;
    let (since_yes, since_question) = (begun.elapsed(), asked.elapsed());
    ensure!(
        since_yes >= A_MINUTE && since_question <= A_MINUTE + TAKES,
        "it was not confirmed {since_yes:?} after the yes, {since_question:?} after the question"
    );
    typist.reads("Taken back: all is as before.")?;
    let code = typist.ends()?;
    ensure!(code == 1, "without an answer it ended with {code}");
    machine.is_taken_back("without an answer for a minute")?;
    Ok(format!("after {:.1} s", since_question.as_secs_f32()))
}

fn unconfirmed(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    let mut typist = asked(&machine, &["--within", "5"])?;
    typist.reads("It was not confirmed.")?;
    typist.reads("Taken back: all is as before.")?;
    let code = typist.ends()?;
    ensure!(code == 1, "without an answer it ended with {code}");
    machine.is_taken_back("without an answer")?;
    for (answer, what) in [("n\n", "a no"), ("\n", "Enter"), (CTRL_C, "Ctrl-C")] {
        let mut typist = asked(&machine, &[])?;
        typist.types(answer)?;
        typist.reads("Taken back: all is as before.")?;
        let code = typist.ends()?;
        ensure!(code == 1, "after {what} it ended with {code}");
        machine.is_taken_back(what)?;
    }
    let calls = machine.calls();
    ensure!(
        calls.contains("run --quiet --collect") && calls.contains("disable cygnet-guard.service"),
        "systemd was asked for:\n{calls}"
    );
    Ok("as before, four times".to_owned())
}

fn terminal_lost(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::new(lab)?;
    // While it is asked; nobody confirms.
    let mut typist = asked(&machine, &["--within", "5"])?;
    typist.hangs_up()?;
    machine.is_taken_back("the terminal was lost while it was asked")?;
    // The same, and somebody confirms from another one.
    let mut typist = asked(&machine, &["--within", "600"])?;
    typist.hangs_up()?;
    machine.expect(&["setup", "--confirm"], 0, "Kept.")?;
    machine.watcher_has_ended()?;
    ensure!(
        machine.cygnet.status().is_ok(),
        "cygnet does not run after it was confirmed"
    );
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after it was kept, and `gateway off`")?;
    // While changes are made and looked at: the tunnel is not to be up soon.
    machine.server.stop()?;
    let mut typist = Typist::start(&machine, &["--within", "5"])?;
    typist.takes_defaults()?;
    typist.types("y\n")?;
    typist.reads("✓ cygnet runs, and answers")?;
    typist.hangs_up()?;
    machine.is_taken_back("the terminal was lost while it was looked at")?;
    Ok("taken back twice, kept from another terminal once".to_owned())
}

fn killed(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::new(lab)?;
    machine.server.stop()?;
    let mut typist = Typist::start(&machine, &[])?;
    typist.takes_defaults()?;
    typist.types("y\n")?;
    // Everything is changed, and the tunnel is waited for.
    typist.reads("✓ cygnet runs, and answers")?;
    machine.kill(machine.setup()?)?;
    machine.is_taken_back("the setup was killed")?;
    drop(typist);
    // Both: the next command of an operator finds it.
    let mut typist = Typist::start(&machine, &[])?;
    typist.takes_defaults()?;
    typist.types("y\n")?;
    typist.reads("✓ cygnet runs, and answers")?;
    machine.kill(machine.watcher()?)?;
    machine.kill(machine.setup()?)?;
    drop(typist);
    machine.watcher_has_ended()?;
    ensure!(
        machine.record().exists(),
        "nobody was there to take it back, and it is"
    );
    machine.expect(&["setup", "--take-back"], 0, "all is as before")?;
    machine.is_taken_back("setup and watcher were killed")?;
    Ok("as before, twice".to_owned())
}

fn reboot(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    let mut typist = asked(&machine, &["--within", "600"])?;
    for pid in [machine.watcher()?, machine.setup()?] {
        machine.kill(pid)?;
    }
    typist.hangs_up()?;
    machine.watcher_has_ended()?;
    // Had the power gone before, nothing that starts would take it back.
    let calls = machine.calls();
    ensure!(
        calls.contains("enable cygnet-guard.service")
            && !calls.contains("the configuration was first"),
        "the configuration was changed before cygnet-guard.service was enabled:\n{calls}"
    );
    // No lab starts anew: what a start takes away is taken away, and the record is of another boot.
    let record = fs::read_to_string(machine.record())?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let other = record.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    ensure!(
        other != record,
        "the record does not name the boot: {record}"
    );
    fs::write(machine.record(), other)?;
    machine.restart_machine()?;
    // As cygnet-guard.service does, which the setup enabled.
    let said = machine.expect(&["on"], 0, "there was no guard before")?;
    ensure!(said.contains("it is taken back"), "{said}");
    ensure!(
        machine.calls().contains("stop --no-block cygnet.service"),
        "systemd was asked for:\n{}",
        machine.calls()
    );
    machine.is_taken_back("after the start")?;
    Ok("taken back before the network is up".to_owned())
}

fn race(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    let mut kept = 0;
    const ROUNDS: usize = 4;
    for round in 0..ROUNDS {
        let mut typist = asked(&machine, &["--within", "600"])?;
        let order = |argument: &'static str| {
            let command = machine.order(&["setup", argument]);
            on_host(&machine.world.gateway, move || {
                Ok(command.finish()?.status.code())
            })
        };
        let (first, second) = match round % 2 {
            0 => ("--confirm", "--take-back"),
            _ => ("--take-back", "--confirm"),
        };
        let (first, second) = (order(first), order(second));
        let codes = [crate::lab::join(first)?, crate::lab::join(second)?];
        let (confirmed, taken) = match round % 2 {
            0 => (codes[0], codes[1]),
            _ => (codes[1], codes[0]),
        };
        let told = typist.ends()?;
        match (confirmed, taken) {
            (Some(0), Some(2)) => {
                ensure!(told == 0, "it was kept, and the setup ended with {told}");
                kept += 1;
                machine.expect(&["off"], 0, "is taken back")?;
            }
            (Some(2), Some(0)) => {
                ensure!(
                    told == 1,
                    "it was taken back, and the setup ended with {told}"
                );
            }
            both => {
                return Err(crate::lab::Failure::new(format!(
                    "confirmed and taken back: {both:?}"
                )));
            }
        }
        machine.is_taken_back("after one has won")?;
    }
    Ok(format!("{kept} of {ROUNDS} kept"))
}

//! What `status` tells of the past: when a tunnel went down and why, also after everything was started again.

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::cygnet::Change;
use crate::lab::{Failure, Lab, Result, wait_for};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "history-of-a-killed-server",
        "SIGKILL to the server, to Cygnet's engine and to Cygnet: `status` tells when and why",
        killed,
    )]
}

/// A peer that is gone is noticed within seconds, and one that is only slow is not: it is asked six times.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told of the tunnel, once it is this.
fn wait_for_history(pair: &Pair, expected: &[(&str, &str)]) -> Result<Vec<Change>> {
    let mut seen = Vec::new();
    wait_for("the history of the tunnel", PATIENCE, || {
        seen = pair.cygnet.status()?.history_of(OFFICE);
        let same = |(change, (what, text)): (&Change, &(&str, &str))| {
            change.what == *what && change.text.starts_with(text)
        };
        let told = seen.len() == expected.len() && seen.iter().zip(expected).all(same);
        Ok(told.then_some(()))
    })
    .map_err(|failure| pair.with_log(Failure::new(format!("{failure}: {seen:?}"))))?;
    Ok(seen)
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs().cast_signed())
}

fn killed(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator)
        .cygnet_line("start = \"always\"")
        .cygnet_line("liveness = \"1s\"")
        .cygnet_line("retransmit = { first = \"0.2s\", factor = 1.5, tries = 5 }");
    let begun = now();
    let mut pair = Pair::start(lab, plan)?;
    let (near, far) = (pair.near().outer4, pair.far().outer4);
    let way = format!("{near}:4500 -> {far}:4500");
    let way = way.as_str();
    let silent = format!("no answer from {far}");
    let silent_for = format!("{silent} for ");
    pair.wait_for_child(NET)?;
    let mut expected = vec![("up", way)];
    wait_for_history(&pair, &expected)?;
    pair.swan.kill()?;
    expected.extend([("down", silent_for.as_str()), ("failed", silent.as_str())]);
    wait_for_history(&pair, &expected)?;
    pair.swan.restart()?;
    pair.wait_for_child(NET)?;
    expected.push(("up", way));
    wait_for_history(&pair, &expected)?;
    pair.cygnet.kill_engine()?;
    expected.extend([("down", "the engine ended (signal 9)"), ("up", way)]);
    wait_for_history(&pair, &expected)?;
    // Soon it is on the disk.
    crate::lab::interrupt::pause(Duration::from_secs(1))?;
    pair.cygnet.kill_supervisor()?;
    pair.cygnet.restart()?;
    expected.extend([
        ("down", "cygnet, or this machine, had ended without a word"),
        ("up", way),
    ]);
    wait_for_history(&pair, &expected)?;
    pair.cygnet.stop()?;
    pair.cygnet.restart()?;
    expected.extend([("down", "cygnet was stopped"), ("up", way)]);
    let told = wait_for_history(&pair, &expected)?;
    let ended = now();
    let times: Vec<i64> = told.iter().filter_map(|change| change.at).collect();
    ensure!(
        times.len() == told.len()
            && times.is_sorted()
            && times.iter().all(|at| (begun..=ended).contains(at)),
        "it is {ended}, it began at {begun}, and it happened at {times:?}"
    );
    let shown = pair.cygnet.command(&["status"])?;
    let lines = |text: &str| {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| {
                ["up ", "down ", "not up "]
                    .iter()
                    .any(|word| line.starts_with(word))
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let few = lines(&shown);
    ensure!(few.len() == 3, "`status` shows {shown}");
    let all = lines(&pair.cygnet.command(&["status", "--history"])?);
    ensure!(all.len() == told.len() && all.ends_with(&few), "{all:?}");
    Ok(all.join("; "))
}

//! Processes that ask a network, unprivileged: `cygnet probe-ike`, `cygnet probe-web`.
//!
//! Whoever runs a check-up is root, and answers are bytes of a network. So each question is put by a process of the
//! engine's user, with one socket that root has made (and marked, to go around tunnels) as its standard input. What
//! it prints are numbers, addresses and words of ours; more than that is not read.

pub(crate) mod ike;
pub(crate) mod web;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use cygnet_daemon::helper;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

/// What it prints is not longer.
const ANSWER_MAX: u64 = 4096;
/// Memory that it may have, most of it the program itself, and seconds that it may compute.
const MEMORY_MAX: u64 = 256 << 20;
const COMPUTING_MAX: u64 = 10;

/// Puts a question: the order, what it is about, and the socket to put it by.
pub(crate) async fn ask<Found: DeserializeOwned>(
    order: &str,
    errand: &impl Serialize,
    socket: OwnedFd,
    user: (u32, u32),
    patience: Duration,
) -> Result<Found, String> {
    let failed = |e: &dyn std::fmt::Display| format!("nothing could be sent: {e}");
    let errand = serde_json::to_string(errand).map_err(|e| failed(&e))?;
    let mut child = helper::command(order, &errand, user)
        .stdin(Stdio::from(socket))
        .spawn()
        .map_err(|e| failed(&e))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(failed(&"no pipe"));
    };
    let mut answer = Vec::new();
    let mut bounded = stdout.take(ANSWER_MAX);
    let read = tokio::time::timeout(patience, bounded.read_to_end(&mut answer)).await;
    match read {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"the process that asks did not end")),
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    serde_json::from_slice(&answer).map_err(|_| failed(&"the process that asks failed"))
}

/// Such a process: `put` gets its errand and its socket, and tells what it found. Returns the exit code.
pub(crate) fn run<Errand: DeserializeOwned, Found: Serialize>(
    errand: &str,
    put: impl FnOnce(Errand, OwnedFd) -> std::io::Result<Found>,
) -> u8 {
    let done = helper::confine(MEMORY_MAX, Some(COMPUTING_MAX)).and_then(|()| {
        let errand = serde_json::from_str(errand)?;
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let found = serde_json::to_vec(&put(errand, socket)?)?;
        std::io::stdout().write_all(&found)
    });
    u8::from(done.is_err())
}

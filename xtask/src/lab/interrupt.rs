//! Nothing is left behind: not after Ctrl-C, not after a panic, not after SIGKILL.
//!
//! Namespaces and directories carry [`PREFIX`] and the id of the process that made them. A normal
//! end or a panic removes them by `Drop`; a signal by the thread that [`install`] starts; what a
//! killed process left is removed by [`sweep_leftovers`] at the next start.

use super::failure::{Failure, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Begins every name that the lab gives to something outside of its own memory.
pub const PREFIX: &str = "cyg";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts the thread that cleans up and ends the program (status 130) on Ctrl-C, SIGTERM, SIGHUP.
pub fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if signals.forever().next().is_none() {
            return;
        }
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("\ninterrupted: cleaning up");
        let own = std::process::id();
        sweep_process(own);
        // Something may have been half made when the flag went up.
        thread::sleep(Duration::from_millis(100));
        sweep_process(own);
        std::process::exit(130);
    });
    Ok(())
}

/// Fails once Ctrl-C was pressed, so that work in progress stops at its next step.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        return Err(Failure::new("interrupted"));
    }
    Ok(())
}

/// Sleeps, unless Ctrl-C comes first.
pub fn pause(duration: Duration) -> Result<()> {
    let end = std::time::Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// After Ctrl-C the signal thread ends the program; whoever unwound to `main` waits here for it.
pub fn wait_for_exit_if_interrupted() {
    while check().is_err() {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Removes what dead processes of the lab have left.
pub fn sweep_leftovers() {
    let mut owners: Vec<u32> = names_of_all()
        .iter()
        .filter_map(|name| owner(name))
        .collect();
    owners.sort_unstable();
    owners.dedup();
    for pid in owners {
        if !is_lab_process(pid) {
            sweep_process(pid);
        }
    }
}

/// The directory of a lab that process `pid` made; `index` tells its labs apart.
pub(super) fn directory(pid: u32, index: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{pid}.{index}"))
}

/// Kills all processes inside a namespace that the lab made. Only its own can be in there.
pub(super) fn kill_inhabitants(namespace: &str) {
    // A process may fork while the list is read: go on until nobody is left.
    for _ in 0..50 {
        let listed = Command::new("ip")
            .args(["netns", "pids", namespace])
            .stderr(Stdio::null())
            .output();
        let Ok(listed) = listed else { return };
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let pids: Vec<i32> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a namespace with everybody in it.
pub fn remove_namespace(name: &str) {
    kill_inhabitants(name);
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

fn sweep_process(pid: u32) {
    for name in namespaces().iter().filter(|name| owner(name) == Some(pid)) {
        remove_namespace(name);
    }
    for path in directories() {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if name.as_deref().and_then(owner) == Some(pid) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn namespaces() -> Vec<String> {
    names_in(Path::new("/run/netns"))
}

fn directories() -> Vec<PathBuf> {
    let parent = std::env::temp_dir();
    names_in(&parent)
        .iter()
        .map(|name| parent.join(name))
        .collect()
}

fn names_of_all() -> Vec<String> {
    let mut names = namespaces();
    names.extend(names_in(&std::env::temp_dir()));
    names
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| owner(name).is_some())
        .collect()
}

/// The process that made something called `cyg<pid>.<lab>…`.
fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
    pid.parse().ok()
}

/// Whether the process lives and is one of this program's (its tests are called `xtask-…`).
fn is_lab_process(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("xtask"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_lab_have_an_owner() {
        assert_eq!(owner("cyg4711.0-gwa"), Some(4711));
        assert_eq!(owner("cyg4711.12"), Some(4711));
        assert_eq!(owner("cygnet"), None);
        assert_eq!(owner("cygnet.service"), None);
        assert_eq!(owner("ssw-gwa"), None);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_lab_process(std::process::id()));
    }
}

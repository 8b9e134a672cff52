//! Processes of Cygnet's that have nothing to lose: that they are there, and what they may do.

use crate::ensure;
use crate::lab::{Context, Namespace, Result};
use std::fs;

/// The process of a host that was started with this word on its command line.
pub(super) fn process_named(host: &Namespace, word: &str) -> Result<Option<u32>> {
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|one| one == word.as_bytes())
    };
    Ok(host.pids()?.into_iter().find(is_it))
}

/// Fails unless the process is of another user than root, has no capability, and gets none.
pub(super) fn expect_unprivileged(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(&path)?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let user = field("Uid:");
    let mut ids = user.split_whitespace().peekable();
    ensure!(
        ids.peek().is_some() && ids.all(|uid| uid != "0"),
        "process {pid} runs as {user}"
    );
    for (name, expected) in [("CapEff:", "0000000000000000"), ("NoNewPrivs:", "1")] {
        ensure!(
            field(name) == expected,
            "process {pid}: {name} {}",
            field(name)
        );
    }
    Ok(())
}

//! Processes of this program that do what neither the supervisor nor the engine must: they have nothing to lose.

use std::process::Stdio;

use tokio::process::Command;

/// This program with an order and what it is about, as another user. Its output is read; it ends when nobody waits
/// for it any more.
pub(crate) fn command(order: &str, argument: &str, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args([order, "--", argument])
        .uid(uid)
        .gid(gid)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

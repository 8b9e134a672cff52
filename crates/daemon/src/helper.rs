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

/// Nobody of the same user looks into this process or changes it: the engine, which may have been taken over, is of
/// that user, and where the kernel does not restrict ptrace could have it say what it likes.
pub(crate) fn shut() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use crate::alone::alone;
    use crate::{fetch_crl, resolve};

    #[test]
    fn nobody_of_the_same_user_looks_into_who_resolves() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_resolves",
            ":",
            || {
                assert_eq!(resolve::run("127.0.0.1"), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }

    #[test]
    fn nobody_of_the_same_user_looks_into_who_fetches() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_fetches",
            ":",
            || {
                // Here it is root, which it refuses to be; by then it is done.
                assert_ne!(fetch_crl::run("http://127.0.0.1:1/"), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }
}

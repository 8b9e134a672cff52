//! Processes of this program that do what neither the supervisor nor the engine must: they have nothing to lose.

use std::process::Stdio;

use tokio::process::Command;

/// This program with an order and what it is about, as another user. Its output is read; it ends when nobody waits
/// for it any more.
pub fn command(order: &str, argument: &str, (uid, gid): (u32, u32)) -> Command {
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

/// Takes from this process what it does not need: it gets no rights and writes no files, has so many octets of memory
/// and, if that is bounded, so many seconds to compute.
///
/// # Errors
/// It could not be done, or the process is still root.
pub fn confine(memory: u64, computing: Option<u64>) -> std::io::Result<()> {
    use rustix::process::Resource;
    shut()?;
    rustix::thread::set_no_new_privs(true)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Data, memory)?;
    if let Some(seconds) = computing {
        limit(Resource::Cpu, seconds)?;
    }
    if rustix::process::geteuid().is_root() {
        return Err(std::io::Error::other("still root"));
    }
    Ok(())
}

/// Ends this process when the one ends that started it, in whatever way.
pub(crate) fn end_with_parent() -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() == parent {
        true => Ok(()),
        false => Err(std::io::Error::other("who started it ended meanwhile")),
    }
}

/// So many descriptors, or as many as are allowed.
pub(crate) fn allow_files(most: u64) -> std::io::Result<()> {
    use rustix::process::{Resource, getrlimit};
    let allowed = getrlimit(Resource::Nofile).maximum;
    limit(
        Resource::Nofile,
        allowed.map_or(most, |allowed| allowed.min(most)),
    )
}

fn limit(resource: rustix::process::Resource, most: u64) -> std::io::Result<()> {
    let limit = rustix::process::Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, limit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use crate::alone::alone;
    use crate::{ask_time, dhcp, dns, fetch_crl, resolve, speedtest};

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

    #[test]
    fn nobody_of_the_same_user_looks_into_who_asks_for_the_date() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_asks_for_the_date",
            ":",
            || {
                // As above.
                assert_ne!(ask_time::run("127.0.0.1"), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }

    #[test]
    fn nobody_of_the_same_user_looks_into_who_measures() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_measures",
            ":",
            || {
                // As above.
                assert_ne!(speedtest::measure("lo"), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }

    #[test]
    fn nobody_of_the_same_user_looks_into_what_is_measured_at() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_what_is_measured_at",
            ":",
            || {
                // As above.
                assert_ne!(speedtest::endpoint("lo 127.0.0.1"), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }

    #[test]
    fn nobody_of_the_same_user_looks_into_who_lends_addresses() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_lends_addresses",
            ":",
            || {
                // As above.
                assert_ne!(dhcp::run(), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }

    #[test]
    fn nobody_of_the_same_user_looks_into_who_answers() {
        alone(
            "helper::tests::nobody_of_the_same_user_looks_into_who_answers",
            ":",
            || {
                // As above.
                assert_ne!(dns::run(), 0);
                assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            },
        );
    }
}

//! Packets before other work: threads that seal and open run at a nice value that the kernel prefers.
//!
//! Between two processes of equal right a packet waits until the other's time slice is over, some
//! milliseconds at each gateway and direction; what the kernel itself does with packets never waits so.
//! The engine has no privileges, so the supervisor grants it the right beforehand, as a limit.

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

/// The nice value, from 19 (waits for everyone) to -20.
const NICE: i32 = -10;
/// RLIMIT_NICE counts from 20 downwards (getrlimit(2)).
const LIMIT: u64 = (20 - NICE) as u64;

/// Lets this process, and those it starts, take precedence. Without the right to do so all goes on, only
/// slower on a busy machine.
pub(crate) fn allow() {
    let present = getrlimit(Resource::Nice);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= LIMIT);
    if enough(present.current) {
        return;
    }
    let maximum = if enough(present.maximum) {
        present.maximum
    } else {
        Some(LIMIT)
    };
    let wanted = Rlimit {
        current: Some(LIMIT),
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nice, wanted) {
        tracing::debug!("packets get no precedence (RLIMIT_NICE): {error}");
    }
}

/// Takes precedence for the calling thread.
pub(crate) fn take() {
    // On Linux it is the thread's own, where no process is named.
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::debug!("packets get no precedence: {error}");
    }
}

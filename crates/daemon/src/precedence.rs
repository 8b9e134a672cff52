//! Packets before other work: the threads that seal and open, and the IKE core, run at a nice value that
//! the kernel prefers.
//!
//! Between two processes of equal right a packet waits until the other's time slice is over, some
//! milliseconds at each gateway and direction; what the kernel itself does with packets never waits so.
//! The engine has no privileges: the supervisor gives its first thread precedence, which the others
//! inherit. Those that work on certificates and log-ins give it up.

use rustix::process::{Pid, setpriority_process};

/// From 19 (waits for everyone) to -20.
const NICE: i32 = -10;

/// Gives precedence to a process that has one thread yet. Without the right to do so all goes on, only
/// slower on a busy machine.
pub(crate) fn give(pid: Option<Pid>) {
    if let Err(error) = setpriority_process(pid, NICE) {
        tracing::debug!("packets get no precedence (CAP_SYS_NICE): {error}");
    }
}

/// Gives up the calling thread's own, for good.
pub(crate) fn give_up() {
    // On Linux it is the thread's, where no process is named. To be less preferred needs no right.
    let _ = setpriority_process(None, 0);
}

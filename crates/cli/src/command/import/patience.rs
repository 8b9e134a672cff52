//! A bound of what opening files may compute. A `.p12` says in its encrypted part, too, how much work it is, which nobody
//! sees before that is decrypted and the work begun.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Does the work; where it computes for longer than `most`, `late` is called beside it, once. Waiting (for somebody who
/// types a password) is no computing.
pub(super) fn within<T>(
    most: Duration,
    late: impl FnOnce() + Send + 'static,
    work: impl FnOnce() -> T,
) -> T {
    let until = computed() + most;
    // Dropped when the work is done, even by a panic.
    let (done, watched) = mpsc::channel::<()>();
    thread::spawn(move || {
        while watched.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if computed() > until {
                return late();
            }
        }
    });
    let outcome = work();
    drop(done);
    outcome
}

/// What this process has computed until now, on all processors.
fn computed() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_computes_for_too_long_is_told_and_who_waits_is_not() {
        let late = |told: &Arc<AtomicBool>| {
            let told = Arc::clone(told);
            move || told.store(true, Ordering::SeqCst)
        };
        let told = Arc::new(AtomicBool::new(false));
        within(Duration::from_millis(50), late(&told), || {
            while !told.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        let told = Arc::new(AtomicBool::new(false));
        within(Duration::from_secs(3600), late(&told), || {
            thread::sleep(3 * LOOK);
        });
        assert!(!told.load(Ordering::SeqCst));
    }
}

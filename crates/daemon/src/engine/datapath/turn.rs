//! Work that is done in parallel and has to end in the order in which it began.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// How often it is looked whether the turn has come, before the thread sleeps: the one before us is
/// usually about to end.
const LOOKS: usize = 200;

/// Whose turn it is, of those who drew consecutive numbers.
///
/// With one worker it costs a load and a store: the turn is always its own.
pub(super) struct Turn {
    now: AtomicU64,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    passed: Condvar,
}

impl Turn {
    /// The first turn is that of `number`.
    pub(super) fn starting_with(number: u64) -> Self {
        Self {
            now: AtomicU64::new(number),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            passed: Condvar::new(),
        }
    }

    /// Returns when it is the turn of `number`. Whoever drew a number passes the turn on, whatever
    /// became of the work; so this ends.
    pub(super) fn wait(&self, number: u64) {
        for _ in 0..LOOKS {
            if self.now.load(Ordering::Acquire) == number {
                return;
            }
            std::hint::spin_loop();
        }
        // Announced before the last look, as the one who passes stores before looking for sleepers: one
        // of the two sees the other.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.now.load(Ordering::SeqCst) != number {
            guard = self
                .passed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    /// Ends the own turn; the next is that of `number`.
    pub(super) fn pass_to(&self, number: u64) {
        self.now.store(number, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) != 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.passed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn work_ends_in_the_order_of_its_numbers() {
        const WORKERS: u64 = 4;
        const ROUNDS: u64 = 500;
        let (turn, drawn) = (Turn::starting_with(7), AtomicU64::new(7));
        let ended = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (turn, drawn, ended) = (&turn, &drawn, &ended);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let number = drawn.fetch_add(1, Ordering::Relaxed);
                        if (round + worker) % 97 == 0 {
                            // Long enough for the others to fall asleep.
                            std::thread::sleep(Duration::from_micros(300));
                        }
                        turn.wait(number);
                        ended.lock().unwrap().push(number);
                        turn.pass_to(number + 1);
                    }
                });
            }
        });
        let ended = ended.into_inner().unwrap();
        assert!(ended.into_iter().eq(7..7 + WORKERS * ROUNDS));
    }
}

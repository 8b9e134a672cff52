//! What one thread of several has at a time, and may keep for long.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The lead among workers: whoever has taken it does what only one may do, until it is given away. (A
/// mutex that is let go after each piece of work would wake another worker each time, for nothing.)
pub(super) struct Lead<T> {
    state: Mutex<State<T>>,
    given: Condvar,
}

struct State<T> {
    /// What goes with it, while nobody has it.
    vacant: Option<T>,
    /// Those who wait for it.
    waiting: usize,
}

impl<T> Lead<T> {
    pub(super) fn new(vacant: T) -> Self {
        let state = State {
            vacant: Some(vacant),
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            given: Condvar::new(),
        }
    }

    /// Takes it, if nobody has it.
    pub(super) fn try_take(&self) -> Option<T> {
        self.lock().vacant.take()
    }

    /// Waits until it can be taken.
    pub(super) fn take(&self) -> T {
        let mut state = self.lock();
        state.waiting += 1;
        loop {
            if let Some(taken) = state.vacant.take() {
                state.waiting -= 1;
                return taken;
            }
            let woken = self.given.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives it to one of those who wait, or to who comes first.
    pub(super) fn give(&self, taken: T) {
        let mut state = self.lock();
        state.vacant = Some(taken);
        let waited_for = state.waiting != 0;
        drop(state);
        if waited_for {
            self.given.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time_and_none_waits_for_ever() {
        const WORKERS: u32 = 4;
        const ROUNDS: u32 = 2000;
        let lead = Lead::new(0);
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let number = lead.try_take().unwrap_or_else(|| lead.take());
                        assert!(lead.try_take().is_none());
                        lead.give(number + 1);
                    }
                });
            }
        });
        assert_eq!(lead.try_take(), Some(WORKERS * ROUNDS));
    }
}

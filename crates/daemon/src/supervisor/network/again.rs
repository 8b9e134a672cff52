//! When what failed is tried again, and whether that is worth a line in the log.

use std::time::{Duration, Instant};

/// The pause after the first failure; each one after it is twice as long.
const FIRST: Duration = Duration::from_secs(3);

/// The longest pause.
const MOST: Duration = Duration::from_secs(60);

/// Growing pauses between attempts at something that is asked for over and over.
#[derive(Debug, Default)]
pub(super) struct Again {
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    error: String,
    pause: Duration,
    next: Instant,
}

impl Again {
    /// Whether the next attempt may be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.failure.as_ref().is_none_or(|f| f.next <= now)
    }

    /// Whether the last attempt did not fail.
    pub(super) fn is_first(&self) -> bool {
        self.failure.is_none()
    }

    /// The attempt succeeded.
    pub(super) fn done(&mut self) {
        self.failure = None;
    }

    /// The attempt failed. The pause that follows, where the error is another than the last time.
    pub(super) fn failed(&mut self, now: Instant, error: &str) -> Option<Duration> {
        let before = self.failure.take();
        let pause = before.as_ref().map_or(FIRST, |f| (f.pause * 2).min(MOST));
        let is_new = before.is_none_or(|f| f.error != error);
        self.failure = Some(Failure {
            error: error.to_owned(),
            pause,
            next: now + pause,
        });
        is_new.then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_an_error_is_told_once() {
        let mut again = Again::default();
        let mut now = Instant::now();
        assert!(again.is_due(now) && again.is_first());
        assert_eq!(again.failed(now, "no device"), Some(FIRST));
        assert!(!again.is_due(now + FIRST / 2) && !again.is_first());
        for pause in [6, 12, 24, 48, 60, 60] {
            now += MOST;
            assert!(again.is_due(now));
            assert_eq!(again.failed(now, "no device"), None);
            let pause = Duration::from_secs(pause);
            assert!(!again.is_due(now + pause - Duration::from_millis(1)));
            assert!(again.is_due(now + pause));
        }
        assert_eq!(again.failed(now, "no rights"), Some(MOST));
        again.done();
        assert!(again.is_due(now) && again.is_first());
        assert_eq!(again.failed(now, "no rights"), Some(FIRST));
    }
}

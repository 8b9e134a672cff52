//! Failures that last are logged now and then, not each time: a peer that is down for a night, or a
//! client that calls with a wrong key, does not fill the log.

use std::collections::BTreeMap;
use std::time::Duration;

use cygnet_ike::event::{Event, EventKind};
use cygnet_ike::time::Instant;

use crate::events;
use crate::standing::Standing;

/// A failure that lasts is said again after this time.
const AGAIN: Duration = Duration::from_secs(600);
/// Reasons remembered at once; when there are more, all are forgotten. Strangers choose their names.
const REASONS_MAX: usize = 64;
/// The least time between two times of forgetting; until then what is new is at DEBUG.
const FORGET: Duration = Duration::from_secs(60);

/// What was said lately.
#[derive(Default)]
pub(crate) struct Said {
    /// Whose failure and why, and when that was said.
    reasons: BTreeMap<(String, String), Instant>,
    standing: Standing,
    forgotten: Option<Instant>,
}

impl Said {
    /// Writes the event's line, unless a failure says what was said lately.
    pub(crate) fn log(&mut self, event: &Event, now: Instant) {
        let stays = self.standing.stays(event);
        // The connection's name is the same before and after its peer is known.
        let whose = event
            .connection
            .clone()
            .unwrap_or_else(|| events::who(event));
        match &event.kind {
            EventKind::IkeUp { .. } => self.reasons.retain(|(other, _), _| *other != whose),
            EventKind::Refused { reason } | EventKind::Retry { reason, .. }
                if !self.is_new(whose.clone(), events::steady(reason), now) =>
            {
                tracing::debug!("{}: again: {reason}", events::who(event));
                return;
            }
            EventKind::ServerFailed(failed)
                if !self.is_new(whose.clone(), events::steady_failure(failed), now) =>
            {
                tracing::debug!("{}: again: {failed}", events::who(event));
                return;
            }
            _ => {}
        }
        events::log(event, stays);
    }

    /// Whether the reason is worth a line; from then on it is not, for a while.
    fn is_new(&mut self, whose: String, reason: String, now: Instant) -> bool {
        let key = (whose, reason);
        if let Some(said) = self.reasons.get_mut(&key) {
            let long_ago = now.since(*said) >= AGAIN;
            if long_ago {
                *said = now;
            }
            return long_ago;
        }
        if self.reasons.len() >= REASONS_MAX {
            if self.forgotten.is_some_and(|at| now.since(at) < FORGET) {
                return false;
            }
            self.reasons.clear();
            self.forgotten = Some(now);
        }
        self.reasons.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use cygnet_ike::event::Reason;

    use super::*;

    fn refusal(said: &mut Said, subject: &str, seconds: u64) -> bool {
        let reason = Reason::PeerRefused("busy".into());
        let now = Instant::from_boot(Duration::from_secs(seconds));
        said.is_new(subject.to_owned(), events::steady(&reason), now)
    }

    #[test]
    fn what_lasts_is_said_now_and_then() {
        let mut said = Said::default();
        assert!(refusal(&mut said, "home", 1));
        assert!(!refusal(&mut said, "home", 2));
        assert!(refusal(&mut said, "branch", 2));
        assert!(refusal(&mut said, "home", 601));
        assert!(!refusal(&mut said, "home", 602));
    }

    #[test]
    fn the_time_without_an_answer_makes_no_new_reason() {
        let mut said = Said::default();
        let mut no_answer = |waited| {
            let reason = Reason::NoAnswer {
                sent: 7,
                waited: Duration::from_millis(waited),
            };
            let now = Instant::from_boot(Duration::ZERO);
            said.is_new("home".into(), events::steady(&reason), now)
        };
        assert!(no_answer(30_600));
        assert!(!no_answer(30_700));
    }

    #[test]
    fn strangers_with_many_names_get_few_lines() {
        let mut said = Said::default();
        let lines = (0..10_000)
            .filter(|n| refusal(&mut said, &format!("[{n}]"), 1))
            .count();
        assert!(lines <= 2 * REASONS_MAX, "{lines}");
        assert!(refusal(&mut said, "[late]", 62));
    }
}

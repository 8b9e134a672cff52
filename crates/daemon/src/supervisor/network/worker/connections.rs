//! Running connections that belong elsewhere now, or by another address ([`Bindings`] judges each): they are ended after
//! whatever changed what they are judged by, and their next packets begin them anew.

use std::time::Duration;

use cygnet_gateway::{Bindings, Retired, Sender, Verdict};
use tokio::time::Instant;

use super::{Worker, inputs_of};

/// The last answer to what was sent in clear comes within this time.
const ANSWERED: Duration = Duration::from_secs(2);

/// How far the kernel's connections are in keeping with what is.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// What all of them were last judged by.
    judged: Option<Bindings>,
    /// What some of them may have, and nothing else has any more.
    retired: Retired,
    /// Some may be stale though nothing changed: not all could be ended, or they began while a table was away.
    doubtful: bool,
    in_clear: Option<InClear>,
    /// Why not all could be ended.
    not_ended: Option<String>,
}

/// When what this machine itself began in clear is ended.
#[derive(Debug, Clone, Copy)]
struct InClear {
    at: Instant,
    /// It is ended once more so long after: an answer may have come later still.
    again: bool,
}

impl Worker {
    /// Some connections may have begun while other things were in force than what is known here.
    pub(super) fn doubt_connections(&mut self) {
        self.tracked.doubtful = true;
    }

    /// Ends stale connections, if they may be others than before; how many. On an error, of which it warns, it is tried
    /// again by the next look.
    pub(super) async fn end_stale(&mut self) -> Result<usize, String> {
        let Some(now) = self.bindings() else {
            return Ok(0);
        };
        let before = self.tracked.judged.take();
        let retired = std::mem::take(&mut self.tracked.retired);
        let retired = match &before {
            Some(before) => now.retired(before, &retired),
            None => retired,
        };
        let (gone, waiting) = now.gone(retired.clone());
        let changed = before.as_ref() != Some(&now);
        let as_before = !changed && !self.tracked.doubtful;
        let judges = now.judges() || before.as_ref().is_some_and(Bindings::judges);
        if gone.is_empty() && (as_before || !judges) {
            self.tracked.judged = Some(now);
            self.tracked.retired = waiting;
            return Ok(0);
        }
        // Who goes direct by a MAC address is known by it alone.
        self.learn().await;
        let owners = self.seen.owners();
        let unknown = match before.is_none_or(|before| now.differs_by_mac(&before)) {
            true => Sender::PerhapsChanged,
            false => Sender::Unknown,
        };
        let named = self.held.left(Instant::now());
        let ended = cygnet_linux::end_connections(|connection| {
            let sender = owners.get(&connection.source);
            let sender = sender.map_or(unknown, |mac| Sender::Known(*mac));
            let by_name = named.contains_key(&connection.destination);
            now.judge(&connection, sender, by_name) == Verdict::Stale || gone.concern(&connection)
        });
        let judges_own = now.judges_own();
        self.tracked.judged = Some(now);
        match ended {
            Ok(ended) => {
                self.tracked.retired = waiting;
                self.tracked.doubtful = false;
                self.tracked.not_ended = None;
                if judges_own {
                    self.end_in_clear_soon(changed);
                }
                Ok(ended)
            }
            Err(error) => {
                (self.tracked.doubtful, self.tracked.retired) = (true, retired);
                Err(self.not_ended(&error))
            }
        }
    }

    /// What has `changed` postpones it: answers may be on their way to what may be sent in clear no more. As long as changes
    /// go on, what waits is refused.
    fn end_in_clear_soon(&mut self, changed: bool) {
        let soon = InClear {
            at: Instant::now() + ANSWERED,
            again: true,
        };
        let waiting = self.tracked.in_clear.filter(|_| !changed);
        self.end_in_clear_at(waiting.unwrap_or(soon));
    }

    fn end_in_clear_at(&mut self, when: InClear) {
        self.tracked.in_clear = Some(when);
        self.heard.look_at(when.at);
    }

    /// Ends what this machine itself began in clear and may not send so, when no answer to it is on its way any more. A
    /// program whose TCP connection is refused begins another; what has no connection goes on from the same port, and would
    /// be refused as long as it does.
    pub(super) fn end_in_clear(&mut self) {
        let Some(due) = self.tracked.in_clear else {
            return;
        };
        if due.at > Instant::now() {
            return self.heard.look_at(due.at);
        }
        let Some(now) = self.bindings() else { return };
        self.tracked.in_clear = None;
        let ended = cygnet_linux::end_connections(|connection| {
            now.judge(&connection, Sender::Unknown, false) == Verdict::InClear
        });
        let later = Instant::now() + ANSWERED;
        match ended {
            Ok(0) => {}
            Ok(_) if !due.again => {}
            Ok(_) => self.end_in_clear_at(InClear {
                at: later,
                again: false,
            }),
            Err(error) => {
                self.not_ended(&error);
                self.end_in_clear_at(InClear { at: later, ..due });
            }
        }
    }

    /// Warns of it, once.
    fn not_ended(&mut self, error: &cygnet_linux::Error) -> String {
        let error = format!(
            "connections may go another way than before, but not all of the running ones could be ended: these hang \
             instead ({error})"
        );
        if self.tracked.not_ended.as_ref() != Some(&error) {
            tracing::warn!("{error}");
        }
        self.tracked.not_ended = Some(error.clone());
        error
    }

    /// For what is in force; `None`: that cannot be told.
    fn bindings(&self) -> Option<Bindings> {
        let config = self.config.as_ref()?;
        let around = (&self.machine, &self.listeners, &self.failure);
        let inputs = inputs_of(config, &self.live, around).ok()?;
        let (inputs, _) = inputs.without_overlaps();
        Some(Bindings::new(&inputs))
    }
}

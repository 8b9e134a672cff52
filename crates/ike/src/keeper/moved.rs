//! A server that does not answer may be elsewhere by now: its name is looked up again while it is called, and it is
//! called there.

use std::sync::Arc;
use std::time::Duration;

use super::{Dial, Turn};
use crate::context::Waiting;
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::{Answer, Ask, AskId};
use crate::policy::Host;
use crate::sa::{IkeSa, State};
use crate::time::Instant;

/// How long after the last look. A server is called at least every four seconds in the first minutes, so that one that
/// moved is met as soon as one that returns.
const AGAIN: Duration = Duration::from_secs(3);

/// The next look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// What is called has no name, has other addresses that are called next, or has answered.
    Never,
    At(Instant),
    Asked(AskId),
}

impl Look {
    /// Of a call that begins now.
    pub(super) fn first(host: Option<&Host>, others_left: bool, now: Instant) -> Self {
        match host {
            Some(Host::Name(_)) if !others_left => Self::At(now + AGAIN),
            _ => Self::Never,
        }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(at),
            Self::Never | Self::Asked(_) => None,
        }
    }
}

impl Endpoint {
    /// Asks where the server is that is called.
    pub(super) fn look_again(&mut self, name: &str) {
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let Dial::Dialing { sa, turn, look, .. } = &mut kept.dial else {
            return;
        };
        *look = Look::Never;
        if !self.sas.get(sa).is_some_and(is_unanswered) {
            return;
        }
        let ask = Ask::Resolve {
            connection: Arc::clone(&kept.connection),
            server: turn.server,
        };
        *look = Look::Asked(self.cx.ask(Waiting::Keeper(name.to_owned()), ask));
    }

    /// Where it is: elsewhere, or there still and silent.
    pub(super) fn handle_looked(&mut self, name: &str, answer: Answer) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let Dial::Dialing { sa, turn, look, .. } = &mut kept.dial else {
            return;
        };
        *look = Look::At(now + AGAIN);
        let Some(called) = self.sas.get(sa).filter(|sa| is_unanswered(sa)) else {
            return;
        };
        let at = called.channel.path.remote.ip();
        let paths = match answer {
            Answer::Paths(Ok(paths)) if !paths.is_empty() => paths,
            // Whoever cannot be asked has not said that it moved.
            _ => return,
        };
        if paths.iter().any(|path| path.remote.ip() == at) {
            return;
        }
        let (sa, turn) = (*sa, Turn::new(turn.server, paths, turn.ends));
        kept.dial = Dial::Idle;
        let reason = format!("its name leads elsewhere than to {at} now");
        self.delete_ike_sa(sa, Reason::Unreachable(reason));
        self.dial(name, turn);
    }
}

fn is_unanswered(sa: &IkeSa) -> bool {
    matches!(sa.state, State::Initiating(_))
}

//! A peer that is answered at several places: the list is gone through from the front, each has its share
//! of time, and while a later one serves those before it are asked now and then.
//!
//! They are asked by a call, beside the IKE SA that there is: one that lets us in has proven that it
//! serves, and leaves nothing half open. The old IKE SA ends when the new one carries every child of it.

use std::time::Duration;

use super::{Dial, Kept};
use crate::context::Context;
use crate::endpoint::Endpoint;
use crate::event::{Event, EventKind, Failed, Reason};
use crate::io::IkeSaId;
use crate::sa::IkeSa;
use crate::sa::established::Established;
use crate::time::Instant;

/// How long a server's turn may take, from the question where it is to the end of the log-in, whatever addresses it
/// has, while others remain to be tried.
pub(super) const SHARE: Duration = Duration::from_secs(15);
/// When the earlier servers are asked for the first time; after each time in vain twice as much later.
const FIRST: Duration = Duration::from_secs(60);
/// The longest wait, where none of them answers.
const MOST: Duration = Duration::from_secs(600);
/// A server that is lost again so soon after we went back to it does not serve steadily: we stay away
/// twice as long each time.
const STEADY: Duration = Duration::from_secs(600);
/// The longest wait then.
const MOST_UNSTEADY: Duration = Duration::from_secs(3600);

/// The way back to an earlier server.
#[derive(Default)]
pub(crate) struct Return {
    /// When those before the one in use are asked.
    at: Option<Instant>,
    /// The wait before that.
    wait: Duration,
    /// They are being asked, beside this IKE SA.
    beside: Option<IkeSaId>,
    /// When we last went back.
    returned: Option<Instant>,
}

impl Return {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// It is time to ask.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Whether the call in progress is for nothing else.
    pub(super) fn is_asking(&self) -> bool {
        self.beside.is_some()
    }

    /// What was asked beside is to be replaced whatever the earlier servers say, or is gone.
    pub(super) fn settle(&mut self, beside: IkeSaId) {
        self.beside.take_if(|id| *id == beside);
    }

    /// An IKE SA with another server has taken the place of this one.
    pub(super) fn replaced(&mut self, old: IkeSaId, now: Instant) {
        if self.beside == Some(old) {
            self.returned = Some(now);
        }
    }

    /// The one that is asked beside has been rekeyed.
    pub(super) fn goes_on(&mut self, from: IkeSaId, to: IkeSaId) {
        if self.beside == Some(from) {
            self.beside = Some(to);
        }
    }

    /// An IKE SA with the server of this place is up; `None`: the peer has called.
    fn arrived(
        &mut self,
        server: Option<usize>,
        now: Instant,
        jittered: impl FnOnce(Duration) -> Duration,
    ) {
        let unsteady = |at: Instant| now.since(at) < STEADY;
        if !self.is_asking() {
            self.wait = match self.returned.is_some_and(unsteady) {
                true => (2 * self.wait).clamp(FIRST, MOST_UNSTEADY),
                false => FIRST,
            };
        }
        let later = server.is_some_and(|server| server > 0);
        // Clients that lost a server at one moment do not ask for it at one.
        self.at = later.then(|| now + jittered(self.wait.max(FIRST)));
    }

    /// We stay where we are without having asked all of them.
    pub(super) fn goes_unasked(
        &mut self,
        now: Instant,
        jittered: impl FnOnce(Duration) -> Duration,
    ) {
        let at = now + jittered(self.wait.max(FIRST));
        self.at.get_or_insert(at);
    }

    /// None of them is there.
    fn failed(&mut self, now: Instant, jittered: impl FnOnce(Duration) -> Duration) {
        self.beside = None;
        let most = MOST.max(self.wait);
        self.wait = (2 * self.wait).clamp(FIRST, most);
        self.at = Some(now + jittered(self.wait));
    }
}

impl Kept {
    /// The server after `server`, if this round has another.
    pub(super) fn next_server(&self, server: usize, end: usize) -> Option<usize> {
        let end = end.min(self.connection.remote.servers().len());
        Some(server + 1).filter(|next| *next < end)
    }

    /// Notes why a call to one of several servers came to nothing.
    pub(super) fn note_failed(&mut self, failed: Failed) {
        if self.connection.remote.servers().len() > 1 {
            self.failed.push(failed);
        }
    }

    /// An IKE SA with the server of this place is up.
    pub(super) fn arrived(&mut self, server: Option<usize>, cx: &mut Context) {
        self.failed.clear();
        let now = cx.boot();
        self.way_back.arrived(server, now, |wait| cx.jittered(wait));
    }
}

impl Endpoint {
    /// How many servers this round of calls has: those before the one in use, while that one lives.
    pub(super) fn end_of_round(&self, kept: &Kept) -> usize {
        let beside = kept.way_back.beside.and_then(|id| self.sas.get(&id));
        let state = beside.and_then(IkeSa::established);
        let server = state.filter(|state| state.is_live());
        let server = server.and_then(|state| state.peering.server);
        server.unwrap_or(usize::MAX)
    }

    /// Asks the servers before the one in use.
    pub(super) fn call_earlier(&mut self, name: &str) {
        let now = self.cx.boot();
        let best = self.best_sa(name);
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let Some(id) = best else {
            // Between two IKE SAs: the next one may not come by a call of ours, which would set the alarm anew.
            kept.way_back.at = Some(now + FIRST);
            return;
        };
        let state = self.sas.get(&id).and_then(IkeSa::established);
        if state.and_then(|state| state.peering.server).unwrap_or(0) == 0 {
            return;
        }
        if !matches!(kept.dial, Dial::Idle) || !kept.replacing.is_empty() {
            // It is being called for another reason, from the front as well.
            kept.way_back.at = Some(now + FIRST);
            return;
        }
        kept.replacing.add(id, now);
        kept.way_back.beside = Some(id);
        self.keep(name);
    }

    /// The earlier servers do not serve: we stay where we are.
    pub(super) fn stay(&mut self, name: &str) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        if let Some(id) = kept.way_back.beside {
            kept.replacing.remove(id);
        }
        let cx = &mut self.cx;
        kept.way_back.failed(now, |wait| cx.jittered(wait));
        kept.failed.clear();
        kept.dial = Dial::Idle;
        self.keep(name);
    }

    /// An earlier server has let us in, but gives us less than the one in use: `sa` ends again. Whether that
    /// is how it is.
    pub(super) fn stays_away(&mut self, name: &str, sa: IkeSaId, reason: &Reason) -> bool {
        let Some(kept) = self.keeper.kept.get(name) else {
            return false;
        };
        let beside = kept.way_back.beside.filter(|id| *id != sa);
        let serves = |id: IkeSaId| {
            let state = self.sas.get(&id).and_then(IkeSa::established);
            state.is_some_and(Established::is_live)
        };
        if !beside.is_some_and(serves) {
            return false;
        }
        self.stay(name);
        self.delete_ike_sa(sa, reason.clone());
        true
    }

    /// Whether this server's turn ends for another's: the next in the list, or the one in use while earlier
    /// ones are asked.
    pub(super) fn others_wait(&self, name: &str, server: usize) -> bool {
        self.keeper.kept.get(name).is_some_and(|kept| {
            let end = self.end_of_round(kept);
            kept.way_back.is_asking() || kept.next_server(server, end).is_some()
        })
    }

    /// A call has taken more than its share, and another waits.
    pub(super) fn pass_over(&mut self, name: &str) {
        let Some(kept) = self.keeper.kept.get(name) else {
            return;
        };
        let server = match &kept.dial {
            Dial::Resolving { server, .. } => *server,
            Dial::Dialing { turn, .. } => turn.server,
            Dial::Idle | Dial::Waiting(_) => return,
        };
        let over = self.others_wait(name, server);
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let (what, sa) = match &mut kept.dial {
            Dial::Dialing { sa, turn, .. } => {
                if over {
                    turn.rest.clear();
                }
                ("it did not let us in", Some(*sa))
            }
            _ => ("no name server said where it is", None),
        };
        let reason = Reason::Unreachable(format!("{what} within {} s", SHARE.as_secs()));
        // The call is not waited for any more, so its end is no failure of another.
        self.call_failed(name, reason.clone());
        if let Some(sa) = sa {
            self.delete_ike_sa(sa, reason);
        }
    }

    /// One of several servers does not serve, and the next is called.
    pub(super) fn tell_failed(&mut self, name: &str, failed: Failed) {
        self.cx.event(Event {
            connection: Some(name.to_owned()),
            ike_sa: None,
            path: None,
            peer: None,
            kind: EventKind::ServerFailed(failed),
        });
    }
}

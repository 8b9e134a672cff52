//! A peer that does not answer under traffic ([`crate::sa::silence`]) is called anew beside the IKE SA that there
//! is, which ends when the new one carries every child of it. If it answers on the old one after all, the call ends,
//! unless the peer has answered that as well: then it goes on, and its failure is nothing amiss.

use super::{Dial, Kept};
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::IkeSaId;
use crate::sa::{IkeSa, State};

/// An IKE SA that is to be replaced for no other reason than the silence of its peer.
pub(crate) struct Silent {
    sa: IkeSaId,
    /// The peer has answered on it.
    answered: bool,
}

impl Kept {
    /// It is to be replaced whatever its peer says, or is gone.
    pub(super) fn settle_silent(&mut self, sa: IkeSaId) {
        self.silent.take_if(|silent| silent.sa == sa);
    }

    /// It has been rekeyed.
    pub(super) fn silent_goes_on(&mut self, from: IkeSaId, to: IkeSaId) {
        if let Some(silent) = self.silent.as_mut().filter(|silent| silent.sa == from) {
            silent.sa = to;
        }
    }
}

impl Endpoint {
    /// The peer does not answer under traffic.
    pub(crate) fn call_silent(&mut self, sa: IkeSaId) {
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        let Some(kept) = self.keeper.kept.get(&name) else {
            return;
        };
        // A call that asked earlier servers asks for all of them from now on.
        let other_reason = kept.replacing.contains(sa) && !kept.way_back.is_asking();
        self.reauthenticate(sa);
        if let Some(kept) = self.keeper.kept.get_mut(&name)
            && kept.replacing.contains(sa)
            && !other_reason
        {
            let answered = false;
            kept.silent = Some(Silent { sa, answered });
        }
    }

    /// It answers again.
    pub(crate) fn handle_answers(&mut self, sa: IkeSaId) {
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        let Some(silent) = kept.silent.as_mut().filter(|silent| silent.sa == sa) else {
            return;
        };
        silent.answered = true;
        let called = match kept.dial {
            Dial::Dialing { sa, .. } => self.sas.get(&sa),
            _ => None,
        };
        // The peer may count it as up by now.
        if !called.is_some_and(|sa| matches!(sa.state, State::AuthInitiator(_))) {
            self.stay_with_answering(&name);
        }
    }

    /// Whether a call that has come to nothing was for a silence that is over: that ends it.
    pub(super) fn stay_with_answering(&mut self, name: &str) -> bool {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return false;
        };
        let Some(silent) = kept.silent.take_if(|silent| silent.answered) else {
            return false;
        };
        kept.replacing.remove(silent.sa);
        kept.failed.clear();
        kept.backoff = None;
        kept.attempt = 0;
        kept.why = None;
        let state = self.sas.get(&silent.sa).and_then(IkeSa::established);
        if state.is_some_and(|state| state.peering.server > Some(0)) {
            let cx = &mut self.cx;
            kept.way_back.goes_unasked(now, |wait| cx.jittered(wait));
        }
        if let Dial::Dialing { sa, .. } = std::mem::replace(&mut kept.dial, Dial::Idle) {
            self.delete_ike_sa(sa, Reason::Replaced);
        }
        self.keep(name);
        true
    }
}

//! Peers that are in are judged again when what spoke for them may speak for them no more: a
//! certificate was revoked, an authority is trusted no longer.
//!
//! The question is the one that let them in, and a refusal ends them at once. One is asked about at a
//! time, so that a server's many peers do not keep those who call from being judged.

use std::collections::BTreeSet;

use crate::context::Waiting;
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::{Answer, Ask, ChainError, IkeSaId};
use crate::policy::RemoteAuth;
use crate::sa::{IkeSa, Peering};

/// Who is to be judged again, by [`Peering::authenticated_as`]: a rekey in between changes nothing.
#[derive(Default)]
pub(crate) struct Examination {
    due: BTreeSet<IkeSaId>,
    asked: Option<IkeSaId>,
}

impl Endpoint {
    /// Judges every peer again, those included whose proof is being looked at in this moment.
    pub(crate) fn examine_peers(&mut self) {
        let lines = self.sas.values().filter(|sa| !sa.is_closed());
        self.examination.due = lines
            .map(|sa| match sa.established() {
                Some(state) => state.peering.authenticated_as,
                None => sa.id(),
            })
            .collect();
        self.examine_next();
    }

    /// Asks about the next one, unless an answer is waited for.
    pub(crate) fn examine_next(&mut self) {
        if self.examination.asked.is_some() {
            return;
        }
        let mut not_yet = BTreeSet::new();
        while let Some(line) = self.examination.due.pop_first() {
            let ask = self.of_line(line).find_map(question);
            if let Some(ask) = ask {
                self.examination.asked = Some(line);
                self.cx.ask(Waiting::Examination(line), ask);
                break;
            }
            let sa = self.sas.get(&line);
            if sa.is_some_and(|sa| sa.established().is_none() && !sa.is_closed()) {
                not_yet.insert(line);
            }
        }
        self.examination.due.append(&mut not_yet);
    }

    /// The verdict.
    pub(crate) fn handle_examined(&mut self, line: IkeSaId, answer: Answer) {
        self.examination.asked = None;
        // Whoever cannot be judged is not in any longer either.
        if let Answer::Chain(Err(ChainError::Invalid(error) | ChainError::Unavailable(error))) =
            answer
        {
            let ids: Vec<_> = (self.sas.values())
                .filter(|sa| {
                    let state = sa.established();
                    state.is_some_and(|s| s.peering.authenticated_as == line)
                })
                .map(IkeSa::id)
                .collect();
            for id in ids {
                self.expel(id, Reason::PeerAuthentication(error.clone()));
            }
        }
        self.examine_next();
    }

    fn of_line(&self, line: IkeSaId) -> impl Iterator<Item = &Peering> {
        let established = self.sas.values().filter_map(IkeSa::established);
        established
            .map(|state| &state.peering)
            .filter(move |peering| peering.authenticated_as == line)
    }

    /// Ends an IKE SA whose peer is to get nothing more: the DELETE is sent if nothing is in flight,
    /// and not waited for; packets in flight are not let in.
    pub(crate) fn expel(&mut self, id: IkeSaId, reason: Reason) {
        let Some(state) = self.sas.get(&id).and_then(IkeSa::established) else {
            return;
        };
        // What it has left behind may still be received on as well.
        let holders = [Some(id), state.replaces];
        self.delete_ike_sa(id, reason.clone());
        if let Some(sa) = self.sas.get_mut(&id) {
            sa.drop_silently(&mut self.cx, reason);
        }
        self.settle();
        self.cx.remove_in_now(&holders);
    }
}

/// What was asked when this peer was let in.
fn question(peering: &Peering) -> Option<Ask> {
    let RemoteAuth::Certificate { trust, .. } = &peering.connection.remote_auth else {
        return None;
    };
    Some(Ask::ValidateChain {
        trust: trust.clone(),
        certificates: peering.certificates.to_vec(),
        identity: peering.peer_id.clone(),
        peer_is_responder: peering.dialed,
        again: true,
    })
}

//! Peers that are in are judged again when what spoke for them may speak for them no more: a
//! certificate was revoked, an authority is trusted no longer, a shared secret is another one.
//!
//! The question is the one that let them in, and a refusal ends them at once. One is asked about at a
//! time, so that a server's many peers do not keep those who call from being judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::context::Waiting;
use crate::endpoint::Endpoint;
use crate::event::{EventKind, Reason};
use crate::io::{Answer, Ask, ChainError, IkeSaId};
use crate::policy::{CredentialId, EapLogin, LocalAuth, RemoteAuth};
use crate::sa::established::Established;
use crate::sa::{IkeSa, Peering};
use crate::time::Instant;

/// The pauses after which a question is asked again that nobody had an answer to.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
];

/// Who is to be judged again, by [`Peering::authenticated_as`]: a rekey in between changes nothing.
#[derive(Default)]
pub(crate) struct Examination {
    due: BTreeSet<IkeSaId>,
    asked: Option<IkeSaId>,
    /// About whom nothing could be found out so far.
    undecided: BTreeMap<IkeSaId, Undecided>,
    /// When shared secrets were last replaced.
    replaced: BTreeMap<CredentialId, Instant>,
}

struct Undecided {
    /// The pause that it is in, one of [`PAUSES`].
    pause: usize,
    /// When that is over; `None`: it is.
    until: Option<Instant>,
}

impl Examination {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = self.undecided.values();
        waiting.filter_map(|undecided| undecided.until).min()
    }
}

impl Endpoint {
    /// Judges every peer again, those included whose proof is being looked at in this moment.
    pub(crate) fn examine_peers(&mut self) {
        self.examination.undecided.clear();
        let lines = self.sas.values().filter(|sa| !sa.is_closed());
        self.examination.due = lines
            .map(|sa| match sa.established() {
                Some(state) => state.peering.authenticated_as,
                None => sa.id(),
            })
            .collect();
        self.examine_next();
    }

    /// Asks again about those whose pause is over.
    pub(crate) fn examine_again(&mut self) {
        let now = self.cx.boot();
        let Examination { due, undecided, .. } = &mut self.examination;
        for (line, undecided) in undecided {
            if undecided.until.take_if(|until| *until <= now).is_some() {
                due.insert(*line);
            }
        }
        self.examine_next();
    }

    /// Asks about the next one, unless an answer is waited for.
    pub(crate) fn examine_next(&mut self) {
        if self.examination.asked.is_some() {
            return;
        }
        let mut not_yet = BTreeSet::new();
        while let Some(line) = self.examination.due.pop_first() {
            let ask = self
                .sas_of_line(line)
                .find_map(|(_, state)| question(&state.peering));
            if let Some(ask) = ask {
                self.examination.asked = Some(line);
                self.cx.ask(Waiting::Examination(line), ask);
                break;
            }
            let sa = self.sas.get(&line);
            if sa.is_some_and(|sa| sa.established().is_none() && !sa.is_closed()) {
                not_yet.insert(line);
            } else {
                self.examination.undecided.remove(&line);
            }
        }
        self.examination.due.append(&mut not_yet);
    }

    /// The verdict, or that there is none.
    pub(crate) fn handle_examined(&mut self, line: IkeSaId, answer: Answer) {
        self.examination.asked = None;
        match answer {
            Answer::Chain(Err(ChainError::Invalid(error))) => {
                self.examination.undecided.remove(&line);
                self.expel_line(line, &Reason::PeerAuthentication(error));
            }
            Answer::Chain(Err(ChainError::Unavailable(error))) => self.examine_later(line, error),
            _ => {
                self.examination.undecided.remove(&line);
            }
        }
        self.examine_next();
    }

    /// Nobody could tell. A revocation is a verdict and puts its peer out at once; this is none, and
    /// the one that let the peer in holds, as long as no other is known: it is the same with those who
    /// call, who are asked about again and not refused. Or a busy moment at a reload would put out
    /// every peer of a server.
    fn examine_later(&mut self, line: IkeSaId, error: String) {
        let waited = self.examination.undecided.get(&line);
        let pause = waited.map_or(0, |undecided| undecided.pause + 1);
        if let Some(length) = PAUSES.get(pause) {
            let until = Some(self.cx.boot() + *length);
            let undecided = Undecided { pause, until };
            self.examination.undecided.insert(line, undecided);
            return;
        }
        self.examination.undecided.remove(&line);
        let first = self.sas_of_line(line).next();
        if let Some((sa, state)) = first {
            let reason = Reason::Local(error);
            let event = state.event(&sa.channel, EventKind::Unexamined { reason });
            self.cx.event(event);
        }
    }

    pub(crate) fn expel_line(&mut self, line: IkeSaId, reason: &Reason) {
        let ids: Vec<_> = self.sas_of_line(line).map(|(sa, _)| sa.id()).collect();
        for id in ids {
            self.expel(id, reason.clone());
        }
    }

    /// Puts out whoever is in by one of these secrets, and whoever is being let in when that is done:
    /// which of the two secrets it showed is not known any more.
    pub(crate) fn replace_secrets(&mut self, replaced: Vec<CredentialId>) {
        let now = self.cx.boot();
        let replaced = replaced.into_iter().map(|secret| (secret, now));
        self.examination.replaced.extend(replaced);
        let established = self.sas.values().filter(|sa| sa.established().is_some());
        let ids: Vec<_> = established.map(IkeSa::id).collect();
        for id in ids {
            self.expel_by_secret(id);
        }
    }

    /// Ends the IKE SA if the secret that it authenticated by has been replaced since it began;
    /// whether it did.
    pub(crate) fn expel_by_secret(&mut self, id: IkeSaId) -> bool {
        let replaced = self.sas.get(&id).is_some_and(|sa| {
            let Some(state) = sa.established() else {
                return false;
            };
            // A rekey authenticates nobody.
            let begun = match state.is_of(id) {
                true => sa.channel.since,
                false => state.peering.authenticated_at,
            };
            let replaced = &self.examination.replaced;
            let mut secrets = secrets(&state.peering);
            secrets.any(|secret| replaced.get(secret).is_some_and(|at| begun <= *at))
        });
        if replaced {
            let why = "the pre-shared key or the password was replaced by another one, or the user was \
                       removed";
            self.expel(id, Reason::PeerAuthentication(why.to_owned()));
        }
        replaced
    }

    /// The IKE SAs of a line: those that came of one authentication by rekeying.
    pub(crate) fn sas_of_line(
        &self,
        line: IkeSaId,
    ) -> impl Iterator<Item = (&IkeSa, &Established)> {
        let all = self.sas.values();
        let all = all.filter_map(|sa| Some((sa, sa.established()?)));
        all.filter(move |(_, state)| state.is_of(line))
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

impl Established {
    fn is_of(&self, line: IkeSaId) -> bool {
        self.peering.authenticated_as == line
    }
}

/// The shared secrets that the two ends prove themselves by.
fn secrets(peering: &Peering) -> impl Iterator<Item = &CredentialId> {
    let connection = &peering.connection;
    let local = match &connection.local_auth {
        LocalAuth::Psk(secret)
        | LocalAuth::Eap(EapLogin::Password {
            credential: secret, ..
        }) => Some(secret),
        LocalAuth::Certificate { .. } | LocalAuth::Eap(EapLogin::Certificate { .. }) => None,
    };
    let remote = match &connection.remote_auth {
        RemoteAuth::Psk(secret) => Some(secret),
        RemoteAuth::Certificate { .. } => None,
    };
    [local, remote, peering.secret.as_ref()]
        .into_iter()
        .flatten()
}

/// What was asked when this peer was let in.
fn question(peering: &Peering) -> Option<Ask> {
    let RemoteAuth::Certificate { trust, .. } = &peering.connection.remote_auth else {
        return None;
    };
    // Who has logged in by a password showed none.
    if peering.certificates.is_empty() {
        return None;
    }
    Some(Ask::ValidateChain {
        trust: trust.clone(),
        certificates: peering.certificates.to_vec(),
        identity: peering.peer_id.clone(),
        peer_is_responder: peering.dialed,
        again: true,
    })
}

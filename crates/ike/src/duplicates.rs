//! Two IKE SAs between the same identities: when a peer comes back, when both call at once, and
//! when one authenticates anew (RFC 7296 §2.4, §2.8.3).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::identity;
use crate::io::IkeSaId;
use crate::sa::IkeSa;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::established::Established;
use crate::time::Instant;

/// How long the predecessor of an IKE SA may stay: its successor may be a reauthentication, which
/// makes all children before it deletes the old IKE SA.
const OVERLAP: Duration = Duration::from_secs(30);
/// How much longer it stays while the successor lacks one of its children, whose exchange the
/// network may keep losing.
const LENIENCE: Duration = Duration::from_secs(300);
/// How often that is looked at.
const RECHECK: Duration = Duration::from_secs(5);

/// Calls of one identity that are up at once. It may be back some times before its absence is noticed.
const CALLS_OF_ONE: usize = 16;
/// The same where several devices share an identity: so many get addresses.
const CALLS_OF_SEVERAL: usize = 64;

/// What happens to another IKE SA of the same peer.
enum Verdict {
    /// The peer does not know it any more.
    Drop,
    /// The other one is of our call, so we know when it serves. It authenticated then.
    Replace(Instant),
    /// The peer is to delete it; we do after [`OVERLAP`].
    Supersede,
    /// It may be that of another device, or have been forgotten by this one: the peer is asked.
    Probe,
}

impl Endpoint {
    /// `id` is new: what becomes of the others.
    pub(crate) fn settle_duplicates(&mut self, id: IkeSaId, initial_contact: bool) {
        let until = self.cx.boot() + OVERLAP;
        let Some(sa) = self.sas.get(&id) else {
            return;
        };
        let Some(new) = sa.established() else {
            return;
        };
        let begun = sa.channel.since;
        let name = new.peering.connection.name.clone();
        let mut verdicts = Vec::new();
        for other in self.sas.values().filter(|other| other.id() != id) {
            let Some(old) = other.established().filter(|old| old.is_live()) else {
                continue;
            };
            if !same_ends(old, new) {
                continue;
            }
            // RFC 7296 §2.4: who shares its identity with other devices must not say this, and says
            // it all the same; it speaks for the device at this very place then, and for no other.
            let (there, here) = (other.channel.path.remote, sa.channel.path.remote);
            let speaks_for_it = new.peering.is_unique() || there == here;
            // Only what was there before the peer called can be what it has forgotten.
            if initial_contact && speaks_for_it && old.since < begun {
                verdicts.push((other.id(), Verdict::Drop));
                continue;
            }
            if old.peering.dialed != new.peering.dialed {
                // Both ends called. Both know the SPIs, and prefer the same one.
                let (loser, winner) = if old.peering.origin < new.peering.origin {
                    (other, new)
                } else {
                    (sa, old)
                };
                let verdict = match winner.peering.dialed {
                    true => Verdict::Replace(winner.peering.authenticated_at),
                    false => Verdict::Supersede,
                };
                verdicts.push((loser.id(), verdict));
            } else if new.peering.dialed {
                let since = new.peering.authenticated_at;
                verdicts.push((other.id(), Verdict::Replace(since)));
            } else if new.peering.is_unique() {
                verdicts.push((other.id(), Verdict::Supersede));
            } else if there.ip() == here.ip() {
                verdicts.push((other.id(), Verdict::Probe));
            }
        }
        for (id, verdict) in verdicts {
            match verdict {
                Verdict::Drop => {
                    let mut heir = None;
                    if let Some((_, state)) =
                        (self.sas.get_mut(&id)).and_then(IkeSa::established_mut)
                    {
                        let children = state.children.values_mut();
                        children.for_each(|child| child.forgotten = true);
                        // What the peer has made of it is forgotten as well.
                        heir = state.take_provisional();
                    }
                    for id in [Some(id), heir].into_iter().flatten() {
                        if let Some(sa) = self.sas.get_mut(&id) {
                            sa.drop_silently(&mut self.cx, Reason::Replaced);
                            self.proceed(id);
                        }
                    }
                }
                Verdict::Replace(since) => {
                    if let Some(kept) = self.keeper.kept.get_mut(&name) {
                        kept.replacing.add(id, since);
                    }
                }
                Verdict::Supersede => self.change(id, |state, _, _| {
                    state.peering.superseded_at.get_or_insert(until);
                }),
                Verdict::Probe => self.change(id, |state, _, cx| state.hint(cx, Vec::new())),
            }
        }
    }

    /// Whoever calls again and again does not fill this machine with IKE SAs: of too many, the one that
    /// authenticated first ends at once, with all that came of it.
    pub(crate) fn bound_calls(&mut self, id: IkeSaId) {
        let established = |id: &IkeSaId| self.sas.get(id).and_then(IkeSa::established);
        let Some(new) = established(&id).filter(|new| !new.peering.dialed) else {
            return;
        };
        let most = match new.peering.is_unique() {
            true => CALLS_OF_ONE,
            false => CALLS_OF_SEVERAL,
        };
        let others = self.sas.values().filter_map(IkeSa::established);
        let calls: BTreeSet<_> = others
            .filter(|other| !other.peering.dialed && same_ends(other, new))
            .map(|other| {
                (
                    other.peering.authenticated_at,
                    other.peering.authenticated_as,
                )
            })
            .collect();
        let beyond = calls.len().saturating_sub(most);
        for (_, line) in calls.into_iter().take(beyond) {
            self.expel_line(line, &Reason::Replaced);
        }
    }

    /// The peer was to delete `id`, whose successor it has made, and has not. We do, unless the
    /// successor still lacks a child, or the peer has not shown that it knows of one: our IKE_AUTH
    /// response may be what is lost.
    pub(crate) fn settle_superseded(&mut self, id: IkeSaId) {
        let now = self.cx.boot();
        let Some(old) = self.sas.get(&id).and_then(IkeSa::established) else {
            return;
        };
        let others = self.sas.values().filter(|sa| sa.id() != id);
        let successors: Vec<_> = others
            .filter_map(IkeSa::established)
            .filter(|new| new.is_live() && new.peering.superseded_at.is_none())
            .filter(|new| same_ends(old, new))
            .collect();
        let Some(since) = (successors.iter().map(|new| new.peering.authenticated_at)).max() else {
            // It has ended before its predecessor: that is the one in use.
            return self.change(id, |state, _, _| state.peering.superseded_at = None);
        };
        let mut children = old.children.values();
        let lacking = children.any(|child| {
            let made = |new: &&Established| {
                let made = new.child_named(child.name());
                made.is_some_and(ChildSa::is_sending)
            };
            child.state == ChildState::Installed && !successors.iter().any(made)
        });
        if lacking && now.since(since) < LENIENCE {
            let at = now + RECHECK;
            return self.change(id, |state, _, _| state.peering.superseded_at = Some(at));
        }
        self.delete_ike_sa(id, Reason::Replaced);
    }
}

/// Whether two IKE SAs are between the same ends. Only of the same connection: a key for one says
/// nothing about who is who on another. And as certificates are matched, or one name in two
/// spellings would be two peers.
fn same_ends(one: &Established, other: &Established) -> bool {
    let (one, other) = (&one.peering, &other.peering);
    identity::same(&one.peer_id, &other.peer_id)
        && identity::same(&one.local_id, &other.local_id)
        && one.connection.name == other.connection.name
}

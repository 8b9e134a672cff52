//! Two IKE SAs between the same identities: when a peer comes back, when both call at once, and
//! when one authenticates anew (RFC 7296 §2.4, §2.8.3).

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::identity;
use crate::io::IkeSaId;

/// How long the predecessor of an IKE SA may stay: its successor may be a reauthentication, which
/// makes all children before it deletes the old IKE SA.
const OVERLAP: Duration = Duration::from_secs(30);

/// What happens to another IKE SA of the same peer.
enum Verdict {
    /// The peer does not know it any more.
    Drop,
    /// One of two that were made at once; the other one is of our call, so we know when it serves.
    Replace,
    /// The peer is to delete it; we do after [`OVERLAP`].
    Supersede,
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
            // Only of the same connection: a key for one says nothing about who is who on another.
            // And as certificates are matched, or one name in two spellings would be two peers.
            let same_ends = identity::same(&old.peering.peer_id, &new.peering.peer_id)
                && identity::same(&old.peering.local_id, &new.peering.local_id)
                && old.peering.connection.name == new.peering.connection.name;
            if !same_ends {
                continue;
            }
            // Only what was there before the peer called can be what it has forgotten.
            if initial_contact && old.since < begun {
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
                    true => Verdict::Replace,
                    false => Verdict::Supersede,
                };
                verdicts.push((loser.id(), verdict));
            } else if new.peering.connection.unique && !new.peering.dialed {
                verdicts.push((other.id(), Verdict::Supersede));
            }
        }
        for (id, verdict) in verdicts {
            match verdict {
                Verdict::Drop => {
                    if let Some(sa) = self.sas.get_mut(&id) {
                        if let Some((_, state)) = sa.established_mut() {
                            let children = state.children.values_mut();
                            children.for_each(|child| child.forgotten = true);
                        }
                        sa.drop_silently(&mut self.cx, Reason::Replaced);
                        self.proceed(id);
                    }
                }
                Verdict::Replace => {
                    let kept = self.keeper.kept.values_mut();
                    let mut kept = kept.filter(|kept| kept.connection.name == name);
                    if let Some(kept) = kept.next() {
                        kept.replacing.get_or_insert(id);
                    }
                }
                Verdict::Supersede => self.change(id, |state, _, _| {
                    state.peering.superseded_at.get_or_insert(until);
                }),
            }
        }
    }
}

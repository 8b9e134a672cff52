//! What the nodes report, and what it means for the packets still under way.

use cygnet_ike::event::{Event, EventKind, Reason};
use cygnet_ike::io::IkeSaId;

use super::World;
use crate::scenario::Side;

/// Whether the peer counts as dead: also where it is one of several, and all were called.
fn is_silence(reason: &Reason) -> bool {
    match reason {
        Reason::NoAnswer { .. } | Reason::ReplacedUnanswered => true,
        Reason::EachServer(all) => all.iter().any(|failed| is_silence(&failed.reason)),
        _ => false,
    }
}

impl World {
    /// Takes note of an event; whether the node has counted its peer for dead.
    pub(super) fn note(&mut self, side: Side, event: &Event) -> bool {
        self.journal.line(self.now, || match event.ike_sa {
            Some(id) => format!("{side} reports {:?} of {id:?}", event.kind),
            None => format!("{side} reports {:?}", event.kind),
        });
        match &event.kind {
            EventKind::IkeUp { .. } => self.stats.ike_ups += 1,
            EventKind::ChildUp { .. } => self.stats.child_ups += 1,
            EventKind::Drained => self.node_mut(side).drained = true,
            EventKind::IkeDown { reason } | EventKind::Retry { reason, .. }
                if is_silence(reason) =>
            {
                self.stats.deaths += 1;
                if let Some(ike_sa) = event.ike_sa {
                    self.abandon(side, ike_sa);
                }
                return true;
            }
            // A call that nobody waits for any more, so that no other follows. What the responder has
            // made of it is forgotten here without a word (RFC 7296 §2.1).
            EventKind::Refused {
                reason: Reason::NoAnswer { .. },
            } => return true,
            EventKind::ChildDown {
                child,
                reason: Reason::NoAnswer { .. } | Reason::ReplacedUnanswered,
                ..
            } => {
                let node = self.node_mut(side);
                let inbound = node.datapath.inbound.values();
                let lost: Vec<u32> = inbound
                    .filter(|inbound| inbound.params.id == *child)
                    .map(|inbound| inbound.params.spi_in)
                    .collect();
                node.abandoned.extend(lost);
                return true;
            }
            _ => {}
        }
        false
    }

    /// The children of an IKE SA whose peer counts as dead.
    fn abandon(&mut self, side: Side, ike_sa: IkeSaId) {
        let node = self.node_mut(side);
        let inbound = node.datapath.inbound.values();
        let lost: Vec<u32> = inbound
            .filter(|inbound| inbound.params.ike_sa == ike_sa)
            .map(|inbound| inbound.params.spi_in)
            .collect();
        node.abandoned.extend(lost);
    }
}

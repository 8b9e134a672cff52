//! Which connections stand with whom. Both ends may have called each other, or a call that was given up may have been
//! answered: then there are two to one peer, and the end of one is not that of the tunnel.

use std::collections::{BTreeMap, BTreeSet};

use cygnet_ike::event::{Event, EventKind, Reason};
use cygnet_ike::identity;
use cygnet_ike::io::{ChildSaId, IkeSaId};

/// A connection with the peer that is in by it; a server's has many.
type Line = (String, String);

/// Those that are up.
#[derive(Default)]
pub(crate) struct Standing {
    sas: BTreeMap<Line, BTreeSet<IkeSaId>>,
    children: BTreeMap<(Line, String), BTreeSet<ChildSaId>>,
}

impl Standing {
    /// Takes note of an event; whether it is an end beside which another of the same stands. What the operator ends
    /// ends altogether.
    pub(crate) fn stays(&mut self, event: &Event) -> bool {
        let (Some(connection), Some(peer)) = (&event.connection, &event.peer) else {
            return false;
        };
        let line = (connection.clone(), identity::display(peer).to_string());
        match (&event.kind, event.ike_sa) {
            (EventKind::IkeUp { .. }, Some(id)) => {
                self.sas.entry(line).or_default().insert(id);
                false
            }
            (EventKind::ChildUp { child, name, .. }, _) => {
                let of = self.children.entry((line, name.clone()));
                of.or_default().insert(*child);
                false
            }
            (EventKind::IkeDown { reason }, Some(id)) => {
                without(&mut self.sas, &line, id) && *reason != Reason::Operator
            }
            (
                EventKind::ChildDown {
                    child,
                    name,
                    reason,
                },
                _,
            ) => {
                without(&mut self.children, &(line, name.clone()), *child)
                    && *reason != Reason::Operator
            }
            _ => false,
        }
    }
}

/// Takes one out; whether others are left.
fn without<K: Ord, T: Ord>(all: &mut BTreeMap<K, BTreeSet<T>>, of: &K, one: T) -> bool {
    let Some(left) = all.get_mut(of) else {
        return false;
    };
    left.remove(&one);
    let some = !left.is_empty();
    if !some {
        all.remove(of);
    }
    some
}

#[cfg(test)]
mod tests {
    use cygnet_wire::id::Identification;

    use super::*;

    fn event(id: u64, peer: &str, kind: EventKind) -> Event {
        Event {
            connection: Some("home".to_owned()),
            ike_sa: Some(IkeSaId(id)),
            path: None,
            peer: Some(Identification::fqdn(peer)),
            kind,
        }
    }

    fn up(id: u64, peer: &str) -> Event {
        let kind = EventKind::IkeUp {
            suite: String::new(),
            nat_local: false,
            nat_remote: false,
            replaces: None,
        };
        event(id, peer, kind)
    }

    fn down(id: u64, peer: &str, reason: Reason) -> Event {
        event(id, peer, EventKind::IkeDown { reason })
    }

    #[test]
    fn the_end_of_one_of_two_is_not_that_of_the_tunnel() {
        let mut standing = Standing::default();
        for id in [1, 2] {
            assert!(!standing.stays(&up(id, "vpn.lab")));
        }
        assert!(standing.stays(&down(2, "vpn.lab", Reason::DeletedByPeer)));
        assert!(!standing.stays(&down(1, "vpn.lab", Reason::DeletedByPeer)));
        assert!(standing.sas.is_empty());
    }

    #[test]
    fn another_peer_of_a_server_is_another_tunnel_and_the_operator_ends_all() {
        let mut standing = Standing::default();
        standing.stays(&up(1, "alice"));
        standing.stays(&up(2, "bob"));
        standing.stays(&up(3, "bob"));
        assert!(!standing.stays(&down(1, "alice", Reason::DeletedByPeer)));
        assert!(!standing.stays(&down(2, "bob", Reason::Operator)));
        assert!(!standing.stays(&down(3, "bob", Reason::Operator)));
    }

    #[test]
    fn a_child_that_another_connection_carries_on_is_no_loss() {
        let mut standing = Standing::default();
        let child = |n: u64, reason: Option<Reason>| {
            let (child, name) = (ChildSaId(n), "net".to_owned());
            let kind = match reason {
                None => EventKind::ChildUp {
                    child,
                    name,
                    suite: String::new(),
                    selectors: String::new(),
                    replaces: None,
                    server: None,
                },
                Some(reason) => EventKind::ChildDown {
                    child,
                    name,
                    reason,
                },
            };
            event(n, "vpn.lab", kind)
        };
        standing.stays(&child(1, None));
        standing.stays(&child(2, None));
        assert!(standing.stays(&child(1, Some(Reason::DeletedByPeer))));
        assert!(!standing.stays(&child(2, Some(Reason::DeletedByPeer))));
        assert!(standing.children.is_empty());
    }
}

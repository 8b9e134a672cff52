//! When tunnels go up and down, and why: what `status` tells of the past.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cygnet_ike::event::{Event, EventKind, Reason};
use cygnet_ike::io::ChildSaId;

use crate::events;
use crate::ipc::Changed;

/// What is known of tunnels.
#[derive(Default)]
pub(super) struct Changes {
    /// Those that are configured; no others are told of. A server's clients come and go.
    configured: BTreeSet<String>,
    /// The Child SAs that carry traffic.
    carrying: BTreeMap<String, BTreeSet<ChildSaId>>,
    /// Where the peer was called last.
    called: BTreeMap<String, IpAddr>,
    /// Which of its servers carries each, where there are several.
    servers: BTreeMap<String, Option<u32>>,
}

/// Places are counted from 1 where people read them.
pub(super) fn place(server: usize) -> u32 {
    u32::try_from(server).unwrap_or(u32::MAX).saturating_add(1)
}

impl Changes {
    /// Another configuration. The Child SAs of a tunnel that is no more end behind this, and are followed to their
    /// end: there may be a tunnel of that name again.
    pub(super) fn configure<'a>(&mut self, tunnels: impl Iterator<Item = &'a String>) {
        self.configured = tunnels.cloned().collect();
        let configured = &self.configured;
        self.called.retain(|tunnel, _| configured.contains(tunnel));
        self.servers.retain(|tunnel, _| configured.contains(tunnel));
    }

    /// What to tell of an event; most change nothing that anybody asks about afterwards.
    pub(super) fn of(&mut self, connection: &str, event: &Event) -> Option<Changed> {
        let change = self.change(connection, event);
        change.filter(|_| self.configured.contains(connection))
    }

    fn change(&mut self, tunnel: &str, event: &Event) -> Option<Changed> {
        let ends = event.path.map(|path| (path.local, path.remote));
        match &event.kind {
            EventKind::Connecting { .. } => {
                let (_, remote) = ends?;
                self.called.insert(tunnel.to_owned(), remote.ip());
                None
            }
            EventKind::ChildUp { child, server, .. } => {
                let carrying = self.carrying.entry(tunnel.to_owned()).or_default();
                let first = carrying.is_empty();
                carrying.insert(*child);
                let server = server.map(place);
                let before = self.servers.insert(tunnel.to_owned(), server).flatten();
                let (local, remote) = ends?;
                if first {
                    return Some(Changed::Up {
                        local,
                        remote,
                        server,
                    });
                }
                (server != before).then_some(Changed::Moved {
                    local,
                    remote,
                    server,
                })
            }
            EventKind::ChildDown { child, reason, .. } => {
                let carrying = self.carrying.get_mut(tunnel)?;
                if !carrying.remove(child) || !carrying.is_empty() {
                    return None;
                }
                self.carrying.remove(tunnel);
                let peer = ends.map(|(_, remote)| remote.ip());
                let why = sentence(reason, peer, true);
                Some(Changed::Down { why })
            }
            EventKind::Retry { reason, .. } if !self.carrying.contains_key(tunnel) => {
                let why = sentence(reason, self.called.get(tunnel).copied(), false);
                Some(Changed::Failed { why })
            }
            EventKind::ServerFailed(failed) if !self.carrying.contains_key(tunnel) => {
                let why = events::short(&events::steady_failure(failed));
                Some(Changed::Failed { why })
            }
            EventKind::Moved { .. } | EventKind::PeerMoved { .. } => {
                let (local, remote) = ends?;
                Some(Changed::Moved {
                    local,
                    remote,
                    server: self.servers.get(tunnel).copied().flatten(),
                })
            }
            _ => None,
        }
    }
}

/// Why, for a person. How long a call waited differs a little each time, and says nothing.
fn sentence(reason: &Reason, peer: Option<IpAddr>, up: bool) -> String {
    let Reason::NoAnswer { waited, .. } = reason else {
        return events::short(&events::steady(reason));
    };
    let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
    match up {
        true => format!("no answer{from} for {:.0} s", waited.as_secs_f32()),
        false => format!("no answer{from}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use cygnet_ike::event::Failed;
    use cygnet_ike::io::{Path, Transport};

    fn event(kind: EventKind) -> Event {
        Event {
            connection: Some("home".to_owned()),
            ike_sa: None,
            path: Some(Path {
                transport: Transport::Udp,
                local: "192.0.2.1:4500".parse().unwrap(),
                remote: "203.0.113.10:4500".parse().unwrap(),
                interface: 0,
            }),
            peer: None,
            kind,
        }
    }

    fn configured() -> Changes {
        let mut changes = Changes::default();
        changes.configure(["home", "office"].map(str::to_owned).iter());
        changes
    }

    fn came_up() -> Option<Changed> {
        Some(Changed::Up {
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "203.0.113.10:4500".parse().unwrap(),
            server: None,
        })
    }

    fn up(child: u64) -> Event {
        event(EventKind::ChildUp {
            child: ChildSaId(child),
            name: "net".to_owned(),
            suite: String::new(),
            selectors: String::new(),
            replaces: None,
            server: None,
        })
    }

    fn down(child: u64, reason: Reason) -> Event {
        event(EventKind::ChildDown {
            child: ChildSaId(child),
            name: "net".to_owned(),
            reason,
        })
    }

    fn no_answer(seconds: u64) -> Reason {
        Reason::NoAnswer {
            sent: 3,
            waited: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_tunnel_is_up_from_its_first_child_to_its_last() {
        let (mut changes, came_up) = (configured(), came_up());
        assert_eq!(changes.of("home", &up(1)), came_up);
        assert_eq!(changes.of("home", &up(2)), None);
        // New keys.
        assert_eq!(changes.of("home", &down(1, Reason::Replaced)), None);
        assert_eq!(changes.of("office", &up(3)), came_up);
        let why = "no answer from 203.0.113.10 for 8 s".to_owned();
        let went_down = Some(Changed::Down { why });
        assert_eq!(changes.of("home", &down(2, no_answer(8))), went_down);
        // One that was never told of.
        assert_eq!(changes.of("home", &down(2, no_answer(8))), None);
        assert_eq!(changes.of("home", &up(4)), came_up);
    }

    #[test]
    fn another_server_is_told_of_whether_the_tunnel_was_down_or_not() {
        let mut changes = configured();
        let by = |child, server| {
            let mut event = up(child);
            if let EventKind::ChildUp { server: by, .. } = &mut event.kind {
                *by = Some(server);
            }
            event
        };
        let failed = |reason| {
            event(EventKind::ServerFailed(Failed {
                server: "vpn.example.org (203.0.113.9)".to_owned(),
                reason,
            }))
        };
        let why = "vpn.example.org (203.0.113.9): no answer".to_owned();
        let told = Some(Changed::Failed { why });
        assert_eq!(changes.of("home", &failed(no_answer(3))), told);
        let server_of = |change| match change {
            Some(Changed::Up { server, .. }) => (true, server),
            Some(Changed::Moved { server, .. }) => (false, server),
            other => panic!("{other:?}"),
        };
        assert_eq!(server_of(changes.of("home", &by(1, 1))), (true, Some(2)));
        assert_eq!(changes.of("home", &failed(no_answer(3))), None);
        // New keys, then back to the first.
        assert_eq!(changes.of("home", &by(2, 1)), None);
        assert_eq!(server_of(changes.of("home", &by(3, 0))), (false, Some(1)));
        // Another way to it is no other server.
        let from = up(3).path.unwrap();
        let moved = event(EventKind::Moved { from });
        assert_eq!(server_of(changes.of("home", &moved)), (false, Some(1)));
    }

    #[test]
    fn a_tunnel_that_was_removed_and_is_there_again_is_told_of() {
        let mut changes = configured();
        assert_eq!(changes.of("home", &up(1)), came_up());
        changes.configure([].into_iter());
        // What ends with it ends behind the new configuration.
        assert_eq!(changes.of("home", &down(1, Reason::Operator)), None);
        assert_eq!(changes.of("home", &up(2)), None);
        assert_eq!(changes.of("home", &down(2, Reason::Operator)), None);
        changes.configure(["home".to_owned()].iter());
        assert_eq!(changes.of("home", &up(3)), came_up());
    }

    #[test]
    fn tries_that_fail_alike_are_told_alike() {
        let mut changes = configured();
        let retry = |seconds| Event {
            path: None,
            ..event(EventKind::Retry {
                after: Duration::from_secs(1),
                reason: no_answer(seconds),
            })
        };
        let failed = |why: &str| {
            let why = why.to_owned();
            Some(Changed::Failed { why })
        };
        assert_eq!(changes.of("home", &retry(4)), failed("no answer"));
        let calls = event(EventKind::Connecting { attempt: 2 });
        assert_eq!(changes.of("home", &calls), None);
        let from = failed("no answer from 203.0.113.10");
        assert_eq!(changes.of("home", &retry(4)), from);
        assert_eq!(changes.of("home", &retry(5)), from);
        changes.of("home", &up(1));
        assert_eq!(changes.of("home", &retry(4)), None, "another child fails");
    }
}

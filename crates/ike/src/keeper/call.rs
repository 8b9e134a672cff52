//! Calling a peer: the addresses of its servers are asked for and tried one after the other, again and again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::moved::Look;
use super::servers::SHARE;
use super::{Dial, Kept, Turn};
use crate::backoff::{self, Backoff};
use crate::context::Waiting;
use crate::endpoint::Endpoint;
use crate::event::{Event, EventKind, Failed, Reason};
use crate::io::{Answer, Ask, AskId};
use crate::policy::{ChildPolicy, Host, Remote, Retransmit};
use crate::sa::IkeSa;
use crate::sa::initiator::Call;
use crate::time::Instant;

/// Repetitions of a call while other addresses of the peer remain to be tried: three seconds with
/// the defaults.
const TRIES_OF_MANY: u32 = 2;
/// The addresses of one of several servers divide that time, so that it takes no longer than one with a single
/// address; but not into more parts than these, or an answer from far away is not waited for.
const MOST_PARTS: u32 = 3;
/// After a machine has slept the wait for the next call is long over: a deadline must lie ahead of the
/// moment that sets it, or it comes again at once.
const LEAST_WAIT: Duration = Duration::from_millis(1);

impl Endpoint {
    pub(super) fn keep_calling(&mut self, name: &str) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        if !kept.is_wanted() || matches!(kept.connection.remote, Remote::Any) {
            // Nothing is waited for any more.
            if matches!(kept.dial, Dial::Waiting(_) | Dial::Resolving { .. }) {
                kept.dial = Dial::Idle;
                kept.attempt = 0;
            }
            return;
        }
        match kept.dial {
            Dial::Idle => {}
            Dial::Waiting(at) if at <= now => {}
            Dial::Waiting(_) | Dial::Resolving { .. } | Dial::Dialing { .. } => return,
        }
        kept.failed.clear();
        self.resolve(name, 0);
    }

    /// Asks where this server is: its turn begins.
    fn resolve(&mut self, name: &str, server: usize) {
        let ends = self.cx.boot() + SHARE;
        let until = self.others_wait(name, server).then_some(ends);
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let who = Waiting::Keeper(name.to_owned());
        let connection = Arc::clone(&kept.connection);
        let ask = self.cx.ask(who, Ask::Resolve { connection, server });
        kept.dial = Dial::Resolving { ask, server, until };
    }

    /// Where the peer is.
    pub(crate) fn handle_resolved(&mut self, name: &str, id: AskId, answer: Answer) {
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let (ask, server, until) = match kept.dial {
            Dial::Resolving { ask, server, until } => (ask, server, until),
            Dial::Dialing {
                look: Look::Asked(ask),
                ..
            } if ask == id => return self.handle_looked(name, answer),
            _ => return,
        };
        if ask != id || self.keeper.resting {
            return;
        }
        let Answer::Paths(paths) = answer else {
            return;
        };
        match paths {
            Ok(paths) if !paths.is_empty() => {
                let ends = until.unwrap_or(self.cx.boot() + SHARE);
                self.dial(name, Turn::new(server, paths, ends));
            }
            Ok(_) => {
                let error = "the peer's name has no address that is reachable from here";
                self.call_failed(name, Reason::Unreachable(error.to_owned()));
            }
            Err(error) => self.call_failed(name, Reason::Unreachable(error)),
        }
    }

    /// Calls by the first path that is left.
    pub(super) fn dial(&mut self, name: &str, mut turn: Turn) {
        let Some(path) = turn.rest.pop_front() else {
            return;
        };
        let server = turn.server;
        let others_wait = self.others_wait(name, server);
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        // Nothing is amiss while earlier servers are asked whether they are there again.
        let asks = kept.way_back.is_asking();
        if !asks {
            kept.attempt = kept.attempt.saturating_add(1);
        }
        let attempt = kept.attempt;
        let mut replaced = kept.replacing.old.iter().filter_map(|id| {
            let old = self.sas.get(id)?.established()?;
            Some((*id, old))
        });
        let replaced = replaced.next();
        let old_child = replaced.and_then(|(_, old)| {
            let child = old.children.values().next();
            child.map(|child| Arc::clone(&child.params.policy))
        });
        let replaces = replaced.map(|(id, old)| {
            // What another server has lent says nothing of what this one may lend.
            let same = old.peering.server.is_none_or(|of| of == server);
            let lent = &old.peering.assigned.addresses;
            (id, if same { lent.clone() } else { Vec::new() })
        });
        let demand = kept.demands.first();
        let (child, packet) = match demand.and_then(|d| Some((kept.child(&d.child)?, &d.packet))) {
            Some((child, packet)) => (Some(Arc::clone(child)), packet.clone()),
            None => {
                let wanted = |c: &&Arc<ChildPolicy>| kept.wanted.contains(&c.name);
                let first = kept.connection.children.iter().find(wanted).cloned();
                (first.or(old_child), None)
            }
        };
        let call = Call {
            connection: Arc::clone(&kept.connection),
            child,
            packet,
            replaces,
            server,
        };
        if !asks {
            self.cx.event(Event {
                connection: Some(name.to_owned()),
                ike_sa: None,
                path: Some(path),
                peer: None,
                kind: EventKind::Connecting { attempt },
            });
        }
        let now = self.cx.boot();
        let several = kept.connection.remote.servers().len() > 1;
        let until = match (others_wait, turn.rest.is_empty()) {
            (true, _) => Some(turn.ends),
            // The last of them: another of its addresses may do better.
            (false, false) => several.then(|| now + SHARE),
            (false, true) => None,
        };
        let retransmit = kept.call_retransmit(now, &turn, others_wait);
        let host = kept.connection.remote.servers().get(server);
        let look = Look::first(host.map(|s| &s.host), !turn.rest.is_empty(), now);
        match IkeSa::dial(&mut self.cx, call, path, retransmit) {
            Ok(sa) => {
                let id = sa.id();
                kept.dial = Dial::Dialing {
                    sa: id,
                    turn,
                    until,
                    look,
                };
                self.insert(sa);
            }
            Err(reason) => self.call_failed(name, reason),
        }
    }

    /// A call came to nothing: the next address, or again later.
    pub(super) fn call_failed(&mut self, name: &str, reason: Reason) {
        if self.stay_with_answering(name) {
            return;
        }
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get(name) else {
            return;
        };
        let end = self.end_of_round(kept);
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let asks = kept.way_back.is_asking();
        if !asks {
            kept.why = Some(reason.clone());
        }
        let (server, called, turn) = match std::mem::replace(&mut kept.dial, Dial::Idle) {
            Dial::Dialing { sa, turn, .. } => (Some(turn.server), self.sas.get(&sa), Some(turn)),
            Dial::Resolving { server, .. } => (Some(server), None, None),
            Dial::Idle | Dial::Waiting(_) => (None, None, None),
        };
        if let Some(server) = server {
            let at = called.map(|sa| sa.channel.path.remote.ip());
            let failed = kept.failure(server, at, &reason);
            kept.note_failed(failed.clone());
            if let Some(turn) = turn.filter(|turn| !turn.rest.is_empty()) {
                return self.dial(name, turn);
            }
            if let Some(next) = kept.next_server(server, end) {
                if !asks {
                    self.tell_failed(name, failed);
                }
                return self.resolve(name, next);
            }
        }
        let silent = called.map_or(Duration::ZERO, |sa| now.since(sa.channel.last_out));
        if asks && end != usize::MAX {
            return self.stay(name);
        }
        let all = std::mem::take(&mut kept.failed);
        let reason = match all.len() {
            0 | 1 => reason,
            _ => Reason::EachServer(all),
        };
        kept.why = Some(reason.clone());
        // A packet asks again; nobody else does.
        kept.demands.clear();
        kept.dial = Dial::Idle;
        if !kept.is_wanted() {
            kept.attempt = 0;
            return;
        }
        let backoff = kept.backoff.get_or_insert_with(|| Backoff::new(now));
        // The wait counts from the last message, which had its own time for an answer.
        let after = backoff.failed(now, self.cx.random.as_mut());
        let after = after.saturating_sub(silent).max(LEAST_WAIT);
        kept.dial = Dial::Waiting(now + after);
        self.cx.event(Event {
            connection: Some(name.to_owned()),
            ike_sa: None,
            path: None,
            peer: None,
            kind: EventKind::Retry { after, reason },
        });
    }
}

impl Kept {
    /// Why this server, called at that address, does not serve.
    fn failure(&self, server: usize, at: Option<IpAddr>, reason: &Reason) -> Failed {
        let host = self.connection.remote.servers().get(server);
        let host = host.map(|server| &server.host);
        let named = host.map_or_else(String::new, Host::to_string);
        Failed {
            server: match (at, host) {
                (Some(at), Some(Host::Name(name))) => format!("{name} ({at})"),
                _ => named,
            },
            reason: reason.clone(),
        }
    }

    /// How IKE_SA_INIT is repeated: no more slowly than the peer is called, so that one that returns
    /// is met as soon. Half of that, since the wait for the last repetition and the one for the
    /// next call add up, of which the second has the random part.
    fn call_retransmit(&self, now: Instant, turn: &Turn, others_wait: bool) -> Retransmit {
        let most = self.backoff.map_or(backoff::MOST_AT_FIRST, |b| b.most(now)) / 2;
        let own = self.connection.retransmit;
        let parts = match others_wait {
            true => turn.parts.clamp(1, MOST_PARTS),
            false => 1,
        };
        Retransmit {
            first: own.first.min(most) / parts,
            most: own.most.min(most) / parts,
            tries: match others_wait || !turn.rest.is_empty() {
                true => own.tries.min(TRIES_OF_MANY),
                false => own.tries,
            },
            ..own
        }
    }
}

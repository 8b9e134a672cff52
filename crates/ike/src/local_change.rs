//! What follows when this machine's addresses or ways out change: with MOBIKE, whom we called is told
//! by which way we talk from now on (`sa::mobike`); without, it is asked whether the way still leads
//! there. It is called another way if no answer comes, and whoever waits to be called again is called now.
//!
//! The network around can bring such changes about (a router that advertises prefixes), so they only
//! ever add a message or a call: no peer is given up earlier for them, no call ends before it had
//! [`UNDISTURBED`], and for another way out nothing is done for the same peer more often than each
//! [`INTERVAL`]. An address that is lost is another matter: it is told once, and nothing goes out or
//! comes in by it any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::context::{Context, Upcall, Waiting};
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::{Answer, Ask, IkeSaId};
use crate::keeper::Dial;
use crate::sa::IkeSa;
use crate::sa::channel::Channel;
use crate::sa::established::Established;
use crate::sa::mobike::MAX_ADDRESSES;
use crate::time::Instant;

/// Between two changes of the ways out that anything is done for.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take until the peer is called anew, beside the IKE SA that there is: its
/// repetitions outlast a link that is off for a moment.
const DOUBT: Duration = Duration::from_secs(4);
/// The same with MOBIKE: it is tried by all addresses of the peer meanwhile.
const DOUBT_OF_MOVE: Duration = Duration::from_secs(10);
/// The same of the probe of a silent server, where another may serve in its place.
const DOUBT_OF_SERVER: Duration = Duration::from_secs(6);
/// How long a call may take until another way out ends it.
const UNDISTURBED: Duration = Duration::from_secs(10);
/// How old the packets may be that the data path reports.
const REPORTS: Duration = Duration::from_secs(2);

/// The way to a peer may be gone.
#[derive(Clone, Copy)]
pub(crate) struct Doubt {
    since: Instant,
    /// When the peer is called, unless it has answered.
    call_at: Option<Instant>,
}

impl Endpoint {
    /// This machine has lost the addresses `gone`; with `egress`, its ways out are others. Those who
    /// called us look after themselves: they cannot be called. With MOBIKE they are told where we are
    /// instead.
    pub(crate) fn handle_local_change(&mut self, gone: &[IpAddr], egress: bool) {
        let now = self.cx.boot();
        let has_lost = |sa: &IkeSa| gone.contains(&sa.channel.path.local.ip());
        self.cx.own_addresses.retain(|own| !gone.contains(own));
        let mut affected = Vec::new();
        let mut left = Vec::new();
        let mut mobile = BTreeSet::new();
        for sa in self.sas.values() {
            let Some(state) = sa.established() else {
                continue;
            };
            let lost = has_lost(sa);
            if state.peering.dialed && sa.channel.mobility.enabled {
                if egress || lost {
                    mobile.insert(state.peering.authenticated_as);
                }
                continue;
            }
            if lost && sa.channel.mobility.enabled {
                left.push(sa.id());
            }
            if !state.may_be_doubted() {
                continue;
            }
            let doubted = (egress || lost) && !state.is_doubted(now);
            if doubted || lost {
                affected.push((sa.id(), doubted, lost));
            }
        }
        for (id, doubted, lost) in affected {
            if doubted {
                self.change(id, |state, channel, cx| state.doubt(channel, cx));
            }
            if lost {
                // Nothing can go out by it: there is no answer to wait for.
                self.reauthenticate(id);
            }
        }
        for id in left {
            self.change(id, |state, channel, cx| {
                channel.mobility.lost = true;
                state.leave_lost_address(channel, cx);
            });
        }
        for line in mobile {
            self.ask_ways(line, true);
        }
        let names: Vec<String> = self.keeper.kept.keys().cloned().collect();
        for name in names {
            let dial = self.keeper.kept.get(&name).map(|kept| &kept.dial);
            let called = match dial {
                Some(Dial::Dialing { sa, .. }) => self.sas.get(sa),
                _ => None,
            };
            let lost = called.is_some_and(has_lost);
            if egress || lost {
                self.call_anew(&name, lost);
            }
        }
    }

    /// Asks which ways lead to any address of the peer: the one in use first, then those it has told of,
    /// then those of the configuration.
    pub(crate) fn ask_ways(&mut self, line: IkeSaId, changed: bool) {
        let Some((sa, state)) = self
            .sas_of_line(line)
            .max_by_key(|(_, state)| state.is_live())
        else {
            return;
        };
        let connection = Arc::clone(&state.peering.connection);
        let here = sa.channel.path.remote;
        // Another server is no address of this one (RFC 4555 §3.5).
        let is_peer = |place: usize| {
            connection
                .identity_of(place)
                .matches(&state.peering.peer_id)
        };
        let servers = (0..).zip(connection.remote.servers());
        let servers = servers.filter(|(place, _)| is_peer(*place));
        let configured = servers.filter_map(|(_, server)| server.host.address());
        let mut to = vec![here];
        for address in sa.channel.mobility.peer.iter().copied().chain(configured) {
            let address = SocketAddr::new(address, here.port());
            if to.len() <= MAX_ADDRESSES && !to.contains(&address) {
                to.push(address);
            }
        }
        let ask = Ask::Ways {
            connection,
            from: sa.channel.path.local.port(),
            to,
        };
        self.cx.ask(Waiting::Ways { line, changed }, ask);
    }

    pub(crate) fn handle_ways(&mut self, line: IkeSaId, changed: bool, answer: Answer) {
        let Answer::Paths(ways) = answer else {
            return;
        };
        let ways = ways.unwrap_or_default();
        let ids: Vec<_> = self.sas_of_line(line).map(|(sa, _)| sa.id()).collect();
        for id in ids {
            self.change(id, |state, channel, cx| {
                state.take_ways(channel, cx, &ways, changed);
            });
        }
    }

    /// Where peers can reach us.
    pub(crate) fn handle_own_addresses(&mut self, addresses: &[IpAddr]) {
        if self.cx.own_addresses == addresses {
            return;
        }
        self.cx.own_addresses = addresses.to_vec();
        let ids: Vec<_> = self.sas.keys().copied().collect();
        for id in ids {
            self.change(id, |state, channel, cx| {
                state.tell_addresses(channel);
                state.leave_lost_address(channel, cx);
            });
        }
    }

    /// Begins a call from its beginning, or sends the message of a new one again, unless that was
    /// done just now; `lost`: this machine has not got the address any more that it calls by.
    fn call_anew(&mut self, name: &str, lost: bool) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let lately = |at: Instant| now.since(at) < INTERVAL;
        if !lost && kept.called_anew.is_some_and(lately) {
            return;
        }
        match kept.dial {
            Dial::Idle | Dial::Resolving { .. } => return,
            Dial::Dialing { sa, .. } if !lost => {
                if let Some(sa) = self.sas.get_mut(&sa)
                    && now.since(sa.channel.since) < UNDISTURBED
                {
                    kept.called_anew = Some(now);
                    sa.channel.send_again(&mut self.cx);
                    return;
                }
            }
            Dial::Dialing { .. } | Dial::Waiting(_) => {}
        }
        kept.called_anew = Some(now);
        kept.backoff = None;
        let dial = std::mem::replace(&mut kept.dial, Dial::Idle);
        if let Dial::Dialing { sa, .. } = dial {
            let reason = "this machine's addresses changed".to_owned();
            self.delete_ike_sa(sa, Reason::Unreachable(reason));
        }
        self.keep(name);
    }
}

impl Established {
    /// Only whom we called can be called another way.
    fn may_be_doubted(&self) -> bool {
        self.peering.dialed && self.is_live()
    }

    pub(crate) fn is_doubted(&self, now: Instant) -> bool {
        let lately = |doubt: Doubt| now.since(doubt.since) < INTERVAL;
        self.doubt.is_some_and(lately)
    }

    /// Asks whether the peer lives: by the request in flight, once more, or by one of its own.
    fn doubt(&mut self, channel: &mut Channel, cx: &mut Context) {
        let now = cx.boot();
        self.doubt = Some(Doubt {
            since: now,
            call_at: Some(now + DOUBT),
        });
        match self.current {
            Some(_) => channel.send_again(cx),
            None if !self.has_inform() => self.push_probe(cx),
            None => {}
        }
    }

    /// One of several servers is silent, and has just been asked whether it lives.
    pub(crate) fn doubt_server(&mut self, cx: &Context) {
        let now = cx.boot();
        if self.doubt_ends_at().is_none() {
            self.doubt = Some(Doubt {
                since: now,
                call_at: Some(now + DOUBT_OF_SERVER),
            });
        }
    }

    /// We talk by another way, `new` or not, and the peer is to answer by it. Changes that leave the way
    /// as it was do not put off another call.
    pub(crate) fn doubt_move(&mut self, channel: &Channel, cx: &Context, new: bool) {
        let now = cx.boot();
        let unanswered = |doubt: &Doubt| channel.last_in <= doubt.since;
        let waiting = self
            .doubt
            .filter(unanswered)
            .and_then(|doubt| doubt.call_at);
        let call_at = waiting.filter(|_| !new).unwrap_or(now + DOUBT_OF_MOVE);
        self.doubt = Some(Doubt {
            since: now,
            call_at: Some(call_at),
        });
    }

    pub(crate) fn doubt_ends_at(&self) -> Option<Instant> {
        self.doubt?.call_at.filter(|_| self.is_live())
    }

    /// No answer for long enough: another way is tried. This IKE SA stays until another is up, or its
    /// own time is over.
    pub(crate) fn settle_doubt(&mut self, channel: &Channel, cx: &mut Context) {
        let now = cx.boot();
        let Some(doubt) = &mut self.doubt else {
            return;
        };
        if doubt.call_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let answered = channel.last_in > doubt.since || self.heard > doubt.since + REPORTS;
        if !answered && self.is_live() {
            cx.upcall(Upcall::Reauthenticate(channel.id));
        }
    }
}

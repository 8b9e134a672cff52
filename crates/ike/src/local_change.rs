//! What follows when this machine's addresses or ways out change: whom we called is asked whether the
//! way still leads there, and called another way if no answer comes; whoever waits to be called again
//! is called now.
//!
//! The network around can bring such changes about (a router that advertises prefixes), so they only
//! ever add a message or a call: no peer is given up earlier for them, and nothing is done for the same
//! peer more often than each [`INTERVAL`].

use std::net::IpAddr;
use std::time::Duration;

use crate::context::{Context, Upcall};
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::IkeSaId;
use crate::keeper::Dial;
use crate::sa::IkeSa;
use crate::sa::channel::Channel;
use crate::sa::established::Established;
use crate::sa::exchange::Exchange;
use crate::time::Instant;

/// Between two that anything is done for.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take until the peer is called anew, beside the IKE SA that there is: its
/// repetitions outlast a link that is off for a moment.
const DOUBT: Duration = Duration::from_secs(4);
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
    /// called us look after themselves: they cannot be called.
    pub(crate) fn handle_local_change(&mut self, gone: &[IpAddr], egress: bool) {
        let now = self.cx.boot();
        let has_lost = |sa: &IkeSa| gone.contains(&sa.channel.path.local.ip());
        let affected = self.sas.values().filter(|sa| {
            let state = sa.established();
            (egress || has_lost(sa)) && state.is_some_and(|state| state.may_be_doubted(now))
        });
        let affected: Vec<_> = affected.map(|sa| (sa.id(), has_lost(sa))).collect();
        for (id, lost) in affected {
            self.change(id, |state, channel, cx| state.doubt(channel, cx));
            if lost {
                // Nothing can go out by it: there is no answer to wait for.
                self.reauthenticate(id);
            }
        }
        let names: Vec<String> = self.keeper.kept.keys().cloned().collect();
        for name in names {
            let lost = |sa: &IkeSaId| self.sas.get(sa).is_some_and(has_lost);
            let dial = self.keeper.kept.get(&name).map(|kept| &kept.dial);
            if egress || matches!(dial, Some(Dial::Dialing { sa, .. }) if lost(sa)) {
                self.call_anew(&name);
            }
        }
    }

    /// Begins a call from its beginning.
    fn call_anew(&mut self, name: &str) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let lately = |at: Instant| now.since(at) < INTERVAL;
        if matches!(kept.dial, Dial::Idle) || kept.called_anew.is_some_and(lately) {
            return;
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
    fn may_be_doubted(&self, now: Instant) -> bool {
        let lately = |doubt: Doubt| now.since(doubt.since) < INTERVAL;
        self.peering.dialed && self.is_live() && !self.doubt.is_some_and(lately)
    }

    /// Asks whether the peer lives, once more if that is asked already. Any other request in flight
    /// does that by its own repetitions.
    fn doubt(&mut self, channel: &mut Channel, cx: &mut Context) {
        let now = cx.boot();
        self.doubt = Some(Doubt {
            since: now,
            call_at: Some(now + DOUBT),
        });
        match self.current {
            Some(Exchange::Inform) => channel.send_again(cx),
            None if !self.has_inform() => self.push_probe(cx),
            _ => {}
        }
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

//! What is to be up, and comes back for ever: connections we call, their children, and what
//! operators and traffic ask for. After every change, [`Endpoint::keep`] compares what is wanted
//! with what is there, and does the next thing.

mod call;
mod dial;
mod moved;
mod servers;
mod silent;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::endpoint::Endpoint;
use crate::event::{Event, EventKind, Failed, Reason};
use crate::io::IkeSaId;
use crate::narrowing::{Narrowing, Packet};
use crate::policy::{ChildPolicy, Connection, Remote, Start};
use crate::sa::IkeSa;
use crate::sa::established::Established;
use crate::sa::exchange::{Task, Tries};
use crate::time::Instant;
pub(crate) use dial::Dial;
use dial::Turn;
use servers::Return;
use silent::Silent;

/// An IKE SA that ends sooner than this counts as a call that failed.
const STABLE: Duration = Duration::from_secs(10);

/// How long the end that called may take to make its children, before the other end does.
const COURTESY: Duration = Duration::from_secs(3);
/// How long both serve in a reauthentication when the new one is complete: a peer may throw away what
/// it has not opened yet when the old one ends.
const OVERLAP: Duration = Duration::from_millis(500);
/// How long a predecessor serves beside a child whose peer has not shown that it can receive.
const UNREADY: Duration = Duration::from_secs(60);

/// All connections that we call.
#[derive(Default)]
pub(crate) struct Keeper {
    pub(crate) kept: BTreeMap<String, Kept>,
    /// The connection of each established IKE SA.
    pub(crate) names: BTreeMap<IkeSaId, String>,
    /// Connections that are to be looked at when nothing else is left to be done.
    changed: BTreeSet<String>,
    resting: bool,
}

/// One connection that we call.
pub(crate) struct Kept {
    pub(crate) connection: Arc<Connection>,
    /// Children that are to be up.
    pub(crate) wanted: BTreeSet<String>,
    /// The connection itself is to be up, without any child if need be.
    up: bool,
    /// Children that packets wait for.
    demands: Vec<Demand>,
    pub(crate) dial: Dial,
    pub(crate) backoff: Option<Backoff>,
    /// When the call was last begun anew because this machine's ways out changed.
    pub(crate) called_anew: Option<Instant>,
    attempt: u32,
    up_since: Option<Instant>,
    pub(crate) why: Option<Reason>,
    /// Why servers did not let us in, of those that were called since the first.
    failed: Vec<Failed>,
    way_back: Return,
    silent: Option<Silent>,
    /// Another IKE SA is to take the place of these.
    pub(crate) replacing: Replacing,
    /// When it is looked at again whatever happens.
    recheck: Option<Instant>,
    /// What peers do not take of children that packets wait for.
    narrowing: BTreeMap<String, Narrowing>,
    /// Children that failed, and when they are tried again.
    retries: BTreeMap<String, Retry>,
}

/// IKE SAs that end once another one serves in their place: they are authenticated anew, or both
/// ends have called.
#[derive(Default)]
pub(crate) struct Replacing {
    old: BTreeSet<IkeSaId>,
    /// The other one has authenticated no earlier than this: one that was there before may be about
    /// to go itself.
    since: Instant,
}

struct Demand {
    child: String,
    packet: Option<Packet>,
}

struct Retry {
    backoff: Backoff,
    at: Option<Instant>,
    /// Where it failed last.
    on: IkeSaId,
}

impl Keeper {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.resting {
            return None;
        }
        self.kept.values().filter_map(Kept::deadline).min()
    }

    /// Nothing is to be up any more.
    pub(crate) fn rest(&mut self) {
        self.resting = true;
    }
}

impl Replacing {
    /// `old` goes when one that has authenticated at `since` or later serves.
    pub(crate) fn add(&mut self, old: IkeSaId, since: Instant) {
        self.old.insert(old);
        self.since = self.since.max(since);
    }

    /// `old` has ended, or is not to be replaced any more; whether it was to be.
    fn remove(&mut self, old: IkeSaId) -> bool {
        let removed = self.old.remove(&old);
        if self.old.is_empty() {
            *self = Self::default();
        }
        removed
    }

    fn contains(&self, old: IkeSaId) -> bool {
        self.old.contains(&old)
    }

    fn is_empty(&self) -> bool {
        self.old.is_empty()
    }
}

impl Kept {
    fn new(connection: Arc<Connection>) -> Self {
        let calls = matches!(connection.remote, Remote::Hosts { .. });
        let always = |child: &&Arc<ChildPolicy>| calls && child.start == Start::Always;
        let wanted = connection.children.iter().filter(always);
        Self {
            wanted: wanted.map(|child| child.name.clone()).collect(),
            connection,
            up: false,
            demands: Vec::new(),
            dial: Dial::Idle,
            backoff: None,
            called_anew: None,
            attempt: 0,
            up_since: None,
            why: None,
            failed: Vec::new(),
            way_back: Return::default(),
            silent: None,
            replacing: Replacing::default(),
            recheck: None,
            narrowing: BTreeMap::new(),
            retries: BTreeMap::new(),
        }
    }

    fn is_wanted(&self) -> bool {
        self.up || !self.wanted.is_empty() || !self.demands.is_empty() || !self.replacing.is_empty()
    }

    /// When it is called again.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        match self.dial {
            Dial::Waiting(at) => Some(at),
            _ => None,
        }
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    fn deadline(&self) -> Option<Instant> {
        let retries = self.retries.values().filter_map(|retry| retry.at);
        let (share, look) = match self.dial {
            Dial::Resolving { until, .. } => (until, None),
            Dial::Dialing { until, look, .. } => (until, look.deadline()),
            Dial::Idle | Dial::Waiting(_) => (None, None),
        };
        let others = [
            look,
            self.next_try(),
            self.recheck,
            share,
            self.way_back.deadline(),
        ];
        retries.chain(others.into_iter().flatten()).min()
    }

    /// In the order of the configuration.
    fn child(&self, name: &str) -> Option<&Arc<ChildPolicy>> {
        self.connection.children.iter().find(|c| c.name == name)
    }
}

impl Endpoint {
    /// The established IKE SA of a connection that new things are done on: not one that is to be
    /// replaced, nor one that was there before.
    fn best_sa(&self, name: &str) -> Option<IkeSaId> {
        let kept = self.keeper.kept.get(name)?;
        let mut best: Option<&IkeSa> = None;
        for sa in self.sas.values() {
            let Some(state) = sa.established() else {
                continue;
            };
            if kept.replacing.contains(sa.id())
                || state.peering.authenticated_at < kept.replacing.since
                || !state.is_live()
                || state.peering.superseded_at.is_some()
                || state.peering.connection != kept.connection
            {
                continue;
            }
            let better = match best.and_then(IkeSa::established) {
                None => true,
                Some(other) if other.peering.dialed == state.peering.dialed => true,
                // Both ends called: both prefer the same one.
                Some(other) => state.peering.origin > other.peering.origin,
            };
            if better {
                best = Some(sa);
            }
        }
        best.map(IkeSa::id)
    }

    /// Something about a connection has changed: what is wanted is compared with what is there, but
    /// not before all that the change leads to is done. Between an IKE SA and its heir, or a Child
    /// SA and the next, there may be neither.
    pub(crate) fn keep(&mut self, name: &str) {
        self.keeper.changed.insert(name.to_owned());
    }

    /// Looks at one connection that has changed; whether there was one.
    pub(crate) fn keep_changed(&mut self) -> bool {
        let Some(name) = self.keeper.changed.pop_first() else {
            return false;
        };
        self.do_next(&name);
        true
    }

    /// Does the next thing that brings a connection up.
    fn do_next(&mut self, name: &str) {
        if self.is_resting() {
            return;
        }
        match self.best_sa(name) {
            Some(sa) => self.keep_children(name, sa),
            None => self.keep_calling(name),
        }
    }

    fn keep_children(&mut self, name: &str, sa: IkeSaId) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let replaced = || {
            let all = kept.replacing.old.iter();
            all.filter_map(|old| self.sas.get(old)?.established())
        };
        let old_children: BTreeSet<String> = replaced()
            .flat_map(|old| old.children.values().map(|c| c.name().to_owned()))
            .collect();
        if matches!(kept.dial, Dial::Waiting(_) | Dial::Resolving { .. }) {
            kept.dial = Dial::Idle;
        }
        let Some(state) = self.sas.get(&sa).and_then(IkeSa::established) else {
            return;
        };
        let narrowing = &mut kept.narrowing;
        kept.demands.retain(|demand| {
            let packet = demand.packet.as_ref();
            let met = state.child_for(&demand.child, packet).is_some();
            if met && let Some(narrowing) = narrowing.get_mut(&demand.child) {
                narrowing.accepted();
            }
            !met
        });
        let mut create = Vec::new();
        let (mut pending, mut unready) = (false, false);
        let mut overlap = None;
        for child in &kept.connection.children {
            let demand = kept
                .demands
                .iter()
                .find(|demand| demand.child == child.name);
            let needed = kept.wanted.contains(&child.name)
                || demand.is_some()
                || old_children.contains(&child.name);
            if !needed {
                continue;
            }
            let packet = demand.and_then(|demand| demand.packet.as_ref());
            if let Some(made) = state.child_for(&child.name, packet) {
                // Until we send on it, the old one has to serve.
                unready |= !made.is_sending() && now.since(made.since) < UNREADY;
                overlap = overlap.max(Some(made.since + OVERLAP));
                continue;
            }
            // Who called makes the children; we do if it does not.
            if !state.peering.dialed && now.since(state.since) < COURTESY {
                let at = state.since + COURTESY;
                kept.recheck = Some(kept.recheck.map_or(at, |other| other.min(at)));
                pending = true;
                continue;
            }
            let retry = kept.retries.get(&child.name);
            let failed = retry.is_some_and(|retry| retry.on == sa);
            pending |= !failed;
            if retry.and_then(|r| r.at).is_some_and(|at| at > now)
                || state.has_child(&child.name, packet)
            {
                continue;
            }
            create.push((Arc::clone(child), packet.cloned()));
        }
        let mut done = BTreeSet::new();
        if !kept.replacing.is_empty() {
            let overlap = overlap.filter(|until| *until > now);
            let unready_until = unready.then_some(now + UNREADY);
            let mut recheck = [unready_until, overlap].into_iter().flatten().min();
            if !pending && !unready && overlap.is_none() {
                // One that is being rekeyed has an heir soon, which is to be replaced.
                let is_live = |old: &IkeSaId| {
                    let old = self.sas.get(old).and_then(IkeSa::established);
                    old.is_some_and(Established::is_live)
                };
                done = kept.replacing.old.iter().copied().filter(is_live).collect();
            }
            for old in &done {
                kept.replacing.remove(*old);
                kept.way_back.replaced(*old, now);
            }
            if !kept.replacing.is_empty() {
                // Whatever keeps it, it is looked at again.
                recheck.get_or_insert(now + COURTESY);
            }
            let both = [kept.recheck, recheck].into_iter().flatten();
            kept.recheck = both.min();
        }
        if !create.is_empty() {
            self.change(sa, |state, _, cx| {
                for (policy, packet) in create {
                    let tries = Tries::default();
                    state.push(
                        cx,
                        Task::CreateChild {
                            policy,
                            packet,
                            tries,
                        },
                    );
                }
            });
        }
        for old in done {
            self.delete_ike_sa(old, Reason::Replaced);
        }
    }

    /// Waits are over.
    pub(crate) fn keep_all_due(&mut self) {
        let now = self.cx.boot();
        let due = |kept: &&mut Kept| kept.deadline().is_some_and(|at| at <= now);
        let mut names = Vec::new();
        let (mut late, mut earlier, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for kept in self.keeper.kept.values_mut().filter(due) {
            for retry in kept.retries.values_mut() {
                retry.at.take_if(|at| *at <= now);
            }
            kept.recheck.take_if(|at| *at <= now);
            if let Dial::Resolving { until, .. } | Dial::Dialing { until, .. } = &mut kept.dial
                && until.take_if(|at| *at <= now).is_some()
            {
                late.push(kept.connection.name.clone());
            }
            if let Dial::Dialing { look, .. } = &kept.dial
                && look.deadline().is_some_and(|at| at <= now)
            {
                moved.push(kept.connection.name.clone());
            }
            if kept.way_back.take_due(now) {
                earlier.push(kept.connection.name.clone());
            }
            names.push(kept.connection.name.clone());
        }
        for name in late {
            self.pass_over(&name);
        }
        for name in moved {
            self.look_again(&name);
        }
        for name in earlier {
            self.call_earlier(&name);
        }
        for name in names {
            self.keep(&name);
        }
    }

    /// An IKE SA is up; those it makes superfluous end.
    pub(crate) fn handle_established(&mut self, id: IkeSaId, initial_contact: bool) {
        let now = self.cx.boot();
        let Some(state) = self.sas.get(&id).and_then(IkeSa::established) else {
            return;
        };
        let name = state.peering.connection.name.clone();
        let mut outdated = false;
        match self.cx.policy.connection(&name).cloned() {
            Some(known) if known == state.peering.connection => {}
            Some(known) if known.is_renewal_of(&state.peering.connection) => {
                outdated = true;
                self.change(id, |state, _, _| state.peering.connection = known);
            }
            // The policy changed while the peer was authenticating.
            _ => return self.delete_ike_sa(id, Reason::Operator),
        }
        self.keeper.names.insert(id, name.clone());
        if self.expel_by_secret(id) {
            return;
        }
        let Some(state) = self.sas.get(&id).and_then(IkeSa::established) else {
            return;
        };
        let (live, server) = (state.is_live(), state.peering.server);
        if let Some(kept) = self.keeper.kept.get_mut(&name).filter(|_| live) {
            if matches!(kept.dial, Dial::Dialing { sa, .. } if sa == id) {
                kept.dial = Dial::Idle;
            }
            kept.arrived(server, &mut self.cx);
            kept.silent = None;
            kept.up_since = Some(now);
            // With other settings it may take what it did not.
            kept.narrowing.clear();
            kept.why = None;
            kept.attempt = 0;
        }
        if live {
            self.settle_duplicates(id, initial_contact);
            self.bound_calls(id);
            if outdated {
                self.reauthenticate(id);
            }
        }
        self.examine_next();
        self.keep(&name);
    }

    /// Takes it back: a call, or its failure.
    pub(crate) fn handle_closed(&mut self, id: IkeSaId, reason: Reason) {
        let now = self.cx.boot();
        let calling = self
            .keeper
            .kept
            .values()
            .find(|kept| matches!(kept.dial, Dial::Dialing { sa, .. } if sa == id));
        if let Some(name) = calling.map(|kept| kept.connection.name.clone()) {
            return self.call_failed(&name, reason);
        }
        let Some(name) = self.keeper.names.remove(&id) else {
            return;
        };
        if let Some(kept) = self.keeper.kept.get_mut(&name) {
            kept.replacing.remove(id);
            kept.way_back.settle(id);
            kept.settle_silent(id);
        }
        let still_up = self.best_sa(&name).is_some();
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        if reason.is_replaced() || still_up {
            return self.keep(&name);
        }
        // Who deletes an IKE SA that lacks its child has said before what was wrong with the child.
        let reason = match &kept.why {
            Some(why)
                if reason == Reason::DeletedByPeer
                    && kept.retries.values().any(|retry| retry.on == id) =>
            {
                why.clone()
            }
            _ => reason,
        };
        kept.why = Some(reason.clone());
        let stable = kept
            .up_since
            .take()
            .is_some_and(|since| now.since(since) >= STABLE);
        if stable {
            kept.backoff = None;
            self.keep(&name);
        } else if matches!(kept.dial, Dial::Idle) {
            self.call_failed(&name, reason);
        }
    }

    pub(crate) fn handle_child_up(&mut self, sa: IkeSaId, child: &str) {
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        if let Some(kept) = self.keeper.kept.get_mut(&name) {
            kept.retries.remove(child);
            kept.backoff = None;
        }
        self.keep(&name);
    }

    pub(crate) fn handle_child_failed(&mut self, sa: IkeSaId, child: &str, reason: Reason) {
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        kept.demands.retain(|demand| demand.child != child);
        if self.stays_away(&name, sa, &reason) {
            return;
        }
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        kept.why = Some(reason.clone());
        let after = self.retry_child(&name, sa, child);
        if let Some(after) = after {
            self.cx.event(Event {
                connection: Some(name.clone()),
                ike_sa: Some(sa),
                path: None,
                peer: None,
                kind: EventKind::Retry { after, reason },
            });
        }
        self.keep(&name);
    }

    /// Notes that a child failed; when it is tried again, if it is wanted.
    fn retry_child(&mut self, name: &str, on: IkeSaId, child: &str) -> Option<Duration> {
        let now = self.cx.boot();
        let kept = self.keeper.kept.get_mut(name)?;
        let wanted = kept.wanted.contains(child);
        if !wanted && kept.replacing.is_empty() {
            return None;
        }
        let retry = kept
            .retries
            .entry(child.to_owned())
            .or_insert_with(|| Retry {
                backoff: Backoff::new(now),
                at: None,
                on,
            });
        let after = retry.backoff.failed(now, self.cx.random.as_mut());
        retry.on = on;
        retry.at = Some(now + after);
        wanted.then_some(after)
    }

    pub(crate) fn handle_child_down(&mut self, sa: IkeSaId, child: &str, reason: &Reason) {
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        // When both ends make one, the one that loses goes, and nothing has failed.
        let state = self.sas.get(&sa).and_then(IkeSa::established);
        let lacks = state.is_some_and(|state| !state.has_child(child, None));
        if *reason == Reason::DeletedByPeer && lacks {
            // Not at once: the peer had a reason.
            self.retry_child(&name, sa, child);
        }
        self.keep(&name);
    }

    /// A packet wants a child.
    pub(crate) fn handle_acquire(&mut self, name: &str, child: &str, packet: Option<Packet>) {
        let now = self.cx.boot();
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        if let (Some(packet), Some(narrowing)) = (&packet, kept.narrowing.get(child))
            && !narrowing.allows(packet, now)
        {
            return;
        }
        let known = kept.child(child).is_some();
        if known && !kept.demands.iter().any(|demand| demand.child == child) {
            let child = child.to_owned();
            kept.demands.push(Demand { child, packet });
        }
        self.keep(name);
    }

    /// The peer has narrowed a packet away that a child was made for.
    pub(crate) fn handle_narrowed(&mut self, sa: IkeSaId, child: &str, packet: &Packet) {
        let now = self.cx.boot();
        let Some(name) = self.keeper.names.get(&sa).cloned() else {
            return;
        };
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        let meant =
            |demand: &Demand| demand.child == child && demand.packet.as_ref() == Some(packet);
        kept.demands.retain(|demand| !meant(demand));
        let narrowing = kept.narrowing.entry(child.to_owned()).or_default();
        narrowing.refused(packet, now, self.cx.random.as_mut());
        self.keep(&name);
    }

    /// RFC 7296 §2.8.3: a new IKE SA first, then the end of the old.
    pub(crate) fn reauthenticate(&mut self, id: IkeSaId) {
        let now = self.cx.boot();
        // One that has been replaced already is about to go.
        let may = self
            .sas
            .get(&id)
            .and_then(IkeSa::established)
            .is_some_and(|s| s.peering.dialed && s.peering.superseded_at.is_none());
        let Some(name) = self.keeper.names.get(&id).cloned().filter(|_| may) else {
            return;
        };
        let Some(kept) = self.keeper.kept.get_mut(&name) else {
            return;
        };
        // Whoever is being called, all are from now on.
        kept.way_back.settle(id);
        kept.settle_silent(id);
        if !kept.replacing.contains(id) {
            kept.replacing.add(id, now);
            kept.retries.clear();
            self.keep(&name);
        }
    }

    /// An IKE SA that is being replaced has been rekeyed.
    pub(crate) fn line_goes_on(&mut self, from: IkeSaId, to: IkeSaId) {
        let now = self.cx.boot();
        for kept in self.keeper.kept.values_mut() {
            let since = kept.replacing.since;
            if kept.replacing.remove(from) {
                kept.replacing.add(to, since);
                kept.way_back.goes_on(from, to);
                kept.silent_goes_on(from, to);
                kept.recheck = Some(now);
            }
        }
    }
}

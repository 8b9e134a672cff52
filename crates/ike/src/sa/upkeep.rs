//! What an established IKE SA does by the clock and at the word of the data path: lifetimes, signs
//! of life, keepalives, changed paths; and how it ends or leaves all it holds to another.

use std::collections::BTreeSet;
use std::time::Duration;

use cygnet_wire::natt::KEEPALIVE;
use cygnet_wire::payload::Payload;

use crate::context::{Context, Upcall};
use crate::event::{EventKind, Reason};
use crate::io::{ChildSaId, DataEvent, IkeSaId};
use crate::sa::channel::Channel;
use crate::sa::child::ChildState;
use crate::sa::established::{Established, Estate, HINT_INTERVAL, Life};
use crate::sa::exchange::{Exchange, Task, Tasks, Tries};
use crate::sa::{State, closed};
use crate::time::Instant;

/// How long a redundant IKE SA waits for the peer to delete it.
const REDUNDANT: Duration = Duration::from_secs(10);

impl Established {
    pub(crate) fn handle_timeout(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> State {
        let now = cx.boot();
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if let Life::Provisional { until, .. } = self.life
            && until.is_some_and(|until| until <= now)
        {
            // The peer was to delete it, and has not (RFC 7296 §2.8.2).
            return self.end(channel, cx, Reason::Replaced);
        }
        if let Life::Replaced { until } = self.life
            && until <= now
            && self.current.is_none()
        {
            let reason = Reason::Replaced;
            self.push(cx, Task::DeleteIke { reason });
        }
        if due(&mut self.expires_at) && self.life == Life::Live {
            let reason = Reason::Expired;
            self.push(cx, Task::DeleteIke { reason });
        }
        if due(&mut self.rekey_at) && self.is_live() {
            self.push_rekey_ike(cx);
        }
        if channel.window.is_exhausted() && self.is_live() {
            self.push_rekey_ike(cx);
        }
        let superseded_at = self.peering.superseded_at;
        if superseded_at.is_some_and(|at| at <= now) && self.is_live() {
            cx.upcall(Upcall::Superseded(channel.id));
        }
        if due(&mut self.peering.reauthenticate_at) && self.is_live() {
            cx.upcall(Upcall::Reauthenticate(channel.id));
        }
        let mut rekey = Vec::new();
        let mut expired = Vec::new();
        for child in self.children.values_mut() {
            if due(&mut child.expires_at) {
                expired.push(child.id());
            } else if due(&mut child.rekey_at) {
                rekey.push(child.id());
            }
        }
        for child in expired {
            self.expire_child(cx, child);
        }
        for child in rekey {
            self.push_rekey_child(cx, child);
        }
        self.settle_doubt(channel, cx);
        self.mind_silence(channel, cx);
        self.seek_ways(channel, cx);
        self.probe(channel, cx);
        if self.keepalive_at(channel).is_some_and(|at| at <= now) {
            channel.transmit(cx, channel.path, &[KEEPALIVE.to_vec()]);
        }
        self.proceed(channel, cx)
    }

    pub(crate) fn deadline(&self, channel: &Channel) -> Option<Instant> {
        let life = match self.life {
            Life::Provisional { until, .. } => until,
            Life::Replaced { until } => Some(until).filter(|_| self.current.is_none()),
            Life::Live | Life::Deleting => None,
        };
        let tasks = self.tasks.deadline().filter(|_| self.current.is_none());
        [
            life,
            tasks,
            self.expires_at,
            self.rekey_at,
            self.peering.reauthenticate_at,
            self.peering.superseded_at.filter(|_| self.is_live()),
            self.probe_at(channel),
            self.doubt_ends_at(),
            self.silence_at(channel),
            self.keepalive_at(channel),
            self.size_probe_at(channel),
        ]
        .into_iter()
        .chain(self.children.values().map(|child| child.deadline()))
        .flatten()
        .min()
    }

    pub(crate) fn push_rekey_ike(&mut self, cx: &Context) {
        let under_way = matches!(self.current, Some(Exchange::RekeyIke(_)))
            || self
                .tasks
                .iter()
                .any(|t| matches!(t, Task::RekeyIke { .. }));
        if !under_way {
            let tries = Tries::default();
            self.push(cx, Task::RekeyIke { tries });
        }
    }

    pub(crate) fn push_rekey_child(&mut self, cx: &Context, child: ChildSaId) {
        let under_way = matches!(
            &self.current,
            Some(Exchange::CreateChild(create)) if create.replaces == Some(child)
        ) || (self.tasks.iter())
            .any(|task| matches!(task, Task::RekeyChild { child: c, .. } if *c == child));
        let installed =
            (self.children.get(&child)).is_some_and(|c| c.state == ChildState::Installed);
        if installed && !under_way {
            let tries = Tries::default();
            self.push(cx, Task::RekeyChild { child, tries });
        }
    }

    /// The operator wants this child no more.
    pub(crate) fn take_child_down(&mut self, cx: &Context, name: &str) {
        let of_name =
            |task: &Task| matches!(task, Task::CreateChild { policy, .. } if policy.name == name);
        self.tasks.retain(|task| !of_name(task));
        if let Some(Exchange::CreateChild(create)) = &mut self.current
            && create.policy.name == name
        {
            create.unwanted = true;
        }
        let children = self
            .children
            .values()
            .filter(|child| child.name() == name && child.state != ChildState::Closing);
        let children: BTreeSet<_> = children.map(|child| child.id()).collect();
        if !children.is_empty() {
            self.push_delete(cx, children, Reason::Operator);
        }
    }

    fn expire_child(&mut self, cx: &mut Context, child: ChildSaId) {
        let Some(expired) = self.children.get_mut(&child) else {
            return;
        };
        let reason = match expired.state {
            ChildState::Installed => Reason::Expired,
            // The peer was to delete it and did not.
            ChildState::Replaced | ChildState::Redundant => Reason::Replaced,
            ChildState::Closing => return,
        };
        expired.forgotten = true;
        expired.stop_sending(cx);
        self.push_delete(cx, BTreeSet::from([child]), reason);
    }

    /// When silence makes us ask whether the peer lives (RFC 7296 §2.4). While a request is in
    /// flight it does that; and an IKE SA that the peer may not know of yet cannot be asked on.
    fn probe_at(&self, channel: &Channel) -> Option<Instant> {
        let liveness = self.peering.connection.liveness;
        let idle = self.current.is_none() && !self.has_inform();
        let at = (self.heard + liveness).max(self.known_at(channel));
        (self.life == Life::Live && idle && !liveness.is_zero()).then_some(at)
    }

    fn probe(&mut self, channel: &Channel, cx: &Context) {
        if self.probe_at(channel).is_some_and(|at| at <= cx.boot()) {
            self.push_probe(cx);
            if self.peering.place().is_some() {
                self.doubt_server(cx);
            }
        }
    }

    pub(crate) fn push_probe(&mut self, cx: &Context) {
        let payloads = Vec::new();
        self.push(cx, Task::Inform { payloads });
    }

    pub(crate) fn has_inform(&self) -> bool {
        self.tasks.iter().any(|t| matches!(t, Task::Inform { .. }))
    }

    /// Something without protection says that the peer may be gone: asks it, now and then
    /// (RFC 7296 §2.21.4). `payloads` tell it why.
    pub(crate) fn hint(&mut self, cx: &Context, payloads: Vec<Payload<'static>>) {
        if self.may_be_hinted(cx.boot()) {
            self.hinted = Some(cx.boot());
            self.push(cx, Task::Inform { payloads });
        }
    }

    /// Whether it would make us ask.
    pub(crate) fn may_be_hinted(&self, now: Instant) -> bool {
        let lately = self.hinted.is_some_and(|at| now.since(at) < HINT_INTERVAL);
        !lately && self.is_live() && self.current.is_none() && !self.has_inform()
    }

    /// RFC 3948 §4: only who is behind a NAT, and only when nothing else went out.
    fn keepalive_at(&self, channel: &Channel) -> Option<Instant> {
        let interval = self.peering.connection.keepalive;
        let needed = channel.nat.needs_keepalives()
            && !interval.is_zero()
            && matches!(self.life, Life::Live);
        needed.then(|| channel.last_out.max(self.sealed) + interval)
    }

    /// What the data path says of a child of this IKE SA.
    pub(crate) fn handle_data(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        event: &DataEvent,
    ) {
        match event {
            DataEvent::SoftLimit { child } => self.push_rekey_child(cx, *child),
            DataEvent::HardLimit { child } => self.expire_child(cx, *child),
            DataEvent::FirstAuthenticated { child } => {
                self.data_heard(channel, cx);
                self.child_peer_ready(channel, cx, *child);
            }
            DataEvent::PeerMoved { path, .. } if channel.mobility.enabled => {
                self.seen_by(channel, cx, *path);
            }
            DataEvent::PeerMoved { path, .. } => {
                self.data_heard(channel, cx);
                match channel.follow(*path) {
                    Some(from) => self.follow_peer(channel, cx, from),
                    None => self.esp_follows(channel, cx),
                }
            }
            DataEvent::LastInbound { .. } => self.data_heard(channel, cx),
            DataEvent::LastOutbound { .. } => self.data_sent(cx.boot()),
            DataEvent::Acquire { .. }
            | DataEvent::LocalChange { .. }
            | DataEvent::OwnAddresses { .. }
            | DataEvent::UnknownSpi { .. }
            | DataEvent::PathMtu { .. } => {}
        }
    }

    /// Whether we send on `child` from now on, because its peer can receive.
    pub(crate) fn child_peer_ready(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        child: ChildSaId,
    ) -> bool {
        let made = self.children.get_mut(&child);
        let switched = made.is_some_and(|made| made.peer_ready(cx));
        if switched {
            self.end_yielding(cx, child);
            cx.upcall(Upcall::Reconsider(channel.id));
        }
        switched
    }

    /// A further request of the peer: it has our responses to those before, and what they promised.
    /// (Both windows have the size 1.)
    pub(crate) fn peer_goes_on(&mut self, channel: &Channel, cx: &mut Context) {
        let ids: Vec<_> = self.children.keys().copied().collect();
        for id in ids {
            self.child_peer_ready(channel, cx, id);
        }
    }

    /// The data path could not begin to send on a child.
    pub(crate) fn switch_failed(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        child: ChildSaId,
        error: &str,
    ) {
        let reason = Reason::Local(format!("the Child SA could not be switched to: {error}"));
        cx.event(self.event(
            channel,
            EventKind::Refused {
                reason: reason.clone(),
            },
        ));
        self.push_delete(cx, BTreeSet::from([child]), reason);
    }

    /// Another one has won: the peer deletes this one, or has forgotten it.
    pub(crate) fn make_redundant(&mut self, cx: &Context) {
        if let Life::Provisional { until, .. } = &mut self.life {
            *until = Some(cx.boot() + REDUNDANT);
        }
    }

    /// All it holds, for `heir`, the IKE SA that follows it, once. It waits for its own DELETE then.
    pub(crate) fn bequeath(&mut self, cx: &Context, heir: IkeSaId) -> Option<Estate> {
        if std::mem::replace(&mut self.bequeathed, true) {
            return None;
        }
        self.heir = Some(heir);
        let until = Self::patience(cx);
        if self.life == Life::Live {
            self.life = Life::Replaced { until };
        }
        let end = self.tasks.take_end().or_else(|| match &self.current {
            Some(Exchange::DeleteIke { reason }) => Some(reason.clone()),
            _ => None,
        });
        Some(Estate {
            children: std::mem::take(&mut self.children),
            tasks: self.tasks.take_of_children(),
            end,
            peering: self.peering.clone(),
            heard: self.heard,
            sealed: self.sealed,
        })
    }

    /// Takes over what another held.
    pub(crate) fn inherit(&mut self, channel: &Channel, cx: &mut Context, estate: Estate) {
        self.life = Life::Live;
        self.bequeathed = false;
        for (id, mut child) in estate.children {
            child.moved_to(cx, channel.id);
            self.children.insert(id, child);
        }
        self.tasks.append(estate.tasks);
        self.heard = self.heard.max(estate.heard);
        self.sealed = self.sealed.max(estate.sealed);
        // What changed since the two were one.
        self.peering.reauthenticate_at = estate.peering.reauthenticate_at;
        self.peering.superseded_at = estate.peering.superseded_at;
        for child in self.children.values_mut() {
            child.follow(cx, channel.esp_path());
        }
        if let Some(reason) = estate.end {
            self.push(cx, Task::DeleteIke { reason });
        }
    }

    /// It never held anything: another one was made in its place.
    pub(crate) fn mark_bequeathed(&mut self) {
        self.bequeathed = true;
    }

    /// The peer counts as gone, which of one that another has replaced is no news.
    pub(crate) fn give_up(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        let own = match &self.current {
            Some(Exchange::DeleteIke { reason }) => Some(reason.clone()),
            _ => self.tasks.take_end(),
        };
        let reason = match own {
            Some(Reason::Replaced) => Reason::ReplacedUnanswered,
            _ => reason,
        };
        self.end(channel, cx, reason)
    }

    /// The end: nothing of it stays but packets in flight.
    pub(crate) fn end(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        match self.current.take() {
            Some(Exchange::CreateChild(create)) => create.abandon(cx),
            Some(Exchange::RekeyIke(mut ours)) => {
                // The peer's own rekey stands, if it made one.
                if let Some(to) = ours.take_provisional() {
                    self.hand_over(cx, to);
                }
            }
            _ => {}
        }
        if let Life::Provisional { of, .. } = self.life {
            let heir = channel.id;
            cx.upcall(Upcall::Disinherited { of, heir });
        }
        if let Some(heir) = self.heir {
            cx.upcall(Upcall::Outlived(heir));
        }
        if let Some(serving) = self.serving.take() {
            serving.abandon(cx);
        }
        for (_, child) in std::mem::take(&mut self.children) {
            child.remove(cx, channel.id, &self.peering, reason.clone());
        }
        if !self.bequeathed {
            self.peering.release(cx);
        }
        let reason = if self.bequeathed {
            Reason::Replaced
        } else {
            reason
        };
        cx.event(self.event(
            channel,
            EventKind::IkeDown {
                reason: reason.clone(),
            },
        ));
        self.tasks = Tasks::default();
        closed(channel, cx, reason)
    }
}

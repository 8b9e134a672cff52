//! An IKE SA whose two ends are authenticated: it holds Child SAs, does one task after the other,
//! answers the peer, and watches the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use cygnet_wire::header::ExchangeType;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;

use crate::context::{Context, Upcall};
use crate::event::{EventKind, Reason};
use crate::io::{Answer, AskId, ChildSaId, IkeSaId, Path};
use crate::keys::Role;
use crate::lifetime::Deadlines;
use crate::local_change::Doubt;
use crate::narrowing::Packet;
use crate::refusal;
use crate::sa::channel::{Channel, Inbound};
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::exchange::{Exchange, Serving, Task, Tasks};
use crate::sa::negotiate::{notify, syntax_notify};
use crate::sa::silence::Silence;
use crate::sa::{Peering, State};
use crate::time::Instant;

/// How long an IKE SA that has been replaced waits for the peer to delete it, once the peer has used
/// the one in its place.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same before: our response may be what is lost, and comes again for as long as the peer repeats
/// its request (strongSwan: 165 s).
const UNHEARD: Duration = Duration::from_secs(180);
/// How often messages without protection may make us ask whether the peer lives
/// (RFC 7296 §2.21.4).
pub(crate) const HINT_INTERVAL: Duration = Duration::from_secs(10);

/// When to see whether a Child SA that is being made for the peer is done.
const LATER: Duration = Duration::from_millis(200);

/// The established state.
pub(crate) struct Established {
    pub(crate) peering: Peering,
    pub(crate) life: Life,
    pub(crate) tasks: Tasks,
    pub(crate) current: Option<Exchange>,
    pub(crate) serving: Option<Serving>,
    pub(crate) children: BTreeMap<ChildSaId, ChildSa>,
    pub(crate) since: Instant,
    pub(crate) replaces: Option<IkeSaId>,
    /// The predecessor, until the peer has used this one.
    untold: Option<IkeSaId>,
    /// The one in its place.
    pub(crate) heir: Option<IkeSaId>,
    /// A request that arrived before the children were inherited.
    held: Option<Inbound>,
    /// Another IKE SA holds all that this one held, or was to hold.
    pub(crate) bequeathed: bool,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) expires_at: Option<Instant>,
    /// The peer's last sign of life, by IKE or ESP.
    pub(crate) heard: Instant,
    /// What we last sealed.
    pub(crate) sealed: Instant,
    pub(crate) hinted: Option<Instant>,
    pub(crate) doubt: Option<Doubt>,
    pub(crate) silence: Silence,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// In use.
    Live,
    /// Made by the peer while we rekey the same IKE SA, `of`: one of the two will inherit. It stays
    /// for as long as our request is in flight, and ends at `until` if it has lost.
    Provisional { of: IkeSaId, until: Option<Instant> },
    /// Rekeyed; the peer is to delete it, or we do after a while.
    Replaced { until: Instant },
    /// We have asked the peer to delete it.
    Deleting,
}

/// What an IKE SA leaves to its successor.
pub(crate) struct Estate {
    pub(crate) children: BTreeMap<ChildSaId, ChildSa>,
    pub(crate) tasks: Tasks,
    /// It was about to be deleted: now its heir is.
    pub(crate) end: Option<Reason>,
    pub(crate) peering: Peering,
    pub(crate) heard: Instant,
    pub(crate) sealed: Instant,
}

impl Established {
    pub(crate) fn new(
        cx: &mut Context,
        peering: Peering,
        life: Life,
        replaces: Option<IkeSaId>,
    ) -> Self {
        let now = cx.boot();
        let mut due = Deadlines::new(&peering.connection.lifetime, now, cx.random.as_mut());
        if let (Some(not_after), Some(utc)) = (peering.not_after, cx.now.utc) {
            let end = now + utc.until(not_after);
            // A rekey authenticates nobody: it does not prolong a certificate.
            due = due.ending_by(end);
            if due.soft == end {
                due.soft = due.hard;
            }
        }
        Self {
            peering,
            life,
            tasks: Tasks::default(),
            current: None,
            serving: None,
            children: BTreeMap::new(),
            since: now,
            replaces,
            untold: replaces,
            heir: None,
            held: None,
            // It owns nothing until it inherits.
            bequeathed: matches!(life, Life::Provisional { .. }),
            rekey_at: Some(due.soft),
            expires_at: Some(due.hard),
            heard: now,
            sealed: now,
            hinted: None,
            doubt: None,
            silence: Silence::new(now),
        }
    }

    /// Replaced just now: until when the peer may delete it.
    pub(crate) fn patience(cx: &Context) -> Instant {
        cx.boot() + UNHEARD
    }

    /// The peer uses the one in its place: it knows that this one is to be deleted.
    pub(crate) fn make_known(&mut self, cx: &Context) {
        if let Life::Replaced { until } = &mut self.life {
            *until = (*until).min(cx.boot() + PATIENCE);
        }
    }

    /// When the peer knows of this one at the latest. Who answered the rekey learns it by a message
    /// on this one, or by the end of its predecessor; who began it has the response.
    pub(crate) fn known_at(&self, channel: &Channel) -> Instant {
        match (channel.role, self.untold) {
            (Role::Responder, Some(_)) => self.since + UNHEARD,
            _ => self.since,
        }
    }

    /// Its predecessor has ended.
    pub(crate) fn outlive(&mut self) {
        self.untold = None;
    }

    /// An authenticated message of the peer.
    fn hear(&mut self, channel: &Channel, cx: &mut Context) {
        self.heard = self.heard.max(cx.boot());
        self.end_silence(channel, cx);
        // One that has lost to another says nothing about that.
        if let Some(predecessor) = self.untold.take_if(|_| !self.bequeathed) {
            cx.upcall(Upcall::Known(predecessor));
        }
    }

    /// Whether new exchanges that make something may begin on it.
    pub(crate) fn is_live(&self) -> bool {
        self.life == Life::Live
            && !matches!(self.current, Some(Exchange::DeleteIke { .. }))
            && !self
                .tasks
                .iter()
                .any(|t| matches!(t, Task::DeleteIke { .. }))
    }

    pub(crate) fn event(&self, channel: &Channel, kind: EventKind) -> crate::event::Event {
        self.peering.event(channel.id, channel.path, kind)
    }

    /// A child of that name is there that carries the packet, or one of that name is on the way.
    pub(crate) fn has_child(&self, name: &str, packet: Option<&Packet>) -> bool {
        self.child_for(name, packet).is_some()
            || matches!(&self.current, Some(Exchange::CreateChild(c)) if c.policy.name == name)
            || self
                .tasks
                .iter()
                .any(|task| matches!(task, Task::CreateChild { policy, .. } if policy.name == name))
    }

    /// The newest child of that name that is in use.
    pub(crate) fn child_named(&self, name: &str) -> Option<&ChildSa> {
        self.child_for(name, None)
    }

    /// The newest child of that name that is in use and carries the packet.
    pub(crate) fn child_for(&self, name: &str, packet: Option<&Packet>) -> Option<&ChildSa> {
        let fits = |child: &&ChildSa| {
            child.state == ChildState::Installed && child.name() == name && child.carries(packet)
        };
        self.children.values().rev().find(fits)
    }

    /// Does what is to be done, as far as nothing is in flight.
    pub(crate) fn proceed(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        if self.life == Life::Live
            && let Some(inbound) = self.held.take()
        {
            return self.handle_request(channel, cx, inbound);
        }
        while self.current.is_none() {
            if let Err(reason) = self.start_path_exchange(channel, cx) {
                return self.end(channel, cx, reason);
            }
            if self.current.is_some() {
                break;
            }
            let Some(task) = self.tasks.pop(cx.boot()) else {
                self.probe_size(channel, cx);
                break;
            };
            if let Err(reason) = self.start(channel, cx, task) {
                return self.end(channel, cx, reason);
            }
        }
        State::Established(self)
    }

    fn start(&mut self, channel: &mut Channel, cx: &mut Context, task: Task) -> Result<(), Reason> {
        match task {
            Task::DeleteIke { reason } => self.start_delete_ike(channel, cx, reason),
            // RFC 7296 §2.8: after it is rekeyed, the last request is its own DELETE.
            _ if self.life != Life::Live => Ok(()),
            // The peer was first: when that is done, it is known whether this is still needed.
            task if self.serving.as_ref().is_some_and(|s| s.precedes(&task)) => {
                self.tasks.push_at(cx.boot() + LATER, task);
                Ok(())
            }
            Task::CreateChild {
                policy,
                packet,
                tries,
            } => {
                self.start_create(channel, cx, policy, None, packet, tries);
                Ok(())
            }
            Task::RekeyChild { child, tries } => {
                self.start_rekey_child(channel, cx, child, tries);
                Ok(())
            }
            Task::DeleteChildren {
                children,
                spis,
                reason,
            } => self.start_delete_children(channel, cx, children, &spis, reason),
            Task::RekeyIke { tries } => self.start_rekey_ike(channel, cx, tries),
            Task::Inform { mut payloads } => {
                if payloads.is_empty() {
                    payloads = self.ask_mapping(channel);
                }
                channel.send_request(cx, ExchangeType::INFORMATIONAL, payloads)?;
                self.current = Some(Exchange::Inform);
                Ok(())
            }
        }
    }

    /// To be done as soon as nothing else is.
    pub(crate) fn push(&mut self, cx: &Context, task: Task) {
        self.tasks.push_at(cx.boot(), task);
    }

    pub(crate) fn handle_request(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        inbound: Inbound,
    ) -> State {
        self.hear(channel, cx);
        if let Some(from) = inbound.moved_from {
            self.follow_peer(channel, cx, from);
        }
        let path = inbound.path;
        let contents = match inbound.contents {
            Ok(contents) => contents,
            Err(error) => return self.refuse_syntax(channel, cx, inbound.exchange, path, &error),
        };
        if inbound.exchange != ExchangeType::INFORMATIONAL {
            self.seen_by(channel, cx, path);
        }
        if let Life::Provisional { of, .. } = self.life
            && !contents.deletes_ike_sa()
        {
            // The peer uses it, so it counts ours for lost (RFC 7296 §2.8.2).
            cx.upcall(Upcall::Inherit {
                from: of,
                to: channel.id,
            });
            self.held = Some(Inbound {
                contents: Ok(contents),
                moved_from: None,
                ..inbound
            });
            return State::Established(self);
        }
        if self.life == Life::Live {
            // What is to be deleted does not begin to send.
            if contents.deletes.is_empty() {
                self.peer_goes_on(channel, cx);
            }
        }
        match inbound.exchange {
            ExchangeType::CREATE_CHILD_SA => {
                self.serve_create_child_sa(channel, cx, path, contents)
            }
            ExchangeType::INFORMATIONAL => self.serve_informational(channel, cx, path, contents),
            other => {
                let error = format!("{other} has no place in an established IKE SA");
                self.answer(
                    channel,
                    cx,
                    other,
                    path,
                    vec![notify(NotifyType::INVALID_SYNTAX)],
                );
                self.end(channel, cx, Reason::Protocol(error))
            }
        }
    }

    fn refuse_syntax(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        exchange: ExchangeType,
        path: Path,
        error: &cygnet_wire::ParseError,
    ) -> State {
        let answer = syntax_notify(error);
        self.answer(channel, cx, exchange, path, vec![answer]);
        // RFC 7296 §2.21.3: INVALID_SYNTAX ends the IKE SA at both ends.
        if error.notify_type() == NotifyType::INVALID_SYNTAX {
            let reason = Reason::Protocol(format!("the peer's request is malformed: {error}"));
            return self.end(channel, cx, reason);
        }
        self.proceed(channel, cx)
    }

    /// Sends the response to the request being worked on. One that cannot be sealed is a lifetime
    /// that ended: the peer repeats its request until it gives up.
    pub(crate) fn answer(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        exchange: ExchangeType,
        path: Path,
        payloads: Vec<Payload<'static>>,
    ) {
        if let Err(reason) = channel.respond(cx, exchange, path, payloads) {
            cx.event(self.event(channel, EventKind::Refused { reason }));
        }
    }

    pub(crate) fn handle_response(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        inbound: Inbound,
    ) -> State {
        self.hear(channel, cx);
        if let Some(from) = inbound.moved_from {
            self.follow_peer(channel, cx, from);
        }
        self.take_way(channel, cx, inbound.path);
        let contents = match (inbound.contents, &self.current) {
            (Ok(contents), _) => contents,
            (Err(_), Some(Exchange::DeleteIke { .. })) => Default::default(),
            (Err(error), _) => {
                // RFC 7296 §2.21: nothing is said about it, but the state is cleaned up.
                let error = format!("the peer's response is malformed: {error}");
                let reason = Reason::Protocol(error);
                match self.current.take() {
                    Some(Exchange::CreateChild(create)) => create.abandon(cx),
                    Some(Exchange::RekeyIke(mut ours)) => {
                        // The peer's own rekey stands, if it made one.
                        if let Some(to) = ours.take_provisional() {
                            self.stand_down(channel, cx, to, &reason);
                        }
                    }
                    _ => {}
                }
                self.push(cx, Task::DeleteIke { reason });
                return self.proceed(channel, cx);
            }
        };
        if let Some(error) = contents.notify(NotifyType::INVALID_SYNTAX) {
            // RFC 7296 §2.21.3: it ends the IKE SA at both ends.
            let reason = refusal::reason(error, String::new);
            return self.end(channel, cx, reason);
        }
        match self.current.take() {
            Some(Exchange::CreateChild(create)) => {
                self.handle_create_response(channel, cx, create, contents);
            }
            Some(Exchange::RekeyIke(rekey)) => {
                self.handle_rekey_ike_response(channel, cx, *rekey, contents);
            }
            Some(Exchange::DeleteChildren { children, reason }) => {
                self.handle_delete_response(channel, cx, children, &reason);
            }
            Some(Exchange::DeleteIke { reason }) => return self.end(channel, cx, reason),
            Some(Exchange::Path(exchange)) => {
                self.handle_path_response(channel, cx, exchange, &contents);
            }
            Some(Exchange::SizeProbe(sent)) => self.handle_size_probe(channel, cx, sent),
            Some(Exchange::Inform) => self.compare_mapping(channel, &contents),
            None => {}
        }
        self.proceed(channel, cx)
    }

    pub(crate) fn handle_answer(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        id: AskId,
        answer: Answer,
    ) -> State {
        if matches!(&self.current, Some(Exchange::CreateChild(create)) if create.waits_for(id)) {
            if let Some(Exchange::CreateChild(create)) = self.current.take() {
                self.handle_create_answer(channel, cx, create, answer);
            }
        } else if self.serving.as_ref().is_some_and(|s| s.waits_for(id)) {
            if let Some(serving) = self.serving.take() {
                self.handle_serving_answer(channel, cx, serving, answer);
            }
        } else {
            cx.discard(answer);
        }
        self.proceed(channel, cx)
    }
}

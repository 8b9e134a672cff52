//! CREATE_CHILD_SA for a Child SA, asked for by the peer (RFC 7296 §1.3.1, §1.3.3, §2.25.1).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Secret;
use cygnet_crypto::suite::Group;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::{ProposalSpi, ProtocolId, SaPayload, TransformId};

use crate::context::{Context, Upcall, Waiting};
use crate::event::{EventKind, Reason};
use crate::io::{Answer, AskId, ChildSaId, DataCommand, Path};
use crate::keys::Role;
use crate::policy::ChildPolicy;
use crate::proposal::{self, ChildExchange, EspChoice, Explanation};
use crate::refused::RefusedCall;
use crate::sa::channel::Channel;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::collision::Nonces;
use crate::sa::contents::Contents;
use crate::sa::create_child::Collision;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::{Exchange, Task};
use crate::sa::negotiate::{self, Draft, Sides, ke_payload, nonce_payload, notify, tsi, tsr};
use crate::sa::{Peering, State};
use crate::selector::{self, Fit};

/// A Child SA of ours that is this young may have been made at the same time as the peer's.
const YOUNG: Duration = Duration::from_secs(30);

/// A request of the peer that waits for the data path.
pub(crate) struct ServeChild {
    path: Path,
    policy: Arc<ChildPolicy>,
    replaces: Option<ChildSaId>,
    choice: EspChoice,
    sides: Sides,
    pub(crate) nonces: Nonces,
    /// Our public value and the shared secret, where there is a key exchange.
    key_exchange: Option<(Group, Vec<u8>, Secret)>,
    /// Ours, made at the same time, stays; the peer is to delete this one.
    pub(crate) redundant: bool,
    stage: Stage,
}

enum Stage {
    Spi(AskId),
    Install(AskId, Box<ChildSa>),
    /// From one to the next.
    Between,
}

/// Why a request is refused: what the peer is told, and what the operator is.
pub(crate) struct Refusal {
    pub(crate) notify: Payload<'static>,
    pub(crate) reason: Option<Reason>,
}

impl Refusal {
    pub(crate) fn quiet(ty: NotifyType) -> Self {
        Self {
            notify: notify(ty),
            reason: None,
        }
    }

    /// RFC 7296 §2.21.3: INVALID_SYNTAX ends the IKE SA at both ends; the peer sends no DELETE.
    fn is_fatal(&self) -> bool {
        matches!(&self.notify, Payload::Notify(n) if n.ty == NotifyType::INVALID_SYNTAX)
    }

    pub(crate) fn no_room(reason: Reason) -> Self {
        Self::because(NotifyType::NO_ADDITIONAL_SAS, reason)
    }

    pub(crate) fn because(ty: NotifyType, reason: Reason) -> Self {
        Self {
            notify: notify(ty),
            reason: Some(reason),
        }
    }
}

impl ServeChild {
    pub(crate) fn waits_for(&self, id: AskId) -> bool {
        match &self.stage {
            Stage::Spi(ask) | Stage::Install(ask, _) => *ask == id,
            Stage::Between => false,
        }
    }

    /// Whether a task of ours has to wait until it is done: it makes the same Child SA, or the IKE
    /// SA is to be rekeyed.
    pub(crate) fn precedes(&self, task: &Task) -> bool {
        match task {
            Task::CreateChild { policy, .. } => {
                self.replaces.is_none() && policy.name == self.policy.name
            }
            Task::RekeyChild { child, .. } => self.replaces == Some(*child),
            Task::RekeyIke { .. } => true,
            Task::DeleteChildren { .. } | Task::DeleteIke { .. } | Task::Inform { .. } => false,
        }
    }

    /// The IKE SA ends before it is done.
    pub(crate) fn abandon(self, cx: &mut Context) {
        if let Stage::Install(_, child) = self.stage {
            child.abandon(cx);
        }
    }
}

/// What the peer offers for ESP is not accepted; one that called is remembered with what mends it.
pub(crate) fn refuse_offer(
    channel: &Channel,
    cx: &mut Context,
    peering: &Peering,
    policy: &ChildPolicy,
    offer: &SaPayload,
    why: &Explanation,
) -> Refusal {
    let reason = if peering.dialed {
        why.to_string()
    } else {
        let (now, from) = (cx.boot(), channel.path.remote.ip());
        // It was let in, and offers only for ESP what is not accepted.
        let offered = format!("{} for ESP", proposal::summary(offer));
        let call = RefusedCall::new(now, from, channel.client, offered, &policy.esp_proposals);
        let reason = format!("{call}; {why}");
        cx.upcall(Upcall::Offers(Box::new(call)));
        reason
    };
    Refusal::because(NotifyType::NO_PROPOSAL_CHOSEN, Reason::NoProposal(reason))
}

/// Which child of the connection the peer's selectors fit best: (policy, our side, its side).
pub(crate) fn choose_policy(
    peering: &Peering,
    contents: &Contents,
    only: Option<&Arc<ChildPolicy>>,
) -> Result<(Arc<ChildPolicy>, Sides), Refusal> {
    let (Some(tsi), Some(tsr)) = (&contents.tsi, &contents.tsr) else {
        return Err(Refusal::because(
            NotifyType::INVALID_SYNTAX,
            Reason::Protocol("the peer's request has no TSi or TSr payload".to_owned()),
        ));
    };
    let candidates: Vec<_> = match only {
        Some(policy) => vec![policy],
        None => peering.connection.children.iter().collect(),
    };
    let mut best: Option<(Fit, Arc<ChildPolicy>, Sides)> = None;
    let mut why = None;
    for policy in candidates {
        let (local, remote) = negotiate::allowed(peering, policy);
        let offered = (tsi.selectors.as_slice(), tsr.selectors.as_slice());
        match selector::narrow(offered, (&remote, &local)) {
            Ok(narrowed) => {
                if best.as_ref().is_none_or(|(fit, ..)| narrowed.fit > *fit) {
                    let sides = (narrowed.responder, narrowed.initiator);
                    best = Some((narrowed.fit, Arc::clone(policy), sides));
                }
            }
            Err(error) => {
                why.get_or_insert(error.to_string());
            }
        }
    }
    match best {
        Some((_, policy, sides)) => Ok((policy, sides)),
        // RFC 7296 §3.15.4.
        None if peering.needs_lease() => Err(Refusal::because(
            NotifyType::FAILED_CP_REQUIRED,
            Reason::NoSelectors(format!(
                "the peer asked for no virtual address, and connection {} lets a peer use none \
                 but the one it is lent; set it to request one",
                peering.connection.name
            )),
        )),
        None => Err(Refusal::because(
            NotifyType::TS_UNACCEPTABLE,
            Reason::NoSelectors(
                why.unwrap_or_else(|| "this connection has no child at all".to_owned()),
            ),
        )),
    }
}

impl Established {
    pub(crate) fn serve_create_child_sa(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: Contents,
    ) -> State {
        let outcome = if self.life != Life::Live || !self.is_live() {
            // RFC 7296 §2.25.2: we are closing it, or it has been rekeyed.
            Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE))
        } else if contents.sa.as_ref().is_some_and(is_for_ike) {
            self.serve_rekey_ike(channel, cx, path, &contents)
        } else {
            self.serve_child(channel, cx, path, contents)
        };
        if let Err(refusal) = outcome {
            let fatal = refusal.is_fatal();
            let reason = refusal.reason.clone();
            self.refuse(channel, cx, path, refusal);
            if let Some(reason) = reason.filter(|_| fatal) {
                return self.end(channel, cx, reason);
            }
        }
        self.proceed(channel, cx)
    }

    fn refuse(&mut self, channel: &mut Channel, cx: &mut Context, path: Path, refusal: Refusal) {
        if let Some(reason) = refusal.reason {
            cx.event(self.event(channel, EventKind::Refused { reason }));
        }
        let exchange = ExchangeType::CREATE_CHILD_SA;
        self.answer(channel, cx, exchange, path, vec![refusal.notify]);
    }

    fn serve_child(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: Contents,
    ) -> Result<(), Refusal> {
        if matches!(self.current, Some(Exchange::RekeyIke(_))) {
            return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
        }
        let replaces = match self.rekeyed_child(&contents) {
            Ok(replaces) => replaces,
            Err(refusal) => {
                self.drop_redundant(channel, cx, &contents);
                return Err(refusal);
            }
        };
        let room = self.room();
        if replaces.is_none() && self.children.len() >= room.children {
            return Err(Refusal::no_room(room.no_more_children()));
        }
        // RFC 7296 §2.25: predecessors that the peer does not delete count as well.
        if self.children.len() >= 2 * room.children {
            return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
        }
        let old = replaces.and_then(|old| self.children.get(&old));
        let only = old.map(|old| &old.params.policy);
        let (policy, sides) = choose_policy(&self.peering, &contents, only)?;
        self.take_in(replaces, &sides).map_err(Refusal::no_room)?;
        let syntax = |what: &str| {
            Refusal::because(
                NotifyType::INVALID_SYNTAX,
                Reason::Protocol(format!("the peer's request has no {what} payload")),
            )
        };
        let offer = contents.sa.as_ref().ok_or_else(|| syntax("SA"))?;
        let initiator = contents.nonce.ok_or_else(|| syntax("nonce"))?;
        let sent = contents.ke.as_ref().map(|ke| ke.method);
        let choice = proposal::select_esp(
            &policy.esp_proposals,
            offer,
            ChildExchange::CreateChildSa,
            sent,
        )
        .map_err(|why| refuse_offer(channel, cx, &self.peering, &policy, offer, &why))?;
        if let Some(group) = choice.wrong_group(sent) {
            return Err(Refusal {
                notify: NotifyPayload::invalid_ke(TransformId(group.to_wire())).into(),
                reason: None,
            });
        }
        let key_exchange = choice.group.zip(contents.ke.as_ref());
        let group = key_exchange.map(|(group, _)| group);
        if !self.peering.allowance.take(cx.boot(), group) {
            return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
        }
        let key_exchange = match key_exchange {
            Some((group, ke)) => {
                let (public, shared) = negotiate::answer_key_exchange(cx, group, &ke.data)
                    .map_err(|error| {
                        Refusal::because(NotifyType::INVALID_SYNTAX, Reason::Protocol(error))
                    })?;
                Some((group, public, shared))
            }
            None => None,
        };
        let nonces = Nonces {
            initiator,
            responder: negotiate::nonce(cx.random.as_mut()),
        };
        self.note_collision(replaces, &policy, &sides, &nonces);
        let who = Waiting::IkeSa(channel.id);
        let ask = cx.order(who, |id| DataCommand::AllocSpi { id });
        self.serving = Some(Box::new(ServeChild {
            path,
            policy,
            replaces,
            choice,
            sides,
            nonces,
            key_exchange,
            redundant: false,
            stage: Stage::Spi(ask),
        }));
        Ok(())
    }

    /// The peer does not know that this one lost, and drops it without a word when it is told that
    /// it is not found (RFC 7296 §2.25).
    fn drop_redundant(&mut self, channel: &Channel, cx: &mut Context, contents: &Contents) {
        let rekey = contents.notify(NotifyType::REKEY_SA);
        let spi = rekey.and_then(|rekey| rekey.spi.child()).map(|spi| spi.0);
        let lost = self.children.values().find(|child| {
            child.state == ChildState::Redundant && Some(child.params.spi_out) == spi
        });
        let lost = lost
            .map(ChildSa::id)
            .and_then(|id| self.children.remove(&id));
        if let Some(lost) = lost {
            lost.remove(cx, channel.id, &self.peering, Reason::Replaced);
        }
    }

    /// The Child SA that REKEY_SA names by the SPI we send with (RFC 7296 §1.3.3).
    fn rekeyed_child(&self, contents: &Contents) -> Result<Option<ChildSaId>, Refusal> {
        let Some(rekey) = contents.notify(NotifyType::REKEY_SA) else {
            return Ok(None);
        };
        let spi = rekey.spi.child();
        let known = self.children.values().find(|child| {
            rekey.protocol == ProtocolId::ESP && spi.map(|s| s.0) == Some(child.params.spi_out)
        });
        match known {
            // It may be the one whose response is still on its way to us.
            None if matches!(&self.current, Some(Exchange::CreateChild(c)) if !c.is_unsent()) => {
                Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE))
            }
            None => Err(not_found(rekey)),
            Some(child) => match child.state {
                ChildState::Redundant => Err(not_found(rekey)),
                // RFC 7296 §2.25.1; a second rekey of the same is answered likewise.
                ChildState::Closing | ChildState::Replaced => {
                    Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE))
                }
                ChildState::Installed => match &self.current {
                    // Ours is made already, and this one about to be deleted.
                    Some(Exchange::CreateChild(ours))
                        if ours.replaces == Some(child.id())
                            && !ours.is_in_flight()
                            && !ours.is_unsent() =>
                    {
                        Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE))
                    }
                    _ => Ok(Some(child.id())),
                },
            },
        }
    }

    /// RFC 7296 §2.8.1: notes that both ends make the same Child SA; which one stays is known when
    /// our response is here.
    fn note_collision(
        &mut self,
        replaces: Option<ChildSaId>,
        policy: &Arc<ChildPolicy>,
        (local, remote): &Sides,
        nonces: &Nonces,
    ) {
        let selectors = selector::canonical(local, remote);
        let (own_local, own_remote) = negotiate::allowed(&self.peering, policy);
        let whole = selectors == selector::canonical(&own_local, &own_remote);
        let Some(Exchange::CreateChild(ours)) = &mut self.current else {
            return;
        };
        let same = match replaces {
            Some(old) => ours.replaces == Some(old),
            None => ours.replaces.is_none() && ours.policy.name == policy.name,
        };
        if !same {
            return;
        }
        if ours.is_in_flight() || !ours.is_unsent() {
            ours.collision = Some(Collision {
                nonces: nonces.clone(),
                selectors,
                child: None,
            });
        } else if replaces.is_some() || whole {
            // The peer was first; the SPI goes back when it comes.
            self.current = None;
        }
    }

    fn our_collision(&mut self, serving: &ServeChild) -> Option<&mut Collision> {
        match &mut self.current {
            Some(Exchange::CreateChild(ours)) => ours
                .collision
                .as_mut()
                .filter(|collision| collision.nonces == serving.nonces),
            _ => None,
        }
    }

    pub(crate) fn handle_serving_answer(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        mut serving: Box<ServeChild>,
        answer: Answer,
    ) {
        if !self.still_welcome(&serving) {
            // In the meantime we are closing what it belongs to (RFC 7296 §2.25).
            if let Stage::Install(_, child) = serving.stage {
                child.abandon(cx);
            }
            cx.discard(answer);
            let refusal = Refusal::quiet(NotifyType::TEMPORARY_FAILURE);
            return self.refuse(channel, cx, serving.path, refusal);
        }
        let error = match (
            std::mem::replace(&mut serving.stage, Stage::Between),
            answer,
        ) {
            (Stage::Spi(_), Answer::Spi(Ok(spi_in))) => {
                let Some(keys) = &channel.keys else {
                    return;
                };
                let draft = Draft {
                    policy: Arc::clone(&serving.policy),
                    replaces: serving.replaces,
                    suite: serving.choice.suite,
                    spi_in,
                    spi_out: serving.choice.peer_spi.0,
                    sides: serving.sides.clone(),
                };
                let keys = keys.child(
                    serving.choice.suite,
                    serving.key_exchange.as_ref().map(|(_, _, shared)| shared),
                    &serving.nonces.initiator,
                    &serving.nonces.responder,
                );
                let (child, ask) = draft.install(cx, channel, &self.peering, keys, Role::Responder);
                serving.stage = Stage::Install(ask, Box::new(child));
                self.serving = Some(serving);
                return;
            }
            (Stage::Install(_, child), Answer::Installed(Ok(()))) => {
                return self.finish_serving(channel, cx, *serving, *child);
            }
            (Stage::Spi(_), Answer::Spi(Err(error))) => error,
            (Stage::Install(_, child), Answer::Installed(Err(error))) => {
                child.abandon(cx);
                error
            }
            (stage, answer) => {
                serving.stage = stage;
                self.serving = Some(serving);
                return cx.discard(answer);
            }
        };
        if self.our_collision(&serving).is_some()
            && let Some(Exchange::CreateChild(ours)) = &mut self.current
        {
            ours.collision = None;
        }
        let reason = Reason::Local(format!("the Child SA could not be installed: {error}"));
        let refusal = Refusal::because(NotifyType::TEMPORARY_FAILURE, reason);
        self.refuse(channel, cx, serving.path, refusal);
    }

    fn finish_serving(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        serving: ServeChild,
        mut child: ChildSa,
    ) {
        let id = child.id();
        child.group = serving.choice.group;
        let mut payloads = vec![
            serving.choice.answer(child.params.spi_in).into(),
            nonce_payload(&serving.nonces.responder),
        ];
        if let Some((group, public, _)) = &serving.key_exchange {
            payloads.push(ke_payload(*group, public));
        }
        payloads.push(tsi(&child.params.remote_ts));
        payloads.push(tsr(&child.params.local_ts));
        let exchange = ExchangeType::CREATE_CHILD_SA;
        self.answer(channel, cx, exchange, serving.path, payloads);
        let old = serving.replaces.and_then(|old| self.children.get_mut(&old));
        child.follow(cx, channel.esp_path());
        match old {
            Some(old) if old.state == ChildState::Installed => {
                child.line = old.line.clone();
                old.retire(cx, ChildState::Replaced);
                self.follow_collision(serving.replaces, id);
            }
            _ => {}
        }
        if let Some(collision) = self.our_collision(&serving) {
            collision.child = Some(id);
        }
        if serving.redundant {
            // Our own rekey of the same, made in the meantime, has won.
            child.retire(cx, ChildState::Redundant);
        } else {
            self.peering.use_assigned(cx);
            child.switch_out_after_others(cx);
            child.announce(cx, &self.peering);
        }
        let twin = self.twin(cx, &serving);
        self.children.insert(id, child);
        if let Some(twin) = twin.and_then(|twin| self.children.get_mut(&twin)) {
            twin.retire(cx, ChildState::Replaced);
            twin.yields_to = Some(id);
            self.end_yielding(cx, id);
        }
    }

    /// The peer has rekeyed the Child SA that collides with ours: whatever becomes of the one is to
    /// become of the other.
    fn follow_collision(&mut self, old: Option<ChildSaId>, new: ChildSaId) {
        if let Some(Exchange::CreateChild(ours)) = &mut self.current
            && let Some(theirs) = &mut ours.collision
            && theirs.child == old
        {
            theirs.child = Some(new);
        }
    }

    /// Deletes what was to serve until `winner` sends, if it does.
    pub(crate) fn end_yielding(&mut self, cx: &Context, winner: ChildSaId) {
        if !(self.children.get(&winner)).is_some_and(ChildSa::is_sending) {
            return;
        }
        let yields = |child: &&ChildSa| {
            child.yields_to == Some(winner) && child.state != ChildState::Closing
        };
        let losers: BTreeSet<_> = (self.children.values().filter(yields))
            .map(ChildSa::id)
            .collect();
        if !losers.is_empty() {
            self.push_delete(cx, losers, Reason::Replaced);
        }
    }

    /// Neither the IKE SA nor what is to be replaced is about to go.
    fn still_welcome(&self, serving: &ServeChild) -> bool {
        let replaced = serving.replaces.is_none_or(|old| {
            let old = self.children.get(&old);
            serving.redundant || old.is_some_and(|old| old.state == ChildState::Installed)
        });
        self.is_live() && replaced
    }

    /// A new Child SA of ours that was made while the peer's request for the same one was on its
    /// way, and that has to go because of its nonces: the peer noticed the collision, we did not.
    fn twin(&self, cx: &Context, serving: &ServeChild) -> Option<ChildSaId> {
        if serving.replaces.is_some() {
            return None;
        }
        let (local, remote) = &serving.sides;
        let selectors = selector::canonical(local, remote);
        // RFC 7296 §2.8: others of the same policy may serve beside it.
        let same = |child: &&ChildSa| {
            let params = &child.params;
            child.state == ChildState::Installed
                && child.name() == serving.policy.name
                && selector::canonical(&params.local_ts, &params.remote_ts) == selectors
        };
        let ours = self.children.values().rev().find(same)?;
        let (since, nonces) = ours.line.as_ref()?;
        let young = cx.boot().since(*since) < YOUNG;
        (young && !nonces.wins_against(&serving.nonces)).then(|| ours.id())
    }
}

fn not_found(rekey: &NotifyPayload<'_>) -> Refusal {
    let notify = NotifyPayload {
        protocol: rekey.protocol,
        spi: rekey.spi.clone(),
        ..NotifyPayload::new(NotifyType::CHILD_SA_NOT_FOUND)
    };
    Refusal {
        notify: notify.into_owned().into(),
        reason: None,
    }
}

fn is_for_ike(sa: &SaPayload) -> bool {
    sa.proposals
        .first()
        .is_some_and(|p| p.protocol == ProtocolId::IKE && matches!(p.spi, ProposalSpi::Ike(_)))
}

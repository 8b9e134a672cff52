//! CREATE_CHILD_SA for a Child SA, started by us: a new one, or one that replaces another
//! (RFC 7296 §1.3.1, §1.3.3, §2.8.1).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::suite::Group;
use cygnet_wire::header::{ChildSpi, ExchangeType};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::sa::SaPayload;

use crate::context::{Context, Upcall, Waiting};
use crate::event::{EventKind, Reason};
use crate::io::{Answer, AskId, ChildSaId, DataCommand};
use crate::keys::Role;
use crate::narrowing::Packet;
use crate::policy::ChildPolicy;
use crate::proposal::{self, ChildExchange};
use crate::refusal;
use crate::sa::channel::Channel;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::collision::Nonces;
use crate::sa::contents::Contents;
use crate::sa::established::Established;
use crate::sa::exchange::{Exchange, TEMPORARY, Task, Tries};
use crate::sa::negotiate::{self, Draft, Sides, ke_payload, nonce_payload, tsi, tsr};
use crate::selector;

/// Longest wait before a rekey that the peer had no time for is tried again.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// The exchange, from the reservation of an SPI to the installation.
pub(crate) struct CreateChild {
    pub(crate) policy: Arc<ChildPolicy>,
    pub(crate) replaces: Option<ChildSaId>,
    packet: Option<Packet>,
    tries: Tries,
    /// The peer makes the same Child SA at the same time.
    pub(crate) collision: Option<Collision>,
    /// SPIs the peer has deleted that nobody here knows: ours may be among them, its response lost.
    doomed: BTreeSet<u32>,
    /// The operator wants it no more.
    pub(crate) unwanted: bool,
    stage: Stage,
}

/// The peer's exchange for the same Child SA.
pub(crate) struct Collision {
    pub(crate) nonces: Nonces,
    /// Its selectors, canonical: only when ours come out the same is it the same Child SA.
    pub(crate) selectors: String,
    /// What it made; `None` while that is being installed.
    pub(crate) child: Option<ChildSaId>,
}

enum Stage {
    /// Nothing is sent yet.
    Spi(AskId),
    /// The request is in flight.
    Sent(Box<Sent>),
    /// The response is here.
    Install(AskId, Box<ChildSa>),
    /// From one to the next.
    Between,
}

struct Sent {
    spi_in: u32,
    nonce: Vec<u8>,
    ephemeral: Option<Ephemeral>,
    offer: SaPayload,
    sides: Sides,
}

impl CreateChild {
    /// The Child SA that IKE_AUTH has made: all that is left is to install it.
    pub(crate) fn of_ike_auth(policy: Arc<ChildPolicy>, ask: AskId, child: ChildSa) -> Self {
        Self {
            policy,
            replaces: None,
            packet: None,
            tries: Tries::default(),
            collision: None,
            doomed: BTreeSet::new(),
            unwanted: false,
            stage: Stage::Install(ask, Box::new(child)),
        }
    }

    pub(crate) fn waits_for(&self, id: AskId) -> bool {
        match &self.stage {
            Stage::Spi(ask) | Stage::Install(ask, _) => *ask == id,
            Stage::Sent(_) | Stage::Between => false,
        }
    }

    /// Whether the peer may know of it already.
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.stage, Stage::Sent(_))
    }

    /// Whether nothing of it has been sent.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Spi(_))
    }

    /// The peer deletes what it has made of this exchange; returns our half's SPI if it is here.
    pub(crate) fn doom(&mut self, spi: u32) -> Option<u32> {
        self.doomed.insert(spi);
        match &self.stage {
            Stage::Install(_, child) if child.params.spi_out == spi => Some(child.params.spi_in),
            _ => None,
        }
    }

    /// The task it was, to be done another time.
    pub(crate) fn into_task(self) -> Task {
        match self.replaces {
            Some(child) => Task::RekeyChild {
                child,
                tries: self.tries,
            },
            None => Task::CreateChild {
                policy: self.policy,
                packet: self.packet,
                tries: self.tries,
            },
        }
    }

    /// The IKE SA ends before it is done.
    pub(crate) fn abandon(self, cx: &mut Context) {
        match self.stage {
            Stage::Spi(_) | Stage::Between => {}
            Stage::Sent(sent) => cx.data(DataCommand::FreeSpi { spi: sent.spi_in }),
            Stage::Install(_, child) => child.abandon(cx),
        }
    }
}

/// A Child SA as both ends want it.
struct Agreed {
    draft: Draft,
    keys: crate::keys::ChildKeys,
    nonces: Nonces,
    /// Of the key exchange, if there was one.
    group: Option<Group>,
}

impl Established {
    pub(crate) fn start_create(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        policy: Arc<ChildPolicy>,
        replaces: Option<ChildSaId>,
        packet: Option<Packet>,
        tries: Tries,
    ) {
        if replaces.is_none() && self.child_for(&policy.name, packet.as_ref()).is_some() {
            return;
        }
        let room = self.room();
        if replaces.is_none() && self.children.len() >= room.children {
            return self.child_failed(channel, cx, &policy, room.no_more_children());
        }
        let who = Waiting::IkeSa(channel.id);
        let ask = cx.order(who, |id| DataCommand::AllocSpi { id });
        self.current = Some(Exchange::CreateChild(Box::new(CreateChild {
            policy,
            replaces,
            packet,
            tries,
            collision: None,
            doomed: BTreeSet::new(),
            unwanted: false,
            stage: Stage::Spi(ask),
        })));
    }

    pub(crate) fn start_rekey_child(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        child: ChildSaId,
        tries: Tries,
    ) {
        let Some(old) = self.children.get(&child) else {
            return cx.upcall(Upcall::Reconsider(channel.id));
        };
        // Whoever else is about to replace or delete it has priority.
        if old.state == ChildState::Installed && !old.is_sending() {
            // The peer may not know it yet.
            let policy = Arc::clone(&old.params.policy);
            self.retry_later(cx, policy, Some(child), None, tries);
        } else if old.state == ChildState::Installed {
            let policy = Arc::clone(&old.params.policy);
            self.start_create(channel, cx, policy, Some(child), None, tries);
        }
    }

    pub(crate) fn handle_create_answer(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        mut create: Box<CreateChild>,
        answer: Answer,
    ) {
        match (std::mem::replace(&mut create.stage, Stage::Between), answer) {
            (Stage::Spi(_), Answer::Spi(Ok(spi))) => {
                let still_wanted = !create.unwanted
                    && match create.replaces {
                        Some(old) => (self.children.get(&old))
                            .is_some_and(|old| old.state == ChildState::Installed),
                        None => {
                            let packet = create.packet.as_ref();
                            self.child_for(&create.policy.name, packet).is_none()
                        }
                    };
                if !still_wanted || !self.is_live() {
                    cx.data(DataCommand::FreeSpi { spi });
                    cx.upcall(Upcall::Reconsider(channel.id));
                    return;
                }
                match self.send_create(channel, cx, &create, spi) {
                    Ok(sent) => {
                        create.stage = Stage::Sent(Box::new(sent));
                        self.current = Some(Exchange::CreateChild(create));
                    }
                    Err(reason) => {
                        cx.data(DataCommand::FreeSpi { spi });
                        self.child_failed(channel, cx, &create.policy, reason);
                    }
                }
            }
            (Stage::Spi(_), Answer::Spi(Err(error))) => {
                let reason = Reason::Local(format!("no SPI could be reserved: {error}"));
                if create.replaces.is_some() {
                    // What it is to replace still serves.
                    cx.event(self.event(channel, EventKind::Refused { reason }));
                    let wait = retry_wait(cx, &mut create.tries);
                    self.tasks.push_at(cx.boot() + wait, create.into_task());
                } else {
                    self.child_failed(channel, cx, &create.policy, reason);
                }
            }
            (Stage::Install(_, child), Answer::Installed(_))
                if create.doomed.contains(&child.params.spi_out) =>
            {
                child.abandon(cx);
                cx.upcall(Upcall::Reconsider(channel.id));
            }
            (Stage::Install(_, mut child), Answer::Installed(Ok(()))) if create.unwanted => {
                let id = child.id();
                child.state = ChildState::Closing;
                self.children.insert(id, *child);
                self.push_delete(cx, BTreeSet::from([id]), Reason::Operator);
            }
            (Stage::Install(_, child), Answer::Installed(Ok(()))) => {
                let (id, params) = (child.id(), &child.params);
                let selectors = selector::canonical(&params.local_ts, &params.remote_ts);
                let collision = create
                    .collision
                    .take()
                    .filter(|theirs| create.replaces.is_some() || theirs.selectors == selectors);
                self.finish_create(channel, cx, create.replaces, collision, *child);
                if let Some(packet) = create.packet {
                    self.check_narrowing(channel, cx, id, packet);
                }
            }
            (Stage::Install(_, child), Answer::Installed(Err(error))) => {
                let reason = Reason::Local(format!("the Child SA could not be installed: {error}"));
                self.push_delete_spi(cx, child.params.spi_in);
                child.abandon(cx);
                self.child_failed(channel, cx, &create.policy, reason);
            }
            (stage, answer) => {
                create.stage = stage;
                self.current = Some(Exchange::CreateChild(create));
                cx.discard(answer);
            }
        }
    }

    fn send_create(
        &self,
        channel: &mut Channel,
        cx: &mut Context,
        create: &CreateChild,
        spi_in: u32,
    ) -> Result<Sent, Reason> {
        let proposals = &create.policy.esp_proposals;
        let (local, remote) = match create.replaces.and_then(|old| self.children.get(&old)) {
            // RFC 7296 §2.8: not other selectors than the old one has.
            Some(old) => (old.params.local_ts.clone(), old.params.remote_ts.clone()),
            None => {
                let (local, remote) = negotiate::allowed(&self.peering, &create.policy);
                let packet = create.packet.as_ref();
                (
                    selector::with_packet(packet.map(|p| &p.0), local),
                    selector::with_packet(packet.map(|p| &p.1), remote),
                )
            }
        };
        let group = (create.tries.group).or_else(|| self.group_to_begin_with(channel, create));
        let ephemeral = group.map(|group| Ephemeral::generate(group, cx.random.as_mut()));
        let offer = proposal::offer_esp(proposals, spi_in, ChildExchange::CreateChildSa);
        let nonce = negotiate::nonce(cx.random.as_mut());
        let mut payloads = Vec::new();
        if let Some(old) = create.replaces.and_then(|old| self.children.get(&old)) {
            let spi = ChildSpi(old.params.spi_in);
            payloads.push(NotifyPayload::about_esp(NotifyType::REKEY_SA, spi).into());
        }
        payloads.push(offer.clone().into());
        payloads.push(nonce_payload(&nonce));
        if let (Some(group), Some(ephemeral)) = (group, &ephemeral) {
            payloads.push(ke_payload(group, ephemeral.public()));
        }
        payloads.push(tsi(&local));
        payloads.push(tsr(&remote));
        channel.send_request(cx, ExchangeType::CREATE_CHILD_SA, payloads)?;
        Ok(Sent {
            spi_in,
            nonce,
            ephemeral,
            offer,
            sides: (local, remote),
        })
    }

    /// The group to begin with; `None`: no key exchange. The peer has shown that it takes the one of the
    /// last exchange, and that of the IKE SA; not every peer gets over another (RFC 7296 §1.3).
    fn group_to_begin_with(&self, channel: &Channel, create: &CreateChild) -> Option<Group> {
        let proposals = &create.policy.esp_proposals;
        let first = proposal::first_esp_group(proposals)?;
        let replaced = create.replaces.and_then(|old| self.children.get(&old));
        let last = match replaced {
            Some(old) => old.group,
            None => self.children.values().rev().find_map(|child| child.group),
        };
        let of_ike = channel.keys.as_ref().map(|keys| keys.suite().group);
        let known = [last, of_ike].into_iter().flatten();
        let mut offered = known.filter(|group| proposal::offers_esp_group(proposals, *group));
        Some(offered.next().unwrap_or(first))
    }

    pub(crate) fn handle_create_response(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        create: Box<CreateChild>,
        contents: Contents,
    ) {
        let CreateChild {
            policy,
            replaces,
            packet,
            tries,
            collision,
            doomed,
            unwanted,
            stage,
        } = *create;
        let Stage::Sent(sent) = stage else {
            return;
        };
        if let Some(error) = contents.error() {
            cx.data(DataCommand::FreeSpi { spi: sent.spi_in });
            let offered = (proposal::describe(&sent.offer), sent.sides);
            if collision.is_some() {
                // RFC 7296 §2.8.1: the peer's own exchange stands.
                cx.upcall(Upcall::Reconsider(channel.id));
                return;
            }
            let create = CreateChild {
                policy,
                replaces,
                packet,
                tries,
                collision,
                doomed,
                unwanted,
                stage: Stage::Between,
            };
            return self.create_refused(channel, cx, create, error, offered);
        }
        match self.agree(channel, *sent, &policy, replaces, contents) {
            Ok(Agreed { draft, .. }) if doomed.contains(&draft.spi_out) => {
                // The peer's DELETE has overtaken its response.
                cx.data(DataCommand::FreeSpi { spi: draft.spi_in });
                cx.upcall(Upcall::Reconsider(channel.id));
            }
            Ok(Agreed {
                draft,
                keys,
                nonces,
                group,
            }) => {
                let (mut child, ask) =
                    draft.install(cx, channel, &self.peering, keys, Role::Initiator);
                child.nonces = Some(nonces);
                child.group = group;
                self.current = Some(Exchange::CreateChild(Box::new(CreateChild {
                    policy,
                    replaces,
                    packet,
                    tries,
                    collision,
                    doomed: BTreeSet::new(),
                    unwanted: false,
                    stage: Stage::Install(ask, Box::new(child)),
                })));
            }
            Err((spi_in, error)) => {
                // The peer has it: RFC 7296 §2.21 has us clean up.
                self.push_delete_spi(cx, spi_in);
                cx.data(DataCommand::FreeSpi { spi: spi_in });
                self.child_failed(channel, cx, &policy, Reason::Protocol(error));
            }
        }
    }

    /// What the response makes of our offer.
    fn agree(
        &self,
        channel: &Channel,
        sent: Sent,
        policy: &Arc<ChildPolicy>,
        replaces: Option<ChildSaId>,
        contents: Contents,
    ) -> Result<Agreed, (u32, String)> {
        let spi_in = sent.spi_in;
        let fail = |error: String| (spi_in, error);
        let missing = |what: &str| {
            let error = format!("the peer's CREATE_CHILD_SA response has no {what} payload");
            (spi_in, error)
        };
        let answer = contents.sa.ok_or_else(|| missing("SA"))?;
        let choice =
            proposal::accept_esp(&sent.offer, &answer).map_err(|error| fail(error.to_string()))?;
        let responder = contents.nonce.ok_or_else(|| missing("nonce"))?;
        let tsi = contents.tsi.ok_or_else(|| missing("TSi"))?.selectors;
        let tsr = contents.tsr.ok_or_else(|| missing("TSr"))?.selectors;
        selector::check_answer((&sent.sides.0, &sent.sides.1), (&tsi, &tsr))
            .map_err(|error| fail(error.to_string()))?;
        let sides = (tsi, tsr);
        self.take_in(replaces, &sides)
            .map_err(|reason| fail(reason.to_string()))?;
        let shared = match choice.group {
            None => None,
            Some(group) => {
                let ke = contents.ke.ok_or_else(|| missing("KE"))?;
                let ephemeral = sent.ephemeral.filter(|e| {
                    e.group() == group && choice.wrong_group(Some(ke.method)).is_none()
                });
                let ephemeral = ephemeral.ok_or_else(|| {
                    fail(format!(
                        "the peer chose {group}, for which no KE payload was sent"
                    ))
                })?;
                Some(ephemeral.agree(&ke.data).map_err(|e| fail(e.to_string()))?)
            }
        };
        let Some(keys) = &channel.keys else {
            return Err(fail("no keys".to_owned()));
        };
        let keys = keys.child(choice.suite, shared.as_ref(), &sent.nonce, &responder);
        let draft = Draft {
            policy: Arc::clone(policy),
            replaces,
            suite: choice.suite,
            spi_in,
            spi_out: choice.peer_spi.0,
            sides,
        };
        let nonces = Nonces {
            initiator: sent.nonce,
            responder,
        };
        Ok(Agreed {
            draft,
            keys,
            nonces,
            group: choice.group,
        })
    }

    /// It is installed: the better of two that were made at once stays (RFC 7296 §2.8.1).
    fn finish_create(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        replaces: Option<ChildSaId>,
        collision: Option<Collision>,
        mut child: ChildSa,
    ) {
        let id = child.id();
        let won = match (&collision, &child.nonces) {
            (Some(theirs), Some(ours)) => ours.wins_against(&theirs.nonces),
            _ => true,
        };
        child.moved_to(cx, channel.id);
        child.follow(cx, channel.esp_path());
        child.line = match replaces {
            Some(old) => self.children.get(&old).and_then(|old| old.line.clone()),
            None => child.nonces.clone().map(|nonces| (cx.boot(), nonces)),
        };
        if !won {
            child.state = ChildState::Closing;
            self.children.insert(id, child);
            self.push_delete(cx, BTreeSet::from([id]), Reason::Replaced);
            return;
        }
        self.peering.use_assigned(cx);
        child.switch_out(cx);
        child.announce(cx, &self.peering);
        self.children.insert(id, child);
        if let Some(theirs) = collision {
            let made = theirs.child.and_then(|id| self.children.get_mut(&id));
            if let Some(redundant) = made.filter(|c| c.state == ChildState::Installed) {
                redundant.retire(cx, ChildState::Redundant);
            }
            if let Some(serving) = &mut self.serving
                && serving.nonces == theirs.nonces
            {
                serving.redundant = true;
            }
        }
        if let Some(old) = replaces.filter(|old| self.children.contains_key(old)) {
            self.inherit_yielding(cx, old, id);
            self.push_delete(cx, BTreeSet::from([old]), Reason::Replaced);
        }
    }

    /// While a Child SA was being rekeyed it has lost to another one: so has its successor.
    fn inherit_yielding(&mut self, cx: &Context, old: ChildSaId, new: ChildSaId) {
        let winner = self.children.get(&old).and_then(|old| old.yields_to);
        if let Some(winner) = winner.filter(|winner| self.children.contains_key(winner))
            && let Some(new) = self.children.get_mut(&new)
        {
            new.retire(cx, ChildState::Replaced);
            new.yields_to = Some(winner);
            self.end_yielding(cx, winner);
        }
    }

    /// RFC 7296 §2.9: the peer may narrow, and is asked to leave the packet that wanted the Child SA
    /// in it. One that does not carry it serves others, unless it is the same as one there was.
    fn check_narrowing(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        id: ChildSaId,
        packet: Packet,
    ) {
        let made = self.children.get(&id);
        let Some(made) = made.filter(|made| made.state == ChildState::Installed) else {
            return;
        };
        if made.carries(Some(&packet)) {
            return;
        }
        let mut others = self.children.values().filter(|other| other.id() != id);
        let superfluous =
            others.any(|other| other.state == ChildState::Installed && other.equals(made));
        let name = made.name().to_owned();
        let reason = Reason::NoSelectors(format!(
            "the peer narrowed child {name} to {}; that does not carry a packet {} === {}",
            selector::pair(&made.params.local_ts, &made.params.remote_ts),
            packet.0,
            packet.1
        ));
        cx.event(self.event(channel, EventKind::Refused { reason }));
        if superfluous {
            self.push_delete(cx, BTreeSet::from([id]), Reason::Replaced);
        }
        let sa = channel.id;
        cx.upcall(Upcall::Narrowed { sa, name, packet });
    }

    fn create_refused(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        create: CreateChild,
        error: &NotifyPayload<'_>,
        (offer, sides): (String, Sides),
    ) {
        if create.unwanted {
            return;
        }
        let CreateChild {
            policy,
            replaces,
            packet,
            mut tries,
            ..
        } = create;
        match error.ty {
            NotifyType::INVALID_KE_PAYLOAD => {
                let group = (error.accepted_ke().ok()).and_then(|id| Group::from_wire(id.0));
                // Only one that was offered, and each once.
                let group = group.filter(|group| {
                    proposal::offers_esp_group(&policy.esp_proposals, *group)
                        && tries.group != Some(*group)
                });
                if let Some(group) = group {
                    tries.group = Some(group);
                    self.retry_create(cx, policy, replaces, packet, tries, Duration::ZERO);
                    return;
                }
            }
            NotifyType::TEMPORARY_FAILURE => {
                let since = *tries.temporary_since.get_or_insert(cx.boot());
                if cx.boot().since(since) > TEMPORARY {
                    // RFC 7296 §2.25: the two ends disagree about the state.
                    let reason = refusal::reason(error, String::new);
                    self.push(cx, Task::DeleteIke { reason });
                    return;
                }
                self.retry_later(cx, policy, replaces, packet, tries);
                return;
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                // RFC 7296 §2.25: it goes silently, and a new one is made from scratch.
                if let Some(old) = replaces.and_then(|old| self.children.remove(&old)) {
                    let installed = old.state == ChildState::Installed;
                    old.remove(cx, channel.id, &self.peering, Reason::DeletedByPeer);
                    if installed && self.child_named(&policy.name).is_none() {
                        let tries = Tries::default();
                        self.retry_create(cx, policy, None, None, tries, Duration::ZERO);
                    }
                }
                cx.upcall(Upcall::Reconsider(channel.id));
                return;
            }
            _ => {}
        }
        let reason = refusal::reason(error, || match error.ty {
            NotifyType::TS_UNACCEPTABLE => selector::pair(&sides.0, &sides.1),
            _ => offer,
        });
        if replaces.is_some() {
            let limited = error.ty == NotifyType::NO_ADDITIONAL_SAS;
            cx.event(self.event(channel, EventKind::Refused { reason }));
            if limited && self.peering.dialed {
                // A peer that never rekeys: only another IKE SA helps (RFC 7296 §1.3).
                cx.upcall(Upcall::Reauthenticate(channel.id));
            } else {
                self.retry_later(cx, policy, replaces, packet, tries);
            }
        } else {
            self.child_failed(channel, cx, &policy, reason);
        }
    }

    fn retry_later(
        &mut self,
        cx: &mut Context,
        policy: Arc<ChildPolicy>,
        replaces: Option<ChildSaId>,
        packet: Option<Packet>,
        mut tries: Tries,
    ) {
        let wait = retry_wait(cx, &mut tries);
        self.retry_create(cx, policy, replaces, packet, tries, wait);
    }

    fn retry_create(
        &mut self,
        cx: &Context,
        policy: Arc<ChildPolicy>,
        replaces: Option<ChildSaId>,
        packet: Option<Packet>,
        tries: Tries,
        wait: Duration,
    ) {
        let task = match replaces {
            Some(child) => Task::RekeyChild { child, tries },
            None => Task::CreateChild {
                policy,
                packet,
                tries,
            },
        };
        self.tasks.push_at(cx.boot() + wait, task);
    }

    /// A child did not come to be: says so, and lets the keeper decide.
    pub(crate) fn child_failed(
        &self,
        channel: &Channel,
        cx: &mut Context,
        policy: &ChildPolicy,
        reason: Reason,
    ) {
        cx.event(self.event(
            channel,
            EventKind::Refused {
                reason: reason.clone(),
            },
        ));
        cx.upcall(Upcall::ChildFailed {
            sa: channel.id,
            name: policy.name.clone(),
            reason,
        });
    }
}

/// How long to wait after a refusal that may pass: longer each time, never the same at both ends.
pub(crate) fn retry_wait(cx: &mut Context, tries: &mut Tries) -> Duration {
    tries.failures = tries.failures.saturating_add(1);
    let most = RETRY * tries.failures.min(15);
    cx.jittered(most.min(RETRY_MOST))
}

//! Rekeying the IKE SA, either side (RFC 7296 §1.3.2, §2.8.2, §2.18, §2.25.2).

use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::suite::Group;
use cygnet_wire::header::{ExchangeType, Spi};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::sa::{ProposalSpi, SaPayload, TransformId};

use crate::context::{Context, Upcall};
use crate::event::{EventKind, Reason};
use crate::io::{IkeSaId, Path};
use crate::keys::{Exchanged, IkeKeys, Role};
use crate::proposal;
use crate::refusal;
use crate::sa::channel::Channel;
use crate::sa::collision::Nonces;
use crate::sa::contents::Contents;
use crate::sa::create_child::retry_wait;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::{Exchange, TEMPORARY, Task, Tries};
use crate::sa::negotiate::{self, ke_payload, nonce_payload};
use crate::sa::serve_child::Refusal;
use crate::sa::{IkeSa, State};

/// Our request to rekey, in flight.
pub(crate) struct RekeyIke {
    spi: Spi,
    nonce: Vec<u8>,
    ephemeral: Ephemeral,
    offer: SaPayload,
    tries: Tries,
    collision: Option<Collision>,
}

/// The peer's rekey of the same IKE SA.
struct Collision {
    nonces: Nonces,
    made: IkeSaId,
}

/// What the new IKE SA is made of.
struct New {
    role: Role,
    spis: (Spi, Spi),
    keys: IkeKeys,
    life: Life,
}

impl RekeyIke {
    /// The IKE SA that the peer's rekey made, if it rekeyed too.
    pub(crate) fn take_provisional(&mut self) -> Option<IkeSaId> {
        self.collision.take().map(|collision| collision.made)
    }
}

/// A fresh SPI, never zero.
pub(crate) fn new_spi(cx: &mut Context) -> Spi {
    loop {
        let spi = Spi(cx.random_u64());
        if !spi.is_zero() {
            return spi;
        }
    }
}

impl Established {
    pub(crate) fn start_rekey_ike(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        tries: Tries,
    ) -> Result<(), Reason> {
        let proposals = &self.peering.connection.ike_proposals;
        let in_use = channel.keys.as_ref().map(|keys| keys.suite().group);
        let group = (tries.group)
            .or(in_use.filter(|group| proposal::offers_ike_group(proposals, *group)))
            .or(proposal::first_ike_group(proposals));
        let Some(group) = group else {
            return Err(Reason::Local(
                "the connection has no IKE proposals".to_owned(),
            ));
        };
        let spi = new_spi(cx);
        let offer = proposal::offer_ike(proposals, ProposalSpi::Ike(spi));
        let nonce = negotiate::nonce(cx.random.as_mut());
        let ephemeral = Ephemeral::generate(group, cx.random.as_mut());
        let payloads = vec![
            offer.clone().into(),
            nonce_payload(&nonce),
            ke_payload(group, ephemeral.public()),
        ];
        channel.send_request(cx, ExchangeType::CREATE_CHILD_SA, payloads)?;
        self.current = Some(Exchange::RekeyIke(Box::new(RekeyIke {
            spi,
            nonce,
            ephemeral,
            offer,
            tries,
            collision: None,
        })));
        Ok(())
    }

    pub(crate) fn handle_rekey_ike_response(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        mut rekey: RekeyIke,
        contents: Contents,
    ) {
        let collision = rekey.collision.take();
        if let Some(error) = contents.error() {
            match collision {
                // RFC 7296 §2.8.2: the peer's rekey stands; it deletes this IKE SA. Where the peer
                // has begun to use its own, that has inherited already.
                Some(theirs) => self.hand_over(cx, theirs.made),
                None => self.rekey_ike_refused(channel, cx, rekey, error),
            }
            return;
        }
        let (spis, keys, nonces) = match agree(channel, rekey, contents) {
            Ok(agreed) => agreed,
            Err(error) => {
                // The peer has an IKE SA that we cannot use. If it made another, that one stands.
                let reason = Reason::Protocol(error);
                if let Some(theirs) = collision {
                    self.stand_down(channel, cx, theirs.made, &reason);
                }
                self.push(cx, Task::DeleteIke { reason });
                return;
            }
        };
        let won = collision
            .as_ref()
            .is_none_or(|theirs| nonces.wins_against(&theirs.nonces));
        // The peer may have begun to use its own, and thereby decided.
        let won = won && self.life == Life::Live;
        let new = New {
            role: Role::Initiator,
            spis,
            keys,
            life: Life::Live,
        };
        let mut made = self.successor(channel, cx, new);
        if won {
            let to = made.id();
            cx.upcall(Upcall::Rekeyed(made));
            if let Some(theirs) = collision {
                cx.upcall(Upcall::Redundant(theirs.made));
            }
            self.hand_over(cx, to);
            let reason = Reason::Replaced;
            self.push(cx, Task::DeleteIke { reason });
        } else {
            if let State::Established(redundant) = &mut made.state {
                let reason = Reason::Replaced;
                redundant.mark_bequeathed();
                redundant.push(cx, Task::DeleteIke { reason });
            }
            cx.upcall(Upcall::Rekeyed(made));
            if let Some(theirs) = collision {
                self.hand_over(cx, theirs.made);
            }
        }
    }

    fn rekey_ike_refused(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        rekey: RekeyIke,
        error: &NotifyPayload<'_>,
    ) {
        if self.life != Life::Live {
            return;
        }
        let mut tries = rekey.tries;
        let proposals = &self.peering.connection.ike_proposals;
        match error.ty {
            NotifyType::INVALID_KE_PAYLOAD => {
                let group = (error.accepted_ke().ok()).and_then(|id| Group::from_wire(id.0));
                let group = group.filter(|group| {
                    proposal::offers_ike_group(proposals, *group) && tries.group != Some(*group)
                });
                if let Some(group) = group {
                    tries.group = Some(group);
                    self.push(cx, Task::RekeyIke { tries });
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
            }
            _ => {}
        }
        if error.ty != NotifyType::TEMPORARY_FAILURE {
            let reason = refusal::reason(error, || proposal::describe(&rekey.offer));
            cx.event(self.event(channel, EventKind::Refused { reason }));
            if self.peering.dialed {
                // A peer that never rekeys: only another IKE SA helps (RFC 7296 §1.3).
                cx.upcall(Upcall::Reauthenticate(channel.id));
                return;
            }
        }
        let wait = retry_wait(cx, &mut tries);
        self.tasks
            .push_at(cx.boot() + wait, Task::RekeyIke { tries });
    }

    pub(crate) fn serve_rekey_ike(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: &Contents,
    ) -> Result<(), Refusal> {
        // RFC 7296 §2.25.1: not while we create, rekey or close a Child SA.
        match self.current.take() {
            Some(Exchange::CreateChild(create)) if create.is_unsent() => {
                // The peer does not know of it: the new IKE SA does it instead.
                self.push(cx, create.into_task());
            }
            Some(busy @ (Exchange::CreateChild(_) | Exchange::DeleteChildren { .. })) => {
                self.current = Some(busy);
                return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
            }
            // It has rekeyed this IKE SA already, and is to delete it: one heir beside ours is enough.
            Some(Exchange::RekeyIke(ours)) if ours.collision.is_some() => {
                self.current = Some(Exchange::RekeyIke(ours));
                return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
            }
            other => self.current = other,
        }
        let syntax = |what: &str| {
            let error = format!("the peer's request has no {what} payload");
            Refusal::because(NotifyType::INVALID_SYNTAX, Reason::Protocol(error))
        };
        let offer = contents.sa.as_ref().ok_or_else(|| syntax("SA"))?;
        let initiator = contents.nonce.clone().ok_or_else(|| syntax("nonce"))?;
        let ke = contents.ke.as_ref().ok_or_else(|| syntax("KE"))?;
        let proposals = self.peering.connection.ike_proposals.as_slice();
        let choice = proposal::select_ike(&[proposals], offer, Some(ke.method)).map_err(|why| {
            let reason = Reason::NoProposal(why.to_string());
            Refusal::because(NotifyType::NO_PROPOSAL_CHOSEN, reason)
        })?;
        if let Some(group) = choice.wrong_group(ke.method) {
            return Err(Refusal {
                notify: NotifyPayload::invalid_ke(TransformId(group.to_wire())).into(),
                reason: None,
            });
        }
        let spi_i = choice.peer_spi.ok_or_else(|| syntax("usable SA"))?;
        if !(self.peering.allowance).take(cx.boot(), Some(choice.suite.group)) {
            return Err(Refusal::quiet(NotifyType::TEMPORARY_FAILURE));
        }
        let (public, shared) = negotiate::answer_key_exchange(cx, choice.suite.group, &ke.data)
            .map_err(|error| {
                Refusal::because(NotifyType::INVALID_SYNTAX, Reason::Protocol(error))
            })?;
        let nonces = Nonces {
            initiator,
            responder: negotiate::nonce(cx.random.as_mut()),
        };
        let spi_r = new_spi(cx);
        let exchanged = Exchanged {
            nonce_i: nonces.initiator.clone(),
            nonce_r: nonces.responder.clone(),
            spi_i,
            spi_r,
        };
        let keys = channel
            .keys
            .as_ref()
            .and_then(|keys| {
                keys.successor(choice.suite, Role::Responder, &exchanged, &shared)
                    .ok()
            })
            .ok_or_else(|| Refusal::quiet(NotifyType::TEMPORARY_FAILURE))?;
        let payloads = vec![
            choice.answer(ProposalSpi::Ike(spi_r)).into(),
            nonce_payload(&nonces.responder),
            ke_payload(choice.suite.group, &public),
        ];
        self.answer(channel, cx, ExchangeType::CREATE_CHILD_SA, path, payloads);
        let both = matches!(self.current, Some(Exchange::RekeyIke(_)));
        let life = if both {
            Life::Provisional {
                of: channel.id,
                until: None,
            }
        } else {
            Life::Live
        };
        let new = New {
            role: Role::Responder,
            spis: (spi_i, spi_r),
            keys,
            life,
        };
        let made = self.successor(channel, cx, new);
        let id = made.id();
        cx.upcall(Upcall::Rekeyed(made));
        match &mut self.current {
            // RFC 7296 §2.8.2: which of the two inherits is known when our response is here.
            Some(Exchange::RekeyIke(ours)) => {
                ours.collision = Some(Collision { nonces, made: id });
            }
            _ => self.hand_over(cx, id),
        }
        Ok(())
    }

    /// The IKE SA that was to inherit, if the peer's rekey made one while ours is in flight: this one
    /// keeps what it holds.
    pub(crate) fn take_provisional(&mut self) -> Option<IkeSaId> {
        match &mut self.current {
            Some(Exchange::RekeyIke(ours)) => ours.take_provisional(),
            _ => None,
        }
    }

    /// `made`, which was to inherit, has ended: this one stays, as if the peer had not rekeyed.
    pub(crate) fn lose_heir(&mut self, made: IkeSaId) {
        if let Some(Exchange::RekeyIke(ours)) = &mut self.current {
            ours.collision.take_if(|theirs| theirs.made == made);
        }
    }

    /// The IKE SA that follows this one.
    fn successor(&self, channel: &Channel, cx: &mut Context, new: New) -> Box<IkeSa> {
        let id = cx.new_ike_sa_id();
        let mut next = Channel::new(cx, id, new.role, new.spis, channel.path, channel.retransmit);
        next.client = channel.client;
        next.nat = channel.nat;
        next.mobility = channel.mobility.heir();
        next.dialed = channel.dialed;
        next.fragment_size = channel.fragment_size;
        next.search.clone_from(&channel.search);
        next.peer_searches = channel.peer_searches;
        next.keys = Some(new.keys);
        let mut state = Self::new(cx, self.peering.clone(), new.life, Some(channel.id));
        // There is nothing to inherit from one that has left all it held already.
        state.bequeathed |= self.bequeathed;
        Box::new(IkeSa {
            channel: next,
            state: State::Established(Box::new(state)),
        })
    }

    /// Our rekey came to nothing, and the peer's own, which made `to`, stands.
    pub(crate) fn stand_down(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        to: IkeSaId,
        why: &Reason,
    ) {
        // With an heir this one ends as replaced, so it is told now.
        let reason = why.clone();
        cx.event(self.event(channel, EventKind::Refused { reason }));
        self.hand_over(cx, to);
    }

    /// `to` inherits; this one waits to be deleted.
    pub(crate) fn hand_over(&mut self, cx: &mut Context, to: IkeSaId) {
        if let Some(estate) = self.bequeath(cx, to) {
            let estate = Box::new(estate);
            cx.upcall(Upcall::Bequest { to, estate });
        }
    }
}

/// SPIs, keys and nonces of the new IKE SA, as the response settles them.
fn agree(
    channel: &Channel,
    rekey: RekeyIke,
    contents: Contents,
) -> Result<((Spi, Spi), IkeKeys, Nonces), String> {
    let missing =
        |what: &str| format!("the peer's response to a rekey of the IKE SA has no {what} payload");
    let answer = contents.sa.ok_or_else(|| missing("SA"))?;
    let choice = proposal::accept_ike(&rekey.offer, &answer).map_err(|e| e.to_string())?;
    let nonce_r = contents.nonce.ok_or_else(|| missing("nonce"))?;
    let ke = contents.ke.ok_or_else(|| missing("KE"))?;
    let spi_r = choice.peer_spi.ok_or_else(|| missing("usable SA"))?;
    if choice.suite.group != rekey.ephemeral.group() || choice.wrong_group(ke.method).is_some() {
        return Err(format!(
            "the peer chose {}, for which no KE payload was sent",
            choice.suite.group
        ));
    }
    let shared = rekey.ephemeral.agree(&ke.data).map_err(|e| e.to_string())?;
    let exchanged = Exchanged {
        nonce_i: rekey.nonce.clone(),
        nonce_r: nonce_r.clone(),
        spi_i: rekey.spi,
        spi_r,
    };
    let keys = channel
        .keys
        .as_ref()
        .ok_or_else(|| "no keys".to_owned())?
        .successor(choice.suite, Role::Initiator, &exchanged, &shared)
        .map_err(|e| e.to_string())?;
    let nonces = Nonces {
        initiator: rekey.nonce,
        responder: nonce_r,
    };
    Ok(((rekey.spi, spi_r), keys, nonces))
}

//! INFORMATIONAL: deletion of Child SAs and of the IKE SA (RFC 7296 §1.4.1, §2.25), signs of life,
//! and what peers tell each other besides.

use std::collections::BTreeSet;
use std::time::Duration;

use cygnet_wire::delete::DeletePayload;
use cygnet_wire::header::{ChildSpi, ExchangeType, MessageId};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::sa::ProtocolId;

use crate::context::Context;
use crate::event::Reason;
use crate::io::{ChildSaId, Path};
use crate::refusal;
use crate::sa::State;
use crate::sa::channel::Channel;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::contents::Contents;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::{Exchange, Task};

/// A Child SA of this age is in use at both ends.
const SETTLED: Duration = Duration::from_secs(10);

impl Contents {
    pub(crate) fn deletes_ike_sa(&self) -> bool {
        self.deletes.contains(&DeletePayload::IkeSa)
    }
}

impl Established {
    /// These are to be deleted; from now on nothing else begins with them.
    pub(crate) fn push_delete(
        &mut self,
        cx: &Context,
        children: BTreeSet<ChildSaId>,
        reason: Reason,
    ) {
        for id in &children {
            if let Some(child) = self.children.get_mut(id) {
                child.state = ChildState::Closing;
            }
        }
        self.push(
            cx,
            Task::DeleteChildren {
                children,
                spis: Vec::new(),
                reason,
            },
        );
    }

    /// The peer has installed a Child SA that never came to be here.
    pub(crate) fn push_delete_spi(&mut self, cx: &Context, spi: u32) {
        self.push(
            cx,
            Task::DeleteChildren {
                children: BTreeSet::new(),
                spis: vec![spi],
                reason: Reason::Replaced,
            },
        );
    }

    pub(crate) fn start_delete_children(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        children: BTreeSet<ChildSaId>,
        spis: &[u32],
        reason: Reason,
    ) -> Result<(), Reason> {
        let mut deleted: Vec<ChildSpi> = spis.iter().copied().map(ChildSpi).collect();
        let mut present = BTreeSet::new();
        for id in children {
            if let Some(child) = self.children.get_mut(&id) {
                // Whoever waits for it is not its successor then.
                child.forgotten |= reason != Reason::Replaced;
                child.stop_sending(cx);
                deleted.push(ChildSpi(child.params.spi_in));
                present.insert(id);
            }
        }
        if deleted.is_empty() {
            return Ok(());
        }
        let delete = DeletePayload::ChildSas {
            protocol: ProtocolId::ESP,
            spis: deleted,
        };
        channel.send_request(cx, ExchangeType::INFORMATIONAL, vec![delete.into()])?;
        self.current = Some(Exchange::DeleteChildren {
            children: present,
            reason,
        });
        Ok(())
    }

    pub(crate) fn handle_delete_response(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        children: BTreeSet<ChildSaId>,
        reason: &Reason,
    ) {
        for id in children {
            if let Some(child) = self.children.remove(&id) {
                child.remove(cx, channel.id, &self.peering, reason.clone());
            }
        }
    }

    pub(crate) fn start_delete_ike(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> Result<(), Reason> {
        // RFC 7296 §2.8: the last request of this IKE SA.
        self.tasks.clear();
        for child in self.children.values_mut() {
            child.stop_sending(cx);
        }
        let delete = DeletePayload::IkeSa;
        channel.send_request(cx, ExchangeType::INFORMATIONAL, vec![delete.into()])?;
        self.life = Life::Deleting;
        self.current = Some(Exchange::DeleteIke { reason });
        Ok(())
    }

    pub(crate) fn serve_informational(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        contents: Contents,
    ) -> State {
        let exchange = ExchangeType::INFORMATIONAL;
        if contents.deletes_ike_sa() {
            self.answer(channel, cx, exchange, path, Vec::new());
            return self.deleted_by_peer(channel, cx);
        }
        // RFC 7296 §2.21.2: how an initiator says that it does not accept our proof.
        if let Some(error) = contents.notify(NotifyType::AUTHENTICATION_FAILED) {
            self.answer(channel, cx, exchange, path, Vec::new());
            let reason = refusal::reason(error, String::new);
            return self.end(channel, cx, reason);
        }
        self.peering.limit(cx, &contents);
        Self::serve_size_probe(channel, &contents);
        if let Some(notify) = contents.notify(NotifyType::INVALID_SPI)
            && let Ok(spi) = notify.data.as_ref().try_into()
        {
            self.handle_invalid_spi(cx, u32::from_be_bytes(spi));
        }
        let mut answer = self.serve_path(channel, cx, path, &contents);
        let mut paired = Vec::new();
        for delete in contents.deletes {
            if let DeletePayload::ChildSas {
                protocol: ProtocolId::ESP,
                spis,
            } = delete
            {
                paired.extend(
                    spis.iter()
                        .filter_map(|spi| self.delete_child(channel, cx, *spi)),
                );
            }
        }
        if !paired.is_empty() {
            let protocol = ProtocolId::ESP;
            let spis = paired;
            answer.push(DeletePayload::ChildSas { protocol, spis }.into());
        }
        self.answer(channel, cx, exchange, path, answer);
        self.peer_goes_on(channel, cx);
        self.proceed(channel, cx)
    }

    /// The peer has lost a Child SA that we send on (RFC 7296 §1.5): it goes, and what needs it makes
    /// another. One that is new may have been used before the peer was ready.
    fn handle_invalid_spi(&mut self, cx: &Context, spi: u32) {
        let settled = |child: &&ChildSa| {
            child.params.spi_out == spi
                && child.state == ChildState::Installed
                && cx.boot().since(child.since) >= SETTLED
        };
        if let Some(id) = self.children.values().find(settled).map(ChildSa::id) {
            let reason = "the peer does not know this Child SA any more (INVALID_SPI)";
            let reason = Reason::PeerRefused(reason.to_owned());
            self.push_delete(cx, BTreeSet::from([id]), reason);
        }
    }

    /// The peer sends requests that no window allows; it is told outside of any response
    /// (RFC 7296 §2.3).
    pub(crate) fn complain_of_message_id(&mut self, cx: &Context, id: MessageId) {
        if self.is_live() {
            let data = id.0.to_be_bytes().to_vec();
            let notify = NotifyPayload::with_data(NotifyType::INVALID_MESSAGE_ID, data);
            let payloads = vec![notify.into()];
            self.push(cx, Task::Inform { payloads });
        }
    }

    /// The peer deletes the Child SA that we send on with `spi`; returns the SPI of the paired half
    /// for the response, where there is to be one.
    fn delete_child(
        &mut self,
        channel: &Channel,
        cx: &mut Context,
        spi: ChildSpi,
    ) -> Option<ChildSpi> {
        let known = self
            .children
            .values()
            .find(|child| child.params.spi_out == spi.0);
        let Some(id) = known.map(|child| child.id()) else {
            return match &mut self.current {
                Some(Exchange::CreateChild(create)) => create.doom(spi.0).map(ChildSpi),
                _ => None,
            };
        };
        let asked = matches!(
            &self.current,
            Some(Exchange::DeleteChildren { children, .. }) if children.contains(&id)
        );
        if asked {
            // RFC 7296 §1.4.1: both delete it. The outbound half has been stopped with our request;
            // the inbound half goes with the response, and is not named twice.
            return None;
        }
        let mut child = self.children.remove(&id)?;
        let paired = ChildSpi(child.params.spi_in);
        let reason = match child.state {
            ChildState::Installed => Reason::DeletedByPeer,
            ChildState::Closing => self.closing_reason(id),
            ChildState::Replaced | ChildState::Redundant => Reason::Replaced,
        };
        child.forgotten |= reason != Reason::Replaced;
        child.remove(cx, channel.id, &self.peering, reason);
        Some(paired)
    }

    /// Why we were about to delete it.
    fn closing_reason(&self, id: ChildSaId) -> Reason {
        self.tasks
            .iter()
            .find_map(|task| match task {
                Task::DeleteChildren {
                    children, reason, ..
                } if children.contains(&id) => Some(reason.clone()),
                _ => None,
            })
            .unwrap_or(Reason::DeletedByPeer)
    }

    fn deleted_by_peer(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        // RFC 7296 §2.8.2: the peer did not notice that both rekey; its new IKE SA is the one.
        if let Some(to) = self.take_provisional() {
            self.hand_over(cx, to);
        }
        let reason = match (&self.life, &self.current) {
            (Life::Replaced { .. } | Life::Provisional { .. }, _) => Reason::Replaced,
            // RFC 7296 §2.25.2: both delete it; ours is forgotten.
            (_, Some(Exchange::DeleteIke { reason })) => reason.clone(),
            _ => Reason::DeletedByPeer,
        };
        self.end(channel, cx, reason)
    }
}

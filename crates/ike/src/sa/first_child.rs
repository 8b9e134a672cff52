//! The Child SA that travels in an IKE_AUTH of ours (RFC 7296 §1.2).

use std::sync::Arc;

use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::SaPayload;
use cygnet_wire::ts::TrafficSelector;

use crate::context::Context;
use crate::event::{EventKind, Reason};
use crate::io::{DataCommand, WantedAddress};
use crate::keys::Role;
use crate::policy::ChildPolicy;
use crate::proposal::{self, ChildExchange};
use crate::refusal;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::create_child::CreateChild;
use crate::sa::established::Established;
use crate::sa::exchange::{Exchange, Task};
use crate::sa::negotiate::{Draft, Sides, tsi, tsr};
use crate::sa::room::Room;
use crate::selector::{self, Dynamic};

/// Offered, and not yet agreed on.
pub(crate) struct First {
    policy: Arc<ChildPolicy>,
    /// Zero until it is reserved.
    pub(crate) spi_in: u32,
    offer: SaPayload,
    sides: Sides,
}

impl First {
    pub(crate) fn new(policy: Arc<ChildPolicy>) -> Self {
        Self {
            policy,
            spi_in: 0,
            offer: SaPayload {
                proposals: Vec::new(),
            },
            sides: Sides::default(),
        }
    }

    /// SA, TSi and TSr of the request.
    pub(crate) fn payloads(
        &mut self,
        channel: &Channel,
        wanted: &[WantedAddress],
        packet: Option<&(TrafficSelector, TrafficSelector)>,
    ) -> [Payload<'static>; 3] {
        let dynamic = match wanted.is_empty() {
            true => Dynamic::Virtual(&[], channel.path.local.ip()),
            false => Dynamic::Wanted(wanted),
        };
        let local = selector::expand(&self.policy.local, dynamic);
        let outer = Dynamic::Virtual(&[], channel.path.remote.ip());
        let remote = selector::expand(&self.policy.remote, outer);
        self.sides = (
            selector::with_packet(packet.map(|p| &p.0), local),
            selector::with_packet(packet.map(|p| &p.1), remote),
        );
        let proposals = &self.policy.esp_proposals;
        self.offer = proposal::offer_esp(proposals, self.spi_in, ChildExchange::IkeAuth);
        [
            self.offer.clone().into(),
            tsi(&self.sides.0),
            tsr(&self.sides.1),
        ]
    }

    /// What is offered, for people.
    pub(crate) fn describe(&self) -> String {
        let selectors = selector::pair(&self.sides.0, &self.sides.1);
        format!("{} for {selectors}", proposal::describe(&self.offer))
    }

    /// Installs it, if the peer made it.
    pub(crate) fn install(
        self,
        state: &mut Established,
        channel: &mut Channel,
        cx: &mut Context,
        contents: &Contents,
        wanted: &[WantedAddress],
        (nonce_i, nonce_r): (&[u8], &[u8]),
    ) {
        let spi_in = self.spi_in;
        // An address is lent in IKE_AUTH or not at all: without it, another child would not come to
        // be either, and only another IKE SA helps.
        let may_retry = wanted.is_empty() || !state.peering.assigned.addresses.is_empty();
        let agreed = match (contents.sa.as_ref(), contents.error()) {
            (Some(answer), _) => self
                .agree(state.room(), answer, contents)
                .map_err(|error| (true, Reason::Protocol(error))),
            (None, Some(error)) => {
                let selectors = selector::pair(&self.sides.0, &self.sides.1);
                let reason = refusal::reason(error, || match error.ty {
                    NotifyType::TS_UNACCEPTABLE => selectors,
                    _ => proposal::describe(&self.offer),
                });
                Err((false, reason))
            }
            (None, None) => {
                let error = "the peer made no Child SA and did not say why".to_owned();
                Err((false, Reason::Protocol(error)))
            }
        };
        match (agreed, &channel.keys) {
            (Ok(draft), Some(keys)) => {
                let keys = keys.child(draft.suite, None, nonce_i, nonce_r);
                let policy = Arc::clone(&self.policy);
                let peering = &state.peering;
                let (child, ask) = draft.install(cx, channel, peering, keys, Role::Initiator);
                let create = CreateChild::of_ike_auth(policy, ask, child);
                state.current = Some(Exchange::CreateChild(Box::new(create)));
            }
            (Ok(_), None) => {}
            (Err((made, reason)), _) => {
                if made {
                    state.push_delete_spi(cx, spi_in);
                }
                cx.data(DataCommand::FreeSpi { spi: spi_in });
                if may_retry {
                    state.child_failed(channel, cx, &self.policy, reason);
                } else {
                    let refused = EventKind::Refused {
                        reason: reason.clone(),
                    };
                    cx.event(state.event(channel, refused));
                    state.push(cx, Task::DeleteIke { reason });
                }
            }
        }
    }

    fn agree(&self, room: Room, answer: &SaPayload, contents: &Contents) -> Result<Draft, String> {
        let choice = proposal::accept_esp(&self.offer, answer).map_err(|e| e.to_string())?;
        let (Some(tsi), Some(tsr)) = (&contents.tsi, &contents.tsr) else {
            return Err("the peer's IKE_AUTH response has no TSi or TSr payload".to_owned());
        };
        let offered = (self.sides.0.as_slice(), self.sides.1.as_slice());
        selector::check_answer(offered, (&tsi.selectors, &tsr.selectors))
            .map_err(|e| e.to_string())?;
        let sides = (tsi.selectors.clone(), tsr.selectors.clone());
        room.take_first(&sides).map_err(|e| e.to_string())?;
        Ok(Draft {
            policy: Arc::clone(&self.policy),
            replaces: None,
            suite: choice.suite,
            spi_in: self.spi_in,
            spi_out: choice.peer_spi.0,
            sides,
        })
    }
}

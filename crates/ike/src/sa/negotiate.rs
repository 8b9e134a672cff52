//! What the exchanges that make Child SAs have in common: selectors of the policy made concrete,
//! payloads, and the draft of a Child SA.

use std::sync::Arc;

use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::suite::{EspSuite, Group};
use cygnet_crypto::{Random, Secret};
use cygnet_wire::ParseError;
use cygnet_wire::id::IdPayload;
use cygnet_wire::ke::KePayload;
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::TransformId;
use cygnet_wire::ts::{TrafficSelector, TsPayload};

use crate::context::Context;
use crate::io::{AskId, ChildSaId, ChildSaParameters, DataLimits};
use crate::keys::{ChildKeys, Role};
use crate::policy::ChildPolicy;
use crate::sa::Peering;
use crate::sa::channel::Channel;
use crate::sa::child::ChildSa;
use crate::selector::{self, Dynamic};

/// Octets of our nonces: at least half the key of every PRF (RFC 7296 §2.10).
const NONCE: usize = 32;

/// Selectors: our side, the peer's side.
pub(crate) type Sides = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// A Child SA that both sides have agreed on.
pub(crate) struct Draft {
    pub(crate) policy: Arc<ChildPolicy>,
    pub(crate) replaces: Option<ChildSaId>,
    pub(crate) suite: EspSuite,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) sides: Sides,
}

impl Draft {
    /// Orders its inbound half. `role` is ours in the exchange that makes it.
    pub(crate) fn install(
        self,
        cx: &mut Context,
        channel: &Channel,
        peering: &Peering,
        keys: ChildKeys,
        role: Role,
    ) -> (ChildSa, AskId) {
        let (keys_in, keys_out) = keys.directions(role);
        let (local_ts, remote_ts) = self.sides;
        let params = ChildSaParameters {
            id: cx.new_child_sa_id(),
            ike_sa: channel.id,
            connection: Arc::clone(&peering.connection),
            policy: self.policy,
            replaces: self.replaces,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            suite: self.suite,
            local_ts,
            remote_ts,
            path: channel.esp_path(),
            limits: DataLimits::default(),
            report_first: role == Role::Responder,
        };
        ChildSa::install(cx, peering, params, keys_in, keys_out)
    }
}

/// What a child of this policy may carry between these two.
///
/// An outer address is that of IKE_AUTH, not where packets come from by now: a source can be
/// forged. And where addresses are lent, nobody has another than the lent one: the outer address of
/// one client may be anything, the lent address of another included.
pub(crate) fn allowed(peering: &Peering, policy: &ChildPolicy) -> Sides {
    let lent = peering.lent.as_ref().map_or(&[][..], |l| &l.addresses);
    let (own, peer) = peering.outer;
    let local = Dynamic::Virtual(&peering.assigned.addresses, own);
    let remote = match peering.connection.pool {
        Some(_) => Dynamic::Lent(lent),
        None => Dynamic::Virtual(lent, peer),
    };
    (
        selector::expand(&policy.local, local),
        selector::expand(&policy.remote, remote),
    )
}

pub(crate) fn nonce(random: &mut dyn Random) -> Vec<u8> {
    let mut nonce = vec![0; NONCE];
    random.fill(&mut nonce);
    nonce
}

pub(crate) fn nonce_payload(nonce: &[u8]) -> Payload<'static> {
    NoncePayload::new(nonce.to_vec()).into()
}

pub(crate) fn ke_payload(group: Group, public: &[u8]) -> Payload<'static> {
    KePayload::new(TransformId(group.to_wire()), public.to_vec()).into()
}

pub(crate) fn tsi(selectors: &[TrafficSelector]) -> Payload<'static> {
    Payload::Tsi(ts(selectors))
}

pub(crate) fn tsr(selectors: &[TrafficSelector]) -> Payload<'static> {
    Payload::Tsr(ts(selectors))
}

fn ts(selectors: &[TrafficSelector]) -> TsPayload {
    TsPayload {
        selectors: selectors.to_vec(),
        unknown: Vec::new(),
    }
}

pub(crate) fn id_payload(role: Role, id: &IdPayload) -> Payload<'static> {
    match role {
        Role::Initiator => Payload::Idi(id.clone()),
        Role::Responder => Payload::Idr(id.clone()),
    }
}

pub(crate) fn notify(ty: NotifyType) -> Payload<'static> {
    NotifyPayload::new(ty).into()
}

/// What a request that cannot be parsed is answered with (RFC 7296 §2.5, §2.21).
pub(crate) fn syntax_notify(error: &ParseError) -> Payload<'static> {
    match error {
        ParseError::UnsupportedCriticalPayload(ty) => {
            NotifyPayload::unsupported_critical(*ty).into()
        }
        error => notify(error.notify_type()),
    }
}

/// The responder's half of a key exchange: our public value, and what both share.
pub(crate) fn answer_key_exchange(
    cx: &mut Context,
    group: Group,
    peer: &[u8],
) -> Result<(Vec<u8>, Secret), String> {
    // Whoever sends nonsense is not worth a key pair.
    if peer.len() != group.public_len() {
        return Err(format!(
            "a public value of {group} has {} octets, the peer's has {}",
            group.public_len(),
            peer.len()
        ));
    }
    let ephemeral = Ephemeral::generate(group, cx.random.as_mut());
    let public = ephemeral.public().to_vec();
    let shared = ephemeral.agree(peer).map_err(|error| error.to_string())?;
    Ok((public, shared))
}

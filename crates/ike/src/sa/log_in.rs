//! A log-in by EAP, the same in both roles (RFC 7296 §2.16): what it may cost, who is asked, and the proof that both ends make of the
//! key that it brings.

use std::sync::Arc;

use cygnet_crypto::psk::{psk_auth, verify_psk_auth};
use cygnet_crypto::suite::Prf;
use cygnet_wire::auth::{AuthMethod, AuthPayload};
use cygnet_wire::eap::EapPayload;

use crate::auth;
use crate::context::{Context, Waiting};
use crate::event::Reason;
use crate::io::{Ask, AskId, EapSuccess};
use crate::policy::Connection;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;

/// Packets of one side. EAP-MSCHAPv2 takes four, EAP-TLS some twenty: a chain of certificates comes in fragments.
const ROUNDS: u32 = 40;
/// Octets of them together.
const OCTETS: usize = 64 << 10;

/// What the other end may still send.
pub(crate) struct Bounds {
    rounds: u32,
    octets: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rounds: ROUNDS,
            octets: OCTETS,
        }
    }
}

impl Bounds {
    /// Whether it has sent nothing yet.
    pub(crate) fn are_untouched(&self) -> bool {
        self.rounds == ROUNDS
    }

    /// The EAP packet of a message.
    pub(crate) fn take(&mut self, contents: &mut Contents) -> Result<EapPayload<'static>, Reason> {
        let Some(packet) = contents.eap.take() else {
            let error = "the peer's IKE_AUTH lacks the EAP payload that was to come".to_owned();
            return Err(Reason::Protocol(error));
        };
        let left = self
            .rounds
            .checked_sub(1)
            .zip(self.octets.checked_sub(packet.data.len()));
        let Some((rounds, octets)) = left else {
            let error = format!(
                "the peer's log-in has no end: it was given up after {ROUNDS} EAP packets or {OCTETS} octets"
            );
            return Err(Reason::Protocol(error));
        };
        (self.rounds, self.octets) = (rounds, octets);
        Ok(packet)
    }
}

/// Asks for our next packet, for what the other end has sent; without `packet`, for the one that begins.
pub(crate) fn ask(
    channel: &Channel,
    cx: &mut Context,
    connection: &Arc<Connection>,
    packet: Option<EapPayload<'static>>,
) -> AskId {
    let ask = Ask::Eap {
        ike_sa: channel.id,
        connection: Arc::clone(connection),
        // Who calls logs in.
        peer_logs_in: !channel.dialed,
        remote: channel.path.remote.ip(),
        packet,
    };
    cx.ask(Waiting::IkeSa(channel.id), ask)
}

/// Our AUTH over `octets`, from the key.
pub(crate) fn prove(login: &EapSuccess, prf: Prf, octets: &[u8]) -> AuthPayload<'static> {
    auth::mac_payload(&psk_auth(prf, login.msk.expose(), octets))
}

/// Whether the peer has the key, too.
pub(crate) fn verify(
    login: &EapSuccess,
    prf: Prf,
    octets: &[u8],
    contents: &mut Contents,
) -> Result<(), Reason> {
    let Some(proof) = contents.auth.take() else {
        let error = "the peer's IKE_AUTH after its log-in has no AUTH payload".to_owned();
        return Err(Reason::Protocol(error));
    };
    let is_mac = proof.method == AuthMethod::SHARED_KEY_MIC;
    if is_mac && verify_psk_auth(prf, login.msk.expose(), octets, &proof.data) {
        return Ok(());
    }
    Err(Reason::PeerAuthentication(
        "the peer's proof does not match the key that the log-in has brought: somebody stands between the two ends, \
         or the peer makes another key of it"
            .to_owned(),
    ))
}

//! IKE_SA_INIT, started by the peer: answered with keys, and nothing else is believed yet
//! (RFC 7296 §1.2, §2.23).

use std::sync::Arc;

use cygnet_wire::cert::CertReqPayload;
use cygnet_wire::header::{ExchangeType, MessageId, Spi};
use cygnet_wire::message::MessageBuilder;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::sa::ProposalSpi;

use crate::auth;
use crate::context::Context;
use crate::event::Reason;
use crate::io::Path;
use crate::keys::{Exchanged, IkeKeys, Role};
use crate::nat::{self, Nat};
use crate::policy::{Connection, RemoteAuth};
use crate::proposal::IkeChoice;
use crate::sa::auth_responder::AuthResponder;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::initiator::Begun;
use crate::sa::negotiate::{self, ke_payload, nonce_payload};
use crate::sa::rekey_ike::new_spi;
use crate::sa::{IkeSa, State};

/// Authorities that a stranger is told of. Where there are more, certificates are asked for without
/// naming any (RFC 7296 §3.7 is a hint), so that the answer to a call stays about as long as a call.
const NAMED: usize = 8;

impl IkeSa {
    /// Answers IKE_SA_INIT: keys are made, nothing else is believed yet. `request` is the message
    /// itself, `candidates` those whose proposals were chosen from.
    pub(crate) fn answer(
        cx: &mut Context,
        candidates: Vec<Arc<Connection>>,
        choice: &IkeChoice,
        path: Path,
        (spi_i, request): (Spi, &[u8]),
        contents: &Contents,
    ) -> Result<Self, Reason> {
        let protocol = |error: String| Reason::Protocol(error);
        let (Some(ke), Some(nonce_i)) = (&contents.ke, &contents.nonce) else {
            return Err(protocol(
                "the peer's IKE_SA_INIT has no KE or nonce payload".to_owned(),
            ));
        };
        let group = choice.suite.group;
        let (public, shared) =
            negotiate::answer_key_exchange(cx, group, &ke.data).map_err(protocol)?;
        let id = cx.new_ike_sa_id();
        let spi_r = new_spi(cx);
        let exchanged = Exchanged {
            nonce_i: nonce_i.clone(),
            nonce_r: negotiate::nonce(cx.random.as_mut()),
            spi_i,
            spi_r,
        };
        let keys = IkeKeys::initial(choice.suite, Role::Responder, &exchanged, &shared)
            .map_err(|e| Reason::Local(e.to_string()))?;
        let first = candidates.first();
        let retransmit = first
            .map(|c| c.retransmit)
            .unwrap_or(crate::policy::Retransmit {
                first: std::time::Duration::from_secs(2),
                factor: 1.8,
                most: std::time::Duration::from_secs(60),
                tries: 5,
            });
        let claim = candidates.iter().any(|c| c.claim_nat);
        let mut channel = Channel::new(cx, id, Role::Responder, (spi_i, spi_r), path, retransmit);
        channel.only_from = Some(path.remote.ip());
        channel.client = contents.client.unwrap_or_default();
        // RFC 7296 §2.23: the responder's SPI was still zero when the initiator hashed.
        channel.nat = Nat::observe(&contents.notifies, spi_i, Spi::ZERO, &path, claim);
        channel.keys = Some(keys);
        if contents.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
            channel.fragment_size = first.map_or(0, |c| c.fragment_size);
        }
        let header = channel.header(ExchangeType::IKE_SA_INIT, MessageId::ZERO, true);
        let mut message = MessageBuilder::new(header);
        message.push(choice.answer(ProposalSpi::None));
        message.push(ke_payload(group, &public));
        message.push(nonce_payload(&exchanged.nonce_r));
        for notify in nat::notifies(spi_i, spi_r, &path, claim) {
            message.push(notify);
        }
        message.push(NotifyPayload::new(
            NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        ));
        message.push(auth::announce_hashes());
        message.push(NotifyPayload::new(NotifyType::CHILDLESS_IKEV2_SUPPORTED));
        // RFC 7296 §3.7: one payload names them all; it is not known yet which connection is meant.
        let (mut wanted, mut named) = (false, Vec::new());
        for connection in &candidates {
            if let RemoteAuth::Certificate { authorities, .. } = &connection.remote_auth {
                wanted = true;
                for authority in authorities {
                    if !named.contains(authority) {
                        named.push(*authority);
                    }
                }
            }
        }
        if named.len() > NAMED {
            named.clear();
        }
        if wanted {
            message.push(CertReqPayload::x509(&named));
        }
        let response = message.finish().map_err(|e| Reason::Local(e.to_string()))?;
        channel.window.begin(MessageId::ZERO, request);
        channel.transmit(cx, path, std::slice::from_ref(&response));
        channel.window.answer(vec![response.clone()]);
        let begun = Begun {
            nonce_i: exchanged.nonce_i,
            nonce_r: exchanged.nonce_r,
            request: request.to_vec(),
            response,
            hashes: contents
                .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
                .map(auth::announced_hashes),
            childless: true,
        };
        let state = AuthResponder::new(cx, candidates, begun);
        Ok(Self {
            channel,
            state: State::AuthResponder(Box::new(state)),
        })
    }
}

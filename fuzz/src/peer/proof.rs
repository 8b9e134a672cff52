//! AUTH payloads that hold, whatever the fuzzer puts around them.

use cygnet_crypto::Secret;
use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::KeyKind;
use cygnet_ike::auth;
use cygnet_wire::auth::AuthPayload;
use cygnet_wire::id::IdPayload;
use cygnet_wire::payload::{Chain, PayloadType};

use super::setup::{SECRET, SUITE, key};
use super::{Peer, log_in, peer_identity};

impl Peer {
    /// Puts a proof that holds into the AUTH payload of a chain, for the identity in it; without one in it, the proof
    /// is that of the key of a log-in.
    pub(crate) fn prove(&self, chain: Chain) -> Chain {
        let own_id = if self.setup.endpoint_calls {
            PayloadType::IDR
        } else {
            PayloadType::IDI
        };
        let payloads = split(&chain);
        let proof = match payloads.iter().find(|p| p.0 == own_id) {
            Some((_, body)) => IdPayload::parse(body).ok().and_then(|id| self.proof(&id)),
            None if self.setup.log_in => self.proof_by_key(),
            None => None,
        };
        let Some(proof) = proof else {
            return chain;
        };
        let mut bytes = Vec::new();
        for (number, (ty, body)) in payloads.iter().enumerate() {
            let next = payloads.get(number + 1).map_or(0, |(ty, _)| ty.0);
            let body = if *ty == PayloadType::AUTH {
                &proof
            } else {
                *body
            };
            let len = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
            bytes.extend([next, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend_from_slice(body);
        }
        Chain {
            first: chain.first,
            bytes,
        }
    }

    /// What the peer's AUTH covers.
    fn signed_octets(&self, id: &IdPayload) -> Option<Vec<u8>> {
        let generation = self.generations.first()?;
        let sk_p = generation.keys.sk_p(generation.role);
        Some(auth::signed_octets(
            SUITE.prf,
            &self.init,
            &self.other_nonce,
            sk_p,
            id,
        ))
    }

    /// The body of the last AUTH payload of a log-in (RFC 7296 §2.16).
    fn proof_by_key(&self) -> Option<Vec<u8>> {
        let octets = self.signed_octets(&IdPayload::new(peer_identity()))?;
        let mac = psk_auth(SUITE.prf, log_in::KEY, &octets);
        Some(body(&auth::mac_payload(&mac)))
    }

    /// The body of the AUTH payload.
    fn proof(&self, id: &IdPayload) -> Option<Vec<u8>> {
        let octets = self.signed_octets(id)?;
        let payload = if self.setup.certificate {
            let signing =
                auth::choose_scheme(KeyKind::Ed25519, false, Some(&auth::ANNOUNCED_HASHES)).ok()?;
            let signature = key().sign(signing.scheme, &octets).ok()?;
            auth::signature_payload(signing, &signature).ok()?
        } else {
            let mac: Secret = psk_auth(SUITE.prf, SECRET, &octets);
            auth::mac_payload(&mac)
        };
        Some(body(&payload))
    }
}

/// Method, three reserved octets, then the proof (RFC 7296 §3.8).
fn body(payload: &AuthPayload<'_>) -> Vec<u8> {
    let mut body = vec![payload.method.0, 0, 0, 0];
    body.extend_from_slice(&payload.data);
    body
}

/// Types and bodies of a chain, as far as it goes.
fn split(chain: &Chain) -> Vec<(PayloadType, &[u8])> {
    let mut found = Vec::new();
    let mut ty = chain.first;
    let mut rest = chain.bytes.as_slice();
    while ty != PayloadType::NONE && found.len() < 64 {
        let Some(([next, _, high, low], _)) = rest.split_first_chunk() else {
            break;
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (Some(body), Some(left)) = (rest.get(4..len), rest.get(len..)) else {
            break;
        };
        found.push((ty, body));
        ty = PayloadType(*next);
        rest = left;
    }
    found
}

//! What is looked for in messages, as far as it is there.

use cygnet_wire::header::Spi;
use cygnet_wire::payload::{Chain, Payload, parse_chain};
use cygnet_wire::sa::{ProposalSpi, SaPayload};

use super::setup::share;

pub(super) fn rekey_in(chain: &Chain) -> Option<(Spi, Vec<u8>)> {
    let payloads = parse_chain(chain.first, &chain.bytes).ok()?;
    let spi = payloads.iter().find_map(sa).and_then(ike_spi)?;
    let is_own = payloads.iter().find_map(ke) == Some(share().public());
    let nonce = payloads.iter().find_map(nonce)?;
    is_own.then(|| (spi, nonce.to_vec()))
}

pub(crate) fn sa<'p>(payload: &'p Payload<'_>) -> Option<&'p SaPayload> {
    match payload {
        Payload::Sa(sa) => Some(sa),
        _ => None,
    }
}

pub(super) fn nonce<'p>(payload: &'p Payload<'_>) -> Option<&'p [u8]> {
    match payload {
        Payload::Nonce(nonce) => Some(&nonce.data),
        _ => None,
    }
}

pub(super) fn ke<'p>(payload: &'p Payload<'_>) -> Option<&'p [u8]> {
    match payload {
        Payload::Ke(ke) => Some(&ke.data),
        _ => None,
    }
}

pub(super) fn ike_spi(sa: &SaPayload) -> Option<Spi> {
    match sa.proposals.first()?.spi {
        ProposalSpi::Ike(spi) => Some(spi),
        _ => None,
    }
}

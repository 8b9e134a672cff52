//! Scripts: what is done to an endpoint, written down while it is played.

use cygnet_wire::delete::DeletePayload;
use cygnet_wire::header::{ChildSpi, ExchangeType};
use cygnet_wire::payload::{Chain, Payload};

use super::messages::{auth_requests, auth_response, auth_responses, chain, create_response};
use crate::endpoint::{command, established, how, kind};
use crate::peer::{PEER_SPI, Peer, Setup};

/// IKE_AUTH as it should be, so that both are established afterwards.
pub(crate) fn authenticate(peer: &mut Peer) {
    let (called, messages) = match peer.requests.front() {
        Some(request) => (true, auth_responses(peer.setup, &request.payloads)),
        None => (false, auth_requests(peer.setup)),
    };
    for chain in messages {
        let chain = peer.prove(chain);
        match called {
            true => peer.respond(&chain, false),
            false => peer.request(false, ExchangeType::IKE_AUTH, &chain, false),
        }
    }
}

/// Plays a script against a peer and writes it down.
pub(super) struct Recorder {
    pub(super) peer: Peer,
    pub(super) bytes: Vec<u8>,
}

impl Recorder {
    pub(super) fn new(setup: u8) -> Self {
        let mut peer = Peer::new(Setup::of(setup));
        peer.shake_hands();
        Self {
            peer,
            bytes: vec![setup],
        }
    }

    pub(super) fn established(setup: u8) -> Self {
        Self {
            peer: established(Setup::of(setup)),
            bytes: vec![setup],
        }
    }

    pub(super) fn request(mut self, op: u8, exchange: ExchangeType, chain: &Chain) -> Self {
        self.bytes.extend([kind::REQUEST | op, exchange.0]);
        self.chain(chain);
        let chain = self.finished(op, chain);
        let (newest, cut) = (op & how::NEWEST != 0, op & how::CUT != 0);
        self.peer.request(newest, exchange, &chain, cut);
        self
    }

    pub(super) fn respond(mut self, op: u8, chain: &Chain) -> Self {
        self.bytes.push(kind::RESPONSE | op);
        self.chain(chain);
        let chain = self.finished(op, chain);
        self.peer.respond(&chain, op & how::CUT != 0);
        self
    }

    /// Answers the endpoint's oldest request as it would like it.
    pub(super) fn oblige(self) -> Self {
        let Some(request) = self.peer.requests.front() else {
            return self;
        };
        let chain = match request.exchange {
            ExchangeType::IKE_AUTH => auth_response(self.peer.setup, &request.payloads, false),
            ExchangeType::CREATE_CHILD_SA => create_response(&request.payloads),
            _ => {
                let deletes = request.payloads.iter().filter_map(|payload| match payload {
                    Payload::Delete(DeletePayload::ChildSas { .. }) => {
                        Some(DeletePayload::esp(ChildSpi(PEER_SPI)).into())
                    }
                    _ => None,
                });
                chain(deletes.collect())
            }
        };
        let op = match request.exchange {
            ExchangeType::IKE_AUTH => how::PROVEN,
            _ => 0,
        };
        self.respond(op, &chain)
    }

    pub(super) fn command(mut self, number: u8) -> Self {
        self.bytes.extend([kind::COMMAND, number]);
        self.peer.command(command(number));
        self
    }

    pub(super) fn step(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn finished(&self, op: u8, chain: &Chain) -> Chain {
        if op & how::PROVEN != 0 {
            self.peer.prove(chain.clone())
        } else {
            chain.clone()
        }
    }

    fn chain(&mut self, chain: &Chain) {
        self.bytes.push(chain.first.0);
        self.bytes.extend(counted(&chain.bytes));
    }
}

pub(super) fn counted(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

//! Bytes to types and back: what parses is emitted so that it parses to the same.

use cygnet_wire::message::Message;
use cygnet_wire::payload::{ChainBuilder, Payload, PayloadType, parse_chain};

/// A datagram of the IKE port.
pub fn wire_message(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let _ = message.encrypted();
    for payload in message.payloads().flatten() {
        let _ = payload.parse();
    }
    if let Ok(payloads) = message.parse_payloads() {
        round_trip(payloads);
    }
}

/// What an encrypted message holds: type of the first payload, then the chain.
pub fn wire_chain(data: &[u8]) {
    let Some((first, chain)) = data.split_first() else {
        return;
    };
    if let Ok(payloads) = parse_chain(PayloadType(*first), chain) {
        round_trip(payloads);
    }
}

fn round_trip(payloads: Vec<Payload<'_>>) {
    let mut builder = ChainBuilder::new();
    for payload in &payloads {
        builder.push(payload.clone());
    }
    // What came in two octets of length goes out in two octets of length.
    let chain = builder.finish().expect("what was parsed can be emitted");
    let again = parse_chain(chain.first, &chain.bytes).expect("what was emitted can be parsed");
    assert_eq!(payloads, again);
}

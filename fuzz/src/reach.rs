//! How far an input gets: which payloads it holds that can be read.

use std::collections::BTreeSet;

use cygnet_wire::message::Message;
use cygnet_wire::payload::{Chain, PayloadType, parse_chain};

use crate::endpoint::Step;
use crate::input::Input;

/// The types of the payloads in an input of `target` whose bodies can be read.
#[must_use]
pub fn payloads(target: &str, data: &[u8]) -> BTreeSet<u8> {
    let mut found = BTreeSet::new();
    match target {
        "wire_message" => of_message(data, &mut found),
        "wire_chain" => {
            if let Some((first, bytes)) = data.split_first() {
                let (first, bytes) = (PayloadType(*first), bytes.to_vec());
                of_chain(&Chain { first, bytes }, &mut found);
            }
        }
        "endpoint_init" => {
            let mut input = Input(data);
            input.u8();
            while !input.is_empty() {
                input.u8();
                of_message(input.bytes(), &mut found);
            }
        }
        "endpoint_auth" | "endpoint_established" => {
            let mut input = Input(data);
            input.u8();
            while !input.is_empty() {
                match Step::read(&mut input) {
                    Step::Request(_, _, chain) | Step::Response(_, chain) => {
                        of_chain(&chain, &mut found);
                    }
                    Step::Raw(datagram) => of_message(datagram, &mut found),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    found
}

fn of_message(datagram: &[u8], found: &mut BTreeSet<u8>) {
    let Ok(message) = Message::parse(datagram) else {
        return;
    };
    for payload in message.payloads().flatten() {
        if payload.parse().is_ok() {
            found.insert(payload.ty.0);
        }
    }
}

/// Only of chains that can be read whole: of others nothing is worked on.
fn of_chain(chain: &Chain, found: &mut BTreeSet<u8>) {
    if let Ok(payloads) = parse_chain(chain.first, &chain.bytes) {
        found.extend(payloads.iter().map(|payload| payload.ty().0));
    }
}

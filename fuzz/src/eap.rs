//! EAP conversations with somebody who knows no password, at either side.

use cygnet_crypto::Random;
use cygnet_eap::mschapv2::{self, nt_hash};
use cygnet_eap::peer::{LogIn, Peer};
use cygnet_eap::server::{Methods, Server};
use cygnet_eap::{Step, peer, server};
use cygnet_wire::eap::{EapCode, EapPayload};

use crate::input::Input;
use crate::seeds::Seed;

/// What is random counts up: so it is for whoever wrote the input.
struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}

const USER: &str = "alice";
/// No input proves it.
const UNKNOWN: &str = "nobody guesses this";

/// Packets, each behind its length: the first octet of the input tells which side reads them. Nobody
/// gets in, and nobody is believed.
pub fn eap(data: &[u8]) {
    let mut input = Input(data);
    let random = &mut Counter(0);
    if input.u8() % 2 == 0 {
        let mut server = Server::new("vpn.example.org", Methods::passwords());
        server.begin(random);
        while let Some(packet) = next(&mut input) {
            let answer = serve(&mut server, &packet, random, UNKNOWN);
            assert!(answer.is_none_or(|answer| answer.code != EapCode::SUCCESS));
        }
    } else {
        let mut peer = Peer::new(USER, LogIn::Password);
        while let Some(packet) = next(&mut input) {
            let answer = call(&mut peer, &packet, random, UNKNOWN);
            assert!(answer.is_none_or(|answer| answer.code == EapCode::RESPONSE));
        }
    }
}

fn next<'a>(input: &mut Input<'a>) -> Option<EapPayload<'a>> {
    while !input.is_empty() {
        if let Ok(packet) = EapPayload::parse(input.bytes()) {
            return Some(packet);
        }
    }
    None
}

/// What the server says to it; only the password of the user lets in.
fn serve(
    server: &mut Server,
    packet: &EapPayload<'_>,
    random: &mut Counter,
    password: &str,
) -> Option<EapPayload<'static>> {
    let step: server::Step = match server.handle(packet, random) {
        Step::Ask(attempt) => server.verified(mschapv2::verify(&nt_hash(password), &attempt)),
        step => step,
    };
    match step {
        Step::Send(packet) | Step::Reject { packet, .. } => Some(packet),
        Step::Success { packet, .. } | Step::Failure { packet, .. } => packet,
        Step::Ask(_) => panic!("the server asks twice"),
    }
}

fn call(
    peer: &mut Peer,
    packet: &EapPayload<'_>,
    random: &mut Counter,
    password: &str,
) -> Option<EapPayload<'static>> {
    let step: peer::Step = match peer.handle(packet, random) {
        Step::Ask(challenges) => peer.responded(mschapv2::respond(&nt_hash(password), &challenges)),
        step => step,
    };
    match step {
        Step::Send(packet) | Step::Reject { packet, .. } => Some(packet),
        Step::Success { .. } => {
            assert_ne!(
                password, UNKNOWN,
                "a server is believed that knows no password"
            );
            None
        }
        Step::Failure { packet, .. } => packet,
        Step::Ask(_) => panic!("the peer asks twice"),
    }
}

/// A conversation with the right password and one with another, as each side reads it.
pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    for (name, own, known) in [("in", "secret", "secret"), ("out", "secret", "another")] {
        let random = &mut Counter(0);
        let mut server = Server::new("vpn.example.org", Methods::passwords());
        let mut peer = Peer::new(USER, LogIn::Password);
        let (mut to_server, mut to_peer) = (vec![0], vec![1]);
        let mut packet = Some(server.begin(random));
        while let Some(request) = packet {
            write(&mut to_peer, &request);
            let Some(response) = call(&mut peer, &request, random, own) else {
                break;
            };
            write(&mut to_server, &response);
            packet = serve(&mut server, &response, random, known);
        }
        seeds.push(("eap", format!("server_{name}"), to_server));
        seeds.push(("eap", format!("peer_{name}"), to_peer));
    }
}

fn write(to: &mut Vec<u8>, packet: &EapPayload<'_>) {
    let octets = packet.emit().unwrap_or_default();
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    to.extend(length.to_be_bytes());
    to.extend(octets);
}

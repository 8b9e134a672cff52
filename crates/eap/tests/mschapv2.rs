//! Both sides of EAP-MSCHAPv2 against each other, and against somebody who plays by no rules.

use cygnet_crypto::{Random, Secret};
use cygnet_eap::mschapv2::{self, nt_hash};
use cygnet_eap::peer::{LogIn, Peer};
use cygnet_eap::server::{Methods, Server};
use cygnet_eap::{Login, Proof, Step};
use cygnet_wire::eap::{EapCode, EapPayload, EapType};
use proptest::prelude::*;

struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}

/// How it ended at an end, and the last packet it sent.
enum End {
    Up(Login),
    Failed(String),
}

/// Every packet is altered by `change` on its way.
fn talk(
    user: &str,
    password: &str,
    known: &[(&str, &str)],
    mut change: impl FnMut(EapPayload<'static>) -> EapPayload<'static>,
) -> (End, End, Vec<EapPayload<'static>>) {
    let random = &mut Counter(0);
    let (mut server, mut peer) = (
        Server::new("vpn", Methods::passwords()),
        Peer::new(user, LogIn::Password),
    );
    let mut sent = Vec::new();
    let mut packet = change(server.begin(random));
    loop {
        sent.push(packet.clone());
        let step = match peer.handle(&packet, random) {
            Step::Ask(challenges) => {
                peer.responded(mschapv2::respond(&nt_hash(password), &challenges))
            }
            step => step,
        };
        let response = match step {
            Step::Send(response) => change(response),
            Step::Failure { why, .. } => {
                return (End::Failed(String::new()), End::Failed(why), sent);
            }
            _ => panic!("too early"),
        };
        sent.push(response.clone());
        let step = match server.handle(&response, random) {
            Step::Ask(attempt) => {
                let hash = known.iter().find(|(name, _)| *name == attempt.user);
                let hash = hash.map_or_else(|| Secret::new(vec![9; 16]), |(_, p)| nt_hash(p));
                server.verified(mschapv2::verify(&hash, &attempt))
            }
            step => step,
        };
        let (end, last) = match step {
            Step::Send(request)
            | Step::Reject {
                packet: request, ..
            } => {
                packet = change(request);
                continue;
            }
            Step::Success { packet, login } => (End::Up(login), packet),
            Step::Failure { packet, why } => (End::Failed(why), packet),
            Step::Ask(_) => panic!("asked twice"),
        };
        let last = last.expect("the last word is the server's");
        sent.push(last.clone());
        let other = match peer.handle(&last, random) {
            Step::Success { login, .. } => End::Up(login),
            Step::Failure { why, .. } => End::Failed(why),
            _ => panic!("goes on after the end"),
        };
        return (end, other, sent);
    }
}

fn why(end: &End) -> &str {
    match end {
        End::Failed(why) => why,
        End::Up(_) => panic!("up"),
    }
}

const KNOWN: [(&str, &str); 1] = [("alice", "correct horse")];

#[test]
fn the_right_password_brings_both_ends_the_same_key() {
    for user in ["alice", "OFFICE\\alice"] {
        let (server, peer, sent) = talk(user, "correct horse", &KNOWN, |packet| packet);
        let (End::Up(server), End::Up(peer)) = (server, peer) else {
            panic!("not up");
        };
        assert_eq!(server.proof, Proof::Password("alice".to_owned()));
        assert_eq!(peer.proof, Proof::Password(user.to_owned()));
        assert_eq!(server.msk.len(), 64);
        assert!(server.msk.ct_eq(peer.msk.expose()));
        assert_eq!(
            sent.last().map(|packet| packet.code),
            Some(EapCode::SUCCESS)
        );
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_packets() {
    let (server, peer, wrong) = talk("alice", "wrong", &KNOWN, |packet| packet);
    assert!(
        why(&server).contains("password is wrong (user alice)"),
        "{}",
        why(&server)
    );
    assert!(
        why(&peer).contains("the user name or the password is wrong"),
        "{}",
        why(&peer)
    );
    let (server, _, unknown) = talk("mallo", "wrong", &KNOWN, |packet| packet);
    assert!(why(&server).contains("user mallo"), "{}", why(&server));
    let from_server = |sent: &[EapPayload<'static>]| -> Vec<_> {
        sent.iter()
            .filter(|packet| packet.code != EapCode::RESPONSE)
            .cloned()
            .collect()
    };
    assert_eq!(from_server(&wrong), from_server(&unknown));
    assert_eq!(
        wrong.last().map(|packet| packet.code),
        Some(EapCode::FAILURE)
    );
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let (_, peer, _) = talk("alice", "correct horse", &KNOWN, |mut packet| {
        if packet.data.starts_with(&[3]) && packet.data.len() > 10 {
            let digit = &mut packet.data.to_mut()[6];
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        packet
    });
    assert!(why(&peer).contains("could not prove"), "{}", why(&peer));
}

#[test]
fn success_without_proof_is_no_success() {
    let mut peer = Peer::new("alice", LogIn::Password);
    let success = EapPayload::bare(EapCode::SUCCESS, 1);
    let Step::Failure { why, .. } = peer.handle(&success, &mut Counter(0)) else {
        panic!("believed");
    };
    assert!(why.contains("without having proven"), "{why}");
}

#[test]
fn who_wants_another_method_is_told_and_told_of() {
    let random = &mut Counter(0);
    let mut server = Server::new("vpn", Methods::passwords());
    let identity = server.begin(random);
    let response = |to: &EapPayload<'_>, ty, data: &[u8]| {
        EapPayload::new(EapCode::RESPONSE, to.identifier, ty, data.to_vec())
    };
    let said = response(&identity, EapType::IDENTITY, b"alice");
    let Step::Send(challenge) = server.handle(&said, random) else {
        panic!("no challenge");
    };
    let nak = response(&challenge, EapType::NAK, &[EapType::GTC.0]);
    let Step::Failure { packet, why } = server.handle(&nak, random) else {
        panic!("goes on");
    };
    assert_eq!(packet.map(|packet| packet.code), Some(EapCode::FAILURE));
    assert!(why.contains("the device wants GTC"), "{why}");

    let mut peer = Peer::new("alice", LogIn::Password);
    let request = EapPayload::new(EapCode::REQUEST, 5, EapType::GTC, &b"Password:"[..]);
    let Step::Send(nak) = peer.handle(&request, random) else {
        panic!("no answer");
    };
    assert_eq!((nak.ty, nak.data.as_ref()), (Some(EapType::NAK), &[26][..]));
    let failure = EapPayload::bare(EapCode::FAILURE, 5);
    let Step::Failure { why, .. } = peer.handle(&failure, random) else {
        panic!("goes on");
    };
    assert!(why.contains("the server wants GTC"), "{why}");
}

#[test]
fn an_answer_to_another_request_is_none() {
    let (server, _, _) = talk("alice", "correct horse", &KNOWN, |mut packet| {
        if packet.code == EapCode::RESPONSE && packet.ty == Some(EapType::MSCHAPV2) {
            packet.identifier = packet.identifier.wrapping_add(1);
        }
        packet
    });
    assert!(
        why(&server).contains("another EAP request"),
        "{}",
        why(&server)
    );
}

proptest! {
    #[test]
    fn nothing_but_the_password_lets_in(
        packets in proptest::collection::vec((1_u8..5, 0_u8..30, proptest::collection::vec(0_u8..60, 0..80)), 1..8)
    ) {
        let random = &mut Counter(0);
        let (mut server, mut peer) = (Server::new("vpn", Methods::passwords()), Peer::new("alice", LogIn::Password));
        let mut identifier = server.begin(random).identifier;
        for (code, ty, data) in packets {
            let packet = EapPayload::new(EapCode(code), identifier, EapType(ty), data);
            match server.handle(&packet, random) {
                Step::Send(request)
                | Step::Reject {
                    packet: request, ..
                } => identifier = request.identifier,
                Step::Ask(attempt) => {
                    let verified = mschapv2::verify(&nt_hash("secret"), &attempt);
                    prop_assert!(verified.is_none());
                    server.verified(verified);
                }
                Step::Success { .. } => prop_assert!(false, "in"),
                Step::Failure { .. } => {}
            }
            match peer.handle(&packet, random) {
                Step::Ask(challenges) => {
                    peer.responded(mschapv2::respond(&nt_hash("secret"), &challenges));
                }
                Step::Success { .. } => prop_assert!(false, "believed"),
                Step::Send(_) | Step::Reject { .. } | Step::Failure { .. } => {}
            }
        }
    }
}

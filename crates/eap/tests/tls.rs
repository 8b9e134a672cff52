//! Both sides of EAP-TLS against each other, and against somebody who plays by no rules.

use std::sync::Arc;

use cygnet_crypto::SystemRandom;
use cygnet_crypto::signature::{SignatureScheme, SigningKey};
use cygnet_eap::peer::{LogIn, Peer};
use cygnet_eap::server::{Methods, Server};
use cygnet_eap::tls::{Credential, Handshake};
use cygnet_eap::{Login, Proof, Step};
use cygnet_wire::eap::{EapCode, EapPayload, EapType};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

/// A certificate of this name that signs itself, with its key.
struct Party {
    certificate: Vec<u8>,
    key: Arc<SigningKey>,
}

impl Party {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Self {
            certificate: certificate.der().to_vec(),
            key: Arc::new(SigningKey::from_der(&key.serialize_der()).unwrap()),
        }
    }

    /// With as many octets of other certificates behind it.
    fn credential(&self, more: usize) -> Credential {
        let key = Arc::clone(&self.key);
        let mut chain = vec![self.certificate.clone()];
        chain.extend((0..more / 1000).map(|_| vec![0x30; 1000]));
        Credential {
            chain,
            key: key.kind(),
            sign: Arc::new(move |scheme: SignatureScheme, octets: &[u8]| {
                key.sign(scheme, octets).map_err(|e| e.to_string())
            }),
        }
    }
}

fn check(known: &Party) -> Box<cygnet_eap::tls::Check> {
    let known = known.certificate.clone();
    Box::new(move |chain| match chain.first() == Some(&known) {
        true => Ok(()),
        false => Err("the certificate is of somebody else".to_owned()),
    })
}

enum End {
    Up(Login),
    Failed(String),
}

fn talk(mut server: Server, mut peer: Peer) -> (End, End, Vec<EapPayload<'static>>) {
    let random = &mut SystemRandom;
    let mut packet = server.begin(random);
    let mut sent = Vec::new();
    loop {
        sent.push(packet.clone());
        let response = match peer.handle(&packet, random) {
            Step::Send(response) => response,
            Step::Failure { why, .. } => {
                return (End::Failed(String::new()), End::Failed(why), sent);
            }
            _ => panic!("too early"),
        };
        sent.push(response.clone());
        let (end, last) = match server.handle(&response, random) {
            Step::Send(request)
            | Step::Reject {
                packet: request, ..
            } => {
                packet = request;
                continue;
            }
            Step::Success { packet, login } => (End::Up(login), packet),
            Step::Failure { packet, why } => (End::Failed(why), packet),
            Step::Ask(_) => panic!("asks for a password"),
        };
        let last = last.expect("the last word is the server's");
        let other = match peer.handle(&last, random) {
            Step::Success { login, .. } => End::Up(login),
            Step::Failure { why, .. } => End::Failed(why),
            _ => panic!("goes on after the end"),
        };
        return (end, other, sent);
    }
}

fn server(own: &Party, client: &Party, passwords: bool, more: usize) -> Server {
    let handshake = Handshake::server(own.credential(more), Vec::new(), check(client)).unwrap();
    let methods = Methods {
        passwords,
        tls: Some(Box::new(handshake)),
    };
    Server::new("vpn", methods)
}

fn client(own: &Party, server: &Party, more: usize) -> Peer {
    let handshake = Handshake::client(own.credential(more), check(server)).unwrap();
    Peer::new("alice@example.org", LogIn::Tls(Box::new(handshake)))
}

fn why(end: &End) -> &str {
    match end {
        End::Failed(why) => why,
        End::Up(_) => panic!("up"),
    }
}

fn assert_up(ends: (End, End, Vec<EapPayload<'static>>), client: &Party) -> usize {
    let (server, peer, sent) = ends;
    let (End::Up(server), End::Up(peer)) = (server, peer) else {
        panic!("not up");
    };
    assert_eq!(server.msk.len(), 64);
    assert!(server.msk.ct_eq(peer.msk.expose()));
    let Proof::Certificates(shown) = server.proof else {
        panic!("not by certificate");
    };
    assert_eq!(shown.first(), Some(&client.certificate));
    for packet in &sent {
        assert!(packet.data.len() <= 1029, "{}", packet.data.len());
    }
    sent.len()
}

#[test]
fn certificates_bring_both_ends_the_same_key() {
    let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
    assert_up(talk(server(&s, &c, false, 0), client(&c, &s, 0)), &c);
}

#[test]
fn long_chains_come_in_fragments() {
    let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
    let short = assert_up(talk(server(&s, &c, false, 0), client(&c, &s, 0)), &c);
    let long = assert_up(talk(server(&s, &c, false, 6000), client(&c, &s, 5000)), &c);
    assert!(long >= short + 20, "{short}, {long}");
}

#[test]
fn who_would_rather_show_a_certificate_may() {
    let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
    let ends = talk(server(&s, &c, true, 0), client(&c, &s, 0));
    assert_eq!(ends.2[3].ty, Some(EapType::NAK));
    assert_up(ends, &c);
}

#[test]
fn who_would_rather_use_a_password_may() {
    let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
    let random = &mut SystemRandom;
    let mut server = server(&s, &c, true, 0);
    let mut peer = Peer::new("alice", LogIn::Password);
    let Step::Send(identity) = peer.handle(&server.begin(random), random) else {
        panic!("no identity");
    };
    let Step::Send(challenge) = server.handle(&identity, random) else {
        panic!("no challenge");
    };
    assert_eq!(challenge.ty, Some(EapType::MSCHAPV2));
}

#[test]
fn a_server_refuses_a_client_and_says_why() {
    let (s, c, other) = (
        Party::new("vpn.example.org"),
        Party::new("alice"),
        Party::new("mallory"),
    );
    let (server, peer, sent) = talk(server(&s, &c, false, 0), client(&other, &s, 0));
    assert!(
        why(&server).contains("of somebody else"),
        "{}",
        why(&server)
    );
    assert!(why(&peer).contains("AccessDenied"), "{}", why(&peer));
    assert!(sent.len() >= 6);
}

#[test]
fn a_client_refuses_a_server_and_says_why() {
    let (s, c, other) = (
        Party::new("vpn.example.org"),
        Party::new("alice"),
        Party::new("mallory"),
    );
    let (server, peer, _) = talk(server(&other, &c, false, 0), client(&c, &s, 0));
    assert!(why(&peer).contains("of somebody else"), "{}", why(&peer));
    assert!(why(&server).contains("AccessDenied"), "{}", why(&server));
}

#[test]
fn success_without_a_handshake_is_no_success() {
    let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
    let mut peer = client(&c, &s, 0);
    let success = EapPayload::bare(EapCode::SUCCESS, 1);
    let Step::Failure { why, .. } = peer.handle(&success, &mut SystemRandom) else {
        panic!("believed");
    };
    assert!(why.contains("without having proven"), "{why}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_but_a_certificate_lets_in(
        packets in proptest::collection::vec((1_u8..5, 0_u8..30, proptest::collection::vec(any::<u8>(), 0..80)), 1..8)
    ) {
        let random = &mut SystemRandom;
        let (s, c) = (Party::new("vpn.example.org"), Party::new("alice"));
        let (mut server, mut peer) = (server(&s, &c, false, 0), client(&c, &s, 0));
        let mut identifier = server.begin(random).identifier;
        for (code, ty, data) in packets {
            let ty = if ty % 2 == 0 { EapType::TLS } else { EapType(ty) };
            let packet = EapPayload::new(EapCode(code), identifier, ty, data);
            match server.handle(&packet, random) {
                Step::Send(request)
                | Step::Reject {
                    packet: request, ..
                } => identifier = request.identifier,
                Step::Success { .. } => prop_assert!(false, "in"),
                Step::Ask(_) | Step::Failure { .. } => {}
            }
            let believed = matches!(peer.handle(&packet, random), Step::Success { .. });
            prop_assert!(!believed);
        }
    }
}

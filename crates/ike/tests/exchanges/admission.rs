//! Callers whom nobody knows yet: what each may cost, and that none keeps others out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use cygnet_crypto::suite::Group;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::Output;
use cygnet_ike::policy::{Connection, IdentityPattern, Policy};
use cygnet_ike::status::Status;
use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use cygnet_wire::id::Identification;
use cygnet_wire::ke::KePayload;
use cygnet_wire::message::MessageBuilder;
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::PayloadType;
use cygnet_wire::sa::{ProposalSpi, TransformId};

/// A call as anybody can send it, with a public value that is none.
fn bad_call(spi: u64, public: usize) -> Vec<u8> {
    bad_call_with(spi, vec![0; public])
}

/// One whose caller has no more to say.
fn bad_call_with(spi: u64, public: Vec<u8>) -> Vec<u8> {
    let header = IkeHeader {
        initiator_spi: Spi(spi),
        responder_spi: Spi::ZERO,
        version: Version::V2_0,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags::new(true, false),
        message_id: MessageId::ZERO,
    };
    let offer =
        cygnet_ike::proposal::offer_ike(&cygnet_ike::proposal::default_ike(), ProposalSpi::None);
    let mut message = MessageBuilder::new(header);
    message.push(offer);
    message.push(KePayload::new(TransformId(31), public));
    message.push(NoncePayload::new(vec![7; 32]));
    message.finish().unwrap()
}

#[test]
fn calls_that_cost_a_key_exchange_for_nothing_make_cookies_due() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    let stranger = |n: u64| {
        let source = SocketAddr::from(([203, 0, 113, 99], 1000 + n as u16));
        path(SocketAddr::new(B.address(), 500), source)
    };
    let now = at(world.now);
    for n in 0..100 {
        // All zero is no public value of x25519 that leads to a secret (RFC 7748 §6.1).
        let datagram = bad_call(n + 1, 32);
        world
            .b
            .endpoint
            .handle_datagram(now, stranger(n), &datagram);
    }
    let counters = world.b.endpoint.status(now).counters;
    assert_eq!((counters.refused, counters.cookies), (32, 68));
    while world.b.endpoint.poll_output().is_some() {}
    // Who receives its cookie is served.
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

/// B is called twenty times, from these places, and hears no more of any; what is so then.
fn called_from(world: &mut World, place: impl Fn(u8) -> SocketAddr) -> Status {
    let now = at(world.now);
    let own = SocketAddr::new(B.address(), 500);
    for n in 1..=20 {
        let datagram = bad_call_with(n.into(), vec![9; 32]);
        (world.b.endpoint).handle_datagram(now, path(own, place(n)), &datagram);
    }
    let status = world.b.endpoint.status(now);
    world.drain(B);
    status
}

#[test]
fn calls_in_the_name_of_a_peer_do_not_keep_it_out() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    let status = called_from(&mut world, |n| {
        SocketAddr::new(A.address(), 1000 + u16::from(n))
    });
    assert_eq!((status.half_open, status.counters.cookies), (4, 16));
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn where_too_many_call_the_oldest_gives_way() {
    let mut policy_b = policy(connection(B));
    policy_b.limits.half_open = 4;
    let mut world = World::new(policy(connection(A)), policy_b);
    let status = called_from(&mut world, |n| SocketAddr::from(([203, 0, 113, n], 500)));
    assert_eq!((status.half_open, status.counters.dropped), (4, 16));
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let told = |r: &Reason| matches!(r, Reason::Local(why) if why.contains("gave way"));
    assert!(world.b.reasons().iter().any(told), "{}", world.tail());
}

#[test]
fn a_call_that_gives_way_leaves_no_log_in_behind() {
    let mut policy_b = policy(with_password(B));
    policy_b.limits.half_open = 1;
    let mut world = World::new(policy(with_password(A)), policy_b);
    world.until(5, "a log-in", |world| world.b.log_ins.under_way() == 1);
    let places = (
        SocketAddr::new(B.address(), 500),
        SocketAddr::from(([203, 0, 113, 1], 500)),
    );
    let now = at(world.now);
    let datagram = bad_call_with(9, vec![9; 32]);
    (world.b.endpoint).handle_datagram(now, path(places.0, places.1), &datagram);
    world.drain(B);
    assert_eq!(world.b.log_ins.under_way(), 0);
}

#[test]
fn who_calls_itself_by_a_name_that_has_no_end_is_refused() {
    for (octets, is_let_in) in [(1024, true), (1025, false), (60_000, false)] {
        let mut a = connection(A);
        a.local_identity = Some(Identification::fqdn(&"a".repeat(octets)));
        let mut b = connection(B);
        b.remote_identity = IdentityPattern::Any;
        let mut world = World::new(policy(a), policy(b));
        world.seconds(5);
        if is_let_in {
            world.assert_in_step(&["one"]);
            continue;
        }
        assert!(world.b.children.is_empty(), "{octets}");
        let told = |r: &Reason| matches!(r, Reason::PeerAuthentication(why) if why.contains(&format!("has {octets} octets")));
        assert!(world.b.reasons().iter().any(told), "{}", world.tail());
        let refused = |r: &Reason| matches!(r, Reason::AuthenticationRefused(_));
        assert!(world.a.reasons().iter().any(refused), "{}", world.tail());
    }
}

/// A message of somebody whose keys nobody has.
fn encrypted(header: IkeHeader) -> Vec<u8> {
    let mut message = MessageBuilder::new(header).finish().unwrap();
    message[16] = PayloadType::SK.0;
    message.extend([0, 0, 0, 36]);
    message.extend([0x5a; 32]);
    message[27] = message.len() as u8;
    message
}

#[test]
fn word_without_an_ike_sa_is_a_hint_and_only_what_is_encrypted_is_answered() {
    let header = IkeHeader {
        initiator_spi: Spi(1),
        responder_spi: Spi(2),
        version: Version::V2_0,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::new(true, false),
        message_id: MessageId::ZERO,
    };
    let plain = |ty| {
        let mut message = MessageBuilder::new(header);
        message.push(NotifyPayload::with_data(ty, vec![0, 0, 1, 1]));
        message.finish().unwrap()
    };
    let mut world = up();
    world.seconds(20);
    // RFC 7296 §1.5: the receiving node must not respond to it.
    let from_a = world.b.ike_sas(world.now)[0].path;
    let mut stranger = from_a;
    stranger.remote = SocketAddr::from(([203, 0, 113, 99], 500));
    for (path, datagram, answers, asked) in [
        (stranger, plain(NotifyType::INVALID_SPI), 0, 0),
        (stranger, encrypted(header), 1, 0),
        (from_a, plain(NotifyType::INITIAL_CONTACT), 0, 0),
        (from_a, plain(NotifyType::INVALID_SPI), 0, 1),
    ] {
        let b = &mut world.b.endpoint;
        b.handle_datagram(at(world.now), path, &datagram);
        let (mut answered, mut probed) = (0, 0);
        while let Some(output) = b.poll_output() {
            if let Output::Transmit(transmit) = output {
                let (header, _, _) = IkeHeader::parse(&transmit.datagram).unwrap();
                answered += usize::from(header.flags.is_response());
                probed += usize::from(!header.flags.is_response());
            }
        }
        assert_eq!((answered, probed), (answers, asked), "{path}");
    }
}

#[test]
fn strangers_do_not_use_up_the_answers_that_callers_need() {
    let mut a = connection(A);
    // Its first guess is a group that B does not have.
    for proposal in &mut a.ike_proposals {
        proposal.group = vec![Group::EcpP384, Group::Curve25519];
    }
    let mut b = connection(B);
    for proposal in &mut b.ike_proposals {
        proposal.group = vec![Group::Curve25519];
    }
    let mut world = World::new(policy(a), policy(b));
    let header = IkeHeader {
        initiator_spi: Spi(1),
        responder_spi: Spi(2),
        version: Version::V2_0,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::new(true, false),
        message_id: MessageId::ZERO,
    };
    let noise = encrypted(header);
    let source = SocketAddr::from(([203, 0, 113, 99], 500));
    let stranger = path(SocketAddr::new(B.address(), 500), source);
    for _ in 0..30 {
        let now = at(world.now);
        for _ in 0..60 {
            world.b.endpoint.handle_datagram(now, stranger, &noise);
        }
        while world.b.endpoint.poll_output().is_some() {}
        world.run(Duration::from_millis(9));
    }
    world.assert_in_step(&["one"]);
}

#[test]
fn replayed_request_is_answered_a_few_times_and_not_without_end() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let tap = seen.clone();
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::IKE_AUTH, false) {
            tap.borrow_mut().push(flight.clone());
        }
        Fate::Deliver
    });
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let request = seen.borrow()[0].clone();
    let victim = SocketAddr::from(([203, 0, 113, 99], 53));
    let spoofed = path(request.path.local, victim);
    let replay = |world: &mut World, times: usize| {
        let now = at(world.now);
        let mut answers = 0;
        for _ in 0..times {
            let b = &mut world.b.endpoint;
            b.handle_datagram(now, spoofed, &request.datagram);
            while let Some(output) = b.poll_output() {
                answers += usize::from(matches!(output, Output::Transmit(_)));
            }
        }
        answers
    };
    assert_eq!(replay(&mut world, 100), 8);
    world.seconds(3);
    assert_eq!(replay(&mut world, 100), 3);
    world.seconds(3);
    assert_eq!(replay(&mut world, 1), 1);
    world.assert_in_step(&["one"]);
}

#[test]
fn failed_authentications_are_not_reported_without_end() {
    let mut a = connection(A);
    a.local_identity = Some(Identification::fqdn("stranger.example.org"));
    let strangers: Vec<_> = (0..14)
        .map(|n| {
            let name = format!("link{n}");
            Arc::new(Connection { name, ..a.clone() })
        })
        .collect();
    let callers = Policy {
        connections: strangers,
        ..Policy::default()
    };
    let mut world = World::new(callers, policy(connection(B)));
    world.run(Duration::from_millis(200));
    let refused = |k: &EventKind| matches!(k, EventKind::Refused { .. });
    assert_eq!(world.b.count(refused), 10, "{}", world.tail());
    let now = at(world.now);
    assert_eq!(world.b.endpoint.status(now).counters.refused, 14);
}

#[test]
fn device_that_fails_again_and_again_leaves_room_for_its_neighbours() {
    let mut bad = connection(A);
    bad.local_identity = Some(Identification::fqdn("stranger.example.org"));
    let mut callers: Vec<_> = (0..20)
        .map(|n| {
            let name = format!("link{n}");
            Connection {
                name,
                ..bad.clone()
            }
        })
        .collect();
    let all = |connections: &[Connection]| Policy {
        connections: connections.iter().cloned().map(Arc::new).collect(),
        ..Policy::default()
    };
    let mut world = World::new(all(&callers), policy(connection(B)));
    world.seconds(1);
    callers.push(connection(A));
    world.policy(A, all(&callers));
    world.seconds(1);
    let now = world.now;
    assert_eq!(world.b.established(now).len(), 1, "{}", world.tail());
}

#[test]
fn caller_without_nat_traversal_is_told_apart() {
    let mut b = policy(connection(B));
    b.esp_in_udp_only = true;
    let mut world = World::new(Policy::default(), b);
    let stranger = path(
        SocketAddr::new(B.address(), 500),
        SocketAddr::from(([203, 0, 113, 99], 500)),
    );
    let now = at(world.now);
    world
        .b
        .endpoint
        .handle_datagram(now, stranger, &bad_call(1, 32));
    world.drain(B);
    let why =
        |r: &Reason| matches!(r, Reason::NoEncapsulation(why) if why.contains("NAT_DETECTION"));
    assert!(world.b.reasons().iter().any(why), "{:?}", world.b.reasons());
}

//! Peers that have all the keys and do not do as they should.

use std::net::{IpAddr, SocketAddr};

use crate::common::*;
use crate::scripted::{self, CRITICAL, Peer, Request, critical, malformed, notifies};
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::WantedAddress;
use cygnet_ike::nat;
use cygnet_ike::policy::{ChildPolicy, Connection, PoolId, SelectorTemplate, Start};
use cygnet_ike::proposal::ChildExchange;
use cygnet_wire::cp::{CfgAttribute, CfgType, CpPayload};
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::header::{ChildSpi, ExchangeType, Spi};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::{ProposalSpi, ProtocolId};
use cygnet_wire::ts::{AddrRange, TrafficSelector};

/// The answer is just the notification that names the type which is not known (RFC 7296 §2.5).
#[track_caller]
fn assert_names_the_unknown(answer: &[Payload<'static>]) {
    assert_eq!(answer.len(), 1, "{answer:?}");
    let notify = notifies(answer).next().expect("a notification");
    assert_eq!(notify.ty, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);
    assert_eq!(notify.data[..], [CRITICAL.0]);
}

#[track_caller]
fn assert_only(answer: &[Payload<'static>], ty: NotifyType) {
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert!(notifies(answer).any(|n| n.ty == ty), "{answer:?}");
}

/// What is in flight may still arrive.
#[track_caller]
fn assert_nothing_sends(peer: &Peer) {
    let sends = (peer.world.a.children.values()).any(|child| child.keys_out.is_some());
    assert!(!sends, "{}", peer.world.tail());
}

fn down_by_protocol(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::IkeDown {
            reason: Reason::Protocol(_)
        }
    )
}

#[test]
fn unknown_critical_payload_in_ike_sa_init_is_named_and_costs_nothing() {
    let mut peer = Peer::caller(known());
    let answer = peer.call(vec![critical()]);
    assert_names_the_unknown(&answer);
    let now = at(peer.world.now);
    assert_eq!(peer.world.a.endpoint.status(now).half_open, 0);
    // The next call is taken.
    let mut peer = Peer::caller(known());
    assert!(peer.call(Vec::new()).len() > 3);
}

#[test]
fn unknown_critical_payload_in_the_answer_to_a_call_is_none() {
    let mut peer = Peer::called(scripted::known(Start::Always));
    peer.answer_call(vec![critical()]);
    // Anybody may have sent it: the true answer may follow.
    peer.assert_silence();
    assert!(!peer.is_up());
    assert_eq!(
        peer.world
            .a
            .count(|k| matches!(k, EventKind::IkeDown { .. })),
        0
    );
}

#[test]
fn unknown_critical_payload_in_ike_auth_is_named_and_nobody_is_authenticated() {
    let mut peer = Peer::caller(known());
    peer.call(Vec::new());
    let answer = peer.authenticate(vec![critical()]);
    assert_names_the_unknown(&answer);
    assert!(!peer.is_up());
    peer.world.seconds(60);
    peer.world.assert_empty();
}

#[test]
fn unknown_critical_payload_in_create_child_sa_is_named_and_the_ike_sa_stays() {
    let mut peer = Peer::established();
    let answer = peer.create_child("two", 0x2000_0002, vec![critical()]);
    assert_names_the_unknown(&answer);
    assert!(peer.is_up());
    assert_eq!(peer.children(), ["one"]);
    let answer = peer.create_child("two", 0x2000_0002, Vec::new());
    assert!(
        answer.iter().any(|p| scripted::sa(p).is_some()),
        "{answer:?}"
    );
    assert_eq!(peer.children(), ["one", "two"]);
}

#[test]
fn unknown_critical_payload_in_informational_is_named_and_nothing_of_it_done() {
    let mut peer = Peer::established();
    let payloads = vec![DeletePayload::IkeSa.into(), critical()];
    let answer = peer.request(ExchangeType::INFORMATIONAL, payloads);
    assert_names_the_unknown(&answer);
    assert!(peer.is_up());
    assert_eq!(peer.request(ExchangeType::INFORMATIONAL, Vec::new()), []);
}

#[test]
fn unknown_payload_that_is_not_critical_is_passed_over() {
    let mut peer = Peer::established();
    let Payload::Unknown { ty, body, .. } = critical() else {
        unreachable!()
    };
    let critical = false;
    let payloads = vec![Payload::Unknown { ty, critical, body }];
    assert_eq!(peer.request(ExchangeType::INFORMATIONAL, payloads), []);
    assert!(peer.is_up());
}

/// RFC 7296 §2.21.3.
#[test]
fn malformed_request_is_answered_with_invalid_syntax_and_ends_the_ike_sa() {
    for exchange in [ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL] {
        let mut peer = Peer::established();
        let answer = peer.request_of(exchange, &malformed());
        assert_only(&answer, NotifyType::INVALID_SYNTAX);
        assert!(!peer.is_up());
        assert_eq!(peer.world.a.count(down_by_protocol), 1);
        peer.world.seconds(60);
        peer.assert_silence();
        peer.world.assert_empty();
    }
}

#[test]
fn malformed_ike_auth_is_answered_with_invalid_syntax_and_forgotten() {
    let mut peer = Peer::caller(known());
    peer.call(Vec::new());
    let answer = peer.request_of(ExchangeType::IKE_AUTH, &malformed());
    assert_only(&answer, NotifyType::INVALID_SYNTAX);
    peer.world.seconds(60);
    peer.world.assert_empty();
}

#[test]
fn invalid_syntax_in_a_response_ends_the_ike_sa_without_a_word() {
    let mut peer = Peer::established_by_endpoint();
    peer.world.command(A, bring_up(Some("two")));
    let request = peer.next_request();
    assert_eq!(request.exchange, ExchangeType::CREATE_CHILD_SA);
    peer.respond(
        &request,
        vec![NotifyPayload::new(NotifyType::INVALID_SYNTAX).into()],
    );
    let refused = |k: &EventKind| matches!(k, EventKind::IkeDown { reason: Reason::PeerRefused(why) } if why.contains("INVALID_SYNTAX"));
    assert_eq!(peer.world.a.count(refused), 1, "{}", peer.world.tail());
    assert!(peer.world.a.reserved.is_empty());
    assert_nothing_sends(&peer);
}

#[test]
fn malformed_response_frees_what_its_request_had_reserved() {
    for rekey in [false, true] {
        let mut peer = Peer::established_by_endpoint();
        let command = match rekey {
            true => rekey_child("one"),
            false => bring_up(Some("two")),
        };
        peer.world.command(A, command);
        let request = peer.next_request();
        assert_eq!(request.exchange, ExchangeType::CREATE_CHILD_SA);
        assert_eq!(peer.world.a.reserved.len(), 1);
        peer.respond_with(&request, &malformed());
        assert!(peer.world.a.reserved.is_empty(), "{}", peer.world.tail());
        // RFC 7296 §2.21: nothing is said about it but that the IKE SA is over.
        let request = peer.next_request();
        assert_eq!(request.exchange, ExchangeType::INFORMATIONAL);
        assert_eq!(request.payloads, [DeletePayload::IkeSa.into()]);
        peer.respond(&request, Vec::new());
        assert_eq!(peer.world.a.count(down_by_protocol), 1);
        assert_nothing_sends(&peer);
    }
}

#[test]
fn malformed_answer_to_ike_auth_frees_the_spi_and_the_call_is_made_again() {
    let mut peer = Peer::called(scripted::known(Start::Always));
    peer.answer_call(Vec::new());
    let request = peer.next_request();
    assert_eq!(peer.world.a.reserved.len(), 1);
    peer.respond_with(&request, &malformed());
    assert!(!peer.is_up());
    // The peer believes the IKE SA to be up: it is told (RFC 7296 §2.21.2).
    let request = peer.next_request();
    assert_eq!(request.exchange, ExchangeType::INFORMATIONAL);
    assert!(request.notify(NotifyType::AUTHENTICATION_FAILED).is_some());
    peer.respond(&request, Vec::new());
    assert!(peer.world.a.reserved.is_empty(), "{}", peer.world.tail());
    let retries = |k: &EventKind| matches!(k, EventKind::Retry { .. });
    assert_eq!(peer.world.a.count(retries), 1);
}

/// RFC 7296 §2.25: the peer has lost a Child SA without our knowing.
#[test]
fn rekey_of_a_child_the_peer_does_not_know_makes_a_new_one() {
    let mut peer = Peer::established_by_endpoint();
    let now = peer.world.now;
    let old = peer.world.a.child_sas(now)[0].spi_in;
    peer.world.command(A, rekey_child("one"));
    let request = peer.next_request();
    let rekeyed = request.notify(NotifyType::REKEY_SA).expect("REKEY_SA");
    assert_eq!(rekeyed.spi, ProposalSpi::Child(ChildSpi(old)));
    let mut not_found = rekeyed.clone();
    not_found.ty = NotifyType::CHILD_SA_NOT_FOUND;
    peer.respond(&request, vec![not_found.into()]);
    let mut request = peer.next_request();
    if request.exchange == ExchangeType::INFORMATIONAL {
        // The rest of the old one is cleared away first.
        peer.respond(&request, Vec::new());
        request = peer.next_request();
    }
    assert_eq!(request.exchange, ExchangeType::CREATE_CHILD_SA);
    assert_eq!(request.notify(NotifyType::REKEY_SA), None);
    let mut payloads = peer.acceptance(&request, 0x2000_0002, ChildExchange::CreateChildSa);
    payloads.push(Peer::nonce());
    peer.respond(&request, payloads);
    peer.world.seconds(10);
    let now = peer.world.now;
    let children = peer.world.a.child_sas(now);
    assert_eq!(children.len(), 1, "{children:#?}\n{}", peer.world.tail());
    assert_ne!(children[0].spi_in, old);
    assert_eq!(children[0].spi_out, 0x2000_0002);
    assert_eq!(peer.world.a.children.len(), 1);
    assert!(peer.world.a.reserved.is_empty());
}

#[test]
fn rekey_of_a_child_we_do_not_know_is_told_which() {
    let mut peer = Peer::established();
    let unknown = ChildSpi(0x2999_9999);
    let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, unknown);
    let answer = peer.create_child("one", 0x2000_0002, vec![rekey.into()]);
    assert_only(&answer, NotifyType::CHILD_SA_NOT_FOUND);
    let told = notifies(&answer).next().unwrap();
    assert_eq!(told.protocol, ProtocolId::ESP);
    assert_eq!(told.spi, ProposalSpi::Child(unknown));
    assert!(peer.is_up());
    assert_eq!(peer.children(), ["one"]);
    assert!(peer.world.a.reserved.is_empty());
}

/// RFC 4478: the peer says how long its idea of who we are lasts.
#[test]
fn lifetime_of_the_authentication_is_obeyed_by_who_called() {
    for informational in [false, true] {
        let lifetime = || {
            let seconds = 300u32.to_be_bytes().to_vec();
            NotifyPayload::with_data(NotifyType::AUTH_LIFETIME, seconds).into()
        };
        let mut peer = Peer::called(scripted::known(Start::Always));
        peer.answer_call(Vec::new());
        if informational {
            peer.answer_auth(Vec::new());
            assert_eq!(
                peer.request(ExchangeType::INFORMATIONAL, vec![lifetime()]),
                []
            );
        } else {
            peer.answer_auth(vec![lifetime()]);
        }
        assert!(peer.is_up());
        let calls = |peer: &Peer| {
            (peer.world.log.iter())
                .filter(|line| line.contains("A Connecting"))
                .count()
        };
        assert_eq!(calls(&peer), 1);
        // Signs of life are answered meanwhile.
        while calls(&peer) == 1 {
            assert!(peer.world.now.as_secs() < 300, "{}", peer.world.tail());
            peer.world.seconds(1);
            peer.answer_signs_of_life();
        }
        assert!(peer.world.now.as_secs() > 150, "{}", peer.world.tail());
        // Make before break: the old one is still there.
        assert!(peer.is_up());
    }
}

/// RFC 7296 §1.3: an IKE SA holds a bounded number of Child SAs.
#[test]
fn more_children_than_an_ike_sa_holds_are_refused() {
    let mut peer = Peer::established();
    let mut made = 1;
    let answer = loop {
        let answer = peer.create_child("two", 0x2000_0001 + made, Vec::new());
        if !answer.iter().any(|p| scripted::sa(p).is_some()) {
            break answer;
        }
        made += 1;
        assert!(made < 10_000, "there is no end to it");
    };
    assert_only(&answer, NotifyType::NO_ADDITIONAL_SAS);
    assert_eq!(peer.world.a.children.len(), made as usize);
    assert!(peer.world.a.reserved.is_empty());
    let why = peer.world.a.reasons();
    assert!(
        why.iter().any(|r| r.to_string().contains("at most")),
        "{why:?}"
    );
    // One may still be replaced by another, and one that has gone makes room.
    let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0x2000_0001));
    let answer = peer.create_child("one", 0x2fff_0001, vec![rekey.into()]);
    assert!(
        answer.iter().any(|p| scripted::sa(p).is_some()),
        "{answer:?}"
    );
    for spi in [0x2000_0001, 0x2000_0002] {
        let delete = DeletePayload::esp(ChildSpi(spi)).into();
        peer.request(ExchangeType::INFORMATIONAL, vec![delete]);
    }
    let answer = peer.create_child("two", 0x2fff_0002, Vec::new());
    assert!(
        answer.iter().any(|p| scripted::sa(p).is_some()),
        "{answer:?}"
    );
}

/// A client, up with one Child SA for the address it is lent.
fn client() -> (Peer, TrafficSelector) {
    let mut connection = known();
    connection.pool = Some(PoolId("pool".to_owned()));
    let mut policy = ChildPolicy::clone(&connection.children[0]);
    policy.local = vec![subnet("0.0.0.0/0")];
    policy.remote = vec![SelectorTemplate::Dynamic];
    connection.children = vec![policy.into()];
    let mut peer = Peer::caller(connection);
    peer.call(Vec::new());
    let attributes = vec![CfgAttribute::Ip4Address(None)];
    let request = CpPayload::new(CfgType::CFG_REQUEST, attributes);
    let (any, more) = (TrafficSelector::any_v4(), vec![request.into()]);
    let answer = peer.authenticate_for((vec![any.clone()], vec![any]), more);
    let lent = answer.iter().find_map(|payload| match payload {
        Payload::Tsi(ts) => ts.selectors.first().cloned(),
        _ => None,
    });
    (peer, lent.expect("TSi"))
}

fn is_made(answer: &[Payload<'static>]) -> bool {
    answer.iter().any(|payload| scripted::sa(payload).is_some())
}

#[test]
fn a_client_holds_few_children() {
    let (mut peer, lent) = client();
    let any = TrafficSelector::any_v4();
    for spi in 0x2000_0002..0x2000_0041 {
        let answer = peer.create_child_for((vec![lent.clone()], vec![any.clone()]), spi, vec![]);
        assert!(is_made(&answer), "{spi:x}: {answer:?}");
    }
    let answer = peer.create_child_for((vec![lent.clone()], vec![any.clone()]), 0x2fff, vec![]);
    assert_only(&answer, NotifyType::NO_ADDITIONAL_SAS);
    assert_eq!(peer.world.a.children.len(), 64);
    let why = peer.world.a.reasons();
    assert!(why[0].to_string().contains("holds 64 Child"), "{why:?}");
    assert_eq!(why.len(), 1);
    // Each is still rekeyed.
    let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0x2000_0005));
    let answer = peer.create_child_for((vec![lent], vec![any]), 0x2fff, vec![rekey.into()]);
    assert!(is_made(&answer), "{answer:?}");
}

/// So many ranges of addresses that no two of them are neighbours; each is made of `prefixes` prefixes.
fn ranges(count: u32, prefixes: u32) -> Vec<TrafficSelector> {
    let range = |number: u32| {
        // From an odd address on: one prefix of each length.
        let low = (10 << 24) + (number << 8) + 1;
        let high = low + (1 << prefixes) - 2;
        let range = AddrRange::new(
            std::net::Ipv4Addr::from_bits(low).into(),
            std::net::Ipv4Addr::from_bits(high).into(),
        );
        TrafficSelector::from_range(range.unwrap())
    };
    (0..count).map(range).collect()
}

#[test]
fn all_children_of_a_client_name_so_many_networks() {
    let (mut peer, lent) = client();
    // The first holds two, and each of these 1 + 60 * 2.
    let mut made = 0;
    let answer = loop {
        let sides = (vec![lent.clone()], ranges(60, 2));
        let answer = peer.create_child_for(sides, 0x2000_0002 + made, vec![]);
        if !is_made(&answer) {
            break answer;
        }
        made += 1;
    };
    assert_only(&answer, NotifyType::NO_ADDITIONAL_SAS);
    assert_eq!(made, 4);
    let why = peer.world.a.reasons();
    let (more, held) = ("name 121 networks", "those of others 486");
    let told = |why: &Reason| why.to_string().contains(more) && why.to_string().contains(held);
    assert!(why.iter().any(told), "{why:?}");
    assert!(peer.world.a.reserved.is_empty());
    // What names fewer, and what takes the place of another, fits in.
    let few = (vec![lent.clone()], ranges(10, 1));
    let answer = peer.create_child_for(few, 0x2000_0100, vec![]);
    assert!(is_made(&answer), "{answer:?}");
    let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0x2000_0003));
    let sides = (vec![lent.clone()], ranges(60, 2));
    let answer = peer.create_child_for(sides, 0x2000_0200, vec![rekey.into()]);
    assert!(is_made(&answer), "{answer:?}");
}

#[test]
fn an_answer_that_names_too_many_networks_is_none() {
    let mut connection = scripted::known(Start::Always);
    let mut policy = ChildPolicy::clone(&connection.children[0]);
    policy.remote = vec![subnet("0.0.0.0/0")];
    connection.children = vec![policy.into()];
    let mut peer = Peer::called(connection);
    peer.answer_call(Vec::new());
    peer.answer_auth_with(ranges(120, 24));
    assert!(peer.is_up());
    assert!(peer.world.a.children.is_empty());
    let why = peer.world.a.reasons();
    let told = |why: &Reason| why.to_string().contains("expected 2048 at most");
    assert!(why.iter().any(told), "{why:?}");
    // The peer is told that there is none.
    assert!(peer.world.a.reserved.is_empty());
}

#[test]
fn child_sas_without_a_key_exchange_are_no_faster_made_than_others() {
    let mut peer = Peer::established();
    let mut made = 0;
    let answer = loop {
        let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0x2000_0001 + made));
        let answer = peer.create_child("one", 0x2000_0002 + made, vec![rekey.into()]);
        if !is_made(&answer) {
            break answer;
        }
        let delete = DeletePayload::esp(ChildSpi(0x2000_0001 + made)).into();
        peer.request(ExchangeType::INFORMATIONAL, vec![delete]);
        made += 1;
        assert!(made < 10_000, "there is no end to it");
    };
    assert_only(&answer, NotifyType::TEMPORARY_FAILURE);
    // 256, and what came back meanwhile.
    assert!((256..300).contains(&made), "{made}");
    peer.world.seconds(1);
    let rekey = NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(0x2000_0001 + made));
    let answer = peer.create_child("one", 0x2000_0002 + made, vec![rekey.into()]);
    assert!(is_made(&answer), "{answer:?}");
}

/// RFC 7296 §3.15.4: the IKE SA is up, the child is not, and the caller is told why.
#[test]
fn pool_without_a_free_address_refuses_the_child_and_not_the_peer() {
    let mut connection = known();
    connection.pool = Some(PoolId("pool".to_owned()));
    let mut lent = child(A, "one", Start::Manual);
    lent.remote = vec![SelectorTemplate::Dynamic];
    connection.children = vec![lent.into()];
    let mut peer = Peer::caller(connection);
    peer.world.a.pool_is_full = true;
    peer.call(Vec::new());
    let attributes = vec![CfgAttribute::Ip4Address(None)];
    let request = CpPayload::new(CfgType::CFG_REQUEST, attributes);
    let answer = peer.authenticate(vec![request.into()]);
    let errors: Vec<_> = notifies(&answer).map(|n| n.ty).collect();
    assert_eq!(errors, [NotifyType::INTERNAL_ADDRESS_FAILURE]);
    assert!(
        answer.iter().any(|p| matches!(p, Payload::Auth(_))),
        "{answer:?}"
    );
    assert!(
        !answer.iter().any(|p| matches!(p, Payload::Cp(_))),
        "{answer:?}"
    );
    assert!(peer.is_up());
    assert!(peer.world.a.children.is_empty() && peer.world.a.reserved.is_empty());
    let why = peer.world.a.reasons();
    assert!(why[0].to_string().contains("no address is free"), "{why:?}");
}

/// The same between two endpoints: the caller says what it was told, and calls again until there is
/// an address.
#[test]
fn caller_learns_that_the_pool_is_full_and_is_let_in_when_somebody_goes() {
    let mut a = connection(A);
    a.request_virtual = vec![WantedAddress::V4(None)];
    let mut own = child(A, "one", Start::Always);
    own.local = vec![SelectorTemplate::Dynamic];
    a.children = vec![own.into()];
    let mut b = connection(B);
    b.pool = Some(PoolId("pool".to_owned()));
    let mut lent = child(B, "one", Start::Manual);
    lent.remote = vec![SelectorTemplate::Dynamic];
    b.children = vec![lent.into()];
    let mut world = World::new(policy(a), policy(b));
    world.b.pool_is_full = true;
    world.seconds(2);
    let why = world.a.reasons();
    let told = |r: &Reason| r.to_string().contains("INTERNAL_ADDRESS_FAILURE");
    assert!(why.iter().any(told), "{why:?}");
    assert!(world.a.children.is_empty() && world.b.children.is_empty());
    assert!(world.b.leases.is_empty());
    assert!(world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0);
    // Somebody goes.
    world.b.pool_is_full = false;
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(world.b.leases.len(), 1, "{}", world.tail());
}

fn known() -> Connection {
    scripted::known(Start::Manual)
}

/// The endpoint's rekey is in flight, and the peer has rekeyed as well, with the SPI 1; the
/// endpoint's request, and its answer.
fn both_rekey() -> (Peer, Request, Vec<Payload<'static>>) {
    let mut peer = Peer::established();
    peer.world.command(A, rekey_ike());
    let theirs = peer.next_request();
    let answer = peer.rekey_ike(1);
    assert!(notifies(&answer).next().is_none(), "{answer:?}");
    (peer, theirs, answer)
}

#[test]
fn a_peer_that_rekeys_again_and_again_gets_one_new_ike_sa() {
    let (mut peer, ..) = both_rekey();
    for spi in 2..10 {
        let answer = peer.rekey_ike(spi);
        assert_only(&answer, NotifyType::TEMPORARY_FAILURE);
    }
    let now = peer.world.now;
    assert_eq!(peer.world.a.ike_sas(now).len(), 2);
}

#[test]
fn a_response_that_makes_no_ike_sa_leaves_everything_to_the_one_that_the_peer_made() {
    let (mut peer, theirs, _) = both_rekey();
    // No KE payload.
    let payloads = peer.acceptance_of_ike(&theirs);
    peer.respond(&theirs, payloads);
    let end = peer.next_request();
    assert!(end.deletes_ike_sa());
    peer.respond(&end, Vec::new());
    assert_eq!(peer.children(), ["one"]);
    let now = peer.world.now;
    assert_eq!(peer.world.a.established(now)[0].spi_i.0, 1);
    peer.world.seconds(20);
    assert!(peer.is_up(), "{}", peer.world.tail());
    let down =
        |k: &EventKind| matches!(k, EventKind::IkeDown { reason } if *reason != Reason::Replaced);
    assert_eq!(peer.world.a.count(down), 0, "{}", peer.world.tail());
    let told = |r: &Reason| matches!(r, Reason::Protocol(why) if why.contains("no KE payload"));
    let reasons = peer.world.a.reasons();
    assert!(reasons.iter().any(told), "{reasons:?}");
}

#[test]
fn a_new_ike_sa_that_the_peer_has_deleted_inherits_nothing() {
    let (mut peer, theirs, answer) = both_rekey();
    peer.on_new_ike_sa(1, &answer, |peer| {
        let delete = vec![DeletePayload::IkeSa.into()];
        let answer = peer.request(ExchangeType::INFORMATIONAL, delete);
        assert!(answer.is_empty(), "{answer:?}");
    });
    let refusal = NotifyPayload::new(NotifyType::NO_PROPOSAL_CHOSEN);
    peer.respond(&theirs, vec![refusal.into()]);
    assert_eq!(peer.children(), ["one"], "{}", peer.world.tail());
    let answer = peer.create_child("two", 0x2000_0002, Vec::new());
    assert!(notifies(&answer).all(|n| !n.ty.is_error()), "{answer:?}");
    assert_eq!(peer.children(), ["one", "two"]);
}

#[test]
fn initial_contact_leaves_nothing_to_a_new_ike_sa_that_is_to_inherit() {
    let (mut peer, ..) = both_rekey();
    peer.world.seconds(1);
    peer.restart(0x77);
    peer.call(Vec::new());
    let contact = NotifyPayload::new(NotifyType::INITIAL_CONTACT);
    let response = peer.authenticate(vec![contact.into()]);
    assert!(
        notifies(&response).all(|n| !n.ty.is_error()),
        "{response:?}"
    );
    let now = peer.world.now;
    let spis: Vec<_> = (peer.world.a.established(now).iter())
        .map(|sa| sa.spi_i.0)
        .collect();
    assert_eq!(spis, [0x77], "{}", peer.world.tail());
    assert_eq!(peer.children(), ["one"]);
}

#[test]
fn a_peer_ahead_of_the_window_is_told_which_request_it_was() {
    let mut peer = Peer::established();
    let ahead = peer.send_ahead(3);
    let told = peer.next_request();
    assert_eq!(told.exchange, ExchangeType::INFORMATIONAL);
    let notify = told.notify(NotifyType::INVALID_MESSAGE_ID).expect("told");
    assert_eq!(notify.data[..], ahead.to_be_bytes());
    assert_eq!(notify.spi, ProposalSpi::None);
    // RFC 7296 §2.3: the request itself is not answered; in its turn another one is.
    peer.assert_silence();
    peer.respond(&told, Vec::new());
    let answer = peer.request(ExchangeType::INFORMATIONAL, Vec::new());
    assert!(answer.is_empty(), "{answer:?}");
    assert_eq!(peer.children(), ["one"]);
}

/// A peer with MOBIKE that has called from its own address, without a NAT.
fn mobile() -> Peer {
    let mut peer = Peer::caller(Connection {
        mobike: true,
        ..known()
    });
    let spi = 0x77;
    peer.restart(spi);
    let ends = path(ike_at(B.address()), ike_at(A.address()));
    let detection = nat::notifies(Spi(spi), Spi::ZERO, &ends, false);
    peer.call(detection.map(Payload::from).to_vec());
    let answer = peer.authenticate(vec![
        NotifyPayload::new(NotifyType::MOBIKE_SUPPORTED).into(),
    ]);
    let agreed = notifies(&answer).any(|n| n.ty == NotifyType::MOBIKE_SUPPORTED);
    assert!(agreed, "{answer:?}");
    peer
}

fn ike_at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 500)
}

fn cookie2(octets: usize) -> NotifyPayload<'static> {
    NotifyPayload::with_data(NotifyType::COOKIE2, vec![0xc2; octets])
}

fn update() -> Payload<'static> {
    NotifyPayload::new(NotifyType::UPDATE_SA_ADDRESSES).into()
}

/// RFC 4555 §3.9.
#[test]
fn an_update_that_allows_no_nats_is_followed_only_if_there_is_none() {
    let mut peer = mobile();
    let elsewhere: IpAddr = "192.0.2.99".parse().unwrap();
    peer.world.b.own.push(elsewhere);
    for said in [elsewhere, B.address()] {
        // It comes from its old address.
        let ends = NotifyPayload::no_nats_allowed(ike_at(said), ike_at(A.address()));
        let answer = peer.request(ExchangeType::INFORMATIONAL, vec![update(), ends.into()]);
        match said == elsewhere {
            true => assert_only(&answer, NotifyType::UNEXPECTED_NAT_DETECTED),
            false => assert_eq!(answer, []),
        }
    }
    // It comes from a new one, which a NAT has put in the place of the old.
    peer.at = elsewhere;
    let ends = NotifyPayload::no_nats_allowed(ike_at(B.address()), ike_at(A.address()));
    let answer = peer.request(ExchangeType::INFORMATIONAL, vec![update(), ends.into()]);
    assert_only(&answer, NotifyType::UNEXPECTED_NAT_DETECTED);
    let now = peer.world.now;
    assert_eq!(
        peer.world.a.established(now)[0].path.remote.ip(),
        B.address()
    );
    peer.assert_silence();
}

/// Each move changes what packets of all are looked up in.
#[test]
fn a_peer_that_is_elsewhere_each_time_is_followed_so_often() {
    let mut peer = mobile();
    let port_of = |number: usize| [4500, 500][number % 2];
    let mut moves = 0;
    let answer = loop {
        peer.port = port_of(moves);
        let answer = peer.request(ExchangeType::INFORMATIONAL, vec![update()]);
        if !answer.is_empty() {
            break answer;
        }
        moves += 1;
        assert!(moves < 10_000, "there is no end to it");
    };
    assert_only(&answer, NotifyType::UNACCEPTABLE_ADDRESSES);
    // 256, and what came back meanwhile.
    assert!((256..300).contains(&moves), "{moves}");
    let at = |peer: &Peer| {
        peer.world.a.established(peer.world.now)[0]
            .path
            .remote
            .port()
    };
    assert_eq!(at(&peer), port_of(moves - 1));
    peer.world.seconds(1);
    let answer = peer.request(ExchangeType::INFORMATIONAL, vec![update()]);
    assert_eq!((answer, at(&peer)), (vec![], port_of(moves)));
}

/// RFC 4555 §4.2.5: 8 to 64 octets.
#[test]
fn a_cookie2_is_repeated_if_it_is_one() {
    let mut peer = mobile();
    for (octets, repeated) in [(7, false), (16, true), (65, false)] {
        let asked = vec![cookie2(octets).into()];
        let answer = peer.request(ExchangeType::INFORMATIONAL, asked.clone());
        assert_eq!(answer, if repeated { asked } else { Vec::new() });
    }
    assert!(peer.is_up());
}

/// RFC 4555 §3.7.
#[test]
fn who_does_not_repeat_our_cookie2_is_parted_from() {
    for other in [None, Some(cookie2(16))] {
        let mut peer = mobile();
        peer.at = "192.0.2.99".parse().unwrap();
        peer.world.b.own.push(peer.at);
        let answer = peer.request(ExchangeType::INFORMATIONAL, vec![update()]);
        assert_eq!(answer, []);
        let check = peer.next_request();
        assert_eq!(check.exchange, ExchangeType::INFORMATIONAL);
        assert!(check.notify(NotifyType::COOKIE2).is_some());
        peer.respond(&check, other.into_iter().map(Payload::from).collect());
        let end = peer.next_request();
        assert!(end.deletes_ike_sa());
        peer.respond(&end, Vec::new());
        assert!(!peer.is_up());
        assert_eq!(peer.world.a.count(down_by_protocol), 1);
    }
}

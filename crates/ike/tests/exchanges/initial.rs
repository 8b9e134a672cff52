//! The initial exchanges, from both ends.

use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::policy::IdentityPattern;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::Identification;

#[test]
fn pre_shared_key_brings_up_an_ike_sa_and_a_child() {
    let mut world = up();
    world.assert_in_step(&["one"]);
    let now = world.now;
    assert_eq!(world.b.established(now)[0].peer, Some(identity(A)));
    assert_eq!(world.b.count(|k| matches!(k, EventKind::IkeUp { .. })), 1);
    assert_eq!(world.a.count(|k| matches!(k, EventKind::ChildUp { .. })), 1);
}

#[test]
fn certificates_bring_up_an_ike_sa_and_a_child() {
    let mut world = up_with(with_certificates(A), with_certificates(B));
    world.assert_in_step(&["one"]);
}

#[test]
fn every_message_lost_once_is_repeated_and_answered_once() {
    for lost in 0..8 {
        let mut count = 0;
        let mut world = World::new(policy(connection(A)), policy(connection(B)));
        world.fate = Box::new(move |_| {
            count += 1;
            if count == lost {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        world.seconds(10);
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn every_message_twice_changes_nothing() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.fate = Box::new(|_| Fate::Twice);
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn cookie_is_asked_for_and_given_under_pressure() {
    let mut policy_b = policy(connection(B));
    policy_b.limits.cookie_threshold = 0;
    let mut world = World::new(policy(connection(A)), policy_b);
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let now = at(world.now);
    assert_eq!(world.b.endpoint.status(now).counters.cookies, 1);
}

#[test]
fn other_group_is_taken_when_the_responder_asks_for_it() {
    let mut b = connection(B);
    for proposal in &mut b.ike_proposals {
        proposal.group = vec![cygnet_crypto::suite::Group::EcpP384];
    }
    let mut world = World::new(policy(connection(A)), policy(b));
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn cookie_and_other_group_together() {
    let mut b = connection(B);
    for proposal in &mut b.ike_proposals {
        proposal.group = vec![cygnet_crypto::suite::Group::EcpP384];
    }
    let mut policy_b = policy(b);
    policy_b.limits.cookie_threshold = 0;
    let mut world = World::new(policy(connection(A)), policy_b);
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn nat_moves_everything_to_the_other_port() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let now = world.now;
    let (a, b) = (&world.a.established(now)[0], &world.b.established(now)[0]);
    assert!(a.nat_local && !a.nat_remote, "{a:?}");
    assert!(b.nat_remote && !b.nat_local, "{b:?}");
    assert_eq!((a.path.local.port(), a.path.remote.port()), (4500, 4500));
    assert_eq!((b.path.local.port(), b.path.remote.port()), (4500, 14_500));
}

#[test]
fn claimed_nat_moves_to_the_other_port_and_is_not_observed() {
    let mut a = connection(A);
    a.claim_nat = true;
    let mut world = World::new(policy(a), policy(connection(B)));
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let now = world.now;
    let (a, b) = (&world.a.established(now)[0], &world.b.established(now)[0]);
    assert!(!a.nat_local && !a.nat_remote && a.nat_claimed, "{a:?}");
    assert!(b.nat_remote, "{b:?}");
    assert_eq!(a.path.remote.port(), 4500);
}

#[test]
fn wrong_key_is_refused_with_a_reason_at_both_ends() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.b.psk = b"another".to_vec();
    world.seconds(3);
    assert!(
        matches!(world.b.reasons()[0], Reason::PeerAuthentication(_)),
        "{:?}",
        world.b.reasons()
    );
    assert!(
        matches!(world.a.reasons()[0], Reason::AuthenticationRefused(_)),
        "{:?}",
        world.a.reasons()
    );
    assert!(world.a.children.is_empty() && world.b.children.is_empty());
    assert!(world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0);
}

#[test]
fn wrong_identity_is_refused_by_the_initiator_and_the_responder_forgets() {
    let mut a = connection(A);
    a.remote_identity = IdentityPattern::AnyOf(vec![IdentityPattern::Exactly(
        Identification::fqdn("other.example.org"),
    )]);
    let mut world = World::new(policy(a), policy(connection(B)));
    world.run(Duration::from_millis(200));
    let reason = world.a.reasons()[0].to_string();
    assert!(
        reason.contains("b.example.org") && reason.contains("other.example.org"),
        "{reason}"
    );
    let now = world.now;
    assert!(world.b.established(now).is_empty(), "{}", world.tail());
    assert!(world.a.children.is_empty());
}

#[test]
fn unknown_authority_is_refused_with_the_sentence_of_who_validates() {
    let mut a = with_certificates(A);
    if let cygnet_ike::policy::LocalAuth::Certificate { chain, .. } = &mut a.local_auth {
        *chain = vec![b"somebody".to_vec()];
    }
    let mut world = World::new(policy(a), policy(with_certificates(B)));
    world.seconds(1);
    assert!(
        world.b.reasons()[0].to_string().contains("unknown CA"),
        "{:?}",
        world.b.reasons()
    );
    let now = world.now;
    assert!(world.b.established(now).is_empty());
}

#[test]
fn no_common_proposal_is_explained_transform_by_transform() {
    let mut b = connection(B);
    for proposal in &mut b.ike_proposals {
        proposal.group = vec![cygnet_crypto::suite::Group::Modp4096];
    }
    let mut world = World::new(policy(connection(A)), policy(b));
    world.seconds(1);
    let reason = world.b.reasons()[0].to_string();
    assert!(
        reason.contains("modp4096") && reason.contains("ecp256"),
        "{reason}"
    );
    assert!(
        matches!(world.a.reasons()[0], Reason::NoProposal(_)),
        "{:?}",
        world.a.reasons()
    );
}

#[test]
fn no_common_selector_leaves_the_ike_sa_up_and_is_tried_again() {
    let mut b = connection(B);
    b.children = vec![std::sync::Arc::new(child(
        B,
        "two",
        cygnet_ike::policy::Start::Manual,
    ))];
    let mut world = World::new(policy(connection(A)), policy(b));
    world.seconds(30);
    let now = world.now;
    assert_eq!(world.a.established(now).len(), 1, "{}", world.tail());
    assert!(
        matches!(world.a.reasons()[0], Reason::NoSelectors(_)),
        "{:?}",
        world.a.reasons()
    );
    let reason = world.b.reasons()[0].to_string();
    assert!(
        reason.contains("10.1.1.0/24") && reason.contains("10.1.2.0/24"),
        "{reason}"
    );
    assert!(world.a.count(|k| matches!(k, EventKind::Retry { .. })) >= 2);
    assert!(world.a.children.is_empty() && world.b.children.is_empty());
}

#[test]
fn virtual_address_is_lent_and_narrows_the_selectors() {
    let mut a = connection(A);
    a.request_virtual = vec![cygnet_ike::io::WantedAddress::V4(None)];
    let mut child_a = child(A, "one", cygnet_ike::policy::Start::Always);
    child_a.local = vec![cygnet_ike::policy::SelectorTemplate::Dynamic];
    child_a.remote = vec![subnet("0.0.0.0/0")];
    a.children = vec![child_a.into()];
    let mut b = connection(B);
    b.pool = Some(cygnet_ike::policy::PoolId("pool".to_owned()));
    let mut child_b = child(B, "one", cygnet_ike::policy::Start::Manual);
    child_b.local = vec![subnet("0.0.0.0/0")];
    child_b.remote = vec![cygnet_ike::policy::SelectorTemplate::Dynamic];
    b.children = vec![child_b.into()];
    let mut world = up_with(a, b);
    let now = world.now;
    let children = world.a.child_sas(now);
    assert_eq!(children[0].local_ts[0].to_string(), "10.9.0.7/32");
    assert_eq!(world.a.assigned.len(), 1);
    assert_eq!(world.b.leases.len(), 1);
    world.command(A, down(None));
    world.seconds(20);
    world.assert_empty();
}

#[test]
fn long_chain_travels_in_fragments() {
    let long = |end| {
        let mut connection = with_certificates(end);
        if let cygnet_ike::policy::LocalAuth::Certificate { chain, .. } = &mut connection.local_auth
        {
            let mut leaf = certificate(end);
            leaf.resize(3000, 0x30);
            *chain = vec![leaf, vec![0x31; 3000]];
        }
        connection
    };
    let mut world = World::new(policy(long(A)), policy(long(B)));
    world.fate = Box::new(|flight| {
        assert!(flight.datagram.len() <= 1280);
        Fate::Twice
    });
    world.seconds(5);
    world.assert_in_step(&["one"]);
    let auth = |f: &str| f.contains("IKE_AUTH 1 request");
    assert!(world.log.iter().filter(|line| auth(line)).count() > 4);
}

#[test]
fn half_open_sas_are_bounded_and_forgotten() {
    let mut policy_b = policy(connection(B));
    policy_b.limits.half_open_per_source = 4;
    let mut a = connection(A);
    a.retransmit.tries = 0;
    let mut world = World::new(policy(a), policy_b);
    world.fate = Box::new(|flight| match flight.is(ExchangeType::IKE_AUTH, false) {
        true => Fate::Drop,
        false => Fate::Deliver,
    });
    world.seconds(25);
    let now = at(world.now);
    let status = world.b.endpoint.status(now);
    assert!(status.half_open <= 4, "{}", status.half_open);
    assert!(status.counters.dropped > 0);
    world.a.unreachable = true;
    world.seconds(120);
    let now = at(world.now);
    assert_eq!(world.b.endpoint.status(now).half_open, 0);
}

#[test]
fn failed_installation_fails_the_child_and_not_the_ike_sa() {
    for end in [A, B] {
        let mut world = World::new(policy(connection(A)), policy(connection(B)));
        world.node(end).install_fails = true;
        world.seconds(20);
        world.assert_in_step(&["one"]);
        let local = |r: &Reason| matches!(r, Reason::Local(_));
        assert!(world.node(end).reasons().iter().any(local));
    }
}

//! Questions of the core that nobody answers, or too late.

use std::sync::Arc;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    Connection, CredentialId, LocalAuth, Policy, PoolId, RemoteAuth, SelectorTemplate, Start,
};

/// A client with a certificate and its server, which lends it an address.
fn ends() -> (Connection, Connection) {
    let (mut a, mut b) = (with_certificates(A), with_certificates(B));
    let mut client = child(A, "one", Start::Always);
    client.local = vec![SelectorTemplate::Dynamic];
    a.children = vec![Arc::new(client)];
    a.request_virtual = vec![WantedAddress::V4(None)];
    let mut server = child(B, "one", Start::Manual);
    server.remote = vec![SelectorTemplate::Dynamic];
    b.children = vec![Arc::new(server)];
    b.pool = Some(PoolId("pool".to_owned()));
    (a, b)
}

#[track_caller]
fn recovers(a: Connection, b: Connection, end: End, kind: &'static str) {
    let mut world = World::new(Default::default(), policy(b));
    world.node(end).mute = Some(kind);
    world.policy(A, policy(a));
    world.seconds(5);
    assert_eq!(world.node(end).mute, None, "{end:?} asked no {kind}");
    world.seconds(85);
    let now = world.now;
    let up = world.a.established(now).len();
    assert_eq!(up, 1, "{end:?} {kind}\n{}", world.tail());
    // A peer's proof that could not be judged is judged again without a word.
    let quiet = kind == "ValidateChain" || (end, kind) == (B, "PskAuth");
    let said = world
        .log
        .iter()
        .any(|line| line.contains("no answer within"));
    assert_eq!(said, !quiet, "{end:?} {kind}\n{}", world.tail());
    // Whatever it brings, it is not wanted any more.
    assert_eq!(world.find_lost(end), 1);
    world.seconds(10);
    world.assert_in_step(&["one"]);
}

#[test]
fn question_that_is_never_answered_is_given_up_and_asked_again() {
    for kind in ["Resolve", "AllocSpi", "Sign", "ValidateChain", "InstallIn"] {
        let (a, b) = ends();
        recovers(a, b, A, kind);
    }
    for kind in ["ValidateChain", "Sign", "Lease", "AllocSpi", "InstallIn"] {
        let (a, b) = ends();
        recovers(a, b, B, kind);
    }
    for end in [A, B] {
        recovers(connection(A), connection(B), end, "PskAuth");
        recovers(connection(A), connection(B), end, "SwitchOut");
    }
}

#[test]
fn rekey_whose_question_is_lost_is_done_another_time() {
    for end in [A, B] {
        for kind in ["AllocSpi", "InstallIn"] {
            let mut world = up();
            world.node(end).mute = Some(kind);
            world.command(A, rekey_child("one"));
            world.seconds(90);
            let rekeyed = |k: &EventKind| matches!(k, EventKind::ChildUp { replaces, .. } if replaces.is_some());
            if kind == "AllocSpi" {
                assert_eq!(world.a.count(rekeyed), 1, "{end:?}\n{}", world.tail());
            }
            assert_eq!(world.find_lost(end), 1, "{end:?} {kind}");
            world.seconds(10);
            world.assert_in_step(&["one"]);
        }
    }
}

#[test]
fn lost_answer_of_a_call_that_was_given_up_changes_nothing() {
    let mut world = World::new(Default::default(), policy(connection(B)));
    world.a.mute = Some("AllocSpi");
    world.policy(A, policy(connection(A)));
    world.seconds(2);
    world.command(A, down(None));
    assert_eq!(world.find_lost(A), 1);
    world.seconds(120);
    world.assert_empty();
    assert_eq!(world.a.endpoint.poll_timeout(), None);
}

#[test]
fn chain_that_nobody_has_time_for_is_judged_later_and_the_peer_hears_no_error() {
    for end in [A, B] {
        let mut world = World::new(Default::default(), policy(with_certificates(B)));
        world.node(end).busy = 3;
        world.policy(A, policy(with_certificates(A)));
        world.seconds(10);
        world.assert_in_step(&["one"]);
        assert_eq!(world.node(end).busy, 0);
        let reasons = [world.a.reasons(), world.b.reasons()];
        assert_eq!(reasons, [vec![], vec![]], "{end:?}\n{}", world.tail());
    }
}

#[test]
fn chain_that_nobody_ever_has_time_for_is_no_failure_of_the_peer() {
    for end in [A, B] {
        let mut world = World::new(Default::default(), policy(with_certificates(B)));
        world.node(end).busy = usize::MAX;
        world.policy(A, policy(with_certificates(A)));
        world.seconds(60);
        let own = |r: &Reason| matches!(r, Reason::Local(why) if why.contains("too many"));
        assert!(
            world.node(end).reasons().iter().any(own),
            "{}",
            world.tail()
        );
        let blamed = |r: &Reason| {
            matches!(
                r,
                Reason::PeerAuthentication(_) | Reason::AuthenticationRefused(_)
            )
        };
        for node in [&world.a, &world.b] {
            assert!(!node.reasons().iter().any(blamed), "{}", world.tail());
        }
        world.node(end).busy = 0;
        world.seconds(90);
        world.assert_in_step(&["one"]);
    }
}

/// A server for which A may be meant by the first connection as well as by the one behind it; the
/// secret of the first cannot be read so many times.
fn with_one_before(unreadable: usize) -> World {
    let mut first = connection(B);
    first.name = "first".to_owned();
    let secret = CredentialId("first".to_owned());
    first.local_auth = LocalAuth::Psk(secret.clone());
    first.remote_auth = RemoteAuth::Psk(secret);
    let b = Policy {
        connections: vec![first.into(), connection(B).into()],
        ..Policy::default()
    };
    let mut world = World::new(Policy::default(), b);
    world.b.unreadable.insert("first", unreadable);
    world.policy(A, policy(connection(A)));
    world
}

#[test]
fn connection_about_which_nobody_can_tell_is_tried_first_and_does_not_block_the_others() {
    for (unreadable, name) in [(0, "first"), (2, "first"), (usize::MAX, "link")] {
        let mut world = with_one_before(unreadable);
        world.seconds(10);
        world.assert_in_step(&["one"]);
        assert_eq!(
            world.b.established(world.now)[0].connection.as_deref(),
            Some(name)
        );
        assert_eq!(world.b.reasons(), vec![]);
    }
}

#[test]
fn peer_that_is_refuted_by_all_but_one_is_judged_by_that_one_in_the_end() {
    let mut world = with_one_before(4);
    // Neither knows this secret until the first can be read.
    let known = std::mem::replace(&mut world.b.psk, b"something else".to_vec());
    world.run(std::time::Duration::from_millis(2500));
    assert_eq!(world.b.reasons(), vec![], "{}", world.tail());
    world.b.psk = known;
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_eq!(
        world.b.established(world.now)[0].connection.as_deref(),
        Some("first")
    );
}

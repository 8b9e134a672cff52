//! Peers whose certificates were revoked while they are in.

use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::Command;
use cygnet_ike::policy::CredentialId;

fn with_certificates_up() -> World {
    up_with(with_certificates(A), with_certificates(B))
}

fn revoked(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::IkeDown {
            reason: Reason::PeerAuthentication(why)
        } if why.contains("revoked")
    )
}

#[test]
fn whoever_is_still_let_in_is_not_touched() {
    let mut world = with_certificates_up();
    for end in [A, B] {
        world.command(end, Command::ExaminePeers);
    }
    world.seconds(30);
    world.assert_in_step(&["one"]);
    let down = |k: &EventKind| matches!(k, EventKind::IkeDown { .. });
    assert_eq!(world.a.count(down) + world.b.count(down), 0);
}

#[test]
fn one_that_is_revoked_ends_at_once_and_does_not_come_back() {
    let mut world = with_certificates_up();
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    assert_eq!(world.b.count(revoked), 1, "{}", world.tail());
    assert!(world.b.children.is_empty(), "nothing is let in any more");
    world.seconds(1);
    let deleted = |k: &EventKind| {
        matches!(
            k,
            EventKind::IkeDown {
                reason: Reason::DeletedByPeer
            }
        )
    };
    assert_eq!(world.a.count(deleted), 1, "the peer is told");
    world.seconds(60);
    let now = world.now;
    assert!(world.b.established(now).is_empty());
    assert_eq!(world.b.count(revoked), 1);
}

#[test]
fn a_deaf_peer_ends_just_as_fast() {
    let mut world = with_certificates_up();
    world.fate = Box::new(|flight| match flight.to {
        A => Fate::Deliver,
        B => Fate::Drop,
    });
    // A request of ours is in flight, so that there is no DELETE.
    world.command(B, rekey_ike());
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    assert_eq!(world.b.count(revoked), 1);
    assert!(world.b.children.is_empty(), "{}", world.tail());
}

#[test]
fn a_rekey_hides_nobody() {
    let mut world = with_certificates_up();
    world.command(A, rekey_ike());
    world.seconds(5);
    world.assert_in_step(&["one"]);
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    assert_eq!(world.b.count(revoked), 1);
    assert!(world.b.children.is_empty());

    // While the verdict is worked out.
    let mut world = with_certificates_up();
    world.b.revoked = true;
    world.b.hold_chains = true;
    world.command(B, Command::ExaminePeers);
    world.command(A, rekey_ike());
    world.seconds(5);
    assert_eq!(world.b.count(revoked), 0);
    world.release(B);
    assert!(world.b.count(revoked) >= 1);
    assert!(world.b.children.is_empty());
}

#[test]
fn one_that_is_being_let_in_meanwhile_is_judged_again_when_it_is() {
    let mut world = World::new(policy(with_certificates(A)), policy(with_certificates(B)));
    world.b.hold_chains = true;
    world.run(Duration::from_millis(500));
    // The answer that is held says yes.
    world.command(B, Command::ExaminePeers);
    world.b.revoked = true;
    world.release(B);
    assert_eq!(world.b.count(revoked), 1, "{}", world.tail());
    let now = world.now;
    assert!(world.b.established(now).is_empty());
}

#[test]
fn a_shared_secret_is_nothing_to_examine() {
    let mut world = up();
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn a_peer_about_whom_nobody_can_tell_anything_stays_and_is_asked_about_again() {
    let unexamined = |k: &EventKind| matches!(k, EventKind::Unexamined { .. });
    let down = |k: &EventKind| matches!(k, EventKind::IkeDown { .. });
    // Without an answer three times, or four; or with one that comes too late.
    for (busy, given_up) in [(3, 0), (4, 1)] {
        let mut world = with_certificates_up();
        world.b.busy = busy;
        world.command(B, Command::ExaminePeers);
        world.seconds(60);
        world.assert_in_step(&["one"]);
        assert_eq!(world.b.busy, 0, "asked again");
        assert_eq!(world.a.count(down) + world.b.count(down), 0);
        assert_eq!(world.b.count(unexamined), given_up, "{}", world.tail());
    }
    let mut world = with_certificates_up();
    world.b.mute = Some("ValidateChain");
    world.command(B, Command::ExaminePeers);
    world.seconds(60);
    assert_eq!(world.b.count(down) + world.b.count(unexamined), 0);
    // What comes out at last is a verdict.
    let mut world = with_certificates_up();
    world.b.busy = 3;
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    world.seconds(4);
    assert_eq!(world.b.count(revoked), 0);
    world.seconds(20);
    assert_eq!(world.b.count(revoked), 1, "{}", world.tail());
}

#[test]
fn nothing_is_let_in_on_a_child_that_is_being_made_or_was_replaced_just_now() {
    for by in [A, B] {
        let mut world = with_certificates_up();
        world.command(by, rekey_child("one"));
        world.b.hold = by == A;
        world.run(Duration::from_millis(15));
        // B has asked for an SPI by now, or has it.
        world.release(B);
        world.b.hold = true;
        world.run(Duration::from_millis(100));
        assert_eq!(world.b.children.len(), 2, "{}", world.tail());
        world.b.revoked = true;
        world.command(B, Command::ExaminePeers);
        assert!(world.b.children.is_empty(), "{}", world.tail());
    }
    let mut world = with_certificates_up();
    world.command(A, rekey_child("one"));
    world.seconds(2);
    assert_eq!(world.b.children.len(), 2, "{}", world.tail());
    world.command(A, rekey_ike());
    world.seconds(1);
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    assert!(world.b.children.is_empty(), "{}", world.tail());
}

fn replaced(secret: &str) -> Command {
    Command::SecretsReplaced {
        secrets: vec![CredentialId(secret.to_owned())],
    }
}

fn by_old_secret(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::IkeDown {
            reason: Reason::PeerAuthentication(why)
        } if why.contains("replaced")
    )
}

#[test]
fn who_is_in_by_a_secret_that_was_replaced_is_out_until_it_has_the_new_one() {
    for end in [A, B] {
        let mut world = up();
        world.command(A, rekey_ike());
        world.seconds(15);
        world.node(end).psk = b"another key as long".to_vec();
        world.command(end, replaced("psk"));
        assert_eq!(world.node(end).count(by_old_secret), 1, "{}", world.tail());
        assert!(world.node(end).children.is_empty());
        world.seconds(60);
        let now = world.now;
        assert!(world.a.established(now).is_empty(), "{}", world.tail());
        world.node(end.other()).psk = b"another key as long".to_vec();
        world.command(end.other(), replaced("psk"));
        world.until(40, "up by the new one", |world| {
            let now = world.now;
            !world.a.established(now).is_empty()
        });
        world.seconds(5);
        world.assert_in_step(&["one"]);
        assert_eq!(world.node(end).count(by_old_secret), 1);
    }
}

#[test]
fn a_secret_of_others_ends_nobody() {
    let mut world = up();
    world.command(B, replaced("of another tunnel"));
    let mut certified = with_certificates_up();
    certified.command(B, replaced("psk"));
    for world in [&mut world, &mut certified] {
        world.seconds(5);
        world.assert_in_step(&["one"]);
        assert_eq!(world.b.count(by_old_secret), 0);
    }
}

#[test]
fn one_that_is_being_let_in_by_the_old_secret_is_out_when_it_is() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.b.hold = true;
    world.run(Duration::from_millis(500));
    world.command(B, replaced("psk"));
    world.release(B);
    assert_eq!(world.b.count(by_old_secret), 1, "{}", world.tail());
    assert!(world.b.children.is_empty());
}

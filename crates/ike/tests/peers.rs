//! Peers as they are: behind NATs on both sides, several at one address, some of them hostile.

mod common;

use common::*;
use cygnet_ike::event::EventKind;

/// A, and B behind a NAT that forwards to it under this address.
fn forwarded() -> World {
    let outside = "203.0.113.77".parse().unwrap();
    let mut a = connection(A);
    a.remote = hosts(outside);
    let mut world = World::new(policy(a), policy(connection(B)));
    world.forwarded = Some(outside);
    world
}

#[test]
fn called_end_behind_a_nat_follows_a_caller_whose_mapping_changed() {
    let mut world = forwarded();
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    world.assert_in_step(&["one"]);
    world.command(B, rekey_ike());
    world.seconds(10);
    world.nat = Some(("203.0.113.9".parse().unwrap(), 20_000));
    world.seconds(60);
    world.assert_in_step(&["one"]);
    let moved = |k: &EventKind| matches!(k, EventKind::PeerMoved { .. });
    assert_eq!(world.b.count(moved), 1, "{}", world.tail());
    assert_eq!(world.a.count(moved), 0);
    let path = world.b.children.values().next().unwrap().params.path;
    assert_eq!(path.remote.port(), 24_500);
}

#[test]
fn calling_end_behind_a_nat_is_not_led_elsewhere() {
    let mut world = forwarded();
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    let now = world.now;
    let before = world.a.ike_sas(now)[0].path;
    world.forwarded = Some("203.0.113.78".parse().unwrap());
    world.fate = Box::new(|flight| match flight.to {
        A => Fate::Deliver,
        B => Fate::Drop,
    });
    world.command(B, rekey_ike());
    world.seconds(2);
    let now = world.now;
    assert_eq!(world.a.ike_sas(now)[0].path, before);
}

#[test]
fn taking_down_the_only_child_between_two_tries_ends_the_tries() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.fate = Box::new(|_| Fate::Drop);
    world.until(300, "a wait between two tries", |world| {
        world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0
    });
    world.command(A, down(Some("one")));
    // A timer in the past would be a busy loop.
    world.seconds(600);
    let now = world.now;
    assert!(world.a.ike_sas(now).is_empty());
    assert_eq!(world.a.endpoint.poll_timeout(), None);
}

//! What is to be up comes up and stays up, whatever does not answer, expires or is narrowed.

mod common;

use std::sync::Arc;

use common::*;
use cygnet_ike::event::EventKind;
use cygnet_ike::policy::Start;

/// A world in which nobody tells A where B is.
fn unresolved() -> World {
    let mut a = connection(A);
    a.children = vec![Arc::new(child(A, "one", Start::Manual))];
    let mut world = World::new(policy(a), policy(connection(B)));
    world.a.mute = true;
    world.command(A, bring_up(None));
    assert_eq!(world.a.resolves, 1);
    world
}

#[test]
fn resolver_that_never_answers_is_asked_again_and_told_of() {
    let mut world = unresolved();
    world.seconds(29);
    assert_eq!(world.a.resolves, 1);
    world.seconds(10);
    assert!(world.a.resolves >= 2, "{}", world.tail());
    let why = world.a.events.iter().find_map(|event| match &event.kind {
        EventKind::Retry { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let why = why.unwrap();
    assert!(why.contains("30 s"), "{why}");
    world.a.mute = false;
    world.seconds(40);
    world.assert_in_step(&["one"]);
}

#[test]
fn connection_that_is_taken_down_while_its_peer_is_looked_for_rests() {
    let mut world = unresolved();
    world.command(A, down(None));
    world.seconds(120);
    assert_eq!(world.a.resolves, 1);
    world.assert_empty();
}

//! What is to be up comes up and stays up, whatever does not answer, expires or is narrowed.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::policy::Start;
use cygnet_ike::selector;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::ts::TrafficSelector;

/// A world in which nobody tells A where B is.
fn unresolved() -> World {
    let mut a = connection(A);
    a.children = vec![Arc::new(child(A, "one", Start::Manual))];
    let mut world = World::new(policy(a), policy(connection(B)));
    world.a.no_resolver = true;
    world.command(A, bring_up(None));
    assert_eq!(world.a.resolves, 1);
    world
}

#[test]
fn resolver_that_never_answers_is_asked_again_and_told_of() {
    let mut world = unresolved();
    // One name to look up.
    world.seconds(24);
    assert_eq!(world.a.resolves, 1);
    world.seconds(10);
    assert!(world.a.resolves >= 2, "{}", world.tail());
    let why = world.a.events.iter().find_map(|event| match &event.kind {
        EventKind::Retry { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let why = why.unwrap();
    assert!(why.contains("25 s"), "{why}");
    world.a.no_resolver = false;
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

#[test]
fn status_tells_what_is_in_flight_and_since_when() {
    let mut world = up();
    let in_flight = |world: &World| {
        let sas = world.a.ike_sas(world.now);
        sas.first().and_then(|sa| sa.in_flight.clone())
    };
    assert_eq!(in_flight(&world), None);
    world.fate = Box::new(|_| Fate::Drop);
    world.command(A, rekey_ike());
    world.seconds(4);
    let found = in_flight(&world).unwrap();
    assert_eq!(found.exchange, ExchangeType::CREATE_CHILD_SA);
    assert_eq!((found.since, found.sent), (Duration::from_secs(4), 3));
    world.fate = Box::new(|_| Fate::Deliver);
    world.seconds(10);
    assert_eq!(in_flight(&world), None);
    world.assert_in_step(&["one"]);
}

#[test]
fn one_ike_sa_is_told_of_as_it_is_among_all() {
    let mut world = up();
    let now = at(world.now);
    let all = world.a.endpoint.status(now).ike_sas;
    let [sa] = all.as_slice() else {
        panic!("one IKE SA, not {all:?}");
    };
    assert!(!sa.children.is_empty());
    assert_eq!(world.a.endpoint.ike_sa(now, sa.id).as_ref(), Some(sa));
    world.command(A, down(None));
    world.seconds(5);
    assert_eq!(world.a.endpoint.ike_sa(at(world.now), sa.id), None);
}

/// A world in which the certificates that A is shown are good until then.
fn certified(until: i64) -> World {
    let (a, b) = (with_certificates(A), with_certificates(B));
    let mut world = World::new(policy(a), policy(b));
    world.a.certified = until;
    world.command(A, bring_up(None));
    world.seconds(5);
    world.assert_in_step(&["one"]);
    world
}

fn expired(kind: &EventKind) -> bool {
    let reason = Reason::Expired;
    matches!(kind, EventKind::IkeDown { reason: r } if *r == reason)
}

#[test]
fn peer_is_authenticated_anew_before_its_certificate_expires() {
    let mut world = certified(1000);
    world.traffic = true;
    world.seconds(800);
    // By then it has another one.
    world.a.certified = 100_000;
    for _ in 0..4000 {
        world.run(Duration::from_millis(100));
        assert!(world.a.sending("one").is_some() && world.b.sending("one").is_some());
    }
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.count(expired), 0);
    assert_eq!(world.a.resolves, 2);
}

#[test]
fn peer_whose_certificate_is_not_renewed_is_cut_off_in_time() {
    let mut world = certified(1000);
    world.seconds(990);
    world.assert_in_step(&["one"]);
    let tries = world.a.resolves;
    assert!((2..12).contains(&tries), "{tries}");
    world.seconds(30);
    assert!(world.a.established(world.now).is_empty());
    assert_eq!(world.a.count(expired), 1);
}

#[test]
fn second_wish_to_authenticate_anew_is_not_lost_to_the_first() {
    let two = |end: End| {
        let mut connection = connection(end);
        let start = connection.children[0].start;
        connection.children.push(child(end, "two", start).into());
        connection
    };
    let mut world = up_with(two(A), two(B));
    let reauthenticate = || Command::Reauthenticate {
        connection: "link".to_owned(),
    };
    // The new IKE SA comes up, but its second child does not, so the old one stays.
    world.fate = Box::new(
        |flight| match flight.is(ExchangeType::CREATE_CHILD_SA, false) {
            true => Fate::Drop,
            false => Fate::Deliver,
        },
    );
    world.command(A, reauthenticate());
    world.seconds(3);
    assert_eq!(world.a.established(world.now).len(), 2);
    world.fate = Box::new(|_| Fate::Deliver);
    world.command(A, reauthenticate());
    world.seconds(30);
    world.assert_in_step(&["one", "two"]);
    assert_eq!(world.a.resolves, 3, "{}", world.tail());
}

/// B has two children where A has one, for both.
fn narrowed() -> World {
    let (mut a, mut b) = (connection(A), connection(B));
    let (mut both, two) = (
        child(A, "one", Start::Traffic),
        child(A, "two", Start::Manual),
    );
    both.local.extend(two.local);
    both.remote.extend(two.remote);
    // Nobody serves this one there.
    both.remote.push(subnet("10.2.3.0/24"));
    a.children = vec![Arc::new(both)];
    b.children = ["one", "two"]
        .map(|name| Arc::new(child(B, name, Start::Manual)))
        .to_vec();
    World::new(policy(a), policy(b))
}

fn packet(world: &mut World, local: &str, remote: &str) {
    let host = |text: &str| TrafficSelector::from_prefix(text.parse().unwrap(), 32);
    world.data(
        A,
        DataEvent::Acquire {
            connection: "link".to_owned(),
            child: "one".to_owned(),
            packet: Some((host(local), host(remote))),
        },
    );
}

fn remotes(world: &World) -> Vec<String> {
    let children = world.a.child_sas(world.now).into_iter();
    let mut all: Vec<_> = children
        .filter(|child| child.installed && child.sending)
        .map(|child| selector::list(&child.remote_ts))
        .collect();
    all.sort();
    all
}

#[test]
fn packet_that_was_narrowed_away_brings_up_another_child() {
    let mut world = narrowed();
    packet(&mut world, "10.1.1.5", "10.2.1.5");
    world.seconds(5);
    assert_eq!(remotes(&world), ["10.2.1.0/24"], "{}", world.tail());
    packet(&mut world, "10.1.2.5", "10.2.2.5");
    world.seconds(5);
    assert_eq!(
        remotes(&world),
        ["10.2.1.0/24", "10.2.2.0/24"],
        "{}",
        world.tail()
    );
    // Both carry what they are for: nothing more is asked for.
    let sent = world.b.endpoint.status(at(world.now)).counters.children;
    packet(&mut world, "10.1.1.6", "10.2.1.6");
    packet(&mut world, "10.1.2.6", "10.2.2.6");
    world.seconds(5);
    let then = world.b.endpoint.status(at(world.now)).counters.children;
    assert_eq!(sent, then);
}

#[test]
fn packet_that_a_peer_always_narrows_away_is_not_tried_without_end() {
    let mut world = narrowed();
    packet(&mut world, "10.1.1.5", "10.2.1.5");
    world.seconds(5);
    let before = world.a.endpoint.status(at(world.now)).counters.children;
    for _ in 0..300 {
        packet(&mut world, "10.1.1.5", "10.2.3.5");
        world.seconds(1);
    }
    let made = world.a.endpoint.status(at(world.now)).counters.children - before;
    assert_eq!(made, 1, "{}", world.tail());
    assert_eq!(remotes(&world), ["10.2.1.0/24"], "{}", world.tail());
    let told = world.a.reasons();
    let told = told.iter().map(ToString::to_string);
    assert_eq!(told.filter(|t| t.contains("10.2.3.5")).count(), 1);
    // Others are not held up by it.
    packet(&mut world, "10.1.2.5", "10.2.2.5");
    world.seconds(5);
    assert_eq!(remotes(&world), ["10.2.1.0/24", "10.2.2.0/24"]);
    // And after a while it is tried again: the peer may have other settings.
    world.seconds(400);
    packet(&mut world, "10.1.1.5", "10.2.3.5");
    world.seconds(5);
    let made = world.a.endpoint.status(at(world.now)).counters.children - before;
    assert_eq!(made, 3);
}

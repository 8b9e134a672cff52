//! This machine's addresses change: a way that is gone is found out in seconds.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::policy::Policy;
use cygnet_wire::header::{ExchangeType, Spi};

/// The next hop to the peer is another one.
const EGRESS: DataEvent = DataEvent::LocalChange {
    gone: Vec::new(),
    egress: true,
};

/// The address of `end` is gone.
fn address_gone(end: End) -> DataEvent {
    DataEvent::LocalChange {
        gone: vec![end.address()],
        egress: false,
    }
}

fn is_call(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Connecting { .. })
}

fn is_down(kind: &EventKind) -> bool {
    matches!(kind, EventKind::IkeDown { .. })
}

#[test]
fn a_peer_that_is_still_within_reach_stays() {
    let mut world = up();
    for end in [A, B] {
        world.data(end, EGRESS);
    }
    world.seconds(20);
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.count(is_down) + world.b.count(is_down), 0);
    assert_eq!(world.a.count(is_call), 1);
}

/// What goes out for the IKE SA with this SPI of its initiator is lost.
fn lose(world: &mut World, spi_i: Spi) {
    world.fate = Box::new(move |flight| match flight.header() {
        Some(header) if header.initiator_spi == spi_i => Fate::Drop,
        _ => Fate::Deliver,
    });
}

#[test]
fn a_peer_beyond_reach_is_called_again_within_seconds() {
    for rekeying in [false, true] {
        for (change, most) in [(EGRESS, 6), (address_gone(A), 1)] {
            let mut world = up();
            world.seconds(15);
            let lost = world.a.established(world.now)[0].spi_i;
            // What belongs to the old address is lost.
            lose(&mut world, lost);
            if rekeying {
                world.command(A, rekey_ike());
                world.run(Duration::from_millis(100));
            }
            world.data(A, change);
            world.until(most, "another IKE SA is up", |world| {
                let now = world.now;
                world.a.established(now).iter().any(|sa| sa.spi_i != lost)
            });
            world.seconds(45);
            world.assert_in_step(&["one"]);
        }
    }
}

#[test]
fn an_address_that_goes_just_after_another_change_is_left_at_once() {
    let mut world = up();
    world.seconds(15);
    // The next hop first: B still answers by the old one.
    world.data(A, EGRESS);
    world.seconds(2);
    assert_eq!(world.a.count(is_call), 1, "{}", world.tail());
    let lost = world.a.established(world.now)[0].spi_i;
    lose(&mut world, lost);
    world.data(A, address_gone(A));
    world.until(1, "another IKE SA is up", |world| {
        let now = world.now;
        world.a.established(now).iter().any(|sa| sa.spi_i != lost)
    });
    world.seconds(60);
    world.assert_in_step(&["one"]);
}

#[test]
fn a_call_by_an_address_that_goes_just_after_another_change_begins_anew_at_once() {
    let mut world = up();
    world.fate = Box::new(|_| Fate::Drop);
    world.data(A, address_gone(A));
    world.data(A, EGRESS);
    world.seconds(1);
    let before = world.a.resolves;
    world.data(A, address_gone(A));
    assert_eq!(world.a.resolves, before + 1, "{}", world.tail());
}

#[test]
fn any_request_in_flight_is_sent_again_at_a_change() {
    let mut world = up();
    world.seconds(15);
    world.fate = Box::new(|_| Fate::Drop);
    world.command(A, rekey_ike());
    world.run(Duration::from_millis(100));
    let requests = |world: &World| {
        let ours = |line: &&String| line.contains(" A ->") && line.contains("CREATE_CHILD_SA");
        world.log.iter().filter(ours).count()
    };
    let before = requests(&world);
    world.data(A, EGRESS);
    assert_eq!(requests(&world), before + 1, "{}", world.tail());
}

/// When A gives B up, which does not answer, in seconds since it vanished; with a change of the ways
/// out each second or without.
fn given_up_after(rekeying: bool, changes: bool) -> Duration {
    let mut world = up();
    world.seconds(15);
    world.fate = Box::new(|_| Fate::Drop);
    if rekeying {
        world.command(A, rekey_ike());
    } else {
        // ESP for an SPI that nobody knows: the peer is asked whether it lives.
        let path = world.a.ike_sas(world.now)[0].path;
        world.data(A, DataEvent::UnknownSpi { spi: 0x77, path });
    }
    let begun = world.now;
    let given_up = |k: &EventKind| {
        matches!(
            k,
            EventKind::IkeDown {
                reason: Reason::NoAnswer { .. }
            }
        )
    };
    while world.a.count(given_up) == 0 {
        world.run(Duration::from_millis(100));
        if changes && world.now.subsec_millis() == 0 {
            world.data(A, EGRESS);
        }
    }
    world.now - begun
}

#[test]
fn no_change_makes_a_peer_be_given_up_earlier() {
    for rekeying in [false, true] {
        let as_ever = given_up_after(rekeying, false);
        assert_eq!(given_up_after(rekeying, true), as_ever);
    }
}

#[test]
fn a_link_that_is_off_for_a_moment_ends_nothing() {
    let mut world = up();
    world.seconds(15);
    let ike_sa = world.a.established(world.now)[0].spi_i;
    world.fate = Box::new(|_| Fate::Drop);
    world.data(A, EGRESS);
    world.seconds(2);
    world.fate = Box::new(|_| Fate::Deliver);
    world.data(A, EGRESS);
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.established(world.now)[0].spi_i, ike_sa);
    assert_eq!(world.a.count(is_down) + world.b.count(is_down), 0);
}

#[test]
fn what_does_not_concern_the_way_to_the_peer_costs_nothing_and_the_rest_little() {
    let mut world = up();
    world.seconds(15);
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    world.fate = Box::new(move |flight| {
        if flight.to == B && flight.is(ExchangeType::INFORMATIONAL, false) {
            count.set(count.get() + 1);
        }
        Fate::Deliver
    });
    for _ in 0..40 {
        let gone = vec![B.address(), "172.17.0.1".parse().unwrap()];
        let egress = false;
        world.data(A, DataEvent::LocalChange { gone, egress });
        world.run(Duration::from_millis(100));
    }
    assert_eq!(sent.get(), 0);
    for _ in 0..90 {
        world.data(A, EGRESS);
        world.run(Duration::from_millis(100));
    }
    assert_eq!(sent.get(), 2, "one in five seconds");
    world.assert_in_step(&["one"]);
}

#[test]
fn a_call_is_begun_anew_at_most_once_in_five_seconds() {
    let mut world = up();
    world.fate = Box::new(|_| Fate::Drop);
    world.seconds(120);
    let before = world.a.resolves;
    for _ in 0..100 {
        world.data(A, EGRESS);
        world.run(Duration::from_millis(100));
    }
    let calls = world.a.resolves - before;
    assert!((1..=2).contains(&calls), "{calls}");
}

#[test]
fn a_call_that_waits_or_gets_no_answer_begins_anew() {
    let mut a = connection(A);
    a.retransmit.tries = 10;
    let mut world = up_with(a, connection(B));
    world.fate = Box::new(|_| Fate::Drop);
    let retries = |world: &World| world.a.count(|k| matches!(k, EventKind::Retry { .. }));
    world.until(300, "a wait between two calls", |world| retries(world) > 0);
    let resolves = world.a.resolves;
    world.data(A, EGRESS);
    assert_eq!(world.a.resolves, resolves + 1, "its address is asked for");
    world.seconds(11);
    world.data(A, EGRESS);
    assert_eq!(world.a.resolves, resolves + 2, "{}", world.tail());
    // One that is new is not ended, but its message goes out by the new way at once.
    world.seconds(6);
    world.fate = Box::new(|_| Fate::Deliver);
    world.data(A, EGRESS);
    assert_eq!(world.a.resolves, resolves + 2, "{}", world.tail());
    world.run(Duration::from_millis(500));
    assert_eq!(world.a.established(world.now).len(), 1, "{}", world.tail());
}

#[test]
fn changes_without_end_do_not_keep_a_slow_call_from_its_end() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    // A call takes eight seconds.
    world.delay = Duration::from_secs(2);
    for _ in 0..12 {
        world.data(A, EGRESS);
        world.seconds(1);
    }
    assert_eq!(world.a.established(world.now).len(), 1, "{}", world.tail());
    assert_eq!(world.a.resolves, 1);
}

#[test]
fn a_question_for_the_address_of_the_peer_is_asked_once_whatever_changes() {
    let mut world = World::new(policy(connection(A)), Policy::default());
    world.fate = Box::new(|_| Fate::Drop);
    world.until(300, "a wait between two calls", |world| {
        world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0
    });
    world.a.no_resolver = true;
    let before = world.a.resolves;
    for _ in 0..2 {
        world.data(A, EGRESS);
        world.seconds(6);
    }
    assert_eq!(world.a.resolves, before + 1);
}

#[test]
fn what_is_down_stays_down() {
    let mut world = up();
    world.command(
        A,
        Command::Down {
            connection: "link".to_owned(),
            child: None,
        },
    );
    world.seconds(5);
    world.data(A, EGRESS);
    world.seconds(20);
    world.assert_empty();
}

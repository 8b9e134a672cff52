//! This machine's addresses change: a way that is gone is found out in seconds.

mod common;

use common::*;
use cygnet_ike::event::EventKind;
use cygnet_ike::io::{Command, DataEvent};

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
        world.data(end, DataEvent::LocalChange);
    }
    world.seconds(20);
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.count(is_down) + world.b.count(is_down), 0);
    assert_eq!(world.a.count(is_call), 1);
}

#[test]
fn a_peer_beyond_reach_is_called_again_within_seconds() {
    for rekeying in [false, true] {
        let mut world = up();
        world.seconds(15);
        let lost = world.a.established(world.now)[0].spi_i;
        // What belongs to the old address is lost.
        world.fate = Box::new(move |flight| match flight.header() {
            Some(header) if header.initiator_spi == lost => Fate::Drop,
            _ => Fate::Deliver,
        });
        if rekeying {
            world.command(A, rekey_ike());
            world.run(std::time::Duration::from_millis(100));
        }
        world.data(A, DataEvent::LocalChange);
        world.until(4, "another IKE SA is up", |world| {
            let now = world.now;
            world.a.established(now).iter().any(|sa| sa.spi_i != lost)
        });
        world.seconds(5);
        assert_eq!(world.a.established(world.now).len(), 1);
    }
}

#[test]
fn a_call_that_waits_or_gets_no_answer_begins_anew() {
    let mut world = up();
    world.fate = Box::new(|_| Fate::Drop);
    world.data(A, DataEvent::LocalChange);
    world.seconds(40);
    let resolves = world.a.resolves;
    world.data(A, DataEvent::LocalChange);
    assert_eq!(world.a.resolves, resolves + 1, "its address is asked for");
    world.fate = Box::new(|_| Fate::Deliver);
    world.data(A, DataEvent::LocalChange);
    world.seconds(5);
    assert_eq!(world.a.established(world.now).len(), 1, "{}", world.tail());
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
    world.data(A, DataEvent::LocalChange);
    world.seconds(20);
    world.assert_empty();
}

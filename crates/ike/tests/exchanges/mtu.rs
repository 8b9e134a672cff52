//! The search for the largest packet that arrives (RFC 8899): found where nobody tells, and no IKE SA is lost by it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::EventKind;
use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::policy::Connection;
use cygnet_wire::header::{ExchangeType, MessageId, Spi};

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

/// IPv4 header, UDP header, non-ESP marker.
const AROUND: usize = 32;

fn searching(end: End) -> Connection {
    Connection {
        search_mtu: true,
        ..connection(end)
    }
}

/// What the path carries from now on, and the requests of A that fill a packet.
#[derive(Clone)]
struct Narrow {
    mtu: Rc<Cell<usize>>,
    seen: Rc<RefCell<BTreeSet<(Spi, MessageId)>>>,
}

impl Narrow {
    fn drop_larger(world: &mut World, mtu: usize) -> Self {
        let narrow = Self {
            mtu: Rc::new(Cell::new(mtu)),
            seen: Rc::default(),
        };
        let Self { mtu, seen } = narrow.clone();
        world.fate = Box::new(move |flight| {
            let size = flight.datagram.len() + AROUND;
            let header = flight.header().filter(|_| size > 500);
            if let Some(header) = header
                && flight.to == B
                && flight.is(INFORMATIONAL, false)
            {
                seen.borrow_mut()
                    .insert((header.initiator_spi, header.message_id));
            }
            match size > mtu.get() {
                true => Fate::Drop,
                false => Fate::Deliver,
            }
        });
        narrow
    }

    fn probes(&self) -> usize {
        self.seen.borrow().len()
    }
}

fn world(mtu: usize) -> (World, Narrow) {
    let mut world = World::new(policy(searching(A)), policy(searching(B)));
    let narrow = Narrow::drop_larger(&mut world, mtu);
    (world, narrow)
}

/// The one IKE SA is the one of the beginning.
#[track_caller]
fn assert_undisturbed(world: &mut World) {
    for node in [&world.a, &world.b] {
        let ends = node.events.iter().filter(|event| {
            matches!(
                event.kind,
                EventKind::IkeDown { .. } | EventKind::ChildDown { .. }
            )
        });
        assert_eq!(ends.count(), 0, "{}", world.tail());
    }
    world.assert_in_step(&["one"]);
}

#[test]
fn a_wide_path_takes_one_packet() {
    let (mut world, narrow) = world(1500);
    world.seconds(20);
    assert_eq!((&*world.a.measured, narrow.probes()), (&[1500][..], 1));
    // Who is called searches its own direction once it is known that the peer understands.
    assert_eq!(world.b.measured, [1500]);
    assert_undisturbed(&mut world);
}

#[test]
fn who_is_called_does_not_begin() {
    let mut world = World::new(policy(connection(A)), policy(searching(B)));
    world.traffic = true;
    world.seconds(100);
    assert_eq!((&*world.a.measured, &*world.b.measured), (&[][..], &[][..]));
    assert_undisturbed(&mut world);
}

#[test]
fn a_narrow_path_is_found_although_nobody_tells() {
    for (mtu, found) in [
        (1492, 1492),
        (1431, 1420),
        (1400, 1400),
        (1280, 1280),
        (1279, 1006),
    ] {
        let (mut world, narrow) = world(1500);
        world.seconds(1);
        narrow.mtu.set(mtu);
        world.traffic = true;
        world.seconds(120);
        assert_eq!(world.a.measured.last(), Some(&found), "{}", world.tail());
        assert_undisturbed(&mut world);
    }
}

#[test]
fn a_path_that_is_narrow_from_the_start_is_known_within_seconds() {
    let (mut world, _) = world(1400);
    world.seconds(2);
    // The first size was lost twice, after a second each.
    world.until(3, "what most paths carry is used", |world| {
        world.a.measured.last() == Some(&1280)
    });
    world.until(12, "the size is found", |world| {
        world.a.measured.last() == Some(&1400)
    });
    assert_undisturbed(&mut world);
}

#[test]
fn a_path_that_becomes_narrow_is_noticed_under_traffic() {
    let (mut world, narrow) = world(1500);
    world.traffic = true;
    world.seconds(60);
    assert_eq!(world.a.measured.last(), Some(&1500));
    narrow.mtu.set(1431);
    world.until(35, "what is too large is not sent any more", |world| {
        world.a.measured.last() == Some(&1280)
    });
    world.seconds(20);
    assert_eq!(world.a.measured.last(), Some(&1420));
    // And wide again.
    narrow.mtu.set(1500);
    world.seconds(700);
    assert_eq!(world.a.measured.last(), Some(&1500));
    assert_undisturbed(&mut world);
}

#[test]
fn nothing_is_measured_while_nothing_is_sent() {
    let (mut world, narrow) = world(1500);
    world.seconds(1000);
    assert_eq!(narrow.probes(), 1);
    assert_undisturbed(&mut world);
}

#[test]
fn without_fragments_nothing_is_asked() {
    let whole = Connection {
        fragment_size: 0,
        ..searching(A)
    };
    let mut world = World::new(policy(whole), policy(searching(B)));
    let narrow = Narrow::drop_larger(&mut world, 1500);
    world.traffic = true;
    world.seconds(100);
    assert_eq!((narrow.probes(), world.a.measured.len()), (0, 0));
    assert_undisturbed(&mut world);
}

#[test]
fn a_lost_answer_is_no_narrow_path() {
    let (mut world, _) = world(1500);
    let lost = Rc::new(Cell::new(false));
    let fate = Rc::clone(&lost);
    world.fate =
        Box::new(
            move |flight| match flight.is(INFORMATIONAL, true) && !fate.replace(true) {
                true => Fate::Drop,
                false => Fate::Deliver,
            },
        );
    world.seconds(20);
    assert!(lost.get());
    assert_eq!(world.a.measured, [1500]);
    assert_undisturbed(&mut world);
}

/// RFC 7296 §2.1: repetitions are the same octets. Whoever holds to that does not answer the short one.
#[test]
fn a_peer_that_ignores_the_short_one_is_not_given_up() {
    let (mut world, _) = world(1500);
    let lost = Rc::new(Cell::new(false));
    let fate = Rc::clone(&lost);
    let mut first = BTreeMap::new();
    world.fate = Box::new(move |flight| {
        let known = flight.header().map(|h| (h.initiator_spi, h.message_id));
        let ignored = flight.to == B && flight.is(INFORMATIONAL, false) && {
            let datagram = first
                .entry(known)
                .or_insert_with(|| flight.datagram.clone());
            *datagram != flight.datagram
        };
        let answer = flight.to == A && flight.is(INFORMATIONAL, true);
        match ignored || answer && !fate.replace(true) {
            true => Fate::Drop,
            false => Fate::Deliver,
        }
    });
    world.seconds(60);
    assert!(lost.get());
    assert_eq!(world.a.measured, [1500]);
    assert_undisturbed(&mut world);
}

#[test]
fn a_long_round_trip_is_no_narrow_path() {
    let (mut world, _) = world(1500);
    world.delay = Duration::from_millis(900);
    world.traffic = true;
    world.seconds(200);
    let measured = world.a.measured.iter().chain(&world.b.measured);
    assert!(measured.clone().count() > 4, "{}", world.tail());
    assert!(measured.clone().all(|mtu| *mtu == 1500), "{}", world.tail());
    assert_undisturbed(&mut world);
}

#[test]
fn what_one_finds_makes_the_other_look() {
    let (mut world, narrow) = world(1500);
    world.seconds(20);
    narrow.mtu.set(1400);
    assert_eq!(world.b.measured, [1500]);
    let path = world.a.sending("one").unwrap().params.path;
    world.data(A, DataEvent::PathMtu { path, mtu: 1400 });
    world.until(4, "what is too large is not sent any more", |world| {
        world.b.measured.last() == Some(&1280)
    });
    world.seconds(20);
    assert_eq!(world.b.measured.last(), Some(&1400));
    assert_undisturbed(&mut world);
}

/// Everybody can speak in a router's name.
#[test]
fn senseless_words_of_a_router_cost_no_ike_sa() {
    for mtu in [0, 1, 67, 65_535, u32::MAX] {
        let (mut world, _) = world(1500);
        world.traffic = true;
        world.seconds(20);
        let path = world.a.sending("one").unwrap().params.path;
        world.data(A, DataEvent::PathMtu { path, mtu });
        world.seconds(700);
        assert_eq!(world.a.measured.last(), Some(&1500), "after {mtu}");
        assert_undisturbed(&mut world);
    }
}

#[test]
fn what_a_router_names_is_tried_at_once() {
    let (mut world, narrow) = world(1500);
    world.seconds(20);
    narrow.mtu.set(1431);
    let path = world.a.sending("one").unwrap().params.path;
    world.data(A, DataEvent::PathMtu { path, mtu: 1431 });
    world.seconds(1);
    assert_eq!(world.a.measured.last(), Some(&1431));
    assert_undisturbed(&mut world);
}

#[test]
fn what_does_not_even_leave_makes_room_for_a_short_one_at_once() {
    let (mut world, _) = world(1400);
    world.until(5, "the first is on its way", |world| {
        world.log.iter().any(|line| line.contains("INFORMATIONAL"))
    });
    let path = world.a.sending("one").unwrap().params.path;
    world.data(A, DataEvent::PathMtu { path, mtu: 1400 });
    world.run(Duration::from_millis(200));
    assert_eq!(world.a.measured.last(), Some(&1400), "{}", world.tail());
    assert_undisturbed(&mut world);
}

#[test]
fn a_rekeyed_ike_sa_knows_what_its_predecessor_knew() {
    let (mut world, narrow) = world(1400);
    world.seconds(60);
    let before = narrow.probes();
    let connection = "link".to_owned();
    world.command(A, Command::RekeyIke { connection });
    let measured = world.a.measured.len();
    world.seconds(20);
    // It is confirmed with the new keys, and not searched again.
    assert_eq!(narrow.probes(), before + 1);
    assert_eq!(world.a.measured.get(measured..), Some(&[1400][..]));
}

/// A line that is cut for as long as its end would not have been noticed without a search.
#[test]
fn silence_under_traffic_costs_no_ike_sa_before_its_time() {
    for (liveness, outage) in [(30, 30), (300, 200), (0, 2000)] {
        let patient = |end| Connection {
            liveness: Duration::from_secs(liveness),
            ..searching(end)
        };
        let mut world = World::new(policy(patient(A)), policy(patient(B)));
        let narrow = Narrow::drop_larger(&mut world, 1500);
        world.traffic = true;
        world.seconds(20);
        narrow.mtu.set(0);
        world.traffic_is_lost = true;
        world.seconds(outage);
        narrow.mtu.set(1500);
        world.traffic_is_lost = false;
        world.seconds(60);
        assert_undisturbed(&mut world);
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed_under_traffic() {
    let (mut world, narrow) = world(1500);
    world.traffic = true;
    world.seconds(20);
    narrow.mtu.set(0);
    world.traffic_is_lost = true;
    // Silence, the question, its repetitions; and the last wait of a probe's.
    let retransmit = connection(A).retransmit;
    let gone = connection(A).liveness + retransmit.patience() + retransmit.most;
    world.until(gone.as_secs() + 1, "the peer counts as gone", |world| {
        let events = world.a.events.iter();
        events
            .filter(|event| matches!(event.kind, EventKind::IkeDown { .. }))
            .count()
            > 0
    });
}

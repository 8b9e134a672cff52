//! A peer that falls silent under traffic: one that has restarted is met again long before it would count as gone,
//! and one that is there is left in peace.

use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{ChildSaId, DataEvent};
use cygnet_ike::policy::{Connection, Retransmit};
use cygnet_wire::header::ExchangeType;

/// With the retransmission that the configuration has where nothing is said.
fn caller() -> Connection {
    Connection {
        retransmit: Retransmit {
            first: Duration::from_millis(500),
            factor: 1.8,
            most: Duration::from_secs(10),
            tries: 6,
        },
        ..connection(A)
    }
}

fn child_of_a(world: &World) -> ChildSaId {
    world.a.sending("one").unwrap().params.id
}

/// What A sends can be opened by B.
fn serves(world: &World) -> bool {
    let sending = world.a.sending("one").map(|child| child.params.spi_out);
    let mut known = world.b.children.values();
    known.any(|child| Some(child.params.spi_in) == sending)
}

/// Why Child SAs of A have gone.
fn ends(world: &World) -> Vec<Reason> {
    let events = world.a.events.iter();
    let down = events.filter_map(|event| match &event.kind {
        EventKind::ChildDown { reason, .. } | EventKind::IkeDown { reason } => Some(reason.clone()),
        _ => None,
    });
    down.collect()
}

/// B is killed, and is there again a second later without any memory.
fn restart(world: &mut World) {
    world.fate = Box::new(|_| Fate::Drop);
    world.traffic_is_lost = true;
    world.seconds(1);
    world.reboot(B, policy(connection(B)));
    world.fate = Box::new(|_| Fate::Deliver);
    world.traffic_is_lost = false;
}

#[test]
fn a_server_that_restarts_under_traffic_is_back_within_five_seconds() {
    for seed in 0..8 {
        let mut world = up_seeded(caller(), connection(B), seed);
        world.traffic = true;
        world.run(Duration::from_millis(20_000 + 130 * seed));
        restart(&mut world);
        world.until(5, "back", |world| serves(world));
        // What went to the one that had forgotten us.
        world.unopened.clear();
        world.seconds(60);
        world.assert_in_step(&["one"]);
        let ends = ends(&world);
        // The one that restarted knows nothing of what ends.
        let unanswered = Reason::ReplacedUnanswered;
        assert_eq!(ends, [unanswered.clone(), unanswered], "{}", world.tail());
    }
}

#[test]
fn a_server_that_restarts_is_back_as_soon_where_traffic_is_reported_each_second() {
    for late in [0, 50, 500, 950] {
        let mut world = up_with(caller(), connection(B));
        let child = child_of_a(&world);
        world.seconds(60);
        world.data(A, DataEvent::LastOutbound { child });
        world.seconds(1);
        // It dies after its last packet, which is reported later.
        world.fate = Box::new(|_| Fate::Drop);
        world.run(Duration::from_millis(late));
        world.data(A, DataEvent::LastInbound { child });
        world.data(A, DataEvent::LastOutbound { child });
        world.run(Duration::from_millis(1000 - late));
        world.reboot(B, policy(connection(B)));
        world.fate = Box::new(|_| Fate::Deliver);
        world.run(Duration::from_millis(late));
        // What a log-in takes is to come in on top.
        let most = Duration::from_millis(4600);
        for second in 0..5 {
            let waited = Duration::from_millis(late + 1000 * second);
            if serves(&world) || waited >= most {
                break;
            }
            world.data(A, DataEvent::LastOutbound { child });
            let step = Duration::from_secs(1).min(most - waited);
            world.run(step);
        }
        assert!(serves(&world), "{late}: {}", world.tail());
    }
}

#[test]
fn a_server_that_is_gone_for_minutes_is_back_as_soon() {
    for seed in 0..4 {
        let mut world = up_seeded(caller(), connection(B), seed);
        world.traffic = true;
        world.seconds(20);
        world.fate = Box::new(|_| Fate::Drop);
        world.traffic_is_lost = true;
        world.run(Duration::from_millis(240_000 + 370 * seed));
        world.reboot(B, policy(connection(B)));
        world.fate = Box::new(|_| Fate::Deliver);
        world.traffic_is_lost = false;
        world.until(5, "back", |world| serves(world));
        world.unopened.clear();
        world.seconds(60);
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn a_peer_that_is_gone_counts_as_gone_no_sooner_than_without_traffic() {
    let mut world = up_with(caller(), connection(B));
    world.traffic = true;
    world.seconds(20);
    world.fate = Box::new(|_| Fate::Drop);
    world.traffic_is_lost = true;
    let patience = Duration::from_secs(30) + caller().retransmit.patience();
    world.run(patience - Duration::from_secs(1));
    assert_eq!(ends(&world), [], "{}", world.tail());
    world.seconds(12);
    let ends = ends(&world);
    assert!(
        matches!(ends[..], [Reason::NoAnswer { .. }, Reason::NoAnswer { .. }]),
        "{ends:?}"
    );
}

#[test]
fn data_that_nobody_answers_inside_costs_a_question_now_and_then() {
    let mut world = up_with(caller(), connection(B));
    let child = child_of_a(&world);
    for _ in 0..600 {
        world.data(A, DataEvent::LastOutbound { child });
        world.seconds(1);
    }
    let asked = world.asked();
    assert!((18..=25).contains(&asked), "{asked}: {}", world.tail());
    assert_eq!(world.calls(), 1);
    world.assert_in_step(&["one"]);
}

#[test]
fn a_silence_right_after_another_is_asked_about_as_soon() {
    let mut world = up_with(caller(), connection(B));
    let child = child_of_a(&world);
    let silent = |world: &mut World, seconds| {
        for _ in 0..seconds {
            world.data(A, DataEvent::LastOutbound { child });
            world.seconds(1);
        }
    };
    for silence in 1..=4 {
        silent(&mut world, 2);
        assert_eq!(world.asked(), silence, "{}", world.tail());
        world.data(A, DataEvent::LastInbound { child });
    }
    // The second question of one silence comes as soon, too, and then they become rarer.
    silent(&mut world, 4);
    assert_eq!(world.asked(), 6, "{}", world.tail());
    silent(&mut world, 3);
    assert_eq!(world.asked(), 6, "{}", world.tail());
    silent(&mut world, 1);
    assert_eq!(world.asked(), 7, "{}", world.tail());
    world.assert_in_step(&["one"]);
}

#[test]
fn nothing_is_asked_where_liveness_is_off_or_data_is_answered_or_nothing_flows() {
    let off = Connection {
        liveness: Duration::ZERO,
        ..caller()
    };
    let mut world = up_with(off, connection(B));
    let child = child_of_a(&world);
    for _ in 0..120 {
        world.data(A, DataEvent::LastOutbound { child });
        world.seconds(1);
    }
    assert_eq!(world.asked(), 0, "{}", world.tail());

    // An answer that is reported a second later, as the data path may.
    let mut world = up_with(caller(), connection(B));
    let child = child_of_a(&world);
    for _ in 0..30 {
        world.data(A, DataEvent::LastOutbound { child });
        world.run(Duration::from_millis(1100));
        world.data(A, DataEvent::LastInbound { child });
        world.seconds(9);
    }
    assert_eq!(world.asked(), 0, "{}", world.tail());

    // Each half minute, as ever, where the peer asks nothing.
    let silent = Connection {
        liveness: Duration::ZERO,
        ..connection(B)
    };
    let mut world = up_with(caller(), silent);
    world.seconds(600);
    let asked = world.asked();
    assert!((18..=20).contains(&asked), "{asked}: {}", world.tail());
}

#[test]
fn an_outage_without_a_restart_ends_with_one_ike_sa_whenever_it_ends() {
    let mut kept = 0;
    for quarters in 4..60 {
        let mut world = up_seeded(caller(), connection(B), quarters);
        world.traffic = true;
        world.seconds(20);
        world.fate = Box::new(|_| Fate::Drop);
        world.traffic_is_lost = true;
        world.run(Duration::from_millis(250 * quarters));
        world.fate = Box::new(|_| Fate::Deliver);
        world.traffic_is_lost = false;
        world.seconds(90);
        world.assert_in_step(&["one"]);
        let ends = ends(&world);
        assert!(
            ends.iter().all(|reason| *reason == Reason::Replaced),
            "{ends:?}"
        );
        kept += u64::from(ends.is_empty());
        if quarters <= 12 {
            assert_eq!((world.calls(), ends.len()), (1, 0), "{}", world.tail());
        }
    }
    // The data alone says soon that it is over.
    assert!(kept > 40, "{kept}");
}

#[test]
fn a_call_that_the_peer_has_answered_goes_on_when_the_old_ike_sa_answers() {
    let mut world = up_with(caller(), connection(B));
    world.traffic = true;
    world.seconds(20);
    // Whatever belongs to the old IKE SA is lost until the new one is being authenticated.
    world.traffic_is_lost = true;
    world.fate = Box::new(|flight| {
        let lost = flight.is(ExchangeType::INFORMATIONAL, false)
            || flight.is(ExchangeType::IKE_AUTH, false);
        if lost { Fate::Drop } else { Fate::Deliver }
    });
    let log_ins = |world: &World| {
        let lines = world.log.iter();
        lines.filter(|line| line.contains("A -> IKE_AUTH")).count()
    };
    let before = log_ins(&world);
    world.until(10, "called", |world| log_ins(world) > before);
    world.traffic_is_lost = false;
    world.seconds(1);
    world.fate = Box::new(|_| Fate::Deliver);
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(ends(&world), [Reason::Replaced, Reason::Replaced]);
}

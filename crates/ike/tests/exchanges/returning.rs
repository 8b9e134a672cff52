//! How soon a peer that was gone is met again, with the retransmission that the configuration has
//! where nothing is said.

use std::time::Duration;

use crate::common::*;
use cygnet_ike::policy::{Connection, Retransmit};

fn patient() -> Connection {
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

/// When A did that, in seconds, by the log.
fn times(world: &World, what: &str) -> Vec<f64> {
    let of_a = |line: &&String| line.contains(" A ") && line.contains(what);
    let time = |line: &String| line.split_whitespace().next()?.parse().ok();
    world.log.iter().filter(of_a).filter_map(time).collect()
}

/// The longest times without a call that began before ten minutes had passed, and after.
fn longest_gaps(world: &World) -> (f64, f64) {
    let calls = times(world, "IKE_SA_INIT");
    let (mut early, mut late) = (0.0f64, 0.0f64);
    for pair in calls.windows(2) {
        let gap = pair[1] - pair[0];
        let longest = if pair[0] - calls[0] < 600.0 {
            &mut early
        } else {
            &mut late
        };
        *longest = longest.max(gap);
    }
    (early, late)
}

#[test]
fn peer_that_is_gone_is_called_every_four_seconds_and_after_ten_minutes_every_thirty() {
    for seed in 0..8 {
        let mut world = World::seeded(policy(patient()), policy(connection(B)), seed);
        world.fate = Box::new(|_| Fate::Drop);
        world.seconds(7200);
        let (early, late) = longest_gaps(&world);
        assert!((2.0..=4.001).contains(&early), "{early} s without a call");
        // Patience is what comes after: fewer calls, but never less often than that.
        assert!((10.0..=30.001).contains(&late), "{late} s without a call");
    }
}

#[test]
fn callers_of_a_server_that_is_gone_do_not_call_in_step() {
    let last_call = |seed| {
        let mut world = World::seeded(policy(patient()), policy(connection(B)), seed);
        world.fate = Box::new(|_| Fate::Drop);
        world.seconds(120);
        times(&world, "IKE_SA_INIT").last().copied()
    };
    assert_ne!(last_call(1), last_call(2));
}

#[test]
fn peer_that_returns_within_ten_minutes_is_met_within_four_seconds() {
    for seed in 0..8 {
        let mut world = World::seeded(policy(patient()), policy(connection(B)), seed);
        world.fate = Box::new(|_| Fate::Drop);
        world.run(Duration::from_millis(400_000 + 333 * seed));
        world.fate = Box::new(|_| Fate::Deliver);
        world.run(Duration::from_millis(4100));
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn peer_that_returns_after_an_hour_is_met_within_half_a_minute() {
    for seed in 0..8 {
        let mut world = World::seeded(policy(patient()), policy(connection(B)), seed);
        world.seconds(60);
        world.assert_in_step(&["one"]);
        world.fate = Box::new(|_| Fate::Drop);
        world.run(Duration::from_millis(3_600_000 + 4_001 * seed));
        world.fate = Box::new(|_| Fate::Deliver);
        world.run(Duration::from_millis(30_100));
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn dead_addresses_before_a_live_one_cost_three_seconds_each() {
    let dead = ["203.0.113.1", "203.0.113.2"].map(|a| a.parse().unwrap());
    let mut a = patient();
    a.remote = list(&[dead[0], dead[1], B.address()]);
    let mut world = World::new(policy(a), policy(connection(B)));
    world.run(Duration::from_millis(6500));
    world.assert_in_step(&["one"]);
    let calls = times(&world, "Connecting");
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls[1] - calls[0] > 2.5, "{calls:?}");
}

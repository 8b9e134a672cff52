//! Some seeds with every test run; `cargo xtask sim` runs many.

use cygnet_sim::{Sabotage, Scenario, Stats, run, run_scenario};

#[test]
fn thirty_seeds_come_to_rest() {
    let mut all = Stats::default();
    for seed in 0..30 {
        match run(seed, false) {
            Ok(success) => all += success.stats,
            Err(failure) => panic!("seed {seed} failed {}", failure.what),
        }
    }
    assert!(all.ike_ups > 60, "{all}");
    assert!(all.child_ups > 60, "{all}");
    assert!(all.opened > 1000, "{all}");
    assert!(all.moves > 10, "{all}");
}

#[test]
fn a_seed_repeats_octet_for_octet() {
    let runs = [run(4, true), run(4, true)].map(|run| match run {
        Ok(success) => success.trace,
        Err(failure) => failure.trace,
    });
    assert!(runs[0].len() > 100);
    assert_eq!(runs[0], runs[1]);
}

/// A network with little more than a NAT, and a data path with a fault.
fn sabotaged(seed: u64, sabotage: Sabotage) -> String {
    let scenario = Scenario {
        roadwarrior: true,
        nat: true,
        moves: false,
        v6: false,
        both_start: false,
        lease: false,
        loss: [0, 0],
        sabotage: Some(sabotage),
        ..Scenario::of(seed)
    };
    match run_scenario(seed, scenario, false) {
        Ok(_) => String::new(),
        Err(failure) => failure.what,
    }
}

fn found(sabotage: Sabotage, words: &str) {
    let told: Vec<String> = (0..20).map(|seed| sabotaged(seed, sabotage)).collect();
    let hits = told.iter().filter(|what| what.contains(words)).count();
    assert!(hits > 0, "{sabotage:?} was not found: {told:#?}");
}

#[test]
fn other_keys_are_found() {
    found(Sabotage::OtherKeys, "the peer has other keys");
}

#[test]
fn inbound_half_that_goes_too_early_is_found() {
    found(Sabotage::ForgetsEarly, "the peer knows no such SPI");
}

#[test]
fn lost_answer_is_found() {
    found(Sabotage::LosesAnswers, "waits for answers");
}

#[test]
fn peer_that_is_not_followed_is_found() {
    found(Sabotage::StaysBehind, "nothing came to A through");
}

#[test]
fn leftovers_are_found() {
    found(Sabotage::KeepsAll, "halves of Child SAs");
}

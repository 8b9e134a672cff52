use std::time::Duration;

use super::super::environment::Place;
use super::super::environment::tests::{carried, selector};
use super::*;

fn program(path: &str) -> Program {
    Program {
        file: path.to_owned(),
        arguments: Vec::new(),
        user: None,
        timeout: Duration::from_secs(10),
    }
}

/// Of a tunnel with this hook.
fn hooked() -> Pairs {
    let mut pairs = Pairs::default();
    pairs.configure(Some(program("/hook")));
    pairs
}

/// A pair with this network of the peer's, where the peer is at this address.
fn pair(network: &str, peer: &str) -> (Key, Variables) {
    let mut carried = carried();
    carried.remote.set_ip(peer.parse().unwrap());
    let any = (0, u16::MAX);
    let local = selector("10.1.0.0", "10.1.0.255", 0, any);
    let remote = selector(network, network, 0, any);
    let place = Place {
        tunnel: "home",
        child: "net",
        connection: "home",
        interface: "cyg-home",
        host_access: false,
    };
    let variables = Variables::new(place, &carried, (&local, &remote), (1, 1));
    let key = Key {
        child: "net".to_owned(),
        peer: "peer".to_owned(),
        local,
        remote,
    };
    (key, variables)
}

/// All that is to be told: `up 10.2.0.1 at 203.0.113.5`.
fn all(pairs: &mut Pairs) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(telling) = pairs.next() {
        let value = |name: &str| {
            let mut all = telling.environment();
            all.find(|(known, _)| *known == name).unwrap().1
        };
        let (client, peer) = (value("PLUTO_PEER_CLIENT"), value("PLUTO_PEER"));
        let verb = telling.verb.name();
        told.push(format!(
            "{verb} {} at {peer}",
            client.trim_end_matches("/32")
        ));
        pairs.undone();
    }
    told
}

const SHARE: usize = PAIRS_MAX;
const PEER: &str = "203.0.113.5";

#[test]
fn up_and_down_are_told_once_in_the_order_of_the_selectors() {
    let mut pairs = hooked();
    assert!(pairs.note(
        1,
        vec![pair("10.2.0.9", PEER), pair("10.2.0.1", PEER)],
        SHARE
    ));
    let up = ["up 10.2.0.9 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.5"];
    assert_eq!(all(&mut pairs), up);
    assert!(all(&mut pairs).is_empty());
    pairs.note(1, Vec::new(), SHARE);
    let down = [
        "down 10.2.0.9 at 203.0.113.5",
        "down 10.2.0.1 at 203.0.113.5",
    ];
    assert_eq!(all(&mut pairs), down);
    assert!(pairs.is_empty());
}

#[test]
fn new_keys_tell_nothing_and_another_address_both() {
    let mut pairs = hooked();
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    all(&mut pairs);
    // The IKE SA is another one, which was there before the old one went.
    pairs.note(2, vec![pair("10.2.0.1", PEER)], SHARE);
    pairs.note(1, Vec::new(), SHARE);
    assert!(all(&mut pairs).is_empty());
    pairs.note(2, vec![pair("10.2.0.1", "203.0.113.6")], SHARE);
    let moved = ["down 10.2.0.1 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.6"];
    assert_eq!(all(&mut pairs), moved);
    // Of two the newer one counts, until it goes.
    pairs.note(3, vec![pair("10.2.0.1", "203.0.113.7")], SHARE);
    let moved = ["down 10.2.0.1 at 203.0.113.6", "up 10.2.0.1 at 203.0.113.7"];
    assert_eq!(all(&mut pairs), moved);
    pairs.note(3, Vec::new(), SHARE);
    let back = ["down 10.2.0.1 at 203.0.113.7", "up 10.2.0.1 at 203.0.113.6"];
    assert_eq!(all(&mut pairs), back);
}

#[test]
fn what_went_and_came_while_a_hook_was_slow_is_told_in_order_and_within_bounds() {
    let mut pairs = hooked();
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    let first = pairs.next();
    assert_eq!(first.map(|telling| telling.verb), Some(Verb::Up));
    for ike_sa in 2..1000 {
        pairs.all_down();
        pairs.note(ike_sa, vec![pair("10.2.0.1", PEER)], SHARE);
    }
    pairs.note(2000, vec![pair("10.2.0.2", PEER)], SHARE);
    pairs.note(2000, Vec::new(), SHARE);
    pairs.undone();
    let told = ["down 10.2.0.1 at 203.0.113.5", "up 10.2.0.1 at 203.0.113.5"];
    assert_eq!(all(&mut pairs), told);
}

#[test]
fn who_was_told_of_the_beginning_is_told_of_the_end() {
    let mut pairs = Pairs::default();
    pairs.configure(Some(program("/first")));
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    all(&mut pairs);
    let mut told = Vec::new();
    for hook in [Some(program("/second")), None] {
        pairs.configure(hook);
        while let Some(telling) = pairs.next() {
            told.push((telling.verb.name(), telling.program().file.clone()));
            pairs.undone();
        }
    }
    let expected = [("down", "/first"), ("up", "/second"), ("down", "/second")];
    assert_eq!(told, expected.map(|(verb, path)| (verb, path.to_owned())));
    assert!(!pairs.is_empty(), "the tunnel is up");
}

#[test]
fn more_time_for_a_hook_tells_nothing_and_counts_from_the_next_run() {
    let mut pairs = hooked();
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    all(&mut pairs);
    let timeout = Duration::from_secs(60);
    let patient = Program {
        timeout,
        ..program("/hook")
    };
    pairs.configure(Some(patient));
    assert_eq!(pairs.next(), None);
    pairs.note(1, Vec::new(), SHARE);
    let down = pairs.next().unwrap();
    assert_eq!((down.verb, down.program().timeout), (Verb::Down, timeout));
}

#[test]
fn what_a_run_that_was_killed_has_told_is_undone_by_the_next() {
    let mut pairs = hooked();
    let both = vec![pair("10.2.0.1", PEER), pair("10.2.0.2", PEER)];
    pairs.note(1, both, SHARE);
    all(&mut pairs);
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    // Killed while the hook undoes the second.
    assert!(pairs.next().is_some());
    let left = serde_json::to_vec(&pairs.told().collect::<Vec<_>>()).unwrap();
    let left: Vec<Told> = serde_json::from_slice(&left).unwrap();
    let mut pairs = hooked();
    left.iter().cloned().for_each(|told| pairs.recall(told));
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    let told = [
        "down 10.2.0.1 at 203.0.113.5",
        "down 10.2.0.2 at 203.0.113.5",
        "up 10.2.0.1 at 203.0.113.5",
    ];
    assert_eq!(all(&mut pairs), told);
    // Who was told is who undoes it, whatever is configured since.
    for configured in [None, Some(program("/other"))] {
        let mut pairs = Pairs::default();
        left.iter().cloned().for_each(|told| pairs.recall(told));
        pairs.configure(configured);
        while let Some(telling) = pairs.next() {
            assert_eq!(telling.verb, Verb::Down);
            assert_eq!(*telling.program(), program("/hook"));
            pairs.undone();
        }
        assert!(pairs.is_empty());
    }
}

/// So many pairs of a peer, which differ in a port alone.
fn many(peer: &str, count: usize) -> Vec<(Key, Variables)> {
    let (key, variables) = pair("10.2.0.1", PEER);
    let each = |port: usize| {
        let mut key = key.clone();
        key.peer = peer.to_owned();
        let port = u16::try_from(port).unwrap();
        key.remote.ports = (port, port);
        (key, variables.clone())
    };
    (0..count).map(each).collect()
}

#[test]
fn a_peer_has_its_share_however_many_ike_sas_it_has() {
    let mut pairs = hooked();
    assert!(pairs.note(1, many("alice", 16), 40));
    assert!(pairs.note(2, many("alice", 16), 40));
    assert!(!pairs.note(3, many("alice", 16), 40));
    assert!(pairs.note(4, many("bob", 16), 40));
    assert_eq!(pairs.carried.values().map(Vec::len).sum::<usize>(), 56);
    assert_eq!(pairs.of_peers["alice"], 40);
    // The same again, and then less.
    assert!(pairs.note(2, many("alice", 16), 40));
    pairs.note(1, Vec::new(), 40);
    assert!(pairs.note(3, many("alice", 16), 40));
    for ike_sa in 2..=4 {
        pairs.note(ike_sa, Vec::new(), 40);
    }
    assert_eq!((pairs.of_all, pairs.of_peers.len()), (0, 0));
    assert!(pairs.is_empty() && pairs.waiting.is_empty());
}

#[test]
fn what_had_no_room_is_told_when_there_is_some() {
    let mut pairs = hooked();
    assert!(pairs.note(1, many("alice", PAIRS_MAX), PAIRS_MAX));
    assert!(pairs.note(2, vec![pair("10.2.0.2", PEER)], SHARE));
    assert_eq!(all(&mut pairs).len(), PAIRS_MAX);
    assert!(all(&mut pairs).is_empty(), "no room");
    pairs.note(1, many("alice", PAIRS_MAX - 1), PAIRS_MAX);
    let told = ["down 10.2.0.1 at 203.0.113.5", "up 10.2.0.2 at 203.0.113.5"];
    assert_eq!(all(&mut pairs), told);
}

#[test]
fn who_changes_all_the_time_keeps_nobody_waiting() {
    let mut pairs = hooked();
    pairs.note(1, vec![pair("10.2.0.1", PEER)], SHARE);
    all(&mut pairs);
    pairs.note(2, vec![pair("10.2.0.2", PEER)], SHARE);
    let mut told = Vec::new();
    for port in 1..4 {
        let peer = format!("203.0.113.{port}");
        pairs.note(1, vec![pair("10.2.0.1", &peer)], SHARE);
        told.extend(pairs.next().map(|telling| telling.told.key.remote.first));
        pairs.undone();
    }
    let of_the_other: std::net::IpAddr = "10.2.0.2".parse().unwrap();
    assert!(told.contains(&of_the_other), "{told:?}");
}

#[test]
fn an_engine_that_was_taken_over_does_not_fill_the_memory() {
    let mut pairs = hooked();
    for ike_sa in 0..1000 {
        pairs.note(ike_sa, many(&format!("peer {ike_sa}"), 16), 256);
    }
    assert_eq!((pairs.of_all, pairs.up.len()), (KEPT_MAX, KEPT_MAX));
    assert!(!pairs.note(1000, many("other", 1), 256));
    pairs.note(1, Vec::new(), 256);
    assert!(pairs.note(1000, many("other", 1), 256));
}

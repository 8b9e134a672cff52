//! Several servers: gone through in order, each with its share of time, and back to an earlier one.
//!
//! B is all of them: it has several addresses, and what is sent to a dead one is lost.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    ChildPolicy, Connection, Host, IdentityPattern, Policy, PoolId, Remote, SelectorTemplate,
    Server, Start,
};
use cygnet_wire::header::ExchangeType;

const FIRST: &str = "198.51.100.2";
const SECOND: &str = "198.51.100.3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn caller() -> Connection {
    Connection {
        remote: list(&[ip(FIRST), ip(SECOND)]),
        ..connection(A)
    }
}

type Dead = Arc<Mutex<BTreeSet<IpAddr>>>;

/// A world in which those of B's addresses are dead that are in the set.
fn world(a: Connection, dead: &[&str]) -> (World, Dead) {
    let dead: Dead = Arc::new(Mutex::new(dead.iter().map(|a| ip(a)).collect()));
    let mut world = World::new(Policy::default(), policy(connection(B)));
    let never = Arc::clone(&dead);
    world.b.own = vec![ip(FIRST), ip(SECOND)];
    world.fate = Box::new(move |flight| {
        let of_b = match flight.to {
            A => flight.path.remote.ip(),
            B => flight.path.local.ip(),
        };
        match never.lock().unwrap().contains(&of_b) {
            true => Fate::Drop,
            false => Fate::Deliver,
        }
    });
    world.policy(A, policy(a));
    (world, dead)
}

/// With whom A is up, by its own account.
fn by(world: &World) -> Vec<IpAddr> {
    let now = world.now;
    let up = world.a.established(now);
    up.into_iter().map(|sa| sa.path.remote.ip()).collect()
}

fn failures(world: &World) -> Vec<String> {
    let events = world.a.events.iter();
    let failed = events.filter_map(|event| match &event.kind {
        EventKind::ServerFailed(failed) => Some(failed.to_string()),
        _ => None,
    });
    failed.collect()
}

#[test]
fn the_second_serves_while_the_first_is_dead_and_that_is_told() {
    let (mut world, _) = world(caller(), &[FIRST]);
    world.seconds(8);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    world.assert_in_step(&["one"]);
    let failed = failures(&world);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0].starts_with("198.51.100.2: no answer"),
        "{failed:?}"
    );
    let servers: Vec<_> = world
        .a
        .events
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::ChildUp { server, .. } => Some(server),
            _ => None,
        })
        .collect();
    assert_eq!(servers, [Some(1)]);
}

#[test]
fn the_tunnel_goes_back_to_the_first_before_it_leaves_the_second() {
    let (mut world, dead) = world(caller(), &[FIRST]);
    world.traffic = true;
    world.seconds(8);
    assert_eq!(by(&world), [ip(SECOND)]);
    // Asked in vain, which disturbs nothing.
    world.seconds(300);
    assert_eq!(by(&world), [ip(SECOND)]);
    assert_eq!(
        world.a.count(|k| matches!(k, EventKind::ChildDown { .. })),
        0
    );
    let asked = world
        .log
        .iter()
        .filter(|line| line.contains("A -> IKE_SA_INIT") && line.contains("-> 198.51.100.2:500"));
    let asked = asked.count();
    assert!((6..=15).contains(&asked), "{asked}: {}", world.tail());
    dead.lock().unwrap().clear();
    world.seconds(620);
    assert_eq!(by(&world), [ip(FIRST)], "{}", world.tail());
    world.assert_in_step(&["one"]);
    let down = world.a.events.iter().filter_map(|e| match &e.kind {
        EventKind::ChildDown { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(down.collect::<Vec<_>>(), [Reason::Replaced]);
    assert_eq!(world.unopened, Vec::<String>::new());
}

#[test]
fn a_server_that_dies_is_left_long_before_it_counts_as_dead() {
    let (mut world, dead) = world(caller(), &[]);
    world.seconds(8);
    assert_eq!(by(&world), [ip(FIRST)]);
    let died = world.now;
    dead.lock().unwrap().insert(ip(FIRST));
    world.until(60, "by the second", |world| by(world).contains(&ip(SECOND)));
    // Half a minute of silence, six seconds for the answer to the probe, three for the call.
    assert!(
        world.now - died < Duration::from_secs(42),
        "{}",
        world.tail()
    );
    world.seconds(120);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
}

#[test]
fn a_server_that_answers_and_lets_nobody_in_has_its_share_of_time_alone() {
    let (mut world, dead) = world(caller(), &[]);
    drop(dead);
    world.fate = Box::new(|flight| {
        let first = flight.path.local.ip() == ip(FIRST);
        match first && flight.is(ExchangeType::IKE_AUTH, false) {
            true => Fate::Drop,
            false => Fate::Deliver,
        }
    });
    world.seconds(20);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    let failed = failures(&world);
    assert!(
        failed[0].contains("did not let us in within 15 s"),
        "{failed:?}"
    );
    world.seconds(120);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
}

#[test]
fn a_server_that_is_somebody_else_is_passed_over_and_both_are_told() {
    let strange = IdentityPattern::Exactly(cygnet_wire::id::Identification::fqdn("z.example"));
    let server = |address: &str, identity: &IdentityPattern| Server {
        host: Host::Address(ip(address)),
        identity: Some(identity.clone()),
    };
    let known = connection(A).remote_identity;
    let to = |servers| Connection {
        remote: Remote::Hosts { servers, port: 500 },
        ..connection(A)
    };
    let one = to(vec![server(FIRST, &strange), server(SECOND, &known)]);
    let (mut world, _) = world(one, &[]);
    world.seconds(8);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    let none = to(vec![server(FIRST, &strange), server(SECOND, &strange)]);
    let (mut world, _) = self::world(none, &[]);
    world.seconds(8);
    assert_eq!(by(&world), Vec::<IpAddr>::new());
    let retry = world.a.events.iter().find_map(|e| match &e.kind {
        EventKind::Retry { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let retry = retry.unwrap();
    for told in ["198.51.100.2: ", "; 198.51.100.3: "] {
        assert!(retry.contains(told), "{retry}");
    }
}

#[test]
fn the_one_in_use_that_dies_while_earlier_ones_are_asked_is_not_waited_for() {
    let (mut world, dead) = world(caller(), &[FIRST]);
    world.seconds(8);
    assert_eq!(by(&world), [ip(SECOND)]);
    // Both are dead for a while, whatever was being asked when; the second is the first to be back.
    dead.lock().unwrap().insert(ip(SECOND));
    world.seconds(180);
    assert_eq!(by(&world), Vec::<IpAddr>::new(), "{}", world.tail());
    dead.lock().unwrap().remove(&ip(SECOND));
    world.seconds(45);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    world.assert_in_step(&["one"]);
}

#[test]
fn one_in_use_that_ends_while_an_earlier_one_is_asked_is_called_in_the_same_round() {
    let (mut world, dead) = world(caller(), &[FIRST]);
    world.seconds(8);
    assert_eq!(by(&world), [ip(SECOND)]);
    // The first answers again, but lets nobody in: that takes all of its share.
    dead.lock().unwrap().clear();
    world.fate = Box::new(|flight| {
        let first = flight.path.local.ip() == ip(FIRST);
        match first && flight.is(ExchangeType::IKE_AUTH, false) {
            true => Fate::Drop,
            false => Fate::Deliver,
        }
    });
    let asked = |world: &mut World| {
        let calls = world.log.iter();
        let calls = calls.filter(|l| l.contains("A -> IKE_AUTH") && l.contains("-> 198.51.100.2:"));
        calls.count() > 0
    };
    world.until(120, "the first is asked", asked);
    world.command(B, down(None));
    world.run(Duration::from_secs(1));
    assert_eq!(by(&world), Vec::<IpAddr>::new(), "{}", world.tail());
    world.seconds(16);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
}

fn by_name() -> Host {
    Host::Name("vpn.example.org".to_owned())
}

fn to(hosts: Vec<Host>) -> Connection {
    let servers = hosts.into_iter().map(Into::into).collect();
    Connection {
        remote: Remote::Hosts { servers, port: 500 },
        ..connection(A)
    }
}

/// Calls nobody yet.
fn to_nobody() -> Connection {
    Connection {
        remote: Remote::Any,
        ..connection(A)
    }
}

/// A name in the place of the first server, which has these addresses.
fn named(addresses: &[&str], dead: &[&str]) -> World {
    let (mut world, _) = world(to_nobody(), dead);
    world.a.named = addresses.iter().map(|a| ip(a)).collect();
    let all = addresses.iter().map(|a| ip(a));
    world.b.own = all.chain([ip(SECOND)]).collect();
    world.policy(A, policy(to(vec![by_name(), Host::Address(ip(SECOND))])));
    world
}

#[test]
fn a_silent_server_costs_as_much_with_several_addresses_as_with_one() {
    let addresses = ["198.51.100.11", "198.51.100.12", "198.51.100.13"];
    let silent = |addresses: &[&str]| {
        let mut world = named(addresses, addresses);
        world.until(60, "by the second", |world| by(world) == [ip(SECOND)]);
        world.now
    };
    let (one, three) = (silent(&addresses[..1]), silent(&addresses));
    assert!(
        three <= one + Duration::from_millis(100),
        "{one:?} {three:?}"
    );
}

#[test]
fn a_server_that_hangs_has_one_share_whatever_addresses_it_has() {
    let mut world = named(&[FIRST, "198.51.100.12"], &[]);
    world.fate = Box::new(|flight| {
        let second = flight.path.local.ip() == ip(SECOND);
        match !second && flight.is(ExchangeType::IKE_AUTH, false) {
            true => Fate::Drop,
            false => Fate::Deliver,
        }
    });
    // What was sent before that is lost as well.
    world.seconds(17);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
}

fn connecting(world: &World) -> usize {
    world
        .a
        .count(|kind| matches!(kind, EventKind::Connecting { .. }))
}

#[test]
fn a_server_whose_name_moves_while_it_is_called_is_met_there_within_five_seconds() {
    for after in [0, 700, 1400, 2900, 3100, 8000, 11_500, 300_000] {
        let (mut world, _) = world(to(vec![by_name()]), &[FIRST]);
        world.a.named = vec![ip(FIRST)];
        world.run(Duration::from_millis(40_000 + after));
        assert!(by(&world).is_empty(), "{}", world.tail());
        world.a.named = vec![ip(SECOND)];
        world.run(Duration::from_millis(5000));
        assert_eq!(by(&world), [ip(SECOND)], "{after} ms: {}", world.tail());
    }
}

#[test]
fn a_name_that_leads_to_the_silent_server_still_or_nowhere_ends_no_call() {
    for nowhere in [false, true] {
        let (mut world, dead) = world(to(vec![by_name()]), &[FIRST]);
        world.a.named = vec![ip(FIRST)];
        world.run(Duration::from_millis(100));
        let calls = connecting(&world);
        world.a.unreachable = nowhere;
        // It answers the call that began before the name was asked for again, and was repeated meanwhile.
        world.run(Duration::from_millis(5000));
        assert_eq!(connecting(&world), calls, "{}", world.tail());
        dead.lock().unwrap().clear();
        world.run(Duration::from_millis(2500));
        assert_eq!(by(&world), [ip(FIRST)], "{}", world.tail());
        assert!(world.a.resolves > 1, "the name was not asked for again");
    }
}

#[test]
fn a_name_that_nobody_looks_up_has_the_share_of_a_server() {
    let (mut world, _) = world(to_nobody(), &[]);
    world.a.no_resolver = true;
    world.policy(A, policy(to(vec![by_name(), Host::Address(ip(SECOND))])));
    world.a.no_resolver = false;
    world.seconds(16);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    let failed = failures(&world);
    assert!(
        failed[0].contains("no name server said where it is within 15 s"),
        "{failed:?}"
    );
}

#[test]
fn a_later_server_that_calls_us_stays_as_it_would_call_again() {
    let (mut world, dead) = world(caller(), &[FIRST]);
    // Nobody answers A, and the second calls.
    world.fate =
        Box::new(
            |flight| match flight.to == B && flight.is(ExchangeType::IKE_SA_INIT, false) {
                true => Fate::Drop,
                false => Fate::Deliver,
            },
        );
    let calls = Connection {
        name: "second".to_owned(),
        remote: hosts(A.address()),
        local_address: Some(ip(SECOND)),
        children: vec![child(B, "one", Start::Always).into()],
        ..connection(B)
    };
    world.b.own = vec![ip(SECOND), ip(FIRST)];
    let answers = Connection {
        local_address: Some(ip(FIRST)),
        ..connection(B)
    };
    let mut both = policy(answers);
    both.connections.push(calls.into());
    world.policy(B, both);
    world.seconds(20);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    // Also when the first serves, too.
    dead.lock().unwrap().clear();
    world.fate = Box::new(|_| Fate::Deliver);
    world.seconds(300);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    let downs = |k: &EventKind| matches!(k, EventKind::ChildDown { .. });
    assert_eq!(world.a.count(downs), 0, "{}", world.tail());
}

#[test]
fn what_another_server_has_of_us_does_not_keep_a_call_from_being_the_first_contact() {
    let name = |end: &str| cygnet_wire::id::Identification::fqdn(end);
    let place = |address: &str, identity: &str| Server {
        host: Host::Address(ip(address)),
        identity: Some(IdentityPattern::Exactly(name(identity))),
    };
    let servers = vec![
        place(FIRST, "first.example.org"),
        place(SECOND, "second.example.org"),
    ];
    let a = Connection {
        remote: Remote::Hosts { servers, port: 500 },
        ..connection(A)
    };
    let server = |connection_name: &str, address: &str| Connection {
        name: connection_name.to_owned(),
        local_address: Some(ip(address)),
        local_identity: Some(name(&format!("{connection_name}.example.org"))),
        liveness: Duration::from_secs(3600),
        ..connection(B)
    };
    let (mut world, dead) = world(a.clone(), &[FIRST]);
    let mut both = policy(server("first", FIRST));
    both.connections.push(server("second", SECOND).into());
    world.policy(B, both);
    world.seconds(20);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    // A forgets the second, and is with the first until that is silent.
    dead.lock().unwrap().clear();
    world.reboot(A, policy(a));
    world.seconds(5);
    assert_eq!(by(&world), [ip(FIRST)], "{}", world.tail());
    dead.lock().unwrap().insert(ip(FIRST));
    world.until(90, "by the second", |world| by(world).contains(&ip(SECOND)));
    world.run(Duration::from_millis(100));
    let known = world.b.established(world.now);
    let known = known.iter().filter(|sa| sa.path.local.ip() == ip(SECOND));
    assert_eq!(known.count(), 1, "{}", world.tail());
}

#[test]
fn what_was_taken_down_while_earlier_servers_are_asked_stays_down() {
    let (mut world, dead) = world(caller(), &[FIRST]);
    world.seconds(8);
    world.until(120, "an earlier one is asked", |world| {
        let asked = world
            .log
            .iter()
            .filter(|l| l.contains("-> 198.51.100.2:500"));
        asked.count() > 3
    });
    world.command(A, down(None));
    dead.lock().unwrap().clear();
    world.seconds(700);
    assert_eq!(by(&world), Vec::<IpAddr>::new(), "{}", world.tail());
}

#[test]
fn an_earlier_server_that_refuses_the_child_changes_nothing() {
    let with = |mut connection: Connection, one: ChildPolicy| {
        connection.children = vec![one.into()];
        connection
    };
    let suite = |mut one: ChildPolicy, suite: &str| {
        one.esp_proposals = vec![suite.parse().unwrap()];
        one
    };
    let mut child_a = suite(child(A, "one", Start::Always), "aes256gcm16");
    child_a.local = vec![SelectorTemplate::Dynamic];
    let mut a = with(caller(), child_a);
    a.request_virtual = vec![WantedAddress::V4(None)];
    let server = |name: &str, address: &str, takes: &str| {
        let mut child_b = suite(child(B, "one", Start::Manual), takes);
        child_b.remote = vec![SelectorTemplate::Dynamic];
        let mut b = with(connection(B), child_b);
        b.name = name.to_owned();
        b.local_address = Some(ip(address));
        b.pool = Some(PoolId("pool".to_owned()));
        b
    };
    let (mut world, dead) = world(a, &[FIRST]);
    let mut both = policy(server("first", FIRST, "aes128gcm16"));
    let second = server("second", SECOND, "aes256gcm16");
    both.connections.push(second.into());
    world.policy(B, both);
    world.seconds(20);
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    dead.lock().unwrap().clear();
    for _ in 0..50_000 {
        world.run(Duration::from_millis(5));
        // Its addresses are not ours before it carries what the one in use does.
        assert_eq!(world.a.assigned.len(), 1, "{}", world.tail());
    }
    let ups = |k: &EventKind| matches!(k, EventKind::IkeUp { .. });
    assert!(world.a.count(ups) > 1, "{}", world.tail());
    assert_eq!(by(&world), [ip(SECOND)], "{}", world.tail());
    let downs = |k: &EventKind| matches!(k, EventKind::ChildDown { .. });
    assert_eq!(world.a.count(downs), 0);
}

#[test]
fn another_server_is_no_other_address_of_the_one_in_use() {
    let strange = IdentityPattern::Exactly(cygnet_wire::id::Identification::fqdn("z.example"));
    let place = |address: &str, identity: Option<IdentityPattern>| Server {
        host: Host::Address(ip(address)),
        identity,
    };
    let moves_to = |second: Option<IdentityPattern>| {
        let servers = vec![place(FIRST, None), place(SECOND, second)];
        let a = Connection {
            remote: Remote::Hosts { servers, port: 500 },
            mobike: true,
            ..connection(A)
        };
        let (mut world, dead) = world(a, &[]);
        let b = Connection {
            mobike: true,
            ..connection(B)
        };
        world.policy(B, policy(b));
        world.seconds(20);
        assert_eq!(by(&world), [ip(FIRST)], "{}", world.tail());
        dead.lock().unwrap().insert(ip(FIRST));
        world.seconds(60);
        let asked = world.log.iter().filter(|line| {
            line.contains("A -> INFORMATIONAL") && line.contains(&format!("-> {SECOND}:"))
        });
        asked.count() > 0
    };
    assert!(moves_to(None), "two addresses of one server");
    assert!(!moves_to(Some(strange)), "two servers");
}

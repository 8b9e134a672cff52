//! Ends and returns: deletes, dead peers, traps, changed policies, moved peers.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::policy::{LocalAuth, Policy, Start};
use cygnet_wire::header::ExchangeType;

#[test]
fn connection_taken_down_by_the_caller_stays_down() {
    let mut world = up();
    world.command(A, down(None));
    world.seconds(60);
    world.assert_empty();
    let by_peer = |k: &EventKind| {
        matches!(
            k,
            EventKind::IkeDown {
                reason: Reason::DeletedByPeer
            }
        )
    };
    assert_eq!(world.b.count(by_peer), 1);
}

#[test]
fn connection_taken_down_by_the_called_is_called_again() {
    let mut world = up();
    world.command(B, down(None));
    world.seconds(20);
    world.assert_in_step(&["one"]);
}

#[test]
fn both_delete_the_ike_sa_at_once() {
    let mut world = up();
    world.command(A, down(None));
    world.command(B, down(None));
    world.seconds(20);
    world.assert_empty();
}

#[test]
fn both_delete_a_child_at_once() {
    for which in 0..5 {
        let mut world = up();
        let mut count = 0;
        world.fate = Box::new(move |_| {
            count += 1;
            if count == which {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        world.command(A, down(Some("one")));
        world.command(B, down(Some("one")));
        world.seconds(30);
        assert!(
            world.a.children.is_empty() && world.b.children.is_empty(),
            "{}",
            world.tail()
        );
        let now = world.now;
        assert_eq!(world.a.established(now).len(), 1);
        assert_eq!(world.b.established(now).len(), 1);
    }
}

#[test]
fn one_rekeys_the_ike_sa_while_the_other_deletes_it() {
    for which in 0..6 {
        let mut world = up();
        let mut count = 0;
        world.fate = Box::new(move |_| {
            count += 1;
            if count == which {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        world.command(B, rekey_ike());
        world.command(A, down(None));
        world.seconds(90);
        world.assert_empty();
    }
}

#[test]
fn lost_answer_to_a_delete_is_repeated_after_the_end() {
    let mut world = up();
    let mut lost = 0;
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::INFORMATIONAL, true) && lost < 2 {
            lost += 1;
            return Fate::Drop;
        }
        Fate::Deliver
    });
    world.command(A, down(None));
    world.seconds(20);
    world.assert_empty();
    let no_answer = |k: &EventKind| {
        matches!(
            k,
            EventKind::IkeDown {
                reason: Reason::NoAnswer { .. }
            }
        )
    };
    assert_eq!(world.a.count(no_answer), 0);
}

#[test]
fn dead_peer_is_noticed_and_called_for_ever() {
    let mut world = up();
    world.fate = Box::new(|_| Fate::Drop);
    world.seconds(120);
    let now = world.now;
    assert!(world.a.established(now).is_empty(), "{}", world.tail());
    let gone = |k: &EventKind| {
        matches!(
            k,
            EventKind::IkeDown {
                reason: Reason::NoAnswer { .. }
            }
        )
    };
    assert_eq!(world.a.count(gone), 1);
    world.seconds(7200);
    let resolved = world.a.resolves;
    assert!(resolved > 50, "{resolved}");
    world.fate = Box::new(|_| Fate::Deliver);
    world.until(90, "back", |world| {
        let now = world.now;
        world.a.established(now).len() == 1
    });
    world.seconds(10);
    world.assert_in_step(&["one"]);
}

#[test]
fn restarted_peer_is_found_again() {
    let mut world = up();
    world.reboot(B, policy(connection(B)));
    world.seconds(120);
    world.assert_in_step(&["one"]);
}

#[test]
fn restarted_caller_replaces_what_it_has_forgotten() {
    let mut world = up();
    world.reboot(A, policy(connection(A)));
    world.seconds(20);
    // What was sealed before the return was for nobody.
    world.unopened.clear();
    world.traffic = true;
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn packet_brings_up_the_connection_and_repeats_are_absorbed() {
    let mut a = connection(A);
    a.children = vec![Arc::new(child(A, "one", Start::Traffic))];
    let mut world = World::new(policy(a), policy(connection(B)));
    world.seconds(5);
    assert_eq!(world.a.resolves, 0);
    assert_eq!(world.a.traps.len(), 1);
    for _ in 0..5 {
        world.data(
            A,
            DataEvent::Acquire {
                connection: "link".to_owned(),
                child: "one".to_owned(),
                packet: None,
            },
        );
    }
    world.seconds(5);
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.resolves, 1);
    world.data(
        A,
        DataEvent::Acquire {
            connection: "link".to_owned(),
            child: "one".to_owned(),
            packet: None,
        },
    );
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn packet_brings_up_another_child_on_the_same_ike_sa() {
    let both = |end: End, start| {
        let mut connection = connection(end);
        connection.children.push(Arc::new(child(end, "two", start)));
        connection
    };
    let mut world = up_with(both(A, Start::Traffic), both(B, Start::Manual));
    let selector =
        |text: &str| cygnet_wire::ts::TrafficSelector::from_prefix(text.parse().unwrap(), 32);
    world.data(
        A,
        DataEvent::Acquire {
            connection: "link".to_owned(),
            child: "two".to_owned(),
            packet: Some((selector("10.1.2.9"), selector("10.2.2.8"))),
        },
    );
    world.seconds(5);
    world.assert_in_step(&["one", "two"]);
    assert_eq!(world.a.resolves, 1);
}

#[test]
fn both_ends_call_and_one_ike_sa_stays() {
    for seed in 0..12 {
        let site = |end: End| {
            let mut connection = connection(end);
            connection.remote = hosts(end.other().address());
            connection.children = vec![Arc::new(child(end, "one", Start::Always))];
            connection
        };
        let mut world = World::seeded(policy(site(A)), policy(site(B)), seed);
        world.traffic = true;
        world.seconds(60);
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn both_ends_bring_up_the_same_child_at_once_and_one_stays() {
    for seed in 0..12 {
        let site = |end: End| {
            let mut connection = connection(end);
            connection
                .children
                .push(Arc::new(child(end, "two", Start::Manual)));
            connection.remote = hosts(end.other().address());
            connection
        };
        let mut world = World::seeded(policy(site(A)), policy(site(B)), seed);
        world.seconds(3);
        world.traffic = true;
        world.command(A, bring_up(Some("two")));
        world.command(B, bring_up(Some("two")));
        world.seconds(20);
        world.assert_in_step(&["one", "two"]);
    }
}

#[test]
fn shutdown_deletes_and_says_when_it_is_done() {
    let mut world = up();
    world.command(A, Command::Shutdown);
    world.seconds(1);
    assert_eq!(world.a.count(|k| *k == EventKind::Drained), 1);
    world.seconds(10);
    world.assert_empty();
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let mut world = up();
    world.fate = Box::new(|_| Fate::Drop);
    world.command(A, Command::Shutdown);
    world.seconds(6);
    assert_eq!(
        world.a.count(|k| *k == EventKind::Drained),
        1,
        "{}",
        world.tail()
    );
}

#[test]
fn unchanged_connection_is_not_touched_by_a_reload() {
    let mut world = up();
    let resolves = world.a.resolves;
    world.policy(A, policy(connection(A)));
    world.seconds(5);
    assert_eq!(world.a.resolves, resolves);
    assert_eq!(world.a.count(|k| matches!(k, EventKind::IkeDown { .. })), 0);
}

/// With one more certificate in the chain that it shows.
fn renewed(end: End) -> Policy {
    let mut connection = with_certificates(end);
    let LocalAuth::Certificate { chain, .. } = &mut connection.local_auth else {
        panic!("no certificate");
    };
    chain.push(b"an intermediate".to_vec());
    policy(connection)
}

#[test]
fn another_certificate_of_a_server_disturbs_nobody() {
    let mut world = World::new(policy(with_certificates(A)), policy(with_certificates(B)));
    world.seconds(3);
    world.policy(B, renewed(B));
    world.seconds(60);
    world.assert_in_step(&["one"]);
    for node in [&world.a, &world.b] {
        assert_eq!(node.count(|k| matches!(k, EventKind::IkeUp { .. })), 1);
    }
    // Whoever calls then is shown the new one.
    world.reboot(A, policy(with_certificates(A)));
    world.seconds(5);
    assert_eq!(world.a.child_sas(world.now).len(), 1, "{}", world.tail());
    assert_eq!(world.a.shown, [2]);
    // And a change of more than that is one.
    let mut other = with_certificates(B);
    other.liveness = Duration::from_secs(7);
    world.policy(B, policy(other));
    world.seconds(1);
    let ended = |kind: &EventKind| matches!(kind, EventKind::IkeDown { reason } if *reason == Reason::Operator);
    assert!(world.b.count(ended) > 0);
}

#[test]
fn another_certificate_of_a_client_is_shown_before_the_old_one_goes() {
    let mut world = World::new(policy(with_certificates(A)), policy(with_certificates(B)));
    world.seconds(3);
    world.policy(A, renewed(A));
    world.seconds(20);
    world.assert_in_step(&["one"]);
    let replaced = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::IkeUp {
                replaces: Some(_),
                ..
            }
        )
    };
    assert_eq!(world.a.count(replaced), 1, "{}", world.tail());
    let cut = |kind: &EventKind| matches!(kind, EventKind::IkeDown { reason } if *reason != Reason::Replaced);
    assert_eq!(world.a.count(cut), 0, "{}", world.tail());
    assert_eq!(world.b.shown, [1, 2]);
}

#[test]
fn a_certificate_that_comes_while_a_client_calls_is_shown_as_well() {
    let mut world = World::new(policy(with_certificates(A)), policy(with_certificates(B)));
    world.a.hold_chains = true;
    world.seconds(1);
    world.policy(A, renewed(A));
    world.release(A);
    world.seconds(20);
    world.assert_in_step(&["one"]);
    assert_eq!(world.b.shown, [1, 2], "{}", world.tail());
}

#[test]
fn changed_connection_is_restarted_and_removed_one_deleted() {
    let mut world = up();
    let mut changed = connection(A);
    changed.liveness = Duration::from_secs(7);
    world.policy(A, policy(changed));
    world.seconds(20);
    world.assert_in_step(&["one"]);
    assert_eq!(world.a.resolves, 2);
    world.policy(A, Policy::default());
    world.seconds(20);
    world.assert_empty();
}

#[test]
fn new_nat_mapping_is_followed_by_the_end_that_is_not_behind_it() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    world.nat = Some(("203.0.113.9".parse().unwrap(), 20_000));
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(
        world.b.count(|k| matches!(k, EventKind::PeerMoved { .. })),
        1
    );
    let path = world.b.children.values().next().unwrap().params.path;
    assert_eq!(path.remote.port(), 24_500);
}

#[test]
fn esp_from_elsewhere_moves_the_peer_too() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    let (child, mut path) = {
        let (id, child) = world.b.children.iter().next().unwrap();
        (*id, child.params.path)
    };
    path.remote.set_port(24_500);
    world.data(B, DataEvent::PeerMoved { child, path });
    assert_eq!(world.b.children[&child].params.path, path);
}

#[test]
fn keepalives_go_out_from_behind_a_nat_only() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let counter = count.clone();
    world.fate = Box::new(move |flight| {
        if flight.datagram == [0xff] {
            assert_eq!(flight.to, B);
            counter.set(counter.get() + 1);
        }
        Fate::Deliver
    });
    world.seconds(200);
    assert!(count.get() >= 3, "{}", count.get());
    world.assert_in_step(&["one"]);
}

#[test]
fn many_children_come_up_and_go_together() {
    let names = ["one", "two", "three"];
    let many = |end: End| {
        let mut connection = connection(end);
        let start = connection.children[0].start;
        connection.children = names
            .iter()
            .map(|n| Arc::new(child(end, n, start)))
            .collect();
        connection
    };
    let mut world = up_with(many(A), many(B));
    world.assert_in_step(&["one", "three", "two"]);
    let spis = |world: &World| {
        let sa = &world.a.established(world.now)[0];
        let spis = sa.children.iter().map(|child| child.spi_in);
        (sa.spi_i, spis.collect::<std::collections::BTreeSet<_>>())
    };
    let before = spis(&world);
    world.command(B, rekey_ike());
    for name in names {
        world.command(A, rekey_child(name));
        world.command(B, rekey_child(name));
    }
    world.seconds(60);
    world.assert_in_step(&["one", "three", "two"]);
    let after = spis(&world);
    assert_ne!(before.0, after.0);
    assert!(before.1.is_disjoint(&after.1), "{before:?} {after:?}");
    world.command(A, down(None));
    world.seconds(20);
    world.assert_empty();
}

/// The SPI that A sends on, and how B sees A.
fn as_b_sees_it(world: &World) -> (u32, cygnet_ike::io::Path) {
    let spi = world.a.sending("one").unwrap().params.spi_out;
    (spi, world.b.ike_sas(world.now)[0].path)
}

#[test]
fn child_that_the_peer_has_lost_is_made_anew() {
    let mut world = up();
    world.seconds(15);
    let (spi, path) = as_b_sees_it(&world);
    world.data(B, DataEvent::UnknownSpi { spi, path });
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(as_b_sees_it(&world).0, spi);
    let lost = |k: &EventKind| matches!(k, EventKind::ChildDown { reason: Reason::PeerRefused(why), .. } if why.contains("INVALID_SPI"));
    assert_eq!(world.a.count(lost), 1, "{}", world.tail());
}

#[test]
fn unknown_spi_that_is_not_ours_or_too_young_ends_nothing_and_is_told_of_rarely() {
    let mut world = up();
    world.seconds(2);
    let (young, path) = as_b_sees_it(&world);
    for spi in [young, 0xdead_beef] {
        for _ in 0..50 {
            world.data(B, DataEvent::UnknownSpi { spi, path });
            world.run(Duration::from_millis(100));
        }
        world.seconds(15);
    }
    assert_eq!(as_b_sees_it(&world).0, young);
    world.assert_in_step(&["one"]);
    let told = |line: &&String| line.contains("B -> INFORMATIONAL") && line.contains("request");
    assert_eq!(world.log.iter().filter(told).count(), 2, "{}", world.tail());
}

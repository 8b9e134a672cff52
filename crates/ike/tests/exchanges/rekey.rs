//! Rekeying, of Child SAs and IKE SAs, alone and when both ends do it at once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use cygnet_crypto::suite::Group;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::policy::{Connection, Lifetime, Start};
use cygnet_wire::header::ExchangeType;

fn child_spi(world: &mut World) -> u32 {
    let now = world.now;
    world.a.child_sas(now)[0].spi_in
}

fn ike_spi(world: &mut World) -> u64 {
    let now = world.now;
    world.a.established(now)[0].spi_i.0
}

#[test]
fn child_is_rekeyed_by_either_end_without_a_gap() {
    for end in [A, B] {
        let mut world = up();
        world.traffic = true;
        let before = child_spi(&mut world);
        world.command(end, rekey_child("one"));
        world.seconds(10);
        world.assert_in_step(&["one"]);
        assert_ne!(before, child_spi(&mut world));
    }
}

#[test]
fn responder_of_a_rekey_keeps_sending_on_the_old_until_the_peer_is_ready() {
    let mut world = up();
    let before = child_spi(&mut world);
    world.traffic = true;
    // The response that would tell A of the new Child SA is lost twice.
    let mut lost = 0;
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::CREATE_CHILD_SA, true) && lost < 2 {
            lost += 1;
            return Fate::Drop;
        }
        Fate::Deliver
    });
    world.command(A, rekey_child("one"));
    world.seconds(2);
    assert_eq!(world.b.children.len(), 2, "{}", world.tail());
    assert!(world.unopened.is_empty(), "{:?}", world.unopened);
    world.seconds(20);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

#[test]
fn without_traffic_the_delete_tells_the_responder_to_switch() {
    let mut world = up();
    let before = child_spi(&mut world);
    world.command(A, rekey_child("one"));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

#[test]
fn child_without_perfect_forward_secrecy_is_rekeyed() {
    let plain = |end| {
        let mut connection = connection(end);
        let start = connection.children[0].start;
        let mut child = child(end, "one", start);
        for proposal in &mut child.esp_proposals {
            proposal.group.clear();
        }
        connection.children = vec![child.into()];
        connection
    };
    let mut world = up_with(plain(A), plain(B));
    let before = child_spi(&mut world);
    world.command(B, rekey_child("one"));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

#[test]
fn other_group_is_taken_for_a_child_when_the_peer_asks_for_it() {
    let mut b = connection(B);
    let mut only = child(B, "one", Start::Manual);
    for proposal in &mut only.esp_proposals {
        proposal.group = vec![Group::EcpP256];
    }
    b.children = vec![only.into()];
    let mut world = up_with(connection(A), b);
    let before = child_spi(&mut world);
    world.command(A, rekey_child("one"));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

/// CREATE_CHILD_SA requests that one rekey of the child by A takes.
fn requests_of_a_rekey(world: &mut World) -> usize {
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    world.fate = Box::new(move |flight| {
        let request = flight.is(ExchangeType::CREATE_CHILD_SA, false);
        count.set(count.get() + usize::from(request));
        Fate::Deliver
    });
    let before = child_spi(world);
    world.command(A, rekey_child("one"));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(world));
    seen.get()
}

#[test]
fn a_rekey_begins_with_the_group_that_the_peer_is_known_to_take() {
    let of_groups = |end, ike: &[Group], esp: &[Group]| {
        let mut connection = connection(end);
        for proposal in &mut connection.ike_proposals {
            proposal.group = ike.to_vec();
        }
        let mut child = child(end, "one", connection.children[0].start);
        for proposal in &mut child.esp_proposals {
            proposal.group = esp.to_vec();
        }
        connection.children = vec![child.into()];
        connection
    };
    let (first, other) = (Group::Curve25519, Group::EcpP256);
    // That of the IKE SA, though another one is first for ESP.
    let a = of_groups(A, &[other], &[first, other]);
    let mut world = up_with(a, of_groups(B, &[other], &[other]));
    assert_eq!(requests_of_a_rekey(&mut world), 1);
    // Another than that of the IKE SA is found out once.
    let a = of_groups(A, &[first], &[first, other]);
    let mut world = up_with(a, of_groups(B, &[first], &[other]));
    assert_eq!(requests_of_a_rekey(&mut world), 2);
    assert_eq!(requests_of_a_rekey(&mut world), 1);
}

#[test]
fn both_rekey_a_child_at_once_and_one_new_stays() {
    for seed in 0..24 {
        let mut world = up_seeded(connection(A), connection(B), seed);
        world.traffic = seed % 2 == 0;
        let before = child_spi(&mut world);
        world.command(A, rekey_child("one"));
        world.command(B, rekey_child("one"));
        world.seconds(15);
        world.assert_in_step(&["one"]);
        assert_ne!(before, child_spi(&mut world));
    }
}

#[test]
fn both_rekey_a_child_and_any_one_message_is_lost_or_late() {
    for seed in 0..4 {
        for which in 0..10 {
            for late in [None, Some(15), Some(400)] {
                let mut world = up_seeded(connection(A), connection(B), seed);
                world.traffic = true;
                let mut count = 0;
                world.fate = Box::new(move |_| {
                    count += 1;
                    match late {
                        _ if count != which + 1 => Fate::Deliver,
                        None => Fate::Drop,
                        Some(by) => Fate::Delay(Duration::from_millis(by)),
                    }
                });
                let before = child_spi(&mut world);
                world.command(A, rekey_child("one"));
                world.command(B, rekey_child("one"));
                world.seconds(40);
                world.assert_in_step(&["one"]);
                assert_ne!(before, child_spi(&mut world));
            }
        }
    }
}

#[test]
fn one_rekeys_while_the_other_deletes_the_child() {
    for seed in 0..4 {
        for which in 0..8 {
            let mut world = up_seeded(connection(A), connection(B), seed);
            let mut count = 0;
            world.fate = Box::new(move |_| {
                count += 1;
                if count == which + 1 {
                    Fate::Drop
                } else {
                    Fate::Deliver
                }
            });
            let before = child_spi(&mut world);
            world.command(A, rekey_child("one"));
            world.command(B, down(Some("one")));
            world.seconds(60);
            // A wants it always.
            world.assert_in_step(&["one"]);
            assert_ne!(before, child_spi(&mut world));
        }
    }
}

#[test]
fn child_taken_down_by_the_called_is_made_anew_by_who_wants_it() {
    let mut world = up();
    let before = child_spi(&mut world);
    world.command(B, down(Some("one")));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

#[test]
fn ike_sa_is_rekeyed_by_either_end_and_the_children_move() {
    for end in [A, B] {
        let mut world = up();
        world.traffic = true;
        let before = (ike_spi(&mut world), child_spi(&mut world));
        world.command(end, rekey_ike());
        world.seconds(10);
        world.assert_in_step(&["one"]);
        assert_ne!(before.0, ike_spi(&mut world));
        assert_eq!(before.1, child_spi(&mut world));
        // The new one works: its first requests have the id 0.
        for end in [A, B] {
            let before = child_spi(&mut world);
            world.command(end, rekey_child("one"));
            world.seconds(10);
            world.assert_in_step(&["one"]);
            assert_ne!(before, child_spi(&mut world));
        }
    }
}

#[test]
fn both_rekey_the_ike_sa_at_once_and_one_new_inherits() {
    for seed in 0..24 {
        let mut world = up_seeded(connection(A), connection(B), seed);
        world.traffic = true;
        let before = ike_spi(&mut world);
        world.command(A, rekey_ike());
        world.command(B, rekey_ike());
        world.seconds(15);
        world.assert_in_step(&["one"]);
        assert_ne!(before, ike_spi(&mut world));
        let before = child_spi(&mut world);
        world.command(A, rekey_child("one"));
        world.command(B, rekey_child("one"));
        world.seconds(15);
        world.assert_in_step(&["one"]);
        assert_ne!(before, child_spi(&mut world));
    }
}

#[test]
fn both_rekey_the_ike_sa_and_any_one_message_is_lost_or_late() {
    for seed in 0..4 {
        for which in 0..10 {
            for late in [None, Some(15), Some(400)] {
                let mut world = up_seeded(connection(A), connection(B), seed);
                world.traffic = true;
                let mut count = 0;
                world.fate = Box::new(move |_| {
                    count += 1;
                    match late {
                        _ if count != which + 1 => Fate::Deliver,
                        None => Fate::Drop,
                        Some(by) => Fate::Delay(Duration::from_millis(by)),
                    }
                });
                let before = ike_spi(&mut world);
                world.command(A, rekey_ike());
                world.command(B, rekey_ike());
                world.seconds(40);
                world.assert_in_step(&["one"]);
                assert_ne!(before, ike_spi(&mut world));
            }
        }
    }
}

/// Requests are repeated for a minute and a half.
fn patient(end: End) -> Connection {
    let mut connection = connection(end);
    connection.retransmit.most = Duration::from_secs(30);
    connection.retransmit.tries = 10;
    connection.liveness = Duration::from_secs(300);
    connection
}

/// These ends rekey the IKE SA while the network does so, for longer than a minute; once all gets through
/// again, another IKE SA is there with the children of before.
#[track_caller]
fn rekeys_through(mut world: World, ends: &[End], fate: impl FnMut(&Flight) -> Fate + 'static) {
    let children: Vec<_> = world.a.children.keys().copied().collect();
    let old = ike_spi(&mut world);
    world.fate = Box::new(fate);
    for end in ends {
        world.command(*end, rekey_ike());
    }
    world.seconds(75);
    world.fate = Box::new(|_| Fate::Deliver);
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_ne!(old, ike_spi(&mut world));
    let now_there: Vec<_> = world.a.children.keys().copied().collect();
    assert_eq!(children, now_there, "{}", world.tail());
}

#[test]
fn a_rekeyed_ike_sa_stays_while_the_peer_may_not_know_of_its_heir() {
    // The second looks after 30 seconds of silence whether its peer lives.
    for b in [patient(B), connection(B)] {
        let world = up_with(patient(A), b);
        rekeys_through(world, &[A], |flight| {
            match flight.is(ExchangeType::CREATE_CHILD_SA, true) {
                true => Fate::Drop,
                false => Fate::Deliver,
            }
        });
    }
}

#[test]
fn silence_after_a_rekey_by_the_peer_is_noticed_as_soon_as_ever() {
    let given_up_after = |rekeyed: bool| {
        let mut world = up_with(patient(A), connection(B));
        if rekeyed {
            world.command(A, rekey_ike());
        }
        world.seconds(1);
        world.fate = Box::new(|_| Fate::Drop);
        let begun = world.now;
        let given_up = |k: &EventKind| {
            matches!(
                k,
                EventKind::IkeDown {
                    reason: Reason::NoAnswer { .. }
                }
            )
        };
        world.until(120, "the end", |world| world.b.count(given_up) > 0);
        world.now - begun
    };
    assert!(given_up_after(true) < given_up_after(false) + Duration::from_secs(3));
}

#[test]
fn the_peers_new_ike_sa_waits_for_as_long_as_our_own_request_is_in_flight() {
    for seed in 0..4 {
        let mut world = up_seeded(patient(A), patient(B), seed);
        let old = ike_spi(&mut world);
        // B's rekey is answered; nothing else on the old IKE SA comes through.
        rekeys_through(world, &[A, B], move |flight| match flight.header() {
            Some(header) if header.initiator_spi.0 != old => Fate::Deliver,
            Some(header) if header.exchange == ExchangeType::INFORMATIONAL => Fate::Drop,
            Some(header) if flight.to == B && !header.flags.is_response() => Fate::Drop,
            _ => Fate::Deliver,
        });
    }
}

#[test]
fn ike_rekey_and_child_rekey_collide_and_both_happen() {
    for seed in 0..8 {
        let mut world = up_seeded(connection(A), connection(B), seed);
        world.traffic = true;
        let before = (ike_spi(&mut world), child_spi(&mut world));
        world.command(A, rekey_ike());
        world.command(B, rekey_child("one"));
        world.seconds(30);
        world.assert_in_step(&["one"]);
        assert_ne!(before.0, ike_spi(&mut world));
        assert_ne!(before.1, child_spi(&mut world));
    }
}

#[test]
fn ike_rekey_and_new_child_collide_and_both_happen() {
    let three = |end: End| {
        let mut connection = connection(end);
        connection
            .children
            .push(child(end, "two", Start::Manual).into());
        connection
    };
    let mut world = up_with(three(A), three(B));
    let before = ike_spi(&mut world);
    world.command(A, bring_up(Some("two")));
    world.command(B, rekey_ike());
    world.seconds(30);
    world.assert_in_step(&["one", "two"]);
    assert_ne!(before, ike_spi(&mut world));
}

#[test]
fn lifetimes_rekey_in_time_for_days() {
    let short = |end| {
        let mut connection = connection(end);
        connection.lifetime = Lifetime {
            time: Duration::from_secs(600),
            jitter_percent: 10,
            ..FOREVER
        };
        let start = connection.children[0].start;
        let mut child = child(end, "one", start);
        child.lifetime = Lifetime {
            time: Duration::from_secs(150),
            jitter_percent: 10,
            ..FOREVER
        };
        connection.children = vec![child.into()];
        connection
    };
    let mut world = up_with(short(A), short(B));
    for _ in 0..200 {
        world.seconds(100);
        assert!(world.unopened.is_empty(), "{:?}", world.unopened);
    }
    world.until(60, "quiet", |world| {
        let now = world.now;
        world.a.ike_sas(now).len() == 1
            && world.a.children.len() == 1
            && world.b.children.len() == 1
    });
    world.assert_in_step(&["one"]);
    assert_eq!(
        world
            .a
            .count(|k| matches!(k, EventKind::IkeDown { reason } if *reason != Reason::Replaced)),
        0
    );
    assert!(world.a.count(|k| matches!(k, EventKind::IkeUp { .. })) > 25);
    assert_eq!(world.a.resolves, 1);
}

#[test]
fn bytes_and_packets_rekey_when_the_data_path_says_so() {
    let mut world = up();
    let before = child_spi(&mut world);
    let child = *world.a.children.keys().next().unwrap();
    world.data(A, DataEvent::SoftLimit { child });
    world.data(A, DataEvent::SoftLimit { child });
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
}

#[test]
fn hard_limit_ends_the_child_and_the_keeper_makes_another() {
    let mut world = up();
    let before = child_spi(&mut world);
    let child = *world.a.children.keys().next().unwrap();
    world.data(A, DataEvent::HardLimit { child });
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_ne!(before, child_spi(&mut world));
    let expired = |k: &EventKind| {
        matches!(
            k,
            EventKind::ChildDown {
                reason: Reason::Expired,
                ..
            }
        )
    };
    assert_eq!(world.a.count(expired), 1);
}

#[test]
fn reauthentication_makes_the_new_before_it_breaks_the_old() {
    let two = |end: End| {
        let mut connection = connection(end);
        let start = connection.children[0].start;
        connection.children.push(child(end, "two", start).into());
        connection
    };
    let mut world = up_with(two(A), two(B));
    world.traffic = true;
    let before = ike_spi(&mut world);
    world.command(
        A,
        Command::Reauthenticate {
            connection: "link".to_owned(),
        },
    );
    for _ in 0..150 {
        world.run(Duration::from_millis(100));
        for name in ["one", "two"] {
            assert!(world.a.sending(name).is_some() && world.b.sending(name).is_some());
        }
    }
    world.assert_in_step(&["one", "two"]);
    assert_ne!(before, ike_spi(&mut world));
    assert_eq!(world.a.resolves, 2);
}

#[test]
fn reauthentication_by_the_clock_keeps_the_virtual_address() {
    let mut a = connection(A);
    a.request_virtual = vec![cygnet_ike::io::WantedAddress::V4(None)];
    a.reauthenticate = Some(Duration::from_secs(300));
    let mut child_a = child(A, "one", Start::Always);
    child_a.local = vec![cygnet_ike::policy::SelectorTemplate::Dynamic];
    a.children = vec![child_a.into()];
    let mut b = connection(B);
    b.pool = Some(cygnet_ike::policy::PoolId("pool".to_owned()));
    let mut child_b = child(B, "one", Start::Manual);
    child_b.remote = vec![cygnet_ike::policy::SelectorTemplate::Dynamic];
    b.children = vec![child_b.into()];
    let mut world = up_with(a, b);
    world.traffic = true;
    world.seconds(1000);
    world.assert_in_step(&["one"]);
    assert!(world.a.resolves >= 4, "{}", world.a.resolves);
    assert_eq!(world.a.assigned.len(), 1);
    assert_eq!(world.b.leases.len(), 1);
}

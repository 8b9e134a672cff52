//! MOBIKE (RFC 4555): the ends move, and what they have between them stays.

mod nat;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::{DataEvent, Path};
use cygnet_ike::policy::{Connection, Host, Remote};
use cygnet_wire::header::ExchangeType;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The second and third place where A may be.
fn second() -> IpAddr {
    ip("192.0.2.77")
}

fn third() -> IpAddr {
    ip("203.0.113.3")
}

fn a6() -> IpAddr {
    ip("2001:db8:a::1")
}

fn b6() -> IpAddr {
    ip("2001:db8:b::1")
}

fn mobile(end: End) -> Connection {
    Connection {
        mobike: true,
        claim_nat: true,
        ..connection(end)
    }
}

/// Both do MOBIKE, B is at two addresses, and all is up.
fn up_mobile() -> World {
    up_mobile_with(mobile(A), mobile(B), 1)
}

fn up_mobile_with(a: Connection, b: Connection, seed: u64) -> World {
    let mut world = World::seeded(policy(a), policy(b), seed);
    world.b.own.push(b6());
    let addresses = world.b.own.clone();
    world.data(B, DataEvent::OwnAddresses { addresses });
    world.seconds(20);
    world.assert_in_step(&["one"]);
    world
}

/// Where the ESP of this end goes.
fn esp(world: &mut World, end: End) -> Path {
    let sending = world.node(end).sending("one");
    sending.expect("a child sends").params.path
}

/// Where both ends send ESP: the address of A as A knows it and as B does, and B's.
fn assert_between(world: &mut World, own: IpAddr, seen: IpAddr, server: IpAddr) {
    let tail = world.tail();
    let (a, b) = (esp(world, A), esp(world, B));
    assert_eq!((a.local.ip(), a.remote.ip()), (own, server), "{tail}");
    assert_eq!((b.local.ip(), b.remote.ip()), (server, seen), "{tail}");
    let now = world.now;
    for node in [&world.a, &world.b] {
        let sa = &node.established(now)[0];
        let child = sa.children.iter().find(|c| c.sending).unwrap();
        let path = node.sending("one").unwrap().params.path;
        assert!(sa.mobike && child.installed);
        assert_eq!(sa.path, path, "ESP goes where IKE goes: {tail}");
    }
}

fn spis(world: &World) -> (u64, u64) {
    let sas = world.a.established(world.now);
    (sas[0].spi_i.0, sas[0].spi_r.0)
}

fn moved(world: &World, end: End) -> usize {
    match end {
        A => world.a.count(|k| matches!(k, EventKind::Moved { .. })),
        B => world.b.count(|k| matches!(k, EventKind::PeerMoved { .. })),
    }
}

/// Drops what `lost` says.
fn lose(world: &mut World, mut lost: impl FnMut(&Flight) -> bool + 'static) {
    world.fate = Box::new(move |flight| match lost(flight) {
        true => Fate::Drop,
        false => Fate::Deliver,
    });
}

fn nothing_is_lost(world: &mut World) {
    world.fate = Box::new(|_| Fate::Deliver);
}

#[test]
fn a_client_moves_and_the_tunnel_is_the_same() {
    let mut world = up_mobile();
    let before = spis(&world);
    world.move_to(A, &[second()]);
    assert_eq!(esp(&mut world, A).local.ip(), second());
    // The update arrives: IKE follows, ESP does not yet.
    world.run(Duration::from_millis(11));
    assert_eq!(world.b.established(world.now)[0].path.remote.ip(), second());
    assert_eq!(esp(&mut world, B).remote.ip(), A.address());
    // A has shown that it receives there.
    world.run(Duration::from_millis(20));
    assert_between(&mut world, second(), second(), B.address());
    assert_eq!((moved(&world, A), moved(&world, B)), (1, 1));
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(spis(&world), before);
    assert_eq!(world.calls(), 1);
    // And back, where it was before.
    world.move_to(A, &[A.address()]);
    world.seconds(1);
    assert_between(&mut world, A.address(), A.address(), B.address());
    assert_eq!(spis(&world), before);
}

#[test]
fn a_claimed_nat_stays_claimed_so_that_esp_stays_in_udp() {
    let mut world = up_mobile();
    world.move_to(A, &[second()]);
    world.seconds(1);
    for node in [&world.a, &world.b] {
        let sa = &node.established(world.now)[0];
        assert!(sa.nat_claimed && sa.nat_remote && !sa.nat_local, "{sa:#?}");
        assert_eq!(sa.path.local.port(), 4500);
    }
}

#[test]
fn a_client_moves_to_the_other_family_and_back() {
    let mut world = up_mobile();
    let before = spis(&world);
    // B has told of its IPv6 address in IKE_AUTH.
    world.move_to(A, &[a6()]);
    assert_eq!(
        esp(&mut world, A).remote.ip(),
        B.address(),
        "B has to show that it receives at its other address"
    );
    world.seconds(1);
    assert_between(&mut world, a6(), a6(), b6());
    world.seconds(40);
    world.move_to(A, &[third()]);
    world.seconds(1);
    assert_between(&mut world, third(), third(), B.address());
    world.assert_in_step(&["one"]);
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn a_second_move_while_the_first_is_told_is_told_as_well() {
    for apart in [0, 5, 11, 15, 21, 25, 35] {
        let mut world = up_mobile();
        let before = spis(&world);
        world.move_to(A, &[second()]);
        world.run(Duration::from_millis(apart));
        world.move_to(A, &[third()]);
        world.seconds(2);
        assert_between(&mut world, third(), third(), B.address());
        world.assert_in_step(&["one"]);
        assert_eq!((spis(&world), world.calls()), (before, 1), "{apart} ms");
    }
}

#[test]
fn a_move_while_something_else_is_in_flight_takes_it_along() {
    for (end, command) in [
        (A, rekey_ike()),
        (B, rekey_ike()),
        (A, rekey_child("one")),
        (B, rekey_child("one")),
    ] {
        for apart in [0, 5, 11, 15, 21, 25, 35] {
            let mut world = up_mobile();
            world.command(end, command.clone());
            world.run(Duration::from_millis(apart));
            world.move_to(A, &[second()]);
            world.seconds(40);
            let what = format!("{command:?} by {end:?}, {apart} ms apart");
            world.assert_in_step(&["one"]);
            assert_eq!(world.calls(), 1, "{what}:\n{}", world.tail());
            assert_between(&mut world, second(), second(), B.address());
        }
    }
}

#[test]
fn both_rekey_while_one_moves() {
    for apart in [0, 5, 11, 15, 21] {
        let mut world = up_mobile();
        world.command(A, rekey_ike());
        world.command(B, rekey_ike());
        world.run(Duration::from_millis(apart));
        world.move_to(A, &[second()]);
        world.seconds(200);
        world.assert_in_step(&["one"]);
        assert_eq!(world.calls(), 1, "{apart} ms apart:\n{}", world.tail());
        assert_between(&mut world, second(), second(), B.address());
    }
}

#[test]
fn moves_over_a_bad_network_end_in_step() {
    for seed in 0..40 {
        let mut world = up_mobile_with(mobile(A), mobile(B), seed);
        let before = spis(&world);
        let dice = Rc::new(RefCell::new(ChaCha20Rng::seed_from_u64(seed)));
        let fates = Rc::clone(&dice);
        world.fate = Box::new(move |_| match fates.borrow_mut().next_u32() % 10 {
            0..3 => Fate::Drop,
            3 => Fate::Twice,
            4 => Fate::Delay(Duration::from_millis(700)),
            _ => Fate::Deliver,
        });
        let places = [A.address(), second(), third(), a6()];
        let mut at = A.address();
        for _ in 0..6 {
            let next = dice.borrow_mut().next_u32() as usize;
            at = places[next % places.len()];
            world.move_to(A, &[at]);
            let pause = u64::from(dice.borrow_mut().next_u32() % 3000);
            world.run(Duration::from_millis(pause));
        }
        nothing_is_lost(&mut world);
        world.seconds(30);
        world.assert_in_step(&["one"]);
        let server = if at.is_ipv4() { B.address() } else { b6() };
        assert_between(&mut world, at, at, server);
        // Whoever loses so much may have been called anew, and only then.
        if world.calls() == 1 {
            assert_eq!(spis(&world), before, "seed {seed}");
        }
    }
}

#[test]
fn without_mobike_at_either_end_the_peer_is_called_again() {
    for lacks in [A, B] {
        let of = |end| match end == lacks {
            true => Connection {
                mobike: false,
                ..mobile(end)
            },
            false => mobile(end),
        };
        let mut world = up_mobile_with(of(A), of(B), 1);
        assert!(!world.a.established(world.now)[0].mobike);
        let before = spis(&world);
        world.move_to(A, &[second()]);
        world.until(1, "another IKE SA is up", |world| {
            let sas = world.a.established(world.now);
            sas.iter().any(|sa| (sa.spi_i.0, sa.spi_r.0) != before)
        });
        world.seconds(60);
        world.assert_in_step(&["one"]);
        assert_eq!(world.calls(), 2);
    }
}

/// A request of A with its source altered: A's own is lost, and this one arrives in its place.
fn alter_source(world: &mut World, source: SocketAddr) -> Flight {
    let caught = Rc::new(RefCell::new(None));
    let net = Rc::clone(&caught);
    lose(world, move |flight| {
        let first = flight.to == B && flight.is(INFORMATIONAL, false) && net.borrow().is_none();
        if first {
            *net.borrow_mut() = Some(flight.clone());
        }
        first
    });
    world.move_to(A, &[second()]);
    let mut flight = caught.borrow_mut().take().expect("A has sent its update");
    flight.path.remote = source;
    flight
}

#[test]
fn whoever_alters_the_source_of_an_update_gets_no_esp_and_the_tunnel_recovers() {
    let mut world = up_mobile();
    world.traffic = true;
    let before = spis(&world);
    let attacker = SocketAddr::new(ip("198.18.0.6"), 4500);
    let altered = alter_source(&mut world, attacker);
    let arrives = world.now + Duration::from_millis(1);
    world.fly(arrives, altered);
    for _ in 0..400 {
        world.run(Duration::from_millis(10));
        assert_ne!(esp(&mut world, B).remote.ip(), attacker.ip());
    }
    // A's ESP comes from where A is.
    let child = world.b.sending("one").unwrap().params.id;
    let path = path(
        SocketAddr::new(B.address(), 4500),
        SocketAddr::new(second(), 4500),
    );
    world.data(B, DataEvent::PeerMoved { child, path });
    world.seconds(1);
    assert_between(&mut world, second(), second(), B.address());
    assert_eq!(spis(&world), before);
}

#[test]
fn who_does_not_receive_at_the_new_address_gets_no_esp_there() {
    let mut world = up_mobile();
    world.traffic = true;
    lose(&mut world, |flight| {
        // Whatever goes to the new address is lost.
        flight.to == A && flight.path.local.ip() == second()
    });
    world.move_to(A, &[second()]);
    // IKE goes there, ESP does not.
    world.run(Duration::from_millis(15));
    let now = world.now;
    assert_eq!(world.b.established(now)[0].path.remote.ip(), second());
    let mut until = 0;
    while !world.b.established(world.now).is_empty() && until < 100 {
        world.run(Duration::from_millis(100));
        if let Some(child) = world.b.sending("one") {
            assert_eq!(child.params.path.remote.ip(), A.address());
        }
        until += 1;
    }
}

#[test]
fn a_repeated_update_from_elsewhere_moves_nothing() {
    let mut world = up_mobile();
    let caught = Rc::new(RefCell::new(None));
    let net = Rc::clone(&caught);
    world.fate = Box::new(move |flight| {
        if flight.to == B && flight.is(INFORMATIONAL, false) {
            net.borrow_mut().get_or_insert(flight.clone());
        }
        Fate::Deliver
    });
    world.move_to(A, &[second()]);
    world.seconds(1);
    let mut again = caught.borrow_mut().take().unwrap();
    again.path.remote = SocketAddr::new(ip("198.18.0.6"), 4500);
    let arrives = world.now + Duration::from_millis(1);
    world.fly(arrives, again);
    world.seconds(1);
    assert_between(&mut world, second(), second(), B.address());
    world.assert_in_step(&["one"]);
}

#[test]
fn updates_from_forged_places_bring_these_little_and_nobody_is_waited_for_without_end() {
    let mut world = up_mobile();
    let asked = Rc::new(Cell::new(0));
    let seen = Rc::clone(&asked);
    lose(&mut world, move |flight| {
        // A hears answers, as somebody does who forges where its requests come from.
        let header = flight.header();
        let request = flight.to == A && header.is_some_and(|h| !h.flags.is_response());
        seen.set(seen.get() + usize::from(request));
        request
    });
    let places = [second(), third()];
    for place in places.iter().cycle().take(60) {
        world.move_to(A, &[*place]);
        world.run(Duration::from_millis(500));
    }
    // Four times at once, and by the schedule of one request.
    assert!(asked.get() < 20, "{} requests", asked.get());
    let given_up = |kind: &EventKind| {
        let EventKind::IkeDown { reason } = kind else {
            return false;
        };
        matches!(reason, Reason::NoAnswer { .. })
    };
    assert!(world.b.count(given_up) > 0, "{}", world.tail());
}

#[test]
fn an_address_of_the_server_that_fails_is_left_for_its_other_one() {
    let mut world = World::new(policy(mobile(A)), policy(mobile(B)));
    world.a.own.push(a6());
    world.b.own.push(b6());
    let addresses = world.b.own.clone();
    world.data(B, DataEvent::OwnAddresses { addresses });
    world.seconds(20);
    let before = spis(&world);
    lose(&mut world, |flight| flight.path.local.is_ipv4());
    // Nobody is told. A asks for a sign of life, and repeats that by both ways.
    world.seconds(40);
    assert_between(&mut world, a6(), a6(), b6());
    world.assert_in_step(&["one"]);
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn a_server_that_gets_another_address_tells_those_who_called() {
    let mut world = World::new(policy(mobile(A)), policy(mobile(B)));
    world.a.own.push(a6());
    world.seconds(20);
    world.b.own.push(b6());
    let addresses = world.b.own.clone();
    world.data(B, DataEvent::OwnAddresses { addresses });
    world.seconds(1);
    world.move_to(A, &[a6()]);
    world.seconds(1);
    assert_between(&mut world, a6(), a6(), b6());
    assert_eq!(world.calls(), 1);
}

#[test]
fn a_server_whose_address_is_another_one_tells_those_who_called() {
    let mut world = up_mobile();
    let before = spis(&world);
    let new = ip("198.51.100.99");
    world.move_to(B, &[new]);
    let addresses = world.b.own.clone();
    world.data(B, DataEvent::OwnAddresses { addresses });
    world.seconds(1);
    // A has heard of it; it goes there when the old one does not answer.
    world.seconds(60);
    assert_between(&mut world, A.address(), A.address(), new);
    world.assert_in_step(&["one"]);
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn a_private_address_is_nobodys_business_who_comes_from_the_internet() {
    let mut world = World::new(policy(mobile(A)), policy(mobile(B)));
    let addresses = vec![B.address(), ip("10.9.9.9"), ip("fd00::9")];
    world.b.own.extend(&addresses);
    world.data(B, DataEvent::OwnAddresses { addresses });
    world.a.own = vec![A.address(), ip("fd00::a")];
    world.seconds(20);
    let asked = Rc::new(Cell::new(false));
    let seen = Rc::clone(&asked);
    lose(&mut world, move |flight| {
        seen.set(seen.get() | (flight.to == B && flight.path.local.is_ipv6()));
        true
    });
    world.move_to(A, &[ip("fd00::a")]);
    world.seconds(20);
    assert!(!asked.get(), "{}", world.tail());
}

#[test]
fn a_server_that_has_forgotten_the_tunnel_is_called_again_soon_after_a_move() {
    let mut world = up_mobile();
    world.reboot(B, policy(mobile(B)));
    world.move_to(A, &[second()]);
    world.until(12, "another IKE SA is up", |world| {
        !world.b.established(world.now).is_empty()
    });
    // What A sealed until it was up again.
    world.seconds(1);
    world.unopened.clear();
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_between(&mut world, second(), second(), B.address());
}

#[test]
fn no_way_out_for_a_while_ends_nothing() {
    let mut world = up_mobile();
    let before = spis(&world);
    world.move_to(A, &[]);
    world.seconds(15);
    assert_eq!(world.calls(), 1, "{}", world.tail());
    world.move_to(A, &[second()]);
    world.seconds(2);
    assert_between(&mut world, second(), second(), B.address());
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn a_peer_of_a_named_address_may_not_move() {
    let site = Connection {
        remote: Remote::Hosts {
            servers: vec![Host::Address(A.address()).into()],
            port: 500,
        },
        ..mobile(B)
    };
    let mut world = up_mobile_with(mobile(A), site, 1);
    world.move_to(A, &[second()]);
    world.seconds(1);
    assert_eq!(esp(&mut world, B).remote.ip(), A.address());
    let refused = world.a.reasons();
    let told = refused.iter().any(|reason| {
        matches!(reason, Reason::PeerRefused(why) if why.contains("UNACCEPTABLE_ADDRESSES"))
    });
    assert!(told, "{refused:?}");
}

#[test]
fn changes_that_change_nothing_cost_little() {
    let mut world = up_mobile();
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    world.fate = Box::new(move |flight| {
        count.set(count.get() + usize::from(flight.to == B));
        Fate::Deliver
    });
    for _ in 0..100 {
        world.move_to(A, &[A.address()]);
        world.run(Duration::from_millis(100));
    }
    assert!(sent.get() <= 3, "{} messages in ten seconds", sent.get());
    assert_eq!(moved(&world, A), 0);
    world.assert_in_step(&["one"]);
}

#[test]
fn who_is_called_by_itself_decides_no_way() {
    // B was called: another way out of it is told to nobody.
    let mut world = up_mobile();
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    world.fate = Box::new(move |flight| {
        count.set(count.get() + usize::from(flight.to == A));
        Fate::Deliver
    });
    let (gone, egress) = (Vec::new(), true);
    world.data(B, DataEvent::LocalChange { gone, egress });
    world.seconds(1);
    assert_eq!(sent.get(), 0, "{}", world.tail());
    assert_eq!((moved(&world, A), moved(&world, B)), (0, 0));
}

#[test]
fn the_ike_sa_that_follows_does_not_ask_where_nobody_has_shown_to_be() {
    let mut world = up_mobile();
    let before = spis(&world);
    // So that what goes there is seen here.
    world.a.own.push(third());
    let asked = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&asked);
    let deaf = Rc::new(Cell::new(false));
    let is_deaf = Rc::clone(&deaf);
    lose(&mut world, move |flight| {
        let request = flight.to == A
            && flight
                .header()
                .is_some_and(|header| !header.flags.is_response());
        if request {
            seen.borrow_mut().push(flight.path.local.ip());
        }
        request && (is_deaf.get() || flight.path.local.ip() == third())
    });
    world.command(A, rekey_ike());
    // Before the request arrives, a packet seems to come from elsewhere.
    let child = world.b.sending("one").unwrap().params.id;
    let path = path(
        SocketAddr::new(B.address(), 4500),
        SocketAddr::new(third(), 4500),
    );
    world.data(B, DataEvent::PeerMoved { child, path });
    world.run(Duration::from_millis(500));
    assert!(asked.borrow().contains(&third()), "it was looked at");
    assert_ne!(spis(&world), before);
    asked.borrow_mut().clear();
    deaf.set(true);
    world.command(B, rekey_child("one"));
    world.seconds(12);
    assert!(asked.borrow().len() > 3, "{}", world.tail());
    assert!(!asked.borrow().contains(&third()), "{}", world.tail());
}

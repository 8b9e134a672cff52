//! A NAT sees the one that called elsewhere than before (RFC 4555 §3.8).

use super::*;

/// Both up for a while, A behind a NAT.
fn behind_nat() -> World {
    let mut world = World::new(policy(mobile(A)), policy(mobile(B)));
    world.nat = Some((third(), 1000));
    world.seconds(20);
    world
}

#[test]
fn a_client_behind_a_nat_moves_behind_another() {
    let mut world = behind_nat();
    let before = spis(&world);
    // Another router, which has given A the same address as the one before.
    let another = ip("203.0.113.99");
    world.nat = Some((another, 2000));
    world.move_to(A, &[A.address()]);
    world.seconds(1);
    assert_between(&mut world, A.address(), another, B.address());
    assert!(world.a.established(world.now)[0].nat_local);
    // From behind it to where there is none.
    world.seconds(30);
    world.nat = None;
    world.move_to(A, &[second()]);
    world.seconds(1);
    assert_between(&mut world, second(), second(), B.address());
    assert!(!world.a.established(world.now)[0].nat_local);
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn another_mapping_of_the_nat_is_found_out_by_a_sign_of_life() {
    let mut world = behind_nat();
    world.seconds(20);
    let before = spis(&world);
    let another = ip("203.0.113.99");
    world.nat = Some((another, 2000));
    // Nobody tells A.
    world.seconds(35);
    assert_between(&mut world, A.address(), another, B.address());
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

/// A sends, and nothing comes.
fn silence(world: &mut World) {
    let child = world.a.sending("one").unwrap().params.id;
    for _ in 0..4 {
        world.data(A, DataEvent::LastOutbound { child });
        world.seconds(1);
    }
}

/// The NAT sees A elsewhere, and so does B by A's ESP.
fn seen_elsewhere(world: &mut World, address: IpAddr, shift: u16) {
    world.nat = Some((address, shift));
    let seen = path(
        SocketAddr::new(B.address(), 4500),
        SocketAddr::new(address, 4500 + shift),
    );
    let child = world.b.sending("one").unwrap().params.id;
    world.data(B, DataEvent::PeerMoved { child, path: seen });
}

#[test]
fn a_mapping_of_before_is_found_out_although_the_server_followed_the_one_between() {
    let mut world = behind_nat();
    let before = spis(&world);
    // A asks, and tells B what it then knows.
    silence(&mut world);
    assert_eq!(world.asked(), 3, "{}", world.tail());
    let child = world.a.sending("one").unwrap().params.id;
    world.data(A, DataEvent::LastInbound { child });
    world.seconds(15);
    let another = ip("203.0.113.99");
    seen_elsewhere(&mut world, another, 2000);
    world.seconds(1);
    assert_between(&mut world, A.address(), another, B.address());
    // Two lines, and the first is there again: before B looks once more where ESP comes from.
    world.nat = Some((third(), 1000));
    silence(&mut world);
    assert_between(&mut world, A.address(), third(), B.address());
    // B has checked, so A has told it once more; now two questions are asked, and that is the end of it.
    let told = world.asked();
    assert_eq!(told, 7, "{}", world.tail());
    world.data(A, DataEvent::LastInbound { child });
    silence(&mut world);
    assert_eq!(world.asked(), told + 2, "{}", world.tail());
    assert_eq!((spis(&world), world.calls()), (before, 1));
}

#[test]
fn what_an_old_answer_says_of_the_mapping_does_not_count_when_the_server_followed_meanwhile() {
    let mut world = behind_nat();
    let (one, two, three) = (third(), ip("203.0.113.99"), ip("203.0.113.77"));
    seen_elsewhere(&mut world, two, 2000);
    world.seconds(1);
    assert_between(&mut world, A.address(), two, B.address());
    // A asks, and the answer to what it then tells is lost.
    world.nat = Some((one, 1000));
    let answers = Rc::new(Cell::new(0));
    let seen = Rc::clone(&answers);
    lose(&mut world, move |flight| {
        let answer = flight.to == A && flight.is(INFORMATIONAL, true);
        seen.set(seen.get() + u32::from(answer));
        answer && seen.get() == 2
    });
    let child = world.a.sending("one").unwrap().params.id;
    for step in 0..400 {
        if step % 100 == 0 {
            world.data(A, DataEvent::LastOutbound { child });
        }
        world.run(Duration::from_millis(10));
        if answers.get() == 2 {
            break;
        }
    }
    assert_eq!(answers.get(), 2, "{}", world.tail());
    // It is repeated, and answered as before, after B has followed to a third place.
    seen_elsewhere(&mut world, three, 3000);
    world.seconds(2);
    assert_between(&mut world, A.address(), three, B.address());
    world.nat = Some((one, 1000));
    silence(&mut world);
    assert_between(&mut world, A.address(), one, B.address());
}

#[test]
fn a_nats_other_port_is_followed_at_once_and_another_address_when_it_is_the_peers() {
    let mut world = behind_nat();
    let child = world.b.sending("one").unwrap().params.id;
    let from = |ip: IpAddr, port| {
        path(
            SocketAddr::new(B.address(), 4500),
            SocketAddr::new(ip, port),
        )
    };
    world.nat = Some((third(), 2000));
    let other_port = from(third(), 6500);
    world.data(
        B,
        DataEvent::PeerMoved {
            child,
            path: other_port,
        },
    );
    assert_eq!(esp(&mut world, B), other_port);
    // Another address of the NAT.
    world.seconds(15);
    let another = ip("203.0.113.99");
    world.nat = Some((another, 3000));
    let other_address = from(another, 7500);
    world.data(
        B,
        DataEvent::PeerMoved {
            child,
            path: other_address,
        },
    );
    assert_eq!(esp(&mut world, B), other_port);
    world.run(Duration::from_millis(25));
    assert_eq!(esp(&mut world, B), other_address);
    // And one that nobody answers at.
    world.seconds(15);
    let nobody = from(ip("198.18.0.6"), 4500);
    world.data(
        B,
        DataEvent::PeerMoved {
            child,
            path: nobody,
        },
    );
    for _ in 0..200 {
        world.run(Duration::from_millis(100));
        assert_eq!(esp(&mut world, B), other_address);
    }
    world.assert_in_step(&["one"]);
    assert_eq!(world.b.established(world.now)[0].path, other_address);
}

#[test]
fn a_rebound_nat_is_followed_though_a_request_of_the_server_is_in_flight() {
    let mut world = behind_nat();
    let another = ip("203.0.113.99");
    world.nat = Some((another, 2000));
    world.command(B, rekey_child("one"));
    world.run(Duration::from_millis(50));
    let child = world.b.sending("one").unwrap().params.id;
    let path = path(
        SocketAddr::new(B.address(), 4500),
        SocketAddr::new(another, 6500),
    );
    world.data(B, DataEvent::PeerMoved { child, path });
    world.seconds(1);
    assert_eq!(esp(&mut world, B), path);
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(world.calls(), 1);
}

#[test]
fn a_rebound_nat_is_followed_when_the_peer_asks_for_anything() {
    let mut world = behind_nat();
    let another = ip("203.0.113.99");
    world.nat = Some((another, 2000));
    // B asks in vain at the old mapping.
    world.command(B, rekey_child("one"));
    world.run(Duration::from_millis(50));
    // Nothing in this request speaks of addresses, and there is no ESP.
    world.command(A, rekey_ike());
    world.seconds(1);
    assert_eq!(world.b.established(world.now)[0].path.remote.ip(), another);
    assert_eq!(esp(&mut world, B).remote.ip(), another);
    assert_eq!(moved(&world, A), 0, "{}", world.tail());
    world.seconds(60);
    world.assert_in_step(&["one"]);
    assert_eq!(world.calls(), 1);
}

#[test]
fn a_path_that_the_peer_tests_changes_nothing() {
    let mut world = behind_nat();
    let before = esp(&mut world, B);
    for (address, shift) in [(third(), 2000), (ip("203.0.113.99"), 3000)] {
        // A question about nothing but whether there is an answer (RFC 4555 §3.8), which does not come.
        world.nat = Some((address, shift));
        lose(&mut world, |flight| flight.to == A);
        let asked = world.asked();
        let child = world.a.sending("one").unwrap().params.id;
        for _ in 0..300 {
            world.data(A, DataEvent::LastOutbound { child });
            world.run(Duration::from_millis(10));
            if world.asked() > asked {
                break;
            }
        }
        assert!(world.asked() > asked, "{}", world.tail());
        world.run(Duration::from_millis(300));
        assert_eq!(esp(&mut world, B), before, "{}", world.tail());
        assert_eq!(world.b.established(world.now)[0].path, before);
        world.nat = Some((third(), 1000));
        nothing_is_lost(&mut world);
        world.seconds(15);
        assert_eq!(esp(&mut world, B), before);
    }
    assert_eq!((moved(&world, A), moved(&world, B)), (0, 0));
    assert_eq!(world.calls(), 1);
}

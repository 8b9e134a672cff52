//! Peers as they are: behind NATs on both sides, several at one address, some of them hostile.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    Connection, IdentityPattern, LocalAuth, Policy, PoolId, Remote, RemoteAuth, SelectorTemplate,
    Start,
};
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::Identification;
use cygnet_wire::message::Message;
use cygnet_wire::payload::PayloadType;

/// A, and B behind a NAT that forwards to it under this address.
fn forwarded() -> World {
    let outside = "203.0.113.77".parse().unwrap();
    let mut a = connection(A);
    a.remote = hosts(outside);
    let mut world = World::new(policy(a), policy(connection(B)));
    world.forwarded = Some(outside);
    world
}

#[test]
fn called_end_behind_a_nat_follows_a_caller_whose_mapping_changed() {
    let mut world = forwarded();
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    world.assert_in_step(&["one"]);
    world.command(B, rekey_ike());
    world.seconds(10);
    world.nat = Some(("203.0.113.9".parse().unwrap(), 20_000));
    world.seconds(60);
    world.assert_in_step(&["one"]);
    let moved = |k: &EventKind| matches!(k, EventKind::PeerMoved { .. });
    assert_eq!(world.b.count(moved), 1, "{}", world.tail());
    assert_eq!(world.a.count(moved), 0);
    let path = world.b.children.values().next().unwrap().params.path;
    assert_eq!(path.remote.port(), 24_500);
}

#[test]
fn calling_end_behind_a_nat_is_not_led_elsewhere() {
    let mut world = forwarded();
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.seconds(3);
    let now = world.now;
    let before = world.a.ike_sas(now)[0].path;
    world.forwarded = Some("203.0.113.78".parse().unwrap());
    world.fate = Box::new(|flight| match flight.to {
        A => Fate::Deliver,
        B => Fate::Drop,
    });
    world.command(B, rekey_ike());
    world.seconds(2);
    let now = world.now;
    assert_eq!(world.a.ike_sas(now)[0].path, before);
}

#[test]
fn taking_down_the_only_child_between_two_tries_ends_the_tries() {
    let mut world = World::new(policy(connection(A)), policy(connection(B)));
    world.fate = Box::new(|_| Fate::Drop);
    world.until(300, "a wait between two tries", |world| {
        world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0
    });
    world.command(A, down(Some("one")));
    // A timer in the past would be a busy loop.
    world.seconds(600);
    let now = world.now;
    assert!(world.a.ike_sas(now).is_empty());
    assert_eq!(world.a.endpoint.poll_timeout(), None);
}

/// A server that lends addresses, and a client that asks for one or does not.
fn pooled(wanted: Vec<WantedAddress>) -> (Connection, Connection) {
    let (mut a, mut b) = (connection(A), connection(B));
    let mut client = child(A, "one", Start::Always);
    client.local = vec![SelectorTemplate::Dynamic];
    a.children = vec![Arc::new(client)];
    a.request_virtual = wanted;
    let mut server = child(B, "one", Start::Manual);
    server.remote = vec![SelectorTemplate::Dynamic];
    b.children = vec![Arc::new(server)];
    b.pool = Some(PoolId("pool".to_owned()));
    (a, b)
}

#[test]
fn client_of_a_pool_may_use_no_address_but_the_lent_one() {
    let (a, b) = pooled(Vec::new());
    let mut world = World::new(policy(a), policy(b));
    world.seconds(5);
    assert!(world.b.children.is_empty(), "{}", world.tail());
    let refused = |r: &Reason| matches!(r, Reason::NoSelectors(why) if why.contains("asked for no virtual address"));
    assert!(world.b.reasons().iter().any(refused), "{}", world.tail());
    let told = |r: &Reason| matches!(r, Reason::PeerRefused(why) if why.contains("FAILED_CP"));
    assert!(world.a.reasons().iter().any(told), "{}", world.tail());

    let (a, b) = pooled(vec![WantedAddress::V4(None)]);
    let mut world = up_with(a, b);
    world.command(B, rekey_child("one"));
    world.seconds(10);
    world.assert_in_step(&["one"]);
    let lent = &world.b.children.values().next().unwrap().params.remote_ts;
    assert_eq!(lent[0].to_string(), "10.9.0.7/32");
}

#[test]
fn outer_address_as_selector_stays_the_authenticated_one() {
    let (a, mut b) = pooled(Vec::new());
    b.pool = None;
    let mut world = World::new(policy(a), policy(b));
    world.nat = Some((A.address(), 10_000));
    world.seconds(3);
    world.assert_in_step(&["one"]);
    // From now on it comes from an address that may be somebody else's.
    world.nat = Some(("10.99.0.3".parse().unwrap(), 10_000));
    for _ in 0..2 {
        world.command(A, rekey_child("one"));
        world.seconds(20);
    }
    world.assert_in_step(&["one"]);
    let child = &world.b.children.values().next().unwrap().params;
    assert_eq!(child.remote_ts[0].to_string(), "192.0.2.1/32");
}

/// B serves two kinds of callers that may name themselves as they like.
fn two_kinds() -> Policy {
    let kind = |name: &str, connection: Connection| {
        let name = name.to_owned();
        let remote_identity = IdentityPattern::Any;
        Arc::new(Connection {
            name,
            remote_identity,
            ..connection
        })
    };
    Policy {
        connections: vec![
            kind("keys", connection(B)),
            kind("certificates", with_certificates(B)),
        ],
        ..Policy::default()
    }
}

#[test]
fn initial_contact_of_another_kind_of_caller_ends_nothing() {
    let mut world = World::new(policy(with_certificates(A)), two_kinds());
    world.seconds(3);
    world.assert_in_step(&["one"]);
    // Somebody with the key calls under the name of the one with the certificate.
    world.reboot(A, policy(connection(A)));
    world.seconds(3);
    let now = world.now;
    assert_eq!(world.b.established(now).len(), 2, "{}", world.tail());
    assert_eq!(world.b.count(|k| matches!(k, EventKind::IkeDown { .. })), 0);
}

#[test]
fn one_name_in_two_spellings_is_one_peer() {
    let mut world = World::new(policy(connection(A)), two_kinds());
    world.seconds(3);
    world.assert_in_step(&["one"]);
    let mut a = connection(A);
    a.local_identity = Some(Identification::fqdn("A.Example.ORG"));
    world.reboot(A, policy(a));
    world.seconds(3);
    let now = world.now;
    assert_eq!(world.b.established(now).len(), 1, "{}", world.tail());
}

/// A server that A calls, from one device after the other; how many IKE SAs it has in the end.
fn devices(unique: bool, ports: &[u16]) -> usize {
    let mut b = connection(B);
    b.unique = unique;
    let mut world = World::new(Policy::default(), policy(b));
    for port in ports {
        // The router sees several devices, and the server one address.
        world.nat = Some(("203.0.113.9".parse().unwrap(), *port));
        world.reboot(A, policy(connection(A)));
        world.seconds(3);
        assert_eq!(world.a.child_sas(world.now).len(), 1, "{}", world.tail());
    }
    world.b.established(world.now).len()
}

#[test]
fn devices_that_share_an_identity_do_not_throw_each_other_out_unless_they_are_to() {
    assert_eq!(devices(true, &[10_000, 20_000]), 1);
    assert_eq!(devices(false, &[10_000, 20_000, 30_000]), 3);
    // A device that comes back from where it was has lost what it had.
    assert_eq!(devices(false, &[10_000, 20_000, 10_000]), 2);
}

#[test]
fn device_that_gets_addresses_is_known_by_where_its_peer_is_now() {
    let (a, mut b) = pooled(vec![WantedAddress::V4(None)]);
    b.unique = false;
    let mut world = World::new(Policy::default(), policy(b));
    world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
    world.policy(A, policy(a.clone()));
    world.seconds(3);
    let first = *world.b.leases.keys().next().expect("a lease");
    // A rekey changes nothing; then the NAT forgets its mapping.
    world.command(A, rekey_ike());
    world.seconds(3);
    world.nat = Some(("203.0.113.9".parse().unwrap(), 20_000));
    world.command(A, rekey_child("one"));
    world.seconds(3);
    // What calls from there has lost what it had; what calls from where it was is another one.
    for (port, here) in [(20_000, vec![first]), (10_000, vec![])] {
        world.nat = Some(("203.0.113.9".parse().unwrap(), port));
        world.b.devices.clear();
        world.reboot(A, policy(a.clone()));
        world.run(Duration::from_millis(500));
        let device = world.b.devices.first().cloned().flatten();
        assert_eq!(device.expect("a device").here, here, "{}", world.tail());
    }
}

#[test]
fn what_a_device_of_a_shared_identity_has_lost_is_noticed_when_it_calls_again() {
    let mut b = connection(B);
    b.unique = false;
    let mut world = World::new(Policy::default(), policy(b));
    for port in [10_000, 20_000] {
        world.nat = Some(("203.0.113.9".parse().unwrap(), port));
        world.reboot(A, policy(connection(A)));
        world.seconds(3);
    }
    // Sooner than by the 30 s of silence and five tries.
    world.seconds(27);
    assert_eq!(world.b.established(world.now).len(), 1, "{}", world.tail());
    assert_eq!(world.b.child_sas(world.now).len(), 1, "{}", world.tail());
}

#[test]
fn device_that_shares_its_identity_claims_no_initial_contact() {
    for unique in [true, false] {
        let mut a = connection(A);
        a.unique = unique;
        let mut world = World::new(policy(a.clone()), policy(connection(B)));
        world.seconds(2);
        world.reboot(A, policy(a));
        world.seconds(2);
        let held = world.b.established(world.now).len();
        assert_eq!(held, if unique { 1 } else { 2 }, "{}", world.tail());
    }
}

#[test]
fn two_tunnels_to_one_server_both_replace_what_was_forgotten() {
    let other = |end: End| {
        let name = Identification::fqdn("other.example.org");
        let mut connection = connection(end);
        connection.name = "other".to_owned();
        match end {
            A => connection.local_identity = Some(name),
            B => connection.remote_identity = IdentityPattern::Exactly(name),
        }
        connection
    };
    let both = |end: End| Policy {
        connections: vec![Arc::new(connection(end)), Arc::new(other(end))],
        ..Policy::default()
    };
    let mut world = World::new(both(A), both(B));
    world.seconds(5);
    let now = world.now;
    assert_eq!(world.b.established(now).len(), 2, "{}", world.tail());
    // A power cut: nothing is deleted, both call at once.
    world.reboot(A, both(A));
    world.seconds(1);
    let now = world.now;
    assert_eq!(world.b.established(now).len(), 2, "{}", world.tail());
    let replaced = |k: &EventKind| {
        let reason = Reason::Replaced;
        *k == EventKind::IkeDown { reason }
    };
    assert_eq!(world.b.count(replaced), 2, "{}", world.tail());
}

/// B, whose certificate contains these names besides.
fn also_named(name: &str, names: &[&str]) -> Connection {
    let mut b = with_certificates(B);
    b.name = name.to_owned();
    if let LocalAuth::Certificate { identities, .. } = &mut b.local_auth {
        *identities = names
            .iter()
            .map(|name| Identification::fqdn(name))
            .collect();
    }
    b
}

/// A, that expects B under this name.
fn expecting(name: &str) -> Connection {
    let mut a = with_certificates(A);
    a.remote_identity = IdentityPattern::Exactly(Identification::fqdn(name));
    a
}

#[test]
fn server_is_whoever_its_certificate_says_and_the_caller_wants() {
    let names = ["b.example.org", "vpn.example.org"];
    let (a, b) = (expecting("VPN.example.org"), also_named("link", &names));
    let mut world = World::new(policy(a), policy(b));
    world.seconds(3);
    world.assert_in_step(&["one"]);
    let now = world.now;
    let vpn = Some(Identification::fqdn("vpn.example.org"));
    assert_eq!(world.a.established(now)[0].peer, vpn);
    assert_eq!(world.b.established(now)[0].local, vpn);

    let (a, b) = (expecting("other.example.org"), also_named("link", &names));
    let mut world = World::new(policy(a), policy(b));
    world.seconds(3);
    let reason = world.b.reasons()[0].to_string();
    assert!(reason.contains("other.example.org"), "{reason}");
    assert!(world.b.children.is_empty());
}

#[test]
fn connection_that_is_named_comes_before_those_with_the_same_certificate() {
    let names = ["b.example.org", "vpn.example.org"];
    let mut second = also_named("second", &names);
    second.local_identity = Some(Identification::fqdn("vpn.example.org"));
    let both = Policy {
        connections: vec![Arc::new(also_named("first", &names)), Arc::new(second)],
        ..Policy::default()
    };
    for (name, meant) in [("vpn.example.org", "second"), ("b.example.org", "first")] {
        let mut world = World::new(policy(expecting(name)), both.clone());
        world.seconds(3);
        world.assert_in_step(&["one"]);
        let sa = &world.b.established(world.now)[0];
        assert_eq!(sa.connection.as_deref(), Some(meant));
    }
}

#[test]
fn certificates_of_every_connection_are_asked_for() {
    let kind = |name: &str, authorities: Vec<[u8; 20]>| {
        let mut connection = with_certificates(B);
        connection.name = name.to_owned();
        if let RemoteAuth::Certificate { authorities: a, .. } = &mut connection.remote_auth {
            *a = authorities;
        }
        Arc::new(connection)
    };
    let kinds = Policy {
        connections: vec![
            kind("staff", vec![[7; 20]]),
            kind("guests", vec![[8; 20], [7; 20]]),
        ],
        ..Policy::default()
    };
    let mut world = World::new(policy(with_certificates(A)), kinds);
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let tap = seen.clone();
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::IKE_SA_INIT, true) {
            tap.borrow_mut().push(flight.datagram.clone());
        }
        Fate::Deliver
    });
    world.seconds(3);
    let datagram = seen.borrow()[0].clone();
    let message = Message::parse(&datagram).unwrap();
    let asked = message.find(PayloadType::CERTREQ).unwrap().unwrap();
    assert_eq!(asked.body[0], 4, "X.509 certificate - signature");
    assert_eq!(asked.body[1..], [[7; 20], [8; 20]].concat());
    world.assert_in_step(&["one"]);
}

#[test]
fn children_of_one_policy_with_other_selectors_stay_beside_each_other() {
    for seed in 0..8 {
        let (mut a, mut b) = (connection(A), connection(B));
        a.remote = Remote::Any;
        b.remote = hosts(A.address());
        // What is two Child SAs for A is one policy for B.
        a.children = ["one", "two"]
            .map(|name| Arc::new(child(A, name, Start::Manual)))
            .to_vec();
        let (mut both, two) = (
            child(B, "one", Start::Always),
            child(B, "two", Start::Manual),
        );
        both.local.extend(two.local);
        both.remote.extend(two.remote);
        b.children = vec![Arc::new(both)];
        let mut world = World::seeded(policy(a), policy(b), seed);
        world.seconds(3);
        world.assert_in_step(&["one"]);
        world.command(A, bring_up(Some("two")));
        world.seconds(90);
        for node in [&world.a, &world.b] {
            let sending = node.children.values().filter(|c| c.keys_out.is_some());
            assert_eq!(sending.count(), 2, "{:?}\n{}", node.end, world.tail());
        }
    }
}

/// Both, and the end whose data path does ESP in UDP alone.
fn in_udp_only(claim: (bool, bool), end: End) -> World {
    let (mut a, mut b) = (connection(A), connection(B));
    (a.claim_nat, b.claim_nat) = claim;
    let (mut a, mut b) = (policy(a), policy(b));
    match end {
        A => a.esp_in_udp_only = true,
        B => b.esp_in_udp_only = true,
    }
    World::new(a, b)
}

#[test]
fn no_child_is_made_whose_esp_could_not_travel() {
    for end in [A, B] {
        let mut world = in_udp_only((false, false), end);
        world.seconds(5);
        let bare =
            |r: &Reason| matches!(r, Reason::NoEncapsulation(why) if why.contains("force_udp"));
        assert!(
            world.node(end).reasons().iter().any(bare),
            "{}",
            world.tail()
        );
        for node in [&world.a, &world.b] {
            assert!(node.children.is_empty() && node.reserved.is_empty());
            assert_eq!(node.established(world.now), [], "{}", world.tail());
        }
        assert!(world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0);
        // One end that claims a NAT is enough for both, and so is a NAT.
        for claim in [(true, false), (false, true)] {
            let mut world = in_udp_only(claim, end);
            world.seconds(3);
            world.assert_in_step(&["one"]);
        }
        let mut world = in_udp_only((false, false), end);
        world.nat = Some(("203.0.113.9".parse().unwrap(), 10_000));
        world.seconds(10);
        world.assert_in_step(&["one"]);
    }
}

#[test]
fn peer_that_rekeys_without_end_gets_no_more_key_exchanges_than_it_is_allowed() {
    let with_group = |end: End| {
        let mut one = child(end, "one", connection(end).children[0].start);
        one.esp_proposals = vec!["aes256gcm16-x25519".parse().unwrap()];
        let mut connection = connection(end);
        connection.children = vec![Arc::new(one)];
        connection
    };
    let mut world = up_with(with_group(A), with_group(B));
    for _ in 0..120 {
        world.command(A, rekey_child("one"));
        world.run(Duration::from_millis(40));
    }
    let made = world.b.count(|k| matches!(k, EventKind::ChildUp { .. }));
    assert!((60..=90).contains(&made), "{made}\n{}", world.tail());
    world.seconds(120);
    world.assert_in_step(&["one"]);
}

#[test]
fn many_authorities_do_not_make_the_answer_to_a_call_long() {
    let answer_with = |count: u8| {
        let mut b = with_certificates(B);
        if let RemoteAuth::Certificate { authorities, .. } = &mut b.remote_auth {
            *authorities = (0..count).map(|n| [n; 20]).collect();
        }
        let mut world = World::new(Policy::default(), Policy::default());
        let seen = std::rc::Rc::new(std::cell::RefCell::new((0, Vec::new())));
        let tap = seen.clone();
        world.fate = Box::new(move |flight| {
            if flight.is(ExchangeType::IKE_SA_INIT, false) {
                tap.borrow_mut().0 = flight.datagram.len();
            } else if flight.is(ExchangeType::IKE_SA_INIT, true) {
                tap.borrow_mut().1.clone_from(&flight.datagram);
            }
            Fate::Deliver
        });
        world.policy(B, policy(b));
        world.policy(A, policy(with_certificates(A)));
        world.seconds(3);
        // Certificates are asked for all the same.
        world.assert_in_step(&["one"]);
        let (call, answer) = seen.borrow().clone();
        let message = Message::parse(&answer).unwrap();
        let asked = message.find(PayloadType::CERTREQ).unwrap().unwrap();
        (asked.body.len(), call, answer.len())
    };
    assert_eq!(answer_with(8).0, 1 + 8 * 20);
    for count in [8, 9, 200] {
        let (_, call, answer) = answer_with(count);
        assert!(answer <= call + 320, "{call} octets, answered by {answer}");
    }
    assert_eq!(answer_with(9).0, 1);
}

/// The most IKE SAs that B has while A, which forgets everything each time and does not say so, calls
/// again and again.
fn hoarded(unique: bool, calls: usize) -> usize {
    let a = Connection {
        unique: false,
        ..connection(A)
    };
    let b = Connection {
        unique,
        ..connection(B)
    };
    let mut world = up_with(a.clone(), b);
    let mut most = 0;
    for _ in 0..calls {
        world.reboot(A, policy(a.clone()));
        world.run(Duration::from_millis(100));
        most = most.max(world.b.ike_sas(world.now).len());
    }
    // The last one is as good as any.
    let (a, b) = (
        world.a.established(world.now),
        world.b.established(world.now),
    );
    assert!(b.iter().any(|sa| sa.spi_i == a[0].spi_i));
    world.seconds(60);
    // What was sealed for the forgetful.
    world.unopened.clear();
    world.assert_in_step(&["one"]);
    most
}

#[test]
fn a_peer_cannot_hoard_ike_sas() {
    assert_eq!(hoarded(true, 40), 16);
    assert_eq!(hoarded(false, 80), 64);
}

//! Log-ins by EAP: the responder proves itself by its certificate first (RFC 7296 §2.16).

use crate::common::*;
use cygnet_ike::event::{EventKind, Reason};
use cygnet_ike::io::Command;
use cygnet_ike::policy::{CredentialId, EapMethods, LocalAuth, Policy};
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::Identification;

fn alice() -> Option<Identification> {
    Some(Identification::key_id(b"alice"))
}

fn logged_in() -> World {
    up_with(with_password(A), with_password(B))
}

fn asked() -> World {
    World::new(policy(with_password(A)), policy(with_password(B)))
}

#[test]
fn a_user_name_and_a_password_bring_up_an_ike_sa_and_a_child() {
    let world = logged_in();
    let now = world.now;
    assert_eq!(world.b.established(now)[0].peer, alice());
    assert_eq!(world.a.established(now)[0].peer, Some(identity(B)));
}

#[test]
fn every_message_lost_once_is_repeated_and_answered_once() {
    for lost in 0..14 {
        let mut count = 0;
        let mut world = asked();
        world.fate = Box::new(move |_| {
            count += 1;
            match count == lost {
                true => Fate::Drop,
                false => Fate::Deliver,
            }
        });
        world.seconds(10);
        world.assert_in_step(&["one"]);
        let now = world.now;
        assert_eq!(world.b.established(now)[0].peer, alice(), "{lost} lost");
    }
}

#[test]
fn every_message_twice_changes_nothing() {
    let mut world = asked();
    world.fate = Box::new(|_| Fate::Twice);
    world.seconds(5);
    world.assert_in_step(&["one"]);
}

#[test]
fn messages_may_come_in_fragments() {
    let (mut a, mut b) = (with_password(A), with_password(B));
    for connection in [&mut a, &mut b] {
        connection.fragment_size = 576;
    }
    if let LocalAuth::Certificate { chain, .. } = &mut b.local_auth {
        chain.extend([vec![0x30; 1400], vec![0x31; 1700]]);
    }
    let mut world = World::new(policy(a), policy(b));
    let longest = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&longest);
    let mut count = 0;
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::IKE_AUTH, true) {
            seen.set(seen.get().max(flight.datagram.len()));
        }
        count += 1;
        match count % 5 {
            0 => Fate::Drop,
            _ => Fate::Deliver,
        }
    });
    world.seconds(40);
    world.assert_in_step(&["one"]);
    assert!((200..=576).contains(&longest.get()), "{}", longest.get());
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    let mut sizes = Vec::new();
    for (password, known) in [("wrong", true), ("correct horse", false)] {
        let mut world = asked();
        world.a.log_ins.own_password = password;
        if !known {
            world.b.log_ins.passwords.clear();
        }
        let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = std::rc::Rc::clone(&sent);
        world.fate = Box::new(move |flight| {
            if flight.to == A {
                seen.borrow_mut().push(flight.datagram.len());
            }
            Fate::Deliver
        });
        world.seconds(1);
        let (a, b) = (world.a.reasons(), world.b.reasons());
        assert!(
            matches!(&b[0], Reason::PeerAuthentication(why) if why.contains("password is wrong (user alice)")),
            "{b:?}"
        );
        assert!(
            matches!(&a[0], Reason::AuthenticationRefused(why) if why.contains("the user name or the password is wrong")),
            "{a:?}"
        );
        assert!(world.a.children.is_empty() && world.b.children.is_empty());
        assert!(world.b.leases.is_empty());
        assert!(world.a.count(|k| matches!(k, EventKind::Retry { .. })) > 0);
        sizes.push(std::mem::take(&mut *sent.borrow_mut()));
    }
    // The second is as long as its ECDSA signature happens to be.
    let packets = |sizes: &[usize]| sizes.iter().take(5).skip(2).copied().collect::<Vec<_>>();
    assert_eq!(packets(&sizes[0]).len(), 3);
    assert_eq!(packets(&sizes[0]), packets(&sizes[1]));
}

#[test]
fn who_breaks_off_when_it_is_refused_is_told_of_with_the_reason() {
    let mut world = asked();
    world.a.log_ins.own_password = "wrong";
    world.a.log_ins.breaks_off = true;
    world.seconds(1);
    assert!(
        matches!(&world.b.reasons()[0], Reason::PeerAuthentication(why) if why.contains("password is wrong (user alice)")),
        "{:?}",
        world.b.reasons()
    );
}

#[test]
fn a_server_that_cannot_prove_itself_learns_nothing_of_the_password() {
    let mut world = asked();
    world.a.revoked = true;
    world.seconds(1);
    assert!(
        matches!(&world.a.reasons()[0], Reason::PeerAuthentication(why) if why.contains("revoked")),
        "{:?}",
        world.a.reasons()
    );
    assert!(
        matches!(&world.b.reasons()[0], Reason::AuthenticationRefused(why) if why.contains("does not accept this server")),
        "{:?}",
        world.b.reasons()
    );
    // IKE_SA_INIT, IKE_AUTH without a word about the user, INFORMATIONAL.
    let now = at(world.now);
    assert!(world.a.endpoint.status(now).ike_sas.is_empty());
    // Nothing is kept of a log-in that was broken off.
    assert_eq!(world.b.log_ins.under_way(), 0);
}

#[test]
fn who_has_other_passwords_for_the_same_user_is_not_believed() {
    let mut world = asked();
    world.b.log_ins.passwords.insert("alice", "another");
    world.seconds(1);
    assert!(
        matches!(&world.a.reasons()[0], Reason::AuthenticationRefused(_)),
        "{:?}",
        world.a.reasons()
    );
    assert!(
        matches!(&world.b.reasons()[0], Reason::PeerAuthentication(why) if why.contains("password is wrong (user alice)")),
        "{:?}",
        world.b.reasons()
    );
    assert!(world.a.children.is_empty() && world.b.children.is_empty());
    let now = world.now;
    assert!(world.a.established(now).is_empty() && world.b.established(now).is_empty());
}

#[test]
fn who_has_another_key_is_not_who_logged_in() {
    for end in [A, B] {
        let mut world = asked();
        world.node(end).log_ins.other_key = true;
        world.seconds(1);
        assert!(
            matches!(&world.b.reasons()[0], Reason::PeerAuthentication(why) if why.contains("does not match the key")),
            "{:?}",
            world.b.reasons()
        );
        assert!(world.a.children.is_empty() && world.b.children.is_empty());
    }
}

#[test]
fn without_methods_nobody_logs_in() {
    let mut b = with_password(B);
    b.eap = EapMethods::default();
    let mut world = World::new(policy(with_password(A)), policy(b));
    world.seconds(1);
    assert!(
        matches!(&world.b.reasons()[0], Reason::PeerAuthentication(why) if why.contains("wants to log in by EAP")),
        "{:?}",
        world.b.reasons()
    );
    assert!(matches!(
        &world.a.reasons()[0],
        Reason::AuthenticationRefused(_)
    ));
}

#[test]
fn a_certificate_goes_on_to_be_one_where_passwords_are_known() {
    let mut b = with_password(B);
    b.remote_identity = with_certificates(B).remote_identity;
    let mut world = up_with(with_certificates(A), b);
    let now = world.now;
    assert_eq!(world.b.established(now)[0].peer, Some(identity(A)));
    // It is asked about as one, and a user is not.
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    assert!(world.b.established(now).is_empty());
    let mut world = logged_in();
    world.b.revoked = true;
    world.command(B, Command::ExaminePeers);
    world.seconds(1);
    world.assert_in_step(&["one"]);
}

#[test]
fn a_changed_password_ends_who_is_in_by_it_and_nobody_else() {
    let secret = |user: &str| EapMethods::secret_of(&CredentialId("passwords".to_owned()), user);
    let mut world = logged_in();
    let secrets = vec![secret("bob")];
    world.command(B, Command::SecretsReplaced { secrets });
    world.seconds(1);
    world.assert_in_step(&["one"]);
    // Those of a rekeyed IKE SA are in by the same password.
    world.command(A, rekey_ike());
    world.seconds(2);
    world.assert_in_step(&["one"]);
    world.b.log_ins.passwords.insert("alice", "battery staple");
    let secrets = vec![secret("alice")];
    world.command(B, Command::SecretsReplaced { secrets });
    let now = world.now;
    assert!(world.b.established(now).is_empty());
    assert!(world.b.children.is_empty(), "{}", world.tail());
    // The device comes back when it knows the new one.
    world.a.log_ins.own_password = "battery staple";
    world.seconds(90);
    world.assert_in_step(&["one"]);
}

#[test]
fn our_own_changed_password_is_used_at_once() {
    let mut world = logged_in();
    let secrets = vec![CredentialId("link/password".to_owned())];
    world.command(A, Command::SecretsReplaced { secrets });
    world.seconds(10);
    world.assert_in_step(&["one"]);
    assert_eq!(world.b.count(|k| matches!(k, EventKind::IkeUp { .. })), 2);
}

#[test]
fn addresses_are_lent_after_the_log_in() {
    let (mut a, mut b) = (with_password(A), with_password(B));
    a.request_virtual = vec![cygnet_ike::io::WantedAddress::V4(None)];
    b.pool = Some(cygnet_ike::policy::PoolId("pool".to_owned()));
    let mut world = World::new(policy(a), policy(b));
    world.seconds(2);
    let lent: Vec<_> = world.b.leases.values().cloned().collect();
    let assigned: Vec<_> = world.a.assigned.values().cloned().collect();
    assert_eq!(lent.len(), 1, "{}", world.tail());
    assert_eq!(lent, assigned);
}

#[test]
fn a_log_in_without_end_is_given_up() {
    let mut world = asked();
    world.b.log_ins.endless = true;
    world.seconds(25);
    let why =
        |reason: &Reason| matches!(reason, Reason::Protocol(why) if why.contains("has no end"));
    assert!(world.a.reasons().iter().any(why), "{:?}", world.a.reasons());
    let told = |reason: &Reason| matches!(reason, Reason::AuthenticationRefused(why) if why.contains("broke off"));
    assert!(
        world.b.reasons().iter().any(told),
        "{:?}",
        world.b.reasons()
    );
    let now = world.now;
    assert!(world.a.established(now).is_empty() && world.b.established(now).is_empty());
    assert_eq!(world.b.log_ins.under_way(), 0);
}

#[test]
fn who_does_not_go_on_is_forgotten_in_time() {
    let mut world = asked();
    let mut count = 0;
    world.fate = Box::new(move |flight| match flight.to {
        B => {
            count += 1;
            match count {
                1..4 => Fate::Deliver,
                _ => Fate::Drop,
            }
        }
        A => Fate::Deliver,
    });
    world.seconds(90);
    let why = |reason: &Reason| matches!(reason, Reason::Protocol(why) if why.contains("did not finish its log-in"));
    assert!(world.b.reasons().iter().any(why), "{:?}", world.b.reasons());
    let now = world.now;
    assert!(world.b.ike_sas(now).is_empty());
    assert_eq!(world.b.log_ins.under_way(), 0);
}

#[test]
fn who_began_at_one_address_is_not_answered_at_another_before_it_is_in() {
    let mut world = asked();
    let asked = std::rc::Rc::new(std::cell::Cell::new(false));
    let seen = std::rc::Rc::clone(&asked);
    world.fate = Box::new(
        move |flight| match flight.is(ExchangeType::IKE_AUTH, false) {
            true => {
                seen.set(true);
                Fate::Drop
            }
            false => Fate::Deliver,
        },
    );
    world.until(5, "IKE_AUTH has gone, and is lost", |_| asked.get());
    let answers = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&answers);
    world.fate = Box::new(move |flight| {
        if flight.is(ExchangeType::IKE_AUTH, true) {
            seen.set(seen.get() + 1);
        }
        Fate::Deliver
    });
    // Somebody else, as far as B can tell.
    world.nat = Some(("203.0.113.9".parse().unwrap(), 0));
    world.seconds(5);
    assert_eq!(answers.get(), 0, "{}", world.tail());
    // It came, and was passed over.
    assert!(world.b.endpoint.status(at(world.now)).counters.stray > 0);
    assert_eq!(world.b.log_ins.under_way(), 0);
}

/// How many IKE SAs a server has of one user, whose devices call one after the other.
fn devices(shared: bool) -> usize {
    let mut b = with_password(B);
    b.eap.shared = shared;
    let mut world = World::new(Policy::default(), policy(b));
    for port in [10_000, 20_000] {
        world.nat = Some(("203.0.113.9".parse().unwrap(), port));
        world.reboot(A, policy(with_password(A)));
        world.seconds(3);
        assert_eq!(world.a.child_sas(world.now).len(), 1, "{}", world.tail());
    }
    world.b.established(world.now).len()
}

#[test]
fn a_user_is_on_several_devices_unless_an_identity_is_to_be_one() {
    assert_eq!(devices(true), 2);
    assert_eq!(devices(false), 1);
}

#[test]
fn who_has_no_time_for_a_log_in_refuses_it() {
    let mut world = asked();
    world.b.log_ins.forgetful = true;
    world.seconds(1);
    assert!(
        matches!(&world.b.reasons()[0], Reason::Local(why) if why.contains("too many")),
        "{:?}",
        world.b.reasons()
    );
    world.b.log_ins.forgetful = false;
    world.seconds(90);
    world.assert_in_step(&["one"]);
}

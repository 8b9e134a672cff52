//! What the box itself sends while a guard is in place.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cygnet_gateway::{Devices, GuardPlan, OWN_MARK, OwnNeeds};

use crate::guard::{apply, forward, inputs};
use crate::world::{World, root};

const HOSTS: [&str; 2] = ["203.0.113.10", "[2001:db8::10]"];

fn hold(world: &World, needs: Option<OwnNeeds>) {
    let mut inputs = inputs(Devices::default());
    inputs.lan.own = needs;
    apply(world, &GuardPlan::new(&inputs));
}

/// Whether the box's datagram is taken.
fn sent(world: &World, host: &str, port: u16) -> bool {
    let any = match host.starts_with('[') {
        true => "[::]:0",
        false => "0.0.0.0:0",
    };
    let socket = world.gateway.udp(any);
    socket.send_to(b"own", format!("{host}:{port}")).is_ok()
}

#[test]
fn what_it_does_not_need_is_refused_and_what_it_needs_leaves() {
    if !root() {
        return;
    }
    let world = World::new("own");
    forward(&world);
    let asks_one = OwnNeeds {
        resolvers: Some(vec!["203.0.113.10".parse().unwrap()]),
        ..OwnNeeds::default()
    };
    let root_may = OwnNeeds {
        user: Some(0),
        ..asks_one.clone()
    };
    let all = [[true; 2]; 3];
    for (needs, expected) in [
        (
            Some(asks_one.clone()),
            [[true; 2], [true, false], [false; 2]],
        ),
        (
            Some(OwnNeeds::default()),
            [[true; 2], [true; 2], [false; 2]],
        ),
        (Some(root_may), all),
        (None, all),
    ] {
        hold(&world, needs.clone());
        let found = [123, 53, 9].map(|port| HOSTS.map(|host| sent(&world, host, port)));
        assert_eq!(found, expected, "NTP, DNS, anything else: {needs:?}");
    }
    // TCP hears of it at once.
    hold(&world, Some(asks_one));
    for host in HOSTS {
        let begun = Instant::now();
        let to = format!("{host}:9").parse().unwrap();
        let refused = world
            .gateway
            .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(30)).map(drop));
        let refused = refused.unwrap_err().kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "{host}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{host}");
    }
}

#[test]
fn a_mark_alone_lets_nothing_out() {
    if !root() {
        return;
    }
    let world = World::new("ownmark");
    forward(&world);
    hold(&world, Some(OwnNeeds::default()));
    let [v4, _] = HOSTS;
    let seen = world.router.udp("203.0.113.10:9");
    world.gateway.sh(&format!(
        "nft add table inet other; nft add chain inet other out \
         \"{{ type route hook output priority -150; }}\"; \
         nft add rule inet other out udp dport 9 meta mark set {OWN_MARK:#x}"
    ));
    sent(&world, v4, 9);
    // It would have been seen: this one is behind it on the same way.
    let own = world.gateway.udp("0.0.0.0:0");
    hold(&world, None);
    world.gateway.sh("nft delete table inet other");
    own.send_to(b"later", "203.0.113.10:9").unwrap();
    let mut buf = [0; 16];
    let n = seen.recv(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"later");
}

#[test]
fn who_called_before_the_guard_is_answered_from_a_port_of_the_systems() {
    if !root() {
        return;
    }
    let world = World::new("owncall");
    forward(&world);
    let listener = world
        .gateway
        .run(|| TcpListener::bind("192.168.50.2:22").unwrap());
    let mut caller = world.router.run(|| {
        let to = "192.168.50.2:22".parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap()
    });
    let (mut answering, _) = listener.accept().unwrap();
    // Nothing tracked it until now, and it is the box that speaks first.
    let mut elsewhere = inputs(Devices::default());
    elsewhere.lan.networks = vec!["192.168.77.0/24".parse().unwrap()];
    apply(&world, &GuardPlan::new(&elsewhere));
    caller
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    for _ in 0..2 {
        let mut buf = [0; 8];
        answering.write_all(b"shell").unwrap();
        let n = caller.read(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"shell");
    }
}

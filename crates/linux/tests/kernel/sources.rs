//! A device that says it is somebody outside: nothing it sends reaches him, reflected by the box.

use cygnet_gateway::{Devices, GuardPlan};

use crate::guard::{apply, forward, inputs};
use crate::world::{WEB, World, root};

/// Whom the device's packets say they come from.
const ACCOMPLICE: [&str; 2] = ["198.51.100.77", "2001:db8:77::7"];

/// A world whose laptop can send as the accomplice, whom the router's side would reach.
fn world(name: &str) -> World {
    let world = World::new(name);
    forward(&world);
    let [v4, v6] = ACCOMPLICE;
    world.laptop.sh(&format!(
        "ip address add {v4}/32 dev lo; ip address add {v6}/128 dev lo nodad"
    ));
    // As distributions have it; a strict filter would do half of it.
    world
        .gateway
        .sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 2 > $f; done");
    world.router.sh(&format!(
        "ip route add blackhole {v4}/32; ip -6 route add blackhole {v6}/128; \
             nft add table inet accomplice; nft add chain inet accomplice in \
             \"{{ type filter hook prerouting priority -300; }}\"; \
             nft add rule inet accomplice in ip daddr {v4} counter; \
             nft add rule inet accomplice in ip6 daddr {v6} counter"
    ));
    world
}

/// What the accomplice has been sent so far, of each family.
fn reached(world: &World) -> [u64; 2] {
    let list = world.router.sh("nft list table inet accomplice");
    let counts = list.split("counter packets ").skip(1);
    let counts = counts.map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    counts.collect::<Vec<u64>>().try_into().unwrap()
}

/// Pings `to`, of each family, as `from`; whether each was answered by anybody is not asked.
fn pings(world: &World, from: [&str; 2], to: [&str; 2], hops: u8) {
    for (from, to) in from.into_iter().zip(to) {
        world.laptop.sh(&format!(
            "ping -n -c3 -i0.2 -W1 -t{hops} -I {from} {to} >/dev/null || :"
        ));
    }
}

const BOX: [&str; 2] = ["192.168.50.2", "fd00:50::2"];

#[test]
fn on_two_legs_the_box_answers_nobody_outside_for_a_device() {
    if !root() {
        return;
    }
    let world = world("twolegs");
    world.second_leg();
    // A network behind a router of the LAN.
    world
        .gateway
        .sh("ip route add 10.77.0.0/24 via 192.168.50.11; \
             ip -6 route add fd00:77::/64 via fd00:50::11");
    world
        .phone
        .sh("ip address add 10.77.0.1/32 dev lo; ip address add fd00:77::1/128 dev lo nodad");
    let attack = || {
        let before = reached(&world);
        pings(&world, ACCOMPLICE, BOX, 64);
        let answered = reached(&world);
        pings(&world, ACCOMPLICE, WEB, 1);
        let ended = reached(&world);
        let differ = |a: [u64; 2], b: [u64; 2]| [b[0] - a[0], b[1] - a[1]];
        [differ(before, answered), differ(answered, ended)]
    };
    let all = attack();
    assert!(all.iter().flatten().all(|n| *n > 0), "unguarded: {all:?}");
    for uplink in [Some("wan0".parse().unwrap()), None] {
        let mut inputs = inputs(Devices::default());
        inputs.uplink = uplink;
        apply(&world, &GuardPlan::new(&inputs));
        assert_eq!(attack(), [[0, 0], [0, 0]], "{:?}", inputs.uplink);
        // Nothing that belongs there is kept out: the LAN, what is behind its router, whoever has no other address.
        for (host, from, to) in [
            (&world.laptop, "192.168.50.10", "192.168.50.2"),
            (&world.laptop, "fd00:50::10", "fd00:50::2"),
            (&world.phone, "10.77.0.1", "192.168.50.2"),
            (&world.phone, "fd00:77::1", "fd00:50::2"),
            (&world.laptop, "eth0", "ff02::1"),
            (&world.router, "192.0.2.1", "192.0.2.2"),
            (&world.router, "203.0.113.10", "192.0.2.2"),
            (&world.router, "2001:db8::10", "fd00:99::2"),
        ] {
            host.sh(&format!("ping -n -c1 -W2 -I {from} {to}"));
        }
    }
    world
        .gateway
        .sh("nft flush chain inet cygnet_guard sources");
    let all = attack();
    assert!(all[0].iter().all(|n| *n > 0), "not asked: {all:?}");
    // Nor does the LAN come from outside.
    let mut inputs = inputs(Devices::default());
    inputs.uplink = Some("wan0".parse().unwrap());
    apply(&world, &GuardPlan::new(&inputs));
    world.router.sh(
        "ip link set eth0 down; ip route add 192.168.50.2/32 via 192.0.2.2; \
         ip address add 192.168.50.99/32 dev lo; \
         ! ping -n -c1 -W1 -I 192.168.50.99 192.168.50.2",
    );
}

#[test]
fn on_one_leg_the_box_tells_nobody_outside_of_what_a_device_sent() {
    if !root() {
        return;
    }
    let world = world("oneleg");
    world
        .laptop
        .sh("ip route add 192.168.50.11/32 via 192.168.50.2");
    let phone = ["192.168.50.11", "fd00:50::11"];
    let attack = || {
        let before = reached(&world);
        pings(&world, ACCOMPLICE, WEB, 1);
        // Routed and not expired: refused by the guard's table, where there is one.
        pings(&world, ACCOMPLICE, ["203.0.113.99", "2001:db8::99"], 64);
        pings(&world, ACCOMPLICE, phone, 1);
        let after = reached(&world);
        [after[0] - before[0], after[1] - before[1]]
    };
    let all = attack();
    assert!(all.iter().all(|n| *n > 0), "unguarded: {all:?}");
    let guard = GuardPlan::new(&inputs(Devices::default()));
    apply(&world, &guard);
    assert_eq!(attack(), [0, 0]);
    world.gateway.sh("nft flush chain inet cygnet_guard errors");
    let all = attack();
    assert!(all.iter().all(|n| *n > 0), "not asked: {all:?}");
    apply(&world, &guard);
    // By itself each device is told.
    let told = world
        .laptop
        .sh("ping -n -c1 -W2 -t1 -I 192.168.50.10 203.0.113.10 || :");
    assert!(told.contains("Destination Host Unreachable"), "{told}");
}

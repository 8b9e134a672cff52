//! The guard: each layer by itself keeps tunnelled devices in, and nobody else out.

use cygnet_gateway::{Devices, GuardInputs, GuardPlan, Lan};
use cygnet_linux::{GuardState, Network};

use crate::world::{World, root};

pub(crate) fn lan(devices: Devices) -> Lan {
    Lan {
        interfaces: vec!["eth0".parse().unwrap()],
        networks: vec![
            "192.168.50.0/24".parse().unwrap(),
            "fd00:50::/64".parse().unwrap(),
        ],
        devices,
    }
}

pub(crate) fn guard() -> GuardPlan {
    GuardPlan::new(&GuardInputs {
        lan: lan(Devices::All),
        tunnels: vec!["cyg0".parse().unwrap()],
    })
}

fn apply(world: &World, guard: &GuardPlan) {
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.apply_guard(guard).await.unwrap();
        assert!(network.guard_state(guard).await.unwrap().is_whole());
    });
}

fn state(world: &World) -> GuardState {
    world.gateway.block_on(|| async {
        let network = Network::open(world.directory()).unwrap();
        network.guard_state(&guard()).await.unwrap()
    })
}

fn forward(world: &World) {
    world
        .gateway
        .sh("echo 1 > /proc/sys/net/ipv4/conf/all/forwarding; \
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $f; done");
}

/// SSH, DNS and the like: the box answers its LAN, and reaches the internet itself.
fn box_is_reachable(world: &World) {
    for (local, address) in [
        ("0.0.0.0:53", "192.168.50.2:53"),
        ("[::]:53", "[fd00:50::2]:53"),
    ] {
        let service = world.gateway.udp(local);
        let any = if local.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let client = world.laptop.udp(any);
        client.send_to(b"query", address).unwrap();
        let mut buf = [0; 16];
        let (n, from) = service.recv_from(&mut buf).unwrap();
        service.send_to(&buf[..n], from).unwrap();
        assert_eq!(client.recv(&mut buf).unwrap(), 5, "{address}");
    }
    let ntp = world.router.udp("203.0.113.10:123");
    let own = world.gateway.udp("0.0.0.0:0");
    own.send_to(b"time", "203.0.113.10:123").unwrap();
    assert_eq!(
        ntp.recv(&mut [0; 16]).unwrap(),
        4,
        "the box's own traffic is not guarded"
    );
}

/// A hairpin: the laptop reaches the phone by way of the gateway.
fn lan_to_lan_passes(world: &World) {
    let phone = world.phone.udp("192.168.50.11:1000");
    let laptop = world.laptop.udp("0.0.0.0:0");
    laptop.send_to(b"hello", "192.168.50.11:1000").unwrap();
    assert_eq!(phone.recv(&mut [0; 16]).unwrap(), 5, "LAN to LAN");
}

#[test]
fn each_layer_suffices_and_only_off_removes_it() {
    if !root() {
        return;
    }
    let world = World::new("guard");
    forward(&world);
    world
        .laptop
        .sh("ip route add 192.168.50.11/32 via 192.168.50.2");
    let before = world.gateway.state();
    let control = world.canaries();
    assert!(
        control.iter().all(|n| *n > 0),
        "without the guard canaries arrive: {control:?}"
    );

    apply(&world, &guard());
    assert_eq!(world.canaries(), [0, 0], "both layers");
    box_is_reachable(&world);
    lan_to_lan_passes(&world);
    // Replacing it changes nothing.
    let once = world
        .gateway
        .sh("ip rule; ip -6 rule; ip route show table all");
    apply(&world, &guard());
    assert_eq!(
        world
            .gateway
            .sh("ip rule; ip -6 rule; ip route show table all"),
        once
    );

    world.gateway.sh("nft flush ruleset");
    assert_eq!(
        state(&world),
        GuardState {
            absent: false,
            routing: true,
            filter: false
        }
    );
    assert_eq!(world.canaries(), [0, 0], "a foreign flush: routing alone");
    box_is_reachable(&world);
    lan_to_lan_passes(&world);

    apply(&world, &guard());
    world.gateway.sh(
        "for f in -4 -6; do for p in 100 102; do while ip $f rule del priority $p 2>/dev/null; \
         do :; done; done; done",
    );
    assert_eq!(
        state(&world),
        GuardState {
            absent: false,
            routing: false,
            filter: true
        }
    );
    assert_eq!(world.canaries(), [0, 0], "rules deleted: the filter alone");
    box_is_reachable(&world);
    lan_to_lan_passes(&world);

    apply(&world, &guard());
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        // The end of the program is not the end of the guard.
        network.remove().await.unwrap();
        assert!(network.guard_state(&guard()).await.unwrap().is_whole());
        network.remove_guard().await.unwrap();
    });
    assert_eq!(world.gateway.state(), before, "off leaves nothing");
    assert!(world.canaries().iter().all(|n| *n > 0));
}

#[test]
fn a_filter_without_one_of_its_chains_is_not_whole() {
    if !root() {
        return;
    }
    let world = World::new("chains");
    let whole = GuardState {
        absent: false,
        routing: true,
        filter: true,
    };
    let chains = ["forward", "tunnelled", "output", "errors", "leaving"];
    let emptied = chains.map(|chain| format!("nft flush chain inet cygnet_guard {chain}"));
    // Nothing jumps to these: they can be deleted.
    let deleted = ["forward", "output", "leaving"].map(|chain| {
        let chain = format!("chain inet cygnet_guard {chain}");
        format!("nft flush {chain}; nft delete {chain}")
    });
    for damage in emptied.into_iter().chain(deleted) {
        apply(&world, &guard());
        assert_eq!(state(&world), whole);
        world.gateway.sh(&damage);
        let filter = false;
        assert_eq!(state(&world), GuardState { filter, ..whole }, "{damage}");
    }
}

#[test]
fn exempt_devices_go_out_and_the_others_do_not() {
    if !root() {
        return;
    }
    let world = World::new("exempt");
    forward(&world);
    let with = |devices| {
        GuardPlan::new(&GuardInputs {
            lan: lan(devices),
            tunnels: vec!["cyg0".parse().unwrap()],
        })
    };
    let laptop = vec!["192.168.50.10/32".parse().unwrap()];
    apply(&world, &with(Devices::AllBut(laptop.clone())));
    let [v4, v6] = world.canaries();
    assert!(v4 > 0 && v6 == 0, "its IPv6 is not exempt: {v4} {v6}");
    apply(
        &world,
        &with(Devices::Only(vec!["192.168.50.11/32".parse().unwrap()])),
    );
    let [v4, v6] = world.canaries();
    assert!(
        v4 > 0 && v6 == 0,
        "IPv6 of a LAN with named devices is guarded whole: {v4} {v6}"
    );
    apply(&world, &with(Devices::Only(laptop)));
    assert_eq!(world.canaries(), [0, 0]);
    // Each of the two layers again.
    world.gateway.sh("nft flush ruleset");
    assert_eq!(world.canaries(), [0, 0]);
}

//! The guard: each layer by itself keeps tunnelled devices in, and nobody else out.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cygnet_gateway::{
    DevicePolicy, Devices, DirectNames, GUARD_NFT_TABLE, GuardInputs, GuardPlan, Lan, OwnNeeds,
};
use cygnet_linux::{GuardState, Network, end_connections, nft};

use crate::world::{World, root};

pub(crate) fn lan(devices: Devices) -> Lan {
    Lan {
        interfaces: vec!["eth0".parse().unwrap()],
        networks: vec![
            "192.168.50.0/24".parse().unwrap(),
            "fd00:50::/64".parse().unwrap(),
        ],
        devices,
        own: Some(OwnNeeds::default()),
        ..Lan::default()
    }
}

pub(crate) fn guard() -> GuardPlan {
    GuardPlan::new(&inputs(Devices::default()))
}

pub(crate) fn inputs(devices: Devices) -> GuardInputs {
    GuardInputs {
        lan: lan(devices),
        tunnels: vec!["cyg0".parse().unwrap()],
        inside: Vec::new(),
        closed: Vec::new(),
        sites: Vec::new(),
        local: Vec::new(),
        uplink: Some("eth0".parse().unwrap()),
    }
}

pub(crate) fn apply(world: &World, guard: &GuardPlan) {
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

pub(crate) fn forward(world: &World) {
    world
        .gateway
        .sh("echo 1 > /proc/sys/net/ipv4/conf/all/forwarding; \
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $f; done");
}

/// SSH, DNS and the like: the box answers its LAN, and asks for the time itself.
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
    assert_eq!(ntp.recv(&mut [0; 16]).unwrap(), 4, "the box needs the time");
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
        "for f in -4 -6; do for p in 100 102 103; do while ip $f rule del priority $p 2>/dev/null; \
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
    let chains = [
        "forward",
        "from_lan",
        "tunnelled",
        "output",
        "errors",
        "leaving",
    ];
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

fn named(default: DevicePolicy, named: &[(&str, DevicePolicy)]) -> Devices {
    let named = named
        .iter()
        .map(|(d, policy)| (d.parse().unwrap(), *policy));
    Devices {
        default,
        named: named.collect(),
        ..Devices::default()
    }
}

fn with(devices: Devices, direct_networks: &[&str]) -> GuardPlan {
    GuardPlan::new(&GuardInputs {
        lan: Lan {
            direct_networks: direct_networks.iter().map(|n| n.parse().unwrap()).collect(),
            ..lan(devices.clone())
        },
        ..inputs(devices)
    })
}

pub(crate) fn mac(world: &World) -> String {
    let mac = world.laptop.sh("cat /sys/class/net/eth0/address");
    mac.trim().to_owned()
}

const FLUSH_RULES: &str = "for f in -4 -6; do for p in 100 101 102 103; do \
    while ip $f rule del priority $p 2>/dev/null; do :; done; done; done";

#[test]
fn a_mac_address_stands_for_all_of_a_device_in_each_layer() {
    use DevicePolicy::{Blocked, Direct, Tunnelled};
    if !root() {
        return;
    }
    let world = World::new("mac");
    forward(&world);
    world
        .laptop
        .sh("ip route add 192.168.50.11/32 via 192.168.50.2");
    let laptop = mac(&world);
    for (default, policy, out) in [
        (Tunnelled, Direct, true),
        (Blocked, Direct, true),
        (Direct, Tunnelled, false),
        (Direct, Blocked, false),
        (Tunnelled, Blocked, false),
    ] {
        let what = format!("{policy} where all are {default}");
        let plan = with(named(default, &[(&laptop, policy)]), &[]);
        apply(&world, &plan);
        let canaries = world.canaries();
        assert!(
            canaries.iter().all(|n| (*n > 0) == out),
            "{what}: {canaries:?}"
        );
        box_is_reachable(&world);
        lan_to_lan_passes(&world);
        world.gateway.sh("nft flush ruleset");
        assert_eq!(world.canaries(), [0, 0], "{what}, without its filter");
        box_is_reachable(&world);
        lan_to_lan_passes(&world);
        apply(&world, &plan);
        world.gateway.sh(FLUSH_RULES);
        let canaries = world.canaries();
        assert!(
            canaries.iter().all(|n| (*n > 0) == out),
            "{what}, by its filter alone: {canaries:?}"
        );
        lan_to_lan_passes(&world);
    }
}

#[test]
fn without_its_marks_nothing_of_a_blocked_device_enters_the_tunnel_either() {
    if !root() {
        return;
    }
    let world = World::new("blocked");
    forward(&world);
    world
        .gateway
        .sh("ip tuntap add cyg0 mode tun; ip link set cyg0 up; \
         ip route add 203.0.113.10/32 dev cyg0 table 51450; nft add table inet seen; \
         nft add chain inet seen out \"{ type filter hook postrouting priority 0; }\"; \
         nft add rule inet seen out oifname cyg0 udp dport 7 counter");
    let entered = |devices: &Devices, flushed: bool| {
        apply(&world, &with(devices.clone(), &[]));
        if flushed {
            world.gateway.sh("nft delete table inet cygnet_guard");
        }
        let count = || {
            let list = world.gateway.sh("nft list table inet seen");
            let count = list.split("counter packets ").nth(1).unwrap();
            count.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = count();
        world.canaries();
        count() - before
    };
    let all = named(DevicePolicy::Tunnelled, &[]);
    assert!(entered(&all, false) > 0 && entered(&all, true) > 0);
    let blocked = named(
        DevicePolicy::Tunnelled,
        &[(&mac(&world), DevicePolicy::Blocked)],
    );
    assert_eq!(entered(&blocked, false), 0);
    assert_eq!(entered(&blocked, true), 0);
    let other = [("02:00:00:00:00:77", DevicePolicy::Blocked)];
    let other = named(DevicePolicy::Tunnelled, &other);
    assert!(entered(&other, false) > 0, "another is blocked");
}

#[test]
fn addresses_stand_for_their_family_and_networks_for_everybody() {
    use DevicePolicy::{Blocked, Direct, Tunnelled};
    if !root() {
        return;
    }
    let world = World::new("exempt");
    forward(&world);
    let passes = |devices: Devices, direct: &[&str]| {
        apply(&world, &with(devices, direct));
        world.canaries().map(|n| n > 0)
    };
    let (laptop, phone) = ("192.168.50.10", "192.168.50.11");
    for (default, devices, direct, expected) in [
        (Tunnelled, vec![(laptop, Direct)], vec![], [true, false]),
        (Direct, vec![(phone, Tunnelled)], vec![], [true, false]),
        (Direct, vec![(laptop, Tunnelled)], vec![], [false, false]),
        (
            Direct,
            vec![(laptop, Blocked), ("fd00:50::11", Blocked)],
            vec![],
            [false, false],
        ),
        // The narrower of two decides.
        (
            Tunnelled,
            vec![("192.168.50.0/24", Direct), (laptop, Blocked)],
            vec![],
            [false, false],
        ),
        (
            Tunnelled,
            vec![("192.168.50.0/24", Blocked), (laptop, Direct)],
            vec![],
            [true, false],
        ),
        (
            Tunnelled,
            vec![],
            vec!["203.0.113.0/24", "203.0.113.0/28"],
            [true, false],
        ),
        (Tunnelled, vec![], vec!["2001:db8::/32"], [false, true]),
        (
            Tunnelled,
            vec![(laptop, Blocked)],
            vec!["203.0.113.0/24"],
            [false, false],
        ),
    ] {
        let told = format!("{default} {devices:?} {direct:?}");
        assert_eq!(
            passes(named(default, &devices), &direct),
            expected,
            "{told}"
        );
    }
    world.gateway.sh("nft flush ruleset");
    assert_eq!(world.canaries(), [0, 0]);
}

#[test]
fn connections_of_one_device_end_and_those_of_others_go_on() {
    if !root() {
        return;
    }
    let world = World::new("flows");
    forward(&world);
    let all = with(named(DevicePolicy::Direct, &[]), &[]);
    apply(&world, &all);
    world.canaries();
    world.phone.sh(
        "ping -n -c1 -W1 203.0.113.10 >/dev/null || :; ping -n -c1 -W1 2001:db8::10 >/dev/null || :",
    );
    let sources = ["192.168.50.10", "fd00:50::10"].map(|a| a.parse::<IpAddr>().unwrap());
    let seen = |end: bool| {
        world.gateway.run(|| {
            let mut others = Vec::new();
            let ended = end_connections(|connection| {
                let its = sources.contains(&connection.source);
                if !its {
                    others.push(connection.source);
                }
                its && end
            });
            (ended.unwrap(), others.len())
        })
    };
    let (ended, others) = seen(true);
    assert!(ended >= 2 && others >= 1, "{ended} {others}");
    assert_eq!(seen(true).0, 0);
    assert!(seen(false).1 >= others, "the phone's are still there");
}

/// How many packets the gateway's table `seen` counted.
fn counted(world: &World) -> u64 {
    let list = world.gateway.sh("nft list table inet seen");
    let count = list.split("counter packets ").nth(1).unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_guard_of_other_policies_or_with_more_in_it_is_not_whole() {
    use DevicePolicy::{Direct, Tunnelled};
    if !root() {
        return;
    }
    let world = World::new("surplus");
    let of = |device: &str| with(named(Tunnelled, &[(device, Direct)]), &[]);
    let (one, other) = (of("02:00:00:00:00:01"), of("02:00:00:00:00:02"));
    let state = |guard: &GuardPlan| {
        world.gateway.block_on(|| async {
            let network = Network::open(world.directory()).unwrap();
            let state = network.guard_state(guard).await.unwrap();
            (state.routing, state.filter)
        })
    };
    apply(&world, &one);
    assert_eq!(state(&one), (true, true));
    assert_eq!(state(&other), (true, false), "another device goes direct");
    assert_eq!(state(&guard()), (false, false), "nobody is to go direct");
    for (more, expected) in [
        (
            "nft insert rule inet cygnet_guard from_lan return",
            (true, false),
        ),
        (
            "nft insert rule inet cygnet_guard forward accept",
            (true, false),
        ),
        (
            "ip rule add priority 100 iif eth0 lookup main protocol 202",
            (false, true),
        ),
    ] {
        apply(&world, &one);
        world.gateway.sh(more);
        assert_eq!(state(&one), expected, "{more}");
    }
    // It is taken away again.
    apply(&world, &one);
}

#[test]
fn direct_devices_reach_a_site_by_its_tunnel_alone_and_enter_no_tunnel_of_the_box() {
    if !root() {
        return;
    }
    let world = World::new("sites");
    forward(&world);
    let direct = || inputs(named(DevicePolicy::Direct, &[]));
    let mut site = direct();
    site.sites = vec!["203.0.113.0/24".parse().unwrap()];
    // There is no plan: nothing leads to the site.
    apply(&world, &GuardPlan::new(&site));
    let [v4, v6] = world.canaries();
    assert!(v4 == 0 && v6 > 0, "past the site's tunnel: {v4} {v6}");
    site.local = vec!["203.0.113.0/28".parse().unwrap()];
    apply(&world, &GuardPlan::new(&site));
    assert!(
        world.canaries()[0] > 0,
        "a network of the site that is here"
    );

    world
        .gateway
        .sh("ip tuntap add cyg1 mode tun; ip link set cyg1 up; \
         ip route add 203.0.113.10/32 dev cyg1; nft add table inet seen; \
         nft add chain inet seen out \"{ type filter hook postrouting priority 0; }\"; \
         nft add rule inet seen out oifname cyg1 udp dport 7 counter");
    apply(&world, &GuardPlan::new(&direct()));
    world.canaries();
    let entered = counted(&world);
    assert!(entered > 0, "a route leads there");
    let mut closed = direct();
    closed.closed = vec!["cyg1".parse().unwrap()];
    apply(&world, &GuardPlan::new(&closed));
    world.canaries();
    assert_eq!(counted(&world), entered, "into a tunnel of the box's own");
}

#[test]
fn a_connection_of_the_tunnels_does_not_go_on_in_clear_by_its_inner_address() {
    use DevicePolicy::{Direct, Tunnelled};
    if !root() {
        return;
    }
    let world = World::new("begun");
    forward(&world);
    world.gateway.sh(
        "ip tuntap add cyg0 mode tun; ip address add 10.99.0.2/32 dev cyg0; ip link set cyg0 up; \
         ip route add 203.0.113.10/32 dev cyg0 table 51450; nft add table inet seen; \
         nft add chain inet seen nat \"{ type nat hook postrouting priority 100; }\"; \
         nft add rule inet seen nat oifname cyg0 ip saddr != 10.99.0.2 snat ip to 10.99.0.2; \
         nft add chain inet seen out \"{ type filter hook postrouting priority 200; }\"; \
         nft add rule inet seen out oifname cyg0 ip saddr 10.99.0.2 udp dport 7 counter",
    );
    world
        .router
        .sh("nft add table inet inner; nft add chain inet inner in \
         \"{ type filter hook prerouting priority -300; }\"; \
         nft add rule inet inner in ip saddr 10.99.0.2 counter; \
         nft add rule inet inner in ip saddr 192.168.50.2 udp dport 7 counter");
    let seen = || {
        let list = world.router.sh("nft list table inet inner");
        let counts = list.split("counter packets ").skip(1);
        let counts = counts.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
        counts.collect::<Vec<u64>>()
    };
    let laptop = mac(&world);
    let policy = |policy| apply(&world, &with(named(Tunnelled, &[(&laptop, policy)]), &[]));
    let say = |socket: &std::net::UdpSocket| {
        for _ in 0..5 {
            let _ = socket.send_to(b"more", "203.0.113.10:7");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    policy(Tunnelled);
    let old = world.laptop.udp("0.0.0.0:0");
    say(&old);
    assert!(counted(&world) > 0, "it begins in the tunnel");
    policy(Direct);
    say(&old);
    assert_eq!(seen(), [0, 0], "by the inner address, or at all");
    let new = world.laptop.udp("0.0.0.0:0");
    say(&new);
    assert!(seen()[0] == 0 && seen()[1] > 0, "{:?}", seen());
    // When it is ended, it begins anew.
    world.gateway.run(|| end_connections(|_| true)).unwrap();
    let before = seen()[1];
    say(&old);
    assert!(seen()[0] == 0 && seen()[1] > before, "{:?}", seen());
}

#[test]
fn connections_in_a_zone_end_as_well() {
    if !root() {
        return;
    }
    let world = World::new("zones");
    forward(&world);
    world
        .gateway
        .sh("nft add table inet zones; nft add chain inet zones in \
         \"{ type filter hook prerouting priority -300; }\"; nft add rule inet zones in ct zone set 7");
    apply(&world, &with(named(DevicePolicy::Direct, &[]), &[]));
    world.canaries();
    let laptop: IpAddr = "192.168.50.10".parse().unwrap();
    let end = || {
        let of_laptop = |c: cygnet_gateway::Connection| c.source == laptop;
        world.gateway.run(|| end_connections(of_laptop)).unwrap()
    };
    assert!(end() > 0, "none was ended");
    assert_eq!(end(), 0);
}

#[test]
fn a_name_that_goes_direct_does_by_its_addresses_as_long_as_they_are_held() {
    if !root() {
        return;
    }
    let world = World::new("byname");
    forward(&world);
    let of = |named_: &[(&str, DevicePolicy)], addresses: &[(&str, u64)]| {
        let mut inputs = inputs(named(DevicePolicy::Tunnelled, named_));
        inputs.lan.direct_names.listed = true;
        let addresses = addresses.iter().map(|(address, left)| {
            (
                address.parse::<IpAddr>().unwrap(),
                Duration::from_secs(*left),
            )
        });
        inputs.lan.direct_names.addresses = addresses.collect();
        GuardPlan::new(&inputs)
    };
    let whole = |plan: &GuardPlan| {
        world.gateway.block_on(|| async {
            let network = Network::open(world.directory()).unwrap();
            network.guard_state(plan).await.unwrap().is_whole()
        })
    };
    let change = |held: &[&str], gone: &[&str]| {
        let parsed = |all: &[&str]| -> Vec<IpAddr> {
            all.iter().map(|address| address.parse().unwrap()).collect()
        };
        let text = DirectNames::change(GUARD_NFT_TABLE, &parsed(held), &parsed(gone));
        world.gateway.run(|| nft::apply(&text).unwrap());
    };
    let (v4, v6) = ("203.0.113.10", "2001:db8::10");
    let none = of(&[], &[]);
    apply(&world, &none);
    assert_eq!(world.canaries(), [0, 0]);
    change(&[v4], &[]);
    assert!(!whole(&none), "an address that nobody let out");
    assert!(whole(&none.clone().with_any_addresses()));
    let first = of(&[], &[(v4, 3600)]);
    assert!(whole(&first));
    let passes = || world.canaries().map(|count| count > 0);
    assert_eq!(passes(), [true, false]);
    // Held anew, and one more; then both in a guard that is made anew.
    change(&[v4, v6], &[]);
    assert_eq!(passes(), [true, true]);
    let both = of(&[], &[(v4, 3000), (v6, 3000)]);
    assert!(whole(&both) && !whole(&first));
    apply(&world, &both);
    assert_eq!(passes(), [true, true]);
    let left = || {
        let listed = world
            .gateway
            .run(|| nft::list_table(GUARD_NFT_TABLE).unwrap().unwrap());
        let left = nft::elements(&listed, DirectNames::SETS[0]);
        assert_eq!(left.len(), 1);
        left[0].1.unwrap()
    };
    // Of a running connection the second packet holds it longer.
    apply(&world, &of(&[], &[(v4, 3000)]));
    world
        .laptop
        .sh(&format!("ping -n -c3 -i0.2 -W1 {v4} >/dev/null || :"));
    assert!(left() > Duration::from_secs(3500), "{:?}", left());
    // A set that somebody emptied is not whole, unless what was in it was about to end.
    world.gateway.sh("nft flush set inet cygnet_guard direct4");
    assert!(!whole(&of(&[], &[(v4, 3000)])) && whole(&of(&[], &[(v4, 2)])));
    assert_eq!(world.canaries(), [0, 0]);
    change(&[v6], &[v4]);
    change(&[], &[v4, v6]);
    assert_eq!(world.canaries(), [0, 0]);
    // What nothing is sent to any more ends by itself. One datagram holds nothing longer.
    apply(&world, &of(&[], &[(v4, 5)]));
    let before = world.seen();
    let socket = world.laptop.udp("0.0.0.0:0");
    socket.send_to(b"canary", (v4, 7)).unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    while world.seen()[0] == before[0] {
        assert!(Instant::now() < until, "what is held does not go direct");
    }
    let held = || {
        let listed = world.gateway.run(|| nft::list_table(GUARD_NFT_TABLE));
        nft::elements(&listed.unwrap().unwrap(), DirectNames::SETS[0]).len()
    };
    let until = Instant::now() + Duration::from_secs(60);
    while held() > 0 {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.canaries(), [0, 0], "what ended goes direct");
    // Blocked is blocked.
    let blocked = of(
        &[(&mac(&world), DevicePolicy::Blocked)],
        &[(v4, 3600), (v6, 3600)],
    );
    apply(&world, &blocked);
    assert_eq!(world.canaries(), [0, 0]);
    apply(&world, &both);
    assert_eq!(passes(), [true, true]);
    world.gateway.sh("nft flush ruleset");
    assert_eq!(world.canaries(), [0, 0]);
    apply(&world, &both);
    world.gateway.sh(FLUSH_RULES);
    assert_eq!(passes(), [true, true], "by its filter alone");
}

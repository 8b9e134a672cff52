//! A plan in the kernel: the LAN's way through a TUN and back, strict reverse-path filters, and
//! nothing left afterwards.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cygnet_gateway::{
    Device, DevicePolicy, Devices, Dns, Family, Inputs, NetworkPlan, OUTER_MARK, Server, Tunnel,
};
use cygnet_linux::{
    Changes, FirewallChanges, Network, Offloads, RouteProbe, Transmit, Tun, TunOptions, UdpOptions,
    UdpSocket, foreign, nft,
};

use crate::guard::{guard, lan, mac};
use crate::world::{SERVER, WEB, World, root};

pub(crate) fn tunnel(own_traffic: bool) -> Tunnel {
    Tunnel {
        interface: "cyg0".parse().unwrap(),
        mtu: 1400,
        whole: 1400,
        client: true,
        on_demand: false,
        virtual_addresses: vec!["10.99.0.2".parse().unwrap(), "fd99::2".parse().unwrap()],
        remote: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        reached: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        source: Vec::new(),
        maps: Vec::new(),
        endpoints: vec![SERVER.parse().unwrap()],
        own_traffic,
        carries_lan: !own_traffic,
    }
}

pub(crate) fn gateway_plan() -> NetworkPlan {
    NetworkPlan::new(&Inputs {
        tunnels: vec![tunnel(false)],
        lan: Some(lan(Devices::default())),
        uplink: Some("eth0".parse().unwrap()),
        ..Inputs::default()
    })
    .unwrap()
}

fn client_plan() -> NetworkPlan {
    NetworkPlan::new(&Inputs {
        tunnels: vec![tunnel(true)],
        local_networks: lan(Devices::default()).networks,
        uplink: Some("eth0".parse().unwrap()),
        addresses: vec!["192.168.50.2".parse().unwrap()],
        ports: vec![500, 4500],
        ..Inputs::default()
    })
    .unwrap()
}

pub(crate) fn tun(world: &World) -> Tun {
    let options = TunOptions {
        offloads: Offloads::NONE,
        vnet_header: false,
        ..TunOptions::new("cyg0")
    };
    world.gateway.run(|| Tun::open(&options).unwrap().remove(0))
}

pub(crate) fn apply(world: &World, plan: &NetworkPlan) {
    world.gateway.block_on(|| async {
        Network::open(world.directory())
            .unwrap()
            .apply(plan)
            .await
            .unwrap();
    });
}

pub(crate) fn remove(world: &World) {
    world.gateway.block_on(|| async {
        Network::open(world.directory())
            .unwrap()
            .remove()
            .await
            .unwrap();
    });
}

/// The next UDP packet out of the TUN: its bytes, source and destination.
pub(crate) fn next_udp(tun: &Tun) -> Option<(Vec<u8>, IpAddr, IpAddr)> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut buf = [0; 2000];
    while Instant::now() < deadline {
        let Ok(n) = tun.read(&mut buf) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let p = &buf[..n];
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&p[at..at + 4]).unwrap());
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&p[at..at + 16]).unwrap());
        match (p[0] >> 4, p[9], p[6]) {
            (4, 17, _) => return Some((p.to_vec(), v4(12), v4(16))),
            (6, _, 17) => return Some((p.to_vec(), v6(8), v6(24))),
            _ => {}
        }
    }
    None
}

/// The same packet back: addresses and ports swapped, which leaves every checksum right.
pub(crate) fn answer(tun: &Tun, packet: &[u8]) {
    let mut p = packet.to_vec();
    let (addresses, length, ports) = if p[0] >> 4 == 4 {
        (12, 4, 20)
    } else {
        (8, 16, 40)
    };
    p[addresses..addresses + 2 * length].rotate_left(length);
    p[ports..ports + 4].rotate_left(2);
    tun.writev(&[IoSlice::new(&p)]).unwrap();
}

/// One exchange of a LAN device with the web host, through the TUN. Whether the answer came.
fn exchange(world: &World, tun: &Tun, family: usize) -> bool {
    // What was sent to the TUN before and nobody read.
    while tun.read(&mut [0; 2000]).is_ok() {}
    let laptop = world.laptop.udp(["0.0.0.0:0", "[::]:0"][family]);
    laptop
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let web = SocketAddr::new(WEB[family].parse().unwrap(), 80);
    laptop.send_to(b"request", web).unwrap();
    let (packet, source, destination) = next_udp(tun).expect("the packet enters the TUN");
    let virtual_address: IpAddr = ["10.99.0.2", "fd99::2"][family].parse().unwrap();
    assert_eq!(
        (source, destination),
        (virtual_address, web.ip()),
        "translated"
    );
    answer(tun, &packet);
    let mut buf = [0; 100];
    matches!(laptop.recv_from(&mut buf), Ok((7, from)) if from == web)
}

#[test]
fn a_lan_goes_through_the_tunnel_under_strict_filters_and_nothing_stays() {
    if !root() {
        return;
    }
    let world = World::new("plan");
    world
        .gateway
        .sh("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    let before = world.gateway.state();
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.apply_guard(&guard()).await.unwrap();
    });
    let guarded = world.gateway.sh("ip rule; ip -6 rule");
    let tun = tun(&world);
    apply(&world, &gateway_plan());
    assert!(
        exchange(&world, &tun, 0),
        "IPv4 there and back with rp_filter=1"
    );
    assert!(exchange(&world, &tun, 1), "IPv6 there and back");
    assert_eq!(world.canaries(), [0, 0], "and nothing beside it");
    let redirects = "cat /proc/sys/net/ipv4/conf/*/send_redirects";
    assert!(world.gateway.sh(redirects).lines().all(|l| l == "0"));

    // The reverse path of a forwarded packet is looked up as if it came in by the LAN interface,
    // so the guard's rule applies and even a strict filter on the TUN agrees.
    world
        .gateway
        .sh("echo 1 > /proc/sys/net/ipv4/conf/cyg0/rp_filter");
    assert!(exchange(&world, &tun, 0), "strict on the TUN itself");
    world
        .gateway
        .sh("echo 2 > /proc/sys/net/ipv4/conf/cyg0/rp_filter");

    // Again: no change, and nothing twice.
    let once = world.gateway.state();
    apply(&world, &gateway_plan());
    assert_eq!(
        world.gateway.state(),
        once,
        "applying twice changes nothing"
    );
    assert!(exchange(&world, &tun, 0));

    // The TUN goes with its process: the guard is what remains.
    drop(tun);
    assert_eq!(world.canaries(), [0, 0], "a crash opens nothing");
    // `remove` by a later run, which finds what the earlier left.
    remove(&world);
    assert_eq!(
        world.gateway.sh("ip rule; ip -6 rule"),
        guarded,
        "the guard stays"
    );
    assert_eq!(world.canaries(), [0, 0], "and still nothing");
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.remove_guard().await.unwrap();
    });
    assert_eq!(world.gateway.state(), before, "nothing stays");
    assert!(!world.directory().join("sysctl.journal").exists());
}

#[test]
fn outer_packets_stay_outside_and_come_back_under_strict_filters() {
    if !root() {
        return;
    }
    let world = World::new("client");
    world
        .gateway
        .sh("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; \
             echo 1 > /proc/sys/net/ipv4/conf/all/forwarding");
    let before = world.gateway.state();
    let tun = tun(&world);
    apply(&world, &client_plan());
    let server = world.router.udp(&format!("{SERVER}:4500"));
    let options = UdpOptions {
        mark: Some(OUTER_MARK),
        ..UdpOptions::new("0.0.0.0:4500".parse().unwrap())
    };
    let outer = world.gateway.run(|| UdpSocket::bind(&options).unwrap());
    let send = |destination: &str| {
        outer.send(&Transmit {
            destination: destination.parse().unwrap(),
            source: None,
            interface: 0,
            tos: 0,
            segment: None,
            parts: &[IoSlice::new(b"outer")],
        })
    };
    send(&format!("{SERVER}:4500")).unwrap();
    let mut buf = [0; 100];
    let (_, from) = server
        .recv_from(&mut buf)
        .expect("the outer packet goes by the uplink");
    // By a peer behind a NAT the answer may come from any port.
    let translated = world.router.udp(&format!("{SERVER}:40000"));
    for peer in [&server, &translated] {
        peer.send_to(b"answer", from).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut answered = false;
        while !answered && Instant::now() < deadline {
            answered = outer.recv(&mut buf).is_ok();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(
            answered,
            "the answer passes rp_filter=1 although the default route is the TUN"
        );
    }

    // So a call that is made while the tunnel is up begins at an address outside it.
    let source = |mark| {
        let probe = world.gateway.run(|| RouteProbe::open(false, mark).unwrap());
        let destination = format!("{SERVER}:4500").parse().unwrap();
        probe.source(destination).unwrap()
    };
    assert_eq!(source(Some(OUTER_MARK)), from.ip());
    assert_ne!(source(None), from.ip(), "everything else is inside");

    let own = world.gateway.udp("0.0.0.0:0");
    own.send_to(b"inner", "203.0.113.10:80").unwrap();
    let (_, source, _) = next_udp(&tun).expect("the machine's own traffic takes the tunnel");
    assert_eq!(source, "10.99.0.2".parse::<IpAddr>().unwrap());
    let laptop = world.laptop.udp("192.168.50.10:1000");
    own.send_to(b"local", "192.168.50.10:1000").unwrap();
    assert_eq!(laptop.recv(&mut buf).unwrap(), 5, "the LAN stays local");

    drop((server, translated));
    nothing_else_of_ours_reaches_the_server(&world, &tun);

    // A lost default route is an error, not a loop.
    world.gateway.sh("ip route del default");
    assert!(send("203.0.113.99:4500").is_err());
    world.gateway.sh("ip route add default via 192.168.50.1");
    drop(tun);
    remove(&world);
    assert_eq!(world.gateway.state(), before);
}

/// The server's outer address is an address like any other for all but the outer packets: what this
/// machine sends to its other ports, and what it forwards to any, takes the tunnel.
fn nothing_else_of_ours_reaches_the_server(world: &World, tun: &Tun) {
    let (own, laptop) = (
        world.gateway.udp("0.0.0.0:0"),
        world.laptop.udp("0.0.0.0:0"),
    );
    let disguised = world.laptop.udp("0.0.0.0:4500");
    for (from, port) in [
        (&own, 53),
        (&own, 4500),
        (&own, 9999),
        (&laptop, 53),
        (&laptop, 9999),
        (&disguised, 4500),
    ] {
        while tun.read(&mut [0; 2000]).is_ok() {}
        let outside = world.router.udp(&format!("{SERVER}:{port}"));
        from.send_to(b"canary", (SERVER, port)).unwrap();
        let (_, source, destination) = next_udp(tun).expect("the canary enters the TUN");
        assert_eq!(destination, SERVER.parse::<IpAddr>().unwrap());
        assert_eq!(source, "10.99.0.2".parse::<IpAddr>().unwrap());
        outside.set_nonblocking(true).unwrap();
        assert!(outside.recv(&mut [0; 16]).is_err(), "port {port} in clear");
    }
}

/// A UDP packet over IPv4, its own checksum left out.
fn udp_packet(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    p.extend(from);
    p.extend(to);
    let sum = p.chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    p[10..12].copy_from_slice(&folded.to_be_bytes());
    for number in [40_000, port, 12, 0] {
        p.extend(number.to_be_bytes());
    }
    p.extend(b"ping");
    p
}

#[test]
fn a_server_offers_its_clients_no_more_than_it_is_told_to() {
    if !root() {
        return;
    }
    let world = World::new("host");
    let tun = tun(&world);
    for host_access in [true, false] {
        let plan = NetworkPlan::new(&Inputs {
            server: Some(Server {
                interface: "cyg0".parse().unwrap(),
                mtu: 1400,
                pools: vec!["10.99.0.0/24".parse().unwrap()],
                addresses: vec!["10.99.0.1".parse().unwrap()],
                masquerade: Family::BOTH.to_vec(),
                client_to_client: false,
                block_private: true,
                inside: Vec::new(),
                host_access,
                speedtest: None,
            }),
            uplink: Some("eth0".parse().unwrap()),
            ..Inputs::default()
        });
        apply(&world, &plan.unwrap());
        for (port, expected) in [(53, true), (9999, host_access)] {
            let service = world.gateway.udp(&format!("0.0.0.0:{port}"));
            service
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let packet = udp_packet([10, 99, 0, 5], [10, 99, 0, 1], port);
            tun.writev(&[IoSlice::new(&packet)]).unwrap();
            let arrived = service.recv(&mut [0; 16]).is_ok();
            assert_eq!(arrived, expected, "port {port}, host_access {host_access}");
        }
    }
}

/// A gateway that answers, with that policy for the laptop.
fn answering(world: &World, policy: DevicePolicy) {
    let device = |mac: &str| mac.parse::<Device>().unwrap();
    let devices = Devices {
        named: [
            (device(&mac(world)), policy),
            // Another one always goes direct.
            (device("02:00:00:00:00:77"), DevicePolicy::Direct),
        ]
        .into(),
        ..Devices::default()
    };
    let addresses = OURS.map(|a| ("eth0".parse().unwrap(), a.parse().unwrap()));
    let plan = NetworkPlan::new(&Inputs {
        tunnels: vec![tunnel(false)],
        uplink: Some("eth0".parse().unwrap()),
        dns: Some(Dns {
            addresses: addresses.to_vec(),
            direct: true,
            refuse_dot: true,
        }),
        lan: Some(lan(devices)),
        ..Inputs::default()
    });
    apply(world, &plan.unwrap());
}

const OURS: [&str; 2] = ["192.168.50.2", "fd00:50::2"];

/// Whoever is asked is not there: the gateway answers, and the device takes it for theirs.
#[test]
fn what_a_device_asks_anybody_is_answered_by_the_gateway() {
    if !root() {
        return;
    }
    let world = World::new("asks");
    let _tun = tun(&world);
    answering(&world, DevicePolicy::Tunnelled);
    for (ours, whom) in OURS.into_iter().zip(["9.9.9.9", "2620:fe::fe"]) {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 53);
        let service = world.gateway.udp(&at(ours).to_string());
        let device = world.laptop.udp(any(ours));
        for asked in [at(whom), at(ours)] {
            device.send_to(b"question", asked).unwrap();
            let (_, from) = service.recv_from(&mut [0; 16]).unwrap();
            service.send_to(b"answer", from).unwrap();
            let (_, answered) = device.recv_from(&mut [0; 16]).unwrap();
            assert_eq!((answered.ip(), answered.port()), (asked.ip(), 53));
        }
    }
    remove(&world);
}

fn any(like: &str) -> &'static str {
    match like.contains(':') {
        true => "[::]:0",
        false => "0.0.0.0:0",
    }
}

#[test]
fn what_a_device_asks_the_gateway_goes_where_its_policy_says() {
    use DevicePolicy::{Blocked, Direct, Tunnelled};
    if !root() {
        return;
    }
    let world = World::new("asks-as");
    let _tun = tun(&world);
    for ours in OURS {
        let at = |port| SocketAddr::new(ours.parse().unwrap(), port);
        let services = [53, Dns::DIRECT_PORT].map(|port| {
            let service = world.gateway.udp(&at(port).to_string());
            service
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            service
        });
        let heard = || services.each_ref().map(|s| s.recv(&mut [0; 16]).is_ok());
        let ask = |device: &std::net::UdpSocket, port| {
            // Of one that is refused the next sending tells.
            let _ = device.send_to(b"question", at(port));
            heard()
        };
        for (policy, at_53, at_1053) in [
            (Tunnelled, [true, false], [false, false]),
            (Direct, [false, true], [false, true]),
            (Blocked, [false, false], [false, false]),
        ] {
            answering(&world, policy);
            let device = world.laptop.udp(any(ours));
            assert_eq!(ask(&device, 53), at_53, "{ours} {policy}");
            let other = world.laptop.udp(any(ours));
            assert_eq!(ask(&other, Dns::DIRECT_PORT), at_1053, "{ours} {policy}");
        }
        // What was turned while the device went direct is held back as soon as it does not.
        answering(&world, Direct);
        let device = world.laptop.udp(any(ours));
        assert_eq!(ask(&device, 53), [false, true]);
        answering(&world, Tunnelled);
        assert_eq!(ask(&device, 53), [false, false], "{ours}: as it was turned");
    }
    remove(&world);
}

#[test]
fn routes_and_sources_can_be_asked_for() {
    if !root() {
        return;
    }
    let world = World::new("ask");
    world.gateway.block_on(|| async {
        let network = Network::open(world.directory()).unwrap();
        let netlink = network.netlink();
        let way = netlink
            .route_to(WEB[0].parse().unwrap(), None)
            .await
            .unwrap();
        assert_eq!(
            (way.interface.as_str(), way.source, way.gateway),
            (
                "eth0",
                Some("192.168.50.2".parse().unwrap()),
                Some("192.168.50.1".parse().unwrap()),
            )
        );
        for v6 in [false, true] {
            assert_eq!(
                netlink
                    .default_route(v6)
                    .await
                    .unwrap()
                    .map(|way| (way.interface, way.gateway)),
                Some((
                    "eth0".to_owned(),
                    Some(
                        ["192.168.50.1", "fd00:50::1"][usize::from(v6)]
                            .parse()
                            .unwrap()
                    )
                ))
            );
        }
        let networks = netlink.local_networks(&[]).await.unwrap();
        assert_eq!(networks, lan(Devices::default()).networks);
        let missing = netlink.link("none").await.unwrap_err();
        assert!(missing.to_string().contains("ip link"), "{missing}");
        let own = netlink.link("eth0").await.unwrap();
        assert!(own.up && own.mac.len() == 6 && own.mtu == 1500);
    });
    world
        .laptop
        .udp("0.0.0.0:0")
        .send_to(b"x", "192.168.50.2:9")
        .unwrap();
    world.gateway.block_on(|| async {
        let network = Network::open(world.directory()).unwrap();
        let neighbours = network.netlink().neighbours().await.unwrap();
        let laptop: IpAddr = "192.168.50.10".parse().unwrap();
        assert!(
            neighbours
                .iter()
                .any(|n| n.address == laptop && n.mac.len() == 6)
        );
    });
}

#[test]
fn what_others_change_is_heard_and_our_own_routes_are_not() {
    if !root() {
        return;
    }
    let world = World::new("changes");
    let tun = tun(&world);
    let heard = |command: &str| {
        world.gateway.block_on(|| async {
            let mut changes = Changes::listen().unwrap();
            world.gateway.sh(command);
            let soon = Duration::from_millis(500);
            tokio::time::timeout(soon, changes.next()).await == Ok(true)
        })
    };
    assert!(!heard("true"), "nothing");
    for proto in [201, 202] {
        let command = format!("ip route add 10.77.{proto}.0/24 dev lo proto {proto}");
        assert!(!heard(&command), "{command}");
    }
    for command in [
        "ip address add 192.168.50.3/24 dev eth0",
        "ip -6 address add fd00:50::3/64 dev eth0 nodad",
        "ip route replace default via 192.168.50.10",
        "ip -6 route replace default via fd00:50::10",
        "ip link set eth0 down",
    ] {
        assert!(heard(command), "{command}");
    }
    drop(tun);
}

#[test]
fn a_change_of_the_firewall_is_heard() {
    if !root() {
        return;
    }
    let world = World::new("firewall");
    let heard = |command: &str| {
        world.gateway.block_on(|| async {
            let mut changes = FirewallChanges::listen().unwrap();
            world.gateway.sh(command);
            let soon = Duration::from_millis(500);
            tokio::time::timeout(soon, changes.next()).await == Ok(true)
        })
    };
    assert!(!heard("nft list ruleset"), "to look changes nothing");
    assert!(!heard("ip link set eth0 mtu 1400"));
    for command in [
        "nft add table inet foreign",
        "nft add chain inet foreign forward \"{ type filter hook forward priority 0; }\"",
        "nft add rule inet foreign forward counter drop",
        "nft flush ruleset",
    ] {
        assert!(heard(command), "{command}");
    }
    assert!(!heard("nft flush ruleset"), "nothing was left to flush");
    // More than fits into the socket.
    let many = "for n in $(seq 2000); do echo add table inet t$n; done | nft -f -";
    assert!(heard(many));
}

#[test]
fn a_foreign_firewall_is_named_and_its_remedy_works() {
    if !root() {
        return;
    }
    let world = World::new("foreign");
    let tun = tun(&world);
    apply(&world, &gateway_plan());
    world
        .gateway
        .sh("nft add table ip filter; nft add chain ip filter FORWARD \
         \"{ type filter hook forward priority 0; policy drop; }\"; \
         nft add chain ip filter DOCKER-USER; nft add rule ip filter FORWARD jump DOCKER-USER");
    let paths = foreign::Paths {
        tunnels: vec!["cyg0".to_owned()],
        ..foreign::Paths::default()
    };
    let find = || foreign::blockages(&nft::ruleset_json().unwrap(), &paths).unwrap();
    let blockages = world.gateway.run(find);
    assert_eq!(blockages.len(), 1, "{blockages:?}");
    assert_eq!(blockages[0].firewall, foreign::Firewall::Docker);
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.apply_guard(&guard()).await.unwrap();
    });
    let laptop = world.laptop.udp("0.0.0.0:0");
    laptop.send_to(b"request", "203.0.113.10:80").unwrap();
    assert!(next_udp(&tun).is_none(), "it does block");
    for remedy in &blockages[0].remedy {
        // Quotes of an interface name are the shell's to keep.
        world.gateway.sh(&remedy.replace('"', "\\\""));
    }
    assert_eq!(world.gateway.run(find), []);
    assert!(
        exchange(&world, &tun, 0),
        "the offered rules let it through"
    );
}

#[test]
fn a_plan_that_fails_leaves_nothing_half_applied() {
    if !root() {
        return;
    }
    let world = World::new("half");
    let before = world.gateway.state();
    // The TUN does not exist.
    let error = world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.apply(&gateway_plan()).await.unwrap_err()
    });
    assert!(error.to_string().contains("cyg0"), "{error}");
    assert_eq!(world.gateway.state(), before);
}

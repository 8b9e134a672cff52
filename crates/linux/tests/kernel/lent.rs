//! What a tunnel's peer lends, and flows of devices that do not wait for it.

use std::net::{IpAddr, SocketAddr};

use cygnet_gateway::{Devices, Inputs, NetworkPlan};
use cygnet_linux::Network;

use crate::guard::{guard, lan};
use crate::plan::{apply, gateway_plan, next_udp, remove, tun, tunnel};
use crate::world::{WEB, World, root};

/// A connection that goes on all the time is tracked as it began: it must not begin before there is an address.
#[test]
fn what_is_sent_before_an_address_is_lent_does_not_begin_a_connection() {
    if !root() {
        return;
    }
    let world = World::new("lent");
    world.gateway.block_on(|| async {
        let mut network = Network::open(world.directory()).unwrap();
        network.apply_guard(&guard()).await.unwrap();
    });
    let tun = tun(&world);
    let with = |addresses: Vec<IpAddr>| {
        let mut tunnel = tunnel(false);
        tunnel.virtual_addresses = addresses;
        NetworkPlan::new(&Inputs {
            tunnels: vec![tunnel],
            lan: Some(lan(Devices::default())),
            uplink: Some("eth0".parse().unwrap()),
            ..Inputs::default()
        })
        .unwrap()
    };
    let [v4, v6] = [0, 1].map(|family| {
        let laptop = world.laptop.udp(["0.0.0.0:0", "[::]:0"][family]);
        let web = SocketAddr::new(WEB[family].parse().unwrap(), 80);
        move || laptop.send_to(b"request", web).map(drop).unwrap()
    });
    apply(&world, &with(Vec::new()));
    for send in [&v4 as &dyn Fn(), &v6] {
        send();
        let entered = next_udp(&tun);
        assert_eq!(entered, None, "enters the TUN untranslated");
    }
    // The server lends one of IPv4 first.
    apply(&world, &with(vec!["10.99.0.2".parse().unwrap()]));
    v6();
    assert_eq!(next_udp(&tun), None, "IPv6 enters the TUN untranslated");
    apply(&world, &gateway_plan());
    for (send, address) in [(&v4 as &dyn Fn(), "10.99.0.2"), (&v6, "fd99::2")] {
        send();
        let (_, source, _) = next_udp(&tun).expect("the packet enters the TUN");
        assert_eq!(source, address.parse::<IpAddr>().unwrap(), "translated");
    }
    remove(&world);
}

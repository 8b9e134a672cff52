use cygnet_crypto::{Secret, SystemRandom};
use cygnet_esp::{Flow, JoinConfig, Ports, Verdict};

use super::*;
use crate::engine::datapath::testing;

const PATH: (&str, &str) = ("192.0.2.1:4500", "198.51.100.1:4500");

fn keys() -> Secret {
    Secret::new(vec![7; testing::SUITE.key_material_len()])
}

fn sad_with_device(connection: &str) -> Sad {
    let mut sad = Sad::default();
    let join = JoinConfig {
        tcp: true,
        udp: true,
    };
    let (queue, _) = testing::queue();
    let device = Device::new(connection.into(), "tun0".into(), vec![queue], join);
    sad.add_device(Arc::new(device));
    sad
}

fn install(sad: &mut Sad, params: &ChildSaParameters) {
    let road = testing::road(PATH.0, PATH.1);
    sad.install_in(Arc::new(params.clone()), &keys(), road)
        .unwrap();
}

fn flow(src: &str, dst: &str) -> Flow {
    Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 17,
        ports: Ports::Pair {
            src: 1000,
            dst: 2000,
        },
    }
}

/// Which Child SA takes a packet from 10.1.0.1 to this address, or which child's trap it springs.
fn verdict(sad: &mut Sad, dst: &str) -> String {
    let tables = sad.tables();
    let outlets = &tables.outbound[&0];
    match outlets.spd.lookup_flow(&flow("10.1.0.1", dst)) {
        Verdict::Seal(outlet) => format!("child {}", outlet.path.child.0),
        Verdict::Acquire(policy, _) => outlets
            .trap(policy)
            .map_or("nobody".into(), |trap| format!("trap {}", trap.child)),
        Verdict::NoPolicy => "no policy".into(),
        Verdict::Discard(_) | Verdict::UnknownFragment => "dropped".into(),
    }
}

fn path() -> cygnet_ike::io::Path {
    testing::path(PATH.0.parse().unwrap(), PATH.1.parse().unwrap())
}

#[test]
fn spis_are_unique_and_never_reserved_ones() {
    struct Sequence(Vec<u32>);
    impl Random for Sequence {
        fn fill(&mut self, out: &mut [u8]) {
            out.copy_from_slice(&self.0.remove(0).to_be_bytes());
        }
    }
    let mut sad = Sad::default();
    let mut random = Sequence(vec![0, 255, 256, 256, 257, 256]);
    assert_eq!(sad.alloc_spi(&mut random), 256);
    assert_eq!(sad.alloc_spi(&mut random), 257);
    sad.free_spi(256);
    assert_eq!(sad.alloc_spi(&mut random), 256);
    assert!(sad.alloc_spi(&mut SystemRandom) >= 0x100);
}

#[test]
fn installing_receives_and_switching_sends() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let params = testing::child(1, &connection, 300, 400, path());
    install(&mut sad, &params);
    assert!(sad.tables().inbound.contains_key(&300));
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "no policy");
    sad.switch_out(&params, &keys()).unwrap();
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "child 1");
    assert_eq!(verdict(&mut sad, "10.3.0.1"), "no policy");
    let sa = &sad.children[&params.id].outbound.as_ref().unwrap().sa;
    let _one = sa.reserve(1, 100).unwrap();
    assert_eq!(sad.active(), (vec![], vec![params.id]));
    sad.remove_out(params.id);
    assert_eq!(sad.active(), (vec![], vec![]));
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "no policy");
    assert!(sad.tables().inbound.contains_key(&300));
    sad.remove_in(params.id);
    assert!(sad.tables().inbound.is_empty());
}

#[test]
fn what_was_carried_outlives_the_sas_that_carried_it() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let send = |sad: &Sad, child: &ChildSaParameters, bytes| {
        let sa = &sad.children[&child.id].outbound.as_ref().unwrap().sa;
        let _one = sa.reserve(1, bytes).unwrap();
    };
    let carried = |packets_out, bytes_out| Traffic {
        packets_out,
        bytes_out,
        ..Traffic::default()
    };
    let old = testing::child(1, &connection, 300, 400, path());
    let new = testing::child(2, &connection, 301, 401, path());
    for params in [&old, &new] {
        install(&mut sad, params);
        sad.switch_out(params, &keys()).unwrap();
    }
    send(&sad, &old, 100);
    send(&sad, &new, 20);
    assert_eq!(sad.carried()["a"], carried(2, 120));
    sad.remove_out(old.id);
    sad.remove_out(old.id);
    assert_eq!(sad.carried()["a"], carried(2, 120));
    sad.remove_in(old.id);
    sad.remove_in(old.id);
    assert_eq!(sad.carried()["a"], carried(2, 120));
    send(&sad, &new, 3);
    sad.remove_in(new.id);
    assert_eq!(sad.carried()["a"], carried(3, 123));
}

#[test]
fn the_newest_of_equal_selectors_comes_first_and_gives_way_to_the_older() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let old = testing::child(1, &connection, 300, 400, path());
    let new = testing::child(2, &connection, 301, 401, path());
    for params in [&old, &new] {
        install(&mut sad, params);
        sad.switch_out(params, &keys()).unwrap();
    }
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "child 2");
    sad.remove_out(new.id);
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "child 1");
    // What came first and sends last is the newest.
    let early = testing::child(0, &connection, 299, 399, path());
    install(&mut sad, &early);
    sad.switch_out(&early, &keys()).unwrap();
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "child 0");
}

#[test]
fn keys_begin_to_seal_once() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let params = testing::child(1, &connection, 300, 400, path());
    install(&mut sad, &params);
    sad.switch_out(&params, &keys()).unwrap();
    let sa = |sad: &Sad| {
        let sending = sad.children[&params.id].outbound.as_ref();
        sending.map(|outbound| Arc::clone(&outbound.sa))
    };
    let before = sa(&sad).unwrap();
    let _one = before.reserve(1, 100).unwrap();
    assert!(sad.switch_out(&params, &keys()).is_err());
    assert!(Arc::ptr_eq(&before, &sa(&sad).unwrap()));
    // Nor once it has stopped.
    sad.remove_out(params.id);
    assert!(sad.switch_out(&params, &keys()).is_err());
    assert!(sa(&sad).is_none());
}

#[test]
fn an_sa_over_its_hard_limit_springs_the_trap() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let mut params = testing::child(1, &connection, 300, 400, path());
    params.limits.hard_packets = Some(1);
    install(&mut sad, &params);
    sad.switch_out(&params, &keys()).unwrap();
    sad.install_trap(&connection, &connection.children[0]);
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "child 1");
    let sa = &sad.children[&params.id].outbound.as_ref().unwrap().sa;
    let _one = sa.reserve(1, 100).unwrap();
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "trap net");
    sad.remove_trap("a", "net");
    assert_eq!(verdict(&mut sad, "10.2.0.1"), "nobody");
}

#[test]
fn the_narrower_policy_comes_first() {
    let connection = testing::connection("server", "0.0.0.0/0", "0.0.0.0/0");
    let mut sad = sad_with_device("server");
    for (id, spi, remote) in [
        (1, 300, "10.9.0.2/32"),
        (2, 301, "10.9.0.3/32"),
        (3, 302, "10.9.0.0/24"),
    ] {
        let mut params = testing::child(id, &connection, spi, spi, path());
        params.remote_ts = vec![testing::prefix(remote)];
        install(&mut sad, &params);
        sad.switch_out(&params, &keys()).unwrap();
    }
    assert_eq!(verdict(&mut sad, "10.9.0.2"), "child 1");
    assert_eq!(verdict(&mut sad, "10.9.0.3"), "child 2");
    assert_eq!(verdict(&mut sad, "10.9.0.4"), "child 3");
    assert_eq!(verdict(&mut sad, "10.8.0.4"), "no policy");
}

#[test]
fn another_path_keeps_the_sa() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let params = testing::child(1, &connection, 300, 400, path());
    install(&mut sad, &params);
    sad.switch_out(&params, &keys()).unwrap();
    let before = Arc::clone(&sad.tables().inbound[&300]);
    sad.update_path(params.id, testing::road(PATH.0, "203.0.113.9:1024"));
    let tables = sad.tables();
    let after = &tables.inbound[&300];
    assert!(Arc::ptr_eq(&before.sa, &after.sa));
    assert_eq!(after.path.remote.to_string(), "203.0.113.9:1024");
    let Verdict::Seal(outlet) = tables.outbound[&0]
        .spd
        .lookup_flow(&flow("10.1.0.1", "10.2.0.1"))
    else {
        panic!("no SA");
    };
    assert_eq!(outlet.path.road.path.remote, after.path.remote);
}

#[test]
fn a_tunnel_without_a_device_is_refused() {
    let connection = testing::connection("b", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let params = testing::child(1, &connection, 300, 400, path());
    let road = testing::road(PATH.0, PATH.1);
    let refused = sad
        .install_in(Arc::new(params.clone()), &keys(), road)
        .unwrap_err();
    assert!(refused.contains("\"b\" has no TUN device"), "{refused}");
    assert!(sad.switch_out(&params, &keys()).is_err());
}

#[test]
fn a_replaced_device_is_let_go_with_its_keys() {
    let connection = testing::connection("a", "10.1.0.0/24", "10.2.0.0/24");
    let mut sad = sad_with_device("a");
    let params = testing::child(1, &connection, 300, 400, path());
    install(&mut sad, &params);
    sad.switch_out(&params, &keys()).unwrap();
    let old = Arc::downgrade(&sad.tables().outbound[&0].device);
    let sa = Arc::downgrade(&sad.children[&params.id].outbound.as_ref().unwrap().sa);

    let join = JoinConfig {
        tcp: true,
        udp: true,
    };
    let device = Device::new("a".into(), "tun1".into(), vec![], join);
    let (place, replaced) = sad.add_device(Arc::new(device));
    assert_eq!(replaced.unwrap().name, "tun0");
    let tables = sad.tables();
    assert_eq!(tables.outbound.keys().collect::<Vec<_>>(), [&place]);
    assert_eq!(tables.inbound[&300].device.name, "tun1");
    assert!(old.upgrade().is_none(), "somebody holds its queues");
    drop(tables);

    // A Child SA that ends takes its keys with it.
    sad.remove_out(params.id);
    sad.tables();
    assert!(sa.upgrade().is_none(), "somebody holds its keys");
}

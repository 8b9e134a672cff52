//! What was ordered is in force when it has to be, and what belongs together is one change.

use cygnet_crypto::Secret;
use cygnet_ike::io::ChildSaParameters;

use super::testing::{child, connection, path, udp_packet};
use super::tests::{End, LEFT, RIGHT, end, pair};
use super::*;

/// A Child SA of right's, whose peer is at left.
fn params(number: u64, left: &End, right: &End) -> ChildSaParameters {
    let connection = connection("tunnel", "10.2.0.0/24", "10.1.0.0/24");
    let way = path(right.local, left.local);
    let spi = u32::try_from(number).unwrap() + 0x3000;
    child(number, &connection, spi, spi, way)
}

fn both_directions(params: ChildSaParameters) -> [DataCommand; 2] {
    let keys = || Secret::new(vec![1; params.suite.key_material_len()]);
    let child = Arc::new(params.clone());
    let install = DataCommand::InstallIn {
        id: AskId(1),
        child: Arc::clone(&child),
        keys: keys(),
    };
    let switch = DataCommand::SwitchOut {
        id: AskId(2),
        child,
        keys: keys(),
    };
    [install, switch]
}

#[test]
fn what_is_ordered_together_is_one_change() {
    let (left, mut right) = (end(), end());
    let published = |end: &End| end.datapath.shared.published.number();
    let before = published(&right);
    let many = 2..=100;
    for number in many.clone() {
        for command in both_directions(params(number, &left, &right)) {
            right.datapath.order(command);
        }
    }
    // What receives does so at once.
    assert_eq!(published(&right), before + 99);
    right.datapath.publish();
    assert_eq!(published(&right), before + 100);
    right.datapath.publish();
    assert_eq!(published(&right), before + 100, "nothing was ordered");

    // All follow to another port, and all end.
    let mut aside = path(right.local, left.local);
    aside.remote.set_port(9);
    for number in many.clone() {
        let child = ChildSaId(number);
        let path = aside;
        right
            .datapath
            .order(DataCommand::UpdatePath { child, path });
    }
    right.datapath.publish();
    assert_eq!(published(&right), before + 101);
    for number in many {
        let child = ChildSaId(number);
        right.datapath.order(DataCommand::RemoveOut { child });
        right.datapath.order(DataCommand::RemoveIn { child });
    }
    right.datapath.publish();
    assert_eq!(published(&right), before + 102);
}

/// As after a rekey: the successor sends, its peer is told to delete the old one, and that sends no more.
#[test]
fn a_message_leaves_when_what_it_tells_of_is_in_force() {
    let (mut left, mut right) = pair();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    let packet = udp_packet(LEFT, RIGHT, true, b"one");
    assert_eq!(left.datapath.reach_changes().len(), 1);
    left.datapath.transmit(Transmit {
        path: path(left.local, peer.local_addr().unwrap()),
        datagram: b"DELETE".to_vec(),
        whole: false,
    });
    let child = ChildSaId(1);
    left.datapath.order(DataCommand::RemoveOut { child });
    left.send(&packet);
    assert_eq!(right.receive(), packet);
    let mut buffer = [0; 100];
    assert!(
        peer.recv(&mut buffer).is_err(),
        "it told of what was not so"
    );
    left.datapath.send_messages();
    peer.set_nonblocking(false).unwrap();
    assert_eq!(peer.recv(&mut buffer).unwrap(), 4 + 6);
    left.send(&packet);
    assert_eq!(left.drops("no-policy"), 1);
    // The supervisor hears of it, too.
    let changes = left.datapath.reach_changes();
    let [ToSupervisor::Reach { remote, .. }] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert!(remote.is_empty());
}

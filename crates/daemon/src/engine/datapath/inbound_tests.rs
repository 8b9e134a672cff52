//! What comes in, told apart, and written in order.

use std::sync::Arc;

use cygnet_crypto::Secret;
use cygnet_ike::io::{Answer, AskId, ChildSaId, DataCommand};

use super::*;
use crate::engine::datapath::testing::{child, connection, path, udp_packet};
use crate::engine::datapath::tests::{LEFT, RIGHT, connect, end, end_that_notes_times, pair};

/// A worker looks a Child SA up in tables that were made before it was installed, and finds a moment later that it is.
#[test]
fn what_others_know_is_written_behind_what_came_before_it() {
    let (mut left, mut right) = pair();
    let catcher = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut reader = Reader::default();
    let shared = Arc::clone(&right.datapath.shared);
    let stale = reader.current(&shared.published).clone();
    let Some((_, Answer::Spi(Ok(spi)))) =
        right.datapath.obey(DataCommand::AllocSpi { id: AskId(3) })
    else {
        panic!("no SPI");
    };
    let keys = |params: &cygnet_ike::io::ChildSaParameters| {
        Secret::new(vec![7; params.suite.key_material_len()])
    };
    let aside = path(left.local, catcher.local_addr().unwrap());
    let there = child(
        2,
        &connection("tunnel", "10.1.0.0/24", "10.2.0.0/24"),
        0x3333,
        spi,
        aside,
    );
    let back = path(right.local, left.local);
    let here = child(
        2,
        &connection("tunnel", "10.2.0.0/24", "10.1.0.0/24"),
        spi,
        0x3333,
        back,
    );
    let install = |params: &cygnet_ike::io::ChildSaParameters| DataCommand::InstallIn {
        id: AskId(4),
        child: Arc::new(params.clone()),
        keys: keys(params),
    };

    let mut sealed = Vec::new();
    let first = DataCommand::UpdatePath {
        child: ChildSaId(1),
        path: aside,
    };
    left.datapath.obey(first);
    let packets = [1, 2].map(|number| udp_packet(LEFT, RIGHT, true, &[number; 100]));
    for packet in &packets {
        left.send(packet);
        let mut datagram = [0; 300];
        let len = catcher.recv(&mut datagram).unwrap();
        sealed.push(datagram[..len].to_vec());
        // The second leaves by the newer one.
        if sealed.len() == 1 {
            left.datapath.obey(install(&there));
            left.datapath.obey(DataCommand::SwitchOut {
                id: AskId(5),
                child: Arc::new(there.clone()),
                keys: keys(&there),
            });
        }
    }
    assert_eq!(sealed[1][..4], spi.to_be_bytes());
    right.datapath.obey(install(&here));
    let context = Context {
        shared: &shared,
        tables: &stale,
        turn: None,
        fragments: &Mutex::new(Fragments::new()),
        worker: 0,
    };
    let train = Train {
        path: back,
        outer: Ecn::of(0),
        natt: true,
        len: sealed[0].len() + sealed[1].len(),
        segment: sealed[0].len(),
        late: false,
    };
    Opener::new().open(&context, &train, &mut sealed.concat());
    for packet in packets {
        let mut buffer = [0; 300];
        let len = right.host.recv(&mut buffer).unwrap();
        assert_eq!(buffer[VirtioNetHeader::LEN..len], packet);
    }
}

#[test]
fn datagrams_are_told_apart() {
    assert_eq!(classify(true, &[0xff]), Kind::Keepalive);
    assert_eq!(classify(true, &[0, 0, 0, 0, 9]), Kind::Ike(4));
    assert_eq!(classify(true, &[0, 0, 0]), Kind::Short);
    assert_eq!(classify(true, &[]), Kind::Short);
    assert_eq!(classify(true, &[0xff, 0xff]), Kind::Short);
    assert_eq!(classify(true, &[0, 0, 1, 0, 0, 0, 0]), Kind::Short);
    let header = EspHeader { spi: 256, seq: 7 };
    assert_eq!(classify(true, &[0, 0, 1, 0, 0, 0, 0, 7]), Kind::Esp(header));
    // Without a marker everything is for IKE, which knows what to do with it.
    assert_eq!(classify(false, &[0, 0, 1, 0, 0, 0, 0, 7]), Kind::Ike(0));
    assert_eq!(classify(false, &[0xff]), Kind::Ike(0));
}

#[test]
fn the_lead_is_given_away_for_a_train_that_is_long_or_has_waited() {
    let (mut left, mut right) = pair();
    let socket = Arc::clone(&right.inbound.lane.socket);
    let lane = Arc::new(Lane::new(socket, 2));
    right.inbound = Inbound::new(Arc::clone(&right.datapath.shared), Arc::clone(&lane), 0);
    for number in 0..3 {
        left.send(&udp_packet(LEFT, RIGHT, true, &[number; 1000]));
        right.inbound.turn().unwrap();
        assert!(right.inbound.lead.is_some() && lane.lead.try_take().is_none());
    }
    let packets: Vec<_> = (0..40)
        .map(|number| udp_packet(LEFT, RIGHT, true, &[number; 1000]))
        .collect();
    left.send_burst(&packets);
    right.inbound.turn().unwrap();
    let next = lane.lead.try_take();
    assert!(right.inbound.lead.is_none() && next.is_some_and(|next| next.ticket == 4));

    let (mut left, mut right) = connect(end(), end_that_notes_times());
    let lane = Arc::new(Lane::new(Arc::clone(&right.inbound.lane.socket), 2));
    right.inbound = Inbound::new(Arc::clone(&right.datapath.shared), Arc::clone(&lane), 0);
    left.send(&udp_packet(LEFT, RIGHT, true, &[1; 1000]));
    std::thread::sleep(WAITED);
    right.inbound.turn().unwrap();
    assert!(right.inbound.lead.is_none() && lane.lead.try_take().is_some());
}

//! What devices and other servers of a LAN send to a gateway that lends addresses, and what routers say there.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use cygnet_dhcp::{Lookout, Mac, Message, MessageType, Server, Settings};
use cygnet_wire::ip::ndp::{RouterAdvertisement, is_router_solicitation};

use crate::input::Input;
use crate::seeds::Seed;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]).expect("a device's");
const RESERVED: Mac = Mac::new([2, 0, 0, 0, 1, 1]).expect("a device's");
const DEVICE: Mac = Mac::new([2, 0, 0, 0, 1, 9]).expect("a device's");

/// Lends four addresses.
fn settings() -> Settings {
    Settings {
        server: OWN,
        mac: MAC,
        network: "192.168.1.0/24".parse().expect("a network"),
        first: [192, 168, 1, 100].into(),
        last: [192, 168, 1, 103].into(),
        lease_time: Duration::from_secs(600),
        dns: vec![OWN],
        reservations: [(RESERVED, [192, 168, 1, 101].into())].into(),
        excluded: BTreeSet::new(),
    }
}

/// Datagrams, before each of which stand the seconds since the last one, in an octet, and its length in two.
pub fn dhcp(data: &[u8]) {
    let mut now = Duration::ZERO;
    let mut server = Server::new(settings(), &[], now);
    let mut lookout = Lookout::new(OWN, MAC, now);
    let mut input = Input(data);
    while !input.is_empty() {
        now += Duration::from_secs(input.u8().into());
        let datagram = input.bytes();
        router(datagram);
        lookout.handle_timeout(now, 7);
        let Ok(message) = Message::parse(datagram) else {
            continue;
        };
        let again = Message::parse(&message.emit());
        assert_eq!(again.as_ref(), Ok(&message), "what is read is written");
        lookout.handle_message(now, &message);
        let handled = server.handle_message(now, &message);
        if let Some(reply) = handled.reply {
            let near = settings().network.contains(&reply.destination);
            assert!(near || reply.destination.is_broadcast());
            assert_eq!(Message::parse(&reply.message.emit()), Ok(reply.message));
        }
        let records = server.records(now);
        let addresses: BTreeSet<Ipv4Addr> = records.iter().map(|r| r.address).collect();
        assert_eq!(addresses.len(), records.len());
        assert!(records.len() <= 4);
    }
    let kept = server.records(now);
    assert_eq!(Server::new(settings(), &kept, now).records(now), kept);
}

fn router(datagram: &[u8]) {
    let _ = is_router_solicitation(datagram);
}

/// A device that comes, renews, and goes; one that finds its address taken; another server; a router.
pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    let address: Ipv4Addr = [192, 168, 1, 102].into();
    let message = |kind, change: &dyn Fn(&mut Message)| {
        let mut message = Message::request(kind, DEVICE, 7);
        message.options.host_name = Some("phone".to_owned());
        message.options.client = Some(vec![1, 2, 0, 0, 0, 1, 9]);
        change(&mut message);
        message.emit()
    };
    let discover = message(MessageType::Discover, &|m| {
        m.options.requested = Some(address);
        m.options.wanted = vec![1, 3, 6];
    });
    let select = message(MessageType::Request, &|m| {
        m.options.requested = Some(address);
        m.options.server = Some(OWN);
    });
    let renew = message(MessageType::Request, &|m| m.ciaddr = address);
    let release = message(MessageType::Release, &|m| m.ciaddr = address);
    let decline = message(MessageType::Decline, &|m| {
        m.options.requested = Some(address);
        m.options.server = Some(OWN);
    });
    let inform = message(MessageType::Inform, &|m| m.ciaddr = address);
    let offer = message(MessageType::Offer, &|m| {
        m.reply = true;
        m.mac = MAC;
        m.options.server = Some([192, 168, 1, 1].into());
    });
    let router = RouterAdvertisement {
        lifetime_s: 1800,
        source: Some(DEVICE.octets()),
        dns: vec![std::net::Ipv6Addr::LOCALHOST],
        dns_lifetime_s: 600,
        ..RouterAdvertisement::default()
    }
    .emit();
    for (name, datagrams) in [
        (
            "comes_and_goes",
            vec![&discover, &select, &renew, &inform, &release],
        ),
        ("declines", vec![&discover, &select, &decline, &discover]),
        ("another_server", vec![&discover, &offer]),
        ("router", vec![&router]),
    ] {
        let mut input = Vec::new();
        for datagram in datagrams {
            let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            input.push(1);
            input.extend_from_slice(&length.to_be_bytes());
            input.extend_from_slice(datagram);
        }
        seeds.push(("dhcp", name.into(), input));
    }
}

use super::*;

const HOUR: u64 = 3600;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 1, last]).unwrap()
}

/// Lends 100 to `last`; mac(200) has 10, mac(201) has 101.
fn settings(last: u8) -> Settings {
    Settings {
        server: ip(2),
        mac: mac(2),
        network: "192.168.1.0/24".parse().unwrap(),
        first: ip(100),
        last: ip(last),
        lease_time: at(HOUR),
        dns: vec![ip(2)],
        reservations: [(mac(200), ip(10)), (mac(201), ip(101))].into(),
        excluded: [ip(1), ip(102)].into(),
    }
}

fn server(last: u8) -> Server {
    Server::new(settings(last), &[], at(0))
}

fn ask(kind: MessageType, who: u8) -> Message {
    Message::request(kind, mac(who), 7)
}

/// DISCOVER; the address offered.
fn offered(server: &mut Server, now: u64, who: u8) -> Option<Ipv4Addr> {
    let handled = server.handle_message(at(now), &ask(MessageType::Discover, who));
    let reply = handled.reply?;
    assert_eq!(reply.message.kind, MessageType::Offer);
    Some(reply.message.yiaddr)
}

fn select(who: u8, address: Ipv4Addr) -> Message {
    let mut request = ask(MessageType::Request, who);
    request.options.server = Some(ip(2));
    request.options.requested = Some(address);
    request
}

/// DISCOVER and REQUEST; the address lent.
fn lent(server: &mut Server, now: u64, who: u8) -> Option<Ipv4Addr> {
    let address = offered(server, now, who)?;
    let handled = server.handle_message(at(now), &select(who, address));
    assert_eq!(handled.event, Some(Event::Changed));
    let ack = handled.reply.unwrap();
    assert_eq!(ack.destination, Ipv4Addr::BROADCAST);
    assert_eq!(ack.message.kind, MessageType::Ack);
    assert_eq!(ack.message.yiaddr, address);
    Some(address)
}

fn renewed(server: &mut Server, now: u64, who: u8, address: Ipv4Addr) -> MessageType {
    let mut request = ask(MessageType::Request, who);
    request.ciaddr = address;
    let reply = server.handle_message(at(now), &request).reply.unwrap();
    let expected = match reply.message.kind {
        MessageType::Ack => address,
        _ => Ipv4Addr::BROADCAST,
    };
    assert_eq!(reply.destination, expected);
    reply.message.kind
}

#[test]
fn an_answer_says_all_that_a_device_needs() {
    let mut server = server(150);
    let mut discover = ask(MessageType::Discover, 9);
    discover.options.client = Some(vec![0, 9, 9]);
    discover.broadcast = false;
    let offer = server.handle_message(at(0), &discover).reply.unwrap();
    assert_eq!(offer.destination, Ipv4Addr::BROADCAST);
    let options = &offer.message.options;
    assert!(offer.message.reply);
    assert_eq!(offer.message.xid, 7);
    assert_eq!(options.server, Some(ip(2)));
    assert_eq!(options.mask, Some([255, 255, 255, 0].into()));
    assert_eq!(options.routers, [ip(2)]);
    assert_eq!(options.dns, [ip(2)]);
    assert_eq!(options.broadcast, Some(ip(255)));
    assert_eq!(options.lease_time, Some(3600));
    assert_eq!(options.renewal, Some(1800));
    assert_eq!(options.rebinding, Some(3150));
    assert_eq!(options.client, Some(vec![0, 9, 9]));
    let again = Message::parse(&offer.message.emit());
    assert_eq!(again, Ok(offer.message));
}

#[test]
fn a_client_gets_its_address_back_also_after_it_was_over() {
    let mut server = server(150);
    let address = lent(&mut server, 0, 9).unwrap();
    assert_eq!(offered(&mut server, 10, 9), Some(address));
    assert_eq!(renewed(&mut server, 1800, 9, address), MessageType::Ack);
    // Over, and others came meanwhile.
    for who in 20..40 {
        assert!(lent(&mut server, 10_000, who).is_some_and(|a| a != address));
    }
    assert_eq!(lent(&mut server, 10_001, 9), Some(address));
    let mut release = ask(MessageType::Release, 9);
    release.ciaddr = address;
    let handled = server.handle_message(at(10_002), &release);
    assert_eq!((handled.reply, handled.event), (None, Some(Event::Changed)));
    assert_eq!(lent(&mut server, 10_003, 9), Some(address));
    // The first choice is by the client, so that it is the same without anything kept.
    assert_eq!(offered(&mut self::server(150), 0, 9), Some(address));
}

#[test]
fn two_clients_have_two_addresses_until_there_are_none() {
    // 100 to 104: 101 is reserved, 102 excluded.
    let mut server = server(104);
    let mut seen: Vec<Ipv4Addr> = (1..=4)
        .filter_map(|who| lent(&mut server, 0, who + 20))
        .collect();
    seen.sort();
    assert_eq!(seen, [ip(100), ip(103), ip(104)]);
    let full = server.handle_message(at(1), &ask(MessageType::Discover, 9));
    assert_eq!((full.reply, full.event), (None, Some(Event::Full)));
    // Nor by asking for one outright.
    for last in [100, 101, 102, 103, 104, 105, 2, 1, 0, 255] {
        let handled = server.handle_message(at(1), &select(9, ip(last)));
        assert_eq!(handled.reply.unwrap().message.kind, MessageType::Nak);
    }
    let lent_at = |server: &Server, now| {
        let records = server.records(at(now));
        records.iter().filter(|r| r.remaining_s > 0).count()
    };
    assert_eq!(lent_at(&server, 1), 3);
    // When one is over it goes to who needs it, and who had it is told.
    let all_over = HOUR + 1;
    assert!(lent(&mut server, all_over, 9).is_some());
    assert_eq!(lent_at(&server, all_over), 1);
}

#[test]
fn a_reservation_is_the_devices_whatever_it_says_it_is() {
    let mut server = server(150);
    assert_eq!(lent(&mut server, 0, 200), Some(ip(10)));
    let mut discover = ask(MessageType::Discover, 200);
    discover.options.client = Some(vec![0, 1, 2, 3]);
    discover.options.requested = Some(ip(120));
    let offer = server.handle_message(at(1), &discover).reply.unwrap();
    assert_eq!(offer.message.yiaddr, ip(10));
    // One who has another address, of the time before the reservation, is told to ask again.
    assert_eq!(renewed(&mut server, 2, 201, ip(130)), MessageType::Nak);
    assert_eq!(renewed(&mut server, 2, 9, ip(101)), MessageType::Nak);
    assert_eq!(lent(&mut server, 3, 201), Some(ip(101)));
}

#[test]
fn an_address_that_the_router_lent_before_is_kept_if_it_is_good() {
    let mut server = server(150);
    assert_eq!(renewed(&mut server, 0, 9, ip(120)), MessageType::Ack);
    assert_eq!(renewed(&mut server, 0, 10, ip(120)), MessageType::Nak);
    assert_eq!(renewed(&mut server, 0, 10, ip(151)), MessageType::Nak);
    assert_eq!(
        renewed(&mut server, 0, 10, [10, 0, 0, 7].into()),
        MessageType::Nak
    );
    let mut reboot = ask(MessageType::Request, 11);
    reboot.options.requested = Some(ip(121));
    let reply = server.handle_message(at(0), &reboot).reply.unwrap();
    assert_eq!(reply.message.kind, MessageType::Ack);
    assert_eq!(reply.destination, Ipv4Addr::BROADCAST);
}

#[test]
fn an_address_that_somebody_else_has_is_avoided_for_a_while() {
    let mut server = server(150);
    let address = lent(&mut server, 0, 9).unwrap();
    let mut decline = ask(MessageType::Decline, 9);
    decline.options.requested = Some(address);
    // Not to another server, and not by somebody else.
    assert_eq!(server.handle_message(at(1), &decline).event, None);
    decline.options.server = Some(ip(2));
    let mut foreign = decline.clone();
    foreign.mac = mac(10);
    assert_eq!(server.handle_message(at(1), &foreign).event, None);
    let handled = server.handle_message(at(1), &decline);
    assert_eq!(handled.event, Some(Event::Changed));
    let other = lent(&mut server, 2, 9).unwrap();
    assert_ne!(other, address);
    let mut wish = ask(MessageType::Discover, 10);
    wish.options.requested = Some(address);
    let mut wished = |now| {
        let reply = server.handle_message(at(now), &wish).reply.unwrap();
        reply.message.yiaddr
    };
    assert_ne!(wished(3), address);
    assert_eq!(wished(700), address);
}

#[test]
fn whoever_declines_all_addresses_takes_few_away() {
    let mut server = server(139);
    for now in 0..400 {
        let address = lent(&mut server, now, 9).unwrap();
        let mut decline = ask(MessageType::Decline, 9);
        decline.options.server = Some(ip(2));
        decline.options.requested = Some(address);
        server.handle_message(at(now), &decline);
    }
    let served = (20..46).filter(|who| lent(&mut server, 400, *who).is_some());
    assert_eq!(served.count(), 26);
}

#[test]
fn a_flood_of_strangers_takes_no_address_that_is_lent() {
    let mut server = server(199);
    let known: Vec<(u8, Ipv4Addr)> = (10..40)
        .map(|who| (who, lent(&mut server, 0, who).unwrap()))
        .collect();
    for n in 0..5_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let stranger = Mac::new([2, 9, 9, 9, high, low]).unwrap();
        let discover = Message::request(MessageType::Discover, stranger, n);
        let handled = server.handle_message(at(100), &discover);
        if let Some(offer) = handled.reply {
            let mut request = Message::request(MessageType::Request, stranger, n);
            request.options.server = Some(ip(2));
            request.options.requested = Some(offer.message.yiaddr);
            server.handle_message(at(100), &request);
        }
    }
    assert_eq!(server.records(at(100)).len(), 98);
    for (who, address) in known {
        assert_eq!(renewed(&mut server, 101, who, address), MessageType::Ack);
        assert_eq!(offered(&mut server, 102, who), Some(address));
    }
    assert_eq!(lent(&mut server, 102, 200), Some(ip(10)));
}

#[test]
fn offers_that_nobody_takes_keep_nobody_out() {
    let mut server = server(199);
    for n in 0..5_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let discover = Message::request(
            MessageType::Discover,
            Mac::new([2, 9, 9, 9, high, low]).unwrap(),
            n,
        );
        server.handle_message(at(0), &discover);
    }
    assert!(lent(&mut server, 0, 9).is_some());
    assert_eq!(server.records(at(0)).len(), 1);
}

#[test]
fn a_restart_keeps_leases_and_their_ends() {
    let mut before = server(150);
    let mut discover = ask(MessageType::Discover, 9);
    discover.options.client = Some(vec![0, 9, 9]);
    let address = before.handle_message(at(5), &discover).reply.unwrap();
    let address = address.message.yiaddr;
    let mut request = select(9, address);
    request.options.client = Some(vec![0, 9, 9]);
    request.options.host_name = Some("phone".to_owned());
    before.handle_message(at(5), &request);
    lent(&mut before, 5, 10);
    let kept = before.records(at(1005));
    assert_eq!(kept.len(), 2);
    let phone = kept.iter().find(|record| record.mac == mac(9)).unwrap();
    assert_eq!(phone.remaining_s, 2600);
    assert_eq!(phone.name.as_deref(), Some("phone"));
    // Time begins again.
    let mut after = Server::new(settings(150), &kept, at(0));
    assert_eq!(after.records(at(0)), kept);
    assert_eq!(
        after
            .handle_message(at(1), &discover)
            .reply
            .unwrap()
            .message
            .yiaddr,
        address
    );
    let mut theft = select(11, address);
    theft.options.client = None;
    for (now, kind) in [(2599, MessageType::Nak), (2700, MessageType::Ack)] {
        let reply = after.handle_message(at(now), &theft).reply.unwrap();
        assert_eq!(reply.message.kind, kind, "{now}");
    }
}

#[test]
fn what_was_kept_and_cannot_be_so_is_left_out() {
    let record = |last: u8, who: u8| Record {
        address: ip(last),
        mac: mac(who),
        client: None,
        name: None,
        remaining_s: u64::MAX,
    };
    let mut named = record(120, 12);
    named.name = Some("a\nb".to_owned());
    let kept = [
        record(100, 9),
        record(100, 10),
        record(103, 9),
        record(2, 11),
        record(102, 13),
        record(101, 14),
        record(200, 15),
        named,
        record(121, 201),
    ];
    let server = Server::new(settings(150), &kept, at(0));
    let records = server.records(at(0));
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].address, records[0].mac), (ip(100), mac(9)));
    // No longer than this server lends.
    assert_eq!(records[0].remaining_s, 3600);
    assert_eq!(records[1].address, ip(121));
}

#[test]
fn what_is_not_for_this_server_changes_nothing() {
    let mut server = server(150);
    let good = ask(MessageType::Discover, 9);
    let mut all = vec![good.clone(); 3];
    all[0].reply = true;
    all[1].giaddr = ip(1);
    all[2].mac = mac(2);
    all.extend([MessageType::Offer, MessageType::Ack, MessageType::Nak].map(|kind| ask(kind, 9)));
    // Neither an address nor one that is wished for.
    all.push(ask(MessageType::Request, 9));
    // The answer would leave the LAN.
    let mut inform = ask(MessageType::Inform, 9);
    inform.ciaddr = [203, 0, 113, 5].into();
    all.push(inform.clone());
    for message in all {
        assert_eq!(server.handle_message(at(0), &message), Handled::default());
    }
    inform.ciaddr = ip(50);
    let reply = server.handle_message(at(0), &inform).reply.unwrap();
    assert_eq!(reply.destination, ip(50));
    assert_eq!(reply.message.options.lease_time, None);
    assert_eq!(reply.message.options.routers, [ip(2)]);
}

#[test]
fn a_client_that_chose_another_server_is_told_of() {
    let mut server = server(150);
    let address = offered(&mut server, 0, 9).unwrap();
    let mut elsewhere = select(9, address);
    elsewhere.options.server = Some(ip(1));
    let handled = server.handle_message(at(0), &elsewhere);
    assert_eq!(handled.reply, None);
    assert_eq!(handled.event, Some(Event::Elsewhere { server: ip(1) }));
    // The offer is gone with it.
    let mut wish = ask(MessageType::Discover, 10);
    wish.options.requested = Some(address);
    let reply = server.handle_message(at(0), &wish).reply.unwrap();
    assert_eq!(reply.message.yiaddr, address);
}

#[test]
fn a_name_is_kept_until_there_is_another() {
    let mut server = server(150);
    let address = offered(&mut server, 0, 9).unwrap();
    for (said, kept) in [
        (Some("phone"), Some("phone")),
        (None, Some("phone")),
        (Some("tablet"), Some("tablet")),
    ] {
        let mut request = select(9, address);
        request.options.host_name = said.map(str::to_owned);
        server.handle_message(at(0), &request);
        assert_eq!(server.records(at(0))[0].name.as_deref(), kept);
    }
    // Whoever is lent the address later has a name of its own.
    let over = HOUR + 1;
    server.handle_message(at(over), &select(10, address));
    let records = server.records(at(over));
    assert_eq!(
        (records[0].mac, records[0].name.as_deref()),
        (mac(10), None)
    );
}

#[test]
fn a_shorter_lease_is_given_a_longer_one_is_not() {
    let mut server = server(150);
    for (wished, given) in [(600, 600), (1, 60), (u32::MAX, 3600)] {
        let mut discover = ask(MessageType::Discover, 9);
        discover.options.lease_time = Some(wished);
        let reply = server.handle_message(at(0), &discover).reply.unwrap();
        assert_eq!(reply.message.options.lease_time, Some(given));
    }
}

/// What is lent is chosen without a look at each address, and is what such a look would choose.
#[test]
fn of_a_full_range_the_longest_over_is_lent_again() {
    let mut server = server(110);
    let mut got = Vec::new();
    while let Some(address) = lent(&mut server, 2 * got.len() as u64, 11 + got.len() as u8) {
        got.push(address);
    }
    // 101 is reserved, 102 is the router's.
    assert_eq!(got.len(), 9);
    assert!(!got.contains(&ip(101)) && !got.contains(&ip(102)));
    assert_eq!(offered(&mut server, HOUR - 1, 50), None);
    // All are over; the first one is renewed.
    let mut renew = ask(MessageType::Request, 11);
    renew.ciaddr = got[0];
    assert!(server.handle_message(at(2 * HOUR), &renew).reply.is_some());
    assert_eq!(lent(&mut server, 2 * HOUR + 1, 50), Some(got[1]));
    assert_eq!(offered(&mut server, 2 * HOUR + 2, 51), Some(got[2]));
    // Offered to somebody it is nobody else's.
    assert_eq!(offered(&mut server, 2 * HOUR + 3, 52), Some(got[3]));
    // One that is given back is over for the shortest time.
    let mut release = ask(MessageType::Release, 50);
    release.ciaddr = got[1];
    assert!(
        server
            .handle_message(at(2 * HOUR + 4), &release)
            .event
            .is_some()
    );
    for (who, next) in (53..).zip([4, 5, 6, 7, 8, 1]) {
        assert_eq!(offered(&mut server, 2 * HOUR + 5, who), Some(got[next]));
    }
    assert_eq!(offered(&mut server, 2 * HOUR + 5, 60), None);
}

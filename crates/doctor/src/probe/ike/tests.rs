use std::collections::BTreeMap;

use cygnet_crypto::SystemRandom;
use cygnet_ike::proposal::default_ike;
use cygnet_linux::UdpOptions;
use cygnet_wire::notify::NotifyPayload;

use super::*;

const SPI: Spi = Spi(0x1122_3344_5566_7788);

/// How a server takes a message: its version, what it says then.
type Says = BTreeMap<u8, Vec<NotifyType>>;

/// A server on loopback with one port: it answers datagrams up to `most` octets. A `None` in place of an answer is an
/// SA payload, what is accepted.
fn server(marker: bool, most: usize, says: Says) -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(message) = buffer.get(if marker { 4 } else { 0 }..length) else {
                continue;
            };
            let (mut header, ..) = IkeHeader::parse(message).unwrap();
            let Some(says) = says.get(&header.version.major()) else {
                continue;
            };
            if length > most {
                continue;
            }
            header.flags = Flags::new(false, true);
            header.version = Version::V2_0;
            let offered = Message::parse(message).ok();
            let mut builder = MessageBuilder::new(header);
            if let (true, Some(offered)) = (says.is_empty(), offered) {
                let sa = offered.find(PayloadType::SA).unwrap().unwrap();
                builder.push(sa.parse().unwrap());
            }
            for ty in says {
                builder.push(NotifyPayload::with_data(*ty, &[][..]));
            }
            let answer = builder.finish().unwrap();
            let mut stranger = answer.clone();
            stranger[0] ^= 1;
            for answer in [&stranger, &answer[..20].to_vec(), &answer] {
                let marker: &[u8] = if marker { &NON_ESP_MARKER } else { &[] };
                // Who has heard enough is gone.
                let _ = socket.send_to(&[marker, answer.as_slice()].concat(), from);
            }
        }
    });
    port
}

fn found(ports: Vec<(u16, bool)>, size: u16) -> Found {
    found_while(false, ports, size)
}

fn found_while(is_up: bool, ports: Vec<(u16, bool)>, size: u16) -> Found {
    let options = UdpOptions {
        gro: false,
        ..UdpOptions::new("127.0.0.1:0".parse().unwrap())
    };
    let socket = UdpSocket::bind(&options).unwrap().into_fd();
    let server = "127.0.0.1:500".parse().unwrap();
    let call = call(&default_ike(), SPI, server, &mut SystemRandom).unwrap();
    let errand = Errand {
        server: "127.0.0.1".parse().unwrap(),
        ports,
        call: hex(&call),
        is_up,
        spi: SPI.0,
        size,
    };
    let text = serde_json::to_string(&errand).unwrap();
    run(&serde_json::from_str(&text).unwrap(), socket).unwrap()
}

fn says(two: &[NotifyType], three: &[NotifyType]) -> Says {
    [(2, two.to_vec()), (3, three.to_vec())].into()
}

const VERSION: [NotifyType; 1] = [NotifyType::INVALID_MAJOR_VERSION];

#[test]
fn the_call_is_what_a_tunnel_would_send() {
    let server = "127.0.0.1:500".parse().unwrap();
    let call = call(&default_ike(), SPI, server, &mut SystemRandom).unwrap();
    let message = Message::parse(&call).unwrap();
    assert_eq!(message.header, header(SPI, Version::V2_0));
    let payloads = message.parse_payloads().unwrap();
    let kinds: Vec<PayloadType> = payloads.iter().map(Payload::ty).collect();
    assert_eq!(
        kinds,
        [
            PayloadType::SA,
            PayloadType::KE,
            PayloadType::NONCE,
            PayloadType::NOTIFY,
            PayloadType::NOTIFY
        ]
    );
    let notifies = payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(notify) => Some(notify.ty),
        _ => None,
    });
    assert_eq!(
        notifies.collect::<Vec<_>>(),
        [
            NotifyType::NAT_DETECTION_SOURCE_IP,
            NotifyType::NAT_DETECTION_DESTINATION_IP
        ]
    );
    assert_eq!(unhex(&hex(&call)), Some(call));
    assert_eq!(unhex("0"), None);
    assert_eq!(unhex("0g"), None);
}

#[test]
fn a_server_that_answers_and_the_size_that_arrives() {
    let ports = || {
        let ike = server(false, 2000, says(&[], &VERSION));
        // 28 octets of headers are outside.
        (ike, server(true, 1372, says(&[], &VERSION)))
    };
    let (ike, natt) = ports();
    let all = found(vec![(ike, false), (natt, true)], 1400);
    let accepted = Outcome::Answered(Answer::Accepted);
    let version = Outcome::Answered(Answer::Version);
    assert_eq!(all.ports, [(ike, accepted), (natt, version)]);
    assert_eq!(all.mtu, Mtu::Passes(1400));
    let (ike, natt) = ports();
    let narrow = found(vec![(ike, false), (natt, true)], 1500);
    assert_eq!(narrow.mtu, Mtu::Narrow(1400));
}

#[test]
fn an_answer_that_comes_late_is_none_to_the_next_question() {
    let socket = UdpSocket::bind(&UdpOptions {
        gro: false,
        ..UdpOptions::new("127.0.0.1:0".parse().unwrap())
    });
    let way = Way {
        socket: &socket.unwrap(),
        server: "127.0.0.1:4500".parse().unwrap(),
        marker: false,
        spi: SPI,
    };
    let (small, large) = (of_no_version(SPI, 548), of_no_version(SPI, 1400));
    assert_eq!((small.message.len(), large.message.len()), (548, 1400));
    let mut header = header(small.spi, Version::V2_0);
    header.flags = Flags::new(false, true);
    let mut builder = MessageBuilder::new(header);
    builder.push(NotifyPayload::with_data(VERSION[0], &[][..]));
    let answer = builder.finish().unwrap();
    assert_eq!(way.read(small.spi, &answer), Some(Answer::Version));
    assert_eq!(way.read(large.spi, &answer), None);
}

#[test]
fn a_flood_does_not_hold_up_the_end() {
    let flood = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind(&UdpOptions {
        gro: false,
        ..UdpOptions::new("127.0.0.1:0".parse().unwrap())
    });
    let socket = socket.unwrap();
    let to = socket.local_addr();
    let way = Way {
        socket: &socket,
        server: flood.local_addr().unwrap(),
        marker: true,
        spi: SPI,
    };
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let flooding = std::thread::spawn(move || {
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _ = flood.send_to(&[0xff; 1200], to);
        }
    });
    let begun = Instant::now();
    let said = way.wait(SPI, begun + Duration::from_millis(200));
    drop(done);
    flooding.join().unwrap();
    assert_eq!(said, Outcome::Silent);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_a_server_refuses_is_told_apart() {
    let refuses = |ty| {
        let port = server(false, 2000, says(&[ty], &VERSION));
        let found = found(vec![(port, false)], 1400);
        found.ports[0].1
    };
    let expected = [
        (NotifyType::COOKIE, Answer::Accepted),
        (NotifyType::INVALID_KE_PAYLOAD, Answer::Accepted),
        (NotifyType::NO_PROPOSAL_CHOSEN, Answer::NoProposal),
        (NotifyType::TEMPORARY_FAILURE, Answer::Refused(43)),
    ];
    for (ty, answer) in expected {
        assert_eq!(refuses(ty), Outcome::Answered(answer));
    }
}

#[test]
fn nobody_there_and_a_server_that_keeps_silent_about_versions() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let quiet = server(true, 2000, [(2, Vec::new())].into());
    let found = found(vec![(port, false), (quiet, true)], 1400);
    let accepted = Outcome::Answered(Answer::Accepted);
    assert_eq!(found.ports, [(port, Outcome::Refused), (quiet, accepted)]);
    assert_eq!(found.mtu, Mtu::Unknown);
}

#[test]
fn who_is_up_with_a_server_does_not_call_it() {
    // What takes no offer is asked for none.
    let only_versions = server(false, 2000, [(3, VERSION.to_vec())].into());
    let found = found_while(true, vec![(only_versions, false)], 600);
    let answered = Outcome::Answered(Answer::Version);
    assert_eq!(found.ports, [(only_versions, answered)]);
    // One that keeps silent about versions is called all the same: it may be a blocked port.
    let silent = server(false, 2000, [(2, Vec::new())].into());
    let found = found_while(true, vec![(silent, false)], 600);
    let answered = Outcome::Answered(Answer::Accepted);
    assert_eq!(found.ports, [(silent, answered)]);
}

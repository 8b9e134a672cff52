//! TUN queues: super-packets, names, who may open one.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cygnet_linux::{Error, Netlink, Offloads, Transmit, Tun, TunOptions, UdpOptions, UdpSocket};

use crate::world::{Namespace, root};

/// What one direction of the wire saw.
#[derive(Debug, Default)]
struct Seen {
    largest: usize,
    tcp: bool,
    udp: bool,
}

fn host(world: &str, name: &str, number: u8) -> (Namespace, Tun) {
    let host = Namespace::new(world, name);
    let tun = host.block_on(|| async {
        let tun = Tun::open(&TunOptions::new("cyg%d")).unwrap().remove(0);
        let netlink = Netlink::connect().unwrap();
        let link = netlink.link(tun.name()).await.unwrap();
        netlink.set_link_up(link.index, 1400).await.unwrap();
        let shown = Command::new("ip")
            .args(["-o", "link", "show", "dev", tun.name()])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.contains("mtu 1400 ") && shown.contains(" qlen 1000"),
            "{shown}"
        );
        for net in [format!("10.7.0.{number}/24"), format!("fd07::{number}/64")] {
            netlink
                .add_address(link.index, net.parse().unwrap())
                .await
                .unwrap();
        }
        tun
    });
    assert_eq!(tun.name(), "cyg0");
    (host, tun)
}

fn copy(from: &Tun, to: &Tun, seen: &mut Seen, buf: &mut [u8]) {
    while let Ok(n) = from.read(buf) {
        let gso_type = buf[1] & 0x7f;
        seen.largest = seen.largest.max(n);
        seen.tcp |= gso_type == 1 || gso_type == 4;
        seen.udp |= gso_type == 5;
        to.writev(&[IoSlice::new(&buf[..10]), IoSlice::new(&buf[10..n])])
            .unwrap();
    }
}

#[test]
fn super_packets_come_out_of_one_and_go_into_the_other_whole() {
    if !root() {
        return;
    }
    let (left, left_tun) = host("tso", "left", 1);
    let (right, right_tun) = host("tso", "right", 2);
    assert!(left_tun.offloads().tso, "{:?}", left_tun.offloads());
    let stop = AtomicBool::new(false);
    let payload: Vec<u8> = (0..4_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let seen = std::thread::scope(|scope| {
        let wire = scope.spawn(|| {
            let mut seen = Seen::default();
            let mut buf = vec![0; 65_536 + 10];
            while !stop.load(Ordering::Relaxed) {
                copy(&left_tun, &right_tun, &mut seen, &mut buf);
                copy(&right_tun, &left_tun, &mut Seen::default(), &mut buf);
                std::thread::sleep(Duration::from_micros(50));
            }
            seen
        });
        for address in ["10.7.0.2:80", "[fd07::2]:80"] {
            let address: SocketAddr = address.parse().unwrap();
            let listener = right.run(|| TcpListener::bind(address).unwrap());
            let (left, payload) = (&left, &payload);
            let sender = scope.spawn(move || {
                let mut stream = left.run(|| TcpStream::connect(address).unwrap());
                stream.write_all(payload).unwrap();
            });
            let mut received = Vec::new();
            listener
                .accept()
                .unwrap()
                .0
                .read_to_end(&mut received)
                .unwrap();
            sender.join().unwrap();
            assert!(
                received == *payload,
                "{address}: {} bytes differ",
                received.len()
            );
        }
        let options = |local: &str| UdpOptions::new(local.parse().unwrap());
        let from = left.run(|| UdpSocket::bind(&options("0.0.0.0:0")).unwrap());
        let to = right.run(|| UdpSocket::bind(&options("0.0.0.0:4500")).unwrap());
        from.send(&Transmit {
            destination: "10.7.0.2:4500".parse().unwrap(),
            source: None,
            interface: 0,
            tos: 0,
            segment: Some(1000),
            parts: &[IoSlice::new(&payload[..9_500])],
        })
        .unwrap();
        let mut received = Vec::new();
        let mut buf = vec![0; 65_535];
        let deadline = Instant::now() + Duration::from_secs(5);
        while received.len() < 9_500 && Instant::now() < deadline {
            match to.recv(&mut buf) {
                Ok(got) => received.extend_from_slice(&buf[..got.len]),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(received == payload[..9_500]);
        stop.store(true, Ordering::Relaxed);
        wire.join().unwrap()
    });
    assert!(seen.tcp && seen.largest > 1400 + 10, "{seen:?}");
    assert_eq!(seen.udp, left_tun.offloads().uso, "{seen:?}");
}

/// A UDP packet over IPv4 without checksum.
fn datagram(from: [u8; 4], to: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0; 10];
    packet.extend([0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let words = packet[10..]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[20..22].copy_from_slice(&sum.to_be_bytes());
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend([0, 9, 0, 0, b'x']);
    packet
}

#[test]
fn what_the_writer_writes_steers_no_flow() {
    if !root() {
        return;
    }
    const FLOWS: u16 = 24;
    let host = Namespace::new("steer", "a");
    host.block_on(|| async {
        let options = TunOptions {
            queues: 2,
            ..TunOptions::new("cyg0")
        };
        let queues = Tun::open(&options).unwrap();
        let writer = Tun::open_writer(&options, "cyg0").unwrap();
        let netlink = Netlink::connect().unwrap();
        let link = netlink.link("cyg0").await.unwrap();
        netlink.set_link_up(link.index, 1400).await.unwrap();
        let net = "10.7.0.1/24".parse().unwrap();
        netlink.add_address(link.index, net).await.unwrap();
        let sockets: Vec<_> = (0..FLOWS)
            .map(|_| std::net::UdpSocket::bind("10.7.0.1:0").unwrap())
            .collect();
        let port = |socket: &std::net::UdpSocket| socket.local_addr().unwrap().port();
        // The queue that each flow comes out of.
        let places = || -> Vec<usize> {
            let mut buf = [0; 2000];
            let place = |socket: &std::net::UdpSocket| {
                socket.send_to(b"x", "10.7.0.2:7").unwrap();
                let is_ours = |buf: &[u8]| buf[10 + 20..][..2] == port(socket).to_be_bytes();
                for _ in 0..1000 {
                    for (place, queue) in queues.iter().enumerate() {
                        // Others than ours are the host's own IPv6 chatter.
                        if queue.read(&mut buf).is_ok() && is_ours(&buf) {
                            return place;
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                panic!("a packet was lost");
            };
            sockets.iter().map(place).collect()
        };
        let answer_all = |queue: &Tun| {
            for socket in &sockets {
                let answer = datagram([10, 7, 0, 2], [10, 7, 0, 1], [7, port(socket)]);
                queue.writev(&[IoSlice::new(&answer)]).unwrap();
                let mut buf = [0; 10];
                socket.recv(&mut buf).unwrap();
            }
        };
        let by_hash = places();
        assert!(by_hash.contains(&0) && by_hash.contains(&1), "{by_hash:?}");
        answer_all(&writer);
        assert_eq!(places(), by_hash);
        // Whereas a queue that is read draws the flows to itself.
        answer_all(&queues[0]);
        assert_ne!(places(), by_hash);
    });
}

#[test]
fn several_queues_one_name_and_the_device_goes_with_the_last() {
    if !root() {
        return;
    }
    let host = Namespace::new("queues", "a");
    host.block_on(|| async {
        let options = TunOptions {
            queues: 3,
            ..TunOptions::new("many")
        };
        let mut queues = Tun::open(&options).unwrap();
        assert_eq!(queues.len(), 3);
        assert!(
            queues
                .iter()
                .all(|q| q.name() == "many" && q.has_vnet_header())
        );
        let taken = Tun::open(&TunOptions::new("many")).unwrap_err();
        assert!(
            matches!(taken, Error::TunBusy { .. } | Error::TunUnfit { .. }),
            "a single-queue open of a multi-queue device: {taken}"
        );
        // As the engine does with what the supervisor sent.
        let sent = queues.remove(0);
        let offloads = sent.offloads();
        let received = Tun::from_fd(sent.into_fd(), offloads).unwrap();
        assert_eq!(
            (received.name(), received.has_vnet_header()),
            ("many", true)
        );
        drop(queues);
        let netlink = Netlink::connect().unwrap();
        assert!(netlink.link("many").await.is_ok());
        drop(received);
        // A process that another test starts holds what is open here until its exec.
        for _ in 0..100 {
            if netlink.link("many").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(matches!(
            netlink.link("many").await,
            Err(Error::NoSuchInterface(_))
        ));
    });
}

#[test]
fn without_a_virtio_header_nothing_is_offloaded() {
    if !root() {
        return;
    }
    let host = Namespace::new("plain", "a");
    host.run(|| {
        let options = TunOptions {
            vnet_header: false,
            ..TunOptions::new("plain")
        };
        let tun = Tun::open(&options).unwrap().remove(0);
        assert_eq!(
            (tun.offloads(), tun.has_vnet_header()),
            (Offloads::NONE, false)
        );
        let busy = Tun::open(&options).unwrap_err();
        assert!(matches!(busy, Error::TunBusy { .. }), "{busy}");
        let less = TunOptions {
            offloads: Offloads {
                uso: false,
                ..Offloads::ALL
            },
            ..TunOptions::new("less")
        };
        let tun = Tun::open(&less).unwrap().remove(0);
        assert_eq!(tun.offloads(), less.offloads);
        assert_eq!(
            tun.read(&mut [0; 100]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    });
}

//! A network that the other side of a tunnel knows by other addresses: translated both ways, whoever begins, and in
//! what ICMP errors quote.

use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use cygnet_gateway::{Devices, Inputs, Mapping, NetworkPlan, Tunnel};
use cygnet_linux::Tun;
use ipnet::IpNet;

use crate::guard::lan;
use crate::plan::{answer, apply, next_udp, remove, tun};
use crate::world::{World, root};

/// Of each family: the laptop, and its name on the other side; the gateway's name there; a host there.
struct Hosts {
    laptop: IpAddr,
    laptop_shown: IpAddr,
    gateway_shown: IpAddr,
    far: IpAddr,
}

fn hosts() -> [Hosts; 2] {
    let hosts = |[laptop, laptop_shown, gateway_shown, far]: [&str; 4]| Hosts {
        laptop: laptop.parse().unwrap(),
        laptop_shown: laptop_shown.parse().unwrap(),
        gateway_shown: gateway_shown.parse().unwrap(),
        far: far.parse().unwrap(),
    };
    [
        hosts([
            "192.168.50.10",
            "10.201.50.10",
            "10.201.50.2",
            "10.202.50.7",
        ]),
        hosts(["fd00:50::10", "fdc9:50::10", "fdc9:50::2", "fdca:50::7"]),
    ]
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn site() -> NetworkPlan {
    let map = |own: &str, shown: &str| Mapping::new(net(own), net(shown)).unwrap();
    let remote = vec![net("10.202.50.0/24"), net("fdca:50::/64")];
    NetworkPlan::new(&Inputs {
        tunnels: vec![Tunnel {
            interface: "cyg0".parse().unwrap(),
            mtu: 1400,
            whole: 1400,
            client: false,
            on_demand: false,
            virtual_addresses: Vec::new(),
            remote: remote.clone(),
            reached: remote,
            source: vec![
                "192.168.50.2".parse().unwrap(),
                "fd00:50::2".parse().unwrap(),
            ],
            maps: vec![
                map("192.168.50.0/24", "10.201.50.0/24"),
                map("fd00:50::/64", "fdc9:50::/64"),
            ],
            endpoints: Vec::new(),
            own_traffic: true,
            carries_lan: true,
        }],
        local_networks: lan(Devices::default()).networks,
        uplink: Some("eth0".parse().unwrap()),
        ..Inputs::default()
    })
    .unwrap()
}

/// RFC 1071, over what is given one after the other, each of an even length but the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let sum = pairs.fold(0u32, |sum, pair| {
        sum + u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An IP packet whose payload gets its checksum at `at`.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let ends = [octets(from), octets(to)].concat();
    let pseudo = [&ends[..], &[0, 0], &length.to_be_bytes(), &[0, protocol]].concat();
    let pseudo = match protocol {
        1 => &[][..],
        _ => &pseudo,
    };
    let sum = checksum(&[pseudo, &payload]);
    payload[at..at + 2].copy_from_slice(&sum);
    let mut header = match from {
        IpAddr::V4(_) => {
            let total = (length + 20).to_be_bytes();
            vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0]
        }
        IpAddr::V6(_) => {
            let [high, low] = length.to_be_bytes();
            vec![0x60, 0, 0, 0, high, low, protocol, 64]
        }
    };
    header.extend(ends);
    if from.is_ipv4() {
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
    }
    header.extend(payload);
    header
}

fn udp(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    for number in [40_000, port, 13, 0] {
        payload.extend(number.to_be_bytes());
    }
    payload.extend(b"hello");
    packet(from, to, 17, payload, 6)
}

/// An ICMP message of `kind` and `code`, or ICMPv6 for IPv6.
fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    let payload = [&[kind, code, 0, 0, 0, 0, 0, 0][..], quoted].concat();
    packet(from, to, protocol, payload, 2)
}

/// Source and destination.
fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    match packet[0] >> 4 {
        4 => (v4(12), v4(16)),
        _ => (v6(8), v6(24)),
    }
}

/// The next error "no such port" out of the TUN.
fn next_port_unreachable(tun: &Tun) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut buf = [0; 2000];
    while Instant::now() < deadline {
        let Ok(n) = tun.read(&mut buf) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let packet = &buf[..n];
        let is_it = match packet[0] >> 4 {
            4 => packet[9] == 1 && packet[20..22] == [3, 3],
            _ => packet[6] == 58 && packet[40..42] == [1, 4],
        };
        if is_it {
            return packet.to_vec();
        }
    }
    panic!("no ICMP error came out of the TUN");
}

fn heard(socket: &UdpSocket) -> Option<(usize, IpAddr)> {
    let (length, from) = socket.recv_from(&mut [0; 100]).ok()?;
    Some((length, from.ip()))
}

#[test]
fn hosts_are_known_by_their_other_addresses_whoever_begins_and_in_errors_too() {
    if !root() {
        return;
    }
    let world = World::new("map");
    let before = world.gateway.state();
    let tun = tun(&world);
    apply(&world, &site());
    let any = ["0.0.0.0:0", "[::]:0"];
    for (hosts, any) in hosts().iter().zip(any) {
        let Hosts {
            laptop,
            laptop_shown,
            gateway_shown,
            far,
        } = *hosts;
        while tun.read(&mut [0; 2000]).is_ok() {}

        // A host's own first packet, its answer, and an error about it.
        let asking = world.laptop.udp(any);
        asking.connect(SocketAddr::new(far, 80)).unwrap();
        asking.send(b"request").unwrap();
        let (request, source, destination) = next_udp(&tun).expect("the request enters the TUN");
        assert_eq!((source, destination), (laptop_shown, far));
        answer(&tun, &request);
        assert_eq!(heard(&asking), Some((7, far)));
        let (kind, code) = if far.is_ipv4() { (3, 3) } else { (1, 4) };
        let error = icmp(far, laptop_shown, kind, code, &request);
        tun.writev(&[IoSlice::new(&error)]).unwrap();
        let refused = asking.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::ConnectionRefused,
            "{far}: the error is the host's"
        );

        // The other side begins, and is answered from the address that it asked.
        let service = world.laptop.udp(&SocketAddr::new(laptop, 1000).to_string());
        let call = udp(far, laptop_shown, 1000);
        tun.writev(&[IoSlice::new(&call)]).unwrap();
        assert_eq!(heard(&service), Some((5, far)));
        service
            .send_to(b"answer", SocketAddr::new(far, 40_000))
            .unwrap();
        let (_, source, destination) = next_udp(&tun).expect("the answer enters the TUN");
        assert_eq!((source, destination), (laptop_shown, far));

        // What is asked for and not there: the error comes from that address, and quotes it.
        let call = udp(far, laptop_shown, 1001);
        tun.writev(&[IoSlice::new(&call)]).unwrap();
        let error = next_port_unreachable(&tun);
        assert_eq!(ends(&error), (laptop_shown, far));
        let quoted = if far.is_ipv4() { 28 } else { 48 };
        assert_eq!(ends(&error[quoted..]), (far, laptop_shown), "quoted");

        // This machine itself is a host of that network.
        let own = world.gateway.udp(any);
        own.send_to(b"request", SocketAddr::new(far, 81)).unwrap();
        let (request, source, _) =
            next_udp(&tun).expect("this machine's own packet enters the TUN");
        assert_eq!(source, gateway_shown);
        answer(&tun, &request);
        assert_eq!(heard(&own), Some((7, far)));
        let unspecified = any.parse::<SocketAddr>().unwrap().ip();
        let service = world
            .gateway
            .udp(&SocketAddr::new(unspecified, 1002).to_string());
        let call = udp(far, gateway_shown, 1002);
        tun.writev(&[IoSlice::new(&call)]).unwrap();
        assert_eq!(heard(&service), Some((5, far)));

        // An answer that nobody asked for belongs to no flow: it is not translated, and goes nowhere.
        let (kind, code) = if far.is_ipv4() { (0, 0) } else { (129, 0) };
        let stray = icmp(far, laptop_shown, kind, code, b"stray");
        tun.writev(&[IoSlice::new(&stray)]).unwrap();
    }
    assert_eq!(world.canaries(), [10, 10], "the internet stays local");
    let table = world.gateway.sh("nft list table inet cygnet");
    for daddr in ["ip daddr 10.201.50.0/24", "ip6 daddr fdc9:50::/64"] {
        let rule = table
            .lines()
            .find(|line| line.contains(daddr) && line.contains("counter"));
        let rule = rule.unwrap_or_else(|| panic!("no rule drops {daddr}:\n{table}"));
        assert!(rule.contains("counter packets 1 "), "{rule}");
    }
    drop(tun);
    remove(&world);
    assert_eq!(world.gateway.state(), before);
}

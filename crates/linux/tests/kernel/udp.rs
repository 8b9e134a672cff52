//! UDP sockets on links with an MTU.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cygnet_linux::{
    PathErrorKind, Received, RouteProbe, SendError, Transmit, UdpOptions, UdpSocket,
};

use crate::world::{Namespace, root};

/// Two hosts and a router between them; the far link is narrower.
struct Line {
    near: Namespace,
    far: Namespace,
    _router: Namespace,
}

impl Line {
    fn new(world: &str) -> Self {
        let near = Namespace::new(world, "near");
        let router = Namespace::new(world, "router");
        let far = Namespace::new(world, "far");
        let name = |host: &str| format!("cyglx-{}-{world}-{host}", std::process::id());
        router.sh(&format!(
            "ip link add name n0 type veth peer name eth0 netns {}; \
             ip link add name f0 mtu 1400 type veth peer name eth0 mtu 1400 netns {}; \
             ip address add 10.8.1.1/24 dev n0; ip address add 10.8.2.1/24 dev f0; \
             ip address add fd08:1::1/64 dev n0 nodad; ip address add fd08:2::1/64 dev f0 nodad; \
             ip link set n0 up; ip link set f0 up; \
             echo 1 > /proc/sys/net/ipv4/conf/all/forwarding; \
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            name("near"),
            name("far")
        ));
        for (host, net) in [(&near, 1), (&far, 2)] {
            host.sh(&format!(
                "ip address add 10.8.{net}.2/24 dev eth0; \
                 ip address add fd08:{net}::2/64 dev eth0 nodad; ip link set eth0 up; \
                 ip route add default via 10.8.{net}.1; ip -6 route add default via fd08:{net}::1"
            ));
        }
        Self {
            near,
            far,
            _router: router,
        }
    }
}

fn bind(host: &Namespace, local: &str) -> UdpSocket {
    let options = UdpOptions::new(local.parse().unwrap());
    host.run(|| UdpSocket::bind(&options).unwrap())
}

fn transmit<'a>(
    destination: SocketAddr,
    segment: Option<u16>,
    parts: &'a [IoSlice<'a>],
) -> Transmit<'a> {
    Transmit {
        destination,
        source: None,
        interface: 0,
        tos: 0,
        segment,
        parts,
    }
}

fn recv(socket: &UdpSocket, buf: &mut [u8]) -> Option<Received> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if let Ok(got) = socket.recv(buf) {
            return Some(got);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

#[test]
fn a_batch_crosses_a_link_in_one_piece() {
    if !root() {
        return;
    }
    let line = Line::new("gso");
    for (local, far) in [
        ("0.0.0.0:4500", "10.8.2.2:4500"),
        ("[::]:4500", "[fd08:2::2]:4500"),
    ] {
        let (near, far_socket) = (bind(&line.near, local), bind(&line.far, local));
        let payload: Vec<u8> = (0..12_700u32).map(|n| (n % 251) as u8).collect();
        let parts = [IoSlice::new(&payload)];
        let destination: SocketAddr = far.parse().unwrap();
        near.send(&transmit(destination, Some(1200), &parts))
            .unwrap();
        let mut buf = vec![0; 65_535];
        let mut received = Vec::new();
        let mut most = 0;
        while received.len() < payload.len() {
            let got = recv(&far_socket, &mut buf).expect("the whole batch");
            assert!(got.segment == 1200 || got.len < 1200, "{got:?}");
            assert_eq!(got.destination, destination.ip());
            most = most.max(got.len.div_ceil(got.segment));
            received.extend_from_slice(&buf[..got.len]);
        }
        assert!(received == payload);
        assert!(
            most > 1,
            "{far}: received in one piece where it was sent in one"
        );
    }
}

/// Nothing has told this machine yet that the path is narrow, as where its routers are silent.
#[test]
fn what_may_be_fragmented_crosses_a_narrow_path_that_nobody_knows_of() {
    if !root() {
        return;
    }
    let line = Line::new("cut");
    let (near, far) = (
        bind(&line.near, "0.0.0.0:4500"),
        bind(&line.far, "0.0.0.0:4500"),
    );
    let payload = [7; 1440];
    let parts = [IoSlice::new(&payload)];
    let destination = "10.8.2.2:4500".parse().unwrap();
    near.send_fragmenting(&transmit(destination, None, &parts))
        .unwrap();
    let mut buf = [0; 2000];
    assert_eq!(recv(&far, &mut buf).expect("in fragments").len, 1440);
    assert_eq!(near.poll_error().unwrap(), None);
}

#[test]
fn a_narrow_path_is_reported_and_then_known() {
    if !root() {
        return;
    }
    let line = Line::new("pmtu");
    for (local, far) in [
        ("0.0.0.0:4500", "10.8.2.2:4500"),
        ("[::]:4500", "[fd08:2::2]:4500"),
    ] {
        let (near, far_socket) = (bind(&line.near, local), bind(&line.far, local));
        let destination: SocketAddr = far.parse().unwrap();
        let payload = [7; 1440];
        let parts = [IoSlice::new(&payload)];
        near.send(&transmit(destination, None, &parts)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        let error = loop {
            match near.poll_error().unwrap() {
                Some(error) => break error,
                None => assert!(Instant::now() < deadline, "the router says too big"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let router: IpAddr = if destination.is_ipv4() {
            "10.8.1.1"
        } else {
            "fd08:1::1"
        }
        .parse()
        .unwrap();
        assert_eq!(error.kind, PathErrorKind::TooBig { mtu: 1400 });
        assert_eq!(
            (error.destination.ip(), error.reporter),
            (destination.ip(), Some(router))
        );
        assert_eq!(
            line.near
                .run(|| RouteProbe::open(destination.is_ipv6(), None)
                    .unwrap()
                    .path_mtu(destination)
                    .unwrap()),
            1400
        );
        let refused = near.send(&transmit(destination, None, &parts)).unwrap_err();
        assert!(matches!(refused, SendError::TooBig), "{refused:?}");
        let batch = [8; 4000];
        let parts_batch = [IoSlice::new(&batch)];
        let refused = near
            .send(&transmit(destination, Some(1440), &parts_batch))
            .unwrap_err();
        assert!(
            matches!(refused, SendError::TooBig | SendError::NoSegmentation),
            "a batch cut too large: {refused:?}"
        );
        near.send_fragmenting(&transmit(destination, None, &parts))
            .unwrap();
        let mut buf = [0; 2000];
        assert_eq!(recv(&far_socket, &mut buf).expect("in fragments").len, 1440);
        let refused = near.send(&transmit(destination, None, &parts)).unwrap_err();
        assert!(
            matches!(refused, SendError::TooBig),
            "DF is back: {refused:?}"
        );
    }
}

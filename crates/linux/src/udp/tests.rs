use super::*;
use std::time::{Duration, Instant};

fn socket(local: &str) -> UdpSocket {
    UdpSocket::bind(&UdpOptions::new(local.parse().unwrap())).unwrap()
}

fn recv(socket: &UdpSocket, buf: &mut [u8]) -> Received {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match socket.recv(buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other.unwrap(),
        }
    }
}

#[test]
fn a_batch_goes_out_in_one_call_and_comes_in_with_address_and_tos() {
    for loopback in ["127.0.0.1", "::1"] {
        let ip: IpAddr = loopback.parse().unwrap();
        let wildcard = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let (a, b) = (socket(wildcard), socket(wildcard));
        let payload: Vec<u8> = (0..1000u16).map(|n| n.to_le_bytes()[0]).collect();
        a.send(&Transmit {
            destination: SocketAddr::new(ip, b.local_addr().port()),
            source: Some(ip),
            interface: 0,
            tos: 0xb8 | 1,
            segment: Some(300),
            parts: &[IoSlice::new(&payload[..500]), IoSlice::new(&payload[500..])],
        })
        .unwrap();
        let mut buf = vec![0; 65_535];
        let mut all = Vec::new();
        let mut sizes = Vec::new();
        while all.len() < payload.len() {
            let got = recv(&b, &mut buf);
            assert_eq!(got.source, SocketAddr::new(ip, a.local_addr().port()));
            assert_eq!((got.destination, got.tos, got.truncated), (ip, 0xb9, false));
            assert_ne!(got.interface, 0);
            sizes.extend(buf[..got.len].chunks(got.segment).map(<[u8]>::len));
            all.extend_from_slice(&buf[..got.len]);
        }
        assert_eq!(all, payload);
        assert_eq!(sizes, [300, 300, 300, 100], "{loopback}");
    }
}

#[test]
fn a_reply_leaves_by_the_address_that_received() {
    let (a, b) = (socket("0.0.0.0:0"), socket("0.0.0.0:0"));
    let second: IpAddr = "127.0.0.2".parse().unwrap();
    let mut buf = [0; 100];
    a.send(&Transmit {
        destination: SocketAddr::new(second, b.local_addr().port()),
        source: None,
        interface: 0,
        tos: 0,
        segment: None,
        parts: &[IoSlice::new(b"ping")],
    })
    .unwrap();
    let got = recv(&b, &mut buf);
    assert_eq!(got.destination, second);
    b.send(&Transmit {
        destination: got.source,
        source: Some(got.destination),
        interface: 0,
        tos: 0,
        segment: None,
        parts: &[IoSlice::new(b"pong")],
    })
    .unwrap();
    assert_eq!(
        recv(&a, &mut buf).source,
        SocketAddr::new(second, b.local_addr().port())
    );
}

#[test]
fn what_is_too_big_is_not_sent() {
    let (a, b) = (socket("0.0.0.0:0"), socket("0.0.0.0:0"));
    let payload = vec![0; 65_508];
    let error = a
        .send(&Transmit {
            destination: SocketAddr::new([127, 0, 0, 1].into(), b.local_addr().port()),
            source: None,
            interface: 0,
            tos: 0,
            segment: None,
            parts: &[IoSlice::new(&payload)],
        })
        .unwrap_err();
    assert!(matches!(error, SendError::TooBig), "{error:?}");
    let probe = RouteProbe::open(false, None).unwrap();
    let to = |text: &str| text.parse().unwrap();
    assert!(probe.path_mtu(to("127.0.0.1:4500")).unwrap() >= 65_535);
    // The address that was asked for last does not stick.
    for host in ["127.0.0.1", "127.0.0.9"] {
        let source = probe.source(to(&format!("{host}:4500"))).unwrap();
        assert_eq!(source, "127.0.0.1".parse::<IpAddr>().unwrap());
    }
}

#[test]
fn a_closed_port_is_reported_and_does_not_spoil_the_next_call() {
    let a = socket("127.0.0.1:0");
    let closed = socket("127.0.0.1:0").local_addr();
    let open = socket("127.0.0.1:0");
    let to = |destination| Transmit {
        destination,
        source: None,
        interface: 0,
        tos: 0,
        segment: None,
        parts: &[],
    };
    let hello = [IoSlice::new(b"hello")];
    a.send(&Transmit {
        parts: &hello,
        ..to(closed)
    })
    .unwrap();
    a.send(&Transmit {
        parts: &hello,
        ..to(open.local_addr())
    })
    .unwrap();
    assert_eq!(recv(&open, &mut [0; 10]).len, 5);
    let error = a.poll_error().unwrap().unwrap();
    assert_eq!(
        (error.destination, error.kind),
        (closed, PathErrorKind::Refused)
    );
    assert_eq!(error.reporter, Some([127, 0, 0, 1].into()));
    assert_eq!(a.poll_error().unwrap(), None);
}

#[test]
fn a_taken_port_says_who_to_look_for() {
    let a = socket("127.0.0.1:0");
    let error = UdpSocket::bind(&UdpOptions::new(a.local_addr())).unwrap_err();
    assert!(matches!(error, Error::PortInUse(_)) && error.to_string().contains("ss -ulpn"));
    let nowhere = UdpOptions::new("192.0.2.1:4500".parse().unwrap());
    assert!(matches!(
        UdpSocket::bind(&nowhere),
        Err(Error::NoSuchAddress(_))
    ));
}

#[test]
fn errors_are_sorted_by_what_to_do() {
    let sort = |errno, batch| SendError::sort(io::Error::from_raw_os_error(errno), batch);
    assert!(matches!(sort(libc::EIO, true), SendError::NoSegmentation));
    assert!(matches!(
        sort(libc::EINVAL, true),
        SendError::NoSegmentation
    ));
    // ICMP of anybody's making says so ("protocol unreachable"), and no kernel of a batch.
    assert!(matches!(sort(libc::ENOPROTOOPT, true), SendError::Other(_)));
    assert!(matches!(
        sort(libc::EINVAL, false),
        SendError::Unreachable(_)
    ));
    assert!(matches!(sort(libc::EMSGSIZE, true), SendError::TooBig));
    assert!(matches!(sort(libc::ENOBUFS, false), SendError::Full));
    assert!(matches!(sort(libc::EPERM, false), SendError::Filtered));
}

#[test]
fn a_datagram_says_how_long_it_has_waited() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (a, b) = (socket(local), socket(local));
        let wait = Duration::from_millis(30);
        // The kernel begins to stamp shortly after the first socket has asked for it; what came before
        // is stamped when it is received.
        let told = (0..20).find_map(|_| {
            a.send(&Transmit {
                destination: b.local_addr(),
                source: None,
                interface: 0,
                tos: 0,
                segment: None,
                parts: &[IoSlice::new(b"hello")],
            })
            .unwrap();
            std::thread::sleep(wait);
            recv(&b, &mut [0; 10]).waited.filter(|told| *told >= wait)
        });
        assert!(told.unwrap() < Duration::from_secs(5), "{local}: {told:?}");
    }
}

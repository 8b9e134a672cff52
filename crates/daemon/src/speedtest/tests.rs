//! The endpoint and who measures, with each other, on loopback.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cygnet_speedtest::{CpuTimes, DOWN, LOAD, Load, PING, UP};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use super::client::{Kept, Line, Way};
use super::direction::Streams;
use super::endpoint::{self, Hall};
use super::measure::{Ended, measure};
use super::{Errand, Event, Phase};
use crate::fetch::Place;

const PATIENCE: Duration = Duration::from_secs(20);

fn way() -> Way {
    Way {
        interface: "lo".to_owned(),
        sources: vec!["127.0.0.1".parse().unwrap()],
    }
}

fn place(at: SocketAddr, target: &str) -> Place {
    Place::parse(&format!("http://{at}{target}")).unwrap()
}

/// Runs `test` beside an endpoint.
fn beside_an_endpoint<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, Rc<Hall>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = endpoint::bind("lo", "127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let hall = Rc::new(Hall::new());
        let serving = Rc::clone(&hall);
        spawn_local(async move { endpoint::take(&listener, &serving).await });
        test(at, hall).await;
    });
}

async fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn kept(at: SocketAddr) -> Kept {
    let stream = way().connect(at, false).await.unwrap();
    Kept::new(way(), at, stream).await.unwrap()
}

#[test]
fn what_moves_is_counted_and_who_stops_is_noticed() {
    type Start = fn(&Way, SocketAddr, &Place, u8) -> Streams;
    let (down, up): (Start, Start) = (Streams::down, Streams::up);
    for (start, target) in [(down, format!("{DOWN}?seconds=30")), (up, UP.to_owned())] {
        beside_an_endpoint(async |at, hall| {
            let mut streams = start(&way(), at, &place(at, &target), 3);
            wait_for("octets move", || streams.octets() > 20 << 20).await;
            assert_eq!(hall.connections(), 3, "{target}");
            let before = streams.octets();
            wait_for("more octets move", || {
                streams.octets() > before + (20 << 20)
            })
            .await;
            assert_eq!(streams.ended(), None);
            drop(streams);
            wait_for("the places are free again", || hall.connections() == 0).await;
        });
    }
}

#[test]
fn requests_are_answered_as_they_are_documented() {
    beside_an_endpoint(async |at, _| {
        let mut kept = kept(at).await;
        assert!(kept.round_trip(&place(at, PING)).await.unwrap() < PATIENCE);
        let load = kept.read(&place(at, LOAD)).await.unwrap();
        let load: Load = serde_json::from_slice(&load).unwrap();
        assert_ne!(load.cpu, CpuTimes::default());
        assert_eq!(load.connections, 1);
        for (target, expected) in [
            ("/", "404"),
            ("/v1/down", "400"),
            ("/v1/down?seconds=0", "400"),
            ("/v1/down?seconds=9999", "400"),
            ("/v1/up", "404"),
        ] {
            let told = kept.read(&place(at, target)).await.unwrap_err();
            assert!(told.contains(expected), "{target}: {told}");
        }
    });
}

#[test]
fn a_body_ends_with_its_time_and_its_length_is_told() {
    beside_an_endpoint(async |at, _| {
        let begun = Instant::now();
        let stream = way().connect(at, false).await.unwrap();
        let mut line = Line::open(stream).await.unwrap();
        let whole = Full::new(Bytes::from(vec![7; 5_000_000]));
        let asked = place(at, &format!("{DOWN}?seconds=1"));
        let response = line
            .ask(Method::GET, &asked, Full::default())
            .await
            .unwrap();
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().into_data().unwrap().len();
        }
        let took = begun.elapsed();
        assert!((1.0..5.0).contains(&took.as_secs_f32()), "{took:?}");
        assert!(length > 1 << 20, "{length}");
        assert!(line.is_ready().await);
        let response = line.ask(Method::POST, &place(at, UP), whole).await.unwrap();
        let told = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(told, r#"{"bytes":5000000}"#);
    });
}

#[test]
fn a_client_gets_a_few_connections_and_others_get_theirs() {
    beside_an_endpoint(async |at, hall| {
        let connect = |from: &'static str| async move {
            let way = Way {
                interface: "lo".to_owned(),
                sources: vec![from.parse().unwrap()],
            };
            way.connect(at, false).await.unwrap()
        };
        let mut held: Vec<TcpStream> = Vec::new();
        for _ in 0..24 {
            held.push(connect("127.0.0.1").await);
        }
        wait_for("all are admitted", || hall.connections() == 24).await;
        let answers = async |stream: TcpStream| {
            let mut line = Line::open(stream).await.unwrap();
            let ping = place(at, PING);
            let empty = Full::<Bytes>::default();
            line.ask(Method::HEAD, &ping, empty).await.is_ok()
        };
        assert!(!answers(connect("127.0.0.1").await).await);
        assert!(answers(connect("127.0.0.2").await).await);
        wait_for("others are gone", || hall.connections() == 24).await;
        for of_one in ["127.0.0.3", "127.0.0.4", "127.0.0.5"] {
            for _ in 0..24 {
                held.push(connect(of_one).await);
            }
        }
        wait_for("the place is full", || hall.connections() == 96).await;
        assert!(!answers(connect("127.0.0.6").await).await);
        drop(held);
        wait_for("the places are free again", || hall.connections() == 0).await;
    });
}

#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    beside_an_endpoint(async |at, hall| {
        let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
        for nonsense in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", &endless] {
            let nonsense = nonsense.to_vec();
            let answer = tokio::task::spawn_blocking(move || {
                let mut stream = std::net::TcpStream::connect(at).unwrap();
                // Who has seen enough does not wait for the rest.
                let _ = stream.write_all(&nonsense);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                String::from_utf8_lossy(&answer).into_owned()
            });
            let answer = answer.await.unwrap();
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        wait_for("nobody is left", || hall.connections() == 0).await;
        assert!(kept(at).await.round_trip(&place(at, PING)).await.is_ok());
    });
}

#[test]
fn what_is_no_place_to_measure_is_named() {
    beside_an_endpoint(async |at, _| {
        for (start, target, expected) in [
            (true, "/nowhere", "/nowhere says `404 Not Found`"),
            (true, LOAD, "expected a large file"),
            (false, DOWN, "says `404 Not Found`"),
        ] {
            let place = place(at, target);
            let mut streams = match start {
                true => Streams::down(&way(), at, &place, 2),
                false => Streams::up(&way(), at, &place, 2),
            };
            let mut why = None;
            wait_for("it is told", || {
                why = streams.ended();
                why.is_some()
            })
            .await;
            let why = why.unwrap();
            assert!(why.contains(expected), "{why}");
        }
        let nobody = SocketAddr::new(at.ip(), 1);
        let told = way().connect(nobody, false).await.unwrap_err();
        assert!(
            told.starts_with("cannot connect to 127.0.0.1:1 by interface lo"),
            "{told}"
        );
        let elsewhere = Way {
            interface: "no-such-if0".to_owned(),
            ..way()
        };
        let told = elsewhere.connect(at, false).await.unwrap_err();
        assert!(told.contains("by interface no-such-if0"), "{told}");
        let six = Place::parse("http://[::1]/").unwrap();
        let told = way().resolve(&six).await.unwrap_err();
        assert_eq!(told, "[::1] has no address of a family that lo carries");
    });
}

fn errand(at: SocketAddr) -> Errand {
    let url = |target: &str| format!("http://{at}{target}");
    Errand {
        interface: "lo".to_owned(),
        sources: vec![at.ip()],
        ping: url(PING),
        down: Some(url(&format!("{DOWN}?seconds=20"))),
        up: Some(url("/nowhere")),
        load: Some(url(LOAD)),
        seconds: 1,
        streams: 2,
    }
}

#[test]
fn a_run_is_told_from_its_beginning_to_its_end() {
    beside_an_endpoint(async |at, _| {
        let told = RefCell::new(Vec::new());
        let say = |event: &Event| {
            told.borrow_mut().push(event.clone());
            Ok(())
        };
        measure(&errand(at), &say).await.unwrap();
        let told = told.into_inner();
        let phases: Vec<&[Event]> = told.split_inclusive(|e| *e == Event::Over).collect();
        assert_eq!(phases.len(), 3, "{told:?}");
        for (events, phase) in phases.iter().zip([Phase::Idle, Phase::Down, Phase::Up]) {
            assert_eq!(events[0], Event::Begun(phase));
        }
        let place = |events: &[Event], event: &Event| events.iter().position(|e| e == event);
        for events in &phases[..2] {
            let counting = place(events, &Event::Counting).unwrap();
            let counted = place(events, &Event::Counted).unwrap();
            assert!(counting < counted);
            let answers = events.iter().filter(|e| matches!(e, Event::Answered(_)));
            // How many there are is a matter of the machine's pace.
            assert!(answers.count() > 0, "{events:?}");
            let loads = events.iter().filter(|e| matches!(e, Event::Load(_)));
            assert_eq!(loads.count(), 2);
        }
        let moved: Vec<(u64, u64)> = (phases[1].iter())
            .filter_map(|event| match event {
                Event::Moved { at_us, octets } => Some((*at_us, *octets)),
                _ => None,
            })
            .collect();
        assert!(moved.len() > 2 && moved.is_sorted(), "{moved:?}");
        let (end, octets) = *moved.last().unwrap();
        assert!(end >= 3_000_000 && octets > 1 << 20, "{end} {octets}");
        assert!(
            phases[2]
                .iter()
                .any(|e| matches!(e, Event::Failed(why) if why.contains("404"))),
            "{:?}",
            phases[2]
        );
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Event>>(&json).unwrap(), told);
    });
}

#[test]
fn nothing_is_measured_where_nobody_is() {
    beside_an_endpoint(async |at, _| {
        let say = |event: &Event| panic!("{event:?}");
        let nobody = Errand {
            ping: "http://127.0.0.1:1/".to_owned(),
            ..errand(at)
        };
        let another = Errand {
            load: Some(format!("http://{at}/nowhere")),
            ..errand(at)
        };
        let no_url = Errand {
            ping: "ftp://127.0.0.1/".to_owned(),
            ..errand(at)
        };
        for (errand, expected) in [
            (nobody, "cannot connect to 127.0.0.1:1"),
            (another, "/nowhere says `404"),
            (no_url, "no http:// URL"),
        ] {
            match measure(&errand, &say).await {
                Err(Ended::Unreachable(why)) => assert!(why.contains(expected), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn the_argument_of_an_endpoint_says_where_it_answers() {
    let addresses = ["10.99.0.1", "fd99::1"].map(|a| a.parse().unwrap());
    let argument = endpoint::argument("cyg-srv", &addresses);
    assert_eq!(argument, "cyg-srv 10.99.0.1 fd99::1");
    let (interface, parsed) = endpoint::parse(&argument).unwrap();
    assert_eq!(
        (interface.as_str(), parsed.as_slice()),
        ("cyg-srv", &addresses[..])
    );
    for wrong in ["", "cyg-srv 10.99.0", "cyg-srv 10.99.0.1,fd99::1"] {
        assert!(endpoint::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn why_it_cannot_answer_is_told_once() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let local = LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        let told = Rc::new(RefCell::new(Vec::new()));
        let say = {
            let told = Rc::clone(&told);
            move |line: &str| told.borrow_mut().push(line.to_owned())
        };
        let at = "127.0.0.1:0".parse().unwrap();
        let hall = Rc::new(Hall::new());
        let listens = endpoint::listen("no-such-if0".to_owned(), at, hall, say);
        // It is tried again meanwhile.
        let _ = tokio::time::timeout(Duration::from_secs(4), listens).await;
        let told = told.borrow();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("cannot answer at 127.0.0.1:0 of interface no-such-if0: "),
            "{told:?}"
        );
    });
}

#[test]
fn who_takes_a_download_and_does_not_read_it_does_not_keep_its_place() {
    beside_an_endpoint(async |at, hall| {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {DOWN}?seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        wait_for("it is served", || hall.connections() == 1).await;
        // A second of octets, and then as long as silence may last.
        let begun = Instant::now();
        while hall.connections() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

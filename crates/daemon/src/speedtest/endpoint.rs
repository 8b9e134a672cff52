//! `cygnet speedtest-endpoint`: what a server's clients measure their speed with (docs/speedtest.md).
//!
//! It answers at the server's addresses inside the tunnel, and takes connections from the tunnel's interface alone. A
//! client may have a few connections, for a while each; nothing it sends is looked at but the heads of its requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use cygnet_speedtest::{CpuTimes, DOWN, LOAD, Load, PING, PORT, SECONDS_MAX, UP, WARM_UP};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout_at;

use super::noise::{self, Noise};
use crate::helper;

/// Connections at once, of everybody.
const CONNECTIONS_MAX: usize = 96;
/// Connections at once of one address: two directions of eight streams, while those of the first are closed, and some.
const CONNECTIONS_OF_ONE: usize = 24;
/// How long a body may go on: the longest direction there is, and some.
const BODY_MAX: Duration = Duration::from_secs(SECONDS_MAX as u64 + WARM_UP.as_secs() + 10);
/// How long a connection may: a whole run, which keeps one for its round trips.
const CONNECTION_MAX: Duration = Duration::from_secs(4 * BODY_MAX.as_secs());
/// How long the head of a request may take, the silence before it, and that of somebody who does not take what is sent.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// How often it is looked at whether somebody takes it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Octets of a head, and of what is read or written ahead.
const BUFFER: usize = 128 << 10;
/// Connections that wait to be taken.
const BACKLOG: u32 = 32;
/// An address that is not there (the interface is being made anew) is tried again after this.
const AGAIN: Duration = Duration::from_secs(3);
/// Memory of the process.
const MEMORY_MAX: u64 = 256 << 20;

/// The argument of such a process, for these addresses of an interface.
pub(crate) fn argument(interface: &str, addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .fold(interface.to_owned(), |text, address| {
            format!("{text} {address}")
        })
}

/// The process itself.
pub(super) fn run(place: &str) -> u8 {
    let done = helper::confine(MEMORY_MAX, None).and_then(|()| {
        helper::end_with_parent()?;
        let (interface, addresses) = parse(place)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let hall = Rc::new(Hall::new());
            for address in addresses {
                let address = SocketAddr::new(address, PORT);
                let hall = Rc::clone(&hall);
                tokio::task::spawn_local(listen(interface.clone(), address, hall, say));
            }
            std::future::pending::<()>().await;
        });
        Ok(())
    });
    if let Err(error) = &done {
        say(&format!("cannot run: {error}"));
    }
    u8::from(done.is_err())
}

/// Whoever started this process puts it into the log.
fn say(line: &str) {
    // If nobody listens, nobody wants to know.
    let _ = writeln!(io::stdout(), "{line}");
}

pub(super) fn parse(place: &str) -> io::Result<(String, Vec<IpAddr>)> {
    let wrong = || io::Error::other("expected an interface, and addresses");
    let mut words = place.split_ascii_whitespace();
    let interface = words.next().ok_or_else(wrong)?.to_owned();
    let addresses: Result<Vec<IpAddr>, _> = words.map(str::parse).collect();
    Ok((interface, addresses.map_err(|_| wrong())?))
}

/// Takes connections at one address, for ever.
pub(super) async fn listen(
    interface: String,
    address: SocketAddr,
    hall: Rc<Hall>,
    say: impl Fn(&str),
) {
    let mut told = None;
    loop {
        match bind(&interface, address) {
            Ok(listener) => {
                told = None;
                take(&listener, &hall).await;
            }
            Err(error) => {
                let why = format!("cannot answer at {address} of interface {interface}: {error}");
                if told.as_ref() != Some(&why) {
                    say(&why);
                }
                told = Some(why);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Takes connections until that fails.
pub(super) async fn take(listener: &TcpListener, hall: &Rc<Hall>) {
    while let Ok((stream, from)) = listener.accept().await {
        if let Some(guest) = Guest::admit(hall, from.ip()) {
            tokio::task::spawn_local(converse(stream, guest));
        }
    }
}

/// Bound to the interface: Linux would take what is for the address from any other.
pub(super) fn bind(interface: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.is_ipv4() {
        true => TcpSocket::new_v4(),
        false => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Who is being served, and with what.
pub(super) struct Hall {
    noise: Bytes,
    guests: RefCell<BTreeMap<IpAddr, usize>>,
}

impl Hall {
    pub(super) fn new() -> Self {
        Self {
            noise: noise::source(),
            guests: RefCell::default(),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.guests.borrow().values().sum()
    }
}

/// A connection that was admitted; its place is free again when this is dropped.
struct Guest {
    hall: Rc<Hall>,
    address: IpAddr,
}

impl Guest {
    fn admit(hall: &Rc<Hall>, address: IpAddr) -> Option<Self> {
        let full = hall.connections() >= CONNECTIONS_MAX;
        let mut guests = hall.guests.borrow_mut();
        let own = guests.get(&address).copied().unwrap_or(0);
        if full || own >= CONNECTIONS_OF_ONE {
            return None;
        }
        guests.insert(address, own + 1);
        Some(Self {
            hall: Rc::clone(hall),
            address,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.hall.guests.borrow_mut();
        match guests.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                guests.remove(&self.address);
            }
        }
    }
}

async fn converse(stream: TcpStream, guest: Guest) {
    // Small answers leave at once; without, they are only later.
    let _ = stream.set_nodelay(true);
    // What is not acknowledged then, or finds no room at the other end, is given up with the connection.
    let _ = set_tcp_user_timeout(&stream, millis(HEAD_MAX));
    let hall = Rc::clone(&guest.hall);
    // When the last download has to be taken.
    let taken = Rc::new(Cell::new(None));
    let service = {
        let taken = Rc::clone(&taken);
        service_fn(move |request| answer(request, Rc::clone(&hall), Rc::clone(&taken)))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    // A body is not asked for more while nobody takes what it has given: that it is over has to be seen from here.
    let overdue = async {
        while taken.get().is_none_or(|until| Instant::now() < until) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // However it ends: a client that goes away has measured, or will try again.
    tokio::select! {
        _ = connection => {}
        () = overdue => {}
        () = tokio::time::sleep(CONNECTION_MAX) => {}
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

type Answer = Response<Either<Full<Bytes>, Noise>>;

async fn answer(
    request: Request<Incoming>,
    hall: Rc<Hall>,
    taken: Rc<Cell<Option<Instant>>>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    // Whoever asks for the next has taken the last.
    taken.set(None);
    Ok(match (&head.method, head.uri.path()) {
        (&Method::GET | &Method::HEAD, PING) => {
            let mut nothing = Response::new(Either::Left(Full::default()));
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing
        }
        (&Method::GET, LOAD) => json(StatusCode::OK, &load(&hall)),
        (&Method::GET, DOWN) => match seconds(head.uri.query()) {
            Some(time) => {
                let until = Instant::now() + time;
                taken.set(Some(until + HEAD_MAX));
                let noise = Noise::new(&hall.noise, until);
                let mut answer = Response::new(Either::Right(noise));
                let kind = HeaderValue::from_static("application/octet-stream");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            None => refuse(
                StatusCode::BAD_REQUEST,
                &format!("expected ?seconds=N, from 1 to {}", BODY_MAX.as_secs()),
            ),
        },
        (&Method::POST, UP) => match swallow(body).await {
            Ok(octets) => json(StatusCode::OK, &serde_json::json!({ "bytes": octets })),
            Err(status) => refuse(status, "the body did not come to its end in time"),
        },
        _ => refuse(
            StatusCode::NOT_FOUND,
            "expected what docs/speedtest.md lists",
        ),
    })
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn refuse(status: StatusCode, error: &str) -> Answer {
    json(status, &serde_json::json!({ "error": error }))
}

fn load(hall: &Hall) -> Load {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    Load {
        cpu: CpuTimes::parse(&stat),
        connections: hall.connections(),
    }
}

fn seconds(query: Option<&str>) -> Option<Duration> {
    let seconds: u64 = query?.strip_prefix("seconds=")?.parse().ok()?;
    let time = Duration::from_secs(seconds);
    (1..=BODY_MAX.as_secs()).contains(&seconds).then_some(time)
}

/// The length of a body, of which nothing is kept.
async fn swallow(mut body: Incoming) -> Result<u64, StatusCode> {
    let until = tokio::time::Instant::now() + BODY_MAX;
    let mut octets = 0;
    loop {
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => octets += frame.data_ref().map_or(0, Bytes::len) as u64,
            Ok(None) => return Ok(octets),
            Ok(Some(Err(_))) => return Err(StatusCode::BAD_REQUEST),
            Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

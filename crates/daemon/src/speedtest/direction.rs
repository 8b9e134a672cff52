//! The streams of one direction, and how much has arrived by all of them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use cygnet_linux::tcp::bytes_acked;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes};
use hyper::{Method, StatusCode};
use tokio::task::JoinSet;

use super::client::{Line, Way, broken};
use super::noise::{self, Noise};
use crate::fetch::Place;

/// Failures in a row after which a stream gives up.
const FAILURES_MAX: u32 = 4;
/// Wait after a failure.
const AGAIN: Duration = Duration::from_millis(200);
/// A file that is shorter would measure how fast requests are answered.
const LEAST_FILE: u64 = 1 << 20;
/// An upload goes on until it is dropped.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Connections of an upload whose octets are counted: who closes each at once is no place to upload to.
const SOCKETS_MAX: usize = 256;

/// Streams at work; they end when this is dropped.
pub(super) struct Streams {
    tasks: JoinSet<String>,
    tally: Rc<Tally>,
}

/// What all streams have moved.
#[derive(Default)]
struct Tally {
    /// Read by this program.
    read: Cell<u64>,
    /// What was written here waits in the kernel's queues for long; what has arrived there, the kernel knows by the
    /// acknowledgements.
    written_to: RefCell<Vec<OwnedFd>>,
}

impl Streams {
    /// Downloads that file, again and again.
    pub(super) fn down(way: &Way, to: SocketAddr, place: &Place, count: u8) -> Self {
        Self::start(count, |tally| {
            let (way, place) = (way.clone(), place.clone());
            persist(async move || pull(&way, to, &place, &tally).await)
        })
    }

    /// Uploads there.
    pub(super) fn up(way: &Way, to: SocketAddr, place: &Place, count: u8) -> Self {
        let source = noise::source();
        Self::start(count, |tally| {
            let (way, place, source) = (way.clone(), place.clone(), source.clone());
            persist(async move || push(&way, to, &place, &source, &tally).await)
        })
    }

    fn start<F>(count: u8, stream: impl Fn(Rc<Tally>) -> F) -> Self
    where
        F: Future<Output = String> + 'static,
    {
        let tally = Rc::<Tally>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn_local(stream(Rc::clone(&tally)));
        }
        Self { tasks, tally }
    }

    /// Octets that have arrived.
    pub(super) fn octets(&self) -> u64 {
        let sockets = self.tally.written_to.borrow();
        let acked = sockets.iter().map(|s| bytes_acked(s).unwrap_or(0));
        self.tally.read.get() + acked.sum::<u64>()
    }

    /// Why there is no stream any more, if that is so.
    pub(super) fn ended(&mut self) -> Option<String> {
        let mut why = None;
        while let Some(ended) = self.tasks.try_join_next() {
            why = Some(ended.unwrap_or_else(|e| e.to_string()));
        }
        why.filter(|_| self.tasks.is_empty())
    }
}

/// What became of one request.
enum Outcome {
    /// It is done; another may follow.
    Done,
    /// Another attempt may do better.
    Failed(String),
    /// None will.
    Refused(String),
}

/// Why it gave up at last.
async fn persist(mut attempt: impl AsyncFnMut() -> Outcome) -> String {
    let mut failures = 0;
    loop {
        match attempt().await {
            Outcome::Done => failures = 0,
            Outcome::Refused(why) => return why,
            Outcome::Failed(why) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    return why;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Downloads by one connection, for as long as it lasts.
async fn pull(way: &Way, to: SocketAddr, place: &Place, tally: &Tally) -> Outcome {
    let line = async { Line::open(way.connect(to, false).await?).await };
    let mut line = match line.await {
        Ok(line) => line,
        Err(error) => return Outcome::Failed(error),
    };
    loop {
        let response = match line.ask(Method::GET, place, Empty::<Bytes>::new()).await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error),
        };
        if let Some(refused) = refusal(place, response.status()) {
            return refused;
        }
        let length = response.body().size_hint().exact();
        if let Some(length) = length.filter(|length| *length < LEAST_FILE) {
            return Outcome::Refused(format!(
                "http://{}{} has {length} octets: expected a large file, of 100 MB or so",
                place.authority, place.target
            ));
        }
        let mut body = response.into_body();
        let before = tally.read.get();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let read = frame.data_ref().map_or(0, Bytes::len) as u64;
                    tally.read.set(tally.read.get() + read);
                }
                Err(error) => return Outcome::Failed(broken(&error)),
            }
        }
        if tally.read.get() == before {
            return Outcome::Failed(format!(
                "http://{}{} is empty",
                place.authority, place.target
            ));
        }
        if !line.is_ready().await {
            return Outcome::Done;
        }
    }
}

/// Uploads by one connection, until whoever is there has enough.
async fn push(way: &Way, to: SocketAddr, place: &Place, source: &Bytes, tally: &Tally) -> Outcome {
    let stream = match way.connect(to, true).await {
        Ok(stream) => stream,
        Err(error) => return Outcome::Failed(error),
    };
    match stream.as_fd().try_clone_to_owned() {
        Ok(socket) => tally.written_to.borrow_mut().push(socket),
        Err(error) => return Outcome::Failed(format!("cannot duplicate a descriptor: {error}")),
    }
    if tally.written_to.borrow().len() > SOCKETS_MAX {
        return Outcome::Refused(format!(
            "http://{}{} ends each upload at once",
            place.authority, place.target
        ));
    }
    let noise = Noise::new(source, Instant::now() + FOR_EVER);
    let answered = async {
        let mut line = Line::open(stream).await?;
        line.ask(Method::POST, place, noise).await
    };
    match answered.await {
        Ok(response) => refusal(place, response.status()).unwrap_or(Outcome::Done),
        Err(error) => Outcome::Failed(error),
    }
}

fn refusal(place: &Place, status: StatusCode) -> Option<Outcome> {
    (!status.is_success()).then(|| {
        Outcome::Refused(format!(
            "http://{}{} says `{status}`",
            place.authority, place.target
        ))
    })
}

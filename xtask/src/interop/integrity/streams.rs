//! TCP streams from one host to another; each end hashes what it has sent or received.

use super::content::{LONGEST, Octets};
use super::{Site, in_background};
use crate::lab::{Context, Failure, Result, interrupt, join, on_host};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Streams of each family in one direction.
const OF_EACH: u16 = 2;
/// The first stream's port.
const PORT: u16 = 7100;
/// What is written at once: as much as falls due in this time, within these octets.
const TICK: Duration = Duration::from_millis(2);
const CHUNK: RangeInclusive<usize> = 1400..=64 << 10;
/// A stream that moves nothing for so long has broken.
const STALL: Duration = Duration::from_secs(20);
/// Who is late by more than this does not catch up: bursts of many streams at once are no even load.
const CATCH_UP: Duration = Duration::from_millis(20);

/// All streams in one direction, until [`OneWay::finish`].
#[derive(Debug)]
pub(super) struct OneWay(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    name: String,
    written: Arc<AtomicU64>,
    sender: JoinHandle<Result<Passed>>,
    receiver: JoinHandle<Result<Passed>>,
}

/// What one end of a stream has seen.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    octets: u64,
    hash: Vec<u8>,
}

/// What became of all streams.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) octets: u64,
    pub(super) faults: Vec<String>,
}

impl OneWay {
    /// Sends this many octets a second from a host to another until `stop`.
    pub(super) fn start(
        (from, to): (&Site, &Site),
        octets_s: f64,
        seed: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let each = octets_s / f64::from(2 * OF_EACH);
        let streams = (0..2 * OF_EACH).map(|number| {
            let v6 = number % 2 == 1;
            let (family, nth) = (if v6 { 6 } else { 4 }, number / 2 + 1);
            let name = format!(
                "{} to {}, tcp{family} {nth}",
                from.host.name(),
                to.host.name()
            );
            let ends = (from.address(v6), to.address(v6));
            let to_listen = SocketAddr::new(ends.1, PORT + number);
            let listener = join(on_host(&to.host, move || Ok(TcpListener::bind(to_listen)?)))
                .context(&name)?;
            let source = join(on_host(&from.host, move || {
                Ok(TcpStream::connect_timeout(&to_listen, STALL)?)
            }))
            .context(&name)?;
            let (sink, _) = listener.accept().context(&name)?;
            sink.set_read_timeout(Some(STALL))?;
            source.set_write_timeout(Some(STALL))?;
            source.set_read_timeout(Some(STALL))?;
            let seed = seed + 1000 + u64::from(number);
            let (stop, written) = (Arc::clone(stop), Arc::new(AtomicU64::new(0)));
            let count = Arc::clone(&written);
            Ok(Stream {
                name,
                written,
                sender: in_background(move || send(source, each, seed, &stop, &count)),
                receiver: in_background(move || receive(sink)),
            })
        });
        Ok(Self(streams.collect::<Result<_>>()?))
    }

    /// Waits for the end of all streams, and compares.
    pub(super) fn finish(self) -> Result<Tally> {
        let mut tally = Tally::default();
        for stream in self.0 {
            let (sent, received) = (join(stream.sender), join(stream.receiver));
            let name = stream.name;
            match (sent, received) {
                (Ok(sent), Ok(received)) if sent == received => {
                    if sent.octets == 0 {
                        return Err(Failure::new(format!("{name} sent nothing")));
                    }
                    tally.octets += received.octets;
                }
                (Ok(sent), Ok(received)) => tally.faults.push(format!(
                    "{name}: {} octets of SHA-256 {} became {} of {}",
                    sent.octets,
                    short(&sent.hash),
                    received.octets,
                    short(&received.hash)
                )),
                (sent, received) => {
                    interrupt::check()?;
                    let written = stream.written.load(Ordering::Relaxed);
                    let said: Vec<String> = [sent, received]
                        .into_iter()
                        .filter_map(Result::err)
                        .map(|failure| failure.to_string())
                        .collect();
                    tally.faults.push(format!(
                        "{name} broke after {written} octets: {}",
                        said.join("; ")
                    ));
                }
            }
        }
        Ok(tally)
    }
}

fn send(
    mut stream: TcpStream,
    octets_s: f64,
    seed: u64,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Result<Passed> {
    const { assert!(*CHUNK.end() <= LONGEST) };
    let due_in_a_tick = (octets_s * TICK.as_secs_f64()) as usize;
    let chunk = due_in_a_tick.clamp(*CHUNK.start(), *CHUNK.end());
    let octets = Octets::of(seed);
    let mut hash = Hash::new(&SHA256);
    let mut due = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        interrupt::check()?;
        let piece = octets.piece(number, chunk);
        stream.write_all(piece).context("sending")?;
        hash.update(piece);
        written.fetch_add(piece.len() as u64, Ordering::Relaxed);
        due += Duration::from_secs_f64(chunk as f64 / octets_s);
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        } else if now - due > CATCH_UP {
            due = now;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // The other end closes when it has all.
    let after = stream.read(&mut [0; 1]).context("waiting for its end")?;
    match after {
        0 => Ok(Passed::of(written.load(Ordering::Relaxed), hash)),
        _ => Err(Failure::new("the receiver answered, which it never does")),
    }
}

fn receive(mut stream: TcpStream) -> Result<Passed> {
    let mut hash = Hash::new(&SHA256);
    let (mut buffer, mut octets) = (vec![0; 1 << 16], 0);
    loop {
        interrupt::check()?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Passed::of(octets, hash)),
            Ok(length) => {
                hash.update(buffer.get(..length).unwrap_or_default());
                octets += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(
                    Failure::from(error).while_doing(format!("receiving after {octets} octets"))
                );
            }
        }
    }
}

impl Passed {
    fn of(octets: u64, hash: Hash) -> Self {
        let hash = hash.finish().as_ref().to_vec();
        Self { octets, hash }
    }
}

/// The first octets of a hash.
fn short(hash: &[u8]) -> String {
    hash.iter().take(6).map(|o| format!("{o:02x}")).collect()
}

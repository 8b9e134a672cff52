//! From the network to the TUNs: receive, tell apart, open, join, write; IKE goes to the core.
//!
//! One worker a socket.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cygnet_esp::{DropReason, Ecn, FragmentTable, JoinConfig, Joined, Joiner, Segments};
use cygnet_ike::io::{DataEvent, Path, Transport};
use cygnet_linux::Received;
use cygnet_wire::esp::EspHeader;
use cygnet_wire::ip::VirtioNetHeader;

use super::device::{Device, Queue};
use super::drops::Reason;
use super::outbound::limit_event;
use super::parking::{Parked, Verdict};
use super::road::Socket;
use super::tables::{Inbound as Sa, Limiter, Reader, Tables};
use super::{FRAGMENT_TICK, IDLE_MS, NON_ESP_MARKER, Shared, wait};

/// Receives before the socket is waited for again.
const BURST: usize = 64;
/// Longest train of datagrams.
const RECEIVE_MAX: usize = 65_535;
/// Parts of one write: a packet, and what was joined to it (a super-packet has 64 segments at most).
const PARTS: usize = 64;

/// A worker.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    number: usize,
    reader: Reader,
    buffer: Box<[u8]>,
    opener: Opener,
}

/// All of a worker that changes while a train is looked at.
struct Opener {
    joiner: Joiner,
    fragments: FragmentTable,
    ticked: Instant,
    strangers: Limiter,
    /// For super-packets that have to be taken apart again.
    scratch: [Vec<u8>; 2],
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An IKE message, from here on.
    Ike(usize),
    /// ESP for this SPI.
    Esp(EspHeader),
    /// RFC 3948 §2.3.
    Keepalive,
    /// Nothing.
    Short,
}

/// RFC 3948 §2: on the NAT-T port ESP, IKE behind a marker of zeros where ESP has its SPI, and
/// keepalives; on the other port IKE alone.
fn classify(natt: bool, datagram: &[u8]) -> Kind {
    match datagram {
        _ if !natt => Kind::Ike(0),
        [0xff] => Kind::Keepalive,
        [0, 0, 0, 0, ..] => Kind::Ike(NON_ESP_MARKER.len()),
        _ => EspHeader::parse(datagram).map_or(Kind::Short, Kind::Esp),
    }
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>, socket: Arc<Socket>, number: usize) -> Self {
        Self {
            shared,
            socket,
            number,
            reader: Reader::default(),
            buffer: vec![0; RECEIVE_MAX].into_boxed_slice(),
            opener: Opener::new(),
        }
    }

    /// Works as long as the process lives.
    pub(super) fn run(mut self) {
        loop {
            if wait::readable(&self.socket.udp, IDLE_MS).error {
                self.shared.drain_errors(&self.socket);
            }
            if let Err(error) = self.turn() {
                tracing::debug!(
                    "UDP {}: cannot receive: {error}",
                    self.socket.udp.local_addr()
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// One burst.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.opener.tick();
        // Keys of SAs that are gone are not kept while nothing comes.
        self.reader.current(&self.shared.published);
        for _ in 0..BURST {
            match self.socket.udp.recv(&mut self.buffer) {
                Ok(received) => self.handle(&received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A train of datagrams.
    fn handle(&mut self, received: &Received) {
        let Self {
            shared,
            socket,
            number,
            reader,
            buffer,
            opener,
        } = self;
        if received.truncated {
            return shared.drops.add(Reason::Truncated, 1);
        }
        let tables = reader.current(&shared.published);
        let train = Train {
            path: Path {
                transport: Transport::Udp,
                local: std::net::SocketAddr::new(received.destination, socket.role.port),
                remote: received.source,
                // Replies take the route of the moment, not the interface of arrival.
                interface: 0,
            },
            outer: Ecn::of(received.tos),
            natt: socket.role.natt,
            len: received.len,
            segment: received.segment,
        };
        opener.open(shared, tables, &train, *number, buffer);
    }
}

/// Opens what came for a Child SA before it was installed.
pub(super) fn readmit(shared: &Shared, parked: Vec<Parked>) {
    if parked.is_empty() {
        return;
    }
    let (mut reader, mut opener) = (Reader::default(), Opener::new());
    let tables = reader.current(&shared.published);
    for mut parked in parked {
        let train = Train {
            path: parked.path,
            outer: parked.outer,
            natt: true,
            len: parked.datagram.len(),
            segment: parked.datagram.len(),
        };
        opener.open(shared, tables, &train, 0, &mut parked.datagram);
    }
}

/// Datagrams that one read brought, all of one length but the last.
struct Train {
    path: Path,
    outer: Ecn,
    /// They came to the port that ESP comes to.
    natt: bool,
    len: usize,
    segment: usize,
}

/// Whether the datagram came from the peer, whatever was in it.
fn is_authentic<T>(inner: &Result<T, DropReason>) -> bool {
    matches!(inner, Ok(_) | Err(DropReason::Dummy))
}

/// RFC 7296 §2.23: the address of an authentic packet is the peer's new one, if it is the newest;
/// an older one was only late.
fn moved(shared: &Shared, sa: &Sa, header: EspHeader, path: Path) {
    let newest = sa.sa.replay().top() & u64::from(u32::MAX) == u64::from(header.seq);
    if newest && sa.moved.pass(shared.now_ms()) {
        shared.report(DataEvent::PeerMoved {
            child: sa.child,
            path,
        });
    }
}

impl Opener {
    fn new() -> Self {
        Self {
            joiner: Joiner::new(JoinConfig {
                tcp: false,
                udp: false,
            }),
            fragments: FragmentTable::new(),
            ticked: Instant::now(),
            strangers: Limiter::default(),
            scratch: [Vec::new(), Vec::new()],
        }
    }

    /// Tells the datagrams of a train apart, opens and delivers.
    fn open(
        &mut self,
        shared: &Shared,
        tables: &Tables,
        train: &Train,
        worker: usize,
        buffer: &mut [u8],
    ) {
        let path = train.path;
        let mut target: Option<&Arc<Device>> = None;
        for start in (0..train.len).step_by(train.segment.max(1)) {
            let end = train.len.min(start + train.segment);
            let Some(datagram) = buffer.get_mut(start..end) else {
                break;
            };
            let header = match classify(train.natt, datagram) {
                Kind::Esp(header) => header,
                Kind::Ike(from) => {
                    let message = datagram.get(from..).unwrap_or_default();
                    if !shared.inbox.send_ike(path, message) {
                        shared.drops.add(Reason::IkeQueueFull, 1);
                    }
                    continue;
                }
                Kind::Keepalive => continue,
                Kind::Short => {
                    shared.drops.add(Reason::Short, 1);
                    continue;
                }
            };
            let Some(sa) = tables.inbound.get(&header.spi) else {
                self.stranger(shared, train, header.spi, datagram);
                continue;
            };
            let opened = sa.sa.open(datagram, train.outer, &mut self.fragments);
            if opened.first_authenticated && sa.report_first {
                shared.report(DataEvent::FirstAuthenticated { child: sa.child });
            }
            if let Some(limit) = opened.limit {
                shared.report(limit_event(sa.child, limit));
            }
            if path.remote != sa.path.remote && is_authentic(&opened.inner) {
                moved(shared, sa, header, path);
            }
            let Ok(inner) = opened.inner else {
                continue;
            };
            if !target.is_some_and(|device| Arc::ptr_eq(device, &sa.device)) {
                if let Some(device) = target {
                    self.deliver(shared, device, worker, buffer);
                }
                self.joiner.set_config(sa.device.join());
                target = Some(&sa.device);
            }
            let range = start + inner.range.start..start + inner.range.end;
            self.joiner.push(buffer, range, &inner.packet);
        }
        if let Some(device) = target {
            self.deliver(shared, device, worker, buffer);
        }
    }

    /// A datagram for a Child SA that is not installed, or not known to this worker.
    fn stranger(&mut self, shared: &Shared, train: &Train, spi: u32, datagram: &[u8]) {
        match shared.parking.park(spi, train.path, train.outer, datagram) {
            Verdict::Parked => {}
            Verdict::Installed(parked) => readmit(shared, vec![parked]),
            Verdict::Unknown => {
                shared.drops.add(Reason::UnknownSpi, 1);
                if self.strangers.pass(shared.now_ms()) {
                    let path = train.path;
                    shared.report(DataEvent::UnknownSpi { spi, path });
                }
            }
        }
    }

    fn tick(&mut self) {
        if self.ticked.elapsed() >= FRAGMENT_TICK {
            self.ticked = Instant::now();
            self.fragments.tick();
        }
    }

    /// Writes what was joined.
    fn deliver(&mut self, shared: &Shared, device: &Device, worker: usize, buffer: &mut [u8]) {
        self.joiner.finish(buffer);
        let Some(queue) = device.queue_for(worker) else {
            return self.joiner.clear();
        };
        for joined in self.joiner.joined() {
            match write(queue, joined, buffer) {
                Ok(_) => {}
                Err(error)
                    if error.kind() == io::ErrorKind::InvalidInput && joined.segments() > 1 =>
                {
                    device.refuse_joined();
                    let written = write_singly(queue, joined, buffer, &mut self.scratch);
                    let lost = joined.segments().saturating_sub(written);
                    shared.drops.add(Reason::TunRefused, lost);
                }
                Err(error) => {
                    tracing::trace!("{}: cannot write: {error}", device.name);
                    shared.drops.add(Reason::TunRefused, joined.segments());
                }
            }
        }
        self.joiner.clear();
    }
}

fn write(queue: &dyn Queue, joined: Joined<'_>, buffer: &[u8]) -> io::Result<usize> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    for (part, range) in parts.iter_mut().zip(joined.ranges()) {
        *part = IoSlice::new(buffer.get(range).unwrap_or_default());
        count += 1;
    }
    if count < joined.segments() {
        // More than the kernel would cut; taken apart instead.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    queue.writev(parts.get(..count).unwrap_or_default())
}

/// Takes a super-packet apart again and writes its packets; how many were taken.
fn write_singly(
    queue: &dyn Queue,
    joined: Joined<'_>,
    buffer: &[u8],
    scratch: &mut [Vec<u8>; 2],
) -> usize {
    let [whole, single] = scratch;
    whole.clear();
    whole.extend(
        joined
            .ranges()
            .flat_map(|range| buffer.get(range).unwrap_or_default()),
    );
    let Ok(header) = VirtioNetHeader::parse(whole) else {
        return 0;
    };
    let packet = whole.get(VirtioNetHeader::LEN..).unwrap_or_default();
    let Ok(mut segments) = Segments::new(&header, packet) else {
        return 0;
    };
    let mut written = 0;
    while segments.remaining() > 0 {
        single.resize(segments.next_len(), 0);
        if segments.write_next(single).is_none() {
            break;
        }
        let plain = VirtioNetHeader::PLAIN.emit();
        let parts = [IoSlice::new(&plain), IoSlice::new(single)];
        written += usize::from(queue.writev(&parts).is_ok());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_told_apart() {
        assert_eq!(classify(true, &[0xff]), Kind::Keepalive);
        assert_eq!(classify(true, &[0, 0, 0, 0, 9]), Kind::Ike(4));
        assert_eq!(classify(true, &[0, 0, 0]), Kind::Short);
        assert_eq!(classify(true, &[]), Kind::Short);
        assert_eq!(classify(true, &[0xff, 0xff]), Kind::Short);
        assert_eq!(classify(true, &[0, 0, 1, 0, 0, 0, 0]), Kind::Short);
        let header = EspHeader { spi: 256, seq: 7 };
        assert_eq!(classify(true, &[0, 0, 1, 0, 0, 0, 0, 7]), Kind::Esp(header));
        // Without a marker everything is for IKE, which knows what to do with it.
        assert_eq!(classify(false, &[0, 0, 1, 0, 0, 0, 0, 7]), Kind::Ike(0));
        assert_eq!(classify(false, &[0xff]), Kind::Ike(0));
    }
}

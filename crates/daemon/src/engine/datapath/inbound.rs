//! From the network to the TUNs: receive, tell apart, open, join, write; IKE goes to the core.
//!
//! All of a tunnel arrives at one socket, which is a [`Lane`]: one worker receives at a time, and while
//! trains are long the next one begins before this one is opened. What was opened in parallel is written
//! in the order of arrival. As long as little comes, one worker does everything and the others sleep on.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cygnet_esp::{
    Codel, DropReason, Ecn, FragmentTable, Inner, JoinConfig, Joined, Joiner, Segments,
};
use cygnet_ike::io::{DataEvent, Path, Transport};
use cygnet_linux::Received;
use cygnet_wire::esp::EspHeader;
use cygnet_wire::ip::{VirtioNetHeader, protocol};

use super::device::{Device, Queue};
use super::drops::Reason;
use super::lead::Lead;
use super::outbound::limit_event;
use super::parking::{Parked, Verdict};
use super::road::Socket;
use super::strangers::Strangers;
use super::tables::{Inbound as Sa, Reader, Tables};
use super::turn::Turn;
use super::{FRAGMENT_TICK, NON_ESP_MARKER, Shared};

/// Longest train of datagrams.
const RECEIVE_MAX: usize = 65_535;
/// A train from this length or number of datagrams on says that more is waiting.
const LONG: usize = RECEIVE_MAX / 2;
const MANY: usize = 32;
/// So does one that waited for so long, however short: trains of many peers are. Waking a thread takes a tenth of it.
const WAITED: Duration = Duration::from_micros(500);
/// Parts of one write: a packet, and what was joined to it (a super-packet has 64 segments at most).
const PARTS: usize = 64;
/// Shorter packets are not dropped for the queue's sake: names, calls and acknowledgements are not what
/// fills it.
const BULKY: usize = 200;

/// What the workers of one socket share.
pub(super) struct Lane {
    socket: Arc<Socket>,
    workers: usize,
    /// Taken by the worker that receives.
    lead: Lead<Next>,
    /// Whose train is written.
    turn: Turn,
    /// Of SAs whose selectors name ports; used in turn.
    fragments: Mutex<Fragments>,
}

struct Next {
    /// The number of the next train.
    ticket: u64,
    /// Of the socket's receive buffer.
    codel: Codel,
}

struct Fragments {
    table: FragmentTable,
    ticked: Instant,
}

/// A worker.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    number: usize,
    /// Of the lane, while it is this worker that receives.
    lead: Option<Next>,
    reader: Reader,
    buffer: Box<[u8]>,
    opener: Opener,
}

/// All of a worker that changes while a train is looked at.
struct Opener {
    joiner: Joiner,
    /// For SAs whose selectors do not ask; stays empty.
    no_fragments: FragmentTable,
    strangers: Strangers,
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

impl Lane {
    pub(super) fn new(socket: Arc<Socket>, workers: usize) -> Self {
        Self {
            socket,
            workers,
            lead: Lead::new(Next {
                ticket: 0,
                codel: Codel::default(),
            }),
            turn: Turn::starting_with(0),
            fragments: Mutex::new(Fragments::new()),
        }
    }

    /// How long a train has waited in the socket, if it has too long and others wait behind it.
    pub(super) fn queued_for(&self, received: &Received) -> Option<Duration> {
        let waited = received.waited.filter(|waited| *waited >= Codel::TARGET);
        waited.filter(|_| self.socket.udp.has_more())
    }
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>, lane: Arc<Lane>, number: usize) -> Self {
        Self {
            shared,
            lane,
            number,
            lead: None,
            reader: Reader::default(),
            buffer: vec![0; RECEIVE_MAX].into_boxed_slice(),
            opener: Opener::new(),
        }
    }

    /// Works as long as the process lives.
    pub(super) fn run(mut self) {
        loop {
            if let Err(error) = self.turn() {
                tracing::debug!(
                    "UDP {}: cannot receive: {error}",
                    self.lane.socket.udp.local_addr()
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Waits for one train and handles it. Comes back without one now and then.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.turn_where(|shared, lane, received| {
            let waited = lane.queued_for(received)?;
            Some((Duration::from_millis(shared.now_ms()), waited))
        })
    }

    /// As above; `queued` tells the time and how long the train was in a queue.
    pub(super) fn turn_where(
        &mut self,
        queued: impl FnOnce(&Shared, &Lane, &Received) -> Option<(Duration, Duration)>,
    ) -> io::Result<()> {
        let Self {
            shared,
            lane,
            number,
            lead,
            reader,
            buffer,
            opener,
        } = self;
        let socket = &lane.socket;
        let next = match lead.take().or_else(|| lane.lead.try_take()) {
            Some(next) => next,
            None => {
                // It may take long, and keys of SAs that are gone are not to be kept.
                reader.release();
                lane.lead.take()
            }
        };
        let next = lead.insert(next);
        let Some(received) = socket.udp.recv_wait(buffer)? else {
            reader.current(&shared.published);
            shared.drain_errors(socket);
            return Ok(());
        };
        let ticket = next.ticket;
        next.ticket += 1;
        let late = match queued(shared, lane, &received) {
            Some((now, waited)) => next.codel.is_due(now, waited),
            None => {
                next.codel.queue_ended();
                false
            }
        };
        let segment = received.segment.max(1);
        let many = received.len >= LONG
            || received.len >= MANY * segment
            || received.waited.is_some_and(|waited| waited >= WAITED);
        if lane.workers > 1
            && many
            && let Some(next) = lead.take()
        {
            lane.lead.give(next);
        }
        if received.truncated {
            shared.drops.add(Reason::Truncated, 1);
        } else {
            let context = Context {
                shared,
                tables: reader.current(&shared.published),
                turn: Some((&lane.turn, ticket)),
                fragments: &lane.fragments,
                worker: *number,
            };
            opener.open(&context, &Train::of(&received, socket, late), buffer);
        }
        lane.turn.wait(ticket);
        lane.turn.pass_to(ticket + 1);
        Ok(())
    }
}

impl Fragments {
    fn new() -> Self {
        Self {
            table: FragmentTable::new(),
            ticked: Instant::now(),
        }
    }

    fn table(&mut self) -> &mut FragmentTable {
        if self.ticked.elapsed() >= FRAGMENT_TICK {
            self.ticked = Instant::now();
            self.table.tick();
        }
        &mut self.table
    }
}

/// What a train is opened with.
struct Context<'c> {
    shared: &'c Shared,
    tables: &'c Tables,
    /// When its packets may be written, where that matters.
    turn: Option<(&'c Turn, u64)>,
    fragments: &'c Mutex<Fragments>,
    worker: usize,
}

impl Context<'_> {
    fn wait_for_turn(&self) {
        if let Some((turn, ticket)) = self.turn {
            turn.wait(ticket);
        }
    }
}

/// Opens what came for a Child SA before it was installed, or known to the worker that has it.
pub(super) fn readmit(shared: &Shared, tables: &Tables, parked: Vec<Parked>) {
    if parked.is_empty() {
        return;
    }
    let mut opener = Opener::new();
    let context = Context {
        shared,
        tables,
        turn: None,
        fragments: &Mutex::new(Fragments::new()),
        worker: 0,
    };
    for mut parked in parked {
        let train = Train {
            path: parked.path,
            outer: parked.outer,
            natt: true,
            len: parked.datagram.len(),
            segment: parked.datagram.len(),
            late: false,
        };
        opener.open(&context, &train, &mut parked.datagram);
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
    /// One of its packets is to be marked or dropped.
    late: bool,
}

impl Train {
    fn of(received: &Received, socket: &Socket, late: bool) -> Self {
        Self {
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
            late,
        }
    }
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

/// How a sender is told to slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Mark,
    Drop,
}

/// Tells a packet's sender to slow down, if the packet is fit for it: it is marked, or is to be dropped.
/// What does not understand marks and is not TCP may not understand drops either: it is dropped where the
/// train ends with it, for want of a better one.
fn signal(inner: &mut Inner, datagram: &mut [u8], is_last: bool) -> Option<Signal> {
    if inner.packet.len < BULKY {
        None
    } else if inner.mark_congestion(datagram) {
        Some(Signal::Mark)
    } else {
        (is_last || inner.packet.protocol == protocol::TCP).then_some(Signal::Drop)
    }
}

impl Opener {
    fn new() -> Self {
        Self {
            joiner: Joiner::new(JoinConfig {
                tcp: false,
                udp: false,
            }),
            no_fragments: FragmentTable::new(),
            strangers: Strangers::new(),
            scratch: [Vec::new(), Vec::new()],
        }
    }

    /// Tells the datagrams of a train apart, opens and delivers.
    fn open(&mut self, context: &Context<'_>, train: &Train, buffer: &mut [u8]) {
        let Context { shared, tables, .. } = context;
        let mut late = train.late;
        let path = train.path;
        let mut target: Option<&Arc<Device>> = None;
        // A train is mostly of one Child SA.
        let mut latest: Option<(u32, &Sa)> = None;
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
            let known = latest.filter(|(spi, _)| *spi == header.spi);
            let known = known.map(|(_, sa)| sa);
            let found = || tables.inbound.get(&header.spi).map(Arc::as_ref);
            let Some(sa) = known.or_else(found) else {
                if let Some(parked) = self.stranger(shared, train, header.spi, datagram) {
                    // What came before it is written before it.
                    if let Some(device) = target.take() {
                        self.deliver(context, device, buffer);
                    }
                    context.wait_for_turn();
                    let mut reader = Reader::default();
                    readmit(shared, reader.current(&shared.published), vec![parked]);
                }
                continue;
            };
            latest = Some((header.spi, sa));
            let opened = if sa.sa.selectors().needs_ports() {
                // What a later fragment belongs to is known once those before it were looked at.
                context.wait_for_turn();
                let fragments = context.fragments.lock();
                let mut fragments = fragments.unwrap_or_else(PoisonError::into_inner);
                sa.sa.open(datagram, train.outer, fragments.table())
            } else {
                sa.sa.open(datagram, train.outer, &mut self.no_fragments)
            };
            if opened.first_authenticated && sa.report_first {
                shared.report(DataEvent::FirstAuthenticated { child: sa.child });
            }
            if let Some(limit) = opened.limit {
                shared.report(limit_event(sa.child, limit));
            }
            if path.remote != sa.path.remote && is_authentic(&opened.inner) {
                moved(shared, sa, header, path);
            }
            let Ok(mut inner) = opened.inner else {
                continue;
            };
            if late && let Some(signal) = signal(&mut inner, datagram, end == train.len) {
                late = false;
                if signal == Signal::Drop {
                    shared.drops.add(Reason::Late, 1);
                    continue;
                }
            }
            if !target.is_some_and(|device| Arc::ptr_eq(device, &sa.device)) {
                if let Some(device) = target {
                    self.deliver(context, device, buffer);
                }
                self.joiner.set_config(sa.device.join());
                target = Some(&sa.device);
            }
            let range = start + inner.range.start..start + inner.range.end;
            self.joiner.push(buffer, range, &inner.packet);
        }
        if let Some(device) = target {
            self.deliver(context, device, buffer);
        }
    }

    /// A datagram for a Child SA that is not installed, or not known to this worker: then it is given back, and others
    /// know it.
    fn stranger(
        &mut self,
        shared: &Shared,
        train: &Train,
        spi: u32,
        datagram: &[u8],
    ) -> Option<Parked> {
        match shared.parking.park(spi, train.path, train.outer, datagram) {
            Verdict::Parked => {}
            Verdict::Installed(parked) => return Some(parked),
            Verdict::Full => shared.drops.add(Reason::EarlyQueueFull, 1),
            Verdict::Unknown => {
                shared.drops.add(Reason::UnknownSpi, 1);
                let path = train.path;
                if (self.strangers).pass(path.remote.ip(), shared.now_ms()) {
                    shared.report(DataEvent::UnknownSpi { spi, path });
                }
            }
        }
        None
    }

    /// Writes what was joined.
    fn deliver(&mut self, context: &Context<'_>, device: &Device, buffer: &mut [u8]) {
        self.joiner.finish(buffer);
        context.wait_for_turn();
        let shared = context.shared;
        let Some(queue) = device.queue_for(context.worker) else {
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
#[path = "inbound_tests.rs"]
mod tests;

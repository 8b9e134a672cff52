//! From a TUN queue to the network: read, look up, fit, seal, send.
//!
//! One worker a queue. It sends a batch when path, TOS or size change, when it is full, and at the end
//! of a burst of reads.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cygnet_esp::toobig::{self, Fit, packet_too_big};
use cygnet_esp::{
    FragmentTable, LimitReached, Outlet, Segments, SendBatch, Verdict, seal_segments,
};
use cygnet_ike::io::{ChildSaId, DataEvent};
use cygnet_linux::SendError;
use cygnet_wire::ip::VirtioNetHeader;

use super::device::{Device, Queue};
use super::drops::Reason;
use super::road::Road;
use super::tables::{Outlets, Reader, Way};
use super::{FRAGMENT_TICK, IDLE_MS, Shared, wait};

/// Reads before the batch is sent, whatever waits.
const BURST: usize = 64;
/// Longest read: a super-packet with its virtio header.
const READ_MAX: usize = 65_535 + VirtioNetHeader::LEN;
/// How often a read is cut again because the path turned out narrower.
const CUTS: usize = 3;
/// ICMP errors a second (RFC 1812 §4.3.2.8).
const ICMP_PER_SECOND: u32 = 100;

/// A worker.
pub(super) struct Outbound {
    device: Arc<Device>,
    queue: Arc<dyn Queue>,
    /// Of the device in [`super::tables::Tables::outbound`].
    place: usize,
    reader: Reader,
    read: Box<[u8]>,
    scratch: Box<[u8]>,
    sender: Sender,
}

/// All of a worker that changes while a read is looked at.
struct Sender {
    shared: Arc<Shared>,
    queue: Arc<dyn Queue>,
    batch: SendBatch<u64>,
    /// Where the batch goes.
    road: Option<Arc<Road>>,
    /// The batch holds packets of reads before the last one, which cannot be cut again.
    earlier: bool,
    fragments: FragmentTable,
    ticked: Instant,
    icmp: Allowance,
}

/// What came of sending a batch; it is empty unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Done,
    /// The path is narrower than was known; the batch is still there.
    TooBig,
}

impl Outbound {
    pub(super) fn new(
        shared: Arc<Shared>,
        device: Arc<Device>,
        queue: Arc<dyn Queue>,
        place: usize,
    ) -> Self {
        Self {
            device,
            place,
            reader: Reader::default(),
            read: vec![0; READ_MAX].into_boxed_slice(),
            // Rarely touched, so rarely memory.
            scratch: vec![0; READ_MAX].into_boxed_slice(),
            sender: Sender {
                shared,
                queue: Arc::clone(&queue),
                batch: SendBatch::new(),
                road: None,
                earlier: false,
                fragments: FragmentTable::new(),
                ticked: Instant::now(),
                icmp: Allowance::new(),
            },
            queue,
        }
    }

    /// Works until the device is gone.
    pub(super) fn run(mut self) {
        loop {
            wait::readable(self.queue.descriptor(), IDLE_MS);
            if let Err(error) = self.turn() {
                if error.raw_os_error() == Some(rustix::io::Errno::BADFD.raw_os_error()) {
                    tracing::debug!("{}: the interface is gone", self.device.name);
                    return;
                }
                tracing::debug!("{}: cannot read: {error}", self.device.name);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// One burst.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let Self {
            queue,
            place,
            reader,
            read,
            scratch,
            sender,
            ..
        } = self;
        sender.tick();
        let tables = reader.current(&sender.shared.published);
        let outlets = tables.outbound.get(*place);
        let mut last = 0;
        let mut result = Ok(());
        for _ in 0..BURST {
            match queue.read(read) {
                Ok(len) => last = len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            match outlets {
                Some(outlets) => sender.handle(outlets, read.get(..last).unwrap_or(&[]), scratch),
                None => sender.shared.drops.add(Reason::NoPolicy, 1),
            }
        }
        if let Some(outlets) = outlets {
            sender.settle(outlets, read.get(..last).unwrap_or(&[]), scratch);
        }
        result
    }
}

impl Sender {
    fn tick(&mut self) {
        if self.ticked.elapsed() >= FRAGMENT_TICK {
            self.ticked = Instant::now();
            self.fragments.tick();
        }
    }

    /// A read; what of it is not in the batch afterwards was sent or dropped.
    fn handle(&mut self, outlets: &Outlets, read: &[u8], scratch: &mut [u8]) {
        let Ok(header) = VirtioNetHeader::parse(read) else {
            return self.shared.drops.add(Reason::NotIp, 1);
        };
        let packet = read.get(VirtioNetHeader::LEN..).unwrap_or_default();
        self.earlier = !self.batch.is_empty();
        let mut sent = 0;
        for _ in 0..CUTS {
            let Ok(mut segments) = Segments::new(&header, packet) else {
                return self.shared.drops.add(Reason::NotIp, 1);
            };
            let Some(outlet) = self.lookup(outlets, &segments) else {
                return;
            };
            let max_inner = outlet.path.road.max_inner(&outlet.sa);
            match toobig::fit(&mut segments, max_inner) {
                Fit::Fits => {
                    if self.seal(outlet, &mut segments, &mut sent) {
                        return;
                    }
                }
                Fit::OneByOne => {
                    return self.one_by_one(outlet, &mut segments, max_inner, sent, scratch);
                }
                Fit::TooBig => return self.answer(&mut segments, max_inner, scratch),
            }
        }
        self.shared.drops.add(Reason::TooBig, 1);
    }

    fn lookup<'o>(
        &mut self,
        outlets: &'o Outlets,
        segments: &Segments<'_>,
    ) -> Option<&'o Outlet<Way>> {
        let verdict = outlets
            .spd
            .lookup(segments.packet(), segments.flow(), &mut self.fragments);
        let reason = match verdict {
            Verdict::Seal(outlet) => return Some(outlet),
            Verdict::Acquire(policy, flow) => {
                if let Some(trap) = outlets.trap(policy)
                    && trap.acquired.pass(self.shared.now_ms())
                {
                    self.shared.report(DataEvent::Acquire {
                        connection: trap.connection.clone(),
                        child: trap.child.clone(),
                        packet: Some(flow.to_selectors()),
                    });
                }
                Reason::NoSa
            }
            Verdict::Discard(_) | Verdict::NoPolicy => Reason::NoPolicy,
            Verdict::UnknownFragment => Reason::UnknownFragment,
        };
        self.shared.drops.add(reason, segments.remaining());
        None
    }

    /// Seals all segments; false when they have to be cut again. `sent` counts those that have left.
    fn seal(
        &mut self,
        outlet: &Outlet<Way>,
        segments: &mut Segments<'_>,
        sent: &mut usize,
    ) -> bool {
        let road = &outlet.path.road;
        let all = segments.remaining();
        loop {
            if self.batch.is_empty() && self.road.as_ref().is_none_or(|r| r.id != road.id) {
                self.road = Some(Arc::clone(road));
            }
            let sealed = seal_segments(&outlet.sa, segments, &mut self.batch, road.id);
            let sealed = match sealed {
                Ok(sealed) => sealed,
                Err(error) => {
                    tracing::trace!("not sealed: {error}");
                    self.shared
                        .drops
                        .add(Reason::NotSealed, segments.remaining().max(1));
                    return true;
                }
            };
            if let Some(limit) = sealed.limit {
                self.shared.report(limit_event(outlet.path.child, limit));
            }
            if sealed.flush.is_none() {
                return true;
            }
            match self.flush() {
                Flush::Done => *sent = all - segments.remaining(),
                Flush::TooBig if self.earlier => self.flush_fragmenting(),
                Flush::TooBig => {
                    self.batch.clear();
                    return false;
                }
            }
            self.earlier = false;
        }
    }

    /// Equal datagrams that may each be cut: one after the other, without those that have left.
    fn one_by_one(
        &mut self,
        outlet: &Outlet<Way>,
        segments: &mut Segments<'_>,
        max_inner: usize,
        sent: usize,
        scratch: &mut [u8],
    ) {
        for number in 0..segments.remaining() {
            let Some(len) = segments.write_next(scratch) else {
                break;
            };
            if number < sent {
                continue;
            }
            let Ok(mut single) = Segments::plain(scratch.get(..len).unwrap_or_default()) else {
                break;
            };
            // A path that narrows once more costs these few.
            let fits = toobig::fit(&mut single, max_inner) == Fit::Fits;
            if !fits || !self.seal(outlet, &mut single, &mut 0) {
                self.shared.drops.add(Reason::TooBig, 1);
            }
        }
    }

    /// Tells the sender how long its packets may be.
    fn answer(&mut self, segments: &mut Segments<'_>, max_inner: usize, scratch: &mut [u8]) {
        self.shared.drops.add(Reason::TooBig, segments.remaining());
        if !self.icmp.take() {
            return;
        }
        // It speaks for the packet's destination: that is the one address which even a strict
        // reverse-path filter accepts on this interface, while one of our own would be a martian.
        let from = segments.packet().dst;
        let Some(len) = segments.write_next(scratch) else {
            return;
        };
        let mut message = [0; toobig::IPV6_MIN_MTU];
        let quoted = scratch.get(..len).unwrap_or_default();
        if let Some(len) = packet_too_big(quoted, max_inner, from, &mut message) {
            let header = VirtioNetHeader::PLAIN.emit();
            let message = message.get(..len).unwrap_or_default();
            let _ = self
                .queue
                .writev(&[IoSlice::new(&header), IoSlice::new(message)]);
        }
    }

    /// The end of a burst, whose last read was `read`.
    fn settle(&mut self, outlets: &Outlets, read: &[u8], scratch: &mut [u8]) {
        for _ in 0..CUTS {
            match self.flush() {
                Flush::Done => return,
                Flush::TooBig if self.earlier => break,
                Flush::TooBig => {
                    self.batch.clear();
                    self.handle(outlets, read, scratch);
                }
            }
        }
        self.flush_fragmenting();
    }

    /// Sends the batch.
    fn flush(&mut self) -> Flush {
        if self.try_send() == Flush::TooBig {
            return self.narrow();
        }
        self.batch.clear();
        Flush::Done
    }

    fn try_send(&self) -> Flush {
        let (Some(outer), Some(road)) = (self.batch.outer(), &self.road) else {
            return Flush::Done;
        };
        let mut refused = false;
        if self.batch.segments() > 1 && !road.is_single() {
            let parts = [IoSlice::new(self.batch.bytes())];
            let segment = u16::try_from(self.batch.segment_len()).ok();
            match road.send(&road.transmit(outer.tos, segment, &parts)) {
                Ok(()) => return Flush::Done,
                // Kernels say so also of datagrams larger than the path; one by one tells.
                Err(SendError::NoSegmentation) => refused = true,
                Err(SendError::TooBig) => return Flush::TooBig,
                Err(error) => {
                    self.lost(&error, self.batch.segments());
                    return Flush::Done;
                }
            }
        }
        for (number, datagram) in self.batch.datagrams().enumerate() {
            let parts = [IoSlice::new(datagram)];
            match road.send(&road.transmit(outer.tos, None, &parts)) {
                Ok(()) => {}
                Err(SendError::TooBig) if number == 0 => return Flush::TooBig,
                Err(error) => {
                    refused = false;
                    self.lost(&error, 1);
                }
            }
        }
        if refused {
            road.set_single();
        }
        Flush::Done
    }

    /// Sends the batch one by one, to be fragmented outside the tunnel: its packets cannot be cut
    /// any more, or the path is narrower than they may be cut to.
    fn flush_fragmenting(&mut self) {
        let (Some(outer), Some(road)) = (self.batch.outer(), &self.road) else {
            return;
        };
        for datagram in self.batch.datagrams() {
            let parts = [IoSlice::new(datagram)];
            let transmit = road.transmit(outer.tos, None, &parts);
            if let Err(error) = road.socket.udp.send_fragmenting(&transmit) {
                self.lost(&error, 1);
            }
        }
        self.batch.clear();
    }

    fn narrow(&mut self) -> Flush {
        if let Some(road) = &self.road
            && self.shared.learn_mtu(road, self.batch.segment_len())
        {
            return Flush::TooBig;
        }
        // No better cut is known.
        self.flush_fragmenting();
        Flush::Done
    }

    fn lost(&self, error: &SendError, count: usize) {
        tracing::trace!("not sent: {error}");
        let reason = match error {
            SendError::Full => Reason::SendQueueFull,
            SendError::Unreachable(_) => Reason::NoRoute,
            SendError::Filtered => Reason::SendForbidden,
            SendError::TooBig => Reason::TooBig,
            SendError::NoSegmentation | SendError::Other(_) => Reason::SendFailed,
        };
        self.shared.drops.add(reason, count);
    }
}

/// What a limit means for the core.
pub(super) fn limit_event(child: ChildSaId, limit: LimitReached) -> DataEvent {
    match limit {
        LimitReached::Soft => DataEvent::SoftLimit { child },
        LimitReached::Hard => DataEvent::HardLimit { child },
    }
}

/// So many a second.
struct Allowance {
    since: Instant,
    left: u32,
}

impl Allowance {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            left: ICMP_PER_SECOND,
        }
    }

    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

//! From the TUN queues to the network: read, look up, fit, seal, send.
//!
//! A worker serves any number of queues. It reads a queue in [`Burst`]s; those packets of one that leave by
//! the same Child SA with the same TOS are sealed together, under consecutive numbers, but for those that would
//! overtake a packet between the same hosts. Several workers may seal for one Child SA at once; their batches
//! enter the socket in the order of their numbers, since peers' replay windows are as small as 32.
//!
//! A batch may outlive its burst ([`Open`]), so that the next fills it up. It holds its numbers, and stays open
//! only where no other worker has drawn numbers after them and more is read already; it is sent before anything
//! of another path or Child SA, and at the end of a queue's turn. What is in it of earlier bursts cannot be cut
//! again: if the path turns out narrower it leaves in fragments outside the tunnel.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use cygnet_esp::toobig::{self, Fit, packet_too_big};
use cygnet_esp::{FragmentTable, LimitReached, Outlet, Progress, Segments, Verdict, seal_segments};
use cygnet_ike::io::{ChildSaId, DataEvent};
use cygnet_wire::ip::VirtioNetHeader;

use super::burst::{Burst, End, READ_MAX, READS};
use super::device::Queue;
use super::drops::Reason;
use super::road::Road;
use super::send::{Flush, Sender};
use super::tables::{Outlets, Reader, Way};
use super::turn::Turn;
use super::wait::{Key, Pool};
use super::{FRAGMENT_TICK, IDLE_MS, Shared};

/// Bursts of one queue before the others are looked at.
const BURSTS: usize = 16;
/// How often a group is cut again because the path turned out narrower.
const CUTS: usize = 3;
/// ICMP errors a second (RFC 1812 §4.3.2.8).
const ICMP_PER_SECOND: u32 = 100;

/// A worker.
pub(super) struct Outbound {
    reader: Reader,
    bursts: [Burst; 2],
    sealer: Sealer,
}

/// All of a worker that changes while a burst is looked at.
struct Sealer {
    shared: Arc<Shared>,
    sender: Sender,
    /// For packets that are written out before they are sealed.
    scratch: Box<[u8]>,
    fragments: FragmentTable,
    ticked: Instant,
    icmp: Allowance,
    /// What is in the batch when a burst ends that more follows.
    open: Option<Open>,
}

/// A batch that may have room for what is read next.
struct Open {
    road: Arc<Road>,
    turn: Arc<Turn>,
    /// The numbers of what is in it.
    seqs: Range<u64>,
}

impl Open {
    fn is_for(&self, way: &Way) -> bool {
        Arc::ptr_eq(&self.turn, &way.turn) && Arc::ptr_eq(&self.road, &way.road)
    }
}

/// A read that is to be sealed.
struct Pending<'b, 'o> {
    read: &'b [u8],
    segments: Segments<'b>,
    outlet: &'o Outlet<Way>,
    /// What of it has left.
    left: Progress,
    /// All of it left, or was dropped.
    done: bool,
    /// Of the group that is being sent.
    member: bool,
    /// To be written out first ([`Fit::OneByOne`]).
    singly: bool,
}

/// What becomes of the last batch of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It is sent.
    Send,
    /// It is sent, and if need be in fragments outside the tunnel.
    SendAnyhow,
    /// It stays open where nobody waits for it: more comes at once.
    KeepOpen,
}

impl Pending<'_, '_> {
    /// Whether it waits to leave with the group that is being sent.
    fn waits(&self) -> bool {
        self.member && !self.done
    }

    fn hosts(&self) -> (IpAddr, IpAddr) {
        let packet = self.segments.packet();
        (packet.src, packet.dst)
    }

    /// It was cut for a wider path: understands it anew, without what has left.
    fn understand_anew(&mut self) {
        match segments(self.read) {
            Some(mut whole) => {
                whole.resume(self.left);
                self.segments = whole;
            }
            None => self.done = true,
        }
    }
}

impl Outbound {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            reader: Reader::default(),
            bursts: [Burst::new(), Burst::new()],
            sealer: Sealer {
                sender: Sender::new(Arc::clone(&shared)),
                shared,
                scratch: vec![0; READ_MAX].into_boxed_slice(),
                fragments: FragmentTable::new(),
                ticked: Instant::now(),
                icmp: Allowance::new(),
                open: None,
            },
        }
    }

    /// Works as long as the process lives.
    pub(super) fn run(mut self, pool: &Pool) {
        let mut ready = ArrayVec::new();
        loop {
            if let Err(error) = pool.wait(&mut ready, IDLE_MS) {
                tracing::debug!("cannot wait for TUN queues: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
            // Keys of SAs that are gone are not kept while nothing comes.
            let tables = self.reader.current(&self.sealer.shared.published);
            let devices = ready.iter().filter_map(|key: &Key| {
                let outlets = tables.outbound.get(&key.place)?;
                Some((*key, Arc::clone(&outlets.device)))
            });
            for (key, device) in devices.collect::<ArrayVec<_, { Pool::EVENTS }>>() {
                let Some(queue) = device.queues().get(key.queue) else {
                    continue;
                };
                if let Err(error) = self.turn(key.place, queue.as_ref()) {
                    if error.raw_os_error() == Some(rustix::io::Errno::BADFD.raw_os_error()) {
                        tracing::debug!("{}: the interface is gone", device.name);
                        pool.remove(queue.descriptor());
                        continue;
                    }
                    tracing::debug!("{}: cannot read: {error}", device.name);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// A queue's turn: what it holds, up to some bursts. The next burst is read before one is sealed, as
    /// only where more follows the last batch is left open for it.
    pub(super) fn turn(&mut self, place: usize, queue: &dyn Queue) -> io::Result<()> {
        let Self {
            reader,
            bursts: [first, second],
            sealer,
        } = self;
        let (mut burst, mut next) = (first, second);
        let mut end = burst.fill(queue);
        for further in (0..BURSTS).rev() {
            let ahead = (matches!(end, End::Full) && further != 0).then(|| next.fill(queue));
            let more = ahead.is_some() && next.len() != 0;
            sealer.tick();
            let tables = reader.current(&sealer.shared.published);
            match tables.outbound.get(&place) {
                Some(outlets) => sealer.burst(outlets, burst, queue, more),
                None => sealer.shared.drops.add(Reason::NoPolicy, burst.len()),
            }
            if !more {
                sealer.send_open_unless(|_| false);
            }
            let Some(ahead) = ahead else {
                break;
            };
            end = ahead;
            if !more {
                break;
            }
            std::mem::swap(&mut burst, &mut next);
        }
        match end {
            End::Failed(error) => Err(error),
            End::Empty | End::Full => Ok(()),
        }
    }
}

/// What the network stack sends by itself, into whatever interface there is.
fn is_noise(destination: IpAddr) -> bool {
    destination.is_multicast() || destination == Ipv4Addr::BROADCAST
}

impl Sealer {
    fn tick(&mut self) {
        if self.ticked.elapsed() >= FRAGMENT_TICK {
            self.ticked = Instant::now();
            self.fragments.tick();
        }
    }

    /// All of a burst is sent or dropped, but for an open batch where `more` follows.
    fn burst(&mut self, outlets: &Outlets, burst: &Burst, queue: &dyn Queue, more: bool) {
        let mut pending: ArrayVec<Pending<'_, '_>, READS> = ArrayVec::new();
        for number in 0..burst.len() {
            if let Some(packet) = self.understand(outlets, burst.read(number)) {
                pending.push(packet);
            }
        }
        let mut left = &mut pending[..];
        while let Some(first) = left.first() {
            if first.done {
                left = left.split_first_mut().map_or(&mut [], |(_, rest)| rest);
            } else if first.singly {
                self.one_by_one(left);
            } else {
                self.group(left, queue, more);
            }
        }
    }

    fn understand<'b, 'o>(
        &mut self,
        outlets: &'o Outlets,
        read: &'b [u8],
    ) -> Option<Pending<'b, 'o>> {
        let Some(segments) = segments(read) else {
            self.shared.drops.add(Reason::NotIp, 1);
            return None;
        };
        let outlet = self.lookup(outlets, &segments)?;
        Some(Pending {
            read,
            segments,
            outlet,
            left: Progress::default(),
            done: false,
            member: false,
            singly: false,
        })
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
            Verdict::Discard(_) | Verdict::NoPolicy if is_noise(segments.flow().dst) => {
                Reason::Multicast
            }
            Verdict::Discard(_) | Verdict::NoPolicy => Reason::NoPolicy,
            Verdict::UnknownFragment => Reason::UnknownFragment,
        };
        self.shared.drops.add(reason, segments.remaining());
        None
    }

    /// Sends the first packet, and with it those that may leave together with it: by the same SA, with
    /// the same TOS.
    fn group(&mut self, pending: &mut [Pending<'_, '_>], queue: &dyn Queue, more: bool) {
        let Some(first) = pending.first() else {
            return;
        };
        let outlet = first.outlet;
        choose(pending);
        for cut in 1..=CUTS {
            let max_inner = outlet.path.road.max_inner(&outlet.sa);
            let (mut packets, mut bytes) = (0, 0);
            let mut fragments = false;
            for packet in members(pending) {
                match toobig::fit(&mut packet.segments, max_inner) {
                    fit @ (Fit::Fits | Fit::Fragments) => {
                        fragments |= fit == Fit::Fragments;
                        packet.done = packet.segments.remaining() == 0;
                        packets += packet.segments.remaining() as u64;
                        bytes += packet.segments.len_of_next(usize::MAX) as u64;
                    }
                    Fit::OneByOne => {
                        packet.singly = true;
                        // What is behind it stays behind it.
                        break;
                    }
                    Fit::TooBig => {
                        packet.done = true;
                        self.answer(&mut packet.segments, max_inner, queue);
                    }
                }
            }
            let after = match (fragments || cut == CUTS, more) {
                (true, _) => After::SendAnyhow,
                (false, true) => After::KeepOpen,
                (false, false) => After::Send,
            };
            if packets == 0 || self.seal(pending, outlet, (packets, bytes), after) {
                return;
            }
        }
    }

    /// Seals and sends a group of so many packets and bytes; false when it has to be cut again, which
    /// is not said with [`After::SendAnyhow`].
    fn seal(
        &mut self,
        pending: &mut [Pending<'_, '_>],
        outlet: &Outlet<Way>,
        (packets, bytes): (u64, u64),
        after: After,
    ) -> bool {
        let Outlet { sa, path: way } = outlet;
        self.send_open_unless(|open| open.is_for(way));
        let reserved = match sa.reserve(packets, bytes) {
            Ok(reserved) => reserved,
            Err(error) => {
                tracing::trace!("not sealed: {error}");
                members(pending).for_each(|packet| packet.done = true);
                self.shared.drops.add(Reason::NotSealed, packets as usize);
                return true;
            }
        };
        if let Some(limit) = reserved.limit {
            self.shared.report(limit_event(way.child, limit));
        }
        let mut seqs = reserved.seqs;
        let end = seqs.end;
        self.send_open_unless(|open| open.seqs.end == seqs.start);
        // The first number that has not entered the socket, and how many datagrams of earlier bursts have
        // not.
        let mut waiting = self.open.take().map_or(seqs.start, |open| open.seqs.start);
        let mut earlier = self.sender.batch().segments();
        let anyhow = after == After::SendAnyhow;
        let mut flush = |sender: &mut Sender, next: u64| {
            way.turn.wait(waiting);
            let flush = sender.flush(&way.road, std::mem::take(&mut earlier), anyhow);
            way.turn.pass_to(next);
            waiting = next;
            flush
        };
        let mut narrowed = false;
        let mut number = 0;
        while let Some(packet) = pending.get_mut(number)
            && !narrowed
        {
            if !packet.waits() {
                number += 1;
                continue;
            }
            if packet.singly {
                break;
            }
            let batch = self.sender.batch();
            match seal_segments(sa, &mut packet.segments, batch, (), &mut seqs) {
                Ok(None) => number += 1,
                Ok(Some(_)) => {
                    let flush = flush(&mut self.sender, seqs.start);
                    narrowed = note_left(members(pending), flush);
                }
                Err(error) => {
                    tracing::trace!("not sealed: {error}");
                    let lost = packet.segments.remaining().max(1);
                    // What of it is in the batch has to be told from what is not.
                    let flush = flush(&mut self.sender, seqs.start);
                    narrowed = note_left(members(pending), flush);
                    if !narrowed && let Some(packet) = pending.get_mut(number) {
                        self.shared.drops.add(Reason::NotSealed, lost);
                        packet.done = true;
                    }
                }
            }
        }
        // Where nobody else waits for its numbers, and it has some.
        let may_wait = seqs.is_empty() && !self.sender.batch().is_empty() && sa.next_seq() == end;
        if !narrowed && after == After::KeepOpen && may_wait {
            members(pending).for_each(|packet| packet.done = true);
            self.open = Some(Open {
                road: Arc::clone(&way.road),
                turn: Arc::clone(&way.turn),
                seqs: waiting..end,
            });
            return true;
        }
        if !narrowed {
            // Numbers that were not used are skipped.
            let flush = flush(&mut self.sender, end);
            narrowed = note_left(members(pending), flush);
        }
        if waiting != end {
            way.turn.wait(waiting);
            way.turn.pass_to(end);
        }
        if narrowed {
            members(pending).for_each(Pending::understand_anew);
        }
        !narrowed
    }

    /// Sends what was left open, unless it can go on with what comes.
    fn send_open_unless(&mut self, goes_on: impl FnOnce(&Open) -> bool) {
        if let Some(open) = self.open.take_if(|open| !goes_on(open)) {
            open.turn.wait(open.seqs.start);
            let earlier = self.sender.batch().segments();
            self.sender.flush(&open.road, earlier, true);
            open.turn.pass_to(open.seqs.end);
        }
    }

    /// Equal datagrams in one read that may each be cut: one after the other.
    fn one_by_one(&mut self, pending: &mut [Pending<'_, '_>]) {
        let Some(whole) = pending.first_mut() else {
            return;
        };
        whole.done = true;
        let outlet = whole.outlet;
        let max_inner = outlet.path.road.max_inner(&outlet.sa);
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(len) = whole.segments.write_next(&mut scratch) {
            let read = scratch.get(..len).unwrap_or_default();
            let Ok(mut segments) = Segments::plain(read) else {
                break;
            };
            // A path that narrows once more costs these few.
            if toobig::fit(&mut segments, max_inner) != Fit::Fits {
                self.shared.drops.add(Reason::TooBig, 1);
                continue;
            }
            let packets = segments.remaining() as u64;
            let bytes = segments.len_of_next(usize::MAX) as u64;
            let mut single = [Pending {
                read,
                segments,
                outlet,
                left: Progress::default(),
                done: false,
                member: true,
                singly: false,
            }];
            self.seal(&mut single, outlet, (packets, bytes), After::SendAnyhow);
        }
        self.scratch = scratch;
    }

    /// Tells the sender how long its packets may be.
    fn answer(&mut self, segments: &mut Segments<'_>, max_inner: usize, queue: &dyn Queue) {
        self.shared.drops.add(Reason::TooBig, segments.remaining());
        if !self.icmp.take() {
            return;
        }
        // It speaks for the packet's destination: that is the one address which even a strict
        // reverse-path filter accepts on this interface, while one of our own would be a martian.
        let from = segments.packet().dst;
        let Some(len) = segments.write_next(&mut self.scratch) else {
            return;
        };
        let mut message = [0; toobig::IPV6_MIN_MTU];
        let quoted = self.scratch.get(..len).unwrap_or_default();
        if let Some(len) = packet_too_big(quoted, max_inner, from, &mut message) {
            let header = VirtioNetHeader::PLAIN.emit();
            let message = message.get(..len).unwrap_or_default();
            let _ = queue.writev(&[IoSlice::new(&header), IoSlice::new(message)]);
        }
    }
}

/// Chooses those that may leave together with the first: by the same Child SA with the same TOS. Between the same
/// two hosts none overtakes another, whatever its TOS: one sender's ECN marks and DSCPs change within a flow.
fn choose(pending: &mut [Pending<'_, '_>]) {
    let Some(first) = pending.first() else {
        return;
    };
    let (outlet, tos) = (
        std::ptr::from_ref(first.outlet),
        first.segments.packet().tos,
    );
    let mut passed = ArrayVec::<_, READS>::new();
    for packet in pending {
        packet.member = false;
        if packet.done || std::ptr::from_ref(packet.outlet) != outlet {
            continue;
        }
        packet.member = packet.segments.packet().tos == tos
            && (passed.is_empty() || !passed.contains(&packet.hosts()));
        if !packet.member {
            passed.push(packet.hosts());
        }
    }
}

/// The packets of a group that wait, up to one that has to be written out first.
fn members<'p, 'b, 'o>(
    pending: &'p mut [Pending<'b, 'o>],
) -> impl Iterator<Item = &'p mut Pending<'b, 'o>> + use<'p, 'b, 'o> {
    pending
        .iter_mut()
        .filter(|packet| packet.waits())
        .take_while(|packet| !packet.singly)
}

/// Notes what has left of a group after a batch was sent: the first of what was sealed. Tells whether the
/// rest has to be cut again.
fn note_left<'p, 'b: 'p, 'o: 'p>(
    members: impl Iterator<Item = &'p mut Pending<'b, 'o>>,
    flush: Flush,
) -> bool {
    let (mut datagrams, narrowed) = match flush {
        Flush::Done => (usize::MAX, false),
        Flush::TooBig { left } => (left, true),
    };
    for packet in members {
        let sealed = packet.segments.progress().packets() - packet.left.packets();
        let left = sealed.min(datagrams);
        datagrams -= left;
        packet.left = packet.segments.after(packet.left, left);
        packet.done = left == sealed && packet.segments.remaining() == 0;
        if !packet.done {
            break;
        }
    }
    narrowed
}

/// Understands a read.
fn segments(read: &[u8]) -> Option<Segments<'_>> {
    let header = VirtioNetHeader::parse(read).ok()?;
    Segments::new(&header, read.get(VirtioNetHeader::LEN..)?).ok()
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

//! Child SAs as the packet path sees them: one [`OutboundSa`] and one [`InboundSa`] a pair.
//!
//! Both are shared between threads (`Arc`), and everything that changes in them is atomic. They know
//! no path: which addresses their datagrams travel between is the caller's.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use thiserror::Error;

use crate::open::DropReason;
use crate::overhead::Overhead;
use crate::replay::ReplayWindow;
use crate::selectors::Selectors;
use crate::tos::DscpPolicy;

/// How much an SA may carry (RFC 4301 §4.4.2.1, "Lifetime"). Time is the caller's to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Inner bytes after which it should be replaced.
    pub soft_bytes: u64,
    /// Inner bytes after which it must not be used.
    pub hard_bytes: u64,
    /// Packets after which it should be replaced.
    pub soft_packets: u64,
    /// Packets after which it must not be used.
    pub hard_packets: u64,
}

impl Lifetime {
    /// No limit but that of the sequence numbers.
    pub const UNLIMITED: Self = Self {
        soft_bytes: u64::MAX,
        hard_bytes: u64::MAX,
        soft_packets: u64::MAX,
        hard_packets: u64::MAX,
    };
}

/// A limit was just reached; said once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitReached {
    /// Replace the SA.
    Soft,
    /// The SA no longer serves; it is to be deleted.
    Hard,
}

/// The SA takes no more packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Exhausted {
    /// Sequence numbers would repeat (RFC 4303 §3.3.3).
    #[error("sequence numbers of the SA are used up: it has to be replaced")]
    SequenceNumbers,
    /// Its hard lifetime is over.
    #[error("hard lifetime of the SA is over: it has to be replaced")]
    Lifetime,
}

/// What a packet path needs to seal: keys, next sequence number, selectors.
pub struct OutboundSa {
    spi: u32,
    sealer: EspSealer,
    selectors: Selectors,
    overhead: Overhead,
    dscp: DscpPolicy,
    tfc_len: usize,
    next_seq: AtomicU64,
    used: Usage,
}

impl OutboundSa {
    /// An SA whose first packet gets sequence number 1.
    pub fn new(spi: u32, sealer: EspSealer, selectors: Selectors, lifetime: Lifetime) -> Self {
        let overhead = Overhead::of(sealer.suite());
        Self {
            spi,
            sealer,
            selectors,
            overhead,
            dscp: DscpPolicy::Copy,
            tfc_len: 0,
            next_seq: AtomicU64::new(1),
            used: Usage::new(lifetime),
        }
    }

    /// Sets what happens to the inner DSCP.
    #[must_use]
    pub fn with_dscp(mut self, dscp: DscpPolicy) -> Self {
        self.dscp = dscp;
        self
    }

    /// Pads inner packets shorter than `len` bytes up to it, so that sizes tell less
    /// (RFC 4303 §2.7). Only where the peer has not declined it (ESP_TFC_PADDING_NOT_SUPPORTED).
    #[must_use]
    pub fn with_tfc_len(mut self, len: usize) -> Self {
        self.tfc_len = len;
        self
    }

    /// Sets the next sequence number, for an SA that continues elsewhere.
    #[must_use]
    pub fn with_next_seq(mut self, seq: u64) -> Self {
        self.next_seq = AtomicU64::new(seq.max(1));
        self
    }

    /// The peer's SPI.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Keys.
    pub fn sealer(&self) -> &EspSealer {
        &self.sealer
    }

    /// What it may carry.
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// What sealing adds to a packet.
    pub fn overhead(&self) -> Overhead {
        self.overhead
    }

    /// What happens to the inner DSCP.
    pub fn dscp(&self) -> DscpPolicy {
        self.dscp
    }

    /// Length up to which inner packets are padded; 0 for none.
    pub fn tfc_len(&self) -> usize {
        self.tfc_len
    }

    /// Takes `count` consecutive sequence numbers for packets of `bytes` inner bytes together.
    ///
    /// A number that was taken is never given again, used or not. So datagrams can be sealed in
    /// parallel, if they are sent in the order of their numbers.
    pub fn reserve(&self, count: u64, bytes: u64) -> Result<Reserved, Exhausted> {
        if self.used.is_over() {
            return Err(Exhausted::Lifetime);
        }
        let last = self.last_seq();
        let first = self
            .next_seq
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                // The number after the last is where `next` comes to rest.
                next.checked_add(count).filter(|after| *after - 1 <= last)
            })
            .map_err(|_| Exhausted::SequenceNumbers)?;
        let limit = self.used.add(count, bytes);
        Ok(Reserved {
            seqs: first..first + count,
            limit,
        })
    }

    /// Whether [`Self::reserve`] would still give a number.
    pub fn is_usable(&self) -> bool {
        !self.used.is_over() && self.next_seq.load(Ordering::Relaxed) <= self.last_seq()
    }

    /// The sequence number the next packet gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq.load(Ordering::Relaxed)
    }

    /// Inner bytes sealed.
    pub fn bytes(&self) -> u64 {
        self.used.bytes.load(Ordering::Relaxed)
    }

    /// Packets sealed.
    pub fn packets(&self) -> u64 {
        self.used.packets.load(Ordering::Relaxed)
    }

    /// The last sequence number that may be used; with ESN one less than fits, so that the next one
    /// can always be told.
    fn last_seq(&self) -> u64 {
        if self.sealer.suite().esn {
            u64::MAX - 1
        } else {
            u64::from(u32::MAX)
        }
    }
}

/// Consecutive sequence numbers, and whether taking them reached a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The numbers.
    pub seqs: Range<u64>,
    /// To be told to IKE.
    pub limit: Option<LimitReached>,
}

/// What a packet path needs to open: keys, replay window, selectors.
pub struct InboundSa {
    spi: u32,
    opener: EspOpener,
    selectors: Selectors,
    replay: ReplayWindow,
    used: Usage,
    authenticated: AtomicBool,
    drops: [AtomicU64; DropReason::COUNT],
}

impl InboundSa {
    /// An SA that has received nothing, with a replay window of `window` packets.
    pub fn new(
        spi: u32,
        opener: EspOpener,
        selectors: Selectors,
        lifetime: Lifetime,
        window: u32,
    ) -> Self {
        let replay = ReplayWindow::new(window, opener.suite().esn);
        Self {
            spi,
            opener,
            selectors,
            replay,
            used: Usage::new(lifetime),
            authenticated: AtomicBool::new(false),
            drops: [const { AtomicU64::new(0) }; DropReason::COUNT],
        }
    }

    /// Our SPI.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Keys.
    pub fn opener(&self) -> &EspOpener {
        &self.opener
    }

    /// What it may carry.
    pub fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// The replay window.
    pub fn replay(&self) -> &ReplayWindow {
        &self.replay
    }

    /// Inner bytes delivered.
    pub fn bytes(&self) -> u64 {
        self.used.bytes.load(Ordering::Relaxed)
    }

    /// Packets delivered.
    pub fn packets(&self) -> u64 {
        self.used.packets.load(Ordering::Relaxed)
    }

    /// Whether any packet has authenticated: the peer has begun to use the SA
    /// (RFC 7296 §2.8 lets the responder of a rekey switch over then).
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Packets dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Packets dropped, by every reason that occurred.
    pub fn all_drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops(reason)))
            .filter(|(_, count)| *count != 0)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.used.is_over()
    }

    /// True the first time only.
    pub(crate) fn note_authenticated(&self) -> bool {
        // The load keeps the line shared between threads once the flag is set.
        !self.authenticated.load(Ordering::Relaxed)
            && !self.authenticated.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn note_delivered(&self, bytes: usize) -> Option<LimitReached> {
        self.used.add(1, bytes as u64)
    }

    pub(crate) fn note_drop(&self, reason: DropReason) {
        if let Some(count) = self.drops.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counters and the limits on them.
struct Usage {
    bytes: AtomicU64,
    packets: AtomicU64,
    lifetime: Lifetime,
}

impl Usage {
    fn new(lifetime: Lifetime) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            lifetime,
        }
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.lifetime.hard_bytes
            || self.packets.load(Ordering::Relaxed) >= self.lifetime.hard_packets
    }

    /// Counts, and tells the strongest limit crossed by this very addition: since each addition sees
    /// another "before", each crossing is seen by one caller.
    fn add(&self, packets: u64, bytes: u64) -> Option<LimitReached> {
        let packets_before = self.packets.fetch_add(packets, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let crossed = |before: u64, added: u64, limit: u64| {
            before < limit && before.saturating_add(added) >= limit
        };
        let Lifetime {
            soft_bytes,
            hard_bytes,
            soft_packets,
            hard_packets,
        } = self.lifetime;
        if crossed(packets_before, packets, hard_packets)
            || crossed(bytes_before, bytes, hard_bytes)
        {
            Some(LimitReached::Hard)
        } else if crossed(packets_before, packets, soft_packets)
            || crossed(bytes_before, bytes, soft_bytes)
        {
            Some(LimitReached::Soft)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, suite_gcm};

    fn sa(esn: bool, lifetime: Lifetime) -> OutboundSa {
        OutboundSa::new(
            7,
            testing::sealer(suite_gcm(esn)),
            Selectors::any(),
            lifetime,
        )
    }

    #[test]
    fn sequence_numbers_end_before_they_repeat() {
        let sa = sa(false, Lifetime::UNLIMITED).with_next_seq(u64::from(u32::MAX) - 1);
        assert_eq!(sa.reserve(3, 0), Err(Exhausted::SequenceNumbers));
        assert_eq!(sa.reserve(2, 0).unwrap().seqs, 0xffff_fffe..0x1_0000_0000);
        assert!(!sa.is_usable());
        assert_eq!(sa.reserve(1, 0), Err(Exhausted::SequenceNumbers));
    }

    #[test]
    fn extended_sequence_numbers_end_too() {
        let sa = sa(true, Lifetime::UNLIMITED).with_next_seq(0xffff_ffff);
        assert_eq!(sa.reserve(2, 0).unwrap().seqs, 0xffff_ffff..0x1_0000_0001);
        let sa = sa_at_end();
        assert_eq!(sa.reserve(1, 0).unwrap().seqs, u64::MAX - 1..u64::MAX);
        assert_eq!(sa.reserve(1, 0), Err(Exhausted::SequenceNumbers));
        assert!(!sa.is_usable());
    }

    fn sa_at_end() -> OutboundSa {
        sa(true, Lifetime::UNLIMITED).with_next_seq(u64::MAX - 1)
    }

    #[test]
    fn limits_are_said_once() {
        let lifetime = Lifetime {
            soft_packets: 3,
            hard_bytes: 1000,
            ..Lifetime::UNLIMITED
        };
        let sa = sa(true, lifetime);
        assert_eq!(sa.reserve(2, 200).unwrap().limit, None);
        assert_eq!(sa.reserve(2, 200).unwrap().limit, Some(LimitReached::Soft));
        assert_eq!(sa.reserve(2, 200).unwrap().limit, None);
        assert_eq!(sa.reserve(2, 600).unwrap().limit, Some(LimitReached::Hard));
        assert_eq!(sa.reserve(1, 1), Err(Exhausted::Lifetime));
        assert!(!sa.is_usable());
        assert_eq!((sa.packets(), sa.bytes()), (8, 1200));
    }

    #[test]
    fn racing_threads_get_distinct_numbers_and_one_signal() {
        let lifetime = Lifetime {
            soft_packets: 5_000,
            ..Lifetime::UNLIMITED
        };
        let sa = sa(true, lifetime);
        let (mut seqs, signals) = std::thread::scope(|scope| {
            let take = || {
                (0..2_500)
                    .map(|_| sa.reserve(1, 1).unwrap())
                    .collect::<Vec<_>>()
            };
            let threads = [scope.spawn(take), scope.spawn(take), scope.spawn(take)];
            let all = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            all.map(|r| (r.seqs.start, r.limit))
                .unzip::<_, _, Vec<_>, Vec<_>>()
        });
        seqs.sort_unstable();
        assert!(seqs.into_iter().eq(1..=7_500));
        assert_eq!(
            signals.into_iter().flatten().collect::<Vec<_>>(),
            [LimitReached::Soft]
        );
    }
}

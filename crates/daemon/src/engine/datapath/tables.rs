//! What the workers look packets up in: a snapshot that never changes, replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cygnet_esp::{InboundSa, PolicyId, Spd};
use cygnet_ike::io::{ChildSaId, Path};

use super::device::Device;
use super::road::Road;
use super::turn::Turn;

/// The snapshot.
#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) inbound: Arc<InboundBySpi>,
    /// One for each device, at its place.
    pub(super) outbound: BTreeMap<usize, Arc<Outlets>>,
}

pub(super) type InboundBySpi = HashMap<u32, Arc<Inbound>, BuildHasherDefault<SpiHasher>>;

/// What a device's packets may leave by.
pub(super) struct Outlets {
    pub(super) device: Arc<Device>,
    pub(super) spd: Spd<Way>,
    /// By policy number: who negotiates an SA for its packets, if anybody.
    pub(super) traps: Vec<Option<Arc<Trap>>>,
}

impl Outlets {
    pub(super) fn trap(&self, policy: PolicyId) -> Option<&Arc<Trap>> {
        self.traps.get(policy.0 as usize)?.as_ref()
    }
}

/// Where an SA's datagrams go.
pub(super) struct Way {
    pub(super) road: Arc<Road>,
    pub(super) child: ChildSaId,
    /// By sequence number: whose datagrams enter the socket.
    pub(super) turn: Arc<Turn>,
}

/// A Child SA we receive on.
pub(super) struct Inbound {
    pub(super) sa: Arc<InboundSa>,
    pub(super) child: ChildSaId,
    /// The way the peer's datagrams are expected to come.
    pub(super) path: Path,
    /// Where the inner packets go.
    pub(super) device: Arc<Device>,
    pub(super) report_first: bool,
    /// Bounds reports that the peer moved.
    pub(super) moved: Arc<Limiter>,
}

/// A child brought up by traffic.
pub(super) struct Trap {
    pub(super) connection: String,
    pub(super) child: String,
    pub(super) selectors: cygnet_esp::Selectors,
    pub(super) acquired: Limiter,
}

/// Lets one through each second.
#[derive(Default)]
pub(super) struct Limiter(AtomicU64);

impl Limiter {
    const EVERY_MS: u64 = 1000;

    /// Whether it may pass; `now_ms` never goes back.
    pub(super) fn pass(&self, now_ms: u64) -> bool {
        // Zero is "never yet".
        let now = now_ms.saturating_add(1);
        let last = self.0.load(Ordering::Relaxed);
        (last == 0 || now.saturating_sub(last) >= Self::EVERY_MS)
            && self
                .0
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// The newest snapshot. Its lock is taken when the number has changed, and by a worker that had to wait for
/// the lead: never for each packet.
#[derive(Default)]
pub(super) struct Published {
    number: AtomicU64,
    tables: Mutex<Arc<Tables>>,
}

impl Published {
    pub(super) fn publish(&self, tables: Tables) {
        let mut place = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(tables);
        self.number.fetch_add(1, Ordering::Release);
    }

    /// How many there were.
    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}

/// A worker's hold on a snapshot.
#[derive(Default)]
pub(super) struct Reader {
    number: u64,
    tables: Option<Arc<Tables>>,
}

impl Reader {
    /// The newest snapshot. To be asked for after a packet has arrived: an SA was published before the
    /// message that let the peer use it left.
    pub(super) fn current(&mut self, published: &Published) -> &Tables {
        if published.number.load(Ordering::Acquire) != self.number {
            self.tables = None;
        }
        self.tables.get_or_insert_with(|| {
            let place = published
                .tables
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.number = published.number.load(Ordering::Acquire);
            Arc::clone(&place)
        })
    }

    /// Lets go of it, for as long as nothing is looked up.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

/// Our SPIs are random, so they are their own hash.
#[derive(Default)]
pub(super) struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, spi: u32) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = u64::from(spi) << 32 | u64::from(spi);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_each_second() {
        let limiter = Limiter::default();
        let passed: Vec<u64> = [0, 1, 999, 1000, 1500, 2000, 2001]
            .into_iter()
            .filter(|now| limiter.pass(*now))
            .collect();
        assert_eq!(passed, [0, 1000, 2000]);
    }

    #[test]
    fn a_reader_sees_what_was_published_before_it_looks() {
        let published = Published::default();
        let mut reader = Reader::default();
        assert!(reader.current(&published).outbound.is_empty());
        let join = cygnet_esp::JoinConfig {
            tcp: true,
            udp: true,
        };
        let outlets = Arc::new(Outlets {
            device: Arc::new(Device::new("a".into(), "a".into(), vec![], join)),
            spd: Spd::new(vec![]),
            traps: vec![],
        });
        published.publish(Tables {
            outbound: BTreeMap::from([(0, outlets)]),
            ..Tables::default()
        });
        assert_eq!(reader.current(&published).outbound.len(), 1);
        published.publish(Tables::default());
        assert!(reader.current(&published).outbound.is_empty());
    }
}

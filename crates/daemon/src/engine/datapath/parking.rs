//! Datagrams for Child SAs that are still being negotiated.
//!
//! A peer may send on a Child SA as soon as it has answered. Until its answer is verified and the Child
//! SA installed here, what it sends waits; without that, each reauthentication would lose packets.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cygnet_esp::Ecn;
use cygnet_ike::io::Path;

/// Datagrams that wait for one Child SA.
const EACH: usize = 128;
/// Datagrams that wait altogether.
const ALL: usize = 1024;
/// Who is late by more than this was repeated by its sender, or is of no use any more.
const LATEST: Duration = Duration::from_secs(1);

/// Reserved SPIs, and what came for them. Locked for datagrams that no Child SA is installed for, so
/// never on the packet path.
#[derive(Default)]
pub(super) struct Parking(Mutex<Lot>);

#[derive(Default)]
struct Lot {
    places: BTreeMap<u32, Place>,
    taken: usize,
}

enum Place {
    /// The Child SA is being negotiated.
    Reserved(Vec<Parked>),
    /// It is installed by now.
    Installed,
}

/// A datagram that waits.
pub(super) struct Parked {
    pub(super) path: Path,
    pub(super) outer: Ecn,
    pub(super) datagram: Vec<u8>,
    at: Instant,
}

/// What became of a datagram for which the worker knew no Child SA.
pub(super) enum Verdict {
    /// It waits.
    Parked,
    /// The Child SA was installed a moment ago: open it now.
    Installed(Parked),
    /// The SPI is nobody's, or there is no room.
    Unknown,
}

impl Parking {
    /// An SPI is negotiated.
    pub(super) fn reserve(&self, spi: u32) {
        self.with(|lot| {
            lot.places.insert(spi, Place::Reserved(Vec::new()));
        });
    }

    /// Its Child SA can be looked up from now on; gives what waited for it, in the order of arrival.
    pub(super) fn install(&self, spi: u32) -> Vec<Parked> {
        let waited = self.with(|lot| lot.replace(spi, Some(Place::Installed)));
        let in_time = |parked: &Parked| parked.at.elapsed() <= LATEST;
        waited.into_iter().filter(in_time).collect()
    }

    /// The SPI is nobody's any more.
    pub(super) fn free(&self, spi: u32) {
        self.with(|lot| drop(lot.replace(spi, None)));
    }

    /// A datagram came for which the worker's tables have no Child SA.
    pub(super) fn park(&self, spi: u32, path: Path, outer: Ecn, datagram: &[u8]) -> Verdict {
        self.with(|lot| {
            let parked = || Parked {
                path,
                outer,
                datagram: datagram.to_vec(),
                at: Instant::now(),
            };
            match lot.places.get_mut(&spi) {
                None => Verdict::Unknown,
                Some(Place::Installed) => Verdict::Installed(parked()),
                Some(Place::Reserved(waiting)) if waiting.len() < EACH && lot.taken < ALL => {
                    waiting.push(parked());
                    lot.taken += 1;
                    Verdict::Parked
                }
                Some(Place::Reserved(_)) => Verdict::Unknown,
            }
        })
    }

    /// Datagrams that wait.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.with(|lot| lot.taken)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Lot) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lot {
    fn replace(&mut self, spi: u32, place: Option<Place>) -> Vec<Parked> {
        let old = match place {
            Some(place) => self.places.insert(spi, place),
            None => self.places.remove(&spi),
        };
        match old {
            Some(Place::Reserved(waiting)) => {
                self.taken -= waiting.len();
                waiting
            }
            Some(Place::Installed) | None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn park(parking: &Parking, spi: u32, datagram: &[u8]) -> Verdict {
        let path = testing::path(
            "192.0.2.1:4500".parse().unwrap(),
            "192.0.2.2:4500".parse().unwrap(),
        );
        parking.park(spi, path, Ecn::of(0), datagram)
    }

    #[test]
    fn what_comes_early_waits_in_order() {
        let parking = Parking::default();
        assert!(matches!(park(&parking, 300, b"nobody's"), Verdict::Unknown));
        parking.reserve(300);
        assert!(matches!(park(&parking, 300, b"one"), Verdict::Parked));
        assert!(matches!(park(&parking, 300, b"two"), Verdict::Parked));
        let waited = parking.install(300);
        let waited: Vec<_> = waited.iter().map(|p| p.datagram.as_slice()).collect();
        assert_eq!(waited, [b"one", b"two"]);
        assert!(matches!(
            park(&parking, 300, b"late"),
            Verdict::Installed(_)
        ));
        parking.free(300);
        assert!(matches!(park(&parking, 300, b"gone"), Verdict::Unknown));
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let parking = Parking::default();
        for spi in 300..320 {
            parking.reserve(spi);
            let parked =
                (0..=EACH).filter(|_| matches!(park(&parking, spi, b"x"), Verdict::Parked));
            let room = ALL.saturating_sub((spi as usize - 300) * EACH).min(EACH);
            assert_eq!(parked.count(), room);
        }
        parking.free(300);
        assert!(matches!(park(&parking, 319, b"x"), Verdict::Parked));
    }
}

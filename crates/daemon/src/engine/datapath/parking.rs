//! Datagrams for Child SAs that are still being negotiated.
//!
//! A peer may send on a Child SA as soon as it has answered. Until its answer is verified and the Child
//! SA installed here, what it sends waits; without that, each reauthentication would lose packets.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cygnet_esp::Ecn;
use cygnet_ike::io::Path;

/// What waits for one Child SA. The octets are those of longer datagrams than paths carry: nobody sends these but to
/// fill memory.
const EACH: Amount = Amount {
    datagrams: 128,
    octets: 512 << 10,
};
/// What waits altogether.
const ALL: Amount = Amount {
    datagrams: 1024,
    octets: 4 << 20,
};
/// Who is late by more than this was repeated by its sender, or is of no use any more.
const LATEST: Duration = Duration::from_secs(1);

/// Reserved SPIs, and what came for them. Locked for datagrams that no Child SA is installed for, so
/// never on the packet path.
#[derive(Default)]
pub(super) struct Parking(Mutex<Lot>);

#[derive(Default)]
struct Lot {
    places: BTreeMap<u32, Place>,
    taken: Amount,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    datagrams: usize,
    octets: usize,
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
    /// It is being negotiated, and too much waits.
    Full,
    /// The SPI is nobody's.
    Unknown,
}

impl Parking {
    /// An SPI is negotiated.
    pub(super) fn reserve(&self, spi: u32) {
        self.with(|lot| {
            lot.places.insert(spi, Place::Reserved(Vec::new()));
        });
    }

    /// Gives what waits for a Child SA, in the order of arrival. If nothing does, or `anyhow`, `publish` has workers look
    /// it up from now on; until then more may come to wait.
    pub(super) fn install(&self, spi: u32, anyhow: bool, publish: impl FnOnce()) -> Vec<Parked> {
        self.with(|lot| {
            let mut waited = lot.replace(spi, Some(Place::Reserved(Vec::new())));
            waited.retain(|parked| parked.at.elapsed() <= LATEST);
            if waited.is_empty() || anyhow {
                publish();
                lot.replace(spi, Some(Place::Installed));
            }
            waited
        })
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
                Some(Place::Reserved(waiting)) => {
                    let len = datagram.len();
                    let (here, all) = (Amount::of(waiting).and(len), lot.taken.and(len));
                    if !(here.fits(EACH) && all.fits(ALL)) {
                        return Verdict::Full;
                    }
                    waiting.push(parked());
                    lot.taken = all;
                    Verdict::Parked
                }
            }
        })
    }

    /// Datagrams that wait.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.with(|lot| lot.taken.datagrams)
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
                let Amount { datagrams, octets } = Amount::of(&waiting);
                self.taken.datagrams -= datagrams;
                self.taken.octets -= octets;
                waiting
            }
            Some(Place::Installed) | None => Vec::new(),
        }
    }
}

impl Amount {
    fn of(waiting: &[Parked]) -> Self {
        let datagrams = waiting.len();
        let octets = waiting.iter().map(|parked| parked.datagram.len()).sum();
        Self { datagrams, octets }
    }

    /// With a datagram of this length.
    fn and(self, len: usize) -> Self {
        Self {
            datagrams: self.datagrams + 1,
            octets: self.octets + len,
        }
    }

    fn fits(self, most: Self) -> bool {
        self.datagrams <= most.datagrams && self.octets <= most.octets
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
        let installed = std::cell::Cell::new(false);
        let install = |anyhow| {
            let waited = parking.install(300, anyhow, || installed.set(true));
            let datagrams = waited.into_iter().map(|parked| parked.datagram);
            datagrams.collect::<Vec<_>>()
        };
        assert_eq!(install(false), [b"one", b"two"]);
        // What came while those were opened waits, too.
        assert!(matches!(park(&parking, 300, b"three"), Verdict::Parked));
        assert_eq!(
            (install(false), installed.get()),
            (vec![b"three".into()], false)
        );
        assert_eq!((install(false), installed.get()), (vec![], true));
        assert!(matches!(
            park(&parking, 300, b"late"),
            Verdict::Installed(_)
        ));
        parking.free(300);
        assert!(matches!(park(&parking, 300, b"gone"), Verdict::Unknown));
    }

    #[test]
    fn what_waited_too_long_keeps_nobody_from_being_installed() {
        let parking = Parking::default();
        parking.reserve(300);
        assert!(matches!(park(&parking, 300, b"old"), Verdict::Parked));
        parking.with(|lot| {
            let Some(Place::Reserved(waiting)) = lot.places.get_mut(&300) else {
                panic!("reserved");
            };
            waiting[0].at = Instant::now().checked_sub(2 * LATEST).unwrap();
        });
        let mut installed = false;
        let waited = parking.install(300, false, || installed = true);
        assert!(waited.is_empty() && installed);
        assert!(matches!(park(&parking, 300, b"new"), Verdict::Installed(_)));
        assert_eq!(parking.taken(), 0);
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let parking = Parking::default();
        let waits = |spi, datagram: &[u8]| match park(&parking, spi, datagram) {
            Verdict::Parked => true,
            Verdict::Full => false,
            _ => panic!("reserved"),
        };
        // By their number, and by their octets: so many of the longest.
        let longest = vec![0; 65_507];
        for (datagram, each, all) in [
            (&b"x"[..], EACH.datagrams, ALL.datagrams),
            (
                &longest,
                EACH.octets / longest.len(),
                ALL.octets / longest.len(),
            ),
        ] {
            let mut left = all;
            for spi in 300..320 {
                parking.reserve(spi);
                let waiting = (0..=each).filter(|_| waits(spi, datagram)).count();
                assert_eq!(waiting, left.min(each), "{spi}");
                left -= waiting;
            }
            parking.free(300);
            assert!(waits(319, datagram));
            let mut waited = 0;
            for spi in 301..320 {
                waited += parking.install(spi, true, || {}).len();
            }
            assert_eq!((waited, parking.taken()), (all - each + 1, 0));
        }
        assert_eq!(parking.with(|lot| lot.taken), Amount::default());
    }

    #[test]
    fn after_some_rounds_it_is_installed_whatever_waits() {
        let parking = Parking::default();
        parking.reserve(300);
        assert!(matches!(park(&parking, 300, b"one"), Verdict::Parked));
        let mut installed = false;
        let waited = parking.install(300, true, || installed = true);
        assert!(installed && waited.len() == 1);
        assert!(matches!(
            park(&parking, 300, b"late"),
            Verdict::Installed(_)
        ));
    }
}

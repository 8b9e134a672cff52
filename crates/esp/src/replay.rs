//! The anti-replay window (RFC 4303 §3.4.3), with inference of extended sequence numbers (Appendix A2).
//!
//! The window is shared: several threads may check and commit at once, without a lock, and still each
//! sequence number is accepted once. It is a ring of words that each hold 32 bits of the bitmap and,
//! beside them, which 32 sequence numbers those are; a word is replaced when a newer block needs its
//! place. So moving the window forward touches only the word of the packet that moved it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sequence numbers accepted so far, within a window below the highest.
pub struct ReplayWindow {
    /// The highest sequence number committed.
    top: AtomicU64,
    /// Block number (low 32 bits of `seq / 32`) in the high half, bitmap in the low half.
    ring: Box<[AtomicU64]>,
    size: u64,
    esn: bool,
}

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was accepted before.
    Replayed,
    /// It is left of the window: too old to tell.
    TooOld,
}

/// Sequence numbers in one word of the ring.
const BLOCK: u64 = 32;

impl ReplayWindow {
    /// How many sequence numbers below the highest are remembered where nothing else is configured.
    pub const DEFAULT_SIZE: u32 = 4096;
    /// The least size: RFC 4303 §3.4.3 demands support of 32.
    pub const MIN_SIZE: u32 = 32;
    /// The greatest size: 256 KiB of memory.
    pub const MAX_SIZE: u32 = 1 << 19;

    /// A window of `size` sequence numbers, brought into the range from [`Self::MIN_SIZE`] to
    /// [`Self::MAX_SIZE`].
    pub fn new(size: u32, esn: bool) -> Self {
        let size = u64::from(size.clamp(Self::MIN_SIZE, Self::MAX_SIZE));
        // One block more than the window is long, since a window rarely begins where a block does; and
        // a power of two, so that a block's place is found without a division.
        let blocks = (size.div_ceil(BLOCK) + 1).next_power_of_two();
        // Place n of the ring starts as block n of the sequence space with nothing committed.
        let ring = (0..blocks)
            .map(|block| AtomicU64::new(block << 32))
            .collect();
        let window = Self {
            top: AtomicU64::new(0),
            ring,
            size,
            esn,
        };
        // RFC 4303 §2.2: the first packet has number 1; 0 is never sent.
        if let Some(first) = window.ring.first() {
            first.store(1, Ordering::Relaxed);
        }
        window
    }

    /// The whole sequence number of a packet, given the 32 bits it carries, if it may be new.
    ///
    /// With ESN the high half is inferred (RFC 4303 §A2.2); it is right unless authentication says
    /// otherwise, so nothing changes before [`Self::commit`].
    pub fn check(&self, seq_low: u32) -> Result<u64, Refused> {
        let top = self.top.load(Ordering::Relaxed);
        let seq = if self.esn {
            self.infer(top, seq_low)?
        } else {
            u64::from(seq_low)
        };
        self.look(top, seq)?;
        Ok(seq)
    }

    /// Marks a sequence number that [`Self::check`] returned and whose packet has authenticated.
    ///
    /// Fails when another thread committed the same number meanwhile, or moved the window past it.
    pub fn commit(&self, seq: u64) -> Result<(), Refused> {
        let (word, tag, bit) = self.locate(seq).ok_or(Refused::TooOld)?;
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let marked = match age(current, tag) {
                Age::Same if current & bit != 0 => return Err(Refused::Replayed),
                Age::Same => current | bit,
                Age::Older => tag << 32 | bit,
                Age::Newer => return Err(Refused::TooOld),
            };
            match word.compare_exchange_weak(current, marked, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => current = now,
            }
        }
        if seq > self.top.load(Ordering::Relaxed) {
            self.top.fetch_max(seq, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The highest sequence number committed; 0 before the first.
    pub fn top(&self) -> u64 {
        self.top.load(Ordering::Relaxed)
    }

    /// How many sequence numbers are remembered.
    pub fn size(&self) -> u32 {
        // Clamped to u32 by `new`.
        self.size as u32
    }

    /// RFC 4303 §A2.2: the high half that puts the number into the window or, failing that, ahead of it.
    fn infer(&self, top: u64, seq_low: u32) -> Result<u64, Refused> {
        let (top_high, top_low) = (top >> 32, top & 0xffff_ffff);
        let low = u64::from(seq_low);
        let high = if top_low >= self.size - 1 {
            // Case A: the window lies in one subspace of 2^32.
            if low + self.size > top_low {
                top_high
            } else {
                top_high + 1
            }
        } else {
            // Case B: the window spans two.
            let bottom = (top_low + (1 << 32) + 1 - self.size) & 0xffff_ffff;
            if low < bottom {
                top_high
            } else {
                // Nothing precedes the first subspace.
                top_high.checked_sub(1).ok_or(Refused::TooOld)?
            }
        };
        if high > u64::from(u32::MAX) {
            return Err(Refused::TooOld);
        }
        Ok(high << 32 | low)
    }

    fn look(&self, top: u64, seq: u64) -> Result<(), Refused> {
        if seq > top {
            return Ok(());
        }
        if top - seq >= self.size {
            return Err(Refused::TooOld);
        }
        let (word, tag, bit) = self.locate(seq).ok_or(Refused::TooOld)?;
        let current = word.load(Ordering::Relaxed);
        match age(current, tag) {
            Age::Same if current & bit != 0 => Err(Refused::Replayed),
            Age::Same | Age::Older => Ok(()),
            Age::Newer => Err(Refused::TooOld),
        }
    }

    fn locate(&self, seq: u64) -> Option<(&AtomicU64, u64, u64)> {
        let block = seq / BLOCK;
        let word = self.ring.get(block as usize & (self.ring.len() - 1))?;
        Some((word, block & 0xffff_ffff, 1 << (seq % BLOCK)))
    }
}

enum Age {
    Same,
    Older,
    Newer,
}

/// How a word's block compares to the wanted one, in serial-number arithmetic of 32 bits. It errs only
/// about a word that no packet has touched for 2^36 sequence numbers, and then refuses.
fn age(word: u64, tag: u64) -> Age {
    let ahead = ((word >> 32) as u32).wrapping_sub(tag as u32);
    match ahead {
        0 => Age::Same,
        1..0x8000_0000 => Age::Newer,
        _ => Age::Older,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The definition, without any cleverness.
    struct Model {
        seen: BTreeSet<u64>,
        top: u64,
        size: u64,
    }

    impl Model {
        fn new(size: u32) -> Self {
            Self {
                seen: BTreeSet::from([0]),
                top: 0,
                size: size.into(),
            }
        }

        fn check(&self, seq: u64) -> Result<(), Refused> {
            if seq + self.size <= self.top {
                Err(Refused::TooOld)
            } else if self.seen.contains(&seq) {
                Err(Refused::Replayed)
            } else {
                Ok(())
            }
        }

        fn commit(&mut self, seq: u64) {
            self.seen.insert(seq);
            self.top = self.top.max(seq);
        }
    }

    #[test]
    fn sizes_are_bounded_and_zero_is_never_valid() {
        assert_eq!(ReplayWindow::new(0, false).size(), 32);
        assert_eq!(
            ReplayWindow::new(u32::MAX, false).size(),
            ReplayWindow::MAX_SIZE
        );
        let window = ReplayWindow::new(64, true);
        assert_eq!(window.check(0), Err(Refused::Replayed));
        assert_eq!(window.check(1), Ok(1));
    }

    #[test]
    fn window_of_32_accepts_exactly_the_last_32() {
        let window = ReplayWindow::new(32, false);
        window.commit(100).unwrap();
        assert_eq!(window.check(100), Err(Refused::Replayed));
        assert_eq!(window.check(69), Ok(69));
        assert_eq!(window.check(68), Err(Refused::TooOld));
        window.commit(69).unwrap();
        assert_eq!(window.commit(69), Err(Refused::Replayed));
        window.commit(101).unwrap();
        assert_eq!(window.check(69), Err(Refused::TooOld));
    }

    #[test]
    fn nothing_changes_before_commit() {
        let window = ReplayWindow::new(64, true);
        for _ in 0..3 {
            assert_eq!(window.check(7), Ok(7));
        }
        assert_eq!(window.top(), 0);
    }

    #[test]
    fn esn_high_half_is_inferred_on_both_sides_of_a_wrap() {
        let window = ReplayWindow::new(64, true);
        window.commit(0xffff_fff0).unwrap();
        // RFC 4303 §A2.2 case A: a small number after a large one belongs to the next subspace.
        assert_eq!(window.check(5), Ok(0x1_0000_0005));
        assert_eq!(window.check(0xffff_fff8), Ok(0xffff_fff8));
        window.commit(0x1_0000_0005).unwrap();
        // Case B: the window spans two subspaces.
        assert_eq!(window.check(0xffff_fff8), Ok(0xffff_fff8));
        assert_eq!(window.check(0xffff_fff0), Err(Refused::Replayed));
        assert_eq!(window.check(0), Ok(0x1_0000_0000));
        assert_eq!(window.check(6), Ok(0x1_0000_0006));
        assert_eq!(window.check(5), Err(Refused::Replayed));
    }

    #[test]
    fn before_the_first_subspace_there_is_nothing() {
        let window = ReplayWindow::new(64, true);
        assert_eq!(window.check(0xffff_ffff), Err(Refused::TooOld));
        let last = ReplayWindow::new(64, true);
        last.top.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(last.check(5), Err(Refused::TooOld));
    }

    #[test]
    fn each_number_is_accepted_once_by_racing_threads() {
        const THREADS: u64 = 4;
        const PACKETS: u64 = 20_000;
        let window = ReplayWindow::new(ReplayWindow::MAX_SIZE, false);
        let accepted = std::thread::scope(|scope| {
            let offer = || {
                (1..=PACKETS)
                    .filter(|seq| {
                        window
                            .check(*seq as u32)
                            .is_ok_and(|seq| window.commit(seq).is_ok())
                    })
                    .count() as u64
            };
            let threads = (0..THREADS).map(|_| scope.spawn(offer)).collect::<Vec<_>>();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<u64>()
        });
        assert_eq!(accepted, PACKETS);
    }

    #[test]
    fn a_moving_window_accepts_nothing_twice() {
        const PACKETS: u64 = 50_000;
        let window = ReplayWindow::new(64, true);
        let offer = || {
            let fresh =
                |seq: &u64| window.check(*seq as u32) == Ok(*seq) && window.commit(*seq).is_ok();
            (1..=PACKETS).filter(fresh).collect::<Vec<_>>()
        };
        let mut accepted = std::thread::scope(|scope| {
            let threads = [scope.spawn(offer), scope.spawn(offer), scope.spawn(offer)];
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        let total = accepted.len();
        accepted.sort_unstable();
        accepted.dedup();
        assert_eq!(accepted.len(), total);
        assert_eq!(window.top(), PACKETS);
    }

    /// Steps relative to the top: most near it, some at the edges, some far ahead.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        proptest::collection::vec(
            prop_oneof![
                6 => -40i64..40,
                2 => -300i64..300,
                1 => 0i64..100_000,
                1 => Just(1i64 << 20),
            ],
            1..400,
        )
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(size in 32u32..200, start in prop_oneof![Just(0u64), 1u64..1 << 30], steps in steps()) {
            let window = ReplayWindow::new(size, false);
            let mut model = Model::new(size);
            if start != 0 {
                window.commit(start).unwrap();
                model.commit(start);
            }
            for step in steps {
                let seq = model.top.saturating_add_signed(step).min(u64::from(u32::MAX));
                let verdict = window.check(seq as u32);
                prop_assert_eq!(verdict, model.check(seq).map(|()| seq));
                if verdict.is_ok() {
                    window.commit(seq).unwrap();
                    model.commit(seq);
                    prop_assert_eq!(window.commit(seq), Err(Refused::Replayed));
                }
                prop_assert_eq!(window.top(), model.top);
            }
        }

        #[test]
        fn agrees_with_the_model_across_subspaces(
            size in 32u32..200,
            start in prop_oneof![Just(1u64), (1u64 << 32) - 300..(1u64 << 32) + 300, (7u64 << 32) - 300..(7u64 << 32) + 300],
            steps in steps(),
        ) {
            let window = ReplayWindow::new(size, true);
            let mut model = Model::new(size);
            // A sender reaches a far start by steps the receiver can follow, less than 2^32 each.
            let mut at = 0;
            while at < start {
                at = start.min(at + (1 << 31));
                window.commit(window.check(at as u32).unwrap()).unwrap();
                model.commit(at);
                prop_assert_eq!(window.top(), at);
            }
            for step in steps {
                let seq = model.top.saturating_add_signed(step);
                let verdict = window.check(seq as u32);
                match model.check(seq) {
                    // What is left of the window is taken for a number of the next subspace, and
                    // fails to authenticate there; or there is none.
                    Err(Refused::TooOld) => prop_assert!(verdict.is_err() || verdict == Ok(seq + (1 << 32))),
                    expected => prop_assert_eq!(verdict, expected.map(|()| seq)),
                }
                if verdict == Ok(seq) {
                    window.commit(seq).unwrap();
                    model.commit(seq);
                }
                prop_assert_eq!(window.top(), model.top);
            }
        }
    }
}

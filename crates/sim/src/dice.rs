//! Randomness of a run: everything follows from its seed.

use std::time::Duration;

use cygnet_crypto::Random;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Who draws. Each has a stream of its own, so that a change in one leaves the others alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Scenario,
    Network,
    World,
    NodeA,
    NodeB,
}

/// A generator that repeats.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream as u64);
        Self(generator)
    }

    /// From zero up to, without, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    /// Whether something of this likelihood happens.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = self.below(of.len() as u64) as usize;
        of.get(at).copied()
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        // Microseconds, so that two things seldom fall on one moment unless they are meant to.
        Duration::from_micros(from * 1000 + self.below((to - from) * 1000 + 1))
    }
}

impl Random for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

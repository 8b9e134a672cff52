//! Round trips of a small request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rounded;

/// What most round trips take, and what the slow ones do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer. Of less than 100 it is the longest.
    pub p99_ms: f64,
    /// How many there were.
    pub samples: usize,
}

impl Latency {
    /// Of round trips in any order; `None` if there are none.
    #[must_use]
    pub fn of(round_trips: &[Duration]) -> Option<Self> {
        let mut sorted = round_trips.to_vec();
        sorted.sort_unstable();
        // Nearest rank: a time that was measured, never one between two.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            let time = sorted.get(rank - 1)?;
            Some(rounded(time.as_secs_f64() * 1000.0, 3))
        };
        Some(Self {
            p50_ms: at(50)?,
            p99_ms: at(99)?,
            samples: sorted.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Option<(f64, f64, usize)> {
        let times: Vec<_> = milliseconds
            .into_iter()
            .map(Duration::from_millis)
            .collect();
        Latency::of(&times).map(|l| (l.p50_ms, l.p99_ms, l.samples))
    }

    #[test]
    fn ranks_are_the_nearest() {
        assert_eq!(of([]), None);
        assert_eq!(of([7]), Some((7.0, 7.0, 1)));
        assert_eq!(of([9, 1, 5]), Some((5.0, 9.0, 3)));
        assert_eq!(of((1..=200).rev()), Some((100.0, 198.0, 200)));
    }
}

//! How fast one direction is: from how many octets had arrived at which time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rounded;

/// What moves in this time after a direction began is not counted: TCP is finding out how fast the path is (slow start),
/// and queues on the way fill.
pub const WARM_UP: Duration = Duration::from_secs(2);
/// How often one looks.
pub const TICK: Duration = Duration::from_millis(100);

/// Less than this of what is to be counted makes no figure.
const LEAST: Duration = Duration::from_secs(1);
/// How far apart the points of a curve are.
const STEP: Duration = Duration::from_millis(500);
/// How much of the past the present speed is made from.
const PRESENT: Duration = Duration::from_secs(1);
/// More readings than this are not kept, nor any that are later: seven minutes.
const READINGS_MAX: usize = 4096;
const LATEST: Duration = TICK.saturating_mul(READINGS_MAX as u32);

/// Readings of one direction.
#[derive(Clone, Debug)]
pub struct Meter {
    counted: Duration,
    readings: Vec<(Duration, u64)>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the direction began.
    pub s: f64,
    /// Mbit/s over the half second before.
    pub mbit_s: f64,
}

impl Meter {
    /// A direction of which so much time is to be counted, after [`WARM_UP`].
    #[must_use]
    pub fn new(counted: Duration) -> Self {
        Self {
            counted,
            readings: vec![(Duration::ZERO, 0)],
        }
    }

    /// How long the direction takes in all.
    #[must_use]
    pub fn end(&self) -> Duration {
        WARM_UP + self.counted
    }

    /// So many octets have arrived in all, so long after the beginning. A reading that contradicts an earlier one, or is
    /// of a time that no direction takes, is passed over.
    pub fn record(&mut self, at: Duration, octets: u64) {
        let (last, before) = self.last();
        let fits = at <= LATEST && self.readings.len() < READINGS_MAX;
        if at > last && octets >= before && fits {
            self.readings.push((at, octets));
        }
    }

    /// bit/s over what is counted; `None` while that is less than a second.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let to = self.last().0.min(self.end());
        (to >= WARM_UP + LEAST).then(|| self.between(WARM_UP, to))
    }

    /// bit/s at this moment.
    #[must_use]
    pub fn present(&self) -> f64 {
        let to = self.last().0;
        self.between(to.saturating_sub(PRESENT), to)
    }

    /// The speed over time, from the beginning on.
    #[must_use]
    pub fn curve(&self) -> Vec<Point> {
        let mut curve = Vec::new();
        let mut to = STEP;
        while to <= self.last().0 {
            curve.push(Point {
                s: rounded(to.as_secs_f64(), 1),
                mbit_s: rounded(self.between(to - STEP, to) / 1e6, 3),
            });
            to += STEP;
        }
        curve
    }

    fn last(&self) -> (Duration, u64) {
        self.readings.last().copied().unwrap_or_default()
    }

    fn between(&self, from: Duration, to: Duration) -> f64 {
        let seconds = to.saturating_sub(from).as_secs_f64();
        match seconds > 0.0 {
            true => (self.octets_at(to) - self.octets_at(from)) * 8.0 / seconds,
            false => 0.0,
        }
    }

    /// Octets that had arrived by then, on a straight line between the readings before and after.
    fn octets_at(&self, at: Duration) -> f64 {
        let next = self.readings.partition_point(|(time, _)| *time < at);
        let after = self.readings.get(next);
        let before = next.checked_sub(1).and_then(|n| self.readings.get(n));
        match (before, after) {
            (Some((t0, n0)), Some((t1, n1))) => {
                let way = (at - *t0).as_secs_f64() / (*t1 - *t0).as_secs_f64();
                *n0 as f64 + (n1 - n0) as f64 * way
            }
            (Some((_, n)), None) | (None, Some((_, n))) => *n as f64,
            (None, None) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A direction in virtual time whose speed, in octets a millisecond, is a function of the time.
    fn metered(seconds: u64, until: u64, tick: u64, speed: impl Fn(u64) -> u64) -> Meter {
        let mut meter = Meter::new(Duration::from_secs(seconds));
        let mut octets = 0;
        for at in 1..=until {
            octets += speed(at);
            if at % tick == 0 {
                meter.record(ms(at), octets);
            }
        }
        meter
    }

    #[test]
    fn slow_start_is_not_counted() {
        // It grows for two seconds, and then is what it is: 1250 octets/ms, 10 Mbit/s.
        let meter = metered(10, 12_000, 100, |at| at.min(2000) * 1250 / 2000);
        assert_eq!(meter.end(), ms(12_000));
        let rate = meter.rate().unwrap();
        assert!((rate - 10e6).abs() < 1e4, "{rate}");
        let all = meter.between(Duration::ZERO, meter.end());
        assert!(all < 0.93 * rate, "{all}: counted, it would show");
    }

    #[test]
    fn a_reading_that_is_late_changes_nothing() {
        // No reading falls on the beginning or the end of what is counted.
        let meter = metered(10, 12_300, 130, |_| 1250);
        let rate = meter.rate().unwrap();
        assert!((rate - 10e6).abs() < 1e3, "{rate}");
    }

    #[test]
    fn what_comes_after_the_end_is_not_counted_and_a_silence_is() {
        let faster = metered(4, 9000, 100, |at| if at > 6000 { 9999 } else { 1250 });
        assert!((faster.rate().unwrap() - 10e6).abs() < 1e3);
        let stalled = metered(4, 6000, 100, |at| if at > 4000 { 0 } else { 1250 });
        assert!((stalled.rate().unwrap() - 5e6).abs() < 1e3);
    }

    #[test]
    fn too_little_makes_no_figure() {
        assert_eq!(metered(10, 2900, 100, |_| 1250).rate(), None);
        assert!(metered(10, 3000, 100, |_| 1250).rate().is_some());
        assert_eq!(Meter::new(ms(5000)).rate(), None);
        assert_eq!(Meter::new(ms(5000)).present(), 0.0);
    }

    #[test]
    fn readings_that_contradict_are_passed_over() {
        let mut meter = Meter::new(ms(1000));
        meter.record(ms(1000), 1000);
        meter.record(ms(500), 5000);
        meter.record(ms(1000), 2000);
        meter.record(ms(2000), 900);
        meter.record(ms(2000), 2000);
        // A curve to there would have no end.
        meter.record(Duration::MAX, 9000);
        meter.record(LATEST + ms(1), 9000);
        assert_eq!(meter.readings.len(), 3);
        assert_eq!(meter.curve().len(), 4);
        for at in 2001..20_000 {
            meter.record(ms(at), at);
        }
        assert_eq!(meter.readings.len(), READINGS_MAX);
    }

    #[test]
    fn the_curve_and_the_present_follow_the_speed() {
        let meter = metered(4, 6000, 100, |at| if at > 3000 { 2500 } else { 1250 });
        let curve = meter.curve();
        assert_eq!(curve.len(), 12);
        assert_eq!((curve[0].s, curve[11].s), (0.5, 6.0));
        assert!((curve[5].mbit_s - 10.0).abs() < 0.01, "{curve:?}");
        assert!((curve[6].mbit_s - 20.0).abs() < 0.01, "{curve:?}");
        assert!((meter.present() - 20e6).abs() < 1e3);
    }
}

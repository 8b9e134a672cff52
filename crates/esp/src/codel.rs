//! CoDel (RFC 8289): a queue is managed by how long packets wait in it, not by its length.
//!
//! Here the queue is a socket's receive buffer, and what leaves it at once is a train of datagrams.
//! So the question is asked once a train, at most one packet of a train is dropped, and the loop of
//! RFC 8289 §5.5 has one turn.

use std::time::Duration;

/// The state of one queue. It reads no clock: `now` is time since any moment that stays the same.
#[derive(Clone, Debug, Default)]
pub struct Codel {
    /// When all will have waited too long for an [`INTERVAL`](Self::INTERVAL); `None`: somebody did not.
    above_until: Option<Duration>,
    /// Packets are being dropped, one now and then, until the queue is short.
    dropping: bool,
    /// When the next is due; while not dropping, when it would have been.
    next: Duration,
    /// Drops since dropping began, and a bit more where it had begun shortly before.
    count: u32,
    /// `count` when dropping began.
    count_at_start: u32,
}

impl Codel {
    /// So long a packet may wait. RFC 8289 §4.4 has 5 ms, for queues that wait for a line alone; this one
    /// waits for a processor that may have other work as well.
    pub const TARGET: Duration = Duration::from_millis(20);
    /// One is dropped when all have waited longer for this time: a round trip (RFC 8289 §4.3).
    pub const INTERVAL: Duration = Duration::from_millis(100);
    /// Dropping that begins within this time of its last end goes on from where it was.
    const MEMORY: Duration = Self::INTERVAL.saturating_mul(16);
    /// `count` ends here, at gaps of 5 ms: who does not slow down is not to cost the others more.
    const MOST: u32 = 400;

    /// Nothing waits behind what was taken out last, which is no queue (RFC 8289 §5.6).
    pub fn queue_ended(&mut self) {
        self.above_until = None;
        self.dropping = false;
    }

    /// Takes notice of a train that has waited so long; whether a packet of it is to be dropped, or
    /// marked.
    pub fn is_due(&mut self, now: Duration, waited: Duration) -> bool {
        if waited < Self::TARGET {
            self.queue_ended();
            return false;
        }
        let above_until = *self.above_until.get_or_insert(now + Self::INTERVAL);
        if self.dropping {
            return self.goes_on(now);
        }
        if now < above_until {
            return false;
        }
        self.begin(now);
        true
    }

    /// RFC 8289 §5.5: dropping begins. If it ended a short time ago, the rate that shortened the queue
    /// then is about right now.
    fn begin(&mut self, now: Duration) {
        self.dropping = true;
        let before = self.count.saturating_sub(self.count_at_start);
        let recent = now.saturating_sub(self.next) < Self::MEMORY;
        self.count = if before > 1 && recent { before } else { 1 };
        self.count_at_start = self.count;
        self.next = now + self.gap();
    }

    fn goes_on(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.count = (self.count + 1).min(Self::MOST);
        let next = self.next + self.gap();
        // Where trains are rarer than drops are due, what was missed is not made up for.
        self.next = if next > now { next } else { now + self.gap() };
        true
    }

    /// The control law: throughput of TCP falls with the root of the loss rate.
    fn gap(&self) -> Duration {
        Self::INTERVAL.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(40);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A train each millisecond of `time`, all of which have waited so long; when one was due.
    fn run(codel: &mut Codel, time: std::ops::Range<u64>, waited: Duration) -> Vec<u64> {
        time.filter(|now| codel.is_due(ms(*now), waited)).collect()
    }

    #[test]
    fn nothing_is_dropped_while_little_waits() {
        let mut codel = Codel::default();
        assert_eq!(run(&mut codel, 0..10_000, Codel::TARGET - ms(1)), []);
    }

    #[test]
    fn nothing_is_dropped_for_a_burst_shorter_than_the_interval() {
        let mut codel = Codel::default();
        for start in (0..10_000).step_by(100) {
            assert_eq!(run(&mut codel, start..start + 99, LONG), []);
            // The buffer was empty once.
            assert!(!codel.is_due(ms(start + 99), ms(1)));
        }
    }

    #[test]
    fn drops_come_closer_by_the_control_law_and_end_at_once() {
        let mut codel = Codel::default();
        let due = run(&mut codel, 0..500, Codel::TARGET);
        // 100, 100/√2, 100/√3, … milliseconds from one to the next, on a clock of milliseconds.
        assert_eq!(due, [100, 200, 271, 329, 379, 424, 464]);
        assert_eq!(run(&mut codel, 500..520, ms(4)), []);
        // Too long again, but not yet for an interval.
        assert_eq!(run(&mut codel, 520..620, LONG), []);
    }

    #[test]
    fn what_begins_soon_again_begins_with_the_rate_it_had() {
        let mut codel = Codel::default();
        assert_eq!(run(&mut codel, 0..500, LONG).len(), 7);
        assert!(!codel.is_due(ms(500), ms(0)));
        let mut late = codel.clone();
        // Seven drops, the first of which began it: 100/√6 to the next.
        assert_eq!(run(&mut codel, 501..680, LONG), [601, 642]);
        let mut once_more = codel.clone();
        assert_eq!(run(&mut late, 2_501..2_750, LONG), [2_601, 2_701]);
        // It ended after two more: back to the start.
        assert!(!once_more.is_due(ms(680), ms(0)));
        assert_eq!(run(&mut once_more, 681..890, LONG), [781, 881]);
    }

    #[test]
    fn rare_trains_do_not_make_up_for_what_was_not_dropped() {
        let mut codel = Codel::default();
        assert!(!codel.is_due(ms(0), LONG));
        assert!(codel.is_due(ms(100), LONG));
        assert!(codel.is_due(ms(5_000), LONG));
        assert!(!codel.is_due(ms(5_001), LONG));
        assert!(!codel.is_due(ms(5_050), LONG));
        assert!(codel.is_due(ms(5_071), LONG));
    }

    #[test]
    fn who_never_slows_down_costs_the_others_no_more_than_200_a_second() {
        let mut codel = Codel::default();
        let due = run(&mut codel, 0..600_000, LONG);
        let in_the_last_second = due.iter().filter(|at| **at >= 599_000).count();
        assert!(
            (198..=201).contains(&in_the_last_second),
            "{in_the_last_second}"
        );
        assert_eq!(codel.count, Codel::MOST);
    }
}

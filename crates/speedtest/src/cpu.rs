//! How busy processors and threads are, from the texts of `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rounded;

/// More processors than this are not looked at.
const CORES_MAX: usize = 512;
/// `USER_HZ`: the kernel tells times to programs in hundredths of a second, whatever it counts in itself.
const TICKS_A_SECOND: f64 = 100.0;

/// What each processor has done since the machine started: a reading of `/proc/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// Ticks of each: busy, and in all.
    cores: Vec<(u64, u64)>,
}

/// How busy processors were over some time, as shares from 0 to 1. What a hypervisor gave to others counts as busy: it was
/// not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// All of them together.
    pub all: f64,
    /// The busiest one.
    pub busiest: f64,
}

impl CpuTimes {
    /// Reads `/proc/stat`. Lines that are not understood are passed over.
    #[must_use]
    pub fn parse(stat: &str) -> Self {
        let cores = stat.lines().filter_map(core).take(CORES_MAX);
        Self {
            cores: cores.collect(),
        }
    }

    /// How busy they were since an earlier reading; `None` if no time has passed, or processors came or went.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<CpuUse> {
        if self.cores.len() != before.cores.len() {
            return None;
        }
        let pairs = self.cores.iter().zip(&before.cores);
        let spent = pairs.map(|(now, then)| {
            (
                now.0.saturating_sub(then.0) as f64,
                now.1.saturating_sub(then.1) as f64,
            )
        });
        let spent: Vec<(f64, f64)> = spent.collect();
        let (busy, all) = spent
            .iter()
            .fold((0.0, 0.0), |sum, core| (sum.0 + core.0, sum.1 + core.1));
        if all <= 0.0 {
            return None;
        }
        let shares = spent.iter().filter(|core| core.1 > 0.0);
        let busiest = shares.map(|core| core.0 / core.1).fold(0.0, f64::max);
        Some(CpuUse {
            all: rounded(busy / all, 3),
            busiest: rounded(busiest, 3),
        })
    }
}

/// `cpu0 user nice system idle iowait irq softirq steal …` (proc_stat(5)). What guests use is counted among the first two.
fn core(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("cpu")?;
    // The first line is the sum of the others.
    rest.chars().next().filter(char::is_ascii_digit)?;
    let times = rest.split_ascii_whitespace().skip(1).take(8);
    let times: Option<Vec<u64>> = times.map(|time| time.parse().ok()).collect();
    let times = times?;
    let idle = times.get(3)?.saturating_add(*times.get(4)?);
    let all = times.iter().fold(0u64, |sum, t| sum.saturating_add(*t));
    Some((all.saturating_sub(idle), all))
}

/// What threads have computed: readings of `/proc/PID/task/TID/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadTimes {
    ticks: BTreeMap<u32, u64>,
}

impl ThreadTimes {
    /// Adds a thread (proc_pid_stat(5)); what is not understood is passed over.
    pub fn add(&mut self, stat: &str) {
        if let Some((thread, ticks)) = thread(stat) {
            self.ticks.insert(thread, ticks);
        }
    }

    /// Which share of a processor the busiest thread had since an earlier reading; `None` without a thread that was there
    /// all the time.
    #[must_use]
    pub fn busiest_since(&self, before: &Self, elapsed: Duration) -> Option<f64> {
        let spent = self.ticks.iter().filter_map(|(thread, now)| {
            let then = before.ticks.get(thread)?;
            Some(now.saturating_sub(*then))
        });
        let seconds = spent.max()? as f64 / TICKS_A_SECOND;
        let elapsed = elapsed.as_secs_f64();
        (elapsed > 0.0).then(|| rounded((seconds / elapsed).min(1.0), 3))
    }
}

fn thread(stat: &str) -> Option<(u32, u64)> {
    let (number, _) = stat.split_once(' ')?;
    // The name may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let mut time = || times.next()?.parse::<u64>().ok();
    Some((number.parse().ok()?, time()?.saturating_add(time()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  300 0 100 1000 0 0 0 0 0 0\n\
                          cpu0 100 0 50 500 0 0 0 0 0 0\n\
                          cpu1 200 0 50 500 0 0 0 0 0 0\n\
                          intr 12345 0\nctxt 5\n";

    #[test]
    fn the_busiest_processor_and_all_together() {
        let after = "cpu  0 0 0 0 0 0 0 0 0 0\n\
                     cpu0 190 0 50 510 0 0 0 0 0 0\n\
                     cpu1 210 5 60 560 10 3 2 0 0 0\n";
        let (before, after) = (CpuTimes::parse(BEFORE), CpuTimes::parse(after));
        // 90 of 100 ticks, and 30 of 100.
        let expected = CpuUse {
            all: 0.6,
            busiest: 0.9,
        };
        assert_eq!(after.since(&before), Some(expected));
        assert_eq!(after.since(&after), None);
    }

    #[test]
    fn what_a_hypervisor_took_was_not_to_be_had() {
        let after = "cpu0 100 0 50 500 0 0 0 100 0 0\ncpu1 200 0 50 600 0 0 0 0 0 0\n";
        let used = CpuTimes::parse(after).since(&CpuTimes::parse(BEFORE));
        assert_eq!(used.map(|used| used.busiest), Some(1.0));
    }

    #[test]
    fn nonsense_is_no_processor() {
        for text in [
            "",
            "cpu",
            "cpu0",
            "cpu0 1 2",
            "cpu0 a b c d e",
            "cpu0 1 2 3 -4 5 6 7 8",
        ] {
            assert_eq!(CpuTimes::parse(text), CpuTimes::default(), "{text:?}");
        }
        let one_less = CpuTimes::parse("cpu0 500 0 50 500 0 0 0 0 0 0\n");
        assert_eq!(one_less.since(&CpuTimes::parse(BEFORE)), None);
    }

    fn threads(stats: &[&str]) -> ThreadTimes {
        let mut times = ThreadTimes::default();
        stats.iter().for_each(|stat| times.add(stat));
        times
    }

    #[test]
    fn the_busiest_thread_is_known_by_its_number_whatever_its_name() {
        let stat = |thread: u32, name: &str, user: u32, system: u32| {
            format!(
                "{thread} ({name}) S 1 1 1 0 -1 4194368 88 0 0 0 {user} {system} 0 0 20 0 5 0 1"
            )
        };
        let reading = |out: (u32, u32), inward: (u32, u32)| {
            threads(&[
                &stat(11, "out", out.0, out.1),
                &stat(12, "in) (x", inward.0, inward.1),
            ])
        };
        let (before, after) = (reading((100, 50), (10, 10)), reading((150, 90), (500, 400)));
        let busiest = after.busiest_since(&before, Duration::from_secs(10));
        assert_eq!(busiest, Some(0.88));
        let born_since = threads(&[&stat(13, "new", 900, 0)]);
        assert_eq!(
            born_since.busiest_since(&before, Duration::from_secs(10)),
            None
        );
        assert_eq!(threads(&["", "x", "1 (a", "1 (a) S 1"]), threads(&[]));
    }
}

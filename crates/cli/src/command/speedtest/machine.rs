//! How busy this machine is, and the daemon's threads in particular.

use std::fs;
use std::time::Instant;

use cygnet_daemon::api::Processes;
use cygnet_speedtest::{CpuTimes, CpuUse, ThreadTimes};

/// What is looked at.
pub(super) struct Machine {
    processes: Vec<u32>,
}

/// What it had done at a moment.
pub(super) struct Reading {
    at: Instant,
    cpu: CpuTimes,
    threads: ThreadTimes,
}

impl Machine {
    pub(super) fn new(processes: &Processes) -> Self {
        let supervisor = Some(processes.supervisor);
        Self {
            processes: supervisor.into_iter().chain(processes.engine).collect(),
        }
    }

    pub(super) fn read(&self) -> Reading {
        let cpu = fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut threads = ThreadTimes::default();
        for process in &self.processes {
            // One that ended has no threads, and says nothing.
            let listed = fs::read_dir(format!("/proc/{process}/task"));
            for thread in listed.into_iter().flatten().flatten() {
                let stat = fs::read_to_string(thread.path().join("stat"));
                threads.add(&stat.unwrap_or_default());
            }
        }
        Reading {
            at: Instant::now(),
            cpu: CpuTimes::parse(&cpu),
            threads,
        }
    }
}

impl Reading {
    /// How busy the processors were since an earlier reading, and the busiest thread.
    pub(super) fn since(&self, before: &Self) -> (Option<CpuUse>, Option<f64>) {
        let elapsed = self.at.duration_since(before.at);
        (
            self.cpu.since(&before.cpu),
            self.threads.busiest_since(&before.threads, elapsed),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_computes_is_seen() {
        let own = Processes {
            supervisor: std::process::id(),
            engine: None,
        };
        let machine = Machine::new(&own);
        let before = machine.read();
        let begun = Instant::now();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(300) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let (cpu, thread) = machine.read().since(&before);
        assert!(cpu.is_some_and(|cpu| cpu.busiest > 0.0), "{cpu:?}");
        assert!(thread.is_some_and(|busy| busy > 0.05), "{thread:?}");
        let gone = Processes {
            supervisor: u32::MAX,
            engine: Some(u32::MAX),
        };
        let machine = Machine::new(&gone);
        let before = machine.read();
        assert_eq!(machine.read().since(&before).1, None);
    }
}

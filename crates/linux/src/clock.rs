//! Time since boot.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: never set back, and counts the time a laptop was suspended, which a peer's
/// lifetimes count as well.
#[must_use]
pub fn boottime() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    // The kernel never answers negative numbers for this clock.
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or_default(),
        u32::try_from(t.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_advances() {
        let before = super::boottime();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(super::boottime() >= before + std::time::Duration::from_millis(5));
    }
}

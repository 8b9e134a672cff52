//! Time since boot, and whether the date is kept right.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: never set back, and counts the time a laptop was suspended, which a peer's
/// lifetimes count as well.
#[must_use]
pub fn boottime() -> Duration {
    read(ClockId::Boottime)
}

/// `CLOCK_REALTIME`, since 1970: what the kernel stamps datagrams with. It may be set.
pub(crate) fn realtime() -> Duration {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    // Negative only where somebody has set the date to before 1970.
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or_default(),
        u32::try_from(t.tv_nsec).unwrap_or_default(),
    )
}

/// Whether somebody keeps the date right (an NTP client, mostly), as the kernel was told (adjtimex(2)).
/// Where that cannot be asked, nobody does.
#[must_use]
#[expect(unsafe_code, reason = "adjtimex")]
pub fn is_synchronised() -> bool {
    // SAFETY: `timex` holds integers alone, for which all zeros are values. With no `modes` it is read.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call, which keeps nothing of it.
    let done = unsafe { libc::adjtimex(&raw mut state) };
    done >= 0 && state.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn whether_it_is_synchronised_is_what_the_kernel_tells_others() {
        // adjtimex(8) is seldom there; Python asks by itself.
        let script = "import ctypes; t = (ctypes.c_char * 256)(); \
                      print(ctypes.CDLL(None).adjtimex(t), int.from_bytes(t[40:44], 'little') & 0x40)";
        let asked = std::process::Command::new("python3")
            .args(["-c", script])
            .output();
        let asked = asked.expect("python3");
        let told = String::from_utf8_lossy(&asked.stdout);
        let synchronised = told.trim().ends_with(" 0") && !told.starts_with('-');
        assert_eq!(super::is_synchronised(), synchronised, "{told}");
    }

    #[test]
    fn it_advances() {
        let before = super::boottime();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(super::boottime() >= before + std::time::Duration::from_millis(5));
    }
}

//! Waiting on one descriptor.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What ended a wait.
pub(super) struct Ready {
    /// An error waits in a socket's queue, or a device is gone.
    pub(super) error: bool,
}

/// Until there is something to read, an error, or the time is over.
pub(super) fn readable(descriptor: impl AsFd, ms: u32) -> Ready {
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    // A signal or a lack of memory ends the wait early, which nobody minds.
    let _ = poll(&mut fds, Some(&timespec(ms)));
    let [fd] = fds;
    Ready {
        error: fd
            .revents()
            .intersects(PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP),
    }
}

/// Until something can be written, or the time is over.
pub(super) fn writable(descriptor: impl AsFd, ms: u32) {
    let mut fds = [PollFd::new(&descriptor, PollFlags::OUT)];
    let _ = poll(&mut fds, Some(&timespec(ms)));
}

fn timespec(ms: u32) -> Timespec {
    Timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    }
}

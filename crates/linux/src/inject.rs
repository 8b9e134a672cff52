//! Errors that this machine's kernel does not return, for tests of what is done about them.
//!
//! Without the feature `inject` there is nothing here but a function that says "go on". What is
//! injected holds for the whole process: a test that injects is a process of its own.

/// A system call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "inject"),
    expect(unreachable_pub, reason = "public with the feature alone")
)]
pub enum Call {
    /// `sendmsg(2)` of one datagram.
    Send,
    /// `sendmsg(2)` with `UDP_SEGMENT`.
    SendBatch,
    /// `setsockopt(2)` of `UDP_GRO`.
    ReceiveOffload,
    /// `TUNSETIFF` with `IFF_MULTI_QUEUE`.
    MultiQueue,
    /// `TUNSETOFFLOAD` with USO.
    UdpOffload,
    /// `writev(2)` of a super-packet into a TUN.
    MergedWrite,
}

#[cfg(not(feature = "inject"))]
mod off {
    #[inline(always)]
    pub(crate) fn check(_: super::Call) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "inject")]
mod on {
    use std::io;
    use std::ops::Range;
    use std::sync::{Mutex, PoisonError};

    use super::Call;

    struct Entry {
        call: Call,
        /// How many there were.
        seen: usize,
        /// Those that fail.
        failing: Range<usize>,
        /// What it fails with; none goes to the kernel.
        fail: Box<dyn FnMut() -> Option<i32> + Send>,
    }

    static TABLE: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

    /// Makes such calls fail with `errno`, in place of what was injected before: those with these numbers,
    /// of which the next one has 0.
    pub fn inject(call: Call, failing: Range<usize>, errno: i32) {
        replace(call, failing, Box::new(move || Some(errno)));
    }

    /// Runs `change` just before the call of that number, which then is made, in place of what was
    /// injected before.
    pub fn before(call: Call, number: usize, mut change: impl FnMut() + Send + 'static) {
        let fail = move || {
            change();
            None
        };
        replace(call, number..number + 1, Box::new(fail));
    }

    fn replace(call: Call, failing: Range<usize>, fail: Box<dyn FnMut() -> Option<i32> + Send>) {
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|entry| entry.call != call);
        table.push(Entry {
            call,
            seen: 0,
            failing,
            fail,
        });
    }

    /// How many such calls there were since something was injected.
    pub fn seen(call: Call) -> usize {
        let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.iter().find(|entry| entry.call == call);
        entry.map_or(0, |entry| entry.seen)
    }

    pub(crate) fn check(call: Call) -> io::Result<()> {
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.iter_mut().find(|entry| entry.call == call) else {
            return Ok(());
        };
        entry.seen += 1;
        let fails = entry.failing.contains(&(entry.seen - 1));
        match fails.then(|| (entry.fail)()).flatten() {
            None => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(not(feature = "inject"))]
pub(crate) use off::check;
#[cfg(feature = "inject")]
pub(crate) use on::check;
#[cfg(feature = "inject")]
pub use on::{before, inject, seen};

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
    use std::sync::{Mutex, PoisonError};

    use super::Call;

    /// An errno, and how many calls still fail with it.
    static TABLE: Mutex<Vec<(Call, i32, usize)>> = Mutex::new(Vec::new());

    /// Makes the next `times` such calls fail with `errno`, in place of what was injected before;
    /// `usize::MAX` is for ever.
    pub fn inject(call: Call, errno: i32, times: usize) {
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|(other, ..)| *other != call);
        table.push((call, errno, times));
    }

    /// How many calls are still to fail.
    pub fn pending(call: Call) -> usize {
        let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.iter().find(|(other, ..)| *other == call);
        entry.map_or(0, |(.., left)| *left)
    }

    pub(crate) fn check(call: Call) -> io::Result<()> {
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table
            .iter_mut()
            .find(|(other, _, left)| *other == call && *left != 0);
        match entry {
            None => Ok(()),
            Some((_, errno, left)) => {
                if *left != usize::MAX {
                    *left -= 1;
                }
                Err(io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

#[cfg(not(feature = "inject"))]
pub(crate) use off::check;
#[cfg(feature = "inject")]
pub(crate) use on::check;
#[cfg(feature = "inject")]
pub use on::{inject, pending};

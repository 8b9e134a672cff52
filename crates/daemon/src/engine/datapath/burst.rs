//! Some of what a TUN queue holds, read into one buffer: enough to be sealed together, and, as long as the
//! buffer holds it and it has not left, cut again.

use std::io;
use std::ops::Range;

use cygnet_wire::ip::VirtioNetHeader;

use super::device::Queue;

/// Longest read: a super-packet with its virtio header.
pub(super) const READ_MAX: usize = 65_535 + VirtioNetHeader::LEN;
/// A burst that holds so much is sealed before much more is read: two of them and a batch fit into a
/// small processor's second-level cache.
const FULL: usize = READ_MAX / 2;
/// Most reads in a burst: enough small ones for a full batch.
pub(super) const READS: usize = 64;

/// The reads.
pub(super) struct Burst {
    buffer: Box<[u8]>,
    /// Where each ends; it begins where the one before ended.
    ends: [usize; READS],
    count: usize,
}

/// Why a burst ended.
pub(super) enum End {
    /// Nothing is left to be read.
    Empty,
    /// More may be there.
    Full,
    /// The queue cannot be read.
    Failed(io::Error),
}

impl Burst {
    pub(super) fn new() -> Self {
        Self {
            // Room for the longest read behind what makes the burst full. Memory that is never touched
            // is none.
            buffer: vec![0; FULL + READ_MAX].into_boxed_slice(),
            ends: [0; READS],
            count: 0,
        }
    }

    /// Reads until the queue is empty or the burst is full, in place of what was there.
    pub(super) fn fill(&mut self, queue: &dyn Queue) -> End {
        self.count = 0;
        let mut end = 0;
        while self.count < READS && end < FULL {
            let Some(place) = self.buffer.get_mut(end..end + READ_MAX) else {
                break;
            };
            match queue.read(place) {
                Ok(len) => {
                    end += len;
                    if let Some(slot) = self.ends.get_mut(self.count) {
                        *slot = end;
                        self.count += 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return End::Empty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return End::Failed(error),
            }
        }
        End::Full
    }

    /// How many reads.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One of them.
    pub(super) fn read(&self, number: usize) -> &[u8] {
        self.buffer.get(self.range(number)).unwrap_or_default()
    }

    fn range(&self, number: usize) -> Range<usize> {
        let end = |number: usize| self.ends.get(number).copied().unwrap_or(0);
        let start = number.checked_sub(1).map_or(0, end);
        start..end(number)
    }
}

//! Sealed datagrams that leave with one `sendmsg`: one path, one outer TOS, one size.
//!
//! Space is reserved, filled in place, and committed; a [`Slot`] that is dropped instead leaves no
//! trace. The buffer is allocated once and used for ever.

/// What the datagrams of a batch have in common beside their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer<P> {
    /// The caller's name of the path.
    pub path: P,
    /// TOS or traffic class of the outer header.
    pub tos: u8,
}

/// Why a datagram does not go into this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Another path: send, clear, try again.
    Path,
    /// Another outer TOS: send, clear, try again.
    Tos,
    /// Longer than the others, or the last one was shorter: send, clear, try again.
    Size,
    /// Enough datagrams or bytes: send, clear, try again.
    Full,
    /// Longer than a batch: sending would not help.
    TooLong,
}

/// Up to [`SendBatch::MAX_SEGMENTS`] datagrams, one after the other in one buffer, as `UDP_SEGMENT`
/// wants them: all of one length, only the last may be shorter.
pub struct SendBatch<P> {
    buffer: Box<[u8]>,
    len: usize,
    segments: usize,
    segment_len: usize,
    /// Set by a datagram shorter than the first: nothing can follow it.
    closed: bool,
    outer: Option<Outer<P>>,
}

impl<P: Copy + Eq> SendBatch<P> {
    /// Most datagrams in a batch: Linux before 6.9 takes 64.
    pub const MAX_SEGMENTS: usize = 64;
    /// Most bytes in a batch: what fits into one UDP/IP packet, with room for headers and options.
    pub const MAX_BYTES: usize = 65_000;

    /// An empty batch.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; Self::MAX_BYTES].into_boxed_slice(),
            len: 0,
            segments: 0,
            segment_len: 0,
            closed: false,
            outer: None,
        }
    }

    /// How many datagrams of `len` bytes could follow now; at least one where it is `Ok`.
    pub fn room(&self, outer: Outer<P>, len: usize) -> Result<usize, NoRoom> {
        if len > Self::MAX_BYTES {
            return Err(NoRoom::TooLong);
        }
        let Some(current) = self.outer else {
            return Ok((Self::MAX_BYTES / len.max(1)).min(Self::MAX_SEGMENTS));
        };
        if current.path != outer.path {
            return Err(NoRoom::Path);
        }
        if current.tos != outer.tos {
            return Err(NoRoom::Tos);
        }
        if self.closed || len > self.segment_len {
            return Err(NoRoom::Size);
        }
        let by_bytes = (Self::MAX_BYTES - self.len) / len.max(1);
        let by_count = Self::MAX_SEGMENTS - self.segments;
        match by_bytes.min(by_count) {
            0 => Err(NoRoom::Full),
            // A shorter datagram is the last one.
            _ if len < self.segment_len => Ok(1),
            room => Ok(room),
        }
    }

    /// Space for one datagram of exactly `len` bytes.
    pub fn reserve(&mut self, outer: Outer<P>, len: usize) -> Result<Slot<'_, P>, NoRoom> {
        self.room(outer, len)?;
        Ok(Slot {
            batch: self,
            outer,
            len,
        })
    }

    /// The datagrams, one after the other.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// The datagrams, one by one, for a path without GSO.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes().chunks(self.segment_len.max(1))
    }

    /// Length of each datagram but the last, to be given to `UDP_SEGMENT` where there is more than one.
    pub fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// Number of datagrams.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.segments == 0
    }

    /// What the datagrams have in common, if there are any.
    pub fn outer(&self) -> Option<Outer<P>> {
        self.outer
    }

    /// Forgets the datagrams, sent or not.
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments = 0;
        self.segment_len = 0;
        self.closed = false;
        self.outer = None;
    }
}

impl<P: Copy + Eq> Default for SendBatch<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Reserved space at the end of a batch.
pub struct Slot<'b, P> {
    batch: &'b mut SendBatch<P>,
    outer: Outer<P>,
    len: usize,
}

impl<P: Copy + Eq> Slot<'_, P> {
    /// The space. Its contents are whatever was there before.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.batch.len;
        self.batch
            .buffer
            .get_mut(start..start + self.len)
            .unwrap_or_default()
    }

    /// Makes it a datagram of the batch.
    pub fn commit(self) {
        let batch = self.batch;
        if batch.segments == 0 {
            batch.segment_len = self.len;
            batch.outer = Some(self.outer);
        }
        batch.closed = self.len < batch.segment_len;
        batch.len += self.len;
        batch.segments += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Outer<u32> = Outer { path: 1, tos: 0 };

    fn put(
        batch: &mut SendBatch<u32>,
        outer: Outer<u32>,
        byte: u8,
        len: usize,
    ) -> Result<(), NoRoom> {
        let mut slot = batch.reserve(outer, len)?;
        slot.bytes_mut().fill(byte);
        slot.commit();
        Ok(())
    }

    #[test]
    fn the_last_datagram_may_be_shorter() {
        let mut batch = SendBatch::new();
        put(&mut batch, A, 1, 100).unwrap();
        put(&mut batch, A, 2, 100).unwrap();
        put(&mut batch, A, 3, 40).unwrap();
        assert_eq!(put(&mut batch, A, 4, 40), Err(NoRoom::Size));
        assert_eq!(
            (batch.segments(), batch.segment_len(), batch.bytes().len()),
            (3, 100, 240)
        );
        let datagrams = batch
            .datagrams()
            .map(|d| (d[0], d.len()))
            .collect::<Vec<_>>();
        assert_eq!(datagrams, [(1, 100), (2, 100), (3, 40)]);
        batch.clear();
        put(&mut batch, A, 4, 400).unwrap();
        assert_eq!(batch.datagrams().len(), 1);
    }

    #[test]
    fn a_dropped_slot_leaves_no_trace() {
        let mut batch = SendBatch::new();
        batch.reserve(A, 100).unwrap().bytes_mut().fill(9);
        assert!(batch.is_empty() && batch.outer().is_none());
        put(&mut batch, Outer { path: 2, tos: 3 }, 1, 50).unwrap();
        assert_eq!(batch.outer(), Some(Outer { path: 2, tos: 3 }));
    }

    #[test]
    fn tells_why_it_has_to_be_sent() {
        let mut batch = SendBatch::new();
        put(&mut batch, A, 1, 100).unwrap();
        assert_eq!(batch.room(Outer { path: 2, ..A }, 100), Err(NoRoom::Path));
        assert_eq!(batch.room(Outer { tos: 2, ..A }, 100), Err(NoRoom::Tos));
        assert_eq!(batch.room(A, 101), Err(NoRoom::Size));
        assert_eq!(batch.room(A, 99), Ok(1));
        assert_eq!(batch.room(A, 100), Ok(63));
        assert_eq!(batch.room(A, 65_001), Err(NoRoom::TooLong));
    }

    #[test]
    fn is_full_by_count_or_by_bytes() {
        let mut batch = SendBatch::new();
        for _ in 0..64 {
            put(&mut batch, A, 0, 100).unwrap();
        }
        assert_eq!(batch.room(A, 100), Err(NoRoom::Full));
        batch.clear();
        for _ in 0..43 {
            put(&mut batch, A, 0, 1500).unwrap();
        }
        assert_eq!(batch.room(A, 1500), Err(NoRoom::Full));
        assert_eq!(batch.room(A, 500), Ok(1));
    }
}

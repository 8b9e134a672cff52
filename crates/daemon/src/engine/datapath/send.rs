//! A worker's batch and how it leaves: in one piece where the path can, else datagram by datagram.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use cygnet_esp::SendBatch;
use cygnet_linux::SendError;

use super::Shared;
use super::drops::Reason;
use super::road::{Patience, Road};

/// The batch. What is in it goes to one path.
pub(super) struct Sender {
    shared: Arc<Shared>,
    batch: SendBatch<()>,
}

/// What came of sending a batch; it is empty afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// It left, or was dropped and counted.
    Done,
    /// The path is narrower than was known, and is known now.
    TooBig {
        /// Datagrams that had left before that was found out.
        left: usize,
    },
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            batch: SendBatch::new(),
        }
    }

    /// To be filled.
    pub(super) fn batch(&mut self) -> &mut SendBatch<()> {
        &mut self.batch
    }

    /// Sends the batch. Where its datagrams do not fit the path, those that cannot be cut again are left to be
    /// fragmented outside the tunnel, and [`Flush::TooBig`] tells how many of the others have left. The first
    /// `earlier` cannot, as what they were read into is gone; none can with `anyhow`, nor while nobody knows what
    /// would fit.
    pub(super) fn flush(&mut self, road: &Road, earlier: usize, anyhow: bool) -> Flush {
        if anyhow && road.packet_len(self.batch.segment_len()) > road.mtu() as usize {
            // That is known beforehand.
            self.send_fragmenting(road, 0..self.batch.segments());
            self.batch.clear();
            return Flush::Done;
        }
        let mut flush = self.try_send(road);
        if let Flush::TooBig { left } = flush {
            let known = self.shared.learn_mtu(road, self.batch.segment_len());
            let whole = if anyhow || !known {
                flush = Flush::Done;
                self.batch.segments()
            } else {
                flush = Flush::TooBig {
                    left: left.saturating_sub(earlier),
                };
                earlier
            };
            self.send_fragmenting(road, left..whole);
        }
        self.batch.clear();
        flush
    }

    fn try_send(&self, road: &Road) -> Flush {
        let Some(outer) = self.batch.outer() else {
            return Flush::Done;
        };
        let (mut refused, mut patience) = (false, Patience::default());
        if self.batch.segments() > 1 && !road.is_single() {
            let parts = [IoSlice::new(self.batch.bytes())];
            let segment = u16::try_from(self.batch.segment_len()).ok();
            match road.send(&road.transmit(outer.tos, segment, &parts), &mut patience) {
                Ok(()) => return Flush::Done,
                // Kernels say so also of datagrams larger than the path; one by one tells.
                Err(SendError::NoSegmentation) => refused = true,
                Err(SendError::TooBig) => return Flush::TooBig { left: 0 },
                Err(error) => {
                    self.lost(&error, self.batch.segments());
                    return Flush::Done;
                }
            }
        }
        for (number, datagram) in self.batch.datagrams().enumerate() {
            let parts = [IoSlice::new(datagram)];
            match road.send(&road.transmit(outer.tos, None, &parts), &mut patience) {
                Ok(()) => {}
                Err(SendError::TooBig) => return Flush::TooBig { left: number },
                // It stayed full for as long as a flush may take: so it is for the rest.
                Err(error @ SendError::Full) => {
                    self.lost(&error, self.batch.segments() - number);
                    return Flush::Done;
                }
                Err(error) => {
                    refused = false;
                    self.lost(&error, 1);
                }
            }
        }
        if refused {
            road.set_single(self.shared.now_ms());
        }
        Flush::Done
    }

    /// One by one: the packets cannot be cut any more, or the path is narrower than they may be cut to.
    fn send_fragmenting(&self, road: &Road, which: Range<usize>) {
        let Some(outer) = self.batch.outer() else {
            return;
        };
        let mut patience = Patience::default();
        for datagram in self.batch.datagrams().take(which.end).skip(which.start) {
            let parts = [IoSlice::new(datagram)];
            let transmit = road.transmit(outer.tos, None, &parts);
            if let Err(error) = road.send_fragmenting(&transmit, &mut patience) {
                self.lost(&error, 1);
            }
        }
    }

    fn lost(&self, error: &SendError, count: usize) {
        tracing::trace!("not sent: {error}");
        let reason = match error {
            SendError::Full => Reason::SendQueueFull,
            SendError::Unreachable(_) => Reason::NoRoute,
            SendError::Filtered => Reason::SendForbidden,
            SendError::TooBig => Reason::TooBig,
            SendError::NoSegmentation | SendError::Other(_) => Reason::SendFailed,
        };
        self.shared.drops.add(reason, count);
    }
}

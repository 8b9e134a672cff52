//! Sealing: an inner packet, already in its place in the datagram, becomes an ESP packet.

use std::ops::Range;

use cygnet_wire::esp::EspTrailer;
use cygnet_wire::ip::{Version, protocol};
use thiserror::Error;

use crate::batch::{NoRoom, Outer, SendBatch};
use crate::sa::{Exhausted, OutboundSa};
use crate::segment::Segments;
use crate::tos;

/// Why a packet was not sealed; it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The SA takes no more packets.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Keys or cipher refused.
    #[error(transparent)]
    Crypto(#[from] cygnet_crypto::SealError),
    /// More packets than sequence numbers were reserved for.
    #[error("a packet without a sequence number")]
    Unnumbered,
    /// The ESP packet would be longer than a datagram can be.
    #[error("an inner packet of {inner_len} bytes does not fit into a datagram")]
    TooLong {
        /// Length of the inner packet.
        inner_len: usize,
    },
}

impl OutboundSa {
    /// Length of the ESP packet that carries `inner_len` bytes.
    pub fn sealed_len(&self, inner_len: usize) -> usize {
        self.overhead().sealed_len(inner_len.max(self.tfc_len()))
    }

    /// Seals the inner packet of `inner_len` bytes that lies at [`crate::Overhead::inner_at`] in `datagram`,
    /// which is [`Self::sealed_len`] bytes long. `seq` comes from [`Self::reserve`].
    pub fn seal(
        &self,
        seq: u64,
        version: Version,
        inner_len: usize,
        datagram: &mut [u8],
    ) -> Result<(), SealError> {
        let next_header = match version {
            Version::V4 => protocol::IPV4,
            Version::V6 => protocol::IPV6,
        };
        self.seal_payload(seq, next_header, inner_len, datagram)
    }

    /// Fills `datagram` with a dummy packet, which the peer drops (RFC 4303 §2.6). The least length is
    /// [`Self::sealed_len`] of nothing; it must be one that sealing can result in.
    pub fn seal_dummy(&self, seq: u64, datagram: &mut [u8]) -> Result<(), SealError> {
        let inner_len = self.overhead().max_inner_in(datagram.len());
        if let Some(inner) = datagram.get_mut(self.overhead().inner_at()..) {
            inner.fill(0);
        }
        self.seal_payload(seq, protocol::NO_NEXT_HEADER, inner_len, datagram)
    }

    fn seal_payload(
        &self,
        seq: u64,
        next_header: u8,
        inner_len: usize,
        datagram: &mut [u8],
    ) -> Result<(), SealError> {
        let overhead = self.overhead();
        let (inner_at, icv_at) = (
            overhead.inner_at(),
            datagram.len().saturating_sub(overhead.icv_len()),
        );
        let padded_len = inner_len.max(self.tfc_len());
        if datagram.len() != overhead.sealed_len(padded_len) {
            return Err(SealError::TooLong { inner_len });
        }
        if let Some(tfc) = datagram.get_mut(inner_at + inner_len..inner_at + padded_len) {
            tfc.fill(0);
        }
        if let Some(trailer) = datagram.get_mut(inner_at + padded_len..icv_at) {
            EspTrailer::emit(trailer, next_header);
        }
        Ok(self.sealer().seal_in_place(self.spi(), seq, datagram)?)
    }
}

/// Seals as many of `segments` as fit straight into `batch`, with the first of `seqs`, which
/// [`OutboundSa::reserve`] gave: one for each of them at least.
///
/// Where it tells why not all did, it is to be repeated after sending and clearing the batch. What is
/// longer than the path allows was refused or cut before (see [`crate::toobig`]).
pub fn seal_segments<P: Copy + Eq>(
    sa: &OutboundSa,
    segments: &mut Segments<'_>,
    batch: &mut SendBatch<P>,
    path: P,
    seqs: &mut Range<u64>,
) -> Result<Option<NoRoom>, SealError> {
    let version = segments.packet().version;
    let outer = Outer {
        path,
        tos: tos::outer_tos(segments.packet().tos, sa.dscp()),
    };
    let inner_at = sa.overhead().inner_at();
    while segments.remaining() != 0 {
        let inner_len = segments.next_len();
        let too_long = SealError::TooLong { inner_len };
        let mut slot = match batch.reserve(outer, sa.sealed_len(inner_len)) {
            Ok(slot) => slot,
            Err(NoRoom::TooLong) => return Err(too_long),
            Err(reason) => return Ok(Some(reason)),
        };
        let seq = seqs.next().ok_or(SealError::Unnumbered)?;
        let datagram = slot.bytes_mut();
        let inner = datagram.get_mut(inner_at..).ok_or(too_long)?;
        segments.write_next(inner).ok_or(too_long)?;
        sa.seal(seq, version, inner_len, datagram)?;
        slot.commit();
    }
    Ok(None)
}

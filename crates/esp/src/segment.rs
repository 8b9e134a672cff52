//! One read from the TUN, cut into the packets it stands for.
//!
//! With `IFF_VNET_HDR` the kernel hands over up to 64 KiB of one TCP connection or of equal UDP
//! datagrams at once, or a packet whose checksum is still to be made. Each packet is written straight
//! to where it will be sealed: its payload is copied once and summed once.

use cygnet_wire::ip::checksum::{self, Sum};
use cygnet_wire::ip::{
    GsoType, HeaderError, IpPacket, Ipv4Header, TcpHeader, UdpHeader, Version, VirtioNetHeader,
    protocol, tcp_flags,
};
use thiserror::Error;

use crate::flow::Flow;

/// Why a read is not what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// No IP packet, or not all of it.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A super-packet of a kind that was not asked for, or whose contents are of another kind.
    #[error("a super-packet of kind {0:?} was not expected here")]
    Kind(GsoType),
    /// A super-packet without a segment size, of a fragment, or without payload.
    #[error("a super-packet that cannot be cut")]
    Uncuttable,
    /// The checksum's place is outside the packet, or in its IP header or an extension of it.
    #[error(
        "checksum from {start} at {offset} lies outside the payload of a packet of {len} bytes"
    )]
    ChecksumPlace {
        /// Where summing starts.
        start: usize,
        /// Where the checksum is, from there.
        offset: usize,
        /// Length of the packet.
        len: usize,
    },
}

/// The packets of one read, in order.
#[derive(Clone, Debug)]
pub struct Segments<'p> {
    bytes: &'p [u8],
    packet: IpPacket,
    flow: Flow,
    cut: Cut,
    /// Length of the headers each segment repeats; all of a packet that is not cut.
    header_len: usize,
    /// Payload bytes per segment, at least one where there is payload.
    size: usize,
    count: usize,
    next: usize,
    /// What had left before it was cut.
    left: Progress,
}

/// How far into a read something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of payload.
    payload: usize,
    /// Packets they were cut into.
    packets: usize,
}

impl Progress {
    /// The packets up to there.
    pub fn packets(&self) -> usize {
        self.packets
    }
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// One packet; where its checksum is to be completed, if it is.
    Whole { checksum: Option<(usize, usize)> },
    /// TCP: what does not change between segments is summed once.
    Tcp {
        base: Sum,
        seq: u32,
        flags: u8,
        ip_base: Sum,
        id: u16,
    },
    /// UDP.
    Udp { base: Sum, ip_base: Sum, id: u16 },
    /// Fragments of one IPv4 packet; its checksum's place and value, if that was still to be made.
    Fragments { checksum: Option<(usize, u16)> },
}

impl<'p> Segments<'p> {
    /// Understands a read: the packet after its virtio header.
    pub fn new(header: &VirtioNetHeader, bytes: &'p [u8]) -> Result<Self, SegmentError> {
        let packet = IpPacket::parse(bytes)?;
        let bytes = bytes.get(..packet.len).unwrap_or(bytes);
        let flow = Flow::of(&packet, bytes);
        if header.gso_type == GsoType::None {
            return Self::whole(header, bytes, packet, flow);
        }
        if packet.fragment.is_some() || header.gso_size == 0 {
            return Err(SegmentError::Uncuttable);
        }
        let (upper_len, cut) = match (header.gso_type, packet.version, packet.protocol) {
            (GsoType::TcpV4, Version::V4, protocol::TCP)
            | (GsoType::TcpV6, Version::V6, protocol::TCP) => Self::tcp(&packet, bytes)?,
            (GsoType::UdpL4, _, protocol::UDP) => Self::udp(&packet, bytes)?,
            (kind, _, _) => return Err(SegmentError::Kind(kind)),
        };
        let header_len = packet.payload_at + upper_len;
        let payload_len = packet.len - header_len;
        if payload_len == 0 {
            return Err(SegmentError::Uncuttable);
        }
        let size = usize::from(header.gso_size);
        let count = payload_len.div_ceil(size);
        Ok(Self {
            bytes,
            packet,
            flow,
            cut,
            header_len,
            size,
            count,
            next: 0,
            left: Progress::default(),
        })
    }

    /// One packet that is complete as it is.
    pub fn plain(bytes: &'p [u8]) -> Result<Self, SegmentError> {
        Self::new(&VirtioNetHeader::PLAIN, bytes)
    }

    /// What the headers say; `len` is that of the read, not of a segment.
    pub fn packet(&self) -> &IpPacket {
        &self.packet
    }

    /// What selectors are matched against.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// How many packets are left.
    pub fn remaining(&self) -> usize {
        self.count - self.next
    }

    /// Length of the next packet; 0 when none is left.
    pub fn next_len(&self) -> usize {
        if self.next >= self.count {
            0
        } else {
            self.header_len + self.payload_at(self.next).1
        }
    }

    /// Length of the next `count` packets together, or of all that are left.
    pub fn len_of_next(&self, count: usize) -> usize {
        let last = self.next.saturating_add(count).min(self.count);
        let payload_len = self.bytes.len() - self.header_len;
        let start = self.payload_at(self.next).0;
        let end = self.payload_at(last).0.min(payload_len);
        end.saturating_sub(start) + last.saturating_sub(self.next) * self.header_len
    }

    /// Length of the longest packet left: the next one, since only the last is shorter.
    pub fn longest(&self) -> usize {
        self.next_len()
    }

    /// Takes `size` payload bytes a segment from here on where that is less than now. Only TCP over
    /// IPv4 without DF may be cut smaller than its sender asked for; tells whether it was.
    pub fn shrink_to(&mut self, max_len: usize) -> bool {
        let allowed = matches!(self.cut, Cut::Tcp { .. })
            && !self.packet.dont_fragment
            && self.next == 0
            && max_len > self.header_len;
        if allowed {
            self.size = self.size.min(max_len - self.header_len);
            self.recount();
        }
        allowed
    }

    /// Cuts one IPv4 packet without DF into fragments of at most `max_len` bytes (RFC 791 §3.2); tells
    /// whether it was possible.
    pub fn fragment_to(&mut self, max_len: usize) -> bool {
        let Cut::Whole { checksum } = self.cut else {
            return false;
        };
        let header_len = self.packet.payload_at;
        let size = max_len.saturating_sub(header_len) & !7;
        let allowed = self.packet.version == Version::V4
            && !self.packet.dont_fragment
            && self.next == 0
            && self.bytes.len() > max_len
            && size != 0
            && self.ends_within_a_datagram();
        if allowed {
            // A checksum covers the whole packet, so it is made before the packet is cut.
            let checksum = checksum.map(|(start, at)| (at, complete_checksum(self.bytes, start)));
            self.cut = Cut::Fragments { checksum };
            self.header_len = header_len;
            self.size = size;
            self.recount();
        }
        allowed
    }

    /// Starts again with the first packet, cut as before: a batch was lost before it was sent. Where the
    /// path has become narrower, the read is to be understood anew, so that [`crate::toobig::fit`] can
    /// cut it differently; see [`Self::resume`].
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// What was written so far.
    pub fn progress(&self) -> Progress {
        self.after(self.left, self.next)
    }

    /// So many packets further than `from`, which was the progress at some time.
    pub fn after(&self, from: Progress, packets: usize) -> Progress {
        Progress {
            payload: from.payload + packets * self.size,
            packets: from.packets + packets,
        }
    }

    /// Leaves out what has left of this read already, as it was cut then. To be called before it is fitted
    /// to a path that has become narrower. A packet some of whose fragments have left is whole again
    /// until it is cut.
    pub fn resume(&mut self, left: Progress) {
        self.next = 0;
        self.left = left;
        self.recount();
    }

    fn recount(&mut self) {
        if !matches!(self.cut, Cut::Whole { .. }) {
            let payload_len = self.bytes.len() - self.header_len;
            let present = payload_len.saturating_sub(self.left.payload);
            self.count = present.div_ceil(self.size);
        }
    }

    /// Writes the next packet to the start of `out`, if there is one and it fits, and tells its length.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let len = self.next_len();
        if len == 0 {
            return None;
        }
        let out = out.get_mut(..len)?;
        let (at, _) = self.payload_at(self.next);
        let (header, payload) = out.split_at_mut_checked(self.header_len)?;
        header.copy_from_slice(self.bytes.get(..self.header_len)?);
        payload.copy_from_slice(
            self.bytes
                .get(self.header_len + at..)?
                .get(..payload.len())?,
        );
        let first = at == 0;
        let last = self.next + 1 == self.count;
        let index = (self.left.packets + self.next) as u16;
        match self.cut {
            Cut::Whole { checksum: None } => {}
            Cut::Whole {
                checksum: Some((start, at)),
            } => {
                let sum = complete_checksum(out, start);
                put(out, at, sum.to_be_bytes())?;
            }
            Cut::Fragments { checksum } => {
                if let Some((place, sum)) = checksum
                    && let Some(place) = place.checked_sub(self.header_len + at)
                {
                    // Both are even and fragments begin at multiples of eight: it is in one of them.
                    let _elsewhere = put(payload, place, sum.to_be_bytes());
                }
                write_fragment_header(header, len, at, last, first)?;
            }
            Cut::Tcp {
                base,
                seq,
                flags,
                ip_base,
                id,
            } => {
                self.write_ip(header, len, ip_base, id.wrapping_add(index))?;
                let seq = seq.wrapping_add(at as u32);
                let mut flags = flags;
                if !last {
                    flags &= !(tcp_flags::FIN | tcp_flags::PSH);
                }
                if !first {
                    // RFC 3168 §6.1.2: CWR is said once.
                    flags &= !tcp_flags::CWR;
                }
                let upper_len = len - self.packet.payload_at;
                let sum = base
                    .word((seq >> 16) as u16)
                    .word(seq as u16)
                    .word(u16::from(flags))
                    .word(upper_len as u16)
                    .bytes(payload);
                let tcp = header.get_mut(self.packet.payload_at..)?;
                put(tcp, TcpHeader::SEQ_AT, seq.to_be_bytes())?;
                put(tcp, TcpHeader::FLAGS_AT, [flags])?;
                put(tcp, TcpHeader::CHECKSUM_AT, sum.checksum().to_be_bytes())?;
            }
            Cut::Udp { base, ip_base, id } => {
                self.write_ip(header, len, ip_base, id.wrapping_add(index))?;
                let upper_len = (len - self.packet.payload_at) as u16;
                // Once in the pseudo-header, once in the header.
                let sum = base.word(upper_len).word(upper_len).bytes(payload);
                let udp = header.get_mut(self.packet.payload_at..)?;
                put(udp, UdpHeader::LEN_AT, upper_len.to_be_bytes())?;
                put(udp, UdpHeader::CHECKSUM_AT, nonzero(sum).to_be_bytes())?;
            }
        }
        self.next += 1;
        Some(len)
    }

    /// Whether the offsets of this packet's fragments can be told: a fragment may claim to lie beyond
    /// what a datagram can be.
    fn ends_within_a_datagram(&self) -> bool {
        let offset = self.packet.fragment.map_or(0, |fragment| fragment.offset);
        usize::from(offset) + self.packet.payload(self.bytes).len() <= usize::from(u16::MAX)
    }

    fn whole(
        header: &VirtioNetHeader,
        bytes: &'p [u8],
        packet: IpPacket,
        flow: Flow,
    ) -> Result<Self, SegmentError> {
        let len = bytes.len();
        let checksum = if header.needs_checksum {
            let (start, offset) = (header.csum_start.into(), header.csum_offset.into());
            // A checksum written into the IP header or an extension would make another packet of it.
            if start < packet.payload_at || start + offset + 2 > len {
                return Err(SegmentError::ChecksumPlace { start, offset, len });
            }
            Some((start, start + offset))
        } else {
            None
        };
        let cut = Cut::Whole { checksum };
        Ok(Self {
            bytes,
            packet,
            flow,
            cut,
            header_len: len,
            size: 1,
            count: 1,
            next: 0,
            left: Progress::default(),
        })
    }

    fn tcp(packet: &IpPacket, bytes: &[u8]) -> Result<(usize, Cut), SegmentError> {
        let upper = packet.payload(bytes);
        let header = TcpHeader::parse(upper)?;
        let len = usize::from(header.header_len);
        // The sum of everything but sequence number, flags, checksum and length.
        let base = pseudo_base(packet)
            .bytes(upper.get(..len).unwrap_or_default())
            .without_word((header.seq >> 16) as u16)
            .without_word(header.seq as u16)
            .without_word(u16::from(header.flags))
            .without_word(header.checksum);
        let (ip_base, id) = ip_base(packet, bytes);
        Ok((
            len,
            Cut::Tcp {
                base,
                seq: header.seq,
                flags: header.flags,
                ip_base,
                id,
            },
        ))
    }

    fn udp(packet: &IpPacket, bytes: &[u8]) -> Result<(usize, Cut), SegmentError> {
        let header = UdpHeader::parse(packet.payload(bytes))?;
        let base = pseudo_base(packet)
            .word(header.src_port)
            .word(header.dst_port);
        let (ip_base, id) = ip_base(packet, bytes);
        Ok((UdpHeader::LEN, Cut::Udp { base, ip_base, id }))
    }

    /// Where a segment's payload is within all payload, and how long.
    fn payload_at(&self, index: usize) -> (usize, usize) {
        let at = match self.cut {
            Cut::Whole { .. } => 0,
            _ => self.left.payload + index * self.size,
        };
        (
            at,
            self.size
                .min((self.bytes.len() - self.header_len).saturating_sub(at)),
        )
    }

    fn write_ip(&self, header: &mut [u8], len: usize, base: Sum, id: u16) -> Option<()> {
        match self.packet.version {
            Version::V4 => {
                put(header, 2, (len as u16).to_be_bytes())?;
                put(header, 4, id.to_be_bytes())?;
                put(
                    header,
                    10,
                    base.word(len as u16).word(id).checksum().to_be_bytes(),
                )
            }
            Version::V6 => put(header, 4, ((len - 40) as u16).to_be_bytes()),
        }
    }
}

/// The pseudo-header without its length.
fn pseudo_base(packet: &IpPacket) -> Sum {
    checksum::pseudo_header(packet.src, packet.dst, packet.protocol, 0)
}

/// The sum of an IPv4 header but for length, identification and checksum; and its identification.
fn ip_base(packet: &IpPacket, bytes: &[u8]) -> (Sum, u16) {
    match (packet.version, Ipv4Header::parse(bytes)) {
        (Version::V4, Ok(header)) => {
            let sum = Sum::default()
                .bytes(bytes.get(..packet.payload_at).unwrap_or_default())
                .without_word(header.total_len)
                .without_word(header.id)
                .without_word(header.checksum);
            (sum, header.id)
        }
        _ => (Sum::default(), 0),
    }
}

/// The header of a fragment, made from the whole packet's.
fn write_fragment_header(
    header: &mut [u8],
    len: usize,
    at: usize,
    last: bool,
    first: bool,
) -> Option<()> {
    let whole = Ipv4Header::parse(header).ok()?;
    // The packet may be a fragment itself: its offset counts, and only its last piece ends it.
    let offset = (whole.flags_fragment & Ipv4Header::OFFSET_MASK) + (at / 8) as u16;
    let more = if last {
        whole.flags_fragment & Ipv4Header::MORE_FRAGMENTS
    } else {
        Ipv4Header::MORE_FRAGMENTS
    };
    put(header, 2, (len as u16).to_be_bytes())?;
    put(
        header,
        6,
        (offset & Ipv4Header::OFFSET_MASK | more).to_be_bytes(),
    )?;
    if !first {
        blank_first_only_options(header.get_mut(Ipv4Header::LEN..)?);
    }
    let sum = checksum::ipv4_header(header);
    put(header, 10, sum.to_be_bytes())
}

/// Options without the copied flag are in the first fragment only (RFC 791 §3.1). They become
/// no-operations, so that all fragments have headers of one length.
fn blank_first_only_options(mut options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    while let Some(kind) = options.first().copied() {
        let len = match kind {
            END => return,
            NO_OPERATION => 1,
            // A length that cannot be: what follows is nothing a router could read either.
            _ => match options.get(1) {
                Some(len @ 2..) if usize::from(*len) <= options.len() => usize::from(*len),
                _ => options.len(),
            },
        };
        let (option, rest) = options.split_at_mut(len);
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

/// The checksum of everything from `start` on, where its field holds the pseudo-header's sum.
fn complete_checksum(packet: &[u8], start: usize) -> u16 {
    nonzero(Sum::default().bytes(packet.get(start..).unwrap_or_default()))
}

/// In UDP a zero means "none", so it is sent as its other form (RFC 768); for every other protocol both
/// are the same.
fn nonzero(sum: Sum) -> u16 {
    match sum.checksum() {
        0 => 0xffff,
        sum => sum,
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut::<N>()? = value;
    Some(())
}

#[cfg(test)]
mod tests;

//! Neighbouring segments of one flow, joined into one super-packet for the TUN.
//!
//! What a burst of datagrams carried is opened in place, so the inner packets lie here and there in one
//! buffer. Joining moves nothing: a super-packet is the first packet with its header corrected, and
//! the payloads of those that follow, as ranges for a scatter write. The virtio header goes into the ten
//! bytes before the first packet, which ESP header and IV have left free.
//!
//! Two packets are joined only if the kernel, or [`crate::Segments`], would cut the result into exactly
//! these packets again. Packets of one flow stay in order.

use std::net::IpAddr;
use std::ops::Range;

use cygnet_wire::ip::checksum::{self, Sum};
use cygnet_wire::ip::{
    GsoType, IpPacket, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, Version, VirtioNetHeader,
    protocol, tcp_flags,
};

/// What the TUN accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinConfig {
    /// TCP super-packets, IPv4 and IPv6 (TUN_F_TSO4, TUN_F_TSO6).
    pub tcp: bool,
    /// UDP super-packets (TUN_F_USO4, TUN_F_USO6).
    pub udp: bool,
}

/// Joins the packets of one burst; kept and reused from burst to burst.
///
/// [`Self::push`] each packet, [`Self::finish`], write every [`Joined`], [`Self::clear`].
pub struct Joiner {
    config: JoinConfig,
    supers: Vec<Super>,
    pieces: Vec<Piece>,
    /// Those that may still grow, the latest last.
    open: Vec<usize>,
}

/// One write: a packet or a super-packet.
#[derive(Clone, Copy)]
pub struct Joined<'j> {
    joiner: &'j Joiner,
    joined: &'j Super,
}

struct Super {
    kind: Kind,
    version: Version,
    /// The first packet in the buffer.
    start: usize,
    len: usize,
    /// Where the upper layer begins, from the packet's start.
    upper_at: usize,
    /// Length of all headers.
    header_len: usize,
    /// Payload of the first segment, and so of all but the last.
    size: usize,
    payload_len: usize,
    count: usize,
    src: IpAddr,
    dst: IpAddr,
    next_seq: u32,
    ids: Ids,
    /// Flags that came with the last segment.
    last_flags: u8,
    first_piece: Option<usize>,
    last_piece: usize,
}

/// Payload of a segment that was joined.
struct Piece {
    start: usize,
    len: usize,
    next: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    /// Not to be joined with anything.
    Alone,
}

/// How IPv4 identifications go on.
#[derive(Clone, Copy)]
enum Ids {
    /// IPv6 has none.
    None,
    /// One packet so far, with this one.
    One(u16),
    /// Counted up; the next one.
    Counting(u16),
    /// All the same, which only packets with DF may be: theirs mean nothing (RFC 6864 §4.1).
    Fixed(u16),
}

/// A packet that could be joined to another.
struct Candidate {
    kind: Kind,
    upper_at: usize,
    header_len: usize,
    payload_len: usize,
    seq: u32,
    flags: u8,
    id: u16,
    dont_fragment: bool,
}

/// Flows that may grow at once.
const OPEN: usize = 8;
/// Segments in a super-packet: what Linux takes of UDP in one write.
const MAX_SEGMENTS: usize = 64;
/// Length of a super-packet, so that its length fields hold.
const MAX_LEN: usize = 65_535;
/// Flags the last segment alone may have.
const LAST_ONLY: u8 = tcp_flags::PSH | tcp_flags::FIN;

impl Joiner {
    /// Room before a packet that [`Self::push`] needs for its virtio header.
    pub const HEADROOM: usize = VirtioNetHeader::LEN;

    /// A joiner for a TUN that accepts this.
    pub fn new(config: JoinConfig) -> Self {
        Self {
            config,
            // A burst of UDP_GRO has at most 64 datagrams; more only makes these grow once.
            supers: Vec::with_capacity(128),
            pieces: Vec::with_capacity(128),
            open: Vec::with_capacity(OPEN),
        }
    }

    /// Changes what is joined from the next packet on, as when the TUN refuses super-packets.
    pub fn set_config(&mut self, config: JoinConfig) {
        self.config = config;
    }

    /// Adds the packet at `range` of `buffer`, which [`crate::InboundSa::open`] returned. False when
    /// fewer than [`Self::HEADROOM`] bytes precede it, or it is not there.
    pub fn push(&mut self, buffer: &[u8], range: Range<usize>, packet: &IpPacket) -> bool {
        let Some(bytes) = buffer.get(range.clone()) else {
            return false;
        };
        if range.start < Self::HEADROOM {
            return false;
        }
        let candidate = self.candidate(bytes, packet);
        if let Some(candidate) = &candidate {
            if let Some(place) = self.find_flow(buffer, bytes, candidate) {
                if self.append(buffer, range.start, bytes, candidate, place) {
                    return true;
                }
                // It follows what cannot take it: nothing may be joined past it.
                self.open.remove(place);
            }
        } else {
            // It may belong to any flow between the same two hosts, and must not be overtaken.
            let supers = &self.supers;
            self.open.retain(|index| {
                supers
                    .get(*index)
                    .is_none_or(|s| s.src != packet.src || s.dst != packet.dst)
            });
        }
        self.begin(range, packet, candidate.as_ref());
        true
    }

    /// Corrects headers and writes virtio headers; then the writes are ready.
    pub fn finish(&mut self, buffer: &mut [u8]) {
        self.open.clear();
        for joined in &self.supers {
            let header = joined
                .finish(buffer)
                .unwrap_or(VirtioNetHeader::PLAIN)
                .emit();
            let place = joined.start - VirtioNetHeader::LEN..joined.start;
            if let Some(place) = buffer.get_mut(place) {
                place.copy_from_slice(&header);
            }
        }
    }

    /// The writes, in the order in which they have to be made.
    pub fn joined(&self) -> impl ExactSizeIterator<Item = Joined<'_>> {
        self.supers.iter().map(|joined| Joined {
            joiner: self,
            joined,
        })
    }

    /// Forgets the burst.
    pub fn clear(&mut self) {
        self.supers.clear();
        self.pieces.clear();
        self.open.clear();
    }

    /// What of a packet decides whether it can be joined; `None` where it never can.
    fn candidate(&self, bytes: &[u8], packet: &IpPacket) -> Option<Candidate> {
        if packet.fragment.is_some() || bytes.len() != packet.len {
            return None;
        }
        let (id, options) = match packet.version {
            Version::V4 => {
                let header = Ipv4Header::parse(bytes).ok()?;
                let whole = bytes.get(..Ipv4Header::LEN)?;
                if !Sum::default().bytes(whole).is_valid() || header.checksum == 0xffff {
                    return None;
                }
                (header.id, packet.payload_at != Ipv4Header::LEN)
            }
            Version::V6 => (0, packet.payload_at != Ipv6Header::LEN),
        };
        if options {
            return None;
        }
        let upper = packet.payload(bytes);
        let (kind, upper_len, seq, flags) = match packet.protocol {
            protocol::TCP if self.config.tcp => {
                let header = TcpHeader::parse(upper).ok()?;
                // Everything else than acknowledged data stands for itself, CWR too: it would be
                // repeated or lost.
                let joinable = tcp_flags::ACK | tcp_flags::ECE | LAST_ONLY;
                let plain = header.flags & !joinable == 0 && header.flags & tcp_flags::ACK != 0;
                // All ones is a zero that nobody writes, and would come back as the other one.
                if !plain || header.checksum == 0xffff {
                    return None;
                }
                (
                    Kind::Tcp,
                    usize::from(header.header_len),
                    header.seq,
                    header.flags,
                )
            }
            protocol::UDP if self.config.udp => {
                let header = UdpHeader::parse(upper).ok()?;
                if usize::from(header.len) != upper.len() || header.checksum == 0 {
                    return None;
                }
                (Kind::Udp, UdpHeader::LEN, 0, 0)
            }
            _ => return None,
        };
        let payload_len = upper.len().checked_sub(upper_len).filter(|len| *len != 0)?;
        // The kernel makes the segments' checksums anew, which must not hide a damaged payload.
        let sum = checksum::pseudo_header(packet.src, packet.dst, packet.protocol, upper.len());
        if !sum.bytes(upper).is_valid() {
            return None;
        }
        Some(Candidate {
            kind,
            upper_at: packet.payload_at,
            header_len: packet.payload_at + upper_len,
            payload_len,
            seq,
            flags,
            id,
            dont_fragment: packet.dont_fragment,
        })
    }

    /// The open super-packet of the candidate's flow: same addresses and ports.
    fn find_flow(&self, buffer: &[u8], bytes: &[u8], candidate: &Candidate) -> Option<usize> {
        self.open.iter().rposition(|index| {
            self.supers.get(*index).is_some_and(|s| {
                let other = s.header_in(buffer);
                s.kind == candidate.kind
                    && s.upper_at == candidate.upper_at
                    && match s.version {
                        Version::V4 => same::<12>(bytes, other, 12),
                        Version::V6 => same::<36>(bytes, other, 8),
                    }
            })
        })
    }

    fn append(
        &mut self,
        buffer: &[u8],
        start: usize,
        bytes: &[u8],
        candidate: &Candidate,
        place: usize,
    ) -> bool {
        let Some(index) = self.open.get(place).copied() else {
            return false;
        };
        let Some(joined) = self.supers.get_mut(index) else {
            return false;
        };
        let Some(ids) = joined.accepts(buffer, bytes, candidate) else {
            return false;
        };
        let piece = self.pieces.len();
        self.pieces.push(Piece {
            start: start + candidate.header_len,
            len: candidate.payload_len,
            next: None,
        });
        match joined.first_piece {
            None => joined.first_piece = Some(piece),
            Some(_) => {
                if let Some(last) = self.pieces.get_mut(joined.last_piece) {
                    last.next = Some(piece);
                }
            }
        }
        joined.last_piece = piece;
        joined.ids = ids;
        joined.count += 1;
        joined.payload_len += candidate.payload_len;
        joined.next_seq = joined.next_seq.wrapping_add(candidate.payload_len as u32);
        joined.last_flags = candidate.flags;
        let complete = candidate.payload_len < joined.size
            || candidate.flags & LAST_ONLY != 0
            || joined.count == MAX_SEGMENTS;
        if complete {
            self.open.remove(place);
        }
        true
    }

    fn begin(&mut self, range: Range<usize>, packet: &IpPacket, candidate: Option<&Candidate>) {
        let index = self.supers.len();
        let grows = candidate.is_some_and(|c| c.flags & LAST_ONLY == 0);
        self.supers.push(Super {
            kind: candidate.map_or(Kind::Alone, |c| c.kind),
            version: packet.version,
            start: range.start,
            len: range.len(),
            upper_at: packet.payload_at,
            header_len: candidate.map_or(range.len(), |c| c.header_len),
            size: candidate.map_or(0, |c| c.payload_len),
            payload_len: candidate.map_or(0, |c| c.payload_len),
            count: 1,
            src: packet.src,
            dst: packet.dst,
            next_seq: candidate.map_or(0, |c| c.seq.wrapping_add(c.payload_len as u32)),
            ids: match (packet.version, candidate) {
                (Version::V4, Some(candidate)) => Ids::One(candidate.id),
                _ => Ids::None,
            },
            last_flags: candidate.map_or(0, |c| c.flags),
            first_piece: None,
            last_piece: 0,
        });
        if grows {
            if self.open.len() == OPEN {
                self.open.remove(0);
            }
            self.open.push(index);
        }
    }
}

impl Super {
    fn header_in<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        buffer
            .get(self.start..self.start + self.header_len)
            .unwrap_or_default()
    }

    /// Whether a packet of the same flow is the segment that follows; if so, how identifications go on.
    fn accepts(&self, buffer: &[u8], bytes: &[u8], candidate: &Candidate) -> Option<Ids> {
        let fits = candidate.header_len == self.header_len
            && candidate.payload_len <= self.size
            && self.header_len + self.payload_len + candidate.payload_len <= MAX_LEN
            && (self.kind != Kind::Tcp || candidate.seq == self.next_seq)
            && self.last_flags == candidate.flags & !LAST_ONLY;
        if !fits {
            return None;
        }
        let (mine, other) = (self.header_in(buffer), bytes.get(..self.header_len)?);
        // Addresses and ports are the same: it is the same flow.
        let ip_same = match self.version {
            // Version, IHL, TOS; flags, TTL, protocol. Not lengths, identification, checksum.
            Version::V4 => same::<2>(mine, other, 0) && same::<4>(mine, other, 6),
            // Version, traffic class, flow label; next header, hop limit.
            Version::V6 => same::<4>(mine, other, 0) && same::<2>(mine, other, 6),
        };
        let at = self.upper_at;
        let upper_same = match self.kind {
            // Acknowledgement and offset; window; urgent pointer and options, of which there are
            // mostly none, or time stamps.
            Kind::Tcp => {
                same::<4>(mine, other, at + 8)
                    && same::<1>(mine, other, at + 12)
                    && same::<2>(mine, other, at + 14)
                    && match self.header_len - at {
                        TcpHeader::LEN => same::<2>(mine, other, at + 18),
                        32 => same::<14>(mine, other, at + 18),
                        _ => mine.get(at + 18..) == other.get(at + 18..),
                    }
            }
            Kind::Udp => true,
            Kind::Alone => false,
        };
        (ip_same && upper_same).then_some(())?;
        let id = candidate.id;
        match self.ids {
            Ids::None => Some(Ids::None),
            Ids::One(first) if id == first.wrapping_add(1) => {
                Some(Ids::Counting(id.wrapping_add(1)))
            }
            Ids::One(first) if id == first && candidate.dont_fragment => Some(Ids::Fixed(id)),
            Ids::Counting(next) if id == next => Some(Ids::Counting(id.wrapping_add(1))),
            Ids::Fixed(fixed) if id == fixed => Some(self.ids),
            _ => None,
        }
    }

    /// Makes the first packet's header that of the whole; `None` where there is nothing to do.
    fn finish(&self, buffer: &mut [u8]) -> Option<VirtioNetHeader> {
        if self.count < 2 {
            return None;
        }
        let header = buffer.get_mut(self.start..self.start + self.header_len)?;
        let (ip, upper) = header.split_at_mut_checked(self.upper_at)?;
        let len = self.header_len + self.payload_len;
        let upper_len = len - self.upper_at;
        let (gso_type, number, checksum_at) = match (self.kind, self.version) {
            (Kind::Tcp, Version::V4) => (GsoType::TcpV4, protocol::TCP, TcpHeader::CHECKSUM_AT),
            (Kind::Tcp, Version::V6) => (GsoType::TcpV6, protocol::TCP, TcpHeader::CHECKSUM_AT),
            (Kind::Udp, _) => (GsoType::UdpL4, protocol::UDP, UdpHeader::CHECKSUM_AT),
            (Kind::Alone, _) => return None,
        };
        match self.version {
            Version::V4 => {
                put(ip, 2, (len as u16).to_be_bytes())?;
                let sum = checksum::ipv4_header(ip);
                put(ip, 10, sum.to_be_bytes())?;
            }
            Version::V6 => put(ip, 4, (upper_len as u16).to_be_bytes())?,
        }
        match self.kind {
            Kind::Tcp => *upper.get_mut(TcpHeader::FLAGS_AT)? |= self.last_flags,
            _ => put(upper, UdpHeader::LEN_AT, (upper_len as u16).to_be_bytes())?,
        }
        let partial = checksum::pseudo_header(self.src, self.dst, number, upper_len).partial();
        put(upper, checksum_at, partial.to_be_bytes())?;
        Some(VirtioNetHeader {
            needs_checksum: true,
            gso_type,
            header_len: self.header_len as u16,
            gso_size: self.size as u16,
            csum_start: self.upper_at as u16,
            csum_offset: checksum_at as u16,
            ..VirtioNetHeader::PLAIN
        })
    }
}

impl<'j> Joined<'j> {
    /// Parts of the buffer to be written one after the other; the first starts with the virtio header.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> + use<'j> {
        let first = self.joined.start - VirtioNetHeader::LEN..self.joined.start + self.joined.len;
        let pieces = &self.joiner.pieces;
        let mut next = self.joined.first_piece;
        std::iter::once(first).chain(std::iter::from_fn(move || {
            let piece = pieces.get(next?)?;
            next = piece.next;
            Some(piece.start..piece.start + piece.len)
        }))
    }

    /// How many packets were joined.
    pub fn segments(self) -> usize {
        self.joined.count
    }
}

/// Whether both hold the same `N` bytes there. The length is known where this is compiled, which spares
/// a call for a few bytes.
fn same<const N: usize>(one: &[u8], other: &[u8], at: usize) -> bool {
    let part = |bytes: &[u8]| bytes.get(at..)?.first_chunk::<N>().copied();
    part(one).is_some_and(|part_of_one| part(other) == Some(part_of_one))
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut::<N>()? = value;
    Some(())
}

#[cfg(test)]
mod tests;

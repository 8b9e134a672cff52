//! Packets longer than the path allows: answered, or cut before sealing (RFC 4301 §8.2.1, §8.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_wire::ip::{
    IcmpHeader, IpPacket, Ipv4Header, Ipv6Header, Version, checksum, icmpv4, icmpv6, protocol,
};

use crate::segment::Segments;

/// The least MTU of a link that carries IPv6 (RFC 8200 §5). A tunnel over a smaller one has to let its
/// sealed packets be fragmented, never the inner ones (RFC 2473 §7.1).
pub const IPV6_MIN_MTU: usize = 1280;

/// The least MTU of a link that carries IPv4 (RFC 791 §3.2).
pub const IPV4_MIN_MTU: usize = 68;

/// What to do with a read from the TUN, given the path it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Its packets can be sealed; where it was allowed, they are now cut so that they fit.
    Fits,
    /// Its packets can be sealed, and do not fit: they are of IPv6, which no path has to be too narrow for
    /// ([`IPV6_MIN_MTU`]). What they are sealed into leaves in fragments.
    Fragments,
    /// Its sender has to be told, see [`packet_too_big`], and it is dropped.
    TooBig,
    /// Equal UDP datagrams without DF: each has to be written out, and fitted by itself.
    OneByOne,
}

/// Makes the packets of a read fit into `max_inner` bytes, or says why that is not ours to do.
pub fn fit(segments: &mut Segments<'_>, max_inner: usize) -> Fit {
    let longest = segments.longest();
    let allowed = match segments.packet().version {
        Version::V4 => max_inner,
        Version::V6 => max_inner.max(IPV6_MIN_MTU),
    };
    if longest <= max_inner {
        Fit::Fits
    } else if longest <= allowed {
        Fit::Fragments
    } else if segments.packet().dont_fragment {
        Fit::TooBig
    } else if segments.shrink_to(allowed) || segments.fragment_to(allowed) {
        Fit::Fits
    } else if segments.remaining() > 1 {
        Fit::OneByOne
    } else {
        Fit::TooBig
    }
}

/// Writes to `out` the ICMP message that tells the sender of `packet` how long its packets may be, and
/// returns its length; `None` where no such message may be sent, or `out` is too short (1280 bytes
/// suffice), or `from` is of the other family.
///
/// `from` is an address of ours that the sender knows, `mtu` the longest inner packet. How often it is
/// sent is the caller's to limit (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
pub fn packet_too_big(packet: &[u8], mtu: usize, from: IpAddr, out: &mut [u8]) -> Option<usize> {
    let headers = IpPacket::parse(packet).ok()?;
    let packet = packet.get(..headers.len)?;
    match (headers.src, from) {
        (IpAddr::V4(sender), IpAddr::V4(from)) => {
            may_answer_v4(&headers, packet, sender).then_some(())?;
            fragmentation_needed(packet, mtu, from, sender, out)
        }
        (IpAddr::V6(sender), IpAddr::V6(from)) => {
            may_answer_v6(&headers, packet, sender).then_some(())?;
            packet_too_big_v6(packet, mtu, from, sender, out)
        }
        _ => None,
    }
}

/// RFC 1122 §3.2.2: no ICMP error about an ICMP error, a later fragment, a packet to many or from no
/// single host.
fn may_answer_v4(headers: &IpPacket, packet: &[u8], sender: Ipv4Addr) -> bool {
    let single = |addr: Ipv4Addr| {
        !addr.is_unspecified()
            && !addr.is_broadcast()
            && !addr.is_multicast()
            && addr.octets()[0] < 240
    };
    let to_many =
        matches!(headers.dst, IpAddr::V4(dst) if dst.is_broadcast() || dst.is_multicast());
    let about_error = headers.protocol == protocol::ICMP
        && IcmpHeader::parse(headers.payload(packet))
            .map_or(true, |header| icmpv4::is_error(header.kind));
    single(sender)
        && !sender.is_loopback()
        && !to_many
        && !headers.is_later_fragment()
        && !about_error
}

/// RFC 4443 §2.4 (e): the same for IPv6, where this message is allowed about packets to many.
fn may_answer_v6(headers: &IpPacket, packet: &[u8], sender: Ipv6Addr) -> bool {
    let about_error = headers.protocol == protocol::ICMPV6
        && !headers.is_later_fragment()
        && IcmpHeader::parse(headers.payload(packet))
            .map_or(true, |header| icmpv6::is_error(header.kind));
    !sender.is_unspecified() && !sender.is_multicast() && !about_error
}

/// Destination unreachable, fragmentation needed and DF set (RFC 1191 §4).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Type = 3    |   Code = 4    |           Checksum            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           unused = 0          |         Next-Hop MTU          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |      Internet Header + as much of the original datagram       |
/// ```
fn fragmentation_needed(
    packet: &[u8],
    mtu: usize,
    from: Ipv4Addr,
    to: Ipv4Addr,
    out: &mut [u8],
) -> Option<usize> {
    // RFC 1812 §4.3.2.3: as much as fits into 576 bytes.
    const LONGEST: usize = 576;
    const HEADERS: usize = Ipv4Header::LEN + IcmpHeader::LEN;
    let quote = packet.get(..packet.len().min(LONGEST - HEADERS))?;
    let len = HEADERS + quote.len();
    let mtu = mtu.clamp(IPV4_MIN_MTU, usize::from(u16::MAX)) as u16;

    let [hi, lo] = mtu.to_be_bytes();
    let mut icmp = IcmpHeader {
        kind: icmpv4::UNREACHABLE,
        code: icmpv4::FRAGMENTATION_NEEDED,
        checksum: 0,
        rest: [0, 0, hi, lo],
    };
    icmp.checksum = checksum::Sum::default()
        .bytes(&icmp.emit())
        .bytes(quote)
        .checksum();
    let mut ip = Ipv4Header {
        header_len: Ipv4Header::LEN as u8,
        // RFC 1812 §4.3.2.5: precedence INTERNETWORK CONTROL.
        tos: 0xc0,
        total_len: len as u16,
        id: 0,
        flags_fragment: Ipv4Header::DONT_FRAGMENT,
        ttl: 64,
        protocol: protocol::ICMP,
        checksum: 0,
        src: from,
        dst: to,
    };
    ip.checksum = checksum::ipv4_header(&ip.emit());
    emit(out, [&ip.emit(), &icmp.emit(), quote])
}

/// Packet Too Big (RFC 4443 §3.2).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Type = 2    |   Code = 0    |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                             MTU                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    As much of invoking packet                 |
/// +               as possible without the ICMPv6 packet           +
/// |               exceeding the minimum IPv6 MTU                  |
/// ```
fn packet_too_big_v6(
    packet: &[u8],
    mtu: usize,
    from: Ipv6Addr,
    to: Ipv6Addr,
    out: &mut [u8],
) -> Option<usize> {
    const HEADERS: usize = Ipv6Header::LEN + IcmpHeader::LEN;
    let quote = packet.get(..packet.len().min(IPV6_MIN_MTU - HEADERS))?;
    let mtu = u32::try_from(mtu.max(IPV6_MIN_MTU)).unwrap_or(u32::MAX);
    let upper_len = IcmpHeader::LEN + quote.len();

    let mut icmp = IcmpHeader {
        kind: icmpv6::PACKET_TOO_BIG,
        code: 0,
        checksum: 0,
        rest: mtu.to_be_bytes(),
    };
    icmp.checksum = checksum::pseudo_header(from.into(), to.into(), protocol::ICMPV6, upper_len)
        .bytes(&icmp.emit())
        .bytes(quote)
        .checksum();
    let ip = Ipv6Header {
        traffic_class: 0xc0,
        flow_label: 0,
        payload_len: upper_len as u16,
        next_header: protocol::ICMPV6,
        hop_limit: 64,
        src: from,
        dst: to,
    };
    emit(out, [&ip.emit(), &icmp.emit(), quote])
}

fn emit(out: &mut [u8], parts: [&[u8]; 3]) -> Option<usize> {
    let mut at = 0;
    for part in parts {
        out.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(at)
}

#[cfg(test)]
mod tests;

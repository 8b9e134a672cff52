//! What a frame is that arrived at the home router. Whatever is not known to be right is a leak.

use super::traffic::{MARK, marks_of};
use super::world::ROUTER_MAC;
use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use std::fmt::Write;
use std::net::IpAddr;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// IKE or ESP between the box and the server.
    Tunnel,
    /// The box's kernel tells the server that nobody listens, or the way is closed, and quotes the tunnel's packet alone.
    Error,
    /// ARP, neighbour discovery, multicast listeners: no router forwards them.
    Neighbours,
    /// What a device sends that goes direct.
    Direct,
    /// For somebody else in the LAN: the switch did not know where that is.
    Elsewhere,
    /// What it was.
    Leak(String),
}

/// Who may talk to whom. The box needs nothing else here: it has a fixed address, and the server's is no name.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) boxes: Vec<IpAddr>,
    pub(super) servers: Vec<IpAddr>,
    /// The device that goes direct, if there is one: known by its mark alone.
    pub(super) direct: Option<&'static str>,
}

impl Judge {
    pub(super) fn judge(&self, frame: &[u8]) -> Verdict {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return Verdict::Leak(format!("{} octets that are no frame", frame.len()));
        };
        let Some(LinkSlice::Ethernet2(link)) = &packet.link else {
            return Verdict::Leak("a frame without an Ethernet header".to_owned());
        };
        let to = link.destination();
        if to != ROUTER_MAC && to[0] & 1 == 0 {
            return Verdict::Elsewhere;
        }
        let is_direct = |who| marks_of(who).iter().any(|mark| contains(frame, mark));
        if self.direct.is_some_and(is_direct) {
            return Verdict::Direct;
        }
        if contains(frame, MARK) {
            return Verdict::Leak(told(&packet, frame));
        }
        if link.ether_type() == EtherType::ARP || is_neighbours(&packet) {
            return Verdict::Neighbours;
        }
        if self.between(&packet, Way::Out) {
            if is_ike_or_esp(&packet) {
                return Verdict::Tunnel;
            }
            if self.is_error_of_the_tunnel(&packet) {
                return Verdict::Error;
            }
        }
        Verdict::Leak(told(&packet, frame))
    }

    /// Whether a packet goes from the box to the server, or back.
    fn between(&self, packet: &LaxSlicedPacket<'_>, way: Way) -> bool {
        addresses(packet).is_some_and(|(from, to)| match way {
            Way::Out => self.boxes.contains(&from) && self.servers.contains(&to),
            Way::Back => self.servers.contains(&from) && self.boxes.contains(&to),
        })
    }

    /// "Unreachable", "too big" or "time exceeded" about a packet of the server's to the box itself.
    fn is_error_of_the_tunnel(&self, packet: &LaxSlicedPacket<'_>) -> bool {
        let quoted = match &packet.transport {
            Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.type_u8(), 3 | 11) => {
                icmp.payload()
            }
            Some(TransportSlice::Icmpv6(icmp)) if matches!(icmp.type_u8(), 1..=3) => icmp.payload(),
            _ => return false,
        };
        LaxSlicedPacket::from_ip(quoted)
            .is_ok_and(|quoted| self.between(&quoted, Way::Back) && is_ike_or_esp(&quoted))
    }
}

/// Of a packet between the two.
#[derive(Clone, Copy)]
enum Way {
    Out,
    Back,
}

fn addresses(packet: &LaxSlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => Some((
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )),
        Some(LaxNetSlice::Ipv6(ip)) => Some((
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )),
        _ => None,
    }
}

fn is_ike_or_esp(packet: &LaxSlicedPacket<'_>) -> bool {
    let ours = |port: u16| port == 500 || port == 4500;
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => ours(udp.source_port()) && ours(udp.destination_port()),
        _ => false,
    }
}

/// Neighbour discovery (RFC 4861 §4) and multicast listeners (RFC 2710 §3.1, RFC 3810 §5.2).
fn is_neighbours(packet: &LaxSlicedPacket<'_>) -> bool {
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
        return false;
    };
    match icmp.type_u8() {
        130..=136 | 143 => true,
        // The router asks whether the box still has an address that it gave back. It hears where else to ask; or, where
        // the box passes that on, that nobody there has it; or that it passes on nothing with a link-local source
        // (RFC 4443 §3.1). Of a packet that a router passes on it would be a leak.
        1 => is_solicitation(icmp.payload()),
        137 => redirected(icmp.payload()).is_some_and(is_solicitation),
        _ => false,
    }
}

/// Whether a router itself asks for a neighbour in it: from its link-local address, and nobody but the box has passed
/// that on (RFC 4861 §7.1.1).
fn is_solicitation(quoted: &[u8]) -> bool {
    let Ok(quoted) = LaxSlicedPacket::from_ip(quoted) else {
        return false;
    };
    let is_near = match &quoted.net {
        Some(LaxNetSlice::Ipv6(ip)) => {
            ip.header().hop_limit() >= 254 && ip.header().source_addr().is_unicast_link_local()
        }
        _ => false,
    };
    is_near
        && matches!(&quoted.transport, Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() == 135)
}

/// The packet that a redirect quotes (RFC 4861 §4.5, §4.6.3). `rest`: behind the reserved octets.
fn redirected(rest: &[u8]) -> Option<&[u8]> {
    let mut options = rest.get(32..)?;
    loop {
        let (kind, length) = (*options.first()?, usize::from(*options.get(1)?) * 8);
        let option = options.get(..length).filter(|_| length > 0)?;
        match kind {
            4 => return option.get(8..),
            _ => options = options.get(length..)?,
        }
    }
}

/// Whether it is in there, in whatever letters: who asks on for a name may change them (draft-vixie-dnsext-dns0x20).
fn contains(octets: &[u8], what: &[u8]) -> bool {
    let mut windows = octets.windows(what.len());
    windows.any(|window| window.eq_ignore_ascii_case(what))
}

/// From whom to whom, which protocol, and what of the traffic it was.
fn told(packet: &LaxSlicedPacket<'_>, frame: &[u8]) -> String {
    let mut text = match addresses(packet) {
        Some((from, to)) => format!("{from} > {to}"),
        None => format!("a frame of {} octets", frame.len()),
    };
    // Writing to a String cannot fail.
    let _ = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            write!(
                text,
                " UDP {} > {}",
                udp.source_port(),
                udp.destination_port()
            )
        }
        Some(TransportSlice::Tcp(tcp)) => {
            write!(
                text,
                " TCP {} > {}",
                tcp.source_port(),
                tcp.destination_port()
            )
        }
        Some(TransportSlice::Icmpv4(icmp)) => write!(text, " ICMP type {}", icmp.type_u8()),
        Some(TransportSlice::Icmpv6(icmp)) => write!(text, " ICMPv6 type {}", icmp.type_u8()),
        _ => Ok(()),
    };
    let mut windows = frame.windows(MARK.len());
    if let Some(at) = windows.position(|window| window.eq_ignore_ascii_case(MARK)) {
        let canary = frame[at..].iter().take(48);
        let canary = canary.map(|octet| match octet {
            b' '..=b'~' => char::from(*octet),
            _ => '.',
        });
        let _ = write!(text, " \"{}\"", canary.collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use std::net::Ipv6Addr;

    const BOX: [u8; 4] = [192, 168, 1, 2];
    const LAPTOP: [u8; 4] = [192, 168, 1, 20];
    const SERVER: [u8; 4] = [192, 0, 2, 18];
    const WEB: [u8; 4] = [198, 51, 100, 80];
    const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn judge(frame: &[u8]) -> Verdict {
        let judge = Judge {
            boxes: vec![BOX.into(), "fd00::2".parse().unwrap()],
            servers: vec![SERVER.into()],
            direct: Some("tv"),
        };
        judge.judge(frame)
    }

    fn udp(from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        frame(ROUTER_MAC, from, to, ports, payload)
    }

    fn frame(
        mac: [u8; 6],
        from: [u8; 4],
        to: [u8; 4],
        ports: (u16, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(OTHER_MAC, mac)
            .ipv4(from, to, 64)
            .udp(ports.0, ports.1);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn is_leak(frame: &[u8], told: &str) -> bool {
        matches!(judge(frame), Verdict::Leak(text) if text.contains(told))
    }

    #[test]
    fn only_the_tunnels_own_packets_are_right() {
        for ports in [(500, 500), (4500, 4500), (500, 4500)] {
            assert_eq!(judge(&udp(BOX, SERVER, ports, &[7; 90])), Verdict::Tunnel);
        }
        for (from, to, ports) in [
            (BOX, WEB, (4500, 4500)),
            (BOX, SERVER, (40_000, 4500)),
            (BOX, SERVER, (4500, 53)),
            (LAPTOP, SERVER, (4500, 4500)),
            (LAPTOP, WEB, (500, 500)),
        ] {
            assert!(
                is_leak(&udp(from, to, ports, &[7; 90]), " UDP "),
                "{from:?} {to:?} {ports:?}"
            );
        }
    }

    #[test]
    fn a_mark_is_a_leak_whoever_seems_to_send_it() {
        let masqueraded = udp(BOX, SERVER, (4500, 4500), b"\0\0\0\0cygnet-canary of phone");
        assert!(is_leak(&masqueraded, "\"cygnet-canary of phone\""));
    }

    #[test]
    fn a_query_that_the_box_asks_on_is_a_leak_in_whatever_letters() {
        let query = b"cy\x01\0\0\x01\0\0\0\0\0\0\x0dcYgNeT-cAnArY\x06laptop\x07example\0";
        let asked_on = udp(BOX, [198, 51, 100, 53], (40_000, 53), query);
        assert!(is_leak(&asked_on, "\"cYgNeT-cAnArY.laptop.example"));
    }

    #[test]
    fn who_goes_direct_is_known_by_the_mark_and_by_nothing_else() {
        let tv = [192, 168, 1, 22];
        for mark in [
            &b"cygnet-canary of tv, UDP"[..],
            b"\x0dcygnet-canary\x02tv\x07example\0",
        ] {
            assert_eq!(judge(&udp(tv, WEB, (9, 9), mark)), Verdict::Direct);
        }
        for mark in [
            &b"cygnet-canary of tvs, UDP"[..],
            b"cygnet-canary of laptop",
            b"else",
        ] {
            assert!(is_leak(&udp(tv, WEB, (9, 9), mark), "UDP"));
        }
    }

    #[test]
    fn what_is_for_others_in_the_lan_does_not_count() {
        let flooded = frame(OTHER_MAC, LAPTOP, WEB, (9, 9), MARK);
        assert_eq!(judge(&flooded), Verdict::Elsewhere);
        let broadcast = frame([255; 6], LAPTOP, WEB, (9, 9), MARK);
        assert!(is_leak(&broadcast, "192.168.1.20 > 198.51.100.80"));
    }

    #[test]
    fn an_error_may_quote_the_tunnel_and_nothing_else() {
        let error = |quoted: &[u8]| {
            let unreachable = etherparse::Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::Port,
            );
            let builder = PacketBuilder::ethernet2(OTHER_MAC, ROUTER_MAC)
                .ipv4(BOX, SERVER, 64)
                .icmpv4(unreachable);
            let mut frame = Vec::new();
            builder.write(&mut frame, quoted).unwrap();
            frame
        };
        let esp = udp(SERVER, BOX, (4500, 4500), &[7; 60]);
        assert_eq!(judge(&error(&esp[14..])), Verdict::Error);
        let inner = udp(WEB, LAPTOP, (53, 40_000), &[7; 60]);
        assert!(is_leak(&error(&inner[14..]), "ICMP type 3"));
    }

    #[test]
    fn neighbours_may_talk() {
        let mut arp = [ROUTER_MAC, OTHER_MAC].concat();
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend([0; 20]);
        assert_eq!(judge(&arp), Verdict::Neighbours);
        let v6 = |kind: u8| {
            let builder = PacketBuilder::ethernet2(OTHER_MAC, ROUTER_MAC)
                .ipv6([0xfe; 16], [0xff; 16], 255)
                .icmpv6_raw(kind, 0, [0; 4]);
            let mut frame = Vec::new();
            builder.write(&mut frame, &[0; 24]).unwrap();
            frame
        };
        assert_eq!(judge(&v6(135)), Verdict::Neighbours);
        assert!(is_leak(&v6(128), "ICMPv6 type 128"));
        // A redirect and an error tell of a packet, and are judged by it.
        let quoted = |kind: u8, hop_limit: u8, source: &str| {
            let source: Ipv6Addr = source.parse().unwrap();
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv6(source.octets(), [0xfd; 16], hop_limit);
            let builder = builder.icmpv6_raw(kind, 0, [0; 4]);
            builder.write(&mut packet, &[0; 24]).unwrap();
            packet
        };
        let telling = |kind: u8, rest: &[u8]| {
            let builder = PacketBuilder::ethernet2(OTHER_MAC, ROUTER_MAC)
                .ipv6([0xfe; 16], [0xff; 16], 255)
                .icmpv6_raw(kind, 0, [0; 4]);
            let mut frame = Vec::new();
            builder.write(&mut frame, rest).unwrap();
            frame
        };
        let redirect = |quoted: &[u8]| {
            let mut rest = vec![0; 32];
            // A link-layer address before it.
            rest.extend([2, 1, 0, 0, 0, 0, 0, 0]);
            rest.extend([4, 10, 0, 0, 0, 0, 0, 0]);
            rest.extend(quoted);
            telling(137, &rest)
        };
        let unreachable = |quoted: &[u8]| telling(1, quoted);
        for told in [&redirect as &dyn Fn(&[u8]) -> Vec<u8>, &unreachable] {
            for hop_limit in [255, 254] {
                let asked = told(&quoted(135, hop_limit, "fe80::1"));
                assert_eq!(judge(&asked), Verdict::Neighbours);
            }
            for (kind, hop_limit, source) in [
                (135, 253, "fe80::1"),
                (128, 255, "fe80::1"),
                (135, 255, "fd00::9"),
            ] {
                let frame = told(&quoted(kind, hop_limit, source));
                assert!(
                    is_leak(&frame, "ICMPv6 type 1"),
                    "{kind} {hop_limit} {source}"
                );
            }
        }
        assert!(is_leak(&v6(1), "ICMPv6 type 1"));
        assert!(is_leak(&v6(137), "ICMPv6 type 137"));
        assert!(is_leak(&[1, 2, 3], "no frame"));
    }
}

//! Packets of the inner network, also such as the kernel hands over to be cut.

use std::net::Ipv4Addr;

use cygnet_wire::ip::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, checksum, protocol};

use super::Seed;

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, mtu: u16, header: [u8; 10], packet: Vec<u8>| {
        let bytes = [&mtu.to_be_bytes()[..], &[0], &header, &packet].concat();
        seeds.push(("inner_packets", name.to_owned(), bytes));
    };
    let plain = [0; 10];
    // needs_checksum, kind of super-packet, header length, segment size, checksum start and offset.
    let gso = |kind: u8, headers: u16, size: u16, start: u16, offset: u16| {
        let mut h = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (place, value) in [(2, headers), (4, size), (6, start), (8, offset)] {
            h[place..place + 2].copy_from_slice(&value.to_ne_bytes());
        }
        h
    };
    add("udp", 1400, plain, udp(&[1; 300]));
    add("udp_too_big", 200, plain, udp(&[1; 300]));
    add("tcp", 1400, plain, tcp(&[2; 300]));
    add("v6", 1400, plain, v6(&[3; 300]));
    add("tcp_super", 1400, gso(1, 40, 100, 20, 16), tcp(&[4; 450]));
    add("udp_super", 1400, gso(5, 28, 100, 20, 6), udp(&[5; 450]));
    add("v6_udp_super", 1400, gso(5, 48, 100, 40, 6), v6(&[6; 450]));
    add(
        "tcp_super_too_big",
        90,
        gso(1, 40, 100, 20, 16),
        tcp(&[4; 450]),
    );
}

pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    v4(protocol::UDP, datagram(payload))
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let header = UdpHeader {
        src_port: 4000,
        dst_port: 53,
        len: (8 + payload.len()) as u16,
        checksum: 0,
    };
    [&header.emit()[..], payload].concat()
}

pub(super) fn tcp(payload: &[u8]) -> Vec<u8> {
    let header = TcpHeader {
        src_port: 4000,
        dst_port: 443,
        seq: 1000,
        ack: 77,
        header_len: 20,
        reserved: 0,
        flags: 0x10,
        window: 500,
        checksum: 0,
        urgent: 0,
    };
    v4(protocol::TCP, [&header.emit()[..], payload].concat())
}

fn v4(number: u8, upper: Vec<u8>) -> Vec<u8> {
    let header = Ipv4Header {
        header_len: 20,
        tos: 0,
        total_len: (20 + upper.len()) as u16,
        id: 7,
        flags_fragment: 0,
        ttl: 64,
        protocol: number,
        checksum: 0,
        src: Ipv4Addr::new(10, 0, 2, 1),
        dst: Ipv4Addr::new(10, 0, 1, 1),
    };
    let mut bytes = [&header.emit()[..], &upper].concat();
    let sum = checksum::ipv4_header(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

pub(super) fn v6(payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(payload);
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: datagram.len() as u16,
        next_header: protocol::UDP,
        hop_limit: 64,
        src: "fd00:2::1".parse().expect("an address"),
        dst: "fd00:1::1".parse().expect("an address"),
    };
    [&header.emit()[..], &datagram].concat()
}

//! Packets and keys for the tests of this crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use cygnet_crypto::suite::{Encryption, EspSuite, Integrity};
use cygnet_wire::ip::{
    Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, checksum, protocol, tcp_flags,
};

use crate::sa::{InboundSa, Lifetime, OutboundSa};
use crate::segment::Segments;
use crate::selectors::Selectors;

pub(crate) fn suite_gcm(esn: bool) -> EspSuite {
    EspSuite {
        encryption: Encryption::AesGcm16_128,
        integrity: None,
        esn,
    }
}

pub(crate) fn suite_chacha(esn: bool) -> EspSuite {
    EspSuite {
        encryption: Encryption::ChaCha20Poly1305,
        integrity: None,
        esn,
    }
}

pub(crate) fn suite_cbc(esn: bool) -> EspSuite {
    let integrity = Some(Integrity::HmacSha2_256_128);
    EspSuite {
        encryption: Encryption::AesCbc256,
        integrity,
        esn,
    }
}

/// Every kind of packet layout there is.
pub(crate) fn suites() -> Vec<EspSuite> {
    [true, false]
        .into_iter()
        .flat_map(|e| [suite_gcm(e), suite_chacha(e), suite_cbc(e)])
        .collect()
}

pub(crate) fn key(suite: EspSuite) -> Vec<u8> {
    (0..suite.key_material_len()).map(|i| i as u8).collect()
}

/// Sequence numbers for all of a read.
pub(crate) fn numbers(sa: &OutboundSa, segments: &Segments<'_>) -> std::ops::Range<u64> {
    let bytes = segments.len_of_next(usize::MAX);
    sa.reserve(segments.remaining() as u64, bytes as u64)
        .unwrap()
        .seqs
}

pub(crate) fn sealer(suite: EspSuite) -> EspSealer {
    EspSealer::new(suite, &key(suite)).unwrap()
}

pub(crate) fn opener(suite: EspSuite) -> EspOpener {
    EspOpener::new(suite, &key(suite)).unwrap()
}

pub(crate) const SPI: u32 = 0xc001_0001;

/// The two ends of one Child SA.
pub(crate) fn pair(suite: EspSuite, selectors: Selectors) -> (OutboundSa, InboundSa) {
    let mirrored = Selectors::new(selectors.remote().to_vec(), selectors.local().to_vec());
    (
        OutboundSa::new(SPI, sealer(suite), selectors, Lifetime::UNLIMITED),
        InboundSa::new(SPI, opener(suite), mirrored, Lifetime::UNLIMITED, 4096),
    )
}

/// One packet, to be changed field by field before it is made.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub v6: bool,
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub ip_options: Vec<u8>,
    pub src_host: u8,
    pub upper: Upper,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Upper {
    Tcp {
        src_port: u16,
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
    },
    Udp {
        src_port: u16,
    },
    Other(u8),
}

impl Spec {
    pub(crate) fn tcp(v6: bool, payload: &[u8]) -> Self {
        let upper = Upper::Tcp {
            src_port: 40_000,
            seq: 1000,
            ack: 77,
            flags: tcp_flags::ACK,
            window: 500,
            // No-operation twice, then timestamps (RFC 7323).
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        };
        Self::of(v6, upper, payload)
    }

    pub(crate) fn udp(v6: bool, payload: &[u8]) -> Self {
        Self::of(v6, Upper::Udp { src_port: 40_000 }, payload)
    }

    pub(crate) fn of(v6: bool, upper: Upper, payload: &[u8]) -> Self {
        Self {
            v6,
            tos: 0,
            ttl: 64,
            id: 100,
            dont_fragment: true,
            ip_options: vec![],
            src_host: 2,
            upper,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (src, dst): (IpAddr, IpAddr) = if self.v6 {
            (
                Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, self.src_host.into()).into(),
                Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2).into(),
            )
        } else {
            (
                Ipv4Addr::new(10, 1, 0, self.src_host).into(),
                Ipv4Addr::new(10, 2, 0, 2).into(),
            )
        };
        let (number, mut upper, checksum_at) = match &self.upper {
            Upper::Tcp {
                src_port,
                seq,
                ack,
                flags,
                window,
                options,
            } => {
                let header = TcpHeader {
                    src_port: *src_port,
                    dst_port: 443,
                    seq: *seq,
                    ack: *ack,
                    header_len: (20 + options.len()) as u8,
                    reserved: 0,
                    flags: *flags,
                    window: *window,
                    checksum: 0,
                    urgent: 0,
                };
                (
                    protocol::TCP,
                    [&header.emit()[..], options].concat(),
                    Some(16),
                )
            }
            Upper::Udp { src_port } => {
                let header = UdpHeader {
                    src_port: *src_port,
                    dst_port: 443,
                    len: (8 + self.payload.len()) as u16,
                    checksum: 0,
                };
                (protocol::UDP, header.emit().to_vec(), Some(6))
            }
            Upper::Other(number) => (*number, vec![], None),
        };
        upper.extend_from_slice(&self.payload);
        if let Some(at) = checksum_at {
            let sum = checksum::pseudo_header(src, dst, number, upper.len()).bytes(&upper);
            let sum = if sum.checksum() == 0 && number == protocol::UDP {
                0xffff
            } else {
                sum.checksum()
            };
            upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        [self.ip_header(src, dst, number, upper.len()), upper].concat()
    }

    fn ip_header(&self, src: IpAddr, dst: IpAddr, number: u8, upper_len: usize) -> Vec<u8> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header_len = 20 + self.ip_options.len();
                let header = Ipv4Header {
                    header_len: header_len as u8,
                    tos: self.tos,
                    total_len: (header_len + upper_len) as u16,
                    id: self.id,
                    flags_fragment: if self.dont_fragment {
                        Ipv4Header::DONT_FRAGMENT
                    } else {
                        0
                    },
                    ttl: self.ttl,
                    protocol: number,
                    checksum: 0,
                    src,
                    dst,
                };
                let mut bytes = [&header.emit()[..], &self.ip_options].concat();
                let sum = checksum::ipv4_header(&bytes);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
                traffic_class: self.tos,
                flow_label: 0x12345,
                payload_len: upper_len as u16,
                next_header: number,
                hop_limit: self.ttl,
                src,
                dst,
            }
            .emit()
            .to_vec(),
            _ => unreachable!("both addresses are made above"),
        }
    }
}

pub(crate) fn udp_v4(payload: &[u8]) -> Vec<u8> {
    Spec::udp(false, payload).bytes()
}

pub(crate) fn udp_v6(payload: &[u8]) -> Vec<u8> {
    Spec::udp(true, payload).bytes()
}

/// Whether a whole packet's IP and upper-layer checksums are right.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    let packet = cygnet_wire::ip::IpPacket::parse(bytes).unwrap();
    let header_ok = packet.src.is_ipv6()
        || checksum::Sum::default()
            .bytes(&bytes[..(bytes[0] & 15) as usize * 4])
            .is_valid();
    let upper = packet.payload(bytes);
    let upper_ok = packet.fragment.is_some()
        || !matches!(packet.protocol, protocol::TCP | protocol::UDP)
        || checksum::pseudo_header(packet.src, packet.dst, packet.protocol, upper.len())
            .bytes(upper)
            .is_valid();
    header_ok && upper_ok && packet.len == bytes.len()
}

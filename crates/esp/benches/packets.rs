//! What a packet costs from the TUN to the socket and back, without the system calls, beside the bare
//! cipher. 1000 Child SAs are installed, and each packet is another's than the one before; policy,
//! sequence numbers and replay windows are all there.
//!
//! One iteration is a burst: 32 packets, or 64 KiB of one TCP connection. Both ciphers work on a burst's
//! buffer, and no sequence number is used twice.
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use cygnet_crypto::suite::{Encryption, EspSuite};
use cygnet_esp::toobig::{self, Fit};
use cygnet_esp::{
    Action, Ecn, Encapsulation, FragmentTable, InboundSa, JoinConfig, Joiner, Lifetime, OutboundSa,
    Outlet, Policy, PolicyId, ReplayWindow, Segments, Selectors, SendBatch, Spd, Verdict,
    seal_segments,
};
use cygnet_wire::ip::{
    GsoType, Ipv4Header, TcpHeader, UdpHeader, Version, VirtioNetHeader, checksum, protocol,
    tcp_flags,
};
use cygnet_wire::ts::TrafficSelector;

const SAS: u16 = 1000;
const FIRST_SPI: u32 = 0x1000;
/// Packets in a burst; 1400-octet ones fit into one batch.
const BURST: usize = 32;
const LENGTHS: [usize; 3] = [64, 200, 1400];
/// Segments of the 64 KiB burst: 44 octets of sealed packet longer, they fit into one batch.
const SEGMENT: usize = 1400;
const SUITE: EspSuite = EspSuite {
    encryption: Encryption::AesGcm16_128,
    integrity: None,
    esn: true,
};

/// The two ends of a tunnel with many clients.
struct Tunnel {
    spd: Spd<usize>,
    inbound: Vec<InboundSa>,
    fragments: FragmentTable,
    batch: SendBatch<()>,
    max_inner: usize,
}

fn client(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 2, high, low)
}

fn key(number: u16) -> Vec<u8> {
    let key = number.to_be_bytes().into_iter().cycle();
    key.take(SUITE.key_material_len()).collect()
}

impl Tunnel {
    fn new() -> Self {
        let (mut policies, mut inbound) = (Vec::new(), Vec::new());
        for number in 0..SAS {
            let ours = vec![TrafficSelector::from_prefix([10, 1, 0, 0].into(), 16)];
            let theirs = vec![TrafficSelector::from_prefix(client(number).into(), 32)];
            let selectors = Selectors::new(ours.clone(), theirs.clone());
            let spi = FIRST_SPI + u32::from(number);
            let sealer = EspSealer::new(SUITE, &key(number)).unwrap();
            let sa = OutboundSa::new(spi, sealer, selectors.clone(), Lifetime::UNLIMITED);
            let outlet = Outlet {
                sa: Arc::new(sa),
                path: usize::from(number),
            };
            policies.push(Policy {
                id: PolicyId(number.into()),
                selectors,
                action: Action::Protect(vec![outlet]),
            });
            inbound.push(InboundSa::new(
                spi,
                EspOpener::new(SUITE, &key(number)).unwrap(),
                Selectors::new(theirs, ours),
                Lifetime::UNLIMITED,
                ReplayWindow::DEFAULT_SIZE,
            ));
        }
        let spd = Spd::new(policies);
        let Action::Protect(outlets) = &spd.policies()[0].action else {
            unreachable!("they all protect");
        };
        let overhead = outlets[0].sa.overhead();
        Self {
            max_inner: overhead.max_inner_len(1500, Encapsulation::Udp, Version::V4),
            spd,
            inbound,
            fragments: FragmentTable::new(),
            batch: SendBatch::new(),
        }
    }

    /// A read, to the end of the batch. All SAs have one path here, so that a burst is one batch.
    fn seal(&mut self, header: &VirtioNetHeader, packet: &[u8]) {
        let mut segments = Segments::new(header, packet).unwrap();
        let verdict = self
            .spd
            .lookup(segments.packet(), segments.flow(), &mut self.fragments);
        let Verdict::Seal(outlet) = verdict else {
            panic!("no SA");
        };
        assert_eq!(toobig::fit(&mut segments, self.max_inner), Fit::Fits);
        let (packets, bytes) = (segments.remaining(), segments.len_of_next(usize::MAX));
        let reserved = outlet.sa.reserve(packets as u64, bytes as u64).unwrap();
        let mut seqs = reserved.seqs;
        while seal_segments(&outlet.sa, &mut segments, &mut self.batch, (), &mut seqs)
            .unwrap()
            .is_some()
        {
            black_box(self.batch.bytes());
            self.batch.clear();
        }
    }

    /// A sealed burst of these reads, as a socket with UDP_GRO delivers it.
    fn sealed(&mut self, header: &VirtioNetHeader, packets: &[Vec<u8>]) -> Train {
        self.batch.clear();
        for packet in packets {
            self.seal(header, packet);
        }
        let train = Train {
            bytes: self.batch.bytes().to_vec(),
            segment: self.batch.segment_len(),
        };
        self.batch.clear();
        train
    }

    fn open(
        &mut self,
        train: &mut Train,
        mut each: impl FnMut(&[u8], Range<usize>, &cygnet_esp::Inner),
    ) {
        for start in (0..train.bytes.len()).step_by(train.segment) {
            let end = train.bytes.len().min(start + train.segment);
            let datagram = &mut train.bytes[start..end];
            let spi = u32::from_be_bytes(datagram[..4].try_into().unwrap());
            let sa = &self.inbound[(spi - FIRST_SPI) as usize];
            let opened = sa.open(datagram, Ecn::of(0), &mut self.fragments);
            let inner = opened.inner.unwrap();
            let range = start + inner.range.start..start + inner.range.end;
            each(&train.bytes, range, &inner);
        }
    }
}

struct Train {
    bytes: Vec<u8>,
    segment: usize,
}

/// An IPv4 packet around what `upper` writes, checksums right.
fn packet(number: u16, protocol: u8, mut upper: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let (src, dst) = (Ipv4Addr::new(10, 1, 0, 1), client(number));
    let sum = checksum::pseudo_header(IpAddr::V4(src), IpAddr::V4(dst), protocol, upper.len());
    let sum = sum.bytes(&upper).checksum().to_be_bytes();
    upper[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    let header = Ipv4Header {
        header_len: 20,
        tos: 0,
        total_len: (20 + upper.len()) as u16,
        id: number,
        flags_fragment: Ipv4Header::DONT_FRAGMENT,
        ttl: 64,
        protocol,
        checksum: 0,
        src,
        dst,
    };
    let mut bytes = header.emit().to_vec();
    let sum = checksum::ipv4_header(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(upper);
    bytes
}

/// A UDP packet of that length to a client.
fn udp(number: u16, len: usize) -> Vec<u8> {
    let header = UdpHeader {
        src_port: 4000,
        dst_port: 5000,
        len: (len - 20) as u16,
        checksum: 0,
    };
    let payload = (0..len - 28).map(|n| n as u8);
    let upper = header.emit().into_iter().chain(payload).collect();
    packet(number, protocol::UDP, upper, 6)
}

/// 64 KiB of a TCP connection in one read.
fn tcp(number: u16) -> (VirtioNetHeader, Vec<u8>) {
    let header = TcpHeader {
        src_port: 4000,
        dst_port: 5000,
        seq: 1,
        ack: 1,
        header_len: 20,
        reserved: 0,
        flags: tcp_flags::ACK,
        window: 500,
        checksum: 0,
        urgent: 0,
    };
    let payload = (0..44 * (SEGMENT - 40)).map(|n| n as u8);
    let upper = header.emit().into_iter().chain(payload).collect();
    let virtio = VirtioNetHeader {
        needs_checksum: true,
        gso_type: GsoType::TcpV4,
        gso_size: (SEGMENT - 40) as u16,
        csum_start: 20,
        csum_offset: 16,
        ..VirtioNetHeader::PLAIN
    };
    (virtio, packet(number, protocol::TCP, upper, 16))
}

/// The packets of one burst after the other, each to the next client, in one place, as a TUN's reads are.
struct Rotation {
    packets: Vec<Vec<u8>>,
    next: u16,
}

impl Rotation {
    fn new(len: usize) -> Self {
        let mut packets: Vec<_> = (0..BURST).map(|_| udp(0, len)).collect();
        for packet in &mut packets {
            // None (RFC 768), so that the destination can change.
            packet[26..28].fill(0);
        }
        Self { packets, next: 0 }
    }

    fn burst(&mut self) -> &[Vec<u8>] {
        for packet in &mut self.packets {
            packet[16..20].copy_from_slice(&client(self.next).octets());
            packet[10..12].fill(0);
            let sum = checksum::ipv4_header(&packet[..20]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            self.next = (self.next + 1) % SAS;
        }
        &self.packets
    }
}

/// The cipher alone, with as many keys.
struct Bare {
    keys: Vec<LessSafeKey>,
    number: u64,
}

impl Bare {
    fn new() -> Self {
        let key = |number| UnboundKey::new(&AES_128_GCM, &key(number)[..16]).unwrap();
        Self {
            keys: (0..SAS)
                .map(|number| LessSafeKey::new(key(number)))
                .collect(),
            number: 0,
        }
    }

    /// The next nonce and its key.
    fn next(&mut self) -> (&LessSafeKey, u64) {
        self.number += 1;
        (
            &self.keys[self.number as usize % self.keys.len()],
            self.number,
        )
    }

    /// Sealed pieces of that length, and the number of the first.
    fn sealed(&mut self, len: usize, count: usize) -> (u64, Vec<u8>) {
        let mut bytes = vec![7; count * (len + 16)];
        let first = self.number + 1;
        for piece in bytes.chunks_mut(len + 16) {
            self.seal(piece);
        }
        (first, bytes)
    }

    fn seal(&mut self, piece: &mut [u8]) {
        let (plain, place) = piece.split_at_mut(piece.len() - 16);
        let (key, number) = self.next();
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::from([0; 12]), plain);
        place.copy_from_slice(tag.unwrap().as_ref());
    }

    fn open(&self, number: u64, piece: &mut [u8]) {
        let (sealed, tag) = piece.split_at_mut(piece.len() - 16);
        let key = &self.keys[number as usize % self.keys.len()];
        let opened = key.open_in_place_separate_tag(nonce(number), Aad::from([0; 12]), tag, sealed);
        black_box(opened.unwrap());
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What the cipher covers of an inner packet: padding to four octets, with Pad Length and Next Header.
fn covered(inner: usize) -> usize {
    (inner + 2).next_multiple_of(4)
}

fn sealing(c: &mut Criterion) {
    let (mut tunnel, mut bare) = (Tunnel::new(), Bare::new());
    let mut group = c.benchmark_group("seal");
    for len in LENGTHS {
        group.throughput(Throughput::Elements(BURST as u64));
        let mut rotation = Rotation::new(len);
        group.bench_function(BenchmarkId::new("esp", len), |b| {
            b.iter(|| {
                for packet in rotation.burst() {
                    tunnel.seal(&VirtioNetHeader::PLAIN, packet);
                }
                black_box(tunnel.batch.bytes());
                tunnel.batch.clear();
            });
        });
        let mut bytes = vec![7; BURST * (covered(len) + 16)];
        group.bench_function(BenchmarkId::new("bare", len), |b| {
            b.iter(|| {
                for piece in bytes.chunks_mut(covered(len) + 16) {
                    bare.seal(piece);
                }
                black_box(&mut bytes);
            });
        });
    }
    let reads: Vec<_> = (0..32).map(tcp).collect();
    let mut next = reads.iter().cycle();
    group.throughput(Throughput::Elements(44));
    group.bench_function("esp/64KiB", |b| {
        b.iter(|| {
            let (header, packet) = next.next().unwrap();
            tunnel.seal(header, packet);
            black_box(tunnel.batch.bytes());
            tunnel.batch.clear();
        });
    });
    let mut bytes = vec![7; 44 * (covered(SEGMENT) + 16)];
    group.bench_function("bare/64KiB", |b| {
        b.iter(|| {
            for piece in bytes.chunks_mut(covered(SEGMENT) + 16) {
                bare.seal(piece);
            }
            black_box(&mut bytes);
        });
    });
}

fn opening(c: &mut Criterion) {
    let (mut tunnel, mut bare) = (Tunnel::new(), Bare::new());
    let mut group = c.benchmark_group("open");
    for len in LENGTHS {
        group.throughput(Throughput::Elements(BURST as u64));
        let mut rotation = Rotation::new(len);
        let tunnel = std::cell::RefCell::new(&mut tunnel);
        group.bench_function(BenchmarkId::new("esp", len), |b| {
            b.iter_batched_ref(
                || {
                    tunnel
                        .borrow_mut()
                        .sealed(&VirtioNetHeader::PLAIN, rotation.burst())
                },
                |train| {
                    tunnel.borrow_mut().open(train, |_, range, _| {
                        black_box(range);
                    })
                },
                BatchSize::PerIteration,
            );
        });
        let bare = std::cell::RefCell::new(&mut bare);
        group.bench_function(BenchmarkId::new("bare", len), |b| {
            b.iter_batched_ref(
                || bare.borrow_mut().sealed(covered(len), BURST),
                |(first, bytes)| {
                    let bare = bare.borrow();
                    for (number, piece) in (*first..).zip(bytes.chunks_mut(covered(len) + 16)) {
                        bare.open(number, piece);
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    // 64 KiB of a connection, joined again for one write.
    let mut joiner = Joiner::new(JoinConfig {
        tcp: true,
        udp: true,
    });
    let reads: Vec<_> = (0..32).map(tcp).collect();
    let mut next = reads.iter().cycle();
    group.throughput(Throughput::Elements(44));
    let tunnel = std::cell::RefCell::new(&mut tunnel);
    group.bench_function("esp/64KiB", |b| {
        b.iter_batched_ref(
            || {
                let (header, packet) = next.next().unwrap();
                tunnel
                    .borrow_mut()
                    .sealed(header, std::slice::from_ref(packet))
            },
            |train| {
                tunnel.borrow_mut().open(train, |bytes, range, inner| {
                    joiner.push(bytes, range, &inner.packet);
                });
                joiner.finish(&mut train.bytes);
                assert_eq!(black_box(joiner.joined()).len(), 1);
                joiner.clear();
            },
            BatchSize::PerIteration,
        );
    });
}

/// Of the above, the parts without cipher.
fn parts(c: &mut Criterion) {
    let mut tunnel = Tunnel::new();
    let mut group = c.benchmark_group("part");
    group.throughput(Throughput::Elements(44));
    let (header, read) = tcp(1);
    let mut out = vec![0; read.len() + 44 * 40];
    group.bench_function("cut/64KiB", |b| {
        b.iter(|| {
            let mut segments = Segments::new(&header, black_box(&read)).unwrap();
            let mut at = 0;
            while let Some(len) = segments.write_next(&mut out[at..]) {
                at += len;
            }
            black_box(&mut out);
        });
    });
    let mut train = tunnel.sealed(&header, std::slice::from_ref(&read));
    let mut opened = Vec::new();
    tunnel.open(&mut train, |_, range, inner| {
        opened.push((range, inner.packet))
    });
    // Joining writes into the first header, so each time it is given what was received.
    let received = train.bytes;
    let mut joiner = Joiner::new(JoinConfig {
        tcp: true,
        udp: true,
    });
    group.bench_function("join/64KiB", |b| {
        b.iter_batched_ref(
            || received.clone(),
            |bytes| {
                for (range, packet) in &opened {
                    joiner.push(bytes, range.clone(), packet);
                }
                joiner.finish(bytes);
                assert_eq!(black_box(joiner.joined()).len(), 1);
                joiner.clear();
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(BURST as u64));
    let flows: Vec<_> = (0..SAS)
        .map(|n| *Segments::plain(&udp(n, 64)).unwrap().flow())
        .collect();
    let mut next = flows.iter().cycle();
    group.bench_function("policy", |b| {
        b.iter(|| {
            for flow in next.by_ref().take(BURST) {
                black_box(matches!(
                    tunnel.spd.lookup_flow(black_box(flow)),
                    Verdict::Seal(_)
                ));
            }
        });
    });
}

criterion_group!(benches, sealing, opening, parts);
criterion_main!(benches);

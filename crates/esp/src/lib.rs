//! ESP in tunnel mode (RFC 4303, RFC 4301) as pure functions on buffers: no sockets, no clock, no
//! randomness, no threads, and on the packet path no allocation and no lock.
//!
//! What is shared between workers is read-only ([`Spd`]) or atomic ([`OutboundSa`], [`InboundSa`]);
//! what a worker needs for itself it owns: a [`SendBatch`], a [`Joiner`], a [`FragmentTable`] for each
//! direction.
//!
//! # Out
//!
//! ```text
//! read from TUN → Segments → Spd::lookup → toobig::fit → seal_segments ⇄ send the batch
//!                                  ↓ no SA        ↓ too long
//!                               Acquire        packet_too_big, back into the TUN
//! ```
//!
//! A packet's bytes are copied once, from the read buffer to their place in the datagram.
//!
//! ```
//! use cygnet_esp::toobig::{self, Fit};
//! use cygnet_esp::*;
//! use cygnet_wire::ip::{Version, VirtioNetHeader};
//!
//! /// What a worker does with one read from its TUN queue. `send` is one `sendmsg`.
//! fn outbound(
//!     read: &[u8],
//!     spd: &Spd<usize>,
//!     batch: &mut SendBatch<usize>,
//!     fragments: &mut FragmentTable,
//!     mut send: impl FnMut(&SendBatch<usize>),
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let header = VirtioNetHeader::parse(read)?;
//!     let mut segments = Segments::new(&header, &read[VirtioNetHeader::LEN..])?;
//!     let outlet = match spd.lookup(segments.packet(), segments.flow(), fragments) {
//!         Verdict::Seal(outlet) => outlet,
//!         Verdict::Acquire(policy, flow) => {
//!             // To IKE, once for a burst of them.
//!             let _negotiate = (policy, flow.to_selectors());
//!             return Ok(());
//!         }
//!         Verdict::Discard(_) | Verdict::NoPolicy | Verdict::UnknownFragment => return Ok(()),
//!     };
//!     let path_mtu = 1500; // of `outlet.path`
//!     let max_inner =
//!         outlet.sa.overhead().max_inner_len(path_mtu, Encapsulation::Udp, Version::V4);
//!     match toobig::fit(&mut segments, max_inner) {
//!         Fit::Fits | Fit::Fragments => {}
//!         // Written out with `write_next`, each packet is a `Segments::plain` of its own.
//!         Fit::OneByOne => return Ok(()),
//!         Fit::TooBig => {
//!             let mut quoted = [0; 2048];
//!             let len = segments.write_next(&mut quoted).unwrap_or(0);
//!             let mut message = [0; toobig::IPV6_MIN_MTU];
//!             let from = "10.1.0.1".parse()?; // the TUN's own address
//!             let _to_tun = toobig::packet_too_big(&quoted[..len], max_inner, from, &mut message);
//!             return Ok(());
//!         }
//!     }
//!     // Numbers for several reads may be taken at once.
//!     let (packets, bytes) = (segments.remaining(), segments.len_of_next(usize::MAX));
//!     let mut reserved = outlet.sa.reserve(packets as u64, bytes as u64)?;
//!     if let Some(limit) = reserved.limit {
//!         let _rekey = (outlet.sa.spi(), limit);
//!     }
//!     let seqs = &mut reserved.seqs;
//!     while seal_segments(&outlet.sa, &mut segments, batch, outlet.path, seqs)?.is_some() {
//!         send(batch);
//!         batch.clear();
//!     }
//!     // More may follow from the next read; where none does, the rest is sent.
//!     Ok(())
//! }
//! # use cygnet_crypto::{esp_key::EspSealer, suite::{Encryption, EspSuite}};
//! # let suite = EspSuite { encryption: Encryption::AesGcm16_128, integrity: None, esn: true };
//! # let sealer = EspSealer::new(suite, &[7; 20])?;
//! # let sa = OutboundSa::new(256, sealer, Selectors::any(), Lifetime::UNLIMITED);
//! # let outlets = vec![Outlet { sa: std::sync::Arc::new(sa), path: 0 }];
//! # let action = Action::Protect(outlets);
//! # let spd = Spd::new(vec![Policy { id: PolicyId(1), selectors: Selectors::any(), action }]);
//! # let mut read = vec![0; 10];
//! # read.extend([0x45, 0, 0, 24, 0, 0, 0x40, 0, 64, 99, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 1, 2, 3, 4]);
//! # let mut batch = SendBatch::new();
//! # outbound(&read, &spd, &mut batch, &mut FragmentTable::new(), |_| ())?;
//! # assert_eq!((batch.segments(), batch.segment_len()), (1, 8 + 8 + 28 + 16));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In
//!
//! ```text
//! received burst → each datagram: SPI → InboundSa::open in place → Joiner::push
//!                → Joiner::finish → one write to the TUN for each Joined
//! ```
//!
//! Payload is not copied at all: a write to the TUN gathers ranges of the receive buffer.
//!
//! ```
//! use cygnet_esp::*;
//! use cygnet_wire::esp::EspHeader;
//!
//! /// What a worker does with one burst: `segment_len` is what UDP_GRO said, `outer_tos` what
//! /// IP_RECVTOS said. `write` is one `writev` to the TUN.
//! fn inbound(
//!     received: &mut [u8],
//!     segment_len: usize,
//!     outer_tos: u8,
//!     sa_by_spi: impl Fn(u32) -> Option<std::sync::Arc<InboundSa>>,
//!     fragments: &mut FragmentTable,
//!     joiner: &mut Joiner,
//!     mut write: impl FnMut(&mut dyn Iterator<Item = &[u8]>),
//! ) {
//!     let outer = Ecn::of(outer_tos);
//!     for start in (0..received.len()).step_by(segment_len) {
//!         let end = received.len().min(start + segment_len);
//!         let datagram = &mut received[start..end];
//!         // Keepalives and IKE messages on the same port were told apart before.
//!         let Some(header) = EspHeader::parse(datagram) else { continue };
//!         let Some(sa) = sa_by_spi(header.spi) else { continue };
//!         let opened = sa.open(datagram, outer, fragments);
//!         if opened.first_authenticated || opened.limit.is_some() {
//!             let _to_ike = (sa.spi(), opened.first_authenticated, opened.limit);
//!         }
//!         // Drops are counted in the SA.
//!         let Ok(inner) = opened.inner else { continue };
//!         let range = start + inner.range.start..start + inner.range.end;
//!         joiner.push(received, range, &inner.packet);
//!     }
//!     joiner.finish(received);
//!     for joined in joiner.joined() {
//!         write(&mut joined.ranges().map(|range| &received[range]));
//!     }
//!     joiner.clear();
//! }
//! # use cygnet_crypto::{esp_key::{EspOpener, EspSealer}, suite::{Encryption, EspSuite}};
//! # let suite = EspSuite { encryption: Encryption::AesGcm16_128, integrity: None, esn: true };
//! # let opener = EspOpener::new(suite, &[7; 20])?;
//! # let sa = InboundSa::new(256, opener, Selectors::any(), Lifetime::UNLIMITED, ReplayWindow::DEFAULT_SIZE);
//! # let sa = std::sync::Arc::new(sa);
//! # let sealer = EspSealer::new(suite, &[7; 20])?;
//! # let out = OutboundSa::new(256, sealer, Selectors::any(), Lifetime::UNLIMITED);
//! # let packet = [0x45, 0, 0, 24, 0, 0, 0x40, 0, 64, 99, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 1, 2, 3, 4];
//! # let mut batch = SendBatch::new();
//! # for _ in 0..2 {
//! #     let mut seqs = out.reserve(1, 24)?.seqs;
//! #     let _sealed = seal_segments(&out, &mut Segments::plain(&packet)?, &mut batch, 0, &mut seqs)?;
//! # }
//! # let mut received = batch.bytes().to_vec();
//! # let mut written = vec![];
//! # let mut joiner = Joiner::new(JoinConfig { tcp: true, udp: true });
//! # let lookup = |spi| (spi == 256).then(|| sa.clone());
//! # inbound(&mut received, batch.segment_len(), 0, lookup, &mut FragmentTable::new(), &mut joiner, |parts| {
//! #     written.push(parts.collect::<Vec<_>>().concat());
//! # });
//! # assert_eq!(written, vec![[&[0; 10], &packet[..]].concat(); 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Several workers
//!
//! Workers seal with sequence numbers they take from the SA ([`OutboundSa::reserve`]), several at once;
//! datagrams of one SA have to enter the socket in their order, since peers' replay windows are as small
//! as 32. Opening may happen anywhere, as the replay window is safe to share;
//! the writes of one flow have to keep the order of arrival.

mod batch;
mod coalesce;
mod codel;
mod flow;
mod fragments;
mod open;
mod overhead;
mod policy;
mod replay;
mod sa;
mod seal;
mod segment;
mod selectors;
#[cfg(test)]
mod testing;
pub mod toobig;
mod tos;
#[cfg(test)]
mod tunnel_tests;

pub use batch::{NoRoom, Outer, SendBatch, Slot};
pub use coalesce::{JoinConfig, Joined, Joiner};
pub use codel::Codel;
pub use flow::{Flow, Ports};
pub use fragments::FragmentTable;
pub use open::{DropReason, Inner, Opened};
pub use overhead::{Encapsulation, Overhead};
pub use policy::{Action, Outlet, Policy, PolicyId, Spd, Verdict};
pub use replay::{Refused, ReplayWindow};
pub use sa::{Exhausted, InboundSa, Lifetime, LimitReached, OutboundSa, Reserved};
pub use seal::{SealError, seal_segments};
pub use segment::{Progress, SegmentError, Segments};
pub use selectors::Selectors;
pub use tos::{DfPolicy, DscpPolicy, Ecn, outer_tos};

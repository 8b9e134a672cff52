//! Does a server answer, at which port, and how large a datagram reaches it?
//!
//! The first question is an IKE_SA_INIT as a tunnel would send it: the answer tells whether the server takes what the
//! tunnel offers. It leaves a half-open IKE SA there for some seconds, of which a server bears few of one address, so it
//! is put once, and not at all where the tunnel is up and shows it. The others are messages of a higher version, which a
//! server has to answer (RFC 7296 §2.5) and need not remember.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cygnet_crypto::Random;
use cygnet_ike::io::{Path, Transport};
use cygnet_ike::nat;
use cygnet_ike::proposal::{IkeProposal, first_ike_group, offer_ike};
use cygnet_linux::{PathErrorKind, SendError, Transmit, UdpSocket};
use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use cygnet_wire::ke::KePayload;
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::natt::{Datagram, NON_ESP_MARKER};
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::{Payload, PayloadType};
use cygnet_wire::sa::{ProposalSpi, TransformId};
use cygnet_wire::vendor::VendorPayload;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

/// How long an answer to the first, second and third datagram is waited for.
const WAITS: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(1500),
];
/// The same where others have been answered.
const SHORT_WAITS: [Duration; 2] = [Duration::from_millis(400); 2];
/// A process that has not ended by then is not waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of a small message: more than its answer has.
const SMALL: u16 = 64;
/// Every path takes an IP packet of this size (RFC 791; RFC 8200 §5).
const LEAST_V4: u16 = 576;
const LEAST_V6: u16 = 1280;

/// What to find out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    pub(crate) server: IpAddr,
    /// Ports, and whether IKE has a marker there (RFC 3948 §2.2).
    pub(crate) ports: Vec<(u16, bool)>,
    /// An IKE_SA_INIT, without a marker, in hexadecimal digits.
    pub(crate) call: String,
    /// The tunnel is up with this server: that takes what is offered.
    pub(crate) is_up: bool,
    /// The initiator's SPI in it.
    pub(crate) spi: u64,
    /// Octets of the IP packet whose way is to be found: the largest that the tunnel makes.
    pub(crate) size: u16,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Of each port.
    pub(crate) ports: Vec<(u16, Outcome)>,
    pub(crate) mtu: Mtu,
}

/// What came of asking at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Answered(Answer),
    /// Nothing.
    Silent,
    /// ICMP says that nobody listens there.
    Refused,
    /// ICMP, or this machine, says that there is no way.
    Unreachable,
    /// A firewall of this machine.
    Forbidden,
    /// Larger than the path takes.
    TooBig,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It goes on, or asks for more: a cookie, another group.
    Accepted,
    /// NO_PROPOSAL_CHOSEN.
    NoProposal,
    /// Another error notification.
    Refused(u16),
    /// It does not speak the version it was asked in.
    Version,
}

/// What is known of the way's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mtu {
    /// A packet of this size arrives, which is all that is needed.
    Passes(u16),
    /// One of this size arrives, and none larger.
    Narrow(u16),
    /// The server does not answer what this is asked by.
    Unknown,
}

/// An IKE_SA_INIT as an initiator with these proposals sends it to `server` (RFC 7296 §1.2). `None`: without a group
/// there is nothing to offer.
pub(crate) fn call(
    proposals: &[IkeProposal],
    spi: Spi,
    server: SocketAddr,
    random: &mut dyn Random,
) -> Option<Vec<u8>> {
    let group = first_ike_group(proposals)?;
    // Its private half is not kept: nobody goes on from here.
    let key = cygnet_crypto::kex::Ephemeral::generate(group, random);
    let mut nonce = [0; 32];
    random.fill(&mut nonce);
    let mut builder = MessageBuilder::new(header(spi, Version::V2_0));
    builder
        .push(offer_ike(proposals, ProposalSpi::None))
        .push(KePayload::new(TransformId(group.to_wire()), key.public()))
        .push(NoncePayload::new(&nonce[..]));
    // A server that does ESP in UDP alone, as Cygnet, sends away who does not say this. A NAT is claimed: from which
    // address this leaves is not known yet.
    let path = Path {
        transport: Transport::Udp,
        local: server,
        remote: server,
        interface: 0,
    };
    for notify in nat::notifies(spi, Spi::ZERO, &path, true) {
        builder.push(notify);
    }
    builder.finish().ok()
}

fn header(spi: Spi, version: Version) -> IkeHeader {
    IkeHeader {
        initiator_spi: spi,
        responder_spi: Spi::ZERO,
        version,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags::new(true, false),
        message_id: MessageId::ZERO,
    }
}

/// What is sent, and the initiator's SPI in it, which is in the answer as well.
struct Question {
    spi: Spi,
    message: Vec<u8>,
}

/// A message of a version that does not exist, `size` octets long if that is enough for it. Each size has an SPI of
/// its own: an answer that comes late is none to the next question.
fn of_no_version(spi: Spi, size: u16) -> Question {
    let spi = Spi(spi.0 ^ u64::from(size));
    // Header, and header of the payload.
    let padding = vec![0; usize::from(size).saturating_sub(28 + 4)];
    let mut builder = MessageBuilder::new(header(spi, Version(0x30)));
    builder.push(VendorPayload::new(padding));
    let message = builder.finish().unwrap_or_default();
    Question { spi, message }
}

/// The process itself.
pub(crate) fn run(errand: &Errand, socket: OwnedFd) -> std::io::Result<Found> {
    let spi = Spi(errand.spi);
    let message = unhex(&errand.call).ok_or(std::io::ErrorKind::InvalidInput)?;
    let call = Question { spi, message };
    let socket = UdpSocket::from_fd(socket).map_err(std::io::Error::other)?;
    let ways = errand.ports.iter().map(|&(port, marker)| Way {
        socket: &socket,
        server: SocketAddr::new(errand.server, port),
        marker,
        spi,
    });
    let ways: Vec<Way<'_>> = ways.collect();
    let mut ports: Vec<(u16, Outcome)> = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        let mut outcome = Outcome::Silent;
        if n > 0 || errand.is_up {
            outcome = way.ask(&of_no_version(spi, SMALL), &WAITS);
        }
        // A server may keep silent about versions.
        if outcome == Outcome::Silent {
            outcome = way.ask(&call, &WAITS);
        }
        ports.push((way.server.port(), outcome));
    }
    // Where ESP goes, if anything goes there.
    let mut best = ways.iter().zip(&ports).rev();
    let best = best.find(|(_, (_, outcome))| matches!(outcome, Outcome::Answered(_)));
    let mtu = best.map_or(Mtu::Unknown, |(way, _)| way.mtu(errand.size));
    Ok(Found { ports, mtu })
}

/// To one port of a server.
struct Way<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    marker: bool,
    spi: Spi,
}

impl Way<'_> {
    /// Sends until something comes of it.
    fn ask(&self, question: &Question, waits: &[Duration]) -> Outcome {
        let marker: &[u8] = if self.marker { &NON_ESP_MARKER } else { &[] };
        let mut outcome = Outcome::Silent;
        for wait in waits {
            let sent = self.socket.send(&Transmit {
                destination: self.server,
                source: None,
                interface: 0,
                tos: 0,
                segment: None,
                parts: &[IoSlice::new(marker), IoSlice::new(&question.message)],
            });
            match sent {
                Ok(()) => {}
                Err(SendError::TooBig) => return Outcome::TooBig,
                Err(SendError::Filtered) => return Outcome::Forbidden,
                Err(SendError::Unreachable(_)) => return Outcome::Unreachable,
                Err(_) => {}
            }
            match self.wait(question.spi, Instant::now() + *wait) {
                Outcome::Silent => {}
                // ICMP is not authenticated, and a router may be wrong for a moment.
                said @ (Outcome::Refused | Outcome::Unreachable) => outcome = said,
                other => return other,
            }
        }
        outcome
    }

    /// What comes until then of a question with this SPI.
    fn wait(&self, spi: Spi, end: Instant) -> Outcome {
        let mut said = Outcome::Silent;
        // Long enough for any answer.
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return said;
            }
            let time = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(self.socket, PollFlags::IN)];
            // What ends it early is looked at.
            let _ = poll(&mut fds, Some(&time));
            // One of each at a time, so that nobody who floods the port holds up the end.
            if let Ok(Some(error)) = self.socket.poll_error() {
                match error.kind {
                    _ if error.destination != self.server => {}
                    PathErrorKind::TooBig { .. } => return Outcome::TooBig,
                    PathErrorKind::Refused => said = Outcome::Refused,
                    PathErrorKind::Unreachable => said = Outcome::Unreachable,
                    PathErrorKind::Other(_) => {}
                }
            }
            if let Ok(received) = self.socket.recv(&mut buffer) {
                let bytes = buffer.get(..received.len).unwrap_or_default();
                if received.source == self.server
                    && let Some(answer) = self.read(spi, bytes)
                {
                    return Outcome::Answered(answer);
                }
            }
        }
    }

    /// An answer to what was sent.
    fn read(&self, spi: Spi, payload: &[u8]) -> Option<Answer> {
        let message = match (self.marker, Datagram::classify(payload)) {
            (false, _) => payload,
            (true, Datagram::Ike(message)) => message,
            (true, _) => return None,
        };
        let message = Message::parse(message).ok()?;
        if message.header.initiator_spi != spi {
            return None;
        }
        let mut answer = None;
        for payload in message.payloads() {
            let payload = payload.ok()?;
            if payload.ty == PayloadType::SA {
                return Some(Answer::Accepted);
            }
            let Ok(Payload::Notify(notify)) = payload.parse() else {
                continue;
            };
            answer = answer.or(match notify.ty {
                NotifyType::COOKIE | NotifyType::INVALID_KE_PAYLOAD => Some(Answer::Accepted),
                NotifyType::NO_PROPOSAL_CHOSEN => Some(Answer::NoProposal),
                NotifyType::INVALID_MAJOR_VERSION => Some(Answer::Version),
                // RFC 7296 §3.10.1: errors are below.
                NotifyType(number) if number < 16384 => Some(Answer::Refused(number)),
                _ => None,
            });
        }
        answer
    }

    /// Looks for the largest IP packet that arrives, up to `size`.
    fn mtu(&self, size: u16) -> Mtu {
        let (least, headers) = match self.server.is_ipv6() {
            true => (LEAST_V6, 40 + 8),
            false => (LEAST_V4, 20 + 8),
        };
        let marker = if self.marker { 4 } else { 0 };
        let arrives = |size: u16| {
            let message = size.saturating_sub(headers + marker);
            let outcome = self.ask(&of_no_version(self.spi, message), &SHORT_WAITS);
            matches!(outcome, Outcome::Answered(_))
        };
        if arrives(size) {
            return Mtu::Passes(size);
        }
        let (mut arrived, mut lost) = (least.min(size), size);
        if !arrives(arrived) {
            return Mtu::Unknown;
        }
        while lost - arrived > 1 {
            let between = arrived + (lost - arrived) / 2;
            match arrives(between) {
                true => arrived = between,
                false => lost = between,
            }
        }
        Mtu::Narrow(arrived)
    }
}

/// As hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes = pairs
        .iter()
        .map(|[h, l]| Some(digit(*h)? << 4 | digit(*l)?));
    bytes.collect()
}

#[cfg(test)]
mod tests;

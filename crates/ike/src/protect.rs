//! From datagrams to messages one may act on, and back (RFC 7296 §3.14, RFC 7383 §2.5).
//!
//! [`Authenticated`] can only be made here, from what an [`IkeOpener`] has verified; the states of
//! an IKE SA take nothing else.

use std::net::SocketAddr;
use std::ops::Deref;

use cygnet_crypto::ike_cipher::{IkeOpener, IkeSealer};
use cygnet_crypto::{OpenError, Random, SealError, Secret};
use cygnet_wire::header::IkeHeader;
use cygnet_wire::message::Message;
use cygnet_wire::payload::{Chain, Payload, PayloadType, parse_chain};
use cygnet_wire::sk::{Fragment, Prefix};
use cygnet_wire::{EmitError, ParseError};
use thiserror::Error;

use crate::io::{Path, Transport};

/// Most fragments of one message, sent or received.
pub const MAX_FRAGMENTS: u16 = 64;

/// No path is narrower (RFC 791); smaller settings count as this.
const LEAST_PACKET: usize = 576;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const NON_ESP_MARKER: usize = 4;

/// Something the peer of this IKE SA has sent, beyond doubt.
pub struct Authenticated<T>(T);

/// The inside of a whole message.
pub struct Content {
    /// Of the message, or of its first fragment.
    pub header: IkeHeader,
    first: PayloadType,
    plaintext: Secret,
}

/// The inside of one fragment.
pub struct Part {
    /// As received.
    pub header: IkeHeader,
    /// Which part of how many.
    pub fragment: Fragment,
    first: PayloadType,
    plaintext: Secret,
}

/// What a datagram turned out to be.
pub enum Opened {
    /// A message.
    Whole(Authenticated<Content>),
    /// A fragment of one, for [`crate::fragment::Reassembly`].
    Part(Authenticated<Part>),
}

/// A datagram that cannot be trusted; nothing may come of it but a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtectError {
    /// No SK or SKF payload.
    #[error("the message is not encrypted, which only those of IKE_SA_INIT may be")]
    InClear,
    /// Not framed as it has to be.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Not from the peer, or altered.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A message of ours that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealMessageError {
    /// The keys are used up.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Too large for its framing.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Too large for the path, even in fragments.
    #[error("the message takes {needed} fragments on this path, {MAX_FRAGMENTS} are the most")]
    Fragments {
        /// How many it would take.
        needed: usize,
    },
}

/// Verifies and decrypts a message of an IKE SA, or a fragment of one.
pub fn open(opener: &IkeOpener, message: &Message<'_>) -> Result<Opened, ProtectError> {
    let encrypted = message.encrypted()?.ok_or(ProtectError::InClear)?;
    let plaintext = opener.open(encrypted.aad, encrypted.body)?;
    let header = message.header;
    let first = encrypted.first;
    Ok(match encrypted.fragment {
        None => Opened::Whole(Authenticated(Content {
            header,
            first,
            plaintext,
        })),
        Some(fragment) => Opened::Part(Authenticated(Part {
            header,
            fragment,
            first,
            plaintext,
        })),
    })
}

/// Encrypts `chain` into one message, or into fragments where one would be longer than
/// `max_datagram` octets (`None`: never, the peer does not know RFC 7383).
pub fn seal(
    sealer: &mut IkeSealer,
    random: &mut dyn Random,
    header: IkeHeader,
    chain: &Chain,
    max_datagram: Option<usize>,
) -> Result<Vec<Vec<u8>>, SealMessageError> {
    let whole = Prefix {
        header,
        first: chain.first,
        fragment: None,
    };
    let whole_len = whole.emitted_len() + sealer.sealed_len(chain.bytes.len());
    let Some(most) = max_datagram.filter(|most| whole_len > *most) else {
        return Ok(vec![seal_one(sealer, random, &whole, &chain.bytes)?]);
    };
    let fragment_prefix = |number, total| Prefix {
        header,
        // RFC 7383 §2.5: only the first fragment says what is inside.
        first: if number == 1 {
            chain.first
        } else {
            PayloadType::NONE
        },
        fragment: Some(Fragment { number, total }),
    };
    let body = most.saturating_sub(fragment_prefix(1, 1).emitted_len());
    let chunk = sealer.max_plaintext_len(body).unwrap_or(0).max(1);
    let needed = chain.bytes.len().div_ceil(chunk);
    let total = u16::try_from(needed)
        .ok()
        .filter(|total| *total <= MAX_FRAGMENTS)
        .ok_or(SealMessageError::Fragments { needed })?;
    (1..=total)
        .zip(chain.bytes.chunks(chunk))
        .map(|(number, part)| seal_one(sealer, random, &fragment_prefix(number, total), part))
        .collect()
}

/// The longest IKE message that a path carries in IP packets of `fragment_size` octets; `None`
/// where messages are never fragmented.
///
/// The non-ESP marker counts always, because a repeated message may have moved to the NAT-T port.
pub fn max_datagram(path: &Path, fragment_size: u16) -> Option<usize> {
    if fragment_size == 0 || matches!(path.transport, Transport::Tcp(_)) {
        return None;
    }
    let ip = match path.remote {
        SocketAddr::V4(_) => IPV4_HEADER,
        SocketAddr::V6(_) => IPV6_HEADER,
    };
    let packet = usize::from(fragment_size).max(LEAST_PACKET);
    Some(packet - ip - UDP_HEADER - NON_ESP_MARKER)
}

fn seal_one(
    sealer: &mut IkeSealer,
    random: &mut dyn Random,
    prefix: &Prefix,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealMessageError> {
    let mut datagram = prefix.emit(sealer.sealed_len(plaintext.len()))?;
    let body = sealer.seal(random, &datagram, plaintext)?;
    datagram.extend_from_slice(&body);
    Ok(datagram)
}

impl<T> Deref for Authenticated<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Authenticated<Content> {
    /// The message of all `parts`, in order; `None` without any.
    pub(crate) fn join(parts: impl IntoIterator<Item = Authenticated<Part>>) -> Option<Self> {
        let parts: Vec<Part> = parts.into_iter().map(|part| part.0).collect();
        let first = parts.first()?;
        // Reserved at once, so that no reallocation leaves a copy behind.
        let mut plaintext = Vec::with_capacity(parts.iter().map(|part| part.plaintext.len()).sum());
        for part in &parts {
            plaintext.extend_from_slice(part.plaintext.expose());
        }
        Some(Self(Content {
            header: first.header,
            first: first.first,
            plaintext: Secret::new(plaintext),
        }))
    }
}

impl Content {
    /// The payloads inside. An error is the peer's own and is answered: with
    /// UNSUPPORTED_CRITICAL_PAYLOAD or INVALID_SYNTAX ([`ParseError::notify_type`]).
    pub fn payloads(&self) -> Result<Vec<Payload<'_>>, ParseError> {
        parse_chain(self.first, self.plaintext.expose())
    }
}

impl Part {
    /// Octets of the message in this part.
    pub fn plaintext_len(&self) -> usize {
        self.plaintext.len()
    }
}

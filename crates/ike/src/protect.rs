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

/// Smaller settings count as this.
const LEAST_PACKET: usize = crate::pmtu::LEAST_V4 as usize;
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
    let too_long = |most: &usize| whole_len > *most && !chain.bytes.is_empty();
    let Some(most) = max_datagram.filter(too_long) else {
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

/// The longest content of a message that is one datagram of `most` octets; `None` where none fits.
pub fn max_content(sealer: &IkeSealer, header: IkeHeader, most: usize) -> Option<usize> {
    let whole = Prefix {
        header,
        first: PayloadType::NONE,
        fragment: None,
    };
    sealer.max_plaintext_len(most.checked_sub(whole.emitted_len())?)
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::test_random::TestRandom;
    use cygnet_crypto::suite::{Encryption, Integrity};
    use cygnet_wire::header::{ExchangeType, Flags, MessageId, Spi, Version};
    use cygnet_wire::payload::ChainBuilder;
    use cygnet_wire::vendor::VendorPayload;
    use proptest::prelude::*;

    /// Both ends of one direction.
    pub(crate) fn ciphers(
        encryption: Encryption,
        integrity: Option<Integrity>,
    ) -> (IkeSealer, IkeOpener) {
        let sk_e = vec![0x5a; encryption.key_material_len()];
        let sk_a = vec![0xa5; integrity.map_or(0, Integrity::key_len)];
        (
            IkeSealer::new(encryption, integrity, &sk_e, &sk_a).unwrap(),
            IkeOpener::new(encryption, integrity, &sk_e, &sk_a).unwrap(),
        )
    }

    pub(crate) fn gcm() -> (IkeSealer, IkeOpener) {
        ciphers(Encryption::AesGcm16_128, None)
    }

    pub(crate) fn header(id: u32) -> IkeHeader {
        IkeHeader {
            initiator_spi: Spi(1),
            responder_spi: Spi(2),
            version: Version::V2_0,
            exchange: ExchangeType::IKE_AUTH,
            flags: Flags::new(true, false),
            message_id: MessageId(id),
        }
    }

    /// Payloads of about `len` octets.
    pub(crate) fn chain(len: usize) -> Chain {
        let mut chain = ChainBuilder::new();
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        for part in bytes.chunks(5000) {
            chain.push(VendorPayload::new(part));
        }
        chain.finish().unwrap()
    }

    pub(crate) fn part(opener: &IkeOpener, datagram: &[u8]) -> Authenticated<Part> {
        match open(opener, &Message::parse(datagram).unwrap()).unwrap() {
            Opened::Part(part) => part,
            Opened::Whole(_) => panic!("not a fragment"),
        }
    }

    fn whole(opener: &IkeOpener, datagram: &[u8]) -> Result<Authenticated<Content>, ProtectError> {
        match open(opener, &Message::parse(datagram).unwrap())? {
            Opened::Whole(content) => Ok(content),
            Opened::Part(_) => panic!("a fragment"),
        }
    }

    /// The payloads of a message, emitted again.
    pub(crate) fn again(content: &Content) -> Chain {
        let mut chain = ChainBuilder::new();
        for payload in content.payloads().unwrap() {
            chain.push(payload);
        }
        chain.finish().unwrap()
    }

    #[test]
    fn a_message_survives_every_cipher() {
        let cbc = Some(Integrity::HmacSha2_384_192);
        for (encryption, integrity) in [
            (Encryption::AesGcm16_128, None),
            (Encryption::AesGcm16_256, None),
            (Encryption::ChaCha20Poly1305, None),
            (Encryption::AesCbc128, cbc),
            (Encryption::AesCbc256, cbc),
        ] {
            let (mut sealer, opener) = ciphers(encryption, integrity);
            let chain = chain(300);
            let mut random = TestRandom::new(1);
            let sealed = seal(&mut sealer, &mut random, header(1), &chain, Some(1000)).unwrap();
            assert_eq!(sealed.len(), 1);
            let content = whole(&opener, &sealed[0]).unwrap();
            assert_eq!(content.header, header(1));
            assert_eq!(again(&content), chain);
        }
    }

    #[test]
    fn an_empty_message_is_a_message() {
        let (mut sealer, opener) = gcm();
        let empty = ChainBuilder::new().finish().unwrap();
        let mut random = TestRandom::new(1);
        let sealed = seal(&mut sealer, &mut random, header(2), &empty, None).unwrap();
        assert_eq!(
            whole(&opener, &sealed[0])
                .unwrap()
                .payloads()
                .unwrap()
                .len(),
            0
        );
    }

    /// Wherever a bit is flipped, header included, nothing authenticated comes out.
    #[test]
    fn no_bit_can_be_changed() {
        let (mut sealer, opener) = gcm();
        let mut random = TestRandom::new(1);
        let sealed = seal(&mut sealer, &mut random, header(1), &chain(40), None).unwrap();
        for bit in 0..sealed[0].len() * 8 {
            let mut altered = sealed[0].clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let opened = Message::parse(&altered)
                .map_err(ProtectError::from)
                .and_then(|message| open(&opener, &message));
            assert!(opened.is_err(), "bit {bit} was changed");
        }
    }

    #[test]
    fn a_message_in_clear_is_refused() {
        let (_, opener) = gcm();
        let mut builder = cygnet_wire::message::MessageBuilder::new(header(1));
        builder.push(VendorPayload::new(b"in clear"));
        let datagram = builder.finish().unwrap();
        assert_eq!(whole(&opener, &datagram).err(), Some(ProtectError::InClear));
    }

    #[test]
    fn what_no_path_carries_is_not_sent() {
        let (mut sealer, _) = gcm();
        let mut random = TestRandom::new(1);
        let error = seal(
            &mut sealer,
            &mut random,
            header(1),
            &chain(60_000),
            Some(548),
        );
        assert!(matches!(
            error,
            Err(SealMessageError::Fragments { needed }) if needed > 64
        ));
    }

    #[test]
    fn the_datagram_leaves_room_for_what_is_around_it() {
        let path = |remote: &str| Path {
            transport: Transport::Udp,
            local: remote.parse().unwrap(),
            remote: remote.parse().unwrap(),
            interface: 0,
        };
        let v4 = path("192.0.2.1:500");
        let v6 = path("[2001:db8::1]:500");
        assert_eq!(max_datagram(&v4, 1280), Some(1280 - 20 - 8 - 4));
        assert_eq!(max_datagram(&v6, 1280), Some(1280 - 40 - 8 - 4));
        assert_eq!(max_datagram(&v4, 100), Some(552 - 20 - 8 - 4));
        assert_eq!(max_datagram(&v4, 0), None);
        let tcp = Path {
            transport: Transport::Tcp(crate::io::StreamId(1)),
            ..v4
        };
        assert_eq!(max_datagram(&tcp, 1280), None);
    }

    proptest! {
        #[test]
        fn fragments_fit_and_come_together(
            len in 1_usize..20_000,
            most in 500_usize..1500,
            legacy in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let (mut sealer, opener) = if legacy {
                ciphers(Encryption::AesCbc256, Some(Integrity::HmacSha2_512_256))
            } else {
                gcm()
            };
            let chain = chain(len);
            let mut random = TestRandom::new(seed);
            let sealed = seal(&mut sealer, &mut random, header(3), &chain, Some(most)).unwrap();
            prop_assert!(sealed.iter().all(|datagram| datagram.len() <= most));
            if sealed.len() == 1 {
                let content = whole(&opener, &sealed[0]).unwrap();
                prop_assert_eq!(again(&content), chain);
            } else {
                let total = sealed.len() as u16;
                let parts: Vec<_> = sealed.iter().map(|d| part(&opener, d)).collect();
                for (number, part) in (1..).zip(&parts) {
                    prop_assert_eq!(part.fragment, Fragment { number, total });
                }
                let content = Authenticated::join(parts).unwrap();
                prop_assert_eq!(again(&content), chain);
            }
        }
    }
}

//! The chain of payloads that every message is (RFC 7296 §3.2).

use std::borrow::Cow;

use crate::auth::AuthPayload;
use crate::cert::{CertPayload, CertReqPayload};
use crate::codec::{Reader, Writer};
use crate::cp::CpPayload;
use crate::delete::DeletePayload;
use crate::eap::EapPayload;
use crate::error::{EmitError, ParseError};
use crate::id::IdPayload;
use crate::ke::KePayload;
use crate::nonce::NoncePayload;
use crate::notify::NotifyPayload;
use crate::sa::SaPayload;
use crate::ts::TsPayload;
use crate::vendor::VendorPayload;

/// Most payloads accepted in one chain.
pub const MAX_PAYLOADS: usize = 64;

const GENERIC_HEADER_LEN: usize = 4;
const CRITICAL: u8 = 0x80;

wire_number! {
    /// IANA "IKEv2 Payload Types". Zero ends a chain.
    PayloadType(u8) {
        NONE = 0,
        SA = 33,
        KE = 34,
        IDI = 35,
        IDR = 36,
        CERT = 37,
        CERTREQ = 38,
        AUTH = 39,
        NONCE = 40,
        NOTIFY = 41,
        DELETE = 42,
        VENDOR = 43,
        TSI = 44,
        TSR = 45,
        SK = 46,
        CP = 47,
        EAP = 48,
        GSPM = 49,
        IDG = 50,
        GSA = 51,
        KD = 52,
        SKF = 53,
        PS = 54,
    }
}

/// A payload with its body parsed. Blobs are borrowed where they come from the wire, and borrowed
/// or owned where they are to be sent; [`Payload::into_owned`] cuts the tie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Security Association.
    Sa(SaPayload),
    /// Key Exchange.
    Ke(KePayload<'a>),
    /// Identification of the initiator.
    Idi(IdPayload),
    /// Identification of the responder.
    Idr(IdPayload),
    /// Certificate.
    Cert(CertPayload<'a>),
    /// Certificate Request.
    CertReq(CertReqPayload<'a>),
    /// Authentication.
    Auth(AuthPayload<'a>),
    /// Ni or Nr.
    Nonce(NoncePayload<'a>),
    /// Notify.
    Notify(NotifyPayload<'a>),
    /// Delete.
    Delete(DeletePayload),
    /// Vendor ID.
    Vendor(VendorPayload<'a>),
    /// Traffic selectors of the initiator.
    Tsi(TsPayload),
    /// Traffic selectors of the responder.
    Tsr(TsPayload),
    /// Configuration.
    Cp(CpPayload<'a>),
    /// Extensible Authentication.
    Eap(EapPayload<'a>),
    /// Of a type this crate does not know.
    Unknown {
        /// Its type.
        ty: PayloadType,
        /// Whether the message is to be refused by who does not know the type. Never true in what
        /// [`parse_chain`] returns, because it refuses.
        critical: bool,
        /// Not interpreted.
        body: Cow<'a, [u8]>,
    },
}

/// A payload whose body has not been looked at.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPayload<'a> {
    /// From the Next Payload field before it.
    pub ty: PayloadType,
    /// Whether the message is to be refused by who does not know the type.
    pub critical: bool,
    /// Its own Next Payload field: in SK and SKF, the type of the first payload inside.
    pub next: PayloadType,
    /// Without the generic header.
    pub body: &'a [u8],
}

/// Walks a chain without allocating. Stops after the first error, after SK or SKF (whose Next
/// Payload field speaks of the inside), and refuses more than [`MAX_PAYLOADS`].
#[derive(Debug, Clone)]
pub struct Payloads<'a> {
    next: PayloadType,
    count: usize,
    reader: Reader<'a>,
}

impl<'a> Payloads<'a> {
    /// `first` is the type of the first payload in `chain`.
    pub fn new(first: PayloadType, chain: &'a [u8]) -> Self {
        Self {
            next: first,
            count: 0,
            reader: Reader::new("chain of payloads", chain),
        }
    }

    /// Octets not yet walked over.
    pub fn remaining(&self) -> usize {
        self.reader.remaining()
    }

    fn step(&mut self) -> Result<Option<RawPayload<'a>>, ParseError> {
        let ty = self.next;
        if ty == PayloadType::NONE {
            return self.reader.clone().finish().map(|()| None);
        }
        if self.count == MAX_PAYLOADS {
            return Err(ParseError::TooMany {
                what: "payloads",
                limit: MAX_PAYLOADS,
            });
        }
        self.count += 1;
        let next = PayloadType(self.reader.u8()?);
        let critical = self.reader.u8()? & CRITICAL != 0;
        let length = usize::from(self.reader.u16()?);
        let Some(body_len) = length.checked_sub(GENERIC_HEADER_LEN) else {
            return Err(ParseError::Length {
                what: "payload",
                expected: "at least 4",
                got: length,
            });
        };
        let body = self.reader.take(body_len)?;
        self.next = match ty {
            PayloadType::SK | PayloadType::SKF => PayloadType::NONE,
            _ => next,
        };
        Ok(Some(RawPayload {
            ty,
            critical,
            next,
            body,
        }))
    }
}

impl<'a> Iterator for Payloads<'a> {
    type Item = Result<RawPayload<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            // Fused: neither an error nor the end is reported twice.
            *self = Self::new(PayloadType::NONE, &[]);
        }
        step
    }
}

impl<'a> RawPayload<'a> {
    /// Parses the body by its type. A critical payload of unknown type is an error (RFC 7296 §2.5);
    /// the bit is ignored where the type is known. SK and SKF are no payload's inside and count as
    /// unknown here.
    pub fn parse(&self) -> Result<Payload<'a>, ParseError> {
        let body = self.body;
        Ok(match self.ty {
            PayloadType::SA => Payload::Sa(SaPayload::parse(body)?),
            PayloadType::KE => Payload::Ke(KePayload::parse(body)?),
            PayloadType::IDI => Payload::Idi(IdPayload::parse(body)?),
            PayloadType::IDR => Payload::Idr(IdPayload::parse(body)?),
            PayloadType::CERT => Payload::Cert(CertPayload::parse(body)?),
            PayloadType::CERTREQ => Payload::CertReq(CertReqPayload::parse(body)?),
            PayloadType::AUTH => Payload::Auth(AuthPayload::parse(body)?),
            PayloadType::NONCE => Payload::Nonce(NoncePayload::parse(body)?),
            PayloadType::NOTIFY => Payload::Notify(NotifyPayload::parse(body)?),
            PayloadType::DELETE => Payload::Delete(DeletePayload::parse(body)?),
            PayloadType::VENDOR => Payload::Vendor(VendorPayload::new(body)),
            PayloadType::TSI => Payload::Tsi(TsPayload::parse(body)?),
            PayloadType::TSR => Payload::Tsr(TsPayload::parse(body)?),
            PayloadType::CP => Payload::Cp(CpPayload::parse(body)?),
            PayloadType::EAP => Payload::Eap(EapPayload::parse(body)?),
            ty if self.critical => return Err(ParseError::UnsupportedCriticalPayload(ty)),
            ty => Payload::Unknown {
                ty,
                critical: false,
                body: body.into(),
            },
        })
    }
}

/// Parses a whole chain: the inside of a decrypted message, or a message in clear. Payloads of
/// unknown type are kept as [`Payload::Unknown`] unless they are critical, which is
/// [`ParseError::UnsupportedCriticalPayload`].
pub fn parse_chain(first: PayloadType, chain: &[u8]) -> Result<Vec<Payload<'_>>, ParseError> {
    Payloads::new(first, chain)
        .map(|raw| raw?.parse())
        .collect()
}

impl Payload<'_> {
    /// The number this payload has on the wire.
    pub fn ty(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::Idi(_) => PayloadType::IDI,
            Self::Idr(_) => PayloadType::IDR,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::Vendor(_) => PayloadType::VENDOR,
            Self::Tsi(_) => PayloadType::TSI,
            Self::Tsr(_) => PayloadType::TSR,
            Self::Cp(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown { ty, .. } => *ty,
        }
    }

    /// Copies what it borrows.
    pub fn into_owned(self) -> Payload<'static> {
        fn owned(blob: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
            Cow::Owned(blob.into_owned())
        }
        match self {
            Self::Sa(p) => Payload::Sa(p),
            Self::Ke(p) => Payload::Ke(KePayload {
                method: p.method,
                data: owned(p.data),
            }),
            Self::Idi(p) => Payload::Idi(p),
            Self::Idr(p) => Payload::Idr(p),
            Self::Cert(p) => Payload::Cert(CertPayload {
                encoding: p.encoding,
                data: owned(p.data),
            }),
            Self::CertReq(p) => Payload::CertReq(CertReqPayload {
                encoding: p.encoding,
                authorities: owned(p.authorities),
            }),
            Self::Auth(p) => Payload::Auth(AuthPayload {
                method: p.method,
                data: owned(p.data),
            }),
            Self::Nonce(p) => Payload::Nonce(NoncePayload {
                data: owned(p.data),
            }),
            Self::Notify(p) => Payload::Notify(p.into_owned()),
            Self::Delete(p) => Payload::Delete(p),
            Self::Vendor(p) => Payload::Vendor(VendorPayload { vid: owned(p.vid) }),
            Self::Tsi(p) => Payload::Tsi(p),
            Self::Tsr(p) => Payload::Tsr(p),
            Self::Cp(p) => Payload::Cp(p.into_owned()),
            Self::Eap(p) => Payload::Eap(EapPayload {
                code: p.code,
                identifier: p.identifier,
                ty: p.ty,
                data: owned(p.data),
            }),
            Self::Unknown { ty, critical, body } => Payload::Unknown {
                ty,
                critical,
                body: owned(body),
            },
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Sa(payload) => payload.write(writer),
            Self::Ke(payload) => payload.write(writer),
            Self::Idi(payload) | Self::Idr(payload) => payload.write(writer),
            Self::Cert(payload) => payload.write(writer),
            Self::CertReq(payload) => payload.write(writer),
            Self::Auth(payload) => payload.write(writer),
            Self::Nonce(payload) => payload.write(writer),
            Self::Notify(payload) => payload.write(writer),
            Self::Delete(payload) => payload.write(writer),
            Self::Vendor(payload) => writer.bytes(&payload.vid),
            Self::Tsi(payload) | Self::Tsr(payload) => payload.write(writer),
            Self::Cp(payload) => payload.write(writer),
            Self::Eap(payload) => payload.write(writer),
            Self::Unknown { body, .. } => writer.bytes(body),
        }
    }
}

macro_rules! payload_from {
    ($( $variant:ident($payload:ty), )*) => {
        $(
            impl<'a> From<$payload> for Payload<'a> {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )*
    };
}

payload_from! {
    Sa(SaPayload),
    Ke(KePayload<'a>),
    Cert(CertPayload<'a>),
    CertReq(CertReqPayload<'a>),
    Auth(AuthPayload<'a>),
    Nonce(NoncePayload<'a>),
    Notify(NotifyPayload<'a>),
    Delete(DeletePayload),
    Vendor(VendorPayload<'a>),
    Cp(CpPayload<'a>),
    Eap(EapPayload<'a>),
}

/// Emits payloads one after the other, each linked to the next.
#[derive(Debug, Default)]
pub struct ChainBuilder {
    first: Option<PayloadType>,
    /// Where the last payload has its Next Payload field.
    last_at: usize,
    writer: Writer,
}

/// A chain ready to be put into a message in clear or to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Type of the first payload; [`PayloadType::NONE`] for an empty chain.
    pub first: PayloadType,
    /// All payloads.
    pub bytes: Vec<u8>,
}

impl ChainBuilder {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a payload. What does not fit is reported by [`ChainBuilder::finish`].
    pub fn push<'p>(&mut self, payload: impl Into<Payload<'p>>) -> &mut Self {
        let payload = payload.into();
        let ty = payload.ty();
        let start = self.writer.len();
        match self.first {
            None => self.first = Some(ty),
            Some(_) => self.writer.patch(self.last_at, &[ty.0]),
        }
        self.last_at = start;
        let critical = matches!(payload, Payload::Unknown { critical: true, .. });
        self.writer.u8(PayloadType::NONE.0);
        self.writer.u8(if critical { CRITICAL } else { 0 });
        self.writer.u16(0);
        payload.write(&mut self.writer);
        self.writer.patch_length_u16("a payload", start + 2, start);
        self
    }

    /// The chain, or what in it was too large for its length field.
    pub fn finish(self) -> Result<Chain, EmitError> {
        let first = self.first.unwrap_or(PayloadType::NONE);
        Ok(Chain {
            first,
            bytes: self.writer.finish()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::notify::NotifyType;
    use crate::testing::{self, hex};

    #[test]
    fn octets() {
        let chain = hex("29 00 0007 616263 00 00 0008 00 00 4000");
        let mut builder = ChainBuilder::new();
        builder
            .push(VendorPayload::new(&b"abc"[..]))
            .push(NotifyPayload::new(NotifyType::INITIAL_CONTACT));
        let expected = Chain {
            first: PayloadType::VENDOR,
            bytes: chain.clone(),
        };
        assert_eq!(builder.finish(), Ok(expected));
        assert_eq!(
            parse_chain(PayloadType::VENDOR, &chain).unwrap(),
            [
                Payload::Vendor(VendorPayload::new(&b"abc"[..])),
                Payload::Notify(NotifyPayload::new(NotifyType::INITIAL_CONTACT)),
            ]
        );
    }

    #[test]
    fn an_empty_chain_has_no_type() {
        let chain = ChainBuilder::new().finish().unwrap();
        assert_eq!(
            chain,
            Chain {
                first: PayloadType::NONE,
                bytes: Vec::new()
            }
        );
        assert_eq!(parse_chain(PayloadType::NONE, &[]), Ok(Vec::new()));
    }

    /// RFC 7296 §2.5: refused by its type when critical, skipped when not.
    #[test]
    fn unknown_payloads_are_refused_only_when_critical() {
        let unknown = PayloadType(200);
        let chain = hex("2b 00 0005 aa 00 00 0004");
        let parsed = parse_chain(unknown, &chain).unwrap();
        let [
            Payload::Unknown {
                ty,
                critical: false,
                body,
            },
            Payload::Vendor(_),
        ] = &parsed[..]
        else {
            panic!("{parsed:?}");
        };
        assert_eq!((*ty, body.as_ref()), (unknown, &[0xaa][..]));

        let error = parse_chain(unknown, &hex("2b 80 0005 aa 00 00 0004")).unwrap_err();
        assert_eq!(error, ParseError::UnsupportedCriticalPayload(unknown));
        assert_eq!(
            error.notify_type(),
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD
        );
    }

    /// RFC 7296 §3.2: the bit is ignored where the type is known.
    #[test]
    fn the_critical_bit_of_known_payloads_is_ignored() {
        assert!(parse_chain(PayloadType::VENDOR, &hex("00 ff 0004")).is_ok());
    }

    #[test]
    fn broken_chains_are_refused_once() {
        for (what, chain) in [
            ("shorter than its header", "00 00 0003"),
            ("longer than the chain", "00 00 0005"),
            ("a header cut off", "00 00 00"),
            ("another promised", "2b 00 0004"),
            ("octets after the last", "00 00 0004 00"),
        ] {
            let chain = hex(chain);
            let mut payloads = Payloads::new(PayloadType::VENDOR, &chain);
            let error = payloads.by_ref().find_map(Result::err);
            assert!(error.is_some(), "{what}");
            assert!(payloads.next().is_none(), "{what}: goes on after the error");
        }
    }

    #[test]
    fn payloads_are_limited() {
        let chain = hex("2b 00 0004").repeat(MAX_PAYLOADS + 1);
        let error = parse_chain(PayloadType::VENDOR, &chain).unwrap_err();
        assert_eq!(
            error,
            ParseError::TooMany {
                what: "payloads",
                limit: MAX_PAYLOADS
            }
        );
    }

    #[test]
    fn a_payload_too_large_for_its_length_is_an_error() {
        let emit = |length| {
            let mut builder = ChainBuilder::new();
            builder.push(VendorPayload::new(vec![0; length]));
            builder.finish()
        };
        assert!(emit(65531).is_ok());
        assert_eq!(
            emit(65532),
            Err(EmitError {
                what: "a payload",
                limit: 65535
            })
        );
    }

    proptest! {
        #[test]
        fn round_trip(payloads in vec(testing::payload(), 0..8)) {
            let mut builder = ChainBuilder::new();
            for payload in &payloads {
                builder.push(payload.clone());
            }
            let chain = builder.finish().unwrap();
            let parsed = parse_chain(chain.first, &chain.bytes).unwrap();
            prop_assert_eq!(&parsed, &payloads);
            let owned: Vec<_> = parsed.into_iter().map(Payload::into_owned).collect();
            prop_assert_eq!(owned, payloads);
        }

        #[test]
        fn arbitrary_octets_never_panic(first: u8, chain in vec(any::<u8>(), 0..200)) {
            let _ = parse_chain(PayloadType(first), &chain);
        }

        /// Every parser gets octets that are not sifted out by the chain first.
        #[test]
        fn arbitrary_bodies_never_panic(body in vec(any::<u8>(), 0..200)) {
            for ty in 0..=u8::MAX {
                let _ = testing::parse_body(PayloadType(ty), &body);
            }
            let _ = crate::auth::DigitalSignature::parse(&body);
            let _ = crate::sk::unpad(&body);
            if let Ok(notify) = NotifyPayload::parse(&body) {
                let _ = (notify.accepted_ke(), notify.unsupported_type(), notify.window_size());
                let _ = (notify.auth_lifetime(), notify.address());
                let _ = notify.hash_algorithms().count();
            }
        }

        /// Valid chains with a few octets changed come further into the parsers than noise does. What
        /// still parses must survive being emitted.
        #[test]
        fn mutated_chains_never_panic(
            payloads in vec(testing::payload(), 1..6),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut builder = ChainBuilder::new();
            for payload in payloads {
                builder.push(payload);
            }
            let mut chain = builder.finish().unwrap();
            for (at, octet) in changes {
                let at = at.index(chain.bytes.len());
                chain.bytes[at] = octet;
            }
            if let Ok(parsed) = parse_chain(chain.first, &chain.bytes) {
                let mut builder = ChainBuilder::new();
                for payload in &parsed {
                    builder.push(payload.clone());
                }
                let again = builder.finish().unwrap();
                prop_assert_eq!(parse_chain(again.first, &again.bytes).unwrap(), parsed);
            }
        }
    }
}

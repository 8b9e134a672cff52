//! What the tests of several files share: hexadecimal text, single payloads, and strategies that
//! produce every value a wire type can hold.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::auth::{AuthMethod, AuthPayload};
use crate::cert::{CertEncoding, CertPayload, CertReqPayload};
use crate::cp::{CfgAttribute, CfgAttributeType, CfgType, CpPayload};
use crate::delete::DeletePayload;
use crate::eap::{EapCode, EapPayload, EapType};
use crate::error::ParseError;
use crate::header::{ChildSpi, ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use crate::id::{IdPayload, IdType, Identification};
use crate::ke::KePayload;
use crate::nonce::NoncePayload;
use crate::notify::{NotifyPayload, NotifyType};
use crate::payload::{ChainBuilder, Payload, PayloadType, RawPayload, parse_chain};
use crate::sa::{
    Attribute, AttributeType, AttributeValue, Proposal, ProposalSpi, ProtocolId, SaPayload,
    Transform, TransformId, TransformType,
};
use crate::ts::{
    ANY_PORT, AddrRange, OPAQUE_PORT, TrafficSelector, TsPayload, TsType, UnknownSelector,
};
use crate::vendor::VendorPayload;

/// Octets from hexadecimal digits; white space is ignored.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

/// The body of one payload as emitted, its generic header checked and removed.
pub(crate) fn emit_body<'a>(payload: impl Into<Payload<'a>>) -> Vec<u8> {
    let mut builder = ChainBuilder::new();
    builder.push(payload);
    let mut bytes = builder.finish().expect("the payload fits").bytes;
    let body = bytes.split_off(4);
    assert_eq!(bytes[..2], [0, 0], "no next payload, not critical");
    assert_eq!(
        usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        4 + body.len()
    );
    body
}

/// Parses one body as a payload of type `ty`.
pub(crate) fn parse_body(ty: PayloadType, body: &[u8]) -> Result<Payload<'_>, ParseError> {
    RawPayload {
        ty,
        critical: false,
        next: PayloadType::NONE,
        body,
    }
    .parse()
}

/// Emits, parses, and compares; then cuts the body at every length, which may fail but not panic.
pub(crate) fn assert_round_trip<'a>(payload: impl Into<Payload<'a>>) {
    let payload = payload.into();
    let mut builder = ChainBuilder::new();
    builder.push(payload.clone());
    let chain = builder.finish().expect("the payload fits");
    let parsed = parse_chain(chain.first, &chain.bytes).expect("what was emitted parses");
    assert_eq!(parsed, std::slice::from_ref(&payload));
    let body = emit_body(payload.clone());
    for length in 0..body.len() {
        let _ = parse_body(payload.ty(), &body[..length]);
    }
}

fn blob(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}

fn cow(
    length: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Cow<'static, [u8]>> {
    blob(length).prop_map(Cow::Owned)
}

pub(crate) fn header() -> impl Strategy<Value = IkeHeader> {
    (
        any::<u64>(),
        any::<u64>(),
        any::<u8>(),
        any::<u8>(),
        any::<u32>(),
    )
        .prop_map(
            |(initiator, responder, exchange, flags, message_id)| IkeHeader {
                initiator_spi: Spi(initiator),
                responder_spi: Spi(responder),
                version: Version::V2_0,
                exchange: ExchangeType(exchange),
                flags: Flags(flags),
                message_id: MessageId(message_id),
            },
        )
}

fn spi() -> impl Strategy<Value = ProposalSpi> {
    blob(0..12).prop_map(|bytes| ProposalSpi::from_bytes(&bytes))
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        any::<u16>().prop_map(AttributeValue::Short),
        blob(0..9).prop_map(AttributeValue::Long),
    ];
    (0..0x8000_u16, value).prop_map(|(ty, value)| Attribute {
        ty: AttributeType(ty),
        value,
    })
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3)).prop_map(|(ty, id, attributes)| Transform {
        ty: TransformType(ty),
        id: TransformId(id),
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), spi(), vec(transform(), 0..6)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol: ProtocolId(protocol),
            spi,
            transforms,
        },
    )
}

pub(crate) fn sa() -> impl Strategy<Value = SaPayload> {
    vec(proposal(), 1..5).prop_map(|proposals| SaPayload { proposals })
}

pub(crate) fn ke() -> impl Strategy<Value = KePayload<'static>> {
    (any::<u16>(), cow(0..80)).prop_map(|(method, data)| KePayload::new(TransformId(method), data))
}

pub(crate) fn id() -> impl Strategy<Value = IdPayload> {
    let identification = prop_oneof![
        any::<IpAddr>().prop_map(Identification::address),
        (any::<u8>(), blob(0..40)).prop_filter_map("addresses have a length", |(ty, data)| {
            let ty = IdType(ty);
            let address = matches!(ty, IdType::ID_IPV4_ADDR | IdType::ID_IPV6_ADDR);
            (!address).then_some(Identification { ty, data })
        }),
    ];
    (identification, any::<[u8; 3]>()).prop_map(|(id, reserved)| IdPayload { id, reserved })
}

pub(crate) fn cert() -> impl Strategy<Value = CertPayload<'static>> {
    (any::<u8>(), cow(0..80)).prop_map(|(encoding, data)| CertPayload {
        encoding: CertEncoding(encoding),
        data,
    })
}

pub(crate) fn certreq() -> impl Strategy<Value = CertReqPayload<'static>> {
    prop_oneof![
        vec(any::<[u8; 20]>(), 0..4).prop_map(|authorities| CertReqPayload::x509(&authorities)),
        cow(0..40).prop_map(|authorities| CertReqPayload {
            encoding: CertEncoding::OCSP_CONTENT,
            authorities,
        }),
    ]
}

pub(crate) fn auth() -> impl Strategy<Value = AuthPayload<'static>> {
    (any::<u8>(), cow(0..80)).prop_map(|(method, data)| AuthPayload::new(AuthMethod(method), data))
}

pub(crate) fn nonce() -> impl Strategy<Value = NoncePayload<'static>> {
    cow(16..=256).prop_map(NoncePayload::new)
}

pub(crate) fn notify() -> impl Strategy<Value = NotifyPayload<'static>> {
    (any::<u8>(), spi(), any::<u16>(), cow(0..40)).prop_map(|(protocol, spi, ty, data)| {
        NotifyPayload {
            protocol: ProtocolId(protocol),
            spi,
            ty: NotifyType(ty),
            data,
        }
    })
}

pub(crate) fn delete() -> impl Strategy<Value = DeletePayload> {
    let child_sas = (any::<u8>(), vec(any::<u32>(), 0..5)).prop_filter_map(
        "IKE has no SPIs here",
        |(protocol, spis)| {
            let protocol = ProtocolId(protocol);
            let spis = spis.into_iter().map(ChildSpi).collect();
            (protocol != ProtocolId::IKE).then_some(DeletePayload::ChildSas { protocol, spis })
        },
    );
    prop_oneof![Just(DeletePayload::IkeSa), child_sas]
}

pub(crate) fn vendor() -> impl Strategy<Value = VendorPayload<'static>> {
    cow(0..40).prop_map(VendorPayload::new)
}

pub(crate) fn range() -> impl Strategy<Value = AddrRange> {
    let any_two = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| AddrRange::V4(a.min(b), a.max(b))),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| AddrRange::V6(a.min(b), a.max(b))),
    ];
    let close = any::<(u32, u8)>()
        .prop_map(|(lo, more)| AddrRange::V4(lo.into(), lo.saturating_add(u32::from(more)).into()));
    let subnet = (any::<IpAddr>(), 0..=128_u8)
        .prop_map(|(addr, prefix_len)| AddrRange::from_prefix(addr, prefix_len));
    prop_oneof![any_two, close, subnet]
}

pub(crate) fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        Just(ANY_PORT),
        Just(OPAQUE_PORT),
        any::<(u16, u16)>().prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ];
    let protocol = prop_oneof![Just(0), Just(6), Just(17), any::<u8>()];
    (protocol, ports, range()).prop_map(|(protocol, ports, addrs)| TrafficSelector {
        protocol,
        ports,
        addrs,
    })
}

pub(crate) fn ts() -> impl Strategy<Value = TsPayload> {
    let unknown =
        (9..=u8::MAX, any::<u8>(), blob(0..12)).prop_map(|(ty, protocol, body)| UnknownSelector {
            ty: TsType(ty),
            protocol,
            body,
        });
    (vec(selector(), 0..4), vec(unknown, 0..2))
        .prop_map(|(selectors, unknown)| TsPayload { selectors, unknown })
}

fn cfg_attribute() -> impl Strategy<Value = CfgAttribute<'static>> {
    let prefix = || option::of((any::<Ipv6Addr>(), 0..=128_u8));
    prop_oneof![
        any::<Option<Ipv4Addr>>().prop_map(CfgAttribute::Ip4Address),
        any::<Option<Ipv4Addr>>().prop_map(CfgAttribute::Ip4Netmask),
        any::<Option<Ipv4Addr>>().prop_map(CfgAttribute::Ip4Dns),
        any::<Option<Ipv4Addr>>().prop_map(CfgAttribute::Ip4Nbns),
        any::<Option<Ipv4Addr>>().prop_map(CfgAttribute::Ip4Dhcp),
        any::<Option<(Ipv4Addr, Ipv4Addr)>>().prop_map(CfgAttribute::Ip4Subnet),
        prefix().prop_map(CfgAttribute::Ip6Address),
        any::<Option<Ipv6Addr>>().prop_map(CfgAttribute::Ip6Dns),
        any::<Option<Ipv6Addr>>().prop_map(CfgAttribute::Ip6Dhcp),
        prefix().prop_map(CfgAttribute::Ip6Subnet),
        cow(0..20).prop_map(CfgAttribute::ApplicationVersion),
        vec((0..0x8000_u16).prop_map(CfgAttributeType), 0..5)
            .prop_map(CfgAttribute::SupportedAttributes),
        cow(0..20).prop_map(CfgAttribute::DnsDomain),
        (30..0x8000_u16, cow(0..20)).prop_map(|(ty, value)| CfgAttribute::Unknown {
            ty: CfgAttributeType(ty),
            value
        }),
    ]
}

pub(crate) fn cp() -> impl Strategy<Value = CpPayload<'static>> {
    (any::<u8>(), vec(cfg_attribute(), 0..6))
        .prop_map(|(ty, attributes)| CpPayload::new(CfgType(ty), attributes))
}

pub(crate) fn eap() -> impl Strategy<Value = EapPayload<'static>> {
    let bare = (3..=u8::MAX, any::<u8>())
        .prop_map(|(code, identifier)| EapPayload::bare(EapCode(code), identifier));
    let typed = (any::<u8>(), any::<u8>(), any::<u8>(), cow(0..40))
        .prop_map(|(code, id, ty, data)| EapPayload::new(EapCode(code), id, EapType(ty), data));
    prop_oneof![bare, typed]
}

fn unknown() -> impl Strategy<Value = Payload<'static>> {
    (55..=u8::MAX, cow(0..20)).prop_map(|(ty, body)| Payload::Unknown {
        ty: PayloadType(ty),
        critical: false,
        body,
    })
}

pub(crate) fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        sa().prop_map(Payload::Sa),
        ke().prop_map(Payload::Ke),
        id().prop_map(Payload::Idi),
        id().prop_map(Payload::Idr),
        cert().prop_map(Payload::Cert),
        certreq().prop_map(Payload::CertReq),
        auth().prop_map(Payload::Auth),
        nonce().prop_map(Payload::Nonce),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        vendor().prop_map(Payload::Vendor),
        ts().prop_map(Payload::Tsi),
        ts().prop_map(Payload::Tsr),
        cp().prop_map(Payload::Cp),
        eap().prop_map(Payload::Eap),
        unknown(),
    ]
}

//! Messages of the peer as they should be, and one with everything in it.

use std::net::Ipv4Addr;

use cygnet_ike::proposal::{self, ChildExchange};
use cygnet_wire::cert::{CertPayload, CertReqPayload};
use cygnet_wire::cp::{CfgAttribute, CfgType, CpPayload};
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::eap::{EapCode, EapPayload, EapType};
use cygnet_wire::header::ChildSpi;
use cygnet_wire::id::{IdPayload, Identification};
use cygnet_wire::ke::KePayload;
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::{Chain, ChainBuilder, Payload, PayloadType};
use cygnet_wire::sa::{ProposalSpi, SaPayload, TransformId};
use cygnet_wire::ts::{TrafficSelector, TsPayload};
use cygnet_wire::vendor::VendorPayload;

use super::NEXT_IKE_SPI;
use crate::peer::{
    CERTIFICATE, NONCE, PEER_SPI, Setup, esp_proposals, ike_proposals, log_in, peer_identity, sa,
    share, subnet,
};

pub(super) fn chain(payloads: Vec<Payload<'static>>) -> Chain {
    let mut builder = ChainBuilder::new();
    for payload in payloads {
        builder.push(payload);
    }
    builder.finish().expect("small payloads")
}

pub(super) fn notify(ty: NotifyType) -> Payload<'static> {
    NotifyPayload::new(ty).into()
}

fn tsi(selectors: Vec<TrafficSelector>) -> Payload<'static> {
    Payload::Tsi(TsPayload::new(selectors))
}

fn tsr(selectors: Vec<TrafficSelector>) -> Payload<'static> {
    Payload::Tsr(TsPayload::new(selectors))
}

pub(super) fn own_ke() -> Payload<'static> {
    let group = cygnet_crypto::suite::Group::Curve25519.to_wire();
    KePayload::new(TransformId(group), share().public().to_vec()).into()
}

pub(super) fn own_nonce() -> Payload<'static> {
    NoncePayload::new(&NONCE[..]).into()
}

/// The peer's side is subnet 2, the endpoint's subnet 1.
pub(super) fn auth_request(certificate: bool, more: &[Payload<'static>]) -> Chain {
    let mut payloads = vec![Payload::Idi(IdPayload::new(peer_identity()))];
    if certificate {
        payloads.push(CertPayload::x509(CERTIFICATE).into());
        payloads.push(CertPayload::x509(&b"an intermediate"[..]).into());
    }
    payloads.push(empty_auth());
    payloads.extend(more.iter().cloned());
    let offer = proposal::offer_esp(&esp_proposals(), PEER_SPI, ChildExchange::IkeAuth);
    payloads.push(offer.into());
    payloads.push(tsi(vec![subnet(2)]));
    payloads.push(tsr(vec![subnet(1)]));
    chain(payloads)
}

/// The requests of IKE_AUTH, one after the other: several where the peer logs in.
pub(super) fn auth_requests(setup: Setup) -> Vec<Chain> {
    match setup.log_in {
        false => vec![auth_request(setup.certificate, &[])],
        true => vec![log_in_request(), said(1, log_in::IN), proof_alone()],
    }
}

/// The same without a proof, so that the peer is asked who it is.
pub(super) fn log_in_request() -> Chain {
    let offer = proposal::offer_esp(&esp_proposals(), PEER_SPI, ChildExchange::IkeAuth);
    chain(vec![
        Payload::Idi(IdPayload::new(peer_identity())),
        offer.into(),
        tsi(vec![subnet(2)]),
        tsr(vec![subnet(1)]),
    ])
}

/// What the user says.
pub(super) fn said(identifier: u8, what: &'static [u8]) -> Chain {
    chain(vec![
        EapPayload::new(EapCode::RESPONSE, identifier, EapType::IDENTITY, what).into(),
    ])
}

/// The last message of a log-in, of either end.
fn proof_alone() -> Chain {
    chain(vec![empty_auth()])
}

/// The responses of IKE_AUTH, one after the other: several where the endpoint logs in at the peer.
pub(super) fn auth_responses(setup: Setup, request: &[Payload<'static>]) -> Vec<Chain> {
    if !setup.log_in {
        return vec![auth_response(setup, request, false)];
    }
    let mut last = vec![empty_auth()];
    last.extend(esp_answer(request, ChildExchange::IkeAuth).map(Payload::from));
    last.extend(selectors_of(request));
    vec![
        log_in_response(setup),
        chain(vec![EapPayload::bare(EapCode::SUCCESS, 1).into()]),
        chain(last),
    ]
}

/// The peer proves itself, and asks who the endpoint's user is.
fn log_in_response(setup: Setup) -> Chain {
    let mut payloads = introduction(setup);
    payloads.push(EapPayload::new(EapCode::REQUEST, 1, EapType::IDENTITY, &b""[..]).into());
    chain(payloads)
}

/// To be filled in by `PROVEN`.
pub(super) fn empty_auth() -> Payload<'static> {
    cygnet_wire::auth::AuthPayload::new(cygnet_wire::auth::AuthMethod::SHARED_KEY_MIC, vec![0; 32])
        .into()
}

/// Who the called peer is, with its certificate if it has one, and the place of its proof.
fn introduction(setup: Setup) -> Vec<Payload<'static>> {
    let mut payloads = vec![Payload::Idr(IdPayload::new(peer_identity()))];
    if setup.certificate {
        payloads.push(CertPayload::x509(CERTIFICATE).into());
    }
    payloads.push(empty_auth());
    payloads
}

pub(super) fn auth_response(setup: Setup, request: &[Payload<'static>], lease: bool) -> Chain {
    let mut payloads = introduction(setup);
    if lease {
        let attributes = vec![
            CfgAttribute::Ip4Address(Some(Ipv4Addr::new(10, 99, 0, 9))),
            CfgAttribute::Ip4Dns(Some(Ipv4Addr::new(10, 99, 0, 1))),
            CfgAttribute::Ip6Address(Some(("fd00::9".parse().expect("an address"), 128))),
        ];
        payloads.push(CpPayload::new(CfgType::CFG_REPLY, attributes).into());
    }
    if let Some(answer) = esp_answer(request, ChildExchange::IkeAuth) {
        payloads.push(answer.into());
    }
    payloads.extend(selectors_of(request));
    chain(payloads)
}

fn selectors_of(request: &[Payload<'static>]) -> Vec<Payload<'static>> {
    let is_ts = |p: &&Payload<'static>| matches!(p, Payload::Tsi(_) | Payload::Tsr(_));
    request.iter().filter(is_ts).cloned().collect()
}

fn esp_answer(request: &[Payload<'static>], exchange: ChildExchange) -> Option<SaPayload> {
    let offer = request.iter().find_map(sa)?;
    let sent = request.iter().find_map(|payload| match payload {
        Payload::Ke(ke) => Some(ke.method),
        _ => None,
    });
    let choice = proposal::select_esp(&esp_proposals(), offer, exchange, sent).ok()?;
    Some(choice.answer(PEER_SPI))
}

pub(super) fn create_response(request: &[Payload<'static>]) -> Chain {
    let mut payloads = Vec::new();
    let for_ike = request.iter().find_map(sa).is_some_and(|offer| {
        (offer.proposals.iter()).any(|p| matches!(p.spi, ProposalSpi::Ike(_)))
    });
    if for_ike {
        let ours = ike_proposals();
        let offer = request.iter().find_map(sa);
        let choice = offer.and_then(|offer| proposal::select_ike(&[&ours], offer, None).ok());
        if let Some(choice) = choice {
            payloads.push(choice.answer(ProposalSpi::Ike(NEXT_IKE_SPI)).into());
        }
        payloads.extend([own_nonce(), own_ke()]);
        return chain(payloads);
    }
    if let Some(answer) = esp_answer(request, ChildExchange::CreateChildSa) {
        payloads.push(answer.into());
    }
    payloads.push(own_nonce());
    if request.iter().any(|p| matches!(p, Payload::Ke(_))) {
        payloads.push(own_ke());
    }
    payloads.extend(selectors_of(request));
    chain(payloads)
}

/// CREATE_CHILD_SA of the peer: a new child, or one that replaces the endpoint's first.
pub(super) fn create_request(rekeyed: Option<u32>, (theirs, ours): (u8, u8), spi: u32) -> Chain {
    let mut payloads = Vec::new();
    if let Some(spi) = rekeyed {
        let spi = ChildSpi(spi);
        payloads.push(NotifyPayload::about_esp(NotifyType::REKEY_SA, spi).into());
    }
    let offer = proposal::offer_esp(&esp_proposals(), spi, ChildExchange::CreateChildSa);
    payloads.extend([
        offer.into(),
        own_nonce(),
        own_ke(),
        tsi(vec![subnet(theirs)]),
        tsr(vec![subnet(ours)]),
    ]);
    chain(payloads)
}

pub(super) fn rekey_ike_request() -> Chain {
    let offer = proposal::offer_ike(&ike_proposals(), ProposalSpi::Ike(NEXT_IKE_SPI));
    chain(vec![offer.into(), own_nonce(), own_ke()])
}

/// One payload of each type, as they may all come in one message.
pub(super) fn zoo() -> Vec<Payload<'static>> {
    let attributes = vec![
        CfgAttribute::Ip4Address(None),
        CfgAttribute::Ip4Netmask(Some(Ipv4Addr::new(255, 255, 255, 0))),
        CfgAttribute::Ip4Subnet(Some((
            Ipv4Addr::new(10, 0, 0, 0),
            Ipv4Addr::new(255, 0, 0, 0),
        ))),
        CfgAttribute::Ip6Address(None),
        CfgAttribute::Ip6Subnet(Some(("fd00::".parse().expect("an address"), 8))),
        CfgAttribute::ApplicationVersion(b"zoo"[..].into()),
        CfgAttribute::DnsDomain(b"example"[..].into()),
        CfgAttribute::SupportedAttributes(Vec::new()),
    ];
    vec![
        proposal::offer_ike(&proposal::default_ike(), ProposalSpi::None).into(),
        proposal::offer_esp(
            &proposal::default_esp(true),
            PEER_SPI,
            ChildExchange::CreateChildSa,
        )
        .into(),
        own_ke(),
        own_nonce(),
        Payload::Idi(IdPayload::new(peer_identity())),
        Payload::Idr(IdPayload::new(Identification::address(
            [192, 0, 2, 1].into(),
        ))),
        CertPayload::x509(CERTIFICATE).into(),
        CertReqPayload::x509(&[[3; 20], [4; 20]]).into(),
        empty_auth(),
        NotifyPayload::with_data(NotifyType::COOKIE, vec![9; 20]).into(),
        cygnet_ike::auth::announce_hashes().into(),
        NotifyPayload::about_esp(NotifyType::REKEY_SA, ChildSpi(PEER_SPI)).into(),
        DeletePayload::IkeSa.into(),
        DeletePayload::esp(ChildSpi(PEER_SPI)).into(),
        VendorPayload::new(&b"a vendor"[..]).into(),
        tsi(vec![subnet(2), TrafficSelector::any_v6()]),
        tsr(vec![subnet(1), TrafficSelector::any_v4()]),
        CpPayload::new(CfgType::CFG_REQUEST, attributes).into(),
        EapPayload::new(EapCode::REQUEST, 1, EapType::IDENTITY, &b"who"[..]).into(),
        Payload::Unknown {
            ty: PayloadType::GSPM,
            critical: false,
            body: b"unknown"[..].into(),
        },
    ]
}

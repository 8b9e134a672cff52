//! Inputs to begin with: valid conversations of every kind, written down as the targets read them.
//! `cargo run --bin generate` puts them into `corpus/`.

use std::net::Ipv4Addr;

use cygnet_ike::proposal::{self, ChildExchange};
use cygnet_wire::cert::{CertPayload, CertReqPayload};
use cygnet_wire::cp::{CfgAttribute, CfgType, CpPayload};
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::eap::{EapCode, EapPayload, EapType};
use cygnet_wire::header::{ChildSpi, ExchangeType, Spi};
use cygnet_wire::id::{IdPayload, Identification};
use cygnet_wire::ip::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader, checksum, protocol};
use cygnet_wire::ke::KePayload;
use cygnet_wire::message::Message;
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::{Chain, ChainBuilder, Payload, PayloadType};
use cygnet_wire::sa::{ProposalSpi, SaPayload, TransformId};
use cygnet_wire::ts::{TrafficSelector, TsPayload};
use cygnet_wire::vendor::VendorPayload;

use crate::endpoint::{command, how, kind};
use crate::peer::{
    CERTIFICATE, FIRST_SPI, NONCE, PEER_SPI, Peer, Setup, esp_proposals, ike_proposals,
    peer_identity, sa, share, subnet,
};

/// A target's name, the input's name, the input.
pub type Seed = (&'static str, String, Vec<u8>);

/// What the peer calls the IKE SA it makes by rekeying.
const NEXT_IKE_SPI: Spi = Spi(0x7065_6572_0000_0002);

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    wire(&mut seeds);
    init(&mut seeds);
    authentication(&mut seeds);
    established(&mut seeds);
    esp(&mut seeds);
    packets(&mut seeds);
    configurations(&mut seeds);
    crate::chain::seeds(&mut seeds);
    crate::ipc::seeds(&mut seeds);
    crate::eap::seeds(&mut seeds);
    seeds
}

/// IKE_AUTH as it should be, so that both are established afterwards.
pub(crate) fn authenticate(peer: &mut Peer) {
    match peer.requests.front() {
        Some(request) => {
            let chain = auth_response(&request.payloads, false);
            let chain = peer.prove(chain);
            peer.respond(&chain, false);
        }
        None => {
            let chain = peer.prove(auth_request(false, &[]));
            peer.request(false, ExchangeType::IKE_AUTH, &chain, false);
        }
    }
}

/// Plays a script against a peer and writes it down.
struct Recorder {
    peer: Peer,
    bytes: Vec<u8>,
}

impl Recorder {
    fn new(setup: u8) -> Self {
        let mut peer = Peer::new(Setup::of(setup));
        peer.shake_hands();
        Self {
            peer,
            bytes: vec![setup],
        }
    }

    fn established(setup: u8) -> Self {
        let mut recorder = Self::new(setup);
        authenticate(&mut recorder.peer);
        recorder
    }

    fn request(mut self, op: u8, exchange: ExchangeType, chain: &Chain) -> Self {
        self.bytes.extend([kind::REQUEST | op, exchange.0]);
        self.chain(chain);
        let chain = self.finished(op, chain);
        let (newest, cut) = (op & how::NEWEST != 0, op & how::CUT != 0);
        self.peer.request(newest, exchange, &chain, cut);
        self
    }

    fn respond(mut self, op: u8, chain: &Chain) -> Self {
        self.bytes.push(kind::RESPONSE | op);
        self.chain(chain);
        let chain = self.finished(op, chain);
        self.peer.respond(&chain, op & how::CUT != 0);
        self
    }

    /// Answers the endpoint's oldest request as it would like it.
    fn oblige(self) -> Self {
        let Some(request) = self.peer.requests.front() else {
            return self;
        };
        let chain = match request.exchange {
            ExchangeType::IKE_AUTH => auth_response(&request.payloads, false),
            ExchangeType::CREATE_CHILD_SA => create_response(&request.payloads),
            _ => {
                let deletes = request.payloads.iter().filter_map(|payload| match payload {
                    Payload::Delete(DeletePayload::ChildSas { .. }) => {
                        Some(DeletePayload::esp(ChildSpi(PEER_SPI)).into())
                    }
                    _ => None,
                });
                chain(deletes.collect())
            }
        };
        let op = match request.exchange {
            ExchangeType::IKE_AUTH => how::PROVEN,
            _ => 0,
        };
        self.respond(op, &chain)
    }

    fn command(mut self, number: u8) -> Self {
        self.bytes.extend([kind::COMMAND, number]);
        self.peer.command(command(number));
        self
    }

    fn step(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn finished(&self, op: u8, chain: &Chain) -> Chain {
        if op & how::PROVEN != 0 {
            self.peer.prove(chain.clone())
        } else {
            chain.clone()
        }
    }

    fn chain(&mut self, chain: &Chain) {
        self.bytes.push(chain.first.0);
        self.bytes.extend(counted(&chain.bytes));
    }
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

fn chain(payloads: Vec<Payload<'static>>) -> Chain {
    let mut builder = ChainBuilder::new();
    for payload in payloads {
        builder.push(payload);
    }
    builder.finish().expect("small payloads")
}

fn notify(ty: NotifyType) -> Payload<'static> {
    NotifyPayload::new(ty).into()
}

fn tsi(selectors: Vec<TrafficSelector>) -> Payload<'static> {
    Payload::Tsi(TsPayload::new(selectors))
}

fn tsr(selectors: Vec<TrafficSelector>) -> Payload<'static> {
    Payload::Tsr(TsPayload::new(selectors))
}

fn own_ke() -> Payload<'static> {
    let group = cygnet_crypto::suite::Group::Curve25519.to_wire();
    KePayload::new(TransformId(group), share().public().to_vec()).into()
}

fn own_nonce() -> Payload<'static> {
    NoncePayload::new(&NONCE[..]).into()
}

/// The peer's side is subnet 2, the endpoint's subnet 1.
fn auth_request(certificate: bool, more: &[Payload<'static>]) -> Chain {
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

/// To be filled in by `PROVEN`.
fn empty_auth() -> Payload<'static> {
    cygnet_wire::auth::AuthPayload::new(cygnet_wire::auth::AuthMethod::SHARED_KEY_MIC, vec![0; 32])
        .into()
}

fn auth_response(request: &[Payload<'static>], lease: bool) -> Chain {
    let mut payloads = vec![Payload::Idr(IdPayload::new(peer_identity())), empty_auth()];
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

fn create_response(request: &[Payload<'static>]) -> Chain {
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
fn create_request(rekeyed: Option<u32>, (theirs, ours): (u8, u8), spi: u32) -> Chain {
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

fn rekey_ike_request() -> Chain {
    let offer = proposal::offer_ike(&ike_proposals(), ProposalSpi::Ike(NEXT_IKE_SPI));
    chain(vec![offer.into(), own_nonce(), own_ke()])
}

/// One payload of each type, as they may all come in one message.
fn zoo() -> Vec<Payload<'static>> {
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

fn wire(seeds: &mut Vec<Seed>) {
    let peer = Peer::new(Setup::of(0));
    let call = peer.call_message(None);
    seeds.push(("wire_message", "call".into(), call.clone()));
    seeds.push((
        "wire_message",
        "cookie".into(),
        peer.call_message(Some(&[7; 40])),
    ));
    let calling = Peer::new(Setup::of(1));
    if let Some(call) = calling.inbox.front() {
        seeds.push(("wire_message", "call_of_endpoint".into(), call.clone()));
    }
    let mut up = Recorder::established(0).peer;
    for (number, datagram) in up.inbox.drain(..).enumerate() {
        seeds.push(("wire_message", format!("answer{number}"), datagram));
    }
    let zoo = zoo();
    let header = Message::parse(&call).expect("our own message").header;
    for payload in &zoo {
        let chain = chain(vec![payload.clone()]);
        let name = format!("{:?}", payload.ty()).to_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let bytes = [&[chain.first.0][..], &chain.bytes].concat();
        seeds.push(("wire_chain", format!("{name}{}", seeds.len()), bytes));
    }
    let all = chain(zoo);
    let bytes = [&[all.first.0][..], &all.bytes].concat();
    seeds.push(("wire_chain", "zoo".into(), bytes));
    let len = u32::try_from(28 + all.bytes.len()).expect("a small message");
    let bytes = [&header.emit(all.first, len)[..], &all.bytes].concat();
    seeds.push(("wire_message", "zoo".into(), bytes));
    seeds.push(("wire_chain", "empty".into(), vec![0]));
}

fn init(seeds: &mut Vec<Seed>) {
    let script = |setup: u8, how: u8, datagrams: &[&[u8]]| {
        let mut bytes = vec![setup];
        for datagram in datagrams {
            bytes.push(how);
            bytes.extend(counted(datagram));
        }
        bytes
    };
    let peer = Peer::new(Setup::of(0));
    let call = peer.call_message(None);
    seeds.push(("endpoint_init", "call".into(), script(0, 0, &[&call])));
    seeds.push((
        "endpoint_init",
        "call_twice".into(),
        script(0, 0, &[&call, &call]),
    ));
    let mut asked = Peer::new(Setup::of(4));
    asked.deliver(&call);
    let cookie = asked.inbox.pop_front().and_then(|answer| {
        let message = Message::parse(&answer).ok()?;
        let payloads = message.parse_payloads().ok()?;
        payloads.into_iter().find_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify.data.to_vec()),
            _ => None,
        })
    });
    let again = peer.call_message(cookie.as_deref());
    seeds.push((
        "endpoint_init",
        "cookie".into(),
        script(4, 0, &[&call, &again]),
    ));
    // Answers to the endpoint's call.
    let mut called = Peer::new(Setup::of(1));
    let request = called.inbox.front().cloned().unwrap_or_default();
    called.shake_hands();
    let header = Message::parse(&request).expect("our own message").header;
    let respond = |payloads: Vec<Payload<'static>>| {
        let chain = chain(payloads);
        let header = cygnet_wire::header::IkeHeader {
            responder_spi: NEXT_IKE_SPI,
            flags: cygnet_wire::header::Flags::new(false, true),
            ..header
        };
        let len = u32::try_from(28 + chain.bytes.len()).expect("a small message");
        [&header.emit(chain.first, len)[..], &chain.bytes].concat()
    };
    let refusals = [
        ("no_proposal", notify(NotifyType::NO_PROPOSAL_CHOSEN)),
        (
            "other_group",
            NotifyPayload::invalid_ke(TransformId(19)).into(),
        ),
        (
            "cookie",
            NotifyPayload::with_data(NotifyType::COOKIE, vec![5; 30]).into(),
        ),
        ("syntax", notify(NotifyType::INVALID_SYNTAX)),
    ];
    for (name, refusal) in refusals {
        let bytes = script(1, 3, &[&respond(vec![refusal])]);
        seeds.push(("endpoint_init", format!("answer_{name}"), bytes));
    }
    let ours = ike_proposals();
    let offer = Message::parse(&request)
        .expect("our own message")
        .parse_payloads();
    let offer = offer.expect("our own payloads");
    let choice = offer
        .iter()
        .find_map(sa)
        .map(|offer| proposal::select_ike(&[&ours], offer, None));
    if let Some(Ok(choice)) = choice {
        let answer = respond(vec![
            choice.answer(ProposalSpi::None).into(),
            own_ke(),
            own_nonce(),
            notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            cygnet_ike::auth::announce_hashes().into(),
            CertReqPayload::x509(&[[3; 20]]).into(),
        ]);
        seeds.push(("endpoint_init", "answer".into(), script(1, 1, &[&answer])));
    }
    seeds.push((
        "endpoint_init",
        "zoo".into(),
        script(1, 1, &[&respond(zoo())]),
    ));
}

fn authentication(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, recorder: Recorder| {
        seeds.push(("endpoint_auth", name.to_owned(), recorder.bytes));
    };
    let auth = ExchangeType::IKE_AUTH;
    let proven = how::PROVEN;
    let request = CpPayload::new(
        CfgType::CFG_REQUEST,
        vec![CfgAttribute::Ip4Address(None), CfgAttribute::Ip4Dns(None)],
    );
    add(
        "psk",
        Recorder::new(0).request(proven, auth, &auth_request(false, &[])),
    );
    add(
        "psk_cookie",
        Recorder::new(4).request(proven, auth, &auth_request(false, &[])),
    );
    add(
        "psk_unproven",
        Recorder::new(0).request(0, auth, &auth_request(false, &[])),
    );
    add(
        "psk_in_fragments",
        Recorder::new(0).request(proven | how::CUT, auth, &auth_request(false, &[])),
    );
    add(
        "psk_with_address",
        Recorder::new(0).request(proven, auth, &auth_request(false, &[request.into()])),
    );
    add(
        "psk_initial_contact",
        Recorder::new(0).request(
            proven,
            auth,
            &auth_request(
                false,
                &[
                    notify(NotifyType::INITIAL_CONTACT),
                    notify(NotifyType::MOBIKE_SUPPORTED),
                ],
            ),
        ),
    );
    add(
        "certificate",
        Recorder::new(2).request(proven, auth, &auth_request(true, &[])),
    );
    add("zoo", Recorder::new(0).request(proven, auth, &chain(zoo())));
    add(
        "childless",
        Recorder::new(0).request(
            proven,
            auth,
            &chain(vec![
                Payload::Idi(IdPayload::new(peer_identity())),
                empty_auth(),
            ]),
        ),
    );
    add(
        "eap",
        Recorder::new(0).request(
            0,
            auth,
            &chain(vec![Payload::Idi(IdPayload::new(peer_identity()))]),
        ),
    );
    let called = Recorder::new(1);
    let payloads = called
        .peer
        .requests
        .front()
        .map(|r| r.payloads.clone())
        .unwrap_or_default();
    let answer = auth_response(&payloads, false);
    add("called_psk", Recorder::new(1).respond(proven, &answer));
    add("called_unproven", Recorder::new(1).respond(0, &answer));
    add(
        "called_in_fragments",
        Recorder::new(1).respond(proven | how::CUT, &answer),
    );
    add(
        "called_with_address",
        Recorder::new(1).respond(proven, &auth_response(&payloads, true)),
    );
    add(
        "called_zoo",
        Recorder::new(1).respond(proven, &chain(zoo())),
    );
    for refusal in [
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::TS_UNACCEPTABLE,
        NotifyType::INTERNAL_ADDRESS_FAILURE,
        NotifyType::FAILED_CP_REQUIRED,
    ] {
        let name = format!("called_refused_{}", refusal.0);
        add(
            &name,
            Recorder::new(1).respond(0, &chain(vec![notify(refusal)])),
        );
        let payloads = vec![
            Payload::Idr(IdPayload::new(peer_identity())),
            empty_auth(),
            notify(refusal),
        ];
        let name = format!("called_childless_{}", refusal.0);
        add(&name, Recorder::new(1).respond(proven, &chain(payloads)));
    }
}

fn established(seeds: &mut Vec<Seed>) {
    let mut add = |name: String, recorder: Recorder| {
        seeds.push(("endpoint_established", name, recorder.bytes));
    };
    let create = ExchangeType::CREATE_CHILD_SA;
    let inform = ExchangeType::INFORMATIONAL;
    let delete = |spi| chain(vec![DeletePayload::esp(ChildSpi(spi)).into()]);
    let delete_ike = chain(vec![DeletePayload::IkeSa.into()]);
    for setup in [0, 1] {
        let new = || Recorder::established(setup);
        let up = |name: &str| format!("{}_{name}", if setup == 0 { "called" } else { "caller" });
        let second = create_request(None, (4, 3), PEER_SPI + 1);
        let rekey = create_request(Some(PEER_SPI), (2, 1), PEER_SPI + 2);
        add(up("probe"), new().request(0, inform, &chain(Vec::new())));
        add(up("create"), new().request(0, create, &second));
        add(
            up("create_in_fragments"),
            new().request(how::CUT, create, &second),
        );
        add(
            up("rekey_child"),
            new()
                .request(0, create, &rekey)
                .request(0, inform, &delete(PEER_SPI)),
        );
        add(
            up("rekey_ike"),
            new()
                .request(0, create, &rekey_ike_request())
                .request(0, inform, &delete_ike)
                .request(how::NEWEST, create, &rekey),
        );
        add(
            up("delete_child"),
            new().request(0, inform, &delete(PEER_SPI)),
        );
        add(up("delete_ike"), new().request(0, inform, &delete_ike));
        add(up("zoo"), new().request(0, inform, &chain(zoo())));
        add(up("zoo_create"), new().request(0, create, &chain(zoo())));
        for (number, word) in [0x00, 0x01, 0x02, 0x13, 0x23, 0x04, 0x06, 0x07]
            .into_iter()
            .enumerate()
        {
            let name = up(&format!("command{number}"));
            add(name, new().command(word).oblige().oblige().oblige());
        }
        add(
            up("both_rekey_child"),
            new()
                .command(0)
                .request(0, create, &rekey)
                .oblige()
                .oblige(),
        );
        add(
            up("both_rekey_ike"),
            new()
                .command(1)
                .request(0, create, &rekey_ike_request())
                .oblige()
                .oblige(),
        );
        add(
            up("both_delete"),
            new()
                .command(0x04)
                .request(0, inform, &delete(PEER_SPI))
                .oblige(),
        );
        add(
            up("rekey_then_delete_ike"),
            new().command(0).request(0, inform, &delete_ike).oblige(),
        );
        for refusal in [
            NotifyType::TEMPORARY_FAILURE,
            NotifyType::CHILD_SA_NOT_FOUND,
            NotifyType::NO_PROPOSAL_CHOSEN,
            NotifyType::NO_ADDITIONAL_SAS,
            NotifyType::TS_UNACCEPTABLE,
            NotifyType::INVALID_SYNTAX,
        ] {
            let refused = chain(vec![notify(refusal)]);
            let name = up(&format!("refused_{}", refusal.0));
            add(
                name,
                new().command(0).respond(0, &refused).step(&[kind::TIME, 8]),
            );
            let name = up(&format!("ike_refused_{}", refusal.0));
            add(
                name,
                new().command(1).respond(0, &refused).step(&[kind::TIME, 8]),
            );
        }
        let group = chain(vec![NotifyPayload::invalid_ke(TransformId(19)).into()]);
        add(
            up("other_group"),
            new().command(0).respond(0, &group).oblige(),
        );
        for event in 0..9 {
            let name = up(&format!("data{event}"));
            add(name, new().step(&[kind::DATA, event, 1, kind::TIME, 6]));
        }
        let stray = [&[kind::RAW][..], &counted(&[0; 28])].concat();
        add(up("stray"), new().step(&stray));
        add(up("silence"), new().step(&[kind::TIME, 10, kind::TIME, 12]));
        add(
            up("slow_answers"),
            new()
                .step(&[kind::ANSWERS, 0])
                .request(0, create, &second)
                .step(&[kind::REPEAT, 0, kind::ANSWERS, 2, kind::ANSWERS, 1]),
        );
        add(
            up("refused_answers"),
            new()
                .step(&[kind::ANSWERS, 0])
                .request(0, create, &second)
                .step(&[kind::ANSWERS, 3]),
        );
        let names = chain(vec![
            NotifyPayload::about_esp(NotifyType::CHILD_SA_NOT_FOUND, ChildSpi(FIRST_SPI)).into(),
            notify(NotifyType::INVALID_SPI),
            notify(NotifyType::UPDATE_SA_ADDRESSES),
            NotifyPayload::with_data(NotifyType::COOKIE2, vec![1; 16]).into(),
            notify(NotifyType::AUTH_LIFETIME),
        ]);
        add(up("notifies"), new().request(0, inform, &names));
    }
}

fn esp(seeds: &mut Vec<Seed>) {
    for suite in 0..8u8 {
        let mut bytes = vec![suite];
        for packet in [udp(b"hello"), tcp(b"hello"), v6(b"hello")] {
            let next = if packet.first().is_some_and(|b| b >> 4 == 6) {
                41
            } else {
                4
            };
            let pad = (16 - (packet.len() + 2) % 16) % 16;
            let padding: Vec<u8> = (1..=pad as u8).collect();
            let plain = [&packet[..], &padding, &[pad as u8, next]].concat();
            bytes.push(0x11);
            bytes.extend(counted(&plain));
        }
        // A dummy, a replay, and nothing of ours.
        bytes.extend([0x11, 0, 4, 1, 2, 2, 59]);
        bytes.extend([0x01, 0, 4, 1, 2, 2, 59]);
        bytes.push(0);
        bytes.extend(counted(&[
            0x10, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8,
        ]));
        seeds.push(("esp_open", format!("suite{suite}"), bytes));
    }
}

fn packets(seeds: &mut Vec<Seed>) {
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

fn udp(payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let header = UdpHeader {
        src_port: 4000,
        dst_port: 53,
        len: len as u16,
        checksum: 0,
    };
    v4(protocol::UDP, [&header.emit()[..], payload].concat())
}

fn tcp(payload: &[u8]) -> Vec<u8> {
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

fn v6(payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let udp = UdpHeader {
        src_port: 4000,
        dst_port: 53,
        len: len as u16,
        checksum: 0,
    };
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: len as u16,
        next_header: protocol::UDP,
        hop_limit: 64,
        src: "fd00:2::1".parse().expect("an address"),
        dst: "fd00:1::1".parse().expect("an address"),
    };
    [&header.emit()[..], &udp.emit(), payload].concat()
}

fn configurations(seeds: &mut Vec<Seed>) {
    let texts = [
        ("office", OFFICE),
        ("client", CLIENT),
        ("server", SERVER),
        ("mistakes", MISTAKES),
        ("children", CHILDREN),
    ];
    for (name, text) in texts {
        seeds.push(("config", name.to_owned(), text.as_bytes().to_vec()));
    }
}

const OFFICE: &str = r#"[tunnel.office]
remote = "203.0.113.7"
psk = "office.psk"
local_networks = ["10.1.0.0/24", "10.1.1.0/24"]
remote_networks = ["10.2.0.0/24"]
"#;

const CLIENT: &str = r#"[daemon]
log = "debug"
ike_port = 500
natt_port = 4500

[tunnel.home]
remote = ["vpn.example.org", "198.51.100.1"]
identity = "me@example.org"
psk = "home.psk"
virtual_address = true
mtu = 1400

[gateway]
tunnel = "home"
lan = "eth0"
guard = true
"#;

const SERVER: &str = r#"[server]
identity = "vpn.example.org"
psk = "server.psk"
pools = ["10.99.0.0/24", "fd00:99::/64"]
dns = ["10.99.0.1"]
networks = ["0.0.0.0/0", "::/0"]
"#;

const MISTAKES: &str = r#"[tunnel.office]
remote = "203.0.113.300"
psk = "k"
remote_networks = ["10.2.0.7/24"]
child_lifetime = "1 hour"
ike = ["aes128gcm16-prfsha256-modp1024"]
unknown = true
"#;

const CHILDREN: &str = r#"[tunnel.office]
remote = "any"
remote_identity = "b.example.org"
psk = "k"
child_lifetime = "10m"
ike = ["aes256gcm16-prfsha512-ecp384", "aes128-sha256-modp2048"]
esp = ["aes128gcm16-x25519", "aes256-sha256"]
[tunnel.office.child.one]
remote_networks = ["10.2.0.0/24"]
[tunnel.office.child.two]
remote_networks = ["10.3.0.0/24"]
child_lifetime = "20m"
"#;

//! A peer that has all the keys and does as the test says, at the place of B. The endpoint under
//! test is A.

#![allow(unreachable_pub, reason = "a module of tests")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::suite::{Encryption, Group, IkeSuite, Prf};
use cygnet_ike::auth;
use cygnet_ike::keys::{Exchanged, IkeKeys, Role};
use cygnet_ike::policy::{Connection, Remote, Start};
use cygnet_ike::proposal::{self, ChildExchange, EspProposal, IkeProposal};
use cygnet_ike::protect;
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use cygnet_wire::id::IdPayload;
use cygnet_wire::ke::KePayload;
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::{Chain, ChainBuilder, Payload, PayloadType};
use cygnet_wire::sa::{ProposalSpi, SaPayload, TransformId};
use cygnet_wire::ts::{TrafficSelector, TsPayload};

use crate::common::*;

const SUITE: IkeSuite = IkeSuite {
    encryption: Encryption::AesGcm16_128,
    integrity: None,
    prf: Prf::HmacSha2_256,
    group: Group::Curve25519,
};
const SPI: Spi = Spi(0x7065_6572_0000_0001);
const NONCE: [u8; 32] = [0xa5; 32];

/// A payload of a type that nobody knows, and that must be understood.
pub const CRITICAL: PayloadType = PayloadType(200);

pub fn critical() -> Payload<'static> {
    Payload::Unknown {
        ty: CRITICAL,
        critical: true,
        body: b"must be understood"[..].into(),
    }
}

/// A KE payload too short for its own fields.
pub fn malformed() -> Chain {
    Chain {
        first: PayloadType::KE,
        bytes: vec![0, 0, 0, 6, 0, 31],
    }
}

/// A request of the endpoint.
pub struct Request {
    pub exchange: ExchangeType,
    id: MessageId,
    pub payloads: Vec<Payload<'static>>,
}

impl Request {
    pub fn sa(&self) -> &SaPayload {
        self.payloads.iter().find_map(sa).expect("an SA payload")
    }

    pub fn deletes_ike_sa(&self) -> bool {
        let end = |payload: &Payload<'_>| matches!(payload, Payload::Delete(DeletePayload::IkeSa));
        self.payloads.iter().any(end)
    }

    pub fn notify(&self, ty: NotifyType) -> Option<&NotifyPayload<'static>> {
        notifies(&self.payloads).find(|notify| notify.ty == ty)
    }
}

pub struct Peer {
    pub world: World,
    /// Where it sends from.
    pub at: IpAddr,
    pub port: u16,
    inbox: Rc<RefCell<VecDeque<Vec<u8>>>>,
    random: TestRandom,
    role: Role,
    keys: Option<IkeKeys>,
    spi_i: Spi,
    spi_r: Spi,
    next_id: u32,
    /// For AUTH: the peer's IKE_SA_INIT message, and the endpoint's nonce.
    init: Vec<u8>,
    other_nonce: Vec<u8>,
}

/// What the peer uses of one IKE SA.
struct InUse {
    role: Role,
    keys: Option<IkeKeys>,
    spi_i: Spi,
    spi_r: Spi,
    next_id: u32,
}

/// Of A: as the peer knows it.
pub fn known(start: Start) -> Connection {
    let mut connection = connection(A);
    connection.ike_proposals = ike_proposals();
    connection.children = ["one", "two", "three"]
        .map(|name| {
            let start = if name == "one" { start } else { Start::Manual };
            let mut child = child(A, name, start);
            child.esp_proposals = esp_proposals();
            child.into()
        })
        .to_vec();
    connection
}

fn ike_proposals() -> Vec<IkeProposal> {
    vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()]
}

fn esp_proposals() -> Vec<EspProposal> {
    vec!["aes128gcm16".parse().unwrap()]
}

fn share() -> Ephemeral {
    Ephemeral::generate(Group::Curve25519, &mut TestRandom::new(7))
}

fn key_exchange() -> Payload<'static> {
    let group = TransformId(Group::Curve25519.to_wire());
    KePayload::new(group, share().public().to_vec()).into()
}

impl Peer {
    fn new(role: Role) -> Self {
        let nothing = cygnet_ike::policy::Policy::default;
        let mut world = World::new(nothing(), nothing());
        let inbox = Rc::new(RefCell::new(VecDeque::new()));
        let tap = Rc::clone(&inbox);
        // B itself hears nothing.
        world.fate = Box::new(move |flight| match flight.to {
            A => Fate::Deliver,
            B => {
                tap.borrow_mut().push_back(flight.datagram.clone());
                Fate::Drop
            }
        });
        Self {
            world,
            at: B.address(),
            port: 500,
            inbox,
            random: TestRandom::new(9),
            role,
            keys: None,
            spi_i: SPI,
            spi_r: Spi::ZERO,
            next_id: 0,
            init: Vec::new(),
            other_nonce: Vec::new(),
        }
    }

    /// One that calls an endpoint which waits for it.
    pub fn caller(mut connection: Connection) -> Self {
        connection.remote = Remote::Any;
        let mut peer = Self::new(Role::Initiator);
        peer.world.policy(A, policy(connection));
        peer
    }

    /// One that the endpoint calls.
    pub fn called(connection: Connection) -> Self {
        let mut peer = Self::new(Role::Responder);
        peer.world.policy(A, policy(connection));
        peer
    }

    /// Both ends established, with the child "one".
    pub fn established() -> Self {
        let mut peer = Self::caller(known(Start::Manual));
        peer.call(Vec::new());
        let response = peer.authenticate(Vec::new());
        assert!(response.iter().any(|p| sa(p).is_some()), "{response:?}");
        assert_eq!(peer.children(), ["one"]);
        peer
    }

    /// The same when the endpoint called.
    pub fn established_by_endpoint() -> Self {
        let mut peer = Self::called(known(Start::Always));
        peer.answer_call(Vec::new());
        peer.answer_auth(Vec::new());
        assert_eq!(peer.children(), ["one"]);
        peer
    }

    /// The names of the endpoint's children that are up, sorted.
    pub fn children(&self) -> Vec<String> {
        let now = self.world.now;
        let mut names: Vec<_> = (self.world.a.child_sas(now).into_iter())
            .filter(|child| child.installed)
            .map(|child| child.name)
            .collect();
        names.sort();
        names
    }

    pub fn is_up(&self) -> bool {
        let now = self.world.now;
        !self.world.a.established(now).is_empty()
    }

    fn deliver(&mut self, datagram: Vec<u8>) {
        let (here, there) = ((A.address(), 500), (self.at, self.port));
        let flight = Flight {
            to: A,
            path: path(here.into(), there.into()),
            datagram,
        };
        let now = self.world.now;
        self.world.fly(now, flight);
        self.world.run(Duration::from_millis(1));
    }

    fn receive(&mut self) -> Vec<u8> {
        let datagram = self.inbox.borrow_mut().pop_front();
        datagram.unwrap_or_else(|| panic!("nothing came:\n{}", self.world.tail()))
    }

    /// Nothing has come from the endpoint.
    #[track_caller]
    pub fn assert_silence(&self) {
        let left = self.inbox.borrow().len();
        assert_eq!(left, 0, "{}", self.world.tail());
    }

    fn header(&self, exchange: ExchangeType, id: MessageId, response: bool) -> IkeHeader {
        IkeHeader {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            version: Version::V2_0,
            exchange,
            flags: Flags::new(self.role == Role::Initiator, response),
            message_id: id,
        }
    }

    fn init_payloads(sa: SaPayload) -> Vec<Payload<'static>> {
        vec![
            sa.into(),
            key_exchange(),
            NoncePayload::new(&NONCE[..]).into(),
        ]
    }

    /// IKE_SA_INIT with `more` in it; the payloads of the answer.
    pub fn call(&mut self, more: Vec<Payload<'static>>) -> Vec<Payload<'static>> {
        self.call_with(
            proposal::offer_ike(&ike_proposals(), ProposalSpi::None),
            more,
        )
    }

    /// The same with another offer.
    pub fn call_with(
        &mut self,
        offer: SaPayload,
        more: Vec<Payload<'static>>,
    ) -> Vec<Payload<'static>> {
        let header = self.header(ExchangeType::IKE_SA_INIT, MessageId::ZERO, false);
        let mut message = MessageBuilder::new(header);
        for payload in Self::init_payloads(offer).into_iter().chain(more) {
            message.push(payload);
        }
        self.init = message.finish().unwrap();
        self.deliver(self.init.clone());
        self.next_id = 1;
        let answer = self.receive();
        let message = Message::parse(&answer).unwrap();
        let payloads = owned(message.parse_payloads().unwrap());
        self.spi_r = message.header.responder_spi;
        if payloads.iter().any(|payload| sa(payload).is_some()) {
            self.agree(&payloads);
        }
        payloads
    }

    /// Answers the endpoint's IKE_SA_INIT, with `more` in it.
    pub fn answer_call(&mut self, more: Vec<Payload<'static>>) {
        let request = self.receive();
        let message = Message::parse(&request).unwrap();
        let payloads = owned(message.parse_payloads().unwrap());
        (self.spi_i, self.spi_r) = (message.header.initiator_spi, SPI);
        let offer = payloads.iter().find_map(sa).unwrap();
        let sent = Some(TransformId(Group::Curve25519.to_wire()));
        let choice = proposal::select_ike(&[&ike_proposals()], offer, sent).unwrap();
        let header = self.header(ExchangeType::IKE_SA_INIT, MessageId::ZERO, true);
        let mut message = MessageBuilder::new(header);
        let answer = choice.answer(ProposalSpi::None);
        for payload in Self::init_payloads(answer).into_iter().chain(more) {
            message.push(payload);
        }
        self.init = message.finish().unwrap();
        self.agree(&payloads);
        self.deliver(self.init.clone());
    }

    fn agree(&mut self, theirs: &[Payload<'static>]) {
        let nonce = theirs.iter().find_map(nonce).unwrap().to_vec();
        let shared = share().agree(theirs.iter().find_map(ke).unwrap()).unwrap();
        let (nonce_i, nonce_r) = match self.role {
            Role::Initiator => (NONCE.to_vec(), nonce.clone()),
            Role::Responder => (nonce.clone(), NONCE.to_vec()),
        };
        let exchanged = Exchanged {
            nonce_i,
            nonce_r,
            spi_i: self.spi_i,
            spi_r: self.spi_r,
        };
        self.other_nonce = nonce;
        let keys = IkeKeys::initial(SUITE, self.role, &exchanged, &shared);
        self.keys = Some(keys.unwrap());
    }

    /// Who the peer is, with a proof that holds.
    fn proof(&self) -> Vec<Payload<'static>> {
        let id = IdPayload::new(identity(B));
        let sk_p = self.keys.as_ref().unwrap().sk_p(self.role);
        let octets = auth::signed_octets(SUITE.prf, &self.init, &self.other_nonce, sk_p, &id);
        let mac = psk_auth(SUITE.prf, &self.world.a.psk, &octets);
        let id = match self.role {
            Role::Initiator => Payload::Idi(id),
            Role::Responder => Payload::Idr(id),
        };
        vec![id, auth::mac_payload(&mac).into()]
    }

    /// IKE_AUTH for the child "one", with `more` in it; the payloads of the answer.
    pub fn authenticate(&mut self, more: Vec<Payload<'static>>) -> Vec<Payload<'static>> {
        let mut payloads = self.proof();
        payloads.extend(self.offer("one", 0x2000_0001, ChildExchange::IkeAuth));
        payloads.extend(more);
        self.request(ExchangeType::IKE_AUTH, payloads)
    }

    /// IKE_AUTH for a child between these (TSi, TSr), with `more` in it; the payloads of the answer.
    pub fn authenticate_for(
        &mut self,
        sides: (Vec<TrafficSelector>, Vec<TrafficSelector>),
        more: Vec<Payload<'static>>,
    ) -> Vec<Payload<'static>> {
        let mut payloads = self.proof();
        payloads.extend(offer_for(sides, 0x2000_0001, ChildExchange::IkeAuth));
        payloads.extend(more);
        self.request(ExchangeType::IKE_AUTH, payloads)
    }

    /// Answers the endpoint's IKE_AUTH, with this TSr.
    pub fn answer_auth_with(&mut self, responder: Vec<TrafficSelector>) {
        let request = self.next_request();
        let mut payloads = self.proof();
        let answer = self.acceptance(&request, 0x2000_0001, ChildExchange::IkeAuth);
        let others = |p: &Payload<'_>| !matches!(p, Payload::Tsr(_));
        payloads.extend(answer.into_iter().filter(others));
        payloads.push(Payload::Tsr(TsPayload::new(responder)));
        self.respond(&request, payloads);
    }

    /// Answers the endpoint's IKE_AUTH, with `more` in it.
    pub fn answer_auth(&mut self, more: Vec<Payload<'static>>) {
        let request = self.next_request();
        assert_eq!(request.exchange, ExchangeType::IKE_AUTH);
        let mut payloads = self.proof();
        payloads.extend(self.acceptance(&request, 0x2000_0001, ChildExchange::IkeAuth));
        payloads.extend(more);
        self.respond(&request, payloads);
    }

    /// SA and selectors of a child that the endpoint has, from the peer's side.
    pub fn offer(&self, name: &str, spi: u32, exchange: ChildExchange) -> Vec<Payload<'static>> {
        let third = match name {
            "two" => 2,
            "three" => 3,
            _ => 1,
        };
        let net = |second: u8| TrafficSelector::from_prefix([10, second, third, 0].into(), 24);
        offer_for((vec![net(2)], vec![net(1)]), spi, exchange)
    }

    /// What makes the Child SA that the endpoint asks for.
    pub fn acceptance(
        &self,
        request: &Request,
        spi: u32,
        exchange: ChildExchange,
    ) -> Vec<Payload<'static>> {
        let choice = proposal::select_esp(&esp_proposals(), request.sa(), exchange, None).unwrap();
        let mut payloads: Vec<Payload<'static>> = vec![choice.answer(spi).into()];
        let is_ts = |p: &&Payload<'static>| matches!(p, Payload::Tsi(_) | Payload::Tsr(_));
        payloads.extend(request.payloads.iter().filter(is_ts).cloned());
        payloads
    }

    /// CREATE_CHILD_SA for the IKE SA, with this SPI for the new one; the payloads of the answer.
    pub fn rekey_ike(&mut self, spi: u64) -> Vec<Payload<'static>> {
        let spi = ProposalSpi::Ike(Spi(spi));
        let payloads = vec![
            proposal::offer_ike(&ike_proposals(), spi).into(),
            Self::nonce(),
            key_exchange(),
        ];
        self.request(ExchangeType::CREATE_CHILD_SA, payloads)
    }

    /// Does something on the IKE SA that [`Peer::rekey_ike`] with this SPI made by this answer.
    pub fn on_new_ike_sa(
        &mut self,
        spi: u64,
        answer: &[Payload<'static>],
        act: impl FnOnce(&mut Self),
    ) {
        let offer = proposal::offer_ike(&ike_proposals(), ProposalSpi::Ike(Spi(spi)));
        let chosen = answer.iter().find_map(sa).unwrap();
        let exchanged = Exchanged {
            nonce_i: NONCE.to_vec(),
            nonce_r: answer.iter().find_map(nonce).unwrap().to_vec(),
            spi_i: Spi(spi),
            spi_r: proposal::accept_ike(&offer, chosen)
                .unwrap()
                .peer_spi
                .unwrap(),
        };
        let shared = share().agree(answer.iter().find_map(ke).unwrap()).unwrap();
        let keys = self.keys.as_ref().unwrap();
        let keys = keys.successor(SUITE, Role::Initiator, &exchanged, &shared);
        let mut other = InUse {
            role: Role::Initiator,
            keys: Some(keys.unwrap()),
            spi_i: exchanged.spi_i,
            spi_r: exchanged.spi_r,
            next_id: 0,
        };
        self.swap(&mut other);
        act(self);
        self.swap(&mut other);
    }

    fn swap(&mut self, other: &mut InUse) {
        std::mem::swap(&mut self.role, &mut other.role);
        std::mem::swap(&mut self.keys, &mut other.keys);
        std::mem::swap(&mut self.spi_i, &mut other.spi_i);
        std::mem::swap(&mut self.spi_r, &mut other.spi_r);
        std::mem::swap(&mut self.next_id, &mut other.next_id);
    }

    /// The peer has started anew, and knows of nothing; its next call has this SPI.
    pub fn restart(&mut self, spi: u64) {
        self.inbox.borrow_mut().clear();
        self.swap(&mut InUse {
            role: Role::Initiator,
            keys: None,
            spi_i: Spi(spi),
            spi_r: Spi::ZERO,
            next_id: 0,
        });
    }

    /// The endpoint's rekey of the IKE SA, accepted; the KE payload is missing.
    pub fn acceptance_of_ike(&self, request: &Request) -> Vec<Payload<'static>> {
        let proposals = ike_proposals();
        let offers = [proposals.as_slice()];
        let choice = proposal::select_ike(&offers, request.sa(), None).unwrap();
        let answer = choice.answer(ProposalSpi::Ike(Spi(0x0f0f)));
        vec![answer.into(), Self::nonce()]
    }

    /// An empty request that comes before `by` others which it should follow; its message id.
    pub fn send_ahead(&mut self, by: u32) -> u32 {
        let id = MessageId(self.next_id + by);
        self.send(ExchangeType::INFORMATIONAL, id, false, &chain(Vec::new()));
        id.0
    }

    pub fn nonce() -> Payload<'static> {
        NoncePayload::new(&NONCE[..]).into()
    }

    /// CREATE_CHILD_SA for a child that the endpoint has; the payloads of the answer.
    pub fn create_child(
        &mut self,
        name: &str,
        spi: u32,
        more: Vec<Payload<'static>>,
    ) -> Vec<Payload<'static>> {
        let mut payloads = more;
        payloads.extend(self.offer(name, spi, ChildExchange::CreateChildSa));
        payloads.push(Self::nonce());
        self.request(ExchangeType::CREATE_CHILD_SA, payloads)
    }

    /// CREATE_CHILD_SA for a child between these (TSi, TSr); the payloads of the answer.
    pub fn create_child_for(
        &mut self,
        sides: (Vec<TrafficSelector>, Vec<TrafficSelector>),
        spi: u32,
        more: Vec<Payload<'static>>,
    ) -> Vec<Payload<'static>> {
        let mut payloads = more;
        payloads.extend(offer_for(sides, spi, ChildExchange::CreateChildSa));
        payloads.push(Self::nonce());
        self.request(ExchangeType::CREATE_CHILD_SA, payloads)
    }

    /// A request with these payloads; those of the answer.
    pub fn request(
        &mut self,
        exchange: ExchangeType,
        payloads: Vec<Payload<'static>>,
    ) -> Vec<Payload<'static>> {
        self.request_of(exchange, &chain(payloads))
    }

    /// The same with any octets inside.
    pub fn request_of(&mut self, exchange: ExchangeType, chain: &Chain) -> Vec<Payload<'static>> {
        let id = MessageId(self.next_id);
        self.next_id += 1;
        self.send(exchange, id, false, chain);
        let (header, payloads) = self.open_next();
        assert!(header.flags.is_response(), "{header:?}");
        assert_eq!((header.exchange, header.message_id), (exchange, id));
        payloads
    }

    /// The endpoint's next request.
    pub fn next_request(&mut self) -> Request {
        let (header, payloads) = self.open_next();
        assert!(!header.flags.is_response(), "{header:?}");
        Request {
            exchange: header.exchange,
            id: header.message_id,
            payloads,
        }
    }

    /// Answers the endpoint's empty requests; other messages of it are dropped.
    pub fn answer_signs_of_life(&mut self) {
        loop {
            let next = self.inbox.borrow_mut().pop_front();
            let Some(datagram) = next else {
                return;
            };
            let message = Message::parse(&datagram).unwrap();
            if message.header.exchange != ExchangeType::INFORMATIONAL {
                continue;
            }
            let request = Request {
                exchange: message.header.exchange,
                id: message.header.message_id,
                payloads: Vec::new(),
            };
            self.respond(&request, Vec::new());
        }
    }

    pub fn respond(&mut self, to: &Request, payloads: Vec<Payload<'static>>) {
        self.respond_with(to, &chain(payloads));
    }

    /// The same with any octets inside.
    pub fn respond_with(&mut self, to: &Request, chain: &Chain) {
        self.send(to.exchange, to.id, true, chain);
    }

    fn send(&mut self, exchange: ExchangeType, id: MessageId, response: bool, chain: &Chain) {
        let header = self.header(exchange, id, response);
        let sealer = self.keys.as_mut().unwrap().sealer();
        let sealed = protect::seal(sealer, &mut self.random, header, chain, None).unwrap();
        for datagram in sealed {
            self.deliver(datagram);
        }
    }

    fn open_next(&mut self) -> (IkeHeader, Vec<Payload<'static>>) {
        let datagram = self.receive();
        let message = Message::parse(&datagram).unwrap();
        let opener = self.keys.as_ref().unwrap().opener();
        let protect::Opened::Whole(content) = protect::open(opener, &message).unwrap() else {
            panic!("a fragment");
        };
        let payloads = owned(content.payloads().unwrap());
        (message.header, payloads)
    }
}

fn offer_for(
    (initiator, responder): (Vec<TrafficSelector>, Vec<TrafficSelector>),
    spi: u32,
    exchange: ChildExchange,
) -> Vec<Payload<'static>> {
    vec![
        proposal::offer_esp(&esp_proposals(), spi, exchange).into(),
        Payload::Tsi(TsPayload::new(initiator)),
        Payload::Tsr(TsPayload::new(responder)),
    ]
}

fn owned(payloads: Vec<Payload<'_>>) -> Vec<Payload<'static>> {
    payloads.into_iter().map(Payload::into_owned).collect()
}

fn chain(payloads: Vec<Payload<'static>>) -> Chain {
    let mut builder = ChainBuilder::new();
    for payload in payloads {
        builder.push(payload);
    }
    builder.finish().unwrap()
}

pub fn notifies<'p>(
    payloads: &'p [Payload<'static>],
) -> impl Iterator<Item = &'p NotifyPayload<'static>> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(notify) => Some(notify),
        _ => None,
    })
}

pub fn sa<'p>(payload: &'p Payload<'_>) -> Option<&'p SaPayload> {
    match payload {
        Payload::Sa(sa) => Some(sa),
        _ => None,
    }
}

fn nonce<'p>(payload: &'p Payload<'_>) -> Option<&'p [u8]> {
    match payload {
        Payload::Nonce(nonce) => Some(&nonce.data),
        _ => None,
    }
}

fn ke<'p>(payload: &'p Payload<'_>) -> Option<&'p [u8]> {
    match payload {
        Payload::Ke(ke) => Some(&ke.data),
        _ => None,
    }
}

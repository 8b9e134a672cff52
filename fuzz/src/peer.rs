//! A peer with all the keys, so that whatever the fuzzer makes of a message reaches the far side
//! of its decryption. It talks to one endpoint, answers its questions and moves its clock.
//!
//! All of it repeats: the endpoint's randomness has a fixed seed and the peer's key share is always
//! the same, so SPIs, nonces and public values in a corpus stay valid.

pub(crate) mod log_in;
mod parts;
mod proof;
mod setup;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::suite::Group;
use cygnet_ike::Endpoint;
use cygnet_ike::auth;
use cygnet_ike::io::{
    Answer, Ask, AskId, ChainError, Command, DataCommand, DataEvent, Lease, Output, Path, PeerKey,
    Transport,
};
use cygnet_ike::keys::{Exchanged, IkeKeys, Role};
use cygnet_ike::proposal;
use cygnet_ike::protect;
use cygnet_ike::time::{Instant, Now, UtcTime};
use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use cygnet_wire::ke::KePayload;
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::nonce::NoncePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::{Chain, Payload};
use cygnet_wire::sa::{ProposalSpi, TransformId};

pub(crate) use parts::sa;
use parts::{ike_spi, ke, nonce, rekey_in};
pub(crate) use setup::{
    CERTIFICATE, Setup, esp_proposals, ike_proposals, peer_identity, share, subnet,
};
use setup::{Repeating, SECRET, SUITE, key, policy};

/// Name of the connection.
pub(crate) const CONNECTION: &str = "peer";
/// The first SPI the endpoint's data path gives out.
pub(crate) const FIRST_SPI: u32 = 0x1000_0001;
/// What the peer calls its own Child SAs.
pub(crate) const PEER_SPI: u32 = 0x2000_0001;
/// The peer's IKE SPI.
pub(crate) const PEER_IKE_SPI: Spi = Spi(0x7065_6572_0000_0001);
/// The peer's nonce.
pub(crate) const NONCE: [u8; 32] = [0xa5; 32];

const TODAY: i64 = 1_800_000_000;
/// One input leads to no more than this.
const MOST_OUTPUTS: usize = 20_000;

/// An IKE SA as the peer sees it.
struct Generation {
    keys: IkeKeys,
    spi_i: Spi,
    spi_r: Spi,
    role: Role,
    next_id: u32,
    /// An IKE rekey of the peer that waits for its response.
    rekey: Option<(MessageId, Spi, Vec<u8>)>,
}

/// A request of the endpoint.
pub(crate) struct Request {
    generation: usize,
    pub(crate) exchange: ExchangeType,
    id: MessageId,
    pub(crate) payloads: Vec<Payload<'static>>,
}

pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) setup: Setup,
    clock: Duration,
    random: Repeating,
    generations: Vec<Generation>,
    /// What the endpoint has sent, oldest first.
    pub(crate) inbox: VecDeque<Vec<u8>>,
    pub(crate) requests: VecDeque<Request>,
    answers: VecDeque<(AskId, Answer)>,
    pub(crate) holds_answers: bool,
    next_spi: u32,
    path: Path,
    last: Vec<u8>,
    /// Octets the endpoint has sent.
    pub(crate) sent: usize,
    /// For AUTH: the peer's IKE_SA_INIT message, and the endpoint's nonce.
    init: Vec<u8>,
    other_nonce: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(setup: Setup) -> Self {
        let path = Path {
            transport: Transport::Udp,
            local: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 500)),
            remote: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 500)),
            interface: 0,
        };
        let policy = Arc::new(policy(setup, path.remote.ip()));
        let random = Box::new(Repeating::new(1));
        let mut peer = Self {
            endpoint: Endpoint::new(random, Arc::clone(&policy)),
            setup,
            clock: Duration::from_secs(1000),
            random: Repeating::new(2),
            generations: Vec::new(),
            inbox: VecDeque::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            holds_answers: false,
            next_spi: FIRST_SPI,
            path,
            last: Vec::new(),
            sent: 0,
            init: Vec::new(),
            other_nonce: Vec::new(),
        };
        let now = peer.now();
        peer.endpoint.handle_policy(now, policy);
        peer.pump();
        peer
    }

    fn now(&self) -> Now {
        Now {
            boot: Instant::from_boot(self.clock),
            utc: Some(UtcTime(TODAY)),
        }
    }

    pub(crate) fn status(&self) -> cygnet_ike::status::Status {
        self.endpoint.status(self.now())
    }

    /// A datagram for the endpoint, whatever it is.
    pub(crate) fn deliver(&mut self, datagram: &[u8]) {
        let now = self.now();
        self.last = datagram.to_vec();
        self.endpoint.handle_datagram(now, self.path, datagram);
        self.pump();
    }

    /// The last datagram once more.
    pub(crate) fn repeat(&mut self, cut: usize) {
        let mut datagram = std::mem::take(&mut self.last);
        self.deliver(datagram.get(cut.min(datagram.len())..).unwrap_or_default());
        std::mem::swap(&mut self.last, &mut datagram);
    }

    pub(crate) fn command(&mut self, command: Command) {
        let now = self.now();
        self.endpoint.handle_command(now, command);
        self.pump();
    }

    pub(crate) fn data(&mut self, event: DataEvent) {
        let now = self.now();
        self.endpoint.handle_data(now, event);
        self.pump();
    }

    /// Time passes, and whatever is due in it happens.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.clock + time;
        for _ in 0..200 {
            let due = self.endpoint.poll_timeout().map(Instant::since_boot);
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            let before = self.clock;
            self.clock = self.clock.max(due);
            let now = self.now();
            self.endpoint.handle_timeout(now);
            self.pump();
            let next = self.endpoint.poll_timeout().map(Instant::since_boot);
            assert!(
                next.is_none_or(|next| next > before || next > self.clock),
                "the timer is due again and again"
            );
        }
        self.clock = self.clock.max(end);
    }

    /// Gives the answers held back so far, in this order.
    pub(crate) fn release(&mut self, backwards: bool, refuse: bool) {
        let mut held = std::mem::take(&mut self.answers);
        if backwards {
            held = held.into_iter().rev().collect();
        }
        for (id, answer) in held {
            let answer = if refuse { refusal(answer) } else { answer };
            let now = self.now();
            self.endpoint.handle_answer(now, id, answer);
            self.pump();
        }
    }

    /// Works off what the endpoint puts out.
    fn pump(&mut self) {
        let mut outputs = 0;
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                outputs += 1;
                assert!(
                    outputs < MOST_OUTPUTS,
                    "one input leads to output without end"
                );
                self.handle_output(output);
            }
            if self.holds_answers {
                return;
            }
            let Some((id, answer)) = self.answers.pop_front() else {
                return;
            };
            let now = self.now();
            self.endpoint.handle_answer(now, id, answer);
        }
    }

    fn handle_output(&mut self, output: Output) {
        match output {
            Output::Ask(id, ask) => {
                let answer = self.answer(ask);
                self.answers.push_back((id, answer));
            }
            Output::Data(DataCommand::AllocSpi { id }) => {
                let spi = self.next_spi;
                self.next_spi += 1;
                self.answers.push_back((id, Answer::Spi(Ok(spi))));
            }
            Output::Data(DataCommand::InstallIn { id, .. } | DataCommand::SwitchOut { id, .. }) => {
                self.answers.push_back((id, Answer::Installed(Ok(()))))
            }
            Output::Transmit(transmit) => {
                self.sent += transmit.datagram.len();
                self.path = transmit.path;
                self.read(transmit.datagram);
            }
            Output::Data(_) | Output::Event(_) => {}
        }
    }

    fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Resolve { .. } | Ask::Ways { .. } => Answer::Paths(Ok(vec![self.path])),
            Ask::Sign { .. } => Answer::Signed(Err("the endpoint has no key".to_owned())),
            Ask::PskAuth { prf, octets, .. } => Answer::Mac(Ok(psk_auth(prf, SECRET, &octets))),
            Ask::ValidateChain { certificates, .. } => Answer::Chain(match certificates.first() {
                Some(leaf) if leaf == CERTIFICATE => Ok(PeerKey {
                    spki: key().public_key_spki().to_vec(),
                    subject: "CN=peer".to_owned(),
                    not_after: UtcTime(TODAY + 86_400),
                }),
                _ => Err(ChainError::Invalid(
                    "not the certificate of the peer".to_owned(),
                )),
            }),
            Ask::Eap {
                peer_logs_in,
                packet,
                ..
            } => Answer::Eap(match peer_logs_in {
                true => Ok(log_in::serve(packet.as_ref())),
                false => log_in::log_in(packet.as_ref()),
            }),
            Ask::Lease { .. } => Answer::Leased(Ok(Lease {
                addresses: vec![Ipv4Addr::new(10, 99, 0, 2).into()],
                dns: vec![Ipv4Addr::new(10, 99, 0, 1).into()],
                domains: Vec::new(),
                speedtest: Vec::new(),
            })),
        }
    }

    /// Keeps a datagram of the endpoint, and opens it where it can.
    fn read(&mut self, datagram: Vec<u8>) {
        let found = self.open(&datagram);
        self.inbox.push_back(datagram);
        if self.inbox.len() > 64 {
            self.inbox.pop_front();
        }
        let Some((generation, header, payloads)) = found else {
            return;
        };
        if header.flags.is_response() {
            self.follow_rekey(generation, header.message_id, &payloads);
            return;
        }
        let known =
            |request: &Request| request.generation == generation && request.id == header.message_id;
        if !self.requests.iter().any(known) {
            self.requests.push_back(Request {
                generation,
                exchange: header.exchange,
                id: header.message_id,
                payloads,
            });
        }
    }

    fn open(&self, datagram: &[u8]) -> Option<(usize, IkeHeader, Vec<Payload<'static>>)> {
        let message = Message::parse(datagram).ok()?;
        let header = message.header;
        let is_of =
            |g: &Generation| (g.spi_i, g.spi_r) == (header.initiator_spi, header.responder_spi);
        let number = self.generations.iter().position(is_of)?;
        let opener = self.generations.get(number)?.keys.opener();
        let protect::Opened::Whole(content) = protect::open(opener, &message).ok()? else {
            return None;
        };
        let payloads = content
            .payloads()
            .expect("the endpoint sends what can be parsed");
        let payloads = payloads.into_iter().map(Payload::into_owned).collect();
        Some((number, header, payloads))
    }

    /// IKE_SA_INIT with a peer that does all as it should.
    pub(crate) fn shake_hands(&mut self) {
        if self.setup.endpoint_calls {
            self.answer_call();
        } else {
            self.call();
        }
    }

    /// The peer's first request.
    pub(crate) fn call_message(&self, cookie: Option<&[u8]>) -> Vec<u8> {
        let header = IkeHeader {
            initiator_spi: PEER_IKE_SPI,
            responder_spi: Spi::ZERO,
            version: Version::V2_0,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::new(true, false),
            message_id: MessageId::ZERO,
        };
        let mut message = MessageBuilder::new(header);
        if let Some(cookie) = cookie {
            message.push(NotifyPayload::with_data(
                NotifyType::COOKIE,
                cookie.to_vec(),
            ));
        }
        message.push(proposal::offer_ike(&ike_proposals(), ProposalSpi::None));
        push_init(&mut message);
        message.finish().expect("a small message")
    }

    fn call(&mut self) {
        let mut request = self.call_message(None);
        self.deliver(&request);
        let mut answer = self.inbox.pop_front().unwrap_or_default();
        if self.setup.cookies
            && let Ok(message) = Message::parse(&answer)
            && let Ok(payloads) = message.parse_payloads()
            && let Some(Payload::Notify(notify)) = payloads.first()
            && notify.ty == NotifyType::COOKIE
        {
            request = self.call_message(Some(&notify.data));
            self.deliver(&request);
            answer = self.inbox.pop_front().unwrap_or_default();
        }
        self.init = request;
        let message = Message::parse(&answer).expect("the endpoint answers a call");
        let spi_r = message.header.responder_spi;
        self.agree(&message, Role::Initiator, PEER_IKE_SPI, spi_r);
    }

    fn answer_call(&mut self) {
        let request = self.inbox.pop_front().expect("the endpoint calls");
        let message = Message::parse(&request).expect("the endpoint sends IKE messages");
        let payloads = message
            .parse_payloads()
            .expect("the endpoint's own payloads");
        let offer = payloads
            .iter()
            .find_map(sa)
            .expect("the endpoint offers something");
        let ours = ike_proposals();
        let sent = Some(TransformId(Group::Curve25519.to_wire()));
        let choice = proposal::select_ike(&[&ours], offer, sent).expect("the same proposals");
        let spi_i = message.header.initiator_spi;
        let header = IkeHeader {
            responder_spi: PEER_IKE_SPI,
            flags: Flags::new(false, true),
            ..message.header
        };
        let mut response = MessageBuilder::new(header);
        response.push(choice.answer(ProposalSpi::None));
        push_init(&mut response);
        self.init = response.finish().expect("a small message");
        self.agree(&message, Role::Responder, spi_i, PEER_IKE_SPI);
        let response = self.init.clone();
        self.deliver(&response);
    }

    /// Keys, from the endpoint's IKE_SA_INIT message.
    fn agree(&mut self, message: &Message<'_>, role: Role, spi_i: Spi, spi_r: Spi) {
        let payloads = message
            .parse_payloads()
            .expect("the endpoint's own payloads");
        let nonce = payloads.iter().find_map(nonce).expect("a nonce");
        let ke = payloads.iter().find_map(ke).expect("a key exchange");
        let shared = share().agree(ke).expect("a public value");
        let (nonce_i, nonce_r) = in_order(role, nonce);
        let exchanged = Exchanged {
            nonce_i,
            nonce_r,
            spi_i,
            spi_r,
        };
        self.other_nonce = nonce.to_vec();
        let keys = IkeKeys::initial(SUITE, role, &exchanged, &shared).expect("keys of a suite");
        let first_id = u32::from(role == Role::Initiator);
        self.add_generation(keys, spi_i, spi_r, role, first_id);
    }

    fn add_generation(&mut self, keys: IkeKeys, spi_i: Spi, spi_r: Spi, role: Role, next_id: u32) {
        self.generations.push(Generation {
            keys,
            spi_i,
            spi_r,
            role,
            next_id,
            rekey: None,
        });
    }

    fn generation(&self, newest: bool) -> Option<usize> {
        let last = self.generations.len().checked_sub(1)?;
        Some(if newest { last } else { 0 })
    }

    /// A request with this inside.
    pub(crate) fn request(
        &mut self,
        newest: bool,
        exchange: ExchangeType,
        chain: &Chain,
        cut: bool,
    ) {
        let Some(number) = self.generation(newest) else {
            return;
        };
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        let id = MessageId(generation.next_id);
        generation.next_id = generation.next_id.wrapping_add(1);
        generation.rekey = rekey_in(chain).map(|(spi, nonce)| (id, spi, nonce));
        self.send(number, exchange, id, false, chain, cut);
    }

    /// A response with this inside to the endpoint's oldest request.
    pub(crate) fn respond(&mut self, chain: &Chain, cut: bool) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        self.follow_own_answer(&request, chain);
        self.send(
            request.generation,
            request.exchange,
            request.id,
            true,
            chain,
            cut,
        );
    }

    fn send(
        &mut self,
        number: usize,
        exchange: ExchangeType,
        id: MessageId,
        is_response: bool,
        chain: &Chain,
        cut: bool,
    ) {
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        let header = IkeHeader {
            initiator_spi: generation.spi_i,
            responder_spi: generation.spi_r,
            version: Version::V2_0,
            exchange,
            flags: Flags::new(generation.role == Role::Initiator, is_response),
            message_id: id,
        };
        let most = cut.then_some(200);
        let sealer = generation.keys.sealer();
        let Ok(datagrams) = protect::seal(sealer, &mut self.random, header, chain, most) else {
            return;
        };
        for datagram in datagrams {
            self.deliver(&datagram);
        }
    }

    /// The endpoint has answered an IKE rekey of the peer: the new IKE SA.
    fn follow_rekey(&mut self, number: usize, id: MessageId, payloads: &[Payload<'static>]) {
        let Some(generation) = self.generations.get_mut(number) else {
            return;
        };
        let Some((_, spi_i, nonce_i)) = generation.rekey.take_if(|(of, ..)| *of == id) else {
            return;
        };
        let new = payloads.iter().find_map(sa).and_then(ike_spi);
        let nonce_r = payloads.iter().find_map(nonce);
        let ke = payloads.iter().find_map(ke);
        if let (Some(spi_r), Some(nonce_r), Some(ke)) = (new, nonce_r, ke) {
            let exchanged = Exchanged {
                nonce_i,
                nonce_r: nonce_r.to_vec(),
                spi_i,
                spi_r,
            };
            self.succeed(number, Role::Initiator, &exchanged, ke);
        }
    }

    /// The peer answers an IKE rekey of the endpoint: the new IKE SA.
    fn follow_own_answer(&mut self, request: &Request, chain: &Chain) {
        let Some((spi_r, nonce_r)) = rekey_in(chain) else {
            return;
        };
        let new = request.payloads.iter().find_map(sa).and_then(ike_spi);
        let nonce_i = request.payloads.iter().find_map(nonce);
        let ke = request.payloads.iter().find_map(ke);
        if let (Some(spi_i), Some(nonce_i), Some(ke)) = (new, nonce_i, ke) {
            let exchanged = Exchanged {
                nonce_i: nonce_i.to_vec(),
                nonce_r,
                spi_i,
                spi_r,
            };
            self.succeed(request.generation, Role::Responder, &exchanged, ke);
        }
    }

    fn succeed(&mut self, number: usize, role: Role, exchanged: &Exchanged, ke: &[u8]) {
        let Some(generation) = self.generations.get(number) else {
            return;
        };
        let Ok(shared) = share().agree(ke) else {
            return;
        };
        if let Ok(keys) = generation.keys.successor(SUITE, role, exchanged, &shared) {
            self.add_generation(keys, exchanged.spi_i, exchanged.spi_r, role, 0);
        }
    }
}

fn push_init(message: &mut MessageBuilder) {
    message.push(KePayload::new(
        TransformId(Group::Curve25519.to_wire()),
        share().public().to_vec(),
    ));
    message.push(NoncePayload::new(&NONCE[..]));
    message.push(NotifyPayload::new(
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
    ));
    message.push(auth::announce_hashes());
}

fn in_order(role: Role, theirs: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match role {
        Role::Initiator => (NONCE.to_vec(), theirs.to_vec()),
        Role::Responder => (theirs.to_vec(), NONCE.to_vec()),
    }
}

fn refusal(answer: Answer) -> Answer {
    let why = "refused".to_owned();
    match answer {
        Answer::Paths(_) => Answer::Paths(Err(why)),
        Answer::Signed(_) => Answer::Signed(Err(why)),
        Answer::Mac(_) => Answer::Mac(Err(why)),
        Answer::Chain(_) => Answer::Chain(Err(ChainError::Invalid(why))),
        Answer::Eap(_) => Answer::Eap(Err(why)),
        Answer::Leased(_) => Answer::Leased(Err(why)),
        Answer::Spi(_) => Answer::Spi(Err(why)),
        Answer::Installed(_) => Answer::Installed(Err(why)),
    }
}

//! IKE_SA_INIT, started by us: cookies and other groups as the responder asks, NAT detection
//! (RFC 7296 §1.2, §2.6, §2.23).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::suite::Group;
use cygnet_wire::EmitError;
use cygnet_wire::header::{ExchangeType, MessageId, Spi};
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::sa::{ProposalSpi, SaPayload};
use cygnet_wire::ts::TrafficSelector;

use crate::auth;
use crate::context::Context;
use crate::event::{Event, EventKind, Reason};
use crate::io::{IkeSaId, Path};
use crate::keys::{Exchanged, IkeKeys, Role};
use crate::nat::{self, Nat};
use crate::policy::{ChildPolicy, Connection, Ports, Retransmit};
use crate::proposal;
use crate::refusal;
use crate::sa::auth_initiator::AuthInitiator;
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::mobike::Mobility;
use crate::sa::negotiate::{self, ke_payload, nonce_payload};
use crate::sa::rekey_ike::new_spi;
use crate::sa::{IkeSa, State, closed};
use crate::time::Instant;

/// How often cookies and other groups are followed in one call.
const MAX_TURNS: u32 = 8;
/// RFC 7296 §2.21.1: a refusal without protection may be forged; the true answer may follow.
const DOUBT: Duration = Duration::from_secs(2);

/// What a call is for.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) connection: Arc<Connection>,
    /// The child that travels in IKE_AUTH.
    pub(crate) child: Option<Arc<ChildPolicy>>,
    /// The packet that wants it, our side first.
    pub(crate) packet: Option<(TrafficSelector, TrafficSelector)>,
    /// The IKE SA that is authenticated anew by this, and the addresses that the same server has lent it.
    pub(crate) replaces: Option<(IkeSaId, Vec<IpAddr>)>,
    /// Which of the connection's servers is called.
    pub(crate) server: usize,
}

/// IKE_SA_INIT under way.
pub(crate) struct Initiating {
    pub(crate) connection: Arc<Connection>,
    call: Call,
    nonce: Vec<u8>,
    group: Group,
    /// `None` once used.
    ephemeral: Option<Ephemeral>,
    offer: SaPayload,
    cookie: Option<Vec<u8>>,
    /// The request as last sent: AUTH covers it.
    request: Vec<u8>,
    /// Of this request; what follows has the connection's own.
    retransmit: Retransmit,
    turns: u32,
    /// Refused without protection; believed unless the true answer comes by then.
    doubted: Option<(Instant, Reason)>,
}

/// What IKE_AUTH needs of IKE_SA_INIT.
pub(crate) struct Begun {
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    /// The messages themselves, which AUTH covers.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    /// RFC 7427: what the peer can verify; `None`: it knows the classic methods alone.
    pub(crate) hashes: Option<Vec<cygnet_crypto::signature::HashAlgorithm>>,
    /// The peer can do without a Child SA (RFC 6023).
    pub(crate) childless: bool,
}

impl IkeSa {
    /// Calls a peer; IKE_SA_INIT is repeated as `retransmit` says.
    pub(crate) fn dial(
        cx: &mut Context,
        call: Call,
        path: Path,
        retransmit: Retransmit,
    ) -> Result<Self, Reason> {
        let connection = Arc::clone(&call.connection);
        let id = cx.new_ike_sa_id();
        let Some(group) = proposal::first_ike_group(&connection.ike_proposals) else {
            return Err(Reason::Local(
                "the connection has no IKE proposals".to_owned(),
            ));
        };
        let spis = (new_spi(cx), Spi::ZERO);
        let mut channel = Channel::new(cx, id, Role::Initiator, spis, path, connection.retransmit);
        let mut state = Initiating {
            offer: proposal::offer_ike(&connection.ike_proposals, ProposalSpi::None),
            connection,
            call,
            nonce: negotiate::nonce(cx.random.as_mut()),
            group,
            ephemeral: None,
            cookie: None,
            request: Vec::new(),
            retransmit,
            turns: 0,
            doubted: None,
        };
        state
            .send(&mut channel, cx)
            .map_err(|error| Reason::Local(error.to_string()))?;
        Ok(Self {
            channel,
            state: State::Initiating(Box::new(state)),
        })
    }
}

impl Initiating {
    fn send(&mut self, channel: &mut Channel, cx: &mut Context) -> Result<(), EmitError> {
        let header = channel.header(ExchangeType::IKE_SA_INIT, MessageId::ZERO, false);
        let mut message = MessageBuilder::new(header);
        let fresh = || Ephemeral::generate(self.group, cx.random.as_mut());
        let ephemeral = self.ephemeral.get_or_insert_with(fresh);
        if let Some(cookie) = &self.cookie {
            // RFC 7296 §2.6: the first payload.
            message.push(NotifyPayload::with_data(NotifyType::COOKIE, cookie.clone()));
        }
        message.push(self.offer.clone());
        message.push(ke_payload(self.group, ephemeral.public()));
        message.push(nonce_payload(&self.nonce));
        let claim = self.connection.claim_nat;
        for notify in nat::notifies(channel.spi_i, channel.spi_r, &channel.path, claim) {
            message.push(notify);
        }
        message.push(NotifyPayload::new(
            NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        ));
        message.push(auth::announce_hashes());
        self.request = message.finish()?;
        let datagrams = vec![self.request.clone()];
        channel.transmit(cx, channel.path, &datagrams);
        if channel.window.in_flight().is_some() {
            channel.window.replace(cx.boot(), datagrams);
        } else {
            channel.window.send(cx.boot(), datagrams, self.retransmit);
        }
        Ok(())
    }

    pub(crate) fn handle_datagram(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        message: &Message<'_>,
    ) -> State {
        let header = message.header;
        let plausible = header.exchange == ExchangeType::IKE_SA_INIT
            && header.flags.is_response()
            && !header.flags.is_initiator()
            && header.message_id == MessageId::ZERO
            && header.initiator_spi == channel.spi_i;
        // Nothing of this is protected: what makes no sense is somebody else's.
        let contents = message.parse_payloads().map(Contents::of);
        let Some(contents) = contents.ok().filter(|_| plausible) else {
            cx.counters.stray += 1;
            return State::Initiating(self);
        };
        if let Some(cookie) = contents.notify(NotifyType::COOKIE)
            && contents.sa.is_none()
            && (1..=64).contains(&cookie.data.len())
            && self.cookie.as_deref() != Some(cookie.data.as_ref())
        {
            self.cookie = Some(cookie.data.to_vec());
            return self.turn(channel, cx);
        }
        if let Some(error) = contents.error() {
            return self.refused(channel, cx, path, error);
        }
        match self.agree(channel, path, message, &contents) {
            Some((keys, begun)) => {
                channel.spi_r = header.responder_spi;
                channel.keys = Some(keys);
                channel.window.handle_response(MessageId::ZERO);
                channel.last_in = cx.boot();
                self.observe(channel, cx, path, &contents);
                let bare = channel.nat.why_bare();
                match bare.filter(|_| cx.policy.esp_in_udp_only) {
                    Some(why) => {
                        let reason = Reason::NoEncapsulation(why.to_owned());
                        cx.event(self.event_refused(channel, path, &reason));
                        closed(channel, cx, reason)
                    }
                    None => AuthInitiator::begin(channel, cx, self.call, begun),
                }
            }
            // A public value that is none used up ours: on with another.
            None if self.ephemeral.is_none() => self.turn(channel, cx),
            None => {
                cx.counters.stray += 1;
                State::Initiating(self)
            }
        }
    }

    /// Another request under the same SPI, as the responder wants it.
    fn turn(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        self.turns += 1;
        if self.turns <= MAX_TURNS {
            self.doubted = None;
            if let Err(error) = self.send(channel, cx) {
                return self.give_up(channel, cx, Reason::Local(error.to_string()));
            }
        }
        State::Initiating(self)
    }

    fn refused(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        error: &NotifyPayload<'_>,
    ) -> State {
        if error.ty == NotifyType::INVALID_KE_PAYLOAD
            && let Some(group) = error.accepted_ke().ok().and_then(|id| Group::from_wire(id.0))
            && group != self.group
            // RFC 7296 §1.2: a forged one leads to no group that we do not want.
            && proposal::offers_ike_group(&self.connection.ike_proposals, group)
        {
            self.group = group;
            self.ephemeral = None;
            return self.turn(channel, cx);
        }
        if self.doubted.is_none() {
            let reason = refusal::reason(error, || proposal::describe(&self.offer));
            cx.event(self.event_refused(channel, path, &reason));
            self.doubted = Some((cx.boot() + DOUBT, reason));
        }
        State::Initiating(self)
    }

    fn event_refused(&self, channel: &Channel, path: Path, reason: &Reason) -> Event {
        Event {
            connection: Some(self.connection.name.clone()),
            ike_sa: Some(channel.id),
            path: Some(path),
            peer: None,
            kind: EventKind::Refused {
                reason: reason.clone(),
            },
        }
    }

    /// Keys, if the response is one to our request.
    fn agree(
        &mut self,
        channel: &Channel,
        path: Path,
        message: &Message<'_>,
        contents: &Contents,
    ) -> Option<(IkeKeys, Begun)> {
        if message.header.responder_spi.is_zero() || path.remote != channel.path.remote {
            return None;
        }
        let choice = proposal::accept_ike(&self.offer, contents.sa.as_ref()?).ok()?;
        let ke = contents.ke.as_ref()?;
        let nonce_r = contents.nonce.clone()?;
        if choice.suite.group != self.group || choice.wrong_group(ke.method).is_some() {
            return None;
        }
        let shared = self.ephemeral.take()?.agree(&ke.data).ok()?;
        let exchanged = Exchanged {
            nonce_i: self.nonce.clone(),
            nonce_r: nonce_r.clone(),
            spi_i: channel.spi_i,
            spi_r: message.header.responder_spi,
        };
        let keys = IkeKeys::initial(choice.suite, Role::Initiator, &exchanged, &shared).ok()?;
        let begun = Begun {
            nonce_i: exchanged.nonce_i,
            nonce_r,
            request: self.request.clone(),
            response: message.bytes.to_vec(),
            hashes: contents
                .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
                .map(auth::announced_hashes),
            childless: contents.has(NotifyType::CHILDLESS_IKEV2_SUPPORTED),
        };
        Some((keys, begun))
    }

    /// RFC 7296 §2.23: with a NAT on the way, all that follows travels between the NAT-T ports.
    fn observe(&self, channel: &mut Channel, cx: &Context, path: Path, contents: &Contents) {
        channel.nat = Nat::observe(
            &contents.notifies,
            channel.spi_i,
            channel.spi_r,
            &path,
            self.connection.claim_nat,
        );
        if contents.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
            channel.fragment_size = self.connection.fragment_size;
        }
        // RFC 4555 §3.3: a NAT on a later path needs no other ports then.
        let mobile = Mobility::is_offered(channel, &self.connection);
        if mobile || channel.nat.encapsulates() {
            channel.path = floated(channel.path, cx.policy.limits.ports);
        }
    }

    /// A refusal without protection is believed by then.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.doubted.as_ref().map(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> State {
        match self.doubted.take_if(|(at, _)| *at <= cx.boot()) {
            Some((_, reason)) => closed(channel, cx, reason),
            None => State::Initiating(self),
        }
    }

    pub(crate) fn give_up(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        let reason = match (self.doubted, reason) {
            (Some((_, refused)), Reason::NoAnswer { .. }) => refused,
            (_, reason) => reason,
        };
        closed(channel, cx, reason)
    }
}

/// The path between the NAT-T ports.
fn floated(path: Path, ports: Ports) -> Path {
    let mut floated = path;
    floated.local.set_port(ports.nat_t);
    let remote = match path.remote.port() {
        port if port == ports.ike => ports.nat_t,
        500 => nat::NATT_PORT,
        port => port,
    };
    floated.remote.set_port(remote);
    floated
}

//! IKE_AUTH, started by us: prove who we are, verify who answers, make the first Child SA
//! (RFC 7296 §1.2, §2.15, §2.16, §2.19, §2.21.2).

use std::sync::Arc;
use std::time::Duration;

use cygnet_wire::auth::AuthPayload;
use cygnet_wire::cert::{CertPayload, CertReqPayload};
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::{IdPayload, Identification};
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;

use crate::auth;
use crate::config_payload;
use crate::context::{Context, Waiting};
use crate::event::{Event, EventKind, Reason};
use crate::identity;
use crate::io::{Answer, AskId, DataCommand, WantedAddress};
use crate::keys::{IkeKeys, Role};
use crate::lifetime;
use crate::policy::{Connection, IdentityPattern, LocalAuth, RemoteAuth};
use crate::refusal;
use crate::sa::channel::{Channel, Inbound};
use crate::sa::contents::Contents;
use crate::sa::eap_initiator::LogIn;
use crate::sa::exchange::{Exchange, Task};
use crate::sa::first_child::First;
use crate::sa::initiator::{Begun, Call};
use crate::sa::mobike::Mobility;
use crate::sa::negotiate::{id_payload, notify};
use crate::sa::proof::{AGAIN, Claim, Proving, Verdict, establish};
use crate::sa::{Peering, State, closed};
use crate::time::{Instant, UtcTime};

/// IKE_AUTH under way.
pub(crate) struct AuthInitiator {
    pub(crate) connection: Arc<Connection>,
    call: Call,
    pub(super) begun: Begun,
    pub(super) local_id: IdPayload,
    /// The first Child SA, if there is to be one.
    first: Option<First>,
    /// What we ask for.
    wanted: Vec<WantedAddress>,
    /// It is to end as soon as it is up: the peer may have it already.
    unwanted: Option<Reason>,
    pub(super) stage: Stage,
    /// Whether a log-in has begun, which ends with this.
    pub(super) logging_in: bool,
}

pub(super) enum Stage {
    /// An SPI is being reserved.
    Spi(AskId),
    /// Our proof is being made.
    Prove(Proving),
    /// The request is in flight.
    Sent,
    /// The peer's proof is being verified.
    Verify(AskId, Box<Answered>),
    /// Nobody could tell whether it holds: it is asked again then.
    Undecided(Instant, Box<Answered>),
    /// The peer is the one that we called, and we log in.
    LogIn(Box<LogIn>),
    /// We have told the peer that we do not believe it, and why we do not.
    Refusing(Reason),
}

/// The peer's response.
pub(super) struct Answered {
    claim: Claim,
    contents: Contents,
    since: Instant,
}

/// How long it may remain undecided whether the peer's proof holds.
const UNDECIDED: Duration = Duration::from_secs(30);

impl AuthInitiator {
    pub(crate) fn begin(
        channel: &mut Channel,
        cx: &mut Context,
        call: Call,
        begun: Begun,
    ) -> State {
        let connection = Arc::clone(&call.connection);
        let outer = Identification::address(channel.path.local.ip());
        let local_id = connection.local_identity.clone().unwrap_or(outer);
        // A peer that cannot do without a child gets the first of the connection.
        let child = match &call.child {
            None if !begun.childless => connection.children.first().cloned(),
            child => child.clone(),
        };
        // The new IKE SA keeps the addresses of the old.
        let lent = call.replaces.as_ref().map(|(_, lent)| lent.as_slice());
        let wanted = config_payload::again(&connection.request_virtual, lent.unwrap_or_default());
        let mut state = Box::new(Self {
            connection,
            call,
            begun,
            local_id: IdPayload::new(local_id),
            first: None,
            wanted,
            unwanted: None,
            stage: Stage::Sent,
            logging_in: false,
        });
        match child {
            Some(child) => {
                let who = Waiting::IkeSa(channel.id);
                let ask = cx.order(who, |id| DataCommand::AllocSpi { id });
                state.first = Some(First::new(child));
                state.stage = Stage::Spi(ask);
                State::AuthInitiator(state)
            }
            None => state.prove(channel, cx),
        }
    }

    /// Gives it up: at once, or with DELETE where the peer may believe it to be up.
    pub(crate) fn cancel(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        match self.stage {
            Stage::Spi(_) | Stage::Prove(_) => self.fail(channel, cx, reason),
            Stage::Sent
            | Stage::Verify(..)
            | Stage::Undecided(..)
            | Stage::LogIn(_)
            | Stage::Refusing(_) => {
                self.unwanted.get_or_insert(reason);
                State::AuthInitiator(self)
            }
        }
    }

    /// Asks for our AUTH, if we are to show one at once.
    fn prove(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        if let LocalAuth::Eap(_) = &self.connection.local_auth {
            return self.send(channel, cx, None);
        }
        let Some(keys) = &channel.keys else {
            return State::AuthInitiator(self);
        };
        let prf = keys.suite().prf;
        let octets = self.own_octets(keys);
        let hashes = self.begun.hashes.as_deref();
        match Proving::ask(cx, channel, &self.connection, hashes, prf, octets) {
            Ok(proving) => {
                self.stage = Stage::Prove(proving);
                State::AuthInitiator(self)
            }
            Err(reason) => self.fail(channel, cx, reason),
        }
    }

    /// What our AUTH covers.
    pub(super) fn own_octets(&self, keys: &IkeKeys) -> Vec<u8> {
        auth::signed_octets(
            keys.suite().prf,
            &self.begun.request,
            &self.begun.nonce_r,
            keys.sk_p(Role::Initiator),
            &self.local_id,
        )
    }

    pub(crate) fn handle_answer(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        id: AskId,
        answer: Answer,
    ) -> State {
        let stage = std::mem::replace(&mut self.stage, Stage::Sent);
        match (stage, answer) {
            (Stage::Spi(ask), Answer::Spi(result)) if ask == id => match result {
                Ok(spi) => {
                    if let Some(first) = &mut self.first {
                        first.spi_in = spi;
                    }
                    self.prove(channel, cx)
                }
                Err(error) => {
                    let reason = Reason::Local(format!("no SPI could be reserved: {error}"));
                    self.fail(channel, cx, reason)
                }
            },
            (Stage::Prove(proving), answer) if proving.ask == id => match proving.payload(answer) {
                Ok(payload) => self.send(channel, cx, Some(payload)),
                Err(reason) => self.fail(channel, cx, reason),
            },
            (Stage::Verify(ask, answered), answer) if ask == id => {
                match answered.claim.verify(&self.connection, answer) {
                    Verdict::Proven(not_after) => {
                        let Answered {
                            claim, contents, ..
                        } = *answered;
                        match &self.connection.local_auth {
                            LocalAuth::Eap(_) => {
                                self.log_in(channel, cx, claim, contents, not_after)
                            }
                            _ => self.establish(channel, cx, claim, contents, not_after),
                        }
                    }
                    Verdict::Refuted(reason) => self.refuse(channel, cx, reason),
                    Verdict::Undecided(reason) => {
                        if cx.boot().since(answered.since) >= UNDECIDED {
                            return self.refuse(channel, cx, reason);
                        }
                        self.stage = Stage::Undecided(cx.boot() + AGAIN, answered);
                        State::AuthInitiator(self)
                    }
                }
            }
            (Stage::LogIn(login), answer) if login.waits_for(id) => {
                self.log_in_answered(channel, cx, login, answer)
            }
            (stage, answer) => {
                self.stage = stage;
                cx.discard(answer);
                State::AuthInitiator(self)
            }
        }
    }

    fn send(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        proof: Option<AuthPayload<'static>>,
    ) -> State {
        let connection = Arc::clone(&self.connection);
        let mut payloads = vec![id_payload(Role::Initiator, &self.local_id)];
        // RFC 7296 §2.4: only when it is true, and the peer is not to lose what it has with us: what is replaced
        // may be with another server. Never by one of several that share an identity.
        let (server, at) = (self.call.server, channel.path.remote.ip());
        if connection.unique && !cx.knows_peer_beside(channel.id, &connection, server, at) {
            payloads.push(notify(NotifyType::INITIAL_CONTACT));
        }
        if let LocalAuth::Certificate { chain, .. } = &connection.local_auth {
            payloads.extend(
                chain
                    .iter()
                    .map(|der| CertPayload::x509(der.clone()).into()),
            );
        }
        if let RemoteAuth::Certificate { authorities, .. } = &connection.remote_auth {
            payloads.push(CertReqPayload::x509(authorities).into());
        }
        if let IdentityPattern::Exactly(id) = connection.identity_of(self.call.server) {
            payloads.push(Payload::Idr(IdPayload::new(id.clone())));
        }
        payloads.extend(proof.map(Payload::from));
        if !self.wanted.is_empty() {
            payloads.push(config_payload::request(&self.wanted).into());
        }
        if let Some(first) = &mut self.first {
            let packet = self.call.packet.as_ref();
            payloads.extend(first.payloads(channel, &self.wanted, packet));
        }
        if Mobility::is_offered(channel, &connection) {
            payloads.push(notify(NotifyType::MOBIKE_SUPPORTED));
        }
        match channel.send_request(cx, ExchangeType::IKE_AUTH, payloads) {
            Ok(()) => {
                self.stage = Stage::Sent;
                State::AuthInitiator(self)
            }
            Err(reason) => self.fail(channel, cx, reason),
        }
    }

    pub(crate) fn handle_response(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        inbound: Inbound,
    ) -> State {
        if let Stage::Refusing(_) = &self.stage {
            return self.fail(channel, cx, Reason::Operator);
        }
        let contents = match inbound.contents {
            Ok(contents) => contents,
            Err(error) => {
                let error = format!("the peer's IKE_AUTH response is malformed: {error}");
                return self.refuse(channel, cx, Reason::Protocol(error));
            }
        };
        let mut contents = contents;
        if let Stage::LogIn(login) = std::mem::replace(&mut self.stage, Stage::Sent) {
            return self.log_in_goes_on(channel, cx, login, contents);
        }
        match self.claim(channel, &mut contents) {
            Ok(claim) => {
                let answered = Answered {
                    claim,
                    contents,
                    since: cx.boot(),
                };
                self.verify(channel, cx, Box::new(answered))
            }
            Err((reason, true)) => self.refuse(channel, cx, reason),
            Err((reason, false)) => self.fail(channel, cx, reason),
        }
    }

    fn verify(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        answered: Box<Answered>,
    ) -> State {
        if let Some(keys) = &channel.keys {
            let prf = keys.suite().prf;
            let ask = answered.claim.ask(cx, channel, &self.connection, prf);
            self.stage = Stage::Verify(ask, answered);
        }
        State::AuthInitiator(self)
    }

    /// When the peer's proof is judged again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Undecided(at, _) => Some(*at),
            _ => None,
        }
    }

    pub(crate) fn handle_timeout(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> State {
        match std::mem::replace(&mut self.stage, Stage::Sent) {
            Stage::Undecided(at, answered) if at <= cx.boot() => self.verify(channel, cx, answered),
            stage => {
                self.stage = stage;
                State::AuthInitiator(self)
            }
        }
    }

    /// Who the peer says it is, and its proof. The flag tells whether the peer thinks that we have
    /// an IKE SA and has to be told that we do not.
    fn claim(&self, channel: &Channel, contents: &mut Contents) -> Result<Claim, (Reason, bool)> {
        let Some(auth) = contents.auth.take() else {
            let reason = match contents.error() {
                Some(error) => refusal::reason(error, || self.describe_offer()),
                None => Reason::Protocol(
                    "the peer's IKE_AUTH response has no AUTH payload: it has not proven itself, and wants \
                     a log-in by EAP or nothing"
                        .to_owned(),
                ),
            };
            return Err((reason, false));
        };
        let Some(id) = contents.idr.take() else {
            let error = "the peer's IKE_AUTH response has no IDr payload".to_owned();
            return Err((Reason::Protocol(error), true));
        };
        let expected = self.connection.identity_of(self.call.server);
        if !expected.matches(&id.id) {
            let reason = Reason::PeerAuthentication(format!(
                "the peer is {}, this connection expects {expected}",
                identity::display(&id.id)
            ));
            return Err((reason, true));
        }
        let certificates = std::mem::take(&mut contents.certificates);
        if matches!(self.connection.remote_auth, RemoteAuth::Certificate { .. })
            && certificates.is_empty()
        {
            let reason = Reason::PeerAuthentication(
                "the peer sent no certificate: its end is set to a pre-shared key, or not to send \
                 one"
                .to_owned(),
            );
            return Err((reason, true));
        }
        let Some(keys) = &channel.keys else {
            return Err((Reason::Local("no keys".to_owned()), false));
        };
        let octets = auth::signed_octets(
            keys.suite().prf,
            &self.begun.response,
            &self.begun.nonce_i,
            keys.sk_p(Role::Responder),
            &id,
        );
        Ok(Claim {
            id,
            auth: Some(auth),
            certificates,
            octets,
        })
    }

    pub(super) fn describe_offer(&self) -> String {
        self.first
            .as_ref()
            .map_or_else(String::new, First::describe)
    }

    /// Both are authenticated (RFC 7296 §2.21.2: whatever becomes of the Child SA).
    pub(super) fn establish(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        claim: Claim,
        contents: Contents,
        not_after: Option<UtcTime>,
    ) -> State {
        let connection = Arc::clone(&self.connection);
        let (local_id, peer_id) = (self.local_id.id.clone(), claim.id.id);
        let certificates = claim.certificates.as_slice();
        let mut peering = Peering::new(
            cx,
            channel,
            connection,
            (local_id, peer_id),
            certificates,
            not_after,
        );
        peering.server = Some(self.call.server);
        if let Some(after) = self.connection.reauthenticate {
            let at = lifetime::reauthenticate_at(after, cx.boot(), cx.random.as_mut());
            peering.reauthenticate_at = Some(at);
        }
        if let Some(cp) = &contents.cp {
            peering.assigned = config_payload::assigned(cp, &self.wanted);
        }
        // What replaces another takes its place when it carries something, and not before.
        let later = self.call.replaces.is_some() && self.first.is_some();
        if !later && self.unwanted.is_none() {
            peering.use_assigned(cx);
        }
        let offered = Mobility::is_offered(channel, &self.connection);
        channel.mobility.agree(offered, &contents);
        peering.limit(cx, &contents);
        peering.limit_by_certificate(cx);
        let replaces = self.call.replaces.as_ref().map(|(old, _)| *old);
        let initial_contact = contents.has(NotifyType::INITIAL_CONTACT);
        let mut state = establish(cx, channel, peering, replaces, initial_contact);
        // RFC 7296 §2.19: addresses are lent in IKE_AUTH alone, so that a later CREATE_CHILD_SA would
        // be refused for ever.
        let lent_nothing = contents
            .notify(NotifyType::INTERNAL_ADDRESS_FAILURE)
            .filter(|_| state.peering.assigned.addresses.is_empty())
            .map(|error| refusal::reason(error, String::new));
        if let Some(first) = self.first {
            let nonces = (self.begun.nonce_i.as_slice(), self.begun.nonce_r.as_slice());
            first.install(&mut state, channel, cx, &contents, &self.wanted, nonces);
        }
        if let Some(reason) = lent_nothing {
            state.push(cx, Task::DeleteIke { reason });
        }
        if let Some(reason) = self.unwanted {
            if let Some(Exchange::CreateChild(create)) = &mut state.current {
                create.unwanted = true;
            }
            state.push(cx, Task::DeleteIke { reason });
        }
        state.proceed(channel, cx)
    }

    /// We do not accept the peer, which believes the IKE SA to be up (RFC 7296 §2.21.2).
    pub(super) fn refuse(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        channel.retransmit.tries = channel.retransmit.tries.min(2);
        let payload = match &reason {
            // The peer has done nothing wrong.
            Reason::Local(_) => DeletePayload::IkeSa.into(),
            _ => notify(NotifyType::AUTHENTICATION_FAILED),
        };
        let payloads = vec![payload];
        match channel.send_request(cx, ExchangeType::INFORMATIONAL, payloads) {
            Ok(()) => {
                cx.event(self.refused(channel, &reason));
                self.stage = Stage::Refusing(reason);
                State::AuthInitiator(self)
            }
            Err(_) => self.fail(channel, cx, reason),
        }
    }

    fn refused(&self, channel: &Channel, reason: &Reason) -> Event {
        Event {
            connection: Some(self.connection.name.clone()),
            ike_sa: Some(channel.id),
            path: Some(channel.path),
            peer: None,
            kind: EventKind::Refused {
                reason: reason.clone(),
            },
        }
    }

    /// It came to nothing.
    pub(crate) fn fail(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        if let Some(first) = self.first.as_ref().filter(|first| first.spi_in != 0) {
            cx.data(DataCommand::FreeSpi { spi: first.spi_in });
        }
        if self.logging_in {
            cx.data(DataCommand::EndLogIn { ike_sa: channel.id });
        }
        let reason = match &self.stage {
            Stage::Refusing(reason) => reason.clone(),
            _ => {
                cx.event(self.refused(channel, &reason));
                reason
            }
        };
        closed(channel, cx, reason)
    }
}

//! IKE_AUTH, started by the peer: it proves who it is, and only then it is known which connection
//! it is for (RFC 7296 §1.2, §2.15, §2.21).

use std::collections::VecDeque;
use std::sync::Arc;

use cygnet_wire::auth::AuthPayload;
use cygnet_wire::cert::CertPayload;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::IdPayload;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;

use crate::auth;
use crate::config_payload;
use crate::context::{Context, Upcall, Waiting};
use crate::event::{Event, EventKind, Reason};
use crate::identity::IDENTITY_MAX;
use crate::io::{Answer, Ask, AskId, DataCommand, Device, Lease, Path};
use crate::keys::{IkeKeys, Role};
use crate::policy::{Connection, LocalAuth};
use crate::proposal::{self, ChildExchange, EspChoice};
use crate::sa::candidate::{fits, is_named, own_identity};
use crate::sa::channel::{Channel, Inbound};
use crate::sa::child::ChildSa;
use crate::sa::contents::Contents;
use crate::sa::eap_responder::LogIn;
use crate::sa::initiator::Begun;
use crate::sa::mobike;
use crate::sa::negotiate::{Draft, id_payload, notify, syntax_notify, tsi, tsr};
use crate::sa::proof::{AGAIN, Claim, Proving, Verdict, establish};
use crate::sa::room::Room;
use crate::sa::serve_child::{Refusal, choose_policy, refuse_offer};
use crate::sa::{Peering, State, closed};
use crate::time::{Instant, UtcTime};

/// How often a connection is tried about which nobody can tell, before those behind it are: the order
/// has a meaning, but one whose secret cannot be read must not keep out the peers of others.
const TRIES: u32 = 3;

/// Half open.
pub(crate) struct AuthResponder {
    /// Those that the call may be for, in order.
    pub(super) candidates: VecDeque<Arc<Connection>>,
    /// Those that nobody could tell about in [`TRIES`] tries: they come again after the others.
    undecided: VecDeque<(Arc<Connection>, Reason)>,
    /// Tries of the first candidate that came to nothing.
    tries: u32,
    pub(super) begun: Begun,
    deadline: Instant,
    /// The peer's first IKE_AUTH, once it is here.
    pub(super) request: Option<Request>,
    pub(super) stage: Stage,
    /// Whether a log-in has begun, which ends with this.
    pub(super) logging_in: bool,
    /// Why candidates were passed over.
    pub(super) why: Vec<Reason>,
}

/// What the peer asks for.
pub(super) struct Request {
    /// Where its last message came from.
    pub(super) path: Path,
    pub(super) claim: Claim,
    pub(super) contents: Contents,
}

pub(super) enum Stage {
    /// The peer is to send IKE_AUTH.
    Waiting,
    /// Its proof is being verified, as one of this connection.
    Verify(AskId, Arc<Connection>),
    /// Nobody could tell whether it holds: it is asked again then. The peer gets no answer until it
    /// is known, and repeats its request meanwhile: an error would end its try (RFC 7296 §2.21.2).
    Undecided(Instant, Reason),
    /// The peer shows no proof: it logs in.
    LogIn(Box<LogIn>),
    /// Ours is being made.
    Prove(Proving, Box<Proven>),
    /// Addresses are being lent.
    Lease(AskId, Box<Proven>),
    /// The Child SA is being made.
    Spi(AskId, Box<Proven>, Box<Accepted>),
    /// The Child SA is being installed.
    Install(AskId, Box<Proven>, Box<Accepted>, Box<ChildSa>),
}

/// The peer is who it says.
pub(super) struct Proven {
    pub(super) peering: Peering,
    pub(super) proof: Option<AuthPayload<'static>>,
    /// Who we are, unless the peer has been told.
    pub(super) introduce: Option<IdPayload>,
}

/// The Child SA, agreed on.
pub(super) struct Accepted {
    choice: EspChoice,
    draft: Option<Draft>,
}

impl AuthResponder {
    /// IKE_SA_INIT is answered; the call may be for one of `candidates`.
    pub(crate) fn new(cx: &Context, candidates: Vec<Arc<Connection>>, begun: Begun) -> Self {
        Self {
            candidates: candidates.into(),
            undecided: VecDeque::new(),
            tries: 0,
            begun,
            deadline: cx.boot() + cx.policy.limits.half_open_timeout,
            request: None,
            stage: Stage::Waiting,
            logging_in: false,
            why: Vec::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self.stage {
            Stage::Undecided(at, _) => at.min(self.deadline),
            _ => self.deadline,
        }
    }

    pub(crate) fn handle_timeout(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> State {
        if self.deadline > cx.boot() {
            return match self.stage {
                Stage::Undecided(at, _) if at <= cx.boot() => self.next_candidate(channel, cx),
                _ => State::AuthResponder(self),
            };
        }
        let reason = match &self.stage {
            Stage::Waiting => Reason::Protocol("the peer did not authenticate in time".to_owned()),
            Stage::LogIn(login) if login.waits_for_peer() => login.unfinished(),
            Stage::Undecided(_, reason) => reason.clone(),
            _ => Reason::Local("it took too long to authenticate the peer".to_owned()),
        };
        if self.request.is_some() {
            self.report(channel, cx, &reason);
        }
        self.abandon(channel, cx, reason)
    }

    /// It came to nothing; the peer is not told.
    pub(crate) fn abandon(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        if self.logging_in {
            cx.data(DataCommand::EndLogIn { ike_sa: channel.id });
        }
        match self.stage {
            Stage::Install(_, proven, _, child) => {
                child.abandon(cx);
                proven.peering.release(cx);
            }
            Stage::Lease(_, proven) | Stage::Spi(_, proven, _) => proven.peering.release(cx),
            Stage::Waiting
            | Stage::Verify(..)
            | Stage::Undecided(..)
            | Stage::LogIn(_)
            | Stage::Prove(..) => {}
        }
        closed(channel, cx, reason)
    }

    pub(crate) fn handle_request(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        inbound: Inbound,
    ) -> State {
        // RFC 7296 §2.23: an initiator that found a NAT goes on from its other port. The address is the one
        // that it began with (`Channel::only_from`).
        channel.path = inbound.path;
        let exchange = inbound.exchange;
        let contents = match inbound.contents {
            Ok(contents) if exchange == ExchangeType::IKE_AUTH => contents,
            Ok(contents) => {
                // An initiator that does not accept our answer says so and is gone.
                let _ = channel.respond(cx, exchange, inbound.path, Vec::new());
                if let Stage::LogIn(login) = &self.stage {
                    let reason = login.broken_off(exchange, &contents);
                    self.report(channel, cx, &reason);
                    return self.abandon(channel, cx, reason);
                }
                let reason = Reason::Protocol(format!("{exchange} came in the place of IKE_AUTH"));
                return self.abandon(channel, cx, reason);
            }
            Err(error) => {
                let payloads = vec![syntax_notify(&error)];
                let _ = channel.respond(cx, exchange, inbound.path, payloads);
                let reason =
                    Reason::Protocol(format!("the peer's IKE_AUTH request is malformed: {error}"));
                self.report(channel, cx, &reason);
                return self.abandon(channel, cx, reason);
            }
        };
        let mut contents = contents;
        let path = inbound.path;
        if let Some(request) = &mut self.request {
            request.path = path;
            return match std::mem::replace(&mut self.stage, Stage::Waiting) {
                Stage::LogIn(login) => self.log_in_goes_on(channel, cx, login, contents),
                // The window lets no other request through before the first has its answer.
                stage => {
                    self.stage = stage;
                    State::AuthResponder(self)
                }
            };
        }
        let (id, auth) = (contents.idi.take(), contents.auth.take());
        let Some(id) = id else {
            let error = "the peer's IKE_AUTH does not say who it is (no IDi payload)".to_owned();
            return self.refuse(channel, cx, path, Reason::Protocol(error));
        };
        if id.id.data.len() > IDENTITY_MAX {
            let error = format!(
                "the peer's identity has {} octets, expected {IDENTITY_MAX} at most; give it a shorter one",
                id.id.data.len()
            );
            return self.refuse(channel, cx, path, Reason::PeerAuthentication(error));
        }
        let Some(keys) = &channel.keys else {
            return State::AuthResponder(self);
        };
        let octets = auth::signed_octets(
            keys.suite().prf,
            &self.begun.request,
            &self.begun.nonce_r,
            keys.sk_p(Role::Initiator),
            &id,
        );
        let claim = Claim {
            id,
            auth,
            certificates: std::mem::take(&mut contents.certificates),
            octets,
        };
        if let Some(wanted) = &contents.idr {
            // Who names us as a connection does means that one, whoever else has the certificate.
            let other = |c: &Arc<Connection>| !is_named(c, channel, wanted);
            self.candidates.make_contiguous().sort_by_key(other);
        }
        let logs_in = claim.auth.is_none();
        self.request = Some(Request {
            path,
            claim,
            contents,
        });
        match logs_in {
            true => self.begin_log_in(channel, cx),
            false => self.next_candidate(channel, cx),
        }
    }

    /// Tries the peer's claim on the next connection that it fits.
    fn next_candidate(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        let Some(request) = &self.request else {
            return State::AuthResponder(self);
        };
        let Some(keys) = &channel.keys else {
            return State::AuthResponder(self);
        };
        let suite = keys.suite();
        while let Some(connection) = self.candidates.pop_front() {
            let wanted = request.contents.idr.as_ref();
            if let Err(why) = fits(&connection, &request.claim, wanted, channel, &suite) {
                self.why.push(why);
                continue;
            }
            let ask = request.claim.ask(cx, channel, &connection, suite.prf);
            self.stage = Stage::Verify(ask, connection);
            return State::AuthResponder(self);
        }
        if let Some((_, why)) = self.undecided.front() {
            self.stage = Stage::Undecided(cx.boot() + AGAIN, why.clone());
            let undecided = self.undecided.drain(..);
            self.candidates = undecided.map(|(connection, _)| connection).collect();
            return State::AuthResponder(self);
        }
        let path = request.path;
        self.refuse_all(channel, cx, path)
    }

    /// The call is for none of the candidates.
    pub(super) fn refuse_all(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
    ) -> State {
        // What was tried says more than what did not come into question.
        let tried = |why: &&Reason| matches!(why, Reason::PeerAuthentication(_));
        let why = self.why.iter().find(tried).or(self.why.first()).cloned();
        let reason = why.unwrap_or_else(|| {
            Reason::NoConnection("no connection is meant for this peer".to_owned())
        });
        self.refuse(channel, cx, path, reason)
    }

    pub(super) fn report(&self, channel: &Channel, cx: &mut Context, reason: &Reason) {
        let peer = self
            .request
            .as_ref()
            .map(|request| request.claim.id.id.clone());
        cx.counters.refused += 1;
        cx.upcall(Upcall::Stranger(Event {
            connection: None,
            ike_sa: Some(channel.id),
            path: Some(channel.path),
            peer,
            kind: EventKind::Refused {
                reason: reason.clone(),
            },
        }));
    }

    /// RFC 7296 §2.21.2: whatever the cause, the peer learns no more than this.
    pub(super) fn refuse(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        path: Path,
        reason: Reason,
    ) -> State {
        let ty = match &reason {
            Reason::NoProposal(_) => NotifyType::NO_PROPOSAL_CHOSEN,
            _ => NotifyType::AUTHENTICATION_FAILED,
        };
        let _ = channel.respond(cx, ExchangeType::IKE_AUTH, path, vec![notify(ty)]);
        self.report(channel, cx, &reason);
        self.abandon(channel, cx, reason)
    }

    pub(crate) fn handle_answer(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        id: AskId,
        answer: Answer,
    ) -> State {
        let Some(request) = &self.request else {
            cx.discard(answer);
            return State::AuthResponder(self);
        };
        let path = request.path;
        let stage = std::mem::replace(&mut self.stage, Stage::Waiting);
        match (stage, answer) {
            (Stage::Verify(ask, connection), answer) if ask == id => {
                match request.claim.verify(&connection, answer) {
                    Verdict::Proven(not_after) => self.prove(channel, cx, connection, not_after),
                    Verdict::Refuted(why) => {
                        self.why.push(why);
                        self.tries = 0;
                        self.next_candidate(channel, cx)
                    }
                    Verdict::Undecided(why) => {
                        self.tries += 1;
                        if self.tries < TRIES {
                            self.candidates.push_front(connection);
                            self.stage = Stage::Undecided(cx.boot() + AGAIN, why);
                            return State::AuthResponder(self);
                        }
                        self.tries = 0;
                        self.undecided.push_back((connection, why));
                        self.next_candidate(channel, cx)
                    }
                }
            }
            (Stage::LogIn(login), answer) if login.waits_for(id) => {
                self.log_in_answered(channel, cx, login, answer)
            }
            (Stage::Prove(proving, mut proven), answer) if proving.ask == id => {
                match proving.payload(answer) {
                    Ok(payload) => {
                        proven.proof = Some(payload);
                        self.lend(channel, cx, proven)
                    }
                    Err(reason) => self.refuse(channel, cx, path, reason),
                }
            }
            (Stage::Lease(ask, mut proven), Answer::Leased(result)) if ask == id => match result {
                Ok(mut lease) => {
                    let cp = self.request.as_ref().and_then(|r| r.contents.cp.as_ref());
                    // RFC 8598 §3.2: only to those who understand them.
                    if !cp.is_some_and(config_payload::wants_domains) {
                        lease.domains.clear();
                    }
                    if !cp.is_some_and(config_payload::wants_speedtest) {
                        lease.speedtest.clear();
                    }
                    proven.peering.lent = Some(lease);
                    self.choose_child(channel, cx, proven)
                }
                Err(error) => {
                    let reason =
                        Reason::Local(format!("no virtual address could be lent: {error}"));
                    let ty = NotifyType::INTERNAL_ADDRESS_FAILURE;
                    self.respond(channel, cx, *proven, Err(Refusal::because(ty, reason)))
                }
            },
            (Stage::Spi(ask, proven, mut accepted), Answer::Spi(result)) if ask == id => {
                match (result, accepted.draft.take()) {
                    (Ok(spi), Some(draft)) => self.install(
                        channel,
                        cx,
                        proven,
                        accepted,
                        Draft {
                            spi_in: spi,
                            ..draft
                        },
                    ),
                    (Ok(spi), None) => {
                        cx.data(DataCommand::FreeSpi { spi });
                        State::AuthResponder(self)
                    }
                    (Err(error), _) => self.respond(channel, cx, *proven, Err(local(&error))),
                }
            }
            (Stage::Install(ask, proven, accepted, child), Answer::Installed(result))
                if ask == id =>
            {
                match result {
                    Ok(()) => {
                        self.respond(channel, cx, *proven, Ok(Some((accepted.choice, *child))))
                    }
                    Err(error) => {
                        child.abandon(cx);
                        self.respond(channel, cx, *proven, Err(local(&error)))
                    }
                }
            }
            (stage, answer) => {
                self.stage = stage;
                cx.discard(answer);
                State::AuthResponder(self)
            }
        }
    }

    /// The peer is who it says; now we.
    fn prove(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        connection: Arc<Connection>,
        not_after: Option<UtcTime>,
    ) -> State {
        let (Some(request), Some(keys)) = (&self.request, &channel.keys) else {
            return State::AuthResponder(self);
        };
        let path = request.path;
        let wanted = request.contents.idr.as_ref();
        let Some(local_id) = own_identity(&connection, channel, wanted) else {
            // It fitted before.
            return State::AuthResponder(self);
        };
        let local_id = IdPayload::new(local_id);
        let prf = keys.suite().prf;
        let octets = self.own_octets(keys, &local_id);
        let hashes = self.begun.hashes.as_deref();
        match Proving::ask(cx, channel, &connection, hashes, prf, octets) {
            Ok(proving) => {
                let ids = (local_id.id.clone(), request.claim.id.id.clone());
                let shown = request.claim.certificates.as_slice();
                let proven = Proven {
                    peering: Peering::new(cx, channel, connection, ids, shown, not_after),
                    proof: None,
                    introduce: Some(local_id),
                };
                self.stage = Stage::Prove(proving, Box::new(proven));
                State::AuthResponder(self)
            }
            Err(reason) => self.refuse(channel, cx, path, reason),
        }
    }

    /// What our AUTH covers.
    pub(super) fn own_octets(&self, keys: &IkeKeys, local_id: &IdPayload) -> Vec<u8> {
        auth::signed_octets(
            keys.suite().prf,
            &self.begun.response,
            &self.begun.nonce_i,
            keys.sk_p(Role::Responder),
            local_id,
        )
    }

    pub(super) fn lend(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        mut proven: Box<Proven>,
    ) -> State {
        let cp = self.request.as_ref().and_then(|r| r.contents.cp.as_ref());
        let wanted = cp.map(config_payload::wanted).unwrap_or_default();
        match &proven.peering.connection.pool {
            Some(pool) if !wanted.is_empty() => {
                let at = channel.path.remote;
                let several = !proven.peering.is_unique();
                let ask = Ask::Lease {
                    pool: pool.clone(),
                    identity: proven.peering.peer_id.clone(),
                    device: several.then(|| Device {
                        at,
                        here: cx.lines_at(at).into_iter().collect(),
                    }),
                    ike_sa: channel.id,
                    wanted,
                };
                let ask = cx.ask(Waiting::IkeSa(channel.id), ask);
                // Whatever the answer, it is given back at the end.
                proven.peering.lent = Some(Lease::default());
                self.stage = Stage::Lease(ask, proven);
                State::AuthResponder(self)
            }
            _ => self.choose_child(channel, cx, proven),
        }
    }

    fn choose_child(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        proven: Box<Proven>,
    ) -> State {
        let Some(request) = &self.request else {
            return State::AuthResponder(self);
        };
        let contents = &request.contents;
        let Some(offer) = &contents.sa else {
            // RFC 6023: without a child.
            return self.respond(channel, cx, *proven, Ok(None));
        };
        let agreed = choose_policy(&proven.peering, contents, None).and_then(|(policy, sides)| {
            let room = Room::of(&proven.peering.connection);
            room.take_first(&sides).map_err(Refusal::no_room)?;
            let proposals = &policy.esp_proposals;
            match proposal::select_esp(proposals, offer, ChildExchange::IkeAuth, None) {
                Ok(choice) => Ok((policy, sides, choice)),
                Err(why) => {
                    let peering = &proven.peering;
                    Err(refuse_offer(channel, cx, peering, &policy, offer, &why))
                }
            }
        });
        match agreed {
            Ok((policy, sides, choice)) => {
                let draft = Draft {
                    policy,
                    replaces: None,
                    suite: choice.suite,
                    spi_in: 0,
                    spi_out: choice.peer_spi.0,
                    sides,
                };
                let who = Waiting::IkeSa(channel.id);
                let ask = cx.order(who, |id| DataCommand::AllocSpi { id });
                let draft = Some(draft);
                self.stage = Stage::Spi(ask, proven, Box::new(Accepted { choice, draft }));
                State::AuthResponder(self)
            }
            Err(refusal) => self.respond(channel, cx, *proven, Err(refusal)),
        }
    }

    fn install(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        proven: Box<Proven>,
        accepted: Box<Accepted>,
        draft: Draft,
    ) -> State {
        let Some(keys) = &channel.keys else {
            return State::AuthResponder(self);
        };
        let keys = keys.child(draft.suite, None, &self.begun.nonce_i, &self.begun.nonce_r);
        let peering = &proven.peering;
        let (child, ask) = draft.install(cx, channel, peering, keys, Role::Responder);
        self.stage = Stage::Install(ask, proven, accepted, Box::new(child));
        State::AuthResponder(self)
    }

    /// The IKE SA is up, whatever becomes of the child (RFC 7296 §1.2).
    fn respond(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        proven: Proven,
        child: Result<Option<(EspChoice, ChildSa)>, Refusal>,
    ) -> State {
        let Proven {
            peering,
            proof,
            introduce,
        } = proven;
        let Some(request) = self.request else {
            return closed(channel, cx, Reason::Local("no request".to_owned()));
        };
        let connection = Arc::clone(&peering.connection);
        let introduced = introduce.map(|local_id| introduction(&connection, &local_id));
        let mut payloads = introduced.unwrap_or_default();
        payloads.extend(proof.map(Payload::from));
        if let Some(lease) = peering.lent.as_ref().filter(|l| !l.addresses.is_empty()) {
            payloads.push(config_payload::reply(lease).into());
        }
        let mut refused = None;
        match &child {
            Ok(Some((choice, child))) => {
                payloads.push(choice.answer(child.params.spi_in).into());
                payloads.push(tsi(&child.params.remote_ts));
                payloads.push(tsr(&child.params.local_ts));
            }
            Ok(None) => {}
            Err(refusal) => {
                payloads.push(refusal.notify.clone());
                refused = refusal.reason.clone();
            }
        }
        payloads.extend(mobike::answer_offer(
            channel,
            cx,
            &connection,
            &request.contents,
        ));
        channel.retransmit = connection.retransmit;
        if channel.fragment_size != 0 {
            channel.fragment_size = connection.fragment_size;
        }
        let sent = channel.respond(cx, ExchangeType::IKE_AUTH, request.path, payloads);
        let initial_contact = request.contents.has(NotifyType::INITIAL_CONTACT);
        channel.only_from = None;
        let mut state = establish(cx, channel, peering, None, initial_contact);
        if let Err(reason) = sent {
            if let Ok(Some((_, child))) = child {
                child.abandon(cx);
            }
            return state.end(channel, cx, reason);
        }
        if let Some(reason) = refused {
            cx.event(state.event(channel, EventKind::Refused { reason }));
        }
        if let Ok(Some((_, mut child))) = child {
            child.switch_out_after_others(cx);
            child.announce(cx, &state.peering);
            state.children.insert(child.id(), child);
        }
        state.proceed(channel, cx)
    }
}

/// Who we are, and the certificates that say so.
pub(super) fn introduction(connection: &Connection, local_id: &IdPayload) -> Vec<Payload<'static>> {
    let mut payloads = vec![id_payload(Role::Responder, local_id)];
    if let LocalAuth::Certificate { chain, .. } = &connection.local_auth {
        let certificates = chain.iter().map(|der| CertPayload::x509(der.clone()));
        payloads.extend(certificates.map(Payload::from));
    }
    payloads
}

fn local(error: &str) -> Refusal {
    // RFC 7296 §2.21.2: the IKE SA stays; the peer may try again.
    let reason = Reason::Local(format!("the Child SA could not be installed: {error}"));
    Refusal::because(NotifyType::TEMPORARY_FAILURE, reason)
}

//! IKE_AUTH, started by a peer that shows no proof: we prove ourselves first, it logs in by EAP, and both prove that
//! they have the key that comes of it (RFC 7296 §2.16).

use std::sync::Arc;

use cygnet_wire::auth::AuthPayload;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::IdPayload;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;

use crate::context::Context;
use crate::event::Reason;
use crate::identity;
use crate::io::{Answer, AskId, EapStep, EapSuccess};
use crate::policy::Connection;
use crate::sa::auth_responder::{AuthResponder, Proven, Stage, introduction};
use crate::sa::candidate::{fits, own_identity};
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::log_in::{self, Bounds};
use crate::sa::proof::Proving;
use crate::sa::{Peering, State};

/// The peer logs in.
pub(crate) struct LogIn {
    connection: Arc<Connection>,
    local_id: IdPayload,
    /// What our AUTH covers, the one by certificate and the one by the key.
    octets: Vec<u8>,
    bounds: Bounds,
    /// Why it has come to nothing, which the peer has been told.
    rejected: Option<String>,
    turn: Turn,
}

enum Turn {
    /// Our proof by certificate is being made.
    Prove(Proving),
    /// The next packet is being made; our proof travels with the first.
    Ask(AskId, Option<AuthPayload<'static>>),
    /// The peer is to answer.
    Peer,
    /// It has logged in, and is to prove that it has the key.
    Key(Box<EapSuccess>),
}

impl LogIn {
    pub(crate) fn waits_for(&self, id: AskId) -> bool {
        match &self.turn {
            Turn::Prove(proving) => proving.ask == id,
            Turn::Ask(ask, _) => *ask == id,
            Turn::Peer | Turn::Key(_) => false,
        }
    }

    pub(crate) fn waits_for_peer(&self) -> bool {
        matches!(self.turn, Turn::Peer | Turn::Key(_))
    }

    /// Why the peer broke it off.
    pub(super) fn broken_off(&self, exchange: ExchangeType, contents: &Contents) -> Reason {
        if let Some(why) = &self.rejected {
            return Reason::PeerAuthentication(why.clone());
        }
        let refused = contents
            .error()
            .is_some_and(|error| error.ty == NotifyType::AUTHENTICATION_FAILED);
        let why = match (refused, self.bounds.are_untouched()) {
            (true, true) => {
                "the device does not accept this server, and did not log in: it does not trust the server's \
                 authority, or expects another name than those in the server's certificate"
            }
            (true, false) => "the device broke off its log-in; its own log may tell why",
            (false, _) => {
                return Reason::Protocol(format!(
                    "{exchange} came in the place of the peer's log-in"
                ));
            }
        };
        Reason::AuthenticationRefused(why.to_owned())
    }

    /// Why it took too long, when it was the peer's turn.
    pub(super) fn unfinished(&self) -> Reason {
        match &self.rejected {
            Some(why) => Reason::PeerAuthentication(why.clone()),
            None => Reason::Protocol("the peer did not finish its log-in in time".to_owned()),
        }
    }
}

impl AuthResponder {
    /// The peer's first IKE_AUTH is here, without a proof.
    pub(super) fn begin_log_in(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
    ) -> State {
        let (Some(request), Some(keys)) = (&self.request, &channel.keys) else {
            return State::AuthResponder(self);
        };
        let (path, suite) = (request.path, keys.suite());
        let wanted = request.contents.idr.as_ref();
        let mut fitting = None;
        for connection in &self.candidates {
            match fits(connection, &request.claim, wanted, channel, &suite) {
                Ok(()) => {
                    fitting = own_identity(connection, channel, wanted).map(|id| (connection, id))
                }
                Err(why) => self.why.push(why),
            }
            if fitting.is_some() {
                break;
            }
        }
        let Some((connection, local_id)) = fitting else {
            return self.refuse_all(channel, cx, path);
        };
        let (connection, local_id) = (Arc::clone(connection), IdPayload::new(local_id));
        let octets = self.own_octets(keys, &local_id);
        let hashes = self.begun.hashes.as_deref();
        match Proving::ask(cx, channel, &connection, hashes, suite.prf, octets.clone()) {
            Ok(proving) => {
                let login = LogIn {
                    connection,
                    local_id,
                    octets,
                    bounds: Bounds::default(),
                    rejected: None,
                    turn: Turn::Prove(proving),
                };
                self.stage = Stage::LogIn(Box::new(login));
                State::AuthResponder(self)
            }
            Err(reason) => self.refuse(channel, cx, path, reason),
        }
    }

    /// The answer that `login` waits for.
    pub(super) fn log_in_answered(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        mut login: Box<LogIn>,
        answer: Answer,
    ) -> State {
        let Some(path) = self.request.as_ref().map(|request| request.path) else {
            return State::AuthResponder(self);
        };
        let turn = std::mem::replace(&mut login.turn, Turn::Peer);
        let (step, proof) = match (turn, answer) {
            (Turn::Prove(proving), answer) => match proving.payload(answer) {
                Ok(proof) => {
                    let ask = log_in::ask(channel, cx, &login.connection, None);
                    self.logging_in = true;
                    login.turn = Turn::Ask(ask, Some(proof));
                    self.stage = Stage::LogIn(login);
                    return State::AuthResponder(self);
                }
                Err(reason) => return self.refuse(channel, cx, path, reason),
            },
            (Turn::Ask(_, proof), Answer::Eap(Ok(step))) => (step, proof),
            (Turn::Ask(..), Answer::Eap(Err(error))) => {
                let reason = Reason::Local(format!("the peer cannot log in: {error}"));
                return self.refuse(channel, cx, path, reason);
            }
            (Turn::Ask(..) | Turn::Peer | Turn::Key(_), _) => {
                let error = "the question for the log-in got another answer".to_owned();
                return self.refuse(channel, cx, path, Reason::Local(error));
            }
        };
        let mut payloads = Vec::new();
        if let Some(proof) = proof {
            payloads = introduction(&login.connection, &login.local_id);
            payloads.push(proof.into());
        }
        let failure = match step {
            EapStep::Send(packet) => {
                payloads.push(Payload::Eap(packet));
                login.turn = Turn::Peer;
                None
            }
            EapStep::Reject { packet, why } => {
                payloads.push(Payload::Eap(packet));
                login.turn = Turn::Peer;
                login.rejected = Some(why);
                None
            }
            EapStep::Success(mut success) => {
                payloads.extend(success.packet.take().map(Payload::Eap));
                login.turn = Turn::Key(success);
                None
            }
            EapStep::Failure { packet, why } => {
                payloads.extend(packet.map(Payload::Eap));
                Some(Reason::PeerAuthentication(why))
            }
        };
        if failure.is_none() && channel.fragment_size != 0 {
            channel.fragment_size = login.connection.fragment_size;
        }
        let sent = channel.respond(cx, ExchangeType::IKE_AUTH, path, payloads);
        match (failure, sent) {
            (Some(reason), _) | (None, Err(reason)) => {
                self.report(channel, cx, &reason);
                self.abandon(channel, cx, reason)
            }
            (None, Ok(())) => {
                self.stage = Stage::LogIn(login);
                State::AuthResponder(self)
            }
        }
    }

    /// The peer goes on.
    pub(super) fn log_in_goes_on(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        mut login: Box<LogIn>,
        mut contents: Contents,
    ) -> State {
        let Some(path) = self.request.as_ref().map(|request| request.path) else {
            return State::AuthResponder(self);
        };
        match std::mem::replace(&mut login.turn, Turn::Peer) {
            Turn::Key(success) => {
                match self.prove_by_key(channel, cx, &login, *success, &mut contents) {
                    Ok(proven) => self.lend(channel, cx, proven),
                    Err(reason) => self.refuse(channel, cx, path, reason),
                }
            }
            _ => match login.bounds.take(&mut contents) {
                Ok(packet) => {
                    let ask = log_in::ask(channel, cx, &login.connection, Some(packet));
                    login.turn = Turn::Ask(ask, None);
                    self.stage = Stage::LogIn(login);
                    State::AuthResponder(self)
                }
                Err(reason) => self.refuse(channel, cx, path, reason),
            },
        }
    }

    /// What the key proves: who the peer is, and that we are still the ones who proved themselves.
    fn prove_by_key(
        &self,
        channel: &Channel,
        cx: &mut Context,
        login: &LogIn,
        success: EapSuccess,
        contents: &mut Contents,
    ) -> Result<Box<Proven>, Reason> {
        let (Some(request), Some(keys)) = (&self.request, &channel.keys) else {
            return Err(Reason::Local("no keys".to_owned()));
        };
        let prf = keys.suite().prf;
        log_in::verify(&success, prf, &request.claim.octets, contents)?;
        let connection = &login.connection;
        if !connection.remote_identity.matches(&success.identity) {
            return Err(Reason::PeerAuthentication(format!(
                "{} has logged in, connection {} expects {}",
                identity::display(&success.identity),
                connection.name,
                connection.remote_identity
            )));
        }
        let proof = log_in::prove(&success, prf, &login.octets);
        let ids = (login.local_id.id.clone(), success.identity);
        let shown = success.certificates.as_slice();
        let mut peering = Peering::new(
            cx,
            channel,
            Arc::clone(connection),
            ids,
            shown,
            success.not_after,
        );
        peering.secret = success.secret;
        peering.claimed_id = Some(request.claim.id.id.clone());
        Ok(Box::new(Proven {
            peering,
            proof: Some(proof),
            introduce: None,
        }))
    }
}

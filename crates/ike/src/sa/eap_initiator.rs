//! IKE_AUTH, started by us, without a proof: the peer proves itself first, we log in by EAP, and both prove that they
//! have the key that comes of it (RFC 7296 §2.16).

use cygnet_wire::eap::EapCode;
use cygnet_wire::header::ExchangeType;
use cygnet_wire::payload::Payload;

use crate::context::Context;
use crate::event::Reason;
use crate::io::{Answer, AskId, EapStep, EapSuccess};
use crate::refusal;
use crate::sa::State;
use crate::sa::auth_initiator::{AuthInitiator, Stage};
use crate::sa::channel::Channel;
use crate::sa::contents::Contents;
use crate::sa::log_in::{self, Bounds};
use crate::sa::proof::Claim;
use crate::time::UtcTime;

/// We log in.
pub(crate) struct LogIn {
    /// The peer, whose proof holds.
    server: Claim,
    not_after: Option<UtcTime>,
    bounds: Bounds,
    turn: Turn,
}

enum Turn {
    /// Our next packet is being made; whether the peer has ended the log-in.
    Ask(AskId, bool),
    /// The peer is to answer.
    Peer,
    /// We are logged in and have proven that we have the key; the peer is to do the same.
    Key(Box<EapSuccess>),
}

impl LogIn {
    pub(crate) fn waits_for(&self, id: AskId) -> bool {
        matches!(self.turn, Turn::Ask(ask, _) if ask == id)
    }
}

impl AuthInitiator {
    /// The peer is the one that we called.
    pub(super) fn log_in(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        server: Claim,
        contents: Contents,
        not_after: Option<UtcTime>,
    ) -> State {
        let login = LogIn {
            server,
            not_after,
            bounds: Bounds::default(),
            turn: Turn::Peer,
        };
        self.logging_in = true;
        self.log_in_goes_on(channel, cx, Box::new(login), contents)
    }

    /// The peer has sent the next packet, or its proof.
    pub(super) fn log_in_goes_on(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        mut login: Box<LogIn>,
        mut contents: Contents,
    ) -> State {
        if contents.eap.is_none()
            && contents.auth.is_none()
            && let Some(error) = contents.error()
        {
            let reason = refusal::reason(error, || self.describe_offer());
            return self.fail(channel, cx, reason);
        }
        match std::mem::replace(&mut login.turn, Turn::Peer) {
            Turn::Key(success) => {
                let Some(prf) = channel.keys.as_ref().map(|keys| keys.suite().prf) else {
                    return State::AuthInitiator(self);
                };
                let octets = &login.server.octets;
                match log_in::verify(&success, prf, octets, &mut contents) {
                    Ok(()) => self.establish(channel, cx, login.server, contents, login.not_after),
                    Err(reason) => self.refuse(channel, cx, reason),
                }
            }
            Turn::Ask(..) | Turn::Peer => match login.bounds.take(&mut contents) {
                Ok(packet) => {
                    let over = packet.code == EapCode::FAILURE;
                    let ask = log_in::ask(channel, cx, &self.connection, Some(packet));
                    login.turn = Turn::Ask(ask, over);
                    self.stage = Stage::LogIn(login);
                    State::AuthInitiator(self)
                }
                Err(reason) => self.refuse(channel, cx, reason),
            },
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
        let over = matches!(login.turn, Turn::Ask(_, true));
        let payload = match answer {
            // The peer will say that it has failed, too.
            Answer::Eap(Ok(EapStep::Send(packet) | EapStep::Reject { packet, .. })) => {
                login.turn = Turn::Peer;
                Payload::Eap(packet)
            }
            Answer::Eap(Ok(EapStep::Success(success))) => {
                let Some(keys) = &channel.keys else {
                    return State::AuthInitiator(self);
                };
                let prf = keys.suite().prf;
                let proof = log_in::prove(&success, prf, &self.own_octets(keys));
                login.turn = Turn::Key(success);
                proof.into()
            }
            // Who has ended it does not have to be told.
            Answer::Eap(Ok(EapStep::Failure { why, .. })) if over => {
                return self.fail(channel, cx, Reason::AuthenticationRefused(why));
            }
            Answer::Eap(Ok(EapStep::Failure { why, .. })) => {
                return self.refuse(channel, cx, Reason::PeerAuthentication(why));
            }
            Answer::Eap(Err(error)) => {
                let reason = Reason::Local(format!("we cannot log in: {error}"));
                return self.refuse(channel, cx, reason);
            }
            _ => {
                let error = "the question for our log-in got another answer".to_owned();
                return self.refuse(channel, cx, Reason::Local(error));
            }
        };
        match channel.send_request(cx, ExchangeType::IKE_AUTH, vec![payload]) {
            Ok(()) => {
                self.stage = Stage::LogIn(login);
                State::AuthInitiator(self)
            }
            Err(reason) => self.fail(channel, cx, reason),
        }
    }
}

//! Whoever keeps the conversations, the users and their passwords.

use std::collections::BTreeMap;

use cygnet_eap::mschapv2::{self, nt_hash};
use cygnet_eap::{Login, Proof, Step, peer, server};
use cygnet_ike::io::{Answer, EapStep, EapSuccess, IkeSaId};
use cygnet_ike::policy::{Connection, EapLogin, EapMethods, LocalAuth};
use cygnet_wire::eap::EapPayload;
use cygnet_wire::id::Identification;

use super::TestRandom;

pub struct LogIns {
    pub passwords: BTreeMap<&'static str, &'static str>,
    /// Of the one that this end logs in with.
    pub own_password: &'static str,
    /// The conversations are lost.
    pub forgetful: bool,
    /// Another key comes of it than at the other end.
    pub other_key: bool,
    /// A refusal is not acknowledged: it is over at once, as with strongSwan's devices.
    pub breaks_off: bool,
    /// Every answer is another request for the identity.
    pub endless: bool,
    servers: BTreeMap<IkeSaId, server::Server>,
    peers: BTreeMap<IkeSaId, peer::Peer>,
    random: TestRandom,
}

impl Default for LogIns {
    fn default() -> Self {
        Self {
            passwords: BTreeMap::from([("alice", "correct horse")]),
            own_password: "correct horse",
            forgetful: false,
            other_key: false,
            breaks_off: false,
            endless: false,
            servers: BTreeMap::new(),
            peers: BTreeMap::new(),
            random: TestRandom::new(99),
        }
    }
}

impl LogIns {
    /// Conversations that have come to no end.
    pub fn under_way(&self) -> usize {
        self.servers.len() + self.peers.len()
    }

    pub(super) fn end(&mut self, ike_sa: IkeSaId) {
        self.servers.remove(&ike_sa);
        self.peers.remove(&ike_sa);
    }

    pub(super) fn answer(
        &mut self,
        ike_sa: IkeSaId,
        connection: &Connection,
        peer_logs_in: bool,
        packet: Option<EapPayload<'static>>,
    ) -> Answer {
        if self.forgetful {
            return Answer::Eap(Err("too many log in at once".to_owned()));
        }
        let step = match peer_logs_in {
            true => self.serve(ike_sa, connection, packet),
            false => self.log_in(ike_sa, connection, packet.expect("the server begins")),
        };
        let mut step = step;
        if let EapStep::Success(success) = &mut step
            && self.other_key
        {
            success.msk.expose_mut().reverse();
        }
        if !matches!(step, EapStep::Send(_) | EapStep::Reject { .. }) {
            self.end(ike_sa);
        }
        Answer::Eap(Ok(step))
    }

    fn serve(
        &mut self,
        ike_sa: IkeSaId,
        connection: &Connection,
        packet: Option<EapPayload<'static>>,
    ) -> EapStep {
        let Some(packet) = packet.filter(|_| !self.endless) else {
            let mut server = server::Server::new("b.example.org", server::Methods::passwords());
            let request = server.begin(&mut self.random);
            self.servers.insert(ike_sa, server);
            return EapStep::Send(request);
        };
        let server = self.servers.get_mut(&ike_sa).expect("begun");
        let step = match server.handle(&packet, &mut self.random) {
            Step::Ask(attempt) => {
                let password = self.passwords.get(attempt.user.as_str());
                let hash = nt_hash(password.copied().unwrap_or("nobody's"));
                server.verified(mschapv2::verify(&hash, &attempt))
            }
            step => step,
        };
        let secret = |user: &str| {
            let passwords = connection.eap.passwords.as_ref().expect("asked for");
            EapMethods::secret_of(passwords, user)
        };
        told(step, |user| Some(secret(user)))
    }

    fn log_in(
        &mut self,
        ike_sa: IkeSaId,
        connection: &Connection,
        packet: EapPayload<'static>,
    ) -> EapStep {
        let LocalAuth::Eap(EapLogin::Password { user, .. }) = &connection.local_auth else {
            panic!("not by password");
        };
        // EAP-MSCHAPv2's Failure.
        if self.breaks_off && packet.data.starts_with(&[4]) {
            return EapStep::Failure {
                packet: None,
                why: "the user name or the password is wrong".to_owned(),
            };
        }
        let peer = self.peers.entry(ike_sa);
        let peer = peer.or_insert_with(|| peer::Peer::new(user, peer::LogIn::Password));
        let step = match peer.handle(&packet, &mut self.random) {
            Step::Ask(challenges) => {
                let hash = nt_hash(self.own_password);
                peer.responded(mschapv2::respond(&hash, &challenges))
            }
            step => step,
        };
        told(step, |_| None)
    }
}

fn told<Q>(
    step: Step<Q>,
    secret: impl FnOnce(&str) -> Option<cygnet_ike::policy::CredentialId>,
) -> EapStep {
    match step {
        Step::Send(packet) => EapStep::Send(packet),
        Step::Reject { packet, why } => EapStep::Reject { packet, why },
        Step::Success {
            packet,
            login:
                Login {
                    proof: Proof::Password(user),
                    msk,
                },
        } => EapStep::Success(Box::new(EapSuccess {
            packet,
            msk,
            secret: secret(&user),
            identity: Identification::key_id(user.as_bytes()),
            certificates: Vec::new(),
            not_after: None,
        })),
        Step::Failure { packet, why } => EapStep::Failure { packet, why },
        Step::Ask(_) | Step::Success { .. } => panic!("asked twice, or no password"),
    }
}

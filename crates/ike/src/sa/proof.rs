//! Proof of identity in IKE_AUTH, the same in both roles: ours is asked of whoever holds the
//! secret, the peer's is verified, and with both the IKE SA is up (RFC 7296 §2.15, §2.16).

use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::signature::HashAlgorithm;
use cygnet_crypto::suite::Prf;
use cygnet_wire::auth::AuthPayload;
use cygnet_wire::id::{IdPayload, Identification};

use crate::auth::{self, Signing};
use crate::context::{Context, Upcall, Waiting};
use crate::event::{EventKind, Reason};
use crate::io::{Answer, Ask, AskId, ChainError, IkeSaId, Lease};
use crate::nat::Nat;
use crate::policy::{Connection, LocalAuth, RemoteAuth};
use crate::sa::Peering;
use crate::sa::allowance::Allowance;
use crate::sa::channel::Channel;
use crate::sa::established::{Established, Life};
use crate::time::UtcTime;

/// When a proof that could not be judged is judged again.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// What is thought of a peer's proof.
pub(crate) enum Verdict {
    /// It holds; until when the peer's certificate is good.
    Proven(Option<UtcTime>),
    /// It does not.
    Refuted(Reason),
    /// Nobody could judge it, for reasons of our own: the peer is not to blame, and not to be told
    /// that it failed.
    Undecided(Reason),
}

/// Who the peer says it is, and its proof.
pub(crate) struct Claim {
    pub(crate) id: IdPayload,
    /// `None`: it has none to show yet and logs in by EAP (RFC 7296 §2.16).
    pub(crate) auth: Option<AuthPayload<'static>>,
    /// DER, leaf first.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// What its proof covers.
    pub(crate) octets: Vec<u8>,
}

impl Claim {
    /// Asks what the proof has to be compared with, as one of a peer of `connection`.
    pub(crate) fn ask(
        &self,
        cx: &mut Context,
        channel: &Channel,
        connection: &Connection,
        prf: Prf,
    ) -> AskId {
        let ask = match &connection.remote_auth {
            RemoteAuth::Psk(credential) => Ask::PskAuth {
                credential: credential.clone(),
                prf,
                octets: self.octets.clone(),
            },
            RemoteAuth::Certificate { trust, .. } => Ask::ValidateChain {
                trust: trust.clone(),
                certificates: self.certificates.clone(),
                identity: self.id.id.clone(),
                peer_is_responder: channel.dialed,
                again: false,
            },
        };
        cx.ask(Waiting::IkeSa(channel.id), ask)
    }

    /// Whether it holds.
    pub(crate) fn verify(&self, connection: &Connection, answer: Answer) -> Verdict {
        let Some(auth) = &self.auth else {
            let why = "the peer has shown no proof".to_owned();
            return Verdict::Refuted(Reason::PeerAuthentication(why));
        };
        let verdict = match (&connection.remote_auth, answer) {
            (RemoteAuth::Psk(_), Answer::Mac(Ok(expected))) => {
                auth::verify_mac(auth, &expected).map(|()| None)
            }
            (RemoteAuth::Certificate { allow_sha1, .. }, Answer::Chain(Ok(key))) => {
                auth::verify_signature(auth, &key.spki, &self.octets, *allow_sha1)
                    .map(|()| Some(key.not_after))
            }
            (_, Answer::Chain(Err(ChainError::Invalid(error)))) => {
                return Verdict::Refuted(Reason::PeerAuthentication(error));
            }
            (_, Answer::Chain(Err(ChainError::Unavailable(error)))) => {
                return Verdict::Undecided(Reason::Local(format!(
                    "the peer's certificate could not be validated: {error}"
                )));
            }
            (_, Answer::Mac(Err(error))) => {
                return Verdict::Undecided(Reason::Local(format!(
                    "the pre-shared key cannot be used: {error}"
                )));
            }
            _ => {
                return Verdict::Undecided(Reason::Local(
                    "the question for the peer's key got another answer".to_owned(),
                ));
            }
        };
        match verdict {
            Ok(not_after) => Verdict::Proven(not_after),
            Err(error) => Verdict::Refuted(Reason::PeerAuthentication(error.to_string())),
        }
    }
}

/// Our proof, while it is being made.
pub(crate) struct Proving {
    pub(crate) ask: AskId,
    /// How a signature is made; `None`: it is a MAC.
    signing: Option<Signing>,
}

impl Proving {
    /// Asks whoever holds the secret of `connection` for our AUTH over `octets`.
    pub(crate) fn ask(
        cx: &mut Context,
        channel: &Channel,
        connection: &Connection,
        hashes: Option<&[HashAlgorithm]>,
        prf: Prf,
        octets: Vec<u8>,
    ) -> Result<Self, Reason> {
        let (ask, signing) = match &connection.local_auth {
            LocalAuth::Psk(credential) => {
                let credential = credential.clone();
                let ask = Ask::PskAuth {
                    credential,
                    prf,
                    octets,
                };
                (ask, None)
            }
            LocalAuth::Certificate {
                credential,
                key,
                pss,
                ..
            } => {
                let signing = auth::choose_scheme(*key, *pss, hashes)
                    .map_err(|e| Reason::Local(e.to_string()))?;
                let ask = Ask::Sign {
                    credential: credential.clone(),
                    scheme: signing.scheme,
                    octets,
                };
                (ask, Some(signing))
            }
            LocalAuth::Eap(_) => {
                return Err(Reason::Local(
                    "this connection logs in by EAP and has no proof of its own".to_owned(),
                ));
            }
        };
        let ask = cx.ask(Waiting::IkeSa(channel.id), ask);
        Ok(Self { ask, signing })
    }

    /// Our AUTH payload.
    pub(crate) fn payload(self, answer: Answer) -> Result<AuthPayload<'static>, Reason> {
        match (self.signing, answer) {
            (Some(signing), Answer::Signed(Ok(signature))) => {
                auth::signature_payload(signing, &signature)
                    .map_err(|e| Reason::Local(e.to_string()))
            }
            (None, Answer::Mac(Ok(mac))) => Ok(auth::mac_payload(&mac)),
            (_, Answer::Signed(Err(error)) | Answer::Mac(Err(error))) => Err(Reason::Local(
                format!("we cannot prove our identity: {error}"),
            )),
            _ => Err(Reason::Local(
                "the question for our proof got another answer".to_owned(),
            )),
        }
    }
}

impl Peering {
    /// Two ends, the peer's identity proven just now on `channel`.
    pub(crate) fn new(
        cx: &Context,
        channel: &Channel,
        connection: Arc<Connection>,
        (local_id, peer_id): (Identification, Identification),
        certificates: &[Vec<u8>],
        not_after: Option<UtcTime>,
    ) -> Self {
        Self {
            connection,
            certificates: certificates.into(),
            secret: None,
            local_id,
            peer_id,
            claimed_id: None,
            outer: (channel.path.local.ip(), channel.path.remote.ip()),
            dialed: channel.dialed,
            server: None,
            origin: (channel.spi_i, channel.spi_r),
            authenticated_as: channel.id,
            authenticated_at: cx.boot(),
            not_after,
            reauthenticate_at: None,
            superseded_at: None,
            assigned: Lease::default(),
            uses_assigned: false,
            lent: None,
            allowance: Allowance::new(cx.boot()),
            moves: Allowance::new(cx.boot()),
        }
    }
}

/// Both are authenticated: the IKE SA is up, and everybody is told.
pub(crate) fn establish(
    cx: &mut Context,
    channel: &Channel,
    peering: Peering,
    replaces: Option<IkeSaId>,
    initial_contact: bool,
) -> Box<Established> {
    let state = Box::new(Established::new(cx, peering, Life::Live, replaces));
    let suite = channel.keys.as_ref().map(|keys| keys.suite().to_string());
    let Nat { local, remote, .. } = channel.nat;
    cx.event(state.event(
        channel,
        EventKind::IkeUp {
            suite: suite.unwrap_or_default(),
            nat_local: local,
            nat_remote: remote,
            replaces: state.replaces,
        },
    ));
    cx.counters.established += 1;
    cx.upcall(Upcall::Established {
        sa: channel.id,
        initial_contact,
    });
    state
}

//! IKE_AUTH, started by us: prove who we are, verify who answers, make the first Child SA
//! (RFC 7296 §1.2, §2.15, §2.16, §2.19, §2.21.2).

use std::sync::Arc;

use cygnet_wire::auth::AuthPayload;
use cygnet_wire::cert::{CertPayload, CertReqPayload};
use cygnet_wire::header::ExchangeType;
use cygnet_wire::id::{IdPayload, Identification};
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::SaPayload;

use crate::auth::{self, Signing};
use crate::config_payload;
use crate::context::{Context, Upcall, Waiting};
use crate::event::{Event, EventKind, Reason};
use crate::identity;
use crate::io::{Answer, Ask, AskId, DataCommand, Lease, WantedAddress};
use crate::keys::Role;
use crate::lifetime;
use crate::nat::Nat;
use crate::policy::{ChildPolicy, Connection, IdentityPattern, LocalAuth, RemoteAuth};
use crate::proposal::{self, ChildExchange};
use crate::refusal;
use crate::sa::channel::{Channel, Inbound};
use crate::sa::contents::Contents;
use crate::sa::create_child::CreateChild;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::{Exchange, Task};
use crate::sa::initiator::{Begun, Call};
use crate::sa::negotiate::{Draft, Sides, id_payload, notify, tsi, tsr};
use crate::sa::{Peering, State, closed};
use crate::selector::{self, Dynamic};
use crate::time::UtcTime;

/// IKE_AUTH under way.
pub(crate) struct AuthInitiator {
    pub(crate) connection: Arc<Connection>,
    call: Call,
    begun: Begun,
    local_id: IdPayload,
    /// The first Child SA, if there is to be one.
    first: Option<First>,
    /// What we ask for.
    wanted: Vec<WantedAddress>,
    /// It is to end as soon as it is up: the peer may have it already.
    unwanted: Option<Reason>,
    stage: Stage,
}

struct First {
    policy: Arc<ChildPolicy>,
    spi_in: u32,
    offer: SaPayload,
    sides: Sides,
}

enum Stage {
    /// An SPI is being reserved.
    Spi(AskId),
    /// Our proof is being made.
    Prove(AskId, Option<Signing>),
    /// The request is in flight.
    Sent,
    /// The peer's proof is being verified.
    Verify(AskId, Box<Claimed>),
    /// We have told the peer that we do not believe it, and why we do not.
    Refusing(Reason),
}

/// What the peer says of itself.
struct Claimed {
    id: IdPayload,
    auth: AuthPayload<'static>,
    octets: Vec<u8>,
    contents: Contents,
}

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
        let wanted = match &call.replaces {
            // The new IKE SA keeps the addresses of the old.
            Some((_, lease)) if !lease.addresses.is_empty() => lease
                .addresses
                .iter()
                .map(|address| match *address {
                    std::net::IpAddr::V4(v4) => WantedAddress::V4(Some(v4)),
                    std::net::IpAddr::V6(v6) => WantedAddress::V6(Some(v6)),
                })
                .collect(),
            _ => connection.request_virtual.clone(),
        };
        let mut state = Box::new(Self {
            connection,
            call,
            begun,
            local_id: IdPayload::new(local_id),
            first: None,
            wanted,
            unwanted: None,
            stage: Stage::Sent,
        });
        match child {
            Some(child) => {
                let who = Waiting::IkeSa(channel.id);
                let ask = cx.order(who, |id| DataCommand::AllocSpi { id });
                state.first = Some(First {
                    policy: child,
                    spi_in: 0,
                    offer: SaPayload {
                        proposals: Vec::new(),
                    },
                    sides: Sides::default(),
                });
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
            Stage::Spi(_) | Stage::Prove(..) => self.fail(channel, cx, reason),
            Stage::Sent | Stage::Verify(..) | Stage::Refusing(_) => {
                self.unwanted.get_or_insert(reason);
                State::AuthInitiator(self)
            }
        }
    }

    /// Asks for our AUTH.
    fn prove(mut self: Box<Self>, channel: &mut Channel, cx: &mut Context) -> State {
        let Some(keys) = &channel.keys else {
            return State::AuthInitiator(self);
        };
        let prf = keys.suite().prf;
        let octets = auth::signed_octets(
            prf,
            &self.begun.request,
            &self.begun.nonce_r,
            keys.sk_p(Role::Initiator),
            &self.local_id,
        );
        let who = Waiting::IkeSa(channel.id);
        match ask_for_proof(
            cx,
            who,
            &self.connection,
            self.begun.hashes.as_deref(),
            prf,
            octets,
        ) {
            Ok((ask, signing)) => {
                self.stage = Stage::Prove(ask, signing);
                State::AuthInitiator(self)
            }
            Err(reason) => self.fail(channel, cx, reason),
        }
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
            (Stage::Prove(ask, signing), answer) if ask == id => {
                match proof_payload(signing, answer) {
                    Ok(payload) => self.send(channel, cx, payload),
                    Err(reason) => self.fail(channel, cx, reason),
                }
            }
            (Stage::Verify(ask, claimed), answer) if ask == id => {
                let verdict = verify(&self.connection, &claimed.auth, &claimed.octets, answer);
                match verdict {
                    Ok(not_after) => self.establish(channel, cx, *claimed, not_after),
                    Err(reason) => self.refuse(channel, cx, reason),
                }
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
        proof: AuthPayload<'static>,
    ) -> State {
        let connection = Arc::clone(&self.connection);
        let mut payloads = vec![id_payload(Role::Initiator, &self.local_id)];
        // RFC 7296 §2.4: only when it is true, and the peer is not to lose what it has with us.
        if self.call.replaces.is_none()
            && !cx.knows_peer_beside(channel.id, &connection, channel.path.remote.ip())
        {
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
        if let IdentityPattern::Exactly(id) = &connection.remote_identity {
            payloads.push(Payload::Idr(IdPayload::new(id.clone())));
        }
        payloads.push(proof.into());
        if !self.wanted.is_empty() {
            payloads.push(config_payload::request(&self.wanted).into());
        }
        if let Some(first) = &mut self.first {
            let dynamic = match self.wanted.is_empty() {
                true => Dynamic::Virtual(&[], channel.path.local.ip()),
                false => Dynamic::Wanted(&self.wanted),
            };
            let local = selector::expand(&first.policy.local, dynamic);
            let outer = Dynamic::Virtual(&[], channel.path.remote.ip());
            let remote = selector::expand(&first.policy.remote, outer);
            let packet = self.call.packet.as_ref();
            first.sides = (
                selector::with_packet(packet.map(|p| &p.0), local),
                selector::with_packet(packet.map(|p| &p.1), remote),
            );
            let proposals = &first.policy.esp_proposals;
            first.offer = proposal::offer_esp(proposals, first.spi_in, ChildExchange::IkeAuth);
            payloads.push(first.offer.clone().into());
            payloads.push(tsi(&first.sides.0));
            payloads.push(tsr(&first.sides.1));
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
        self: Box<Self>,
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
        match self.claim(channel, contents) {
            Ok((mut state, claimed)) => {
                let who = Waiting::IkeSa(channel.id);
                let prf = channel.keys.as_ref().map(|keys| keys.suite().prf);
                let ask = match (&state.connection.remote_auth, prf) {
                    (RemoteAuth::Psk(credential), Some(prf)) => Ask::PskAuth {
                        credential: credential.clone(),
                        prf,
                        octets: claimed.octets.clone(),
                    },
                    (RemoteAuth::Certificate { trust, .. }, _) => Ask::ValidateChain {
                        trust: trust.clone(),
                        certificates: claimed.contents.certificates.clone(),
                        identity: claimed.id.id.clone(),
                        peer_is_responder: true,
                    },
                    (RemoteAuth::Psk(_), None) => return State::AuthInitiator(state),
                };
                state.stage = Stage::Verify(cx.ask(who, ask), Box::new(claimed));
                State::AuthInitiator(state)
            }
            Err((state, reason, tell)) if tell => state.refuse(channel, cx, reason),
            Err((state, reason, _)) => state.fail(channel, cx, reason),
        }
    }

    /// Who the peer says it is, and its proof. The flag tells whether the peer thinks that we have
    /// an IKE SA and has to be told that we do not.
    #[allow(clippy::type_complexity, reason = "the state travels with the failure")]
    fn claim(
        self: Box<Self>,
        channel: &Channel,
        mut contents: Contents,
    ) -> Result<(Box<Self>, Claimed), (Box<Self>, Reason, bool)> {
        let Some(auth) = contents.auth.take() else {
            let reason = match contents.error() {
                Some(error) => refusal::reason(error, || self.describe_offer()),
                None => Reason::Protocol(
                    "the peer's IKE_AUTH response has no AUTH payload: it wants EAP, which this \
                     connection does not do"
                        .to_owned(),
                ),
            };
            return Err((self, reason, false));
        };
        let Some(id) = contents.idr.take() else {
            let error = "the peer's IKE_AUTH response has no IDr payload".to_owned();
            return Err((self, Reason::Protocol(error), true));
        };
        if !self.connection.remote_identity.matches(&id.id) {
            let reason = Reason::PeerAuthentication(format!(
                "the peer is {}, this connection expects {}",
                identity::display(&id.id),
                self.connection.remote_identity
            ));
            return Err((self, reason, true));
        }
        if matches!(self.connection.remote_auth, RemoteAuth::Certificate { .. })
            && contents.certificates.is_empty()
        {
            let reason = Reason::PeerAuthentication(
                "the peer sent no certificate: its end is set to a pre-shared key, or not to send \
                 one"
                .to_owned(),
            );
            return Err((self, reason, true));
        }
        let Some(keys) = &channel.keys else {
            return Err((self, Reason::Local("no keys".to_owned()), false));
        };
        let octets = auth::signed_octets(
            keys.suite().prf,
            &self.begun.response,
            &self.begun.nonce_i,
            keys.sk_p(Role::Responder),
            &id,
        );
        let claimed = Claimed {
            id,
            auth,
            octets,
            contents,
        };
        Ok((self, claimed))
    }

    fn describe_offer(&self) -> String {
        self.first.as_ref().map_or_else(String::new, |first| {
            let selectors = selector::pair(&first.sides.0, &first.sides.1);
            format!("{} for {selectors}", proposal::describe(&first.offer))
        })
    }

    /// Both are authenticated (RFC 7296 §2.21.2: whatever becomes of the Child SA).
    fn establish(
        self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        claimed: Claimed,
        not_after: Option<UtcTime>,
    ) -> State {
        let contents = claimed.contents;
        let assigned = match &contents.cp {
            Some(cp) => config_payload::assigned(cp, &self.wanted),
            None => Lease::default(),
        };
        let now = cx.boot();
        let peering = Peering {
            connection: Arc::clone(&self.connection),
            local_id: self.local_id.id.clone(),
            peer_id: claimed.id.id,
            outer: (channel.path.local.ip(), channel.path.remote.ip()),
            dialed: true,
            origin: (channel.spi_i, channel.spi_r),
            authenticated_as: channel.id,
            authenticated_at: now,
            not_after,
            reauthenticate_at: (self.connection.reauthenticate)
                .map(|after| lifetime::reauthenticate_at(after, now, cx.random.as_mut())),
            superseded_at: None,
            assigned: assigned.clone(),
            lent: None,
        };
        if !assigned.addresses.is_empty() {
            cx.data(DataCommand::SetVirtual {
                connection: Arc::clone(&self.connection),
                ike_sa: channel.id,
                lease: assigned,
            });
        }
        let mut peering = peering;
        peering.limit(cx, &contents);
        let replaces = self.call.replaces.as_ref().map(|(old, _)| *old);
        let mut state = Box::new(Established::new(cx, peering, Life::Live, replaces));
        announce(
            &state,
            channel,
            cx,
            contents.has(NotifyType::INITIAL_CONTACT),
        );
        // RFC 7296 §2.19: addresses are lent in IKE_AUTH alone, so that a later CREATE_CHILD_SA would
        // be refused for ever.
        let lent_nothing = contents
            .notify(NotifyType::INTERNAL_ADDRESS_FAILURE)
            .filter(|_| state.peering.assigned.addresses.is_empty())
            .map(|error| refusal::reason(error, String::new));
        if let Some(first) = self.first {
            let nonces = (self.begun.nonce_i.as_slice(), self.begun.nonce_r.as_slice());
            first.install(&mut state, channel, cx, contents, nonces);
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
    fn refuse(
        mut self: Box<Self>,
        channel: &mut Channel,
        cx: &mut Context,
        reason: Reason,
    ) -> State {
        channel.retransmit.tries = channel.retransmit.tries.min(2);
        let payloads = vec![notify(NotifyType::AUTHENTICATION_FAILED)];
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

impl First {
    /// The Child SA of IKE_AUTH, if the peer made it.
    fn install(
        self,
        state: &mut Established,
        channel: &mut Channel,
        cx: &mut Context,
        contents: Contents,
        (nonce_i, nonce_r): (&[u8], &[u8]),
    ) {
        let spi_in = self.spi_in;
        let agreed = match (contents.sa.as_ref(), contents.error()) {
            (Some(answer), _) => self
                .agree(answer, &contents)
                .map_err(|error| (true, Reason::Protocol(error))),
            (None, Some(error)) => {
                let selectors = selector::pair(&self.sides.0, &self.sides.1);
                let reason = refusal::reason(error, || match error.ty {
                    NotifyType::TS_UNACCEPTABLE => selectors,
                    _ => proposal::describe(&self.offer),
                });
                Err((false, reason))
            }
            (None, None) => {
                let error = "the peer made no Child SA and did not say why".to_owned();
                Err((false, Reason::Protocol(error)))
            }
        };
        match (agreed, &channel.keys) {
            (Ok(draft), Some(keys)) => {
                let keys = keys.child(draft.suite, None, nonce_i, nonce_r);
                let policy = Arc::clone(&self.policy);
                let peering = &state.peering;
                let (child, ask) = draft.install(cx, channel, peering, keys, Role::Initiator);
                let create = CreateChild::of_ike_auth(policy, ask, child);
                state.current = Some(Exchange::CreateChild(Box::new(create)));
            }
            (Ok(_), None) => {}
            (Err((made, reason)), _) => {
                if made {
                    state.push_delete_spi(cx, spi_in);
                }
                cx.data(DataCommand::FreeSpi { spi: spi_in });
                state.child_failed(channel, cx, &self.policy, reason);
            }
        }
    }

    fn agree(&self, answer: &SaPayload, contents: &Contents) -> Result<Draft, String> {
        let choice = proposal::accept_esp(&self.offer, answer).map_err(|e| e.to_string())?;
        let (Some(tsi), Some(tsr)) = (&contents.tsi, &contents.tsr) else {
            return Err("the peer's IKE_AUTH response has no TSi or TSr payload".to_owned());
        };
        let offered = (self.sides.0.as_slice(), self.sides.1.as_slice());
        selector::check_answer(offered, (&tsi.selectors, &tsr.selectors))
            .map_err(|e| e.to_string())?;
        Ok(Draft {
            policy: Arc::clone(&self.policy),
            replaces: None,
            suite: choice.suite,
            spi_in: self.spi_in,
            spi_out: choice.peer_spi.0,
            sides: (tsi.selectors.clone(), tsr.selectors.clone()),
        })
    }
}

/// Tells everybody that an IKE SA is up.
pub(crate) fn announce(
    state: &Established,
    channel: &Channel,
    cx: &mut Context,
    initial_contact: bool,
) {
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
}

/// Asks whoever holds the secret for our AUTH over `octets`.
pub(crate) fn ask_for_proof(
    cx: &mut Context,
    who: Waiting,
    connection: &Connection,
    hashes: Option<&[cygnet_crypto::signature::HashAlgorithm]>,
    prf: cygnet_crypto::suite::Prf,
    octets: Vec<u8>,
) -> Result<(AskId, Option<Signing>), Reason> {
    match &connection.local_auth {
        LocalAuth::Psk(credential) => {
            let credential = credential.clone();
            let ask = Ask::PskAuth {
                credential,
                prf,
                octets,
            };
            Ok((cx.ask(who, ask), None))
        }
        LocalAuth::Certificate {
            credential, key, ..
        } => {
            let signing =
                auth::choose_scheme(*key, hashes).map_err(|e| Reason::Local(e.to_string()))?;
            let ask = Ask::Sign {
                credential: credential.clone(),
                scheme: signing.scheme,
                octets,
            };
            Ok((cx.ask(who, ask), Some(signing)))
        }
    }
}

/// Our AUTH payload, when the answer to [`ask_for_proof`] is here.
pub(crate) fn proof_payload(
    signing: Option<Signing>,
    answer: Answer,
) -> Result<AuthPayload<'static>, Reason> {
    match (signing, answer) {
        (Some(signing), Answer::Signed(Ok(signature))) => {
            auth::signature_payload(signing, &signature).map_err(|e| Reason::Local(e.to_string()))
        }
        (None, Answer::Mac(Ok(mac))) => Ok(auth::mac_payload(&mac)),
        (_, Answer::Signed(Err(error)) | Answer::Mac(Err(error))) => Err(Reason::Local(format!(
            "we cannot prove our identity: {error}"
        ))),
        _ => Err(Reason::Local(
            "the question for our proof got another answer".to_owned(),
        )),
    }
}

/// Whether the peer's AUTH holds, and until when its certificate is good.
pub(crate) fn verify(
    connection: &Connection,
    auth: &AuthPayload<'_>,
    octets: &[u8],
    answer: Answer,
) -> Result<Option<UtcTime>, Reason> {
    match (&connection.remote_auth, answer) {
        (RemoteAuth::Psk(_), Answer::Mac(Ok(expected))) => auth::verify_mac(auth, &expected)
            .map(|()| None)
            .map_err(|e| Reason::PeerAuthentication(e.to_string())),
        (RemoteAuth::Certificate { allow_sha1, .. }, Answer::Chain(Ok(key))) => {
            auth::verify_signature(auth, &key.spki, octets, *allow_sha1)
                .map(|()| Some(key.not_after))
                .map_err(|e| Reason::PeerAuthentication(e.to_string()))
        }
        (_, Answer::Chain(Err(error))) => Err(Reason::PeerAuthentication(error)),
        (_, Answer::Mac(Err(error))) => Err(Reason::Local(format!(
            "the pre-shared key cannot be used: {error}"
        ))),
        _ => Err(Reason::Local(
            "the question for the peer's key got another answer".to_owned(),
        )),
    }
}

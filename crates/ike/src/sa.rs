//! One IKE SA: its channel to the peer, and its state, which is consumed by each input.

pub(crate) mod allowance;
pub(crate) mod auth_initiator;
pub(crate) mod auth_responder;
pub(crate) mod candidate;
pub(crate) mod channel;
pub(crate) mod child;
pub(crate) mod collision;
pub(crate) mod contents;
pub(crate) mod create_child;
pub(crate) mod eap_initiator;
pub(crate) mod eap_responder;
pub(crate) mod established;
pub(crate) mod exchange;
pub(crate) mod first_child;
pub(crate) mod informational;
pub(crate) mod initiator;
pub(crate) mod log_in;
pub(crate) mod mobike;
pub(crate) mod negotiate;
pub(crate) mod proof;
pub(crate) mod rekey_ike;
pub(crate) mod responder;
pub(crate) mod room;
pub(crate) mod serve_child;
pub(crate) mod silence;
pub(crate) mod size_probe;
pub(crate) mod upkeep;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_wire::header::Spi;
use cygnet_wire::id::Identification;
use cygnet_wire::message::Message;
use cygnet_wire::notify::NotifyType;

use crate::context::{Bearer, Context, Upcall};
use crate::event::{Event, EventKind, Reason};
use crate::io::{Answer, AskId, ChildSaParameters, DataCommand, IkeSaId, Lease, Path};
use crate::lifetime;
use crate::policy::{Connection, CredentialId};
use crate::sa::allowance::Allowance;
use crate::sa::auth_initiator::AuthInitiator;
use crate::sa::auth_responder::AuthResponder;
use crate::sa::channel::{Channel, Received};
use crate::sa::contents::Contents;
use crate::sa::established::Established;
use crate::sa::initiator::Initiating;
use crate::selector;
use crate::time::{Instant, UtcTime};

/// How long the last response of an IKE SA that has ended is still repeated.
const ECHO: Duration = Duration::from_secs(30);

/// One IKE SA.
pub(crate) struct IkeSa {
    pub(crate) channel: Channel,
    pub(crate) state: State,
}

/// Where it is in its life.
pub(crate) enum State {
    /// IKE_SA_INIT is under way, started by us.
    Initiating(Box<Initiating>),
    /// IKE_AUTH is under way, started by us.
    AuthInitiator(Box<AuthInitiator>),
    /// IKE_SA_INIT is answered; the peer is to authenticate.
    AuthResponder(Box<AuthResponder>),
    /// Both are authenticated.
    Established(Box<Established>),
    /// Over; repeats of the peer's last request get the last response again until then.
    Closed { until: Instant },
}

/// Who the two ends are. A rekeyed IKE SA inherits it.
#[derive(Clone)]
pub(crate) struct Peering {
    pub(crate) connection: Arc<Connection>,
    pub(crate) local_id: Identification,
    pub(crate) peer_id: Identification,
    /// Who the peer said it was (IDi), where it has then logged in by EAP: nothing proves this one.
    pub(crate) claimed_id: Option<Identification>,
    /// Outer addresses when they authenticated, ours first.
    pub(crate) outer: (IpAddr, IpAddr),
    /// Whether we called.
    pub(crate) dialed: bool,
    /// Which of the connection's servers we called.
    pub(crate) server: Option<usize>,
    /// The SPIs of the first IKE SA of this line: both ends know them.
    pub(crate) origin: (Spi, Spi),
    /// The IKE SA that authenticated, and holds the addresses.
    pub(crate) authenticated_as: IkeSaId,
    /// When.
    pub(crate) authenticated_at: Instant,
    /// What the peer showed, its own certificate first; empty with a pre-shared key.
    pub(crate) certificates: Arc<[Vec<u8>]>,
    /// The secret by which the peer has logged in, where it is not one of the connection.
    pub(crate) secret: Option<CredentialId>,
    /// When the peer's certificate expires.
    pub(crate) not_after: Option<UtcTime>,
    pub(crate) reauthenticate_at: Option<Instant>,
    /// Another IKE SA has taken its place; if the peer has not deleted it then, we do.
    pub(crate) superseded_at: Option<Instant>,
    /// Inner addresses of ours.
    pub(crate) assigned: Lease,
    /// They are ours: what authenticates anew takes them when it carries something.
    pub(crate) uses_assigned: bool,
    /// Inner addresses of the peer.
    pub(crate) lent: Option<Lease>,
    /// What the peer may still ask for.
    pub(crate) allowance: Allowance,
    /// How often it may still be elsewhere; keys are renewed all the same.
    pub(crate) moves: Allowance,
}

impl Peering {
    pub(crate) fn event(&self, ike_sa: IkeSaId, path: Path, kind: EventKind) -> Event {
        Event {
            connection: Some(self.connection.name.clone()),
            ike_sa: Some(ike_sa),
            path: Some(path),
            peer: Some(self.peer_id.clone()),
            kind,
        }
    }

    /// The peer may say when it wants us to authenticate anew (RFC 4478); before that we do.
    pub(crate) fn limit(&mut self, cx: &mut Context, contents: &Contents) {
        let notify = contents.notify(NotifyType::AUTH_LIFETIME);
        if let Some(Ok(left)) = notify.map(|notify| notify.auth_lifetime())
            && self.dialed
        {
            self.authenticate_before(cx, Duration::from_secs(left.into()));
        }
    }

    /// The peer's certificate expires some time: with a new one, if it has one by then, only another
    /// authentication helps.
    pub(crate) fn limit_by_certificate(&mut self, cx: &mut Context) {
        if let (Some(not_after), Some(utc)) = (self.not_after, cx.now.utc)
            && self.dialed
        {
            self.authenticate_before(cx, utc.until(not_after));
        }
    }

    /// The IKE SA ends in `left`, unless we authenticate anew.
    fn authenticate_before(&mut self, cx: &mut Context, left: Duration) {
        let at = lifetime::reauthenticate_before(left, cx.boot(), cx.random.as_mut());
        self.reauthenticate_at = Some(self.reauthenticate_at.map_or(at, |own| own.min(at)));
    }

    /// Which of several servers it is.
    pub(crate) fn place(&self) -> Option<usize> {
        let several = self.connection.remote.servers().len() > 1;
        self.server.filter(|_| several)
    }

    /// Whether the peer's identity is that of one device ([`Connection::unique`]).
    pub(crate) fn is_unique(&self) -> bool {
        let by_password = self.secret.is_some();
        self.connection.unique && !(by_password && self.connection.eap.shared)
    }

    /// Addresses are lent here, and this peer has none.
    pub(crate) fn needs_lease(&self) -> bool {
        let lent = self.lent.as_ref();
        self.connection.pool.is_some() && lent.is_none_or(|lease| lease.addresses.is_empty())
    }

    /// What Child SAs that may replace each other have in common.
    pub(crate) fn bearer(&self, child: &ChildSaParameters) -> Bearer {
        (
            self.connection.name.clone(),
            child.policy.name.clone(),
            self.peer_id.clone(),
            selector::canonical(&child.local_ts, &child.remote_ts),
        )
    }

    /// Gives addresses back: the last IKE SA of this line has ended.
    pub(crate) fn release(&self, cx: &mut Context) {
        if self.lent.is_some() {
            cx.data(DataCommand::ReleaseLease {
                ike_sa: self.authenticated_as,
            });
        }
        if self.uses_assigned {
            self.set_virtual(cx, Lease::default());
        }
    }

    /// The addresses that the peer lent are ours from now on.
    pub(crate) fn use_assigned(&mut self, cx: &mut Context) {
        if !self.uses_assigned && !self.assigned.addresses.is_empty() {
            self.uses_assigned = true;
            self.set_virtual(cx, self.assigned.clone());
        }
    }

    fn set_virtual(&self, cx: &mut Context, lease: Lease) {
        cx.data(DataCommand::SetVirtual {
            connection: Arc::clone(&self.connection),
            ike_sa: self.authenticated_as,
            lease,
        });
    }
}

impl IkeSa {
    pub(crate) fn id(&self) -> IkeSaId {
        self.channel.id
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(state) => Some(state),
            _ => None,
        }
    }

    pub(crate) fn established_mut(&mut self) -> Option<(&mut Channel, &mut Established)> {
        match &mut self.state {
            State::Established(state) => Some((&mut self.channel, state)),
            _ => None,
        }
    }

    /// Whether the peer has yet to prove who it is, or never did.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.state, State::AuthResponder(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// The connection, as far as it is known.
    pub(crate) fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.state {
            State::Initiating(state) => Some(&state.connection),
            State::AuthInitiator(state) => Some(&state.connection),
            State::Established(state) => Some(&state.peering.connection),
            State::AuthResponder(_) | State::Closed { .. } => None,
        }
    }

    /// Replaces the state by what `next` makes of it.
    fn step(&mut self, next: impl FnOnce(State, &mut Channel) -> State) {
        // `Closed` is only a place-holder: `next` always yields the new state.
        let placeholder = State::Closed {
            until: Instant::default(),
        };
        let state = std::mem::replace(&mut self.state, placeholder);
        self.state = next(state, &mut self.channel);
    }

    /// A datagram with our SPI in it.
    pub(crate) fn handle_datagram(&mut self, cx: &mut Context, path: Path, message: &Message<'_>) {
        let only = self.channel.only_from;
        if only.is_some_and(|only| only != path.remote.ip()) {
            cx.counters.stray += 1;
            return;
        }
        self.step(|state, channel| match state {
            State::Initiating(state) => state.handle_datagram(channel, cx, path, message),
            // A responder that is done before us may send requests: they come again when we are.
            State::AuthInitiator(state) if !message.header.flags.is_response() => {
                State::AuthInitiator(state)
            }
            State::AuthInitiator(state) => match channel.receive(cx, path, message) {
                Received::Response(inbound) => state.handle_response(channel, cx, inbound),
                Received::Request(_) | Received::Ahead(_) | Received::Nothing => {
                    State::AuthInitiator(state)
                }
            },
            State::AuthResponder(state) => match channel.receive(cx, path, message) {
                Received::Request(inbound) => state.handle_request(channel, cx, inbound),
                Received::Response(_) | Received::Ahead(_) | Received::Nothing => {
                    State::AuthResponder(state)
                }
            },
            State::Established(mut state) => match channel.receive(cx, path, message) {
                Received::Request(inbound) => state.handle_request(channel, cx, inbound),
                Received::Response(inbound) => state.handle_response(channel, cx, inbound),
                Received::Ahead(id) => {
                    state.complain_of_message_id(cx, id);
                    state.proceed(channel, cx)
                }
                Received::Nothing => State::Established(state),
            },
            State::Closed { until } => {
                // Nothing new is worked on; a repeated request gets its response.
                if let Some(stored) = channel.window.repeated(message.bytes) {
                    let stored = stored.to_vec();
                    channel.repeat(cx, path, &stored);
                }
                State::Closed { until }
            }
        });
    }

    /// An answer to a question of this IKE SA.
    pub(crate) fn handle_answer(&mut self, cx: &mut Context, id: AskId, answer: Answer) {
        self.step(|state, channel| match state {
            State::AuthInitiator(state) => state.handle_answer(channel, cx, id, answer),
            State::AuthResponder(state) => state.handle_answer(channel, cx, id, answer),
            State::Established(state) => state.handle_answer(channel, cx, id, answer),
            state @ (State::Initiating(_) | State::Closed { .. }) => {
                cx.discard(answer);
                state
            }
        });
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context) {
        self.step(|state, channel| {
            if matches!(state, State::Closed { .. }) {
                return state;
            }
            if let State::Established(state) = &state {
                state.spare(channel, cx.boot());
            }
            let alive = channel.handle_timeout(cx);
            match (state, alive) {
                (State::Initiating(state), Ok(())) => state.handle_timeout(channel, cx),
                (State::Initiating(state), Err(reason)) => state.give_up(channel, cx, reason),
                (State::AuthInitiator(state), Ok(())) => state.handle_timeout(channel, cx),
                (State::AuthInitiator(state), Err(reason)) => state.fail(channel, cx, reason),
                (State::AuthResponder(state), _) => state.handle_timeout(channel, cx),
                (State::Established(state), Ok(())) => state.handle_timeout(channel, cx),
                (State::Established(state), Err(reason)) => state.give_up(channel, cx, reason),
                (state @ State::Closed { .. }, _) => state,
            }
        });
    }

    /// Changes the established state in place, then goes on with what is to be done.
    pub(crate) fn with_established(
        &mut self,
        cx: &mut Context,
        change: impl FnOnce(&mut Established, &mut Channel, &mut Context),
    ) {
        self.step(|state, channel| match state {
            State::Established(mut state) => {
                change(&mut state, channel, cx);
                state.proceed(channel, cx)
            }
            state => state,
        });
    }

    /// Ends one that is not established: with a word to the peer where it may count it as up.
    pub(crate) fn cancel(&mut self, cx: &mut Context, reason: Reason) {
        match &self.state {
            State::AuthInitiator(_) => self.step(|state, channel| match state {
                State::AuthInitiator(state) => state.cancel(channel, cx, reason),
                state => state,
            }),
            _ => self.drop_silently(cx, reason),
        }
    }

    /// Ends it without a word to the peer.
    pub(crate) fn drop_silently(&mut self, cx: &mut Context, reason: Reason) {
        self.step(|state, channel| match state {
            State::Initiating(state) => state.give_up(channel, cx, reason),
            State::AuthInitiator(state) => state.fail(channel, cx, reason),
            State::AuthResponder(state) => state.abandon(channel, cx, reason),
            State::Established(state) => state.end(channel, cx, reason),
            state @ State::Closed { .. } => state,
        });
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Initiating(state) => state.deadline(),
            State::AuthInitiator(state) => state.deadline(),
            State::AuthResponder(state) => Some(state.deadline()),
            State::Established(state) => state.deadline(&self.channel),
            State::Closed { until } => return Some(*until),
        };
        [state, self.channel.deadline()].into_iter().flatten().min()
    }
}

/// The IKE SA has ended: reports it, and keeps the last response for repeats.
pub(crate) fn closed(channel: &Channel, cx: &mut Context, reason: Reason) -> State {
    cx.upcall(Upcall::Closed {
        sa: channel.id,
        reason,
    });
    State::Closed {
        until: cx.boot() + ECHO,
    }
}

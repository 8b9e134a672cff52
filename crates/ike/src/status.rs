//! What an operator sees: connections, also those that are configured and not up and why, IKE SAs,
//! their children, and counters. Plain data, cut off from the endpoint.

use std::time::Duration;

use cygnet_crypto::suite::EspSuite;
use cygnet_wire::header::{ExchangeType, IkeHeader, Spi};
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;

pub use crate::context::Counters;
use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::io::{ChildSaId, IkeSaId, Lease, Path};
use crate::policy::{Remote, Start};
use crate::refused::RefusedCall;
use crate::sa::child::ChildState;
use crate::sa::established::{Established, Life};
use crate::sa::{IkeSa, State};
use crate::time::{Instant, Now};
use crate::window::Window;

/// A moment of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In the order of the policy.
    pub connections: Vec<ConnectionStatus>,
    /// Oldest first; those that have ended and only repeat their last words are left out.
    pub ike_sas: Vec<IkeSaStatus>,
    /// Who offered only what is not accepted, the latest first.
    pub refused: Vec<RefusedCall>,
    /// IKE SAs whose peer has yet to authenticate.
    pub half_open: usize,
    /// Since the start.
    pub counters: Counters,
}

/// A configured connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Its name.
    pub name: String,
    /// Whether an IKE SA of it is up.
    pub up: bool,
    /// Whether we call the peer; else it calls us.
    pub calls: bool,
    /// Its children.
    pub children: Vec<ChildStatus>,
    /// Calls since it was last up.
    pub attempts: u32,
    /// Why it is not up, as far as known.
    pub why: Option<Reason>,
    /// Until the next call.
    pub next_try: Option<Duration>,
}

/// A configured child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// When it comes up.
    pub start: Start,
    /// Whether it is to be up now.
    pub wanted: bool,
    /// How many Child SAs of it are in use.
    pub installed: usize,
}

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSaStatus {
    /// Which.
    pub id: IkeSaId,
    /// How far it is.
    pub stage: Stage,
    /// Whose, as far as known.
    pub connection: Option<String>,
    /// SPI of its initiator.
    pub spi_i: Spi,
    /// SPI of its responder.
    pub spi_r: Spi,
    /// Whether we called.
    pub dialed: bool,
    /// The way to the peer.
    pub path: Path,
    /// Its place among several servers of the connection.
    pub server: Option<usize>,
    /// Who we are.
    pub local: Option<Identification>,
    /// Who the peer proved to be.
    pub peer: Option<Identification>,
    /// Who the peer said it was (IDi) before it logged in by EAP; `None`: it did not log in.
    pub claimed: Option<Identification>,
    /// Algorithms, as strongSwan keywords.
    pub suite: Option<String>,
    /// A NAT was seen before us.
    pub nat_local: bool,
    /// A NAT was seen before the peer (or claimed by it).
    pub nat_remote: bool,
    /// We claim a NAT.
    pub nat_claimed: bool,
    /// Addresses of either end may change (RFC 4555).
    pub mobike: bool,
    /// Since it is up.
    pub age: Option<Duration>,
    /// Since the ends last proved who they are.
    pub authenticated: Option<Duration>,
    /// Until it is rekeyed.
    pub rekey_in: Option<Duration>,
    /// Until it is authenticated anew.
    pub reauthenticate_in: Option<Duration>,
    /// Since the peer was last heard of.
    pub silent: Duration,
    /// What we have asked the peer for and it has not answered yet.
    pub in_flight: Option<InFlightStatus>,
    /// Virtual addresses of ours.
    pub assigned: Lease,
    /// Virtual addresses lent to the peer.
    pub lent: Lease,
    /// Its Child SAs.
    pub children: Vec<ChildSaStatus>,
}

/// A request of ours in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlightStatus {
    /// Of which exchange.
    pub exchange: ExchangeType,
    /// Since it was first sent. The peer counts as gone after
    /// [`Retransmit::patience`](crate::policy::Retransmit::patience).
    pub since: Duration,
    /// Times sent.
    pub sent: u32,
}

/// How far an IKE SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// IKE_SA_INIT or IKE_AUTH is under way.
    Connecting,
    /// Up.
    Established,
    /// Replaced by another one, to be deleted.
    Replaced,
    /// Being deleted.
    Deleting,
}

/// A Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSaStatus {
    /// Which.
    pub id: ChildSaId,
    /// Its policy's name.
    pub name: String,
    /// Whether it is in use, and not about to be deleted.
    pub installed: bool,
    /// Whether we send on it.
    pub sending: bool,
    /// SPI of what we receive.
    pub spi_in: u32,
    /// SPI of what we send.
    pub spi_out: u32,
    /// Algorithms.
    pub suite: EspSuite,
    /// Our side.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// Since it is up.
    pub age: Duration,
    /// Until it is rekeyed.
    pub rekey_in: Option<Duration>,
}

impl Endpoint {
    /// How things are.
    pub fn status(&self, now: Now) -> Status {
        let now = now.boot;
        let live = self.sas.values().filter(|sa| !sa.is_closed());
        Status {
            connections: self.connections(now),
            ike_sas: live
                .filter(|sa| !sa.is_half_open())
                .map(|sa| of_ike_sa(sa, now))
                .collect(),
            refused: self.admission.refused(),
            half_open: self.admission.half_open(),
            counters: self.cx.counters,
        }
    }

    /// How one IKE SA is; `None`: it is over, or its peer has yet to authenticate.
    pub fn ike_sa(&self, now: Now, id: IkeSaId) -> Option<IkeSaStatus> {
        let sa = self.sas.get(&id)?;
        sa.established()?;
        Some(of_ike_sa(sa, now.boot))
    }

    fn connections(&self, now: Instant) -> Vec<ConnectionStatus> {
        let mut connections = Vec::new();
        for connection in &self.cx.policy.connections {
            let kept = self.keeper.kept.get(&connection.name);
            let states: Vec<_> = (self.sas.values())
                .filter_map(IkeSa::established)
                .filter(|state| state.is_live() && state.peering.connection == *connection)
                .collect();
            let installed = |name: &str| {
                let children = states.iter().flat_map(|state| state.children.values());
                let in_use = |c: &&crate::sa::child::ChildSa| c.state == ChildState::Installed;
                children.filter(in_use).filter(|c| c.name() == name).count()
            };
            let children = connection.children.iter().map(|child| ChildStatus {
                name: child.name.clone(),
                start: child.start,
                wanted: kept.is_some_and(|kept| kept.wanted.contains(&child.name)),
                installed: installed(&child.name),
            });
            connections.push(ConnectionStatus {
                name: connection.name.clone(),
                up: !states.is_empty(),
                calls: matches!(connection.remote, Remote::Hosts { .. }),
                children: children.collect(),
                attempts: kept.map_or(0, |kept| kept.attempt()),
                why: kept.and_then(|kept| kept.why.clone()),
                next_try: kept
                    .and_then(|kept| kept.next_try())
                    .map(|at| at.since(now)),
            });
        }
        connections
    }
}

fn of_ike_sa(sa: &IkeSa, now: Instant) -> IkeSaStatus {
    let channel = &sa.channel;
    let state = sa.established();
    let peering = state.map(|state| &state.peering);
    let left = |at: Option<Instant>| at.map(|at| at.since(now));
    IkeSaStatus {
        id: sa.id(),
        stage: match &sa.state {
            State::Established(state) => stage(state),
            _ => Stage::Connecting,
        },
        connection: sa.connection().map(|c| c.name.clone()),
        spi_i: channel.spi_i,
        spi_r: channel.spi_r,
        dialed: peering.is_none_or(|p| p.dialed),
        path: channel.path,
        server: peering.and_then(|p| p.place()),
        local: peering.map(|p| p.local_id.clone()),
        peer: peering.map(|p| p.peer_id.clone()),
        claimed: peering.and_then(|p| p.claimed_id.clone()),
        suite: channel.keys.as_ref().map(|keys| keys.suite().to_string()),
        nat_local: channel.nat.local,
        nat_remote: channel.nat.remote,
        nat_claimed: channel.nat.claimed,
        mobike: channel.mobility.enabled,
        age: state.map(|state| now.since(state.since)),
        authenticated: peering.map(|p| now.since(p.authenticated_at)),
        rekey_in: state.and_then(|state| left(state.rekey_at)),
        reauthenticate_in: peering.and_then(|p| left(p.reauthenticate_at)),
        silent: now.since(state.map_or(channel.last_in, |state| state.heard)),
        in_flight: in_flight(&channel.window, now),
        assigned: peering.map(|p| p.assigned.clone()).unwrap_or_default(),
        lent: peering.and_then(|p| p.lent.clone()).unwrap_or_default(),
        children: state.map(|state| children(state, now)).unwrap_or_default(),
    }
}

fn in_flight(window: &Window, now: Instant) -> Option<InFlightStatus> {
    let in_flight = window.in_flight()?;
    let (header, ..) = IkeHeader::parse(in_flight.datagrams.first()?).ok()?;
    Some(InFlightStatus {
        exchange: header.exchange,
        since: now.since(in_flight.first_sent()),
        sent: in_flight.sent(),
    })
}

fn stage(state: &Established) -> Stage {
    match state.life {
        Life::Replaced { .. } | Life::Provisional { .. } => Stage::Replaced,
        Life::Deleting => Stage::Deleting,
        Life::Live if state.is_live() => Stage::Established,
        Life::Live => Stage::Deleting,
    }
}

fn children(state: &Established, now: Instant) -> Vec<ChildSaStatus> {
    let children = state.children.values().map(|child| ChildSaStatus {
        id: child.id(),
        name: child.name().to_owned(),
        installed: child.state == ChildState::Installed,
        sending: child.is_sending(),
        spi_in: child.params.spi_in,
        spi_out: child.params.spi_out,
        suite: child.params.suite,
        local_ts: child.params.local_ts.clone(),
        remote_ts: child.params.remote_ts.clone(),
        age: now.since(child.since),
        rekey_in: child.rekey_at.map(|at| at.since(now)),
    });
    children.collect()
}

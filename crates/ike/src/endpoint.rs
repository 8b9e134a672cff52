//! The public face: every input goes in here, every output comes out of one queue, and what an
//! input leads to is done before the call returns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_wire::ParseError;
use cygnet_wire::header::{ExchangeType, IkeHeader, Spi};
use cygnet_wire::message::Message;
use cygnet_wire::notify::{NotifyPayload, NotifyType};

use crate::admission::Admission;
use crate::context::{Bearer, Context, Peer, Upcall, Waiting};
use crate::event::{EventKind, Reason};
use crate::examination::Examination;
use crate::io::{Answer, AskId, ChildSaId, Command, DataCommand, DataEvent, IkeSaId, Output, Path};
use crate::keeper::Keeper;
use crate::policy::Policy;
use crate::sa::established::Established;
use crate::sa::exchange::{Exchange, Task};
use crate::sa::{IkeSa, State};
use crate::time::{Instant, Now};

/// How long [`Command::Shutdown`] waits for peers that do not answer.
const DRAIN: Duration = Duration::from_secs(5);

/// Most IKE SAs that one message without protection is brought to the attention of.
const HINTED: usize = 64;

/// All IKE SAs of this machine, and what is to be up.
///
/// After each `handle_*`, drain [`Endpoint::poll_output`] until it is empty, in order; then call
/// [`Endpoint::handle_timeout`] no later than [`Endpoint::poll_timeout`] says.
pub struct Endpoint {
    pub(crate) cx: Context,
    pub(crate) sas: BTreeMap<IkeSaId, IkeSa>,
    pub(crate) keeper: Keeper,
    pub(crate) admission: Admission,
    pub(crate) examination: Examination,
    by_spi: BTreeMap<Spi, IkeSaId>,
    due: BTreeSet<(Instant, IkeSaId)>,
    due_of: BTreeMap<IkeSaId, Instant>,
    /// IKE SAs that an input has changed.
    touched: BTreeSet<IkeSaId>,
    /// Shutting down; until then.
    draining: Option<Instant>,
    drained: bool,
}

impl Endpoint {
    /// An endpoint that does nothing yet: [`Endpoint::handle_policy`] sets it going.
    pub fn new(random: Box<dyn Random + Send>, policy: Arc<Policy>) -> Self {
        let mut cx = Context::new(random, policy);
        let admission = Admission::new(&mut cx);
        Self {
            cx,
            sas: BTreeMap::new(),
            keeper: Keeper::default(),
            admission,
            examination: Examination::default(),
            by_spi: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            touched: BTreeSet::new(),
            draining: None,
            drained: false,
        }
    }

    /// A datagram from the network, without non-ESP marker.
    pub fn handle_datagram(&mut self, now: Now, path: Path, datagram: &[u8]) {
        self.cx.now = now;
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(ParseError::MajorVersion { .. }) => {
                self.admission.refuse_version(&mut self.cx, path, datagram);
                return;
            }
            Err(_) => {
                self.cx.counters.stray += 1;
                return;
            }
        };
        let header = &message.header;
        let own_spi = if header.flags.is_initiator() {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        if let Some(id) = self.by_spi.get(&own_spi).copied() {
            if let Some(sa) = self.sas.get_mut(&id) {
                sa.handle_datagram(&mut self.cx, path, &message);
            }
            self.touched.insert(id);
        } else if is_call(header) {
            if self.draining.is_none() {
                self.handle_call(path, &message);
            }
        } else {
            self.handle_stray(path, &message);
        }
        self.settle();
    }

    /// The answer to an [`Output::Ask`] or to an order that carries an [`AskId`].
    pub fn handle_answer(&mut self, now: Now, id: AskId, answer: Answer) {
        self.cx.now = now;
        self.take_answer(id, answer);
        self.settle();
    }

    fn take_answer(&mut self, id: AskId, answer: Answer) {
        match self.cx.take_waiting(id) {
            Some(Waiting::IkeSa(sa_id)) => match self.sas.get_mut(&sa_id) {
                Some(sa) => {
                    sa.handle_answer(&mut self.cx, id, answer);
                    self.touched.insert(sa_id);
                }
                None => self.cx.discard(answer),
            },
            Some(Waiting::ChildSa(child)) => {
                if let Answer::Installed(Err(error)) = answer {
                    self.with_holder(child, |state, channel, cx| {
                        state.switch_failed(channel, cx, child, &error);
                    });
                }
            }
            Some(Waiting::Keeper(name)) => self.handle_resolved(&name, id, answer),
            Some(Waiting::Ways { line, changed }) => self.handle_ways(line, changed, answer),
            Some(Waiting::Examination(line)) => self.handle_examined(line, answer),
            None => self.cx.discard(answer),
        }
    }

    /// What the data path reports.
    pub fn handle_data(&mut self, now: Now, event: DataEvent) {
        self.cx.now = now;
        match &event {
            DataEvent::Acquire {
                connection,
                child,
                packet,
            } => self.handle_acquire(connection, child, packet.clone()),
            DataEvent::UnknownSpi { spi, path } => self.handle_unknown_spi(*spi, *path),
            DataEvent::LocalChange { gone, egress } => self.handle_local_change(gone, *egress),
            DataEvent::OwnAddresses { addresses } => self.handle_own_addresses(addresses),
            DataEvent::PathMtu { path, mtu } => self.handle_path_mtu(*path, *mtu),
            DataEvent::SoftLimit { child }
            | DataEvent::HardLimit { child }
            | DataEvent::FirstAuthenticated { child }
            | DataEvent::PeerMoved { child, .. }
            | DataEvent::LastInbound { child }
            | DataEvent::LastOutbound { child } => {
                let child = *child;
                self.with_holder(child, |state, channel, cx| {
                    state.handle_data(channel, cx, &event);
                });
            }
        }
        self.settle();
    }

    /// What an operator wants.
    pub fn handle_command(&mut self, now: Now, command: Command) {
        self.cx.now = now;
        match command {
            Command::Shutdown => self.shut_down(),
            Command::ExaminePeers => self.examine_peers(),
            Command::SecretsReplaced { secrets } => self.replace_secrets(secrets),
            command => self.obey(command),
        }
        self.settle();
    }

    /// Another policy from now on. Connections that are equal in both are not touched.
    pub fn handle_policy(&mut self, now: Now, policy: Arc<Policy>) {
        self.cx.now = now;
        self.apply_policy(policy);
        self.settle();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.cx.now = now;
        self.cx.remove_lingering(false);
        while let Some((id, lost)) = self.cx.overdue() {
            self.take_answer(id, lost);
        }
        let is_due = |at: &Instant| *at <= now.boot;
        while let Some((_, id)) = self.due.first().filter(|(at, _)| is_due(at)).copied() {
            self.forget_deadline(id);
            let Some(sa) = self.sas.get_mut(&id) else {
                continue;
            };
            match sa.state {
                State::Closed { until } if is_due(&until) => {
                    self.forget(id);
                    continue;
                }
                _ => sa.handle_timeout(&mut self.cx),
            }
            self.touched.insert(id);
        }
        self.keep_all_due();
        self.examine_again();
        if self.draining.is_some_and(|at| is_due(&at)) {
            for sa in self.sas.values_mut() {
                sa.drop_silently(&mut self.cx, Reason::Operator);
            }
        }
        self.settle();
    }

    /// The next thing to be done outside; `None`: nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.cx.poll_output()
    }

    /// When [`Endpoint::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.due.first().map(|(at, _)| *at),
            self.cx.next_removal(),
            self.cx.next_overdue(),
            self.keeper.deadline(),
            self.examination.deadline(),
            self.draining,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Works off what IKE SAs report, until there is nothing left, then notes their deadlines.
    pub(crate) fn settle(&mut self) {
        loop {
            while let Some(upcall) = self.cx.upcalls.pop_front() {
                self.handle_upcall(upcall);
            }
            if !self.keep_changed() {
                break;
            }
        }
        for id in std::mem::take(&mut self.touched) {
            self.forget_deadline(id);
            match self.sas.get(&id) {
                Some(sa) => {
                    // A deadline in the past is one at once, not one for ever.
                    if let Some(at) = sa.deadline() {
                        self.due.insert((at, id));
                        self.due_of.insert(id, at);
                    }
                    let at = sa.channel.path.remote;
                    let peering = sa.established().map(|s| &s.peering);
                    let peer = sa.connection().map(|connection| Peer {
                        at,
                        connection: Arc::clone(connection),
                        line: peering.map(|peering| peering.authenticated_as),
                        identity: peering.map(|peering| peering.peer_id.clone()),
                    });
                    self.cx.note_peer(id, peer);
                    self.admission.settle(id, sa);
                }
                None => self.cx.note_peer(id, None),
            }
        }
        while let Some(id) = self.admission.surplus() {
            self.forget(id);
        }
        self.admission.report(&mut self.cx);
        self.finish_draining();
    }

    fn handle_upcall(&mut self, upcall: Upcall) {
        match upcall {
            Upcall::Established {
                sa,
                initial_contact,
            } => self.handle_established(sa, initial_contact),
            Upcall::Stranger(event) => self.admission.report_stranger(&mut self.cx, event),
            Upcall::Offers(call) => self.admission.note_refused(*call),
            Upcall::Rekeyed(sa) => {
                if let Some(state) = sa.established() {
                    let replaces = state.replaces;
                    let suite = sa.channel.keys.as_ref().map(|k| k.suite().to_string());
                    self.cx.event(state.event(
                        &sa.channel,
                        EventKind::IkeUp {
                            suite: suite.unwrap_or_default(),
                            nat_local: sa.channel.nat.local,
                            nat_remote: sa.channel.nat.remote,
                            replaces,
                        },
                    ));
                }
                let id = sa.id();
                if let Some(state) = sa.established() {
                    let name = state.peering.connection.name.clone();
                    self.keeper.names.insert(id, name);
                }
                self.insert(*sa);
                self.proceed(id);
            }
            Upcall::Inherit { from, to } => {
                let estate = self.sas.get_mut(&from).and_then(|sa| {
                    let (_, state) = sa.established_mut()?;
                    state.bequeath(&self.cx, to)
                });
                self.touched.insert(from);
                match estate {
                    Some(estate) => self.bequest(to, estate),
                    // Another one has inherited: the peer uses one that it was to delete.
                    None => self.change(to, |state, _, cx| {
                        let reason = Reason::Replaced;
                        state.push(cx, Task::DeleteIke { reason });
                    }),
                }
            }
            Upcall::Bequest { to, estate } => self.bequest(to, *estate),
            Upcall::Closed { sa, reason } => self.handle_closed(sa, reason),
            Upcall::ChildUp { sa, name } => self.handle_child_up(sa, &name),
            Upcall::ChildFailed { sa, name, reason } => {
                self.handle_child_failed(sa, &name, reason);
            }
            Upcall::Narrowed { sa, name, packet } => self.handle_narrowed(sa, &name, &packet),
            Upcall::ChildDown { sa, name, reason } => self.handle_child_down(sa, &name, &reason),
            Upcall::Stopped {
                child,
                bearer,
                forgotten,
            } => {
                // Make before break, unless it is broken already.
                if !forgotten {
                    self.succeed(child, &bearer);
                }
                self.cx.data(DataCommand::RemoveOut { child });
                if forgotten {
                    self.succeed(child, &bearer);
                }
            }
            Upcall::Removed(child) => self.cx.remove_in_later(child),
            Upcall::Reconsider(sa) => {
                if let Some(name) = self.keeper.names.get(&sa).cloned() {
                    self.keep(&name);
                }
            }
            Upcall::Redundant(sa) => self.change(sa, |state, _, cx| state.make_redundant(cx)),
            Upcall::Known(sa) => self.change(sa, |state, _, cx| state.make_known(cx)),
            Upcall::Disinherited { of, heir } => {
                self.change(of, |state, _, _| state.lose_heir(heir));
            }
            Upcall::Outlived(sa) => self.change(sa, |state, _, _| state.outlive()),
            Upcall::Superseded(sa) => self.settle_superseded(sa),
            Upcall::Reauthenticate(sa) => self.reauthenticate(sa),
            Upcall::Silent(sa) => self.call_silent(sa),
            Upcall::Answers(sa) => self.handle_answers(sa),
            Upcall::SeekWays(line) => self.ask_ways(line, false),
        }
    }

    /// Those that waited for `gone` send, unless another Child SA serves: then they wait for that.
    fn succeed(&mut self, gone: ChildSaId, bearer: &Bearer) {
        let waiters = self.cx.take_waiters(gone);
        let others = self.cx.bearers.get(bearer);
        let mut serving = others.and_then(|others| others.first()).copied();
        for waiter in waiters {
            if let Some(serving) = serving {
                self.cx.waiting_for(serving, waiter);
                continue;
            }
            // The oldest: the peer has known it longest.
            self.with_holder(waiter, |state, channel, cx| {
                if state.child_peer_ready(channel, cx, waiter) {
                    serving = Some(waiter);
                }
            });
        }
    }

    fn bequest(&mut self, to: IkeSaId, estate: crate::sa::established::Estate) {
        let heir = self.sas.get(&to).and_then(IkeSa::established);
        if let Some(heir) = heir {
            if let Some(from) = heir.replaces {
                self.line_goes_on(from, to);
            }
            self.change(to, |state, channel, cx| state.inherit(channel, cx, estate));
        } else {
            // The heir has ended in the meantime: nobody holds the children any more.
            for (_, child) in estate.children {
                child.remove(&mut self.cx, to, &estate.peering, Reason::DeletedByPeer);
            }
            estate.peering.release(&mut self.cx);
        }
    }

    /// Changes an established IKE SA and lets it go on.
    pub(crate) fn change(
        &mut self,
        id: IkeSaId,
        change: impl FnOnce(&mut Established, &mut crate::sa::channel::Channel, &mut Context),
    ) {
        if let Some(sa) = self.sas.get_mut(&id) {
            sa.with_established(&mut self.cx, change);
            self.touched.insert(id);
        }
    }

    pub(crate) fn proceed(&mut self, id: IkeSaId) {
        self.change(id, |_, _, _| {});
    }

    /// Changes the IKE SA that holds a Child SA.
    fn with_holder(
        &mut self,
        child: ChildSaId,
        change: impl FnOnce(&mut Established, &mut crate::sa::channel::Channel, &mut Context),
    ) {
        if let Some(id) = self.cx.holders.get(&child).copied() {
            self.change(id, change);
        }
    }

    pub(crate) fn insert(&mut self, sa: IkeSa) {
        let id = sa.id();
        self.by_spi.insert(sa.channel.own_spi(), id);
        self.sas.insert(id, sa);
        self.touched.insert(id);
    }

    fn forget_deadline(&mut self, id: IkeSaId) {
        if let Some(at) = self.due_of.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    pub(crate) fn forget(&mut self, id: IkeSaId) {
        self.forget_deadline(id);
        self.cx.note_peer(id, None);
        if let Some(sa) = self.sas.remove(&id) {
            self.by_spi.remove(&sa.channel.own_spi());
        }
        self.admission.forget(id);
    }

    /// Unprotected word that something is amiss with a peer (RFC 7296 §2.21.4).
    pub(crate) fn hint(&mut self, path: Path) {
        let now = self.cx.boot();
        let may = |id: &IkeSaId| {
            let state = self.sas.get(id).and_then(IkeSa::established);
            state.is_some_and(|state| state.may_be_hinted(now))
        };
        let at = self.cx.peers_at(path.remote.ip()).take(HINTED);
        let ids: Vec<_> = at.filter(may).collect();
        for id in ids {
            self.change(id, |state, _, cx| state.hint(cx, Vec::new()));
        }
    }

    /// ESP for an SPI that nobody knows: the peer at this place is told, and thereby asked whether it
    /// lives (RFC 7296 §1.5). Where several may have sent it, each is asked.
    fn handle_unknown_spi(&mut self, spi: u32, path: Path) {
        let is_live = |id: &IkeSaId| {
            let state = self.sas.get(id).and_then(IkeSa::established);
            state.is_some_and(Established::is_live)
        };
        let mut senders = self.cx.peers_of(path.remote).take(HINTED).filter(is_live);
        let (sender, another) = (senders.next(), senders.next());
        drop(senders);
        match sender.filter(|_| another.is_none()) {
            Some(sender) => self.change(sender, |state, _, cx| {
                let data = spi.to_be_bytes().to_vec();
                let notify = NotifyPayload::with_data(NotifyType::INVALID_SPI, data);
                state.hint(cx, vec![notify.into()]);
            }),
            None => self.hint(path),
        }
    }

    /// A narrower path fragments IKE messages smaller.
    fn handle_path_mtu(&mut self, path: Path, mtu: u32) {
        // Anyone may say so in a router's name. Zero would be: no fragments.
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(1);
        for (id, sa) in &mut self.sas {
            let channel = &mut sa.channel;
            if channel.path.remote != path.remote {
                continue;
            }
            channel.fragment_size = channel.fragment_size.min(mtu);
            self.touched.insert(*id);
            sa.with_established(&mut self.cx, |state, channel, cx| {
                state.mtu_is_named(channel, cx, mtu);
            });
        }
    }

    fn shut_down(&mut self) {
        self.draining = Some(self.cx.boot() + DRAIN);
        self.drained = false;
        self.keeper.rest();
        let ids: Vec<_> = self.sas.keys().copied().collect();
        for id in ids {
            self.delete_ike_sa(id, Reason::Operator);
        }
    }

    /// Ends an IKE SA: with DELETE where the peer knows it.
    pub(crate) fn delete_ike_sa(&mut self, id: IkeSaId, reason: Reason) {
        let Some(sa) = self.sas.get_mut(&id) else {
            return;
        };
        self.touched.insert(id);
        match &sa.state {
            State::Established(state) => {
                if !matches!(state.current, Some(Exchange::DeleteIke { .. })) {
                    sa.with_established(&mut self.cx, |state, _, cx| {
                        // At once, though the DELETE may have to wait for a response.
                        let serving = reason == Reason::Replaced;
                        for child in state.children.values_mut().filter(|_| !serving) {
                            child.forgotten = true;
                            child.stop_sending(cx);
                        }
                        state.push(cx, Task::DeleteIke { reason });
                    });
                }
            }
            State::Closed { .. } => {}
            _ => sa.cancel(&mut self.cx, reason),
        }
    }

    fn finish_draining(&mut self) {
        if self.draining.is_none() || self.sas.values().any(|sa| !sa.is_closed()) {
            return;
        }
        self.draining = None;
        if !std::mem::replace(&mut self.drained, true) {
            self.cx.remove_lingering(true);
            self.cx.event_of_path(None, EventKind::Drained);
        }
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.draining.is_some() || self.drained
    }
}

/// The first message of somebody who wants an IKE SA.
fn is_call(header: &IkeHeader) -> bool {
    header.exchange == ExchangeType::IKE_SA_INIT
        && header.flags.is_initiator()
        && !header.flags.is_response()
        && header.responder_spi.is_zero()
        && !header.initiator_spi.is_zero()
        && header.message_id.0 == 0
}

//! What every part of the endpoint works with: the moment, the policy, randomness, names for new
//! things, the output queue, and who waits for which answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_wire::id::Identification;

use crate::event::{Event, EventKind, Reason};
use crate::io::{Answer, Ask, AskId, ChildSaId, DataCommand, IkeSaId, Output, Path, Transmit};
use crate::narrowing::Packet;
use crate::policy::{Connection, Policy};
use crate::refused::RefusedCall;
use crate::sa::IkeSa;
use crate::sa::established::Estate;
use crate::time::{Instant, Now};

/// How long packets in flight still find the inbound half of a deleted Child SA.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(5);

/// How long an answer from outside may take, before the question counts as lost: whoever was to
/// answer it has failed, and what waits for it must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most IKE SAs looked at for the devices at one place: it is one device, with those that it has
/// forgotten.
const LINES: usize = 16;
/// So much more for each name or address that has to be looked up.
const PATIENCE_OF_NAMES: Duration = Duration::from_secs(10);

/// The endpoint's belongings, IKE SAs and connections aside.
pub(crate) struct Context {
    pub(crate) now: Now,
    pub(crate) policy: Arc<Policy>,
    pub(crate) random: Box<dyn Random + Send>,
    pub(crate) counters: Counters,
    /// Where peers can reach this machine.
    pub(crate) own_addresses: Vec<IpAddr>,
    /// Which IKE SA holds a Child SA.
    pub(crate) holders: BTreeMap<ChildSaId, IkeSaId>,
    /// What IKE SAs report to the endpoint; worked off after each input.
    pub(crate) upcalls: VecDeque<Upcall>,
    /// Where the peers of our IKE SAs are, those that have only begun included, and of which
    /// connection they are.
    peers: BTreeMap<IkeSaId, Peer>,
    /// The same by address and port.
    peers_at: BTreeSet<(IpAddr, u16, IkeSaId)>,
    /// Child SAs of one policy and peer that we send on, whichever IKE SA holds them.
    pub(crate) bearers: BTreeMap<Bearer, BTreeSet<ChildSaId>>,
    out: VecDeque<Output>,
    /// Child SAs that send as soon as the one named first is gone.
    waiters: BTreeMap<ChildSaId, BTreeSet<ChildSaId>>,
    questions: BTreeMap<AskId, Question>,
    /// When they count as lost.
    overdue: BTreeSet<(Instant, AskId)>,
    /// Inbound halves that outlive their Child SA by [`IN_FLIGHT`], oldest first, with the IKE SA that
    /// held them.
    lingering: VecDeque<(Instant, ChildSaId, Option<IkeSaId>)>,
    last_ask: u64,
    last_ike_sa: u64,
    last_child_sa: u64,
}

/// Connection, child, peer, selectors: what Child SAs have in common that replace each other.
pub(crate) type Bearer = (String, String, Identification, String);

/// The peer of an IKE SA.
pub(crate) struct Peer {
    pub(crate) at: SocketAddr,
    pub(crate) connection: Arc<Connection>,
    /// The IKE SA as which it authenticated, and to which addresses are lent.
    pub(crate) line: Option<IkeSaId>,
    /// Who it has proven to be.
    pub(crate) identity: Option<Identification>,
}

/// A question, or an order that is answered.
struct Question {
    who: Waiting,
    patience: Duration,
    due: Instant,
    /// The answer that says why there is none.
    failure: fn(String) -> Answer,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// An IKE SA, for an exchange in progress.
    IkeSa(IkeSaId),
    /// A Child SA, whichever IKE SA holds it by then.
    ChildSa(ChildSaId),
    /// The keeper, for the connection of that name.
    Keeper(String),
    /// The IKE SAs of this line, for ways to the peer. With `changed`, the network is another one.
    Ways { line: IkeSaId, changed: bool },
    /// The examination of the peer that authenticated as this IKE SA.
    Examination(IkeSaId),
}

/// What an IKE SA reports to the endpoint.
pub(crate) enum Upcall {
    /// Both sides are authenticated. With `initial_contact` the peer says that it knows of no
    /// other IKE SA between the two identities.
    Established { sa: IkeSaId, initial_contact: bool },
    /// Somebody who has not authenticated: told to the operator unless there are too many.
    Stranger(Event),
    /// A peer offers for ESP only what is not accepted.
    Offers(Box<RefusedCall>),
    /// A rekey made a new IKE SA.
    Rekeyed(Box<IkeSa>),
    /// `to` takes what `from` holds: the peer uses it already (RFC 7296 §2.8.2).
    Inherit { from: IkeSaId, to: IkeSaId },
    /// `to` inherits (RFC 7296 §2.8).
    Bequest { to: IkeSaId, estate: Box<Estate> },
    /// It has ended; nothing of it is left on the data path but packets in flight.
    Closed { sa: IkeSaId, reason: Reason },
    /// A child carries traffic.
    ChildUp { sa: IkeSaId, name: String },
    /// A child could not be made.
    ChildFailed {
        sa: IkeSaId,
        name: String,
        reason: Reason,
    },
    /// A child was made for this packet and does not carry it.
    Narrowed {
        sa: IkeSaId,
        name: String,
        packet: Packet,
    },
    /// A child has ended and was not replaced.
    ChildDown {
        sa: IkeSaId,
        name: String,
        reason: Reason,
    },
    /// An exchange ended without a child: what is wanted may be missing.
    Reconsider(IkeSaId),
    /// Lost to another one when both ends rekeyed at once: the peer is to delete it soon.
    Redundant(IkeSaId),
    /// `heir`, which the peer made while `of` was being rekeyed, has ended before it was known which
    /// one inherits.
    Disinherited { of: IkeSaId, heir: IkeSaId },
    /// The peer has used the one in its place.
    Known(IkeSaId),
    /// Its predecessor has ended.
    Outlived(IkeSaId),
    /// Another IKE SA has taken its place, and the peer has not deleted it in time.
    Superseded(IkeSaId),
    /// This Child SA sends no more; those that waited for it may.
    Stopped {
        child: ChildSaId,
        /// What it had in common with others.
        bearer: Bearer,
        /// It served nobody any more.
        forgotten: bool,
    },
    /// This Child SA is to be taken off the data path.
    Removed(ChildSaId),
    /// Time to authenticate anew.
    Reauthenticate(IkeSaId),
    /// The peer does not answer under traffic: it is to be called anew.
    Silent(IkeSaId),
    /// It does after all.
    Answers(IkeSaId),
    /// The way to the peer of this line may be gone: are there others (RFC 4555)?
    SeekWays(IkeSaId),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were no IKE message, or for an IKE SA nobody knows.
    pub stray: u64,
    /// Datagrams that did not authenticate.
    pub forged: u64,
    /// Repeated messages.
    pub repeated: u64,
    /// Calls dropped because too many IKE SAs were half open.
    pub dropped: u64,
    /// Cookies asked for.
    pub cookies: u64,
    /// Calls refused in IKE_SA_INIT or IKE_AUTH.
    pub refused: u64,
    /// Requests repeated by us.
    pub retransmitted: u64,
    /// IKE SAs established, rekeys not counted.
    pub established: u64,
    /// Child SAs installed, rekeys counted.
    pub children: u64,
}

impl Context {
    pub(crate) fn new(random: Box<dyn Random + Send>, policy: Arc<Policy>) -> Self {
        Self {
            now: Now {
                boot: Instant::default(),
                utc: None,
            },
            policy,
            random,
            counters: Counters::default(),
            own_addresses: Vec::new(),
            holders: BTreeMap::new(),
            upcalls: VecDeque::new(),
            peers: BTreeMap::new(),
            peers_at: BTreeSet::new(),
            bearers: BTreeMap::new(),
            out: VecDeque::new(),
            waiters: BTreeMap::new(),
            questions: BTreeMap::new(),
            overdue: BTreeSet::new(),
            lingering: VecDeque::new(),
            last_ask: 0,
            last_ike_sa: 0,
            last_child_sa: 0,
        }
    }

    pub(crate) fn boot(&self) -> Instant {
        self.now.boot
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn new_ike_sa_id(&mut self) -> IkeSaId {
        self.last_ike_sa += 1;
        IkeSaId(self.last_ike_sa)
    }

    pub(crate) fn new_child_sa_id(&mut self) -> ChildSaId {
        self.last_child_sa += 1;
        ChildSaId(self.last_child_sa)
    }

    fn new_ask(&mut self) -> AskId {
        self.last_ask += 1;
        AskId(self.last_ask)
    }

    fn wait(&mut self, id: AskId, who: Waiting, patience: Duration, failure: fn(String) -> Answer) {
        let due = self.boot() + patience;
        self.overdue.insert((due, id));
        let question = Question {
            who,
            patience,
            due,
            failure,
        };
        self.questions.insert(id, question);
    }

    /// Asks; whoever `who` names gets the answer, or in the end one that says that there is none.
    pub(crate) fn ask(&mut self, who: Waiting, ask: Ask) -> AskId {
        let id = self.new_ask();
        let patience = match &ask {
            Ask::Resolve { .. } => PATIENCE.saturating_add(PATIENCE_OF_NAMES),
            _ => PATIENCE,
        };
        self.wait(id, who, patience, ask.failure());
        self.out.push_back(Output::Ask(id, ask));
        id
    }

    /// Orders something of the data path that is answered; as [`Context::ask`].
    pub(crate) fn order(
        &mut self,
        who: Waiting,
        command: impl FnOnce(AskId) -> DataCommand,
    ) -> AskId {
        let id = self.new_ask();
        let command = command(id);
        self.wait(id, who, PATIENCE, command.failure());
        self.out.push_back(Output::Data(command));
        id
    }

    /// Who waits for this answer; each is given once.
    pub(crate) fn take_waiting(&mut self, id: AskId) -> Option<Waiting> {
        let question = self.questions.remove(&id)?;
        self.overdue.remove(&(question.due, id));
        Some(question.who)
    }

    /// When the next question counts as lost.
    pub(crate) fn next_overdue(&self) -> Option<Instant> {
        self.overdue.first().map(|(due, _)| *due)
    }

    /// A question that counts as lost, and the answer it gets instead. The true one is discarded if
    /// it comes after all.
    pub(crate) fn overdue(&self) -> Option<(AskId, Answer)> {
        let (due, id) = self.overdue.first()?;
        let question = self.questions.get(id).filter(|_| *due <= self.boot())?;
        let why = format!("no answer within {} s", question.patience.as_secs());
        Some((*id, (question.failure)(why)))
    }

    /// An answer that nobody waits for any more: what it gave goes back.
    pub(crate) fn discard(&mut self, answer: Answer) {
        if let Answer::Spi(Ok(spi)) = answer {
            self.data(DataCommand::FreeSpi { spi });
        }
    }

    pub(crate) fn data(&mut self, command: DataCommand) {
        self.out.push_back(Output::Data(command));
    }

    pub(crate) fn transmit(&mut self, path: Path, datagram: Vec<u8>) {
        self.send(path, datagram, false);
    }

    /// The same for what shows whether a packet of its size arrives.
    pub(crate) fn transmit_whole(&mut self, path: Path, datagram: Vec<u8>) {
        self.send(path, datagram, true);
    }

    fn send(&mut self, path: Path, datagram: Vec<u8>, whole: bool) {
        self.out.push_back(Output::Transmit(Transmit {
            path,
            datagram,
            whole,
        }));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// An event about the endpoint or about a stranger.
    pub(crate) fn event_of_path(&mut self, path: Option<Path>, kind: EventKind) {
        self.event(Event {
            connection: None,
            ike_sa: None,
            path,
            peer: None,
            kind,
        });
    }

    pub(crate) fn upcall(&mut self, upcall: Upcall) {
        self.upcalls.push_back(upcall);
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// Between half of `most` and all of it, so that two ends do not act at the same moment again
    /// and again.
    pub(crate) fn jittered(&mut self, most: Duration) -> Duration {
        let share = (self.random_u64() >> 40) as f64 / f64::from(1u32 << 24);
        most.mul_f64(0.5 + share / 2.0)
    }

    /// Where the peer of an IKE SA is by now; `None`: it has none any more.
    pub(crate) fn note_peer(&mut self, id: IkeSaId, peer: Option<Peer>) {
        let now_at = peer.as_ref().map(|peer| peer.at);
        let before = match peer {
            Some(peer) => self.peers.insert(id, peer),
            None => self.peers.remove(&id),
        };
        if let Some(Peer { at: before, .. }) = before {
            self.peers_at.remove(&(before.ip(), before.port(), id));
        }
        if let Some(at) = now_at {
            self.peers_at.insert((at.ip(), at.port(), id));
        }
    }

    /// The IKE SAs whose peers are at this address.
    pub(crate) fn peers_at(&self, ip: IpAddr) -> impl Iterator<Item = IkeSaId> {
        let all = (ip, 0, IkeSaId(0))..=(ip, u16::MAX, IkeSaId(u64::MAX));
        self.peers_at.range(all).map(|(_, _, id)| *id)
    }

    /// The same at this port of it.
    pub(crate) fn peers_of(&self, at: SocketAddr) -> impl Iterator<Item = IkeSaId> {
        let all = (at.ip(), at.port(), IkeSaId(0))..=(at.ip(), at.port(), IkeSaId(u64::MAX));
        self.peers_at.range(all).map(|(_, _, id)| *id)
    }

    /// To whom of those at this place addresses may be lent.
    pub(crate) fn lines_at(&self, at: SocketAddr) -> BTreeSet<IkeSaId> {
        let ids = self.peers_of(at).take(LINES);
        ids.filter_map(|id| self.peers.get(&id)?.line).collect()
    }

    /// Whether another IKE SA than `sa`, which calls `server` of this connection, may be between the same two ends.
    /// Others to the same address do not count, nor one with another server of the list, if it has proven to be
    /// somebody else: RFC 7296 §2.4 speaks of identities.
    pub(crate) fn knows_peer_beside(
        &self,
        sa: IkeSaId,
        connection: &Connection,
        server: usize,
        peer: IpAddr,
    ) -> bool {
        let called = connection.identity_of(server);
        self.peers.iter().any(|(id, other)| {
            let theirs = &other.connection;
            let proven = other.identity.as_ref();
            *id != sa
                && ((theirs.name == connection.name && proven.is_none_or(|id| called.matches(id)))
                    || (other.at.ip() == peer
                        && theirs.local_identity == connection.local_identity
                        && theirs.remote_identity == connection.remote_identity))
        })
    }

    /// `waiter` sends once `gone` is gone.
    pub(crate) fn waiting_for(&mut self, gone: ChildSaId, waiter: ChildSaId) {
        self.waiters.entry(gone).or_default().insert(waiter);
    }

    /// Those that waited for `gone`.
    pub(crate) fn take_waiters(&mut self, gone: ChildSaId) -> BTreeSet<ChildSaId> {
        self.waiters.remove(&gone).unwrap_or_default()
    }

    /// The inbound half is removed when packets in flight have had time to arrive.
    pub(crate) fn remove_in_later(&mut self, child: ChildSaId) {
        let holder = self.holders.remove(&child);
        let at = self.boot() + IN_FLIGHT;
        self.lingering.push_back((at, child, holder));
    }

    pub(crate) fn next_removal(&self) -> Option<Instant> {
        self.lingering.front().map(|(at, ..)| *at)
    }

    /// Removes the inbound halves that these IKE SAs held, though they are not due.
    pub(crate) fn remove_in_now(&mut self, holders: &[Option<IkeSaId>]) {
        let held = |holder: &Option<IkeSaId>| holder.is_some() && holders.contains(holder);
        let mut gone = Vec::new();
        self.lingering.retain(|(_, child, holder)| {
            if held(holder) {
                gone.push(*child);
            }
            !held(holder)
        });
        for child in gone {
            self.data(DataCommand::RemoveIn { child });
        }
    }

    /// Removes inbound halves that are due; with `all`, every one.
    pub(crate) fn remove_lingering(&mut self, all: bool) {
        let now = self.boot();
        while let Some((at, child, _)) = self.lingering.front().copied() {
            if at > now && !all {
                break;
            }
            self.lingering.pop_front();
            self.data(DataCommand::RemoveIn { child });
        }
    }
}

//! The run: a queue of what is to happen, in the order of time, and the two nodes it happens to.

mod events;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cygnet_esp::DropReason;
use cygnet_ike::Endpoint;
use cygnet_ike::io::{Answer, AskId, DataCommand, DataEvent, Output, Path, Transmit, Transport};
use cygnet_ike::time::{Instant, Now, UtcTime};
use cygnet_wire::natt::KEEPALIVE;

use crate::action::Action;
use crate::answerer::{TODAY, answer};
use crate::datapath::{Datapath, Unopened};
use crate::dice::{Dice, Stream};
use crate::journal::{Journal, Sketch, describe, question};
use crate::network::{Datagram, LONGEST, Load, Network};
use crate::scenario::{CONNECTION, Scenario, Side};
use crate::stats::Stats;

/// The clock at the start: nothing is as it was at boot.
const START: Duration = Duration::from_secs(1000);
/// How long the quiet end must last at least before it is judged.
const QUIET: Duration = Duration::from_secs(20);
/// How long the two may take to come to rest in it. A node that has to find out that its peer
/// is gone takes liveness, all tries and a pause before the next call: two minutes.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longer than all tries of a request together.
const LONG_OUTAGE: Duration = Duration::from_secs(100);
/// How long A may send from a place it has left, counted from the last trouble on. An IKE SA that has a successor and
/// cannot move waits three minutes to be deleted, and then tries all its tries in vain.
const FAREWELL: Duration = Duration::from_secs(270);
/// How often the end is looked at.
const INSPECTION: Duration = Duration::from_millis(500);

/// One of the two.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) datapath: Datapath,
    /// Questions and orders whose answers are still to come.
    pub(crate) pending: usize,
    /// Grows with each reboot: what was meant for an earlier life is dropped.
    life: u32,
    timer: Option<Instant>,
    /// Calls of the timer at one moment.
    spins: u32,
    silent_until: Instant,
    /// Inbound SPIs that ended without a word to the peer, because it counted for dead.
    pub(crate) abandoned: BTreeSet<u32>,
    /// Packets delivered since the network behaves, by child.
    pub(crate) delivered: BTreeMap<String, u64>,
    /// What has been taken down.
    downed: BTreeSet<Option<usize>>,
    /// Which revision of the policy it has.
    revision: u64,
    /// It has taken everything down: time to start anew.
    drained: bool,
}

/// What is to happen.
enum Occurrence {
    Arrive(Datagram),
    Answer(Side, u32, AskId, Answer),
    /// The data path finishes an order.
    Work(Side, u32),
    Timer(Side, u32),
    /// A packet wants to go out.
    Traffic(Side, usize),
    /// Something is done.
    Act,
    ActOn(Side, Action),
    Rebind,
    /// A is at another address.
    Move,
    /// It notices that it has lost this one.
    Notice(u32, IpAddr),
    Outage,
    LongOutage,
    /// The end begins.
    Behave,
    Inspect,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) scenario: Scenario,
    pub(crate) nodes: [Node; 2],
    pub(crate) network: Network,
    queue: BTreeMap<(Instant, u64), Occurrence>,
    queued: u64,
    dice: Dice,
    pub(crate) journal: Journal,
    pub(crate) stats: Stats,
    /// Since when the network behaves.
    pub(crate) quiet_since: Option<Instant>,
    /// Calm runs: traffic has to flow from now on without a pause.
    pub(crate) steady: bool,
    /// Inbound SPIs that the peer would seal on at this moment.
    in_use: Vec<(Side, u32)>,
    /// How often A was at another address.
    moves: u16,
    seed: u64,
}

impl Node {
    fn new(seed: u64, life: u32, scenario: &Scenario, side: Side) -> Self {
        let stream = match side {
            Side::A => Stream::NodeA,
            Side::B => Stream::NodeB,
        };
        let random = Dice::new(seed ^ (u64::from(life) << 48), stream);
        Self {
            endpoint: Endpoint::new(Box::new(random), scenario.policy(side, 0)),
            datapath: Datapath::new(
                scenario.sabotage.filter(|_| side == Side::B),
                scenario.path_mtu,
            ),
            pending: 0,
            life,
            timer: None,
            spins: 0,
            silent_until: Instant::default(),
            abandoned: BTreeSet::new(),
            delivered: BTreeMap::new(),
            downed: BTreeSet::new(),
            revision: 0,
            drained: false,
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario, journal: Journal) -> Self {
        let network = Network::new(&scenario, Dice::new(seed, Stream::Network));
        let nodes = Side::BOTH.map(|side| Node::new(seed, 0, &scenario, side));
        Self {
            now: Instant::from_boot(START),
            scenario,
            nodes,
            network,
            queue: BTreeMap::new(),
            queued: 0,
            dice: Dice::new(seed, Stream::World),
            journal,
            stats: Stats::default(),
            quiet_since: None,
            steady: false,
            in_use: Vec::new(),
            moves: 0,
            seed,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let lasted = self.now.since(Instant::from_boot(START));
        Stats {
            runs: 1,
            seconds: lasted.as_secs(),
            ..self.stats
        }
    }

    pub(crate) fn into_trace(self) -> Vec<String> {
        self.journal.into_lines()
    }

    pub(crate) fn node(&self, side: Side) -> &Node {
        let [a, b] = &self.nodes;
        if side == Side::A { a } else { b }
    }

    pub(crate) fn node_mut(&mut self, side: Side) -> &mut Node {
        let [a, b] = &mut self.nodes;
        if side == Side::A { a } else { b }
    }

    pub(crate) fn clock(&self) -> Now {
        let lasted = self.now.since(Instant::from_boot(START));
        let seconds = i64::try_from(lasted.as_secs()).unwrap_or(i64::MAX);
        Now {
            boot: self.now,
            utc: Some(UtcTime(TODAY.0 + seconds)),
        }
    }

    fn after(&mut self, wait: Duration, what: Occurrence) {
        self.at(self.now + wait, what);
    }

    fn at(&mut self, when: Instant, what: Occurrence) {
        self.queued += 1;
        self.queue.insert((when, self.queued), what);
    }

    /// From start to end. An error names the rule that was broken, and when.
    pub(crate) fn live(&mut self) -> Result<(), String> {
        let outcome = self.happen();
        let lasted = self.now.since_boot().as_secs_f64();
        outcome.map_err(|what| format!("at {lasted:.6}: {what}"))
    }

    fn happen(&mut self) -> Result<(), String> {
        let scenario = self.scenario.clone();
        self.journal.line(self.now, || format!("{scenario:?}"));
        for side in Side::BOTH {
            let policy = scenario.policy(side, 0);
            self.input(side, |endpoint, now| endpoint.handle_policy(now, policy))?;
            for child in 0..scenario.children {
                let wait = self.dice.millis(0, 2000);
                self.after(wait, Occurrence::Traffic(side, child));
            }
        }
        self.after(Duration::from_secs(3), Occurrence::Act);
        if scenario.nat {
            self.after(Duration::from_secs(15), Occurrence::Rebind);
        }
        if scenario.moves {
            self.after(Duration::from_secs(12), Occurrence::Move);
        }
        if !scenario.calm {
            self.after(Duration::from_secs(10), Occurrence::Outage);
        }
        if scenario.long_outage {
            let wait = self.dice.millis(5_000, 30_000);
            self.after(wait, Occurrence::LongOutage);
        }
        self.after(scenario.chaos, Occurrence::Behave);
        self.after(INSPECTION, Occurrence::Inspect);
        while let Some(((when, _), what)) = self.queue.pop_first() {
            self.pass_time(when);
            if matches!(what, Occurrence::Inspect) {
                if self.inspect()? {
                    return Ok(());
                }
                continue;
            }
            self.occur(what)?;
            self.in_use = self.check_seals()?;
        }
        Err("nothing is left to happen".to_owned())
    }

    /// Until now each node could have sealed on what it had.
    fn pass_time(&mut self, now: Instant) {
        self.now = now;
        for (side, spi) in std::mem::take(&mut self.in_use) {
            if let Some(inbound) = self.node_mut(side).datapath.inbound.get_mut(&spi) {
                inbound.needed = Some(now);
            }
        }
    }

    /// Whether the end has come.
    fn inspect(&mut self) -> Result<bool, String> {
        self.after(INSPECTION, Occurrence::Inspect);
        self.check_exchanges()?;
        match self.quiet_since {
            None => {
                if self.scenario.calm && !self.steady && self.unsettled().is_none() {
                    self.journal
                        .line(self.now, || "traffic must not stop from now on".to_owned());
                    self.steady = true;
                }
            }
            Some(since) => {
                let quiet = self.now.since(since);
                match self.unsettled() {
                    None if quiet >= QUIET => return Ok(true),
                    Some(what) if quiet >= PATIENCE => {
                        let waited = quiet.as_secs();
                        return Err(format!("{waited} s after the last loss, {what}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    fn occur(&mut self, what: Occurrence) -> Result<(), String> {
        match what {
            Occurrence::Arrive(datagram) => self.arrive(datagram),
            Occurrence::Answer(side, life, id, answer) => {
                if self.node(side).life != life {
                    return Ok(());
                }
                self.node_mut(side).pending -= 1;
                self.input(side, |endpoint, now| {
                    endpoint.handle_answer(now, id, answer)
                })
            }
            Occurrence::Work(side, life) => self.work(side, life),
            Occurrence::Timer(side, life) => self.timer(side, life),
            Occurrence::Traffic(side, child) => self.traffic(side, child),
            Occurrence::Act => self.act(),
            Occurrence::ActOn(side, action) => match self.quiet_since {
                None => self.perform(side, action),
                Some(_) => Ok(()),
            },
            Occurrence::Rebind => {
                if self.quiet_since.is_none() {
                    self.journal
                        .line(self.now, || "the NAT forgets its mappings".to_owned());
                    self.network.rebind();
                    let wait = self.dice.millis(5_000, 60_000);
                    self.after(wait, Occurrence::Rebind);
                }
                Ok(())
            }
            Occurrence::Move => {
                if self.quiet_since.is_none() {
                    self.relocate();
                    // Now and then again while it tells of the first.
                    let soon = self.dice.chance(30);
                    let wait = match soon {
                        true => self.dice.millis(0, 1000),
                        false => self.dice.millis(5_000, 40_000),
                    };
                    self.after(wait, Occurrence::Move);
                }
                Ok(())
            }
            Occurrence::Notice(life, lost) => {
                if self.node(Side::A).life != life {
                    return Ok(());
                }
                let event = DataEvent::LocalChange {
                    gone: vec![lost],
                    egress: true,
                };
                self.data(Side::A, event)
            }
            Occurrence::Outage => {
                if self.quiet_since.is_none() && self.dice.chance(30) {
                    let until = self.now + self.dice.millis(1000, 15_000);
                    self.journal.line(self.now, || {
                        format!(
                            "nothing passes until {:.3}",
                            until.since_boot().as_secs_f64()
                        )
                    });
                    self.network.black_out(until);
                }
                let wait = self.dice.millis(10_000, 60_000);
                self.after(wait, Occurrence::Outage);
                Ok(())
            }
            Occurrence::LongOutage => {
                self.journal
                    .line(self.now, || "nothing passes for a long time".to_owned());
                self.network.black_out(self.now + LONG_OUTAGE);
                Ok(())
            }
            Occurrence::Behave => self.behave(),
            Occurrence::Inspect => Ok(()),
        }
    }

    /// Everything goes into a core here, and what comes out is worked off.
    fn input(&mut self, side: Side, handle: impl FnOnce(&mut Endpoint, Now)) -> Result<(), String> {
        let now = self.clock();
        handle(&mut self.node_mut(side).endpoint, now);
        let mut freed = Vec::new();
        let mut died = false;
        while let Some(output) = self.node_mut(side).endpoint.poll_output() {
            match output {
                Output::Ask(id, ask) => {
                    self.journal
                        .line(self.now, || format!("{side} asks {}", question(&ask)));
                    let own = self.network.address(side);
                    let answer = answer(
                        &self.scenario.clone(),
                        (side, own),
                        &mut self.node_mut(side).datapath,
                        ask,
                    );
                    self.answer_later(side, id, answer);
                }
                Output::Data(order) => {
                    if let DataCommand::FreeSpi { spi } = &order {
                        freed.push(*spi);
                    }
                    self.order(side, order);
                }
                Output::Transmit(transmit) => self.transmit(side, transmit)?,
                Output::Event(event) => died |= self.note(side, &event),
            }
        }
        if self.node(side).drained {
            // A process that has ended takes its data path with it.
            self.journal
                .line(self.now, || format!("{side} starts anew"));
            return self.reboot(side);
        }
        if died {
            // What was promised in a request that nobody answered is gone as well.
            self.node_mut(side).abandoned.extend(freed);
        }
        self.set_timer(side);
        Ok(())
    }

    fn answer_later(&mut self, side: Side, id: AskId, answer: Answer) {
        let wait = self.slowness();
        let node = self.node_mut(side);
        node.pending += 1;
        let life = node.life;
        self.after(wait, Occurrence::Answer(side, life, id, answer));
    }

    fn slowness(&mut self) -> Duration {
        match self.scenario.slowness {
            0 => Duration::ZERO,
            most => self.dice.millis(0, most),
        }
    }

    fn order(&mut self, side: Side, order: DataCommand) {
        self.journal
            .line(self.now, || format!("{side} orders {}", describe(&order)));
        let node = self.node_mut(side);
        let life = node.life;
        node.pending += usize::from(is_answered(&order));
        if node.datapath.push(order) {
            let wait = self.slowness();
            self.after(wait, Occurrence::Work(side, life));
        }
    }

    fn work(&mut self, side: Side, life: u32) -> Result<(), String> {
        if self.node(side).life != life {
            return Ok(());
        }
        self.check_removal(side)?;
        let [a, b] = &mut self.nodes;
        let node = if side == Side::A { a } else { b };
        let answer = node.datapath.work(&mut self.dice);
        let answer = answer.map_err(|what| format!("{side}: {what}"))?;
        if self.node(side).datapath.is_busy() {
            let wait = self.slowness();
            self.after(wait, Occurrence::Work(side, life));
        }
        match answer {
            Some((id, answer)) => {
                self.node_mut(side).pending -= 1;
                self.input(side, |endpoint, now| {
                    endpoint.handle_answer(now, id, answer);
                })
            }
            None => Ok(()),
        }
    }

    /// The inbound half of a Child SA may go when nothing sealed for it can still be under way.
    fn check_removal(&self, side: Side) -> Result<(), String> {
        let node = self.node(side);
        let Some(DataCommand::RemoveIn { child }) = node.datapath.current() else {
            return Ok(());
        };
        let inbound = node.datapath.inbound.values();
        for inbound in inbound.filter(|inbound| inbound.params.id == *child) {
            let spi = inbound.params.spi_in;
            let excused = node.abandoned.contains(&spi);
            if let Some(needed) = inbound.needed.filter(|_| !excused)
                && self.now.since(needed) < LONGEST
            {
                let ago = self.now.since(needed).as_secs_f64();
                return Err(format!(
                    "{side} removes {spi:08x} although the peer could seal on it {ago:.3} s ago"
                ));
            }
        }
        Ok(())
    }

    fn transmit(&mut self, side: Side, transmit: Transmit) -> Result<(), String> {
        let Transmit {
            path,
            datagram,
            whole,
        } = transmit;
        self.journal.line(self.now, || {
            format!("{side} sends {} on {path}", Sketch(&datagram))
        });
        let own = self.network.address(side);
        let had = |address: IpAddr| {
            let calm = self.quiet_since.map(|since| self.now.since(since));
            let mut places = (0..self.moves).map(|moves| self.scenario.place(moves));
            side == Side::A
                && calm.is_none_or(|calm| calm < FAREWELL)
                && places.any(|place| place == address)
        };
        let from = path.local.ip();
        if (from != own && !had(from)) || path.transport != Transport::Udp {
            return Err(format!("{side} sends from {}, it has {own}", path.local));
        }
        // IP, UDP, non-ESP marker.
        let around = if from.is_ipv6() { 52 } else { 32 };
        if whole && datagram.len() + around > usize::from(self.scenario.path_mtu) {
            return Ok(());
        }
        let load = match datagram.as_slice() {
            bytes if bytes == KEEPALIVE => Load::Keepalive,
            _ => {
                self.stats.messages += 1;
                Load::Ike(datagram)
            }
        };
        self.send(side, path, &load);
        Ok(())
    }

    fn send(&mut self, side: Side, path: Path, load: &Load) {
        if path.local.ip() != self.network.address(side) {
            // The kernel sends nothing from an address that is gone.
            return;
        }
        let copies = self
            .network
            .send(self.now, side, path.local, path.remote, load);
        for (when, copy) in copies {
            self.at(when, Occurrence::Arrive(copy));
        }
    }

    fn arrive(&mut self, datagram: Datagram) -> Result<(), String> {
        let side = datagram.to;
        let Some(local) = self.network.arrive(self.now, &datagram) else {
            self.journal.line(self.now, || {
                format!("a datagram for {} finds nobody", datagram.dst)
            });
            return Ok(());
        };
        let path = Path {
            transport: Transport::Udp,
            local,
            remote: datagram.src,
            interface: 0,
        };
        match datagram.load {
            Load::Keepalive => Ok(()),
            Load::Ike(bytes) => {
                self.journal.line(self.now, || {
                    format!("{side} receives {} on {path}", Sketch(&bytes))
                });
                self.input(side, |endpoint, now| {
                    endpoint.handle_datagram(now, path, &bytes);
                })
            }
            Load::Esp { packet, fit } => self.open(side, path, packet, fit),
        }
    }

    fn open(
        &mut self,
        side: Side,
        path: Path,
        mut packet: Vec<u8>,
        fit: bool,
    ) -> Result<(), String> {
        let now = self.now;
        let spi = packet
            .first_chunk()
            .map_or(0, |spi| u32::from_be_bytes(*spi));
        let node = self.node_mut(side);
        // Loss is what a NAT does to one who was counted for dead; a copy is a replay.
        let excused = !fit || node.abandoned.contains(&spi);
        let opened = node.datapath.open(now, path, &mut packet);
        match opened.outcome {
            Ok(child) => {
                *node.delivered.entry(child).or_default() += 1;
                self.stats.opened += 1;
            }
            Err(Unopened::Dropped(DropReason::Replayed)) => {}
            Err(reason) if !excused => {
                return Err(format!(
                    "{side} cannot open a packet of {spi:08x}: {reason:?}"
                ));
            }
            Err(_) => {}
        }
        for event in opened.events {
            self.data(side, event)?;
        }
        Ok(())
    }

    fn data(&mut self, side: Side, event: DataEvent) -> Result<(), String> {
        self.journal
            .line(self.now, || format!("{side} is told {event:?}"));
        self.input(side, |endpoint, now| endpoint.handle_data(now, event))
    }

    fn traffic(&mut self, side: Side, child: usize) -> Result<(), String> {
        let wait = self.dice.millis(50, 2000);
        self.after(wait, Occurrence::Traffic(side, child));
        let now = self.now;
        let name = format!("child{child}");
        let node = self.node_mut(side);
        if node.silent_until > now {
            return Ok(());
        }
        let Some(sealed) = node.datapath.seal(now, &name) else {
            if node.datapath.acquire(now, &name) {
                let event = DataEvent::Acquire {
                    connection: CONNECTION.to_owned(),
                    child: name,
                    packet: None,
                };
                return self.data(side, event);
            }
            return Ok(());
        };
        let sealed = sealed.map_err(|what| format!("{side}: {what}"))?;
        self.stats.sealed += 1;
        let fit = self.fits(side, sealed.child);
        let load = Load::Esp {
            packet: sealed.packet,
            fit,
        };
        self.journal.line(now, || {
            format!("{side} seals on {:08x} for {}", sealed.spi, sealed.path)
        });
        self.send(side, sealed.path, &load);
        for event in sealed.events {
            self.data(side, event)?;
        }
        Ok(())
    }

    fn set_timer(&mut self, side: Side) {
        let now = self.now;
        let node = self.node_mut(side);
        let Some(due) = node.endpoint.poll_timeout().map(|due| due.max(now)) else {
            return;
        };
        if node.timer.is_none_or(|set| due < set) {
            node.timer = Some(due);
            let life = node.life;
            self.at(due, Occurrence::Timer(side, life));
        }
    }

    fn timer(&mut self, side: Side, life: u32) -> Result<(), String> {
        let now = self.now;
        let node = self.node_mut(side);
        if node.life != life || node.timer.is_none_or(|set| set > now) {
            return Ok(());
        }
        if node.timer.take().is_some_and(|set| set < now) {
            node.spins = 0;
        }
        if node.endpoint.poll_timeout().is_none_or(|due| due > now) {
            node.spins = 0;
            self.set_timer(side);
            return Ok(());
        }
        self.input(side, Endpoint::handle_timeout)?;
        let node = self.node_mut(side);
        let again = node.endpoint.poll_timeout().is_some_and(|due| due <= now);
        node.spins = if again { node.spins + 1 } else { 0 };
        if node.spins > 8 {
            return Err(format!("the timer of {side} is due again and again"));
        }
        Ok(())
    }
}

/// Whether the core waits for a word about it.
fn is_answered(order: &DataCommand) -> bool {
    matches!(
        order,
        DataCommand::AllocSpi { .. }
            | DataCommand::InstallIn { .. }
            | DataCommand::SwitchOut { .. }
    )
}

//! Two endpoints, a network between them, and a clock that is only a number. Questions of the core
//! are answered at once; what the data path is ordered is written down and checked.

#![allow(unreachable_pub, reason = "a module of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_ike::event::EventKind;
use cygnet_ike::io::{Ask, Command, DataEvent, Output};
use cygnet_ike::policy::Policy;
use cygnet_ike::time::{Instant, Now, UtcTime};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

mod checks;
mod eap;
mod network;
mod node;
mod setup;
pub use eap::LogIns;
pub use network::{Fate, Flight};
pub use node::Node;
pub use setup::*;

pub struct TestRandom(pub ChaCha20Rng);

impl TestRandom {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }
}

impl Random for TestRandom {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    A,
    B,
}

pub use End::{A, B};

impl End {
    pub fn other(self) -> Self {
        match self {
            A => B,
            B => A,
        }
    }

    pub fn address(self) -> IpAddr {
        match self {
            A => "192.0.2.1".parse().unwrap(),
            B => "198.51.100.2".parse().unwrap(),
        }
    }
}

pub struct World {
    pub now: Duration,
    pub a: Node,
    pub b: Node,
    pub delay: Duration,
    flights: BTreeMap<(Duration, u64), Flight>,
    sent: u64,
    pub fate: Box<dyn FnMut(&Flight) -> Fate>,
    /// A NAT before A: what B sees of it, and how far ports are shifted.
    pub nat: Option<(IpAddr, u16)>,
    /// The address under which A sees B: a NAT before B that translates nothing but that.
    pub forwarded: Option<IpAddr>,
    /// Data flows all the time, both ways, on every child that sends.
    pub traffic: bool,
    /// What flows does not arrive.
    pub traffic_is_lost: bool,
    next_traffic: Duration,
    /// Packets that found no opener at the other end.
    pub unopened: Vec<String>,
    pub log: Vec<String>,
}

pub fn at(now: Duration) -> Now {
    Now {
        boot: Instant::from_boot(Duration::from_secs(1000) + now),
        utc: Some(UtcTime(1_700_000_000 + now.as_secs() as i64)),
    }
}

impl World {
    pub fn new(a: Policy, b: Policy) -> Self {
        Self::seeded(a, b, 1)
    }

    pub fn seeded(a: Policy, b: Policy, seed: u64) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            a: Node::new(A, a.clone(), seed),
            b: Node::new(B, b.clone(), seed),
            delay: Duration::from_millis(10),
            flights: BTreeMap::new(),
            sent: 0,
            fate: Box::new(|_| Fate::Deliver),
            nat: None,
            forwarded: None,
            traffic: false,
            traffic_is_lost: false,
            next_traffic: Duration::ZERO,
            unopened: Vec::new(),
            log: Vec::new(),
        };
        world.policy(B, b);
        world.policy(A, a);
        world
    }

    pub fn node(&mut self, end: End) -> &mut Node {
        match end {
            A => &mut self.a,
            B => &mut self.b,
        }
    }

    pub fn policy(&mut self, end: End, policy: Policy) {
        let now = at(self.now);
        self.node(end).endpoint.handle_policy(now, Arc::new(policy));
        self.drain(end);
    }

    pub fn command(&mut self, end: End, command: Command) {
        let now = at(self.now);
        self.node(end).endpoint.handle_command(now, command);
        self.drain(end);
    }

    pub fn data(&mut self, end: End, event: DataEvent) {
        let now = at(self.now);
        self.node(end).endpoint.handle_data(now, event);
        self.drain(end);
    }

    /// This end is elsewhere from now on, and notices.
    pub fn move_to(&mut self, end: End, own: &[IpAddr]) {
        let node = self.node(end);
        let before = std::mem::replace(&mut node.own, own.to_vec());
        let gone = before.into_iter().filter(|a| !own.contains(a)).collect();
        let egress = true;
        self.data(end, DataEvent::LocalChange { gone, egress });
    }

    /// The machine is switched off and on again.
    pub fn reboot(&mut self, end: End, policy: Policy) {
        let seed = self.node(end).seed + 1000;
        let mut node = Node::new(end, policy.clone(), seed);
        node.next_spi = self.node(end).next_spi + 0x100;
        *self.node(end) = node;
        self.flights.retain(|_, flight| flight.to != end);
        self.policy(end, policy);
    }

    pub fn release(&mut self, end: End) {
        let now = at(self.now);
        let node = self.node(end);
        node.hold = false;
        node.hold_chains = false;
        for (id, answer) in std::mem::take(&mut node.held) {
            node.endpoint.handle_answer(now, id, answer);
        }
        self.drain(end);
    }

    /// Lost answers come after all.
    pub fn find_lost(&mut self, end: End) -> usize {
        let now = at(self.now);
        let node = self.node(end);
        let lost = std::mem::take(&mut node.lost);
        let found = lost.len();
        for (id, answer) in lost {
            node.endpoint.handle_answer(now, id, answer);
        }
        self.drain(end);
        found
    }

    /// Takes everything out of an endpoint, answers what it asks, sends what it sends.
    pub fn drain(&mut self, end: End) {
        while let Some(output) = self.node(end).endpoint.poll_output() {
            match output {
                Output::Ask(_, Ask::Resolve { .. }) if self.node(end).no_resolver => {
                    self.node(end).resolves += 1;
                }
                Output::Ask(id, ask) => {
                    let kind = format!("{ask:?}");
                    let of_chain = matches!(ask, Ask::ValidateChain { .. });
                    let now = self.now;
                    let answer = self.node(end).answer(now, ask);
                    if of_chain && self.node(end).hold_chains {
                        self.node(end).held.push((id, answer));
                        continue;
                    }
                    let now = at(self.now);
                    let node = self.node(end);
                    if node.mute.take_if(|mute| *mute == kind).is_some() {
                        node.lost.push((id, answer));
                    } else {
                        node.endpoint.handle_answer(now, id, answer);
                    }
                }
                Output::Data(command) => {
                    let now = at(self.now);
                    self.node(end).obey(now, command);
                    self.check_seal(end);
                }
                Output::Transmit(transmit) => self.send(end, transmit.path, transmit.datagram),
                Output::Event(event) => {
                    let line = format!("{:8.3} {end:?} {:?}", self.now.as_secs_f64(), event.kind);
                    self.log.push(line);
                    self.node(end).events.push(event);
                }
            }
        }
    }

    /// The next thing that happens, if it does before `until`.
    fn step(&mut self, until: Duration) -> bool {
        let boot = |i: Instant| i.since_boot().saturating_sub(Duration::from_secs(1000));
        let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
        let a = self.a.endpoint.poll_timeout().map(boot);
        let b = self.b.endpoint.poll_timeout().map(boot);
        let traffic = self.traffic.then_some(self.next_traffic);
        let Some(next) = [flight, a, b, traffic].into_iter().flatten().min() else {
            return false;
        };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        if flight == Some(next) {
            if let Some((_, flight)) = self.flights.pop_first() {
                let now = at(self.now);
                let node = self.node(flight.to);
                let arrives = node.own.contains(&flight.path.local.ip());
                if arrives && flight.datagram != [0xff] {
                    node.endpoint
                        .handle_datagram(now, flight.path, &flight.datagram);
                }
                self.drain(flight.to);
            }
        } else if a == Some(next) || b == Some(next) {
            let end = if a == Some(next) { A } else { B };
            let now = at(self.now);
            self.node(end).endpoint.handle_timeout(now);
            self.drain(end);
        } else {
            self.next_traffic = self.now + Duration::from_millis(100);
            self.flow(A);
            self.flow(B);
        }
        true
    }

    /// One packet on every child that sends.
    fn flow(&mut self, end: End) {
        self.check_seal(end);
        let names: BTreeSet<_> = self
            .node(end)
            .children
            .values()
            .map(|c| c.params.policy.name.clone())
            .collect();
        for name in names {
            let Some((id, spi)) = self
                .node(end)
                .sending(&name)
                .map(|c| (c.params.id, c.params.spi_out))
            else {
                continue;
            };
            self.data(end, DataEvent::LastOutbound { child: id });
            if self.traffic_is_lost {
                continue;
            }
            let other = end.other();
            let Some(received) = self
                .node(other)
                .children
                .values_mut()
                .find(|c| c.params.spi_in == spi)
            else {
                continue;
            };
            let id = received.params.id;
            let first = received.params.report_first && !received.reported;
            received.reported = true;
            if first {
                self.data(other, DataEvent::FirstAuthenticated { child: id });
            } else {
                self.data(other, DataEvent::LastInbound { child: id });
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 200_000, "busy loop:\n{}", self.tail());
        }
        self.now = until;
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Runs until `done`; panics after `most` seconds.
    #[track_caller]
    pub fn until(&mut self, most: u64, what: &str, done: impl Fn(&mut World) -> bool) {
        let until = self.now + Duration::from_secs(most);
        while !done(self) {
            if !self.step(until) {
                panic!("after {most} s still not: {what}\n{}", self.tail());
            }
        }
    }

    /// How often A has asked something by an INFORMATIONAL exchange, repetitions included.
    pub fn asked(&self) -> usize {
        let asks =
            |line: &&String| line.contains("A -> INFORMATIONAL") && line.contains(" request ");
        self.log.iter().filter(asks).count()
    }

    /// How often A has begun to call.
    pub fn calls(&self) -> usize {
        let connecting = |kind: &EventKind| matches!(kind, EventKind::Connecting { .. });
        self.a.count(connecting)
    }

    pub fn tail(&self) -> String {
        let from = self.log.len().saturating_sub(80);
        self.log[from..].join("\n")
    }
}

//! Two endpoints, a network between them, and a clock that is only a number. Questions of the core
//! are answered at once; what the data path is ordered is written down and checked.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::SigningKey;
use cygnet_ike::Endpoint;
use cygnet_ike::event::{Event, EventKind, Reason};
use cygnet_ike::io::{
    Answer, Ask, ChainError, ChildSaId, ChildSaParameters, Command, DataCommand, DataEvent, Device,
    IkeSaId, Lease, Output, Path, PeerKey, WantedAddress,
};
use cygnet_ike::policy::{Host, Policy, Remote};
use cygnet_ike::status::{ChildSaStatus, IkeSaStatus, Stage};
use cygnet_ike::time::{Instant, Now, UtcTime};
use cygnet_wire::header::{ExchangeType, IkeHeader};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

mod eap;
mod setup;
pub use eap::LogIns;
use setup::KEYS;
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

/// A Child SA as the data path holds it.
pub struct Installed {
    pub params: Arc<ChildSaParameters>,
    pub keys_in: Option<Vec<u8>>,
    pub keys_out: Option<Vec<u8>>,
    /// Rises with each `SwitchOut`: the highest sends.
    pub switched: u64,
    pub reported: bool,
}

pub struct Node {
    pub end: End,
    /// Its addresses, the best of each family first.
    pub own: Vec<IpAddr>,
    pub endpoint: Endpoint,
    pub events: Vec<Event>,
    pub children: BTreeMap<ChildSaId, Installed>,
    pub reserved: BTreeSet<u32>,
    pub traps: BTreeSet<(String, String)>,
    pub assigned: BTreeMap<IkeSaId, Lease>,
    pub leases: BTreeMap<IkeSaId, Lease>,
    pub psk: Vec<u8>,
    /// Users with their passwords, and who is logging in.
    pub log_ins: LogIns,
    /// How often these secrets cannot be read.
    pub unreadable: BTreeMap<&'static str, usize>,
    /// Which device each lease was asked for.
    pub devices: Vec<Option<Device>>,
    pub resolves: usize,
    pub unreachable: bool,
    /// Questions for addresses get no answer.
    pub no_resolver: bool,
    /// Until when certificates are good that it is shown, in seconds since the start.
    pub certified: i64,
    /// The next installation fails.
    pub install_fails: bool,
    /// No address can be lent.
    pub pool_is_full: bool,
    /// Answers to `InstallIn` and `Spi` are kept back until released.
    pub hold: bool,
    /// Answers about chains are kept back until released.
    pub hold_chains: bool,
    /// The peer's certificate is revoked.
    pub revoked: bool,
    held: Vec<(cygnet_ike::io::AskId, Answer)>,
    /// So many chains find nobody who has time for them.
    pub busy: usize,
    /// The next question or order of this kind gets no answer.
    pub mute: Option<&'static str>,
    /// The answers it did not get.
    lost: Vec<(cygnet_ike::io::AskId, Answer)>,
    next_spi: u32,
    switches: u64,
    seed: u64,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub to: End,
    pub path: Path,
    pub datagram: Vec<u8>,
}

impl Flight {
    pub fn header(&self) -> Option<IkeHeader> {
        IkeHeader::parse(&self.datagram).ok().map(|(h, _, _)| h)
    }

    pub fn is(&self, exchange: ExchangeType, response: bool) -> bool {
        self.header()
            .is_some_and(|h| h.exchange == exchange && h.flags.is_response() == response)
    }
}

/// What happens to a datagram.
pub enum Fate {
    Deliver,
    Drop,
    Delay(Duration),
    Twice,
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
    next_traffic: Duration,
    /// Packets that found no opener at the other end.
    pub unopened: Vec<String>,
    pub log: Vec<String>,
}

const DAY: i64 = 86_400;

impl Node {
    fn new(end: End, policy: Policy, seed: u64) -> Self {
        let random = TestRandom::new(seed * 2 + end as u64);
        Self {
            end,
            own: vec![end.address()],
            endpoint: Endpoint::new(Box::new(random), Arc::new(policy)),
            events: Vec::new(),
            children: BTreeMap::new(),
            reserved: BTreeSet::new(),
            traps: BTreeSet::new(),
            assigned: BTreeMap::new(),
            leases: BTreeMap::new(),
            psk: b"a long and secret key".to_vec(),
            log_ins: LogIns::default(),
            unreadable: BTreeMap::new(),
            devices: Vec::new(),
            resolves: 0,
            unreachable: false,
            no_resolver: false,
            certified: 365 * DAY,
            install_fails: false,
            pool_is_full: false,
            hold: false,
            hold_chains: false,
            revoked: false,
            held: Vec::new(),
            busy: 0,
            mute: None,
            lost: Vec::new(),
            next_spi: 0x1000 * (end as u32 + 1),
            switches: 0,
            seed,
        }
    }

    /// Where packets to this address leave from.
    fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        let family = |own: &&IpAddr| own.is_ipv4() == remote.is_ipv4();
        self.own.iter().find(family).copied()
    }

    /// IKE SAs that are up and neither replaced nor being deleted.
    pub fn established(&self, now: Duration) -> Vec<IkeSaStatus> {
        let status = self.endpoint.status(at(now));
        let up = |sa: &IkeSaStatus| sa.stage == Stage::Established;
        status.ike_sas.into_iter().filter(up).collect()
    }

    pub fn ike_sas(&self, now: Duration) -> Vec<IkeSaStatus> {
        self.endpoint.status(at(now)).ike_sas
    }

    pub fn child_sas(&self, now: Duration) -> Vec<ChildSaStatus> {
        self.ike_sas(now)
            .into_iter()
            .flat_map(|sa| sa.children)
            .collect()
    }

    pub fn reasons(&self) -> Vec<Reason> {
        self.events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Refused { reason } => Some(reason.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn count(&self, of: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| of(&event.kind)).count()
    }

    /// The Child SA that would send for a child of that name.
    pub fn sending(&self, name: &str) -> Option<&Installed> {
        self.children
            .values()
            .filter(|child| child.params.policy.name == name && child.keys_out.is_some())
            .max_by_key(|child| child.switched)
    }
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
                    let answer = self.answer(end, ask);
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
                Output::Data(command) => self.obey(end, command),
                Output::Transmit(transmit) => self.send(end, transmit.path, transmit.datagram),
                Output::Event(event) => {
                    let line = format!("{:8.3} {end:?} {:?}", self.now.as_secs_f64(), event.kind);
                    self.log.push(line);
                    self.node(end).events.push(event);
                }
            }
        }
    }

    fn answer(&mut self, end: End, ask: Ask) -> Answer {
        let now = self.now;
        let node = self.node(end);
        match ask {
            Ask::Resolve { connection } => {
                node.resolves += 1;
                if node.unreachable {
                    return Answer::Paths(Err("the name has no address".to_owned()));
                }
                let Remote::Hosts { hosts, port } = &connection.remote else {
                    return Answer::Paths(Ok(Vec::new()));
                };
                let paths = hosts.iter().map(|host| {
                    let address = match host {
                        Host::Address(address) => *address,
                        Host::Name(_) => end.other().address(),
                    };
                    let local = node.source(address).unwrap_or(end.address());
                    path(SocketAddr::new(local, 500), SocketAddr::new(address, *port))
                });
                Answer::Paths(Ok(paths.collect()))
            }
            Ask::Ways { from, to, .. } => {
                let ways = to.into_iter().filter_map(|remote| {
                    let local = node.source(remote.ip())?;
                    Some(path(SocketAddr::new(local, from), remote))
                });
                Answer::Paths(Ok(ways.collect()))
            }
            Ask::Sign { scheme, octets, .. } => {
                let key = SigningKey::from_pem(KEYS[end as usize]).unwrap();
                Answer::Signed(key.sign(scheme, &octets).map_err(|e| e.to_string()))
            }
            Ask::PskAuth {
                credential,
                prf,
                octets,
            } => {
                if let Some(left) = node.unreadable.get_mut(credential.0.as_str())
                    && *left > 0
                {
                    *left -= 1;
                    return Answer::Mac(Err("its file cannot be read".to_owned()));
                }
                Answer::Mac(Ok(psk_auth(prf, &node.psk, &octets)))
            }
            Ask::ValidateChain {
                certificates,
                identity,
                ..
            } => {
                if node.busy > 0 {
                    node.busy -= 1;
                    let why = "too many certificates wait".to_owned();
                    return Answer::Chain(Err(ChainError::Unavailable(why)));
                }
                let leaf = certificates.first().cloned().unwrap_or_default();
                let known = [A, B]
                    .into_iter()
                    .find(|e| leaf.starts_with(&certificate(*e)));
                let known = known.filter(|_| now.as_secs() < node.certified as u64);
                Answer::Chain(match known {
                    Some(_) if node.revoked => Err(ChainError::Invalid(
                        "its certificate was revoked".to_owned(),
                    )),
                    Some(end) => {
                        let key = SigningKey::from_pem(KEYS[end as usize]).unwrap();
                        Ok(PeerKey {
                            spki: key.public_key_spki().to_vec(),
                            subject: identity.to_string(),
                            not_after: UtcTime(1_700_000_000 + node.certified),
                        })
                    }
                    None => Err(ChainError::Invalid(
                        "the certificate of the peer is of an unknown CA".to_owned(),
                    )),
                })
            }
            Ask::Eap {
                ike_sa,
                connection,
                peer_logs_in,
                packet,
                ..
            } => node
                .log_ins
                .answer(ike_sa, &connection, peer_logs_in, packet),
            Ask::Lease { .. } if node.pool_is_full => {
                Answer::Leased(Err("no address is free".to_owned()))
            }
            Ask::Lease {
                ike_sa,
                device,
                wanted,
                ..
            } => {
                node.devices.push(device);
                let addresses = wanted.iter().map(|wanted| match wanted {
                    WantedAddress::V4(_) => IpAddr::from([10, 9, 0, 7]),
                    WantedAddress::V6(_) => "fd00::7".parse().unwrap(),
                });
                let lease = Lease {
                    addresses: addresses.collect(),
                    dns: vec![IpAddr::from([10, 9, 0, 1])],
                    domains: vec!["corp.example".to_owned()],
                };
                node.leases.insert(ike_sa, lease.clone());
                Answer::Leased(Ok(lease))
            }
        }
    }

    fn obey(&mut self, end: End, command: DataCommand) {
        let now = at(self.now);
        let node = self.node(end);
        let mut reply = None;
        let kind = format!("{command:?}");
        match command {
            DataCommand::AllocSpi { id } => {
                node.next_spi += 1;
                node.reserved.insert(node.next_spi);
                reply = Some((id, Answer::Spi(Ok(node.next_spi))));
            }
            DataCommand::FreeSpi { spi } => {
                assert!(node.reserved.remove(&spi), "{spi:x} was not reserved");
            }
            DataCommand::InstallIn { id, child, keys } => {
                assert!(node.reserved.remove(&child.spi_in), "SPI was not reserved");
                let result = match std::mem::take(&mut node.install_fails) {
                    true => Err("no memory".to_owned()),
                    false => Ok(()),
                };
                if result.is_ok() {
                    let installed = Installed {
                        params: child.clone(),
                        keys_in: Some(keys.expose().to_vec()),
                        keys_out: None,
                        switched: 0,
                        reported: false,
                    };
                    assert!(node.children.insert(child.id, installed).is_none());
                }
                reply = Some((id, Answer::Installed(result)));
            }
            DataCommand::SwitchOut { id, child, keys } => {
                node.switches += 1;
                let installed = node.children.get_mut(&child.id).expect("InstallIn first");
                assert!(installed.keys_out.is_none(), "switched twice");
                installed.keys_out = Some(keys.expose().to_vec());
                installed.switched = node.switches;
                reply = Some((id, Answer::Installed(Ok(()))));
            }
            DataCommand::UpdatePath { child, path } => {
                let installed = node.children.get_mut(&child).expect("installed");
                Arc::make_mut(&mut installed.params).path = path;
            }
            DataCommand::RemoveOut { child } => {
                let installed = node.children.get_mut(&child).expect("installed");
                assert!(
                    installed.keys_out.take().is_some(),
                    "stopped what did not send"
                );
            }
            DataCommand::RemoveIn { child } => {
                if let Some(installed) = node.children.remove(&child) {
                    assert!(installed.keys_out.is_none(), "removed while sending");
                }
            }
            DataCommand::InstallTrap { connection, child } => {
                node.traps
                    .insert((connection.name.clone(), child.name.clone()));
            }
            DataCommand::RemoveTrap { connection, child } => {
                assert!(node.traps.remove(&(connection, child)));
            }
            DataCommand::SetVirtual { ike_sa, lease, .. } => {
                if lease.addresses.is_empty() {
                    assert!(node.assigned.remove(&ike_sa).is_some());
                } else {
                    node.assigned.insert(ike_sa, lease);
                }
            }
            DataCommand::ReleaseLease { ike_sa } => {
                node.leases.remove(&ike_sa);
            }
            DataCommand::EndLogIn { ike_sa } => node.log_ins.end(ike_sa),
        }
        if let Some((id, answer)) = reply {
            if node.hold {
                node.held.push((id, answer));
            } else if node.mute.take_if(|mute| *mute == kind).is_some() {
                node.lost.push((id, answer));
            } else {
                node.endpoint.handle_answer(now, id, answer);
            }
        }
        self.check_seal(end);
    }

    /// Whatever would be sealed now can be opened by the other end.
    fn check_seal(&mut self, end: End) {
        let (us, them) = match end {
            A => (&self.a, &self.b),
            B => (&self.b, &self.a),
        };
        let names: BTreeSet<_> = us
            .children
            .values()
            .map(|c| c.params.policy.name.clone())
            .collect();
        for name in names {
            let Some(sending) = us.sending(&name) else {
                continue;
            };
            let opener = them.children.values().find(|child| {
                child.params.spi_in == sending.params.spi_out && child.keys_in.is_some()
            });
            let opens = opener.is_some_and(|child| child.keys_in == sending.keys_out);
            // RFC 7296 §2.8: a new one may be used before the response has arrived, but not while
            // another one serves.
            let others = us.children.values().filter(|c| {
                c.params.policy.name == name
                    && c.keys_out.is_some()
                    && c.params.id != sending.params.id
            });
            let served = others.into_iter().any(|other| {
                them.children
                    .values()
                    .any(|c| c.params.spi_in == other.params.spi_out)
            });
            let early = them.reserved.contains(&sending.params.spi_out) && !served;
            if !opens && !early {
                let what = format!(
                    "{:.3}: {end:?} seals on {name} {:08x}, which the other cannot open",
                    self.now.as_secs_f64(),
                    sending.params.spi_out
                );
                self.log.push(what.clone());
                self.unopened.push(what);
            }
        }
    }

    fn send(&mut self, from: End, path: Path, datagram: Vec<u8>) {
        let Some(seen) = self.translate(from, path) else {
            return;
        };
        let flight = Flight {
            to: from.other(),
            path: seen,
            datagram,
        };
        if let Some(h) = flight.header() {
            let line = format!(
                "{:8.3} {from:?} -> {} {} {} {} ({} octets)",
                self.now.as_secs_f64(),
                h.exchange,
                h.message_id,
                if h.flags.is_response() {
                    "response"
                } else {
                    "request"
                },
                path,
                flight.datagram.len()
            );
            self.log.push(line);
        }
        let arrives = self.now + self.delay;
        match (self.fate)(&flight) {
            Fate::Deliver => self.fly(arrives, flight),
            Fate::Drop => self.log.push("         (lost)".to_owned()),
            Fate::Delay(by) => self.fly(arrives + by, flight),
            Fate::Twice => {
                self.fly(arrives, flight.clone());
                self.fly(arrives + self.delay, flight);
            }
        }
    }

    pub fn fly(&mut self, arrives: Duration, flight: Flight) {
        self.sent += 1;
        self.flights.insert((arrives, self.sent), flight);
    }

    /// The path as the receiver sees it; `None`: it leads nowhere.
    fn translate(&self, from: End, sent: Path) -> Option<Path> {
        let (mut source, mut target) = (sent.local, sent.remote);
        let (us, them) = match from {
            A => (&self.a, &self.b),
            B => (&self.b, &self.a),
        };
        if !us.own.contains(&source.ip()) {
            return None;
        }
        if let Some((outside, shift)) = self.nat {
            match from {
                A => source = SocketAddr::new(outside, source.port() + shift),
                B => {
                    if target.ip() != outside || target.port() < shift {
                        return None;
                    }
                    target = SocketAddr::new(*self.a.own.first()?, target.port() - shift);
                }
            }
        }
        if let Some(outside) = self.forwarded {
            match from {
                A if target.ip() == outside => target.set_ip(B.address()),
                A => return None,
                B => source.set_ip(outside),
            }
        }
        (them.own.contains(&target.ip()) && matches!(target.port(), 500 | 4500))
            .then(|| path(target, source))
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

    pub fn tail(&self) -> String {
        let from = self.log.len().saturating_sub(80);
        self.log[from..].join("\n")
    }

    /// Both hold one IKE SA, the same, with these children, the same; nothing was sealed in vain.
    #[track_caller]
    pub fn assert_in_step(&mut self, children: &[&str]) {
        let now = self.now;
        let (a, b) = (self.a.ike_sas(now), self.b.ike_sas(now));
        let tail = self.tail();
        assert_eq!(a.len(), 1, "IKE SAs of A: {a:#?}\n{tail}");
        assert_eq!(b.len(), 1, "IKE SAs of B: {b:#?}\n{tail}");
        assert_eq!((a[0].spi_i, a[0].spi_r), (b[0].spi_i, b[0].spi_r), "{tail}");
        for (ours, theirs) in [(&a[0], &b[0]), (&b[0], &a[0])] {
            let mut names: Vec<_> = ours.children.iter().map(|c| c.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, children, "{ours:#?}\n{tail}");
            for child in &ours.children {
                assert!(child.installed && child.sending, "{child:#?}\n{tail}");
                let paired = |c: &&ChildSaStatus| {
                    c.spi_in == child.spi_out && c.spi_out == child.spi_in && c.suite == child.suite
                };
                assert!(
                    theirs.children.iter().any(|c| paired(&c)),
                    "{child:#?}\n{tail}"
                );
            }
        }
        for node in [&self.a, &self.b] {
            assert!(
                node.reserved.is_empty(),
                "SPIs left over at {:?}\n{tail}",
                node.end
            );
            assert_eq!(
                node.children.len(),
                children.len(),
                "data path of {:?}\n{tail}",
                node.end
            );
        }
        assert!(self.unopened.is_empty(), "{:#?}\n{tail}", self.unopened);
    }

    #[track_caller]
    pub fn assert_empty(&mut self) {
        let now = self.now;
        let tail = self.tail();
        for node in [&self.a, &self.b] {
            let sas = node.ike_sas(now);
            assert!(sas.is_empty(), "{:?}: {sas:#?}\n{tail}", node.end);
            assert!(node.children.is_empty(), "{:?}\n{tail}", node.end);
            assert!(node.reserved.is_empty(), "{:?}\n{tail}", node.end);
            assert!(
                node.assigned.is_empty() && node.leases.is_empty(),
                "{:?}\n{tail}",
                node.end
            );
        }
    }
}

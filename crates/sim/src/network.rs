//! What lies between the two: loss, delay, duplication, reordering, outages, and a NAT before A.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cygnet_ike::time::Instant;

use crate::dice::Dice;
use crate::scenario::{Scenario, Side};

/// Nothing in the network takes longer.
pub(crate) const LONGEST: Duration = Duration::from_millis(2000);

/// How long a mapping of the NAT lives without a packet from inside.
const IDLE: Duration = Duration::from_secs(40);

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// An IKE message.
    Ike(Vec<u8>),
    /// A NAT keepalive.
    Keepalive,
    /// An ESP packet.
    Esp {
        packet: Vec<u8>,
        /// The peer could open it when it was sealed.
        fit: bool,
    },
}

/// A datagram, or one of its copies, under way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) to: Side,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) load: Load,
}

pub(crate) struct Network {
    dice: Dice,
    loss: [u64; 2],
    duplicates: u64,
    reordered: u64,
    delay: (u64, u64),
    addresses: [IpAddr; 2],
    nat: Option<Nat>,
    outage_until: Instant,
}

/// A router that puts its own address and a port of its choice in the place of A's.
struct Nat {
    address: IpAddr,
    next_port: u16,
    /// By A's port.
    outside: BTreeMap<u16, Mapping>,
}

struct Mapping {
    port: u16,
    used: Instant,
}

impl Network {
    pub(crate) fn new(scenario: &Scenario, dice: Dice) -> Self {
        Self {
            dice,
            loss: scenario.loss,
            duplicates: scenario.duplicates,
            reordered: scenario.reordered,
            delay: scenario.delay,
            addresses: Side::BOTH.map(|side| scenario.address(side)),
            nat: scenario.nat.then(|| Nat {
                address: Ipv4Addr::new(203, 0, 113, 1).into(),
                next_port: 20_000,
                outside: BTreeMap::new(),
            }),
            outage_until: Instant::default(),
        }
    }

    /// A datagram leaves a node: when and how it gets to the other, if it does.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        from: Side,
        src: SocketAddr,
        dst: SocketAddr,
        load: &Load,
    ) -> Vec<(Instant, Datagram)> {
        let src = match (&mut self.nat, from) {
            (Some(nat), Side::A) => nat.outbound(now, src.port()),
            _ => src,
        };
        let loss = self.loss.get(from.index()).copied().unwrap_or(0);
        if now < self.outage_until || self.dice.chance(loss) {
            return Vec::new();
        }
        let copies = if self.dice.chance(self.duplicates) {
            2
        } else {
            1
        };
        (0..copies)
            .map(|_| {
                let mut delay = self.dice.millis(self.delay.0, self.delay.1);
                if self.dice.chance(self.reordered) {
                    delay += self.dice.millis(0, 1500);
                }
                let datagram = Datagram {
                    to: from.other(),
                    src,
                    dst,
                    load: load.clone(),
                };
                (now + delay.min(LONGEST), datagram)
            })
            .collect()
    }

    /// The address and port at which a datagram arrives, if it does: a NAT lets in what belongs to
    /// a mapping it still has.
    pub(crate) fn arrive(&mut self, now: Instant, datagram: &Datagram) -> Option<SocketAddr> {
        let own = self.addresses.get(datagram.to.index()).copied()?;
        match (&mut self.nat, datagram.to) {
            (Some(nat), Side::A) => {
                let port = nat.inbound(now, datagram.dst)?;
                Some((own, port).into())
            }
            _ => (datagram.dst.ip() == own).then_some(datagram.dst),
        }
    }

    /// The address that a node has.
    pub(crate) fn address(&self, side: Side) -> IpAddr {
        let [a, b] = self.addresses;
        if side == Side::A { a } else { b }
    }

    /// A is at another address, behind another NAT if it was behind one.
    pub(crate) fn relocate(&mut self, address: IpAddr, moves: u16) {
        let [own, _] = &mut self.addresses;
        *own = address;
        if let Some(nat) = &mut self.nat {
            let [low, _] = moves.to_le_bytes();
            nat.address = Ipv4Addr::new(203, 0, 113, low.wrapping_add(1)).into();
            nat.outside.clear();
        }
    }

    /// The NAT forgets its mappings: what A sends next comes from other ports.
    pub(crate) fn rebind(&mut self) {
        if let Some(nat) = &mut self.nat {
            nat.outside.clear();
        }
    }

    /// Nothing passes until then.
    pub(crate) fn black_out(&mut self, until: Instant) {
        self.outage_until = self.outage_until.max(until);
    }

    /// From now on nothing is lost, doubled or overtaken.
    pub(crate) fn behave(&mut self) {
        self.loss = [0, 0];
        self.duplicates = 0;
        self.reordered = 0;
        self.outage_until = Instant::default();
    }
}

impl Nat {
    fn outbound(&mut self, now: Instant, port: u16) -> SocketAddr {
        self.expire(now);
        let next_port = &mut self.next_port;
        let mapping = self.outside.entry(port).or_insert_with(|| {
            *next_port += 1;
            Mapping {
                port: *next_port,
                used: now,
            }
        });
        mapping.used = now;
        (self.address, mapping.port).into()
    }

    fn inbound(&mut self, now: Instant, dst: SocketAddr) -> Option<u16> {
        self.expire(now);
        let is_meant = |mapping: &Mapping| (self.address, mapping.port) == (dst.ip(), dst.port());
        let found = self.outside.iter().find(|(_, mapping)| is_meant(mapping));
        found.map(|(port, _)| *port)
    }

    fn expire(&mut self, now: Instant) {
        self.outside
            .retain(|_, mapping| now.since(mapping.used) < IDLE);
    }
}

//! The security association database (RFC 4301 §4.4.2) as the core's thread keeps it; what workers
//! need of it goes into [`Tables`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;
use std::sync::Arc;

use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use cygnet_crypto::{Random, Secret};
use cygnet_esp::{
    Action, DropReason, InboundSa, Lifetime, OutboundSa, Outlet, Policy, PolicyId, Selectors, Spd,
};
use cygnet_ike::io::{ChildSaId, ChildSaParameters};
use cygnet_ike::policy::{ChildPolicy, Connection, SelectorTemplate};
use cygnet_wire::ts::{AddrRange, TrafficSelector};

use super::device::Device;
use super::road::Road;
use super::tables::{Inbound, Limiter, Outlets, Tables, Trap, Way};
use super::turn::Turn;

/// RFC 4303 §2.1: 1 to 255 are reserved, 0 is never on the wire.
const LEAST_SPI: u32 = 0x100;

/// Every Child SA, trap and device.
#[derive(Default)]
pub(super) struct Sad {
    children: BTreeMap<ChildSaId, Child>,
    traps: Vec<Arc<Trap>>,
    /// Reserved or in use.
    spis: BTreeSet<u32>,
    /// By place; those of connections that are gone stay until the end.
    devices: BTreeMap<usize, Arc<Device>>,
    /// The next device's place; no place is used twice.
    next_place: usize,
    /// The place of each connection's device.
    places: BTreeMap<String, usize>,
    /// Counts `SwitchOut`, to know the newest.
    switched: u64,
    /// What was carried by SAs that are gone, by connection; those of connections that are gone stay, too.
    past_traffic: BTreeMap<String, Traffic>,
    /// Packets dropped by SAs that are gone.
    past_drops: BTreeMap<DropReason, u64>,
    tables: Tables,
    /// Whether what is received on has changed.
    inbound_stale: bool,
    /// Places whose outlets have to be made anew.
    stale: BTreeSet<usize>,
    /// Datagrams by which what is opened at once may be out of order.
    disorder: u32,
}

/// One Child SA.
pub(super) struct Child {
    pub(super) params: Arc<ChildSaParameters>,
    pub(super) road: Arc<Road>,
    pub(super) inbound: Option<Arc<Inbound>>,
    pub(super) outbound: Option<Outbound>,
    /// It sends, or did.
    has_sent: bool,
    /// Packets in and out at the last look.
    seen: (u64, u64),
}

/// The direction we send in.
pub(super) struct Outbound {
    pub(super) sa: Arc<OutboundSa>,
    turn: Arc<Turn>,
    /// Higher is newer.
    pub(super) rank: u64,
}

/// What a Child SA carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Traffic {
    pub(in crate::engine) packets_in: u64,
    pub(in crate::engine) bytes_in: u64,
    pub(in crate::engine) packets_out: u64,
    pub(in crate::engine) bytes_out: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.packets_in += more.packets_in;
        self.bytes_in += more.bytes_in;
        self.packets_out += more.packets_out;
        self.bytes_out += more.bytes_out;
    }
}

/// Largest IP packets that travel in one piece, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Room {
    pub(in crate::engine) inner: u32,
    pub(in crate::engine) outer: u32,
}

/// Datagrams in one train (linux/udp.h, UDP_MAX_SEGMENTS).
const TRAIN: u32 = 128;

impl Sad {
    /// Of a data path with so many workers. While one opens a train, each of the others opens one of
    /// those behind it, so a replay window has to be wider by as much than the disorder of the network.
    pub(super) fn new(workers: usize) -> Self {
        let others = u32::try_from(workers.saturating_sub(1)).unwrap_or(0);
        Self {
            disorder: others * TRAIN,
            ..Self::default()
        }
    }

    /// Reserves an SPI.
    pub(super) fn alloc_spi(&mut self, random: &mut impl Random) -> u32 {
        loop {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            let spi = u32::from_be_bytes(bytes);
            if spi >= LEAST_SPI && self.spis.insert(spi) {
                return spi;
            }
        }
    }

    pub(super) fn free_spi(&mut self, spi: u32) {
        self.spis.remove(&spi);
    }

    /// A device for a connection, in place of the one it had; the new one's place, and the old one. What
    /// could leave by the old one does so no more, and its keys and queues go with the last worker that
    /// looks at them.
    pub(super) fn add_device(&mut self, device: Arc<Device>) -> (usize, Option<Arc<Device>>) {
        let place = self.next_place;
        self.next_place += 1;
        let old = self.places.insert(device.connection.clone(), place);
        let old = old.and_then(|place| {
            self.stale.remove(&place);
            self.tables.outbound.remove(&place);
            self.devices.remove(&place)
        });
        for child in self.children.values_mut() {
            if child.params.connection.name == device.connection {
                child.renew_inbound(Some(&device));
            }
        }
        self.devices.insert(place, device);
        self.inbound_stale = true;
        self.stale.insert(place);
        (place, old)
    }

    pub(super) fn install_in(
        &mut self,
        params: Arc<ChildSaParameters>,
        keys: &Secret,
        road: Arc<Road>,
    ) -> Result<(), String> {
        let name = &params.connection.name;
        let device = self
            .places
            .get(name)
            .and_then(|place| self.devices.get(place))
            .ok_or_else(|| {
                format!("tunnel \"{name}\" has no TUN device; see the log for why it could not be created")
            })?;
        let opener = EspOpener::new(params.suite, keys.expose()).map_err(|e| e.to_string())?;
        let selectors = Selectors::new(params.local_ts.clone(), params.remote_ts.clone());
        let sa = InboundSa::new(
            params.spi_in,
            opener,
            selectors,
            lifetime(&params),
            params.policy.replay_window + self.disorder,
        );
        let inbound = Inbound {
            sa: Arc::new(sa),
            child: params.id,
            path: params.path,
            device: Arc::clone(device),
            report_first: params.report_first,
            moved: Arc::new(Limiter::default()),
        };
        self.spis.insert(params.spi_in);
        let child = Child {
            params: Arc::clone(&params),
            road,
            inbound: Some(Arc::new(inbound)),
            outbound: None,
            has_sent: false,
            seen: (0, 0),
        };
        self.children.insert(params.id, child);
        self.inbound_stale = true;
        Ok(())
    }

    /// Has a Child SA send: once. Its sequence numbers begin with 1, and with the same keys the same number is the same
    /// nonce (RFC 4106 §3).
    pub(super) fn switch_out(
        &mut self,
        params: &ChildSaParameters,
        keys: &Secret,
    ) -> Result<(), String> {
        let child = self
            .children
            .get_mut(&params.id)
            .ok_or("the Child SA is not installed for receiving")?;
        if child.has_sent {
            return Err("the Child SA sends already, or did: its keys begin once".into());
        }
        let sealer = EspSealer::new(params.suite, keys.expose()).map_err(|e| e.to_string())?;
        let selectors = Selectors::new(params.local_ts.clone(), params.remote_ts.clone());
        let sa = OutboundSa::new(params.spi_out, sealer, selectors, lifetime(params));
        self.switched += 1;
        child.has_sent = true;
        child.outbound = Some(Outbound {
            turn: Arc::new(Turn::starting_with(sa.next_seq())),
            sa: Arc::new(sa),
            rank: self.switched,
        });
        self.touch(&params.connection.name);
        Ok(())
    }

    pub(super) fn update_path(&mut self, id: ChildSaId, road: Arc<Road>) {
        if let Some(child) = self.children.get_mut(&id) {
            child.road = road;
            child.renew_inbound(None);
            self.inbound_stale = true;
            let name = child.params.connection.name.clone();
            self.touch(&name);
        }
    }

    pub(super) fn remove_out(&mut self, id: ChildSaId) {
        if let Some(child) = self.children.get_mut(&id) {
            let name = child.params.connection.name.clone();
            let Traffic {
                packets_out,
                bytes_out,
                ..
            } = child.traffic();
            child.outbound = None;
            *self.past_traffic.entry(name.clone()).or_default() += Traffic {
                packets_out,
                bytes_out,
                ..Traffic::default()
            };
            self.touch(&name);
        }
    }

    /// Forgets the Child SA; gives the SPI that it received on.
    pub(super) fn remove_in(&mut self, id: ChildSaId) -> Option<u32> {
        let child = self.children.remove(&id)?;
        self.spis.remove(&child.params.spi_in);
        self.inbound_stale = true;
        for (reason, count) in child
            .inbound
            .iter()
            .flat_map(|inbound| inbound.sa.all_drops())
        {
            *self.past_drops.entry(reason).or_default() += count;
        }
        let name = &child.params.connection.name;
        *self.past_traffic.entry(name.clone()).or_default() += child.traffic();
        self.touch(name);
        Some(child.params.spi_in)
    }

    pub(super) fn install_trap(&mut self, connection: &Connection, child: &ChildPolicy) {
        self.remove_trap(&connection.name, &child.name);
        self.traps.push(Arc::new(Trap {
            connection: connection.name.clone(),
            child: child.name.clone(),
            selectors: trap_selectors(connection, child),
            acquired: Limiter::default(),
        }));
        self.touch(&connection.name);
    }

    pub(super) fn remove_trap(&mut self, connection: &str, child: &str) {
        self.traps
            .retain(|trap| trap.connection != connection || trap.child != child);
        self.touch(connection);
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    pub(super) fn traffic(&self, id: ChildSaId) -> Option<Traffic> {
        self.children.get(&id).map(Child::traffic)
    }

    /// What each connection carried, SAs that are gone included.
    pub(super) fn carried(&self) -> BTreeMap<String, Traffic> {
        let mut carried = self.past_traffic.clone();
        for child in self.children.values() {
            let name = &child.params.connection.name;
            *carried.entry(name.clone()).or_default() += child.traffic();
        }
        carried
    }

    pub(super) fn room(&self, id: ChildSaId) -> Option<Room> {
        let child = self.children.get(&id)?;
        let inner = child.road.max_inner(&child.outbound.as_ref()?.sa);
        Some(Room {
            inner: u32::try_from(inner).unwrap_or(u32::MAX),
            outer: child.road.mtu(),
        })
    }

    /// The Child SAs that received, and those that sent, since the last call.
    pub(super) fn active(&mut self) -> (Vec<ChildSaId>, Vec<ChildSaId>) {
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for (id, child) in &mut self.children {
            let traffic = child.traffic();
            let now = (traffic.packets_in, traffic.packets_out);
            if now.0 > child.seen.0 {
                received.push(*id);
            }
            // Fewer only when the direction was taken away.
            if now.1 > child.seen.1 {
                sent.push(*id);
            }
            child.seen = now;
        }
        (received, sent)
    }

    /// What SAs dropped, those that are gone included.
    pub(super) fn drops(&self) -> BTreeMap<DropReason, u64> {
        let mut drops = self.past_drops.clone();
        let present = self.children.values().filter_map(|c| c.inbound.as_ref());
        for (reason, count) in present.flat_map(|inbound| inbound.sa.all_drops()) {
            *drops.entry(reason).or_default() += count;
        }
        drops
    }

    /// The state for the workers: the present one of what receives, the last one of what sends.
    pub(super) fn receiving(&mut self) -> Tables {
        if std::mem::take(&mut self.inbound_stale) {
            let inbound = self.children.values().filter_map(|c| c.inbound.as_ref());
            let by_spi = inbound.map(|i| (i.sa.spi(), Arc::clone(i)));
            self.tables.inbound = Arc::new(by_spi.collect());
        }
        self.tables.clone()
    }

    /// The present state for the workers.
    pub(super) fn tables(&mut self) -> Tables {
        for place in std::mem::take(&mut self.stale) {
            let Some(device) = self.devices.get(&place) else {
                continue;
            };
            let outlets = Arc::new(self.outlets(device));
            self.tables.outbound.insert(place, outlets);
        }
        self.receiving()
    }

    fn touch(&mut self, connection: &str) {
        self.stale.extend(self.places.get(connection));
    }

    /// The policies of a connection, most specific first. SAs with the same selectors share one, in
    /// which the newest comes first: a rekeyed Child SA and its successor, or those of two IKE SAs while
    /// one replaces the other.
    fn outlets(&self, device: &Arc<Device>) -> Outlets {
        let connection = device.connection.as_str();
        let mut entries: Vec<Entry<'_>> = Vec::new();
        let mut sending: Vec<_> = self
            .children
            .values()
            .filter(|child| child.params.connection.name == connection)
            .filter_map(|child| Some((child, child.outbound.as_ref()?)))
            .collect();
        sending.sort_by_key(|(_, outbound)| Reverse(outbound.rank));
        let mut by_selectors: HashMap<(&str, &[_], &[_]), usize> = HashMap::new();
        for (child, outbound) in sending {
            let params = &child.params;
            let selectors = outbound.sa.selectors();
            let key = (
                params.policy.name.as_str(),
                params.local_ts.as_slice(),
                params.remote_ts.as_slice(),
            );
            let place = *by_selectors.entry(key).or_insert_with(|| {
                entries.push(Entry {
                    selectors,
                    child: &params.policy.name,
                    outlets: Vec::new(),
                });
                entries.len() - 1
            });
            if let Some(entry) = entries.get_mut(place) {
                entry.outlets.push(Outlet {
                    sa: Arc::clone(&outbound.sa),
                    path: Way {
                        road: Arc::clone(&child.road),
                        child: params.id,
                        turn: Arc::clone(&outbound.turn),
                    },
                });
            }
        }
        let traps: Vec<_> = self
            .traps
            .iter()
            .filter(|trap| trap.connection == connection)
            .collect();
        entries.extend(traps.iter().map(|trap| Entry {
            selectors: &trap.selectors,
            child: &trap.child,
            outlets: Vec::new(),
        }));
        // Stable: what is equally specific stays in the order above, SAs before traps, newest first.
        entries.sort_by_key(|entry| breadth(entry.selectors));
        let trap_of = |child: &str| traps.iter().find(|trap| trap.child == child);
        let traps = entries
            .iter()
            .map(|e| trap_of(e.child).map(|t| Arc::clone(t)));
        let traps = traps.collect();
        let policies = entries.into_iter().zip(0..).map(|(entry, id)| Policy {
            id: PolicyId(id),
            selectors: entry.selectors.clone(),
            action: Action::Protect(entry.outlets),
        });
        Outlets {
            device: Arc::clone(device),
            spd: Spd::new(policies.collect()),
            traps,
        }
    }
}

impl Child {
    pub(super) fn traffic(&self) -> Traffic {
        let inbound = self.inbound.as_ref().map(|inbound| &inbound.sa);
        let outbound = self.outbound.as_ref().map(|outbound| &outbound.sa);
        Traffic {
            packets_in: inbound.map_or(0, |sa| sa.packets()),
            bytes_in: inbound.map_or(0, |sa| sa.bytes()),
            packets_out: outbound.map_or(0, |sa| sa.packets()),
            bytes_out: outbound.map_or(0, |sa| sa.bytes()),
        }
    }

    /// The same SA, on the present path or another device.
    fn renew_inbound(&mut self, device: Option<&Arc<Device>>) {
        if let Some(old) = &self.inbound {
            self.inbound = Some(Arc::new(Inbound {
                sa: Arc::clone(&old.sa),
                child: old.child,
                path: self.road.path,
                device: Arc::clone(device.unwrap_or(&old.device)),
                report_first: old.report_first,
                moved: Arc::clone(&old.moved),
            }));
        }
    }
}

/// A policy to be.
struct Entry<'s> {
    selectors: &'s Selectors,
    child: &'s str,
    outlets: Vec<Outlet<Way>>,
}

/// How much selectors cover: addresses of the peer's side, of ours, whether all protocols and ports.
fn breadth(selectors: &Selectors) -> (u128, u128, bool) {
    let widest = |side: &[TrafficSelector]| side.iter().map(|ts| span(&ts.addrs)).max();
    (
        widest(selectors.remote()).unwrap_or(0),
        widest(selectors.local()).unwrap_or(0),
        !selectors.needs_ports(),
    )
}

fn span(addrs: &AddrRange) -> u128 {
    match addrs {
        // All of IPv4 is as broad as all of IPv6: "everything" of either is the last to match.
        AddrRange::V4(lo, hi) => u128::from(hi.to_bits().saturating_sub(lo.to_bits())) << 96,
        AddrRange::V6(lo, hi) => hi.to_bits().saturating_sub(lo.to_bits()),
    }
}

/// The limits of both directions. Without ESN the sequence numbers are one: the SA is replaced before
/// they end (RFC 4303 §3.3.3).
fn lifetime(params: &ChildSaParameters) -> Lifetime {
    const SEQUENCE_NUMBERS: u64 = u32::MAX as u64;
    let (soft_end, hard_end) = if params.suite.esn {
        (u64::MAX, u64::MAX)
    } else {
        (SEQUENCE_NUMBERS / 10 * 9, SEQUENCE_NUMBERS)
    };
    let limits = params.limits;
    Lifetime {
        soft_bytes: limits.soft_bytes.unwrap_or(u64::MAX),
        hard_bytes: limits.hard_bytes.unwrap_or(u64::MAX),
        soft_packets: limits.soft_packets.unwrap_or(u64::MAX).min(soft_end),
        hard_packets: limits.hard_packets.unwrap_or(u64::MAX).min(hard_end),
    }
}

/// What a trap catches. Our dynamic address is whatever the interface sends from; the peer's is known
/// where it is configured as an address.
fn trap_selectors(connection: &Connection, child: &ChildPolicy) -> Selectors {
    let mut local = Vec::new();
    for template in &child.local {
        match template {
            SelectorTemplate::Fixed(selector) => local.push(selector.clone()),
            SelectorTemplate::Dynamic => {
                local.extend([TrafficSelector::any_v4(), TrafficSelector::any_v6()]);
            }
        }
    }
    let mut remote = Vec::new();
    for template in &child.remote {
        match template {
            SelectorTemplate::Fixed(selector) => remote.push(selector.clone()),
            SelectorTemplate::Dynamic => {
                let servers = connection.remote.servers().iter();
                let written = servers.filter_map(|server| server.host.address());
                remote.extend(written.map(|a| TrafficSelector::from_range(AddrRange::single(a))));
            }
        }
    }
    Selectors::new(local, remote)
}

#[cfg(test)]
#[path = "sad_tests.rs"]
mod tests;

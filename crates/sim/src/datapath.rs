//! A node's data path: SAs installed and removed in order, each order taking its time; packets
//! sealed and opened with the real keys.
//!
//! It is stricter than a real one: an order that does not fit what came before is an error.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Secret;
use cygnet_crypto::esp_key::{EspOpener, EspSealer};
use cygnet_esp as esp;
use cygnet_esp::{DropReason, FragmentTable, InboundSa, LimitReached, OutboundSa, Selectors};
use cygnet_ike::io::{
    Answer, AskId, ChildSaId, ChildSaParameters, DataCommand, DataEvent, IkeSaId, Lease, Path,
};
use cygnet_ike::time::Instant;
use cygnet_wire::ip::Ipv4Header;
use cygnet_wire::ts::{AddrRange, TrafficSelector};

use crate::dice::Dice;
use crate::scenario::Sabotage;

/// Reports about one Child SA come no more often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The inbound half of a Child SA.
pub(crate) struct Inbound {
    pub(crate) params: Arc<ChildSaParameters>,
    pub(crate) keys: Secret,
    sa: InboundSa,
    reported: Option<Instant>,
    /// The last moment at which the peer would have sealed on it.
    pub(crate) needed: Option<Instant>,
}

/// The outbound half of a Child SA.
pub(crate) struct Outbound {
    pub(crate) params: Arc<ChildSaParameters>,
    pub(crate) keys: Secret,
    pub(crate) path: Path,
    sa: OutboundSa,
    reported: Option<Instant>,
}

/// One node's.
pub(crate) struct Datapath {
    orders: VecDeque<DataCommand>,
    reserved: BTreeSet<u32>,
    pub(crate) inbound: BTreeMap<u32, Inbound>,
    pub(crate) outbound: BTreeMap<ChildSaId, Outbound>,
    /// By name of child policy: what sends, newest first.
    pub(crate) sending: BTreeMap<String, Vec<ChildSaId>>,
    pub(crate) traps: BTreeSet<String>,
    acquired: BTreeMap<String, Instant>,
    /// What the peer has lent us.
    pub(crate) virtuals: BTreeMap<IkeSaId, Lease>,
    /// Whose addresses we have lent.
    pub(crate) lent: BTreeSet<IkeSaId>,
    fragments: FragmentTable,
    sabotage: Option<Sabotage>,
    /// No larger packet arrives at the peer.
    path_mtu: u16,
}

/// A sealed packet.
pub(crate) struct Sealed {
    pub(crate) child: ChildSaId,
    pub(crate) spi: u32,
    pub(crate) path: Path,
    pub(crate) packet: Vec<u8>,
    pub(crate) events: Vec<DataEvent>,
}

/// What came of an ESP packet.
pub(crate) struct Opened {
    pub(crate) outcome: Result<String, Unopened>,
    pub(crate) events: Vec<DataEvent>,
}

/// Why one could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    NoSa,
    Dropped(DropReason),
}

impl Datapath {
    pub(crate) fn new(sabotage: Option<Sabotage>, path_mtu: u16) -> Self {
        Self {
            sabotage,
            path_mtu,
            orders: VecDeque::new(),
            reserved: BTreeSet::new(),
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            sending: BTreeMap::new(),
            traps: BTreeSet::new(),
            acquired: BTreeMap::new(),
            virtuals: BTreeMap::new(),
            lent: BTreeSet::new(),
            fragments: FragmentTable::new(),
        }
    }

    /// Takes an order; whether it is the only one, so that work has to begin.
    pub(crate) fn push(&mut self, order: DataCommand) -> bool {
        self.orders.push_back(order);
        self.orders.len() == 1
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Whether it has been told to stop sending on this one, and is only slow to do so.
    pub(crate) fn is_leaving(&self, child: ChildSaId) -> bool {
        let is_meant = |order: &DataCommand| match order {
            DataCommand::RemoveOut { child: c } => *c == child,
            _ => false,
        };
        self.orders.iter().any(is_meant)
    }

    pub(crate) fn is_reserved(&self, spi: u32) -> bool {
        self.reserved.contains(&spi)
    }

    pub(crate) fn reserved(&self) -> usize {
        self.reserved.len()
    }

    pub(crate) fn reserved_spis(&self) -> impl Iterator<Item = u32> {
        self.reserved.iter().copied()
    }

    /// The order that is worked on.
    pub(crate) fn current(&self) -> Option<&DataCommand> {
        self.orders.front()
    }

    /// Finishes the first order. An error is a sentence that says what did not fit.
    pub(crate) fn work(&mut self, dice: &mut Dice) -> Result<Option<(AskId, Answer)>, String> {
        let Some(order) = self.orders.pop_front() else {
            return Ok(None);
        };
        match order {
            DataCommand::AllocSpi { id } => {
                let spi = self.unused_spi(dice);
                self.reserved.insert(spi);
                return Ok(Some((id, Answer::Spi(Ok(spi)))));
            }
            DataCommand::FreeSpi { spi } => {
                if !self.reserved.remove(&spi) {
                    return Err(format!("FreeSpi of {spi:08x}, which is not reserved"));
                }
            }
            DataCommand::InstallIn { id, child, keys } => {
                self.install_in(child, keys)?;
                return Ok(Some((id, Answer::Installed(Ok(())))));
            }
            DataCommand::SwitchOut { id, child, keys } => {
                self.switch_out(child, keys)?;
                if self.sabotage == Some(Sabotage::LosesAnswers) {
                    return Ok(None);
                }
                return Ok(Some((id, Answer::Installed(Ok(())))));
            }
            DataCommand::UpdatePath { .. } if self.sabotage == Some(Sabotage::StaysBehind) => {}
            DataCommand::UpdatePath { child, path } => {
                if let Some(outbound) = self.outbound.get_mut(&child) {
                    outbound.path = path;
                }
                if let Some(inbound) = self.inbound.values_mut().find(|i| i.params.id == child) {
                    Arc::make_mut(&mut inbound.params).path = path;
                }
            }
            DataCommand::PathMtu { mtu, .. } => {
                if mtu > self.path_mtu {
                    return Err(format!(
                        "PathMtu of {mtu}, and no packet larger than {} arrives",
                        self.path_mtu
                    ));
                }
            }
            DataCommand::RemoveOut { child } => {
                if self.sabotage == Some(Sabotage::ForgetsEarly) {
                    self.inbound.retain(|_, inbound| inbound.params.id != child);
                }
                let removed = self.outbound.remove(&child);
                let removed = removed.ok_or(format!("RemoveOut of {child:?}, which sends not"))?;
                let name = &removed.params.policy.name;
                if let Some(sending) = self.sending.get_mut(name) {
                    sending.retain(|id| *id != child);
                }
            }
            DataCommand::RemoveIn { .. } if self.sabotage == Some(Sabotage::KeepsAll) => {}
            DataCommand::RemoveIn { child } => {
                let before = self.inbound.len();
                self.inbound.retain(|_, inbound| inbound.params.id != child);
                if self.inbound.len() == before {
                    return Err(format!("RemoveIn of {child:?}, which is not installed"));
                }
                if self.outbound.contains_key(&child) {
                    return Err(format!("RemoveIn of {child:?}, which still sends"));
                }
            }
            DataCommand::InstallTrap { child, .. } => {
                self.traps.insert(child.name.clone());
            }
            DataCommand::RemoveTrap { child, .. } => {
                if !self.traps.remove(&child) {
                    return Err(format!("RemoveTrap of {child}, which has none"));
                }
            }
            DataCommand::SetVirtual { ike_sa, lease, .. } => {
                if lease.addresses.is_empty() {
                    self.virtuals.remove(&ike_sa);
                } else {
                    self.virtuals.insert(ike_sa, lease);
                }
            }
            DataCommand::ReleaseLease { ike_sa } => {
                if !self.lent.remove(&ike_sa) {
                    return Err(format!("ReleaseLease of {ike_sa:?}, which holds none"));
                }
            }
            DataCommand::EndLogIn { ike_sa } => {
                return Err(format!(
                    "EndLogIn of {ike_sa:?}, and nobody logs in by EAP here"
                ));
            }
        }
        Ok(None)
    }

    fn unused_spi(&self, dice: &mut Dice) -> u32 {
        loop {
            let spi = 0x1000_0000 | (dice.below(1 << 28) as u32);
            if !self.reserved.contains(&spi) && !self.inbound.contains_key(&spi) {
                return spi;
            }
        }
    }

    fn install_in(
        &mut self,
        params: Arc<ChildSaParameters>,
        mut keys: Secret,
    ) -> Result<(), String> {
        let spi = params.spi_in;
        if self.sabotage == Some(Sabotage::OtherKeys) {
            keys.expose_mut().reverse();
        }
        if !self.reserved.remove(&spi) {
            return Err(format!("InstallIn of {spi:08x}, which is not reserved"));
        }
        let opener = EspOpener::new(params.suite, keys.expose())
            .map_err(|error| format!("InstallIn of {spi:08x}: {error}"))?;
        let window = params.policy.replay_window;
        let sa = InboundSa::new(spi, opener, selectors(&params), limits(&params), window);
        let inbound = Inbound {
            params,
            keys,
            sa,
            reported: None,
            needed: None,
        };
        self.inbound.insert(spi, inbound);
        Ok(())
    }

    fn switch_out(&mut self, params: Arc<ChildSaParameters>, keys: Secret) -> Result<(), String> {
        let (id, spi) = (params.id, params.spi_out);
        let installed = self.inbound.get(&params.spi_in);
        if installed.is_none_or(|inbound| inbound.params.id != id) {
            return Err(format!(
                "SwitchOut of {id:?}, whose inbound half is not installed"
            ));
        }
        if self.outbound.contains_key(&id) {
            return Err(format!("SwitchOut of {id:?}, which sends already"));
        }
        let sealer = EspSealer::new(params.suite, keys.expose())
            .map_err(|error| format!("SwitchOut of {spi:08x}: {error}"))?;
        let sa = OutboundSa::new(spi, sealer, selectors(&params), limits(&params));
        let sending = self.sending.entry(params.policy.name.clone()).or_default();
        sending.insert(0, id);
        let outbound = Outbound {
            path: params.path,
            params,
            keys,
            sa,
            reported: None,
        };
        self.outbound.insert(id, outbound);
        Ok(())
    }

    /// The Child SA that a packet of this child would be sealed on now: the newest usable.
    pub(crate) fn sender(&self, child: &str) -> Option<&Outbound> {
        let sending = self.sending.get(child)?;
        let all = sending.iter().filter_map(|id| self.outbound.get(id));
        all.into_iter().find(|outbound| outbound.sa.is_usable())
    }

    /// A packet finds no Child SA: asks for one if there is a trap, now and then.
    pub(crate) fn acquire(&mut self, now: Instant, child: &str) -> bool {
        let lately = (self.acquired.get(child)).is_some_and(|at| now.since(*at) < REPORT_INTERVAL);
        if lately || !self.traps.contains(child) {
            return false;
        }
        self.acquired.insert(child.to_owned(), now);
        true
    }

    /// Seals one small packet for `child`.
    pub(crate) fn seal(&mut self, now: Instant, child: &str) -> Option<Result<Sealed, String>> {
        let id = self.sender(child)?.params.id;
        let outbound = self.outbound.get_mut(&id)?;
        Some(outbound.seal(now))
    }

    /// Opens a packet that came over `path`.
    pub(crate) fn open(&mut self, now: Instant, path: Path, packet: &mut [u8]) -> Opened {
        let spi = packet
            .first_chunk()
            .map_or(0, |spi| u32::from_be_bytes(*spi));
        let Some(inbound) = self.inbound.get_mut(&spi) else {
            return Opened {
                outcome: Err(Unopened::NoSa),
                events: vec![DataEvent::UnknownSpi { spi, path }],
            };
        };
        inbound.open(now, path, packet, &mut self.fragments)
    }
}

impl Outbound {
    fn seal(&mut self, now: Instant) -> Result<Sealed, String> {
        let (child, spi) = (self.params.id, self.params.spi_out);
        let failed = |what: &dyn std::fmt::Display| format!("sealing on {spi:08x}: {what}");
        let inner = inner_packet(&self.params).ok_or_else(|| failed(&"no IPv4 selectors"))?;
        let reserved = self.sa.reserve(1, inner.len() as u64);
        let reserved = reserved.map_err(|error| failed(&error))?;
        let mut packet = vec![0; self.sa.sealed_len(inner.len())];
        let at = self.sa.overhead().inner_at();
        if let Some(place) = packet.get_mut(at..at + inner.len()) {
            place.copy_from_slice(&inner);
        }
        let version = cygnet_wire::ip::Version::V4;
        self.sa
            .seal(reserved.seqs.start, version, inner.len(), &mut packet)
            .map_err(|error| failed(&error))?;
        let mut events = limit_event(child, reserved.limit);
        if is_due(&mut self.reported, now) {
            events.push(DataEvent::LastOutbound { child });
        }
        Ok(Sealed {
            child,
            spi,
            path: self.path,
            packet,
            events,
        })
    }
}

impl Inbound {
    fn open(
        &mut self,
        now: Instant,
        path: Path,
        packet: &mut [u8],
        fragments: &mut FragmentTable,
    ) -> Opened {
        let child = self.params.id;
        let opened = self.sa.open(packet, esp::Ecn::NotEct, fragments);
        let mut events = limit_event(child, opened.limit);
        if opened.first_authenticated && self.params.report_first {
            events.push(DataEvent::FirstAuthenticated { child });
        }
        let outcome = match opened.inner {
            Ok(_) => {
                if path != self.params.path {
                    events.push(DataEvent::PeerMoved { child, path });
                }
                if is_due(&mut self.reported, now) {
                    events.push(DataEvent::LastInbound { child });
                }
                Ok(self.params.policy.name.clone())
            }
            Err(reason) => Err(Unopened::Dropped(reason)),
        };
        Opened { outcome, events }
    }
}

fn is_due(reported: &mut Option<Instant>, now: Instant) -> bool {
    let due = reported.is_none_or(|at| now.since(at) >= REPORT_INTERVAL);
    if due {
        *reported = Some(now);
    }
    due
}

fn limit_event(child: ChildSaId, limit: Option<LimitReached>) -> Vec<DataEvent> {
    match limit {
        Some(LimitReached::Soft) => vec![DataEvent::SoftLimit { child }],
        Some(LimitReached::Hard) => vec![DataEvent::HardLimit { child }],
        None => Vec::new(),
    }
}

fn selectors(params: &ChildSaParameters) -> Selectors {
    Selectors::new(params.local_ts.clone(), params.remote_ts.clone())
}

fn limits(params: &ChildSaParameters) -> esp::Lifetime {
    let limits = params.limits;
    esp::Lifetime {
        soft_bytes: limits.soft_bytes.unwrap_or(u64::MAX),
        hard_bytes: limits.hard_bytes.unwrap_or(u64::MAX),
        soft_packets: limits.soft_packets.unwrap_or(u64::MAX),
        hard_packets: limits.hard_packets.unwrap_or(u64::MAX),
    }
}

/// The smallest packet that the selectors of a Child SA let through.
fn inner_packet(params: &ChildSaParameters) -> Option<[u8; Ipv4Header::LEN]> {
    let header = Ipv4Header {
        header_len: Ipv4Header::LEN as u8,
        tos: 0,
        total_len: Ipv4Header::LEN as u16,
        id: 0,
        flags_fragment: Ipv4Header::DONT_FRAGMENT,
        ttl: 64,
        // "Any local network" (IANA): no port is looked for.
        protocol: 63,
        checksum: 0,
        src: lowest_v4(&params.local_ts)?,
        dst: lowest_v4(&params.remote_ts)?,
    };
    let mut bytes = header.emit();
    let sum = cygnet_wire::ip::checksum::ipv4_header(&bytes);
    if let Some(place) = bytes.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    Some(bytes)
}

fn lowest_v4(selectors: &[TrafficSelector]) -> Option<Ipv4Addr> {
    selectors.iter().find_map(|selector| match &selector.addrs {
        AddrRange::V4(low, _) => Some(*low),
        AddrRange::V6(..) => None,
    })
}

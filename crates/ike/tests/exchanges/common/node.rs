//! A node: its endpoint, and the data path and the secrets that its questions and orders go to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::SigningKey;
use cygnet_ike::Endpoint;
use cygnet_ike::event::{Event, EventKind, Reason};
use cygnet_ike::io::{
    Answer, Ask, ChainError, ChildSaId, ChildSaParameters, DataCommand, Device, IkeSaId, Lease,
    PeerKey, WantedAddress,
};
use cygnet_ike::policy::{Host, Policy, Remote};
use cygnet_ike::status::{ChildSaStatus, IkeSaStatus, Stage};
use cygnet_ike::time::{Now, UtcTime};

use super::setup::KEYS;
use super::{A, B, End, LogIns, TestRandom, at, certificate, path};

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
    /// The addresses of every name; the other end's own where there are none.
    pub named: Vec<IpAddr>,
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
    /// How many certificates peers have shown, each time.
    pub shown: Vec<usize>,
    pub(super) held: Vec<(cygnet_ike::io::AskId, Answer)>,
    /// So many chains find nobody who has time for them.
    pub busy: usize,
    /// The next question or order of this kind gets no answer.
    pub mute: Option<&'static str>,
    /// The answers it did not get.
    pub(super) lost: Vec<(cygnet_ike::io::AskId, Answer)>,
    /// The path MTU that was measured, each time.
    pub measured: Vec<u16>,
    pub(super) next_spi: u32,
    switches: u64,
    pub(super) seed: u64,
}

const DAY: i64 = 86_400;

impl Node {
    pub(super) fn new(end: End, policy: Policy, seed: u64) -> Self {
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
            named: Vec::new(),
            unreachable: false,
            no_resolver: false,
            certified: 365 * DAY,
            install_fails: false,
            pool_is_full: false,
            hold: false,
            hold_chains: false,
            revoked: false,
            shown: Vec::new(),
            held: Vec::new(),
            busy: 0,
            mute: None,
            lost: Vec::new(),
            measured: Vec::new(),
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

    pub(super) fn answer(&mut self, now: Duration, ask: Ask) -> Answer {
        match ask {
            Ask::Resolve { connection, server } => {
                self.resolves += 1;
                if self.unreachable {
                    return Answer::Paths(Err("the name has no address".to_owned()));
                }
                let Remote::Hosts { servers, port } = &connection.remote else {
                    return Answer::Paths(Ok(Vec::new()));
                };
                let addresses = match servers.get(server).map(|server| &server.host) {
                    Some(Host::Address(address)) => vec![*address],
                    Some(Host::Name(_)) if self.named.is_empty() => {
                        vec![self.end.other().address()]
                    }
                    Some(Host::Name(_)) => self.named.clone(),
                    None => Vec::new(),
                };
                let paths = addresses.into_iter().map(|address| {
                    let local = self.source(address).unwrap_or(self.end.address());
                    path(SocketAddr::new(local, 500), SocketAddr::new(address, *port))
                });
                Answer::Paths(Ok(paths.collect()))
            }
            Ask::Ways { from, to, .. } => {
                let ways = to.into_iter().filter_map(|remote| {
                    let local = self.source(remote.ip())?;
                    Some(path(SocketAddr::new(local, from), remote))
                });
                Answer::Paths(Ok(ways.collect()))
            }
            Ask::Sign { scheme, octets, .. } => {
                let key = SigningKey::from_pem(KEYS[self.end as usize]).unwrap();
                Answer::Signed(key.sign(scheme, &octets).map_err(|e| e.to_string()))
            }
            Ask::PskAuth {
                credential,
                prf,
                octets,
            } => {
                if let Some(left) = self.unreadable.get_mut(credential.0.as_str())
                    && *left > 0
                {
                    *left -= 1;
                    return Answer::Mac(Err("its file cannot be read".to_owned()));
                }
                Answer::Mac(Ok(psk_auth(prf, &self.psk, &octets)))
            }
            Ask::ValidateChain {
                certificates,
                identity,
                ..
            } => {
                self.shown.push(certificates.len());
                if self.busy > 0 {
                    self.busy -= 1;
                    let why = "too many certificates wait".to_owned();
                    return Answer::Chain(Err(ChainError::Unavailable(why)));
                }
                let leaf = certificates.first().cloned().unwrap_or_default();
                let known = [A, B]
                    .into_iter()
                    .find(|e| leaf.starts_with(&certificate(*e)));
                let known = known.filter(|_| now.as_secs() < self.certified as u64);
                Answer::Chain(match known {
                    Some(_) if self.revoked => Err(ChainError::Invalid(
                        "its certificate was revoked".to_owned(),
                    )),
                    Some(end) => {
                        let key = SigningKey::from_pem(KEYS[end as usize]).unwrap();
                        Ok(PeerKey {
                            spki: key.public_key_spki().to_vec(),
                            subject: identity.to_string(),
                            not_after: UtcTime(1_700_000_000 + self.certified),
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
            } => self
                .log_ins
                .answer(ike_sa, &connection, peer_logs_in, packet),
            Ask::Lease { .. } if self.pool_is_full => {
                Answer::Leased(Err("no address is free".to_owned()))
            }
            Ask::Lease {
                ike_sa,
                device,
                wanted,
                ..
            } => {
                self.devices.push(device);
                let addresses = wanted.iter().map(|wanted| match wanted {
                    WantedAddress::V4(_) => IpAddr::from([10, 9, 0, 7]),
                    WantedAddress::V6(_) => "fd00::7".parse().unwrap(),
                });
                let lease = Lease {
                    addresses: addresses.collect(),
                    dns: vec![IpAddr::from([10, 9, 0, 1])],
                    domains: vec!["corp.example".to_owned()],
                    speedtest: vec![IpAddr::from([10, 9, 0, 1])],
                };
                self.leases.insert(ike_sa, lease.clone());
                Answer::Leased(Ok(lease))
            }
        }
    }

    pub(super) fn obey(&mut self, now: Now, command: DataCommand) {
        let mut reply = None;
        let kind = format!("{command:?}");
        match command {
            DataCommand::AllocSpi { id } => {
                self.next_spi += 1;
                self.reserved.insert(self.next_spi);
                reply = Some((id, Answer::Spi(Ok(self.next_spi))));
            }
            DataCommand::FreeSpi { spi } => {
                assert!(self.reserved.remove(&spi), "{spi:x} was not reserved");
            }
            DataCommand::InstallIn { id, child, keys } => {
                assert!(self.reserved.remove(&child.spi_in), "SPI was not reserved");
                let result = match std::mem::take(&mut self.install_fails) {
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
                    assert!(self.children.insert(child.id, installed).is_none());
                }
                reply = Some((id, Answer::Installed(result)));
            }
            DataCommand::SwitchOut { id, child, keys } => {
                self.switches += 1;
                let installed = self.children.get_mut(&child.id).expect("InstallIn first");
                assert!(installed.keys_out.is_none(), "switched twice");
                installed.keys_out = Some(keys.expose().to_vec());
                installed.switched = self.switches;
                reply = Some((id, Answer::Installed(Ok(()))));
            }
            DataCommand::UpdatePath { child, path } => {
                let installed = self.children.get_mut(&child).expect("installed");
                Arc::make_mut(&mut installed.params).path = path;
            }
            DataCommand::PathMtu { mtu, .. } => self.measured.push(mtu),
            DataCommand::RemoveOut { child } => {
                let installed = self.children.get_mut(&child).expect("installed");
                assert!(
                    installed.keys_out.take().is_some(),
                    "stopped what did not send"
                );
            }
            DataCommand::RemoveIn { child } => {
                if let Some(installed) = self.children.remove(&child) {
                    assert!(installed.keys_out.is_none(), "removed while sending");
                }
            }
            DataCommand::InstallTrap { connection, child } => {
                self.traps
                    .insert((connection.name.clone(), child.name.clone()));
            }
            DataCommand::RemoveTrap { connection, child } => {
                assert!(self.traps.remove(&(connection, child)));
            }
            DataCommand::SetVirtual { ike_sa, lease, .. } => {
                if lease.addresses.is_empty() {
                    assert!(self.assigned.remove(&ike_sa).is_some());
                } else {
                    self.assigned.insert(ike_sa, lease);
                }
            }
            DataCommand::ReleaseLease { ike_sa } => {
                self.leases.remove(&ike_sa);
            }
            DataCommand::EndLogIn { ike_sa } => self.log_ins.end(ike_sa),
        }
        if let Some((id, answer)) = reply {
            if self.hold {
                self.held.push((id, answer));
            } else if self.mute.take_if(|mute| *mute == kind).is_some() {
                self.lost.push((id, answer));
            } else {
                self.endpoint.handle_answer(now, id, answer);
            }
        }
    }
}

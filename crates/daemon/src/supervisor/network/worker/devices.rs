//! Devices of the LAN: which there are, what is ordered of them, and that running connections keep to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use cygnet_config::{Config, Gateway};
use cygnet_gateway::{Device, Family, Lan, Mac};
use ipnet::IpNet;

use super::{Worker, guard, inputs, plan};
use crate::api::{DeviceChanged, DeviceStatus, DevicesStatus, PolicySource};
use crate::supervisor::control::{DeviceOrder, Refusal};
use crate::supervisor::network::machine::Machine;
use crate::supervisor::network::neighbourhood::Sign;
use crate::supervisor::network::policies::Policies;

/// What is obeyed where this is written.
pub(super) fn effective(written: &Config, policies: &Policies) -> Arc<Config> {
    let mut config = written.clone();
    if let Some(gateway) = &mut config.gateway {
        policies.applied(gateway);
    }
    Arc::new(config)
}

/// The LAN that the guard was last made for, before this start.
pub(super) fn last_in_force(
    written: &Config,
    policies: &Policies,
    machine: &Machine,
) -> Option<Lan> {
    let mut gateway = written.gateway.clone()?;
    gateway.devices = guard::last_devices(&written.daemon.state_dir)?;
    policies.applied(&mut gateway);
    inputs::lan(&gateway, machine).ok()
}

impl Worker {
    /// Takes note of this machine's neighbours in the LAN.
    async fn learn(&mut self) {
        let gateway = self.config.as_ref().and_then(|c| c.gateway.as_ref());
        let Some(gateway) = gateway else { return };
        let netlink = self.network.netlink();
        let (links, neighbours) = match (netlink.links().await, netlink.neighbours().await) {
            (Ok(links), Ok(neighbours)) => (links, neighbours),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!("cannot see which devices there are: {error}");
                return;
            }
        };
        let lan: Vec<u32> = links
            .iter()
            .filter(|link| gateway.lan.contains(&link.name))
            .map(|link| link.index)
            .collect();
        // The router is no device, whichever of its addresses is looked at.
        let routers: BTreeSet<&[u8]> = neighbours
            .iter()
            .filter(|n| self.machine.routers.contains(&n.address))
            .map(|n| n.mac.as_slice())
            .collect();
        let now = Instant::now();
        for neighbour in &neighbours {
            let mac = <[u8; 6]>::try_from(neighbour.mac.as_slice()).ok();
            if let Some(mac) = mac.and_then(Mac::new)
                && lan.contains(&neighbour.index)
                && !routers.contains(neighbour.mac.as_slice())
            {
                self.seen.learn(Sign {
                    mac,
                    address: neighbour.address,
                    at: now.checked_sub(neighbour.silent).unwrap_or(now),
                });
            }
        }
    }

    /// The LAN as it is to be.
    fn lan(&self) -> Option<Lan> {
        let gateway = self.config.as_ref()?.gateway.as_ref()?;
        inputs::lan(gateway, &self.machine).ok()
    }

    fn gateway(&self) -> Result<&Gateway, Refusal> {
        let config = self.config.as_ref();
        config.and_then(|c| c.gateway.as_ref()).ok_or_else(|| {
            Refusal::new(
                StatusCode::CONFLICT,
                "this machine is no gateway, so it has no devices: write a [gateway] section",
            )
        })
    }

    /// Which devices there are, and what is true of each.
    pub(super) async fn devices(
        &mut self,
        host_names: &BTreeMap<Mac, String>,
    ) -> Result<DevicesStatus, Refusal> {
        self.learn().await;
        let gateway = self.gateway()?;
        let now = Instant::now();
        let policies = &gateway.devices.policies;
        let mut devices = Vec::new();
        let mut told = BTreeSet::new();
        for (mac, addresses) in self.seen.devices() {
            // Addresses of which something else is said are a line of their own.
            let mut alike: BTreeMap<_, Vec<(IpAddr, Instant)>> = BTreeMap::new();
            for (address, at) in addresses {
                let decision = policies.decision(Some(mac), *address);
                alike.entry(decision).or_default().push((*address, *at));
            }
            for ((by, policy), addresses) in alike {
                told.extend(by);
                let known_by = std::iter::once(Device::Mac(mac)).chain(by);
                let hosts = addresses
                    .iter()
                    .map(|(a, _)| Device::Network(IpNet::from(*a)));
                let last = addresses.iter().map(|(_, at)| *at).max();
                devices.push(DeviceStatus {
                    device: mac.to_string(),
                    name: name(gateway, known_by.chain(hosts)),
                    host_name: host_names.get(&mac).cloned(),
                    addresses: addresses.iter().map(|(address, _)| *address).collect(),
                    policy,
                    from: self.source(by.as_ref()),
                    last_seen_s: last.map(|at| now.saturating_duration_since(at).as_secs_f64()),
                });
            }
        }
        let unseen = policies.named.iter().filter(|(by, _)| !told.contains(by));
        devices.extend(unseen.map(|(device, policy)| DeviceStatus {
            device: device.to_string(),
            name: name(gateway, std::iter::once(*device)),
            host_name: match device {
                Device::Mac(mac) => host_names.get(mac).cloned(),
                Device::Network(_) => None,
            },
            addresses: Vec::new(),
            policy: *policy,
            from: self.source(Some(device)),
            last_seen_s: None,
        }));
        Ok(DevicesStatus {
            default: policies.default,
            direct_networks: gateway.devices.direct_networks.clone(),
            problem: self.policies.problem().map(str::to_owned),
            devices,
        })
    }

    fn source(&self, by: Option<&Device>) -> PolicySource {
        match by {
            None => PolicySource::Default,
            Some(device) if self.policies.has(device) => PolicySource::Command,
            Some(_) => PolicySource::Configuration,
        }
    }

    /// Gives a device another policy, in the kernel and for the next start.
    pub(super) async fn order(&mut self, order: &DeviceOrder) -> Result<DeviceChanged, Refusal> {
        self.learn().await;
        let devices = self.meant(&order.device)?;
        if order.policy.is_none() {
            self.forget(&order.device, &devices)?;
        }
        let refused = |error: String| Refusal::new(StatusCode::CONFLICT, error);
        self.policies
            .give(&devices, order.policy)
            .map_err(refused)?;
        let ended = self.rearrange().await.map_err(|error| {
            refused(format!(
                "that is kept, but it is not done yet, and is tried again every few seconds: {error}"
            ))
        })?;
        tracing::info!("a device was given a policy by command; {ended} of its connections ended");
        let policies = &self.gateway()?.devices.policies;
        let policy = |device: &Device| {
            let family = match device {
                Device::Mac(_) => Family::V4,
                Device::Network(net) => Family::of_net(*net),
            };
            let named = policies.named.get(device).copied();
            named.unwrap_or_else(|| policies.unnamed(family))
        };
        Ok(DeviceChanged {
            policy: devices.first().map_or(policies.default, policy),
            devices: devices.iter().map(Device::to_string).collect(),
            ended,
        })
    }

    /// What somebody means by a name or an address. An address of a device that was seen stands for the device,
    /// which has others, of the other family too, and will have others tomorrow.
    fn meant(&self, text: &str) -> Result<Vec<Device>, Refusal> {
        let gateway = self.gateway()?;
        if let Some(devices) = gateway.devices.names.get(text) {
            return Ok(devices.clone());
        }
        let device: Device = text.parse().map_err(|error| {
            let names: Vec<&str> = gateway.devices.names.keys().map(String::as_str).collect();
            let names = match names.as_slice() {
                [] => "; the configuration names none".to_owned(),
                names => format!("; the configuration names {}", names.join(", ")),
            };
            Refusal::new(StatusCode::NOT_FOUND, format!("{error}{names}"))
        })?;
        let Device::Network(net) = device else {
            return Ok(vec![device]);
        };
        let said = gateway.devices.policies.named.contains_key(&device);
        let is_host = net.prefix_len() == net.max_prefix_len();
        let owner = match is_host && !said {
            true => self.seen.owners().get(&net.addr()).copied(),
            false => None,
        };
        Ok(vec![owner.map_or(device, Device::Mac)])
    }

    /// Forgets that devices were seen. An error if nothing is known of them.
    fn forget(&mut self, text: &str, devices: &[Device]) -> Result<(), Refusal> {
        let mut known = devices.iter().any(|device| self.policies.has(device));
        for device in devices {
            if let Device::Mac(mac) = device {
                known |= self.seen.forget(*mac);
            }
        }
        if known {
            return Ok(());
        }
        let ordered: Vec<String> = self.policies.devices().map(Device::to_string).collect();
        let ordered = match ordered.as_slice() {
            [] => "no device has a policy by command".to_owned(),
            ordered => format!("policies by command have: {}", ordered.join(", ")),
        };
        Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing to forget of `{text}`: it was not seen, and {ordered}"),
        ))
    }

    /// Makes the kernel obey the policies as they are now. How many running connections were ended by it.
    async fn rearrange(&mut self) -> Result<usize, String> {
        let Some(written) = self.written.clone() else {
            return Err("there is no configuration yet".to_owned());
        };
        let config = effective(&written, &self.policies);
        self.config = Some(Arc::clone(&config));
        let machine = self.machine.clone();
        // What the operator took away stays away.
        if self.guard_present().await {
            self.apply_guard(&config, &written, &machine).await?;
        }
        self.listen(&config);
        let (plan, clashes) = plan(&config, &self.live, &machine, &self.listeners)?;
        self.clashes = clashes;
        let applied = self.network.apply(&plan).await;
        applied.map_err(|error| error.to_string())?;
        Ok(self.end_changed().await)
    }

    /// Learns of devices, and finishes what could not be done before.
    pub(super) async fn watch_devices(&mut self) {
        self.learn().await;
        let now = self.lan();
        let both = self.in_force.as_ref().zip(now.as_ref());
        let is_outdated = both.is_some_and(|(before, now)| is_another(before, now));
        if is_outdated && let Err(error) = self.rearrange().await {
            tracing::error!("policies of devices are not in force: {error}");
        }
    }

    /// Ends running connections that may go another way now than when they began: else their packets would
    /// keep the address of the other way. How many.
    pub(super) async fn end_changed(&mut self) -> usize {
        let now = self.lan();
        let before = std::mem::replace(&mut self.in_force, now.clone());
        let (Some(before), Some(now)) = (before, now) else {
            return 0;
        };
        if !is_another(&before, &now) {
            return 0;
        }
        self.learn().await;
        let owners = self.seen.owners();
        let own = self.machine.addresses.iter();
        let own: BTreeSet<IpAddr> = own.map(|(_, net)| net.addr()).collect();
        let answers = self.gateway().is_ok_and(|gateway| gateway.dns.is_some());
        let changed = |from: IpAddr, to: IpAddr| {
            let mac = owners.get(&from).copied();
            // What it asks us goes on to where its other traffic goes.
            let to = match answers && own.contains(&to) {
                true => Family::of(to).default_route().addr(),
                false => to,
            };
            !own.contains(&from) && now.has_another_way(&before, mac, from, to)
        };
        let ended = cygnet_linux::end_connections(|connection| {
            let (source, destination) = (connection.source, connection.destination);
            changed(source, destination) || changed(destination, source)
        });
        ended.unwrap_or_else(|error| {
            tracing::warn!(
                "devices may go another way than before, but their running connections cannot be ended, and hang \
                 instead: {error}"
            );
            0
        })
    }
}

/// Whether other things are said of devices.
fn is_another(before: &Lan, now: &Lan) -> bool {
    before.devices != now.devices || before.direct_networks != now.direct_networks
}

/// What the configuration calls a device that is known by any of these.
fn name(gateway: &Gateway, known_by: impl IntoIterator<Item = Device>) -> Option<String> {
    let known_by: BTreeSet<Device> = known_by.into_iter().collect();
    let mut names = gateway.devices.names.iter();
    let found = names.find(|(_, devices)| devices.iter().any(|d| known_by.contains(d)));
    found.map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests;

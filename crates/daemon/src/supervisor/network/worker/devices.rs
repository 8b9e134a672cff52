//! Devices of the LAN: which there are, and what is ordered of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cygnet_config::{Config, Gateway};
use cygnet_gateway::{Device, DevicePolicy, Devices, Family, Lan, Mac};
use ipnet::IpNet;

use super::{Worker, lan, plan};
use crate::api::{DeviceChanged, DeviceNow, DeviceStatus, DevicesStatus, PolicySource};
use crate::supervisor::control::{DeviceOrder, Refusal};
use crate::supervisor::network::neighbourhood::Sign;
use crate::supervisor::network::policies::{Order, Policies};

/// A device that had another address earlier may have got that from a DHCP server.
const LATELY: Duration = Duration::from_secs(3600);

/// What is obeyed where this is written.
pub(super) fn effective(written: &Config, policies: &Policies) -> Arc<Config> {
    let mut config = written.clone();
    if let Some(gateway) = &mut config.gateway {
        policies.applied(gateway);
    }
    Arc::new(config)
}

impl Worker {
    /// Takes note of this machine's neighbours in the LAN.
    pub(super) async fn learn(&mut self) {
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
    pub(super) fn lan(&self) -> Option<Lan> {
        let config = self.config.as_ref()?;
        let mut lan = lan::of(config, &self.machine)?.ok()?;
        self.failure.applied(config, &mut lan);
        Some(lan)
    }

    fn gateway(&self) -> Result<&Gateway, Refusal> {
        let config = self.config.as_ref();
        config.and_then(|c| c.gateway.as_ref()).ok_or_else(|| {
            Refusal::new(
                StatusCode::CONFLICT,
                "this machine is no gateway, so it has no devices: `cygnet gateway setup` makes it one",
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
                    through: policies.through(by.as_ref()).map(str::to_owned),
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
            through: policies.through(Some(device)).map(str::to_owned),
            from: self.source(Some(device)),
            last_seen_s: None,
        }));
        Ok(DevicesStatus {
            default: policies.default,
            direct_networks: gateway.devices.direct_networks.clone(),
            through: (gateway.devices.through.iter())
                .map(|(tunnel, through)| (tunnel.clone(), through.networks.clone()))
                .collect(),
            problem: self.policies.problem().map(str::to_owned),
            warnings: (self.failure.warning().into_iter())
                .chain(self.shared_macs())
                .chain(self.without_tunnel())
                .collect(),
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
        let given = self.given(order)?;
        let meant = self.meant(&order.device)?;
        if let Some(policy) = order.policy {
            self.may_be_devices(&order.device, &meant.devices, policy)?;
        }
        if order.policy == Some(DevicePolicy::Direct) {
            self.one_device_each(&meant)?;
        }
        let seen = |device: &Device| -> Vec<IpAddr> {
            match device {
                Device::Mac(mac) => self.seen.addresses(*mac).map(|(a, _)| a).collect(),
                Device::Network(_) => Vec::new(),
            }
        };
        let seen: Vec<Vec<IpAddr>> = meant.devices.iter().map(seen).collect();
        if order.policy.is_none() {
            self.forget(&order.device, &meant)?;
        }
        let refused = |error: String| Refusal::new(StatusCode::CONFLICT, error);
        self.policies
            .give(&meant.devices, &meant.superseded, given.as_ref())
            .map_err(refused)?;
        let ended = self.rearrange().await.map_err(|error| {
            refused(format!(
                "that is kept, but it is not done yet, and is tried again every few seconds: {error}"
            ))
        })?;
        let mut notes = Vec::from_iter(ended.as_ref().err().cloned());
        let ended = ended.unwrap_or(0);
        tracing::info!("a device was given a policy by command; {ended} of its connections ended");
        let policies = &self.gateway()?.devices.policies;
        let mut now = Vec::new();
        for (device, seen) in meant.devices.iter().zip(&seen) {
            notes.extend(notes_of(policies, *device, seen, order.policy));
            now.extend(what_is_true(policies, *device, seen));
        }
        Ok(DeviceChanged {
            policy: now.first().map_or(policies.default, |now| now.policy),
            through: now.first().and_then(|now| now.through.clone()),
            devices: meant.devices.iter().map(Device::to_string).collect(),
            ended,
            now,
            notes,
        })
    }

    /// What is to be given; `None`: what was given is to be forgotten.
    fn given(&self, order: &DeviceOrder) -> Result<Option<Order>, Refusal> {
        let Some(policy) = order.policy else {
            return Ok(None);
        };
        if let Some(tunnel) = &order.through {
            self.may_be_given(policy, tunnel)?;
        }
        Ok(Some(Order {
            policy,
            through: order.through.clone(),
        }))
    }

    /// Whether a device may be told to go through this tunnel.
    fn may_be_given(&self, policy: DevicePolicy, tunnel: &str) -> Result<(), Refusal> {
        let gateway = self.gateway()?;
        let through = &gateway.devices.through;
        if policy != DevicePolicy::Tunnelled {
            return Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("a device that is {policy} goes through no tunnel: say tunnelled"),
            ));
        }
        if through.contains_key(tunnel) {
            return Ok(());
        }
        let known = self.config.as_ref().and_then(|c| c.tunnels.get(tunnel));
        let names: Vec<&str> = through.keys().map(String::as_str).collect();
        let expected = match names.as_slice() {
            [] => "the configuration has none that devices may be given".to_owned(),
            names => format!("devices may be given: {}", names.join(", ")),
        };
        let error = match known {
            _ if gateway.tunnel == tunnel => {
                format!("`{tunnel}` is the gateway's tunnel: say `tunnelled` alone")
            }
            Some(known) if known.virtual_address => format!(
                "tunnel `{tunnel}` is this machine's own: for devices to be given it write a section \
                 [gateway.through.{tunnel}], which may be empty, and `cygnet reload`"
            ),
            Some(_) => format!(
                "tunnel `{tunnel}` is one between two networks: devices reach what lies behind it, and nothing else, \
                 through it by themselves; {expected}"
            ),
            None => format!("there is no tunnel `{tunnel}`; {expected}"),
        };
        let status = match known {
            None => StatusCode::NOT_FOUND,
            Some(_) => StatusCode::CONFLICT,
        };
        Err(Refusal::new(status, error))
    }

    /// Of devices that were given a tunnel that the configuration gives to nobody any more.
    pub(super) fn without_tunnel(&self) -> Vec<String> {
        let Ok(gateway) = self.gateway() else {
            return Vec::new();
        };
        let given = gateway.devices.policies.through.iter();
        let lost = given.filter(|(_, tunnel)| !gateway.devices.through.contains_key(*tunnel));
        lost.map(|(device, tunnel)| {
            format!(
                "{device} is to go through tunnel `{tunnel}`, which the configuration does not give to devices any more: it \
                 goes nowhere until it is told otherwise (`cygnet device set` or `forget`), or a section \
                 [gateway.through.{tunnel}] is there again"
            )
        })
        .collect()
    }

    /// What somebody means by a name or an address. An address of a device that was seen stands for the device,
    /// which has others, of the other family too, and will have others tomorrow.
    fn meant(&self, text: &str) -> Result<Meant, Refusal> {
        let gateway = self.gateway()?;
        let named = match gateway.devices.names.get(text) {
            Some(devices) => devices.clone(),
            None => vec![text.parse::<Device>().map_err(|error| {
                let names: Vec<&str> = gateway.devices.names.keys().map(String::as_str).collect();
                let names = match names.as_slice() {
                    [] => "; the configuration names none".to_owned(),
                    names => format!("; the configuration names {}", names.join(", ")),
                };
                Refusal::new(StatusCode::NOT_FOUND, format!("{error}{names}"))
            })?],
        };
        let owners = self.seen.owners();
        let mut meant = Meant::default();
        for device in named {
            let owner = match device {
                Device::Network(net) if net.prefix_len() == net.max_prefix_len() => {
                    owners.get(&net.addr()).copied().map(Device::Mac)
                }
                _ => None,
            };
            if owner.is_some() {
                meant.superseded.push(device);
            }
            let device = owner.unwrap_or(device);
            if !meant.devices.contains(&device) {
                meant.devices.push(device);
            }
        }
        Ok(meant)
    }

    /// Whoever repeats for others (a Wi-Fi repeater, a powerline bridge, a second router) gives its MAC address for
    /// theirs. Who names one of them by its address is not to open them all without knowing it.
    fn one_device_each(&self, meant: &Meant) -> Result<(), Refusal> {
        if meant.superseded.is_empty() {
            return Ok(());
        }
        for device in &meant.devices {
            let Device::Mac(mac) = device else { continue };
            let addresses = self.seen.addresses(*mac).map(|(address, _)| address);
            let addresses: Vec<String> = addresses
                .filter(IpAddr::is_ipv4)
                .map(|address| address.to_string())
                .collect();
            if addresses.len() > 1 {
                return Err(Refusal::new(
                    StatusCode::CONFLICT,
                    format!(
                        "{mac} was seen with {}: these may be several devices, behind a Wi-Fi repeater, a powerline \
                         bridge or another router, and all of them would go direct; if that is meant, or they are one \
                         device, say {mac} instead of its address",
                        addresses.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Of MAC addresses that go direct, and stand for several devices perhaps.
    pub(super) fn shared_macs(&self) -> Vec<String> {
        let Ok(gateway) = self.gateway() else {
            return Vec::new();
        };
        let named = gateway.devices.policies.named.iter();
        let direct = named.filter_map(|(device, policy)| match (device, policy) {
            (Device::Mac(mac), DevicePolicy::Direct) => Some(*mac),
            _ => None,
        });
        let shared = direct.filter_map(|mac| {
            let lately = self.seen.addresses(mac);
            let lately = lately.filter(|(a, at)| a.is_ipv4() && at.elapsed() < LATELY);
            let lately: Vec<String> = lately.map(|(address, _)| address.to_string()).collect();
            (lately.len() > 1).then(|| shared(mac, &lately))
        });
        shared.collect()
    }

    /// Whether anything of the LAN may leave in clear.
    pub(super) fn lets_out(&self) -> bool {
        self.lan().is_some_and(|lan| lan.lets_out())
    }

    /// Forgets that devices were seen. An error if nothing is known of them.
    fn forget(&mut self, text: &str, meant: &Meant) -> Result<(), Refusal> {
        let mut all = meant.devices.iter().chain(&meant.superseded);
        let mut known = all.any(|device| self.policies.has(device));
        for device in &meant.devices {
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

    /// Makes the kernel obey the policies as they are now. How many running connections were ended by it, or why not.
    async fn rearrange(&mut self) -> Result<Result<usize, String>, String> {
        let Some(written) = self.written.clone() else {
            return Err("there is no configuration yet".to_owned());
        };
        let config = effective(&written, &self.policies);
        self.config = Some(Arc::clone(&config));
        self.judge_held(&config);
        let machine = self.machine.clone();
        // What the operator took away stays away.
        if self.guard_present().await? {
            self.apply_guard(&config, &machine).await?;
        }
        self.listen(&config);
        let around = (&machine, &self.listeners, &self.failure);
        let (plan, clashes) = plan(&config, &self.live, around, &self.held)?;
        self.clashes = clashes;
        let applied = self.network.apply(&plan).await;
        applied.map_err(|error| error.to_string())?;
        self.arranged = self.lan();
        Ok(self.end_stale().await)
    }

    /// Learns of devices, and finishes what could not be done before.
    pub(super) async fn watch_devices(&mut self) {
        self.learn().await;
        let both = self.arranged.as_ref().zip(self.lan());
        if both.is_some_and(|(before, now)| is_another(before, &now)) {
            if let Err(error) = self.rearrange().await {
                tracing::error!("policies of devices are not in force: {error}");
            }
        } else {
            // It warns of its errors.
            let _ = self.end_stale().await;
        }
    }
}

/// What an order is about.
#[derive(Debug, Default)]
struct Meant {
    /// Each device as its policy is kept.
    devices: Vec<Device>,
    /// Addresses that were said, and stand for some of these: what was ordered of them before is void.
    superseded: Vec<Device>,
}

/// What is true of a device, or of its addresses, if that differs. `seen`: those it was seen with.
fn what_is_true(policies: &Devices, device: Device, seen: &[IpAddr]) -> Vec<DeviceNow> {
    let now = |(by, policy): (Option<Device>, DevicePolicy), addresses| DeviceNow {
        device: device.to_string(),
        addresses,
        policy,
        through: policies.through(by.as_ref()).map(str::to_owned),
    };
    let mac = match device {
        Device::Network(net) => return vec![now(policies.of_network(net), Vec::new())],
        Device::Mac(mac) => mac,
    };
    let mut alike: BTreeMap<_, (_, Vec<IpAddr>)> = BTreeMap::new();
    for address in seen {
        let decision = policies.decision(Some(mac), *address);
        let way = (decision.1, policies.through(decision.0.as_ref()));
        let (_, addresses) = alike.entry(way).or_insert((decision, Vec::new()));
        addresses.push(*address);
    }
    if alike.is_empty() {
        return vec![now((Some(device), unseen(policies, mac)[0]), Vec::new())];
    }
    let alike = alike.into_values();
    alike
        .map(|(decision, addresses)| now(decision, addresses))
        .collect()
}

/// Of a device that was not seen, over IPv4 and IPv6: as far as its MAC address says.
fn unseen(policies: &Devices, mac: Mac) -> [DevicePolicy; 2] {
    let named = policies.named.get(&Device::Mac(mac)).copied();
    Family::BOTH.map(|family| named.unwrap_or_else(|| policies.unnamed(family)))
}

/// What whoever gave an order has to know of it.
fn notes_of(
    policies: &Devices,
    device: Device,
    seen: &[IpAddr],
    ordered: Option<DevicePolicy>,
) -> Vec<String> {
    match device {
        Device::Network(net) if ordered.is_some() && net.prefix_len() == net.max_prefix_len() => {
            vec![format!(
                "no device with {} was seen: what was said counts for the address alone, and not for the other addresses \
                 of the device",
                net.addr()
            )]
        }
        Device::Network(_) => Vec::new(),
        Device::Mac(mac) if seen.is_empty() => match unseen(policies, mac) {
            [v4, v6] if v4 != v6 => vec![format!("{mac} was not seen; over IPv6 it is {v6}")],
            _ => Vec::new(),
        },
        Device::Mac(mac) => {
            let addresses = seen.iter().filter(|address| address.is_ipv4());
            let addresses: Vec<String> = addresses.map(IpAddr::to_string).collect();
            let is_shared = ordered == Some(DevicePolicy::Direct) && addresses.len() > 1;
            Vec::from_iter(is_shared.then(|| shared(mac, &addresses)))
        }
    }
}

/// Of a MAC address that goes direct.
fn shared(mac: Mac, addresses: &[String]) -> String {
    format!(
        "{mac} goes direct and has several IPv4 addresses ({}): if these are several devices, behind a Wi-Fi repeater, a \
         powerline bridge or another router, all of them go direct; name the one that is meant by its address in the \
         configuration, or give all of them another policy",
        addresses.join(", ")
    )
}

/// Whether other things are said of devices, or of whether this machine itself may send what it likes.
fn is_another(before: &Lan, now: &Lan) -> bool {
    before.devices != now.devices
        || before.direct_networks != now.direct_networks
        || before.direct_names.listed != now.direct_names.listed
        || before.through != now.through
        || before.on_failure != now.on_failure
        || before.own.is_some() != now.own.is_some()
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

//! `[gateway.through.NAME]`: devices and networks that were given another tunnel than the gateway's.

use std::collections::BTreeMap;

use cygnet_gateway::{Device, DevicePolicy};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{LanDevices, Reader, meant_leniently};
use crate::build::default_interface;
use crate::guard::strings;
use crate::raw::{OneOrMany, RawGateway};
use crate::units;

/// A tunnel that devices may be given, in the configuration or at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Through {
    /// Its TUN.
    pub interface: String,
    /// Networks that every device but a blocked one reaches by it or not at all.
    pub networks: Vec<IpNet>,
}

impl Reader {
    /// What the sections say; whether their tunnels are good for it is asked elsewhere.
    pub(super) fn through(&mut self, raw: &RawGateway) {
        let mut given: BTreeMap<IpNet, &str> = BTreeMap::new();
        for (tunnel, section) in &raw.through {
            let (name, section) = (tunnel.get_ref(), section.get_ref());
            let mut networks = Vec::new();
            for written in section.networks.iter().flat_map(OneOrMany::iter) {
                let Some(net) = self.value(written, network) else {
                    continue;
                };
                if let Some(other) = given.insert(net, name) {
                    let message = format!("{net} is in [gateway.through.{other}] already");
                    let help = "a network goes through one tunnel; of two that differ the narrower decides";
                    self.mistake(written.span(), message, Some(help.to_owned()));
                }
                networks.push(net);
            }
            let interface = default_interface(name);
            let through = Through {
                interface,
                networks,
            };
            self.found.through.insert(name.clone(), through);
            for written in section.devices.iter().flat_map(OneOrMany::iter) {
                self.give(DevicePolicy::Tunnelled, Some(name), written);
            }
        }
        for written in raw.direct_networks.iter().flatten() {
            let Ok(direct) = units::network(written.get_ref()) else {
                continue;
            };
            let within = given.iter().find(|(net, _)| net.contains(&direct));
            if let Some((net, tunnel)) = within {
                let message = format!(
                    "`{}` cannot go direct: it is within {net}, which goes through `{tunnel}`",
                    written.get_ref()
                );
                let help =
                    "what is sent there goes into that tunnel or nowhere: take one of the two out";
                self.mistake(written.span(), message, Some(help.to_owned()));
            }
        }
    }
}

/// As far as it can be read: who goes through another tunnel must not go through the gateway's by a mistake elsewhere.
pub(super) fn read_leniently(found: &mut LanDevices, section: &Table) {
    let sections = section.get("through").and_then(Value::as_table);
    for (tunnel, section) in sections.into_iter().flatten() {
        let all = |key: &str| strings(section.get(key));
        let networks = all("networks").filter_map(|text| network(text).ok());
        let through = Through {
            interface: default_interface(tunnel),
            networks: networks.collect(),
        };
        let devices: Vec<Device> = all("devices")
            .flat_map(|text| meant_leniently(found, text))
            .collect();
        for device in devices {
            let policies = &mut found.policies;
            policies.give(device, DevicePolicy::Tunnelled, Some(tunnel.clone()));
        }
        found.through.insert(tunnel.clone(), through);
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = units::network(text)?;
    match network.prefix_len() {
        0 => Err(format!(
            "`{text}` is everything: a tunnel that all is to go through is `tunnel` of [gateway], and one for all that \
             a device sends takes it in `devices`"
        )),
        _ => Ok(network),
    }
}

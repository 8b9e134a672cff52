//! The box on the LAN and its devices: who goes through the tunnel, who beside it, who nowhere.

mod changes;
mod connections;
mod failure;
mod hairpin;
mod lasting;
mod on_demand;
mod policies;
mod setup;
mod through;

use super::Scenario;
use super::resilience::home::{GATEWAY6, Home, SOON, WEB6, seen_by};
use crate::ensure;
use crate::lab::world::{HOME_PUBLIC, WEB};
use crate::lab::{Lab, Namespace, Result, wait_for};
use serde::Deserialize;

pub(super) fn all() -> Vec<Scenario> {
    [
        policies::scenarios(),
        changes::scenarios(),
        connections::scenarios(),
        hairpin::scenarios(),
        lasting::scenarios(),
        on_demand::scenarios(),
        through::scenarios(),
        failure::scenarios(),
        setup::scenarios(),
    ]
    .concat()
}

/// A third device of the LAN, which sends everything to the box.
pub(super) fn another_device(lab: &Lab, home: &Home) -> Result<Namespace> {
    let device = home.world.plug_in(lab, "tv", 22)?;
    device.default_route(GATEWAY6)?;
    Ok(device)
}

/// Waits until `device` reaches the web host over IPv4 and IPv6, as the home and as the box.
fn direct(device: &Namespace) -> Result<()> {
    let mut last = [String::new(), String::new()];
    let what = format!("{} is online around the tunnel", device.name());
    wait_for(&what, SOON, || {
        last = [seen_by(device, WEB)?, seen_by(device, WEB6)?];
        Ok((last[0].ends_with(HOME_PUBLIC) && last[1] == GATEWAY6).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the web host sees {last:?}\n")))
}

/// `device` does not reach the web host, but whoever is in the LAN.
fn blocked(device: &Namespace) -> Result<()> {
    ensure!(
        !super::resilience::home::reaches_web(device)?,
        "{} is online",
        device.name()
    );
    for neighbour in ["192.168.1.2", "192.168.1.1", GATEWAY6] {
        device.exec(["ping", "-n", "-c1", "-W2", neighbour])?;
    }
    Ok(())
}

/// The part of `cygnet device list --json` that scenarios look at; docs/api.md has all of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Listed {
    problem: Option<String>,
    warnings: Vec<String>,
    devices: Vec<ListedDevice>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ListedDevice {
    device: String,
    name: Option<String>,
    addresses: Vec<String>,
    policy: String,
    through: Option<String>,
    from: String,
}

fn listed(home: &Home) -> Result<Listed> {
    let said = home.gateway.command(&["device", "list", "--json"])?;
    Ok(serde_json::from_str(&said)?)
}

/// What is told of one device.
fn told(home: &Home, mac: &str) -> Result<ListedDevice> {
    let listed = listed(home)?.devices.into_iter();
    let found: Vec<ListedDevice> = listed.filter(|device| device.device == mac).collect();
    ensure!(found.len() == 1, "{mac} is listed as {found:?}");
    Ok(found[0].clone())
}

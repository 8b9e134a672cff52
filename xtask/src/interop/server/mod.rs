//! Cygnet as the server of devices: what they may reach, what is known of them, and who is let in.
//!
//! The devices are strongSwans in the demo's world, behind its home router.

mod clock;
mod devices;
mod families;
mod fetched;
mod networking;
mod overlap;
mod speedtest;
mod speedtest_unshaped;

use super::Scenario;
use super::resilience::home::{ROUTER6, add_ipv6};
use crate::lab::strongswan::{Auth, Child, Config, Connection, Setup, StrongSwan};
use crate::lab::world::{SERVER, World};
use crate::lab::{Lab, Namespace, Result};
use std::time::Duration;

/// How long anything may take that happens by itself.
const SOON: Duration = Duration::from_secs(10);
/// The child of a device.
const NET: &str = "net";
/// The secret of server and devices.
const SECRET: &str = "correct horse battery staple";

pub(super) fn all() -> Vec<Scenario> {
    let mut all = networking::scenarios();
    all.extend(devices::scenarios());
    all.extend(clock::scenarios());
    all.extend(families::scenarios());
    all.extend(overlap::scenarios());
    all.extend(fetched::scenarios());
    all.extend(speedtest::scenarios());
    all.extend(speedtest_unshaped::scenarios());
    all
}

/// The demo's world with IPv6, in which the devices use the home's router.
fn world(lab: &Lab) -> Result<World> {
    let world = World::build(lab)?;
    add_ipv6(&world)?;
    for device in [&world.laptop, &world.phone] {
        device.default_route(ROUTER6)?;
    }
    Ok(world)
}

/// A device that sends everything through the server, IPv4 and IPv6.
fn everything(local: &str, proof: Auth) -> Connection {
    Connection::new("vpn", local, SERVER)
        .virtual_address("0.0.0.0")
        .virtual_address("::")
        .local(proof)
        .child(Child::new(NET, &[], &["0.0.0.0/0", "::/0"]))
}

/// Such a device with the shared secret, connected; with its virtual addresses, IPv4 first.
fn device(lab: &Lab, host: &Namespace, local: &str) -> Result<(StrongSwan, Vec<String>)> {
    let identity = format!("{}@lab", host.name());
    let connection =
        everything(local, Auth::shared_key(&identity)).remote(Auth::shared_key("vpn.lab"));
    let setup = Setup {
        config: Config::of(connection).secret(&[&identity, "vpn.lab"], SECRET),
        ..Setup::default()
    };
    let swan = StrongSwan::start(lab, host, &setup)?;
    swan.initiate(NET)?;
    let mut sas = swan.sas()?;
    let mut addresses = sas.pop().map(|sa| sa.virtual_addresses).unwrap_or_default();
    addresses.sort_by_key(|address| address.contains(':'));
    Ok((swan, addresses))
}

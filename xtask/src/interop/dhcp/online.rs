//! All of it: a device that is set to nothing is online through the tunnel, and only there.

use super::client::Client;
use super::{by_the_box, wait_for_state};
use crate::ensure;
use crate::interop::Scenario;
use crate::interop::resilience::home::{Home, SOON, gateway_setup, reaches_web};
use crate::lab::{Lab, Result, wait_for};
use serde_json::Value;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "dhcp-online",
        "a device that asks by DHCP and hears router advertisements is online through the tunnel, IPv4 and IPv6, or nowhere",
        online,
    )]
}

fn online(lab: &mut Lab) -> Result<String> {
    let section = "[gateway.dhcp]\nrange = \"192.168.1.100-192.168.1.199\"\n";
    let mut home = Home::prepare(lab, &gateway_setup("", section))?;
    let device = home.world.laptop.clone();
    device.ip("-4 addr flush dev eth0 scope global")?;
    device.ip("-6 route del default")?;
    home.world.provider.reset()?;
    home.gateway.restart()?;
    wait_for_state(&home.gateway, "serving")?;
    let client = Client::on(lab, &device)?;
    let lease = client.udhcpc(&["-x", "hostname:kitchen-radio"])?;
    by_the_box(&lease)?;
    home.online(&device)?;
    let way = device.ip("-6 route show default")?;
    ensure!(
        way.contains("proto ra") && way.contains("pref high"),
        "{way}"
    );
    let mac = device.mac()?;
    wait_for("the list of devices has its name", SOON, || {
        let listed: Value =
            serde_json::from_str(&home.gateway.command(&["device", "list", "--json"])?)?;
        let mut devices = listed["devices"].as_array().into_iter().flatten();
        let named = devices
            .any(|known| known["device"] == mac.as_str() && known["host_name"] == "kitchen-radio");
        Ok(named.then_some(()))
    })?;
    // It is no name for orders: another device could take it.
    let refused = home
        .gateway
        .control(&["device", "set", "kitchen-radio", "direct"])?;
    ensure!(!refused.success(), "{}", refused.stdout);
    home.gateway.down("home")?;
    ensure!(!reaches_web(&device)?, "it is online without the tunnel");
    home.nothing_leaked("by DHCP")?;
    Ok(lease.address)
}

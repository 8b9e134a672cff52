//! Devices that reach each other by way of the box's one leg: it passes their packets on, and tells nobody of a
//! shorter way.

use super::super::Scenario;
use super::super::resilience::home::{
    GATEWAY6, Home, QUICK, SOON, gateway_setup, reaches_web, seen_by,
};
use crate::lab::link::counter;
use crate::lab::world::GATEWAY;
use crate::lab::{Lab, Namespace, Result, wait_for};
use crate::{ensure, project};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "gateway-hairpin",
        "laptop and phone reach each other by way of the box, tunnelled or blocked, up or down, without a redirect",
        hairpin,
    )]
}

const LAPTOP: [&str; 2] = ["192.168.1.20", "fd00:192:168:1::20"];
const PHONE: [&str; 2] = ["192.168.1.21", "fd00:192:168:1::21"];

fn hairpin(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let (laptop, phone) = (&home.world.laptop, &home.world.phone);
    let mut pages = Vec::new();
    for (device, other) in [(laptop, PHONE), (phone, LAPTOP)] {
        for (address, via) in other.into_iter().zip([GATEWAY, GATEWAY6]) {
            device.ip(&format!("route add {address} via {via}"))?;
        }
        device.nft(
            "table inet told {\ncounter redirects { }\ncounter others { }\nchain in {\n\
             type filter hook prerouting priority -300;\n\
             icmp type redirect counter name redirects\nicmpv6 type nd-redirect counter name redirects\n\
             icmp type echo-reply counter name others\n}\n}\n",
        )?;
        pages.push(device.spawn_exec(project::own_command(&["webhost", "--listen", "[::]:80"]))?);
        wait_for("a device's page is there", SOON, || {
            Ok(device.listens_tcp(80)?.then_some(()))
        })?;
    }
    let both_ways = |when: &str| -> Result<()> {
        reach(laptop, PHONE, LAPTOP, when)?;
        reach(phone, LAPTOP, PHONE, when)
    };
    both_ways("with the tunnel up")?;
    // The box is on the way: where one hop is allowed, it says so.
    for (address, router) in PHONE.into_iter().zip([GATEWAY, GATEWAY6]) {
        let said = laptop.finish(["ping", "-n", "-c1", "-W2", "-t1", address])?;
        ensure!(
            said.stdout.contains(&format!("From {router} ")) && !said.success(),
            "{router} is not between laptop and phone: {}",
            said.stdout
        );
    }
    home.gateway.down("home")?;
    both_ways("with the tunnel down")?;
    home.gateway.up("home")?;
    let blocked = format!("blocked = [\"{}\"]\n", laptop.mac()?);
    home.gateway.write(&gateway_setup(QUICK, &blocked))?;
    home.gateway.reload()?;
    wait_for("the laptop is blocked", SOON, || {
        Ok((!reaches_web(laptop)?).then_some(()))
    })?;
    both_ways("with a blocked laptop")?;
    // Somebody's script switches them on.
    for interface in ["all", "eth0"] {
        let setting = format!("net.ipv4.conf.{interface}.send_redirects");
        home.world.gateway.sysctl(&setting, "1")?;
    }
    both_ways("with send_redirects")?;
    for device in [laptop, phone] {
        let list = ["nft", "-j", "list", "counters", "table", "inet", "told"];
        let told = device.exec(list)?;
        let redirects = counter(&told, "redirects")?;
        ensure!(
            redirects == 0,
            "{} was told of a shorter way {redirects} times",
            device.name()
        );
        ensure!(
            counter(&told, "others")? > 0,
            "nothing is counted at {}",
            device.name()
        );
    }
    Ok("both ways over both families, and no redirect".to_owned())
}

/// Fails unless `device` reaches the other's page, as itself, and its ping is answered.
fn reach(device: &Namespace, other: [&str; 2], own: [&str; 2], when: &str) -> Result<()> {
    for (address, own) in other.into_iter().zip(own) {
        let seen = seen_by(device, address)?;
        ensure!(
            seen.ends_with(own),
            "{when} {} reaches {address} as {seen}",
            device.name()
        );
        // More than one: the kernel tells of a shorter way after the first of them.
        device.exec(["ping", "-n", "-c3", "-i0.2", "-W2", address])?;
    }
    Ok(())
}

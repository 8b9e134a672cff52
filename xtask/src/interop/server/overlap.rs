//! Networks that overlap, and addresses that a server must not lend: what can be done is done, and what
//! cannot is told.

use super::super::Scenario;
use super::super::resilience::home::{
    Home, SOON, check, gateway_setup, reaches_web, server_setup, wait_for_state,
};
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::world::WEB;
use crate::lab::{Lab, Result, traffic, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "server-pool-overlap",
            "a pool that is a network of the machine, since it was given one: the server starts without it, says \
             so, and takes it when that network has gone; `cygnet check` refuses",
            pool_overlap,
        ),
        Scenario::new(
            "gateway-lent-from-its-lan",
            "a server that lends the gateway an address of its own LAN: not taken, told, and nothing leaks",
            lent_from_the_lan,
        ),
    ]
}

fn pool_overlap(lab: &mut Lab) -> Result<String> {
    let world = super::world(lab)?;
    // As a router's lease might.
    world.server.ip("addr add 10.99.0.5/24 dev eth0")?;
    let server = Cygnet::start(lab, &world.server, &server_setup())?;
    let told = server.wait_for_warning("pool 10.99.0.0/24 overlaps", SOON)?;
    let checked = check(&server)?;
    ensure!(
        !checked.success() && checked.stderr.contains("pool 10.99.0.0/24 overlaps"),
        "`cygnet check` says {}{}",
        checked.stdout,
        checked.stderr
    );
    let routes = world.server.ip("route show table all")?;
    ensure!(
        !routes.contains("10.99.0.0/24 dev cyg-srv"),
        "the overlapping pool has a route: {routes}"
    );
    let routes = world.server.ip("-6 route show table all")?;
    ensure!(
        routes.contains("fd99::/112 dev cyg-srv"),
        "the other pool has none: {routes}"
    );
    world.server.ip("addr del 10.99.0.5/24 dev eth0")?;
    wait_for("nothing overlaps any more", SOON, || {
        let warnings = server.status()?.warnings;
        Ok(warnings
            .iter()
            .all(|w| !w.contains("overlaps"))
            .then_some(()))
    })?;
    ensure!(
        check(&server)?.success(),
        "`cygnet check` refuses what is good"
    );
    let (_swan, addresses) = super::device(lab, &world.laptop, "192.168.1.20")?;
    traffic::ping_until_answered(&world.laptop, WEB, SOON)?;
    Ok(format!("{told}; later {addresses:?} were lent"))
}

fn lent_from_the_lan(lab: &mut Lab) -> Result<String> {
    let home = Home::prepare(lab, &gateway_setup("", ""))?;
    // A part of the LAN.
    let mut setup = server_setup();
    setup.config = setup.config.replace("10.99.0.0/24", "192.168.1.64/26");
    let (mut gateway, server) = (home.gateway, home.server);
    server.write(&setup)?;
    server.reload()?;
    home.world.provider.reset()?;
    gateway.restart()?;
    wait_for_state(&gateway, "home", "up")?;
    let told = gateway.wait_for_warning("which was not taken: it is one of the LAN", SOON)?;
    gateway.wait_for_log("which was not taken", SOON)?;
    let addresses = gateway.namespace().ip("-o -4 addr show dev cyg-home")?;
    ensure!(addresses.trim().is_empty(), "the tunnel has {addresses}");
    ensure!(
        !reaches_web4(&home.world.laptop)?,
        "the laptop is online over IPv4"
    );
    // The other family has an address that is good.
    ensure!(
        reaches_web(&home.world.laptop)?,
        "the laptop is offline over IPv6, too"
    );
    let leaked = home.world.provider.counters()?.leaked;
    ensure!(leaked == 0, "{leaked} packets left the home in clear");
    Ok(told)
}

fn reaches_web4(device: &crate::lab::Namespace) -> Result<bool> {
    let url = format!("http://{WEB}/");
    let command = ["curl", "-s", "--fail", "--max-time", "2", &url];
    Ok(device.finish(command)?.success())
}

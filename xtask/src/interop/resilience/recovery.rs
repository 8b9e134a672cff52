//! A peer that is told good-bye, one that vanishes and comes back, one that moves, and cables.

use super::super::Scenario;
use super::home::{
    Home, QUICK, SOON, forwarding_world, gateway_setup, server_setup, start_behind, wait_for_state,
};
use super::restless::Restless;
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::world::{ROUTER, SERVER};
use crate::lab::{Lab, Result, wait_for};
use std::fs;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "sigterm-deletes",
            "SIGTERM of either end sends DELETE: the other holds no SA; the gateway comes back",
            sigterm,
        ),
        Scenario::new(
            "server-killed",
            "SIGKILL of the server, started again after a while: online without a hand",
            |lab| server_gone(lab, false),
        ),
        Scenario::new(
            "server-restarted-at-once",
            "SIGKILL of the server, started again at once with no memory: online without a hand",
            |lab| server_gone(lab, true),
        ),
        Scenario::new(
            "server-moved",
            "the server's name leads to another address: found again without a hand",
            server_moved,
        ),
        Scenario::new(
            "cable-lan",
            "the box's LAN cable out and in: online without a hand, nothing in clear",
            lan_cable,
        ),
        Scenario::new(
            "cable-provider",
            "the provider's cable out and in: likewise",
            provider_cable,
        ),
        Scenario::new(
            "reauth-around-tunnel",
            "a client whose tunnel takes everything reauthenticates: the new call goes around the tunnel",
            reauthenticates,
        ),
        Scenario::new(
            "address-changed",
            "the box gets another address: the same tunnel goes on (MOBIKE)",
            |lab| address_changed(lab, QUICK, SOON),
        ),
        Scenario::new(
            "address-changed-default-liveness",
            "the same with liveness and retransmissions as they are by default: within 5 s",
            |lab| address_changed(lab, "", Duration::from_secs(5)),
        ),
    ]
}

/// The number of IKE SAs of the server's clients.
fn clients(server: &Cygnet) -> Result<usize> {
    Ok(server.connection("server")?.ike_sas.len())
}

/// The server has one IKE SA with one client, and none that it forgot to end.
fn one_client(server: &Cygnet) -> Result<()> {
    let sas = clients(server)?;
    ensure!(sas == 1, "the server has {sas} SAs");
    Ok(())
}

fn sigterm(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    ensure!(clients(&home.server)? == 1, "the server has no SA");
    home.gateway.stop()?;
    // The DELETE was answered before the gateway ended.
    ensure!(
        clients(&home.server)? == 0,
        "the server still has an SA after SIGTERM of the gateway"
    );
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    home.server.stop()?;
    wait_for("the gateway's SA is gone", SOON, || {
        Ok((home.gateway.connection("home")?.state != "up").then_some(()))
    })?;
    let said = home.gateway.connection("home")?.reason.unwrap_or_default();
    home.server.restart()?;
    home.online(&home.world.laptop)?;
    Ok(format!("then: {said}"))
}

fn server_gone(lab: &mut Lab, at_once: bool) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.server.kill_supervisor()?;
    if !at_once {
        wait_for("the gateway notices", SOON, || {
            Ok((home.gateway.connection("home")?.state != "up").then_some(()))
        })?;
        laptop.tries_on()?;
    }
    let begun = std::time::Instant::now();
    home.server.restart()?;
    laptop
        .flows()
        .map_err(|failure| failure.while_doing(home.gateway.log()))?;
    let elapsed = begun.elapsed();
    home.nothing_leaked("while the server was away")?;
    one_client(&home.server)?;
    Ok(format!(
        "online {:.1} s after its start",
        elapsed.as_secs_f32()
    ))
}

fn server_moved(lab: &mut Lab) -> Result<String> {
    const OTHER: &str = "192.0.2.19";
    let world = forwarding_world(lab)?;
    let server = Cygnet::start(lab, &world.server, &server_setup())?;
    let mut setup = gateway_setup(QUICK, "");
    setup.config = setup.config.replace(
        &format!("remote = \"{SERVER}\""),
        "remote = \"moving.example.org\"",
    );
    let gateway = Cygnet::prepare(lab, &world.gateway, &setup)?;
    let hosts = gateway.directory().join("hosts");
    // The mount is of the file, so it has to stay the same one.
    let say = |address: &str| {
        fs::write(
            &hosts,
            format!("127.0.0.1 localhost\n{address} moving.example.org\n"),
        )
    };
    say(SERVER)?;
    let mount = format!("mount --bind {} /etc/hosts; exec \"$@\"", hosts.display());
    let process = start_behind(&mount, &gateway)?;
    let home = Home {
        world,
        server,
        gateway,
    };
    home.online(&home.world.laptop)
        .map_err(|failure| failure.while_doing(process.log()))?;
    let network = &home.world.server;
    network.sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")?;
    network.ip(&format!("addr add {OTHER}/28 dev eth0"))?;
    network.ip(&format!("addr del {SERVER}/28 dev eth0"))?;
    network.ip("route replace default via 192.0.2.17")?;
    say(OTHER)?;
    home.online_as(&home.world.laptop, OTHER)
        .map_err(|failure| failure.while_doing(process.log()))?;
    let sa = home.gateway.connection("home")?.ike_sas;
    ensure!(sa.len() == 1, "{} IKE SAs after the move", sa.len());
    Ok("found at its new address".to_owned())
}

fn lan_cable(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    let clean = home.state()?;
    home.world.plug_box(false)?;
    wait_for("the gateway notices", SOON, || {
        Ok((home.gateway.connection("home")?.state != "up").then_some(()))
    })?;
    home.world.plug_box(true)?;
    laptop
        .flows()
        .map_err(|failure| failure.while_doing(home.gateway.log()))?;
    home.nothing_leaked("around a cable that was out")?;
    // Out and in so briefly that nobody notices; then with the interface itself down, which takes
    // its routes along, as a DHCP client would put them back.
    home.world.plug_box(false)?;
    home.world.plug_box(true)?;
    laptop.flows()?;
    let box_ = &home.world.gateway;
    box_.ip("link set eth0 down")?;
    laptop.tries_on()?;
    box_.ip("link set eth0 up")?;
    box_.ip("-6 addr replace fd00:192:168:1::2/64 dev eth0")?;
    box_.default_route(ROUTER)?;
    box_.default_route("fd00:192:168:1::1")?;
    laptop
        .flows()
        .map_err(|failure| failure.while_doing(home.gateway.log()))?;
    home.nothing_leaked("around an interface that was down")?;
    wait_for("the state of before", SOON, || {
        Ok(clean
            .difference(&home.state()?)
            .is_order_alone()
            .then_some(()))
    })
    .map_err(|failure| match home.state() {
        Ok(now) => failure.while_doing(clean.difference(&now)),
        Err(other) => other,
    })?;
    Ok(format!("{} datagrams, none in clear", laptop.datagrams()))
}

fn provider_cable(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.world.provider.cut(true)?;
    wait_for("the gateway notices", SOON, || {
        Ok((home.gateway.connection("home")?.state != "up").then_some(()))
    })?;
    home.world.provider.cut(false)?;
    let begun = std::time::Instant::now();
    laptop
        .flows()
        .map_err(|failure| failure.while_doing(home.gateway.log()))?;
    home.nothing_leaked("around a cable that was out")?;
    Ok(format!(
        "online {:.1} s after",
        begun.elapsed().as_secs_f32()
    ))
}

/// The machine itself is the client; no LAN is behind it.
fn reauthenticates(lab: &mut Lab) -> Result<String> {
    let mut setup = gateway_setup(QUICK, "");
    if let Some((tunnel, _)) = setup.config.split_once("[gateway]") {
        setup.config = tunnel.to_owned();
    }
    let mut home = Home::prepare(lab, &setup)?;
    home.gateway.restart()?;
    let client = &home.world.gateway;
    home.up_before_online(client)?;
    home.world.provider.reset()?;
    let traffic = Restless::start(client)?;
    traffic.flows()?;
    let mut known = Vec::new();
    for _ in 0..3 {
        let up = home.gateway.connection("home")?.ike_sas;
        known.extend(up.into_iter().map(|sa| sa.initiator_spi));
        home.gateway.request("home", "reauthenticate", None)?;
        wait_for("another IKE SA alone", SOON, || {
            let up = home.gateway.connection("home")?.ike_sas;
            let new = |spi: &String| !known.contains(spi);
            let alone = up.len() == 1
                && up
                    .iter()
                    .all(|sa| sa.state == "up" && new(&sa.initiator_spi));
            Ok(alone.then_some(()))
        })
        .map_err(|failure| failure.while_doing(home.gateway.log()))?;
        traffic.flows()?;
    }
    home.nothing_leaked("around reauthentications")?;
    one_client(&home.server)?;
    Ok(format!(
        "{} pages in three reauthentications, nothing in clear",
        traffic.pages()
    ))
}

fn address_changed(lab: &mut Lab, tunnel: &str, within: Duration) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(tunnel, ""))?;
    home.world.provider.reset()?;
    let tunnel = || -> Result<Vec<String>> {
        let up = home.gateway.connection("home")?.ike_sas;
        let spis = up.into_iter().flat_map(|sa| {
            let children = sa.children.into_iter().map(|child| child.spi_in);
            std::iter::once(sa.initiator_spi).chain(children)
        });
        Ok(spis.collect())
    };
    let before = tunnel()?;
    let box_ = &home.world.gateway;
    box_.sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")?;
    box_.ip("addr add 192.168.1.3/24 dev eth0")?;
    box_.ip("addr del 192.168.1.2/24 dev eth0")?;
    box_.default_route(ROUTER)?;
    let begun = std::time::Instant::now();
    for device in [&home.world.laptop, &home.world.phone] {
        device.default_route("192.168.1.3")?;
    }
    home.online(&home.world.laptop)?;
    let elapsed = begun.elapsed();
    ensure!(
        elapsed < within,
        "online from the new address after {:.1} s only",
        elapsed.as_secs_f32()
    );
    wait_for_state(&home.gateway, "home", "up")?;
    let after = tunnel()?;
    ensure!(
        before == after,
        "MOBIKE would have kept the tunnel: {before:?}, now {after:?}"
    );
    home.nothing_leaked("around a change of address")?;
    Ok(format!(
        "online from the new address after {:.1} s",
        elapsed.as_secs_f32()
    ))
}

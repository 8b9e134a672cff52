//! The box advertises itself as the router to prefer, with DHCP and without.

use super::client::Client;
use super::{GATEWAY, Lan, ROUTER, SOON, advertised, serving, setup};
use crate::ensure;
use crate::interop::Scenario;
use crate::interop::resilience::home::{Home, gateway_setup, reaches_web};
use crate::lab::cygnet::Cygnet;
use crate::lab::{Failure, Lab, Namespace, Process, Result, wait_for};
use std::fs;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "dhcp-router-advertisement",
            "rdisc6 is answered: high preference, half an hour, the box as resolver",
            advertisement,
        ),
        Scenario::new(
            "dhcp-beside-radvd",
            "beside a real radvd a device's kernel prefers the box; without [gateway.dhcp] it is told that it is no router",
            beside_radvd,
        ),
        Scenario::new(
            "dhcp-advertise-alone",
            "with [gateway.advertise], and DHCP and radvd on the router: no address is lent, a kernel prefers the box, and hears its end",
            alone,
        ),
        Scenario::new(
            "dhcp-advertise-networkd",
            "a real systemd-networkd has its address by radvd and its resolver by the box, and only the box for a router once radvd says its end",
            networkd,
        ),
        Scenario::new(
            "dhcp-advertise-online",
            "IPv4 set by hand, IPv6 by [gateway.advertise]: a device is online through the tunnel, or nowhere, though radvd offers a way past",
            online,
        ),
    ]
}

fn advertisement(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let _cygnet = serving(lab, &lan, "")?;
    let seen = lan
        .laptop
        .exec(["rdisc6", "-1", "-r", "3", "-w", "4000", "eth0"])?;
    let lower = seen.to_lowercase();
    for part in ["high", "1800 (0x00000708) seconds", "fd00:192:168:1::2"] {
        ensure!(lower.contains(part), "no `{part}` in\n{seen}");
    }
    Ok(format!("{} lines", seen.lines().count()))
}

/// The kernel's default routes, those by router advertisements.
fn defaults(lan: &Lan) -> Result<String> {
    lan.laptop.ip("-6 route show default")
}

fn link_local(host: &Namespace) -> Result<String> {
    let shown = host.ip("-6 -o addr show dev eth0 scope link")?;
    let address = shown
        .split_whitespace()
        .find_map(|word| word.split_once("/64"));
    let address = address.map(|(address, _)| address.to_owned());
    address.ok_or_else(|| Failure::new(format!("no link-local address: {shown}")))
}

/// The router's own advertisements, with the LAN's prefix and no preference.
fn radvd(lab: &Lab, router: &Namespace, interface: &str) -> Result<Process> {
    let config = lab.directory().join("radvd.conf");
    fs::write(
        &config,
        format!(
            "interface {interface} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
prefix fd00:192:168:1::/64 {{ }}; }};\n"
        ),
    )?;
    let pid = lab.directory().join("radvd.pid");
    let (config, pid) = (config.to_string_lossy(), pid.to_string_lossy());
    let argv = ["radvd", "-n", "-m", "stderr", "-C", &*config, "-p", &*pid];
    router.spawn(argv)
}

fn line_of(routes: &str, address: &str) -> Option<String> {
    let line = routes.lines().find(|line| line.contains(address));
    line.map(str::to_owned)
}

/// Waits until the laptop's kernel has heard of both; its routes.
fn knows_both(lan: &Lan, gateway: &str, router: &str) -> Result<String> {
    wait_for("the laptop knows both routers", SOON, || {
        let routes = defaults(lan)?;
        let both = [gateway, router]
            .iter()
            .all(|a| line_of(&routes, a).is_some());
        Ok(both.then_some(routes))
    })
}

fn beside_radvd(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let _radvd = radvd(lab, &lan.router, "eth0")?;
    let cygnet = serving(lab, &lan, "")?;
    let (gateway, router) = (link_local(&lan.gateway)?, link_local(&lan.router)?);
    let routes = knows_both(&lan, &gateway, &router)?;
    let of_box = line_of(&routes, &gateway).unwrap_or_default();
    ensure!(of_box.contains("pref high"), "{routes}");
    let way = lan.laptop.ip("-6 route get 2001:db8:80::80")?;
    ensure!(way.contains(&gateway), "it goes by {way}, not by {gateway}");
    // Taken out of the configuration it says that it is no router any more.
    let mut without = setup("");
    let section = without.config.find("[gateway.dhcp]").unwrap_or_default();
    without.config.truncate(section);
    cygnet.write(&without)?;
    cygnet.reload()?;
    wait_for("the box's route is gone", SOON, || {
        Ok(line_of(&defaults(&lan)?, &gateway).is_none().then_some(()))
    })?;
    Ok(of_box)
}

fn alone(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let _radvd = radvd(lab, &lan.router, "eth0")?;
    // The second way: the router lends addresses and names the box.
    let option = format!("--dhcp-option=3,{GATEWAY}");
    let _dnsmasq = super::beside::dnsmasq_with(&lan.router, "eth0", &[&option])?;
    let cygnet = Cygnet::start(lab, &lan.gateway, &advertised("", ""))?;
    let (gateway, router) = (link_local(&lan.gateway)?, link_local(&lan.router)?);
    let routes = knows_both(&lan, &gateway, &router)?;
    let of_box = line_of(&routes, &gateway).unwrap_or_default();
    ensure!(of_box.contains("pref high"), "{routes}");
    let way = lan.laptop.ip("-6 route get 2001:db8:80::80")?;
    ensure!(way.contains(&gateway), "it goes by {way}, not by {gateway}");
    // It says nothing of names, as it answers no questions for them.
    let heard = lan
        .phone
        .exec(["rdisc6", "-m", "-w", "5000", "eth0"])?
        .to_lowercase();
    let of = |address: &str| -> Result<&str> {
        let part = heard.rsplit("soliciting").next().unwrap_or(&heard);
        let before = part.split(&format!("from {address}")).next();
        before
            .and_then(|before| before.rsplit("from ").next())
            .ok_or_else(|| Failure::new(format!("rdisc6 heard nothing of {address}:\n{heard}")))
    };
    let said = of(&gateway)?;
    ensure!(
        said.contains("high") && said.contains("1800 (0x00000708) seconds"),
        "{said}\n{heard}"
    );
    ensure!(!said.contains("recursive dns"), "{said}\n{heard}");
    // Addresses are the router's affair, and the box does not listen for who asks for one.
    let lease = Client::on(lab, &lan.laptop)?.udhcpc(&[])?;
    ensure!(
        lease.server == ROUTER && lease.router == GATEWAY,
        "{lease:?}"
    );
    ensure!(!lan.gateway.listens_udp(67)?, "it listens on port 67");
    let status = cygnet.whole_status()?;
    ensure!(
        status["advertise"]["advertising"] == true && status["dhcp"].is_null(),
        "{}",
        status["advertise"]
    );
    // Taken out of the configuration it says that it is no router any more; at its end it does not.
    let mut without = advertised("", "");
    let section = without
        .config
        .find("[gateway.advertise]")
        .unwrap_or_default();
    without.config.truncate(section);
    cygnet.write(&without)?;
    cygnet.reload()?;
    wait_for("the box's route is gone", SOON, || {
        Ok(line_of(&defaults(&lan)?, &gateway).is_none().then_some(()))
    })?;
    let guide = cygnet.configured(&["gateway", "guide"])?;
    ensure!(
        guide
            .stdout
            .contains("GO ON SENDING IT TO THE ROUTER THAT ADVERTISES ITSELF, PAST THIS MACHINE"),
        "{}",
        guide.stdout
    );
    Ok(of_box)
}

fn networkd(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let client = Client::on(lab, &lan.laptop)?;
    let (_networkd, links) = client.networkd_ipv6()?;
    let mut radvd = radvd(lab, &lan.router, "eth0")?;
    let mut cygnet = Cygnet::start(
        lab,
        &lan.gateway,
        &advertised("[gateway.dns]\nresolvers = \"9.9.9.9\"\n", ""),
    )?;
    let (gateway, router) = (link_local(&lan.gateway)?, link_local(&lan.router)?);
    knows_both(&lan, &gateway, &router)?;
    wait_for("it has an address by radvd", SOON, || {
        let addresses = lan.laptop.ip("-6 -o addr show dev eth0 scope global")?;
        Ok(addresses.contains("fd00:192:168:1:").then_some(()))
    })?;
    wait_for("it knows the box as resolver", SOON, || {
        Ok(links()?.contains("fd00:192:168:1::2").then_some(()))
    })?;
    // That of Debian 12 (252) heeds no preference: it makes both next hops of one route. So only the other router's end is
    // the end of the way past the box.
    ensure!(radvd.stop(), "radvd does not end");
    let routes = wait_for("the box alone is its router", SOON, || {
        let routes = defaults(&lan)?;
        let alone = line_of(&routes, &router).is_none() && line_of(&routes, &gateway).is_some();
        Ok(alone.then_some(routes))
    })?;
    // The end of the program is no end of the router: devices would go past it.
    cygnet.stop()?;
    let way = lan.laptop.ip("-6 route get 2001:db8:80::80")?;
    ensure!(
        way.contains(&gateway),
        "without cygnet it goes by {way}, not by {gateway}"
    );
    Ok(routes)
}

fn online(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup("", "[gateway.advertise]\n"))?;
    let device = home.world.laptop.clone();
    device.ip("-6 route del default")?;
    let _radvd = radvd(lab, &home.world.router, "lan")?;
    wait_for("the router is heard", SOON, || {
        let way = device.ip("-6 route show default")?;
        Ok(way.contains("proto ra").then_some(()))
    })?;
    home.gateway.restart()?;
    wait_for("the box is preferred", SOON, || {
        let way = device.ip("-6 route show default")?;
        Ok(way.contains("pref high").then_some(()))
    })?;
    home.world.provider.reset()?;
    home.online(&device)?;
    home.gateway.down("home")?;
    ensure!(!reaches_web(&device)?, "it is online without the tunnel");
    home.nothing_leaked("by router advertisements alone")?;
    Ok("online by the tunnel, IPv4 by hand and IPv6 by advertisement".to_owned())
}

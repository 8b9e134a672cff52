//! The box advertises itself as the router to prefer.

use super::{Lan, SOON, serving, setup};
use crate::ensure;
use crate::interop::Scenario;
use crate::lab::{Failure, Lab, Namespace, Result, wait_for};
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

fn beside_radvd(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let config = lab.directory().join("radvd.conf");
    fs::write(
        &config,
        "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
prefix fd00:192:168:1::/64 { }; };\n",
    )?;
    let pid = lab.directory().join("radvd.pid");
    let (config, pid) = (config.to_string_lossy(), pid.to_string_lossy());
    let argv = ["radvd", "-n", "-m", "stderr", "-C", &*config, "-p", &*pid];
    let _radvd = lan.router.spawn(argv)?;
    let cygnet = serving(lab, &lan, "")?;
    let (gateway, router) = (link_local(&lan.gateway)?, link_local(&lan.router)?);
    let line_of = |routes: &str, address: &str| -> Option<String> {
        let line = routes.lines().find(|line| line.contains(address));
        line.map(str::to_owned)
    };
    let routes = wait_for("the laptop knows both routers", SOON, || {
        let routes = defaults(&lan)?;
        let both = [&gateway, &router]
            .iter()
            .all(|a| line_of(&routes, a).is_some());
        Ok(both.then_some(routes))
    })?;
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

//! A setup that answers names and lends addresses, beside a router that announces itself.

use super::super::super::Scenario;
use super::super::super::dhcp::{self, client::Client};
use super::super::super::dns::{Dnsmasq, expect};
use super::super::super::resilience::firewall::USUAL;
use super::super::super::resilience::home::{SERVER6, SOON, WEB6, seen_by, server_setup};
use super::machine::Machine;
use super::typist::Typist;
use crate::ensure;
use crate::lab::world::{GATEWAY, SERVER, WEB};
use crate::lab::{Lab, Namespace, Process, Result, wait_for};
use std::fs;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "setup-dns-dhcp",
            "typed, with y to names and y to addresses, beside a radvd: a device gets lease, name and both internets by the box, \
         and `gateway off` leaves all as before",
            dns_and_dhcp,
        ),
        Scenario::new(
            "setup-beside-a-firewall",
            "a firewall of the machine's drops what devices ask: setup says so, with the rule that lets it in",
            beside_a_firewall,
        ),
    ]
}

fn beside_a_firewall(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::new(lab)?;
    machine.world.gateway.nft(USUAL)?;
    machine.remember()?;
    let said = machine.expect(&["setup", "--yes", "--dns", "yes"], 0, "Kept.")?;
    let told = "  ! another firewall drops our packets (devices' questions for names) in inet foreign chain input";
    let rule = "`nft insert rule inet foreign input iifname \"eth0\" meta l4proto { tcp, udp } th dport 53 accept`";
    ensure!(said.contains(told) && said.contains(rule), "{said}");
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after `gateway off`")?;
    Ok(rule.to_owned())
}

const NAME: &str = "www.test.example";

/// The router, which announces itself, and nothing else.
fn radvd(lab: &Lab, router: &Namespace) -> Result<Process> {
    let config = lab.directory().join("radvd.conf");
    fs::write(
        &config,
        "interface lan { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; };\n",
    )?;
    let pid = lab.directory().join("radvd.pid");
    let (config, pid) = (config.to_string_lossy(), pid.to_string_lossy());
    router.spawn(["radvd", "-n", "-m", "stderr", "-C", &*config, "-p", &*pid])
}

/// Waits until a host has a default route by an announcement.
fn hears_the_router(host: &Namespace) -> Result<()> {
    let what = format!("{} hears the router", host.name());
    wait_for(&what, SOON, || {
        let routes = host.ip("-6 route show default proto ra")?;
        Ok((!routes.is_empty()).then_some(()))
    })
}

fn dns_and_dhcp(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::new(lab)?;
    let mut server = server_setup();
    server.config.push_str(&format!("dns = [\"{WEB}\"]\n"));
    machine.server.write(&server)?;
    machine.server.restart()?;
    let record = format!("host-record={NAME},{WEB},60");
    let _names = Dnsmasq::start(&machine.world.web, &[WEB], &[&record])?;
    let laptop = machine.world.laptop.clone();
    // It has to learn by itself where to send what is not for the LAN.
    laptop.shell("ip -6 route flush default")?;
    let _radvd = radvd(lab, &machine.world.router)?;
    hears_the_router(&machine.world.gateway)?;
    machine.remember()?;

    let mut typist = Typist::start(&machine, &[])?;
    for question in [
        "Through which tunnel?",
        "Which interface is the LAN's?",
        "Which devices go through the tunnel",
        "Which of them go beside it",
        "Which have no internet at all",
    ] {
        typist.answers(question, "")?;
    }
    typist.answers("Answer the devices' questions", "y")?;
    typist.answers("Lend addresses to the LAN", "y")?;
    let plan = typist.reads("Go on? [n]: ")?;
    for part in [
        "+ [gateway.dns]\n",
        "+ [gateway.dhcp]\n",
        "questions of tunnelled devices are answered here, through the tunnel",
        "192.168.1.100-192.168.1.199 are lent to the LAN, with this machine as router",
        "No DHCP server answers on the LAN.",
        "Another router announces itself on eth0 for IPv6: devices that heed no preference, and all while this machine is off",
    ] {
        ensure!(plan.contains(part), "the plan lacks \"{part}\":\n{plan}");
    }
    machine.is_as_before("before it was said to go on")?;
    typist.types("y\n")?;
    typist.answers("Keep this?", "y")?;
    typist.reads("Kept.")?;
    let code = typist.ends()?;
    ensure!(code == 0, "it ended with {code}:\n{}", typist.screen());
    machine.watcher_has_ended()?;

    dhcp::wait_for_state(&machine.cygnet, "serving")?;
    let lease = Client::on(lab, &laptop)?.udhcpc(&[])?;
    dhcp::by_the_box(&lease)?;
    expect(&laptop, GATEWAY, NAME, &[], &[WEB])?;
    let mut last = Default::default();
    wait_for("the laptop is online through the tunnel", SOON, || {
        last = [seen_by(&laptop, WEB)?, seen_by(&laptop, WEB6)?];
        Ok((last[0].ends_with(SERVER) && last[1] == SERVER6).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the web host sees {last:?}")))?;

    machine.expect(&["off"], 0, "is taken back")?;
    // It was forgotten while this machine was a router itself.
    hears_the_router(&machine.world.gateway)?;
    machine.is_as_before("after `gateway off`")?;
    Ok(format!(
        "{}, {NAME}, IPv4 and IPv6 by the box",
        lease.address
    ))
}

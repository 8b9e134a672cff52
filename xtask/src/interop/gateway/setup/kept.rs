//! What is confirmed works, and `gateway off` leaves everything as it was.

use super::super::super::Scenario;
use super::super::super::dhcp::beside::dnsmasq;
use super::super::super::resilience::checkup::{BEYOND, Doctor, web};
use super::super::super::resilience::home::{GATEWAY6, SERVER6, SOON, WEB6, seen_by, server_setup};
use super::machine::Machine;
use super::typist::Typist;
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Lab, Namespace, Result, wait_for};
use std::fs;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "setup-typed",
            "typed at a terminal, with wrong answers: the LAN is online by the tunnel, and `gateway off` leaves all as before",
            typed,
        ),
        Scenario::new(
            "setup-two-legs",
            "two legs, without questions, beside other programs' rules: the LAN is online, and `gateway off` leaves all as before",
            two_legs,
        ),
        Scenario::new(
            "setup-without-ipv6",
            "a tunnel that has no IPv6: devices' IPv6 goes nowhere once it is set up, and `gateway off` leaves all as before",
            without_ipv6,
        ),
        Scenario::new(
            "setup-by-hand",
            "`gateway off` of a configuration that was changed by hand since takes out what was set up, and says so",
            by_hand,
        ),
        Scenario::new(
            "setup-off-beside-hand",
            "`gateway off` where [gateway] was written, taken out or broken by hand: the guard is off, and what is left is told",
            beside_hand,
        ),
        Scenario::new(
            "setup-twice",
            "a second setup changes the first; not confirmed it goes back there, and `gateway off` to before both",
            twice,
        ),
        Scenario::new(
            "setup-without-systemd",
            "beside a cygnet that runs by hand: it is reloaded, what to do at boot is said, and after `off` it runs on as before",
            without_systemd,
        ),
    ]
}

/// Waits until a device of the LAN is seen as the server, over IPv4 and IPv6.
fn online(device: &Namespace, families: &[&str]) -> Result<()> {
    let mut last = Vec::new();
    wait_for(
        &format!("{} is online by the tunnel", device.name()),
        SOON,
        || {
            last = families
                .iter()
                .map(|web| seen_by(device, web))
                .collect::<Result<Vec<String>>>()?;
            let all = last
                .iter()
                .all(|seen| seen.ends_with(SERVER) || seen == SERVER6);
            Ok(all.then_some(()))
        },
    )
    .map_err(|failure| failure.while_doing(format!("the web host sees {last:?}")))
}

fn typed(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    // It is to be told by the advertisement.
    machine.world.laptop.ip("-6 route del default")?;
    let _dnsmasq = dnsmasq(&machine.world.router, "lan")?;
    let mut typist = Typist::start(&machine, &[])?;
    typist.answers("Through which tunnel? [home", "work")?;
    typist.reads("there is no tunnel `work`; there is home")?;
    typist.answers("Through which tunnel? [home", "")?;
    typist.reads("eth0       192.168.1.2/24, leads to the router 192.168.1.1")?;
    typist.answers("Which interface is the LAN's? [eth0", "eth9")?;
    typist.reads("there is no interface `eth9`")?;
    typist.answers("Which interface is the LAN's? [eth0", "eth0")?;
    typist.answers(
        "Which devices go through the tunnel: all, none, or a list? [all",
        "",
    )?;
    typist.answers(
        "Which of them go beside it, in clear: none, or a list (an address counts for itself alone, a MAC address for the device)? [none",
        "the tv",
    )?;
    typist.reads("`the` is no device: expected a MAC address")?;
    typist.answers("Which of them go beside it", "192.168.1.77")?;
    typist.answers("Which have no internet at all", "192.168.1.77")?;
    typist.reads("192.168.1.77 cannot be two things at once")?;
    typist.answers("Which have no internet at all", "")?;
    typist.answers("Answer the devices' questions", "perhaps")?;
    typist.reads("expected y or n")?;
    typist.answers("Answer the devices' questions", "n")?;
    typist.answers("Lend addresses to the LAN", "")?;
    typist.answers("Advertise this machine as IPv6 router", "y")?;
    let plan = typist.reads("Go on? [n]: ")?;
    for part in [
        "The LAN: eth0 with 192.168.1.0/24",
        "one leg: eth0 leads to the router 192.168.1.1 as well",
        "+ [gateway]\n",
        "+ direct = \"192.168.1.77\"",
        "+ [gateway.advertise]\n",
        "this machine is advertised to all devices of the LAN as the router to prefer",
        "goes through the tunnel home, or nowhere; that of 192.168.1.77 beside it, in clear",
        "The DHCP server 192.168.1.1 lends addresses.",
        "Without a yes within 60 s all of it is taken back",
    ] {
        ensure!(plan.contains(part), "the plan lacks \"{part}\":\n{plan}");
    }
    machine.is_as_before("before it was said to go on")?;
    typist.types("y\n")?;
    for line in [
        "✓ the guard is in place",
        "✓ cygnet runs, and answers",
        "✓ the tunnel home is up",
        "✓ packets are forwarded",
        "✓ systemd starts both at every boot",
    ] {
        typist.reads(line)?;
    }
    typist.reads("Keep this? Without an answer it is taken back in ")?;
    typist.types("what?\n")?;
    typist.reads("expected y or n")?;
    typist.answers("Keep this?", "y")?;
    typist.reads("Kept.")?;
    let code = typist.ends()?;
    ensure!(code == 0, "it ended with {code}");
    machine.watcher_has_ended()?;
    online(&machine.world.phone, &[WEB, WEB6])?;
    online(&machine.world.laptop, &[WEB])?;
    wait_for("the laptop is told a router for IPv6", SOON, || {
        let way = machine.world.laptop.ip("-6 route show default")?;
        Ok(way.contains("pref high").then_some(()))
    })?;
    online(&machine.world.laptop, &[WEB6])?;
    let doctor = Doctor::with_path(&machine.cygnet, BEYOND, "exec", &machine.path)?;
    doctor
        .report(&["--url", &web()])?
        .is_healthy("what was set up and kept")?;
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after `gateway off`")?;
    // There is nothing of a setup left: it is the old command again.
    machine.expect(&["off"], 0, "the guard is off")?;
    machine.is_as_before("after a second `gateway off`")?;
    Ok("online, and as before".to_owned())
}

/// Rules of others, at the priorities of ours and beside them.
const FOREIGN: &str = "for f in -4 -6; do for p in 90 100 101 102 103 104 32000; do \
    ip $f rule add pref $p fwmark 0x77 lookup main; ip $f rule add pref $p fwmark 0x78 lookup main; done; done";

fn two_legs(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::with_two_legs(lab)?;
    machine.world.gateway.shell(FOREIGN)?;
    machine.remember()?;
    let plan = machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    ensure!(
        plan.contains("two legs: the LAN is at eth1, and eth0 leads to the router 192.168.1.1"),
        "{plan}"
    );
    online(machine.inside()?, &[WEB, WEB6])?;
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after `gateway off`")?;
    Ok("online at eth1, and as before".to_owned())
}

fn without_ipv6(lab: &mut Lab) -> Result<String> {
    let mut server = server_setup();
    server.config = server.config.replace(", \"fd99::/112\"", "");
    let mut machine = Machine::with_server(lab, &server)?;
    machine.world.provider.add_ends(&[GATEWAY6], &[SERVER6])?;
    // A machine that forwards already: what a device sends leaves in clear.
    machine.world.gateway.forward_packets()?;
    machine.remember()?;
    let clear = seen_by(&machine.world.laptop, WEB6)?;
    ensure!(clear.contains(':'), "the web host sees {clear}");
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    online(&machine.world.laptop, &[WEB])?;
    machine.world.provider.reset()?;
    let refused = seen_by(&machine.world.laptop, WEB6)?;
    ensure!(refused.starts_with("curl:"), "the web host sees {refused}");
    let leaked = machine.world.provider.counters()?.leaked;
    ensure!(leaked == 0, "{leaked} packets left in clear");
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after `gateway off`")?;
    let clear = seen_by(&machine.world.laptop, WEB6)?;
    ensure!(clear.contains(':'), "afterwards the web host sees {clear}");
    Ok("IPv6 blocked, and as before".to_owned())
}

fn by_hand(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    let path = machine.cygnet.config_path();
    let written = fs::read_to_string(&path)?;
    fs::write(&path, format!("# Hello.\n{written}# Behind it.\n"))?;
    let said = machine.expect(&["off"], 0, "is taken back")?;
    ensure!(
        said.contains("it was changed since: [gateway] is taken out of it"),
        "{said}"
    );
    let now = fs::read_to_string(&path)?;
    let before = written
        .split_once("\n# Written by `cygnet gateway setup`")
        .map_or("", |(before, _)| before);
    let expected = format!("# Hello.\n{before}# Behind it.\n");
    ensure!(now == expected, "it is now:\n{now}\nexpected:\n{expected}");
    fs::write(&path, before)?;
    machine.is_as_before("but for what was changed by hand")?;
    // A file that cannot be read any more stays, and all else is taken back.
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    let written = fs::read_to_string(&path)?;
    let broken = format!("{written}\n[[[\n");
    fs::write(&path, &broken)?;
    machine.expect(&["off"], 1, "cannot be read any more, so it stays as it is")?;
    ensure!(
        fs::read_to_string(&path)? == broken,
        "a broken file was changed"
    );
    // When it is mended the rest is done.
    fs::write(&path, &written)?;
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after the broken file was mended")?;
    Ok("taken out, and told".to_owned())
}

/// Whether the guard's rules are in place.
fn is_guarded(machine: &Machine) -> Result<bool> {
    let tables = machine.world.gateway.shell("nft list tables")?;
    Ok(tables.contains("cygnet_guard"))
}

fn beside_hand(lab: &mut Lab) -> Result<String> {
    const STILL: &str = "[gateway] is still in ";
    let machine = Machine::new(lab)?;
    let said = machine.expect(&["off"], 0, "this machine is no gateway")?;
    ensure!(!said.contains("in clear"), "{said}");
    let path = machine.cygnet.config_path();
    let tunnel = fs::read_to_string(&path)?;
    let by_hand = format!("{tunnel}\n[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n");
    fs::write(&path, &by_hand)?;
    machine.expect(&["on"], 0, "the guard is on")?;
    machine.systemctl(&["start", "cygnet.service"])?;
    let said = machine.expect(&["off"], 0, STILL)?;
    ensure!(
        said.contains("may pass in clear") && !is_guarded(&machine)?,
        "{said}"
    );
    // A setup of what was there by hand.
    machine.expect(&["on"], 0, "the guard is on")?;
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    let said = machine.expect(&["off"], 0, STILL)?;
    ensure!(
        said.contains("is taken back") && !said.contains("are offline") && !is_guarded(&machine)?,
        "{said}"
    );
    let now = fs::read_to_string(&path)?;
    ensure!(now == by_hand, "it is now:\n{now}");
    let guard = machine.cygnet.directory().join("state/guard.json");
    ensure!(!guard.exists(), "the next start would put the guard back");
    // Taken out by hand, with the guard in place.
    machine.reload()?;
    ensure!(is_guarded(&machine)?, "no guard after a reload");
    fs::write(&path, &tunnel)?;
    machine.reload()?;
    let mut typist = Typist::start(&machine, &[])?;
    typist.takes_defaults()?;
    typist.types("y\n")?;
    typist.answers("Keep this?", "n")?;
    typist.reads("Taken back: all is as before.")?;
    let code = typist.ends()?;
    ensure!(code == 1 && is_guarded(&machine)?, "it ended with {code}");
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    let said = machine.expect(&["off"], 0, "is taken back")?;
    ensure!(
        !said.contains(", but:") && !said.contains(STILL) && !is_guarded(&machine)?,
        "{said}"
    );
    // A file that cannot be read any more, beside a program that ran before.
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    let broken = fs::read_to_string(&path)?.replace("tunnel = \"home\"", "tunnel = home");
    fs::write(&path, &broken)?;
    let said = machine.expect(&["off"], 1, "cygnet runs on as a gateway")?;
    ensure!(
        said.contains("is taken back, but:")
            && said.contains("stays as it is")
            && !said.contains("quotation")
            && !is_guarded(&machine)?,
        "{said}"
    );
    Ok("the guard is off each time, and what is left is told".to_owned())
}

fn twice(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::with_two_legs(lab)?;
    let before_both = machine.known()?;
    machine.expect(&["setup", "--yes", "--lan", "eth0"], 0, "Kept.")?;
    online(&machine.world.laptop, &[WEB, WEB6])?;
    machine.remember()?;
    let config = machine.cygnet.config_path();
    let first = fs::read_to_string(&config)?;
    // The second is not confirmed.
    let mut typist = Typist::start(&machine, &["--lan", "eth1", "--within", "5"])?;
    for question in [
        "Through which tunnel?",
        "Which devices go through",
        "Which of them go beside",
        "Which have no internet",
        "Answer the devices' questions",
        "Lend addresses",
        "Advertise this machine as IPv6 router",
    ] {
        typist.answers(question, "")?;
    }
    let plan = typist.reads("Go on? [n]: ")?;
    ensure!(
        plan.contains("- lan = \"eth0\"") && plan.contains("+ lan = \"eth1\""),
        "{plan}"
    );
    typist.types("y\n")?;
    typist.reads("Keep this?")?;
    typist.reads("It was not confirmed.")?;
    let code = typist.ends()?;
    ensure!(code == 1, "it ended with {code}");
    machine.watcher_has_ended()?;
    ensure!(
        fs::read_to_string(&config)? == first,
        "the configuration is not that of the first setup"
    );
    online(&machine.world.laptop, &[WEB, WEB6])?;
    // The third is confirmed.
    machine.expect(&["setup", "--yes", "--lan", "eth1"], 0, "Kept.")?;
    online(machine.inside()?, &[WEB, WEB6])?;
    machine.expect(&["off"], 0, "is taken back")?;
    before_both.expect_same(&machine.known()?, "after `gateway off`")?;
    Ok("back to the first, then to before both".to_owned())
}

fn without_systemd(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::without_systemd(lab)?;
    machine.cygnet.restart()?;
    let up = |cygnet: &Cygnet| {
        wait_for("the tunnel is up", SOON, || {
            Ok((cygnet.connection("home")?.state == "up").then_some(()))
        })
    };
    up(&machine.cygnet)?;
    let pid = machine.cygnet.pid();
    let history = machine.cygnet.directory().join("state/history.json");
    wait_for("the history is written", SOON, || {
        Ok(history.exists().then_some(()))
    })?;
    machine.remember()?;
    let said = machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    for part in [
        "there is no systemd here",
        "gateway on --config",
        "cygnet has read its configuration again",
    ] {
        ensure!(said.contains(part), "it does not say \"{part}\":\n{said}");
    }
    online(&machine.world.laptop, &[WEB, WEB6])?;
    machine.expect(&["off"], 0, "is taken back")?;
    up(&machine.cygnet)?;
    ensure!(machine.cygnet.pid() == pid, "another cygnet runs");
    machine.is_as_before("after `gateway off`")?;
    Ok("reloaded twice, and as before".to_owned())
}

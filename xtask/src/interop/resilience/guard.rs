//! The guard alone: before the program starts, while the tunnel is down, after the program ended,
//! and with either of its layers flushed by somebody else.

use super::super::Scenario;
use super::crash::expect_guard;
use super::home::{
    FLUSH_RULES, GATEWAY6, Home, QUICK, SOON, WEB6, flush_kernel, gateway_setup, guard, reaches_web,
};
use super::restless::Restless;
use super::talker::Talker;
use crate::lab::link::counter;
use crate::lab::world::{GATEWAY, LAN, WEB};
use crate::lab::{Failure, Lab, Result, wait_for};
use crate::{ensure, project};
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "guard-before-start",
            "`cygnet gateway on` before anything runs: closed; without it the same traffic leaks",
            before_start,
        ),
        Scenario::new(
            "guard-while-down",
            "`cygnet down`: closed until `cygnet up`",
            while_down,
        ),
        Scenario::new(
            "guard-gone-device",
            "what came through the tunnel for a device that is gone: no ICMP error tells of it in clear",
            gone_device,
        ),
        Scenario::new(
            "guard-errors-come-in",
            "what routers behind the tunnel tell a device reaches it: time exceeded, over both families",
            errors_come_in,
        ),
        Scenario::new(
            "guard-nearer-route",
            "somebody routes half of the LAN elsewhere: answers of the tunnel do not go there in clear",
            nearer_route,
        ),
        Scenario::new(
            "guard-lent-address",
            "the lent address is reached through the tunnel alone: a neighbour gets no answer from it",
            lent_address,
        ),
        Scenario::new(
            "guard-after-term",
            "SIGTERM: closed, for the box itself as well; the LAN goes on working",
            after_term,
        ),
        Scenario::new(
            "guard-foreign-flush",
            "a foreign `nft flush ruleset` opens nothing, up or down, and what it broke is mended",
            foreign_flush,
        ),
        Scenario::new(
            "guard-bad-hook",
            "a hook that hangs when the tunnel goes up and fails when it goes down opens nothing",
            bad_hook,
        ),
        Scenario::new(
            "guard-idle",
            "while nothing changes cygnet runs no `nft` to see whether its guard is there",
            idle,
        ),
        Scenario::new(
            "guard-rules-flushed",
            "the guard's `ip rule`s removed, with cygnet and without: the filter still holds",
            rules_flushed,
        ),
        Scenario::new(
            "guard-off-and-on",
            "`cygnet gateway off` while cygnet runs: not put back, but told; `gateway on` is seen",
            off_and_on,
        ),
        Scenario::new(
            "guard-broken-configuration",
            "`gateway on` with a missing certificate, and with a text that is no TOML: closed, and told",
            broken_configuration,
        ),
        Scenario::new(
            "guard-off-leaks",
            "control run: `guard = false` carries while the tunnel is up, and leaks once cygnet is gone",
            no_guard,
        ),
    ]
}

fn before_start(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    // The phone alone: it will have been told by redirects of a shorter way.
    let phone = Restless::start(&home.world.phone)?;
    phone.flows()?;
    drop(phone);
    let without = home.leaked()?;
    ensure!(
        without > 50,
        "without the guard only {without} packets leaked"
    );

    let before = home.state()?;
    guard(&home.gateway, "on")?;
    let once = home.state()?;
    expect_guard(&once, "after `cygnet gateway on`")?;
    guard(&home.gateway, "on")?;
    once.expect_same(&home.state()?, "after a second `cygnet gateway on`")?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.tries_on()?;
    home.nothing_leaked("before cygnet runs")?;
    // The LAN itself, and the box, are not concerned.
    home.world
        .laptop
        .exec(["ping", "-n", "-c1", "-W2", GATEWAY])?;
    home.world
        .laptop
        .exec(["ping", "-n", "-c1", "-W2", "192.168.1.21"])?;
    home.gateway.restart()?;
    laptop.flows()?;
    home.nothing_leaked("from `gateway on` to the first page")?;
    home.gateway.stop()?;
    laptop.tries_on()?;
    home.nothing_leaked("after SIGTERM")?;
    guard(&home.gateway, "off")?;
    before.expect_same(&home.state()?, "after `cygnet gateway off`")?;
    Ok(format!(
        "{without} packets leaked without the guard, none with it"
    ))
}

fn while_down(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.gateway.down("home")?;
    ensure!(
        home.gateway.connection("home")?.state == "down",
        "the tunnel is not down"
    );
    laptop.tries_on()?;
    ensure!(
        !reaches_web(&home.world.phone)?,
        "the phone is online although the tunnel is down"
    );
    home.nothing_leaked("while the tunnel is down")?;
    home.gateway.up("home")?;
    laptop.flows()?;
    home.nothing_leaked("around `up`")?;
    Ok(format!("{} datagrams, none in clear", laptop.datagrams()))
}

/// Answers come for a device that the box no longer finds. The kernel gives up looking after three
/// seconds, when the tunnel is down: its "host unreachable" would show in clear whom the device talked to.
fn gone_device(lab: &mut Lab) -> Result<String> {
    const DEVICE: [&str; 2] = ["192.168.1.20", "fd00:192:168:1::20"];
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let (laptop, box_) = (&home.world.laptop, &home.world.gateway);
    let talkers = [
        Talker::start(&home.world.web, laptop, WEB)?,
        Talker::start(&home.world.web, laptop, WEB6)?,
    ];
    laptop.ip("link set eth0 down")?;
    for address in DEVICE {
        box_.ip(&format!("neigh flush dev eth0 to {address}"))?;
    }
    let looked_for = |state: &str| -> Result<bool> {
        let listed = DEVICE.map(|to| box_.exec(["ip", "neigh", "show", "dev", "eth0", "to", to]));
        for entry in listed {
            if !entry?.contains(state) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    wait_for("the box looks for the device", SOON, || {
        Ok(looked_for("INCOMPLETE")?.then_some(()))
    })?;
    home.gateway.down("home")?;
    wait_for("the box gives up", SOON, || {
        Ok(looked_for("FAILED")?.then_some(()))
    })?;
    home.nothing_leaked("about a device that is gone")?;
    let sent: u64 = talkers.iter().map(Talker::sent).sum();
    Ok(format!(
        "{sent} datagrams for a device that is gone, no word of them in clear"
    ))
}

fn errors_come_in(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    // The box and the server are the first two; the router before the server is the third.
    for (to, router) in [(WEB, "192.0.2.17"), (WEB6, "2001:db8:18::1")] {
        let ping = ["ping", "-n", "-c1", "-W2", "-t3", to];
        let said = home.world.laptop.finish(ping)?.stdout;
        ensure!(
            said.contains("Time to live exceeded") || said.contains("Time exceeded"),
            "the laptop pings {to} with three hops, and {router} says nothing: {said}"
        );
        ensure!(said.contains(router), "not {router} answers: {said}");
    }
    Ok("the third hop answers over IPv4 and IPv6".to_owned())
}

/// As a provider can whose DHCP the box believes (option 121), with an interface that takes anything.
fn nearer_route(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, "own_traffic = \"all\"\n"))?;
    let box_ = &home.world.gateway;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    box_.ip("link add bait type veth peer name hole")?;
    box_.ip("addr add 203.0.113.77/32 dev bait")?;
    box_.ip("link set bait arp off up")?;
    box_.ip("link set hole up")?;
    box_.nft(
        "table netdev bait {\ncounter swallowed { }\nchain out {\n\
         type filter hook egress device \"bait\" priority 0; policy accept;\n\
         ip daddr 192.168.1.0/24 counter name swallowed\n\
         ip6 daddr fd00:192:168:1::/64 counter name swallowed\n}\n}\n",
    )?;
    for half in ["192.168.1.0/25", "fd00:192:168:1::/65"] {
        box_.ip(&format!("route add {half} dev bait"))?;
    }
    laptop.tries_on()?;
    let list = ["nft", "-j", "list", "counters", "table", "netdev", "bait"];
    let swallowed = || counter(&box_.exec(list)?, "swallowed");
    ensure!(
        swallowed()? == 0,
        "{} packets for the LAN left by another interface",
        swallowed()?
    );
    // It would have been seen: what the box says itself does go there.
    box_.finish(["ping", "-n", "-c1", "-W1", "192.168.1.20"])?;
    ensure!(
        swallowed()? > 0,
        "nothing is counted at the other interface"
    );
    box_.ip("link del bait")?;
    laptop.flows()?;
    Ok("offline meanwhile, and nothing in clear".to_owned())
}

fn lent_address(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let sas = home.gateway.connection("home")?.ike_sas;
    let lent = sas.into_iter().flat_map(|sa| sa.virtual_addresses);
    let (phone, box_) = (&home.world.phone, &home.world.gateway);
    let mut asked = Vec::new();
    for address in lent {
        let via = if address.contains(':') {
            GATEWAY6
        } else {
            GATEWAY
        };
        phone.ip(&format!("route add {address} via {via}"))?;
        // The box itself reaches it, and by its own name it answers the phone.
        box_.exec(["ping", "-n", "-c1", "-W2", &address])?;
        phone.exec(["ping", "-n", "-c1", "-W2", via])?;
        let told = phone.finish(["ping", "-n", "-c2", "-i0.2", "-W1", &address])?;
        ensure!(!told.success(), "the phone hears from {address} on the LAN");
        if !address.contains(':') {
            // Nor does it tell whose it is.
            let asks =
                |whom: &str| phone.finish(["busybox", "arping", "-c2", "-w3", "-I", "eth0", whom]);
            let own = asks(GATEWAY)?;
            ensure!(own.success(), "ARP for {GATEWAY}: {}", own.stdout);
            let lent = asks(&address)?;
            ensure!(!lent.success(), "ARP for {address}: {}", lent.stdout);
        }
        asked.push(address);
    }
    ensure!(asked.len() == 2, "only {asked:?} were lent");
    Ok(format!("{} are silent on the LAN", asked.join(" and ")))
}

fn after_term(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.gateway.stop()?;
    expect_guard(&home.state()?, "after SIGTERM")?;
    laptop.tries_on()?;
    home.nothing_leaked("after SIGTERM")?;
    // The box itself goes no other way than its devices.
    ensure!(
        !reaches_web(&home.world.gateway)?,
        "the box itself reaches the internet in clear after SIGTERM"
    );
    home.nothing_leaked("from the box after SIGTERM")?;
    home.world
        .laptop
        .exec(["ping", "-n", "-c1", "-W2", GATEWAY])?;
    Ok(format!("{} datagrams, none in clear", laptop.datagrams()))
}

fn foreign_flush(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let clean = home.state()?;
    let box_ = home.world.gateway.clone();
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    // While the tunnel is up: translation and MSS are gone as well, and come back by themselves. Twice: without being told
    // of it, cygnet would look again after half a minute only, and had just looked before the second time.
    let mut mended = Duration::ZERO;
    for _ in 0..2 {
        let flushed = Instant::now();
        box_.exec(["nft", "flush", "ruleset"])?;
        wait_for("cygnet mends what was flushed", SOON, || {
            Ok((home.state()? == clean).then_some(()))
        })
        .map_err(|failure| match home.state() {
            Ok(now) => failure.while_doing(clean.difference(&now)),
            Err(other) => other,
        })?;
        mended = flushed.elapsed();
    }
    laptop.tries_on()?;
    home.nothing_leaked("after `nft flush ruleset` with the tunnel up")?;
    laptop.flows()?;
    // While it is down.
    home.gateway.down("home")?;
    box_.exec(["nft", "flush", "ruleset"])?;
    laptop.tries_on()?;
    home.nothing_leaked("after `nft flush ruleset` with the tunnel down")?;
    // And when nobody runs.
    home.gateway.stop()?;
    guard(&home.gateway, "on")?;
    box_.exec(["nft", "flush", "ruleset"])?;
    laptop.tries_on()?;
    home.nothing_leaked("after `nft flush ruleset` without cygnet")?;
    home.gateway.restart()?;
    laptop.flows()?;
    expect_guard(&home.state()?, "after the next start")?;
    home.nothing_leaked("up to the next start")?;
    Ok(format!(
        "{} datagrams, none in clear; mended after {:.1} s",
        laptop.datagrams(),
        mended.as_secs_f32()
    ))
}

fn bad_hook(lab: &mut Lab) -> Result<String> {
    let body = "case \"$PLUTO_VERB\" in\nup-*) sleep 1000 ;;\nesac\nexit 1";
    let hook = lab.script("bad", body)?;
    let lines = format!(
        "{QUICK}hook = \"{}\"\nhook_timeout = \"1s\"\n",
        hook.display()
    );
    let home = Home::start(lab, &gateway_setup(&lines, ""))?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.gateway
        .wait_for_log("did not end within 1.0 s", SOON)?;
    home.gateway.down("home")?;
    home.gateway.wait_for_log("failed with exit code 1", SOON)?;
    laptop.tries_on()?;
    expect_guard(&home.state()?, "with a hook that fails")?;
    home.nothing_leaked("with the tunnel down and a hook that fails")?;
    home.gateway.up("home")?;
    laptop.flows()?;
    home.nothing_leaked("with a hook that hangs")?;
    Ok(format!("{} datagrams, none in clear", laptop.datagrams()))
}

/// Page faults of the processes that this one has started and that have ended: each makes hundreds.
fn faults_of_children(process: u32) -> Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let field = fields.split(' ').nth(8).map(str::to_owned);
    field.ok_or_else(|| Failure::new(format!("no such field in {stat}")))
}

fn idle(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let supervisor = home.gateway.status()?.processes.supervisor;
    // What it has just set it looks at once more.
    crate::lab::interrupt::pause(Duration::from_secs(8))?;
    let before = faults_of_children(supervisor)?;
    crate::lab::interrupt::pause(Duration::from_secs(12))?;
    let after = faults_of_children(supervisor)?;
    let warnings = home.gateway.status()?.warnings;
    ensure!(
        before == after,
        "it ran other programs: {before}, then {after} page faults; it warns of {warnings:?}"
    );
    Ok("no other program in 12 s".to_owned())
}

fn rules_flushed(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.gateway.down("home")?;
    home.world.gateway.shell(FLUSH_RULES)?;
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.tries_on()?;
    home.nothing_leaked("with the guard's rules removed and the tunnel down")?;
    // docs/api.md: a part that another program removed is put back.
    wait_for("the guard's rules are back", SOON, || {
        Ok(expect_guard(&home.state()?, "").is_ok().then_some(()))
    })?;
    home.gateway.stop()?;
    // What is left without cygnet is the filter, and the kernel's own idea of a shorter way.
    home.world.gateway.shell(FLUSH_RULES)?;
    let fresh = Restless::start(&home.world.phone)?;
    fresh.tries_on()?;
    laptop.tries_on()?;
    home.nothing_leaked("with the guard's rules removed and no cygnet")?;
    guard(&home.gateway, "on")?;
    expect_guard(&home.state()?, "after `cygnet gateway on`")?;
    Ok(format!("{} datagrams, none in clear", laptop.datagrams()))
}

fn off_and_on(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let state_of_guard = |home: &Home| -> Result<(String, String)> {
        let said = home.gateway.command(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&said)?;
        let guard = status["guard"].as_str().unwrap_or_default();
        Ok((guard.to_owned(), status["warnings"].to_string()))
    };
    let wait_for_guard = |home: &Home, wanted: &str| {
        wait_for(&format!("the guard is {wanted}"), SOON, || {
            let (guard, warnings) = state_of_guard(home)?;
            Ok((guard == wanted).then_some(warnings))
        })
    };
    wait_for_guard(&home, "on")?;
    // Whoever asks right behind it hears what is true.
    let is_guard = |home: &Home, wanted: &str| -> Result<()> {
        let (guard, warnings) = state_of_guard(home)?;
        let warned = warnings.contains("`cygnet gateway on` puts it back");
        ensure!(
            guard == wanted && warned == (wanted == "missing"),
            "at once it is {guard}, and not {wanted}: {warnings}"
        );
        Ok(())
    };
    for _ in 0..3 {
        guard(&home.gateway, "off")?;
        is_guard(&home, "missing")?;
        guard(&home.gateway, "on")?;
        is_guard(&home, "on")?;
    }
    guard(&home.gateway, "off")?;
    let warning = wait_for_guard(&home, "missing")?;
    ensure!(
        warning.contains("cygnet gateway on"),
        "the warning does not say what to do: {warning}"
    );
    ensure!(
        expect_guard(&home.state()?, "").is_err(),
        "the guard that the operator took away is back"
    );
    home.online(&home.world.laptop)?;
    guard(&home.gateway, "on")?;
    wait_for_guard(&home, "on")?;
    // A configuration without a gateway leaves the guard; that is told.
    home.gateway.stop()?;
    let mut setup = gateway_setup(QUICK, "");
    if let Some(at) = setup.config.find("[gateway]") {
        setup.config.truncate(at);
    }
    home.gateway.write(&setup)?;
    home.gateway.restart()?;
    expect_guard(&home.state()?, "without a [gateway] section")?;
    let (guard, warnings) = state_of_guard(&home)?;
    ensure!(
        guard == "not-configured" && warnings.contains("cygnet gateway off"),
        "the guard is {guard}, the warnings are {warnings}"
    );
    Ok(warnings)
}

fn broken_configuration(lab: &mut Lab) -> Result<String> {
    let good = gateway_setup(QUICK, "");
    let mut missing = good.clone();
    missing.config = good.config.replace(
        "psk = \"psk\"",
        "certificate = \"gone.crt\"\nkey = \"gone.key\"\nca = \"gone.ca\"",
    );
    let mut unreadable = good.clone();
    unreadable.config = good.config.replace("lan = \"eth0\"", "lan = \"eth");
    let home = Home::prepare(lab, &missing)?;
    let on = || -> Result<(Option<i32>, String)> {
        let (program, config) = (project::cygnet(), home.gateway.config_path());
        let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
        let finished = home
            .world
            .gateway
            .finish([&*program, "gateway", "on", "--config", &*config])?;
        Ok((finished.status.code(), finished.stderr))
    };
    // The laptop is silent while there is no guard: what it began then, the web host would go on with.
    let closed = |when: &str| -> Result<()> {
        expect_guard(&home.state()?, when)?;
        home.world.provider.reset()?;
        Restless::start(&home.world.laptop)?.tries_on()?;
        home.nothing_leaked(when)
    };
    // As at the start of the machine, when nothing was ever in place.
    let mut nothing = good.clone();
    nothing.config = "[[[\n".to_owned();
    home.gateway.write(&nothing)?;
    let (code, said) = on()?;
    ensure!(
        code == Some(2) && said.contains("may pass in clear"),
        "nothing is known of any guard: {code:?}, {said}"
    );
    home.gateway.write(&missing)?;
    let (code, said) = on()?;
    ensure!(
        code == Some(0) && said.contains("gone.crt"),
        "a certificate is missing: {code:?}, {said}"
    );
    closed("with a missing certificate")?;
    // The next start of the machine: nothing in the kernel, and the text is no TOML.
    flush_kernel(&home.world.gateway)?;
    ensure!(
        expect_guard(&home.state()?, "").is_err(),
        "the guard is there although all was flushed"
    );
    home.gateway.write(&unreadable)?;
    let (code, said) = on()?;
    ensure!(
        code == Some(1) && said.contains("last in place"),
        "the text is no TOML: {code:?}, {said}"
    );
    closed("with a text that is no TOML")?;
    // Taken away on purpose, it is not put back.
    guard(&home.gateway, "off")?;
    home.gateway.write(&nothing)?;
    let (code, _) = on()?;
    ensure!(code == Some(2), "after `gateway off`: {code:?}");
    ensure!(
        expect_guard(&home.state()?, "").is_err(),
        "the guard is back after `gateway off`"
    );
    Ok("closed by what can be read, and by what was last in place".to_owned())
}

fn no_guard(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, "guard = false\n"))?;
    home.gateway.restart()?;
    home.up_before_online(&home.world.laptop)?;
    ensure!(
        !home.state()?.has("nft", "cygnet_guard"),
        "there is a guard although the configuration says `guard = false`"
    );
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.nothing_leaked("without a guard, with the tunnel up")?;
    home.gateway.kill_supervisor()?;
    laptop.flows()?;
    let leaked = home.leaked()?;
    ensure!(
        leaked > 50,
        "without a guard only {leaked} packets of {LAN} left in clear"
    );
    Ok(format!("{leaked} packets in clear were counted"))
}

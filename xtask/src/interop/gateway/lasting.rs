//! Policies outlive restarts and crashes, and fail closed where they cannot be known.

use super::super::Scenario;
use super::super::resilience::home::{
    FLUSH_RULES, Home, QUICK, SOON, gateway_setup, guard, reaches_web,
};
use super::super::resilience::restless::Restless;
use super::{another_device, blocked, direct, listed, told};
use crate::ensure;
use crate::lab::{Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-crash",
            "SIGKILL, SIGTERM, `gateway on` and the next start: direct stays direct, blocked blocked, tunnelled closed",
            crash,
        ),
        Scenario::new(
            "gateway-flush",
            "`nft flush ruleset`, or all rules deleted, with and without cygnet: nobody goes direct or out who may not",
            flush,
        ),
        Scenario::new(
            "gateway-unreadable",
            "a file of policies that is not understood: nobody goes direct, it says so, and the file stays as it is",
            unreadable,
        ),
    ]
}

fn crash(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let untouched = listed(&home)?;
    ensure!(untouched.problem.is_none(), "{untouched:?}");
    home.gateway
        .command(&["device", "set", &phone.mac()?, "direct"])?;
    home.gateway
        .command(&["device", "set", &tv.mac()?, "blocked"])?;
    let all_as_ordered = |home: &Home, when: &str, online: bool| -> Result<()> {
        let as_ordered = || {
            direct(&phone)?;
            blocked(&tv)?;
            match online {
                true => home.online(&laptop),
                false => {
                    ensure!(!reaches_web(&laptop)?, "the laptop is online");
                    Ok(())
                }
            }
        };
        as_ordered().map_err(|failure| failure.while_doing(when))
    };
    all_as_ordered(&home, "at first", true)?;
    home.gateway.kill_supervisor()?;
    all_as_ordered(&home, "after SIGKILL", false)?;
    home.world.provider.reset()?;
    let busy = [Restless::start(&laptop)?, Restless::start(&tv)?];
    for busy in &busy {
        busy.tries_on()?;
    }
    home.nothing_leaked("after SIGKILL")?;
    home.gateway.restart()?;
    busy[0].flows()?;
    busy[1].tries_on()?;
    home.nothing_leaked("up to the next start")?;
    all_as_ordered(&home, "after the next start", true)?;
    let listed = told(&home, &tv.mac()?)?;
    ensure!(
        listed.policy == "blocked" && listed.from == "command",
        "{listed:?}"
    );
    // What the guard does by itself, in a world that forwards.
    home.gateway.stop()?;
    guard(&home.gateway, "on")?;
    all_as_ordered(&home, "by the guard alone", false)?;
    home.world.provider.reset()?;
    for busy in &busy {
        busy.tries_on()?;
    }
    home.nothing_leaked("by the guard alone")?;
    home.gateway.restart()?;
    home.gateway.kill_engine()?;
    all_as_ordered(&home, "after a crash of the engine", true)?;
    Ok("as ordered after SIGKILL of either process, SIGTERM and by the guard alone".to_owned())
}

fn flush(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let policies = format!(
        "direct = \"{}\"\nblocked = \"{}\"\n",
        phone.mac()?,
        tv.mac()?
    );
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.restart()?;
    home.online(&laptop)?;
    direct(&phone)?;
    let clean = home.state()?;
    let box_ = home.world.gateway.clone();
    let closed = [Restless::start(&laptop)?, Restless::start(&tv)?];
    let no_leak = |home: &Home, when: &str| -> Result<()> {
        for busy in &closed {
            busy.tries_on()?;
        }
        home.nothing_leaked(when)
    };
    closed[0].flows()?;
    home.world.provider.reset()?;
    box_.exec(["nft", "flush", "ruleset"])?;
    no_leak(&home, "after `nft flush ruleset`")?;
    wait_for("cygnet mends what was flushed", SOON, || {
        Ok((home.state()? == clean).then_some(()))
    })?;
    direct(&phone)?;
    home.count_anew()?;
    box_.shell(FLUSH_RULES)?;
    no_leak(&home, "with the guard's rules removed")?;
    // The guard's table is made anew with them, so it stands elsewhere in the listing.
    wait_for("cygnet mends the rules", SOON, || {
        let same = clean.difference(&home.state()?).is_order_alone();
        Ok(same.then_some(()))
    })?;
    ensure!(closed[1].pages() == 0, "the blocked device got pages");
    home.gateway.stop()?;
    // By the filter alone; then by the rules alone, when the direct device is closed in as well.
    box_.shell(FLUSH_RULES)?;
    direct(&phone)?;
    home.count_anew()?;
    no_leak(&home, "with the guard's rules removed and no cygnet")?;
    guard(&home.gateway, "on")?;
    box_.exec(["nft", "flush", "ruleset"])?;
    home.world.provider.reset()?;
    let phones = Restless::start(&phone)?;
    phones.tries_on()?;
    no_leak(&home, "after `nft flush ruleset` without cygnet")?;
    drop(phones);
    home.gateway.restart()?;
    direct(&phone)?;
    home.online(&laptop)?;
    blocked(&tv)?;
    let datagrams: u64 = closed.iter().map(Restless::datagrams).sum();
    Ok(format!("{datagrams} datagrams, none in clear"))
}

fn unreadable(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let policies = format!(
        "direct = \"{}\"\nblocked = \"{}\"\ndirect_networks = [\"198.51.100.0/24\"]\n",
        laptop.mac()?,
        tv.mac()?
    );
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.restart()?;
    home.gateway
        .command(&["device", "set", &phone.mac()?, "direct"])?;
    direct(&laptop)?;
    direct(&phone)?;
    let file = home.gateway.directory().join("state/devices.json");
    let good = std::fs::read_to_string(&file)?;
    home.gateway.kill_supervisor()?;
    let bad = good.replace("\"direct\"", "\"dir");
    std::fs::write(&file, &bad)?;
    let on = home.gateway.configured(&["gateway", "on"])?;
    ensure!(
        on.status.code() == Some(1) && on.stderr.contains("devices.json: "),
        "`gateway on`: {:?}, {}",
        on.status.code(),
        on.stderr
    );
    home.gateway.restart()?;
    for device in [&laptop, &phone] {
        home.online(device)?;
    }
    blocked(&tv)?;
    home.gateway.wait_for_warning("devices.json: ", SOON)?;
    let problem = listed(&home)?.problem.unwrap_or_default();
    ensure!(
        problem.contains("cygnet reload"),
        "the list says: {problem}"
    );
    let order = home
        .gateway
        .control(&["device", "set", "192.168.1.21", "direct"])?;
    ensure!(
        order.status.code() == Some(2) && order.stderr.contains("devices.json: "),
        "an order is taken: {order:?}"
    );
    ensure!(
        std::fs::read_to_string(&file)? == bad,
        "the file is not as it was"
    );
    std::fs::write(&file, &good)?;
    home.gateway.reload()?;
    direct(&laptop)?;
    direct(&phone)?;
    Ok("closed, told, and mended by a reload".to_owned())
}

//! `on_failure = "direct"`: who is tunnelled goes direct while the tunnel is down, and not a moment longer.

use super::super::Scenario;
use super::super::resilience::home::{Home, QUICK, SOON, check, gateway_setup, reaches_web};
use super::super::resilience::restless::Restless;
use super::changes::AT_ONCE;
use super::{blocked, direct, listed};
use crate::ensure;
use crate::lab::{Lab, Result, interrupt, wait_for};
use std::time::Duration;

/// They are let out some 15 s after the tunnel is down.
const OUT: Duration = Duration::from_secs(60);

/// What the web host sends once more (a SYN-ACK after a second, RFC 6298 §2) is answered by the box itself when the
/// connection is no longer known.
const REPEATED: Duration = Duration::from_secs(2);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-on-failure",
            "with `on_failure = \"direct\"` tunnelled devices go direct while the tunnel is down, and back at once; a crash closes",
            let_out,
        ),
        Scenario::new(
            "gateway-on-failure-default",
            "without it they stay closed in, however long the tunnel is down",
            closed,
        ),
    ]
}

fn is_let_out(home: &Home) -> Result<bool> {
    Ok(home.gateway.whole_status()?["let_out"] == true)
}

fn wait_until_out(home: &Home, out: bool) -> Result<()> {
    let what = format!("tunnelled devices are let out: {out}");
    wait_for(&what, OUT, || Ok((is_let_out(home)? == out).then_some(())))
}

fn let_out(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let section = format!("on_failure = \"direct\"\nblocked = \"{}\"\n", phone.mac()?);
    home.gateway.write(&gateway_setup(QUICK, &section))?;
    let told = check(&home.gateway)?;
    ensure!(told.stdout.contains("GO DIRECT, IN CLEAR"), "{told:?}");
    home.gateway.restart()?;
    home.online(&laptop)?;
    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    busy.flows()?;
    // A tunnel that is up again within a moment was not down.
    home.gateway.kill_engine()?;
    busy.flows()?;
    home.nothing_leaked("while the engine was started again")?;

    home.server.stop()?;
    wait_for("the tunnel is down", SOON, || {
        let state = home.gateway.connection("home")?.state;
        Ok((state != "up").then_some(()))
    })?;
    busy.tries_on()?;
    if !is_let_out(&home)? {
        // Had they been let out in between, the status would have said so.
        let leaked = home.leaked()?;
        ensure!(
            leaked == 0 || is_let_out(&home)?,
            "{leaked} packets before they were let out"
        );
    }
    wait_until_out(&home, true)?;
    direct(&laptop)?;
    // The box itself is no better off than they are.
    direct(&home.world.gateway)?;
    busy.flows()?;
    blocked(&phone)?;
    home.gateway.wait_for_warning("go direct, in clear", SOON)?;
    let last = home.gateway.status()?.history_of("home");
    ensure!(last.iter().any(|change| change.what == "open"), "{last:?}");
    let warned = listed(&home)?.warnings;
    ensure!(
        warned.iter().any(|warning| warning.contains("on_failure")),
        "{warned:?}"
    );

    // Back: connections that had been direct do not go on so.
    home.server.restart()?;
    home.gateway.up("home")?;
    wait_until_out(&home, false)?;
    interrupt::pause(REPEATED)?;
    home.world.provider.reset()?;
    busy.flows()?;
    busy.tries_on()?;
    home.nothing_leaked("of connections that had been direct, when the tunnel was up again")?;
    home.online(&laptop)?;
    home.online(&home.world.gateway)?;
    let last = home.gateway.status()?.history_of("home");
    ensure!(
        last.iter().any(|change| change.what == "closed"),
        "{last:?}"
    );

    // Nobody is left who knows that it is down.
    home.gateway.down("home")?;
    wait_until_out(&home, true)?;
    direct(&laptop)?;
    home.gateway.kill_supervisor()?;
    wait_for("the device is closed in", OUT, || {
        Ok((!reaches_web(&laptop)?).then_some(()))
    })?;
    interrupt::pause(AT_ONCE)?;
    home.world.provider.reset()?;
    busy.tries_on()?;
    home.nothing_left("some time after SIGKILL")?;
    // The next one lets out again, and whoever is told to end closes first.
    home.server.stop()?;
    home.gateway.restart()?;
    busy.tries_on()?;
    wait_until_out(&home, true)?;
    direct(&laptop)?;
    home.gateway.stop()?;
    interrupt::pause(REPEATED)?;
    home.world.provider.reset()?;
    busy.tries_on()?;
    home.nothing_leaked("after a stop")?;
    blocked(&phone)?;
    Ok(format!("{} pages, in the tunnel or let out", busy.pages()))
}

fn closed(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, "on_failure = \"blocked\"\n"))?;
    let laptop = home.world.laptop.clone();
    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    home.gateway.down("home")?;
    let begun = std::time::Instant::now();
    // Longer than it takes to let somebody out.
    while begun.elapsed() < Duration::from_secs(25) {
        busy.tries_on()?;
    }
    ensure!(!is_let_out(&home)?, "let out");
    home.nothing_leaked("while the tunnel is down")?;
    Ok(format!("{} datagrams, none in clear", busy.datagrams()))
}

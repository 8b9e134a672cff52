//! A gateway's tunnel that comes up when a device wants it.

use super::super::Scenario;
use super::super::recovery::asker::Asker;
use super::super::resilience::home::{Home, QUICK, SERVER6, SOON, gateway_setup};
use super::super::resilience::restless::Restless;
use crate::lab::world::SERVER;
use crate::lab::{Lab, Result, wait_for};
use std::time::Instant;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-on-demand",
            "with `start = \"traffic\"` a device brings the tunnel up, and again when its server was gone; nothing goes beside it",
            on_demand,
        ),
        Scenario::new(
            "gateway-on-demand-own",
            "with `start = \"traffic\"` what the box itself sends brings the tunnel up, and goes on in it",
            by_the_box,
        ),
    ]
}

fn on_demand(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(
        lab,
        &gateway_setup(&format!("start = \"traffic\"\n{QUICK}"), ""),
    )?;
    let laptop = home.world.laptop.clone();
    home.gateway.restart()?;
    home.world.provider.reset()?;
    // Two flows that never end, and began before there was an address to translate them to.
    let asker = Asker::start(&laptop, &home.world.web)?;
    let seen_as = [SERVER.parse()?, SERVER6.parse()?];
    asker.answered_since(Instant::now(), seen_as, SOON)?;
    let busy = Restless::start(&laptop)?;
    busy.flows()?;
    home.online(&laptop)?;
    home.server.stop()?;
    wait_for("the tunnel is down", SOON, || {
        let state = home.gateway.connection("home")?.state;
        Ok((state != "up").then_some(()))
    })?;
    busy.tries_on()?;
    home.server.restart()?;
    busy.flows()?;
    asker.answered_since(Instant::now(), seen_as, SOON)?;
    home.online(&laptop)?;
    home.nothing_leaked("before, between and after")?;
    Ok(format!("{} pages", busy.pages()))
}

fn by_the_box(lab: &mut Lab) -> Result<String> {
    let tunnel = format!("start = \"traffic\"\n{QUICK}");
    let mut home = Home::prepare(lab, &gateway_setup(&tunnel, ""))?;
    home.gateway.restart()?;
    home.world.provider.reset()?;
    // It began before there was an address to translate it to.
    let asker = Asker::start(&home.world.gateway, &home.world.web)?;
    let seen_as = [SERVER.parse()?, SERVER6.parse()?];
    asker.answered_since(Instant::now(), seen_as, SOON)?;
    home.nothing_leaked("from the box itself")?;
    Ok("answered through the tunnel".to_owned())
}

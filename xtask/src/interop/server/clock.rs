//! A machine that starts without the date asks time servers (chrony), and goes on by what they say.

use super::super::Scenario;
use super::super::resilience::home::{forwarding_world, start_behind};
use super::SOON;
use super::devices::{client, kit, list, server};
use super::fetched::{self, Publisher};
use crate::ensure;
use crate::lab::chrony::{Chrony, Says};
use crate::lab::cygnet::Cygnet;
use crate::lab::kept_clock::{self, Kept};
use crate::lab::world::WEB;
use crate::lab::{Lab, Process, Result, wait_for};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "time-servers",
            "a machine whose clock is 20 years behind waits, asks a time server again that does not know the time yet, \
             believes none that says 1970, comes up by one that is right, by its own clock as soon as that agrees, and \
             not by one that could be right and is not",
            time_servers,
        ),
        Scenario::new(
            "time-servers-disproven",
            "a date that time servers forge ends with a revocation list that is signed later, which is taken although it \
             is of the future by that date; the right one counts",
            disproven,
        ),
    ]
}

/// Time servers are asked again after 15 s, then 30 s, then a minute.
const ASKED_AGAIN: Duration = Duration::from_secs(150);

/// Starts it with a clock that is 20 years behind and that nobody keeps right, and the file that says so.
fn start_20_years_behind(box_: &Cygnet) -> Result<(Process, PathBuf)> {
    // Time that passes is not faked: somebody waits for it. What this file says counts at once.
    let offset = box_.directory().join("offset");
    std::fs::write(&offset, "-20y\n")?;
    // Whoever keeps the host's clock right says nothing of this one.
    let before = kept_clock::before(box_.directory(), Kept::ByNobody)?;
    let line = format!(
        "export FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 FAKETIME_TIMESTAMP_FILE={}; \
         exec {before} faketime -f '-20y' env -u FAKETIME \"$@\"",
        offset.display()
    );
    Ok((start_behind(&line, box_)?, offset))
}

/// Waits for a warning of `status`.
fn warned(box_: &Cygnet, process: &Process, what: &str, of: &str) -> Result<String> {
    let warned = wait_for(what, ASKED_AGAIN, || {
        let warnings = box_.status()?.warnings;
        Ok(warnings.into_iter().find(|warning| warning.contains(of)))
    });
    warned.map_err(|failure| failure.while_doing(process.log()))
}

/// What `status` says of the date of time servers.
fn clock(box_: &Cygnet, key: &str) -> Result<Value> {
    Ok(box_.whole_status()?["clock"][key].clone())
}

fn time_servers(lab: &mut Lab) -> Result<String> {
    let (authority, own, alice) = kit()?;
    let world = forwarding_world(lab)?;
    let _server = Cygnet::start(lab, &world.server, &server(&authority, &own, &list(&[])))?;
    let mut setup = client(&authority, &alice);
    setup.daemon = format!("time_servers = [\"{WEB}\"]\n");
    let box_ = Cygnet::prepare(lab, &world.gateway, &setup)?;
    // As a router that got its power back with the box.
    let started = Chrony::start(lab, &world.web, Says::Nothing)?;
    let (process, offset) = start_20_years_behind(&box_)?;
    let warned = |what: &str, of: &str| warned(&box_, &process, what, of);
    warned("it says that the clock is not set", "clock is not set")?;
    let unknown = warned("it says that nobody knows the date", "no time server says")?;
    ensure!(
        unknown.contains(&format!("{WEB}: it does not know the time itself")),
        "it says {unknown}"
    );
    started.stop();
    ensure!(
        box_.connection("home")?.state != "up",
        "it is up without a date"
    );

    let liar = Chrony::start(lab, &world.web, Says::Off("-56y"))?;
    let lied = warned("it says what the liar says", "says 1970-")?;
    let clock = |key: &str| clock(&box_, key);
    ensure!(clock("date")?.is_null(), "it believes {}", clock("date")?);
    ensure!(
        box_.connection("home")?.state != "up",
        "it is up by the liar's date"
    );
    liar.stop();

    let _right = Chrony::start(lab, &world.web, Says::Date)?;
    let up = wait_for("the tunnel is up", ASKED_AGAIN, || {
        Ok((box_.connection("home")?.state == "up").then_some(()))
    });
    up.map_err(|failure| failure.while_doing(process.log()))?;
    let told = warned("it says by whose date", "time from ")?;
    let expected = format!("time from {WEB}: this machine's clock is 20 years behind");
    ensure!(told.starts_with(&expected), "it says {told}");
    ensure!(
        clock("servers")? == serde_json::json!([WEB]),
        "{}",
        clock("servers")?
    );
    let kept = box_.directory().join("state/clock");
    ensure!(!kept.exists(), "what a time server says is kept");

    // Its own clock is set.
    std::fs::write(&offset, "+0\n")?;
    wait_for("its own clock counts", SOON, || {
        let clock = clock("date")?;
        let warnings = box_.status()?.warnings;
        let quiet = !warnings.iter().any(|warning| warning.contains("clock"));
        Ok((clock.is_null() && quiet).then_some(()))
    })?;
    ensure!(
        box_.connection("home")?.state == "up",
        "it is down once its clock is set"
    );

    // Nor does it count by ticking, if it is wrong in a way that it could be right by itself.
    std::fs::write(&offset, "+40d\n")?;
    let ahead = warned("it says by whose date", "time from ")?;
    ensure!(ahead.contains(" days ahead;"), "it says {ahead}");
    ensure!(
        box_.connection("home")?.state == "up",
        "it is down by a clock that is wrong"
    );
    Ok(format!("{lied}; {told}; {ahead}"))
}

/// A server whose date is forged, until it is told of a list that its authority has signed five days later.
fn disproven(lab: &mut Lab) -> Result<String> {
    const LATER: &str = "+5d";
    const DAY: i64 = 86_400;
    let (authority, own, _) = kit()?;
    let world = super::world(lab)?;
    let publisher = Publisher::new(lab, &authority)?;
    let _host = publisher.serve(&world.web)?;
    let mut setup = fetched::server(&authority, &own);
    setup.daemon = format!("time_servers = [\"{WEB}\"]\n");
    let server = Cygnet::prepare(lab, &world.server, &setup)?;
    let forger = Chrony::start(lab, &world.web, Says::Date)?;
    let (process, _) = start_20_years_behind(&server)?;
    let date = |what: &str| {
        let date = wait_for(what, ASKED_AGAIN, || Ok(clock(&server, "date")?.as_i64()));
        date.map_err(|failure| failure.while_doing(process.log()))
    };
    let forged = date("the forged date counts")?;

    publisher.publish_at(LATER, &[])?;
    server.reload()?;
    let told = warned(
        &server,
        &process,
        "it is disproven",
        "what time servers agree",
    )?;
    ensure!(clock(&server, "date")?.is_null(), "it counts still");
    ensure!(
        process
            .log()
            .contains("an authority in `ca` has signed later"),
        "what disproves it is not told: {}",
        process.log()
    );
    let list = std::fs::read(publisher.list())?;
    wait_for("the list is kept", SOON, || {
        let kept = fetched::kept(&server).ok();
        let kept = kept.and_then(|file| std::fs::read(file).ok());
        Ok((kept.as_ref() == Some(&list)).then_some(()))
    })?;
    forger.stop();

    let _right = Chrony::start(lab, &world.web, Says::Off(LATER))?;
    let right = date("the right date counts")?;
    ensure!(
        (5 * DAY..6 * DAY).contains(&(right - forged)),
        "it is {right}, and {forged} was forged"
    );
    Ok(told)
}

//! SIGKILL of either process, or both: nothing leaves in clear, nothing stays behind, and traffic
//! flows again without a hand.

use super::super::Scenario;
use super::home::{Home, QUICK, SOON, behind, gateway_setup, guard, reaches_web};
use super::restless::Restless;
use super::state::State;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::traffic::{ping, ping_until_answered};
use crate::lab::{Context, Failure, Lab, Result, interrupt, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine,
    Supervisor,
    Both,
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let victims = [
        (Victim::Engine, "engine", "the engine"),
        (Victim::Supervisor, "supervisor", "the supervisor"),
        (Victim::Both, "both", "engine and supervisor"),
    ];
    let mut all = Vec::new();
    for (victim, name, who) in victims {
        for (traffic, suffix, when) in [
            (true, "", "under traffic"),
            (false, "-idle", "without traffic"),
        ] {
            all.push(Scenario::new(
                format!("crash-{name}{suffix}"),
                format!("SIGKILL of {who} {when}: no leak, no stale state, online again"),
                move |lab| play(lab, victim, traffic),
            ));
        }
    }
    all.push(Scenario::new(
        "crash-anytime",
        "SIGKILL at many moments of start and end: each next start finds its way, and nothing stays",
        anytime,
    ));
    all.push(Scenario::new(
        "crash-site",
        "two offices: down, or killed, the other office's networks are unreachable, never in clear",
        site,
    ));
    all.push(Scenario::new(
        "crash-hang",
        "an engine that hangs (SIGSTOP) is ended and started again; status answers meanwhile",
        hang,
    ));
    all
}

/// Moments spread over a start that takes some hundred milliseconds, and over an end.
fn anytime(lab: &mut Lab) -> Result<String> {
    const MOMENTS: u64 = 16;
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let untouched = home.state()?;
    guard(&home.gateway, "on")?;
    let guarded = home.state()?;
    home.world.provider.reset()?;
    let restless = Restless::start(&home.world.laptop)?;
    for moment in 0..MOMENTS {
        let mut process = home
            .world
            .gateway
            .spawn_exec(behind("exec \"$@\"", &home.gateway))?;
        interrupt::pause(Duration::from_millis(moment * 25))?;
        if moment % 4 == 3 {
            process.signal(Signal::TERM)?;
            interrupt::pause(Duration::from_millis(moment))?;
        }
        process.kill();
        expect_guard(&home.state()?, "right after SIGKILL")?;
    }
    home.nothing_leaked("around many crashes")?;
    home.gateway.restart()?;
    restless.flows()?;
    home.gateway.stop()?;
    guarded.expect_same(&home.state()?, "after many crashes and one good end")?;
    home.nothing_leaked("at the end")?;
    guard(&home.gateway, "off")?;
    untouched.expect_same(&home.state()?, "after `cygnet gateway off`")?;
    Ok(format!(
        "{MOMENTS} crashes, {} datagrams, none in clear",
        restless.datagrams()
    ))
}

fn site(lab: &mut Lab) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    // Only one of them calls, or the other would bring back what is to be down.
    let start = |own: &Office, other: &Office, start: &str| {
        let setup = Setup::new(format!(
            "[tunnel.office]
remote = \"{}\"
psk = \"psk\"
start = \"{start}\"
local_networks = [\"{}\", \"{}\"]
remote_networks = [\"{}\", \"{}\"]
{QUICK}",
            other.outer4, own.lan4, own.lan6, other.lan4, other.lan6
        ));
        let setup = setup.file("psk", "correct horse battery staple\n");
        Cygnet::start(lab, &own.gateway, &setup)
    };
    let mut a = start(&offices.a, &offices.b, "always")?;
    let _b = start(&offices.b, &offices.a, "manual")?;
    let far = [offices.b.host4, offices.b.host6];
    let reach = |when: &str| -> Result<()> {
        for address in far {
            ping_until_answered(&offices.a.host, address, SOON).context(when)?;
        }
        Ok(())
    };
    let closed = |when: &str| -> Result<()> {
        for address in far {
            let report = ping(&offices.a.host, address, 3)?;
            ensure!(report.received == 0, "{when}: {address} answers");
        }
        let counted = offices.counters()?;
        ensure!(
            counted.leaked == 0,
            "{when}: {} packets between the offices in clear",
            counted.leaked
        );
        Ok(())
    };
    reach("at first")?;
    offices.reset_counters()?;
    a.down("office")?;
    closed("while the tunnel is down")?;
    a.up("office")?;
    reach("up again")?;
    a.kill_supervisor()?;
    closed("after SIGKILL")?;
    a.restart()?;
    reach("after the next start")?;
    let counted = offices.counters()?;
    ensure!(counted.leaked == 0, "in the end: {counted:?}");
    a.stop()?;
    let left = State::of(&offices.a.gateway)?;
    ensure!(
        !left.has("route", "proto 201") && !left.has("rule", "proto 201"),
        "SIGTERM leaves routes or rules"
    );
    Ok(format!(
        "{} packets in the tunnel, none in clear",
        counted.tunnel
    ))
}

fn hang(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    home.world.provider.reset()?;
    let engine = home.gateway.status()?.processes.engine;
    let pid = engine.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or_else(|| Failure::new("there is no engine"))?;
    kill_process(pid, Signal::STOP)?;
    let stopped = Instant::now();
    let status = home.gateway.whole_status()?;
    ensure!(
        status["engine"].is_null() && status["guard"] == "on",
        "the status while the engine hangs: {status}"
    );
    wait_for(
        "the engine is started again",
        Duration::from_secs(25),
        || Ok((home.gateway.status()?.engine_restarts == 1).then_some(())),
    )?;
    let noticed = stopped.elapsed();
    home.online(&home.world.laptop)?;
    home.nothing_leaked("while the engine hung")?;
    Ok(format!("noticed after {:.0} s", noticed.as_secs_f32()))
}

fn play(lab: &mut Lab, victim: Victim, traffic: bool) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let untouched = home.state()?;
    guard(&home.gateway, "on")?;
    let guarded = home.state()?;
    expect_guard(&guarded, "after `cygnet gateway on`")?;
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    let clean = home.state()?;

    home.world.provider.reset()?;
    let restless = if traffic {
        let restless = Restless::start(&home.world.laptop)?;
        restless.flows()?;
        Some(restless)
    } else {
        None
    };
    kill(&mut home, victim)?;
    expect_guard(&home.state()?, "right after SIGKILL")?;
    if victim != Victim::Engine {
        match &restless {
            Some(restless) => restless.tries_on()?,
            None => ensure!(
                !reaches_web(&home.world.laptop)?,
                "the laptop is online although cygnet is dead"
            ),
        }
        expect_guard(&home.state()?, "while cygnet is dead")?;
        home.nothing_leaked("while cygnet is dead")?;
        home.gateway.restart()?;
    }
    match &restless {
        Some(restless) => restless.flows().map_err(|failure| {
            failure.while_doing(format!("log of the gateway:\n{}\n", home.gateway.log()))
        })?,
        None => home.online(&home.world.laptop)?,
    }
    home.nothing_leaked("up to the next start")?;
    let difference = |now: &State| clean.difference(now).to_string();
    let mut last = String::new();
    wait_for("the state of a clean start", SOON, || {
        let now = home.state()?;
        last = difference(&now);
        Ok((now == clean).then_some(()))
    })
    .map_err(|failure| Failure::new(format!("{failure}: {last}")))?;
    let restarts = home.gateway.status()?.engine_restarts;
    ensure!(
        (restarts == 1) == (victim == Victim::Engine),
        "status counts {restarts} restarts of the engine"
    );

    home.gateway.stop()?;
    if let Some(restless) = &restless {
        restless.tries_on()?;
    }
    guarded.expect_same(&home.state()?, "after SIGTERM")?;
    ensure!(
        !home.gateway.socket().exists(),
        "the control socket is still there after SIGTERM"
    );
    home.nothing_leaked("after SIGTERM")?;
    guard(&home.gateway, "off")?;
    untouched.expect_same(&home.state()?, "after `cygnet gateway off`")?;
    Ok(match restless {
        Some(restless) => format!(
            "{} datagrams and {} pages of the laptop, none in clear",
            restless.datagrams(),
            restless.pages()
        ),
        None => "online again, nothing left behind".to_owned(),
    })
}

fn kill(home: &mut Home, victim: Victim) -> Result<()> {
    match victim {
        Victim::Engine => home.gateway.kill_engine(),
        Victim::Supervisor => home.gateway.kill_supervisor(),
        Victim::Both => {
            home.gateway.kill_engine()?;
            home.gateway.kill_supervisor()
        }
    }
}

/// Both layers are there.
pub(super) fn expect_guard(state: &State, when: &str) -> Result<()> {
    let filter = state.has("nft", "table inet cygnet_guard") && state.has("nft", "counter drop");
    let lookups = state.has("rule", "102:") && state.has("rule6", "102:");
    let ends = state.has("route", "unreachable default table")
        && state.has("route6", "unreachable default");
    ensure!(
        filter && lookups && ends,
        "the guard is not whole {when}: filter {filter}, rules {lookups}, routes {ends}"
    );
    Ok(())
}

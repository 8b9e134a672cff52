//! What was kept comes back by itself: the machine starts anew, and systemd starts what is enabled and nothing else.

use super::super::super::Scenario;
use super::super::super::resilience::home::{GATEWAY6, SERVER6, SOON, WEB6, reaches_web, seen_by};
use super::machine::Machine;
use crate::ensure;
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Exec, Lab, Namespace, Result, wait_for};
use std::fs;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "setup-boot",
        "after a confirmed setup the machine starts anew: closed from the guard on, online once cygnet runs, IPv4 and IPv6",
        boot,
    )]
}

/// In the order in which the units want to be started; what is not enabled is left out.
const ORDER: [&str; 2] = ["cygnet-guard.service", "cygnet.service"];

/// Units that systemd starts at boot, in alphabetical order.
fn enabled(machine: &Machine) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(&machine.systemd)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        all.extend(name.strip_prefix("enabled.").map(str::to_owned));
    }
    all.sort();
    Ok(all)
}

fn systemctl(machine: &Machine, arguments: &[&str]) -> Result<()> {
    let argv = [&["systemctl"], arguments].concat();
    let command = Exec::new(argv).env("PATH", &machine.path);
    machine.world.gateway.place(command).run().map(drop)
}

fn seen(device: &Namespace) -> Result<[String; 2]> {
    Ok([seen_by(device, WEB)?, seen_by(device, WEB6)?])
}

fn online(device: &Namespace) -> Result<()> {
    let mut last = Default::default();
    let what = format!("{} is online through the tunnel", device.name());
    wait_for(&what, SOON, || {
        last = seen(device)?;
        Ok((last[0].ends_with(SERVER) && last[1] == SERVER6).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the web host sees {last:?}")))
}

fn boot(lab: &mut Lab) -> Result<String> {
    let mut machine = Machine::new(lab)?;
    machine.world.provider.add_ends(&[GATEWAY6], &[SERVER6])?;
    for device in [&machine.world.laptop, &machine.world.phone] {
        device.default_route(GATEWAY6)?;
    }
    // Some other program has it forward from its first instant on: what is not kept in leaves.
    machine.world.gateway.forward_packets()?;
    machine.remember()?;
    machine.expect(&["setup", "--yes"], 0, "Kept.")?;
    machine.watcher_has_ended()?;
    online(&machine.world.laptop)?;
    let enabled = enabled(&machine)?;
    ensure!(
        enabled == ORDER,
        "systemd starts {enabled:?} at boot, not {ORDER:?}"
    );

    machine.restart_machine()?;
    // Without the units it would be open.
    let open = seen(&machine.world.laptop)?;
    ensure!(
        open[0].parse::<std::net::IpAddr>().is_ok() && !open[0].ends_with(SERVER),
        "before any unit is started the web host sees {open:?}: this machine forwards nothing"
    );
    let [guard, run] = ORDER;
    systemctl(&machine, &["start", guard])?;
    machine.world.provider.reset()?;
    for device in [&machine.world.laptop, &machine.world.phone] {
        ensure!(
            !reaches_web(device)?,
            "{} is online without cygnet",
            device.name()
        );
    }
    let nothing_leaked = |when: &str| -> Result<()> {
        let counted = machine.world.provider.counters()?;
        let who = machine.world.provider.leaks()?;
        ensure!(
            counted.leaked == 0,
            "{when}: {} packets left in clear ({who})",
            counted.leaked
        );
        Ok(())
    };
    nothing_leaked("with the guard alone")?;
    systemctl(&machine, &["start", run])?;
    for device in [&machine.world.laptop, &machine.world.phone] {
        online(device)?;
    }
    nothing_leaked("once cygnet runs")?;
    machine.expect(&["off"], 0, "is taken back")?;
    machine.is_as_before("after `gateway off`")?;
    Ok("closed by the guard, then online, then as before".to_owned())
}

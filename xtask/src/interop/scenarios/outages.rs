//! An end that dies without a word, and comes back; a link that is cut.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, same};
use super::super::plan::{NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::{Lab, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new(
            "killed-strongswan-initiator",
            "SIGKILL to strongSwan: Cygnet notices, nothing leaks, and calls until it is back",
            killed_responder,
        ),
        Scenario::new(
            "killed-strongswan-responder",
            "SIGKILL to strongSwan, which then calls anew: the new tunnel replaces the old one",
            killed_initiator,
        ),
        Scenario::new(
            "killed-cygnet-initiator",
            "SIGKILL to Cygnet, started again: strongSwan has one tunnel with it, not two",
            killed_cygnet_initiator,
        ),
        Scenario::new(
            "killed-cygnet-responder",
            "SIGKILL to Cygnet, started again: strongSwan notices and calls anew",
            killed_cygnet_responder,
        ),
        Scenario::new(
            "killed-engine-initiator",
            "SIGKILL to Cygnet's engine alone: the supervisor brings the tunnel back",
            killed_engine,
        ),
    ];
    for role in Role::BOTH {
        all.push(Scenario::new(
            format!("liveness-by-cygnet-{}", role.name()),
            "Cygnet probes an idle strongSwan and finds it alive",
            move |lab| liveness(lab, role, true),
        ));
        all.push(Scenario::new(
            format!("liveness-by-strongswan-{}", role.name()),
            "strongSwan probes an idle Cygnet and finds it alive",
            move |lab| liveness(lab, role, false),
        ));
        all.push(Scenario::new(
            format!("link-cut-{}", role.name()),
            "the link is cut for two seconds: the same tunnel goes on",
            move |lab| cut(lab, role),
        ));
        all.push(Scenario::new(
            format!("deleted-interface-{}", role.name()),
            "somebody deletes the TUN: it is made anew, and the same tunnel goes on",
            move |lab| deleted_interface(lab, role),
        ));
    }
    all
}

/// A Cygnet that notices within two seconds or so and calls again.
fn watchful(role: Role) -> Plan {
    Plan::shared_key(role)
        .cygnet_line("liveness = \"1s\"")
        .cygnet_line("retransmit = { first = \"0.2s\", factor = 1.5, tries = 3 }")
}

fn killed_responder(lab: &mut Lab) -> Result<String> {
    let plan = watchful(Role::Initiator).cygnet_line("start = \"always\"");
    let mut pair = Pair::start(lab, plan)?;
    pair.wait_for_child(NET)?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    pair.swan.kill()?;
    let line = pair
        .cygnet
        .wait_for_log("no answer to", SOON)
        .map_err(|failure| pair.with_log(failure))?;
    wait_for("status tells why", SOON, || {
        let connection = pair.cygnet.connection(OFFICE)?;
        let told = connection.reason.is_some() && connection.state != "up";
        Ok(told.then_some(()))
    })?;
    pair.offices.reset_counters()?;
    let near = &pair.near().host;
    let told = near.finish(["ping", "-n", "-c2", "-i0.2", "-W1", pair.far().host4])?;
    let passed = pair.offices.counters()?;
    ensure!(
        !told.success() && passed.leaked == 0,
        "while the peer is gone packets leave in clear: {passed:?}"
    );
    pair.swan.restart()?;
    pair.wait_for_child(NET)?;
    let new = pair.ike_sa()?.0;
    ensure!(
        !same(&new.initiator_spi, &old.initiator_spi),
        "the old IKE SA is still there"
    );
    pair.carry()?;
    Ok(line.trim().to_owned())
}

fn killed_initiator(lab: &mut Lab) -> Result<String> {
    let mut pair = Pair::connected(lab, Plan::shared_key(Role::Responder))?;
    pair.carry()?;
    pair.swan.kill()?;
    pair.swan.restart()?;
    pair.connect()?;
    // INITIAL_CONTACT (RFC 7296 §2.4): the old one is gone long before liveness would have noticed.
    pair.ike_sa()?;
    pair.carry()
}

fn killed_cygnet_initiator(lab: &mut Lab) -> Result<String> {
    let mut pair = Pair::connected(lab, Plan::shared_key(Role::Initiator))?;
    pair.carry()?;
    kill_and_restart(&mut pair)?;
    pair.connect()?;
    pair.ike_sa()?;
    pair.carry()
}

fn killed_cygnet_responder(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Responder)
        .swan_set("dpd_delay", "1s")
        .swan_child("dpd_action", "restart")
        .swan_daemon("retransmit_timeout = 0.3")
        .swan_daemon("retransmit_base = 1.2")
        .swan_daemon("retransmit_tries = 3");
    let mut pair = Pair::connected(lab, plan)?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    kill_and_restart(&mut pair)?;
    wait_for("strongSwan calls anew", SOON, || {
        let sas = pair.cygnet.connection(OFFICE)?.ike_sas;
        Ok(sas
            .iter()
            .any(|sa| sa.state == "up" && !same(&sa.initiator_spi, &old.initiator_spi))
            .then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    pair.carry()
}

/// The engine does not outlive its supervisor: its ports are free at once.
fn kill_and_restart(pair: &mut Pair) -> Result<()> {
    pair.cygnet.kill_supervisor()?;
    let host = pair.cygnet.namespace().clone();
    wait_for("the ports are free", SOON, || {
        let bound = host.listens_udp(500)? || host.listens_udp(4500)?;
        Ok((!bound).then_some(()))
    })?;
    pair.cygnet.restart()
}

fn killed_engine(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator).cygnet_line("start = \"always\"");
    let pair = Pair::start(lab, plan)?;
    let old = pair.wait_for_child(NET)?;
    pair.carry()?;
    pair.cygnet.kill_engine()?;
    wait_for("the engine runs again", SOON, || {
        let status = pair.cygnet.status()?;
        Ok((status.engine_restarts == 1 && status.engine.is_some()).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    wait_for("another child", SOON, || {
        Ok((pair.wait_for_child(NET)?.spi_in != old.spi_in).then_some(()))
    })?;
    pair.ike_sa()?;
    pair.carry()
}

fn liveness(lab: &Lab, role: Role, by_cygnet: bool) -> Result<String> {
    let plan = Plan::shared_key(role);
    let plan = if by_cygnet {
        plan.cygnet_line("liveness = \"1s\"")
    } else {
        plan.swan_set("dpd_delay", "1s")
    };
    let pair = Pair::connected(lab, plan)?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    // What strongSwan logs of a probe and of its answer.
    let texts = if by_cygnet {
        [
            "parsed INFORMATIONAL request",
            "generating INFORMATIONAL response",
        ]
    } else {
        [
            "generating INFORMATIONAL request",
            "parsed INFORMATIONAL response",
        ]
    };
    wait_for("an idle peer is probed twice and answers", SOON, || {
        let log = pair.swan.log();
        let twice = |text: &str| log.lines().filter(|line| line.contains(text)).count() >= 2;
        Ok(texts.into_iter().all(twice).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    let new = pair.ike_sa()?.0;
    ensure!(
        same(&new.initiator_spi, &old.initiator_spi),
        "the IKE SA was replaced"
    );
    pair.carry()
}

fn deleted_interface(lab: &Lab, role: Role) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(role))?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    let host = pair.cygnet.namespace().clone();
    let tun = format!("cyg-{OFFICE}");
    // Twice: the one that was made anew is as good as the first.
    for _ in 0..2 {
        let before = host.exec(["ip", "-o", "link", "show", "dev", &tun])?;
        let index = before.split(':').next().unwrap_or_default().to_owned();
        host.exec(["ip", "link", "del", &tun])?;
        wait_for("the interface is there again", SOON, || {
            let links = host.exec(["ip", "-o", "link", "show", "up"])?;
            let found = links
                .lines()
                .any(|line| line.contains(&tun) && !line.starts_with(&format!("{index}:")));
            Ok(found.then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))?;
        crate::lab::traffic::ping_until_answered(&pair.near().host, pair.far().host4, SOON)
            .map_err(|failure| pair.with_log(failure))?;
    }
    let new = pair.ike_sa()?.0;
    ensure!(
        same(&new.initiator_spi, &old.initiator_spi),
        "the IKE SA did not survive"
    );
    let line = pair.cygnet.wait_for_log("making it anew", SOON)?;
    pair.carry()?;
    Ok(line.trim().to_owned())
}

fn cut(lab: &Lab, role: Role) -> Result<String> {
    let plan = Plan::shared_key(role)
        .cygnet_line("liveness = \"0.5s\"")
        .cygnet_line("retransmit = { first = \"0.3s\", factor = 1.3, tries = 10 }");
    let pair = Pair::connected(lab, plan)?;
    let old = pair.ike_sa()?.0;
    for link in &pair.offices.links {
        link.cut(true)?;
    }
    crate::lab::interrupt::pause(Duration::from_secs(2))?;
    for link in &pair.offices.links {
        link.cut(false)?;
    }
    crate::lab::traffic::ping_until_answered(&pair.near().host, pair.far().host4, SOON)
        .map_err(|failure| pair.with_log(failure))?;
    let new = pair.ike_sa()?.0;
    ensure!(
        same(&new.initiator_spi, &old.initiator_spi),
        "the IKE SA did not survive the cut"
    );
    pair.carry()
}

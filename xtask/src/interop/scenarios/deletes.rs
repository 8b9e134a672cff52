//! Taking down, by either end: nothing is left, or it comes back, as the configuration says.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, changes, kernel_state, same};
use super::super::plan::{NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::cygnet::IkeSa;
use crate::lab::offices::{Nat, Offices};
use crate::lab::{Failure, Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        for (who, by_cygnet) in [("cygnet", true), ("strongswan", false)] {
            let name = format!("delete-child-by-{who}-{}", role.name());
            let about = format!("{who} deletes the child; the IKE SA stays and makes another");
            all.push(Scenario::new(name, about, move |lab| {
                delete_child(lab, role, by_cygnet)
            }));
            let name = format!("delete-ike-by-{who}-{}", role.name());
            let about =
                format!("{who} deletes the IKE SA: nothing is left, and it can be made anew");
            all.push(Scenario::new(name, about, move |lab| {
                delete_ike(lab, role, by_cygnet)
            }));
        }
        let name = format!("sigterm-{}", role.name());
        all.push(Scenario::new(
            name,
            "Cygnet ends: its peer is told, the kernel is as it was before the start",
            move |lab| sigterm(lab, role),
        ));
    }
    all.push(Scenario::new(
        "delete-ike-comes-back-initiator",
        "strongSwan deletes the IKE SA of a tunnel that is to be up always: it comes back",
        |lab| comes_back(lab, false),
    ));
    all.push(Scenario::new(
        "delete-child-comes-back-initiator",
        "strongSwan deletes the child of a tunnel that is to be up always: it comes back",
        |lab| comes_back(lab, true),
    ));
    all
}

fn delete_child(lab: &Lab, role: Role, by_cygnet: bool) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(role))?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    if by_cygnet {
        pair.cygnet.command(&["down", OFFICE, "--child", NET])?;
    } else {
        pair.swan.terminate_child(NET)?;
    }
    if role == Role::Initiator && !by_cygnet {
        // Cygnet was asked to keep it up.
        return again(&pair, &old, true);
    }
    wait_for("the child is gone at both ends", SOON, || {
        let own = pair.cygnet.connection(OFFICE)?.ike_sas;
        let none = own.iter().all(|sa| sa.children.is_empty());
        Ok((none && pair.swan.installed_children(NET)?.is_empty()).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    let kept = pair.ike_sa()?.0;
    ensure!(
        same(&kept.initiator_spi, &old.initiator_spi),
        "the IKE SA did not stay"
    );
    pair.offices.reset_counters()?;
    let told = pair
        .near()
        .host
        .finish(["ping", "-n", "-c1", "-W1", pair.far().host4])?;
    ensure!(
        !told.success() && pair.offices.counters()?.leaked == 0,
        "without a child a packet passed or leaked: {:?}",
        pair.offices.counters()?
    );
    if by_cygnet {
        pair.cygnet
            .command(&["up", OFFICE, "--child", NET, "--wait", "10"])?;
    } else {
        pair.swan.initiate(NET)?;
    }
    again(&pair, &old, true)
}

/// A child is up that carries, on the IKE SA that there was or on another.
fn again(pair: &Pair, old: &IkeSa, on_the_old: bool) -> Result<String> {
    let old_children: Vec<&str> = old.children.iter().map(|sa| sa.spi_in.as_str()).collect();
    wait_for("another child", SOON, || {
        let child = pair.wait_for_child(NET)?;
        Ok((!old_children.contains(&child.spi_in.as_str())).then_some(()))
    })?;
    let new = pair.ike_sa()?.0;
    ensure!(
        same(&new.initiator_spi, &old.initiator_spi) == on_the_old,
        "the child was made on the IKE SA {}, the one before was {}",
        new.initiator_spi,
        old.initiator_spi
    );
    pair.carry()
}

fn delete_ike(lab: &Lab, role: Role, by_cygnet: bool) -> Result<String> {
    let pair = Pair::start(lab, Plan::shared_key(role))?;
    let before = kernel_state(pair.cygnet.namespace())?;
    pair.connect()?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    if by_cygnet {
        pair.cygnet.down(OFFICE)?;
    } else {
        pair.swan.terminate(OFFICE)?;
    }
    if role == Role::Initiator && !by_cygnet {
        // Cygnet was asked to keep it up.
        return again(&pair, &old, false);
    }
    pair.nothing_is_left(&before)?;
    pair.connect()?;
    pair.carry()
}

fn sigterm(lab: &Lab, role: Role) -> Result<String> {
    let plan = Plan::shared_key(role);
    let mut offices = Offices::build(lab, Nat::None)?;
    offices.block_all_but_tunnel()?;
    let host = plan.offices(&offices).0.gateway.clone();
    let before = kernel_state(&host)?;
    let mut pair = Pair::start_in(lab, plan, offices)?;
    pair.connect()?;
    pair.carry()?;
    pair.cygnet.stop()?;
    wait_for("strongSwan has been told", SOON, || {
        Ok(pair.swan.sas()?.is_empty().then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    let difference = changes(&before, &kernel_state(&host)?);
    if difference.is_empty() {
        return Ok("the peer was told, the kernel is as before".to_owned());
    }
    Err(Failure::new(format!(
        "what has become of the kernel:\n{difference}"
    )))
}

fn comes_back(lab: &Lab, child: bool) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator).cygnet_line("start = \"always\"");
    let pair = Pair::start(lab, plan)?;
    pair.wait_for_child(NET)?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    if child {
        pair.swan.terminate_child(NET)?;
    } else {
        pair.swan.terminate(OFFICE)?;
    }
    again(&pair, &old, child)
}

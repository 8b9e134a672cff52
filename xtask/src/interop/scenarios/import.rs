//! Servers as Algo sets them up, joined from the files that Algo hands out.

use super::super::Scenario;
use crate::demo::algo::{AlgoServer, ImportedGateway, TUNNEL, deploy, seen_through};
use crate::demo::{VpnEnd, explained};
use crate::ensure;
use crate::lab::algo::Year;
use crate::lab::cygnet::Cygnet;
use crate::lab::world::{SERVER, World};
use crate::lab::{Lab, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    let years = [
        (Year::Y2017, "import-algo-2017"),
        (Year::Y2026, "import-algo-2026"),
    ];
    let scenarios = years.map(|(year, name)| {
        Scenario::new(
            name,
            "a LAN goes online through Algo's server from each of the formats Algo hands out; new keys are made",
            move |lab| join(lab, year),
        )
    });
    scenarios.to_vec()
}

fn join(lab: &mut Lab, year: Year) -> Result<String> {
    let world = World::build(lab)?;
    world.route_through_gateway()?;
    let deployment = deploy(lab, year)?;
    let mut server = AlgoServer::new(&world, &deployment);
    server.start(lab)?;
    let mut joined = Vec::new();
    for format in deployment.formats() {
        let title = format.title;
        let mut gateway = ImportedGateway::new(&world, &deployment, format);
        let seen = seen_through(lab, &world, &mut gateway);
        let seen = seen.map_err(|failure| {
            explained(&failure, &gateway, &server).while_doing(format!("from {title}"))
        })?;
        ensure!(seen == [SERVER, SERVER], "from {title}: seen as {seen:?}");
        joined.push(title);
    }
    // The server never makes new keys; whoever does not either is cut off when its SAs expire.
    if let Some(format) = deployment.formats().into_iter().next() {
        let mut gateway = ImportedGateway::new(&world, &deployment, format);
        gateway.start(lab)?;
        gateway.up()?;
        rekey(gateway.running()?, Some("net"), |cygnet| {
            Ok(cygnet
                .children(TUNNEL)?
                .into_iter()
                .map(|it| it.spi_in)
                .collect())
        })?;
        rekey(gateway.running()?, None, |cygnet| {
            let sas = cygnet.connection(TUNNEL)?.ike_sas;
            Ok(sas
                .into_iter()
                .filter(|it| it.state == "up")
                .map(|it| it.initiator_spi)
                .collect())
        })?;
        let seen = world.seen_as(&world.laptop)?;
        ensure!(
            seen == SERVER,
            "after new keys the laptop is seen as {seen}"
        );
        gateway.stop()?;
    }
    Ok(format!(
        "from {}; child and IKE SA rekeyed",
        joined.join(", ")
    ))
}

/// Asks for new keys, and waits until one SA is there with another SPI.
fn rekey(
    cygnet: &Cygnet,
    child: Option<&str>,
    spis: impl Fn(&Cygnet) -> Result<Vec<String>>,
) -> Result<()> {
    let before = spis(cygnet)?;
    cygnet.request(TUNNEL, "rekey", child)?;
    wait_for("new keys", Duration::from_secs(10), || {
        let now = spis(cygnet)?;
        Ok((now.len() == 1 && now != before).then_some(()))
    })
}

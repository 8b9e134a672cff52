//! A firewall of the box's own that lets nothing in but what most do: ufw's default, nearly.

use super::super::Scenario;
use super::super::resilience::checkup::{BEYOND, Doctor};
use super::super::resilience::firewall::{USUAL, rules};
use super::super::resilience::home::SOON;
use super::{HOST, dig, expect, far_resolver, start};
use crate::ensure;
use crate::lab::world::{GATEWAY, WEB};
use crate::lab::{Context, Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "dns-firewall",
        "a firewall of the box's that drops what devices ask: status and doctor name what, and the rules that they offer suffice",
        firewall,
    )]
}

fn firewall(lab: &mut Lab) -> Result<String> {
    let dhcp = "[gateway.dhcp]\nrange = \"192.168.1.100-192.168.1.120\"\n";
    let home = start(lab, dhcp, &[])?;
    let _far = far_resolver(&home)?;
    let laptop = &home.world.laptop;
    expect(laptop, GATEWAY, HOST, &[], &[WEB])?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let nobody = "no firewall of another program";
    doctor.report(&[])?.good("firewall", nobody)?;

    home.world.gateway.nft(USUAL)?;
    let said = dig(laptop, GATEWAY, HOST, &[])?;
    ensure!(
        said.status == "none",
        "the firewall drops nothing: this proves nothing: {said:?}"
    );
    let report = doctor.report(&[])?;
    let kinds = "(devices' questions for names, devices' requests for an address, devices' search for their IPv6 router)";
    let told = report.names("names are dropped", "firewall", kinds)?;
    report.names("names are dropped", "dns", "does not reach it")?;
    for rule in rules(&home.gateway, "inet foreign", "input")? {
        let offered = home.world.gateway.shell(&rule);
        offered.context("a rule that was offered")?;
    }
    expect(laptop, GATEWAY, HOST, &[], &[WEB])?;
    expect(laptop, GATEWAY, HOST, &["+tcp"], &[WEB])?;
    wait_for("the warning goes away", SOON, || {
        Ok(home.gateway.status()?.warnings.is_empty().then_some(()))
    })?;
    doctor.report(&[])?.good("firewall", nobody)?;
    Ok(told)
}

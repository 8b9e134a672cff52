//! Who is not on the LAN asks the box for names.

use super::super::Scenario;
use super::super::resilience::home::SOON;
use super::{dig, dns_status, start};
use crate::ensure;
use crate::lab::world::GATEWAY;
use crate::lab::{End, Lab, Result, wait_for, wire};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "dns-strangers",
        "whoever comes by another interface than the LAN's is not heard, as himself or as a device; the box itself is",
        strangers,
    )]
}

fn strangers(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let stranger = lab.host("stranger")?;
    wire(
        &End::new(
            &home.world.gateway,
            "eth1",
            &["198.18.0.1/24", "2001:db8:7::1/64"],
        ),
        &End::new(&stranger, "eth0", &["198.18.0.2/24", "2001:db8:7::2/64"]),
    )?;
    // What the box has on its LAN is reached by the other leg as well, and he takes addresses of devices.
    stranger.shell(
        "ip route add 192.168.1.2 via 198.18.0.1; ip -6 route add fd00:192:168:1::2 via 2001:db8:7::1; \
         ip addr add 192.168.1.77/32 dev lo; ip addr add fd00:192:168:1::77/128 dev lo",
    )?;
    // Nobody answers for localhost but who is asked.
    let here = |host, at: &str, more: &[&str]| dig(host, at, "localhost", more);
    let counted = || -> Result<(u64, u64)> {
        let dns = dns_status(&home.gateway)?;
        let of = |key: &str| dns[key].as_u64().unwrap_or_default();
        Ok((of("queries"), of("dropped")))
    };
    // How often it was asked.
    let answers = |what: &str, host, at: &str| {
        let mut asked = 0;
        wait_for(&format!("{what} is answered"), SOON, || {
            asked += 1;
            Ok((here(host, at, &["A"])?.status == "NOERROR").then_some(asked))
        })
    };
    answers("a device", &home.world.laptop, GATEWAY)?;
    answers("the box itself", &home.world.gateway, GATEWAY)?;
    let before = wait_for("both are counted", SOON, || {
        let now = counted()?;
        Ok((now.0 >= 2).then_some(now))
    })?;
    for at in [GATEWAY, "fd00:192:168:1::2"] {
        for more in [
            vec![],
            vec!["+tcp"],
            vec!["-p985"],
            vec![
                "-b",
                if at == GATEWAY {
                    "192.168.1.77"
                } else {
                    "fd00:192:168:1::77"
                },
            ],
        ] {
            let said = here(&stranger, at, &more)?;
            ensure!(
                said.status == "none",
                "at {at} {more:?} he was told {said:?}"
            );
        }
    }
    let asked = answers("a device, then,", &home.world.laptop, GATEWAY)?;
    let after = wait_for("the device is counted", SOON, || {
        let now = counted()?;
        Ok((now.0 > before.0).then_some(now))
    })?;
    ensure!(
        after.0 <= before.0 + asked && after.1 == before.1,
        "asked and turned away were {before:?}, and are {after:?}; a device asked {asked} times"
    );
    Ok("eight times no answer, and nobody heard him".to_owned())
}

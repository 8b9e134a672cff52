//! Large transfers to and from a strongSwan over a link that carries less than 1500 octets and says nothing.

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{Plan, Role};
use super::https::{Https, LARGE};
use super::mtu::{Manner, PATIENCE, first, narrow, passed, single};
use crate::ensure;
use crate::lab::{Lab, Result};
use std::time::Instant;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = [1400, 1280]
        .map(|mtu| {
            Scenario::new(
                format!("mtu-{mtu}-silent-strongswan-transfers"),
                "10 MB by HTTPS both ways through a strongSwan with IKE fragmentation, over a link that drops in silence",
                move |lab| measured(lab, mtu),
            )
        })
        .into();
    all.push(Scenario::new(
        "mtu-1400-silent-strongswan-whole-transfers",
        "with a strongSwan that takes no fragments of IKE nothing is measured, and they stall; with `mtu` written they pass",
        |lab| written(lab),
    ));
    all
}

/// Two offices, with an HTTPS host in the one of strongSwan, over a link that is narrow from the beginning.
struct Narrow {
    pair: Pair,
    https: Https,
}

impl Narrow {
    fn connect(lab: &Lab, plan: Plan, mtu: u32) -> Result<Self> {
        let mut pair = Pair::start(lab, plan)?;
        let between = first(&mut pair)?.namespace().clone();
        let (near, far) = (pair.near(), pair.far());
        single(&[
            (&near.host, &["eth0"]),
            (&near.gateway, &["lan", "wan"]),
            (&between, &["near", "far"]),
            (&far.gateway, &["lan", "wan"]),
            (&far.host, &["eth0"]),
        ])?;
        let https = Https::start(lab, &far.host)?;
        narrow(first(&mut pair)?, mtu, Manner::Silent)?;
        pair.connect()?;
        Ok(Self { pair, https })
    }

    /// Takes the file from the other office, and gives it; how long that took, in seconds. `more` are options of curl.
    fn transfers(&mut self, more: &str) -> Result<[f64; 2]> {
        let (from, host) = (self.pair.near().host.clone(), self.pair.far().host4);
        let mut took = [0.0; 2];
        for (n, (gives, what)) in [(false, "the download"), (true, "the upload")]
            .into_iter()
            .enumerate()
        {
            let begun = Instant::now();
            let mut transfer = self.https.start_transfer(&from, host, gives, more)?;
            let ended = self.https.ends(&mut transfer);
            let passed = passed(first(&mut self.pair)?)?;
            ended.map_err(|failure| {
                let failure = failure.while_doing(format!("{what}, on the link {passed:?}"));
                self.pair.with_log(failure)
            })?;
            took[n] = begun.elapsed().as_secs_f64();
        }
        Ok(took)
    }

    fn dropped(&mut self) -> Result<u64> {
        Ok(passed(first(&mut self.pair)?)?.dropped)
    }
}

fn told(took: [f64; 2]) -> String {
    format!(
        "{} MB down in {:.1} s, up in {:.1} s",
        LARGE / 1_000_000,
        took[0],
        took[1]
    )
}

fn measured(lab: &Lab, mtu: u32) -> Result<String> {
    let mut narrow = Narrow::connect(lab, Plan::shared_key(Role::Initiator), mtu)?;
    let found = format!("path MTU {mtu}, measured");
    let found = narrow.pair.cygnet.wait_for_log(&found, PATIENCE);
    found.map_err(|failure| narrow.pair.with_log(failure))?;
    let took = narrow.transfers("")?;
    let dropped = narrow.dropped()?;
    ensure!(dropped > 0, "nothing was ever too long for the link");
    Ok(format!("{}; {dropped} dropped", told(took)))
}

/// Nothing measures, as docs/configuration.md says: large packets are lost until `mtu` is written.
fn written(lab: &Lab) -> Result<String> {
    let whole = |plan: Plan| plan.swan_set("fragmentation", "no");
    let plan = whole(Plan::shared_key(Role::Initiator));
    let mut narrow = Narrow::connect(lab, plan, 1400)?;
    let stalls = narrow.transfers("--max-time 8");
    let lost = narrow.dropped()?;
    ensure!(
        stalls.is_err() && lost > 0,
        "it went through, with {lost} lost: {stalls:?}"
    );
    let mut setup = whole(Plan::shared_key(Role::Initiator))
        .cygnet_line("mtu = 1338")
        .cygnet_setup(&narrow.pair.offices);
    setup.daemon.push_str("log = \"debug\"\n");
    narrow.pair.cygnet.write(&setup)?;
    narrow.pair.cygnet.restart()?;
    narrow.pair.connect()?;
    let before = narrow.dropped()?;
    let took = narrow.transfers("")?;
    let lost = narrow.dropped()? - before;
    ensure!(lost == 0, "with `mtu`, {lost} were too long for the link");
    Ok(format!("with `mtu`: {}", told(took)))
}

//! `cargo xtask bench --map`: what `local_map` costs.
//!
//! One stream through one tunnel between two Cygnets, in turns between hosts whose networks are as they are and hosts
//! whose networks are known by other addresses.

use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::traffic::{Direction, ping_until_answered, throughput, throughput_by};
use crate::lab::{Failure, Lab, Result};
use serde::Serialize;
use std::time::Duration;

/// What the tunnel is called.
const BRANCH: &str = "branch";
/// Until hosts reach each other.
const SOON: Duration = Duration::from_secs(10);
/// Rounds of a few seconds each.
const ROUNDS: u32 = 5;

/// Measures and prints.
pub(super) fn run(json: bool) -> Result<bool> {
    let cost = measure()?;
    println!(
        "{}",
        match json {
            true => serde_json::to_string(&cost)?,
            false => cost.to_text(),
        }
    );
    Ok(true)
}

/// Throughput with a map as a part of that without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cost {
    median: f64,
    least: f64,
    most: f64,
    /// Without; the median.
    plain_mbit_s: f64,
}

impl Cost {
    fn to_text(self) -> String {
        let Self {
            median,
            least,
            most,
            plain_mbit_s,
        } = self;
        format!(
            "mapped to unmapped {median:.2} ({least:.2} to {most:.2}) of {plain_mbit_s:.0} Mbit/s"
        )
    }
}

fn measure() -> Result<Cost> {
    let lab = Lab::new()?;
    let offices = Offices::build(&lab, Nat::None)?;
    let Offices { a, b, .. } = &offices;
    let end = |remote: &Office, own: [&str; 3], theirs: [&str; 2]| {
        let [plain, mapped, shown] = own;
        let [their_plain, their_shown] = theirs;
        Setup::new(format!(
            "[tunnel.{BRANCH}]\nremote = \"{}\"\npsk = \"psk\"\n\
             [tunnel.{BRANCH}.child.plain]\nlocal_networks = [\"{plain}\"]\nremote_networks = [\"{their_plain}\"]\n\
             [tunnel.{BRANCH}.child.mapped]\nlocal_networks = [\"{mapped}\"]\nlocal_map = \"{shown}\"\n\
             remote_networks = [\"{their_shown}\"]\n",
            remote.public4
        ))
        .file("psk", "a secret of both offices\n")
    };
    let own = [a.lan4, a.second_lan4, "10.201.1.0/24"];
    let theirs = [b.lan4, b.second_lan4, "10.202.1.0/24"];
    let one = end(b, own, [theirs[0], theirs[2]]);
    let other = end(a, theirs, [own[0], own[2]]);
    let _a = Cygnet::start(&lab, &a.gateway, &one)?;
    let _b = Cygnet::start(&lab, &b.gateway, &other)?;
    ping_until_answered(&a.host, b.host4, SOON)?;
    ping_until_answered(&a.second_host, "10.202.1.10", SOON)?;
    let mut ratios = Vec::new();
    let mut plain_rates = Vec::new();
    for _ in 0..ROUNDS {
        let plain = throughput(&a.host, &b.host, b.host4, 3, Direction::Upload)?;
        let server = (b.second_host4, "10.202.1.10");
        let mapped = throughput_by(&a.second_host, &b.second_host, server, 3, Direction::Upload)?;
        ratios.push(mapped / plain);
        plain_rates.push(plain);
    }
    ratios.sort_by(f64::total_cmp);
    plain_rates.sort_by(f64::total_cmp);
    let median = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let [least, .., most] = &*ratios else {
        return Err(Failure::new("there are not enough rounds"));
    };
    Ok(Cost {
        median: median(&ratios),
        least: *least,
        most: *most,
        plain_mbit_s: median(&plain_rates),
    })
}

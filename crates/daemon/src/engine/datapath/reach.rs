//! Which networks each connection reaches at this moment, so that routes can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cygnet_wire::ts::TrafficSelector;
use ipnet::IpNet;

use super::sad::Sad;
use crate::ipc::ToSupervisor;

/// What the supervisor was told last.
#[derive(Default)]
pub(super) struct Reach {
    told: BTreeMap<String, Reached>,
}

/// One connection's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    remote: Vec<IpNet>,
    mtu: u32,
    endpoint: Option<IpAddr>,
}

impl Reach {
    /// What has changed since the last call.
    pub(super) fn changes(&mut self, sad: &Sad) -> Vec<ToSupervisor> {
        let mut present = present(sad);
        for (connection, told) in &self.told {
            present.entry(connection.clone()).or_insert(Reached {
                // Without an SA there is no better number.
                mtu: told.mtu,
                ..Reached::default()
            });
        }
        let mut changes = Vec::new();
        for (connection, reached) in &present {
            if self.told.get(connection) != Some(reached) {
                changes.push(ToSupervisor::Reach {
                    connection: connection.clone(),
                    remote: reached.remote.clone(),
                    mtu: reached.mtu,
                    endpoint: reached.endpoint,
                });
            }
        }
        present.retain(|_, reached| !reached.remote.is_empty());
        self.told = present;
        changes
    }
}

fn present(sad: &Sad) -> BTreeMap<String, Reached> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for child in sad.children() {
        let Some(outbound) = &child.outbound else {
            continue;
        };
        let params = &child.params;
        let sum = sums.entry(&params.connection.name).or_default();
        sum.remote
            .extend(params.remote_ts.iter().flat_map(networks));
        let mtu = u32::try_from(child.road.max_inner(&outbound.sa)).unwrap_or(u32::MAX);
        sum.mtu = Some(sum.mtu.map_or(mtu, |least| least.min(mtu)));
        if outbound.rank >= sum.newest {
            sum.newest = outbound.rank;
            sum.endpoint = Some(child.road.path.remote.ip());
        }
    }
    let reached = |sum: Sum| Reached {
        remote: without_contained(sum.remote),
        mtu: sum.mtu.unwrap_or(0),
        endpoint: sum.endpoint,
    };
    sums.into_iter()
        .map(|(connection, sum)| (connection.to_owned(), reached(sum)))
        .collect()
}

#[derive(Default)]
struct Sum {
    remote: BTreeSet<IpNet>,
    mtu: Option<u32>,
    newest: u64,
    endpoint: Option<IpAddr>,
}

/// The networks of a selector; protocol and ports are for the SPD to check.
fn networks(selector: &TrafficSelector) -> impl Iterator<Item = IpNet> {
    selector
        .prefixes()
        .filter_map(|(address, len)| IpNet::new(address, len).ok())
}

fn without_contained(networks: BTreeSet<IpNet>) -> Vec<IpNet> {
    let mut kept: Vec<IpNet> = Vec::new();
    // In order of address, and at one address the larger network first.
    for network in networks {
        if !kept.last().is_some_and(|last| last.contains(&network)) {
            kept.push(network);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contained_networks_are_left_out() {
        let nets = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.0.0.0/24",
            "192.0.2.0/25",
            "2001:db8::/32",
        ];
        let kept = without_contained(nets.iter().map(|n| n.parse().unwrap()).collect());
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/8", "192.0.2.0/25", "2001:db8::/32"]);
    }
}

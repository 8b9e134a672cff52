//! Which networks each connection reaches at this moment, so that routes can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cygnet_wire::ts::TrafficSelector;
use ipnet::IpNet;

use super::sad::Sad;
use crate::ipc::ToSupervisor;

/// How long the MTU of a device that many clients share stays what it was lowered to. Each change goes into routes and
/// firewall rules, and each client can have it lowered: by what it lets arrive.
const LOW_FOR_MS: u64 = 60_000;

/// What the supervisor was told last.
#[derive(Default)]
pub(super) struct Reach {
    told: BTreeMap<String, Reached>,
    /// Until when a connection's MTU stays what it was lowered to.
    low_until: BTreeMap<String, u64>,
    /// When a larger one that is known already is told.
    due: Option<u64>,
}

/// One connection's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    remote: Vec<IpNet>,
    mtu: u32,
    endpoint: Option<IpAddr>,
    shared: bool,
}

impl Reach {
    /// Whether there is something to tell although nothing has changed; `now_ms` never goes back.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.due.is_some_and(|due| due <= now_ms)
    }

    /// What has changed since the last call.
    pub(super) fn changes(&mut self, sad: &Sad, now_ms: u64) -> Vec<ToSupervisor> {
        self.compare(present(sad), now_ms)
    }

    fn compare(
        &mut self,
        mut present: BTreeMap<String, Reached>,
        now_ms: u64,
    ) -> Vec<ToSupervisor> {
        self.damp(&mut present, now_ms);
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

    /// Lets the MTU of shared devices fall at once, and rise some time after it fell.
    fn damp(&mut self, present: &mut BTreeMap<String, Reached>, now_ms: u64) {
        self.low_until.retain(|_, until| *until > now_ms);
        self.due = None;
        for (connection, reached) in present.iter_mut().filter(|(_, reached)| reached.shared) {
            let Some(told) = self.told.get(connection) else {
                continue;
            };
            if reached.mtu < told.mtu {
                let until = now_ms.saturating_add(LOW_FOR_MS);
                self.low_until.insert(connection.clone(), until);
            } else if reached.mtu > told.mtu
                && let Some(until) = self.low_until.get(connection)
            {
                reached.mtu = told.mtu;
                self.due = Some(self.due.map_or(*until, |due| due.min(*until)));
            }
        }
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
        sum.shared = params.connection.pool.is_some();
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
        shared: sum.shared,
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
    shared: bool,
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

    fn with_mtu(mtu: u32, shared: bool) -> BTreeMap<String, Reached> {
        let reached = Reached {
            remote: vec!["10.0.0.0/8".parse().unwrap()],
            mtu,
            shared,
            ..Reached::default()
        };
        BTreeMap::from([("a".to_owned(), reached)])
    }

    #[test]
    fn a_shared_mtu_falls_at_once_and_rises_later() {
        let mut reach = Reach::default();
        let mut told = |mtu, now| {
            let changes = reach.compare(with_mtu(mtu, true), now);
            let mtus = changes.into_iter().map(|change| match change {
                ToSupervisor::Reach { mtu, .. } => mtu,
                other => panic!("{other:?}"),
            });
            (mtus.collect::<Vec<_>>(), reach.is_due(now + LOW_FOR_MS))
        };
        assert_eq!(told(1438, 0), (vec![1438], false));
        // It was never lowered.
        assert_eq!(told(1440, 1), (vec![1440], false));
        assert_eq!(told(1280, 1000), (vec![1280], false));
        assert_eq!(told(1440, 2000), (vec![], true));
        assert_eq!(told(1100, 3000), (vec![1100], false));
        assert_eq!(told(1440, 3000 + LOW_FOR_MS - 1), (vec![], true));
        assert_eq!(told(1440, 3000 + LOW_FOR_MS), (vec![1440], false));
    }

    #[test]
    fn the_mtu_of_a_tunnel_of_its_own_follows_at_once() {
        let mut reach = Reach::default();
        for mtu in [1438, 1280, 1438] {
            assert_eq!(reach.compare(with_mtu(mtu, false), 0).len(), 1);
            assert!(!reach.is_due(u64::MAX));
        }
    }

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

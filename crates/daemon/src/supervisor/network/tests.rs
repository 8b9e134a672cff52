//! TUNs that somebody deletes, in a network namespace of their own.

use std::process::Command;

use super::*;
use crate::alone::alone;

const CONFIG: &str = "[tunnel.a]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
                      [tunnel.b]\nremote = \"203.0.113.6\"\npsk = \"k\"\nvirtual_address = true\n";

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// TUNs of two tunnels; there is nobody to set routes.
fn network(config: &Config) -> Network {
    let (jobs, _) = mpsc::unbounded_channel();
    Network {
        sockets: Vec::new(),
        tuns: tuns(config, &BTreeMap::new()).unwrap(),
        again: Again::default(),
        jobs,
    }
}

fn config() -> Config {
    Config::parse("t", CONFIG, &mut |p| Err(format!("no {p}"))).unwrap()
}

/// The tunnels whose TUNs are made anew.
fn restored(network: &mut Network, config: &Config) -> Vec<String> {
    let (roles, fds) = network.restore_tuns(config);
    let queues = roles.iter().map(|role| usize::from(role.queues));
    assert_eq!(fds.len(), queues.sum::<usize>());
    roles.into_iter().map(|role| role.connection).collect()
}

#[test]
fn a_deleted_interface_is_made_anew_and_stays_without_a_plan() {
    alone(
        "supervisor::network::tests::a_deleted_interface_is_made_anew_and_stays_without_a_plan",
        ":",
        || {
            let config = config();
            let mut network = network(&config);
            ip("link del cyg-a");
            assert_eq!(restored(&mut network, &config), ["a"]);
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let obeyed = runtime.unwrap().block_on(network.obey(&config));
            assert!(obeyed.is_err());
            ip("link show cyg-a");
            assert!(restored(&mut network, &config).is_empty());
        },
    );
}

#[test]
fn one_that_cannot_be_made_hinders_no_other_and_waits() {
    alone(
        "supervisor::network::tests::one_that_cannot_be_made_hinders_no_other_and_waits",
        ":",
        || {
            let config = config();
            let mut network = network(&config);
            for name in ["cyg-a", "cyg-b"] {
                ip(&format!("link del {name}"));
            }
            // Not a TUN: the name is in use for something else.
            ip("tuntap add dev cyg-a mode tap");
            assert_eq!(restored(&mut network, &config), ["b"]);
            ip("tuntap del dev cyg-a mode tap");
            assert!(restored(&mut network, &config).is_empty(), "at once");
            let later = Instant::now() + Duration::from_secs(5);
            assert!(network.again.is_due(later));
            network.again = Again::default();
            assert_eq!(restored(&mut network, &config), ["a"]);
        },
    );
}

//! What a check-up asks of this machine's network; nothing is changed.

use cygnet_config::{Config, GuardSections};
use cygnet_gateway::{GuardPlan, Lan};
use cygnet_linux::{GuardState, Netlink};
use ipnet::IpNet;

use super::inputs;
use super::lan;
use super::machine::Machine;
use super::policies::Policies;
use super::worker;

/// The network as it is, beside what the configuration wants of it.
#[derive(Debug)]
pub struct Network {
    /// What of the guard is in place; `None`: none is wanted.
    pub guard: Option<Result<GuardState, String>>,
    /// Other programs' firewalls that are in the way, a sentence each.
    pub firewalls: Result<Vec<String>, String>,
    /// The LAN, with the policies that count for its devices; `None` without a gateway.
    pub lan: Option<Lan>,
    /// Why policies given by command are not known: one sentence.
    pub policies: Result<(), String>,
    /// Addresses of this machine with their networks, TUNs of ours excluded.
    pub local: Vec<IpNet>,
}

/// Looks at it.
///
/// # Errors
/// The kernel does not tell: one sentence.
pub async fn network(config: &Config, netlink: &Netlink) -> Result<Network, String> {
    let ours: Vec<&str> = worker::interfaces(config).collect();
    let machine = Machine::look(netlink, &ours).await?.machine;
    // As the running program, and `cygnet gateway on`: what was given by command is a part of the guard.
    let policies = Policies::read(&config.daemon.state_dir);
    let mut config = config.clone();
    if let Some(gateway) = &mut config.gateway {
        policies.applied(gateway);
    }
    let guard = match inputs::guard(&GuardSections::from(&config), &machine)? {
        None => None,
        Some(inputs) => {
            // What goes direct by its name is known to the running program alone.
            let guard = GuardPlan::new(&inputs).with_any_addresses();
            let state = GuardState::of(netlink, &guard).await;
            Some(state.map_err(|error| error.to_string()))
        }
    };
    let gateway = config.gateway.as_ref();
    let lan = lan::of(&config, &machine);
    let found: Result<Vec<_>, String> = worker::firewalls(&config, &machine).into_iter().collect();
    Ok(Network {
        guard,
        firewalls: found.map(|found| found.concat().iter().map(ToString::to_string).collect()),
        policies: match (policies.problem(), gateway) {
            (Some(problem), Some(_)) => Err(problem.to_owned()),
            _ => Ok(()),
        },
        lan: lan.transpose()?,
        local: machine.addresses.into_iter().map(|(_, net)| net).collect(),
    })
}

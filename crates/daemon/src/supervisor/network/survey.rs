//! What a check-up asks of this machine's network; nothing is changed.

use cygnet_config::{Config, GuardSections};
use cygnet_gateway::{GuardPlan, Lan};
use cygnet_linux::{GuardState, Netlink};
use ipnet::IpNet;

use super::firewalls;
use super::inputs;
use super::lan;
use super::machine::Machine;
use super::policies::Policies;
use super::worker;

pub use super::worker::look::GUARD_OFF;

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
    /// Each interface of the LAN.
    pub legs: Vec<Leg>,
}

/// An interface of the LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Its name.
    pub interface: String,
    /// What it has; an error is a sentence that it is not there.
    pub there: Result<There, String>,
}

/// What an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// Somebody switched it on.
    pub up: bool,
    /// Somebody is at the other end of the cable, or of the radio.
    pub carrier: bool,
    /// Its addresses with their networks; those of the link alone excluded.
    pub addresses: Vec<IpNet>,
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
    let legs = legs(&config, &machine, netlink).await?;
    let found: Result<Vec<_>, String> = firewalls::blockages(&config, &machine)
        .into_iter()
        .collect();
    Ok(Network {
        guard,
        firewalls: found.map(|found| found.concat().iter().map(ToString::to_string).collect()),
        policies: match (policies.problem(), gateway) {
            (Some(problem), Some(_)) => Err(problem.to_owned()),
            _ => Ok(()),
        },
        lan: lan.transpose()?,
        legs,
        local: machine.addresses.into_iter().map(|(_, net)| net).collect(),
    })
}

async fn legs(config: &Config, machine: &Machine, netlink: &Netlink) -> Result<Vec<Leg>, String> {
    let Some(gateway) = &config.gateway else {
        return Ok(Vec::new());
    };
    let links = netlink.links().await.map_err(|e| e.to_string())?;
    let leg = |interface: &String| {
        let link = links.iter().find(|link| link.name == *interface);
        let addresses = machine.addresses.iter();
        let addresses = addresses.filter(|(name, _)| name == interface);
        Leg {
            interface: interface.clone(),
            there: match link {
                None => Err(worker::look::missing(interface)),
                Some(link) => Ok(There {
                    up: link.up,
                    carrier: link.carrier,
                    addresses: addresses.map(|(_, net)| *net).collect(),
                }),
            },
        }
    };
    Ok(gateway.lan.iter().map(leg).collect())
}

//! Other people's firewalls: which of their chains drops our path, and the rule that lets it pass.
//!
//! An `accept` in our table ends our chain only; every other base chain of the hook is asked as
//! well, and one drop is enough. So a gateway beside Docker (which sets the forward policy to
//! drop), ufw or firewalld needs a rule in *their* chain, and it is for the operator to make it.

mod legacy;
mod ruleset;
mod wanted;

use std::fmt;

use cygnet_gateway::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::{Error, Result};
use ruleset::{Ruleset, text};
use wanted::Wanted;

/// What a blockage says of names that devices ask this machine for.
pub const QUESTIONS: &str = "devices' questions for names";

/// What has to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// TUNs that packets are forwarded from and to.
    pub tunnels: Vec<String>,
    /// UDP ports that peers call (a server: 500 and 4500); empty for a client.
    pub ports: Vec<u16>,
    /// UDP ports that peers are called from (a client: 500 and 4500); empty for a server, whose answers
    /// are let out as established everywhere.
    pub sent: Vec<u16>,
    /// Of which families the answers to that are.
    pub answered: Vec<Family>,
    /// What devices of the LAN ask of this machine.
    pub asked: Vec<Asked>,
    /// Interface of the default route.
    pub uplink: Option<String>,
}

/// What devices ask of this machine at an interface of the LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The interface.
    pub interface: String,
    /// What for.
    pub service: Service,
}

/// What this machine does for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// It answers questions for names, by UDP and TCP.
    Names {
        /// 53, or where those are turned who go direct.
        port: u16,
        /// Its addresses on the LAN, each with the network that asks there.
        own: Vec<IpNet>,
    },
    /// It lends addresses: DHCP.
    Addresses,
    /// It is a router of IPv6, which has to be found.
    Router,
}

/// Whose chain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// Docker, or podman in its compatible mode.
    Docker,
    /// Uncomplicated firewall.
    Ufw,
    /// firewalld.
    Firewalld,
    /// Somebody else's.
    Other,
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Other => "another firewall",
        })
    }
}

/// A chain that drops our path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blockage {
    /// Whose.
    pub firewall: Firewall,
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Base chain.
    pub chain: String,
    /// `forward`, `input` or `output`.
    pub hook: String,
    /// Of what: for people.
    pub what: Vec<&'static str>,
    /// Commands that let the path through.
    pub remedy: Vec<String>,
}

impl fmt::Display for Blockage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: Vec<String> = self.remedy.iter().map(|c| format!("`{c}`")).collect();
        write!(
            f,
            "{} drops our packets ({}) in {} {} chain {} ({} hook); let them through with {}",
            self.firewall,
            self.what.join(", "),
            self.family,
            self.table,
            self.chain,
            self.hook,
            // Between backquotes, so that people and programs find the commands.
            commands.join(" and ")
        )
    }
}

/// Finds what blocks `paths` in a ruleset as [`crate::nft::ruleset_json`] gives it, of this network namespace.
///
/// A base chain blocks when it ends in a drop (its policy, or a last rule without a condition)
/// and no rule reachable from it accepts all of the path for certain.
///
/// # Errors
/// [`Error::Nft`] when the text is not what nft writes.
pub fn blockages(ruleset: &str, paths: &Paths) -> Result<Vec<Blockage>> {
    let unreadable = |message: String| Error::Nft { message };
    let mut parsed: Value = serde_json::from_str(ruleset)
        .map_err(|e| unreadable(format!("its JSON cannot be read: {e}")))?;
    match parsed.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(blockages_of(&legacy::told_by_iptables(objects), paths)),
        _ => Err(unreadable("its JSON has no `nftables`".to_owned())),
    }
}

/// The same for rules of the old iptables, which the ruleset does not hold.
///
/// # Errors
/// There are such rules and they cannot be read: one sentence.
pub fn legacy_blockages(paths: &Paths) -> Result<Vec<Blockage>, String> {
    legacy::ruleset().map(|objects| blockages_of(&objects, paths))
}

fn blockages_of(objects: &[Value], paths: &Paths) -> Vec<Blockage> {
    let ruleset = Ruleset::new(objects);
    let mut found = Vec::new();
    for chain in ruleset.chains() {
        let hook = text(chain, "hook");
        let filters =
            text(chain, "type") == "filter" && !text(chain, "table").starts_with("cygnet");
        if !filters || !ruleset.ends_in_drop(chain) {
            continue;
        }
        let firewall = ruleset.firewall(chain);
        let (mut what, mut remedy) = (Vec::new(), Vec::new());
        for wanted in Wanted::at(hook, paths) {
            let packets = wanted.packets();
            let mut here = packets.iter().filter(|packet| packet.comes_to(chain));
            if here.all(|packet| ruleset.accepts(chain, packet)) {
                continue;
            }
            // One command may be for several.
            for command in wanted.remedy(&ruleset, chain, firewall) {
                if !remedy.contains(&command) {
                    remedy.push(command);
                }
            }
            if !what.contains(&wanted.name()) {
                what.push(wanted.name());
            }
        }
        if !remedy.is_empty() {
            found.push(Blockage {
                firewall,
                family: text(chain, "family").to_owned(),
                table: text(chain, "table").to_owned(),
                chain: text(chain, "name").to_owned(),
                hook: hook.to_owned(),
                what,
                remedy,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests;

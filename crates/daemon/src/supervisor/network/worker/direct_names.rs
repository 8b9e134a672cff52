//! What goes direct by its name: let out when its name is answered, and closed when nothing is sent there any more.
//!
//! Who asks for it is the process that answers devices, which talks to strangers: each name is looked up in the
//! configuration here, and each address judged, again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cygnet_config::{Config, GuardSections};
use cygnet_gateway::{
    DirectNames, GUARD_NFT_TABLE, GuardInputs, GuardPlan, Inputs, PLAN_TABLE, is_public,
};
use cygnet_linux::{end_connections, nft};
use tokio::time::Instant;

use super::{Held, Worker, inputs};
use crate::api::{DirectDomain, Guard};
use crate::dns::domains::Domains;
use crate::dns::messages::LetOut;
use crate::supervisor::network::direct_names::Change;
use crate::supervisor::network::inputs::Live;
use crate::supervisor::network::machine::Machine;

/// So often a change is tried: what ends while it is made spoils it.
const TRIES: usize = 2;

impl Worker {
    /// The guard for this configuration, with what goes direct by its name.
    pub(super) fn guard_plan(
        &self,
        config: &Config,
        machine: &Machine,
    ) -> Result<Option<GuardPlan>, String> {
        let inputs = inputs::guard(&config.into(), machine)?;
        Ok(inputs.map(|mut inputs: GuardInputs| {
            inputs.lan.direct_names.addresses = self.held.left(Instant::now());
            self.failure.applied(config, &mut inputs.lan);
            GuardPlan::new(&inputs)
        }))
    }

    /// Lets out what these names have for addresses; whether all of it that may be is.
    pub(super) fn let_out(&mut self, asked: &[LetOut]) -> bool {
        let Some(config) = self.config.clone() else {
            return false;
        };
        let listed = listed(&config);
        let forbidden = match Forbidden::new(&config, &self.live, &self.machine) {
            Ok(forbidden) => forbidden,
            Err(error) => {
                tracing::warn!("nothing is let out by its name: {error}");
                return false;
            }
        };
        let (mut held, mut change) = (self.held.clone(), Change::default());
        let now = Instant::now();
        for LetOut { name, addresses } in asked.iter().take(LetOut::AT_ONCE) {
            let Some(domain) = listed.above(name) else {
                continue;
            };
            for address in addresses.iter().take(LetOut::ADDRESSES) {
                match forbidden.why(*address) {
                    None => held.admit(domain, *address, now, &mut change),
                    Some(why) => tracing::debug!("{name} does not go direct to {address}: {why}"),
                }
            }
        }
        if !change.is_empty() && !self.tell_kernel(&change) {
            return false;
        }
        self.held = held;
        self.end_connections_to(&change.gone);
        true
    }

    /// The tables that were there at the last look.
    pub(super) fn tables(&self) -> &'static [&'static str] {
        match self.guard {
            Guard::On => &[PLAN_TABLE, GUARD_NFT_TABLE],
            Guard::NotConfigured | Guard::Missing => &[PLAN_TABLE],
        }
    }

    /// One transaction for the tables that are there.
    fn tell_kernel(&mut self, change: &Change) -> bool {
        let held = Vec::from_iter(change.held.iter().copied());
        let gone = Vec::from_iter(change.gone.iter().copied());
        if self.guard != Guard::On && !gone.is_empty() {
            // Its table may be there nevertheless. One that is not, or knows no names, lets nothing out by them.
            let closed = nft::apply(&DirectNames::change(GUARD_NFT_TABLE, &[], &gone));
            if let Err(error) = closed {
                tracing::debug!("cannot close in the guard what goes direct by its name: {error}");
            }
        }
        let text: String = (self.tables().iter())
            .map(|table| DirectNames::change(table, &held, &gone))
            .collect();
        let mut tried = Ok(());
        for _ in 0..TRIES {
            tried = nft::apply(&text);
            if tried.is_ok() {
                return true;
            }
        }
        if let Err(error) = tried {
            // Somebody took a table away: it is put back by the next look, and the name asked for again.
            tracing::debug!("cannot let out what goes direct by its name: {error}");
            self.heard.doubt();
        }
        false
    }

    /// Takes note of what the kernel holds longer, because something was sent there, and closes what ended.
    pub(super) fn follow_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let table = match self.guard {
            Guard::On => GUARD_NFT_TABLE,
            Guard::NotConfigured | Guard::Missing => PLAN_TABLE,
        };
        // Of a table that is gone only what is known here counts.
        let listed = elements(table).unwrap_or_default();
        let ended = self.held.learn(&listed, Instant::now());
        // What ends because it is old is in use, and so in the tables.
        let used = listed.iter().map(|(address, _)| *address);
        self.close(used.filter(|address| ended.contains(address)).collect());
        self.end_connections_to(&ended);
    }

    /// The same; and what may go direct no more ends: a tunnel was lent a network, or the LAN is another one.
    pub(super) fn judge_held(&mut self, config: &Config) {
        self.follow_held();
        match kept(&self.held, config, &self.live, &self.machine) {
            Ok(kept) => {
                let gone = self.held.without(&kept);
                self.held = kept;
                self.close(gone.clone());
                self.end_connections_to(&gone);
            }
            // The next look judges it.
            Err(error) => {
                tracing::debug!("cannot judge what goes direct by its name: {error}");
                self.heard.doubt();
            }
        }
    }

    /// Takes these out of the tables.
    fn close(&mut self, gone: BTreeSet<IpAddr>) {
        let change = Change {
            gone,
            ..Change::default()
        };
        if !change.is_empty() {
            self.tell_kernel(&change);
        }
    }

    /// Follows what is held, where something should have ended by now.
    pub(super) fn follow_due(&mut self) {
        if self.held.is_due(Instant::now()) {
            self.follow_held();
        }
    }

    /// Their next packet goes into the tunnel with the tunnel's address, rather than with another.
    pub(super) fn end_connections_to(&self, addresses: &BTreeSet<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let ended = end_connections(|connection| addresses.contains(&connection.destination));
        if let Err(error) = ended {
            tracing::warn!(
                "running connections to addresses that go direct no more could not all be ended: these hang instead ({error})"
            );
        }
    }

    /// What of the configuration's domains goes direct at this moment.
    pub(super) fn direct_domains(&self) -> Vec<DirectDomain> {
        let config = self.config.as_ref();
        let gateway = config.and_then(|config| config.gateway.as_ref());
        gateway.map_or_else(Vec::new, |gateway| {
            self.held.status(&gateway.devices.direct_domains)
        })
    }
}

/// The domains that go direct.
pub(super) fn listed(config: &Config) -> Domains {
    let gateway = config.gateway.iter();
    Domains::new(gateway.flat_map(|gateway| gateway.devices.direct_domains.iter().cloned()))
}

/// What a guard, of an earlier run perhaps, lets out by names.
pub(super) fn left_over() -> BTreeSet<IpAddr> {
    let left = elements(GUARD_NFT_TABLE).unwrap_or_default();
    left.into_iter().map(|(address, _)| address).collect()
}

fn elements(table: &str) -> Option<Vec<(IpAddr, Option<std::time::Duration>)>> {
    let table = nft::list_table(table).ok().flatten()?;
    Some(
        DirectNames::SETS
            .map(|set| nft::elements(&table, set))
            .concat(),
    )
}

/// What never goes direct by its name, whoever has it.
struct Forbidden {
    inputs: Inputs,
    sections: GuardSections,
    resolvers: Vec<IpAddr>,
    machine: Vec<IpAddr>,
}

impl Forbidden {
    fn new(
        config: &Config,
        live: &BTreeMap<String, Live>,
        machine: &Machine,
    ) -> Result<Self, String> {
        let own = machine.addresses.iter().map(|(_, net)| net.addr());
        let dns = config
            .gateway
            .iter()
            .filter_map(|gateway| gateway.dns.as_ref());
        let written = dns.flat_map(|dns| dns.resolvers.iter().chain(&dns.direct_resolvers));
        let lent = live.values().flat_map(|live| &live.dns);
        Ok(Self {
            inputs: inputs::inputs(config, live, machine)?,
            sections: GuardSections::from(config),
            resolvers: written.chain(lent).copied().collect(),
            machine: own.chain(machine.routers.iter().copied()).collect(),
        })
    }

    /// Why an address is not let out, if it is not.
    fn why(&self, address: IpAddr) -> Option<&'static str> {
        let Inputs {
            tunnels,
            lan,
            server,
            ..
        } = &self.inputs;
        let within = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&address));
        let lan = lan.as_ref().map_or(&[][..], |lan| &lan.networks);
        let pools = server.as_ref().map_or(&[][..], |server| &server.pools);
        let mut tunnels = tunnels.iter();
        if !is_public(address) {
            Some("no name of the internet has it")
        } else if within(lan) || within(&self.sections.local) {
            Some("it is local")
        } else if within(pools) || within(&self.sections.sites) {
            Some("it is reached by a tunnel or not at all")
        } else if self.machine.contains(&address) {
            Some("it is this machine's or its router's")
        } else if self.resolvers.contains(&address) {
            Some("it is a resolver's")
        } else if tunnels
            .any(|t| t.endpoints.contains(&address) || t.virtual_addresses.contains(&address))
        {
            Some("it is an end of a tunnel")
        } else {
            None
        }
    }
}

/// What was held, as far as this configuration goes on letting it out, with what is around now.
pub(super) fn kept(
    held: &Held,
    config: &Config,
    live: &BTreeMap<String, Live>,
    machine: &Machine,
) -> Result<Held, String> {
    let mut kept = held.within(&listed(config));
    if !kept.is_empty() {
        let forbidden = Forbidden::new(config, live, machine)?;
        kept.end(|address| forbidden.why(address).is_some());
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
                        [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndirect_domains = [\"tv.example\"]\n";

    fn config(more: &str) -> Config {
        let text = format!("{TEXT}{more}");
        Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap()
    }

    fn machine(addresses: &[&str]) -> Machine {
        let on_lan = |net: &&str| ("eth0".to_owned(), net.parse().unwrap());
        Machine {
            addresses: addresses.iter().map(on_lan).collect(),
            uplink: Some("eth0".to_owned()),
            routers: vec!["192.168.1.1".parse().unwrap()],
            ..Machine::default()
        }
    }

    #[test]
    fn what_is_held_is_judged_again_by_what_is_around_now() {
        let mut held = Held::default();
        let all = ["198.51.100.7", "198.51.100.8", "198.51.100.9"];
        for address in all {
            let (now, mut change) = (Instant::now(), Change::default());
            held.admit("tv.example", address.parse().unwrap(), now, &mut change);
        }
        let plain = "[gateway.dns]\n";
        let lan = ["192.168.1.2/24"];
        let ends = |more: &str, live: Live, lan: &[&str]| {
            let live = [("home".to_owned(), live)].into();
            let kept = kept(&held, &config(more), &live, &machine(lan)).unwrap();
            let gone = held.without(&kept).into_iter();
            gone.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert!(ends(plain, Live::default(), &lan).is_empty());
        // This machine got such an address; the peer lends one, names a resolver there, or is there; the
        // configuration names one.
        let own = ["192.168.1.2/24", "198.51.100.7/32"];
        assert_eq!(ends(plain, Live::default(), &own), [all[0]]);
        let address = |n: usize| all[n].parse::<IpAddr>().unwrap();
        let live = Live {
            addresses: vec![address(0)],
            dns: vec![address(1)],
            endpoint: Some(address(2)),
            up: true,
            ..Live::default()
        };
        assert_eq!(ends(plain, live, &lan), all);
        let resolvers = "[gateway.dns]\nresolvers = \"198.51.100.9\"\n";
        assert_eq!(ends(resolvers, Live::default(), &lan), [all[2]]);
    }
}

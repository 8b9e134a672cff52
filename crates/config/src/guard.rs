//! What the guard of a LAN gateway needs, read from a configuration that may be broken elsewhere: a
//! mistyped cipher must not leave a LAN open.

use ipnet::IpNet;
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};
use toml::{Table, Value};

use crate::build::{RUN_DIR, SERVER_INTERFACE, STATE_DIR, default_interface};
use crate::{Config, Gateway, LanDevices, OwnTraffic, units};

/// What concerns the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSections {
    /// `[daemon] run_dir`.
    pub run_dir: String,
    /// `[daemon] state_dir`.
    pub state_dir: String,
    /// `[daemon] engine_user`.
    pub engine_user: Option<String>,
    /// `[gateway]`. Where it was read leniently, LAN interfaces and networks that are none are left
    /// out, which only closes more, and a mistake about devices keeps them all from going direct.
    pub gateway: Option<Gateway>,
    /// The TUNs that devices of the LAN may leave by.
    pub ways_out: Vec<String>,
    /// Those of them that lead to other sites and to the server's clients.
    pub inside: Vec<String>,
    /// All TUNs.
    pub interfaces: Vec<String>,
    /// Networks behind tunnels between sites (but for one that is the LAN's way out), and the server's pools.
    pub sites: Vec<IpNet>,
    /// Those of them that are behind a tunnel.
    pub between: Vec<IpNet>,
    /// Networks that are called local: the tunnels', and the LAN's.
    pub local: Vec<IpNet>,
}

/// What the guard needs to know of a tunnel.
struct Tunnel {
    name: String,
    interface: String,
    /// The peer lends us addresses.
    client: bool,
    remote: Vec<IpNet>,
    local: Vec<IpNet>,
}

/// What the guard needs to know of the server.
struct Server {
    interface: String,
    pools: Vec<IpNet>,
}

impl GuardSections {
    /// Reads leniently; whether the text is TOML from beginning to end. If it is not, what stands
    /// there may not be what was meant.
    #[must_use]
    pub fn read(text: &str) -> (Self, bool) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let table = Table::deserialize(Deserializer::from(table)).unwrap_or_default();
        let (mut sections, whole) = (Self::of_table(&table), errors.is_empty());
        if let Some(gateway) = sections.gateway.as_mut().filter(|_| !whole) {
            gateway.devices = std::mem::take(&mut gateway.devices).closed();
            gateway.own_traffic = OwnTraffic::Needed;
        }
        (sections, whole)
    }

    fn of_table(table: &Table) -> Self {
        let section = |name: &str| table.get(name).and_then(Value::as_table);
        let text = |section: Option<&Table>, key: &str, default: &str| {
            let written = section.and_then(|s| s.get(key)?.as_str());
            written.unwrap_or(default).to_owned()
        };
        let gateway = section("gateway").map(|gateway| Gateway {
            tunnel: text(Some(gateway), "tunnel", ""),
            lan: strings(gateway.get("lan"))
                .filter_map(|name| units::interface(name).ok())
                .collect(),
            networks: gateway
                .get("networks")
                .map(|written| networks(Some(written)).collect()),
            guard: gateway.get("guard").and_then(Value::as_bool) != Some(false),
            own_traffic: match gateway.get("own_traffic").and_then(Value::as_str) {
                Some(written) => OwnTraffic::parse(written).unwrap_or_default(),
                None => OwnTraffic::default(),
            },
            devices: LanDevices::read_leniently(gateway),
            // No part of the guard: without it devices' questions go into the tunnel or nowhere.
            dns: None,
            // Nothing that fails closed depends on it.
            dhcp: None,
            advertise: None,
        });
        let tunnels = section("tunnel").into_iter().flatten();
        let tunnels = tunnels.filter_map(|(name, tunnel)| {
            let tunnel = tunnel.as_table()?;
            let interface = text(Some(tunnel), "interface", &default_interface(name));
            let client = match tunnel.get("virtual_address") {
                None | Some(Value::Boolean(false)) => false,
                Some(Value::Array(these)) => !these.is_empty(),
                Some(_) => true,
            };
            let children = tunnel.get("child").and_then(Value::as_table);
            let children = children.into_iter().flat_map(Table::values);
            let children = children.filter_map(Value::as_table);
            let parts: Vec<&Table> = std::iter::once(tunnel).chain(children).collect();
            let all = |key: &str| {
                let written = parts.iter().map(|part| part.get(key));
                written.flat_map(networks).collect()
            };
            Some(Tunnel {
                name: name.clone(),
                interface: units::interface(&interface).ok()?,
                client,
                remote: all("remote_networks"),
                local: all("local_networks"),
            })
        });
        let server = section("server").and_then(|server| {
            let interface = text(Some(server), "interface", SERVER_INTERFACE);
            Some(Server {
                interface: units::interface(&interface).ok()?,
                pools: networks(server.get("pools")).collect(),
            })
        });
        let daemon = section("daemon");
        Self::new(
            text(daemon, "run_dir", RUN_DIR),
            text(daemon, "state_dir", STATE_DIR),
            daemon
                .and_then(|daemon| daemon.get("engine_user")?.as_str())
                .map(str::to_owned),
            gateway,
            tunnels.collect(),
            server,
        )
    }

    fn new(
        run_dir: String,
        state_dir: String,
        engine_user: Option<String>,
        mut gateway: Option<Gateway>,
        tunnels: Vec<Tunnel>,
        server: Option<Server>,
    ) -> Self {
        if let Some(gateway) = &mut gateway {
            // Where that is a mistake, what was to go through it goes nowhere.
            gateway.devices.through.remove(&gateway.tunnel);
            for (name, through) in &mut gateway.devices.through {
                if let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.name == *name) {
                    through.interface.clone_from(&tunnel.interface);
                }
            }
        }
        let is_the_lans = |tunnel: &&Tunnel| {
            let gateway = gateway.as_ref();
            gateway.is_some_and(|g| g.tunnel == tunnel.name)
        };
        // A site's networks lie inside as well: they are not "out".
        let ways = tunnels.iter().filter(|t| !t.client || is_the_lans(t));
        let ways_out = ways.map(|t| t.interface.clone());
        let between = || tunnels.iter().filter(|t| !t.client && !is_the_lans(t));
        let inside = between().map(|t| t.interface.clone());
        let all = tunnels.iter().map(|t| t.interface.clone());
        let sites: Vec<IpNet> = between().flat_map(|t| t.remote.iter().copied()).collect();
        let of_gateway = gateway.iter().filter_map(|g| g.networks.as_ref());
        let local = tunnels.iter().map(|t| &t.local).chain(of_gateway).flatten();
        let servers = || server.iter().map(|s| s.interface.clone());
        let pools = server.iter().flat_map(|s| s.pools.iter().copied());
        Self {
            run_dir,
            state_dir,
            engine_user,
            ways_out: ways_out.chain(servers()).collect(),
            inside: inside.chain(servers()).collect(),
            interfaces: all.chain(servers()).collect(),
            sites: sites.iter().copied().chain(pools).collect(),
            between: sites,
            local: local.copied().collect(),
            gateway,
        }
    }
}

impl From<&Config> for GuardSections {
    fn from(config: &Config) -> Self {
        let tunnels = config.tunnels.iter();
        Self::new(
            config.daemon.run_dir.clone(),
            config.daemon.state_dir.clone(),
            config.daemon.engine_user.clone(),
            // As it is read without the rest: who answers, who lends addresses and who is advertised is nothing to the guard.
            config.gateway.clone().map(|gateway| Gateway {
                dns: None,
                dhcp: None,
                advertise: None,
                ..gateway
            }),
            tunnels
                .map(|(name, t)| Tunnel {
                    name: name.clone(),
                    interface: t.interface.clone(),
                    client: t.virtual_address,
                    remote: t.remote_networks.clone(),
                    local: t.local_networks.clone(),
                })
                .collect(),
            config.server.as_ref().map(|s| Server {
                interface: s.interface.clone(),
                pools: s.pools.clone(),
            }),
        )
    }
}

/// Those of them that are networks.
fn networks(value: Option<&Value>) -> impl Iterator<Item = IpNet> {
    strings(value).filter_map(|text| units::network(text).ok())
}

/// One string or a list of them.
pub(crate) fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, list) = match value {
        Some(Value::String(one)) => (Some(one.as_str()), None),
        Some(Value::Array(list)) => (None, Some(list)),
        _ => (None, None),
    };
    one.into_iter()
        .chain(list.into_iter().flatten().filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::{DevicePolicy, Devices};

    use super::*;

    const GOOD: &str = r#"
[daemon]
state_dir = "/srv/state"
[server]
psk = "s"
identity = "a.example"
pools = ["10.99.0.0/24"]
[tunnel.home]
remote = "203.0.113.5"
psk = "k"
virtual_address = true
[tunnel.other]
remote = "203.0.113.6"
psk = "k"
virtual_address = true
interface = "other0"
[tunnel.a-branch-with-a-long-name]
remote = "203.0.113.7"
psk = "k"
[tunnel.a-branch-with-a-long-name.child.one]
local_networks = ["192.168.1.0/24"]
remote_networks = ["10.2.0.0/24"]
[tunnel.a-branch-with-a-long-name.child.more]
local_networks = ["192.168.7.0/24"]
remote_networks = ["10.3.0.0/24"]
[gateway]
tunnel = "home"
lan = ["eth0", "wlan0"]
networks = ["192.168.1.0/24"]
default = "direct"
tunnelled = ["laptop", "192.168.1.64/26"]
direct_networks = ["198.51.100.0/24"]
direct_domains = ["example.org"]
[gateway.dns]
[gateway.devices]
laptop = "02:00:00:00:00:01"
"#;

    #[test]
    fn a_good_configuration_reads_the_same_both_ways() {
        let config = Config::parse("t", GOOD, &mut |p| Err(format!("no {p}"))).unwrap();
        let (read, whole) = GuardSections::read(GOOD);
        assert!(whole);
        let sorted = |mut sections: GuardSections| {
            sections.ways_out.sort();
            sections.inside.sort();
            sections.interfaces.sort();
            for networks in [&mut sections.sites, &mut sections.between] {
                networks.sort();
                networks.dedup();
            }
            sections.local.sort();
            sections.local.dedup();
            sections
        };
        assert_eq!(sorted(read.clone()), sorted((&config).into()));
        assert_eq!(read.state_dir, "/srv/state");
        let ways = ["cyg-a-branch-wi", "cyg-home", "cyg-srv"];
        assert_eq!(sorted(read.clone()).ways_out, ways);
        assert!(read.interfaces.contains(&"other0".to_owned()));
        let shown = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        let read = sorted(read);
        assert_eq!(
            shown(&read.sites),
            ["10.2.0.0/24", "10.3.0.0/24", "10.99.0.0/24"]
        );
        assert_eq!(shown(&read.local), ["192.168.1.0/24", "192.168.7.0/24"]);
    }

    #[test]
    fn mistakes_elsewhere_do_not_matter() {
        let broken = format!("{GOOD}[tunnel.typo]\nremoote = 7\n[unknown]\nx = 1\n")
            .replace(
                "psk = \"k\"",
                "certificate = \"missing\"\nike = [\"rot13\"]",
            )
            .replace("\"wlan0\"", "\"wlan 0\", 7")
            .replace("[\"192.168.1.0/24\"]\n\"#", "");
        assert!(Config::parse("t", &broken, &mut |p| Err(format!("no {p}"))).is_err());
        let (read, whole) = GuardSections::read(&broken);
        assert!(whole);
        let gateway = read.gateway.unwrap();
        assert_eq!(gateway.lan, ["eth0"]);
        assert_eq!(
            gateway.networks,
            Some(vec!["192.168.1.0/24".parse().unwrap()])
        );
        assert!(gateway.guard);
        // Of what stands beside a mistake in the section nothing is sure that would open.
        assert_eq!(gateway.devices.policies, Devices::default());
        let typo = GOOD.replace("remote = \"203.0.113.6\"", "remoote = 7");
        let (read, _) = GuardSections::read(&typo);
        let good = GuardSections::read(GOOD).0;
        assert_eq!(read.gateway, good.gateway);
        assert_eq!(good.gateway.unwrap().devices.policies.named.len(), 2);
    }

    #[test]
    fn what_is_no_toml_is_read_as_far_as_it_goes_and_not_trusted() {
        let (read, whole) = GuardSections::read(&GOOD.replace("[tunnel.other]", "[tunnel.other"));
        assert!(!whole);
        assert_eq!(read.state_dir, "/srv/state");
        let devices = read.gateway.map(|gateway| gateway.devices.policies);
        assert!(devices.is_none_or(|devices| devices.default != DevicePolicy::Direct));
        assert_eq!(GuardSections::read("\0\u{1}[[[").0.gateway, None);
    }

    #[test]
    fn the_machines_own_traffic_is_free_only_where_that_is_readable() {
        let own = |line: &str, more: &str| {
            let text = GOOD.replace(
                "tunnel = \"home\"\n",
                &format!("tunnel = \"home\"\n{line}\n"),
            );
            let (read, _) = GuardSections::read(&format!("{text}{more}"));
            (read.gateway.unwrap().own_traffic, read.engine_user)
        };
        let all = "own_traffic = \"all\"";
        assert_eq!(own(all, "").0, OwnTraffic::All);
        assert_eq!(own(all, "[tunnel.typo]\nremoote = 7\n").0, OwnTraffic::All);
        for (line, more) in [
            ("", ""),
            ("own_traffic = \"ALL\"", ""),
            ("own_traffic = true", ""),
            (all, "[unfinished"),
        ] {
            assert_eq!(own(line, more).0, OwnTraffic::Needed, "{line} {more}");
        }
        let user = GOOD.replace("[daemon]\n", "[daemon]\nengine_user = \"vpn\"\n");
        let (read, _) = GuardSections::read(&user);
        assert_eq!(read.engine_user.as_deref(), Some("vpn"));
    }

    #[test]
    fn a_guard_that_is_not_wanted_is_not_read_into_it() {
        let (read, _) =
            GuardSections::read("[gateway]\ntunnel = \"a\"\nlan = \"eth0\"\nguard = false\n");
        assert!(!read.gateway.unwrap().guard);
        assert_eq!(GuardSections::read("").0.gateway, None);
    }
}

//! From a configuration and what is up at this moment to what the kernel must look like.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cygnet_config::{Config, GuardSections, Nat};
use cygnet_gateway::{
    EspFraming, Family, GuardInputs, Inputs, InterfaceName, Server, Tunnel, inner_mtu,
};
use cygnet_ike::policy::{Remote, Start};
use ipnet::IpNet;

use super::lan;
use super::machine::Machine;
use crate::supervisor::leases::own_address;

/// Of links whose MTU nobody told us.
const LINK_MTU: u16 = 1500;
/// A TUN's MTU is not set below what IPv6 needs (RFC 8200 §5), however narrow the path seems to be:
/// strangers can make it seem so, and the data path cuts or answers what does not fit.
const LEAST_MTU: u16 = 1280;

/// What a tunnel is like while it is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Addresses the peer lent us.
    pub(super) addresses: Vec<IpAddr>,
    /// An address that the peer lent and we did not take, and why.
    pub(super) not_taken: Option<String>,
    /// Resolvers the peer named.
    pub(super) dns: Vec<IpAddr>,
    /// Inner MTU by what was negotiated.
    pub(super) mtu: Option<u16>,
    /// The peer's outer address.
    pub(super) endpoint: Option<IpAddr>,
    /// Whether anything can pass.
    pub(super) up: bool,
    /// Networks to which it can.
    pub(super) reached: Vec<IpNet>,
}

/// Inner MTU of a tunnel before anything is negotiated: for the suites offered by default.
pub(super) fn default_mtu(outer_ipv6: bool) -> u16 {
    inner_mtu(LINK_MTU, outer_ipv6, EspFraming::AEAD)
}

/// Everything for [`cygnet_gateway::NetworkPlan::new`].
pub(super) fn inputs(
    config: &Config,
    live: &BTreeMap<String, Live>,
    machine: &Machine,
) -> Result<Inputs, String> {
    let mut tunnels = Vec::new();
    // Of several that are up the first carries what they have in common.
    let (first, standby): (Vec<_>, Vec<_>) =
        (config.tunnels.iter()).partition(|(_, tunnel)| tunnel.standby_for.is_none());
    for (name, tunnel) in first.into_iter().chain(standby) {
        let state = live.get(name).cloned().unwrap_or_default();
        let connection = config.policy.connection(name);
        let servers = connection.map_or(&[][..], |c| c.remote.servers());
        let written = servers.iter().filter_map(|server| server.host.address());
        let mut endpoints: Vec<IpAddr> = written.collect();
        // Who called us is at that address as long as the call lasts; whom we call will be there again.
        let calls_us = connection.is_some_and(|c| c.remote == Remote::Any);
        endpoints.extend(state.endpoint.filter(|_| state.up || !calls_us));
        endpoints.sort();
        endpoints.dedup();
        let for_the_lan = config.gateway.as_ref().is_some_and(|g| &g.tunnel == name);
        // One that devices may be given is for the LAN as well.
        let given = config.gateway.as_ref();
        let given = given.is_some_and(|g| g.devices.through.contains_key(name));
        let outer_ipv6 = state
            .endpoint
            .or(endpoints.first().copied())
            .is_some_and(|a| a.is_ipv6());
        let mtu = tunnel
            .mtu
            .or(state.mtu.map(|mtu| mtu.max(LEAST_MTU)))
            .unwrap_or_else(|| default_mtu(outer_ipv6));
        // Reach and addresses come one after the other: without an address it stands behind those that carry.
        let lends_none = tunnel.virtual_address && state.addresses.is_empty();
        tunnels.push(Tunnel {
            interface: interface(&tunnel.interface)?,
            mtu,
            whole: state.mtu.map_or(mtu, |whole| whole.min(mtu)),
            // A tunnel to everything leaves this machine's own traffic alone while it is down.
            own_traffic: !for_the_lan
                && !given
                && (!tunnel.virtual_address || !state.addresses.is_empty()),
            // A site's networks are inside for everybody.
            carries_lan: for_the_lan || !tunnel.virtual_address,
            remote: tunnel.remote_networks.clone(),
            reached: match lends_none {
                true => Vec::new(),
                false => state.reached,
            },
            source: source(&tunnel.local_networks, machine),
            maps: tunnel.maps.clone(),
            client: tunnel.virtual_address,
            on_demand: connection
                .is_some_and(|c| c.children.iter().any(|child| child.start == Start::Traffic)),
            virtual_addresses: state.addresses,
            endpoints,
        });
    }
    let server = match &config.server {
        None => None,
        Some(server) => {
            let state = live.get(cygnet_config::SERVER);
            Some(Server {
                interface: interface(&server.interface)?,
                mtu: server
                    .mtu
                    .or(state.and_then(|s| s.mtu).map(|mtu| mtu.max(LEAST_MTU)))
                    .unwrap_or_else(|| default_mtu(false)),
                pools: server.pools.clone(),
                addresses: server.pools.iter().filter_map(own_address).collect(),
                masquerade: match server.nat {
                    Nat::Both => Family::BOTH.to_vec(),
                    Nat::Ipv4 => vec![Family::V4],
                    Nat::Off => Vec::new(),
                },
                client_to_client: server.client_to_client,
                block_private: server.block_private,
                inside: server.inside.clone(),
                host_access: server.host_access,
                speedtest: server.speedtest.then_some(cygnet_speedtest::PORT),
            })
        }
    };
    let uplink = config
        .server
        .as_ref()
        .and_then(|s| s.uplink.as_ref())
        .or(machine.uplink.as_ref());
    Ok(Inputs {
        tunnels,
        server,
        lan: lan::of(config, machine).transpose()?,
        local_networks: machine.addresses.iter().map(|(_, net)| *net).collect(),
        named: named(config),
        closed: Vec::new(),
        closed_sites: Vec::new(),
        uplink: uplink.map(|u| interface(u)).transpose()?,
        addresses: listened(&config.daemon.listen, machine),
        ports: vec![config.daemon.ike_port, config.daemon.natt_port],
        // By whoever has bound the sockets.
        dns: None,
    })
}

/// The guard, if one is wanted. `machine` may be empty: before the network is up.
pub(super) fn guard(
    sections: &GuardSections,
    machine: &Machine,
) -> Result<Option<GuardInputs>, String> {
    let Some(gateway) = sections.gateway.as_ref().filter(|g| g.guard) else {
        return Ok(None);
    };
    let (tunnels, others): (Vec<&String>, Vec<&String>) =
        (sections.interfaces.iter()).partition(|name| sections.ways_out.contains(name));
    let is_given = |name: &String| {
        let mut given = gateway.devices.through.values();
        given.any(|through| through.interface == *name)
    };
    let closed = others.into_iter().filter(|name| !is_given(name));
    let closed: Vec<&String> = closed.collect();
    let names = |names: Vec<&String>| -> Result<Vec<InterfaceName>, String> {
        names.into_iter().map(|name| interface(name)).collect()
    };
    Ok(Some(GuardInputs {
        lan: lan::lan(gateway, sections, machine)?,
        tunnels: names(tunnels)?,
        inside: names(sections.inside.iter().collect())?,
        closed: names(closed)?,
        sites: sections.sites.clone(),
        local: sections.local.clone(),
        uplink: (machine.uplink.as_deref()).map(interface).transpose()?,
    }))
}

/// Networks that the configuration itself calls ours.
fn named(config: &Config) -> Vec<IpNet> {
    let of_tunnels = config.tunnels.values().flat_map(|t| &t.local_networks);
    let gateway = config.gateway.iter();
    let of_gateway = gateway.filter_map(|g| g.networks.as_ref()).flatten();
    of_tunnels.chain(of_gateway).copied().collect()
}

/// Addresses of this machine that our sockets are bound to: an unspecified one stands for its family.
fn listened(listen: &[IpAddr], machine: &Machine) -> Vec<IpAddr> {
    let bound = |address: &IpAddr| {
        let mut all = listen.iter().filter(|l| l.is_ipv4() == address.is_ipv4());
        all.any(|l| l.is_unspecified() || l == address)
    };
    let own = machine.addresses.iter().map(|(_, net)| net.addr());
    own.filter(bound).collect()
}

/// Addresses of this machine inside `networks`, at most one of each family.
pub(super) fn source(networks: &[IpNet], machine: &Machine) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for (_, net) in &machine.addresses {
        let address = net.addr();
        if networks.iter().any(|n| n.contains(&address))
            && !found.iter().any(|f| f.is_ipv4() == address.is_ipv4())
        {
            found.push(address);
        }
    }
    found
}

pub(super) fn interface(name: &str) -> Result<InterfaceName, String> {
    InterfaceName::new(name).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap()
    }

    fn machine() -> Machine {
        Machine {
            addresses: vec![
                ("eth0".into(), "192.168.1.2/24".parse().unwrap()),
                ("lan0".into(), "10.1.0.1/24".parse().unwrap()),
            ],
            uplink: Some("eth0".into()),
            ..Machine::default()
        }
    }

    const CLIENT: &str =
        "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";

    #[test]
    fn own_traffic_follows_a_client_tunnel_only_while_it_is_up() {
        let config = config(CLIENT);
        let down = inputs(&config, &BTreeMap::new(), &machine()).unwrap();
        assert!(!down.tunnels[0].own_traffic);
        let live = Live {
            addresses: vec!["10.99.0.2".parse().unwrap()],
            up: true,
            ..Live::default()
        };
        let up = inputs(&config, &[("home".to_owned(), live)].into(), &machine()).unwrap();
        assert!(up.tunnels[0].own_traffic);
        assert_eq!(
            up.tunnels[0].endpoints,
            ["203.0.113.5".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn a_gateways_own_traffic_stays_out_and_its_lan_goes_in() {
        let config = config(&format!(
            "{CLIENT}[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n"
        ));
        let inputs = inputs(&config, &BTreeMap::new(), &machine()).unwrap();
        assert!(!inputs.tunnels[0].own_traffic);
        assert!(inputs.tunnels[0].carries_lan);
        let lan = inputs.lan.unwrap();
        assert_eq!(lan.networks, ["192.168.1.0/24".parse().unwrap()]);
        let guard = guard(&(&config).into(), &Machine::default())
            .unwrap()
            .unwrap();
        assert!(guard.lan.networks.is_empty());
        assert_eq!(guard.tunnels[0].as_str(), "cyg-home");
    }

    #[test]
    fn a_tunnel_that_devices_are_given_is_theirs_and_not_the_boxs_own() {
        let work = CLIENT.replace("tunnel.home", "tunnel.work");
        let text = format!("{CLIENT}{work}[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n");
        let up = || Live {
            addresses: vec!["10.98.0.2".parse().unwrap()],
            up: true,
            ..Live::default()
        };
        let of = |text: &str| {
            let config = config(text);
            let live = [("work".to_owned(), up())].into();
            let inputs = inputs(&config, &live, &machine()).unwrap();
            let guard = guard(&(&config).into(), &machine()).unwrap().unwrap();
            let own = inputs
                .tunnels
                .iter()
                .map(|t| t.own_traffic)
                .collect::<Vec<_>>();
            (own, guard.closed.len(), guard.lan.through.len())
        };
        assert_eq!(of(&text), (vec![false, true], 1, 0));
        let given = format!("{text}[gateway.through.work]\n");
        assert_eq!(of(&given), (vec![false, false], 0, 1));
    }

    #[test]
    fn only_addresses_that_are_listened_on_get_a_way_around_the_tunnel() {
        let mut machine = machine();
        let second = ("eth0".to_owned(), "fd00::2/64".parse().unwrap());
        machine.addresses.push(second);
        let addresses = |listen: &str| {
            let config = config(&format!("[daemon]\n{listen}\n{CLIENT}"));
            let inputs = inputs(&config, &BTreeMap::new(), &machine).unwrap();
            let addresses = inputs.addresses.iter().map(ToString::to_string);
            addresses.collect::<Vec<String>>()
        };
        assert_eq!(addresses(""), ["192.168.1.2", "10.1.0.1", "fd00::2"]);
        assert_eq!(addresses("listen = [\"192.168.1.2\"]"), ["192.168.1.2"]);
        let mixed = addresses("listen = [\"10.1.0.1\", \"::\"]");
        assert_eq!(mixed, ["10.1.0.1", "fd00::2"]);
    }

    #[test]
    fn who_stands_in_for_another_comes_after_it_whatever_its_name() {
        let site = |name: &str, more: &str| {
            format!(
                "[tunnel.{name}]\nremote = \"203.0.113.5\"\npsk = \"k\"\nremote_networks = [\"10.2.0.0/24\"]\n{more}\n"
            )
        };
        let config = config(&(site("a", "standby_for = \"z\"") + &site("z", "")));
        let inputs = inputs(&config, &BTreeMap::new(), &machine()).unwrap();
        let names: Vec<&str> = (inputs.tunnels.iter())
            .map(|tunnel| tunnel.interface.as_str())
            .collect();
        assert_eq!(names, ["cyg-z", "cyg-a"]);
    }

    #[test]
    fn a_tunnel_reaches_what_its_child_sas_reach() {
        let config = config(CLIENT);
        let live = Live {
            up: true,
            addresses: vec!["10.99.0.2".parse().unwrap()],
            reached: vec!["10.0.0.0/8".parse().unwrap()],
            ..Live::default()
        };
        let up = inputs(
            &config,
            &[("home".to_owned(), live.clone())].into(),
            &machine(),
        );
        assert_eq!(up.unwrap().tunnels[0].reached, live.reached);
        let down = inputs(&config, &BTreeMap::new(), &machine()).unwrap();
        assert!(down.tunnels[0].reached.is_empty());
    }

    #[test]
    fn a_tunnel_that_has_no_address_yet_reaches_nothing() {
        let config = config(CLIENT);
        let reached = |addresses: &[&str]| {
            let live = Live {
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
                reached: vec!["0.0.0.0/0".parse().unwrap()],
                up: true,
                ..Live::default()
            };
            let live = [("home".to_owned(), live)].into();
            inputs(&config, &live, &machine()).unwrap().tunnels[0]
                .reached
                .len()
        };
        assert_eq!((reached(&[]), reached(&["10.99.0.2"])), (0, 1));
    }

    #[test]
    fn a_path_that_seems_narrow_does_not_hinder_the_plan() {
        let config = config(CLIENT);
        let live = Live {
            addresses: vec!["fd99::2".parse().unwrap()],
            mtu: Some(480),
            up: true,
            ..Live::default()
        };
        let inputs = inputs(&config, &[("home".to_owned(), live)].into(), &machine()).unwrap();
        assert_eq!(
            (inputs.tunnels[0].mtu, inputs.tunnels[0].whole),
            (1280, 480)
        );
        assert!(cygnet_gateway::NetworkPlan::new(&inputs).is_ok());
    }

    #[test]
    fn a_site_owns_its_networks_always_and_speaks_from_its_own() {
        let config = config(
            "[tunnel.b]\nremote = \"203.0.113.5\"\npsk = \"k\"\nlocal_networks = [\"10.1.0.0/24\"]\nremote_networks = [\"10.2.0.0/24\"]\n",
        );
        let inputs = inputs(&config, &BTreeMap::new(), &machine()).unwrap();
        assert!(inputs.tunnels[0].own_traffic);
        assert_eq!(
            inputs.tunnels[0].source,
            ["10.1.0.1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(inputs.tunnels[0].mtu, 1438);
    }

    #[test]
    fn what_dhcp_lends_takes_nothing_out_of_a_tunnel() {
        use cygnet_gateway::{NetworkPlan, RouteKind};
        let up = |reached: &str| Live {
            up: true,
            addresses: vec!["10.99.0.2".parse().unwrap()],
            reached: vec![reached.parse().unwrap()],
            ..Live::default()
        };
        let thrown = |text: &str, live: BTreeMap<String, Live>, lent: &str| {
            let mut machine = machine();
            machine
                .addresses
                .push(("wlan0".into(), lent.parse().unwrap()));
            let inputs = inputs(&config(text), &live, &machine).unwrap();
            let plan = NetworkPlan::new(&inputs.without_overlaps().0).unwrap();
            let routes = plan.routes.into_iter();
            let thrown = routes.filter(|r| r.kind == RouteKind::Throw);
            let thrown = thrown.map(|r| r.destination.to_string());
            thrown.collect::<Vec<String>>()
        };
        let live = || [("home".to_owned(), up("0.0.0.0/0"))].into();
        let always = ["10.1.0.0/24", "169.254.0.0/16", "192.168.1.0/24"];
        for (lent, is_thrown) in [
            ("93.184.0.5/15", false),
            ("2001:db8:1::5/64", false),
            ("0.0.0.9/0", false),
            ("192.168.7.9/24", true),
            ("fd00:7::9/64", true),
        ] {
            let thrown = thrown(CLIENT, live(), lent);
            let net = lent.parse::<IpNet>().unwrap().trunc().to_string();
            assert_eq!(thrown.contains(&net), is_thrown, "{lent}: {thrown:?}");
            assert!(always.iter().all(|n| thrown.contains(&(*n).to_owned())));
        }
        let site = "[tunnel.b]\nremote = \"203.0.113.5\"\npsk = \"k\"\n\
                    local_networks = [\"10.1.0.0/24\"]\nremote_networks = [\"10.0.0.0/8\"]\n";
        for lent in ["10.2.0.9/25", "10.2.0.9/8"] {
            assert_eq!(thrown(site, BTreeMap::new(), lent), ["10.1.0.0/24"]);
        }
    }
}

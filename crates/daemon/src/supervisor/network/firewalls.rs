//! What of other programs' firewalls is in the way: of what is forwarded, of peers, of what devices ask of this machine.

use cygnet_config::Config;
use cygnet_gateway::Family;
use cygnet_ike::policy::Remote;
use cygnet_linux::foreign::{self, Asked, Blockage, Paths, Service};
use cygnet_linux::nft;

use super::dns;
use super::machine::Machine;
use super::worker::interfaces;

/// In nftables, and in the old iptables.
pub(super) fn blockages(config: &Config, machine: &Machine) -> [Result<Vec<Blockage>, String>; 2] {
    let paths = paths(config, machine);
    let found = nft::ruleset_json()
        .and_then(|json| foreign::blockages(&json, &paths))
        .map_err(|e| e.to_string());
    [found, foreign::legacy_blockages(&paths)]
}

fn paths(config: &Config, machine: &Machine) -> Paths {
    let ports = |wanted: bool| match wanted {
        true => vec![config.daemon.ike_port, config.daemon.natt_port],
        false => Vec::new(),
    };
    Paths {
        tunnels: interfaces(config).map(str::to_owned).collect(),
        ports: ports(config.server.is_some()),
        sent: ports(!config.tunnels.is_empty()),
        answered: answered(config, machine),
        asked: asked(config, machine),
        uplink: machine.uplink.clone(),
    }
}

/// Of which families answers to our calls are. A name may have addresses of both; it is called at those of a family
/// that this machine has beyond its own network.
fn answered(config: &Config, machine: &Machine) -> Vec<Family> {
    let may_be = |family: Family| {
        let has = machine.addresses.iter().any(|(_, net)| {
            Family::of_net(*net) == family
                && (family == Family::V4 || !cygnet_gateway::is_private(net))
        });
        let mut hosts = config.policy.connections.iter().flat_map(|connection| {
            let servers = match &connection.remote {
                Remote::Hosts { servers, .. } => servers.as_slice(),
                Remote::Any => &[],
            };
            servers.iter().map(|server| server.host.address())
        });
        hosts.any(|host| host.map_or(has, |address| Family::of(address) == family))
    };
    Family::BOTH.into_iter().filter(|it| may_be(*it)).collect()
}

/// What devices of the LAN ask of this machine.
fn asked(config: &Config, machine: &Machine) -> Vec<Asked> {
    let Some(gateway) = &config.gateway else {
        return Vec::new();
    };
    let mut asked = Vec::new();
    let mut add = |interface: &str, service| {
        let interface = interface.to_owned();
        asked.push(Asked { interface, service });
    };
    for port in dns::ports(config) {
        for interface in &gateway.lan {
            let own = dns::own(config, machine);
            let own = own.filter(|(name, _)| name == interface);
            let own: Vec<_> = own.map(|(_, net)| *net).collect();
            if !own.is_empty() {
                add(interface, Service::Names { port, own });
            }
        }
    }
    if let Some(dhcp) = &gateway.dhcp {
        add(&dhcp.interface, Service::Addresses);
    }
    let advertised = gateway.advertise.as_ref().map(|section| &section.interface);
    let lent = gateway
        .dhcp
        .iter()
        .filter(|dhcp| dhcp.router_advertisements);
    let lent = lent.map(|dhcp| &dhcp.interface).next();
    if let Some(interface) = lent.or(advertised) {
        add(interface, Service::Router);
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: &str =
        "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";
    const LAN: &str = "[gateway]\ntunnel = \"home\"\nlan = [\"eth0\", \"eth1\"]\n";

    fn of(text: &str) -> Paths {
        let config = Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap();
        let addresses = [
            ("eth0", "192.168.1.2/24"),
            ("eth0", "fd00::2/64"),
            ("wan0", "203.0.113.9/24"),
        ];
        let machine = Machine {
            addresses: addresses
                .map(|(interface, net)| (interface.to_owned(), net.parse().unwrap()))
                .to_vec(),
            ..Machine::default()
        };
        paths(&config, &machine)
    }

    #[test]
    fn devices_ask_what_the_sections_offer() {
        let asked = |more: &str| {
            let asked = of(&format!("{TUNNEL}{LAN}{more}")).asked.into_iter();
            let told = asked.map(|asked| match asked.service {
                Service::Names { port, own } => {
                    format!("{} names {port} {}", asked.interface, own.len())
                }
                service => format!("{} {service:?}", asked.interface),
            });
            told.collect::<Vec<_>>()
        };
        assert!(asked("").is_empty());
        assert_eq!(asked("[gateway.dns]\n"), ["eth0 names 53 2"]);
        assert_eq!(
            asked("default = \"direct\"\n[gateway.dns]\n"),
            ["eth0 names 53 2", "eth0 names 985 2"]
        );
        let dhcp = "[gateway.dhcp]\ninterface = \"eth0\"\nrange = \"192.168.1.9-192.168.1.19\"\n";
        assert_eq!(asked(dhcp), ["eth0 Addresses", "eth0 Router"]);
        let lent_alone = format!("{dhcp}router_advertisements = false\n");
        assert_eq!(asked(&lent_alone), ["eth0 Addresses"]);
        let advertised = "[gateway.advertise]\ninterface = \"eth1\"\n";
        assert_eq!(asked(advertised), ["eth1 Router"]);
    }

    #[test]
    fn answers_are_of_the_families_that_are_called() {
        let answered = |remote: &str| of(&TUNNEL.replace("203.0.113.5", remote)).answered;
        assert_eq!(answered("203.0.113.5"), [Family::V4]);
        assert_eq!(answered("2001:db8::5"), [Family::V6]);
        assert_eq!(answered("vpn.example.org"), [Family::V4]);
        assert!(of("").answered.is_empty());
    }
}

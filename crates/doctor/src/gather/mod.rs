//! Gathers the facts: reads files and settings, asks the kernel, and has others ask the network.

mod certificates;
mod egress;
mod machine;
mod names;
mod servers;

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use cygnet_config::Config;
use cygnet_daemon::StartError;
use cygnet_daemon::api::Status;
use cygnet_daemon::survey;
use cygnet_ike::policy::Connection;
use cygnet_linux::Netlink;

use crate::check::framing_of;
use crate::facts::{
    Asked, Clock, Configuration, Facts, Leaks, Lends, Network, Own, Resolver, Tunnel, Unit, Units,
};
use crate::probe::web::Url;

/// Of links whose MTU nobody told.
const LINK_MTU: u16 = 1500;
/// The first address of the IPv6 internet (RFC 4291 §2.4): a route to it is one to everywhere.
const INTERNET6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));

/// Facts, and the names in them that a mask covers.
pub(crate) struct Gathered {
    pub(crate) facts: Facts,
    pub(crate) names: Vec<String>,
}

/// Gathers all that can be had. `status` is what the running program says.
///
/// # Errors
/// Nothing can be looked at: one sentence.
pub(crate) fn gather(
    path: &Path,
    status: Asked<Status>,
    units: Option<&[Unit; 2]>,
    url: Option<&Url>,
) -> Result<Gathered, String> {
    // As the running program names it.
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let read = survey::configuration(&path);
    let (config, read) = match read {
        Ok((config, summary)) => (Some(config), Ok(summary)),
        Err(error) => (None, Err(first_line(&error))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let facts = runtime.block_on(async {
        // The connection to the kernel lives on this runtime.
        let netlink = Netlink::connect().map_err(|e| e.to_string())?;
        let units = machine::units(units, &path, config.as_ref());
        all(&path, config.as_ref(), read, status, units, url, &netlink).await
    })?;
    let mut names = names::of(config.as_ref(), &facts, url);
    if config.is_none() {
        // What is said of it may quote it.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        names.extend(names::literals(&text));
    }
    Ok(Gathered { facts, names })
}

/// Of several mistakes the first, with how many there are.
fn first_line(error: &StartError) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} lines more)"),
    }
}

async fn all(
    path: &Path,
    config: Option<&Config>,
    read: Asked<String>,
    status: Asked<Status>,
    units: Units,
    url: Option<&Url>,
    netlink: &Netlink,
) -> Result<Facts, String> {
    let settings = machine::settings();
    let seen = match config {
        Some(config) => survey::network(config, netlink).await,
        None => Err("what it should be depends on the configuration".to_owned()),
    };
    let (network, local) = match seen {
        Ok(seen) => {
            let network = Network {
                settings,
                guard: seen.guard,
                firewalls: seen.firewalls,
                lan: seen.lan,
                policies: seen.policies,
                legs: seen.legs,
            };
            (network, seen.local)
        }
        Err(error) => {
            let network = Network {
                settings,
                guard: Some(Err(error.clone())),
                firewalls: Err(error),
                lan: None,
                policies: Ok(()),
                legs: Vec::new(),
            };
            (network, Vec::new())
        }
    };
    let mut tunnels = Vec::new();
    let mut egress = Vec::new();
    let mut ahead = None;
    if let Some(config) = config {
        let user = survey::helper_user(config)?;
        let links = netlink.links().await.unwrap_or_default();
        for (name, tunnel) in &config.tunnels {
            let Some(connection) = config.policy.connection(name) else {
                continue;
            };
            let link = links.iter().find(|link| link.name == tunnel.interface);
            let mut of = self::tunnel(connection, link.map(|link| link.mtu), tunnel.mtu);
            let way = servers::Way {
                netlink,
                settings: &network.settings,
                status: &status,
                daemon: &config.daemon,
                user,
            };
            of.hosts = servers::look(&way, connection, &of).await;
            tunnels.push(of);
        }
        if let Some(url) = url {
            let seen = egress::look(url, config, status.as_ref().ok(), user).await;
            ahead = seen
                .date
                .map(|date| (url.host.clone(), machine::now().saturating_sub(date)));
            egress = seen.ways;
        }
    }
    let configuration = configuration(path, config, read);
    let clock = Clock {
        date: config.map_or_else(|| Ok(machine::now()), survey::date),
        synchronised: cygnet_linux::clock::is_synchronised(),
        ahead,
        servers: status.as_ref().ok().and_then(|status| status.clock.clone()),
    };
    let machine = machine::machine(
        config.map(|config| &config.daemon),
        &configuration.interfaces,
    );
    Ok(Facts {
        configuration,
        units,
        expiring: match (config, clock.known()) {
            (Some(config), Some(date)) => survey::expiring(config, date),
            _ => Vec::new(),
        },
        clock,
        certificates: config.map(certificates::of).unwrap_or_default(),
        tunnels,
        network,
        leaks: Leaks {
            egress,
            resolvers: resolvers(netlink).await,
            answerer: machine::answers_names(),
            local,
            own: config.map(own_traffic).unwrap_or_default(),
            ipv6: leaves(netlink, INTERNET6).await,
            announced: netlink.announced().await.map_err(|e| e.to_string()),
        },
        machine,
        status,
    })
}

/// The resolvers, and how each is reached.
async fn resolvers(netlink: &Netlink) -> Asked<Vec<Resolver>> {
    let mut resolvers = Vec::new();
    for address in survey::resolvers()? {
        let leaves = leaves(netlink, address).await;
        resolvers.push(Resolver { address, leaves });
    }
    Ok(resolvers)
}

/// The interface by which what this machine itself sends to an address leaves, if there is a way. Nothing is sent.
async fn leaves(netlink: &Netlink, to: IpAddr) -> Option<String> {
    let route = netlink.route_to(to, None).await.ok()?;
    Some(route.interface)
}

fn configuration(path: &Path, config: Option<&Config>, read: Asked<String>) -> Configuration {
    let gateway = config.and_then(|config| config.gateway.as_ref());
    let tunnels = || {
        config
            .into_iter()
            .flat_map(|config| config.tunnels.values())
    };
    let interfaces = tunnels().map(|tunnel| tunnel.interface.clone());
    let server = config.and_then(|config| config.server.as_ref());
    let dhcp = gateway.and_then(|g| g.dhcp.as_ref());
    Configuration {
        path: path.display().to_string(),
        exists: config.is_some() || path.exists(),
        read,
        lan: gateway.map(|g| g.lan.clone()).unwrap_or_default(),
        gateway: gateway.map(|g| g.tunnel.clone()),
        answers: gateway.is_some_and(|g| g.dns.is_some()),
        lends: dhcp.map(|dhcp| Lends {
            resolvers: dhcp.dns.clone(),
        }),
        advertises: dhcp.is_some_and(|dhcp| dhcp.router_advertisements)
            || gateway.is_some_and(|g| g.advertise.is_some()),
        server: server.is_some(),
        site: tunnels().any(|tunnel| !tunnel.virtual_address),
        interfaces: interfaces
            .chain(server.map(|server| server.interface.clone()))
            .collect(),
    }
}

/// A tunnel but for its hosts. `link`: MTU of its interface, if it is there; `wanted`: as it is written.
fn tunnel(connection: &Connection, link: Option<u32>, wanted: Option<u16>) -> Tunnel {
    let offers = connection.children.first();
    let offers = offers.and_then(|child| child.esp_proposals.first());
    let offers = offers.map_or_else(String::new, |proposal| {
        let encryption = proposal.encryption.first().map(ToString::to_string);
        let integrity = proposal.integrity.first().map(ToString::to_string);
        let words: Vec<String> = encryption.into_iter().chain(integrity).collect();
        words.join("-")
    });
    let link = link.and_then(|mtu| u16::try_from(mtu).ok());
    let mtu = link
        .or(wanted)
        .unwrap_or_else(|| cygnet_gateway::inner_mtu(LINK_MTU, false, framing_of(&offers)));
    Tunnel {
        name: connection.name.clone(),
        mtu,
        searches_mtu: connection.search_mtu,
        offers,
        hosts: Vec::new(),
    }
}

/// Tunnels that all of this machine's own traffic takes.
fn own_traffic(config: &Config) -> Vec<Own> {
    let for_lan = |name: &String| {
        let gateway = config.gateway.as_ref();
        gateway.is_some_and(|g| g.tunnel == *name || g.devices.through.contains_key(name))
    };
    let all = config.tunnels.iter().filter(|tunnel| {
        let (name, tunnel) = *tunnel;
        let mut networks = tunnel.remote_networks.iter();
        let everything = networks.any(|net| net.prefix_len() == 0);
        tunnel.virtual_address && everything && !for_lan(name)
    });
    let own = |(name, tunnel): (&String, &cygnet_config::Tunnel)| Own {
        tunnel: name.clone(),
        interface: tunnel.interface.clone(),
    };
    all.map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap()
    }

    const HOME: &str =
        "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";
    const GATEWAY: &str = "[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";
    const SITE: &str = "[tunnel.site]\nremote = \"203.0.113.6\"\npsk = \"k\"\n\
        local_networks = [\"10.1.0.0/24\"]\nremote_networks = [\"10.2.0.0/24\"]\n";

    #[test]
    fn a_client_sends_its_own_traffic_and_a_gateway_does_not() {
        let home = Own {
            tunnel: "home".into(),
            interface: "cyg-home".into(),
        };
        assert_eq!(own_traffic(&config(HOME)), [home]);
        let gateway = config(&format!("{HOME}{SITE}{GATEWAY}"));
        assert!(own_traffic(&gateway).is_empty());
        let facts = configuration(Path::new("/t"), Some(&gateway), Ok(String::new()));
        assert!(facts.site && !facts.server && facts.is_router());
        assert_eq!(facts.lan, ["eth0"]);
        assert_eq!(facts.interfaces, ["cyg-home", "cyg-site"]);
        let client = configuration(Path::new("/t"), Some(&config(HOME)), Ok(String::new()));
        assert!(!client.is_router());
        assert_eq!((client.answers, client.lends), (false, None));
        let lending = config(&format!(
            "{HOME}{GATEWAY}[gateway.dns]\n[gateway.dhcp]\nrange = \"192.168.1.9-192.168.1.19\"\n"
        ));
        let facts = configuration(Path::new("/t"), Some(&lending), Ok(String::new()));
        let lends = Lends { resolvers: None };
        assert_eq!((facts.answers, facts.lends), (true, Some(lends)));
        assert!(facts.advertises && !client.advertises);
        let advertised = config(&format!("{HOME}{GATEWAY}[gateway.advertise]\n"));
        let facts = configuration(Path::new("/t"), Some(&advertised), Ok(String::new()));
        assert_eq!((facts.advertises, facts.lends), (true, None));
    }

    #[test]
    fn a_tunnels_mtu_is_that_of_its_interface_if_it_has_one() {
        let config = config(HOME);
        let connection = config.policy.connection("home").unwrap();
        let mtu = |link, wanted| tunnel(connection, link, wanted).mtu;
        assert_eq!(mtu(Some(1400), Some(1300)), 1400);
        assert_eq!(mtu(None, Some(1300)), 1300);
        assert_eq!(mtu(None, None), 1438);
    }
}

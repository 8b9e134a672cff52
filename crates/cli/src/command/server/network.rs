//! What this machine and the name service say about addresses.

use std::net::{IpAddr, ToSocketAddrs};

use cygnet_gateway::overlap;
use cygnet_linux::{Link, Netlink};
use cygnet_server::{Address, Error, Result};
use ipnet::IpNet;

/// The TUN of a server that runs already.
const OURS: &str = "cyg-srv";

/// Refuses host names that nobody could call.
pub(super) fn check_addresses(addresses: &[Address], take_all: bool) -> Result<()> {
    for address in addresses {
        address.check_callable()?;
        if let Address::Name(name) = address
            && !take_all
            && let Err(error) = (name.as_str(), 500).to_socket_addrs()
        {
            return Err(Error::Refused(format!(
                "{name} does not resolve ({error}): make its DNS record first, or give --no-resolve-check"
            )));
        }
    }
    Ok(())
}

/// Says it where an address is of use inside this network alone.
pub(super) fn tell_private(addresses: &[Address]) {
    for address in addresses.iter().filter(|it| it.is_private()) {
        println!(
            "{address} is a private address: clients reach it from inside its network alone. To let them in from the \
             internet, forward UDP 500 and 4500 to it in the router, and give the router's public name as --address."
        );
    }
}

/// Says it where an address leads to another machine: this one hears of a call only if that forwards it.
pub(super) fn tell_elsewhere(addresses: &[Address]) {
    let Ok(own) = ask(async |netlink| netlink.addresses().await) else {
        return;
    };
    let own: Vec<IpAddr> = own
        .iter()
        .map(|it| it.net.addr())
        .filter(|it| !it.is_loopback() && !cygnet_gateway::is_link_local(*it))
        .collect();
    for address in addresses {
        let leads_to: Vec<IpAddr> = match address {
            Address::Ip(address) => vec![address.to_canonical()],
            // One that does not resolve was refused, or is taken as it is.
            Address::Name(name) => (name.as_str(), 500)
                .to_socket_addrs()
                .map(|found| found.map(|it| it.ip()).collect())
                .unwrap_or_default(),
        };
        if let Some(told) = elsewhere(&address.to_string(), &leads_to, &own) {
            println!("{told}");
        }
    }
}

/// What there is to say of a name or an address that `leads_to` no address of this machine's `own`.
fn elsewhere(called: &str, leads_to: &[IpAddr], own: &[IpAddr]) -> Option<String> {
    if leads_to.is_empty() || leads_to.iter().any(|it| own.contains(it)) {
        return None;
    }
    let list = |addresses: &[IpAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(", ")
    };
    let what = match leads_to {
        [one] if one.to_string() == called => format!("{called} is no address"),
        [_] => format!("{called} leads to {}, which is no address", list(leads_to)),
        _ => format!(
            "{called} leads to {}, none of which is an address",
            list(leads_to)
        ),
    };
    let has = match own {
        [] => String::new(),
        own => format!(" (it has {})", list(own)),
    };
    Some(format!(
        "{what} of this machine{has}: that is right only if a router, or the provider, forwards UDP 500 and 4500 from there \
         to here. If it is a slip, `cygnet server set-address`."
    ))
}

/// Networks that this machine has addresses in, and those that it has routes to.
pub(super) fn known() -> Result<Vec<IpNet>> {
    ask(async |netlink| {
        let mut known = netlink.local_networks(&[OURS]).await?;
        known.extend(netlink.routed_networks().await?);
        Ok(known)
    })
}

/// Networks that this machine is in, and those that it has routes to.
pub(in super::super) struct Around {
    pub(in super::super) interfaces: Vec<IpNet>,
    pub(in super::super) routed: Vec<IpNet>,
}

impl Around {
    /// Whether something leads to each of these, which are to be this side of a tunnel.
    pub(in super::super) fn leads_to(&self, networks: &[IpNet]) -> std::result::Result<(), String> {
        let known = || self.interfaces.iter().chain(&self.routed);
        let is_known = |net: &IpNet| known().any(|it| overlap(it, net));
        let Some(net) = networks.iter().find(|net| !is_known(net)) else {
            return Ok(());
        };
        let interfaces: Vec<String> = self.interfaces.iter().map(ToString::to_string).collect();
        Err(format!(
            "no interface of this machine is in {net}, and no route leads there; it is in {}",
            match interfaces.as_slice() {
                [] => "no network".to_owned(),
                some => some.join(", "),
            }
        ))
    }
}

/// The same without the interfaces of tunnels, `ours`.
pub(in super::super) fn around(ours: &[String]) -> Result<Around> {
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    ask(async |netlink| {
        Ok(Around {
            interfaces: netlink.local_networks(&ours).await?,
            routed: netlink.routed_networks().await?,
        })
    })
}

/// The interfaces by which this machine is in a network that may be a LAN, without those of tunnels, `ours`.
pub(in super::super) fn lans(ours: &[String]) -> Result<Vec<String>> {
    ask(async |netlink| {
        let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
        Ok(in_a_network(&links, &addresses, ours))
    })
}

fn in_a_network(
    links: &[Link],
    addresses: &[cygnet_linux::Address],
    ours: &[String],
) -> Vec<String> {
    let in_one = |link: &&Link| {
        let mut of = addresses.iter().filter(|it| it.index == link.index);
        of.any(|it| it.net.addr().is_ipv4() && !it.net.addr().is_loopback())
    };
    let links = links
        .iter()
        .filter(|link| link.up && !ours.contains(&link.name));
    let mut names: Vec<String> = links.filter(in_one).map(|link| link.name.clone()).collect();
    names.sort();
    names
}

/// Refuses an interface that is not there.
pub(in super::super) fn check_interface(name: &str) -> Result<()> {
    ask(async |netlink| netlink.link(name).await.map(drop))
}

fn ask<T>(question: impl AsyncFnOnce(Netlink) -> cygnet_linux::Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Refused(format!("cannot start: {error}")))?;
    runtime
        .block_on(async { question(Netlink::connect()?).await })
        .map_err(|error| Error::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_machine_is_told_of() {
        let of = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace()
                .map(|it| it.parse().unwrap())
                .collect()
        };
        let own = of("203.0.113.6 2001:db8::6");
        for (called, leads_to) in [
            ("203.0.113.6", "203.0.113.6"),
            ("vpn.example.org", "203.0.113.9 2001:db8::6"),
            ("not.yet.example.org", ""),
        ] {
            assert_eq!(elsewhere(called, &of(leads_to), &own), None, "{called}");
        }
        for (called, leads_to, expected) in [
            (
                "203.0.113.55",
                "203.0.113.55",
                "203.0.113.55 is no address of this machine (it has 203.0.113.6, 2001:db8::6): ",
            ),
            (
                "vpn.example.org",
                "203.0.113.55",
                "vpn.example.org leads to 203.0.113.55, which is no address of this machine",
            ),
            (
                "vpn.example.org",
                "203.0.113.55 203.0.113.56",
                "leads to 203.0.113.55, 203.0.113.56, none of which is an address of",
            ),
        ] {
            let told = elsewhere(called, &of(leads_to), &own).unwrap();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_lan_is_where_this_machine_has_an_address() {
        let link = |index, name: &str, up| Link {
            index,
            name: name.to_owned(),
            mtu: 1500,
            up,
            carrier: true,
            mac: Vec::new(),
            bridge: false,
        };
        let address = |index, net: &str| cygnet_linux::Address {
            index,
            net: net.parse().unwrap(),
            permanent: true,
        };
        let links = [
            link(1, "lo", true),
            link(2, "wlan0", true),
            link(3, "eth0", true),
            link(4, "cyg-home", true),
            link(5, "eth1", false),
            link(6, "eth2", true),
        ];
        let addresses = [
            address(1, "127.0.0.1/8"),
            address(2, "192.168.1.7/24"),
            address(2, "192.168.1.8/24"),
            address(3, "10.0.0.2/24"),
            address(4, "10.99.0.2/32"),
            address(5, "10.1.0.2/24"),
            address(6, "fe80::1/64"),
        ];
        let found = in_a_network(&links, &addresses, &["cyg-home".to_owned()]);
        assert_eq!(found, ["eth0", "wlan0"]);
    }
}

//! What this machine and the name service say about addresses.

use std::net::ToSocketAddrs;

use cygnet_linux::Netlink;
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

/// Networks that this machine has addresses in, and those that it has routes to.
pub(super) fn known() -> Result<Vec<IpNet>> {
    ask(async |netlink| {
        let mut known = netlink.local_networks(&[OURS]).await?;
        known.extend(netlink.routed_networks().await?);
        Ok(known)
    })
}

/// The same for a server that is set up: where it runs already, the ways to its pools are its own.
pub(super) fn known_beside(pools: &[IpNet]) -> Result<Vec<IpNet>> {
    ask(async |netlink| {
        let mut known = netlink.local_networks(&[OURS]).await?;
        known.extend(others(netlink.routed_networks().await?, pools));
        Ok(known)
    })
}

/// The routes that lead to none of these pools.
fn others(mut routes: Vec<IpNet>, pools: &[IpNet]) -> Vec<IpNet> {
    routes.retain(|it| !pools.contains(it));
    routes
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
    fn a_running_server_is_not_in_its_own_way() {
        let networks = |text: &str| -> Vec<IpNet> {
            text.split(' ').map(|it| it.parse().expect(it)).collect()
        };
        let pools = networks("10.99.0.0/24 fd99::/112");
        let routes = networks("10.99.0.0/24 10.99.0.0/16 192.168.1.0/24 fd99::/112");
        assert_eq!(
            others(routes, &pools),
            networks("10.99.0.0/16 192.168.1.0/24")
        );
    }
}

//! Asks a web host through each tunnel that lends addresses, and around it.

use std::net::IpAddr;

use cygnet_config::Config;
use cygnet_daemon::api::{ConnectionStatus, Status};
use cygnet_daemon::survey;
use cygnet_gateway::OUTER_MARK;
use cygnet_linux::unconnected_tcp;

use crate::facts::{Asked, Egress};
use crate::probe::web::{Seen, Trouble, Url};
use crate::probe::{self, web};

/// What came of it.
pub(super) struct Asking {
    pub(super) ways: Vec<Egress>,
    /// What time it is there, in seconds since 1970.
    pub(super) date: Option<i64>,
}

pub(super) async fn look(
    url: &Url,
    config: &Config,
    status: Option<&Status>,
    user: (u32, u32),
) -> Asking {
    let addresses = match url.host.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) => survey::resolve(&url.host, user).await,
    };
    let tunnels = status.map(clients).unwrap_or_default();
    let tunnels = tunnels.iter().filter(|(name, _)| {
        let tunnel = config.tunnels.get(*name);
        tunnel.is_some_and(|tunnel| tunnel.virtual_address)
    });
    let mut asking = Asking {
        ways: Vec::new(),
        date: None,
    };
    let addresses = match addresses {
        Ok(addresses) => addresses,
        Err(error) => {
            asking.ways.extend(tunnels.map(|(name, address)| Egress {
                tunnel: (*name).to_owned(),
                ipv6: address.is_ipv6(),
                through: Err(error.clone()),
                around: Err(error.clone()),
            }));
            return asking;
        }
    };
    let of_family = |ipv6: bool| addresses.iter().copied().find(|a| a.is_ipv6() == ipv6);
    let mut around: Vec<(bool, Asked<Seen>)> = Vec::new();
    for ipv6 in [false, true] {
        if let Some(at) = of_family(ipv6) {
            let seen = ask(url, at, None, Some(OUTER_MARK), user).await;
            asking.date = asking
                .date
                .or(seen.as_ref().ok().and_then(|seen| seen.date));
            around.push((ipv6, seen));
        }
    }
    for (name, address) in tunnels {
        let ipv6 = address.is_ipv6();
        let known = around.iter().find(|(family, _)| *family == ipv6);
        let (Some(at), Some((_, around))) = (of_family(ipv6), known) else {
            continue;
        };
        // A tunnel to some networks alone does not lead there.
        let tunnel = config.tunnels.get(*name);
        let mut networks = tunnel
            .into_iter()
            .flat_map(|tunnel| &tunnel.remote_networks);
        if !networks.any(|net| net.contains(&at)) {
            continue;
        }
        let through = ask(url, at, Some(*address), None, user).await;
        let date = through.as_ref().ok().and_then(|seen| seen.date);
        asking.date = asking.date.or(date);
        asking.ways.push(Egress {
            tunnel: (*name).to_owned(),
            ipv6,
            through,
            around: around.clone(),
        });
    }
    asking
}

/// Tunnels that are up, with each address that the peer lent: packets from it go into the tunnel.
fn clients(status: &Status) -> Vec<(&str, IpAddr)> {
    let connections = status.engine.iter().flat_map(|engine| &engine.connections);
    let is_up = |connection: &&ConnectionStatus| connection.state == "up";
    let lent = connections.filter(is_up).flat_map(|connection| {
        let sas = connection.ike_sas.iter().filter(|sa| sa.initiator);
        let mut lent: Vec<IpAddr> = sas.flat_map(|sa| sa.virtual_addresses.clone()).collect();
        lent.sort();
        lent.dedup();
        let name = connection.name.as_str();
        lent.into_iter().map(move |address| (name, address))
    });
    lent.collect()
}

async fn ask(
    url: &Url,
    at: IpAddr,
    from: Option<IpAddr>,
    mark: Option<u32>,
    user: (u32, u32),
) -> Asked<Seen> {
    let socket = unconnected_tcp(at.is_ipv6(), mark).map_err(|error| error.to_string())?;
    let errand = url.errand(at, from);
    let seen: Result<Seen, Trouble> =
        probe::ask("probe-web", &errand, socket, user, web::PATIENCE).await?;
    seen.map_err(|trouble| trouble.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::healthy;

    #[test]
    fn an_address_that_two_ike_sas_share_is_tried_once() {
        let mut status = healthy().status.unwrap();
        let connection = &mut status.engine.as_mut().unwrap().connections[0];
        let mut other = connection.ike_sas[0].clone();
        other.virtual_addresses.push("fd99::2".parse().unwrap());
        connection.ike_sas.push(other);
        let expected = ["10.99.0.2", "fd99::2"].map(|a| ("home", a.parse().unwrap()));
        assert_eq!(clients(&status), expected);
        let connections = &mut status.engine.as_mut().unwrap().connections;
        connections[0].state = "waiting".into();
        assert!(clients(&status).is_empty());
    }
}

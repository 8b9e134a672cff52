//! Asks for the servers of a tunnel: where they are, which way leads there, whether they answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cygnet_config::Daemon;
use cygnet_crypto::{Random, SystemRandom};
use cygnet_daemon::api::Status;
use cygnet_daemon::survey;
use cygnet_gateway::{OUTER_MARK, inner_mtu};
use cygnet_ike::policy::{self, Connection, Remote};
use cygnet_linux::{Netlink, UdpOptions, UdpSocket};
use cygnet_wire::header::Spi;

use crate::check::framing_of;
use crate::facts::{Asked, Host, Server, Tunnel, connections};
use crate::probe::{self, ike};

/// Of one name so many are asked.
const ADDRESSES: usize = 4;

/// How anything gets there.
pub(super) struct Way<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) settings: &'a BTreeMap<String, String>,
    pub(super) status: &'a Asked<Status>,
    pub(super) daemon: &'a Daemon,
    /// Whoever talks to a network.
    pub(super) user: (u32, u32),
}

/// The hosts that a connection calls; none where the peer calls.
pub(super) async fn look(way: &Way<'_>, connection: &Connection, tunnel: &Tunnel) -> Vec<Host> {
    let Remote::Hosts {
        servers: listed,
        port,
    } = &connection.remote
    else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for one in listed {
        let (name, addresses) = match &one.host {
            policy::Host::Address(address) => (address.to_string(), Ok(vec![*address])),
            policy::Host::Name(name) => (name.clone(), survey::resolve(name, way.user).await),
        };
        let servers = match addresses {
            Err(error) => Err(error),
            Ok(addresses) => {
                let mut servers = Vec::new();
                for address in addresses.into_iter().take(ADDRESSES) {
                    servers.push(server(way, connection, tunnel, address, *port).await);
                }
                Ok(servers)
            }
        };
        all.push(Host { name, servers });
    }
    all
}

async fn server(
    way: &Way<'_>,
    connection: &Connection,
    tunnel: &Tunnel,
    address: IpAddr,
    port: u16,
) -> Server {
    let route = way.netlink.route_to(address, Some(OUTER_MARK)).await;
    let plain = way.netlink.route_to(address, None).await;
    let leaves = route.as_ref().map(|route| route.interface.clone());
    let hidden = match (&leaves, &plain) {
        (Ok(leaves), Ok(plain)) => {
            // Such a filter asks for the way back without the mark.
            *leaves != plain.interface && address.is_ipv4() && is_strict(way.settings, leaves)
        }
        _ => false,
    };
    let found = match leaves {
        Ok(_) => ask(way, connection, tunnel, address, port).await,
        Err(_) => Err("there is no way there".to_owned()),
    };
    Server {
        address,
        route: leaves.map_err(ToString::to_string),
        hidden,
        found,
    }
}

fn is_strict(settings: &BTreeMap<String, String>, interface: &str) -> bool {
    let of = |of: &str| settings.get(&format!("net/ipv4/conf/{of}/rp_filter"));
    of("all")
        .max(of(interface))
        .is_some_and(|value| value == "1")
}

async fn ask(
    way: &Way<'_>,
    connection: &Connection,
    tunnel: &Tunnel,
    server: IpAddr,
    port: u16,
) -> Asked<ike::Found> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let own = connection.local_address;
    let own = own.filter(|own| own.is_ipv4() == server.is_ipv4());
    // As what the program itself sends, it goes around tunnels.
    let socket = UdpSocket::bind(&UdpOptions {
        mark: Some(OUTER_MARK),
        gro: false,
        buffer: 0,
        timestamps: false,
        ..UdpOptions::new(SocketAddr::new(own.unwrap_or(any), 0))
    });
    let socket = socket.map_err(|error| error.to_string())?;
    let spi = spi();
    let to = SocketAddr::new(server, port);
    let call = ike::call(&connection.ike_proposals, spi, to, &mut SystemRandom)
        .ok_or("this tunnel offers nothing")?;
    let natt = way.daemon.natt_port;
    let mut ports = vec![(port, port == natt)];
    // A NAT, found or claimed, leads on from the one to the other.
    if port == 500 {
        ports.push((natt, true));
    }
    let errand = ike::Errand {
        server,
        ports,
        call: ike::hex(&call),
        is_up: is_up(way.status, &connection.name, server),
        spi: spi.0,
        size: outer(tunnel, server.is_ipv6()),
    };
    let socket = socket.into_fd();
    probe::ask("probe-ike", &errand, socket, way.user, ike::PATIENCE).await
}

/// Whether a tunnel is up with the server at this address.
fn is_up(status: &Asked<Status>, tunnel: &str, server: IpAddr) -> bool {
    let sas = connections(status)
        .filter(|it| it.name == tunnel)
        .flat_map(|it| &it.ike_sas);
    let mut up = sas.filter(|sa| sa.state == "up");
    up.any(|sa| sa.remote.ip() == server)
}

fn spi() -> Spi {
    let mut octets = [0; 8];
    SystemRandom.fill(&mut octets);
    // Zero is none (RFC 7296 §3.1).
    octets[0] |= 0x80;
    Spi::from_bytes(octets)
}

/// Octets of the IP packet that the largest packet in the tunnel becomes.
fn outer(tunnel: &Tunnel, ipv6: bool) -> u16 {
    let framing = framing_of(&tunnel.offers);
    let fits = |size: &u16| inner_mtu(*size, ipv6, framing) >= tunnel.mtu;
    (tunnel.mtu..u16::MAX).find(fits).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_packet_becomes_what_the_link_takes() {
        let tunnel = |mtu, offers: &str| Tunnel {
            name: "home".into(),
            mtu,
            searches_mtu: true,
            offers: offers.into(),
            hosts: Vec::new(),
        };
        assert_eq!(outer(&tunnel(1438, "aes256gcm16"), false), 1500);
        assert_eq!(outer(&tunnel(1418, ""), true), 1500);
        // Blocks of 16 do not fill the link.
        assert_eq!(outer(&tunnel(1422, "aes128-sha256"), false), 1492);
    }

    #[test]
    fn a_tunnel_is_up_with_one_server() {
        let status = crate::facts::healthy().status;
        let is_up = |tunnel, server: [u8; 4]| is_up(&status, tunnel, server.into());
        assert!(is_up("home", [203, 0, 113, 5]));
        assert!(!is_up("home", [203, 0, 113, 6]));
        assert!(!is_up("work", [203, 0, 113, 5]));
    }

    #[test]
    fn the_stricter_of_two_filters_counts() {
        let strict = |all: &str, one: &str| {
            let path = |of: &str| format!("net/ipv4/conf/{of}/rp_filter");
            let settings = [
                (path("all"), all.to_owned()),
                (path("eth0"), one.to_owned()),
            ];
            is_strict(&settings.into(), "eth0")
        };
        assert!(strict("1", "0") && strict("0", "1") && strict("1", "1"));
        assert!(!strict("0", "0") && !strict("1", "2") && !strict("2", "1"));
        assert!(!is_strict(&BTreeMap::new(), "eth0"));
    }
}

//! Networks that another office knows by other addresses, and what is tracked of connections from before that was so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cygnet_config::Config;
use ipnet::IpNet;

/// A network of ours: as it is here, as a tunnel shows it, and the networks behind that tunnel.
type Shown = (IpNet, IpNet, Vec<IpNet>);

/// Ends connections of networks that are shown otherwise now than `before`: the kernel translates a connection as it
/// began. One that goes on begins anew with its next packet.
pub(super) fn end_changed(before: Option<&Config>, now: &Config) {
    let (before, now) = (before.map(shown).unwrap_or_default(), shown(now));
    let changed: Vec<&Shown> = before.symmetric_difference(&now).collect();
    if changed.is_empty() {
        return;
    }
    let ended = cygnet_linux::end_connections(|connection| {
        let (source, destination) = (connection.source, connection.destination);
        let mut changed = changed.iter();
        changed.any(|shown| {
            concerns(shown, source, destination) || concerns(shown, destination, source)
        })
    });
    if let Err(error) = ended {
        tracing::warn!(
            "`local_map` is another one than before, but running connections cannot be ended, and may hang: {error}"
        );
    }
}

fn shown(config: &Config) -> BTreeSet<Shown> {
    let tunnels = config.tunnels.values();
    let of_tunnel = |tunnel: &cygnet_config::Tunnel| -> Vec<Shown> {
        let maps = tunnel.maps.iter();
        maps.map(|map| (map.own(), map.shown(), tunnel.remote_networks.clone()))
            .collect()
    };
    tunnels.flat_map(of_tunnel).collect()
}

/// Whether one of the two is a host of that network, by either address, and the other is behind the tunnel.
fn concerns((own, shown, remote): &Shown, near: IpAddr, far: IpAddr) -> bool {
    (own.contains(&near) || shown.contains(&near)) && remote.iter().any(|net| net.contains(&far))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_concerns_who_has_two_addresses_and_the_other_side_alone() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let shown = (
            net("192.168.1.0/24"),
            net("10.201.1.0/24"),
            vec![net("10.202.1.0/24")],
        );
        let concerns =
            |near: &str, far: &str| concerns(&shown, near.parse().unwrap(), far.parse().unwrap());
        assert!(concerns("192.168.1.7", "10.202.1.7"));
        assert!(concerns("10.201.1.7", "10.202.1.7"));
        assert!(!concerns("192.168.1.7", "198.51.100.1"));
        assert!(!concerns("192.168.2.7", "10.202.1.7"));
    }
}

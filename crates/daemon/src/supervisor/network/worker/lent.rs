//! Addresses that a tunnel got from its server, and connections that leave by others: another server, or the same one
//! later, lends others, and of what an earlier process did nothing is known.
//!
//! The kernel translates a connection as it began. One that has another address than its tunnel's would get no answer,
//! however long it goes on, and as long as its packets come it is not forgotten. It is ended; its next packet begins it
//! anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cygnet_gateway::{Lan, OWN_MARK, Way};
use cygnet_linux::Connection;
use ipnet::IpNet;
use tokio::time::Instant;

use super::Worker;

impl Worker {
    /// A tunnel has other addresses than `before`.
    pub(super) fn lent(&mut self, connection: &str, before: Vec<IpAddr>) {
        let now = self.live.get(connection);
        let now = now
            .map(|live| live.addresses.as_slice())
            .unwrap_or_default();
        self.lent_anew |= now.iter().any(|address| !before.contains(address));
        self.given_back.extend(before);
    }

    /// Ends connections whose packets leave by an address that no tunnel has any more, and, once a tunnel got one, those
    /// of devices that have none of a tunnel though they belong into one.
    pub(super) async fn end_misled(&mut self) {
        let live = self.live.iter();
        let lent: BTreeMap<String, Vec<IpAddr>> = live
            .map(|(tunnel, live)| (tunnel.clone(), live.addresses.clone()))
            .collect();
        let mut gone = std::mem::take(&mut self.given_back);
        gone.retain(|address| !lent.values().any(|lent| lent.contains(address)));
        let anew = match std::mem::take(&mut self.lent_anew) {
            true => {
                // Who goes direct by a MAC address is known by it alone.
                self.learn().await;
                self.lan_as_arranged()
            }
            false => None,
        };
        if gone.is_empty() && anew.is_none() {
            return;
        }
        let around = Around {
            own: self
                .machine
                .addresses
                .iter()
                .map(|(_, net)| net.addr())
                .collect(),
            sites: self.sites(),
            lent,
        };
        let owners = self.seen.owners();
        let ended = cygnet_linux::end_connections(|connection| {
            let mac = owners.get(&connection.source).copied();
            let is_misled = |lan: &Lan| {
                let way = lan.way(mac, connection.source, connection.destination);
                around.is_misled(lan, way, connection)
            };
            gone.contains(&connection.answered) || anew.as_ref().is_some_and(is_misled)
        });
        if let Err(error) = ended {
            tracing::warn!(
                "a tunnel has another address, but running connections that left by an old one, or by none, cannot be \
                 ended, and may hang: {error}"
            );
        }
    }

    /// The LAN with what goes direct by its name.
    fn lan_as_arranged(&self) -> Option<Lan> {
        let mut lan = self.lan()?;
        lan.direct_names.addresses = self.held.left(Instant::now());
        Some(lan)
    }

    /// Networks that are reached untranslated.
    fn sites(&self) -> Vec<IpNet> {
        let config = self.config.iter();
        let tunnels = config.flat_map(|config| config.tunnels.values());
        let sites = tunnels.filter(|tunnel| !tunnel.virtual_address);
        sites
            .flat_map(|site| site.remote_networks.clone())
            .collect()
    }
}

/// What connections are judged by.
struct Around {
    /// This machine's addresses.
    own: BTreeSet<IpAddr>,
    /// Networks that are reached untranslated.
    sites: Vec<IpNet>,
    /// Addresses that tunnels have, by their names.
    lent: BTreeMap<String, Vec<IpAddr>>,
}

impl Around {
    /// Whether a connection, a device's or one of this machine that was led there, belongs into a tunnel and has no
    /// address of it. `way`: a device's packets'.
    fn is_misled(&self, lan: &Lan, way: Way<'_>, connection: Connection) -> bool {
        let Connection {
            source,
            destination,
            answered,
            answers,
            mark,
        } = connection;
        let inside = |address: IpAddr| {
            self.own.contains(&address) || lan.networks.iter().any(|net| net.contains(&address))
        };
        let way = match (self.own.contains(&source), mark) {
            (true, OWN_MARK) => lan.own_way(destination),
            (false, _) if inside(source) => way,
            _ => return false,
        };
        let Some(tunnel) = lan.entered(way) else {
            return false;
        };
        let lent = self.lent.get(tunnel).map_or(&[][..], Vec::as_slice);
        // What is redirected (a question for a name) is answered here.
        answers == destination
            && !inside(destination)
            && !self.sites.iter().any(|net| net.contains(&destination))
            && !lent.contains(&answered)
    }
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::OwnNeeds;

    use super::*;

    #[test]
    fn misled_is_what_belongs_into_a_tunnel_and_has_no_address_of_one() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let lan = Lan {
            tunnel: "home".to_owned(),
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            own: Some(OwnNeeds::default()),
            ..Lan::default()
        };
        let around = Around {
            own: [ip("192.168.1.2")].into(),
            sites: vec!["10.202.1.0/24".parse().unwrap()],
            lent: [("home", "10.99.0.2"), ("work", "10.77.0.2")]
                .map(|(tunnel, address)| (tunnel.to_owned(), vec![ip(address)]))
                .into(),
        };
        let of = |source, destination, answered, answers| Connection {
            source: ip(source),
            destination: ip(destination),
            answered: ip(answered),
            answers: ip(answers),
            mark: 0,
        };
        let (laptop, web) = ("192.168.1.20", "198.51.100.80");
        let untranslated = of(laptop, web, laptop, web);
        let misled = |connection| around.is_misled(&lan, Way::Tunnelled, connection);
        assert!(misled(untranslated));
        assert!(
            misled(of(laptop, web, "10.99.0.3", web)),
            "by an address of another time"
        );
        assert!(
            !misled(of(laptop, web, "10.99.0.2", web)),
            "as it should be"
        );
        let by_other = of(laptop, web, "10.77.0.2", web);
        assert!(misled(by_other), "by another tunnel's");
        assert!(!around.is_misled(&lan, Way::Through("work"), by_other));
        assert!(around.is_misled(&lan, Way::Through("gone"), by_other));
        assert!(!around.is_misled(&lan, Way::Direct, untranslated));
        let led = |answered| Connection {
            mark: OWN_MARK,
            ..of("192.168.1.2", web, answered, web)
        };
        assert!(misled(led("192.168.1.2")), "it called the tunnel");
        assert!(!misled(led("10.99.0.2")));
        for stays in [
            of("192.168.1.2", web, "192.168.1.2", web),
            of(laptop, "192.168.1.21", laptop, "192.168.1.21"),
            of(laptop, "192.168.1.2", laptop, "192.168.1.2"),
            of(laptop, "10.202.1.7", laptop, "10.202.1.7"),
            of(laptop, "9.9.9.9", laptop, "192.168.1.2"),
            of("203.0.113.7", web, "203.0.113.7", web),
        ] {
            assert!(!misled(stays), "{stays:?}");
        }
    }
}

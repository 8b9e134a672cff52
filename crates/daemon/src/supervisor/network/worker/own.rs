//! Connections of this machine itself that began while it might send what it likes, or while nobody said otherwise.
//!
//! They are refused from then on, and a program whose TCP connection is refused begins another. What has no connection
//! goes on from the same port, and as long as its packets come the kernel takes them for what was begun. It is ended; the
//! next packet begins it anew, and goes where it belongs. Not before the answers that are on their way have come: one that
//! belongs to no connection would begin one, and whoever calls is answered.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cygnet_config::Config;
use cygnet_gateway::{Changes, Lan, OWN_MARK, Way};
use cygnet_linux::Connection;
use tokio::time::Instant;

use super::Worker;
use crate::supervisor::network::ways::{self, Target};

/// The last answer to what was let out comes within this time.
const ANSWERED: Duration = Duration::from_secs(2);

/// Whether it may.
fn is_free(lan: &Lan) -> bool {
    lan.own.is_none() || lan.on_failure.is_open()
}

/// Whether some of what it sent as it is may go into a tunnel now.
pub(super) fn may_be_held(before: &Lan, now: &Lan) -> bool {
    is_free(before) && !is_free(now)
        || before.direct_networks != now.direct_networks
        || before.through != now.through
}

/// Whether a connection began in a tunnel and belongs elsewhere now, where nobody knows it by the address that it has.
pub(super) fn belongs_elsewhere(changes: &Changes<'_>, connection: Connection) -> bool {
    connection.mark == OWN_MARK && changes.concern_own(connection.destination)
}

impl Worker {
    /// From now on it may not: they are ended when nothing more is on its way.
    pub(super) fn end_own_soon(&mut self) {
        let at = Instant::now() + ANSWERED;
        self.own_ends = Some(at);
        self.heard.look_at(at);
    }

    /// Whether the LAN's tunnel carries may have changed. What a resolver of this machine asks, it asks by the tunnel or as
    /// it is, and perhaps from one port all the time.
    pub(super) fn follow_carrying(&mut self) {
        let gateway = self
            .config
            .as_ref()
            .and_then(|config| config.gateway.as_ref());
        let live = gateway.and_then(|gateway| self.live.get(&gateway.tunnel));
        let carries = live.is_some_and(|live| live.up && !live.reached.is_empty());
        let before = std::mem::replace(&mut self.own_carried, carries);
        let needs = self.lan().and_then(|lan| lan.own);
        let asks_on = needs.is_some_and(|needs| needs.resolvers.is_none());
        match carries {
            _ if before == carries || !asks_on => {}
            true => self.end_own_soon(),
            false => {
                let ended = cygnet_linux::end_connections(|c| c.mark == OWN_MARK);
                if let Err(error) = ended {
                    tracing::warn!(
                        "the tunnel is down, and what this machine asked by it may go on waiting there for some time: {error}"
                    );
                }
            }
        }
    }

    /// Ends them when it is time, unless this machine may again.
    pub(super) fn follow_own(&mut self, config: &Config) {
        let Some(at) = self.own_ends else { return };
        if at > Instant::now() {
            return self.heard.look_at(at);
        }
        let Some(lan) = self.lan() else { return };
        self.own_ends = None;
        let addresses = self.machine.addresses.iter();
        let own: BTreeSet<IpAddr> = addresses.map(|(_, net)| net.addr()).collect();
        let peers = ways::targets(config, &self.live);
        let ended = cygnet_linux::end_connections(|connection| {
            let to = Target::Peer(connection.destination);
            began_otherwise(&lan, &own, connection) && !peers.contains(&to)
        });
        if let Err(error) = ended {
            tracing::warn!(
                "this machine's own traffic goes through the tunnel from now on, but what it had begun in clear cannot be \
                 ended, and may be refused for some time: {error}"
            );
        }
    }
}

fn began_otherwise(lan: &Lan, own: &BTreeSet<IpAddr>, connection: Connection) -> bool {
    let to = connection.destination;
    let beside = lan.own.iter().flat_map(|needs| &needs.beside);
    let mut near = lan.networks.iter().chain(beside.map(|(_, net)| net));
    connection.mark != OWN_MARK
        && own.contains(&connection.source)
        && !own.contains(&to)
        && !near.any(|net| net.contains(&to))
        && lan.own_way(to) != Way::Direct
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::{OnFailure, OwnNeeds, Through};

    use super::*;

    #[test]
    fn what_this_machine_began_for_elsewhere_is_ended_and_nothing_else() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let lan = Lan {
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            ..Lan::default()
        };
        let lan = Lan {
            own: Some(OwnNeeds {
                beside: vec![("docker0".parse().unwrap(), "172.17.0.0/16".parse().unwrap())],
                ..OwnNeeds::default()
            }),
            direct_networks: vec!["198.51.101.0/24".parse().unwrap()],
            ..lan
        };
        let own = [ip("192.168.1.2"), ip("203.0.113.2")].into();
        let (web, laptop) = ("198.51.100.80", "192.168.1.20");
        for (source, destination, mark, ended) in [
            ("203.0.113.2", web, 0, true),
            ("192.168.1.2", web, 0, true),
            ("203.0.113.2", web, OWN_MARK, false),
            ("192.168.1.2", laptop, 0, false),
            ("192.168.1.2", "203.0.113.2", 0, false),
            ("203.0.113.2", "172.17.0.2", 0, false),
            ("203.0.113.2", "198.51.101.80", 0, false),
            // Who called, and devices.
            (web, "203.0.113.2", 0, false),
            (laptop, web, 0, false),
        ] {
            let connection = Connection {
                source: ip(source),
                destination: ip(destination),
                answered: ip(source),
                answers: ip(destination),
                mark,
            };
            let told = began_otherwise(&lan, &own, connection);
            assert_eq!(told, ended, "{source} {destination} {mark:x}");
        }
    }

    #[test]
    fn what_began_in_a_tunnel_is_ended_where_it_belongs_elsewhere_now() {
        let held = || Lan {
            own: Some(OwnNeeds::default()),
            ..Lan::default()
        };
        let web: IpAddr = "198.51.100.80".parse().unwrap();
        let connection = |mark| Connection {
            source: "192.168.1.2".parse().unwrap(),
            destination: web,
            answered: "10.99.0.2".parse().unwrap(),
            answers: web,
            mark,
        };
        let nets = |net: &str| vec![net.parse().unwrap()];
        let through = |net| {
            vec![Through {
                tunnel: "work".to_owned(),
                interface: "cyg-work".parse().unwrap(),
                networks: nets(net),
            }]
        };
        let open = OnFailure::Direct { open: true };
        for (now, elsewhere) in [
            (Lan::default(), true),
            (held(), false),
            (
                Lan {
                    direct_networks: nets("198.51.100.0/24"),
                    ..held()
                },
                true,
            ),
            (
                Lan {
                    direct_networks: nets("198.51.101.0/24"),
                    through: through("10.0.0.0/8"),
                    on_failure: OnFailure::Direct { open: false },
                    ..held()
                },
                false,
            ),
            (
                Lan {
                    through: through("198.51.100.0/24"),
                    ..held()
                },
                true,
            ),
            (
                Lan {
                    on_failure: open,
                    ..held()
                },
                true,
            ),
            (
                Lan {
                    tunnel: "another".to_owned(),
                    ..held()
                },
                true,
            ),
        ] {
            let before = held();
            let changes = now.since(&before);
            let ended = belongs_elsewhere(&changes, connection(OWN_MARK));
            assert_eq!(ended, elsewhere, "{now:?}");
            assert!(!belongs_elsewhere(&changes, connection(0)));
        }
    }

    #[test]
    fn what_was_sent_as_it_is_may_be_held_by_more_than_the_one_word() {
        let lan = |own: Option<OwnNeeds>, direct: &[&str], on_failure| Lan {
            own,
            direct_networks: direct.iter().map(|net| net.parse().unwrap()).collect(),
            on_failure,
            ..Lan::default()
        };
        let needs = || Some(OwnNeeds::default());
        let (open, closed) = [true, false].map(|open| OnFailure::Direct { open }).into();
        let held = lan(needs(), &[], closed);
        for (before, may) in [
            (lan(None, &[], closed), true),
            (lan(needs(), &[], open), true),
            (lan(needs(), &["198.51.100.0/24"], closed), true),
            (lan(needs(), &[], closed), false),
        ] {
            assert_eq!(may_be_held(&before, &held), may, "{before:?}");
        }
        assert!(!may_be_held(&held, &lan(None, &[], closed)));
    }
}

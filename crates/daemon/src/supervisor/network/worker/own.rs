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
use cygnet_gateway::{Lan, OWN_MARK};
use cygnet_linux::Connection;
use tokio::time::Instant;

use super::Worker;
use crate::supervisor::network::ways::{self, Target};

/// The last answer to what was let out comes within this time.
const ANSWERED: Duration = Duration::from_secs(2);

/// Whether it may.
pub(super) fn is_free(lan: &Lan) -> bool {
    lan.own.is_none() || lan.on_failure.is_open()
}

/// Whether what it began may belong elsewhere now: what began in a tunnel has an address that nobody knows outside, and
/// what began outside is refused.
pub(super) fn goes_otherwise(before: &Lan, now: &Lan) -> bool {
    before.own.is_some() != now.own.is_some()
        || before.on_failure != now.on_failure
        || before.direct_networks != now.direct_networks
        || before.through != now.through
}

impl Worker {
    /// From now on it may not: they are ended when nothing more is on its way.
    pub(super) fn end_own_soon(&mut self) {
        let at = Instant::now() + ANSWERED;
        self.own_ends = Some(at);
        self.heard.look_at(at);
    }

    /// Ends them when it is time, unless this machine may again.
    pub(super) fn follow_own(&mut self, config: &Config) {
        let Some(at) = self.own_ends else { return };
        if at > Instant::now() {
            return self.heard.look_at(at);
        }
        let Some(lan) = self.lan() else { return };
        self.own_ends = None;
        if is_free(&lan) {
            return;
        }
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
    let is_near = |to| own.contains(&to) || lan.networks.iter().any(|net| net.contains(&to));
    connection.mark != OWN_MARK && own.contains(&connection.source) && !is_near(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_began_for_elsewhere_is_ended_and_nothing_else() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let lan = Lan {
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            ..Lan::default()
        };
        let own = [ip("192.168.1.2"), ip("203.0.113.2")].into();
        let (web, laptop) = ("198.51.100.80", "192.168.1.20");
        for (source, destination, mark, ended) in [
            ("203.0.113.2", web, 0, true),
            ("192.168.1.2", web, 0, true),
            ("203.0.113.2", web, OWN_MARK, false),
            ("192.168.1.2", laptop, 0, false),
            ("192.168.1.2", "203.0.113.2", 0, false),
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
}

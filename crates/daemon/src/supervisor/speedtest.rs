//! The process at which the server's clients measure their speed, where `[server] speedtest` asks for one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cygnet_config::{Config, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

use super::hooks::visible;
use super::leases::own_address;
use crate::{helper, speedtest};

/// A process that ended is started again after this, at the earliest.
const AGAIN: Duration = Duration::from_secs(10);
/// Octets of what one says that are read: it has few reasons to say anything.
const SAID_MAX: u64 = 8 << 10;

/// What runs, or is to run.
#[derive(Default)]
pub(super) struct Endpoint {
    /// The argument of the process; `None`: none is to run.
    wanted: Option<String>,
    running: Option<Running>,
    last_start: Option<Instant>,
}

struct Running {
    argument: String,
    /// Killed when it is dropped.
    child: Child,
}

impl Endpoint {
    /// Obeys a (new) configuration.
    pub(super) fn configure(&mut self, config: &Config, user: (u32, u32)) {
        let wanted = config.server.as_ref().and_then(wanted);
        if wanted != self.wanted {
            self.wanted = wanted;
            self.last_start = None;
        }
        self.watch(user);
    }

    /// Ends what is not to run, and starts what is.
    pub(super) fn watch(&mut self, user: (u32, u32)) {
        if let Some(mut running) = self.running.take() {
            let is_wanted = self.wanted.as_ref() == Some(&running.argument);
            match running.child.try_wait() {
                Ok(None) if is_wanted => {
                    self.running = Some(running);
                    return;
                }
                Ok(Some(status)) => tracing::warn!("the speed test's process ended: {status}"),
                Ok(None) => {}
                Err(error) => tracing::warn!("the speed test's process cannot be seen: {error}"),
            }
        }
        let Some(argument) = self.wanted.clone() else {
            return;
        };
        if self.last_start.is_some_and(|last| last.elapsed() < AGAIN) {
            return;
        }
        self.last_start = Some(Instant::now());
        let child = helper::command("speedtest-endpoint", &argument, user).spawn();
        match child {
            Ok(mut child) => {
                if let Some(said) = child.stdout.take() {
                    tokio::task::spawn_local(log(said));
                }
                self.running = Some(Running { argument, child });
            }
            Err(error) => tracing::error!("cannot start the speed test's process: {error}"),
        }
    }

    /// The interface was made anew: who was bound to the old one hears nothing any more.
    pub(super) fn begin_again(&mut self, user: (u32, u32)) {
        self.running = None;
        self.last_start = None;
        self.watch(user);
    }
}

/// What the process says, line by line.
async fn log(said: ChildStdout) {
    let mut lines = BufReader::new(said.take(SAID_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!("the speed test's process {}", visible(&line));
    }
}

fn wanted(server: &Server) -> Option<String> {
    if !server.speedtest {
        return None;
    }
    let addresses: Vec<IpAddr> = server.pools.iter().filter_map(own_address).collect();
    if addresses.is_empty() {
        tracing::warn!(
            "[server] speedtest = true: no pool has room for an address of the server's own, so there is none to \
             measure at; make one larger"
        );
        return None;
    }
    Some(speedtest::argument(&server.interface, &addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_by(lines: &str) -> Option<String> {
        let text = format!("[server]\npsk = \"k\"\n{lines}");
        let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
        config.server.as_ref().and_then(wanted)
    }

    #[test]
    fn it_answers_at_the_servers_own_addresses_where_it_is_asked_for() {
        let pools = "pools = [\"10.99.0.0/24\", \"fd99::/112\"]\n";
        assert_eq!(wanted_by(pools), None);
        let with = format!("{pools}speedtest = true\n");
        let expected = Some("cyg-srv 10.99.0.1 fd99::1".to_owned());
        assert_eq!(wanted_by(&with), expected);
        let named = format!("{with}interface = \"vpn0\"\n");
        assert!(wanted_by(&named).unwrap().starts_with("vpn0 "));
        let tiny = "pools = [\"10.99.0.7/32\"]\nspeedtest = true\n";
        assert_eq!(wanted_by(tiny), None);
    }
}

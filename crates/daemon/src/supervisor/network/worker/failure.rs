//! While the gateway's tunnel is down, tunnelled devices go direct where the configuration says so (decision 30).
//!
//! What lets them out ends by itself and is renewed from here: once nobody looks after the tunnel, they are closed in.

use std::time::Duration;

use cygnet_config::Config;
use cygnet_gateway::{GUARD_NFT_TABLE, Lan, OnFailure, PLAN_TABLE};
use cygnet_linux::nft;
use tokio::time::Instant;

use super::Worker;
use crate::supervisor::Done;

/// So long a tunnel is down before anybody is let out: a server that is called again, or another of the list, mostly
/// answers sooner.
const PATIENCE: Duration = Duration::from_secs(15);
/// It is said so often that they are let out, several times within [`OnFailure::HELD`].
const RENEWED: Duration = Duration::from_secs(5);

/// What is known of the gateway's tunnel, and what follows.
#[derive(Debug, Default)]
pub(super) struct Failure {
    tunnel: String,
    /// `None`: it is up.
    down_since: Option<Instant>,
    /// When they were last let out; `None`: they are closed in.
    let_out: Option<Instant>,
    /// A table may hold that they are let out all the same.
    doubtful: bool,
}

/// What is to be said in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Open,
    Again,
    Close,
    Nothing,
}

impl Failure {
    pub(super) fn is_open(&self) -> bool {
        self.let_out.is_some()
    }

    /// For a plan or a guard of `config`: whether they are let out, where that may be. What is known is of a tunnel: if
    /// devices belong into another from now on, nobody is let out because of it.
    pub(super) fn applied(&self, config: &Config, lan: &mut Lan) {
        let gateway = config.gateway.as_ref();
        let is_it = gateway.is_some_and(|gateway| gateway.tunnel == self.tunnel);
        if lan.on_failure.is_direct() {
            let open = is_it && self.is_open();
            lan.on_failure = OnFailure::Direct { open };
        }
    }

    /// What `status` warns of.
    pub(super) fn warning(&self) -> Option<String> {
        self.is_open().then(|| {
            format!(
                "tunnel {} is down: devices that are tunnelled through it go direct, in clear, until it is up again \
                 (on_failure = \"direct\")",
                self.tunnel
            )
        })
    }

    /// Takes note of the tunnel, and says what follows. `direct`: the configuration says so.
    fn look(&mut self, tunnel: &str, up: bool, direct: bool, now: Instant) -> Say {
        if self.tunnel != tunnel {
            self.tunnel = tunnel.to_owned();
            self.down_since = None;
        }
        self.down_since = match up {
            true => None,
            false => self.down_since.or(Some(now)),
        };
        let failed = self.down_since.is_some_and(|since| now >= since + PATIENCE);
        match (direct && failed, self.let_out) {
            (true, None) => Say::Open,
            (true, Some(at)) if now >= at + RENEWED => Say::Again,
            (false, Some(_)) => Say::Close,
            (false, None) if self.doubtful => Say::Close,
            _ => Say::Nothing,
        }
    }
}

impl Worker {
    /// Lets tunnelled devices out or closes them in, as the tunnel is. Running connections are left to
    /// [`Worker::end_stale`].
    pub(super) fn follow_failure(&mut self) {
        let config = self.config.as_ref();
        let gateway = config.and_then(|config| config.gateway.as_ref());
        let (tunnel, direct) = gateway.map_or(("", false), |gateway| {
            (gateway.tunnel.as_str(), gateway.devices.direct_on_failure)
        });
        let up = self.live.get(tunnel).is_some_and(|live| live.up);
        let (tunnel, now) = (tunnel.to_owned(), Instant::now());
        let was_open = self.failure.is_open();
        match self.failure.look(&tunnel, up, direct, now) {
            Say::Nothing => return,
            Say::Open | Say::Again => {
                let text = self.tables().iter();
                let text = text.map(|table| OnFailure::change(table, true));
                if let Err(error) = nft::apply(&text.collect::<String>()) {
                    // A table that somebody took away is put back, with this, by the next look.
                    tracing::debug!("cannot let devices out while the tunnel is down: {error}");
                    self.heard.doubt();
                    return;
                }
                self.failure.let_out = Some(now);
            }
            Say::Close => self.close_in(),
        }
        let open = self.failure.is_open();
        if open == was_open {
            return;
        }
        match open {
            true => tracing::warn!(
                "tunnel {tunnel} is down for {} s: devices that are tunnelled through it go direct, in clear (on_failure = \
                 \"direct\")",
                PATIENCE.as_secs()
            ),
            false => tracing::info!("devices that are tunnelled go direct no more"),
        }
        let _ = self.done.send(Done::OnFailure { tunnel, open });
        // The tables say so already.
        self.arranged = self.lan();
    }

    /// Closes tunnelled devices in, by each table for itself. Where that fails it is tried again, and what says otherwise
    /// ends by itself.
    pub(super) fn close_in(&mut self) {
        self.failure.doubtful = false;
        // Whether the guard's is there was seen at the last look, and may be otherwise.
        for table in [PLAN_TABLE, GUARD_NFT_TABLE] {
            let closed = nft::apply(&OnFailure::change(table, false));
            // Of a table without that set, or that is not there, nobody is let out.
            let there = || nft::list_table(table).is_ok_and(|t| t.is_some_and(|t| has_set(&t)));
            if closed.is_err() && there() {
                self.failure.doubtful = true;
            }
        }
        self.failure.let_out = None;
    }
}

fn has_set(table: &str) -> bool {
    table.contains(&format!("set {} {{", OnFailure::SET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_let_out_when_the_tunnel_is_known_to_be_down_and_closed_in_as_soon_as_it_is_up() {
        let start = Instant::now();
        let mut failure = Failure::default();
        let at = |failure: &mut Failure, seconds: u64, up: bool| {
            let now = start + Duration::from_secs(seconds);
            let say = failure.look("home", up, true, now);
            match say {
                Say::Open | Say::Again => failure.let_out = Some(now),
                Say::Close => failure.let_out = None,
                Say::Nothing => {}
            }
            say
        };
        for (seconds, up, say) in [
            (0, false, Say::Nothing),
            (14, false, Say::Nothing),
            (15, false, Say::Open),
            (18, false, Say::Nothing),
            (20, false, Say::Again),
            (21, true, Say::Close),
            (22, true, Say::Nothing),
            // Short of it, and up again: each time counts anew.
            (30, false, Say::Nothing),
            (40, true, Say::Nothing),
            (41, false, Say::Nothing),
            (55, false, Say::Nothing),
            (56, false, Say::Open),
        ] {
            assert_eq!(at(&mut failure, seconds, up), say, "after {seconds} s");
        }
        let later = start + Duration::from_secs(57);
        assert!(failure.warning().unwrap().contains("tunnel home is down"));
        // Another tunnel, or a configuration that says otherwise, lets nobody out.
        assert_eq!(failure.look("other", false, true, later), Say::Close);
        failure.let_out = Some(later);
        assert_eq!(failure.look("other", false, false, later), Say::Close);
        failure.let_out = None;
        let day = start + Duration::from_secs(86_400);
        assert_eq!(failure.look("other", false, false, day), Say::Nothing);
        assert!(failure.warning().is_none());
        // What may not have been closed is closed again.
        failure.doubtful = true;
        assert_eq!(failure.look("other", true, true, day), Say::Close);
    }

    fn config(tunnel: &str) -> Config {
        let text = format!(
            "[tunnel.{tunnel}]\nremote = \"192.0.2.1\"\nremote_identity = \"vpn\"\nidentity = \"box\"\npsk = \"psk\"\n\
             virtual_address = true\n[gateway]\ntunnel = \"{tunnel}\"\nlan = \"eth0\"\non_failure = \"direct\"\n"
        );
        Config::parse("t", &text, &mut |_| Ok(b"secret".to_vec())).unwrap()
    }

    #[test]
    fn a_plan_lets_nobody_out_but_by_the_configuration_and_because_of_its_tunnel() {
        let open = Failure {
            tunnel: "home".to_owned(),
            let_out: Some(Instant::now()),
            ..Failure::default()
        };
        let home = config("home");
        let mut lan = Lan::default();
        open.applied(&home, &mut lan);
        assert_eq!(lan.on_failure, OnFailure::Blocked);
        lan.on_failure = OnFailure::Direct { open: false };
        open.applied(&home, &mut lan);
        assert!(lan.on_failure.is_open());
        for (failure, config) in [(&open, config("other")), (&Failure::default(), home)] {
            failure.applied(&config, &mut lan);
            assert!(lan.on_failure.is_direct() && !lan.on_failure.is_open());
        }
    }
}

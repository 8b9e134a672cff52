//! What the kernel tells of changes, and when they are looked at. A look at firewalls takes processes, which an idle
//! machine is not to run all the time.

use std::time::Duration;

use cygnet_linux::{Changes, FirewallChanges, Result};
use tokio::time::Instant;

/// How long changes are let go on before they are looked at: a new address comes with a new route.
const CHANGING: Duration = Duration::from_millis(200);

/// The least time between two looks at firewalls, while somebody changes his all the time.
const AT_MOST: Duration = Duration::from_secs(1);

/// How often they are looked at where nothing tells of a change: the old iptables does not.
const SLOWLY: Duration = Duration::from_secs(30);

/// What is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// This machine's links, addresses and routes.
    Addresses,
    /// Guard and firewalls.
    Firewalls,
}

/// What was heard of and not looked at.
pub(super) struct Heard {
    changes: Changes,
    firewall: FirewallChanges,
    addresses_at: Option<Instant>,
    firewalls_at: Option<Instant>,
    /// When the firewalls were looked at.
    looked: Instant,
    /// Something was done that may have changed them.
    doubtful: bool,
}

impl Heard {
    /// Listens from now on, in the network namespace of this thread.
    pub(super) fn listen() -> Result<Self> {
        Ok(Self {
            changes: Changes::listen()?,
            firewall: FirewallChanges::listen()?,
            addresses_at: None,
            firewalls_at: None,
            looked: Instant::now(),
            doubtful: true,
        })
    }

    /// Waits until it is time to look. May be given up at any time.
    pub(super) async fn next(&mut self) -> Look {
        let due = async |at: Option<Instant>| match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        };
        loop {
            tokio::select! {
                () = due(self.addresses_at) => {
                    self.addresses_at = None;
                    return Look::Addresses;
                }
                () = due(self.firewalls_at) => {
                    self.firewalls_at = None;
                    self.doubtful = true;
                    return Look::Firewalls;
                }
                true = self.changes.next() => self.addresses_changed(),
                true = self.firewall.next() => self.firewalls_changed(),
            }
        }
    }

    /// Addresses are looked at then, unless they are sooner.
    pub(super) fn look_at(&mut self, at: Instant) {
        self.addresses_at = Some(self.addresses_at.map_or(at, |before| before.min(at)));
    }

    /// Something is done that may change the firewalls.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Whether only a look tells how they are.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful || self.looked.elapsed() >= SLOWLY
    }

    /// Whether they were looked at within the last second.
    pub(super) fn has_just_looked(&self) -> bool {
        self.looked.elapsed() < AT_MOST
    }

    /// Whether the kernel tells, at this moment, of something that was not looked at.
    pub(super) async fn has_news(&mut self) -> bool {
        // What waits in the sockets is known to be there when the runtime has asked the kernel.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            true = self.changes.next() => self.addresses_changed(),
            true = self.firewall.next() => self.firewalls_changed(),
            () = std::future::ready(()) => {}
        }
        self.doubtful || self.firewalls_at.is_some()
    }

    fn addresses_changed(&mut self) {
        self.doubt();
        self.look_at(Instant::now() + CHANGING);
    }

    fn firewalls_changed(&mut self) {
        let soon = (Instant::now() + CHANGING).max(self.looked + AT_MOST);
        self.firewalls_at = self.firewalls_at.or(Some(soon));
    }

    /// They are being looked at.
    pub(super) fn looked(&mut self) {
        (self.looked, self.doubtful) = (Instant::now(), false);
    }
}

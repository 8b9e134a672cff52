//! Addresses that a tunnel got from its server and has no more: another server, or the same one later, lends others.

use std::net::IpAddr;

use super::Worker;

impl Worker {
    /// A tunnel has these addresses now in the place of others.
    pub(super) fn given_back(&mut self, before: Vec<IpAddr>) {
        self.given_back.extend(before);
    }

    /// Ends connections whose packets leave by an address that no tunnel has any more: the kernel translates a
    /// connection as it began, so none of them would get an answer, however long it goes on. The next packet of each
    /// begins it anew.
    pub(super) fn end_given_back(&mut self) {
        let mut gone = std::mem::take(&mut self.given_back);
        for live in self.live.values() {
            for held in &live.addresses {
                gone.remove(held);
            }
        }
        if gone.is_empty() {
            return;
        }
        let ended = cygnet_linux::end_connections(|connection| gone.contains(&connection.answered));
        if let Err(error) = ended {
            tracing::warn!(
                "a tunnel has another address, but running connections that left by the old one cannot be ended, and \
                 may hang: {error}"
            );
        }
    }
}

//! Packets the data path dropped before or beside an SA; what an SA drops it counts itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Reason {
    /// Read from a TUN: no IP packet, or not what its virtio header says.
    NotIp,
    /// No policy covers it.
    NoPolicy,
    /// No policy covers it, and none is meant to: the network stack's own multicast (router
    /// solicitations, reports of groups) into a TUN that has no neighbours.
    Multicast,
    /// A policy covers it, and no Child SA is there to carry it.
    NoSa,
    /// A later fragment whose first has not been seen.
    UnknownFragment,
    /// Longer than the path allows, and its sender forbade to cut it.
    TooBig,
    /// The SA takes no more, or its cipher refused.
    NotSealed,
    /// The socket's queue stayed full.
    SendQueueFull,
    /// No route to the peer.
    NoRoute,
    /// A firewall rule of this machine forbids sending.
    SendForbidden,
    /// Sending failed for another reason.
    SendFailed,
    /// The TUN did not take it.
    TunRefused,
    /// ESP for an SPI nobody knows.
    UnknownSpi,
    /// Too short for anything.
    Short,
    /// Longer than the receive buffer.
    Truncated,
    /// Too many IKE messages wait for the core.
    IkeQueueFull,
    /// Too much ESP waits for Child SAs that are being negotiated.
    EarlyQueueFull,
    /// Its sender is to slow down: datagrams wait too long to be opened (CoDel).
    Late,
}

impl Reason {
    const ALL: [(Self, &'static str); 18] = [
        (Self::NotIp, "not-ip"),
        (Self::NoPolicy, "no-policy"),
        (Self::Multicast, "multicast"),
        (Self::NoSa, "no-sa"),
        (Self::UnknownFragment, "unknown-fragment"),
        (Self::TooBig, "too-big"),
        (Self::NotSealed, "not-sealed"),
        (Self::SendQueueFull, "send-queue-full"),
        (Self::NoRoute, "no-route"),
        (Self::SendForbidden, "send-forbidden"),
        (Self::SendFailed, "send-failed"),
        (Self::TunRefused, "tun-refused"),
        (Self::UnknownSpi, "unknown-spi"),
        (Self::Short, "short"),
        (Self::Truncated, "truncated"),
        (Self::IkeQueueFull, "ike-queue-full"),
        (Self::EarlyQueueFull, "early-queue-full"),
        (Self::Late, "queue-delay"),
    ];
}

/// One counter for each reason, shared by all workers.
#[derive(Default)]
pub(super) struct Drops([AtomicU64; Reason::ALL.len()]);

impl Drops {
    pub(super) fn add(&self, reason: Reason, count: usize) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Those that occurred, by name.
    pub(super) fn occurred(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .iter()
            .zip(&self.0)
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_place_of_its_own() {
        let drops = Drops::default();
        for (place, (reason, _)) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
            drops.add(*reason, place + 1);
        }
        let counts: Vec<_> = drops.occurred().collect();
        assert_eq!(counts.len(), Reason::ALL.len());
        assert_eq!(counts[0], ("not-ip", 1));
        assert_eq!(counts[17], ("queue-delay", 18));
    }
}

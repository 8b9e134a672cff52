//! Packets that a peer does not take, though our policy has them go to it: it narrows them away
//! (RFC 7296 §2.9). Each brings up a Child SA of its own where the peer makes one for it; where it
//! does not, the same kind of packet is not tried again for a while, and others at a slower pace.

use std::collections::BTreeMap;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_wire::ts::{AddrRange, TrafficSelector};

use crate::backoff::Backoff;
use crate::time::Instant;

/// A packet: our side, the peer's side.
pub(crate) type Packet = (TrafficSelector, TrafficSelector);

/// How long a kind of packet that was narrowed away is not tried again.
const MEMORY: Duration = Duration::from_secs(600);
/// Most kinds that are remembered.
const KINDS: usize = 256;

/// What is known of one child.
#[derive(Default)]
pub(crate) struct Narrowing {
    /// Until when these are not tried.
    refused: BTreeMap<Kind, Instant>,
    pace: Option<Pace>,
}

struct Pace {
    backoff: Backoff,
    next: Instant,
}

/// Protocol and the two addresses. Not the ports: one of them differs with every connection.
type Kind = (u8, [u128; 2]);

impl Narrowing {
    /// Whether a Child SA may be asked for because of this packet.
    pub(crate) fn allows(&self, packet: &Packet, now: Instant) -> bool {
        let refused = self.refused.get(&kind(packet));
        refused.is_none_or(|until| *until <= now)
            && self.pace.as_ref().is_none_or(|pace| pace.next <= now)
    }

    /// The peer has made one that does not carry this packet.
    pub(crate) fn refused(&mut self, packet: &Packet, now: Instant, random: &mut dyn Random) {
        self.refused.retain(|_, until| *until > now);
        if self.refused.len() >= KINDS {
            let oldest = self.refused.iter().min_by_key(|(_, until)| **until);
            if let Some(oldest) = oldest.map(|(kind, _)| *kind) {
                self.refused.remove(&oldest);
            }
        }
        self.refused.insert(kind(packet), now + MEMORY);
        let mut backoff = match self.pace.take() {
            Some(pace) => pace.backoff,
            None => Backoff::new(now),
        };
        let next = now + backoff.failed(now, random);
        self.pace = Some(Pace { backoff, next });
    }

    /// The peer has made one that carries the packet it was asked for.
    pub(crate) fn accepted(&mut self) {
        self.pace = None;
    }
}

fn kind((local, remote): &Packet) -> Kind {
    let low = |selector: &TrafficSelector| match selector.addrs {
        AddrRange::V4(low, _) => u128::from(low.to_bits()),
        AddrRange::V6(low, _) => low.to_bits(),
    };
    (remote.protocol, [low(local), low(remote)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_random::TestRandom;

    fn packet(last: u32) -> Packet {
        let host = |address: u32| {
            TrafficSelector::from_prefix(std::net::Ipv4Addr::from_bits(address).into(), 32)
        };
        (host(1), host(last))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn what_was_narrowed_away_rests_and_the_rest_goes_slower() {
        let mut narrowing = Narrowing::default();
        let random = &mut TestRandom::new(1);
        assert!(narrowing.allows(&packet(2), at(0)));
        narrowing.refused(&packet(2), at(0), random);
        assert!(!narrowing.allows(&packet(2), at(599)));
        assert!(narrowing.allows(&packet(2), at(600)));
        assert!(!narrowing.allows(&packet(3), at(0)));
        assert!(narrowing.allows(&packet(3), at(1)));
        narrowing.accepted();
        assert!(narrowing.allows(&packet(3), at(0)));
        assert!(!narrowing.allows(&packet(2), at(1)));
    }

    #[test]
    fn many_kinds_are_tried_ever_more_rarely_and_not_all_remembered() {
        let mut narrowing = Narrowing::default();
        let random = &mut TestRandom::new(2);
        let mut tries = 0;
        for second in 0..3600 {
            let packet = packet(second + 2);
            if narrowing.allows(&packet, at(second.into())) {
                narrowing.refused(&packet, at(second.into()), random);
                tries += 1;
            }
        }
        assert!((100..500).contains(&tries), "{tries}");
        for last in 0..1000 {
            narrowing.refused(&packet(last), at(4000), random);
        }
        assert_eq!(narrowing.refused.len(), KINDS);
    }
}

//! When a router advertisement is due (RFC 4861 §6.2), and what it says.

use std::net::Ipv6Addr;
use std::time::Duration;

use cygnet_wire::ip::ndp::{Preference, RouterAdvertisement};

use crate::Mac;

/// How long devices take this machine for a router after they last heard of it (RFC 4861 §6.2.1, the default).
const LIFETIME: Duration = Duration::from_secs(1800);
/// The time from one to the next is between a third of this and this. Less than the RFC's default of ten minutes: a
/// device that woke up and did not ask is to have the right router soon.
const MOST: Duration = Duration::from_secs(60);
const LEAST: Duration = Duration::from_secs(20);
/// The first few come sooner (MAX_INITIAL_RTR_ADVERTISEMENTS, MAX_INITIAL_RTR_ADVERT_INTERVAL).
const FIRST_FEW: u32 = 3;
const FIRST_APART: Duration = Duration::from_secs(16);
/// MIN_DELAY_BETWEEN_RAS.
const APART: Duration = Duration::from_secs(3);
/// MAX_RA_DELAY_TIME, in milliseconds: answers of several routers to one question do not collide.
const ANSWER_WITHIN_MS: u64 = 500;

/// Advertises this machine as the LAN's router, to be preferred to others (RFC 4191), and resolvers (RFC 8106). No
/// prefix: addresses are those of the router that the provider's prefix comes by.
#[derive(Clone, Debug)]
pub struct Advertiser {
    mac: Mac,
    dns: Vec<Ipv6Addr>,
    due: Duration,
    last: Option<Duration>,
    sent: u32,
}

impl Advertiser {
    /// Begins at once.
    #[must_use]
    pub fn new(mac: Mac, dns: Vec<Ipv6Addr>, now: Duration) -> Self {
        Self {
            mac,
            dns,
            due: now,
            last: None,
            sent: 0,
        }
    }

    /// When [`Advertiser::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.due
    }

    /// An ICMPv6 message to send to all nodes, checksum left to the kernel, if it is time.
    pub fn handle_timeout(&mut self, now: Duration, random: u32) -> Option<Vec<u8>> {
        if now < self.due {
            return None;
        }
        self.last = Some(now);
        self.sent = self.sent.saturating_add(1);
        let spread = (MOST - LEAST).as_millis() as u64;
        let mut pause = LEAST + Duration::from_millis(u64::from(random) % spread);
        if self.sent <= FIRST_FEW {
            pause = pause.min(FIRST_APART);
        }
        self.due = now.saturating_add(pause);
        Some(self.advertisement(LIFETIME).emit())
    }

    /// A device asks (Router Solicitation): answered to all, soon, and not for each that asks (RFC 4861 §6.2.6).
    pub fn handle_solicitation(&mut self, now: Duration, random: u32) {
        let within = Duration::from_millis(u64::from(random) % ANSWER_WITHIN_MS);
        let soonest = self.last.map_or(now, |last| last.saturating_add(APART));
        self.due = self.due.min(soonest.max(now).saturating_add(within));
    }

    /// Other resolvers are to be asked from now on: told soon.
    pub fn handle_resolvers(&mut self, dns: Vec<Ipv6Addr>, now: Duration, random: u32) {
        self.dns = dns;
        self.handle_solicitation(now, random);
    }

    /// What is sent last, when this machine is to be a router no more (RFC 4861 §6.2.5).
    #[must_use]
    pub fn farewell(&self) -> Vec<u8> {
        self.advertisement(Duration::ZERO).emit()
    }

    fn advertisement(&self, lifetime: Duration) -> RouterAdvertisement {
        RouterAdvertisement {
            hop_limit: 64,
            preference: Preference::High,
            lifetime_s: u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX),
            source: Some(self.mac.octets()),
            dns: self.dns.clone(),
            dns_lifetime_s: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]).unwrap();
    const DNS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn advertiser() -> Advertiser {
        Advertiser::new(MAC, vec![DNS], Duration::ZERO)
    }

    /// Goes on to `until`; when it sent.
    fn sent(advertiser: &mut Advertiser, until: Duration, random: u32) -> Vec<Duration> {
        let mut times = Vec::new();
        while advertiser.poll_timeout() <= until {
            let now = advertiser.poll_timeout();
            assert!(advertiser.handle_timeout(now, random).is_some());
            times.push(now);
        }
        times
    }

    #[test]
    fn the_first_come_soon_and_the_others_now_and_then() {
        for random in [0, 1, 39_999, u32::MAX] {
            let times = sent(&mut advertiser(), Duration::from_secs(600), random);
            let pauses: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
            assert_eq!(times[0], Duration::ZERO);
            assert!(pauses[..3].iter().all(|pause| *pause == FIRST_APART));
            assert!(pauses[3..].iter().all(|p| (LEAST..MOST).contains(p)));
        }
    }

    #[test]
    fn it_says_what_it_is_for() {
        let mut said = RouterAdvertisement {
            hop_limit: 64,
            preference: Preference::High,
            lifetime_s: 1800,
            source: Some(MAC.octets()),
            dns: vec![DNS],
            dns_lifetime_s: 1800,
        };
        let first = advertiser().handle_timeout(Duration::ZERO, 0);
        assert_eq!(first, Some(said.emit()));
        (said.lifetime_s, said.dns_lifetime_s) = (0, 0);
        assert_eq!(advertiser().farewell(), said.emit());
    }

    #[test]
    fn other_resolvers_are_told_soon() {
        let mut advertiser = advertiser();
        let last = *sent(&mut advertiser, Duration::from_secs(100), 0)
            .last()
            .unwrap();
        let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
        advertiser.handle_resolvers(vec![other], last, 0);
        assert_eq!(advertiser.poll_timeout(), last + APART);
        let said = advertiser.handle_timeout(last + APART, 0).unwrap();
        assert!(said.ends_with(&other.octets()));
    }

    #[test]
    fn many_questions_have_few_answers() {
        let mut advertiser = advertiser();
        sent(&mut advertiser, Duration::from_secs(100), 0);
        let last = advertiser.last.unwrap();
        let mut times = Vec::new();
        for ms in 0..30_000 {
            let now = last + Duration::from_millis(ms);
            advertiser.handle_solicitation(now, 0);
            if advertiser.handle_timeout(now, 30_000).is_some() {
                times.push(now);
            }
        }
        assert_eq!(times.first(), Some(&(last + APART)));
        assert_eq!(times.len(), 9);
        // One alone is answered within half a second.
        let now = last + Duration::from_secs(40);
        advertiser.due = now + Duration::from_secs(15);
        advertiser.handle_solicitation(now, u32::MAX);
        assert!(advertiser.poll_timeout() <= now + Duration::from_millis(500));
    }
}

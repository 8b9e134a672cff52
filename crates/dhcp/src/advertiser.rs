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
/// Resolvers that were advertised and are taken back: so many at most, the latest.
const GONE_MAX: usize = 16;
/// MAX_RA_DELAY_TIME, in milliseconds: answers of several routers to one question do not collide.
const ANSWER_WITHIN_MS: u64 = 500;

/// Advertises this machine as the LAN's router, to be preferred to others (RFC 4191), and resolvers (RFC 8106). No
/// prefix: addresses are those of the router that the provider's prefix comes by.
#[derive(Clone, Debug)]
pub struct Advertiser {
    mac: Mac,
    dns: Vec<Ipv6Addr>,
    /// Resolvers that were advertised, and when devices have forgotten them by themselves.
    gone: Vec<(Ipv6Addr, Duration)>,
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
            gone: Vec::new(),
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
        self.gone.retain(|(_, until)| now < *until);
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

    /// Other resolvers are to be asked from now on: told soon. Those of before are taken back until whoever sleeps has
    /// forgotten them, too: a prefix of the provider's that changes takes our address with it.
    pub fn handle_resolvers(&mut self, dns: Vec<Ipv6Addr>, now: Duration, random: u32) {
        let before = std::mem::replace(&mut self.dns, dns);
        let until = now.saturating_add(LIFETIME);
        self.gone.retain(|(gone, _)| !before.contains(gone));
        self.gone
            .extend(before.into_iter().map(|address| (address, until)));
        self.gone.retain(|(gone, _)| !self.dns.contains(gone));
        let oldest = self.gone.len().saturating_sub(GONE_MAX);
        self.gone.drain(..oldest);
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
            dns_gone: self.gone.iter().map(|(address, _)| *address).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]).unwrap();
    const DNS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const SECOND: Duration = Duration::from_secs(1);

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
            dns_gone: Vec::new(),
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
        let taken_back = [&[25, 3, 0, 0, 0, 0, 0, 0][..], &DNS.octets()].concat();
        assert!(said.ends_with(&[&other.octets()[..], &taken_back].concat()));
        // One that is back is one, and the other is taken back.
        let now = last + SECOND;
        advertiser.handle_resolvers(vec![DNS], now, 0);
        let gone = |advertiser: &Advertiser| -> Vec<Ipv6Addr> {
            advertiser.gone.iter().map(|(gone, _)| *gone).collect()
        };
        assert_eq!(
            (&advertiser.dns, gone(&advertiser)),
            (&vec![DNS], vec![other])
        );
        // Told again it is no news, and devices have forgotten it after half an hour.
        advertiser.handle_resolvers(vec![DNS], now + SECOND, 0);
        assert_eq!(gone(&advertiser), [other]);
        sent(&mut advertiser, now + LIFETIME - SECOND, 0);
        assert_eq!(gone(&advertiser), [other]);
        sent(&mut advertiser, now + LIFETIME + MOST, 0);
        assert!(gone(&advertiser).is_empty());
        // However often they change.
        for last in 0..100 {
            let next = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
            advertiser.handle_resolvers(vec![next], now + 2 * LIFETIME, 0);
        }
        assert_eq!(advertiser.gone.len(), GONE_MAX);
        let latest = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 98);
        assert_eq!(gone(&advertiser).last(), Some(&latest));
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

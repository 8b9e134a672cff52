//! Whether another DHCP server answers on the LAN: asked before this one does, and now and then.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Mac, Message, MessageType};

/// When a DISCOVER is sent in a round: one may be lost, and a switch may forward nothing for a moment.
const SENT: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How long a round is: servers ask for three seconds whether an address is in use before they offer it.
const ROUND: Duration = Duration::from_secs(10);
/// Pause after a round without an answer.
const SELDOM: Duration = Duration::from_secs(300);
/// Pause after one with an answer.
const OFTEN: Duration = Duration::from_secs(60);
/// Rounds without an answer before this server takes the place of another one: a router that starts again is no
/// reason.
const GONE_AFTER: u32 = 3;
/// The least time from one round to the next, whatever devices say.
const APART: Duration = Duration::from_secs(30);
/// Other servers that are remembered.
const OTHERS_MAX: usize = 8;

/// What is known of other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Not known yet.
    Looking,
    /// None answers: this one does.
    Alone,
    /// Another one answers: this one does not.
    Silent,
}

/// Asks as a client would, and listens.
#[derive(Clone, Debug)]
pub struct Lookout {
    own: Ipv4Addr,
    mac: Mac,
    standing: Standing,
    round: Option<Round>,
    last: Option<Duration>,
    next: Duration,
    /// Rounds without an answer since the last answer.
    quiet: u32,
    /// By their own word, with when they were last heard.
    others: BTreeMap<Ipv4Addr, Duration>,
}

#[derive(Clone, Debug)]
struct Round {
    xid: u32,
    begun: Duration,
    sent: usize,
    heard: bool,
}

impl Lookout {
    /// Begins with a round at once. `own`: the identifier of this machine's server; `mac`: the hardware address that
    /// the question is asked with, this machine's own, so that no server keeps an address for nobody.
    #[must_use]
    pub fn new(own: Ipv4Addr, mac: Mac, now: Duration) -> Self {
        Self {
            own,
            mac,
            standing: Standing::Looking,
            round: None,
            last: None,
            next: now,
            quiet: 0,
            others: BTreeMap::new(),
        }
    }

    /// What is known.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Servers that answered, as they call themselves.
    pub fn others(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.others.keys().copied()
    }

    /// When [`Lookout::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        match &self.round {
            None => self.next,
            Some(round) => {
                let next = SENT.get(round.sent).copied().unwrap_or(ROUND);
                round.begun.saturating_add(next)
            }
        }
    }

    /// A message to send to everybody's port 67, from port 68, if it is time. `random` tells rounds apart.
    pub fn handle_timeout(&mut self, now: Duration, random: u32) -> Option<Vec<u8>> {
        if now < self.poll_timeout() {
            return None;
        }
        let round = self.round.get_or_insert(Round {
            xid: random,
            begun: now,
            sent: 0,
            heard: false,
        });
        self.last = Some(round.begun);
        if round.sent < SENT.len() {
            round.sent += 1;
            let mut discover = Message::request(MessageType::Discover, self.mac, round.xid);
            // Mask, routers, resolvers: some servers do not answer who wants nothing.
            discover.options.wanted = vec![1, 3, 6];
            return Some(discover.emit());
        }
        let heard = round.heard;
        self.round = None;
        self.end_round(now, heard);
        None
    }

    fn end_round(&mut self, now: Duration, heard: bool) {
        self.quiet = if heard { 0 } else { self.quiet + 1 };
        if heard {
            self.standing = Standing::Silent;
        } else if self.standing != Standing::Silent || self.quiet >= GONE_AFTER {
            self.standing = Standing::Alone;
            self.others.clear();
        }
        let pause = match self.standing {
            Standing::Alone => SELDOM,
            Standing::Looking | Standing::Silent => OFTEN,
        };
        self.next = now.saturating_add(pause);
    }

    /// Takes a message that came to port 68.
    pub fn handle_message(&mut self, now: Duration, message: &Message) {
        use MessageType::{Ack, Nak, Offer};
        let Some(server) = message.options.server else {
            return;
        };
        if !message.reply
            || !matches!(message.kind, Offer | Ack | Nak)
            || server == self.own
            || server.is_unspecified()
        {
            return;
        }
        let round = self.round.as_mut();
        match round.filter(|round| round.xid == message.xid && message.mac == self.mac) {
            Some(round) => {
                round.heard = true;
                self.standing = Standing::Silent;
                self.note(server, now);
            }
            // For somebody else: it may be old, or made up.
            None => self.handle_hint(now),
        }
    }

    /// There may be another server: a client said that it took its offer. Looked after soon; by itself it silences
    /// nobody.
    pub fn handle_hint(&mut self, now: Duration) {
        let soonest = self.last.map_or(now, |last| last.saturating_add(APART));
        self.next = self.next.min(soonest.max(now));
    }

    fn note(&mut self, server: Ipv4Addr, now: Duration) {
        if !self.others.contains_key(&server) && self.others.len() >= OTHERS_MAX {
            let oldest = self.others.iter().min_by_key(|(_, heard)| **heard);
            if let Some(oldest) = oldest.map(|(server, _)| *server) {
                self.others.remove(&oldest);
            }
        }
        self.others.insert(server, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]).unwrap();
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn offer(server: Ipv4Addr, xid: u32) -> Message {
        let mut offer = Message::request(MessageType::Offer, MAC, xid);
        offer.reply = true;
        offer.options.server = Some(server);
        offer
    }

    /// Goes on to `until`; a server answers each DISCOVER if `answers`. How many were sent.
    fn go_on(lookout: &mut Lookout, until: u64, answers: bool) -> usize {
        let mut sent = 0;
        while lookout.poll_timeout() <= at(until) {
            let now = lookout.poll_timeout();
            if let Some(bytes) = lookout.handle_timeout(now, 7) {
                let discover = Message::parse(&bytes).unwrap();
                assert_eq!(discover.kind, MessageType::Discover);
                assert!(discover.broadcast && discover.mac == MAC);
                sent += 1;
                if answers {
                    lookout.handle_message(now, &offer(ROUTER, discover.xid));
                }
            }
        }
        sent
    }

    #[test]
    fn nobody_is_answered_before_a_round_is_over() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        assert_eq!(go_on(&mut lookout, 9, false), 3);
        assert_eq!(lookout.standing(), Standing::Looking);
        go_on(&mut lookout, 10, false);
        assert_eq!(lookout.standing(), Standing::Alone);
        assert_eq!(lookout.poll_timeout(), at(310));
    }

    #[test]
    fn another_server_silences_this_one_until_it_is_gone_for_a_while() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        go_on(&mut lookout, 0, true);
        assert_eq!(lookout.standing(), Standing::Silent);
        assert_eq!(lookout.others().collect::<Vec<_>>(), [ROUTER]);
        go_on(&mut lookout, 10, true);
        // It answers no more: rounds end at 80, 150, 220.
        go_on(&mut lookout, 219, false);
        assert_eq!(lookout.standing(), Standing::Silent);
        go_on(&mut lookout, 220, false);
        assert_eq!(lookout.standing(), Standing::Alone);
        assert_eq!(lookout.others().count(), 0);
    }

    #[test]
    fn one_that_appears_later_is_found() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        go_on(&mut lookout, 10, false);
        go_on(&mut lookout, 309, true);
        assert_eq!(lookout.standing(), Standing::Alone);
        go_on(&mut lookout, 310, true);
        assert_eq!(lookout.standing(), Standing::Silent);
    }

    #[test]
    fn a_hint_has_it_look_and_no_more() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        go_on(&mut lookout, 10, false);
        lookout.handle_hint(at(12));
        // Not sooner than 30 s after the last.
        assert_eq!(lookout.poll_timeout(), at(30));
        assert_eq!(lookout.standing(), Standing::Alone);
        go_on(&mut lookout, 40, false);
        assert_eq!(lookout.standing(), Standing::Alone);
        // An answer to somebody else, or a late one, is a hint as well.
        lookout.handle_message(at(100), &offer(ROUTER, 8));
        assert_eq!(lookout.standing(), Standing::Alone);
        assert_eq!(lookout.poll_timeout(), at(100));
    }

    #[test]
    fn its_own_answers_and_requests_are_nobodys() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        let mut request = offer(ROUTER, 7);
        request.reply = false;
        let mut unnamed = offer(ROUTER, 7);
        unnamed.options.server = None;
        lookout.handle_timeout(at(0), 7);
        for message in [offer(OWN, 7), request, unnamed] {
            lookout.handle_message(at(0), &message);
            assert_eq!(lookout.standing(), Standing::Looking);
        }
    }

    #[test]
    fn many_names_take_no_memory() {
        let mut lookout = Lookout::new(OWN, MAC, at(0));
        lookout.handle_timeout(at(0), 7);
        for n in 0..1000 {
            lookout.handle_message(at(0), &offer(Ipv4Addr::from_bits(0x0a00_0001 + n), 7));
        }
        assert_eq!(lookout.others().count(), OTHERS_MAX);
    }
}

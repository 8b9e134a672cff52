//! The search for the largest packet that a path carries, by packets of that size that the peer
//! acknowledges (RFC 8899), for paths that drop larger ones and say nothing.
//!
//! A probe is a request of the IKE SA, padded and sent in one piece. Lost, a short one takes its place
//! under its message id, which arrives: so a lost probe costs no IKE SA, and the answer tells by which of the
//! two it came. What is found is the way from us to the peer; the way back is the peer's to search, and each
//! tells the other by its probes what it has found.

use std::time::Duration;

use crate::io::Path;
use crate::time::Instant;

/// Sizes of IP packets worth trying: what common links carry (RFC 1191 §7), and tunnels in them.
const SIZES: [u16; 16] = [
    LEAST_V4, 576, 1006, 1280, 1332, 1358, 1372, 1400, 1420, 1440, 1452, 1460, 1472, 1480, 1492,
    LARGEST,
];
/// No larger packets are sent.
const LARGEST: u16 = 1500;
/// No smaller ones are sent for a router's sake: Linux believes none (net.ipv4.route.min_pmtu), whatever ICMP says.
pub(crate) const LEAST_V4: u16 = 552;
/// RFC 8200 §5.
const LEAST_V6: u16 = 1280;
/// What most paths carry: tried next where the largest does not pass (RFC 8899 §5.1.2, BASE_PLPMTU).
const BASE: u16 = 1280;
/// Probes of one size that are lost before it counts as too large. (RFC 8899 §5.1.2 has three, MAX_PROBES; but
/// there a probe that is lost may have found a path that carries nothing at all. Here a short request has arrived.)
const MOST_LOST: u8 = 2;
/// The longest time that a probe is given before a short request takes its place.
const MOST_WAIT: Duration = Duration::from_secs(5);
/// What is known is confirmed this often while packets are sent: a path may become narrower.
const CONFIRM: Duration = Duration::from_secs(30);
/// The same where the peer has fallen silent under what is sent to it.
const CONFIRM_SOON: Duration = Duration::from_secs(5);
/// How long the peer is silent then.
const SILENCE: Duration = Duration::from_secs(2);
/// Time after which a larger size is tried again (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);

/// What is known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    path: Path,
    /// The largest size tried that has arrived; 0: none.
    passes: u16,
    /// How much of it was filled.
    filled: u16,
    /// The smallest that does not arrive.
    too_large: u16,
    /// A router named this size.
    named: Option<u16>,
    /// Probes lost of the present candidate.
    lost: u8,
    /// How long the answer to the last of them took.
    late: Duration,
    /// How long the answer to the last probe took that arrived.
    round_trip: Duration,
    /// What is known is to be confirmed at once.
    doubted: bool,
    /// Since when nothing larger is tried.
    complete: Option<Instant>,
    /// When what is known was last seen to be so.
    confirmed: Instant,
}

/// A packet that shows whether one of its size arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The size to be tried.
    pub(crate) size: u16,
    /// What is filled of it: with a block cipher not every length can be made.
    pub(crate) filled: u16,
}

/// Traffic with the peer, as the data path tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    /// The peer's last sign of life.
    pub(crate) heard: Instant,
    /// What was last sent.
    pub(crate) sent: Instant,
}

impl Search {
    /// Nothing is known.
    pub(crate) fn new(path: Path, now: Instant) -> Self {
        Self {
            path,
            passes: 0,
            filled: 0,
            too_large: u16::MAX,
            named: None,
            lost: 0,
            late: Duration::ZERO,
            round_trip: Duration::ZERO,
            doubted: false,
            complete: None,
            confirmed: now,
        }
    }

    /// The path that is searched.
    pub(crate) fn path(&self) -> Path {
        self.path
    }

    /// The largest packet to send: `None` as long as nothing larger than assumed is known to be lost.
    pub(crate) fn mtu(&self) -> Option<u16> {
        match (self.passes, self.too_large) {
            // Nothing larger will pass, whether or not it does.
            (0, _) if self.named.is_some() => self.named,
            (0, u16::MAX) => None,
            // Until something arrives.
            (0, too_large) => Some(self.below(too_large).min(BASE)),
            _ => Some(self.filled),
        }
    }

    /// When a probe is to be sent next.
    pub(crate) fn due(&self, activity: Activity) -> Option<Instant> {
        let open = self.doubted || self.lost > 0;
        let Some(complete) = self.complete.filter(|_| !open) else {
            return Some(self.confirmed);
        };
        // Whoever sends nothing loses nothing.
        if activity.sent <= self.confirmed {
            return None;
        }
        let silent = activity.sent > activity.heard + SILENCE;
        let wait = if silent { CONFIRM_SOON } else { CONFIRM };
        Some((self.confirmed + wait).min(complete + RAISE))
    }

    /// The size of the packet to be sent now.
    pub(crate) fn begin(&mut self, now: Instant) -> u16 {
        if let Some(complete) = self.complete
            && now >= complete + RAISE
        {
            self.too_large = u16::MAX;
            self.named = None;
            self.complete = None;
        }
        let known = self.passes.max(self.least());
        self.candidate().unwrap_or(known)
    }

    /// How long the next probe is given to be answered before a short request takes its place, `least` of it on any
    /// path: an answer that is merely late must not count as none.
    pub(crate) fn wait(&self, least: Duration) -> Duration {
        let late = self.late + self.late / 4;
        least.max((2 * self.round_trip).max(late).min(MOST_WAIT))
    }

    /// A probe has been answered after so long: it `arrived`, or a short request had to take its place.
    pub(crate) fn answered(&mut self, now: Instant, probe: Probe, arrived: bool, took: Duration) {
        let size = probe.size;
        if arrived {
            self.named.take_if(|named| *named == size);
            if size >= self.passes {
                (self.passes, self.filled) = (size, probe.filled);
            }
            // Whatever was lost before was lost to something else.
            if self.too_large <= size {
                self.too_large = u16::MAX;
            }
            (self.lost, self.late, self.round_trip) = (0, Duration::ZERO, took);
        } else if size < self.too_large {
            (self.lost, self.late) = (self.lost + 1, took);
            if self.lost >= MOST_LOST {
                self.named.take_if(|named| *named == size);
                (self.lost, self.late) = (0, Duration::ZERO);
                self.too_large = size;
                if size <= self.passes {
                    // It has become narrower: all below is to be seen.
                    self.passes = 0;
                }
            }
        }
        self.doubted = false;
        self.confirmed = now;
        let settled = self.candidate().is_none();
        self.complete = settled.then(|| self.complete.unwrap_or(now));
    }

    /// Nothing can be sent: later again.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.doubted = false;
        self.confirmed = now;
        self.complete = Some(now);
    }

    /// No more than this arrives in the other direction: perhaps the path has become narrower in this one too.
    pub(crate) fn other_direction(&mut self, mtu: u16) {
        self.doubted |= mtu < self.filled;
    }

    /// A router says that no larger packet passes; anyone may have said so in its name, and a probe shows it.
    pub(crate) fn named(&mut self, now: Instant, mtu: u16) {
        let mtu = mtu.max(self.least());
        // Repeated, it is no news: a kernel that sends nothing larger says so of every probe, and each would begin anew.
        if mtu >= self.too_large.min(LARGEST) || mtu + 1 == self.too_large {
            return;
        }
        self.too_large = mtu + 1;
        self.named = (self.passes != mtu).then_some(mtu);
        if self.passes > mtu {
            self.passes = 0;
        }
        (self.lost, self.late) = (0, Duration::ZERO);
        self.complete = None;
        self.confirmed = now;
    }

    /// The next size to try.
    fn candidate(&self) -> Option<u16> {
        if self.named.is_some() {
            return self.named;
        }
        let untried = |size: &u16| *size > self.passes && *size < self.too_large;
        let least = self.least();
        let sizes = SIZES.into_iter().filter(|size| *size >= least);
        let between: Vec<u16> = sizes.filter(untried).collect();
        match between.as_slice() {
            [] => None,
            [.., last] if self.too_large == u16::MAX => Some(*last),
            sizes if self.passes == 0 && sizes.contains(&BASE) => Some(BASE),
            // Below what most carry one after the other, the largest first.
            [.., last] if self.passes == 0 => Some(*last),
            sizes => sizes.get(sizes.len() / 2).copied(),
        }
    }

    /// The largest size below `too_large`.
    fn below(&self, too_large: u16) -> u16 {
        let mut sizes = SIZES.into_iter().rev();
        let fits = sizes.find(|size| *size < too_large);
        fits.unwrap_or_default().max(self.least())
    }

    fn least(&self) -> u16 {
        if self.path.remote.is_ipv6() {
            LEAST_V6
        } else {
            LEAST_V4
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Transport;

    const RTT: Duration = Duration::from_millis(30);

    fn path(remote: &str) -> Path {
        Path {
            transport: Transport::Udp,
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: remote.parse().unwrap(),
            interface: 0,
        }
    }

    /// A probe that fills its size.
    fn whole(size: u16) -> Probe {
        Probe { size, filled: size }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(seconds))
    }

    /// A path that carries packets of `mtu`, searched until nothing is left to try; the sizes tried.
    fn search(search: &mut Search, mtu: u16) -> Vec<u16> {
        let mut tried = Vec::new();
        let quiet = Activity {
            heard: at(0),
            sent: at(0),
        };
        while search.due(quiet).is_some() {
            let size = search.begin(at(1));
            search.answered(at(1), whole(size), size <= mtu, RTT);
            tried.push(size);
            assert!(tried.len() < 40, "{tried:?}");
        }
        tried
    }

    #[test]
    fn a_wide_path_takes_one_probe() {
        let mut wide = Search::new(path("198.51.100.2:4500"), at(0));
        assert_eq!(wide.mtu(), None);
        assert_eq!(search(&mut wide, 1500), [1500]);
        assert_eq!(wide.mtu(), Some(1500));
    }

    #[test]
    fn every_size_of_the_list_is_found_exactly_and_others_rounded_down() {
        for remote in ["198.51.100.2:4500", "[2001:db8::2]:4500"] {
            let least = if remote.starts_with('[') {
                LEAST_V6
            } else {
                LEAST_V4
            };
            for mtu in least..=1500 {
                let mut narrow = Search::new(path(remote), at(0));
                search(&mut narrow, mtu);
                let expected = SIZES.into_iter().rev().find(|size| *size <= mtu);
                assert_eq!(narrow.mtu(), expected, "of {mtu}");
            }
        }
    }

    #[test]
    fn what_most_paths_carry_is_used_until_more_is_known() {
        let mut narrow = Search::new(path("198.51.100.2:4500"), at(0));
        for _ in 0..MOST_LOST {
            assert_eq!(narrow.mtu(), None);
            assert_eq!(narrow.begin(at(0)), 1500);
            narrow.answered(at(0), whole(1500), false, RTT);
        }
        assert_eq!(narrow.mtu(), Some(BASE));
        assert_eq!(narrow.begin(at(0)), BASE);
        narrow.answered(at(0), whole(BASE), true, RTT);
        assert_eq!(narrow.begin(at(0)), 1440);
    }

    #[test]
    fn one_lost_probe_says_nothing() {
        let mut wide = Search::new(path("198.51.100.2:4500"), at(0));
        wide.answered(at(0), whole(1500), false, RTT);
        wide.answered(at(0), whole(1500), true, RTT);
        assert_eq!((wide.mtu(), wide.candidate()), (Some(1500), None));
        // Nor does one of those that confirm it.
        wide.answered(at(40), whole(1500), false, RTT);
        assert_eq!(wide.mtu(), Some(1500));
        wide.answered(at(41), whole(1500), true, RTT);
        assert_eq!((wide.mtu(), wide.candidate()), (Some(1500), None));
    }

    #[test]
    fn what_is_known_is_confirmed_while_something_is_sent() {
        let mut wide = Search::new(path("198.51.100.2:4500"), at(0));
        wide.answered(at(10), whole(1500), true, RTT);
        let due = |heard, sent| {
            wide.due(Activity {
                heard: at(heard),
                sent: at(sent),
            })
        };
        assert_eq!(due(10, 9), None);
        assert_eq!(due(12, 12), Some(at(40)));
        assert_eq!(due(12, 14), Some(at(40)));
        assert_eq!(due(12, 15), Some(at(15)));
        assert_eq!(wide.clone().begin(at(40)), 1500);
    }

    #[test]
    fn a_path_that_becomes_narrower_is_searched_again() {
        let mut path = Search::new(path("198.51.100.2:4500"), at(0));
        search(&mut path, 1500);
        path.answered(at(31), whole(1500), false, RTT);
        path.answered(at(32), whole(1500), false, RTT);
        assert_eq!(path.mtu(), Some(BASE));
        search(&mut path, 1400);
        assert_eq!(path.mtu(), Some(1400));
        // And one that becomes wider after ten minutes.
        let later = Activity {
            heard: at(2000),
            sent: at(2000),
        };
        assert!(path.due(later).unwrap() <= at(1 + 600));
        assert_eq!(path.begin(at(601)), 1500);
        path.answered(at(601), whole(1500), true, RTT);
        assert_eq!(path.mtu(), Some(1500));
    }

    #[test]
    fn what_a_router_names_is_tried() {
        let mut path = Search::new(path("198.51.100.2:4500"), at(0));
        search(&mut path, 1500);
        path.named(at(5), 1431);
        assert_eq!(path.begin(at(5)), 1431);
        path.answered(at(5), whole(1431), true, RTT);
        assert_eq!((path.mtu(), path.candidate()), (Some(1431), None));
        // Less is not believed.
        path.named(at(6), 68);
        assert_eq!(path.begin(at(6)), LEAST_V4);
        path.answered(at(6), whole(LEAST_V4), true, RTT);
        assert_eq!(path.mtu(), Some(LEAST_V4));
    }

    /// A kernel that knows a smaller size than any that is tried sends no probe, and names its size each time.
    #[test]
    fn what_is_named_again_and_again_comes_to_an_end() {
        for remote in ["198.51.100.2:4500", "[2001:db8::2]:4500"] {
            for known in [0, 500, 552, 560, 1000, 1280, 1400, 1499] {
                let mut path = Search::new(path(remote), at(0));
                search(&mut path, 1500);
                path.named(at(5), known);
                let quiet = Activity {
                    heard: at(0),
                    sent: at(0),
                };
                let mut tried = 0;
                while path.due(quiet).is_some() {
                    let size = path.begin(at(5));
                    if size > known {
                        path.named(at(5), known);
                    }
                    path.answered(at(5), whole(size), size <= known, RTT);
                    tried += 1;
                    assert!(tried < 20, "{known}: {path:?}");
                }
                let least = path.least();
                assert_eq!(path.mtu(), Some(known.max(least)), "{known}: {path:?}");
            }
        }
    }

    #[test]
    fn a_late_answer_is_waited_for_the_next_time() {
        let least = Duration::from_millis(500);
        let far = Duration::from_millis(600);
        let mut slow = Search::new(path("198.51.100.2:4500"), at(0));
        assert_eq!(slow.wait(least), least);
        slow.answered(at(0), whole(1500), false, far);
        assert!(slow.wait(least) > far);
        slow.answered(at(1), whole(1500), true, far);
        assert_eq!(slow.wait(least), 2 * far);
        slow.answered(at(2), whole(1500), false, Duration::from_secs(60));
        assert_eq!(slow.wait(least), MOST_WAIT);
        // What was really lost says nothing of the time.
        slow.answered(at(3), whole(1500), false, Duration::from_secs(60));
        assert_eq!(slow.wait(least), 2 * far);
    }

    #[test]
    fn what_the_peer_finds_makes_us_look_at_once() {
        let mut wide = Search::new(path("198.51.100.2:4500"), at(0));
        search(&mut wide, 1500);
        let quiet = Activity {
            heard: at(0),
            sent: at(0),
        };
        wide.other_direction(1500);
        assert_eq!(wide.due(quiet), None);
        wide.other_direction(1400);
        assert_eq!((wide.due(quiet), wide.begin(at(2))), (Some(at(1)), 1500));
        assert_eq!(search(&mut wide, 1500), [1500]);
        assert_eq!((wide.due(quiet), wide.mtu()), (None, Some(1500)));
    }

    #[test]
    fn what_was_under_way_when_a_router_spoke_counts_for_nothing() {
        let mut path = Search::new(path("198.51.100.2:4500"), at(0));
        path.named(at(0), 1400);
        path.answered(at(0), whole(1500), false, RTT);
        path.answered(at(0), whole(1400), false, RTT);
        assert_eq!((path.mtu(), path.begin(at(0))), (Some(1400), 1400));
        path.answered(at(0), whole(1400), true, RTT);
        assert_eq!((path.mtu(), path.candidate()), (Some(1400), None));
    }

    /// A block cipher's messages come in steps of 16 octets.
    #[test]
    fn a_size_that_cannot_be_filled_is_tried_once() {
        for (mtu, named) in [
            (1500, None),
            (1400, None),
            (1500, Some(1405)),
            (1300, Some(1405)),
        ] {
            let mut path = Search::new(path("198.51.100.2:4500"), at(0));
            if let Some(named) = named {
                path.named(at(0), named);
            }
            let quiet = Activity {
                heard: at(0),
                sent: at(0),
            };
            let mut tried = 0;
            while path.due(quiet).is_some() {
                let size = path.begin(at(1));
                let filled = size - size % 16;
                path.answered(at(1), Probe { size, filled }, filled <= mtu, RTT);
                tried += 1;
                assert!(tried < 20, "{path:?}");
            }
            let found = path.mtu().unwrap();
            assert!(found <= mtu && found.is_multiple_of(16), "{path:?}");
            // What the peer has found alike is no news.
            path.other_direction(found);
            assert_eq!(path.due(quiet), None);
        }
    }

    #[test]
    fn what_a_router_names_is_no_proof() {
        let mut path = Search::new(path("198.51.100.2:4500"), at(0));
        search(&mut path, 1400);
        // Ten minutes later something larger is tried, and our own link says what it takes.
        assert_eq!(path.begin(at(601)), 1500);
        path.named(at(601), 1492);
        assert_eq!((path.mtu(), path.begin(at(601))), (Some(1400), 1492));
        search(&mut path, 1400);
        assert_eq!(path.mtu(), Some(1400));
    }

    #[test]
    fn a_lost_confirmation_puts_off_no_larger_size() {
        let mut path = Search::new(path("198.51.100.2:4500"), at(0));
        search(&mut path, 1400);
        let busy = Activity {
            heard: at(580),
            sent: at(580),
        };
        for second in (40..580).step_by(30) {
            path.answered(at(second), whole(1400), false, RTT);
            assert_eq!(path.due(busy), Some(at(second)), "at once again");
            path.answered(at(second + 1), whole(1400), true, RTT);
        }
        assert_eq!((path.mtu(), path.due(busy)), (Some(1400), Some(at(581))));
        assert_eq!(path.begin(at(601)), 1500);
    }
}

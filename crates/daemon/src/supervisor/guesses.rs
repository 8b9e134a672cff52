//! Slows down who guesses passwords: by the user whose password is guessed, known or not, by where the guesses come
//! from, and by both together.
//!
//! The first few failures cost nothing. After that each attempt waits for twice as long as the one before; one that
//! would have to wait for more than some seconds is not looked at: after these it counts as wrong for whoever made it,
//! and here not at all. Time makes up for failures.
//!
//! Guesses are not to keep out the one whose password is guessed. What comes from one place alone stays below what a
//! user bears from all; and where a user has logged in before, what fails elsewhere under that name does not count, and
//! what others fail there keeps nobody waiting for more than those seconds. How long an answer takes is the same as for
//! a user who does not exist, or whoever shares a source with a user could tell who has logged in from there.
//!
//! The tables have a fixed size: names and sources that share a place wait for each other, and nobody outside can
//! tell which do.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use crate::source::network;

/// Places of each table.
const PLACES: usize = 4096;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// The longest that an attempt is kept waiting: IKE gives up a log-in after half a minute.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// Attempts kept waiting at once.
const WAITING_MAX: usize = 64;
/// Answers held back at once until [`WAIT_MAX`] is over; more than honest log-ins can ask for.
const LATE_MAX: usize = 4096;

/// What failures cost.
#[derive(Clone, Copy)]
struct Measure {
    /// So many nothing.
    free: u32,
    /// The time that makes up for one.
    forgiven: Duration,
}

const fn measure(free: u32, forgiven: u64) -> Measure {
    Measure {
        free,
        forgiven: Duration::from_secs(forgiven),
    }
}

/// One user, from everywhere. More in the long run than one network may make, or that one could keep the user out.
const OF_USER: Measure = measure(20, 30);
/// One user, from one network.
const OF_PAIR: Measure = measure(5, 60);
/// All users, from one source, behind which there may be many: an IPv4 address, or a /64 of IPv6.
const OF_SOURCE: Measure = measure(15, 60);
/// From what one customer may have of IPv6 (RFC 6177): a /56, and a /48.
const OF_56: Measure = measure(30, 60);
const OF_48: Measure = measure(60, 60);
const MEASURES: [Measure; 5] = [OF_USER, OF_PAIR, OF_SOURCE, OF_56, OF_48];

/// When an attempt is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    After(Duration),
    /// After [`WAIT_MAX`], when whoever is not at home here would be refused.
    Late,
    /// Not at all; said after [`WAIT_MAX`].
    Refused,
    /// Not at all; said at once, as too much is held back already.
    Swamped,
}

impl Admission {
    /// When the answer is due, if not at once.
    pub(super) fn wait(self) -> Option<Duration> {
        match self {
            Self::Now | Self::Swamped => None,
            Self::After(wait) => Some(wait),
            Self::Late | Self::Refused => Some(WAIT_MAX),
        }
    }

    /// Whether the password is looked at.
    pub(super) fn is_looked_at(self) -> bool {
        matches!(self, Self::Now | Self::After(_) | Self::Late)
    }
}

/// Who has guessed wrongly lately. Times are those since the start.
pub(super) struct Guesses {
    hasher: RandomState,
    /// One for each of [`MEASURES`].
    tables: [Vec<Place>; MEASURES.len()],
    /// Where users have logged in.
    homes: Vec<Home>,
    waiting: usize,
    late: usize,
}

#[derive(Clone, Copy, Default)]
struct Place {
    failures: u32,
    /// When the last failure was forgiven or noted.
    since: Duration,
    /// When the next attempt may be looked at.
    free_at: Duration,
}

/// A user at a source. A stranger whose name and source fall on this place is told apart by the whole hash.
#[derive(Clone, Copy, Default)]
struct Home {
    of: Option<u64>,
    place: Place,
    /// What [`Admission::Late`] is judged by, which nobody can tell from how long an answer takes.
    late: Place,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            tables: MEASURES.map(|_| vec![Place::default(); PLACES]),
            homes: vec![Home::default(); PLACES],
            waiting: 0,
            late: 0,
        }
    }
}

impl Guesses {
    /// When this attempt may be looked at. It counts as a failure until [`Guesses::was_right`]. What has to wait is
    /// to be told to [`Guesses::waited`] when it has.
    pub(super) fn admit(&mut self, now: Duration, user: &str, source: IpAddr) -> Admission {
        let (full, swamped) = (self.waiting >= WAITING_MAX, self.late >= LATE_MAX);
        let (mut places, mut home) = self.places(user, source);
        let mut at = now;
        for (place, measure, of_user) in &mut places {
            place.forgive(now, *measure);
            if home.is_none() || !*of_user {
                at = at.max(place.free_at);
            }
        }
        if let Some(home) = &mut home {
            home.place.forgive(now, OF_PAIR);
            home.late.forgive(now, OF_PAIR);
            at = at.max(home.place.free_at);
        }
        let wait = at - now;
        if wait <= WAIT_MAX && (wait.is_zero() || !full) {
            for (place, measure, _) in places {
                place.note(at, measure);
            }
            if let Some(home) = home {
                home.place.note(at, OF_PAIR);
                home.late.note(at, OF_PAIR);
            }
            if wait.is_zero() {
                return Admission::Now;
            }
            self.waiting += 1;
            return Admission::After(wait);
        }
        if swamped {
            return Admission::Swamped;
        }
        // To the tables it is one that was refused: what comes next waits for no longer because of it.
        let admission = match home {
            Some(home) if home.late.free_at <= now + WAIT_MAX => {
                home.late.note(now.max(home.late.free_at), OF_PAIR);
                Admission::Late
            }
            _ => Admission::Refused,
        };
        self.late += 1;
        admission
    }

    /// One that was kept waiting, as `admitted`, waits no more.
    pub(super) fn waited(&mut self, admitted: Admission) {
        match admitted {
            Admission::After(_) => self.waiting = self.waiting.saturating_sub(1),
            Admission::Late | Admission::Refused => self.late = self.late.saturating_sub(1),
            Admission::Now | Admission::Swamped => {}
        }
    }

    /// The attempt, `admitted` so, proved the password.
    pub(super) fn was_right(&mut self, user: &str, source: IpAddr, admitted: Admission) {
        let (places, _) = self.places(user, source);
        // One that came late was not noted there.
        for (place, measure, _) in places.into_iter().filter(|_| admitted != Admission::Late) {
            // Others may be guessing: their failures stay.
            place.failures = place.failures.saturating_sub(1);
            if place.failures < measure.free {
                place.free_at = Duration::ZERO;
            }
        }
        let of = self.home(user, source);
        if let Some(home) = self.homes.get_mut(index(of)) {
            *home = Home {
                of: Some(of),
                ..Home::default()
            };
        }
    }

    /// All that the attempt is judged by, and whether that is the user's and set aside at home; and the home, if the
    /// user has one here.
    fn places(
        &mut self,
        user: &str,
        source: IpAddr,
    ) -> (Vec<(&mut Place, Measure, bool)>, Option<&mut Home>) {
        let of = self.home(user, source);
        let [anywhere, near] = self.of_user(user, source);
        let hash = |bits| self.hasher.hash_one(network(source, bits));
        let keys = [
            (Some(anywhere), true),
            (Some(near), true),
            (Some(hash(64)), false),
            (source.is_ipv6().then(|| hash(56)), false),
            (source.is_ipv6().then(|| hash(48)), false),
        ];
        let tables = self.tables.iter_mut().zip(MEASURES);
        let places = tables.zip(keys).filter_map(|((table, measure), key)| {
            let (key, of_user) = key;
            let place = table.get_mut(index(key?))?;
            Some((place, measure, of_user))
        });
        let home = self.homes.get_mut(index(of));
        (places.collect(), home.filter(|home| home.of == Some(of)))
    }

    /// What a user is known by, and by a source of about that place.
    fn of_user(&self, user: &str, source: IpAddr) -> [u64; 2] {
        let user = user.to_lowercase();
        [
            self.hasher.hash_one(&user),
            self.hasher.hash_one((&user, network(source, 48))),
        ]
    }

    /// A user is one in whatever case the name is written.
    fn home(&self, user: &str, source: IpAddr) -> u64 {
        let user = user.to_lowercase();
        self.hasher.hash_one((user, network(source, 64)))
    }
}

/// In a table.
fn index(hash: u64) -> usize {
    usize::try_from(hash % PLACES as u64).unwrap_or_default()
}

impl Place {
    fn forgive(&mut self, now: Duration, measure: Measure) {
        let passed = now.saturating_sub(self.since).as_secs() / measure.forgiven.as_secs();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        if forgiven > 0 {
            self.failures = self.failures.saturating_sub(forgiven);
            self.since = now;
        }
    }

    fn note(&mut self, at: Duration, measure: Measure) {
        if self.failures == 0 {
            self.since = at;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(over) = self.failures.checked_sub(measure.free) {
            let pause = Duration::from_secs(1u64.checked_shl(over).unwrap_or(u64::MAX));
            // At home an attempt is looked at before what elsewhere was noted allows one.
            self.free_at = self.free_at.max(at + pause.min(PAUSE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    impl Guesses {
        fn all_waited(&mut self) {
            (self.waiting, self.late) = (0, 0);
        }
    }

    /// How many of the guesses made each second for `seconds` are looked at.
    fn looked_at(seconds: u64, mut who: impl FnMut(u64) -> (String, IpAddr)) -> usize {
        let mut guesses = Guesses::default();
        (0..seconds)
            .filter(|second| {
                let (user, source) = who(*second);
                guesses.all_waited();
                let now = Duration::from_secs(*second);
                guesses.admit(now, &user, source).is_looked_at()
            })
            .count()
    }

    #[test]
    fn a_user_is_guessed_at_about_twice_a_minute() {
        // From anywhere.
        let hour = looked_at(3600, |second| {
            ("alice".to_owned(), source((second % 250) as u8))
        });
        assert!((60..180).contains(&hour), "{hour}");
        // In whatever case the name is written.
        let hour = looked_at(3600, |second| {
            let name = ["alice", "Alice", "ALICE", "aLICE"];
            let name = name[(second % 4) as usize];
            (name.to_owned(), source((second % 250) as u8))
        });
        assert!((60..180).contains(&hour), "{hour}");
    }

    #[test]
    fn a_source_guesses_at_about_one_user_a_minute() {
        let hour = looked_at(3600, |second| (format!("user{second}"), source(1)));
        assert!((20..150).contains(&hour), "{hour}");
    }

    #[test]
    fn whoever_has_a_network_of_ipv6_is_one_source() {
        for shift in [56 + 8, 72] {
            let hour = looked_at(3600, |second| {
                let prefix = 0x2001_0db8_0001_u128 << 80;
                let address = prefix | u128::from(second % 200) << shift | 1;
                (format!("user{second}"), IpAddr::V6(address.into()))
            });
            assert!((20..200).contains(&hour), "{hour}");
        }
    }

    /// How often alice, who logs in from `own` each ten minutes, is let in at once while `stranger` guesses at her
    /// password each second.
    fn let_in(first: bool, own: impl Fn(u64) -> IpAddr, stranger: impl Fn(u64) -> IpAddr) -> usize {
        let mut guesses = Guesses::default();
        if first {
            let admitted = guesses.admit(Duration::ZERO, "alice", own(0));
            guesses.was_right("alice", own(0), admitted);
        }
        let mut let_in = 0;
        for second in 1..=6000 {
            let now = Duration::from_secs(second);
            guesses.all_waited();
            guesses.admit(now, "alice", stranger(second));
            if second % 600 == 0 && guesses.admit(now, "alice", own(second)) == Admission::Now {
                guesses.was_right("alice", own(second), Admission::Now);
                let_in += 1;
            }
        }
        let_in
    }

    #[test]
    fn who_guesses_does_not_keep_out_the_one_whose_password_it_is() {
        // From one place not even where she never was.
        let travels = |second: u64| source((second / 600 + 100) as u8);
        assert_eq!(let_in(false, travels, |_| source(1)), 10);
        // From everywhere not where she was before.
        let everywhere = |second: u64| IpAddr::from([203, 0, 113, (second % 250) as u8]);
        assert_eq!(let_in(true, |_| source(1), everywhere), 10);
    }

    #[test]
    fn where_a_user_has_logged_in_others_guess_no_faster() {
        let mut guesses = Guesses::default();
        guesses.was_right("alice", source(1), Admission::Now);
        let looked_at = (0..3600).filter(|second| {
            guesses.all_waited();
            let now = Duration::from_secs(*second);
            guesses.admit(now, "alice", source(1)).is_looked_at()
        });
        let hour = looked_at.count();
        assert!((20..120).contains(&hour), "{hour}");
    }

    /// Made-up names, each of which has its places in the tables for itself, as all had in tables without end: where two
    /// share one by chance, both wait for it, and whoever compares two of these tables sees the chance.
    struct MadeUp {
        taken: [BTreeSet<usize>; 2],
        number: u32,
    }

    impl MadeUp {
        fn beside(guesses: &Guesses, user: &str) -> Self {
            let taken = guesses.of_user(user, source(1));
            Self {
                taken: taken.map(|hash| [index(hash)].into()),
                number: 0,
            }
        }

        fn next(&mut self, guesses: &Guesses) -> String {
            loop {
                self.number += 1;
                let name = format!("user{}", self.number);
                let places = guesses.of_user(&name, source(1)).map(index);
                let pairs = || self.taken.iter().zip(places);
                if pairs().all(|(taken, place)| !taken.contains(&place)) {
                    for (taken, place) in self.taken.iter_mut().zip(places) {
                        taken.insert(place);
                    }
                    return name;
                }
            }
        }
    }

    #[test]
    fn who_shares_a_source_with_a_user_cannot_tell_who_is_one() {
        // Attempts under made-up names, then such under one; then seconds that pass.
        for steps in [
            [(18, 1, 0), (0, 1, 0), (1, 1, 4)].as_slice(),
            &[(30, 1, 0), (0, 12, 1), (0, 1, 60), (3, 1, 20)],
            &[(0, 30, 3), (20, 2, 70), (0, 4, 1)],
            &[(16, 40, 9); 40],
        ] {
            let answered = |name: &str| {
                let mut guesses = Guesses::default();
                guesses.was_right("alice", source(1), Admission::Now);
                let mut made_up = MadeUp::beside(&guesses, name);
                let (mut now, mut answered, mut waiting) =
                    (Duration::from_secs(100), Vec::new(), Vec::new());
                for (others, own, pass) in steps {
                    let others: Vec<_> = (0..*others).map(|_| made_up.next(&guesses)).collect();
                    for user in others.into_iter().chain((0..*own).map(|_| name.to_owned())) {
                        let admitted = guesses.admit(now, &user, source(1));
                        answered.push((now, admitted.wait()));
                        waiting.extend(admitted.wait().map(|wait| (now + wait, admitted)));
                    }
                    now += Duration::from_secs(*pass);
                    waiting.retain(|(until, admitted)| {
                        if *until <= now {
                            guesses.waited(*admitted);
                        }
                        *until > now
                    });
                }
                answered
            };
            assert_eq!(answered("alice"), answered("bob"), "{steps:?}");
        }
    }

    #[test]
    fn who_guesses_at_others_makes_a_user_wait_at_home_and_no_more() {
        let mut guesses = Guesses::default();
        guesses.was_right("alice", source(1), Admission::Now);
        for second in 0..6000 {
            let now = Duration::from_secs(second);
            guesses.all_waited();
            guesses.admit(now, &format!("user{second}"), source(1));
            if second % 600 == 599 {
                let admitted = guesses.admit(now, "alice", source(1));
                assert!(admitted.is_looked_at() && admitted.wait().is_some());
                guesses.was_right("alice", source(1), admitted);
            }
        }
    }

    #[test]
    fn so_many_answers_are_held_back_and_no_more() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        let mut admitted = || guesses.admit(now, "alice", source(1));
        let held_back = (0..2 * LATE_MAX).filter(|_| admitted() == Admission::Refused);
        assert_eq!(held_back.count(), LATE_MAX);
        assert_eq!(admitted(), Admission::Swamped);
        assert_eq!(Admission::Refused.wait(), Some(WAIT_MAX));
    }

    #[test]
    fn what_is_refused_is_not_noted() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        let mut last = Admission::Now;
        for _ in 0..=OF_PAIR.free {
            last = guesses.admit(now, "alice", source(1));
        }
        assert!(matches!(last, Admission::After(_)), "{last:?}");
        guesses.waiting = WAITING_MAX;
        for _ in 0..100 {
            assert_eq!(guesses.admit(now, "alice", source(1)), Admission::Refused);
        }
        guesses.waiting = 0;
        let next = guesses.admit(now, "alice", source(1));
        assert!(matches!(next, Admission::After(_)), "{next:?}");
    }

    #[test]
    fn who_mistypes_a_few_times_does_not_wait() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        for _ in 0..OF_PAIR.free {
            assert_eq!(guesses.admit(now, "alice", source(1)), Admission::Now);
        }
        let waits = guesses.admit(now, "alice", source(1));
        assert!(matches!(waits, Admission::After(_)), "{waits:?}");
        guesses.was_right("alice", source(1), Admission::Now);
        assert_eq!(guesses.admit(now, "alice", source(1)), Admission::Now);
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let mut guesses = Guesses::default();
        for second in 0..1000 {
            let now = Duration::from_secs(second / 10);
            let user = format!("user{second}");
            assert_eq!(guesses.admit(now, &user, source(1)), Admission::Now);
            guesses.was_right(&user, source(1), Admission::Now);
        }
    }

    #[test]
    fn few_are_kept_waiting_at_once() {
        let mut guesses = Guesses::default();
        let now = Duration::from_secs(100);
        let mut waiting = 0;
        for user in 0..2000 {
            for _ in 0..=OF_PAIR.free {
                let source = source((user % 250) as u8);
                let admitted = guesses.admit(now, &format!("user{user}"), source);
                waiting += usize::from(matches!(admitted, Admission::After(_)));
            }
        }
        assert_eq!(waiting, WAITING_MAX);
    }
}

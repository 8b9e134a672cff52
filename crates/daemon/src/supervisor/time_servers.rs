//! When time servers are asked for the date: while nobody keeps the machine's own right, at once, then ever more seldom;
//! and, once they agreed, now and then again, so that a forged date does not last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cygnet_linux::clock::boottime;

use super::hooks::visible;
use super::{Done, Supervisor, expiry};
use crate::api::ClockStatus;
use crate::ask_time::{self, Answer};
use crate::clock::{Agreed, Told, Whose, day, span};
use crate::ipc::ToEngine;

/// Wait after asking in vain, at first and at most. RFC 4330 §10 wants no server asked more often.
const AGAIN_FIRST: Duration = Duration::from_secs(15);
const AGAIN_MOST: Duration = Duration::from_secs(120);
/// After they agreed.
const AFFIRMED: Duration = Duration::from_secs(600);
/// A clock that can be right, though nobody keeps it so, counts when they have not agreed for so long: a machine that
/// reaches none of them comes up.
const WAITED_FOR: Duration = Duration::from_secs(20);
/// A server that wants to be left alone is.
const LEFT_ALONE: Duration = Duration::from_secs(3600);
/// The engine is told of a date that differs by so many milliseconds from the one that it knows.
const DIFFERS: u64 = 1000;

/// Who is asked, and when.
#[derive(Debug)]
pub(super) struct TimeServers {
    servers: Vec<String>,
    /// When they were needed first.
    begun: Option<Instant>,
    asking: bool,
    last: Option<Instant>,
    due: Instant,
    failures: u32,
    /// Why nothing came of asking last.
    trouble: Option<String>,
    left_alone: BTreeMap<String, Instant>,
}

impl TimeServers {
    pub(super) fn new(servers: Vec<String>, now: Instant) -> Self {
        Self {
            servers,
            begun: None,
            asking: false,
            last: None,
            due: now,
            failures: 0,
            trouble: None,
            left_alone: BTreeMap::new(),
        }
    }

    /// Whether they are needed now, and still waited for.
    fn are_waited_for(&mut self, now: Instant) -> bool {
        now < *self.begun.get_or_insert(now) + WAITED_FOR
    }

    /// Whom to ask now.
    fn errand(&mut self, now: Instant) -> Option<Vec<String>> {
        if self.asking || now < self.due {
            return None;
        }
        self.left_alone.retain(|_, until| now < *until);
        let asked = self.servers.iter();
        let asked = asked.filter(|server| !self.left_alone.contains_key(*server));
        let asked: Vec<String> = asked.cloned().collect();
        if asked.is_empty() {
            return None;
        }
        self.asking = true;
        self.last = Some(now);
        Some(asked)
    }

    /// Takes what came of an errand; the date, if they agree on one. `earliest` and `boot` as in [`ask_time::agree`].
    fn take(
        &mut self,
        found: Result<Vec<(String, Answer)>, String>,
        earliest: i64,
        boot: i64,
        now: Instant,
    ) -> Option<Agreed> {
        self.asking = false;
        let asked = found.as_ref().map_or(&[][..], Vec::as_slice);
        for (server, answer) in asked {
            if answer.as_ref().is_err_and(|failed| failed.leave_alone) {
                self.left_alone.insert(server.clone(), now + LEFT_ALONE);
            }
        }
        let agreed =
            found.and_then(|asked| ask_time::agree(&asked, self.servers.len(), earliest, boot));
        match agreed {
            Ok(agreed) => {
                self.failures = 0;
                self.trouble = None;
                self.due = now + AFFIRMED;
                Some(agreed)
            }
            Err(trouble) => {
                // A network has a say in it.
                let trouble = visible(&trouble);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
                self.trouble = Some(trouble);
                self.due = now + (AGAIN_FIRST * (1 << self.failures.min(6))).min(AGAIN_MOST);
                self.failures = self.failures.saturating_add(1);
                None
            }
        }
    }

    /// Another way out: who could not be reached may be now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.trouble.is_some() {
            self.failures = 0;
            let soonest = self.last.map_or(now, |last| last + AGAIN_FIRST);
            self.due = self.due.min(soonest);
        }
    }

    /// An authority has signed later than the date that they agreed on.
    fn disproven(&mut self, now: Instant) {
        let trouble =
            "what time servers agreed on is not the date: an authority in `ca` has signed later";
        tracing::warn!("{trouble}");
        self.trouble = Some(trouble.to_owned());
        self.hurry(now);
    }

    /// The machine's own date is right: what was in the way is no matter any more.
    fn rest(&mut self, now: Instant) {
        if self.trouble.take().is_some() {
            self.failures = 0;
            self.due = self.last.map_or(now, |last| last + AGAIN_FIRST);
        }
    }

    /// Why there is no date.
    fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }
}

impl Supervisor {
    pub(super) fn watch_clock(&mut self) {
        let now = Instant::now();
        // Nobody is asked for what nobody needs.
        let ask = !self.ending
            && !self.time_servers.servers.is_empty()
            && expiry::needs_a_date(&self.loaded.config);
        self.clock
            .doubt(ask && self.time_servers.are_waited_for(now));
        self.keep_date(false);
        if self.clock.is_kept_right() {
            self.clock.forget_servers();
            self.time_servers.rest(now);
        } else if ask {
            self.ask_time();
        }
        self.date_may_differ();
    }

    /// An authority has signed at that time.
    pub(super) fn witness(&mut self, signed: Option<i64>) {
        let before = self.clock.whose();
        self.clock.witness(signed);
        if before == Whose::Servers && self.clock.whose() != Whose::Servers {
            self.time_servers.disproven(Instant::now());
        }
        self.date_may_differ();
    }

    /// Keeps the machine's date, if it counts. What time servers said is not kept: forged, it would keep the right date
    /// from being believed.
    pub(super) fn keep_date(&mut self, at_the_end: bool) {
        let is_machines = self.clock.whose() == Whose::Machines;
        let date = self.clock.date().ok().filter(|_| is_machines);
        self.last_known.keep(date, boottime(), at_the_end);
        self.clock.remember(self.last_known.kept());
    }

    fn ask_time(&mut self) {
        let Some(asked) = self.time_servers.errand(Instant::now()) else {
            return;
        };
        let (done, user) = (self.done.clone(), self.user);
        tokio::task::spawn_local(async move {
            let found = ask_time::send(&asked, user).await;
            let found = found.map(|answers| asked.into_iter().zip(answers).collect());
            let _ = done.send(Done::Time { found });
        });
    }

    pub(super) fn time(&mut self, found: Result<Vec<(String, Answer)>, String>) {
        let boot = i64::try_from(boottime().as_millis()).unwrap_or(i64::MAX);
        let earliest = self.clock.earliest();
        let agreed = self
            .time_servers
            .take(found, earliest, boot, Instant::now());
        if let Some(agreed) = agreed {
            self.clock.believe(agreed);
        }
        self.date_may_differ();
    }

    /// Tells the engine, and the log, if the date is another one than they know.
    pub(super) fn date_may_differ(&mut self) {
        let told = self.clock.told();
        if differs(self.told, told) {
            self.told = told;
            self.tell(&ToEngine::Date(told));
        }
        let whose = self.clock.whose();
        if whose == std::mem::replace(&mut self.whose_date, whose) {
            return;
        }
        match (whose, self.clock_status()) {
            (Whose::Machines, _) if self.clock.is_kept_right() => {
                tracing::info!("this machine's clock is set: certificates can be judged");
                self.tell_expiry();
            }
            (Whose::Machines, _) => {
                tracing::info!(
                    "certificates are judged by this machine's clock, which no time synchronisation keeps right"
                );
                self.tell_expiry();
            }
            (Whose::Servers, Some(clock)) => {
                tracing::warn!("{clock}");
                self.tell_expiry();
            }
            _ => self.tell_expiry(),
        }
    }

    /// `None` while the machine's own date counts, or none.
    pub(super) fn clock_status(&self) -> Option<ClockStatus> {
        let (servers, behind_s) = self.clock.by_servers()?;
        Some(ClockStatus {
            date: self.clock.date().ok()?.0,
            servers: servers.to_vec(),
            behind_s,
        })
    }

    /// Why nobody knows the date, if it is needed; or who does.
    pub(super) fn clock_warnings(&self) -> Vec<String> {
        match self.clock.whose() {
            Whose::Machines => None,
            Whose::Servers => self.clock_status().map(|clock| clock.to_string()),
            Whose::Nobodys => self.time_servers.trouble(),
        }
        .into_iter()
        .collect()
    }
}

fn differs(known: Told, told: Told) -> bool {
    match (known, told) {
        (Ok(known), Ok(told)) => known.abs_diff(told) >= DIFFERS,
        (Err(known), Err(told)) => known.to_string() != told.to_string(),
        _ => true,
    }
}

impl std::fmt::Display for ClockStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "time from {}: this machine's clock is {} {}; certificates are judged by that date ({}), which whoever is \
             on the way can forge: set the clock, `timedatectl set-ntp true` keeps it right",
            self.servers.join(" and "),
            span(self.behind_s.saturating_abs()),
            if self.behind_s < 0 { "ahead" } else { "behind" },
            day(self.date)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NotSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn servers(now: Instant) -> TimeServers {
        TimeServers::new(vec!["a.example".into(), "b.example".into()], now)
    }

    fn failed(leave_alone: bool) -> Result<Vec<(String, Answer)>, String> {
        let failed = ask_time::tests_of_others::failed("no answer", leave_alone);
        Ok(vec![("a.example".to_owned(), Err(failed))])
    }

    #[test]
    fn they_are_asked_ever_more_seldom_and_never_in_less_than_15_s() {
        let mut now = Instant::now();
        let mut servers = servers(now);
        for wait in [15, 30, 60, 120, 120] {
            assert_eq!(servers.errand(now).unwrap().len(), 2);
            assert_eq!(servers.errand(now + AFFIRMED), None, "it is asked already");
            assert_eq!(servers.take(failed(false), 0, 0, now), None);
            assert_eq!(servers.errand(now + SECOND * wait - SECOND / 2), None);
            now += SECOND * wait;
        }
        // Another way out.
        servers.errand(now).unwrap();
        servers.take(failed(false), 0, 0, now);
        servers.hurry(now + SECOND);
        assert_eq!(servers.errand(now + SECOND * 14), None);
        assert!(servers.errand(now + SECOND * 15).is_some());
    }

    #[test]
    fn what_they_agree_on_is_asked_for_again() {
        let now = Instant::now();
        let mut servers = servers(now);
        let said = |last: u8| {
            let name = char::from(b'a' + last);
            (
                format!("{name}.example"),
                Ok(ask_time::tests_of_others::said(last, 5000)),
            )
        };
        servers.errand(now).unwrap();
        let agreed = servers.take(Ok(vec![said(0), said(1)]), 0, 0, now).unwrap();
        assert_eq!(agreed.at_boot, 5000);
        assert_eq!(servers.trouble(), None);
        servers.hurry(now);
        assert_eq!(servers.errand(now + AFFIRMED - SECOND), None);
        assert!(servers.errand(now + AFFIRMED).is_some());
    }

    #[test]
    fn a_machine_that_reaches_none_of_them_comes_up_after_20_s() {
        let now = Instant::now();
        let mut servers = servers(now);
        let later = now + SECOND * 100;
        assert!(servers.are_waited_for(later));
        assert!(servers.are_waited_for(later + SECOND * 19));
        assert!(!servers.are_waited_for(later + SECOND * 20));
    }

    #[test]
    fn who_is_disproven_is_asked_again_soon() {
        let now = Instant::now();
        let mut servers = servers(now);
        let said = |last| ask_time::tests_of_others::said(last, 5000);
        let both = [("a.example", 1), ("b.example", 2)];
        let both = both.map(|(name, last)| (name.to_owned(), Ok(said(last))));
        servers.errand(now).unwrap();
        assert!(servers.take(Ok(both.to_vec()), 0, 0, now).is_some());
        servers.disproven(now + SECOND * 20);
        assert!(servers.trouble().unwrap().contains("has signed later"));
        assert!(servers.errand(now + SECOND * 20).is_some());
    }

    #[test]
    fn who_wants_to_be_left_alone_is_for_an_hour() {
        let now = Instant::now();
        let mut servers = servers(now);
        servers.errand(now).unwrap();
        servers.take(failed(true), 0, 0, now);
        let later = now + AGAIN_MOST;
        assert_eq!(servers.errand(later), Some(vec!["b.example".to_owned()]));
        servers.take(Ok(Vec::new()), 0, 0, later);
        assert_eq!(servers.errand(now + LEFT_ALONE).unwrap().len(), 2);
    }

    #[test]
    fn what_a_network_says_steers_no_terminal() {
        let now = Instant::now();
        let mut servers = servers(now);
        servers.errand(now).unwrap();
        let failed = ask_time::tests_of_others::failed("left alone (\x1b[2J)", false);
        servers.take(Ok(vec![("a.example".to_owned(), Err(failed))]), 0, 0, now);
        let told = servers.trouble().unwrap();
        assert!(told.ends_with("left alone (\u{fffd}[2J)"), "{told}");
    }

    #[test]
    fn nobody_is_asked_where_nobody_is_configured() {
        let now = Instant::now();
        assert_eq!(TimeServers::new(Vec::new(), now).errand(now), None);
    }

    #[test]
    fn the_engine_is_told_of_another_date() {
        let (unset, later) = (
            NotSet::Program { says: 0 },
            NotSet::Program { says: 86_400 },
        );
        for (known, told, differ) in [
            (Ok(5000), Ok(5999), false),
            (Ok(5000), Ok(6000), true),
            (Ok(5000), Ok(4000), true),
            (Ok(5000), Err(unset), true),
            (Err(unset), Ok(5000), true),
            (Err(unset), Err(NotSet::Program { says: 1 }), false),
            (Err(unset), Err(later), true),
        ] {
            assert_eq!(differs(known, told), differ, "{known:?} {told:?}");
        }
    }

    #[test]
    fn whose_date_it_is_is_told() {
        let clock = ClockStatus {
            date: 1_795_651_200,
            servers: vec!["a.example".into(), "b.example".into()],
            behind_s: 20 * 365 * 86_400,
        };
        let told = clock.to_string();
        let start = "time from a.example and b.example: this machine's clock is 20 years behind;";
        assert!(told.starts_with(start), "{told}");
        let ahead = ClockStatus {
            behind_s: -7200,
            ..clock
        };
        let told = ahead.to_string();
        assert!(told.contains("clock is 2 hours ahead;"), "{told}");
    }
}

//! What happened to each tunnel lately, and why: up, down, tries that failed, other addresses. It outlives the engine
//! and, in the state directory, this program.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cygnet_ike::time::UtcTime;
use cygnet_linux::keep_file;
use serde::{Deserialize, Serialize};

use super::{Done, Supervisor};
use crate::api::{Change, TunnelHistory, What, ordinal};
use crate::ipc::Changed;

/// Changes of a tunnel that are remembered.
const CHANGES_MAX: usize = 20;
/// Tries that failed for reasons of their own, of those between two times of being up.
const FAILED_MAX: usize = 3;
/// Letters of a reason: the engine may have been taken over.
const TEXT_MAX: usize = 400;
/// A file that is longer is none of ours.
const FILE_MAX: u64 = 4 << 20;
/// It is written so often at once, and later once in [`PAUSE`]: a flash card is not written to all the time.
const BURST: u32 = 12;
const PAUSE: Duration = Duration::from_secs(60);

/// What happened to the tunnels that are configured.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    tunnels: BTreeMap<String, VecDeque<Noted>>,
    pen: Pen,
}

/// A change as it is noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    #[serde(flatten)]
    change: Change,
    /// When, by a clock that is always right and knows no date: where the date is to be found out yet.
    #[serde(skip)]
    since: Option<Instant>,
}

impl Noted {
    /// When, in seconds since 1970, if that can be told.
    fn at(&self, date: Option<UtcTime>, now: Instant) -> Option<i64> {
        self.change.at.or_else(|| {
            let ago = i64::try_from(ago(self.since?, now)).unwrap_or(i64::MAX);
            Some(date?.0.saturating_sub(ago))
        })
    }
}

/// When the file is written.
#[derive(Debug)]
struct Pen {
    /// There is something to write.
    wet: bool,
    /// Somebody writes.
    busy: bool,
    /// That it cannot be written was told.
    complained: bool,
    left: u32,
    /// Since when fewer than [`BURST`] are left.
    since: Instant,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    tunnels: BTreeMap<String, VecDeque<Noted>>,
}

/// What is to be written, and where.
pub(super) struct Page {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Page {
    /// Takes as long as the disk does. An error is a sentence.
    pub(super) fn write(&self) -> Result<(), String> {
        let kept = keep_file(&self.path, &self.bytes);
        kept.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

impl History {
    /// What is kept of these tunnels. One that was up when it was written has gone down since, and nobody saw it.
    pub(super) fn read<'a>(
        state_dir: &str,
        tunnels: impl Iterator<Item = &'a String>,
        date: Option<UtcTime>,
        now: Instant,
    ) -> Self {
        let path = Path::new(state_dir).join("history.json");
        let kept = kept(&path).unwrap_or_else(|error| {
            tracing::warn!(
                "{}: what happened before is forgotten: {error}",
                path.display()
            );
            Kept::default()
        });
        let mut history = Self {
            path,
            tunnels: kept.tunnels,
            pen: Pen {
                wet: false,
                busy: false,
                complained: false,
                left: BURST,
                since: now,
            },
        };
        history.configure(tunnels);
        for changes in history.tunnels.values_mut() {
            while changes.len() > CHANGES_MAX {
                changes.pop_front();
            }
        }
        let ended = "cygnet, or this machine, had ended without a word";
        history.all_closed(ended, date);
        history.all_down(ended, date);
        history
    }

    /// Tunnels that are not configured any more are forgotten.
    pub(super) fn configure<'a>(&mut self, tunnels: impl Iterator<Item = &'a String>) {
        let mut before = std::mem::take(&mut self.tunnels);
        self.tunnels = tunnels
            .map(|name| (name.clone(), before.remove(name).unwrap_or_default()))
            .collect();
        self.pen.wet |= !before.is_empty();
    }

    /// Notes what the engine tells of a tunnel, where it is one.
    pub(super) fn note(&mut self, tunnel: &str, change: Changed, date: Option<UtcTime>) {
        self.date(date, Instant::now());
        let Some(changes) = self.tunnels.get_mut(tunnel) else {
            return;
        };
        let (what, text) = match change {
            Changed::Up {
                local,
                remote,
                server,
            } => (What::Up, via(local, remote, server)),
            Changed::Moved {
                local,
                remote,
                server,
            } => (What::Moved, via(local, remote, server)),
            Changed::Down { why } => (What::Down, why),
            Changed::Failed { why } => (What::Failed, why),
        };
        let text: String = text.chars().take(TEXT_MAX).collect();
        let failed = || {
            let latest = changes.iter().rev().map(|noted| &noted.change);
            latest.take_while(|c| c.what == What::Failed)
        };
        if what == What::Failed
            && (failed().count() >= FAILED_MAX || failed().any(|c| c.text == text))
        {
            return;
        }
        add(changes, what, text, date);
        self.pen.wet = true;
    }

    /// Notes that what is tunnelled through it goes direct from now on, or does no more.
    pub(super) fn let_out(&mut self, tunnel: &str, open: bool, date: Option<UtcTime>) {
        let Some(changes) = self.tunnels.get_mut(tunnel) else {
            return;
        };
        let (what, text) = match open {
            true => (
                What::Open,
                "tunnelled devices go direct, in clear, while it is down",
            ),
            false => (What::Closed, "tunnelled devices go direct no more"),
        };
        add(changes, what, text.to_owned(), date);
        self.pen.wet = true;
    }

    /// Every tunnel that is up is down, for this reason.
    pub(super) fn all_down(&mut self, why: &str, date: Option<UtcTime>) {
        self.date(date, Instant::now());
        for changes in self.tunnels.values_mut() {
            let is_open = |what: &What| matches!(what, What::Open | What::Closed);
            let mut latest = changes.iter().rev().map(|noted| noted.change.what);
            let up = latest.find(|what| !is_open(what));
            if matches!(up, Some(What::Up | What::Moved)) {
                add(changes, What::Down, why.to_owned(), date);
                self.pen.wet = true;
            }
        }
    }

    /// Nobody is let out, for this reason.
    pub(super) fn all_closed(&mut self, why: &str, date: Option<UtcTime>) {
        for changes in self.tunnels.values_mut() {
            let mut latest = changes.iter().rev().map(|noted| noted.change.what);
            if latest.find(|what| matches!(what, What::Open | What::Closed)) == Some(What::Open) {
                add(changes, What::Closed, why.to_owned(), date);
                self.pen.wet = true;
            }
        }
    }

    /// For `status`, oldest first. What was noted before the date was known has one now, or is told by how long ago
    /// it was.
    pub(super) fn list(&self, date: Option<UtcTime>, now: Instant) -> Vec<TunnelHistory> {
        let change = |noted: &Noted| Change {
            at: noted.at(date, now),
            ago_s: (noted.since.filter(|_| date.is_none())).map(|since| ago(since, now)),
            ..noted.change.clone()
        };
        let tunnels = self.tunnels.iter();
        let told = tunnels.map(|(name, changes)| TunnelHistory {
            name: name.clone(),
            changes: changes.iter().map(change).collect(),
        });
        told.collect()
    }

    /// The date is known: what was noted without it gets its own.
    fn date(&mut self, date: Option<UtcTime>, now: Instant) {
        if date.is_none() {
            return;
        }
        for noted in self.tunnels.values_mut().flatten() {
            noted.change.at = noted.at(date, now);
            self.pen.wet |= noted.since.take().is_some();
        }
    }

    /// What is to be written now; [`Self::written`] is called when that is done.
    pub(super) fn page(&mut self, now: Instant) -> Option<Page> {
        let pen = &mut self.pen;
        if !pen.wet || pen.busy {
            return None;
        }
        while pen.left < BURST && now.duration_since(pen.since) >= PAUSE {
            pen.left += 1;
            pen.since += PAUSE;
        }
        if pen.left == 0 {
            return None;
        }
        if pen.left == BURST {
            pen.since = now;
        }
        pen.left -= 1;
        pen.busy = true;
        self.last_page()
    }

    /// Whoever wrote is done; what could not be written is tried again, as often as anything else is written.
    pub(super) fn written(&mut self, kept: Result<(), String>) {
        self.pen.busy = false;
        self.pen.wet |= kept.is_err();
        match kept {
            Ok(()) => self.pen.complained = false,
            Err(error) if !std::mem::replace(&mut self.pen.complained, true) => {
                tracing::warn!("{error}; what happened to tunnels is forgotten when cygnet ends");
            }
            Err(_) => {}
        }
    }

    pub(super) fn is_being_written(&self) -> bool {
        self.pen.busy
    }

    /// What there is to write at the end, however often something was written before.
    pub(super) fn last_page(&mut self) -> Option<Page> {
        if !std::mem::take(&mut self.pen.wet) {
            return None;
        }
        let kept = Kept {
            tunnels: self.tunnels.clone(),
        };
        // Of such a type nothing fails.
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        let path = self.path.clone();
        Some(Page { path, bytes })
    }
}

impl Supervisor {
    /// Writes down what happened, beside the loop: a disk may be slow.
    pub(super) fn keep_history(&mut self) {
        if let Some(page) = self.history.page(Instant::now()) {
            let done = self.done.clone();
            tokio::task::spawn_local(async move {
                let written = tokio::task::spawn_blocking(move || page.write()).await;
                let kept = written.unwrap_or_else(|e| Err(e.to_string()));
                let _ = done.send(Done::History { kept });
            });
        }
    }
}

/// By which way: with one of several servers that one is what a person asks about.
fn via(local: SocketAddr, remote: SocketAddr, server: Option<u32>) -> String {
    match server {
        Some(place) => format!("{} server ({})", ordinal(place), remote.ip()),
        None => format!("{local} -> {remote}"),
    }
}

fn add(changes: &mut VecDeque<Noted>, what: What, text: String, date: Option<UtcTime>) {
    if changes.len() >= CHANGES_MAX {
        changes.pop_front();
    }
    changes.push_back(Noted {
        change: Change {
            at: date.map(|date| date.0),
            ago_s: None,
            what,
            text,
        },
        since: date.is_none().then(Instant::now),
    });
}

/// In seconds.
fn ago(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_secs()
}

/// The content of the file; nothing where there is none.
fn kept(path: &Path) -> Result<Kept, String> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        other => other.map_err(|e| e.to_string())?,
    };
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return Err(format!("expected a file of {FILE_MAX} bytes at most"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(directory: &Path, now: Instant) -> History {
        let tunnels = ["home".to_owned(), "office".to_owned()];
        let state_dir = directory.to_str().unwrap();
        History::read(state_dir, tunnels.iter(), Some(UtcTime(1_795_651_200)), now)
    }

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cygnet-history-{name}-{}", std::process::id()))
    }

    fn up() -> Changed {
        Changed::Up {
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "203.0.113.10:4500".parse().unwrap(),
            server: None,
        }
    }

    fn down(why: &str) -> Changed {
        Changed::Down {
            why: why.to_owned(),
        }
    }

    fn failed(why: &str) -> Changed {
        Changed::Failed {
            why: why.to_owned(),
        }
    }

    fn told(history: &History, tunnel: &str) -> Vec<String> {
        let list = history.list(None, Instant::now());
        let of = list.iter().find(|of| of.name == tunnel);
        let changes = of.map(|of| of.changes.iter()).into_iter().flatten();
        changes
            .map(|c| format!("{} {:?}: {}", c.at.unwrap_or_default(), c.what, c.text))
            .collect()
    }

    #[test]
    fn each_tunnel_has_its_own_and_only_those_that_are_configured() {
        let directory = directory("own");
        let mut history = history(&directory, Instant::now());
        history.note("home", up(), Some(UtcTime(1)));
        history.note("office", up(), None);
        history.note(
            "home",
            down("no answer from 203.0.113.10 for 8 s"),
            Some(UtcTime(2)),
        );
        history.note("other", up(), Some(UtcTime(3)));
        let expected = [
            "1 Up: 192.0.2.1:4500 -> 203.0.113.10:4500",
            "2 Down: no answer from 203.0.113.10 for 8 s",
        ];
        assert_eq!(told(&history, "home"), expected);
        history.configure(["office".to_owned()].iter());
        assert!(told(&history, "home").is_empty());
        assert_eq!(
            told(&history, "office"),
            ["2 Up: 192.0.2.1:4500 -> 203.0.113.10:4500"]
        );
        assert_eq!(history.list(None, Instant::now()).len(), 1);
    }

    #[test]
    fn what_was_noted_before_the_date_was_known_gets_it_afterwards() {
        let directory = directory("undated");
        let mut history = history(&directory, Instant::now());
        history.note("home", failed("no route"), None);
        let later = Instant::now() + Duration::from_secs(7);
        let home = |list: Vec<TunnelHistory>| list[0].changes[0].clone();
        let change = home(history.list(None, later));
        assert_eq!((change.at, change.ago_s), (None, Some(7)));
        let change = home(history.list(Some(UtcTime(1_000)), later));
        assert_eq!((change.at, change.ago_s), (Some(993), None));
        // From the next change on it is written down so.
        history.note("home", up(), Some(UtcTime(1_000)));
        let change = home(history.list(Some(UtcTime(9_000)), later));
        assert_eq!(change.at, Some(1_000));
    }

    #[test]
    fn a_night_of_failures_leaves_what_was_before_it() {
        let directory = directory("night");
        let mut history = history(&directory, Instant::now());
        history.note("home", up(), None);
        history.note("home", down("no answer"), None);
        for n in 0..1000 {
            history.note("home", failed("no answer from 203.0.113.10"), None);
            history.note("home", failed(&format!("odd {n}")), None);
        }
        let changes = told(&history, "home");
        assert_eq!(changes.len(), 2 + FAILED_MAX, "{changes:?}");
        for n in 0..1000 {
            history.note("home", up(), Some(UtcTime(n)));
            history.note("home", down(&"x".repeat(100_000)), Some(UtcTime(n)));
        }
        let changes = told(&history, "home");
        assert_eq!(changes.len(), CHANGES_MAX);
        assert!(changes.iter().all(|change| change.len() < 2 * TEXT_MAX));
        assert!(changes.last().unwrap().starts_with("999 Down"));
    }

    #[test]
    fn it_outlives_the_program_and_says_that_nobody_saw_the_end() {
        let directory = directory("kept");
        let now = Instant::now();
        let mut first = history(&directory, now);
        first.note("home", up(), Some(UtcTime(1)));
        first.note("office", up(), Some(UtcTime(2)));
        first.note(
            "office",
            down("asked for by the operator"),
            Some(UtcTime(3)),
        );
        first.page(now).unwrap().write().unwrap();
        let second = history(&directory, now);
        let expected = [
            "1 Up: 192.0.2.1:4500 -> 203.0.113.10:4500",
            "1795651200 Down: cygnet, or this machine, had ended without a word",
        ];
        assert_eq!(told(&second, "home"), expected);
        assert_eq!(told(&second, "office").len(), 2);
        std::fs::write(directory.join("history.json"), "{\"tunnels\": 7}").unwrap();
        let third = history(&directory, now);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(told(&third, "home").is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_but_not_all_the_time() {
        let now = Instant::now();
        let mut history = history(Path::new("/proc/cygnet"), now);
        history.note("home", up(), None);
        let mut tries = 0;
        while let Some(page) = history.page(now) {
            let kept = page.write();
            let error = kept.clone().unwrap_err();
            assert!(error.starts_with("cannot write /proc/cygnet/history.json"));
            history.written(kept);
            tries += 1;
        }
        assert_eq!(tries, BURST);
        assert!(history.page(now + PAUSE).is_some());
        history.written(Ok(()));
        assert!(history.page(now + 2 * PAUSE).is_none());
    }

    #[test]
    fn a_tunnel_that_flaps_does_not_wear_out_the_disk() {
        let directory = directory("wear");
        let start = Instant::now();
        let mut history = history(&directory, start);
        let mut pages = 0;
        for second in 0..3600 {
            history.note("home", up(), None);
            history.note("home", down("no answer"), None);
            if history.page(start + Duration::from_secs(second)).is_some() {
                pages += 1;
                assert!(history.page(start + Duration::from_secs(second)).is_none());
                history.written(Ok(()));
            }
        }
        assert!((60..=72).contains(&pages), "{pages}");
        history.note("home", up(), None);
        assert!(history.last_page().is_some());
        assert!(history.last_page().is_none(), "nothing is left to write");
    }

    #[test]
    fn that_devices_were_let_out_is_told_with_its_end_and_hides_no_tunnel_that_is_up() {
        let directory = directory("let-out");
        let now = Instant::now();
        let mut first = history(&directory, now);
        let at = |second| Some(UtcTime(second));
        first.note("home", down("gone"), at(1));
        first.let_out("home", true, at(2));
        first.note("home", up(), at(3));
        first.let_out("home", false, at(4));
        first.let_out("other", true, at(4));
        first.all_down("the engine ended", at(5));
        first.let_out("home", true, at(6));
        let whats = |history: &History| -> Vec<What> {
            let list = history
                .list(None, Instant::now())
                .into_iter()
                .find(|of| of.name == "home");
            let changes = list.map(|of| of.changes).unwrap_or_default();
            changes.iter().map(|change| change.what).collect()
        };
        use What::{Closed, Down, Open, Up};
        assert_eq!(whats(&first), [Down, Open, Up, Closed, Down, Open]);
        first.last_page().unwrap().write().unwrap();
        let next = history(&directory, now);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(whats(&next).last(), Some(&Closed));
    }
}

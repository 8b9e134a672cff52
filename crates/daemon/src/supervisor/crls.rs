//! Revocation lists that are fetched: at the start, at each reload, and every hour; and kept in the state
//! directory, so that a start has them at once.
//!
//! What was fetched is not looked into here: `fetch-crl` judges it, and the engine does again. Nothing waits
//! for a list: until there is one, certificates are judged without.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cygnet_config::Config;
use cygnet_crypto::{Random, SystemRandom, digest};
use cygnet_ike::time::UtcTime;
use cygnet_linux::keep_file;

use super::{Done, Supervisor};
use crate::clock::day;
use crate::fetch_crl::{self, Dates, Errand, Found, LIST_MAX};
use crate::ipc::{Bundle, MESSAGE_MAX, ToEngine};

/// How often a list is fetched, at least.
const HOURLY: Duration = Duration::from_secs(3600);
/// Wait after a failure, at first, and before a list that ends soon is fetched again.
const AGAIN: Duration = Duration::from_secs(60);
/// All lists together, in octets.
const ALL_MAX: usize = LIST_MAX;
/// These and the files of the configuration go to the engine in one message.
const BUNDLE_MAX: usize = MESSAGE_MAX - (1 << 20);

/// The lists of a configuration, by URL.
pub(super) struct Crls {
    directory: PathBuf,
    lists: BTreeMap<String, List>,
    /// Held while one is written: two at once would share a file.
    writing: Arc<Mutex<()>>,
}

struct List {
    /// Who may have signed it.
    anchors: Vec<Vec<u8>>,
    /// DER.
    held: Option<Vec<u8>>,
    /// Of `held`, once it is judged.
    dates: Option<Dates>,
    /// Why the last fetch brought nothing.
    trouble: Option<String>,
    failures: u32,
    due: Instant,
    fetching: bool,
}

impl Crls {
    /// With what an earlier run has fetched.
    pub(super) fn read(config: &Config, now: Instant) -> Self {
        let mut crls = Self {
            directory: Path::new(&config.daemon.state_dir).join("crl"),
            lists: BTreeMap::new(),
            writing: Arc::default(),
        };
        crls.configure(config, now);
        crls
    }

    /// The lists of a (new) configuration, each to be fetched now.
    pub(super) fn configure(&mut self, config: &Config, now: Instant) {
        let mut anchors: BTreeMap<&String, Vec<Vec<u8>>> = BTreeMap::new();
        for trust in config.trusts.values() {
            for url in &trust.crl_urls {
                let known = anchors.entry(url).or_default();
                known.extend(trust.anchors.iter().cloned());
            }
        }
        let mut before = std::mem::take(&mut self.lists);
        for (url, anchors) in anchors {
            let list = match before.remove(url) {
                Some(list) => List {
                    anchors,
                    failures: 0,
                    due: now,
                    ..list
                },
                None => List {
                    anchors,
                    held: self.kept(url),
                    dates: None,
                    trouble: None,
                    failures: 0,
                    due: now,
                    fetching: false,
                },
            };
            self.lists.insert(url.clone(), list);
        }
        for url in before.into_keys() {
            let _ = std::fs::remove_file(self.file(&url));
        }
    }

    /// Hands what is there to the engine, as far as the message has room for it.
    pub(super) fn fill(&self, bundle: &mut Bundle) {
        let files = bundle.files.values().map(Vec::len).sum::<usize>() + bundle.text.len();
        let mut room = BUNDLE_MAX.saturating_sub(files);
        bundle.fetched.clear();
        for (url, list) in &self.lists {
            let Some(held) = &list.held else { continue };
            match room.checked_sub(held.len()) {
                Some(left) => {
                    room = left;
                    bundle.fetched.insert(url.clone(), held.clone());
                }
                None => tracing::error!(
                    "the revocation list {url} is not heeded: with the files of the configuration it has more than \
                     {BUNDLE_MAX} octets"
                ),
            }
        }
    }

    /// What is to be fetched now.
    fn errands(&mut self, now: Instant, date: Option<UtcTime>) -> Vec<(String, Errand)> {
        let mut errands = Vec::new();
        for (url, list) in &mut self.lists {
            if list.fetching || list.due > now {
                continue;
            }
            list.fetching = true;
            // A reload meanwhile makes it due again.
            list.due = now + HOURLY;
            let errand = Errand {
                anchors: list.anchors.clone(),
                held: list.held.clone(),
                date: date.map(|date| date.0),
            };
            errands.push((url.clone(), errand));
        }
        errands
    }

    /// Takes what came of an errand. `true`: there is another list than before.
    fn take(
        &mut self,
        url: &str,
        found: Result<Found, String>,
        now: Instant,
        date: Option<UtcTime>,
    ) -> bool {
        let others: usize = (self.lists.iter())
            .filter(|(other, _)| *other != url)
            .map(|(_, list)| list.held.as_ref().map_or(0, Vec::len))
            .sum();
        // None where a reload has taken it out meanwhile.
        let Some(list) = self.lists.get_mut(url) else {
            return false;
        };
        list.fetching = false;
        let fetched = match found {
            Ok(found) => {
                list.dates = found.held;
                found.fetched
            }
            Err(error) => Err(error),
        };
        let fetched = fetched.and_then(|(dates, der)| {
            if others + der.len() > ALL_MAX {
                return Err(format!(
                    "with it, all revocation lists together have more than {ALL_MAX} octets"
                ));
            }
            Ok((dates, der))
        });
        let mut changed = false;
        let trouble = match fetched {
            Ok((dates, der)) => {
                let of = day(dates.this_update);
                if list.held.as_ref() != Some(&der) {
                    tracing::info!("the revocation list {url} of {of} is in force");
                    list.held = Some(der);
                    changed = true;
                } else if list.trouble.is_some() {
                    tracing::info!(
                        "the revocation list {url} is fetched again: still that of {of}"
                    );
                }
                list.dates = Some(dates);
                (dates.next_update)
                    .filter(|next| date.is_some_and(|date| *next < date.0))
                    .map(|next| format!("the one that is there expired on {}", day(next)))
            }
            Err(error) => Some(error),
        };
        list.failures = match &trouble {
            Some(_) => list.failures.saturating_add(1),
            None => 0,
        };
        // Unless a reload made it due.
        if list.due > now {
            list.due = now + jitter(wait(list.failures, list.dates, date));
        }
        let told = std::mem::replace(&mut list.trouble, trouble);
        if list.trouble != told
            && let Some(warning) = warning(url, list)
        {
            tracing::warn!("{warning}");
        }
        changed
    }

    /// A list that is there, and the file to keep it in.
    fn to_keep(&self, url: &str) -> Option<(PathBuf, Vec<u8>)> {
        let held = self.lists.get(url)?.held.clone()?;
        Some((self.file(url), held))
    }

    /// A sentence for each list that does not come.
    pub(super) fn warnings(&self) -> Vec<String> {
        let lists = self.lists.iter();
        lists.filter_map(|(url, list)| warning(url, list)).collect()
    }

    fn file(&self, url: &str) -> PathBuf {
        let name: String = (digest::sha256(&[url.as_bytes()]).iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.directory.join(format!("{name}.crl"))
    }

    fn kept(&self, url: &str) -> Option<Vec<u8>> {
        let others = self.lists.values().filter_map(|list| list.held.as_ref());
        let others: usize = others.map(Vec::len).sum();
        let path = self.file(url);
        let size = std::fs::metadata(&path).ok()?.len();
        let fits = usize::try_from(size).is_ok_and(|size| others + size <= ALL_MAX);
        fits.then(|| std::fs::read(&path).ok()).flatten()
    }
}

fn warning(url: &str, list: &List) -> Option<String> {
    let trouble = match (&list.trouble, &list.held) {
        (Some(trouble), _) => format!("could not be fetched: {trouble}"),
        (None, None) => "is not there yet".to_owned(),
        (None, Some(_)) => return None,
    };
    let judged = match (&list.held, list.dates) {
        (Some(_), Some(dates)) => format!("by the one of {}", day(dates.this_update)),
        (Some(_), None) => "by the one that was fetched before".to_owned(),
        (None, _) => "without it".to_owned(),
    };
    Some(format!(
        "the revocation list {url} {trouble}; certificates are judged {judged}"
    ))
}

/// Until the next fetch.
fn wait(failures: u32, dates: Option<Dates>, date: Option<UtcTime>) -> Duration {
    if failures > 0 {
        return (AGAIN * (1 << (failures - 1).min(6))).min(HOURLY);
    }
    let left = dates
        .and_then(|dates| dates.next_update)
        .zip(date)
        .and_then(|(next, date)| u64::try_from(next.saturating_sub(date.0)).ok());
    left.map_or(HOURLY, |left| {
        Duration::from_secs(left).clamp(AGAIN, HOURLY)
    })
}

/// Up to a tenth earlier: not all that have one authority come at the same moment.
fn jitter(wait: Duration) -> Duration {
    let mut dice = [0; 1];
    SystemRandom.fill(&mut dice);
    wait.mul_f32(1.0 - f32::from(dice[0]) / 2560.0)
}

impl Supervisor {
    /// Sends for the lists that are due.
    pub(super) fn fetch_crls(&mut self) {
        if self.ending {
            return;
        }
        let date = self.clock.date().ok();
        for (url, errand) in self.crls.errands(Instant::now(), date) {
            let (done, user) = (self.done.clone(), self.user);
            tokio::task::spawn_local(async move {
                let found = fetch_crl::send(&url, &errand, user).await;
                let _ = done.send(Done::Crl { url, found });
            });
        }
    }

    /// A list that changed is heeded as one in a file is after a reload.
    pub(super) fn crl(&mut self, url: &str, found: Result<Found, String>) {
        let date = self.clock.date().ok();
        if !self.crls.take(url, found, Instant::now(), date) {
            return;
        }
        if let Some((path, der)) = self.crls.to_keep(url) {
            let writing = Arc::clone(&self.crls.writing);
            // Megabytes, until they are on the disk: nothing else waits for that.
            tokio::task::spawn_blocking(move || {
                let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = keep_file(&path, &der) {
                    tracing::warn!("cannot write {}: {error}", path.display());
                }
            });
        }
        if self.ending {
            return;
        }
        self.crls.fill(&mut self.loaded.bundle);
        let reload = ToEngine::Reload {
            bundle: self.loaded.bundle.clone(),
            tuns: Vec::new(),
            replaced: Vec::new(),
        };
        self.tell(&reload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://crl.example.org/root.crl";
    /// 2026-11-26.
    const TODAY: i64 = 1_795_651_200;
    const DATES: Dates = Dates {
        this_update: TODAY - 86_400,
        next_update: Some(TODAY + 86_400),
    };

    fn crls(state: &Path, now: Instant) -> Crls {
        let daemon = format!("[daemon]\nstate_dir = \"{}\"\n", state.display());
        let text = format!("{daemon}[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n");
        let config = Config::parse("t", &text, &mut |_| Err("no files".to_owned())).unwrap();
        let mut crls = Crls::read(&config, now);
        let list = List {
            anchors: Vec::new(),
            held: crls.kept(URL),
            dates: None,
            trouble: None,
            failures: 0,
            due: now,
            fetching: false,
        };
        crls.lists.insert(URL.to_owned(), list);
        crls
    }

    /// The list as the engine gets it, beside a file of that size.
    fn handed(lists: &Crls, file: usize) -> Option<Vec<u8>> {
        let mut bundle = Bundle {
            name: String::new(),
            text: String::new(),
            files: [("ca.crt".to_owned(), vec![0; file])].into(),
            fetched: BTreeMap::new(),
        };
        lists.fill(&mut bundle);
        bundle.fetched.remove(URL)
    }

    fn came(list: &[u8]) -> Result<Found, String> {
        Ok(Found {
            held: None,
            fetched: Ok((DATES, list.to_vec())),
        })
    }

    #[test]
    fn what_was_fetched_is_kept_and_what_fails_is_told_and_tried_again() {
        let name = format!("cygnet-crls-{}", std::process::id());
        let state = std::env::temp_dir().join(name);
        let (now, date) = (Instant::now(), Some(UtcTime(TODAY)));
        let mut lists = crls(&state, now);
        assert_eq!(lists.errands(now, date).len(), 1);
        assert!(lists.errands(now, date).is_empty(), "one at a time");
        assert!(!lists.take(URL, Err("no route".to_owned()), now, date));
        let told = lists.warnings().concat();
        let expected = "could not be fetched: no route; certificates are judged without it";
        assert!(told.contains(URL) && told.ends_with(expected), "{told}");
        assert!(
            lists
                .errands(now + Duration::from_secs(50), date)
                .is_empty()
        );
        assert_eq!(lists.errands(now + AGAIN, date).len(), 1);

        assert!(lists.take(URL, came(b"list"), now, date));
        let (path, der) = lists.to_keep(URL).unwrap();
        keep_file(&path, &der).unwrap();
        assert_eq!(lists.warnings(), Vec::<String>::new());
        assert_eq!(handed(&lists, 0), Some(b"list".to_vec()));
        assert_eq!(handed(&lists, BUNDLE_MAX), None, "no room");
        assert!(!lists.take(URL, came(b"list"), now, date), "the same again");

        let mut lists = crls(&state, now);
        let kept = handed(&lists, 0);
        let older = Ok(Found {
            held: Some(DATES),
            fetched: Err("older".to_owned()),
        });
        assert!(!lists.take(URL, older, now, date));
        let told = lists.warnings().concat();
        let huge = lists.take(URL, came(&vec![0; ALL_MAX + 1]), now, date);
        let path = lists.file(URL);
        lists.configure(
            &Config::parse("t", "", &mut |_| Err(String::new())).unwrap(),
            now,
        );
        let left = path.exists();
        std::fs::remove_dir_all(&state).unwrap();
        assert_eq!(kept, Some(b"list".to_vec()), "after a restart");
        assert!(
            told.ends_with("older; certificates are judged by the one of 2026-11-25"),
            "{told}"
        );
        assert!(!huge);
        assert!(!left, "what is not configured any more is not kept");
        assert!(!lists.take(URL, came(b"late"), now, date));
    }

    #[test]
    fn a_list_is_fetched_before_it_ends_and_failures_ever_more_seldom() {
        let date = Some(UtcTime(TODAY));
        let ends_in = |seconds| {
            let next_update = Some(TODAY + seconds);
            Some(Dates {
                next_update,
                ..DATES
            })
        };
        let seconds = |failures, dates| wait(failures, dates, date).as_secs();
        assert_eq!(seconds(0, ends_in(86_400)), 3600);
        assert_eq!(seconds(0, ends_in(600)), 600);
        assert_eq!(seconds(0, ends_in(1)), 60);
        assert_eq!(seconds(0, None), 3600);
        let failing: Vec<u64> = (1..9).map(|n| seconds(n, ends_in(600))).collect();
        assert_eq!(failing, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(seconds(u32::MAX, None), 3600);
        let early = jitter(HOURLY);
        assert!(early <= HOURLY && early > HOURLY * 8 / 9, "{early:?}");
    }
}

//! Revocation lists that are fetched: at the start, at each reload, and every hour; and kept in the state
//! directory, so that a start has them at once.
//!
//! What was fetched is not looked into here: `fetch-crl` judges it, and the engine does again. Nothing waits
//! for a list: until there is one, certificates are judged without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cygnet_config::Config;
use cygnet_crypto::{Random, SystemRandom, digest};
use cygnet_ike::time::UtcTime;
use cygnet_linux::keep_file;
use tokio::sync::Mutex;

use super::companion::sentence;
use super::{Done, Supervisor};
use crate::clock::day;
use crate::fetch_crl::{self, Dates, Errand, Found, LIST_MAX, name};
use crate::ipc::{Bundle, MESSAGE_MAX, ToEngine};

/// How often a list is fetched, at least.
const HOURLY: Duration = Duration::from_secs(3600);
/// Wait after a failure, at first, and before a list that ends soon is fetched again.
const AGAIN: Duration = Duration::from_secs(60);
/// Lists that are had of one URL. Whoever is between chooses which of the authorities' lists comes: none takes the
/// place of another's, or of one of another scope.
const LISTS_MAX: usize = 8;
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
    /// By the number of its file.
    held: BTreeMap<usize, Held>,
    /// Why the last fetch brought nothing.
    trouble: Option<String>,
    failures: u32,
    due: Instant,
    fetching: bool,
}

/// A list that is had.
struct Held {
    /// As who judges it calls it.
    name: fetch_crl::Name,
    /// DER.
    list: Vec<u8>,
    /// Once it is judged.
    dates: Option<Dates>,
}

impl Held {
    fn new(list: Vec<u8>, dates: Option<Dates>) -> Self {
        let name = name(&list);
        Self { name, list, dates }
    }
}

impl List {
    fn size(&self) -> usize {
        self.held.values().map(|held| held.list.len()).sum()
    }

    fn dates(&self) -> impl Iterator<Item = Dates> {
        self.held.values().filter_map(|held| held.dates)
    }
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
                    trouble: None,
                    failures: 0,
                    due: now,
                    fetching: false,
                },
            };
            self.lists.insert(url.clone(), list);
        }
        for url in before.into_keys() {
            for number in 0..LISTS_MAX {
                let _ = std::fs::remove_file(self.file(&url, number));
            }
        }
    }

    /// Hands what is there to the engine, as far as the message has room for it.
    pub(super) fn fill(&self, bundle: &mut Bundle) {
        let files = bundle.files.values().map(Vec::len).sum::<usize>() + bundle.text.len();
        let mut room = BUNDLE_MAX.saturating_sub(files);
        bundle.fetched.clear();
        for (url, list) in &self.lists {
            for Held { list, .. } in list.held.values() {
                match room.checked_sub(list.len()) {
                    Some(left) => {
                        room = left;
                        let fetched = bundle.fetched.entry(url.clone()).or_default();
                        fetched.push(list.clone());
                    }
                    None => tracing::error!(
                        "the revocation list {url} is not heeded: with the files of the configuration it has more \
                         than {BUNDLE_MAX} octets"
                    ),
                }
            }
        }
    }

    /// What is to be fetched now.
    fn errands(&mut self, now: Instant) -> Vec<(String, Errand)> {
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
                held: list.held.values().map(|held| held.list.clone()).collect(),
            };
            errands.push((url.clone(), errand));
        }
        errands
    }

    /// Takes what came of an errand. If there is another list than before, the number of its file.
    fn take(
        &mut self,
        url: &str,
        found: Result<Found, String>,
        now: Instant,
        date: Option<UtcTime>,
    ) -> Option<usize> {
        let all: usize = self.lists.values().map(List::size).sum();
        // None where a reload has taken it out meanwhile.
        let list = self.lists.get_mut(url)?;
        list.fetching = false;
        let fetched = found.and_then(|found| {
            for held in list.held.values_mut() {
                let judged = found.held.iter().find(|(name, _)| *name == held.name);
                if let Some((_, dates)) = judged {
                    held.dates = *dates;
                }
            }
            found.fetched.map_err(|why| sentence(&why))
        });
        let mut changed = None;
        let trouble = match fetched.and_then(|fetched| {
            let dates = fetched.dates;
            let of = day(dates.this_update);
            let is_new = list.hold(fetched.der, dates, fetched.replaces, all)?;
            if is_new.is_some() {
                tracing::info!("the revocation list {url} of {of} is in force");
                changed = is_new;
            } else if list.trouble.is_some() {
                tracing::info!("the revocation list {url} is fetched again: still that of {of}");
            }
            Ok(dates)
        }) {
            Ok(dates) => list.expired(dates, date),
            Err(error) => Some(error),
        };
        list.failures = match &trouble {
            Some(_) => list.failures.saturating_add(1),
            None => 0,
        };
        // Unless a reload made it due.
        if list.due > now {
            list.due = now + jitter(wait(list.failures, list.dates(), date));
        }
        let told = std::mem::replace(&mut list.trouble, trouble);
        if list.trouble != told
            && let Some(warning) = warning(url, list)
        {
            tracing::warn!("{warning}");
        }
        changed
    }

    /// When the newest of those that are had and judged was made.
    fn newest(&self) -> Option<i64> {
        let dates = self.lists.values().flat_map(List::dates);
        dates.map(|dates| dates.this_update).max()
    }

    /// A list that is there, and the file to keep it in.
    fn to_keep(&self, url: &str, number: usize) -> Option<(PathBuf, Vec<u8>)> {
        let held = self.lists.get(url)?.held.get(&number)?;
        Some((self.file(url, number), held.list.clone()))
    }

    /// A sentence for each list that does not come.
    pub(super) fn warnings(&self) -> Vec<String> {
        let lists = self.lists.iter();
        lists.filter_map(|(url, list)| warning(url, list)).collect()
    }

    fn file(&self, url: &str, number: usize) -> PathBuf {
        let mut file: String = (digest::sha256(&[url.as_bytes()]).iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if number > 0 {
            file += &format!("-{number}");
        }
        self.directory.join(format!("{file}.crl"))
    }

    fn kept(&self, url: &str) -> BTreeMap<usize, Held> {
        let mut all: usize = self.lists.values().map(List::size).sum();
        let files = (0..LISTS_MAX).filter_map(|number| {
            let path = self.file(url, number);
            let size = usize::try_from(std::fs::metadata(&path).ok()?.len()).ok()?;
            let list = match all.checked_add(size)? <= ALL_MAX {
                true => std::fs::read(&path).ok()?,
                false => return None,
            };
            all += list.len();
            Some((number, Held::new(list, None)))
        });
        files.collect()
    }
}

impl List {
    /// Holds a list in the place of the one that it replaces, or beside those that are there. The number of its
    /// file, unless it is there already.
    fn hold(
        &mut self,
        list: Vec<u8>,
        dates: Dates,
        replaces: Option<fetch_crl::Name>,
        all: usize,
    ) -> Result<Option<usize>, String> {
        let dates = Some(dates);
        if let Some(held) = self.held.values_mut().find(|held| held.list == list) {
            held.dates = dates;
            return Ok(None);
        }
        let before = replaces.and_then(|replaces| {
            let mut held = self.held.iter();
            held.find(|(_, held)| held.name == replaces)
        });
        let (number, gone) = match before {
            Some((number, held)) => (*number, held.list.len()),
            None => {
                let free = (0..LISTS_MAX).find(|number| !self.held.contains_key(number));
                let full = || {
                    format!(
                        "what came is of another authority or scope than the {LISTS_MAX} lists that came before"
                    )
                };
                (free.ok_or_else(full)?, 0)
            }
        };
        if all - gone + list.len() > ALL_MAX {
            return Err(format!(
                "with it, all revocation lists together have more than {ALL_MAX} octets"
            ));
        }
        self.held.insert(number, Held::new(list, dates));
        Ok(Some(number))
    }

    /// What is out of date, though this came: it itself, or another that does not come.
    fn expired(&self, came: Dates, date: Option<UtcTime>) -> Option<String> {
        let date = date?.0;
        let ended = |dates: Dates| dates.next_update.filter(|next| *next < date);
        if let Some(next) = ended(came) {
            return Some(format!("the one that is there expired on {}", day(next)));
        }
        let next = self.dates().filter_map(ended).min()?;
        Some(format!(
            "another one came than the one that expired on {}, of another authority, key or scope",
            day(next)
        ))
    }
}

fn warning(url: &str, list: &List) -> Option<String> {
    let trouble = match (&list.trouble, list.held.is_empty()) {
        (Some(trouble), _) => format!("could not be fetched: {trouble}"),
        (None, true) => "is not there yet".to_owned(),
        (None, false) => return None,
    };
    let days: BTreeSet<_> = list.dates().map(|dates| dates.this_update).collect();
    let days: Vec<_> = days.into_iter().map(day).collect();
    let judged = match (list.held.len(), &*days.join(" and ")) {
        (0, _) => "without it".to_owned(),
        (1, "") => "by the one that was fetched before".to_owned(),
        (_, "") => "by those that were fetched before".to_owned(),
        (1, days) => format!("by the one of {days}"),
        (_, days) => format!("by those of {days}"),
    };
    Some(format!(
        "the revocation list {url} {trouble}; certificates are judged {judged}"
    ))
}

/// Until the next fetch.
fn wait(failures: u32, dates: impl Iterator<Item = Dates>, date: Option<UtcTime>) -> Duration {
    if failures > 0 {
        return (AGAIN * (1 << (failures - 1).min(6))).min(HOURLY);
    }
    let next = dates.filter_map(|dates| dates.next_update).min();
    let left =
        (next.zip(date)).and_then(|(next, date)| u64::try_from(next.saturating_sub(date.0)).ok());
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

/// Writes on a thread when it is its turn: of those that sign, too, no more than one is taken.
pub(super) async fn in_turn(turn: Arc<Mutex<()>>, write: impl FnOnce() + Send + 'static) {
    let turn = turn.lock_owned().await;
    let written = tokio::task::spawn_blocking(move || {
        write();
        drop(turn);
    });
    if let Err(error) = written.await {
        tracing::error!("writing a file: {error}");
    }
}

impl Supervisor {
    /// Sends for the lists that are due.
    pub(super) fn fetch_crls(&mut self) {
        if self.ending {
            return;
        }
        for (url, errand) in self.crls.errands(Instant::now()) {
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
        let changed = self.crls.take(url, found, Instant::now(), date);
        self.witness(self.crls.newest());
        let Some(number) = changed else {
            return;
        };
        if let Some((path, der)) = self.crls.to_keep(url, number) {
            let writing = Arc::clone(&self.crls.writing);
            // Megabytes, until they are on the disk: nothing else waits for that.
            tokio::task::spawn_local(in_turn(writing, move || {
                if let Err(error) = keep_file(&path, &der) {
                    tracing::warn!("cannot write {}: {error}", path.display());
                }
            }));
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
    use crate::fetch_crl::Fetched;

    #[test]
    fn who_waits_to_write_a_list_keeps_no_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()
            .unwrap();
        runtime.block_on(async {
            let turn = Arc::default();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let first = tokio::spawn(in_turn(Arc::clone(&turn), move || {
                let _ = ended.recv();
            }));
            let second = tokio::spawn(in_turn(Arc::clone(&turn), || ()));
            // Both have begun.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let signs = tokio::task::spawn_blocking(|| ());
            let signed = tokio::time::timeout(Duration::from_secs(5), signs).await;
            drop(end);
            assert!(signed.is_ok(), "the threads are taken");
            first.await.unwrap();
            second.await.unwrap();
        });
    }

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
            trouble: None,
            failures: 0,
            due: now,
            fetching: false,
        };
        crls.lists.insert(URL.to_owned(), list);
        crls
    }

    /// The lists as the engine gets them, beside a file of that size.
    fn handed(lists: &Crls, file: usize) -> Option<Vec<Vec<u8>>> {
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
        came_after(&[], list, DATES, None)
    }

    /// The same beside those, which are had and of other authorities, but for the one that it replaces.
    fn came_after(
        held: &[&[u8]],
        list: &[u8],
        dates: Dates,
        replaces: Option<&[u8]>,
    ) -> Result<Found, String> {
        Ok(Found {
            held: held.iter().map(|held| (name(held), Some(DATES))).collect(),
            fetched: Ok(Fetched {
                dates,
                der: list.to_vec(),
                replaces: replaces.map(name),
            }),
        })
    }

    #[test]
    fn what_was_fetched_is_kept_and_what_fails_is_told_and_tried_again() {
        let directory = format!("cygnet-crls-{}", std::process::id());
        let state = std::env::temp_dir().join(directory);
        let (now, date) = (Instant::now(), Some(UtcTime(TODAY)));
        let mut lists = crls(&state, now);
        assert_eq!(lists.errands(now).len(), 1);
        assert!(lists.errands(now).is_empty(), "one at a time");
        assert_eq!(lists.take(URL, Err("no route".to_owned()), now, date), None);
        let told = lists.warnings().concat();
        let expected = "could not be fetched: no route; certificates are judged without it";
        assert!(told.contains(URL) && told.ends_with(expected), "{told}");
        assert!(lists.errands(now + Duration::from_secs(50)).is_empty());
        assert_eq!(lists.errands(now + AGAIN).len(), 1);

        assert_eq!(lists.newest(), None);
        assert_eq!(lists.take(URL, came(b"list"), now, date), Some(0));
        assert_eq!(lists.newest(), Some(DATES.this_update));
        let (path, der) = lists.to_keep(URL, 0).unwrap();
        keep_file(&path, &der).unwrap();
        assert_eq!(lists.warnings(), Vec::<String>::new());
        assert_eq!(handed(&lists, 0), Some(vec![b"list".to_vec()]));
        assert_eq!(handed(&lists, BUNDLE_MAX), None, "no room");
        let same = lists.take(URL, came(b"list"), now, date);
        assert_eq!(same, None, "the same again");

        let mut lists = crls(&state, now);
        let kept = handed(&lists, 0);
        let older = Ok(Found {
            held: vec![(name(b"list"), Some(DATES))],
            fetched: Err("older".to_owned()),
        });
        assert_eq!(lists.take(URL, older, now, date), None);
        let told = lists.warnings().concat();
        let huge = lists.take(URL, came(&vec![0; ALL_MAX + 1]), now, date);
        let path = lists.file(URL, 0);
        lists.configure(
            &Config::parse("t", "", &mut |_| Err(String::new())).unwrap(),
            now,
        );
        let left = path.exists();
        std::fs::remove_dir_all(&state).unwrap();
        assert_eq!(kept, Some(vec![b"list".to_vec()]), "after a restart");
        assert!(
            told.ends_with("older; certificates are judged by the one of 2026-11-25"),
            "{told}"
        );
        assert_eq!(huge, None);
        assert!(!left, "what is not configured any more is not kept");
        assert_eq!(lists.take(URL, came(b"late"), now, date), None);
    }

    #[test]
    fn why_there_is_no_list_is_told_in_one_line() {
        let state = std::env::temp_dir().join(format!("cygnet-crls-why-{}", std::process::id()));
        let now = Instant::now();
        let mut lists = crls(&state, now);
        let found = Found {
            held: Vec::new(),
            fetched: Err(format!("not there\nup\u{1b}[2J{}", "x".repeat(10_000))),
        };
        assert_eq!(lists.take(URL, Ok(found), now, None), None);
        let told = lists.warnings().concat();
        assert!(told.contains("not there\u{fffd}up\u{fffd}[2Jxx"), "{told}");
        assert!(told.len() < 800, "{told}");
    }

    #[test]
    fn who_is_between_takes_no_list_away_by_another() {
        let state = std::env::temp_dir().join(format!("cygnet-crls-all-{}", std::process::id()));
        let (now, date) = (Instant::now(), Some(UtcTime(TODAY)));
        let mut lists = crls(&state, now);
        let all = |lists: &Crls| handed(lists, 0).unwrap_or_default();
        let keep = |lists: &Crls, number| {
            let (path, der) = lists.to_keep(URL, number).unwrap();
            keep_file(&path, &der).unwrap();
        };
        assert_eq!(lists.take(URL, came(b"a1"), now, date), Some(0));
        keep(&lists, 0);
        let other = came_after(&[b"a1"], b"b1", DATES, None);
        assert_eq!(lists.take(URL, other, now, date), Some(1));
        keep(&lists, 1);
        assert_eq!(all(&lists), [b"a1", b"b1"]);
        let next = came_after(&[b"a1", b"b1"], b"a2", DATES, Some(b"a1"));
        assert_eq!(lists.take(URL, next, now, date), Some(0));
        keep(&lists, 0);

        // All are had after a restart, and all are handed to who judges.
        let mut lists = crls(&state, now);
        assert_eq!(all(&lists), [b"a2", b"b1"]);
        assert_eq!(lists.errands(now)[0].1.held, all(&lists));

        // Where another always comes, it is told when the one that does not is out of date.
        let later = Dates {
            next_update: Some(TODAY + 10 * 86_400),
            ..DATES
        };
        let in_days = |days: i64| Some(UtcTime(TODAY + days * 86_400));
        let again = || came_after(&[b"a2", b"b1"], b"b2", later, Some(b"b1"));
        assert_eq!(lists.take(URL, again(), now, date), Some(1));
        assert_eq!(lists.warnings(), Vec::<String>::new());
        let again = came_after(&[b"a2", b"b2"], b"b2", later, Some(b"b2"));
        assert_eq!(lists.take(URL, again, now, in_days(2)), None);
        let told = lists.warnings().concat();
        assert!(
            told.contains("another one came than the one that expired on 2026-11-27"),
            "{told}"
        );
        assert!(told.ends_with("judged by those of 2026-11-25"), "{told}");

        // There is an end to what can be added, and it is told as well.
        for n in 2..=LISTS_MAX {
            let before: Vec<_> = all(&lists);
            let before: Vec<_> = before.iter().map(Vec::as_slice).collect();
            let more = came_after(&before, &[n as u8], later, None);
            let number = lists.take(URL, more, now, date);
            assert_eq!(number, (n < LISTS_MAX).then_some(n));
        }
        assert!(
            lists
                .warnings()
                .concat()
                .contains("of another authority or scope")
        );
        assert_eq!(all(&lists)[..2], [b"a2", b"b2"]);

        lists.configure(
            &Config::parse("t", "", &mut |_| Err(String::new())).unwrap(),
            now,
        );
        let left = std::fs::read_dir(lists.directory.clone()).unwrap().count();
        std::fs::remove_dir_all(&state).unwrap();
        assert_eq!(left, 0, "what is not configured any more is not kept");
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
        let seconds = |failures, dates: Option<Dates>| {
            // Another that ends later is no reason to wait.
            let all = dates.into_iter().chain(ends_in(86_400));
            wait(failures, all, date).as_secs()
        };
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

//! What a setup has changed, on the disk: written before the first change, so that whatever happens to the process, its
//! terminal or the machine, it can be taken back. One lock decides between keeping and taking back.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cygnet_config::GuardSections;
use cygnet_linux::clock::boottime;
use cygnet_linux::keep_file;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::snapshot::{Restored, Snapshot};

/// Whoever takes something back may wait for systemd, which waits for the program.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take until all is in place and looked at.
pub(super) const APPLYING_MAX: Duration = Duration::from_secs(240);
/// A watcher acts before anybody else does.
const GRACE: Duration = Duration::from_secs(5);
/// Locked by who watches a trial, with its id in it; in `run_dir`.
const WATCH: &str = "gateway-setup.watch";

/// Where one installation has what concerns a setup.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) run_dir: PathBuf,
}

impl Place {
    /// Of a configuration, which may be broken.
    pub(super) fn of(config: &Path) -> Self {
        let text = std::fs::read_to_string(config).unwrap_or_default();
        let (sections, _) = GuardSections::read(&text);
        Self {
            config: std::path::absolute(config).unwrap_or_else(|_| config.to_owned()),
            state_dir: sections.state_dir.into(),
            run_dir: sections.run_dir.into(),
        }
    }

    /// In a directory of its own, which the test of this name removes.
    #[cfg(test)]
    pub(super) fn of_test(name: &str) -> (PathBuf, Self) {
        let name = format!("cygnet-setup-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let place = Self {
            config: directory.join("cygnet.toml"),
            state_dir: directory.join("state"),
            run_dir: directory.join("run"),
        };
        (directory, place)
    }

    /// The running program's control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    fn file(&self) -> PathBuf {
        self.state_dir.join("gateway-setup.json")
    }

    /// The record; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<Record>, String> {
        let path = self.file();
        let bad = |what: &dyn std::fmt::Display| {
            format!(
                "{}: {what}; what `gateway setup` changed can only be taken back by hand, then remove that file",
                path.display()
            )
        };
        let mut options = File::options();
        options
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let mut file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(format!(
                    "cannot read {}: {error}; try again with sudo",
                    path.display()
                ));
            }
            Err(error) => return Err(bad(&error)),
        };
        let metadata = file.metadata().map_err(|error| bad(&error))?;
        // It says what to write as root.
        let own = rustix::process::geteuid().as_raw();
        if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
            return Err(bad(&"somebody else could have written it"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| bad(&error))?;
        let record = serde_json::from_slice(&bytes);
        record.map(Some).map_err(|error| bad(&error))
    }

    /// Writes the record through to the disk.
    pub(super) fn write(&self, record: &Record) -> Result<(), String> {
        let path = self.file();
        let told = |error: &dyn std::fmt::Display| {
            format!("cannot write {}: {error}; try with sudo?", path.display())
        };
        let text = serde_json::to_vec(record).map_err(|error| told(&error))?;
        keep_file(&path, &text).map_err(|error| told(&error))
    }

    /// Leaves what came of taking back for whoever waits for it.
    pub(super) fn leave(&self, restored: &Restored) {
        let lines = restored.notes.iter().chain(&restored.problems);
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        // A convenience, and gone with the next start of the machine.
        let _ = keep_file(&self.told_file(), text.as_bytes());
    }

    /// What was left.
    pub(super) fn told(&self) -> Vec<String> {
        let path = self.told_file();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        text.lines().map(str::to_owned).collect()
    }

    fn told_file(&self) -> PathBuf {
        self.run_dir.join("gateway-setup.told")
    }

    /// There is nothing more to take back.
    pub(super) fn remove(&self) -> Result<(), String> {
        let path = self.file();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
        if let Ok(directory) = File::open(&self.state_dir) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    /// Whoever holds this decides. Nobody holds it while somebody is asked.
    pub(super) fn lock(&self) -> Result<File, String> {
        let file = self.open("gateway-setup.lock")?;
        let until = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err("another `cygnet gateway` command is at work: wait for it".into());
                }
                Err(error) => {
                    return Err(format!("cannot lock {}: {error}", self.run_dir.display()));
                }
            }
        }
    }

    /// Whether somebody decides at this moment.
    pub(super) fn is_locked(&self) -> bool {
        is_held(&self.run_dir.join("gateway-setup.lock"))
    }

    /// Held by the process that watches this trial, as long as it lives. Waits for one that watched another.
    pub(super) fn watch(&self, id: &str) -> Result<File, String> {
        let mut file = self.open(WATCH)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
        file.set_len(0)
            .and_then(|()| file.write_all(id.as_bytes()))
            .map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// Whether a process watches this trial.
    pub(super) fn is_watched(&self, id: &str) -> bool {
        let path = self.run_dir.join(WATCH);
        is_held(&path) && std::fs::read_to_string(&path).is_ok_and(|watched| watched == id)
    }

    /// Whether whoever was to take this trial back did not, and will not.
    pub(super) fn has_orphan(&self, trial: &Trial) -> bool {
        trial.is_orphan(self.is_watched(&trial.id))
    }

    fn open(&self, name: &str) -> Result<File, String> {
        let path = self.run_dir.join(name);
        let told = |error: std::io::Error| {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => "; try again with sudo",
                _ => "",
            };
            format!("cannot open {}: {error}{hint}", path.display())
        };
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.run_dir);
        made.map_err(told)?;
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false);
        options.open(&path).map_err(told)
    }
}

/// What is to be known to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What was confirmed.
    pub(super) kept: Option<Kept>,
    /// What is not confirmed.
    pub(super) trial: Option<Trial>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// As it was before the first setup: `gateway off` goes back there.
    pub(super) before: Snapshot,
    /// The configuration as the last one left it.
    pub(super) written: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// No other has it: whoever began or watches one decides about no later one.
    pub(super) id: String,
    pub(super) before: Snapshot,
    pub(super) written: String,
    /// The boot it is of.
    boot: String,
    /// Until when, since that boot.
    until: Duration,
    pub(super) stage: Stage,
    /// Why it could not be taken back.
    pub(super) problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Changes are being made.
    Applying,
    /// All is in place, and a confirmation is waited for.
    Asked,
    /// It is being taken back: too late to confirm.
    TakenBack,
}

impl Trial {
    /// One that begins now.
    pub(super) fn new(id: String, before: Snapshot, written: String) -> Self {
        Self {
            id,
            before,
            written,
            boot: boot(),
            until: boottime() + APPLYING_MAX,
            stage: Stage::Applying,
            problem: None,
        }
    }

    /// From now on it can be confirmed, for so long.
    pub(super) fn ask(&mut self, within: Duration) {
        self.stage = Stage::Asked;
        self.until = boottime() + within;
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        match self.boot == boot() {
            true => self.until.saturating_sub(boottime()),
            false => Duration::ZERO,
        }
    }

    /// The same in seconds, as people are told: none is left only where no time is.
    pub(super) fn seconds_left(&self) -> u64 {
        self.left().as_millis().div_ceil(1000) as u64
    }

    /// Whether whoever was to take it back did not: the machine was started anew, or there is no such process any more.
    fn is_orphan(&self, watched: bool) -> bool {
        let late = boottime() >= self.until.saturating_add(GRACE);
        self.boot != boot() || !watched && (late || self.stage == Stage::TakenBack)
    }
}

impl Record {
    /// The trial becomes what is kept, if it may.
    pub(super) fn confirmed(self) -> Result<Self, String> {
        match self.trial {
            None => Err("no setup waits for a confirmation".into()),
            Some(trial) => match trial.stage {
                Stage::Applying => Err("not everything is in place yet: wait for it".into()),
                Stage::Asked if !trial.left().is_zero() => Ok(Self {
                    kept: Some(Kept {
                        // Of the first, however often it was changed since.
                        before: self.kept.map_or(trial.before, |kept| kept.before),
                        written: trial.written,
                    }),
                    trial: None,
                }),
                Stage::Asked | Stage::TakenBack => {
                    Err("it is too late: the setup is being taken back".into())
                }
            },
        }
    }
}

/// Whether another process has locked this file.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Names a trial that begins.
pub(super) fn new_id() -> Result<String, String> {
    let path = "/proc/sys/kernel/random/uuid";
    let id = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    id.map(|id| id.trim().to_owned())
}

/// Names this boot; nothing survives it that this is compared with.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(stage: Stage) -> Trial {
        let mut trial = Trial::new("one".into(), Snapshot::default(), "after".into());
        trial.stage = stage;
        trial
    }

    #[test]
    fn only_what_waits_for_it_is_confirmed() {
        let record = |trial| Record { kept: None, trial };
        for (trial, expected) in [
            (None, "no setup waits"),
            (Some(trial(Stage::Applying)), "not everything"),
            (Some(trial(Stage::TakenBack)), "too late"),
        ] {
            let told = record(trial).confirmed().unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        let mut late = trial(Stage::Asked);
        late.until = Duration::ZERO;
        assert!(record(Some(late)).confirmed().is_err());
        let kept = record(Some(trial(Stage::Asked))).confirmed().unwrap();
        assert_eq!(
            (kept.trial, kept.kept.unwrap().written),
            (None, "after".into())
        );
    }

    #[test]
    fn the_time_that_was_told_is_given_wholly() {
        let within = Duration::from_secs(60);
        let mut asked = trial(Stage::Applying);
        let before = boottime();
        asked.ask(within);
        assert!(asked.until >= before + within);
        assert!(asked.seconds_left() <= 60);
        asked.until = Duration::ZERO;
        assert_eq!(asked.seconds_left(), 0);
    }

    #[test]
    fn what_was_before_is_what_was_before_the_first() {
        let first = Snapshot::with_config("first");
        let record = Record {
            kept: Some(Kept {
                before: first.clone(),
                written: "once".into(),
            }),
            trial: Some(trial(Stage::Asked)),
        };
        let kept = record.confirmed().unwrap().kept.unwrap();
        assert_eq!((kept.before, kept.written.as_str()), (first, "after"));
    }

    #[test]
    fn nobody_takes_back_what_another_watches() {
        let mut asked = trial(Stage::Asked);
        assert!(!asked.is_orphan(true) && !asked.is_orphan(false));
        asked.until = Duration::ZERO;
        assert!(!asked.is_orphan(true));
        // Since the machine was started some seconds have passed, as a rule.
        assert_eq!(asked.is_orphan(false), boottime() >= GRACE);
        assert!(trial(Stage::TakenBack).is_orphan(false));
        asked.boot = "another".into();
        assert!(asked.is_orphan(true) && asked.left().is_zero());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (directory, place) = Place::of_test("record");
        let absent = place.read();
        let record = Record {
            kept: None,
            trial: Some(trial(Stage::Applying)),
        };
        place.write(&record).unwrap();
        let read = place.read();
        let lock = place.lock().unwrap();
        let watched = |id| place.is_watched(id);
        let watch = (
            watched("one"),
            place.watch("another and longer"),
            watched("another and longer"),
            watched("one"),
        );
        drop(watch.1);
        let next = place.watch("one");
        let next = (next.is_ok(), watched("one"));
        place.remove().unwrap();
        let gone = place.read();
        std::fs::write(place.file(), "{").unwrap();
        let damaged = place.read();
        std::fs::rename(place.file(), directory.join("other")).unwrap();
        std::os::unix::fs::symlink(directory.join("other"), place.file()).unwrap();
        let linked = place.read();
        drop(lock);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((absent, read, gone), (Ok(None), Ok(Some(record)), Ok(None)));
        assert!(!watch.0 && watch.2 && !watch.3);
        assert_eq!(next, (true, true));
        assert!(damaged.unwrap_err().contains("by hand"));
        // ELOOP: what it leads to was not read.
        assert!(linked.unwrap_err().contains("symbolic link"));
    }
}

//! What a setup may change, as it was before: files, units, the running program, the guard. What the program itself sets in
//! the kernel it takes back itself.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use cygnet_gateway::GUARD_NFT_TABLE;
use cygnet_linux::{Netlink, Owner};
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::edit;
use super::record::Place;
use crate::client;
use crate::command::systemd::{GUARD, RUN, Systemd, Unit};

/// What only a gateway has in `state_dir`.
const OF_THE_GATEWAY: [&str; 3] = [LAST_GUARD, "devices.json", "dhcp-leases.json"];
/// The guard that is put back where none can be read.
const LAST_GUARD: &str = "guard.json";
/// What the running program has there beside: it goes if it was not there, and otherwise tells of more than the gateway.
const OF_THE_PROGRAM: [&str; 2] = ["history.json", "clock"];
/// No file of these is larger.
const FILE_MAX: u64 = 8 << 20;
/// How long the program may take to end.
const END: Duration = Duration::from_secs(35);

/// A file with its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileBefore {
    pub(super) bytes: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UnitState {
    name: String,
    installed: bool,
    enabled: bool,
    active: bool,
}

/// As it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) config: Option<FileBefore>,
    /// Of the gateway, in `state_dir`.
    files: BTreeMap<String, FileBefore>,
    /// Of the program, in `state_dir`.
    present: Vec<String>,
    had_state_dir: bool,
    /// Nothing where there is no systemd.
    units: Vec<UnitState>,
    /// The program answered.
    pub(super) running: bool,
    /// The guard was in place.
    pub(super) guard: bool,
}

/// What came of taking something back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Restored {
    /// What is not as before on purpose, a sentence each.
    pub(super) notes: Vec<String>,
    /// What could not be done, a sentence each.
    pub(super) problems: Vec<String>,
    /// The configuration cannot be read any more, and stays as it is: what is to be taken out of it is still to be known.
    pub(super) unreadable: bool,
}

/// When something is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The machine is in use.
    Now,
    /// The same, and the guard is to be off, whatever it was.
    Off,
    /// The machine starts: nothing of it is waited for.
    AtBoot,
}

impl FileBefore {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_file() || metadata.len() > FILE_MAX {
            return Err(io::Error::other("expected a regular file of at most 8 MiB"));
        }
        Ok(Some(Self {
            bytes: fs::read(path)?,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        }))
    }

    /// Puts these bytes there, with the attributes, in one step; nothing is done where they are there already.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let wanted = Self {
            bytes: bytes.to_vec(),
            ..self.clone()
        };
        if Self::of(path).is_ok_and(|is| is.as_ref() == Some(&wanted)) {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.back"));
        let _ = fs::remove_file(&beside);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let done = file
            .write_all(bytes)
            .and_then(|()| std::os::unix::fs::fchown(&file, Some(self.uid), Some(self.gid)))
            .and_then(|()| file.set_permissions(Permissions::from_mode(self.mode)))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, path));
        if done.is_err() {
            let _ = fs::remove_file(&beside);
        }
        done?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

impl Snapshot {
    /// Looks; nothing is changed.
    pub(super) fn take(place: &Place, systemd: Option<Systemd>) -> Result<Self, String> {
        let copy = |path: &Path| {
            FileBefore::of(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let mut files = BTreeMap::new();
        for name in OF_THE_GATEWAY {
            if let Some(file) = copy(&place.state_dir.join(name))? {
                files.insert(name.to_owned(), file);
            }
        }
        let present = OF_THE_PROGRAM
            .iter()
            .filter(|name| place.state_dir.join(name).symlink_metadata().is_ok());
        let units = systemd.into_iter().flat_map(|systemd| {
            [GUARD, RUN].map(|unit| UnitState {
                name: unit.name.to_owned(),
                installed: systemd.installed(unit).is_some(),
                enabled: systemd.is_enabled(unit),
                active: systemd.is_active(unit),
            })
        });
        Ok(Self {
            config: copy(&place.config)?,
            files,
            present: present.map(|name| (*name).to_owned()).collect(),
            had_state_dir: place.state_dir.is_dir(),
            units: units.collect(),
            running: is_running(place),
            guard: guard_is_there()?,
        })
    }

    #[cfg(test)]
    pub(super) fn with_config(text: &str) -> Self {
        Self {
            config: Some(FileBefore {
                bytes: text.as_bytes().to_vec(),
                mode: 0o600,
                uid: 0,
                gid: 0,
            }),
            ..Self::default()
        }
    }

    fn unit(&self, unit: Unit) -> Option<&UnitState> {
        self.units.iter().find(|state| state.name == unit.name)
    }

    /// Makes it as it was. `written` is the configuration as the setup left it: what somebody else changed in it since
    /// stays. Every step is tried.
    ///
    /// # Errors
    /// The configuration could not be put back: the rest is as it is, and it is to be tried again.
    pub(super) fn restore(
        &self,
        place: &Place,
        written: &str,
        when: When,
    ) -> Result<Restored, String> {
        let (mut notes, unreadable) = self.restore_config(place, written)?;
        let systemd = Systemd::find();
        let mut problems = match unreadable {
            true => std::mem::take(&mut notes),
            false => Vec::new(),
        };
        problems.extend(self.restore_files(place, when).err());
        if when != When::AtBoot {
            problems.extend(self.restore_program(place, systemd, unreadable).err());
            problems.extend(self.restore_guard(place, when).err());
            // The program has written some of them at its end.
            problems.extend(self.restore_files(place, when).err());
        }
        if let Some(systemd) = systemd {
            problems.extend(self.restore_units(systemd, when));
        }
        if !is_running(place) {
            self.remove_new(place);
        }
        Ok(Restored {
            notes,
            problems,
            unreadable,
        })
    }

    /// What there is to say of it, and whether it cannot be read any more.
    fn restore_config(&self, place: &Place, written: &str) -> Result<(Vec<String>, bool), String> {
        let Some(before) = &self.config else {
            return Ok((Vec::new(), false));
        };
        let path = &place.config;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let note = format!("{} was removed, and stays so", path.display());
                return Ok((vec![note], false));
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let as_before = String::from_utf8_lossy(&before.bytes);
        let back = edit::back(&text, &as_before, written);
        // Of a file that somebody changed the attributes are his, too.
        let attributes = match back.by_hand {
            false => Some(before.clone()),
            true => FileBefore::of(path).ok().flatten(),
        };
        let attributes = attributes.unwrap_or_else(|| before.clone());
        attributes
            .put(path, back.text.as_bytes())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let shown = |note: &String| format!("{}: {note}", path.display());
        Ok((back.notes.iter().map(shown).collect(), back.unreadable))
    }

    fn restore_files(&self, place: &Place, when: When) -> Result<(), String> {
        for name in OF_THE_GATEWAY {
            let path = place.state_dir.join(name);
            // What is taken away on purpose is not to be put back by a later start.
            let is_gone = when == When::Off && name == LAST_GUARD;
            let done = match self.files.get(name).filter(|_| !is_gone) {
                Some(file) => file.put(&path, &file.bytes),
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            };
            done.map_err(|error| format!("{} is not as before: {error}", path.display()))?;
        }
        Ok(())
    }

    /// `unreadable`: the configuration cannot be read any more.
    fn restore_program(
        &self,
        place: &Place,
        systemd: Option<Systemd>,
        unreadable: bool,
    ) -> Result<(), String> {
        let reload = |place: &Place| match unreadable {
            false => reload(place),
            true => Err(format!(
                "cygnet runs on as a gateway, by what it has read before: mend {}, take [gateway] out of it, then `sudo \
                 cygnet reload`",
                place.config.display()
            )),
        };
        match (is_running(place), self.running) {
            (true, true) => reload(place),
            (true, false) => match systemd.filter(|systemd| systemd.is_active(RUN)) {
                Some(systemd) => {
                    systemd.call(&["stop", RUN.name])?;
                    wait_for_end(place)
                }
                // Somebody started it by hand, and may end it.
                None => reload(place).map_err(|told| format!("{told}; end `cygnet run`")),
            },
            (false, true) => match systemd {
                Some(systemd) => systemd.call(&["restart", RUN.name]),
                None => Err("cygnet ran before, and has ended: start it again".into()),
            },
            (false, false) => match systemd {
                // It may be about to start.
                Some(systemd) if systemd.installed(RUN).is_some() => {
                    systemd.call(&["stop", RUN.name])
                }
                _ => Ok(()),
            },
        }
    }

    fn restore_guard(&self, place: &Place, when: When) -> Result<(), String> {
        let config = &place.config;
        let left = match is_running(place) {
            false => cygnet_daemon::clear_leftovers(config).map_err(|error| error.to_string()),
            true => Ok(()),
        };
        let guard = match self.guard && when != When::Off {
            true => cygnet_daemon::guard_as_before(config),
            false => cygnet_daemon::guard_off(config).map(drop),
        };
        let what = match when {
            When::Off => "the guard is not off",
            When::Now | When::AtBoot => "the guard is not as before",
        };
        left.and(guard.map_err(|error| format!("{what}: {error}")))
    }

    fn restore_units(&self, systemd: Systemd, when: When) -> Vec<String> {
        let mut told = Vec::new();
        for unit in [GUARD, RUN] {
            let Some(before) = self.unit(unit) else {
                continue;
            };
            let now = (systemd.installed(unit).is_some(), systemd.is_enabled(unit));
            let mut orders: Vec<Vec<&str>> = Vec::new();
            match (now, before.enabled) {
                ((true, true), false) => orders.push(vec!["disable", unit.name]),
                ((true, false), true) => orders.push(vec!["enable", unit.name]),
                _ => {}
            }
            match when {
                // It is a mark that its order was run, and takes nothing away.
                When::Now | When::Off
                    if unit == GUARD && !before.active && systemd.is_active(unit) =>
                {
                    orders.push(vec!["stop", unit.name]);
                }
                // It is this unit that runs this, or one behind it.
                When::AtBoot if unit == RUN && !before.enabled && now.0 => {
                    orders.push(vec!["stop", "--no-block", unit.name]);
                }
                _ => {}
            }
            for order in orders {
                told.extend(systemd.call(&order).err());
            }
            let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|it| it.is_file());
            if !before.installed && is_file(&unit.path()) {
                told.extend(systemd.remove(unit).err());
            }
        }
        // The record of it goes next.
        told.extend(systemd.settle().err());
        told
    }

    /// What a program left that did not run before.
    fn remove_new(&self, place: &Place) {
        if self.running {
            return;
        }
        for name in OF_THE_PROGRAM {
            if !self.present.iter().any(|present| present == name) {
                let _ = fs::remove_file(place.state_dir.join(name));
            }
        }
    }

    /// Once the record is gone.
    pub(super) fn remove_state_dir(&self, place: &Place) {
        if !self.had_state_dir {
            // Only if nothing is in it.
            let _ = fs::remove_dir(&place.state_dir);
        }
    }
}

/// Whether the program answers.
pub(super) fn is_running(place: &Place) -> bool {
    std::os::unix::net::UnixStream::connect(place.socket()).is_ok()
}

/// Has it read its configuration again.
pub(super) fn reload(place: &Place) -> Result<(), String> {
    client::call(&place.socket(), Method::POST, "/v1/reload", None).map(drop)
}

fn wait_for_end(place: &Place) -> Result<(), String> {
    let until = Instant::now() + END;
    while is_running(place) {
        if Instant::now() >= until {
            return Err("cygnet was told to end, and has not".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Whether anything of a guard is in the kernel.
pub(in super::super) fn guard_is_there() -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let rules = runtime.block_on(async { Netlink::connect()?.rules(Owner::Guard).await });
    let rules = rules.map_err(|error| error.to_string())?;
    let table =
        cygnet_linux::nft::list_table(GUARD_NFT_TABLE).map_err(|error| error.to_string())?;
    Ok(!rules.is_empty() || table.is_some())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cygnet-setup-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_file_comes_back_with_its_mode_and_nothing_beside_it() {
        let folder = folder("copy");
        let path = folder.join("cygnet.toml");
        fs::write(&path, "before\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let copy = FileBefore::of(&path).unwrap().unwrap();
        fs::write(folder.join("new"), "after\n").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        copy.put(&path, &copy.bytes).unwrap();
        let now = FileBefore::of(&path).unwrap();
        let names = fs::read_dir(&folder).unwrap().count();
        let absent = FileBefore::of(&folder.join("absent")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((now.as_ref(), names, absent), (Some(&copy), 1, None));
        assert_eq!(copy.mode, 0o640);
    }

    #[test]
    fn files_of_the_gateway_come_and_go_and_the_history_stays_that_was_there() {
        let folder = folder("files");
        let place = Place {
            config: folder.join("cygnet.toml"),
            state_dir: folder.clone(),
            run_dir: folder.join("run"),
        };
        let path = |name: &str| folder.join(name);
        fs::write(path("devices.json"), "orders").unwrap();
        fs::write(path("history.json"), "then").unwrap();
        let before = Snapshot {
            files: [(
                "devices.json".to_owned(),
                FileBefore::of(&path("devices.json")).unwrap().unwrap(),
            )]
            .into(),
            present: vec!["history.json".to_owned()],
            had_state_dir: true,
            ..Snapshot::default()
        };
        for name in [
            "devices.json",
            "guard.json",
            "history.json",
            "clock",
            "other",
        ] {
            fs::write(path(name), "now").unwrap();
        }
        before.restore_files(&place, When::Now).unwrap();
        before.remove_new(&place);
        let read = |name: &str| fs::read_to_string(path(name)).ok();
        let now = [
            "devices.json",
            "guard.json",
            "history.json",
            "clock",
            "other",
        ]
        .map(read);
        before.remove_state_dir(&place);
        fs::remove_dir_all(&folder).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(now, [text("orders"), None, text("now"), None, text("now")]);
    }
}

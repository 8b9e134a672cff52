//! Kernel settings, and the journal by which they are taken back.
//!
//! The journal is a file below /run: settings do not survive a reboot, neither does it. Each line
//! is `path TAB value before TAB value set`, written before the setting is made, so that a crash
//! at any moment leaves enough to undo. A setting somebody else changed meanwhile is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cygnet_gateway::Sysctl;

use crate::{Error, Result, replace_file};

const ROOT: &str = "/proc/sys";

/// What was changed, in the order it was changed.
#[derive(Debug)]
pub struct Journal {
    file: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: String,
    before: String,
    set: String,
}

impl Journal {
    /// Opens the journal in `directory` (made if missing, mode 0700); what a run before left
    /// unfinished is in it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Journal`] for a file that is none.
    pub fn open(directory: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| Error::io(format!("make {}", directory.display()), e))?;
        let file = directory.join("sysctl.journal");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(format!("read {}", file.display()), e)),
        };
        let mut entries = Vec::new();
        for (n, line) in text.lines().enumerate() {
            entries.push(Entry::parse(line).ok_or_else(|| Error::Journal {
                path: file.clone(),
                line: n + 1,
            })?);
        }
        Ok(Self { file, entries })
    }

    /// Whether nothing is there to take back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes these settings, and takes back those made before that are not among them.
    ///
    /// # Errors
    /// [`Error::Io`] for a setting that cannot be read or written, unless it is optional.
    pub fn apply(&mut self, wanted: &[Sysctl]) -> Result<()> {
        // Read everything before anything is written: some settings change others.
        let mut plan: Vec<Entry> = Vec::new();
        let mut keep: Vec<String> = Vec::new();
        for sysctl in wanted {
            for path in expand(&sysctl.path)? {
                let before = match read(&path)? {
                    Some(before) => before,
                    // Gone meanwhile, or one of `*`.
                    None if sysctl.optional || sysctl.path.contains('*') => continue,
                    None => {
                        return Err(Error::Io {
                            what: format!("set {path}: this kernel does not have it"),
                            source: ErrorKind::NotFound.into(),
                        });
                    }
                };
                keep.push(path.clone());
                let known = self.entries.iter().any(|e| e.path == path);
                if !known && sysctl.only_if.as_ref().is_some_and(|only| *only != before) {
                    continue;
                }
                plan.push(Entry {
                    path,
                    before,
                    set: sysctl.value.clone(),
                });
            }
        }
        let shadows = shadows(&plan)?;
        keep.extend(shadows.iter().map(|e| e.path.clone()));
        // Those of an earlier time stay as long as the switch does.
        let switches: Vec<String> = keep
            .iter()
            .filter_map(|path| Some(format!("{}/", path.strip_suffix("/all/forwarding")?)))
            .collect();
        for entry in &self.entries {
            let shadow = entry.path.ends_with("/forwarding")
                && switches.iter().any(|conf| entry.path.starts_with(conf));
            if shadow {
                keep.push(entry.path.clone());
            }
        }
        let stale: Vec<Entry> = self
            .entries
            .iter()
            .filter(|e| !keep.contains(&e.path))
            .cloned()
            .collect();
        restore(&stale);
        self.entries.retain(|e| keep.contains(&e.path));
        for entry in plan.iter().chain(&shadows) {
            match self.entries.iter_mut().find(|e| e.path == entry.path) {
                // The value before is the one before the first change.
                Some(known) => known.set.clone_from(&entry.set),
                None => self.entries.push(entry.clone()),
            }
        }
        self.write()?;
        for entry in &plan {
            if read(&entry.path)?.is_some_and(|now| now != entry.set) {
                write(&entry.path, &entry.set)?;
            }
        }
        Ok(())
    }

    /// Takes everything back and removes the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be removed. A setting that refuses is logged and left.
    pub fn undo(&mut self) -> Result<()> {
        restore(&self.entries);
        self.entries.clear();
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.file.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<()> {
        let text: String = self
            .entries
            .iter()
            .map(|e| format!("{}\t{}\t{}\n", e.path, e.before, e.set))
            .collect();
        replace_file(&self.file, text.as_bytes())
            .map_err(|e| Error::io(format!("write {}", self.file.display()), e))
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (path, before, set) = (fields.next()?, fields.next()?, fields.next()?);
        // The file is root's, and yet: nothing outside of the network settings.
        let inside = path.starts_with("net/") && !path.split('/').any(|p| p == "..");
        (inside && fields.next().is_none()).then(|| Self {
            path: path.to_owned(),
            before: before.to_owned(),
            set: set.to_owned(),
        })
    }
}

/// Switching `all/forwarding` writes every interface's `forwarding` too; those have to be known
/// before it happens.
fn shadows(plan: &[Entry]) -> Result<Vec<Entry>> {
    let mut shadows = Vec::new();
    for entry in plan {
        let Some(conf) = entry.path.strip_suffix("/all/forwarding") else {
            continue;
        };
        if entry.before == entry.set {
            continue;
        }
        for path in expand(&format!("{conf}/*/forwarding"))? {
            if let (true, Some(before)) = (path != entry.path, read(&path)?) {
                shadows.push(Entry {
                    path,
                    before,
                    set: entry.set.clone(),
                });
            }
        }
    }
    Ok(shadows)
}

fn restore(entries: &[Entry]) {
    // As with `apply`: look at all of it first, then write, in the order of the changes.
    let now: BTreeMap<&str, String> = entries
        .iter()
        .filter_map(|e| Some((e.path.as_str(), read(&e.path).ok()??)))
        .collect();
    let ours = entries
        .iter()
        .filter(|e| now.get(e.path.as_str()) == Some(&e.set));
    for entry in ours {
        let is = read(&entry.path).ok().flatten();
        if is.is_some_and(|is| is != entry.before)
            && let Err(error) = write(&entry.path, &entry.before)
        {
            tracing::warn!("{error}; it stays {}", entry.set);
        }
    }
}

/// `*` stands for the directories there are.
fn expand(pattern: &str) -> Result<Vec<String>> {
    let Some((directory, rest)) = pattern.split_once("/*/") else {
        return Ok(vec![pattern.to_owned()]);
    };
    let listing = match fs::read_dir(Path::new(ROOT).join(directory)) {
        Ok(listing) => listing,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("list {ROOT}/{directory}"), e)),
    };
    let mut paths: Vec<String> = listing
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|name| format!("{directory}/{name}/{rest}"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(Path::new(ROOT).join(path)) {
        Ok(text) => Ok(Some(text.trim_end().replace('\t', " "))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("read {ROOT}/{path}"), e)),
    }
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(Path::new(ROOT).join(path), value)
        .map_err(|e| Error::io(format!("set {path} to {value}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_settings_are_ever_written_back() {
        assert!(Entry::parse("net/ipv4/conf/all/forwarding\t0\t1").is_some());
        for bad in [
            "",
            "a",
            "kernel/core_pattern\ta\tb",
            "net/../kernel/x\t0\t1",
            "net/a\t0",
            "net/a\t0\t1\t2",
        ] {
            assert_eq!(Entry::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_star_is_every_interface_and_all_and_default() {
        let paths = expand("net/ipv4/conf/*/send_redirects").unwrap();
        for name in ["all", "default", "lo"] {
            assert!(paths.contains(&format!("net/ipv4/conf/{name}/send_redirects")));
        }
        assert_eq!(expand("net/none/*/x").unwrap(), Vec::<String>::new());
    }
}

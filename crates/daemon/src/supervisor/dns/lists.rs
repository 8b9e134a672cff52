//! The block lists' files: which are there, and whether they changed. They are opened here, where files may be, and
//! read by the process that answers: they come from a network as a rule.

use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use cygnet_config::Config;
use rustix::fs::OFlags;

use crate::error::StartError;
use crate::supervisor::start::RELATIVE;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The lists that the process has.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// As of what is there; `None` before it was handed any.
    had: Option<Vec<(String, Option<Stamp>)>>,
    troubles: Vec<String>,
}

impl Lists {
    /// There is another process, which has none.
    pub(super) fn forget(&mut self) {
        self.had = None;
    }

    /// A sentence for each that is not there.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles.iter().cloned()
    }

    /// All lists, where one of them is another than before. Of a file that is gone the names are held until it is there
    /// again: who replaces it may be about to.
    pub(super) fn changed(
        &mut self,
        base: &Path,
        names: &[String],
    ) -> Option<(Vec<String>, Vec<OwnedFd>)> {
        let opened: Vec<(&String, Opened)> =
            names.iter().map(|name| (name, open(base, name))).collect();
        self.troubles = (opened.iter())
            .filter_map(|(_, opened)| opened.as_ref().err().cloned())
            .collect();
        let now: Vec<(String, Option<Stamp>)> = (opened.iter())
            .map(|(name, opened)| {
                let stamp = opened.as_ref().ok().map(|(_, stamp)| *stamp);
                ((*name).clone(), stamp)
            })
            .collect();
        let gone = |(name, stamp): &(String, Option<Stamp>)| {
            stamp.is_some() && now.contains(&(name.clone(), None))
        };
        let one_is_gone = self.had.as_ref().is_some_and(|had| had.iter().any(gone));
        if one_is_gone || self.had.as_ref() == Some(&now) {
            return None;
        }
        self.had = Some(now);
        let (mut names, mut fds) = (Vec::new(), Vec::new());
        for (name, opened) in opened {
            if let Ok((file, _)) = opened {
                names.push(name.clone());
                fds.push(file.into());
            }
        }
        Some((names, fds))
    }
}

/// Whether all lists of a configuration can be read: for `cygnet check`. A daemon goes on without, and says so.
pub(crate) fn check(config: &Config, base: &Path) -> Result<(), StartError> {
    let dns = config
        .gateway
        .as_ref()
        .and_then(|gateway| gateway.dns.as_ref());
    for name in dns.iter().flat_map(|dns| &dns.block) {
        open(base, name).map_err(StartError::refused)?;
    }
    Ok(())
}

/// A list, or why it is none.
type Opened = Result<(File, Stamp), String>;

fn open(base: &Path, name: &str) -> Opened {
    let failed = |error: &dyn std::fmt::Display, help: &str| {
        format!("cannot read the block list {name}: {error}{help}")
    };
    // Without O_NONBLOCK a FIFO in its place would be waited for.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(base.join(name))
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed(&e, RELATIVE),
            _ => failed(&e, ""),
        })?;
    let metadata = file.metadata().map_err(|e| failed(&e, ""))?;
    if !metadata.is_file() {
        return Err(failed(&"expected a regular file", ""));
    }
    Ok((file, Stamp::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_handed_over_when_it_changed_and_held_while_it_is_gone() {
        let base = std::env::temp_dir().join(format!("cygnet-lists-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.join(name), text).unwrap();
        write("a", "0.0.0.0 a.example\n");
        write("b", "0.0.0.0 b.example\n");
        let names = ["a".to_owned(), "b".to_owned()];
        let mut lists = Lists::default();
        let mut handed = |names: &[String]| {
            let changed = lists.changed(&base, names);
            let troubles = lists.troubles().count();
            (
                changed.map(|(names, fds)| (names.join(" "), fds.len())),
                troubles,
            )
        };
        let both = Some(("a b".to_owned(), 2));
        assert_eq!(handed(&names), (both.clone(), 0));
        assert_eq!(handed(&names), (None, 0));
        write("b", "0.0.0.0 b.example c.example\n");
        assert_eq!(handed(&names), (both.clone(), 0));
        // As tools replace files: gone, then another one.
        std::fs::remove_file(base.join("b")).unwrap();
        assert_eq!(handed(&names), (None, 1));
        write("b", "0.0.0.0 d.example\n");
        assert_eq!(handed(&names), (both, 0));
        // One that was never there holds up no other.
        let more = [names[0].clone(), "c".to_owned()];
        assert_eq!(handed(&more), (Some(("a".to_owned(), 1)), 1));
        assert_eq!(handed(&more), (None, 1));
        write("a", "0.0.0.0 e.example f.example\n");
        assert_eq!(handed(&more), (Some(("a".to_owned(), 1)), 1));
        // Another configuration.
        assert_eq!(handed(&names[..1]), (Some(("a".to_owned(), 1)), 0));
        assert_eq!(handed(&[]), (Some((String::new(), 0)), 0));
        assert_eq!(handed(&[]), (None, 0));
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_directory_is_no_list() {
        let told = open(Path::new("/"), "tmp").unwrap_err();
        assert!(told.contains("regular file"), "{told}");
        let told = open(Path::new("/nonexistent"), "ads.hosts").unwrap_err();
        assert!(
            told.contains("ads.hosts") && told.contains("relative"),
            "{told}"
        );
    }
}

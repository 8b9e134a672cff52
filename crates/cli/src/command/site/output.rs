//! The folder with the other office's files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cygnet_profile::write::File;

/// Removed again when dropped, unless it is kept.
pub(super) struct Folder {
    made: Vec<PathBuf>,
}

impl Folder {
    /// Makes it, mode 0700, and writes the files into it, mode 0600. It must not be there.
    pub(super) fn make(path: &Path, files: &[File]) -> Result<Self, String> {
        let failed = |what: &Path, error: io::Error| match error.kind() {
            ErrorKind::AlreadyExists => format!(
                "{} is there already: remove it, or name another folder with --out",
                what.display()
            ),
            _ => format!("cannot write {}: {error}", what.display()),
        };
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|error| failed(path, error))?;
        let mut folder = Self {
            made: vec![path.to_owned()],
        };
        for file in files {
            let path = path.join(&file.path);
            folder.made.push(path.clone());
            write_new(&path, &file.bytes).map_err(|error| failed(&path, error))?;
        }
        Ok(folder)
    }

    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // Whatever went wrong is told already.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

//! Files that are there whole or not at all, and are known to fit on the disk before anything else is changed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file's new content, on the disk beside the old one. Removed when dropped.
pub(crate) struct Staged {
    path: PathBuf,
    new: PathBuf,
    file: File,
    placed: bool,
}

impl Staged {
    /// Writes the content, mode 0600, to a file that did not exist: nothing that somebody put there, a link to
    /// elsewhere for instance, is written through.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        let staged = Self::draft(path, bytes)?;
        let synced = staged.file.sync_all();
        synced.map_err(Error::file("write", path))?;
        Ok(staged)
    }

    /// The same without waiting for the disk, for what can be written again at any time.
    pub(crate) fn draft(path: &Path, bytes: &[u8]) -> Result<Self> {
        let new = clear(path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(Error::file("write", path))?;
        let mut staged = Self {
            path: path.to_owned(),
            new,
            file,
            placed: false,
        };
        let written = staged.file.write_all(bytes);
        written.map_err(Error::file("write", path))?;
        Ok(staged)
    }

    /// The mode that the file is to have: of the file that was written, whatever has its name by now.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        self.file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(Error::file("set the mode of", &self.new))
    }

    /// Where the new content is.
    pub(crate) fn new_path(&self) -> &Path {
        &self.new
    }

    /// Puts it in the old one's place. Safe from a power cut after [`sync_dir`].
    pub(crate) fn place(mut self) -> Result<()> {
        fs::rename(&self.new, &self.path).map_err(Error::file("replace", &self.path))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // Whatever went wrong is told already.
            let _ = fs::remove_file(&self.new);
        }
    }
}

/// Removes what a crash left beside a file, and returns where that was.
pub(crate) fn clear(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("remove", &new)(error))
        }
        _ => Ok(new),
    }
}

/// Replaces one file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    Staged::write(path, bytes)?.place()?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory safe from a power cut.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("write", path))
}

/// Takes back what was made, the last first, unless it is told to keep it.
#[derive(Default)]
pub(crate) struct Undo(Vec<PathBuf>);

impl Undo {
    /// Notes a file or directory that is about to be made, and those directories above it that are not there either.
    pub(crate) fn note(&mut self, path: &Path) {
        let missing = path
            .ancestors()
            .take_while(|it| !it.as_os_str().is_empty() && fs::symlink_metadata(it).is_err());
        let mut missing: Vec<_> = missing.map(Path::to_owned).collect();
        missing.reverse();
        self.0.extend(missing);
    }

    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // A directory that something else was put into stays.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

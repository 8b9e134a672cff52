//! The folder with the other office's files.

use std::io::{self, ErrorKind};
use std::path::Path;

use cygnet_profile::write::File;

use super::super::made::Made;

/// Makes it, which must not be there, and writes the files into it.
pub(super) fn hand_over(path: &Path, files: &[File]) -> Result<Made, String> {
    let failed = |what: &Path, error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "{} is there already: remove it, or name another folder with --out",
            what.display()
        ),
        _ => format!("cannot write {}: {error}", what.display()),
    };
    let mut made = Made::default();
    made.folder(path).map_err(|error| failed(path, error))?;
    for file in files {
        let path = path.join(&file.path);
        let written = made.file(&path, &file.bytes);
        written.map_err(|error| failed(&path, error))?;
    }
    Ok(made)
}

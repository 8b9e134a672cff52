//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Replaces the file at `path` by one of mode 0600 that holds `bytes`, also across a power cut. It is first
/// written beside it, under the extension `new`, to a file that did not exist: nothing that somebody
/// put at either place, a link to elsewhere for instance, is written through.
///
/// # Errors
/// Of the step that failed; what was at `path` is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // A crash may have left one.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&new)?;
    let done = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = done {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// As [`replace_file`], in a directory of mode 0700 that is made if it is not there.
///
/// # Errors
/// Of the step that failed; what was at `path` is still there.
pub fn keep_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    let directory = path.parent().unwrap_or(Path::new("/"));
    builder.recursive(true).mode(0o700).create(directory)?;
    replace_file(path, bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_somebody_put_in_its_place_is_not_written_through() {
        let name = format!("cygnet-file-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let victim = directory.join("victim");
        fs::write(&victim, "untouched").unwrap();
        let path = directory.join("state.json");
        for place in [&path, &path.with_extension("new")] {
            let _ = fs::remove_file(place);
            symlink(&victim, place).unwrap();
            replace_file(&path, b"state").unwrap();
        }
        // A file left by a crash, that others could read, does not lend its mode.
        let left = path.with_extension("new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace_file(&path, b"state").unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = (fs::read(&path).unwrap(), fs::read(&victim).unwrap());
        let left = left.exists();
        fs::remove_dir_all(&directory).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(content, (b"state".to_vec(), b"untouched".to_vec()));
        assert!(!left);
    }
    #[test]
    fn a_directory_that_is_not_there_is_made_for_us_alone() {
        let name = format!("cygnet-keep-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let path = directory.join("inner").join("state.json");
        for bytes in [b"first", b"later"] {
            keep_file(&path, bytes).unwrap();
        }
        let content = fs::read(&path).unwrap();
        let modes = [&directory, path.parent().unwrap()]
            .map(|directory| fs::metadata(directory).unwrap().mode() & 0o777);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(content, b"later");
        assert_eq!(modes, [0o700; 2]);
    }
}

//! Onto the disk: all of it, or nothing.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cygnet_profile::read::KeyFile;

use super::folder_of;

/// What an import writes into its folder.
const FILES: [&str; 5] = [
    "client.crt",
    "client.key",
    "ca.crt",
    "shared.psk",
    "password",
];

/// Writes the keys into a new folder, then the configuration beside the old one, has it checked as the daemon would,
/// and puts it in its place. What was written is taken away again where a step fails.
pub(super) fn commit(
    config: &Path,
    text: &str,
    folder: &str,
    files: &[KeyFile],
) -> Result<(), String> {
    let mut made = Made::default();
    let outcome = write(config, text, folder, files, &mut made);
    if outcome.is_err() {
        made.undo();
    }
    outcome
}

/// What has to go again if it comes to nothing, last first.
#[derive(Default)]
struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    fn undo(&self) {
        for path in self.paths.iter().rev() {
            let _ = match path.is_dir() {
                true => fs::remove_dir(path),
                false => fs::remove_file(path),
            };
        }
    }
}

fn write(
    config: &Path,
    text: &str,
    folder: &str,
    files: &[KeyFile],
    made: &mut Made,
) -> Result<(), String> {
    let base = folder_of(config);
    let failed = |what: &Path, error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "; try again with sudo",
            ErrorKind::StorageFull => "; the disk is full",
            _ => "",
        };
        format!("cannot write {}: {error}{hint}", what.display())
    };
    if !base.exists() {
        make_directory(&base).map_err(|error| failed(&base, error))?;
        made.paths.push(base.clone());
    }
    let directory = config.with_file_name(folder);
    make_directory(&directory).map_err(|error| failed(&directory, error))?;
    made.paths.push(directory.clone());
    for file in files {
        let path = directory.join(file.name);
        made.paths.push(path.clone());
        write_new(&path, &file.bytes).map_err(|error| failed(&path, error))?;
    }
    sync(&directory).map_err(|error| failed(&directory, error))?;

    // The same directory, so that the names in it mean the same, and it can take the old one's place in one step.
    let candidate = config.with_file_name(".cygnet.toml.import");
    match fs::remove_file(&candidate) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed(&candidate, error));
        }
        _ => {}
    }
    made.paths.push(candidate.clone());
    write_new(&candidate, text.as_bytes()).map_err(|error| failed(&candidate, error))?;
    if let Err(error) = cygnet_daemon::check(&candidate) {
        let shown = candidate.display().to_string();
        let told = error
            .to_string()
            .replace(&shown, &config.display().to_string());
        return Err(format!(
            "with this tunnel the configuration would not be good, so nothing was changed:\n{told}"
        ));
    }
    if let Ok(before) = fs::metadata(config) {
        let mode = Permissions::from_mode(before.permissions().mode() & 0o7777);
        fs::set_permissions(&candidate, mode).map_err(|error| failed(&candidate, error))?;
    }
    fs::rename(&candidate, config).map_err(|error| failed(config, error))?;
    // It is in place; that a power cut might take it back is no reason to do so now.
    let _ = sync(&base);
    Ok(())
}

/// Takes away what an earlier import wrote, and nothing else.
pub(super) fn remove_folder(folder: &Path) {
    for name in FILES {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
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

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

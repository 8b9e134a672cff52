//! The files that were named, those beside them, and whoever knows the password.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use cygnet_pki::load;
use cygnet_profile::read::{Error, FILE_MAX, FILES_MAX, File, Surroundings};
use zeroize::Zeroizing;

use super::folder_of;

pub(super) struct Disk {
    /// Where the given files are.
    folders: Vec<PathBuf>,
    /// The content of `--password-file`.
    password: Option<Zeroizing<String>>,
    /// A password was needed, and there was nobody to ask.
    nobody: bool,
}

impl Disk {
    pub(super) fn new(files: &[PathBuf], password: Option<&Path>) -> Result<Self, String> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in files.iter().map(|it| folder_of(it)) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Ok(Self {
            folders,
            password: password.map(password_of).transpose()?,
            nobody: false,
        })
    }

    /// The files that were named.
    pub(super) fn given(&self, paths: &[PathBuf]) -> Result<Vec<File>, String> {
        let file = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(File {
                name: name.into_owned(),
                bytes: content(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            })
        };
        paths.iter().map(file).collect()
    }

    /// An error in words, with what only this side knows.
    pub(super) fn explain(&self, error: &Error) -> String {
        let text = error.to_string();
        if self.nobody {
            return format!(
                "{text}\nno password was given: run it in a terminal, which asks for it, or with --password-file"
            );
        }
        text
    }
}

impl Surroundings for Disk {
    fn read(&mut self, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut candidates = self.folders.iter().map(|folder| folder.join(path));
        candidates.find_map(|path| content(&path).ok())
    }

    fn list(&mut self, folder: &str) -> Vec<String> {
        let entries = self
            .folders
            .iter()
            .filter_map(|it| fs::read_dir(it.join(folder)).ok());
        let names = entries.flatten().flatten().take(FILES_MAX);
        let mut names: Vec<String> = names
            .filter_map(|it| it.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn password(&mut self, file: &str, attempt: u32) -> Option<Zeroizing<String>> {
        if let Some(password) = &self.password {
            return (attempt == 1).then(|| password.clone());
        }
        if !std::io::stdin().is_terminal() {
            self.nobody = true;
            return None;
        }
        let question = match attempt {
            1 => format!("Password of {file}: "),
            _ => format!("That was not it. Password of {file}: "),
        };
        rpassword::prompt_password(question)
            .ok()
            .map(Zeroizing::new)
    }
}

/// A regular file of a sane size.
fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    // Looked at before it is opened: a FIFO would be waited for.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder; name the files in it".into());
    }
    if !metadata.is_file() {
        return Err("expected a regular file".into());
    }
    let most = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
    if metadata.len() > most {
        return Err(format!(
            "{} bytes, expected at most {FILE_MAX}",
            metadata.len()
        ));
    }
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    // Of one size: growing would leave copies of a key behind in freed memory.
    let size = usize::try_from(metadata.len()).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The first line of a file that only its owner can read.
fn password_of(path: &Path) -> Result<Zeroizing<String>, String> {
    let refuse = |error: String| format!("cannot read {}: {error}", path.display());
    let bytes = content(path).map_err(refuse)?;
    let metadata = fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    load::check_key_mode(&metadata, path, "a password").map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("not UTF-8".into()))?;
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

//! The files that were named, those beside them, and whoever knows the password.

use std::fs::{self, Metadata};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use cygnet_profile::read::{Error, FILE_MAX, FILES_MAX, File, Surroundings};
use zeroize::Zeroizing;

use super::super::{read::read, secret};
use super::folder_of;

const ROOT: u32 = 0;
/// Of each file, in octets.
const MOST: u64 = FILE_MAX as u64;

/// A folder with files that were given.
struct Folder {
    path: PathBuf,
    /// Root, and the owners of those files.
    owners: Vec<u32>,
}

pub(super) struct Disk {
    /// Where the given files are.
    folders: Vec<Folder>,
    /// The content of `--password-file`.
    password: Option<Zeroizing<String>>,
    /// A password was needed, and there was nobody to ask.
    nobody: bool,
}

impl Disk {
    pub(super) fn new(files: &[PathBuf], password: Option<&Path>) -> Result<Self, String> {
        let mut folders: Vec<Folder> = Vec::new();
        for path in files.iter().map(|it| folder_of(it)) {
            if !folders.iter().any(|it| it.path == path) {
                let owners = vec![ROOT];
                folders.push(Folder { path, owners });
            }
        }
        let password = password.map(secret::of_file).transpose();
        Ok(Self {
            folders,
            password: password.map_err(|error| error.to_string())?,
            nobody: false,
        })
    }

    /// The files that were named.
    pub(super) fn given(&mut self, paths: &[PathBuf]) -> Result<Vec<File>, String> {
        let file = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (bytes, metadata) = read(path, MOST).map_err(|error| error.to_string())?;
            let of = folder_of(path);
            let mut folders = self.folders.iter_mut();
            if let Some(folder) = folders.find(|it| it.path == of) {
                folder.owners.push(metadata.uid());
            }
            Ok(File {
                name: name.into_owned(),
                bytes,
            })
        };
        paths.iter().map(file).collect()
    }

    /// An error in words, with what only this side knows.
    pub(super) fn explain(&self, error: &Error) -> String {
        let text = error.to_string();
        if self.nobody {
            return format!(
                "{text}\nrun it in a terminal, which asks for it, or give it with --password-file FILE"
            );
        }
        text
    }
}

impl Folder {
    /// A file below it. Where others may write they can put one there, or a link: each part of the way to it counts only
    /// if it is root's, or of whoever the files are that were given.
    fn content(&self, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut at = self.path.clone();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else {
                return None;
            };
            at.push(part);
            let metadata = fs::symlink_metadata(&at).ok()?;
            if !is_owned(&metadata, &self.owners) {
                return None;
            }
        }
        let (bytes, metadata) = read(&at, MOST).ok()?;
        is_owned(&metadata, &self.owners).then_some(bytes)
    }
}

fn is_owned(metadata: &Metadata, owners: &[u32]) -> bool {
    owners.contains(&metadata.uid())
}

impl Surroundings for Disk {
    fn read(&mut self, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.folders.iter().find_map(|it| it.content(path))
    }

    fn list(&mut self, folder: &str) -> Vec<String> {
        let entries = self
            .folders
            .iter()
            .filter_map(|it| fs::read_dir(it.path.join(folder)).ok());
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};
    use std::process::Command;

    use super::*;

    /// A folder of the test's own; removed when dropped.
    struct Own(PathBuf);

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn own(name: &str) -> Own {
        let name = format!("cygnet-beside-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Own(path)
    }

    #[test]
    fn what_a_stranger_put_beside_is_not_taken() {
        let place = own("owner");
        fs::create_dir(place.0.join("x509ca")).expect("a folder");
        fs::write(place.0.join("x509ca/ca.pem"), "a").expect("written");
        let uid = fs::metadata(&place.0).expect("there").uid();
        let folder = |owner: u32| Folder {
            path: place.0.clone(),
            owners: vec![owner],
        };
        assert!(folder(uid).content("x509ca/ca.pem").is_some());
        assert!(folder(uid + 1).content("x509ca/ca.pem").is_none());
        // Nor is what lies elsewhere.
        for path in [
            "../ca.pem",
            "x509ca/../x509ca/ca.pem",
            "/etc/hostname",
            "x509ca",
        ] {
            assert!(folder(uid).content(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_link_of_a_stranger_to_a_file_of_root_is_not_followed() {
        let place = own("link");
        let path = place.0.join("ca.pem");
        symlink("/etc/hostname", &path).expect("a link");
        let target = fs::metadata(&path).expect("a file");
        assert_eq!(target.uid(), ROOT);
        let mut link = fs::symlink_metadata(&path).expect("there").uid();
        let folder = |owners: &[u32]| Folder {
            path: place.0.clone(),
            owners: owners.to_vec(),
        };
        if link == ROOT {
            assert!(folder(&[ROOT]).content("ca.pem").is_some());
            link = 65_534;
            lchown(&path, Some(link), None).expect("root may");
        }
        assert!(folder(&[ROOT]).content("ca.pem").is_none());
        // Of whoever the files are that were given, it is followed.
        assert!(folder(&[ROOT, link]).content("ca.pem").is_some());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let place = own("pipe");
        let path = place.0.join("a.pem");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        let told = Disk::new(&[], None)
            .expect("nothing to read")
            .given(&[path]);
        let told = told.err().expect("refused");
        assert!(told.contains("regular file"), "{told}");
        let mut disk = Disk::new(&[], None).expect("nothing to read");
        let told = disk
            .given(std::slice::from_ref(&place.0))
            .err()
            .expect("refused");
        assert!(
            told.contains("it is a folder; name the files in it"),
            "{told}"
        );
    }
}

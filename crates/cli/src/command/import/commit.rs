//! Onto the disk: all of it, or nothing.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use cygnet_profile::read::KeyFile;

use super::super::made::{Made, sync};
use super::folder_of;
use super::sections::Sections;

/// What an import writes into its folder.
const FILES: [&str; 5] = [
    "client.crt",
    "client.key",
    "ca.crt",
    "shared.psk",
    "password",
];

/// Writes the keys into a new folder, then the configuration beside the old one, has it checked as the daemon would,
/// and puts it in its place, if that is still what it was made from. What was written is taken away again where a step
/// fails.
pub(in super::super) fn commit(
    config: &Path,
    before: &Sections,
    text: &str,
    folder: &str,
    files: &[KeyFile],
) -> Result<(), String> {
    let mut made = Made::default();
    let base = folder_of(config);
    if !base.exists() {
        made.folder(&base).map_err(|error| failed(&base, error))?;
    }
    let directory = config.with_file_name(folder);
    made.folder(&directory)
        .map_err(|error| failed(&directory, error))?;
    for file in files {
        let path = directory.join(file.name);
        made.file(&path, &file.bytes)
            .map_err(|error| failed(&path, error))?;
    }
    sync(&directory).map_err(|error| failed(&directory, error))?;
    put(config, before, text, made)
}

/// Puts a changed configuration in the place of the one it was made from: all of it, checked as the daemon would, or
/// nothing.
pub(in super::super) fn replace(
    config: &Path,
    before: &Sections,
    text: &str,
) -> Result<(), String> {
    put(config, before, text, Made::default())
}

fn put(config: &Path, before: &Sections, text: &str, mut made: Made) -> Result<(), String> {
    // The same directory, so that the names in it mean the same, and it can take the old one's place in one step.
    let candidate = config.with_file_name(".cygnet.toml.import");
    match fs::remove_file(&candidate) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed(&candidate, error));
        }
        _ => {}
    }
    made.file(&candidate, text.as_bytes())
        .map_err(|error| failed(&candidate, error))?;
    if let Err(error) = cygnet_daemon::check(&candidate) {
        let shown = candidate.display().to_string();
        let told = error
            .to_string()
            .replace(&shown, &config.display().to_string());
        return Err(format!(
            "with this change the configuration would not be good, so nothing was changed:\n{told}"
        ));
    }
    if let Ok(before) = fs::metadata(config) {
        let mode = Permissions::from_mode(before.permissions().mode() & 0o7777);
        // First whose it is: that may take bits from the mode.
        std::os::unix::fs::chown(&candidate, Some(before.uid()), Some(before.gid()))
            .and_then(|()| fs::set_permissions(&candidate, mode))
            .map_err(|error| failed(&candidate, error))?;
    }
    if Sections::read(config)? != *before {
        return Err(format!(
            "{} was changed by somebody else meanwhile, and stays as it is: run the command once more",
            config.display()
        ));
    }
    fs::rename(&candidate, config).map_err(|error| failed(config, error))?;
    made.keep();
    // It is in place; that a power cut might take it back is no reason to do so now.
    let _ = sync(&folder_of(config));
    Ok(())
}

fn failed(what: &Path, error: io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "; try again with sudo",
        ErrorKind::StorageFull => "; the disk is full",
        _ => "",
    };
    format!("cannot write {}: {error}{hint}", what.display())
}

/// Takes away what an earlier import wrote, and nothing else.
pub(in super::super) fn remove_folder(folder: &Path) {
    for name in FILES {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root, another's stays another's; otherwise it is one's own.
    #[test]
    fn a_changed_configuration_belongs_to_whom_it_did() {
        let name = format!("cygnet-commit-owner-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place).expect("a folder");
        let config = place.join("cygnet.toml");
        fs::write(&config, "# before\n").expect("written");
        let whose = match rustix::process::geteuid() {
            root if root.is_root() => (1234, 5678),
            own => (own.as_raw(), rustix::process::getegid().as_raw()),
        };
        std::os::unix::fs::chown(&config, Some(whose.0), Some(whose.1)).expect("given away");
        fs::set_permissions(&config, Permissions::from_mode(0o640)).expect("set");
        let before = Sections::read(&config).expect("good");
        let done = replace(&config, &before, "# after\n");
        let text = fs::read_to_string(&config).expect("still there");
        let now = fs::metadata(&config).expect("still there");
        let _ = fs::remove_dir_all(&place);
        assert_eq!((done, text.as_str()), (Ok(()), "# after\n"));
        let mode = now.permissions().mode() & 0o7777;
        assert_eq!((now.uid(), now.gid(), mode), (whose.0, whose.1, 0o640));
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_lost() {
        let name = format!("cygnet-commit-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place).expect("a folder");
        let config = place.join("cygnet.toml");
        fs::write(&config, "# before\n").expect("written");
        let before = Sections::read(&config).expect("good");
        fs::write(&config, "# meanwhile\n").expect("written");
        let files = [KeyFile {
            name: "shared.psk",
            bytes: zeroize::Zeroizing::new(b"0x00112233445566778899aabbccddeeff\n".to_vec()),
        }];
        let text = "[tunnel.home]\nremote = \"192.0.2.1\"\nidentity = \"a.example\"\npsk = \"home/shared.psk\"\nvirtual_address = true\n";
        let told = commit(&config, &before, text, "home", &files).err();
        let after = fs::read_to_string(&config).expect("still there");
        let names = fs::read_dir(&place).expect("still there").count();
        let now = Sections::read(&config).expect("good");
        let again = commit(&config, &now, text, "home", &files);
        let _ = fs::remove_dir_all(&place);
        assert!(
            told.as_ref().is_some_and(|it| it.contains("meanwhile")),
            "{told:?}"
        );
        assert_eq!((after.as_str(), names), ("# meanwhile\n", 1));
        assert_eq!(again, Ok(()));
    }
}

//! Everything that is read and judged before anything is changed: configuration, certificates,
//! keys, the user the engine becomes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cygnet_config::{Config, CredentialFile, SERVER};
use cygnet_crypto::Secret;
use cygnet_crypto::signature::SigningKey;
use cygnet_ike::policy::{CredentialId, EapMethods};
use cygnet_pki::load;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{hooks, passwords};
use crate::error::StartError;
use crate::ipc::Bundle;

/// No certificate, key or CRL of a sane installation is larger.
const FILE_MAX: u64 = 8 << 20;
/// RFC 7296 §2.15 wants as much entropy in a shared secret as in the keys it protects.
const PSK_MIN: usize = 8;

/// A configuration with all it names, good to run.
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) config: Config,
    /// The same as text, for the engine.
    pub(crate) bundle: Bundle,
    /// Private and pre-shared keys, by credential.
    pub(super) secrets: Secrets,
}

/// What never leaves the supervisor.
#[derive(Default)]
pub(super) struct Secrets {
    /// Private keys.
    pub(super) keys: BTreeMap<String, Arc<SigningKey>>,
    /// Pre-shared keys.
    pub(super) psks: BTreeMap<String, Arc<Secret>>,
    /// Hashes of our own passwords, by credential: what they answer to challenges is told.
    pub(super) passwords: BTreeMap<String, Arc<Secret>>,
    /// Hashes of the passwords of users, by the names that [`EapMethods::secret_of`] makes: they prove who
    /// a user is, and answer nothing.
    pub(super) users: BTreeMap<String, Arc<Secret>>,
}

impl Secrets {
    /// Adds the passwords of the users of a file.
    pub(super) fn add_users(
        &mut self,
        base: &Path,
        id: &CredentialId,
        path: &str,
    ) -> Result<(), StartError> {
        for (user, hash) in passwords::of_users(base, path)? {
            let name = EapMethods::secret_of(id, &user);
            self.users.insert(name.0, Arc::new(hash));
        }
        Ok(())
    }

    /// The pre-shared keys and passwords that are others than they were, or that users had who are gone.
    pub(super) fn replaced_since(&self, before: &Secrets) -> Vec<String> {
        let psks = before.psks.iter().filter(|(name, psk)| {
            let now = self.psks.get(*name);
            now.is_some_and(|now| !now.ct_eq(psk.expose()))
        });
        let own = replaced_or_gone(&self.passwords, &before.passwords);
        let users = replaced_or_gone(&self.users, &before.users);
        let psks = psks.map(|(name, _)| name);
        psks.chain(own).chain(users).cloned().collect()
    }
}

fn replaced_or_gone<'a>(
    now: &BTreeMap<String, Arc<Secret>>,
    before: &'a BTreeMap<String, Arc<Secret>>,
) -> impl Iterator<Item = &'a String> {
    let is_other = |name: &String, hash: &Secret| {
        let now = now.get(name);
        now.is_none_or(|now| !now.ct_eq(hash.expose()))
    };
    let others = before
        .iter()
        .filter(move |(name, hash)| is_other(name, hash));
    others.map(|(name, _)| name)
}

impl Loaded {
    /// One line for `cygnet check`.
    pub(crate) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(server) = &self.config.server {
            let pools: Vec<String> = server.pools.iter().map(ToString::to_string).collect();
            parts.push(format!("server for {}", pools.join(" and ")));
        }
        let tunnels: Vec<&str> = self.config.tunnels.keys().map(String::as_str).collect();
        match tunnels.len() {
            0 => {}
            1 => parts.push(format!("tunnel {}", tunnels.join(""))),
            _ => parts.push(format!("tunnels {}", tunnels.join(", "))),
        }
        if let Some(gateway) = &self.config.gateway {
            parts.push(format!(
                "gateway for {} through {}{}",
                gateway.lan.join(" and "),
                gateway.tunnel,
                if gateway.guard { "" } else { ", without guard" }
            ));
            let others: Vec<&str> = gateway.devices.through.keys().map(String::as_str).collect();
            if !others.is_empty() {
                parts.push(format!("some of it through {}", others.join(" and ")));
            }
            if gateway.devices.direct_on_failure {
                parts.push(format!(
                    "WHILE {} IS DOWN TUNNELLED DEVICES GO DIRECT, IN CLEAR (on_failure = \"direct\")",
                    gateway.tunnel
                ));
            }
        }
        if parts.is_empty() {
            "It asks for nothing yet: write a [server] or a [tunnel.NAME] section.".to_owned()
        } else {
            format!("{}.", parts.join("; "))
        }
    }
}

/// Reads a configuration and everything it names.
pub(crate) fn load(path: &Path) -> Result<Loaded, StartError> {
    let (config, bundle) = public(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let secrets = secrets(&config, base, &bundle.files)?;
    hooks::check(&config)?;
    Ok(Loaded {
        config,
        bundle,
        secrets,
    })
}

/// The configuration as text.
pub(super) fn text(path: &Path) -> Result<String, StartError> {
    let text = read(
        path,
        &path.display(),
        "; write it, or name another with --config",
    )?;
    String::from_utf8(text).map_err(|e| {
        StartError::refused(format_args!(
            "{}: not UTF-8 at byte {}: expected a TOML text",
            path.display(),
            e.utf8_error().valid_up_to()
        ))
    })
}

/// Reads a configuration and the public files it names.
pub(crate) fn public(path: &Path) -> Result<(Config, Bundle), StartError> {
    let text = text(path)?;
    let base = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = path.display().to_string();
    let mut files = BTreeMap::new();
    let config = Config::parse(&name, &text, &mut |written| {
        let bytes = read(&base.join(written), &written, RELATIVE).map_err(|e| e.to_string())?;
        files.insert(written.to_owned(), bytes.clone());
        Ok(bytes)
    })?;
    let bundle = Bundle {
        name,
        text,
        files,
        fetched: BTreeMap::new(),
    };
    Ok((config, bundle))
}

/// What to do about a file that is not there.
pub(super) const RELATIVE: &str =
    "; check the name (paths are relative to the configuration's directory)";

pub(super) fn read(path: &Path, shown: &dyn Display, missing: &str) -> Result<Vec<u8>, StartError> {
    open(path, shown, missing).map(|(bytes, _)| bytes)
}

/// The content of a file and what it is, both of the one that was opened: under its name there may
/// be another by the time one looks again.
fn open(
    path: &Path,
    shown: &dyn Display,
    missing: &str,
) -> Result<(Vec<u8>, Metadata), StartError> {
    let failed = |e: &dyn Display, help: &str| {
        StartError::refused(format_args!("cannot read {shown}: {e}{help}"))
    };
    // Without O_NONBLOCK a FIFO in its place would be waited for.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failed(&e, missing),
        std::io::ErrorKind::PermissionDenied => failed(&e, "; try again with sudo"),
        _ => failed(&e, ""),
    })?;
    let metadata = file.metadata().map_err(|e| failed(&e, ""))?;
    if !metadata.is_file() {
        return Err(failed(&"expected a regular file", ""));
    }
    let too_long = |len: u64| {
        let error = format_args!("{len} bytes, expected at most {FILE_MAX}");
        failed(&error, "; is it the right file?")
    };
    if metadata.len() > FILE_MAX {
        return Err(too_long(metadata.len()));
    }
    // Of one size: growing would leave copies of a key behind in freed memory.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|e| failed(&e, ""))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_long(bytes.len() as u64));
    }
    Ok((bytes, metadata))
}

fn secrets(
    config: &Config,
    base: &Path,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<Secrets, StartError> {
    let mut secrets = Secrets::default();
    for (id, file) in &config.credentials {
        match file {
            CredentialFile::Key { path, certificate } => {
                let key = private_key(base, path, certificate, files)?;
                secrets.keys.insert(id.0.clone(), Arc::new(key));
            }
            CredentialFile::Psk { path } => {
                let psk = pre_shared_key(base, path, &section(&id.0))?;
                secrets.psks.insert(id.0.clone(), Arc::new(psk));
            }
            CredentialFile::Password { path } => {
                let hash = passwords::own(base, path, &section(&id.0))?;
                secrets.passwords.insert(id.0.clone(), Arc::new(hash));
            }
            CredentialFile::Passwords { path } => secrets.add_users(base, id, path)?,
        }
    }
    Ok(secrets)
}

/// The section that a credential such as `home/psk` is written in.
fn section(credential: &str) -> String {
    match credential.split_once('/').map_or(credential, |(o, _)| o) {
        SERVER => format!("[{SERVER}]"),
        tunnel => format!("[tunnel.{tunnel}]"),
    }
}

const PRIVATE_KEY: &str = "private key";
const PSK: &str = "pre-shared key";

/// What to do about a `psk` that names no file.
const PSK_IS_A_FILE: &str = "; `psk` is the name of a file that holds the secret, not the secret itself \
    (relative to the configuration's directory)";

/// Whether a `psk` that cannot be opened may be repeated in a message: it may be the secret itself.
pub(super) fn is_file_name(base: &Path, written: &str) -> bool {
    let in_a_directory = || base.join(written).parent().is_some_and(Path::is_dir);
    !written.contains(char::is_whitespace)
        && (Path::new(written).extension().is_some() || written.contains('/') && in_a_directory())
}

/// `what` it holds, for messages: [`PRIVATE_KEY`] or [`PSK`]; `shown` names it where it cannot be
/// opened, and `missing` says what to do where it is not there.
pub(super) fn secret_file(
    path: PathBuf,
    what: &str,
    shown: &dyn Display,
    missing: &str,
) -> Result<(PathBuf, Zeroizing<Vec<u8>>), StartError> {
    let (bytes, metadata) = open(&path, shown, missing)?;
    let bytes = Zeroizing::new(bytes);
    let what = format!("a {what}");
    load::check_key_mode(&metadata, &path, &what).map_err(StartError::refused)?;
    Ok((path, bytes))
}

fn private_key(
    base: &Path,
    written: &str,
    certificate: &str,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<SigningKey, StartError> {
    let path = base.join(written);
    let shown = format!("the {PRIVATE_KEY} {}", path.display());
    let (path, bytes) = secret_file(path, PRIVATE_KEY, &shown, RELATIVE)?;
    let key = load::private_key(&bytes, &path).map_err(StartError::refused)?;
    let certificate_path = base.join(certificate);
    let certificates = files.get(certificate).map_or(&[][..], Vec::as_slice);
    let certificates =
        load::certificates(certificates, &certificate_path).map_err(StartError::refused)?;
    load::check_key_matches(&key, &path, &certificates, &certificate_path)
        .map_err(StartError::refused)?;
    SigningKey::from_der(key.pkcs8())
        .map_err(|e| StartError::refused(format_args!("{}: {e}", path.display())))
}

/// The content of the file without the line end behind it; `0x…` is hexadecimal, `0s…` base64
/// would be strongSwan's other notation and is refused rather than taken literally.
fn pre_shared_key(base: &Path, written: &str, section: &str) -> Result<Secret, StartError> {
    let path = base.join(written);
    let mut shown = format!("the {PSK} of {section}");
    if is_file_name(base, written) {
        shown = format!("{shown}, {}", path.display());
    }
    let (path, bytes) = secret_file(path, PSK, &shown, PSK_IS_A_FILE)?;
    let text = bytes.trim_ascii_end();
    let refuse =
        |what: &str| StartError::refused(format_args!("the {PSK} {}: {what}", path.display()));
    if text.starts_with(b"0s") {
        return Err(refuse(
            "base64 (0s…) is not read; write the key as text, or as hexadecimal behind 0x",
        ));
    }
    let key = match text.strip_prefix(b"0x") {
        Some(hex) => Secret::new(
            unhex(hex)
                .ok_or_else(|| refuse("expected an even number of hexadecimal digits behind 0x"))?,
        ),
        None => Secret::from_slice(text),
    };
    if key.len() < PSK_MIN {
        return Err(refuse(&format!(
            "the key has {} bytes, expected {PSK_MIN} or more; make one with `openssl rand -hex 32 > {} && chmod 600 {}`",
            key.len(),
            path.display(),
            path.display()
        )));
    }
    Ok(key)
}

pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[h, l]| Some(digit(*h)? << 4 | digit(*l)?))
        .collect()
}

/// The users the engine becomes where none is named: one of its own, made when it is installed, or the
/// one that others may share.
const ENGINE_USERS: [&str; 2] = ["cygnet", "nobody"];

/// The user and group the engine becomes: a number, or a name of `/etc/passwd`.
pub(crate) fn engine_user(user: Option<&str>) -> Result<(u32, u32), StartError> {
    if let Some(Ok(uid)) = user.map(str::parse::<u32>) {
        return if uid == 0 {
            Err(StartError::refused(
                "[daemon] engine_user is root: expected an unprivileged user",
            ))
        } else {
            Ok((uid, uid))
        };
    }
    let passwd = passwd().map_err(StartError::Refused)?;
    let Some(user) = user else {
        let mut users = ENGINE_USERS.iter();
        return users
            .find_map(|user| find_user(&passwd, user))
            .ok_or_else(|| {
                StartError::refused(
                    "there is no user for the engine: make one with `useradd --system cygnet`",
                )
            });
    };
    find_user(&passwd, user).ok_or_else(|| {
        StartError::refused(format_args!(
            "[daemon] engine_user = \"{user}\": no such unprivileged user; \
             make one with `useradd --system {user}`, or write \"nobody\""
        ))
    })
}

fn passwd() -> Result<String, String> {
    std::fs::read_to_string("/etc/passwd").map_err(|e| format!("cannot read /etc/passwd: {e}"))
}

/// An unprivileged user and its group: a number, or a name of `/etc/passwd`, where it may not be.
pub(super) fn user(user: &str) -> Result<Option<(u32, u32)>, String> {
    match user.parse::<u32>() {
        Ok(uid) => Ok((uid != 0).then_some((uid, uid))),
        Err(_) => Ok(find_user(&passwd()?, user)),
    }
}

fn find_user(passwd: &str, user: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (name == user && uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_keys_are_read_or_refused_whole() {
        assert_eq!(unhex(b"00ffA1"), Some(vec![0, 255, 0xa1]));
        assert_eq!(unhex(b"0"), None);
        assert_eq!(unhex(b"0g"), None);
    }

    #[test]
    fn a_secret_is_replaced_if_it_was_there_and_is_another_one() {
        let secrets = |psks: &[(&str, &str)]| Secrets {
            psks: (psks.iter())
                .map(|(name, psk)| (name.to_string(), Secret::from_slice(psk.as_bytes()).into()))
                .collect(),
            ..Secrets::default()
        };
        let mut before = secrets(&[("a/psk", "one"), ("b/psk", "two"), ("c/psk", "three")]);
        let mut now = secrets(&[("a/psk", "one"), ("b/psk", "2"), ("d/psk", "four")]);
        assert_eq!(now.replaced_since(&before), ["b/psk"]);
        // A user that is gone may not stay; a connection that is gone has ended.
        before.users = std::mem::take(&mut before.psks);
        now.users = std::mem::take(&mut now.psks);
        assert_eq!(now.replaced_since(&before), ["b/psk", "c/psk"]);
        before.passwords = std::mem::take(&mut before.users);
        now.passwords = std::mem::take(&mut now.users);
        assert_eq!(now.replaced_since(&before), ["b/psk", "c/psk"]);
    }

    #[test]
    fn what_is_read_is_a_file_and_of_a_sane_size() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("cygnet-start-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = |name: &str, bytes: &[u8], mode: u32| {
            let path = directory.join(name);
            std::fs::write(&path, bytes).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        file("good", b"a long secret\n", 0o600);
        file("open", b"a long secret\n", 0o644);
        file("huge", &[], 0o600);
        let huge = OpenOptions::new().write(true).open(directory.join("huge"));
        huge.unwrap().set_len(FILE_MAX + 1).unwrap();
        let fifo = directory.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let read = |name: &str| {
            let secret = secret_file(directory.join(name), PSK, &name, RELATIVE);
            secret.map(|(_, bytes)| bytes.to_vec())
        };
        let told = |name: &str| read(name).unwrap_err().to_string();
        let outcomes = [
            told("open"),
            told("huge"),
            told("fifo"),
            told("absent"),
            told("."),
        ];
        let good = read("good").unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(good, b"a long secret\n");
        let expected = [
            "chmod 600",
            "at most",
            "regular file",
            "check the name",
            "regular file",
        ];
        for (outcome, expected) in outcomes.iter().zip(expected) {
            assert!(outcome.contains(expected), "{outcome}");
        }
    }

    #[test]
    fn an_error_names_the_secret_that_it_is_about() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("cygnet-secret-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("open", "a long secret", 0o644);
        file("short", "short", 0o600);
        file("base64", "0sAAAA", 0o600);
        file("odd", "0x123", 0o600);
        let mut wrong = Vec::new();
        for name in ["open", "short", "base64", "odd", "absent.psk"] {
            let psk = pre_shared_key(&directory, name, "[server]").err();
            let key = private_key(&directory, name, "c", &BTreeMap::new()).err();
            for (told, right, other) in [(psk, PSK, PRIVATE_KEY), (key, PRIVATE_KEY, PSK)] {
                let told = told.unwrap().to_string();
                let path = directory.join(name).display().to_string();
                if !told.contains(right) || told.contains(other) || !told.contains(&path) {
                    wrong.push(told);
                }
            }
        }
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_secret_written_where_its_file_belongs_is_not_repeated() {
        let directory = std::env::temp_dir();
        let told = |written: &str| {
            let refused = pre_shared_key(&directory, written, &section("home/psk"));
            refused.err().unwrap().to_string()
        };
        for secret in [
            "my secret password",
            "hunter22",
            "Zm9v/YmFyYmF6",
            "s. s",
            &"x".repeat(300),
        ] {
            let told = told(secret);
            assert!(!told.contains(secret), "{told}");
            assert!(told.contains("[tunnel.home]"), "{told}");
        }
        let told = [told("hunter22"), told("no-such-file.psk")];
        assert!(told[0].contains("not the secret itself"), "{told:?}");
        assert!(told[1].contains("no-such-file.psk"), "{told:?}");
        assert_eq!(section("server/psk"), "[server]");
    }

    #[test]
    fn root_is_no_user_for_the_engine() {
        assert!(engine_user(Some("0")).is_err());
        assert!(engine_user(Some("root")).is_err());
        assert!(engine_user(Some("no-such-user-here")).is_err());
        assert_eq!(engine_user(Some("4711")).unwrap(), (4711, 4711));
        let passwd = "root:x:0:0::/root:/bin/sh\ncygnet:x:0:0::/:\nnobody:x:65534:65533::/:\n";
        assert_eq!(find_user(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(find_user(passwd, "cygnet"), None, "root by another name");
        assert_ne!(engine_user(None).unwrap().0, 0);
    }
}

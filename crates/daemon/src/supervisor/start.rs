//! Everything that is read and judged before anything is changed: configuration, certificates,
//! keys, the user the engine becomes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cygnet_config::{Config, CredentialFile};
use cygnet_crypto::Secret;
use cygnet_crypto::signature::SigningKey;
use cygnet_pki::load;
use zeroize::Zeroizing;

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
    Ok(Loaded {
        config,
        bundle,
        secrets,
    })
}

/// Reads a configuration and the public files it names: enough for the guard, which must not stay
/// open because a key is missing.
pub(super) fn public(path: &Path) -> Result<(Config, Bundle), StartError> {
    let text = read(path, path, "; write it, or name another with --config")?;
    let text = String::from_utf8(text).map_err(|e| {
        StartError::refused(format_args!(
            "{}: not UTF-8 at byte {}: expected a TOML text",
            path.display(),
            e.utf8_error().valid_up_to()
        ))
    })?;
    let base = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = path.display().to_string();
    let mut files = BTreeMap::new();
    let config = Config::parse(&name, &text, &mut |written| {
        let bytes =
            read(&base.join(written), Path::new(written), RELATIVE).map_err(|e| e.to_string())?;
        files.insert(written.to_owned(), bytes.clone());
        Ok(bytes)
    })?;
    Ok((config, Bundle { name, text, files }))
}

/// What to do about a file that is not there.
const RELATIVE: &str = "; check the name (paths are relative to the configuration's directory)";

fn read(path: &Path, shown: &Path, missing: &str) -> Result<Vec<u8>, StartError> {
    let failed = |e: &dyn std::fmt::Display, help: &str| {
        StartError::refused(format_args!("cannot read {}: {e}{help}", shown.display()))
    };
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failed(&e, missing),
        std::io::ErrorKind::PermissionDenied => failed(&e, "; try again with sudo"),
        _ => failed(&e, ""),
    })?;
    if !metadata.is_file() {
        return Err(failed(&"expected a regular file", ""));
    }
    if metadata.len() > FILE_MAX {
        return Err(failed(
            &format_args!("{} bytes, expected at most {FILE_MAX}", metadata.len()),
            "; is it the right file?",
        ));
    }
    std::fs::read(path).map_err(|e| failed(&e, "; try again with sudo"))
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
                let psk = pre_shared_key(base, path)?;
                secrets.psks.insert(id.0.clone(), Arc::new(psk));
            }
        }
    }
    Ok(secrets)
}

fn secret_file(base: &Path, written: &str) -> Result<(PathBuf, Zeroizing<Vec<u8>>), StartError> {
    let path = base.join(written);
    let bytes = Zeroizing::new(read(&path, &path, RELATIVE)?);
    let metadata = std::fs::metadata(&path)
        .map_err(|e| StartError::refused(format_args!("cannot read {}: {e}", path.display())))?;
    load::check_key_mode(&metadata, &path).map_err(StartError::refused)?;
    Ok((path, bytes))
}

fn private_key(
    base: &Path,
    written: &str,
    certificate: &str,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<SigningKey, StartError> {
    let (path, bytes) = secret_file(base, written)?;
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
fn pre_shared_key(base: &Path, written: &str) -> Result<Secret, StartError> {
    let (path, bytes) = secret_file(base, written)?;
    let text = bytes.trim_ascii_end();
    let refuse = |what: &str| StartError::refused(format_args!("{}: {what}", path.display()));
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

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
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

/// The user and group the engine becomes: a number, or a name of `/etc/passwd`.
pub(super) fn engine_user(user: &str) -> Result<(u32, u32), StartError> {
    if let Ok(uid) = user.parse::<u32>() {
        return if uid == 0 {
            Err(StartError::refused(
                "[daemon] engine_user is root: expected an unprivileged user",
            ))
        } else {
            Ok((uid, uid))
        };
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|e| StartError::refused(format_args!("cannot read /etc/passwd: {e}")))?;
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (name == user && uid != 0).then_some((uid, gid))
        })
        .ok_or_else(|| {
            StartError::refused(format_args!(
                "[daemon] engine_user = \"{user}\": no such unprivileged user; \
                 make one with `useradd --system {user}`, or write \"nobody\""
            ))
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
    fn root_is_no_user_for_the_engine() {
        assert!(engine_user("0").is_err());
        assert!(engine_user("root").is_err());
        assert!(engine_user("no-such-user-here").is_err());
        assert_eq!(engine_user("4711").unwrap(), (4711, 4711));
    }
}

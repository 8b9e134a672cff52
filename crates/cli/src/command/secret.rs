//! Passwords and passphrases: from a prompt or a file, never from the command line, which others can read.

use std::path::Path;

use cygnet_pki::load;
use cygnet_server::{Error, Result};
use zeroize::Zeroizing;

use super::read::read;

/// More than any password; the file may be the wrong one.
const FILE_MAX: u64 = 4096;

/// The first line of a file that nobody else can read.
pub(super) fn of_file(path: &Path) -> Result<Zeroizing<String>> {
    let refuse = |what: &str| Error::Refused(format!("cannot read {}: {what}", path.display()));
    let (bytes, metadata) = read(path, FILE_MAX)?;
    load::check_key_mode(&metadata, path, "a secret")?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| refuse("expected text in UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asked for once, for something that exists.
pub(super) fn known(what: &str) -> Result<Zeroizing<String>> {
    prompt(&format!("{what}: "))
}

/// Asked for twice, for something new.
pub(super) fn new(what: &str) -> Result<Zeroizing<String>> {
    let first = prompt(&format!("{what}: "))?;
    let second = prompt("once more: ")?;
    if *first != *second {
        return Err(Error::Refused("the two are not the same".into()));
    }
    Ok(first)
}

fn prompt(what: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(what)
        .map(Zeroizing::new)
        .map_err(|error| {
            Error::Refused(format!(
                "cannot ask for it: {error}; without a terminal, give it in a file"
            ))
        })
}

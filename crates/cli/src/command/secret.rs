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

/// Names the file of a secret that is refused.
pub(super) fn judge(judged: Result<()>, path: Option<&Path>) -> Result<()> {
    match (judged, path) {
        (Err(Error::Refused(told)), Some(path)) => {
            Err(Error::Refused(format!("{}: {told}", path.display())))
        }
        (judged, _) => judged,
    }
}

/// Asked for once, for something that exists; `option` would give it in a file.
pub(super) fn known(what: &str, option: &str) -> Result<Zeroizing<String>> {
    prompt(what, &format!("{what}: "), option)
}

/// Asked for twice, for something new; one that will not do is not typed again.
pub(super) fn new(
    what: &str,
    option: &str,
    judge: impl FnOnce(&str) -> Result<()>,
) -> Result<Zeroizing<String>> {
    let first = prompt(what, &format!("{what}: "), option)?;
    judge(&first)?;
    let second = prompt(what, "once more: ", option)?;
    if *first != *second {
        return Err(Error::Refused("the two are not the same".into()));
    }
    Ok(first)
}

fn prompt(what: &str, question: &str, option: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|error| {
            Error::Refused(format!(
                "cannot ask for the {what} without a terminal ({error}): give it with {option} FILE"
            ))
        })
}

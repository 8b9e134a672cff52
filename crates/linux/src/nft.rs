//! nftables by its own program: one text, one transaction.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use crate::{Error, Result};

/// Applies a text atomically: all of it or nothing.
///
/// # Errors
/// [`Error::NftMissing`], [`Error::Nft`], [`Error::NotPermitted`].
pub fn apply(text: &str) -> Result<()> {
    run(&["-f", "-"], text).map(|_| ())
}

/// Deletes a table of family inet; one that does not exist is no error.
///
/// # Errors
/// As [`apply`].
pub fn delete_table(name: &str) -> Result<()> {
    // `destroy` is newer than nft 1.0.6.
    apply(&format!("table inet {name}\ndelete table inet {name}\n"))
}

/// A table of family inet as text, `None` if there is none.
///
/// # Errors
/// As [`apply`].
pub fn list_table(name: &str) -> Result<Option<String>> {
    match run(&["list", "table", "inet", name], "") {
        Ok(text) => Ok(Some(text)),
        Err(Error::Nft { message }) if message.contains("No such file or directory") => Ok(None),
        Err(other) => Err(other),
    }
}

/// Whether there is an nft at all; its answer tells of the rights to use it, too.
///
/// # Errors
/// [`Error::NftMissing`], [`Error::NotPermitted`].
pub fn available() -> Result<()> {
    run(&["list", "tables"], "").map(|_| ())
}

/// Whether a ruleset as [`ruleset_json`] gives it has this table of family inet.
#[must_use]
pub fn has_table(ruleset: &str, name: &str) -> bool {
    let parsed: Option<serde_json::Value> = serde_json::from_str(ruleset).ok();
    let objects = parsed
        .as_ref()
        .and_then(|all| all.get("nftables")?.as_array());
    objects.into_iter().flatten().any(|object| {
        object
            .get("table")
            .is_some_and(|table| table["family"] == "inet" && table["name"] == name)
    })
}

/// The whole ruleset of this network namespace as JSON, for [`crate::foreign::blockages`].
///
/// # Errors
/// As [`apply`].
pub fn ruleset_json() -> Result<String> {
    run(&["-j", "list", "ruleset"], "")
}

/// What nft says is wrong, in one line: below it draws the place in a text nobody has seen.
fn complaint(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.clone().next().unwrap_or("it did not say why");
    lines
        .find(|line| line.contains("Error"))
        .unwrap_or(first)
        .to_owned()
}

fn run(args: &[&str], input: &str) -> Result<String> {
    let io = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::NftMissing,
        _ => Error::io("run nft", e),
    };
    let mut child = Command::new("nft")
        .args(args)
        // Its messages are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // nft reads all of its input before it writes, so this cannot wait for each other. If it ended
    // early, its message says more than our broken pipe.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().map_err(io)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let message = complaint(&String::from_utf8_lossy(&stderr));
    if message.contains("Operation not permitted") {
        return Err(Error::NotPermitted {
            what: "change nftables".to_owned(),
        });
    }
    Err(Error::Nft { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_of_many_lines_is_told_in_one() {
        let said = "/dev/stdin:2:1-5: Error: syntax error, unexpected string\nchian x {\n^^^^^\n";
        let told = "/dev/stdin:2:1-5: Error: syntax error, unexpected string";
        assert_eq!(complaint(said), told);
        assert_eq!(complaint("\n out of luck \nagain\n"), "out of luck");
        assert_eq!(complaint(""), "it did not say why");
    }
}

//! nftables by its own program: one text, one transaction.

use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

/// What is in a set of addresses of a table as [`list_table`] gives it, each with how much longer, unless for ever.
#[must_use]
pub fn elements(table: &str, set: &str) -> Vec<(IpAddr, Option<Duration>)> {
    let begins = format!("set {set} {{");
    let lines = table.lines().map(str::trim);
    let inside = lines.skip_while(|line| *line != begins).skip(1);
    // The set ends where its own brace does: that of its elements ends a line with the last of them.
    let inside: Vec<&str> = inside.take_while(|line| *line != "}").collect();
    let inside = inside.join(" ");
    let listed = inside.split_once("elements = {").map(|(_, listed)| listed);
    let listed = listed.and_then(|listed| listed.split('}').next());
    let elements = listed.into_iter().flat_map(|listed| listed.split(','));
    elements
        .filter_map(|element| {
            let mut words = element.split_whitespace();
            let address = words.next()?.parse().ok()?;
            let left = words.skip_while(|word| *word != "expires").nth(1);
            Some((address, left.map(|left| duration(left).unwrap_or_default())))
        })
        .collect()
}

/// As nft writes it: `59m58s996ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut all) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit());
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        let number: u32 = number.parse().ok()?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        all = all.checked_add(unit.checked_mul(number)?)?;
        rest = behind;
    }
    Some(all)
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
    fn what_is_in_a_set_is_read_as_nft_lists_it() {
        let table = "table inet t {\n\tset direct4 {\n\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t\ttimeout 1h\n\
             \t\telements = { 198.51.100.7 expires 59m59s984ms, 198.51.100.8 timeout 1h expires 49m,\n\
             \t\t\t     198.51.100.9, 198.51.100.10 expires 1h2fortnights }\n\t}\n\n\
             \tset direct6 {\n\t\ttype ipv6_addr\n\t}\n\n\tset others {\n\t\telements = { ::1 }\n\t}\n}\n";
        let read = elements(table, "direct4").into_iter();
        let read: Vec<(String, Option<u128>)> = read
            .map(|(address, left)| (address.to_string(), left.map(|left| left.as_millis())))
            .collect();
        let expected = [
            ("198.51.100.7", Some(3_599_984)),
            ("198.51.100.8", Some(2_940_000)),
            ("198.51.100.9", None),
            ("198.51.100.10", Some(0)),
        ];
        assert_eq!(
            read,
            expected.map(|(address, left)| (address.to_owned(), left))
        );
        assert!(elements(table, "direct6").is_empty());
        assert!(elements(table, "direct").is_empty());
    }

    #[test]
    fn complaint_of_many_lines_is_told_in_one() {
        let said = "/dev/stdin:2:1-5: Error: syntax error, unexpected string\nchian x {\n^^^^^\n";
        let told = "/dev/stdin:2:1-5: Error: syntax error, unexpected string";
        assert_eq!(complaint(said), told);
        assert_eq!(complaint("\n out of luck \nagain\n"), "out of luck");
        assert_eq!(complaint(""), "it did not say why");
    }
}

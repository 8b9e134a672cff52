//! The files that hold passwords: the one that a tunnel logs in with, and those of a server's users.

use std::collections::BTreeMap;
use std::path::Path;

use cygnet_crypto::Secret;
use cygnet_eap::USER_MAX;
use cygnet_eap::mschapv2::{HASH_LEN, nt_hash};
use zeroize::Zeroizing;

use super::start::{RELATIVE, is_file_name, secret_file, unhex};
use crate::error::StartError;

const PASSWORD: &str = "password";
const PASSWORDS: &str = "list of passwords";
/// RFC 2759 §4: the most characters of a password.
const LONGEST: usize = 256;

/// What to do about a `password` that names no file.
const PASSWORD_IS_A_FILE: &str = "; `password` is the name of a file that holds the password, not the password \
    itself (relative to the configuration's directory)";

/// The hash of the password that a file holds, without the line end behind it.
pub(super) fn own(base: &Path, written: &str, section: &str) -> Result<Secret, StartError> {
    let path = base.join(written);
    let mut shown = format!("the {PASSWORD} of {section}");
    if is_file_name(base, written) {
        shown = format!("{shown}, {}", path.display());
    }
    let (path, bytes) = secret_file(path, PASSWORD, &shown, PASSWORD_IS_A_FILE)?;
    let refuse =
        |what: &str| StartError::refused(format_args!("the {PASSWORD} {}: {what}", path.display()));
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("expected text in UTF-8"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().count() > LONGEST || password.contains(['\r', '\n'])
    {
        return Err(refuse(&format!(
            "expected one line of 1 to {LONGEST} characters"
        )));
    }
    Ok(nt_hash(password))
}

/// Users with the hashes of their passwords.
pub(super) fn of_users(base: &Path, written: &str) -> Result<BTreeMap<String, Secret>, StartError> {
    let path = base.join(written);
    let shown = format!("the {PASSWORDS} {}", path.display());
    let (path, bytes) = secret_file(path, PASSWORDS, &shown, RELATIVE)?;
    parse(&bytes).map_err(|(line, what)| {
        StartError::refused(format_args!("{}:{line}: {what}", path.display()))
    })
}

/// A line a user: its name, a colon, the NT hash of its password in hexadecimal digits. An error tells the line,
/// and repeats nothing of it.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Secret>, (usize, String)> {
    let mut users = BTreeMap::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let refuse = |what: &str| (number, what.to_owned());
        let line = std::str::from_utf8(line).map_err(|_| refuse("expected text in UTF-8"))?;
        let (user, hash) = line.rsplit_once(':').ok_or_else(|| {
            refuse("expected NAME:HASH, the name of a user and the NT hash of its password")
        })?;
        if user.is_empty()
            || user.len() > USER_MAX
            || user.contains(['\\', ':'])
            || user.contains(char::is_control)
        {
            return Err(refuse(&format!(
                "expected the name of a user before the colon: 1 to {USER_MAX} octets, without `\\` and `:`"
            )));
        }
        let hash = unhex(hash.as_bytes()).map(Zeroizing::new);
        let hash = hash.filter(|hash| hash.len() == HASH_LEN).ok_or_else(|| {
            refuse("expected 32 hexadecimal digits behind the colon, the NT hash of the password")
        })?;
        if users
            .insert(user.to_owned(), Secret::from_slice(&hash))
            .is_some()
        {
            return Err(refuse(&format!("the user {user} is there twice")));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "44EBBA8D5312b8d611474411f56989ae";

    #[test]
    fn users_and_hashes_are_read() {
        let text = format!("# of the office\n\nalice:{HASH}\r\n  bob@example.org:{HASH}\n");
        let users = parse(text.as_bytes()).unwrap();
        let names: Vec<&str> = users.keys().map(String::as_str).collect();
        assert_eq!(names, ["alice", "bob@example.org"]);
        assert!(users["alice"].ct_eq(nt_hash("clientPass").expose()));
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_without_its_content() {
        for (line, expected) in [
            ("alice", "expected NAME:HASH"),
            ("alice:clientPass", "32 hexadecimal digits"),
            (&HASH[1..], "expected NAME:HASH"),
            (&format!("alice:{}", &HASH[2..]), "32 hexadecimal digits"),
            (&format!(":{HASH}"), "name of a user"),
            (&format!("OFFICE\\alice:{HASH}"), "name of a user"),
            (&format!("carol:{HASH}"), "is there twice"),
        ] {
            let text = format!("carol:{HASH}\n{line}\n");
            let (number, told) = parse(text.as_bytes()).err().unwrap();
            assert_eq!(number, 2);
            assert!(told.contains(expected), "{told}");
            assert!(
                !told.contains(&HASH[2..]) && !told.contains("clientPass"),
                "{told}"
            );
        }
        assert_eq!(parse(b"\xff:00").err().map(|(line, _)| line), Some(1));
    }

    #[test]
    fn a_password_is_a_line_of_a_file_that_others_cannot_read() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("cygnet-password-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = |name: &str, text: &[u8], mode: u32| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("good.txt", b"clientPass\n", 0o600);
        file("open.txt", b"clientPass\n", 0o644);
        file("two.txt", b"clientPass\nanother\n", 0o600);
        file("empty.txt", b"\n", 0o600);
        let read = |name: &str| own(&directory, name, "[tunnel.home]");
        let good = read("good.txt");
        let told: Vec<String> = ["open.txt", "two.txt", "empty.txt", "hunter22"]
            .iter()
            .map(|name| read(name).err().unwrap().to_string())
            .collect();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(good.unwrap().ct_eq(nt_hash("clientPass").expose()));
        let expected = [
            "chmod 600",
            "one line",
            "one line",
            "not the password itself",
        ];
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains("hunter22"), "{told}");
        }
    }
}

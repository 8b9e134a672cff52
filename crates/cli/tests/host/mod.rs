//! A machine as far as `cygnet server` and `user` see one: a directory with the configuration and the state.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Sets a server up, by addresses alone.
pub(crate) const INIT: &str =
    "server init --address 203.0.113.5 --pool 10.213.7.0/24,fd12:3456:789a::/112";

/// Removed when dropped.
pub(crate) struct Host(PathBuf);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Host {
    /// In memory where that is possible: the commands wait for the disk otherwise, hundreds of times.
    pub(crate) fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let path = parent.join(format!("cygnet-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory for the test");
        Self(path)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("written");
    }

    /// A file that its owner alone can read.
    pub(crate) fn secret(&self, file: &str, text: &str) {
        self.write(file, text);
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(file), mode).expect("ours");
    }

    /// A command of cygnet for this machine, whose daemon does not run.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        command
            .args(line.split_whitespace())
            .arg("--config")
            .arg(self.path("etc/cygnet.toml"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--socket")
            .arg(self.path("control.sock"))
            .current_dir(&self.0)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("cygnet starts")
    }

    /// What it says; it has to succeed.
    pub(crate) fn cygnet(&self, line: &str) -> String {
        let output = self.run(line);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cygnet {line}: {told}");
        assert_eq!(told, "", "cygnet {line}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it says on being refused.
    pub(crate) fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "cygnet {line}: {told}");
        told
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.cygnet(line)).expect("JSON")
    }

    /// Runs another program here; it has to succeed.
    pub(crate) fn other(&self, line: &str) -> String {
        let (done, told) = self.try_other(line);
        assert!(done, "{line}: {told}");
        told
    }

    /// Whether it succeeded, and all that it said.
    pub(crate) fn try_other(&self, line: &str) -> (bool, String) {
        let mut words = line.split_whitespace();
        let output = Command::new(words.next().expect("a program"))
            .args(words)
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{line}: {error}; `cargo xtask test` installs it"));
        let all = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&all).into_owned(),
        )
    }

    /// What openssl thinks of a client's certificate under the published authority and revocation list.
    pub(crate) fn verify(&self, certificate: &str, purpose: &str) -> (bool, String) {
        self.try_other(&format!(
            "openssl verify -x509_strict -crl_check -purpose {purpose} -CAfile etc/server/ca.crt \
             -CRLfile etc/server/ca.crl {certificate}"
        ))
    }

    /// The names of all files below.
    pub(crate) fn names(&self, below: &str) -> Vec<PathBuf> {
        let mut out = Vec::new();
        let mut directories = vec![self.path(below)];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => out.push(path),
                }
            }
        }
        out.sort();
        out
    }

    /// Every file below, and what is in it.
    pub(crate) fn files(&self, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| (path.clone(), fs::read(&path).expect("read"));
        self.names(below).into_iter().map(read).collect()
    }
}

//! Programs that no one here wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a program said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs a program with `input` on its standard input. `None` if it is not installed, which under CI is a failure.
pub(crate) fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &[u8],
) -> Option<Said> {
    let spawned = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("not checked: cannot run {program}: {error}");
            return None;
        }
        Err(error) => panic!("cannot run {program}: {error}; `cargo xtask test` installs it"),
    };
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that reads nothing closes its end: no failure of ours.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    Some(Said {
        success: output.status.success(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The same, for what has to go well.
pub(crate) fn good(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let said = run(program, arguments, &[], input)?;
    assert!(said.success, "{program} {arguments:?}: {}", said.stderr);
    Some(said.stdout)
}

/// What a program of Python prints as JSON about `input`.
pub(crate) fn python(program: &str, input: &[u8]) -> Option<Value> {
    let printed = good("python3", &["-c", program], input)?;
    Some(serde_json::from_slice(&printed).expect("JSON"))
}

/// A property list as JSON, by Python's plistlib; data as base64.
pub(crate) fn plist(bytes: &[u8]) -> Option<Value> {
    python(
        "import base64, json, plistlib, sys\n\
         json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout,\n\
                   default=lambda data: base64.b64encode(data).decode())",
        bytes,
    )
}

/// JSON as Python reads it.
pub(crate) fn json(bytes: &[u8]) -> Option<Value> {
    python(
        "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)",
        bytes,
    )
}

/// A directory of its own, removed when dropped.
pub(crate) struct Directory(std::path::PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("cygnet-write-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// Puts a file there and returns where.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! Scripts in User-Mode Linux: a kernel with what this machine's lacks (kernel ESP with ESN, netem).
//! `lab/uml/uml.sh` boots it; the machine's files are its read-only root.

use super::Lab;
use super::failure::{Context, Failure, Result};
use super::process::Exec;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a script has left.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: i32,
    /// What it printed, on stdout and stderr.
    pub output: String,
    /// The directory that it saw as `/mnt/out`.
    pub shared: PathBuf,
}

/// Runs a bash script in User-Mode Linux. It may read every file of this machine, writes only below
/// `/mnt/out`, and is ended when `patience` is over. `files` are put into `/mnt/out` first.
pub fn run(
    lab: &Lab,
    name: &str,
    script: &str,
    files: &[(&str, &str)],
    patience: Duration,
) -> Result<Outcome> {
    let shared = lab.subdirectory(&format!("uml-{name}"))?;
    for (file, text) in files {
        std::fs::write(shared.join(file), text).context(format!("writing {file}"))?;
    }
    std::fs::write(shared.join("script.sh"), script)?;
    let launcher = crate::project::root().join("lab/uml/uml.sh");
    let seconds = patience.as_secs().to_string();
    let finished = Exec::new([
        &launcher.to_string_lossy(),
        "-t",
        seconds.as_str(),
        "-w",
        &shared.to_string_lossy(),
        "--",
        "bash",
        "/mnt/out/script.sh",
    ])
    .patience(patience + Duration::from_secs(15))
    .finish()?;
    match finished.status.code() {
        Some(124) => Err(Failure::new(format!(
            "{name}: not done within {patience:?}: {}",
            finished.stdout
        ))),
        Some(125) => Err(Failure::new(format!(
            "{name}: the machine died: {}",
            finished.stderr
        ))),
        Some(status) => Ok(Outcome {
            status,
            output: finished.stdout,
            shared,
        }),
        None => Err(Failure::new(format!(
            "{name}: the launcher was killed: {}",
            finished.stderr
        ))),
    }
}

/// Whether this machine has User-Mode Linux.
pub fn is_installed() -> bool {
    Path::new("/usr/bin/linux.uml").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_on_another_kernel() {
        let lab = Lab::new().unwrap();
        let script = "uname -s; cp /mnt/out/given /mnt/out/taken; exit 7";
        let outcome = run(
            &lab,
            "test",
            script,
            &[("given", "hello")],
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(outcome.status, 7);
        assert!(outcome.output.contains("Linux"), "{}", outcome.output);
        assert_eq!(
            std::fs::read_to_string(outcome.shared.join("taken")).unwrap(),
            "hello"
        );
    }
}

//! systemd, by its own program, and the units of this one.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the units' ProtectHome and PrivateTmp hide.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// Where units of the administrator's are.
const UNITS: &str = "/etc/systemd/system";

/// A unit that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    text: &'static str,
}

/// `cygnet run`.
pub(super) const RUN: Unit = Unit {
    name: "cygnet.service",
    text: include_str!("../../../../packaging/systemd/cygnet.service"),
};
/// `cygnet gateway on`, before the network.
pub(super) const GUARD: Unit = Unit {
    name: "cygnet-guard.service",
    text: include_str!("../../../../packaging/systemd/cygnet-guard.service"),
};

impl Unit {
    /// Where it is written if it is not installed.
    pub(super) fn path(self) -> PathBuf {
        Path::new(UNITS).join(self.name)
    }

    /// The packaged unit, for this program and this configuration.
    pub(super) fn text(self, program: &Path, config: &Path) -> String {
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        self.text
            .replace("/usr/local/bin/cygnet", &program.display().to_string())
            .replace("/etc/cygnet/cygnet.toml", &config.display().to_string())
    }
}

/// The program as a unit has to name it.
pub(super) fn program_for_units() -> Result<PathBuf, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot tell where this program is: {error}"))?;
    match HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
        true => Err(format!(
            "the unit cannot start {}: it sees nothing of that directory. `install -m 755 {0} /usr/local/bin/`, then \
             the same command by /usr/local/bin/cygnet",
            program.display()
        )),
        false => Ok(program),
    }
}

/// The systemd that this machine was booted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Systemd(());

impl Systemd {
    /// `None` where there is none, or it is installed and another program started the machine.
    pub(super) fn find() -> Option<Self> {
        let said = Command::new("systemctl")
            .arg("is-system-running")
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let state = String::from_utf8_lossy(&said.stdout);
        let runs = [
            "initializing",
            "starting",
            "running",
            "degraded",
            "maintenance",
            "stopping",
        ];
        runs.contains(&state.trim()).then_some(Self(()))
    }

    /// The text of a unit that is installed.
    pub(super) fn installed(self, unit: Unit) -> Option<String> {
        let said = Command::new("systemctl")
            .args(["cat", unit.name])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        said.status.success().then_some(text)
    }

    pub(super) fn is_enabled(self, unit: Unit) -> bool {
        self.quietly(&["is-enabled", unit.name])
    }

    pub(super) fn is_active(self, unit: Unit) -> bool {
        self.quietly(&["is-active", unit.name])
    }

    fn quietly(self, arguments: &[&str]) -> bool {
        Command::new("systemctl")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// `systemctl …`; what it complains about, if it fails.
    pub(super) fn call(self, arguments: &[&str]) -> Result<(), String> {
        let told = |what: &str| format!("`systemctl {}` failed: {what}", arguments.join(" "));
        let output = Command::new("systemctl")
            .args(arguments)
            .stdin(Stdio::null())
            // What is begun is not cut off by Ctrl-C, or with the terminal.
            .process_group(0)
            .output()
            .map_err(|error| told(&error.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(told(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Writes a unit that is not installed.
    pub(super) fn write(self, unit: Unit, text: &str) -> Result<(), String> {
        let path = unit.path();
        // A mask is a link to /dev/null: it is neither followed nor replaced.
        File::create_new(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.call(&["daemon-reload"])
    }

    /// Removes a unit that was written.
    pub(super) fn remove(self, unit: Unit) -> Result<(), String> {
        let path = unit.path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
        self.call(&["daemon-reload"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_start_this_program_with_this_configuration() {
        for (unit, order) in [(RUN, "run"), (GUARD, "gateway on")] {
            let text = unit.text(Path::new("/opt/cygnet"), Path::new("/srv/vpn.toml"));
            let line = format!("\nExecStart=/opt/cygnet {order} --config /srv/vpn.toml\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}

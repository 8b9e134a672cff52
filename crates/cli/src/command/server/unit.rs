//! systemd: enables the unit, and undoes that.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cygnet_server::{Error, Place, Result, Server, Unit};

const NAME: &str = "cygnet.service";
const TEXT: &str = include_str!("../../../../../packaging/systemd/cygnet.service");
const FILE: &str = "/etc/systemd/system/cygnet.service";
/// Only a machine that was booted by systemd has it (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// What the unit's ProtectHome and PrivateTmp hide.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Enables the unit and starts it; writes it first where it is not installed.
pub(super) fn enable(place: &Place, server: &mut Server) -> Result<ExitCode> {
    if !Path::new(BOOTED).is_dir() {
        return Ok(super::super::fail(&format!(
            "there is no systemd here, so nothing starts it by itself: let what is here run `cygnet run --config {}`",
            place.config.display()
        )));
    }
    let installed = quietly(&["cat", NAME]);
    if installed && quietly(&["is-enabled", NAME]) {
        systemctl(&["reload-or-restart", NAME])?;
        println!("systemd starts it at every boot already; it runs.");
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe()
        .map_err(|error| Error::Refused(format!("cannot tell where this program is: {error}")))?;
    if !installed && HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
        return Err(Error::Refused(format!(
            "the unit cannot start {}: it sees nothing of that directory. \
             `install -m 755 {0} /usr/local/bin/`, then `/usr/local/bin/cygnet server init` with the same values",
            program.display()
        )));
    }
    // Noted first: what a crash leaves is undone by `uninstall`.
    server.note_unit(Some(if installed {
        Unit::Enabled
    } else {
        Unit::Written
    }))?;
    start(installed, &text(&program, &place.config)).map_err(Error::after_change)?;
    println!("It runs, and systemd starts it at every boot.");
    Ok(ExitCode::SUCCESS)
}

fn start(installed: bool, text: &str) -> Result<()> {
    if !installed {
        std::fs::write(FILE, text)
            .map_err(|error| Error::Refused(format!("cannot write {FILE}: {error}")))?;
        systemctl(&["daemon-reload"])?;
    }
    systemctl(&["enable", "--now", NAME])
}

/// Undoes what [`enable`] did.
pub(super) fn disable(unit: Unit) -> Result<()> {
    if !quietly(&["cat", NAME]) {
        // It was not come to, or somebody was here before.
        return Ok(());
    }
    systemctl(&["disable", "--now", NAME])?;
    if unit == Unit::Written {
        std::fs::remove_file(FILE)
            .map_err(|error| Error::Refused(format!("cannot remove {FILE}: {error}")))?;
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}

/// The packaged unit, for this program and this configuration.
fn text(program: &Path, config: &Path) -> String {
    let config = std::path::absolute(config).unwrap_or_else(|_| PathBuf::from(config));
    TEXT.replace("/usr/local/bin/cygnet", &program.display().to_string())
        .replace("/etc/cygnet/cygnet.toml", &config.display().to_string())
}

fn quietly(arguments: &[&str]) -> bool {
    Command::new("systemctl")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let told = |what: &str| {
        Error::Refused(format!(
            "`systemctl {}` failed: {what}",
            arguments.join(" ")
        ))
    };
    let output = Command::new("systemctl")
        .args(arguments)
        .output()
        .map_err(|error| told(&error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(told(String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_this_program_with_this_configuration() {
        let text = text(Path::new("/opt/cygnet"), Path::new("/srv/vpn.toml"));
        assert!(
            text.contains("\nExecStart=/opt/cygnet run --config /srv/vpn.toml\n"),
            "{text}"
        );
    }
}

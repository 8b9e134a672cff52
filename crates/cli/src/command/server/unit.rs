//! systemd: enables the unit, and undoes that.

use std::process::ExitCode;

use cygnet_server::{Error, Place, Result, Server, Unit};

use super::super::systemd::{RUN, Systemd, program_for_units};

/// Enables the unit and starts it; writes it first where it is not installed.
pub(super) fn enable(place: &Place, server: &mut Server) -> Result<ExitCode> {
    let Some(systemd) = Systemd::find() else {
        return Ok(super::super::fail(&format!(
            "there is no systemd here, so nothing starts it by itself: let what is here run `cygnet run --config {}`",
            place.config.display()
        )));
    };
    let installed = systemd.installed(RUN).is_some();
    if installed && systemd.is_enabled(RUN) {
        call(systemd, &["reload-or-restart", RUN.name])?;
        println!("systemd starts it at every boot already; it runs.");
        return Ok(ExitCode::SUCCESS);
    }
    let text = match installed {
        true => None,
        false => {
            let program = program_for_units().map_err(Error::Refused)?;
            Some(RUN.text(&program, &place.config).map_err(Error::Refused)?)
        }
    };
    // Noted first: what a crash leaves is undone by `uninstall`.
    server.note_unit(Some(if installed {
        Unit::Enabled
    } else {
        Unit::Written
    }))?;
    start(systemd, text.as_deref()).map_err(Error::after_change)?;
    println!("It runs, and systemd starts it at every boot.");
    Ok(ExitCode::SUCCESS)
}

fn start(systemd: Systemd, text: Option<&str>) -> Result<()> {
    if let Some(text) = text {
        systemd.write(RUN, text).map_err(Error::Refused)?;
    }
    call(systemd, &["enable", "--now", RUN.name])
}

/// Undoes what [`enable`] did.
pub(super) fn disable(unit: Unit) -> Result<()> {
    let Some(systemd) = Systemd::find() else {
        return Ok(());
    };
    if systemd.installed(RUN).is_none() {
        // It was not come to, or somebody was here before.
        return Ok(());
    }
    call(systemd, &["disable", "--now", RUN.name])?;
    if unit == Unit::Written {
        systemd.remove(RUN).map_err(Error::Refused)?;
    }
    Ok(())
}

fn call(systemd: Systemd, arguments: &[&str]) -> Result<()> {
    systemd.call(arguments).map_err(Error::Refused)
}

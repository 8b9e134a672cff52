//! `cygnet server uninstall`

use std::process::ExitCode;

use cygnet_server::{Error, Result};

use super::super::ask::confirm;
use super::super::place::{Context, ReloadOutcome, check};
use super::unit;
use crate::args::server::Uninstall;

pub(super) fn uninstall(options: &Uninstall) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let summary = context.open()?.summary()?;
    if !options.yes {
        let asked = confirm(&format!(
            "This removes the server {} with {} users and {} devices. None of their files will work again.",
            summary.addresses.join(", "),
            summary.users,
            summary.devices
        ));
        asked.map_err(Error::Refused)?;
    }
    let server = context.open()?;
    let disabled = match server.unit()? {
        Some(unit) => unit::disable(unit).map(|()| true)?,
        None => false,
    };
    server.uninstall(&check)?;
    let outcome = match disabled {
        true => ReloadOutcome::NotRunning,
        false => context.reload_daemon(),
    };
    if matches!(outcome, ReloadOutcome::Failed(_)) {
        println!("cygnet still runs here, with what it has read before: stop it.");
    }
    println!("The server is gone: users, keys, certificates and [server].");
    match outcome {
        ReloadOutcome::Failed(told) => {
            println!("(The running cygnet did not take that up: {told}.)");
            Ok(ExitCode::from(super::super::FAILED))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

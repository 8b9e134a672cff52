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
    let outcome = server.uninstall(&check, || match disabled {
        true => ReloadOutcome::NotRunning,
        false => context.reload_daemon(),
    })?;
    const GONE: &str = "The server is gone: users, keys, certificates and [server].";
    let has_work = context.place.config.exists();
    match outcome {
        ReloadOutcome::Failed(told) => {
            println!(
                "cygnet still runs here, and serves by what it has read before: `systemctl stop cygnet`, or end `cygnet run`. \
                 (It did not take up what is left: {told}.)\n{GONE}"
            );
            Ok(ExitCode::from(super::super::FAILED))
        }
        ReloadOutcome::Done if !has_work => {
            println!(
                "{GONE}\ncygnet serves nobody any more and runs on with nothing to do; {} is gone, so it cannot start again: \
                 `systemctl disable --now cygnet`, or end `cygnet run`.",
                context.place.config.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        ReloadOutcome::Done | ReloadOutcome::NotRunning => {
            println!("{GONE}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

//! `cygnet server uninstall`

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use cygnet_server::{Error, Result};

use super::super::place::{Context, ReloadOutcome, check};
use super::unit;
use crate::args::server::Uninstall;

pub(super) fn uninstall(options: &Uninstall) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let summary = context.open()?.summary()?;
    if !options.yes {
        confirm(&format!(
            "This removes the server {} with {} users and {} devices. None of their files will work again.",
            summary.addresses.join(", "),
            summary.users,
            summary.devices
        ))?;
    }
    let server = context.open()?;
    let disabled = match server.unit()? {
        Some(unit) => unit::disable(unit).map(|()| true)?,
        None => false,
    };
    server.uninstall(&check)?;
    println!("The server is gone: users, keys, certificates and [server].");
    if disabled {
        return Ok(ExitCode::SUCCESS);
    }
    match context.reload_daemon() {
        ReloadOutcome::Failed(told) => {
            println!("The running cygnet did not take that up ({told}): stop it.");
            Ok(ExitCode::from(super::super::FAILED))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn confirm(what: &str) -> Result<()> {
    let refused = |what: &str| Err(Error::Refused(what.into()));
    if !std::io::stdin().is_terminal() {
        return refused("this cannot be undone; without a terminal to ask at, give --yes");
    }
    print!("{what}\nGo on? Type yes: ");
    let mut answer = String::new();
    let asked = std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => refused("nothing was removed"),
    }
}

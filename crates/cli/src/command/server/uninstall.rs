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

fn confirm(what: &str) -> Result<()> {
    let refused = |what: &str| Err(Error::Refused(what.into()));
    if !std::io::stdin().is_terminal() {
        return refused("this cannot be undone; without a terminal to ask at, give --yes");
    }
    let mut answer = String::new();
    let mut out = std::io::stdout();
    let asked = write!(out, "{what}\nGo on? Type yes: ")
        .and_then(|()| out.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => refused("nothing was removed"),
    }
}

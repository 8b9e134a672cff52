//! `cygnet gateway on|off`

use std::process::ExitCode;

use crate::args::Gateway;

pub(super) fn gateway(what: &Gateway) -> ExitCode {
    let done = match what {
        Gateway::On(file) => cygnet_daemon::guard_on(&file.config),
        Gateway::Off(file) => cygnet_daemon::guard_off(&file.config),
    };
    match done {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => super::refuse(&error.to_string()),
    }
}

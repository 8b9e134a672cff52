//! `cygnet gateway on|off|guide`

use std::process::ExitCode;

use crate::args::Gateway;

pub(super) fn gateway(what: &Gateway) -> ExitCode {
    let (message, code) = match what {
        Gateway::On(file) => match cygnet_daemon::guard_on(&file.config) {
            Ok(done) => {
                for line in done.warnings.iter().flat_map(|warning| warning.lines()) {
                    eprintln!("cygnet: {line}");
                }
                let code = if done.as_configured {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(super::FAILED)
                };
                (done.message, code)
            }
            Err(error) => return super::refuse(&error.to_string()),
        },
        Gateway::Off(file) => match cygnet_daemon::guard_off(&file.config) {
            Ok(message) => (message, ExitCode::SUCCESS),
            Err(error) => return super::refuse(&error.to_string()),
        },
        Gateway::Guide(file) => match cygnet_daemon::guide(&file.config) {
            Ok(guide) => (guide, ExitCode::SUCCESS),
            Err(error) => return super::refuse(&error.to_string()),
        },
    };
    println!("{message}");
    code
}

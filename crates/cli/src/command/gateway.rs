//! `cygnet gateway on|off|guide|setup`

pub(super) mod setup;

use std::path::Path;
use std::process::ExitCode;

use crate::args::gateway::{Gateway, Off};

pub(super) fn gateway(what: &Gateway) -> ExitCode {
    match what {
        Gateway::Setup(options) => setup::setup(options),
        Gateway::On(file) => on(&file.config),
        Gateway::Off(options) => off(options),
        Gateway::Guide(file) => match cygnet_daemon::guide(&file.config) {
            Ok(guide) => {
                println!("{guide}");
                ExitCode::SUCCESS
            }
            Err(error) => super::refuse(&error.to_string()),
        },
    }
}

fn on(config: &Path) -> ExitCode {
    // At a boot that ended a trial: the guard is that of before, or there is none to put in place.
    if let Some(setup::Boot::WithoutGuard) = setup::after_reboot(config) {
        println!("there was no guard before: none is put in place");
        return ExitCode::SUCCESS;
    }
    match cygnet_daemon::guard_on(config) {
        Ok(done) => {
            for line in done.warnings.iter().flat_map(|warning| warning.lines()) {
                eprintln!("cygnet: {line}");
            }
            println!("{}", done.message);
            match done.as_configured {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(super::FAILED),
            }
        }
        Err(error) => super::refuse(&error.to_string()),
    }
}

fn off(options: &Off) -> ExitCode {
    let config = &options.file.config;
    if !options.guard_only
        && let Some(code) = setup::off(config)
    {
        return code;
    }
    match cygnet_daemon::guard_off(config) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => super::refuse(&error.to_string()),
    }
}

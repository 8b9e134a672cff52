//! `cygnet check`

use std::io::IsTerminal;
use std::process::ExitCode;

use cygnet_daemon::StartError;

use crate::args::ConfigFile;

pub(super) fn check(file: &ConfigFile) -> ExitCode {
    match cygnet_daemon::check(&file.config) {
        Ok(summary) => {
            println!("{}: good. {summary}", file.config.display());
            ExitCode::SUCCESS
        }
        Err(StartError::Config(error)) if std::io::stderr().is_terminal() => {
            eprintln!("{:?}", miette::Report::new(error));
            ExitCode::from(super::REFUSED)
        }
        Err(error) => super::refuse(&error.to_string().replace('\n', "\ncygnet: ")),
    }
}

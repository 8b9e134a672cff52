//! `cygnet check`

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use cygnet_daemon::StartError;

use super::import::sections::Sections;
use crate::args::ConfigFile;

pub(super) fn check(file: &ConfigFile) -> ExitCode {
    match cygnet_daemon::survey::configuration(&file.config) {
        Ok((config, summary)) => {
            println!("{}: good. {summary}", file.config.display());
            // A link is read as well; only an import does not follow it.
            let text = std::fs::read_to_string(&file.config).unwrap_or_default();
            let beside = file.config.parent().unwrap_or(Path::new("."));
            let content = |path: &str| std::fs::read(beside.join(path)).ok();
            let missing = cygnet_daemon::survey::lan_missing(&config);
            for warning in missing
                .into_iter()
                .chain(Sections::of(text).warnings(&content))
            {
                eprintln!("cygnet: warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(StartError::Config(error)) if std::io::stderr().is_terminal() => {
            eprintln!("{:?}", miette::Report::new(error));
            ExitCode::from(super::REFUSED)
        }
        Err(error) => super::refuse(&error.to_string().replace('\n', "\ncygnet: ")),
    }
}

//! `cygnet doctor`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cygnet_config::GuardSections;
use cygnet_doctor::{Options, Unit, examine};
use hyper::Method;

use super::status;
use super::systemd::{GUARD, RUN, Systemd};
use crate::args::Doctor;
use crate::client;

pub(super) fn doctor(options: &Doctor) -> ExitCode {
    let config = &options.file.config;
    let socket = options.socket.clone().unwrap_or_else(|| socket_of(config));
    let said = client::call(&socket, Method::GET, "/v1/status", None);
    let report = examine(Options {
        config,
        status: said.and_then(|body| status::parse(&body)),
        units: Systemd::find().map(|systemd| {
            [RUN, GUARD].map(|unit| Unit {
                name: unit.name,
                text: systemd.installed(unit),
                enabled: systemd.is_enabled(unit),
            })
        }),
        url: options.url.as_deref(),
        mask: options.mask,
    });
    let report = match report {
        Ok(report) => report,
        Err(message) => return super::refuse(&message),
    };
    if options.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => return super::refuse(&format!("cannot write the report: {error}")),
        }
    } else {
        print!("{}", report.text(std::io::stdout().is_terminal()));
    }
    match report.wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(super::FAILED),
    }
}

/// Where a program that obeys this configuration listens, even if it is broken by now.
fn socket_of(config: &Path) -> PathBuf {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let (sections, _) = GuardSections::read(&text);
    Path::new(&sections.run_dir).join("control.sock")
}

//! `cygnet doctor`: a check-up of an installation, for whoever sits before it or is asked in a forum.
//!
//! Three steps. Facts are gathered: files, settings, the kernel, what the running program says, and what processes
//! without rights (`cygnet probe-ike`, `cygnet probe-web`) find on the network. Checks judge the facts, and ask
//! nobody. A [`Report`] says it, with pseudonyms for addresses and names if that is wanted. Secrets are no facts: they
//! are read to see whether the configuration is good, and dropped. Nothing is changed.

mod check;
mod facts;
mod gather;
mod mask;
mod probe;
mod report;
mod unit;
mod words;

use std::path::Path;

use cygnet_daemon::api::Status;

pub use check::NAMES;
pub use facts::Unit;
pub use report::{Check, Report, State};
pub use unit::configuration_of_unit;

use probe::web::Url;

/// What to look at.
#[derive(Debug)]
pub struct Options<'a> {
    /// The configuration.
    pub config: &'a Path,
    /// What the running program says; the error is one sentence why it says nothing.
    pub status: Result<Status, String>,
    /// `cygnet.service` and `cygnet-guard.service`; `None`: systemd does not run here.
    pub units: Option<[Unit; 2]>,
    /// A web host that answers with the address it sees: `http://HOST/PATH`.
    pub url: Option<&'a str>,
    /// Pseudonyms for addresses and names.
    pub mask: bool,
}

/// Looks at everything. Takes as long as the network lets it: some seconds, a minute where servers are silent.
///
/// # Errors
/// Nothing can be looked at: one sentence, with what to do.
pub fn examine(options: Options<'_>) -> Result<Report, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("what is to be looked at is root's alone; try again with sudo".to_owned());
    }
    let url = options.url.map(Url::parse).transpose()?;
    let gathered = gather::gather(
        options.config,
        options.status,
        options.units.as_ref(),
        url.as_ref(),
    )?;
    let report = Report::new(check::all(&gathered.facts));
    Ok(match options.mask {
        true => report.mask(gathered.names),
        false => report,
    })
}

/// The process that asks a server, with a socket as its standard input. Returns the exit code.
pub fn probe_ike(errand: &str) -> u8 {
    probe::run(errand, |errand: probe::ike::Errand, socket| {
        probe::ike::run(&errand, socket)
    })
}

/// The process that asks a web host, likewise.
pub fn probe_web(errand: &str) -> u8 {
    probe::run(errand, |errand: probe::web::Errand, socket| {
        probe::web::run(&errand, socket)
    })
}

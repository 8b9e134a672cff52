//! The running program: a supervisor that holds keys and the kernel's configuration, and an
//! engine that holds sockets and parses what the network sends.

#[cfg(test)]
mod alone;
pub mod api;
mod ask_time;
mod clock;
mod dhcp;
mod dns;
mod engine;
mod error;
mod events;
mod fetch;
mod fetch_crl;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod helper;
mod ipc;
mod log;
mod neighbours;
mod resolve;
mod said;
mod source;
pub mod speedtest;
mod standing;
mod supervisor;
pub mod survey;
mod world;

use std::path::Path;

pub use clock::NOT_BEFORE;
pub use error::StartError;
pub use supervisor::control::Refusal;
pub use supervisor::network::guard::GuardOn;

/// Runs the supervisor, which starts the engine, until SIGTERM or SIGINT. Returns the exit code.
pub fn run(config: &Path) -> u8 {
    keep_keys_in_memory();
    supervisor::run(config)
}

/// Runs the engine on the socket it inherited from the supervisor. Returns the exit code.
pub fn engine() -> u8 {
    engine::run()
}

/// Resolves a name and prints its addresses, a line each. Returns the exit code.
pub fn resolve(name: &str) -> u8 {
    resolve::run(name)
}

/// Fetches the CRL of a URL for the supervisor, which says on standard input who has to have signed it.
/// Returns the exit code.
pub fn fetch_crl(url: &str) -> u8 {
    fetch_crl::run(url)
}

/// Asks time servers, separated by spaces, for the date, and hands back what each says. Returns the exit code.
pub fn ask_time(servers: &str) -> u8 {
    ask_time::run(servers)
}

/// Answers devices of the LAN that ask for names, as the supervisor says on the socket that is standard input.
/// Returns the exit code.
pub fn serve_dns() -> u8 {
    dns::run()
}

/// Lends addresses to the LAN for the supervisor, which sends sockets and what to lend. Returns the exit code.
pub fn serve_dhcp() -> u8 {
    dhcp::run()
}

/// Asks which DHCP servers answer, on the socket that is standard input, with this MAC address. Returns the exit code.
pub fn look_for_dhcp(mac: &str) -> u8 {
    neighbours::run(mac)
}

/// Checks a configuration with all the files it names; one line that sums it up.
pub fn check(config: &Path) -> Result<String, StartError> {
    survey::configuration(config).map(|(_, summary)| summary)
}

/// Puts the fail-closed rules of the configured gateway in place.
pub fn guard_on(config: &Path) -> Result<GuardOn, StartError> {
    keep_keys_in_memory();
    supervisor::network::guard::guard_on(config)
}

/// Puts back the fail-closed rules that were in place before something was tried: of an earlier configuration, where this
/// one asks for none.
///
/// # Errors
/// They are not known, or a step failed.
pub fn guard_as_before(config: &Path) -> Result<(), StartError> {
    keep_keys_in_memory();
    supervisor::network::guard::guard_as_before(config)
}

/// Removes the fail-closed rules.
pub fn guard_off(config: &Path) -> Result<String, StartError> {
    supervisor::network::guard::guard_off(config)
}

/// Takes back what a run of the configuration left in the kernel that ended without doing so. The guard stays.
///
/// # Errors
/// A cygnet runs with it, or a step failed.
pub fn clear_leftovers(config: &Path) -> Result<(), StartError> {
    supervisor::network::guard::clear_leftovers(config)
}

/// How devices come to use this machine as their gateway, with the addresses of its LAN: for a person to read.
pub fn guide(config: &Path) -> Result<String, StartError> {
    supervisor::dhcp::guide(config)
}

/// Threads that seal, and as many that open. Each tunnel keeps two busy, one a direction, and the kernel's
/// own work on packets needs the rest.
fn workers(daemon: &cygnet_config::Daemon) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    daemon
        .workers
        .unwrap_or_else(|| (processors() / 2).clamp(1, 4))
}

/// No core file of a process that reads private keys, whoever started it. A limit of zero alone
/// does not hold back a kernel that pipes core files to a collector.
pub fn keep_keys_in_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let done = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, none));
    if let Err(error) = done {
        tracing::warn!("core files cannot be switched off: {error}");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn keys_do_not_get_into_core_files() {
        super::keep_keys_in_memory();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}

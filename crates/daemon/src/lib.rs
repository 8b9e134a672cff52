//! The running program: a supervisor that holds keys and the kernel's configuration, and an
//! engine that holds sockets and parses what the network sends.

pub mod api;
mod engine;
mod error;
mod events;
mod ipc;
mod log;
mod resolve;
mod supervisor;

use std::path::Path;

pub use error::StartError;
pub use supervisor::control::Refusal;

/// Runs the supervisor, which starts the engine, until SIGTERM or SIGINT. Returns the exit code.
pub fn run(config: &Path) -> u8 {
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

/// Checks a configuration with all the files it names; one line that sums it up.
pub fn check(config: &Path) -> Result<String, StartError> {
    supervisor::start::load(config).map(|loaded| loaded.summary())
}

/// Puts the fail-closed rules of the configured gateway in place.
pub fn guard_on(config: &Path) -> Result<String, StartError> {
    supervisor::network::guard_on(config)
}

/// Removes the fail-closed rules.
pub fn guard_off(config: &Path) -> Result<String, StartError> {
    supervisor::network::guard_off(config)
}

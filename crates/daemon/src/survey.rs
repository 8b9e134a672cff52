//! What can be said of an installation without the program running: for `cygnet doctor`
//! and `cygnet gateway setup`. Nothing is changed.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use cygnet_config::Config;
use cygnet_dhcp::Mac;
use cygnet_ike::time::UtcTime;
use ipnet::Ipv4Net;

use crate::clock::{Clock, LastKnown};
use crate::error::StartError;
use crate::{keep_keys_in_memory, supervisor};

pub use supervisor::network::survey::{Network, network};

/// A configuration that is good with all the files it names, and one line that sums it up.
///
/// # Errors
/// What `cygnet check` says of it.
pub fn configuration(path: &Path) -> Result<(Config, String), StartError> {
    keep_keys_in_memory();
    let loaded = supervisor::start::load(path)?;
    supervisor::network::check(&loaded.config)?;
    let summary = loaded.summary();
    Ok((loaded.config, summary))
}

/// The date, in seconds since 1970.
///
/// # Errors
/// It cannot be right: one sentence.
pub fn date(config: &Config) -> Result<i64, String> {
    let last = LastKnown::read(&config.daemon.state_dir);
    let date = Clock::new(config, last.kept()).date();
    date.map(|date| date.0).map_err(|why| why.to_string())
}

/// A sentence for each certificate that has expired by this date, or will within the month, the earliest first.
pub fn expiring(config: &Config, date: i64) -> Vec<String> {
    supervisor::expiry::warnings(config, Ok(UtcTime(date)))
}

/// User and group of processes that talk to a network.
///
/// # Errors
/// There is no such user: one sentence.
pub fn helper_user(config: &Config) -> Result<(u32, u32), String> {
    let user = supervisor::start::engine_user(config.daemon.engine_user.as_deref());
    user.map_err(|error| error.to_string())
}

/// Addresses of a name, asked for by a process of that user and group.
///
/// # Errors
/// One sentence.
pub async fn resolve(name: &str, user: (u32, u32)) -> Result<Vec<IpAddr>, String> {
    crate::resolve::ask(name, user).await
}

/// DHCP servers that answer on an interface within some seconds, by a process of that user and group that asks with the
/// interface's own MAC address.
///
/// # Errors
/// Nobody could be asked: one sentence.
pub async fn dhcp_servers(
    interface: &str,
    mac: Mac,
    user: (u32, u32),
) -> Result<Vec<Ipv4Addr>, String> {
    crate::neighbours::dhcp_servers(interface, mac, user).await
}

/// A range of addresses to lend in the network of this address of ours, without it and those of routers: as
/// `[gateway.dhcp]` has it; `None` where there is hardly room.
#[must_use]
pub fn suggested_range(own: Ipv4Net, routers: &[Ipv4Addr]) -> Option<String> {
    supervisor::dhcp::suggested(own, routers)
}

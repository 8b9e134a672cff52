//! What can be said of an installation without the program running: for `cygnet doctor`
//! and `cygnet gateway setup`. Nothing is changed.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use cygnet_config::Config;
use cygnet_dhcp::Mac;
use cygnet_ike::time::UtcTime;
use ipnet::Ipv4Net;

pub use crate::clock::is_about_clock;
use crate::clock::{Clock, LastKnown};
use crate::dns::resolv_conf;
use crate::error::StartError;
use crate::{keep_keys_in_memory, supervisor};

pub use supervisor::network::survey::{GUARD_OFF, Leg, Network, There, network};

/// A configuration that is good with all the files it names, and one line that sums it up.
///
/// # Errors
/// What `cygnet check` says of it.
pub fn configuration(path: &Path) -> Result<(Config, String), StartError> {
    keep_keys_in_memory();
    let loaded = supervisor::start::load(path)?;
    supervisor::network::check(&loaded.config)?;
    let base = path.parent().unwrap_or(Path::new("."));
    supervisor::dns::check(&loaded.config, base)?;
    supervisor::dhcp::check(&loaded)?;
    let summary = loaded.summary();
    Ok((loaded.config, summary))
}

/// A sentence for each interface of the LAN that is not there: it may be plugged in later, or be mistyped.
#[must_use]
pub fn lan_missing(config: &Config) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let missing = |runtime: tokio::runtime::Runtime| {
        runtime.block_on(supervisor::network::lan_missing(config))
    };
    runtime.map_or_else(
        |_| Vec::new(),
        |runtime| missing(runtime).into_values().collect(),
    )
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

/// Whom this machine asks for names; where that is systemd-resolved, whom that one asks.
///
/// # Errors
/// There is nobody: one sentence.
pub fn resolvers() -> Result<Vec<IpAddr>, String> {
    match resolv_conf::named() {
        Err(error) => Err(format!("cannot read {}: {error}", resolv_conf::PATH)),
        Ok(named) if named.is_empty() => Err(format!("{} names no resolver", resolv_conf::PATH)),
        Ok(named) => Ok(named),
    }
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

/// A resolver that is named where the configuration names none: on the internet, so that it is asked through the
/// tunnel.
pub const SOME_RESOLVER: &str = "9.9.9.9";

/// A range of addresses to lend in the network of this address of ours, without it and those of routers: as
/// `[gateway.dhcp]` has it; `None` where there is hardly room.
#[must_use]
pub fn suggested_range(own: Ipv4Net, routers: &[Ipv4Addr]) -> Option<String> {
    supervisor::dhcp::suggested(own, routers)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_refused_elsewhere_is_not_good_here() {
        let name = format!("cygnet-survey-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir_all(&place).unwrap();
        let psk = place.join("home.psk");
        fs::write(&psk, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).unwrap();
        let path = place.join("cygnet.toml");
        let text = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"home.psk\"\nvirtual_address = true\n\
                    [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n[gateway.dns]\nblock = \"gone.hosts\"\n";
        fs::write(&path, text).unwrap();
        let told = configuration(&path).map(|(_, summary)| summary);
        let _ = fs::remove_dir_all(&place);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("block list gone.hosts"), "{told}");
    }
}

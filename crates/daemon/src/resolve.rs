//! `cygnet resolve NAME`: the system's resolver in a process of its own.
//!
//! Answers of a name server are bytes from a network: the supervisor must not parse them, and
//! the engine has no files, so neither can ask. This process has nothing to lose; what it prints
//! is addresses, and the supervisor parses nothing else.

use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use cygnet_ike::policy::{Host, Policy};
use tokio::io::AsyncReadExt;

use crate::helper;

/// Addresses one name may have; more are ignored.
const ADDRESSES_MAX: usize = 16;
/// A name server that has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(8);

/// The process itself.
pub(crate) fn run(name: &str) -> u8 {
    let mut out = std::io::stdout();
    if let Err(error) = helper::shut() {
        let _ = writeln!(out, "! {error}");
        return 1;
    }
    match (name, 0u16).to_socket_addrs() {
        Ok(addresses) => {
            let mut all: Vec<IpAddr> = addresses.map(|a| a.ip()).collect();
            all.dedup();
            for address in all.into_iter().take(ADDRESSES_MAX) {
                if writeln!(out, "{address}").is_err() {
                    return 1;
                }
            }
            0
        }
        Err(error) => {
            let _ = writeln!(out, "! {error}");
            1
        }
    }
}

/// Whether some peer is to be called by this name.
pub(crate) fn is_configured(policy: &Policy, name: &str) -> bool {
    let named = Host::Name(name.to_owned());
    let servers = policy.connections.iter().flat_map(|c| c.remote.servers());
    servers.into_iter().any(|server| server.host == named)
}

/// Asks such a process, as that user and group.
pub(crate) async fn ask(name: &str, user: (u32, u32)) -> Result<Vec<IpAddr>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot resolve {name}: {e}");
    let mut child = helper::command("resolve", name, user)
        .spawn()
        .map_err(|e| failed(&e))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(failed(&"no pipe"));
    };
    let mut text = String::new();
    let mut bounded = stdout.take(4096);
    let read = tokio::time::timeout(PATIENCE, bounded.read_to_string(&mut text)).await;
    match read {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => return Err(failed(&e)),
        Err(_) => {
            return Err(failed(&format!(
                "no answer from the name servers within {} s",
                PATIENCE.as_secs()
            )));
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    if let Some(error) = text.lines().find_map(|l| l.strip_prefix("! ")) {
        return Err(failed(&error));
    }
    let addresses: Vec<IpAddr> = text.lines().filter_map(|l| l.parse().ok()).collect();
    if addresses.is_empty() {
        return Err(failed(&"the name has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cygnet_config::Config;

    #[test]
    fn only_names_of_the_configuration_are_resolved() {
        let text = "[tunnel.home]\nremote = [\"vpn.example.org\", \"192.0.2.1\"]\npsk = \"p\"\n\
                    [tunnel.branch]\nremote = \"any\"\nremote_identity = \"b.example.org\"\npsk = \"p\"\n";
        let config = Config::parse("test", text, &mut |_| Err("no files".to_owned())).unwrap();
        let configured = |name| is_configured(&config.policy, name);
        assert!(configured("vpn.example.org"));
        for name in ["192.0.2.1", "b.example.org", "example.org", "any", ""] {
            assert!(!configured(name), "{name}");
        }
    }
}

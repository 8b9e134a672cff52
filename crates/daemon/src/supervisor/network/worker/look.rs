//! What hinders: a guard that is not whole, interfaces that are not there, firewalls of others.

use std::collections::BTreeMap;

use cygnet_config::Config;
use cygnet_linux::Netlink;
use tokio::time::Instant;

use super::Worker;
use crate::api::Guard;
use crate::supervisor::network::firewalls;

/// The warning that devices are not closed in.
pub const GUARD_OFF: &str = "the guard is off or not whole: devices of the LAN may pass in clear; `cygnet gateway on` puts it back";

impl Worker {
    /// Looks once more where something hindered, for whoever asks may have set it right, and where the kernel has told
    /// of a change since: he may ask right behind it.
    pub(super) async fn look_again(&mut self) {
        let hindered = !self.warnings.is_empty() && !self.heard.has_just_looked();
        if self.heard.has_news().await || hindered {
            self.look().await;
        }
    }

    /// State of the guard, and what of foreign firewalls is in the way.
    pub(super) async fn look(&mut self) {
        let Some(config) = self.config.clone() else {
            return;
        };
        self.heard.looked();
        let mut warnings = Vec::new();
        self.guard = match self.guard_plan(&config, &self.machine) {
            Ok(Some(guard)) => {
                let state = self.network.guard_state(&guard).await;
                match state {
                    Ok(state) if state.is_whole() => Guard::On,
                    Ok(_) => {
                        warnings.push(GUARD_OFF.to_owned());
                        Guard::Missing
                    }
                    Err(error) => {
                        warnings.push(format!("cannot see whether the guard is there: {error}"));
                        Guard::Missing
                    }
                }
            }
            Ok(None) => {
                if self.guard_present().await.unwrap_or(false) {
                    warnings.push(
                        "the guard of an earlier configuration is in place: devices of the LAN are closed in; \
                         `cygnet gateway off` removes it"
                            .to_owned(),
                    );
                }
                Guard::NotConfigured
            }
            Err(error) => {
                warnings.push(error);
                Guard::NotConfigured
            }
        };
        if config.gateway.is_some() {
            warnings.extend(self.policies.problem().map(str::to_owned));
            warnings.extend(self.shared_macs());
            warnings.extend(self.without_tunnel());
            warnings.extend(self.held.troubles());
        }
        warnings.extend(
            lan_missing(&config, self.network.netlink())
                .await
                .into_values(),
        );
        warnings.extend(self.clashes.iter().cloned());
        warnings.extend(self.listeners.trouble.clone());
        warnings.extend(self.live.values().filter_map(|live| live.not_taken.clone()));
        for found in firewalls::blockages(&config, &self.machine) {
            match found {
                Ok(found) => warnings.extend(found.iter().map(ToString::to_string)),
                Err(error) => warnings.push(format!("cannot look at other firewalls: {error}")),
            }
        }
        for warning in warnings.iter().filter(|w| !self.warnings.contains(w)) {
            tracing::warn!("{warning}");
            self.warned = Some(Instant::now());
        }
        self.warnings = warnings;
    }
}

/// Interfaces of the LAN that are not there, each with a sentence: plugged in later, or mistyped. The guard waits for
/// them.
pub(in super::super) async fn lan_missing(
    config: &Config,
    netlink: &Netlink,
) -> BTreeMap<String, String> {
    let (Some(gateway), Ok(links)) = (&config.gateway, netlink.links().await) else {
        return BTreeMap::new();
    };
    let missing = gateway
        .lan
        .iter()
        .filter(|name| !links.iter().any(|link| link.name == **name));
    missing
        .map(|name| (name.clone(), self::missing(name)))
        .collect()
}

pub(in super::super) fn missing(interface: &str) -> String {
    format!(
        "[gateway] lan = \"{interface}\": there is no such interface (yet), so no device is served there; `ip link` shows \
         those there are"
    )
}

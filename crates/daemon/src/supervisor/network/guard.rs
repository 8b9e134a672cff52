//! `cygnet gateway on|off`: the guard by itself, before the network is up as a rule.
//!
//! What keeps `cygnet run` from starting, a broken line or a missing certificate, must not leave the LAN
//! open as well. So the guard reads no more than it needs, and where not even that can be read, what
//! was last in place is put back.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cygnet_config::{Config, Gateway, GuardSections, LanDevices, OwnTraffic, Through};
use cygnet_gateway::{Devices, GuardPlan};
use cygnet_linux::keep_file;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::machine::Machine;
use super::policies::Policies;
use crate::error::StartError;
use crate::supervisor::{control, start};

/// What `cygnet gateway on` did.
pub struct GuardOn {
    /// One line.
    pub message: String,
    /// What is wrong, several lines each.
    pub warnings: Vec<String>,
    /// Whether the guard is the one that the configuration asks for, as far as that can be told.
    pub as_configured: bool,
}

/// `cygnet gateway on`
pub(crate) fn guard_on(path: &Path) -> Result<GuardOn, StartError> {
    let found = Found::read(path)?;
    let policies = Policies::read(&found.sections.state_dir);
    let sections = with_policies(&found.sections, &policies);
    put_in_place(&sections).map_err(StartError::Refused)?;
    let kept = remember(&found.sections).err();
    let unknown = policies.problem().map(str::to_owned);
    let warnings: Vec<String> = (found.warning.into_iter())
        .chain(unknown)
        .chain(kept)
        .collect();
    Ok(GuardOn {
        message: format!(
            "the guard is on: {}",
            match sections
                .gateway
                .is_some_and(|gateway| gateway.devices.lets_out())
            {
                false => "devices of the LAN leave through the tunnel or not at all",
                true =>
                    "devices of the LAN leave through the tunnel or not at all, but for what is to go direct",
            }
        ),
        warnings,
        as_configured: found.as_configured && policies.problem().is_none(),
    })
}

/// The guard that was in place before something was tried and taken back: the one that is configured, or, where none is
/// any more, the last that was.
pub(crate) fn guard_as_before(path: &Path) -> Result<(), StartError> {
    let configured = start::public(path).map(|(config, _)| GuardSections::from(&config));
    match configured {
        Ok(sections) if !wants_guard(&sections) => {
            let last = recall(&sections.state_dir).ok_or_else(|| {
                StartError::refused(
                    "no gateway is configured, and no earlier guard is known; `cygnet gateway off` takes away what there is",
                )
            })?;
            let policies = Policies::read(&sections.state_dir);
            put_in_place(&with_policies(&last.sections(sections), &policies))
                .map_err(StartError::Refused)
        }
        _ => guard_on(path).map(drop),
    }
}

/// With what was ordered of devices.
fn with_policies(sections: &GuardSections, policies: &Policies) -> GuardSections {
    let mut sections = sections.clone();
    if let Some(gateway) = &mut sections.gateway {
        policies.applied(gateway);
    }
    sections
}

/// `cygnet gateway off`
pub(crate) fn guard_off(path: &Path) -> Result<String, StartError> {
    // It must be possible to open the guard with a configuration that is broken.
    let (sections, _) = GuardSections::read(&start::text(path).unwrap_or_default());
    on_a_runtime(&sections.run_dir, |mut network| async move {
        network.remove_guard().await.map_err(|e| e.to_string())
    })
    .map_err(StartError::Refused)?;
    // The next `gateway on` is not to put back what was taken away on purpose.
    forget(&sections).map_err(StartError::Refused)?;
    Ok("the guard is off: devices of the LAN may pass in clear".to_owned())
}

/// Takes back what a run left that ended by SIGKILL, unless one runs now.
pub(crate) fn clear_leftovers(path: &Path) -> Result<(), StartError> {
    let (sections, _) = GuardSections::read(&start::text(path).unwrap_or_default());
    let run_dir = Path::new(&sections.run_dir);
    if !run_dir.is_dir() {
        return Ok(());
    }
    let _lock = control::lock(run_dir).map_err(StartError::Refused)?;
    on_a_runtime(&sections.run_dir, |mut network| async move {
        network.remove().await.map_err(|e| e.to_string())
    })
    .map_err(StartError::Refused)
}

/// Which guard is to be in place.
struct Found {
    sections: GuardSections,
    warning: Option<String>,
    as_configured: bool,
}

impl Found {
    fn read(path: &Path) -> Result<Self, StartError> {
        let (error, read) = match (start::public(path), start::text(path)) {
            (Ok((config, _)), _) => {
                let sections = GuardSections::from(&config);
                return if wants_guard(&sections) {
                    Ok(Self {
                        sections,
                        warning: None,
                        as_configured: true,
                    })
                } else {
                    Err(StartError::refused(
                        "no gateway is configured, or its guard is off: nothing to put in place; \
                         `cygnet gateway setup` writes a [gateway] section",
                    ))
                };
            }
            (Err(error), Ok(text)) => (error, GuardSections::read(&text)),
            (Err(error), Err(_)) => (error, GuardSections::read("")),
        };
        let (sections, whole) = read;
        if whole && wants_guard(&sections) {
            return Ok(Self {
                warning: Some(format!(
                    "{error}\nthe configuration is broken, and `cygnet run` will refuse it; the guard needs \
                     its [gateway] section alone, and that is readable"
                )),
                sections,
                as_configured: true,
            });
        }
        if whole && sections.gateway.as_ref().is_some_and(|g| !g.guard) {
            return Err(error);
        }
        let (sections, which) = match recall(&sections.state_dir) {
            Some(last) => (last.sections(sections), "put back what was last in place"),
            None if wants_guard(&sections) => (sections, "took from it what can be read"),
            None => {
                return Err(StartError::refused(format_args!(
                    "{error}\nno guard is in place: the configuration is unreadable and no earlier guard is \
                     known, so devices of the LAN may pass in clear; mend it, then `cygnet gateway on`"
                )));
            }
        };
        Ok(Self {
            warning: Some(format!(
                "{error}\nthe configuration is unreadable: {which}, which may not be what it asks for; mend \
                 it, then `cygnet gateway on`"
            )),
            sections,
            as_configured: false,
        })
    }
}

fn wants_guard(sections: &GuardSections) -> bool {
    let gateway = sections.gateway.as_ref();
    gateway.is_some_and(|gateway| gateway.guard && !gateway.lan.is_empty())
}

fn put_in_place(sections: &GuardSections) -> Result<(), String> {
    on_a_runtime(&sections.run_dir, |mut network| async move {
        let ours: Vec<&str> = sections.interfaces.iter().map(String::as_str).collect();
        let look = Machine::look(network.netlink(), &ours)
            .await
            .unwrap_or_default();
        let inputs =
            inputs::guard(sections, &look.machine)?.ok_or("there is no guard to put in place")?;
        network
            .apply_guard(&GuardPlan::new(&inputs))
            .await
            .map_err(|e| e.to_string())
    })
}

fn on_a_runtime<T, F>(
    run_dir: &str,
    work: impl FnOnce(cygnet_linux::Network) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(async {
        let network = cygnet_linux::Network::open(Path::new(run_dir)).map_err(|e| e.to_string())?;
        work(network).await
    })
}

/// The guard that was last in place, as its file holds it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    lan: Vec<String>,
    networks: Option<Vec<ipnet::IpNet>>,
    ways_out: Vec<String>,
    #[serde(default)]
    interfaces: Vec<String>,
    #[serde(default)]
    sites: Vec<ipnet::IpNet>,
    #[serde(default)]
    between: Vec<ipnet::IpNet>,
    #[serde(default)]
    local: Vec<ipnet::IpNet>,
    #[serde(default)]
    devices: Devices,
    #[serde(default)]
    direct_networks: Vec<ipnet::IpNet>,
    #[serde(default)]
    direct_domains: Vec<String>,
    #[serde(default)]
    inside: Vec<String>,
    #[serde(default)]
    through: BTreeMap<String, Through>,
    #[serde(default)]
    own_traffic: OwnTraffic,
    #[serde(default)]
    engine_user: Option<String>,
}

impl Last {
    fn of(sections: &GuardSections) -> Option<Self> {
        let gateway = sections.gateway.as_ref()?;
        Some(Self {
            lan: gateway.lan.clone(),
            networks: gateway.networks.clone(),
            ways_out: sections.ways_out.clone(),
            interfaces: sections.interfaces.clone(),
            sites: sections.sites.clone(),
            between: sections.between.clone(),
            local: sections.local.clone(),
            devices: gateway.devices.policies.clone(),
            direct_networks: gateway.devices.direct_networks.clone(),
            direct_domains: gateway.devices.direct_domains.clone(),
            inside: sections.inside.clone(),
            through: gateway.devices.through.clone(),
            own_traffic: gateway.own_traffic,
            engine_user: sections.engine_user.clone(),
        })
    }

    /// Without the names, which nobody needs who does not ask, and without what becomes of devices while the tunnel is
    /// down, which is for who runs.
    pub(super) fn devices(&self) -> LanDevices {
        LanDevices {
            policies: self.devices.clone(),
            direct_networks: self.direct_networks.clone(),
            direct_domains: self.direct_domains.clone(),
            through: self.through.clone(),
            ..LanDevices::default()
        }
    }

    /// This guard, and for the rest what `present` says.
    fn sections(self, present: GuardSections) -> GuardSections {
        let mut interfaces = self.interfaces.clone();
        interfaces.extend(self.ways_out.iter().cloned());
        interfaces.sort();
        interfaces.dedup();
        GuardSections {
            interfaces,
            sites: self.sites.clone(),
            between: self.between.clone(),
            local: self.local.clone(),
            inside: self.inside.clone(),
            engine_user: self.engine_user.clone(),
            gateway: Some(Gateway {
                devices: self.devices(),
                tunnel: String::new(),
                lan: self.lan,
                networks: self.networks,
                guard: true,
                own_traffic: self.own_traffic,
                dns: None,
                dhcp: None,
                advertise: None,
            }),
            ways_out: self.ways_out,
            ..present
        }
    }
}

fn file(state_dir: &str) -> PathBuf {
    Path::new(state_dir).join("guard.json")
}

/// Keeps the guard for a start at which the configuration cannot be read.
pub(super) fn remember(sections: &GuardSections) -> Result<(), String> {
    let Some(last) = Last::of(sections) else {
        return Ok(());
    };
    if recall(&sections.state_dir).as_ref() == Some(&last) {
        return Ok(());
    }
    let path = file(&sections.state_dir);
    let failed = |e: &dyn std::fmt::Display| {
        format!(
            "cannot keep the guard in {}: {e}; if the configuration is unreadable at the next start, there is none",
            path.display()
        )
    };
    let text = serde_json::to_vec(&last).map_err(|e| failed(&e))?;
    keep_file(&path, &text).map_err(|e| failed(&e))
}

/// As [`remember`], of a configuration that is good.
pub(super) fn remember_of(config: &Config) {
    if let Err(error) = remember(&config.into()) {
        tracing::warn!("{error}");
    }
}

/// What was kept, unless somebody else could have written it.
pub(super) fn recall(state_dir: &str) -> Option<Last> {
    let path = file(state_dir);
    let metadata = std::fs::symlink_metadata(&path).ok()?;
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return None;
    }
    serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
}

fn forget(sections: &GuardSections) -> Result<(), String> {
    let path = file(&sections.state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "[gateway]\ntunnel = \"home\"\nlan = \"eth7\"\nnetworks = [\"10.1.0.0/24\"]\n\
        direct = \"02:00:00:00:00:01\"\ndirect_networks = [\"198.51.100.0/24\"]\n";
    const TUNNEL: &str =
        "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";

    /// A directory with a configuration.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cygnet-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn find(&self, text: &str) -> Result<Found, StartError> {
            let path = self.0.join("cygnet.toml");
            let state = self.0.join("state");
            let daemon = format!("[daemon]\nstate_dir = \"{}\"\n", state.display());
            std::fs::write(&path, format!("{daemon}{text}")).unwrap();
            Found::read(&path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn lan(found: &Found) -> Vec<String> {
        found.sections.gateway.as_ref().unwrap().lan.clone()
    }

    #[test]
    fn what_is_broken_elsewhere_does_not_keep_the_guard_away() {
        let place = Place::new("guard-elsewhere");
        let good = place.find(&format!("{TUNNEL}{GATEWAY}")).unwrap();
        assert!(good.warning.is_none() && good.as_configured);
        let missing = TUNNEL.replace(
            "psk = \"k\"",
            "certificate = \"gone.crt\"\nkey = \"k\"\nca = \"c\"",
        );
        for broken in [missing, format!("{TUNNEL}typo = 1\n")] {
            let found = place.find(&format!("{broken}{GATEWAY}")).unwrap();
            assert!(found.as_configured);
            assert!(found.warning.unwrap().contains("the guard needs"));
            assert_eq!(found.sections.gateway, good.sections.gateway);
            assert_eq!(found.sections.ways_out, ["cyg-home"]);
        }
    }

    #[test]
    fn an_unreadable_configuration_gets_the_last_guard_until_it_is_taken_away() {
        let place = Place::new("guard-last");
        let unreadable = format!("{TUNNEL}{GATEWAY}").replace("lan = \"eth7\"", "lan = \"eth");
        let part = place.find(&unreadable).unwrap();
        assert!(!part.as_configured && part.warning.unwrap().contains("what can be read"));
        let open = part.sections.gateway.unwrap().devices;
        assert_eq!(
            open,
            LanDevices::default(),
            "nobody goes direct by half a text"
        );
        let gone = place.find("[[[");
        assert!(gone.is_err_and(|e| e.to_string().contains("may pass in clear")));

        let good = place.find(&format!("{TUNNEL}{GATEWAY}")).unwrap();
        remember(&good.sections).unwrap();
        let mode = std::fs::metadata(file(&good.sections.state_dir))
            .unwrap()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        for text in [unreadable.as_str(), "[[[", ""] {
            let found = place.find(text);
            if text.is_empty() {
                // It is readable, and asks for no guard.
                assert!(found.is_err());
                continue;
            }
            let found = found.unwrap();
            assert!(!found.as_configured);
            assert!(found.warning.as_ref().unwrap().contains("last in place"));
            assert_eq!(lan(&found), ["eth7"]);
            assert_eq!(found.sections.ways_out, ["cyg-home"]);
            let devices = &found.sections.gateway.unwrap().devices;
            assert_eq!(*devices, good.sections.gateway.as_ref().unwrap().devices);
        }
        // The section's name is mistyped: that is no wish for an open LAN.
        let found = place.find(&format!("{TUNNEL}{GATEWAY}").replace("[gateway]", "[gatway]"));
        assert_eq!(lan(&found.unwrap()), ["eth7"]);
        forget(&good.sections).unwrap();
        assert!(place.find("[[[").is_err());
    }

    #[test]
    fn what_the_last_guard_closed_is_closed_again() {
        let place = Place::new("guard-closed");
        let site = "[tunnel.site]\nremote = \"203.0.113.6\"\npsk = \"k\"\n\
            local_networks = [\"10.1.0.0/24\"]\nremote_networks = [\"10.2.0.0/24\"]\n";
        let work = TUNNEL.replace("[tunnel.home]", "[tunnel.work]");
        let good = place.find(&format!("{TUNNEL}{site}{work}{GATEWAY}"));
        let good = good.unwrap().sections;
        assert_eq!(good.sites, ["10.2.0.0/24".parse().unwrap()]);
        remember(&good).unwrap();
        let last = place.find("[[[").unwrap().sections;
        let closed = |sections: &GuardSections| {
            let inputs = inputs::guard(sections, &Machine::default());
            let inputs = inputs.unwrap().unwrap();
            (inputs.closed, inputs.sites, inputs.local)
        };
        assert_eq!(closed(&last), closed(&good));
        assert_eq!(closed(&last).0[0].as_str(), "cyg-work");
    }

    #[test]
    fn who_went_through_another_tunnel_by_the_last_guard_does_so_again() {
        let place = Place::new("guard-through");
        let work = TUNNEL.replace("[tunnel.home]", "[tunnel.work]");
        let through = "on_failure = \"direct\"\n[gateway.through.work]\ndevices = \"192.168.1.7\"\n\
            networks = \"10.20.0.0/16\"\n";
        let good = place.find(&format!("{TUNNEL}{work}{GATEWAY}{through}"));
        let good = good.unwrap().sections;
        remember(&good).unwrap();
        let last = place.find("[[[").unwrap().sections;
        let lan = |sections: &GuardSections| {
            let inputs = inputs::guard(sections, &Machine::default());
            let inputs = inputs.unwrap().unwrap();
            (inputs.lan.through, inputs.lan.devices, inputs.closed)
        };
        assert_eq!(lan(&last), lan(&good));
        assert_eq!(lan(&last).0[0].interface.as_str(), "cyg-work");
        assert!(!last.gateway.unwrap().devices.direct_on_failure);
    }

    #[test]
    fn a_guard_of_before_there_were_devices_is_one_of_tunnelled_devices() {
        let text = r#"{"lan":["eth7"],"networks":null,"ways_out":["cyg-home"]}"#;
        let last: Last = serde_json::from_str(text).unwrap();
        assert_eq!(last.devices(), LanDevices::default());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new("guard-others");
        let good = place.find(&format!("{TUNNEL}{GATEWAY}")).unwrap();
        remember(&good.sections).unwrap();
        let path = file(&good.sections.state_dir);
        assert!(recall(&good.sections.state_dir).is_some());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(recall(&good.sections.state_dir).is_none());
    }
}

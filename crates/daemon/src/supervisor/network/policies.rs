//! Policies of devices that were given by command: they stand beside those of the configuration, win where both
//! name a device, and outlive restarts.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cygnet_config::Gateway;
use cygnet_gateway::{Device, DevicePolicy};
use cygnet_linux::keep_file;
use serde::{Deserialize, Serialize};

/// The one version of the file there is.
const VERSION: u64 = 1;
/// No household has more devices; whoever may give orders might have a loop that does not end.
const MOST: usize = 1024;
/// What so many take, and more.
const FILE_MAX: u64 = 256 << 10;

/// What was given, to each its policy; with its tunnel where that is another than the gateway's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Given {
    policies: BTreeMap<Device, DevicePolicy>,
    through: BTreeMap<Device, String>,
}

/// A policy that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) policy: DevicePolicy,
    /// Of what is tunnelled, by which tunnel; `None`: the gateway's.
    pub(super) through: Option<String>,
}

/// What was given, or why it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policies {
    path: PathBuf,
    given: Result<Given, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    policies: BTreeMap<Device, DevicePolicy>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    through: BTreeMap<Device, String>,
}

impl File {
    fn given(self) -> Given {
        Given {
            policies: self.policies,
            through: self.through,
        }
    }
}

/// Which version a file is, whatever else it holds.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            given: Ok(Given::default()),
        }
    }
}

impl Policies {
    /// Reads the file. One that cannot be read stays as it is.
    pub(super) fn read(state_dir: &str) -> Self {
        let path = Path::new(state_dir).join("devices.json");
        let given = read(&path).map_err(|why| {
            let path = path.display();
            format!(
                "{path}: {why}; so no device goes direct, and `cygnet device` changes nothing: mend the file, or \
                 remove it, which forgets what was set by command, then `cygnet reload`"
            )
        });
        Self { path, given }
    }

    /// Why it is not known what was given.
    pub(super) fn problem(&self) -> Option<&str> {
        self.given.as_ref().err().map(String::as_str)
    }

    /// Whether a device was given a policy.
    pub(super) fn has(&self, device: &Device) -> bool {
        self.given
            .as_ref()
            .is_ok_and(|given| given.policies.contains_key(device))
    }

    /// The devices that were given one.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.given.iter().flat_map(|given| given.policies.keys())
    }

    /// What counts where a configuration says this. If it is not known what was given, nobody goes direct, and
    /// nothing does: who does by the configuration may have been told otherwise.
    pub(super) fn applied(&self, gateway: &mut Gateway) {
        let devices = &mut gateway.devices;
        match &self.given {
            Ok(given) => {
                for (device, policy) in &given.policies {
                    let through = given.through.get(device).cloned();
                    devices.policies.give(*device, *policy, through);
                }
            }
            Err(_) => *devices = std::mem::take(devices).closed(),
        }
    }

    /// Gives each of these devices a policy, or takes away the one it was given, and keeps that. What was given to
    /// `superseded`, which are other names of theirs, is taken away. On an error all stays as it was.
    pub(super) fn give(
        &mut self,
        devices: &[Device],
        superseded: &[Device],
        order: Option<&Order>,
    ) -> Result<(), String> {
        let Given {
            mut policies,
            mut through,
        } = self.given.clone()?;
        for device in devices.iter().chain(superseded) {
            policies.remove(device);
            through.remove(device);
        }
        if let Some(order) = order {
            for device in devices {
                policies.insert(*device, order.policy);
                let tunnel = order.through.iter().cloned();
                through.extend(tunnel.map(|tunnel| (*device, tunnel)));
            }
        }
        if policies.len() > MOST {
            return Err(format!(
                "{MOST} devices have a policy by command, and more are not kept: `cygnet device forget` those \
                 that are gone, or write a network or `default` in the configuration"
            ));
        }
        let failed = |e: &dyn std::fmt::Display| {
            format!(
                "cannot keep that in {}: {e}; nothing was changed",
                self.path.display()
            )
        };
        let file = File {
            version: VERSION,
            policies,
            through,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|e| failed(&e))?;
        keep_file(&self.path, &text).map_err(|e| failed(&e))?;
        self.given = Ok(file.given());
        Ok(())
    }
}

fn read(path: &Path) -> Result<Given, String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Given::default()),
        other => other.map_err(|e| e.to_string())?,
    };
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err("expected a regular file that root alone may write".to_owned());
    }
    if metadata.len() > FILE_MAX {
        return Err(format!("expected at most {FILE_MAX} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let Version { version } = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    if version != VERSION {
        return Err(format!(
            "version {version}, expected {VERSION}: another version of cygnet wrote it"
        ));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    Ok(file.given())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cygnet_config::Config;

    use super::*;

    const CONFIG: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
        [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndefault = \"direct\"\n\
        direct = \"02:00:00:00:00:01\"\nblocked = \"02:00:00:00:00:02\"\n\
        direct_networks = [\"198.51.100.0/24\"]\n";

    fn gateway() -> Gateway {
        let config = Config::parse("t", CONFIG, &mut |p| Err(format!("no {p}")));
        config.unwrap().gateway.unwrap()
    }

    fn order(policy: DevicePolicy) -> Order {
        Order {
            policy,
            through: None,
        }
    }

    /// A state directory.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("cygnet-{name}-{}", std::process::id())))
        }

        fn read(&self) -> Policies {
            Policies::read(&self.0.to_string_lossy())
        }

        fn write(&self, text: &str) {
            std::fs::create_dir_all(&self.0).unwrap();
            let path = self.0.join("devices.json");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_given_wins_and_is_there_again_after_a_restart() {
        let place = Place::new("policies");
        let [first, third]: [Device; 2] =
            ["02:00:00:00:00:01", "fd00::9"].map(|d| d.parse().unwrap());
        let mut policies = place.read();
        assert_eq!(policies.problem(), None);
        policies
            .give(&[first, third], &[], Some(&order(DevicePolicy::Blocked)))
            .unwrap();
        policies
            .give(&[third], &[], Some(&order(DevicePolicy::Tunnelled)))
            .unwrap();
        assert_eq!(place.read(), policies);
        let mut effective = gateway();
        policies.applied(&mut effective);
        let named = &effective.devices.policies.named;
        assert_eq!(named[&first], DevicePolicy::Blocked);
        assert_eq!(named[&third], DevicePolicy::Tunnelled);
        assert_eq!(named.len(), 3);
        policies
            .give(&[first], &[third], Some(&order(DevicePolicy::Direct)))
            .unwrap();
        assert!(place.read().has(&first) && !place.read().has(&third));
        policies.give(&[first, third], &[], None).unwrap();
        let mut effective = gateway();
        place.read().applied(&mut effective);
        assert_eq!(effective, gateway());
    }

    #[test]
    fn a_tunnel_is_kept_with_the_policy_until_another_is_given() {
        let place = Place::new("policies-through");
        let device: Device = "02:00:00:00:00:01".parse().unwrap();
        let mut policies = place.read();
        let work = Order {
            policy: DevicePolicy::Tunnelled,
            through: Some("work".to_owned()),
        };
        let through = |policies: &Policies| {
            let mut effective = gateway();
            policies.applied(&mut effective);
            let policies = &effective.devices.policies;
            (
                policies.named[&device],
                policies.through(Some(&device)).map(str::to_owned),
            )
        };
        policies.give(&[device], &[], Some(&work)).unwrap();
        let given = (DevicePolicy::Tunnelled, Some("work".to_owned()));
        assert_eq!(through(&place.read()), given);
        let tunnelled = order(DevicePolicy::Tunnelled);
        policies.give(&[device], &[], Some(&tunnelled)).unwrap();
        assert_eq!(through(&place.read()), (DevicePolicy::Tunnelled, None));
        let kept = std::fs::read_to_string(place.0.join("devices.json")).unwrap();
        assert!(!kept.contains("through"), "{kept}");
        policies.give(&[device], &[], Some(&work)).unwrap();
        policies.give(&[device], &[], None).unwrap();
        assert_eq!(through(&place.read()), (DevicePolicy::Direct, None));
    }

    #[test]
    fn a_file_that_is_not_understood_closes_and_is_not_lost() {
        let place = Place::new("policies-broken");
        for (text, told) in [
            ("{", "EOF"),
            (
                "{\"version\":2,\"policies\":{},\"more\":1}",
                "version 2, expected 1",
            ),
            (
                "{\"version\":1,\"policies\":{\"tv\":\"direct\"}}",
                "is no device",
            ),
            (
                "{\"version\":1,\"policies\":{\"fd00::9\":\"open\"}}",
                "unknown variant",
            ),
            ("{\"version\":1}", "policies"),
        ] {
            place.write(text);
            let mut policies = place.read();
            let problem = policies.problem().unwrap().to_owned();
            assert!(problem.contains(told), "{problem}");
            assert!(problem.contains("devices.json: "), "{problem}");
            let mut effective = gateway();
            policies.applied(&mut effective);
            assert!(effective.devices.direct_networks.is_empty());
            let devices = effective.devices.policies;
            assert_eq!(devices.default, DevicePolicy::Tunnelled);
            assert_eq!(devices.named.len(), 1, "who is blocked");
            let device = "fd00::9".parse().unwrap();
            let refused = policies.give(&[device], &[], Some(&order(DevicePolicy::Direct)));
            assert_eq!(refused, Err(problem));
            let kept = std::fs::read_to_string(place.0.join("devices.json"));
            assert_eq!(kept.unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_believed() {
        let place = Place::new("policies-others");
        place.write("{\"version\":1,\"policies\":{\"fd00::9\":\"direct\"}}");
        assert_eq!(place.read().problem(), None);
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(place.0.join("devices.json"), mode).unwrap();
        assert!(
            place
                .read()
                .problem()
                .unwrap()
                .contains("root alone may write")
        );
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let place = Place::new("policies-many");
        let device = |n: usize| format!("10.1.{}.{}", n / 256, n % 256).parse().unwrap();
        let all: Vec<Device> = (0..=MOST).map(device).collect();
        let mut policies = place.read();
        policies
            .give(&all[..MOST], &[], Some(&order(DevicePolicy::Direct)))
            .unwrap();
        let refused = policies.give(&all[MOST..], &[], Some(&order(DevicePolicy::Direct)));
        assert!(refused.unwrap_err().contains("cygnet device forget"));
        assert_eq!(place.read().devices().count(), MOST);
        let bytes = std::fs::metadata(place.0.join("devices.json"))
            .unwrap()
            .len();
        assert!(bytes * 2 < FILE_MAX, "{bytes}");
    }
}

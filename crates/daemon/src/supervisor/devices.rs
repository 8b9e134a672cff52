//! Who a peer of the server is to people: the user and the device that its certificate was made for.

use cygnet_config::{Device, SERVER};

use crate::api::{EngineStatus, LeaseStatus};

/// The device of this identity, as `status` writes it: the e-mail address in its certificate, or, as
/// Windows has it, the certificate's subject, which is what stands before the `@`. Today's names of the user and
/// the device may be those of another certificate, after one was renamed.
fn device<'a>(devices: &'a [Device], identity: &str) -> Option<&'a Device> {
    devices.iter().find(|device| {
        let (kind, name) = identity.split_once('=').unwrap_or(("", identity));
        let certified = device.identity.split_once('@').map(|(name, _)| name);
        device.identity.eq_ignore_ascii_case(identity)
            || kind.eq_ignore_ascii_case("CN") && certified == Some(name)
    })
}

/// Writes beside the identities whose devices they are.
pub(super) fn name(
    devices: &[Device],
    engine: Option<&mut EngineStatus>,
    leases: &mut [LeaseStatus],
) {
    let split = |device: Option<&Device>| match device {
        Some(device) => (Some(device.user.clone()), Some(device.device.clone())),
        None => (None, None),
    };
    let connections = engine
        .into_iter()
        .flat_map(|engine| &mut engine.connections);
    let clients = connections.filter(|connection| connection.name == SERVER);
    for sa in clients.flat_map(|connection| &mut connection.ike_sas) {
        let found = sa.peer.as_ref().and_then(|peer| device(devices, peer));
        (sa.user, sa.device) = split(found);
    }
    for lease in leases {
        (lease.user, lease.device) = split(device(devices, &lease.identity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_each_name_in_its_certificate() {
        let devices =
            [("alice", "iphone"), ("alice", "laptop"), ("bob", "iphone")].map(|(user, device)| {
                Device {
                    user: user.to_owned(),
                    device: device.to_owned(),
                    serial: "01".to_owned(),
                    identity: format!("{user}.{device}@1a2b3c4d.cygnet.internal"),
                    not_after: 0,
                }
            });
        // The laptop was renamed since its certificate was made, and another got its name.
        let mut devices = devices.to_vec();
        devices[1].device = "old".to_owned();
        devices.push(Device {
            device: "laptop".to_owned(),
            identity: "alice.laptop-2@1a2b3c4d.cygnet.internal".to_owned(),
            ..devices[1].clone()
        });
        let known =
            |identity: &str| device(&devices, identity).map(|d| format!("{} {}", d.user, d.device));
        for identity in [
            "alice.laptop@1a2b3c4d.cygnet.internal",
            "alice.laptop@1A2B3C4D.Cygnet.Internal",
            "CN=alice.laptop",
            // As leases have it.
            "cn=alice.laptop",
        ] {
            assert_eq!(known(identity).as_deref(), Some("alice old"), "{identity}");
        }
        for identity in [
            "alice.laptop",
            "alice.laptop@other",
            "CN=alice",
            "CN=alice.laptop, O=x",
            "",
        ] {
            assert_eq!(known(identity), None, "{identity}");
        }
    }
}

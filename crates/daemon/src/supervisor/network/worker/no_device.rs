//! Addresses that a person may name as a device's, and that are none's of this LAN: this machine's, its router's, and
//! places in the internet that are to be reached in clear, which is said elsewhere.

use std::net::IpAddr;

use axum::http::StatusCode;
use cygnet_gateway::{Device, DevicePolicy, Family, is_link_local, overlap};
use ipnet::IpNet;

use super::Worker;
use crate::supervisor::control::Refusal;
use crate::supervisor::network::machine::Machine;

impl Worker {
    /// Refuses what is no device. Those that the configuration names, those of which something is said already, and those
    /// that were seen, are taken as they are.
    pub(super) fn may_be_devices(
        &self,
        text: &str,
        devices: &[Device],
        policy: DevicePolicy,
    ) -> Result<(), Refusal> {
        let config = self.config.as_ref().and_then(|it| it.gateway.as_ref());
        let Some(gateway) = config.filter(|it| !it.devices.names.contains_key(text)) else {
            return Ok(());
        };
        let Some(lan) = self.lan() else { return Ok(()) };
        let of_legs = self.machine.addresses.iter();
        let of_legs = of_legs.filter(|(interface, _)| gateway.lan.contains(interface));
        let mut networks = lan.networks;
        networks.extend(of_legs.map(|(_, net)| net.trunc()));
        networks.sort();
        networks.dedup();
        for device in devices {
            if let Device::Network(net) = device
                && !gateway.devices.policies.named.contains_key(device)
                && let Some(why) = why_not(net, policy, &networks, &self.machine)
            {
                return Err(Refusal::new(StatusCode::CONFLICT, why));
            }
        }
        Ok(())
    }
}

/// Why what has this address, or is in this network, is no device. `networks`: the LAN's, as far as they are known.
fn why_not(
    net: &IpNet,
    policy: DevicePolicy,
    networks: &[IpNet],
    machine: &Machine,
) -> Option<String> {
    let one = (net.prefix_len() == net.max_prefix_len()).then(|| net.addr());
    let is_own = |address: &IpAddr| {
        machine
            .addresses
            .iter()
            .any(|(_, it)| it.addr() == *address)
    };
    if let Some(address) = one.filter(is_own) {
        return Some(format!(
            "{address} is this machine itself, which is no device of its LAN; what it may send itself, `own_traffic` in \
             [gateway] says"
        ));
    }
    // A device on another link may have the router's link-local address.
    let is_near = is_link_local(net.addr());
    if let Some(address) = one.filter(|it| machine.routers.contains(it) && !is_near) {
        return Some(format!(
            "{address} is the router that this machine goes out by: it is no device, and what it sends itself never comes \
             by here"
        ));
    }
    // What is closed in, or out, may be behind a router of the LAN; nobody is let out by mistake so.
    if policy != DevicePolicy::Direct || is_near {
        return None;
    }
    // A device has addresses of a family that nothing here tells of.
    let family = Family::of_net(*net);
    let known = networks.iter().filter(|it| Family::of_net(**it) == family);
    let known: Vec<&IpNet> = known.collect();
    if known.is_empty() || known.iter().any(|it| overlap(it, net)) {
        return None;
    }
    let list: Vec<String> = known.iter().map(ToString::to_string).collect();
    Some(format!(
        "{} is in no network of the LAN ({}), so it is no device that is known here: a place that devices are to reach beside \
         the tunnel belongs into `direct_networks` of [gateway], then `cygnet reload`; if it is a device (behind a router of \
         the LAN, or by another prefix of IPv6), name its network in `networks` of [gateway], or its MAC address here",
        Device::Network(*net),
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().unwrap(),
        }
    }

    fn told(device: &str, policy: DevicePolicy, networks: &[&str]) -> Option<String> {
        let machine = Machine {
            addresses: vec![("eth0".into(), "192.168.1.2/24".parse().unwrap())],
            routers: vec!["192.168.1.1".parse().unwrap()],
            ..Machine::default()
        };
        let networks: Vec<IpNet> = networks.iter().map(|it| net(it)).collect();
        why_not(&net(device), policy, &networks, &machine)
    }

    #[test]
    fn what_is_no_device_is_told_with_what_to_do() {
        const LAN: &[&str] = &["192.168.1.0/24"];
        for (device, policy, expected) in [
            (
                "8.8.8.8",
                DevicePolicy::Direct,
                "8.8.8.8 is in no network of the LAN (192.168.1.0/24), so it is no device that is known here: a place that \
                 devices are to reach beside the tunnel belongs into `direct_networks`",
            ),
            (
                "10.1.0.0/24",
                DevicePolicy::Direct,
                "name its network in `networks`",
            ),
            ("192.168.1.2", DevicePolicy::Blocked, "this machine itself"),
            ("192.168.1.1", DevicePolicy::Direct, "is the router"),
        ] {
            let told = told(device, policy, LAN).unwrap();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn what_may_be_a_device_is_taken() {
        for (device, networks) in [
            ("192.168.1.77", &["192.168.1.0/24"][..]),
            ("192.168.1.64/26", &["192.168.1.0/24"]),
            ("192.168.0.0/16", &["192.168.1.0/24"]),
            // Behind a router of the LAN.
            ("10.1.0.9", &["192.168.1.0/24", "10.1.0.0/16"]),
            // Of a family of which nothing is known, or nothing at all is.
            ("2001:db8::9", &["192.168.1.0/24"]),
            ("fe80::9", &["192.168.1.0/24", "2001:db8::/64"]),
            ("8.8.8.8", &[]),
        ] {
            assert_eq!(
                told(device, DevicePolicy::Direct, networks),
                None,
                "{device}"
            );
        }
        let closed_in = told("10.1.0.9", DevicePolicy::Blocked, &["192.168.1.0/24"]);
        assert_eq!(closed_in, None);
    }
}

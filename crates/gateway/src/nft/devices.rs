//! Devices of the LAN in both tables: marked before their route is looked up, and filtered where they are
//! forwarded. Either goes by the packet alone, so that neither trusts the other.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Chain, direct_names, names, per_family, set};
use crate::devices::{Device, DevicePolicy, Devices, Mac};
use crate::guard::GuardInputs;
use crate::inputs::{InterfaceName, Lan};
use crate::plan::Family;
use crate::{DIRECT_MARK, TUNNELLED_MARK};

/// Chains that mark what comes in from the LAN for elsewhere, by where it may go; nothing where all of it is
/// tunnelled. They take away what mark it had. What comes back gets the same mark: the reverse-path filter asks
/// for the way that an answer to it would have, with its mark (`src_valid_mark`). A connection is marked as direct by
/// its first packet alone: by what address it is known outside is decided then, and never again.
pub(super) fn marks(lan: &Lan, tunnels: &[&InterfaceName], hook: &'static str) -> Vec<Chain> {
    if !lan.sorts() {
        return Vec::new();
    }
    let tunnelled_mark = format!("meta mark set {TUNNELLED_MARK:#010x}");
    let mut incoming = vec![format!(
        "iifname {} jump mark_devices",
        names(&lan.interfaces)
    )];
    if !tunnels.is_empty() {
        let tunnels = names(tunnels.iter().copied());
        incoming.push(format!("iifname {tunnels} {tunnelled_mark}"));
    }
    // To this machine alone, which translated it: no device sends that.
    incoming.push(format!(
        "fib daddr type local ct direction reply ct mark {DIRECT_MARK:#010x} meta mark set {DIRECT_MARK:#010x}"
    ));
    let mut devices = vec!["meta mark set 0".to_owned()];
    devices.extend(per_family(&lan.networks, |keyword, nets| {
        format!("{keyword} daddr {nets} return")
    }));
    devices.extend(sorted(&lan.devices, |policy| match policy {
        DevicePolicy::Tunnelled => "goto mark_tunnelled",
        DevicePolicy::Direct => "goto mark_direct",
        DevicePolicy::Blocked => "return",
    }));
    let mut tunnelled = around(lan, "goto mark_direct");
    tunnelled.extend(direct_names::marks(lan));
    tunnelled.push(format!(
        "ct mark {DIRECT_MARK:#010x} ct mark set 0x00000000"
    ));
    tunnelled.push(tunnelled_mark);
    let direct = vec![
        format!("ct status & confirmed == 0 ct mark set {DIRECT_MARK:#010x}"),
        format!("meta mark set {DIRECT_MARK:#010x}"),
    ];
    vec![
        ("incoming", hook, incoming),
        ("mark_devices", "", devices),
        ("mark_tunnelled", "", tunnelled),
        ("mark_direct", "", direct),
    ]
}

/// The chain that every packet forwarded from the LAN goes through, and those that it leads to.
pub(super) fn filter(inputs: &GuardInputs, tunnels: &[&InterfaceName]) -> Vec<Chain> {
    let lan = &inputs.lan;
    let interfaces = names(&lan.interfaces);
    // With one leg the LAN is also the way out, so the interface alone says nothing: what stays
    // in the LAN has an address of the LAN.
    let mut devices = per_family(&lan.networks, |keyword, nets| {
        format!("oifname {interfaces} {keyword} daddr {nets} return")
    });
    if !inputs.closed.is_empty() {
        devices.push(format!("oifname {} counter drop", names(&inputs.closed)));
    }
    let sites = sites(inputs);
    if !sites.is_empty() {
        devices.push("jump sites".to_owned());
    }
    devices.extend(sorted(&lan.devices, |policy| match policy {
        DevicePolicy::Tunnelled => "goto tunnelled",
        DevicePolicy::Direct => "return",
        DevicePolicy::Blocked => "counter drop",
    }));
    // Most of it goes into the tunnel, and is asked nothing else.
    let mut tunnelled = Vec::new();
    if !tunnels.is_empty() {
        tunnelled.push(format!("oifname {} return", names(tunnels.iter().copied())));
    }
    tunnelled.extend(around(lan, "return"));
    tunnelled.extend(direct_names::filter(lan));
    tunnelled.push("counter drop".to_owned());
    let mut chains = vec![("from_lan", "", devices), ("tunnelled", "", tunnelled)];
    if !sites.is_empty() {
        chains.push(("sites", "", sites));
    }
    chains
}

/// What lies behind a site's tunnel, or is a client's of the server, is reached by a tunnel. The narrowest decides.
fn sites(inputs: &GuardInputs) -> Vec<String> {
    // Of one that is everything, only what is narrower is a site's: the rest is where direct devices go.
    let sites: BTreeSet<IpNet> = inputs.sites.iter().map(IpNet::trunc).collect();
    let sites: Vec<IpNet> = sites.into_iter().filter(|n| n.prefix_len() > 0).collect();
    let inside = |net: &IpNet| sites.iter().any(|site| site != net && site.contains(net));
    let local: BTreeSet<IpNet> = inputs.local.iter().map(IpNet::trunc).collect();
    let local: Vec<IpNet> = local.into_iter().filter(inside).collect();
    let elsewhere = match inputs.tunnels.as_slice() {
        [] => String::new(),
        tunnels => format!("oifname != {} ", names(tunnels)),
    };
    let lengths = sites.iter().chain(&local).map(IpNet::prefix_len);
    let lengths: BTreeSet<u8> = lengths.collect();
    let mut rules = Vec::new();
    for length in lengths.into_iter().rev() {
        for (nets, verdict) in [
            (&sites, format!("{elsewhere}counter drop")),
            (&local, "return".to_owned()),
        ] {
            let nets: Vec<IpNet> = nets
                .iter()
                .copied()
                .filter(|n| n.prefix_len() == length)
                .collect();
            rules.extend(per_family(&nets, |keyword, nets| {
                format!("{keyword} daddr {nets} {verdict}")
            }));
        }
    }
    rules
}

/// What goes direct by a connection that began otherwise, and is known by the tunnel's inner address: nobody knows that
/// where it would go. (Where another program overwrites connections' marks, the address alone tells.)
pub(super) fn begun_otherwise(lan: &Lan, tunnels: &[InterfaceName]) -> Option<String> {
    let elsewhere = match tunnels {
        [] => String::new(),
        tunnels => format!("oifname != {} ", names(tunnels)),
    };
    lan.lets_out().then(|| {
        format!(
            "meta mark {DIRECT_MARK:#010x} {elsewhere}ct direction original ct mark != {DIRECT_MARK:#010x} \
             fib saddr . oif type != local counter drop"
        )
    })
}

/// What goes direct gets this machine's address: else the router would see one half of each connection and
/// this machine the other, or would have no way back at all.
pub(super) fn translation(lan: &Lan, tunnels: &[&InterfaceName]) -> Option<String> {
    let elsewhere = match tunnels {
        [] => String::new(),
        tunnels => format!("oifname != {} ", names(tunnels.iter().copied())),
    };
    lan.lets_out()
        .then(|| format!("meta mark {DIRECT_MARK:#010x} {elsewhere}masquerade"))
}

/// A rule for each kind of device, so ordered that the first that fits is the one that decides; the last fits
/// always.
pub(super) fn sorted(
    devices: &Devices,
    verdict: impl Fn(DevicePolicy) -> &'static str,
) -> Vec<String> {
    let mut rules = Vec::new();
    for policy in DevicePolicy::ALL {
        let with_policy = devices.named.iter().filter(|(_, p)| **p == policy);
        let macs: Vec<Mac> = with_policy
            .filter_map(|(device, _)| match device {
                Device::Mac(mac) => Some(*mac),
                Device::Network(_) => None,
            })
            .collect();
        if !macs.is_empty() {
            rules.push(format!("ether saddr {} {}", set(&macs), verdict(policy)));
        }
    }
    let networks: Vec<(IpNet, DevicePolicy)> = devices
        .named
        .iter()
        .filter_map(|(device, policy)| match device {
            Device::Network(net) => Some((*net, *policy)),
            Device::Mac(_) => None,
        })
        .collect();
    // Of one length none lies in another: nft refuses such a set.
    let lengths: BTreeSet<u8> = networks.iter().map(|(net, _)| net.prefix_len()).collect();
    for length in lengths.into_iter().rev() {
        for policy in DevicePolicy::ALL {
            let alike = networks.iter();
            let alike = alike.filter(|(net, p)| net.prefix_len() == length && *p == policy);
            let alike: Vec<IpNet> = alike.map(|(net, _)| *net).collect();
            rules.extend(per_family(&alike, |keyword, nets| {
                format!("{keyword} saddr {nets} {}", verdict(policy))
            }));
        }
    }
    let [v4, v6] = Family::BOTH.map(|family| verdict(devices.unnamed(family)));
    if v4 == v6 {
        rules.push(v4.to_owned());
    } else {
        rules.push(format!("meta nfproto ipv4 {v4}"));
        rules.push(format!("meta nfproto ipv6 {v6}"));
    }
    rules
}

/// Of what is tunnelled, this goes direct all the same.
fn around(lan: &Lan, verdict: &str) -> Vec<String> {
    per_family(&IpNet::aggregate(&lan.direct_networks), |keyword, nets| {
        format!("{keyword} daddr {nets} {verdict}")
    })
}

//! Devices of the LAN in both tables: marked before their route is looked up, and filtered where they are
//! forwarded. Either goes by the packet alone, so that neither trusts the other.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Chain, direct_names, failure, names, not_by, per_family, set};
use crate::devices::{Device, Devices, Mac, Way};
use crate::guard::GuardInputs;
use crate::inputs::{InterfaceName, Lan, Through};
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
    let is_other = |name: &InterfaceName| lan.through.iter().any(|t| t.interface == *name);
    let tunnels = tunnels.iter().copied().filter(|name| !is_other(name));
    let tunnels: Vec<&InterfaceName> = tunnels.collect();
    if !tunnels.is_empty() {
        incoming.push(format!("iifname {} {tunnelled_mark}", names(tunnels)));
    }
    let others = lan.others();
    incoming.extend(others.map(|(mark, _, through)| {
        format!(
            "iifname \"{}\" meta mark set {mark:#010x}",
            through.interface
        )
    }));
    // To this machine alone, which translated it: no device sends that.
    incoming.push(format!(
        "fib daddr type local ct direction reply ct mark {DIRECT_MARK:#010x} meta mark set {DIRECT_MARK:#010x}"
    ));
    let mut devices = vec!["meta mark set 0".to_owned()];
    devices.extend(per_family(&lan.networks, |keyword, nets| {
        format!("{keyword} daddr {nets} return")
    }));
    devices.extend(sorted(&lan.devices, |way| match way {
        Way::Tunnelled => "goto mark_tunnelled".to_owned(),
        Way::Through(tunnel) => match place(lan, tunnel) {
            Some(n) => format!("goto mark_through_{n}"),
            // Without a mark it is unreachable.
            None => "return".to_owned(),
        },
        Way::Direct => "goto mark_direct".to_owned(),
        Way::Blocked => "return".to_owned(),
    }));
    let not_direct = format!("ct mark {DIRECT_MARK:#010x} ct mark set 0x00000000");
    // What was given a tunnel has its routes in every table but the main one.
    let mut given = per_family(&given(lan), |keyword, nets| {
        format!("{keyword} daddr {nets} goto mark_given")
    });
    let into = |mark: u32, mut rules: Vec<String>| -> Vec<String> {
        rules.push(not_direct.clone());
        rules.push(format!("meta mark set {mark:#010x}"));
        rules
    };
    let mut elsewhere = given.clone();
    elsewhere.extend(around(lan, "goto mark_direct"));
    elsewhere.extend(direct_names::marks(lan));
    let mut tunnelled = elsewhere.clone();
    tunnelled.extend(failure::marks(lan));
    let is_given = !given.is_empty();
    given.extend([
        format!("ct status & confirmed == 0 ct mark set {DIRECT_MARK:#010x}"),
        format!("meta mark set {DIRECT_MARK:#010x}"),
    ]);
    let direct = given;
    let mut chains: Vec<Chain> = vec![
        ("incoming".into(), hook, incoming),
        ("mark_devices".into(), "", devices),
        ("mark_tunnelled".into(), "", into(TUNNELLED_MARK, tunnelled)),
        ("mark_direct".into(), "", direct),
    ];
    if is_given {
        chains.push(("mark_given".into(), "", into(TUNNELLED_MARK, Vec::new())));
    }
    chains.extend((0..).zip(lan.others()).map(|(n, (mark, ..))| {
        let rules = into(mark, elsewhere.clone());
        (through_chain("mark_", n), "", rules)
    }));
    chains
}

fn through_chain(before: &str, n: usize) -> Cow<'static, str> {
    format!("{before}through_{n}").into()
}

/// The place of a tunnel among those that devices may be given.
fn place(lan: &Lan, tunnel: &str) -> Option<usize> {
    lan.through.iter().position(|t| t.tunnel == tunnel)
}

/// Networks that were given a tunnel, as a set takes them.
pub(super) fn given(lan: &Lan) -> Vec<IpNet> {
    let networks: Vec<IpNet> = lan.given().map(|(net, _)| net).collect();
    IpNet::aggregate(&networks)
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
    devices.extend(sorted(&lan.devices, |way| match way {
        Way::Tunnelled => "goto tunnelled".to_owned(),
        Way::Through(tunnel) => match place(lan, tunnel) {
            Some(n) => format!("goto through_{n}"),
            None => "counter drop".to_owned(),
        },
        Way::Direct if lan.through.is_empty() => "return".to_owned(),
        Way::Direct => "goto direct".to_owned(),
        Way::Blocked => "counter drop".to_owned(),
    }));
    let given = into_given(lan);
    // Most of it goes into the tunnel, and is asked nothing else.
    let by = |interfaces: Vec<&InterfaceName>| match interfaces.as_slice() {
        [] => None,
        some => Some(format!("oifname {} return", names(some.iter().copied()))),
    };
    let rest = [
        given.clone(),
        around(lan, "return"),
        direct_names::filter(lan),
    ]
    .concat();
    let end = || "counter drop".to_owned();
    let mut tunnelled = Vec::from_iter(by(tunnels.to_vec()));
    tunnelled.extend(rest.iter().cloned());
    tunnelled.extend(failure::rule(lan, "return"));
    tunnelled.push(end());
    let mut chains: Vec<Chain> = vec![
        ("from_lan".into(), "", devices),
        ("tunnelled".into(), "", tunnelled),
    ];
    for (n, through) in lan.through.iter().enumerate() {
        let of_sites = inputs.inside.iter();
        let own = std::iter::once(&through.interface).chain(of_sites);
        let mut rules = Vec::from_iter(by(own.collect()));
        rules.extend(rest.iter().cloned());
        rules.push(end());
        chains.push((through_chain("", n), "", rules));
    }
    if !lan.through.is_empty() {
        let closed = names(lan.through.iter().map(|t| &t.interface));
        let mut direct = given;
        direct.push(format!("oifname {closed} counter drop"));
        chains.push(("direct".into(), "", direct));
    }
    if !sites.is_empty() {
        chains.push(("sites".into(), "", sites));
    }
    chains
}

/// What is sent to a network that was given a tunnel leaves by that one; that it leaves by no other was asked before.
fn into_given(lan: &Lan) -> Vec<String> {
    let of = |through: &Through| {
        let interface = &through.interface;
        per_family(&IpNet::aggregate(&through.networks), |keyword, nets| {
            format!("oifname \"{interface}\" {keyword} daddr {nets} return")
        })
    };
    lan.through.iter().flat_map(of).collect()
}

/// What lies behind a site's tunnel, or is a client's of the server, is reached by a tunnel, and what was given one by that
/// one. The narrowest decides.
fn sites(inputs: &GuardInputs) -> Vec<String> {
    // Of one that is everything, only what is narrower is a site's: the rest is where direct devices go.
    let sites: BTreeSet<IpNet> = inputs.sites.iter().map(IpNet::trunc).collect();
    let sites: Vec<IpNet> = sites.into_iter().filter(|n| n.prefix_len() > 0).collect();
    let given: BTreeSet<(IpNet, &InterfaceName)> = inputs.lan.given().collect();
    let given_nets = given.iter().map(|(net, _)| *net);
    let owned: Vec<IpNet> = sites.iter().copied().chain(given_nets).collect();
    let inside = |net: &IpNet| owned.iter().any(|own| own != net && own.contains(net));
    let local: BTreeSet<IpNet> = inputs.local.iter().map(IpNet::trunc).collect();
    let local: Vec<IpNet> = local.into_iter().filter(inside).collect();
    let elsewhere = not_by(&inputs.tunnels.iter().collect::<Vec<_>>());
    let lengths = owned.iter().chain(&local).map(IpNet::prefix_len);
    let lengths: BTreeSet<u8> = lengths.collect();
    let mut rules = Vec::new();
    for length in lengths.into_iter().rev() {
        for (net, interface) in given.iter().filter(|(net, _)| net.prefix_len() == length) {
            rules.extend(per_family(&[*net], |keyword, nets| {
                format!("{keyword} daddr {nets} oifname != \"{interface}\" counter drop")
            }));
            rules.extend(per_family(&[*net], |keyword, nets| {
                format!("{keyword} daddr {nets} return")
            }));
        }
        let mut verdicts = vec![(&sites, format!("{elsewhere}counter drop"))];
        if !given.is_empty() {
            // What was asked by a wider network's tunnel, too, would leave by none.
            verdicts.push((&sites, "return".to_owned()));
        }
        verdicts.push((&local, "return".to_owned()));
        for (nets, verdict) in verdicts {
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
pub(super) fn begun_otherwise(lan: &Lan, tunnels: &[&InterfaceName]) -> Option<String> {
    let elsewhere = not_by(tunnels);
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
    let elsewhere = not_by(tunnels);
    lan.lets_out()
        .then(|| format!("meta mark {DIRECT_MARK:#010x} {elsewhere}masquerade"))
}

/// A rule for each kind of device, so ordered that the first that fits is the one that decides; the last fits
/// always.
pub(super) fn sorted<'d>(devices: &'d Devices, verdict: impl Fn(Way<'d>) -> String) -> Vec<String> {
    let mut rules = Vec::new();
    let ways: BTreeSet<Way<'d>> = devices.ways().map(|(_, way)| way).collect();
    for way in &ways {
        let alike = devices.ways().filter(|(_, w)| w == way);
        let macs: Vec<Mac> = alike
            .filter_map(|(device, _)| match device {
                Device::Mac(mac) => Some(mac),
                Device::Network(_) => None,
            })
            .collect();
        if !macs.is_empty() {
            rules.push(format!("ether saddr {} {}", set(&macs), verdict(*way)));
        }
    }
    let networks: Vec<(IpNet, Way<'d>)> = devices
        .ways()
        .filter_map(|(device, way)| match device {
            Device::Network(net) => Some((net, way)),
            Device::Mac(_) => None,
        })
        .collect();
    // Of one length none lies in another: nft refuses such a set.
    let lengths: BTreeSet<u8> = networks.iter().map(|(net, _)| net.prefix_len()).collect();
    for length in lengths.into_iter().rev() {
        for way in &ways {
            let alike = networks.iter();
            let alike = alike.filter(|(net, w)| net.prefix_len() == length && w == way);
            let alike: Vec<IpNet> = alike.map(|(net, _)| *net).collect();
            rules.extend(per_family(&alike, |keyword, nets| {
                format!("{keyword} saddr {nets} {}", verdict(*way))
            }));
        }
    }
    let [v4, v6] = Family::BOTH.map(|family| verdict(devices.unnamed_way(family)));
    if v4 == v6 {
        rules.push(v4);
    } else {
        rules.push(format!("meta nfproto ipv4 {v4}"));
        rules.push(format!("meta nfproto ipv6 {v6}"));
    }
    rules
}

/// Of what is tunnelled, this goes direct all the same.
pub(super) fn around(lan: &Lan, verdict: &str) -> Vec<String> {
    per_family(&IpNet::aggregate(&lan.direct_networks), |keyword, nets| {
        format!("{keyword} daddr {nets} {verdict}")
    })
}

//! What the box says by itself about a device's packets, and to whom: it takes along what the packet held.

use ipnet::IpNet;

use super::{names, per_family, ways_home};
use crate::guard::GuardInputs;
use crate::inputs::InterfaceName;

/// An error that the box itself makes about a packet of a device's flow (which came through the tunnel
/// and finds the device gone, say) goes into the tunnel or nowhere: it quotes that packet. Of devices that
/// go direct nothing is lost by it that anybody waits for.
///
/// On one leg a device's packet may name a source outside the LAN, and such an error would carry it there: what leaves
/// for outside by that leg is about flows of sites and of the server's clients alone. Nobody else's pass through
/// here. (Most of these errors belong to no flow: the packet ended before it was one.)
pub(super) fn errors(inputs: &GuardInputs) -> Vec<String> {
    let mut rules = ways_home(inputs);
    let nets = &inputs.lan.networks;
    rules.extend(per_family(nets, |keyword, nets| {
        format!("ct original {keyword} saddr {nets} counter drop")
    }));
    let is_way_out = |name: &&InterfaceName| inputs.uplink.as_ref().is_none_or(|u| u == *name);
    let leg: Vec<&InterfaceName> = (inputs.lan.interfaces.iter()).filter(is_way_out).collect();
    if leg.is_empty() {
        return rules;
    }
    let leg = names(leg);
    rules.extend(per_family(nets, |keyword, nets| {
        format!("oifname {leg} ct original {keyword} daddr {nets} counter drop")
    }));
    let others: Vec<IpNet> = (inputs.sites.iter().copied())
        .filter(|net| net.prefix_len() > 0)
        .collect();
    for end in ["saddr", "daddr"] {
        rules.extend(per_family(&IpNet::aggregate(&others), |keyword, nets| {
            format!("ct original {keyword} {end} {nets} return")
        }));
    }
    rules.push(format!("oifname {leg} counter drop"));
    rules
}

/// Where a packet from the LAN says it comes from. What the box answers by itself (a ping, an error, a refusal) goes to
/// that address, whoever has it, and takes along what the packet held: so on two legs it has to be one that is reached
/// by the same interface. Nor does anything come from the LAN by the way out. On one leg the router sends by the
/// LAN's interface what comes from anywhere.
pub(super) fn sources(inputs: &GuardInputs) -> Vec<String> {
    let is_inside = |name: &&InterfaceName| inputs.uplink.as_ref() != Some(*name);
    let lan: Vec<&InterfaceName> = (inputs.lan.interfaces.iter()).filter(is_inside).collect();
    if lan.is_empty() {
        return Vec::new();
    }
    let lan = names(lan);
    let mut rules = Vec::new();
    if let Some(uplink) = &inputs.uplink {
        rules.extend(per_family(&inputs.lan.networks, |keyword, nets| {
            format!(
                "iifname \"{uplink}\" {keyword} saddr {nets} fib saddr oifname {lan} counter drop"
            )
        }));
    }
    rules.push(format!("iifname != {lan} return"));
    rules.extend(per_family(&inputs.lan.networks, |keyword, nets| {
        format!("{keyword} saddr {nets} return")
    }));
    // Who has no address yet, or never one of a router.
    rules.push("ip saddr { 0.0.0.0, 169.254.0.0/16 } return".to_owned());
    rules.push("ip6 saddr { ::, fe80::/10 } return".to_owned());
    // A network behind a router of the LAN has a route that says so.
    rules.push("fib saddr . iif oif missing counter drop".to_owned());
    rules
}

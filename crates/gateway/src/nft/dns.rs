//! Questions for names: whomever a tunnelled device asks, this machine answers.
//!
//! A question that is not turned here (of a family in which this machine has no address on the LAN, say, or to a network
//! that has a tunnel of its own) is traffic like any other: it goes where its device may go.

use std::net::IpAddr;

use ipnet::IpNet;

use super::devices::sorted;
use super::{Chain, FAMILIES, failure, keyword, names, of_family, per_family, protocol, set};
use crate::devices::Way;
use crate::inputs::{Dns, Inputs, InterfaceName, Lan};
use crate::plan::Family;

/// Turns what tunnelled devices ask anybody to us, and what direct ones ask us to where they are answered beside
/// the tunnel; and lets no device ask where it may not. The latter is judged packet by packet: a connection that was
/// turned before its device got another policy is still turned.
pub(super) fn chains(inputs: &Inputs) -> Vec<Chain> {
    let Some((lan, dns)) = inputs.lan.as_ref().zip(inputs.dns.as_ref()) else {
        return Vec::new();
    };
    let mut chains = turned(lan, dns, &elsewhere(inputs, lan));
    chains.extend(let_in(lan, dns));
    chains
}

/// What tunnelled devices ask a resolver in a network that was given a tunnel, or is a site's, goes there by that tunnel,
/// as all else that they send there: names of that network are nothing for the resolver of the gateway's tunnel.
/// This machine's own addresses, and the LAN's resolvers, are not meant, whatever lies around them.
fn elsewhere(inputs: &Inputs, lan: &Lan) -> Vec<String> {
    let sites = inputs.tunnels.iter().filter(|tunnel| tunnel.is_site());
    let sites = sites.flat_map(|tunnel| &tunnel.remote).copied();
    let given = lan.given().map(|(net, _)| net);
    // Of a site that is everything nothing is told from the internet.
    let nets: Vec<IpNet> = (sites.chain(given))
        .filter(|net| net.prefix_len() > 0)
        .collect();
    let nets = IpNet::aggregate(&nets);
    let rules = FAMILIES.into_iter().filter_map(|(keyword, _, family)| {
        let nets = of_family(&nets, family);
        let lan = match of_family(&lan.networks, family) {
            lan if lan.is_empty() => String::new(),
            lan => format!("{keyword} daddr != {} ", set(&lan)),
        };
        (!nets.is_empty()).then(|| {
            format!(
                "{keyword} daddr {} {lan}fib daddr type != local return",
                set(&nets)
            )
        })
    });
    rules.collect()
}

fn turned(lan: &Lan, dns: &Dns, elsewhere: &[String]) -> Vec<Chain> {
    let places = places(lan, dns);
    if places.is_empty() {
        return Vec::new();
    }
    let each = |rule: &dyn Fn(&str, Family, IpAddr) -> String| -> Vec<String> {
        let rules = places.iter();
        let rules = rules.map(|(interface, address)| {
            let family = Family::of(*address);
            let from = format!("iifname \"{interface}\" meta nfproto {}", protocol(family));
            rule(&from, family, *address)
        });
        rules.collect()
    };
    let into_us = |from: &str, _, address| {
        format!("{from} dnat {} to {address}", keyword(IpNet::from(address)))
    };
    let mut tunnelled = match dns.direct {
        // Let out, it is answered as those are who go direct.
        true => failure::rule(lan, "goto question_direct"),
        false => Vec::new(),
    };
    tunnelled.extend(elsewhere.iter().cloned());
    tunnelled.extend(each(&into_us));
    let mut chains: Vec<Chain> = vec![
        (
            "questions".into(),
            "type nat hook prerouting priority -100; policy accept;",
            each(&|from, _, _| format!("{from} {ANY} th dport 53 jump question")),
        ),
        (
            "question".into(),
            "",
            sorted(&lan.devices, |way| match way {
                Way::Tunnelled => "goto question_tunnelled".to_owned(),
                Way::Direct if dns.direct => "goto question_direct".to_owned(),
                // Whom one asks that goes through another tunnel is asked there.
                Way::Through(_) | Way::Direct | Way::Blocked => "return".to_owned(),
            }),
        ),
        ("question_tunnelled".into(), "", tunnelled),
    ];
    if dns.direct {
        let to_us = each(&|from, family, address| {
            let keyword = keyword(IpNet::from(address));
            let at = std::net::SocketAddr::new(address, Dns::DIRECT_PORT);
            let ours = ours(dns);
            let ours = ours.iter().filter(|net| Family::of_net(**net) == family);
            let ours: Vec<&IpNet> = ours.collect();
            format!(
                "{from} {keyword} daddr {} {ANY} dnat {keyword} to {at}",
                set(&ours)
            )
        });
        chains.push(("question_direct".into(), "", to_us));
    }
    chains
}

/// Who goes direct is answered at both ports, who is tunnelled at the one, and who is blocked at none. Also where nobody
/// goes direct: a connection that was turned while somebody did is held to it. From elsewhere nobody is let in, as whomever
/// he asks: Linux would take what is for our address on the LAN from any interface.
fn let_in(lan: &Lan, dns: &Dns) -> Vec<Chain> {
    let from = format!("iifname {}", names(&lan.interfaces));
    let here = lan.interfaces.iter().map(InterfaceName::as_str);
    let here: Vec<String> = here.chain(["lo"]).map(|it| format!("\"{it}\"")).collect();
    let elsewhere = format!("iifname != {}", set(&here));
    let port = Dns::DIRECT_PORT;
    let mut asked = per_family(&ours(dns), |keyword, ours| {
        format!("{elsewhere} {keyword} daddr {ours} {ANY} th dport {{ 53, {port} }} counter drop")
    });
    asked.push(format!("{from} {ANY} th dport 53 jump asking"));
    asked.extend(per_family(&ours(dns), |keyword, ours| {
        format!("{from} {keyword} daddr {ours} {ANY} th dport {port} jump asking")
    }));
    let asking = sorted(&lan.devices, |way| match way {
        Way::Tunnelled => "goto asking_tunnelled".to_owned(),
        Way::Through(_) => "goto asking_inside".to_owned(),
        Way::Direct => "return".to_owned(),
        Way::Blocked => "counter reject".to_owned(),
    });
    let inside = vec![format!("{ANY} th dport {} counter drop", Dns::DIRECT_PORT)];
    let mut tunnelled = failure::rule(lan, "return");
    tunnelled.extend(inside.iter().cloned());
    let mut chains: Vec<Chain> = vec![
        (
            "asked".into(),
            "type filter hook input priority 0; policy accept;",
            asked,
        ),
        ("asking".into(), "", asking),
        ("asking_tunnelled".into(), "", tunnelled),
    ];
    if lan.devices.any_through() {
        chains.push(("asking_inside".into(), "", inside));
    }
    chains
}

/// DNS over TLS (RFC 7858), and over QUIC (RFC 9250), of tunnelled devices: both end at once, and a device that may do
/// without then asks us. The rules for what is forwarded, and the chains that they lead to.
pub(super) fn refused(inputs: &Inputs) -> (Vec<String>, Vec<Chain>) {
    let Some((lan, dns)) = inputs.lan.as_ref().zip(inputs.dns.as_ref()) else {
        return Default::default();
    };
    let places = places(lan, dns);
    if !dns.refuse_dot || places.is_empty() {
        return Default::default();
    }
    let rules = places.iter().map(|(interface, address)| {
        let protocol = protocol(Family::of(*address));
        format!("iifname \"{interface}\" meta nfproto {protocol} {ANY} th dport 853 jump encrypted")
    });
    let encrypted = sorted(&lan.devices, |way| match way {
        Way::Tunnelled => "goto encrypted_tunnelled".to_owned(),
        Way::Through(_) | Way::Direct | Way::Blocked => "return".to_owned(),
    });
    let mut end = failure::rule(lan, "return");
    end.extend(
        [
            "meta l4proto tcp counter reject with tcp reset",
            "counter reject",
        ]
        .map(str::to_owned),
    );
    let chains = vec![
        ("encrypted".into(), "", encrypted),
        ("encrypted_tunnelled".into(), "", end),
    ];
    (rules.collect(), chains)
}

const ANY: &str = "meta l4proto { tcp, udp }";

/// For each interface and family the address of ours that questions go to, if there is one.
fn places<'i>(lan: &'i Lan, dns: &Dns) -> Vec<(&'i InterfaceName, IpAddr)> {
    let mut places = Vec::new();
    for interface in &lan.interfaces {
        for family in Family::BOTH {
            let mut ours = dns.addresses.iter();
            let ours =
                ours.find(|(name, address)| name == interface && Family::of(*address) == family);
            places.extend(ours.map(|(_, address)| (interface, *address)));
        }
    }
    places
}

fn ours(dns: &Dns) -> Vec<IpNet> {
    let addresses = dns.addresses.iter();
    addresses
        .map(|(_, address)| IpNet::from(*address))
        .collect()
}

//! What a gateway itself sends outside.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::inputs::{Inputs, InterfaceName, Tunnel};
use crate::overlap;
use crate::plan::Family;

/// Where names are asked for, in clear and by TLS (RFC 7858).
pub(crate) const NAME_PORTS: [u16; 2] = [53, 853];

/// What of it leaves beside the tunnel, besides the tunnels themselves, DHCP, the time, and answers to who called this
/// machine. All else is a device's traffic: it takes the LAN's tunnel, or is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnNeeds {
    /// Who is asked for names; `None`: a resolver of this machine itself asks whomever it likes.
    pub resolvers: Option<Vec<IpAddr>>,
    /// Whoever runs as this user: processes of ours that resolve names, fetch revocation lists, ask for the time and
    /// measure.
    pub user: Option<u32>,
    /// Networks of this machine that are neither the LAN nor where the internet is, such as those of containers.
    pub beside: Vec<(InterfaceName, IpNet)>,
    /// The LAN's interfaces have no address yet, and the configuration names no network of it.
    pub lan_unknown: bool,
}

/// A tunnel as a way for what the machine itself sends, in one family.
pub(crate) struct OwnWay<'t> {
    pub(crate) tunnel: &'t Tunnel,
    pub(crate) family: Family,
    /// By which address the other side knows us; `None`: it lends one when the tunnel is up, which our packet calls.
    pub(crate) address: Option<IpAddr>,
    /// What of this family can be reached at this moment, or brings the tunnel up.
    pub(crate) reached: Vec<IpNet>,
    /// It is not the LAN's, and was given these networks.
    pub(crate) given: bool,
}

/// One for each family in which anything can pass: where nothing can, being refused at once is better. None where the
/// machine may send what it likes.
pub(crate) fn ways(inputs: &Inputs) -> Vec<OwnWay<'_>> {
    let Some(lan) = inputs.lan.as_ref().filter(|lan| lan.own.is_some()) else {
        return Vec::new();
    };
    let given_to = |tunnel: &Tunnel| -> Vec<IpNet> {
        let given = lan.given();
        let given = given.filter(|(_, interface)| **interface == tunnel.interface);
        given.map(|(net, _)| net).collect()
    };
    // What the others carry is led into them by routes.
    let tunnels = inputs.tunnels.iter().filter(|tunnel| !tunnel.own_traffic);
    let both = tunnels.flat_map(|tunnel| {
        let given = (!tunnel.carries_lan).then(|| given_to(tunnel));
        Family::BOTH.map(|family| way(tunnel, family, given.as_deref()))
    });
    both.flatten().collect()
}

fn way<'t>(tunnel: &'t Tunnel, family: Family, given: Option<&[IpNet]>) -> Option<OwnWay<'t>> {
    let is_called = tunnel.on_demand && tunnel.reached.is_empty();
    let carried = match is_called {
        true => &tunnel.remote,
        false => &tunnel.reached,
    };
    let of_family = |net: &IpNet| Family::of_net(*net) == family;
    let reached: Vec<IpNet> = match given {
        None => carried.iter().map(IpNet::trunc).filter(of_family).collect(),
        Some(given) => {
            let all = given.iter().copied().filter(of_family);
            all.filter(|net| carried.iter().any(|carried| overlap(carried, net)))
                .collect()
        }
    };
    // What a site knows by other addresses is not known by that one.
    let own = tunnel.source.iter().filter(|_| tunnel.maps.is_empty());
    let mut addresses = tunnel.virtual_addresses.iter().chain(own);
    let address = addresses.find(|a| Family::of(**a) == family).copied();
    let is_lent_later = is_called && tunnel.client && tunnel.virtual_addresses.is_empty();
    (!reached.is_empty() && (address.is_some() || is_lent_later)).then(|| OwnWay {
        tunnel,
        family,
        address,
        reached: IpNet::aggregate(&reached),
        given: given.is_some(),
    })
}

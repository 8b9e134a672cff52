//! What a tunnel leaves to the networks on this machine's own interfaces.
//!
//! Whoever lends this machine an address (a DHCP server, a router advertisement) chooses the network that
//! comes with it, and may choose one that a tunnel is to carry ("LocalNet" of TunnelCrack). So around a
//! tunnel to everything only private networks are reached; and in what a tunnel names, nothing is, unless
//! the configuration names that more narrowly (decision 15).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Family, Route, RouteKind, Rule, RuleAction, carries, last_resort, lets_out};
use crate::inputs::{Inputs, Tunnel};
use crate::{MAIN_TABLE, PlanError, SHARED_TABLE, SITES_TABLE, overlap};

/// A network of this machine that is not reached around a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Around {
    /// On an interface.
    pub network: IpNet,
    /// TUN interface of the tunnel.
    pub tunnel: String,
    /// What the tunnel claims, and the network is within.
    pub claimed: IpNet,
    /// Who calls this machine from there is answered there.
    pub answered: bool,
}

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            tunnel,
            claimed,
            answered,
        } = self;
        let why = match claimed.prefix_len() {
            0 => "is public".to_owned(),
            _ => format!("is within {claimed}"),
        };
        let answers = match answered {
            true => "; only who calls this machine from there, by TCP, is answered directly",
            false => ", and answers to who calls from there, too",
        };
        write!(
            f,
            "{network}, a network of this machine, {why}: what is sent there is left to tunnel {tunnel}{answers}"
        )
    }
}

impl Inputs {
    /// Closes what cannot be, because this machine has it already (networks of tunnels), or leaves it out
    /// (pools). Whoever gives this machine its addresses (a lease, a router advertisement) can make that so
    /// at any time, and the rest is to go on. Gives what it was.
    #[must_use]
    pub fn without_overlaps(mut self) -> (Self, Vec<PlanError>) {
        let overlaps = take_overlaps(&mut self);
        (self, overlaps)
    }

    /// Of the networks that this machine was lent addresses of, those that are any: nobody's network is everything, and
    /// who lends that is not to close a tunnel or take a pool away.
    pub(crate) fn at_hand(&self) -> impl Iterator<Item = &IpNet> {
        self.local_networks
            .iter()
            .filter(|net| net.prefix_len() > 0)
    }

    /// Networks of this machine that a tunnel has instead.
    #[must_use]
    pub fn not_around(&self) -> Vec<Around> {
        let has = |network: IpNet| {
            let claim = |tunnel: &Tunnel| {
                let claims = tunnel.remote.iter().copied();
                let claimed = longest(claims.filter(|claimed| claimed.contains(&network)))?;
                Some((claimed, tunnel.interface.to_string()))
            };
            let tunnels = own(self).filter_map(claim);
            let (claimed, tunnel) = tunnels.max_by_key(|(net, _)| net.prefix_len())?;
            // What is closed is told of as an overlap.
            let is_closed = |closed: &IpNet| {
                closed.contains(&network) && closed.prefix_len() >= claimed.prefix_len()
            };
            if self.closed.iter().any(is_closed) {
                return None;
            }
            let mut ours = self.at_hand();
            Some(Around {
                network,
                tunnel,
                claimed,
                answered: ours.any(|l| l.trunc() == network && is_answered(self, l)),
            })
        };
        let networks = lan_networks(self).into_iter();
        networks
            .filter(|net| !is_host(net) && !stays_local(self, net))
            .filter_map(has)
            .collect()
    }
}

/// RFC 1918, RFC 6598, RFC 3927; RFC 4193, RFC 4291 §2.5.6.
pub(crate) const PRIVATE: [IpNet; 7] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v4([169, 254, 0, 0], 16),
    v6(0xfc00, 7),
    v6(0xfe80, 10),
];

/// Always reached around a tunnel to more: one link's own, and multicast of IPv4.
const OF_THE_LINK: [IpNet; 3] = [
    v4([169, 254, 0, 0], 16),
    v4([224, 0, 0, 0], 4),
    v6(0xfe80, 10),
];

const fn v4([a, b, c, d]: [u8; 4], prefix_len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len))
}

const fn v6(first: u16, prefix_len: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, prefix_len))
}

/// Whether a network is one that the internet does not have.
#[must_use]
pub fn is_private(net: &IpNet) -> bool {
    PRIVATE.iter().any(|private| private.contains(net))
}

/// Whether an address is of a link alone.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether no router passes on what is for this address: it is of a link, of this machine alone, a group's, or nobody's.
#[must_use]
pub fn is_never_forwarded(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    is_link_local(address)
        || is_broadcast
        || address.is_multicast()
        || address.is_loopback()
        || address.is_unspecified()
}

/// Routes that end the lookup for what is reached around tunnels that claim more, and for what is closed.
/// The main table is not asked in general: routes that a DHCP server slipped in there (option 121) would
/// then lead around the tunnel.
pub(super) fn routes(inputs: &Inputs) -> Vec<Route> {
    let all: Vec<IpNet> = claims(inputs).copied().collect();
    let mut routes = routes_in(inputs, SHARED_TABLE, &all, &inputs.closed);
    if lets_out(inputs) {
        let sites = inputs.tunnels.iter().filter(|t| t.is_site());
        let sites = sites.flat_map(|t| &t.remote).chain(&inputs.closed_sites);
        let sites: Vec<IpNet> = sites.copied().collect();
        routes.extend(routes_in(inputs, SITES_TABLE, &sites, &inputs.closed_sites));
    }
    routes
}

/// In a table where tunnels claim these networks.
fn routes_in(inputs: &Inputs, table: u32, claims: &[IpNet], closed: &[IpNet]) -> Vec<Route> {
    let swallowed = |net: &IpNet| claims.iter().any(|claimed| claimed.contains(net));
    let networks = lan_networks(inputs).into_iter();
    let throws = networks
        .filter(|net| stays_local(inputs, net))
        .chain(OF_THE_LINK)
        .filter(swallowed)
        .map(|net| Route {
            table,
            destination: net,
            kind: RouteKind::Throw,
            metric: 0,
            preferred_source: None,
        });
    let closed = closed.iter().map(|net| last_resort(table, *net));
    throws.chain(closed).collect()
}

/// Whoever calls this machine from a network that a tunnel has instead (ssh, on a LAN of public addresses)
/// is answered there. Such an answer has an address of that network as its source from the beginning.
pub(super) fn answers(inputs: &Inputs) -> Vec<Rule> {
    inputs
        .at_hand()
        .filter(|local| is_answered(inputs, local))
        .map(|local| Rule {
            from: Some(IpNet::from(local.addr())),
            to: Some(local.trunc()),
            ip_protocol: Some(6),
            suppress_prefix_length: Some(0),
            ..Rule::new(155, Family::of_net(*local), RuleAction::Lookup(MAIN_TABLE))
        })
        .collect()
}

/// Whether there is such a rule for a network of ours. What this machine sends of itself has no source when
/// its route is first looked up, gets one by the route that is found, and is then looked up with that: the
/// rule stands only where no route of a tunnel could make it ours in that network.
fn is_answered(inputs: &Inputs, local: &IpNet) -> bool {
    let net = local.trunc();
    let family = Family::of_net(net);
    let overlaps = |claimed: &IpNet| overlap(claimed, &net);
    // Where there is no way, IPv4 gives up; IPv6 chooses a source of its own and looks again.
    let no_way_is_final = family == Family::V4;
    let gives_another_source = |tunnel: &Tunnel| {
        let mut preferred = tunnel.virtual_addresses.iter().chain(&tunnel.source);
        let preferred = preferred.find(|a| Family::of(**a) == family);
        match carries(tunnel, family) {
            true => preferred.is_some_and(|source| *source != local.addr()),
            false => no_way_is_final,
        }
    };
    let mut claiming = own(inputs).filter(|t| t.remote.iter().any(overlaps));
    !is_host(&net)
        && !stays_local(inputs, &net)
        && claims(inputs).any(|claimed| claimed.contains(&net))
        && claiming.all(gives_another_source)
        && (no_way_is_final || !inputs.closed.iter().any(overlaps))
}

pub(super) fn take_overlaps(inputs: &mut Inputs) -> Vec<PlanError> {
    let mut taken = Vec::new();
    let local = lan_networks(inputs);
    for tunnel in inputs.tunnels.iter_mut().filter(|t| t.own_traffic) {
        let interface = tunnel.interface.to_string();
        let overlaps = |net: &mut IpNet| local.contains(&net.trunc());
        for network in tunnel.remote.extract_if(.., overlaps) {
            inputs.closed.push(network.trunc());
            if !tunnel.client {
                inputs.closed_sites.push(network.trunc());
            }
            taken.push(PlanError::Overlap {
                tunnel: interface.clone(),
                network,
            });
        }
    }
    let local: Vec<IpNet> = inputs.at_hand().map(IpNet::trunc).collect();
    let Some(server) = &mut inputs.server else {
        return taken;
    };
    let addresses = &mut server.addresses;
    server.pools.retain(|pool| {
        let Some(network) = local.iter().find(|net| overlap(net, pool)).copied() else {
            return true;
        };
        addresses.retain(|address| !pool.contains(address));
        taken.push(PlanError::PoolOverlap {
            pool: *pool,
            network,
        });
        false
    });
    taken
}

/// Whether a network of our own is reached around the tunnels that claim more: the narrower of what they
/// name and of what the configuration calls local decides, and where neither says anything, whether the
/// network is private.
fn stays_local(inputs: &Inputs, net: &IpNet) -> bool {
    let names = |networks: &mut dyn Iterator<Item = IpNet>| {
        longest(networks.filter(|n| n.prefix_len() > 0 && n.contains(net))).map(|n| n.prefix_len())
    };
    let claimed = names(&mut claims(inputs).copied());
    let named = names(&mut inputs.named.iter().copied());
    match (claimed, named) {
        (None, None) => is_private(net),
        (claimed, named) => named > claimed,
    }
}

/// Networks that belong to tunnels which this machine's own traffic goes into, whether or not anything can.
pub(super) fn claims(inputs: &Inputs) -> impl Iterator<Item = &IpNet> {
    own(inputs).flat_map(|t| &t.remote).chain(&inputs.closed)
}

fn longest(networks: impl Iterator<Item = IpNet>) -> Option<IpNet> {
    networks.max_by_key(IpNet::prefix_len)
}

/// An address that has no network around it.
fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Tunnels that carry this machine's own traffic.
fn own(inputs: &Inputs) -> impl Iterator<Item = &Tunnel> {
    inputs.tunnels.iter().filter(|t| t.own_traffic)
}

/// Networks on our own interfaces, the LAN's included.
fn lan_networks(inputs: &Inputs) -> BTreeSet<IpNet> {
    inputs
        .at_hand()
        .chain(inputs.lan.iter().flat_map(|lan| &lan.networks))
        .map(IpNet::trunc)
        .collect()
}

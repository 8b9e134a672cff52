//! Links, routes, rules and sysctls for tunnels, LAN and pool.

mod local;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::guard::lan_rules;
use crate::inputs::{Inputs, InterfaceName, Lan, Tunnel};
use crate::{
    GUARD_TABLE, MAIN_TABLE, OUTER_MARK, OWN_MARK, PlanError, SHARED_TABLE, SITES_TABLE, nft,
    overlap, own,
};

pub(crate) use local::PRIVATE;
pub use local::{Around, is_link_local, is_never_forwarded, is_private};

/// Everything `cygnet run` sets and takes back, the guard excepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPlan {
    /// TUNs: they exist already (a descriptor holds them), this is how they are configured.
    pub links: Vec<LinkPlan>,
    /// Routes, all with [`crate::PLAN_PROTOCOL`].
    pub routes: Vec<Route>,
    /// Policy rules, all within [`crate::PLAN_PRIORITIES`].
    pub rules: Vec<Rule>,
    /// Kernel settings, in the order in which they have to be made.
    pub sysctls: Vec<Sysctl>,
    /// Text for `nft -f -` that replaces `table inet cygnet` in one transaction.
    pub nft: String,
}

/// A TUN's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Its name.
    pub interface: InterfaceName,
    /// Its MTU.
    pub mtu: u16,
    /// Exactly the addresses it has, besides what the kernel adds.
    pub addresses: Vec<IpNet>,
}

/// Address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Of a prefix.
    #[must_use]
    pub fn of_net(net: IpNet) -> Self {
        Self::of(net.addr())
    }

    /// The prefix that holds everything.
    #[must_use]
    pub fn default_route(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            Self::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        }
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Routing table.
    pub table: u32,
    /// Where to.
    pub destination: IpNet,
    /// How.
    pub kind: RouteKind,
    /// Lower wins; 0 is the kernel's default for the family.
    pub metric: u32,
    /// Source address the machine's own packets take.
    pub preferred_source: Option<IpAddr>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Into this interface.
    Device(InterfaceName),
    /// Nowhere; the sender is told.
    Unreachable,
    /// Ends the lookup in this table; the next rule decides.
    Throw,
}

/// One policy rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its place.
    pub priority: u32,
    /// Its family.
    pub family: Family,
    /// Only packets that came in here.
    pub iif: Option<InterfaceName>,
    /// Only from here.
    pub from: Option<IpNet>,
    /// Only to here.
    pub to: Option<IpNet>,
    /// Only with this firewall mark.
    pub fwmark: Option<u32>,
    /// Only of this IP protocol.
    pub ip_protocol: Option<u8>,
    /// Only from this UDP or TCP port.
    pub source_port: Option<u16>,
    /// Ignore a result whose prefix is this short or shorter.
    pub suppress_prefix_length: Option<u32>,
    /// What then.
    pub action: RuleAction,
}

impl Rule {
    /// A rule that matches every packet of the family.
    #[must_use]
    pub fn new(priority: u32, family: Family, action: RuleAction) -> Self {
        Self {
            priority,
            family,
            iif: None,
            from: None,
            to: None,
            fwmark: None,
            ip_protocol: None,
            source_port: None,
            suppress_prefix_length: None,
            action,
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Look the destination up there.
    Lookup(u32),
    /// Nowhere; the sender is told.
    Unreachable,
    /// Nowhere; the sender is not told.
    Blackhole,
}

/// One kernel setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Path below /proc/sys, e.g. `net/ipv4/conf/*/send_redirects`; `*` stands for `all`,
    /// `default` and every interface there is.
    pub path: String,
    /// What to write.
    pub value: String,
    /// Change only where this stands now.
    pub only_if: Option<String>,
    /// Its absence is no error: an older kernel, or IPv6 switched off.
    pub optional: bool,
}

/// The lowest metric of routes into tunnels that are up, and into those that are down. There are at
/// most 256 tunnels.
const UP: u32 = 100;
const DOWN: u32 = 500;

impl NetworkPlan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`PlanError`] where the inputs contradict themselves.
    pub fn new(inputs: &Inputs) -> Result<Self, PlanError> {
        check(inputs)?;
        let mut plan = Self {
            links: links(inputs),
            nft: nft::plan(inputs),
            sysctls: sysctls(inputs),
            ..Self::default()
        };
        plan.tunnel_routes(inputs);
        plan.pool_routes(inputs);
        plan.routes.extend(local::routes(inputs));
        plan.rules(inputs);
        plan.routes.sort();
        plan.routes.dedup();
        plan.rules.sort();
        plan.rules.dedup();
        Ok(plan)
    }

    fn tunnel_routes(&mut self, inputs: &Inputs) {
        for (n, tunnel) in (0u32..).zip(&inputs.tunnels) {
            for net in &tunnel.remote {
                let family = Family::of_net(*net);
                let carried = carries(tunnel, family);
                let route = |table| Route {
                    table,
                    destination: net.trunc(),
                    kind: if carried {
                        RouteKind::Device(tunnel.interface.clone())
                    } else {
                        RouteKind::Unreachable
                    },
                    metric: metric(n, tunnel, *net),
                    preferred_source: tunnel
                        .virtual_addresses
                        .iter()
                        .chain(&tunnel.source)
                        .find(|a| Family::of(**a) == family)
                        .copied(),
                };
                if tunnel.own_traffic {
                    self.routes.push(route(SHARED_TABLE));
                }
                if tunnel.is_site() {
                    self.routes.push(last_resort(SHARED_TABLE, *net));
                    if lets_out(inputs) {
                        self.routes.push(Route {
                            preferred_source: None,
                            ..route(SITES_TABLE)
                        });
                        self.routes.push(last_resort(SITES_TABLE, *net));
                    }
                }
                if carried {
                    self.routes.push(route(SHARED_TABLE + 1 + n));
                }
                if let Some(lan) = inputs.lan.as_ref().filter(|_| carried) {
                    let tables = lan_tables(lan, tunnel, *net).into_iter();
                    self.routes.extend(tables.map(|table| Route {
                        preferred_source: None,
                        ..route(table)
                    }));
                }
            }
            let lan = inputs.lan.iter();
            let given = lan.flat_map(|lan| {
                let given = lan.given().filter(|(_, name)| **name == tunnel.interface);
                given.map(move |(net, _)| (lan, net))
            });
            for (lan, net) in given.filter(|(_, net)| carries(tunnel, Family::of_net(*net))) {
                self.routes.extend(lan.tables().map(|table| Route {
                    table,
                    destination: net,
                    kind: RouteKind::Device(tunnel.interface.clone()),
                    metric: metric(n, tunnel, net),
                    preferred_source: None,
                }));
            }
        }
    }

    fn pool_routes(&mut self, inputs: &Inputs) {
        let Some(server) = &inputs.server else { return };
        for pool in &server.pools {
            let family = Family::of_net(*pool);
            let route = |table, preferred_source| Route {
                table,
                destination: pool.trunc(),
                kind: RouteKind::Device(server.interface.clone()),
                metric: 100,
                preferred_source,
            };
            let source = server.addresses.iter().find(|a| Family::of(**a) == family);
            self.routes.push(route(SHARED_TABLE, source.copied()));
            self.routes.push(last_resort(SHARED_TABLE, *pool));
            if let Some(lan) = &inputs.lan {
                self.routes
                    .extend(lan.tables().map(|table| route(table, None)));
            }
            if lets_out(inputs) {
                self.routes.push(route(SITES_TABLE, None));
                self.routes.push(last_resort(SITES_TABLE, *pool));
            }
        }
    }

    fn rules(&mut self, inputs: &Inputs) {
        if inputs.tunnels.is_empty() && inputs.server.is_none() {
            return;
        }
        for family in Family::BOTH {
            let outer = Some(OUTER_MARK);
            self.rules.push(Rule {
                fwmark: outer,
                ..Rule::new(150, family, RuleAction::Lookup(MAIN_TABLE))
            });
            // No way out is an error to report, not a reason to send the outer packet inwards.
            self.rules.push(Rule {
                fwmark: outer,
                ..Rule::new(151, family, RuleAction::Unreachable)
            });
            if self
                .routes
                .iter()
                .any(|r| r.table == SHARED_TABLE && Family::of_net(r.destination) == family)
            {
                self.rules
                    .push(Rule::new(190, family, RuleAction::Lookup(SHARED_TABLE)));
            }
        }
        for (n, tunnel) in (0u32..).zip(&inputs.tunnels) {
            let reversed = |endpoint| reverse_path(inputs, endpoint);
            self.rules
                .extend(tunnel.endpoints.iter().copied().flat_map(reversed));
            for family in Family::BOTH.into_iter().filter(|_| tunnel.client) {
                self.rules.extend(not_past_us(tunnel, family));
            }
            for address in &tunnel.virtual_addresses {
                self.rules.push(Rule {
                    from: Some(IpNet::from(*address)),
                    ..Rule::new(
                        160,
                        Family::of(*address),
                        RuleAction::Lookup(SHARED_TABLE + 1 + n),
                    )
                });
            }
        }
        self.rules.extend(local::answers(inputs));
        self.rules.extend(own::ways(inputs).iter().map(|way| Rule {
            fwmark: Some(OWN_MARK),
            ..Rule::new(156, way.family, RuleAction::Lookup(GUARD_TABLE))
        }));
        // With a guard its own rules decide before these.
        if let Some(lan) = &inputs.lan {
            let interfaces = lan.interfaces.iter();
            self.rules
                .extend(interfaces.flat_map(|interface| lan_rules(lan, interface, 170)));
        }
    }
}

/// A strict reverse-path filter looks for the way back to whoever sent an outer packet, and does so
/// without the mark of what we send. Where a tunnel of our own would be that way, the filter drops the
/// packet, unless this says otherwise: for what leaves an address of ours (nothing that is forwarded
/// does) from the ports that our own sockets hold. Nobody else can send from those, whatever the
/// endpoint's address, which the peer may choose: it can move. IPv6 has no such filter.
fn reverse_path(inputs: &Inputs, endpoint: IpAddr) -> Vec<Rule> {
    if !local::claims(inputs).any(|net| net.contains(&endpoint)) || endpoint.is_ipv6() {
        return Vec::new();
    }
    let from = inputs.addresses.iter().filter(|a| a.is_ipv4());
    from.flat_map(|address| {
        inputs.ports.iter().map(|port| Rule {
            from: Some(IpNet::from(*address)),
            to: Some(IpNet::from(endpoint)),
            ip_protocol: Some(17),
            source_port: Some(*port),
            ..Rule::new(152, Family::V4, RuleAction::Lookup(MAIN_TABLE))
        })
    })
    .collect()
}

/// The tables in which the LAN finds the way to what lies behind a tunnel. A site's networks are inside for everybody; in
/// the others' nobody finds what was given a tunnel, which has routes of its own.
fn lan_tables(lan: &Lan, tunnel: &Tunnel, net: IpNet) -> Vec<u32> {
    if tunnel.is_site() && tunnel.carries_lan {
        return lan.tables().collect();
    }
    if lan.given().any(|(given, _)| given.contains(&net.trunc())) {
        return Vec::new();
    }
    let own = lan
        .others()
        .filter(|(_, _, other)| other.interface == tunnel.interface);
    let own = own.map(|(_, table, _)| table);
    let guards = tunnel.carries_lan.then_some(GUARD_TABLE);
    guards.into_iter().chain(own).collect()
}

/// Whether devices of the LAN may go direct.
fn lets_out(inputs: &Inputs) -> bool {
    inputs.lan.as_ref().is_some_and(Lan::lets_out)
}

/// Of the route to `net` into the tunnel of that place in the order. One that is down keeps its route, behind
/// those of all that are up: a packet into it may be what brings it up.
fn metric(place: u32, tunnel: &Tunnel, net: IpNet) -> u32 {
    // The peer may have narrowed the network, or granted a larger one.
    let first = match tunnel.reached.iter().any(|reached| overlap(reached, &net)) {
        true => UP,
        false => DOWN,
    };
    first + place
}

/// The TUN and the routes into it are gone at once when the program is killed. What a tunnel owns must
/// not follow the default route then.
fn last_resort(table: u32, net: IpNet) -> Route {
    Route {
        table,
        destination: net.trunc(),
        kind: RouteKind::Unreachable,
        metric: u32::MAX,
        preferred_source: None,
    }
}

/// What comes out of a client's tunnel and is not for us after all (the virtual address is gone, its
/// translation forgotten) must not travel on in clear: networks on our own interfaces are reached,
/// and nothing by a default route. Nobody is told, because that answer would travel in clear, too.
fn not_past_us(tunnel: &Tunnel, family: Family) -> [Rule; 2] {
    let rule = |priority, action| Rule {
        iif: Some(tunnel.interface.clone()),
        ..Rule::new(priority, family, action)
    };
    [
        Rule {
            suppress_prefix_length: Some(0),
            ..rule(153, RuleAction::Lookup(MAIN_TABLE))
        },
        rule(154, RuleAction::Blackhole),
    ]
}

/// Whether packets of a family can pass. Where the peer lent addresses, only of those families:
/// the others have nothing to be translated to, and saying "unreachable" at once is better than
/// leading them around the tunnel. A site's selectors carry packets as they are.
fn carries(tunnel: &Tunnel, family: Family) -> bool {
    let lent = &tunnel.virtual_addresses;
    lent.is_empty() || lent.iter().any(|a| Family::of(*a) == family)
}

fn check(inputs: &Inputs) -> Result<(), PlanError> {
    if inputs.tunnels.len() > 256 {
        return Err(PlanError::TooManyTunnels(inputs.tunnels.len()));
    }
    let mut names = BTreeSet::new();
    let tunnels = inputs.tunnels.iter().map(|t| {
        let ipv6 = t.remote.iter().any(|n| n.addr().is_ipv6()) && carries(t, Family::V6);
        (&t.interface, t.mtu, ipv6)
    });
    let server = inputs.server.iter().map(|s| {
        let ipv6 = s.pools.iter().any(|n| n.addr().is_ipv6());
        (&s.interface, s.mtu, ipv6)
    });
    for (interface, mtu, ipv6) in tunnels.chain(server) {
        if !names.insert(interface) {
            return Err(PlanError::SameInterface(interface.to_string()));
        }
        // RFC 8200 §5, RFC 791.
        let least = if ipv6 { 1280 } else { 576 };
        if mtu < least {
            return Err(PlanError::Mtu {
                interface: interface.to_string(),
                mtu,
                least,
            });
        }
    }
    let mut rest = inputs.clone();
    match local::take_overlaps(&mut rest).into_iter().next() {
        Some(overlap) => Err(overlap),
        None => Ok(()),
    }
}

fn links(inputs: &Inputs) -> Vec<LinkPlan> {
    let tunnels = inputs
        .tunnels
        .iter()
        .map(|t| (&t.interface, t.mtu, &t.virtual_addresses));
    let server = inputs
        .server
        .iter()
        .map(|s| (&s.interface, s.mtu, &s.addresses));
    tunnels
        .chain(server)
        .map(|(interface, mtu, addresses)| LinkPlan {
            interface: interface.clone(),
            mtu,
            addresses: addresses.iter().map(|a| IpNet::from(*a)).collect(),
        })
        .collect()
}

fn sysctls(inputs: &Inputs) -> Vec<Sysctl> {
    let set = |path: &str, value: &str| Sysctl {
        path: path.to_owned(),
        value: value.to_owned(),
        only_if: None,
        optional: path.starts_with("net/ipv6"),
    };
    let mut all = Vec::new();
    for link in links(inputs) {
        let name = link.interface;
        // Two tunnels may lead to the same networks, and a connection stays with the one it began
        // in: its answers come by a tunnel the route back does not name. 2 (loose) beats 1
        // (strict) in `all`; who may send what is checked by the selectors of the Child SA.
        all.push(set(&format!("net/ipv4/conf/{name}/rp_filter"), "2"));
        // No link-local address: nobody would answer its router solicitations.
        all.push(set(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1"));
        all.push(set(&format!("net/ipv6/conf/{name}/accept_ra"), "0"));
    }
    let site = inputs.tunnels.iter().any(|t| !t.client);
    if inputs.lan.is_none() && inputs.server.is_none() && !site {
        return all;
    }
    // Behind the LAN's interface of a box with two legs is nobody's router: whoever announces himself there would be ours,
    // and his prefixes the LAN's networks.
    let lan = inputs.lan.iter().flat_map(|lan| &lan.interfaces);
    let inside = lan.filter(|name| inputs.uplink.as_ref().is_some_and(|uplink| uplink != *name));
    all.extend(inside.map(|name| set(&format!("net/ipv6/conf/{name}/accept_ra"), "0")));
    // A router ignores router advertisements unless told 2; told later, the kernel has already
    // dropped the default route it learned.
    all.push(Sysctl {
        only_if: Some("1".to_owned()),
        ..set("net/ipv6/conf/*/accept_ra", "2")
    });
    let legs = inputs.lan.iter().flat_map(|lan| {
        let legs = lan.interfaces.iter().chain(&inputs.uplink);
        legs.collect::<BTreeSet<_>>()
    });
    for interface in legs {
        // Who asks for the tunnel's inner address, or for that of another leg, is not answered, and nobody is asked in
        // its name. With several networks on one interface each of its addresses is answered for.
        for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            all.push(Sysctl {
                // A stricter one is somebody's own.
                only_if: Some("0".to_owned()),
                optional: true,
                ..set(&format!("net/ipv4/conf/{interface}/{name}"), value)
            });
        }
    }
    if inputs.lan.as_ref().is_some_and(Lan::sorts) {
        // The way back is looked for by the rules of the LAN, which go by marks.
        all.push(set("net/ipv4/conf/all/src_valid_mark", "1"));
    }
    // Forwarding first: switching it resets the redirect settings.
    all.push(set("net/ipv4/conf/all/forwarding", "1"));
    all.push(set("net/ipv6/conf/all/forwarding", "1"));
    // With one leg every packet leaves by the interface it came by, and a redirect would send
    // the device straight to the router, past the tunnel.
    all.push(set("net/ipv4/conf/*/send_redirects", "0"));
    all.push(set("net/ipv4/conf/*/accept_redirects", "0"));
    all.push(set("net/ipv6/conf/*/accept_redirects", "0"));
    all
}

#[cfg(test)]
mod tests;

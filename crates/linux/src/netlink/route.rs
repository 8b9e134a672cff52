//! Routes: ours in the kernel, and which way a destination is reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cygnet_gateway::{InterfaceName, Route, RouteKind};
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::{Netlink, Owner, absent_is_fine, collect, error, family};
use crate::{Error, Result};

/// How a destination is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTo {
    /// Index of the interface it leaves by.
    pub index: u32,
    /// Name of that interface.
    pub interface: String,
    /// Source address the kernel would take.
    pub source: Option<IpAddr>,
    /// Next hop; `None`: on the link.
    pub gateway: Option<IpAddr>,
}

impl Netlink {
    /// Adds a route, or changes the one to the same destination with the same metric in the same
    /// table.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::NoSuchInterface`].
    pub async fn replace_route(&self, route: &Route, owner: Owner) -> Result<()> {
        let message = self.message(route, owner).await?;
        let what = || format!("route {} (table {})", route.destination, route.table);
        let request = self.handle.route().add(message).replace();
        request.execute().await.map_err(|e| error(what(), e))
    }

    /// Removes a route; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn remove_route(&self, route: &Route, owner: Owner) -> Result<()> {
        let message = match self.message(route, owner).await {
            // With its interface it went.
            Err(Error::NoSuchInterface(_)) => return Ok(()),
            other => other?,
        };
        let what = format!(
            "remove the route {} (table {})",
            route.destination, route.table
        );
        absent_is_fine(what, self.handle.route().del(message).execute().await)
    }

    /// Routes that carry the owner's protocol number, in any table.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn routes(&self, owner: Owner) -> Result<Vec<Route>> {
        let names: BTreeMap<u32, String> = self
            .links()
            .await?
            .into_iter()
            .map(|l| (l.index, l.name))
            .collect();
        let mut routes = Vec::new();
        for v6 in [false, true] {
            let messages = self.dump(v6).await?;
            let ours = RouteProtocol::from(owner.protocol());
            routes.extend(
                messages
                    .iter()
                    .filter(|m| m.header.protocol == ours)
                    .filter_map(|m| parse(m, v6, &names)),
            );
        }
        routes.sort();
        Ok(routes)
    }

    /// What this machine's routes lead to, in any table, without default routes and its own addresses.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn routed_networks(&self) -> Result<Vec<IpNet>> {
        let mut networks = Vec::new();
        for v6 in [false, true] {
            let messages = self.dump(v6).await?;
            networks.extend(messages.iter().filter_map(|m| {
                let destination = m.attributes.iter().find_map(|a| match a {
                    RouteAttribute::Destination(a) => ip(a),
                    _ => None,
                });
                let net = IpNet::new(destination?, m.header.destination_prefix_length).ok()?;
                (m.header.kind == RouteType::Unicast).then(|| net.trunc())
            }));
        }
        networks.sort();
        networks.dedup();
        Ok(networks)
    }

    /// Which way a packet to `destination` would leave, carrying `mark`.
    ///
    /// # Errors
    /// [`Error::Netlink`] when there is none.
    pub async fn route_to(&self, destination: IpAddr, mark: Option<u32>) -> Result<RouteTo> {
        let found = self.next_hop(destination, mark).await?;
        let links = self.links().await?;
        match links.into_iter().find(|l| l.index == found.index) {
            Some(link) => Ok(RouteTo {
                interface: link.name,
                ..found
            }),
            None => Err(Error::Netlink {
                what: format!("find a route to {destination}"),
                source: std::io::Error::from_raw_os_error(libc::ENETUNREACH),
            }),
        }
    }

    /// As [`Self::route_to`], without the interface's name: one question for each of many.
    ///
    /// # Errors
    /// [`Error::Netlink`] when there is none.
    pub async fn next_hop(&self, destination: IpAddr, mark: Option<u32>) -> Result<RouteTo> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.is_ipv6());
        message.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        message.attributes.extend(mark.map(RouteAttribute::Mark));
        let what = format!("find a route to {destination}");
        let answers = collect(&what, self.handle.route().get(message).execute()).await?;
        Ok(RouteTo::of(answers.into_iter().flat_map(|m| m.attributes)))
    }

    /// The best default route in the main table, if there is one.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn default_route(&self, v6: bool) -> Result<Option<RouteTo>> {
        let all = self.default_routes(v6).await?;
        Ok(all.into_iter().next())
    }

    /// All default routes in the main table, the best first.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn default_routes(&self, v6: bool) -> Result<Vec<RouteTo>> {
        let messages = self.dump(v6).await?;
        let mut found: Vec<_> = messages
            .into_iter()
            .filter(|m| {
                u32::from(m.header.table) == cygnet_gateway::MAIN_TABLE
                    && m.header.destination_prefix_length == 0
                    && m.header.kind == RouteType::Unicast
            })
            .collect();
        found.sort_by_key(|m| {
            let metric = m.attributes.iter().find_map(|a| match a {
                RouteAttribute::Priority(p) => Some(*p),
                _ => None,
            });
            metric.unwrap_or(0)
        });
        let links = self.links().await?;
        let named = |message: RouteMessage| {
            let mut way = RouteTo::of(message.attributes);
            let link = links.iter().find(|link| link.index == way.index)?;
            way.interface.clone_from(&link.name);
            Some(way)
        };
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// Interfaces by which a router is reached that announces itself (RFC 4861 §6.3.4): IPv6 default routes of
    /// its advertisements.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn announced(&self) -> Result<Vec<String>> {
        let messages = self.dump(true).await?;
        let announced = messages.into_iter().filter(|m| {
            m.header.protocol == RouteProtocol::Ra
                && m.header.destination_prefix_length == 0
                && m.header.kind == RouteType::Unicast
        });
        // Of several routers, each is a next hop of its own, or all are of one route.
        let indices: Vec<u32> = announced
            .flat_map(|m| m.attributes)
            .flat_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => vec![index],
                RouteAttribute::MultiPath(hops) => {
                    hops.iter().map(|hop| hop.interface_index).collect()
                }
                _ => Vec::new(),
            })
            .collect();
        let links = self.links().await?.into_iter();
        let names = links.filter(|link| indices.contains(&link.index));
        Ok(names.map(|link| link.name).collect())
    }

    /// All routes of a family.
    async fn dump(&self, v6: bool) -> Result<Vec<RouteMessage>> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family(v6);
        collect("list routes", self.handle.route().get(filter).execute()).await
    }

    async fn message(&self, route: &Route, owner: Owner) -> Result<RouteMessage> {
        let net = route.destination;
        let kind = match route.kind {
            RouteKind::Device(_) => RouteType::Unicast,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Throw => RouteType::Throw,
        };
        let what = || Error::Netlink {
            what: format!("write {net} as a route"),
            source: std::io::ErrorKind::InvalidInput.into(),
        };
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .map_err(|_| what())?
            .table_id(route.table)
            .protocol(RouteProtocol::from(owner.protocol()))
            .kind(kind);
        // Scope stays "universe", not "link" as `ip route` would have it: the kernel looks for the
        // next hop of a new route (another default route, by DHCP) among routes of scope link, and
        // must not find it behind a tunnel that leads everywhere.
        if let RouteKind::Device(name) = &route.kind {
            builder = builder.output_interface(self.link(name.as_str()).await?.index);
        }
        if route.metric != 0 {
            builder = builder.priority(route.metric);
        }
        let mut message = builder.build();
        message.attributes.extend(
            route
                .preferred_source
                .map(|a| RouteAttribute::PrefSource(a.into())),
        );
        Ok(message)
    }
}

impl RouteTo {
    /// All but the interface's name.
    fn of(attributes: impl IntoIterator<Item = RouteAttribute>) -> Self {
        let mut found = Self {
            index: 0,
            interface: String::new(),
            source: None,
            gateway: None,
        };
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(index) => found.index = index,
                RouteAttribute::PrefSource(a) => found.source = ip(&a),
                RouteAttribute::Gateway(a) => found.gateway = ip(&a),
                _ => {}
            }
        }
        found
    }
}

fn parse(message: &RouteMessage, v6: bool, names: &BTreeMap<u32, String>) -> Option<Route> {
    let mut destination: Option<IpAddr> = None;
    let mut table = u32::from(message.header.table);
    let mut metric = 0;
    let mut preferred_source = None;
    let mut oif = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => destination = ip(a),
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::PrefSource(a) => preferred_source = ip(a),
            RouteAttribute::Oif(index) => oif = Some(*index),
            _ => {}
        }
    }
    let any = if v6 {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    };
    let length = message.header.destination_prefix_length;
    let kind = match message.header.kind {
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Throw => RouteKind::Throw,
        _ => RouteKind::Device(InterfaceName::new(names.get(&oif?)?).ok()?),
    };
    Some(Route {
        table,
        destination: IpNet::new(destination.unwrap_or(any), length).ok()?,
        kind,
        metric,
        preferred_source,
    })
}

/// A route as the kernel will show it: IPv6 has no metric 0 (`IP6_RT_PRIO_USER`).
pub(crate) fn as_shown(route: &Route) -> Route {
    let metric = match (route.destination.addr().is_ipv6(), route.metric) {
        (true, 0) => 1024,
        (_, metric) => metric,
    };
    Route {
        metric,
        ..route.clone()
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

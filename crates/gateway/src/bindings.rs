//! Where a connection belongs that the kernel tracks, and whether the address that it was given as it began leads there.
//!
//! The kernel translates a connection as it began (a NAT binding, RFC 4787 §4 and RFC 5382 §4) and keeps to it as long as
//! packets come. Where the connection belongs may change meanwhile: another tunnel, another address that a server lends, a
//! site that came or went. Its binding is stale then: what it sends is dropped, or is answered to nobody. Whoever deletes the
//! entry lets the next packet begin it anew. What is where it belongs stays, so that a look at all of them is allowed
//! whenever anything changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::devices::{Device, Mac, Way};
use crate::inputs::{Dns, Inputs, InterfaceName, Lan, Tunnel};
use crate::mapping::Mapping;
use crate::own::{self, NAME_PORTS};
use crate::plan::{Family, is_never_forwarded};
use crate::{DIRECT_MARK, OWN_MARK};

/// A connection that the kernel tracks. Of one without ports (a ping) these are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Sender of the first packet, before any translation.
    pub source: IpAddr,
    /// Where it was sent.
    pub destination: IpAddr,
    /// Where answers are sent: to the sender, or to the address that its packets leave by.
    pub answered: IpAddr,
    /// Who answers: the destination, or whoever its packets were redirected to.
    pub answers: IpAddr,
    /// Its mark; 0: none.
    pub mark: u32,
    /// It is one of TCP.
    pub is_tcp: bool,
    /// Port of the source.
    pub source_port: Option<u16>,
    /// Port of the destination.
    pub port: Option<u16>,
    /// Port of who answers.
    pub answering_port: Option<u16>,
}

impl Connection {
    /// What an answer to a question for a name answers, where it began a connection: the question's was forgotten when it
    /// came. Nobody calls anything else from there, but what a firewall passes on is none.
    fn asked(&self) -> Option<Self> {
        let is_here = self.answers == self.destination && self.answered == self.source;
        let is_late = is_here && !self.is_tcp && is_name(self.source_port) && !is_name(self.port);
        is_late.then_some(Self {
            source: self.destination,
            destination: self.source,
            answered: self.answers,
            answers: self.answered,
            source_port: self.port,
            port: self.source_port,
            answering_port: self.source_port,
            ..*self
        })
    }
}

fn is_name(port: Option<u16>) -> bool {
    port.is_some_and(|port| NAME_PORTS.contains(&port))
}

/// Who sends a connection's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The neighbour with this MAC address.
    Known(Mac),
    /// Nobody knows, and nothing is said otherwise of any MAC address: what may be right is.
    Unknown,
    /// Nobody knows, and of its MAC address something else may be said than when it began: who is silent loses nothing.
    PerhapsChanged,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is where it belongs, or nobody knows better.
    Kept,
    /// It belongs elsewhere, or by another address.
    Stale,
    /// This machine itself began it in clear, and belongs into a tunnel with it; it is none of TCP. An answer that comes
    /// when the entry is gone would begin a connection, and whoever calls is answered in clear: it is ended when none is on
    /// its way.
    InClear,
}

/// What connections are judged by. As long as two are equal, so is every judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Without the addresses that go direct by their names, which are told of each connection.
    lan: Option<Lan>,
    /// This machine's addresses.
    own: BTreeSet<IpAddr>,
    /// Networks on its interfaces, those that the configuration calls local, and those that are closed.
    local: Vec<IpNet>,
    tunnels: Vec<Carrier>,
    /// The server's pools.
    pools: Vec<IpNet>,
    /// Addresses of the tunnels' peers, outside.
    peers: BTreeSet<IpAddr>,
    /// Ports that this machine talks to them from.
    ports: Vec<u16>,
    /// Where a resolver of this machine itself asks by the LAN's tunnel.
    asked_through: Vec<IpNet>,
    dns: Option<Dns>,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Carrier {
    interface: InterfaceName,
    kind: Kind,
    /// The peer lends addresses.
    client: bool,
    lent: Vec<IpAddr>,
    /// What the machine's own routes lead into it: a site's networks, or what is reached.
    networks: Vec<IpNet>,
    maps: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its networks belong to it for everybody, and are reached untranslated.
    Site,
    /// This machine's own traffic takes it.
    Own,
    /// The gateway's.
    Lan,
    /// Devices may be given it, or it is down.
    Other,
}

/// What nothing has any more that connections may still have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Each with the tunnel that had it.
    lent: BTreeMap<IpAddr, InterfaceName>,
    places: BTreeSet<IpAddr>,
    shown: BTreeSet<IpNet>,
}

impl Retired {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a connection has any of it.
    #[must_use]
    pub fn concern(&self, connection: &Connection) -> bool {
        let is_question = connection.port == Some(DNS_PORT);
        self.lent.contains_key(&connection.answered)
            || is_question && self.places.contains(&connection.answers)
            || (self.shown.iter()).any(|net| {
                net.contains(&connection.destination) || net.contains(&connection.answered)
            })
    }
}

/// Where a connection belongs.
enum Place<'b> {
    /// Networks behind tunnels between sites, by these; and the server's clients, by none of them.
    Untranslated(Vec<&'b Carrier>),
    /// This tunnel; `None`: one that it may not enter any more.
    Tunnel(Option<&'b Carrier>),
    /// This machine's ordinary way.
    Direct,
    Nowhere,
    /// The machine itself, or a network beside it.
    Near,
    Unknown,
}

const DNS_PORT: u16 = 53;

impl Bindings {
    /// For what a plan is made from, without what overlaps.
    #[must_use]
    pub fn new(inputs: &Inputs) -> Self {
        let lan = inputs.lan.clone().map(|mut lan| {
            lan.direct_names.addresses.clear();
            lan
        });
        let local = inputs.local_networks.iter().chain(&inputs.named);
        let local = local.chain(&inputs.closed).map(IpNet::trunc);
        let peers = inputs.tunnels.iter().flat_map(|tunnel| &tunnel.endpoints);
        let ways = own::ways(inputs).into_iter();
        // One that is called by what enters it is down: who asks for its server's name would call it.
        let asked_through = ways.filter(|way| !way.given && !way.tunnel.reached.is_empty());
        Self {
            lan,
            own: inputs.local_networks.iter().map(IpNet::addr).collect(),
            local: local.filter(|net| net.prefix_len() > 0).collect(),
            tunnels: inputs.tunnels.iter().map(carrier).collect(),
            pools: inputs.server.iter().flat_map(|s| s.pools.clone()).collect(),
            peers: peers.copied().collect(),
            ports: inputs.ports.clone(),
            asked_through: asked_through.flat_map(|way| way.reached).collect(),
            dns: inputs.dns.clone(),
        }
    }

    /// What there was `before` and is no more, besides what was `retired` earlier.
    #[must_use]
    pub fn retired(&self, before: &Self, retired: &Retired) -> Retired {
        let mut all = retired.clone();
        for tunnel in &before.tunnels {
            let lent = tunnel.lent.iter();
            all.lent
                .extend(lent.map(|address| (*address, tunnel.interface.clone())));
        }
        all.places.extend(before.places());
        all.shown.extend(before.shown());
        let (lent, places): (BTreeSet<_>, BTreeSet<_>) =
            (self.lent().collect(), self.places().collect());
        let shown: BTreeSet<IpNet> = self.shown().collect();
        all.lent.retain(|address, _| !lent.contains(address));
        all.places.retain(|address| !places.contains(address));
        all.shown.retain(|net| !shown.contains(net));
        all
    }

    /// What of it is gone for certain, and what a tunnel of the LAN that is down may be lent again.
    #[must_use]
    pub fn gone(&self, mut retired: Retired) -> (Retired, Retired) {
        let lent = std::mem::take(&mut retired.lent);
        let (waiting, gone) = lent.into_iter().partition(|(_, of)| self.waits(of));
        retired.lent = gone;
        let waiting = Retired {
            lent: waiting,
            ..Retired::default()
        };
        (retired, waiting)
    }

    /// Whether that is a tunnel of the LAN that will be lent an address.
    fn waits(&self, interface: &InterfaceName) -> bool {
        let lan = self.lan.as_ref();
        let is_given = lan.is_some_and(|lan| {
            let mut through = lan.through.iter();
            through.any(|through| through.interface == *interface)
        });
        self.tunnels.iter().any(|tunnel| {
            let of_lan = matches!(tunnel.kind, Kind::Lan) || is_given;
            tunnel.interface == *interface && of_lan && tunnel.client && tunnel.lent.is_empty()
        })
    }

    /// Whether something is said otherwise of a MAC address.
    #[must_use]
    pub fn differs_by_mac(&self, before: &Self) -> bool {
        fn by_mac(bindings: &Bindings) -> impl Iterator<Item = (Device, Way<'_>)> {
            let ways = bindings.lan.iter().flat_map(|lan| lan.devices.ways());
            ways.filter(|(device, _)| matches!(device, Device::Mac(_)))
        }
        by_mac(self).ne(by_mac(before))
    }

    /// Whether any connection may be stale by it.
    #[must_use]
    pub fn judges(&self) -> bool {
        self.lan.is_some() || self.shown().next().is_some()
    }

    /// Whether a connection of this machine itself may be.
    #[must_use]
    pub fn judges_own(&self) -> bool {
        self.lan.is_some()
    }

    /// What is to become of a connection. `by_name`: its destination is reached around the tunnel by its name.
    #[must_use]
    pub fn judge(&self, connection: &Connection, sender: Sender, by_name: bool) -> Verdict {
        let stale = |stale: bool| match stale {
            true => Verdict::Stale,
            false => Verdict::Kept,
        };
        if let Some(called) = self.called(connection) {
            return stale(called);
        }
        let Some(lan) = &self.lan else {
            // Who is no gateway of anybody has networks that are shown otherwise, and no more.
            return stale(self.is_shown_otherwise(connection));
        };
        if self.own.contains(&connection.source) {
            return self.own(lan, connection);
        }
        if let Some(question) = connection
            .asked()
            .filter(|it| self.own.contains(&it.source))
        {
            return self.own(lan, &question);
        }
        if self.is_own(connection.source) {
            // It began in the tunnel that lent the address.
            return Verdict::Kept;
        }
        stale(self.is_devices(lan, connection, sender, by_name))
    }

    fn lent(&self) -> impl Iterator<Item = IpAddr> {
        self.tunnels.iter().flat_map(|tunnel| &tunnel.lent).copied()
    }

    fn places(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.dns.iter().flat_map(|dns| &dns.addresses);
        addresses.map(|(_, address)| *address)
    }

    fn shown(&self) -> impl Iterator<Item = IpNet> {
        let maps = self.tunnels.iter().flat_map(|tunnel| &tunnel.maps);
        maps.map(Mapping::shown)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.lent().any(|lent| lent == address)
    }

    /// What came from another office for an address of ours: whether that is known by another.
    fn called(&self, connection: &Connection) -> Option<bool> {
        let Connection {
            source,
            destination,
            answers,
            ..
        } = *connection;
        let from = self
            .tunnels
            .iter()
            .filter(|tunnel| self.leads_to(tunnel, source));
        for map in from.flat_map(|tunnel| &tunnel.maps) {
            if let Some(own) = map.own_of(destination) {
                return Some(answers != own);
            }
            if map.own().contains(&destination) {
                return Some(true);
            }
        }
        None
    }

    /// Whether an address is in a network behind the tunnel, and in no network here that is as narrow.
    fn leads_to(&self, tunnel: &Carrier, address: IpAddr) -> bool {
        let local = holds(&self.local, address);
        holds(&tunnel.networks, address)
            .is_some_and(|length| local.is_none_or(|local| local < length))
    }

    /// What goes to another office by another address than its network has there.
    fn is_shown_otherwise(&self, connection: &Connection) -> bool {
        let to = connection.destination;
        let to = self
            .tunnels
            .iter()
            .filter(|tunnel| self.leads_to(tunnel, to));
        let mapped: Vec<&Carrier> = to.filter(|tunnel| !tunnel.maps.is_empty()).collect();
        !mapped.is_empty() && self.is_translated_otherwise(&mapped, connection)
    }

    /// Of what is untranslated but for maps.
    fn is_translated_otherwise(&self, tunnels: &[&Carrier], connection: &Connection) -> bool {
        let Connection {
            source,
            answered,
            mark,
            ..
        } = *connection;
        let maps = tunnels.iter().flat_map(|tunnel| &tunnel.maps);
        let shown: Vec<IpAddr> = maps.filter_map(|map| map.shown_of(source)).collect();
        let as_it_should = match shown.as_slice() {
            [] => answered == source,
            shown => shown.contains(&answered),
        };
        // By a firewall of the operator's, who has his reasons.
        let by_another = answered != source && self.own.contains(&answered) && mark == 0;
        !as_it_should && !by_another
    }

    /// The networks behind tunnels between sites, or of the server's clients, that are the narrowest around an address.
    fn untranslated(&self, address: IpAddr) -> Option<(u8, Place<'_>)> {
        let sites = self.tunnels.iter().filter(|t| t.kind == Kind::Site);
        let sites = sites.filter_map(|site| Some((holds(&site.networks, address)?, Some(site))));
        let pools = holds(&self.pools, address).map(|length| (length, None));
        // Of one that is everything nothing is told from the internet.
        let all = sites.chain(pools).filter(|(length, _)| *length > 0);
        let all: Vec<(u8, Option<&Carrier>)> = all.collect();
        let narrowest = all.iter().map(|(length, _)| *length).max()?;
        let alike = all.iter().filter(|(length, _)| *length == narrowest);
        let place = match holds(&self.local, address) {
            Some(local) if local >= narrowest => Place::Unknown,
            _ => Place::Untranslated(alike.filter_map(|(_, site)| *site).collect()),
        };
        Some((narrowest, place))
    }

    fn into<'b>(&'b self, lan: &'b Lan, way: Way<'_>) -> Place<'b> {
        let mut tunnels = self.tunnels.iter();
        match way {
            Way::Tunnelled => {
                Place::Tunnel(tunnels.find(|tunnel| matches!(tunnel.kind, Kind::Lan)))
            }
            Way::Through(name) => {
                let through = lan.through.iter().find(|through| through.tunnel == name);
                Place::Tunnel(through.and_then(|through| {
                    tunnels.find(|tunnel| tunnel.interface == through.interface)
                }))
            }
            Way::Direct => Place::Direct,
            Way::Blocked => Place::Nowhere,
        }
    }

    /// Whether its address leads nowhere in this tunnel.
    fn is_unknown_in(&self, tunnel: &Carrier, connection: &Connection) -> bool {
        let answered = connection.answered;
        if !tunnel.client {
            // What the machine itself sends there gets an address of its own.
            let is_own = connection.mark == OWN_MARK && self.own.contains(&answered);
            return !is_own && self.is_translated_otherwise(&[tunnel], connection);
        }
        let mut lent = tunnel
            .lent
            .iter()
            .filter(|a| Family::of(**a) == Family::of(answered));
        match lent.clone().next() {
            Some(_) => !lent.any(|lent| *lent == answered),
            // Perhaps it gets the one again that it had.
            None => {
                let is_source = answered == connection.source;
                self.is_own(answered) && !(is_source && connection.mark == OWN_MARK)
            }
        }
    }

    /// A connection that this machine itself began.
    fn own(&self, lan: &Lan, connection: &Connection) -> Verdict {
        let led = connection.mark == OWN_MARK;
        let answered = connection.answered;
        let in_clear = !led && (answered == connection.source || self.own.contains(&answered));
        let stale = match self.own_place(lan, connection) {
            Place::Unknown => false,
            Place::Near | Place::Direct => led,
            Place::Untranslated(sites) => led || self.is_translated_otherwise(&sites, connection),
            Place::Tunnel(Some(tunnel)) if tunnel.kind == Kind::Own => {
                self.is_unknown_in(tunnel, connection)
            }
            Place::Tunnel(Some(tunnel)) if !in_clear => self.is_unknown_in(tunnel, connection),
            Place::Tunnel(_) | Place::Nowhere => true,
        };
        match stale {
            // Its next packet is refused, whoever speaks first, and the program begins another. Without the entry an answer
            // would begin a connection.
            true if in_clear && connection.is_tcp => Verdict::Kept,
            true if in_clear => Verdict::InClear,
            true => Verdict::Stale,
            false => Verdict::Kept,
        }
    }

    fn own_place<'b>(&'b self, lan: &'b Lan, connection: &Connection) -> Place<'b> {
        let to = connection.destination;
        // A tunnel's own packets, or by the tunnel what else is asked of a peer.
        let is_name = is_name(connection.port);
        let is_outer = (self.peers.contains(&to) && !is_name)
            || (connection.source_port).is_some_and(|port| self.ports.contains(&port));
        if is_outer {
            return Place::Unknown;
        }
        if self.is_own(to) || is_never_forwarded(to) {
            return Place::Near;
        }
        let needs = lan.own.as_ref();
        let beside = needs.into_iter().flat_map(|needs| &needs.beside);
        let mut near = lan.networks.iter().chain(beside.map(|(_, net)| net));
        if near.any(|net| net.contains(&to)) {
            return Place::Near;
        }
        // Its own routes are asked first, whatever is led by a mark.
        let own = self.tunnels.iter().filter(|t| t.kind == Kind::Own);
        let own = own.filter_map(|tunnel| Some((holds(&tunnel.networks, to)?, tunnel)));
        // Of several the first has what they have in common.
        let own = own.reduce(|first, other| if other.0 > first.0 { other } else { first });
        let own = own.map(|(length, tunnel)| (length, Place::Tunnel(Some(tunnel))));
        let routed = match (self.untranslated(to), own) {
            (Some(site), Some(own)) if own.0 > site.0 => Some(own),
            (site, own) => site.or(own),
        };
        if let Some((length, place)) = routed {
            let is_local = holds(&self.local, to).is_some_and(|local| local >= length);
            return match is_local || lan.given_to(to).is_some() {
                true => Place::Unknown,
                false => place,
            };
        }
        let Some(needs) = needs else {
            return Place::Direct;
        };
        let is_needed = (connection.port).is_some_and(|port| NEEDED.contains(&port))
            || match &needs.resolvers {
                Some(resolvers) => is_name && resolvers.contains(&to),
                None => is_name && holds(&self.asked_through, to).is_none(),
            };
        match lan.own_way(to) {
            Way::Tunnelled if is_needed => Place::Direct,
            way => self.into(lan, way),
        }
    }

    /// Whether a device's connection is stale. Beyond the LAN's networks who is known in the LAN is a device; others this
    /// machine forwards for as its operator likes. Of one in the LAN whose MAC address is not known whatever is said of MAC
    /// addresses may be.
    fn is_devices(
        &self,
        lan: &Lan,
        connection: &Connection,
        sender: Sender,
        by_name: bool,
    ) -> bool {
        let (from, to) = (connection.source, connection.destination);
        let inside = holds(&lan.networks, from).is_some();
        let is_others = || {
            let elsewhere = self.untranslated(from).is_some();
            elsewhere || holds(&self.local, from).is_some() || is_never_forwarded(from)
        };
        let mac = match sender {
            Sender::Known(mac) => Some(mac),
            Sender::Unknown | Sender::PerhapsChanged => None,
        };
        if is_never_forwarded(to) || (!inside && (mac.is_none() || is_others())) {
            return false;
        }
        let mut ways = lan.devices.possible_ways(mac, from).into_iter();
        let is_stale = |way: Way<'_>| {
            let mut names = [false, true].into_iter().filter(|name| by_name || !name);
            names.all(|name| self.is_stale_on(lan, connection, way, name))
        };
        match sender {
            Sender::Unknown => ways.all(is_stale),
            Sender::Known(_) | Sender::PerhapsChanged => ways.any(is_stale),
        }
    }

    /// `way`: its sender's.
    fn is_stale_on(&self, lan: &Lan, connection: &Connection, way: Way<'_>, name: bool) -> bool {
        let Connection {
            destination: to,
            answered,
            answers,
            mark,
            ..
        } = *connection;
        if let Some(stale) = self.is_question_astray(lan, connection, way) {
            return stale;
        }
        // Redirected by a firewall of the operator's.
        if self.is_own(to) || answers != to {
            return false;
        }
        if holds(&lan.networks, to).is_some() {
            return self.lent().any(|lent| lent == answered);
        }
        match self.devices_place(lan, to, way, name) {
            Place::Near | Place::Unknown => false,
            Place::Untranslated(sites) => self.is_translated_otherwise(&sites, connection),
            Place::Tunnel(Some(tunnel)) => self.is_unknown_in(tunnel, connection),
            Place::Tunnel(None) | Place::Nowhere => true,
            // As the guard asks it.
            Place::Direct => mark != DIRECT_MARK && !self.own.contains(&answered),
        }
    }

    fn devices_place<'b>(
        &'b self,
        lan: &'b Lan,
        to: IpAddr,
        way: Way<'_>,
        name: bool,
    ) -> Place<'b> {
        if way == Way::Blocked {
            return Place::Nowhere;
        }
        let given = lan.given_to(to).map(|(net, _)| net.prefix_len());
        match self.untranslated(to) {
            Some((length, place)) if given.is_none_or(|given| length > given) => place,
            _ => self.into(lan, lan.way_to(to, way, name)),
        }
    }

    /// Of a question for a name that is answered here, or was turned to us: whether it would be so now.
    fn is_question_astray(&self, lan: &Lan, connection: &Connection, way: Way<'_>) -> Option<bool> {
        let Connection {
            destination: to,
            answers,
            answering_port: Some(port),
            port: Some(DNS_PORT),
            ..
        } = *connection
        else {
            return None;
        };
        let dns = self.dns.as_ref()?;
        let is_turned = answers != to || port != DNS_PORT;
        let is_ours = |address: IpAddr| self.places().any(|place| place == address);
        if !self.own.contains(&answers) || !(is_turned || is_ours(to)) {
            return None;
        }
        let is_elsewhere = || {
            let near = self.own.contains(&to) || holds(&lan.networks, to).is_some();
            let mut sites = self.tunnels.iter().filter(|t| t.kind == Kind::Site);
            let site = sites.any(|site| holds(&site.networks, to).is_some_and(|l| l > 0));
            !near && (site || lan.given_to(to).is_some())
        };
        let is_direct = match way {
            Way::Tunnelled => lan.on_failure.is_open(),
            way => way == Way::Direct,
        };
        let as_it_should = match way {
            Way::Tunnelled | Way::Direct if is_direct && dns.direct => match is_ours(to) {
                true => is_ours(answers) && port == Dns::DIRECT_PORT,
                false => !is_turned,
            },
            Way::Tunnelled if !is_elsewhere() => is_ours(answers) && port == DNS_PORT,
            _ => !is_turned,
        };
        Some(!as_it_should)
    }
}

/// Ports of what a guarded machine needs from outside besides names: DHCP, and the time (RFC 5905, RFC 8915).
const NEEDED: [u16; 4] = [67, 547, 123, 4460];

fn carrier(tunnel: &Tunnel) -> Carrier {
    let kind = match (tunnel.own_traffic, tunnel.client, tunnel.carries_lan) {
        (true, false, _) => Kind::Site,
        (true, true, _) => Kind::Own,
        (false, _, true) => Kind::Lan,
        (false, _, false) => Kind::Other,
    };
    Carrier {
        interface: tunnel.interface.clone(),
        kind,
        client: tunnel.client,
        lent: tunnel.virtual_addresses.clone(),
        networks: match kind {
            Kind::Site => tunnel.remote.clone(),
            Kind::Own => tunnel.reached.clone(),
            Kind::Lan if !tunnel.client => tunnel.remote.clone(),
            Kind::Lan | Kind::Other => Vec::new(),
        },
        maps: tunnel.maps.clone(),
    }
}

/// The length of the narrowest of these that holds the address.
fn holds(nets: &[IpNet], address: IpAddr) -> Option<u8> {
    let holding = nets.iter().filter(|net| net.contains(&address));
    holding.map(IpNet::prefix_len).max()
}

#[cfg(test)]
mod tests;

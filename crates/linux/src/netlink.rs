//! Interfaces, addresses, neighbours; routes and rules are in `netlink/route.rs` and `rule.rs`.

mod changes;
mod firewall;
mod route;
mod rule;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use rtnetlink::LinkUnspec;

use crate::{Error, Result};
pub use changes::Changes;
pub use firewall::FirewallChanges;
pub use route::RouteTo;
pub(crate) use route::as_shown;

/// Packets that wait in an interface until they are read. A TUN's own default, half of it, overflows when its
/// reader waits for a processor while small packets come.
const QUEUE: u32 = 1000;

/// The kernel tells times to programs in these parts of a second, on every architecture of ours.
const USER_HZ: u64 = 100;

/// Whose routes and rules: told apart by the protocol number they carry, and for rules by their
/// priority as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A [`cygnet_gateway::NetworkPlan`].
    Plan,
    /// A [`cygnet_gateway::GuardPlan`].
    Guard,
}

impl Owner {
    fn protocol(self) -> u8 {
        match self {
            Self::Plan => cygnet_gateway::PLAN_PROTOCOL,
            Self::Guard => cygnet_gateway::GUARD_PROTOCOL,
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number, unique in the namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Cable in.
    pub carrier: bool,
    /// Hardware address, empty for a TUN.
    pub mac: Vec<u8>,
    /// It joins others, as containers' and virtual machines' are.
    pub bridge: bool,
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// Address with prefix length.
    pub net: IpNet,
    /// It stays until somebody takes it away; what another machine lent has an end.
    pub permanent: bool,
}

/// A neighbour the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface.
    pub index: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, empty while unresolved.
    pub mac: Vec<u8>,
    /// How long ago it last gave a sign of itself.
    pub silent: Duration,
}

/// A connection to the kernel's routing. Made on a tokio runtime, used on the same; belongs to the
/// network namespace of the thread that made it.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Connects, and spawns the task that reads the answers onto the current runtime.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn connect() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| Error::io("open a netlink socket", e))?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = collect("list interfaces", self.handle.link().get().execute()).await?;
        Ok(messages
            .into_iter()
            .map(|m| {
                let mut link = Link {
                    index: m.header.index,
                    name: String::new(),
                    mtu: 0,
                    up: m.header.flags.contains(LinkFlags::Up),
                    carrier: m.header.flags.contains(LinkFlags::LowerUp),
                    mac: Vec::new(),
                    bridge: false,
                };
                for attribute in m.attributes {
                    match attribute {
                        LinkAttribute::IfName(name) => link.name = name,
                        LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                        LinkAttribute::Address(mac) => link.mac = mac,
                        LinkAttribute::LinkInfo(infos) => {
                            link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                        }
                        _ => {}
                    }
                }
                link
            })
            .collect())
    }

    /// An interface by name.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`].
    pub async fn link(&self, name: &str) -> Result<Link> {
        self.links()
            .await?
            .into_iter()
            .find(|l| l.name == name)
            .ok_or_else(|| Error::NoSuchInterface(name.to_owned()))
    }

    /// Sets an interface's MTU, has its queue hold as many packets as one of Ethernet does, and switches it
    /// on.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn set_link_up(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index)
            .mtu(mtu)
            .txqueuelen(QUEUE)
            .up()
            .build();
        let what = || format!("set interface {index} up with MTU {mtu}");
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|e| error(what(), e))
    }

    /// Removes an interface; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn remove_link(&self, index: u32) -> Result<()> {
        let done = self.handle.link().del(index).execute().await;
        absent_is_fine(format!("remove interface {index}"), done)
    }

    /// All addresses.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages = collect("list addresses", self.handle.address().get().execute()).await?;
        Ok(messages
            .into_iter()
            .filter_map(|m| {
                // On a point-to-point link IFA_ADDRESS is the other end, IFA_LOCAL ours.
                let of = |local: bool| {
                    m.attributes.iter().find_map(|a| match a {
                        AddressAttribute::Local(a) if local => Some(*a),
                        AddressAttribute::Address(a) if !local => Some(*a),
                        _ => None,
                    })
                };
                let net = IpNet::new(of(true).or_else(|| of(false))?, m.header.prefix_len).ok()?;
                let flags = m.header.flags;
                Some(Address {
                    index: m.header.index,
                    net,
                    permanent: flags.contains(AddressHeaderFlags::Permanent),
                })
            })
            .collect())
    }

    /// Adds an address, or changes it if it is there.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn add_address(&self, index: u32, net: IpNet) -> Result<()> {
        let mut request = self
            .handle
            .address()
            .add(index, net.addr(), net.prefix_len());
        // A tentative address cannot be a route's preferred source.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let what = || format!("add address {net} to interface {index}");
        request
            .replace()
            .execute()
            .await
            .map_err(|e| error(what(), e))
    }

    /// Removes an address; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn remove_address(&self, index: u32, net: IpNet) -> Result<()> {
        let mut request = self
            .handle
            .address()
            .add(index, net.addr(), net.prefix_len());
        let message = request.message_mut().clone();
        let what = || format!("remove address {net} from interface {index}");
        absent_is_fine(what(), self.handle.address().del(message).execute().await)
    }

    /// Neighbours with an address.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let messages = collect("list neighbours", self.handle.neighbours().get().execute()).await?;
        Ok(messages
            .into_iter()
            .filter_map(|m| {
                let mut address = None;
                let mut mac = Vec::new();
                let mut silent = Duration::ZERO;
                for attribute in m.attributes {
                    match attribute {
                        // Of an entry that was never confirmed the one is nonsense, and it is young.
                        NeighbourAttribute::CacheInfo(info) => {
                            let ticks = info.confirmed.min(info.updated);
                            silent = Duration::from_millis(u64::from(ticks) * 1000 / USER_HZ);
                        }
                        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                            address = Some(a.into());
                        }
                        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                            address = Some(a.into());
                        }
                        NeighbourAttribute::LinkLayerAddress(a) => mac = a,
                        _ => {}
                    }
                }
                Some(Neighbour {
                    index: m.header.ifindex,
                    address: address?,
                    mac,
                    silent,
                })
            })
            .collect())
    }

    /// Prefixes of this machine's own interfaces, without loopback, link-local ones and the
    /// interfaces named.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn local_networks(&self, except: &[&str]) -> Result<Vec<IpNet>> {
        let links = self.links().await?;
        let mut nets: Vec<IpNet> = self
            .addresses()
            .await?
            .into_iter()
            .filter(|a| {
                let link = links.iter().find(|l| l.index == a.index);
                link.is_some_and(|l| !except.contains(&l.name.as_str()))
            })
            .map(|a| a.net.trunc())
            .filter(|net| {
                let link_local = match net.addr() {
                    IpAddr::V4(a) => a.is_link_local(),
                    IpAddr::V6(a) => a.is_unicast_link_local(),
                };
                !net.addr().is_loopback() && !link_local
            })
            .collect();
        nets.sort();
        nets.dedup();
        Ok(nets)
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

async fn collect<T>(
    what: &str,
    stream: impl Stream<Item = std::result::Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>> {
    let mut stream = std::pin::pin!(stream);
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        all.push(item.map_err(|e| error(what, e))?);
    }
    Ok(all)
}

fn error(what: impl Into<String>, e: rtnetlink::Error) -> Error {
    let what = what.into();
    let source = match e {
        rtnetlink::Error::NetlinkError(e) => e.to_io(),
        other => io::Error::other(other),
    };
    match source.raw_os_error() {
        Some(libc::EPERM) => Error::NotPermitted { what },
        _ => Error::Netlink { what, source },
    }
}

/// For removals: what is gone already is as wanted.
fn absent_is_fine(what: String, r: std::result::Result<(), rtnetlink::Error>) -> Result<()> {
    match r.map_err(|e| error(what, e)) {
        Err(Error::Netlink { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENODEV)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

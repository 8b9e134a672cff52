//! What the supervisor and the process that answers devices say to each other.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Supervisor to resolver. Each replaces what it said of the same before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToResolver {
    /// Where to answer, and whom to ask. For each address a UDP socket and a TCP listener come with it, in order.
    Serve {
        /// On the LAN.
        places: Vec<Place>,
        /// Networks of the LAN: nobody else is answered.
        clients: Vec<IpNet>,
        /// Whom to ask.
        ways: Box<Ways>,
    },
    /// Names that are not answered. The files, in hosts format, come with it, in order.
    Block {
        /// Their names, for messages.
        names: Vec<String>,
    },
    /// What came of [`FromResolver::LetOut`] of that number.
    LetOut {
        /// Which.
        id: u64,
        /// All of it goes direct now that may.
        done: bool,
    },
}

/// Resolver to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromResolver {
    /// All there is to know of it, whenever something changed.
    Report(Report),
    /// Names that go direct are about to be answered. There is no other such message before this one is answered.
    LetOut {
        /// Its number.
        id: u64,
        /// Which.
        asked: Vec<LetOut>,
    },
}

/// A name of a domain that goes direct, and addresses that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LetOut {
    /// Lower case, no final dot.
    pub(crate) name: String,
    /// At most [`Self::ADDRESSES`].
    pub(crate) addresses: Vec<IpAddr>,
}

impl LetOut {
    /// Names in one message at most.
    pub(crate) const AT_ONCE: usize = 32;
    /// Addresses of one answer that go direct at most.
    pub(crate) const ADDRESSES: usize = 32;
}

/// An address of this machine, and who asks there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    /// On the LAN.
    pub(crate) address: IpAddr,
    /// Devices that go direct: nobody else reaches it. What is behind the tunnel for others is asked of this machine's
    /// own resolvers for them.
    pub(crate) direct: bool,
}

/// Whom to ask about which names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// The way into the tunnel, or why there is none at this moment: nothing is asked then.
    pub(crate) tunnel: Result<Inside, NoWay>,
    /// The resolvers behind the tunnel are asked over TLS.
    pub(crate) tls: Option<Tls>,
    /// Domains that this machine's own resolvers are asked for.
    pub(crate) direct: Vec<String>,
    /// These resolvers; empty: those of `/etc/resolv.conf`.
    pub(crate) direct_resolvers: Vec<IpAddr>,
    /// Domains that go direct: what their names have for addresses.
    pub(crate) direct_domains: Vec<String>,
    /// Domains of the LAN's own names.
    pub(crate) lan_domains: Vec<String>,
    /// Responses that are kept.
    pub(crate) cache: u32,
}

/// Why nobody behind the tunnel is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoWay {
    /// The tunnel of this name is down, which is told with the tunnel.
    Down(String),
    /// Something else: a sentence.
    Other(String),
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(tunnel) => write!(f, "tunnel {tunnel} is down"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// A tunnel that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inside {
    /// Its TUN: nothing leaves by another interface.
    pub(crate) interface: String,
    /// Addresses of ours in it, one of each family at most.
    pub(crate) sources: Vec<IpAddr>,
    /// Whom to ask behind it.
    pub(crate) resolvers: Vec<IpAddr>,
}

impl Inside {
    /// Our address for packets to `resolver`.
    pub(crate) fn source_to(&self, resolver: IpAddr) -> Option<IpAddr> {
        let mut sources = self.sources.iter().copied();
        sources.find(|source| source.is_ipv4() == resolver.is_ipv4())
    }
}

/// How resolvers prove themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tls {
    /// The name in their certificates.
    pub(crate) name: String,
    /// Who has to have issued them, DER; empty: one of the system's authorities.
    pub(crate) authorities: Vec<Vec<u8>>,
}

/// All there is to know of the resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was asked and what came of it.
    pub(crate) counters: Counters,
    /// Names on the block lists.
    pub(crate) blocked_names: u64,
    /// What is wrong, a sentence each.
    pub(crate) troubles: Vec<String>,
}

/// Since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Questions of devices.
    pub(crate) queries: u64,
    /// Answered from the cache.
    pub(crate) cache_hits: u64,
    /// Answered by a block list.
    pub(crate) blocked: u64,
    /// Asked of this machine's own resolvers, outside the tunnel.
    pub(crate) direct: u64,
    /// Answered with SERVFAIL: the tunnel is down, or nobody answered.
    pub(crate) failures: u64,
    /// Not answered: too many at once, no question, or from elsewhere than the LAN.
    pub(crate) dropped: u64,
}

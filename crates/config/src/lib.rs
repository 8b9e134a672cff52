//! `cygnet.toml`: text to policy, with errors that point at the line.
//!
//! [`Config::parse`] reads the text and the public files it names (certificates, CRLs) through a
//! callback, so that the supervisor (which has files) and the engine (which has none) arrive at
//! the very same [`cygnet_ike::policy::Policy`]. Private keys and pre-shared keys are only named.

mod admission;
mod advertise;
mod build;
mod devices;
mod dhcp;
mod dns;
mod error;
mod guard;
mod lan;
mod parse;
mod plain;
mod raw;
mod sections;
mod units;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_gateway::Mapping;
use cygnet_ike::policy::{CredentialId, Policy, PoolId, TrustId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use admission::admission_files;
pub use advertise::Advertise;
pub use build::{RUN_DIR, STATE_DIR, default_interface};
pub use devices::Device;
pub use dhcp::{AddressRange, Dhcp};
pub use dns::{Dns, DnsTls, Dot};
pub use error::{ConfigError, Mistake};
pub use guard::GuardSections;
pub use lan::{LanDevices, Through};

/// Name of the connection that the `[server]` section becomes.
pub const SERVER: &str = "server";

/// A configuration, checked, ready to be obeyed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The program itself.
    pub daemon: Daemon,
    /// `[server]`.
    pub server: Option<Server>,
    /// `[tunnel.NAME]`, by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// `[gateway]`.
    pub gateway: Option<Gateway>,
    /// What the IKE core obeys.
    pub policy: Arc<Policy>,
    /// Files of the secrets the policy names.
    pub credentials: BTreeMap<CredentialId, CredentialFile>,
    /// Anchors and CRLs the policy names.
    pub trusts: BTreeMap<TrustId, Trust>,
    /// Pools the policy names.
    pub pools: BTreeMap<PoolId, Pool>,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Control socket and journal.
    pub run_dir: String,
    /// What outlives a restart of the machine: the guard that was last in place.
    pub state_dir: String,
    /// Most talkative level that is written.
    pub log: LogLevel,
    /// User the engine becomes: a name or a number; `None`: `cygnet` if there is one, else `nobody`.
    pub engine_user: Option<String>,
    /// Local IKE port.
    pub ike_port: u16,
    /// Local NAT-T port: IKE with marker, and ESP.
    pub natt_port: u16,
    /// Local addresses to answer on.
    pub listen: Vec<IpAddr>,
    /// Threads that seal, and as many that open; `None`: by the number of processors.
    pub workers: Option<usize>,
    /// Who is asked for the date while the machine's clock cannot be right: names and addresses; none: nobody is.
    pub time_servers: Vec<String>,
}

impl Daemon {
    /// More threads in a direction than this help nobody.
    pub const MAX_WORKERS: u16 = 64;
    /// More time servers than this need not agree.
    pub const MAX_TIME_SERVERS: usize = 8;
    /// Time servers where none are named: of four operators in three countries, each open to everybody.
    pub const TIME_SERVERS: [&str; 4] = [
        "time.cloudflare.com",
        "time.google.com",
        "ptbtime1.ptb.de",
        "ntp.se",
    ];
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs a hand.
    Error,
    /// What may need one.
    Warn,
    /// One line each event that matters.
    Info,
    /// Addresses and user names too.
    Debug,
    /// Packets too.
    Trace,
}

/// `[server]`, network side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// TUN interface.
    pub interface: String,
    /// Its MTU, if fixed.
    pub mtu: Option<u16>,
    /// Addresses lent to clients.
    pub pools: Vec<IpNet>,
    /// What clients may reach.
    pub networks: Vec<IpNet>,
    /// Where clients' traffic leaves; `None`: the interface of the default route.
    pub uplink: Option<String>,
    /// Translate clients' addresses there.
    pub nat: Nat,
    /// Clients may reach whatever the server itself offers; otherwise ping and DNS alone.
    pub host_access: bool,
    /// Clients may reach each other.
    pub client_to_client: bool,
    /// Clients' packets to private networks that are not here, and file sharing, do not leave by the uplink.
    pub block_private: bool,
    /// Private networks that clients reach by the uplink all the same: those of `networks`, resolvers.
    pub inside: Vec<IpNet>,
    /// Whose certificates they are, if that is written down.
    pub devices: Vec<Device>,
    /// Run when a client comes or goes.
    pub hook: Option<Hook>,
    /// Speed is measured for clients, at the server's own addresses in the pools.
    pub speedtest: bool,
}

/// Of which families clients' addresses are translated where they leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Of both.
    Both,
    /// Of IPv4; an IPv6 prefix is routed to this machine.
    Ipv4,
    /// Of none.
    Off,
}

/// `[tunnel.NAME]`, network side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// TUN interface.
    pub interface: String,
    /// Its MTU, if fixed.
    pub mtu: Option<u16>,
    /// Networks of the peer's side as configured, over all children.
    pub remote_networks: Vec<IpNet>,
    /// Networks of ours as configured; empty where they are the virtual or outer address.
    pub local_networks: Vec<IpNet>,
    /// Those of them that the other side knows by other addresses.
    pub maps: Vec<Mapping>,
    /// Whether the peer lends us addresses.
    pub virtual_address: bool,
    /// The tunnel whose networks it carries while that one is down.
    pub standby_for: Option<String>,
    /// Run when the tunnel goes up or down.
    pub hook: Option<Hook>,
}

/// A program of the operator's, which is told of what is up in the variables of strongSwan's updown scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its path, from the root of the file system.
    pub program: String,
    /// What it is given on its command line.
    pub arguments: Vec<String>,
    /// How long a run may take.
    pub timeout: Duration,
    /// Whom it runs as, a name or a number; `None`: root.
    pub user: Option<String>,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Through which tunnel.
    pub tunnel: String,
    /// Interfaces of the LAN.
    pub lan: Vec<String>,
    /// Networks of the LAN; `None`: what the interfaces have.
    pub networks: Option<Vec<IpNet>>,
    /// Fail closed.
    pub guard: bool,
    /// What this machine itself may send outside while the guard is in place.
    pub own_traffic: OwnTraffic,
    /// Its devices.
    pub devices: LanDevices,
    /// `[gateway.dns]`: this machine answers the devices' questions for names.
    pub dns: Option<Dns>,
    /// Addresses are lent by this machine.
    pub dhcp: Option<Dhcp>,
    /// This machine is advertised as router for IPv6, without `dhcp`.
    pub advertise: Option<Advertise>,
}

impl Gateway {
    /// Whether this machine itself may send outside no more than it needs.
    #[must_use]
    pub fn holds_own_traffic(&self) -> bool {
        self.guard && self.own_traffic == OwnTraffic::Needed
    }
}

/// What the machine of a guarded gateway itself may send outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnTraffic {
    /// What it needs to be one; the rest goes through the tunnel, or is refused.
    #[default]
    Needed,
    /// What it likes.
    All,
}

impl OwnTraffic {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "needed" => Ok(Self::Needed),
            "all" => Ok(Self::All),
            _ => Err(format!(
                "`{text}` is no choice for this machine's own traffic: expected \"needed\" (what a gateway needs; the rest \
                 goes through the tunnel or nowhere) or \"all\" (whatever it sends, in clear)"
            )),
        }
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialFile {
    /// A private key; `certificate` is the file whose leaf it must match.
    Key {
        /// Path as written.
        path: String,
        /// Path as written.
        certificate: String,
    },
    /// A pre-shared key.
    Psk {
        /// Path as written.
        path: String,
    },
    /// The password that we log in with.
    Password {
        /// Path as written.
        path: String,
    },
    /// Users that may log in, with their passwords' hashes.
    Passwords {
        /// Path as written.
        path: String,
    },
}

/// Who vouches for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Anchors, DER.
    pub anchors: Vec<Vec<u8>>,
    /// CRL files' contents, as read.
    pub crls: Vec<Vec<u8>>,
    /// Where further CRLs are fetched from: `http://host[:port]/path`.
    pub crl_urls: Vec<String>,
}

/// Addresses to lend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Networks, at most one of each family is used for a lease.
    pub networks: Vec<IpNet>,
    /// Resolvers handed out with an address.
    pub dns: Vec<IpAddr>,
    /// Names below these are asked there, and no others (RFC 8598); empty: all names are.
    pub domains: Vec<String>,
    /// The first addresses are told to who asks where speed is measured.
    pub speedtest: bool,
}

impl Config {
    /// Reads `text`, which is called `name` in messages. `read` yields the content of a public
    /// file by its path as written, or one sentence why not.
    pub fn parse(
        name: &str,
        text: &str,
        read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Config, ConfigError> {
        let raw: raw::RawConfig = toml::from_str(text)
            .map_err(|e| ConfigError::new(name, text, vec![plain::mistake(text, &e)]))?;
        build::Builder::new(read)
            .build(&raw)
            .map_err(|mistakes| ConfigError::new(name, text, mistakes))
    }

    /// Whether `text` is TOML at all, in the words of [`Config::parse`], whatever it says.
    ///
    /// # Errors
    /// It is none: where, and what to do.
    pub fn check_syntax(name: &str, text: &str) -> Result<(), ConfigError> {
        let read = toml::from_str::<toml::Table>(text);
        read.map(drop)
            .map_err(|e| ConfigError::new(name, text, vec![plain::mistake(text, &e)]))
    }

    /// The interface of a connection of the policy.
    pub fn interface_of(&self, connection: &str) -> Option<&str> {
        if connection == SERVER {
            return self.server.as_ref().map(|s| s.interface.as_str());
        }
        self.tunnels.get(connection).map(|t| t.interface.as_str())
    }

    /// The hook of a connection of the policy.
    pub fn hook_of(&self, connection: &str) -> Option<&Hook> {
        if connection == SERVER {
            return self.server.as_ref()?.hook.as_ref();
        }
        self.tunnels.get(connection)?.hook.as_ref()
    }
}

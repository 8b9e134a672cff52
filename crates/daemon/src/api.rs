//! What the control socket says: the types behind `docs/api.md` and `cygnet status --json`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use cygnet_gateway::DevicePolicy;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// The configuration file that it runs by, as it was named at its start, from the root of the file system.
    pub config: PathBuf,
    /// Process ids.
    pub processes: Processes,
    /// Seconds since the supervisor started.
    pub uptime_s: u64,
    /// How often the engine was started again.
    pub engine_restarts: u32,
    /// The fail-closed rules of a gateway.
    pub guard: Guard,
    /// Whether the gateway lets anything of its LAN leave in clear.
    #[serde(default)]
    pub lets_out: bool,
    /// Whether tunnelled devices go direct at this moment, because the tunnel is down (`on_failure = "direct"`).
    #[serde(default)]
    pub let_out: bool,
    /// What hinders the program, each with what to do.
    pub warnings: Vec<String>,
    /// By whose date certificates are judged while nobody keeps this machine's clock right; `None`: by its own, or nobody
    /// knows the date (a warning says so).
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// `None` while the engine is being restarted.
    pub engine: Option<EngineStatus>,
    /// How devices are answered that ask for names; `None`: they are not.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// Domains that go direct, by the configuration.
    #[serde(default)]
    pub direct_domains: Vec<DirectDomain>,
    /// Addresses lent to clients.
    pub leases: Vec<LeaseStatus>,
    /// What happened to each tunnel lately, by name.
    #[serde(default)]
    pub history: Vec<TunnelHistory>,
    /// Addresses lent to devices of the LAN; `None`: this machine has no `[gateway.dhcp]`.
    #[serde(default)]
    pub dhcp: Option<DhcpStatus>,
    /// This machine as router for IPv6; `None`: this machine has no `[gateway.advertise]`.
    #[serde(default)]
    pub advertise: Option<AdvertiseStatus>,
}

/// The date that time servers agree on. Shown it is a sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// In seconds since 1970.
    pub date: i64,
    /// Who says so, as they are named in the configuration.
    pub servers: Vec<String>,
    /// By how many seconds this machine's clock is behind; negative: ahead.
    pub behind_s: i64,
}

/// What happened to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelHistory {
    /// Its name.
    pub name: String,
    /// Oldest first; the last 20.
    pub changes: Vec<Change>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, in seconds since 1970; `None`: this machine's clock was not set.
    pub at: Option<i64>,
    /// How many seconds ago, where `at` is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ago_s: Option<u64>,
    /// What.
    pub what: What,
    /// By which addresses, ours first (`192.168.1.2:4500 -> 203.0.113.5:4500`), or why.
    pub text: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It carries traffic.
    Up,
    /// It carries none any more.
    Down,
    /// It is to be up, and a try came to nothing. The same again is not told.
    Failed,
    /// An end has another address, and it stayed up.
    Moved,
    /// As it is down, tunnelled devices go direct, in clear.
    Open,
    /// They do no more.
    Closed,
}

/// The DHCP server for the LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// Whether it lends.
    pub state: DhcpState,
    /// Interface of the LAN, while it can run.
    pub interface: Option<String>,
    /// This machine's address there, which devices are told as their router.
    pub server: Option<Ipv4Addr>,
    /// Addresses for whoever comes, the first and the last: `192.168.1.100-192.168.1.199`.
    pub range: Option<String>,
    /// Other servers that answered lately, as they call themselves.
    pub others: Vec<Ipv4Addr>,
    /// Whether this machine advertises itself as router for IPv6.
    pub router_advertisements: bool,
    /// What is lent at this moment, by address.
    pub leases: Vec<DhcpLease>,
}

/// This machine as a router that is advertised, without a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertiseStatus {
    /// Interface of the LAN.
    pub interface: String,
    /// Whether it is advertised; if not, `warnings` say why.
    pub advertising: bool,
}

/// Whether the DHCP server lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpState {
    /// It looks whether another server answers, for some seconds.
    Looking,
    /// It lends.
    Serving,
    /// Another server answers: it lends nothing.
    Silent,
    /// It cannot run; `warnings` say why.
    Stopped,
}

/// An address lent to a device of the LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpLease {
    /// Which.
    pub address: Ipv4Addr,
    /// The device's hardware address: `3c:22:fb:01:02:03`.
    pub mac: String,
    /// What the device calls itself.
    pub name: Option<String>,
    /// By `[gateway.dhcp.reservations]`.
    pub reserved: bool,
    /// Seconds until it is over, unless the device renews it.
    pub expires_in_s: u64,
}

/// Process ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The supervisor.
    pub supervisor: u32,
    /// The engine, while it runs.
    pub engine: Option<u32>,
}

/// State of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// No gateway is configured, or its guard is off by configuration.
    NotConfigured,
    /// In place.
    On,
    /// Configured, but something removed it.
    Missing,
}

/// One lent address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Whose.
    pub identity: String,
    /// Whose device that is, on a server that has a list of devices.
    #[serde(default)]
    pub user: Option<String>,
    /// Which of the user's devices.
    #[serde(default)]
    pub device: Option<String>,
    /// Which.
    pub addresses: Vec<IpAddr>,
    /// In use at this moment.
    pub online: bool,
}

/// `[gateway.dns]`. Counters are those of this run of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Where devices are answered, on port 53.
    pub addresses: Vec<IpAddr>,
    /// Who is asked through the tunnel; nobody while it is down.
    pub resolvers: Vec<IpAddr>,
    /// Over TLS, by this name.
    pub tls: Option<String>,
    /// Why nobody is asked.
    pub reason: Option<String>,
    /// The process that answers, while it runs.
    pub process: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Names on the block lists.
    pub blocked_names: u64,
    /// Questions.
    pub queries: u64,
    /// Answered from the cache.
    pub cache_hits: u64,
    /// Answered by a block list.
    pub blocked: u64,
    /// Asked outside the tunnel: the domains in `direct`.
    pub direct: u64,
    /// Answered with SERVFAIL.
    pub failures: u64,
    /// Not answered: too many at once, no question, or from elsewhere than the LAN.
    pub dropped: u64,
}

/// A domain that goes direct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectDomain {
    /// It, and all below it.
    pub domain: String,
    /// How many addresses its names have that go direct at this moment.
    pub count: usize,
    /// Those asked for last, 16 at most.
    pub addresses: Vec<IpAddr>,
}

/// What the engine knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Every configured connection, up or not, in the order of the configuration.
    pub connections: Vec<ConnectionStatus>,
    /// Packets dropped by the data path, by reason.
    pub drops: Vec<Count>,
    /// Callers that offered only what is not accepted, the latest first; 16 at most.
    #[serde(default)]
    pub refused: Vec<RefusedCall>,
    /// Messages the IKE core dropped or refused, by reason.
    pub ike_counters: Vec<Count>,
}

/// Somebody who offered only what is not accepted; the same again from the same place is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedCall {
    /// Where the call came from.
    pub from: IpAddr,
    /// The implementation, where its Vendor ID tells: `Windows`, `strongSwan`.
    pub client: Option<String>,
    /// All algorithms it offered, type by type.
    pub offered: String,
    /// What to do, in one sentence.
    pub remedy: String,
    /// How often.
    pub count: u64,
    /// Seconds since it called last.
    pub ago_s: f64,
}

/// A counter with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What is counted.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// A connection of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its name; `server` for the server section.
    pub name: String,
    /// `up`, `connecting`, `waiting` (for the next try), `idle` (trap or manual), `down`, `listening`.
    pub state: String,
    /// Why it is not up, in one sentence.
    pub reason: Option<String>,
    /// Seconds until the next try.
    pub retry_in_s: Option<f64>,
    /// Packets and bytes (inner) received since the engine started, by Child SAs that are gone, too.
    #[serde(default)]
    pub packets_in: u64,
    /// See `packets_in`.
    #[serde(default)]
    pub bytes_in: u64,
    /// Packets and bytes (inner) sent since the engine started, likewise.
    #[serde(default)]
    pub packets_out: u64,
    /// See `packets_out`.
    #[serde(default)]
    pub bytes_out: u64,
    /// IKE SAs that took the place of another one since the engine started, by rekeying or reauthentication.
    #[serde(default)]
    pub ike_rekeys: u64,
    /// Child SAs that took the place of another one since the engine started.
    #[serde(default)]
    pub child_rekeys: u64,
    /// Its IKE SAs.
    pub ike_sas: Vec<IkeSaStatus>,
}

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IkeSaStatus {
    /// Number in this run of the program.
    pub id: u64,
    /// Hexadecimal.
    pub initiator_spi: String,
    /// Hexadecimal.
    pub responder_spi: String,
    /// We are the original initiator.
    pub initiator: bool,
    /// `connecting`, `up`, `rekeyed`, `deleting`.
    pub state: String,
    /// Who the peer proved to be.
    pub peer: Option<String>,
    /// Whose device that is, on a server that has a list of devices.
    #[serde(default)]
    pub user: Option<String>,
    /// Which of the user's devices.
    #[serde(default)]
    pub device: Option<String>,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Its place among several servers of the tunnel, counted from 1.
    #[serde(default)]
    pub server: Option<u32>,
    /// A NAT is seen before us.
    pub nat_local: bool,
    /// A NAT is seen before the peer.
    pub nat_remote: bool,
    /// Suite, as strongSwan keywords.
    pub suite: Option<String>,
    /// Whether addresses of either end may change (MOBIKE, RFC 4555).
    #[serde(default)]
    pub mobike: bool,
    /// Virtual addresses this IKE SA brought.
    pub virtual_addresses: Vec<IpAddr>,
    /// Resolvers that the peer named with our virtual addresses.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The domains that these resolvers are for (RFC 8598); none: every name.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Addresses inside at which the peer measures speed: a Cygnet server that has this switched on.
    #[serde(default)]
    pub speedtest: Vec<IpAddr>,
    /// Seconds since it came up.
    pub age_s: f64,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: Option<f64>,
    /// A request of ours that the peer has yet to answer.
    #[serde(default)]
    pub in_flight: Option<InFlight>,
    /// Its Child SAs.
    pub children: Vec<ChildStatus>,
}

/// A request of ours that waits for its answer; there is one at a time (RFC 7296 §2.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Its exchange, as the RFC names it: `CREATE_CHILD_SA`.
    pub exchange: String,
    /// Seconds since it was first sent.
    pub since_s: f64,
    /// How many times it was sent.
    pub sent: u32,
}

/// A Child SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Number in this run of the program.
    pub id: u64,
    /// Its policy's name.
    pub name: String,
    /// `up`, `rekeyed` (it still receives; another one sends), `deleting`.
    pub state: String,
    /// Hexadecimal.
    pub spi_in: String,
    /// Hexadecimal.
    pub spi_out: String,
    /// Suite, as strongSwan keywords.
    pub suite: String,
    /// Inner traffic, our side.
    pub local: Vec<String>,
    /// Inner traffic, the peer's side.
    pub remote: Vec<String>,
    /// Packets and bytes (inner) received.
    pub packets_in: u64,
    /// See `packets_in`.
    pub bytes_in: u64,
    /// Packets and bytes (inner) sent.
    pub packets_out: u64,
    /// See `packets_out`.
    pub bytes_out: u64,
    /// Largest inner packet that travels in one piece, in octets; `None` while nothing is sent.
    pub mtu: Option<u32>,
    /// Largest IP packet around it, as far as is known.
    pub path_mtu: Option<u32>,
    /// Seconds since it came up.
    pub age_s: f64,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: Option<f64>,
}

/// `GET /v1/devices`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DevicesStatus {
    /// What is true of devices that nothing is said of.
    pub default: DevicePolicy,
    /// Networks that devices reach around the tunnel unless they are blocked.
    pub direct_networks: Vec<IpNet>,
    /// Other tunnels that devices may be given, each with the networks that all devices reach by it.
    #[serde(default)]
    pub through: BTreeMap<String, Vec<IpNet>>,
    /// Why policies given by command are not known; none goes direct then.
    pub problem: Option<String>,
    /// What is to be thought of, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Those that were seen, and those that something is said of.
    pub devices: Vec<DeviceStatus>,
}

/// A device, or of one the addresses that the same is said of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its MAC address; where none was seen, what it is named by.
    pub device: String,
    /// What the configuration calls it.
    pub name: Option<String>,
    /// What it calls itself where this machine lends addresses, which proves nothing.
    #[serde(default)]
    pub host_name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where what it sends may go.
    pub policy: DevicePolicy,
    /// The tunnel it goes through, where that is another than the gateway's.
    #[serde(default)]
    pub through: Option<String>,
    /// Who says so.
    pub from: PolicySource,
    /// Seconds since it gave a sign of itself; `None`: not since the program started.
    pub last_seen_s: Option<f64>,
}

/// Where a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicySource {
    /// Nothing is said of this device.
    Default,
    /// The configuration.
    Configuration,
    /// `cygnet device set`, or whoever else asked for it.
    Command,
}

/// Answer to `POST /v1/devices/set` and `/v1/devices/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChanged {
    /// What the device is known by from now on: MAC addresses, or addresses.
    pub devices: Vec<String>,
    /// Its policy now; of several the first one's.
    pub policy: DevicePolicy,
    /// The tunnel it goes through, likewise, where that is another than the gateway's.
    #[serde(default)]
    pub through: Option<String>,
    /// Running connections that were ended.
    pub ended: usize,
    /// What is true of each of them now.
    pub now: Vec<DeviceNow>,
    /// What is to be known of it, a sentence each.
    pub notes: Vec<String>,
}

/// What is true of a device, or of those of its addresses of which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNow {
    /// MAC address, address or network.
    pub device: String,
    /// With which of its addresses it was seen.
    pub addresses: Vec<IpAddr>,
    /// Where what it sends may go.
    pub policy: DevicePolicy,
    /// The tunnel it goes through, where that is another than the gateway's.
    #[serde(default)]
    pub through: Option<String>,
}

/// The place of one of several, as people say it.
#[must_use]
pub fn ordinal(place: u32) -> String {
    const WORDS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];
    let index = usize::try_from(place).unwrap_or(0).checked_sub(1);
    let word = index.and_then(|index| WORDS.get(index));
    word.map_or_else(|| format!("{place}th"), |word| (*word).to_owned())
}

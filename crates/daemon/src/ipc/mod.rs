//! The socketpair between supervisor and engine: typed messages, and the file descriptors the
//! engine works on.
//!
//! A message is postcard behind a four-byte length. Both ends bound it: the engine parses what a
//! network sent, so the supervisor trusts nothing that comes from it beyond these types.

mod channel;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cygnet_config::{Config, ConfigError};
use cygnet_crypto::signature::SignatureScheme;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Told;

pub(crate) use channel::Channel;

/// Largest message either end accepts, in bytes.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;

/// Most IKE SAs named in a question for a lease. At one place, port included, there is one device as a
/// rule; each that is named is looked for among the leases.
pub(crate) const HERE_MAX: usize = 64;

/// Supervisor to engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToEngine {
    /// First message: everything the engine works with. File descriptors come with it: two for
    /// each of `sockets`, of which the second asks for routes, then one for each queue of `tuns`, in order.
    Setup(Box<Setup>),
    /// A changed configuration. New tunnels' TUN queues come with it, in the order of `tuns`.
    Reload {
        /// The new configuration.
        bundle: Bundle,
        /// TUN devices that were not there before.
        tuns: Vec<TunRole>,
        /// Pre-shared keys, by credential, that are others than before.
        replaced: Vec<String>,
    },
    /// TUN devices in the place of those that somebody deleted; their queues come with it, in order.
    Tuns {
        /// The devices.
        tuns: Vec<TunRole>,
    },
    /// To [`ToSupervisor::Ask`].
    Answer {
        /// The question's number.
        id: u64,
        /// The answer.
        answer: SupervisorAnswer,
    },
    /// From the control socket.
    Control(Control),
    /// Packets to peers leave otherwise than before.
    LocalChange {
        /// Addresses that they left from and that this machine has no more.
        gone: Vec<IpAddr>,
        /// Whether a next hop is another.
        egress: bool,
    },
    /// The date is another one than was told before, is known now, or is not any more.
    Date(Told),
    /// Report [`ToSupervisor::Status`].
    Status {
        /// Comes back with the report.
        request: u64,
    },
    /// Delete every SA, tell [`ToSupervisor::Drained`], then end.
    Shutdown,
}

/// What the engine starts with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The configuration and the public files it names.
    pub(crate) bundle: Bundle,
    /// UDP sockets, bound.
    pub(crate) sockets: Vec<SocketRole>,
    /// TUN devices, up.
    pub(crate) tuns: Vec<TunRole>,
    /// As [`ToEngine::Date`] tells it.
    pub(crate) date: Told,
}

/// A configuration as text, with the public files it names (certificates, CRLs), so that both
/// processes arrive at the same policy and the engine needs no files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    /// For messages.
    pub(crate) name: String,
    /// TOML.
    pub(crate) text: String,
    /// Contents by the path as written in `text`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// CRLs by the URL as written in `text`; those that are there.
    pub(crate) fetched: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Bundle {
    /// What it says; nothing is read beside it.
    pub(crate) fn parse(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.name, &self.text, &mut |path| {
            let file = self.files.get(path).cloned();
            file.ok_or_else(|| format!("{path} did not come with the configuration"))
        })
    }
}

/// One UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketRole {
    /// Address it is bound to; unspecified: all of that family.
    pub(crate) address: IpAddr,
    /// Its port.
    pub(crate) port: u16,
    /// Whether it carries the non-ESP marker and ESP (the NAT-T port).
    pub(crate) natt: bool,
}

/// One TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunRole {
    /// [`cygnet_ike::policy::Connection::name`] of the tunnel it belongs to.
    pub(crate) connection: String,
    /// Interface name.
    pub(crate) interface: String,
    /// Its MTU.
    pub(crate) mtu: u32,
    /// How many queue descriptors follow for it.
    pub(crate) queues: u16,
    /// The last of them is for writing alone.
    pub(crate) has_writer: bool,
    /// Offloads the kernel granted, as [`cygnet_linux`]'s TUN reports them.
    pub(crate) udp_segmentation: bool,
}

/// What an operator wants of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// Bring up and keep up.
    Up {
        /// Connection.
        connection: String,
        /// One child of it.
        child: Option<String>,
    },
    /// Take down and leave down.
    Down {
        /// Connection.
        connection: String,
        /// One child of it.
        child: Option<String>,
    },
    /// New IKE keys now.
    RekeyIke {
        /// Connection.
        connection: String,
    },
    /// New ESP keys now.
    RekeyChild {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
    },
    /// Prove identities anew, make before break.
    Reauthenticate {
        /// Connection.
        connection: String,
    },
}

/// Engine to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Privileges are dropped, packets are served.
    Ready,
    /// A question; see [`SupervisorAnswer`].
    Ask {
        /// Comes back with the answer.
        id: u64,
        /// What is asked.
        ask: SupervisorAsk,
    },
    /// An IKE SA that held leased addresses is gone.
    ReleaseLease {
        /// The holder.
        ike_sa: u64,
    },
    /// The peer lent us these addresses (none: nothing left).
    SetVirtual {
        /// Connection.
        connection: String,
        /// Addresses.
        addresses: Vec<IpAddr>,
        /// Resolvers.
        dns: Vec<IpAddr>,
    },
    /// Which inner networks a connection reaches at this moment, narrowed as negotiated: routes
    /// follow. Prefixes as text.
    Reach {
        /// Connection.
        connection: String,
        /// Networks of the peer's side; empty: the tunnel is down.
        remote: Vec<ipnet::IpNet>,
        /// Inner MTU by what was negotiated.
        mtu: u32,
        /// The peer's outer address, while the tunnel is up.
        endpoint: Option<IpAddr>,
    },
    /// To [`ToEngine::Status`].
    Status {
        /// The request's number.
        request: u64,
        /// The report.
        status: crate::api::EngineStatus,
    },
    /// Still there; comes every few seconds.
    Heartbeat,
    /// Every SA is deleted.
    Drained,
    /// How an IKE SA of a connection that has a hook is now; comes with each change.
    Carried {
        /// Which.
        ike_sa: u64,
        /// `None`: it is over.
        carried: Option<Box<Carried>>,
    },
    /// What a person wants to know of a tunnel afterwards.
    Changed {
        /// Connection.
        connection: String,
        /// What happened.
        change: Changed,
    },
}

/// An IKE SA as a hook is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// Connection.
    pub(crate) connection: String,
    /// Our outer address and port.
    pub(crate) local: SocketAddr,
    /// The peer's.
    pub(crate) remote: SocketAddr,
    /// Who we are, as people write it.
    pub(crate) local_identity: String,
    /// Who the peer proved to be; it has chosen this text.
    pub(crate) remote_identity: String,
    /// Who it said it was before it proved that by logging in with EAP; `None`: it did not log in.
    pub(crate) claimed_identity: Option<String>,
    /// Inner addresses that the peer lent us.
    pub(crate) assigned: Vec<IpAddr>,
    /// Resolvers that came with them.
    pub(crate) dns: Vec<IpAddr>,
    /// Inner addresses that we lent the peer.
    pub(crate) lent: Vec<IpAddr>,
    /// Its Child SAs that are in use.
    pub(crate) children: Vec<CarriedChild>,
}

/// A Child SA in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CarriedChild {
    /// Its policy's name.
    pub(crate) name: String,
    /// Inner traffic, our side.
    pub(crate) local: Vec<Selector>,
    /// Inner traffic, the peer's side.
    pub(crate) remote: Vec<Selector>,
}

/// A traffic selector (RFC 7296 §3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Selector {
    /// Lowest address.
    pub(crate) first: IpAddr,
    /// Highest address.
    pub(crate) last: IpAddr,
    /// IP protocol; 0: any.
    pub(crate) protocol: u8,
    /// Lowest and highest port.
    pub(crate) ports: (u16, u16),
}

/// See [`ToSupervisor::Changed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Changed {
    /// It carries traffic.
    Up {
        /// Our outer address and port.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// Its place among several servers, counted from 1.
        server: Option<u32>,
    },
    /// It carries none any more.
    Down {
        /// A sentence.
        why: String,
    },
    /// It is to be up, and a try came to nothing.
    Failed {
        /// A sentence.
        why: String,
    },
    /// An end has another address, or another server carries it, and it stayed up.
    Moved {
        /// Our outer address and port.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// As in [`Self::Up`], where it is another.
        server: Option<u32>,
    },
}

/// Questions that need secrets, names or addresses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SupervisorAsk {
    /// Sign with a private key.
    Sign {
        /// Which key.
        credential: String,
        /// [`code_of`].
        scheme: u8,
        /// What to sign.
        octets: Vec<u8>,
    },
    /// The MAC of RFC 7296 §2.15 under a pre-shared key.
    PskAuth {
        /// Which key.
        credential: String,
        /// IANA number of the PRF.
        prf: u16,
        /// What to authenticate.
        octets: Vec<u8>,
    },
    /// Whether an EAP-MSCHAPv2 response proves a user's password.
    EapVerify {
        /// Which users.
        credential: String,
        /// Who the peer says it is.
        user: String,
        /// Where it is.
        source: IpAddr,
        /// The server's and its.
        challenges: [[u8; 16]; 2],
        /// Its answer to them.
        nt_response: [u8; 24],
    },
    /// The answer to EAP-MSCHAPv2 challenges by a password of ours.
    EapRespond {
        /// Which password.
        credential: String,
        /// Whose it is.
        user: String,
        /// The server's and ours.
        challenges: [[u8; 16]; 2],
    },
    /// Addresses of a host name.
    Resolve {
        /// The name.
        name: String,
    },
    /// Lend addresses of a pool.
    Lease {
        /// Which pool.
        pool: String,
        /// Identity, as people write it: the key of the lease.
        identity: String,
        /// Where the peer is, if other devices may have the same identity.
        device: Option<SocketAddr>,
        /// The IKE SAs whose addresses a peer at that very place has, [`HERE_MAX`] at most.
        here: Vec<u64>,
        /// For which IKE SA.
        ike_sa: u64,
        /// IPv4 asked for, with the address wished for.
        v4: Option<Option<std::net::Ipv4Addr>>,
        /// IPv6 asked for, with the address wished for.
        v6: Option<Option<std::net::Ipv6Addr>>,
    },
}

/// Answers to [`SupervisorAsk`]; the error is one sentence.
#[derive(Serialize, Deserialize)]
pub(crate) enum SupervisorAnswer {
    /// To `Sign` and `PskAuth`.
    Octets(Result<Vec<u8>, String>),
    /// To `EapVerify`: the user's name as it is in the list; `None` where it does not, or there is no such user.
    EapVerified(Result<Option<(String, EapKeys)>, String>),
    /// To `EapRespond`: the answer, and what it leads to.
    EapResponded(Result<([u8; 24], EapKeys), String>),
    /// To `Resolve`.
    Addresses(Result<Vec<IpAddr>, String>),
    /// To `Lease`.
    Lease(Result<Lent, String>),
}

/// What a client gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lent {
    /// One of each family at most.
    pub(crate) addresses: Vec<IpAddr>,
    /// Resolvers.
    pub(crate) dns: Vec<IpAddr>,
    /// Domains whose names these are asked for.
    pub(crate) domains: Vec<String>,
    /// Where the server measures speed.
    pub(crate) speedtest: Vec<IpAddr>,
}

/// What EAP-MSCHAPv2 makes of a password and two challenges.
#[derive(Serialize, Deserialize)]
pub(crate) struct EapKeys {
    /// By which the server proves that it knows the password, too.
    pub(crate) authenticator_response: [u8; 20],
    /// The master session key.
    pub(crate) msk: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for SupervisorAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SupervisorAnswer::Octets(_) => "Octets",
            SupervisorAnswer::EapVerified(_) => "EapVerified",
            SupervisorAnswer::EapResponded(_) => "EapResponded",
            SupervisorAnswer::Addresses(_) => "Addresses",
            SupervisorAnswer::Lease(_) => "Lease",
        })
    }
}

impl Control {
    /// Which connection it is about.
    pub(crate) fn connection(&self) -> &str {
        match self {
            Control::Up { connection, .. }
            | Control::Down { connection, .. }
            | Control::RekeyIke { connection }
            | Control::RekeyChild { connection, .. }
            | Control::Reauthenticate { connection } => connection,
        }
    }

    /// Which child of it, if one.
    pub(crate) fn child(&self) -> Option<&str> {
        match self {
            Control::Up { child, .. } | Control::Down { child, .. } => child.as_deref(),
            Control::RekeyChild { child, .. } => Some(child),
            Control::RekeyIke { .. } | Control::Reauthenticate { .. } => None,
        }
    }
}

/// Signature schemes by their number on this socket.
const SCHEMES: [SignatureScheme; 14] = [
    SignatureScheme::RsaPkcs1Sha256,
    SignatureScheme::RsaPkcs1Sha384,
    SignatureScheme::RsaPkcs1Sha512,
    SignatureScheme::RsaPssSha256,
    SignatureScheme::RsaPssSha384,
    SignatureScheme::RsaPssSha512,
    SignatureScheme::EcdsaP256Fixed,
    SignatureScheme::EcdsaP384Fixed,
    SignatureScheme::EcdsaP521Fixed,
    SignatureScheme::EcdsaSha256,
    SignatureScheme::EcdsaSha384,
    SignatureScheme::EcdsaSha512,
    SignatureScheme::Ed25519,
    // Verified only; the key refuses to sign with it.
    SignatureScheme::RsaPkcs1Sha1,
];

/// The number of a signature scheme.
pub(crate) fn code_of(scheme: SignatureScheme) -> u8 {
    SCHEMES
        .iter()
        .zip(0..)
        .find_map(|(s, code)| (*s == scheme).then_some(code))
        .unwrap_or(u8::MAX)
}

/// The signature scheme of a number.
pub(crate) fn scheme_of(code: u8) -> Option<SignatureScheme> {
    SCHEMES.get(usize::from(code)).copied()
}

//! What goes into the core and what comes out of it.
//!
//! Every input is a `handle_*` call on [`crate::Endpoint`]; after each, the caller drains
//! [`crate::Endpoint::poll_output`] until it is empty, in order. The queue is one, because order
//! carries meaning: a Child SA is installed before the response that promises it is transmitted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cygnet_crypto::Secret;
use cygnet_crypto::signature::SignatureScheme;
use cygnet_crypto::suite::{EspSuite, Prf};
use cygnet_wire::eap::EapPayload;
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;

use crate::event::Event;
use crate::policy::{ChildPolicy, Connection, CredentialId, PoolId, TrustId};

/// A byte stream that carries IKE and ESP (RFC 9329); reserved, no transport opens one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// How datagrams of a path travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP; port 4500 carries the non-ESP marker (RFC 3948 §2.2), which the core never sees.
    Udp,
    /// A stream of its own.
    Tcp(StreamId),
}

/// The way to a peer: replies leave by the address that received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Framing, keepalives and fragmentation are properties of the transport.
    pub transport: Transport,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port, as we see them.
    pub remote: SocketAddr,
    /// Interface index, 0 if it does not matter.
    pub interface: u32,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.local, self.remote)
    }
}

/// Names a question or an operation on the data path until its answer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// An IKE SA of this endpoint, for as long as the program runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSaId(pub u64);

/// A Child SA (both directions) of this endpoint; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildSaId(pub u64);

/// The one queue out of the core.
#[derive(Debug)]
pub enum Output {
    /// A question; answer it with [`crate::Endpoint::handle_answer`], in any order. One that is not
    /// answered within some seconds counts as lost, and its answer is discarded if it comes later.
    Ask(AskId, Ask),
    /// An order to the data path. Those that carry an [`AskId`] are answered likewise.
    Data(DataCommand),
    /// A datagram to send (without non-ESP marker; add it where `path` uses the NAT-T port).
    Transmit(Transmit),
    /// Something an operator or the rest of the program wants to know.
    Event(Event),
}

/// A datagram for the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where from and where to.
    pub path: Path,
    /// The IKE message or fragment; or the single byte 0xFF, a NAT keepalive (RFC 3948 §2.3),
    /// which travels without marker.
    pub datagram: Vec<u8>,
    /// Not in IP fragments: it shows whether a packet of its size arrives. Where it does not even leave, say so by
    /// [`DataEvent::PathMtu`].
    pub whole: bool,
}

/// Questions the core cannot answer: they need secrets, files, clocks, the network or the kernel.
pub enum Ask {
    /// Find addresses of one of a connection's servers, and from which local address each is reached.
    /// Answer: [`Answer::Paths`], best first.
    Resolve {
        /// Whose peer is meant.
        connection: Arc<Connection>,
        /// Its place in [`crate::policy::Remote::servers`].
        server: usize,
    },
    /// From which local address each of these addresses of the peer is reached at this moment, of a
    /// connection that is up (RFC 4555). Answer: [`Answer::Paths`], in the same order, those alone to
    /// which a way leads.
    Ways {
        /// Whose peer it is.
        connection: Arc<Connection>,
        /// Our port.
        from: u16,
        /// Its addresses.
        to: Vec<SocketAddr>,
    },
    /// Sign `octets` with the private key `credential`. Answer: [`Answer::Signed`].
    Sign {
        /// Which private key.
        credential: CredentialId,
        /// What the peer accepts and the key can do.
        scheme: SignatureScheme,
        /// What RFC 7296 §2.15 says is signed.
        octets: Vec<u8>,
    },
    /// prf(prf(PSK, "Key Pad for IKEv2"), octets), RFC 7296 §2.15: to prove ourselves, and to know
    /// what the peer must have sent. Answer: [`Answer::Mac`].
    PskAuth {
        /// Which pre-shared key.
        credential: CredentialId,
        /// The negotiated PRF.
        prf: Prf,
        /// What is authenticated.
        octets: Vec<u8>,
    },
    /// Validate the peer's chain and that its leaf contains `identity`. Answer: [`Answer::Chain`].
    ValidateChain {
        /// Which anchors and CRLs.
        trust: TrustId,
        /// DER, leaf first, as the peer sent them.
        certificates: Vec<Vec<u8>>,
        /// What the peer claims to be (the ID payload).
        identity: Identification,
        /// Whether the peer is the responder of the IKE SA (a server), or the initiator.
        peer_is_responder: bool,
        /// The peer is in already ([`Command::ExaminePeers`]).
        again: bool,
    },
    /// The next step of a log-in by EAP (RFC 7296 §2.16). Answer: [`Answer::Eap`]. Whoever answers
    /// keeps the conversations, one an IKE SA, each for [`crate::policy::Limits::half_open_timeout`], or
    /// until [`DataCommand::EndLogIn`].
    Eap {
        /// Whose conversation.
        ike_sa: IkeSaId,
        /// Of which the methods, users and keys are to be used.
        connection: Arc<Connection>,
        /// Whether the peer logs in with us, or we with the peer.
        peer_logs_in: bool,
        /// Where the peer is: guesses are slowed down by it.
        remote: IpAddr,
        /// What the peer has sent; `None`: the conversation begins with a packet of ours.
        packet: Option<EapPayload<'static>>,
    },
    /// Lend addresses to an authenticated peer. Answer: [`Answer::Leased`]. The same peer gets the
    /// same addresses back while they are free. Ended by [`DataCommand::ReleaseLease`].
    Lease {
        /// From which pools.
        pool: PoolId,
        /// Who asks.
        identity: Identification,
        /// Which device it is, if its identity may be that of several, each of which gets addresses
        /// of its own; `None`: the identity is one peer.
        device: Option<Device>,
        /// For which IKE SA the addresses are lent; a reauthenticated SA of the same peer shares
        /// them with its predecessor.
        ike_sa: IkeSaId,
        /// The families asked for, with the address wished for if any.
        wanted: Vec<WantedAddress>,
    },
}

/// One of the devices that may share an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it is.
    pub at: SocketAddr,
    /// To whom addresses are lent, as [`Ask::Lease`] named them, and who is at this very place now,
    /// wherever that was when it got them: it is the same device, which authenticates anew, or is
    /// back before its end was noticed.
    pub here: Vec<IkeSaId>,
}

impl Ask {
    /// The answer that says why there is no other.
    pub(crate) fn failure(&self) -> fn(String) -> Answer {
        match self {
            Ask::Resolve { .. } | Ask::Ways { .. } => |why| Answer::Paths(Err(why)),
            Ask::Sign { .. } => |why| Answer::Signed(Err(why)),
            Ask::PskAuth { .. } => |why| Answer::Mac(Err(why)),
            Ask::ValidateChain { .. } => |why| Answer::Chain(Err(ChainError::Unavailable(why))),
            Ask::Eap { .. } => |why| Answer::Eap(Err(why)),
            Ask::Lease { .. } => |why| Answer::Leased(Err(why)),
        }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ask::Resolve { .. } => "Resolve",
            Ask::Ways { .. } => "Ways",
            Ask::Sign { .. } => "Sign",
            Ask::PskAuth { .. } => "PskAuth",
            Ask::ValidateChain { .. } => "ValidateChain",
            Ask::Eap { .. } => "Eap",
            Ask::Lease { .. } => "Lease",
        })
    }
}

/// A virtual address a peer would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedAddress {
    /// IPv4, any or this one.
    V4(Option<std::net::Ipv4Addr>),
    /// IPv6, any or this one.
    V6(Option<std::net::Ipv6Addr>),
}

/// Answers to [`Ask`] and to those [`DataCommand`]s that carry an [`AskId`].
pub enum Answer {
    /// To [`Ask::Resolve`] and [`Ask::Ways`]: paths to try in this order, or why there are none.
    Paths(Result<Vec<Path>, String>),
    /// To [`Ask::Sign`].
    Signed(Result<Vec<u8>, String>),
    /// To [`Ask::PskAuth`].
    Mac(Result<Secret, String>),
    /// To [`Ask::ValidateChain`]: the leaf's key.
    Chain(Result<PeerKey, ChainError>),
    /// To [`Ask::Eap`]; the error says why there is no next step, which says nothing about the peer.
    Eap(Result<EapStep, String>),
    /// To [`Ask::Lease`].
    Leased(Result<Lease, String>),
    /// To [`DataCommand::AllocSpi`].
    Spi(Result<u32, String>),
    /// To [`DataCommand::InstallIn`] and [`DataCommand::SwitchOut`].
    Installed(Result<(), String>),
}

/// How a log-in by EAP goes on.
pub enum EapStep {
    /// Send this; the peer answers it.
    Send(EapPayload<'static>),
    /// Send this: it has come to nothing, and the peer is told. It answers, or it breaks off.
    Reject {
        /// What tells it.
        packet: EapPayload<'static>,
        /// One sentence, as in [`EapStep::Failure`].
        why: String,
    },
    /// It came to a good end.
    Success(Box<EapSuccess>),
    /// It came to nothing.
    Failure {
        /// To be sent, if anything is.
        packet: Option<EapPayload<'static>>,
        /// One sentence: what went wrong, and what to do.
        why: String,
    },
}

/// What a log-in by EAP has brought.
pub struct EapSuccess {
    /// To be sent, if anything is.
    pub packet: Option<EapPayload<'static>>,
    /// The master session key, from which both ends prove themselves (RFC 7296 §2.16).
    pub msk: Secret,
    /// Who has logged in.
    pub identity: Identification,
    /// The shared secret by which that was proven, as [`Command::SecretsReplaced`] names it.
    pub secret: Option<CredentialId>,
    /// The certificates by which it was proven, DER, leaf first.
    pub certificates: Vec<Vec<u8>>,
    /// When the first of them expires.
    pub not_after: Option<crate::time::UtcTime>,
}

/// Why a chain vouches for no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// It is not to be believed: one sentence that names the certificate, what is wrong and what to
    /// do.
    Invalid(String),
    /// Nobody had the time to look at it, which says nothing about the peer.
    Unavailable(String),
}

/// The public key a validated chain vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerKey {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Subject of the leaf, for people.
    pub subject: String,
    /// When the leaf expires; the IKE SA does not outlive it.
    pub not_after: crate::time::UtcTime,
}

/// Addresses lent to a peer, and what else its configuration request is answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// One of each family at most.
    pub addresses: Vec<IpAddr>,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
    /// The domains whose names those resolvers are to be asked for (RFC 8598); none: all names.
    pub domains: Vec<String>,
    /// The lender's own addresses inside at which speed is measured.
    pub speedtest: Vec<IpAddr>,
}

/// Orders to the data path (RFC 7296 §2.8 fixes their order; DESIGN: the life of a Child SA).
pub enum DataCommand {
    /// Reserve an inbound SPI, unique on this machine. Answer: [`Answer::Spi`].
    AllocSpi {
        /// Whom to answer.
        id: AskId,
    },
    /// Give back an SPI for which no `InstallIn` will come.
    FreeSpi {
        /// The reserved SPI.
        spi: u32,
    },
    /// Be ready to receive. Answered before the message that promises it leaves.
    InstallIn {
        /// Whom to answer.
        id: AskId,
        /// Everything about the Child SA.
        child: Arc<ChildSaParameters>,
        /// Encryption key, then integrity key (RFC 7296 §2.17), for the inbound direction.
        keys: Secret,
    },
    /// Start to send on this Child SA: it becomes the first of its policy.
    SwitchOut {
        /// Whom to answer.
        id: AskId,
        /// Everything about the Child SA; `InstallIn` named the same.
        child: Arc<ChildSaParameters>,
        /// Keys of the outbound direction.
        keys: Secret,
    },
    /// The peer is reached another way now.
    UpdatePath {
        /// Which Child SA.
        child: ChildSaId,
        /// The new way.
        path: Path,
    },
    /// The largest IP packet that arrives at the peer by this way, until the next such order: it has been
    /// measured (RFC 8899).
    PathMtu {
        /// Which way.
        path: Path,
        /// In octets.
        mtu: u16,
    },
    /// Stop sending on it; if no other Child SA of its policy is left, the policy discards
    /// (or, as a trap, acquires).
    RemoveOut {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// Stop receiving on it and forget it.
    RemoveIn {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// Traffic that matches `child`'s selectors and finds no Child SA raises
    /// [`DataEvent::Acquire`]. Told on `handle_policy` for each child brought up by traffic.
    InstallTrap {
        /// Whose child.
        connection: Arc<Connection>,
        /// Which child.
        child: Arc<ChildPolicy>,
    },
    /// Take the trap back.
    RemoveTrap {
        /// [`Connection::name`].
        connection: String,
        /// [`ChildPolicy::name`].
        child: String,
    },
    /// The peer lent us these; put them on the tunnel's interface (initiator).
    SetVirtual {
        /// For which connection.
        connection: Arc<Connection>,
        /// Which IKE SA brought them.
        ike_sa: IkeSaId,
        /// What was assigned. Empty: nothing left.
        lease: Lease,
    },
    /// The IKE SA that held addresses from a pool is gone (responder).
    ReleaseLease {
        /// The holder.
        ike_sa: IkeSaId,
    },
    /// An IKE SA has come to nothing while somebody logged in: nobody goes on with what
    /// [`Ask::Eap`] began.
    EndLogIn {
        /// Whose conversation it was.
        ike_sa: IkeSaId,
    },
}

impl DataCommand {
    /// The answer that says why there is no other, to those that are answered.
    pub(crate) fn failure(&self) -> fn(String) -> Answer {
        match self {
            DataCommand::AllocSpi { .. } => |why| Answer::Spi(Err(why)),
            _ => |why| Answer::Installed(Err(why)),
        }
    }
}

impl fmt::Debug for DataCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataCommand::AllocSpi { .. } => "AllocSpi",
            DataCommand::FreeSpi { .. } => "FreeSpi",
            DataCommand::InstallIn { .. } => "InstallIn",
            DataCommand::SwitchOut { .. } => "SwitchOut",
            DataCommand::UpdatePath { .. } => "UpdatePath",
            DataCommand::PathMtu { .. } => "PathMtu",
            DataCommand::RemoveOut { .. } => "RemoveOut",
            DataCommand::RemoveIn { .. } => "RemoveIn",
            DataCommand::InstallTrap { .. } => "InstallTrap",
            DataCommand::RemoveTrap { .. } => "RemoveTrap",
            DataCommand::SetVirtual { .. } => "SetVirtual",
            DataCommand::ReleaseLease { .. } => "ReleaseLease",
            DataCommand::EndLogIn { .. } => "EndLogIn",
        })
    }
}

/// All that both directions of a Child SA need, keys aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSaParameters {
    /// This Child SA.
    pub id: ChildSaId,
    /// The IKE SA that holds it.
    pub ike_sa: IkeSaId,
    /// Whose it is.
    pub connection: Arc<Connection>,
    /// Which of the connection's children.
    pub policy: Arc<ChildPolicy>,
    /// The Child SA this one replaces, if it is a rekeyed one.
    pub replaces: Option<ChildSaId>,
    /// Chosen by us: the peer puts it into what it sends.
    pub spi_in: u32,
    /// Chosen by the peer.
    pub spi_out: u32,
    /// Algorithms and ESN.
    pub suite: EspSuite,
    /// Our side of the inner traffic, narrowed.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// The way to the peer.
    pub path: Path,
    /// Bytes or packets after which the data path reports `SoftLimit` or `HardLimit`
    /// (jitter applied); time limits are the core's own.
    pub limits: DataLimits,
    /// Whether the data path is to report the first authenticated packet (responder of a rekey).
    pub report_first: bool,
}

/// Limits the data path counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataLimits {
    /// Bytes sealed or opened at which the core rekeys.
    pub soft_bytes: Option<u64>,
    /// Bytes at which nothing more is sealed.
    pub hard_bytes: Option<u64>,
    /// Packets at which the core rekeys.
    pub soft_packets: Option<u64>,
    /// Packets at which nothing more is sealed.
    pub hard_packets: Option<u64>,
}

/// What the data path tells the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// A packet wants a child that does not exist; selectors of that packet.
    Acquire {
        /// [`Connection::name`].
        connection: String,
        /// [`ChildPolicy::name`].
        child: String,
        /// Source and destination of the packet, most specific (RFC 7296 §2.9).
        packet: Option<(TrafficSelector, TrafficSelector)>,
    },
    /// Time to rekey, by bytes or packets.
    SoftLimit {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// Nothing more is sealed on it.
    HardLimit {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// First authenticated packet on a Child SA that asked for this report.
    FirstAuthenticated {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// Authenticated ESP came in by another way (RFC 7296 §2.23): the peer's NAT mapping changed.
    PeerMoved {
        /// Which Child SA.
        child: ChildSaId,
        /// The way it came.
        path: Path,
    },
    /// Something authenticated arrived on this Child SA at or after the last report: the peer
    /// lives. Sent at most once a second a Child SA.
    LastInbound {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// We sealed something on this Child SA: silence of the peer now means something.
    LastOutbound {
        /// Which Child SA.
        child: ChildSaId,
    },
    /// ESP came for an SPI nobody knows.
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// The way it came.
        path: Path,
    },
    /// This machine's addresses or its ways out changed: peers we called may be beyond reach, or
    /// within it again.
    LocalChange {
        /// Addresses that it has no more.
        gone: Vec<IpAddr>,
        /// Whether the next hop to a peer that we call is another one, or there is a way out again
        /// after there was none.
        egress: bool,
    },
    /// Where peers can reach this machine, one address of each family or more; told at the start and
    /// when it changes. Peers that call with MOBIKE hear of them (RFC 4555 §3.4).
    OwnAddresses {
        /// All of them.
        addresses: Vec<IpAddr>,
    },
    /// A router names the path's MTU, or this machine's own interface has it.
    PathMtu {
        /// Which way.
        path: Path,
        /// Largest IP packet that fits.
        mtu: u32,
    },
}

/// What an operator (or the program around the core) wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring up a connection (or one child of it) and keep it up.
    Up {
        /// [`Connection::name`].
        connection: String,
        /// One child; `None`: all that do not wait for traffic.
        child: Option<String>,
    },
    /// Take it down with DELETE and leave it down.
    Down {
        /// [`Connection::name`].
        connection: String,
        /// One child; `None`: the whole connection.
        child: Option<String>,
    },
    /// Rekey now.
    RekeyIke {
        /// [`Connection::name`].
        connection: String,
    },
    /// Rekey now.
    RekeyChild {
        /// [`Connection::name`].
        connection: String,
        /// [`ChildPolicy::name`].
        child: String,
    },
    /// Reauthenticate now, make before break.
    Reauthenticate {
        /// [`Connection::name`].
        connection: String,
    },
    /// Judge every peer again that is in by a certificate, by what is known now, and end those that
    /// are not let in any more. Where nobody has an answer ([`ChainError::Unavailable`]) it is asked
    /// again three times within half a minute, and the peer stays if there is none then.
    ExaminePeers,
    /// These pre-shared keys and passwords are others than before, or are none any more: ends every
    /// IKE SA that was authenticated by one of them. Those that we called are called again.
    SecretsReplaced {
        /// As [`Ask::PskAuth`] and [`EapSuccess::secret`] name them.
        secrets: Vec<CredentialId>,
    },
    /// Delete everything, then be silent; [`Event`] `Drained` tells when all is answered or given up.
    Shutdown,
}

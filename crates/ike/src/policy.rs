//! What the operator wants, parsed and final: the core's side of the configuration.
//!
//! Secrets and files are not here, only names for them ([`CredentialId`], [`TrustId`], [`PoolId`])
//! that whoever answers [`crate::io::Ask`] understands.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::signature::KeyKind;
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;

use crate::proposal::{EspProposal, IkeProposal};

/// A private key or pre-shared key that only the answerer of `Sign` and `PskAuth` holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub String);

/// A set of trust anchors and CRLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustId(pub String);

/// A set of address pools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub String);

/// Everything the endpoint obeys. Replaced whole by [`crate::Endpoint::handle_policy`]; a
/// connection that is equal in the old and the new policy is not touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// In order of preference for incoming calls.
    pub connections: Vec<Arc<Connection>>,
    /// Bounds of the whole endpoint.
    pub limits: Limits,
    /// The data path knows ESP in UDP alone (RFC 3948), which peers use where one end detects or
    /// claims a NAT: without that no Child SA would carry anything, and none is made.
    pub esp_in_udp_only: bool,
}

/// Bounds on what strangers can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Half-open IKE SAs at which cookies are asked for (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open IKE SAs at which one gives way to each new one: the oldest of whoever has the most.
    pub half_open: usize,
    /// Half-open IKE SAs from one address (IPv6: one /64) at which new ones are dropped.
    pub half_open_per_source: usize,
    /// Time a half-open IKE SA may take to authenticate.
    pub half_open_timeout: Duration,
    /// IKE SAs altogether.
    pub ike_sas: usize,
    /// Our UDP ports.
    pub ports: Ports,
}

/// Our UDP ports; a NAT found on the first makes the initiator go on to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Where IKE begins.
    pub ike: u16,
    /// Where IKE (behind a non-ESP marker) and ESP in UDP share a port (RFC 3948).
    pub nat_t: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            ike: 500,
            nat_t: 4500,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cookie_threshold: 32,
            half_open: 1024,
            half_open_per_source: 16,
            half_open_timeout: Duration::from_secs(30),
            ike_sas: 16_384,
            ports: Ports::default(),
        }
    }
}

/// One peer, or one kind of peer: a client's server, an office's other office, a server's clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Unique in a policy; what an operator types.
    pub name: String,
    /// Where the peer is.
    pub remote: Remote,
    /// Local address to call from and to answer on; `None`: any.
    pub local_address: Option<IpAddr>,
    /// Who we say we are. `None`: our outer address.
    pub local_identity: Option<Identification>,
    /// Who the peer must prove to be, unless its [`Server`] says otherwise.
    pub remote_identity: IdentityPattern,
    /// How we prove ourselves.
    pub local_auth: LocalAuth,
    /// How the peer must.
    pub remote_auth: RemoteAuth,
    /// How a peer may log in instead that calls and shows no proof in its first message.
    pub eap: EapMethods,
    /// In order of preference.
    pub ike_proposals: Vec<IkeProposal>,
    /// In order; the first that starts `Always` travels in IKE_AUTH.
    pub children: Vec<Arc<ChildPolicy>>,
    /// Virtual addresses we ask for (initiator).
    pub request_virtual: Vec<crate::io::WantedAddress>,
    /// Virtual addresses we lend (responder).
    pub pool: Option<PoolId>,
    /// Lifetime of the IKE SA.
    pub lifetime: Lifetime,
    /// Reauthenticate (make before break) this long after the last authentication.
    pub reauthenticate: Option<Duration>,
    /// Probe the peer after this much silence.
    pub liveness: Duration,
    /// Retransmission of our requests.
    pub retransmit: Retransmit,
    /// Claim to be behind a NAT, so that ESP travels in UDP (user-space ESP needs it).
    pub claim_nat: bool,
    /// Largest IP packet an IKE message may travel in before it is fragmented (RFC 7383); 0: never.
    pub fragment_size: u16,
    /// Search for the largest packet that arrives at the peer (RFC 8899), where routers may not tell: one that
    /// we call, or that searches too; done only where it takes messages in fragments.
    pub search_mtu: bool,
    /// Do MOBIKE (RFC 4555) with a peer that does: addresses of either end may change.
    pub mobike: bool,
    /// How long a NAT mapping may stay idle before a keepalive (RFC 3948 §4).
    pub keepalive: Duration,
    /// An identity is one device: another IKE SA of it takes the place of the one before. Otherwise
    /// several devices may share one (a certificate on a phone and a laptop): each keeps its IKE SA
    /// and has addresses of its own, INITIAL_CONTACT is neither sent nor taken for the word of all
    /// of them (RFC 7296 §2.4).
    pub unique: bool,
}

impl Connection {
    /// Who must answer at that place of the list of servers.
    pub fn identity_of(&self, server: usize) -> &IdentityPattern {
        let named = self.remote.servers().get(server);
        let own = named.and_then(|server| server.identity.as_ref());
        own.unwrap_or(&self.remote_identity)
    }

    /// Whether `other` is the same but for the certificate that we show, of the same key, and who it says we are:
    /// that matters to IKE SAs which are to be made, and to none that is there.
    pub fn is_renewal_of(&self, other: &Self) -> bool {
        let mut renewed = other.clone();
        match (&mut renewed.local_auth, &self.local_auth) {
            (
                LocalAuth::Certificate {
                    chain, identities, ..
                },
                LocalAuth::Certificate {
                    chain: new,
                    identities: says,
                    ..
                },
            ) => {
                chain.clone_from(new);
                identities.clone_from(says);
            }
            (
                LocalAuth::Eap(EapLogin::Certificate { chain, .. }),
                LocalAuth::Eap(EapLogin::Certificate { chain: new, .. }),
            ) => chain.clone_from(new),
            _ => return false,
        }
        *self == renewed
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// It calls us.
    Any,
    /// We call it; it may call us from one of these as well. Names are resolved anew for each try.
    Hosts {
        /// Tried in order; while a later one is in use, the earlier ones are asked now and then.
        servers: Vec<Server>,
        /// Usually 500.
        port: u16,
    },
}

/// One place of several where a connection is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name or address.
    pub host: Host,
    /// Who must answer there; `None`: as [`Connection::remote_identity`] says.
    pub identity: Option<IdentityPattern>,
}

impl From<Host> for Server {
    fn from(host: Host) -> Self {
        let identity = None;
        Self { host, identity }
    }
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// As written.
    Address(IpAddr),
    /// To be resolved.
    Name(String),
}

impl Host {
    /// The address, where it is written as one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Which identities are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Whatever the credentials vouch for.
    Any,
    /// This one.
    Exactly(Identification),
    /// `*.example.org`, `*@example.org`: one leading `*` in an FQDN or e-mail address.
    Suffix(Identification),
    /// A DN in which some RDN values are `*`; DER with those values `*`.
    DnTemplate(Vec<u8>),
    /// Any of these.
    AnyOf(Vec<IdentityPattern>),
}

/// How we prove ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAuth {
    /// With a certificate.
    Certificate {
        /// The private key.
        credential: CredentialId,
        /// What it can sign.
        key: KeyKind,
        /// RSA by PSS, not by PKCS#1 v1.5.
        pss: bool,
        /// DER, leaf first.
        chain: Vec<Vec<u8>>,
        /// Who the leaf says we are: a peer that calls may want any of these.
        identities: Vec<Identification>,
    },
    /// With a pre-shared key.
    Psk(CredentialId),
    /// By EAP, once the peer has proven itself (initiator; RFC 7296 §2.16).
    Eap(EapLogin),
}

impl LocalAuth {
    /// Our own certificate (DER), in whatever way it is shown.
    pub fn leaf(&self) -> Option<&[u8]> {
        match self {
            Self::Certificate { chain, .. } | Self::Eap(EapLogin::Certificate { chain, .. }) => {
                chain.first().map(Vec::as_slice)
            }
            Self::Psk(_) | Self::Eap(EapLogin::Password { .. }) => None,
        }
    }
}

/// What we log in with, by EAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EapLogin {
    /// EAP-MSCHAPv2.
    Password {
        /// The user name, perhaps with a domain.
        user: String,
        /// The password.
        credential: CredentialId,
    },
    /// EAP-TLS, with the peer's authorities judging the certificate that it shows there as well. Who we say we
    /// are there is [`Connection::local_identity`], as text.
    Certificate {
        /// The private key.
        credential: CredentialId,
        /// What it can sign.
        key: KeyKind,
        /// DER, leaf first.
        chain: Vec<Vec<u8>>,
    },
}

/// The EAP methods by which peers may log in; the default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EapMethods {
    /// EAP-MSCHAPv2, by the users and passwords of this name. Each user's is a secret of its own, called as
    /// [`EapMethods::secret_of`] says.
    pub passwords: Option<CredentialId>,
    /// EAP-TLS, with our own certificate, by those whom [`RemoteAuth::Certificate`] trusts.
    pub tls: bool,
    /// A user with a password may be on several devices at once, as [`Connection::unique`] says of identities:
    /// people have one password, and more than one device.
    pub shared: bool,
}

impl EapMethods {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.passwords.is_some() || self.tls
    }

    /// What [`crate::io::Command::SecretsReplaced`] calls the password of one user.
    pub fn secret_of(passwords: &CredentialId, user: &str) -> CredentialId {
        CredentialId(format!("{}/{user}", passwords.0))
    }
}

/// How the peer must prove itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAuth {
    /// With a certificate under these anchors.
    Certificate {
        /// Which anchors and CRLs.
        trust: TrustId,
        /// SHA-1 of each anchor's SubjectPublicKeyInfo, for CERTREQ (RFC 7296 §3.7).
        authorities: Vec<[u8; 20]>,
        /// Accept RSA with SHA-1 (method 1) of a peer that knows nothing better.
        allow_sha1: bool,
    },
    /// With a pre-shared key.
    Psk(CredentialId),
}

/// One pair of selector sets between two peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// Unique in its connection.
    pub name: String,
    /// Our side.
    pub local: Vec<SelectorTemplate>,
    /// The peer's side.
    pub remote: Vec<SelectorTemplate>,
    /// In order of preference.
    pub esp_proposals: Vec<EspProposal>,
    /// When it comes up.
    pub start: Start,
    /// Time, bytes, packets.
    pub lifetime: Lifetime,
    /// Packets.
    pub replay_window: u32,
}

/// A selector of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorTemplate {
    /// As written.
    Fixed(TrafficSelector),
    /// The virtual address of that side if it has one, else its outer address.
    Dynamic,
}

/// When a child comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once, and again for ever.
    Always,
    /// When a packet wants it.
    Traffic,
    /// When asked, or when the peer calls.
    Manual,
}

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Rekey at this age, minus jitter.
    pub time: Duration,
    /// Rekey after this many bytes, minus jitter (Child SA only).
    pub bytes: Option<u64>,
    /// Rekey after this many packets, minus jitter (Child SA only).
    pub packets: Option<u64>,
    /// Random part taken off the soft limits, in percent.
    pub jitter_percent: u8,
    /// Hard limit above the soft one, in percent.
    pub hard_percent: u8,
}

/// How our requests are repeated (RFC 7296 §2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retransmit {
    /// Before the first repetition.
    pub first: Duration,
    /// Each wait is the one before times this.
    pub factor: f32,
    /// Longest wait.
    pub most: Duration,
    /// Repetitions before the peer counts as gone.
    pub tries: u32,
}

impl Eq for Retransmit {}

impl Retransmit {
    /// The wait after `wait`.
    pub(crate) fn longer(&self, wait: Duration) -> Duration {
        // A factor that is no number, or negative, repeats at an even pace.
        let longer = wait.as_secs_f64() * f64::from(self.factor);
        Duration::try_from_secs_f64(longer)
            .unwrap_or(wait)
            .clamp(self.first, self.most.max(self.first))
    }

    /// How long a request is in flight until the peer counts as gone.
    pub fn patience(&self) -> Duration {
        let mut wait = self.first.min(self.most);
        let mut all = wait;
        for left in (1..=self.tries).rev() {
            let next = self.longer(wait);
            if next == wait {
                return all.saturating_add(wait.saturating_mul(left));
            }
            wait = next;
            all = all.saturating_add(wait);
        }
        all
    }
}

impl Policy {
    /// The connection of that name.
    pub fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.iter().find(|c| c.name == name)
    }
}

impl Remote {
    /// Where it is called, in order; empty: it calls.
    pub fn servers(&self) -> &[Server] {
        match self {
            Self::Any => &[],
            Self::Hosts { servers, .. } => servers,
        }
    }

    /// Whether a call from `source` can be this peer's (names match every source: their
    /// addresses change).
    pub fn may_call_from(&self, source: SocketAddr) -> bool {
        match self {
            Remote::Any => true,
            Remote::Hosts { servers, .. } => servers.iter().any(|server| {
                let address = server.host.address();
                address.is_none_or(|address| address == source.ip())
            }),
        }
    }
}

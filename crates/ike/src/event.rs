//! What the core tells an operator: one event a thing that matters, with the peer, what happened
//! and why. Reasons are sentences for people; their structure is for programs.

use std::fmt;
use std::time::Duration;

use cygnet_wire::id::Identification;

use crate::io::{ChildSaId, IkeSaId, Path};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`crate::policy::Connection::name`], once it is known whose call it is.
    pub connection: Option<String>,
    /// The IKE SA, if there is one.
    pub ike_sa: Option<IkeSaId>,
    /// The way to the peer, if there is one.
    pub path: Option<Path>,
    /// Who the peer proved to be.
    pub peer: Option<Identification>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// We call; `attempt` counts from 1 since the connection was last up.
    Connecting {
        /// Which try.
        attempt: u32,
    },
    /// Authenticated both ways.
    IkeUp {
        /// Suite, as strongSwan keywords.
        suite: String,
        /// A NAT was seen before us.
        nat_local: bool,
        /// A NAT was seen before the peer.
        nat_remote: bool,
        /// The IKE SA this one replaces (rekey or reauthentication).
        replaces: Option<IkeSaId>,
    },
    /// An IKE SA has ended.
    IkeDown {
        /// Why.
        reason: Reason,
    },
    /// A child carries traffic.
    ChildUp {
        /// Which.
        child: ChildSaId,
        /// Its policy's name.
        name: String,
        /// Suite, as strongSwan keywords.
        suite: String,
        /// "10.1.0.0/24 === 10.2.0.0/24".
        selectors: String,
        /// The Child SA this one replaces.
        replaces: Option<ChildSaId>,
        /// The place in [`crate::policy::Remote::servers`] of the one that carries it, where there are several.
        server: Option<usize>,
    },
    /// A child has ended.
    ChildDown {
        /// Which.
        child: ChildSaId,
        /// Its policy's name.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// The peer is elsewhere now.
    PeerMoved {
        /// Where it was.
        from: Path,
    },
    /// We are elsewhere now, or call the peer at another of its addresses, and the peer knows it.
    Moved {
        /// The way that was.
        from: Path,
    },
    /// An exchange, ours or the peer's, was refused; nothing was installed.
    Refused {
        /// By whom and why.
        reason: Reason,
    },
    /// Nobody could say whether a peer that is in would be let in again
    /// ([`crate::io::Command::ExaminePeers`]), though several times asked: it stays.
    Unexamined {
        /// Why not.
        reason: Reason,
    },
    /// One of several servers does not let us in; the next is called.
    ServerFailed(Failed),
    /// A connection that is to be up is not; it is tried again.
    Retry {
        /// After this time.
        after: Duration,
        /// Why it is not up.
        reason: Reason,
    },
    /// Strangers press: cookies are asked for from now on, or no longer.
    Cookies {
        /// From now on.
        on: bool,
    },
    /// Everything asked to end has ended ([`crate::io::Command::Shutdown`]).
    Drained,
}

/// Why something ended or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The operator asked for it.
    Operator,
    /// The peer deleted it.
    DeletedByPeer,
    /// No answer to our request, repeated `sent` times over `waited`.
    NoAnswer {
        /// Times sent.
        sent: u32,
        /// Since the first.
        waited: Duration,
    },
    /// Replaced by a newer one.
    Replaced,
    /// Replaced by a newer one; the peer has not answered that this one ends.
    ReplacedUnanswered,
    /// Hard lifetime reached before a rekey succeeded.
    Expired,
    /// No proposal in common; the sentence lists transform by transform what each side has.
    NoProposal(String),
    /// No traffic selectors in common; the sentence lists both sides'.
    NoSelectors(String),
    /// The peer could not prove its identity to us; the sentence says what and what to do.
    PeerAuthentication(String),
    /// The peer refused our proof of identity.
    AuthenticationRefused(String),
    /// No connection of ours is meant for this peer.
    NoConnection(String),
    /// The peer refused; its notify, and what that usually means.
    PeerRefused(String),
    /// The name of the peer has no address, or no route leads there.
    Unreachable(String),
    /// ESP would travel without UDP, which our data path does not do; the sentence says whose doing
    /// it is and what to do.
    NoEncapsulation(String),
    /// The peer broke the protocol.
    Protocol(String),
    /// Something on this machine failed: data path, addresses, a private key.
    Local(String),
    /// None of several servers lets us in; in the order in which they were called.
    EachServer(Vec<Failed>),
}

impl Reason {
    /// Whether a newer one goes on in its place: an end that is no loss.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        matches!(self, Self::Replaced | Self::ReplacedUnanswered)
    }
}

/// Why one of several servers does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// As it is written, and the address that was called if that is another.
    pub server: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Operator => f.write_str("asked for by the operator"),
            Reason::DeletedByPeer => f.write_str("deleted by the peer"),
            Reason::NoAnswer { sent, waited } => {
                write!(
                    f,
                    "no answer to {sent} messages in {:.1} s",
                    waited.as_secs_f32()
                )
            }
            Reason::Replaced => f.write_str("replaced by a newer one"),
            Reason::ReplacedUnanswered => {
                f.write_str("replaced by a newer one; the peer did not answer that it ends")
            }
            Reason::Expired => f.write_str("lifetime over before it could be renewed"),
            Reason::EachServer(all) => {
                for (n, failed) in all.iter().enumerate() {
                    let separator = if n == 0 { "" } else { "; " };
                    write!(f, "{separator}{failed}")?;
                }
                Ok(())
            }
            Reason::NoProposal(s)
            | Reason::NoSelectors(s)
            | Reason::PeerAuthentication(s)
            | Reason::AuthenticationRefused(s)
            | Reason::NoConnection(s)
            | Reason::PeerRefused(s)
            | Reason::Unreachable(s)
            | Reason::NoEncapsulation(s)
            | Reason::Protocol(s)
            | Reason::Local(s) => f.write_str(s),
        }
    }
}

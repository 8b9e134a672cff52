//! EAP (RFC 3748) as pure state machines, server and peer: identity, MSCHAPv2 (RFC 2759), TLS (RFC 5216, RFC 9190).
//!
//! The IKE core carries EAP packets and knows nothing of methods; a conversation here turns each packet into the next,
//! until there is a master session key or a failure. What needs a secret (a password's hash, a private key) is asked
//! for, not held.
//!
//! ```
//! # use cygnet_crypto::{Random, SystemRandom};
//! # use cygnet_eap::{mschapv2, peer, server, Step};
//! let hash = mschapv2::nt_hash("a good password");
//! let (mut server, mut peer) = (server::Server::new("vpn.example.org", server::Methods::passwords()), peer::Peer::new("alice", peer::LogIn::Password));
//! let mut packet = server.begin(&mut SystemRandom);
//! let keys = loop {
//!     let mut step = peer.handle(&packet, &mut SystemRandom);
//!     if let Step::Ask(challenges) = step {
//!         // Whoever holds the password answers.
//!         step = peer.responded(mschapv2::respond(&hash, &challenges));
//!     }
//!     let Step::Send(response) = step else { panic!() };
//!     let mut step = server.handle(&response, &mut SystemRandom);
//!     if let Step::Ask(attempt) = step {
//!         // Whoever holds the hashes answers, and slows down those who guess.
//!         step = server.verified(mschapv2::verify(&hash, &attempt));
//!     }
//!     match step {
//!         Step::Send(request) => packet = request,
//!         Step::Success { packet: success, login } => {
//!             let Step::Success { login: own, .. } = peer.handle(&success.unwrap(), &mut SystemRandom) else { panic!() };
//!             break (login.msk, own.msk);
//!         }
//!         _ => panic!(),
//!     }
//! };
//! assert!(keys.0.ct_eq(keys.1.expose()));
//! ```

pub mod mschapv2;
pub mod peer;
pub mod server;
pub mod tls;

use cygnet_crypto::Secret;
use cygnet_wire::eap::EapPayload;

/// What is to be done after a packet or an answer. `Q` is what the side asks.
pub enum Step<Q> {
    /// Send this and wait for the next packet.
    Send(EapPayload<'static>),
    /// Send this: it has come to nothing, and the other end is told. It answers, or it breaks off.
    Reject {
        /// What tells it.
        packet: EapPayload<'static>,
        /// One sentence for an operator, as in [`Step::Failure`].
        why: String,
    },
    /// The conversation goes on with the answer.
    Ask(Q),
    /// Both sides have proven themselves.
    Success {
        /// To be sent (server).
        packet: Option<EapPayload<'static>>,
        /// What came of it.
        login: Login,
    },
    /// It came to nothing.
    Failure {
        /// To be sent, if anything is.
        packet: Option<EapPayload<'static>>,
        /// One sentence for an operator: what went wrong, and what to do.
        why: String,
    },
}

/// What a conversation has brought.
pub struct Login {
    /// What was proven, not what was merely said.
    pub proof: Proof,
    /// The master session key (RFC 3748 §7.10), 64 octets.
    pub msk: Secret,
}

/// What the other end has shown to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// To a server: the password of this user. To a peer: that the server knows it.
    Password(String),
    /// The private key of the first of these certificates, DER.
    Certificates(Vec<Vec<u8>>),
}

/// Longest user name that is looked at.
pub const USER_MAX: usize = 256;

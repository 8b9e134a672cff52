//! Why a profile does not become files.

use cygnet_crypto::suite::proposal::ProposalError;
use cygnet_pki::pkcs12::WriteError;

/// Why a profile does not become files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that does not belong where it stands.
    #[error("{what}: expected {expected}, found {found:?}")]
    Text {
        /// Which of the profile's texts.
        what: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// An IKE or ESP proposal that cannot be read.
    #[error("a proposal for devices cannot be read: {0}")]
    Proposal(#[from] ProposalError),
    /// A certificate that is none, or whose key is of a kind unknown here.
    #[error("{whose} certificate: {why}")]
    Certificate {
        /// "the device's" or "the authority's".
        whose: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The `.p12` file.
    #[error(transparent)]
    Pkcs12(#[from] WriteError),
    /// A library could not write the format.
    #[error("cannot write the {format}: {why}")]
    Format {
        /// Which.
        format: &'static str,
        /// In the library's words.
        why: String,
    },
}

//! Why a profile does not become files.

use std::time::Duration;

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
    /// Devices rekey before the server does; Apple's take no less than ten minutes.
    #[error(
        "the server's {what} is {found:?}: expected {least:?} or more, since devices have to rekey before it ends"
    )]
    Lifetime {
        /// `ike_lifetime` or `child_lifetime`.
        what: &'static str,
        /// What it is.
        found: Duration,
        /// What it has to be.
        least: Duration,
    },
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

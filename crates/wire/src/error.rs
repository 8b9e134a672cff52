//! What can be wrong with received bytes, and with what was asked to be sent.

use std::fmt;

use crate::notify::NotifyType;
use crate::payload::PayloadType;

/// Why received bytes are not what they claim to be. `what` names the structure, in the words of
/// the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The bytes end inside `what`.
    Truncated {
        /// The structure that was being read.
        what: &'static str,
        /// Octets its next field takes.
        needed: usize,
        /// Octets that were left.
        available: usize,
    },
    /// A length does not fit `what`.
    Length {
        /// The structure that was being read.
        what: &'static str,
        /// The lengths it may have.
        expected: &'static str,
        /// The length it has.
        got: usize,
    },
    /// A field of `what` has a value it may not have.
    Value {
        /// The structure and field that were being read.
        what: &'static str,
        /// The values it may have.
        expected: &'static str,
        /// The value it has.
        got: u64,
    },
    /// The peer sent more of `what` than anybody needs.
    TooMany {
        /// The structure that is repeated.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// The header names another major version than 2 (RFC 7296 §2.5).
    MajorVersion {
        /// The version it names.
        got: u8,
    },
    /// An unknown payload has its critical bit set (RFC 7296 §2.5).
    UnsupportedCriticalPayload(PayloadType),
}

impl ParseError {
    /// The notification RFC 7296 §3.10.1 wants for this error in a response that is sent at all
    /// (§2.21 says when).
    pub fn notify_type(&self) -> NotifyType {
        match self {
            Self::MajorVersion { .. } => NotifyType::INVALID_MAJOR_VERSION,
            Self::UnsupportedCriticalPayload(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Self::Truncated { .. }
            | Self::Length { .. }
            | Self::Value { .. }
            | Self::TooMany { .. } => NotifyType::INVALID_SYNTAX,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                what,
                needed,
                available,
            } => {
                write!(
                    f,
                    "{what} is cut off: the next field takes {needed} octets, {available} are left"
                )
            }
            Self::Length {
                what,
                expected,
                got,
            } => {
                write!(f, "{what} has a length of {got}, expected {expected}")
            }
            Self::Value {
                what,
                expected,
                got,
            } => {
                write!(f, "{what} is {got}, expected {expected}")
            }
            Self::TooMany { what, limit } => {
                write!(
                    f,
                    "more than {limit} of {what}, which is the most this side accepts"
                )
            }
            Self::MajorVersion { got } => {
                write!(f, "IKE major version is {got}, expected 2")
            }
            Self::UnsupportedCriticalPayload(ty) => {
                write!(
                    f,
                    "payload {ty} is marked critical, but this side does not know it"
                )
            }
        }
    }
}

impl std::error::Error for ParseError {}

/// Something does not fit the field that has to carry its length or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmitError {
    /// The structure that is too large.
    pub what: &'static str,
    /// The largest length or count its field can carry.
    pub limit: usize,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is too large: its field carries at most {}",
            self.what, self.limit
        )
    }
}

impl std::error::Error for EmitError {}

//! Why the program does not start: one line each, with what to do.

use cygnet_config::ConfigError;

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong; several lines if there are several mistakes.
    #[error("{0}")]
    Config(ConfigError),
    /// Something else: a file, a key, a port, a missing right.
    #[error("{0}")]
    Refused(String),
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        StartError::Config(error)
    }
}

impl StartError {
    pub(crate) fn refused(message: impl std::fmt::Display) -> Self {
        StartError::Refused(message.to_string())
    }
}

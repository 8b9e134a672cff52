//! Why something was not done, in one sentence for the person who asked.

use std::io;
use std::path::{Path, PathBuf};

use cygnet_pki::authority::AuthorityError;
use cygnet_pki::load::LoadError;

/// Nothing was changed, except where it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was asked for makes no sense here.
    #[error("{0}")]
    Refused(String),
    /// Another command holds the lock.
    #[error(
        "another cygnet command is changing this server ({} is locked); try again when it is done",
        .0.display()
    )]
    Busy(PathBuf),
    /// A file or directory.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    File {
        /// As a verb: `write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state in SQLite.
    #[error("the server's state in {}: {}", path.display(), told(source))]
    Store {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A certificate could not be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file that was handed over is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The change is in the state, but not yet in the files the daemon reads.
    #[error(
        "the change is made, but the daemon's files could not all be replaced: {0}; \
         mend that, then `cygnet server show` replaces them"
    )]
    Unpublished(Box<Error>),
    /// The change is made, and what was to follow was refused.
    #[error("the change is made, but {0}")]
    Unfinished(String),
}

/// What every function here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether what was typed is to blame.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Load(_) => true,
            // What may not be done is refused; of what fails while a change is made that is not so.
            Self::File { doing, source, .. } => {
                let kind = source.kind();
                [
                    io::ErrorKind::PermissionDenied,
                    io::ErrorKind::ReadOnlyFilesystem,
                ]
                .contains(&kind)
                    && ["read", "open", "look at", "write to"].contains(doing)
            }
            _ => false,
        }
    }

    /// For what comes after the change: a refusal is none of the change any more.
    #[must_use]
    pub fn after_change(self) -> Self {
        match self {
            refusal if refusal.is_refusal() => Self::Unfinished(refusal.to_string()),
            other => other,
        }
    }

    /// For whoever takes the change back: what went wrong with the files alone.
    pub(crate) fn before_commit(self) -> Self {
        match self {
            Self::Unpublished(why) => *why,
            other => other,
        }
    }

    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

/// Why a transaction was given up: the store's errors get its path where they leave it.
pub(crate) enum Flaw {
    Store(rusqlite::Error),
    Other(Error),
}

impl Flaw {
    pub(crate) fn with(self, error: impl Fn(rusqlite::Error) -> Error) -> Error {
        match self {
            Self::Store(flaw) => error(flaw),
            Self::Other(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Flaw {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<AuthorityError> for Flaw {
    fn from(error: AuthorityError) -> Self {
        Self::Other(error.into())
    }
}

pub(crate) fn refused<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Refused(what.into()))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; try again with sudo",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room there first",
        _ => "",
    }
}

fn told(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; make room there first".into(),
        Some(ErrorCode::NotADatabase) => {
            "this is no database of cygnet; move the file away, or restore a backup".into()
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}); restore a backup: `cygnet server restore FILE`")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            format!("{error}; try again with sudo, and look whether the disk can be written to")
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!("{error}; is the disk full, or failing?")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_refused_after_the_change() {
        let refused = Error::Refused("x is no directory".into());
        assert!(refused.is_refusal());
        let unfinished = refused.after_change().after_change();
        assert!(!unfinished.is_refusal());
        assert_eq!(
            unfinished.to_string(),
            "the change is made, but x is no directory"
        );
        // What may not be read is refused; a disk that is full has failed.
        let file = |kind: io::ErrorKind| Error::file("read", Path::new("x"))(kind.into());
        assert!(file(io::ErrorKind::PermissionDenied).is_refusal());
        assert!(!file(io::ErrorKind::StorageFull).is_refusal());
        let busy = Error::Busy("state".into());
        assert_eq!(
            Error::Busy("state".into()).after_change().to_string(),
            busy.to_string()
        );
    }
}

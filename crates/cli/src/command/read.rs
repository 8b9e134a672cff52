//! A file that a person names, read whole: of bounded length, and never waited for.

use std::fs::{Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cygnet_server::{Error, Result};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The content and what is known of the file, both of the one that was opened: by the time one looks again there may
/// be another under its name.
pub(super) fn read(path: &Path, most: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let refuse = |what: &str| Error::Refused(format!("cannot read {}: {what}", path.display()));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => refuse(&format!("{error}; try again with sudo")),
        _ => refuse(&error.to_string()),
    };
    // Without O_NONBLOCK a FIFO would be waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(refuse("it is a folder; name the files in it"));
    }
    if !metadata.is_file() {
        return Err(refuse("expected a regular file"));
    }
    let too_long = || {
        refuse(&format!(
            "expected at most {most} bytes; is it the right file?"
        ))
    };
    if metadata.len() > most {
        return Err(too_long());
    }
    // Of one size: growing would leave copies of a secret behind in freed memory.
    let length = usize::try_from(metadata.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(too_long());
    }
    Ok((bytes, metadata))
}

//! A file that a person names, read whole: of bounded length, and never waited for.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cygnet_server::{Error, Result};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The content and what is known of the file, both of the one that was opened: by the time one looks again there may
/// be another under its name.
pub(super) fn read(path: &Path, most: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let refuse = |what: &str| Error::Refused(format!("cannot read {}: {what}", path.display()));
    let failed = |error: io::Error| refuse(&told(&error));
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

/// Why it cannot be read, and what to do.
fn told(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("{error}; try again with sudo"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_is_told_who_may() {
        let told = |kind: ErrorKind| told(&kind.into());
        assert!(told(ErrorKind::PermissionDenied).ends_with("; try again with sudo"));
        assert!(!told(ErrorKind::NotFound).contains("sudo"));
    }
}

//! Leases on disk: one JSON object, of this program's own making, replaced whole.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cygnet_dhcp::{ADDRESSES_MAX, Record};
use cygnet_linux::keep_file;
use serde::{Deserialize, Serialize};

use super::WRITE_EACH;

/// Of the range, and a reservation beside each.
pub(super) const RECORDS_MAX: usize = 2 * ADDRESSES_MAX as usize;
/// A file of another version is not read.
const VERSION: u32 = 1;
/// Octets of a file that is read.
const FILE_MAX: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// When it was written, in seconds since 1970, if that was known.
    date: Option<i64>,
    leases: Vec<Record>,
}

/// The leases of an earlier run. Without a date, then or now, no time has passed: an address is rather kept too long
/// for its device than lent to another one.
pub(super) fn read(path: &Path, date: Option<i64>) -> Vec<Record> {
    match kept(path) {
        Ok(Some(kept)) => still(kept, date),
        Ok(None) => Vec::new(),
        Err(why) => {
            tracing::warn!(
                "{}: {why}; addresses that are lent may be lent again, devices notice that and ask anew",
                path.display()
            );
            Vec::new()
        }
    }
}

fn kept(path: &Path) -> Result<Option<Kept>, String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err("somebody else may have written it, so it is not read".to_owned());
    }
    if metadata.len() > FILE_MAX {
        return Err(format!("{} octets are too many", metadata.len()));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let kept: Kept =
        serde_json::from_slice(&bytes).map_err(|e| format!("it holds no leases: {e}"))?;
    match kept.version {
        VERSION => Ok(Some(kept)),
        other => Err(format!("version {VERSION} expected, it is {other}")),
    }
}

fn still(kept: Kept, date: Option<i64>) -> Vec<Record> {
    let elapsed = match (kept.date, date) {
        (Some(then), Some(now)) => u64::try_from(now.saturating_sub(then)).unwrap_or(0),
        _ => 0,
    };
    let mut leases = kept.leases;
    leases.truncate(RECORDS_MAX);
    for lease in &mut leases {
        lease.remaining_s = match lease.remaining_s.saturating_sub(elapsed) {
            0 => 0,
            // What was renewed just before a crash was not written yet.
            remaining => remaining.saturating_add(WRITE_EACH.as_secs()),
        };
    }
    leases
}

/// The file's content.
pub(super) fn emit(leases: &[Record], date: Option<i64>) -> Option<Vec<u8>> {
    let kept = Kept {
        version: VERSION,
        date,
        leases: leases.to_vec(),
    };
    serde_json::to_vec(&kept).ok()
}

pub(super) fn write(path: &Path, bytes: &[u8]) {
    if let Err(error) = keep_file(path, bytes) {
        tracing::warn!(
            "cannot write {}: {error}; after a restart other devices may be lent the same addresses",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::Mac;

    use super::*;

    const TODAY: i64 = 1_795_651_200;

    fn lease(last: u8, remaining_s: u64) -> Record {
        Record {
            address: [192, 168, 1, last].into(),
            mac: Mac::new([2, 0, 0, 0, 0, last]).unwrap(),
            client: Some(vec![0, last]),
            name: Some("phone".to_owned()),
            remaining_s,
        }
    }

    #[test]
    fn what_is_written_is_read_as_of_then() {
        let name = format!("cygnet-leases-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let path = directory.join("dhcp-leases.json");
        let leases = [lease(9, 3600), lease(10, 100), lease(11, 0)];
        let of = |records: Vec<Record>| -> Vec<u64> {
            records.iter().map(|record| record.remaining_s).collect()
        };
        assert!(read(&path, Some(TODAY)).is_empty());
        let mut seen = Vec::new();
        for (written, now) in [
            (Some(TODAY), Some(TODAY + 600)),
            // A clock that went back, or that is not known.
            (Some(TODAY), Some(TODAY - 600)),
            (Some(TODAY), None),
            (None, Some(TODAY)),
        ] {
            write(&path, &emit(&leases, written).unwrap());
            let read = read(&path, now);
            assert_eq!(read.len(), 3);
            assert_eq!(
                (&read[0].client, &read[0].name),
                (&leases[0].client, &leases[0].name)
            );
            seen.push(of(read));
        }
        std::fs::write(&path, "{\"version\":2,\"date\":null,\"leases\":[]}").unwrap();
        let other = kept(&path).unwrap_err();
        std::fs::write(&path, "nonsense").unwrap();
        let nonsense = kept(&path).unwrap_err();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(seen[0], [3010, 0, 0]);
        for unknown in seen.iter().skip(1) {
            assert_eq!(*unknown, [3610, 110, 0]);
        }
        assert!(other.contains("version 1 expected"), "{other}");
        assert!(nonsense.contains("holds no leases"), "{nonsense}");
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("cygnet-leases-mode-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, emit(&[lease(9, 60)], None).unwrap()).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path, None).len()
        };
        let seen = (mode(0o600), mode(0o666));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seen, (1, 0));
    }
}

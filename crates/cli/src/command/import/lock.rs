//! The lock of the commands that change a server: they write `cygnet.toml`, too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cygnet_server::Configuration;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Where the state is if the configuration does not say so.
const STATE_DIR: &str = "/var/lib/cygnet";
/// Other commands are done in less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps them out until it is dropped. `None` where there is no server's state, or it is not ours to touch: nobody who
/// cannot open it changes a server there.
pub(super) fn of_server(config: &Path) -> Result<Option<File>, String> {
    let directories = Configuration::read(config).and_then(|it| it.directories());
    // What is wrong with a configuration is told where it is read for itself.
    let written = directories.ok().and_then(|(state_dir, _)| state_dir);
    let state_dir = written.unwrap_or_else(|| PathBuf::from(STATE_DIR));
    let Ok(directory) = File::open(&state_dir) else {
        return Ok(None);
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory)),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(format!(
                    "another cygnet command is changing the server here ({} is locked); try again when it is done",
                    state_dir.display()
                ));
            }
            Err(error) => return Err(format!("cannot lock {}: {error}", state_dir.display())),
        }
    }
}

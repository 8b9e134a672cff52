//! chrony as a time server on a host of the lab. It is unpacked, not installed: installed, it would take the place of
//! what keeps this machine's own clock right.

use super::{Context, Exec, Failure, Lab, Namespace, Process, Result, wait_for};
use crate::project;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Where it is, once [`unpack`] has been there.
fn directory() -> PathBuf {
    project::target().join("lab/chrony")
}

/// Fetches the package, unless that was done before. Two that do so at once do not disturb each other.
pub fn unpack() -> Result<()> {
    let directory = directory();
    let is_there = || directory.join("usr/sbin/chronyd").exists();
    if is_there() {
        return Ok(());
    }
    let own = directory.with_extension(std::process::id().to_string());
    fs::create_dir_all(&own).context(format!("cannot make {}", own.display()))?;
    let fetch =
        "apt-get -qq download chrony && dpkg-deb --extract chrony_*.deb . && rm chrony_*.deb";
    let line = format!("cd '{}' && {fetch}", own.display());
    let fetched = Exec::new(["sh", "-ec", &line]).patience(Duration::from_secs(300));
    let fetched = fetched
        .run()
        .map_err(|failure| failure.while_doing("fetching chrony with apt-get"));
    let placed = fetched.and_then(|_| match fs::rename(&own, &directory) {
        Err(error) if !is_there() => {
            Err(error).context(format!("cannot make {}", directory.display()))
        }
        _ => Ok(()),
    });
    // What was not placed is of no use.
    let _ = fs::remove_dir_all(&own);
    placed
}

/// What a time server says.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// That it does not know the time itself, as one that has just been started.
    Nothing,
    /// The date of this machine.
    Date,
    /// One that is off by what libfaketime understands (`-56y`).
    Off(&'static str),
}

/// A time server; ended when dropped.
#[derive(Debug)]
pub struct Chrony {
    process: Process,
}

impl Chrony {
    /// Serves the date on a host.
    pub fn start(lab: &Lab, host: &Namespace, says: Says) -> Result<Self> {
        let place = lab.subdirectory(&format!("chrony-{}", host.name()))?;
        let config = place.join("chrony.conf");
        let pid = place.join("pid");
        let knows = match says {
            Says::Nothing => "",
            // Without another server.
            Says::Date | Says::Off(_) => "local stratum 3\n",
        };
        // No clock is kept by it, and nobody controls it.
        let text = format!(
            "{knows}allow all\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
            pid.display()
        );
        fs::write(&config, text)?;
        let program = directory().join("usr/sbin/chronyd");
        let program = program.to_string_lossy().into_owned();
        let config = config.to_string_lossy().into_owned();
        let chronyd = [
            &*program, "-d", "-x", "-u", "root", "-F", "0", "-f", &*config,
        ];
        // `faketime` itself would stay between: who ends it does not end chronyd.
        let fake;
        let faketime: &[&str] = match says {
            Says::Off(offset) => {
                fake = format!("FAKETIME={offset}");
                &[
                    "env",
                    "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1",
                    "FAKETIME_DONT_FAKE_MONOTONIC=1",
                    &fake,
                ]
            }
            Says::Nothing | Says::Date => &[],
        };
        let argv = faketime.iter().copied().chain(chronyd);
        let mut process = host.spawn_exec(Exec::new(argv))?;
        wait_for("chronyd answers", Duration::from_secs(10), || {
            if !process.is_running() {
                let words = process.last_words();
                return Err(Failure::new(format!("chronyd ended: {words}")));
            }
            Ok(host.listens_udp(123)?.then_some(()))
        })?;
        Ok(Self { process })
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.process.stop();
    }
}

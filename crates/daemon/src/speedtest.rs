//! The processes of a speed test: the server's endpoint, and whoever measures.
//!
//! Both speak HTTP with a network, so both are of their own, of the engine's user, with nothing to lose. `cygnet
//! speedtest` sends a [`Errand`] to one that measures, and gets an [`Event`] a line; figures are made from these by
//! `cygnet-speedtest`.

mod client;
mod direction;
mod endpoint;
mod measure;
mod noise;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cygnet_speedtest::Load;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take};
use tokio::process::{Child, ChildStdout};

use crate::error::StartError;
use crate::helper;
use crate::supervisor::start;

pub(crate) use endpoint::argument;

/// Octets of what is told in a run: some hundred thousand events.
const TOLD_MAX: u64 = 16 << 20;

/// What to measure, and on which way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// Interface that everything leaves by.
    pub interface: String,
    /// Addresses of ours to speak from, one of each family at most; none: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// What is asked for to measure the round trip, by `HEAD`: an `http://` URL, as all of these.
    pub ping: String,
    /// What is downloaded.
    pub down: Option<String>,
    /// Where is uploaded to, by `POST`.
    pub up: Option<String>,
    /// Where the server tells its [`Load`].
    pub load: Option<String>,
    /// Seconds of each direction that are counted, after [`cygnet_speedtest::WARM_UP`].
    pub seconds: u16,
    /// TCP connections of each direction.
    pub streams: u8,
}

/// What is measured at a time, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Round trips alone.
    Idle,
    /// A download, and round trips meanwhile.
    Down,
    /// An upload likewise.
    Up,
}

/// What whoever measures tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A phase begins.
    Begun(Phase),
    /// So many octets have arrived, so long after the phase began.
    Moved {
        /// Microseconds.
        at_us: u64,
        /// In all.
        octets: u64,
    },
    /// What happens from now on is counted.
    Counting,
    /// What happens from now on is not.
    Counted,
    /// A round trip, in microseconds.
    Answered(u64),
    /// What the server had to do, when counting began and when it ended.
    Load(Load),
    /// The phase is over.
    Over,
    /// Why nothing came of the phase, or of all of it, in a sentence.
    Failed(String),
}

/// A measurement under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Measuring {
    child: Child,
    told: Lines<BufReader<Take<ChildStdout>>>,
}

impl Measuring {
    /// Starts a process that measures, as that user and group.
    ///
    /// # Errors
    /// One sentence: the process could not be started.
    pub async fn start(errand: &Errand, user: (u32, u32)) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot start to measure: {e}");
        let message = postcard::to_allocvec(errand).map_err(|e| failed(&e))?;
        // Ctrl-C is for whoever follows, who ends this process.
        let mut child = helper::command("speedtest-measure", &errand.interface, user)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"no pipe"));
        };
        stdin.write_all(&message).await.map_err(|e| failed(&e))?;
        Ok(Self {
            child,
            told: BufReader::new(stdout.take(TOLD_MAX)).lines(),
        })
    }

    /// The next event; `None` when all is measured.
    ///
    /// # Errors
    /// One sentence: the process ended early, or is not understood.
    pub async fn next(&mut self) -> Result<Option<Event>, String> {
        let broken = |e: &dyn std::fmt::Display| format!("the process that measures failed: {e}");
        let line = self.told.next_line().await.map_err(|e| broken(&e))?;
        if let Some(line) = line {
            let event = serde_json::from_str(&line).map_err(|e| broken(&e))?;
            return Ok(Some(event));
        }
        match self.child.wait().await.map_err(|e| broken(&e))? {
            status if status.success() => Ok(None),
            status => Err(broken(&status)),
        }
    }
}

/// What `cygnet speedtest` has to know of a running daemon's configuration.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the history is kept.
    pub state_dir: PathBuf,
    /// User and group that measure.
    pub user: (u32, u32),
    /// The interface of each tunnel.
    pub interfaces: BTreeMap<String, String>,
}

/// Reads what has to be known.
///
/// # Errors
/// The configuration is not readable, or wrong.
pub fn surroundings(config: &Path) -> Result<Surroundings, StartError> {
    let (config, _) = start::public(config)?;
    let tunnels = config.tunnels.into_iter();
    Ok(Surroundings {
        state_dir: config.daemon.state_dir.into(),
        user: start::engine_user(config.daemon.engine_user.as_deref())?,
        interfaces: tunnels.map(|(name, t)| (name, t.interface)).collect(),
    })
}

/// Serves clients, until the process that started it ends. `place`: an interface, and the addresses to answer at. Returns
/// the exit code.
pub fn endpoint(place: &str) -> u8 {
    endpoint::run(place)
}

/// Measures what standard input asks for, and tells on standard output. Returns the exit code.
pub fn measure(interface: &str) -> u8 {
    measure::run(interface)
}

#[cfg(test)]
mod tests;

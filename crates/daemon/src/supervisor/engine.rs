//! The engine's process as the supervisor holds it: started, talked to, watched, killed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc::Sender;

use crate::ipc::{Channel, Setup, ToEngine, ToSupervisor};

/// What an engine does. The generation tells one engine from the one before.
pub(super) enum EngineEvent {
    /// It says something.
    Message {
        generation: u64,
        message: ToSupervisor,
    },
    /// It has ended, and this is how.
    Gone { generation: u64, how: String },
}

/// A running engine.
pub(super) struct Engine {
    channel: Arc<Channel>,
    pid: u32,
    /// Names the process even when its number is used again.
    pidfd: OwnedFd,
    pub(super) started: Instant,
    pub(super) last_heard: Instant,
}

impl Engine {
    /// Starts this program again as `cygnet engine`, under another user, with nothing inherited
    /// but one end of a socketpair.
    pub(super) fn spawn(
        generation: u64,
        (uid, gid): (u32, u32),
        setup: Setup,
        fds: &[OwnedFd],
        events: Sender<EngineEvent>,
    ) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot start the engine: {e}");
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("cygnet")
            .arg("engine")
            .uid(uid)
            .gid(gid)
            .env_clear()
            .envs(std::env::vars_os().filter(|(k, _)| k == "JOURNAL_STREAM"))
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(failed)?;
        let pid = child.id();
        let pidfd = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| failed(io::Error::other("no process id")))
            .and_then(|p| {
                rustix::process::pidfd_open(p, PidfdFlags::empty()).map_err(|e| failed(e.into()))
            })?;
        let channel = Arc::new(channel);
        let reader = Arc::clone(&channel);
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || listen(generation, &reader, child, &events))
            .map_err(failed)?;
        let now = Instant::now();
        let engine = Self {
            channel,
            pid,
            pidfd,
            started: now,
            last_heard: now,
        };
        if let Err(error) = engine.send(&ToEngine::Setup(Box::new(setup)), fds) {
            engine.kill();
            return Err(failed(error));
        }
        Ok(engine)
    }

    pub(super) fn send(&self, message: &ToEngine, fds: &[OwnedFd]) -> io::Result<()> {
        self.channel.send(message, fds)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A thread of its own: the messages of one engine, then its end.
fn listen(generation: u64, channel: &Channel, mut child: Child, events: &Sender<EngineEvent>) {
    let broken = loop {
        match channel.receive::<ToSupervisor>() {
            Ok(Some((message, _))) => {
                let event = EngineEvent::Message {
                    generation,
                    message,
                };
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if broken.is_some() {
        // What it says is not understood: it cannot be trusted to end by itself.
        let _ = child.kill();
    }
    let how = match (child.wait(), broken) {
        (_, Some(error)) => format!("its messages are not understood: {error}"),
        (Ok(status), None) => describe(status),
        (Err(error), None) => error.to_string(),
    };
    let _ = events.blocking_send(EngineEvent::Gone { generation, how });
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

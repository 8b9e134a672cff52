//! A process of this program that stays beside the supervisor, without its rights: started, told, listened to, ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;

use crate::ipc::Channel;

/// A running one.
pub(super) struct Companion {
    channel: Arc<Channel>,
    pid: u32,
    /// Names the process even when its number is used again.
    pidfd: OwnedFd,
}

impl Companion {
    /// Starts this program again as `cygnet ORDER`, under another user, with nothing inherited but one end of a
    /// socketpair, and the log if it `logs`. A thread of its own does `listen`, until the process has ended.
    pub(super) fn spawn(
        order: &str,
        (uid, gid): (u32, u32),
        logs: bool,
        listen: impl FnOnce(&Channel, Child) + Send + 'static,
    ) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("cygnet")
            .arg(order)
            .uid(uid)
            .gid(gid)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs));
        if logs {
            command.envs(std::env::vars_os().filter(|(k, _)| k == "JOURNAL_STREAM"));
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let mut child = command.spawn()?;
        let pidfd = match pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let companion = Self {
            channel: Arc::new(channel),
            pid: child.id(),
            pidfd,
        };
        let channel = Arc::clone(&companion.channel);
        let listener = std::thread::Builder::new().name(order.to_owned());
        if let Err(error) = listener.spawn(move || listen(&channel, child)) {
            companion.kill();
            return Err(error);
        }
        Ok(companion)
    }

    pub(super) fn send<M: Serialize>(&self, message: &M, fds: &[OwnedFd]) -> io::Result<()> {
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

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for the end of one that says nothing more; how it came. What is not `understood` cannot be trusted to end by
/// itself.
pub(super) fn end(mut child: Child, understood: io::Result<()>) -> String {
    if understood.is_err() {
        let _ = child.kill();
    }
    match (child.wait(), understood) {
        (_, Err(error)) => format!("its messages are not understood: {error}"),
        (Ok(status), Ok(())) => describe(status),
        (Err(error), Ok(())) => error.to_string(),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

//! A process of this program that stays beside the supervisor, without its rights: started, told, listened to, ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};
use serde::Serialize;

use super::hooks::visible;
use crate::ipc::Channel;

/// Letters of a sentence of such a process that are heeded.
const SENTENCE_MAX: usize = 400;

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
        let thread = std::thread::Builder::new().name(order.to_owned());
        companion.listened_to_by(thread, child, listen)?;
        Ok(companion)
    }

    /// Starts the thread; where there can be none the process is ended, and waited for.
    fn listened_to_by(
        &self,
        thread: std::thread::Builder,
        child: Child,
        listen: impl FnOnce(&Channel, Child) + Send + 'static,
    ) -> io::Result<()> {
        let channel = Arc::clone(&self.channel);
        let started = thread.spawn(move || listen(&channel, child));
        started.map(drop).inspect_err(|_| {
            // The child itself went with the closure.
            self.kill();
            let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        })
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

/// What a process without rights says for people: one line of so many letters, which steers no terminal. It reads what
/// strangers send, and may have been taken over.
pub(super) fn sentence(said: &str) -> String {
    let said: String = said.chars().take(SENTENCE_MAX).collect();
    visible(&said)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_a_line_of_no_great_length() {
        let said = format!("no answer\nengine: up\u{1b}[2J{}", "ü".repeat(10_000));
        let heard = sentence(&said);
        let expected = "no answer\u{fffd}engine: up\u{fffd}[2Jüü";
        assert!(heard.starts_with(expected), "{heard}");
        assert_eq!(heard.chars().count(), SENTENCE_MAX);
    }

    #[test]
    fn one_that_nobody_can_listen_to_is_ended_and_waited_for() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let (channel, _theirs) = Channel::pair().unwrap();
        let companion = Companion {
            channel: Arc::new(channel),
            pid: child.id(),
            pidfd: pidfd(&child).unwrap(),
        };
        // No address space is that large.
        let thread = std::thread::Builder::new().stack_size(1 << 60);
        let started = companion.listened_to_by(thread, child, |_, _| {});
        assert!(started.is_err());
        let left = waitid(
            WaitId::PidFd(companion.pidfd.as_fd()),
            WaitIdOptions::EXITED,
        );
        assert_eq!(left.err(), Some(rustix::io::Errno::CHILD), "nobody is left");
    }
}

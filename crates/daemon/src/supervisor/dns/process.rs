//! The process as the supervisor holds it: started, told, listened to, killed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::dns::messages::{Report, ToResolver};
use crate::ipc::Channel;
use crate::supervisor::Done;

/// A running one.
pub(super) struct Process {
    channel: Arc<Channel>,
    pid: u32,
    /// Names the process even when its number is used again.
    pidfd: OwnedFd,
    pub(super) started: Instant,
    /// What it said last. It may say as much as it likes: only that is kept.
    report: Arc<Mutex<Report>>,
}

impl Process {
    /// Starts this program again as `cygnet serve-dns`, under another user, with nothing inherited but one end of a
    /// socketpair.
    pub(super) fn spawn(
        generation: u64,
        (uid, gid): (u32, u32),
        done: UnboundedSender<Done>,
    ) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot start it: {e}");
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("cygnet")
            .arg("serve-dns")
            .uid(uid)
            .gid(gid)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
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
        let report = Arc::new(Mutex::new(Report::default()));
        let (reader, heard) = (Arc::clone(&channel), Arc::clone(&report));
        std::thread::Builder::new()
            .name("dns".into())
            .spawn(move || {
                let how = listen(&reader, child, &heard);
                let _ = done.send(Done::Dns(Event::Gone { generation, how }));
            })
            .map_err(failed)?;
        Ok(Self {
            channel,
            pid,
            pidfd,
            started: Instant::now(),
            report,
        })
    }

    /// One that does not listen is ended; its end is noticed by who reads.
    pub(super) fn tell(&self, message: &ToResolver, fds: &[OwnedFd]) {
        if let Err(error) = self.channel.send(message, fds) {
            tracing::warn!("the process that answers devices does not listen ({error}): ending it");
            self.kill();
        }
    }

    pub(super) fn report(&self) -> Report {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A thread of its own: what it reports, until its end; how that came.
fn listen(channel: &Channel, mut child: Child, heard: &Mutex<Report>) -> String {
    let broken = loop {
        match channel.receive_bare::<Report>() {
            Ok(Some(report)) => {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // One that has closed its end, or is not understood, is of no use any more.
    let _ = child.kill();
    match (child.wait(), broken) {
        (_, Some(error)) => format!("its messages are not understood: {error}"),
        (Ok(status), None) => describe(status),
        (Err(error), None) => error.to_string(),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

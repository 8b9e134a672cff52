//! The process that lends addresses, as the supervisor holds it: started with its sockets, listened to, ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cygnet_dhcp::{CLIENT_PORT, SERVER_PORT};
use cygnet_linux::lan;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc::Sender;

use crate::dhcp::{FromDhcp, Setup, ToDhcp};
use crate::ipc::Channel;

/// Messages are not read faster than this; it has one to say in a second or two. Once it was taken over it might say
/// them without end, and what the engine says would wait.
const SELDOM: Duration = Duration::from_millis(50);

/// How long it has to say what it lent last.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(1);

/// What it does. The generation tells one from the one before.
pub(in crate::supervisor) enum DhcpEvent {
    /// It says something.
    Message { generation: u64, message: FromDhcp },
    /// It has ended, and this is how.
    Gone { generation: u64, how: String },
}

pub(super) struct Process {
    channel: Arc<Channel>,
    /// Names the process even when its number is used again.
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Opens its sockets and starts it, under another user, with nothing inherited but one end of a socketpair.
    pub(super) fn spawn(
        generation: u64,
        (uid, gid): (u32, u32),
        interface: &str,
        setup: Setup,
        events: Sender<DhcpEvent>,
    ) -> Result<Self, String> {
        let refused = |e: cygnet_linux::Error| e.to_string();
        let mut fds = vec![
            lan::dhcp_socket(interface, SERVER_PORT, false).map_err(refused)?,
            // This machine may be a DHCP client as well.
            lan::dhcp_socket(interface, CLIENT_PORT, true).map_err(refused)?,
        ];
        if let Some(router) = &setup.router {
            fds.push(lan::router_socket(interface, router.interface).map_err(refused)?);
        }
        let failed = |e: io::Error| format!("cannot start the process that lends them: {e}");
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("cygnet")
            .arg("serve-dhcp")
            .uid(uid)
            .gid(gid)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pidfd = match pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error));
            }
        };
        let channel = Arc::new(channel);
        let process = Self {
            channel: Arc::clone(&channel),
            pidfd: Arc::new(pidfd),
        };
        std::thread::Builder::new()
            .name("dhcp".into())
            .spawn(move || listen(generation, &channel, child, &events))
            .map_err(|e| {
                process.kill();
                failed(e)
            })?;
        let sent = process.channel.send(&ToDhcp::Setup(Box::new(setup)), &fds);
        if let Err(error) = sent {
            process.kill();
            return Err(failed(error));
        }
        Ok(process)
    }

    /// Has it end by itself, and say before what it lent last; if it is to be a router no more (`farewell`), devices
    /// are told.
    pub(super) fn end(&self, farewell: bool) {
        if self.channel.send(&ToDhcp::End { farewell }, &[]).is_err() {
            self.kill();
            return;
        }
        let pidfd = Arc::clone(&self.pidfd);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(END_PATIENCE).await;
            kill(&pidfd);
        });
    }

    fn kill(&self) {
        kill(&self.pidfd);
    }
}

fn kill(pidfd: &OwnedFd) {
    // It may have ended by itself.
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// A thread of its own: its messages, then its end.
fn listen(generation: u64, channel: &Channel, mut child: Child, events: &Sender<DhcpEvent>) {
    let broken = loop {
        match channel.receive::<FromDhcp>() {
            Ok(Some((message, _))) => {
                let event = DhcpEvent::Message {
                    generation,
                    message,
                };
                if events.blocking_send(event).is_err() {
                    break None;
                }
                std::thread::sleep(SELDOM);
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
        (Ok(status), None) => status.to_string(),
        (Err(error), None) => error.to_string(),
    };
    let _ = events.blocking_send(DhcpEvent::Gone { generation, how });
}

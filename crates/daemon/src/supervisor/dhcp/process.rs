//! The process that lends addresses and advertises the router, as the supervisor holds it: started with its sockets, listened to, ended.

use std::net::Ipv6Addr;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use cygnet_dhcp::{CLIENT_PORT, SERVER_PORT};
use cygnet_linux::lan;
use tokio::sync::mpsc::Sender;

use crate::dhcp::{FromDhcp, Setup, ToDhcp};
use crate::ipc::Channel;
use crate::supervisor::companion::{self, Companion};

/// Messages are not read faster than this; it has one to say in a second or two. Once it was taken over it might say
/// them without end, and what the engine says would wait.
const SELDOM: Duration = Duration::from_millis(50);

/// A message of it: what is lent, of a range of 4096 addresses.
const MESSAGE_MAX: usize = 2 << 20;

/// How long it has to say what it lent last.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(1);

/// What it does. The generation tells one from the one before.
pub(in crate::supervisor) enum DhcpEvent {
    /// It says something.
    Message { generation: u64, message: FromDhcp },
    /// It has ended, and this is how.
    Gone { generation: u64, how: String },
}

pub(super) struct Process(Arc<Companion>);

impl Process {
    /// Opens its sockets and starts it.
    pub(super) fn spawn(
        generation: u64,
        user: (u32, u32),
        interface: &str,
        setup: Setup,
        events: Sender<DhcpEvent>,
    ) -> Result<Self, String> {
        let refused = |e: cygnet_linux::Error| e.to_string();
        let mut fds = Vec::new();
        if setup.lends.is_some() {
            fds.push(lan::dhcp_socket(interface, SERVER_PORT, false).map_err(refused)?);
            // This machine may be a DHCP client as well.
            fds.push(lan::dhcp_socket(interface, CLIENT_PORT, true).map_err(refused)?);
        }
        if let Some(router) = &setup.router {
            fds.push(lan::router_socket(interface, router.interface).map_err(refused)?);
        }
        let process = Companion::spawn("serve-dhcp", user, false, move |channel, child| {
            listen(generation, channel, child, &events);
        });
        let started = process.and_then(|process| {
            let sent = process.send(&ToDhcp::Setup(Box::new(setup)), &fds);
            sent.inspect_err(|_| process.kill()).map(|()| process)
        });
        let process = started.map_err(|e| format!("cannot start the process for it: {e}"))?;
        Ok(Self(Arc::new(process)))
    }

    /// Has other resolvers advertised. One that has ended hears nothing, and the next one begins with them.
    pub(super) fn advertise(&self, dns: Vec<Ipv6Addr>) {
        let _ = self.0.send(&ToDhcp::Resolvers(dns), &[]);
    }

    /// Has it end by itself, and say before what it lent last; if it is to be a router no more (`farewell`), devices
    /// are told.
    pub(super) fn end(&self, farewell: bool) {
        if self.0.send(&ToDhcp::End { farewell }, &[]).is_err() {
            self.0.kill();
            return;
        }
        let process = Arc::clone(&self.0);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(END_PATIENCE).await;
            process.kill();
        });
    }
}

/// A thread of its own: its messages, then its end.
fn listen(generation: u64, channel: &Channel, child: Child, events: &Sender<DhcpEvent>) {
    let understood = loop {
        match channel.receive_bare::<FromDhcp>(MESSAGE_MAX) {
            Ok(Some(message)) => {
                let event = DhcpEvent::Message {
                    generation,
                    message,
                };
                if events.blocking_send(event).is_err() {
                    break Ok(());
                }
                std::thread::sleep(SELDOM);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let how = companion::end(child, understood);
    let _ = events.blocking_send(DhcpEvent::Gone { generation, how });
}

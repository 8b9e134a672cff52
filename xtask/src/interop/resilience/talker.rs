//! A host of the internet that, once asked, goes on answering a device, whether it is still there or not.

use super::home::SOON;
use crate::lab::{Context, Failure, Namespace, Result, interrupt, join, on_host};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PORT: u16 = 7;

/// Talks until it is dropped.
#[derive(Debug)]
pub(in crate::interop) struct Talker {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Talker {
    /// `device` asks `host` at `address`; returns when the first answer has come.
    pub(in crate::interop) fn start(
        host: &Namespace,
        device: &Namespace,
        address: &str,
    ) -> Result<Self> {
        let address: IpAddr = address.parse().context(address)?;
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = on_host(host, move || {
            let socket = UdpSocket::bind(SocketAddr::new(address, PORT))?;
            talk(&socket, &stopped, &count)
        });
        let talker = Self {
            stop,
            sent,
            thread: Some(thread),
        };
        join(on_host(device, move || {
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            ask(&socket, SocketAddr::new(address, PORT))
        }))?;
        Ok(talker)
    }

    /// Datagrams sent so far.
    pub(in crate::interop) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it was told of its peer is no failure.
            let _ = join(thread);
        }
    }
}

fn ask(socket: &UdpSocket, whom: SocketAddr) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        interrupt::check()?;
        socket.send_to(b"talk to me", whom)?;
        if socket.recv_from(&mut [0; 64]).is_ok() {
            return Ok(());
        }
    }
    Err(Failure::new(format!("{whom} does not talk")))
}

/// Waits for whom to talk to, then does.
fn talk(socket: &UdpSocket, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut peer = None;
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let Some(peer) = peer else {
            peer = socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from);
            continue;
        };
        if socket.send_to(b"are you still there?", peer).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

//! A device that never stops: UDP, TCP and ICMP over IPv4 and IPv6 to the web host, whatever comes
//! back.

use super::home::{SOON, WEB6};
use crate::lab::world::{WEB, WEB_PORT};
use crate::lab::{Context, Namespace, Process, Result, interrupt, join, on_host, wait_for};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Traffic of one device until it is dropped.
#[derive(Debug)]
pub(in crate::interop) struct Restless {
    stop: Arc<AtomicBool>,
    families: Vec<Counts>,
    threads: Vec<JoinHandle<Result<()>>>,
    _pings: Vec<Process>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    /// UDP datagrams sent, or refused by the device's own kernel.
    datagrams: Arc<AtomicU64>,
    /// TCP connections tried.
    tried: Arc<AtomicU64>,
    /// Pages that came over TCP.
    answered: Arc<AtomicU64>,
}

impl Restless {
    /// Starts on `device`.
    pub(in crate::interop) fn start(device: &Namespace) -> Result<Self> {
        let mut all = Self {
            stop: Arc::default(),
            families: Vec::new(),
            threads: Vec::new(),
            _pings: Vec::new(),
        };
        for address in [WEB, WEB6] {
            let counts = Counts::default();
            let host: IpAddr = address.parse().context(address)?;
            let (stop, sent) = (Arc::clone(&all.stop), Arc::clone(&counts.datagrams));
            all.threads
                .push(on_host(device, move || datagrams(host, &stop, &sent)));
            let (stop, mine) = (Arc::clone(&all.stop), counts.clone());
            all.threads
                .push(on_host(device, move || pages(host, &stop, &mine)));
            all._pings
                .push(device.spawn(["ping", "-n", "-q", "-i", "0.02", address])?);
            all.families.push(counts);
        }
        Ok(all)
    }

    /// Waits until pages come again, over IPv4 and IPv6.
    pub(in crate::interop) fn flows(&self) -> Result<()> {
        let before = self.count(|counts| &counts.answered);
        wait_for("the device's traffic flows again", SOON, || {
            let now = self.count(|counts| &counts.answered);
            Ok(now
                .iter()
                .zip(&before)
                .all(|(now, before)| now > &(before + 2))
                .then_some(()))
        })
    }

    /// Waits until a good deal more was tried, over everything: time enough for a leak.
    pub(in crate::interop) fn tries_on(&self) -> Result<()> {
        let sent = self.count(|counts| &counts.datagrams);
        let tried = self.count(|counts| &counts.tried);
        wait_for("the device tries on", SOON, || {
            let more = |before: &[u64], now: Vec<u64>, by: u64| {
                now.iter()
                    .zip(before)
                    .all(|(now, before)| *now >= before + by)
            };
            let sent = more(&sent, self.count(|counts| &counts.datagrams), 100);
            let tried = more(&tried, self.count(|counts| &counts.tried), 2);
            Ok((sent && tried).then_some(()))
        })
    }

    /// Pages got so far.
    pub(in crate::interop) fn pages(&self) -> u64 {
        self.count(|counts| &counts.answered).iter().sum()
    }

    /// Datagrams sent so far.
    pub(in crate::interop) fn datagrams(&self) -> u64 {
        self.count(|counts| &counts.datagrams).iter().sum()
    }

    fn count(&self, of: impl Fn(&Counts) -> &Arc<AtomicU64>) -> Vec<u64> {
        self.families
            .iter()
            .map(|counts| of(counts).load(Ordering::Relaxed))
            .collect()
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whatever was refused to a device of the LAN is no failure.
            let _ = join(thread);
        }
    }
}

fn datagrams(host: IpAddr, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let any: IpAddr = if host.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let _ = socket.send_to(b"is anybody there?", SocketAddr::new(host, 9));
        sent.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

fn pages(host: IpAddr, stop: &AtomicBool, counts: &Counts) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        if page(host).is_ok_and(|page| !page.is_empty()) {
            counts.answered.fetch_add(1, Ordering::Relaxed);
        }
        counts.tried.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn page(host: IpAddr) -> std::io::Result<Vec<u8>> {
    let patience = Duration::from_millis(300);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(host, WEB_PORT), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\nhost: web\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    Ok(page)
}

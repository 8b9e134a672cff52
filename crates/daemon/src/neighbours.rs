//! Which DHCP servers answer on a LAN: asked once, by an unprivileged process, for who is about to set a gateway up.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cygnet_crypto::{Random, SystemRandom};
use cygnet_dhcp::{CLIENT_PORT, Lookout, Mac, Message, SERVER_PORT};
use cygnet_linux::lan::dhcp_socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use tokio::io::AsyncReadExt;

use crate::helper;

/// How long answers are waited for: two questions, and the time in which servers look whether an address is in use.
const LISTENED: Duration = Duration::from_secs(5);
/// After the first answer others follow, or there is none.
const AFTER_ONE: Duration = Duration::from_millis(500);
/// The process is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Memory that it may have, most of it the program itself, and seconds that it may compute.
const MEMORY_MAX: u64 = 256 << 20;
const COMPUTING_MAX: u64 = 5;
/// What it prints is not longer.
const ANSWER_MAX: u64 = 1024;
/// No message of DHCP on an Ethernet is longer.
const DATAGRAM_MAX: usize = 1500;

/// Asks on an interface for addresses, as a device of this MAC address would, and takes none.
pub(crate) async fn dhcp_servers(
    interface: &str,
    mac: Mac,
    user: (u32, u32),
) -> Result<Vec<Ipv4Addr>, String> {
    let socket = dhcp_socket(interface, CLIENT_PORT, true).map_err(|error| error.to_string())?;
    let failed = |error: &dyn std::fmt::Display| format!("nobody could be asked: {error}");
    let mut child = helper::command("look-for-dhcp", &mac.to_string(), user)
        .stdin(Stdio::from(socket))
        .spawn()
        .map_err(|error| failed(&error))?;
    let stdout = child.stdout.take().ok_or_else(|| failed(&"no pipe"))?;
    let mut answer = String::new();
    let mut bounded = stdout.take(ANSWER_MAX);
    match tokio::time::timeout(PATIENCE, bounded.read_to_string(&mut answer)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"the process that asks did not end")),
    }
    let ended = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    if !matches!(ended, Ok(Ok(status)) if status.success()) {
        return Err(failed(&"the process that asks failed"));
    }
    Ok(answer
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}

/// The process: its socket is standard input, its errand the MAC address to ask with. Returns the exit code.
pub(crate) fn run(errand: &str) -> u8 {
    let done = helper::confine(MEMORY_MAX, Some(COMPUTING_MAX)).and_then(|()| {
        let mac: Mac = errand
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let found = listen(io::stdin().as_fd(), mac)?;
        let lines: String = found.iter().map(|server| format!("{server}\n")).collect();
        io::stdout().write_all(lines.as_bytes())
    });
    u8::from(done.is_err())
}

fn listen(socket: BorrowedFd<'_>, mac: Mac) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut random = [0; 4];
    SystemRandom.fill(&mut random);
    let begun = Instant::now();
    // No server of ours is among those that answer: none is lent from while this is asked.
    let mut lookout = Lookout::new(Ipv4Addr::UNSPECIFIED, mac, Duration::ZERO);
    let mut until = LISTENED;
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let now = begun.elapsed();
        if now >= until {
            return Ok(lookout.others().collect());
        }
        if let Some(discover) = lookout.handle_timeout(now, u32::from_ne_bytes(random)) {
            let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
            sendto(socket, &discover, SendFlags::empty(), &everybody)?;
        }
        let next = lookout.poll_timeout().min(until).saturating_sub(now);
        let timeout = rustix::time::Timespec::try_from(next.max(Duration::from_millis(1)))
            .map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let length = match recvfrom(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let received = buffer.get(..length).unwrap_or_default();
        if let Ok(message) = Message::parse(received) {
            lookout.handle_message(begun.elapsed(), &message);
            if lookout.others().next().is_some() {
                until = until.min(begun.elapsed() + AFTER_ONE);
            }
        }
    }
}

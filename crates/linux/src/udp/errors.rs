//! The error queue of a socket: ICMP that concerns what it sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::address::RawAddress;
use super::control::{Control, read};

/// Something on the path answered instead of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError {
    /// Where the datagram was going.
    pub destination: SocketAddr,
    /// What happened.
    pub kind: PathErrorKind,
    /// Who says so; `None`: this machine.
    pub reporter: Option<IpAddr>,
}

/// What happened to a datagram. ICMP is not authenticated: a hint, never a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathErrorKind {
    /// Larger than this MTU.
    TooBig {
        /// In bytes, with the IP header.
        mtu: u32,
    },
    /// Nobody listens on the port (`ECONNREFUSED`).
    Refused,
    /// No way to the host or the network.
    Unreachable,
    /// Another errno.
    Other(i32),
}

pub(super) fn poll(fd: &OwnedFd) -> io::Result<Option<PathError>> {
    let mut name = RawAddress::empty();
    let mut control = Control::new();
    // The datagram itself is of no interest.
    let mut start = [0u8; 1];
    let mut iov = libc::iovec {
        iov_base: start.as_mut_ptr().cast(),
        iov_len: start.len(),
    };
    let mut header = control.header_for_receiving(&mut iov, &mut name);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: every pointer in `header` is to a live local, with its length.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    if n < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error),
        };
    }
    let Some(destination) = name.socket_addr() else {
        return Ok(None);
    };
    let mut found = None;
    Control::for_each(&header, |level, kind, data| {
        let ours = (level, kind) == (libc::SOL_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::SOL_IPV6, libc::IPV6_RECVERR);
        if let (true, Some(e)) = (ours, read::<libc::sock_extended_err>(data)) {
            let offender = data
                .get(size_of::<libc::sock_extended_err>()..)
                .unwrap_or_default();
            found = Some(PathError {
                destination,
                kind: match e.ee_errno.cast_signed() {
                    libc::EMSGSIZE => PathErrorKind::TooBig { mtu: e.ee_info },
                    libc::ECONNREFUSED => PathErrorKind::Refused,
                    libc::EHOSTUNREACH | libc::ENETUNREACH => PathErrorKind::Unreachable,
                    other => PathErrorKind::Other(other),
                },
                reporter: reporter(offender),
            });
        }
    });
    Ok(found)
}

fn reporter(data: &[u8]) -> Option<IpAddr> {
    let family = data.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))?;
    match libc::c_int::from(family) {
        libc::AF_INET => read::<libc::sockaddr_in>(data)
            .map(|a| Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes()).into()),
        libc::AF_INET6 => {
            read::<libc::sockaddr_in6>(data).map(|a| Ipv6Addr::from(a.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

//! UDP sockets for IKE and ESP: batches, the address a datagram came to, its TOS.
//!
//! One socket is one port of one family, bound to the wildcard (or to one address), because a
//! reply has to leave by the address that received: [`Received::destination`] becomes
//! [`Transmit::source`].
//!
//! **Fragmentation outside.** Both families send with DF (`IP_PMTUDISC_DO`): an ESP datagram
//! larger than the path is an error to act on, [`SendError::TooBig`], and never fragments. IKE has
//! its own fragmentation (RFC 7383); where a peer lacks it, [`UdpSocket::send_fragmenting`] lets
//! the IP layer cut that one datagram.
#![allow(unsafe_code)]

mod address;
mod control;
mod errors;
mod offloads;
mod probe;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use libc::{c_int, c_void};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::inject::{self, Call};
use crate::{Error, Result};
use address::RawAddress;
use control::{Control, SOL_UDP, UDP_GRO};
pub use errors::{PathError, PathErrorKind};
pub use offloads::UdpOffloads;
pub use probe::RouteProbe;

/// How long [`UdpSocket::recv_wait`] waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How to open a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpOptions {
    /// Address and port; the family's wildcard as a rule. Port 0: any.
    pub local: SocketAddr,
    /// Firewall mark of what is sent; needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Receive neighbouring datagrams of one sender and size in one piece.
    pub gro: bool,
    /// Socket buffers in bytes, beyond the system's limits where privileges allow; 0: default.
    pub buffer: usize,
    /// Collect ICMP errors for [`UdpSocket::poll_error`].
    pub error_queue: bool,
    /// Have the kernel note when datagrams come, for [`Received::waited`].
    pub timestamps: bool,
}

impl UdpOptions {
    /// All that a data path wants.
    #[must_use]
    pub fn new(local: SocketAddr) -> Self {
        Self {
            local,
            mark: None,
            gro: true,
            buffer: 4 << 20,
            error_queue: true,
            timestamps: true,
        }
    }
}

/// What came with a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Size of each datagram in it, the last may be shorter; equal to `len` for a single one.
    pub segment: usize,
    /// Sender.
    pub source: SocketAddr,
    /// The address of ours it was sent to.
    pub destination: IpAddr,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// How long ago the kernel received it, of several the first; `None` where that is not known.
    pub waited: Option<Duration>,
    /// The buffer was too small and the rest is lost.
    pub truncated: bool,
}

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// Address of ours to send from; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// Interface to send from, 0 for the routing table's choice.
    pub interface: u32,
    /// TOS or traffic class.
    pub tos: u8,
    /// Cut into datagrams of this size, the last may be shorter. Set it for two or more only.
    pub segment: Option<u16>,
    /// One or more datagrams, gathered.
    pub parts: &'a [IoSlice<'a>],
}

/// Why nothing was sent, sorted by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// `EIO`, or `EINVAL` for a batch: this path has no segmentation offload. Send the datagrams one by one from
    /// now on.
    #[error("no UDP segmentation offload on this path")]
    NoSegmentation,
    /// `EMSGSIZE`: a datagram is larger than the path MTU. Ask [`RouteProbe::path_mtu`], cut again.
    #[error("larger than the path MTU")]
    TooBig,
    /// `EAGAIN` or `ENOBUFS`: the queue is full. Wait until writable, or drop.
    #[error("the send queue is full")]
    Full,
    /// `ENETUNREACH`, `EHOSTUNREACH`, `EADDRNOTAVAIL` and the like: no way there, or the source
    /// address is gone.
    #[error("no route: {0}")]
    Unreachable(io::Error),
    /// `EPERM`: an output filter of this machine dropped it.
    #[error("a firewall rule of this machine forbids it")]
    Filtered,
    /// Anything else.
    #[error(transparent)]
    Other(io::Error),
}

/// A UDP socket. Nothing but [`UdpSocket::recv_wait`] waits.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    /// Whoever has it may let the IP layer fragment.
    fragments: Mutex<()>,
}

impl UdpSocket {
    /// Opens and binds.
    ///
    /// # Errors
    /// [`Error::PortInUse`], [`Error::NoSuchAddress`], [`Error::NotPermitted`] for a mark or a port
    /// below 1024.
    pub fn bind(options: &UdpOptions) -> Result<Self> {
        let local = options.local;
        let what = || format!("open UDP {local}");
        let v6 = local.is_ipv6();
        let family = if v6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| Error::io(what(), e))?;
        let mut must = vec![
            (libc::SOL_IP, libc::IP_PKTINFO, 1),
            (libc::SOL_IP, libc::IP_RECVTOS, 1),
            (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            (
                libc::SOL_IP,
                libc::IP_RECVERR,
                c_int::from(options.error_queue),
            ),
        ];
        if v6 {
            must = vec![
                (libc::SOL_IPV6, libc::IPV6_V6ONLY, 1),
                (libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1),
                (libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1),
                (
                    libc::SOL_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_DO,
                ),
                (
                    libc::SOL_IPV6,
                    libc::IPV6_RECVERR,
                    c_int::from(options.error_queue),
                ),
            ];
        }
        if let Some(mark) = options.mark {
            must.push((libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed()));
        }
        for (level, name, value) in must {
            set_int(&fd, level, name, value).map_err(|e| match e.raw_os_error() {
                Some(libc::EPERM) => Error::io(what(), e),
                _ => Error::io(format!("{}: option {level}/{name}", what()), e),
            })?;
        }
        if options.gro {
            let granted = inject::check(Call::ReceiveOffload)
                .and_then(|()| set_int(&fd, SOL_UDP, UDP_GRO, 1));
            if let Err(error) = granted {
                // What is true of every socket is said for the first.
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    tracing::info!(
                        "this kernel has no UDP receive offload ({error}): datagrams are received one by one, which is slower"
                    );
                });
            }
        }
        if options.timestamps {
            // Without it nobody knows how long a datagram has waited, and nothing else changes.
            let _ = set_int(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        }
        if options.buffer > 0 {
            let _ = sockopt::set_socket_recv_buffer_size_force(&fd, options.buffer)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, options.buffer));
            let _ = sockopt::set_socket_send_buffer_size_force(&fd, options.buffer)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&fd, options.buffer));
        }
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|e| Error::io(what(), e))?;
        rustix::net::bind(&fd, &local).map_err(|e| match e {
            rustix::io::Errno::ADDRINUSE => Error::PortInUse(local),
            rustix::io::Errno::ADDRNOTAVAIL => Error::NoSuchAddress(local),
            _ => Error::io(what(), e),
        })?;
        Self::from_fd(fd)
    }

    /// A socket that another process opened with [`UdpSocket::bind`] and sent.
    ///
    /// # Errors
    /// [`Error::Io`] when it is no bound IP socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let local = rustix::net::getsockname(&fd)
            .ok()
            .and_then(|a| SocketAddr::try_from(a).ok())
            .ok_or_else(|| Error::Io {
                what: "use a descriptor as UDP socket".to_owned(),
                source: io::ErrorKind::InvalidInput.into(),
            })?;
        Ok(Self {
            fd,
            local,
            fragments: Mutex::new(()),
        })
    }

    /// Address and port it is bound to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Receives one datagram, or a train of them with GRO. 65 535 bytes hold any.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        // An ICMP error for an earlier datagram is handed to whatever call comes next; it says
        // nothing about this one. There are at most as many as the queue holds.
        for _ in 0..64 {
            match self.recv_once(buf, libc::MSG_DONTWAIT) {
                Err(e) if is_pending_error(&e) => {}
                other => return other,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Like [`UdpSocket::recv`], but waits for up to a second. `None`: nothing came, or an ICMP error
    /// did, see [`UdpSocket::poll_error`].
    ///
    /// # Errors
    /// Of `recvmsg(2)`.
    pub fn recv_wait(&self, buf: &mut [u8]) -> io::Result<Option<Received>> {
        match self.recv_once(buf, 0) {
            Ok(received) => Ok(Some(received)),
            Err(e) if is_pending_error(&e) => Ok(None),
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(e),
            },
        }
    }

    /// Whether a datagram waits to be received, an empty one included.
    pub fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let at_once = Timespec::default();
        let ready = poll(&mut fds, Some(&at_once)).is_ok();
        ready && fds.iter().any(|fd| fd.revents().contains(PollFlags::IN))
    }

    fn recv_once(&self, buf: &mut [u8], flags: c_int) -> io::Result<Received> {
        let mut name = RawAddress::empty();
        let mut control = Control::new();
        let mut iov = libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        let mut header = control.header_for_receiving(&mut iov, &mut name);
        // SAFETY: every pointer in `header` is to a live local or to `buf`, with its length.
        let n = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, flags) };
        let len = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        let source = name.socket_addr().ok_or(io::ErrorKind::InvalidData)?;
        let mut received = Received {
            len,
            segment: len,
            source,
            destination: self.local.ip(),
            interface: 0,
            tos: 0,
            waited: None,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        };
        control.read_into(&header, &mut received);
        Ok(received)
    }

    /// Sends one datagram or a batch.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent then.
    pub fn send(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let mut result = self.send_once(transmit);
        // An ICMP error that came meanwhile, for whatever datagram and from whomever, is handed to this
        // call, which has sent nothing. What concerns this datagram fails again.
        for _ in 0..3 {
            match &result {
                Err(error) if is_pending_error(error) => result = self.send_once(transmit),
                _ => break,
            }
        }
        result.map_err(|e| SendError::sort(e, transmit.segment.is_some()))
    }

    /// Sends one datagram that the IP layer may fragment: here, where this machine knows that the path is narrower,
    /// and (IPv4) on its way. The socket's option is switched for the moment, by one caller at a time; what another
    /// thread sends by [`UdpSocket::send`] meanwhile may be fragmented, too.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_fragmenting(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let discover = |v4, v6| match self.local.is_ipv6() {
            true => set_int(&self.fd, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, v6),
            false => set_int(&self.fd, libc::SOL_IP, libc::IP_MTU_DISCOVER, v4),
        };
        let _alone = self
            .fragments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        discover(libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT).map_err(SendError::Other)?;
        let result = self.send(transmit);
        let as_before = discover(libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO);
        result.and(as_before.map_err(SendError::Other))
    }

    /// Sends one datagram that nobody may fragment, whatever others send meanwhile: a probe of the path's MTU.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent then.
    pub fn send_whole(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let _nobody = self
            .fragments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.send(transmit)
    }

    fn send_once(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        inject::check(match transmit.segment {
            None => Call::Send,
            Some(_) => Call::SendBatch,
        })?;
        let mut name = RawAddress::from(transmit.destination);
        let mut control = Control::new();
        let mut header = control.header_for_sending(transmit, &mut name);
        header.msg_iov = transmit.parts.as_ptr().cast::<libc::iovec>().cast_mut();
        header.msg_iovlen = transmit.parts.len() as _;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: IoSlice is ABI-compatible with iovec, and the kernel only reads through it; the
        // other pointers in `header` are to live locals.
        let n = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, flags) };
        if n < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The next ICMP error for something this socket sent, if there is one.
    ///
    /// # Errors
    /// Of `recvmsg(2)`.
    pub fn poll_error(&self) -> io::Result<Option<PathError>> {
        errors::poll(&self.fd)
    }

    /// Gives up the wrapper, keeps the socket open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl SendError {
    fn sort(error: io::Error, batch: bool) -> Self {
        match error.raw_os_error() {
            Some(libc::EIO) => Self::NoSegmentation,
            Some(libc::EINVAL) if batch => Self::NoSegmentation,
            Some(libc::EMSGSIZE) => Self::TooBig,
            Some(libc::EAGAIN | libc::ENOBUFS) => Self::Full,
            Some(libc::EPERM) => Self::Filtered,
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::ENODEV
                | libc::ENXIO,
            ) => Self::Unreachable(error),
            // A source address that is no longer ours.
            Some(libc::EINVAL) => Self::Unreachable(error),
            _ => Self::Other(error),
        }
    }
}

fn is_pending_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EMSGSIZE
                | libc::EACCES
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EOPNOTSUPP
                | libc::ENONET
        )
    )
}

pub(crate) fn set_int(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads size_of::<c_int>() bytes from `value`.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

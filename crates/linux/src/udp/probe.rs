//! What the routing tables say of packets with our mark, asked through a socket that sends nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_void};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::set_int;
use crate::{Error, Result};

/// A UDP socket that is connected for a moment, which asks for a route and sends nothing. Whoever has
/// CAP_NET_ADMIN opens it with a mark, and may lend it to somebody who has not.
#[derive(Debug)]
pub struct RouteProbe(Mutex<OwnedFd>);

impl RouteProbe {
    /// For destinations of one family; routes are those of packets with `mark`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for a mark without CAP_NET_ADMIN.
    pub fn open(ipv6: bool, mark: Option<u32>) -> Result<Self> {
        let what = || "open a socket to ask for routes".to_owned();
        let family = if ipv6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| Error::io(what(), e))?;
        if let Some(mark) = mark {
            set_int(&fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
                .map_err(|e| Error::io(what(), e))?;
        }
        Ok(Self::from_fd(fd))
    }

    /// One that another process opened and sent.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Mutex::new(fd))
    }

    /// The address that packets to `destination` are sent from.
    ///
    /// # Errors
    /// Of `connect(2)`: there is no route.
    pub fn source(&self, destination: SocketAddr) -> io::Result<IpAddr> {
        self.connected(destination, |fd| {
            let local = rustix::net::getsockname(fd)?;
            let local = SocketAddr::try_from(local).map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(local.ip())
        })
    }

    /// The kernel's idea of the path MTU to `destination`.
    ///
    /// # Errors
    /// Of `connect(2)`: there is no route.
    pub fn path_mtu(&self, destination: SocketAddr) -> io::Result<u32> {
        let (level, name) = if destination.is_ipv6() {
            (libc::SOL_IPV6, libc::IPV6_MTU)
        } else {
            (libc::SOL_IP, libc::IP_MTU)
        };
        self.connected(destination, |fd| option(fd, level, name))
            .map(|mtu| u32::try_from(mtu).unwrap_or_default())
    }

    /// Gives up the wrapper, keeps the socket open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected<T>(
        &self,
        destination: SocketAddr,
        ask: impl FnOnce(&OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::net::connect(&*fd, &destination)?;
        let answer = ask(&fd);
        // Or the source address would stay, whatever is asked for next.
        rustix::net::connect_unspec(&*fd)?;
        answer
    }
}

fn option(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    let r = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast::<c_void>(),
            &raw mut len,
        )
    };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

//! TCP sockets for whoever may not mark one.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::udp::set_int;
use crate::{Error, Result};

/// A TCP socket that is not connected yet; what it sends carries the mark, which goes around tunnels. To be sent to
/// a process without the rights to make it.
///
/// # Errors
/// [`Error::NotPermitted`] for a mark without CAP_NET_ADMIN.
pub fn unconnected_tcp(ipv6: bool, mark: Option<u32>) -> Result<OwnedFd> {
    let what = || "open a TCP socket".to_owned();
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let fd =
        rustix::net::socket_with(family, kind, flags, None).map_err(|e| Error::io(what(), e))?;
    if let Some(mark) = mark {
        set_int(&fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
            .map_err(|e| Error::io(what(), e))?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn it_connects_as_any_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = unconnected_tcp(false, None).unwrap();
        rustix::net::connect(&fd, &listener.local_addr().unwrap()).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(TcpStream::from(fd).local_addr().unwrap(), from);
    }
}

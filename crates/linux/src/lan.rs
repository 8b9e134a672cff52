//! Sockets for what a gateway says to its LAN: DHCP (RFC 2131) and router advertisements (RFC 4861).
//!
//! Each belongs to one interface, neither receives from nor sends to another, and may be lent to a process without
//! privileges.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, c_void};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::{Error, Result};

/// Where routers are asked (RFC 4291 §2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Level and name of the option that says which ICMPv6 messages a raw socket gets: linux/icmpv6.h.
const SOL_ICMPV6: c_int = 58;
const ICMPV6_FILTER: c_int = 1;
/// Type of Router Solicitations.
const ROUTER_SOLICITATION: u8 = 133;

/// A UDP socket, non-blocking, on a port of an interface's, that also receives and sends broadcasts. `shared`: another
/// program that shares it may have the port as well.
///
/// # Errors
/// [`Error::LanPortInUse`], [`Error::NotPermitted`], [`Error::NoSuchInterface`].
pub fn dhcp_socket(interface: &str, port: u16, shared: bool) -> Result<OwnedFd> {
    let what = || format!("open UDP port {port} on {interface}");
    let failed = |error: Errno| match error {
        Errno::ADDRINUSE => Error::LanPortInUse(port),
        _ => Error::io(what(), error),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .map_err(failed)?;
    bind_to(&fd, interface)?;
    sockopt::set_socket_broadcast(&fd, true).map_err(failed)?;
    sockopt::set_socket_reuseaddr(&fd, shared).map_err(failed)?;
    rustix::net::bind(&fd, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).map_err(failed)?;
    Ok(fd)
}

/// A raw ICMPv6 socket, non-blocking, on the interface of this name and number, that receives Router Solicitations
/// and nothing else. What it sends has the hop limit that RFC 4861 §6.1.2 demands, and its checksum is filled in.
///
/// # Errors
/// [`Error::NotPermitted`], [`Error::NoSuchInterface`]; [`Error::Io`] without IPv6.
pub fn router_socket(interface: &str, index: u32) -> Result<OwnedFd> {
    let failed = |error: Errno| Error::io(format!("advertise a router on {interface}"), error);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let icmpv6 = Some(ipproto::ICMPV6);
    let fd = rustix::net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, icmpv6)
        .map_err(failed)?;
    bind_to(&fd, interface)?;
    // A bit that is set keeps messages of its number out.
    let mut filter = [u32::MAX; 8];
    if let Some(word) = filter.get_mut(usize::from(ROUTER_SOLICITATION) / 32) {
        *word &= !(1 << (ROUTER_SOLICITATION % 32));
    }
    let mut octets = Vec::with_capacity(32);
    octets.extend(filter.iter().flat_map(|word| word.to_ne_bytes()));
    set(&fd, SOL_ICMPV6, ICMPV6_FILTER, &octets).map_err(failed)?;
    sockopt::set_ipv6_multicast_hops(&fd, 255).map_err(failed)?;
    sockopt::set_ipv6_multicast_if(&fd, index).map_err(failed)?;
    sockopt::set_ipv6_multicast_loop(&fd, false).map_err(failed)?;
    sockopt::set_ipv6_add_membership(&fd, &ALL_ROUTERS, index).map_err(failed)?;
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, interface: &str) -> Result<()> {
    let name = interface.as_bytes();
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name).map_err(|error| match error {
        Errno::NODEV => Error::NoSuchInterface(interface.to_owned()),
        _ => Error::io(format!("use {interface}"), error),
    })
}

fn set(fd: &OwnedFd, level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `value.len()` bytes from `value`.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<c_void>(),
            value.len() as libc::socklen_t,
        )
    };
    match r {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use rustix::net::{RecvFlags, SendFlags};

    use super::*;

    /// These need root, as does everything that serves a LAN.
    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        assert!(
            root || std::env::var_os("CI").is_none(),
            "these tests need root"
        );
        root
    }

    #[test]
    fn a_datagram_comes_in_by_its_interface_and_the_port_is_nobody_elses() {
        if !is_root() {
            return;
        }
        // Any port does; that of DHCP may be in use.
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = dhcp_socket("lo", port, false).unwrap();
        assert!(matches!(
            dhcp_socket("lo", port, true),
            Err(Error::LanPortInUse(in_use)) if in_use == port
        ));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .send_to(b"hello", SocketAddr::from(([127, 0, 0, 1], port)))
            .unwrap();
        let mut buffer = [0; 16];
        let received = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let received = rustix::net::recvfrom(&server, &mut buffer, RecvFlags::empty());
            received.ok().map(|(read, _, from)| (read, from))
        });
        assert_eq!(received.unwrap().0, 5);
        assert_eq!(buffer.get(..5), Some(&b"hello"[..]));
        // It is not blocked by what is not there.
        let none = rustix::net::recvfrom(&server, &mut buffer, RecvFlags::empty());
        assert_eq!(none.err(), Some(Errno::AGAIN));
        let to = client.local_addr().unwrap();
        rustix::net::sendto(&server, b"answer", SendFlags::empty(), &to).unwrap();
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        if !is_root() {
            return;
        }
        for error in [
            dhcp_socket("nonesuch0", 6767, true).err(),
            router_socket("nonesuch0", 1).err(),
        ] {
            assert!(matches!(error, Some(Error::NoSuchInterface(name)) if name == "nonesuch0"));
        }
    }
}

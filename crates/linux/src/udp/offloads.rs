//! Which offloads of UDP this kernel has, without sending anything.

use std::os::fd::OwnedFd;

use libc::c_int;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::control::{SOL_UDP, UDP_GRO, UDP_SEGMENT};
use super::set_int;

/// What the kernel takes for a UDP socket. Whether an interface on the way does as well shows when it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOffloads {
    /// One call sends a batch (`UDP_SEGMENT`, Linux 4.18).
    pub segmentation: bool,
    /// One call receives a batch (`UDP_GRO`, Linux 5.0).
    pub receive: bool,
}

impl UdpOffloads {
    /// Asks the kernel; where no socket can be had, it has none.
    #[must_use]
    pub fn of_kernel() -> Self {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None).ok();
        let takes = |name: c_int, value: c_int| {
            let takes = |fd: &OwnedFd| set_int(fd, SOL_UDP, name, value).is_ok();
            socket.as_ref().is_some_and(takes)
        };
        Self {
            segmentation: takes(UDP_SEGMENT, 1200),
            receive: takes(UDP_GRO, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_is_what_its_version_says() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|n| n.trim().parse::<u32>());
        let mut next = || numbers.next().unwrap().unwrap();
        let version = (next(), next());
        let offloads = UdpOffloads::of_kernel();
        assert_eq!(offloads.segmentation, version >= (4, 18), "{release}");
        assert_eq!(offloads.receive, version >= (5, 0), "{release}");
    }
}

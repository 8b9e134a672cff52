//! Control messages: what travels beside a datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_uint};

use super::address::RawAddress;
use super::{Received, Transmit};
use crate::clock;

pub(super) const SOL_UDP: c_int = 17;
/// linux/udp.h
pub(super) const UDP_SEGMENT: c_int = 103;
/// linux/udp.h
pub(super) const UDP_GRO: c_int = 104;
/// A longer wait than this is a clock that was set.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Room for all control messages of one datagram, aligned as `cmsghdr` has to be. The most is what the
/// error queue has for IPv6: 64 bytes of error, 40 of address, 24 of traffic class, 32 of time.
#[repr(C, align(8))]
pub(super) struct Control {
    space: [u8; 192],
}

impl Control {
    pub(super) fn new() -> Self {
        Self { space: [0; 192] }
    }

    /// A header whose pointers are valid as long as the arguments and `self` are.
    pub(super) fn header_for_receiving(
        &mut self,
        iov: &mut libc::iovec,
        name: &mut RawAddress,
    ) -> libc::msghdr {
        // SAFETY: all zeros is a valid msghdr: no name, no data, no control messages.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_namelen = RawAddress::SIZE;
        header.msg_iov = iov;
        header.msg_iovlen = 1;
        header.msg_control = self.space.as_mut_ptr().cast();
        header.msg_controllen = self.space.len() as _;
        header
    }

    /// As above, with the control messages that `transmit` asks for.
    pub(super) fn header_for_sending(
        &mut self,
        transmit: &Transmit<'_>,
        name: &mut RawAddress,
    ) -> libc::msghdr {
        // SAFETY: all zeros is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = name.len();
        header.msg_name = ptr::from_mut(name).cast();
        let mut used = 0;
        match (transmit.destination.is_ipv6(), transmit.source) {
            (false, source) => {
                if source.is_some() || transmit.interface != 0 {
                    let address = match source {
                        Some(IpAddr::V4(a)) => a,
                        _ => Ipv4Addr::UNSPECIFIED,
                    };
                    let info = libc::in_pktinfo {
                        ipi_ifindex: transmit.interface.cast_signed(),
                        ipi_spec_dst: libc::in_addr {
                            s_addr: u32::from_ne_bytes(address.octets()),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    self.push(&mut used, libc::SOL_IP, libc::IP_PKTINFO, info);
                }
                self.push(
                    &mut used,
                    libc::SOL_IP,
                    libc::IP_TOS,
                    c_int::from(transmit.tos),
                );
            }
            (true, source) => {
                if source.is_some() || transmit.interface != 0 {
                    let address = match source {
                        Some(IpAddr::V6(a)) => a,
                        _ => Ipv6Addr::UNSPECIFIED,
                    };
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr {
                            s6_addr: address.octets(),
                        },
                        ipi6_ifindex: transmit.interface as _,
                    };
                    self.push(&mut used, libc::SOL_IPV6, libc::IPV6_PKTINFO, info);
                }
                self.push(
                    &mut used,
                    libc::SOL_IPV6,
                    libc::IPV6_TCLASS,
                    c_int::from(transmit.tos),
                );
            }
        }
        if let Some(segment) = transmit.segment {
            self.push(&mut used, SOL_UDP, UDP_SEGMENT, segment);
        }
        header.msg_control = self.space.as_mut_ptr().cast();
        header.msg_controllen = used as _;
        header
    }

    /// Appends one control message. Three fit: the largest are 40, 24 and 24 bytes.
    fn push<T: Copy>(&mut self, used: &mut usize, level: c_int, kind: c_int, value: T) {
        let size = size_of::<T>() as c_uint;
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        let (len, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size) as usize) };
        assert!(
            *used + space <= self.space.len(),
            "a control message too many"
        );
        // SAFETY: `used` is a sum of CMSG_SPACEs, hence aligned for cmsghdr in this 8-aligned
        // array, and header plus value fit by the assertion. The value is written unaligned.
        unsafe {
            let at = self.space.as_mut_ptr().add(*used).cast::<libc::cmsghdr>();
            (*at).cmsg_len = len as _;
            (*at).cmsg_level = level;
            (*at).cmsg_type = kind;
            libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        }
        *used += space;
    }

    /// Calls `each(level, type, data)` for every control message the kernel left.
    pub(super) fn for_each(header: &libc::msghdr, mut each: impl FnMut(c_int, c_int, &[u8])) {
        // SAFETY: `header` is as recvmsg returned it: CMSG_FIRSTHDR and CMSG_NXTHDR stay within
        // msg_controllen, and cmsg_len bytes from each header on were written by the kernel.
        unsafe {
            let mut at = libc::CMSG_FIRSTHDR(header);
            while !at.is_null() {
                let data = libc::CMSG_DATA(at);
                let before = data.offset_from_unsigned(at.cast());
                let len = ((*at).cmsg_len as usize).saturating_sub(before);
                each(
                    (*at).cmsg_level,
                    (*at).cmsg_type,
                    std::slice::from_raw_parts(data, len),
                );
                at = libc::CMSG_NXTHDR(header, at);
            }
        }
    }

    /// Fills in what came beside a datagram. `_self` is borrowed because `header` points into it.
    pub(super) fn read_into(&self, header: &libc::msghdr, received: &mut Received) {
        Self::for_each(header, |level, kind, data| match (level, kind) {
            (SOL_UDP, UDP_GRO) => {
                if let Some(size) = read::<c_int>(data).and_then(|v| usize::try_from(v).ok()) {
                    // Zero would never end in a loop over segments.
                    received.segment = size.max(1);
                }
            }
            (libc::SOL_IP, libc::IP_TOS) => received.tos = data.first().copied().unwrap_or(0),
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                received.tos = read::<c_int>(data).unwrap_or(0).to_le_bytes()[0];
            }
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                if let Some(info) = read::<libc::in_pktinfo>(data) {
                    received.interface = info.ipi_ifindex.cast_unsigned();
                    received.destination =
                        Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into();
                }
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(info) = read::<libc::in6_pktinfo>(data) {
                    received.interface = info.ipi6_ifindex;
                    received.destination = Ipv6Addr::from(info.ipi6_addr.s6_addr).into();
                }
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => received.waited = waited_since(data),
            _ => {}
        });
    }
}

/// How long ago a `timespec` of `CLOCK_REALTIME` was. Both of its fields have 32 bits or both have 64,
/// which is up to the C library.
fn waited_since(timespec: &[u8]) -> Option<Duration> {
    let (seconds, nanoseconds) = match timespec.len() {
        8 => {
            let [seconds, nanoseconds] = read::<[i32; 2]>(timespec)?;
            (seconds.into(), nanoseconds.into())
        }
        _ => read::<[i64; 2]>(timespec)?.into(),
    };
    let (seconds, nanoseconds) = (u64::try_from(seconds), u32::try_from(nanoseconds));
    let came = Duration::new(seconds.ok()?, nanoseconds.ok()?);
    let waited = clock::realtime().checked_sub(came)?;
    (waited <= WAIT_MAX).then_some(waited)
}

/// A plain C struct from bytes the kernel wrote.
pub(super) fn read<T: Copy + PlainData>(data: &[u8]) -> Option<T> {
    if data.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, read unaligned, and any bytes are a valid T by PlainData.
    Some(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

/// Structs of integers without padding that matters: any bytes are a valid value.
pub(super) trait PlainData {}
impl PlainData for c_int {}
impl PlainData for [i32; 2] {}
impl PlainData for [i64; 2] {}
impl PlainData for libc::in_pktinfo {}
impl PlainData for libc::in6_pktinfo {}
impl PlainData for libc::sock_extended_err {}
impl PlainData for libc::sockaddr_in {}
impl PlainData for libc::sockaddr_in6 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_unless_the_clock_was_set() {
        let now = i64::try_from(clock::realtime().as_secs()).unwrap();
        let stamp = |seconds: i64| {
            let fields = [seconds.to_ne_bytes(), 0i64.to_ne_bytes()];
            waited_since(fields.as_flattened())
        };
        let waited = stamp(now - 3).unwrap();
        assert!((3..6).contains(&waited.as_secs()), "{waited:?}");
        for wrong in [now + 60, now - 60, -1, i64::MIN] {
            assert_eq!(stamp(wrong), None);
        }
        let small = [i32::try_from(now).unwrap().to_ne_bytes(), [0; 4]];
        assert!(waited_since(small.as_flattened()).is_some());
        assert_eq!(waited_since(&[]), None);
        assert_eq!(waited_since(&[0xff; 16]), None);
    }
}

//! TUN devices: six ioctls, read, writev.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::inject::{self, Call};
use crate::{Error, Result};

/// How to open a TUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunOptions {
    /// Its name; a `%d` is replaced by the first free number.
    pub name: String,
    /// Queues wanted; one where the kernel has no multi-queue.
    pub queues: usize,
    /// A virtio header before each packet, which is what makes super-packets possible. Without
    /// it [`Offloads::NONE`] is what one gets.
    pub vnet_header: bool,
    /// Offloads to ask for.
    pub offloads: Offloads,
}

impl TunOptions {
    /// One queue, all offloads.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queues: 1,
            vnet_header: true,
            offloads: Offloads::ALL,
        }
    }
}

/// What the kernel may hand to, and take from, a reader of the TUN in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Packets with unfinished checksums.
    pub checksum: bool,
    /// TCP over IPv4 and over IPv6, up to 64 KiB.
    pub tso: bool,
    /// UDP of one size, both families; the kernel grants both or neither (Linux 6.2).
    pub uso: bool,
}

impl Offloads {
    /// Packets as on a wire.
    pub const NONE: Self = Self {
        checksum: false,
        tso: false,
        uso: false,
    };
    /// Everything.
    pub const ALL: Self = Self {
        checksum: true,
        tso: true,
        uso: true,
    };

    fn bits(self) -> libc::c_uint {
        // linux/if_tun.h; the libc crate does not have the USO pair for every target.
        const CSUM: libc::c_uint = 0x01;
        const TSO4: libc::c_uint = 0x02;
        const TSO6: libc::c_uint = 0x04;
        const USO4: libc::c_uint = 0x20;
        const USO6: libc::c_uint = 0x40;
        let mut bits = 0;
        if self.checksum || self.tso || self.uso {
            bits |= CSUM;
        }
        if self.tso {
            bits |= TSO4 | TSO6;
        }
        if self.uso {
            bits |= USO4 | USO6;
        }
        bits
    }
}

/// One queue of a TUN, non-blocking. The device lives as long as any of its queues is open.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    vnet_header: bool,
    offloads: Offloads,
}

/// `struct ifreq` as far as TUNSETIFF and TUNGETIFF use it.
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>() || size_of::<IfReq>() == 40);

impl Tun {
    /// Creates the device and opens its queues: as many as the kernel allows, at least one.
    ///
    /// # Errors
    /// [`Error::NoTunDevice`], [`Error::NotPermitted`], [`Error::TunBusy`],
    /// [`Error::TunUnfit`].
    pub fn open(options: &TunOptions) -> Result<Vec<Self>> {
        let wanted = options.queues.max(1);
        let first = match Self::open_queue(options, &options.name, wanted > 1) {
            // A kernel without multi-queue, or a persistent device made without it.
            Err(Error::Io { source, .. })
                if wanted > 1 && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                tracing::info!(
                    "{}: no multi-queue TUN here, one queue serves",
                    options.name
                );
                let only = Self::open_queue(options, &options.name, false)?;
                only.tell_offloads(options.offloads);
                return Ok(vec![only]);
            }
            other => other?,
        };
        first.tell_offloads(options.offloads);
        let name = first.name.clone();
        let mut queues = vec![first];
        while queues.len() < wanted {
            match Self::open_queue(options, &name, true) {
                Ok(queue) => queues.push(queue),
                Err(error) => {
                    tracing::info!("{name}: {} queues of {wanted}: {error}", queues.len());
                    break;
                }
            }
        }
        Ok(queues)
    }

    /// A further queue of a device with several, for writing alone: the kernel sends nothing to it. What
    /// is written through a queue that is read teaches the kernel to send the flow's other direction to
    /// that queue; with all writes through this one, it goes by the flow's hash for ever.
    ///
    /// # Errors
    /// As [`Tun::open`]; `EINVAL` where the device has one queue only.
    pub fn open_writer(options: &TunOptions, name: &str) -> Result<Self> {
        let tun = Self::open_queue(options, name, true)?;
        let mut request = IfReq {
            name: [0; libc::IFNAMSIZ],
            flags: libc::IFF_DETACH_QUEUE as _,
            rest: [0; 22],
        };
        // SAFETY: TUNSETQUEUE reads one ifreq, which `request` is laid out as; the descriptor is open.
        let r =
            unsafe { libc::ioctl(tun.fd.as_raw_fd(), libc::TUNSETQUEUE as _, &raw mut request) };
        if r < 0 {
            let what = format!("detach a queue of the TUN {name}");
            return Err(Error::io(what, io::Error::last_os_error()));
        }
        Ok(tun)
    }

    fn open_queue(options: &TunOptions, name: &str, multi: bool) -> Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['\0', '/']) {
            return Err(Error::Io {
                what: format!("name a TUN {name:?} (1 to 15 characters)"),
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoTunDevice,
                _ => Error::io("open /dev/net/tun", e),
            })?;
        let fd = OwnedFd::from(file);
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
        if options.vnet_header {
            flags |= libc::IFF_VNET_HDR;
        }
        let what = || format!("create the TUN {name}");
        if multi {
            inject::check(Call::MultiQueue).map_err(|e| Error::io(what(), e))?;
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut request = IfReq {
            name: [0; libc::IFNAMSIZ],
            flags: flags as _,
            rest: [0; 22],
        };
        for (slot, byte) in request.name.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is laid out as; the
        // descriptor is open.
        let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if r < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EBUSY) => Error::TunBusy {
                    name: name.to_owned(),
                },
                Some(libc::EINVAL) if exists(&request) => Error::TunUnfit {
                    name: name.to_owned(),
                },
                _ => Error::io(what(), source),
            });
        }
        let mut tun = Self {
            fd,
            name: request.interface_name(),
            vnet_header: options.vnet_header,
            offloads: Offloads::NONE,
        };
        if tun.vnet_header {
            tun.negotiate(options.offloads);
        }
        Ok(tun)
    }

    /// Takes what the kernel grants: all that is wanted, else without USO, else without TSO.
    fn negotiate(&mut self, wanted: Offloads) {
        let less = [
            wanted,
            Offloads {
                uso: false,
                ..wanted
            },
            Offloads {
                uso: false,
                tso: false,
                ..wanted
            },
        ];
        self.offloads = less
            .into_iter()
            .find(|o| self.set_offloads(*o).is_ok())
            .unwrap_or(Offloads::NONE);
    }

    /// What is true of every queue is said for the first.
    fn tell_offloads(&self, wanted: Offloads) {
        let Self { name, offloads, .. } = self;
        let missing = match *offloads {
            _ if *offloads == wanted || !self.vnet_header => return,
            Offloads { tso: true, .. } => "UDP (Linux 6.2 has them)",
            _ => "TCP and UDP",
        };
        tracing::info!(
            "{name}: this kernel has no super-packets of {missing}; packets come one by one, which is slower"
        );
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        if offloads.uso {
            inject::check(Call::UdpOffload)?;
        }
        let bits = libc::c_ulong::from(offloads.bits());
        // SAFETY: TUNSETOFFLOAD takes its argument by value; the descriptor is open.
        let r = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, bits) };
        if r < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// A queue that another process opened and sent. `offloads` is what that process was granted;
    /// the kernel does not tell.
    ///
    /// # Errors
    /// [`Error::Io`] when the descriptor is no TUN.
    pub fn from_fd(fd: OwnedFd, offloads: Offloads) -> Result<Self> {
        let mut request = IfReq {
            name: [0; libc::IFNAMSIZ],
            flags: 0,
            rest: [0; 22],
        };
        // SAFETY: TUNGETIFF writes one ifreq; the descriptor is open.
        let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) };
        if r < 0 {
            return Err(Error::io(
                "use a descriptor as TUN",
                io::Error::last_os_error(),
            ));
        }
        let vnet_header = libc::c_int::from(request.flags) & libc::IFF_VNET_HDR != 0;
        Ok(Self {
            fd,
            name: request.interface_name(),
            vnet_header,
            offloads,
        })
    }

    /// The interface's name, as the kernel gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was granted.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Whether each packet is preceded by a virtio header of ten bytes.
    #[must_use]
    pub fn has_vnet_header(&self) -> bool {
        self.vnet_header
    }

    /// One packet, with its virtio header if there is one.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty; `EBADFD` when the device was deleted.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buf)?)
    }

    /// One packet, gathered; the virtio header comes first if there is one.
    ///
    /// # Errors
    /// `EINVAL` for a super-packet this kernel refuses, `EIO` while the interface is down.
    pub fn writev(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.vnet_header && is_merged(parts) {
            inject::check(Call::MergedWrite)?;
        }
        Ok(rustix::io::writev(&self.fd, parts)?)
    }

    /// Gives up the wrapper, keeps the queue open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a packet is a super-packet: `gso_type` is the virtio header's second octet.
fn is_merged(parts: &[IoSlice<'_>]) -> bool {
    const NONE: u8 = 0;
    let gso_type = parts.first().and_then(|part| part.get(1));
    gso_type.is_some_and(|gso_type| *gso_type != NONE)
}

/// Whether an interface of the name that was asked for is there.
fn exists(request: &IfReq) -> bool {
    // SAFETY: the name ends in a zero, since `open_queue` takes only shorter ones.
    unsafe { libc::if_nametoindex(request.name.as_ptr().cast()) != 0 }
}

impl IfReq {
    fn interface_name(&self) -> String {
        let bytes: Vec<u8> = self.name.iter().copied().take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uso_is_asked_for_as_a_pair() {
        assert_eq!(Offloads::ALL.bits(), 0x67);
        assert_eq!(
            Offloads {
                uso: false,
                ..Offloads::ALL
            }
            .bits(),
            0x07
        );
        assert_eq!(Offloads::NONE.bits(), 0);
    }

    #[test]
    fn a_descriptor_that_is_no_tun_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Tun::from_fd(file.into(), Offloads::NONE).is_err());
    }

    #[test]
    fn a_name_too_long_is_refused_before_the_kernel_cuts_it() {
        let options = TunOptions::new("sixteen-letters-");
        assert!(Tun::open(&options).unwrap_err().to_string().contains("15"));
    }
}

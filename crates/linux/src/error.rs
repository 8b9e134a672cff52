//! What can go wrong between us and the kernel, with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal by the kernel or a missing piece of the system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// /dev/net/tun does not exist.
    #[error(
        "no TUN device: /dev/net/tun is missing; run `modprobe tun`, or in a container pass --device /dev/net/tun"
    )]
    NoTunDevice,
    /// `EPERM` or `EACCES`.
    #[error("not permitted to {what}: run as root, or with CAP_NET_ADMIN")]
    NotPermitted {
        /// What was attempted.
        what: String,
    },
    /// The TUN's name is taken.
    #[error(
        "interface {name} is in use by another program: stop that program (`ip -d link show {name}`), or choose another `interface`"
    )]
    TunBusy {
        /// Its name.
        name: String,
    },
    /// An interface of that name is there and is no TUN, or one of another kind.
    #[error(
        "interface {name} is there already and is no TUN that we could take: stop the program it belongs to (`ip -d link show {name}`), or choose another `interface`"
    )]
    TunUnfit {
        /// Its name.
        name: String,
    },
    /// A socket's address is taken.
    #[error(
        "UDP {0} is in use: another IKE daemon runs here; find it with `ss -ulpn` and stop it (`systemctl stop strongswan`)"
    )]
    PortInUse(SocketAddr),
    /// A port of DHCP is taken.
    #[error(
        "UDP port {0} is in use: another program of this machine serves or asks for addresses; find it with \
         `ss -ulpn sport = :{0}` and stop it (`systemctl stop dnsmasq`)"
    )]
    LanPortInUse(u16),
    /// The address is on no interface.
    #[error(
        "cannot listen on {0}: this machine has no such address; `ip address` shows those it has"
    )]
    NoSuchAddress(SocketAddr),
    /// The interface does not exist.
    #[error("interface {0} does not exist: `ip link` shows those there are")]
    NoSuchInterface(String),
    /// nft is not installed.
    #[error("the program `nft` is missing: apt install nftables")]
    NftMissing,
    /// nft did not accept a text.
    #[error("nft refused: {message}")]
    Nft {
        /// What it printed.
        message: String,
    },
    /// A netlink request failed.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file or a system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The journal is not what this program writes.
    #[error(
        "{path}:{line}: not a journal entry; delete the file once the settings in it are as you want them"
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
}

impl Error {
    /// Sorts a failed system call: lack of privilege has its own remedy.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (what, source) = (what.into(), source.into());
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { what },
            _ => Self::Io { what, source },
        }
    }
}

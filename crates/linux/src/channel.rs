//! A pair of sockets that carry messages with their boundaries, and descriptors.
//!
//! `SOCK_SEQPACKET`: a message arrives whole or not at all, in order, and the end of the other
//! process is seen as a message of length zero. A message is at most [`MAX_MESSAGE`] bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};

/// The largest message.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The most descriptors one message may carry (the kernel allows 253).
pub const MAX_FDS: usize = 128;

/// One end.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// Who is at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Channel {
    /// Two connected ends, close-on-exec, blocking.
    ///
    /// # Errors
    /// Of `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        for fd in [&a, &b] {
            // A message has to fit into the buffer with its bookkeeping. Without CAP_NET_ADMIN
            // the limit is net.core.wmem_max, and a long message then is an EMSGSIZE.
            if sockopt::set_socket_send_buffer_size_force(fd, 2 * MAX_MESSAGE).is_err() {
                sockopt::set_socket_send_buffer_size(fd, 2 * MAX_MESSAGE)?;
            }
        }
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// An end that was inherited or received.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Makes [`Channel::send`] and [`Channel::recv`] return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// Of `ioctl(2)`.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, on)?)
    }

    /// Sends one message, whole.
    ///
    /// # Errors
    /// `EPIPE` when the other end is gone; `InvalidInput` beyond the limits, or for an empty
    /// message, which could not be told from the end.
    pub fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.is_empty() || message.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message has 1 to {MAX_MESSAGE} bytes and up to {MAX_FDS} descriptors"),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(
            &self.fd,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Receives one message into `buf` and its descriptors, close-on-exec. Length zero: the other
    /// end is gone.
    ///
    /// # Errors
    /// `InvalidData` for a message longer than `buf`, or one whose descriptors did not fit; both
    /// are lost.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buf)];
        let got = recvmsg(
            &self.fd,
            &mut parts,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message longer than the buffer, or descriptors that did not fit, was cut",
            ));
        }
        Ok((got.bytes, fds))
    }

    /// Gives up the wrapper, keeps the end open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Who connected a Unix socket (`SO_PEERCRED`): as of `connect(2)` or `socketpair(2)`.
///
/// # Errors
/// Of `getsockopt(2)`.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let c = sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        pid: c.pid.as_raw_nonzero().get().unsigned_abs(),
        uid: c.uid.as_raw(),
        gid: c.gid.as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn messages_keep_their_boundaries_and_bring_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        a.send(b"first", &[writer.as_fd()]).unwrap();
        a.send(b"second", &[]).unwrap();
        drop(writer);
        let mut buf = [0; 64];
        let (n, fds) = b.recv(&mut buf).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"first"[..], 1));
        for fd in fds {
            std::fs::File::from(fd).write_all(b"through").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        let (n, fds) = b.recv(&mut buf).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"second"[..], 0));
        drop(a);
        assert_eq!(b.recv(&mut buf).unwrap().0, 0, "the end");
        assert_eq!(
            b.send(b"x", &[]).unwrap_err().raw_os_error(),
            Some(libc::EPIPE)
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error_not_a_shorter_message() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[7; 100], &[]).unwrap();
        assert_eq!(
            b.recv(&mut [0; 99]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(a.send(&[], &[]).is_err());
        b.set_nonblocking(true).unwrap();
        assert_eq!(
            b.recv(&mut [0; 99]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = Channel::pair().unwrap();
        assert_eq!(peer_credentials(&a).unwrap().pid, std::process::id());
    }
}

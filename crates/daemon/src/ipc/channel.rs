//! Frames on the socketpair: eight bytes of lengths, the descriptors, the message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::MESSAGE_MAX;

/// The kernel takes 253 descriptors with one message (SCM_MAX_FD).
const FDS_AT_ONCE: usize = 200;
/// More tunnels than a machine has interfaces for.
const FDS_MAX: usize = 65_536;
/// The other end reads at once or is stuck. For a whole message: one that reads a little now and then keeps nobody for
/// longer than twice that.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

/// One end of the socketpair. Any thread may send, one thread receives.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    /// A frame goes out whole.
    sending: Mutex<()>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// A socketpair: our end, and the end to be inherited by a child.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(ours)?, theirs))
    }

    /// The end a child got as its standard input.
    pub(crate) fn inherited() -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
        // A terminal or a file is no socket: whoever types the command learns it at once.
        rustix::net::sockopt::socket_type(&socket)?;
        Self::new(socket)
    }

    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Send,
            Some(SEND_PATIENCE),
        )?;
        Ok(Self {
            socket,
            sending: Mutex::new(()),
        })
    }

    /// Sends a message with descriptors. An error leaves the channel unusable.
    pub(crate) fn send<M: Serialize>(&self, message: &M, fds: &[OwnedFd]) -> io::Result<()> {
        // What is sent may hold a MAC that stands for a secret.
        let body = Zeroizing::new(postcard::to_allocvec(message).map_err(io::Error::other)?);
        let too_long = || io::Error::other("message too long");
        if body.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
            return Err(too_long());
        }
        let len = u32::try_from(body.len()).map_err(|_| too_long())?;
        let count = u32::try_from(fds.len()).map_err(|_| too_long())?;
        let mut header = [0; 8];
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[4..].copy_from_slice(&count.to_le_bytes());
        let _guard = self
            .sending
            .lock()
            .map_err(|_| io::Error::other("a sender panicked"))?;
        let until = Instant::now() + SEND_PATIENCE;
        self.write_all(&header, until)?;
        for chunk in fds.chunks(FDS_AT_ONCE) {
            let chunk: Vec<BorrowedFd<'_>> = chunk.iter().map(AsFd::as_fd).collect();
            let mut space =
                vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&chunk));
            rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(&[0])],
                &mut control,
                SendFlags::NOSIGNAL,
            )?;
        }
        self.write_all(&body, until)
    }

    fn write_all(&self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for a message. `None`: the other end is closed.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.receive_with(MESSAGE_MAX, FDS_MAX)
    }

    /// Waits for a message, of so many octets at most, of somebody who has no descriptors to send.
    pub(crate) fn receive_bare<M: DeserializeOwned>(&self, most: usize) -> io::Result<Option<M>> {
        Ok(self.receive_with(most, 0)?.map(|(message, _)| message))
    }

    fn receive_with<M: DeserializeOwned>(
        &self,
        len_max: usize,
        fds_max: usize,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut header = [0; 8];
        if !self.read_exact(&mut header)? {
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        if len > len_max || count > fds_max {
            return Err(io::Error::other("message too long"));
        }
        let mut fds = Vec::new();
        while fds.len() < count {
            self.receive_fds(&mut fds)?;
        }
        let mut body = Zeroizing::new(vec![0; len]);
        if !self.read_exact(&mut body)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = postcard::from_bytes(&body).map_err(io::Error::other)?;
        Ok(Some((message, fds)))
    }

    fn receive_fds(&self, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if received.bytes == 0 || fds.len() == before {
            return Err(io::Error::other("descriptors are missing"));
        }
        Ok(())
    }

    /// `false`: closed before the first byte.
    fn read_exact(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|r| !r.is_empty()) {
            match rustix::net::recv(&self.socket, rest, RecvFlags::empty()) {
                Ok((0, _)) if filled == 0 => return Ok(false),
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((n, _)) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let many: Vec<OwnedFd> = (0..450).map(|_| rustix::io::dup(&write).unwrap()).collect();
        let big = vec![7u8; 3 << 20];
        let sender = std::thread::spawn(move || {
            ours.send(&"first".to_owned(), &[]).unwrap();
            ours.send(&big, &many).unwrap();
            ours
        });
        let (first, fds) = theirs.receive::<String>().unwrap().unwrap();
        assert_eq!((first.as_str(), fds.len()), ("first", 0));
        let (second, fds) = theirs.receive::<Vec<u8>>().unwrap().unwrap();
        assert_eq!((second.len(), fds.len()), (3 << 20, 450));
        rustix::io::write(&fds[449], b"x").unwrap();
        let mut byte = [0u8];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
        drop(sender.join().unwrap());
        assert!(theirs.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_not_an_allocation() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        rustix::net::send(&ours.socket, &[0xff; 8], SendFlags::NOSIGNAL).unwrap();
        assert!(theirs.receive::<String>().is_err());
    }

    #[test]
    fn descriptors_of_who_has_none_to_send_are_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        ours.send(&7u8, &[]).unwrap();
        ours.send(&8u8, &[read]).unwrap();
        assert_eq!(theirs.receive_bare::<u8>(1).unwrap(), Some(7));
        assert!(theirs.receive_bare::<u8>(1).is_err());
    }
}

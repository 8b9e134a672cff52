//! What the kernel knows of a TCP connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_void;

/// `struct tcp_info` (linux/tcp.h) up to and with `tcpi_bytes_acked`, as words of eight octets; later kernels have more.
const WORDS: usize = 16;
/// Which of the words that is.
const BYTES_ACKED: usize = 15;

/// Octets of payload that the other end has acknowledged: what has arrived there, whatever still waits in our own queue.
///
/// # Errors
/// Of `getsockopt(2)`: the descriptor is no TCP socket, or the kernel is older than 4.1.
#[expect(unsafe_code, reason = "TCP_INFO")]
pub fn bytes_acked(socket: impl AsFd) -> io::Result<u64> {
    let mut info = [0u64; WORDS];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `info`, for which any octets are valid.
    let r = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of_val(&info) {
        return Err(io::Error::other(
            "this kernel does not tell how much was acknowledged: expected Linux 4.1 or later",
        ));
    }
    Ok(info[BYTES_ACKED])
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_has_arrived_is_counted_and_what_waits_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 5000]).unwrap();
        let begun = Instant::now();
        let acked = loop {
            let acked = bytes_acked(&near).unwrap();
            // The SYN counts for one.
            if acked >= 5000 || begun.elapsed() > Duration::from_secs(5) {
                break acked;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!((5000..=5001).contains(&acked), "{acked}");

        // Nobody reads: the far end's buffer is full, and the rest waits in ours.
        near.set_nonblocking(true).unwrap();
        let mut written = 5000;
        while let Ok(n) = near.write(&[7; 65_536]) {
            written += n as u64;
        }
        let acked = bytes_acked(&near).unwrap();
        assert!(acked < written, "{acked} of {written}");
        far.read_exact(&mut [0; 5000]).unwrap();
    }

    #[test]
    fn what_is_no_tcp_socket_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(bytes_acked(&socket).is_err());
        assert!(bytes_acked(io::stdin()).is_err());
    }
}

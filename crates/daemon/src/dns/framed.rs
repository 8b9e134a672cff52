//! A TCP connection to a resolver, on which an answer that is too long to be taken apart is passed over.
//!
//! Of a referral hickory puts each name server together with each of its addresses: 64 KiB of them, all of one name, are
//! more than a gigabyte. What a device is told has a few hundred octets as a rule.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Octets of an answer: more than names have, and as a referral of that kind less than the process may have.
const ANSWER_MAX: usize = 16 << 10;
/// Octets that are read at once.
const READ: usize = 2048;

/// The connection.
pub(super) struct Framed {
    stream: TcpStream,
    /// None where TLS hides where answers begin; there whoever answers has proved who it is.
    within: Option<Within>,
}

/// Where in the stream one is: messages come behind their lengths (RFC 1035 §4.2.2).
#[derive(Debug)]
enum Within {
    /// In a length, of which so many octets have come.
    Length([u8; 2], usize),
    /// A length has come, and so many of its octets were handed on.
    Handed([u8; 2], usize),
    /// So many octets of a message are still to come.
    Message(usize),
    /// The same of one that is passed over.
    TooLong(usize),
}

impl Within {
    const BEGIN: Self = Self::Length([0; 2], 0);

    /// Behind the last octet of a message the next one begins.
    fn or_next(self) -> Self {
        match self {
            Self::Message(0) | Self::TooLong(0) => Self::BEGIN,
            other => other,
        }
    }

    /// Where one is when these octets, of what is to come next, have come.
    fn after(self, came: &[u8]) -> Self {
        match self {
            Self::Length(mut length, mut had) => {
                for (to, octet) in length.iter_mut().skip(had).zip(came) {
                    *to = *octet;
                    had += 1;
                }
                let message = usize::from(u16::from_be_bytes(length));
                match had < length.len() {
                    true => Self::Length(length, had),
                    false if message > ANSWER_MAX => Self::TooLong(message),
                    false => Self::Handed(length, 0),
                }
            }
            Self::Message(left) => Self::Message(left.saturating_sub(came.len())).or_next(),
            Self::TooLong(left) => Self::TooLong(left.saturating_sub(came.len())).or_next(),
            handed @ Self::Handed(..) => handed,
        }
    }
}

impl Framed {
    /// `plain`: answers come as they are, and not by TLS.
    pub(super) fn new(stream: TcpStream, plain: bool) -> Self {
        let within = plain.then_some(Within::BEGIN);
        Self { stream, within }
    }

    /// So many octets of the stream at most; none at its end.
    fn poll_octets<'b>(
        &mut self,
        cx: &mut Context<'_>,
        octets: &'b mut [u8; READ],
        most: usize,
    ) -> Poll<io::Result<&'b [u8]>> {
        let room = octets.get_mut(..most.min(READ)).unwrap_or_default();
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let came = buffer.filled().len();
        Poll::Ready(Ok(octets.get(..came).unwrap_or_default()))
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        if room == 0 && self.within.is_some() {
            // Nothing can be said, so there is nothing to wait for.
            return Poll::Ready(Ok(()));
        }
        let mut octets = [0; READ];
        loop {
            let (most, handed_on) = match &mut self.within {
                None => return Pin::new(&mut self.stream).poll_read(cx, buffer),
                Some(Within::Handed(length, handed)) => {
                    let rest = length.get(*handed..).unwrap_or_default();
                    let part = rest.get(..room.min(rest.len())).unwrap_or_default();
                    buffer.put_slice(part);
                    *handed += part.len();
                    if *handed == length.len() {
                        let message = usize::from(u16::from_be_bytes(*length));
                        self.within = Some(Within::Message(message).or_next());
                    }
                    return Poll::Ready(Ok(()));
                }
                Some(Within::Length(length, had)) => (length.len() - *had, false),
                Some(Within::Message(left)) => ((*left).min(room), true),
                Some(Within::TooLong(left)) => (*left, false),
            };
            let came = ready!(self.poll_octets(cx, &mut octets, most))?;
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.within = self.within.take().map(|within| within.after(came));
            if handed_on {
                buffer.put_slice(came);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A message of this octet behind its length.
    fn message(length: usize, octet: u8) -> Vec<u8> {
        let mut bytes = u16::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.resize(2 + length, octet);
        bytes
    }

    /// What is read, so many octets at a time, of a stream that comes in such pieces.
    async fn read(sent: &[u8], piece: usize, room: usize, plain: bool) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in sent.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let client = async {
            let mut stream = Framed::new(TcpStream::connect(at).await.unwrap(), plain);
            let (mut heard, mut buffer) = (Vec::new(), vec![0; room]);
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => return heard,
                    length => heard.extend_from_slice(&buffer[..length]),
                }
            }
        };
        tokio::join!(client, server).0
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_passed_over_and_the_next_is_heard() {
        let (first, last) = (message(3, 1), message(5, 2));
        let most = message(ANSWER_MAX, 3);
        let sent = [
            &*first,
            &*message(ANSWER_MAX + 1, 4),
            &*message(0, 0),
            &*most,
            &*message(usize::from(u16::MAX), 5),
            &*last,
        ]
        .concat();
        let expected = [&*first, &*message(0, 0), &*most, &*last].concat();
        for (piece, room) in [(sent.len(), READ * 2), (1000, 2), (7, 3), (sent.len(), 1)] {
            let heard = read(&sent, piece, room, true).await;
            assert!(heard == expected, "{piece} {room}: {} octets", heard.len());
        }
        // By TLS they look otherwise.
        assert!(read(&sent, sent.len(), READ, false).await == sent);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_message_ends() {
        for cut in [1, 2, 4] {
            let heard = read(&message(3, 1)[..cut], 1, 16, true).await;
            // A length that has not come wholly is none.
            assert_eq!(heard.len(), if cut == 1 { 0 } else { cut });
        }
        let long = message(ANSWER_MAX + 1, 4);
        assert!(read(&long[..100], 100, 16, true).await.is_empty());
    }
}

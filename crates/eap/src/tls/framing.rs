//! TLS messages in EAP packets, in fragments where they are longer (RFC 5216 §2.1.5, §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!                                 +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!                                 |     Flags     |  TLS Message …
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! … Length (if L)                 |  TLS Data …
//! ```

const LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
const BEGIN: u8 = 0x20;

/// The packet by which the server begins.
pub(super) const START: &[u8] = &[BEGIN];
/// The packet that says that a fragment, or the last message, has arrived.
pub(super) const ACK: &[u8] = &[0];

/// Octets of a fragment of ours: what IKE without fragments of its own carries in one datagram.
const FRAGMENT: usize = 1024;
/// Octets of a message of the other end, all fragments together.
const MESSAGE_MAX: usize = 32 << 10;

/// Both directions.
#[derive(Default)]
pub(super) struct Framing {
    incoming: Vec<u8>,
    /// How long the incoming message is going to be, if that was said.
    announced: Option<usize>,
    outgoing: Vec<u8>,
    /// How much of it is out.
    sent: usize,
}

/// What a packet brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The server begins.
    Start,
    /// A whole message.
    Message(Vec<u8>),
    /// A fragment; more follow.
    More,
    /// The other end waits for more, or for the end.
    Ack,
}

impl Framing {
    /// Takes in what follows the EAP type.
    pub(super) fn receive(&mut self, data: &[u8]) -> Result<Received, String> {
        // Some peers acknowledge by nothing at all.
        let (flags, mut rest) = match data.split_first() {
            Some((flags, rest)) => (*flags, rest),
            None => (0, data),
        };
        if flags & BEGIN != 0 {
            return Ok(Received::Start);
        }
        if flags & LENGTH != 0 {
            let (length, behind) = rest
                .split_first_chunk::<4>()
                .ok_or("it ends within its length")?;
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > MESSAGE_MAX {
                return Err(format!(
                    "a TLS message of {length} octets, expected {MESSAGE_MAX} at most"
                ));
            }
            if self.announced.is_some_and(|before| before != length) {
                return Err("its fragments disagree about its length".to_owned());
            }
            self.announced = Some(length);
            rest = behind;
        }
        if rest.is_empty() && flags & MORE == 0 && self.incoming.is_empty() {
            self.announced = None;
            return Ok(Received::Ack);
        }
        let most = self.announced.unwrap_or(MESSAGE_MAX);
        if self.incoming.len().saturating_add(rest.len()) > most {
            return Err(format!("more than the {most} octets that were to come"));
        }
        self.incoming.extend_from_slice(rest);
        if flags & MORE != 0 {
            return Ok(Received::More);
        }
        let whole = std::mem::take(&mut self.incoming);
        match self.announced.take() {
            Some(length) if length != whole.len() => {
                Err(format!("{} octets in the place of {length}", whole.len()))
            }
            _ => Ok(Received::Message(whole)),
        }
    }

    /// Begins to send this message, if there is anything in it.
    pub(super) fn send(&mut self, message: Vec<u8>) {
        self.outgoing = message;
        self.sent = 0;
    }

    /// What follows the EAP type of the next packet of the message; `None`: all is out.
    pub(super) fn next_fragment(&mut self) -> Option<Vec<u8>> {
        let left = self
            .outgoing
            .get(self.sent..)
            .filter(|left| !left.is_empty())?;
        let length = left.len().min(FRAGMENT);
        let (part, rest) = left.split_at(length);
        let mut packet = Vec::with_capacity(length + 5);
        let more = if rest.is_empty() { 0 } else { MORE };
        if self.sent == 0 && more != 0 {
            packet.push(LENGTH | more);
            let whole = u32::try_from(self.outgoing.len()).unwrap_or(u32::MAX);
            packet.extend(whole.to_be_bytes());
        } else {
            packet.push(more);
        }
        packet.extend_from_slice(part);
        self.sent += length;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn octets() {
        let mut framing = Framing::default();
        framing.send(vec![7; 3]);
        assert_eq!(framing.next_fragment(), Some(vec![0, 7, 7, 7]));
        assert_eq!(framing.next_fragment(), None);
        framing.send(vec![7; FRAGMENT + 1]);
        let first = framing.next_fragment().unwrap();
        assert_eq!(first[..6], [0xc0, 0, 0, 4, 1, 7]);
        assert_eq!(framing.next_fragment(), Some(vec![0, 7]));
        assert_eq!(framing.receive(&[0x20]), Ok(Received::Start));
        assert_eq!(framing.receive(&[0]), Ok(Received::Ack));
        assert_eq!(framing.receive(&[]), Ok(Received::Ack));
        // A single packet may tell its length, too.
        let one = framing.receive(&[0x80, 0, 0, 0, 2, 1, 2]);
        assert_eq!(one, Ok(Received::Message(vec![1, 2])));
    }

    #[test]
    fn lengths_are_kept() {
        let mut framing = Framing::default();
        assert!(framing.receive(&[0x80, 0, 1, 0, 0, 1]).is_err());
        assert!(framing.receive(&[0x80, 0, 0]).is_err());
        let mut framing = Framing::default();
        assert_eq!(
            framing.receive(&[0xc0, 0, 0, 0, 3, 1, 2]),
            Ok(Received::More)
        );
        assert!(framing.receive(&[0, 3, 4]).is_err());
        let mut framing = Framing::default();
        assert_eq!(framing.receive(&[0xc0, 0, 0, 0, 3, 1]), Ok(Received::More));
        assert!(framing.receive(&[0, 2]).is_err());
        // Without a length, there is an end all the same.
        let mut framing = Framing::default();
        let part = [&[MORE][..], &[0; 1000]].concat();
        let taken = (0..1000)
            .take_while(|_| framing.receive(&part).is_ok())
            .count();
        assert_eq!(taken, MESSAGE_MAX / 1000);
    }

    proptest! {
        #[test]
        fn messages_arrive_whole(message in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let (mut from, mut to) = (Framing::default(), Framing::default());
            from.send(message.clone());
            let mut arrived = None;
            while let Some(fragment) = from.next_fragment() {
                match to.receive(&fragment).unwrap() {
                    Received::More => {}
                    Received::Message(whole) => arrived = Some(whole),
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(arrived, Some(message));
        }
    }
}

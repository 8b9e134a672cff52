//! The DHCP message (RFC 2131 §2) with the options that this server reads or writes (RFC 2132).

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use crate::Mac;
use crate::record::{Record, is_name};

/// A message of a client or a server on Ethernet.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     op (1)    |   htype (1)   |   hlen (1)    |   hops (1)    |
/// +---------------+---------------+---------------+---------------+
/// |                            xid (4)                            |
/// +-------------------------------+-------------------------------+
/// |           secs (2)            |           flags (2)           |
/// +-------------------------------+-------------------------------+
/// |                          ciaddr  (4)                          |
/// |                          yiaddr  (4)                          |
/// |                          siaddr  (4)                          |
/// |                          giaddr  (4)                          |
/// +---------------------------------------------------------------+
/// |          chaddr  (16), sname (64), file (128)                 |
/// +---------------------------------------------------------------+
/// |          99, 130, 83, 99, then options                        |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Of a server, to a client.
    pub reply: bool,
    /// Option 53.
    pub kind: MessageType,
    /// What the client tells its exchanges apart by.
    pub xid: u32,
    /// The client asks for answers to everybody: it cannot take others before it has an address.
    pub broadcast: bool,
    /// The client's address, where it has one and answers for it.
    pub ciaddr: Ipv4Addr,
    /// The address that the server lends.
    pub yiaddr: Ipv4Addr,
    /// The relay it came by.
    pub giaddr: Ipv4Addr,
    /// The client's hardware address.
    pub mac: Mac,
    /// What else it says.
    pub options: Options,
}

/// Options of a message; `None` and an empty list: it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// 1.
    pub mask: Option<Ipv4Addr>,
    /// 3.
    pub routers: Vec<Ipv4Addr>,
    /// 6.
    pub dns: Vec<Ipv4Addr>,
    /// 12; one that [`Record::name`] does not allow is not there.
    pub host_name: Option<String>,
    /// 28.
    pub broadcast: Option<Ipv4Addr>,
    /// 50.
    pub requested: Option<Ipv4Addr>,
    /// 51, in seconds.
    pub lease_time: Option<u32>,
    /// 54.
    pub server: Option<Ipv4Addr>,
    /// 55: the codes that a client wants to hear of.
    pub wanted: Vec<u8>,
    /// 58, in seconds.
    pub renewal: Option<u32>,
    /// 59, in seconds.
    pub rebinding: Option<u32>,
    /// 61; one that [`Record::client`] does not allow is not there.
    pub client: Option<Vec<u8>>,
}

/// What a message is for (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client takes an offer, or wants to keep what it has.
    Request = 3,
    /// A client found that somebody else has the address.
    Decline = 4,
    /// It has the address.
    Ack = 5,
    /// It must not have the address.
    Nak = 6,
    /// A client needs the address no more.
    Release = 7,
    /// A client that has an address by itself asks for the rest.
    Inform = 8,
}

impl MessageType {
    fn of(number: u8) -> Option<Self> {
        use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// Why bytes are no message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// They end before the options.
    Truncated {
        /// How many there are.
        got: usize,
    },
    /// `op` is neither BOOTREQUEST nor BOOTREPLY.
    Op(u8),
    /// The client's hardware is not Ethernet.
    Hardware {
        /// Its type, 1 is Ethernet.
        kind: u8,
        /// Octets of its address.
        length: u8,
    },
    /// The client's hardware address is that of no device: zeros, or of a group.
    Nobody([u8; 6]),
    /// BOOTP without DHCP: no magic cookie, or no message type.
    NotDhcp,
    /// An option has another length than it may have, or ends behind the message.
    Option(u8),
    /// Another message type than those of RFC 2131.
    Kind(u8),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { got } => write!(f, "{HEADER} octets expected, {got} came"),
            Self::Op(op) => write!(f, "op 1 or 2 expected, {op} came"),
            Self::Hardware { kind, length } => {
                write!(
                    f,
                    "Ethernet expected, hardware {kind} with {length} octets came"
                )
            }
            Self::Nobody(octets) => {
                write!(
                    f,
                    "a device's hardware address expected, {octets:02x?} came"
                )
            }
            Self::NotDhcp => f.write_str("BOOTP and no DHCP"),
            Self::Option(code) => write!(f, "option {code} has no length that it may have"),
            Self::Kind(kind) => write!(f, "message type 1 to 8 expected, {kind} came"),
        }
    }
}

impl std::error::Error for ParseError {}

/// Octets before the options, magic cookie included.
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTP's messages have so many octets at least (RFC 1542 §2.1), and some clients insist.
const LEAST: usize = 300;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;

/// Numbers of options.
mod code {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTERS: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const END: u8 = 255;
}

impl Message {
    /// A client's message without options.
    #[must_use]
    pub fn request(kind: MessageType, mac: Mac, xid: u32) -> Self {
        Self {
            reply: false,
            kind,
            xid,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac,
            options: Options::default(),
        }
    }

    /// Reads a datagram's payload.
    ///
    /// # Errors
    /// [`ParseError`]: it is not for a DHCP server or client on Ethernet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let truncated = ParseError::Truncated { got: bytes.len() };
        let (header, options) = bytes.split_first_chunk::<HEADER>().ok_or(truncated)?;
        let mut rest = header.as_slice();
        let [op, kind, length, _hops] = take(&mut rest).ok_or(truncated)?;
        let reply = match op {
            REQUEST => false,
            REPLY => true,
            _ => return Err(ParseError::Op(op)),
        };
        if (kind, length) != (ETHERNET, 6) {
            return Err(ParseError::Hardware { kind, length });
        }
        let xid = u32::from_be_bytes(take(&mut rest).ok_or(truncated)?);
        let [_, _, f0, f1] = take(&mut rest).ok_or(truncated)?;
        let mut address = || take::<4>(&mut rest).map(Ipv4Addr::from).ok_or(truncated);
        let (ciaddr, yiaddr, _siaddr, giaddr) = (address()?, address()?, address()?, address()?);
        let octets = take::<6>(&mut rest).ok_or(truncated)?;
        let mac = Mac::new(octets).ok_or(ParseError::Nobody(octets))?;
        let _padding: [u8; 10] = take(&mut rest).ok_or(truncated)?;
        let sname: [u8; 64] = take(&mut rest).ok_or(truncated)?;
        let file: [u8; 128] = take(&mut rest).ok_or(truncated)?;
        if rest != COOKIE {
            return Err(ParseError::NotDhcp);
        }
        let all = Collected::read(options, &file, &sname)?;
        let kind = all.one::<1>(code::KIND)?.ok_or(ParseError::NotDhcp)?[0];
        Ok(Self {
            reply,
            kind: MessageType::of(kind).ok_or(ParseError::Kind(kind))?,
            xid,
            broadcast: u16::from_be_bytes([f0, f1]) & BROADCAST != 0,
            ciaddr,
            yiaddr,
            giaddr,
            mac,
            options: all.into_options()?,
        })
    }

    /// The message as bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEAST + 64);
        let op = if self.reply { REPLY } else { REQUEST };
        out.extend_from_slice(&[op, ETHERNET, 6, 0]);
        out.extend_from_slice(&self.xid.to_be_bytes());
        let flags = if self.broadcast { BROADCAST } else { 0 };
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, Ipv4Addr::UNSPECIFIED, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.mac.octets());
        out.resize(HEADER - COOKIE.len(), 0);
        out.extend_from_slice(&COOKIE);
        self.options.emit(self.kind, &mut out);
        out.push(code::END);
        if out.len() < LEAST {
            out.resize(LEAST, code::PAD);
        }
        out
    }
}

impl Options {
    fn emit(&self, kind: MessageType, out: &mut Vec<u8>) {
        let address = |address: Option<Ipv4Addr>| address.map(|a| a.octets().to_vec());
        let addresses = |list: &[Ipv4Addr]| -> Option<Vec<u8>> {
            let all = list.iter().flat_map(|a| a.octets()).collect();
            (!list.is_empty()).then_some(all)
        };
        let seconds = |seconds: Option<u32>| seconds.map(|s| s.to_be_bytes().to_vec());
        let wanted = (!self.wanted.is_empty()).then(|| self.wanted.clone());
        let host_name = self.host_name.as_ref().map(|name| name.as_bytes().to_vec());
        for (code, value) in [
            (code::KIND, Some(vec![kind as u8])),
            (code::SERVER, address(self.server)),
            (code::LEASE_TIME, seconds(self.lease_time)),
            (code::RENEWAL, seconds(self.renewal)),
            (code::REBINDING, seconds(self.rebinding)),
            // RFC 2132 §3.3: before the routers.
            (code::MASK, address(self.mask)),
            (code::ROUTERS, addresses(&self.routers)),
            (code::DNS, addresses(&self.dns)),
            (code::BROADCAST, address(self.broadcast)),
            (code::REQUESTED, address(self.requested)),
            (code::HOST_NAME, host_name),
            (code::WANTED, wanted),
            (code::CLIENT, self.client.clone()),
        ] {
            // RFC 3396 §6: what is longer than an option goes into several of one code.
            for part in value.iter().flat_map(|value| value.chunks(255)) {
                out.push(code);
                out.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(part);
            }
        }
    }
}

/// The options as they came, the parts of each together (RFC 3396 §7).
struct Collected(BTreeMap<u8, Vec<u8>>);

impl Collected {
    fn read(options: &[u8], file: &[u8], sname: &[u8]) -> Result<Self, ParseError> {
        let mut all = Self(BTreeMap::new());
        all.add(options)?;
        // RFC 2132 §9.3, in the order of RFC 3396 §5.
        let overload = all.one::<1>(code::OVERLOAD)?.map_or(0, |[fields]| fields);
        if overload & 1 != 0 {
            all.add(file)?;
        }
        if overload & 2 != 0 {
            all.add(sname)?;
        }
        Ok(all)
    }

    fn add(&mut self, mut rest: &[u8]) -> Result<(), ParseError> {
        loop {
            let (code, length) = match take(&mut rest) {
                None | Some([code::END]) => return Ok(()),
                Some([code::PAD]) => continue,
                Some([code]) => (code, take::<1>(&mut rest)),
            };
            let length = length.map_or(usize::MAX, |[length]| usize::from(length));
            let split = rest.split_at_checked(length);
            let (value, after) = split.ok_or(ParseError::Option(code))?;
            rest = after;
            // All of them together are no longer than the message.
            self.0.entry(code).or_default().extend_from_slice(value);
        }
    }

    fn one<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, ParseError> {
        let Some(value) = self.0.get(&code) else {
            return Ok(None);
        };
        let value = <[u8; N]>::try_from(value.as_slice());
        value.map(Some).map_err(|_| ParseError::Option(code))
    }

    fn address(&self, code: u8) -> Result<Option<Ipv4Addr>, ParseError> {
        Ok(self.one::<4>(code)?.map(Ipv4Addr::from))
    }

    fn seconds(&self, code: u8) -> Result<Option<u32>, ParseError> {
        Ok(self.one::<4>(code)?.map(u32::from_be_bytes))
    }

    fn addresses(&self, code: u8) -> Result<Vec<Ipv4Addr>, ParseError> {
        let value = self.0.get(&code).map(Vec::as_slice).unwrap_or_default();
        let (addresses, rest) = value.as_chunks::<4>();
        match rest {
            [] => Ok(addresses.iter().copied().map(Ipv4Addr::from).collect()),
            _ => Err(ParseError::Option(code)),
        }
    }

    fn into_options(mut self) -> Result<Options, ParseError> {
        let host_name = self.0.remove(&code::HOST_NAME).and_then(|name| {
            // Some end it with a zero.
            let name = name.strip_suffix(&[0]).unwrap_or(&name);
            let name = std::str::from_utf8(name).ok()?;
            is_name(name).then(|| name.to_owned())
        });
        let client = self.0.remove(&code::CLIENT);
        Ok(Options {
            mask: self.address(code::MASK)?,
            routers: self.addresses(code::ROUTERS)?,
            dns: self.addresses(code::DNS)?,
            host_name,
            broadcast: self.address(code::BROADCAST)?,
            requested: self.address(code::REQUESTED)?,
            lease_time: self.seconds(code::LEASE_TIME)?,
            server: self.address(code::SERVER)?,
            wanted: self.0.remove(&code::WANTED).unwrap_or_default(),
            renewal: self.seconds(code::RENEWAL)?,
            rebinding: self.seconds(code::REBINDING)?,
            client: client.filter(|id| Record::CLIENT.contains(&id.len())),
        })
    }
}

/// The first `N` bytes, taken away.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A DISCOVER with these options, as a client sends it.
    fn discover(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0x39, 0x03, 0xf3, 0x26, 0, 0, 0x80, 0];
        bytes.resize(28, 0);
        bytes.extend_from_slice(&[0x3c, 0x22, 0xfb, 1, 2, 3]);
        bytes.resize(236, 0);
        bytes.extend_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn a_clients_discover_is_read() {
        let bytes = discover(&[
            53, 1, 1, 61, 7, 1, 0x3c, 0x22, 0xfb, 1, 2, 3, 50, 4, 192, 168, 1, 77, 12, 5, b'p',
            b'h', b'o', b'n', b'e', 55, 3, 1, 3, 6, 255, 0, 0,
        ]);
        let mac = Mac::new([0x3c, 0x22, 0xfb, 1, 2, 3]).unwrap();
        let mut expected = Message::request(MessageType::Discover, mac, 0x3903_f326);
        expected.options.client = Some(vec![1, 0x3c, 0x22, 0xfb, 1, 2, 3]);
        expected.options.requested = Some([192, 168, 1, 77].into());
        expected.options.host_name = Some("phone".to_owned());
        expected.options.wanted = vec![1, 3, 6];
        assert_eq!(Message::parse(&bytes), Ok(expected));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let address = |last| Ipv4Addr::new(192, 168, 1, last);
        let message = Message {
            reply: true,
            kind: MessageType::Ack,
            xid: 0x1122_3344,
            broadcast: false,
            ciaddr: address(7),
            yiaddr: address(8),
            giaddr: address(9),
            mac: Mac::new([2, 0, 0, 0, 0, 1]).unwrap(),
            options: Options {
                mask: Some([255, 255, 255, 0].into()),
                routers: vec![address(2)],
                // Longer than one option.
                dns: (0..100).map(address).collect(),
                host_name: Some("a-b_c.d".to_owned()),
                broadcast: Some(address(255)),
                requested: Some(address(5)),
                lease_time: Some(3600),
                server: Some(address(2)),
                wanted: vec![1, 3],
                renewal: Some(1800),
                rebinding: Some(3150),
                client: Some(vec![0, 1, 2, 3]),
            },
        };
        let bytes = message.emit();
        assert!(bytes.len() >= 300);
        assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn options_in_the_other_fields_are_read_where_the_message_says_so() {
        let mut bytes = discover(&[53, 1, 3, 52, 1, 3, 50, 2, 10, 0, 255]);
        // The second half of option 50 in `file`, option 54 in `sname`.
        bytes[108..113].copy_from_slice(&[50, 2, 0, 7, 255]);
        bytes[44..51].copy_from_slice(&[54, 4, 10, 0, 0, 2, 255]);
        let options = Message::parse(&bytes).unwrap().options;
        assert_eq!(options.requested, Some([10, 0, 0, 7].into()));
        assert_eq!(options.server, Some([10, 0, 0, 2].into()));
    }

    #[test]
    fn what_is_no_message_for_us_is_told_why() {
        let good = discover(&[53, 1, 1, 255]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Message::parse(&bytes).unwrap_err()
        };
        assert!(Message::parse(&good).is_ok());
        assert_eq!(with(0, 3), ParseError::Op(3));
        assert_eq!(with(1, 6), ParseError::Hardware { kind: 6, length: 6 });
        assert_eq!(
            with(2, 16),
            ParseError::Hardware {
                kind: 1,
                length: 16
            }
        );
        assert_eq!(
            with(28, 0x3d),
            ParseError::Nobody([0x3d, 0x22, 0xfb, 1, 2, 3])
        );
        assert_eq!(with(236, 0), ParseError::NotDhcp);
        assert_eq!(with(242, 9), ParseError::Kind(9));
        assert_eq!(
            Message::parse(&good[..239]),
            Err(ParseError::Truncated { got: 239 })
        );
        for (options, error) in [
            (&[255][..], ParseError::NotDhcp),
            (&[53, 2, 1, 1], ParseError::Option(53)),
            (&[53, 1, 1, 50, 3, 1, 2, 3], ParseError::Option(50)),
            (&[53, 1, 1, 3, 5, 1, 2, 3, 4, 5], ParseError::Option(3)),
            (&[53, 1, 1, 61, 9, 1], ParseError::Option(61)),
            (&[53, 1, 1, 61], ParseError::Option(61)),
        ] {
            assert_eq!(Message::parse(&discover(options)), Err(error));
        }
    }

    #[test]
    fn names_that_steer_a_terminal_and_endless_identifiers_are_left_out() {
        for name in [&b"a\x1b[2J"[..], b"", b"a b", "é".as_bytes(), &[b'x'; 64]] {
            let mut options = vec![53, 1, 1, 12, name.len() as u8];
            options.extend_from_slice(name);
            let message = Message::parse(&discover(&options)).unwrap();
            assert_eq!(message.options.host_name, None, "{name:?}");
        }
        let mut options = vec![53, 1, 1, 61, 65];
        options.extend_from_slice(&[7; 65]);
        let message = Message::parse(&discover(&options)).unwrap();
        assert_eq!(message.options.client, None);
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_panic(options in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..700) {
            let mut bytes = discover(&options);
            bytes.truncate(cut);
            let _ = Message::parse(&bytes);
            let _ = Message::parse(&options);
        }

        #[test]
        fn what_is_read_is_read_the_same_once_written(options in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = discover(&[&[53, 1, 3][..], &options].concat());
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(Message::parse(&message.emit()), Ok(message));
            }
        }
    }
}

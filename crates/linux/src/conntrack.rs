//! Connections that the kernel tracks, and how one is ended: it forgets where their packets went and by what
//! address, so that the next one finds its way anew.

use std::io;
use std::net::IpAddr;

use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::{Error, Result};

/// The kernel puts no more of a dump into one datagram.
const DATAGRAM: usize = 64 << 10;

/// Who began a connection, and with whom, before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Sender of the first packet.
    pub source: IpAddr,
    /// Where it was sent.
    pub destination: IpAddr,
}

/// Ends the connections that `which` says, of the network namespace of this thread; how many there were.
///
/// # Errors
/// [`Error::Netlink`], [`Error::NotPermitted`]: some may have been ended.
pub fn end_connections(mut which: impl FnMut(Connection) -> bool) -> Result<usize> {
    let (listing, ending) = (Channel::open()?, Channel::open()?);
    let mut ended = 0;
    listing.ask(
        NetfilterProtoFamily::Unspec,
        ConntrackMessage::Get(Vec::new()),
        NLM_F_REQUEST | NLM_F_DUMP,
    )?;
    let mut unread = 0usize;
    loop {
        let datagram = listing.receive()?;
        for message in messages(&datagram) {
            match message.map(|m| m.payload) {
                Ok(NetlinkPayload::Done(_)) if unread > 0 => {
                    return Err(failed(format!(
                        "read {unread} of the connections that the kernel tracks"
                    )));
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(ended),
                Ok(NetlinkPayload::Error(error)) => return Err(refused("list", error.to_io())),
                Ok(NetlinkPayload::InnerMessage(message)) => {
                    if let Some((family, connection, tuple)) = connection(message)
                        && which(connection)
                    {
                        ended += usize::from(ending.end(family, tuple)?);
                    }
                }
                Ok(_) => {}
                Err(()) => unread += 1,
            }
        }
    }
}

/// A connection of a dump, and what the kernel knows it by.
fn connection(
    message: NetfilterMessage,
) -> Option<(NetfilterProtoFamily, Connection, ConntrackAttribute)> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return None;
    };
    let original = attributes
        .into_iter()
        .find(|a| matches!(a, ConntrackAttribute::CtaTupleOrig(_)))?;
    let ConntrackAttribute::CtaTupleOrig(tuples) = &original else {
        return None;
    };
    let (mut source, mut destination) = (None, None);
    for part in tuples {
        let Tuple::Ip(addresses) = part else { continue };
        for address in addresses {
            match address {
                IPTuple::SourceAddress(address) => source = Some(*address),
                IPTuple::DestinationAddress(address) => destination = Some(*address),
                _ => {}
            }
        }
    }
    let connection = Connection {
        source: source?,
        destination: destination?,
    };
    let family = match connection.source {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    Some((family, connection, original))
}

/// A socket to the kernel's connection tracking.
struct Channel(Socket);

impl Channel {
    fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self(socket))
        };
        open()
            .map_err(|e: io::Error| Error::io("ask for the connections that the kernel tracks", e))
    }

    fn ask(&self, family: NetfilterProtoFamily, what: ConntrackMessage, flags: u16) -> Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), what);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.0.send(&bytes, 0);
        sent.map(drop).map_err(|e| refused("ask for", e))
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        let received = self.0.recv(&mut datagram, 0);
        received.map_err(|e| refused("list", e))?;
        Ok(datagram)
    }

    /// Whether it was still there.
    fn end(&self, family: NetfilterProtoFamily, tuple: ConntrackAttribute) -> Result<bool> {
        let what = ConntrackMessage::Delete(vec![tuple]);
        self.ask(family, what, NLM_F_REQUEST | NLM_F_ACK)?;
        let datagram = self.receive()?;
        match messages(&datagram).next() {
            Some(Ok(message)) => match message.payload {
                NetlinkPayload::Error(error) if error.code.is_none() => Ok(true),
                NetlinkPayload::Error(error) => match error.to_io() {
                    gone if gone.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                    other => Err(refused("end one of", other)),
                },
                _ => Err(failed(
                    "end one of the connections that the kernel tracks".to_owned(),
                )),
            },
            _ => Err(failed(
                "end one of the connections that the kernel tracks".to_owned(),
            )),
        }
    }
}

/// The messages of a datagram; `Err` is one that says what is not understood.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<NetfilterMessage>, ()>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let (message, behind) = rest.split_at_checked(length)?;
        // NLMSG_ALIGN
        let padding = (length.next_multiple_of(4) - length).min(behind.len());
        rest = behind.split_at(padding).1;
        Some(NetlinkMessage::deserialize(message).map_err(drop))
    })
}

fn refused(verb: &str, source: io::Error) -> Error {
    Error::io(
        format!("{verb} the connections that the kernel tracks"),
        source,
    )
}

fn failed(what: String) -> Error {
    Error::Netlink {
        what,
        source: io::ErrorKind::InvalidData.into(),
    }
}

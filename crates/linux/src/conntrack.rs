//! Connections that the kernel tracks, and how one is ended: it forgets where their packets went and by what
//! address, so that the next one finds its way anew.

use std::io;
use std::net::IpAddr;

use cygnet_gateway::Connection;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::{Error, Result};

/// How often a listing is begun anew that the kernel says was disturbed.
const LISTINGS: usize = 4;

/// linux/netfilter/nfnetlink_conntrack.h: in which zone a connection is; none is zone 0.
const CTA_ZONE: u16 = 18;

/// The kernel puts no more of a dump into one datagram.
const DATAGRAM: usize = 64 << 10;

/// Ends the connections that `which` says, of the network namespace of this thread; how many there were. One that
/// cannot be ended does not keep the others.
///
/// # Errors
/// [`Error::Netlink`], [`Error::NotPermitted`]: the first; the rest was ended nevertheless, as far as it could be.
pub fn end_connections(mut which: impl FnMut(Connection) -> bool) -> Result<usize> {
    let ending = Channel::open()?;
    let (mut ended, mut first) = (0, None);
    for _ in 0..LISTINGS {
        let disturbed = list(|found| {
            if !which(found.connection) {
                return;
            }
            match ending.end(found) {
                Ok(was_there) => ended += usize::from(was_there),
                Err(error) => first = first.take().or(Some(error)),
            }
        })?;
        if !disturbed || first.is_some() {
            return first.map_or(Ok(ended), Err);
        }
    }
    Err(failed(format!(
        "list the connections that the kernel tracks: disturbed {LISTINGS} times"
    )))
}

/// Gives every connection to `found`; whether the kernel says that some may be missing.
fn list(mut found: impl FnMut(Found)) -> Result<bool> {
    let listing = Channel::open()?;
    listing.ask(
        NetfilterProtoFamily::Unspec,
        ConntrackMessage::Get(Vec::new()),
        NLM_F_REQUEST | NLM_F_DUMP,
    )?;
    let (mut unread, mut disturbed) = (0usize, false);
    loop {
        let datagram = listing.receive()?;
        for message in messages(&datagram) {
            let Ok(message) = message else {
                unread += 1;
                continue;
            };
            disturbed |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::Done(done) if done.code != 0 => {
                    let error = io::Error::from_raw_os_error(done.code.saturating_abs());
                    return Err(refused("list", error));
                }
                NetlinkPayload::Done(_) if unread > 0 => {
                    return Err(failed(format!(
                        "read {unread} of the connections that the kernel tracks"
                    )));
                }
                NetlinkPayload::Done(_) => return Ok(disturbed),
                NetlinkPayload::Error(error) => return Err(refused("list", error.to_io())),
                NetlinkPayload::InnerMessage(message) => {
                    if let Some(it) = connection(message) {
                        found(it);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A connection of a listing, and what the kernel knows it by.
struct Found {
    connection: Connection,
    family: NetfilterProtoFamily,
    known_by: Vec<ConntrackAttribute>,
}

fn connection(message: NetfilterMessage) -> Option<Found> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return None;
    };
    let reply = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(tuples) => Some(ends(tuples)),
        _ => None,
    });
    let mark = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaMark(mark) => Some(*mark),
        _ => None,
    });
    let known_by: Vec<ConntrackAttribute> = attributes
        .into_iter()
        .filter(|a| matches!(a, ConntrackAttribute::CtaTupleOrig(_)) || a.kind() == CTA_ZONE)
        .collect();
    let tuples = known_by.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuples) => Some(tuples),
        _ => None,
    })?;
    let began = ends(tuples);
    let (source, destination) = (began.source?, began.destination?);
    let reply = reply.unwrap_or_default();
    let connection = Connection {
        source,
        destination,
        answered: reply.destination.unwrap_or(source),
        answers: reply.source.unwrap_or(destination),
        mark: mark.unwrap_or_default(),
        is_tcp: began.is_tcp,
        source_port: began.source_port,
        port: began.destination_port,
        answering_port: reply.source_port,
    };
    let family = match connection.source {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    Some(Found {
        connection,
        family,
        known_by,
    })
}

/// Sender and receiver of a direction.
#[derive(Default)]
struct Ends {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    is_tcp: bool,
}

fn ends(tuples: &[Tuple]) -> Ends {
    let mut ends = Ends::default();
    for part in tuples {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => ends.source = Some(*address),
                        IPTuple::DestinationAddress(address) => ends.destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(ports) => {
                for port in ports {
                    match port {
                        ProtoTuple::Protocol(protocol) => ends.is_tcp = *protocol == Protocol::Tcp,
                        ProtoTuple::SourcePort(port) => ends.source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => ends.destination_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    ends
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
    fn end(&self, found: Found) -> Result<bool> {
        let what = ConntrackMessage::Delete(found.known_by);
        self.ask(found.family, what, NLM_F_REQUEST | NLM_F_ACK)?;
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

//! The protected channel between the two ends of one IKE SA: keys, message windows, fragments,
//! retransmission, and the way to the peer.

use std::net::IpAddr;
use std::time::Duration;

use cygnet_wire::ParseError;
use cygnet_wire::header::{ExchangeType, Flags, IkeHeader, MessageId, Spi, Version};
use cygnet_wire::message::Message;
use cygnet_wire::payload::{ChainBuilder, Payload};

use crate::context::Context;
use crate::event::Reason;
use crate::fragment::Reassembly;
use crate::io::{IkeSaId, Path};
use crate::keys::{IkeKeys, Role};
use crate::nat::Nat;
use crate::pmtu::Search;
use crate::policy::Retransmit;
use crate::protect::{self, Authenticated, Content, Opened};
use crate::refused::Client;
use crate::sa::contents::Contents;
use crate::sa::mobike::Mobility;
use crate::sa::size_probe::SizeProbe;
use crate::time::Instant;
use crate::window::{Incoming, Timeout, Window};

/// One end of the channel.
pub(crate) struct Channel {
    pub(crate) id: IkeSaId,
    /// Ours in this IKE SA; a rekey by the other side changes it.
    pub(crate) role: Role,
    /// Whether we called, in the first IKE SA of this line.
    pub(crate) dialed: bool,
    pub(crate) spi_i: Spi,
    pub(crate) spi_r: Spi,
    pub(crate) path: Path,
    /// Whose implementation the peer is, if it called and said so.
    pub(crate) client: Client,
    /// Whoever calls and has not authenticated: nothing counts that does not come from this address, to
    /// which our first answer went. What goes to another would be more than somebody else asked for.
    pub(crate) only_from: Option<IpAddr>,
    pub(crate) nat: Nat,
    pub(crate) mobility: Mobility,
    pub(crate) keys: Option<IkeKeys>,
    pub(crate) window: Window,
    pub(crate) retransmit: Retransmit,
    /// Largest IP packet for our messages; 0: the peer knows no fragments, or we are not to send
    /// them.
    pub(crate) fragment_size: u16,
    /// What is known of the packets that the path in use carries, once it is searched.
    pub(crate) search: Option<Search>,
    /// The request in flight, if it fills a packet.
    pub(super) size_probe: Option<SizeProbe>,
    /// The peer searches too.
    pub(crate) peer_searches: bool,
    /// When it began.
    pub(crate) since: Instant,
    /// Last authenticated message of the peer.
    pub(crate) last_in: Instant,
    /// Last datagram to the peer.
    pub(crate) last_out: Instant,
    requests: Reassembly,
    responses: Reassembly,
    /// The datagram of fragment 1 of the request being reassembled: its repeats are answered.
    first_part: Option<(MessageId, Vec<u8>)>,
    /// How often the stored response may still be repeated, and since when that is so.
    repeats: (u32, Instant),
    /// When the peer was last told of a message id outside the window.
    complained: Option<Instant>,
}

/// RFC 7296 §2.3: notifications of INVALID_MESSAGE_ID are rate limited.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Repeats of a stored response that may follow each other closely; one more comes each second.
/// Whoever has seen a request can repeat it from any source, and large responses would go there.
const REPEATS: u32 = 8;

/// An authenticated message.
pub(crate) struct Inbound {
    pub(crate) exchange: ExchangeType,
    pub(crate) path: Path,
    /// Its payloads, or what the peer did wrong.
    pub(crate) contents: Result<Contents, ParseError>,
    /// Whether the peer now is elsewhere than before (RFC 7296 §2.23); where it was.
    pub(crate) moved_from: Option<Path>,
}

/// What a datagram brought.
pub(crate) enum Received {
    /// The next request of the peer: it gets exactly one response.
    Request(Inbound),
    /// The response to our request in flight, which is in flight no more.
    Response(Inbound),
    /// A request that the window does not allow yet, and of which the peer is to be told.
    Ahead(MessageId),
    /// Nothing to act on.
    Nothing,
}

impl Channel {
    pub(crate) fn new(
        cx: &Context,
        id: IkeSaId,
        role: Role,
        (spi_i, spi_r): (Spi, Spi),
        path: Path,
        retransmit: Retransmit,
    ) -> Self {
        let now = cx.boot();
        Self {
            id,
            role,
            dialed: role == Role::Initiator,
            spi_i,
            spi_r,
            path,
            client: Client::Unknown,
            only_from: None,
            nat: Nat::default(),
            mobility: Mobility::default(),
            keys: None,
            window: Window::default(),
            retransmit,
            fragment_size: 0,
            search: None,
            size_probe: None,
            peer_searches: false,
            since: now,
            last_in: now,
            last_out: now,
            requests: Reassembly::default(),
            responses: Reassembly::default(),
            first_part: None,
            repeats: (REPEATS, now),
            complained: None,
        }
    }

    /// The SPI by which the peer's messages find this IKE SA.
    pub(crate) fn own_spi(&self) -> Spi {
        match self.role {
            Role::Initiator => self.spi_i,
            Role::Responder => self.spi_r,
        }
    }

    pub(crate) fn header(
        &self,
        exchange: ExchangeType,
        message_id: MessageId,
        response: bool,
    ) -> IkeHeader {
        IkeHeader {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            version: Version::V2_0,
            exchange,
            flags: Flags::new(self.role == Role::Initiator, response),
            message_id,
        }
    }

    /// Sends a request and repeats it until it is answered or given up.
    pub(crate) fn send_request(
        &mut self,
        cx: &mut Context,
        exchange: ExchangeType,
        payloads: Vec<Payload<'static>>,
    ) -> Result<(), Reason> {
        self.send_request_by(cx, None, exchange, payloads)
    }

    /// The same by another way than the one in use, for some seconds.
    pub(crate) fn send_request_by(
        &mut self,
        cx: &mut Context,
        alone: Option<Path>,
        exchange: ExchangeType,
        payloads: Vec<Payload<'static>>,
    ) -> Result<(), Reason> {
        let Some(id) = self.window.request_id() else {
            return Err(Reason::Local(
                "message ids are used up or a request is in flight".to_owned(),
            ));
        };
        let datagrams = self.seal(cx, self.header(exchange, id, false), payloads)?;
        let path = self.begin_sending(alone);
        self.transmit(cx, path, &datagrams);
        self.size_probe = None;
        self.window.send(cx.boot(), datagrams, self.retransmit);
        Ok(())
    }

    /// Answers the request being worked on, and its repeats.
    pub(crate) fn respond(
        &mut self,
        cx: &mut Context,
        exchange: ExchangeType,
        path: Path,
        payloads: Vec<Payload<'static>>,
    ) -> Result<(), Reason> {
        let Some(id) = self.window.pending() else {
            return Ok(());
        };
        let datagrams = self.seal(cx, self.header(exchange, id, true), payloads)?;
        self.transmit(cx, path, &datagrams);
        self.window.answer(datagrams);
        self.repeats = (REPEATS, cx.boot());
        Ok(())
    }

    fn seal(
        &mut self,
        cx: &mut Context,
        header: IkeHeader,
        payloads: Vec<Payload<'static>>,
    ) -> Result<Vec<Vec<u8>>, Reason> {
        let most = protect::max_datagram(&self.path, self.fragment_size);
        self.seal_within(cx, header, payloads, most)
    }

    /// Seals into datagrams of at most so many octets.
    pub(super) fn seal_within(
        &mut self,
        cx: &mut Context,
        header: IkeHeader,
        payloads: Vec<Payload<'static>>,
        most: Option<usize>,
    ) -> Result<Vec<Vec<u8>>, Reason> {
        let local = |error: &dyn std::fmt::Display| Reason::Local(format!("cannot send: {error}"));
        let mut chain = ChainBuilder::new();
        for payload in payloads {
            chain.push(payload);
        }
        let chain = chain.finish().map_err(|e| local(&e))?;
        let Some(keys) = &mut self.keys else {
            return Err(Reason::Local("cannot send: no keys yet".to_owned()));
        };
        protect::seal(keys.sealer(), cx.random.as_mut(), header, &chain, most)
            .map_err(|e| local(&e))
    }

    /// The stored response once more, to where its request came from this time.
    pub(crate) fn repeat(&mut self, cx: &mut Context, path: Path, stored: &[Vec<u8>]) {
        cx.counters.repeated += 1;
        let (left, since) = self.repeats;
        let whole = cx.boot().since(since).as_secs();
        let left = u32::try_from(whole).map_or(REPEATS, |more| left.saturating_add(more));
        let left = left.min(REPEATS);
        let since = since + Duration::from_secs(whole);
        self.repeats = (left.saturating_sub(1), since);
        if left == 0 {
            return;
        }
        // It keeps no NAT mapping alive but the one it goes through.
        if path == self.path {
            self.last_out = cx.boot();
        }
        for datagram in stored {
            cx.transmit(path, datagram.clone());
        }
    }

    pub(crate) fn transmit(&mut self, cx: &mut Context, path: Path, datagrams: &[Vec<u8>]) {
        self.last_out = cx.boot();
        for datagram in datagrams {
            cx.transmit(path, datagram.clone());
        }
    }

    /// The request in flight once more; its repetitions stay when they were.
    pub(crate) fn send_again(&mut self, cx: &mut Context) {
        self.gather();
        self.send_again_by(cx, self.path);
    }

    /// The same by another way.
    pub(crate) fn send_again_by(&mut self, cx: &mut Context, path: Path) {
        self.shorten(cx.boot());
        if let Some(in_flight) = self.window.in_flight() {
            let datagrams = in_flight.datagrams.clone();
            self.note_way(path);
            self.transmit(cx, path, &datagrams);
        }
    }

    /// Takes a datagram in: window, authentication, reassembly, in that order.
    pub(crate) fn receive(
        &mut self,
        cx: &mut Context,
        path: Path,
        message: &Message<'_>,
    ) -> Received {
        let header = message.header;
        let from_initiator = self.role == Role::Responder;
        if header.flags.is_initiator() != from_initiator
            || header.initiator_spi != self.spi_i
            || header.responder_spi != self.spi_r
        {
            cx.counters.stray += 1;
            return Received::Nothing;
        }
        let response = header.flags.is_response();
        let (mut repeat, mut ahead) = (false, false);
        if response {
            if !self.window.awaits_response(header.message_id) {
                cx.counters.repeated += 1;
                return Received::Nothing;
            }
        } else if let Some(stored) = self.window.repeated(message.bytes) {
            let stored = stored.to_vec();
            self.repeat(cx, path, &stored);
            return Received::Nothing;
        } else {
            match self.window.incoming(header.message_id) {
                Incoming::Expected => {}
                Incoming::Answered => repeat = true,
                Incoming::Outside if self.may_complain(cx, header.message_id) => ahead = true,
                Incoming::Pending | Incoming::Outside => {
                    cx.counters.repeated += 1;
                    return Received::Nothing;
                }
            }
        }
        let fragment = match message.encrypted() {
            Ok(Some(encrypted)) => encrypted.fragment,
            Ok(None) | Err(_) => {
                cx.counters.forged += 1;
                return Received::Nothing;
            }
        };
        let reassembly = if response {
            &self.responses
        } else {
            &self.requests
        };
        if let Some(fragment) = fragment
            && !(repeat || ahead)
            && !reassembly.wants(&header, fragment)
        {
            return Received::Nothing;
        }
        let Some(keys) = &self.keys else {
            return Received::Nothing;
        };
        let opened = match protect::open(keys.opener(), message) {
            Ok(opened) => opened,
            Err(_) => {
                cx.counters.forged += 1;
                return Received::Nothing;
            }
        };
        if ahead {
            self.complained = Some(cx.boot());
            return Received::Ahead(header.message_id);
        }
        if repeat {
            // RFC 7383 §2.6.1: only the first fragment of a repeated request is answered.
            if fragment.is_none_or(|f| f.number == 1)
                && let Some(stored) = self.window.answer_to(header.message_id)
            {
                let stored = stored.to_vec();
                self.repeat(cx, path, &stored);
            } else {
                cx.counters.repeated += 1;
            }
            return Received::Nothing;
        }
        let now = cx.boot();
        let content = match opened {
            Opened::Whole(content) => content,
            Opened::Part(part) => {
                if part.fragment.number == 1 && !response {
                    self.first_part = Some((header.message_id, message.bytes.to_vec()));
                }
                let reassembly = if response {
                    &mut self.responses
                } else {
                    &mut self.requests
                };
                match reassembly.handle_part(now, part) {
                    Some(content) => content,
                    None => return Received::Nothing,
                }
            }
        };
        self.accept(cx, path, message.bytes, response, &content)
    }

    fn may_complain(&self, cx: &Context, id: MessageId) -> bool {
        let lately = |at: Instant| cx.boot().since(at) < COMPLAINTS;
        self.window.is_ahead(id) && !self.complained.is_some_and(lately)
    }

    fn accept(
        &mut self,
        cx: &mut Context,
        path: Path,
        datagram: &[u8],
        response: bool,
        content: &Authenticated<Content>,
    ) -> Received {
        let header = content.header;
        if response {
            if !self.window.handle_response(header.message_id) {
                return Received::Nothing;
            }
        } else {
            let first = self.first_part.take();
            let first = first.filter(|(id, _)| *id == header.message_id);
            let first = first.as_ref().map_or(datagram, |(_, first)| first);
            self.window.begin(header.message_id, first);
        }
        self.last_in = cx.boot();
        let inbound = Inbound {
            exchange: header.exchange,
            path,
            contents: content.payloads().map(Contents::of),
            moved_from: self.follow(path),
        };
        if response {
            Received::Response(inbound)
        } else {
            Received::Request(inbound)
        }
    }

    /// RFC 7296 §2.23: who is not behind a NAT itself sends to where the last authenticated packet
    /// of a peer behind one came from. (Behind a NAT that would let an attacker redirect us.) The
    /// NAT of one that was called is a fixed one, or nobody could have called: it follows as well,
    /// since its peer cannot know that its own mapping has changed. With MOBIKE the peer says where it is
    /// (RFC 4555 §3.8).
    pub(crate) fn follow(&mut self, path: Path) -> Option<Path> {
        let may =
            !self.mobility.enabled && self.nat.encapsulates() && !(self.nat.local && self.dialed);
        (may && path != self.path).then(|| std::mem::replace(&mut self.path, path))
    }

    /// Repeats what is due; an error when the peer counts as gone.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context) -> Result<(), Reason> {
        let now = cx.boot();
        self.requests.handle_timeout(now);
        self.responses.handle_timeout(now);
        if self.window.poll_timeout().is_some_and(|due| due <= now) && self.shorten(now) {
            self.repeat_request(cx, 1);
            return Ok(());
        }
        match self.window.handle_timeout(now) {
            Timeout::NotDue => Ok(()),
            Timeout::Retransmit { sent, .. } => {
                self.repeat_request(cx, sent);
                Ok(())
            }
            Timeout::GivenUp { sent, waited } => Err(Reason::NoAnswer { sent, waited }),
        }
    }

    /// The request in flight once more, after it was sent so often.
    fn repeat_request(&mut self, cx: &mut Context, sent: u32) {
        let in_flight = self.window.in_flight();
        let datagrams = in_flight.map(|request| request.datagrams.clone());
        let Some(datagrams) = datagrams else { return };
        cx.counters.retransmitted += 1;
        for way in self.ways_again(sent) {
            self.transmit(cx, way, &datagrams);
            self.repeat_whole(cx, way, sent);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [
            self.window.poll_timeout(),
            self.requests.poll_timeout(),
            self.responses.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cygnet_crypto::Secret;
    use cygnet_crypto::suite::{Encryption, Group, IkeSuite, Prf};

    use super::*;
    use crate::io::{Output, Transport};
    use crate::keys::Exchanged;
    use crate::policy::Policy;
    use crate::test_random::TestRandom;
    use crate::time::Now;

    const SPIS: (Spi, Spi) = (Spi(1), Spi(2));

    fn context() -> Context {
        Context::new(Box::new(TestRandom::new(1)), Arc::new(Policy::default()))
    }

    fn end(cx: &Context, role: Role) -> Channel {
        let retransmit = Retransmit {
            first: Duration::from_secs(1),
            factor: 1.0,
            most: Duration::from_secs(1),
            tries: 3,
        };
        let path = Path {
            transport: Transport::Udp,
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "192.0.2.2:500".parse().unwrap(),
            interface: 0,
        };
        let mut channel = Channel::new(cx, IkeSaId(1), role, SPIS, path, retransmit);
        let exchanged = Exchanged {
            nonce_i: vec![1; 32],
            nonce_r: vec![2; 32],
            spi_i: SPIS.0,
            spi_r: SPIS.1,
        };
        let suite = IkeSuite {
            encryption: Encryption::AesGcm16_128,
            integrity: None,
            prf: Prf::HmacSha2_256,
            group: Group::Curve25519,
        };
        let shared = Secret::new(vec![3; 32]);
        channel.keys = Some(IkeKeys::initial(suite, role, &exchanged, &shared).unwrap());
        channel
    }

    /// A request under this id, as the initiator would send it.
    fn request(cx: &mut Context, id: u32) -> Vec<u8> {
        let mut initiator = end(cx, Role::Initiator);
        initiator.window = Window::new(MessageId(id), MessageId::ZERO);
        let sent = initiator.send_request(cx, ExchangeType::INFORMATIONAL, Vec::new());
        assert_eq!(sent, Ok(()));
        match cx.poll_output() {
            Some(Output::Transmit(transmit)) => transmit.datagram,
            other => panic!("{other:?}"),
        }
    }

    fn receive(channel: &mut Channel, cx: &mut Context, datagram: &[u8]) -> Option<MessageId> {
        let path = channel.path;
        match channel.receive(cx, path, &Message::parse(datagram).unwrap()) {
            Received::Ahead(id) => Some(id),
            Received::Nothing => None,
            Received::Request(_) | Received::Response(_) => panic!("taken on"),
        }
    }

    #[test]
    fn request_outside_the_window_is_complained_of_now_and_then_if_it_is_authentic() {
        let mut cx = context();
        let mut responder = end(&cx, Role::Responder);
        responder.window = Window::new(MessageId::ZERO, MessageId(3));
        let (old, ahead) = (request(&mut cx, 1), request(&mut cx, 5));
        let mut forged = ahead.clone();
        *forged.last_mut().unwrap() ^= 1;
        // What is old may be anybody's replay.
        assert_eq!(receive(&mut responder, &mut cx, &old), None);
        assert_eq!(receive(&mut responder, &mut cx, &forged), None);
        assert_eq!(receive(&mut responder, &mut cx, &ahead), Some(MessageId(5)));
        assert_eq!(receive(&mut responder, &mut cx, &ahead), None);
        cx.now = Now {
            boot: cx.boot() + COMPLAINTS,
            utc: None,
        };
        assert_eq!(receive(&mut responder, &mut cx, &ahead), Some(MessageId(5)));
        // It is not taken on by that.
        assert_eq!(responder.window.pending(), None);
    }
}

//! Requests that fill a packet, to see whether one of its size arrives ([`crate::pmtu`]).

use cygnet_wire::header::ExchangeType;
use cygnet_wire::notify::{NotifyPayload, NotifyType};

use crate::context::Context;
use crate::event::Reason;
use crate::io::{DataCommand, Path};
use crate::pmtu::{Activity, Probe, Search};
use crate::protect;
use crate::sa::channel::Channel;
use crate::sa::child::ChildSa;
use crate::sa::contents::Contents;
use crate::sa::established::{Established, Life};
use crate::sa::exchange::Exchange;
use crate::time::Instant;
use crate::window::InFlight;

/// Fills a packet. A status type for private use, which whoever does not know it ignores (RFC 7296 §3.10.1). Its data:
/// the largest packet that the sender knows to arrive at the receiver, 16 bits, 0 for none yet; then zeros.
const FILLER: NotifyType = NotifyType(51450);
/// Octets of a Notify payload without data (RFC 7296 §3.10).
const NOTIFY: usize = 8;

/// A request in flight that fills a packet.
pub(crate) struct SizeProbe {
    whole: Vec<u8>,
    /// One that fills nothing, to be sent in its place, as long as it was not.
    short: Option<Vec<Vec<u8>>>,
    sent: Instant,
}

impl Channel {
    /// Sends a request that fills a packet of at most `size` octets.
    fn send_size_probe(
        &mut self,
        cx: &mut Context,
        search: &Search,
        size: u16,
    ) -> Result<Probe, Reason> {
        let local = |error: &str| Reason::Local(format!("cannot send: {error}"));
        let exchange = ExchangeType::INFORMATIONAL;
        let id = self.window.request_id();
        let id = id.ok_or_else(|| local("a request is in flight"))?;
        let header = self.header(exchange, id, false);
        let most = protect::max_datagram(&self.path, size);
        let most = most.ok_or_else(|| local("a stream has no packets of its own"))?;
        let keys = self.keys.as_mut().ok_or_else(|| local("no keys yet"))?;
        let room = protect::max_content(keys.sealer(), header, most);
        let filler = room.and_then(|room| room.checked_sub(NOTIFY));
        let filler = filler.ok_or_else(|| local("no message is as short as that"))?;
        let payloads = || {
            let mut data = search.mtu().unwrap_or(0).to_be_bytes().to_vec();
            data.resize(filler, 0);
            vec![NotifyPayload::with_data(FILLER, data).into()]
        };
        let whole = self.seal_within(cx, header, payloads(), None)?;
        let short = self.seal_within(cx, header, Vec::new(), None)?;
        let whole = whole.into_iter().next().unwrap_or_default();
        let unfilled = most.saturating_sub(whole.len());
        let path = self.begin_sending(None);
        let now = cx.boot();
        self.last_out = now;
        cx.transmit_whole(path, whole.clone());
        let wait = search.wait(self.retransmit.first);
        self.window
            .send_waiting(now, vec![whole.clone()], self.retransmit, wait);
        self.size_probe = Some(SizeProbe {
            whole,
            short: Some(short),
            sent: now,
        });
        let filled = size.saturating_sub(u16::try_from(unfilled).unwrap_or(u16::MAX));
        Ok(Probe { size, filled })
    }

    /// A short request takes the place of one that may be too large, under its message id: the answer is the same
    /// to either. (Not fragments of it, RFC 7383 §2.5.2: a strongSwan built for mediation takes fragments of
    /// INFORMATIONAL for connectivity checks.) It is repeated as often and as long as any request. Whether there was one.
    pub(super) fn shorten(&mut self, now: Instant) -> bool {
        let probe = self.size_probe.as_mut();
        let Some(short) = probe.and_then(|probe| probe.short.take()) else {
            return false;
        };
        self.window.restart(now);
        self.window.refit(short);
        true
    }

    /// The request was sent so often, and the short one has no answer either: it may be the answer that was lost, and
    /// the peer one that takes nothing for a repetition but the same octets (RFC 7296 §2.1).
    pub(super) fn repeat_whole(&self, cx: &mut Context, path: Path, sent: u32) {
        if let Some(probe) = self.size_probe.as_ref().filter(|_| sent > 1) {
            cx.transmit_whole(path, probe.whole.clone());
        }
    }
}

impl Established {
    /// A request that fills a packet, or asks, is sent whenever the peer is silent under traffic for some seconds. That it
    /// has no answer says no sooner that the peer is gone than a question after `liveness` would (RFC 7296 §2.4): it is
    /// repeated until then. Not where the IKE SA is to end anyway.
    pub(crate) fn spare(&self, channel: &mut Channel, now: Instant) {
        let liveness = self.peering.connection.liveness;
        let sent = channel.window.in_flight().map(InFlight::first_sent);
        // ESP that arrives meanwhile is no answer: a peer that gives none for so long has lost the IKE SA.
        let since = sent.map_or(self.heard, |sent| sent.min(self.heard));
        let gone = since + liveness + channel.retransmit.patience();
        let early = liveness.is_zero() || now < gone;
        let early = early && self.is_live();
        let asks = channel.size_probe.is_some() || self.asks_of_silence(channel);
        if early && asks && channel.window.is_over(now) {
            channel.window.prolong();
        }
    }

    /// When a packet is to be filled next, if nothing else is to be done then.
    pub(crate) fn size_probe_at(&self, channel: &Channel) -> Option<Instant> {
        // What others may make of such a request, those who call have to find out.
        let wanted = self.peering.connection.search_mtu
            && (self.peering.dialed || channel.peer_searches)
            && self.life == Life::Live;
        // Long messages are for peers that said how they want to have them.
        let may = channel.fragment_size != 0 && channel.esp_path() == channel.path;
        let idle = self.current.is_none() && self.children.values().any(ChildSa::is_sending);
        if !(wanted && may && idle) {
            return None;
        }
        let activity = Activity {
            heard: self.heard,
            sent: self.sealed,
        };
        let search = channel.search.as_ref();
        let at = match search.filter(|search| search.path() == channel.path) {
            Some(search) => search.due(activity)?,
            None => self.since,
        };
        Some(at.max(self.known_at(channel)))
    }

    /// Fills a packet, if it is time to.
    pub(crate) fn probe_size(&mut self, channel: &mut Channel, cx: &mut Context) {
        let now = cx.boot();
        if self.size_probe_at(channel).is_none_or(|at| at > now) {
            return;
        }
        let path = channel.path;
        channel.search.take_if(|search| search.path() != path);
        let mut search = channel.search.take().unwrap_or(Search::new(path, now));
        let size = search.begin(now);
        match channel.send_size_probe(cx, &search, size) {
            Ok(probe) => self.current = Some(Exchange::SizeProbe(probe)),
            // The keys are used up: whatever has to be sent next says so.
            Err(_) => search.rest(now),
        }
        channel.search = Some(search);
    }

    /// The peer has answered; how it got the request is known from whether that had to be repeated.
    pub(crate) fn handle_size_probe(
        &mut self,
        channel: &mut Channel,
        cx: &mut Context,
        sent: Probe,
    ) {
        let path = channel.path;
        let search = channel.search.as_mut();
        let search = search.filter(|search| search.path() == path);
        if let (Some(probe), Some(search)) = (channel.size_probe.take(), search) {
            let now = cx.boot();
            let arrived = probe.short.is_some();
            search.answered(now, sent, arrived, now.since(probe.sent));
            Self::apply_mtu(channel, cx);
        }
    }

    /// A request of the peer may fill a packet, and tells then what it knows of its own direction.
    pub(crate) fn serve_size_probe(channel: &mut Channel, contents: &Contents) {
        let Some(filler) = contents.notify(FILLER) else {
            return;
        };
        channel.peer_searches = true;
        let path = channel.path;
        let search = channel.search.as_mut();
        if let (Some(search), Some((known, _))) = (
            search.filter(|search| search.path() == path),
            filler.data.split_first_chunk(),
        ) && *known != [0; 2]
        {
            search.other_direction(u16::from_be_bytes(*known));
        }
    }

    /// A router, or this machine itself, says how large packets may be.
    pub(crate) fn mtu_is_named(&mut self, channel: &mut Channel, cx: &mut Context, mtu: u16) {
        let path = channel.path;
        let search = channel.search.as_mut();
        if let Some(search) = search.filter(|search| search.path() == path) {
            search.named(cx.boot(), mtu);
        }
        // It need not wait for its time.
        let whole = channel
            .size_probe
            .as_ref()
            .is_some_and(|probe| probe.short.is_some());
        if whole && matches!(self.current, Some(Exchange::SizeProbe(sent)) if sent.filled > mtu) {
            channel.send_again(cx);
        }
    }

    fn apply_mtu(channel: &mut Channel, cx: &mut Context) {
        let path = channel.path;
        if let Some(mtu) = channel.search.as_ref().and_then(Search::mtu) {
            channel.fragment_size = channel.fragment_size.min(mtu);
            // Again and again: the data path forgets ways that it does not use.
            cx.data(DataCommand::PathMtu { path, mtu });
        }
    }
}

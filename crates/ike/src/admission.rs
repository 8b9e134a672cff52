//! Strangers: what they can cost is bounded, and nothing they send leads to more than came in
//! (RFC 7296 §2.6, §2.21.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cygnet_wire::header::{Flags, HEADER_LEN, IkeHeader, Spi, Version};
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::TransformId;

use crate::context::Context;
use crate::cookie::Cookies;
use crate::endpoint::Endpoint;
use crate::event::{Event, EventKind, Reason};
use crate::half_open::HalfOpen;
use crate::io::{IkeSaId, Path};
use crate::nat::Nat;
use crate::policy::Connection;
use crate::proposal;
use crate::refused::{Refused, RefusedCall};
use crate::sa::contents::Contents;
use crate::sa::{IkeSa, State};
use crate::time::Instant;

/// Answers to strangers, and events about them, in one [`INTERVAL`].
const ANSWERS: u32 = 50;
const EVENTS: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(1);
/// Failed calls that cease to count in each second.
const FORGOTTEN: u64 = 4;

/// Half-open IKE SAs and how many answers strangers still get.
pub(crate) struct Admission {
    cookies: Cookies,
    half_open: HalfOpen,
    /// Calls by where they come from and their SPI, to recognise repeats.
    calls: BTreeMap<(IpAddr, Spi), IkeSaId>,
    call_of: BTreeMap<IkeSaId, (IpAddr, Spi)>,
    since: Instant,
    answers: u32,
    events: u32,
    /// Calls that came to nothing after they had cost a key exchange; forgotten slowly.
    failed: usize,
    asking: bool,
    reported: bool,
    /// Who offered only what is not accepted.
    refused: Refused,
}

impl Admission {
    pub(crate) fn new(cx: &mut Context) -> Self {
        let now = cx.boot();
        Self {
            cookies: Cookies::new(now, cx.random.as_mut()),
            half_open: HalfOpen::default(),
            calls: BTreeMap::new(),
            call_of: BTreeMap::new(),
            since: now,
            answers: 0,
            events: 0,
            failed: 0,
            asking: false,
            reported: false,
            refused: Refused::default(),
        }
    }

    pub(crate) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    pub(crate) fn refused(&self) -> Vec<RefusedCall> {
        self.refused.list()
    }

    pub(crate) fn note_refused(&mut self, call: RefusedCall) {
        self.refused.note(call);
    }

    /// How many calls have cost work without an IKE SA to show for it.
    fn pressure(&self) -> usize {
        self.half_open.len().saturating_add(self.failed)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.since(self.since);
        if passed >= INTERVAL {
            let forgotten = passed.as_secs().saturating_mul(FORGOTTEN);
            let forgotten = usize::try_from(forgotten).unwrap_or(usize::MAX);
            self.failed = self.failed.saturating_sub(forgotten);
            self.since = now;
            self.answers = 0;
            self.events = 0;
        }
    }

    fn may_answer(&mut self, cx: &Context) -> bool {
        self.refill(cx.boot());
        self.answers += 1;
        self.answers <= ANSWERS
    }

    /// An event about a stranger: not more of them than a person can read.
    fn event(&mut self, cx: &mut Context, path: Path, reason: Reason) {
        self.report_stranger(
            cx,
            Event {
                connection: None,
                ike_sa: None,
                path: Some(path),
                peer: None,
                kind: EventKind::Refused { reason },
            },
        );
    }

    pub(crate) fn report_stranger(&mut self, cx: &mut Context, event: Event) {
        self.refill(cx.boot());
        self.events += 1;
        if self.events <= EVENTS {
            cx.event(event);
        }
    }

    /// Notes whether an IKE SA is still half open.
    pub(crate) fn settle(&mut self, id: IkeSaId, sa: &IkeSa) {
        match sa.state {
            State::AuthResponder(_) => {}
            // One that failed to authenticate lingers for its repeats.
            State::Closed { .. } => self.half_open.note_failed(id),
            _ => self.half_open.remove(id),
        }
    }

    /// One that failed and is to be forgotten at once.
    pub(crate) fn surplus(&self) -> Option<IkeSaId> {
        self.half_open.surplus()
    }

    pub(crate) fn forget(&mut self, id: IkeSaId) {
        self.half_open.remove(id);
        if let Some(call) = self.call_of.remove(&id) {
            self.calls.remove(&call);
        }
    }

    fn admit(&mut self, id: IkeSaId, path: Path, spi: Spi, proven: bool) {
        let call = (path.remote.ip(), spi);
        self.half_open.insert(id, call.0, proven);
        self.calls.insert(call, id);
        self.call_of.insert(id, call);
    }

    /// Tells when cookies begin and end.
    pub(crate) fn report(&mut self, cx: &mut Context) {
        let threshold = cx.policy.limits.cookie_threshold;
        let pressure = self.pressure();
        if pressure >= threshold {
            self.asking = true;
        } else if pressure <= threshold / 2 {
            self.asking = false;
        }
        if self.asking != self.reported {
            self.reported = self.asking;
            cx.event_of_path(None, EventKind::Cookies { on: self.asking });
        }
    }

    /// RFC 7296 §2.5: a higher major version is answered with ours.
    pub(crate) fn refuse_version(&mut self, cx: &mut Context, path: Path, datagram: &[u8]) {
        cx.counters.stray += 1;
        let Ok((header, _, _)) = IkeHeader::parse(datagram) else {
            return;
        };
        if header.version.major() > Version::V2_0.major() && !header.flags.is_response() {
            let notify = NotifyPayload::with_data(
                NotifyType::INVALID_MAJOR_VERSION,
                vec![Version::V2_0.major()],
            );
            self.answer(cx, path, &header, datagram.len(), notify.into());
        }
    }

    /// An answer outside of any IKE SA: never longer than what it answers, and not too many.
    fn answer(
        &mut self,
        cx: &mut Context,
        path: Path,
        to: &IkeHeader,
        len: usize,
        payload: Payload<'static>,
    ) {
        if self.may_answer(cx) {
            Self::answer_call(cx, path, to, len, payload);
        }
    }

    /// The same for a well-formed call: however many there are, since the next caller cannot go on
    /// without it.
    fn answer_call(
        cx: &mut Context,
        path: Path,
        to: &IkeHeader,
        len: usize,
        payload: Payload<'static>,
    ) {
        let header = IkeHeader {
            version: Version::V2_0,
            flags: Flags::new(!to.flags.is_initiator(), true),
            ..*to
        };
        let mut message = MessageBuilder::new(header);
        message.push(payload);
        if let Ok(datagram) = message.finish()
            && datagram.len() <= len.max(HEADER_LEN)
        {
            cx.transmit(path, datagram);
        }
    }
}

impl Endpoint {
    /// A message for an IKE SA that nobody here knows.
    pub(crate) fn handle_stray(&mut self, path: Path, message: &Message<'_>) {
        self.cx.counters.stray += 1;
        let header = &message.header;
        if header.flags.is_response() || !matches!(message.encrypted(), Ok(Some(_))) {
            // RFC 7296 §1.5, §2.21.4: a hint, no more, and never answered. It may be INVALID_IKE_SPI
            // or INVALID_SPI of a peer that restarted.
            let complains = message
                .parse_payloads()
                .is_ok_and(|p| Contents::of(p).error().is_some());
            if complains {
                self.hint(path);
            }
            return;
        }
        let payload = NotifyPayload::new(NotifyType::INVALID_IKE_SPI).into();
        let len = message.bytes.len();
        self.admission
            .answer(&mut self.cx, path, header, len, payload);
    }

    /// Somebody calls.
    pub(crate) fn handle_call(&mut self, path: Path, message: &Message<'_>) {
        let spi_i = message.header.initiator_spi;
        if let Some(id) = self
            .admission
            .calls
            .get(&(path.remote.ip(), spi_i))
            .copied()
        {
            // A repeated call gets the same answer; another one under the same SPI none.
            if let Some(sa) = self.sas.get_mut(&id)
                && let Some(stored) = sa.channel.window.repeated(message.bytes)
            {
                let stored = stored.to_vec();
                sa.channel.repeat(&mut self.cx, path, &stored);
            } else {
                self.cx.counters.repeated += 1;
            }
            return;
        }
        // Before anything is allocated: is there room, and does the caller receive at all?
        let limits = self.cx.policy.limits;
        let from = path.remote.ip();
        if self.admission.half_open.is_full(from, &limits) || self.sas.len() >= limits.ike_sas {
            self.cx.counters.dropped += 1;
            return;
        }
        self.admission.refill(self.cx.boot());
        let proven = self.admission.pressure() >= limits.cookie_threshold
            || self.admission.half_open.asks(from, &limits);
        if proven && !self.check_cookie(path, message) {
            return;
        }
        let contents = match message.parse_payloads() {
            Ok(payloads) => Contents::of(payloads),
            Err(error) => {
                self.cx.counters.stray += 1;
                let payload = crate::sa::negotiate::syntax_notify(&error);
                let len = message.bytes.len();
                let header = &message.header;
                self.admission
                    .answer(&mut self.cx, path, header, len, payload);
                return;
            }
        };
        self.answer_call(path, message, &contents, proven);
    }

    fn check_cookie(&mut self, path: Path, message: &Message<'_>) -> bool {
        use cygnet_wire::payload::PayloadType;
        let Ok(Some(nonce)) = message.find(PayloadType::NONCE) else {
            self.cx.counters.stray += 1;
            return false;
        };
        let now = self.cx.boot();
        let spi = message.header.initiator_spi;
        let source = path.remote.ip();
        let cookies = &mut self.admission.cookies;
        let random = self.cx.random.as_mut();
        // RFC 7296 §2.6: the cookie is the first payload.
        if let Some(Ok(first)) = message.payloads().next()
            && let Ok(Payload::Notify(notify)) = first.parse()
            && notify.ty == NotifyType::COOKIE
            && cookies.verify(now, random, &notify.data, nonce.body, source, spi)
        {
            return true;
        }
        let cookie = cookies.make(now, random, nonce.body, source, spi);
        let payload = NotifyPayload::with_data(NotifyType::COOKIE, cookie.to_vec());
        self.cx.counters.cookies += 1;
        let header = message.header;
        let len = message.bytes.len();
        // Every caller may have one: it costs us nothing but the answer.
        let header = IkeHeader {
            flags: Flags::new(false, true),
            ..header
        };
        let mut answer = MessageBuilder::new(header);
        answer.push(payload);
        if let Ok(datagram) = answer.finish()
            && datagram.len() <= len
        {
            self.cx.transmit(path, datagram);
        }
        false
    }

    /// `proven`: the caller has returned a cookie.
    fn answer_call(
        &mut self,
        path: Path,
        message: &Message<'_>,
        contents: &Contents,
        proven: bool,
    ) {
        let header = &message.header;
        let len = message.bytes.len();
        let candidates: Vec<Arc<Connection>> = (self.cx.policy.connections.iter())
            .filter(|c| c.local_address.is_none_or(|local| local == path.local.ip()))
            .filter(|c| c.remote.may_call_from(path.remote))
            .cloned()
            .collect();
        let (Some(offer), Some(ke)) = (&contents.sa, &contents.ke) else {
            let payload = NotifyPayload::new(NotifyType::INVALID_SYNTAX).into();
            self.cx.counters.stray += 1;
            return self
                .admission
                .answer(&mut self.cx, path, header, len, payload);
        };
        if candidates.is_empty() {
            self.cx.counters.refused += 1;
            let reason = Reason::NoConnection(format!(
                "no connection is meant for a call from {} to {}",
                path.remote.ip(),
                path.local.ip()
            ));
            self.admission.event(&mut self.cx, path, reason);
            let payload = NotifyPayload::new(NotifyType::NO_PROPOSAL_CHOSEN).into();
            return Admission::answer_call(&mut self.cx, path, header, len, payload);
        }
        if self.cx.policy.esp_in_udp_only {
            let claim = candidates.iter().any(|c| c.claim_nat);
            let spi_i = header.initiator_spi;
            let nat = Nat::observe(&contents.notifies, spi_i, Spi::ZERO, &path, claim);
            if let Some(why) = nat.why_bare() {
                self.cx.counters.refused += 1;
                let reason = Reason::NoEncapsulation(why.to_owned());
                self.admission.event(&mut self.cx, path, reason);
                // RFC 7296 §3.10.1: also for what a responder cannot do for other reasons.
                let payload = NotifyPayload::new(NotifyType::NO_PROPOSAL_CHOSEN).into();
                return Admission::answer_call(&mut self.cx, path, header, len, payload);
            }
        }
        // Nobody knows yet which of them is meant: any proposal of any of them will do.
        let proposals: Vec<_> = candidates
            .iter()
            .map(|c| c.ike_proposals.as_slice())
            .collect();
        let choice = match proposal::select_ike(&proposals, offer, Some(ke.method)) {
            Ok(choice) => choice,
            Err(why) => {
                self.cx.counters.refused += 1;
                let (now, from) = (self.cx.boot(), path.remote.ip());
                let client = contents.client.unwrap_or_default();
                let offered = proposal::summary(offer);
                let accepted = candidates.iter().flat_map(|c| &c.ike_proposals);
                let call = RefusedCall::new(now, from, client, offered, accepted);
                let reason = Reason::NoProposal(format!("{call}; {why}"));
                self.admission.refused.note(call);
                self.admission.event(&mut self.cx, path, reason);
                let payload = NotifyPayload::new(NotifyType::NO_PROPOSAL_CHOSEN).into();
                return Admission::answer_call(&mut self.cx, path, header, len, payload);
            }
        };
        if let Some(group) = choice.wrong_group(ke.method) {
            let payload = NotifyPayload::invalid_ke(TransformId(group.to_wire())).into();
            return Admission::answer_call(&mut self.cx, path, header, len, payload);
        }
        let call = (header.initiator_spi, message.bytes);
        match IkeSa::answer(&mut self.cx, candidates, &choice, path, call, contents) {
            Ok(sa) => {
                self.make_room(path.remote.ip());
                (self.admission).admit(sa.id(), path, header.initiator_spi, proven);
                self.insert(sa);
            }
            Err(reason) => {
                self.cx.counters.refused += 1;
                self.admission.failed = self.admission.failed.saturating_add(1);
                self.admission.event(&mut self.cx, path, reason);
            }
        }
    }

    /// Another call from there has cost its sender what one costs: one that has not may have to go.
    fn make_room(&mut self, from: IpAddr) {
        let limits = self.cx.policy.limits;
        let Some(id) = self.admission.half_open.gives_way(from, &limits) else {
            return;
        };
        self.cx.counters.dropped += 1;
        if let Some(sa) = self.sas.get_mut(&id) {
            let reason = Reason::Local("too many callers: it gave way to another".to_owned());
            let path = sa.channel.path;
            sa.drop_silently(&mut self.cx, reason.clone());
            self.admission.event(&mut self.cx, path, reason);
        }
        self.forget(id);
    }
}

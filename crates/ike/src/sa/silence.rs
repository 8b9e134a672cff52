//! A peer that says nothing while data goes to it is asked at once whether it is there, and called anew
//! beside this IKE SA when it does not answer: one that has restarted has forgotten us, and nothing it can
//! say without keys is to be believed (RFC 7296 §2.4, §2.21.4).
//!
//! Data that nobody answers inside is no sign of that: the answer to the question is a sign of life, and the next
//! question comes later each time. Whoever was called cannot call, so it waits for the question after `liveness`.

use std::time::Duration;

use crate::context::{Context, Upcall};
use crate::sa::channel::Channel;
use crate::sa::established::Established;
use crate::sa::exchange::Exchange;
use crate::time::Instant;

/// How long the peer is silent when it is asked: with the time for an answer and the second by which the data path may
/// be late, five seconds are not over when a peer that has restarted is called.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long an answer to the first data after its last sign of life may take. The data path reports both
/// once a second.
const ANSWER: Duration = Duration::from_millis(1500);
/// How far apart two reports of data are at most that goes all the time.
const REPORTS: Duration = Duration::from_millis(1200);
/// Between two questions; after each twice as long, until data comes again. About what it takes to notice a silence, as
/// the next one may begin when the first has just ended.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest time between two.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a question may be unanswered, if it was sent three times by then.
const UNANSWERED: Duration = Duration::from_secs(2);

/// What is known of a silence under traffic.
pub(crate) struct Silence {
    /// The first data sent since the peer's last sign of life, if that is earlier.
    unanswered: Instant,
    /// When the peer was last asked.
    asked: Option<Instant>,
    /// How long after that it is asked again.
    pause: Duration,
    /// The next question is the first since data came.
    first: bool,
    /// It is being called anew.
    calls: bool,
}

impl Silence {
    /// The peer has just given a sign of life.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            unanswered: now,
            asked: None,
            pause: PAUSE,
            first: true,
            calls: false,
        }
    }
}

impl Established {
    /// Data went to the peer.
    pub(crate) fn data_sent(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.sealed, now);
        if self.silence.unanswered <= self.heard {
            // What goes all the time went since the last report, too.
            let flows = now > self.heard && now.since(before) <= REPORTS;
            self.silence.unanswered = match flows {
                true => before.max(self.heard + Duration::from_millis(1)),
                false => now,
            };
        }
    }

    /// Data came from the peer.
    pub(crate) fn data_heard(&mut self, channel: &Channel, cx: &mut Context) {
        self.heard = cx.boot();
        self.silence.pause = PAUSE;
        self.silence.first = true;
        self.end_silence(channel, cx);
    }

    /// A sign of life, by IKE or ESP: if the peer is being called for its silence, that is over.
    pub(crate) fn end_silence(&mut self, channel: &Channel, cx: &mut Context) {
        if std::mem::take(&mut self.silence.calls) {
            cx.upcall(Upcall::Answers(channel.id));
        }
    }

    /// When the peer counts as silent, as long as nothing is heard from it.
    fn silent_at(&self) -> Option<Instant> {
        let unanswered = self.silence.unanswered;
        let watched = self.peering.dialed
            && self.peering.superseded_at.is_none()
            && !self.peering.connection.liveness.is_zero();
        let silent = watched && unanswered > self.heard && self.is_live();
        silent.then(|| (self.heard + SILENCE).max(unanswered + ANSWER))
    }

    /// When it is asked. A request in flight does that.
    fn ask_at(&self, channel: &Channel) -> Option<Instant> {
        let silent = self.silent_at()?;
        let idle = self.current.is_none() && !self.has_inform();
        let silence = &self.silence;
        let again = silence.asked.map_or(silent, |at| at + silence.pause);
        idle.then(|| silent.max(again).max(self.known_at(channel)))
    }

    /// When it is called anew, unless it is going to be for another doubt.
    fn call_at(&self, channel: &Channel) -> Option<Instant> {
        let silent = self.silent_at()?;
        let may = !self.silence.calls && self.doubt_ends_at().is_none();
        let asked = channel.window.in_flight().filter(|_| may)?.first_sent();
        let retransmit = channel.retransmit;
        let first = retransmit.first.min(retransmit.most);
        // The third transmission has as long as the first.
        let sent_thrice = 2 * first + retransmit.longer(first);
        Some(silent.max(asked + sent_thrice.max(UNANSWERED)))
    }

    pub(crate) fn silence_at(&self, channel: &Channel) -> Option<Instant> {
        let both = [self.ask_at(channel), self.call_at(channel)];
        both.into_iter().flatten().min()
    }

    /// Asks, or has it called anew, when it is time to.
    pub(crate) fn mind_silence(&mut self, channel: &Channel, cx: &mut Context) {
        let now = cx.boot();
        if self.call_at(channel).is_some_and(|at| at <= now) {
            self.silence.calls = true;
            cx.upcall(Upcall::Silent(channel.id));
        }
        if self.ask_at(channel).is_some_and(|at| at <= now) {
            let silence = &mut self.silence;
            if !std::mem::take(&mut silence.first) {
                silence.pause = (2 * silence.pause).min(LONGEST_PAUSE);
            }
            silence.asked = Some(now);
            // What fills a packet asks as well.
            if self.size_probe_at(channel).is_none_or(|at| at > now) {
                self.push_probe(cx);
            }
        }
    }

    /// Whether the request in flight only asks why the peer is silent.
    pub(crate) fn asks_of_silence(&self, channel: &Channel) -> bool {
        let request = channel.window.in_flight();
        let since = request.map(|request| request.first_sent());
        matches!(self.current, Some(Exchange::Inform)) && since == self.silence.asked
    }
}

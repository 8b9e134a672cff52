//! Message ids, the request in flight and the response to be repeated, of one IKE SA
//! (RFC 7296 §2.1, §2.2, §2.3). Both windows have the size 1.

use std::time::Duration;

use cygnet_crypto::digest::sha256;
use cygnet_wire::header::MessageId;

use crate::policy::Retransmit;
use crate::time::Instant;

/// The two windows of an IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    next: Option<MessageId>,
    in_flight: Option<InFlight>,
    expected: Option<MessageId>,
    pending: Option<Pending>,
    answered: Option<Answered>,
}

/// A request of ours that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Its message id.
    pub id: MessageId,
    /// Its datagrams: one, or its fragments in order.
    pub datagrams: Vec<Vec<u8>>,
    retransmit: Retransmit,
    first_sent: Instant,
    sent: u32,
    wait: Duration,
    due: Instant,
}

/// A request of the peer that is being worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    id: MessageId,
    digest: [u8; 32],
}

/// The last request of the peer that has an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answered {
    id: MessageId,
    digest: [u8; 32],
    datagrams: Vec<Vec<u8>>,
}

/// What the message id of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The next one: open it, work on it.
    Expected,
    /// Being worked on: the answer will come.
    Pending,
    /// Answered already: once authenticated, it gets [`Window::answer_to`] again (a fragment only
    /// if its number is 1, RFC 7383 §2.6.1).
    Answered,
    /// Long answered, or from the future: ignored.
    Outside,
}

/// What became of the request in flight.
#[derive(Debug, PartialEq, Eq)]
pub enum Timeout<'w> {
    /// Nothing is due.
    NotDue,
    /// Send these again, bit for bit.
    Retransmit {
        /// One, or the fragments in order.
        datagrams: &'w [Vec<u8>],
        /// Times sent, this one not counted.
        sent: u32,
    },
    /// The peer counts as gone.
    GivenUp {
        /// Times sent.
        sent: u32,
        /// Since the first.
        waited: Duration,
    },
}

impl Default for Window {
    fn default() -> Self {
        Self::new(MessageId::ZERO, MessageId::ZERO)
    }
}

impl Window {
    /// `next` is the id of our next request, `expected` that of the peer's. Both are zero for a new
    /// IKE SA, a rekeyed one too (RFC 7296 §2.2).
    pub fn new(next: MessageId, expected: MessageId) -> Self {
        Self {
            next: Some(next),
            in_flight: None,
            expected: Some(expected),
            pending: None,
            answered: None,
        }
    }

    /// The id for a new request: `None` while one is in flight, or when the ids are used up and
    /// only a new IKE SA helps.
    pub fn request_id(&self) -> Option<MessageId> {
        match self.in_flight {
            None => self.next,
            Some(_) => None,
        }
    }

    /// Whether the ids of either side are nearly used up, so that the IKE SA has to be rekeyed.
    pub fn is_exhausted(&self) -> bool {
        const RESERVE: u32 = 1 << 16;
        [self.next, self.expected]
            .into_iter()
            .any(|id| id.is_none_or(|id| id.0 > u32::MAX - RESERVE))
    }

    /// The request of id [`Window::request_id`] goes out for the first time.
    pub fn send(&mut self, now: Instant, datagrams: Vec<Vec<u8>>, retransmit: Retransmit) {
        let Some(id) = self.request_id() else {
            return;
        };
        let wait = retransmit.first.min(retransmit.most);
        self.next = id.next();
        self.in_flight = Some(InFlight {
            id,
            datagrams,
            retransmit,
            first_sent: now,
            sent: 1,
            wait,
            due: now + wait,
        });
    }

    /// The same for one that is repeated after `wait` for the first time.
    pub fn send_waiting(
        &mut self,
        now: Instant,
        datagrams: Vec<Vec<u8>>,
        retransmit: Retransmit,
        wait: Duration,
    ) {
        self.send(now, datagrams, retransmit);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.due = now + wait.min(retransmit.most);
        }
    }

    /// The request in flight.
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }

    /// Puts other datagrams in the place of those in flight, under the same id and from the start
    /// of the schedule: IKE_SA_INIT with a cookie or another key exchange, which are new messages
    /// with the id zero again (RFC 7296 §2.2), or fragments for a smaller path.
    pub fn replace(&mut self, now: Instant, datagrams: Vec<Vec<u8>>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.datagrams = datagrams;
            in_flight.begin(now);
        }
    }

    /// Whether the peer counts as gone by the request in flight now.
    pub fn is_over(&self, now: Instant) -> bool {
        let in_flight = self.in_flight.as_ref();
        in_flight.is_some_and(|in_flight| in_flight.due <= now && in_flight.is_last())
    }

    /// Other datagrams for the request in flight, which are repeated when it was to be.
    pub fn refit(&mut self, datagrams: Vec<Vec<u8>>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.datagrams = datagrams;
        }
    }

    /// The request in flight begins its schedule anew: it goes where it did not go before.
    pub fn restart(&mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.first_sent = now;
            in_flight.begin(now);
        }
    }

    /// The peer does not count as gone yet: the request in flight is repeated once more.
    pub fn prolong(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.sent = in_flight.sent.min(in_flight.retransmit.tries);
        }
    }

    /// An authenticated response: whether it answers the request in flight, which it then ends.
    pub fn handle_response(&mut self, id: MessageId) -> bool {
        self.in_flight
            .take_if(|in_flight| in_flight.id == id)
            .is_some()
    }

    /// Whether a response of this id is worth being decrypted.
    pub fn awaits_response(&self, id: MessageId) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.id == id)
    }

    /// When the request in flight is due again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|in_flight| in_flight.due)
    }

    /// The request in flight is sent again, or given up and forgotten.
    pub fn handle_timeout(&mut self, now: Instant) -> Timeout<'_> {
        if self.is_over(now)
            && let Some(given_up) = self.in_flight.take()
        {
            return Timeout::GivenUp {
                sent: given_up.sent,
                waited: now.since(given_up.first_sent),
            };
        }
        match &mut self.in_flight {
            Some(in_flight) if in_flight.due <= now => {
                let sent = in_flight.sent;
                in_flight.repeat(now);
                Timeout::Retransmit {
                    datagrams: &in_flight.datagrams,
                    sent,
                }
            }
            _ => Timeout::NotDue,
        }
    }

    /// What the id of a request of the peer says.
    pub fn incoming(&self, id: MessageId) -> Incoming {
        if self.pending.as_ref().is_some_and(|p| p.id == id) {
            Incoming::Pending
        } else if self.expected == Some(id) && self.pending.is_none() {
            Incoming::Expected
        } else if self.answered.as_ref().is_some_and(|a| a.id == id) {
            Incoming::Answered
        } else {
            Incoming::Outside
        }
    }

    /// Whether a request of this id comes before those it has to follow: the peer believes in a larger
    /// window than ours.
    pub fn is_ahead(&self, id: MessageId) -> bool {
        self.expected.is_some_and(|expected| id.0 > expected.0)
    }

    /// The stored response, if `datagram` is bit for bit the request (its first fragment) that it
    /// answers. This needs no key: who repeats a datagram gets what went to the peer anyway.
    pub fn repeated(&self, datagram: &[u8]) -> Option<&[Vec<u8>]> {
        let answered = self.answered.as_ref()?;
        (answered.digest == sha256(&[datagram])).then_some(&answered.datagrams)
    }

    /// The stored response to the request `id`.
    pub fn answer_to(&self, id: MessageId) -> Option<&[Vec<u8>]> {
        let answered = self.answered.as_ref()?;
        (answered.id == id).then_some(&answered.datagrams)
    }

    /// An authenticated request of the expected id is taken on. `datagram` is the one it came in,
    /// or that of its first fragment. The response to the request before is forgotten: the peer has
    /// it, or it would not go on (RFC 7296 §2.3).
    pub fn begin(&mut self, id: MessageId, datagram: &[u8]) {
        if self.incoming(id) != Incoming::Expected {
            return;
        }
        self.pending = Some(Pending {
            id,
            digest: sha256(&[datagram]),
        });
        self.expected = id.next();
        self.answered = None;
    }

    /// The id of the request being worked on.
    pub fn pending(&self) -> Option<MessageId> {
        self.pending.as_ref().map(|pending| pending.id)
    }

    /// The response to the request being worked on, kept for its repeats.
    pub fn answer(&mut self, datagrams: Vec<Vec<u8>>) {
        if let Some(pending) = self.pending.take() {
            self.answered = Some(Answered {
                id: pending.id,
                digest: pending.digest,
                datagrams,
            });
        }
    }
}

impl InFlight {
    /// Times sent so far.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// When it was sent first.
    pub fn first_sent(&self) -> Instant {
        self.first_sent
    }

    /// It is sent, as if for the first time.
    fn begin(&mut self, now: Instant) {
        self.sent = 1;
        self.wait = self.retransmit.first.min(self.retransmit.most);
        self.due = now + self.wait;
    }

    fn is_last(&self) -> bool {
        self.sent > self.retransmit.tries
    }

    fn repeat(&mut self, now: Instant) {
        self.sent += 1;
        self.wait = self.retransmit.longer(self.wait);
        self.due = now + self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRANSMIT: Retransmit = Retransmit {
        first: Duration::from_millis(500),
        factor: 2.0,
        most: Duration::from_secs(3),
        tries: 4,
    };

    fn at(millis: u64) -> Instant {
        Instant::from_boot(Duration::from_millis(millis))
    }

    fn datagrams(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|d| d.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_request_is_repeated_ever_more_slowly_and_then_given_up() {
        let mut window = Window::default();
        window.send(at(1000), datagrams("request"), RETRANSMIT);
        let mut sent_at = Vec::new();
        let given_up = loop {
            let due = window.poll_timeout().unwrap();
            assert_eq!(
                window.handle_timeout(due - Duration::from_millis(1)),
                Timeout::NotDue
            );
            match window.handle_timeout(due) {
                Timeout::Retransmit {
                    datagrams: again,
                    sent,
                } => {
                    assert_eq!(again, datagrams("request"));
                    assert_eq!(sent as usize, sent_at.len() + 1);
                    sent_at.push(due.since(at(1000)).as_millis());
                }
                Timeout::GivenUp { sent, waited } => break (sent, waited),
                Timeout::NotDue => panic!("due at {due:?}"),
            }
        };
        // Waits of 0.5, 1, 2, 3 and 3 s.
        assert_eq!(sent_at, [500, 1500, 3500, 6500]);
        assert_eq!(given_up, (5, Duration::from_millis(9500)));
        assert_eq!(given_up.1, RETRANSMIT.patience());
        assert_eq!(window.poll_timeout(), None);
        assert_eq!(window.handle_timeout(at(99_999)), Timeout::NotDue);
    }

    #[test]
    fn one_that_may_be_late_is_waited_for() {
        let mut window = Window::default();
        let wait = Duration::from_millis(2500);
        window.send_waiting(at(0), datagrams("long"), RETRANSMIT, wait);
        assert_eq!(window.poll_timeout(), Some(at(2500)));
        // What takes its place has all the time that others have.
        window.restart(at(2500));
        window.refit(datagrams("short"));
        let mut due = Vec::new();
        while let Some(next) = window.poll_timeout() {
            due.push(next.since(at(2500)).as_millis());
            let is_over = window.is_over(next);
            let timeout = window.handle_timeout(next);
            assert_eq!(matches!(timeout, Timeout::GivenUp { .. }), is_over);
        }
        assert_eq!(due, [500, 1500, 3500, 6500, 9500]);
    }

    #[test]
    fn a_senseless_factor_repeats_at_an_even_pace() {
        for factor in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
            let mut window = Window::default();
            let retransmit = Retransmit {
                factor,
                ..RETRANSMIT
            };
            window.send(at(0), datagrams("request"), retransmit);
            window.handle_timeout(at(500));
            assert_eq!(window.poll_timeout(), Some(at(1000)), "factor {factor}");
        }
    }

    /// RFC 7296 §2.3: the window is 1, so the next request waits for the response.
    #[test]
    fn one_request_is_in_flight_at_a_time() {
        let mut window = Window::default();
        assert_eq!(window.request_id(), Some(MessageId(0)));
        window.send(at(0), datagrams("one"), RETRANSMIT);
        assert_eq!(window.request_id(), None);
        window.send(at(1), datagrams("two"), RETRANSMIT);
        assert_eq!(window.in_flight().unwrap().datagrams, datagrams("one"));
        assert!(window.awaits_response(MessageId(0)));
        assert!(!window.handle_response(MessageId(1)));
        assert!(window.handle_response(MessageId(0)));
        assert!(!window.handle_response(MessageId(0)), "answered only once");
        assert_eq!(window.request_id(), Some(MessageId(1)));
        assert_eq!(window.poll_timeout(), None);
    }

    /// RFC 7296 §2.6: IKE_SA_INIT with the cookie has the message id zero again.
    #[test]
    fn a_request_can_be_replaced_under_its_id() {
        let mut window = Window::default();
        window.send(at(0), datagrams("init"), RETRANSMIT);
        window.handle_timeout(at(500));
        assert_eq!(window.in_flight().unwrap().sent(), 2);
        window.replace(at(600), datagrams("init-with-cookie"));
        let in_flight = window.in_flight().unwrap();
        assert_eq!((in_flight.id, in_flight.sent()), (MessageId(0), 1));
        assert_eq!(window.poll_timeout(), Some(at(1100)));
        assert!(window.handle_response(MessageId(0)));
        assert_eq!(window.request_id(), Some(MessageId(1)));
    }

    #[test]
    fn a_request_that_goes_another_way_has_all_its_time_again() {
        let mut window = Window::default();
        window.send(at(0), datagrams("request"), RETRANSMIT);
        window.handle_timeout(at(500));
        window.handle_timeout(at(1500));
        window.restart(at(2000));
        let in_flight = window.in_flight().unwrap();
        assert_eq!((in_flight.sent(), in_flight.first_sent()), (1, at(2000)));
        assert_eq!(window.poll_timeout(), Some(at(2500)));
        assert_eq!(in_flight.datagrams, datagrams("request"));
    }

    #[test]
    fn a_request_of_the_peer_is_worked_on_once_and_answered_as_often_as_repeated() {
        let mut window = Window::default();
        assert_eq!(window.incoming(MessageId(0)), Incoming::Expected);
        assert_eq!(window.incoming(MessageId(1)), Incoming::Outside);
        window.begin(MessageId(0), b"request 0");
        assert_eq!(window.pending(), Some(MessageId(0)));
        assert_eq!(window.incoming(MessageId(0)), Incoming::Pending);
        assert_eq!(window.incoming(MessageId(1)), Incoming::Outside);
        assert_eq!(window.repeated(b"request 0"), None, "no answer yet");

        window.answer(datagrams("answer-0"));
        assert_eq!(window.incoming(MessageId(0)), Incoming::Answered);
        assert_eq!(window.incoming(MessageId(1)), Incoming::Expected);
        assert_eq!(
            window.repeated(b"request 0"),
            Some(&datagrams("answer-0")[..])
        );
        assert_eq!(window.repeated(b"request 0 altered"), None);
        assert_eq!(
            window.answer_to(MessageId(0)),
            Some(&datagrams("answer-0")[..])
        );
        assert_eq!(window.answer_to(MessageId(1)), None);

        window.begin(MessageId(1), b"request 1");
        assert_eq!(window.incoming(MessageId(0)), Incoming::Outside);
        assert_eq!(window.repeated(b"request 0"), None);
    }

    #[test]
    fn only_the_expected_request_is_taken_on() {
        let mut window = Window::new(MessageId(5), MessageId(7));
        window.begin(MessageId(8), b"from the future");
        window.begin(MessageId(6), b"from the past");
        assert_eq!(window.pending(), None);
        window.begin(MessageId(7), b"expected");
        window.begin(MessageId(8), b"too early");
        assert_eq!(window.pending(), Some(MessageId(7)));
        assert_eq!(window.request_id(), Some(MessageId(5)));
    }

    #[test]
    fn a_request_beyond_the_window_is_ahead_and_an_old_one_is_not() {
        let window = Window::new(MessageId(0), MessageId(7));
        assert!(window.is_ahead(MessageId(8)) && window.is_ahead(MessageId(u32::MAX)));
        assert!(!window.is_ahead(MessageId(7)) && !window.is_ahead(MessageId(6)));
    }

    /// RFC 7383 §2.6.1: a repeated fragmented request is answered on its first fragment, which is
    /// the datagram the request is known by.
    #[test]
    fn a_fragmented_request_is_known_by_its_first_fragment() {
        let mut window = Window::default();
        window.begin(MessageId(0), b"fragment 1");
        window.answer(datagrams("answer-1 answer-2"));
        assert_eq!(
            window.repeated(b"fragment 1").map(<[_]>::len),
            Some(2),
            "all fragments of the answer"
        );
        assert_eq!(window.repeated(b"fragment 2"), None);
    }

    /// RFC 7296 §2.2: message ids never wrap.
    #[test]
    fn ids_end_and_never_wrap() {
        let mut window = Window::new(MessageId(u32::MAX), MessageId(u32::MAX));
        assert!(window.is_exhausted());
        assert!(!Window::default().is_exhausted());
        window.send(at(0), datagrams("last"), RETRANSMIT);
        assert!(window.handle_response(MessageId(u32::MAX)));
        assert_eq!(window.request_id(), None);
        window.begin(MessageId(u32::MAX), b"last");
        window.answer(datagrams("answer"));
        assert_eq!(window.incoming(MessageId(0)), Incoming::Outside);
        assert_eq!(window.incoming(MessageId(u32::MAX)), Incoming::Answered);
    }
}

//! Questions as they come, and answers as they go: bytes to messages and back.
//!
//! What is no plain question is turned away by its header, before anything is decoded: the counts in it say how much
//! a decoder would make room for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::svcb::SvcParamValue;
use hickory_resolver::proto::rr::rdata::{A, AAAA, HTTPS};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Octets of an answer by UDP at most, whatever the client takes: more would be fragments (RFC 9715).
pub(super) const UDP_MAX: u16 = 1232;
/// What every client takes (RFC 1035 §4.2.1).
const UDP_LEAST: u16 = 512;
/// Octets of a question at most: a name, and options of EDNS.
pub(super) const QUESTION_MAX: usize = 4096;
const HEADER: usize = 12;
/// How long answers that are made here hold, in seconds: a list may change.
const OWN_TTL: u32 = 10;

/// What came.
#[derive(Debug)]
pub(super) enum Asked {
    /// A question; the message holds exactly one.
    Question(Box<Question>),
    /// Something else, with what is said about it.
    Refused(Message),
    /// Nothing that is answered at all: an answer, or no message.
    Nothing,
}

/// A question of a client.
#[derive(Debug)]
pub(super) struct Question {
    message: Message,
    /// Its one question.
    pub(super) query: Query,
}

impl Asked {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Self::Nothing;
        };
        let [i0, i1, flags, _, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
        let id = u16::from_be_bytes([i0, i1]);
        // Answering answers is how two hosts talk for ever.
        if flags & 0x80 != 0 {
            return Self::Nothing;
        }
        let refused = |code| Self::Refused(Message::error_msg(id, OpCode::Query, code));
        if (flags >> 3) & 0x0f != 0 {
            return refused(ResponseCode::NotImp);
        }
        let count = |high, low| u16::from_be_bytes([high, low]);
        let plain = count(q0, q1) == 1 && count(a0, a1) == 0 && count(n0, n1) == 0;
        // OPT, and perhaps TSIG.
        if !plain || count(r0, r1) > 2 {
            return refused(ResponseCode::FormErr);
        }
        let Ok(message) = Message::from_vec(bytes) else {
            return refused(ResponseCode::FormErr);
        };
        let Some(query) = message.queries.first().cloned() else {
            return refused(ResponseCode::FormErr);
        };
        let question = Question { message, query };
        if question
            .message
            .edns
            .as_ref()
            .is_some_and(|edns| edns.version() != 0)
        {
            return Self::Refused(question.answer(Answer::of(ResponseCode::BADVERS)));
        }
        let whole_zones = [RecordType::ANY, RecordType::AXFR, RecordType::IXFR];
        if question.query.query_class() != DNSClass::IN
            || whole_zones.contains(&question.query.query_type())
        {
            return Self::Refused(question.answer(Answer::of(ResponseCode::NotImp)));
        }
        Self::Question(Box::new(question))
    }
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    /// Who was asked says that DNSSEC vouches for it.
    pub(super) authentic: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Answer {
    pub(super) fn of(code: ResponseCode) -> Self {
        Self {
            code,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }

    /// Whoever hears it keeps it for so many seconds at most.
    pub(super) fn keep_for(&mut self, ttl: u32) {
        for record in self.answers.iter_mut().chain(&mut self.authorities) {
            record.ttl = record.ttl.min(ttl);
        }
    }
}

/// Links of a chain of aliases that are followed.
const ALIASES: usize = 16;

/// The addresses that an answer about `name` gives, by way of its aliases; hints of RFC 9460 are such, too. What else
/// there is in it says nothing of that name.
pub(super) fn addresses(name: &Name, answers: &[Record]) -> Vec<IpAddr> {
    let mut chain = vec![name];
    // Records may stand in any order.
    for _ in 0..ALIASES {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if chain.contains(&&record.name) && !chain.contains(&&to.0) => {
                Some(&to.0)
            }
            _ => None,
        });
        match next {
            Some(next) => chain.push(next),
            None => break,
        }
    }
    let its = answers
        .iter()
        .filter(|record| chain.contains(&&record.name));
    let mut found = Vec::new();
    for record in its {
        match &record.data {
            RData::A(address) => found.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => found.push(IpAddr::V6(address.0)),
            RData::HTTPS(HTTPS(service)) | RData::SVCB(service) => {
                for (_, value) in &service.svc_params {
                    match value {
                        SvcParamValue::Ipv4Hint(hints) => {
                            found.extend(hints.0.iter().map(|hint| IpAddr::V4(hint.0)));
                        }
                        SvcParamValue::Ipv6Hint(hints) => {
                            found.extend(hints.0.iter().map(|hint| IpAddr::V6(hint.0)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

impl Question {
    /// Whether signatures are wanted (RFC 3225).
    pub(super) fn wants_dnssec(&self) -> bool {
        let edns = self.message.edns.as_ref();
        edns.is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// Whether a host is looked for.
    pub(super) fn asks_for_addresses(&self) -> bool {
        matches!(self.query.query_type(), RecordType::A | RecordType::AAAA)
    }

    /// Octets of an answer by UDP.
    pub(super) fn udp_max(&self) -> usize {
        usize::from(self.message.max_payload().clamp(UDP_LEAST, UDP_MAX))
    }

    /// The addresses given for a name, of the family that is asked for.
    pub(super) fn addresses(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> Answer {
        let data = match self.query.query_type() {
            RecordType::A => Some(RData::A(A(v4))),
            RecordType::AAAA => Some(RData::AAAA(AAAA(v6))),
            _ => None,
        };
        let name = self.query.name();
        let record = data.map(|data| Record::from_rdata(name.clone(), OWN_TTL, data));
        Answer {
            answers: record.into_iter().collect(),
            ..Answer::of(ResponseCode::NoError)
        }
    }

    pub(super) fn answer(&self, answer: Answer) -> Message {
        let asked = &self.message.metadata;
        let mut message = Message::response(asked.id, OpCode::Query);
        message.metadata.recursion_desired = asked.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = asked.checking_disabled;
        // RFC 6840 §5.8: to whoever wants to know.
        let wants_to_know = asked.authentic_data || self.wants_dnssec();
        message.metadata.authentic_data = answer.authentic && wants_to_know;
        message.metadata.response_code = answer.code;
        message.add_query(self.query.clone());
        let name = self.query.name();
        message.add_answers(answer.answers.into_iter().map(|mut record| {
            // As it was asked for: letters were made large and small on the way.
            if record.name == *name {
                record.name = name.clone();
            }
            record
        }));
        message.add_authorities(answer.authorities);
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_MAX)
                .set_dnssec_ok(self.wants_dnssec());
            message.set_edns(edns);
        }
        message
    }
}

/// An answer of `most` octets at most; the rest of a longer one is to be asked for by TCP.
pub(super) fn emit(answer: &Message, most: usize) -> Option<Vec<u8>> {
    let whole = answer.to_vec().ok()?;
    if whole.len() <= most {
        return Some(whole);
    }
    answer
        .truncate()
        .to_vec()
        .ok()
        .filter(|short| short.len() <= most)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::MessageType;
    use hickory_resolver::proto::rr::rdata::CNAME;
    use hickory_resolver::proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey};

    use super::*;

    fn message(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn question(message: &Message) -> Box<Question> {
        match Asked::parse(&message.to_vec().unwrap()) {
            Asked::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn code(bytes: &[u8]) -> Option<(u16, ResponseCode)> {
        match Asked::parse(bytes) {
            Asked::Refused(message) => Some((message.metadata.id, message.metadata.response_code)),
            Asked::Nothing => None,
            Asked::Question(question) => panic!("{question:?}"),
        }
    }

    #[test]
    fn what_is_no_plain_question_is_turned_away() {
        let good = message("www.example.", RecordType::A).to_vec().unwrap();
        assert_eq!(code(&[]), None);
        assert_eq!(code(&good[..11]), None);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        // An answer; another operation; no question, two, an answer in it, a claim of many records.
        assert_eq!(code(&with(2, 0x81)), None);
        assert_eq!(code(&with(2, 0x29)), Some((7, ResponseCode::NotImp)));
        for (at, value) in [
            (5, 0),
            (5, 2),
            (4, 0xff),
            (7, 1),
            (9, 1),
            (10, 0xff),
            (11, 3),
        ] {
            let told = code(&with(at, value));
            assert_eq!(told, Some((7, ResponseCode::FormErr)), "{at}");
        }
        assert_eq!(code(&good[..20]), Some((7, ResponseCode::FormErr)));
        for kind in [RecordType::ANY, RecordType::AXFR] {
            let bytes = message("www.example.", kind).to_vec().unwrap();
            assert_eq!(code(&bytes), Some((7, ResponseCode::NotImp)));
        }
        let mut chaos = message("version.bind.", RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(
            code(&chaos.to_vec().unwrap()),
            Some((7, ResponseCode::NotImp))
        );
        let mut future = message("www.example.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        future.set_edns(edns);
        assert_eq!(
            code(&future.to_vec().unwrap()),
            Some((7, ResponseCode::BADVERS))
        );
    }

    #[test]
    fn an_answer_is_no_longer_than_its_client_takes() {
        let mut asked = message("www.example.", RecordType::TXT);
        assert_eq!(question(&asked).udp_max(), 512);
        for (takes, most) in [(100, 512), (1000, 1000), (1232, 1232), (4096, 1232)] {
            let mut edns = Edns::new();
            edns.set_max_payload(takes);
            asked.set_edns(edns);
            assert_eq!(question(&asked).udp_max(), most);
        }
        let question = question(&asked);
        let name = question.query.name().clone();
        let record = Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1)));
        let long = question.answer(Answer {
            answers: vec![record; 200],
            ..Answer::of(ResponseCode::NoError)
        });
        let whole = emit(&long, usize::from(u16::MAX)).unwrap();
        assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 200);
        let short = emit(&long, question.udp_max()).unwrap();
        assert!(short.len() <= 1232);
        let short = Message::from_vec(&short).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert_eq!(short.queries, long.queries);
        assert_eq!(short.metadata.message_type, MessageType::Response);
    }

    #[test]
    fn an_answers_addresses_are_those_of_its_name_and_of_its_aliases() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let a = |owner: &str, last: u8| {
            Record::from_rdata(name(owner), 60, RData::A(A::new(198, 51, 100, last)))
        };
        let alias = |owner: &str, to: &str| {
            Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
        };
        let answers = [
            a("c.example.", 3),
            alias("b.example.", "c.example."),
            alias("Www.Example.", "b.example."),
            alias("c.example.", "www.example."),
            a("other.example.", 9),
            alias("other.example.", "far.example."),
            a("far.example.", 8),
        ];
        let found = addresses(&name("wWw.example."), &answers);
        assert_eq!(found, [IpAddr::from([198, 51, 100, 3])]);
        assert_eq!(
            addresses(&name("d.example."), &answers),
            Vec::<IpAddr>::new()
        );
        // A chain that does not end ends here.
        let links: Vec<Record> = (0..100)
            .map(|n| alias(&format!("{n}.example."), &format!("{}.example.", n + 1)))
            .chain([a("100.example.", 1), a("3.example.", 2)])
            .collect();
        let found = addresses(&name("0.example."), &links);
        assert_eq!(found, [IpAddr::from([198, 51, 100, 2])]);
        let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A::new(198, 51, 100, 5)]));
        let service = SVCB::new(1, Name::root(), vec![(SvcParamKey::Ipv4Hint, hint)]);
        let service = Record::from_rdata(name("h.example."), 60, RData::HTTPS(HTTPS(service)));
        let found = addresses(&name("h.example."), &[service]);
        assert_eq!(found, [IpAddr::from([198, 51, 100, 5])]);
    }

    #[test]
    fn who_asks_whether_a_name_was_validated_is_told() {
        let told = |asked: &Message| {
            let answer = Answer {
                authentic: true,
                ..Answer::of(ResponseCode::NoError)
            };
            question(asked).answer(answer).metadata.authentic_data
        };
        let mut asked = message("www.example.", RecordType::A);
        assert!(!told(&asked));
        asked.metadata.authentic_data = true;
        assert!(told(&asked));
        asked.metadata.authentic_data = false;
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        asked.set_edns(edns);
        assert!(told(&asked));
    }

    #[test]
    fn an_answer_repeats_what_was_asked_as_it_was_written() {
        let asked = question(&message("WwW.Example.", RecordType::A));
        assert!(!asked.wants_dnssec());
        let name = Name::from_ascii("wWw.eXample.").unwrap();
        let record = Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1)));
        let answer = asked.answer(Answer {
            answers: vec![record],
            ..Answer::of(ResponseCode::NoError)
        });
        let answer = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
        assert_eq!(answer.metadata.id, 7);
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert!(answer.edns.is_none(), "nobody asked for EDNS");
        assert!(answer.answers[0].name.eq_case(asked.query.name()));
        let nowhere = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        assert_eq!(asked.addresses(nowhere.0, nowhere.1).answers.len(), 1);
        let other = question(&message("www.example.", RecordType::MX));
        assert!(other.addresses(nowhere.0, nowhere.1).answers.is_empty());
    }
}

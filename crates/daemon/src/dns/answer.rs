//! From a question to its answer: what is made here, what is kept, what is asked for.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Instant;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::{ResponseCache, TtlConfig};
use ipnet::IpNet;

use super::block::BlockList;
use super::domains;
use super::gate::Gate;
use super::messages::{Counters, LetOut, Place, Ways};
use super::policy::{Policy, Way};
use super::query::{Answer, Question, addresses};
use super::resolv_conf;
use super::upstream::Upstream;

/// Octets, and records, of a response that is kept: with the number of responses they bound the memory that they take,
/// some 10 KiB each.
const KEPT_OCTETS: usize = 2048;
const KEPT_RECORDS: usize = 32;
/// Devices keep what goes direct by its name no longer, in seconds: far less than its addresses are held.
const DIRECT_TTL: u32 = 300;
/// Nor what was found beside the tunnel for a device that goes direct itself, which may be so while the tunnel is down
/// alone: whatever a resolver of the network between makes of its names is not to last longer than that.
const BESIDE_TTL: u32 = 60;
/// Of the responses of this machine's own resolvers so many are kept at most, of each kind of them.
const OWN_KEPT: u32 = 1024;

/// Everything an answer depends on.
#[derive(Default)]
pub(super) struct Resolver {
    clients: RefCell<Vec<IpNet>>,
    asking: RefCell<Option<Rc<Asking>>>,
    blocked: RefCell<BlockList>,
    counters: Cell<Counters>,
    /// What goes direct by its name does before it is answered.
    pub(super) gate: Gate,
}

/// Whom to ask.
struct Asking {
    policy: Policy,
    tunnel: Option<Source>,
    direct: Option<Source>,
    lan: Option<Source>,
}

/// Resolvers, and what they said: what one kind of them said is no answer of another's.
struct Source {
    upstream: Upstream,
    /// They prove who they are: whoever is on the way says nothing in their name.
    proven: bool,
    /// Without signatures, and with them.
    kept: [ResponseCache; 2],
}

impl Source {
    fn new(upstream: Upstream, proven: bool, kept: u32) -> Self {
        let cache = || ResponseCache::new(u64::from(kept), TtlConfig::default());
        Self {
            upstream,
            proven,
            kept: [cache(), cache()],
        }
    }
}

impl Resolver {
    /// Nobody outside these networks is answered. Whether they are others than before.
    pub(super) fn set_clients(&self, clients: Vec<IpNet>) -> bool {
        let others = *self.clients.borrow() != clients;
        self.clients.replace(clients);
        others
    }

    pub(super) fn is_client(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let clients = self.clients.borrow();
        clients.iter().any(|net| net.contains(&address))
    }

    pub(super) fn block(&self, list: BlockList) {
        self.blocked.replace(list);
    }

    pub(super) fn blocked_names(&self) -> usize {
        self.blocked.borrow().len()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters.get()
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        add(&mut counters);
        self.counters.set(counters);
    }

    /// Asks others from now on, and forgets what it was told. `own`: where this process answers itself. Gives what
    /// is wrong, a sentence each.
    pub(super) fn ask_by(&self, ways: &Ways, own: &[Place]) -> Vec<String> {
        let mut troubles = Vec::new();
        let mut built = |upstream: Result<Upstream, String>, proven, kept| match upstream {
            Ok(upstream) => Some(Source::new(upstream, proven, kept)),
            Err(error) => {
                troubles.push(error);
                None
            }
        };
        let tunnel = match &ways.tunnel {
            Ok(inside) => built(
                Upstream::inside(inside.clone(), ways.tls.as_ref()),
                ways.tls.is_some(),
                ways.cache,
            ),
            // The supervisor knows why.
            Err(_) => None,
        };
        let networks = self.clients.borrow();
        let machines = machines_own(ways, own);
        let on_lan: Vec<IpAddr> = machines
            .iter()
            .copied()
            .filter(|resolver| networks.iter().any(|net| net.contains(resolver)))
            .collect();
        let mut some = |resolvers: &[IpAddr]| match resolvers {
            [] => None,
            resolvers => built(Upstream::direct(resolvers), false, ways.cache.min(OWN_KEPT)),
        };
        let direct = some(&machines);
        // What a resolver on the LAN makes of a question is up to it: who names no domain of the LAN asks none.
        let lan = match ways.lan_domains.is_empty() {
            true => None,
            false => some(&on_lan),
        };
        let for_whom = [
            (!ways.direct.is_empty(), "for the domains in `direct`"),
            (
                own.iter().any(|place| place.direct),
                "for devices that go direct",
            ),
        ];
        for (_, for_whom) in for_whom.iter().filter(|(is, _)| *is && direct.is_none()) {
            troubles.push(format!(
                "nobody can be asked {for_whom}: {} names no resolver but this machine; write direct_resolvers in \
                 [gateway.dns]",
                resolv_conf::PATH
            ));
        }
        self.gate.forget();
        self.asking.replace(Some(Rc::new(Asking {
            policy: Policy::new(ways, &networks),
            tunnel,
            direct,
            lan,
        })));
        troubles
    }

    /// `direct`: who asks goes direct, and what is asked for it goes beside the tunnel, too.
    pub(super) async fn answer(&self, question: &Question, direct: bool) -> Message {
        self.count(|counters| counters.queries += 1);
        let asking = self.asking.borrow().clone();
        let answer = match asking {
            Some(asking) => self.find(&asking, question, direct).await,
            None => Answer::of(ResponseCode::ServFail),
        };
        if answer.code == ResponseCode::ServFail {
            self.count(|counters| counters.failures += 1);
        }
        question.answer(answer)
    }

    async fn find(&self, asking: &Asking, question: &Question, direct: bool) -> Answer {
        let name = domains::text(question.query.name());
        let host = question.asks_for_addresses();
        let way = asking
            .policy
            .way(name.as_deref(), host, &self.blocked.borrow());
        let (source, nobody) = match way {
            Way::Blocked => {
                self.count(|counters| counters.blocked += 1);
                return question.addresses(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
            }
            Way::Loopback => return question.addresses(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            Way::Nobody => return Answer::of(ResponseCode::NXDomain),
            Way::Tunnel if !direct => (&asking.tunnel, ResponseCode::ServFail),
            Way::Tunnel | Way::Direct => {
                self.count(|counters| counters.direct += u64::from(asking.direct.is_some()));
                (&asking.direct, ResponseCode::ServFail)
            }
            // RFC 6303 §3: who has no such zone says so, rather than ask the world.
            Way::Lan => (&asking.lan, ResponseCode::NXDomain),
        };
        let mut answer = match source {
            Some(source) => self.ask(source, question).await,
            None => Answer::of(nobody),
        };
        match (way, direct) {
            (Way::Tunnel | Way::Direct, false) => {
                self.told(&asking.policy, name, question, answer).await
            }
            // Who goes direct by itself is answered by resolvers whose word counts for nobody else.
            (Way::Tunnel | Way::Direct, true) => {
                answer.keep_for(BESIDE_TTL);
                answer
            }
            _ => answer,
        }
    }

    /// What a device that is tunnelled may be told of what was answered about this name.
    async fn told(
        &self,
        policy: &Policy,
        name: Option<String>,
        question: &Question,
        answer: Answer,
    ) -> Answer {
        match name.filter(|name| policy.goes_direct(name)) {
            Some(name) => self.let_out(name, question, answer).await,
            None => answer,
        }
    }

    /// An answer about a name that goes direct: its addresses do before a device hears of them, or it hears of none.
    async fn let_out(&self, name: String, question: &Question, mut answer: Answer) -> Answer {
        answer.keep_for(DIRECT_TTL);
        let mut addresses = addresses(question.query.name(), &answer.answers);
        addresses.truncate(LetOut::ADDRESSES);
        if addresses.is_empty() || self.gate.let_out(LetOut { name, addresses }).await {
            return answer;
        }
        Answer::of(ResponseCode::ServFail)
    }

    async fn ask(&self, source: &Source, question: &Question) -> Answer {
        let dnssec = question.wants_dnssec();
        let [without, with] = &source.kept;
        let kept = if dnssec { with } else { without };
        let query = &question.query;
        let query = Query::query(query.name().clone(), query.query_type());
        let said = match kept.get(&query, Instant::now()) {
            Some(said) => {
                self.count(|counters| counters.cache_hits += 1);
                said
            }
            None => {
                let said = source.upstream.ask(query.clone(), dnssec).await;
                keep(kept, query, &said);
                said
            }
        };
        let mut answer = answer_of(said);
        // RFC 4035 §4.9.3: nothing is validated here, so that others did counts only if it was they who say so.
        answer.authentic &= source.proven;
        answer
    }
}

fn keep(kept: &ResponseCache, query: Query, said: &Result<Message, NetError>) {
    if may_be_kept(said) {
        kept.insert(query, said.clone(), Instant::now());
    }
}

/// This machine's own resolvers; not itself, or a question would go round.
fn machines_own(ways: &Ways, own: &[Place]) -> Vec<IpAddr> {
    let mut resolvers = match ways.direct_resolvers.as_slice() {
        [] => resolv_conf::own(),
        written => written.to_vec(),
    };
    resolvers.retain(|resolver| own.iter().all(|place| place.address != *resolver));
    resolvers
}

/// Whether it is an answer, and a small one: what there is in it is up to whoever answers.
fn may_be_kept(said: &Result<Message, NetError>) -> bool {
    let is_small = |message: &Message| {
        message.all_sections().count() <= KEPT_RECORDS
            && message
                .to_vec()
                .is_ok_and(|bytes| bytes.len() <= KEPT_OCTETS)
    };
    match said {
        Ok(message) => is_small(message),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let referred = || none.ns.iter().flat_map(|all| all.iter());
            let glue = referred().map(|to| 1 + to.glue.len()).sum::<usize>();
            let authorities = none.authorities.iter().map(|all| all.len());
            // A name server has all its addresses, and another one of the same name has them again.
            if glue.saturating_add(authorities.sum()) > KEPT_RECORDS {
                return false;
            }
            let mut message = Message::response(0, OpCode::Query);
            message.add_authorities(none.authorities.iter().flat_map(|all| all.iter().cloned()));
            for to in referred() {
                message.add_authority(to.ns.clone());
                message.add_additionals(to.glue.iter().cloned());
            }
            is_small(&message)
        }
        Err(_) => false,
    }
}

fn answer_of(said: Result<Message, NetError>) -> Answer {
    match said {
        Ok(message) => Answer {
            code: message.metadata.response_code,
            authentic: message.metadata.authentic_data,
            answers: message.answers,
            authorities: message.authorities,
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Answer {
            authorities: none.authorities.map(|all| all.to_vec()).unwrap_or_default(),
            ..Answer::of(none.response_code)
        },
        Err(error) => {
            tracing::debug!("no answer: {error}");
            Answer::of(ResponseCode::ServFail)
        }
    }
}

/// What came of a device's question and a resolver's answer, for the fuzz target.
#[cfg(feature = "fuzzing")]
#[derive(Debug)]
pub(crate) struct Handled {
    /// What the device is sent, and how long that may be.
    pub(crate) sent: Option<(Vec<u8>, usize)>,
    /// What the supervisor is asked to let out.
    pub(crate) let_out: Vec<LetOut>,
}

/// A device asks `question`; whoever is asked for it says `said`. Once more, then, from what was kept.
#[cfg(feature = "fuzzing")]
pub(crate) async fn handle(ways: &Ways, question: &[u8], said: &[u8]) -> Vec<Handled> {
    use super::query::{Asked, UDP_MAX, emit};
    use hickory_resolver::proto::op::DnsResponse;

    let question = match Asked::parse(question) {
        Asked::Nothing => return Vec::new(),
        Asked::Refused(answer) => {
            let most = usize::from(UDP_MAX);
            let sent = emit(&answer, most).map(|bytes| (bytes, most));
            let let_out = Vec::new();
            return vec![Handled { sent, let_out }];
        }
        Asked::Question(question) => question,
    };
    let policy = Policy::new(ways, &[]);
    let name = domains::text(question.query.name());
    let _ = policy.way(
        name.as_deref(),
        question.asks_for_addresses(),
        &BlockList::default(),
    );
    let said = match Message::from_vec(said) {
        Ok(said) => DnsResponse::from_message(said)
            .map_err(NetError::from)
            .and_then(|said| Ok(DnsError::from_response(said)?.into_message())),
        Err(_) => Err(NetError::Timeout),
    };
    let cache = ResponseCache::new(1, TtlConfig::default());
    keep(&cache, question.query.clone(), &said);
    let mut handled = Vec::new();
    for said in [Some(said), cache.get(&question.query, Instant::now())] {
        let Some(said) = said else { continue };
        let resolver = Resolver::default();
        let told = resolver.told(&policy, name.clone(), &question, answer_of(said));
        let supervisor = async {
            let (id, asked) = resolver.gate.next().await;
            resolver.gate.done(id, true);
            asked
        };
        tokio::pin!(told, supervisor);
        let (told, let_out) = tokio::select! {
            biased;
            asked = &mut supervisor => (told.await, asked),
            told = &mut told => (told, Vec::new()),
        };
        let most = question.udp_max();
        let sent = emit(&question.answer(told), most).map(|bytes| (bytes, most));
        handled.push(Handled { sent, let_out });
    }
    handled
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::MessageType;
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

    use super::super::query::Asked;
    use super::*;
    use crate::dns::messages::NoWay;

    fn question(name: &str, kind: RecordType) -> Box<Question> {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match Asked::parse(&message.to_vec().unwrap()) {
            Asked::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn ways() -> Ways {
        Ways {
            tunnel: Err(NoWay::Down("home".to_owned())),
            tls: None,
            direct: vec!["corp.example".to_owned()],
            // Itself: nobody is left to ask.
            direct_resolvers: vec!["192.168.1.2".parse().unwrap()],
            direct_domains: vec!["tv.example".to_owned()],
            lan_domains: vec!["lan".to_owned()],
            cache: 16,
        }
    }

    fn resolver() -> Resolver {
        let resolver = Resolver::default();
        resolver.set_clients(vec!["192.168.1.0/24".parse().unwrap()]);
        let place = |direct| Place {
            address: "192.168.1.2".parse().unwrap(),
            direct,
        };
        let troubles = resolver.ask_by(&ways(), &[place(false)]);
        assert!(
            troubles.len() == 1 && troubles[0].contains("`direct`"),
            "{troubles:?}"
        );
        let troubles = resolver.ask_by(&ways(), &[place(false), place(true)]);
        assert!(
            troubles.len() == 2 && troubles[1].contains("devices that go direct"),
            "{troubles:?}"
        );
        resolver
    }

    #[tokio::test]
    async fn while_the_tunnel_is_down_a_question_fails_at_once() {
        let resolver = resolver();
        let mut list = BlockList::default();
        assert!(list.add("0.0.0.0 ads.example\n".as_bytes()).unwrap());
        resolver.block(list);
        let begun = Instant::now();
        for (name, code, answers) in [
            ("www.example.", ResponseCode::ServFail, 0),
            ("git.corp.example.", ResponseCode::ServFail, 0),
            ("printer.lan.", ResponseCode::NXDomain, 0),
            ("20.1.168.192.in-addr.arpa.", ResponseCode::NXDomain, 0),
            ("printer.local.", ResponseCode::NXDomain, 0),
            ("localhost.", ResponseCode::NoError, 1),
            ("ads.example.", ResponseCode::NoError, 1),
        ] {
            let answer = resolver.answer(&question(name, RecordType::A), false).await;
            assert_eq!(answer.metadata.response_code, code, "{name}");
            assert_eq!(answer.answers.len(), answers, "{name}");
        }
        assert!(begun.elapsed().as_millis() < 500);
        let counters = resolver.counters();
        assert_eq!((counters.queries, counters.failures), (7, 2));
        assert_eq!((counters.blocked, counters.direct), (1, 0));
    }

    #[tokio::test]
    async fn before_anything_is_known_a_question_fails() {
        let resolver = Resolver::default();
        let answer = resolver
            .answer(&question("www.example.", RecordType::A), false)
            .await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(!resolver.is_client("192.168.1.20".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_goes_direct_is_let_out_before_it_is_answered_and_kept_for_a_short_time() {
        let resolver = resolver();
        let asked = question("www.tv.example.", RecordType::A);
        let answer = || {
            let name = asked.query.name().clone();
            let record = Record::from_rdata(name, 86_400, RData::A(A::new(198, 51, 100, 7)));
            Answer {
                answers: vec![record],
                ..Answer::of(ResponseCode::NoError)
            }
        };
        let let_out = || resolver.let_out("www.tv.example".to_owned(), &asked, answer());
        let reply = async |done: bool| {
            let (id, sent) = resolver.gate.next().await;
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].name, "www.tv.example");
            assert_eq!(sent[0].addresses, [IpAddr::from([198, 51, 100, 7])]);
            resolver.gate.done(id, done);
        };
        let (refused, ()) = tokio::join!(let_out(), reply(false));
        assert_eq!(refused.code, ResponseCode::ServFail);
        assert!(refused.answers.is_empty());
        let (answered, ()) = tokio::join!(let_out(), reply(true));
        assert_eq!(answered.answers[0].ttl, DIRECT_TTL);
        // It does already; and what is no address needs no way.
        assert_eq!(let_out().await.answers.len(), 1);
        let none = Answer::of(ResponseCode::NXDomain);
        let none = resolver.let_out("none.tv.example".to_owned(), &asked, none);
        assert_eq!(none.await.code, ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn who_goes_direct_keeps_what_was_found_beside_the_tunnel_for_a_minute() {
        let resolver = resolver();
        let direct_resolvers = vec!["192.168.1.1".parse().unwrap()];
        resolver.ask_by(
            &Ways {
                direct_resolvers,
                ..ways()
            },
            &[],
        );
        let asked = question("www.example.", RecordType::A);
        let name = asked.query.name().clone();
        let record = Record::from_rdata(name.clone(), 86_400, RData::A(A::new(192, 0, 2, 1)));
        let mut message = Message::response(1, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answer(record);
        let asking = resolver.asking.borrow().clone().unwrap();
        let kept = &asking.direct.as_ref().unwrap().kept[0];
        kept.insert(
            Query::query(name, RecordType::A),
            Ok(message),
            Instant::now(),
        );
        let answer = resolver.answer(&asked, true).await;
        assert_eq!(answer.answers[0].ttl, BESIDE_TTL);
        assert_eq!(resolver.counters().cache_hits, 1);
    }

    #[tokio::test]
    async fn that_a_name_was_validated_is_believed_of_resolvers_that_prove_who_they_are() {
        let asked = question("www.example.", RecordType::A);
        let query = Query::query(asked.query.name().clone(), RecordType::A);
        let record = Record::from_rdata(query.name().clone(), 60, RData::A(A::new(192, 0, 2, 1)));
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.authentic_data = true;
        message.add_answer(record);
        for proven in [false, true] {
            let upstream = Upstream::direct(&["192.0.2.53".parse().unwrap()]).unwrap();
            let source = Source::new(upstream, proven, 16);
            source.kept[0].insert(query.clone(), Ok(message.clone()), Instant::now());
            let answer = Resolver::default().ask(&source, &asked).await;
            assert_eq!((answer.answers.len(), answer.authentic), (1, proven));
        }
    }

    #[test]
    fn strangers_are_no_clients() {
        let resolver = resolver();
        for (address, is) in [
            ("192.168.1.20", true),
            ("::ffff:192.168.1.20", true),
            ("192.168.2.20", false),
            ("203.0.113.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(
                resolver.is_client(address.parse().unwrap()),
                is,
                "{address}"
            );
        }
    }

    #[test]
    fn what_was_said_is_answered_and_kept_if_it_is_small() {
        let query = Query::query(Name::from_ascii("www.example.").unwrap(), RecordType::A);
        let record = Record::from_rdata(query.name().clone(), 60, RData::A(A::new(192, 0, 2, 1)));
        let mut message = Message::response(1, OpCode::Query);
        message.add_query(query.clone());
        message.add_answer(record.clone());
        let said = Ok(message.clone());
        assert!(may_be_kept(&said));
        assert_eq!(answer_of(said).answers.len(), 1);
        message.add_answers(vec![record.clone(); KEPT_RECORDS]);
        assert!(!may_be_kept(&Ok(message)));
        let mut none = NoRecords::new(query, ResponseCode::NXDomain);
        none.authorities = Some(vec![record.clone(); KEPT_RECORDS + 1].into());
        assert!(!may_be_kept(&Err(none.clone().into())));
        none.authorities = Some(vec![record].into());
        let none: NetError = none.into();
        assert!(may_be_kept(&Err(none.clone())));
        assert_eq!(answer_of(Err(none)).code, ResponseCode::NXDomain);
        assert!(!may_be_kept(&Err(NetError::Timeout)));
        assert_eq!(
            answer_of(Err(NetError::Timeout)).code,
            ResponseCode::ServFail
        );
    }
}

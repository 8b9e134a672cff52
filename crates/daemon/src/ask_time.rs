//! `cygnet ask-time 'NAME NAME …'`: asks time servers for the date (SNTP, RFC 5905 §14), in a process of its own.
//!
//! Answers are bytes from a network that nobody has signed: neither the supervisor nor the engine is to parse them. This
//! process has nothing to lose. What it hands back is a number for each server; whether they are believed is judged
//! by whoever sent it ([`agree`]).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use cygnet_config::Daemon;
use cygnet_crypto::{Random, SystemRandom};
use cygnet_linux::clock::boottime;
use serde::{Deserialize, Serialize};
use sntpc::{NtpContext, NtpTimestampGenerator, NtpUdpSocket, SendRequestResult};
use tokio::io::AsyncReadExt;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::{Agreed, NOT_BEFORE, day};
use crate::helper;

/// A resolver that has not answered by then is not waited for.
const RESOLVED: Duration = Duration::from_secs(5);
/// Nor is a time server.
const ANSWERED: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried, one after the other.
const ADDRESSES_MAX: usize = 3;
/// A process that has not ended by itself by then is ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Memory of the process, most of it the program itself, and seconds that it may compute.
const MEMORY_MAX: u64 = 256 << 20;
const COMPUTING_MAX: u64 = 5;
/// Octets of what it hands back.
const MESSAGE_MAX: u64 = 16 << 10;
/// Letters of a reason: what a network sent may have taken the process over.
const REASON_MAX: usize = 200;
/// Dates that differ by less, in milliseconds, are one date: servers smear leap seconds, and answers take their time.
const AGREE: i64 = 10_000;

/// What came of asking a server.
pub(crate) type Answer = Result<Said, Failed>;

/// A date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Who said it.
    address: IpAddr,
    /// What it was when this machine started, in milliseconds since 1970.
    at_boot: i64,
}

/// None.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    why: String,
    /// It wants to be left alone (RFC 5905 §7.4).
    pub(crate) leave_alone: bool,
}

impl Failed {
    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            leave_alone: false,
        }
    }
}

/// The process itself.
pub(crate) fn run(servers: &str) -> u8 {
    let done = helper::confine(MEMORY_MAX, Some(COMPUTING_MAX)).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(Daemon::MAX_TIME_SERVERS)
            .build()?;
        let servers = servers.split(' ').take(Daemon::MAX_TIME_SERVERS);
        let asked = servers.map(|server| one(server.to_owned()));
        let answers = runtime.block_on(futures_util::future::join_all(asked));
        // A resolver that does not answer is not waited for.
        runtime.shutdown_background();
        let answers = postcard::to_allocvec(&answers).map_err(std::io::Error::other)?;
        std::io::stdout().write_all(&answers)
    });
    u8::from(done.is_err())
}

async fn one(server: String) -> Answer {
    const PORT: u16 = 123;
    let found = timeout(RESOLVED, lookup_host((server.as_str(), PORT))).await;
    let found = found.map_err(|_| Failed::new("the name servers do not answer"))?;
    let found = found.map_err(|error| Failed::new(format!("cannot be resolved: {error}")))?;
    let mut failed = Failed::new("the name has no address");
    for address in found.take(ADDRESSES_MAX) {
        match ask(address).await {
            Err(other) if !other.leave_alone => failed = other,
            answer => return answer,
        }
    }
    Err(failed)
}

/// Asks at one address.
async fn ask(address: SocketAddr) -> Answer {
    let any: IpAddr = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let no_way = |error: std::io::Error| Failed::new(format!("there is no way to it: {error}"));
    let socket = UdpSocket::bind((any, 0)).await.map_err(no_way)?;
    // Only that address is heard, and its ICMP errors are.
    socket.connect(address).await.map_err(no_way)?;
    let socket = Socket { socket, address };
    let begun = boottime();
    let until = Instant::now() + ANSWERED;
    let sent = sntpc::sntp_send_request(address, &socket, NtpContext::new(Nonce::draw())).await;
    let sent = sent.map_err(|error| Failed::new(told(error)))?;
    let answer = timeout_at(until, answer(&socket, sent)).await;
    let (seconds, fraction) = answer.map_err(|_| Failed::new("no answer"))??;
    let ended = boottime();
    let millis = seconds
        .saturating_mul(1000)
        .saturating_add((u64::from(fraction) * 1000) >> 32);
    let millis = i64::try_from(millis).map_err(|_| Failed::new("its answer holds no date"))?;
    // RFC 5905 §8: the answer was half the time under way, as far as anybody knows.
    let back = i64::try_from((ended.saturating_sub(begun) / 2).as_millis()).unwrap_or(0);
    let ended = i64::try_from(ended.as_millis()).unwrap_or(i64::MAX);
    Ok(Said {
        address: address.ip().to_canonical(),
        at_boot: millis.saturating_add(back).saturating_sub(ended),
    })
}

/// The server's date in its answer: seconds since 1970, and 2⁻³² of one. What somebody else sends in its name without
/// having seen the question is passed over.
async fn answer(socket: &Socket, sent: SendRequestResult) -> Result<(u64, u32), Failed> {
    loop {
        let context = NtpContext::new(Era);
        match sntpc::sntp_process_response(socket.address, socket, context, sent).await {
            Ok(answer) => return Ok((answer.seconds, answer.seconds_fraction)),
            Err(sntpc::Error::IncorrectOriginTimestamp | sntpc::Error::IncorrectPayload) => {}
            Err(error) => {
                return Err(Failed {
                    why: told(error),
                    leave_alone: dismisses(error),
                });
            }
        }
    }
}

/// Whether the server wants to be left alone (RFC 5905 §7.4). Of stratum 0 is, without any such code, also one that has
/// just been started: a router that got its power back with this box.
fn dismisses(error: sntpc::Error) -> bool {
    use sntpc::KissOfDeathCode::{Deny, Rate, Rstr};
    matches!(error, sntpc::Error::KissOfDeath(Deny | Rate | Rstr))
}

fn told(error: sntpc::Error) -> String {
    match error {
        sntpc::Error::KissOfDeath(code) if dismisses(error) => {
            format!("it wants to be left alone ({})", code.as_str())
        }
        sntpc::Error::KissOfDeath(_) | sntpc::Error::UnsynchronizedClock => {
            "it does not know the time itself".to_owned()
        }
        sntpc::Error::Network => "nothing listens there, or there is no way to it".to_owned(),
        error => format!("its answer is none of SNTP: {error:?}"),
    }
}

/// A UDP socket that is connected.
struct Socket {
    socket: UdpSocket,
    address: SocketAddr,
}

impl NtpUdpSocket for Socket {
    async fn send_to(&self, octets: &[u8], _: SocketAddr) -> sntpc::Result<usize> {
        let sent = self.socket.send(octets).await;
        sent.map_err(|_| sntpc::Error::Network)
    }

    async fn recv_from(&self, octets: &mut [u8]) -> sntpc::Result<(usize, SocketAddr)> {
        let received = self.socket.recv(octets).await;
        let length = received.map_err(|_| sntpc::Error::Network)?;
        Ok((length, self.address))
    }
}

/// The time of sending that the server is told, and sends back: drawn, so that only who saw the question can answer it.
#[derive(Clone, Copy)]
struct Nonce {
    seconds: u32,
    micros: u32,
}

impl Nonce {
    fn draw() -> Self {
        let mut dice = [0; 8];
        SystemRandom.fill(&mut dice);
        let dice = u64::from_ne_bytes(dice);
        let (low, high) = (dice & u64::from(u32::MAX), dice >> 32);
        Self {
            seconds: u32::try_from(low).unwrap_or_default(),
            micros: u32::try_from(high % 1_000_000).unwrap_or_default(),
        }
    }
}

impl NtpTimestampGenerator for Nonce {
    fn init(&mut self) {}

    fn timestamp_sec(&self) -> u64 {
        self.seconds.into()
    }

    fn timestamp_subsec_micros(&self) -> u32 {
        self.micros
    }
}

/// A date of NTP is one of many, 136 years apart (RFC 5905 §6): the one nearest to this is meant.
#[derive(Clone, Copy)]
struct Era;

impl NtpTimestampGenerator for Era {
    fn init(&mut self) {}

    fn timestamp_sec(&self) -> u64 {
        NOT_BEFORE.unsigned_abs()
    }

    fn timestamp_subsec_micros(&self) -> u32 {
        0
    }
}

/// Sends such a process, as that user and group; an answer for each server, in order.
pub(crate) async fn send(servers: &[String], user: (u32, u32)) -> Result<Vec<Answer>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("the process that asks them failed: {e}");
    let mut child = helper::command("ask-time", &servers.join(" "), user)
        .spawn()
        .map_err(|e| failed(&e))?;
    let stdout = child.stdout.take().ok_or_else(|| failed(&"no pipe"))?;
    let mut answers = Vec::new();
    let asked = async {
        stdout.take(MESSAGE_MAX).read_to_end(&mut answers).await?;
        child.wait().await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => return Err(failed(&status)),
        Ok(Err(e)) => return Err(failed(&e)),
        Err(_) => return Err(failed(&format!("not done within {} s", PATIENCE.as_secs()))),
    }
    let answers: Vec<Answer> = postcard::from_bytes(&answers).map_err(|e| failed(&e))?;
    match answers.len() == servers.len() {
        true => Ok(answers),
        false => Err(failed(&"it has not asked all of them")),
    }
}

/// The date that these servers agree on, each with its answer, where so many are `configured`: of more than one, two at
/// least, and more than half of those that say any. It is none if it is before the `earliest`, in seconds since 1970;
/// `boot`: milliseconds since this machine started. An error is a sentence.
pub(crate) fn agree(
    asked: &[(String, Answer)],
    configured: usize,
    earliest: i64,
    boot: i64,
) -> Result<Agreed, String> {
    let date = |said: &Said| said.at_boot.saturating_add(boot).div_euclid(1000);
    let mut dates: Vec<(&Said, &String)> = Vec::new();
    for (server, answer) in asked {
        // What cannot be right is a vote, too: were it none, where the earliest is wrong two that forge it would outvote
        // all that are right.
        if let Ok(said) = answer
            // By another name it is the same witness.
            && dates.iter().all(|(other, _)| other.address != said.address)
        {
            dates.push((said, server));
        }
    }
    dates.sort_by_key(|(said, _)| said.at_boot);
    let together = |first: usize| {
        let from = dates.get(first..).unwrap_or_default();
        let until = from
            .first()
            .map_or(0, |(said, _)| said.at_boot.saturating_add(AGREE));
        let count = from.partition_point(|(said, _)| said.at_boot <= until);
        from.get(..count).unwrap_or_default()
    };
    let most = (0..dates.len())
        .map(together)
        .max_by_key(|group| group.len());
    let most = most.unwrap_or_default();
    let enough = configured.clamp(1, 2);
    let agreed = most.get(most.len() / 2).filter(|_| {
        let outvote = 2 * most.len() > dates.len();
        most.len() >= enough && outvote
    });
    if let Some((middle, _)) = agreed
        && date(middle) >= earliest
    {
        return Ok(Agreed {
            at_boot: middle.at_boot,
            servers: most.iter().map(|(_, server)| (*server).clone()).collect(),
        });
    }
    let each = asked.iter().map(|(server, answer)| match answer {
        Ok(said) if date(said) < earliest => format!(
            "{server} says {}, which is before {}",
            day(date(said)),
            day(earliest)
        ),
        Ok(said) => format!("{server} says {}", day(date(said))),
        Err(failed) => {
            let why: String = failed.why.chars().take(REASON_MAX).collect();
            format!("{server}: {why}")
        }
    });
    let each: Vec<String> = each.collect();
    let what = match dates.len() {
        _ if agreed.is_some() => "what time servers agree on cannot be the date".to_owned(),
        0 => "no time server says what the date is".to_owned(),
        1 => {
            format!("of {configured} time servers one says what the date is, and two have to agree")
        }
        _ => "time servers do not agree on the date".to_owned(),
    };
    Err(format!("{what}: {}", each.join("; ")))
}

/// Answers, for the tests of who asks.
#[cfg(test)]
pub(crate) mod tests_of_others {
    use super::{Failed, Said};

    pub(crate) fn failed(why: &str, leave_alone: bool) -> Failed {
        let why = why.to_owned();
        Failed { why, leave_alone }
    }

    pub(crate) fn said(last: u8, at_boot: i64) -> Said {
        let address = [192, 0, 2, last].into();
        Said { address, at_boot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26, and when the machine was started, ten seconds before.
    const TODAY: i64 = 1_795_651_200;
    const BOOT: i64 = 10_000;

    fn said(last: u8, millis: i64) -> (String, Answer) {
        let said = Said {
            address: IpAddr::from([192, 0, 2, last]),
            at_boot: TODAY * 1000 - BOOT + millis,
        };
        (format!("{}.example", char::from(b'a' + last)), Ok(said))
    }

    fn silent(last: u8) -> (String, Answer) {
        let (server, _) = said(last, 0);
        (server, Err(Failed::new("no answer")))
    }

    fn judged(asked: &[(String, Answer)], configured: usize) -> Result<(i64, String), String> {
        let agreed = agree(asked, configured, TODAY - 100, BOOT)?;
        let date = agreed.at_boot + BOOT - TODAY * 1000;
        Ok((date, agreed.servers.join(" ")))
    }

    fn expect(asked: &[(String, Answer)], configured: usize, date: i64, servers: &str) {
        let expected = Ok((date, servers.to_owned()));
        assert_eq!(judged(asked, configured), expected);
    }

    const YEAR: i64 = 365 * 86_400_000;

    #[test]
    fn two_that_agree_are_believed_against_one() {
        expect(
            &[said(0, 0), said(1, 9000), said(2, YEAR)],
            3,
            9000,
            "a.example b.example",
        );
        expect(
            &[said(2, YEAR), said(0, 0), silent(3), said(1, -9000)],
            4,
            0,
            "b.example a.example",
        );
        expect(
            &[said(0, 0), said(1, 1), said(2, 2), said(3, YEAR)],
            4,
            1,
            "a.example b.example c.example",
        );
    }

    #[test]
    fn one_is_believed_where_it_is_the_only_one_that_is_configured() {
        expect(&[said(0, 5)], 1, 5, "a.example");
        for asked in [vec![said(0, 5), silent(1)], vec![said(0, 5)]] {
            let told = judged(&asked, 2).unwrap_err();
            assert!(told.starts_with("of 2 time servers one says"), "{told}");
        }
    }

    #[test]
    fn half_of_them_are_not_enough() {
        let asked = [said(0, 0), said(1, 0), said(2, YEAR), said(3, YEAR)];
        let told = judged(&asked, 4).unwrap_err();
        assert!(told.starts_with("time servers do not agree"), "{told}");
        for part in ["a.example says 2026-11-26", "d.example says 2027-11-26"] {
            assert!(told.contains(part), "{told}");
        }
        // Each a little later than the one before: the ends are too far from each other.
        let asked = [said(0, 0), said(1, 10_001)];
        assert!(judged(&asked, 2).is_err());
        assert!(judged(&[said(0, 0), said(1, 10_000)], 2).is_ok());
    }

    #[test]
    fn a_date_before_the_earliest_is_none() {
        let old = |last| said(last, -20 * YEAR);
        let told = judged(&[old(0)], 1).unwrap_err();
        assert!(
            told.starts_with("what time servers agree on cannot be"),
            "{told}"
        );
        let why = "a.example says 2006-12-01, which is before 2026-11-25";
        assert!(told.ends_with(why), "{told}");
        // However many say it.
        assert!(judged(&[old(0), old(1), old(2), said(3, 0)], 4).is_err());
        expect(&[said(0, -100_000)], 1, -100_000, "a.example");
        assert!(judged(&[said(0, -100_001)], 1).is_err());
    }

    #[test]
    fn who_says_what_cannot_be_is_outvoted_or_outvotes() {
        // Where the earliest is wrong (the clock was once forged), those are right.
        let old = |last| said(last, -YEAR);
        let told = judged(&[old(0), old(1), said(2, YEAR), said(3, YEAR)], 4).unwrap_err();
        assert!(told.starts_with("time servers do not agree"), "{told}");
        expect(
            &[old(0), said(1, 0), said(2, 0), old(3), said(4, 0)],
            5,
            0,
            "b.example c.example e.example",
        );
    }

    #[test]
    fn one_server_by_two_names_is_one_witness() {
        let (_, again) = said(0, 1);
        let twice = [said(0, 0), ("z.example".to_owned(), again), said(1, YEAR)];
        assert!(judged(&twice, 3).is_err());
    }

    #[test]
    fn reasons_are_bounded() {
        let failed = Failed::new("x".repeat(10_000));
        let told = judged(&[("a".to_owned(), Err(failed))], 1).unwrap_err();
        assert!(told.len() < 300, "{}", told.len());
    }

    /// What is made of a question.
    type Make = fn([u8; 48]) -> Vec<u8>;

    /// A server that sends what `make` makes of the question, each in turn.
    async fn served(make: Vec<Make>) -> Answer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut question = [0; 48];
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            assert_eq!(length, 48);
            for make in make {
                socket.send_to(&make(question), from).await.unwrap();
            }
            question
        });
        let answer = ask(address).await;
        let question = server.await.unwrap();
        assert_eq!(question[0], 0x23, "version 4, client");
        assert_eq!(question[1..40], [0; 39], "it tells nothing of this machine");
        answer
    }

    /// What a server of stratum 2 answers today.
    fn good(question: [u8; 48]) -> Vec<u8> {
        let seconds = u32::try_from(TODAY + 2_208_988_800).unwrap();
        let mut answer = vec![0; 48];
        answer[..4].copy_from_slice(&[0x24, 2, 0, 0xec]);
        answer[24..32].copy_from_slice(&question[40..]);
        for at in [16, 32, 40] {
            answer[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
        }
        answer[44] = 0x80;
        answer
    }

    #[tokio::test]
    async fn the_date_is_in_the_answer() {
        let since = |boot: Duration| i64::try_from(boot.as_millis()).unwrap();
        let before = since(boottime());
        let said = served(vec![good]).await.unwrap();
        let date = said.at_boot - TODAY * 1000;
        assert!(
            (500 - since(boottime())..=500 - before + 3000).contains(&date),
            "{date}"
        );
        assert_eq!(said.address, IpAddr::from([127, 0, 0, 1]));
    }

    #[tokio::test]
    async fn who_has_not_seen_the_question_cannot_answer_it() {
        let blind = |question: [u8; 48]| {
            let mut forged = good(question);
            forged[31] ^= 1;
            forged[40] ^= 0x40;
            forged
        };
        let short = |question: [u8; 48]| good(question)[..47].to_vec();
        let said = served(vec![blind, short, |_| Vec::new(), blind, good]).await;
        let date = said.unwrap().at_boot + since_boot() - TODAY * 1000;
        assert!(date.abs() < 60_000, "{date}");
    }

    fn since_boot() -> i64 {
        i64::try_from(boottime().as_millis()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_not_believed() {
        let cases: [(Make, &str); 10] = [
            // Leap indicator 3: its clock is not synchronised.
            (|q| change(q, 0, 0xe4), "does not know the time"),
            // Stratum 0: nor is it yet, as chrony and ntpd say it.
            (|q| kiss(q, [0; 4]), "does not know the time"),
            (|q| kiss(q, *b"INIT"), "does not know the time"),
            (|q| kiss(q, *b"DENY"), "left alone (DENY)"),
            (|q| kiss(q, *b"RSTR"), "left alone (RSTR)"),
            (|q| kiss(q, *b"RATE"), "left alone (RATE)"),
            // And 16.
            (|q| change(q, 1, 16), "none of SNTP"),
            // Not a server's.
            (|q| change(q, 0, 0x23), "none of SNTP"),
            (|q| change(q, 0, 0x2c), "none of SNTP"),
            // Root distance of hours.
            (|q| change(q, 8, 0x70), "none of SNTP"),
        ];
        for (make, expected) in cases {
            let failed = served(vec![make]).await.unwrap_err();
            assert!(failed.why.contains(expected), "{failed:?}");
            assert_eq!(failed.leave_alone, expected.starts_with("left alone"));
        }
    }

    fn kiss(question: [u8; 48], code: [u8; 4]) -> Vec<u8> {
        let mut answer = change(question, 0, 0xe4);
        answer[1] = 0;
        answer[12..16].copy_from_slice(&code);
        answer
    }

    fn change(question: [u8; 48], at: usize, octet: u8) -> Vec<u8> {
        let mut answer = good(question);
        answer[at] = octet;
        answer
    }

    #[tokio::test]
    async fn where_nobody_listens_it_is_said() {
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let failed = ask(address).await.unwrap_err();
        assert!(failed.why.contains("nothing listens"), "{failed:?}");
    }
}

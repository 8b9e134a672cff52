//! What devices ask the process that answers for names, and what resolvers say to it.

use cygnet_daemon::fuzzing::{self, DnsHandled, DnsLetOut};

use crate::input::Input;
use crate::seeds::Seed;

/// Octets of a header, and the bit in its third that says that it is an answer.
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
/// What goes direct by its name, in the target's configuration.
const DIRECT: &str = fuzzing::DNS_DIRECT_DOMAIN;

/// A device's question behind its length in two octets, and what a resolver says to it.
pub fn dns(data: &[u8]) {
    let mut input = Input(data);
    let question = input.bytes();
    for DnsHandled {
        sent,
        most,
        let_out,
    } in fuzzing::dns(question, input.0)
    {
        if let Some(sent) = sent {
            assert!(sent.len() <= most, "{} of {most}", sent.len());
            assert!(sent.len() >= HEADER);
            assert_eq!(sent[..2], question[..2], "the number of the question");
            assert!(sent[2] & RESPONSE != 0);
            assert_eq!(question[2] & RESPONSE, 0, "answers are not answered");
        }
        for DnsLetOut { name, addresses } in let_out {
            let below = name.strip_suffix(DIRECT);
            assert!(
                below.is_some_and(|below| below.is_empty() || below.ends_with('.')),
                "{name}"
            );
            assert!((1..=32).contains(&addresses.len()));
        }
    }
}

/// Of the input to begin with of this name, each time that it is answered: octets that the device is sent, and addresses
/// that go direct.
#[must_use]
pub fn dns_tells(named: &str) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    seeds(&mut all);
    let found = all.iter().find(|(_, name, _)| name == named);
    let (.., bytes) = found.expect("an input of that name");
    let mut input = Input(bytes);
    let question = input.bytes();
    let handled = fuzzing::dns(question, input.0).into_iter();
    let told = handled.map(|DnsHandled { sent, let_out, .. }| {
        let sent = sent.map_or(0, |sent| sent.len());
        (sent, let_out.iter().map(|it| it.addresses.len()).sum())
    });
    told.collect()
}

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const HTTPS: u16 = 65;

fn name(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(label.len() as u8);
        name.extend_from_slice(label.as_bytes());
    }
    name.push(0);
    name
}

/// RFC 1035 §4.1.1: flags and the counts of the four sections.
fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let words = [0x1234, flags].into_iter().chain(counts);
    words.flat_map(u16::to_be_bytes).collect()
}

fn asked(text: &str, kind: u16) -> Vec<u8> {
    [name(text), kind.to_be_bytes().to_vec(), vec![0, 1]].concat()
}

fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    [
        asked(owner, kind),
        ttl.to_be_bytes().to_vec(),
        length.to_be_bytes().to_vec(),
        data.to_vec(),
    ]
    .concat()
}

/// An OPT record: octets of a datagram, and whether signatures are wanted.
fn edns(most: u16, dnssec: bool) -> Vec<u8> {
    let (most, flags) = (most.to_be_bytes(), [0, 0, u8::from(dnssec) << 7, 0]);
    [&name("")[..], &OPT.to_be_bytes(), &most, &flags, &[0, 0]].concat()
}

/// Addresses, aliases, hints, nothing, and what is no question.
pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    let host = format!("www.{DIRECT}");
    let question = |text: &str, kind| [header(0x0100, [1, 0, 0, 0]), asked(text, kind)].concat();
    let answer = |text: &str, kind, code: u16, sections: [&[Vec<u8>]; 2]| {
        let [answers, authorities] = sections.map(|records| records.len() as u16);
        let header = header(0x8180 | code, [1, answers, authorities, 0]);
        [header, asked(text, kind), sections.concat().concat()].concat()
    };
    let a = |owner: &str, last| record(owner, A, 86_400, &[198, 51, 100, last]);
    let six = [0x20, 1, 0xd, 0xb8, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let soa = [name("ns"), name("root"), vec![0; 19], vec![60]].concat();
    let soa = record("example", SOA, 60, &soa);
    // Priority 1, target root, ipv4hint and ipv6hint (RFC 9460 §7.3).
    let hints = [
        &[0, 1, 0, 0, 4, 0, 4, 198, 51, 100, 9, 0, 6, 0, 16][..],
        &six,
    ]
    .concat();
    let alias = |owner: &str, to: &str| record(owner, CNAME, 60, &name(to));
    let wants = |most, dnssec| {
        let header = header(0x0120, [1, 0, 0, 1]);
        [header, asked(&host, A), edns(most, dnssec)].concat()
    };
    let many: Vec<Vec<u8>> = (0..60).map(|last| a(&host, last)).collect();
    let chain = [
        alias(&host, "a.cdn.example"),
        alias("a.cdn.example", "b.cdn.example"),
        alias("b.cdn.example", &host),
        a("b.cdn.example", 5),
        a("other.example", 6),
    ];
    let none = answer(&host, A, 3, [&[], std::slice::from_ref(&soa)]);
    for (named, question, said) in [
        (
            "address",
            question(&host, A),
            answer(&host, A, 0, [&[a(&host, 7)], &[]]),
        ),
        (
            "ipv6",
            question(&host, AAAA),
            answer(&host, AAAA, 0, [&[record(&host, AAAA, 60, &six)], &[]]),
        ),
        (
            "aliases",
            wants(4096, true),
            answer(&host, A, 0, [&chain, &[]]),
        ),
        (
            "hints",
            question(&host, HTTPS),
            answer(&host, HTTPS, 0, [&[record(&host, HTTPS, 60, &hints)], &[]]),
        ),
        ("many", wants(512, false), answer(&host, A, 0, [&many, &[]])),
        ("none", question(&host, A), none),
        (
            "another",
            question("www.example.org", A),
            answer("www.example.org", A, 0, [&[a("www.example.org", 8)], &[]]),
        ),
        (
            "failed",
            question("localhost", A),
            answer("localhost", A, 2, [&[], &[]]),
        ),
        ("no_question", header(0x0100, [0, 0, 0, 0]), Vec::new()),
        ("an_answer", answer(&host, A, 0, [&[], &[]]), Vec::new()),
        ("zone", question("example", 252), Vec::new()),
    ] {
        let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
        let input = [&length.to_be_bytes()[..], &question, &said].concat();
        seeds.push(("dns", named.into(), input));
    }
}

//! Messages that a real peer sent: parsed, compared with what the peer says is in them, and emitted
//! again to the same octets.

use cygnet_wire::header::ExchangeType;
use cygnet_wire::message::{Message, MessageBuilder};
use cygnet_wire::payload::{ChainBuilder, Payload, PayloadType, parse_chain};

const RECORDING: &str = include_str!("data/strongswan-5.9.8.txt");

struct Entry {
    kind: &'static str,
    /// What charon logged: `IKE_AUTH request 1 [ IDi CERT … ]`.
    summary: &'static str,
    bytes: Vec<u8>,
}

impl Entry {
    /// charon's words for the payloads, without the details it adds to some.
    fn words(&self) -> Vec<&'static str> {
        let (_, list) = self.summary.split_once('[').unwrap();
        list.trim_end_matches(']')
            .split_whitespace()
            // CPRP(ADDR DNS) was cut in two.
            .filter(|word| word.contains('(') || !word.ends_with(')'))
            .collect()
    }
}

fn recording() -> Vec<Entry> {
    let text: Vec<&str> = RECORDING.split("\n\n").skip(1).collect();
    text.into_iter()
        .map(|entry| {
            let (title, digits) = entry.split_once('\n').unwrap_or((entry, ""));
            let (kind, summary) = title.split_once(": ").unwrap();
            let digits: String = digits.split_whitespace().collect();
            let bytes = (0..digits.len() / 2)
                .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            Entry {
                kind,
                summary,
                bytes,
            }
        })
        .collect()
}

fn word(payload: &Payload<'_>) -> &'static str {
    match payload {
        Payload::Sa(_) => "SA",
        Payload::Ke(_) => "KE",
        Payload::Idi(_) => "IDi",
        Payload::Idr(_) => "IDr",
        Payload::Cert(_) => "CERT",
        Payload::CertReq(_) => "CERTREQ",
        Payload::Auth(_) => "AUTH",
        Payload::Nonce(_) => "No",
        Payload::Notify(_) => "N(",
        Payload::Delete(_) => "D",
        Payload::Vendor(_) => "V",
        Payload::Tsi(_) => "TSi",
        Payload::Tsr(_) => "TSr",
        Payload::Cp(_) => "CP",
        Payload::Eap(_) => "EAP",
        Payload::Unknown { .. } => "unknown",
    }
}

fn assert_payloads(entry: &Entry, payloads: &[Payload<'_>]) {
    let words = entry.words();
    assert_eq!(
        words.len(),
        payloads.len(),
        "{}: {payloads:?}",
        entry.summary
    );
    for (theirs, payload) in words.iter().zip(payloads) {
        let ours = word(payload);
        let same = match ours {
            "N(" | "CP" => theirs.starts_with(ours),
            _ => *theirs == ours,
        };
        assert!(same, "{}: {theirs} is {payload:?}", entry.summary);
    }
}

#[test]
fn messages_in_clear() {
    let mut seen = 0;
    for entry in recording() {
        if entry.kind != "datagram" || !entry.summary.starts_with("IKE_SA_INIT") {
            continue;
        }
        let message = Message::parse(&entry.bytes).unwrap();
        assert_eq!(message.header.exchange, ExchangeType::IKE_SA_INIT);
        let payloads = message.parse_payloads().unwrap();
        assert_payloads(&entry, &payloads);
        let mut builder = MessageBuilder::new(message.header);
        for payload in payloads {
            builder.push(payload);
        }
        assert_eq!(builder.finish().unwrap(), entry.bytes, "{}", entry.summary);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn an_encrypted_message() {
    let entries = recording();
    let entry = entries
        .iter()
        .find(|entry| entry.summary.ends_with("[ SK ]"))
        .unwrap();
    let message = Message::parse(&entry.bytes).unwrap();
    let encrypted = message.encrypted().unwrap().unwrap();
    assert_eq!(encrypted.first, PayloadType::IDR);
    assert_eq!(encrypted.fragment, None);
    assert_eq!(encrypted.aad.len(), 32);
    assert_eq!([encrypted.aad, encrypted.body].concat(), entry.bytes);
}

#[test]
fn insides_of_encrypted_messages() {
    let mut seen = 0;
    for entry in recording() {
        let Some(first) = entry.kind.strip_prefix("inner ") else {
            continue;
        };
        let first = PayloadType(first.parse().unwrap());
        let payloads = parse_chain(first, &entry.bytes).unwrap();
        assert_payloads(&entry, &payloads);
        let mut builder = ChainBuilder::new();
        for payload in payloads {
            builder.push(payload);
        }
        let chain = builder.finish().unwrap();
        assert_eq!(
            (chain.first, chain.bytes),
            (first, entry.bytes),
            "{}",
            entry.summary
        );
        seen += 1;
    }
    assert_eq!(seen, 11);
}

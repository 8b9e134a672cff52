//! Inputs to begin with: valid conversations of every kind, written down as the targets read them.
//! `cargo run --bin generate` puts them into `corpus/`.

mod configurations;
mod messages;
mod packets;
mod script;

use cygnet_ike::proposal;
use cygnet_wire::cert::CertReqPayload;
use cygnet_wire::cp::{CfgAttribute, CfgType, CpPayload};
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::eap::{EapCode, EapPayload};
use cygnet_wire::header::{ChildSpi, ExchangeType, Spi};
use cygnet_wire::id::IdPayload;
use cygnet_wire::message::Message;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::{Chain, Payload};
use cygnet_wire::sa::{ProposalSpi, TransformId};

use crate::endpoint::{how, kind};
use crate::peer::log_in::{OUT, WRONG};
use crate::peer::{FIRST_SPI, PEER_SPI, Peer, Setup, ike_proposals, peer_identity, sa};
use messages::{
    auth_request, auth_requests, auth_response, auth_responses, chain, create_request, empty_auth,
    log_in_request, notify, own_ke, own_nonce, rekey_ike_request, said, zoo,
};
use packets::{tcp, udp, v6};
pub(crate) use script::authenticate;
use script::{Recorder, counted};

/// A target's name, the input's name, the input.
pub type Seed = (&'static str, String, Vec<u8>);

/// What the peer calls the IKE SA it makes by rekeying.
const NEXT_IKE_SPI: Spi = Spi(0x7065_6572_0000_0002);

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    wire(&mut seeds);
    init(&mut seeds);
    authentication(&mut seeds);
    established(&mut seeds);
    esp(&mut seeds);
    packets::seeds(&mut seeds);
    configurations::seeds(&mut seeds);
    crate::chain::seeds(&mut seeds);
    crate::ipc::seeds(&mut seeds);
    crate::eap::seeds(&mut seeds);
    crate::dhcp::seeds(&mut seeds);
    crate::dns::seeds(&mut seeds);
    seeds
}

fn wire(seeds: &mut Vec<Seed>) {
    let peer = Peer::new(Setup::of(0));
    let call = peer.call_message(None);
    seeds.push(("wire_message", "call".into(), call.clone()));
    seeds.push((
        "wire_message",
        "cookie".into(),
        peer.call_message(Some(&[7; 40])),
    ));
    let calling = Peer::new(Setup::of(1));
    if let Some(call) = calling.inbox.front() {
        seeds.push(("wire_message", "call_of_endpoint".into(), call.clone()));
    }
    let mut up = Recorder::established(0).peer;
    for (number, datagram) in up.inbox.drain(..).enumerate() {
        seeds.push(("wire_message", format!("answer{number}"), datagram));
    }
    let zoo = zoo();
    let header = Message::parse(&call).expect("our own message").header;
    for payload in &zoo {
        let chain = chain(vec![payload.clone()]);
        let name = format!("{:?}", payload.ty()).to_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let bytes = [&[chain.first.0][..], &chain.bytes].concat();
        seeds.push(("wire_chain", format!("{name}{}", seeds.len()), bytes));
    }
    let all = chain(zoo);
    let bytes = [&[all.first.0][..], &all.bytes].concat();
    seeds.push(("wire_chain", "zoo".into(), bytes));
    let len = u32::try_from(28 + all.bytes.len()).expect("a small message");
    let bytes = [&header.emit(all.first, len)[..], &all.bytes].concat();
    seeds.push(("wire_message", "zoo".into(), bytes));
    seeds.push(("wire_chain", "empty".into(), vec![0]));
}

fn init(seeds: &mut Vec<Seed>) {
    let script = |setup: u8, how: u8, datagrams: &[&[u8]]| {
        let mut bytes = vec![setup];
        for datagram in datagrams {
            bytes.push(how);
            bytes.extend(counted(datagram));
        }
        bytes
    };
    let peer = Peer::new(Setup::of(0));
    let call = peer.call_message(None);
    seeds.push(("endpoint_init", "call".into(), script(0, 0, &[&call])));
    seeds.push((
        "endpoint_init",
        "call_twice".into(),
        script(0, 0, &[&call, &call]),
    ));
    let mut asked = Peer::new(Setup::of(4));
    asked.deliver(&call);
    let cookie = asked.inbox.pop_front().and_then(|answer| {
        let message = Message::parse(&answer).ok()?;
        let payloads = message.parse_payloads().ok()?;
        payloads.into_iter().find_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify.data.to_vec()),
            _ => None,
        })
    });
    let again = peer.call_message(cookie.as_deref());
    seeds.push((
        "endpoint_init",
        "cookie".into(),
        script(4, 0, &[&call, &again]),
    ));
    // Answers to the endpoint's call.
    let mut called = Peer::new(Setup::of(1));
    let request = called.inbox.front().cloned().unwrap_or_default();
    called.shake_hands();
    let header = Message::parse(&request).expect("our own message").header;
    let respond = |payloads: Vec<Payload<'static>>| {
        let chain = chain(payloads);
        let header = cygnet_wire::header::IkeHeader {
            responder_spi: NEXT_IKE_SPI,
            flags: cygnet_wire::header::Flags::new(false, true),
            ..header
        };
        let len = u32::try_from(28 + chain.bytes.len()).expect("a small message");
        [&header.emit(chain.first, len)[..], &chain.bytes].concat()
    };
    let refusals = [
        ("no_proposal", notify(NotifyType::NO_PROPOSAL_CHOSEN)),
        (
            "other_group",
            NotifyPayload::invalid_ke(TransformId(19)).into(),
        ),
        (
            "cookie",
            NotifyPayload::with_data(NotifyType::COOKIE, vec![5; 30]).into(),
        ),
        ("syntax", notify(NotifyType::INVALID_SYNTAX)),
    ];
    for (name, refusal) in refusals {
        let bytes = script(1, 3, &[&respond(vec![refusal])]);
        seeds.push(("endpoint_init", format!("answer_{name}"), bytes));
    }
    let ours = ike_proposals();
    let offer = Message::parse(&request)
        .expect("our own message")
        .parse_payloads();
    let offer = offer.expect("our own payloads");
    let choice = offer
        .iter()
        .find_map(sa)
        .map(|offer| proposal::select_ike(&[&ours], offer, None));
    if let Some(Ok(choice)) = choice {
        let answer = respond(vec![
            choice.answer(ProposalSpi::None).into(),
            own_ke(),
            own_nonce(),
            notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            cygnet_ike::auth::announce_hashes().into(),
            CertReqPayload::x509(&[[3; 20]]).into(),
        ]);
        seeds.push(("endpoint_init", "answer".into(), script(1, 1, &[&answer])));
    }
    seeds.push((
        "endpoint_init",
        "zoo".into(),
        script(1, 1, &[&respond(zoo())]),
    ));
}

fn authentication(seeds: &mut Vec<Seed>) {
    let mut add = |name: &str, recorder: Recorder| {
        seeds.push(("endpoint_auth", name.to_owned(), recorder.bytes));
    };
    let auth = ExchangeType::IKE_AUTH;
    let proven = how::PROVEN;
    let request = CpPayload::new(
        CfgType::CFG_REQUEST,
        vec![CfgAttribute::Ip4Address(None), CfgAttribute::Ip4Dns(None)],
    );
    add(
        "psk",
        Recorder::new(0).request(proven, auth, &auth_request(false, &[])),
    );
    add(
        "psk_cookie",
        Recorder::new(4).request(proven, auth, &auth_request(false, &[])),
    );
    add(
        "psk_unproven",
        Recorder::new(0).request(0, auth, &auth_request(false, &[])),
    );
    add(
        "psk_in_fragments",
        Recorder::new(0).request(proven | how::CUT, auth, &auth_request(false, &[])),
    );
    add(
        "psk_with_address",
        Recorder::new(0).request(proven, auth, &auth_request(false, &[request.into()])),
    );
    add(
        "psk_initial_contact",
        Recorder::new(0).request(
            proven,
            auth,
            &auth_request(
                false,
                &[
                    notify(NotifyType::INITIAL_CONTACT),
                    notify(NotifyType::MOBIKE_SUPPORTED),
                ],
            ),
        ),
    );
    add(
        "certificate",
        Recorder::new(2).request(proven, auth, &auth_request(true, &[])),
    );
    add("zoo", Recorder::new(0).request(proven, auth, &chain(zoo())));
    add(
        "childless",
        Recorder::new(0).request(
            proven,
            auth,
            &chain(vec![
                Payload::Idi(IdPayload::new(peer_identity())),
                empty_auth(),
            ]),
        ),
    );
    add(
        "eap",
        Recorder::new(0).request(
            0,
            auth,
            &chain(vec![Payload::Idi(IdPayload::new(peer_identity()))]),
        ),
    );
    // Setup 8: the peer may log in. 11: the endpoint logs in at a peer that has a certificate.
    let log_in = |after: &[Chain]| {
        let begun = Recorder::new(8).request(proven, auth, &log_in_request());
        let next = |recorder: Recorder, chain: &Chain| recorder.request(proven, auth, chain);
        after.iter().fold(begun, next)
    };
    add("log_in", log_in(&auth_requests(Setup::of(8))[1..]));
    add("log_in_wrong", log_in(&[said(1, WRONG), said(2, b"")]));
    add("log_in_thrown_out", log_in(&[said(1, OUT)]));
    let endless: Vec<_> = (1..=41).map(|number| said(number, b"?")).collect();
    add("log_in_endless", log_in(&endless));
    add("log_in_zoo", log_in(&[chain(zoo())]));
    let call = Recorder::new(11).peer.requests.pop_front();
    let call = call.map(|request| request.payloads).unwrap_or_default();
    let [first, success, last] = &auth_responses(Setup::of(11), &call)[..] else {
        panic!("three messages");
    };
    let failure = chain(vec![EapPayload::bare(EapCode::FAILURE, 1).into()]);
    for (name, after) in [
        ("called_log_in", &[success, last][..]),
        ("called_log_in_refused", &[&failure]),
        ("called_log_in_zoo", &[&chain(zoo())]),
        ("called_log_in_unasked", &[last]),
    ] {
        let begun = Recorder::new(11).respond(proven, first);
        let next = |recorder: Recorder, chain: &&Chain| recorder.respond(proven, chain);
        add(name, after.iter().fold(begun, next));
    }
    let called = Recorder::new(1);
    let payloads = called
        .peer
        .requests
        .front()
        .map(|r| r.payloads.clone())
        .unwrap_or_default();
    let answer = auth_response(Setup::of(1), &payloads, false);
    add("called_psk", Recorder::new(1).respond(proven, &answer));
    add("called_unproven", Recorder::new(1).respond(0, &answer));
    add(
        "called_in_fragments",
        Recorder::new(1).respond(proven | how::CUT, &answer),
    );
    add(
        "called_with_address",
        Recorder::new(1).respond(proven, &auth_response(Setup::of(1), &payloads, true)),
    );
    add(
        "called_zoo",
        Recorder::new(1).respond(proven, &chain(zoo())),
    );
    for refusal in [
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::TS_UNACCEPTABLE,
        NotifyType::INTERNAL_ADDRESS_FAILURE,
        NotifyType::FAILED_CP_REQUIRED,
    ] {
        let name = format!("called_refused_{}", refusal.0);
        add(
            &name,
            Recorder::new(1).respond(0, &chain(vec![notify(refusal)])),
        );
        let payloads = vec![
            Payload::Idr(IdPayload::new(peer_identity())),
            empty_auth(),
            notify(refusal),
        ];
        let name = format!("called_childless_{}", refusal.0);
        add(&name, Recorder::new(1).respond(proven, &chain(payloads)));
    }
}

fn established(seeds: &mut Vec<Seed>) {
    let mut add = |name: String, recorder: Recorder| {
        seeds.push(("endpoint_established", name, recorder.bytes));
    };
    let create = ExchangeType::CREATE_CHILD_SA;
    let inform = ExchangeType::INFORMATIONAL;
    let delete = |spi| chain(vec![DeletePayload::esp(ChildSpi(spi)).into()]);
    let delete_ike = chain(vec![DeletePayload::IkeSa.into()]);
    for (setup, end) in [
        (0, "called"),
        (1, "caller"),
        (8, "logged_in_at"),
        (11, "logged_in"),
    ] {
        let new = || Recorder::established(setup);
        let up = |name: &str| format!("{end}_{name}");
        let second = create_request(None, (4, 3), PEER_SPI + 1);
        let rekey = create_request(Some(PEER_SPI), (2, 1), PEER_SPI + 2);
        add(up("probe"), new().request(0, inform, &chain(Vec::new())));
        add(up("create"), new().request(0, create, &second));
        add(
            up("create_in_fragments"),
            new().request(how::CUT, create, &second),
        );
        add(
            up("rekey_child"),
            new()
                .request(0, create, &rekey)
                .request(0, inform, &delete(PEER_SPI)),
        );
        add(
            up("rekey_ike"),
            new()
                .request(0, create, &rekey_ike_request())
                .request(0, inform, &delete_ike)
                .request(how::NEWEST, create, &rekey),
        );
        add(
            up("delete_child"),
            new().request(0, inform, &delete(PEER_SPI)),
        );
        add(up("delete_ike"), new().request(0, inform, &delete_ike));
        add(up("zoo"), new().request(0, inform, &chain(zoo())));
        add(up("zoo_create"), new().request(0, create, &chain(zoo())));
        for (number, word) in [0x00, 0x01, 0x02, 0x13, 0x23, 0x04, 0x06, 0x07]
            .into_iter()
            .enumerate()
        {
            let name = up(&format!("command{number}"));
            add(name, new().command(word).oblige().oblige().oblige());
        }
        add(
            up("both_rekey_child"),
            new()
                .command(0)
                .request(0, create, &rekey)
                .oblige()
                .oblige(),
        );
        add(
            up("both_rekey_ike"),
            new()
                .command(1)
                .request(0, create, &rekey_ike_request())
                .oblige()
                .oblige(),
        );
        add(
            up("both_delete"),
            new()
                .command(0x04)
                .request(0, inform, &delete(PEER_SPI))
                .oblige(),
        );
        add(
            up("rekey_then_delete_ike"),
            new().command(0).request(0, inform, &delete_ike).oblige(),
        );
        for refusal in [
            NotifyType::TEMPORARY_FAILURE,
            NotifyType::CHILD_SA_NOT_FOUND,
            NotifyType::NO_PROPOSAL_CHOSEN,
            NotifyType::NO_ADDITIONAL_SAS,
            NotifyType::TS_UNACCEPTABLE,
            NotifyType::INVALID_SYNTAX,
        ] {
            let refused = chain(vec![notify(refusal)]);
            let name = up(&format!("refused_{}", refusal.0));
            add(
                name,
                new().command(0).respond(0, &refused).step(&[kind::TIME, 8]),
            );
            let name = up(&format!("ike_refused_{}", refusal.0));
            add(
                name,
                new().command(1).respond(0, &refused).step(&[kind::TIME, 8]),
            );
        }
        let group = chain(vec![NotifyPayload::invalid_ke(TransformId(19)).into()]);
        add(
            up("other_group"),
            new().command(0).respond(0, &group).oblige(),
        );
        for event in 0..9 {
            let name = up(&format!("data{event}"));
            add(name, new().step(&[kind::DATA, event, 1, kind::TIME, 6]));
        }
        let stray = [&[kind::RAW][..], &counted(&[0; 28])].concat();
        add(up("stray"), new().step(&stray));
        add(up("silence"), new().step(&[kind::TIME, 10, kind::TIME, 12]));
        add(
            up("slow_answers"),
            new()
                .step(&[kind::ANSWERS, 0])
                .request(0, create, &second)
                .step(&[kind::REPEAT, 0, kind::ANSWERS, 2, kind::ANSWERS, 1]),
        );
        add(
            up("refused_answers"),
            new()
                .step(&[kind::ANSWERS, 0])
                .request(0, create, &second)
                .step(&[kind::ANSWERS, 3]),
        );
        let names = chain(vec![
            NotifyPayload::about_esp(NotifyType::CHILD_SA_NOT_FOUND, ChildSpi(FIRST_SPI)).into(),
            notify(NotifyType::INVALID_SPI),
            notify(NotifyType::UPDATE_SA_ADDRESSES),
            NotifyPayload::with_data(NotifyType::COOKIE2, vec![1; 16]).into(),
            notify(NotifyType::AUTH_LIFETIME),
        ]);
        add(up("notifies"), new().request(0, inform, &names));
    }
}

fn esp(seeds: &mut Vec<Seed>) {
    for suite in 0..8u8 {
        let mut bytes = vec![suite];
        for packet in [udp(b"hello"), tcp(b"hello"), v6(b"hello")] {
            let next = if packet.first().is_some_and(|b| b >> 4 == 6) {
                41
            } else {
                4
            };
            let pad = (16 - (packet.len() + 2) % 16) % 16;
            let padding: Vec<u8> = (1..=pad as u8).collect();
            let plain = [&packet[..], &padding, &[pad as u8, next]].concat();
            bytes.push(0x11);
            bytes.extend(counted(&plain));
        }
        // A dummy, a replay, and nothing of ours.
        bytes.extend([0x11, 0, 4, 1, 2, 2, 59]);
        bytes.extend([0x01, 0, 4, 1, 2, 2, 59]);
        bytes.push(0);
        bytes.extend(counted(&[
            0x10, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8,
        ]));
        seeds.push(("esp_open", format!("suite{suite}"), bytes));
    }
}

//! A log-in by EAP in few words, at either end: what is in it is no matter of IKE, and has a target of its own.

use cygnet_crypto::Secret;
use cygnet_ike::io::{EapStep, EapSuccess};
use cygnet_wire::eap::{EapCode, EapPayload, EapType};
use cygnet_wire::id::Identification;

/// Who logs in.
pub(crate) const USER: &str = "alice";
/// What the user says to be let in at once.
pub(crate) const IN: &[u8] = b"in";
/// What the user says to be told that it was wrong, and may answer.
pub(crate) const WRONG: &[u8] = b"wrong";
/// What the user says to be thrown out.
pub(crate) const OUT: &[u8] = b"out";
/// The key that comes of it.
pub(crate) const KEY: &[u8] = &[7; 64];

/// What a server says to the user's packet.
pub(super) fn serve(packet: Option<&EapPayload<'static>>) -> EapStep {
    let Some(packet) = packet else {
        return EapStep::Send(ask(1));
    };
    let next = packet.identifier.wrapping_add(1);
    let why = || "the user name or the password is wrong".to_owned();
    match packet.data.as_ref() {
        _ if packet.code != EapCode::RESPONSE => EapStep::Send(ask(next)),
        IN => {
            let last = EapPayload::bare(EapCode::SUCCESS, packet.identifier);
            EapStep::Success(success(Some(last)))
        }
        WRONG => EapStep::Reject {
            packet: ask(next),
            why: why(),
        },
        OUT => EapStep::Failure {
            packet: Some(EapPayload::bare(EapCode::FAILURE, packet.identifier)),
            why: why(),
        },
        _ => EapStep::Send(ask(next)),
    }
}

/// What a user says to the server's packet.
pub(super) fn log_in(packet: Option<&EapPayload<'static>>) -> Result<EapStep, String> {
    let packet = packet.ok_or("the server begins")?;
    Ok(match packet.code {
        EapCode::SUCCESS => EapStep::Success(success(None)),
        EapCode::REQUEST => EapStep::Send(EapPayload::new(
            EapCode::RESPONSE,
            packet.identifier,
            EapType::IDENTITY,
            USER.as_bytes().to_vec(),
        )),
        _ => EapStep::Failure {
            packet: None,
            why: "the server refuses".to_owned(),
        },
    })
}

fn ask(identifier: u8) -> EapPayload<'static> {
    EapPayload::new(EapCode::REQUEST, identifier, EapType::IDENTITY, Vec::new())
}

fn success(packet: Option<EapPayload<'static>>) -> Box<EapSuccess> {
    Box::new(EapSuccess {
        packet,
        msk: Secret::from_slice(KEY),
        identity: Identification::key_id(USER.as_bytes()),
        secret: None,
        certificates: Vec::new(),
        not_after: None,
    })
}

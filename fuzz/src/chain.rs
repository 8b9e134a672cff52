//! What a peer's certificates and the authorities' revocation lists may hold.

use std::time::Duration;

use cygnet_pki::{
    CrlPolicy, Crls, DistinguishedName, PeerRole, TrustAnchors, UnixTime, certificate_contains,
    certreq, identity, validate_chain,
};

use crate::input::Input;
use crate::seeds::Seed;

/// Made with OpenSSL, valid for a century: a root with name constraints, an authority below it, two
/// certificates and a revocation list of that one.
const ROOT: &[u8] = include_bytes!("../testdata/root.der");
const AUTHORITY: &[u8] = include_bytes!("../testdata/sub.der");
const LEAF: &[u8] = include_bytes!("../testdata/leaf.der");
const RSA: &[u8] = include_bytes!("../testdata/rsa.der");
const ED25519: &[u8] = include_bytes!("../testdata/ed.der");
const CRL: &[u8] = include_bytes!("../testdata/sub.crl");
/// When all of them are valid.
const NOW: u64 = 1_830_000_000;

/// What the input is taken for.
mod place {
    pub(super) const LEAF: u8 = 0;
    pub(super) const SENT: u8 = 1;
    pub(super) const CRL: u8 = 2;
    pub(super) const ANCHOR: u8 = 3;
    pub(super) const NAME: u8 = 4;
    pub(super) const CERTREQ: u8 = 5;
    pub(super) const IDENTITY: u8 = 6;
}

/// First octet: what the rest is taken for.
pub fn chain(data: &[u8]) {
    let mut input = Input(data);
    let place = input.u8() % 7;
    let bytes = input.0;
    let mut anchors = TrustAnchors::new();
    let _ = anchors.add(ROOT);
    let mut crls = Crls::new(CrlPolicy::IfPresent);
    let _ = crls.add(CRL);
    match place {
        place::LEAF => {
            judge(bytes, &[AUTHORITY], &anchors, &crls);
            for (id_type, id) in [
                (1, &b"\xc0\0\x02\x01"[..]),
                (2, b"gw.example.org"),
                (3, b"x@a.b"),
                (9, bytes),
                (11, bytes),
            ] {
                let _ = certificate_contains(bytes, id_type, id);
            }
            let _ = certreq::key_hash(bytes);
            if let Ok(subject) = identity::subject(bytes) {
                name(subject.as_der());
            }
        }
        place::SENT => judge(LEAF, &[bytes, AUTHORITY, bytes], &anchors, &crls),
        place::CRL => {
            let mut crls = Crls::new(CrlPolicy::Required);
            let _ = crls.add(bytes);
            judge(LEAF, &[AUTHORITY], &anchors, &crls);
        }
        place::ANCHOR => {
            let mut anchors = TrustAnchors::new();
            let _ = anchors.add(bytes);
            judge(LEAF, &[AUTHORITY], &anchors, &crls);
        }
        place::NAME => name(bytes),
        place::CERTREQ => {
            let own = certreq::OwnCertificate {
                leaf: LEAF,
                chain: &[AUTHORITY.to_vec()],
            };
            let _ = certreq::answers(bytes, &own);
        }
        _ => {
            let id_type = input.u8();
            let _ = certificate_contains(LEAF, id_type, input.0);
        }
    }
}

fn judge(leaf: &[u8], sent: &[&[u8]], anchors: &TrustAnchors, crls: &Crls) {
    let now = Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)));
    match validate_chain(leaf, sent, anchors, crls, PeerRole::Responder, now) {
        Ok(peer) => assert!(peer.not_after.as_secs() >= NOW, "it has expired"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What is read can be written, and means the same.
fn name(der: &[u8]) {
    let Ok(name) = DistinguishedName::from_der(der) else {
        return;
    };
    let text = name.to_string();
    if let Ok(again) = text.parse::<DistinguishedName>() {
        let _ = again.as_der();
    }
}

pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    let mut seed = |name: &str, place: u8, bytes: &[u8]| {
        seeds.push(("chain", name.to_owned(), [&[place], bytes].concat()));
    };
    for (name, leaf) in [("ecdsa", LEAF), ("rsa", RSA), ("ed25519", ED25519)] {
        seed(&format!("leaf_{name}"), place::LEAF, leaf);
    }
    seed("leaf_authority", place::LEAF, AUTHORITY);
    seed("sent_authority", place::SENT, AUTHORITY);
    seed("sent_root", place::SENT, ROOT);
    seed("crl", place::CRL, CRL);
    seed("anchor", place::ANCHOR, ROOT);
    seed("anchor_authority", place::ANCHOR, AUTHORITY);
    if let Ok(subject) = identity::subject(LEAF) {
        seed("name", place::NAME, subject.as_der());
        let id = [&[9], subject.as_der()].concat();
        seed("identity_name", place::IDENTITY, &id);
    }
    let mut anchors = TrustAnchors::new();
    let _ = anchors.add(ROOT);
    seed("certreq", place::CERTREQ, &certreq::request(&anchors));
    seed("identity_host", place::IDENTITY, b"\x02gw.example.org");
    seed("identity_mail", place::IDENTITY, b"\x03x@a.b");
    seed("identity_address", place::IDENTITY, b"\x01\xc0\0\x02\x01");
}

/// Whether the seeds are what they are meant to be: a chain that holds.
#[must_use]
pub fn chain_holds() -> bool {
    let mut anchors = TrustAnchors::new();
    let mut crls = Crls::new(CrlPolicy::IfPresent);
    let known = anchors.add(ROOT).is_ok() && crls.add(CRL).is_ok();
    let now = Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)));
    let judge = |leaf| {
        validate_chain(
            leaf,
            &[AUTHORITY],
            &anchors,
            &crls,
            PeerRole::Responder,
            now,
        )
    };
    // The list names the second.
    known && judge(LEAF).is_ok() && judge(RSA).is_err()
}

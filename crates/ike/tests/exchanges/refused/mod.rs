//! Callers that offer only what is refused are told of: who they are, what they offer, what to do.

use cygnet_ike::policy::{ChildPolicy, Start};
use cygnet_ike::refused::Client;
use cygnet_wire::notify::NotifyType;
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::{
    Proposal, ProposalSpi, ProtocolId, SaPayload, Transform, TransformId, TransformType,
};
use cygnet_wire::vendor::VendorPayload;

use crate::common::*;
use crate::scripted::{self, Peer, notifies};

/// What Windows sends by itself: each cipher and hash with the group of 1024 bits.
fn windows_defaults() -> SaPayload {
    let aes = |bits| Transform::with_key_length(TransformType::ENCR, TransformId(12), bits);
    let plain = |ty, id| Transform::new(ty, TransformId(id));
    let ciphers = [plain(TransformType::ENCR, 3), aes(128), aes(256)];
    // HMAC-SHA1, HMAC-SHA2-256 and -384: the PRF, and the integrity of the same hash.
    let hashes = [(2, 2), (5, 12), (6, 13)];
    let mut proposals = Vec::new();
    for cipher in &ciphers {
        for (prf, integrity) in hashes {
            proposals.push(Proposal {
                number: u8::try_from(proposals.len() + 1).unwrap(),
                protocol: ProtocolId::IKE,
                spi: ProposalSpi::None,
                transforms: vec![
                    cipher.clone(),
                    plain(TransformType::PRF, prf),
                    plain(TransformType::INTEG, integrity),
                    plain(TransformType::KE, 2),
                ],
            });
        }
    }
    SaPayload { proposals }
}

fn vendor(version: u8) -> Payload<'static> {
    let mut vid = vec![
        0x1e, 0x2b, 0x51, 0x69, 0x05, 0x99, 0x1c, 0x7d, 0x7c, 0x96, 0xfc, 0xbf, 0xb5, 0x87, 0xe4,
        0x61,
    ];
    vid.extend([0, 0, 0, version]);
    VendorPayload::new(vid).into()
}

#[test]
fn windows_with_its_own_list_is_named_with_the_file_that_mends_it() {
    let mut peer = Peer::caller(scripted::known(Start::Manual));
    for spi in [71, 72] {
        peer.restart(spi);
        let answer = peer.call_with(windows_defaults(), vec![vendor(9)]);
        let refused = notifies(&answer).any(|n| n.ty == NotifyType::NO_PROPOSAL_CHOSEN);
        assert!(refused, "{answer:?}");
    }
    let now = at(peer.world.now);
    let list = peer.world.a.endpoint.status(now).refused;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((list[0].client, list[0].count), (Client::Windows, 2));
    assert_eq!(list[0].from, B.address());
    assert_eq!(
        list[0].offered,
        "encryption 3des, aes128, aes256; pseudorandom function prfsha1, prfsha256, prfsha384; \
         integrity sha1_96, sha256, sha384; key exchange modp1024"
    );
    assert!(list[0].remedy.contains(".ps1"), "{list:?}");
    let reasons = peer.world.a.reasons();
    let told = reasons.last().unwrap().to_string();
    for part in [
        "no IKE proposal in common",
        "Windows at ",
        "modp1024",
        ".ps1",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn somebody_else_hears_what_would_do() {
    let mut peer = Peer::caller(scripted::known(Start::Manual));
    peer.call_with(windows_defaults(), Vec::new());
    let now = at(peer.world.now);
    let list = peer.world.a.endpoint.status(now).refused;
    assert_eq!((list[0].client, list[0].count), (Client::Unknown, 1));
    let expected = "let it offer some of aes128gcm16-prfsha256-curve25519";
    assert!(list[0].remedy.starts_with(expected), "{list:?}");
}

#[test]
fn windows_whose_esp_is_refused_is_named_with_the_file_that_mends_it() {
    let mut connection = scripted::known(Start::Manual);
    let mut child = ChildPolicy::clone(&connection.children[0]);
    child.esp_proposals = vec!["aes256gcm16".parse().unwrap()];
    connection.children = vec![child.into()];
    let mut peer = Peer::caller(connection);
    peer.call(vec![vendor(9)]);
    let answer = peer.authenticate(Vec::new());
    let refused = notifies(&answer).any(|n| n.ty == NotifyType::NO_PROPOSAL_CHOSEN);
    assert!(refused, "{answer:?}");
    let list = peer.world.a.endpoint.status(at(peer.world.now)).refused;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((list[0].client, list[0].count), (Client::Windows, 1));
    assert!(
        list[0].offered.starts_with("encryption aes128gcm16"),
        "{list:?}"
    );
    assert!(list[0].offered.ends_with(" for ESP"), "{list:?}");
    assert!(list[0].remedy.contains(".ps1"), "{list:?}");
    let told = peer.world.a.reasons().last().unwrap().to_string();
    for part in ["Windows at ", ".ps1", "no ESP proposal in common"] {
        assert!(told.contains(part), "{told}");
    }
}

/// For each of `ids` a proposal that has it as a transform of each of these types.
fn offer_of(types: std::ops::RangeInclusive<u8>, ids: std::ops::Range<u16>) -> SaPayload {
    let proposals = ids.zip(1..).map(|(id, number)| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: ProposalSpi::None,
        transforms: (types.clone())
            .map(|ty| Transform::new(TransformType(ty), TransformId(id)))
            .collect(),
    });
    SaPayload {
        proposals: proposals.collect(),
    }
}

/// What is kept of a refused call with this offer.
fn offered(offer: SaPayload) -> String {
    let mut peer = Peer::caller(scripted::known(Start::Manual));
    peer.call_with(offer, Vec::new());
    let now = at(peer.world.now);
    peer.world.a.endpoint.status(now).refused[0].offered.clone()
}

#[test]
fn a_long_list_is_cut_and_who_is_let_in_is_not_on_it() {
    let offered = offered(offer_of(1..=1, 100..160));
    assert!(offered.ends_with(" and more"), "{offered}");
    assert!(offered.len() < 400, "{offered}");
    let mut peer = Peer::caller(scripted::known(Start::Manual));
    peer.call(Vec::new());
    let now = at(peer.world.now);
    assert!(peer.world.a.endpoint.status(now).refused.is_empty());
}

#[test]
fn a_list_of_types_that_nobody_knows_is_cut_as_well() {
    let offered = offered(offer_of(6..=255, 60_000..60_004));
    assert!(offered.len() < 1000, "{} octets", offered.len());
    let unknown = "a transform type unknown to this side transform type 13 number 60000, ";
    assert!(offered.contains(unknown), "{offered}");
    assert!(offered.ends_with(" and more"), "{offered}");
}

#[test]
fn the_longest_offer_makes_no_long_list() {
    let offered = offered(offer_of(1..=13, 60_000..60_016));
    assert_eq!(offered.matches(" and more").count(), 7, "{offered}");
    assert!(offered.len() < 4096, "{} octets", offered.len());
}

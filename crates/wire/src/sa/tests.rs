use proptest::prelude::*;

use super::*;
use crate::testing::{self, assert_round_trip, emit_body, hex};

/// What strongSwan 5.9.8 sends for `aes128-sha256-x25519`.
const IKE_PROPOSAL: &str = "
    0000002c 01 01 00 04
    0300000c 01 00 000c 800e0080
    03000008 03 00 000c
    03000008 02 00 0005
    00000008 04 00 001f";

fn ike_proposal() -> Proposal {
    Proposal {
        number: 1,
        protocol: ProtocolId::IKE,
        spi: ProposalSpi::None,
        transforms: vec![
            Transform::with_key_length(TransformType::ENCR, TransformId::ENCR_AES_CBC, 128),
            Transform::new(TransformType::INTEG, TransformId::AUTH_HMAC_SHA2_256_128),
            Transform::new(TransformType::PRF, TransformId::PRF_HMAC_SHA2_256),
            Transform::new(TransformType::KE, TransformId::KE_CURVE25519),
        ],
    }
}

#[test]
fn octets() {
    let payload = SaPayload {
        proposals: vec![ike_proposal()],
    };
    assert_eq!(SaPayload::parse(&hex(IKE_PROPOSAL)), Ok(payload.clone()));
    assert_eq!(emit_body(payload), hex(IKE_PROPOSAL));
}

#[test]
fn octets_of_two_proposals_with_spis() {
    let body = hex("
        02000028 01 03 04 03 c0ffee12
        0300000c 01 00 0014 800e0100
        03000008 06 00 0024
        00000008 05 00 0001
        00000018 02 01 08 01 0102030405060708
        00000008 01 00 001c");
    let payload = SaPayload {
        proposals: vec![
            Proposal {
                number: 1,
                protocol: ProtocolId::ESP,
                spi: ProposalSpi::Child(ChildSpi(0xc0ff_ee12)),
                transforms: vec![
                    Transform::with_key_length(
                        TransformType::ENCR,
                        TransformId::ENCR_AES_GCM_16,
                        256,
                    ),
                    Transform::new(TransformType::ADDKE1, TransformId::KE_ML_KEM_768),
                    Transform::new(TransformType::SN, TransformId::SN_64_BIT),
                ],
            },
            Proposal {
                number: 2,
                protocol: ProtocolId::IKE,
                spi: ProposalSpi::Ike(Spi(0x0102_0304_0506_0708)),
                transforms: vec![Transform::new(
                    TransformType::ENCR,
                    TransformId::ENCR_CHACHA20_POLY1305,
                )],
            },
        ],
    };
    assert_eq!(SaPayload::parse(&body), Ok(payload.clone()));
    assert_eq!(emit_body(payload), body);
}

#[test]
fn transforms_are_found_by_type() {
    let proposal = ike_proposal();
    let prf: Vec<_> = proposal.transforms_of(TransformType::PRF).collect();
    assert_eq!(
        prf,
        [&Transform::new(
            TransformType::PRF,
            TransformId::PRF_HMAC_SHA2_256
        )]
    );
}

#[test]
fn attributes_nobody_understands_are_seen() {
    let mut transform =
        Transform::with_key_length(TransformType::ENCR, TransformId::ENCR_AES_CBC, 128);
    assert_eq!(transform.key_length(), Some(128));
    assert!(!transform.has_unknown_attributes());
    transform.attributes[0].ty = AttributeType(77);
    assert_eq!(transform.key_length(), None);
    assert!(transform.has_unknown_attributes());
}

#[test]
fn transforms_name_themselves() {
    let names: Vec<String> = ike_proposal()
        .transforms
        .iter()
        .map(|transform| transform.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "ENCR_AES_CBC-128",
            "AUTH_HMAC_SHA2_256_128",
            "PRF_HMAC_SHA2_256",
            "KE_CURVE25519"
        ]
    );
    let additional = Transform::new(TransformType::ADDKE2, TransformId::KE_ML_KEM_768);
    assert_eq!(additional.to_string(), "KE_ML_KEM_768 as ADDKE2");
    let unknown = Transform::new(TransformType::ENCR, TransformId(999));
    assert_eq!(unknown.to_string(), "ENCR(999)");
}

/// Each breaks one field of [`IKE_PROPOSAL`], at an offset, with the octet it gets.
#[test]
fn broken_structures_are_refused() {
    let good = hex(IKE_PROPOSAL);
    for (what, at, octet) in [
        ("a proposal says another follows", 0, 2),
        ("a proposal has an undefined mark", 0, 1),
        ("a proposal is longer than the payload", 3, 0x2d),
        ("a proposal is shorter than its header", 3, 3),
        ("a count too large", 7, 5),
        ("a count too small", 7, 3),
        ("an SPI that swallows transforms", 6, 4),
        ("a transform has the mark of a proposal", 8, 2),
        ("a transform is longer than the proposal", 11, 0xff),
        ("an attribute is longer than the transform", 16, 0),
    ] {
        let mut bad = good.clone();
        bad[at] = octet;
        assert!(SaPayload::parse(&bad).is_err(), "{what}");
    }
    assert!(SaPayload::parse(&[]).is_err(), "no proposal");
    assert!(
        SaPayload::parse(&[&good[..], &[0]].concat()).is_err(),
        "an octet too many"
    );
}

#[test]
fn counts_are_limited() {
    let proposals = vec![ike_proposal(); MAX_PROPOSALS + 1];
    let body = emit_body(SaPayload { proposals });
    let error = SaPayload::parse(&body).unwrap_err();
    assert_eq!(
        error,
        ParseError::TooMany {
            what: "proposals",
            limit: MAX_PROPOSALS
        }
    );

    let mut proposal = ike_proposal();
    proposal.transforms = vec![proposal.transforms[3].clone(); 255];
    let body = emit_body(SaPayload {
        proposals: vec![proposal.clone(); 5],
    });
    let error = SaPayload::parse(&body).unwrap_err();
    assert_eq!(
        error,
        ParseError::TooMany {
            what: "transforms",
            limit: MAX_TRANSFORMS
        }
    );

    proposal.transforms.push(proposal.transforms[0].clone());
    let mut builder = crate::payload::ChainBuilder::new();
    builder.push(SaPayload {
        proposals: vec![proposal],
    });
    assert_eq!(builder.finish().unwrap_err().limit, 255);
}

proptest! {
    #[test]
    fn round_trip(payload in testing::sa()) {
        assert_round_trip(payload);
    }
}

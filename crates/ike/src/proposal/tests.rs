use super::*;
use cygnet_wire::payload::{ChainBuilder, Payload, parse_chain};
use cygnet_wire::sa::{Attribute, AttributeType, AttributeValue};
use proptest::prelude::*;
use proptest::sample::subsequence;

fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap()
}

fn esp(text: &str) -> EspProposal {
    text.parse().unwrap()
}

fn raw(ty: TransformType, id: u16) -> Transform {
    Transform::new(ty, TransformId(id))
}

const NEW_SPI: u32 = 0xc0ff_ee00;

fn offer(proposals: &[&str]) -> SaPayload {
    let proposals: Vec<_> = proposals.iter().map(|p| ike(p)).collect();
    offer_ike(&proposals, ProposalSpi::None)
}

#[track_caller]
fn choose(ours: &[&str], theirs: &SaPayload, sent: Option<u16>) -> String {
    let ours: Vec<_> = ours.iter().map(|p| ike(p)).collect();
    match select_ike(&[&ours], theirs, sent.map(TransformId)) {
        Ok(choice) => choice.suite.to_string(),
        Err(explanation) => explanation.to_string(),
    }
}

#[test]
fn combined_modes_and_others_are_offered_apart() {
    let mixed = IkeProposal {
        encryption: vec![Encryption::AesCbc256, Encryption::AesGcm16_128],
        integrity: vec![Integrity::HmacSha2_256_128],
        prf: vec![Prf::HmacSha2_256],
        group: vec![Group::Curve25519],
    };
    let sa = offer_ike(&[mixed], ProposalSpi::None);
    assert_eq!(sa.proposals.len(), 2);
    assert_eq!(sa.proposals[0].number, 1);
    assert_eq!(sa.proposals[1].number, 2);
    // RFC 7296 §3.3: no integrity transform beside a combined mode.
    assert_eq!(
        sa.proposals[0].transforms_of(TransformType::INTEG).count(),
        0
    );
    assert_eq!(
        sa.proposals[1].transforms_of(TransformType::INTEG).count(),
        1
    );
    assert_eq!(
        describe(&sa),
        "aes128gcm16-prfsha256-curve25519, aes256-sha256-prfsha256-curve25519"
    );
}

#[test]
fn ike_auth_offers_no_groups_and_create_child_sa_does() {
    let proposals = [esp("aes128gcm16-ecp256"), esp("aes128gcm16")];
    let sa = offer_esp(&proposals, NEW_SPI, ChildExchange::IkeAuth);
    assert_eq!(sa.proposals.len(), 1, "the two are the same without groups");
    assert_eq!(sa.proposals[0].transforms_of(TransformType::KE).count(), 0);
    let sa = offer_esp(&proposals, NEW_SPI, ChildExchange::CreateChildSa);
    assert_eq!(sa.proposals.len(), 2);
    assert_eq!(sa.proposals[0].transforms_of(TransformType::KE).count(), 1);
    assert_eq!(sa.proposals[0].spi, ProposalSpi::Child(ChildSpi(NEW_SPI)));
}

#[test]
fn the_initiators_order_decides() {
    let theirs = offer(&[
        "aes128gcm16-prfsha384-ecp256-ecp384",
        "aes256gcm16-prfsha256-curve25519",
    ]);
    let ours = [
        "aes256gcm16-prfsha256-curve25519",
        "aes256gcm16-aes128gcm16-prfsha256-prfsha384-ecp384-ecp256",
    ];
    assert_eq!(choose(&ours, &theirs, None), "aes128gcm16-prfsha384-ecp256");
}

#[test]
fn the_group_already_sent_is_taken_if_it_is_allowed() {
    let theirs = offer(&["aes128gcm16-prfsha256-ecp256-ecp384"]);
    let ours = ["aes128gcm16-prfsha256-curve25519-ecp256-ecp384"];
    assert_eq!(
        choose(&ours, &theirs, Some(20)),
        "aes128gcm16-prfsha256-ecp384"
    );
    // Sent something not even offered: the first in common.
    assert_eq!(
        choose(&ours, &theirs, Some(31)),
        "aes128gcm16-prfsha256-ecp256"
    );
}

#[test]
fn a_modern_suite_is_taken_wherever_one_is_offered() {
    // As Windows offers: old algorithms first.
    let theirs = offer(&[
        "aes256-sha256-prfsha256-modp2048",
        "aes256-sha256-prfsha256-ecp256",
        "aes256gcm16-prfsha256-modp2048-ecp256",
    ]);
    let ours = [
        "aes256-sha256-prfsha256-modp2048",
        "aes256gcm16-prfsha256-modp2048-ecp256",
    ];
    assert_eq!(
        choose(&ours, &theirs, Some(14)),
        "aes256gcm16-prfsha256-ecp256"
    );
    // Nothing modern in common: what there is.
    assert_eq!(
        choose(&ours[..1], &theirs, Some(14)),
        "aes256-sha256-prfsha256-modp2048"
    );
}

#[test]
fn another_group_than_the_one_sent_is_asked_for() {
    let theirs = offer(&["aes128gcm16-prfsha256-modp2048-ecp256"]);
    let ours = [ike("aes128gcm16-prfsha256-ecp256")];
    let choice = select_ike(&[&ours], &theirs, Some(TransformId(14))).unwrap();
    assert_eq!(choice.wrong_group(TransformId(14)), Some(Group::EcpP256));
    assert_eq!(choice.wrong_group(TransformId(19)), None);
    assert!(offers_ike_group(&ours, Group::EcpP256));
    assert!(!offers_ike_group(&ours, Group::Modp2048));
}

#[test]
fn candidates_of_all_connections_count_and_their_own_policy_judges_later() {
    let algo = [ike("aes128gcm16-prfsha512-ecp256")];
    let office = [ike("aes256gcm16-prfsha384-ecp384")];
    let theirs = offer(&["aes256gcm16-prfsha384-ecp384"]);
    let choice = select_ike(&[&algo, &office], &theirs, None).unwrap();
    assert!(allows_ike(&office, &choice.suite));
    assert!(!allows_ike(&algo, &choice.suite));
}

#[test]
fn a_mismatch_is_explained_type_by_type() {
    let mut theirs = offer(&["aes128gcm16-prfsha256-modp2048"]);
    theirs.proposals[0]
        .transforms
        .retain(|t| t.ty != TransformType::KE);
    theirs.proposals[0]
        .transforms
        .push(raw(TransformType::KE, 2));
    assert_eq!(
        choose(
            &["aes128gcm16-prfsha256-curve25519-ecp256"],
            &theirs,
            Some(2)
        ),
        "no IKE proposal in common: key exchange: peer offers modp1024; \
         this side needs one of curve25519, ecp256"
    );
    let ours = [ike("aes256gcm16-prfsha256-curve25519")];
    let explanation = select_ike(&[&ours], &theirs, None).unwrap_err();
    let kinds: Vec<_> = explanation.mismatches.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, ["encryption", "key exchange"]);
}

#[test]
fn of_several_proposals_the_closest_is_explained() {
    let theirs = offer(&[
        "aes256-sha256-prfsha384-modp2048",
        "aes256gcm16-prfsha256-ecp384",
    ]);
    let explanation = choose(&["aes256gcm16-prfsha256-ecp256"], &theirs, None);
    assert_eq!(
        explanation,
        "no IKE proposal in common (proposal 2 of 2 comes closest): key exchange: \
         peer offers ecp384; this side needs ecp256"
    );
}

#[test]
fn proposals_for_another_protocol_are_none() {
    let mut theirs = offer(&["aes256gcm16-prfsha256-ecp384"]);
    theirs.proposals[0].protocol = ProtocolId::AH;
    assert_eq!(
        choose(&["aes256gcm16-prfsha256-ecp384"], &theirs, None),
        "no IKE proposal in common: peer offers none for IKE"
    );
}

/// RFC 7296 §3.3.6: unknown types spoil a proposal, unknown transforms and attributes only
/// themselves.
#[test]
fn unknown_things_are_passed_over_as_the_rfc_says() {
    let ours = ["aes128gcm16-prfsha256-ecp256"];
    let mut theirs = offer(&ours);
    theirs.proposals[0]
        .transforms
        .insert(0, raw(TransformType::ENCR, 999));
    let mut odd = Transform::with_key_length(TransformType::ENCR, TransformId(20), 128);
    odd.attributes.push(Attribute {
        ty: AttributeType(99),
        value: AttributeValue::Short(1),
    });
    theirs.proposals[0].transforms.insert(0, odd);
    let choice = select_ike(&[&[ike(ours[0])]], &theirs, None).unwrap();
    assert_eq!(choice.suite.to_string(), ours[0]);
    let answer = choice.answer(ProposalSpi::None);
    assert_eq!(answer.proposals[0].transforms.len(), 3);

    theirs.proposals[0]
        .transforms
        .push(raw(TransformType(99), 1));
    assert!(choose(&ours, &theirs, None).contains("a transform type unknown to this side"));
}

/// RFC 9370 §2.2.2: additional key exchanges that may be NONE are chosen as NONE.
#[test]
fn additional_key_exchanges_are_declined_where_they_may_be() {
    let ours = [ike("aes128gcm16-prfsha256-ecp256")];
    let mut theirs = offer(&["aes128gcm16-prfsha256-ecp256"]);
    theirs.proposals[0]
        .transforms
        .push(raw(TransformType::ADDKE1, 36));
    assert!(select_ike(&[&ours], &theirs, None).is_err());
    theirs.proposals[0]
        .transforms
        .push(raw(TransformType::ADDKE1, 0));
    let choice = select_ike(&[&ours], &theirs, None).unwrap();
    let answer = choice.answer(ProposalSpi::None);
    let chosen: Vec<_> = answer.proposals[0]
        .transforms_of(TransformType::ADDKE1)
        .collect();
    assert_eq!(chosen, [&raw(TransformType::ADDKE1, 0)]);
    assert!(accept_ike(&theirs, &answer).is_ok());
}

#[test]
fn integrity_none_beside_a_combined_mode_is_none() {
    let ours = [ike("aes128gcm16-prfsha256-ecp256")];
    let mut theirs = offer(&["aes128gcm16-prfsha256-ecp256"]);
    theirs.proposals[0]
        .transforms
        .push(raw(TransformType::INTEG, 0));
    let choice = select_ike(&[&ours], &theirs, None).unwrap();
    assert_eq!(choice.suite.integrity, None);
    theirs.proposals[0].transforms.pop();
    theirs.proposals[0]
        .transforms
        .push(raw(TransformType::INTEG, 12));
    assert!(select_ike(&[&ours], &theirs, None).is_err());
}

#[test]
fn esn_is_preferred_whatever_the_order() {
    let ours = [esp("aes128gcm16")];
    let theirs = offer_esp(
        &[EspProposal {
            esn: vec![false, true],
            ..esp("aes128gcm16")
        }],
        NEW_SPI,
        ChildExchange::IkeAuth,
    );
    let choice = select_esp(&ours, &theirs, ChildExchange::IkeAuth, None).unwrap();
    assert!(choice.suite.esn);
    let theirs = offer_esp(&[esp("aes128gcm16-noesn")], NEW_SPI, ChildExchange::IkeAuth);
    let choice = select_esp(&ours, &theirs, ChildExchange::IkeAuth, None).unwrap();
    assert!(!choice.suite.esn);
    assert_eq!(choice.peer_spi, ChildSpi(NEW_SPI));
}

#[test]
fn sequence_numbers_are_mandatory() {
    let mut theirs = offer_esp(&[esp("aes128gcm16")], NEW_SPI, ChildExchange::IkeAuth);
    theirs.proposals[0]
        .transforms
        .retain(|t| t.ty != TransformType::SN);
    let error = select_esp(&[esp("aes128gcm16")], &theirs, ChildExchange::IkeAuth, None);
    assert_eq!(error.unwrap_err().mismatches[0].kind, "sequence numbers");
}

#[test]
fn forward_secrecy_is_agreed_on_in_create_child_sa_alone() {
    let with = esp("aes128gcm16-ecp256");
    let without = esp("aes128gcm16");
    let theirs = offer_esp(
        std::slice::from_ref(&with),
        NEW_SPI,
        ChildExchange::CreateChildSa,
    );
    let ke = Some(TransformId(19));
    let choose = |ours: &EspProposal, theirs, exchange| {
        select_esp(std::slice::from_ref(ours), theirs, exchange, ke)
    };
    let choice = choose(&with, &theirs, ChildExchange::CreateChildSa).unwrap();
    assert_eq!(choice.group, Some(Group::EcpP256));
    assert_eq!(choice.wrong_group(ke), None);
    assert_eq!(choice.wrong_group(None), Some(Group::EcpP256));
    let error = choose(&without, &theirs, ChildExchange::CreateChildSa).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no ESP proposal in common: key exchange: peer offers ecp256; this side needs none"
    );
    // A peer that names groups in IKE_AUTH all the same means the rekeys to come.
    let choice = choose(&without, &theirs, ChildExchange::IkeAuth).unwrap();
    assert_eq!(choice.group, None);
    let theirs = offer_esp(&[without], NEW_SPI, ChildExchange::CreateChildSa);
    let error = choose(&with, &theirs, ChildExchange::CreateChildSa).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no ESP proposal in common: key exchange: peer offers none; this side needs ecp256"
    );
}

/// A group that is not modern is demanded all the same.
#[test]
fn forward_secrecy_by_modp_is_not_skipped() {
    let exchange = ChildExchange::CreateChildSa;
    let ours = [esp("aes256gcm16-modp2048")];
    let theirs = offer_esp(&[esp("aes256gcm16")], NEW_SPI, exchange);
    assert!(select_esp(&ours, &theirs, exchange, None).is_err());
    let theirs = offer_esp(&[esp("aes256gcm16-modp2048")], NEW_SPI, exchange);
    let choice = select_esp(&ours, &theirs, exchange, None).unwrap();
    assert_eq!(choice.group, Some(Group::Modp2048));
}

#[test]
fn the_defaults_meet_peers_with_and_without_forward_secrecy() {
    for peer in ["aes256gcm16", "aes256gcm16-ecp384"] {
        let peer = [esp(peer)];
        let exchange = ChildExchange::CreateChildSa;
        let theirs = offer_esp(&peer, NEW_SPI, exchange);
        let choice = select_esp(&default_esp(true), &theirs, exchange, None).unwrap();
        assert_eq!(choice.group, peer[0].group.first().copied());
        let ours = offer_esp(&default_esp(true), NEW_SPI, exchange);
        let choice = select_esp(&peer, &ours, exchange, None).unwrap();
        assert!(accept_esp(&ours, &choice.answer(0x1234)).is_ok());
    }
}

#[test]
fn reserved_and_odd_spis_are_refused() {
    let proposals = [esp("aes128gcm16-esn")];
    for spi in [
        ProposalSpi::None,
        ProposalSpi::Child(ChildSpi(255)),
        ProposalSpi::Ike(Spi(1)),
    ] {
        let mut sa = offer_esp(&proposals, NEW_SPI, ChildExchange::IkeAuth);
        sa.proposals[0].spi = spi;
        let error = select_esp(&proposals, &sa, ChildExchange::IkeAuth, None).unwrap_err();
        assert!(error.unusable_spi, "{error}");
        let answer = sa.clone();
        assert_eq!(accept_esp(&sa, &answer), Err(AnswerError::Spi));
    }
    let proposals = [ike("aes128gcm16-prfsha256-ecp256")];
    let sa = offer_ike(&proposals, ProposalSpi::Ike(Spi(7)));
    let choice = select_ike(&[&proposals], &sa, None).unwrap();
    assert_eq!(choice.peer_spi, Some(Spi(7)));
    let sa = offer_ike(&proposals, ProposalSpi::Ike(Spi::ZERO));
    assert!(select_ike(&[&proposals], &sa, None).is_err());
}

#[test]
fn an_answer_picks_one_of_each_type_that_was_offered() {
    let offered = offer(&["aes256gcm16-aes128gcm16-prfsha256-ecp256-curve25519"]);
    let right = select_ike(
        &[&[ike("aes128gcm16-prfsha256-curve25519")]],
        &offered,
        None,
    )
    .unwrap()
    .answer(ProposalSpi::None);
    assert_eq!(
        accept_ike(&offered, &right).unwrap().suite.to_string(),
        "aes128gcm16-prfsha256-curve25519"
    );

    let refused = |change: &dyn Fn(&mut SaPayload)| {
        let mut answer = right.clone();
        change(&mut answer);
        accept_ike(&offered, &answer).unwrap_err()
    };
    assert_eq!(
        refused(&|sa| sa.proposals.clear()),
        AnswerError::Count { got: 0 }
    );
    assert_eq!(
        refused(&|sa| sa.proposals.push(sa.proposals[0].clone())),
        AnswerError::Count { got: 2 }
    );
    assert!(matches!(
        refused(&|sa| sa.proposals[0].number = 2),
        AnswerError::NotOffered { number: 2, .. }
    ));
    assert!(matches!(
        refused(&|sa| sa.proposals[0].protocol = ProtocolId::ESP),
        AnswerError::NotOffered { .. }
    ));
    let downgraded = refused(&|sa| {
        let ke = sa.proposals[0].transforms.iter_mut();
        ke.for_each(|t| {
            if t.ty == TransformType::KE {
                t.id = TransformId(2);
            }
        });
    });
    assert_eq!(
        downgraded.to_string(),
        "the peer chose modp1024 for key exchange, expected one of ecp256, curve25519"
    );
    assert!(matches!(
        refused(&|sa| sa.proposals[0]
            .transforms
            .retain(|t| t.ty != TransformType::PRF)),
        AnswerError::Transform {
            kind: "pseudorandom function",
            ..
        }
    ));
    assert!(matches!(
        refused(&|sa| {
            let twice = sa.proposals[0].transforms[0].clone();
            sa.proposals[0].transforms.push(twice);
        }),
        AnswerError::Transform {
            kind: "encryption",
            ..
        }
    ));
    assert!(matches!(
        refused(&|sa| sa.proposals[0]
            .transforms
            .push(raw(TransformType::INTEG, 12))),
        AnswerError::Transform {
            kind: "integrity",
            ..
        }
    ));
}

#[test]
fn integrity_none_in_an_answer_says_nothing() {
    let offered = offer(&["aes256gcm16-prfsha256-ecp256"]);
    let mut answer = offered.clone();
    answer.proposals[0]
        .transforms
        .push(raw(TransformType::INTEG, 0));
    assert_eq!(accept_ike(&offered, &answer).unwrap().suite.integrity, None);
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    subsequence(Group::ALL.to_vec(), 1..=Group::ALL.len()).prop_shuffle()
}

/// Encryption with the integrity algorithms it needs.
fn ciphers() -> impl Strategy<Value = (Vec<Encryption>, Vec<Integrity>)> {
    let (aead, cbc): (Vec<_>, Vec<_>) = Encryption::ALL.iter().partition(|e| e.is_aead());
    let (aeads, cbcs) = (aead.len(), cbc.len());
    prop_oneof![
        subsequence(aead, 1..=aeads)
            .prop_shuffle()
            .prop_map(|e| (e, Vec::new())),
        (
            subsequence(cbc, 1..=cbcs).prop_shuffle(),
            subsequence(Integrity::ALL.to_vec(), 1..=3).prop_shuffle()
        ),
    ]
}

fn ike_proposals() -> impl Strategy<Value = Vec<IkeProposal>> {
    let proposal = (
        ciphers(),
        subsequence(Prf::ALL.to_vec(), 1..=3).prop_shuffle(),
        groups(),
    )
        .prop_map(|((encryption, integrity), prf, group)| IkeProposal {
            encryption,
            integrity,
            prf,
            group,
        });
    proptest::collection::vec(proposal, 1..5)
}

fn esp_proposals() -> impl Strategy<Value = Vec<EspProposal>> {
    let esn = prop_oneof![Just(vec![true]), Just(vec![false]), Just(vec![true, false])];
    let group = prop_oneof![Just(Vec::new()), groups()];
    let proposal =
        (ciphers(), group, esn).prop_map(|((encryption, integrity), group, esn)| EspProposal {
            encryption,
            integrity,
            group,
            esn,
        });
    proptest::collection::vec(proposal, 1..5)
}

/// Through the bytes of a message and back.
fn over_the_wire(sa: SaPayload) -> SaPayload {
    let mut chain = ChainBuilder::new();
    chain.push(sa);
    let chain = chain.finish().unwrap();
    let mut payloads = parse_chain(chain.first, &chain.bytes).unwrap();
    match payloads.remove(0) {
        Payload::Sa(sa) => sa,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_the_responder_chooses_the_initiator_accepts(
        initiator in ike_proposals(),
        responder in ike_proposals(),
        sent in groups(),
    ) {
        let offered = offer_ike(&initiator, ProposalSpi::None);
        let received = over_the_wire(offered.clone());
        prop_assert_eq!(&received, &offered);
        let sent = Some(TransformId(sent[0].to_wire()));
        match select_ike(&[&responder], &received, sent) {
            Ok(choice) => {
                prop_assert!(allows_ike(&initiator, &choice.suite));
                prop_assert!(allows_ike(&responder, &choice.suite));
                let answer = over_the_wire(choice.answer(ProposalSpi::None));
                prop_assert_eq!(accept_ike(&offered, &answer).unwrap().suite, choice.suite);
            }
            Err(explanation) => {
                prop_assert!(!explanation.mismatches.is_empty());
                for i in &initiator {
                    for r in &responder {
                        let shared = i.encryption.iter().any(|x| r.encryption.contains(x))
                            && i.prf.iter().any(|x| r.prf.contains(x))
                            && i.group.iter().any(|x| r.group.contains(x))
                            && (i.integrity.iter().any(|x| r.integrity.contains(x))
                                || i.integrity.is_empty() && r.integrity.is_empty());
                        prop_assert!(!shared, "{i} and {r} have a suite in common");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_responder_chooses_for_a_child_the_initiator_accepts(
        initiator in esp_proposals(),
        responder in esp_proposals(),
        auth in any::<bool>(),
    ) {
        let exchange = if auth { ChildExchange::IkeAuth } else { ChildExchange::CreateChildSa };
        let offered = offer_esp(&initiator, NEW_SPI, exchange);
        let received = over_the_wire(offered.clone());
        if let Ok(choice) = select_esp(&responder, &received, exchange, None) {
            prop_assert!(!auth || choice.group.is_none());
            for side in [&initiator, &responder] {
                let same_group = |p: &EspProposal| match choice.group {
                    Some(group) => p.group.contains(&group),
                    None => auth || p.group.is_empty(),
                };
                let allows = |p: &EspProposal| {
                    same_group(p)
                        && p.encryption.contains(&choice.suite.encryption)
                        && p.esn.contains(&choice.suite.esn)
                        && choice.suite.integrity.is_none_or(|i| p.integrity.contains(&i))
                };
                prop_assert!(side.iter().any(allows));
            }
            let answer = over_the_wire(choice.answer(0x1234));
            let accepted = accept_esp(&offered, &answer).unwrap();
            prop_assert_eq!(accepted.suite, choice.suite);
            prop_assert_eq!(accepted.group, choice.group);
            prop_assert_eq!(accepted.peer_spi, ChildSpi(0x1234));
        }
    }
}

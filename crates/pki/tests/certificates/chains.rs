//! Paths made by openssl, judged by `validate_chain` and, where it judges the same property, by `openssl verify`: each
//! refusal is the exact one, and the two agree.

use crate::openssl::{Agree, CA, LEAF, Lab, Make, NOW, at, case, judge, make, refusal};
use cygnet_pki::{ChainError, Crls, PeerRole, validate_chain};

#[test]
fn good_chains() {
    let lab = Lab::new("good");
    lab.root("root");
    lab.make(make("inter", "/O=lab/CN=inter", "root", CA));
    lab.make(make("direct", "/C=XX/O=lab/CN=direct", "root", LEAF));
    lab.make(make("below", "/C=XX/O=lab/CN=below", "inter", LEAF));
    lab.root("other");

    let peer = judge(&lab, case("direct", &[], &["root"])).expect("direct");
    assert_eq!(peer.subject.to_string(), "C=XX, O=lab, CN=direct");
    assert_eq!(peer.issuer.to_string(), "O=lab, CN=root");
    assert_eq!(peer.anchor.to_string(), "O=lab, CN=root");
    assert_eq!(peer.sans.len(), 1);
    assert_eq!(peer.sans[0].to_string(), "DNS:gw.example.org");
    // 2036-01-01 00:00 UTC.
    assert_eq!(peer.not_after, at(2_082_758_400));
    assert_eq!(peer.serial, [0x10, 0x02]);
    assert!(peer.warnings.is_empty());
    let spki = lab.openssl(&["pkey", "-in", "direct.key", "-pubout", "-outform", "DER"]);
    assert_eq!(peer.spki, spki.stdout);

    judge(&lab, case("below", &["inter"], &["root"])).expect("below");
    // In any order, with what does not belong there, and with the root sent along.
    judge(
        &lab,
        case(
            "below",
            &["other", "direct", "root", "inter"],
            &["other", "root"],
        ),
    )
    .expect("disorder");
    // An intermediate as the anchor: openssl has a switch for that.
    let mut partial = case("below", &[], &["inter"]);
    partial.agree = Agree::With(&["-partial_chain"]);
    assert_eq!(
        judge(&lab, partial).expect("partial").anchor.to_string(),
        "O=lab, CN=inter"
    );
    // Exactly the trusted end entity.
    let mut pinned = case("below", &[], &["below"]);
    pinned.agree = Agree::With(&["-partial_chain"]);
    judge(&lab, pinned).expect("pinned");
    // What the peer sends beside its chain may be garbage.
    let (below, inter) = (lab.der("below"), lab.der("inter"));
    validate_chain(
        &below,
        &[b"\x30\x03garbage", &inter],
        &lab.anchors(&["root"]),
        &Crls::default(),
        PeerRole::Responder,
        Some(at(NOW)),
    )
    .expect("garbage is passed over");
}

#[test]
fn dates_of_every_certificate_count() {
    let lab = Lab::new("dates");
    lab.root("root");
    lab.make(Make {
        to: "20270101000000Z",
        ..make("old", "/CN=alice", "root", LEAF)
    });
    lab.make(Make {
        from: "20280101120000Z",
        ..make("early", "/CN=early", "root", LEAF)
    });
    lab.make(Make {
        to: "20270401000000Z",
        ..make("oldinter", "/CN=oldinter", "root", CA)
    });
    lab.make(make("underold", "/CN=underold", "oldinter", LEAF));
    lab.make(Make {
        to: "20270501000000Z",
        ..make("oldroot", "/CN=oldroot", "oldroot", CA)
    });
    lab.make(make("leafofold", "/CN=leafofold", "oldroot", LEAF));

    let error = refusal(&lab, case("old", &[], &["root"]));
    assert_eq!(
        error,
        ChainError::Expired {
            subject: "CN=alice".into(),
            on: "2027-01-01".into(),
            authority: false
        }
    );
    assert_eq!(
        error.to_string(),
        "certificate CN=alice expired 2027-01-01; renew it on the server (the authority that issued it)"
    );
    // To the second, as RFC 5280 §4.1.2.5 has it: notAfter itself is still within.
    for (now, good) in [(1_798_761_600, true), (1_798_761_601, false)] {
        let mut edge = case("old", &[], &["root"]);
        edge.now = now;
        // openssl already refuses at notAfter itself.
        edge.agree = if good {
            Agree::NotJudged
        } else {
            Agree::With(&[])
        };
        assert_eq!(judge(&lab, edge).is_ok(), good, "{now}");
    }
    assert_eq!(
        refusal(&lab, case("early", &[], &["root"])),
        ChainError::NotYetValid {
            subject: "CN=early".into(),
            from: "2028-01-01 12:00 UTC".into(),
            now: "2027-06-15 12:00 UTC".into()
        }
    );
    assert_eq!(
        refusal(&lab, case("underold", &["oldinter"], &["root"])),
        ChainError::Expired {
            subject: "CN=oldinter".into(),
            on: "2027-04-01".into(),
            authority: true
        }
    );
    assert_eq!(
        refusal(&lab, case("leafofold", &[], &["oldroot"])),
        ChainError::Expired {
            subject: "CN=oldroot".into(),
            on: "2027-05-01".into(),
            authority: true
        }
    );
    let unset = validate_chain(
        &lab.der("early"),
        &[],
        &lab.anchors(&["root"]),
        &Crls::default(),
        PeerRole::Responder,
        None,
    );
    assert_eq!(
        unset,
        Err(ChainError::ClockNotSet {
            subject: "CN=early".into()
        })
    );
}

#[test]
fn no_path() {
    let lab = Lab::new("nopath");
    lab.root("root");
    lab.root("stranger");
    lab.make(make("inter", "/CN=inter", "root", CA));
    lab.make(make("leaf", "/CN=leaf", "inter", LEAF));
    lab.make(make("own", "/CN=own", "own", LEAF));

    assert_eq!(
        refusal(&lab, case("leaf", &[], &["root"])),
        ChainError::UnknownIssuer {
            subject: "CN=leaf".into(),
            issuer: "CN=inter".into()
        }
    );
    assert_eq!(
        refusal(&lab, case("leaf", &["inter"], &["stranger"])),
        ChainError::UnknownIssuer {
            subject: "CN=inter".into(),
            issuer: "O=lab, CN=root".into()
        }
    );
    assert_eq!(
        refusal(&lab, case("leaf", &["inter", "root"], &["stranger"])),
        ChainError::SelfSigned {
            subject: "O=lab, CN=root".into()
        }
    );
    assert_eq!(
        refusal(&lab, case("own", &[], &["root"])),
        ChainError::SelfSigned {
            subject: "CN=own".into()
        }
    );
    // The same name, another key: once without and once with key identifiers.
    let bare = "basicConstraints=critical,CA:TRUE\n";
    lab.make(make("twin", "/O=lab/CN=root", "twin", bare));
    lab.make(make("direct", "/CN=direct", "root", LEAF));
    lab.make(make(
        "nokeyid",
        "/CN=nokeyid",
        "root",
        "subjectAltName=DNS:a\n",
    ));
    for leaf in ["direct", "nokeyid"] {
        assert_eq!(
            refusal(&lab, case(leaf, &[], &["twin"])),
            ChainError::BadSignature {
                subject: format!("CN={leaf}"),
                issuer: "O=lab, CN=root".into()
            }
        );
    }
    // Both are trusted, as after an authority changed its key: the right one is found.
    judge(&lab, case("direct", &[], &["twin", "root"])).expect("the second of that name");
    // One bit of the signature.
    let mut altered = lab.der("direct");
    *altered.last_mut().expect("not empty") ^= 1;
    lab.write(
        "altered.pem",
        cygnet_pki::authority::to_pem("CERTIFICATE", &altered),
    );
    assert!(matches!(
        refusal(&lab, case("altered", &[], &["root"])),
        ChainError::BadSignature { .. }
    ));
}

#[test]
fn long_and_looping_chains_end() {
    let lab = Lab::new("long");
    lab.root("ca0");
    let names: Vec<_> = (0..=7).map(|at| format!("ca{at}")).collect();
    for (above, name) in names.iter().zip(names.iter().skip(1)) {
        lab.make(make(name, &format!("/CN={name}"), above, CA));
    }
    lab.make(make("eight", "/CN=eight", "ca6", LEAF));
    lab.make(make("nine", "/CN=nine", "ca7", LEAF));
    let sent: Vec<_> = names.iter().skip(1).map(String::as_str).collect();
    judge(&lab, case("eight", &sent, &["ca0"])).expect("eight certificates");
    let mut nine = case("nine", &sent, &["ca0"]);
    // openssl's own limit is 100.
    nine.agree = Agree::NotJudged;
    assert_eq!(
        refusal(&lab, nine),
        ChainError::TooLong {
            subject: "CN=nine".into(),
            limit: 8
        }
    );

    // Two authorities that certify each other.
    lab.make(make("a", "/CN=a", "a", CA));
    lab.make(make("b", "/CN=b", "a", CA));
    lab.make(make("leaf", "/CN=leaf", "a", LEAF));
    lab.share_key("a", "abyb");
    lab.make(make("abyb", "/CN=a", "b", CA));
    assert_eq!(
        refusal(&lab, case("leaf", &["abyb", "b"], &["ca0"])),
        ChainError::Loop {
            subject: "CN=leaf".into(),
            at: "CN=a".into()
        }
    );
    // The loop does no harm where there is also a way out.
    judge(&lab, case("leaf", &["abyb", "b"], &["ca0", "a"])).expect("a is trusted");
}

#[test]
fn a_maze_of_valid_signatures_is_left_in_time() {
    let lab = Lab::new("maze");
    lab.root("root");
    lab.make(make("nowhere", "/CN=nowhere", "nowhere", CA));
    // Two certificates a level, either signed by the key of the level above: 2 + 4 + 8 + … paths, all signatures
    // right, none to an anchor.
    let mut sent = Vec::new();
    let mut above = "nowhere".to_string();
    lab.key("x", "ec:P-256");
    for level in 0..6 {
        let subject = format!("/CN=level{level}");
        for twin in ["x", "y"] {
            let name = format!("level{level}{twin}");
            lab.share_key("x", &name);
            lab.make(make(&name, &subject, &above, CA));
            sent.push(name);
        }
        above = format!("level{level}x");
    }
    lab.make(make("leaf", "/CN=leaf", &above, LEAF));
    let sent: Vec<_> = sent.iter().map(String::as_str).collect();
    assert_eq!(
        refusal(&lab, case("leaf", &sent, &["root"])),
        ChainError::TooComplex {
            subject: "CN=leaf".into(),
            limit: 40
        }
    );
    // The same maze with the way out among the anchors.
    judge(&lab, case("leaf", &sent, &["nowhere"])).expect("a way out");
}

#[test]
fn a_refused_path_does_not_hide_a_good_one() {
    let lab = Lab::new("cross");
    lab.root("root");
    lab.make(make("inter", "/CN=inter", "root", CA));
    lab.share_key("inter", "expired");
    lab.make(Make {
        to: "20270101000000Z",
        ..make("expired", "/CN=inter", "root", CA)
    });
    lab.make(make("leaf", "/CN=leaf", "inter", LEAF));
    judge(&lab, case("leaf", &["expired", "inter"], &["root"])).expect("the newer one");
    assert!(matches!(
        refusal(&lab, case("leaf", &["expired"], &["root"])),
        ChainError::Expired { .. }
    ));
}

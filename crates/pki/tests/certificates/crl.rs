//! Revocation by CRLs that openssl made, compared with `openssl verify -crl_check_all`.

use crate::openssl::{CA, LEAF, Lab, NOW, at, crls, make};
use cygnet_pki::{
    ChainError, CrlPolicy, PeerRole, SignedCrl, ValidatedPeer, chain::MAX_SIGNATURES,
    validate_chain,
};

const FROM: &str = "20270601000000Z";
const TO: &str = "20270701000000Z";

fn judge(
    lab: &Lab,
    leaf: &str,
    policy: CrlPolicy,
    lists: &[Vec<u8>],
) -> Result<ValidatedPeer, ChainError> {
    validate_chain(
        &lab.der(leaf),
        &[&lab.der("inter")],
        &lab.anchors(&["root"]),
        &crls(policy, lists),
        PeerRole::Responder,
        Some(at(NOW)),
    )
}

/// With every certificate covered, openssl and `Required` judge the same.
fn agree(lab: &Lab, leaf: &str, lists: &[Vec<u8>]) -> Result<ValidatedPeer, ChainError> {
    let ours = judge(lab, leaf, CrlPolicy::Required, lists);
    let theirs = lab.verify(leaf, &["inter"], &["root"], lists, NOW, &["-crl_check_all"]);
    assert_eq!(
        ours.is_ok(),
        theirs.is_ok(),
        "{leaf}: ours {ours:?}, openssl {theirs:?}"
    );
    ours
}

fn world(name: &str) -> Lab {
    let lab = Lab::new(name);
    lab.root("root");
    lab.make(make("inter", "/CN=inter", "root", CA));
    lab.make(make("alice", "/CN=alice", "inter", LEAF));
    lab.make(make("bob", "/CN=bob", "inter", LEAF));
    lab
}

#[test]
fn revoked_certificates_are_refused_with_date_and_reason() {
    let lab = world("revoked");
    let root = lab.crl("root", &[], FROM, TO);
    let inter = lab.crl(
        "inter",
        &[("alice", "270610080000Z", "keyCompromise")],
        FROM,
        TO,
    );
    let lists = [root.clone(), inter];
    let error = agree(&lab, "alice", &lists).expect_err("revoked");
    assert_eq!(
        error,
        ChainError::Revoked {
            subject: "CN=alice".into(),
            serial: "1002".into(),
            on: "2027-06-10".into(),
            reason: "keyCompromise".into()
        }
    );
    assert_eq!(
        error.to_string(),
        "certificate CN=alice (serial 1002) was revoked by its issuer on 2027-06-10, reason: keyCompromise; \
         issue a new one if the peer is still welcome"
    );
    assert!(
        agree(&lab, "bob", &lists)
            .expect("not listed")
            .warnings
            .is_empty()
    );
    assert_eq!(
        judge(&lab, "alice", CrlPolicy::IfPresent, &lists[1..]),
        Err(error)
    );
    judge(&lab, "alice", CrlPolicy::Ignore, &lists).expect("not looked at");

    // An authority on the way.
    let root = lab.crl(
        "root",
        &[("inter", "270602000000Z", "CACompromise")],
        FROM,
        TO,
    );
    let inter = lab.crl("inter", &[], FROM, TO);
    assert_eq!(
        agree(&lab, "bob", &[root, inter]),
        Err(ChainError::Revoked {
            subject: "CN=inter".into(),
            serial: "1001".into(),
            on: "2027-06-02".into(),
            reason: "cACompromise".into()
        })
    );
}

#[test]
fn required_lists_have_to_be_there_and_current() {
    let lab = world("required");
    let root = lab.crl("root", &[], FROM, TO);
    let inter = lab.crl("inter", &[], FROM, TO);
    agree(&lab, "bob", &[root.clone(), inter.clone()]).expect("covered");
    let lacking = |subject: &str, issuer: &str, why: &str| {
        Err(ChainError::NoCurrentCrl {
            subject: subject.into(),
            issuer: issuer.into(),
            why: why.into(),
        })
    };
    let none = "no CRL of its issuer is installed";
    assert_eq!(agree(&lab, "bob", &[]), lacking("CN=bob", "CN=inter", none));
    assert_eq!(
        agree(&lab, "bob", std::slice::from_ref(&inter)),
        lacking("CN=inter", "O=lab, CN=root", none)
    );

    let stale = lab.crl(
        "inter",
        &[("alice", "270502000000Z", "superseded")],
        "20270501000000Z",
        "20270601000000Z",
    );
    assert_eq!(
        agree(&lab, "bob", &[root.clone(), stale.clone()]),
        lacking(
            "CN=bob",
            "CN=inter",
            "the CRL of its issuer is of no use: it expired 2027-06-01"
        )
    );
    // By default a stale list warns, and still revokes.
    let peer = judge(
        &lab,
        "bob",
        CrlPolicy::IfPresent,
        std::slice::from_ref(&stale),
    )
    .expect("a warning only");
    assert_eq!(
        peer.warnings,
        ["the CRL of CN=inter is of no use: it expired 2027-06-01; install a current one"]
    );
    assert!(matches!(
        judge(
            &lab,
            "alice",
            CrlPolicy::IfPresent,
            std::slice::from_ref(&stale)
        ),
        Err(ChainError::Revoked { .. })
    ));
    // The newest one counts: alice is welcome again, in either order of the files.
    for lists in [[stale.clone(), inter.clone()], [inter, stale]] {
        let peer = judge(&lab, "alice", CrlPolicy::IfPresent, &lists).expect("no longer listed");
        assert!(peer.warnings.is_empty(), "{:?}", peer.warnings);
    }
    let future = lab.crl("inter", &[], "20270620000000Z", TO);
    assert_eq!(
        agree(&lab, "bob", &[root, future]),
        lacking(
            "CN=bob",
            "CN=inter",
            "the CRL of its issuer is of no use: it is not valid before 2027-06-20"
        )
    );
}

/// The clock of a board may be behind the one that the list was made by.
#[test]
fn a_list_of_the_future_revokes_and_makes_up_for_none_of_today() {
    let lab = world("future");
    let listed = [("alice", "270619000000Z", "keyCompromise")];
    let today = lab.crl("inter", &listed, FROM, TO);
    let future = lab.crl("inter", &listed, "20270620000000Z", TO);
    let empty = lab.crl("inter", &[], "20270620000000Z", TO);
    let revoked = |lists: &[Vec<u8>]| {
        let judged = judge(&lab, "alice", CrlPolicy::IfPresent, lists);
        matches!(judged, Err(ChainError::Revoked { .. }))
    };
    assert!(revoked(std::slice::from_ref(&future)));
    assert!(revoked(&[today.clone(), empty.clone()]));
    assert!(revoked(&[empty.clone(), today]));
    assert!(!revoked(std::slice::from_ref(&empty)));
    let bob = judge(&lab, "bob", CrlPolicy::IfPresent, &[future]).expect("not listed");
    assert_eq!(
        bob.warnings,
        [
            "the CRL of CN=inter is of no use: it is not valid before 2027-06-20; install a current one"
        ]
    );
}

#[test]
fn lists_that_are_not_the_issuers_say_nothing() {
    let lab = world("foreign");
    let root = lab.crl("root", &[], FROM, TO);
    // A stranger of the same name, without the key.
    lab.make(make("posing", "/CN=inter", "posing", CA));
    let forged = lab.crl(
        "posing",
        &[("bob", "270610080000Z", "keyCompromise")],
        FROM,
        TO,
    );
    let peer = judge(
        &lab,
        "bob",
        CrlPolicy::IfPresent,
        std::slice::from_ref(&forged),
    )
    .expect("ignored");
    assert_eq!(
        peer.warnings,
        [
            "the CRL of CN=inter is of no use: it does not carry its issuer's signature; install a current one"
        ]
    );
    assert!(agree(&lab, "bob", &[root.clone(), forged]).is_err());
    // Another authority's list is no concern of this chain.
    lab.root("other");
    let other = lab.crl(
        "other",
        &[("bob", "270610080000Z", "keyCompromise")],
        FROM,
        TO,
    );
    let peer = judge(&lab, "bob", CrlPolicy::IfPresent, &[other]).expect("not its issuer");
    assert!(peer.warnings.is_empty());

    // An authority that may not sign CRLs.
    lab.make(make(
        "inter",
        "/CN=inter",
        "root",
        "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign\n",
    ));
    lab.make(make(
        "carol",
        "/CN=carol",
        "inter",
        "subjectAltName=DNS:a\n",
    ));
    let inter = lab.crl("inter", &[], FROM, TO);
    assert_eq!(
        agree(&lab, "carol", &[root, inter]).map(|_| ()),
        Err(ChainError::NoCurrentCrl {
            subject: "CN=carol".into(),
            issuer: "CN=inter".into(),
            why: "the CRL of its issuer is of no use: its issuer's keyUsage lacks cRLSign".into()
        })
    );
}

#[test]
fn a_list_is_known_for_an_anchors_own_before_there_is_a_chain() {
    let lab = world("signed");
    let anchors = lab.anchors(&["root"]);
    let first = lab.crl("root", &[], FROM, TO);
    let second = lab.crl("root", &[], "20270602000000Z", TO);
    let verify = |der: &[u8]| SignedCrl::verify(der, &anchors);
    let (old, new) = (
        verify(&first).expect("good"),
        verify(&second).expect("good"),
    );
    assert!(old.is_older_than(&new) && !new.is_older_than(&old) && !new.is_older_than(&new));
    assert_eq!(new.this_update() - old.this_update(), 86_400);
    assert!(
        old.next_update()
            .is_some_and(|next| next > old.this_update())
    );

    let mut forged = first.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    let refused = |der: &[u8]| verify(der).expect_err("refused").to_string();
    assert!(refused(&forged).contains("does not carry its issuer's signature"));
    assert!(refused(&lab.crl("inter", &[], FROM, TO)).contains("none of the authorities in `ca`"));
    let future = lab.crl("root", &[], "20370601000000Z", "20370701000000Z");
    let future = verify(&future).expect("whose clock is wrong remains to be seen");
    assert!(new.is_older_than(&future));
    assert!(refused(b"<html>").contains("expected one X.509 CRL"));
    let stale = lab.crl("root", &[], "20270401000000Z", "20270501000000Z");
    assert!(verify(&stale).is_ok(), "it still revokes what it lists");
}

#[test]
fn no_list_of_another_part_or_key_takes_the_place_of_one() {
    let lab = world("parts");
    let revoked = [("alice", "270610080000Z", "keyCompromise")];
    let later = "20270602000000Z";
    let list = |revoked: &[_], from, scope| lab.crl_of_scope("inter", revoked, from, TO, scope);
    let users = Some("onlyuser=TRUE");
    let authorities = Some("onlyCA=TRUE");
    let (one, two) = (
        Some("fullname=URI:http://ca.example.org/1.crl"),
        Some("fullname=URI:http://ca.example.org/2.crl"),
    );
    for (scope, other) in [
        (None, users),
        (None, authorities),
        (users, None),
        (users, authorities),
        (one, two),
    ] {
        let mut lists = vec![list(&revoked, FROM, scope), list(&[], later, other)];
        for _ in 0..2 {
            let peer = judge(&lab, "alice", CrlPolicy::IfPresent, &lists);
            let is_revoked = matches!(peer, Err(ChainError::Revoked { .. }));
            assert!(is_revoked, "{scope:?} {other:?}: {peer:?}");
            judge(&lab, "bob", CrlPolicy::IfPresent, &lists).expect("not listed");
            lists.reverse();
        }
        // The next of the same part does.
        lists.push(list(&[], later, scope));
        judge(&lab, "alice", CrlPolicy::IfPresent, &lists).expect("no longer listed");

        let anchors = lab.anchors(&["inter"]);
        let verify = |der: &[u8]| SignedCrl::verify(der, &anchors).expect("good");
        let (first, second) = (
            verify(&list(&[], FROM, scope)),
            verify(&list(&[], later, other)),
        );
        assert!(!first.is_of_series(&second) && !first.is_older_than(&second));
        assert!(first.is_older_than(&verify(&list(&[], later, scope))));
    }

    // Two authorities of one name, as when a key is changed.
    let before = list(&[], FROM, None);
    let old = lab.der("inter");
    lab.make(make("again", "/CN=inter", "again", CA));
    let mut anchors = lab.anchors(&["again"]);
    anchors.add(old).expect("a certificate");
    let after = lab.crl("again", &[], later, TO);
    let verify = |der: &[u8]| SignedCrl::verify(der, &anchors).expect("good");
    assert!(!verify(&before).is_older_than(&verify(&after)));
}

/// A list has megabytes, and who shows a certificate has proven nothing yet.
#[test]
fn what_was_found_of_a_lists_signature_is_remembered() {
    let lab = world("remembered");
    let made = |n: usize| lab.crl("inter", &[], &format!("202706010000{n:02}Z"), TO);
    let lists: Vec<_> = (0..MAX_SIGNATURES).map(made).collect();
    let lists = crls(CrlPolicy::IfPresent, &lists);
    let judge = |lists| {
        validate_chain(
            &lab.der("bob"),
            &[&lab.der("inter")],
            &lab.anchors(&["root"]),
            lists,
            PeerRole::Responder,
            Some(at(NOW)),
        )
    };
    // Those of the chain and the lists are more than are checked for one peer.
    let error = judge(&lists).expect_err("too many at once");
    assert!(matches!(error, ChainError::TooComplex { .. }), "{error}");
    judge(&lists.clone()).expect("few are left");
}

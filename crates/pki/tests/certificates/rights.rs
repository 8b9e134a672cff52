//! What certificates say about their use: authority, key usage, extended key usage, critical extensions, algorithms.
//! Judged as in `chains.rs`.

use crate::openssl::{Agree, CA, LEAF, Lab, Make, NOW, at, case, judge, make, refusal};
use cygnet_pki::{ChainError, Crls, PeerRole, validate_chain};

#[test]
fn authorities_are_authorities() {
    let lab = Lab::new("authorities");
    lab.make(make(
        "zero",
        "/CN=zero",
        "zero",
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n",
    ));
    lab.make(make("inter", "/CN=inter", "zero", CA));
    lab.make(make("deep", "/CN=deep", "inter", LEAF));
    lab.make(make("shallow", "/CN=shallow", "zero", LEAF));
    assert_eq!(
        refusal(&lab, case("deep", &["inter"], &["zero"])),
        ChainError::PathLength {
            subject: "CN=zero".into(),
            allowed: 0,
            found: 1
        }
    );
    judge(&lab, case("shallow", &[], &["zero"])).expect("directly below");

    // A self-issued certificate (a changed key) does not count (RFC 5280 §4.2.1.9).
    lab.make(make("rollover", "/CN=zero", "zero", CA));
    lab.make(make("after", "/CN=after", "rollover", LEAF));
    judge(&lab, case("after", &["rollover"], &["zero"])).expect("a changed key");

    lab.make(make("posing", "/CN=posing", "shallow", LEAF));
    assert_eq!(
        refusal(&lab, case("posing", &["shallow"], &["zero"])),
        ChainError::NotAnAuthority {
            subject: "CN=shallow".into(),
            issued: "CN=posing".into()
        }
    );
    lab.make(make("old", "/CN=old", "old", ""));
    lab.make(make("ofold", "/CN=ofold", "old", "subjectAltName=DNS:a\n"));
    let mut without = case("ofold", &[], &["old"]);
    // openssl lets a self-signed certificate without basicConstraints pass as an old root.
    without.agree = Agree::NotJudged;
    assert_eq!(
        refusal(&lab, without),
        ChainError::NotAnAuthority {
            subject: "CN=old".into(),
            issued: "CN=ofold".into()
        }
    );
    lab.make(make(
        "mute",
        "/CN=mute",
        "mute",
        "basicConstraints=CA:TRUE\nkeyUsage=cRLSign,digitalSignature\n",
    ));
    lab.make(make("ofmute", "/CN=ofmute", "mute", LEAF));
    assert_eq!(
        refusal(&lab, case("ofmute", &[], &["mute"])),
        ChainError::KeyUsage {
            subject: "CN=mute".into(),
            needed: "keyCertSign"
        }
    );
}

#[test]
fn usages() {
    let lab = Lab::new("usages");
    lab.root("root");
    let leaf = |name: &str, extensions: &str| {
        lab.make(make(name, &format!("/CN={name}"), "root", extensions));
    };
    // RFC 4945 §5.1.3.2: digitalSignature or nonRepudiation, or no keyUsage at all.
    leaf("agree", "keyUsage=keyAgreement\n");
    leaf("sign", "keyUsage=nonRepudiation\n");
    leaf("any", "");
    let mut agreement = case("agree", &[], &["root"]);
    // What openssl's purposes ask of keyUsage is TLS's business.
    agreement.agree = Agree::NotJudged;
    assert_eq!(
        refusal(&lab, agreement),
        ChainError::KeyUsage {
            subject: "CN=agree".into(),
            needed: "digitalSignature"
        }
    );
    judge(&lab, case("sign", &[], &["root"])).expect("nonRepudiation");
    judge(&lab, case("any", &[], &["root"])).expect("no keyUsage");

    leaf("server", "extendedKeyUsage=serverAuth\n");
    leaf("client", "extendedKeyUsage=clientAuth\n");
    leaf(
        "ikeclient",
        "extendedKeyUsage=clientAuth,1.3.6.1.5.5.7.3.17\n",
    );
    leaf("twofold", "extendedKeyUsage=clientAuth,serverAuth\n");
    leaf("ike", "extendedKeyUsage=critical,1.3.6.1.5.5.7.3.17\n");
    leaf("mac", "extendedKeyUsage=1.3.6.1.5.5.8.2.2\n");
    leaf("all", "extendedKeyUsage=codeSigning,anyExtendedKeyUsage\n");
    leaf("code", "extendedKeyUsage=codeSigning\n");
    const SERVER: Agree = Agree::With(&["-purpose", "sslserver"]);
    const CLIENT: Agree = Agree::With(&["-purpose", "sslclient"]);
    for (name, role, agree, good) in [
        ("server", PeerRole::Responder, SERVER, true),
        ("server", PeerRole::Initiator, Agree::NotJudged, true),
        ("client", PeerRole::Initiator, CLIENT, true),
        ("client", PeerRole::Responder, SERVER, false),
        ("ikeclient", PeerRole::Initiator, CLIENT, true),
        ("ikeclient", PeerRole::Responder, SERVER, false),
        ("twofold", PeerRole::Responder, SERVER, true),
        ("ike", PeerRole::Responder, Agree::With(&[]), true),
        ("ike", PeerRole::Initiator, Agree::With(&[]), true),
        ("mac", PeerRole::Responder, Agree::With(&[]), true),
        // To openssl, anyExtendedKeyUsage fits purpose `any` alone.
        (
            "all",
            PeerRole::Responder,
            Agree::With(&["-purpose", "any"]),
            true,
        ),
        ("code", PeerRole::Responder, SERVER, false),
        ("code", PeerRole::Initiator, CLIENT, false),
    ] {
        let mut it = case(name, &[], &["root"]);
        (it.role, it.agree) = (role, agree);
        assert_eq!(judge(&lab, it).is_ok(), good, "{name} as {role:?}");
    }
    let mut code = case("code", &[], &["root"]);
    code.agree = SERVER;
    assert_eq!(
        refusal(&lab, code),
        ChainError::ExtendedKeyUsage {
            subject: "CN=code".into(),
            found: "codeSigning".into(),
            needed: "ipsecIKE, serverAuth, ikeIntermediate".into()
        }
    );

    // An authority narrows what lies below it, a root of its own too.
    let ca = |eku: &str| format!("{CA}extendedKeyUsage=critical,{eku}\n");
    lab.make(make(
        "mailca",
        "/CN=mailca",
        "mailca",
        &ca("emailProtection"),
    ));
    lab.make(make("ofmail", "/CN=ofmail", "mailca", LEAF));
    let mut mail = case("ofmail", &[], &["mailca"]);
    mail.agree = SERVER;
    assert_eq!(
        refusal(&lab, mail),
        ChainError::ExtendedKeyUsage {
            subject: "CN=mailca".into(),
            found: "emailProtection".into(),
            needed: "ipsecIKE, serverAuth, ikeIntermediate".into()
        }
    );
    lab.make(make(
        "ikeca",
        "/CN=ikeca",
        "ikeca",
        &ca("1.3.6.1.5.5.7.3.17"),
    ));
    let both = format!("{LEAF}extendedKeyUsage=serverAuth,1.3.6.1.5.5.7.3.17\n");
    lab.make(make("both", "/CN=both", "ikeca", &both));
    judge(&lab, case("both", &[], &["ikeca"])).expect("ipsecIKE is left");
    let tls = format!("{LEAF}extendedKeyUsage=serverAuth\n");
    lab.make(make("tls", "/CN=tls", "ikeca", &tls));
    let mut outside = case("tls", &[], &["ikeca"]);
    outside.agree = SERVER;
    assert_eq!(
        refusal(&lab, outside),
        ChainError::ExtendedKeyUsage {
            subject: "CN=tls".into(),
            found: "serverAuth".into(),
            needed: "ipsecIKE".into()
        }
    );
}

#[test]
fn critical_extensions() {
    let lab = Lab::new("critical");
    lab.root("root");
    lab.make(make(
        "ca",
        "/CN=ca",
        "root",
        &format!("{CA}1.2.3.4=critical,DER:0500\n"),
    ));
    lab.make(make("ofca", "/CN=ofca", "ca", LEAF));
    lab.make(make(
        "leaf",
        "/CN=leaf",
        "root",
        &format!("{LEAF}1.2.3.4=critical,DER:0500\n"),
    ));
    lab.make(make(
        "harmless",
        "/CN=harmless",
        "root",
        &format!("{LEAF}1.2.3.4=DER:0500\n"),
    ));
    lab.make(make(
        "policy",
        "/CN=policy",
        "root",
        &format!("{LEAF}certificatePolicies=critical,1.2.3.4\n"),
    ));
    lab.make(make(
        "demanding",
        "/CN=demanding",
        "root",
        &format!("{CA}policyConstraints=critical,requireExplicitPolicy:0\n"),
    ));
    lab.make(make("ofdemanding", "/CN=ofdemanding", "demanding", LEAF));
    for (leaf, sent, subject) in [("leaf", &[][..], "CN=leaf"), ("ofca", &["ca"], "CN=ca")] {
        assert_eq!(
            refusal(&lab, case(leaf, sent, &["root"])),
            ChainError::UnknownCriticalExtension {
                subject: subject.into(),
                oid: "1.2.3.4".into()
            }
        );
    }
    judge(&lab, case("harmless", &[], &["root"])).expect("not critical");
    judge(&lab, case("policy", &[], &["root"])).expect("any policy is acceptable");
    let mut demanding = case("ofdemanding", &["demanding"], &["root"]);
    demanding.agree = Agree::With(&["-policy_check"]);
    assert_eq!(
        refusal(&lab, demanding),
        ChainError::UnknownCriticalExtension {
            subject: "CN=demanding".into(),
            oid: "2.5.29.36".into()
        }
    );
    // A known extension that does not decode is no certificate at all.
    lab.make_unread(make(
        "broken",
        "/CN=broken",
        "root",
        "2.5.29.17=DER:30030401ff\n",
    ));
    let broken = lab
        .openssl(&["x509", "-in", "broken.pem", "-outform", "DER"])
        .stdout;
    let error = validate_chain(
        &broken,
        &[],
        &lab.anchors(&["root"]),
        &Crls::default(),
        PeerRole::Responder,
        Some(at(NOW)),
    );
    assert!(
        matches!(error, Err(ChainError::Malformed { .. })),
        "{error:?}"
    );
}

#[test]
fn every_algorithm_above_every_other() {
    let lab = Lab::new("algorithms");
    let kinds = [
        "rsa:2048", "rsa:3072", "ec:P-256", "ec:P-384", "ec:P-521", "ed25519",
    ];
    for kind in kinds {
        lab.key(&kind.replace(':', "-"), kind);
    }
    for kind in kinds {
        let root = format!("root-{}", kind.replace(':', "-"));
        lab.make(Make {
            key: kind,
            ..make(&root, &format!("/CN={root}"), &root, CA)
        });
        for below in kinds {
            if below.starts_with("rsa") && kind.starts_with("rsa") {
                continue;
            }
            let below = below.replace(':', "-");
            let name = format!("below-{root}-{below}");
            lab.share_key(&below, &name);
            lab.make(make(&name, "/CN=leaf", &root, LEAF));
            judge(&lab, case(&name, &[], &[&root])).expect(&name);
        }
    }
    let with = |name: &str, root: &str, arguments: &[&str]| {
        lab.make(Make {
            arguments,
            ..make(name, &format!("/CN={name}"), root, LEAF)
        });
    };
    let pss = |hash: &'static str| {
        [
            "-md",
            hash,
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:-1",
        ]
    };
    with("pss256", "root-rsa-2048", &pss("sha256"));
    with("pss384", "root-rsa-2048", &pss("sha384"));
    with("pss512", "root-rsa-2048", &pss("sha512"));
    with("rsa384", "root-rsa-2048", &["-md", "sha384"]);
    with("rsa512", "root-rsa-3072", &["-md", "sha512"]);
    with("mixed", "root-ec-P-384", &["-md", "sha256"]);
    with("wide", "root-ec-P-256", &["-md", "sha512"]);
    for (name, root) in [
        ("pss256", "root-rsa-2048"),
        ("pss384", "root-rsa-2048"),
        ("pss512", "root-rsa-2048"),
        ("rsa384", "root-rsa-2048"),
        ("rsa512", "root-rsa-3072"),
        ("mixed", "root-ec-P-384"),
        ("wide", "root-ec-P-256"),
    ] {
        judge(&lab, case(name, &[], &[root])).expect(name);
    }
    with("sha1", "root-rsa-2048", &["-md", "sha1"]);
    with("ecsha1", "root-ec-P-256", &["-md", "sha1"]);
    lab.make(Make {
        key: "rsa:1024",
        ..make("weak", "/CN=weak", "weak", CA)
    });
    with("ofweak", "weak", &[]);
    lab.make(Make {
        key: "ec:secp256k1",
        ..make("koblitz", "/CN=koblitz", "koblitz", CA)
    });
    with("ofkoblitz", "koblitz", &[]);
    for (name, root, algorithm) in [
        ("sha1", "root-rsa-2048", "RSA with SHA-1"),
        ("ecsha1", "root-ec-P-256", "ECDSA with SHA-1"),
        ("ofweak", "weak", "an RSA key of 1024 bits"),
        ("ofkoblitz", "koblitz", "ECDSA on curve 1.3.132.0.10"),
    ] {
        let trusted = [root];
        let mut it = case(name, &[], &trusted);
        // What is strong enough is a setting of openssl (-auth_level), lax by default.
        it.agree = Agree::NotJudged;
        assert_eq!(
            refusal(&lab, it),
            ChainError::UnsupportedSignature {
                subject: format!("CN={name}"),
                algorithm: algorithm.into()
            }
        );
    }
}

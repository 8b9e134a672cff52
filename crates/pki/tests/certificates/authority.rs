//! What the authority issues: accepted by `validate_chain` and by openssl, and read back by openssl field by field.

use std::path::Path;

use crate::openssl::{Lab, NOW, at, crls};
use cygnet_pki::{
    ChainError, CrlPolicy, PeerRole, SubjectAltName, TrustAnchors,
    authority::{
        Authority, AuthorityError, KeyKind, Purpose, Request, RevocationReason, Revoked, Validity,
        to_pem,
    },
    certificate_contains, certreq, load, validate_chain,
};

const VALIDITY: fn() -> Validity = || Validity {
    not_before: at(NOW - 86_400),
    not_after: at(NOW + 365 * 86_400),
};

fn request<'a>(
    names: &'a [SubjectAltName],
    purpose: Purpose,
    serial: &'a [u8],
    key: KeyKind,
) -> Request<'a> {
    Request {
        common_name: "vpn.example.org",
        names,
        purpose,
        serial,
        validity: VALIDITY(),
        key,
    }
}

#[test]
fn what_is_issued_is_accepted_by_us_and_by_openssl() {
    let lab = Lab::new("issue");
    let server_names = [
        SubjectAltName::Dns("vpn.example.org".into()),
        SubjectAltName::Ip("203.0.113.5".parse().expect("an address")),
        SubjectAltName::Ip("2001:db8::5".parse().expect("an address")),
    ];
    let client_names = [SubjectAltName::Email("alice@vpn.example.org".into())];
    for kind in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Rsa3072,
        KeyKind::Ed25519,
    ] {
        let made = Authority::create("Lab CA", &[1], VALIDITY(), kind).expect("an authority");
        // As after a restart: from its files.
        let key =
            load::private_key(made.key_pem().as_bytes(), Path::new("ca.key")).expect("its key");
        let authority = Authority::open(made.certificate_der(), key.pkcs8()).expect("opened");
        assert_eq!(
            authority.certificate_pem(),
            made.certificate_pem().replace("\r\n", "\n")
        );
        lab.write("ca.pem", authority.certificate_pem());
        let mut anchors = TrustAnchors::new();
        anchors
            .add(authority.certificate_der())
            .expect("a certificate");

        let server = authority
            .issue(&request(&server_names, Purpose::Server, &[0x80, 2], kind))
            .expect("a server");
        let client = authority
            .issue(&request(&client_names, Purpose::Client, &[3], kind))
            .expect("a client");
        assert!(matches!(
            validate_chain(
                &client.certificate_der,
                &[],
                &anchors,
                &crls(CrlPolicy::IfPresent, &[]),
                PeerRole::Responder,
                Some(at(NOW)),
            ),
            Err(ChainError::ExtendedKeyUsage { found, .. }) if found == "clientAuth"
        ));
        let lists = [authority
            .crl(
                &[Revoked {
                    serial: vec![3],
                    at: at(NOW - 60),
                    reason: RevocationReason::KeyCompromise,
                }],
                7,
                at(NOW - 60),
                at(NOW + 86_400),
            )
            .expect("a CRL")];
        let judge = |der: &[u8], role| {
            validate_chain(
                der,
                &[],
                &anchors,
                &crls(CrlPolicy::Required, &lists),
                role,
                Some(at(NOW)),
            )
        };
        let peer = judge(&server.certificate_der, PeerRole::Responder).expect("the server");
        assert_eq!(peer.sans, server_names);
        assert_eq!(peer.serial, [0x80, 2]);
        assert_eq!(peer.contains(1, &[203, 0, 113, 5]), Ok(()));
        assert_eq!(
            certificate_contains(&client.certificate_der, 3, b"alice@vpn.example.org"),
            Ok(())
        );
        assert!(matches!(
            judge(&client.certificate_der, PeerRole::Initiator),
            Err(ChainError::Revoked { reason, .. }) if reason == "keyCompromise"
        ));
        let key =
            load::private_key(server.key_pem.as_bytes(), Path::new("server.key")).expect("its key");
        let file = load::certificates(server.certificate_pem.as_bytes(), Path::new("server.pem"))
            .expect("itself");
        load::check_key_matches(
            &key,
            Path::new("server.key"),
            &file,
            Path::new("server.pem"),
        )
        .expect("fits");

        lab.write("server.pem", &server.certificate_pem);
        lab.write("client.pem", &client.certificate_pem);
        let strict = ["-x509_strict", "-crl_check", "-purpose"];
        let verify = |name: &str, purpose: &str| {
            lab.verify(
                name,
                &[],
                &["ca"],
                &lists,
                NOW,
                &[&strict[..], &[purpose]].concat(),
            )
        };
        verify("server", "sslserver").expect("the server, strictly");
        // The authority vouches for nothing but a VPN, not for whoever signs mail or programs.
        let purposes = lab
            .openssl(&["x509", "-in", "ca.pem", "-noout", "-purpose"])
            .stdout;
        let purposes = String::from_utf8_lossy(&purposes);
        for expected in [
            "SSL client CA : Yes",
            "SSL server CA : Yes",
            "S/MIME signing CA : No",
            "S/MIME encryption CA : No",
        ] {
            assert!(purposes.contains(expected), "{expected} in {purposes}");
        }
        let revoked = verify("client", "sslclient").expect_err("revoked");
        assert!(revoked.contains("certificate revoked"), "{revoked}");
        let text = lab
            .openssl(&[
                "x509",
                "-in",
                "server.pem",
                "-noout",
                "-text",
                "-certopt",
                "no_pubkey,no_sigdump",
            ])
            .stdout;
        let text = String::from_utf8_lossy(&text);
        for expected in [
            "Issuer: CN = Lab CA",
            "Subject: CN = vpn.example.org",
            "DNS:vpn.example.org, IP Address:203.0.113.5, IP Address:2001:DB8:0:0:0:0:0:5",
            "TLS Web Server Authentication, ipsec Internet Key Exchange",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "CA:FALSE",
            "Not After : Jun 14 12:00:00 2028 GMT",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        lab.write("list.pem", to_pem("X509 CRL", &lists[0]));
        let text = lab
            .openssl(&["crl", "-in", "list.pem", "-noout", "-text"])
            .stdout;
        let text = String::from_utf8_lossy(&text);
        assert!(
            text.contains("Serial Number: 03") && text.contains("Key Compromise"),
            "{text}"
        );
    }
}

#[test]
fn nonsense_is_not_issued() {
    let authority =
        Authority::create("Lab CA", &[1], VALIDITY(), KeyKind::EcdsaP256).expect("an authority");
    let name = [SubjectAltName::Dns("gw".into())];
    let good = || request(&name, Purpose::Server, &[1], KeyKind::EcdsaP256);
    authority.issue(&good()).expect("good");
    let refused = |request: Request<'_>| match authority.issue(&request) {
        Err(AuthorityError::Request { expected, .. }) => expected,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("issued"),
    };
    let long = "x".repeat(65);
    for common_name in ["", " ", "a\nb", "\u{202e}abc", &long] {
        assert_eq!(
            refused(Request {
                common_name,
                ..good()
            }),
            "a common name of 1 to 64 printable characters"
        );
    }
    for serial in [&[][..], &[0, 0], &[0x80; 20], &[1; 21]] {
        assert_eq!(
            refused(Request { serial, ..good() }),
            "a serial number above zero of at most 159 bits"
        );
    }
    assert_eq!(
        refused(Request {
            names: &[],
            ..good()
        }),
        "at least one DNS name, e-mail address or IP address"
    );
    let foreign = [SubjectAltName::Dns("zoë".into())];
    assert_eq!(
        refused(Request {
            names: &foreign,
            ..good()
        }),
        "a name in ASCII (internationalised names as xn--…)"
    );
    let backwards = Validity {
        not_before: at(2),
        not_after: at(1),
    };
    assert_eq!(
        refused(Request {
            validity: backwards,
            ..good()
        }),
        "a validity that ends after it begins"
    );
    // A key that is not the certificate's, and a certificate that is no authority's.
    let other = Authority::create("Lab CA", &[1], VALIDITY(), KeyKind::EcdsaP256).expect("another");
    let key = load::private_key(other.key_pem().as_bytes(), Path::new("k")).expect("a key");
    assert!(Authority::open(authority.certificate_der(), key.pkcs8()).is_err());
    let leaf = other.issue(&good()).expect("a leaf");
    let key = load::private_key(leaf.key_pem.as_bytes(), Path::new("k")).expect("a key");
    assert!(Authority::open(&leaf.certificate_der, key.pkcs8()).is_err());
}

#[test]
fn certificate_requests_name_keys() {
    let lab = Lab::new("certreq");
    let names = [SubjectAltName::Dns("gw".into())];
    let make = |name: &str| {
        let authority =
            Authority::create(name, &[1], VALIDITY(), KeyKind::EcdsaP256).expect("an authority");
        let leaf = authority
            .issue(&request(&names, Purpose::Server, &[2], KeyKind::EcdsaP256))
            .expect("a leaf");
        (authority.certificate_der().to_vec(), leaf.certificate_der)
    };
    let ((one, one_leaf), (two, two_leaf)) = (make("one"), make("two"));
    let mut anchors = TrustAnchors::new();
    for der in [&one, &two, &one] {
        anchors.add(der.clone()).expect("a certificate");
    }
    let requested = certreq::request(&anchors);
    assert_eq!(requested.len(), 2 * certreq::HASH_LEN);
    // RFC 7296 §3.7: SHA-1 of the SubjectPublicKeyInfo element, here by openssl.
    lab.write("one.der", &one);
    lab.openssl(&[
        "x509", "-in", "one.der", "-inform", "DER", "-noout", "-pubkey", "-out", "one.pub",
    ]);
    lab.openssl(&[
        "pkey", "-pubin", "-in", "one.pub", "-outform", "DER", "-out", "one.spki",
    ]);
    let hash = lab
        .openssl(&["dgst", "-sha1", "-binary", "one.spki"])
        .stdout;
    assert_eq!(requested[..20], hash);
    assert_eq!(
        certreq::key_hash(&one).expect("a certificate").to_vec(),
        hash
    );

    let (chain_one, chain_two) = ([one.clone()], [two.clone()]);
    let own = [
        certreq::OwnCertificate {
            leaf: &two_leaf,
            chain: &chain_two,
        },
        certreq::OwnCertificate {
            leaf: &one_leaf,
            chain: &chain_one,
        },
    ];
    assert_eq!(certreq::select(&hash, &own), Some(1));
    assert_eq!(certreq::select(&requested, &own), Some(0));
    // A hint, no more: an unknown authority gets the first.
    assert_eq!(certreq::select(&[7; 20], &own), Some(0));
    assert_eq!(certreq::select(&[], &own), Some(0));
    assert_eq!(certreq::select(&requested, &[]), None);
    // The authority's certificate has to be the issuer's, not just anywhere in the file.
    let astray = certreq::OwnCertificate {
        leaf: &two_leaf,
        chain: &chain_one,
    };
    assert!(!certreq::answers(&hash, &astray));
    // Bytes behind the last whole hash are no hash.
    assert!(!certreq::answers(&hash[..19], &own[1]));
}

//! Signing requests that openssl wrote: their key is certified, and nothing else of them counts.

use std::path::Path;

use crate::openssl::{Lab, NOW, at};
use cygnet_pki::SubjectAltName;
use cygnet_pki::authority::{Authority, KeyKind, Purpose, Request, Validity, to_pem};
use cygnet_pki::csr::PublicKey;

const VALIDITY: fn() -> Validity = || Validity {
    not_before: at(NOW - 86_400),
    not_after: at(NOW + 365 * 86_400),
};

fn request<'a>(names: &'a [SubjectAltName], serial: &'a [u8]) -> Request<'a> {
    Request {
        common_name: "alice.laptop",
        names,
        purpose: Purpose::Client,
        serial,
        validity: VALIDITY(),
        key: KeyKind::default(),
    }
}

#[test]
fn the_key_of_a_request_is_certified_under_our_names() {
    let lab = Lab::new("csr");
    let authority =
        Authority::create("Lab CA", &[1], VALIDITY(), KeyKind::EcdsaP256).expect("made");
    lab.write("ca.pem", authority.certificate_pem());
    let names = [SubjectAltName::Email(
        "alice.laptop@1a2b3c4d.cygnet.internal".into(),
    )];
    for (number, kind) in ["ec:P-256", "ec:P-384", "ec:P-521", "rsa:2048", "ed25519"]
        .iter()
        .enumerate()
    {
        let name = format!("device{number}");
        lab.key(&name, kind);
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        // What it wishes for must not be granted.
        lab.openssl(&[
            "req",
            "-new",
            "-key",
            &key,
            "-subj",
            "/CN=root",
            "-out",
            &csr,
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "subjectAltName=DNS:vpn.example.org",
        ]);
        let key = PublicKey::from_request(&lab.read(&csr), Path::new(&csr)).expect(kind);
        let serial = [number as u8 + 2];
        let der = authority
            .certify(&request(&names, &serial), &key)
            .expect(kind);
        let pem = format!("{name}.pem");
        lab.write(&pem, to_pem("CERTIFICATE", &der));
        let text =
            |arguments: &[&str]| String::from_utf8(lab.openssl(arguments).stdout).expect("text");
        assert_eq!(
            text(&["x509", "-in", &pem, "-noout", "-pubkey"]),
            text(&["req", "-in", &csr, "-noout", "-pubkey"]),
            "{kind}"
        );
        let shown = text(&["x509", "-in", &pem, "-noout", "-text"]);
        assert!(
            shown.contains("email:alice.laptop@1a2b3c4d.cygnet.internal"),
            "{shown}"
        );
        assert!(
            shown.contains("CA:FALSE") && shown.contains("CN = alice.laptop"),
            "{shown}"
        );
        assert!(
            !shown.contains("vpn.example.org") && !shown.contains("CN = root"),
            "{shown}"
        );
        let now = NOW.to_string();
        lab.openssl(&[
            "verify",
            "-x509_strict",
            "-attime",
            &now,
            "-CAfile",
            "ca.pem",
            &pem,
        ]);
        // Renewed for the same key.
        let again = PublicKey::of_certificate(&der).expect("its own key");
        assert!(
            authority
                .certify(&request(&names, &[0x70 + number as u8]), &again)
                .is_ok()
        );
    }
}

#[test]
fn what_is_no_good_request_is_told() {
    let lab = Lab::new("csr-bad");
    lab.key("a", "ec:P-256");
    lab.openssl(&[
        "req", "-new", "-key", "a.key", "-subj", "/CN=a", "-outform", "DER", "-out", "a.csr",
    ]);
    let good = lab.read("a.csr");
    let told = |bytes: &[u8]| {
        PublicKey::from_request(bytes, Path::new("a.csr"))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(told(&good), "");
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(
        told(&forged).contains("whose signature is not by its own key"),
        "{}",
        told(&forged)
    );
    assert!(told(&good[..good.len() - 1]).contains("do not decode"));
    assert!(told(b"").contains("do not decode"));
    assert!(told(&lab.read("a.key")).contains("only \"PRIVATE KEY\""));
    lab.openssl(&[
        "req", "-new", "-newkey", "rsa:1024", "-nodes", "-keyout", "b.key", "-subj", "/CN=b",
        "-out", "b.csr",
    ]);
    assert!(
        told(&lab.read("b.csr")).contains("1024"),
        "{}",
        told(&lab.read("b.csr"))
    );
    for end in 0..good.len() {
        assert!(PublicKey::from_request(&good[..end], Path::new("a.csr")).is_err());
    }
}

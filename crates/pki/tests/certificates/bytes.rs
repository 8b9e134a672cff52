//! Whatever bytes come: an answer, no panic. Random bytes, and real certificates and lists with a few bytes changed,
//! so that every parser behind the first is reached.

use std::path::Path;

use crate::openssl::{CA, LEAF, Lab, NOW, Sequence, at, make};
use cygnet_pki::{
    CrlPolicy, Crls, DistinguishedName, PeerRole, TrustAnchors, certificate_contains, certreq,
    load, validate_chain,
};

fn feed(bytes: &[u8], good: &[u8], anchors: &TrustAnchors) {
    let path = Path::new("x");
    let mut crls = Crls::new(CrlPolicy::IfPresent);
    let _ = crls.add(bytes);
    let mut changed = anchors.clone();
    let _ = changed.add(bytes);
    for (leaf, sent) in [(bytes, good), (good, bytes)] {
        let _ = validate_chain(
            leaf,
            &[sent],
            &changed,
            &crls,
            PeerRole::Responder,
            Some(at(NOW)),
        );
    }
    for id_type in [1, 2, 3, 5, 9, 11] {
        let _ = certificate_contains(bytes, id_type, b"gw.example.org");
        let _ = certificate_contains(good, id_type, bytes);
    }
    if let Ok(name) = DistinguishedName::from_der(bytes) {
        let _ = name.to_string();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<DistinguishedName>();
    }
    let _ = load::certificates(bytes, path);
    let _ = load::crls(bytes, path);
    let _ = load::private_key(bytes, path);
    let _ = certreq::key_hash(bytes);
    let _ = certreq::answers(
        bytes,
        &certreq::OwnCertificate {
            leaf: good,
            chain: &[bytes.to_vec()],
        },
    );
}

#[test]
fn arbitrary_bytes_never_panic() {
    let lab = Lab::new("bytes");
    let constrained = format!(
        "{CA}nameConstraints=critical,permitted;DNS:example.org,permitted;email:a.b,excluded;IP:10.0.0.0/255.0.0.0,\
         permitted;dirName:dn\nextendedKeyUsage=1.3.6.1.5.5.7.3.17\n[dn]\nO=lab\n"
    );
    let root = lab.make(make("root", "/O=lab/CN=root", "root", &constrained));
    let good = lab.make(make(
        "leaf",
        "/O=lab/CN=leaf/emailAddress=x@a.b",
        "root",
        &format!("{LEAF}extendedKeyUsage=serverAuth,1.3.6.1.5.5.7.3.17\n"),
    ));
    let crl = lab.crl(
        "root",
        &[("leaf", "270610080000Z", "superseded")],
        "20270601000000Z",
        "20270701000000Z",
    );
    let anchors = lab.anchors(&["root"]);
    let name = "C=XX, O=my lab, CN=g\\,w+UID=#0c0161, E=a@b"
        .to_string()
        .into_bytes();
    let pem = lab.read("leaf.pem");
    let key = lab.read("leaf.key");
    let subject = cygnet_pki::identity::subject(&good)
        .expect("a subject")
        .as_der()
        .to_vec();
    let seeds = [&good, &root, &crl, &name, &pem, &key, &subject];
    let mut sequence = Sequence::new(1);
    for round in 0..6_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        match sequence.next(8) {
            0 => bytes.truncate(sequence.next(bytes.len() + 1)),
            1 => {
                bytes = (0..sequence.next(200))
                    .map(|_| sequence.next(256) as u8)
                    .collect()
            }
            2 => {
                let (from, to) = (sequence.next(bytes.len()), sequence.next(bytes.len()));
                bytes.drain(from.min(to)..from.max(to));
            }
            _ => {
                for _ in 0..=sequence.next(4) {
                    let at = sequence.next(bytes.len());
                    bytes[at] = match sequence.next(3) {
                        0 => sequence.next(256) as u8,
                        1 => bytes[at] ^ 1 << sequence.next(8),
                        _ => bytes[at].wrapping_add(1),
                    };
                }
            }
        }
        feed(&bytes, &good, &anchors);
    }
    for length in 0..good.len() {
        feed(&good[..length], &good, &anchors);
    }
}

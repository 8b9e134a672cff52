//! `.p12` files that the openssl command line wrote, in every encryption that VPN servers hand out.

mod openssl;

use cygnet_pki::load::{self, is_key_of};
use cygnet_pki::pkcs12::{Pkcs12Error, read};
use openssl::{CA, LEAF, Lab, make};

/// Algo 2017; Algo today, hwdsl2 and Apple; openssl today; and what some routers write.
const ENCRYPTIONS: [&[&str]; 5] = [
    &[
        "-legacy",
        "-keypbe",
        "PBE-SHA1-3DES",
        "-certpbe",
        "PBE-SHA1-RC2-40",
        "-macalg",
        "sha1",
    ],
    &[
        "-keypbe",
        "PBE-SHA1-3DES",
        "-certpbe",
        "PBE-SHA1-3DES",
        "-macalg",
        "sha1",
    ],
    &[],
    &["-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC"],
    &["-keypbe", "NONE", "-certpbe", "NONE"],
];

fn lab(name: &str) -> Lab {
    let lab = Lab::new(name);
    lab.make(make("ca", "/CN=203.0.113.5", "ca", CA));
    lab.make(make("alice", "/CN=alice", "ca", LEAF));
    lab
}

fn export(lab: &Lab, password: &str, further: &[&str]) -> Vec<u8> {
    let pass = format!("pass:{password}");
    let mut arguments = vec![
        "pkcs12",
        "-export",
        "-in",
        "alice.pem",
        "-inkey",
        "alice.key",
        "-certfile",
        "ca.pem",
        "-name",
        "alice",
        "-out",
        "alice.p12",
        "-passout",
        &pass,
    ];
    arguments.extend(further);
    lab.openssl(&arguments);
    lab.read("alice.p12")
}

#[test]
fn every_encryption_of_openssl_is_read() {
    let lab = lab("p12-read");
    for encryption in ENCRYPTIONS {
        for password in ["correct horse", "", "pässwörd"] {
            let bytes = export(&lab, password, encryption);
            let contents = read(&bytes, password)
                .unwrap_or_else(|error| panic!("{encryption:?} {password:?}: {error}"));
            assert_eq!(contents.leaf, lab.der("alice"));
            assert_eq!(contents.authorities, [lab.der("ca")]);
            assert!(contents.intermediates.is_empty());
            let key = load::private_key(&contents.key, "key".as_ref()).expect("a key");
            assert!(is_key_of(&key, &contents.leaf));
        }
    }
}

#[test]
fn a_wrong_password_is_called_that() {
    let lab = lab("p12-wrong");
    for encryption in ENCRYPTIONS {
        let bytes = export(&lab, "right", encryption);
        let told = read(&bytes, "wrong").err();
        assert_eq!(told, Some(Pkcs12Error::WrongPassword), "{encryption:?}");
    }
    let bytes = export(&lab, "right", &["-nomac"]);
    assert_eq!(
        read(&bytes, "wrong").err(),
        Some(Pkcs12Error::WrongPassword)
    );
    assert!(read(&bytes, "right").is_ok());
}

#[test]
fn what_is_no_use_is_told_apart() {
    let lab = lab("p12-useless");
    let told = |bytes: &[u8]| read(bytes, "x").err().map(|error| error.to_string());
    let damaged = export(&lab, "x", &[]);
    let cut = damaged.get(..100).expect("longer");
    assert!(told(cut).is_some_and(|it| it.contains("copied completely")));
    assert!(told(b"-----BEGIN CERTIFICATE-----").is_some_and(|it| it.contains("PKCS#12")));
    assert!(told(&vec![0x30; 300 << 10]).is_some_and(|it| it.contains("262144")));
    lab.openssl(&[
        "pkcs12", "-export", "-nokeys", "-in", "ca.pem", "-out", "only.p12", "-passout", "pass:x",
    ]);
    assert!(told(&lab.read("only.p12")).is_some_and(|it| it.contains("no key")));
}

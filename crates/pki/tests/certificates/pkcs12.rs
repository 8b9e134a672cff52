//! `.p12` files that the openssl command line wrote, in every encryption that VPN servers hand out.

use crate::openssl::{CA, LEAF, Lab, make};
use cygnet_pki::load::{self, is_key_of};
use cygnet_pki::pkcs12::{Pkcs12Error, read};

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
fn work_without_bound_is_refused_before_it_is_done() {
    let lab = lab("p12-work");
    // Each part by itself is within what is taken, all of them together are not.
    let many = export(&lab, "x", &["-iter", "900000"]);
    let told = read(&many, "x").err().map(|error| error.to_string());
    assert!(
        told.as_ref().is_some_and(|it| it.contains("rounds in all")),
        "{told:?}"
    );
    assert!(read(&export(&lab, "x", &["-iter", "20000"]), "x").is_ok());
    // Nine keys, each encrypted by itself.
    let shrouded = shrouded_bag(&export(&lab, "x", &["-nomac"]));
    for (count, refused) in [(8, false), (9, true)] {
        let told = read(&with_bags(&shrouded, count), "x").err();
        let told = told.map_or(String::new(), |error| error.to_string());
        assert_eq!(told.contains("encrypted parts"), refused, "{count}: {told}");
    }
}

/// One element: its length with its head, and where its content begins.
fn element(bytes: &[u8]) -> (usize, usize) {
    let count = match bytes[1] {
        short @ 0..0x80 => return (2 + usize::from(short), 2),
        long => usize::from(long & 0x7f),
    };
    let length = bytes[2..2 + count].iter();
    let length = length.fold(0, |sum, byte| sum * 256 + usize::from(*byte));
    (2 + count + length, 2 + count)
}

/// The bag with the key in a file of openssl's: around the object identifier that says so.
fn shrouded_bag(file: &[u8]) -> Vec<u8> {
    const SHROUDED: &[u8] = &[
        0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02,
    ];
    let at = file.windows(SHROUDED.len()).position(|it| it == SHROUDED);
    let at = at.expect("a shrouded key");
    // Its head is in front of it: two to four bytes.
    let mut heads = (2..=4).filter(|head| file[at - head] == 0x30);
    let head = heads.find(|head| element(&file[at - head..]).1 == *head);
    let bag = &file[at - head.expect("a bag around it")..];
    bag[..element(bag).0].to_vec()
}

fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    match content.len() {
        0..0x80 => [&[tag, length[1]], content].concat(),
        0x80..0x100 => [&[tag, 0x81, length[1]], content].concat(),
        _ => [&[tag, 0x82, length[0], length[1]], content].concat(),
    }
}

/// A file without MAC of so many of these bags.
fn with_bags(bag: &[u8], count: usize) -> Vec<u8> {
    let data = [
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01,
    ];
    let info = |octets: &[u8]| {
        let content = wrapped(0xa0, &wrapped(0x04, octets));
        wrapped(0x30, &[&data[..], &content].concat())
    };
    let bags = wrapped(0x30, &bag.repeat(count));
    let safe = info(&wrapped(0x30, &info(&bags)));
    wrapped(0x30, &[&[0x02, 0x01, 0x03][..], &safe].concat())
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

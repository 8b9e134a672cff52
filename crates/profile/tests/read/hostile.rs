//! Whatever is in a file, reading it ends, without a panic, in a tunnel or in a sentence.

use std::sync::OnceLock;

use cygnet_profile::read::{File, import};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::lab::{Folder, OpenSsl, PASSWORD};

const NAMES: [&str; 8] = [
    "a.conf",
    "a.secrets",
    "swanctl.conf",
    "a.mobileconfig",
    "a.sswan",
    "a.p12",
    "a.pem",
    "a",
];

/// Good files, to be changed: one of each format.
fn good() -> &'static Vec<(&'static str, Vec<u8>)> {
    static GOOD: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let openssl = OpenSsl::authority(
            "P-256",
            "basicConstraints=CA:true\n",
            "subjectAltName=DNS:alice\n",
        );
        openssl.p12("-certfile cacert.pem -iter 1 -maciter");
        openssl.write(
            "make.py",
            &format!(
                "import plistlib, json, base64
p12 = open('alice.p12','rb').read()
sa = dict(DiffieHellmanGroup=19, EncryptionAlgorithm='AES-128-GCM', IntegrityAlgorithm='SHA2-256')
vpn = dict(PayloadType='com.apple.vpn.managed', VPNType='IKEv2', UserDefinedName='x', IKEv2=dict(RemoteAddress='192.0.2.1',
    AuthenticationMethod='Certificate', ChildSecurityAssociationParameters=sa, IKESecurityAssociationParameters=sa))
key = dict(PayloadType='com.apple.security.pkcs12', Password='{PASSWORD}', PayloadContent=p12)
plistlib.dump(dict(PayloadContent=[vpn, key]), open('apple','wb'))
json.dump(dict(type='ikev2-cert', remote=dict(addr='192.0.2.1'), local=dict(p12=base64.b64encode(p12).decode())), open('android','w'))
"
            ),
        );
        openssl.run("python3 make.py; cat alice.crt alice.key cacert.pem >all.pem");
        let conf = b"conn %default\n  also=a\nconn a\n  right=192.0.2.1\n  leftcert=\"alice.crt\" # x\n  ike=aes128gcm16-prfsha256-ecp256!\n  also=a\n";
        vec![
            ("a.conf", conf.to_vec()),
            ("a.secrets", b"192.0.2.1 : ECDSA alice.key \"x\"\n: PSK 0s00\n a\n".to_vec()),
            (
                "swanctl.conf",
                b"connections { a { remote_addrs = 192.0.2.1\n local { certs = \"a\\\"b\" }\n children { b { remote_ts = ::/0 } } } }\nsecrets { ike-a { secret = x } }\n".to_vec(),
            ),
            ("a.mobileconfig", openssl.read("apple")),
            ("a.sswan", openssl.read("android")),
            ("a.p12", openssl.read("alice.p12")),
            ("a.pem", openssl.read("all.pem")),
        ]
    })
}

/// Imports a file, alone and with a description or with keys; what comes is no matter, but that it comes.
fn read(name: &str, bytes: &[u8]) {
    for other in [None, Some(0), Some(6)] {
        let mut files = vec![File {
            name: name.to_owned(),
            bytes: Zeroizing::new(bytes.to_vec()),
        }];
        files.extend(
            other
                .and_then(|at| good().get(at))
                .map(|(name, bytes)| File {
                    name: (*name).to_owned(),
                    bytes: Zeroizing::new(bytes.clone()),
                }),
        );
        let mut folder = Folder::new().password(PASSWORD);
        let options = folder.options.clone();
        match import(&files, &mut folder, &options) {
            Ok(imported) => {
                assert!(!imported.remote.is_empty());
                assert!(!imported.summary().is_empty());
                let section = imported.section(&imported.name, "keys");
                assert!(section.text.starts_with("[tunnel."));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes(at in 0..NAMES.len(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(NAMES[at], &bytes);
    }

    #[test]
    fn any_text(at in 0..NAMES.len(), text in "[ \t\n\"{}=:#!,a-z0%/.\\\\]{0,300}") {
        read(NAMES[at], text.as_bytes());
    }

    #[test]
    fn good_files_with_a_few_bytes_changed(
        at in 0..7usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (name, bytes) = &good()[at];
        let mut bytes = bytes.clone();
        for (index, value) in &changes {
            let index = index.index(bytes.len());
            bytes[index] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(name, &bytes);
    }
}

#[test]
fn good_files_are_good() {
    for (name, bytes) in good() {
        read(name, bytes);
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let mut chain = String::new();
    for at in 0..400 {
        chain.push_str(&format!(
            "conn c{at}\n right=192.0.2.1\n also=c{}\n also=c{}\n",
            at + 1,
            at + 2
        ));
    }
    for (name, bytes, bound) in [
        (
            "a.mobileconfig",
            "<plist><array>".repeat(1000),
            "more than 512 lists and dictionaries",
        ),
        (
            "a.mobileconfig",
            format!("<plist>{}", "<x:array>".repeat(1000)),
            "more than 512 lists and dictionaries",
        ),
        (
            "a.mobileconfig",
            format!("<plist>{}", "<x/<:dict\n>".repeat(1000)),
            "more than 512 lists and dictionaries",
        ),
        (
            "a.mobileconfig",
            format!("<plist>{}", "<\0array>".repeat(1000)),
            "expected a property list in UTF-8",
        ),
        (
            "a.sswan",
            "{\"a\":".repeat(100_000),
            "no profile of strongSwan's app",
        ),
        ("a.sswan", "[".repeat(100_000), "no format that is known"),
        ("swanctl.conf", "a{".repeat(100_000), "sections 16 deep"),
        (
            "a.conf",
            "conn a\n also=a\n".repeat(30_000),
            "more than 512 sections",
        ),
        ("a.conf", chain, "c6, c7 and 392 more"),
        (
            "a.secrets",
            ": PSK x\n".repeat(60_000),
            "more than 256 secrets",
        ),
        (
            "a.pem",
            "-----BEGIN CERTIFICATE-----\n".repeat(20_000),
            "broken PEM in line 2",
        ),
        ("a.pem", "a".repeat(2 << 20), "expected at most 1048576"),
        (
            "a.mobileconfig",
            "<plist><array>".repeat(100_000),
            "expected at most 1048576",
        ),
    ] {
        read(name, bytes.as_bytes());
        let told = Folder::new().with(name, bytes).refused(&[name]);
        assert!(told.contains(bound), "{name}: {bound}: {told}");
    }
}

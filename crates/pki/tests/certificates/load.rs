//! Files as people have them: every form openssl writes, and what is wrong with the wrong ones.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::openssl::{CA, LEAF, Lab, Make, make};
use cygnet_pki::load::{self, KeyKind};

fn key_error(lab: &Lab, file: &str) -> String {
    load::private_key(&lab.read(file), Path::new(file))
        .err()
        .map(|error| error.to_string())
        .unwrap_or_else(|| panic!("{file} should have been refused"))
}

#[test]
fn private_keys_of_every_kind_and_form() {
    let lab = Lab::new("keys");
    lab.root("root");
    for (kind, algorithm, traditional) in [
        ("ec:P-256", KeyKind::EcdsaP256, true),
        ("ec:P-384", KeyKind::EcdsaP384, true),
        ("ec:P-521", KeyKind::EcdsaP521, true),
        ("rsa:2048", KeyKind::Rsa { bits: 2048 }, true),
        ("ed25519", KeyKind::Ed25519, false),
    ] {
        let name = kind.replace(':', "-");
        lab.key(&name, kind);
        let certificate = lab.make(Make {
            key: kind,
            ..make(&name, "/CN=leaf", "root", LEAF)
        });
        let certificates = load::CertificateFile {
            leaf: certificate,
            chain: Vec::new(),
        };
        let pem = format!("{name}.key");
        let mut files = vec![pem.clone()];
        lab.openssl(&["pkey", "-in", &pem, "-outform", "DER", "-out", "p8.der"]);
        files.push("p8.der".into());
        if traditional {
            for (file, form) in [("old.pem", "PEM"), ("old.der", "DER")] {
                lab.openssl(&[
                    "pkey",
                    "-in",
                    &pem,
                    "-traditional",
                    "-outform",
                    form,
                    "-out",
                    file,
                ]);
                files.push(file.into());
            }
        }
        let mut pkcs8 = Vec::new();
        for file in files {
            let key = load::private_key(&lab.read(&file), Path::new(&file))
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(key.kind(), algorithm, "{kind} {file}");
            load::check_key_matches(&key, Path::new(&file), &certificates, Path::new("leaf.pem"))
                .expect("they belong together");
            pkcs8.push(key.pkcs8().to_vec());
        }
        // One form comes out, whatever went in, and openssl reads it.
        pkcs8.dedup();
        assert_eq!(pkcs8.len(), 1, "{kind}");
        lab.write("out.der", &pkcs8[0]);
        let public = |file: &str, form: &str| {
            lab.openssl(&["pkey", "-in", file, "-inform", form, "-pubout"])
                .stdout
        };
        assert_eq!(public("out.der", "DER"), public(&pem, "PEM"), "{kind}");
    }
    // `openssl ecparam -genkey` writes the parameters in front.
    lab.openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-out",
        "params.pem",
    ]);
    assert!(String::from_utf8_lossy(&lab.read("params.pem")).contains("EC PARAMETERS"));
    load::private_key(&lab.read("params.pem"), Path::new("params.pem"))
        .expect("behind the parameters");
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let lab = Lab::new("badkeys");
    lab.root("root");
    lab.key("k", "rsa:2048");
    lab.openssl(&[
        "pkey",
        "-in",
        "k.key",
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        "locked.pem",
    ]);
    lab.openssl(&[
        "pkey",
        "-in",
        "k.key",
        "-traditional",
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        "oldlocked.pem",
    ]);
    const EXPECTED: &str = "expected a private key: RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519, found";
    for file in ["locked.pem", "oldlocked.pem"] {
        assert_eq!(
            key_error(&lab, file),
            format!(
                "{file}: {EXPECTED} one encrypted with a passphrase; \
                 write it without: `openssl pkey -in {file} -out NEW && chmod 600 NEW`"
            )
        );
    }
    assert_eq!(
        key_error(&lab, "root.pem"),
        format!(
            "root.pem: {EXPECTED} only \"CERTIFICATE\"; name the file with the key that belongs to the certificate"
        )
    );
    lab.write("empty", "");
    assert!(key_error(&lab, "empty").starts_with(&format!("empty: {EXPECTED} an empty file;")));
    let text = String::from_utf8(lab.read("k.key")).expect("PEM");
    lab.write("cut", &text[..400]);
    assert!(key_error(&lab, "cut").contains("found broken PEM in line 1: BEGIN without an END;"));
    lab.key("weak", "rsa:1024");
    lab.key("koblitz", "ec:secp256k1");
    for name in ["weak", "koblitz"] {
        let file = format!("{name}.key");
        assert!(key_error(&lab, &file).contains("found bytes that do not decode as such a key;"));
    }
}

#[test]
fn a_key_and_a_certificate_belong_together() {
    let lab = Lab::new("match");
    lab.root("root");
    lab.make(make("leaf", "/CN=leaf", "root", LEAF));
    lab.key("stray", "ec:P-256");
    let check = |key: &str, file: &str| {
        let key_file = format!("{key}.key");
        let key = load::private_key(&lab.read(&key_file), Path::new(&key_file)).expect("a key");
        let certificates =
            load::certificates(&lab.read(file), Path::new(file)).expect("certificates");
        load::check_key_matches(&key, Path::new(&key_file), &certificates, Path::new(file))
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("leaf", "leaf.pem"), Ok(()));
    assert_eq!(
        check("stray", "leaf.pem").expect_err("another key"),
        "stray.key: expected the private key of certificate CN=leaf in leaf.pem, \
         found the key of another certificate; name the certificate and the key that were made together"
    );
    let upside_down = [lab.read("root.pem"), lab.read("leaf.pem")].concat();
    lab.write("both.pem", upside_down);
    assert_eq!(
        check("leaf", "both.pem").expect_err("the wrong order"),
        "leaf.key: expected the private key of certificate O=lab, CN=root in both.pem, \
         found the key of certificate 2 of that file; move that certificate to the top of both.pem"
    );
}

#[test]
fn certificates_and_lists_in_pem_and_der() {
    let lab = Lab::new("files");
    let root = lab.root("root");
    let inter = lab.make(make("inter", "/CN=inter", "root", CA));
    let leaf = lab.make(make("leaf", "/CN=leaf", "inter", LEAF));
    let text = lab.openssl(&["x509", "-in", "leaf.pem", "-text"]).stdout;
    lab.write("chain.pem", [text, lab.read("inter.pem")].concat());
    let file = load::certificates(&lab.read("chain.pem"), Path::new("chain.pem")).expect("a chain");
    assert_eq!((file.leaf, file.chain), (leaf.clone(), vec![inter.clone()]));
    assert_eq!(
        load::certificates(&leaf, Path::new("leaf.der"))
            .expect("DER")
            .leaf,
        leaf
    );
    let both = [lab.read("root.pem"), lab.read("inter.pem")].concat();
    assert_eq!(
        load::authorities(&both, Path::new("ca.pem")).expect("two"),
        [root, inter]
    );
    let crl = lab.crl("root", &[], "20270601000000Z", "20270701000000Z");
    assert_eq!(
        load::crls(&crl, Path::new("crl.der")).expect("DER"),
        std::slice::from_ref(&crl)
    );
    assert_eq!(
        load::crls(&lab.read("last.crl"), Path::new("crl.pem")).expect("PEM"),
        [crl]
    );

    let error = |bytes: &[u8]| {
        load::certificates(bytes, Path::new("x.pem"))
            .expect_err("bad")
            .to_string()
    };
    let expected = "x.pem: expected a certificate in PEM or DER, found";
    assert!(error(b"").starts_with(&format!("{expected} an empty file;")));
    assert!(error(b"hello").starts_with(&format!("{expected} bytes that do not decode as one;")));
    assert!(
        error(&[&leaf[..], b"x"].concat())
            .starts_with(&format!("{expected} further bytes behind it;"))
    );
    assert!(error(&lab.read("leaf.key")).starts_with(&format!("{expected} only \"PRIVATE KEY\";")));
    let swapped = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(error(swapped.as_bytes()).starts_with(&format!(
        "{expected} in line 1: bytes that do not decode as one;"
    )));
    assert!(
        load::crls(&lab.read("root.pem"), Path::new("crl.pem"))
            .is_err_and(|error| error.found == "only \"CERTIFICATE\"")
    );
}

#[test]
fn an_open_key_file_is_refused() {
    let lab = Lab::new("mode");
    lab.write("k.key", "x");
    let path = lab.path("k.key");
    for (mode, found) in [
        (0o600, None),
        (0o400, None),
        (0o640, Some("mode 0640, open to its group")),
        (0o604, Some("mode 0604, open to everyone")),
        (0o644, Some("mode 0644, open to everyone and its group")),
        (0o620, Some("mode 0620, open to its group")),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        let metadata = fs::metadata(&path).expect("stat");
        let verdict =
            load::check_key_mode(&metadata, Path::new("/etc/cygnet/k.key"), "a private key");
        assert_eq!(
            verdict.map_err(|error| error.to_string()).err(),
            found.map(|found| format!(
                "/etc/cygnet/k.key: expected a private key that only its owner can read, found {found}; \
                 run `chmod 600 /etc/cygnet/k.key`"
            ))
        );
    }
}

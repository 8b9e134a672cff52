//! `.p12` files, read by openssl.

use cygnet_pki::authority::KeyKind;
use cygnet_pki::load;
use cygnet_profile::{Login, Profile};

use crate::{sample, tools};

const P12: [(&str, &str); 1] = [("P12", sample::P12_PASSWORD)];

/// Opens it with the password, and checks the encryption, the certificates and the key. `false`: no openssl.
pub(crate) fn check(profile: &Profile, p12: &[u8], mac: &str, cipher: &str) -> bool {
    let Login::Certificate {
        certificate, key, ..
    } = &profile.login
    else {
        panic!("a login by certificate");
    };
    let open = ["pkcs12", "-info", "-passin", "env:P12", "-noenc"];
    let Some(said) = tools::run("openssl", &open, &P12, p12) else {
        return false;
    };
    assert!(said.success, "{}", said.stderr);
    assert!(said.stderr.contains(mac), "{mac}: {}", said.stderr);
    let ciphers = said.stderr.matches(cipher).count();
    assert_eq!(
        ciphers, 2,
        "certificates and key by {cipher}: {}",
        said.stderr
    );

    let only_certificates = ["pkcs12", "-passin", "env:P12", "-nokeys"];
    let said_of_certificates = tools::run("openssl", &only_certificates, &P12, p12);
    let certificates = said_of_certificates.expect("openssl is here").stdout;
    let file = load::certificates(&certificates, "p12".as_ref()).expect("certificates");
    assert_eq!(&file.leaf, certificate);
    let chain = std::slice::from_ref(&profile.authority.certificate);
    assert_eq!(file.chain, chain);

    let public = ["pkey", "-pubout", "-outform", "DER"];
    let of_file = tools::good("openssl", &public, &said.stdout);
    let key = key.as_ref().expect("a key");
    let of_profile = tools::good("openssl", &[&public[..], &["-inform", "DER"]].concat(), key);
    assert_eq!(of_file, of_profile);
    true
}

#[test]
fn openssl_opens_each_in_the_encryption_its_system_takes() {
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa3072] {
        let profile = sample::of_kind(kind);
        let files = sample::files(&profile);
        let windows = "windows/alice.phone.p12";
        for path in ["alice.phone.p12", windows] {
            if path == windows && kind == KeyKind::Rsa3072 {
                // Windows refuses such a server.
                continue;
            }
            let p12 = sample::bytes(&files, path);
            check(&profile, p12, "MAC: sha256", "AES-256-CBC");
        }
        let p12 = sample::bytes(&files, "routeros/alice.phone.p12");
        check(
            &profile,
            p12,
            "MAC: sha1",
            "pbeWithSHA1And3-KeyTripleDES-CBC",
        );
    }
}

#[test]
fn routeros_finds_the_certificate_of_a_renamed_user() {
    let mut profile = sample::certificate();
    profile.user = "bob".to_owned();
    let files = sample::files(&profile);
    let script = sample::text(&files, "routeros/bob.phone.rsc");
    assert!(script.contains("[/certificate find where common-name=\"alice.phone\"]"));
    assert!(script.contains("file-name=bob.phone.p12"));
}

#[test]
fn another_password_opens_nothing() {
    let files = sample::files(&sample::certificate());
    let p12 = sample::bytes(&files, "alice.phone.p12");
    let open = ["pkcs12", "-passin", "pass:another", "-noenc"];
    if let Some(said) = tools::run("openssl", &open, &[], p12) {
        assert!(!said.success);
        assert!(said.stderr.contains("invalid password"), "{}", said.stderr);
    }
}

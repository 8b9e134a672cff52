//! One device's profile, with certificates made for the test.

use std::time::Duration;

use cygnet_pki::authority::{Authority, Issued, KeyKind, Purpose, Request, Validity};
use cygnet_pki::{SubjectAltName, UnixTime, load};
use cygnet_profile::write::{self, File};
use cygnet_profile::{Login, OnDemand, Profile};
use zeroize::Zeroizing;

pub(crate) const IDENTITY: &str = "alice.phone@1a2b3c4d.cygnet.internal";
pub(crate) const P12_PASSWORD: &str = "correct horse & \"battery\" 'staple' \u{e9}";
pub(crate) const AUTHORITY: &str = "Cygnet 1a2b3c4d";

fn validity() -> Validity {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    Validity {
        not_before: at(1_767_225_600),
        not_after: at(2_082_758_400),
    }
}

fn issue(key: KeyKind) -> (Vec<u8>, Issued) {
    let authority = Authority::create(AUTHORITY, &[1], validity(), key).expect("an authority");
    let issued = authority.issue(&Request {
        common_name: "alice.phone",
        names: &[SubjectAltName::Email(IDENTITY.to_owned())],
        purpose: Purpose::Client,
        serial: &[2],
        validity: validity(),
        key,
    });
    (
        authority.certificate_der().to_vec(),
        issued.expect("a certificate"),
    )
}

/// A login by certificate.
pub(crate) fn certificate() -> Profile {
    of_kind(KeyKind::EcdsaP256)
}

/// The same, with another kind of key.
pub(crate) fn of_kind(key: KeyKind) -> Profile {
    let (authority, issued) = issue(key);
    let mut profile = password();
    profile.authority.certificate = authority;
    profile.login = Login::Certificate {
        identity: IDENTITY.to_owned(),
        key: Some(pkcs8(&issued.key_pem)),
        certificate: issued.certificate_der,
        p12_password: Zeroizing::new(P12_PASSWORD.to_owned()),
    };
    profile
}

fn pkcs8(pem: &str) -> Zeroizing<Vec<u8>> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(text);
    Zeroizing::new(der.expect("base64"))
}

/// A login by user name and password.
pub(crate) fn password() -> Profile {
    let (authority, _) = issue(KeyKind::EcdsaP256);
    Profile {
        title: "Cygnet vpn.example.org".to_owned(),
        stable_id: "1a2b3c4d/alice/phone".to_owned(),
        remote: "vpn.example.org".to_owned(),
        remote_identity: "vpn.example.org".to_owned(),
        user: "alice".to_owned(),
        device: "phone".to_owned(),
        authority: cygnet_profile::Authority {
            common_name: AUTHORITY.to_owned(),
            certificate: authority,
        },
        login: Login::Password,
        networks: Vec::new(),
        dns: Vec::new(),
        domains: Vec::new(),
        on_demand: OnDemand::default(),
        ike: vec![
            "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-curve25519-ecp256-ecp384-ecp521"
                .to_owned(),
            "aes256-sha256-ecp256".to_owned(),
        ],
        esp: vec![
            "aes256gcm16-aes128gcm16-chacha20poly1305-curve25519-ecp256-ecp384-ecp521-esn-noesn"
                .to_owned(),
        ],
        ike_lifetime: Duration::from_secs(4 * 3600),
        child_lifetime: Duration::from_secs(3600),
    }
}

/// All its files.
pub(crate) fn files(profile: &Profile) -> Vec<File> {
    write::files(profile).unwrap_or_else(|error| panic!("{error}"))
}

/// The one file of that path.
pub(crate) fn bytes<'a>(files: &'a [File], path: &str) -> &'a [u8] {
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let file = files.iter().find(|file| file.path == path);
    &file
        .unwrap_or_else(|| panic!("no {path} among {paths:?}"))
        .bytes
}

/// The same, as text.
pub(crate) fn text<'a>(files: &'a [File], path: &str) -> &'a str {
    std::str::from_utf8(bytes(files, path)).expect("UTF-8")
}

/// What a file of certificates holds.
pub(crate) fn der(pem: &[u8]) -> Vec<u8> {
    load::certificates(pem, "pem".as_ref())
        .expect("a certificate")
        .leaf
}

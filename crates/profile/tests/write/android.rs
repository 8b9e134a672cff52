//! `.sswan`, read by Python's json.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cygnet_profile::{Login, Profile};
use serde_json::{Value, json};

use crate::{pkcs12, sample, tools};

fn read(profile: &Profile) -> Option<Value> {
    let files = sample::files(profile);
    tools::json(sample::bytes(&files, "alice.phone.sswan"))
}

#[test]
fn a_login_by_certificate() {
    let profile = sample::certificate();
    let Some(root) = read(&profile) else { return };
    assert_eq!(root["type"], "ikev2-cert");
    assert_eq!(root["name"], "Cygnet vpn.example.org");
    assert_eq!(root["remote"]["addr"], "vpn.example.org");
    assert_eq!(root["remote"]["id"], "vpn.example.org");
    let authority = STANDARD.encode(&profile.authority.certificate);
    assert_eq!(root["remote"]["cert"], json!(authority));
    assert_eq!(root["local"]["id"], sample::IDENTITY);
    let p12 = root["local"]["p12"].as_str().expect("a text");
    let p12 = STANDARD.decode(p12).expect("base64");
    pkcs12::check(
        &profile,
        &p12,
        "MAC: sha1",
        "pbeWithSHA1And3-KeyTripleDES-CBC",
    );
    let esp = root["esp-proposal"].as_str().expect("a text");
    assert!(
        esp.starts_with("aes256gcm16-") && !esp.contains("esn"),
        "{esp}"
    );
    assert!(root.get("split-tunneling").is_none());
    let again = read(&sample::certificate()).expect("as before");
    assert_eq!(root["uuid"], again["uuid"], "replaces the older one");
}

#[test]
fn a_login_by_password() {
    let mut profile = sample::password();
    profile.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    let Some(root) = read(&profile) else { return };
    assert_eq!(root["type"], "ikev2-eap");
    assert_eq!(root["local"], json!({"eap_id": "alice"}));
    assert_eq!(root["split-tunneling"], json!({"subnets": ["10.0.0.0/8"]}));
}

#[test]
fn a_key_that_never_left_the_device_is_chosen_there() {
    let mut profile = sample::certificate();
    if let Login::Certificate { key, .. } = &mut profile.login {
        *key = None;
    }
    let Some(root) = read(&profile) else { return };
    assert_eq!(root["type"], "ikev2-cert");
    assert_eq!(root["local"], json!({"id": sample::IDENTITY}));
}

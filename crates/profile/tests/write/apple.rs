//! `.mobileconfig`, read by Python's plistlib.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cygnet_pki::authority::KeyKind;
use cygnet_profile::{Login, OnDemand, Profile};
use serde_json::{Value, json};

use crate::{pkcs12, sample, tools};

fn read(profile: &Profile) -> Option<Value> {
    let files = sample::files(profile);
    tools::plist(sample::bytes(&files, "alice.phone.mobileconfig"))
}

fn payload<'a>(root: &'a Value, kind: &str) -> &'a Value {
    let payloads = root["PayloadContent"].as_array().expect("an array");
    let found = payloads.iter().find(|one| one["PayloadType"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {root}"))
}

fn data(payload: &Value) -> Vec<u8> {
    let text = payload["PayloadContent"].as_str().expect("data");
    STANDARD.decode(text).expect("base64")
}

#[test]
fn a_login_by_certificate_holds_all_it_needs() {
    let profile = sample::certificate();
    let Some(root) = read(&profile) else { return };
    assert_eq!(root["PayloadType"], "Configuration");
    assert_eq!(root["PayloadVersion"], 1);
    assert_eq!(root["PayloadRemovalDisallowed"], false);
    let vpn = payload(&root, "com.apple.vpn.managed");
    assert_eq!(vpn["VPNType"], "IKEv2");
    assert_eq!(vpn["UserDefinedName"], "Cygnet vpn.example.org");
    assert_eq!(vpn["IPv4"]["OverridePrimary"], 1);
    let p12 = payload(&root, "com.apple.security.pkcs12");
    let ikev2 = &vpn["IKEv2"];
    for (key, value) in [
        ("AuthenticationMethod", json!("Certificate")),
        ("CertificateType", json!("ECDSA256")),
        ("LocalIdentifier", json!(sample::IDENTITY)),
        ("RemoteAddress", json!("vpn.example.org")),
        ("RemoteIdentifier", json!("vpn.example.org")),
        (
            "ServerCertificateIssuerCommonName",
            json!(sample::AUTHORITY),
        ),
        ("PayloadCertificateUUID", p12["PayloadUUID"].clone()),
        ("DisableMOBIKE", json!(0)),
        ("EnablePFS", json!(true)),
        ("OnDemandEnabled", json!(0)),
        ("DeadPeerDetectionRate", json!("Medium")),
    ] {
        assert_eq!(ikev2[key], value, "{key}");
    }
    for (key, below) in [
        ("IKESecurityAssociationParameters", 240),
        ("ChildSecurityAssociationParameters", 60),
    ] {
        let parameters = &ikev2[key];
        assert_eq!(parameters["EncryptionAlgorithm"], "AES-256-GCM");
        assert_eq!(parameters["IntegrityAlgorithm"], "SHA2-512");
        assert_eq!(parameters["DiffieHellmanGroup"], 20);
        let minutes = parameters["LifeTimeInMinutes"].as_u64().expect("minutes");
        assert!((10..below).contains(&minutes), "{key}: {minutes}");
    }
    assert!(
        p12.get("Password").is_none(),
        "the file alone opens nothing"
    );
    pkcs12::check(
        &profile,
        &data(p12),
        "MAC: sha1",
        "pbeWithSHA1And3-KeyTripleDES-CBC",
    );
    let authority = data(payload(&root, "com.apple.security.root"));
    assert_eq!(authority, profile.authority.certificate);
}

#[test]
fn a_login_by_password_holds_the_user_alone() {
    let Some(root) = read(&sample::password()) else {
        return;
    };
    let ikev2 = &payload(&root, "com.apple.vpn.managed")["IKEv2"];
    // The server proves itself by its certificate, whose kind Apple's devices have to be told.
    assert_eq!(ikev2["AuthenticationMethod"], "Certificate");
    assert_eq!(ikev2["CertificateType"], "ECDSA256");
    assert_eq!(ikev2["ExtendedAuthEnabled"], 1);
    assert_eq!(ikev2["AuthName"], "alice");
    assert_eq!(ikev2["LocalIdentifier"], "alice");
    for absent in ["AuthPassword", "PayloadCertificateUUID"] {
        assert!(ikev2.get(absent).is_none(), "{absent}");
    }
    assert_eq!(root["PayloadContent"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_certificate_s_type_is_that_of_its_key() {
    for (kind, name) in [(KeyKind::EcdsaP384, "ECDSA384"), (KeyKind::Rsa3072, "RSA")] {
        if let Some(root) = read(&sample::of_kind(kind)) {
            let ikev2 = &payload(&root, "com.apple.vpn.managed")["IKEv2"];
            assert_eq!(ikev2["CertificateType"], name);
        }
        let mut profile = sample::of_kind(kind);
        profile.login = Login::Password;
        if let Some(root) = read(&profile) {
            let ikev2 = &payload(&root, "com.apple.vpn.managed")["IKEv2"];
            assert_eq!(ikev2["CertificateType"], name, "that of the server");
        }
    }
}

#[test]
fn a_renewed_profile_takes_the_place_of_the_old() {
    fn identifiers(root: &Value) -> Vec<String> {
        let payloads = root["PayloadContent"].as_array().expect("an array");
        let all = std::iter::once(root).chain(payloads);
        let keys = ["PayloadUUID", "PayloadIdentifier"];
        let values = all.flat_map(|one| keys.map(|key| one[key].as_str().expect(key).to_owned()));
        values.collect()
    }
    let old = sample::certificate();
    // Another certificate, address and name.
    let mut new = sample::certificate();
    new.remote = "203.0.113.7".to_owned();
    new.title = "Another".to_owned();
    let mut other = sample::certificate();
    other.stable_id = "1a2b3c4d/alice/laptop".to_owned();
    let (Some(old), Some(new), Some(other)) = (read(&old), read(&new), read(&other)) else {
        return;
    };
    assert_eq!(identifiers(&old), identifiers(&new));
    let distinct: BTreeSet<String> = [identifiers(&old), identifiers(&other)]
        .concat()
        .into_iter()
        .collect();
    assert_eq!(distinct.len(), 16, "none is used twice");
}

#[test]
fn on_demand_rules_are_in_the_order_that_decides() {
    let mut profile = sample::certificate();
    profile.on_demand = OnDemand {
        cellular: true,
        wifi: true,
        trusted_ssids: vec!["Home & \"Garden\"".to_owned(), "büro".to_owned()],
    };
    let Some(root) = read(&profile) else { return };
    let ikev2 = &payload(&root, "com.apple.vpn.managed")["IKEv2"];
    assert_eq!(ikev2["OnDemandEnabled"], 1);
    assert_eq!(ikev2["DeadPeerDetectionRate"], "High");
    let probe = "http://captive.apple.com/hotspot-detect.html";
    assert_eq!(
        ikev2["OnDemandRules"],
        json!([
            {"Action": "Disconnect", "InterfaceTypeMatch": "WiFi", "SSIDMatch": ["Home & \"Garden\"", "büro"]},
            {"Action": "Connect", "InterfaceTypeMatch": "WiFi", "URLStringProbe": probe},
            {"Action": "Connect", "InterfaceTypeMatch": "Cellular", "URLStringProbe": probe},
            {"Action": "Ignore"},
        ])
    );
    profile.on_demand.wifi = false;
    let Some(root) = read(&profile) else { return };
    let rules = &payload(&root, "com.apple.vpn.managed")["IKEv2"]["OnDemandRules"];
    assert_eq!(
        rules[1],
        json!({"Action": "Ignore", "InterfaceTypeMatch": "WiFi"}),
        "what a person switches on there stays on"
    );
}

#[test]
fn some_networks_and_domains_alone() {
    let mut profile = sample::certificate();
    profile.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    profile.dns = vec!["10.0.0.53".parse().expect("an address")];
    profile.domains = vec!["example.org".to_owned()];
    let Some(root) = read(&profile) else { return };
    let vpn = payload(&root, "com.apple.vpn.managed");
    assert_eq!(vpn["IPv4"]["OverridePrimary"], 0);
    assert_eq!(
        vpn["DNS"],
        json!({"ServerAddresses": ["10.0.0.53"], "SupplementalMatchDomains": ["example.org"]})
    );
}

#[test]
fn what_would_be_cut_before_it_rekeys_is_not_written() {
    let mut profile = sample::password();
    profile.child_lifetime = Duration::from_secs(13 * 60);
    let files = sample::files(&profile);
    assert!(
        !files
            .iter()
            .any(|file| file.path.ends_with(".mobileconfig"))
    );
    assert!(sample::text(&files, "README.html").contains("15 minutes or more"));
    profile.child_lifetime = Duration::from_secs(15 * 60);
    let Some(root) = read(&profile) else { return };
    let ikev2 = &payload(&root, "com.apple.vpn.managed")["IKEv2"];
    let child = &ikev2["ChildSecurityAssociationParameters"];
    assert_eq!(child["LifeTimeInMinutes"], 11);
}

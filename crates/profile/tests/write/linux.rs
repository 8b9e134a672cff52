//! Files for strongSwan and NetworkManager, read by their own parsers.

use std::collections::BTreeMap;

use cygnet_profile::{Login, Profile};

use crate::{sample, tools};

/// The parser of strongSwan's settings reads swanctl.conf as it does strongswan.conf; the latter every program of
/// strongSwan loads first.
pub(crate) fn check_swanctl(text: &str) {
    let directory = tools::Directory::new("swanctl");
    let path = directory.put("swanctl.conf", text.as_bytes());
    let environment = [("STRONGSWAN_CONF", path.as_str())];
    if let Some(said) = tools::run("pki", &["--help"], &environment, b"") {
        assert!(said.success, "{}{text}", said.stderr);
        assert!(!said.stderr.contains("error"), "{}{text}", said.stderr);
    }
}

/// strongSwan's starter, which reads the file and ends.
pub(crate) fn check_ipsec(text: &str) {
    let directory = tools::Directory::new("ipsec");
    let path = directory.put("ipsec.conf", text.as_bytes());
    let starter = "/usr/lib/ipsec/starter";
    if let Some(said) = tools::run(starter, &["--conftest", "--conf", &path], &[], b"") {
        assert!(said.success, "{}{text}", said.stderr);
        let printed = format!("{}{}", String::from_utf8_lossy(&said.stdout), said.stderr);
        assert_eq!(printed.trim(), "config OK", "{text}");
    }
}

/// The values of a key file as NetworkManager writes it anew, by section and key.
pub(crate) fn read_key_file(text: &str) -> Option<BTreeMap<(String, String), String>> {
    let arguments = ["--offline", "connection", "modify", "connection.zone", "x"];
    let printed = tools::good("nmcli", &arguments, text.as_bytes())?;
    let printed = String::from_utf8(printed).expect("UTF-8");
    let mut section = "";
    let mut values = BTreeMap::new();
    for line in printed.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once('=') {
            values.insert((section.to_owned(), key.to_owned()), value.to_owned());
        }
    }
    Some(values)
}

fn without_key(mut profile: Profile) -> Profile {
    if let Login::Certificate { key, .. } = &mut profile.login {
        *key = None;
    }
    profile
}

#[test]
fn strongswan_reads_swanctl_conf() {
    let mut split = sample::certificate();
    split.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    split.remote = "2001:db8::5".to_owned();
    split.remote_identity = "2001:db8::5".to_owned();
    for profile in [sample::certificate(), sample::password(), split] {
        let files = sample::files(&profile);
        check_swanctl(sample::text(&files, "swanctl/swanctl.conf"));
    }
}

#[test]
fn swanctl_s_files_are_where_it_looks() {
    let profile = sample::certificate();
    let files = sample::files(&profile);
    let conf = sample::text(&files, "swanctl/swanctl.conf");
    let Login::Certificate { certificate, .. } = &profile.login else {
        panic!("a login by certificate");
    };
    assert!(conf.contains("certs = alice.phone.crt"));
    let leaf = sample::bytes(&files, "swanctl/x509/alice.phone.crt");
    assert_eq!(&sample::der(leaf), certificate);
    assert!(conf.contains("cacerts = alice.phone-ca.crt"));
    let ca = sample::bytes(&files, "swanctl/x509ca/alice.phone-ca.crt");
    assert_eq!(sample::der(ca), profile.authority.certificate);
    let key = sample::bytes(&files, "swanctl/private/alice.phone.key");
    tools::good("openssl", &["pkey", "-check", "-noout"], key);
    // Seconds: 3 h of 4, 45 min of 60, and never longer than the server's.
    for line in [
        "rekey_time = 10800s",
        "over_time = 1080s",
        "rekey_time = 2700s",
        "life_time = 2970s",
    ] {
        assert!(conf.contains(line), "{line}");
    }
}

#[test]
fn a_password_has_its_place_in_swanctl_conf_alone() {
    let files = sample::files(&sample::password());
    let conf = sample::text(&files, "swanctl/swanctl.conf");
    assert!(conf.contains("auth = eap-mschapv2"));
    assert!(conf.contains("eap_id = alice"));
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "README.html",
            "alice.phone.mobileconfig",
            "alice.phone.sswan",
            "windows/alice.phone.ps1",
            "networkmanager/alice.phone.nmconnection",
            "networkmanager/ca.crt",
            "swanctl/swanctl.conf",
            "swanctl/x509ca/alice.phone-ca.crt",
        ]
    );
    assert!(files.iter().all(|file| !file.secret));
}

#[test]
fn the_starter_reads_ipsec_conf() {
    let mut split = sample::certificate();
    split.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    split.remote = "203.0.113.5".to_owned();
    for profile in [sample::certificate(), split] {
        let files = sample::files(&profile);
        check_ipsec(sample::text(&files, "ipsec/ipsec.conf"));
        let secrets = sample::text(&files, "ipsec/ipsec.secrets");
        assert_eq!(secrets, ": ECDSA alice.phone.key\n");
        sample::bytes(&files, "ipsec/private/alice.phone.key");
        sample::bytes(&files, "ipsec/certs/alice.phone.crt");
        sample::bytes(&files, "ipsec/cacerts/alice.phone-ca.crt");
    }
}

/// The keys that the plugin's service reads (strongSwan, src/charon-nm/nm/nm_service.c).
const PLUGIN_KEYS: &[&str] = &[
    "address",
    "cert-source",
    "certificate",
    "encap",
    "esp",
    "ike",
    "ipcomp",
    "local-identity",
    "local-ts",
    "method",
    "proposal",
    "remote-identity",
    "remote-ts",
    "server-port",
    "user",
    "usercert",
    "userkey",
    "virtual",
];

#[test]
fn networkmanager_takes_every_value() {
    let mut split = sample::password();
    split.networks = vec![
        "10.0.0.0/8".parse().expect("a network"),
        "fd00::/8".parse().expect("a network"),
    ];
    for profile in [sample::certificate(), split] {
        let files = sample::files(&profile);
        let text = sample::text(&files, "networkmanager/alice.phone.nmconnection");
        let Some(values) = read_key_file(text) else {
            return;
        };
        let mut section = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if let Some((key, value)) = line.split_once('=') {
                let read = values.get(&(section.to_owned(), key.to_owned()));
                assert_eq!(read.map(String::as_str), Some(value), "{section}.{key}");
                let ours = ["service-type", "password-flags"].contains(&key);
                assert!(
                    section != "vpn" || ours || PLUGIN_KEYS.contains(&key),
                    "{key}"
                );
            }
        }
    }
}

#[test]
fn a_key_that_never_left_the_device_is_in_no_file() {
    let files = sample::files(&without_key(sample::certificate()));
    for file in &files {
        let text = String::from_utf8_lossy(&file.bytes);
        assert!(!text.contains("PRIVATE KEY"), "{}", file.path);
        assert!(!file.path.ends_with(".p12"), "{}", file.path);
    }
    check_swanctl(sample::text(&files, "swanctl/swanctl.conf"));
    let bundle: serde_json::Value =
        serde_json::from_slice(sample::bytes(&files, "alice.phone.cygnet")).expect("JSON");
    assert!(bundle.get("key").is_none());
}

#[test]
fn whatever_holds_a_key_is_secret() {
    for file in sample::files(&sample::certificate()) {
        let text = String::from_utf8_lossy(&file.bytes);
        let ending = file.path.rsplit('.').next().unwrap_or_default();
        let wrapped = ["p12", "mobileconfig", "sswan"].contains(&ending);
        assert_eq!(
            file.secret,
            wrapped || text.contains("PRIVATE KEY"),
            "{}",
            file.path
        );
        assert!(!text.contains(sample::P12_PASSWORD), "{}", file.path);
        assert!(file.path.split('/').count() <= 3, "{}", file.path);
    }
}

//! The Cygnet bundle, read by Python's json and by what `cygnet import` reads it with.

use cygnet_pki::load;
use cygnet_profile::{Bundle, Login, bundle::VERSION};

use crate::{sample, tools};

#[test]
fn it_holds_all_another_cygnet_needs() {
    let mut profile = sample::certificate();
    profile.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    profile.dns = vec!["10.0.0.53".parse().expect("an address")];
    let files = sample::files(&profile);
    let bytes = sample::bytes(&files, "alice.phone.cygnet");
    let bundle: Bundle = serde_json::from_slice(bytes).expect("a bundle");
    assert_eq!(bundle.cygnet, VERSION);
    assert_eq!(bundle.name, "vpn-example-org");
    assert_eq!(bundle.remote, profile.remote);
    assert_eq!(bundle.remote_identity, profile.remote_identity);
    assert_eq!(bundle.identity, sample::IDENTITY);
    assert_eq!(bundle.networks, profile.networks);
    assert_eq!(bundle.dns, profile.dns);
    let Login::Certificate { certificate, .. } = &profile.login else {
        panic!("a login by certificate");
    };
    let file = load::certificates(bundle.certificate.as_bytes(), "crt".as_ref());
    let file = file.expect("a certificate");
    assert_eq!(&file.leaf, certificate);
    let ca = sample::der(bundle.ca.as_bytes());
    assert_eq!(ca, profile.authority.certificate);
    let key = bundle.key.expect("a key");
    let key = load::private_key(key.as_bytes(), "key".as_ref()).expect("PKCS#8");
    load::check_key_matches(&key, "key".as_ref(), &file, "crt".as_ref()).expect("its key");
    if let Some(json) = tools::json(bytes) {
        assert_eq!(json["identity"], sample::IDENTITY);
    }
}

#[test]
fn an_address_of_any_kind_becomes_a_name() {
    for (remote, name) in [
        ("2001:db8::5", "2001-db8-5"),
        ("::1", "1"),
        ("a-very-long-name-of-thirty-chars.-x.example.org", ""),
        (
            "a-very-long-name-of-twenty-nine.example.org",
            "a-very-long-name-of-twenty-nine",
        ),
    ] {
        let mut profile = sample::certificate();
        profile.remote = remote.to_owned();
        let Ok(files) = cygnet_profile::write::files(&profile) else {
            assert_eq!(name, "", "{remote} is refused");
            continue;
        };
        let bundle: Bundle =
            serde_json::from_slice(sample::bytes(&files, "alice.phone.cygnet")).expect("a bundle");
        assert_eq!(bundle.name, name);
    }
}

//! Log-ins by EAP: what the keys become.

use cygnet_config::{Config, CredentialFile};
use cygnet_ike::identity;
use cygnet_ike::policy::{Connection, CredentialId, EapLogin, LocalAuth, RemoteAuth};
use cygnet_wire::id::Identification;

/// Of [`documentation`](../documentation.rs).
const CERTIFICATE: &str = include_str!("data/main.crt");

fn parse(text: &str) -> Config {
    let parsed = Config::parse("cygnet.toml", text, &mut |path| match path {
        "main.crt" | "ca.crt" => Ok(CERTIFICATE.as_bytes().to_vec()),
        other => Err(format!("cannot read {other}")),
    });
    parsed.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn connection<'a>(config: &'a Config, name: &str) -> &'a Connection {
    config.policy.connection(name).expect("it is there")
}

const SERVER: &str = "[server]\npools = [\"10.99.0.0/24\"]\ncertificate = \"main.crt\"\nkey = \"main.key\"\nca = \"ca.crt\"\n";

#[test]
fn a_server_takes_passwords_and_certificates_in_tls_where_it_is_told_to() {
    let config = parse(SERVER);
    assert!(!connection(&config, "server").eap.any());
    let config = parse(&format!("{SERVER}passwords = \"users\"\neap_tls = true\n"));
    let eap = &connection(&config, "server").eap;
    let passwords = CredentialId("server/passwords".to_owned());
    assert_eq!(eap.passwords.as_ref(), Some(&passwords));
    assert!(eap.tls);
    let file = CredentialFile::Passwords {
        path: "users".to_owned(),
    };
    assert_eq!(config.credentials.get(&passwords), Some(&file));
    // People have one password and several devices, unless somebody says that they do not.
    assert!(eap.shared && connection(&config, "server").unique);
    for (unique, shared) in [(true, false), (false, true)] {
        let config = parse(&format!(
            "{SERVER}passwords = \"users\"\nunique = {unique}\n"
        ));
        let server = connection(&config, "server");
        assert_eq!((server.unique, server.eap.shared), (unique, shared));
    }
    let config = parse(&format!("{SERVER}eap_tls = false\n"));
    assert!(!connection(&config, "server").eap.any());
}

#[test]
fn a_tunnel_logs_in_by_password() {
    let config = parse(
        "[tunnel.work]\nremote = \"vpn.example.org\"\nuser = \"OFFICE\\\\alice\"\npassword = \"work.txt\"\nca = \"ca.crt\"\n",
    );
    let work = connection(&config, "work");
    let credential = CredentialId("work/password".to_owned());
    assert_eq!(
        work.local_auth,
        LocalAuth::Eap(EapLogin::Password {
            user: "OFFICE\\alice".to_owned(),
            credential: credential.clone(),
        })
    );
    assert_eq!(work.local_identity, Some(Identification::fqdn("alice")));
    assert!(matches!(work.remote_auth, RemoteAuth::Certificate { .. }));
    let file = CredentialFile::Password {
        path: "work.txt".to_owned(),
    };
    assert_eq!(config.credentials.get(&credential), Some(&file));
}

#[test]
fn a_tunnel_shows_its_certificate_in_tls() {
    let keys = "[tunnel.work]\nremote = \"vpn.example.org\"\ncertificate = \"main.crt\"\nkey = \"main.key\"\nca = \"ca.crt\"\n";
    for (line, expected) in [
        ("", "CN=main.example.org"),
        ("identity = \"main.example.org\"\n", "main.example.org"),
    ] {
        let config = parse(&format!("{keys}{line}eap = \"tls\"\n"));
        let work = connection(&config, "work");
        let LocalAuth::Eap(EapLogin::Certificate { chain, .. }) = &work.local_auth else {
            panic!("not by TLS");
        };
        let identity = work.local_identity.as_ref().map(identity::display);
        assert_eq!((identity.as_deref(), chain.len()), (Some(expected), 1));
    }
    let config = parse(keys);
    let local = &connection(&config, "work").local_auth;
    assert!(matches!(local, LocalAuth::Certificate { .. }));
}

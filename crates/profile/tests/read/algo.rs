//! What Algo hands out: flat with a `pki` folder in 2017, `ipsec/{apple,manual,.pki}` today.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cygnet_pki::UnixTime;
use cygnet_profile::read::{Credentials, Imported, Note};

use crate::lab::{Folder, OpenSsl, PASSWORD, SERVER, is_good, text_of};

const CA_2017: &str = "basicConstraints=CA:true\nkeyUsage=cRLSign,keyCertSign\nsubjectKeyIdentifier=hash\n\
    authorityKeyIdentifier=keyid:always,issuer:always\n";
const ALICE_2017: &str = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer:always\n\
    extendedKeyUsage=serverAuth,clientAuth,1.3.6.1.5.5.7.3.17\nkeyUsage=digitalSignature,keyEncipherment\n\
    subjectAltName=DNS:alice\n";
const CA_2026: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
    subjectKeyIdentifier=hash\nextendedKeyUsage=critical,1.3.6.1.5.5.7.3.17\nsubjectAltName=DNS:203.0.113.5\n\
    nameConstraints=critical,permitted;IP:203.0.113.5/255.255.255.255,permitted;DNS:0a1b.algo,permitted;email:0a1b.algo,\
    excluded;DNS:.com,excluded;email:.com,excluded;IP:10.0.0.0/255.0.0.0,excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0\n";
const ALICE_2026: &str = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth,1.3.6.1.5.5.7.3.17\n\
    keyUsage=digitalSignature,keyEncipherment\nsubjectAltName=email:alice@0a1b.algo\n";
const P12_2017: &str =
    "-legacy -certfile cacert.pem -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-RC2-40 -macalg sha1";
const P12_2026: &str = "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1";

fn conf(name: &str, ike: &str, esp: &str) -> String {
    format!(
        "conn {name}-{SERVER}
    fragmentation=yes
    rekey=no
    dpdaction=clear
    keyexchange=ikev2
    compress=no
    dpddelay=35s

    ike={ike}!
    esp={esp}!

    right={SERVER}
    rightid={SERVER}
    rightsubnet=0.0.0.0/0
    rightauth=pubkey

    leftsourceip=%config
    leftauth=pubkey
    leftcert=alice.crt
    leftfirewall=yes
    left=%defaultroute

    auto=add
"
    )
}

const SECRETS: &str = "203.0.113.5 : ECDSA alice.key\n";

/// Written by Python, with the fields of Algo's.
fn mobileconfig(openssl: &OpenSsl, group: u32, bits: u32, local: &str, pem: bool) -> Vec<u8> {
    let ca = match pem {
        true => "open('cacert.pem','rb').read()",
        false => "open('ca.der','rb').read()",
    };
    openssl.run("openssl x509 -in cacert.pem -outform DER -out ca.der");
    openssl.write(
        "make.py",
        &format!(
            "import plistlib
sa = dict(DiffieHellmanGroup={group}, EncryptionAlgorithm='AES-{bits}-GCM', IntegrityAlgorithm='SHA2-512', LifeTimeInMinutes=20)
ikev2 = dict(OnDemandEnabled=1, OnDemandRules=[dict(Action='Connect')], AuthenticationMethod='Certificate',
    ChildSecurityAssociationParameters=sa, IKESecurityAssociationParameters=sa, EnablePFS=True,
    LocalIdentifier='{local}', RemoteAddress='{SERVER}', RemoteIdentifier='{SERVER}', PayloadCertificateUUID='U-2')
vpn = dict(PayloadType='com.apple.vpn.managed', PayloadUUID='U-1', PayloadVersion=1.0, VPNType='IKEv2',
    UserDefinedName='Algo VPN {SERVER} IKEv2', IKEv2=ikev2, IPv4=dict(OverridePrimary=1))
p12 = dict(PayloadType='com.apple.security.pkcs12', PayloadUUID='U-2', Password='{PASSWORD}',
    PayloadContent=open('alice.p12','rb').read())
root = dict(PayloadType='com.apple.security.root', PayloadUUID='U-3', PayloadContent={ca})
plistlib.dump(dict(PayloadType='Configuration', PayloadContent=[vpn, p12, root]), open('out','wb'))
"
        ),
    );
    openssl.run("python3 make.py");
    openssl.read("out")
}

fn sswan(p12: &[u8]) -> String {
    format!(
        "{{\n  \"uuid\": \"0a1b\",\n  \"name\": \"Algo {SERVER}\",\n  \"type\": \"ikev2-cert\",\n  \"remote\": {{\n    \
         \"addr\": \"{SERVER}\"\n  }},\n  \"local\": {{\n    \"p12\": \"{}\"\n  }},\n  \"mtu\": 1280\n}}\n",
        STANDARD.encode(p12)
    )
}

fn of_2017() -> Folder {
    let openssl = OpenSsl::authority("P-256", CA_2017, ALICE_2017);
    openssl.p12(P12_2017);
    Folder::new()
        .with(
            "ipsec_alice.conf",
            conf(
                "ikev2",
                "aes128gcm16-prfsha512-ecp256",
                "aes128gcm16-ecp256",
            ),
        )
        .with("ipsec_alice.secrets", SECRETS)
        .with("cacert.pem", openssl.read("cacert.pem"))
        .with("alice.p12", openssl.read("alice.p12"))
        .with(
            "alice.mobileconfig",
            mobileconfig(&openssl, 19, 128, "alice", false),
        )
        .with("android_alice.sswan", sswan(&openssl.read("alice.p12")))
        .with("pki/certs/alice.crt", openssl.read("alice.crt"))
        .with("pki/private/alice.key", openssl.read("alice.key"))
}

fn of_2026() -> Folder {
    let openssl = OpenSsl::authority("P-384", CA_2026, ALICE_2026);
    openssl.p12(P12_2026);
    Folder::new()
        .with(
            "alice.conf",
            conf(
                "algovpn",
                "aes256gcm16-prfsha512-ecp384",
                "aes256gcm16-ecp384",
            ),
        )
        .with("alice.secrets", SECRETS)
        .with("cacert.pem", openssl.read("cacert.pem"))
        .with("alice.p12", openssl.read("alice.p12"))
        .with(
            "alice.mobileconfig",
            mobileconfig(&openssl, 20, 256, "alice@0a1b.algo", true),
        )
}

/// With these proposals, and none where the format has none.
fn is_algos(imported: &Imported, proposals: Option<(&str, &str)>) {
    assert_eq!(imported.remote, [SERVER]);
    assert!(imported.virtual_address);
    assert!(imported.networks.is_empty());
    let list = |it: Option<&str>| it.into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(imported.ike, list(proposals.map(|it| it.0)));
    assert_eq!(imported.esp, list(proposals.map(|it| it.1)));
    assert!(imported.child_lifetime < Duration::from_secs(3600));
    assert!(imported.ike_lifetime < Duration::from_secs(3 * 3600));
    let Credentials::Certificate { subject, ca, .. } = &imported.credentials else {
        panic!("not by certificate");
    };
    assert_eq!(subject.name, "CN=alice");
    assert_eq!(subject.issuer, "CN=203.0.113.5");
    assert_eq!(ca.len(), 1);
    let warnings = imported
        .notes
        .iter()
        .filter(|it| matches!(it, Note::Warning(_)));
    assert_eq!(warnings.count(), 0, "{}", text_of(&imported.notes));
    let config = is_good(imported);
    assert_eq!(config.policy.connections.len(), 1);
}

const IKE_2017: &str = "aes128gcm16-prfsha512-ecp256";
const ESP_2017: &str = "aes128gcm16-ecp256";
const IKE_2026: &str = "aes256gcm16-prfsha512-ecp384";
const ESP_2026: &str = "aes256gcm16-ecp384";

#[test]
fn all_formats_of_2017_lead_to_the_same_tunnel() {
    for files in [
        &["ipsec_alice.conf"][..],
        &["ipsec_alice.conf", "ipsec_alice.secrets"],
        &[
            "ipsec_alice.secrets",
            "pki/private/alice.key",
            "ipsec_alice.conf",
            "cacert.pem",
        ],
        &["ipsec_alice.conf", "alice.p12"],
        &["alice.p12"],
        &["alice.mobileconfig"],
        &["android_alice.sswan"],
    ] {
        let mut folder = of_2017().password(PASSWORD);
        let imported = folder.import(files);
        let imported = imported.unwrap_or_else(|error| panic!("{files:?}: {error}"));
        let none = [&["alice.p12"][..], &["android_alice.sswan"]].contains(&files);
        is_algos(&imported, (!none).then_some((IKE_2017, ESP_2017)));
        let asks = files
            .iter()
            .any(|it| it.contains("p12") || it.contains("sswan"));
        // Where certificate and key lie open, no password is asked for.
        let asked = folder.asked.len();
        assert_eq!(
            asked == 1,
            asks && !files.contains(&"ipsec_alice.conf"),
            "{files:?}"
        );
    }
}

#[test]
fn all_formats_of_today_lead_to_the_same_tunnel() {
    for files in [
        &["alice.conf"][..],
        &["alice.conf", "alice.secrets", "alice.p12", "cacert.pem"],
        &["alice.p12"],
        &["alice.mobileconfig"],
    ] {
        let mut folder = of_2026().password(PASSWORD);
        let imported = folder.import(files);
        let imported = imported.unwrap_or_else(|error| panic!("{files:?}: {error}"));
        let none = files == ["alice.p12"];
        is_algos(&imported, (!none).then_some((IKE_2026, ESP_2026)));
        let from_apple = files == ["alice.mobileconfig"];
        let identity = from_apple.then_some("alice@0a1b.algo");
        assert_eq!(imported.identity.as_deref(), identity);
        assert_eq!(folder.asked.is_empty(), from_apple, "{files:?}");
    }
}

#[test]
fn what_was_given_is_not_found_once_more() {
    let mut folder = of_2026().password(PASSWORD).password(PASSWORD);
    let copy = folder.files.get("alice.p12").cloned().expect("there");
    folder = folder.with("copy.p12", copy);
    for files in [
        &["alice.conf", "alice.p12"][..],
        &["alice.conf", "alice.p12", "copy.p12"],
    ] {
        folder.asked.clear();
        let imported = folder.import(files).expect("read");
        assert_eq!(folder.asked, [("alice.p12".to_owned(), 1)], "{files:?}");
        let told = text_of(&imported.notes);
        assert!(
            told.contains("beside the files given: alice.secrets")
                && !told.contains("alice.secrets, alice.p12"),
            "{told}"
        );
    }
}

#[test]
fn a_retained_pki_of_today_has_to_be_named() {
    let openssl = OpenSsl::authority("P-384", CA_2026, ALICE_2026);
    let mut folder = Folder::new()
        .with("alice.conf", conf("algovpn", IKE_2026, ESP_2026))
        .with("alice.secrets", SECRETS)
        .with("../.pki/cacert.pem", openssl.read("cacert.pem"))
        .with("../.pki/certs/alice.crt", openssl.read("alice.crt"))
        .with("../.pki/private/alice.key", openssl.read("alice.key"));
    // It lies in no folder below the one of the file that is given.
    let told = folder.refused(&["alice.conf"]);
    assert!(told.contains("alice.crt is neither"), "{told}");
    let imported = folder.import(&[
        "alice.conf",
        "../.pki/cacert.pem",
        "../.pki/certs/alice.crt",
        "../.pki/private/alice.key",
    ]);
    let imported = imported.expect("read");
    is_algos(&imported, Some((IKE_2026, ESP_2026)));
    assert_eq!(imported.name, "algovpn-203-0-113-5");
}

#[test]
fn what_would_harm_a_gateway_is_not_obeyed_and_that_is_said() {
    let mut folder = of_2017();
    let imported = folder.import(&["ipsec_alice.conf"]).expect("read");
    let told = text_of(&imported.notes);
    for part in [
        "ipsec_alice.conf:3: rekey=no",
        "ipsec_alice.conf:4: dpdaction=clear",
        "ipsec_alice.conf:20: leftfirewall=yes",
        "ipsec_alice.conf:23: auto=add",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!told.contains("compress"), "{told}");
    let section = imported.section("home", "home").text;
    for part in ["rekey", "dpd", "start", "compress"] {
        assert!(!section.contains(part), "{section}");
    }
    assert!(section.contains("child_lifetime = \"40m\""), "{section}");
}

#[test]
fn a_local_identifier_that_the_certificate_lacks_is_replaced_by_the_subject() {
    let openssl = OpenSsl::authority("P-256", CA_2017, ALICE_2017);
    openssl.p12(P12_2017);
    let profile = mobileconfig(&openssl, 19, 128, "alice@elsewhere.algo", false);
    let mut folder = Folder::new().with("alice.mobileconfig", profile);
    let imported = folder.import(&["alice.mobileconfig"]).expect("read");
    assert_eq!(imported.identity, None);
    let told = text_of(&imported.notes);
    assert!(told.contains("alice@elsewhere.algo is not used"), "{told}");
    is_good(&imported);
}

#[test]
fn a_wrong_password_is_asked_for_three_times() {
    let mut folder = of_2017().password("one").password("two").password("three");
    let told = folder.refused(&["alice.p12"]);
    assert!(told.contains("alice.p12: the password is wrong"), "{told}");
    assert_eq!(folder.asked.len(), 3);
    let mut folder = of_2017().password("one").password(PASSWORD);
    assert!(folder.import(&["alice.p12"]).is_ok());
    let mut folder = of_2017();
    assert!(folder.import(&["alice.p12"]).is_err(), "nobody knows it");
    assert_eq!(folder.asked.len(), 1);
}

#[test]
fn a_certificate_that_no_server_accepts_is_warned_of() {
    const YEAR: u64 = 365 * 24 * 3600;
    let elsewhere = ALICE_2026.replace("0a1b.algo", "example.com");
    let for_mail = ALICE_2017.replace(
        "serverAuth,clientAuth,1.3.6.1.5.5.7.3.17",
        "emailProtection",
    );
    for (ca, alice, later, expected) in [
        (CA_2026, elsewhere.as_str(), 0, "alice@example.com"),
        (CA_2017, for_mail.as_str(), 0, "emailProtection"),
        (CA_2017, ALICE_2017, 20 * YEAR, "expired"),
        (
            CA_2017,
            ALICE_2017,
            10 * YEAR - 41 * 12 * 3600,
            "expires in 20 days",
        ),
    ] {
        let openssl = OpenSsl::authority("P-256", ca, alice);
        openssl.p12("-certfile cacert.pem");
        let mut folder = Folder::new()
            .with("alice.p12", openssl.read("alice.p12"))
            .password(PASSWORD);
        let now = folder.options.now.map_or(0, |it| it.as_secs());
        let now = Duration::from_secs(now + later);
        folder.options.now = Some(UnixTime::since_unix_epoch(now));
        let imported = folder.import(&["alice.p12"]).expect("read");
        let told: Vec<_> = (imported.notes.iter())
            .filter(|it| matches!(it, Note::Warning(_)))
            .map(ToString::to_string)
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told.concat().contains(expected), "{told:?}");
    }
}

//! strongSwan's own forms, ours, and what is refused.

use cygnet_profile::Bundle;
use cygnet_profile::read::Credentials;

use crate::lab::{Folder, OpenSsl, SERVER, is_good, text_of};

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
const ALICE: &str =
    "keyUsage=digitalSignature\nsubjectAltName=email:alice@example.org,DNS:alice.example.org\n";

fn authority() -> OpenSsl {
    OpenSsl::authority("P-256", CA, ALICE)
}

const LEGACY: &str = "# its key: RSA, written by hand
version 2
config setup
\tuniqueids=never

conn %default
    ike = aes128-sha1-modp1024,aes256-sha256-modp2048
    ikelifetime=60m   # an hour
    lifetime=30m

conn common
    right=vpn.example.org
    rightid=\"C=XX, O=a # b, CN=vpn\"
    leftid=@alice.example.org
    leftcert=\"/etc/ipsec.d/certs/alice.crt\"
    ikelifetime=9h

conn office
    also=common
    ikelifetime=
    rightsubnet=10.1.0.0/24,10.2.0.0/16
    leftsubnet=192.168.7.0/24
    rightikeport=99999
    dpdaction=restart
    auto=start
    compress=yes
    mark=42

  also=nowhere
include /var/lib/strongswan/ipsec.conf.inc
oddity
";

#[test]
fn an_ipsec_conf_is_read_with_its_defaults_and_inclusions() {
    let openssl = authority();
    let mut folder = Folder::new()
        .with("ipsec.conf", LEGACY)
        .with(
            "ipsec.secrets",
            ": RSA /etc/ipsec.d/private/alice.key # ours\n",
        )
        .with("ipsec.d/certs/alice.crt", openssl.read("alice.crt"))
        .with("ipsec.d/private/alice.key", openssl.read("alice.key"))
        .with("ipsec.d/cacerts/root.pem", openssl.read("cacert.pem"));
    folder.options.connection = Some("office".into());
    let imported = folder.import(&["ipsec.conf"]).expect("read");
    let told = text_of(&imported.notes);
    assert_eq!(imported.name, "office");
    assert_eq!(imported.remote, ["vpn.example.org"]);
    assert_eq!(
        imported.remote_identity.as_deref(),
        Some("C=XX, O=a # b, CN=vpn")
    );
    assert_eq!(imported.identity.as_deref(), Some("alice.example.org"));
    assert_eq!(imported.ike, ["aes256-sha256-modp2048"]);
    assert!(!imported.virtual_address);
    // `ikelifetime=` takes the value back, which leaves strongSwan's own.
    assert_eq!(imported.ike_lifetime.as_secs(), 2 * 3600);
    assert_eq!(imported.child_lifetime.as_secs(), 20 * 60);
    let shown = |list: &[ipnet::IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&imported.networks), ["10.1.0.0/24", "10.2.0.0/16"]);
    assert_eq!(shown(&imported.local_networks), ["192.168.7.0/24"]);
    for part in [
        "ipsec.conf:7: the IKE proposal aes128-sha1-modp1024 is left out",
        "ipsec.conf:23: rightikeport: 99999 is no port",
        "ipsec.conf:26: compress=yes",
        "ipsec.conf:27: mark=42 is not known",
        "ipsec.conf:29: also=nowhere",
        "ipsec.conf:30: include is not followed",
        "ipsec.conf:31: expected",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    is_good(&imported);
}

#[test]
fn which_of_several_connections_has_to_be_said() {
    let text =
        "conn a\n right=a.example.org\nconn b\n right=b.example.org\nconn any\n right=%any\n";
    let mut folder = Folder::new().with("ipsec.conf", text);
    let told = |folder: &mut Folder| folder.refused(&["ipsec.conf"]);
    assert!(told(&mut folder).contains("--connection: a, b"));
    folder.options.connection = Some("c".into());
    assert!(told(&mut folder).contains("there is no conn c; there are: a, b, any"));
    folder.options.connection = Some("any".into());
    assert!(told(&mut folder).contains("calls nobody"));
}

#[test]
fn a_pre_shared_key_is_found_by_whom_it_is_for() {
    let conf =
        "conn a\n right=vpn.example.org\n authby=secret\n leftid=box\n leftsourceip=%config\n";
    let secrets = "# all\n: PSK \"for everybody\"\nbox vpn.example.org : PSK\n   \"for # us\"\n\
        other : PSK 0x00ff\n2001:db8::1 : PSK 0sAAEC\nx : XAUTH \"no\"\n";
    let mut folder = Folder::new()
        .with("a.conf", conf)
        .with("a.secrets", secrets);
    let imported = folder.import(&["a.conf", "a.secrets"]).expect("read");
    let Credentials::PreShared(secret) = &imported.credentials else {
        panic!("by another way");
    };
    assert_eq!(secret.as_slice(), b"for # us");
    assert!(text_of(&imported.notes).contains("a.secrets:7: a secret of kind XAUTH"));
    let section = imported.section("a", "a");
    assert_eq!(section.files.len(), 1);
    assert!(section.files[0].bytes.starts_with(b"0x666f72"));
    is_good(&imported);
    let mut folder = Folder::new().with("a.conf", conf);
    let told = folder.refused(&["a.conf"]);
    assert!(told.contains("ipsec.secrets"), "{told}");
}

#[test]
fn a_shared_secret_in_a_profile_of_apples_is_read() {
    let openssl = OpenSsl::new();
    openssl.write(
        "make.py",
        "import plistlib
ikev2 = dict(AuthenticationMethod='SharedSecret', SharedSecret='s & <cret>', RemoteAddress='vpn.example.org',
    RemoteIdentifier='vpn.example.org', LocalIdentifier='box')
vpn = dict(PayloadType='com.apple.vpn.managed', VPNType='IKEv2', IKEv2=ikev2)
plistlib.dump(dict(PayloadContent=[vpn]), open('out','wb'))
",
    );
    openssl.run("python3 make.py");
    let mut folder = Folder::new().with("a.mobileconfig", openssl.read("out"));
    let imported = folder.import(&["a.mobileconfig"]).expect("read");
    let Credentials::PreShared(secret) = &imported.credentials else {
        panic!("by another way");
    };
    assert_eq!(secret.as_slice(), b"s & <cret>");
    assert_eq!(imported.identity.as_deref(), Some("box"));
    is_good(&imported);
}

#[test]
fn a_profile_of_apples_may_leave_the_user_name_to_the_device() {
    let openssl = authority();
    openssl.write(
        "make.py",
        "import plistlib, sys
ikev2 = dict(AuthenticationMethod=sys.argv[1], ExtendedAuthEnabled=True, RemoteAddress='vpn.example.org',
    RemoteIdentifier='vpn.example.org')
if len(sys.argv) > 2: ikev2['LocalIdentifier'] = sys.argv[2]
vpn = dict(PayloadType='com.apple.vpn.managed', VPNType='IKEv2', IKEv2=ikev2)
root = dict(PayloadType='com.apple.security.root', PayloadContent=open('cacert.pem','rb').read())
plistlib.dump(dict(PayloadContent=[vpn, root]), open('out','wb'))
",
    );
    for method in ["None", "Certificate"] {
        openssl.run(&format!("python3 make.py {method} alice"));
        let folder = Folder::new().with("a.mobileconfig", openssl.read("out"));
        let mut folder = folder.password("typed");
        let imported = folder.import(&["a.mobileconfig"]).expect("read");
        let Credentials::User { name, .. } = &imported.credentials else {
            panic!("by another way");
        };
        assert_eq!(name, "alice");
        is_good(&imported);
        openssl.run(&format!("python3 make.py {method}"));
        let mut folder = Folder::new().with("a.mobileconfig", openssl.read("out"));
        let told = folder.refused(&["a.mobileconfig"]);
        assert!(
            told.contains("expected eap_identity, eap_id or AuthName"),
            "{told}"
        );
    }
}

const SWANCTL: &str = "
connections {
  home {
    version = 2
    remote_addrs = vpn.example.org
    remote_port = ike
    vips = 0.0.0.0, ::
    proposals = aes256gcm16-prfsha384-ecp384, 3des-sha1-modp1024
    dpd_delay = 35s
    rekey_time = 0
    local-1 { auth = pubkey
      certs = alice.crt
      id = \"alice@example.org\"   # in the certificate
      xauth_id = alice
    }
    remote {
      id = \"vpn.example.org\"
      cacerts = root.pem
    }
    children {
      net { remote_ts = 0.0.0.0/0, ::/0
        esp_proposals = aes256gcm16-ecp384 # one
        start_action = none
        ipcomp = yes
        if_id_in = 7
      }
      more { remote_ts = 10.0.0.0/8 }
    }
  }
}
secrets {
  private-alice { file = anything.key }
  token-x { handle = 1 }
}
include conf.d/*.conf
";

#[test]
fn a_swanctl_conf_is_read_with_its_folders() {
    let openssl = authority();
    let text = SWANCTL;
    let mut folder = Folder::new()
        .with("swanctl.conf", text)
        .with("x509/alice.crt", openssl.read("alice.crt"))
        .with("private/anything.key", openssl.read("alice.key"))
        .with("x509ca/root.pem", openssl.read("cacert.pem"));
    let imported = folder.import(&["swanctl.conf"]).expect("read");
    assert_eq!(imported.name, "home");
    assert_eq!(imported.remote, ["vpn.example.org"]);
    assert_eq!(imported.remote_identity.as_deref(), Some("vpn.example.org"));
    assert_eq!(imported.identity.as_deref(), Some("alice@example.org"));
    assert_eq!(imported.ike, ["aes256gcm16-prfsha384-ecp384"]);
    assert_eq!(imported.esp, ["aes256gcm16-ecp384"]);
    assert!(imported.virtual_address && imported.networks.is_empty());
    let told = text_of(&imported.notes);
    for part in [
        "swanctl.conf:6: remote_port: ike is no port",
        "swanctl.conf:8: the IKE proposal 3des-sha1-modp1024",
        "swanctl.conf:10: rekey_time = 0",
        "swanctl.conf:14: xauth_id = alice is not known here",
        "start_action = none: the tunnel comes up by itself",
        "ipcomp = yes: compression",
        "if_id_in = 7 is not known",
        "only the first child, net, is taken over; more is not",
        "a secret of kind token",
        "include is not followed",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    is_good(&imported);
}

#[test]
fn no_line_break_gets_from_a_file_into_the_configuration() {
    let openssl = authority();
    let read = |text: &str| {
        let mut folder = Folder::new()
            .with("swanctl.conf", text)
            .with("x509/alice.crt", openssl.read("alice.crt"))
            .with("private/anything.key", openssl.read("alice.key"))
            .with("x509ca/root.pem", openssl.read("cacert.pem"));
        folder.import(&["swanctl.conf"])
    };
    let text = SWANCTL;
    let forged = "CN=a\\n# end of [tunnel.home]\\n[daemon]";
    for (old, new, line) in [
        (
            "vpn.example.org\"",
            format!("{forged}\""),
            "swanctl.conf:17: ",
        ),
        ("alice@example.org", forged.to_owned(), "swanctl.conf:13: "),
        (
            "remote_addrs = vpn.example.org",
            format!("remote_addrs = \"{forged}\""),
            "swanctl.conf:5: ",
        ),
    ] {
        let told = read(&text.replacen(old, &new, 1))
            .err()
            .expect(old)
            .to_string();
        assert!(
            told.starts_with(line) && told.contains("expected one line"),
            "{told}"
        );
    }
    // A secret may be of any characters.
    let secret = text.replace("token-x { handle = 1 }", "ike-x { secret = \"a\\nb\" }");
    assert!(read(&secret).is_ok());
    // A user name that our side is to say, from JSON.
    let mut folder = Folder::new().with(
        "a.sswan",
        "{\"type\":\"ikev2-eap\",\"remote\":{\"addr\":\"a.b\"},\"local\":{\"eap_id\":\"a\\n[daemon]\"}}",
    );
    let told = folder.refused(&["a.sswan"]);
    assert!(
        told.contains("the user name: expected text on one line"),
        "{told}"
    );
}

#[test]
fn what_is_written_is_one_line_a_key() {
    let openssl = authority();
    let text = SWANCTL;
    let mut folder = Folder::new()
        .with("swanctl.conf", text)
        .with("x509/alice.crt", openssl.read("alice.crt"))
        .with("private/anything.key", openssl.read("alice.key"))
        .with("x509ca/root.pem", openssl.read("cacert.pem"));
    let mut imported = folder.import(&["swanctl.conf"]).expect("read");
    let lines = imported.section("home", "home").text.lines().count();
    imported.remote_identity = Some("CN=a\n# end of [tunnel.home]\n'\"".into());
    let section = imported.section("home", "home").text;
    assert_eq!(section.lines().count(), lines, "{section}");
}

#[test]
fn braces_that_do_not_fit_are_told_by_line() {
    for (text, part) in [
        (
            "connections {\n a {\n }\n",
            "swanctl.conf:1: connections { is not closed",
        ),
        ("connections {\n}\n}\n", "swanctl.conf:3: a } without its {"),
        (
            "connections {\n a = \"b\n",
            "swanctl.conf:2: a: a quotation mark",
        ),
        (
            "connections {\n a {\n remote_addrs = %any\n}\n}\n",
            "none of its connections (a)",
        ),
    ] {
        let mut folder = Folder::new().with("swanctl.conf", text);
        let told = folder.refused(&["swanctl.conf"]);
        assert!(told.contains(part), "{told}");
    }
    let deep = format!("connections {{\n{}", "a {\n".repeat(100));
    let mut folder = Folder::new().with("swanctl.conf", deep);
    let told = folder.refused(&["swanctl.conf"]);
    assert!(told.contains("16 deep"), "{told}");
}

#[test]
fn an_authority_that_only_lies_there_has_to_have_issued_our_certificate() {
    let openssl = authority();
    let stranger = authority();
    let conf = "conn a\n right=vpn.example.org\n leftcert=alice.crt\n leftsourceip=%config\n";
    let folder = |root: Vec<u8>| {
        Folder::new()
            .with("a.conf", conf)
            .with("alice.crt", openssl.read("alice.crt"))
            .with("alice.key", openssl.read("alice.key"))
            .with("given.pem", root.clone())
            .with("ca.pem", root.clone())
            .with("x509ca/any.pem", root)
    };
    // It is called as ours is, and that is all it has in common with it.
    let told = folder(stranger.read("cacert.pem")).refused(&["a.conf"]);
    assert!(told.contains("no certificate of the authority"), "{told}");
    // Given by hand it is trusted: servers may have another authority than we do.
    let mut both = folder(stranger.read("cacert.pem"));
    assert!(both.import(&["a.conf", "given.pem"]).is_ok());
    let imported = folder(openssl.read("cacert.pem"))
        .import(&["a.conf"])
        .expect("ours");
    let told = text_of(&imported.notes);
    assert!(
        told.contains("beside the files given: alice.crt, alice.key, ca.pem"),
        "{told}"
    );
    is_good(&imported);
}

#[test]
fn a_bundle_is_all_in_one() {
    let openssl = authority();
    let text = |name: &str| String::from_utf8(openssl.read(name)).expect("PEM");
    let bundle = |cygnet| Bundle {
        cygnet,
        name: "home".into(),
        remote: "vpn.example.org".into(),
        remote_identity: "vpn.example.org".into(),
        identity: "alice@example.org".into(),
        ca: text("cacert.pem"),
        certificate: text("alice.crt"),
        key: Some(text("alice.key")),
        networks: vec!["10.9.0.0/16".parse().expect("a network")],
        dns: vec!["9.9.9.9".parse().expect("an address")],
    };
    let json = |version| serde_json::to_vec(&bundle(version)).expect("serializes");
    let mut folder = Folder::new().with("home.cygnet", json(1));
    let imported = folder.import(&["home.cygnet"]).expect("read");
    assert_eq!(imported.name, "home");
    assert_eq!(imported.identity.as_deref(), Some("alice@example.org"));
    assert_eq!(imported.networks.len(), 1);
    assert!(imported.notes.is_empty(), "{}", text_of(&imported.notes));
    is_good(&imported);
    let mut folder = Folder::new().with("home.cygnet", json(2));
    let told = folder.refused(&["home.cygnet"]);
    assert!(told.contains("version 2, expected 1"), "{told}");
}

#[test]
fn a_user_name_with_its_password_is_a_login() {
    let openssl = authority();
    let conf = "conn a\n right=vpn.example.org\n leftauth=eap-mschapv2\n eap_identity=alice\n leftsourceip=%config\n";
    let mut folder = Folder::new()
        .with("a.conf", conf)
        .with("a.secrets", "alice : EAP \"pass word\"\n")
        .with("cacert.pem", openssl.read("cacert.pem"));
    let imported = folder.import(&["a.conf"]).expect("read");
    let Credentials::User { name, password, .. } = &imported.credentials else {
        panic!("by another way");
    };
    assert_eq!(name, "alice");
    assert_eq!(password.as_str(), "pass word");
    is_good(&imported);
    // One that no file tells is asked for.
    folder.files.remove("a.secrets");
    let told = folder.refused(&["a.conf"]);
    assert!(told.contains("the user name alice"), "{told}");
    let mut folder = folder.password("typed");
    let imported = folder.import(&["a.conf"]).expect("read");
    let Credentials::User { password, .. } = &imported.credentials else {
        panic!("by another way");
    };
    assert_eq!(password.as_str(), "typed");
}

#[test]
fn what_is_of_no_use_is_refused_with_what_to_do() {
    let openssl = authority();
    openssl.p12("-certfile cacert.pem");
    openssl.run("openssl pkey -in alice.key -aes256 -passout pass:x -out encrypted.key");
    let plain = "conn a\n right=192.0.2.1\n leftcert=alice.crt\n";
    let folder = || {
        Folder::new()
            .with("a.conf", plain)
            .with("b.conf", plain)
            .with(
                "ikev1.conf",
                "conn a\n right=192.0.2.1\n keyexchange=ikev1\n",
            )
            .with(
                "eap-tls.conf",
                "conn a\n right=192.0.2.1\n leftauth=eap-tls\n leftcert=alice.crt\n eap_identity=alice\n",
            )
            .with(
                "swanctl.conf",
                "connections { a {\n remote_addrs = 192.0.2.1\n local {\n auth = eap-tls\n certs = alice.crt\n } } }\n",
            )
            .with(
                "transport.conf",
                "conn a\n right=192.0.2.1\n type=transport\n",
            )
            .with("server.conf", "conn a\n left=%any\n right=%any\n")
            .with("empty.conf", "\n\n")
            .with("windows_alice.ps1", "Add-VpnConnection -Name x\n")
            .with("wireguard.conf", "[Interface]\nPrivateKey = x\n")
            .with("binary.mobileconfig", b"bplist00abc".as_slice())
            .with("no.mobileconfig", "<plist><dict></dict></plist>")
            .with(
                "cert-eap.sswan",
                "{\"type\":\"ikev2-cert-eap\",\"remote\":{\"addr\":\"a.b\"}}",
            )
            .with("broken.sswan", "{\n\"type\": 7}")
            .with("alice.crt", openssl.read("alice.crt"))
            .with("encrypted.key", openssl.read("encrypted.key"))
            .with("cut.p12", openssl.read("alice.p12").split_off(20))
            .with("picture.png", b"\x89PNG\r\n\x1a\n\xff".as_slice())
    };
    for (files, part) in [
        (
            &["a.conf", "b.conf"][..],
            "b.conf: describes a connection, as a.conf does",
        ),
        (&["a.conf"], "no certificate with its private key"),
        (&["ikev1.conf"], "ikev1.conf:3: the connection speaks IKEv1"),
        (
            &["eap-tls.conf"],
            "eap-tls.conf:3: leftauth=eap-tls is not spoken here",
        ),
        (
            &["swanctl.conf"],
            "swanctl.conf:4: auth = eap-tls is not spoken here",
        ),
        (&["transport.conf"], "transport.conf:3: only tunnels"),
        (&["server.conf"], "is this the server's own file?"),
        (&["empty.conf"], "empty.conf: an empty file"),
        (&["windows_alice.ps1"], "a script for Windows"),
        (&["wireguard.conf"], "WireGuard"),
        (&["binary.mobileconfig"], "plutil"),
        (&["no.mobileconfig"], "PayloadContent"),
        (
            &["cert-eap.sswan"],
            "the type ikev2-cert-eap is not spoken here",
        ),
        (&["broken.sswan"], "broken.sswan:2: no profile"),
        (&["encrypted.key"], "encrypted.key: expected a private key"),
        (&["cut.p12"], "cut.p12"),
        (&["picture.png"], "of no format that is known"),
        (&["alice.crt"], "no certificate with its private key"),
    ] {
        let told = folder().refused(files);
        assert!(told.contains(part), "{files:?}: {told}");
    }
    // A `.p12` whose authority is no address does not tell where the server is.
    let named = OpenSsl::new();
    named.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Home VPN' -keyout k -out c
         openssl pkcs12 -export -in c -inkey k -out x.p12 -passout pass:",
    );
    let mut alone = Folder::new()
        .with("x.p12", named.read("x.p12"))
        .with("ca.pem", named.read("c"));
    let told = alone.refused(&["x.p12"]);
    assert!(told.contains("--remote"), "{told}");
    alone.options.remote = Some(SERVER.into());
    assert_eq!(alone.import(&["x.p12"]).expect("told").remote, [SERVER]);
}

#[test]
fn a_resolver_that_is_no_address_is_told() {
    let openssl = authority();
    let text = "{\"type\":\"ikev2-eap\",\"remote\":{\"addr\":\"a.b\"},\"local\":{\"eap_id\":\"alice\"},\
        \"dns-servers\":\"9.9.9.9 resolver.example\"}";
    let mut folder = Folder::new()
        .with("a.sswan", text)
        .with("cacert.pem", openssl.read("cacert.pem"))
        .password("typed");
    let imported = folder.import(&["a.sswan", "cacert.pem"]).expect("read");
    let dns: Vec<_> = imported.dns.iter().map(ToString::to_string).collect();
    assert_eq!(dns, ["9.9.9.9"]);
    let told = text_of(&imported.notes);
    assert!(
        told.contains("a.sswan: dns-servers: resolver.example is no address"),
        "{told}"
    );
}

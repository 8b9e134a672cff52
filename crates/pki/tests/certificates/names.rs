//! Name constraints and identities: what an authority may certify, and what a peer may claim.

use crate::openssl::{Agree, CA, LEAF, Lab, Make, case, judge, make, refusal};
use cygnet_pki::{ChainError, DistinguishedName, IdentityError, certificate_contains, identity};

/// A root with these constraints, and a leaf with these names below it.
fn verdict(
    lab: &Lab,
    number: usize,
    constraints: &str,
    subject: &str,
    names: &str,
) -> Result<(), ChainError> {
    let (root, leaf) = (format!("root{number}"), format!("leaf{number}"));
    let sections = "[dn]\nO=lab\n[cn]\nO=lab\nOU=deep\n";
    let ca = format!("{CA}nameConstraints=critical,{constraints}\n{sections}");
    lab.make(make(&root, &format!("/O=roots/CN={root}"), &root, &ca));
    let mut extensions = "basicConstraints=CA:FALSE\n".to_string();
    if !names.is_empty() {
        extensions.push_str(&format!("subjectAltName={names}\n{sections}"));
    }
    lab.make(make(&leaf, subject, &root, &extensions));
    judge(lab, case(&leaf, &[], &[&root])).map(|_| ())
}

/// Constraints, subject, alternative names, and the name that violates them: by exclusion or by lack of permission.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Option<(&'static str, bool)>,
);

#[test]
fn name_constraints_permit_and_exclude() {
    let lab = Lab::new("constraints");
    let table: &[Row] = &[
        // DNS
        (
            "permitted;DNS:example.org",
            "/CN=a",
            "DNS:gw.example.org",
            None,
        ),
        (
            "permitted;DNS:example.org",
            "/CN=a",
            "DNS:example.org",
            None,
        ),
        (
            "permitted;DNS:example.org",
            "/CN=a",
            "DNS:GW.Example.ORG",
            None,
        ),
        (
            "permitted;DNS:example.org",
            "/CN=a",
            "DNS:badexample.org",
            Some(("DNS:badexample.org", false)),
        ),
        (
            "permitted;DNS:.example.org",
            "/CN=a",
            "DNS:gw.example.org",
            None,
        ),
        (
            "permitted;DNS:.example.org",
            "/CN=a",
            "DNS:example.org",
            Some(("DNS:example.org", false)),
        ),
        (
            "permitted;DNS:example.org",
            "/CN=a",
            "DNS:gw.example.org,DNS:evil.example.com",
            Some(("DNS:evil.example.com", false)),
        ),
        (
            "permitted;DNS:example.org,permitted;DNS:example.com",
            "/CN=a",
            "DNS:a.example.org,DNS:b.example.com",
            None,
        ),
        (
            "excluded;DNS:example.com",
            "/CN=a",
            "DNS:gw.example.org",
            None,
        ),
        (
            "excluded;DNS:example.com",
            "/CN=a",
            "DNS:gw.example.com",
            Some(("DNS:gw.example.com", true)),
        ),
        (
            "excluded;DNS:.com",
            "/CN=a",
            "DNS:gw.example.com",
            Some(("DNS:gw.example.com", true)),
        ),
        (
            "permitted;DNS:example.org,excluded;DNS:lab.example.org",
            "/CN=a",
            "DNS:gw.lab.example.org",
            Some(("DNS:gw.lab.example.org", true)),
        ),
        // Constraints on one kind say nothing about another.
        ("permitted;DNS:example.org", "/CN=a", "IP:192.0.2.1", None),
        // IP
        (
            "permitted;IP:192.0.2.0/255.255.255.0",
            "/CN=a",
            "IP:192.0.2.77",
            None,
        ),
        (
            "permitted;IP:192.0.2.0/255.255.255.0",
            "/CN=a",
            "IP:192.0.3.1",
            Some(("IP:192.0.3.1", false)),
        ),
        (
            "permitted;IP:192.0.2.0/255.255.255.0",
            "/CN=a",
            "IP:2001:db8::1",
            Some(("IP:2001:db8::1", false)),
        ),
        (
            "excluded;IP:10.0.0.0/255.0.0.0",
            "/CN=a",
            "IP:10.9.8.7",
            Some(("IP:10.9.8.7", true)),
        ),
        (
            "excluded;IP:10.0.0.0/255.0.0.0",
            "/CN=a",
            "IP:192.0.2.1,IP:2001:db8::1",
            None,
        ),
        (
            "excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0",
            "/CN=a",
            "IP:2001:db8::1",
            Some(("IP:2001:db8::1", true)),
        ),
        // E-mail
        (
            "permitted;email:example.org",
            "/CN=a",
            "email:alice@example.org",
            None,
        ),
        (
            "permitted;email:example.org",
            "/CN=a",
            "email:alice@EXAMPLE.org",
            None,
        ),
        (
            "permitted;email:example.org",
            "/CN=a",
            "email:alice@sub.example.org",
            Some(("email:alice@sub.example.org", false)),
        ),
        (
            "permitted;email:.example.org",
            "/CN=a",
            "email:alice@sub.example.org",
            None,
        ),
        (
            "permitted;email:alice@example.org",
            "/CN=a",
            "email:alice@example.org",
            None,
        ),
        (
            "permitted;email:alice@example.org",
            "/CN=a",
            "email:bob@example.org",
            Some(("email:bob@example.org", false)),
        ),
        (
            "excluded;email:example.com",
            "/CN=a",
            "email:bob@example.com",
            Some(("email:bob@example.com", true)),
        ),
        (
            "permitted;email:example.org",
            "/CN=a/emailAddress=bob@example.com",
            "",
            Some(("email:bob@example.com", false)),
        ),
        (
            "permitted;email:example.org",
            "/CN=a/emailAddress=bob@example.org",
            "",
            None,
        ),
        // Directory names: subject and alternative names
        ("permitted;dirName:dn", "/O=lab/CN=gw", "", None),
        ("permitted;dirName:dn", "/O=LAB/CN=gw", "", None),
        (
            "permitted;dirName:dn",
            "/O=other/CN=gw",
            "",
            Some(("DN:O=other, CN=gw", false)),
        ),
        (
            "permitted;dirName:dn",
            "/CN=gw/O=lab",
            "",
            Some(("DN:CN=gw, O=lab", false)),
        ),
        (
            "excluded;dirName:dn",
            "/O=lab/CN=gw",
            "",
            Some(("DN:O=lab, CN=gw", true)),
        ),
        ("excluded;dirName:dn", "/O=other/CN=gw", "", None),
        (
            "excluded;dirName:dn",
            "/O=other/CN=gw",
            "dirName:cn",
            Some(("DN:O=lab, OU=deep", true)),
        ),
    ];
    for (number, (constraints, subject, names, violation)) in table.iter().enumerate() {
        let expected = match violation {
            None => Ok(()),
            Some((name, excluded)) => Err(ChainError::NameConstraint {
                subject: subject
                    .trim_start_matches('/')
                    .replace('/', ", ")
                    .replace("emailAddress", "E"),
                name: name.to_string(),
                authority: format!("O=roots, CN=root{number}"),
                excluded: *excluded,
            }),
        };
        assert_eq!(
            verdict(&lab, number, constraints, subject, names),
            expected,
            "{constraints} {subject} {names}"
        );
    }
}

#[test]
fn constraints_reach_through_the_path() {
    let lab = Lab::new("reach");
    let constrained = |body: &str| format!("{CA}nameConstraints=critical,{body}\n");
    lab.make(make(
        "root",
        "/CN=root",
        "root",
        &constrained("permitted;DNS:example.org,permitted;DNS:example.com"),
    ));
    lab.make(make(
        "inter",
        "/CN=inter",
        "root",
        &constrained("permitted;DNS:example.com,permitted;DNS:example.net"),
    ));
    for (name, good) in [
        ("example.com", true),
        ("example.org", false),
        ("example.net", false),
    ] {
        lab.make(make(
            name,
            "/CN=leaf",
            "inter",
            &format!("subjectAltName=DNS:{name}\n"),
        ));
        assert_eq!(
            judge(&lab, case(name, &["inter"], &["root"])).is_ok(),
            good,
            "{name}"
        );
    }
    // A kind of name that is not compared is refused, and only where it occurs.
    lab.make(make(
        "uris",
        "/CN=uris",
        "uris",
        &constrained("permitted;URI:.example.org"),
    ));
    lab.make(make(
        "uri",
        "/CN=uri",
        "uris",
        "subjectAltName=URI:https://gw.example.org/\n",
    ));
    lab.make(make("dns", "/CN=dns", "uris", LEAF));
    let mut it = case("uri", &[], &["uris"]);
    // openssl compares host names in URIs, which no identity of IKE needs.
    it.agree = Agree::NotJudged;
    assert_eq!(
        judge(&lab, it).map(|_| ()),
        Err(ChainError::UnsupportedNameConstraint {
            subject: "CN=uri".into(),
            name: "URI:https://gw.example.org/".into(),
            authority: "CN=uris".into()
        })
    );
    judge(&lab, case("dns", &[], &["uris"])).expect("no URI in it");
}

/// Algo's authority of 2026: critical constraints on names and purposes.
#[test]
fn algos_authority() {
    let lab = Lab::new("algo");
    const SUFFIX: &str = "0b5e8f0e-9a3f-5f0c-8a53-2f4b8f1f7c11.algo";
    let ca = format!(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
         extendedKeyUsage=critical,1.3.6.1.5.5.7.3.17\nsubjectKeyIdentifier=hash\n\
         nameConstraints=critical,permitted;IP:203.0.113.5/255.255.255.255,permitted;DNS:{SUFFIX},\
         permitted;email:{SUFFIX},excluded;DNS:.com,excluded;DNS:.org,excluded;DNS:.net,\
         excluded;IP:10.0.0.0/255.0.0.0,excluded;IP:172.16.0.0/255.240.0.0,excluded;IP:192.168.0.0/255.255.0.0,\
         excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0\n"
    );
    lab.make(Make {
        key: "ec:P-384",
        ..make("ca", "/CN=203.0.113.5", "ca", &ca)
    });
    let leaf = |name: &str, eku: &str, names: &str| {
        let extensions = format!(
            "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage={eku},1.3.6.1.5.5.7.3.17\nsubjectAltName={names}\n"
        );
        lab.make(Make {
            key: "ec:P-384",
            ..make(name, &format!("/CN={name}"), "ca", &extensions)
        })
    };
    let server = leaf("203.0.113.5", "serverAuth", "IP:203.0.113.5");
    let client = leaf("alice", "clientAuth", &format!("email:alice@{SUFFIX}"));
    let mut it = case("203.0.113.5", &[], &["ca"]);
    // openssl takes the common name for a host name, and holds it against the DNS constraints; it proves nothing here.
    it.agree = Agree::NotJudged;
    judge(&lab, it).expect("the server");
    let mut alice = case("alice", &[], &["ca"]);
    alice.role = cygnet_pki::PeerRole::Initiator;
    judge(&lab, alice).expect("a client");
    let mut posing = case("alice", &[], &["ca"]);
    posing.agree = Agree::With(&["-purpose", "sslserver"]);
    assert_eq!(
        refusal(&lab, posing),
        ChainError::ExtendedKeyUsage {
            subject: "CN=alice".into(),
            found: "clientAuth, ipsecIKE".into(),
            needed: "serverAuth".into()
        },
        "a client is no server"
    );
    assert_eq!(certificate_contains(&server, 1, &[203, 0, 113, 5]), Ok(()));
    assert_eq!(
        certificate_contains(&client, 3, format!("alice@{SUFFIX}").as_bytes()),
        Ok(())
    );
    let name: DistinguishedName = "CN=alice".parse().expect("a name");
    assert_eq!(certificate_contains(&client, 9, name.as_der()), Ok(()));
    for names in [
        "IP:203.0.113.6",
        "IP:10.0.0.1",
        "IP:2001:db8::1",
        "DNS:example.com",
        "email:a@example.com",
    ] {
        leaf("stray", "serverAuth", names);
        let error = judge(&lab, case("stray", &[], &["ca"])).map(|_| ());
        assert!(
            matches!(error, Err(ChainError::NameConstraint { .. })),
            "{names}: {error:?}"
        );
    }
}

#[test]
fn a_certificate_contains_what_it_says_and_nothing_else() {
    let lab = Lab::new("identity");
    lab.root("root");
    let der = lab.make(make(
        "gw",
        "/C=XX/O=My Lab/CN=cn.example.org",
        "root",
        "subjectAltName=DNS:gw.example.org,DNS:*.wild.example.org,email:Alice@Example.org,IP:192.0.2.1,IP:2001:db8::1\n",
    ));
    let dn = |text: &str| {
        text.parse::<DistinguishedName>()
            .expect(text)
            .as_der()
            .to_vec()
    };
    let v6: std::net::Ipv6Addr = "2001:db8::1".parse().expect("an address");
    let good: &[(u8, Vec<u8>)] = &[
        (2, b"gw.example.org".to_vec()),
        (2, b"GW.EXAMPLE.ORG".to_vec()),
        (3, b"Alice@example.ORG".to_vec()),
        (1, vec![192, 0, 2, 1]),
        (5, v6.octets().to_vec()),
        (9, dn("C=XX, O=My Lab, CN=cn.example.org")),
        (9, dn("C=xx, O=my  lab, CN=CN.example.org")),
        (
            9,
            identity::subject(&der)
                .expect("a subject")
                .as_der()
                .to_vec(),
        ),
    ];
    for (id_type, data) in good {
        assert_eq!(
            certificate_contains(&der, *id_type, data),
            Ok(()),
            "{id_type} {data:02x?}"
        );
    }
    let bad: &[(u8, Vec<u8>)] = &[
        // The common name is no host name.
        (2, b"cn.example.org".to_vec()),
        // RFC 4945 §3.1.2: no wildcards.
        (2, b"a.wild.example.org".to_vec()),
        (2, b"example.org".to_vec()),
        (2, b"gw.example.org.evil.example".to_vec()),
        // A name of one kind does not prove another.
        (2, b"Alice@Example.org".to_vec()),
        (2, b"192.0.2.1".to_vec()),
        (3, b"gw.example.org".to_vec()),
        (3, b"alice@example.org".to_vec()),
        (1, vec![192, 0, 2, 2]),
        (5, [0; 16].to_vec()),
        (9, dn("CN=cn.example.org")),
        (9, dn("CN=cn.example.org, O=My Lab, C=XX")),
        (9, vec![0x30, 0]),
    ];
    for (id_type, data) in bad {
        let error = certificate_contains(&der, *id_type, data);
        assert!(
            matches!(error, Err(IdentityError::NotContained { .. })),
            "{id_type} {data:02x?}: {error:?}"
        );
    }
    assert_eq!(
        certificate_contains(&der, 2, b"vpn.example.org")
            .expect_err("another name")
            .to_string(),
        "certificate C=XX, O=My Lab, CN=cn.example.org does not contain the identity DNS:vpn.example.org its holder \
         claims; it contains DN C=XX, O=My Lab, CN=cn.example.org, DNS:gw.example.org, DNS:*.wild.example.org, \
         email:Alice@Example.org, IP:192.0.2.1, IP:2001:db8::1; configure one of those as the identity, \
         or issue the certificate again with DNS:vpn.example.org"
    );
    for (id_type, data) in [
        (1, &b"abc"[..]),
        (1, &[0; 16]),
        (5, &[0; 4]),
        (2, b""),
        (2, b"a\0b"),
        (2, &[0xff]),
        (9, b"CN=x"),
    ] {
        let error = certificate_contains(&der, id_type, data);
        assert!(
            matches!(error, Err(IdentityError::Malformed { .. })),
            "{id_type} {data:02x?}: {error:?}"
        );
    }
    for id_type in [0, 4, 7, 10, 11, 12, 255] {
        let error = certificate_contains(&der, id_type, b"x");
        assert_eq!(error, Err(IdentityError::Unprovable { id_type }));
    }
}

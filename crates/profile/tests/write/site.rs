//! Both ends of a tunnel between two offices.

use std::sync::Arc;
use std::time::Duration;

use cygnet_pki::authority::{Authority, KeyKind, Purpose, Request, Validity};
use cygnet_pki::{SubjectAltName, UnixTime, load};
use cygnet_profile::read::{Credentials, File, Imported, Note, Options, Surroundings, import};
use cygnet_profile::site::{Certified, End, Network, Pair, Proof, Site};
use cygnet_profile::write::{Error, Gateway, site_files};
use zeroize::Zeroizing;

use crate::tools;

const PSK: &str = "00112233445566778899aabbccddeeff";

/// Certificates are good at this moment.
const NOW: u64 = 2_000_000_000;

struct Nothing;

impl Surroundings for Nothing {
    fn read(&mut self, _: &str) -> Option<Zeroizing<Vec<u8>>> {
        None
    }

    fn list(&mut self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn password(&mut self, _: &str, _: u32) -> Option<Zeroizing<String>> {
        None
    }
}

fn net(own: &str, shown: &str) -> Network {
    Network {
        own: own.parse().expect("a network"),
        shown: shown.parse().expect("a network"),
    }
}

/// Two offices that both have 192.168.1.0/24.
fn site() -> Site {
    Site {
        name: "branch-2".into(),
        proof: Proof::PreShared(Zeroizing::new(PSK.into())),
        here: End {
            address: Some("main.example.org".into()),
            identity: "main.example.org".into(),
            networks: vec![
                net("192.168.1.0/24", "10.201.1.0/24"),
                net("fd00:1::/64", "fd00:1::/64"),
            ],
        },
        there: End {
            address: Some("203.0.113.7".into()),
            identity: "203.0.113.7".into(),
            networks: vec![
                net("192.168.1.0/24", "10.202.1.0/24"),
                net("fd00:2::/64", "fd00:2::/64"),
            ],
        },
        on_demand: true,
        ike: Vec::new(),
    }
}

/// What the other end gets, by name.
fn handed_over(site: &Site, gateway: Gateway) -> Vec<(String, String)> {
    let files = site_files(&site.mirrored(), gateway).expect("files");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    assert!(
        files.iter().all(|file| file.secret),
        "mode 600, all of them"
    );
    files
        .into_iter()
        .map(|file| (file.path, text(&file.bytes)))
        .collect()
}

fn imported(name: &str, text: &str) -> Imported {
    let file = File {
        name: name.into(),
        bytes: Zeroizing::new(text.as_bytes().to_vec()),
    };
    let options = Options {
        now: Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW))),
        ..Options::default()
    };
    import(&[file], &mut Nothing, &options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn this_end_is_a_section_of_ours() {
    let section = site().section("branch-2");
    assert_eq!(
        section.text,
        "[tunnel.branch-2]\n\
         remote = \"203.0.113.7\"\n\
         remote_identity = \"203.0.113.7\"\n\
         identity = \"main.example.org\"\n\
         psk = \"branch-2/shared.psk\"\n\
         local_networks = [\"192.168.1.0/24\", \"fd00:1::/64\"]\n\
         local_map = [\"10.201.1.0/24\", \"fd00:1::/64\"]\n\
         remote_networks = [\"10.202.1.0/24\", \"fd00:2::/64\"]\n\
         start = \"traffic\"\n"
    );
    assert_eq!(
        section.files[0].bytes.as_slice(),
        format!("{PSK}\n").as_bytes()
    );
}

#[test]
fn what_another_cygnet_imports_is_the_other_end() {
    let files = handed_over(&site(), Gateway::Cygnet);
    let [(name, text)] = &files[..] else {
        panic!("one file");
    };
    assert_eq!(name, "branch-2.cygnet");
    let there = imported(name, text);
    assert_eq!(there.remote, ["main.example.org"]);
    assert_eq!(there.remote_identity.as_deref(), Some("main.example.org"));
    assert_eq!(there.identity.as_deref(), Some("203.0.113.7"));
    let Credentials::PreShared(secret) = &there.credentials else {
        panic!("by another way");
    };
    assert_eq!(secret.as_slice(), PSK.as_bytes());
    let section = there.section("branch-2", "branch-2").text;
    for line in [
        "local_networks = [\"192.168.1.0/24\", \"fd00:2::/64\"]\n",
        "local_map = [\"10.202.1.0/24\", \"fd00:2::/64\"]\n",
        "remote_networks = [\"10.201.1.0/24\", \"fd00:1::/64\"]\n",
        "start = \"traffic\"\n",
    ] {
        assert!(section.contains(line), "{section}");
    }
    let summary = there.summary();
    let told = |about: &str| {
        summary
            .iter()
            .find(|(it, _)| *it == about)
            .map(|(_, text)| text.as_str())
    };
    assert_eq!(
        told("our side"),
        Some("192.168.1.0/24, there known as 10.202.1.0/24; fd00:2::/64")
    );
    let good = cygnet_config::Config::parse("t", &section, &mut |path| Err(format!("no {path}")));
    assert_eq!(good.expect("good").tunnels["branch-2"].maps.len(), 1);

    // An office that cannot be called waits for the one that can.
    let mut site = site();
    site.here.address = None;
    let waiting = imported("a.cygnet", &handed_over(&site, Gateway::Cygnet)[0].1);
    let section = waiting.section("b", "b").text;
    assert!(
        section.contains("remote = \"any\"\n") && !section.contains("start"),
        "{section}"
    );
    let good = cygnet_config::Config::parse("t", &section, &mut |path| Err(format!("no {path}")));
    good.expect("good");
}

#[test]
fn a_damaged_file_is_told_and_nothing_is_made_of_it() {
    let text = &handed_over(&site(), Gateway::Cygnet)[0].1;
    for (damage, by, told) in [
        (
            "\"203.0.113.7\"",
            "\"\"",
            "expected remote, remote_identity and identity",
        ),
        ("\"fd00:1::/64\"", "\"fd00:1::/640\"", "branch.cygnet:"),
        ("\"cygnet\": 1", "\"cygnet\": 2", "a bundle of version 2"),
        ("\"on_demand\"", "\"on_demnad\"", "unknown field"),
        (
            "\"psk\"",
            "\"key\"",
            "expected psk, a text on one line, or ca",
        ),
        ("\"psk\"", "\"pks\"", "unknown field `pks`"),
    ] {
        let file = File {
            name: "branch.cygnet".into(),
            bytes: Zeroizing::new(text.replace(damage, by).into_bytes()),
        };
        let Err(error) = import(&[file], &mut Nothing, &Options::default()) else {
            panic!("{damage} as {by} is taken");
        };
        assert!(error.to_string().contains(told), "{error}");
        assert!(!error.to_string().contains(PSK));
    }
}

#[test]
fn strongswan_gets_one_file_and_the_rules_of_the_map() {
    let files = handed_over(&site(), Gateway::Swanctl);
    let [(name, conf), (nft_name, nft)] = &files[..] else {
        panic!(
            "{:?}",
            texts(&files.iter().map(|f| f.0.clone()).collect::<Vec<_>>())
        );
    };
    assert_eq!(
        (name.as_str(), nft_name.as_str()),
        ("branch-2.conf", "branch-2.nft")
    );
    let there = imported(name, conf);
    assert_eq!(there.remote, ["main.example.org"]);
    assert_eq!(
        texts(&there.local_networks),
        ["10.202.1.0/24", "fd00:2::/64"]
    );
    assert_eq!(texts(&there.networks), ["10.201.1.0/24", "fd00:1::/64"]);
    assert!(conf.contains("start_action = trap\n"), "{conf}");
    assert!(
        !conf.contains("dpd_action") && !conf.contains("close_action"),
        "{conf}"
    );
    let strange = |it: &&Note| matches!(it, Note::NotRead(..) | Note::Warning(_));
    assert_eq!(
        there.notes.iter().filter(strange).count(),
        0,
        "{:?}",
        there.notes
    );
    assert!(nft.ends_with(
        "table inet cygnet_site_branch_2\n\
         delete table inet cygnet_site_branch_2\n\
         table inet cygnet_site_branch_2 {\n\
         \tchain inwards {\n\
         \t\ttype nat hook prerouting priority -110; policy accept;\n\
         \t\tip saddr { 10.201.1.0/24 } ip daddr 10.202.1.0/24 dnat ip prefix to 192.168.1.0/24\n\
         \t}\n\
         \tchain outwards {\n\
         \t\ttype nat hook postrouting priority 90; policy accept;\n\
         \t\tip daddr { 10.201.1.0/24 } ip saddr 192.168.1.0/24 snat ip prefix to 10.202.1.0/24\n\
         \t}\n\
         }\n"
    ));
    if is_root() {
        tools::good(
            "unshare",
            &["--net", "nft", "-c", "-f", "-"],
            nft.as_bytes(),
        );
    }
    // Always up: by whoever calls, and only one of the two calls again when the other ends it.
    let mut always = site();
    always.on_demand = false;
    let conf = &handed_over(&always, Gateway::Swanctl)[0].1;
    assert!(
        conf.contains(
            "                start_action = trap|start\n                dpd_action = restart\n            }\n"
        ),
        "{conf}"
    );
    always.there.address = None;
    let conf = &handed_over(&always, Gateway::Swanctl)[0].1;
    assert!(
        conf.contains("                dpd_action = restart\n                close_action = start\n            }\n"),
        "{conf}"
    );
    // One that calls nobody has nothing to hold a packet for.
    let mut site = site();
    site.here.address = None;
    let conf = &handed_over(&site, Gateway::Swanctl)[0].1;
    assert!(
        conf.contains("remote_addrs = %any\n") && conf.contains("start_action = none\n"),
        "{conf}"
    );
}

/// Without root nft checks nothing.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn libreswan_gets_a_connection_and_a_line_of_secrets() {
    let mut site = site();
    site.here.networks.truncate(1);
    site.there.networks.truncate(1);
    let files = handed_over(&site, Gateway::Libreswan);
    let names: Vec<&str> = files.iter().map(|file| file.0.as_str()).collect();
    assert_eq!(names, ["branch-2.conf", "branch-2.secrets", "branch-2.nft"]);
    for line in [
        "conn branch-2\n",
        "    leftid=203.0.113.7\n",
        "    leftsubnet=10.202.1.0/24\n",
        "    right=main.example.org\n",
        "    rightid=@main.example.org\n",
        "    rightsubnet=10.201.1.0/24\n",
        "    auto=ondemand\n",
    ] {
        assert!(files[0].1.contains(line), "{}", files[0].1);
    }
    assert_eq!(
        files[1].1,
        format!("203.0.113.7 @main.example.org : PSK \"{PSK}\"\n")
    );
}

#[test]
fn routeros_gets_a_script_that_translates_as_well() {
    let mut site = site();
    site.here.networks.truncate(1);
    site.there.networks.truncate(1);
    let files = handed_over(&site, Gateway::Routeros);
    let [(name, script)] = &files[..] else {
        panic!("one file");
    };
    assert_eq!(name, "branch-2.rsc");
    for line in [
        "/ip ipsec peer add name=$cygnetName address=\"main.example.org\" exchange-mode=ike2 profile=$cygnetName\n",
        "src-address=10.202.1.0/24 dst-address=10.201.1.0/24\n",
        "comment=$cygnetName chain=srcnat action=netmap src-address=192.168.1.0/24 dst-address=10.201.1.0/24 to-addresses=10.202.1.0/24\n",
        "comment=$cygnetName chain=dstnat action=netmap src-address=10.201.1.0/24 dst-address=10.202.1.0/24 to-addresses=192.168.1.0/24\n",
        "my-id=\"address:203.0.113.7\" remote-id=\"fqdn:main.example.org\" secret=\"00112233445566778899aabbccddeeff\"\n",
    ] {
        assert!(script.contains(line), "{line}{script}");
    }
    // Before what is there, if anything is.
    let at = |text: &str| {
        let found = script.find(text);
        found.unwrap_or_else(|| panic!("{text}: {script}"))
    };
    let first = at("\n:local cygnetFirst4 [/ip firewall nat find where dynamic=no]\n");
    let moved = at(
        "\n:if ([:len $cygnetFirst4] > 0) do={ /ip firewall nat move [find where comment=$cygnetName] \
         destination=[:pick $cygnetFirst4 0] }\n",
    );
    assert!(at("/ip firewall nat remove ") < first && first < at("/ip firewall nat add "));
    assert!(at("chain=dstnat") < moved);
    assert!(!script.contains("cygnetFirst6") && !script.contains("place-before"));
    let mut plain = site.clone();
    plain.there.networks = vec![net("10.2.0.0/24", "10.2.0.0/24")];
    let script = &handed_over(&plain, Gateway::Routeros)[0].1;
    assert!(
        script.contains(
            "chain=srcnat action=accept src-address=10.2.0.0/24 dst-address=10.201.1.0/24\n"
        ),
        "{script}"
    );
}

#[test]
fn texts_that_a_format_would_read_otherwise_are_refused() {
    let change = |change: &dyn Fn(&mut Site)| {
        let mut site = site();
        change(&mut site);
        [
            Gateway::Cygnet,
            Gateway::Swanctl,
            Gateway::Libreswan,
            Gateway::Routeros,
        ]
        .map(|gateway| site_files(&site, gateway).err())
    };
    let changes: [&dyn Fn(&mut Site); 5] = [
        &|site| site.name = "a b".into(),
        &|site| site.proof = Proof::PreShared(Zeroizing::new("a\"b0123456789abcdef".into())),
        &|site| site.here.address = Some("a\n".into()),
        &|site| site.here.identity = "a\"b".into(),
        &|site| site.there.identity = "%any".into(),
    ];
    for wrong in changes {
        for told in change(wrong) {
            let Some(Error::Text { found, .. }) = told else {
                panic!("{told:?}");
            };
            assert!(
                !found.contains("0123456789abcdef"),
                "a secret is not repeated"
            );
        }
    }
}

/// The same two by certificates, as `cygnet site add --auth certificates` makes them.
fn by_certificates() -> Site {
    let site = site();
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let validity = Validity {
        not_before: at(1_750_000_000),
        not_after: at(2_750_000_000),
    };
    let authority = Authority::create("Cygnet site", &[1], validity, KeyKind::EcdsaP256);
    let authority = authority.expect("an authority");
    let certified = |common_name: &str, name, serial| {
        let issued = authority.issue(&Request {
            common_name,
            names: &[name],
            purpose: Purpose::Server,
            serial: &[serial],
            validity,
            key: KeyKind::EcdsaP256,
        });
        let issued = issued.expect("a certificate");
        let key = load::private_key(issued.key_pem.as_bytes(), "key".as_ref()).expect("a key");
        Arc::new(Certified {
            common_name: common_name.into(),
            certificate: issued.certificate_der,
            key: Zeroizing::new(key.pkcs8().to_vec()),
        })
    };
    let here = SubjectAltName::Dns("main.example.org".into());
    let there = SubjectAltName::Ip([203, 0, 113, 7].into());
    Site {
        proof: Proof::Certificates(Pair {
            authority: authority.certificate_der().to_vec(),
            here: certified("cygnet-site-1-here", here, 2),
            there: certified("cygnet-site-1-there", there, 3),
            p12_password: Arc::new(Zeroizing::new("abcd-efgh-ijkm-npqr".into())),
        }),
        ..site
    }
}

fn pair(site: &Site) -> &Pair {
    match &site.proof {
        Proof::Certificates(pair) => pair,
        Proof::PreShared(_) => panic!("by a secret"),
    }
}

#[test]
fn by_certificates_each_end_has_its_own() {
    let site = by_certificates();
    let section = site.section("branch-2");
    assert!(
        section.text.contains(
            "certificate = \"branch-2/client.crt\"\nkey = \"branch-2/client.key\"\nca = \"branch-2/ca.crt\"\n"
        ) && !section.text.contains("psk"),
        "{}",
        section.text
    );
    let own = load::certificates(&section.files[0].bytes, "crt".as_ref()).expect("a certificate");
    assert_eq!(own.leaf, pair(&site).here.certificate);
    let files = handed_over(&site, Gateway::Cygnet);
    let [(name, text)] = &files[..] else {
        panic!("one file");
    };
    let there = imported(name, text);
    let Credentials::Certificate { chain, key, ca, .. } = &there.credentials else {
        panic!("by another way");
    };
    assert_eq!(chain, &[pair(&site).there.certificate.clone()]);
    assert_eq!(**key, *pair(&site).there.key);
    assert_eq!(ca, &[pair(&site).authority.clone()]);
    let strange = |it: &&Note| matches!(it, Note::NotRead(..) | Note::Warning(_));
    assert_eq!(
        there.notes.iter().filter(strange).count(),
        0,
        "{:?}",
        there.notes
    );
    let section = there.section("branch-2", "branch-2").text;
    assert!(
        section.contains("remote_identity = \"main.example.org\"\n") && !section.contains("psk"),
        "{section}"
    );
    let both = text.replace("\"ca\":", "\"psk\": \"0011223344556677\",\n  \"ca\":");
    let file = File {
        name: "branch.cygnet".into(),
        bytes: Zeroizing::new(both.into_bytes()),
    };
    let told = import(&[file], &mut Nothing, &Options::default()).err();
    assert!(told.is_some_and(|it| {
        it.to_string()
            .contains("expected psk, a text on one line, or ca")
    }));
}

#[test]
fn strongswan_gets_certificates_for_its_folders() {
    let files = handed_over(&by_certificates(), Gateway::Swanctl);
    let names: Vec<&str> = files.iter().map(|file| file.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "branch-2.conf",
            "branch-2.crt",
            "branch-2-ca.crt",
            "branch-2.key",
            "branch-2.nft"
        ]
    );
    let conf = &files[0].1;
    for line in [
        "            auth = pubkey\n            certs = branch-2.crt\n            id = \"203.0.113.7\"\n",
        "            auth = pubkey\n            cacerts = branch-2-ca.crt\n            id = \"main.example.org\"\n",
    ] {
        assert!(conf.contains(line), "{conf}");
    }
    assert!(!conf.contains("psk") && !conf.contains("secret"), "{conf}");
    // OpenSSL says that each is what it is called, and that the one vouches for the other.
    let directory = std::env::temp_dir().join(format!("cygnet-site-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    for (name, text) in &files {
        std::fs::write(directory.join(name), text).expect("written");
    }
    let (ca, own) = (path("branch-2-ca.crt"), path("branch-2.crt"));
    let verify = ["verify", "-CAfile", &ca, "-verify_ip", "203.0.113.7", &own];
    tools::good("openssl", &verify, b"");
    let of_key = tools::good(
        "openssl",
        &["pkey", "-pubout", "-in", &path("branch-2.key")],
        b"",
    );
    let of_certificate = tools::good("openssl", &["x509", "-noout", "-pubkey", "-in", &own], b"");
    std::fs::remove_dir_all(&directory).expect("removed");
    assert_eq!(of_key, of_certificate);
}

#[test]
fn libreswan_and_routeros_get_a_file_to_import() {
    let mut site = by_certificates();
    site.here.networks.truncate(1);
    site.there.networks.truncate(1);
    for (gateway, script, lines) in [
        (
            Gateway::Libreswan,
            "branch-2.conf",
            &[
                "    authby=ecdsa\n    leftcert=\"CN=cygnet-site-1-there\"\n    leftsendcert=always\n    rightca=%same\n",
                "ipsec import branch-2.p12",
            ][..],
        ),
        (
            Gateway::Routeros,
            "branch-2.rsc",
            &[
                "find where common-name=\"cygnet-site-1-there\"]\n",
                "auth-method=digital-signature certificate=$cygnetOwn my-id=\"address:203.0.113.7\" \
                 remote-id=\"fqdn:main.example.org\"\n",
            ],
        ),
    ] {
        let files = site_files(&site.mirrored(), gateway).expect("files");
        let find = |name: &str| files.iter().find(|file| file.path == name);
        let text = find(script).expect("a script");
        let text = String::from_utf8(text.bytes.to_vec()).expect("text");
        for line in lines {
            assert!(text.contains(line), "{line}:\n{text}");
        }
        assert!(!text.contains("secret") && !text.contains("PSK"), "{text}");
        let p12 = find("branch-2.p12").expect("a .p12");
        assert!(p12.secret && files.iter().all(|file| file.secret));
        let arguments = ["pkcs12", "-nokeys", "-passin", "pass:abcd-efgh-ijkm-npqr"];
        if let Some(shown) = tools::good("openssl", &arguments, &p12.bytes) {
            let shown = String::from_utf8_lossy(&shown);
            assert_eq!(shown.matches("BEGIN CERTIFICATE").count(), 2, "{shown}");
            assert!(
                shown.contains("friendlyName: CN=cygnet-site-1-there"),
                "{shown}"
            );
        }
    }
}

//! The proposals of other systems, sent by strongSwan: those that are hardened get in with the server's
//! defaults, those that are not are told what to do.

use super::super::Scenario;
use super::{NET, SOON, everything};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, KeyKind, Request};
use crate::lab::strongswan::{self, Auth, Config, StrongSwan};
use crate::lab::world::{WEB, World};
use crate::lab::{Lab, Namespace, Result, traffic, wait_for};
use std::time::Duration;

/// What a system sends.
struct Family {
    name: &'static str,
    about: &'static str,
    /// Each with what is agreed on.
    lists: &'static [List],
}

struct List {
    ike: &'static [&'static str],
    esp: &'static [&'static str],
    suite: &'static str,
}

const FAMILIES: [Family; 5] = [
    Family {
        name: "ios",
        about: "what an iPhone sends that was given a profile with AES-GCM, with SHA-512 as Algo's, with P-384, or none",
        lists: &[
            List {
                ike: &["aes256gcm16-prfsha512-ecp256"],
                esp: &["aes256gcm16-ecp256"],
                suite: "aes256gcm16-prfsha512-ecp256",
            },
            List {
                ike: &["aes256gcm16-prfsha384-ecp384"],
                esp: &["aes256gcm16-ecp384"],
                suite: "aes256gcm16-prfsha384-ecp384",
            },
            List {
                ike: &["aes256-sha256-modp2048"],
                esp: &["aes256-sha256"],
                suite: "aes256-sha256-prfsha256-modp2048",
            },
        ],
    },
    Family {
        name: "macos",
        about: "what a Mac sends that was given a profile with AES-GCM, or none: no group for the ESP keys",
        lists: &[
            List {
                ike: &["aes256gcm16-prfsha256-ecp256"],
                esp: &["aes256gcm16"],
                suite: "aes256gcm16-prfsha256-ecp256",
            },
            List {
                ike: &["aes128gcm16-prfsha512-ecp256"],
                esp: &["aes128gcm16"],
                suite: "aes128gcm16-prfsha512-ecp256",
            },
            List {
                ike: &["aes256-sha256-modp2048"],
                esp: &["aes256-sha256"],
                suite: "aes256-sha256-prfsha256-modp2048",
            },
        ],
    },
    Family {
        name: "windows",
        about: "what Windows sends after Set-VpnConnectionIPsecConfiguration with GCMAES256 and ECP384, with a group for the ESP keys and without",
        lists: &[
            List {
                ike: &["aes256gcm16-prfsha384-ecp384"],
                esp: &["aes256gcm16-ecp384-noesn"],
                suite: "aes256gcm16-prfsha384-ecp384",
            },
            List {
                ike: &["aes256gcm16-prfsha384-ecp384"],
                esp: &["aes256gcm16-noesn"],
                suite: "aes256gcm16-prfsha384-ecp384",
            },
        ],
    },
    Family {
        name: "routeros",
        about: "what a MikroTik router sends: AES-CBC for IKE, AES-GCM for ESP",
        lists: &[List {
            ike: &["aes256-sha256-ecp384"],
            esp: &["aes256gcm16-ecp384-noesn"],
            suite: "aes256-sha256-prfsha256-ecp384",
        }],
    },
    Family {
        name: "android",
        about: "what strongSwan's app sends, whose KE payload is for its first group, and Android by itself",
        lists: &[
            List {
                ike: &[
                    "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-ecp256-curve25519-ecp384-modp3072",
                    "aes256-aes128-sha256-sha384-sha512-ecp256-curve25519-ecp384-modp3072",
                ],
                esp: &[
                    "aes256gcm16-aes128gcm16-chacha20poly1305-noesn",
                    "aes256-aes128-sha256-sha384-noesn",
                ],
                suite: "gcm16-prfsha256-ecp256",
            },
            List {
                ike: &[
                    "aes256-aes192-aes128-sha512-sha384-sha256-modp4096-curve25519-modp3072-modp2048",
                    "chacha20poly1305-aes256gcm16-aes128gcm16-prfsha512-prfsha384-prfsha256-modp4096-curve25519-modp3072-modp2048",
                ],
                esp: &[
                    "chacha20poly1305-aes256gcm16-aes128gcm16-noesn",
                    "aes256-aes192-aes128-sha512-sha384-sha256-noesn",
                ],
                suite: "-curve25519",
            },
        ],
    },
];

/// What is refused: for IKE, for ESP, and two of the things that are told of it.
struct Refused {
    ike: &'static str,
    esp: &'static str,
    told: [&'static str; 2],
}

/// Windows with NegotiateDH2048_AES256, which gets as far as ESP; what it sends by itself (AES with SHA-1
/// and a group of 1024 bits), and another that stands for it.
const REFUSED: [Refused; 3] = [
    Refused {
        ike: "aes256-sha256-modp2048",
        esp: "aes256-aes128-sha1-noesn",
        told: ["integrity sha1_96", " for ESP"],
    },
    Refused {
        ike: "aes256-sha1-modp1024",
        esp: "aes256-sha1",
        told: ["encryption aes256", "key exchange modp1024"],
    },
    Refused {
        ike: "aes256-sha256-prfsha256-modp1536",
        esp: "aes256-sha1",
        told: ["integrity sha256", "key exchange modp1536"],
    },
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = (FAMILIES.iter())
        .map(|family| {
            let name = format!("client-{}", family.name);
            Scenario::new(name, family.about, |lab| admitted(lab, family))
        })
        .collect();
    all.push(Scenario::new(
        "refused-lately",
        "clients that offer only what is refused: `status` and the log say who, what, and what to do",
        refused,
    ));
    all
}

/// A server with certificates and its own defaults, and strongSwan on the laptop.
struct Bench {
    server: Cygnet,
    authority: Authority,
    world: World,
}

impl Bench {
    fn new(lab: &Lab) -> Result<Self> {
        let world = super::world(lab)?;
        let authority = Authority::root(KeyKind::EcP256, "lab root")?;
        let own = authority.issue(&Request::new(KeyKind::EcP256, "vpn.lab").name("vpn.lab"))?;
        let setup = Setup::new(
            "[server]
identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
",
        )
        .credential("own", &own)
        .file("ca.crt", authority.certificate.clone());
        Ok(Self {
            server: Cygnet::start(lab, &world.server, &setup)?,
            authority,
            world,
        })
    }

    fn laptop(&self) -> &Namespace {
        &self.world.laptop
    }

    /// strongSwan with exactly these proposals.
    fn client(&self, lab: &Lab, ike: &[&str], esp: &[&str]) -> Result<StrongSwan> {
        let request = Request::new(KeyKind::EcP256, "laptop").name("laptop@lab");
        let own = self.authority.issue(&request)?;
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let mut connection = everything("192.168.1.20", Auth::certificate("own", "laptop@lab"))
            .remote(Auth::public_key("vpn.lab"));
        connection.proposals = owned(ike);
        for child in &mut connection.children {
            child.proposals = owned(esp);
        }
        let setup = strongswan::Setup {
            config: Config::of(connection),
            credentials: vec![("own".to_owned(), own)],
            authorities: vec![self.authority.certificate.clone()],
            settings: vec!["retransmit_tries = 1".to_owned()],
            ..strongswan::Setup::default()
        };
        StrongSwan::start(lab, self.laptop(), &setup)
    }
}

fn admitted(lab: &Lab, family: &Family) -> Result<String> {
    let bench = Bench::new(lab)?;
    let mut agreed = Vec::new();
    for list in family.lists {
        let swan = bench.client(lab, list.ike, list.esp)?;
        swan.initiate(NET)?;
        traffic::ping_until_answered(bench.laptop(), WEB, SOON)?;
        let sas = bench.server.connection("server")?.ike_sas;
        let suite = sas
            .last()
            .and_then(|sa| sa.suite.clone())
            .unwrap_or_default();
        ensure!(
            suite.contains(list.suite),
            "agreed on {suite}, not {}",
            list.suite
        );
        // Keys for ESP anew, with the group if there is one: the client begins, then the server.
        for by_client in [true, false] {
            let before = swan.child(NET)?.spi_in;
            match by_client {
                true => swan.rekey_child(NET)?,
                false => bench.server.request("server", "rekey", Some("clients"))?,
            }
            swan.wait_for_new_child(NET, &before, SOON)?;
            traffic::ping_all(bench.laptop(), WEB, 3)?;
        }
        agreed.push(suite);
        drop(swan);
        wait_for("the server has no client", SOON, || {
            let sas = bench.server.connection("server")?.ike_sas;
            Ok(sas.is_empty().then_some(()))
        })?;
    }
    let status = bench.server.command(&["status"])?;
    ensure!(!status.contains("refused lately"), "{status}");
    Ok(agreed.join(", "))
}

fn refused(lab: &mut Lab) -> Result<String> {
    let bench = Bench::new(lab)?;
    for (number, list) in REFUSED.iter().enumerate() {
        let swan = bench.client(lab, &[list.ike], &[list.esp])?;
        for _ in 0..=number {
            ensure!(swan.initiate(NET).is_err(), "{} is let in", list.ike);
        }
    }
    let status = bench.server.command(&["status"])?;
    let (_, lately) = status.split_once("refused lately\n").unwrap_or_default();
    let lines: Vec<&str> = lately.lines().collect();
    // The latest first, a line for the caller and one for what to do.
    for (told, list) in lines.chunks(2).zip(REFUSED.iter().rev()) {
        let [caller, remedy] = told else {
            return Err(crate::lab::Failure::new(format!("it says {status}")));
        };
        for part in ["203.0.113.2"].iter().chain(&list.told) {
            ensure!(caller.contains(part), "{part} is not in {caller}");
        }
        ensure!(
            remedy.contains("aes256gcm16") && remedy.contains("`cygnet user export`"),
            "no remedy: {remedy}"
        );
    }
    ensure!(
        lines.len() >= 6 && lines[0].contains(" 3 times") && lines[4].contains(", once,"),
        "it says {lately}"
    );
    let json = bench.server.command(&["status", "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let listed = json["engine"]["refused"].as_array().map_or(0, Vec::len);
    ensure!(
        listed == REFUSED.len(),
        "the API lists {listed} refused callers"
    );
    let line = bench
        .server
        .wait_for_log("key exchange modp1024", Duration::from_secs(2))?;
    ensure!(line.contains("let it offer"), "the log says {line}");
    Ok(lines[2].trim().to_owned())
}

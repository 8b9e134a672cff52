//! Each key exchange and each cipher.

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::{Lab, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for &(keyword, known_as) in GROUPS {
        for role in Role::BOTH {
            let name = format!("kex-{keyword}-{}", role.name());
            let about = format!("{keyword} for the IKE SA and for a child rekey, from each side");
            all.push(Scenario::new(name, about, move |lab| {
                key_exchange(lab, role, keyword, known_as)
            }));
        }
    }
    for cipher in CIPHERS {
        for role in Role::BOTH {
            let name = format!("cipher-{}-{}", cipher.keywords, role.name());
            let about = format!("{} for IKE and ESP", cipher.keywords);
            all.push(Scenario::new(name, about, move |lab| {
                cipher.play(lab, role)
            }));
        }
    }
    all
}

/// strongSwan's keyword, and the name in its list of SAs.
const GROUPS: &[(&str, &str)] = &[
    ("x25519", "CURVE_25519"),
    ("ecp256", "ECP_256"),
    ("ecp384", "ECP_384"),
    ("ecp521", "ECP_521"),
    ("modp2048", "MODP_2048"),
    ("modp3072", "MODP_3072"),
    ("modp4096", "MODP_4096"),
];

fn key_exchange(lab: &Lab, role: Role, keyword: &str, known_as: &str) -> Result<String> {
    let ike = format!("aes128gcm16-prfsha256-{keyword}");
    let esp = format!("aes128gcm16-{keyword}");
    let plan = Plan::shared_key(role).suite(&ike, &esp);
    let pair = Pair::connected(lab, plan)?;
    let (own, theirs) = pair.ike_sa()?;
    ensure!(
        theirs.facts.get("dh-group").map(String::as_str) == Some(known_as),
        "strongSwan has {:?}",
        theirs.facts
    );
    let suite = own.suite.unwrap_or_default();
    // The group has two names.
    let suite = suite.replace("curve25519", "x25519");
    ensure!(suite == ike, "cygnet has {suite}");
    pair.carry()?;
    // The same group in CREATE_CHILD_SA, asked for by each.
    for by_cygnet in [true, false] {
        let old = pair.wait_for_child(NET)?;
        if by_cygnet {
            pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
        } else {
            pair.swan.rekey_child(NET)?;
        }
        wait_for("the child has new keys", Duration::from_secs(10), || {
            let new = pair.wait_for_child(NET)?;
            Ok((new.spi_in != old.spi_in).then_some(()))
        })?;
        let theirs = pair.swan.child(NET)?;
        ensure!(
            theirs.facts.get("dh-group").map(String::as_str) == Some(known_as),
            "after the rekey strongSwan has {:?}",
            theirs.facts
        );
    }
    pair.carry()
}

struct Cipher {
    keywords: &'static str,
    prf: &'static str,
    /// Encryption, key length and integrity in strongSwan's list of SAs.
    known_as: (&'static str, Option<&'static str>, Option<&'static str>),
}

const CIPHERS: &[Cipher] = &[
    Cipher {
        keywords: "aes128gcm16",
        prf: "prfsha256",
        known_as: ("AES_GCM_16", Some("128"), None),
    },
    Cipher {
        keywords: "aes256gcm16",
        prf: "prfsha384",
        known_as: ("AES_GCM_16", Some("256"), None),
    },
    Cipher {
        keywords: "chacha20poly1305",
        prf: "prfsha512",
        known_as: ("CHACHA20_POLY1305", None, None),
    },
    Cipher {
        keywords: "aes128-sha256",
        prf: "prfsha256",
        known_as: ("AES_CBC", Some("128"), Some("HMAC_SHA2_256_128")),
    },
    Cipher {
        keywords: "aes256-sha256",
        prf: "prfsha256",
        known_as: ("AES_CBC", Some("256"), Some("HMAC_SHA2_256_128")),
    },
    Cipher {
        keywords: "aes256-sha384",
        prf: "prfsha384",
        known_as: ("AES_CBC", Some("256"), Some("HMAC_SHA2_384_192")),
    },
    Cipher {
        keywords: "aes256-sha512",
        prf: "prfsha512",
        known_as: ("AES_CBC", Some("256"), Some("HMAC_SHA2_512_256")),
    },
];

impl Cipher {
    fn play(&self, lab: &Lab, role: Role) -> Result<String> {
        let ike = format!("{}-{}-x25519", self.keywords, self.prf);
        let plan = Plan::shared_key(role).suite(&ike, self.keywords);
        let pair = Pair::connected(lab, plan)?;
        let (_, theirs) = pair.ike_sa()?;
        let child = pair.swan.child(NET)?;
        for facts in [&theirs.facts, &child.facts] {
            let fact = |key: &str| facts.get(key).map(String::as_str);
            let seen = (fact("encr-alg"), fact("encr-keysize"), fact("integ-alg"));
            let (encryption, length, integrity) = self.known_as;
            ensure!(
                seen == (Some(encryption), length, integrity),
                "strongSwan has {facts:?}"
            );
        }
        let told = pair.carry()?;
        // Sizes around the block size and up to what fits show padding and lengths.
        let (near, far) = (pair.near(), pair.far());
        for size in ["0", "1", "15", "16", "17", "1300"] {
            near.host
                .exec(["ping", "-n", "-q", "-c1", "-W2", "-s", size, far.host4])?;
        }
        Ok(told)
    }
}
